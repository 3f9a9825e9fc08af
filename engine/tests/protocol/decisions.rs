//! W3 and W7: which snapshot is the parent, and what happens when a decision's name is taken.

use crate::pruner::{abort, forget};
use crate::watched::{Answer, Verb, WatchedStore};
use crate::world::{create, latest, noise, open, small_geometry, undamaged};
use crate::{Run, VM, assert_restores, day_one, next_day, snapshot_of};
use keepstone_engine::observer::{Event, Notice, Quiet};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, EngineError, Extent, Observer, Repository, snapshots};
use repo_format::{BlobKind, BlobName, DecisionName, Intent, PREFIX_INTENTS};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Barrier, Mutex, OnceLock};

/// Collects the notices of an operation.
#[derive(Default)]
struct Notices(Mutex<Vec<Notice>>);

impl Observer for Notices {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        if let Event::Notice(notice) = event {
            self.0.lock().unwrap().push(notice);
        }
        ControlFlow::Continue(())
    }
}

impl Notices {
    /// The blobs that were unreadable.
    fn unreadable(&self) -> Vec<String> {
        let notices = self.0.lock().unwrap();
        let names = notices.iter().filter_map(|notice| match notice {
            Notice::Unreadable { name, .. } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }

    fn aborted(&self) -> usize {
        let notices = self.0.lock().unwrap();
        notices.iter().filter(|notice| matches!(notice, Notice::SessionAborted { .. })).count()
    }
}

/// Two snapshots, and the disk on the third day.
fn two_days() -> (MemoryStore, MemoryDisk) {
    let (store, disk) = day_one();
    Run::number(2).of(&open(&store), &disk);
    (store, next_day(&disk, 3))
}

fn snapshots_of(repository: &Repository<'_>) -> Vec<snapshots::Snapshot> {
    snapshots::list(repository, Some(VM)).unwrap().snapshots
}

#[test]
fn a_forgotten_snapshot_is_no_parent() {
    let (store, disk) = two_days();
    let repository = open(&store);
    let [first, second] = snapshots_of(&repository).try_into().expect("two snapshots");
    forget(&repository, &second.name);
    // The changes count from the second day: they are of no use now.
    let report = Run::number(3).of(&repository, &disk);
    let snapshot = snapshot_of(&repository, &report);
    assert_eq!(snapshot.commit.parent, Some(first.name.clone()));
    assert_eq!(snapshot.name.seq, second.name.seq + 1);
    assert_eq!(report.disks[0].mode, "full");
    assert_eq!(report.new_chunks, 0);
    for forgotten in [&first, &snapshot] {
        forget(&repository, &forgotten.name);
    }
    let snapshot = snapshot_of(&repository, &Run::number(4).of(&repository, &disk));
    assert_eq!(snapshot.commit.parent, None);
    assert_restores(&repository, &snapshot, &disk);
}

#[test]
fn a_tombstone_of_another_vm_hides_nothing() {
    let (store, _) = two_days();
    let repository = open(&store);
    let all = || snapshots::list(&repository, None).unwrap().snapshots.len();
    let second = latest(&repository, VM).name;
    forget(&repository, &DecisionName { vm: repository.keys().vm_tag("another"), ..second.clone() });
    assert_eq!((all(), snapshots_of(&repository).len()), (2, 2));
    forget(&repository, &second);
    assert_eq!((all(), snapshots_of(&repository).len()), (1, 1));
}

#[test]
fn a_tombstone_that_is_not_authentic_hides_nothing_and_is_reported() {
    let (store, disk) = two_days();
    let repository = open(&store);
    let second = latest(&repository, VM);
    let other = snapshots_of(&repository)[0].name.clone();
    forget(&repository, &other);
    let authentic = BlobName::tombstone(other.vm, other.session);
    let name = BlobName::tombstone(second.name.vm, second.session());
    for bytes in [b"garbage".to_vec(), store.get(&authentic, None).unwrap()] {
        let store = store.copied();
        store.overwrite(&name, &bytes);
        let repository = open(&store);
        let notices = Notices::default();
        let report = Run::number(3).observed(&repository, &disk, &notices).unwrap();
        assert_eq!(notices.unreadable(), [name.to_string()]);
        assert_eq!(snapshot_of(&repository, &report).commit.parent, Some(second.name.clone()));
        assert_eq!(report.disks[0].mode, "incremental");
    }
}

#[test]
fn a_decision_that_is_not_authentic_hides_nothing_and_is_reported() {
    let (store, disk) = two_days();
    let repository = open(&store);
    let [first, second] = snapshots_of(&repository).try_into().expect("two snapshots");
    let name = second.name.blob();
    for bytes in [b"garbage".to_vec(), store.get(&first.name.blob(), None).unwrap()] {
        let store = store.copied();
        store.overwrite(&name, &bytes);
        let repository = open(&store);
        let notices = Notices::default();
        let report = Run::number(3).observed(&repository, &disk, &notices).unwrap();
        assert_eq!(notices.unreadable(), [name.to_string()]);
        let snapshot = snapshot_of(&repository, &report);
        assert_eq!(snapshot.commit.parent, Some(first.name.clone()));
        assert_eq!(snapshot.name.seq, second.name.seq + 1);
        assert_restores(&repository, &snapshot, &disk);
    }
}

/// The decision's name in the newest intent, if there is one that is not decided.
fn undecided(store: &MemoryStore, repository: &Repository<'_>) -> Option<DecisionName> {
    let names = store.names();
    let intents = names.iter().filter(|name| name.as_str().starts_with(PREFIX_INTENTS));
    let decisions = intents.map(|name| {
        let bytes = store.get(name, None).unwrap();
        Intent::open(repository.keys(), name, &bytes).unwrap().decision
    });
    decisions.into_iter().find(|decision| !names.contains(&decision.blob()))
}

/// Backs up a change while the first sessions are aborted just before the given kind of create.
fn while_aborting(
    before: &str,
    sessions: u32,
) -> (MemoryStore, MemoryDisk, Notices, Result<keepstone_engine::backup::BackupReport, EngineError>) {
    let (store, mut disk) = day_one();
    disk.bytes[300_000..500_000].copy_from_slice(&noise(8, 200_000));
    disk.changes = disk.changes.map(|(since, _)| (since, vec![Extent { start: 300_000, length: 200_000 }]));
    let keys = open(&store);
    let aborted = AtomicU32::new(0);
    let notices = Notices::default();
    let watched = WatchedStore::new(&store, |call| {
        if call.is(Verb::Put, before)
            && aborted.load(SeqCst) < sessions
            && let Some(decision) = undecided(&store, &keys)
        {
            store.put_new(&decision.blob(), &abort(&keys, &decision)).unwrap();
            aborted.fetch_add(1, SeqCst);
        }
        Answer::Given
    });
    let result = Run::number(2).observed(&open(&watched), &disk, &notices);
    drop(watched);
    assert_eq!(aborted.load(SeqCst), sessions);
    (store, disk, notices, result)
}

#[test]
fn an_abort_that_wins_makes_the_backup_begin_anew_and_use_what_it_has_stored() {
    for before in ["m/", "r/"] {
        for sessions in [1, 2] {
            let (store, disk, notices, result) = while_aborting(before, sessions);
            let repository = open(&store);
            let report = result.unwrap();
            assert_eq!(notices.aborted(), sessions as usize);
            // The chunks are those of the first session: it is this writer's own.
            assert_eq!(report.new_chunks, 0);
            assert_eq!(snapshots_of(&repository).len(), 2);
            assert_restores(&repository, &snapshot_of(&repository, &report), &disk);
            undamaged(&repository);
        }
    }
}

#[test]
fn a_backup_that_is_aborted_again_and_again_gives_up() {
    for before in ["m/", "r/"] {
        let (store, _, notices, result) = while_aborting(before, 3);
        assert!(matches!(result, Err(EngineError::Aborted { .. })), "{result:?}");
        // After the last one nothing is begun anew: it is the error.
        assert_eq!(notices.aborted(), 2);
        let repository = open(&store);
        assert_eq!(snapshots_of(&repository).len(), 1);
        undamaged(&repository);
    }
}

/// Backs up a change while other bytes take the name of the first blob that is created under a prefix. Returns how
/// many snapshots there are then.
fn while_taking(prefix: &str, bytes: impl Fn(&MemoryStore, &BlobName) -> Vec<u8> + Send + Sync) -> usize {
    let (store, mut disk) = day_one();
    disk.bytes[300_000] ^= 1;
    disk.changes = disk.changes.map(|(since, _)| (since, vec![Extent { start: 300_000, length: 1 }]));
    let taken = Mutex::new(None);
    let watched = WatchedStore::new(&store, |call| {
        let mut taken = taken.lock().unwrap();
        if call.is(Verb::Put, prefix) && taken.is_none() {
            let name = BlobName::parse(&call.object).expect("a name");
            store.overwrite(&name, &bytes(&store, &name));
            *taken = Some(name);
        }
        Answer::Given
    });
    let result = Run::number(2).observed(&open(&watched), &disk, &Quiet);
    drop(watched);
    let taken = taken.into_inner().unwrap();
    assert!(matches!(&result, Err(EngineError::Twin { name }) if Some(name) == taken.as_ref()), "{result:?}");
    let list = snapshots::list(&open(&store), Some(VM)).unwrap();
    list.snapshots.len()
}

#[test]
fn other_bytes_under_a_name_of_the_session_mean_a_twin() {
    for prefix in ["s/", "d/", "m/", "i/", "r/"] {
        assert_eq!(while_taking(prefix, |_, _| b"garbage".to_vec()), 1);
    }
}

#[test]
fn another_commit_under_the_decisions_name_means_a_twin() {
    let snapshots = while_taking("r/", |store, name| {
        let repository = open(store);
        let Some(BlobKind::Decision(decision)) = name.kind() else { panic!("{name} is no decision") };
        let mut commit = latest(&repository, VM).commit;
        commit.session = decision.session;
        let decided = repo_format::Decision::Commit(Box::new(commit));
        decided.seal(repository.keys(), &decision, [6; 32])
    });
    assert_eq!(snapshots, 2);
}

/// The disks of two copies of one host, which share a part.
fn disks_of_twins() -> [MemoryDisk; 2] {
    let disk = |first, second| MemoryDisk::new([noise(first, 30_000), noise(second, 20_000)].concat());
    [disk(1, 2), disk(2, 3)]
}

#[test]
fn a_host_that_goes_on_from_a_copy_finds_that_the_other_one_has_committed() {
    let [one, other] = disks_of_twins();
    let store = MemoryStore::new();
    create(&store, small_geometry());
    let committed = OnceLock::new();
    // They are one until the intent.
    let watched = WatchedStore::new(&store, |call| {
        if call.is(Verb::Put, "s/") {
            committed.get_or_init(|| Run::number(1).of(&open(&store), &one).snapshot);
        }
        Answer::Given
    });
    let result = Run::number(1).observed(&open(&watched), &other, &Quiet);
    drop(watched);
    let repository = open(&store);
    let snapshot = latest(&repository, VM);
    assert_eq!(committed.get(), Some(&snapshot.session()));
    assert!(
        matches!(&result, Err(EngineError::Twin { name }) if *name == snapshot.name.blob()),
        "{result:?}"
    );
    assert_restores(&repository, &snapshot, &one);
    undamaged(&repository);
}

#[test]
fn a_host_that_goes_on_from_a_copy_finds_that_the_other_one_was_aborted_and_used_its_packs() {
    let (store, disk, _, result) = while_aborting("r/", 1);
    let committed = result.unwrap().snapshot;
    let repository = open(&store);
    let snapshot = latest(&repository, VM);
    assert_eq!(snapshot.session(), committed);
    // A prune has tidied up since.
    for name in store.names() {
        if let Some(BlobKind::Intent { .. }) = name.kind() {
            store.delete(&name).unwrap();
        }
    }
    let mut other = MemoryDisk::new(disk.bytes.clone());
    other.bytes[320_000..500_000].copy_from_slice(&noise(9, 180_000));
    let result = Run::number(2).observed(&repository, &other, &Quiet);
    let is_decision = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Decision(_)));
    assert!(matches!(&result, Err(EngineError::Twin { name }) if is_decision(name)), "{result:?}");
    assert_eq!(latest(&repository, VM).session(), committed);
    assert_restores(&repository, &snapshot, &disk);
}

