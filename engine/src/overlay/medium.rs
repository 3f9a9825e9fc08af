//! What an overlay is kept in: a sparse file, which one process at a time uses.

use super::record::{RECORD_LEN, header};
use super::{OverlayError, OverlayOf};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Zeros that are written at a time where a file system makes no holes.
const ZEROS_LEN: usize = 1 << 20;

/// A file as an overlay needs it. What was written is there after a crash only if it was synchronised; of what was not,
/// any part may be.
pub trait Medium: Send + Sync {
    /// How long it is, in bytes.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn size(&self) -> io::Result<u64>;

    /// Fills a buffer; what lies behind the end is zero.
    ///
    /// # Errors
    /// When something cannot be read.
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
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer[filled..].fill(0);
        Ok(())
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
            create(path, of).map_err(failed("create"))?;
        }
        Ok(metadata) if !metadata.is_file() => {
            return Err(OverlayError::NotAnOverlay { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) => return Err(failed("open")(error)),
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Err(OverlayError::Busy { path: path.to_owned() }),
        locked => locked.map_err(io::Error::from).map_err(failed("lock"))?,
    }
    Ok(file)
}

/// Makes a file with a header, whole or not at all.
fn create(path: &Path, of: &OverlayOf<'_>) -> io::Result<()> {
    let mut name = OsString::from(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".new");
    let new: PathBuf = path.with_file_name(name);
    let header: [u8; RECORD_LEN] = header(of);
    // One that a killed run left is written anew; a name that was taken meanwhile stays as it is.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all_at(&header, 0)?;
    file.sync_all()?;
    let linked = match fs::hard_link(&new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    fs::remove_file(&new)?;
    linked?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
