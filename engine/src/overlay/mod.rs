//! Changes over a disk of a snapshot, kept in a sparse file: the disk can be written, and the snapshot stays as it is.
//!
//! A block of 4 KiB is as in the snapshot, zero, or in the file. What is written in part is completed from below first,
//! so that a block is never of two kinds. What was flushed is there after a crash, whole; of what was not, any block may
//! be as before, as after, or of a disk's sectors some as before and some as after: just as with a disk that loses power.
//!
//! The file is bound to its disk and snapshot, and used by one process at a time. Its length is that of the parts of the
//! disk, 32 MiB each, that were ever changed; what it takes is the changes.
//!
//! # Memory
//! Some 2 KiB for each part of 32 MiB that has changes: 64 MiB for each TiB of disk that is changed all over; and for each
//! write that does not begin and end at blocks, once more what it writes.

mod changed;
mod medium;
mod record;
mod recovery;

pub use changed::ChangedDisk;
pub use medium::Medium;

use crate::error::EngineError;
use crate::extent::{Extent, normalized};
use crate::frames::lock;
use crate::view::{Area, AreaKind, DiskView, add};
use record::{
    BLOCK_BYTES, BLOCK_LEN, BLOCKS, Block, Blocks, RECORD_LEN, Record, SEGMENT_LEN, Tally, Wrong, beginning,
    check_header, data_start, record_start, tally_start,
};
use recovery::{read_padded, read_state};
use repo_format::{RepositoryId, SessionId};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

/// Locks of segments: two segments that share one wait for each other, which harms nothing.
const STRIPES: u64 = 64;
/// Ranges that are looked at together.
const RUNS_AT_ONCE: usize = 4096;

/// What an overlay's changes are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayOf<'a> {
    /// The repository.
    pub repository: RepositoryId,
    /// The snapshot.
    pub snapshot: SessionId,
    /// The disk's key.
    pub disk: &'a str,
    /// The disk's size in bytes.
    pub size: u64,
}

/// Why a file cannot be used as an overlay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// It cannot be reached.
    #[error("could not {action} the overlay {}", path.display())]
    Io {
        /// "create", "open", "lock" or "read".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the overlay {} is in use by another process", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} is no overlay", path.display())]
    NotAnOverlay {
        /// The file.
        path: PathBuf,
    },
    /// Its changes are over another disk or snapshot.
    #[error("the changes in {} are over another disk or another snapshot", path.display())]
    OtherDisk {
        /// The file.
        path: PathBuf,
    },
    /// It was made by a later version.
    #[error("the overlay {} has the format {found}, which this program does not know", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The format's number.
        found: u32,
    },
    /// Something in it was changed, or some of what was flushed into it is missing.
    #[error("the overlay {} is damaged, or some of it is missing", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Why a change cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ChangeError {
    #[error("the range reaches beyond the end of the disk")]
    OutsideOfDisk,
    #[error("the overlay takes no more changes, since some could not be made durable")]
    Failed,
}

/// A disk with changes over it.
pub struct Overlay<'v, 'r, 's> {
    view: &'v DiskView<'r, 's>,
    medium: Box<dyn Medium>,
    header: [u8; RECORD_LEN],
    state: Mutex<State>,
    /// Whoever writes whole blocks of a segment shares its lock; whoever completes blocks has it alone.
    stripes: Vec<RwLock<()>>,
    /// One flush at a time.
    flushing: Mutex<()>,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    /// Slots of the file that are used or were.
    slots: u64,
    /// Those of them that keep nothing.
    free: Vec<u64>,
    /// What was durable after the last flush.
    tally: Tally,
    /// Whether something was written since all was made durable.
    is_unsynced: bool,
    /// Whether something that was to be made durable may not be.
    has_failed: bool,
}

struct Segment {
    slot: u64,
    /// That of the record that counts; 0 if there is none.
    generation: u64,
    blocks: Box<Blocks>,
    /// Whether the record that counts tells something else.
    is_dirty: bool,
}

/// What a range consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Base,
    Zero,
    /// From here on in the file.
    File(u64),
}

type Run = (Extent, Content);

