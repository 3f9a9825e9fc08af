//! What the backups of a fleet would take on hosts like this one. Pure.

use super::analysis::{Flow, Rates, Resource};
use super::result::{BenchResult, RunFigure, RunName, number, percent};
use super::text::whole;
use crate::numbers::{count, duration, parse_size, size};
use crate::prices::{Cost, Prices};
use keepstone_engine::store::{PerTier, Traffic};
use serde::Serialize;
use std::time::Duration;

/// What a backup reads of the parent's map at a time: 128 regions.
const MAP_SPAN: f64 = 2_147_483_648.0;
/// What an incremental backup takes for a changed byte at most, as a multiple of what a first one takes: whole chunks
/// are read around each change.
const READ_AMPLIFICATION: f64 = 3.0;
/// Nights of a month.
const NIGHTS: u64 = 30;
/// More disks than any fleet has, and few enough that sums fit.
const DISKS_MAX: u64 = 1_000_000;
/// As long as the longest virtual disk there is, sixteen times over.
const DISK_BYTES_MAX: u64 = 1 << 50;

/// Disks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fleet {
    pub(super) disks: u64,
    pub(super) disk_bytes: u64,
}

/// Reads a part of a fleet: `40x200GiB`.
///
/// # Errors
/// Anything else, or none.
pub(super) fn parse(text: &str) -> Result<Fleet, String> {
    let refused = || format!("{text:?} is no fleet: write how many disks of which size, as in 40x200GiB");
    let (disks, disk_bytes) = text.split_once(['x', 'X']).ok_or_else(refused)?;
    let disks: u64 = disks.trim().parse().map_err(|_| refused())?;
    let disk_bytes = parse_size(disk_bytes).map_err(|_| refused())?;
    if !(1..=DISKS_MAX).contains(&disks) || !(1..=DISK_BYTES_MAX).contains(&disk_bytes) {
        return Err(format!(
            "{text:?}: 1 to {DISKS_MAX} disks of 1 byte to {} can be predicted",
            size(DISK_BYTES_MAX)
        ));
    }
    Ok(Fleet { disks, disk_bytes })
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) fleets: Vec<Fleet>,
    /// How much of what is in use changes between two backups, in parts per million.
    pub(super) change_ppm: u32,
    /// How much of a disk is in use.
    pub(super) used_ppm: u32,
    pub(super) window: Duration,
    pub(super) hosts: u64,
}

/// What the backups of some disks take; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Predicted {
    /// On all hosts together.
    pub(super) seconds: f64,
    pub(super) read_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) put: u64,
    pub(super) get: u64,
    pub(super) list: u64,
    /// In Azure, in the hot tier.
    pub(super) cost: Cost,
}

/// Disks of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    pub(super) disks: u64,
    pub(super) disk_bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) first: Predicted,
    pub(super) incremental: Predicted,
    /// Of one of the disks, to a file.
    pub(super) restore_seconds: f64,
}

/// A resource that would have to grow.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Growth {
    pub(super) resource: Resource,
    /// So many times what this host has.
    pub(super) factor: f64,
    pub(super) in_words: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Prediction {
    pub(super) hosts: u64,
    pub(super) change_ppm: u32,
    pub(super) used_ppm: u32,
    pub(super) window_seconds: u64,
    pub(super) fleets: Vec<Line>,
    /// All first backups, and all incremental ones of one night.
    pub(super) first: Predicted,
    pub(super) incremental: Predicted,
    /// Whether the incremental backups of a night fit the window.
    pub(super) holds: bool,
    /// The windows that the first backups take.
    pub(super) first_windows: f64,
    pub(super) grow: Vec<Growth>,
    /// The hosts like this one that the window needs, if they do not share what is short.
    pub(super) hosts_needed: u64,
    /// For keeping the first backups and those of 30 nights.
    pub(super) after_a_month: Cost,
    pub(super) assumptions: Vec<String>,
}

