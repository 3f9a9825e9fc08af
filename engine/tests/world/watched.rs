//! A store in which a test acts just before each call.

use keepstone_engine::BlobStore;
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use repo_format::BlobName;
use std::ops::Range;

/// What is about to happen.
#[derive(Clone, Copy, Debug)]
pub enum Call<'c> {
    Put(&'c BlobName),
    /// A read of a whole blob, or of a part of it.
    Get(&'c BlobName, Option<&'c Range<u64>>),
    List(&'c str),
    Delete(&'c BlobName),
}

pub struct Watched<'a> {
    store: &'a MemoryStore,
    before: Box<dyn Fn(Call<'_>) + Send + Sync + 'a>,
}

impl<'a> Watched<'a> {
    /// Calls `before` with every call, before it is applied.
    pub fn new(store: &'a MemoryStore, before: impl Fn(Call<'_>) + Send + Sync + 'a) -> Self {
        Self { store, before: Box::new(before) }
    }

    /// A store that nothing may be written to.
    pub fn read_only(store: &'a MemoryStore) -> Self {
        Self::new(store, |call| {
            assert!(!matches!(call, Call::Put(_) | Call::Delete(_)), "{call:?} where all is only read");
        })
    }
}

impl BlobStore for Watched<'_> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        (self.before)(Call::Put(name));
        self.store.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        (self.before)(Call::Get(name, range.as_ref()));
        self.store.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        (self.before)(Call::List(prefix));
        self.store.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        (self.before)(Call::Delete(name));
        self.store.delete(name)
    }
}
