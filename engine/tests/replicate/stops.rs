//! Runs that end anywhere, fail in any way, or run beside each other.

use crate::place::{
    ALL, DELETING, all_of, copied_three_days, copy, snapshots_at, whole, whole_without_moved,
};
use crate::scene::{ALL_UNUSED, Scene};
use crate::world::{noise, open, undamaged};
use keepstone_engine::BlobStore;
use keepstone_engine::replicate::ReplicateJob;
use keepstone_engine::store::{Fault, FaultStore, MemoryStore};
use repo_format::{BlobName, SessionId};
use std::num::NonZeroUsize;

/// A repository that was forgotten from, pruned and packed again, and backed up once more; and a copy from before that.
fn with_history() -> (Scene, MemoryStore) {
    let (mut scene, there) = copied_three_days();
    scene.forget_first_day();
    scene.prune_as(&ALL_UNUSED).unwrap();
    let mut disk = noise(1, 300_000);
    disk[..150_000].copy_from_slice(&noise(3, 150_000));
    disk[..5_000].copy_from_slice(&noise(8, 5_000));
    scene.back_up("vm", &disk);
    (scene, there)
}

/// A copy to `there` ends at each of its calls there; whatever is a snapshot by then is whole, and the next run goes on.
fn ends_anywhere(scene: &Scene, there: &MemoryStore, job: &ReplicateJob<'_>) -> u32 {
    let mut ended = 0;
    // What may be a snapshot there meanwhile.
    let mut holds = scene.holds.clone();
    holds.extend(Scene::three_days().holds);
    for fault in
        [Fault::CrashAfter, Fault::CrashBefore, Fault::CrashDuring, Fault::AnswerLost, Fault::NotApplied]
    {
        let step = if fault == Fault::CrashAfter { 1 } else { 5 };
        for call in (0..).step_by(step) {
            let copied = there.copied();
            let store = FaultStore::new(copied.clone(), call, fault);
            let result = copy(&scene.store, &store, job);
            if store.calls() <= call {
                result.unwrap();
                break;
            }
            ended += 1;
            whole(&copied, &holds);
            whole_without_moved(&copied, &holds);
            if let Some(late) = store.take_late() {
                late.apply(&copied).unwrap();
                whole(&copied, &holds);
            }
            let report = copy(&scene.store, &copied, job).unwrap();
            assert!(report.failed.is_empty(), "{fault:?} at call {call}: {report:?}");
            whole(&copied, &scene.holds);
            assert_eq!(snapshots_at(&copied), all_of(scene), "{fault:?} at call {call}");
            let again = copy(&scene.store, &copied, job).unwrap();
            assert_eq!(again.blobs.count, 0, "{fault:?} at call {call}: {again:?}");
        }
    }
    ended
}

#[test]
fn a_first_copy_that_ends_anywhere_is_whole_and_is_gone_on_with() {
    let scene = Scene::three_days();
    let ended = ends_anywhere(&scene, &MemoryStore::new(), &ALL);
    assert!(ended > 60, "{ended} ends");
}

#[test]
fn a_later_copy_that_ends_anywhere_is_whole_and_is_gone_on_with() {
    let (scene, there) = with_history();
    let ended = ends_anywhere(&scene, &there, &ALL);
    assert!(ended > 30, "{ended} ends");
}

#[test]
fn a_copy_that_deletes_and_ends_anywhere_is_whole_and_is_gone_on_with() {
    let (scene, there) = with_history();
    let ended = ends_anywhere(&scene, &there, &DELETING);
    assert!(ended > 30, "{ended} ends");
}

#[test]
fn a_source_that_fails_anywhere_leaves_a_whole_copy() {
    let (scene, there) = with_history();
    let mut holds = scene.holds.clone();
    holds.extend(Scene::three_days().holds);
    for call in 0.. {
        let copied = there.copied();
        let store = FaultStore::new(scene.store.clone(), call, Fault::CrashBefore);
        let result = copy(&store, &copied, &DELETING);
        whole(&copied, &holds);
        if store.calls() <= call {
            result.unwrap();
            break;
        }
        copy(&scene.store, &copied, &DELETING).unwrap();
        whole(&copied, &scene.holds);
        assert_eq!(snapshots_at(&copied), all_of(&scene));
    }
}

