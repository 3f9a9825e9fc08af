//! Listing the snapshots that are wanted.

use super::{READ_THREADS, Snapshot, Snapshots, read, tombstoned};
use crate::error::EngineError;
use crate::repository::Repository;
use crate::threads;
use repo_format::{
    Decision, DecisionName, PREFIX_DECISIONS, PREFIX_TOMBSTONES, VmTag, decisions_prefix, tombstones_prefix,
};
use std::cmp::Reverse;

/// Decisions that are read before what they say is handed over: some MiB of them.
const READ_AT_ONCE: usize = 4096;
/// Decisions of one VM that are read in one go on the way back to a time.
const READ_BACK: usize = 16;
/// How far the clocks of the writers of one VM may be apart: a snapshot that is older by so much was made before.
pub(super) const CLOCKS_APART: u64 = 24 * 60 * 60 * 1000;

/// Which snapshots are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// Those of this VM; nothing for all VMs.
    pub vm: Option<&'a str>,
    /// At most so many of each VM, the newest (SPEC W-3).
    pub newest: Option<usize>,
    /// Those that are not older than this time, milliseconds since 1970. It is taken for granted that the clocks of the
    /// writers of one VM are less than a day apart.
    pub since: Option<u64>,
}

impl<'a> Query<'a> {
    /// What finds all snapshots of some VMs, one after another; those of all VMs if none is named.
    #[must_use]
    pub fn of_vms(vms: &'a [String]) -> Vec<Self> {
        if vms.is_empty() {
            return vec![Self::default()];
        }
        vms.iter().map(|vm| Self { vm: Some(vm), ..Self::default() }).collect()
    }
}

/// Lists the snapshots of one VM, or of all.
///
/// # Errors
/// A failing store; damaged decisions are no error but reported in the result.
pub fn list(repository: &Repository<'_>, vm: Option<&str>) -> Result<Snapshots, EngineError> {
    matching(repository, &Query { vm, ..Query::default() })
}

/// Lists the snapshots that are wanted. What is unreadable or aborted is told of the decisions that were looked at.
///
/// # Errors
/// As [`list`].
pub fn matching(repository: &Repository<'_>, query: &Query<'_>) -> Result<Snapshots, EngineError> {
    let mut snapshots = Vec::new();
    let mut result = each(repository, query, &mut |snapshot| snapshots.push(snapshot))?;
    snapshots.sort_by_key(|snapshot| (snapshot.commit.time, snapshot.session()));
    result.snapshots = snapshots;
    Ok(result)
}

/// Hands over the snapshots that are wanted, in no order, and returns everything else that was found. Only
/// decisions that may be wanted are read: the newest of a VM takes one. Some thousand snapshots are in memory at a time,
/// however many there are.
///
/// # Errors
/// As [`list`].
pub fn each(
    repository: &Repository<'_>,
    query: &Query<'_>,
    take: &mut dyn FnMut(Snapshot),
) -> Result<Snapshots, EngineError> {
    try_each(repository, query, &mut |snapshot| {
        take(snapshot);
        Ok(())
    })
}

/// As [`each`] for all snapshots, so many at a time.
///
/// # Errors
/// As [`list`]; the first one of `take`, which ends it.
pub(crate) fn each_batch(
    repository: &Repository<'_>,
    at_once: usize,
    take: &mut dyn FnMut(&[Snapshot]) -> Result<(), EngineError>,
) -> Result<Snapshots, EngineError> {
    let mut batch = Vec::new();
    let found = try_each(repository, &Query::default(), &mut |snapshot| {
        batch.push(snapshot);
        if batch.len() < at_once { Ok(()) } else { take(&std::mem::take(&mut batch)) }
    })?;
    take(&batch)?;
    Ok(found)
}