#[test]
fn what_an_index_of_a_twin_lists_is_not_taken_for_the_sessions_own() {
    let [one, other] = disks_of_twins();
    let store = MemoryStore::new();
    create(&store, small_geometry());
    Run::number(1).of(&open(&store), &one);
    let delete = |prefixes: &[&str]| {
        let names = store.names();
        let deleted = names.iter().filter(|name| prefixes.contains(&&name.as_str()[..2]));
        deleted.for_each(|name| store.delete(name).unwrap());
    };
    // The other one was copied before it began. What it stored goes after its index was read.
    delete(&["s/", "r/"]);
    let watched = WatchedStore::new(&store, |call| {
        if call.is(Verb::Put, "s/") {
            delete(&["d/", "m/", "i/"]);
        }
        Answer::Given
    });
    let repository = open(&watched);
    let report = Run::number(1).of(&repository, &other);
    assert_restores(&repository, &snapshot_of(&repository, &report), &other);
    undamaged(&repository);
}

#[test]
fn a_decision_whose_answer_is_lost_is_a_success() {
    for answer in [Answer::Lost, Answer::Refused] {
        let (store, disk) = day_one();
        let failures = AtomicU32::new(0);
        let watched = WatchedStore::new(&store, |call| {
            let fails = call.is(Verb::Put, "r/") && failures.fetch_add(1, SeqCst) == 0;
            if fails { answer } else { Answer::Given }
        });
        let repository = open(&watched);
        let report = Run::number(2).of(&repository, &disk);
        assert_eq!(snapshots_of(&repository).len(), 2);
        assert_restores(&repository, &snapshot_of(&repository, &report), &disk);
    }
}

