//! Reading and writing files past the page cache.
//!
//! What is read or written once pays for the page cache without using it: each byte is copied through fresh memory, which
//! can cost more than compressing it at low levels, and pushes out what others have there. With `O_DIRECT` (open(2)) the
//! bytes go to and from where they are, if they, their length and their place in the file are aligned.

use crate::frames::lock;
use memmap2::MmapMut;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What places, lengths and memory are multiples of: no block of a disk or a file system that takes direct writes is longer.
pub(crate) const ALIGNMENT: usize = 4096;
/// Bytes of one write: as many as it takes for the speed of the disk.
const PIECE_LEN: usize = 4 << 20;
/// Bytes of one read, for each of which is asked whether its beginning is in the page cache.
const READ_LEN: usize = 1 << 20;
/// Shorter reads go through the page cache.
const DIRECT_READ_LEN_MIN: usize = 32 << 10;
/// Shorter content is written through the page cache: two system calls more would cost more.
const DIRECT_LEN_MIN: usize = 1 << 20;

/// Aligned memory of one length, used again and again. It holds as much as was ever in use at once.
#[derive(Debug, Default)]
pub(crate) struct AlignedPool {
    idle: Mutex<Vec<MmapMut>>,
}

impl AlignedPool {
    /// Memory of `len` bytes, the same in each call. What it holds is left from its last use.
    pub(crate) fn take(&self, len: usize) -> io::Result<MmapMut> {
        let idle = lock(&self.idle).pop();
        idle.map_or_else(|| MmapMut::map_anon(len), Ok)
    }

    pub(crate) fn give(&self, memory: MmapMut) {
        lock(&self.idle).push(memory);
    }
}

/// Opens a file once more, for direct reads or writes; nothing if that cannot be, or if the path leads to another file.
pub(crate) fn open_again(path: &Path, file: &File, options: &mut OpenOptions) -> Option<File> {
    let flags = OFlags::NONBLOCK | OFlags::DIRECT;
    let direct = options.custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    (identity(&direct).ok()? == identity(file).ok()?).then_some(direct)
}

/// A file that is read: from the page cache what is there, and past it what is not.
#[derive(Debug)]
pub(crate) struct DirectReader {
    /// The file, opened for direct reads.
    direct: Option<File>,
    works: AtomicBool,
}

impl DirectReader {
    pub(crate) fn new(path: &Path, file: &File) -> Self {
        Self { direct: open_again(path, file, OpenOptions::new().read(true)), works: AtomicBool::new(true) }
    }

