//! Repack records: followed where they apply, ignored where they do not, listed in `via` where they are needed.

use crate::maps::Map;
use crate::pruner::{End, Repack, condemn, publish_result};
use crate::world::{latest, noise, open};
use crate::{Run, VM, assert_restores, day_one, next_day, snapshot_of};
use keepstone_engine::backup::{Audit, BackupReport, Reading};
use keepstone_engine::contents::contents;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, Extent, Repository};
use repo_format::{Location, PackKind, PackRef, SessionId};
use std::collections::BTreeSet;

pub const FIRST: SessionId = SessionId([0xa1; 16]);
pub const SECOND: SessionId = SessionId([0xa2; 16]);

/// A repository with one snapshot, and a pack of it to repack.
pub struct Lab {
    pub store: MemoryStore,
    pub disk: MemoryDisk,
}

impl Lab {
    pub fn new() -> Self {
        let (store, disk) = day_one();
        Self { store, disk }
    }

    pub fn repository(&self) -> Repository<'_> {
        open(&self.store)
    }

    pub fn parent(&self) -> Snapshot {
        latest(&self.repository(), VM)
    }

    fn map(&self, snapshot: &Snapshot) -> Map {
        Map::of(&self.repository(), snapshot)
    }

    pub fn pack(&self, number: usize) -> PackRef {
        self.pack_of(&self.parent(), number)
    }

    pub fn pack_of(&self, snapshot: &Snapshot, number: usize) -> PackRef {
        self.map(snapshot).data_packs()[number].clone()
    }

    pub fn map_packs(&self, snapshot: &Snapshot) -> Vec<PackRef> {
        self.map(snapshot).packs.into_iter().filter(|pack| pack.name.kind == PackKind::Map).collect()
    }

    pub fn all_packs(&self, snapshot: &Snapshot) -> Vec<PackRef> {
        self.map(snapshot).packs.into_iter().collect()
    }

    /// All chunks of a snapshot's disk, and where each begins on it.
    pub fn chunks(&self, snapshot: &Snapshot) -> Vec<(u64, Location)> {
        let repository = self.repository();
        let pieces = contents(&repository, snapshot.disk(None).unwrap()).unwrap();
        let starts = pieces.iter().filter(|piece| piece.chunk.is_some()).map(|piece| piece.start);
        starts.zip(self.map(snapshot).chunks).collect()
    }

    /// Moves a pack; the record applies to some snapshots.
    pub fn repack(&self, session: SessionId, from: &PackRef, applies_to: &[SessionId], end: End) -> PackRef {
        let from = std::slice::from_ref(from);
        Repack { session: session.0[0], from, applies_to, one_in: 1, end }.run(&self.repository())
    }

    fn condemn(&self, generation: u32, packs: &[PackRef]) {
        condemn(&self.repository(), generation, packs);
        publish_result(&self.repository(), generation, packs);
    }

    pub fn back_up(&self, day: u8) -> (BackupReport, Snapshot) {
        let report = Run::number(day).of(&self.repository(), &self.disk);
        let snapshot = snapshot_of(&self.repository(), &report);
        (report, snapshot)
    }

    /// Backs up what did not change, and expects that all is inherited through some records.
    fn inherits(&mut self, day: u8, via: &[SessionId]) -> Snapshot {
        let root = self.map(&self.parent()).root;
        let (report, snapshot) = self.back_up(day);
        assert_eq!((report.packs, report.disks[0].read_bytes), (0, 0));
        assert_eq!(snapshot.commit.via, via);
        assert_eq!(self.map(&snapshot).root, root);
        self.disk = next_day(&self.disk, day + 1);
        snapshot
    }
}

#[test]
fn pages_are_inherited_through_a_record_that_applies_to_the_parent() {
    let mut lab = Lab::new();
    let old = lab.pack(1);
    lab.repack(FIRST, &old, &[lab.parent().session()], End::Commit);
    lab.condemn(0, &[old]);
    lab.inherits(2, &[FIRST]);
    lab.inherits(3, &[FIRST]);
}

