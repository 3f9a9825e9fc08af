//! Whether the indexes list the data packs of all snapshots' sessions, and say of them what their directories say.

use super::Scope;
use super::data::{Batch, Checked, has_frame};
use super::findings::Findings;
use super::inventory::PackState;
use super::left_out::LeftOut;
use super::objects::Told;
use super::report::FindingKind;
use crate::error::{EngineError, chain};
use crate::observer::{Event, tell};
use crate::repository::get_sealed;
use crate::snapshots::{Snapshot, Snapshots};
use crate::store::{BlobInfo, StoreError};
use repo_format::{
    BlobKind, BlobName, FrameEntry, FrameKind, Index, IndexEntry, PackKind, PackName, SessionId, WriterId,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What indexes are to list.
pub(super) struct Indexed<'v> {
    pub(super) blobs: &'v [BlobInfo],
    pub(super) snapshots: &'v Snapshots,
    pub(super) left_out: &'v LeftOut,
    /// The packs that snapshots need.
    pub(super) needed: &'v BTreeMap<PackName, PackState>,
}

/// Notes the data packs of snapshots' sessions and of repacks that no index lists, and whether damaged indexes are missed.
pub(super) fn check(findings: &Findings, indexed: &Indexed<'_>, told: &Told) {
    let Indexed { blobs, snapshots, .. } = *indexed;
    let committed = committed(snapshots, told);
    let unlisted = unlisted(indexed, &committed, told);
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
            let of = if snapshots.repacked.contains(&session) { "repack" } else { "snapshot" };
            format!("{count} packs of the {of} {session} are in no index")
        });
    }
}

/// Whether a data pack of a snapshot's session or of a repack is in no index that was read.
pub(super) fn lacks_any(indexed: &Indexed<'_>, told: &Told) -> bool {
    !unlisted(indexed, &committed(indexed.snapshots, told), told).is_empty()
}

/// The sessions whose data packs are to be in an index.
fn committed(snapshots: &Snapshots, told: &Told) -> HashSet<SessionId> {
    let valid = snapshots.snapshots.iter().filter(|snapshot| !told.is_forgotten(&snapshot.name));
    valid.map(Snapshot::session).chain(snapshots.repacked.iter().copied()).collect()
}

/// How many data packs of those sessions are in no index.
fn unlisted(
    indexed: &Indexed<'_>,
    committed: &HashSet<SessionId>,
    told: &Told,
) -> BTreeMap<(SessionId, WriterId), usize> {
    let mut unlisted: BTreeMap<(SessionId, WriterId), usize> = BTreeMap::new();
    let Indexed { blobs, left_out, needed, .. } = *indexed;
    for info in blobs {
        if let Some(BlobKind::Pack(pack)) = info.name.kind()
            && pack.kind == PackKind::Data
            && committed.contains(&pack.session)
            && (needed.contains_key(&pack) || !left_out.may_need(&pack))
            && !told.listed.contains_key(&pack)
            && !told.mislisted.contains(&pack)
            && !told.deleted.contains(&pack)
        {
            *unlisted.entry((pack.session, pack.writer)).or_default() += 1;
        }
    }
    unlisted
}

/// What indexes say of packs that are sound and have something else there, by the indexes' numbers in [`Told::indexes`].
#[derive(Default)]
pub(super) struct WrongEntries(BTreeMap<u32, Wrong>);

struct Wrong {
    count: u64,
    /// The pack of the first one that was found.
    pack: PackName,
}

impl WrongEntries {
    /// Compares the indexes that list sound packs of a batch with their directories, one index after the other.
    pub(super) fn compare(
        &mut self,
        scope: &Scope<'_, '_, '_>,
        told: &Told,
        batch: &Batch,
    ) -> Result<(), EngineError> {
        let listing = |(name, checked): (&PackName, &Checked)| match checked {
            Checked::Sound(_) => told.listed.get(name),
            Checked::Damaged { .. } => None,
        };
        let numbers: BTreeSet<u32> = batch.iter().filter_map(listing).flatten().copied().collect();
        for number in numbers {
            tell(scope.observer, Event::Progress(0))?;
            let Some(name) = told.indexes.get(number as usize) else { continue };
            let Some(index) = read_again(scope, name)? else { continue };
            let frames = index.packs.iter().map(|pack| match batch.get(&pack.name) {
                Some(Checked::Sound(frames)) => Some(frames),
                _ => None,
            });
            let frames: Vec<Option<&Vec<(u32, u64)>>> = frames.collect();
            for IndexEntry { id, codec, pack, offset, stored_len, plain_len } in index.entries {
                let frame = FrameEntry { kind: FrameKind::Chunk, codec, plain_len, stored_len, id };
                let pack = pack as usize;
                if let (Some(Some(frames)), Some(pack)) = (frames.get(pack), index.packs.get(pack))
                    && !has_frame(frames, offset, &frame)
                {
                    let first = || Wrong { count: 0, pack: pack.name.clone() };
                    self.0.entry(number).or_insert_with(first).count += 1;
                }
            }
        }
        Ok(())
    }

    /// One pack of each index that is wrong.
    pub(super) fn packs(&self) -> impl Iterator<Item = &PackName> {
        self.0.values().map(|wrong| &wrong.pack)
    }

    /// Adds what was found to the findings.
    pub(super) fn note(self, findings: &Findings, told: &Told) {
        for (number, Wrong { count, pack }) in self.0 {
            let Some(name) = told.indexes.get(number as usize) else { continue };
            let detail = format!(
                "{count} of its chunks are not where and what it says by the directories of their packs, the first \
                 is one of {pack}"
            );
            findings.note_or_tell_more(FindingKind::WrongIndex, name, &detail);
        }
    }
}

/// Reads an index that could be read before; one that a pruner removed meanwhile is none.
fn read_again(scope: &Scope<'_, '_, '_>, name: &BlobName) -> Result<Option<Index>, EngineError> {
    let repository = scope.frames.repository();
    let index = match get_sealed(repository.store(), name) {
        Ok(bytes) => Index::open(repository.keys(), name, &bytes).map_err(EngineError::damaged(name)),
        Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(None),
        Err(error) => Err(error),
    };
    match index {
        Ok(index) => Ok(Some(index)),
        Err(error) if error.is_damage() => {
            scope.findings.note(FindingKind::DamagedIndex, name, || chain(&error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
