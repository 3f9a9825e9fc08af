//! Bringing the local index up to date with the repository's index blobs.
//!
//! Memory: one batch of index blobs, sealed, opened and parsed: about three times [`BATCH_LEN`], or three times the
//! longest index blob if that is more.

use super::{IndexError, LocalIndex, MERGED_MAX};
use crate::error::{EngineError, chain};
use crate::observer::{Event, Notice, Observer, Phase, notify, tell};
use crate::repository::{SEALED_LEN_MAX, list};
use crate::store::{BlobInfo, BlobStore, StoreError};
use crate::threads::{scope, waiting};
use repo_format::{BlobKind, BlobName, FormatError, Index, Keys, PREFIX_INDEX, SessionId, WriterId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(test)]
mod tests;

/// Index blobs are added to the cache in batches of so many bytes: some hundred thousand entries.
const BATCH_LEN: u64 = 32 << 20;
/// Blobs that are fetched at once: enough to fill a link across regions with blobs of a few MiB.
const FETCH_THREADS: usize = 8;

/// Whose index blobs matter most when not all of them fit the budget, best first: the sessions of the same VM, then
/// those of its group; then all blobs of some writers. Others come last, and leave a quarter of the budget free.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preference<'a> {
    /// Sessions.
    pub sessions: &'a [SessionId],
    /// Writers.
    pub writers: &'a [WriterId],
}

/// What a synchronisation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SyncReport {
    /// Index blobs that were added to the cache.
    pub fetched: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Index blobs that are damaged or could not be read; each was a notice.
    pub skipped: u64,
    /// Index blobs that did not fit the budget.
    pub left_out: u64,
    /// Tables that were dropped: damaged, outdated, or in favour of more useful ones.
    pub dropped_tables: u64,
}

/// A table, as far as planning is concerned.
#[derive(Clone, Debug)]
struct Cached<'a> {
    covered: &'a [BlobName],
    len: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct SyncPlan {
    /// Tables to drop, by their place, ascending.
    drop: Vec<usize>,
    /// Blobs to fetch, the most useful first.
    fetch: Vec<BlobInfo>,
    /// Blobs that are left out.
    left_out: u64,
}

/// How useful a blob is; the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Session(usize),
    Writer(usize),
    Other,
}

/// Lists the repository's index blobs and makes `index` cover what fits its budget. Announces the bytes that it
/// will fetch as [`Phase::SyncIndex`]. A blob or a cache file that cannot be used is a notice.
///
/// # Errors
/// [`EngineError::Store`] if the listing fails, [`EngineError::Index`] if the cache cannot be written,
/// [`EngineError::Cancelled`]. What had been added by then stays in use.
pub fn sync(
    index: &mut LocalIndex,
    store: &dyn BlobStore,
    keys: &Keys,
    preference: &Preference<'_>,
    observer: &dyn Observer,
) -> Result<SyncReport, EngineError> {
    let mut report = SyncReport::default();
    for path in index.take_damaged() {
        report.dropped_tables += 1;
        skipped(
            observer,
            path.display().to_string(),
            "the cache file is damaged and is made anew".to_owned(),
        )?;
    }
    let listed = list(store, PREFIX_INDEX)?;
    let plan = {
        let cached: Vec<Cached<'_>> = index
            .tables
            .iter()
            .map(|table| Cached { covered: &table.meta().covered, len: table.len() })
            .collect();
        plan_sync(&listed, &cached, preference, index.budget_bytes)
    };
    for &at in plan.drop.iter().rev() {
        index.remove_table(at);
        report.dropped_tables += 1;
    }
    report.left_out = plan.left_out;
    let total = plan.fetch.iter().map(|blob| blob.len).sum();
    if total > 0 {
        tell(observer, Event::Phase { phase: Phase::SyncIndex, total })?;
    }
    for batch in batches(&plan.fetch) {
        add_batch(index, batch, &Fetch { store, keys, observer }, &mut report)?;
        if index.tables.len() >= MERGED_MAX {
            index.compact()?;
        }
    }
    index.compact()?;
    Ok(report)
}

