//! What a run measured: the JSON report, which a later run reads to compare itself with.

use super::analysis::Analysis;
use super::compare::Comparison;
use super::fleet::Prediction;
use crate::figures::Figures;
use serde::{Deserialize, Serialize};

/// What [`BenchResult::kind`] says.
pub(super) const KIND: &str = "keepstone-bench";
/// The version of the report's form. Figures of another version are not compared.
pub(super) const VERSION: u32 = 1;

/// All figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BenchResult {
    pub(super) kind: String,
    pub(super) version: u32,
    /// The program and its version.
    pub(super) program: String,
    /// When it began, in milliseconds since 1970.
    pub(super) time: u64,
    pub(super) machine: Machine,
    pub(super) setting: Setting,
    pub(super) disk: Disk,
    pub(super) stages: Vec<StageFigure>,
    pub(super) requests: Vec<RequestFigure>,
    pub(super) runs: Vec<RunFigure>,
}

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    /// The processor's name, as the kernel tells it.
    pub(super) processor: String,
    /// Processors that this process may use.
    pub(super) processors: usize,
    pub(super) memory_bytes: u64,
    pub(super) kernel: String,
    /// The average number of tasks that ran in the minute before.
    pub(super) load: f64,
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Setting {
    pub(super) quick: bool,
    pub(super) rounds: usize,
    /// Threads that computed at most.
    pub(super) threads: usize,
    /// How whole runs compress: a level, or "auto".
    pub(super) compression: String,
    /// That level, or the one that "auto" begins with: what was sealed and opened was compressed so.
    pub(super) level: i32,
    /// What was stored in: "directory" or "azure".
    pub(super) store: String,
    /// Where that is.
    pub(super) place: String,
    /// The file system of the scratch directory.
    pub(super) scratch_file_system: String,
    pub(super) chunker: String,
    pub(super) pack_bytes: u64,
    /// Packs that a backup puts at a time.
    pub(super) puts_at_once: usize,
    /// The most bytes a second that may be sent, if there is a limit.
    pub(super) limit_upload: Option<u64>,
}

/// What it was measured with; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disk {
    /// The image, or nothing if the disk is synthetic.
    pub(super) image: Option<String>,
    /// The synthetic disk's seed.
    pub(super) seed: Option<u64>,
    /// Its mix, in parts of one.
    pub(super) mix: Option<Mix>,
    /// Of the image or the synthetic disk.
    pub(super) source_bytes: u64,
    /// Of that, what is allocated.
    pub(super) allocated_bytes: u64,
    /// What whole runs back up: all of the disk, or pieces of it.
    pub(super) measured_bytes: u64,
    /// Of that, what is allocated.
    pub(super) measured_allocated_bytes: u64,
    /// What the stages work on, pieces of the disk in memory.
    pub(super) sample_bytes: u64,
    /// Of that, what is not zero.
    pub(super) sample_data_bytes: u64,
    /// Chunks of that.
    pub(super) sample_chunks: u64,
}

/// What a synthetic disk consists of, in parts of one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mix {
    pub(super) zero: f64,
    pub(super) text: f64,
    pub(super) binary: f64,
    pub(super) incompressible: f64,
}

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// The median and the ends of some figures; nothing without any.
    pub(super) fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, low, high })
    }

    /// How far the ends are apart, in parts of the median.
    pub(super) fn width(self) -> f64 {
        if self.median > 0.0 { (self.high - self.low) / self.median } else { 0.0 }
    }
}

/// The stages, by the names that reports have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StageName {
    /// Regions of the source, after the system was asked to forget what it has of it in memory.
    ReadCold,
    /// The same from memory, where the system keeps it there.
    Read,
    Chunk,
    Hash,
    ChunkHash,
    Compress,
    Decompress,
    Seal,
    Open,
}

impl StageName {
    /// The stage in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::ReadCold => "source read, cold",
            Self::Read => "source read, cached",
            Self::Chunk => "chunk",
            Self::Hash => "hash",
            Self::ChunkHash => "chunk + hash",
            Self::Compress => "compress",
            Self::Decompress => "decompress",
            Self::Seal => "seal",
            Self::Open => "open + decompress + check",
        }
    }
}

/// The rate of a stage with some threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StageFigure {
    pub(super) stage: StageName,
    /// zstd's level, of compression.
    pub(super) level: Option<i32>,
    pub(super) threads: usize,
    pub(super) bytes_per_second: Spread,
    /// What compression leaves, in parts of one.
    pub(super) ratio: Option<f64>,
}

impl StageFigure {
    /// The stage and its level in words.
    pub(super) fn words(&self) -> String {
        match self.level {
            Some(level) => format!("{}, level {level}", self.stage.words()),
            None => self.stage.words().to_owned(),
        }
    }
}

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Operation {
    Put,
    Get,
}

impl Operation {
    /// The operation in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
        }
    }
}

