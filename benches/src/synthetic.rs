//! A disk that is made up: the same bytes on every machine.
//!
//! It consists of blocks of 1 MiB. One block in eight is zeros; the others are runs of 4 KiB to 256 KiB, of which so
//! many in sixteen are: 3 zeros, 6 text-like (words of a small vocabulary and phrases that come again), 5 binary-like
//! (records with counters, flags and pointers that share their upper bytes), 2 incompressible. No chunk comes twice.
//! zstd at level 1 leaves about two fifths of what is not zero.

use crate::random::Random;
use rayon::prelude::*;

/// The length that is made independently of what is around it.
pub const BLOCK_LEN: usize = 1 << 20;
/// Runs begin at multiples of this, as files do in file systems.
const PAGE_LEN: usize = 4096;
const RUN_PAGES_MAX: usize = 64;
const WORDS: usize = 2048;
/// A phrase comes from so many bytes before it.
const PHRASES_WITHIN: usize = 4096;
const PHRASE_LEN_MAX: usize = 80;

/// Fills `bytes` with the part of the disk of `seed` that begins with block `first_block`, with all threads.
pub fn fill(seed: u64, first_block: u64, bytes: &mut [u8]) {
    let vocabulary = vocabulary(seed);
    bytes.par_chunks_mut(BLOCK_LEN).enumerate().for_each(|(place, block)| {
        let number = first_block + place as u64;
        let mut random = Random::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        fill_block(&mut random, &vocabulary, block);
    });
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
    if random.below(8) == 0 {
        return block.fill(0);
    }
    let mut rest = block;
    while !rest.is_empty() {
        let run_len = (1 + random.index(RUN_PAGES_MAX)) * PAGE_LEN;
        let (run, behind) = rest.split_at_mut(run_len.min(rest.len()));
        match random.below(16) {
            0..3 => run.fill(0),
            3..9 => fill_text(random, vocabulary, run),
            9..14 => fill_records(random, run),
            _ => fill_noise(random, run),
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
