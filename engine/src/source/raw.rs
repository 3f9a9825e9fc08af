//! Raw images and block devices.

use super::{ChangedAreas, DiskSource, FullReason, Outside, ReadPart, Since, read_each};
use crate::Extent;
use crate::direct::DirectReader;
use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why an image cannot be used; the payload of the [`io::Error`]s of [`RawImage`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It is neither a file nor a block device.
    #[error("{path} is {what}, not a disk image or a block device")]
    WrongKind {
        /// The path.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The image ended before its size.
    #[error("{path} became shorter while it was read: nothing at byte {offset} of {size}")]
    Shrunk {
        /// The path.
        path: String,
        /// Where nothing was.
        offset: u64,
        /// The size when it was opened.
        size: u64,
    },
    /// The image has another size than when it was opened.
    #[error("{path} changed its size while it was read, from {before} to {after} bytes")]
    SizeChanged {
        /// The path.
        path: String,
        /// The size when it was opened.
        before: u64,
        /// The size now.
        after: u64,
    },
    /// It cannot be opened or read.
    #[error("could not {action} {path}")]
    Io {
        /// "open", "read", "find the size of", "find the allocated areas of".
        action: &'static str,
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl From<ImageError> for io::Error {
    fn from(error: ImageError) -> Self {
        let kind = match &error {
            ImageError::WrongKind { .. } => io::ErrorKind::InvalidInput,
            ImageError::Shrunk { .. } => io::ErrorKind::UnexpectedEof,
            ImageError::SizeChanged { .. } => io::ErrorKind::InvalidData,
            ImageError::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// A raw disk image in a file, or a block device. It has no change tracking: see [`super::WithChanges`].
///
/// Its size is taken when it is opened and must stay the same.
#[derive(Debug)]
pub struct RawImage {
    path: PathBuf,
    file: File,
    reader: DirectReader,
    size: u64,
}

impl RawImage {
    /// Opens an image for reading.
    ///
    /// # Errors
    /// When it cannot be opened, or is neither a regular file nor a block device. The payload is an
    /// [`ImageError`], as in all methods.
    pub fn open(path: &Path) -> io::Result<Self> {
        let shown = || path.display().to_string();
        let open_failed = |source| ImageError::Io { action: "open", path: shown(), source };
        // A pipe must be refused, not waited for.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(open_failed)?;
        let file_type = file.metadata().map_err(open_failed)?.file_type();
        if !file_type.is_file() && !file_type.is_block_device() {
            return Err(ImageError::WrongKind { path: shown(), what: kind_of(file_type) }.into());
        }
        let reader = DirectReader::new(path, &file);
        let mut image = Self { path: path.to_owned(), file, reader, size: 0 };
        image.size = image.size_now()?;
        Ok(image)
    }

    /// Opens the first `size` bytes of an image, which may be longer.
    ///
    /// # Errors
    /// Those of [`RawImage::open`], and [`ImageError::Shrunk`] if it is shorter.
    pub fn open_beginning(path: &Path, size: u64) -> io::Result<Self> {
        let mut image = Self::open(path)?;
        if image.size < size {
            let path = image.path.display().to_string();
            return Err(ImageError::Shrunk { path, offset: image.size, size }.into());
        }
        image.size = size;
        Ok(image)
    }

    /// Fills `buffer` from `offset`: past the page cache, where what is read is not there, and if the buffer lies to pages
    /// as the bytes do.
    ///
    /// # Errors
    /// When the bytes cannot be read, or the image has become shorter.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            match self.reader.read_at(&self.file, rest, at) {
                Ok(0) => {
                    let path = self.path.display().to_string();
                    return Err(ImageError::Shrunk { path, offset: at, size: self.size }.into());
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", error).into()),
            }
        }
        Ok(())
    }

    // The end of a block device is found by seeking as well. Nothing else uses the file's position.
    fn size_now(&self) -> io::Result<u64> {
        rustix::fs::seek(&self.file, SeekFrom::End(0))
            .map_err(|error| self.failed("find the size of", error.into()).into())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> ImageError {
        ImageError::Io { action, path: self.path.display().to_string(), source }
    }

    /// The areas that are not holes; everything if the file system or device cannot tell.
    fn allocated_areas(&self) -> Result<Vec<Extent>, Errno> {
        let mut areas = Vec::new();
        let mut position = 0;
        while position < self.size {
            let start = match rustix::fs::seek(&self.file, SeekFrom::Data(position)) {
                Ok(start) => start,
                // Holes to the end.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) if position == 0 => {
                    return Ok(Extent::between(0, self.size).into_iter().collect());
                }
                Err(error) => return Err(error),
            };
            position = match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
                Ok(end) => end,
                Err(Errno::NXIO) => self.size,
                Err(error) => return Err(error),
            };
            areas.extend(Extent::between(start, position.min(self.size)));
        }
        Ok(areas)
    }
}

fn kind_of(file_type: std::fs::FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_char_device() {
        "a character device"
    } else {
        "a socket or something else"
    }
}

impl DiskSource for RawImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let areas = self
            .allocated_areas()
            .map_err(|error| self.failed("find the allocated areas of", error.into()))?;
        let full_reason = since.map(|_| FullReason::NoChangeTracking);
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason }, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    /// Compares the size with that when it was opened: all that an image tells.
    fn check_unchanged(&self) -> io::Result<()> {
        let after = self.size_now()?;
        if after == self.size {
            return Ok(());
        }
        let path = self.path.display().to_string();
        Err(ImageError::SizeChanged { path, before: self.size, after }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use std::os::unix::fs::FileExt as _;
    use tempfile::TempDir;

    const MIB: u64 = 1 << 20;

    fn image(bytes: &[u8]) -> (TempDir, PathBuf, RawImage) {
        let dir = TempDir::new().expect("a temporary directory");
        let path = dir.path().join("disk.raw");
        std::fs::write(&path, bytes).expect("the image is written");
        let image = RawImage::open(&path).expect("the image opens");
        (dir, path, image)
    }

    #[test]
    fn bytes_are_read_where_they_are() {
        let (_dir, _, image) = image(b"0123456789");
        let mut buffer = [0; 4];
        image.read_at(3, &mut buffer).unwrap();
        assert_eq!((image.size(), &buffer), (10, b"3456"));
        image.read_at(10, &mut []).unwrap();
    }

    #[test]
    fn holes_are_outside_the_areas() {
        let (_dir, path, _) = image(b"");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&vec![1; 65536], 2 * MIB).unwrap();
        file.write_all_at(&vec![1; 65536], 7 * MIB).unwrap();
        let image = RawImage::open(&path).unwrap();
        let extent = |start| Extent { start, length: 65536 };
        assert_eq!(
            image.changed_areas(None).unwrap(),
            ChangedAreas {
                areas: vec![extent(2 * MIB), extent(7 * MIB)],
                outside: Outside::Zero { full_reason: None },
                change_id: None,
            }
        );
        let since = Since { change_id: Some("then"), size: 8 * MIB, properties: &[] };
        assert_eq!(
            image.changed_areas(Some(&since)).unwrap().outside,
            Outside::Zero { full_reason: Some(FullReason::NoChangeTracking) }
        );
    }

    #[test]
    fn an_empty_image_and_one_hole_have_no_areas() {
        let (_dir, path, image) = image(b"");
        assert_eq!((image.size(), image.changed_areas(None).unwrap().areas), (0, vec![]));
        OpenOptions::new().write(true).open(&path).unwrap().set_len(MIB).unwrap();
        assert_eq!(RawImage::open(&path).unwrap().changed_areas(None).unwrap().areas, vec![]);
    }

    #[test]
    fn an_image_that_shrinks_is_an_error() {
        let (_dir, path, image) = image(&[1; 100]);
        image.check_unchanged().unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(60).unwrap();
        let error = image.read_at(50, &mut [0; 20]).unwrap_err();
        let path = path.display();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            error.to_string(),
            format!("{path} became shorter while it was read: nothing at byte 60 of 100")
        );
        assert_eq!(
            image.check_unchanged().unwrap_err().to_string(),
            format!("{path} changed its size while it was read, from 100 to 60 bytes")
        );
    }

    #[test]
    fn an_image_that_grows_is_an_error_at_the_end() {
        let (_dir, path, image) = image(&[1; 100]);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(200).unwrap();
        assert_eq!((image.size(), image.changed_areas(None).unwrap().areas[0].end()), (100, 100));
        assert!(image.check_unchanged().is_err());
    }

    #[test]
    fn directories_pipes_and_character_devices_are_refused() {
        let dir = TempDir::new().unwrap();
        let pipe = dir.path().join("pipe");
        let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, mode, 0).unwrap();
        let refusal = |path: &Path| RawImage::open(path).unwrap_err().to_string();
        let expected =
            |path: &Path, what| format!("{} is {what}, not a disk image or a block device", path.display());
        assert_eq!(refusal(dir.path()), expected(dir.path(), "a directory"));
        assert_eq!(refusal(&pipe), expected(&pipe, "a pipe"));
        let null = Path::new("/dev/null");
        assert_eq!(refusal(null), expected(null, "a character device"));
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = RawImage::open(Path::new("/nowhere/disk.raw")).unwrap_err();
        assert_eq!(error.to_string(), "could not open /nowhere/disk.raw");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.source().is_some());
    }
}