impl<'v, 'r, 's> Overlay<'v, 'r, 's> {
    /// Opens the changes in a file, or begins with none in a new one of mode 0600.
    ///
    /// # Errors
    /// A file that is of another disk or snapshot, damaged, used by another process or something else.
    pub fn open(view: &'v DiskView<'r, 's>, of: &OverlayOf<'_>, path: &Path) -> Result<Self, OverlayError> {
        let file: File = medium::open(path, of)?;
        Self::over(view, of, Box::new(file), path)
    }

    /// The same in any medium that has a header; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Overlay::open`].
    pub fn over(
        view: &'v DiskView<'r, 's>,
        of: &OverlayOf<'_>,
        medium: Box<dyn Medium>,
        path: &Path,
    ) -> Result<Self, OverlayError> {
        let failed = |source| OverlayError::Io { action: "read", path: path.to_owned(), source };
        let found = read_padded(medium.as_ref(), 0).map_err(failed)?;
        check_header(&found, of).map_err(|wrong| wrong.of(path))?;
        let state = read_state(medium.as_ref(), &found, of.size).map_err(failed)?;
        let state = state.ok_or_else(|| OverlayError::Damaged { path: path.to_owned() })?;
        Ok(Self {
            view,
            medium,
            header: found,
            state: Mutex::new(state),
            stripes: (0..STRIPES).map(|_| RwLock::default()).collect(),
            flushing: Mutex::default(),
        })
    }

    /// The bytes that a medium begins with that has no changes yet.
    #[must_use]
    pub fn new_header(of: &OverlayOf<'_>) -> Vec<u8> {
        beginning(of)
    }

