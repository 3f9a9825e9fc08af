//! What a run's figures mean: what limits backups and restores, and which settings fit. Pure.

use super::result::{BenchResult, Operation, RunName, StageName, number};
use super::text::{rate, share};
use serde::Serialize;

/// A faster setting must gain so much to be worth more space.
const WORTH: f64 = 0.9;
/// Fewer threads are as good as all of them if they do so much.
const AS_GOOD: f64 = 0.95;
/// Threads of a backup that read the source.
const READERS: usize = 2;

/// What a backup or a restore needs, each with something else to buy if it is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Resource {
    /// Reading the disk.
    Source,
    /// Chunking, hashing, compressing, sealing, and the way back.
    Processors,
    /// Putting packs and getting them: the network, or the disk of a local repository.
    Store,
    /// Writing a restored disk.
    Target,
}

impl Resource {
    /// The resource in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Source => "reading the disks",
            Self::Processors => "the processors",
            Self::Store => "the store",
            Self::Target => "writing the restored disk",
        }
    }
}

/// How fast something would be if nothing but one resource limited it; in bytes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limit {
    pub(super) resource: Resource,
    pub(super) bytes_per_second: f64,
    /// It bears this, and nobody knows how much more.
    pub(super) at_least: bool,
}

/// What limits a kind of run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bottleneck {
    pub(super) run: RunName,
    /// What is slowest.
    pub(super) resource: Resource,
    /// All limits, the lowest first.
    pub(super) limits: Vec<Limit>,
    /// What the whole run reached.
    pub(super) measured_bytes_per_second: f64,
    pub(super) in_words: String,
}

/// A setting that fits what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Recommendation {
    pub(super) setting: &'static str,
    pub(super) value: String,
    pub(super) reason: String,
}

/// What the figures mean.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Analysis {
    pub(super) bottlenecks: Vec<Bottleneck>,
    pub(super) recommendations: Vec<Recommendation>,
}

/// Rates that everything is predicted from, in bytes a second of what the stage counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    pub(super) source: f64,
    pub(super) chunk_hash: f64,
    pub(super) compress: f64,
    pub(super) seal: f64,
    pub(super) put: f64,
    pub(super) threads: usize,
}

/// What becomes of a byte of the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flow {
    pub(super) read: f64,
    /// Compressed.
    pub(super) new: f64,
    pub(super) stored: f64,
}

impl Rates {
    /// Those of a run with some threads and one of zstd's levels; nothing if something was not measured.
    pub(super) fn of(result: &BenchResult, level: i32, threads: usize) -> Option<Self> {
        let rate = |stage, level| Some(result.stage(stage, level, threads)?.bytes_per_second.median);
        let readers = result.threads().into_iter().rfind(|threads| *threads <= READERS)?;
        let read = |stage| Some(result.stage(stage, None, readers)?.bytes_per_second.median);
        // A synthetic disk is nowhere in particular: what reading costs is then what copying costs.
        let cold = result.disk.image.is_some().then(|| read(StageName::ReadCold)).flatten();
        Some(Self {
            source: cold.or_else(|| read(StageName::Read))?,
            chunk_hash: rate(StageName::ChunkHash, None)?,
            compress: rate(StageName::Compress, Some(level))?,
            seal: rate(StageName::Seal, None)?,
            put: pack_rate(result)?,
            threads,
        })
    }

    /// Seconds that each resource needs for so many bytes.
    pub(super) fn seconds(&self, flow: Flow) -> [(Resource, f64); 3] {
        let computed = flow.read / self.chunk_hash + flow.new / self.compress + flow.stored / self.seal;
        [
            (Resource::Source, flow.read / self.source),
            (Resource::Processors, computed),
            (Resource::Store, flow.stored / self.put),
        ]
    }

    /// The limits for a kind of flow for each byte of a disk, the lowest first.
    fn limits(&self, flow: Flow) -> Vec<Limit> {
        let limits = self.seconds(flow).into_iter().filter(|(_, seconds)| *seconds > 0.0);
        let limits = limits.map(|(resource, seconds)| Limit::of(resource, 1.0 / seconds));
        in_order(limits.collect())
    }
}

