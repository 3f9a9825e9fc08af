//! A source that changes while it is copied, and in between.

use crate::place::{ALL, DELETING, Watched, all_of, copy, snapshots_at, whole};
use crate::scene::{ALL_UNUSED, Scene};
use crate::world::{noise, open, undamaged};
use keepstone_engine::replicate::ReplicateJob;
use keepstone_engine::store::MemoryStore;
use repo_format::BlobKind;
use std::sync::Mutex;

/// Forgets the oldest snapshot, and prunes; the first call condemns, and the second deletes.
fn forget_and_prune(scene: &mut Scene) {
    scene.forget_first_day();
    scene.prune_as(&ALL_UNUSED).unwrap();
}

/// At each call of the source, something happens to it before.
fn while_it_is_copied(job: &ReplicateJob<'_>, happens: impl Fn(&mut Scene) + Sync) {
    let mut calls = 0;
    for call in (0..).step_by(4) {
        let scene = Scene::three_days();
        let before = scene.holds.clone();
        let there = MemoryStore::new();
        let store = scene.store.clone();
        let scene = Mutex::new(scene);
        let source = Watched::doing(store, call, || happens(&mut scene.lock().unwrap()));
        let report = copy(&source, &there, job).unwrap();
        let is_reached = source.was_reached();
        drop(source);
        let scene = scene.into_inner().unwrap();
        assert!(report.failed.is_empty(), "at call {call}: {report:?}");
        let mut holds = before;
        holds.extend(scene.holds.clone());
        whole(&there, &holds);
        copy(&scene.store, &there, job).unwrap();
        whole(&there, &scene.holds);
        assert_eq!(snapshots_at(&there), all_of(&scene), "at call {call}");
        undamaged(&open(&there));
        if !is_reached {
            break;
        }
        calls += 1;
    }
    assert!(calls > 5, "{calls} calls");
}

#[test]
fn a_source_that_is_backed_up_meanwhile_is_copied_whole() {
    while_it_is_copied(&ALL, |scene| {
        scene.back_up("vm", &noise(30, 300_000));
    });
}

#[test]
fn a_source_that_is_forgotten_from_pruned_and_packed_again_meanwhile_is_copied_whole() {
    while_it_is_copied(&ALL, forget_and_prune);
}

#[test]
fn the_same_where_deletions_are_followed() {
    while_it_is_copied(&DELETING, forget_and_prune);
}

#[test]
fn a_copy_follows_a_long_history() {
    let mut scene = Scene::new();
    let there = MemoryStore::new();
    let mut disk = noise(1, 200_000);
    for day in 0..12usize {
        let at = (day * 37_000) % 150_000;
        disk[at..at + 40_000].copy_from_slice(&noise(100 + day as u64, 40_000));
        scene.back_up("vm", &disk);
        scene.back_up(if day % 2 == 0 { "a" } else { "b" }, &disk[..100_000 + day * 1000]);
        if day % 3 == 2 {
            let oldest = *scene.holds.keys().nth(day % scene.holds.len()).unwrap();
            scene.forget(oldest);
            scene.prune_as(&ALL_UNUSED).unwrap();
        }
        let job = if day % 2 == 0 { ALL } else { DELETING };
        let report = copy(&scene.store, &there, &job).unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        whole(&there, &scene.holds);
        assert_eq!(snapshots_at(&there), all_of(&scene));
        undamaged(&open(&there));
    }
    copy(&scene.store, &there, &DELETING).unwrap();
    let packs = |store: &MemoryStore| {
        let names = store.names().into_iter();
        names.filter(|name| matches!(name.kind(), Some(BlobKind::Pack(_)))).collect::<Vec<_>>()
    };
    assert_eq!(packs(&there), packs(&scene.store));
}