/// Requests of one kind to the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestFigure {
    pub(super) operation: Operation,
    /// Of one request.
    pub(super) bytes: u64,
    /// Requests at one time.
    pub(super) at_once: usize,
    /// Requests of all rounds together.
    pub(super) requests: usize,
    pub(super) bytes_per_second: Spread,
    pub(super) latency_micros: Latency,
}

/// How long requests of all rounds took, in microseconds: so many per cent were answered within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

impl Latency {
    /// The percentiles by nearest rank; nothing without any.
    pub(super) fn of(micros: &[u64]) -> Option<Self> {
        let mut sorted = micros.to_vec();
        sorted.sort_unstable();
        let max = *sorted.last()?;
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self { p50: at(50), p90: at(90), p99: at(99), max })
    }
}

/// The whole runs, by the names that reports have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RunName {
    /// A first backup.
    Full,
    /// A later one that knows what changed.
    Incremental,
    /// A restore that throws away what it restores.
    Restore,
    /// A restore to a file in the scratch directory.
    RestoreToFile,
}

/// A whole run; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunFigure {
    pub(super) run: RunName,
    /// Of an incremental backup: how much of what is allocated changed, in parts per million.
    pub(super) change_ppm: Option<u32>,
    pub(super) seconds: Spread,
    /// Of a full backup what is allocated, of an incremental one what changed, of a restore what was written.
    pub(super) bytes: u64,
    /// Read of the disk.
    pub(super) read_bytes: u64,
    /// Before compression.
    pub(super) new_bytes: u64,
    pub(super) stored_bytes: u64,
    /// Of that, maps and indexes.
    pub(super) metadata_bytes: u64,
    /// Fetched from the store.
    pub(super) fetched_bytes: u64,
    /// Data packs and map packs.
    pub(super) packs: u64,
    pub(super) requests: RunRequests,
}

/// Requests of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunRequests {
    pub(super) put: u64,
    pub(super) get: u64,
    pub(super) list: u64,
}

impl RunFigure {
    /// The run in words.
    pub(super) fn words(&self) -> String {
        match (self.run, self.change_ppm) {
            (RunName::Full, _) => "full backup".to_owned(),
            (RunName::Incremental, ppm) => format!("incremental, {} changed", percent(ppm.unwrap_or(0))),
            (RunName::Restore, _) => "restore to nothing".to_owned(),
            (RunName::RestoreToFile, _) => "restore to a file".to_owned(),
        }
    }

    /// Its bytes a second.
    pub(super) fn rate(&self) -> f64 {
        per_second(self.bytes, self.seconds.median)
    }
}

/// Parts per million as per cent.
pub(super) fn percent(ppm: u32) -> String {
    let (whole, decimals) = (ppm / 10_000, ppm % 10_000);
    if decimals == 0 {
        return format!("{whole} %");
    }
    let decimals = format!("{decimals:04}");
    format!("{whole}.{} %", decimals.trim_end_matches('0'))
}

/// Bytes as a number for calculations.
#[expect(clippy::cast_precision_loss, reason = "figures need no more than 15 digits")]
pub(super) fn number(bytes: u64) -> f64 {
    bytes as f64
}

/// A rate; of nothing in no time it is zero.
pub(super) fn per_second(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { number(bytes) / seconds } else { 0.0 }
}

impl BenchResult {
    /// The figure of a stage.
    pub(super) fn stage(&self, stage: StageName, level: Option<i32>, threads: usize) -> Option<&StageFigure> {
        self.stages
            .iter()
            .find(|figure| figure.stage == stage && figure.level == level && figure.threads == threads)
    }

    /// The numbers of threads that were measured, in order.
    pub(super) fn threads(&self) -> Vec<usize> {
        let mut threads: Vec<usize> = self.stages.iter().map(|figure| figure.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        threads
    }
}

/// What a command prints as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    #[serde(flatten)]
    pub(super) result: &'a BenchResult,
    #[serde(flatten)]
    pub(super) analysis: &'a Analysis,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fleet: Option<&'a Prediction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comparison: Option<&'a Comparison>,
    pub(super) figures: &'a Figures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_has_both_ends() {
        let of =
            |figures: &[f64]| Spread::of(figures).map(|Spread { median, low, high }| (median, low, high));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[5.0]), Some((5.0, 5.0, 5.0)));
        assert_eq!(of(&[9.0, 1.0, 4.0]), Some((4.0, 1.0, 9.0)));
        assert_eq!(of(&[9.0, 1.0, 4.0, 2.0]), Some((3.0, 1.0, 9.0)));
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let all: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(Latency::of(&all), Some(Latency { p50: 100, p90: 180, p99: 198, max: 200 }));
        assert_eq!(Latency::of(&[7]), Some(Latency { p50: 7, p90: 7, p99: 7, max: 7 }));
        assert_eq!(Latency::of(&[]), None);
    }

    #[test]
    fn shares_have_the_decimals_that_they_need() {
        assert_eq!(
            [0, 1, 1_000, 25_000, 1_000_000].map(percent),
            ["0 %", "0.0001 %", "0.1 %", "2.5 %", "100 %"]
        );
    }
}