impl Limit {
    fn of(resource: Resource, bytes_per_second: f64) -> Self {
        Self { resource, bytes_per_second, at_least: false }
    }
}

/// The lowest first; those behind them of which only that is known which they bear at least.
fn in_order(mut limits: Vec<Limit>) -> Vec<Limit> {
    let bears = |a: &Limit, b: &Limit| a.bytes_per_second.total_cmp(&b.bytes_per_second);
    limits.sort_by(|a, b| a.at_least.cmp(&b.at_least).then(bears(a, b)));
    limits
}

/// The rate at which packs are put as a backup does it.
fn pack_rate(result: &BenchResult) -> Option<f64> {
    let puts = result.requests.iter().filter(|request| request.operation == Operation::Put);
    Some(puts.max_by_key(|request| (request.bytes, request.at_once))?.bytes_per_second.median)
}

/// The rate at which a restore gets what it needs.
fn get_rate(result: &BenchResult) -> Option<f64> {
    let gets = result.requests.iter().filter(|request| request.operation == Operation::Get);
    Some(gets.max_by_key(|request| (request.bytes, request.at_once))?.bytes_per_second.median)
}

/// What becomes of each byte of a first backup at a level.
fn flow_of_full(result: &BenchResult, level: i32) -> Option<Flow> {
    let full = result.runs.iter().find(|run| run.run == RunName::Full && run.bytes > 0)?;
    let new = number(full.new_bytes) / number(full.bytes);
    let most = result.threads().pop()?;
    let ratio = result.stage(StageName::Compress, Some(level), most)?.ratio?;
    Some(Flow { read: 1.0, new, stored: new * ratio })
}

/// Finds what the figures mean.
pub(super) fn analyse(result: &BenchResult) -> Analysis {
    let bottlenecks = [full(result), restore(result)].into_iter().flatten().collect();
    let recommendations = [compression(result), threads(result), limit_upload(result)];
    Analysis { bottlenecks, recommendations: recommendations.into_iter().flatten().collect() }
}

fn full(result: &BenchResult) -> Option<Bottleneck> {
    let level = result.setting.level;
    let (rates, flow) = (Rates::of(result, level, result.setting.threads)?, flow_of_full(result, level)?);
    let run = result.runs.iter().find(|run| run.run == RunName::Full)?;
    let limits = rates.limits(flow);
    let first = *limits.first()?;
    let mut in_words = limited("a first backup", &limits, run.rate());
    if first.resource == Resource::Processors {
        let parts = [
            ("chunking and hashing", flow.read / rates.chunk_hash),
            ("compressing", flow.new / rates.compress),
            ("sealing", flow.stored / rates.seal),
        ];
        let all: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
        let largest = parts.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let (what, takes) = (largest.0, share(largest.1 / all));
        in_words = format!("{in_words}; {what} takes {takes} of their time");
    }
    let measured_bytes_per_second = run.rate();
    Some(Bottleneck {
        run: RunName::Full,
        resource: first.resource,
        limits,
        measured_bytes_per_second,
        in_words,
    })
}

fn restore(result: &BenchResult) -> Option<Bottleneck> {
    let run = |name| result.runs.iter().find(move |run| run.run == name && run.bytes > 0);
    let (restore, to_file) = (run(RunName::Restore)?, run(RunName::RestoreToFile)?);
    let open = result.stage(StageName::Open, None, result.setting.threads)?.bytes_per_second.median;
    let fetched = number(restore.fetched_bytes) / number(restore.bytes);
    let mut limits = vec![Limit::of(Resource::Processors, open)];
    if fetched > 0.0 {
        limits.push(Limit::of(Resource::Store, get_rate(result)? / fetched));
    }
    // Of the two restores only the second one writes, while it reads: if it is slower, it waits for that.
    let at_least = to_file.seconds.median <= restore.seconds.median;
    let bytes_per_second = number(to_file.bytes) / to_file.seconds.median;
    limits.push(Limit { resource: Resource::Target, bytes_per_second, at_least });
    let limits = in_order(limits);
    let resource = limits.first()?.resource;
    let measured_bytes_per_second = to_file.rate();
    let in_words = limited("a restore to a file", &limits, measured_bytes_per_second);
    Some(Bottleneck { run: RunName::RestoreToFile, resource, limits, measured_bytes_per_second, in_words })
}

