//! All that is neither a map nor a pack: whether names have a meaning, small objects open, and indexes and
//! sessions fit what is there.

use super::findings::{FindingId, FindingKind, Findings};
use super::inventory::Inventory;
use crate::error::{EngineError, chain};
use crate::frames::lock;
use crate::repository::{Repository, get_sealed};
use crate::snapshots::{Snapshot, Snapshots};
use crate::store::{BlobInfo, StoreError};
use repo_format::{
    BlobKind, BlobName, Condemned, DecisionName, FormatError, GcResult, GenerationSeal, Index, Intent,
    PackKind, PackName, RepackRecord, SessionId, Slot, VmTag, WriterId,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Objects that are read at the same time. An index may be as long as 64 MiB.
const READ_THREADS: usize = 4;

/// What the objects tell of sessions.
#[derive(Default)]
struct Told {
    /// Data packs that an index lists.
    indexed: HashSet<PackName>,
    /// Sessions of which an index cannot be read.
    unread: BTreeSet<SessionId>,
}

/// Checks every blob of a listing that is neither a pack nor the config. The listing is younger than `snapshots`.
pub(super) fn check(
    repository: &Repository<'_>,
    blobs: &[BlobInfo],
    snapshots: &Snapshots,
    inventory: &Inventory<'_, '_>,
    findings: &Findings,
) -> Result<(), EngineError> {
    let objects =
        Objects { repository, inventory, findings, vms: vms(&snapshots.snapshots), told: Mutex::default() };
    objects.unreadable(&snapshots.unreadable);
    objects.parents(blobs, &snapshots.snapshots);
    let next = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let failure: Mutex<Option<EngineError>> = Mutex::default();
    std::thread::scope(|threads| {
        for _ in 0..blobs.len().min(READ_THREADS) {
            threads.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let Some(info) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    if let Err(error) = objects.blob(&info.name) {
                        stopped.store(true, Ordering::Relaxed);
                        lock(&failure).get_or_insert(error);
                    }
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    objects.unindexed(blobs, &snapshots.snapshots);
    Ok(())
}

/// The names of VMs by their tags.
fn vms(snapshots: &[Snapshot]) -> HashMap<VmTag, String> {
    snapshots.iter().map(|snapshot| (snapshot.name.vm, snapshot.commit.vm.clone())).collect()
}

struct Objects<'v, 'r, 's> {
    repository: &'v Repository<'r>,
    inventory: &'v Inventory<'v, 's>,
    findings: &'v Findings,
    vms: HashMap<VmTag, String>,
    told: Mutex<Told>,
}

impl Objects<'_, '_, '_> {
    /// Decisions and tombstones were read to find the snapshots.
    fn unreadable(&self, unreadable: &[(BlobName, EngineError)]) {
        for (name, error) in unreadable {
            match name.kind() {
                Some(BlobKind::Decision(decision)) => {
                    let id = self.findings.note(FindingKind::DamagedDecision, name, || chain(error));
                    self.lose(id, &decision);
                }
                _ => drop(self.findings.note(FindingKind::DamagedTombstone, name, || chain(error))),
            }
        }
    }

    fn lose(&self, id: FindingId, decision: &DecisionName) {
        let vm = self.vms.get(&decision.vm).map_or("", String::as_str);
        self.findings.lose(id, decision.session, vm);
    }

    /// A decision is never removed without a tombstone that stays (PROTOCOL I1).
    fn parents(&self, blobs: &[BlobInfo], snapshots: &[Snapshot]) {
        let names: HashSet<&BlobName> = blobs.iter().map(|info| &info.name).collect();
        for parent in snapshots.iter().filter_map(|snapshot| snapshot.commit.parent.as_ref()) {
            let tombstone = BlobName::tombstone(parent.vm, parent.session);
            let blob = parent.blob();
            if names.contains(&blob) || names.contains(&tombstone) {
                continue;
            }
            let mut is_new = false;
            let id = self.findings.note(FindingKind::MissingDecision, &blob, || {
                is_new = true;
                "a snapshot was made from it, and it was not forgotten".to_owned()
            });
            if is_new {
                self.lose(id, parent);
            }
        }
    }

    fn blob(&self, name: &BlobName) -> Result<(), EngineError> {
        let Some(kind) = name.kind() else {
            self.findings.note(FindingKind::UnknownName, name, || "no object has such a name".to_owned());
            return Ok(());
        };
        let keys = self.repository.keys();
        match kind {
            // The config was checked when the repository was opened, decisions and tombstones when snapshots
            // were looked for, and packs are looked at through maps.
            BlobKind::Config | BlobKind::Pack(_) | BlobKind::Decision(_) | BlobKind::Tombstone { .. } => {
                Ok(())
            }
            BlobKind::KeySlot(slot) => {
                self.open(name, FindingKind::DamagedKeySlot, |bytes| match Slot::parse(&slot, bytes)? {
                    slot if slot.info().repository == keys.repository() => Ok(()),
                    _ => Err(FormatError::BadValue("the key slot is another repository's")),
                })?;
                Ok(())
            }
            BlobKind::Intent { .. } => {
                match self.open(name, FindingKind::DamagedIntent, |bytes| Intent::open(keys, name, bytes))? {
                    Some(intent) => self.decided(name, &intent.decision),
                    None => Ok(()),
                }
            }
            BlobKind::Index { session, .. } => {
                match self.open(name, FindingKind::DamagedIndex, |bytes| Index::open(keys, name, bytes))? {
                    Some(index) => self.index(name, &index),
                    None => drop(lock(&self.told).unread.insert(session)),
                }
                Ok(())
            }
            BlobKind::Condemned(n) => {
                self.generation(name, |bytes| Condemned::open(keys, n, bytes).map(drop))
            }
            BlobKind::GcResult(n) => self.generation(name, |bytes| GcResult::open(keys, n, bytes).map(drop)),
            BlobKind::GenerationSeal(n) => {
                self.generation(name, |bytes| GenerationSeal::open(keys, n, bytes).map(drop))
            }
            BlobKind::Repack(_) => {
                let open = |bytes: &[u8]| RepackRecord::open(keys, name, bytes);
                self.open(name, FindingKind::DamagedRepackRecord, open).map(drop)
            }
        }
    }

    fn generation(
        &self,
        name: &BlobName,
        open: impl Fn(&[u8]) -> Result<(), FormatError>,
    ) -> Result<(), EngineError> {
        self.open(name, FindingKind::DamagedGeneration, open).map(drop)
    }

    /// Reads and opens an object; nothing if it is damaged, which is noted, or was removed meanwhile.
    fn open<T>(
        &self,
        name: &BlobName,
        kind: FindingKind,
        open: impl Fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>, EngineError> {
        let bytes = match get_sealed(self.repository.store(), name) {
            Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(None),
            Err(EngineError::Damaged { source, .. }) => {
                self.findings.note(kind, name, || chain(&source));
                return Ok(None);
            }
            other => other?,
        };
        match open(&bytes) {
            Ok(object) => Ok(Some(object)),
            Err(error) => {
                self.findings.note(kind, name, || chain(&error));
                Ok(None)
            }
        }
    }

    /// An intent without a decision.
    fn decided(&self, name: &BlobName, decision: &DecisionName) -> Result<(), EngineError> {
        let tombstone = BlobName::tombstone(decision.vm, decision.session);
        for blob in [decision.blob(), tombstone] {
            if self.repository.blob_len(&blob)?.is_some() {
                return Ok(());
            }
        }
        let id = self.findings.note(FindingKind::UndecidedSession, name, || {
            "the session has not ended: it is running, was interrupted, or its decision was lost".to_owned()
        });
        self.lose(id, decision);
        Ok(())
    }

    fn index(&self, name: &BlobName, index: &Index) {
        let len = |pack: &PackName| self.inventory.len(pack);
        let stale = index.packs.iter().filter(|pack| len(&pack.name) != Some(u64::from(pack.len)));
        let mut stale = stale.peekable();
        if let Some(first) = stale.peek() {
            let first = first.name.clone();
            let count = stale.count();
            self.findings.note(FindingKind::StaleIndex, name, || {
                format!(
                    "{count} of the packs that it lists are not there with that length, the first is {first}"
                )
            });
        }
        lock(&self.told).indexed.extend(index.packs.iter().map(|pack| pack.name.clone()));
    }

    /// Data packs of committed sessions that no index lists.
    fn unindexed(&self, blobs: &[BlobInfo], snapshots: &[Snapshot]) {
        let told = lock(&self.told);
        let committed: HashSet<SessionId> = snapshots.iter().map(Snapshot::session).collect();
        let mut missing: BTreeMap<(SessionId, WriterId), usize> = BTreeMap::new();
        for info in blobs {
            if let Some(BlobKind::Pack(pack)) = info.name.kind()
                && pack.kind == PackKind::Data
                && committed.contains(&pack.session)
                && !told.unread.contains(&pack.session)
                && !told.indexed.contains(&pack)
            {
                *missing.entry((pack.session, pack.writer)).or_default() += 1;
            }
        }
        if missing.is_empty() {
            return;
        }
        let names: HashSet<&BlobName> = blobs.iter().map(|info| &info.name).collect();
        for ((session, writer), count) in missing {
            let free = (0..=u32::MAX).map(|number| BlobName::index(&writer, session, number));
            let Some(name) = free.into_iter().find(|name| !names.contains(name)) else { continue };
            self.findings.note(FindingKind::MissingIndex, &name, || {
                format!("{count} packs of the snapshot {session} are in no index")
            });
        }
    }
}
