//! The files in a guest's disk: its volumes, their file systems, and what is in these.
//!
//! Nothing is mounted and nothing is written: a disk is read where a file system points to. What a guest wrote may be
//! anything. The file systems are read by other crates, and by little that is ours: [`System::is_read`] says which. What
//! these crates do not promise is made sure of around them:
//!
//! - a question that reads without end is ended, by what it read (`device`);
//! - lengths that they would allocate by are looked at before they see them (`systems`);
//! - a panic in one of them is caught, and the volume is closed then (`tree`).
//!
//! Memory does not depend on the size of a disk: a directory of at most [`ENTRIES_MAX`] entries, a log of XFS of 128 MiB
//! with as much that it changes, or 16 MiB of records of a file of NTFS with the attributes and pieces that they describe
//! is the most that is kept.

mod contents;
mod copy;
mod device;
mod error;
mod fields;
mod names;
mod partitions;
mod systems;
mod tree;
mod volumes;

pub use contents::{Contents, System};
pub use copy::{CopyJob, CopyReport, Depth, Owners, Problem, ProblemKind, copy, write_file};

pub use error::GuestError;
pub use names::shown;
pub use partitions::Table;
pub use systems::{Kind, Metadata, Time};
pub use tree::{Entry, Follow, Tree};
pub use volumes::{Guest, Volume, Volumes, with_guest};

use crate::EngineError;

/// How a disk is read: fills a buffer from an offset.
pub type ReadAt<'d> = dyn Fn(u64, &mut [u8]) -> Result<(), EngineError> + Sync + 'd;

/// Entries of a directory that are read; a larger one is an error.
pub const ENTRIES_MAX: usize = 1 << 20;

/// A disk as a guest sees it: its length, and how to read it.
#[derive(Clone, Copy)]
pub struct GuestDisk<'d> {
    /// The disk's length, in bytes.
    pub size: u64,
    /// Fills a buffer from an offset; the range lies within the disk. One thread calls it, which is not the caller's.
    pub read_at: &'d ReadAt<'d>,
}
