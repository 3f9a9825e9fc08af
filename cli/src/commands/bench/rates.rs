//! How fast the stages are, each alone, with one thread and with more.

use super::Stop;
use super::result::{Spread, StageFigure, StageName, number};
use crate::clock::Stopwatch;
use keepstone_engine::bench::stages::{Sample, Stage};
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A stage that is measured: its name, zstd's level and the threads.
pub(super) type Cell = (StageName, Option<i32>, usize);

/// The figures of all rounds.
#[derive(Default)]
pub(super) struct Rates {
    /// In the order in which the stages were first measured.
    order: Vec<Cell>,
    measured: BTreeMap<Cell, Vec<f64>>,
    /// What is left of compressed data, by level.
    ratios: BTreeMap<i32, f64>,
}

/// How often a thread goes through the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passes {
    /// Again and again until the time is over.
    Time,
    /// Once, or until the time is over.
    OnceAtMost,
    /// Once, however long it takes.
    Once,
}

/// What all threads did together.
struct Done {
    bytes_per_second: f64,
    bytes: u64,
    encoded_bytes: u64,
}

/// What a round needs.
pub(super) struct Round<'a> {
    pub(super) sample: &'a Sample<'a>,
    /// Numbers of threads, in order.
    pub(super) threads: &'a [usize],
    pub(super) levels: &'a [i32],
    /// How long a stage is measured.
    pub(super) time: Duration,
    /// Has the system forget what it has of the source in memory; false if it cannot.
    pub(super) forget_source: &'a (dyn Fn() -> bool + Sync),
    /// Has the system take what is measured of the source into memory, if there is room.
    pub(super) warm_source: &'a (dyn Fn() -> anyhow::Result<()> + Sync),
    pub(super) stop: &'a Stop<'a>,
}

/// The stages in their order, without reading.
fn stages(levels: &[i32]) -> Vec<(StageName, Option<i32>, Stage)> {
    let mut stages = vec![
        (StageName::Chunk, None, Stage::Chunk),
        (StageName::Hash, None, Stage::Hash),
        (StageName::ChunkHash, None, Stage::ChunkHash),
    ];
    stages.extend(levels.iter().map(|&level| (StageName::Compress, Some(level), Stage::Compress(level))));
    stages.extend([
        (StageName::Seal, None, Stage::Seal),
        (StageName::Decompress, None, Stage::Decompress),
        (StageName::Open, None, Stage::Open),
    ]);
    stages
}

/// How many measurements a round has.
pub(super) fn measurements(threads: usize, levels: usize) -> u64 {
    // Two ways of reading, and six stages beside compression.
    (threads * (2 + 6 + levels)) as u64
}

impl Rates {
    /// Measures all stages once.
    ///
    /// # Errors
    /// A source that cannot be read, or an interruption.
    pub(super) fn round(&mut self, round: &Round<'_>) -> anyhow::Result<()> {
        for &threads in round.threads {
            if (round.forget_source)() {
                let done = round.measure(Stage::Read, threads, Passes::OnceAtMost)?;
                self.note((StageName::ReadCold, None, threads), &done);
            }
            round.stop.step()?;
        }
        let most = round.threads.iter().copied().max().unwrap_or(1);
        (round.warm_source)()?;
        for &threads in round.threads {
            let done = round.measure(Stage::Read, threads, Passes::Time)?;
            self.note((StageName::Read, None, threads), &done);
            round.stop.step()?;
        }
        for (name, level, stage) in stages(round.levels) {
            if round.sample.units(stage) > 0 {
                self.ratio(round, level, stage, most)?;
            }
            for &threads in round.threads {
                if round.sample.units(stage) > 0 {
                    let done = round.measure(stage, threads, Passes::Time)?;
                    self.note((name, level, threads), &done);
                }
                round.stop.step()?;
            }
        }
        Ok(())
    }

