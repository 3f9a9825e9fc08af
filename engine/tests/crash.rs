//! A backup that fails at any one store call, in any way, harms nothing: for every call the repository is opened
//! again, checked, backed up to and restored from.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{Fault, FaultStore, MemoryStore};
use keepstone_engine::{Extent, Repository, snapshots};
use world::{
    PASSWORD, back_up, create, latest, memory_index, mixed, noise, open, restored, small_geometry, undamaged,
};

/// Two disks of one VM on the first day, and a change of each until the second.
struct Days {
    first: [MemoryDisk; 2],
    second: [MemoryDisk; 2],
}

fn days() -> Days {
    let disk = |seed| MemoryDisk { change_id: Some("day 1".into()), ..MemoryDisk::new(mixed(seed, 300_000)) };
    let first = [disk(1), disk(100)];
    let second = first.clone().map(|mut disk| {
        disk.bytes[150_000..180_000].copy_from_slice(&noise(9, 30_000));
        disk.changes = Some(("day 1".into(), vec![Extent { start: 150_000, length: 30_000 }]));
        disk.change_id = Some("day 2".into());
        disk
    });
    Days { first, second }
}

fn run(repository: &Repository<'_>, disks: &[MemoryDisk; 2], run: u8) -> bool {
    let disks: [(&str, &dyn keepstone_engine::DiskSource); 2] = [("a", &disks[0]), ("b", &disks[1])];
    back_up(repository, &mut memory_index(repository), "vm", &disks, run).is_ok()
}

fn holds(repository: &Repository<'_>, snapshot: &snapshots::Snapshot, disks: &[MemoryDisk; 2]) {
    for (key, disk) in ["a", "b"].iter().zip(disks) {
        assert!(restored(repository, snapshot, key).unwrap() == disk.bytes, "disk {key} differs");
    }
}

/// Fails the second day's backup at one call. Returns whether that call was reached.
fn fail_at(day_one: &MemoryStore, days: &Days, call: u64, fault: Fault) -> bool {
    let store = day_one.copied();
    let faulty = FaultStore::new(&store, call, fault);
    let reported =
        Repository::open(&faulty, PASSWORD).is_ok_and(|repository| run(&repository, &days.second, 2));
    let reached = faulty.calls() > call;

    let repository = open(&store);
    let list = snapshots::list(&repository, None).unwrap();
    assert!(list.unreadable.is_empty());
    let found = &list.snapshots;
    assert!(found.len() == 1 || found.len() == 2, "{} snapshots", found.len());
    assert!(!reported || found.len() == 2, "a reported snapshot is not there");
    holds(&repository, &found[0], &days.first);
    if let Some(second) = found.get(1) {
        holds(&repository, second, &days.second);
    }
    undamaged(&repository);

    assert!(run(&repository, &days.second, 3), "the next backup works");
    holds(&repository, &latest(&repository, "vm"), &days.second);
    undamaged(&repository);
    reached
}

fn fail_everywhere(fault: Fault) {
    let day_one = MemoryStore::new();
    let days = days();
    assert!(run(&create(&day_one, small_geometry()), &days.first, 1));
    let mut call = 0;
    while fail_at(&day_one, &days, call, fault) {
        call += 1;
    }
    assert!(call > 20, "only {call} calls were reached");
}

#[test]
fn a_crash_before_any_store_call_loses_nothing() {
    fail_everywhere(Fault::CrashBefore);
}

#[test]
fn a_crash_after_any_store_call_loses_nothing() {
    fail_everywhere(Fault::CrashAfter);
}

#[test]
fn a_store_call_that_fails_loses_nothing() {
    fail_everywhere(Fault::NotApplied);
}

#[test]
fn a_store_call_whose_answer_is_lost_loses_nothing() {
    fail_everywhere(Fault::AnswerLost);
}

#[test]
fn a_crash_while_a_repository_is_made_leaves_one_that_opens_or_none() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::NotApplied, Fault::AnswerLost] {
        let mut call = 0;
        loop {
            let store = MemoryStore::new();
            let faulty = FaultStore::new(&store, call, fault);
            let made = world::try_create(&faulty, small_geometry()).is_ok();
            let reached = faulty.calls() > call;
            let opens = Repository::open(&store, PASSWORD).is_ok();
            assert!(opens || !made, "a repository that was reported does not open");
            if !opens {
                create(&store, small_geometry());
                open(&store);
            }
            if !reached {
                break;
            }
            call += 1;
        }
    }
}
