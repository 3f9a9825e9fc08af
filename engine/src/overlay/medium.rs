//! What an overlay is kept in: a sparse file, which one process at a time uses.

use super::record::beginning;
use super::{OverlayError, OverlayOf};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Zeros that are written at a time where a file system makes no holes.
const ZEROS_LEN: usize = 1 << 20;
/// Names that are tried for a file that is not finished: as many runs may begin at a time, or have been killed.
const NAMES_TRIED: u32 = 1000;

/// A file as an overlay needs it. What was written is there after a crash only if it was synchronised; of what was not,
/// any part may be.
pub trait Medium: Send + Sync {
    /// How long it is, in bytes.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn size(&self) -> io::Result<u64>;

    /// Fills a buffer.
    ///
    /// # Errors
    /// When something cannot be read, or lies behind the end: it was written, and is lost.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes, also behind the end: what is between is zero, and takes no room.
    ///
    /// # Errors
    /// When something cannot be written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes a range zero, if possible without taking room.
    ///
    /// # Errors
    /// When it cannot be done.
    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes durable what was written before.
    ///
    /// # Errors
    /// When some of that may be lost.
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        // What lies behind the end is zero already.
        let length = length.min(self.size()?.saturating_sub(offset));
        if length == 0 {
            return Ok(());
        }
        match fallocate(self, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length) {
            Err(Errno::NOTSUP | Errno::NOSYS) => {
                let zeros = vec![0; ZEROS_LEN];
                let mut at = offset;
                while at < offset + length {
                    let part =
                        usize::try_from(offset + length - at).map_or(ZEROS_LEN, |left| left.min(ZEROS_LEN));
                    self.write_all_at(&zeros[..part], at)?;
                    at += part as u64;
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Opens an overlay's file or makes it, for this process alone.
pub(super) fn open(path: &Path, of: &OverlayOf<'_>) -> Result<File, OverlayError> {
    let failed = |action| move |source| OverlayError::Io { action, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(made) = create(path, of).map_err(failed("create"))? {
                return Ok(made);
            }
        }
        Ok(metadata) if !metadata.is_file() => {
            return Err(OverlayError::NotAnOverlay { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) => return Err(failed("open")(error)),
    }
    let mut options = OpenOptions::new();
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).expect("flags are small");
    let file = options.read(true).write(true).custom_flags(flags).open(path).map_err(failed("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Err(OverlayError::Busy { path: path.to_owned() }),
        locked => locked.map_err(io::Error::from).map_err(failed("lock"))?,
    }
    Ok(file)
}

/// Makes a file with a header, whole or not at all, and locked before anybody sees it; nothing if another made it first.
fn create(path: &Path, of: &OverlayOf<'_>) -> io::Result<Option<File>> {
    let (file, unfinished) = begin(path)?;
    let linked = finish(&file, &unfinished, path, of);
    fs::remove_file(&unfinished)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        linked => linked?,
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()?;
    Ok(Some(file))
}

/// Makes a file beside `path` whose name nothing had: what has such a name is another's, or was left by a run that was
/// killed.
fn begin(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    for number in 0..NAMES_TRIED {
        let unfinished = path.with_file_name(format!(".keepstone-new-{number}"));
        match options.open(&unfinished) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((opened?, unfinished)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Gives a new file its lock, its header and its name, which nothing else may have.
fn finish(file: &File, unfinished: &Path, path: &Path, of: &OverlayOf<'_>) -> io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all_at(&beginning(of), 0)?;
    file.sync_all()?;
    fs::hard_link(unfinished, path)
}
