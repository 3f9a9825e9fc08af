//! Medians of rounds, and the ratios to the bars that the design sets.

use crate::phases::{Counts, Name, Phase};
use crate::primitives::Primitives;
use crate::report::Round;
use keepstone_benches::meter::{Cost, Work};
use keepstone_benches::table::{float, median};
use std::time::Duration;

const MIB: f64 = 1_048_576.0;
/// The bar of throughputs.
const OF_PRIMITIVE: Bar = Bar::AtLeast(0.85);
const PACK_LEN: u64 = 32 << 20;

/// What a ratio should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    /// It only explains others.
    None,
}

/// Something that was measured, beside its bar.
#[derive(Clone, Debug)]
pub(crate) struct Ratio {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) bar: Bar,
}

impl Ratio {
    fn new(what: &'static str, value: f64, bar: Bar) -> Self {
        Self { what, value, bar }
    }

    /// Whether the bar is reached, if there is one.
    pub(crate) fn is_met(&self) -> Option<bool> {
        match self.bar {
            Bar::AtLeast(least) => Some(self.value >= least),
            Bar::AtMost(most) => Some(self.value <= most),
            Bar::None => None,
        }
    }
}

/// All rounds in one.
pub(crate) struct Summary {
    pub(crate) primitives: Primitives,
    pub(crate) phases: Vec<Phase>,
    pub(crate) ratios: Vec<Ratio>,
}

impl Summary {
    /// Takes the medians of at least one round; of ratios those of each round's own, since both sides of a round were
    /// measured at about the same time. Peaks of memory are those of all rounds.
    pub(crate) fn new(rounds: &[Round], threads: usize) -> Self {
        let works = |part: fn(&Primitives) -> &Work| {
            let of = |figure: fn(&Work) -> Duration| {
                median(rounds.iter().map(|round| figure(part(&round.primitives))).collect())
            };
            let bytes = median(rounds.iter().map(|round| part(&round.primitives).bytes).collect());
            Work { bytes, wall: of(|work| work.wall), cpu: of(|work| work.cpu) }
        };
        let primitives = Primitives {
            sequential_read: works(|all| &all.sequential_read),
            read: works(|all| &all.read),
            chunk: works(|all| &all.chunk),
            chunk_hash: works(|all| &all.chunk_hash),
            compress: works(|all| &all.compress),
            seal: works(|all| &all.seal),
            open: works(|all| &all.open),
            write: works(|all| &all.write),
            write_directly: works(|all| &all.write_directly),
        };
        let places = 0..rounds.first().map_or(0, |round| round.phases.len());
        let phases = places.map(|place| {
            let of_rounds: Vec<&Phase> = rounds.iter().map(|round| &round.phases[place]).collect();
            median_phase(&of_rounds)
        });
        let mut of_rounds: Vec<Vec<Ratio>> = rounds.iter().map(|round| ratios(round, threads)).collect();
        let mut ratios = of_rounds.pop().unwrap_or_default();
        for (place, ratio) in ratios.iter_mut().enumerate() {
            let mut values = vec![ratio.value];
            values.extend(of_rounds.iter().map(|others| others[place].value));
            ratio.value = median(values);
        }
        Self { primitives, phases: phases.collect(), ratios }
    }
}

fn median_phase(rounds: &[&Phase]) -> Phase {
    let of = |figure: fn(&Phase) -> u64| median(rounds.iter().map(|phase| figure(phase)).collect());
    let time = |figure: fn(&Cost) -> f64| median(rounds.iter().map(|phase| figure(&phase.cost)).collect());
    Phase {
        name: rounds[0].name,
        cost: Cost {
            wall_seconds: time(|cost| cost.wall_seconds),
            cpu_seconds: time(|cost| cost.cpu_seconds),
            caller_seconds: time(|cost| cost.caller_seconds),
            system_seconds: time(|cost| cost.system_seconds),
            peak_rss_bytes: peak(rounds.iter().copied()),
        },
        changed_bytes: of(|phase| phase.changed_bytes),
        read_bytes: of(|phase| phase.read_bytes),
        new_bytes: of(|phase| phase.new_bytes),
        stored_bytes: of(|phase| phase.stored_bytes),
        metadata_bytes: of(|phase| phase.metadata_bytes),
        requests: Counts {
            put: of(|phase| phase.requests.put),
            get: of(|phase| phase.requests.get),
            list: of(|phase| phase.requests.list),
            delete: of(|phase| phase.requests.delete),
        },
    }
}

fn peak<'a>(phases: impl Iterator<Item = &'a Phase>) -> u64 {
    phases.map(|phase| phase.cost.peak_rss_bytes).max().unwrap_or_default()
}

