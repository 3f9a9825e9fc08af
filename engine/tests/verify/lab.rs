//! Two VMs with a few snapshots, and how findings about them are checked.

use crate::world::{
    NOW, back_up, create, latest, memory_index, mixed, noise, open, restored, small_geometry,
};
use keepstone_engine::contents::contents;
use keepstone_engine::extent::{Extent, normalized};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{Affected, Finding, FindingKind, ReadData, VerifyJob, VerifyReport, verify};
use keepstone_engine::{BlobStore, Repository};
use repo_format::{
    BlobKind, BlobName, FrameEntry, Keys, PackHeader, PackKind, PackName, SessionId, open_directory,
};
use std::collections::HashSet;

pub const CELL_LEN: u64 = 16 << 10;

/// Two VMs: the first with two snapshots of which the second changed a part, the other one alone.
pub struct World {
    pub store: MemoryStore,
    pub first: Snapshot,
    pub second: Snapshot,
    pub other: Snapshot,
    pub bytes: [Vec<u8>; 3],
}

pub fn world() -> World {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut index = memory_index(&repository);
    let mut disk = MemoryDisk { change_id: Some("one".into()), ..MemoryDisk::new(mixed(1, 900_001)) };
    back_up(&repository, &mut index, "vm", &[("disk0", &disk)], 1).unwrap();
    let (first, first_bytes) = (latest(&repository, "vm"), disk.bytes.clone());
    disk.bytes[300_000..350_000].copy_from_slice(&noise(7, 50_000));
    disk.changes = Some(("one".into(), vec![Extent { start: 300_000, length: 50_000 }]));
    back_up(&repository, &mut index, "vm", &[("disk0", &disk)], 2).unwrap();
    let (second, second_bytes) = (latest(&repository, "vm"), disk.bytes);
    let disk = MemoryDisk::new(noise(3, 200_000));
    back_up(&repository, &mut index, "other", &[("disk0", &disk)], 3).unwrap();
    let other = latest(&repository, "other");
    World { store, first, second, other, bytes: [first_bytes, second_bytes, disk.bytes] }
}

pub fn run(store: &dyn BlobStore, read_data: bool) -> VerifyReport {
    let read_data = if read_data { ReadData::Everything } else { ReadData::Nothing };
    verify(&open(store), &VerifyJob::everything(read_data, NOW), &Quiet).unwrap()
}

impl World {
    pub fn snapshots(&self) -> [(&Snapshot, &Vec<u8>); 3] {
        let [first, second, other] = &self.bytes;
        [(&self.first, first), (&self.second, second), (&self.other, other)]
    }

    pub fn get(&self, name: &BlobName) -> Vec<u8> {
        self.store.get(name, None).unwrap()
    }

    pub fn packs(&self, kind: PackKind, snapshot: &Snapshot) -> Vec<PackName> {
        self.packs_of(kind, snapshot.session())
    }

    pub fn packs_of(&self, kind: PackKind, session: SessionId) -> Vec<PackName> {
        let of_session = |name: BlobName| match name.kind() {
            Some(BlobKind::Pack(pack)) if pack.kind == kind && pack.session == session => Some(pack),
            _ => None,
        };
        self.store.names().into_iter().filter_map(of_session).collect()
    }

    pub fn frames(&self, keys: &Keys, pack: &PackName) -> Vec<(u32, FrameEntry)> {
        let bytes = self.get(&pack.blob());
        let header = PackHeader::parse(&bytes).unwrap();
        open_directory(keys, pack, &header, &bytes[header.directory_offset as usize..]).unwrap()
    }

    /// What a finding concerns if these chunks are gone.
    pub fn affected(&self, repository: &Repository<'_>, frames: &[(u32, FrameEntry)]) -> Vec<Affected> {
        let ids: HashSet<_> = frames.iter().map(|(_, frame)| frame.id).collect();
        let affected = self.snapshots().into_iter().filter_map(|(snapshot, _)| {
            let pieces = contents(repository, &snapshot.commit.disks[0]).unwrap();
            let lost = pieces.iter().filter(|piece| piece.chunk.is_some_and(|id| ids.contains(&id)));
            let ranges =
                normalized(lost.map(|piece| Extent { start: piece.start, length: piece.len }).collect());
            (!ranges.is_empty()).then(|| concerns(snapshot, ranges))
        });
        affected.collect()
    }

    /// Checks the one finding, and that what it does not concern restores.
    pub fn expect(&self, report: &VerifyReport, kind: FindingKind, blob: &BlobName, affected: &[Affected]) {
        let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
        let expected = Finding {
            kind,
            blob: blob.to_string(),
            detail: finding.detail.clone(),
            affected: affected.to_vec(),
        };
        assert_eq!(*finding, expected);
        let repository = open(&self.store);
        for (snapshot, bytes) in self.snapshots() {
            let id = snapshot.session().to_string();
            let harmed = affected.iter().any(|affected| affected.snapshot == id);
            match restored(&repository, snapshot, "disk0") {
                Ok(found) => assert!(!harmed && found == *bytes, "{id} restores"),
                Err(error) => assert!(harmed, "{id}: {error}"),
            }
        }
    }
}

pub fn concerns(snapshot: &Snapshot, ranges: Vec<Extent>) -> Affected {
    Affected {
        snapshot: snapshot.session().to_string(),
        vm: snapshot.commit.vm.clone(),
        disk: "disk0".to_owned(),
        ranges,
    }
}

pub fn whole(snapshot: &Snapshot) -> Affected {
    concerns(snapshot, vec![Extent { start: 0, length: snapshot.commit.disks[0].size }])
}

pub fn lost(snapshot: &Snapshot, vm: &str) -> Affected {
    Affected { vm: vm.to_owned(), disk: String::new(), ..concerns(snapshot, Vec::new()) }
}

/// A finding with a part of its detail.
pub type Expected<'a> = (FindingKind, String, Vec<Affected>, &'a str);

/// Checks all findings.
pub fn expect_all(report: &VerifyReport, expected: &[Expected<'_>]) {
    let found = report.findings.iter().map(|Finding { kind, blob, affected, .. }| (*kind, blob, affected));
    let wanted = expected.iter().map(|(kind, blob, affected, _)| (*kind, blob, affected));
    assert!(found.clone().eq(wanted), "{:#?}\ninstead of {expected:#?}", report.findings);
    for (finding, (.., detail)) in report.findings.iter().zip(expected) {
        assert!(finding.detail.contains(detail), "{finding:#?}\ninstead of {detail}");
    }
}