    /// Finds what a level leaves of the whole sample, once.
    fn ratio(
        &mut self,
        round: &Round<'_>,
        level: Option<i32>,
        stage: Stage,
        most: usize,
    ) -> anyhow::Result<()> {
        let Some(level) = level.filter(|level| !self.ratios.contains_key(level)) else { return Ok(()) };
        let done = round.measure(stage, most, Passes::Once)?;
        if done.bytes > 0 {
            self.ratios.insert(level, number(done.encoded_bytes) / number(done.bytes));
        }
        Ok(())
    }

    fn note(&mut self, cell: Cell, done: &Done) {
        if done.bytes == 0 {
            return;
        }
        if !self.measured.contains_key(&cell) {
            self.order.push(cell);
        }
        self.measured.entry(cell).or_default().push(done.bytes_per_second);
    }

    /// The figures, stage by stage.
    pub(super) fn figures(&self) -> Vec<StageFigure> {
        let mut figures: Vec<StageFigure> = self
            .order
            .iter()
            .filter_map(|cell| {
                let &(stage, level, threads) = cell;
                let bytes_per_second = Spread::of(self.measured.get(cell)?)?;
                let ratio = level.and_then(|level| self.ratios.get(&level).copied());
                Some(StageFigure { stage, level, threads, bytes_per_second, ratio })
            })
            .collect();
        figures.sort_by_key(|figure| (figure.stage, figure.level, figure.threads));
        figures
    }
}

impl Round<'_> {
    /// Runs a stage in some threads. Making ready is not in the time.
    fn measure(&self, stage: Stage, threads: usize, passes: Passes) -> anyhow::Result<Done> {
        let barrier = Barrier::new(threads);
        let next = AtomicUsize::new(0);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let work = || self.work(stage, passes, &barrier, &next);
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("no worker panics")).collect()
        });
        let mut all = Done { bytes_per_second: 0.0, bytes: 0, encoded_bytes: 0 };
        for outcome in outcomes {
            let one = outcome?;
            all.bytes_per_second += one.bytes_per_second;
            all.bytes += one.bytes;
            all.encoded_bytes += one.encoded_bytes;
        }
        Ok(all)
    }

    /// What one thread does.
    fn work(
        &self,
        stage: Stage,
        passes: Passes,
        barrier: &Barrier,
        next: &AtomicUsize,
    ) -> anyhow::Result<Done> {
        let units = self.sample.units(stage);
        let mut worker = self.sample.worker(stage);
        let (mut bytes, mut busy) = (0, Duration::ZERO);
        barrier.wait();
        let all = Stopwatch::start();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if units == 0 || (passes != Passes::Time && number >= units) {
                break;
            }
            let unit = number % units;
            worker.prepare(unit);
            let one = Stopwatch::start();
            bytes += worker.run(unit)?;
            busy += one.elapsed();
            self.stop.check()?;
            if passes != Passes::Once && all.elapsed() >= self.time {
                break;
            }
        }
        let bytes_per_second = super::result::per_second(bytes, busy.as_secs_f64());
        Ok(Done { bytes_per_second, bytes, encoded_bytes: worker.encoded_bytes() })
    }
}

/// One thread, twice as many, and so on, up to all.
pub(super) fn thread_counts(most: usize) -> Vec<usize> {
    let mut counts: Vec<usize> =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count < most).collect();
    counts.push(most);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_doubled_up_to_all_of_them() {
        let counts = [1, 2, 3, 4, 6, 16].map(thread_counts);
        let expected: [&[usize]; 6] =
            [&[1], &[1, 2], &[1, 2, 3], &[1, 2, 4], &[1, 2, 4, 6], &[1, 2, 4, 8, 16]];
        assert_eq!(counts, expected.map(<[usize]>::to_vec));
    }

    #[test]
    fn every_measurement_of_a_round_is_foreseen() {
        assert_eq!(measurements(2, 3), 2 * (2 + stages(&[1, 3, 6]).len()) as u64);
    }
}
