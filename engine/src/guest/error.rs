//! How reading a guest's files fails.

use super::contents::System;
use super::names::shown;
use crate::error::EngineError;
use std::error::Error;
use std::io;
use std::path::PathBuf;

/// Why a guest's files cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The disk itself cannot be read.
    #[error(transparent)]
    Disk(#[from] EngineError),
    /// There is neither a partition table nor a file system.
    #[error("the disk has no partition table and no file system that is known")]
    NoVolumes,
    /// Both copies of the partition table are damaged.
    #[error("both copies of the disk's partition table are damaged")]
    TableDamaged,
    /// There is no such volume.
    #[error("the disk has no volume {wanted}; it has {}", list(found))]
    NoSuchVolume {
        /// The number asked for.
        wanted: u32,
        /// Those that there are.
        found: Vec<u32>,
    },
    /// No volume holds a file system that is read.
    #[error("no volume of the disk holds a file system that is read here: {}", held(found))]
    NothingRead {
        /// The volumes, and what they hold.
        found: Vec<(u32, System)>,
    },
    /// What a volume holds is not read.
    #[error("volume {volume} holds {system}, which is not read here")]
    NotRead {
        /// The volume.
        volume: u32,
        /// What it holds.
        system: System,
    },
    /// A path is in several volumes.
    #[error("{path} is in volumes {}", list(volumes))]
    SeveralVolumes {
        /// The path.
        path: String,
        /// The volumes.
        volumes: Vec<u32>,
    },
    /// There is no such file.
    #[error("there is no {path}")]
    NotFound {
        /// The path, or the part of it that is missing.
        path: String,
    },
    /// What would have to be a directory is none.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// What would have to be a file is a directory.
    #[error("{path} is a directory")]
    IsADirectory {
        /// The path.
        path: String,
    },
    /// It has no content: a device, a pipe or a socket.
    #[error("{path} is neither a file nor a directory")]
    Special {
        /// The path.
        path: String,
    },
    /// A symbolic link leads to others without end.
    #[error("{path} leads through too many symbolic links")]
    TooManyLinks {
        /// The path.
        path: String,
    },
    /// A file system is not what it should be.
    #[error("the {system} file system is damaged")]
    Damaged {
        /// What it is.
        system: System,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A file system has a feature that is not read.
    #[error("the {system} file system has a feature that is not read here")]
    Unsupported {
        /// What it is.
        system: System,
        /// The feature.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The target cannot be written.
    #[error("could not {action} {}", path.display())]
    Target {
        /// "create", "write", "rename", ...
        action: &'static str,
        /// What was to be written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is wrong with a file system, or not read of it, where no crate says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("its geometry is not possible")]
    Geometry,
    #[error("it has more block groups than are read")]
    Groups,
    #[error("it has a larger allocation table than is read")]
    AllocationTable,
    #[error("a structure is cut off")]
    CutOff,
    #[error("a file has less data than it says")]
    Short,
    #[error("an extension of a record belongs to another file")]
    Extension,
    #[error("pieces of a file are missing")]
    Gap,
    #[error("a directory has more than a million entries")]
    Entries,
    #[error("a directory has no index")]
    NoIndex,
    #[error("a directory leads back to itself")]
    Loop,
    #[error("a record of a deleted file is in use")]
    Deleted,
    #[error("a symbolic link has no target")]
    NoTarget,
    #[error("a symbolic link is longer than any can be")]
    LongLink,
    #[error("it is something else than its directory says")]
    OtherKind,
    #[error("a file has more records than are read")]
    Records,
    #[error("the reader gave up")]
    Panicked,
    #[error("the file has no extents, and a hole that is larger than what one block of its map covers")]
    LargeHole,
    #[error("the file is encrypted")]
    Encrypted,
    #[error("the file was compressed for a whole system (CompactOS), or its content is elsewhere")]
    Elsewhere,
    #[error("the file is compressed in units of an unknown length")]
    CompressionUnit,
    #[error("its pieces are of an unknown length")]
    RecordLen,
}

impl Fault {
    pub(super) fn damaged(self, system: System) -> GuestError {
        GuestError::Damaged { system, source: self.into() }
    }

    pub(super) fn unsupported(self, system: System) -> GuestError {
        GuestError::Unsupported { system, source: self.into() }
    }
}

impl GuestError {
    /// Whether it tells of one file, and others can still be read.
    #[must_use]
    pub fn is_of_one_file(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_damage(),
            Self::Damaged { .. }
            | Self::Unsupported { .. }
            | Self::Special { .. }
            | Self::NotFound { .. } => true,
            _ => false,
        }
    }

    pub(super) fn not_found(path: &[u8]) -> Self {
        Self::NotFound { path: shown(path) }
    }
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn held(found: &[(u32, System)]) -> String {
    found.iter().map(|(number, system)| format!("{number} {system}")).collect::<Vec<_>>().join(", ")
}