/// One round beside the bars.
fn ratios(round: &Round, threads: usize) -> Vec<Ratio> {
    let phase = |name| round.phases.iter().find(|phase| phase.name == name).expect("all phases are measured");
    let (first, again) = (phase(Name::FirstBackup), phase(Name::Repeated));
    let (changed, large) = (phase(Name::Changed), phase(Name::NothingChangedLarge));
    let other = phase(Name::OtherVm);
    let (to_file, to_nothing) = (phase(Name::RestoreToFile), phase(Name::RestoreToNothing));
    let Primitives { compress, chunk_hash, open, write, write_directly, .. } = &round.primitives;
    let write = if all_threads(write, 1) > all_threads(write_directly, 1) { write } else { write_directly };
    // A chunk that a disk has several times is written more often than it is opened: only what is distinct counts.
    let opened = first.new_bytes;
    let requests = large.requests.put + large.requests.get + large.requests.delete;
    vec![
        Ratio::new(
            "first backup: new bytes/s, of zstd with all threads",
            rate(first.new_bytes, first) / all_threads(compress, threads),
            OF_PRIMITIVE,
        ),
        Ratio::new("first backup: zstd's share of the CPU time", cpu_share(compress, first), Bar::None),
        Ratio::new(
            "again, changes not known: bytes read/s, of chunk + hash with all threads",
            rate(again.read_bytes, again) / all_threads(chunk_hash, threads),
            OF_PRIMITIVE,
        ),
        Ratio::new(
            "again, changes not known: chunk + hash's share of the CPU time",
            cpu_share(chunk_hash, again),
            Bar::None,
        ),
        Ratio::new(
            "another VM, same data: bytes read/s, of chunk + hash with all threads",
            rate(other.read_bytes, other) / all_threads(chunk_hash, threads),
            Bar::None,
        ),
        Ratio::new(
            "first backup: GB/s of the thread that keeps order, of bytes read",
            in_order(first),
            Bar::AtLeast(3.0),
        ),
        Ratio::new(
            "again, changes not known: GB/s of the thread that keeps order",
            in_order(again),
            Bar::AtLeast(3.0),
        ),
        Ratio::new(
            "another VM, same data: GB/s of the thread that keeps order",
            in_order(other),
            Bar::AtLeast(3.0),
        ),
        Ratio::new(
            "1 % changed: bytes read, of bytes changed",
            float(changed.read_bytes) / float(changed.changed_bytes),
            Bar::AtMost(3.0),
        ),
        Ratio::new(
            "1 % changed: metadata, of bytes stored",
            float(changed.metadata_bytes) / float(changed.stored_bytes),
            Bar::AtMost(0.1),
        ),
        Ratio::new("nothing changed, 1 TiB: seconds", large.cost.wall_seconds, Bar::AtMost(1.0)),
        Ratio::new("nothing changed, 1 TiB: requests but listing", float(requests), Bar::AtMost(20.0)),
        Ratio::new(
            "restore to nothing: distinct bytes/s, of open + decompress + hash with all threads",
            rate(opened, to_nothing) / all_threads(open, threads),
            OF_PRIMITIVE,
        ),
        Ratio::new(
            "restore to nothing: open + decompress + hash's share of the CPU time",
            cpu_share(open, to_nothing),
            Bar::None,
        ),
        Ratio::new(
            "restore to a file: the better of that and of bytes written/s, of writing one",
            (rate(opened, to_file) / all_threads(open, threads))
                .max(rate(to_file.new_bytes, to_file) / all_threads(write, 1)),
            OF_PRIMITIVE,
        ),
        Ratio::new(
            "peak memory of all phases, MiB",
            float(peak(round.phases.iter())) / MIB,
            Bar::AtMost(512.0),
        ),
        Ratio::new(
            "first backup: PUTs besides one for each 32 MiB stored",
            float(first.requests.put.saturating_sub(first.stored_bytes.div_ceil(PACK_LEN))),
            Bar::None,
        ),
    ]
}

/// What the thread that does things in order could do alone if all others were infinitely many, in GB/s: no number of
/// processors makes a backup faster than that.
fn in_order(phase: &Phase) -> f64 {
    float(phase.read_bytes) / phase.cost.caller_seconds / 1e9
}

/// Bytes per second of a phase.
fn rate(bytes: u64, phase: &Phase) -> f64 {
    float(bytes) / phase.cost.wall_seconds
}

/// Bytes per second that all threads do together, each as fast as they were while all were busy.
pub(crate) fn all_threads(work: &Work, threads: usize) -> f64 {
    float(work.bytes) * float(threads as u64) / work.wall.as_secs_f64()
}

fn cpu_share(work: &Work, phase: &Phase) -> f64 {
    work.cpu.as_secs_f64() / phase.cost.cpu_seconds
}