#[test]
fn nothing_but_what_is_needed_is_missing_where_the_destination_may_not_be_deleted_from() {
    let (scene, there) = with_history();
    let store = FaultStore::new(there.clone(), 0, Fault::DeletesRefused);
    let result = copy(&scene.store, &store, &DELETING);
    whole(&there, &scene.holds);
    drop(result);
    copy(&scene.store, &there, &DELETING).unwrap();
    whole(&there, &scene.holds);
}

#[test]
fn several_runs_at_once_make_one_whole_copy() {
    let (scene, there) = with_history();
    for (store, jobs) in [(MemoryStore::new(), 4), (there, 3)] {
        let job = ReplicateJob { jobs: NonZeroUsize::new(jobs).unwrap(), ..DELETING };
        std::thread::scope(|threads| {
            let running: Vec<_> =
                (0..4).map(|_| threads.spawn(|| copy(&scene.store, &store, &job).unwrap())).collect();
            for run in running {
                let report = run.join().unwrap();
                assert!(report.failed.is_empty(), "{report:?}");
            }
        });
        whole(&store, &scene.holds);
        assert_eq!(snapshots_at(&store), all_of(&scene));
        undamaged(&open(&store));
        let again = copy(&scene.store, &store, &DELETING).unwrap();
        assert_eq!((again.blobs.count, again.deleted.packs.count), (0, 0), "{again:?}");
    }
}

#[test]
fn at_each_call_a_second_run_may_be_done_in_between() {
    let (scene, there) = with_history();
    for call in (0..).step_by(3) {
        let copied = there.copied();
        let store = crate::place::Watched::doing(copied.clone(), call, || {
            copy(&scene.store, &copied, &DELETING).unwrap();
        });
        let report = copy(&scene.store, &store, &DELETING).unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        whole(&copied, &scene.holds);
        assert_eq!(snapshots_at(&copied), all_of(&scene));
        if !store.was_reached() {
            break;
        }
    }
}

#[test]
fn the_config_comes_last() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    for call in 0.. {
        let copied = there.copied();
        let store = FaultStore::new(copied.clone(), call, Fault::CrashAfter);
        let ended = copy(&scene.store, &store, &ALL).is_err();
        if copied.get(&BlobName::config(), None).is_ok() {
            assert!(copied.get(&BlobName::parse("lineage/replica").unwrap(), None).is_ok());
            assert_eq!(copied.list("keys/", None, 10).unwrap().blobs.len(), 2);
            assert!(ended);
            break;
        }
    }
}

/// A repository that was packed again twice, what was packed again the second time being what was the first time; and a
/// copy from before that.
fn packed_again_twice() -> (Scene, MemoryStore) {
    let (mut scene, mut disk, sessions) = ten_days();
    let there = MemoryStore::new();
    copy(&scene.store, &there, &ALL).unwrap();
    for forgotten in [&sessions[..5], &sessions[5..8]] {
        for session in forgotten {
            scene.forget(*session);
        }
        assert!(scene.prune_as(&ALL_UNUSED).unwrap().repacked.is_some());
    }
    disk[..9_000].copy_from_slice(&noise(7, 9_000));
    scene.back_up("vm", &disk);
    (scene, there)
}

#[test]
fn a_record_is_there_only_with_all_that_it_leads_to_from_packs_that_are_there() {
    let (scene, there) = packed_again_twice();
    let vms = ["vm".to_owned()];
    for job in [ALL, ReplicateJob { vms: &vms, ..ALL }, ReplicateJob { last: Some(1), ..ALL }] {
        let mut holds = scene.holds.clone();
        holds.extend(ten_days().0.holds);
        for call in (0..).step_by(2) {
            let copied = there.copied();
            let store = FaultStore::new(copied.clone(), call, Fault::CrashAfter);
            let ended = copy(&scene.store, &store, &job).is_err();
            whole(&copied, &holds);
            whole_without_moved(&copied, &holds);
            if !ended && store.calls() <= call {
                break;
            }
        }
    }
}

/// Two VMs, and ten days of many small changes of the first one's disk; its snapshots.
fn ten_days() -> (Scene, Vec<u8>, Vec<SessionId>) {
    let mut scene = Scene::new();
    let mut disk = noise(1, 400_000);
    let mut sessions = Vec::new();
    for day in 0..10usize {
        for place in 0..5 {
            let at = (place * 77_000 + day * 6_000) % 390_000;
            disk[at..at + 6_000].copy_from_slice(&noise((day * 10 + place) as u64 + 1000, 6_000));
        }
        sessions.push(scene.back_up("vm", &disk));
        scene.back_up("other", &disk[..200_000]);
    }
    (scene, disk, sessions)
}
