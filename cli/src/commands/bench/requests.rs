//! How fast the store is: creates and reads of several lengths, so many at one time.

use super::Stop;
use super::below::Below;
use super::result::{Latency, Operation, RequestFigure, Spread, per_second};
use crate::clock::Stopwatch;
use keepstone_engine::bench::random::Random;
use keepstone_engine::store::{BlobStore, Put};
use repo_format::BlobName;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// An index or a map pack of a small backup.
const SMALL_LEN: u64 = 64 << 10;
/// A data pack of a small backup; what a restore reads at once of a chain of backups.
const MIDDLE_LEN: u64 = 1 << 20;
/// What a restore reads at once of packs that it needs whole.
const RANGE_LEN: u64 = 8 << 20;
/// Reads of a restore that are under way at one time.
const READS_AT_ONCE: usize = 32;
/// What is put in one measurement at most; at least one for each thread.
pub(super) const PUT_BYTES_MAX: u64 = 256 << 20;
/// The same of a quick run.
pub(super) const PUT_BYTES_MAX_QUICK: u64 = 64 << 20;
/// Requests of one measurement at most.
const REQUESTS_MAX: usize = 2000;

/// Requests of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) operation: Operation,
    pub(super) bytes: u64,
    pub(super) at_once: usize,
}

/// What is measured in a round, in its order: creates first, and reads of the last ones that were created. `pack_len` is
/// the length of the longest packs.
pub(super) fn kinds(pack_len: u64, puts_at_once: usize) -> Vec<Kind> {
    let put = |bytes, at_once| Kind { operation: Operation::Put, bytes, at_once };
    let get = |bytes, at_once| Kind { operation: Operation::Get, bytes, at_once };
    let mut kinds = Vec::new();
    for bytes in [SMALL_LEN, MIDDLE_LEN, pack_len] {
        kinds.extend([1, puts_at_once].map(|at_once| put(bytes, at_once)));
    }
    for bytes in [SMALL_LEN, MIDDLE_LEN, RANGE_LEN.min(pack_len / 2)] {
        kinds.extend([1, 8, READS_AT_ONCE].map(|at_once| get(bytes, at_once)));
    }
    kinds
}

/// The most bytes that the creates of a round put, and the most that are there at one time.
pub(super) fn put_bytes(kinds: &[Kind], put_max: u64) -> (u64, u64) {
    let puts = kinds.iter().filter(|kind| kind.operation == Operation::Put);
    let bytes: Vec<u64> = puts.map(|kind| put_max.max(kind.bytes * kind.at_once as u64)).collect();
    (bytes.iter().sum(), bytes.iter().copied().max().unwrap_or(0))
}

/// The figures of all rounds.
#[derive(Default)]
pub(super) struct Answers {
    order: Vec<Kind>,
    rates: BTreeMap<Kind, Vec<f64>>,
    micros: BTreeMap<Kind, Vec<u64>>,
}

/// What a round needs.
pub(super) struct Round<'a> {
    pub(super) place: &'a Below<'a>,
    pub(super) kinds: &'a [Kind],
    pub(super) time: Duration,
    pub(super) put_max: u64,
    pub(super) stop: &'a Stop<'a>,
}

impl Answers {
    /// Measures all kinds of requests once. What was created is removed.
    ///
    /// # Errors
    /// A store that fails, or an interruption.
    pub(super) fn round(&mut self, round: &Round<'_>) -> anyhow::Result<()> {
        let content = content(round.kinds);
        for kind in round.kinds {
            match kind.operation {
                Operation::Put => {
                    // The last ones stay for the reads.
                    round.place.remove_all()?;
                    self.note(*kind, round.puts(*kind, &content)?);
                }
                Operation::Get => self.note(*kind, round.gets(*kind)?),
            }
            round.stop.step()?;
        }
        Ok(round.place.remove_all()?)
    }

    fn note(&mut self, kind: Kind, done: Done) {
        if !self.rates.contains_key(&kind) {
            self.order.push(kind);
        }
        let bytes = kind.bytes * done.micros.len() as u64;
        self.rates.entry(kind).or_default().push(per_second(bytes, done.seconds));
        self.micros.entry(kind).or_default().extend(done.micros);
    }

