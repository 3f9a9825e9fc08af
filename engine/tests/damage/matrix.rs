//! Every kind of blob, damaged in every way.
//!
//! What must hold in every cell, whatever the damage:
//! - the repository opens, or says why it does not, naming what is damaged;
//! - `verify` and `verify --read-data` find exactly the damage of [`expected`], with exactly these snapshots, disks and
//!   ranges; where nothing can be found, [`Unseen`] says why;
//! - a restore gives the bytes of the disk, or is an error that names a damaged blob;
//! - one that keeps going loses exactly what the damaged frames held;
//! - a backup afterwards succeeds or refuses, naming a damaged blob; what it wrote restores but for what it shares
//!   with what is lost, and a full backup after the damaged packs were taken away restores whole.

use crate::harms::{Changes, Harm};
use crate::lab::{Kept, Lab, back_up, try_open};
use crate::oracle::{Need, needs, range};
use crate::world::NOW;
use keepstone_engine::backup::Reading;
use keepstone_engine::extent::{normalized, total_length};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{OnDamage, RestoreJob, RestoreReport, restore};
use keepstone_engine::snapshots::{Selector, Snapshot, find};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::target::MemoryTarget;
use keepstone_engine::verify::{Affected, Finding, FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, EngineError, Extent, Repository};
use repo_format::{
    BlobKind, BlobName, FrameKind, Location, PACK_HEADER_LEN, PackHeader, PackKind, Slot, SlotName,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cells of the matrix.
const CELLS: usize = 315;

/// Why a damage cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// Only its own password tells whether a key slot opens, and slots may be removed.
    SlotsAreTriedByTheirPasswords,
    /// A session that is decided needs its intent no more.
    IntentsAreNotNeededAfterwards,
    /// Without a tombstone a snapshot is there again; nothing else names the tombstone.
    NothingNamesTombstones,
    /// What the pruner had condemned is not any more, or is again: only it reads these.
    NothingNamesPruneRecords,
    /// A line end after JSON is no part of its value.
    LineEndsMeanNothing,
}

/// What a verification must find: damage by blob, with what it concerns.
type Found = BTreeMap<BlobName, (FindingKind, Vec<Affected>)>;

/// The blobs that are damaged, by name of the row.
fn rows(lab: &Lab) -> Vec<(&'static str, BlobName)> {
    let (old, new, only) = (lab.snapshot("alpha", 0), lab.snapshot("alpha", 1), lab.snapshot("beta", 0));
    let gamma = lab.snapshot("gamma", 1);
    let aborted = lab.store.names().into_iter().find(|name| match name.kind() {
        Some(BlobKind::Decision(decision)) => lab.aborted.contains(&decision.session),
        _ => false,
    });
    let record = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Repack(_)));
    vec![
        ("config", BlobName::config()),
        ("key slot", BlobName::key_slot(&SlotName::new("first").unwrap())),
        ("intent", BlobName::intent(&new.name.writer, new.session())),
        ("newest COMMIT", new.name.blob()),
        ("older COMMIT", old.name.blob()),
        ("only COMMIT", only.name.blob()),
        ("ABORT", aborted.unwrap()),
        ("tombstone", BlobName::tombstone(gamma.name.vm, gamma.session())),
        ("data pack", lab.pack(PackKind::Data, old, 0)),
        ("map pack", lab.pack(PackKind::Map, old, 0)),
        ("index", BlobName::index(&old.name.writer, old.session(), 0)),
        ("condemned list", BlobName::condemned(1)),
        ("condemned list of the newest generation", BlobName::condemned(3)),
        ("result", BlobName::result(2)),
        ("generation seal", BlobName::generation_seal(1)),
        ("repack record", lab.store.names().into_iter().find(record).unwrap()),
    ]
}

