//! A disk that is made up: the same bytes on every machine.
//!
//! It consists of blocks of 1 MiB. One block in [`ZERO_BLOCK_ONE_IN`] is zeros; the others are runs of 4 KiB to 256 KiB,
//! each drawn from [`RUNS`]: zeros, text-like (words of a small vocabulary and phrases that come again), binary-like
//! (records with counters, flags and pointers that share their upper bytes), or incompressible. No chunk comes twice.
//! zstd at level 1 leaves about two fifths of what is not zero.

use super::random::Random;
use crate::source::{ChangedAreas, FullReason, Outside, ReadPart, Since, read_each};
use crate::{DiskSource, Extent};
use rayon::prelude::*;
use std::io;

/// The length that is made independently of what is around it.
pub const BLOCK_LEN: usize = 1 << 20;
/// Runs begin at multiples of this, as files do in file systems.
const PAGE_LEN: usize = 4096;
const RUN_PAGES_MAX: usize = 64;
/// So many blocks have one of zeros among them.
pub const ZERO_BLOCK_ONE_IN: u64 = 8;
/// What the runs of the other blocks hold.
pub const RUNS: Mix = Mix { zeros: 3, text: 6, records: 5, noise: 2 };

/// How many runs in sixteen hold what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Zeros.
    pub zeros: u64,
    /// Text-like data.
    pub text: u64,
    /// Binary-like data.
    pub records: u64,
    /// Incompressible data.
    pub noise: u64,
}

impl Mix {
    const fn all(self) -> u64 {
        self.zeros + self.text + self.records + self.noise
    }
}

const _: () = assert!(RUNS.all() == 16);

/// The disk of a seed, made while it is read.
#[derive(Clone, Debug)]
pub struct SyntheticDisk {
    seed: u64,
    size: u64,
    vocabulary: Vec<Vec<u8>>,
}

impl SyntheticDisk {
    /// The first `size` bytes of the disk of `seed`.
    #[must_use]
    pub fn new(seed: u64, size: u64) -> Self {
        Self { seed, size, vocabulary: vocabulary(seed) }
    }

    /// Fills `buffer` from `offset`, with all threads if it is long.
    ///
    /// # Errors
    /// When the disk is shorter.
    ///
    /// # Panics
    /// Never.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (block_len, number) = (BLOCK_LEN as u64, offset / BLOCK_LEN as u64);
        let within = usize::try_from(offset % block_len).expect("less than a block");
        let first_len = if within == 0 { 0 } else { (BLOCK_LEN - within).min(buffer.len()) };
        let (first, whole) = buffer.split_at_mut(first_len);
        if !first.is_empty() {
            let mut block = vec![0; within + first.len()];
            self.fill_block(number, &mut block);
            first.copy_from_slice(&block[within..]);
        }
        let number = offset.div_ceil(block_len);
        let blocks = whole.par_chunks_mut(BLOCK_LEN).enumerate();
        blocks.for_each(|(place, block)| self.fill_block(number + place as u64, block));
        Ok(())
    }

    fn fill_block(&self, number: u64, block: &mut [u8]) {
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        fill_block(&mut random, &self.vocabulary, block);
    }
}

impl DiskSource for SyntheticDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let full_reason = since.map(|_| FullReason::NoChangeTracking);
        let areas = Extent::between(0, self.size).into_iter().collect();
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason }, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}
const WORDS: usize = 2048;
/// A phrase comes from so many bytes before it.
const PHRASES_WITHIN: usize = 4096;
const PHRASE_LEN_MAX: usize = 80;

/// Fills `bytes` with the part of the disk of `seed` that begins with block `first_block`, with all threads.
///
/// # Panics
/// If the disk would have more than 2^64 bytes.
pub fn fill(seed: u64, first_block: u64, bytes: &mut [u8]) {
    let offset = first_block * BLOCK_LEN as u64;
    let disk = SyntheticDisk::new(seed, offset + bytes.len() as u64);
    disk.read_at(offset, bytes).expect("the disk is as long");
}

/// Makes the first `len` bytes of the disk of `seed`.
#[must_use]
pub fn disk(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(seed, 0, &mut bytes);
    bytes
}

fn vocabulary(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut word = || {
        let len = 2 + random.index(5) + random.index(5);
        let mut word: Vec<u8> = (0..len).map(|_| b"eeetaoinshrdlucmfwyp"[random.index(20)]).collect();
        word.push(if random.below(12) == 0 { b'\n' } else { b' ' });
        word
    };
    (0..WORDS).map(|_| word()).collect()
}

