//! Requests and bytes of small backups of a large disk.

use crate::maps::Map;
use crate::pruner::condemn;
use crate::world::{create, latest, open};
use crate::{Run, VM, snapshot_of};
use keepstone_engine::backup::{Audit, BackupReport};
use keepstone_engine::diff::diff;
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::list;
use keepstone_engine::source::{ChangedAreas, Outside, ReadPart, Since, read_each};
use keepstone_engine::store::{MemoryStore, RecordingStore, Requests};
use keepstone_engine::verify::{ReadData, VerifyJob, Which, verify};
use keepstone_engine::{BlobStore, DiskSource, DiskTarget, Extent, extent};
use repo_format::Geometry;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

const TIB: u64 = 1 << 40;
/// The largest disk that vSphere makes is of 62 TiB: what a backup takes does not depend on it.
const SIZES: [u64; 2] = [TIB, 62 * TIB];
const BLOCK_LEN: usize = 64 << 10;

/// A large disk of which few blocks are allocated.
#[derive(Clone, Default)]
struct SparseDisk {
    size: u64,
    /// By their number.
    blocks: BTreeMap<u64, Vec<u8>>,
    /// Blocks that changed since the day before.
    changed: Vec<u64>,
    day: u32,
}

impl SparseDisk {
    fn new(size: u64) -> Self {
        let starts = [0, size / 3, size / 3 + (40 << 20), size / 2, size - (1 << 20)];
        let numbers = starts.iter().flat_map(|start| (start / BLOCK_LEN as u64..).take(16));
        Self {
            blocks: numbers.map(|number| (number, crate::world::noise(number, BLOCK_LEN))).collect(),
            size,
            ..Self::default()
        }
    }

    fn next_day(mut self, changed: Vec<u64>) -> Self {
        self.day += 1;
        for number in &changed {
            self.blocks.insert(*number, crate::world::noise(62 * TIB + number, BLOCK_LEN));
        }
        Self { changed, ..self }
    }
}

impl SparseDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        let block_len = BLOCK_LEN as u64;
        for (number, block) in self.blocks.range(offset / block_len..end.div_ceil(block_len)) {
            let start = number * block_len;
            let (from, to) = (start.max(offset), (start + block_len).min(end));
            let part = &block[(from - start) as usize..(to - start) as usize];
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
        }
    }
}

impl DiskSource for SparseDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let is_known = since
            .and_then(|since| since.change_id)
            .is_some_and(|since| since == format!("day {}", self.day - 1));
        let numbers: Vec<u64> =
            if is_known { self.changed.clone() } else { self.blocks.keys().copied().collect() };
        let areas = numbers
            .iter()
            .map(|number| Extent { start: number * BLOCK_LEN as u64, length: BLOCK_LEN as u64 })
            .collect();
        let outside = if is_known { Outside::Unchanged } else { Outside::Zero { full_reason: None } };
        Ok(ChangedAreas {
            areas: extent::normalized(areas),
            outside,
            change_id: Some(format!("day {}", self.day)),
        })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| {
            self.read_at(offset, buffer);
            Ok(())
        })
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Backs up, the index synchronised; returns the requests of all that but opening the repository.
fn back_up(store: &MemoryStore, disk: &SparseDisk) -> (BackupReport, Requests) {
    back_up_audited(store, disk, Audit::Off)
}

fn back_up_audited(store: &MemoryStore, disk: &SparseDisk, audit: Audit) -> (BackupReport, Requests) {
    let store = RecordingStore::new(store);
    let repository = open(&store);
    let before = store.requests();
    let seed = u8::try_from(disk.day).expect("few days");
    let report = Run { audit, ..Run::number(seed) }.of(&repository, disk);
    (report, store.requests().since(&before))
}

/// A repository with a full backup and one incremental backup; and the disk.
fn two_days(size: u64) -> (MemoryStore, SparseDisk) {
    let store = MemoryStore::new();
    let disk = SparseDisk::new(size);
    let report = Run::number(0).of(&create(&store, Geometry::default()), &disk);
    assert_eq!(report.disks[0].changed_bytes, 5 << 20);
    let disk = disk.next_day(vec![size / 2 / BLOCK_LEN as u64]);
    back_up(&store, &disk);
    (store, disk)
}

#[test]
fn a_backup_of_a_large_disk_that_did_not_change_takes_few_requests_and_no_pack() {
    for size in SIZES {
        let (store, disk) = two_days(size);
        let (report, requests) = back_up(&store, &disk.next_day(Vec::new()));
        assert_eq!((report.disks[0].mode, report.disks[0].read_bytes, report.packs), ("incremental", 0, 0));
        // The index blobs of both days, the parent; then the intent and the decision.
        assert_eq!((requests.get, requests.put, requests.delete), (3, 2, 0));
        assert!(requests.list < 12, "{requests:?}");
        assert!(requests.put_bytes < 1500, "{requests:?}");
    }
}