    /// The disk below.
    #[must_use]
    pub fn view(&self) -> &'v DiskView<'r, 's> {
        self.view
    }

    /// Fills a buffer with the bytes from `offset` on.
    ///
    /// # Errors
    /// A range beyond the disk's end; what cannot be read of the snapshot ([`EngineError`] is the inner error) or the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(read) = self.checked(offset, buffer.len() as u64)? else { return Ok(()) };
        let mut at = read.start;
        while at < read.end() {
            for (extent, content) in self.runs(at..read.end()) {
                let part = part_of(buffer, read, extent);
                match content {
                    Content::Base => self.view.read_at(extent.start, part).map_err(below)?,
                    Content::Zero => part.fill(0),
                    Content::File(position) => self.medium.read_at(position, part)?,
                }
                at = extent.end();
            }
        }
        Ok(())
    }

    /// Writes; durable after the next [`Overlay::flush`].
    ///
    /// # Errors
    /// A range beyond the disk's end; a file that cannot be written, or could not be made durable before; what is needed of
    /// the snapshot to complete a block.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(write) = self.checked(offset, data.len() as u64)? else { return Ok(()) };
        let whole = self.blocks_around(write);
        let _locks = self.locked(whole, write == whole);
        self.write_locked(write, whole, data)
    }

    fn write_locked(&self, write: Extent, whole: Extent, data: &[u8]) -> io::Result<()> {
        if write == whole {
            return self.write_blocks(whole, data);
        }
        let len = usize::try_from(whole.length).expect("little more than what is in memory");
        let mut bytes = vec![0; len];
        let before = usize::try_from(write.start - whole.start).expect("less than a block");
        let behind = before + data.len();
        if before > 0 {
            let first = len.min(BLOCK_BYTES);
            self.read_at(whole.start, &mut bytes[..first])?;
        }
        let last = (len - 1) / BLOCK_BYTES * BLOCK_BYTES;
        if behind < len && (last > 0 || before == 0) {
            self.read_at(whole.start + last as u64, &mut bytes[last..])?;
        }
        bytes[before..behind].copy_from_slice(data);
        self.write_blocks(whole, &bytes)
    }

    /// Makes a range zero.
    ///
    /// # Errors
    /// As [`Overlay::write_at`].
    pub fn zero_at(&self, offset: u64, length: u64) -> io::Result<()> {
        let Some(zero) = self.checked(offset, length)? else { return Ok(()) };
        let whole = self.blocks_around(zero);
        let _locks = self.locked(whole, false);
        match self.blocks_within(zero) {
            None => self.write_part(zero),
            Some(blocks) => {
                Extent::between(zero.start, blocks.start).map_or(Ok(()), |edge| self.write_part(edge))?;
                Extent::between(blocks.end(), zero.end()).map_or(Ok(()), |edge| self.write_part(edge))?;
                self.zero_blocks(blocks)
            }
        }
    }

    /// Gives up what a range holds: blocks that lie within it are zero, and take no room.
    ///
    /// # Errors
    /// As [`Overlay::write_at`].
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let Some(blocks) = self.checked(offset, length)?.and_then(|extent| self.blocks_within(extent)) else {
            return Ok(());
        };
        let _locks = self.locked(blocks, false);
        self.zero_blocks(blocks)
    }

    /// Makes durable what was changed before.
    ///
    /// # Errors
    /// When some of that may be lost; then no more changes are taken.
    pub fn flush(&self) -> io::Result<()> {
        let _one = lock(&self.flushing);
        let mut state = lock(&self.state);
        if state.has_failed {
            return Err(io::Error::other(ChangeError::Failed));
        }
        if !std::mem::take(&mut state.is_unsynced) {
            return Ok(());
        }
        let mut records = Vec::new();
        for (number, segment) in state.segments.iter_mut().filter(|(_, segment)| segment.is_dirty) {
            segment.is_dirty = false;
            let blocks = (*segment.blocks).clone();
            let record = Record { segment: *number, generation: segment.generation + 1, blocks };
            records.push((segment.slot, record));
        }
        let before: u64 = state.segments.values().map(|segment| segment.generation).sum();
        let tally = Tally { number: state.tally.number + 1, generations: before + records.len() as u64 };
        drop(state);
        let flushed = self.flush_records(&records, tally);
        let mut state = lock(&self.state);
        if flushed.is_err() {
            // What the system could not write it does not try to write again.
            state.has_failed = true;
        }
        if flushed.is_ok() && !records.is_empty() {
            state.tally = tally;
        }
        for (_, record) in records.iter().filter(|_| flushed.is_ok()) {
            if let Some(segment) = state.segments.get_mut(&record.segment) {
                segment.generation = record.generation;
            }
        }
        flushed
    }

    /// Data come before what tells of them, and the tally last: it tells what is to be there from now on.
    fn flush_records(&self, records: &[(u64, Record)], tally: Tally) -> io::Result<()> {
        self.medium.sync()?;
        if records.is_empty() {
            return Ok(());
        }
        for (slot, record) in records {
            let position = record_start(*slot, record.generation);
            self.medium.write_at(position, &record.encode(*slot, &self.header))?;
        }
        self.medium.sync()?;
        self.medium.write_at(tally_start(tally.number), &tally.encode(&self.header))?;
        self.medium.sync()
    }

    /// Tells what is data and what is a hole, as [`DiskView::areas`] does.
    ///
    /// # Errors
    /// A range beyond the disk's end; a store that fails.
    pub fn areas(&self, start: u64, end: u64, count: usize) -> Result<Vec<Area>, EngineError> {
        let base = self.view.areas(start, end, count)?;
        let Some(covered) = base.last().map(|area| area.extent.end()) else { return Ok(base) };
        let mut areas = Vec::new();
        let mut base = base.into_iter().peekable();
        for (extent, content) in self.runs(start..covered) {
            let kind = match content {
                Content::Zero => AreaKind::Hole,
                Content::File(_) => AreaKind::Data,
                Content::Base => {
                    while let Some(area) = base.peek() {
                        let part = area.extent.clip(extent.start, extent.end());
                        if let Some(part) = part {
                            add(&mut areas, part.start, part.end(), area.kind);
                        }
                        if area.extent.end() > extent.end() {
                            break;
                        }
                        base.next();
                    }
                    continue;
                }
            };
            add(&mut areas, extent.start, extent.end(), kind);
            while base.next_if(|area| area.extent.end() <= extent.end()).is_some() {}
        }
        areas.truncate(count);
        Ok(areas)
    }

    /// Where the disk may differ from the snapshot.
    #[must_use]
    pub fn changed(&self) -> Vec<Extent> {
        let mut changed = Vec::new();
        let mut at = 0;
        while at < self.view.size() {
            for (extent, content) in self.runs(at..self.view.size()) {
                at = extent.end();
                changed.extend((content != Content::Base).then_some(extent));
            }
        }
        normalized(changed)
    }

    fn checked(&self, offset: u64, length: u64) -> io::Result<Option<Extent>> {
        match offset.checked_add(length) {
            Some(end) if end <= self.view.size() => Ok(Extent::between(offset, end)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, ChangeError::OutsideOfDisk)),
        }
    }

    /// A range made longer, to where blocks begin and end.
    fn blocks_around(&self, extent: Extent) -> Extent {
        let start = extent.start / BLOCK_LEN * BLOCK_LEN;
        let end = extent.end().div_ceil(BLOCK_LEN).saturating_mul(BLOCK_LEN).min(self.view.size());
        Extent { start, length: end - start }
    }

    /// The blocks that lie within a range; the disk's last one may be short.
    fn blocks_within(&self, extent: Extent) -> Option<Extent> {
        let is_to_end = extent.end() == self.view.size();
        let end = if is_to_end { extent.end() } else { extent.end() / BLOCK_LEN * BLOCK_LEN };
        Extent::between(extent.start.div_ceil(BLOCK_LEN) * BLOCK_LEN, end)
    }

    fn locked(&self, blocks: Extent, is_shared: bool) -> Vec<Locked<'_>> {
        let (first, last) = (blocks.start / SEGMENT_LEN, (blocks.end() - 1) / SEGMENT_LEN);
        // A long range meets every stripe.
        let segments = first..=last.min(first + STRIPES - 1);
        let mut stripes: Vec<u64> = segments.map(|segment| segment % STRIPES).collect();
        // In one order, so that nobody waits in a circle.
        stripes.sort_unstable();
        let stripe = |number: u64| &self.stripes[usize::try_from(number).expect("few stripes")];
        let lock = |number| {
            if is_shared {
                Locked::Shared { _lock: stripe(number).read().unwrap_or_else(PoisonError::into_inner) }
            } else {
                Locked::Alone { _lock: stripe(number).write().unwrap_or_else(PoisonError::into_inner) }
            }
        };
        stripes.into_iter().map(lock).collect()
    }

    /// Makes a part of a block zero, or of two.
    fn write_part(&self, part: Extent) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(part.length).expect("less than two blocks")];
        self.write_locked(part, self.blocks_around(part), &zeros)
    }

    fn write_blocks(&self, blocks: Extent, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        for part in by_segment(blocks) {
            let segment = part.start / SEGMENT_LEN;
            let slot = self.slot_of(segment)?;
            let (now, later) = rest.split_at(usize::try_from(part.length).expect("it is in memory"));
            self.medium.write_at(data_start(slot) + part.start % SEGMENT_LEN, now)?;
            rest = later;
            self.mark(segment, block_range(part), Block::Written);
        }
        Ok(())
    }

    fn zero_blocks(&self, blocks: Extent) -> io::Result<()> {
        let mut at = blocks.start;
        while at < blocks.end() {
            // What is a hole below and was not changed is zero already.
            let areas = self.view.areas(at, blocks.end(), RUNS_AT_ONCE).map_err(below)?;
            let covered = areas.last().map_or(blocks.end(), |area| area.extent.end());
            // A block is looked at whole, where it is data in part.
            let covered = if covered == blocks.end() { covered } else { covered / BLOCK_LEN * BLOCK_LEN };
            let covered = covered.max(at + BLOCK_LEN.min(blocks.end() - at));
            for area in areas.iter().filter(|area| area.kind == AreaKind::Data) {
                let Some(data) = area.extent.clip(at, covered) else { continue };
                by_segment(self.blocks_around(data)).try_for_each(|part| self.zero_part(part))?;
            }
            for written in self.written_within(at..covered) {
                by_segment(written).try_for_each(|part| self.zero_part(part))?;
            }
            at = covered;
        }
        Ok(())
    }

    fn written_within(&self, range: Range<u64>) -> Vec<Extent> {
        let mut written = Vec::new();
        let mut at = range.start;
        while at < range.end {
            for (extent, content) in self.runs(at..range.end) {
                at = extent.end();
                written.extend(matches!(content, Content::File(_)).then_some(extent));
            }
        }
        written
    }

    fn zero_part(&self, part: Extent) -> io::Result<()> {
        let segment = part.start / SEGMENT_LEN;
        let slot = self.slot_of(segment)?;
        // What the file holds goes after it counts no more.
        self.mark(segment, block_range(part), Block::Zero);
        self.medium.zero_at(data_start(slot) + part.start % SEGMENT_LEN, part.length)
    }

    fn slot_of(&self, number: u64) -> io::Result<u64> {
        let mut state = lock(&self.state);
        if state.has_failed {
            return Err(io::Error::other(ChangeError::Failed));
        }
        if let Some(segment) = state.segments.get(&number) {
            return Ok(segment.slot);
        }
        let slot = state.free.pop().unwrap_or_else(|| {
            state.slots += 1;
            state.slots - 1
        });
        let blocks = Box::new(Blocks::new());
        state.segments.insert(number, Segment { slot, generation: 0, blocks, is_dirty: false });
        Ok(slot)
    }

    fn mark(&self, segment: u64, blocks: Range<usize>, to: Block) {
        let mut state = lock(&self.state);
        state.is_unsynced = true;
        if let Some(segment) = state.segments.get_mut(&segment) {
            for block in blocks {
                segment.is_dirty |= segment.blocks.set(block, to);
            }
        }
    }

    /// What a range consists of from its start on, without gaps; it may end before the range does.
    fn runs(&self, range: Range<u64>) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let state = lock(&self.state);
        let mut at = range.start;
        let first = range.start / SEGMENT_LEN;
        for (number, segment) in state.segments.range(first..) {
            let start = number * SEGMENT_LEN;
            if start >= range.end || runs.len() >= RUNS_AT_ONCE {
                break;
            }
            push(&mut runs, at..start.min(range.end), Content::Base);
            at = at.max(start);
            let end = range.end.min(start + SEGMENT_LEN);
            while at < end {
                let block = usize::try_from((at - start) / BLOCK_LEN).expect("few blocks");
                let content = match segment.blocks.get(block) {
                    Block::Base => Content::Base,
                    Block::Zero => Content::Zero,
                    Block::Written => Content::File(data_start(segment.slot) + (at - start)),
                };
                let block_end = end.min((at / BLOCK_LEN + 1) * BLOCK_LEN);
                push(&mut runs, at..block_end, content);
                at = block_end;
            }
        }
        if runs.len() < RUNS_AT_ONCE {
            push(&mut runs, at..range.end, Content::Base);
        }
        runs
    }
}