    /// The figures, in the order of the measurements.
    pub(super) fn figures(&self) -> Vec<RequestFigure> {
        let figure = |kind: &Kind| {
            let micros = self.micros.get(kind)?;
            Some(RequestFigure {
                operation: kind.operation,
                bytes: kind.bytes,
                at_once: kind.at_once,
                requests: micros.len(),
                bytes_per_second: Spread::of(self.rates.get(kind)?)?,
                latency_micros: Latency::of(micros)?,
            })
        };
        self.order.iter().filter_map(figure).collect()
    }
}

/// Bytes that do not compress, as those of packs.
fn content(kinds: &[Kind]) -> Vec<u8> {
    let longest = kinds.iter().filter(|kind| kind.operation == Operation::Put).map(|kind| kind.bytes).max();
    let longest = usize::try_from(longest.unwrap_or(0)).expect("a pack is in memory");
    let mut random = Random::new(0x6b65_6570);
    let mut content: Vec<u8> = (0..longest.div_ceil(8)).flat_map(|_| random.draw().to_le_bytes()).collect();
    content.truncate(longest);
    content
}

/// Requests of one measurement.
struct Done {
    seconds: f64,
    /// How long each took.
    micros: Vec<u64>,
}

impl Round<'_> {
    fn puts(&self, kind: Kind, content: &[u8]) -> anyhow::Result<Done> {
        let content = &content[..usize::try_from(kind.bytes).expect("a pack is in memory")];
        let most = usize::try_from(self.put_max / kind.bytes).unwrap_or(REQUESTS_MAX).min(REQUESTS_MAX);
        self.measure(kind.at_once, most, |number| match self.place.put_new(&blob(number), content)? {
            Put::Created | Put::Identical => Ok(()),
            Put::Different => anyhow::bail!("{} is there already, with other bytes", blob(number)),
        })
    }

    /// Reads ranges of the blobs that the last creates left, which are at least as long: each from another place.
    fn gets(&self, kind: Kind) -> anyhow::Result<Done> {
        let blobs = self.place.list("", None, REQUESTS_MAX)?.blobs;
        let places: Vec<(BlobName, u64)> = blobs
            .into_iter()
            .flat_map(|info| {
                (0..info.len / kind.bytes).map(move |part| (info.name.clone(), part * kind.bytes))
            })
            .collect();
        anyhow::ensure!(!places.is_empty(), "the blobs that were just created are not listed");
        self.measure(kind.at_once, REQUESTS_MAX, |number| {
            // Neighbours in time are not neighbours in the blob: no read ahead serves them.
            let (name, start) = &places[number * 7919 % places.len()];
            let bytes = self.place.get(name, Some(*start..start + kind.bytes))?;
            anyhow::ensure!(bytes.len() as u64 == kind.bytes, "{name} is shorter than it was created");
            Ok(())
        })
    }

    /// Makes requests until the time is over, at least one in each thread, and at most `most` together if that is more.
    fn measure(
        &self,
        at_once: usize,
        most: usize,
        request: impl Fn(usize) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<Done> {
        let most = most.max(at_once);
        let next = AtomicUsize::new(0);
        let micros = Mutex::new(Vec::new());
        let all = Stopwatch::start();
        let work = || -> anyhow::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let is_first_of_a_thread = number < at_once;
                if number >= most || !is_first_of_a_thread && all.elapsed() >= self.time {
                    return Ok(());
                }
                self.stop.check()?;
                let one = Stopwatch::start();
                request(number)?;
                let took = u64::try_from(one.elapsed().as_micros()).unwrap_or(u64::MAX);
                micros.lock().unwrap_or_else(PoisonError::into_inner).push(took);
            }
        };
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
        });
        outcomes.into_iter().collect::<anyhow::Result<()>>()?;
        let seconds = all.elapsed().as_secs_f64();
        Ok(Done { seconds, micros: micros.into_inner().unwrap_or_else(PoisonError::into_inner) })
    }
}

fn blob(number: usize) -> BlobName {
    BlobName::parse(&format!("blob-{number:06}")).expect("it is a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_bounded_and_told_before() {
        let kinds = kinds(32 << 20, 4);
        let puts = kinds.iter().filter(|kind| kind.operation == Operation::Put).count();
        assert_eq!((kinds.len(), puts), (15, 6));
        assert_eq!(put_bytes(&kinds, 256 << 20), (6 * (256 << 20), 256 << 20));
        // Four packs at a time are more than the bound.
        assert_eq!(put_bytes(&kinds, 64 << 20), (5 * (64 << 20) + (128 << 20), 128 << 20));
    }
}
