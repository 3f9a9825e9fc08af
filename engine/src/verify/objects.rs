//! All that is neither a map nor a pack: whether names have a meaning, and small objects open.

mod indexes;

use super::counts;
use super::findings::{FindingId, Findings};
use super::indexing::{self, Indexed};
use super::inventory::{Inventory, PackState};
use super::left_out::LeftOut;
use super::needs::Published;
use super::report::FindingKind;
use super::sessions::Sessions;
use crate::error::{EngineError, chain};
use crate::frames::lock;
use crate::pack_set::PackSet;
use crate::repository::{Repository, get_sealed, untried_slots};
use crate::snapshots::{Snapshot, Snapshots};
use crate::store::{BlobInfo, StoreError};
use crate::threads;
use repo_format::limits::KEY_SLOTS_MAX;
use repo_format::{
    Awaited, Barrier, BlobKind, BlobName, CANARY, Condemned, DecisionName, FormatError, GcResult,
    GenerationSeal, Index, Intent, Lineage, PREFIX_INDEX, PREFIX_TOMBSTONES, PackName, PackRef, Pin,
    RepackRecord, ReplicaMarker, SessionId, Slot, SlotName, Tombstone, VmTag,
};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Objects that are read at the same time. An index may be as long as 64 MiB.
const READ_THREADS: usize = 4;

/// What the objects tell of sessions and packs.
#[derive(Default)]
pub(super) struct Told {
    pub(super) intents: BTreeMap<SessionId, Vec<Intent>>,
    /// What the tombstones of a session forget.
    pub(super) tombstoned: BTreeMap<SessionId, Vec<DecisionName>>,
    /// The decisions of snapshots that were pinned once, with a pin that tells it.
    pub(super) pinned: BTreeMap<SessionId, (DecisionName, BlobName)>,
    /// Decisions and tombstones that cannot be read.
    pub(super) unreadable: HashSet<BlobName>,
    /// The indexes that can be read.
    pub(super) indexes: Vec<BlobName>,
    /// Data packs that an index lists with the length that they have, and by which indexes.
    pub(super) listed: HashMap<PackName, Vec<u32>>,
    /// Data packs that an index lists with another length.
    pub(super) mislisted: HashSet<PackName>,
    /// Sessions whose packs an index of another session lists, and that index.
    pub(super) listed_elsewhere: BTreeMap<SessionId, BlobName>,
    /// The names of sessions' decisions as indexes tell them.
    pub(super) decisions: HashMap<SessionId, DecisionName>,
    /// Packs that a pruner condemned or deleted.
    pub(super) condemned: HashSet<PackName>,
    /// Packs that generations delete or have deleted, if it matters.
    pub(super) deleted: PackSet,
    /// Indexes that cannot be read, with their sessions.
    pub(super) unread: Vec<(SessionId, FindingId)>,
    /// Repack sessions whose records say that they were for snapshots that are left out, and for no other.
    pub(super) for_left_out: BTreeSet<SessionId>,
    /// Key slots by their salts, which no two have in common.
    salts: HashMap<[u8; 32], Vec<BlobName>>,
    /// Generations that have an object.
    generations: BTreeSet<u32>,
}

impl Told {
    /// Whether an authentic tombstone forgets a decision.
    pub(super) fn is_forgotten(&self, decision: &DecisionName) -> bool {
        self.tombstoned.get(&decision.session).is_some_and(|forgotten| forgotten.contains(decision))
    }
}

/// What is to be checked.
pub(super) struct Check<'v, 'r, 's> {
    pub(super) repository: &'v Repository<'r>,
    /// Younger than the snapshots.
    pub(super) blobs: &'v [BlobInfo],
    pub(super) snapshots: &'v Snapshots,
    pub(super) inventory: &'v Inventory<'v, 's>,
    pub(super) findings: &'v Findings,
    pub(super) published: &'v Published,
    pub(super) left_out: &'v LeftOut,
    /// The packs that the snapshots need.
    pub(super) needed: &'v BTreeMap<PackName, PackState>,
    /// Now, milliseconds since 1970.
    pub(super) time: u64,
}

