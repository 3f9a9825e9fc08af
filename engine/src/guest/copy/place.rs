//! Where copies are made: always by a name in a directory that is open, and no link is followed.
//!
//! So whatever a guest's links lead to, and whatever is put into the target meanwhile, nothing is made outside of it. What
//! is made is complete before it has its name: until then it is called [`PARTIAL`], with a number.

use super::{CopyJob, Owners};
use crate::guest::error::GuestError;
use crate::guest::names::is_name;
use crate::guest::systems::Metadata;
use crate::target::Existing;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod,
    fchown, fsync, ftruncate, futimens, linkat, mkdirat, openat, renameat, renameat_with, symlinkat, syncfs,
    unlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What is not complete is called so.
const PARTIAL: &str = ".keepstone-partial";
/// Names that are tried for it: others are of the guest, or of copies that were killed.
const PARTIALS_TRIED: u32 = 1000;
/// What a mode gives without its owner's rights.
const PERMISSIONS: u32 = 0o777;
const ALL_BITS: u32 = 0o7777;

/// An open directory.
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

fn failed(action: &'static str, path: &Path, error: Errno) -> GuestError {
    GuestError::Target { action, path: path.to_owned(), source: error.into() }
}

/// Whether a target refused something for its name or for what is there, and would take something else.
pub(super) fn is_of_one_file(error: &io::Error) -> bool {
    let of_one = [
        Errno::NAMETOOLONG,
        Errno::INVAL,
        Errno::ILSEQ,
        Errno::EXIST,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::NOTEMPTY,
        Errno::LOOP,
        Errno::FBIG,
    ];
    Errno::from_io_error(error).is_some_and(|error| of_one.contains(&error))
}

impl Directory {
    /// Opens a directory that a user named; here links are followed.
    pub(super) fn open(path: &Path) -> Result<Self, GuestError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|error| failed("open", path, error))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    fn child(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    /// A name that leads nowhere else.
    fn checked<'n>(&self, name: &'n [u8]) -> Result<&'n OsStr, GuestError> {
        if is_name(name) {
            Ok(OsStr::from_bytes(name))
        } else {
            Err(failed("create", &self.child(name), Errno::INVAL))
        }
    }

    /// Makes a directory in this one, or opens the one that is there.
    pub(super) fn make(&self, name: &[u8], existing: Existing) -> Result<Self, GuestError> {
        let path = self.child(name);
        let name = self.checked(name)?;
        // Nobody else may put something into it until it has its mode.
        match mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if existing == Existing::Replace => {}
            Err(error) => return Err(failed("create", &path, error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            openat(&self.fd, name, flags, Mode::empty()).map_err(|error| failed("open", &path, error))?;
        Ok(Self { fd, path })
    }

    /// Begins a file of this name.
    pub(super) fn begin(&self, name: &[u8], existing: Existing) -> Result<Partial<'_>, GuestError> {
        let name = self.checked(name)?.as_bytes();
        self.must_be_free(name, existing)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let (partial, fd) = self.free_name(|partial| openat(&self.fd, partial, flags, mode))?;
        Ok(Partial {
            directory: self,
            fd,
            name: Name { directory: self, partial, is_taken: true },
            wanted: name.to_vec(),
        })
    }

    /// Makes a symbolic link.
    pub(super) fn link(
        &self,
        name: &[u8],
        target: &[u8],
        metadata: &Metadata,
        job: &CopyJob<'_>,
    ) -> Result<(), GuestError> {
        let path = self.child(name);
        let name = self.checked(name)?.as_bytes();
        self.must_be_free(name, job.existing)?;
        let target = OsStr::from_bytes(target);
        let (partial, ()) = self.free_name(|partial| symlinkat(target, &self.fd, partial))?;
        let made = Name { directory: self, partial, is_taken: true };
        let itself = AtFlags::SYMLINK_NOFOLLOW;
        if let (Owners::Guest, Some((user, group))) = (job.owners, metadata.owner) {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            chownat(&self.fd, made.partial.as_str(), Some(user), Some(group), itself)
                .map_err(|error| failed("change the owner of", &path, error))?;
        }
        if let Some(times) = times(metadata) {
            utimensat(&self.fd, made.partial.as_str(), &times, itself)
                .map_err(|error| failed("set the time of", &path, error))?;
        }
        made.take(name, job.existing)
    }

    /// Tells early what would be told at the end.
    fn must_be_free(&self, name: &[u8], existing: Existing) -> Result<(), GuestError> {
        if existing == Existing::Replace {
            return Ok(());
        }
        match rustix::fs::statat(&self.fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(failed("create", &self.child(name), Errno::EXIST)),
            Err(_) => Ok(()),
        }
    }

    /// Makes something by a name that nothing has.
    fn free_name<T>(&self, create: impl Fn(&str) -> Result<T, Errno>) -> Result<(String, T), GuestError> {
        let mut tried = 0;
        loop {
            let partial = format!("{PARTIAL}-{tried}");
            match create(&partial) {
                Ok(made) => return Ok((partial, made)),
                Err(Errno::EXIST) if tried < PARTIALS_TRIED => tried += 1,
                Err(error) => return Err(failed("create", &self.child(partial.as_bytes()), error)),
            }
        }
    }

    /// Gives it what the guest's directory had; when all is in it.
    pub(super) fn finish(&self, metadata: &Metadata, job: &CopyJob<'_>) -> Result<(), GuestError> {
        set(&self.fd, &self.path, metadata, job)
    }

    /// Makes durable what was made in it.
    pub(super) fn sync(&self) -> Result<(), GuestError> {
        fsync(&self.fd).map_err(|error| failed("sync", &self.path, error))
    }

    /// Makes durable whatever was written to the file system that it is in.
    pub(super) fn sync_all(&self) -> Result<(), GuestError> {
        syncfs(&self.fd).map_err(|error| failed("sync", &self.path, error))
    }
}

