//! Where blobs are kept.

pub mod azure;
pub mod conformance;
mod fault;
mod local;
mod memory;
mod recording;
mod traffic;

pub use fault::{Fault, FaultStore, LateCall};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use recording::{RecordingStore, Requests};
pub use traffic::{PerTier, Traffic};

use repo_format::{BlobKind, BlobName};
use std::ops::Range;
use std::sync::Arc;

/// What became of a [`BlobStore::put_new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The blob was created by this call.
    Created,
    /// The name existed, with exactly these bytes (for example from an earlier call whose answer was lost).
    Identical,
    /// The name existed, with other bytes; nothing was changed.
    Different,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// The name. A listing shows every blob, also ones whose names are no names of the format.
    pub name: BlobName,
    /// Length in bytes.
    pub len: u64,
    /// When it was created, in milliseconds since 1970 by the store's own clock. Nothing that must hold depends on
    /// it (PROTOCOL S4).
    pub modified: u64,
    /// The tier that it is kept in, where the store has tiers and its listing tells.
    pub tier: Option<StoredTier>,
}

/// Where a blob is kept now. A rule of the account may have moved it since it was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredTier {
    /// For data that is read now and then.
    Hot,
    /// Cheaper to keep and dearer to read; kept at least 30 days.
    Cool,
    /// Cheaper still to keep; kept at least 90 days.
    Cold,
    /// Not to be read before it was brought back, which takes hours; kept at least 180 days.
    Archive,
}

/// What is in the container and is no blob: it bears a name that no blob can have, or is no file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// Its name, with bytes that are no text written out. Names of directories end with a slash.
    pub name: String,
    /// What it is, as in "a symbolic link".
    pub what: &'static str,
}

/// One page of a listing, in ascending order of names. It may be shorter than the limit, or empty, and still
/// have a `next`; only a page without `next` is the last.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Page {
    /// The blobs.
    pub blobs: Vec<BlobInfo>,
    /// Where to go on: greater than every name of the page, not necessarily the name of a blob; `None` at the
    /// end.
    pub next: Option<BlobName>,
    /// What else begins with the prefix and has its place on this page. It is only told of: it is never followed,
    /// read or deleted.
    pub foreign: Vec<Foreign>,
}

/// A failed store call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no blob of that name.
    #[error("blob {name} does not exist")]
    NotFound {
        /// The blob.
        name: BlobName,
    },
    /// The store or the network failed. A create may or may not have been applied.
    #[error("could not {action} {object}")]
    Io {
        /// What was being done: "create", "read", "list", "delete", "open".
        action: &'static str,
        /// The blob, prefix or path.
        object: String,
        /// Why.
        source: std::io::Error,
    },
    /// A service refused, failed, or could not be reached. A create may or may not have been applied.
    #[error("could not {action} {object}")]
    Service {
        /// What was being done, as in [`StoreError::Io`].
        action: &'static str,
        /// The blob or prefix, with where it is.
        object: String,
        /// Why.
        source: azure::ServiceError,
    },
    /// The place cannot hold a repository (a network file system, say).
    #[error("{path} cannot hold a repository: {reason}")]
    Unsuitable {
        /// The path.
        path: String,
        /// Why.
        reason: &'static str,
    },
}

impl StoreError {
    /// Whether it tells that a blob is gone, or that something else is in its place (an [`StoreError::Io`] of the kind
    /// `InvalidData`), and not of a store that fails. A key slot that is not there is none of a repository's loss.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::NotFound { name } => !matches!(name.kind(), Some(BlobKind::KeySlot(_))),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::InvalidData,
            Self::Service { .. } | Self::Unsuitable { .. } => false,
        }
    }

    /// Whether the store keeps the blob from being deleted for now, whoever asks: by a policy of immutability or a legal
    /// hold in Azure, or because the file is immutable. It is no failure: the same delete may succeed later.
    #[must_use]
    pub fn is_refused_by_retention(&self) -> bool {
        match self {
            Self::Service { source, .. } => source.answer().is_some_and(azure::Answer::tells_of_retention),
            // unlink(2): EPERM is an immutable file, EACCES is somebody who may not.
            Self::Io { action: "delete", source, .. } => {
                source.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
            }
            Self::Io { .. } | Self::NotFound { .. } | Self::Unsuitable { .. } => false,
        }
    }
}

/// A container of write-once blobs. All methods may be called from many threads at once.
///
/// Contract (PROTOCOL S1 to S3, checked by [`conformance`]): creating is atomic, at most one creator of a name
/// succeeds; after a create or delete has succeeded every later read and list page shows it; a listing of
/// several pages is not a snapshot; a call that failed may have been applied, or be applied later.
pub trait BlobStore: Send + Sync {
    /// Creates a blob if its name is free, durably, and tells what is there otherwise.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the blob may exist afterwards. Calling again settles it.
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError>;

    /// Reads a blob, or the part of it within `range`; a range that ends behind the blob gives what there is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] or [`StoreError::Io`].
    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError>;

    /// Lists the blobs whose names begin with `prefix` and are not before `from`, at most `limit` of them, at
    /// least 1.
    ///
    /// A prefix that is the whole name of a blob is answered with that blob first, and cheaply: it is how the
    /// presence and size of one blob are asked for.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError>;

    /// Deletes a blob; deleting one that does not exist succeeds.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the blob may be gone.
    fn delete(&self, name: &BlobName) -> Result<(), StoreError>;
}

macro_rules! forward {
    ($pointer:ty) => {
        impl<S: BlobStore + ?Sized> BlobStore for $pointer {
            fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
                (**self).put_new(name, bytes)
            }

            fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
                (**self).get(name, range)
            }

            fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
                (**self).list(prefix, from, limit)
            }

            fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
                (**self).delete(name)
            }
        }
    };
}

forward!(&S);
forward!(Box<S>);
forward!(Arc<S>);
