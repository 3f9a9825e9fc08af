//! A disk of a snapshot, read where it is wanted: `root > map > chunks > bytes`, each step when it is needed.
//!
//! Nothing is read before it is asked for, so a view of a disk of any size is there at once. Every chunk is checked
//! against its id before a byte of it is given out. What is damaged or missing is an error of those reads that want
//! it, and is tried again by the next of them.
//!
//! What several readers want at the same time is fetched once. What lies together in a pack is fetched with one request,
//! and different requests of one read at the same time. Within [`DiskView::reading_ahead`] threads read what is likely to
//! be wanted next.
//!
//! # Memory
//! [`ViewSettings::cache_bytes`] of chunks and `MAP_BYTES` of map; `READ_LEN` for each read under way, twice, as
//! what it fetches is sealed first and plain then; `JOB_LEN` for each of the threads that read ahead, twice; the map
//! reader's nodes, a few MiB, 4096 keys of packs, and directories of packs that others were repacked into (see `moved`).

mod ahead;
mod chunks;
mod queue;
mod regions;

use crate::cache::{Cache, Shared};
use crate::error::EngineError;
use crate::extent::Extent;
use crate::frames::{FrameReader, Scratch};
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::map::sequence::StoredPiece;
use crate::repository::Repository;
use chunks::Chunk;
use queue::Ahead;
use regions::Region;
use repo_format::{Disk, Location, SessionId};
use serde::Serialize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is kept of the map: that of some 10 GiB of data.
const MAP_BYTES: u64 = 64 << 20;
/// A longer read is done in such steps, in bytes.
const READ_LEN: usize = 32 << 20;
/// Requests that one read has under way at a time.
const REQUESTS_OF_READ: usize = 16;
/// Regions whose maps one answer about areas needs at most. They are loaded in batches, each four times the one before.
const REGIONS_OF_ANSWER: u64 = 256;
const REGIONS_FIRST: u64 = 1;

/// How a disk is viewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewSettings {
    /// The most that is kept of chunks, in bytes. What is read ahead is at most half of it.
    pub cache_bytes: u64,
}

impl Default for ViewSettings {
    /// 256 MiB.
    fn default() -> Self {
        Self { cache_bytes: 256 << 20 }
    }
}

/// One disk of a snapshot, read lazily, by any number of threads.
pub struct DiskView<'r, 's> {
    key: String,
    map: MapReader<'r, 'r, 's>,
    maps: Cache<u64, Arc<Region>>,
    chunks: Cache<Location, Chunk>,
    scratches: Mutex<Vec<Scratch>>,
    /// Threads that fetch chunks beside those who read.
    helpers: AtomicUsize,
    ahead: Ahead,
    counts: Counts,
}

/// A range of a disk that is all data or all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where.
    pub extent: Extent,
    /// What is there.
    pub kind: AreaKind,
}

/// What is in a range of a disk, as its map tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaKind {
    /// Bytes, or what is lost.
    Data,
    /// Nothing: it reads as zeros.
    Hole,
}

/// What came of a read that waits for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// Some of it is not in memory; the buffer is in any state.
    Absent,
    /// All of it lies in holes; the buffer is zero.
    Zeros,
    /// The buffer is filled.
    Data,
}

/// What a view did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ViewStats {
    /// Reads.
    pub reads: u64,
    /// The bytes that they asked for.
    pub read_bytes: u64,
    /// Chunks that reads found in memory.
    pub hits: u64,
    /// Chunks that reads waited for while somebody else fetched them.
    pub awaited: u64,
    /// Chunks that reads fetched.
    pub misses: u64,
    /// Chunks that were fetched ahead.
    pub ahead: u64,
    /// Bytes of packs that were fetched for chunks.
    pub fetched_bytes: u64,
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    hits: AtomicU64,
    awaited: AtomicU64,
    misses: AtomicU64,
    ahead: AtomicU64,
    fetched_bytes: AtomicU64,
}

impl<'r, 's> DiskView<'r, 's> {
    /// Views a disk; nothing of it is read yet.
    #[must_use]
    pub fn open(repository: &'r Repository<'s>, disk: &Disk, settings: ViewSettings) -> Self {
        Self::read_with(FrameReader::new(repository), disk, settings)
    }

    /// Views a disk of a snapshot that may be forgotten meanwhile: what cannot be read then is no damage, but
    /// [`EngineError::ForgottenMeanwhile`].
    #[must_use]
    pub fn of_snapshot(
        repository: &'r Repository<'s>,
        snapshot: SessionId,
        disk: &Disk,
        settings: ViewSettings,
    ) -> Self {
        Self::read_with(FrameReader::of_snapshots(repository, vec![snapshot]), disk, settings)
    }

    fn read_with(frames: FrameReader<'r, 's>, disk: &Disk, settings: ViewSettings) -> Self {
        let shape = Shape::new(&frames.repository().config().geometry, disk.size);
        Self {
            key: disk.key.clone(),
            map: MapReader::with_own_frames(frames, shape, disk.map.clone()),
            maps: Cache::new(MAP_BYTES),
            chunks: Cache::new(settings.cache_bytes),
            scratches: Mutex::default(),
            helpers: AtomicUsize::new(0),
            ahead: Ahead::new(disk.size, settings.cache_bytes / 2),
            counts: Counts::default(),
        }
    }