/// What everything is predicted from.
#[derive(Clone, Copy, Debug)]
struct Basis<'a> {
    full: &'a RunFigure,
    /// A backup without a change.
    nothing: Option<&'a RunFigure>,
    /// The incremental backup with the most similar change rate.
    some: Option<&'a RunFigure>,
    /// The incremental backup with the most changes.
    largest: Option<&'a RunFigure>,
    to_file: Option<&'a RunFigure>,
    pack_bytes: f64,
    rates: Option<Rates>,
}

/// Bytes and requests before they are rounded.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    seconds: f64,
    read: f64,
    new: f64,
    stored: f64,
    put: f64,
    get: f64,
    list: f64,
}

/// Predicts; nothing if no whole run was measured.
pub(super) fn predict(result: &BenchResult, question: &Question, prices: &Prices) -> Option<Prediction> {
    let basis = Basis::of(result, question.change_ppm)?;
    let hosts = number(question.hosts);
    let (mut first, mut incremental) = (Sum::default(), Sum::default());
    let mut fleets = Vec::new();
    for fleet in &question.fleets {
        let used = number(fleet.disk_bytes) * parts(question.used_ppm);
        let (of_first, of_incremental) = (
            basis.first(fleet.disks, used),
            basis.incremental(fleet.disks, used * parts(question.change_ppm), used),
        );
        fleets.push(Line {
            disks: fleet.disks,
            disk_bytes: fleet.disk_bytes,
            used_bytes: whole(used),
            first: of_first.predicted(hosts, prices),
            incremental: of_incremental.predicted(hosts, prices),
            restore_seconds: basis.restore_seconds(used),
        });
        first = first.and(of_first);
        incremental = incremental.and(of_incremental);
    }
    let window = question.window.as_secs_f64();
    let (of_first, of_incremental) = (first.predicted(hosts, prices), incremental.predicted(hosts, prices));
    let holds = of_incremental.seconds <= window;
    let month = number(NIGHTS) * incremental.stored + first.stored;
    Some(Prediction {
        hosts: question.hosts,
        change_ppm: question.change_ppm,
        used_ppm: question.used_ppm,
        window_seconds: question.window.as_secs(),
        fleets,
        holds,
        first_windows: of_first.seconds / window,
        grow: if holds { Vec::new() } else { basis.growth(incremental, window * hosts, question.hosts) },
        hosts_needed: whole((incremental.seconds / window).ceil()).max(1),
        after_a_month: prices.estimate(&written(0, 0, 0, whole(month))),
        assumptions: basis.assumptions(question),
        first: of_first,
        incremental: of_incremental,
    })
}

fn parts(ppm: u32) -> f64 {
    f64::from(ppm) / 1_000_000.0
}

fn written(put: u64, get: u64, lists: u64, bytes: u64) -> Traffic {
    let hot = |number| PerTier { hot: number, ..PerTier::default() };
    Traffic { writes: hot(put), reads: hot(get), lists, written_bytes: hot(bytes), ..Traffic::default() }
}

impl Sum {
    fn and(self, other: Self) -> Self {
        Self {
            seconds: self.seconds + other.seconds,
            read: self.read + other.read,
            new: self.new + other.new,
            stored: self.stored + other.stored,
            put: self.put + other.put,
            get: self.get + other.get,
            list: self.list + other.list,
        }
    }

    fn predicted(self, hosts: f64, prices: &Prices) -> Predicted {
        let [read_bytes, stored_bytes, put, get, list] =
            [self.read, self.stored, self.put, self.get, self.list].map(whole);
        let cost = prices.estimate(&written(put, get, list, stored_bytes));
        Predicted { seconds: self.seconds / hosts, read_bytes, stored_bytes, put, get, list, cost }
    }
}

