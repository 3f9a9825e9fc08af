//! A store in memory, for tests and simulations.

use super::{BlobInfo, BlobStore, Page, Put, StoreError};
use repo_format::BlobName;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// By the text of the names, so that a prefix, which need not be a name, can be looked for.
type Blobs = BTreeMap<String, Blob>;

#[derive(Clone, Debug)]
struct Blob {
    bytes: Arc<[u8]>,
    modified: u64,
}

/// A container in memory. Clones share it, so a clone is the same container opened again.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    blobs: Arc<RwLock<Blobs>>,
    /// What blobs that are created now are dated.
    clock: Arc<AtomicU64>,
}

impl MemoryStore {
    /// Makes an empty container.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an independent copy of the container as it is now: a replica, or the state at a crash.
    #[must_use]
    pub fn copied(&self) -> Self {
        let clock = AtomicU64::new(self.clock.load(Ordering::Relaxed));
        Self { blobs: Arc::new(RwLock::new(self.read().clone())), clock: Arc::new(clock) }
    }

    /// Sets the container's clock, which stands still at 0 until then: milliseconds since 1970.
    pub fn set_time(&self, millis: u64) {
        self.clock.store(millis, Ordering::Relaxed);
    }

    /// Lists all names in order.
    #[must_use]
    pub fn names(&self) -> Vec<BlobName> {
        self.read().keys().map(|text| name_of(text)).collect()
    }

    /// Puts bytes in place of what a blob holds, as damage does; creates the blob if it does not exist.
    pub fn overwrite(&self, name: &BlobName, bytes: &[u8]) {
        let blob = self.blob(bytes);
        self.write().insert(name.to_string(), blob);
    }

    fn blob(&self, bytes: &[u8]) -> Blob {
        Blob { bytes: bytes.into(), modified: self.clock.load(Ordering::Relaxed) }
    }

    // A panic in another thread leaves the map whole: every change is one insert or remove.
    fn read(&self) -> RwLockReadGuard<'_, Blobs> {
        self.blobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Blobs> {
        self.blobs.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(text: &str) -> BlobName {
    BlobName::parse(text).expect("only the texts of names are stored")
}

impl BlobStore for MemoryStore {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        let mut blobs = self.write();
        match blobs.get(name.as_str()) {
            None => {
                blobs.insert(name.to_string(), self.blob(bytes));
                Ok(Put::Created)
            }
            Some(there) if *there.bytes == *bytes => Ok(Put::Identical),
            Some(_) => Ok(Put::Different),
        }
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        let blob = self.read().get(name.as_str()).map(|blob| Arc::clone(&blob.bytes));
        let blob = blob.ok_or_else(|| StoreError::NotFound { name: name.clone() })?;
        let Some(range) = range else { return Ok(blob.to_vec()) };
        let within = |at: u64| usize::try_from(at).map_or(blob.len(), |at| at.min(blob.len()));
        Ok(blob.get(within(range.start)..within(range.end)).unwrap_or_default().to_vec())
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        let blobs = self.read();
        let start = match from {
            Some(from) if from.as_str() >= prefix => Bound::Included(from.as_str()),
            _ => Bound::Included(prefix),
        };
        let mut page = Page::default();
        for (text, blob) in blobs.range::<str, _>((start, Bound::Unbounded)) {
            if !text.starts_with(prefix) {
                break;
            }
            if page.blobs.len() >= limit.max(1) {
                page.next = Some(name_of(text));
                break;
            }
            let len = u64::try_from(blob.bytes.len()).expect("a length in memory fits 64 bits");
            page.blobs.push(BlobInfo { name: name_of(text), len, modified: blob.modified, tier: None });
        }
        Ok(page)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.write().remove(name.as_str());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    fn name(text: &str) -> BlobName {
        BlobName::parse(text).expect("a valid name")
    }

    #[test]
    fn conforms() {
        conformance::check(&|| {
            let store = MemoryStore::new();
            Box::new(move || Box::new(store.clone()))
        });
        conformance::check_canaries(&MemoryStore::new());
    }

    #[test]
    fn a_copy_does_not_see_later_changes() {
        let store = MemoryStore::new();
        store.put_new(&name("config"), b"1").unwrap();
        let copy = store.copied();
        store.overwrite(&name("config"), b"2");
        store.put_new(&name("keys/a"), b"3").unwrap();
        assert_eq!(copy.names(), [name("config")]);
        assert_eq!(copy.get(&name("config"), None).unwrap(), b"1");
        assert_eq!(store.get(&name("config"), None).unwrap(), b"2");
    }
}
