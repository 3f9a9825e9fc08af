//! Counting what is asked of a store.

use super::{BlobStore, Page, Put, StoreError};
use repo_format::BlobName;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Requests that were made of a store, failed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Creates.
    pub put: u64,
    /// Reads.
    pub get: u64,
    /// Listing pages.
    pub list: u64,
    /// Deletes.
    pub delete: u64,
    /// Bytes handed over by all creates.
    pub put_bytes: u64,
    /// Bytes that came back from all reads.
    pub get_bytes: u64,
}

impl Requests {
    /// What was added since `earlier`, a count of the same store.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            put: self.put.saturating_sub(earlier.put),
            get: self.get.saturating_sub(earlier.get),
            list: self.list.saturating_sub(earlier.list),
            delete: self.delete.saturating_sub(earlier.delete),
            put_bytes: self.put_bytes.saturating_sub(earlier.put_bytes),
            get_bytes: self.get_bytes.saturating_sub(earlier.get_bytes),
        }
    }
}

/// A store that counts its requests, for reports and tests.
#[derive(Debug, Default)]
pub struct RecordingStore<S> {
    inner: S,
    put: AtomicU64,
    get: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    put_bytes: AtomicU64,
    get_bytes: AtomicU64,
}

impl<S: BlobStore> RecordingStore<S> {
    /// Counts the requests to `inner` from zero.
    pub fn new(inner: S) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            inner,
            put: zero(),
            get: zero(),
            list: zero(),
            delete: zero(),
            put_bytes: zero(),
            get_bytes: zero(),
        }
    }

    /// The requests so far. Each number is exact; they are read one after the other.
    pub fn requests(&self) -> Requests {
        Requests {
            put: self.put.load(Relaxed),
            get: self.get.load(Relaxed),
            list: self.list.load(Relaxed),
            delete: self.delete.load(Relaxed),
            put_bytes: self.put_bytes.load(Relaxed),
            get_bytes: self.get_bytes.load(Relaxed),
        }
    }

    /// The store underneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

fn add_len(counter: &AtomicU64, bytes: &[u8]) {
    counter.fetch_add(u64::try_from(bytes.len()).expect("a length in memory fits 64 bits"), Relaxed);
}

impl<S: BlobStore> BlobStore for RecordingStore<S> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.put.fetch_add(1, Relaxed);
        add_len(&self.put_bytes, bytes);
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.get.fetch_add(1, Relaxed);
        let bytes = self.inner.get(name, range)?;
        add_len(&self.get_bytes, &bytes);
        Ok(bytes)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.list.fetch_add(1, Relaxed);
        self.inner.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.delete.fetch_add(1, Relaxed);
        self.inner.delete(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, conformance};

    #[test]
    fn conforms() {
        conformance::check(&|| {
            let store = MemoryStore::new();
            Box::new(move || Box::new(RecordingStore::new(store.clone())))
        });
    }

    #[test]
    fn every_request_is_counted() {
        let store = RecordingStore::new(MemoryStore::new());
        let name = BlobName::parse("d/w/1").unwrap();
        store.put_new(&name, b"12345").unwrap();
        let first = store.requests();
        store.put_new(&name, b"123").unwrap();
        store.get(&name, None).unwrap();
        store.get(&name, Some(1..3)).unwrap();
        store.list("", None, 1).unwrap();
        store.delete(&name).unwrap();
        store.get(&name, None).unwrap_err();
        let all = Requests { put: 2, get: 3, list: 1, delete: 1, put_bytes: 8, get_bytes: 7 };
        assert_eq!(store.requests(), all);
        assert_eq!(
            all.since(&first),
            Requests { put: 1, get: 3, list: 1, delete: 1, put_bytes: 3, get_bytes: 7 }
        );
    }
}