impl<'a> Basis<'a> {
    fn of(result: &'a BenchResult, change_ppm: u32) -> Option<Self> {
        let run = |name| result.runs.iter().find(move |run| run.run == name && run.bytes > 0);
        let incrementals = || result.runs.iter().filter(|run| run.run == RunName::Incremental);
        let distance =
            |run: &&RunFigure| (parts(run.change_ppm.unwrap_or(0)) / parts(change_ppm).max(1e-9)).ln().abs();
        let some = || incrementals().filter(|run| run.bytes > 0);
        Some(Self {
            full: run(RunName::Full)?,
            nothing: incrementals().find(|run| run.bytes == 0),
            some: some().min_by(|a, b| distance(a).total_cmp(&distance(b))),
            largest: some().max_by_key(|run| run.bytes),
            to_file: run(RunName::RestoreToFile),
            pack_bytes: number(result.setting.pack_bytes),
            rates: Rates::of(result, result.setting.level, result.setting.threads),
        })
    }

    /// What a backup without a change takes.
    fn of_nothing(&self) -> f64 {
        self.nothing.map_or(0.0, |nothing| nothing.seconds.median)
    }

    /// Seconds that each first backup takes, however short the disk is, and those for each byte.
    fn of_first(&self) -> (f64, f64) {
        let full = self.full.seconds.median;
        let each = self.of_nothing().min(full / 2.0);
        (each, (full - each) / number(self.full.bytes))
    }

    /// Seconds that each incremental backup takes, however little changed, and those for each changed byte. Small changes
    /// take little more than their round trips: what a byte takes is told by the largest one, within bounds.
    fn of_incremental(&self) -> (f64, f64) {
        let (each_first, per_byte) = self.of_first();
        let Some(largest) = self.largest else { return (each_first, per_byte) };
        let each = self.of_nothing();
        let slope = (largest.seconds.median - each) / number(largest.bytes);
        (each, slope.clamp(per_byte, READ_AMPLIFICATION * per_byte))
    }

    /// Backups of disks of which so many bytes of each are in use, and so many of them allocated or changed, as in `run`.
    fn backups(&self, run: &RunFigure, disks: u64, bytes: f64, used: f64) -> Sum {
        let (each, slope) = if run.run == RunName::Full { self.of_first() } else { self.of_incremental() };
        let (disks, of_run) = (number(disks), number(run.bytes));
        let per_byte = |of_all: u64| number(of_all) / of_run;
        let read = disks * bytes * per_byte(run.read_bytes);
        // The measured backups read what the system has in memory; a fleet's disks are not there.
        let reading = self.rates.map_or(0.0, |rates| read / rates.source);
        let stored = bytes * per_byte(run.stored_bytes);
        // What a backup puts besides full packs: intent, index, decision, and the last pack of both kinds.
        let full_packs = |stored: f64| (stored / self.pack_bytes).floor();
        let besides = (number(run.requests.put) - full_packs(number(run.stored_bytes))).max(0.0);
        let nothing_got = self.nothing.map_or(0, |nothing| nothing.requests.get);
        // The parent's map is read in a few requests for each span of the disk, whatever changed there.
        let got = number(run.requests.get.saturating_sub(nothing_got)) * (used / MAP_SPAN).ceil().max(1.0);
        Sum {
            seconds: (disks * (each + bytes * slope)).max(reading),
            read,
            new: disks * bytes * per_byte(run.new_bytes),
            stored: disks * stored,
            put: disks * (besides + full_packs(stored)),
            get: disks * (number(nothing_got) + got),
            list: disks * number(run.requests.list),
        }
    }

    fn first(&self, disks: u64, used: f64) -> Sum {
        self.backups(self.full, disks, used, used)
    }

    fn incremental(&self, disks: u64, changed: f64, used: f64) -> Sum {
        match (self.some, self.nothing) {
            (_, Some(nothing)) if changed < 1.0 => Sum {
                seconds: number(disks) * nothing.seconds.median,
                put: number(disks * nothing.requests.put),
                get: number(disks * nothing.requests.get),
                list: number(disks * nothing.requests.list),
                ..Sum::default()
            },
            (some, _) => self.backups(some.unwrap_or(self.full), disks, changed, used),
        }
    }

