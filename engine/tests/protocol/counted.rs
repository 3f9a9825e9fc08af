//! Changes that count from a snapshot, as dirty bitmaps do, instead of from a change id.

use crate::pruner::forget;
use crate::world::{NOW, create, memory_index, mixed, restored, small_geometry};
use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, CountedFrom, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::{Selector, Snapshot, find};
use keepstone_engine::source::{ChangedAreas, FullReason, Outside, ReadPart, Since, read_each};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{DiskSource, EngineError, Entropy, Extent, Repository};
use repo_format::{DecisionName, Intent, SessionId, WriterId};
use std::io;

/// A disk with a bitmap of what was written since somebody cleared it.
#[derive(Clone)]
struct Dirty {
    bytes: Vec<u8>,
    written: Vec<Extent>,
    is_broken: bool,
}

impl Dirty {
    fn new() -> Self {
        Self { bytes: mixed(1, 300_000), written: Vec::new(), is_broken: false }
    }

    fn write(&mut self, start: u64, byte: u8) {
        self.bytes[start as usize..][..512].fill(byte);
        self.written = keepstone_engine::extent::normalized(
            self.written.iter().copied().chain([Extent { start, length: 512 }]).collect(),
        );
    }
}

impl DiskSource for Dirty {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let everything = || Extent::between(0, self.size()).into_iter().collect();
        let (areas, outside) = match since {
            Some(_) => (self.written.clone(), Outside::Unchanged),
            None => (everything(), Outside::Zero { full_reason: None }),
        };
        Ok(ChangedAreas { areas, outside, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("the cable was pulled"));
        }
        read_each(parts, |offset, buffer| {
            buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
            Ok(())
        })
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

fn back_up(
    repository: &Repository<'_>,
    run: u8,
    disk: &Dirty,
    counted: CountedFrom,
) -> Result<BackupReport, EngineError> {
    let job = BackupJob {
        vm: "vm",
        writer: &WriterId::new("host-a").unwrap(),
        disks: vec![JobDisk { key: "disk0", source: disk, counted }],
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(1),
        tags: Vec::new(),
        properties: Vec::new(),
        time: NOW + u64::from(run),
        program: "test",
        entropy: Entropy::new([run; 32]),
        unfinished: Unfinished::Ended,
        checkpoint_due: &|| false,
    };
    backup(repository, &mut memory_index(repository), &job, &Quiet)
}

fn snapshot(repository: &Repository<'_>, id: SessionId) -> Snapshot {
    find(repository, &Selector::Id(id.to_string())).unwrap()
}

/// Why the disk was read in full, if it was; it restores in any case.
fn full_reason(repository: &Repository<'_>, report: &BackupReport, disk: &Dirty) -> Option<FullReason> {
    let found = restored(repository, &snapshot(repository, report.snapshot), "disk0").unwrap();
    assert!(found == disk.bytes, "the restored disk differs");
    report.disks[0].full_reason.clone()
}

#[test]
fn changes_since_the_newest_snapshot_count_until_a_session_fails() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut disk = Dirty::new();
    let first = back_up(&repository, 1, &disk, CountedFrom::Newest).unwrap();
    assert_eq!(full_reason(&repository, &first, &disk), Some(FullReason::NoParent));
    disk.write(5000, 1);
    let second = back_up(&repository, 2, &disk, CountedFrom::Newest).unwrap();
    assert_eq!(full_reason(&repository, &second, &disk), None);
    // Whoever clears the bitmap after each run, however it ends, has lost this change.
    disk.write(9000, 2);
    let broken = Dirty { is_broken: true, ..disk.clone() };
    back_up(&repository, 3, &broken, CountedFrom::Newest).unwrap_err();
    disk.written.clear();
    let third = back_up(&repository, 4, &disk, CountedFrom::Newest).unwrap();
    let reason = full_reason(&repository, &third, &disk);
    assert!(matches!(reason, Some(FullReason::LaterSession { .. })), "{reason:?}");
    disk.write(20_000, 3);
    let fourth = back_up(&repository, 5, &disk, CountedFrom::Newest).unwrap();
    assert_eq!(full_reason(&repository, &fourth, &disk), None);
}

