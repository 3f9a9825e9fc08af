//! Backups and restores through the public interface, over a store in memory.

mod world;

use keepstone_engine::backup::Reading;
use keepstone_engine::index::LocalIndex;
use keepstone_engine::snapshots::list;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::source::{ChangedAreas, Outside, ReadPart, Since};
use keepstone_engine::store::{BlobStore, MemoryStore};
use keepstone_engine::{DiskSource, EngineError, Extent};
use std::io;
use world::{back_up, back_up_reading, create, latest, memory_index, mixed, open, restored, small_geometry};

#[test]
fn a_disk_comes_back_as_it_was() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let disk = MemoryDisk::new(mixed(1, 3_000_001));
    let report = back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    assert_eq!(report.disks[0].mode, "full");
    let repository = open(&store);
    let snapshot = latest(&repository, "vm");
    assert_eq!(restored(&repository, &snapshot, "disk0").unwrap(), disk.bytes);
}

#[test]
fn an_incremental_backup_reads_and_stores_what_changed() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut disk = MemoryDisk { change_id: Some("one".into()), ..MemoryDisk::new(mixed(1, 9_000_000)) };
    back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    let before = disk.bytes.clone();
    let first = latest(&repository, "vm");
    disk.bytes[5_000_000..5_004_000].fill(7);
    disk.changes = Some(("one".into(), vec![Extent { start: 5_000_000, length: 4000 }]));
    disk.change_id = Some("two".into());
    let report = back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 2).unwrap();
    assert_eq!(report.disks[0].mode, "incremental");
    assert!(report.disks[0].read_bytes < 30_000, "{report:?}");
    assert!(report.stored_bytes < 40_000, "{report:?}");
    let second = latest(&repository, "vm");
    assert_eq!(restored(&repository, &second, "disk0").unwrap(), disk.bytes);
    assert_eq!(restored(&repository, &first, "disk0").unwrap(), before);
}

#[test]
fn a_local_index_that_cannot_be_written_costs_deduplication_only() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let cache = tempfile::tempdir().unwrap();
    let key = repository.keys().local_key("keepstone v0 local index");
    let id = repository.config().repository;
    let mut index = LocalIndex::open(Some(cache.path()), id, key, 1 << 30).unwrap();
    for entry in std::fs::read_dir(cache.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::write(&path, "a file in the way").unwrap();
    }
    let disk = MemoryDisk::new(mixed(1, 300_000));
    back_up(&repository, &mut index, "vm", &[("disk0", &disk)], 1).unwrap();
    assert_eq!(restored(&repository, &latest(&repository, "vm"), "disk0").unwrap(), disk.bytes);
}

#[test]
fn a_full_backup_stores_again_what_was_lost() {
    let disk = MemoryDisk { change_id: Some("one".into()), ..MemoryDisk::new(mixed(1, 600_000)) };
    for prefix in ["d/", "m/"] {
        let store = MemoryStore::new();
        let repository = create(&store, small_geometry());
        back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
        let lost = store.names().into_iter().find(|name| name.as_str().starts_with(prefix)).unwrap();
        store.delete(&lost).unwrap();
        assert!(restored(&repository, &latest(&repository, "vm"), "disk0").is_err());

        let mut index = memory_index(&repository);
        back_up_reading(&repository, &mut index, "vm", &[("disk0", &disk)], 2, Reading::Everything).unwrap();
        assert_eq!(restored(&repository, &latest(&repository, "vm"), "disk0").unwrap(), disk.bytes);
    }
}

/// A disk that cannot be read.
struct Broken;

impl DiskSource for Broken {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn changed_areas(&self, _: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let areas = vec![Extent { start: 0, length: 1 << 20 }];
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason: None }, change_id: None })
    }

    fn read(&self, _: &mut [ReadPart<'_>]) -> io::Result<()> {
        Err(io::Error::other("a broken disk"))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_backup_that_fails_is_aborted_so_that_nobody_waits_for_it() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let failed = back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &Broken)], 1);
    assert!(matches!(failed, Err(EngineError::Source { .. })));
    let found = list(&repository, None).unwrap();
    assert_eq!((found.snapshots.len(), found.aborted.len()), (0, 1));
}

#[test]
fn a_snapshot_has_all_disks_of_its_vm() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let (system, data) = (MemoryDisk::new(mixed(1, 100_000)), MemoryDisk::new(vec![0; 5000]));
    let disks: [(&str, &dyn DiskSource); 2] = [("system", &system), ("data", &data)];
    back_up(&repository, &mut memory_index(&repository), "vm", &disks, 1).unwrap();
    let snapshot = latest(&repository, "vm");
    let keys: Vec<&str> = snapshot.commit.disks.iter().map(|disk| disk.key.as_str()).collect();
    assert_eq!(keys, ["data", "system"]);
}

#[test]
fn a_vm_with_a_disk_that_cannot_be_read_gets_no_snapshot() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let system = MemoryDisk::new(mixed(1, 100_000));
    let broken_last: [(&str, &dyn DiskSource); 2] = [("a", &system), ("b", &Broken)];
    let broken_first: [(&str, &dyn DiskSource); 2] = [("b", &Broken), ("c", &system)];
    for (disks, run) in [(broken_last, 1), (broken_first, 2)] {
        let failed = back_up(&repository, &mut memory_index(&repository), "vm", &disks, run);
        assert!(matches!(failed, Err(EngineError::Source { disk, .. }) if disk == "b"));
        assert_eq!(list(&repository, None).unwrap().snapshots.len(), 0);
    }
}
