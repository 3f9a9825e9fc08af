//! A destination that somebody promotes while it is copied to, and sources at which not everything is whole.

use crate::place::{ALL, DELETING, copied_three_days, copy, snapshots_at};
use crate::scene::Scene;
use crate::world::watched::{Call, Watched};
use crate::world::{NOW, PASSWORD, noise, open};
use keepstone_engine::replicate::{ReplicateError, ReplicateJob};
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, EngineError};
use repo_format::{BlobName, Lineage, LineageId, LineageStep, SessionId};

/// A destination that is promoted when a data pack is created or deleted there.
fn promoted(there: &MemoryStore) -> Watched<'_> {
    Watched::new(there, |call| {
        if let Call::Put(name) | Call::Delete(name) = call
            && name.as_str().starts_with("d/")
        {
            promote(there);
        }
    })
}

fn promote(place: &MemoryStore) {
    let repository = open(place);
    let key = unlock_retention(&repository, PASSWORD).unwrap();
    let (id, step) = (LineageId([7; 16]), LineageStep::Promoted);
    let lineage = Lineage { number: 1, id, time: NOW, step, first_generation: 0, set_aside: Vec::new() };
    let (name, bytes) = lineage.seal(repository.keys(), &key, [41; 32]);
    place.put_new(&name, &bytes).unwrap();
}

fn decisions(place: &MemoryStore) -> Vec<BlobName> {
    place.names().into_iter().filter(|name| name.as_str().starts_with("r/")).collect()
}

#[test]
fn no_snapshot_is_created_after_the_destination_was_promoted() {
    let (mut scene, there) = copied_three_days();
    scene.back_up("vm", &noise(60, 100_000));
    let before = decisions(&there);
    let stopped = copy(&scene.store, &promoted(&there), &ALL);
    assert!(matches!(stopped, Err(EngineError::Replicate(ReplicateError::Promoted))), "{stopped:?}");
    assert_eq!(decisions(&there), before);
}

#[test]
fn nothing_more_is_deleted_after_the_destination_was_promoted() {
    let (mut scene, there) = copied_three_days();
    scene.forget_first_day();
    scene.prune();
    let before = decisions(&there);
    let stopped = copy(&scene.store, &promoted(&there), &DELETING);
    assert!(matches!(stopped, Err(EngineError::Replicate(ReplicateError::Promoted))), "{stopped:?}");
    // The packs went first, and the decision of what was forgotten was to follow them.
    let after = decisions(&there);
    assert!(before.iter().all(|name| after.contains(name)), "{after:?}");
}

/// What a copy of the newest restore point of each VM of a place has; whether newer ones are not whole.
fn newest_copied(source: &MemoryStore, passed_over: bool) -> Vec<SessionId> {
    let third = MemoryStore::new();
    let report = copy(source, &third, &ReplicateJob { last: Some(1), ..ALL }).unwrap();
    assert_eq!((report.snapshots.copied, report.failed.len()), (1, 0), "{report:?}");
    assert_eq!(report.snapshots.incomplete > 0, passed_over);
    snapshots_at(&third)
}

#[test]
fn the_newest_restore_point_of_a_source_that_is_a_copy_is_the_newest_whole_one() {
    let mut scene = Scene::new();
    let whole = scene.back_up("vm", &noise(1, 100_000));
    let replica = MemoryStore::new();
    copy(&scene.store, &replica, &ALL).unwrap();
    let place = replica.copied();
    place.set_time(NOW);
    promote(&place);
    // More than are looked at first.
    for seed in 2..8 {
        scene.back_up("vm", &noise(seed, 100_000));
    }
    for there in [&replica, &place] {
        for name in scene.store.names().iter().filter(|name| !name.as_str().starts_with("d/")) {
            let _there_already = there.put_new(name, &scene.store.get(name, None).unwrap()).unwrap();
        }
        assert_eq!(snapshots_at(there).len(), 7);
        assert_eq!(newest_copied(there, true), [whole]);
    }
    let newest = scene.back_up("vm", &noise(8, 100_000));
    for name in scene.store.names() {
        let _there_already = place.put_new(&name, &scene.store.get(&name, None).unwrap()).unwrap();
    }
    assert_eq!(newest_copied(&place, false), [newest]);
}
