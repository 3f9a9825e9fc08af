//! The store of a job, and what is asked of it.

use crate::job::{Counts, Job, Place};
use anyhow::Context as _;
use keepstone_benches::files::cache_files;
use keepstone_engine::BlobStore;
use keepstone_engine::Entropy;
use keepstone_engine::store::azure::{AzurePlace, AzureSettings, AzureStore, Credential, Secret};
use keepstone_engine::store::{LocalStore, Page, Put, RecordingStore, StoreError};
use keepstone_peers::azurite::PRIMARY;
use repo_format::BlobName;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Runtime;

/// The container of the repository.
pub(crate) const REPOSITORY_CONTAINER: &str = "repository";
/// The container that the plain client puts packs into.
pub(crate) const BARE_CONTAINER: &str = "bare";

/// A part of a blob that was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PartRead {
    pub(crate) blob: String,
    /// All of it where there is none.
    pub(crate) range: Option<Range<u64>>,
}

/// A store that takes down what is read.
struct Noting {
    inner: Box<dyn BlobStore>,
    reads: Mutex<Vec<PartRead>>,
}

impl BlobStore for Noting {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        let read = PartRead { blob: name.to_string(), range: range.clone() };
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// The store of a job.
pub(crate) struct JobStore {
    store: RecordingStore<Noting>,
    azure: Option<(Arc<AzureStore>, Runtime)>,
}

impl JobStore {
    /// Opens it, or makes it if it is to hold a first backup.
    pub(crate) fn open(job: &Job, is_new: bool) -> anyhow::Result<Self> {
        let (inner, azure): (Box<dyn BlobStore>, _) = match &job.place {
            Place::Local => {
                let path = local_directory(job);
                if !is_new {
                    cache_files(&path)?;
                }
                let store = if is_new { LocalStore::create(&path) } else { LocalStore::open(&path) };
                (Box::new(store?), None)
            }
            Place::Azure { endpoint, .. } => {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                let store = Arc::new(AzureStore::new(runtime.handle().clone(), settings(endpoint)?)?);
                (Box::new(Arc::clone(&store)), Some((store, runtime)))
            }
        };
        Ok(Self { store: RecordingStore::new(Noting { inner, reads: Mutex::default() }), azure })
    }

    pub(crate) fn blobs(&self) -> &dyn BlobStore {
        &self.store
    }

    /// What was asked for so far.
    pub(crate) fn counts(&self) -> Counts {
        let asked = self.store.requests();
        let (put, get, list) = (asked.put, asked.get, asked.list);
        let Some((store, _)) = &self.azure else {
            let (out_bytes, in_bytes) = (asked.put_bytes, asked.get_bytes);
            return Counts { put, get, list, out_bytes, in_bytes, ..Counts::default() };
        };
        let traffic = store.traffic();
        Counts {
            put: traffic.writes.total(),
            get: traffic.reads.total(),
            list: traffic.lists,
            retries: traffic.retries,
            out_bytes: traffic.bytes_out,
            in_bytes: traffic.bytes_in,
            most_in_flight: traffic.most_in_flight,
        }
    }

    /// Takes what was read so far.
    pub(crate) fn take_reads(&self) -> Vec<PartRead> {
        let mut reads = self.store.inner().reads.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *reads)
    }
}

impl Counts {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            put: self.put - earlier.put,
            get: self.get - earlier.get,
            list: self.list - earlier.list,
            retries: self.retries - earlier.retries,
            out_bytes: self.out_bytes - earlier.out_bytes,
            in_bytes: self.in_bytes - earlier.in_bytes,
            most_in_flight: self.most_in_flight,
        }
    }

    pub(crate) fn all(&self) -> u64 {
        self.put + self.get + self.list
    }
}

/// Where a local repository is.
pub(crate) fn local_directory(job: &Job) -> PathBuf {
    job.directory.join("repository")
}

fn settings(endpoint: &str) -> anyhow::Result<AzureSettings> {
    let place = format!("azblob://{}/{REPOSITORY_CONTAINER}?endpoint={endpoint}", PRIMARY.name);
    let place = AzurePlace::parse(&place).context("it is no place in Azure")??;
    let credential = Credential::AccountKey(Secret::new(PRIMARY.key.to_owned()));
    Ok(AzureSettings::new(place, credential, Entropy::new([1; 32])))
}