    fn restore_seconds(&self, used: f64) -> f64 {
        let Some(to_file) = self.to_file else { return 0.0 };
        // Zeros are not written.
        let written = used * number(to_file.bytes) / number(self.full.bytes);
        to_file.seconds.median * written / number(to_file.bytes)
    }

    /// What is too slow for so many seconds on all hosts together; at least the slowest resource.
    fn growth(&self, sum: Sum, seconds: f64, hosts: u64) -> Vec<Growth> {
        let Some(rates) = self.rates else { return Vec::new() };
        let flow = Flow { read: sum.read, new: sum.new, stored: sum.stored };
        let mut needed = rates.seconds(flow).to_vec();
        needed.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let Some(&(slowest, _)) = needed.first() else { return Vec::new() };
        // Whole backups take longer than any of their parts: the slowest one has to make up for that.
        let factor = |resource, alone: f64| {
            if resource == slowest { alone.max(sum.seconds) / seconds } else { alone / seconds }
        };
        let factors = needed.into_iter().map(|(resource, alone)| (resource, factor(resource, alone)));
        let short = factors.filter(|(_, factor)| *factor > 1.0);
        short
            .map(|(resource, factor)| Growth {
                resource,
                factor,
                in_words: rates.grown(resource, factor, hosts),
            })
            .collect()
    }

    fn assumptions(&self, question: &Question) -> Vec<String> {
        let mut assumptions = vec![
            format!("{} of each disk are in use, and {} of that change from one backup to the next", percent(question.used_ppm), percent(question.change_ppm)),
            "changes are known (changed-block tracking, a dirty bitmap or a changes file) and scattered in blocks of 64 KiB".to_owned(),
            "data compresses as that of the measured disk, and nothing of a disk is stored already by another one".to_owned(),
            "disks are read as fast as the measured one (an image: as it is read cold), whether from a file here or over a network, and no backup is faster than that".to_owned(),
            "each disk is a VM with a backup of its own; each host has as many of them, and all of the store's rate for itself".to_owned(),
            "costs are those of Azure's hot tier by the profile's prices, or Microsoft's sample prices: requests now, storage by the month".to_owned(),
        ];
        if let Some(some) = self.some {
            let measured = percent(some.change_ppm.unwrap_or(0));
            assumptions.push(format!(
                "incremental backups are as the measured one with {measured} changed, by changed bytes"
            ));
        }
        if let Some(largest) = self.largest {
            let measured = percent(largest.change_ppm.unwrap_or(0));
            assumptions.push(format!(
                "what they take beyond one without a change is that of the measured one with {measured} changed, by changed \
                 bytes: 1 to {READ_AMPLIFICATION} times what a first backup takes for as many"
            ));
        }
        assumptions
    }
}

impl Rates {
    /// What a host would have to have.
    fn grown(&self, resource: Resource, factor: f64, hosts: u64) -> String {
        let times = format!("{factor:.1} times");
        let hosts = if hosts > 1 { "each host" } else { "this host" };
        match resource {
            Resource::Processors => {
                #[expect(clippy::cast_precision_loss, reason = "so many threads there are not")]
                let threads = (self.threads as f64 * factor).ceil();
                format!(
                    "{hosts} needs {times} the processors: about {threads:.0} instead of {}",
                    self.threads
                )
            }
            Resource::Store => {
                let rate = size(whole(self.put * factor));
                format!("{hosts} needs {times} the rate of the store: {rate}/s of packs")
            }
            Resource::Source | Resource::Target => {
                let rate = size(whole(self.source * factor));
                format!("disks must be read at {times} the rate: {rate}/s")
            }
        }
    }
}

