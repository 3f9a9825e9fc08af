//! The chunks of a region after a change, from the chunks before it and the bytes around the change.
//!
//! The result is exactly what chunking the whole region anew gives. It rests on one property of a [`Chunker`]: the
//! end `e` of the chunk that starts at `s` depends on its *decision range* alone, `[s, decided_by(s, e))`, which does
//! not go beyond the region's end `E`, and on `E - s`.
//!
//! **Keeping.** If both the old and the new sequence have a boundary at `s`, and the decision range of the old chunk
//! there meets no changed area, then the new chunk there is the old one. So re-chunking starts at the first old chunk
//! whose decision range meets a changed area, and stops at a new boundary that is an old one whose chunk is not
//! affected; from there on old chunks are kept up to the next affected one. This needs `E` to be the same before
//! and after: a region whose length changed is chunked as if all of it had changed, see [`resize_areas`].
//!
//! **Holes.** The old sequence has all-zero chunks joined into holes `[h, H)`, and their boundaries are needed.
//! Let `Z(n)` be the cut that the chunker finds in `n` zeros before the region's end ([`Chunker::zero_cut`]). An old chunk
//! that starts at `s` in a hole ends at `s + min(Z(E - s), H - s)`: what follows the hole does not matter, which each
//! chunker's module proves. So with `L` the cut in unlimited zeros the boundaries are `h + kL`, but for the last chunk.
//! No chunk of a hole starts behind its last byte, and decision ranges do not fall, so `decided_by(H - 1, H)` is behind
//! all of theirs.
//!
//! **Zeros that are not read.** What lies in an old hole and in no changed area is zero. Chunks whose decision range is
//! all within such zeros are found by the same formula without bytes. The parent of a full read is one hole and its
//! changed areas are the allocated ones, so unallocated ranges cost nothing, by the same path. The same holds for zeros
//! that were read; each byte is compared with zero once.
//!
//! **Reading.** What is [`foreseen`] can be read before, all at once. Whatever is not there is read as the chunking goes
//! on: changed areas in requests of [`REQUEST_LEN`], and beyond them what the chunker wants at least
//! ([`Chunker::least_reach`]), or half an average chunk at a time, until the cut is decided.

use crate::Extent;
use crate::chunker::{Chunker, leading_zeros};
use crate::region::{REQUEST_LEN, RegionBuffer};
use std::io;
use std::ops::Range;

/// A piece of the chunk sequence that the parent snapshot has of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldPiece {
    /// Place within the region.
    pub start: u32,
    /// Bytes, at least 1.
    pub len: u32,
    /// Whether it is a hole, which may stand for several chunks. Adjacent holes are taken as one.
    pub hole: bool,
}

impl OldPiece {
    fn end(self) -> u32 {
        self.start + self.len
    }
}

/// A piece of a region's new chunk sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPiece<T> {
    /// Place within the region.
    pub start: u32,
    /// Bytes, at least 1.
    pub len: u32,
    /// What the bytes are.
    pub content: Content<T>,
}

/// What a new piece consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<T> {
    /// The unchanged chunk at this index of the old pieces.
    Kept(usize),
    /// Zeros; no two holes are adjacent.
    Hole,
    /// A chunk that was read, with what the caller made of its bytes. It may be equal to an old one.
    Fresh(T),
}

/// The chunk sequence of a region after its `areas` changed.
///
/// `old` is the sequence before: contiguous from 0 to the region's end. For a full read it is a single hole, and `areas`
/// are the allocated ones. Where it does not fit the region (a disk that was resized), the region is chunked whole.
/// `areas` are those of the disk (offsets count from its start; sorted, disjoint); those outside the region are
/// ignored. `fresh` is called with the bytes of each new chunk that is not zero, in order. They stay in `region`.
///
/// # Errors
/// When the source cannot be read.
pub fn rechunk<T>(
    chunker: &Chunker,
    region: &mut RegionBuffer<'_>,
    old: &[OldPiece],
    areas: &[Extent],
    fresh: impl FnMut(&[u8]) -> T,
) -> io::Result<Vec<NewPiece<T>>> {
    let len = region.len();
    let all = [Extent { start: region.start(), length: u64::from(len) }];
    let (old, areas) = if covers(old, len) { (old, areas) } else { (&[][..], &all[..]) };
    let areas = areas_within(areas, region.start(), len);
    let zeros = unchanged_holes(old, &areas);
    region.assume_zero(&zeros);
    let (areas, zeros) = (&areas, &zeros);
    let run = Run { chunker, len, areas, zeros, zeros_end: 0, region, fresh, pieces: Vec::new() };
    run.pieces(OldChunks { chunker, old, len, index: 0, at: 0 })
}

