//! `/folder`: the datastore's file is read over HTTPS.

use super::error::{NotFlat, TransportError};
use super::{Reader, descriptor};
use crate::Extent;
use crate::frames::lock;
use crate::source::{ChangedAreas, DiskSource, FullReason, Outside, ReadPart, Since};
use crate::vsphere::client::VCenter;
use crate::vsphere::datastore::DatastorePath;
use crate::vsphere::error::VSphereError;
use crate::vsphere::model::{BackingKind, Datacenter, Power, VirtualDisk};
use std::io;
use std::sync::Mutex;
use std::thread;

/// The longest range that is asked for at a time.
const RANGE_LEN: usize = 1 << 20;
/// Ranges under way for one call: enough that the server has something to do while one is on its way.
const RANGES_AT_ONCE: usize = 4;

/// A disk whose data is one file of its length.
#[derive(Debug)]
pub(super) struct FolderDisk<'v> {
    vcenter: &'v VCenter,
    datacenter: Datacenter,
    file: DatastorePath,
    size: u64,
}

/// Why a file of a datastore cannot be read; the payload of the [`io::Error`]s of `FolderDisk`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The server does not give the bytes.
    #[error("cannot read {file}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: VSphereError,
    },
    /// The file has another length than before.
    #[error("{file} changed its length while it was read, from {before} to {after} bytes")]
    LengthChanged {
        /// The file.
        file: String,
        /// Its length when it was opened, in bytes.
        before: u64,
        /// Its length now.
        after: u64,
    },
}

impl From<FolderError> for io::Error {
    fn from(error: FolderError) -> Self {
        let kind = match &error {
            FolderError::Read { .. } => io::ErrorKind::Other,
            FolderError::LengthChanged { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Opens a disk that no snapshot was made before, so that all of it is in one file.
pub(super) fn open<'v>(
    reader: &Reader<'v, '_>,
    disk: &VirtualDisk,
) -> Result<FolderDisk<'v>, TransportError> {
    let vcenter = reader.waiter.vcenter;
    let file = flat_file(disk)?;
    let found = vcenter.folder_file_len(reader.datacenter, &file).map_err(|source| match source {
        VSphereError::Status { status: 404, .. } => {
            TransportError::NotFlat { file: file.to_string(), why: NotFlat::NoSuchFile }
        }
        source => TransportError::Asking { what: "read the disk's file over HTTPS", source },
    })?;
    if found != disk.capacity_bytes {
        let expected = disk.capacity_bytes;
        return Err(TransportError::OtherSize { place: file.to_string(), found, expected });
    }
    Ok(FolderDisk { vcenter, datacenter: reader.datacenter.clone(), file, size: found })
}

/// Finds out whether a disk's file could be read. That of a disk which a VM writes to is locked until there is a snapshot:
/// then no more is looked at than what it is called.
pub(super) fn check(reader: &Reader<'_, '_>, disk: &VirtualDisk) -> Result<(), TransportError> {
    let is_own = |own: &VirtualDisk| own.backing.file == disk.backing.file;
    if reader.vm.power != Power::Off && reader.vm.disks.iter().any(is_own) {
        return flat_file(disk).map(drop);
    }
    open(reader, disk).map(drop)
}

fn flat_file(disk: &VirtualDisk) -> Result<DatastorePath, TransportError> {
    let file = descriptor(disk)?;
    let refused = |why| TransportError::NotFlat { file: file.to_owned(), why };
    if disk.backing.parent_file.is_some() {
        return Err(refused(NotFlat::Delta));
    }
    if disk.backing.kind != BackingKind::FlatVer2 {
        return Err(refused(NotFlat::OtherFormat));
    }
    DatastorePath::parse(file).and_then(|path| path.flat()).ok_or_else(|| refused(NotFlat::OtherName))
}

impl FolderDisk<'_> {
    fn read_range(&self, start: u64, buffer: &mut [u8]) -> Result<(), FolderError> {
        let read = self.vcenter.get_folder_range(&self.datacenter, &self.file, start, buffer);
        let len = read.map_err(|source| FolderError::Read { file: self.file.to_string(), source })?;
        self.check_len(len)
    }

    fn check_len(&self, after: u64) -> Result<(), FolderError> {
        if after == self.size {
            return Ok(());
        }
        Err(FolderError::LengthChanged { file: self.file.to_string(), before: self.size, after })
    }
}

impl DiskSource for FolderDisk<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let areas = Extent::between(0, self.size).into_iter().collect();
        let full_reason = since.map(|_| FullReason::NoChangeTracking);
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason }, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        let mut ranges: Vec<(u64, &mut [u8])> = Vec::new();
        for part in parts {
            let mut start = part.offset;
            for range in part.buffer.chunks_mut(RANGE_LEN) {
                let len = range.len() as u64;
                ranges.push((start, range));
                start = start.saturating_add(len);
            }
        }
        let threads = ranges.len().min(RANGES_AT_ONCE);
        if threads <= 1 {
            let read = ranges.into_iter().try_for_each(|(start, range)| self.read_range(start, range));
            return Ok(read?);
        }
        let left = Mutex::new(Ok(ranges.into_iter()));
        let read_next = || {
            while let Some((start, range)) = take(&left) {
                if let Err(error) = self.read_range(start, range) {
                    let mut left = lock(&left);
                    // The first failure is told, and ends the others.
                    if left.is_ok() {
                        *left = Err(error);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(read_next);
            }
        });
        let left = left.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(left.map(drop)?)
    }

    fn check_unchanged(&self) -> io::Result<()> {
        let len = self.vcenter.folder_file_len(&self.datacenter, &self.file);
        let len = len.map_err(|source| FolderError::Read { file: self.file.to_string(), source })?;
        Ok(self.check_len(len)?)
    }
}

/// The next range, unless one failed.
fn take<I: Iterator>(left: &Mutex<Result<I, FolderError>>) -> Option<I::Item> {
    lock(left).as_mut().ok()?.next()
}
