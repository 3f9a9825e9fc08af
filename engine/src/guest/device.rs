//! How the readers of file systems read a disk: by handles that may live as long as they like, of a disk that does not.
//!
//! Some readers own what they read by, for ever. So the disk stays with a scoped thread of its own, which a [`Section`]
//! asks; the thread ends when the last section is gone. A few blocks are kept, since most of what a file system asks
//! for lies beside what it asked for before.
//!
//! Memory: [`BLOCKS_KEPT`] blocks of [`BLOCK_LEN`].

use super::GuestDisk;
use crate::error::EngineError;
use std::cell::{Cell, RefCell};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What is read at a time, aligned, where less is asked for: about a chunk.
const BLOCK_LEN: u64 = 64 << 10;
/// Blocks read at a time where one followed the other.
const BLOCKS_AHEAD: u64 = 8;
/// Twice what is read ahead, and the rest for what is returned to.
const BLOCKS_KEPT: usize = 64;
/// No single question to a file system needs more: the longest journals have a gibibyte. A structure that leads back to
/// itself ends here.
const OPERATION_BYTES_MAX: u64 = 2 << 30;

/// Why a reader did not get its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadFailure {
    /// The disk failed; the section keeps how.
    #[error("the disk could not be read")]
    Disk,
    /// A structure points to bytes that the volume does not have.
    #[error("bytes {offset} to {end} are needed, and the volume has {length}")]
    Beyond {
        /// The first byte.
        offset: u64,
        /// The first byte behind.
        end: u64,
        /// The length of the volume.
        length: u64,
    },
    /// One question led to more reads than any can need.
    #[error("reading it does not end")]
    Endless,
}

impl From<ReadFailure> for io::Error {
    fn from(failure: ReadFailure) -> Self {
        Self::other(failure)
    }
}

struct Request {
    offset: u64,
    buffer: Vec<u8>,
}

/// A part of the disk, from its own first byte.
#[derive(Clone)]
pub(super) struct Section {
    device: Rc<Device>,
    start: u64,
    length: u64,
}

struct Device {
    requests: SyncSender<Request>,
    replies: Receiver<Result<Vec<u8>, EngineError>>,
    size: u64,
    blocks: RefCell<Blocks>,
    failure: RefCell<Option<EngineError>>,
    allowance: Cell<u64>,
}

/// The blocks read last, the newest at the end.
#[derive(Default)]
struct Blocks {
    kept: Vec<(u64, Vec<u8>)>,
    /// The block that follows what was read last.
    following: u64,
}

impl Section {
    /// Calls `work` with the whole disk; what it hands out must not be kept.
    pub(super) fn with<T>(disk: &GuestDisk<'_>, work: impl FnOnce(Self) -> T) -> T {
        let (requests, inbox) = sync_channel(0);
        let (outbox, replies) = sync_channel(0);
        std::thread::scope(|scope| {
            scope.spawn(move || serve(disk, &inbox, &outbox));
            let device = Device {
                requests,
                replies,
                size: disk.size,
                blocks: RefCell::default(),
                failure: RefCell::default(),
                allowance: Cell::new(OPERATION_BYTES_MAX),
            };
            work(Self { device: Rc::new(device), start: 0, length: disk.size })
        })
    }

    /// A part of this one, cut off at its end.
    pub(super) fn part(&self, range: Range<u64>) -> Self {
        let start = range.start.min(self.length);
        let length = range.end.min(self.length).saturating_sub(start);
        Self { device: Rc::clone(&self.device), start: self.start + start, length }
    }

    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// A new question to a file system begins.
    pub(super) fn begin(&self) {
        self.device.allowance.set(OPERATION_BYTES_MAX);
        self.device.failure.replace(None);
    }

    /// How the disk failed since then, if it did.
    pub(super) fn failure(&self) -> Option<EngineError> {
        self.device.failure.take()
    }

