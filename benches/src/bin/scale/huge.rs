//! A disk of any size of which little is allocated. Its bytes follow from where they are and when they were written last.

use keepstone_benches::random::Random;
use keepstone_engine::extent::normalized;
use keepstone_engine::source::{ChangedAreas, Outside, ReadPart, Since, read_each};
use keepstone_engine::{DiskSource, Extent};
use std::collections::BTreeMap;
use std::io;

/// The length of a block that changes as a whole: that of changed-block tracking.
const BLOCK_LEN: u64 = 64 << 10;
/// Blocks that change together where changes are clustered: 16 MiB.
const CLUSTER_BLOCKS: u64 = 256;
/// Each block begins with so many bytes of noise; the others are a pattern, so that zstd leaves about two fifths.
const NOISE_LEN: usize = 24 << 10;

/// What is written on one day: so many MiB, scattered in blocks or clustered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Day {
    pub(crate) mib: u64,
    pub(crate) is_scattered: bool,
}

impl Day {
    /// The blocks that it writes to a disk of so many.
    fn blocks(self, number: u64, disk_blocks: u64) -> Vec<u64> {
        let together = if self.is_scattered { 1 } else { CLUSTER_BLOCKS };
        let wanted = (self.mib << 20) / BLOCK_LEN;
        let mut random = Random::new(number + 1);
        let mut starts = std::collections::BTreeSet::new();
        while (starts.len() as u64) < wanted.div_ceil(together) {
            starts.insert(random.below(disk_blocks / together));
        }
        starts.into_iter().flat_map(|start| start * together..(start + 1) * together).collect()
    }
}

/// The disk at the end of a day.
pub(crate) struct HugeDisk {
    size: u64,
    /// The blocks that were ever written, and the day when they were last.
    written: BTreeMap<u64, u64>,
    /// The last day, and what was written on it.
    day: u64,
    changed: Vec<Extent>,
}

impl HugeDisk {
    /// The disk after some days; before the first one nothing is allocated.
    pub(crate) fn after(size: u64, days: &[Day]) -> Self {
        let mut disk = Self { size, written: BTreeMap::new(), day: 0, changed: Vec::new() };
        for (number, day) in (1..).zip(days) {
            let blocks = day.blocks(number, size / BLOCK_LEN);
            disk.written.extend(blocks.iter().map(|block| (*block, number)));
            disk.changed = normalized(blocks.iter().map(|block| area(*block)).collect());
            disk.day = number;
        }
        disk
    }

    /// The same a day later, on which nothing was written.
    pub(crate) fn unchanged(mut self) -> Self {
        self.day += 1;
        self.changed.clear();
        self
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        for (block, day) in self.written.range(offset / BLOCK_LEN..end.div_ceil(BLOCK_LEN)) {
            let start = block * BLOCK_LEN;
            let (from, to) = (start.max(offset), (start + BLOCK_LEN).min(end));
            let part = &mut buffer[in_memory(from - offset)..in_memory(to - offset)];
            fill(*block, *day, in_memory(from - start), part);
        }
    }
}

fn area(block: u64) -> Extent {
    Extent { start: block * BLOCK_LEN, length: BLOCK_LEN }
}

fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a part of a buffer")
}

/// Fills in a block, as it was written on a day, from `skip` on.
fn fill(block: u64, day: u64, skip: usize, part: &mut [u8]) {
    let seed = block.rotate_left(20) ^ day;
    let aligned = skip / 8 * 8;
    let mut random = Random::new(seed);
    if skip < NOISE_LEN {
        for _ in 0..aligned / 8 {
            random.draw();
        }
    }
    let mut at = aligned;
    let end = skip + part.len();
    while at < end {
        let word = if at < NOISE_LEN { random.draw() } else { seed.wrapping_add(at as u64 / 512) };
        for (place, byte) in (at..).zip(word.to_le_bytes()) {
            if place >= skip && place < end {
                part[place - skip] = byte;
            }
        }
        at += 8;
    }
}

impl DiskSource for HugeDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = Some(format!("day {}", self.day));
        let yesterday = format!("day {}", self.day.saturating_sub(1));
        if since.and_then(|since| since.change_id) == Some(yesterday.as_str()) {
            return Ok(ChangedAreas { areas: self.changed.clone(), outside: Outside::Unchanged, change_id });
        }
        let areas = normalized(self.written.keys().map(|block| area(*block)).collect());
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason: None }, change_id })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| {
            self.read_at(offset, buffer);
            Ok(())
        })
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_disk_are_as_in_one_read() {
        let days = [Day { mib: 1, is_scattered: true }, Day { mib: 16, is_scattered: false }];
        let disk = HugeDisk::after(64 << 20, &days);
        let mut whole = vec![1; 64 << 20];
        disk.read_at(0, &mut whole);
        for (offset, len) in [(0, 100), (65_000, 2000), (24_000, 1001), (5 << 20, 200_003)] {
            let mut part = vec![1; len];
            disk.read_at(offset, &mut part);
            assert!(part == whole[in_memory(offset)..][..len], "{len} bytes at {offset}");
        }
        assert_eq!(keepstone_engine::extent::total_length(&disk.changed), 16 << 20);
        let has_data = |area: &Extent| {
            whole[in_memory(area.start)..in_memory(area.end())]
                .chunks(in_memory(BLOCK_LEN))
                .all(|block| block.iter().any(|byte| *byte != 0))
        };
        assert!(disk.changed.iter().all(has_data), "a block of a changed area is zero");
    }
}
