//! A destination that somebody promotes while it is copied to.

use crate::place::{ALL, DELETING, copy, three_days};
use crate::world::{NOW, PASSWORD, noise, open};
use keepstone_engine::replicate::ReplicateError;
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use keepstone_engine::{BlobStore, EngineError};
use repo_format::{BlobName, Lineage, LineageId, LineageStep};
use std::ops::Range;

/// A destination that is promoted when a data pack is created or deleted there.
struct Promoted(MemoryStore);

impl Promoted {
    fn promote(&self) {
        let repository = open(&self.0);
        let key = unlock_retention(&repository, PASSWORD).unwrap();
        let (id, step) = (LineageId([7; 16]), LineageStep::Promoted);
        let lineage = Lineage { number: 1, id, time: NOW, step, first_generation: 0, set_aside: Vec::new() };
        let (name, bytes) = lineage.seal(repository.keys(), &key, [41; 32]);
        self.0.put_new(&name, &bytes).unwrap();
    }

    fn touched(&self, name: &BlobName) {
        if name.as_str().starts_with("d/") {
            self.promote();
        }
    }

    fn decisions(&self) -> Vec<BlobName> {
        self.0.names().into_iter().filter(|name| name.as_str().starts_with("r/")).collect()
    }
}

impl BlobStore for Promoted {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.touched(name);
        self.0.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.0.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.0.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.touched(name);
        self.0.delete(name)
    }
}

#[test]
fn no_snapshot_is_created_after_the_destination_was_promoted() {
    let mut scene = three_days();
    let there = MemoryStore::new();
    copy(&scene.store, &there, &ALL).unwrap();
    scene.back_up("vm", &noise(60, 100_000));
    let there = Promoted(there);
    let before = there.decisions();
    let stopped = copy(&scene.store, &there, &ALL);
    assert!(matches!(stopped, Err(EngineError::Replicate(ReplicateError::Promoted))), "{stopped:?}");
    assert_eq!(there.decisions(), before);
}

#[test]
fn nothing_more_is_deleted_after_the_destination_was_promoted() {
    let mut scene = three_days();
    let there = MemoryStore::new();
    copy(&scene.store, &there, &ALL).unwrap();
    let first = *scene.holds.iter().find(|(_, bytes)| bytes.starts_with(&noise(1, 1000))).unwrap().0;
    scene.forget(first);
    scene.prune();
    let there = Promoted(there);
    let before = there.decisions();
    let stopped = copy(&scene.store, &there, &DELETING);
    assert!(matches!(stopped, Err(EngineError::Replicate(ReplicateError::Promoted))), "{stopped:?}");
    // The packs went first, and the decision of what was forgotten was to follow them.
    let after = there.decisions();
    assert!(before.iter().all(|name| after.contains(name)), "{after:?}");
}
