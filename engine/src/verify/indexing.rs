//! Whether the indexes list the data packs of all snapshots' sessions.

use super::findings::{FindingKind, Findings};
use super::objects::Told;
use crate::snapshots::Snapshot;
use crate::store::BlobInfo;
use repo_format::{BlobKind, BlobName, PackKind, SessionId, WriterId};
use std::collections::{BTreeMap, HashSet};

/// Notes the data packs of committed sessions that no index lists, and whether damaged indexes are missed.
pub(super) fn check(findings: &Findings, blobs: &[BlobInfo], snapshots: &[Snapshot], told: &Told) {
    let committed: HashSet<SessionId> = snapshots.iter().map(Snapshot::session).collect();
    let mut unlisted: BTreeMap<(SessionId, WriterId), usize> = BTreeMap::new();
    for info in blobs {
        if let Some(BlobKind::Pack(pack)) = info.name.kind()
            && pack.kind == PackKind::Data
            && committed.contains(&pack.session)
            && !told.listed.contains_key(&pack)
            && !told.mislisted.contains(&pack)
        {
            *unlisted.entry((pack.session, pack.writer)).or_default() += 1;
        }
    }
    let mut explained = HashSet::new();
    for (session, id) in &told.unread {
        let count: usize =
            unlisted.iter().filter(|((unlisted, _), _)| unlisted == session).map(|(_, count)| count).sum();
        explained.insert(*session);
        if count > 0 {
            findings.tell_more(*id, &format!("{count} packs of its session are in no other index"));
        } else if committed.contains(session) {
            findings
                .tell_more(*id, "all packs of its session are in other indexes: nothing needs it any more");
        }
    }
    let names: HashSet<&BlobName> = blobs.iter().map(|info| &info.name).collect();
    for ((session, writer), count) in unlisted {
        if explained.contains(&session) {
            continue;
        }
        let free = (0..=u32::MAX).map(|number| BlobName::index(&writer, session, number));
        let Some(name) = free.into_iter().find(|name| !names.contains(name)) else { continue };
        findings.note(FindingKind::MissingIndex, &name, || {
            format!("{count} packs of the snapshot {session} are in no index")
        });
    }
}