fn limited(what: &str, limits: &[Limit], measured: f64) -> String {
    let others: Vec<String> = limits
        .iter()
        .skip(1)
        .map(|limit| {
            let at_least = if limit.at_least { "at least " } else { "" };
            format!("{} would bear {at_least}{}", limit.resource.words(), rate(limit.bytes_per_second))
        })
        .collect();
    let Some(first) = limits.first() else { return String::new() };
    let (words, bears) = (first.resource.words(), rate(first.bytes_per_second));
    let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
    format!("{what} is limited by {words} to {bears}{others}, and reached {}", rate(measured))
}

/// The rate of first backups at a level and with some threads.
fn predicted(result: &BenchResult, level: i32, threads: usize) -> Option<f64> {
    let limits = Rates::of(result, level, threads)?.limits(flow_of_full(result, level)?);
    Some(limits.first()?.bytes_per_second)
}

/// The level that stores least among those that are hardly slower than the fastest.
fn compression(result: &BenchResult) -> Option<Recommendation> {
    let most = result.setting.threads;
    let figures =
        result.stages.iter().filter(|figure| figure.stage == StageName::Compress && figure.threads == most);
    let levels: Vec<(i32, f64, f64)> = figures
        .filter_map(|figure| {
            let level = figure.level?;
            Some((level, predicted(result, level, most)?, figure.ratio?))
        })
        .collect();
    let (fastest, best, _) = *levels.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let worth = levels.iter().filter(|(_, rate, _)| *rate >= WORTH * best);
    let &(level, predicted, ratio) = worth.min_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)))?;
    let leaves = format!("first backups at {}, new data to {}", rate(predicted), share(ratio));
    let reason = if level == fastest {
        format!(
            "{leaves}; no level that was measured is faster, and those that store less are more than a tenth slower"
        )
    } else {
        format!("{leaves}; level {fastest} would reach {}", rate(best))
    };
    Some(Recommendation { setting: "--compression", value: level.to_string(), reason })
}

/// As few threads as do as much as all of them.
fn threads(result: &BenchResult) -> Option<Recommendation> {
    let counts = result.threads();
    let level = result.setting.level;
    let of = |threads: &usize| predicted(result, level, *threads).map(|rate| (*threads, rate));
    let rates: Vec<(usize, f64)> = counts.iter().filter_map(of).collect();
    let best = rates.iter().map(|(_, rate)| *rate).max_by(f64::total_cmp)?;
    let &(enough, rate_of_enough) = rates.iter().find(|(_, rate)| *rate >= AS_GOOD * best)?;
    if enough == result.setting.threads {
        return None;
    }
    let reason =
        format!("{} with them, {} with {}", rate(rate_of_enough), rate(best), result.setting.threads);
    Some(Recommendation { setting: "--threads", value: enough.to_string(), reason })
}

