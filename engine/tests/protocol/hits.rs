//! W5: which packs of other sessions a chunk is taken from.

use crate::maps::Map;
use crate::pruner::{abort, condemn, forget};
use crate::world::{create, latest, mixed, open, small_geometry};
use crate::{Run, assert_restores, snapshot_of};
use keepstone_engine::backup::{Audit, Reading};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, Repository};
use repo_format::{BlobName, Index, PackRef};
use std::collections::BTreeSet;

const OTHER: Run<'_> =
    Run { vm: "other", writer: "host-b", seed: 1, reading: Reading::Changes, audit: Audit::Off };

/// Another VM of another writer, with the disk that will be backed up.
struct Other {
    store: MemoryStore,
    disk: MemoryDisk,
    snapshot: Snapshot,
    packs: Vec<PackRef>,
}

impl Other {
    fn new() -> Self {
        let store = MemoryStore::new();
        let disk = MemoryDisk::new(mixed(1, 700_000));
        let repository = create(&store, small_geometry());
        OTHER.of(&repository, &disk);
        let snapshot = latest(&repository, "other");
        let packs = Map::of(&repository, &snapshot).data_packs();
        assert!(packs.len() > 3);
        Self { store, disk, snapshot, packs }
    }

    fn repository(&self) -> Repository<'_> {
        open(&self.store)
    }

    fn decision(&self) -> BlobName {
        self.snapshot.name.blob()
    }

    /// Backs the disk up as another VM; returns which of the packs it uses.
    fn used_by(&self, writer: &str) -> BTreeSet<PackRef> {
        let repository = self.repository();
        let run = Run { writer, ..Run::number(2) };
        let report = run.of(&repository, &self.disk);
        let snapshot = snapshot_of(&repository, &report);
        let used = Map::of(&repository, &snapshot).packs;
        let used: BTreeSet<PackRef> = self.packs.iter().filter(|pack| used.contains(pack)).cloned().collect();
        assert_eq!(report.new_chunks == 0, used.len() == self.packs.len());
        for pack in self.packs.iter().filter(|pack| !used.contains(pack)) {
            self.store.delete(&pack.name.blob()).unwrap();
        }
        assert_restores(&repository, &snapshot, &self.disk);
        used
    }

    fn all(&self) -> BTreeSet<PackRef> {
        self.packs.iter().cloned().collect()
    }

    fn all_but(&self, number: usize) -> BTreeSet<PackRef> {
        self.packs.iter().filter(|pack| **pack != self.packs[number]).cloned().collect()
    }
}

#[test]
fn packs_of_a_committed_session_are_used() {
    let other = Other::new();
    assert_eq!(other.used_by("host-a"), other.all());
}

#[test]
fn packs_of_a_forgotten_session_are_used_even_when_its_root_is_gone() {
    let other = Other::new();
    forget(&other.repository(), &other.snapshot.name);
    assert_eq!(other.used_by("host-a"), other.all());
    let other = Other::new();
    forget(&other.repository(), &other.snapshot.name);
    other.store.delete(&other.decision()).unwrap();
    assert_eq!(other.used_by("host-a"), other.all());
}

#[test]
fn packs_of_an_undecided_session_are_not_used() {
    let other = Other::new();
    other.store.delete(&other.decision()).unwrap();
    assert_eq!(other.used_by("host-a"), BTreeSet::new());
}

#[test]
fn packs_of_an_own_undecided_session_are_not_used() {
    let other = Other::new();
    other.store.delete(&other.decision()).unwrap();
    assert_eq!(other.used_by("host-b"), BTreeSet::new());
}

#[test]
fn a_tombstone_that_is_not_authentic_decides_nothing() {
    let other = Other::new();
    other.store.delete(&other.decision()).unwrap();
    let name = BlobName::tombstone(other.snapshot.name.vm, other.snapshot.session());
    other.store.overwrite(&name, b"garbage");
    assert_eq!(other.used_by("host-a"), BTreeSet::new());
}

#[test]
fn a_decision_that_is_not_authentic_decides_nothing() {
    let other = Other::new();
    other.store.overwrite(&other.decision(), b"garbage");
    assert_eq!(other.used_by("host-a"), BTreeSet::new());
}

#[test]
fn packs_of_an_aborted_session_are_used_by_its_own_writer_only() {
    for (writer, is_used) in [("host-a", false), ("host-b", true)] {
        let other = Other::new();
        let bytes = abort(&other.repository(), &other.snapshot.name);
        other.store.overwrite(&other.decision(), &bytes);
        let expected = if is_used { other.all() } else { BTreeSet::new() };
        assert_eq!(other.used_by(writer), expected, "{writer}");
    }
}

#[test]
fn condemned_packs_are_not_used() {
    let other = Other::new();
    condemn(&other.repository(), 0, &other.packs[1..2]);
    assert_eq!(other.used_by("host-a"), other.all_but(1));
}

#[test]
fn packs_that_vanished_are_not_used() {
    let other = Other::new();
    other.store.delete(&other.packs[2].name.blob()).unwrap();
    assert_eq!(other.used_by("host-a"), other.all_but(2));
}

#[test]
fn packs_of_another_size_are_not_used() {
    let other = Other::new();
    let name = other.packs[2].name.blob();
    let bytes = other.store.get(&name, None).unwrap();
    other.store.overwrite(&name, &bytes[..bytes.len() - 1]);
    assert_eq!(other.used_by("host-a"), other.all_but(2));
}

/// Replaces the index blob by two: the first has every second entry as it is, the second the others, each changed.
fn falsify(other: &Other, change: impl Fn(&mut Index)) {
    let repository = other.repository();
    let PackRef { name, .. } = &other.packs[0];
    let blob = BlobName::index(&name.writer, name.session, 0);
    let bytes = other.store.get(&blob, None).unwrap();
    let index = Index::open(repository.keys(), &blob, &bytes).unwrap();
    let half = |first: usize| {
        let entries = index.entries.iter().skip(first).step_by(2).copied().collect();
        Index { entries, ..index.clone() }
    };
    let mut changed = half(1);
    change(&mut changed);
    other.store.overwrite(&blob, &half(0).seal(repository.keys(), &blob, [8; 32]));
    let second = BlobName::index(&name.writer, name.session, 1);
    other.store.overwrite(&second, &changed.seal(repository.keys(), &second, [9; 32]));
}

/// The chunks that a backup by another VM stores, of how many.
fn new_chunks(other: &Other) -> (u64, u64) {
    let repository = other.repository();
    let report = Run::number(2).of(&repository, &other.disk);
    let snapshot = snapshot_of(&repository, &report);
    assert_restores(&repository, &snapshot, &other.disk);
    let chunks = Map::of(&repository, &snapshot).chunks;
    let distinct: BTreeSet<_> = chunks.iter().map(|at| at.id).collect();
    (report.new_chunks, distinct.len() as u64)
}

#[test]
fn an_index_with_wrong_sizes_of_packs_is_not_believed_and_does_not_hide_the_right_ones() {
    let other = Other::new();
    falsify(&other, |index| index.packs.iter_mut().for_each(|pack| pack.len += 1));
    let (new, all) = new_chunks(&other);
    assert_eq!(new, all / 2);
}

#[test]
fn an_index_with_wrong_lengths_of_chunks_is_not_believed() {
    let other = Other::new();
    falsify(&other, |index| {
        for entry in &mut index.entries {
            entry.plain_len += 1;
            entry.codec = repo_format::Codec::Zstd;
        }
    });
    let (new, all) = new_chunks(&other);
    assert_eq!(new, all / 2);
}
