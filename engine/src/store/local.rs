//! A store in a directory of a local file system.
//!
//! A blob is a regular file of the same name below the root. It is written under a temporary name in `.tmp`,
//! made durable, and then hard-linked to its name, which fails if the name exists: so a blob is there whole or
//! not at all, after a power failure too, and only one creator of a name succeeds.
//!
//! This needs a file system whose links and listings are those of one machine: network file systems are refused.

mod listing;
mod root;
mod suitable;
mod temporary;

use super::{BlobStore, Page, Put, StoreError};
use crate::direct::AlignedPool;
use repo_format::BlobName;
use root::{Root, is_hidden};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use temporary::{Linked, Temporary};

/// How often a create begins again because files or directories vanish underneath it.
const PUT_ATTEMPTS: usize = 16;

/// Bytes of an existing blob that are compared at a time.
const COMPARE_LEN: usize = 1 << 20;

/// A container in a directory. Files are made with mode 0600 and directories with 0700.
///
/// Names below `.tmp` cannot be blobs here.
#[derive(Debug)]
pub struct LocalStore {
    root: Root,
    /// What packs go through to the disk.
    pool: AlignedPool,
}

impl LocalStore {
    /// Makes a container: creates the directory if it does not exist, and takes an empty one or one that was
    /// made before.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] for a directory with other content, a network file system, or a file system
    /// without hard links; [`StoreError::Io`].
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        root::make_durable_dirs(path).map_err(|source| failed("create", path, source))?;
        let root = Root::open(path).map_err(|source| failed("open", path, source))?;
        suitable::check(&root)?;
        if !root.is_ours().map_err(|source| failed("open", path, source))? {
            return Err(unsuitable(path, "the directory is not empty"));
        }
        Self::link_one(&root).map_err(|source| match source.kind() {
            io::ErrorKind::Unsupported => unsuitable(path, suitable::NO_HARD_LINKS),
            _ => failed("create", path, source),
        })?;
        Self::open(path)
    }

    /// Opens a container that exists, and removes what dead processes left in `.tmp`, if it may. Nothing else is
    /// written, so a container that may only be read can be opened.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] for a network file system that is not mounted read-only; [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let root = Root::open(path).map_err(|source| failed("open", path, source))?;
        suitable::check(&root)?;
        temporary::remove_leftovers(&root);
        Ok(Self { root, pool: AlignedPool::default() })
    }

    /// Makes and removes a hard link, to learn whether that works before anything is stored.
    fn link_one(root: &Root) -> io::Result<()> {
        let temporary = Temporary::create(root)?;
        let dir = root.dir(root::TEMPORARY_DIR)?;
        let name = format!("{}-link", temporary.name());
        temporary.link_to(&dir, &name)?;
        rustix::fs::unlinkat(&dir, &name, rustix::fs::AtFlags::empty())?;
        root.sync("")
    }

    /// Creates a blob; `None` if something vanished underneath and all is to be done again.
    fn try_put(&self, name: &BlobName, bytes: &[u8]) -> io::Result<Option<Put>> {
        if let Some(put) = self.compare(name, bytes)? {
            return Ok(Some(put));
        }
        let (parent, leaf) = split(name);
        let dir = match self.root.make_dir(parent) {
            Err(error) if is_absent(&error) => return Ok(None),
            result => result?,
        };
        let temporary = Temporary::create(&self.root)?;
        temporary.write(bytes, &self.pool)?;
        match temporary.link_to(&dir, leaf)? {
            Linked::Done => {}
            // Another creator was faster: the next attempt compares.
            Linked::Exists => return Ok(None),
            Linked::Vanished => {
                self.root.forget_dirs();
                return Ok(None);
            }
        }
        drop(temporary);
        rustix::fs::fsync(&dir)?;
        Ok(Some(Put::Created))
    }

    /// Compares a blob with `bytes` and makes it durable if it is the same; `None` if there is none.
    fn compare(&self, name: &BlobName, bytes: &[u8]) -> io::Result<Option<Put>> {
        let Some((file, len)) = self.open_blob(name)? else { return Ok(None) };
        if usize::try_from(len).ok() != Some(bytes.len()) {
            return Ok(Some(Put::Different));
        }
        let mut buffer = vec![0; COMPARE_LEN.min(bytes.len())];
        let mut offset = 0;
        for part in bytes.chunks(COMPARE_LEN) {
            let there = buffer.get_mut(..part.len()).expect("a part is no longer than the buffer");
            file.read_exact_at(there, offset)?;
            if there != part {
                return Ok(Some(Put::Different));
            }
            offset += u64::try_from(part.len()).expect("a length in memory fits 64 bits");
        }
        // Whoever created it may have crashed before it was durable.
        file.sync_all()?;
        let dir = match self.root.make_dir(split(name).0) {
            Err(error) if is_absent(&error) => return Ok(None),
            result => result?,
        };
        rustix::fs::fsync(&dir)?;
        Ok(Some(Put::Identical))
    }

    /// Opens a blob for reading, with its length; `None` if there is none.
    fn open_blob(&self, name: &BlobName) -> io::Result<Option<(File, u64)>> {
        if is_hidden(name.as_str()) {
            return Ok(None);
        }
        let file = match self.root.file(name.as_str()) {
            Err(error) if is_absent(&error) => return Ok(None),
            result => result?,
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(None);
        }
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        Ok(Some((file, metadata.len())))
    }

    fn try_delete(&self, name: &BlobName) -> io::Result<()> {
        let (parent, leaf) = split(name);
        if is_hidden(name.as_str()) {
            return Ok(());
        }
        let dir = match self.root.dir(parent) {
            Err(error) if is_absent(&error) => return Ok(()),
            result => result?,
        };
        match rustix::fs::unlinkat(&dir, leaf, rustix::fs::AtFlags::empty()) {
            // A directory is no blob.
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        // Also when nothing was there: an earlier delete may not have become durable.
        Ok(rustix::fs::fsync(&dir)?)
    }

    fn failed(&self, action: &'static str, object: &str, source: io::Error) -> StoreError {
        failed(action, &self.root.path().join(object), source)
    }
}