    /// The disk's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.map.shape().size
    }

    /// Fills a buffer with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`EngineError::OutsideOfDisk`]; [`EngineError::Unreadable`] with the range on the disk that cannot be read, and why:
    /// its source names the blob that is damaged or missing.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), EngineError> {
        let Some(read) = self.checked(offset, buffer.len() as u64)? else { return Ok(()) };
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.read_bytes.fetch_add(read.length, Ordering::Relaxed);
        self.ahead.note(read);
        let mut start = read.start;
        for part in buffer.chunks_mut(READ_LEN) {
            let extent = Extent { start, length: part.len() as u64 };
            self.read_part(extent, part)?;
            start = extent.end();
        }
        Ok(())
    }

    /// Fills a buffer with the bytes from `offset` on, if all of them are in memory.
    ///
    /// # Errors
    /// [`EngineError::OutsideOfDisk`].
    pub fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<Cached, EngineError> {
        let Some(read) = self.checked(offset, buffer.len() as u64)? else { return Ok(Cached::Zeros) };
        let Some(regions) = self.regions_of(read) else { return Ok(Cached::Zeros) };
        let mut hits = 0;
        for number in regions {
            let Some(region) = self.maps.get(&number) else { return Ok(Cached::Absent) };
            let (start, range) = self.within(number, read);
            for piece in region.pieces_in(&range) {
                let target = part_of(buffer, start, piece, read);
                match &piece.at {
                    None => target.fill(0),
                    Some(at) => {
                        let Some(chunk) = self.chunks.get(at) else { return Ok(Cached::Absent) };
                        copy(&chunk, start, piece, read, target);
                        hits += 1;
                    }
                }
            }
        }
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.read_bytes.fetch_add(read.length, Ordering::Relaxed);
        self.counts.hits.fetch_add(hits, Ordering::Relaxed);
        self.ahead.note(read);
        Ok(if hits > 0 { Cached::Data } else { Cached::Zeros })
    }

    /// Tells what is data and what is a hole from `start` on, without gaps and each different from the one before, in at
    /// most `count` areas. They end at `end` or before: there is at least one, unless nothing was asked for.
    ///
    /// # Errors
    /// [`EngineError::OutsideOfDisk`]; a store that fails. Where the map is damaged there is data.
    pub fn areas(&self, start: u64, end: u64, count: usize) -> Result<Vec<Area>, EngineError> {
        let mut areas: Vec<Area> = Vec::new();
        let Some(asked) = self.checked(start, end.saturating_sub(start))? else { return Ok(areas) };
        let region_len = u64::from(self.map.shape().region_len);
        let mut at = asked.start;
        let mut batch = REGIONS_FIRST;
        let mut left = REGIONS_OF_ANSWER;
        while at < asked.end() && left > 0 && areas.len() <= count {
            let first = self.next_region(at / region_len)?;
            let hole_end = first.map_or(asked.end(), |first| asked.end().min(first * region_len));
            add(&mut areas, at, hole_end, AreaKind::Hole);
            at = at.max(hole_end);
            let Some(first) = first.filter(|_| at < asked.end()) else { continue };
            let last = asked.end().div_ceil(region_len).min(first + batch.min(left));
            let numbers: Vec<u64> = (first..last).collect();
            let regions = self.regions(&numbers).map_err(|source| self.unreadable(asked, source))?;
            for (number, region) in numbers.iter().zip(regions) {
                let (start, range) = self.within(*number, asked);
                for piece in region.pieces_in(&range).filter(|piece| piece.at.is_none()) {
                    let hole = extent_of(start, piece).clip(asked.start, asked.end());
                    let Some(hole) = hole else { continue };
                    add(&mut areas, at, hole.start, AreaKind::Data);
                    add(&mut areas, hole.start, hole.end(), AreaKind::Hole);
                    at = hole.end();
                }
                let end = asked.end().min(start + u64::from(self.map.shape().region_bytes(*number)));
                add(&mut areas, at, end, AreaKind::Data);
                at = end;
            }
            left -= last - first;
            batch *= 4;
        }
        areas.truncate(count);
        Ok(areas)
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> ViewStats {
        let Counts { reads, read_bytes, hits, awaited, misses, ahead, fetched_bytes } = &self.counts;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ViewStats {
            reads: count(reads),
            read_bytes: count(read_bytes),
            hits: count(hits),
            awaited: count(awaited),
            misses: count(misses),
            ahead: count(ahead),
            fetched_bytes: count(fetched_bytes),
        }
    }

    /// The range of a read within the disk; nothing if it is empty.
    fn checked(&self, offset: u64, length: u64) -> Result<Option<Extent>, EngineError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size() => Ok(Extent::between(offset, end)),
            _ => {
                Err(EngineError::OutsideOfDisk { disk: self.key.clone(), size: self.size(), offset, length })
            }
        }
    }

    fn read_part(&self, read: Extent, buffer: &mut [u8]) -> Result<(), EngineError> {
        let (numbers, regions) = self.regions_with(read)?;
        let mut places = Vec::new();
        for (number, region) in numbers.iter().zip(&regions) {
            let (start, range) = self.within(*number, read);
            if let Some(lost) = region.lost_in(&range) {
                let extent = Extent { start: start + u64::from(lost.start), length: lost.len.into() };
                return Err(self.unreadable(extent, Arc::clone(&lost.cause)));
            }
            places.extend(region.pieces_in(&range).filter_map(|piece| piece.at.as_ref()));
        }
        let mut chunks = self.chunks(&places, REQUESTS_OF_READ).into_iter();
        for (number, region) in numbers.iter().zip(&regions) {
            let (start, range) = self.within(*number, read);
            for piece in region.pieces_in(&range) {
                let target = part_of(buffer, start, piece, read);
                if piece.at.is_none() {
                    target.fill(0);
                    continue;
                }
                let chunk = chunks.next().expect("each place gives a chunk");
                let chunk = chunk.map_err(|source| self.unreadable(extent_of(start, piece), source))?;
                copy(&chunk, start, piece, read, target);
            }
        }
        Ok(())
    }

    /// Has the chunks of a range fetched, as far as they can be.
    fn read_into_cache(&self, wanted: Extent, threads: usize) -> Result<(), EngineError> {
        let (numbers, regions) = self.regions_with(wanted)?;
        let mut places = Vec::new();
        for (number, region) in numbers.iter().zip(&regions) {
            let (_, range) = self.within(*number, wanted);
            places.extend(region.pieces_in(&range).filter_map(|piece| piece.at.as_ref()));
        }
        self.fetch_absent(&places, threads);
        Ok(())
    }

    fn regions_with(&self, read: Extent) -> Result<(Vec<u64>, Vec<Arc<Region>>), EngineError> {
        let numbers: Vec<u64> = self.regions_of(read).into_iter().flatten().collect();
        let regions = self.regions(&numbers).map_err(|source| self.unreadable(read, source))?;
        Ok((numbers, regions))
    }

    /// The numbers of the regions that a range meets; nothing of what lies behind the disk.
    fn regions_of(&self, range: Extent) -> Option<Range<u64>> {
        let range = range.clip(0, self.size())?;
        let region_len = u64::from(self.map.shape().region_len);
        Some(range.start / region_len..range.end().div_ceil(region_len))
    }

    /// Where a region begins, and the part of a range in it, counted from there.
    fn within(&self, number: u64, range: Extent) -> (u64, Range<u32>) {
        let shape = self.map.shape();
        let start = number * u64::from(shape.region_len);
        let end = start + u64::from(shape.region_bytes(number));
        let within =
            |at: u64| u32::try_from(at.clamp(start, end) - start).expect("a region is shorter than 4 GiB");
        (start, within(range.start)..within(range.end()))
    }

    /// The first region from `number` on that is not one hole, as far as is known without its pages.
    fn next_region(&self, number: u64) -> Result<Option<u64>, EngineError> {
        let shape = self.map.shape();
        let cells_of_region = u64::from(shape.region_len / shape.cell_len);
        let next = self.map.next_page(number * cells_of_region);
        let start = number * u64::from(shape.region_len);
        Ok(next.map_err(|error| MapReader::unreadable(start, error))?.map(|cell| cell / cells_of_region))
    }

    fn unreadable(&self, extent: Extent, source: Shared) -> EngineError {
        let Extent { start: offset, length } = extent;
        EngineError::Unreadable { disk: self.key.clone(), offset, length, source }
    }
}

