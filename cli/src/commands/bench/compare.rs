//! A run beside an earlier one.

use super::result::{BenchResult, KIND, Spread, VERSION};
use super::text::{rate, share};
use crate::console::one_line;
use crate::exit::Usage;
use crate::numbers::size;
use anyhow::Context as _;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// More than any result has.
const LEN_MAX: u64 = 64 << 20;
/// Characters of what a file says that errors repeat.
const SHOWN_MAX: usize = 200;

/// Reads the JSON report of an earlier run.
///
/// # Errors
/// A file that cannot be read, or is none.
pub(super) fn read(path: &Path) -> anyhow::Result<BenchResult> {
    let shown = path.display();
    let could_not = || format!("could not read the earlier result {shown}");
    let refused = |why: &str| {
        Usage::new(format!("{shown} is no result of bench: {}", shortened(why)))
            .hint("make one with `keepstone --json bench > FILE`")
    };
    let bytes = read_up_to(path, LEN_MAX).with_context(could_not)?;
    let bytes = bytes.ok_or_else(|| refused("it is too long"))?;
    let json: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| refused(&error.to_string()))?;
    if json["kind"] != KIND {
        return Err(refused("it does not say that it is one").into());
    }
    if json["version"] != VERSION {
        let found = shortened(&json["version"].to_string());
        let what = format!("{shown} has version {found}, and only version {VERSION} can be compared");
        return Err(Usage::new(what)
            .hint("measure again with this version, or compare with the one that made it")
            .into());
    }
    Ok(serde_json::from_value(json).map_err(|error| refused(&error.to_string()))?)
}

/// Reads a file, whatever it is; nothing if it is longer than `len_max`.
fn read_up_to(path: &Path, len_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // What a device tells of its length says nothing.
    File::open(path)?.take(len_max + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= len_max).then_some(bytes))
}

/// Foreign text for an error: short, and with everything written out that is not to be seen.
fn shortened(text: &str) -> String {
    let mut shown = String::new();
    for (number, character) in text.chars().enumerate() {
        if number == SHOWN_MAX {
            shown.push_str("...");
            break;
        }
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// Something that two machines or runs differ in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) what: &'static str,
    pub(super) then: String,
    pub(super) now: String,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unit {
    BytesPerSecond,
    Seconds,
}

impl Unit {
    fn more_is_better(self) -> bool {
        self == Self::BytesPerSecond
    }

    /// A figure for people.
    pub(super) fn words(self, figure: f64) -> String {
        match self {
            Self::BytesPerSecond => rate(figure),
            Self::Seconds => format!("{figure:.3} s"),
        }
    }
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Better,
    Worse,
    /// Both runs had figures among those of the other one.
    WithinNoise,
    /// A run of one round does not tell how far its figures vary.
    Unknown,
}

impl Verdict {
    /// The verdict in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::WithinNoise => "within noise",
            Self::Unknown => "unknown",
        }
    }
}

/// A figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Change {
    pub(super) figure: String,
    pub(super) unit: Unit,
    pub(super) then: Spread,
    pub(super) now: Spread,
    /// How much the median grew, in parts of one.
    pub(super) relative: f64,
    pub(super) verdict: Verdict,
}

/// Two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Comparison {
    /// When the earlier one was, in milliseconds since 1970, and what made it.
    pub(super) time: u64,
    pub(super) program: String,
    /// With any of these, the figures tell little of the program.
    pub(super) differences: Vec<Difference>,
    pub(super) changes: Vec<Change>,
    /// Figures that only one of the runs has.
    pub(super) unmatched: usize,
}

