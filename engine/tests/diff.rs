//! The changed areas between two disks, and what a repository is said to hold.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]
#![expect(clippy::cast_possible_truncation, reason = "all sizes are small")]

mod world;

use keepstone_engine::contents::{ContentPiece, contents};
use keepstone_engine::diff::diff;
use keepstone_engine::extent::{Extent, normalized};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::stats::{Count, stats, stats_of};
use keepstone_engine::store::{MemoryStore, RecordingStore};
use keepstone_engine::{BlobStore, EngineError, Repository};
use proptest::prelude::*;
use repo_format::{BlobKind, BlobName, Disk, Geometry};
use world::{back_up, create, latest, memory_index, mixed, noise, open, small_geometry, undamaged};

/// Cells of 4 KiB: a disk of more than 256 KiB has two levels of nodes.
fn tiny_cells() -> Geometry {
    Geometry { region_len: 16 << 10, cell_len: 4 << 10, ..small_geometry() }
}

/// Snapshots of one disk as it is changed.
fn history(repository: &Repository<'_>, states: &[Vec<u8>]) -> Vec<Disk> {
    let mut index = memory_index(repository);
    let numbered = (1u8..).zip(states);
    numbered
        .map(|(run, bytes)| {
            let disk = MemoryDisk::new(bytes.clone());
            back_up(repository, &mut index, "vm", &[("disk0", &disk)], run).unwrap();
            disk0(&latest(repository, "vm"))
        })
        .collect()
}

fn disk0(snapshot: &Snapshot) -> Disk {
    snapshot.disk(Some("disk0")).unwrap().clone()
}

/// What `diff` is to find, by comparing the pieces that each byte belongs to.
fn expected(a: &[ContentPiece], b: &[ContentPiece]) -> Vec<Extent> {
    let of_bytes = |pieces: &[ContentPiece]| -> Vec<ContentPiece> {
        let piece = |piece: &ContentPiece| match piece.chunk {
            Some(_) => *piece,
            None => ContentPiece { start: 0, len: 0, chunk: None },
        };
        pieces.iter().flat_map(|found| std::iter::repeat_n(piece(found), found.len as usize)).collect()
    };
    let (a, b) = (of_bytes(a), of_bytes(b));
    let differing = (0..a.len().max(b.len())).filter(|&at| a.get(at) != b.get(at));
    normalized(differing.map(|at| Extent { start: at as u64, length: 1 }).collect())
}

fn covers(extents: &[Extent], a: &[u8], b: &[u8]) -> bool {
    let mut changed = vec![false; a.len().max(b.len())];
    for extent in extents {
        changed[extent.start as usize..extent.end() as usize].fill(true);
    }
    changed.iter().enumerate().all(|(at, changed)| *changed || a.get(at) == b.get(at))
}

#[derive(Clone, Debug)]
enum Change {
    Noise(usize, usize),
    Zero(usize, usize),
    Resize(usize),
}

const SIZE_MAX: usize = 600_000;

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = || prop_oneof![0..SIZE_MAX, (0..150usize).prop_map(|cell| cell * 4096)];
    let len = || prop_oneof![1..300usize, 1..40_000usize, Just(4096usize)];
    let change = prop_oneof![
        4 => (at(), len()).prop_map(|(at, len)| Change::Noise(at, len)),
        3 => (at(), len()).prop_map(|(at, len)| Change::Zero(at, len)),
        1 => at().prop_map(|at| Change::Resize(at.max(1))),
        1 => (1..3000usize, 50..80usize).prop_map(|(over, cell)| Change::Resize(cell * 4096 + over)),
    ];
    prop::collection::vec(change, 0..5)
}

