//! Keeps a disk that is written in place from looking complete before it is.

use super::DiskTarget;
use crate::DiskSource;
use crate::frames::lock;
use crate::source::ReadPart;
use std::io;
use std::sync::Mutex;

/// How much is kept back: what tells of partitions, volumes and file systems is there (GPT, MBR, LVM, ext4, XFS, NTFS, FAT).
const HEAD_LEN: u64 = 1 << 20;
/// What comes last of it: it has what a firmware or a kernel looks at first.
const FIRST_LEN: usize = 4096;

/// The beginning of a disk, which is zero from before anything else is written until everything is durable.
///
/// So a restore that ended in the middle leaves a disk that nobody boots from, and that has no partitions; what is told at
/// the end of a disk (the second GPT, labels of ZFS, some of Linux's RAID) may be there.
#[derive(Debug)]
pub(crate) struct Veil {
    head: Mutex<Head>,
    len: u64,
}

#[derive(Debug)]
struct Head {
    bytes: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was written yet.
    Untouched,
    /// The disk's beginning is zero, and the head holds what it is to be.
    Lowered,
    /// The same, but for that nobody knows how much of it is zero: nothing more can be written.
    Torn,
}

/// The disk below a veil: what is written, and the same to be read.
#[derive(Clone, Copy)]
pub(crate) struct Below<'a> {
    pub(crate) target: &'a dyn DiskTarget,
    /// Nothing if it cannot be read: then all of it is written.
    pub(crate) existing: Option<&'a dyn DiskSource>,
}

impl Veil {
    /// Makes one for a disk of `size` bytes. Nothing is written yet.
    pub(crate) fn over(size: u64) -> Self {
        let len = size.min(HEAD_LEN);
        Self { head: Mutex::new(Head { bytes: Vec::new(), state: State::Untouched }), len }
    }

    /// Writes `data` at `offset`; what is of the head is kept.
    pub(crate) fn write_at(&self, below: Below<'_>, offset: u64, data: &[u8]) -> io::Result<()> {
        let kept = self.keep(below, offset, data.len() as u64, |head, kept| {
            head.copy_from_slice(data.get(..kept).expect("it is no longer than the data"));
        })?;
        match data.get(kept..) {
            Some(rest) if !rest.is_empty() => below.target.write_at(offset + kept as u64, rest),
            _ => Ok(()),
        }
    }

    /// Makes a range zero; what is of the head is kept.
    pub(crate) fn zero_at(&self, below: Below<'_>, offset: u64, length: u64) -> io::Result<()> {
        let kept = self.keep(below, offset, length, |head, _| head.fill(0))? as u64;
        if kept == length { Ok(()) } else { below.target.zero_at(offset + kept, length - kept) }
    }

    /// Reads what the disk will be if nothing more is written.
    pub(crate) fn read(&self, existing: &dyn DiskSource, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        existing.read(parts)?;
        // Afterwards: what was read before the veil was lowered is the same.
        let head = lock(&self.head);
        for part in parts.iter_mut().filter(|part| head.state != State::Untouched && part.offset < self.len) {
            let start = usize::try_from(part.offset).expect("it is in the head");
            let kept = head.bytes.get(start..).expect("it is in the head");
            let len = kept.len().min(part.buffer.len());
            part.buffer[..len].copy_from_slice(&kept[..len]);
        }
        Ok(())
    }

    /// Writes the head, once all else is durable, and finishes the target.
    pub(crate) fn finish(&self, target: &dyn DiskTarget) -> io::Result<()> {
        let head = lock(&self.head);
        match head.state {
            State::Untouched => {}
            State::Torn => return Err(torn()),
            State::Lowered => {
                let (first, rest) = head.bytes.split_at(head.bytes.len().min(FIRST_LEN));
                target.flush()?;
                if !rest.is_empty() {
                    target.write_at(first.len() as u64, rest)?;
                    target.flush()?;
                }
                target.write_at(0, first)?;
            }
        }
        target.finish()
    }

    /// Whether anything was written, so that what was there before is gone.
    pub(crate) fn is_lowered(&self) -> bool {
        lock(&self.head).state != State::Untouched
    }

    /// Lowers the veil before the first write, and changes what a range has of the head. Returns how much that is, in bytes
    /// from the range's beginning.
    fn keep(
        &self,
        below: Below<'_>,
        offset: u64,
        length: u64,
        change: impl FnOnce(&mut [u8], usize),
    ) -> io::Result<usize> {
        let mut head = lock(&self.head);
        if head.state == State::Untouched {
            // What is there may be all that it has to be.
            let mut there = vec![0; usize::try_from(self.len).expect("it is at most 1 MiB")];
            if let Some(existing) = below.existing {
                existing.read(&mut [ReadPart { offset: 0, buffer: &mut there }])?;
            }
            // Whatever becomes of this, what was there may be gone.
            *head = Head { bytes: there, state: State::Torn };
            below.target.zero_at(0, self.len)?;
            below.target.flush()?;
            head.state = State::Lowered;
        }
        if head.state == State::Torn {
            return Err(torn());
        }
        let end = offset.saturating_add(length).min(self.len);
        let Some(kept) = end.checked_sub(offset).and_then(|kept| usize::try_from(kept).ok()) else {
            return Ok(0);
        };
        let start = usize::try_from(offset).expect("it is in the head");
        change(head.bytes.get_mut(start..start + kept).expect("it is in the head"), kept);
        Ok(kept)
    }
}