#[test]
fn a_record_that_does_not_apply_to_the_parent_makes_no_name_valid() {
    let lab = Lab::new();
    let old = lab.pack(1);
    let new = lab.repack(FIRST, &old, &[SessionId([9; 16])], End::Commit);
    lab.condemn(0, std::slice::from_ref(&old));
    let (report, snapshot) = lab.back_up(2);
    // The chunks are taken at their new place, as anybody may.
    assert_eq!((report.new_chunks, snapshot.commit.via.as_slice()), (0, [].as_slice()));
    let map = lab.map(&snapshot);
    assert!(!map.packs.contains(&old) && map.packs.contains(&new));
    lab.store.delete(&old.name.blob()).unwrap();
    assert_restores(&lab.repository(), &snapshot, &lab.disk);
}

#[test]
fn the_record_of_a_session_that_did_not_commit_is_ignored() {
    for end in [End::Undecided, End::Abort] {
        let lab = Lab::new();
        let old = lab.pack(1);
        let new = lab.repack(FIRST, &old, &[lab.parent().session()], end);
        lab.condemn(0, std::slice::from_ref(&old));
        let (report, snapshot) = lab.back_up(2);
        let map = lab.map(&snapshot);
        assert!(report.new_chunks > 0);
        assert_eq!(snapshot.commit.via, []);
        assert!(!map.packs.contains(&old) && !map.packs.contains(&new));
        lab.store.delete(&old.name.blob()).unwrap();
        lab.store.delete(&new.name.blob()).unwrap();
        assert_restores(&lab.repository(), &snapshot, &lab.disk);
    }
}

#[test]
fn two_levels_of_records_are_followed_and_both_are_listed() {
    let mut lab = Lab::new();
    let old = lab.pack(1);
    let new = lab.repack(FIRST, &old, &[lab.parent().session()], End::Commit);
    lab.condemn(0, &[old]);
    let second_day = lab.inherits(2, &[FIRST]);
    let newest = lab.repack(SECOND, &new, &[second_day.session()], End::Commit);
    lab.condemn(1, &[new]);
    lab.inherits(3, &[FIRST, SECOND]);
    lab.inherits(4, &[FIRST, SECOND]);

    // Where the names lead to now is condemned as well.
    lab.condemn(2, std::slice::from_ref(&newest));
    let (report, snapshot) = lab.back_up(5);
    assert!(report.new_chunks > 0);
    assert_eq!(snapshot.commit.via, []);
    lab.store.delete(&newest.name.blob()).unwrap();
    assert_restores(&lab.repository(), &snapshot, &lab.disk);
}

#[test]
fn what_a_record_leads_to_is_checked_and_not_only_the_name() {
    let lab = Lab::new();
    let old = lab.pack(1);
    let new = lab.repack(FIRST, &old, &[lab.parent().session()], End::Commit);
    // The name itself is fine, and not condemned.
    lab.condemn(0, std::slice::from_ref(&new));
    let (_, snapshot) = lab.back_up(2);
    let map = lab.map(&snapshot);
    assert!(!map.packs.contains(&old) && !map.packs.contains(&new));
    assert_eq!(snapshot.commit.via, []);
    lab.store.delete(&old.name.blob()).unwrap();
    lab.store.delete(&new.name.blob()).unwrap();
    assert_restores(&lab.repository(), &snapshot, &lab.disk);
}

#[test]
fn all_packs_that_several_records_lead_to_are_checked() {
    for condemned in [0, 1] {
        let lab = Lab::new();
        let old = lab.pack(1);
        let parent = lab.parent().session();
        let places = [FIRST, SECOND].map(|session| lab.repack(session, &old, &[parent], End::Commit));
        lab.condemn(0, &places[condemned..=condemned]);
        let (_, snapshot) = lab.back_up(2);
        let map = lab.map(&snapshot);
        assert!(!map.packs.contains(&old) && !map.packs.contains(&places[condemned]));
        assert_eq!(snapshot.commit.via, []);
        lab.store.delete(&places[condemned].name.blob()).unwrap();
        assert_restores(&lab.repository(), &snapshot, &lab.disk);
    }
}