    /// Fills `buffer` from `offset`.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadFailure> {
        let end = offset.saturating_add(len_of(buffer));
        if end > self.length {
            return Err(ReadFailure::Beyond { offset, end, length: self.length });
        }
        let allowance = self.device.allowance.get().checked_sub(len_of(buffer));
        self.device.allowance.set(allowance.ok_or(ReadFailure::Endless)?);
        // The end lies within the disk, so the sum does too.
        self.device.read(self.start + offset, buffer)
    }

    /// The bytes from `offset` on, or nothing where the section does not have so many.
    pub(super) fn bytes<const N: usize>(&self, offset: u64) -> Result<Option<[u8; N]>, ReadFailure> {
        let mut bytes = [0; N];
        match self.read_at(offset, &mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(ReadFailure::Beyond { .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

impl Device {
    fn read(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), ReadFailure> {
        if len_of(buffer) > BLOCK_LEN {
            let bytes = self.fetch(offset, len_of(buffer))?;
            buffer.copy_from_slice(&bytes);
            return Ok(());
        }
        while !buffer.is_empty() {
            let block = offset / BLOCK_LEN;
            let within = usize::try_from(offset % BLOCK_LEN).expect("a block is short");
            let mut blocks = self.blocks.borrow_mut();
            let bytes = blocks.get(block, |first, count| self.fetch_blocks(first, count))?;
            let bytes = bytes.get(within..).unwrap_or_default();
            let len = bytes.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(len);
            now.copy_from_slice(&bytes[..len]);
            buffer = later;
            offset += len_of(now);
        }
        Ok(())
    }

    fn fetch_blocks(&self, first: u64, count: u64) -> Result<Vec<u8>, ReadFailure> {
        let start = first * BLOCK_LEN;
        self.fetch(start, (count * BLOCK_LEN).min(self.size - start))
    }

    fn fetch(&self, offset: u64, length: u64) -> Result<Vec<u8>, ReadFailure> {
        let buffer = vec![0; usize::try_from(length).map_err(|_| ReadFailure::Endless)?];
        self.requests.send(Request { offset, buffer }).map_err(|_| ReadFailure::Disk)?;
        let read = self.replies.recv().map_err(|_| ReadFailure::Disk)?;
        read.map_err(|error| {
            self.failure.replace(Some(error));
            ReadFailure::Disk
        })
    }
}

impl Blocks {
    fn get(
        &mut self,
        block: u64,
        fetch: impl FnOnce(u64, u64) -> Result<Vec<u8>, ReadFailure>,
    ) -> Result<&[u8], ReadFailure> {
        if let Some(place) = self.kept.iter().position(|(kept, _)| *kept == block) {
            let found = self.kept.remove(place);
            self.kept.push(found);
        } else {
            let count = if block == self.following { BLOCKS_AHEAD } else { 1 };
            let bytes = fetch(block, count)?;
            self.following = block + count;
            self.kept.retain(|(kept, _)| !(block..block + count).contains(kept));
            let len = usize::try_from(BLOCK_LEN).expect("a block is short");
            let found = (block..).zip(bytes.chunks(len).map(<[u8]>::to_vec));
            // The one that is asked for last, as the newest.
            self.kept.extend(found.collect::<Vec<_>>().into_iter().rev());
            self.kept.drain(..self.kept.len().saturating_sub(BLOCKS_KEPT));
        }
        Ok(self.kept.last().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default())
    }
}

/// Reads for a device until that is gone.
fn serve(disk: &GuestDisk<'_>, inbox: &Receiver<Request>, outbox: &SyncSender<Result<Vec<u8>, EngineError>>) {
    while let Ok(Request { offset, mut buffer }) = inbox.recv() {
        let read = (disk.read_at)(offset, &mut buffer);
        if outbox.send(read.map(|()| buffer)).is_err() {
            return;
        }
    }
}

/// A section with a position, for readers that want one.
pub(super) struct Cursor {
    section: Section,
    position: u64,
}

impl Cursor {
    pub(super) fn new(section: Section) -> Self {
        Self { section, position: 0 }
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.section.len().saturating_sub(self.position);
        let len = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        self.section.read_at(self.position, &mut buffer[..len])?;
        self.position += len_of(&buffer[..len]);
        Ok(len)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.section.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The length of a buffer as a number of bytes of a disk.
pub(super) fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length in memory fits 64 bits")
}