fn changed(bytes: &[u8], changes: &[Change], seed: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (number, change) in (0..).zip(changes) {
        let size = bytes.len();
        match *change {
            Change::Resize(size) => bytes.resize(size, 0),
            Change::Noise(at, len) => {
                let part = &mut bytes[at.min(size)..(at + len).min(size)];
                part.copy_from_slice(&noise(seed + number, part.len()));
            }
            Change::Zero(at, len) => bytes[at.min(size)..(at + len).min(size)].fill(0),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_diff_is_what_comparing_all_chunks_finds(
        seed in 0..1_000_000u64,
        size in 1..SIZE_MAX,
        days in prop::collection::vec(changes(), 1..4),
    ) {
        let mut states = vec![mixed(seed, size)];
        for (day, changes) in (1..).zip(&days) {
            states.push(changed(&states[states.len() - 1], changes, seed + 100 * day));
        }
        let store = MemoryStore::new();
        let repository = create(&store, tiny_cells());
        let disks = history(&repository, &states);
        let pieces: Vec<_> = disks.iter().map(|disk| contents(&repository, disk).unwrap()).collect();
        for a in 0..disks.len() {
            for b in 0..disks.len() {
                let found = diff(&repository, &disks[a], &disks[b]).unwrap();
                prop_assert!(covers(&found, &states[a], &states[b]), "from {} to {}", a, b);
                prop_assert_eq!(&found, &expected(&pieces[a], &pieces[b]), "from {} to {}", a, b);
            }
        }
    }
}

#[test]
fn equal_disks_have_no_difference_and_nothing_is_read() {
    let store = RecordingStore::new(MemoryStore::new());
    let repository = create(&store, tiny_cells());
    let bytes = mixed(5, 500_000);
    let disks = history(&repository, &[bytes.clone(), bytes]);
    let before = store.requests();
    assert_eq!(diff(&repository, &disks[0], &disks[1]).unwrap(), []);
    assert_eq!(store.requests().since(&before).get, 0);
}

#[test]
fn a_small_change_costs_the_pages_and_nodes_above_it() {
    let store = RecordingStore::new(MemoryStore::new());
    let repository = create(&store, tiny_cells());
    let mut states = vec![noise(5, 3_000_000)];
    let mut bytes = states[0].clone();
    bytes[2_000_000..2_000_100].fill(1);
    states.push(bytes);
    let disks = history(&repository, &states);
    let before = store.requests();
    let found = diff(&repository, &disks[0], &disks[1]).unwrap();
    let [extent] = found.as_slice() else { panic!("{found:?}") };
    assert!(extent.start <= 2_000_000 && extent.end() >= 2_000_100 && extent.length < 20_000, "{extent:?}");
    // The root, one node and a few pages on each side, and the headers of the packs that hold them.
    let requests = store.requests().since(&before);
    assert!(requests.get_bytes < 60_000, "{requests:?}");
}

#[test]
fn a_disk_and_a_hole_differ_where_there_are_chunks() {
    let store = MemoryStore::new();
    let repository = create(&store, tiny_cells());
    let mut bytes = vec![0; 1_000_000];
    bytes[700_000..700_010].fill(9);
    let disks = history(&repository, &[vec![0; 1_000_000], bytes, vec![0; 5000]]);
    assert_eq!(disks[0].map, None);
    let found = diff(&repository, &disks[0], &disks[1]).unwrap();
    assert!(
        matches!(found.as_slice(), [extent] if extent.start <= 700_000 && extent.length <= 8192),
        "{found:?}"
    );
    assert_eq!(diff(&repository, &disks[1], &disks[0]).unwrap(), found);
    let grown = diff(&repository, &disks[2], &disks[0]).unwrap();
    assert_eq!(grown, [Extent { start: 5000, length: 995_000 }]);
}

/// A disk whose last cell has no page, because the chunk before reaches to the disk's end.
fn with_covered_last_cell() -> Vec<u8> {
    let is_covered = |bytes: &Vec<u8>| {
        let store = MemoryStore::new();
        let repository = create(&store, tiny_cells());
        let disk = history(&repository, std::slice::from_ref(bytes)).remove(0);
        let pieces = contents(&repository, &disk).unwrap();
        pieces.last().is_some_and(|last| last.start < 6 << 12)
    };
    let disks = (10..600u16).step_by(10).map(|over| noise(over.into(), (6 << 12) + usize::from(over)));
    disks.into_iter().find(is_covered).unwrap()
}

#[test]
fn a_last_cell_without_a_page_is_covered_by_the_chunk_before() {
    let store = MemoryStore::new();
    let repository = create(&store, tiny_cells());
    let bytes = with_covered_last_cell();
    let end = bytes.len() as u64;
    let longer = [bytes.clone(), noise(1, 5000)].concat();
    let shorter = bytes[..6 << 12].to_vec();
    let mut changed_before = bytes.clone();
    changed_before[4 << 12] ^= 1;
    let disks = history(&repository, &[vec![0; bytes.len()], bytes, longer, shorter, changed_before]);
    let pieces: Vec<_> = disks.iter().map(|disk| contents(&repository, disk).unwrap()).collect();
    assert_eq!(diff(&repository, &disks[0], &disks[1]).unwrap(), [Extent { start: 0, length: end }]);
    for a in 0..disks.len() {
        for b in 0..disks.len() {
            let found = diff(&repository, &disks[a], &disks[b]).unwrap();
            assert_eq!(found, expected(&pieces[a], &pieces[b]), "from {a} to {b}");
        }
    }
    undamaged(&repository);
}

#[test]
fn the_statistics_count_every_blob_and_what_nobody_needs() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let disks = history(&repository, &[mixed(1, 400_000), mixed(2, 300_000)]);
    let bytes_of = |wanted: &dyn Fn(&BlobKind) -> bool| {
        let names = store.names().into_iter().filter(|name| name.kind().as_ref().is_some_and(wanted));
        names.fold(Count::default(), |count, name| Count {
            count: count.count + 1,
            bytes: count.bytes + store.get(&name, None).unwrap().len() as u64,
        })
    };
    let is_pack = |kind: &BlobKind| matches!(kind, BlobKind::Pack(_));
    let packs = bytes_of(&is_pack);
    let found = stats(&repository).unwrap();
    assert_eq!((found.snapshots, found.vms, found.logical_bytes), (2, 1, 700_000));
    assert_eq!(found.stored_bytes, bytes_of(&|_| true).bytes);
    assert_eq!(found.blobs.data_packs.bytes + found.blobs.map_packs.bytes, packs.bytes);
    assert_eq!(found.blobs.decisions.count, 2);
    assert_eq!((found.referenced_bytes, found.unreferenced_packs, found.missing_packs), (packs.bytes, 0, 0));
    assert!(found.compression_ratio.is_some_and(|ratio| ratio > 1.0), "{found:?}");
    let of_vm = stats_of(&repository, "vm").unwrap();
    assert_eq!((of_vm.snapshots, of_vm.logical_bytes, of_vm.new_bytes), (2, 700_000, found.new_bytes));
    assert_eq!((of_vm.referenced_packs, of_vm.compression_ratio), (packs.count, found.compression_ratio));
    match stats_of(&repository, "other") {
        Err(EngineError::NoSnapshotOf { vm, found, others: 0 }) => {
            assert_eq!((vm.as_str(), found), ("other", vec!["vm".to_owned()]));
        }
        found => panic!("{found:?}"),
    }

    // A session whose decision is gone leaves packs that nobody needs.
    let second = latest(&repository, "vm");
    assert_eq!(disk0(&second), disks[1]);
    let own = bytes_of(&|kind| matches!(kind, BlobKind::Pack(name) if name.session == second.session()));
    store.delete(&second.name.blob()).unwrap();
    let unknown = BlobName::parse("m/something").unwrap();
    store.overwrite(&unknown, &[0; 10]);
    let found = stats(&open(&store)).unwrap();
    assert_eq!((found.snapshots, found.logical_bytes), (1, 400_000));
    assert_eq!((found.unreferenced_packs, found.unreferenced_bytes), (own.count, own.bytes));
    assert_eq!(found.blobs.unknown, Count { count: 1, bytes: 10 });
}
