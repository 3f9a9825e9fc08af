//! Changes of a disk that need no second disk: scattered blocks that hold what another block of the disk holds, each
//! sector marked so that nothing of it was ever there before.
//!
//! So the changed disk compresses as the disk does, its chunks end elsewhere, and none of the new ones is a duplicate.

use super::random::Random;
use crate::Extent;
use crate::extent::total_length;
use std::collections::BTreeMap;
use std::io;

/// The length of a changed block, at a multiple of it: that of changed-block tracking.
pub const BLOCK_LEN: u64 = 64 << 10;
const SECTOR_LEN: u64 = 512;
const MARK_LEN: u64 = 8;

/// Blocks that have changed, and what they hold.
#[derive(Clone, Debug)]
pub struct ChangedBlocks {
    seed: u64,
    /// From the offset of a changed block to that of the block whose content it has.
    donors: BTreeMap<u64, u64>,
}

impl ChangedBlocks {
    /// Chooses blocks of together about `bytes` among those that lie in `allocated` whole.
    #[must_use]
    pub fn choose(allocated: &[Extent], bytes: u64, seed: u64) -> Self {
        let whole: Vec<Extent> = allocated
            .iter()
            .filter_map(|area| {
                let start = area.start.next_multiple_of(BLOCK_LEN);
                Extent::between(start, area.end() / BLOCK_LEN * BLOCK_LEN)
            })
            .collect();
        let blocks = total_length(&whole) / BLOCK_LEN;
        let wanted = bytes.div_ceil(BLOCK_LEN).min(blocks);
        let mut random = Random::new(seed);
        let mut donors = BTreeMap::new();
        while (donors.len() as u64) < wanted {
            let block = nth_block(&whole, random.below(blocks));
            donors.insert(block, nth_block(&whole, random.below(blocks)));
        }
        Self { seed, donors }
    }

    /// Lists the changed areas: sorted, disjoint, one for each block.
    #[must_use]
    pub fn areas(&self) -> Vec<Extent> {
        self.donors.keys().map(|&start| Extent { start, length: BLOCK_LEN }).collect()
    }

    /// Fills `buffer` with the changed disk from `offset` on; `read` reads the disk as it was.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_at(
        &self,
        offset: u64,
        buffer: &mut [u8],
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        let first = offset / BLOCK_LEN * BLOCK_LEN;
        let mut at = offset;
        let mut rest = buffer;
        for (&block, &donor) in self.donors.range(first..end.max(first)) {
            let from = block.max(offset);
            let to = end.min(block + BLOCK_LEN);
            let (before, behind) = rest.split_at_mut(len_in_memory(from - at));
            let (inside, behind) = behind.split_at_mut(len_in_memory(to - from));
            read(at, before)?;
            read(donor + (from - block), inside)?;
            self.mark(from, inside);
            at = to;
            rest = behind;
        }
        read(at, rest)
    }

    /// Writes the parts that lie in `bytes`, which begin at `start`, of the marks at the sectors' beginnings.
    fn mark(&self, start: u64, bytes: &mut [u8]) {
        let end = start + bytes.len() as u64;
        for sector in start / SECTOR_LEN..end.div_ceil(SECTOR_LEN) {
            let mark = Random::new(self.seed ^ sector.rotate_left(32)).draw().to_le_bytes();
            for (place, byte) in (sector * SECTOR_LEN..).zip(mark) {
                if (start..end).contains(&place) {
                    bytes[len_in_memory(place - start)] = byte;
                }
            }
        }
    }
}

const _: () = assert!(MARK_LEN == size_of::<u64>() as u64 && MARK_LEN < SECTOR_LEN);

fn nth_block(areas: &[Extent], mut number: u64) -> u64 {
    for area in areas {
        let blocks = area.length / BLOCK_LEN;
        if number < blocks {
            return area.start + number * BLOCK_LEN;
        }
        number -= blocks;
    }
    unreachable!("numbers are below the count of all blocks")
}

fn len_in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a part of a buffer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::synthetic;

    fn read(disk: &[u8], offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let part = disk.get(len_in_memory(offset)..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sample() -> (Vec<u8>, ChangedBlocks) {
        let disk = synthetic::disk(3, 2 << 20);
        let allocated = [Extent { start: 1000, length: 500_000 }, Extent { start: 1 << 20, length: 1 << 20 }];
        let changes = ChangedBlocks::choose(&allocated, 5 * BLOCK_LEN, 9);
        (disk, changes)
    }

    #[test]
    fn exactly_the_areas_differ() {
        let (disk, changes) = sample();
        let mut after = vec![0; disk.len()];
        changes.read_at(0, &mut after, |offset, buffer| read(&disk, offset, buffer)).unwrap();
        let areas = changes.areas();
        assert_eq!(total_length(&areas), 5 * BLOCK_LEN);
        for (sector, (old, new)) in (0..).zip(disk.chunks(512).zip(after.chunks(512))) {
            let within = areas.iter().any(|area| (area.start..area.end()).contains(&(sector * 512)));
            assert_eq!(old != new, within, "sector {sector}");
        }
    }

    #[test]
    fn pieces_are_the_same_as_in_one_read() {
        let (disk, changes) = sample();
        let read = |offset: u64, buffer: &mut [u8]| read(&disk, offset, buffer);
        let mut whole = vec![0; disk.len()];
        changes.read_at(0, &mut whole, read).unwrap();
        for len in [511, 4096, 70_001] {
            let mut offset = 0;
            for expected in whole.chunks(len) {
                let mut piece = vec![0; expected.len()];
                changes.read_at(offset, &mut piece, read).unwrap();
                assert!(piece == expected, "{len} bytes at {offset}");
                offset += len as u64;
            }
        }
    }
}
