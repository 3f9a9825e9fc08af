//! A destination that somebody promotes while it is copied to.

use crate::place::{ALL, DELETING, copied_three_days, copy};
use crate::world::watched::{Call, Watched};
use crate::world::{NOW, PASSWORD, noise, open};
use keepstone_engine::replicate::ReplicateError;
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, EngineError};
use repo_format::{BlobName, Lineage, LineageId, LineageStep};

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
