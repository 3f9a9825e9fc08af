//! Packs that are mostly not needed are packed again.

use crate::scene::{ALL_UNUSED, Call, Scene};
use crate::world::{PASSWORD, cheap_kdf, latest, noise, open, restored};
use keepstone_engine::Entropy;
use keepstone_engine::repository::{NewSlot, add_slot};
use keepstone_engine::store::{Fault, FaultStore, RecordingStore};
use repo_format::{SlotKind, SlotName};

/// Many days of which each changes some places of a disk; all but the newest, and one in the middle, are forgotten.
pub fn scattered() -> Scene {
    let mut scene = Scene::new();
    let mut disk = noise(1, 600_000);
    scene.back_up("other", &disk[..100_000]);
    let mut sessions = Vec::new();
    for day in 0..12usize {
        sessions.push(scene.back_up("vm", &disk));
        for place in 0..6 {
            let at = (place * 97_000 + day * 7_000) % 590_000;
            disk[at..at + 6_000].copy_from_slice(&noise((day * 10 + place) as u64 + 1000, 6_000));
        }
    }
    sessions.push(scene.back_up("vm", &disk));
    for (day, session) in sessions.iter().enumerate() {
        if day != 6 && day != 12 {
            scene.forget(*session);
        }
    }
    scene
}

fn stored(scene: &Scene) -> u64 {
    use keepstone_engine::BlobStore;
    let packs = ["d/", "m/"].iter().flat_map(|prefix| scene.names(prefix));
    packs.map(|name| scene.store.get(&name, None).unwrap().len() as u64).sum()
}

#[test]
fn what_is_needed_moves_and_what_is_not_goes() {
    let scene = scattered();
    let plan = scene.plan(&ALL_UNUSED).unwrap();
    assert!(plan.repack.packs > 0);
    let before = stored(&scene);
    let report = scene.prune_as(&ALL_UNUSED).unwrap();
    let repacked = report.repacked.clone().expect("something was packed again");
    assert!(repacked.emptied > 0 && repacked.packs > 0 && !repacked.aborted);
    assert!(report.sealed);
    assert!(stored(&scene) < before);
    scene.assert_whole();
    // Nothing is left to gain.
    let again = scene.prune_as(&ALL_UNUSED).unwrap();
    assert_eq!((again.repacked, again.deleted.packs), (None, 0));
    scene.assert_whole();
}

#[test]
fn later_backups_go_on_from_what_was_moved_over_several_levels() {
    let mut scene = scattered();
    scene.prune_as(&ALL_UNUSED).unwrap();
    let repository = open(&scene.store);
    let mut disk = restored(&repository, &latest(&repository, "vm"), "disk0").unwrap();
    drop(repository);
    for level in 0..3u64 {
        for day in 0..4usize {
            let at = day * 100_000;
            disk[at..at + 9_000].copy_from_slice(&noise(level * 100 + day as u64 + 7000, 9_000));
            scene.back_up("vm", &disk);
        }
        let data = scene.count("d/");
        scene.back_up("copy", &disk);
        assert_eq!(scene.count("d/"), data, "everything is found at its new place");
        let newest = newest(&scene, "vm");
        let sessions: Vec<_> = scene.holds.keys().copied().filter(|session| *session != newest).collect();
        for session in sessions.into_iter().step_by(2) {
            scene.forget(session);
        }
        let report = scene.prune_as(&ALL_UNUSED).unwrap();
        assert!(report.sealed, "{report:?}");
        scene.assert_whole();
    }
    assert!(scene.count("k/") > 1);
}

fn newest(scene: &Scene, vm: &str) -> repo_format::SessionId {
    latest(&scene.repository(), vm).session()
}

#[test]
fn a_restore_takes_fewer_requests_afterwards() {
    let scene = scattered();
    let gets = || {
        let store = RecordingStore::new(scene.store.clone());
        let repository = open(&store);
        let before = store.requests().get;
        restored(&repository, &latest(&repository, "vm"), "disk0").unwrap();
        store.requests().get - before
    };
    let before = gets();
    scene.prune_as(&ALL_UNUSED).unwrap();
    let after = gets();
    assert!(after < before, "{before} requests before, {after} after");
}

#[test]
fn no_more_is_written_again_than_allowed() {
    let scene = scattered();
    let all = scene.plan(&ALL_UNUSED).unwrap();
    let some = Call { max_repack: Some(all.rewritten_bytes / 3), ..ALL_UNUSED };
    let plan = scene.plan(&some).unwrap();
    assert!(plan.repack.packs > 0 && plan.repack.packs < all.repack.packs);
    let report = scene.prune_as(&some).unwrap();
    assert!(report.repacked.unwrap().written_bytes <= all.rewritten_bytes / 2);
    scene.assert_whole();
}

#[test]
fn a_repack_that_ends_anywhere_harms_nothing_and_is_done_again() {
    let whole = scattered();
    let mut runs = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::CrashDuring] {
        // Some calls are enough beside the crashes at all calls in other tests.
        for call in (0..).step_by(11) {
            let mut scene = Scene::new();
            (scene.store, scene.time) = (whole.store.copied(), whole.time);
            scene.holds.clone_from(&whole.holds);
            let store = FaultStore::new(scene.store.clone(), call, fault);
            let ended = scene.prune_through(&store, &ALL_UNUSED);
            if store.calls() <= call {
                ended.unwrap();
                break;
            }
            runs += 1;
            if let Some(late) = store.take_late() {
                late.apply(&scene.store).unwrap();
            }
            scene.assert_whole();
            scene.later(crate::scene::PATIENCE);
            let other = Call { writer: "another-pruner", ..ALL_UNUSED };
            scene.prune_as(&other).unwrap();
            scene.prune_as(&other).unwrap();
            scene.assert_whole();
            let again = scene.prune_as(&other).unwrap();
            assert_eq!((again.deleted.packs, again.waiting.len()), (0, 0), "{fault:?} at call {call}");
        }
    }
    assert!(runs > 20, "{runs} crashes");
}

#[test]
fn an_identity_without_the_data_key_deletes_whole_packs_and_tells_what_packing_again_would_free() {
    let scene = scattered();
    let name = SlotName::new("pruner").unwrap();
    let slot = NewSlot { name: &name, label: "", password: b"inventory", kdf: cheap_kdf(), time: scene.time };
    add_slot(&scene.store, PASSWORD, SlotKind::Inventory, &slot, &Entropy::new([77; 32])).unwrap();
    let data = scene.names("d/");
    let report = scene.prune_with(b"inventory", &scene.store, &ALL_UNUSED).unwrap();
    assert!(report.sealed && report.deleted.packs > 0);
    assert!(report.unused_bytes_left > 0);
    // No data pack is new.
    assert!(scene.names("d/").iter().all(|name| data.contains(name)));
    scene.assert_whole();
    let whole = scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(whole.repacked.unwrap().emptied > 0);
    assert!(whole.unused_bytes_left < report.unused_bytes_left);
    scene.assert_whole();
}
