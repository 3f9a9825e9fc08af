//! The root directory: every path is walked from it, component by component, and no symbolic link is followed.

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where temporary files are, below the root. Its presence marks a directory as a container.
pub(super) const TEMPORARY_DIR: &str = ".tmp";

/// Made by `mkfs` in the root of a new file system.
pub(super) const LOST_AND_FOUND: &[u8] = b"lost+found";

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether a name is kept for temporary files.
pub(super) fn is_hidden(name: &str) -> bool {
    name.split('/').next() == Some(TEMPORARY_DIR)
}

/// An open root directory.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    dir: OwnedFd,
    /// The directories, relative to the root, that are known to survive a power failure.
    durable: Mutex<HashSet<String>>,
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_owned(), dir, durable: Mutex::default() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below the root, or the root for an empty path.
    pub(super) fn dir(&self, relative: &str) -> io::Result<OwnedFd> {
        let mut dir = rustix::fs::openat(&self.dir, ".", DIR, Mode::empty())?;
        for component in components(relative) {
            dir = match rustix::fs::openat(&dir, component, DIR, Mode::empty()) {
                // Not the same as nothing: blobs may well be behind the link.
                Err(Errno::NOTDIR) if is_symlink(&dir, component) => return Err(a_link(component)),
                result => result?,
            };
        }
        Ok(dir)
    }

    /// Opens a file below the root for reading; what it is remains to be checked.
    pub(super) fn file(&self, relative: &str) -> io::Result<File> {
        let (parent, leaf) = relative.rsplit_once('/').unwrap_or(("", relative));
        // A pipe that lies there must not make the open wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(self.dir(parent)?, leaf, flags, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(Errno::LOOP) => Err(a_link(leaf)),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory below the root, making it and what leads to it; all of that is durable afterwards.
    ///
    /// That a directory exists does not say that it is durable: whoever made it may not have come to that. So
    /// each is made durable once in the life of this value, whoever made it.
    pub(super) fn make_dir(&self, relative: &str) -> io::Result<OwnedFd> {
        let mut dir = self.dir("")?;
        let mut path = String::new();
        for component in components(relative) {
            path.push_str(component);
            if !self.durable().contains(&path) {
                match rustix::fs::mkdirat(&dir, component, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                rustix::fs::fsync(&dir)?;
                self.durable().insert(path.clone());
            }
            dir = rustix::fs::openat(&dir, component, DIR, Mode::empty())
                .inspect_err(|_| self.forget_dirs())
                .map_err(|error| not_a_directory(error, &path))?;
            path.push('/');
        }
        Ok(dir)
    }

    /// Forgets which directories are durable, after something was found to have been removed.
    pub(super) fn forget_dirs(&self) {
        self.durable().clear();
    }

    /// Makes the entries of a directory durable.
    pub(super) fn sync(&self, relative: &str) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.dir(relative)?)?)
    }

    /// Whether the directory holds nothing, or is a container already.
    pub(super) fn is_ours(&self) -> io::Result<bool> {
        match rustix::fs::statat(&self.dir, TEMPORARY_DIR, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => return Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b".." | LOST_AND_FOUND) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    // A panic in another thread leaves the set whole: every change is one call.
    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something else is in the place of what was looked for.
fn a_link(component: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{component} is a symbolic link"))
}

fn is_symlink(dir: &OwnedFd, component: &str) -> bool {
    rustix::fs::statat(dir, component, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn components(relative: &str) -> impl Iterator<Item = &str> {
    relative.split('/').filter(|component| !component.is_empty())
}

/// A blob where a directory should be is not a thing that vanished, and trying again does not help.
fn not_a_directory(error: Errno, path: &str) -> io::Error {
    match error {
        Errno::NOTDIR => io::Error::new(io::ErrorKind::AlreadyExists, format!("{path} is not a directory")),
        other => other.into(),
    }
}

/// Makes a directory and what leads to it, durably.
pub(super) fn make_durable_dirs(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
