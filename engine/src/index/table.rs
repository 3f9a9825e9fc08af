//! One table, open for lookups.

use super::layout::{
    BLOCK_CHECK_LEN, BLOCK_LEN, Check, Checks, Damaged, FENCE_ENTRY_LEN, PREAMBLE_LEN, PREFIX_LEN, Preamble,
    RECORD_LEN, RECORDS_PER_BLOCK, Record, len_u64,
};
use super::map::Mapping;
use super::meta::Meta;
use super::{Hits, remove_file};
use repo_format::{ChunkId, Location, PayloadId};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Up to so many prefixes are searched from an interpolated guess; more than that share a fence entry only when
/// ids are not uniform, and then a binary search is safer.
const INTERPOLATED_MAX: usize = 2048;

/// The bytes of a table.
pub(super) enum Bytes {
    /// A file of the cache directory.
    Mapped {
        /// The mapping.
        mapping: Mapping,
        /// Where the file was published.
        path: PathBuf,
    },
    /// A table that exists in this process only.
    Memory(Vec<u8>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped { mapping, .. } => mapping.bytes(),
            Self::Memory(bytes) => bytes,
        }
    }
}

/// An immutable sorted table of entries.
pub(super) struct Table {
    bytes: Bytes,
    checks: Checks,
    binding: Check,
    sequence: u64,
    entries: usize,
    fence_bits: u32,
    fence_offset: usize,
    prefixes_offset: usize,
    blocks_offset: usize,
    meta: Meta,
    damaged: AtomicBool,
}