fn torn() -> io::Error {
    io::Error::other("the disk's beginning could not be made zero before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{ChangedAreas, Since};

    const SIZE: u64 = 3 << 20;

    /// A disk of 3 MiB that cannot be flushed.
    struct Unsteady(Plain);

    impl DiskTarget for Unsteady {
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, data)
        }

        fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
            self.0.zero_at(offset, length)
        }

        fn flush(&self) -> io::Result<()> {
            Err(io::ErrorKind::TimedOut.into())
        }

        fn finish(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_beginning_that_may_be_zero_is_told_and_nothing_more_is_written() {
        let disk = Unsteady(Plain::new(SIZE));
        let veil = Veil::over(SIZE);
        let below = Below { target: &disk, existing: None };
        assert_eq!(veil.write_at(below, 0, &[1; 100]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(veil.is_lowered());
        let told = "the disk's beginning could not be made zero before";
        assert_eq!(veil.write_at(below, 2 << 20, &[1; 100]).unwrap_err().to_string(), told);
        assert_eq!(veil.zero_at(below, 2 << 20, 100).unwrap_err().to_string(), told);
        assert_eq!(veil.finish(&disk).unwrap_err().to_string(), told);
        assert!(bytes(&disk.0)[1 << 20..].iter().all(|byte| *byte == 0xA5), "something was written");
    }

    /// A disk whose bytes can be looked at.
    struct Plain(Mutex<Vec<u8>>);

    impl Plain {
        fn new(len: u64) -> Self {
            Self(Mutex::new(vec![0xA5; usize::try_from(len).unwrap()]))
        }
    }

    impl DiskTarget for Plain {
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let start = usize::try_from(offset).unwrap();
            lock(&self.0)[start..start + data.len()].copy_from_slice(data);
            Ok(())
        }

        fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
            self.write_at(offset, &vec![0; usize::try_from(length).unwrap()])
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }

        fn finish(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl DiskSource for Plain {
        fn size(&self) -> u64 {
            lock(&self.0).len() as u64
        }

        fn changed_areas(&self, _: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
            for part in parts {
                let start = usize::try_from(part.offset).unwrap();
                let end = start + part.buffer.len();
                part.buffer.copy_from_slice(&lock(&self.0)[start..end]);
            }
            Ok(())
        }

        fn check_unchanged(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn below(disk: &Plain) -> Below<'_> {
        Below { target: disk, existing: Some(disk) }
    }

    fn bytes(target: &Plain) -> Vec<u8> {
        lock(&target.0).clone()
    }

    #[test]
    fn the_beginning_appears_when_all_else_is_there() {
        let target = Plain::new(SIZE);
        let old = vec![0xEE; 3 << 20];
        target.write_at(0, &old).unwrap();
        let veil = Veil::over(SIZE);
        assert!(bytes(&target) == old, "nothing was to be written yet");
        let new: Vec<u8> = (0..3 << 20).map(|at: u32| (at / 4096).to_le_bytes()[0] | 1).collect();
        // From the end, with a part over the head's end.
        veil.write_at(below(&target), 2 << 20, &new[2 << 20..]).unwrap();
        veil.write_at(below(&target), (1 << 20) - 5000, &new[(1 << 20) - 5000..2 << 20]).unwrap();
        veil.zero_at(below(&target), 1000, 500).unwrap();
        veil.write_at(below(&target), 1500, &new[1500..(1 << 20) - 5000]).unwrap();
        veil.write_at(below(&target), 0, &new[..1000]).unwrap();
        let incomplete = bytes(&target);
        assert!(incomplete[..1 << 20].iter().all(|byte| *byte == 0), "the beginning shows");
        assert!(incomplete[1 << 20..] == new[1 << 20..], "the rest is not there");
        veil.finish(&target).unwrap();
        let mut expected = new;
        expected[1000..1500].fill(0);
        assert!(bytes(&target) == expected, "something is missing");
    }

    #[test]
    fn a_disk_that_nothing_was_written_to_is_left_alone() {
        let target = Plain::new(SIZE);
        target.write_at(0, &[7; 4096]).unwrap();
        Veil::over(SIZE).finish(&target).unwrap();
        assert_eq!(bytes(&target)[..4096], [7; 4096]);
    }

    #[test]
    fn a_disk_may_be_smaller_than_what_is_kept() {
        let target = Plain::new(1000);
        let veil = Veil::over(1000);
        veil.write_at(below(&target), 0, &[1; 600]).unwrap();
        veil.zero_at(below(&target), 600, 400).unwrap();
        assert_eq!(bytes(&target), [0; 1000]);
        veil.finish(&target).unwrap();
        assert_eq!(bytes(&target), [[1; 600].as_slice(), &[0; 400]].concat());
    }

    #[test]
    fn what_is_not_written_stays_and_is_read_as_it_will_be() {
        let target = Plain::new(SIZE);
        let mut expected = bytes(&target);
        let veil = Veil::over(SIZE);
        veil.write_at(below(&target), 700_000, &vec![1; 100_000]).unwrap();
        veil.zero_at(below(&target), (1 << 20) - 10, 20).unwrap();
        expected[700_000..800_000].fill(1);
        expected[(1 << 20) - 10..(1 << 20) + 10].fill(0);
        let mut read = vec![0; 3 << 20];
        let (first, rest) = read.split_at_mut(300_000);
        let (second, third) = rest.split_at_mut(1 << 20);
        let mut parts = [(0, first), (300_000, second), (300_000 + (1 << 20), third)]
            .map(|(offset, buffer)| ReadPart { offset, buffer });
        veil.read(&target, &mut parts).unwrap();
        assert!(read == expected, "it is read otherwise");
        assert!(bytes(&target)[..1 << 20].iter().all(|byte| *byte == 0), "the beginning shows");
        veil.finish(&target).unwrap();
        assert!(bytes(&target) == expected, "it is otherwise");
    }
}
