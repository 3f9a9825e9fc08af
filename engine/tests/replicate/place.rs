//! A second place, and what must be true there.

use crate::scene::Scene;
use crate::world::{NOW, PASSWORD, restored};
use keepstone_engine::observer::Quiet;
use keepstone_engine::replica::Completeness;
use keepstone_engine::replicate::{
    Deletions, Place, Preparing, ReplicateJob, ReplicateReport, Route, Taking, There, dry_run, prepare,
    replicate,
};
use keepstone_engine::snapshots::{Snapshot, list};
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use keepstone_engine::{BlobStore, EngineError, Entropy, Repository};
use repo_format::{BlobKind, BlobName, RepackRecord, SessionId};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;

/// Everything, one blob after the other: the order of the calls is always the same.
pub const ALL: ReplicateJob<'static> = ReplicateJob {
    vms: &[],
    last: None,
    there: There::Whole,
    deletions: Deletions::Kept,
    jobs: NonZeroUsize::MIN,
};

pub const DELETING: ReplicateJob<'static> = ReplicateJob { deletions: Deletions::Followed, ..ALL };

pub fn copy(
    source: &dyn BlobStore,
    destination: &dyn BlobStore,
    job: &ReplicateJob<'_>,
) -> Result<ReplicateReport, EngineError> {
    copy_taking(Taking::OwnReplica, source, destination, job)
}

pub fn copy_taking(
    taking: Taking,
    source: &dyn BlobStore,
    destination: &dyn BlobStore,
    job: &ReplicateJob<'_>,
) -> Result<ReplicateReport, EngineError> {
    let source = Repository::open(source, PASSWORD)?;
    let preparing = Preparing::Made { told: "the source", time: NOW };
    let Place::Ready(destination) = prepare(&source, destination, taking, preparing, &Entropy::new([7; 32]))?
    else {
        panic!("it was to be made ready");
    };
    replicate(&source, &destination, Route::ThroughHost, job, &Quiet)
}

pub fn plan(
    source: &dyn BlobStore,
    destination: &dyn BlobStore,
    job: &ReplicateJob<'_>,
) -> Result<ReplicateReport, EngineError> {
    let source = Repository::open(source, PASSWORD)?;
    let place =
        prepare(&source, destination, Taking::OwnReplica, Preparing::LookedAt, &Entropy::new([7; 32]))?;
    match &place {
        Place::Ready(destination) => dry_run(&source, Some(destination), job, &Quiet),
        Place::Empty => dry_run(&source, None, job, &Quiet),
    }
}

/// Whatever is a snapshot at a place is whole there, and restores bit for bit. Returns them.
pub fn whole(store: &MemoryStore, holds: &BTreeMap<SessionId, Vec<u8>>) -> Vec<SessionId> {
    let config = BlobName::config();
    if store.get(&config, None).is_err() {
        // Nothing can be taken for a repository that is not there.
        assert!(store.names().iter().all(|name| !name.as_str().starts_with("r/")));
        return Vec::new();
    }
    let repository = Repository::open(store, PASSWORD).unwrap();
    let listed = list(&repository, None).unwrap();
    assert!(listed.unreadable.is_empty(), "{:?}", listed.unreadable);
    let found = Completeness::of_everything(&repository).unwrap().of(&listed.snapshots).unwrap();
    for (snapshot, whole) in listed.snapshots.iter().zip(found) {
        assert!(whole.is_whole(), "{}: {whole:?}", snapshot.session());
        let bytes = restored(&repository, snapshot, "disk0").expect("it restores");
        assert!(bytes == holds[&snapshot.session()], "{} holds other bytes", snapshot.session());
    }
    listed.snapshots.iter().map(Snapshot::session).collect()
}

/// A place stays whole if all packs go from it that records moved, as after a prune of a copy that was promoted.
pub fn whole_without_moved(store: &MemoryStore, holds: &BTreeMap<SessionId, Vec<u8>>) {
    let copied = store.copied();
    let Ok(repository) = Repository::open(&copied, PASSWORD) else { return };
    for name in store.names().into_iter().filter(|name| matches!(name.kind(), Some(BlobKind::Repack(_)))) {
        let record = RepackRecord::open(repository.keys(), &name, &store.get(&name, None).unwrap()).unwrap();
        // It counts only with its decision.
        if store.get(&record.decision.blob(), None).is_ok() {
            for lead in &record.leads {
                copied.delete(&record.packs[lead.old as usize].name.blob()).unwrap();
            }
        }
    }
    whole(&copied, holds);
}

/// The snapshots that are at a place.
pub fn snapshots_at(store: &MemoryStore) -> Vec<SessionId> {
    let repository = Repository::open(store, PASSWORD).unwrap();
    let mut found: Vec<SessionId> =
        list(&repository, None).unwrap().snapshots.iter().map(Snapshot::session).collect();
    found.sort();
    found
}

/// What a scene's snapshots are.
pub fn all_of(scene: &Scene) -> Vec<SessionId> {
    scene.holds.keys().copied().collect()
}

/// Three days, and a copy of them.
pub fn copied_three_days() -> (Scene, MemoryStore) {
    let (scene, there) = (Scene::three_days(), MemoryStore::new());
    copy(&scene.store, &there, &ALL).unwrap();
    (scene, there)
}

/// What is done at a call.
type Action<'a> = Box<dyn FnOnce() + Send + 'a>;

/// A store that remembers what was read, and does something just before one of its calls.
pub struct Watched<'a> {
    pub inner: MemoryStore,
    pub read: Mutex<Vec<BlobName>>,
    calls: Mutex<u64>,
    at: u64,
    action: Mutex<Option<Action<'a>>>,
}

impl<'a> Watched<'a> {
    pub fn new(inner: MemoryStore) -> Self {
        Self::doing(inner, u64::MAX, || {})
    }

    pub fn doing(inner: MemoryStore, at: u64, action: impl FnOnce() + Send + 'a) -> Self {
        let action: Action<'a> = Box::new(action);
        Self { inner, read: Mutex::default(), calls: Mutex::default(), at, action: Mutex::new(Some(action)) }
    }

    /// Whether the call came that something was to be done before.
    pub fn was_reached(&self) -> bool {
        self.action.lock().unwrap().is_none()
    }

    fn call(&self) {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls - 1
        };
        if call == self.at {
            let action = self.action.lock().unwrap().take();
            if let Some(action) = action {
                action();
            }
        }
    }
}

impl BlobStore for Watched<'_> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.call();
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.call();
        self.read.lock().unwrap().push(name.clone());
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.call();
        self.inner.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.call();
        self.inner.delete(name)
    }
}