/// Puts `now` beside `then`.
pub(super) fn compare(then: &BenchResult, now: &BenchResult) -> Comparison {
    let (earlier, later) = (figures(then), figures(now));
    let rounds = then.setting.rounds.min(now.setting.rounds);
    let changes: Vec<Change> = later
        .iter()
        .filter_map(|(figure, unit, now)| {
            let (_, _, then) = earlier.iter().find(|(name, _, _)| name == figure)?;
            Some(change(figure, *unit, *then, *now, rounds))
        })
        .collect();
    Comparison {
        time: then.time,
        program: then.program.clone(),
        differences: differences(then, now),
        unmatched: earlier.len() + later.len() - 2 * changes.len(),
        changes,
    }
}

fn change(figure: &str, unit: Unit, then: Spread, now: Spread, rounds: usize) -> Change {
    let relative = if then.median > 0.0 { now.median / then.median - 1.0 } else { 0.0 };
    let overlap = then.low <= now.high && now.low <= then.high;
    let verdict = match (rounds, overlap) {
        (0 | 1, _) => Verdict::Unknown,
        (_, true) => Verdict::WithinNoise,
        (_, false) if (relative > 0.0) == unit.more_is_better() => Verdict::Better,
        (_, false) => Verdict::Worse,
    };
    Change { figure: figure.to_owned(), unit, then, now, relative, verdict }
}

/// All figures with their names.
fn figures(result: &BenchResult) -> Vec<(String, Unit, Spread)> {
    let stages = result.stages.iter().map(|figure| {
        let name = format!("{}, {}", figure.words(), crate::numbers::count(figure.threads as u64, "thread"));
        (name, Unit::BytesPerSecond, figure.bytes_per_second)
    });
    let requests = result.requests.iter().map(|figure| {
        let name = format!("{} {}, {} at once", figure.operation.words(), size(figure.bytes), figure.at_once);
        (name, Unit::BytesPerSecond, figure.bytes_per_second)
    });
    let runs = result.runs.iter().map(|figure| (figure.words(), Unit::Seconds, figure.seconds));
    stages.chain(requests).chain(runs).collect()
}

/// What makes figures of two runs incomparable.
fn differences(then: &BenchResult, now: &BenchResult) -> Vec<Difference> {
    let facts = |result: &BenchResult| {
        let (machine, setting, disk) = (&result.machine, &result.setting, &result.disk);
        let source = match (&disk.image, disk.seed) {
            (Some(image), _) => one_line(image),
            (None, seed) => format!("synthetic, seed {}", seed.unwrap_or(0)),
        };
        [
            ("program", result.program.clone()),
            ("processor", one_line(&machine.processor)),
            ("processors", machine.processors.to_string()),
            ("memory", size(machine.memory_bytes)),
            ("kernel", one_line(&machine.kernel)),
            ("threads", setting.threads.to_string()),
            ("disk", source),
            ("measured", size(disk.measured_bytes)),
            (
                "store",
                if setting.store == "azure" { one_line(&setting.place) } else { setting.store.clone() },
            ),
            ("scratch file system", setting.scratch_file_system.clone()),
            ("compression", setting.compression.clone()),
            ("chunker", setting.chunker.clone()),
            ("pack length", size(setting.pack_bytes)),
            (
                "upload limit",
                setting.limit_upload.map_or_else(|| "none".to_owned(), |limit| format!("{}/s", size(limit))),
            ),
            ("rounds", setting.rounds.to_string()),
            ("quick", setting.quick.to_string()),
        ]
    };
    let pairs = facts(then).into_iter().zip(facts(now));
    pairs
        .filter(|((_, then), (_, now))| then != now)
        .map(|((what, then), (_, now))| Difference { what, then, now })
        .collect()
}

/// A change for people.
pub(super) fn signed(change: f64) -> String {
    let sign = if change < 0.0 { "-" } else { "+" };
    format!("{sign}{}", share(change.abs()))
}

#[cfg(test)]
mod tests {
    use super::super::analysis::tests::{MB, exactly, sample};
    use super::*;

    fn spread(low: f64, median: f64, high: f64) -> Spread {
        Spread { median, low, high }
    }

