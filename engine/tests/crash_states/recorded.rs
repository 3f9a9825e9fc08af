//! A store that keeps what it held before each change.

use keepstone_engine::BlobStore;
use keepstone_engine::store::{LateCall, MemoryStore, Page, Put, StoreError};
use repo_format::BlobName;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A change, and the store just before it.
pub struct Change {
    pub before: MemoryStore,
    pub request: LateCall,
}

/// What one operation asked the store.
#[derive(Default)]
pub struct Recorded {
    pub calls: u64,
    pub changes: Vec<Change>,
}

pub struct RecordedStore {
    inner: MemoryStore,
    recorded: Mutex<Recorded>,
}

impl RecordedStore {
    pub fn new(inner: &MemoryStore) -> Self {
        Self { inner: inner.clone(), recorded: Mutex::default() }
    }

    pub fn into_recorded(self) -> Recorded {
        self.recorded.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, request: Option<LateCall>) {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.calls += 1;
        recorded.changes.extend(request.map(|request| Change { before: self.inner.copied(), request }));
    }

    fn is_there(&self, name: &BlobName) -> bool {
        self.inner.get(name, Some(0..0)).is_ok()
    }
}

impl BlobStore for RecordedStore {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.note((!self.is_there(name)).then(|| LateCall::PutNew(name.clone(), bytes.to_vec())));
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.note(None);
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.note(None);
        self.inner.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.note(self.is_there(name).then(|| LateCall::Delete(name.clone())));
        self.inner.delete(name)
    }
}
