//! What a target holds already: read and hashed, so that only what differs is fetched and written.

use super::plan::{Placement, Window};
use super::run::target_result;
use crate::error::EngineError;
use crate::extent::{Extent, common, gaps, normalized, touches};
use crate::frames::lock;
use crate::source::{DiskSource, Outside, ReadPart};
use crate::target::DiskTarget;
use rayon::iter::{IntoParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _};
use repo_format::{FrameKind, Keys};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that one thread reads and compares at a time: enough for a source far away to have several requests under way.
const BATCH_LEN: u64 = 4 << 20;
/// What is written is aligned to this, on the disk: where fewer bytes differ, all of a block is written.
const BLOCK_LEN: u64 = 4096;

/// The disk that a restore goes onto, as it was before.
pub(super) struct Existing<'a> {
    source: &'a dyn DiskSource,
    /// What does not read as zeros for certain, sorted and apart; everything, if that is not known.
    data: Option<Vec<Extent>>,
    keys: &'a Keys,
    /// Where something told that it may differ, sorted and apart; nothing if nobody told.
    told: Option<&'a [Extent]>,
    /// Where it differs elsewhere.
    untold: Mutex<Vec<Extent>>,
    read: AtomicU64,
}

/// Ranges that nobody told of, which are kept: 1 MiB of them.
const UNTOLD_MAX: usize = 1 << 16;

impl<'a> Existing<'a> {
    pub(super) fn open(
        source: &'a dyn DiskSource,
        told: Option<&'a [Extent]>,
        keys: &'a Keys,
    ) -> Result<Self, EngineError> {
        let allocated = source.changed_areas(None);
        let allocated = allocated.map_err(|source| EngineError::TargetUnread { offset: 0, source })?;
        let data = match allocated.outside {
            Outside::Zero { .. } => Some(allocated.areas),
            // Something that may be wrong tells it.
            Outside::SaidZero { .. } | Outside::Unchanged => None,
        };
        Ok(Self { source, data, keys, told, untold: Mutex::default(), read: AtomicU64::new(0) })
    }

    /// The bytes that were read of it.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Where the disk was found to differ although nobody told so, sorted and joined.
    pub(super) fn untold(&self) -> Vec<Extent> {
        normalized(lock(&self.untold).clone())
    }

    /// Notes what of a range, which is not equal, was not told to differ and does.
    fn note_untold(&self, range: Extent, differs: impl Fn(Range<usize>) -> bool) {
        let Some(told) = self.told else { return };
        for part in gaps(told, range) {
            let start = len(part.start - range.start);
            let mut untold = lock(&self.untold);
            if untold.len() < UNTOLD_MAX && differs(start..start + len(part.length)) {
                untold.push(part);
            }
        }
    }

    /// Leaves in a window what differs from what is there.
    pub(super) fn leave_out_equal(&self, window: &mut Window) -> Result<(), EngineError> {
        let chunks = std::mem::take(&mut window.chunks);
        let batches = batches(&chunks);
        let differ: Vec<Vec<bool>> =
            batches.into_par_iter().map(|batch| self.compare(&chunks[batch])).collect::<Result<_, _>>()?;
        for (chunk, differs) in chunks.into_iter().zip(differ.into_iter().flatten()) {
            if differs {
                window.chunks.push(chunk);
            } else {
                window.same_bytes += chunk.extent().length;
            }
        }
        let holes = std::mem::take(&mut window.holes);
        let all: u64 = holes.iter().map(|hole| hole.length).sum();
        let holes = match &self.data {
            Some(data) => common(&holes, data),
            None => holes,
        };
        let holes: Vec<Extent> = holes.into_iter().flat_map(pieces).collect();
        let written: Vec<Vec<Extent>> =
            holes.par_iter().map(|hole| self.not_zero(*hole)).collect::<Result<_, _>>()?;
        window.holes = written.concat();
        window.same_bytes += all - window.holes.iter().map(|hole| hole.length).sum::<u64>();
        Ok(())
    }

    /// Tells of each of some chunks, in the order of their places, whether something else is there.
    fn compare(&self, chunks: &[Placement]) -> Result<Vec<bool>, EngineError> {
        let may_be_there = |chunk: &&Placement| self.has_data(chunk.extent());
        let present: Vec<&Placement> = chunks.iter().filter(may_be_there).collect();
        let len = present.iter().map(|chunk| chunk.location.plain_len as usize).sum();
        let mut bytes = vec![0; len];
        let mut parts = Vec::new();
        let mut rest = bytes.as_mut_slice();
        for run in present.chunk_by(|a, b| a.extent().end() == b.offset) {
            let len = run.iter().map(|chunk| chunk.location.plain_len as usize).sum();
            let (buffer, behind) = rest.split_at_mut(len);
            parts.push(ReadPart { offset: run[0].offset, buffer });
            rest = behind;
        }
        self.read(&mut parts)?;
        let mut rest = bytes.as_slice();
        let compared = chunks.iter().map(|chunk| {
            if !self.has_data(chunk.extent()) {
                return true;
            }
            let (there, behind) = rest.split_at(chunk.location.plain_len as usize);
            rest = behind;
            self.keys.check_payload(FrameKind::Chunk, chunk.location.id, there).is_err()
        });
        Ok(compared.collect())
    }