/// A file that does not have its name yet. Dropped, it is removed.
pub(super) struct Partial<'d> {
    directory: &'d Directory,
    fd: OwnedFd,
    name: Name<'d>,
    wanted: Vec<u8>,
}

/// The name that something has until it is complete.
struct Name<'d> {
    directory: &'d Directory,
    partial: String,
    is_taken: bool,
}

impl Partial<'_> {
    fn path(&self) -> PathBuf {
        self.directory.child(&self.wanted)
    }

    pub(super) fn write_at(&self, mut offset: u64, mut data: &[u8]) -> Result<(), GuestError> {
        while !data.is_empty() {
            let written = match pwrite(&self.fd, data, offset) {
                Err(Errno::INTR) => continue,
                written => written.map_err(|error| failed("write", &self.path(), error))?,
            };
            data = data.get(written..).unwrap_or_default();
            offset += u64::try_from(written).expect("a length in memory fits 64 bits");
        }
        Ok(())
    }

    /// Gives it its length, what the guest's file had, and its name.
    pub(super) fn finish(
        self,
        length: u64,
        metadata: &Metadata,
        job: &CopyJob<'_>,
    ) -> Result<(), GuestError> {
        ftruncate(&self.fd, length).map_err(|error| failed("write", &self.path(), error))?;
        set(&self.fd, &self.path(), metadata, job)?;
        if job.depth == super::Depth::File {
            fsync(&self.fd).map_err(|error| failed("sync", &self.path(), error))?;
        }
        self.name.take(&self.wanted, job.existing)
    }
}

impl Name<'_> {
    /// Takes the name that is wanted, away from what has it if that may be replaced.
    fn take(mut self, wanted: &[u8], existing: Existing) -> Result<(), GuestError> {
        let directory = self.directory;
        let (fd, partial, name) = (&directory.fd, self.partial.as_str(), OsStr::from_bytes(wanted));
        let taken = match existing {
            Existing::Replace => renameat(fd, partial, fd, name),
            Existing::Refuse => match renameat_with(fd, partial, fd, name, RenameFlags::NOREPLACE) {
                // Some file systems cannot; they can do this, and then the first name is removed as one not used.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    linkat(fd, partial, fd, name, AtFlags::empty())
                        .map_err(|error| failed("create", &directory.child(wanted), error))?;
                    return Ok(());
                }
                renamed => renamed,
            },
        };
        taken.map_err(|error| failed("create", &directory.child(wanted), error))?;
        self.is_taken = false;
        Ok(())
    }
}

impl Drop for Name<'_> {
    fn drop(&mut self) {
        if self.is_taken {
            // It is only in the way, and whoever drops it has an error to tell already.
            let _ = unlinkat(&self.directory.fd, self.partial.as_str(), AtFlags::empty());
        }
    }
}

fn set(fd: &OwnedFd, path: &Path, metadata: &Metadata, job: &CopyJob<'_>) -> Result<(), GuestError> {
    let mut kept = PERMISSIONS;
    if let (Owners::Guest, Some((user, group))) = (job.owners, metadata.owner) {
        fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
            .map_err(|error| failed("change the owner of", path, error))?;
        kept = ALL_BITS;
    }
    if let Some(mode) = metadata.mode {
        fchmod(fd, Mode::from_raw_mode(mode & kept))
            .map_err(|error| failed("change the mode of", path, error))?;
    }
    if let Some(times) = times(metadata) {
        futimens(fd, &times).map_err(|error| failed("set the time of", path, error))?;
    }
    Ok(())
}

fn times(metadata: &Metadata) -> Option<Timestamps> {
    let modified = metadata.modified?;
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec { tv_sec: modified.seconds, tv_nsec: i64::from(modified.nanoseconds) };
    Some(Timestamps { last_access, last_modification })
}
