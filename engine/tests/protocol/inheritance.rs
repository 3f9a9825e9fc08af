//! W4: what a parent's map names and a pruner condemned is not inherited, everything else is.

use crate::maps::Map;
use crate::pruner::{condemn, forget, publish_result, seal_generation};
use crate::world::{latest, noise, open, small_geometry, undamaged};
use crate::{Run, VM, assert_restores, day_one, next_day, snapshot_of};
use keepstone_engine::backup::Reading;
use keepstone_engine::snapshots::list;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, Extent, Repository};
use repo_format::{PackKind, PackRef};
use std::collections::BTreeSet;

/// How a generation condemns packs.
type Way = fn(&Repository<'_>, u32, &[PackRef]);

const WAYS: [Way; 3] = [
    condemn,
    |repository, generation, packs| {
        condemn(repository, generation, packs);
        publish_result(repository, generation, packs);
    },
    |repository, generation, packs| {
        condemn(repository, generation, packs);
        publish_result(repository, generation, packs);
        seal_generation(repository, generation);
    },
];

/// A parent whose map is partly its own and partly inherited, and the disk a day later, unchanged.
fn two_days() -> (MemoryStore, MemoryDisk) {
    let (store, mut disk) = day_one();
    disk.bytes[200_000..350_000].copy_from_slice(&noise(3, 150_000));
    disk.changes = disk.changes.map(|(since, _)| (since, vec![Extent { start: 200_000, length: 150_000 }]));
    Run::number(2).of(&open(&store), &disk);
    (store, next_day(&disk, 3))
}

fn parent_map(store: &MemoryStore) -> Map {
    let repository = open(store);
    Map::of(&repository, &latest(&repository, VM))
}

/// Backs up a disk that did not change while one of its packs is condemned.
fn check_condemned(base: &MemoryStore, disk: &MemoryDisk, parent: &Map, pack: &PackRef, way: Way) {
    let store = base.copied();
    let repository = open(&store);
    way(&repository, 0, std::slice::from_ref(pack));
    let report = Run::number(3).of(&repository, disk);
    let snapshot = snapshot_of(&repository, &report);
    let map = Map::of(&repository, &snapshot);
    assert!(!map.packs.contains(pack), "{} is referenced", pack.name.blob());

    // Each chunk of the pack is stored once more, and nothing else is.
    let of_pack = parent.chunks.iter().filter(|at| at.pack == *pack);
    let lost: BTreeSet<_> = of_pack.map(|at| at.id).collect();
    assert_eq!(report.new_chunks, lost.len() as u64);
    let cells = parent.cells_of(&pack.name);
    for (cell, page) in parent.pages.iter().filter(|(cell, _)| !cells.contains(cell)) {
        assert_eq!(map.pages[cell], *page, "the page of cell {cell} is not inherited");
    }
    // A chunk that reaches into a cell is read with it, and one that may follow it.
    let geometry = small_geometry();
    let nodes = parent.nodes.iter().filter(|node| **node == pack.name).count();
    let most = (cells.len() + nodes) as u64 * u64::from(geometry.cell_len + 3 * geometry.chunker.max);
    assert!(report.disks[0].read_bytes <= most, "{} bytes are read", report.disks[0].read_bytes);
    assert_eq!((report.disks[0].mode, report.disks[0].changed_bytes), ("incremental", 0));

    store.delete(&pack.name.blob()).unwrap();
    assert_restores(&repository, &snapshot, disk);
}

#[test]
fn a_condemned_pack_is_not_inherited_and_all_else_is() {
    let (store, disk) = two_days();
    let parent = parent_map(&store);
    for kind in [PackKind::Data, PackKind::Map] {
        assert!(parent.packs.iter().filter(|pack| pack.name.kind == kind).count() > 1, "{kind:?}");
    }
    for pack in &parent.packs {
        for way in WAYS {
            check_condemned(&store, &disk, &parent, pack, way);
        }
    }
}

#[test]
fn nodes_are_stored_again_when_no_page_is_in_their_pack() {
    // A region becomes zero: its pages are gone, and only the nodes above them are new.
    let (store, mut disk) = two_days();
    let region_len = small_geometry().region_len;
    let area = Extent { start: u64::from(region_len) * 7, length: u64::from(region_len) };
    disk.bytes[area.start as usize..area.end() as usize].fill(0);
    disk.changes = disk.changes.map(|(since, _)| (since, vec![area]));
    let report = Run::number(3).of(&open(&store), &disk);
    let parent = parent_map(&store);
    let own = |pack: &&PackRef| pack.name.session == report.snapshot;
    let pack = parent.packs.iter().find(own).expect("the nodes are in a pack");
    assert_eq!((report.packs, parent.cells_of(&pack.name).len()), (1, 0));

    let disk = next_day(&disk, 4);
    let repository = open(&store);
    condemn(&repository, 0, std::slice::from_ref(pack));
    let report = Run::number(4).of(&repository, &disk);
    let snapshot = snapshot_of(&repository, &report);
    let map = Map::of(&repository, &snapshot);
    assert!(!map.packs.contains(pack));
    assert_eq!((report.new_chunks, map.pages == parent.pages), (0, true));
    store.delete(&pack.name.blob()).unwrap();
    assert_restores(&repository, &snapshot, &disk);
}

#[test]
fn a_full_backup_does_not_take_a_condemned_pack_from_its_parent() {
    let (base, disk) = two_days();
    for pack in &parent_map(&base).packs {
        let store = base.copied();
        let repository = open(&store);
        condemn(&repository, 0, std::slice::from_ref(pack));
        let report = Run { reading: Reading::Everything, ..Run::number(3) }.of(&repository, &disk);
        let snapshot = snapshot_of(&repository, &report);
        assert!(!Map::of(&repository, &snapshot).packs.contains(pack));
        store.delete(&pack.name.blob()).unwrap();
        assert_restores(&repository, &snapshot, &disk);
    }
}

#[test]
fn a_disk_of_another_size_does_not_inherit_a_condemned_pack() {
    let (base, disk) = two_days();
    let parent = parent_map(&base);
    for len in [700_000, 1_050_000, 1_600_000, 20_000_000] {
        let mut disk = disk.clone();
        let old_len = disk.bytes.len();
        disk.bytes.resize(len, 0);
        if let (Some((_, areas)), Some(area)) =
            (&mut disk.changes, Extent::between(old_len as u64, len as u64))
        {
            areas.push(area);
        }
        for pack in &parent.packs {
            let store = base.copied();
            let repository = open(&store);
            condemn(&repository, 0, std::slice::from_ref(pack));
            let snapshot = snapshot_of(&repository, &Run::number(3).of(&repository, &disk));
            assert!(!Map::of(&repository, &snapshot).packs.contains(pack), "{len}: {}", pack.name.blob());
            store.delete(&pack.name.blob()).unwrap();
            assert_restores(&repository, &snapshot, &disk);
        }
    }
}

#[test]
fn all_packs_may_be_condemned_at_once() {
    let (store, disk) = two_days();
    let parent = parent_map(&store);
    let repository = open(&store);
    condemn(&repository, 0, &parent.packs.iter().cloned().collect::<Vec<_>>());
    let snapshot = snapshot_of(&repository, &Run::number(3).of(&repository, &disk));
    assert!(Map::of(&repository, &snapshot).packs.is_disjoint(&parent.packs));
    for pack in &parent.packs {
        store.delete(&pack.name.blob()).unwrap();
    }
    assert_restores(&repository, &snapshot, &disk);
}

#[test]
fn what_a_result_rescues_is_inherited() {
    let (store, disk) = two_days();
    let parent = parent_map(&store);
    let repository = open(&store);
    let [deleted, rescued] = [0, 1].map(|number| parent.data_packs()[number].clone());
    condemn(&repository, 0, &[deleted.clone(), rescued.clone()]);
    publish_result(&repository, 0, std::slice::from_ref(&deleted));
    let map = Map::of(&repository, &snapshot_of(&repository, &Run::number(3).of(&repository, &disk)));
    assert!(!map.packs.contains(&deleted));
    assert!(map.packs.contains(&rescued));
}

#[test]
fn a_generation_that_was_sealed_without_a_result_condemns_nothing() {
    let (store, disk) = two_days();
    let parent = parent_map(&store);
    let repository = open(&store);
    condemn(&repository, 0, &parent.data_packs());
    seal_generation(&repository, 0);
    let report = Run::number(3).of(&repository, &disk);
    assert_eq!((report.packs, report.disks[0].read_bytes), (0, 0));
    let map = Map::of(&repository, &snapshot_of(&repository, &report));
    assert_eq!(map.root, parent.root);
}

#[test]
fn the_lists_of_all_generations_count() {
    let (store, disk) = two_days();
    let packs = parent_map(&store).data_packs();
    let repository = open(&store);
    for (generation, pack) in (0..).zip(packs.chunks(1).take(3)) {
        condemn(&repository, generation, pack);
        publish_result(&repository, generation, pack);
        seal_generation(&repository, generation);
    }
    condemn(&repository, 3, &packs[3..4]);
    let map = Map::of(&repository, &snapshot_of(&repository, &Run::number(3).of(&repository, &disk)));
    assert!(packs[..4].iter().all(|pack| !map.packs.contains(pack)));
    assert!(packs[4..].iter().all(|pack| map.packs.contains(pack)));
}

#[test]
fn a_chain_goes_on_while_its_packs_are_condemned_one_generation_after_the_other() {
    let (store, mut disk) = two_days();
    let repository = open(&store);
    let mut gone: BTreeSet<PackRef> = BTreeSet::new();
    for (day, generation) in (3..9u8).zip(0..) {
        let parent = latest(&repository, VM);
        let third: Vec<PackRef> = Map::of(&repository, &parent).packs.into_iter().step_by(3).collect();
        WAYS[usize::from(day) % 3](&repository, generation, &third);
        gone.extend(third);
        let start = u64::from(day) * 100_000;
        disk.bytes[usize::from(day) * 100_000] ^= 1;
        disk.changes = disk.changes.map(|(since, _)| (since, vec![Extent { start, length: 1 }]));
        let snapshot = snapshot_of(&repository, &Run::number(day).of(&repository, &disk));
        assert!(Map::of(&repository, &snapshot).packs.is_disjoint(&gone));
        assert_restores(&repository, &snapshot, &disk);
        disk = next_day(&disk, day + 1);
    }
    let mut old = list(&repository, Some(VM)).unwrap().snapshots;
    let newest = old.pop().expect("there are snapshots");
    for snapshot in &old {
        forget(&repository, &snapshot.name);
    }
    for pack in &gone {
        store.delete(&pack.name.blob()).unwrap();
    }
    assert_restores(&repository, &newest, &disk);
    undamaged(&repository);
}
