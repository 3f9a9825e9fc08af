//! The writer's side of the commit and prune protocol (PROTOCOL section 3), against blobs as a pruner makes them.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]
#![expect(clippy::cast_possible_truncation, reason = "all lengths are those of bytes in memory")]

#[path = "../world/mod.rs"]
mod world;

mod counted;
mod decisions;
mod fleet;
mod hits;
mod inheritance;
mod maps;
mod moved;
mod order;
mod pruner;
mod repack;
mod scale;
mod states;
mod together;
mod watched;

use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::{Selector, Snapshot, find};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{DiskSource, EngineError, Entropy, Observer, Repository};
use repo_format::WriterId;
use world::{NOW, create, memory_index, mixed, restored, small_geometry};

const VM: &str = "vm";

/// One backup of one disk by one writer, on a host whose index was just synchronised.
#[derive(Clone, Copy)]
struct Run<'a> {
    vm: &'a str,
    writer: &'a str,
    /// The run's randomness, and its place in time.
    seed: u8,
    reading: Reading,
    audit: Audit,
}

impl Run<'_> {
    fn number(seed: u8) -> Self {
        Run { vm: VM, writer: "host-a", seed, reading: Reading::Changes, audit: Audit::Off }
    }

    fn of(self, repository: &Repository<'_>, disk: &dyn DiskSource) -> BackupReport {
        self.observed(repository, disk, &Quiet).expect("the backup succeeds")
    }

    fn observed(
        self,
        repository: &Repository<'_>,
        disk: &dyn DiskSource,
        observer: &dyn Observer,
    ) -> Result<BackupReport, EngineError> {
        let mut index = memory_index(repository);
        let keys = repository.keys();
        sync(&mut index, repository.store(), keys, &Preference::default(), observer)?;
        let job = BackupJob {
            vm: self.vm,
            writer: &WriterId::new(self.writer).expect("a writer id"),
            disks: vec![JobDisk::new("disk0", disk)],
            reading: self.reading,
            audit: self.audit,
            compression: Compression::Level(1),
            tags: Vec::new(),
            properties: Vec::new(),
            time: NOW + u64::from(self.seed),
            program: "test",
            entropy: Entropy::new([self.seed; 32]),
            unfinished: Unfinished::MayRun { ended: &[] },
            checkpoint_due: &|| false,
        };
        backup(repository, &mut index, &job, observer)
    }
}

/// A repository with one snapshot of a disk of a megabyte and a half, and the disk as it is the day after,
/// unchanged.
fn day_one() -> (MemoryStore, MemoryDisk) {
    let store = MemoryStore::new();
    let disk = MemoryDisk { change_id: Some("day 1".into()), ..MemoryDisk::new(mixed(1, 1_500_000)) };
    Run::number(1).of(&create(&store, small_geometry()), &disk);
    (store, next_day(&disk, 2))
}

/// The disk a day later: it was tracked, and nothing changed.
fn next_day(disk: &MemoryDisk, day: u8) -> MemoryDisk {
    let since = disk.change_id.clone().expect("the disk is tracked");
    MemoryDisk { changes: Some((since, Vec::new())), change_id: Some(format!("day {day}")), ..disk.clone() }
}

fn snapshot_of(repository: &Repository<'_>, report: &BackupReport) -> Snapshot {
    find(repository, &Selector::Id(report.snapshot.to_string())).expect("the snapshot is there")
}

fn assert_restores(repository: &Repository<'_>, snapshot: &Snapshot, disk: &MemoryDisk) {
    let found = restored(repository, snapshot, "disk0").expect("it restores");
    assert!(found == disk.bytes, "the restored disk differs");
}