/// Decides what to fetch and what to drop. A table takes about as many bytes as the blobs it covers.
///
/// A table goes when most of its blobs have vanished (what remains of it is fetched again); when the budget is
/// exceeded; and, if it covers no preferred blob, when a preferred one needs its room.
fn plan_sync(
    listed: &[BlobInfo],
    cached: &[Cached<'_>],
    preference: &Preference<'_>,
    budget_bytes: u64,
) -> SyncPlan {
    let ranks = Ranks::new(preference);
    let present: BTreeSet<&BlobName> = listed.iter().map(|blob| &blob.name).collect();
    let mut plan = SyncPlan::default();
    let mut kept = Vec::new();
    for (at, table) in cached.iter().enumerate() {
        let there = table.covered.iter().filter(|name| present.contains(name)).count();
        if there * 2 < table.covered.len() || there == 0 {
            plan.drop.push(at);
        } else {
            let rank = table.covered.iter().filter_map(|name| ranks.of(name)).min();
            kept.push((rank.unwrap_or(Rank::Other), table.len, at));
        }
    }
    // The least useful last, the smallest of those last of all: dropping it costs least.
    kept.sort_by_key(|&(rank, len, _)| (rank, u64::MAX - len));
    let mut used: u64 = kept.iter().map(|&(_, len, _)| len).sum();
    let mut room = |used: &mut u64, limit: u64, at_most: Rank, drop: &mut Vec<usize>| {
        while *used > limit
            && let Some(&(rank, len, at)) = kept.last()
            && rank >= at_most
        {
            *used -= len;
            drop.push(at);
            kept.pop();
        }
        *used <= limit
    };
    // Tables are a little larger than their blobs: what was planned to fit must not be over the budget next time.
    room(&mut used, budget_bytes.saturating_add(budget_bytes / 8), Rank::Session(0), &mut plan.drop);

    let covered: BTreeSet<&BlobName> = cached
        .iter()
        .enumerate()
        .filter(|(at, _)| !plan.drop.contains(at))
        .flat_map(|(_, table)| table.covered)
        .collect();
    let mut missing: Vec<(Rank, &BlobInfo)> = listed
        .iter()
        .filter(|blob| !covered.contains(&blob.name))
        .filter_map(|blob| Some((ranks.of(&blob.name)?, blob)))
        .collect();
    missing.sort_by_key(|&(rank, blob)| (rank, &blob.name));
    for (rank, blob) in missing {
        let limit = if rank == Rank::Other { budget_bytes / 4 * 3 } else { budget_bytes };
        let fits = limit.checked_sub(blob.len).is_some_and(|limit| {
            // Only a preferred blob may push a table out, or the two would take turns at every synchronisation.
            used <= limit || (rank != Rank::Other && room(&mut used, limit, Rank::Other, &mut plan.drop))
        });
        if fits {
            used += blob.len;
            plan.fetch.push(blob.clone());
        } else {
            plan.left_out += 1;
        }
    }
    plan.drop.sort_unstable();
    plan
}

/// The ranks that a preference gives.
struct Ranks<'a> {
    sessions: BTreeMap<SessionId, usize>,
    writers: BTreeMap<&'a WriterId, usize>,
}

impl<'a> Ranks<'a> {
    fn new(preference: &Preference<'a>) -> Self {
        let mut ranks = Self { sessions: BTreeMap::new(), writers: BTreeMap::new() };
        for (rank, session) in preference.sessions.iter().enumerate() {
            ranks.sessions.entry(*session).or_insert(rank);
        }
        for (rank, writer) in preference.writers.iter().enumerate() {
            ranks.writers.entry(writer).or_insert(rank);
        }
        ranks
    }

    /// The rank of an index blob; nothing for other names, which are ignored (NAME-3).
    fn of(&self, name: &BlobName) -> Option<Rank> {
        let BlobKind::Index { writer, session, .. } = name.kind()? else { return None };
        let session = self.sessions.get(&session).copied().map(Rank::Session);
        let writer = self.writers.get(&writer).copied().map(Rank::Writer);
        Some(session.or(writer).unwrap_or(Rank::Other))
    }
}

