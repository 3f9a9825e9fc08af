//! What a new snapshot builds on (W3).
//!
//! Where the repository was always written to, that is any snapshot: all that one needs is there. What arrived at a promoted
//! place from elsewhere may lack something, also what arrived after the promotion, which set nothing of it aside. A new
//! snapshot follows the records that its session knows, and tells them in its `via`; so what it is built on has to be whole
//! by these, and not by one that came since (SPEC REP-3).

use super::{Snapshot, UnreadableBlob, read, tombstoned};
use crate::error::EngineError;
use crate::lineage::Standing;
use crate::records::Records;
use crate::replica::is_whole_by;
use crate::repository::Repository;
use repo_format::{BlobKind, Decision, DecisionName, SessionId, VmTag, decisions_prefix, tombstones_prefix};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// What a session knows when it chooses its parent.
pub(crate) struct Parents<'a, 's> {
    pub(crate) repository: &'a Repository<'s>,
    pub(crate) standing: &'a Standing,
    /// Those that it listed (W2).
    pub(crate) records: &'a Records,
}

impl Parents<'_, '_> {
    /// Whether a valid root may be the parent.
    fn may_be(&self, root: &Snapshot) -> Result<bool, EngineError> {
        match self.standing {
            Standing::Promoted(promoted) if promoted.set_aside.contains(&root.name) => Ok(false),
            Standing::Promoted(promoted) if !promoted.made(root) => {
                is_whole_by(self.repository, self.records.clone(), root)
            }
            Standing::Promoted(_) | Standing::Written | Standing::Replica => Ok(true),
        }
    }
}

/// The newest snapshot of a VM, and what came to light on the way to it.
pub(crate) struct Newest {
    pub(crate) snapshot: Option<Snapshot>,
    /// Decisions and tombstones that could not be read.
    pub(crate) unreadable: Vec<UnreadableBlob>,
    /// A decided session that began after the snapshot, or beside it, and is no snapshot (any more).
    pub(crate) later: Option<SessionId>,
    /// All sessions of the VM that have a decision or a tombstone, by name alone.
    pub(crate) ended: BTreeSet<SessionId>,
}

/// The parent of a new snapshot (SPEC W-3).
pub(crate) fn newest(parents: &Parents<'_, '_>, vm: VmTag) -> Result<Newest, EngineError> {
    let Decided { mut names, forgotten, ended, mut unreadable } = decided(parents.repository, vm)?;
    names.sort_by_key(|name| Reverse(name.seq));
    let mut best: Option<Snapshot> = None;
    let set_aside: BTreeSet<&DecisionName> = parents.standing.set_aside().collect();
    for name in names.iter().filter(|name| !forgotten.contains(name) && !set_aside.contains(name)) {
        if best.as_ref().is_some_and(|best| best.name.seq > name.seq) {
            break;
        }
        match read(parents.repository, name) {
            Ok(Some(Decision::Commit(commit))) => {
                let rank = |snapshot: &Snapshot| (snapshot.commit.time, snapshot.session());
                let found = Snapshot { name: name.clone(), commit: *commit };
                let is_better = best.as_ref().is_none_or(|best| rank(&found) > rank(best));
                if is_better && parents.may_be(&found)? {
                    best = Some(found);
                }
            }
            Ok(_) => {}
            Err(error @ EngineError::Damaged { .. }) => unreadable.push((name.blob(), error)),
            Err(error) => return Err(error),
        }
    }
    let later = best.as_ref().and_then(|best| {
        let mut beside = names.iter().filter(|name| name.seq >= best.name.seq);
        beside.find(|name| name.session != best.session()).map(|name| name.session)
    });
    Ok(Newest { snapshot: best, unreadable, later, ended })
}

/// The parent of an imported snapshot: that one, if it is a snapshot (still).
pub(crate) fn given(
    parents: &Parents<'_, '_>,
    vm: VmTag,
    parent: Option<&DecisionName>,
) -> Result<Newest, EngineError> {
    let Decided { names, forgotten, ended, mut unreadable } = decided(parents.repository, vm)?;
    let there = parent.filter(|parent| names.contains(parent) && !forgotten.contains(parent));
    let snapshot = match there.map(|name| (name, read(parents.repository, name))) {
        Some((name, Ok(Some(Decision::Commit(commit))))) => {
            let found = Snapshot { name: name.clone(), commit: *commit };
            parents.may_be(&found)?.then_some(found)
        }
        Some((name, Err(error @ EngineError::Damaged { .. }))) => {
            unreadable.push((name.blob(), error));
            None
        }
        Some((_, Err(error))) => return Err(error),
        Some((_, Ok(_))) | None => None,
    };
    Ok(Newest { snapshot, unreadable, later: None, ended })
}

/// Which sessions of a VM are decided.
struct Decided {
    names: Vec<DecisionName>,
    forgotten: BTreeSet<DecisionName>,
    ended: BTreeSet<SessionId>,
    unreadable: Vec<UnreadableBlob>,
}

fn decided(repository: &Repository<'_>, vm: VmTag) -> Result<Decided, EngineError> {
    let listed = repository.list(&decisions_prefix(vm))?;
    let names: Vec<DecisionName> = listed.iter().filter_map(|info| DecisionName::of(&info.name)).collect();
    let mut unreadable = Vec::new();
    let tombstones = repository.list(&tombstones_prefix(vm))?;
    let forgotten = tombstoned(repository, &tombstones, &names, &mut unreadable)?;
    let buried = tombstones.iter().filter_map(|info| match info.name.kind() {
        Some(BlobKind::Tombstone { session, .. }) => Some(session),
        _ => None,
    });
    let ended = names.iter().map(|name| name.session).chain(buried).collect();
    Ok(Decided { names, forgotten, ended, unreadable })
}

/// Whether a snapshot is another one, or was built on it by way of snapshots that are all still there.
pub(crate) fn descends(
    repository: &Repository<'_>,
    snapshot: &Snapshot,
    from: &DecisionName,
) -> Result<bool, EngineError> {
    let (mut name, mut parent) = (snapshot.name.clone(), snapshot.commit.parent.clone());
    while name != *from {
        // A parent's number is smaller (SPEC 10.2), so this ends.
        let Some(next) = parent.filter(|next| next.seq >= from.seq && next.seq < name.seq) else {
            return Ok(false);
        };
        let Some(Decision::Commit(commit)) = read(repository, &next)? else { return Ok(false) };
        (name, parent) = (next, commit.parent);
    }
    Ok(true)
}
