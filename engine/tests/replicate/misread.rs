//! A source of which something is read wrongly: what it has comes to the copy, or nothing does.

use crate::place::{ALL, all_of, copy, snapshots_at, whole};
use crate::scene::Scene;
use crate::world::noise;
use keepstone_engine::BlobStore;
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use repo_format::{BlobKind, BlobName};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A store of which one read gives a bit that is not the blob's.
struct Misread {
    inner: MemoryStore,
    at: u64,
    reads: AtomicU64,
}

impl BlobStore for Misread {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        let mut bytes = self.inner.get(name, range)?;
        if self.reads.fetch_add(1, Relaxed) == self.at {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Ok(bytes)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

#[test]
fn what_is_read_wrongly_once_never_comes_to_the_copy() {
    let scene = Scene::three_days();
    for at in 0.. {
        let there = MemoryStore::new();
        let source = Misread { inner: scene.store.clone(), at, reads: AtomicU64::new(0) };
        let result = copy(&source, &there, &ALL);
        for name in there.names().into_iter().filter(|name| name.kind() != Some(BlobKind::ReplicaMarker)) {
            let (copied, expected) = (there.get(&name, None).unwrap(), scene.store.get(&name, None).unwrap());
            assert!(copied == expected, "{name} is another one at the copy, after read {at}");
        }
        whole(&there, &scene.holds);
        if source.reads.into_inner() <= at {
            result.unwrap();
            break;
        }
        let report = copy(&scene.store, &there, &ALL).unwrap();
        assert!(report.failed.is_empty(), "after read {at}: {report:?}");
        assert_eq!(snapshots_at(&there), all_of(&scene), "after read {at}");
    }
}

#[test]
fn a_pack_that_is_damaged_at_the_source_keeps_only_what_needs_it_from_being_copied() {
    let mut scene = Scene::three_days();
    let before = scene.store.names();
    scene.back_up("alone", &noise(70, 40_000));
    let is_new = |name: &BlobName| name.as_str().starts_with("d/") && !before.contains(name);
    let damaged = scene.store.names().into_iter().find(is_new).unwrap();
    let mut bytes = scene.store.get(&damaged, None).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    scene.store.overwrite(&damaged, &bytes);
    let there = MemoryStore::new();
    let report = copy(&scene.store, &there, &ALL).unwrap();
    let [failed] = &report.failed[..] else { panic!("{report:?}") };
    assert!(failed.reason.contains(damaged.as_str()), "{failed:?}");
    assert!(there.get(&damaged, None).is_err());
    assert_eq!(whole(&there, &scene.holds).len(), 4);
}
