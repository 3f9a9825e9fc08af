//! One table, open for lookups.

use super::layout::{
    BLOCK_CHECK_LEN, BLOCK_LEN, BlockChecks, Checks, Damaged, FENCE_ENTRY_LEN, PREAMBLE_LEN, Preamble,
    RECORD_LEN, RECORDS_PER_BLOCK, Record, TAG_LEN, bucket_and_tag, len_u64,
};
use super::map::Mapping;
use super::meta::Meta;
use super::{Hits, remove_file};
use repo_format::{ChunkId, Location, PayloadId};
use std::cmp::Ordering::{Equal, Greater, Less};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The bytes of a table.
enum Bytes {
    /// A file of the cache directory: what comes before its blocks is mapped, and blocks are read.
    File { head: Mapping, file: File, path: PathBuf },
    /// A table that exists in this process only.
    Memory(Vec<u8>),
}

/// An immutable sorted table of entries.
pub(super) struct Table {
    bytes: Bytes,
    checks: BlockChecks,
    sequence: u64,
    entries: usize,
    fence_bits: u32,
    fence_offset: usize,
    tags_offset: usize,
    blocks_offset: u64,
    len: u64,
    meta: Meta,
    damaged: AtomicBool,
}

impl Table {
    /// Opens a table in memory; see [`Table::open_file`].
    pub(super) fn open_memory(bytes: Vec<u8>, checks: &Checks) -> Result<Self, Damaged> {
        let preamble = Preamble::parse(&bytes, len_u64(bytes.len()), checks)?;
        Self::new(Bytes::Memory(bytes), &preamble, checks)
    }

    /// Opens the table in a file that is at `path`, or will be. Checks everything but fence, tags and blocks. Blocks
    /// are checked when they are used.
    pub(super) fn open_file(file: File, path: PathBuf, checks: &Checks) -> io::Result<Result<Self, Damaged>> {
        let len = file.metadata()?.len();
        let mut preamble = [0; PREAMBLE_LEN];
        if len < len_u64(PREAMBLE_LEN) {
            return Ok(Err(Damaged));
        }
        file.read_exact_at(&mut preamble, 0)?;
        let Ok(preamble) = Preamble::parse(&preamble, len, checks) else { return Ok(Err(Damaged)) };
        let Ok(head_len) = usize::try_from(preamble.blocks_offset) else { return Ok(Err(Damaged)) };
        let head = Mapping::new(&file, head_len)?;
        Ok(Self::new(Bytes::File { head, file, path }, &preamble, checks))
    }

