//! Restoring into a new file.

use super::blocks::BlockWriter;
use super::partial::{Existing, PartialFile};
use super::{DiskTarget, TargetError, checked_end, len_of};
use std::io;
use std::path::Path;

/// A new sparse file of mode 0600. It gets its name in [`DiskTarget::finish`], and before that is called
/// `<name>.keepstone-partial`; what becomes of that if it is dropped earlier is an [`Incomplete`].
#[derive(Debug)]
pub struct FileTarget {
    partial: PartialFile,
    size: u64,
    incomplete: Incomplete,
    /// What writes it; nothing if what is in it was not made by this restore: then zeros have to be made where they are
    /// wanted, and little is written.
    blocks: Option<BlockWriter>,
}

/// What becomes of a file that is not complete when its restore has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomplete {
    /// It is removed.
    Removed,
    /// It stays, so that the restore can go on, if anything was written to it.
    Kept,
}

impl FileTarget {
    /// Begins a file for a disk of `size` bytes. What a restore that died left behind is taken over; any other file
    /// in the place of the partial one is left as it is.
    ///
    /// # Errors
    /// [`TargetError::Exists`](super::TargetError::Exists) unless it may be replaced, `WrongKind` for anything but a
    /// regular file, `NotOurs`, `Busy` if another restore writes it, `Io`.
    pub fn create(path: &Path, size: u64, existing: Existing, incomplete: Incomplete) -> io::Result<Self> {
        let partial = PartialFile::open(path, existing)?;
        partial.begin(size)?;
        let blocks = Some(partial.in_blocks(size)?);
        Ok(Self { partial, size, incomplete, blocks })
    }

    /// Goes on with what an interrupted restore of a disk of `size` bytes left; what it holds is to be compared. It is kept
    /// if this one is interrupted too.
    ///
    /// # Errors
    /// Those of [`FileTarget::create`].
    pub fn go_on(path: &Path, size: u64, existing: Existing) -> io::Result<Self> {
        let partial = PartialFile::open(path, existing)?;
        partial.keep();
        partial.go_on(size)?;
        Ok(Self { partial, size, incomplete: Incomplete::Kept, blocks: None })
    }
}

impl FileTarget {
    /// Writes what waits for more.
    fn write_out(&self) -> Result<(), TargetError> {
        self.blocks.as_ref().map_or(Ok(()), |blocks| self.written(blocks.write_out()))
    }

    fn written(&self, result: io::Result<()>) -> Result<(), TargetError> {
        result.map_err(|source| self.partial.failed("write", source))
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        if self.incomplete == Incomplete::Kept {
            // What does not get there is restored again.
            let _ = self.write_out();
        }
    }
}

impl DiskTarget for FileTarget {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        checked_end(offset, len_of(data), self.size)?;
        if self.incomplete == Incomplete::Kept {
            self.partial.keep();
        }
        match &self.blocks {
            Some(blocks) => Ok(self.written(blocks.write_at(offset, data))?),
            None => Ok(self.partial.write_at(offset, data)?),
        }
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = checked_end(offset, length, self.size)?;
        match &self.blocks {
            // It is a hole from the start, and no range is written twice.
            Some(blocks) => Ok(self.written(blocks.leave_hole(offset, end))?),
            None => Ok(self.partial.zero_at(offset, end)?),
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.write_out()?;
        Ok(self.partial.flush()?)
    }

