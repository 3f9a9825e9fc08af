//! Which snapshots are forgotten.

use super::{READ_THREADS, UnreadableBlob};
use crate::error::EngineError;
use crate::repository::{Repository, get_sealed};
use crate::store::BlobInfo;
use crate::threads;
use repo_format::{BlobKind, BlobName, DecisionName, PREFIX_TOMBSTONES, SessionId, Tombstone, VmTag};
use std::collections::BTreeSet;

/// Whether one session has an authentic tombstone.
pub(crate) fn is_forgotten(repository: &Repository<'_>, name: &DecisionName) -> Result<bool, EngineError> {
    let tombstone = BlobName::tombstone(name.vm, name.session);
    let decided = std::slice::from_ref(name);
    let tombstones = repository.list(tombstone.as_str())?;
    Ok(tombstoned(repository, &tombstones, decided, &mut Vec::new())?.contains(name))
}

/// Those of some sessions, whatever their VMs, that have an authentic tombstone.
pub(crate) fn tombstoned_sessions(
    repository: &Repository<'_>,
    sessions: &BTreeSet<SessionId>,
) -> Result<BTreeSet<SessionId>, EngineError> {
    let is_wanted = |_: VmTag, session| sessions.contains(&session);
    let listed = repository.list(PREFIX_TOMBSTONES)?;
    let names = buried(repository, &listed, &is_wanted, &mut Vec::new())?;
    Ok(names.into_iter().map(|name| name.session).collect())
}

/// Those of some decisions that have an authentic tombstone. A damaged one hides nothing and is reported.
///
/// It forgets the decision that it names, and no other with the same session id: ids are no secret, and whoever may create
/// blobs may use one again.
pub(crate) fn tombstoned(
    repository: &Repository<'_>,
    tombstones: &[BlobInfo],
    decided: &[DecisionName],
    unreadable: &mut Vec<UnreadableBlob>,
) -> Result<BTreeSet<DecisionName>, EngineError> {
    let decided: BTreeSet<(VmTag, SessionId)> = decided.iter().map(|name| (name.vm, name.session)).collect();
    let is_wanted = |vm, session| decided.contains(&(vm, session));
    buried(repository, tombstones, &is_wanted, unreadable)
}

/// The decisions that authentic tombstones forget, of those tombstones that are wanted by their names.
fn buried(
    repository: &Repository<'_>,
    tombstones: &[BlobInfo],
    is_wanted: &dyn Fn(VmTag, SessionId) -> bool,
    unreadable: &mut Vec<UnreadableBlob>,
) -> Result<BTreeSet<DecisionName>, EngineError> {
    let wanted = |info: &BlobInfo| match info.name.kind() {
        Some(BlobKind::Tombstone { vm, session }) if is_wanted(vm, session) => Some(info.name.clone()),
        _ => None,
    };
    let names: Vec<BlobName> = tombstones.iter().filter_map(wanted).collect();
    let blobs = threads::each(&names, READ_THREADS, |name| get_sealed(repository.store(), name));
    let mut forgotten = BTreeSet::new();
    for (name, bytes) in names.into_iter().zip(blobs) {
        let bytes = match bytes {
            Err(error) if error.is_damage() => {
                unreadable.push((name, error));
                continue;
            }
            other => other?,
        };
        match Tombstone::open(repository.keys(), &name, &bytes) {
            Ok(tombstone) => drop(forgotten.insert(tombstone.decision)),
            Err(source) => unreadable.push((name.clone(), EngineError::Damaged { name, source })),
        }
    }
    Ok(forgotten)
}
