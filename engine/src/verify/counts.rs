//! Whether the packs of committed sessions are those that the sessions counted when they ended.

use super::report::FindingKind;
use super::sessions::Sessions;
use crate::directory;
use crate::error::{EngineError, chain};
use crate::snapshots::Snapshot;
use crate::store::{BlobInfo, StoreError};
use repo_format::{BlobKind, PackKind, PackName, SessionId};
use std::collections::{BTreeSet, HashMap};

/// Numbers of one session that are looked through for packs that are missing, and missing packs of one session that
/// are told of: a count may be a lie.
const NUMBERS_LOOKED_AT: usize = 1 << 20;
const MISSING_TOLD: usize = 64;

/// Notes packs that sessions did not count or nobody needs, and those that they counted and that are missing.
pub(super) fn check(sessions: &Sessions<'_, '_, '_>, blobs: &[BlobInfo]) -> Result<(), EngineError> {
    for (pack, reason) in check_counts(sessions, blobs) {
        surplus(sessions, &pack, reason)?;
    }
    Ok(())
}

/// Notes what is missing, and returns what should not be there, with the reason.
fn check_counts(sessions: &Sessions<'_, '_, '_>, blobs: &[BlobInfo]) -> Vec<(PackName, &'static str)> {
    let mut numbers: HashMap<(SessionId, PackKind), BTreeSet<u32>> = HashMap::new();
    let named = sessions.inventory.named();
    let mut surplus = Vec::new();
    let committed: HashMap<SessionId, &Snapshot> =
        sessions.snapshots.snapshots.iter().map(|snapshot| (snapshot.session(), snapshot)).collect();
    let harmed: BTreeSet<SessionId> = sessions
        .findings
        .affected_snapshots()
        .into_iter()
        .filter_map(|position| sessions.snapshots.snapshots.get(position))
        .map(Snapshot::session)
        .collect();
    for info in blobs {
        let Some(BlobKind::Pack(pack)) = info.name.kind() else { continue };
        let Some(snapshot) = committed.get(&pack.session) else { continue };
        if pack.writer != snapshot.name.writer {
            continue;
        }
        numbers.entry((pack.session, pack.kind)).or_default().insert(pack.number);
        if named.contains_key(&pack) {
            continue;
        }
        if pack.number >= counted(snapshot, pack.kind) {
            surplus.push((pack, "the session counted fewer packs when it ended"));
        } else if !harmed.contains(&pack.session) && !sessions.left_out.may_need(&pack) {
            surplus.push((pack, "no map names it, not even that of its own session"));
        }
    }
    // Of what came from elsewhere, what nobody needs here need not have come.
    let made_here = committed.into_iter().filter(|(_, snapshot)| !sessions.is_from_elsewhere(snapshot));
    for (session, snapshot) in made_here {
        for kind in [PackKind::Data, PackKind::Map] {
            let count = counted(snapshot, kind);
            let there = numbers.get(&(session, kind));
            let is_there = |number: &u32| there.is_some_and(|there| there.contains(number));
            let missing = (0..count).take(NUMBERS_LOOKED_AT).filter(|number| !is_there(number));
            let name = |number| PackName { kind, writer: snapshot.name.writer.clone(), session, number };
            let is_new =
                |pack: &PackName| !named.contains_key(pack) && !sessions.told.condemned.contains(pack);
            for pack in missing.map(name).filter(is_new).take(MISSING_TOLD) {
                sessions.findings.note(FindingKind::MissingPack, &pack.blob(), || {
                    format!("it is missing: no map names it, but its session counted {count} such packs when it ended")
                });
            }
        }
    }
    surplus
}

fn counted(snapshot: &Snapshot, kind: PackKind) -> u32 {
    match kind {
        PackKind::Data => snapshot.commit.totals.data_packs,
        PackKind::Map => snapshot.commit.totals.map_packs,
    }
}

/// A pack that there should not be. Only its header and directory are read.
fn surplus(sessions: &Sessions<'_, '_, '_>, pack: &PackName, reason: &str) -> Result<(), EngineError> {
    let Sessions { repository, inventory, findings, .. } = sessions;
    let (kind, detail) = match directory::read(repository, pack, inventory.len(pack).unwrap_or_default()) {
        Ok(_) => (FindingKind::SurplusPack, format!("nothing needs it: {reason}")),
        // Removed since it was listed.
        Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(()),
        Err(error) if error.is_damage() => {
            (FindingKind::DamagedPack, format!("{}; nothing needs it: {reason}", chain(&error)))
        }
        Err(error) => return Err(error),
    };
    findings.note(kind, &pack.blob(), || detail);
    Ok(())
}