/// As if another writer had been killed while it backed up a VM.
fn killed_elsewhere(repository: &Repository<'_>, vm: &str, seq: u32, session: u8) -> SessionId {
    let session = SessionId([session; 16]);
    let (vm, writer) = (repository.keys().vm_tag(vm), WriterId::new("host-b").unwrap());
    let decision = DecisionName { vm, writer, seq, session };
    let intent = Intent { session, decision, generation: 0, time: NOW };
    let (name, bytes) = intent.seal(repository.keys(), [session.0[0]; 32]);
    repository.store().put_new(&name, &bytes).unwrap();
    session
}

#[test]
fn changes_may_count_from_a_session_of_another_writer_that_did_not_end() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut disk = Dirty::new();
    let first = back_up(&repository, 1, &disk, CountedFrom::Newest).unwrap();
    let seq = snapshot(&repository, first.snapshot).name.seq;
    killed_elsewhere(&repository, "another vm", seq + 1, 8);
    disk.write(5000, 1);
    let second = back_up(&repository, 2, &disk, CountedFrom::Newest).unwrap();
    assert_eq!(full_reason(&repository, &second, &disk), None);

    disk.write(9000, 2);
    let session = killed_elsewhere(&repository, "vm", seq + 2, 9);
    disk.written.clear();
    let third = back_up(&repository, 3, &disk, CountedFrom::Newest).unwrap();
    assert_eq!(full_reason(&repository, &third, &disk), Some(FullReason::LaterSession { session }));
    // That one had the same number, so which of the two came first is not known before there is a later one.
    let fourth = back_up(&repository, 4, &disk, CountedFrom::Newest).unwrap();
    assert_eq!(full_reason(&repository, &fourth, &disk), Some(FullReason::LaterSession { session }));
    disk.write(20_000, 3);
    let fifth = back_up(&repository, 5, &disk, CountedFrom::Newest).unwrap();
    assert_eq!(full_reason(&repository, &fifth, &disk), None);
}

#[test]
fn changes_since_a_snapshot_that_was_forgotten_do_not_count_from_the_one_before() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut disk = Dirty::new();
    back_up(&repository, 1, &disk, CountedFrom::Newest).unwrap();
    disk.write(5000, 1);
    let second = back_up(&repository, 2, &disk, CountedFrom::Newest).unwrap();
    disk.written.clear();
    forget(&repository, &snapshot(&repository, second.snapshot).name);
    let third = back_up(&repository, 3, &disk, CountedFrom::Newest).unwrap();
    let expected = FullReason::LaterSession { session: second.snapshot };
    assert_eq!(full_reason(&repository, &third, &disk), Some(expected));
}

#[test]
fn changes_since_a_named_snapshot_count_for_what_was_built_on_it_only() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut disk = Dirty::new();
    let named = |report: &BackupReport| CountedFrom::Snapshot(snapshot(&repository, report.snapshot).name);
    let first = back_up(&repository, 1, &disk, CountedFrom::Newest).unwrap();
    for run in 2..6u8 {
        disk.write(u64::from(run) * 10_000, run);
        let next = back_up(&repository, run, &disk, named(&first)).unwrap();
        assert_eq!(full_reason(&repository, &next, &disk), None, "the bitmap was never cleared");
    }
    let mut stranger = snapshot(&repository, first.snapshot).name;
    stranger.session = SessionId([9; 16]);
    let expected = FullReason::NotAncestor { since: stranger.session };
    let last = back_up(&repository, 6, &disk, CountedFrom::Snapshot(stranger)).unwrap();
    assert_eq!(full_reason(&repository, &last, &disk), Some(expected));
}