impl Table {
    /// Checks everything but prefixes and blocks, which are checked when they are used.
    pub(super) fn open(bytes: Bytes, checks: &Checks) -> Result<Self, Damaged> {
        let content = bytes.get();
        let preamble = Preamble::parse(content, len_u64(content.len()), checks)?;
        let size = |number: u64| usize::try_from(number).map_err(|_| Damaged);
        let fence_offset = size(preamble.fence_offset())?;
        let fence_len = size(preamble.fence_len())?;
        let meta_end = PREAMBLE_LEN + size(preamble.meta_len)?;
        let meta = content.get(PREAMBLE_LEN..meta_end).ok_or(Damaged)?;
        let fence = content.get(fence_offset..fence_offset + fence_len).ok_or(Damaged)?;
        if checks.check(*b"idx-meta", &[meta]) != preamble.binding
            || checks.check(*b"idxfence", &[fence]) != preamble.fence_check
        {
            return Err(Damaged);
        }
        let meta = Meta::parse(meta).ok_or(Damaged)?;
        Ok(Self {
            checks: checks.clone(),
            binding: preamble.binding,
            sequence: preamble.sequence,
            entries: size(preamble.entries)?,
            fence_bits: preamble.fence_bits,
            fence_offset,
            prefixes_offset: size(preamble.prefixes_offset)?,
            blocks_offset: size(preamble.blocks_offset)?,
            meta,
            damaged: AtomicBool::new(false),
            bytes,
        })
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many entries the table has.
    pub(super) fn entries(&self) -> u64 {
        len_u64(self.entries)
    }

    /// How many bytes the table occupies.
    pub(super) fn len(&self) -> u64 {
        len_u64(self.bytes.get().len())
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match &self.bytes {
            Bytes::Mapped { path, .. } => Some(path),
            Bytes::Memory(_) => None,
        }
    }

    pub(super) fn mapping(&self) -> Option<&Mapping> {
        match &self.bytes {
            Bytes::Mapped { mapping, .. } => Some(mapping),
            Bytes::Memory(_) => None,
        }
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Takes the table out of use, for this run and, by removing its file, for later ones.
    pub(super) fn retire(&self) {
        if !self.damaged.swap(true, Ordering::Relaxed)
            && let Some(path) = self.path()
        {
            remove_file(path);
        }
    }

    /// Appends the places of a chunk to `hits`.
    pub(super) fn lookup(&self, id: &ChunkId, hits: &mut Hits) -> Result<(), Damaged> {
        let (prefix, _) = id.0.split_first_chunk().expect("an id is longer than its prefix");
        let prefix = u64::from_be_bytes(*prefix);
        let first = self.lower_bound(prefix);
        let mut block: Option<Block> = None;
        for entry in first..self.entries {
            if self.prefix(entry) != Some(prefix) || hits.is_full() {
                break;
            }
            let number = entry / RECORDS_PER_BLOCK;
            let current = match block.take() {
                Some(current) if current.number == number => current,
                _ => Block::read(self, number)?,
            };
            let record = current.record(entry % RECORDS_PER_BLOCK).ok_or(Damaged)?;
            block = Some(current);
            if record.id == id.0 {
                hits.push(self.location(&record).ok_or(Damaged)?);
            }
        }
        Ok(())
    }

    fn location(&self, record: &Record) -> Option<Location> {
        let pack = self.meta.packs.get(usize::try_from(record.pack).ok()?)?;
        Some(Location {
            pack: pack.clone(),
            codec: record.codec,
            offset: record.offset,
            stored_len: record.stored_len,
            plain_len: record.plain_len,
            id: PayloadId(record.id),
        })
    }

    /// The first entry whose prefix is not below `prefix`, found with about two cache lines: one of the fence and
    /// one of the prefixes. Whatever damage the prefixes have, the result is some entry number.
    fn lower_bound(&self, prefix: u64) -> usize {
        let bucket =
            usize::try_from(prefix >> (64 - self.fence_bits)).expect("a fence has at most 2^25 buckets");
        let end = self.fence(bucket + 1).min(self.entries);
        let start = self.fence(bucket).min(end);
        if end - start > INTERPOLATED_MAX {
            return self.lower_bound_halving(prefix, start, end);
        }
        // The bits below the fence's, as a fraction of the bucket: ids are uniform, so that is where to look.
        let fraction = (prefix << self.fence_bits) >> 32;
        let within = (fraction * len_u64(end - start)) >> 32;
        let mut at = start + usize::try_from(within).expect("a guess lies within its bucket");
        let below = |at: usize| self.prefix(at).is_some_and(|found| found < prefix);
        if at < end && below(at) {
            while at < end && below(at) {
                at += 1;
            }
        } else {
            while at > start && !below(at - 1) {
                at -= 1;
            }
        }
        at
    }

    fn lower_bound_halving(&self, prefix: u64, mut start: usize, mut end: usize) -> usize {
        while start < end {
            let middle = start + (end - start) / 2;
            if self.prefix(middle).is_some_and(|found| found < prefix) {
                start = middle + 1;
            } else {
                end = middle;
            }
        }
        start
    }

    fn fence(&self, bucket: usize) -> usize {
        let at = self.fence_offset + bucket * FENCE_ENTRY_LEN;
        let entry = self.bytes.get().get(at..).and_then(<[u8]>::first_chunk);
        entry.map_or(0, |entry| usize::try_from(u32::from_le_bytes(*entry)).unwrap_or(usize::MAX))
    }

    fn prefix(&self, entry: usize) -> Option<u64> {
        let at = self.prefixes_offset + entry * PREFIX_LEN;
        self.bytes.get().get(at..)?.first_chunk().map(|prefix| u64::from_be_bytes(*prefix))
    }
}

/// A copy of one block and of the prefixes of its entries, whose check was right: the copy is what is used, so
/// that nothing that happens to the file afterwards matters.
pub(super) struct Block {
    number: usize,
    records: [u8; BLOCK_LEN],
    prefixes: [u8; RECORDS_PER_BLOCK * PREFIX_LEN],
    count: usize,
}

impl Block {
    pub(super) fn read(table: &Table, number: usize) -> Result<Self, Damaged> {
        let first = number * RECORDS_PER_BLOCK;
        let count = table.entries.saturating_sub(first).min(RECORDS_PER_BLOCK);
        let bytes = table.bytes.get();
        let block_at = table.blocks_offset + number * BLOCK_LEN;
        let prefixes_at = table.prefixes_offset + first * PREFIX_LEN;
        let block = bytes.get(block_at..block_at + BLOCK_LEN).ok_or(Damaged)?;
        let prefixes = bytes.get(prefixes_at..prefixes_at + count * PREFIX_LEN).ok_or(Damaged)?;
        let mut copy =
            Self { number, records: [0; BLOCK_LEN], prefixes: [0; RECORDS_PER_BLOCK * PREFIX_LEN], count };
        copy.records.copy_from_slice(block);
        copy.prefixes[..prefixes.len()].copy_from_slice(prefixes);
        let (check, records) = copy.records.split_at(BLOCK_CHECK_LEN);
        let expected =
            table.checks.block(&table.binding, len_u64(number), &copy.prefixes[..prefixes.len()], records);
        if expected == check { Ok(copy) } else { Err(Damaged) }
    }

    /// The record at a place within the block; nothing behind the last one.
    pub(super) fn record(&self, at: usize) -> Option<Record> {
        if at >= self.count {
            return None;
        }
        let record_at = BLOCK_CHECK_LEN + at * RECORD_LEN;
        Record::decode(
            self.prefixes.get(at * PREFIX_LEN..)?,
            self.records.get(record_at..record_at + RECORD_LEN)?,
        )
    }
}
