//! Sessions that have not ended.

use crate::scene::{Call, PATIENCE, Scene, USUAL};
use crate::world::noise;
use keepstone_engine::backup::Unfinished;
use keepstone_engine::prune::WaitingFor;
use keepstone_engine::store::{Fault, FaultStore};
use repo_format::{BlobKind, SessionId};

/// A forgotten snapshot, and a session of another VM that was killed after it stored something.
fn killed() -> (Scene, SessionId) {
    let mut scene = Scene::new();
    let first = scene.back_up("vm", &noise(1, 200_000));
    scene.back_up("vm", &noise(2, 200_000));
    scene.forget(first);
    let before = scene.store.copied();
    let disk = noise(3, 200_000);
    for call in 0.. {
        let store = before.copied();
        let faulty = FaultStore::new(store.clone(), call, Fault::CrashBefore);
        scene.try_back_up(&faulty, "host-b", "killed", &disk).unwrap_err();
        scene.store = store;
        if scene.names("d/host-b/").len() > 1 {
            break;
        }
    }
    let session = match scene.names("s/host-b/")[0].kind() {
        Some(BlobKind::Intent { session, .. }) => session,
        other => panic!("{other:?}"),
    };
    (scene, session)
}

#[test]
fn a_session_that_may_run_is_waited_for_and_named() {
    let (scene, session) = killed();
    let packs = scene.count("d/");
    for _ in 0..2 {
        let report = scene.prune();
        assert!(!report.sealed);
        assert_eq!(report.deleted.packs, 0);
        let [waiting] = report.waiting.as_slice() else { panic!("{:?}", report.waiting) };
        assert_eq!(
            (waiting.session.as_str(), waiting.writer.as_str()),
            (session.to_string().as_str(), "host-b")
        );
        assert_eq!(waiting.why, WaitingFor::Decision);
        assert_eq!(scene.count("d/"), packs);
        scene.assert_whole();
    }
}

#[test]
fn one_that_is_quiet_for_longer_than_the_patience_is_aborted() {
    let (mut scene, session) = killed();
    scene.prune();
    scene.later(PATIENCE - 1000);
    assert_eq!(scene.prune().waiting.len(), 1);
    scene.later(1000);
    let report = scene.prune();
    assert_eq!(report.aborted, [session.to_string()]);
    assert!(report.sealed);
    // What it had stored goes with the next generation, in the same run.
    assert_eq!(report.generation, Some(1));
    assert_eq!(scene.count("d/host-b/"), 0);
    scene.assert_whole();
}

#[test]
fn one_that_the_operator_names_is_aborted_at_once() {
    let (scene, session) = killed();
    scene.prune();
    let report = scene.prune_as(&Call { abort: &[session], ..USUAL }).unwrap();
    assert_eq!(report.aborted, [session.to_string()]);
    assert!(report.sealed);
    scene.assert_whole();
}

#[test]
fn a_backup_that_goes_on_after_its_session_was_aborted_is_whole() {
    let (mut scene, session) = killed();
    scene.prune();
    scene.prune_as(&Call { abort: &[session], ..USUAL }).unwrap();
    let disk = noise(3, 200_000);
    let made = scene.try_back_up(&scene.store, "host-b", "killed", &disk).unwrap();
    scene.holds.insert(made, disk);
    scene.assert_whole();
    scene.prune();
    scene.assert_whole();
}

#[test]
fn a_pruners_own_crashed_sessions_hold_nothing_up_once_they_are_known_to_have_ended() {
    let mut scene = Scene::new();
    // Many small indexes, so that they are put together, in a session that is killed.
    for day in 0..10 {
        scene.back_up("vm", &noise(day, 20_000));
    }
    let before = scene.store.copied();
    for call in 0.. {
        scene.store = before.copied();
        let faulty = FaultStore::new(scene.store.clone(), call, Fault::CrashAfter);
        let _crash = scene.prune_through(&faulty, &USUAL);
        if scene.count("i/pruner/") > 0 {
            break;
        }
    }
    let sessions: Vec<_> = scene.holds.keys().copied().collect();
    scene.forget(sessions[0]);
    assert_eq!(scene.prune().waiting.len(), 1);
    let report = scene.prune_as(&Call { unfinished: Unfinished::Ended, ..USUAL }).unwrap();
    assert_eq!((report.waiting.len(), report.aborted.len()), (0, 1));
    scene.assert_whole();
}