/// A lock on a stripe.
enum Locked<'l> {
    Shared { _lock: std::sync::RwLockReadGuard<'l, ()> },
    Alone { _lock: std::sync::RwLockWriteGuard<'l, ()> },
}

impl Wrong {
    fn of(self, path: &Path) -> OverlayError {
        let path = path.to_owned();
        match self {
            Self::NotAnOverlay => OverlayError::NotAnOverlay { path },
            Self::Damaged => OverlayError::Damaged { path },
            Self::Version(found) => OverlayError::Version { path, found },
            Self::OtherDisk => OverlayError::OtherDisk { path },
        }
    }
}

/// Adds a run, or makes the last one longer.
fn push(runs: &mut Vec<Run>, range: Range<u64>, content: Content) {
    let Some(extent) = Extent::between(range.start, range.end) else { return };
    if let Some((last, kind)) = runs.last_mut() {
        let goes_on = match (*kind, content) {
            (Content::File(begun), Content::File(position)) => begun + last.length == position,
            (kind, content) => kind == content,
        };
        if goes_on {
            last.length += extent.length;
            return;
        }
    }
    runs.push((extent, content));
}

/// The parts of a range that lie in one segment each.
fn by_segment(range: Extent) -> impl Iterator<Item = Extent> {
    (range.start / SEGMENT_LEN..=(range.end() - 1) / SEGMENT_LEN)
        .filter_map(move |segment| range.clip(segment * SEGMENT_LEN, (segment + 1) * SEGMENT_LEN))
}

/// The blocks of a range within one segment, counted from its start.
fn block_range(part: Extent) -> Range<usize> {
    let block = |offset: u64| usize::try_from(offset / BLOCK_LEN).expect("few blocks");
    let first = block(part.start % SEGMENT_LEN);
    first..(first + block(part.length.next_multiple_of(BLOCK_LEN))).min(BLOCKS)
}

/// What of a buffer for `read` a part of it fills.
fn part_of(buffer: &mut [u8], read: Extent, part: Extent) -> &mut [u8] {
    let from = usize::try_from(part.start - read.start).expect("it lies within the buffer");
    &mut buffer[from..from + usize::try_from(part.length).expect("it lies within the buffer")]
}

/// An error of the snapshot below, as an error of reading.
fn below(error: EngineError) -> io::Error {
    io::Error::other(error)
}
