//! Restoring to standard output or a pipe.

use super::{DiskTarget, TargetError, checked_end, len_of};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Zeros are written in pieces of this length.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A target that can only be written from front to back, of any writer.
///
/// Ranges are brought into order: what comes too early is kept in memory, up to a limit. A restore that writes two
/// windows at a time needs as much as their data. Ranges of zeros cost no memory and may be of any length.
#[derive(Debug)]
pub struct StreamTarget<W> {
    size: u64,
    kept_max: u64,
    stream: Mutex<Stream<W>>,
}

#[derive(Debug)]
struct Stream<W> {
    writer: W,
    /// Bytes written; everything kept lies behind.
    position: u64,
    /// What came too early, by offset.
    kept: BTreeMap<u64, Piece>,
    /// How much of it is data.
    kept_bytes: u64,
    /// Set by the first failure, after which nobody knows what was written.
    failed: Option<io::ErrorKind>,
}

#[derive(Debug)]
enum Piece {
    Data(Vec<u8>),
    Zeros(u64),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => len_of(data),
            Self::Zeros(length) => *length,
        }
    }
}

impl<W: Write + Send> StreamTarget<W> {
    /// Writes a disk of `size` bytes to `writer`, keeping at most `kept_max` bytes that come too early.
    pub fn new(writer: W, size: u64, kept_max: u64) -> Self {
        let stream = Stream { writer, position: 0, kept: BTreeMap::new(), kept_bytes: 0, failed: None };
        Self { size, kept_max, stream: Mutex::new(stream) }
    }

    /// Gives the writer back.
    pub fn into_writer(self) -> W {
        self.stream.into_inner().unwrap_or_else(PoisonError::into_inner).writer
    }

    // A panic in another thread can only have been the writer's; then `failed` was set before.
    fn stream(&self) -> MutexGuard<'_, Stream<W>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_written(source: io::Error) -> io::Error {
    TargetError::Io { action: "write", path: "the stream".to_owned(), source }.into()
}

impl<W: Write> Stream<W> {
    fn check(&self) -> io::Result<()> {
        match self.failed {
            None => Ok(()),
            Some(kind) => Err(not_written(kind.into())),
        }
    }

    /// Runs what writes to the stream; after a failure nothing is written any more.
    fn guarded(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.failed = Some(io::ErrorKind::Other);
        let result = write(self);
        self.failed = result.as_ref().err().map(io::Error::kind);
        // The kind stays: a reader that has seen enough (`BrokenPipe`) is told from a full disk by it.
        result.map_err(not_written)
    }

    fn write_data(&mut self, data: &[u8]) -> io::Result<()> {
        self.writer.write_all(data)?;
        self.position += len_of(data);
        Ok(())
    }

    fn write_zeros(&mut self, length: u64) -> io::Result<()> {
        let end = self.position + length;
        while self.position < end {
            let left = usize::try_from(end - self.position).unwrap_or(usize::MAX);
            let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
            self.write_data(zeros)?;
        }
        Ok(())
    }

    /// Writes what was kept and is next.
    fn write_kept(&mut self) -> io::Result<()> {
        while let Some(piece) = self.kept.remove(&self.position) {
            match piece {
                Piece::Data(data) => {
                    self.kept_bytes -= len_of(&data);
                    self.write_data(&data)?;
                }
                Piece::Zeros(length) => self.write_zeros(length)?,
            }
        }
        Ok(())
    }

    /// Checks that a range was not there before; ranges are not empty.
    fn check_new(&self, offset: u64, end: u64) -> Result<(), TargetError> {
        let before = self.kept.range(..end).next_back();
        let kept_end = before.map_or(0, |(start, piece)| start + piece.len());
        if offset < self.position || offset < kept_end {
            return Err(TargetError::OutOfRange { offset, end, reason: "they were written before" });
        }
        Ok(())
    }
}