/// A higher limit, if it is the limit.
fn limit_upload(result: &BenchResult) -> Option<Recommendation> {
    let limit = result.setting.limit_upload?;
    let bottleneck = full(result)?;
    let reached = pack_rate(result)? >= WORTH * number(limit);
    let next = bottleneck.limits.get(1)?.bytes_per_second;
    let stored = flow_of_full(result, result.setting.level)?.stored;
    (bottleneck.resource == Resource::Store && reached).then(|| Recommendation {
        setting: "--limit-upload",
        value: format!("{}MiB", (next * stored / 1_048_576.0).ceil()),
        reason: "the limit is what first backups wait for; more than this nothing else here would bear"
            .to_owned(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::result::{
        Disk, Latency, Machine, RequestFigure, RunFigure, RunRequests, Setting, Spread, StageFigure,
    };
    use super::*;

    pub(in super::super) const MB: f64 = 1_000_000.0;

    pub(in super::super) fn exactly(figure: f64) -> Spread {
        Spread { median: figure, low: figure, high: figure }
    }

    /// A machine with two threads. In MB/s, of all threads: reading 4000, chunking and hashing 1000, compressing 400 at
    /// level 1 and 200 at level 3, sealing 10,000, opening 1200, putting `put`, getting 600.
    pub(in super::super) fn sample(put: f64) -> BenchResult {
        let stage = |stage, level, ratio, rate: f64| {
            [1, 2].map(|threads| StageFigure {
                stage,
                level,
                threads,
                bytes_per_second: exactly(rate * MB * if threads == 1 { 0.5 } else { 1.0 }),
                ratio,
            })
        };
        let request = |operation, bytes, at_once, rate: f64| RequestFigure {
            operation,
            bytes,
            at_once,
            requests: 100,
            bytes_per_second: exactly(rate * MB),
            latency_micros: Latency { p50: 1000, p90: 2000, p99: 3000, max: 4000 },
        };
        // Of 1000 MB 800 are new and 400 are stored.
        let run =
            |run, change_ppm, seconds: f64, bytes, read_bytes, new_bytes, stored_bytes, put| RunFigure {
                run,
                change_ppm,
                seconds: exactly(seconds),
                bytes,
                read_bytes,
                new_bytes,
                stored_bytes,
                metadata_bytes: stored_bytes / 100,
                fetched_bytes: 0,
                packs: 0,
                requests: RunRequests { put, get: 2, list: 7 },
            };
        let restored = |name, seconds| RunFigure {
            fetched_bytes: 400_000_000,
            ..run(name, None, seconds, 800_000_000, 0, 0, 0, 0)
        };
        BenchResult {
            kind: super::super::result::KIND.to_owned(),
            version: super::super::result::VERSION,
            program: "keepstone 0".to_owned(),
            time: 0,
            machine: machine(),
            setting: setting(),
            disk: disk(),
            stages: [
                stage(StageName::Read, None, None, 4000.0),
                stage(StageName::ChunkHash, None, None, 1000.0),
                stage(StageName::Compress, Some(1), Some(0.5), 400.0),
                stage(StageName::Compress, Some(3), Some(0.4), 200.0),
                stage(StageName::Seal, None, None, 10_000.0),
                stage(StageName::Open, None, None, 1200.0),
            ]
            .concat(),
            requests: vec![
                request(Operation::Put, 65_536, 1, 1.0),
                request(Operation::Put, 40_000_000, 4, put),
                request(Operation::Get, 8_000_000, 32, 600.0),
            ],
            runs: vec![
                run(RunName::Full, None, 4.5, 1_000_000_000, 1_000_000_000, 800_000_000, 400_000_000, 14),
                run(RunName::Incremental, Some(0), 0.5, 0, 0, 0, 0, 2),
                run(
                    RunName::Incremental,
                    Some(10_000),
                    0.6,
                    10_000_000,
                    20_000_000,
                    16_000_000,
                    8_000_000,
                    5,
                ),
                restored(RunName::Restore, 1.0),
                restored(RunName::RestoreToFile, 2.0),
            ],
        }
    }

    fn machine() -> Machine {
        Machine {
            processor: "a processor".to_owned(),
            processors: 2,
            memory_bytes: 8 << 30,
            kernel: "6.1".to_owned(),
            load: 0.0,
        }
    }

    fn setting() -> Setting {
        Setting {
            quick: false,
            rounds: 3,
            threads: 2,
            compression: "auto".to_owned(),
            level: 1,
            store: "directory".to_owned(),
            place: "repo".to_owned(),
            scratch_file_system: "ext4".to_owned(),
            chunker: "a-chunker".to_owned(),
            pack_bytes: 40_000_000,
            puts_at_once: 4,
            limit_upload: None,
        }
    }

    fn disk() -> Disk {
        Disk {
            image: None,
            seed: Some(1),
            mix: None,
            source_bytes: 1_000_000_000,
            allocated_bytes: 1_000_000_000,
            measured_bytes: 1_000_000_000,
            measured_allocated_bytes: 1_000_000_000,
            sample_bytes: 100_000_000,
            sample_data_bytes: 80_000_000,
            sample_chunks: 2000,
        }
    }

    fn limits(bottleneck: &Bottleneck) -> Vec<(Resource, u64)> {
        let rounded =
            |limit: &Limit| (limit.resource, super::super::text::whole(limit.bytes_per_second / MB));
        bottleneck.limits.iter().map(rounded).collect()
    }

    #[test]
    fn the_slowest_resource_is_the_bottleneck() {
        let [full, restore] = &analyse(&sample(1000.0)).bottlenecks[..] else { panic!("two kinds of runs") };
        // 1 / (1/1000 + 0.8/400 + 0.4/10000) = 328.9; 1000 / 0.4.
        let expected = [(Resource::Processors, 329), (Resource::Store, 2500), (Resource::Source, 4000)];
        assert_eq!(limits(full), expected);
        assert_eq!(
            full.in_words,
            "a first backup is limited by the processors to 313.7 MiB/s (the store would bear 2.3 GiB/s, reading the \
             disks would bear 3.7 GiB/s), and reached 211.9 MiB/s; compressing takes 66 % of their time"
        );
        // 800 MB in 2 s, half of them only because of writing, which overlaps reading.
        let expected = [(Resource::Target, 400), (Resource::Processors, 1200), (Resource::Store, 1200)];
        assert_eq!(limits(restore), expected);
    }

    #[test]
    fn a_target_that_nothing_waits_for_bears_at_least_what_was_written() {
        let mut result = sample(1000.0);
        let to_file = result.runs.iter_mut().find(|run| run.run == RunName::RestoreToFile).unwrap();
        to_file.seconds = exactly(1.0);
        let [_, restore] = &analyse(&result).bottlenecks[..] else { panic!("two kinds of runs") };
        let expected = [(Resource::Processors, 1200), (Resource::Store, 1200), (Resource::Target, 800)];
        assert_eq!(limits(restore), expected);
        assert!(restore.limits[2].at_least && restore.resource == Resource::Processors, "{restore:?}");
        let told = "writing the restored disk would bear at least 762.9 MiB/s)";
        assert!(restore.in_words.contains(told), "{}", restore.in_words);
    }

    #[test]
    fn a_slow_store_asks_for_more_compression_and_fewer_threads() {
        let named = |result: &BenchResult| {
            let found = analyse(result).recommendations;
            found.into_iter().map(|it| (it.setting, it.value)).collect::<Vec<_>>()
        };
        assert_eq!(named(&sample(1000.0)), [("--compression", "1".to_owned())]);
        // 40 MB/s of packs are 100 MB/s of the disk at level 1, and 125 at level 3; one thread computes 164.
        let slow = sample(40.0);
        let expected = [("--compression", "3".to_owned()), ("--threads", "1".to_owned())];
        assert_eq!(named(&slow), expected);
        assert_eq!(analyse(&slow).bottlenecks[0].resource, Resource::Store);
        // The next limit is that of the processors, 328.9 MB/s of the disk: 131.6 MB/s of packs.
        let mut limited = slow;
        limited.setting.limit_upload = Some(42_000_000);
        let expected = [&expected[..], &[("--limit-upload", "126MiB".to_owned())]].concat();
        assert_eq!(named(&limited), expected);
    }

    #[test]
    fn nothing_is_concluded_from_what_was_not_measured() {
        let mut empty = sample(1000.0);
        empty.stages.clear();
        assert_eq!(analyse(&empty), Analysis { bottlenecks: Vec::new(), recommendations: Vec::new() });
    }
}
