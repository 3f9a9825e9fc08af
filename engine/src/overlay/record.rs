//! What an overlay's file holds beside data: a header that binds it to a disk, and records of segments.
//!
//! ```text
//! header, tally, tally (4 KiB each) ... 64 KiB | slot 0 | slot 1 | ...        slot: record, record (4 KiB each) ... 64 KiB | 32 MiB of data
//! ```
//! A slot keeps one segment of the disk, which its records name. They are written in turn: the one that is valid and has
//! the higher generation counts, so that one that was being written when the power failed takes nothing away. The tallies
//! are written in turn too, after records are durable: they tell how many were, so that one that is lost later is missed.

use super::OverlayOf;

/// A block is the smallest thing that is changed as a whole, in bytes.
pub(super) const BLOCK_LEN: u64 = BLOCK_BYTES as u64;
pub(super) const BLOCK_BYTES: usize = 4096;
/// What one slot keeps, in bytes.
pub(super) const SEGMENT_LEN: u64 = 32 << 20;
pub(super) const BLOCKS: usize = 8192;
const _: () = assert!(SEGMENT_LEN == BLOCKS as u64 * BLOCK_LEN);
const WORDS: usize = BLOCKS / 64;
/// What comes before data, in bytes.
pub(super) const BESIDE: u64 = 64 << 10;
const SLOT_LEN: u64 = BESIDE + SEGMENT_LEN;
/// The length of the header and of a record.
pub(super) const RECORD_LEN: usize = 4096;

const HEADER_MAGIC: &[u8; 16] = b"keepstoneoverlay";
const RECORD_MAGIC: &[u8; 16] = b"keepstonesegment";
const TALLY_MAGIC: &[u8; 16] = b"keepstone--tally";
const VERSION: u32 = 1;
const HASH_LEN: usize = 32;

/// Where a slot begins in the file.
pub(super) fn slot_start(slot: u64) -> u64 {
    BESIDE + slot * SLOT_LEN
}

/// Where a slot's data begin in the file.
pub(super) fn data_start(slot: u64) -> u64 {
    slot_start(slot) + BESIDE
}

/// Where one of a slot's two records is in the file; they take turns.
pub(super) fn record_start(slot: u64, generation: u64) -> u64 {
    slot_start(slot) + generation % 2 * RECORD_LEN as u64
}

/// Where one of the two tallies is in the file; they take turns.
pub(super) fn tally_start(number: u64) -> u64 {
    (1 + number % 2) * RECORD_LEN as u64
}

/// How many slots a file of a length has begun.
pub(super) fn slots_of(file_len: u64) -> u64 {
    file_len.saturating_sub(BESIDE).div_ceil(SLOT_LEN)
}

/// The header of an overlay.
pub(super) fn header(of: &OverlayOf<'_>) -> [u8; RECORD_LEN] {
    let key_len = u16::try_from(of.disk.len()).expect("a disk's key is short");
    let mut bytes = Vec::with_capacity(RECORD_LEN);
    bytes.extend(HEADER_MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(of.size.to_le_bytes());
    bytes.extend(of.repository.0);
    bytes.extend(of.snapshot.0);
    bytes.extend(key_len.to_le_bytes());
    bytes.extend(of.disk.as_bytes());
    sealed(bytes, &[])
}

/// What a file begins with that has no changes yet: a header and a tally of nothing. No file is shorter.
pub(super) fn beginning(of: &OverlayOf<'_>) -> Vec<u8> {
    let header = header(of);
    let mut bytes = [header, Tally::default().encode(&header)].concat();
    bytes.resize(usize::try_from(BESIDE).expect("64 KiB"), 0);
    bytes
}

/// What is wrong with a header that is another than it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is none.
    NotAnOverlay,
    /// It is changed.
    Damaged,
    /// It is of a version that this program does not know.
    Version(u32),
    /// It is of another disk or snapshot.
    OtherDisk,
}

/// Compares a file's header with the one that it should have.
pub(super) fn check_header(found: &[u8; RECORD_LEN], of: &OverlayOf<'_>) -> Result<(), Wrong> {
    if *found == header(of) {
        return Ok(());
    }
    let version = found.first_chunk::<20>().map(|bytes| &bytes[16..]);
    let version = version.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    if !found.starts_with(HEADER_MAGIC) {
        Err(Wrong::NotAnOverlay)
    } else if version != VERSION {
        Err(Wrong::Version(version))
    } else if is_sealed(found, &[]) {
        Err(Wrong::OtherDisk)
    } else {
        Err(Wrong::Damaged)
    }
}

