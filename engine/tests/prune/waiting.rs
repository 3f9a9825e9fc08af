//! Sessions that have not ended.

use crate::scene::{Call, PATIENCE, Scene, USUAL};
use crate::world::noise;
use keepstone_engine::backup::Unfinished;
use keepstone_engine::prune::{Waiting, WaitingFor};
use keepstone_engine::store::{BlobStore, Fault, FaultStore};
use repo_format::{BlobKind, BlobName, SessionId};

/// A forgotten snapshot, and a session of another VM that was killed after it stored something.
fn killed() -> (Scene, SessionId) {
    let mut scene = Scene::new();
    let first = scene.back_up("vm", &noise(1, 200_000));
    scene.back_up("vm", &noise(2, 200_000));
    scene.forget(first);
    let session = kill(&mut scene, "host-b");
    (scene, session)
}

/// Kills a backup of a VM of its own after it stored something.
fn kill(scene: &mut Scene, writer: &str) -> SessionId {
    let before = scene.store.copied();
    let disk = noise(3, 200_000);
    for call in 0.. {
        let store = before.copied();
        let faulty = FaultStore::new(store.clone(), call, Fault::CrashBefore);
        scene.try_back_up(&faulty, writer, &format!("killed on {writer}"), &disk).unwrap_err();
        scene.store = store;
        if scene.names(&format!("d/{writer}/")).len() > 1 {
            break;
        }
    }
    match scene.names(&format!("s/{writer}/"))[0].kind() {
        Some(BlobKind::Intent { session, .. }) => session,
        other => panic!("{other:?}"),
    }
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
fn a_session_that_began_after_the_generation_was_opened_holds_only_the_next_one_up() {
    let (mut scene, first) = killed();
    scene.prune();
    let later = kill(&mut scene, "host-c");
    let waiting =
        |waiting: &[Waiting]| -> Vec<String> { waiting.iter().map(|one| one.session.clone()).collect() };
    assert_eq!(waiting(&scene.plan(&USUAL).unwrap().waiting), [first.to_string()]);
    assert_eq!(waiting(&scene.prune().waiting), [first.to_string()]);
    let report = scene.prune_as(&Call { abort: &[first], ..USUAL }).unwrap();
    assert!(report.sealed && report.deleted.packs > 0, "{report:?}");
    // What the first one had stored is condemned by the next generation, which the other one may not know of.
    assert_eq!((report.generation, waiting(&report.waiting)), (Some(1), vec![later.to_string()]));
    let lists = scene.names("gc/").into_iter().filter(|name| name.as_str().ends_with("/awaited"));
    assert_eq!(lists.collect::<Vec<_>>(), [BlobName::awaited(1)], "one that has done its work is removed");
    scene.assert_whole();
}

#[test]
fn a_session_that_is_not_waited_for_is_aborted_if_the_operator_names_it() {
    let (mut scene, _) = killed();
    scene.prune();
    let later = kill(&mut scene, "host-c");
    let report = scene.prune_as(&Call { abort: &[later], ..USUAL }).unwrap();
    assert_eq!((report.aborted, report.waiting.len()), (vec![later.to_string()], 1));
    scene.assert_whole();
}

#[test]
fn a_list_of_whom_to_wait_for_says_nothing_of_other_condemned_packs() {
    let (mut scene, first) = killed();
    scene.prune();
    let later = kill(&mut scene, "host-c");
    scene.store.delete(&BlobName::condemned(0)).unwrap();
    // Which condemns anew: the later session knew the lost list at best.
    let report = scene.prune();
    let mut waiting: Vec<String> = report.waiting.iter().map(|one| one.session.clone()).collect();
    waiting.sort();
    let mut both = vec![first.to_string(), later.to_string()];
    both.sort();
    assert_eq!((waiting, report.ignored), (both, vec![BlobName::awaited(0).to_string()]));
    scene.assert_whole();
}

#[test]
fn a_damaged_list_of_whom_to_wait_for_is_made_up_for_by_the_intents() {
    let (scene, session) = killed();
    scene.prune();
    let name = BlobName::awaited(0);
    let mut bytes = scene.store.get(&name, None).unwrap();
    bytes[90] ^= 1;
    scene.store.delete(&name).unwrap();
    scene.store.put_new(&name, &bytes).unwrap();
    let report = scene.prune();
    assert_eq!(report.waiting.len(), 1);
    assert_eq!(report.ignored, [name.to_string()]);
    let report = scene.prune_as(&Call { abort: &[session], ..USUAL }).unwrap();
    assert!(report.sealed && report.waiting.is_empty(), "{report:?}");
    scene.assert_whole();
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