impl<W: Write + Send> DiskTarget for StreamTarget<W> {
    // The lock is held while the stream is written: it is what makes it one stream, and a slow reader must slow
    // down the restore anyway.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = checked_end(offset, len_of(data), self.size)?;
        let mut stream = self.stream();
        stream.check()?;
        if data.is_empty() {
            return Ok(());
        }
        stream.check_new(offset, end)?;
        if offset == stream.position {
            return stream.guarded(|stream| {
                stream.write_data(data)?;
                stream.write_kept()
            });
        }
        if stream.kept_bytes + len_of(data) > self.kept_max {
            let reason = "too much that comes before them is missing";
            return Err(TargetError::OutOfRange { offset, end, reason }.into());
        }
        stream.kept_bytes += len_of(data);
        stream.kept.insert(offset, Piece::Data(data.to_vec()));
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = checked_end(offset, length, self.size)?;
        let mut stream = self.stream();
        stream.check()?;
        if length == 0 {
            return Ok(());
        }
        stream.check_new(offset, end)?;
        if offset == stream.position {
            return stream.guarded(|stream| {
                stream.write_zeros(length)?;
                stream.write_kept()
            });
        }
        stream.kept.insert(offset, Piece::Zeros(length));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut stream = self.stream();
        stream.check()?;
        stream.guarded(|stream| stream.writer.flush())
    }

    fn finish(&self) -> io::Result<()> {
        let mut stream = self.stream();
        stream.check()?;
        if stream.position != self.size {
            return Err(TargetError::Incomplete { written: stream.position, disk_bytes: self.size }.into());
        }
        stream.guarded(|stream| stream.writer.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that goes away after some bytes.
    #[derive(Debug)]
    struct Closing(usize);

    impl Write for Closing {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let taken = data.len().min(self.0);
            self.0 -= taken;
            if taken == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn ranges_in_any_order_come_out_in_order() {
        let target = StreamTarget::new(Vec::new(), 16, 8);
        target.write_at(4, b"efgh").unwrap();
        target.zero_at(2, 2).unwrap();
        target.write_at(0, b"ab").unwrap();
        target.write_at(14, b"op").unwrap();
        target.write_at(8, b"ijkl").unwrap();
        target.write_at(12, b"mn").unwrap();
        target.finish().unwrap();
        assert_eq!(target.into_writer(), b"ab\0\0efghijklmnop");
    }

    #[test]
    fn every_order_within_windows_gives_the_same_stream() {
        let disk: Vec<u8> = (1..=200).collect();
        for seed in 0..50usize {
            let target = StreamTarget::new(Vec::new(), 200, 20);
            for window in disk.chunks(20).enumerate() {
                let (number, bytes) = window;
                // Steps of 1, 3 or 7 places go through all ten of them.
                for step in 0..10 {
                    let place = (seed + step * [1, 3, 7][seed % 3]) % 10;
                    let offset = u64::try_from(number * 20 + place * 2).unwrap();
                    target.write_at(offset, &bytes[place * 2..place * 2 + 2]).unwrap();
                }
            }
            target.finish().unwrap();
            assert_eq!(target.into_writer(), disk, "seed {seed}");
        }
    }

    #[test]
    fn threads_may_write_at_once() {
        let disk: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        let target = StreamTarget::new(Vec::new(), 1 << 20, 1 << 20);
        std::thread::scope(|scope| {
            for first in 0..4 {
                let (target, disk) = (&target, &disk);
                scope.spawn(move || {
                    for (number, piece) in disk.chunks(1000).enumerate().skip(first).step_by(4) {
                        target.write_at(u64::try_from(number * 1000).unwrap(), piece).unwrap();
                    }
                });
            }
        });
        target.finish().unwrap();
        assert!(target.into_writer() == disk);
    }

    #[test]
    fn long_holes_need_no_window() {
        let target = StreamTarget::new(Vec::new(), 1_000_001, 1);
        target.zero_at(1, 1_000_000).unwrap();
        target.write_at(0, b"a").unwrap();
        target.finish().unwrap();
        let mut expected = vec![0; 1_000_001];
        expected[0] = b'a';
        assert!(target.into_writer() == expected);
    }

    #[test]
    fn more_that_comes_too_early_than_is_kept_is_an_error() {
        let target = StreamTarget::new(Vec::new(), 16, 8);
        target.write_at(4, b"efgh").unwrap();
        target.write_at(12, b"mnop").unwrap();
        assert_eq!(
            target.write_at(8, b"i").unwrap_err().to_string(),
            "bytes 8 to 9 cannot be written: too much that comes before them is missing"
        );
    }

    #[test]
    fn what_was_written_makes_room_for_more_that_comes_too_early() {
        let target = StreamTarget::new(Vec::new(), 16, 8);
        target.write_at(4, b"efgh").unwrap();
        target.write_at(12, b"mnop").unwrap();
        target.write_at(0, b"abcd").unwrap();
        target.write_at(9, b"jkl").unwrap();
        target.write_at(8, b"i").unwrap();
        target.finish().unwrap();
        assert_eq!(target.into_writer(), b"abcdefghijklmnop");
    }

    #[test]
    fn ranges_that_were_written_are_refused() {
        let target = StreamTarget::new(Vec::new(), 16, 16);
        target.write_at(0, b"ab").unwrap();
        target.write_at(4, b"ef").unwrap();
        for (offset, length) in [(0, 1), (1, 2), (4, 1), (3, 2), (5, 4), (3, 9)] {
            let error = target.zero_at(offset, length).unwrap_err().to_string();
            assert!(error.ends_with("they were written before"), "{offset}: {error}");
        }
    }

    #[test]
    fn an_incomplete_disk_is_not_synced() {
        let target = StreamTarget::new(Vec::new(), 16, 16);
        target.write_at(8, b"ijklmnop").unwrap();
        assert_eq!(target.finish().unwrap_err().to_string(), "only 0 of 16 bytes were written");
    }

    #[test]
    fn a_reader_that_goes_away_is_a_broken_pipe_for_everyone() {
        let target = StreamTarget::new(Closing(3), 16, 16);
        target.write_at(2, b"cd").unwrap();
        assert_eq!(target.write_at(0, b"ab").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(target.write_at(4, b"ef").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(target.finish().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_empty_disk_is_an_empty_stream() {
        let target = StreamTarget::new(Vec::new(), 0, 1);
        target.finish().unwrap();
        assert_eq!(target.into_writer(), b"");
    }
}
