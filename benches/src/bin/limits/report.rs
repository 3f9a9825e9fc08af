//! The report, as tables and as JSON.

use crate::phases::Phase;
use crate::primitives::Primitives;
use crate::summary::{Bar, Ratio, Summary, all_threads};
use comfy_table::Table;
use keepstone_benches::meter::Work;
use keepstone_benches::table::{float, mib, new_table};
use serde_json::{Value, json};

/// Rates are in units of 1,000,000,000 bytes each second, as those of disks and memory are.
const GB: f64 = 1e9;
const MIB: f64 = 1_048_576.0;

/// Everything measured once.
pub(crate) struct Round {
    pub(crate) primitives: Primitives,
    pub(crate) phases: Vec<Phase>,
}

/// Everything that was measured, and on what.
pub(crate) struct Report {
    pub(crate) image: String,
    pub(crate) disk_bytes: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) threads: usize,
    pub(crate) level: i32,
    /// At least one.
    pub(crate) rounds: Vec<Round>,
}

/// How the threads' times make up the time of a primitive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// Added up.
    Threads,
    /// As a whole.
    Whole,
}

impl Report {
    /// Returns one JSON object with all rounds, their medians and the ratios; sizes in bytes.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let summary = Summary::new(&self.rounds, self.threads);
        let round = |primitives: &Primitives, phases: &[Phase]| {
            let works: serde_json::Map<String, Value> =
                parts(primitives).into_iter().map(|part| self.part_json(part)).collect();
            json!({ "primitives": works, "phases": phases })
        };
        let rounds: Vec<Value> =
            self.rounds.iter().map(|each| round(&each.primitives, &each.phases)).collect();
        let object = json!({
            "image": self.image,
            "diskBytes": self.disk_bytes,
            "allocatedBytes": self.allocated_bytes,
            "threads": self.threads,
            "level": self.level,
            "median": round(&summary.primitives, &summary.phases),
            "ratios": summary.ratios.iter().map(ratio_json).collect::<Vec<_>>(),
            "rounds": rounds,
        });
        Ok(serde_json::to_string_pretty(&object)? + "\n")
    }

    fn part_json(&self, (name, work, timing): Part<'_>) -> (String, Value) {
        let threads = if timing == Timing::Threads { self.threads } else { 1 };
        let object = json!({
            "bytes": work.bytes,
            "wallSeconds": work.wall.as_secs_f64(),
            "cpuSeconds": work.cpu.as_secs_f64(),
            "bytesPerSecond": all_threads(work, threads),
        });
        (name.to_owned(), object)
    }

    /// Returns the tables of the medians.
    pub(crate) fn text(&self) -> String {
        let Self { image, threads, level, rounds, .. } = self;
        let summary = Summary::new(rounds, *threads);
        format!(
            "{image}: {} MiB, of which {} MiB are read; {threads} threads, zstd level {level}, {} rounds, medians\n\n\
             The bare parts on the same data, in GB/s\n{}\n\n\
             Backups and restores; sizes in MiB, times in seconds\n{}\n\n\
             Ratios\n{}\n",
            mib(self.disk_bytes),
            mib(self.allocated_bytes),
            rounds.len(),
            self.parts_table(&summary.primitives),
            phases_table(&summary.phases),
            ratios_table(&summary.ratios),
        )
    }

    fn parts_table(&self, primitives: &Primitives) -> Table {
        let mut table = new_table(&["part", "MiB", "a thread", "all threads", "CPU s"]);
        for (name, work, timing) in parts(primitives) {
            let one = all_threads(work, 1) / GB;
            let (one, all) = match timing {
                Timing::Threads => {
                    (format!("{one:.2}"), format!("{:.2}", all_threads(work, self.threads) / GB))
                }
                Timing::Whole if work.cpu.is_zero() => (String::new(), format!("{one:.2}")),
                Timing::Whole => (format!("{one:.2}"), String::new()),
            };
            let cpu = work.cpu.as_secs_f64();
            let cpu = if work.cpu.is_zero() { String::new() } else { format!("{cpu:.2}") };
            table.add_row([name.to_owned(), mib(work.bytes), one, all, cpu]);
        }
        table
    }
}

type Part<'a> = (&'static str, &'a Work, Timing);

fn parts(all: &Primitives) -> [Part<'_>; 9] {
    use Timing::{Threads, Whole};
    [
        ("read in order", &all.sequential_read, Whole),
        ("read regions", &all.read, Threads),
        ("chunk", &all.chunk, Threads),
        ("chunk + hash", &all.chunk_hash, Threads),
        ("zstd, distinct chunks", &all.compress, Threads),
        ("AES-256-GCM, what that left", &all.seal, Threads),
        ("open + decompress + hash", &all.open, Threads),
        ("write a new file and sync", &all.write, Whole),
        ("write it past the page cache", &all.write_directly, Whole),
    ]
}

fn phases_table(phases: &[Phase]) -> Table {
    let mut table = new_table(&[
        "phase", "wall", "CPU", "caller", "sys", "peak mem", "changed", "read", "new", "GB/s", "stored",
        "metadata", "put", "get", "list",
    ]);
    for phase in phases {
        let cost = &phase.cost;
        let requests = &phase.requests;
        let moved = phase.read_bytes.max(phase.new_bytes);
        table.add_row([
            phase.name.as_str().to_owned(),
            format!("{:.2}", cost.wall_seconds),
            format!("{:.2}", cost.cpu_seconds),
            format!("{:.2}", cost.caller_seconds),
            format!("{:.2}", cost.system_seconds),
            mib(cost.peak_rss_bytes),
            mib(phase.changed_bytes),
            mib(phase.read_bytes),
            mib(phase.new_bytes),
            format!("{:.2}", float(moved) / cost.wall_seconds / GB),
            mib(phase.stored_bytes),
            format!("{:.2}", float(phase.metadata_bytes) / MIB),
            requests.put.to_string(),
            requests.get.to_string(),
            requests.list.to_string(),
        ]);
    }
    table
}

fn ratios_table(ratios: &[Ratio]) -> Table {
    let mut table = new_table(&["what", "measured", "bar", ""]);
    for ratio in ratios {
        let bar = match ratio.bar {
            Bar::AtLeast(least) => format!("at least {least}"),
            Bar::AtMost(most) => format!("at most {most}"),
            Bar::None => String::new(),
        };
        let met = ratio.is_met().map_or("", |met| if met { "met" } else { "MISSED" });
        table.add_row([ratio.what.to_owned(), format!("{:.3}", ratio.value), bar, met.to_owned()]);
    }
    table
}

fn ratio_json(ratio: &Ratio) -> Value {
    let (at_least, at_most) = match ratio.bar {
        Bar::AtLeast(least) => (Some(least), None),
        Bar::AtMost(most) => (None, Some(most)),
        Bar::None => (None, None),
    };
    json!({ "what": ratio.what, "value": ratio.value, "atLeast": at_least, "atMost": at_most, "met": ratio.is_met() })
}