fn fill_block(random: &mut Random, vocabulary: &[Vec<u8>], block: &mut [u8]) {
    if random.below(ZERO_BLOCK_ONE_IN) == 0 {
        return block.fill(0);
    }
    let mut rest = block;
    while !rest.is_empty() {
        let run_len = (1 + random.index(RUN_PAGES_MAX)) * PAGE_LEN;
        let (run, behind) = rest.split_at_mut(run_len.min(rest.len()));
        let Mix { zeros, text, records, .. } = RUNS;
        let drawn = random.below(RUNS.all());
        if drawn < zeros {
            run.fill(0);
        } else if drawn < zeros + text {
            fill_text(random, vocabulary, run);
        } else if drawn < zeros + text + records {
            fill_records(random, run);
        } else {
            fill_noise(random, run);
        }
        rest = behind;
    }
}

fn fill_text(random: &mut Random, vocabulary: &[Vec<u8>], run: &mut [u8]) {
    let mut at = 0;
    while at < run.len() {
        let left = run.len() - at;
        at += if at >= PHRASES_WITHIN && random.below(4) == 0 {
            let len = (10 + random.index(PHRASE_LEN_MAX)).min(left);
            let from = at - PHRASE_LEN_MAX * 2 - random.index(PHRASES_WITHIN - PHRASE_LEN_MAX * 2);
            run.copy_within(from..from + len, at);
            len
        } else {
            // The lower of two: the first words are the frequent ones.
            let word = &vocabulary[random.index(WORDS).min(random.index(WORDS))];
            let len = word.len().min(left);
            run[at..at + len].copy_from_slice(&word[..len]);
            len
        };
    }
}

fn fill_records(random: &mut Random, run: &mut [u8]) {
    let base = random.draw() >> 16;
    let mut counter = u32::try_from(random.below(1 << 20)).expect("20 bits");
    for record in run.chunks_mut(24) {
        let drawn = random.draw();
        let steps = u32::try_from(drawn & 7).expect("3 bits");
        counter = counter.wrapping_add(steps * 16);
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&counter.to_le_bytes());
        bytes[4..6].copy_from_slice(&(drawn >> 3 & 0x0103).to_le_bytes()[..2]);
        bytes[8..16].copy_from_slice(&(base ^ (drawn >> 12 & 0x000f_fff8)).to_le_bytes());
        bytes[16..18].copy_from_slice(&(drawn >> 32 & 0x01ff).to_le_bytes()[..2]);
        record.copy_from_slice(&bytes[..record.len()]);
    }
}

fn fill_noise(random: &mut Random, run: &mut [u8]) {
    for word in run.chunks_mut(8) {
        word.copy_from_slice(&random.draw().to_le_bytes()[..word.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_as_in_the_whole() {
        let whole = disk(7, 5 * BLOCK_LEN + 1000);
        let mut part = vec![0xee; 2 * BLOCK_LEN];
        fill(7, 3, &mut part[..2 * BLOCK_LEN]);
        assert!(part == whole[3 * BLOCK_LEN..5 * BLOCK_LEN]);
        assert!(disk(8, BLOCK_LEN) != disk(7, BLOCK_LEN));
    }

    #[test]
    fn reads_at_any_place_give_the_same_bytes_and_none_behind_the_end() {
        let whole = disk(7, 3 * BLOCK_LEN);
        let source = SyntheticDisk::new(7, whole.len() as u64);
        for (start, end) in
            [(0, 1), (5, BLOCK_LEN - 1), (BLOCK_LEN - 3, 2 * BLOCK_LEN + 9), (BLOCK_LEN, whole.len())]
        {
            let mut part = vec![0xee; end - start];
            source.read_at(start as u64, &mut part).unwrap();
            assert!(part == whole[start..end], "{start} to {end}");
        }
        let behind = source.read_at(whole.len() as u64 - 4, &mut [0; 5]).unwrap_err();
        assert_eq!(behind.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_mix_is_as_declared() {
        let bytes = disk(1, 192 * BLOCK_LEN);
        let (zero, data): (Vec<_>, Vec<_>) =
            bytes.chunks(PAGE_LEN).partition(|page| page.iter().all(|byte| *byte == 0));
        let zero_share = zero.len() * 100 / (zero.len() + data.len());
        assert!((20..=38).contains(&zero_share), "{zero_share} % are zeros");
        let data = data.concat();
        let share = zstd::bulk::compress(&data, 1).expect("zstd compresses").len() * 100 / data.len();
        assert!((35..=45).contains(&share), "zstd leaves {share} %");
    }
}