/// Checks every blob of a listing that is neither a pack nor the config, and whether what there is of each session fits
/// together. Returns what the objects tell.
pub(super) fn check(check: &Check<'_, '_, '_>) -> Result<Told, EngineError> {
    let Check { repository, blobs, snapshots, inventory, findings, published, left_out, needed, time } =
        *check;
    let vms = vms(&snapshots.snapshots);
    let told = Mutex::default();
    let objects = Objects { repository, inventory, findings, published, left_out, vms: &vms, told };
    objects.unreadable(snapshots);
    let next = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let failure: Mutex<Option<EngineError>> = Mutex::default();
    threads::scope(|threads| {
        for _ in 0..blobs.len().min(threads::waiting(READ_THREADS)) {
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
    let indexed = Indexed { blobs, snapshots, left_out, needed };
    objects.catch_up(&indexed)?;
    let told = objects.told.into_inner().unwrap_or_else(PoisonError::into_inner);
    let sessions = Sessions {
        repository,
        inventory,
        findings,
        snapshots,
        vms: &vms,
        told: &told,
        published,
        left_out,
        elsewhere: OnceCell::new(),
        time,
    };
    sessions.check(blobs)?;
    counts::check(&sessions, blobs)?;
    indexing::check(findings, &indexed, &told);
    generations(findings, &told, published.first_generation);
    copied_slots(findings, &told);
    for blob in untried_slots(repository)? {
        findings.note(FindingKind::UntriedKeySlot, &blob, || {
            format!("no password opens it: only the first {KEY_SLOTS_MAX} key slots are tried")
        });
    }
    Ok(told)
}

/// Generations are numbered one after the other, and what is under `gc/` stays. Of those that arrive from elsewhere, any may
/// be missing.
fn generations(findings: &Findings, told: &Told, first: u32) {
    let Some(newest) = told.generations.last() else { return };
    // A number that is a lie does not make this long: what is told ends with the first gap.
    let gap = (first..*newest).find(|n| !told.generations.contains(n));
    if let Some(n) = gap {
        let detail =
            || format!("all of its generation is missing, but there is the later generation {newest}");
        findings.note(FindingKind::DamagedGeneration, &BlobName::generation_seal(n), detail);
    }
}

/// Which slots have their salt from another one. Which of them is the copy, only a password tells.
fn copied_slots(findings: &Findings, told: &Told) {
    for slots in told.salts.values().filter(|slots| slots.len() > 1) {
        let Some(first) = slots.iter().min() else { continue };
        for slot in slots.iter().filter(|slot| *slot != first) {
            findings.note(FindingKind::DamagedKeySlot, slot, || {
                format!("it has the salt of {first}: one of the two is a copy under another name, which opens nothing")
            });
        }
    }
}

/// The names of VMs by their tags.
fn vms(snapshots: &[Snapshot]) -> HashMap<VmTag, String> {
    snapshots.iter().map(|snapshot| (snapshot.name.vm, snapshot.commit.vm.clone())).collect()
}

struct Objects<'v, 'r, 's> {
    repository: &'v Repository<'r>,
    inventory: &'v Inventory<'v, 's>,
    findings: &'v Findings,
    published: &'v Published,
    left_out: &'v LeftOut,
    vms: &'v HashMap<VmTag, String>,
    told: Mutex<Told>,
}

impl Objects<'_, '_, '_> {
    /// Decisions and tombstones were read to find the snapshots.
    fn unreadable(&self, snapshots: &Snapshots) {
        let sound: HashSet<SessionId> = snapshots
            .snapshots
            .iter()
            .map(Snapshot::session)
            .chain(snapshots.aborted.iter().chain(&snapshots.repacked).copied())
            .chain(snapshots.forgotten.iter().map(|name| name.session))
            .collect();
        for (name, error) in &snapshots.unreadable {
            lock(&self.told).unreadable.insert(name.clone());
            match name.kind() {
                _ if is_unsigned(error) => self.unsigned(name),
                Some(BlobKind::Decision(decision)) => {
                    let id = self.findings.note(FindingKind::DamagedDecision, name, || chain(error));
                    if sound.contains(&decision.session) || self.left_out.has(decision.session) {
                        self.findings.tell_more(id, "the session's decision is there under another name");
                    } else {
                        let vm = self.vms.get(&decision.vm).map_or("", String::as_str);
                        self.findings.lose(id, decision.session, vm);
                    }
                }
                _ => drop(self.findings.note(FindingKind::DamagedTombstone, name, || chain(error))),
            }
        }
    }

    /// Notes an object that the retention role did not make.
    fn unsigned(&self, name: &BlobName) {
        self.findings.note(FindingKind::UnsignedObject, name, || {
            "it lacks the signature of the retention role, or has a wrong one: it is ignored".to_owned()
        });
    }

    fn blob(&self, name: &BlobName) -> Result<(), EngineError> {
        let Some(kind) = name.kind() else {
            self.findings.note(FindingKind::UnknownName, name, || "no object has such a name".to_owned());
            return Ok(());
        };
        let keys = self.repository.keys();
        match kind {
            // The config was checked when the repository was opened, decisions when snapshots were looked for, and
            // packs are looked at through maps.
            BlobKind::Config | BlobKind::Pack(_) | BlobKind::Decision(_) => Ok(()),
            BlobKind::KeySlot(slot) => self.slot(name, &slot),
            BlobKind::Tombstone { session, .. } => {
                let open = |bytes: &[u8]| Tombstone::open(keys, name, bytes);
                if let Some(tombstone) = self.open(name, FindingKind::DamagedTombstone, open)? {
                    lock(&self.told).tombstoned.entry(session).or_default().push(tombstone.decision);
                }
                Ok(())
            }
            BlobKind::Intent { session, .. } => {
                let open = |bytes: &[u8]| Intent::open(keys, name, bytes);
                if let Some(intent) = self.open(name, FindingKind::DamagedIntent, open)? {
                    lock(&self.told).intents.entry(session).or_default().push(intent);
                }
                Ok(())
            }
            BlobKind::Index { session, .. } => {
                let open = |bytes: &[u8]| Index::open(keys, name, bytes);
                match self.read(name, FindingKind::DamagedIndex, open)? {
                    Opened::Sound(index) => self.index(name, session, &index)?,
                    Opened::Damaged(id) => lock(&self.told).unread.push((session, id)),
                    Opened::Gone | Opened::Unsigned => {}
                }
                Ok(())
            }
            BlobKind::Condemned(n) => {
                let listed = self.generation(n, name, |bytes| Condemned::open(keys, n, bytes))?;
                self.condemned(listed.map(|list| list.packs));
                Ok(())
            }
            BlobKind::GcResult(n) => {
                let result = self.generation(n, name, |bytes| GcResult::open(keys, n, bytes))?;
                let listed = result.map(|GcResult { mut delete, earlier, .. }| {
                    delete.extend(earlier);
                    delete
                });
                self.condemned(listed);
                Ok(())
            }
            BlobKind::Awaited(n) => {
                // Alone it is no generation.
                let open = |bytes: &[u8]| Awaited::open(keys, n, bytes);
                self.open(name, FindingKind::DamagedGeneration, open).map(drop)
            }
            BlobKind::GenerationSeal(n) => {
                self.generation(n, name, |bytes| GenerationSeal::open(keys, n, bytes)).map(drop)
            }
            BlobKind::Repack(session) => {
                let open = |bytes: &[u8]| RepackRecord::open(keys, name, bytes);
                if let Some(record) = self.open(name, FindingKind::DamagedRepackRecord, open)?
                    && self.left_out.are_all_of(&record.applies_to)
                    // Of what is to go by this place's own generations it counted here.
                    && !record.packs.iter().any(|pack| self.published.going.contains(&pack.name))
                {
                    lock(&self.told).for_left_out.insert(session);
                }
                Ok(())
            }
            BlobKind::Pin { session, .. } => {
                let pin = self.open(name, FindingKind::DamagedPin, |bytes| Pin::open(keys, name, bytes))?;
                if let Some(pin) = pin {
                    lock(&self.told).pinned.entry(session).or_insert_with(|| (pin.decision, name.clone()));
                }
                Ok(())
            }
            BlobKind::ReplicaMarker => {
                let open = |bytes: &[u8]| ReplicaMarker::open(keys, bytes);
                self.open(name, FindingKind::DamagedLineage, open).map(drop)
            }
            BlobKind::Lineage(_) => {
                let open = |bytes: &[u8]| Lineage::open(keys, name, bytes);
                self.open(name, FindingKind::DamagedLineage, open).map(drop)
            }
            BlobKind::Barrier { .. } => {
                let open = |bytes: &[u8]| Barrier::open(keys, name, bytes);
                self.open(name, FindingKind::DamagedBarrier, open).map(drop)
            }
            BlobKind::Canary => {
                let open = |bytes: &[u8]| match bytes {
                    CANARY => Ok(()),
                    _ => Err(FormatError::BadValue("a canary does not have its content")),
                };
                self.open(name, FindingKind::DamagedCanary, open).map(drop)
            }
        }
    }

    /// If a pack is in no index, opens indexes and tombstones that were not listed, and looks for what was deleted: a pruner may
    /// have put indexes in the place of others, without the packs that it deletes.
    fn catch_up(&self, indexed: &Indexed<'_>) -> Result<(), EngineError> {
        let explains = |name: &BlobName| {
            matches!(name.kind(), Some(BlobKind::Index { .. } | BlobKind::Tombstone { .. }))
        };
        let mut known: HashSet<BlobName> = HashSet::new();
        known.extend(indexed.blobs.iter().map(|info| &info.name).filter(|name| explains(name)).cloned());
        while indexing::lacks_any(indexed, &lock(&self.told)) {
            let mut now = self.repository.list(PREFIX_INDEX)?;
            now.extend(self.repository.list(PREFIX_TOMBSTONES)?);
            let names = now.into_iter().map(|info| info.name);
            let new: Vec<BlobName> = names.filter(|name| explains(name) && !known.contains(name)).collect();
            let deleted = Published::load(self.repository)?.deleted;
            let is_news = deleted.len() > lock(&self.told).deleted.len();
            if new.is_empty() && !is_news {
                break;
            }
            lock(&self.told).deleted = deleted;
            for name in new {
                self.blob(&name)?;
                known.insert(name);
            }
        }
        Ok(())
    }

    fn slot(&self, name: &BlobName, slot: &SlotName) -> Result<(), EngineError> {
        let open = |bytes: &[u8]| match Slot::parse(slot, bytes)? {
            slot if slot.info().repository == self.repository.keys().repository() => Ok(slot),
            _ => Err(FormatError::BadValue("the key slot is another repository's")),
        };
        if let Some(slot) = self.open(name, FindingKind::DamagedKeySlot, open)? {
            lock(&self.told).salts.entry(slot.info().salt).or_default().push(name.clone());
        }
        Ok(())
    }

    fn generation<T>(
        &self,
        n: u32,
        name: &BlobName,
        open: impl Fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>, EngineError> {
        lock(&self.told).generations.insert(n);
        self.open(name, FindingKind::DamagedGeneration, open)
    }

    fn condemned(&self, packs: Option<Vec<PackRef>>) {
        lock(&self.told).condemned.extend(packs.into_iter().flatten().map(|pack| pack.name));
    }

    /// As [`Objects::read`], where a damaged object needs no more attention.
    fn open<T>(
        &self,
        name: &BlobName,
        kind: FindingKind,
        open: impl Fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>, EngineError> {
        Ok(match self.read(name, kind, open)? {
            Opened::Sound(object) => Some(object),
            Opened::Damaged(_) | Opened::Gone | Opened::Unsigned => None,
        })
    }

    /// Reads and opens an object; damage is noted.
    fn read<T>(
        &self,
        name: &BlobName,
        kind: FindingKind,
        open: impl Fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Opened<T>, EngineError> {
        let opened = match get_sealed(self.repository.store(), name) {
            Ok(bytes) => match open(&bytes) {
                Err(FormatError::BadSignature) => {
                    self.unsigned(name);
                    return Ok(Opened::Unsigned);
                }
                opened => opened.map_err(|error| chain(&error)),
            },
            Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(Opened::Gone),
            Err(EngineError::Damaged { source, .. }) => Err(chain(&source)),
            Err(error) if error.is_damage() => Err(chain(&error)),
            Err(error) => return Err(error),
        };
        Ok(match opened {
            Ok(object) => Opened::Sound(object),
            Err(detail) => Opened::Damaged(self.findings.note(kind, name, || detail)),
        })
    }
}

/// Whether an error tells of an object that the retention role did not sign.
fn is_unsigned(error: &EngineError) -> bool {
    matches!(error, EngineError::Damaged { source: FormatError::BadSignature, .. })
}

/// What became of reading an object.
enum Opened<T> {
    Sound(T),
    Damaged(FindingId),
    /// It was removed since it was listed.
    Gone,
    /// The retention role did not make it.
    Unsigned,
}