#[test]
fn a_record_that_no_kept_name_passes_through_is_not_listed() {
    let mut lab = Lab::new();
    let (first, second) = (lab.pack(1), lab.pack(3));
    let parent = lab.parent().session();
    lab.repack(FIRST, &first, &[parent], End::Commit);
    lab.repack(SECOND, &second, &[parent], End::Commit);
    lab.inherits(2, &[FIRST, SECOND]);
    // What the first record moved is overwritten.
    let cell_len = lab.repository().config().geometry.cell_len;
    for cell in lab.map(&lab.parent()).cells_of(&first.name) {
        let start = cell * u64::from(cell_len);
        let part = &mut lab.disk.bytes[start as usize..][..cell_len as usize];
        part.copy_from_slice(&noise(cell, cell_len as usize));
        let (_, areas) = lab.disk.changes.as_mut().unwrap();
        areas.push(Extent { start, length: u64::from(cell_len) });
    }
    let (_, snapshot) = lab.back_up(3);
    let map = lab.map(&snapshot);
    assert!(!map.packs.contains(&first) && map.packs.contains(&second));
    assert_eq!(snapshot.commit.via, [SECOND]);
}

const ANOTHER: Run<'_> =
    Run { vm: "another", writer: "host-b", seed: 9, reading: Reading::Changes, audit: Audit::Off };

#[test]
fn another_vm_takes_moved_chunks_at_their_new_place_only() {
    for is_condemned in [false, true] {
        let lab = Lab::new();
        let old = lab.pack(1);
        let new = lab.repack(FIRST, &old, &[lab.parent().session()], End::Commit);
        if is_condemned {
            lab.condemn(0, std::slice::from_ref(&old));
        }
        let report = ANOTHER.of(&lab.repository(), &lab.disk);
        let snapshot = snapshot_of(&lab.repository(), &report);
        let map = lab.map(&snapshot);
        assert_eq!((report.new_chunks, snapshot.commit.via.as_slice()), (0, [].as_slice()));
        assert!(!map.packs.contains(&old) && map.packs.contains(&new));
        lab.store.delete(&old.name.blob()).unwrap();
        assert_restores(&lab.repository(), &snapshot, &lab.disk);
    }
}

#[test]
fn another_vm_follows_two_levels_of_moves() {
    let lab = Lab::new();
    let old = lab.pack(1);
    let new = lab.repack(FIRST, &old, &[], End::Commit);
    let newest = lab.repack(SECOND, &new, &[], End::Commit);
    let report = ANOTHER.of(&lab.repository(), &lab.disk);
    let snapshot = snapshot_of(&lab.repository(), &report);
    let map = lab.map(&snapshot);
    assert_eq!(report.new_chunks, 0);
    assert!(!map.packs.contains(&old) && !map.packs.contains(&new) && map.packs.contains(&newest));
    assert_restores(&lab.repository(), &snapshot, &lab.disk);
}

#[test]
fn chunks_that_a_repack_left_behind_are_not_taken_from_the_old_pack() {
    let lab = Lab::new();
    let old = lab.pack(1);
    let repack = Repack {
        session: 0xa1,
        from: std::slice::from_ref(&old),
        applies_to: &[],
        one_in: 2,
        end: End::Commit,
    };
    let new = repack.run(&lab.repository());
    let report = ANOTHER.of(&lab.repository(), &lab.disk);
    let snapshot = snapshot_of(&lab.repository(), &report);
    let map = lab.map(&snapshot);
    let chunks: BTreeSet<_> =
        lab.map(&lab.parent()).chunks.iter().filter(|at| at.pack == old).map(|at| at.id).collect();
    assert_eq!(report.new_chunks, chunks.len() as u64 / 2);
    assert!(!map.packs.contains(&old) && map.packs.contains(&new));
    lab.store.delete(&old.name.blob()).unwrap();
    assert_restores(&lab.repository(), &snapshot, &lab.disk);
}

#[test]
fn a_new_place_that_is_not_there_is_not_used() {
    let lab = Lab::new();
    let old = lab.pack(1);
    let new = lab.repack(FIRST, &old, &[], End::Commit);
    lab.store.delete(&new.name.blob()).unwrap();
    let run = Run { reading: Reading::Everything, ..Run::number(2) };
    for run in [run, ANOTHER] {
        let snapshot = snapshot_of(&lab.repository(), &run.of(&lab.repository(), &lab.disk));
        assert!(!lab.map(&snapshot).packs.contains(&new));
        assert_restores(&lab.repository(), &snapshot, &lab.disk);
    }
}
