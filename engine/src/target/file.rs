//! Restoring into a new file.

use super::{DiskTarget, TargetError, checked_end, len_of};
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
/// Stands behind the disk's end while a file is not complete: so a later restore knows whose it is.
const MARK: &[u8] = b"\nkeepstone: an incomplete restore";

/// What to do with a file that is in the target's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Fail.
    Refuse,
    /// Replace it when the restore is complete, if it is a regular file.
    Replace,
}

/// A new sparse file of mode 0600. It gets its name in [`DiskTarget::finish`], and before that is called
/// `<name>.keepstone-partial`; if it is dropped earlier, that is removed.
#[derive(Debug)]
pub struct FileTarget {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    size: u64,
    existing: Existing,
    finished: AtomicBool,
}

impl FileTarget {
    /// Begins a file for a disk of `size` bytes. What a restore that died left behind is taken over; any other file
    /// in the place of the partial one is left as it is.
    ///
    /// # Errors
    /// [`TargetError::Exists`] unless it may be replaced, [`TargetError::WrongKind`] for anything but a regular
    /// file, [`TargetError::NotOurs`], [`TargetError::Busy`] if another restore writes it, [`TargetError::Io`].
    pub fn create(path: &Path, size: u64, existing: Existing) -> io::Result<Self> {
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.is_file() => {
                return Err(TargetError::WrongKind { path: shown(path), wanted: "regular file" }.into());
            }
            Ok(_) if existing == Existing::Refuse => {
                return Err(TargetError::Exists { path: shown(path) }.into());
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("create", path, error).into());
            }
            _ => {}
        }
        let name = path.file_name().ok_or_else(|| {
            failed("create", path, io::Error::new(io::ErrorKind::InvalidInput, "it has no file name"))
        })?;
        let mut partial_name = OsString::from(name);
        partial_name.push(PARTIAL);
        let partial = path.with_file_name(partial_name);
        let file = locked(&partial)?;
        let target =
            Self { path: path.to_owned(), partial, file, size, existing, finished: AtomicBool::new(false) };
        target.begin().map_err(|source| target.failed("create", source))?;
        Ok(target)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> TargetError {
        failed(action, &self.partial, source)
    }

    /// Makes the file empty, and then a hole with the mark behind it: without the mark it is never more than that.
    fn begin(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(MARK, self.size)
    }

    /// Gives the complete file its name.
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
    file.read_exact_at(&mut found, end)?;
    Ok(found.as_slice() == MARK)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> TargetError {
    TargetError::Io { action, path: shown(path), source }
}