    fn finish(&self) -> io::Result<()> {
        self.write_out()?;
        Ok(self.partial.finish(self.size)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::partial::partial_path;
    use super::*;
    use std::ffi::OsString;
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    use std::path::PathBuf;
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
        let target = FileTarget::create(&path, 1 << 30, Existing::Refuse, Incomplete::Removed).unwrap();
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
        let target = FileTarget::create(&path, 10, Existing::Refuse, Incomplete::Removed).unwrap();
        target.write_at(0, b"1").unwrap();
        drop(target);
        assert_eq!(files(&dir), [""; 0]);
    }

    #[test]
    fn an_existing_file_is_refused_or_replaced() {
        let (dir, path) = place();
        fs::write(&path, b"old").unwrap();
        let error = FileTarget::create(&path, 3, Existing::Refuse, Incomplete::Removed).unwrap_err();
        assert_eq!(error.to_string(), format!("{} already exists", path.display()));
        let target = FileTarget::create(&path, 3, Existing::Replace, Incomplete::Removed).unwrap();
        target.write_at(0, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        target.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), files(&dir)), (b"new".to_vec(), vec!["disk.raw".into()]));
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_kept() {
        let (dir, path) = place();
        let target = FileTarget::create(&path, 3, Existing::Refuse, Incomplete::Removed).unwrap();
        fs::write(&path, b"old").unwrap();
        assert_eq!(target.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(target);
        assert_eq!((fs::read(&path).unwrap(), files(&dir)), (b"old".to_vec(), vec!["disk.raw".into()]));
    }

    #[test]
    fn a_file_that_appeared_meanwhile_keeps_nothing_from_going_on() {
        let (dir, path) = place();
        let target = FileTarget::create(&path, 3, Existing::Refuse, Incomplete::Kept).unwrap();
        target.write_at(0, b"new").unwrap();
        fs::write(&path, b"old").unwrap();
        assert_eq!(target.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(target);
        FileTarget::go_on(&path, 3, Existing::Replace).unwrap().finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), files(&dir)), (b"new".to_vec(), vec!["disk.raw".into()]));
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let (_dir, path) = place();
        fs::create_dir(&path).unwrap();
        let error = FileTarget::create(&path, 3, Existing::Replace, Incomplete::Removed).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is not a regular file", path.display()));
        let error = FileTarget::create(Path::new("/dev/null"), 3, Existing::Replace, Incomplete::Removed)
            .unwrap_err();
        assert_eq!(error.to_string(), "/dev/null is not a regular file");
    }

    #[test]
    fn two_restores_to_one_place_do_not_mix() {
        let (_dir, path) = place();
        let first = FileTarget::create(&path, 3, Existing::Refuse, Incomplete::Removed).unwrap();
        let error = FileTarget::create(&path, 3, Existing::Refuse, Incomplete::Removed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        first.write_at(0, b"abc").unwrap();
        first.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
    }

    #[test]
    fn nothing_of_a_leftover_shows_through() {
        let (dir, path) = place();
        let died = FileTarget::create(&path, 40, Existing::Refuse, Incomplete::Removed).unwrap();
        died.write_at(0, &[7; 40]).unwrap();
        let partial = path.with_file_name("disk.raw.keepstone-partial");
        let leftover = fs::read(&partial).unwrap();
        drop(died);
        for leftover in [leftover, Vec::new()] {
            fs::write(&partial, leftover).unwrap();
            let target = FileTarget::create(&path, 4, Existing::Replace, Incomplete::Removed).unwrap();
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
                let error = FileTarget::create(&path, 4, existing, Incomplete::Removed).unwrap_err();
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
        let target = FileTarget::create(&path, 4, Existing::Refuse, Incomplete::Removed).unwrap();
        assert_eq!(
            target.write_at(3, b"ab").unwrap_err().to_string(),
            "bytes 3 to 5 cannot be written: they are beyond the end of the disk"
        );
        assert!(target.zero_at(u64::MAX, 2).is_err());
    }

    #[test]
    fn what_was_written_is_kept_if_that_is_wanted_and_gone_on_with() {
        let (dir, path) = place();
        let partial = partial_path(&path).unwrap();
        drop(FileTarget::create(&path, 10_000, Existing::Refuse, Incomplete::Kept).unwrap());
        assert_eq!(files(&dir), [""; 0]);
        let target = FileTarget::create(&path, 10_000, Existing::Refuse, Incomplete::Kept).unwrap();
        target.write_at(0, &[7; 9000]).unwrap();
        drop(target);
        assert_eq!(files(&dir), [partial.file_name().unwrap()]);
        let target = FileTarget::go_on(&path, 10_000, Existing::Refuse).unwrap();
        target.zero_at(10, 8000).unwrap();
        target.write_at(9990, &[8; 10]).unwrap();
        drop(target);
        FileTarget::go_on(&path, 10_000, Existing::Refuse).unwrap().finish().unwrap();
        let mut expected = vec![0; 10_000];
        expected[..10].fill(7);
        expected[8010..9000].fill(7);
        expected[9990..].fill(8);
        assert!(fs::read(&path).unwrap() == expected);
        assert_eq!(files(&dir), ["disk.raw"]);
    }
}
