//! Files under temporary names.
//!
//! A file in `.tmp` is locked by its process as long as it is being written; one that can be locked is a
//! leftover. So that a file between its creation and its lock is not taken for one, files are created under a
//! shared lock on `.tmp` and removed under an exclusive one.

use super::root::{Root, TEMPORARY_DIR};
use crate::direct::{AlignedPool, write_new};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Files that this process has begun to write.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// What became of a [`Temporary::link_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    /// The file has that name now.
    Done,
    /// The name exists.
    Exists,
    /// The temporary file or the directory was removed meanwhile.
    Vanished,
}

/// A locked file in `.tmp`, removed on drop.
#[derive(Debug)]
pub(super) struct Temporary {
    dir: OwnedFd,
    name: String,
    file: File,
}

impl Temporary {
    /// Creates a new empty file; makes `.tmp` if it is not there.
    pub(super) fn create(root: &Root) -> io::Result<Self> {
        let dir = match root.dir(TEMPORARY_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdirat(root.dir("")?, TEMPORARY_DIR, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => root.dir(TEMPORARY_DIR)?,
                    Err(error) => return Err(error.into()),
                }
            }
            result => result?,
        };
        rustix::fs::flock(&dir, FlockOperation::LockShared)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (name, file) = loop {
            let name = format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Relaxed));
            match rustix::fs::openat(&dir, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => break (name, File::from(file)),
                // Of an earlier process with the same id, or of one in another container.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let temporary = Self { dir, name, file };
        rustix::fs::flock(&temporary.file, FlockOperation::NonBlockingLockExclusive)?;
        rustix::fs::flock(&temporary.dir, FlockOperation::Unlock)?;
        Ok(temporary)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes the whole content, durably.
    pub(super) fn write(&self, bytes: &[u8], pool: &AlignedPool) -> io::Result<()> {
        write_new(&self.file, bytes, pool)?;
        self.file.sync_all()
    }

    /// Gives the file a second name in another directory, unless that exists.
    ///
    /// Fails with [`io::ErrorKind::Unsupported`] if the file system has no hard links.
    pub(super) fn link_to(&self, dir: impl AsFd, name: &str) -> io::Result<Linked> {
        match rustix::fs::linkat(&self.dir, &self.name, dir, name, AtFlags::empty()) {
            Ok(()) => Ok(Linked::Done),
            Err(Errno::EXIST) => Ok(Linked::Exists),
            Err(Errno::NOENT) => Ok(Linked::Vanished),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // One that stays is removed when the store is opened the next time.
        let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

/// Removes the temporary files of dead processes, as far as that is possible and allowed.
pub(super) fn remove_leftovers(root: &Root) {
    let Ok(dir) = root.dir(TEMPORARY_DIR) else { return };
    // If somebody is creating a file just now, the next open will do.
    if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let Ok(entries) = rustix::fs::Dir::read_from(&dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&dir, name, flags, Mode::empty()) else { continue };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
        }
    }
}