    /// Reads some bytes of the file, as `pread` does, into memory that lies to pages as they do if they are to come past
    /// the page cache.
    pub(crate) fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(direct) = self.direct.as_ref().filter(|_| self.works.load(Relaxed)) else {
            return file.read_at(buffer, offset);
        };
        let to_page = offset.next_multiple_of(ALIGNMENT as u64) - offset;
        let to_page = usize::try_from(to_page).expect("a page fits memory");
        if buffer.len() < to_page + DIRECT_READ_LEN_MIN
            || buffer[to_page..].as_ptr().align_offset(ALIGNMENT) > 0
        {
            return file.read_at(buffer, offset);
        }
        if to_page > 0 {
            return file.read_at(&mut buffer[..to_page], offset);
        }
        let len = buffer.len().min(READ_LEN) / ALIGNMENT * ALIGNMENT;
        match self.cached(file, &mut buffer[..len], offset)? {
            Some(read) => Ok(read),
            None => match direct.read_at(&mut buffer[..len], offset) {
                // Blocks are longer than ours, or the file system has no direct reads after all.
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    self.works.store(false, Relaxed);
                    file.read_at(&mut buffer[..len], offset)
                }
                result => result,
            },
        }
    }

    /// Reads from the page cache if the first page is there: the others are likely to be so, too.
    fn cached(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let first = &mut [IoSliceMut::new(&mut buffer[..ALIGNMENT])];
        match preadv2(file, first, offset, ReadWriteFlags::NOWAIT) {
            // Nothing is no end of the file: some versions of Linux say so of what is not there (preadv2(2), BUGS).
            Ok(read) => Ok(Some(read + file.read_at(&mut buffer[read..], offset + read as u64)?)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                // Nobody can say what is in the page cache.
                self.works.store(false, Relaxed);
                Ok(Some(file.read_at(buffer, offset)?))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Switches direct writing of a file on or off. False if its file system does not have it.
pub(crate) fn set_direct(file: &File, direct: bool) -> io::Result<bool> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    match rustix::fs::fcntl_setfl(file, flags) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::OPNOTSUPP) if direct => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes a new file's whole content, as much of it as can be past the page cache. It is not durable yet.
pub(crate) fn write_new(file: &File, bytes: &[u8], pool: &AlignedPool) -> io::Result<()> {
    let mut done = 0;
    if bytes.len() >= DIRECT_LEN_MIN && set_direct(file, true)? {
        let mut memory = pool.take(PIECE_LEN)?;
        let result = write_pieces(file, &bytes[..bytes.len() / ALIGNMENT * ALIGNMENT], &mut memory);
        pool.give(memory);
        let switched = set_direct(file, false);
        done = result?;
        switched?;
    }
    file.write_all_at(&bytes[done..], done as u64)
}

/// Writes whole blocks through aligned memory, and says how far it came: to the end, unless the file system turns out not
/// to take them.
fn write_pieces(file: &File, bytes: &[u8], memory: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    for piece in bytes.chunks(memory.len()) {
        let aligned = &mut memory[..piece.len()];
        aligned.copy_from_slice(piece);
        match file.write_all_at(aligned, done as u64) {
            Ok(()) => done += piece.len(),
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from((n / 7 + n / 4096) % 251).unwrap()).collect()
    }

    #[test]
    fn content_of_any_length_is_written_whole() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let pool = AlignedPool::default();
        for len in [0, 1, DIRECT_LEN_MIN - 1, DIRECT_LEN_MIN, DIRECT_LEN_MIN + 1, 2 * PIECE_LEN + 5000] {
            let path = dir.path().join(len.to_string());
            let bytes = content(len);
            let file = File::create_new(&path).unwrap();
            write_new(&file, &bytes, &pool).unwrap();
            assert!(!rustix::fs::fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT));
            assert!(fs::read(&path).unwrap() == bytes, "{len} bytes");
        }
        assert_eq!(lock(&pool.idle).len(), 1);
    }

    #[test]
    fn what_is_read_past_the_page_cache_is_what_is_read_through_it() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("image");
        let bytes = content(3 * READ_LEN + 5000);
        fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let reader = DirectReader::new(&path, &file);
        assert!(reader.direct.is_some(), "the checkout is on a file system without direct reads");
        let mut memory = MmapMut::map_anon(bytes.len()).unwrap();
        for cached in [true, false] {
            // In pages, beside them, and in memory that lies otherwise.
            for (start, at) in [(0, 0), (512, 512), (READ_LEN + 4096, 4096), (4096, 100), (0, 1)] {
                if !cached {
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                }
                let len = (bytes.len() - start).min(memory.len() - at);
                memory.fill(0);
                let mut done = 0;
                while done < len {
                    let rest = &mut memory[at + done..at + len];
                    let read = reader.read_at(&file, rest, (start + done) as u64).unwrap();
                    assert!(read > 0, "the file ended at {}", start + done);
                    done += read;
                }
                assert!(
                    memory[at..at + len] == bytes[start..start + len],
                    "{len} bytes from {start}, {cached}"
                );
            }
        }
        assert_eq!(reader.read_at(&file, &mut memory[..READ_LEN], bytes.len() as u64).unwrap(), 0);
        assert!(reader.works.load(Relaxed), "it has turned to the page cache");
    }

    #[test]
    fn a_full_file_system_is_an_error() {
        let file = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = write_new(&file, &content(DIRECT_LEN_MIN), &AlignedPool::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
