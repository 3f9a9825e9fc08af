//! Draws what an operation tells, and passes on that it is to stop.

mod several;

pub(crate) use several::Several;

use crate::console::{Console, warn_now};
use crate::interrupt::Interrupt;
use crate::numbers::{count, size};
use crate::settings::Settings;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use keepstone_engine::Observer;
use keepstone_engine::observer::{Event, Notice, Phase};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a bar moves on its own, so that its rate and time stay true while nothing happens.
const TICK: Duration = Duration::from_millis(250);

const BYTES: &str = "{prefix} {wide_bar} {done}/{total}  {rate}  {eta} left{msg}";
const ITEMS: &str = "{prefix} {wide_bar} {pos}/{len}{msg}";
const WAITING: &str = "{prefix} {spinner}";
const COUNTING: &str = "{prefix} {spinner} {pos}";
const COPYING: &str = "{prefix} {spinner} {done}  {rate}";

/// Standard error of a terminal, with the bar that is drawn there, if any.
#[derive(Clone, Debug)]
pub(crate) struct Screen(Arc<Mutex<ProgressBar>>);

impl Default for Screen {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(ProgressBar::hidden())))
    }
}

impl Screen {
    // A panic in another thread leaves a bar that can be drawn all the same.
    fn bar(&self) -> MutexGuard<'_, ProgressBar> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells something that somebody should look at, above the bar.
    pub(crate) fn warn(&self, text: &str) {
        self.suspended(|| warn_now(text));
    }

    /// Does something while no bar is drawn.
    pub(crate) fn suspended(&self, action: impl FnOnce()) {
        self.bar().suspend(action);
    }
}

/// An observer that draws a progress bar on standard error and stops the operation when it is interrupted.
pub(crate) struct Progress {
    console: Console,
    interrupt: Interrupt,
    screen: Screen,
    transferred: AtomicU64,
    stop_told: AtomicBool,
}

impl Progress {
    /// Begins to watch an operation.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            console: settings.console,
            interrupt: settings.interrupt.clone(),
            screen: settings.screen.clone(),
            transferred: AtomicU64::new(0),
            stop_told: AtomicBool::new(false),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar().finish_and_clear();
    }

    fn bar(&self) -> MutexGuard<'_, ProgressBar> {
        self.screen.bar()
    }

    fn begin(&self, phase: &Phase, total: u64) {
        tracing::info!(?phase, total, "a phase begins");
        let mut bar = self.bar();
        bar.finish_and_clear();
        self.transferred.store(0, Ordering::Relaxed);
        if self.console.draws_progress() {
            *bar = new_bar(phase, total);
        }
    }

    fn transferred(&self, phase_bytes: u64) {
        let bytes = self.transferred.fetch_add(phase_bytes, Ordering::Relaxed) + phase_bytes;
        let bar = self.bar();
        if !bar.is_hidden() {
            bar.set_message(format!("  {} moved", size(bytes)));
        }
    }
}

/// What a notice says.
fn words(notice: &Notice) -> String {
    match notice {
        Notice::IndexSkipped { name, reason } => {
            format!("index {name} is left out, so more may be stored than needed: {reason}")
        }
        Notice::Unreadable { name, reason } => {
            format!("{name} cannot be read and counts as absent; `keepstone verify` tells more: {reason}")
        }
        Notice::PackLost { name } => {
            format!("{name} is missing or has another length; what it held of this VM is stored again")
        }
        Notice::UnfinishedAborted { session, packs, bytes } => {
            let packs = count(*packs, "pack");
            let bytes = size(*bytes);
            format!(
                "session {session} was never ended; of the {packs} of {bytes} that it stored, what an index \
                     lists is used again"
            )
        }
        Notice::SessionAborted { session } => {
            format!("session {session} was aborted by another process; the backup begins again")
        }
        other => format!("{other:?}"),
    }
}

impl Observer for Progress {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        match &event {
            Event::Phase { phase, total } => self.begin(phase, *total),
            Event::Progress(amount) => self.bar().inc(*amount),
            Event::Transferred(bytes) => self.transferred(*bytes),
            Event::Notice(notice) => self.screen.warn(&words(notice)),
            other => tracing::debug!(?other, "an event"),
        }
        if !self.interrupt.is_raised() {
            return ControlFlow::Continue(());
        }
        if !self.stop_told.swap(true, Ordering::Relaxed) {
            self.bar().suspend(|| self.console.message("stopping; interrupt again to stop at once"));
        }
        ControlFlow::Break(())
    }
}

fn new_bar(phase: &Phase, total: u64) -> ProgressBar {
    let (prefix, template) = match phase {
        Phase::SyncIndex => ("index".to_owned(), BYTES),
        Phase::Backup { disk } => (format!("backup {disk}"), BYTES),
        Phase::Audit { disk } => (format!("audit {disk}"), BYTES),
        Phase::Commit => ("commit".to_owned(), WAITING),
        Phase::Restore { disk } => (format!("restore {disk}"), BYTES),
        // How much is in a directory is not known before.
        Phase::Copy if total == 0 => ("copy".to_owned(), COPYING),
        Phase::Copy => ("copy".to_owned(), BYTES),
        Phase::VerifyStructure => ("verify maps".to_owned(), ITEMS),
        Phase::RepairIndex => ("repair index".to_owned(), ITEMS),
        Phase::VerifyData => ("verify data".to_owned(), BYTES),
        Phase::Mark if total == 0 => ("mark".to_owned(), COUNTING),
        Phase::Mark => ("mark".to_owned(), ITEMS),
        Phase::MeasureUse => ("measure what is needed".to_owned(), ITEMS),
        Phase::Repack => ("pack again".to_owned(), BYTES),
        Phase::Replicate => ("replicate".to_owned(), COPYING),
        Phase::Delete => ("delete".to_owned(), ITEMS),
        Phase::Forget => ("forget".to_owned(), ITEMS),
        Phase::Measure { what } => (format!("measure {what}"), ITEMS),
        other => (format!("{other:?}"), ITEMS),
    };
    styled(prefix, template, total)
}

fn styled(prefix: String, template: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(template)
        .expect("the templates are constants")
        .with_key("done", |state: &ProgressState, out: &mut dyn std::fmt::Write| put(out, &size(state.pos())))
        .with_key("total", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            put(out, &size(state.len().unwrap_or_default()));
        })
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            put(out, &format!("{}/s", size(whole(state.per_sec()))));
        });
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar.set_prefix(prefix);
    bar.enable_steady_tick(TICK);
    bar
}

fn put(out: &mut dyn std::fmt::Write, text: &str) {
    // A part of a bar that cannot be drawn is left out.
    let _ = out.write_str(text);
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and a rate is shown"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}