/// As [`each`].
///
/// # Errors
/// As [`list`]; the first one of `take`, which ends it.
pub(crate) fn try_each(
    repository: &Repository<'_>,
    query: &Query<'_>,
    take: &mut dyn FnMut(Snapshot) -> Result<(), EngineError>,
) -> Result<Snapshots, EngineError> {
    let tag = query.vm.map(|vm| repository.keys().vm_tag(vm));
    let (decisions, tombstones) = match tag {
        Some(tag) => (decisions_prefix(tag), tombstones_prefix(tag)),
        None => (PREFIX_DECISIONS.to_owned(), PREFIX_TOMBSTONES.to_owned()),
    };
    let mut names: Vec<DecisionName> =
        repository.list(&decisions)?.iter().filter_map(|info| DecisionName::of(&info.name)).collect();
    let mut result = Snapshots::default();
    let tombstones = repository.list(&tombstones)?;
    result.forgotten = tombstoned(repository, &tombstones, &names, &mut result.unreadable)?;
    // The newest of each VM first.
    names.sort_by(|a, b| (a.vm, b.seq, b.session).cmp(&(b.vm, a.seq, a.session)));
    let mut left: Vec<Backwards<'_>> = names.chunk_by(|a, b| a.vm == b.vm).map(Backwards::new).collect();
    left.reverse();
    while !left.is_empty() {
        // As many VMs as make a batch, each to its end or to where it is known what is wanted of it.
        let mut batch: Vec<DecisionName> = Vec::new();
        let mut asked: Vec<Backwards<'_>> = Vec::new();
        while batch.len() < READ_AT_ONCE
            && let Some(mut of_vm) = left.pop()
        {
            let next = of_vm.take(query, READ_AT_ONCE - batch.len());
            batch.extend(next.iter().filter(|name| !result.forgotten.contains(name)).cloned());
            asked.push(of_vm);
        }
        let mut read = read_all(repository, &batch)?.into_iter().peekable();
        let mut unfinished = Vec::new();
        for mut of_vm in asked {
            let mut found = Vec::new();
            while let Some((name, decision)) = read.next_if(|(name, _)| name.vm == of_vm.vm()) {
                match decision {
                    Ok(Some(Decision::Commit(commit))) => found.push(Snapshot { name, commit: *commit }),
                    Ok(Some(Decision::Abort(_))) => drop(result.aborted.insert(name.session)),
                    Ok(Some(Decision::Repack(_))) => drop(result.repacked.insert(name.session)),
                    // Removed between the listing and the reading: it had a tombstone.
                    Ok(None) => {}
                    Err(error) => result.unreadable.push((name.blob(), error)),
                }
            }
            of_vm.note(query, found, take)?;
            if !of_vm.is_done() {
                unfinished.push(of_vm);
            }
        }
        left.extend(unfinished.into_iter().rev());
    }
    Ok(result)
}

/// The decisions of one VM, from the newest backwards, as far as they are wanted.
struct Backwards<'n> {
    names: &'n [DecisionName],
    /// Those that were read.
    next: usize,
    /// Snapshots that were handed over.
    found: usize,
    /// Everything that is wanted was found.
    is_enough: bool,
}

impl<'n> Backwards<'n> {
    fn new(names: &'n [DecisionName]) -> Self {
        Self { names, next: 0, found: 0, is_enough: false }
    }

    fn vm(&self) -> VmTag {
        self.names[0].vm
    }

    fn is_done(&self) -> bool {
        self.is_enough || self.next == self.names.len()
    }

    /// The next decisions to read, at most `room` but at least one. Those with the same number stay together.
    fn take(&mut self, query: &Query<'_>, room: usize) -> &'n [DecisionName] {
        let left = &self.names[self.next..];
        let wanted = match (query.newest, query.since) {
            (Some(newest), None) => newest.saturating_sub(self.found),
            (Some(newest), Some(_)) => newest.saturating_sub(self.found).min(READ_BACK),
            (None, Some(_)) => READ_BACK,
            (None, None) => left.len(),
        };
        let mut end = wanted.min(room).clamp(1, left.len());
        while query.newest.is_some() && left.get(end).is_some_and(|next| next.seq == left[end - 1].seq) {
            end += 1;
        }
        self.next += end;
        &left[..end]
    }

    /// Hands over what is wanted of the snapshots that were found among the decisions read last.
    fn note(
        &mut self,
        query: &Query<'_>,
        mut found: Vec<Snapshot>,
        take: &mut dyn FnMut(Snapshot) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        found.sort_by_key(|snapshot| Reverse((snapshot.name.seq, snapshot.commit.time, snapshot.session())));
        for snapshot in found {
            let time = snapshot.commit.time;
            if query.since.is_some_and(|since| time < since) {
                self.is_enough |= query.since.is_some_and(|since| since - time >= CLOCKS_APART);
            } else if query.newest.is_none_or(|newest| self.found < newest) {
                self.found += 1;
                take(snapshot)?;
            }
        }
        self.is_enough |= query.newest.is_some_and(|newest| self.found >= newest);
        Ok(())
    }
}

type Read = Result<Option<Decision>, EngineError>;

/// Reads decisions, several at a time; the order is that of `names`. Only a damaged one is no failure.
fn read_all(
    repository: &Repository<'_>,
    names: &[DecisionName],
) -> Result<Vec<(DecisionName, Read)>, EngineError> {
    let decisions = threads::each(names, READ_THREADS, |name| read(repository, name));
    let read = names.iter().zip(decisions).map(|(name, decision)| match decision {
        Err(error) if !matches!(error, EngineError::Damaged { .. }) => Err(error),
        other => Ok((name.clone(), other)),
    });
    read.collect()
}
