//! The valid roots, and what marking them tells (P1, P6).

use super::listing::{check_against, in_short_pages, list_twice};
use super::mark::Marker;
use crate::error::EngineError;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::records::Records;
use crate::repository::Repository;
use crate::snapshots::{self, Snapshot};
use crate::store::StoreError;
use repo_format::{
    BlobName, DecisionName, PREFIX_DECISIONS, PREFIX_REPACK, PackName, PackRef, SessionId, VmTag,
};
use std::collections::{BTreeMap, BTreeSet};

/// Roots that are in memory together.
const ROOTS_AT_ONCE: usize = 1024;

/// All roots, as one listing shows them.
#[derive(Debug, Default)]
pub(super) struct Roots {
    pub(super) valid: BTreeSet<SessionId>,
    /// Decisions of snapshots that signed tombstones forget.
    pub(super) forgotten: Vec<DecisionName>,
    pub(super) aborted: BTreeSet<SessionId>,
    /// Sessions that repacked.
    pub(super) repacked: BTreeSet<SessionId>,
    /// Sessions that repacked and whose records are gone, and those that packed again what is in their packs. Their packs are
    /// left alone: snapshots may need them.
    pub(super) lost: BTreeSet<SessionId>,
    /// The names of VMs that have a snapshot.
    pub(super) vms: BTreeMap<VmTag, String>,
    /// Tombstones that cannot be read or are not signed: the snapshots stay. And records that are gone.
    pub(super) ignored: Vec<BlobName>,
}

/// Reads all decisions, and hands the valid roots over, some at a time.
///
/// # Errors
/// [`EngineError::CannotMark`] if one cannot be read: what it needs is not known. [`EngineError::ListingLies`], or
/// [`EngineError::SnapshotVanished`] if a snapshot of `roster` is neither listed nor forgotten.
pub(super) fn each(
    repository: &Repository<'_>,
    roster: &BTreeSet<SessionId>,
    take: &mut dyn FnMut(&[Snapshot]) -> Result<(), EngineError>,
) -> Result<Roots, EngineError> {
    let first = in_short_pages(repository.store(), PREFIX_DECISIONS)?;
    let mut roots = Roots::default();
    let found = snapshots::each_batch(repository, ROOTS_AT_ONCE, &mut |batch| {
        for root in batch {
            roots.valid.insert(root.session());
            roots.vms.entry(root.name.vm).or_insert_with(|| root.commit.vm.clone());
        }
        take(batch)
    })?;
    for (name, error) in found.unreadable {
        if DecisionName::of(&name).is_some() {
            return Err(EngineError::CannotMark { source: Box::new(error) });
        }
        roots.ignored.push(name);
    }
    roots.aborted = found.aborted;
    let mut seen = BTreeSet::new();
    for info in &first {
        let Some(name) = DecisionName::of(&info.name) else { continue };
        let session = name.session;
        let is_forgotten = found.forgotten.contains(&name);
        if is_forgotten {
            roots.forgotten.push(name);
        }
        if is_forgotten
            || roots.valid.contains(&session)
            || roots.aborted.contains(&session)
            || found.repacked.contains(&session)
        {
            seen.insert(&info.name);
        }
    }
    roots.repacked = found.repacked;
    check_against(repository, &first, &seen.into_iter().chain(canaries(&first)).collect())?;
    let forgotten = found.forgotten.iter().map(|name| name.session).collect();
    check_roster(repository, roster, &roots, &forgotten)?;
    Ok(roots)
}

fn canaries(listed: &[crate::store::BlobInfo]) -> impl Iterator<Item = &BlobName> {
    listed.iter().map(|info| &info.name).filter(|name| DecisionName::of(name).is_none())
}

/// Every snapshot of the last roster is there or forgotten.
fn check_roster(
    repository: &Repository<'_>,
    roster: &BTreeSet<SessionId>,
    roots: &Roots,
    forgotten: &BTreeSet<SessionId>,
) -> Result<(), EngineError> {
    let missing: BTreeSet<SessionId> =
        roster.iter().filter(|id| !roots.valid.contains(id) && !forgotten.contains(id)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let forgotten = snapshots::tombstoned_sessions(repository, &missing)?;
    match missing.difference(&forgotten).next() {
        Some(session) => Err(EngineError::SnapshotVanished { session: *session }),
        None => Ok(()),
    }
}

/// Lists and reads the repack records, unless a listing of them is not to be believed: without a record, what it moved would
/// look as if nothing needed it.
pub(super) fn records(repository: &Repository<'_>) -> Result<Records, EngineError> {
    let first = list_twice(repository, PREFIX_REPACK)?;
    let records = Records::load(repository)?;
    let second = repository.list(PREFIX_REPACK)?;
    check_against(repository, &first, &second.iter().map(|info| &info.name).collect())?;
    Ok(records)
}

/// Marks from all valid roots.
pub(super) fn mark<'r, 's>(
    repository: &'r Repository<'s>,
    records: &Records,
    roster: &BTreeSet<SessionId>,
    observer: &dyn Observer,
) -> Result<(Roots, Marker<'r, 's>), EngineError> {
    let mut marker = Marker::new(repository, records.repacked().cloned());
    begin(observer, Phase::Mark, 0)?;
    let mut roots = each(repository, roster, &mut |roots| {
        marker.mark(roots, records).map_err(cannot_mark)?;
        tell(observer, Event::Progress(roots.len() as u64))
    })?;
    roots.lost = without_record(repository, records, &roots.repacked)?;
    roots.ignored.extend(roots.lost.iter().map(|session| BlobName::repack(*session)));
    let follows = |lost: &BTreeSet<SessionId>, old: &PackName, new: &PackRef| {
        lost.contains(&old.session) && !lost.contains(&new.name.session)
    };
    while let Some((_, _, new)) = records.leads().find(|(_, old, new)| follows(&roots.lost, old, new)) {
        roots.lost.insert(new.name.session);
    }
    Ok((roots, marker))
}

/// The sessions that repacked and whose records are gone.
///
/// A record is there before its decision, and stays. So one that can be read and is not listed shows that the listing lies;
/// but for a session that was committed since, of whose packs none was a candidate.
fn without_record(
    repository: &Repository<'_>,
    records: &Records,
    repacked: &BTreeSet<SessionId>,
) -> Result<BTreeSet<SessionId>, EngineError> {
    let unknown: Vec<SessionId> =
        repacked.iter().copied().filter(|session| !records.knows(*session)).collect();
    if unknown.is_empty() {
        return Ok(BTreeSet::new());
    }
    let listed: BTreeSet<BlobName> =
        list_twice(repository, PREFIX_REPACK)?.into_iter().map(|info| info.name).collect();
    let mut lost = BTreeSet::new();
    for session in unknown {
        let name = BlobName::repack(session);
        if listed.contains(&name) {
            continue;
        }
        match repository.store().get(&name, None) {
            Ok(_) => return Err(EngineError::ListingLies { name }),
            Err(StoreError::NotFound { .. }) => drop(lost.insert(session)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lost)
}

/// Damage of what tells what is needed is told as such; a failing store is not.
pub(super) fn cannot_mark(error: EngineError) -> EngineError {
    if error.is_damage() { EngineError::CannotMark { source: Box::new(error) } } else { error }
}