/// What [`rechunk`] will read of a region, as far as that can be told before: its changed areas, and around each the old
/// chunks whose decision ranges it touches, with the range of the last one. It is sorted and disjoint, and counts from
/// the region's start.
#[must_use]
pub fn foreseen(
    chunker: &Chunker,
    (region_start, len): (u64, u32),
    old: &[OldPiece],
    areas: &[Extent],
) -> Vec<Range<u32>> {
    if !covers(old, len) {
        return std::iter::once(0..len).collect();
    }
    let mut ranges: Vec<Range<u32>> = Vec::new();
    let mut add = |start: u32, end: u32| ranges.push(start..end);
    for area in areas_within(areas, region_start, len) {
        let first = old.partition_point(|piece| piece_decided_by(chunker, *piece, len) <= area.start);
        let mut decided_by = area.end;
        for piece in &old[first..] {
            if piece.start >= decided_by {
                break;
            }
            if piece.hole {
                continue;
            }
            if piece.start < area.end {
                decided_by = decided_by.max(piece_decided_by(chunker, *piece, len));
            }
            add(piece.start, piece.end().min(decided_by));
        }
        add(area.start, area.end);
    }
    // What decides about a chunk may reach over a hole with the next area in it.
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let joins = next.start <= last.end;
        last.end = if joins { last.end.max(next.end) } else { last.end };
        joins
    });
    ranges
}

/// The end of what decides where an old chunk ends, or all chunks of a hole.
fn piece_decided_by(chunker: &Chunker, piece: OldPiece, len: u32) -> u32 {
    let start = if piece.hole { piece.end() - 1 } else { piece.start };
    decided_by(chunker, start, piece.end(), len)
}

fn decided_by(chunker: &Chunker, start: u32, end: u32, len: u32) -> u32 {
    length(chunker.decided_by(start as usize, end as usize, len as usize))
}

/// The areas to re-chunk because a disk's size changed: the part that it gained, and all of the last region before
/// and after, if that was or became shorter than a whole one.
///
/// A region's end takes part in where its last chunks end, beyond the bytes that changed, so keeping chunks of a
/// region whose end moved is not exact. A region that is whole at both sizes is the same for both.
#[must_use]
pub fn resize_areas(old_size: u64, new_size: u64, region_len: u32) -> Vec<Extent> {
    if old_size == new_size {
        return Vec::new();
    }
    let shorter = old_size.min(new_size);
    Extent::between(shorter - shorter % u64::from(region_len), new_size).into_iter().collect()
}

/// Whether the pieces follow each other from 0 to `len`.
fn covers(old: &[OldPiece], len: u32) -> bool {
    let end = old.iter().try_fold(0_u32, |end, piece| {
        if piece.start == end && piece.len > 0 { end.checked_add(piece.len) } else { None }
    });
    end == Some(len)
}

/// The parts of `areas` within a region, counted from its start.
fn areas_within(areas: &[Extent], region_start: u64, len: u32) -> Vec<Range<u32>> {
    let region_end = region_start + u64::from(len);
    let first = areas.partition_point(|area| area.end() <= region_start);
    let clipped = areas[first..].iter().map_while(|area| area.clip(region_start, region_end));
    let place = |offset: u64| u32::try_from(offset - region_start).expect("a region is shorter than 4 GiB");
    clipped.map(|area| place(area.start)..place(area.end())).collect()
}

