//! Restoring to standard output or a pipe.

use super::order::{InOrder, Sequential};
use super::{DiskTarget, TargetError, checked_end, len_of};
use std::borrow::Cow;
use std::io::{self, Write};

/// Zeros are written in pieces of this length.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A target that can only be written from front to back, of any writer.
///
/// Ranges are brought into order: what comes too early is kept in memory, up to a limit. A restore that writes two
/// windows at a time needs as much as their data. Ranges of zeros cost no memory and may be of any length.
#[derive(Debug)]
pub struct StreamTarget<W> {
    size: u64,
    stream: InOrder<Plain<W>>,
}

impl<W: Write + Send> StreamTarget<W> {
    /// Writes a disk of `size` bytes to `writer`, keeping at most `kept_max` bytes that come too early.
    pub fn new(writer: W, size: u64, kept_max: u64) -> Self {
        Self { size, stream: InOrder::new(Plain(writer), size, kept_max) }
    }

    /// Gives the writer back.
    pub fn into_writer(self) -> W {
        self.stream.into_inner().0
    }
}

/// The bytes of a disk as they are.
#[derive(Debug)]
struct Plain<W>(W);

impl<W: Write> Sequential for Plain<W> {
    fn write_data(&mut self, _: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all(data).map_err(not_written)
    }

    fn write_zeros(&mut self, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let zeros = ZEROS.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(&ZEROS);
            self.0.write_all(zeros).map_err(not_written)?;
            left -= len_of(zeros);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(not_written)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }

    fn not_written(&self, source: io::Error) -> io::Error {
        not_written(source)
    }
}

/// What failed to be written to a stream, which has no name.
pub(super) fn not_written(source: io::Error) -> io::Error {
    TargetError::Io { action: "write", path: "the stream".to_owned(), source }.into()
}

impl<W: Write + Send> DiskTarget for StreamTarget<W> {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        checked_end(offset, len_of(data), self.size)?;
        self.stream.put(offset, len_of(data), Cow::Borrowed(data))
    }

    fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        checked_end(offset, length, self.size)?;
        self.stream.put_zeros(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.stream.flush()
    }

    fn finish(&self) -> io::Result<()> {
        self.stream.finish()
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