#[test]
fn packs_that_went_with_an_aborted_session_are_stored_anew() {
    let (store, mut disk) = day_one();
    disk.bytes[300_000..500_000].copy_from_slice(&noise(8, 200_000));
    let keys = open(&store);
    let aborted = OnceLock::new();
    // The writer stands still for days before its last pack.
    let watched = WatchedStore::new(&store, |call| {
        if call.is(Verb::Put, "m/") && aborted.get().is_none() {
            let decision = undecided(&store, &keys).expect("a session is running");
            store.put_new(&decision.blob(), &abort(&keys, &decision)).unwrap();
            let id = decision.session.to_string();
            for name in store.names() {
                if matches!(name.kind(), Some(BlobKind::Pack(_))) && name.as_str().contains(&id) {
                    store.delete(&name).unwrap();
                }
            }
            aborted.set(decision.session).unwrap();
        }
        Answer::Given
    });
    let notices = Notices::default();
    let report =
        Run::number(2).observed(&open(&watched), &MemoryDisk::new(disk.bytes.clone()), &notices).unwrap();
    drop(watched);
    assert!(aborted.get().is_some_and(|session| *session != report.snapshot));
    assert_eq!(notices.aborted(), 1);
    let repository = open(&store);
    assert_restores(&repository, &snapshot_of(&repository, &report), &disk);
    undamaged(&repository);
}