/// What is known of each block of a segment: it is changed, to zeros or to what the slot holds, or it is as before.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    written: [u64; WORDS],
    zero: [u64; WORDS],
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// As in the snapshot.
    Base,
    /// Zeros.
    Zero,
    /// What the slot holds.
    Written,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self { written: [0; WORDS], zero: [0; WORDS] }
    }

    /// The last block that the slot holds.
    pub(super) fn last_written(&self) -> Option<usize> {
        (0..BLOCKS).rev().find(|block| self.get(*block) == Block::Written)
    }

    pub(super) fn get(&self, block: usize) -> Block {
        let bit = 1 << (block % 64);
        if self.written[block / 64] & bit != 0 {
            Block::Written
        } else if self.zero[block / 64] & bit != 0 {
            Block::Zero
        } else {
            Block::Base
        }
    }

    /// Makes a block something; true if it was something else.
    pub(super) fn set(&mut self, block: usize, to: Block) -> bool {
        let before = self.get(block);
        let (word, bit) = (block / 64, 1 << (block % 64));
        self.written[word] &= !bit;
        self.zero[word] &= !bit;
        match to {
            Block::Base => {}
            Block::Zero => self.zero[word] |= bit,
            Block::Written => self.written[word] |= bit,
        }
        before != to
    }
}

/// What a slot keeps.
pub(super) struct Record {
    pub(super) segment: u64,
    /// Counts from 1; the higher one counts.
    pub(super) generation: u64,
    pub(super) blocks: Blocks,
}

impl Record {
    /// The record of a slot of the overlay with a header.
    pub(super) fn encode(&self, slot: u64, header: &[u8; RECORD_LEN]) -> [u8; RECORD_LEN] {
        let mut bytes = Vec::with_capacity(RECORD_LEN);
        bytes.extend(RECORD_MAGIC);
        bytes.extend(self.segment.to_le_bytes());
        bytes.extend(self.generation.to_le_bytes());
        let words = self.blocks.written.iter().chain(&self.blocks.zero);
        bytes.extend(words.flat_map(|word| word.to_le_bytes()));
        sealed(bytes, &[header, &slot.to_le_bytes()])
    }

    /// Reads a record; nothing if it is none.
    pub(super) fn parse(bytes: &[u8; RECORD_LEN], slot: u64, header: &[u8; RECORD_LEN]) -> Option<Self> {
        if !bytes.starts_with(RECORD_MAGIC) || !is_sealed(bytes, &[header, &slot.to_le_bytes()]) {
            return None;
        }
        let mut words = bytes[RECORD_MAGIC.len()..]
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes are 8 bytes")));
        let (segment, generation) = (words.next()?, words.next()?);
        let mut blocks = Blocks::new();
        for (word, found) in blocks.written.iter_mut().chain(&mut blocks.zero).zip(words) {
            *word = found;
        }
        Some(Self { segment, generation, blocks })
    }
}

/// What was durable when it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Counts from 0; the higher one counts.
    pub(super) number: u64,
    /// The generations of the records of all slots, added up: it only grows.
    pub(super) generations: u64,
}

impl Tally {
    /// The tally of the overlay with a header.
    pub(super) fn encode(self, header: &[u8; RECORD_LEN]) -> [u8; RECORD_LEN] {
        let bytes = [&TALLY_MAGIC[..], &self.number.to_le_bytes(), &self.generations.to_le_bytes()].concat();
        sealed(bytes, &[header])
    }

    /// Reads a tally; nothing if it is none.
    pub(super) fn parse(bytes: &[u8; RECORD_LEN], header: &[u8; RECORD_LEN]) -> Option<Self> {
        if !bytes.starts_with(TALLY_MAGIC) || !is_sealed(bytes, &[header]) {
            return None;
        }
        let word = |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes);
        Some(Self { number: word(TALLY_MAGIC.len())?, generations: word(TALLY_MAGIC.len() + 8)? })
    }
}

/// Fills up to the length of a record, with a hash of everything and of what it belongs to at the end.
fn sealed(mut bytes: Vec<u8>, belongs_to: &[&[u8]]) -> [u8; RECORD_LEN] {
    bytes.resize(RECORD_LEN - HASH_LEN, 0);
    let hash = hash(&bytes, belongs_to);
    bytes.extend(hash);
    bytes.try_into().expect("it was filled up to this length")
}

fn is_sealed(bytes: &[u8; RECORD_LEN], belongs_to: &[&[u8]]) -> bool {
    let (bytes, found) = bytes.split_at(RECORD_LEN - HASH_LEN);
    found == hash(bytes, belongs_to)
}

fn hash(bytes: &[u8], belongs_to: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut hasher = blake3::Hasher::new();
    for part in belongs_to {
        hasher.update(part);
    }
    *hasher.update(bytes).finalize().as_bytes()
}
