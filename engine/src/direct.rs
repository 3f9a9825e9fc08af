//! Writing files past the page cache.
//!
//! What is written once and hardly read again pays for the page cache without using it: each byte is copied into fresh
//! memory, which costs more than compressing it did at low levels, and pushes out what others have there. `O_DIRECT`
//! (open(2)) takes the bytes from where they are, if they, their length and their place in the file are aligned.

use crate::frames::lock;
use memmap2::MmapMut;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

/// What places, lengths and memory are multiples of: no block of a disk or a file system that takes direct writes is longer.
pub(crate) const ALIGNMENT: usize = 4096;
/// Bytes of one write: as many as it takes for the speed of the disk.
const PIECE_LEN: usize = 4 << 20;
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
        set_direct(file, false)?;
        done = result?;
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
        let dir = tempfile::tempdir().unwrap();
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
    fn a_full_file_system_is_an_error() {
        let file = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = write_new(&file, &content(DIRECT_LEN_MIN), &AlignedPool::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