#[test]
fn a_backup_whose_parent_went_with_its_aborted_session_begins_anew() {
    let (store, mut disk) = day_one();
    disk.bytes[300_000..500_000].copy_from_slice(&noise(8, 200_000));
    disk.changes = disk.changes.map(|(since, _)| (since, vec![Extent { start: 300_000, length: 200_000 }]));
    let keys = open(&store);
    let parent = latest(&keys, VM);
    let aborted = Mutex::new(None);
    // The writer stands still for days before it reads its parent's map, which is forgotten and pruned.
    let watched = WatchedStore::new(&store, |call| {
        // It reads several parts at the same time.
        let mut aborted = aborted.lock().unwrap();
        if call.is(Verb::Get, "m/")
            && aborted.is_none()
            && let Some(decision) = undecided(&store, &keys)
        {
            store.put_new(&decision.blob(), &abort(&keys, &decision)).unwrap();
            forget(&keys, &parent.name);
            let of_parent = |name: &&BlobName| {
                let is_stored = ["i/", "d/", "m/", "r/"].iter().any(|kind| name.as_str().starts_with(kind));
                is_stored && name.as_str().contains(&parent.session().to_string())
            };
            for name in store.names().iter().filter(of_parent) {
                store.delete(name).unwrap();
            }
            *aborted = Some(decision.session);
        }
        Answer::Given
    });
    let notices = Notices::default();
    let report = Run::number(2).observed(&open(&watched), &disk, &notices).unwrap();
    drop(watched);
    let aborted = aborted.into_inner().unwrap();
    assert!(aborted.is_some_and(|session| session != report.snapshot));
    assert_eq!(notices.aborted(), 1);
    let repository = open(&store);
    assert_restores(&repository, &snapshot_of(&repository, &report), &disk);
    undamaged(&repository);
}