/// The parts of old holes that no area meets.
fn unchanged_holes(old: &[OldPiece], areas: &[Range<u32>]) -> Vec<Range<u32>> {
    let mut zeros: Vec<Range<u32>> = Vec::new();
    let mut add = |start: u32, end: u32| match zeros.last_mut() {
        _ if start >= end => {}
        Some(last) if last.end == start => last.end = end,
        _ => zeros.push(start..end),
    };
    for hole in old.iter().filter(|piece| piece.hole) {
        let mut start = hole.start;
        let first = areas.partition_point(|area| area.end <= hole.start);
        for area in areas[first..].iter().take_while(|area| area.start < hole.end()) {
            add(start, area.start);
            start = area.end;
        }
        add(start, hole.end());
    }
    zeros
}

/// A chunk of the old sequence; holes are taken apart into the chunks that they were made of.
#[derive(Clone, Copy)]
struct OldChunk {
    start: u32,
    end: u32,
    /// The piece that it is, or the first one of the hole that it is part of.
    index: usize,
    hole: bool,
}

/// A walk over the chunks of the old sequence.
struct OldChunks<'a> {
    chunker: &'a Chunker,
    old: &'a [OldPiece],
    len: u32,
    index: usize,
    /// Where the current chunk starts: at the start of the piece, or within the hole, at `index`.
    at: u32,
}

impl OldChunks<'_> {
    fn current(&self) -> Option<OldChunk> {
        let piece = self.old.get(self.index)?;
        let end = if piece.hole {
            let cut = self.chunker.zero_cut((self.len - self.at) as usize);
            self.hole_end().min(self.at + length(cut))
        } else {
            piece.end()
        };
        Some(OldChunk { start: self.at, end, index: self.index, hole: piece.hole })
    }

    /// The end of the hole at the current place.
    fn hole_end(&self) -> u32 {
        let holes = self.old[self.index..].iter().take_while(|piece| piece.hole);
        holes.last().map_or(self.at, |piece| piece.end())
    }

    /// Goes on to the chunk that starts at `end`, the end of the current one or of the hole that it is part of.
    fn go_to(&mut self, end: u32) {
        self.at = end;
        while self.old.get(self.index).is_some_and(|piece| piece.end() <= end) {
            self.index += 1;
        }
    }

    /// The chunk that starts at `place`, if one does; chunks before it are left behind.
    fn seek(&mut self, place: u32) -> Option<OldChunk> {
        while let Some(chunk) = self.current() {
            if chunk.start >= place {
                return (chunk.start == place).then_some(chunk);
            }
            self.go_to(chunk.end);
        }
        None
    }
}

/// One re-chunking of a region.
struct Run<'a, 'b, T, F> {
    chunker: &'a Chunker,
    len: u32,
    areas: &'a [Range<u32>],
    /// What is known to be zero without reading.
    zeros: &'a [Range<u32>],
    /// Up to where bytes were found to be zero, from the start of the current chunk or from before it on.
    zeros_end: u32,
    region: &'a mut RegionBuffer<'b>,
    fresh: F,
    pieces: Vec<NewPiece<T>>,
}

impl<T, F: FnMut(&[u8]) -> T> Run<'_, '_, T, F> {
    fn pieces(mut self, mut old: OldChunks<'_>) -> io::Result<Vec<NewPiece<T>>> {
        let mut at = 0;
        while at < self.len {
            let chunk = old.seek(at);
            if let Some(end) = chunk.and_then(|chunk| self.keep(chunk, &old)) {
                at = end;
                old.go_to(at);
            } else {
                // Up to the changed area, which it ends in or behind, an affected old chunk is what it was.
                let reach = chunk.map_or(at, |chunk| chunk.end);
                at = self.renew(at, reach)?;
            }
        }
        Ok(self.pieces)
    }

    /// Keeps an old chunk that is not affected, and with it all of the hole that it is in if the rest is not affected
    /// either. Returns the end of what was kept.
    fn keep(&mut self, chunk: OldChunk, old: &OldChunks<'_>) -> Option<u32> {
        let OldChunk { start, end, index, hole } = chunk;
        if self.affected(start, self.decided_by(start, end)) {
            return None;
        }
        if !hole {
            self.pieces.push(NewPiece { start, len: end - start, content: Content::Kept(index) });
            return Some(end);
        }
        let hole_end = old.hole_end();
        let end = if self.affected(start, self.decided_by(hole_end - 1, hole_end)) { end } else { hole_end };
        self.push_hole(start, end);
        Some(end)
    }

