//! A disk of which something changes every day. Its bytes follow from where they are and when they were written last.

use keepstone_benches::random::Random;
use keepstone_engine::extent::normalized;
use keepstone_engine::source::{ChangedAreas, FullReason, Outside, ReadPart, Since, read_each};
use keepstone_engine::{DiskSource, Extent};
use std::io;

/// Where a day's changes go, in parts per thousand of the disk, and which share of them: most of what is written on a day
/// replaces what was written some days ago, so that old restore points need much that new ones do not.
const PLACES: [Place; 3] = [
    Place { from: 100, to: 110, per_cent: 60 },
    Place { from: 200, to: 300, per_cent: 30 },
    Place { from: 0, to: 1000, per_cent: 10 },
];
/// Blocks that change together where changes are clustered.
const CLUSTER: u64 = 32;

struct Place {
    from: u64,
    to: u64,
    per_cent: u64,
}

/// What a disk looks like, and what is written to it on a day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// The length of a block, which changes as a whole.
    pub(crate) block_len: u64,
    /// So many bytes of each block are noise; the others are a pattern.
    pub(crate) noise_len: usize,
    /// All of the disk, in blocks.
    pub(crate) blocks: u64,
    /// The first blocks of all disks hold the same at first.
    pub(crate) shared_blocks: u64,
    /// Blocks that change on a day, each for itself.
    pub(crate) scattered: u64,
    /// Clusters that do.
    pub(crate) clusters: u64,
}

/// A disk at the end of a day.
pub(crate) struct DailyDisk {
    habits: Habits,
    seed: u64,
    /// The day when each block was written last.
    written: Vec<u16>,
    day: u16,
    changed: Vec<Extent>,
}

impl DailyDisk {
    /// The disk on the first day, 0, when everything is written. Those of other seeds hold other bytes.
    pub(crate) fn new(habits: Habits, seed: u64) -> Self {
        let written = vec![0; in_memory(habits.blocks)];
        Self { habits, seed: seed + 1, written, day: 0, changed: Vec::new() }
    }

    /// Makes the changes of one more day.
    pub(crate) fn next_day(&mut self) {
        self.day += 1;
        let mut random = Random::new(self.seed << 32 | u64::from(self.day));
        let mut areas = Vec::new();
        let lens = [(self.habits.scattered, 1), (self.habits.clusters, CLUSTER)];
        for (count, together) in lens {
            for _ in 0..count {
                let first = self.choose(&mut random) / together * together;
                let end = (first + together).min(self.habits.blocks);
                self.written[in_memory(first)..in_memory(end)].fill(self.day);
                let len = self.habits.block_len;
                areas.push(Extent { start: first * len, length: (end - first) * len });
            }
        }
        areas.sort_unstable_by_key(|area| area.start);
        self.changed = normalized(areas);
    }

    /// A block that is written to.
    fn choose(&self, random: &mut Random) -> u64 {
        let mut share = random.below(100);
        let place = PLACES.iter().find(|place| {
            let is_here = share < place.per_cent;
            share = share.saturating_sub(place.per_cent);
            is_here
        });
        let place = place.expect("the shares are 100 together");
        let (from, to) = (self.habits.blocks * place.from / 1000, self.habits.blocks * place.to / 1000);
        from + random.below((to - from).max(1))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) {
        let len = self.habits.block_len;
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (block, skip) = (at / len, in_memory(at % len));
            let (part, behind) = rest.split_at_mut(rest.len().min(in_memory(len) - skip));
            fill(self.seed_of(block), self.habits.noise_len, skip, part);
            at += part.len() as u64;
            rest = behind;
        }
    }

    fn seed_of(&self, block: u64) -> u64 {
        let day = self.written[in_memory(block)];
        let is_shared = day == 0 && block < self.habits.shared_blocks;
        let mut random =
            Random::new(if is_shared { 0 } else { self.seed } << 40 ^ block << 16 ^ u64::from(day));
        random.draw()
    }
}

fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a part of a disk in memory")
}

/// Fills in a block from `skip` on.
fn fill(seed: u64, noise_len: usize, skip: usize, part: &mut [u8]) {
    let mut random = Random::new(seed);
    let aligned = skip / 8 * 8;
    for _ in 0..aligned.min(noise_len) / 8 {
        random.draw();
    }
    let (mut at, end) = (aligned, skip + part.len());
    while at < end {
        let word =
            if at < noise_len { random.draw() } else { seed.wrapping_add(at as u64 / 512) }.to_le_bytes();
        if at >= skip && at + 8 <= end {
            part[at - skip..at + 8 - skip].copy_from_slice(&word);
        } else {
            for (place, byte) in (at..end.min(at + 8)).zip(word).filter(|(place, _)| *place >= skip) {
                part[place - skip] = byte;
            }
        }
        at += 8;
    }
}

impl DiskSource for DailyDisk {
    fn size(&self) -> u64 {
        self.habits.blocks * self.habits.block_len
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let change_id = Some(format!("day {}", self.day));
        let yesterday = self.day.checked_sub(1).map(|day| format!("day {day}"));
        if yesterday.is_some() && since.and_then(|since| since.change_id) == yesterday.as_deref() {
            return Ok(ChangedAreas { areas: self.changed.clone(), outside: Outside::Unchanged, change_id });
        }
        let full_reason = since.map(|_| FullReason::NoChangeTracking);
        let areas = vec![Extent { start: 0, length: self.size() }];
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason }, change_id })
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
    use keepstone_engine::extent::total_length;

    const HABITS: Habits = Habits {
        block_len: 1000,
        noise_len: 600,
        blocks: 4000,
        shared_blocks: 100,
        scattered: 20,
        clusters: 5,
    };

    fn after(habits: Habits, seed: u64, days: u16) -> DailyDisk {
        let mut disk = DailyDisk::new(habits, seed);
        (0..days).for_each(|_| disk.next_day());
        disk
    }

    fn whole(disk: &DailyDisk) -> Vec<u8> {
        let mut bytes = vec![1; in_memory(disk.size())];
        disk.read_at(0, &mut bytes);
        bytes
    }

    #[test]
    fn parts_of_the_disk_are_as_in_one_read() {
        let disk = after(HABITS, 3, 2);
        let whole = whole(&disk);
        for (offset, len) in [(0, 100), (599, 3), (993, 2014), (65_001, 20_003)] {
            let mut part = vec![1; len];
            disk.read_at(offset, &mut part);
            assert!(part == whole[in_memory(offset)..][..len], "{len} bytes at {offset}");
        }
    }

    #[test]
    fn exactly_the_changed_areas_differ_from_the_day_before() {
        let (before, after) = (after(HABITS, 3, 1), after(HABITS, 3, 2));
        assert!(total_length(&after.changed) > 50 * 1000);
        let (old, new) = (whole(&before), whole(&after));
        let blocks = old.chunks(1000).zip(new.chunks(1000));
        for (start, (old, new)) in (0..).step_by(1000).zip(blocks) {
            let is_changed = after.changed.iter().any(|area| (area.start..area.end()).contains(&start));
            assert_eq!(old != new, is_changed, "the block at {start}");
        }
    }

    #[test]
    fn disks_share_their_beginning_at_first_and_nothing_else() {
        let (one, other) = (whole(&DailyDisk::new(HABITS, 1)), whole(&DailyDisk::new(HABITS, 2)));
        assert!(one[..100_000] == other[..100_000]);
        assert!(one.chunks(1000).zip(other.chunks(1000)).skip(100).all(|(one, other)| one != other));
    }
}
