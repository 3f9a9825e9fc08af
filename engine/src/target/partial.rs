//! A file that appears under its name only when it is complete.

use super::blocks::BlockWriter;
use super::device::zero_range;
use super::{TargetError, failed, len_of, shown};
use crate::direct::open_again;
use rustix::fs::{AtFlags, CWD, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// What is added to a file's name until it is complete.
const PARTIAL: &str = ".keepstone-partial";
/// Stands at the beginning or at the end of a file while that is not complete: so a later restore knows whose it is.
const MARK: &[u8] = b"\nkeepstone: an incomplete restore";

/// What to do with a file that is in the target's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Fail.
    Refuse,
    /// Replace it when the restore is complete, if it is a regular file.
    Replace,
}

/// A file of mode 0600 that is called `<name>.keepstone-partial`, is locked, and gets its name at the end; if it is
/// dropped earlier, it is removed, unless it is kept.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    existing: Existing,
    /// It stays as it is if it is not complete, so that a restore can go on with it.
    is_kept: AtomicBool,
    finished: AtomicBool,
}

/// The file that a restore to `path` writes until it is complete, if `path` has a file name.
#[must_use]
pub fn partial_path(path: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(path.file_name()?);
    name.push(PARTIAL);
    Some(path.with_file_name(name))
}

impl PartialFile {
    /// Opens the partial file. What a restore that died left behind is taken over with what it holds; any other file
    /// in its place is left as it is.
    ///
    /// # Errors
    /// [`TargetError::Exists`] unless it may be replaced, [`TargetError::WrongKind`] for anything but a regular
    /// file, [`TargetError::NotOurs`], [`TargetError::Busy`] if another restore writes it, [`TargetError::Io`].
    pub(super) fn open(path: &Path, existing: Existing) -> Result<Self, TargetError> {
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.is_file() => {
                return Err(TargetError::WrongKind { path: shown(path), wanted: "regular file" });
            }
            Ok(_) if existing == Existing::Refuse => return Err(TargetError::Exists { path: shown(path) }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("create", path, error));
            }
            _ => {}
        }
        let partial = partial_path(path).ok_or_else(|| {
            failed("create", path, io::Error::new(io::ErrorKind::InvalidInput, "it has no file name"))
        })?;
        let file = locked(&partial)?;
        let (path, unset) = (path.to_owned(), || AtomicBool::new(false));
        Ok(Self { path, partial, file, existing, is_kept: unset(), finished: unset() })
    }

    /// Makes the file empty but for the mark, which is to stay until all else is written: at `mark_at`, which is the
    /// beginning of the file or its end.
    pub(super) fn begin(&self, mark_at: u64) -> Result<(), TargetError> {
        // Without the mark it is never more than a hole.
        let begun = self.file.set_len(0).and_then(|()| self.file.write_all_at(MARK, mark_at));
        begun.map_err(|source| self.failed("create", source))
    }

    /// Takes the file as it was left, with the mark at its end.
    pub(super) fn go_on(&self, mark_at: u64) -> Result<(), TargetError> {
        let marked = self.file.set_len(mark_at).and_then(|()| self.file.write_all_at(MARK, mark_at));
        marked.map_err(|source| self.failed("create", source))
    }

    /// Says that it is to stay if it is not complete.
    pub(super) fn keep(&self) {
        self.is_kept.store(true, SeqCst);
    }

    /// Lets a file that has just begun be written in whole blocks; it is to have `size` bytes.
    pub(super) fn in_blocks(&self, size: u64) -> Result<BlockWriter, TargetError> {
        let file = self.file.try_clone().map_err(|source| self.failed("create", source))?;
        // Without it the page cache will do.
        let direct = open_again(&self.partial, &file, OpenOptions::new().write(true));
        BlockWriter::new(file, direct, size).map_err(|source| self.failed("create", source))
    }

    /// Begins a file that is written from front to back.
    pub(super) fn appending(self) -> Result<Appending, TargetError> {
        self.begin(0)?;
        Ok(Appending { partial: self, head: Vec::with_capacity(Appending::HEAD_LEN), len: 0 })
    }

    pub(super) fn failed(&self, action: &'static str, source: io::Error) -> TargetError {
        failed(action, &self.partial, source)
    }

    pub(super) fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.file.write_all_at(data, offset).map_err(|source| self.failed("write", source))
    }

    pub(super) fn zero_at(&self, offset: u64, end: u64) -> Result<(), TargetError> {
        zero_range(&self.file, offset, end).map_err(|source| self.failed("zero", source))
    }

    pub(super) fn flush(&self) -> Result<(), TargetError> {
        self.file.sync_data().map_err(|source| self.failed("sync", source))
    }

    /// Gives the file its length and, when everything is durable, its name. A mark behind that length goes with this.
    pub(super) fn finish(&self, len: u64) -> Result<(), TargetError> {
        // What takes long comes while the mark is there.
        self.flush()?;
        self.file.set_len(len).map_err(|source| self.failed("write", source))?;
        let named = self.file.sync_all().map_err(|source| self.failed("sync", source));
        let named = named.and_then(|()| {
            self.rename().map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => TargetError::Exists { path: shown(&self.path) },
                _ => failed("rename", &self.path, source),
            })
        });
        if named.is_err() && self.is_kept.load(SeqCst) {
            // So that a restore can go on with it. If this fails too, it is nobody's, and stays.
            let _ = self.go_on(len);
        }
        named?;
        self.finished.store(true, SeqCst);
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let sync = File::open(parent).and_then(|dir| dir.sync_all());
        sync.map_err(|source| failed("sync", parent, source))
    }

    fn rename(&self) -> io::Result<()> {
        if self.existing == Existing::Replace {
            return std::fs::rename(&self.partial, &self.path);
        }
        match rustix::fs::renameat_with(CWD, &self.partial, CWD, &self.path, RenameFlags::NOREPLACE) {
            // The file system cannot rename without replacing. It can link without replacing, or has no links.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(CWD, &self.partial, CWD, &self.path, AtFlags::empty())?;
                std::fs::remove_file(&self.partial)
            }
            result => Ok(result?),
        }
    }
}

