//! What goes and what stays.

use crate::scene::{Call, Scene, USUAL};
use crate::world::{noise, open};
use keepstone_engine::prune::PruneEnd;
use keepstone_engine::store::{Fault, FaultStore};

#[test]
fn nothing_is_deleted_and_no_generation_begins_while_all_is_needed() {
    let scene = Scene::three_days();
    let packs = [scene.names("d/"), scene.names("m/")];
    let report = scene.prune();
    assert_eq!(report.generation, None);
    assert_eq!(report.deleted.packs, 0);
    assert_eq!([scene.names("d/"), scene.names("m/")], packs);
    assert_eq!(scene.count("gc/"), 0);
    scene.assert_whole();
}

#[test]
fn what_only_a_forgotten_snapshot_needed_is_deleted_and_nothing_else() {
    let mut scene = Scene::three_days();
    let first = scene.forget_first_day();
    let before = scene.count("d/");
    let planned = scene.plan(&USUAL).unwrap();
    let report = scene.prune();
    assert_eq!(report.generation, Some(0));
    assert!(report.sealed);
    assert!(report.deleted.packs > 0);
    assert_eq!(report.deleted, planned.delete);
    assert!(scene.count("d/") < before);
    // The tombstone stays; what only told how the session ended goes.
    assert_eq!(scene.count("f/"), 1);
    let roots = scene.names("r/");
    assert!(!roots.iter().any(|name| name.as_str().ends_with(&first.to_string())), "{roots:?}");
    assert!(!scene.names("s/").iter().any(|name| name.as_str().ends_with(&first.to_string())));
    scene.assert_whole();
    // Nothing is left to do.
    assert_eq!(scene.prune().generation, None);
}

#[test]
fn all_packs_go_when_all_snapshots_are_forgotten() {
    let mut scene = Scene::three_days();
    for session in scene.holds.keys().copied().collect::<Vec<_>>() {
        scene.forget(session);
    }
    scene.prune();
    assert_eq!([scene.count("d/"), scene.count("m/"), scene.count("i/"), scene.count("r/")], [0, 0, 0, 0]);
    scene.assert_whole();
    // And the VM is backed up anew.
    scene.back_up("vm", &noise(1, 300_000));
    scene.assert_whole();
}

#[test]
fn what_a_later_backup_needs_of_a_forgotten_one_stays() {
    let mut scene = Scene::new();
    let disk = noise(1, 300_000);
    let first = scene.back_up("vm", &disk);
    scene.back_up("vm", &disk);
    scene.forget(first);
    let packs = scene.names("d/");
    scene.prune();
    assert_eq!(scene.names("d/"), packs);
    scene.assert_whole();
}

#[test]
fn a_deleted_pack_is_never_referenced_again_and_its_data_is_stored_anew() {
    let mut scene = Scene::three_days();
    scene.forget_first_day();
    scene.prune();
    scene.back_up("third", &noise(1, 300_000));
    scene.assert_whole();
    scene.prune();
    scene.assert_whole();
}

/// Runs a prune that crashes at each of its store calls, in every way; another pruner then goes on.
#[test]
fn a_prune_that_ends_anywhere_is_ended_by_another_one() {
    let mut whole = Scene::three_days();
    whole.forget_first_day();
    let mut runs = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::CrashDuring] {
        // At each call it ends once; beside that, some suffice.
        let step = if fault == Fault::CrashAfter { 1 } else { 5 };
        for call in (0..).step_by(step) {
            let mut scene = Scene::three_days();
            scene.store = whole.store.copied();
            scene.holds.clone_from(&whole.holds);
            let store = FaultStore::new(scene.store.clone(), call, fault);
            let ended = scene.prune_through(&store, &USUAL);
            if store.calls() <= call {
                ended.unwrap();
                break;
            }
            runs += 1;
            if let Some(late) = store.take_late() {
                late.apply(&scene.store).unwrap();
            }
            scene.assert_holds();
            scene.later(crate::scene::PATIENCE);
            let other = Call { writer: "another-pruner", ..USUAL };
            scene.prune_as(&other).unwrap();
            scene.assert_whole();
            let again = scene.prune_as(&other).unwrap();
            assert_eq!((again.deleted.packs, again.waiting.len()), (0, 0), "{fault:?} at call {call}");
        }
    }
    assert!(runs > 100, "{runs} crashes");
}

#[test]
fn resuming_ends_the_open_generation_and_begins_no_other() {
    let mut scene = Scene::three_days();
    let sessions: Vec<_> = scene.holds.keys().copied().collect();
    scene.forget(sessions[0]);
    // It ends after it has condemned.
    let call = (0..10_000)
        .find(|call| {
            let copy = scene.store.copied();
            let store = FaultStore::new(copy.clone(), *call, Fault::CrashAfter);
            let _crash = scene.prune_through(&store, &USUAL);
            copy.names()
                .iter()
                .any(|name| name.as_str().starts_with("gc/0") && name.as_str().ends_with("condemned"))
        })
        .unwrap();
    let store = FaultStore::new(scene.store.clone(), call, Fault::CrashAfter);
    scene.prune_through(&store, &USUAL).unwrap_err();
    scene.forget(sessions[1]);
    let report = scene.prune_as(&Call { end: PruneEnd::OpenGeneration, ..USUAL }).unwrap();
    assert_eq!((report.generation, report.sealed), (Some(0), true));
    assert_eq!(scene.count("gc/"), 3);
    scene.assert_whole();
    assert_eq!(scene.prune().generation, Some(1));
    scene.assert_whole();
    drop(open(&scene.store));
}
