//! Where a backup reads a disk from.

mod changes;
mod memory;
mod nbd;
mod raw;
mod snapshot;

pub use changes::{ChangesError, ChangesFile, WithChanges};
pub use memory::MemoryDisk;
pub use nbd::NbdDisk;
pub use raw::{ImageError, RawImage};
pub use snapshot::SnapshotDisk;

use crate::Extent;
use crate::vsphere::changes::Doubt;
use repo_format::SessionId;
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
    /// The same, as something tells that may be wrong: a part of it is looked at.
    SaidZero {
        /// Why changes since the point asked for are not known.
        full_reason: Option<FullReason>,
    },
}

/// The point in time that changes are asked since: what the parent snapshot says of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since<'a> {
    /// The change id that it recorded.
    pub change_id: Option<&'a str>,
    /// The disk's length then, in bytes.
    pub size: u64,
    /// The snapshot's properties, in their order.
    pub properties: &'a [(String, String)],
}

impl Since<'_> {
    /// A property of the snapshot.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }
}

/// A range of a disk to read, and where its bytes go.
#[derive(Debug)]
pub struct ReadPart<'a> {
    /// The first byte's place on the disk.
    pub offset: u64,
    /// What is filled, from its start to its end.
    pub buffer: &'a mut [u8],
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
    /// The changes are counted from a snapshot that the new one does not build on.
    NotAncestor {
        /// The snapshot that they count from.
        since: SessionId,
    },
    /// Changes that should count from the newest snapshot may count from a later session, which failed, was forgotten or
    /// has not ended.
    LaterSession {
        /// The session.
        session: SessionId,
    },
    /// The disk had another size, and change tracking may not have survived that.
    Resized {
        /// Its size in the parent, in bytes.
        before: u64,
        /// Its size now.
        after: u64,
    },
    /// What vSphere tells of the changes cannot be trusted.
    ChangeTracking(Doubt),
    /// The server does not offer the dirty bitmap that was named.
    NoBitmap {
        /// The bitmap's name.
        bitmap: String,
    },
}

impl FullReason {
    /// Whether change tracking was there to be used and could not be.
    #[must_use]
    pub fn is_lost_tracking(&self) -> bool {
        !matches!(self, Self::NoParent | Self::Requested | Self::NoChangeTracking)
    }
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
            Self::NotAncestor { since } => {
                write!(
                    formatter,
                    "the changes count from snapshot {since}, which the last snapshot does not build on"
                )
            }
            Self::LaterSession { session } => write!(
                formatter,
                "session {session} came after the last snapshot and failed, was forgotten or has not ended, so the \
                 changes may count from it"
            ),
            Self::Resized { before, after } => {
                write!(formatter, "the disk had {before} bytes in the last snapshot and has {after} now")
            }
            Self::ChangeTracking(doubt) => doubt.fmt(formatter),
            Self::NoBitmap { bitmap } => write!(formatter, "the server has no dirty bitmap {bitmap:?}"),
        }
    }
}

/// A disk that a backup reads.
pub trait DiskSource: Send + Sync {
    /// The disk's length in bytes. It does not change during a backup.
    fn size(&self) -> u64;

    /// The areas that may have changed since the point of a snapshot; with `None`, the allocated areas.
    ///
    /// # Errors
    /// When the source cannot be asked. Not knowing the changes is no error: see [`Outside::Zero`].
    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas>;

    /// Fills the buffers of all parts; called from several threads at once. Parts come in the order of the disk, and
    /// do not overlap. A source that is far away should ask for many of them at a time.
    ///
    /// # Errors
    /// When some bytes cannot be read, or the disk turns out shorter than [`DiskSource::size`].
    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()>;

    /// Confirms, when all has been read, that the disk was the same all along, as far as the source can tell.
    ///
    /// # Errors
    /// When it was not, or when that cannot be found out. Nothing is committed then.
    fn check_unchanged(&self) -> io::Result<()>;
}

/// Fills parts one after another, for a source that waits for nobody.
///
/// # Errors
/// The first that `read_at` gives.
pub fn read_each(
    parts: &mut [ReadPart<'_>],
    read_at: impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    parts.iter_mut().try_for_each(|part| read_at(part.offset, part.buffer))
}