/// A partial file that grows. Its beginning comes last, and takes the place of the mark: until then no reader takes it for
/// an image.
#[derive(Debug)]
pub(super) struct Appending {
    partial: PartialFile,
    head: Vec<u8>,
    len: u64,
}

impl Appending {
    /// The length of what comes last: a sector, as a header is.
    const HEAD_LEN: usize = 512;

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), TargetError> {
        let (head, rest) = bytes.split_at(bytes.len().min(Self::HEAD_LEN - self.head.len()));
        self.head.extend_from_slice(head);
        self.partial.write_at(self.len + len_of(head), rest)?;
        self.len += len_of(bytes);
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<(), TargetError> {
        self.partial.flush()
    }

    pub(super) fn finish(&mut self) -> Result<(), TargetError> {
        self.partial.flush()?;
        self.partial.write_at(0, &self.head)?;
        self.partial.finish(self.len)
    }

    /// The error for a failure to append.
    pub(super) fn failed(&self, source: io::Error) -> TargetError {
        self.partial.failed("write", source)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.finished.load(SeqCst) && !self.is_kept.load(SeqCst) {
            // One that stays is taken over by the next restore to this place.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Opens a partial file and locks it, so that two restores do not write one file.
fn locked(partial: &Path) -> Result<File, TargetError> {
    let create_failed = |source| failed("create", partial, source);
    loop {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed())
            .open(partial)
            .map_err(create_failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(TargetError::Busy { path: shown(partial) }),
            Err(error) => return Err(create_failed(error.into())),
        }
        let opened = file.metadata().map_err(create_failed)?;
        if !opened.is_file() {
            return Err(TargetError::WrongKind { path: shown(partial), wanted: "regular file" });
        }
        // Between open and lock its restore may have completed: then this is the finished file.
        match partial.symlink_metadata() {
            Ok(there) if (there.dev(), there.ino()) == (opened.dev(), opened.ino()) => {
                let ours = is_ours(&file, opened.len()).map_err(create_failed)?;
                return if ours { Ok(file) } else { Err(TargetError::NotOurs { path: shown(partial) }) };
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(create_failed(error)),
            _ => {}
        }
    }
}

/// Whether a partial file is new or was left by a restore.
fn is_ours(file: &File, len: u64) -> io::Result<bool> {
    let Some(end) = len.checked_sub(len_of(MARK)) else { return Ok(len == 0) };
    let mut found = [0; MARK.len()];
    for mark_at in [end, 0] {
        file.read_exact_at(&mut found, mark_at)?;
        if found.as_slice() == MARK {
            return Ok(true);
        }
    }
    Ok(false)
}