#[test]
fn a_pack_that_is_not_there_at_the_end_stops_the_commit() {
    for prefix in ["d/", "m/"] {
        for is_short in [false, true] {
            let (store, mut disk) = day_one();
            disk.bytes[300_000] ^= 1;
            disk.changes = disk.changes.map(|(since, _)| (since, vec![Extent { start: 300_000, length: 1 }]));
            let before: Vec<BlobName> = store.names();
            let watched = WatchedStore::new(&store, |call| {
                // Own packs are listed by the session's prefix, which ends with a dash.
                if call.is(Verb::List, prefix) && call.object.ends_with('-') {
                    for name in store.names() {
                        if name.as_str().starts_with(prefix) && !before.contains(&name) {
                            if is_short {
                                store.overwrite(&name, b"short");
                            } else {
                                store.delete(&name).unwrap();
                            }
                        }
                    }
                }
                Answer::Given
            });
            let result = Run::number(2).observed(&open(&watched), &disk, &Quiet);
            assert!(matches!(result, Err(EngineError::PackVanished { .. })), "{result:?}");
            assert_eq!(snapshots_of(&open(&store)).len(), 1);
        }
    }
}

#[test]
fn two_backups_of_one_vm_at_the_same_time_are_two_snapshots() {
    for writers in [["host-a", "host-a"], ["host-a", "host-b"]] {
        let (store, disk) = day_one();
        let disks = [7, 8].map(|seed| {
            let mut disk = disk.clone();
            disk.bytes[300_000..600_000].copy_from_slice(&noise(seed, 300_000));
            let areas = vec![Extent { start: 300_000, length: 300_000 }];
            disk.changes = disk.changes.map(|(since, _)| (since, areas));
            disk
        });
        // Each waits for the other's intent, and for the other before it commits.
        let barrier = Barrier::new(2);
        let watched = WatchedStore::new(&store, |call| {
            if call.is(Verb::Put, "s/") || call.is(Verb::Put, "r/") {
                barrier.wait();
            }
            Answer::Given
        });
        let watched = &watched;
        let reports = std::thread::scope(|scope| {
            let threads = [0, 1].map(|number| {
                let disk = &disks[number];
                let seed = if number == 0 { 2 } else { 3 };
                let run = Run { writer: writers[number], ..Run::number(seed) };
                scope.spawn(move || run.of(&open(watched), disk))
            });
            threads.map(|thread| thread.join().expect("the backup ends"))
        });
        let repository = open(&store);
        for (report, disk) in reports.iter().zip(&disks) {
            let snapshot = snapshot_of(&repository, report);
            assert_eq!(snapshot.name.seq, 1);
            assert_restores(&repository, &snapshot, disk);
        }
        let newest = snapshot_of(&repository, &reports[1]);
        let disk = next_day(&disks[1], 9);
        let next = snapshot_of(&repository, &Run::number(4).of(&repository, &disk));
        assert_eq!((next.name.seq, next.commit.parent.as_ref()), (2, Some(&newest.name)));
        assert_restores(&repository, &next, &disk);
        undamaged(&repository);
    }
}