/// A piece of a region that begins at `start`.
fn extent_of(start: u64, piece: &StoredPiece) -> Extent {
    Extent { start: start + u64::from(piece.start), length: piece.len.into() }
}

/// What of a buffer for `read` a piece fills.
fn part_of<'b>(buffer: &'b mut [u8], start: u64, piece: &StoredPiece, read: Extent) -> &'b mut [u8] {
    let part = extent_of(start, piece).clip(read.start, read.end()).expect("only pieces that meet the read");
    let from = usize::try_from(part.start - read.start).expect("it lies within the buffer");
    &mut buffer[from..from + usize::try_from(part.length).expect("it lies within the buffer")]
}

/// Copies what of a chunk belongs to a read.
fn copy(chunk: &[u8], start: u64, piece: &StoredPiece, read: Extent, target: &mut [u8]) {
    let skipped = read.start.saturating_sub(start + u64::from(piece.start));
    let skipped = usize::try_from(skipped).expect("it lies within the chunk");
    target.copy_from_slice(&chunk[skipped..skipped + target.len()]);
}

/// Adds what lies between two offsets, which may be nothing, behind other areas.
pub(crate) fn add(areas: &mut Vec<Area>, start: u64, end: u64, kind: AreaKind) {
    let Some(extent) = Extent::between(start, end) else { return };
    match areas.last_mut() {
        Some(last) if last.kind == kind => last.extent.length += extent.length,
        _ => areas.push(Area { extent, kind }),
    }
}