impl BlobStore for LocalStore {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        let create_failed = |source: io::Error| match source.kind() {
            io::ErrorKind::Unsupported => unsuitable(self.root.path(), suitable::NO_HARD_LINKS),
            _ => self.failed("create", name.as_str(), source),
        };
        if is_hidden(name.as_str()) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the name is kept for temporary files");
            return Err(create_failed(source));
        }
        for _ in 0..PUT_ATTEMPTS {
            if let Some(put) = self.try_put(name, bytes).map_err(create_failed)? {
                return Ok(put);
            }
        }
        Err(create_failed(io::Error::new(io::ErrorKind::Interrupted, "files kept vanishing underneath")))
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        let read_failed = |source| self.failed("read", name.as_str(), source);
        let Some((file, len)) = self.open_blob(name).map_err(read_failed)? else {
            return Err(StoreError::NotFound { name: name.clone() });
        };
        let range = range.unwrap_or(0..len);
        let (start, end) = (range.start.min(len), range.end.min(len));
        read_range(&file, start, end.saturating_sub(start)).map_err(read_failed)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        listing::page(&self.root, prefix, from, limit).map_err(|source| self.failed("list", prefix, source))
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.try_delete(name).map_err(|source| self.failed("delete", name.as_str(), source))
    }
}

fn read_range(file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = Vec::new();
    // The length is a file's, which anyone may have put there: it must not end the process.
    bytes.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    while bytes.len() < length {
        let at = start + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// The directory of a blob, empty for the root, and its name there.
fn split(name: &BlobName) -> (&str, &str) {
    name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()))
}

/// Whether an error says that there is nothing of that name.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { action, object: path.display().to_string(), source }
}

fn unsuitable(path: &Path, reason: &'static str) -> StoreError {
    StoreError::Unsuitable { path: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests;
