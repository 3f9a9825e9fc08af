//! What is asked of a store, by verb and by what the names are of; and how long each request takes, if that is wanted.

use keepstone_engine::store::{BlobStore, Page, Put, StoreError};
use repo_format::BlobName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::{AddAssign, Range, Sub};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Requests, failed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(crate) put: u64,
    pub(crate) get: u64,
    /// Listings that were begun, and the names that they gave: a service gives some thousand in each page.
    pub(crate) list: u64,
    pub(crate) names: u64,
    pub(crate) delete: u64,
    pub(crate) put_bytes: u64,
    pub(crate) get_bytes: u64,
}

impl AddAssign for Asked {
    fn add_assign(&mut self, other: Self) {
        self.put += other.put;
        self.get += other.get;
        self.list += other.list;
        self.names += other.names;
        self.delete += other.delete;
        self.put_bytes += other.put_bytes;
        self.get_bytes += other.get_bytes;
    }
}

impl Sub for Asked {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            put: self.put - earlier.put,
            get: self.get - earlier.get,
            list: self.list - earlier.list,
            names: self.names - earlier.names,
            delete: self.delete - earlier.delete,
            put_bytes: self.put_bytes - earlier.put_bytes,
            get_bytes: self.get_bytes - earlier.get_bytes,
        }
    }
}

/// A store that counts.
pub(crate) struct Metered<S> {
    inner: S,
    asked: Mutex<BTreeMap<&'static str, Asked>>,
    /// What a read takes at least, as if the store were far away.
    latency: Duration,
}

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, latency: Duration) -> Self {
        Self { inner, asked: Mutex::default(), latency }
    }

    /// The requests so far, by what they were about.
    pub(crate) fn by_kind(&self) -> BTreeMap<&'static str, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Asked {
        let mut all = Asked::default();
        self.by_kind().into_values().for_each(|asked| all += asked);
        all
    }

    fn count(&self, name: &str, asked: Asked) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner).entry(kind(name)).or_default() += asked;
    }
}

/// What names are of that begin so.
fn kind(name: &str) -> &'static str {
    match name.split('/').next() {
        Some("d") => "data packs",
        Some("m") => "map packs",
        Some("i") => "indexes",
        Some("s") => "intents",
        Some("r") => "decisions",
        Some("f") => "tombstones",
        Some("p") => "pins",
        Some("gc") => "generations",
        Some("k") => "repack records",
        _ => "config and keys",
    }
}

impl<S: BlobStore> BlobStore for Metered<S> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.count(name.as_str(), Asked { put: 1, put_bytes: bytes.len() as u64, ..Asked::default() });
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        if !self.latency.is_zero() {
            std::thread::sleep(self.latency);
        }
        let bytes = self.inner.get(name, range);
        let get_bytes = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.count(name.as_str(), Asked { get: 1, get_bytes, ..Asked::default() });
        bytes
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        let page = self.inner.list(prefix, from, limit)?;
        let list = u64::from(from.is_none());
        self.count(prefix, Asked { list, names: page.blobs.len() as u64, ..Asked::default() });
        Ok(page)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.count(name.as_str(), Asked { delete: 1, ..Asked::default() });
        self.inner.delete(name)
    }
}