impl DiskTarget for FileTarget {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        checked_end(offset, len_of(data), self.size)?;
        Ok(self.file.write_all_at(data, offset).map_err(|source| self.failed("write", source))?)
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        // A hole from the start, and no range is written twice.
        checked_end(offset, length, self.size)?;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(self.file.sync_data().map_err(|source| self.failed("sync", source))?)
    }

    fn finish(&self) -> io::Result<()> {
        self.file.set_len(self.size).map_err(|source| self.failed("write", source))?;
        self.file.sync_all().map_err(|source| self.failed("sync", source))?;
        self.rename().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => TargetError::Exists { path: shown(&self.path) },
            _ => failed("rename", &self.path, source),
        })?;
        self.finished.store(true, SeqCst);
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let sync = File::open(parent).and_then(|dir| dir.sync_all());
        Ok(sync.map_err(|source| failed("sync", parent, source))?)
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        if !self.finished.load(SeqCst) {
            // One that stays is taken over by the next restore to this place.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn place() -> (TempDir, PathBuf) {
        let dir = TempDir::new().expect("a temporary directory");
        let path = dir.path().join("disk.raw");
        (dir, path)
    }

    fn files(dir: &TempDir) -> Vec<OsString> {
        fs::read_dir(dir.path())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect()
    }

    #[test]
    fn the_file_appears_complete_and_sparse() {
        let (dir, path) = place();
        let target = FileTarget::create(&path, 1 << 30, Existing::Refuse).unwrap();
        target.write_at((1 << 30) - 4, b"last").unwrap();
        target.zero_at(5, (1 << 30) - 9).unwrap();
        target.write_at(0, b"first").unwrap();
        assert_eq!(files(&dir), ["disk.raw.keepstone-partial"]);
        target.finish().unwrap();
        drop(target);
        assert_eq!(files(&dir), ["disk.raw"]);
        let file = File::open(&path).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (1 << 30, 0o600));
        assert!(metadata.blocks() < 1024, "{} blocks are no sparse file", metadata.blocks());
        let mut bytes = [0; 7];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"first\0\0");
        file.read_exact_at(&mut bytes, (1 << 30) - 7).unwrap();
        assert_eq!(&bytes, b"\0\0\0last");
    }

    #[test]
    fn an_unfinished_file_is_removed() {
        let (dir, path) = place();
        let target = FileTarget::create(&path, 10, Existing::Refuse).unwrap();
        target.write_at(0, b"1").unwrap();
        drop(target);
        assert_eq!(files(&dir), [""; 0]);
    }

    #[test]
    fn an_existing_file_is_refused_or_replaced() {
        let (dir, path) = place();
        fs::write(&path, b"old").unwrap();
        let error = FileTarget::create(&path, 3, Existing::Refuse).unwrap_err();
        assert_eq!(error.to_string(), format!("{} already exists", path.display()));
        let target = FileTarget::create(&path, 3, Existing::Replace).unwrap();
        target.write_at(0, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        target.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), files(&dir)), (b"new".to_vec(), vec!["disk.raw".into()]));
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_kept() {
        let (dir, path) = place();
        let target = FileTarget::create(&path, 3, Existing::Refuse).unwrap();
        fs::write(&path, b"old").unwrap();
        assert_eq!(target.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(target);
        assert_eq!((fs::read(&path).unwrap(), files(&dir)), (b"old".to_vec(), vec!["disk.raw".into()]));
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let (_dir, path) = place();
        fs::create_dir(&path).unwrap();
        let error = FileTarget::create(&path, 3, Existing::Replace).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is not a regular file", path.display()));
        let error = FileTarget::create(Path::new("/dev/null"), 3, Existing::Replace).unwrap_err();
        assert_eq!(error.to_string(), "/dev/null is not a regular file");
    }

    #[test]
    fn two_restores_to_one_place_do_not_mix() {
        let (_dir, path) = place();
        let first = FileTarget::create(&path, 3, Existing::Refuse).unwrap();
        let error = FileTarget::create(&path, 3, Existing::Refuse).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        first.write_at(0, b"abc").unwrap();
        first.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
    }

    #[test]
    fn nothing_of_a_leftover_shows_through() {
        let (dir, path) = place();
        let died = FileTarget::create(&path, 40, Existing::Refuse).unwrap();
        died.write_at(0, &[7; 40]).unwrap();
        let partial = path.with_file_name("disk.raw.keepstone-partial");
        let leftover = fs::read(&partial).unwrap();
        drop(died);
        for leftover in [leftover, Vec::new()] {
            fs::write(&partial, leftover).unwrap();
            let target = FileTarget::create(&path, 4, Existing::Replace).unwrap();
            target.write_at(0, b"a").unwrap();
            target.zero_at(1, 3).unwrap();
            target.finish().unwrap();
            assert_eq!(
                (fs::read(&path).unwrap(), files(&dir)),
                (b"a\0\0\0".to_vec(), vec!["disk.raw".into()])
            );
        }
    }

    #[test]
    fn a_file_of_somebody_else_in_the_place_of_the_partial_one_is_kept() {
        let (_dir, path) = place();
        let partial = path.with_file_name("disk.raw.keepstone-partial");
        for content in [b"mine".to_vec(), vec![1; 100]] {
            fs::write(&partial, &content).unwrap();
            for existing in [Existing::Refuse, Existing::Replace] {
                let error = FileTarget::create(&path, 4, existing).unwrap_err();
                let told =
                    format!("{} exists, and is no file that an interrupted restore left", partial.display());
                assert_eq!(error.to_string(), told);
            }
            assert_eq!(fs::read(&partial).unwrap(), content);
        }
    }

    #[test]
    fn writes_beyond_the_disk_are_errors() {
        let (_dir, path) = place();
        let target = FileTarget::create(&path, 4, Existing::Refuse).unwrap();
        assert_eq!(
            target.write_at(3, b"ab").unwrap_err().to_string(),
            "bytes 3 to 5 cannot be written: they are beyond the end of the disk"
        );
        assert!(target.zero_at(u64::MAX, 2).is_err());
    }
}