    fn new(bytes: Bytes, preamble: &Preamble, checks: &Checks) -> Result<Self, Damaged> {
        let size = |number: u64| usize::try_from(number).map_err(|_| Damaged);
        let meta_end = PREAMBLE_LEN + size(preamble.meta_len)?;
        let meta = bytes.head().get(PREAMBLE_LEN..meta_end).ok_or(Damaged)?;
        if checks.check(*b"idx-meta", &[meta]) != preamble.binding {
            return Err(Damaged);
        }
        let meta = Meta::parse(meta).ok_or(Damaged)?;
        Ok(Self {
            checks: checks.of_blocks(&preamble.binding),
            sequence: preamble.sequence,
            entries: size(preamble.entries)?,
            fence_bits: preamble.fence_bits,
            fence_offset: size(preamble.fence_offset())?,
            tags_offset: size(preamble.tags_offset)?,
            blocks_offset: preamble.blocks_offset,
            len: preamble.file_len,
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

    /// How many blocks the table has.
    pub(super) fn blocks(&self) -> usize {
        self.entries.div_ceil(RECORDS_PER_BLOCK)
    }

    /// How many bytes the table occupies.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many of its bytes are mapped or in memory.
    pub(super) fn resident_max(&self) -> u64 {
        match &self.bytes {
            Bytes::File { head, .. } => len_u64(head.bytes().len()),
            Bytes::Memory(bytes) => len_u64(bytes.len()),
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match &self.bytes {
            Bytes::File { path, .. } => Some(path),
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
        let Range { start: mut first, end } = self.candidates(id);
        if first == end {
            return Ok(());
        }
        let mut block = Block::empty();
        // Only ids that are not uniform give so many candidates.
        let mut high = end;
        while high - first > RECORDS_PER_BLOCK {
            let middle = first + (high - first) / 2;
            if self.record(middle, &mut block)?.id < id.0 {
                first = middle + 1;
            } else {
                high = middle;
            }
        }
        for entry in first..end {
            let record = self.record(entry, &mut block)?;
            match record.id.cmp(&id.0) {
                Less => {}
                Equal => hits.push(self.location(&record).ok_or(Damaged)?),
                Greater => break,
            }
            if hits.is_full() {
                break;
            }
        }
        Ok(())
    }

    /// The entries that share an id's fence entry and tag: mostly one or none, found with about three cache lines.
    /// Whatever damage fence and tags have, the result is a range of entries.
    pub(super) fn candidates(&self, id: &ChunkId) -> Range<usize> {
        let (bucket, tag) = bucket_and_tag(&id.0, self.fence_bits);
        let end = self.fence(bucket + 1).min(self.entries);
        let start = self.fence(bucket).min(end);
        let tags = self.tags_offset + start * TAG_LEN..self.tags_offset + end * TAG_LEN;
        let (tags, _) = self.bytes.head().get(tags).unwrap_or_default().as_chunks();
        let first = tags.partition_point(|found| u16::from_le_bytes(*found) < tag);
        let count = tags[first..].iter().take_while(|found| u16::from_le_bytes(**found) == tag).count();
        start + first..start + first + count
    }

    fn fence(&self, bucket: usize) -> usize {
        let at = self.fence_offset + bucket * FENCE_ENTRY_LEN;
        let entry = self.bytes.head().get(at..).and_then(<[u8]>::first_chunk);
        entry.map_or(0, |entry| usize::try_from(u32::from_le_bytes(*entry)).unwrap_or(usize::MAX))
    }

    /// One record, out of `block` if it is there, which is read if it is not.
    fn record(&self, entry: usize, block: &mut Block) -> Result<Record, Damaged> {
        let number = entry / RECORDS_PER_BLOCK;
        if block.number != Some(number) {
            block.number = None;
            self.read_blocks(number, &mut block.bytes)?;
            block.number = Some(number);
        }
        record_of(&block.bytes, entry % RECORDS_PER_BLOCK)
    }

    /// Reads the blocks from `first` on into a buffer of some of them, and checks them. The copy is what is used, so
    /// that nothing that happens to the file afterwards matters. A file that cannot be read is as good as a damaged one.
    pub(super) fn read_blocks(&self, first: usize, buffer: &mut [u8]) -> Result<(), Damaged> {
        let at = self.blocks_offset + len_u64(first) * len_u64(BLOCK_LEN);
        match &self.bytes {
            Bytes::File { file, .. } => file.read_exact_at(buffer, at).map_err(|_| Damaged)?,
            Bytes::Memory(bytes) => {
                let at = usize::try_from(at).map_err(|_| Damaged)?;
                buffer.copy_from_slice(bytes.get(at..at + buffer.len()).ok_or(Damaged)?);
            }
        }
        let (blocks, _) = buffer.as_chunks_mut();
        let intact = (len_u64(first)..).zip(blocks).all(|(number, block)| {
            let check = block.first_chunk().copied();
            check == Some(self.checks.check(number, block))
        });
        if intact { Ok(()) } else { Err(Damaged) }
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
}

impl Bytes {
    /// At least everything that comes before the blocks.
    fn head(&self) -> &[u8] {
        match self {
            Self::File { head, .. } => head.bytes(),
            Self::Memory(bytes) => bytes,
        }
    }
}

/// A copy of one block whose check was right, if it has a number.
struct Block {
    number: Option<usize>,
    bytes: [u8; BLOCK_LEN],
}

impl Block {
    fn empty() -> Self {
        Self { number: None, bytes: [0; BLOCK_LEN] }
    }
}

/// The record at a place within a block that was checked.
pub(super) fn record_of(block: &[u8], at: usize) -> Result<Record, Damaged> {
    let record = block.get(BLOCK_CHECK_LEN + at * RECORD_LEN..).and_then(<[u8]>::first_chunk);
    record.and_then(Record::decode).ok_or(Damaged)
}