    #[test]
    fn a_figure_is_better_or_worse_only_beyond_the_noise() {
        let verdict = |unit, then, now, rounds| change("", unit, then, now, rounds).verdict;
        let (slow, fast, wide) = (spread(8.0, 9.0, 10.0), spread(11.0, 12.0, 13.0), spread(9.5, 12.0, 14.0));
        assert_eq!(verdict(Unit::BytesPerSecond, slow, fast, 3), Verdict::Better);
        assert_eq!(verdict(Unit::BytesPerSecond, fast, slow, 3), Verdict::Worse);
        assert_eq!(verdict(Unit::Seconds, slow, fast, 3), Verdict::Worse);
        assert_eq!(verdict(Unit::Seconds, fast, slow, 3), Verdict::Better);
        assert_eq!(verdict(Unit::Seconds, slow, wide, 3), Verdict::WithinNoise);
        assert_eq!(verdict(Unit::Seconds, slow, fast, 1), Verdict::Unknown);
        let told = [change("", Unit::Seconds, slow, fast, 3), change("", Unit::Seconds, fast, slow, 3)];
        assert_eq!(told.map(|change| signed(change.relative)), ["+33 %", "-25 %"]);
    }

    #[test]
    fn two_runs_are_compared_figure_by_figure() {
        let then = sample(100.0);
        let mut now = sample(150.0);
        now.machine.processors = 4;
        now.stages.pop();
        now.runs[0].seconds = exactly(9.0);
        let Comparison { differences, changes, unmatched, .. } = compare(&then, &now);
        let processors = Difference { what: "processors", then: "2".to_owned(), now: "4".to_owned() };
        assert_eq!((differences, unmatched), (vec![processors], 1));
        let differing: Vec<_> =
            changes.iter().filter(|change| change.verdict != Verdict::WithinNoise).collect();
        let [put, full] = &differing[..] else { panic!("{differing:?}") };
        assert_eq!((put.figure.as_str(), put.verdict), ("put 38.1 MiB, 4 at once", Verdict::Better));
        assert_eq!((put.then, put.now), (exactly(100.0 * MB), exactly(150.0 * MB)));
        assert_eq!(
            (full.figure.as_str(), full.verdict, signed(full.relative)),
            ("full backup", Verdict::Worse, "+100 %".to_owned())
        );
        assert!(compare(&then, &then).changes.iter().all(|change| change.verdict == Verdict::WithinNoise));
    }

    #[test]
    fn what_is_too_long_is_not_read_to_its_end() {
        let zeros = Path::new("/dev/zero");
        assert_eq!(read_up_to(zeros, 1000).unwrap(), None);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"1234").unwrap();
        assert_eq!(read_up_to(&path, 4).unwrap(), Some(b"1234".to_vec()));
        assert_eq!(read_up_to(&path, 3).unwrap(), None);
    }

    #[test]
    fn errors_repeat_little_of_a_file_and_nothing_that_steers_a_terminal() {
        assert_eq!(shortened("a\u{1b}[2J\n\u{202e}\"é\\"), "a\\u{1b}[2J\\n\\u{202e}\"é\\");
        assert_eq!(shortened(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(shortened(&"x".repeat(201)), format!("{}...", "x".repeat(200)));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("result.json");
        let mut json = serde_json::to_value(sample(100.0)).unwrap();
        json["runs"][0]["run"] = format!("\u{1b}[31m{}", "x".repeat(1000)).into();
        std::fs::write(&path, json.to_string()).unwrap();
        let refused = read(&path).unwrap_err().to_string();
        assert!(
            refused.contains("unknown variant `\\u{1b}[31mxxx") && refused.ends_with("xxx..."),
            "{refused}"
        );
        assert!(!refused.contains(char::is_control), "{refused:?}");
    }

    #[test]
    fn a_result_is_read_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("result.json");
        let result = sample(100.0);
        std::fs::write(&path, serde_json::to_vec(&result).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), result);
    }
}
