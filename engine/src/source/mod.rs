//! Where a backup reads a disk from.

mod changes;
mod memory;
mod raw;

pub use changes::{ChangesError, ChangesFile, WithChanges};
pub use memory::MemoryDisk;
pub use raw::{ImageError, RawImage};

use crate::Extent;
use std::fmt;
use std::io;

/// What a source says about the change since an earlier point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedAreas {
    /// Areas that may differ, sorted, disjoint, within the disk.
    pub areas: Vec<Extent>,
    /// What is true of every byte outside the areas.
    pub outside: Outside,
    /// The change id of this point, for the next backup.
    pub change_id: Option<String>,
}

/// What is true of the bytes outside changed areas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// They are as they were at the point asked for.
    Unchanged,
    /// They are zero (unallocated): the answer to a question without `since`, or to one that could not be
    /// answered, with the reason if it was asked.
    Zero {
        /// Why changes since the point asked for are not known.
        full_reason: Option<FullReason>,
    },
}

/// Why a disk is read in full although a parent exists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FullReason {
    /// There is no snapshot of this disk to build on.
    NoParent,
    /// The operator asked for it.
    Requested,
    /// The source has no change tracking (a plain image without a changes file).
    NoChangeTracking,
    /// The changes are counted from another point than the parent recorded.
    OtherSince {
        /// The change id that the parent recorded.
        parent: Option<String>,
        /// The one that the changes count from.
        since: Option<String>,
    },
}

impl fmt::Display for FullReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "nothing".to_owned());
        match self {
            Self::NoParent => formatter.write_str("there is no earlier snapshot of this disk"),
            Self::Requested => formatter.write_str("a full backup was asked for"),
            Self::NoChangeTracking => formatter.write_str("changes since the last snapshot are not known"),
            Self::OtherSince { parent, since } => write!(
                formatter,
                "the changes count from {}, but the last snapshot recorded {}",
                id(since),
                id(parent)
            ),
        }
    }
}

/// A disk that a backup reads.
pub trait DiskSource: Send + Sync {
    /// The disk's length in bytes. It does not change during a backup.
    fn size(&self) -> u64;

    /// The areas that may have changed since the point at which a snapshot recorded the change id `since`;
    /// with `None`, the allocated areas.
    ///
    /// # Errors
    /// When the source cannot be asked. Not knowing the changes is no error: see [`Outside::Zero`].
    fn changed_areas(&self, since: Option<&str>) -> io::Result<ChangedAreas>;

    /// Fills `buffer` from `offset`; called from several threads at once.
    ///
    /// # Errors
    /// When the bytes cannot be read, or the disk turns out shorter than [`DiskSource::size`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Confirms, when all has been read, that the disk was the same all along, as far as the source can tell.
    ///
    /// # Errors
    /// When it was not, or when that cannot be found out. Nothing is committed then.
    fn check_unchanged(&self) -> io::Result<()>;
}
