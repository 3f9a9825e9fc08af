//! Restoring onto a raw image that is there.

use super::device::zero_range;
use super::{DiskTarget, TargetError, checked_end, failed, len_of, shown};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A raw image in a file that nothing else uses, as far as locks tell: this program's restores and QEMU hold some.
#[derive(Debug)]
pub struct ImageTarget {
    path: PathBuf,
    file: File,
    size: u64,
}

impl ImageTarget {
    /// Opens an image for a disk of `size` bytes. A shorter one becomes as long as the disk; a longer one is cut off when
    /// the restore is complete.
    ///
    /// # Errors
    /// [`TargetError::WrongKind`] for anything but a regular file, [`TargetError::InUse`], [`TargetError::Io`].
    pub fn open(path: &Path, size: u64) -> io::Result<Self> {
        let open_failed = |source| failed("open", path, source);
        // A pipe must be refused, not waited for.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let file = file.map_err(open_failed)?;
        let metadata = file.metadata().map_err(open_failed)?;
        if !metadata.is_file() {
            return Err(TargetError::WrongKind { path: shown(path), wanted: "regular file" }.into());
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(TargetError::InUse { path: shown(path) }.into()),
            Err(error) => return Err(open_failed(error.into()).into()),
        }
        if is_locked(&file).map_err(|error| open_failed(error.into()))? {
            return Err(TargetError::InUse { path: shown(path) }.into());
        }
        if metadata.len() < size {
            file.set_len(size).map_err(|source| failed("write", path, source))?;
        }
        Ok(Self { path: path.to_owned(), file, size })
    }
}

/// Whether another process has a lock on a part of the file, as QEMU has on an image that it uses.
fn is_locked(file: &File) -> Result<bool, Errno> {
    let all = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    match fcntl_getlk(file, &all) {
        Ok(lock) => Ok(lock.is_some()),
        // No locks on this file system.
        Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error),
    }
}

impl DiskTarget for ImageTarget {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        checked_end(offset, len_of(data), self.size)?;
        Ok(self.file.write_all_at(data, offset).map_err(|source| failed("write", &self.path, source))?)
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = checked_end(offset, length, self.size)?;
        Ok(zero_range(&self.file, offset, end).map_err(|source| failed("zero", &self.path, source))?)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(self.file.sync_data().map_err(|source| failed("sync", &self.path, source))?)
    }

    fn finish(&self) -> io::Result<()> {
        self.file.set_len(self.size).map_err(|source| failed("write", &self.path, source))?;
        Ok(self.file.sync_all().map_err(|source| failed("sync", &self.path, source))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_becomes_as_long_as_the_disk() {
        for before in [5, 10, 20] {
            let image = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(image.path(), vec![7; before]).unwrap();
            let target = ImageTarget::open(image.path(), 10).unwrap();
            target.write_at(1, b"ab").unwrap();
            target.zero_at(3, 2).unwrap();
            assert!(target.write_at(9, b"ab").is_err());
            target.finish().unwrap();
            let behind = if before == 5 { [0; 5] } else { [7; 5] };
            let expected = [[7, b'a', b'b', 0, 0], behind].concat();
            assert_eq!(std::fs::read(image.path()).unwrap(), expected);
        }
    }

    #[test]
    fn an_image_that_is_used_is_refused() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let target = ImageTarget::open(image.path(), 10).unwrap();
        let error = ImageTarget::open(image.path(), 10).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is in use", image.path().display()));
        drop(target);
        ImageTarget::open(image.path(), 10).unwrap();
        let error = ImageTarget::open(Path::new("/dev/null"), 10).unwrap_err();
        assert_eq!(error.to_string(), "/dev/null is not a regular file");
    }
}
