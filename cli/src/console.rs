//! What the program says: data on standard output, everything else on standard error.

use crate::progress::Screen;
use crate::settings::Verbosity;
use anyhow::Context as _;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

/// How reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text for people.
    Text,
    /// One JSON object.
    Json,
}

/// Which stream reports go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Output,
    /// Standard error: standard output carries a disk.
    Error,
}

/// The program's output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    format: Format,
    verbosity: Verbosity,
    report_to: Stream,
}

impl Console {
    /// Makes one that reports on standard output.
    pub(crate) fn new(format: Format, verbosity: Verbosity) -> Self {
        Self { format, verbosity, report_to: Stream::Output }
    }

    /// Whether reports are for programs.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// The same with reports on standard error.
    pub(crate) fn reporting_on_stderr(self) -> Self {
        Self { report_to: Stream::Error, ..self }
    }

    /// Writes the result of a command: as one JSON object, or as the text that `text` makes.
    ///
    /// # Errors
    /// A stream that cannot be written.
    pub(crate) fn report<R: Serialize>(
        self,
        report: &R,
        text: impl FnOnce(&R) -> String,
    ) -> anyhow::Result<()> {
        let rendered = match self.format {
            Format::Text => printable(&text(report)),
            Format::Json => {
                let mut json =
                    serde_json::to_string_pretty(report).context("could not write the report as JSON")?;
                json.push('\n');
                json
            }
        };
        self.write(rendered.as_bytes())
    }

    /// Writes data as it is.
    ///
    /// # Errors
    /// A stream that cannot be written.
    pub(crate) fn write(self, data: &[u8]) -> anyhow::Result<()> {
        let written = match self.report_to {
            Stream::Output => {
                let mut out = io::stdout().lock();
                out.write_all(data).and_then(|()| out.flush())
            }
            Stream::Error => io::stderr().write_all(data),
        };
        match written {
            // `| head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("could not write the output"),
        }
    }

    /// Tells something that is good to know.
    pub(crate) fn message(self, text: &str) {
        if self.verbosity != Verbosity::Quiet {
            say(text);
        }
    }

    /// Whether progress bars are to be drawn.
    pub(crate) fn draws_progress(self) -> bool {
        self.verbosity == Verbosity::Progress && io::stderr().is_terminal()
    }
}

/// Tells something that somebody should look at.
pub(crate) fn warn(text: &str) {
    tell("warning: ", text);
}

thread_local! {
    /// What the messages of this thread are about, and the screen that a bar may be drawn on meanwhile. It belongs to a
    /// thread, because what is done for one of several VMs is done by one, and much of it is told from deep below.
    static ABOUT: RefCell<Option<(String, Screen)>> = const { RefCell::new(None) };
}

/// From now on the messages of this thread say what they are about, and leave the bar on the screen intact.
pub(crate) fn about(what: &str, screen: &Screen) {
    ABOUT.set(Some((what.to_owned(), screen.clone())));
}

/// Tells the failure of what the messages of this thread are about, which keeps nothing else from going on. The text is that
/// of a failure of the program.
pub(crate) fn fail(text: &str) {
    let told = || {
        let _ = io::stderr().write_all(printable(text).as_bytes());
    };
    ABOUT.with_borrow(|about| match about {
        Some((what, screen)) => screen.suspended(|| {
            say_now(&format!("{what}: the backup failed"));
            told();
        }),
        None => told(),
    });
}

/// As [`warn`], while the screen is held: whatever it is about.
pub(crate) fn warn_now(text: &str) {
    say_now(&format!("warning: {text}"));
}

/// The text with everything that could steer a terminal written out; line ends stay.
fn printable(text: &str) -> String {
    let steers = |character: char| {
        let is_control = character.is_control() && character != '\n';
        is_control
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if steers(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Foreign text for one line of output.
pub(crate) fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// Says something on standard error.
pub(crate) fn say(text: &str) {
    tell("", text);
}

fn tell(kind: &str, text: &str) {
    ABOUT.with_borrow(|about| match about {
        Some((what, screen)) => screen.suspended(|| say_now(&format!("{kind}{what}: {text}"))),
        None => say_now(&format!("{kind}{text}")),
    });
}

fn say_now(text: &str) {
    // Nothing is left to report to when standard error is closed.
    let _ = writeln!(io::stderr(), "keepstone: {}", printable(text));
}

/// A table without lines: readable without colour and easy to cut into columns.
///
/// Columns in `right` are aligned to the right, as numbers are.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    right: &[usize],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    wide_table(&headings, right, rows.into_iter().map(Vec::from))
}

/// As [`table`], where the number of columns is known only when it is made.
pub(crate) fn wide_table(
    headings: &[impl AsRef<str>],
    right: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.as_ref().to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for (position, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&position) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines(table.lines().map(|line| line.trim_end().to_owned()))
}

/// What a report of one object shows: a name and a value in each line, aligned.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines(facts.iter().map(|(name, value)| format!("{name:width$}  {value}")))
}

/// A text of lines.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().fold(String::new(), |text, line| text + &line + "\n")
}
