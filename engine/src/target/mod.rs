//! Where a restore writes a disk to.

mod blocks;
mod device;
mod file;
mod identity;
mod image;
mod memory;
mod nbd;
mod order;
mod output;
mod partial;
mod qcow2;
mod stream;
mod veil;
mod vhd;
mod vmdk;

pub use device::DeviceTarget;
pub use file::{FileTarget, Incomplete};
pub use identity::ImageIdentity;
pub use image::ImageTarget;
pub use memory::MemoryTarget;
pub use nbd::NbdTarget;
pub use partial::{Existing, partial_path};
pub use qcow2::Qcow2Target;
pub use stream::StreamTarget;
pub(crate) use veil::{Below, Veil};
pub use vhd::{VhdFooter, VhdTarget};
pub use vmdk::{VmdkSettings, VmdkTarget};

use std::io;
use std::path::Path;

/// A disk that a restore writes. Ranges come in any order, never overlapping, from several threads at once;
/// every byte of the disk is covered by exactly one call of `write_at` or `zero_at`.
pub trait DiskTarget: Send + Sync {
    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes `length` bytes from `offset` read as zeros.
    ///
    /// # Errors
    /// When it cannot be done.
    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes durable what was written before; called now and then, while other threads write.
    ///
    /// # Errors
    /// When some of that may be lost.
    fn flush(&self) -> io::Result<()>;

    /// Makes the disk complete and durable; called once, at the end.
    ///
    /// # Errors
    /// When some of what was written may be lost.
    fn finish(&self) -> io::Result<()>;
}

/// Why a target cannot be used or was used wrongly; the payload of the [`io::Error`]s of this module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The file exists and was not to be replaced.
    #[error("{path} already exists")]
    Exists {
        /// The path.
        path: String,
    },
    /// Only regular files are replaced, only block devices written in place.
    #[error("{path} is not a {wanted}")]
    WrongKind {
        /// The path.
        path: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A file is in the place of the partial file, and does not look like what a restore left there.
    #[error("{path} exists, and is no file that an interrupted restore left")]
    NotOurs {
        /// The path of the partial file.
        path: String,
    },
    /// Another restore is writing the same target.
    #[error("another restore is writing {path}")]
    Busy {
        /// The path of its partial file.
        path: String,
    },
    /// The device holds a mounted file system.
    #[error("{path} is mounted at {mounted_at}")]
    Mounted {
        /// The device.
        path: String,
        /// The mount point.
        mounted_at: String,
    },
    /// The device is held by the kernel or by another program: a mounted partition, swap, LVM, RAID, a guest.
    #[error("{path} is in use")]
    InUse {
        /// The device.
        path: String,
    },
    /// The device is smaller than the disk.
    #[error("{path} has {device_bytes} bytes, the disk has {disk_bytes}")]
    TooSmall {
        /// The device.
        path: String,
        /// Its size.
        device_bytes: u64,
        /// The disk's size.
        disk_bytes: u64,
    },
    /// The disk is larger than its format allows.
    #[error("a {format} image holds at most {bytes_max} bytes, the disk has {disk_bytes}")]
    TooLarge {
        /// The format.
        format: &'static str,
        /// The largest disk in it.
        bytes_max: u64,
        /// The disk's size.
        disk_bytes: u64,
    },
    /// What is in the disk takes more room than a file of its format can have.
    #[error(
        "the content of the disk does not fit into a {format} image, which has at most {bytes_max} bytes"
    )]
    TooMuch {
        /// The format.
        format: &'static str,
        /// The longest file of it.
        bytes_max: u64,
    },
    /// A write beyond the disk's end, too early for a stream, or to a place that was written before.
    #[error("bytes {offset} to {end} cannot be written: {reason}")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// First byte behind.
        end: u64,
        /// Why.
        reason: &'static str,
    },
    /// Not every byte of the disk was written.
    #[error("only {written} of {disk_bytes} bytes were written")]
    Incomplete {
        /// Bytes that were written in order.
        written: u64,
        /// The disk's size.
        disk_bytes: u64,
    },
    /// An operation on the target failed.
    #[error("could not {action} {path}")]
    Io {
        /// "create", "open", "write", "zero", "sync", "rename".
        action: &'static str,
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl From<TargetError> for io::Error {
    fn from(error: TargetError) -> Self {
        let kind = match &error {
            TargetError::Exists { .. } | TargetError::NotOurs { .. } => io::ErrorKind::AlreadyExists,
            TargetError::Busy { .. } | TargetError::Mounted { .. } | TargetError::InUse { .. } => {
                io::ErrorKind::ResourceBusy
            }
            TargetError::Incomplete { .. } => io::ErrorKind::UnexpectedEof,
            TargetError::TooLarge { .. } | TargetError::TooMuch { .. } => io::ErrorKind::FileTooLarge,
            TargetError::Io { source, .. } => source.kind(),
            TargetError::WrongKind { .. } | TargetError::TooSmall { .. } | TargetError::OutOfRange { .. } => {
                io::ErrorKind::InvalidInput
            }
        };
        Self::new(kind, error)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> TargetError {
    TargetError::Io { action, path: shown(path), source }
}

/// The first byte behind a range of a disk of `size` bytes, if the range lies within it.
fn checked_end(offset: u64, length: u64, size: u64) -> Result<u64, TargetError> {
    let end = offset.saturating_add(length);
    if end > size {
        return Err(TargetError::OutOfRange { offset, end, reason: "they are beyond the end of the disk" });
    }
    Ok(end)
}

/// The length of a buffer as a number of bytes of a disk.
fn len_of(data: &[u8]) -> u64 {
    u64::try_from(data.len()).expect("a length in memory fits 64 bits")
}
