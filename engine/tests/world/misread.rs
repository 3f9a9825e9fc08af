//! A store of which one read does not give what is there.

use keepstone_engine::BlobStore;
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use repo_format::BlobName;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a read gives instead.
#[derive(Clone, Copy, Debug)]
pub enum Misreading {
    /// A bit of it is another.
    Flipped,
    /// It ends in the middle.
    Short,
}

pub struct Misread {
    inner: MemoryStore,
    misreading: Misreading,
    prefix: &'static str,
    at: u64,
    reads: AtomicU64,
}

impl Misread {
    /// Of the reads of blobs whose names begin with a prefix, the one with that number is misread.
    pub fn new(inner: &MemoryStore, misreading: Misreading, (prefix, at): (&'static str, u64)) -> Self {
        Self { inner: inner.clone(), misreading, prefix, at, reads: AtomicU64::new(0) }
    }

    /// Whether the read was made.
    pub fn has_happened(&self) -> bool {
        self.reads.load(Relaxed) > self.at
    }
}

impl BlobStore for Misread {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        let mut bytes = self.inner.get(name, range)?;
        if name.as_str().starts_with(self.prefix) && self.reads.fetch_add(1, Relaxed) == self.at {
            let middle = bytes.len() / 2;
            match self.misreading {
                Misreading::Flipped => bytes[middle] ^= 1,
                Misreading::Short => bytes.truncate(middle),
            }
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
