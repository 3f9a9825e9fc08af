//! Snapshots: what they are, and reading the decisions that tell of them.

mod parent;
mod query;
mod selector;
mod tombstones;

pub(crate) use parent::{Newest, Parents, descends, given, newest};
pub use query::{Query, each, list, matching};
pub(crate) use query::{each_batch, try_each};
pub use selector::{Selector, find};
pub(crate) use tombstones::{is_forgotten, tombstoned, tombstoned_sessions};

use crate::error::EngineError;
use crate::repository::{Repository, get_sealed};
use crate::store::StoreError;
use repo_format::{BlobName, Commit, Decision, DecisionName, Disk, SessionId};
use std::collections::BTreeSet;

/// Decisions or tombstones that are read at the same time: each is a round trip to a far store.
const READ_THREADS: usize = 32;

/// A committed session that was not forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The name of its decision.
    pub name: DecisionName,
    /// Its content.
    pub commit: Commit,
}

impl Snapshot {
    /// Its id.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.name.session
    }

    /// One of its disks; the only one if `key` is nothing.
    ///
    /// # Errors
    /// [`EngineError::NoSuchDisk`] or [`EngineError::DiskNotNamed`].
    pub fn disk(&self, key: Option<&str>) -> Result<&Disk, EngineError> {
        let disks = &self.commit.disks;
        let found = || disks.iter().map(|disk| disk.key.clone()).collect();
        match key {
            Some(key) => disks
                .iter()
                .find(|disk| disk.key == key)
                .ok_or_else(|| EngineError::NoSuchDisk { wanted: key.to_owned(), found: found() }),
            None => match disks.as_slice() {
                [disk] => Ok(disk),
                _ => Err(EngineError::DiskNotNamed { found: found() }),
            },
        }
    }
}

/// A blob that could not be read, and why.
pub type UnreadableBlob = (BlobName, EngineError);

/// Snapshots, and the decisions that could not be read.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Valid roots, the oldest first (by time, then id).
    pub snapshots: Vec<Snapshot>,
    /// Damaged decisions.
    pub unreadable: Vec<UnreadableBlob>,
    /// What tombstones forget.
    pub forgotten: BTreeSet<DecisionName>,
    /// Sessions that were aborted.
    pub aborted: BTreeSet<SessionId>,
    /// Sessions that repacked.
    pub repacked: BTreeSet<SessionId>,
}

/// Reads one decision; nothing if there is none.
pub(crate) fn read(
    repository: &Repository<'_>,
    name: &DecisionName,
) -> Result<Option<Decision>, EngineError> {
    let blob = name.blob();
    match get_sealed(repository.store(), &blob) {
        Ok(bytes) => {
            let decision = Decision::open(repository.keys(), name, &bytes);
            Ok(Some(decision.map_err(EngineError::damaged(&blob))?))
        }
        Err(EngineError::Store(StoreError::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}