impl Prediction {
    /// Whether the window holds, in words.
    pub(super) fn verdict(&self) -> String {
        let millis = |seconds: f64| whole(seconds * 1000.0);
        let (takes, window) =
            (duration(millis(self.incremental.seconds)), duration(self.window_seconds * 1000));
        let first = duration(millis(self.first.seconds));
        let hosts = count(self.hosts, "host");
        if self.holds {
            format!(
                "the window holds on {hosts}: incremental backups take {takes} of {window}, all first ones {first}"
            )
        } else {
            let needed = count(self.hosts_needed, "host");
            format!(
                "the window does not hold on {hosts}: incremental backups take {takes}, and {window} is there ({needed} of \
                 this kind would do); all first ones take {first}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::analysis::tests::sample;
    use super::super::result::StageName;
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn question(disks: u64, window_secs: u64) -> Question {
        Question {
            fleets: vec![Fleet { disks, disk_bytes: 200 * GB }, Fleet { disks: 1, disk_bytes: 1000 * GB }],
            change_ppm: 20_000,
            used_ppm: 500_000,
            window: Duration::from_secs(window_secs),
            hosts: 1,
        }
    }

    #[test]
    fn a_fleet_is_read() {
        assert_eq!(parse("40x200GiB"), Ok(Fleet { disks: 40, disk_bytes: 200 << 30 }));
        assert_eq!(parse("1 X 2T"), Ok(Fleet { disks: 1, disk_bytes: 2 << 40 }));
        for text in
            ["", "40", "x200GiB", "40x", "0x1G", "4x0", "-1x1G", "1.5x1G", "2000000x1G", "1x2000T", "4x1Gx2"]
        {
            assert!(parse(text).is_err(), "{text:?} is no fleet");
        }
    }

    #[test]
    fn first_backups_take_what_the_measured_one_took_for_each_byte() {
        // 10 disks with 100 GB in use. Measured: 4.5 s for 1 GB, 0.5 s of them whatever changed; 0.4 GB stored in packs of
        // 40 MB, and 4 of 14 puts besides.
        let predicted = predict(&sample(1000.0), &question(10, 28_800), &Prices::default()).unwrap();
        let first = &predicted.fleets[0].first;
        assert!((first.seconds - 10.0 * (0.5 + 400.0)).abs() < 1e-6, "{first:?}");
        assert_eq!((first.read_bytes, first.stored_bytes), (1000 * GB, 400 * GB));
        // 40 GB are 1000 packs.
        assert_eq!((first.put, first.list), (10 * 1004, 70));
        // 2 gets of a backup without changes, and no more.
        assert_eq!(first.get, 20);
        assert_eq!(first.cost, Prices::default().estimate(&written(10_040, 20, 70, 400 * GB)));
        assert_eq!(predicted.fleets[0].used_bytes, 100 * GB);
        // 2 s for 0.8 GB of 1 GB in use.
        assert!((predicted.fleets[0].restore_seconds - 200.0).abs() < 1e-6);
    }

    #[test]
    fn incremental_backups_take_what_the_measured_one_took_for_each_changed_byte() {
        let predicted = predict(&sample(1000.0), &question(10, 28_800), &Prices::default()).unwrap();
        // 2 GB of each of 10 disks. Measured: 0.5 s without a change, 0.6 s for 10 MB.
        let incremental = &predicted.fleets[0].incremental;
        assert!((incremental.seconds - 10.0 * (0.5 + 200.0 * 0.1)).abs() < 1e-6, "{incremental:?}");
        assert_eq!((incremental.read_bytes, incremental.stored_bytes), (40 * GB, 16 * GB));
        assert_eq!((incremental.put, incremental.get, incremental.list), (10 * (5 + 40), 20, 70));
        // The other disk has 10 GB of changes, 8 GB stored.
        assert_eq!(predicted.incremental.stored_bytes, 24 * GB);
        assert_eq!(predicted.incremental.put, 450 + 5 + 200);
        assert!((predicted.incremental.seconds - 205.0 - 100.5).abs() < 1e-6, "{predicted:?}");
        assert!(predicted.holds && predicted.grow.is_empty() && predicted.hosts_needed == 1);
        let month = Prices::default().estimate(&written(0, 0, 0, (600 + 30 * 24) * GB));
        assert_eq!(predicted.after_a_month, month);
    }

    #[test]
    fn what_a_changed_byte_takes_is_bounded_by_a_first_backup() {
        let seconds = |incremental: f64| {
            let mut result = sample(1000.0);
            result.runs[2].seconds = super::super::analysis::tests::exactly(incremental);
            predict(&result, &question(10, 28_800), &Prices::default()).unwrap().fleets[0].incremental.seconds
        };
        // A first backup takes 4 s for each GB; 2 GB of each of 10 disks.
        for (measured, for_each_gb) in [(5.0, 12.0), (0.6, 10.0), (0.4, 4.0)] {
            let expected = 10.0 * (0.5 + 2.0 * for_each_gb);
            assert!((seconds(measured) - expected).abs() < 1e-6, "{measured} s");
        }
    }

    #[test]
    fn no_backup_is_faster_than_its_disks_are_read_cold() {
        let mut result = sample(1000.0);
        let mut cold = result.stages[..2].to_vec();
        for figure in &mut cold {
            figure.stage = StageName::ReadCold;
            figure.bytes_per_second = super::super::analysis::tests::exactly(50_000_000.0);
        }
        result.stages.extend(cold);
        result.disk.image = Some("disk.raw".to_owned());
        let predicted = predict(&result, &question(10, 28_800), &Prices::default()).unwrap();
        let Line { first, incremental, .. } = &predicted.fleets[0];
        // 1000 GB and 40 GB.
        assert!((first.seconds - 20_000.0).abs() < 1e-6, "{first:?}");
        assert!((incremental.seconds - 800.0).abs() < 1e-6, "{incremental:?}");
    }

    #[test]
    fn a_window_that_does_not_hold_names_what_must_grow() {
        let predicted = predict(&sample(1000.0), &question(10, 100), &Prices::default()).unwrap();
        assert!(!predicted.holds);
        assert_eq!(predicted.hosts_needed, 4, "305.5 s are more than three times 100 s");
        let [growth] = &predicted.grow[..] else { panic!("{:?}", predicted.grow) };
        assert_eq!(growth.resource, Resource::Processors);
        assert!((growth.factor - 305.5 / 100.0).abs() < 1e-6);
        assert_eq!(growth.in_words, "this host needs 3.1 times the processors: about 7 instead of 2");
        let verdict = predicted.verdict();
        assert!(
            verdict.starts_with("the window does not hold on 1 host: incremental backups take 5 min "),
            "{verdict}"
        );
        // With a slow store, both: 24 GB at 10 MB/s are 2400 s.
        let predicted = predict(&sample(10.0), &question(10, 100), &Prices::default()).unwrap();
        let grow: Vec<_> = predicted.grow.iter().map(|growth| growth.resource).collect();
        assert_eq!(grow, [Resource::Store, Resource::Processors]);
        // On four hosts each has a quarter.
        let shared = Question { hosts: 4, ..question(10, 100) };
        let shared = predict(&sample(1000.0), &shared, &Prices::default()).unwrap();
        assert!(shared.holds && shared.hosts_needed == 4, "{shared:?}");
    }

    #[test]
    fn without_changes_only_the_round_trips_are_left() {
        let nothing = Question { change_ppm: 0, ..question(10, 300) };
        let predicted = predict(&sample(1000.0), &nothing, &Prices::default()).unwrap();
        assert!((predicted.incremental.seconds - 11.0 * 0.5).abs() < 1e-9);
        assert_eq!((predicted.incremental.stored_bytes, predicted.incremental.put), (0, 22));
    }
}
