//! What is compared: the engine's chunkers, and others that it does not have.

use anyhow::{Context as _, bail, ensure};
use keepstone_engine::chunker::{Chunker, is_zero};
use repo_format::{ChunkerName, ChunkerParams};
use std::fmt;
use std::str::FromStr;

const SEED: u64 = 0x0123_4567_89ab_cdef;
const KEY: [u8; 32] = [3; 32];
/// What aligned chunkers cut between.
const BLOCK_LEN: usize = 4096;
/// What a keyed function decides about at a candidate of the rolling hash.
const WINDOW_LEN: usize = 64;
/// The rolling hash proposes one of so many places, on average.
const PROPOSED: u64 = 256;

/// A chunker with its lengths, as it is written on the command line: `NAME:MIN/AVERAGE/MAX`, in KiB.
#[derive(Clone)]
pub struct Candidate {
    text: String,
    pub cutter: Cutter,
    min: usize,
    average: usize,
    pub max: usize,
}

#[derive(Clone)]
pub enum Cutter {
    /// What repositories can have.
    Engine(Chunker),
    /// Cuts behind each 4 KiB block whose hash is low: by a seeded hash, or by keyed BLAKE3.
    Aligned { keyed: bool },
    /// A rolling hash proposes places, and keyed BLAKE3 of the 64 bytes before decides.
    RollingKeyed { gear: Box<[u64; 256]> },
}

impl FromStr for Candidate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, lengths) = text.split_once(':').context("it is NAME:MIN/AVERAGE/MAX, in KiB")?;
        let lengths: Vec<u32> = lengths.split('/').map(str::parse).collect::<Result<_, _>>()?;
        let [min, average, max] = lengths[..] else { bail!("it has three lengths: MIN/AVERAGE/MAX") };
        ensure!(
            (4..=average).contains(&min) && average <= max && max <= 1024,
            "the lengths are not in order"
        );
        let [min, average, max] = [min, average, max].map(|kib| kib << 10);
        let cutter = match name {
            "aligned" => Cutter::Aligned { keyed: false },
            "aligned-keyed" => Cutter::Aligned { keyed: true },
            "rolling-keyed" => {
                let gear = std::array::from_fn(|byte| splitmix(SEED ^ byte as u64));
                Cutter::RollingKeyed { gear: Box::new(gear) }
            }
            name => {
                let params = ChunkerParams { name: ChunkerName::parse(name)?, min, average, max };
                Cutter::Engine(Chunker::new(&params, SEED))
            }
        };
        let [min, average, max] = [min, average, max].map(|length| length as usize);
        Ok(Self { text: text.to_owned(), cutter, min, average, max })
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text)
    }
}

impl Candidate {
    /// The length of the chunk that `data`, which ends with its region, begins with.
    pub fn next_cut(&self, data: &[u8]) -> usize {
        match &self.cutter {
            Cutter::Engine(chunker) => chunker.next_cut(data),
            Cutter::Aligned { keyed } => self.aligned_cut(data, *keyed),
            Cutter::RollingKeyed { gear } => self.rolling_cut(data, gear),
        }
    }

    /// The end of what decides that a chunk ends at `end`.
    pub fn decided_by(&self, start: usize, end: usize, region_end: usize) -> usize {
        match &self.cutter {
            Cutter::Engine(chunker) => chunker.decided_by(start, end, region_end),
            Cutter::Aligned { .. } | Cutter::RollingKeyed { .. } => end,
        }
    }

    /// Where the chunks of a region end, and whether they are zero.
    pub fn cuts<'r>(&'r self, region: &'r [u8]) -> impl Iterator<Item = &'r [u8]> + 'r {
        let mut rest = region;
        std::iter::from_fn(move || {
            let (chunk, behind) = (!rest.is_empty()).then(|| rest.split_at(self.next_cut(rest)))?;
            rest = behind;
            Some(chunk)
        })
    }

    /// One place in so many is a cut, from `min` on.
    fn expected(&self, step: usize) -> u64 {
        (((self.average - self.min) / step) as u64).max(1)
    }

    fn aligned_cut(&self, data: &[u8], keyed: bool) -> usize {
        let limit = u64::MAX / self.expected(BLOCK_LEN);
        let end = data.len().min(self.max);
        let hash = |block: &[u8]| if keyed { keyed_hash(block) } else { seeded_hash(block) };
        let mut blocks = (self.min..end).step_by(BLOCK_LEN);
        blocks.find(|&at| hash(&data[at - BLOCK_LEN..at]) <= limit).unwrap_or(end)
    }

    fn rolling_cut(&self, data: &[u8], gear: &[u64; 256]) -> usize {
        let end = data.len().min(self.max);
        if end <= self.min {
            return end;
        }
        let limit = u64::MAX / (self.expected(1) / PROPOSED).max(1);
        let mut hash = 0_u64;
        for at in self.min - WINDOW_LEN..end {
            hash = (hash << 1).wrapping_add(gear[usize::from(data[at])]);
            let place = at + 1;
            if hash <= u64::MAX / PROPOSED
                && place >= self.min
                && keyed_hash(&data[place - WINDOW_LEN..place]) <= limit
            {
                return place;
            }
        }
        end
    }
}

/// The first bytes of a keyed BLAKE3.
fn keyed_hash(bytes: &[u8]) -> u64 {
    let hash = blake3::keyed_hash(&KEY, bytes);
    let [first, ..] = hash.as_bytes().as_chunks().0 else { unreachable!("a hash has 32 bytes") };
    u64::from_le_bytes(*first)
}

/// A fast hash that keeps no secret: four lanes of folded multiplications.
fn seeded_hash(block: &[u8]) -> u64 {
    let mut lanes = [SEED, !SEED, SEED.rotate_left(17), SEED.rotate_left(43)];
    for words in block.as_chunks::<64>().0 {
        let words = words.as_chunks::<8>().0;
        for (lane, pair) in lanes.iter_mut().zip(words.as_chunks::<2>().0) {
            let [first, second] = pair.map(u64::from_le_bytes);
            *lane = folded(first ^ *lane, second ^ SEED);
        }
    }
    folded(lanes[0] ^ lanes[1].rotate_left(23), lanes[2] ^ lanes[3].rotate_left(31) ^ SEED)
}

fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let bytes = product.to_le_bytes();
    let [low, high] = bytes.as_chunks::<8>().0 else { unreachable!("a product has 16 bytes") };
    u64::from_le_bytes(*low) ^ u64::from_le_bytes(*high)
}

fn splitmix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Whether a chunk takes no place in a repository.
pub fn is_hole(chunk: &[u8]) -> bool {
    is_zero(chunk)
}