    /// Whether a decision range meets a changed area.
    fn affected(&self, start: u32, decided_by: u32) -> bool {
        let next = self.areas.partition_point(|area| area.end <= start);
        self.areas.get(next).is_some_and(|area| area.start < decided_by)
    }

    /// The end of the decision range of a chunk.
    fn decided_by(&self, start: u32, end: u32) -> u32 {
        decided_by(self.chunker, start, end, self.len)
    }

    /// Finds the new chunk at `start` and returns its end; if it ends before `reach`, then in or behind a changed
    /// area.
    fn renew(&mut self, start: u32, reach: u32) -> io::Result<u32> {
        let zero_end = start + length(self.chunker.zero_cut((self.len - start) as usize));
        if range_at(self.zeros, start).is_some_and(|zeros| self.decided_by(start, zero_end) <= zeros.end) {
            self.push_hole(start, zero_end);
            return Ok(zero_end);
        }
        let end = self.cut(start, zero_end, reach)?;
        if end <= self.zeros_end {
            self.push_hole(start, end);
        } else {
            let content = Content::Fresh((self.fresh)(self.region.bytes(start, end)));
            self.pieces.push(NewPiece { start, len: end - start, content });
        }
        Ok(end)
    }

    /// Loads what it takes to find the end of the chunk at `start`, which is `zero_end` if it is zeros.
    fn cut(&mut self, start: u32, zero_end: u32, reach: u32) -> io::Result<u32> {
        let left = self.len - start;
        let decided = start + left.min(length(self.chunker.reach()));
        let zeros_decided = self.decided_by(start, zero_end);
        loop {
            let present = self.region.present_until(start).min(decided);
            self.look_for_zeros(start, present);
            if zeros_decided <= self.zeros_end {
                return Ok(zero_end);
            }
            // Changed bytes are read in any case, so first all that the cut may depend on: then it is found at once.
            let wanted = present < decided && range_at(self.areas, present).is_some();
            if self.zeros_end < present && !wanted {
                let bytes = self.region.bytes(start, present);
                if let Some(cut) = self.chunker.cut_within(bytes, left as usize) {
                    return Ok(start + length(cut));
                }
                assert!(present < decided, "a chunker's reach decides");
            }
            self.region.load(present, self.load_end(start, present, reach, decided))?;
        }
    }

    /// Goes on with the zeros that the chunk at `start` begins with, as far as its bytes are present.
    fn look_for_zeros(&mut self, start: u32, present: u32) {
        self.zeros_end = self.zeros_end.max(start);
        if self.zeros_end < present {
            let bytes = self.region.bytes(self.zeros_end, present);
            self.zeros_end += length(leading_zeros(bytes));
        }
    }

    /// How far to load from `at` on: a changed area is wanted whole with what leads up to it, what is known to be zero
    /// is free, and of anything else as little as possible is wanted.
    fn load_end(&self, start: u32, at: u32, reach: u32, decided: u32) -> u32 {
        if let Some(zeros) = range_at(self.zeros, at) {
            return zeros.end.min(decided);
        }
        let least = start.saturating_add(length(self.chunker.least_reach()));
        let step = reach.max(least).max(at + length(self.chunker.average_len() / 2)).min(decided);
        let next = self.areas.partition_point(|area| area.end <= at);
        let end = match self.areas.get(next) {
            Some(area) if area.start <= step => area.end.min(at + REQUEST_LEN),
            _ => step,
        };
        end.min(self.len)
    }

    fn push_hole(&mut self, start: u32, end: u32) {
        match self.pieces.last_mut() {
            Some(NewPiece { len, content: Content::Hole, .. }) => *len += end - start,
            _ => self.pieces.push(NewPiece { start, len: end - start, content: Content::Hole }),
        }
    }
}

/// The range that contains `place`.
fn range_at(ranges: &[Range<u32>], place: u32) -> Option<&Range<u32>> {
    let next = ranges.partition_point(|range| range.end <= place);
    ranges.get(next).filter(|range| range.start <= place)
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a chunk is shorter than 4 GiB")
}
