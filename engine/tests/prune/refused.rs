//! A store that refuses.

use crate::scene::{Scene, USUAL};
use crate::world::noise;
use keepstone_engine::store::{Fault, FaultStore};

fn one_forgotten() -> Scene {
    let mut scene = Scene::new();
    let first = scene.back_up("vm", &noise(1, 200_000));
    scene.back_up("vm", &noise(2, 200_000));
    scene.forget(first);
    scene
}

#[test]
fn deletes_that_retention_refuses_are_deferred_and_done_by_a_later_generation() {
    let scene = one_forgotten();
    let packs = scene.count("d/");
    let worm = FaultStore::new(scene.store.clone(), 0, Fault::DeletesRefused);
    let report = scene.prune_through(&worm, &USUAL).unwrap();
    assert!(report.sealed);
    assert_eq!(report.deleted.packs, 0);
    assert!(report.deferred.packs > 0);
    assert_eq!(scene.count("d/"), packs);
    scene.assert_whole();
    let later = scene.prune();
    assert_eq!(later.generation, Some(1));
    assert_eq!(later.deleted, report.deferred);
    scene.assert_whole();
}

#[test]
fn what_was_condemned_is_not_referenced_while_retention_keeps_it() {
    let mut scene = one_forgotten();
    let worm = FaultStore::new(scene.store.clone(), 0, Fault::DeletesRefused);
    scene.prune_through(&worm, &USUAL).unwrap();
    // The same data again: found in the index, and there; but it may go at any time.
    scene.back_up("again", &noise(1, 200_000));
    scene.prune();
    scene.assert_whole();
}

#[test]
fn a_credential_that_ends_in_the_middle_stops_it_and_the_next_one_goes_on() {
    let whole = one_forgotten();
    let mut stopped = 0;
    for call in 0.. {
        let mut scene = one_forgotten();
        scene.store = whole.store.copied();
        scene.holds.clone_from(&whole.holds);
        let store = FaultStore::new(scene.store.clone(), call, Fault::ChangesForbidden);
        if scene.prune_through(&store, &USUAL).is_ok() {
            break;
        }
        stopped += 1;
        scene.assert_whole();
        scene.prune();
        scene.assert_whole();
        assert_eq!(scene.prune().deleted.packs, 0);
    }
    assert!(stopped > 10, "{stopped}");
}