    /// The parts of a range that are not zero, in whole blocks.
    fn not_zero(&self, range: Extent) -> Result<Vec<Extent>, EngineError> {
        let mut bytes = vec![0; len(range.length)];
        self.read(&mut [ReadPart { offset: range.start, buffer: &mut bytes }])?;
        let zeros = vec![0; len(BLOCK_LEN)];
        let differs = |block: Range<usize>| bytes[block.clone()] != zeros[..block.len()];
        let runs: Vec<Extent> = differing_blocks(range.start, bytes.len(), differs)
            .into_iter()
            .map(|run| Extent { start: range.start + run.start as u64, length: run.len() as u64 })
            .collect();
        for run in &runs {
            let first = len(run.start - range.start);
            self.note_untold(*run, |part| {
                bytes[first + part.start..first + part.end].iter().any(|byte| *byte != 0)
            });
        }
        Ok(runs)
    }

    /// Writes what differs of some bytes; `there` is room for what is in their place. Returns how much was written.
    pub(super) fn write(
        &self,
        target: &dyn DiskTarget,
        offset: u64,
        data: &[u8],
        there: &mut Vec<u8>,
    ) -> Result<u64, EngineError> {
        there.clear();
        there.resize(data.len(), 0);
        if self.has_data(Extent { start: offset, length: data.len() as u64 }) {
            self.read(&mut [ReadPart { offset, buffer: there }])?;
        }
        let mut written = 0;
        for run in differing_blocks(offset, data.len(), |block| data[block.clone()] != there[block]) {
            let start = offset + run.start as u64;
            self.note_untold(Extent { start, length: run.len() as u64 }, |part| {
                let part = run.start + part.start..run.start + part.end;
                data[part.clone()] != there[part]
            });
            target_result(target.write_at(start, &data[run.clone()]), start)?;
            written += run.len() as u64;
        }
        Ok(written)
    }

    fn has_data(&self, extent: Extent) -> bool {
        self.data.as_ref().is_none_or(|data| touches(data, extent))
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> Result<(), EngineError> {
        let Some(first) = parts.first() else { return Ok(()) };
        let offset = first.offset;
        let bytes: usize = parts.iter().map(|part| part.buffer.len()).sum();
        self.source.read(parts).map_err(|source| EngineError::TargetUnread { offset, source })?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Cuts chunks into ranges of some that are together not much longer than a batch.
fn batches(chunks: &[Placement]) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (position, chunk) in chunks.iter().enumerate() {
        let len = chunk.extent().length;
        match batches.last_mut() {
            Some(batch) if bytes + len <= BATCH_LEN => {
                batch.end += 1;
                bytes += len;
            }
            _ => {
                batches.push(position..position + 1);
                bytes = len;
            }
        }
    }
    batches
}

/// Cuts a range at multiples of the length of a batch.
fn pieces(range: Extent) -> impl Iterator<Item = Extent> {
    (range.start / BATCH_LEN..range.end().div_ceil(BATCH_LEN))
        .filter_map(move |piece| range.clip(piece * BATCH_LEN, (piece + 1) * BATCH_LEN))
}

/// The blocks, joined where they meet, of which `differs` tells so. They are given as parts of `len` bytes that begin at an
/// offset of the disk, whose blocks they are.
fn differing_blocks(offset: u64, len: usize, differs: impl Fn(Range<usize>) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    while start < len {
        let in_block = (offset + start as u64) % BLOCK_LEN;
        let end = len.min(start + self::len(BLOCK_LEN - in_block));
        if differs(start..end) {
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        start = end;
    }
    runs
}

fn len(length: u64) -> usize {
    usize::try_from(length).expect("it is a length in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_blocks_are_blocks_of_the_disk() {
        let runs = |offset, differing: &[usize]| {
            let runs =
                differing_blocks(offset, 10_000, |block| differing.iter().any(|at| block.contains(at)));
            runs.iter().map(|run| (run.start, run.end)).collect::<Vec<_>>()
        };
        assert_eq!(runs(0, &[]), []);
        assert_eq!(runs(0, &[0, 4096]), [(0, 8192)]);
        assert_eq!(runs(0, &[4095, 9999]), [(0, 4096), (8192, 10_000)]);
        assert_eq!(runs(4095, &[0, 1]), [(0, 4097)]);
        assert_eq!(runs(4095, &[1]), [(1, 4097)]);
        assert_eq!(runs(8192 + 100, &[5000]), [(3996, 8092)]);
    }

    #[test]
    fn pieces_end_at_multiples() {
        let range = Extent { start: BATCH_LEN - 1, length: BATCH_LEN + 2 };
        let expected = [(BATCH_LEN - 1, 1), (BATCH_LEN, BATCH_LEN), (2 * BATCH_LEN, 1)];
        let cut: Vec<(u64, u64)> = pieces(range).map(|piece| (piece.start, piece.length)).collect();
        assert_eq!(cut, expected);
    }
}