/// Cuts a list of blobs into pieces of about [`BATCH_LEN`], at least one blob in each.
fn batches(blobs: &[BlobInfo]) -> impl Iterator<Item = &[BlobInfo]> {
    let mut left = blobs;
    std::iter::from_fn(move || {
        let mut len = 0;
        let count = left
            .iter()
            .take_while(|blob| {
                len += blob.len;
                len <= BATCH_LEN
            })
            .count();
        let (batch, rest) = left.split_at(count.max(1).min(left.len()));
        left = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

/// What it takes to fetch index blobs.
struct Fetch<'a> {
    store: &'a dyn BlobStore,
    keys: &'a Keys,
    observer: &'a dyn Observer,
}

/// What became of a blob that was to be fetched.
enum Fetched {
    Index(Index),
    /// It vanished since it was listed: a pruner has put its content into another one.
    Vanished,
    Skipped,
    Cancelled,
}

/// Why an index blob cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("it could not be read")]
    Store(#[from] StoreError),
    #[error("it is damaged")]
    Damaged(#[from] FormatError),
    #[error("it is longer than an index can be")]
    TooLong,
}

fn add_batch(
    index: &mut LocalIndex,
    batch: &[BlobInfo],
    fetch: &Fetch<'_>,
    report: &mut SyncReport,
) -> Result<(), EngineError> {
    let mut covered = Vec::with_capacity(batch.len());
    let mut indexes = Vec::with_capacity(batch.len());
    for (blob, fetched) in batch.iter().zip(fetch.all(batch)) {
        match fetched {
            Fetched::Index(fetched) => {
                report.fetched += 1;
                report.fetched_bytes += blob.len;
                covered.push(blob.name.clone());
                indexes.push(fetched);
            }
            Fetched::Vanished => {}
            Fetched::Skipped => report.skipped += 1,
            Fetched::Cancelled => return Err(EngineError::Cancelled),
        }
    }
    if indexes.is_empty() {
        return Ok(());
    }
    let added: Result<(), IndexError> = index.add_uncompacted(&covered, &indexes.iter().collect::<Vec<_>>());
    Ok(added?)
}

impl Fetch<'_> {
    /// Fetches blobs, several at once; the results are in their order.
    fn all(&self, batch: &[BlobInfo]) -> Vec<Fetched> {
        let next = AtomicUsize::new(0);
        let cancelled = AtomicBool::new(false);
        let work = || {
            let mut done = Vec::new();
            while !cancelled.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(blob) = batch.get(at) else { break };
                let fetched = self.one(blob);
                if matches!(fetched, Fetched::Cancelled) {
                    cancelled.store(true, Ordering::Relaxed);
                }
                done.push((at, fetched));
            }
            done
        };
        let done: Vec<(usize, Fetched)> = scope(|scope| {
            let threads: Vec<_> =
                (0..waiting(FETCH_THREADS).min(batch.len())).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut results: Vec<Fetched> = batch.iter().map(|_| Fetched::Cancelled).collect();
        for (at, fetched) in done {
            results[at] = fetched;
        }
        results
    }

    fn one(&self, blob: &BlobInfo) -> Fetched {
        let fetched = match self.read(blob) {
            Ok(index) => Fetched::Index(index),
            Err(Unreadable::Store(StoreError::NotFound { .. })) => Fetched::Vanished,
            Err(error) => match skipped(self.observer, blob.name.to_string(), chain(&error)) {
                Ok(()) => Fetched::Skipped,
                Err(_) => return Fetched::Cancelled,
            },
        };
        match self.observer.observe(Event::Progress(blob.len)) {
            ControlFlow::Continue(()) => fetched,
            ControlFlow::Break(()) => Fetched::Cancelled,
        }
    }

    fn read(&self, blob: &BlobInfo) -> Result<Index, Unreadable> {
        if usize::try_from(blob.len).is_ok_and(|len| len <= SEALED_LEN_MAX) {
            let sealed = self.store.get(&blob.name, None)?;
            Ok(Index::open(self.keys, &blob.name, &sealed)?)
        } else {
            Err(Unreadable::TooLong)
        }
    }
}

fn skipped(observer: &dyn Observer, name: String, reason: String) -> Result<(), EngineError> {
    notify(observer, Notice::IndexSkipped { name, reason })
}