#[test]
fn the_default_audit_of_a_large_disk_takes_one_region_and_few_requests() {
    for size in SIZES {
        let (store, disk) = two_days(size);
        let disk = disk.next_day(Vec::new());
        for seed in 0..4 {
            let audit = Audit::Default { seed: Some(seed) };
            let (report, requests) = back_up_audited(&store.copied(), &disk, audit);
            let audit = report.disks[0].audit.as_ref().expect("it was audited");
            assert_eq!((audit.regions, audit.of_regions, audit.audited_bytes), (1, size >> 24, 16 << 20));
            assert_eq!((report.disks[0].read_bytes, report.packs), (0, 0));
            assert!(requests.get + requests.put < 12, "{requests:?}");
        }
    }
}

#[test]
fn a_small_change_of_a_large_disk_takes_little_metadata() {
    for size in SIZES {
        let (store, disk) = two_days(size);
        let (report, requests) = back_up(&store, &disk.next_day(vec![size / 3 / BLOCK_LEN as u64 + 5]));
        assert!(report.disks[0].read_bytes < 3 * BLOCK_LEN as u64 + (256 << 10), "{report:?}");
        assert!(report.new_bytes < BLOCK_LEN as u64 + (256 << 10), "{report:?}");
        assert!(report.metadata_bytes < 30 << 10, "{report:?}");
        assert_eq!(report.packs, 2);
        // The intent, a data pack, a map pack, an index and the decision.
        assert_eq!(requests.put, 5);
        assert!(requests.get + requests.put < 20, "{requests:?}");
        // What was stored is what was told, but for the intent and the decision.
        assert!(requests.put_bytes - report.stored_bytes < 1500, "{requests:?}, {report:?}");
    }
}

/// A target that counts what is asked of it.
#[derive(Default)]
struct Counted {
    calls: AtomicU64,
    written: AtomicU64,
    zeroed: AtomicU64,
}

impl DiskTarget for Counted {
    fn write_at(&self, _: u64, bytes: &[u8]) -> io::Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn zero_at(&self, _: u64, length: u64) -> io::Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.zeroed.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn restoring_checking_and_comparing_a_large_disk_take_as_much_as_it_holds() {
    for size in SIZES {
        let (store, disk) = two_days(size);
        back_up(&store, &disk.next_day(vec![size / 3 / BLOCK_LEN as u64 + 5, size / 2 / BLOCK_LEN as u64]));
        let store = RecordingStore::new(&store);
        let repository = open(&store);
        let [.., before, after] = &list(&repository, Some(VM)).unwrap().snapshots[..] else {
            panic!("there are three")
        };

        let requests = store.requests();
        let areas = diff(&repository, before.disk(None).unwrap(), after.disk(None).unwrap()).unwrap();
        assert!(extent::total_length(&areas) < 1 << 20, "{areas:?}");
        let of_diff = store.requests().since(&requests);
        assert!(of_diff.get < 40 && of_diff.list == 0, "{of_diff:?}");

        let (requests, target) = (store.requests(), Counted::default());
        restore(&repository, &RestoreJob::new(after.session(), after.disk(None).unwrap(), &target), &Quiet)
            .unwrap();
        let of_restore = store.requests().since(&requests);
        assert!(of_restore.get < 60 && of_restore.list < 3, "{of_restore:?}");
        let Counted { calls, written, zeroed } = target;
        let (written, zeroed) = (written.into_inner(), zeroed.into_inner());
        assert!(written < 8 << 20 && written + zeroed == size, "{written} and {zeroed} bytes");
        // Holes are made in steps of 1 GiB, so that somebody can stop in between.
        assert!(calls.into_inner() < 2000 + (size >> 30), "a hole is not written in pieces");

        let requests = store.requests();
        let job =
            VerifyJob { which: Which::These(vec![after.clone()]), read_data: ReadData::Nothing, time: 0 };
        let report = verify(&repository, &job, &Quiet).unwrap();
        assert!(report.findings.is_empty(), "{report:?}");
        let of_verify = store.requests().since(&requests);
        assert!(of_verify.get < 60 && of_verify.list < 8, "{of_verify:?}");
    }
}

#[test]
fn no_node_of_a_large_map_is_inherited_from_a_condemned_pack() {
    let (base, disk) = two_days(TIB);
    let disk = disk.next_day(Vec::new());
    let parent = Map::of(&open(&base), &latest(&open(&base), VM));
    let ids = |map: &Map| map.chunks.iter().map(|at| at.id).collect::<Vec<_>>();
    for pack in &parent.packs {
        let store = base.copied();
        condemn(&open(&store), 0, std::slice::from_ref(pack));
        let (report, _) = back_up(&store, &disk);
        store.delete(&pack.name.blob()).unwrap();
        let map = Map::of(&open(&store), &snapshot_of(&open(&store), &report));
        assert!(!map.packs.contains(pack));
        assert!(ids(&map) == ids(&parent), "the map differs");
        let cells = parent.cells_of(&pack.name).len();
        let nodes = parent.nodes.iter().filter(|node| **node == pack.name).count();
        assert!(report.disks[0].read_bytes <= (cells + nodes) as u64 * (3 << 19), "{report:?}");
    }
}