/// The damages that a blob is tried with.
fn columns(lab: &Lab, blob: &BlobName, needs: &[(usize, Need)]) -> Vec<Harm> {
    let len = lab.get(blob).len();
    let header = match blob.kind() {
        Some(BlobKind::Pack(_)) => PACK_HEADER_LEN,
        Some(BlobKind::Config | BlobKind::KeySlot(_)) => 16,
        _ => 80,
    };
    let mut harms = vec![Harm::Delete, Harm::Extend(1), Harm::Extend(4096)];
    harms.extend([0, 1, header - 1, header, len / 2, len - 1].map(Harm::Cut));
    // JSON ends with a line end, which is no part of what is authenticated.
    harms.extend([0, 10, header - 4, header, len / 2, len - 2].map(Harm::Flip));
    harms.extend([Harm::Swap, Harm::SwapEqual, Harm::Older, Harm::Duplicate]);
    if let Some(BlobKind::Pack(_)) = blob.kind() {
        // The directory's place, the key hash, the sealed session key; and a frame of each kind and level.
        harms.extend([12, 70, 100, 140].map(Harm::Flip));
        let mut frames: BTreeMap<(u8, u64), usize> = BTreeMap::new();
        for (_, need) in needs.iter().filter(|(_, need)| need.blob() == *blob) {
            let spans = if need.kind == FrameKind::Node { need.lost.length } else { 0 };
            frames.insert((need.kind as u8, spans), range(&need.at).start + 5);
        }
        harms.extend(frames.into_values().map(Harm::Flip));
    }
    harms
}

#[test]
fn every_damage_of_every_blob_is_found_and_contained() {
    let lab = Lab::new();
    let all_needs: Vec<(usize, Need)> = lab
        .kept
        .iter()
        .enumerate()
        .flat_map(|(disk, kept)| needs(&lab, kept).into_iter().map(move |need| (disk, need)))
        .collect();
    let repository = try_open(&lab.store).unwrap();
    let notes = findings(&repository, true);
    assert!(notes.iter().all(|finding| !is_of_content(finding.kind)), "{notes:#?}");
    let mut cells = Vec::new();
    for (row, blob) in rows(&lab) {
        for harm in columns(&lab, &blob, &all_needs) {
            if let Some((store, changes)) = harm.done(&lab, &blob) {
                cells.push(Cell { lab: &lab, needs: &all_needs, notes: &notes, row, harm, store, changes });
            }
        }
    }
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (row, harm) = (cell.row, cell.harm);
                    let mut problems = Vec::new();
                    cell.check(&mut problems);
                    let told = problems.into_iter().map(|problem| format!("{row}, {harm:?}: {problem}"));
                    failed.lock().unwrap().extend(told);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} problems:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(cells.len(), CELLS);
}

fn findings(repository: &Repository<'_>, read_data: bool) -> Vec<Finding> {
    let read_data = if read_data { ReadData::Everything } else { ReadData::Nothing };
    verify(repository, &VerifyJob::everything(read_data, NOW), &Quiet).unwrap().findings
}

/// Whether a finding is about the bytes of a blob, and not about how blobs fit together.
pub fn is_of_content(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::MissingPack
            | FindingKind::WrongLength
            | FindingKind::DamagedPack
            | FindingKind::ContradictoryMap
            | FindingKind::DamagedDecision
            | FindingKind::DamagedTombstone
            | FindingKind::DamagedIntent
            | FindingKind::DamagedIndex
            | FindingKind::DamagedGeneration
            | FindingKind::DamagedRepackRecord
            | FindingKind::DamagedPin
            | FindingKind::DamagedLineage
            | FindingKind::DamagedBarrier
            | FindingKind::DamagedCanary
            | FindingKind::DamagedKeySlot
    )
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

struct Cell<'a> {
    lab: &'a Lab,
    needs: &'a [(usize, Need)],
    /// What is told of the repository as it was.
    notes: &'a [Finding],
    row: &'static str,
    harm: Harm,
    store: MemoryStore,
    changes: Changes,
}

impl Cell<'_> {
    fn check(&self, problems: &mut Vec<String>) {
        let repository = match try_open(&self.store) {
            Ok(repository) => repository,
            Err(error) => return problems.extend(self.check_closed(&error)),
        };
        if self.changes.contains_key(&BlobName::config()) && !self.cuts_a_line_end() {
            return problems.push("the repository opens with a damaged config".to_owned());
        }
        for read_data in [false, true] {
            problems.extend(self.check_findings(&repository, read_data));
        }
        for (disk, kept) in self.lab.kept.iter().enumerate() {
            problems.extend(self.check_restore(&repository, disk, kept));
        }
        problems.extend(self.check_backup(Reading::Changes));
        problems.extend(self.check_backup(Reading::Everything));
    }

    /// JSON ends with a line end, which is no part of its value.
    fn cuts_a_line_end(&self) -> bool {
        self.changes.iter().all(|(name, bytes)| {
            let Ok(was) = self.lab.store.get(name, None) else { return false };
            was.strip_suffix(b"}\n")
                .is_some_and(|value| bytes.as_ref().and_then(|bytes| bytes.strip_suffix(b"}")) == Some(value))
        })
    }

    /// A repository that does not open says so with the name of what is damaged.
    fn check_closed(&self, error: &EngineError) -> Option<String> {
        let config = self.changes.contains_key(&BlobName::config());
        let slots = self.changes.keys().filter(|name| matches!(name.kind(), Some(BlobKind::KeySlot(_))));
        let right = match error {
            EngineError::ConfigMissing { .. } => config && self.harm == Harm::Delete,
            // With a config of another repository, the slots are foreign ones.
            EngineError::WrongPassword { .. } => slots.count() == 2 || (config && self.harm == Harm::Older),
            error => config && chain(error).contains("config"),
        };
        (!right).then(|| format!("it does not open: {}", chain(error)))
    }

    fn check_findings(&self, repository: &Repository<'_>, read_data: bool) -> Option<String> {
        let mut found = findings(repository, read_data);
        found.retain(|finding| !self.notes.contains(finding));
        let (content, rest): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|found| is_of_content(found.kind));
        let damage: Found = content
            .into_iter()
            .map(|finding| (BlobName::parse(&finding.blob).unwrap(), (finding.kind, finding.affected)))
            .collect();
        let expected = self.expected(read_data);
        if damage != expected {
            return Some(format!("read data {read_data}: found {damage:#?}\nexpected {expected:#?}"));
        }
        // What else is told follows from it: no range is lost for it, and no snapshot that is there.
        let is_there =
            |affected: &Affected| self.is_readable(&affected.snapshot) || !affected.ranges.is_empty();
        // A snapshot that is there again, and that a pruner has taken for forgotten.
        let is_back = self.changes.keys().any(|name| matches!(name.kind(), Some(BlobKind::Tombstone { .. })));
        let is_explained = |finding: &&Finding| finding.kind == FindingKind::CondemnedPack && is_back;
        let mut unexplained = rest.iter().filter(|finding| !is_explained(finding));
        if let Some(wrong) = unexplained.find(|finding| finding.affected.iter().any(is_there)) {
            return Some(format!("read data {read_data}: {wrong:#?}"));
        }
        let lost = self.changes.iter().filter_map(|(name, bytes)| match (name.kind(), bytes) {
            (Some(BlobKind::Decision(decision)), None) => Some(decision.session.to_string()),
            _ => None,
        });
        for session in lost {
            let names =
                |finding: &Finding| finding.affected.iter().any(|affected| affected.snapshot == session);
            if !rest.iter().any(names) {
                return Some(format!("nothing tells of the lost decision: {rest:#?}"));
            }
        }
        let nothing = damage.is_empty() && rest.is_empty();
        (nothing && read_data && self.unseen().is_none()).then(|| "nothing is found".to_owned())
    }

    /// Whether a snapshot is one that is there and was not forgotten.
    fn is_readable(&self, session: &str) -> bool {
        self.lab.kept.iter().any(|kept| {
            let decision = kept.snapshot.name.blob();
            kept.snapshot.session().to_string() == session && !self.changes.contains_key(&decision)
        })
    }

    /// Why nothing can be found, where that is so.
    fn unseen(&self) -> Option<Unseen> {
        let (name, bytes) = self.changes.first_key_value().unwrap();
        match (name.kind()?, bytes) {
            _ if self.cuts_a_line_end() => Some(Unseen::LineEndsMeanNothing),
            (BlobKind::KeySlot(_), _) => Some(Unseen::SlotsAreTriedByTheirPasswords),
            (BlobKind::Intent { .. }, None) => Some(Unseen::IntentsAreNotNeededAfterwards),
            (BlobKind::Tombstone { .. }, None) => Some(Unseen::NothingNamesTombstones),
            (
                BlobKind::Condemned(_)
                | BlobKind::Awaited(_)
                | BlobKind::GcResult(_)
                | BlobKind::GenerationSeal(_)
                | BlobKind::Repack(_)
                | BlobKind::Pin { .. }
                | BlobKind::ReplicaMarker
                | BlobKind::Lineage(_)
                | BlobKind::Barrier { .. }
                | BlobKind::Canary,
                None,
            ) => Some(Unseen::NothingNamesPruneRecords),
            _ => None,
        }
    }

    /// The damage that must be found.
    fn expected(&self, read_data: bool) -> Found {
        let mut found = Found::new();
        for (name, bytes) in &self.changes {
            let kind = match (name.kind(), bytes) {
                (Some(BlobKind::Pack(_)), _) => {
                    found.extend(self.expected_of_pack(name, bytes.as_deref(), read_data));
                    continue;
                }
                (Some(BlobKind::KeySlot(slot)), Some(bytes)) => {
                    let repository = self.repository_id();
                    let own =
                        Slot::parse(&slot, bytes).is_ok_and(|slot| slot.info().repository == repository);
                    if own && matches!(self.harm, Harm::Older | Harm::Duplicate) {
                        // Two slots have one salt; which of them is the copy, only a password tells.
                        let later = name.clone().max(BlobName::parse("keys/other").unwrap());
                        found.insert(later, (FindingKind::DamagedKeySlot, Vec::new()));
                    }
                    if own {
                        continue;
                    }
                    FindingKind::DamagedKeySlot
                }
                (Some(BlobKind::Decision(decision)), bytes) => {
                    if bytes.is_none() {
                        continue;
                    }
                    let kind = FindingKind::DamagedDecision;
                    let lost = Affected {
                        snapshot: decision.session.to_string(),
                        vm: self.vm_name(&decision.vm),
                        disk: String::new(),
                        ranges: Vec::new(),
                    };
                    found.insert(name.clone(), (kind, vec![lost]));
                    continue;
                }
                (Some(BlobKind::Intent { .. }), Some(_)) => FindingKind::DamagedIntent,
                (Some(BlobKind::Tombstone { .. }), Some(_)) => FindingKind::DamagedTombstone,
                (Some(BlobKind::Index { .. }), Some(_)) => FindingKind::DamagedIndex,
                (
                    Some(
                        BlobKind::Condemned(_)
                        | BlobKind::Awaited(_)
                        | BlobKind::GcResult(_)
                        | BlobKind::GenerationSeal(_),
                    ),
                    Some(_),
                ) => FindingKind::DamagedGeneration,
                (Some(BlobKind::Repack(_)), Some(_)) => FindingKind::DamagedRepackRecord,
                (Some(BlobKind::Pin { .. }), Some(_)) => FindingKind::DamagedPin,
                (Some(BlobKind::ReplicaMarker | BlobKind::Lineage(_)), Some(_)) => {
                    FindingKind::DamagedLineage
                }
                (Some(BlobKind::Barrier { .. }), Some(_)) => FindingKind::DamagedBarrier,
                (Some(BlobKind::Canary), Some(_)) => FindingKind::DamagedCanary,
                _ => continue,
            };
            found.insert(name.clone(), (kind, Vec::new()));
        }
        found
    }

    fn repository_id(&self) -> repo_format::RepositoryId {
        try_open(&self.lab.store).unwrap().config().repository
    }

    /// The name of a VM, if a snapshot of it is left that can be read.
    fn vm_name(&self, vm: &repo_format::VmTag) -> String {
        let readable = |kept: &&Kept| {
            kept.snapshot.name.vm == *vm
                && !kept.forgotten
                && !self.changes.contains_key(&kept.snapshot.name.blob())
        };
        self.lab.kept.iter().find(readable).map(|kept| kept.snapshot.commit.vm.clone()).unwrap_or_default()
    }

    fn expected_of_pack(
        &self,
        name: &BlobName,
        bytes: Option<&[u8]>,
        read_data: bool,
    ) -> Option<(BlobName, (FindingKind, Vec<Affected>))> {
        if self.harm == Harm::Duplicate {
            // Nothing refers to it, but packs are counted, and one too many is looked at.
            return Some((name.clone(), (FindingKind::DamagedPack, Vec::new())));
        }
        let len = self.lab.get(name).len();
        let kind = match bytes {
            None => FindingKind::MissingPack,
            Some(bytes) if bytes.len() != len => FindingKind::WrongLength,
            Some(_) => FindingKind::DamagedPack,
        };
        // Without reading data it is only looked whether chunks can be there; pages and nodes are read.
        let is_found = |need: &Need| {
            let end = bytes.map_or(0, <[u8]>::len);
            let looked_at = read_data || need.kind != FrameKind::Chunk || range(&need.at).end > end;
            let is_reached = !need.above.iter().any(|at| self.is_unreadable(at));
            looked_at && need.blob() == *name && is_reached && self.is_unreadable(&need.at)
        };
        let mut affected = Vec::new();
        for (disk, kept) in self.lab.kept.iter().enumerate().filter(|(_, kept)| !kept.forgotten) {
            let of_disk = self.needs.iter().filter(|(of, need)| *of == disk && is_found(need));
            let ranges = normalized(of_disk.map(|(_, need)| need.named).collect());
            if !ranges.is_empty() {
                affected.push(Affected {
                    snapshot: kept.snapshot.session().to_string(),
                    vm: kept.snapshot.commit.vm.clone(),
                    disk: kept.key.to_owned(),
                    ranges,
                });
            }
        }
        let is_seen = read_data || kind != FindingKind::DamagedPack || !affected.is_empty();
        is_seen.then(|| (name.clone(), (kind, affected)))
    }

    /// Whether a frame cannot be read any more: its bytes are others, or the pack's key cannot be found.
    fn is_unreadable(&self, at: &Location) -> bool {
        let name = at.pack.name.blob();
        let Some(bytes) = self.changes.get(&name) else { return false };
        let Some(bytes) = bytes else { return true };
        let was = self.lab.get(&name);
        let (Some(header), Ok(parsed)) = (bytes.get(..PACK_HEADER_LEN), PackHeader::parse(bytes)) else {
            return true;
        };
        let old = PackHeader::parse(&was).unwrap();
        // Of the header, the key depends on all but where the directory is.
        let same_key = PackHeader {
            directory_offset: old.directory_offset,
            directory_len: old.directory_len,
            frame_count: old.frame_count,
            ..parsed
        } == old;
        header.len() != PACK_HEADER_LEN || !same_key || bytes.get(range(at)) != was.get(range(at))
    }

    /// What a disk loses.
    fn lost(&self, disk: usize) -> Vec<Extent> {
        let of_disk = self.needs.iter().filter(|(of, need)| *of == disk && self.is_unreadable(&need.at));
        normalized(of_disk.map(|(_, need)| need.lost).collect())
    }

    fn check_restore(&self, repository: &Repository<'_>, disk: usize, kept: &Kept) -> Option<String> {
        let session = kept.snapshot.session();
        let id = session.to_string();
        let decision = kept.snapshot.name.blob();
        let hidden = kept.forgotten && {
            let tombstone = BlobName::tombstone(kept.snapshot.name.vm, session);
            !self.changes.contains_key(&tombstone)
        };
        let snapshot = match (find(repository, &Selector::Id(id.clone())), self.changes.get(&decision)) {
            (Err(EngineError::NoSuchSnapshot { .. }), Some(None)) => return None,
            (Err(EngineError::NoSuchSnapshot { .. }), None) if hidden => return None,
            (Err(EngineError::Damaged { name, .. }), Some(Some(_))) if name == decision => return None,
            (Ok(snapshot), None) if !hidden => snapshot,
            (found, _) => return Some(format!("{id}: {:?}", found.map(|found| found.session()))),
        };
        let lost = self.lost(disk);
        let strict = restored(repository, &snapshot, kept.key, OnDamage::Stop);
        let problem = match strict {
            Ok((_, bytes)) if lost.is_empty() && bytes == kept.bytes => None,
            Err(error) if !lost.is_empty() && self.names(&chain(&error)) => None,
            Ok((_, bytes)) => Some(format!("restored, the same: {}", bytes == kept.bytes)),
            Err(error) => Some(chain(&error)),
        };
        if let Some(problem) = problem {
            return Some(format!("{id} {}: {problem}; lost is {lost:?}", kept.key));
        }
        match restored(repository, &snapshot, kept.key, OnDamage::KeepGoing) {
            Ok((report, bytes)) => self.check_lost(&report, &bytes, &kept.bytes, &lost),
            Err(error) => Some(format!("{id} {}: it does not keep going: {}", kept.key, chain(&error))),
        }
    }

    /// Exactly `lost` is zero and listed with damaged blobs; all else is as it was.
    fn check_lost(
        &self,
        report: &RestoreReport,
        bytes: &[u8],
        original: &[u8],
        lost: &[Extent],
    ) -> Option<String> {
        let listed = report.lost.iter().map(|range| Extent { start: range.start, length: range.length });
        let listed: Vec<Extent> = normalized(listed.collect());
        let mut expected = original.to_vec();
        for extent in lost {
            let start = usize::try_from(extent.start).unwrap();
            expected[start..][..usize::try_from(extent.length).unwrap()].fill(0);
        }
        let named = report.lost.iter().all(|range| self.names(&range.blob));
        let right = listed == lost && report.lost_bytes == total_length(lost) && named && !report.lost_joined;
        (!right || bytes != expected).then(|| format!("lost {:?}, expected {lost:?}", report.lost))
    }

    /// Whether a text names a damaged blob.
    fn names(&self, text: &str) -> bool {
        self.changes.keys().any(|name| text.contains(name.as_str()))
    }

    /// Backs alpha up once more. For a full backup, damaged packs are taken away before, as the manual says.
    fn check_backup(&self, reading: Reading) -> Option<String> {
        let store = self.store.copied();
        if reading == Reading::Everything {
            for name in self.changes.keys().filter(|name| matches!(name.kind(), Some(BlobKind::Pack(_)))) {
                store.delete(name).unwrap();
            }
        }
        let repository = try_open(&store).unwrap();
        let next = &self.lab.next;
        let report = match back_up(&repository, "alpha", &[("disk0", next)], 200, reading) {
            Ok(report) => report,
            Err(error) => {
                // Inherited maps and what the pruner wrote have to be read; a full backup needs the latter only.
                let refusable = self.changes.keys().any(|name| match name.kind() {
                    Some(BlobKind::Pack(pack)) => pack.kind == PackKind::Map && reading == Reading::Changes,
                    Some(
                        BlobKind::Condemned(_)
                        | BlobKind::GcResult(_)
                        | BlobKind::GenerationSeal(_)
                        | BlobKind::Repack(_),
                    ) => true,
                    _ => false,
                });
                let clear = refusable && self.names(&chain(&error));
                return (!clear).then(|| format!("{reading:?}: the backup fails: {}", chain(&error)));
            }
        };
        let snapshot = find(&repository, &Selector::Id(report.snapshot.to_string())).unwrap();
        assert_eq!(snapshot.commit.time, NOW + 200);
        let (report, bytes) = match restored(&repository, &snapshot, "disk0", OnDamage::KeepGoing) {
            Ok(restored) => restored,
            Err(error) => return Some(format!("{reading:?}: {}", chain(&error))),
        };
        // What the backup before has lost, it may share; what was read again, it must not.
        let parent = self.lab.kept.iter().position(|kept| kept.snapshot == *self.lab.snapshot("alpha", 1));
        let mut allowed = self.lost(parent.unwrap());
        if reading == Reading::Everything {
            allowed.clear();
        }
        let is_allowed =
            |start: u64, end: u64| allowed.iter().any(|extent| extent.start <= start && end <= extent.end());
        let contained = report.lost.iter().all(|range| is_allowed(range.start, range.start + range.length));
        let mut expected = next.bytes.clone();
        for range in &report.lost {
            let start = usize::try_from(range.start).unwrap();
            expected[start..][..usize::try_from(range.length).unwrap()].fill(0);
        }
        (!contained || bytes != expected)
            .then(|| format!("{reading:?}: a later backup lost {:?}", report.lost))
    }
}

fn restored(
    repository: &Repository<'_>,
    snapshot: &Snapshot,
    key: &str,
    on_damage: OnDamage,
) -> Result<(RestoreReport, Vec<u8>), EngineError> {
    let disk = snapshot.disk(Some(key)).unwrap();
    let target = MemoryTarget::new(usize::try_from(disk.size).unwrap());
    let window_len = 1 << 18;
    let job = RestoreJob { window_len, on_damage, ..RestoreJob::new(snapshot.session(), disk, &target) };
    let report = restore(repository, &job, &Quiet)?;
    Ok((report, target.into_bytes()))
}
