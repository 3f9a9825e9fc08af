//! Making tables: a streaming merge of index blobs and older tables.
//!
//! Memory: one block for each table that is merged, the output buffers, the fence and the meta (packs, sessions
//! and names, not entries).

use super::MAX_HITS;
use super::layout::{
    BLOCK_CHECK_LEN, BLOCK_LEN, Check, Checks, Damaged, PREAMBLE_LEN, PREFIX_LEN, Preamble, RECORD_LEN,
    RECORDS_PER_BLOCK, Record, len_u64,
};
use super::meta::Meta;
use super::table::{Block, Table};
use repo_format::IndexEntry;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are collected before they are written: large enough that system calls do not count.
const BUFFER_LEN: usize = 256 << 10;

/// Why a table was not made.
#[derive(Debug)]
pub(super) enum BuildError {
    /// This input has a damaged block.
    Damaged(usize),
    /// The output could not be written.
    Io(io::Error),
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Where a table is written to.
pub(super) enum Sink<'a> {
    /// A new file.
    File(&'a File),
    /// Memory.
    Memory(Vec<u8>),
}

impl Sink<'_> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all_at(bytes, offset),
            Self::Memory(memory) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let end = start + bytes.len();
                if memory.len() < end {
                    memory.resize(end, 0);
                }
                memory[start..end].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_len(len),
            Self::Memory(memory) => {
                memory.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
                memory.shrink_to_fit();
                Ok(())
            }
        }
    }
}

/// Sorted entries to put into a table.
pub(super) enum Input<'a> {
    /// An older table.
    Table(&'a Table),
    /// The entries of an index, in the order of their ids.
    Index(Vec<&'a IndexEntry>),
}

impl Input<'_> {
    fn entries(&self) -> u64 {
        match self {
            Self::Table(table) => table.entries(),
            Self::Index(entries) => len_u64(entries.len()),
        }
    }
}

/// How many entries a table of these inputs can have.
pub(super) fn entries_max(inputs: &[Input<'_>]) -> u64 {
    inputs.iter().map(Input::entries).sum()
}

/// Writes one table of all inputs, the newest input first. Repeated entries are dropped, and of many places of one
/// chunk the newest [`MAX_HITS`] stay. `numbers` has the new pack numbers of each input. Returns the checksum of
/// the preamble, which differs between tables of different content.
pub(super) fn build(
    inputs: &[Input<'_>],
    numbers: &[Vec<u32>],
    meta: &Meta,
    sequence: u64,
    checks: &Checks,
    sink: &mut Sink<'_>,
) -> Result<Check, BuildError> {
    let meta_bytes = meta.encode();
    let binding = checks.check(*b"idx-meta", &[&meta_bytes]);
    let preamble = Preamble::plan(sequence, entries_max(inputs), len_u64(meta_bytes.len()), binding);
    sink.write_at(len_u64(PREAMBLE_LEN), &meta_bytes)?;

    let mut writer = TableWriter::new(sink, checks, preamble);
    let mut merge = Merge::new(inputs, numbers)?;
    let mut places: Vec<Record> = Vec::with_capacity(MAX_HITS);
    while let Some(record) = merge.next()? {
        if places.last().is_some_and(|last| last.id != record.id) {
            places.clear();
        }
        if places.len() < MAX_HITS && !places.contains(&record) {
            writer.push(&record)?;
            places.push(record);
        }
    }
    Ok(writer.finish()?)
}

/// The records of all inputs in the order of their ids; of one id those of earlier inputs first.
struct Merge<'a> {
    cursors: Vec<Cursor<'a>>,
    /// The next id of each input that has one.
    heads: BinaryHeap<Reverse<([u8; 32], usize)>>,
}

impl<'a> Merge<'a> {
    fn new(inputs: &'a [Input<'a>], numbers: &'a [Vec<u32>]) -> Result<Self, BuildError> {
        let mut merge = Self { cursors: Vec::with_capacity(inputs.len()), heads: BinaryHeap::new() };
        for (at, (input, numbers)) in inputs.iter().zip(numbers).enumerate() {
            merge.cursors.push(Cursor { input, numbers, entry: 0, block: None, head: None });
            merge.advance(at)?;
        }
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<Record>, BuildError> {
        let Some(Reverse((_, at))) = self.heads.pop() else { return Ok(None) };
        let record = self.cursors[at].head.take();
        self.advance(at)?;
        Ok(record)
    }

    fn advance(&mut self, at: usize) -> Result<(), BuildError> {
        let cursor = &mut self.cursors[at];
        cursor.head = cursor.read().map_err(|Damaged| BuildError::Damaged(at))?;
        if let Some(record) = &cursor.head {
            self.heads.push(Reverse((record.id, at)));
        }
        Ok(())
    }
}

/// A place in one input.
struct Cursor<'a> {
    input: &'a Input<'a>,
    numbers: &'a [u32],
    entry: usize,
    block: Option<Box<Block>>,
    head: Option<Record>,
}

impl Cursor<'_> {
    /// The next record, with its pack's new number. Entries that name no pack of their index are left out.
    fn read(&mut self) -> Result<Option<Record>, Damaged> {
        loop {
            let Some(mut record) = self.read_as_it_is()? else { return Ok(None) };
            let number = usize::try_from(record.pack).ok().and_then(|pack| self.numbers.get(pack));
            if let Some(number) = number {
                record.pack = *number;
                return Ok(Some(record));
            }
        }
    }

    fn read_as_it_is(&mut self) -> Result<Option<Record>, Damaged> {
        let at = self.entry;
        self.entry += 1;
        match self.input {
            Input::Index(entries) => Ok(entries.get(at).map(|entry| Record {
                id: entry.id.0,
                pack: entry.pack,
                offset: entry.offset,
                stored_len: entry.stored_len,
                plain_len: entry.plain_len,
                codec: entry.codec,
            })),
            Input::Table(table) => {
                if len_u64(at) >= table.entries() {
                    return Ok(None);
                }
                if at.is_multiple_of(RECORDS_PER_BLOCK) {
                    self.block = Some(Box::new(Block::read(table, at / RECORDS_PER_BLOCK)?));
                }
                let record = self.block.as_ref().and_then(|block| block.record(at % RECORDS_PER_BLOCK));
                record.map(Some).ok_or(Damaged)
            }
        }
    }
}

/// Writes prefixes and blocks side by side, and the fence and the preamble at the end.
struct TableWriter<'a, 'b> {
    sink: &'a mut Sink<'b>,
    checks: &'a Checks,
    preamble: Preamble,
    fence: Vec<u32>,
    content: blake3::Hasher,
    /// The block that is being filled: its prefixes and its bytes.
    block_prefixes: Vec<u8>,
    block: Vec<u8>,
    prefixes: Stream,
    blocks: Stream,
}

/// Bytes on their way to consecutive places of the sink.
struct Stream {
    offset: u64,
    buffer: Vec<u8>,
}

impl Stream {
    fn new(offset: u64) -> Self {
        Self { offset, buffer: Vec::with_capacity(BUFFER_LEN + BLOCK_LEN) }
    }

    fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_LEN { self.flush(sink) } else { Ok(()) }
    }

    fn flush(&mut self, sink: &mut Sink<'_>) -> io::Result<()> {
        sink.write_at(self.offset, &self.buffer)?;
        self.offset += len_u64(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }
}

impl<'a, 'b> TableWriter<'a, 'b> {
    fn new(sink: &'a mut Sink<'b>, checks: &'a Checks, preamble: Preamble) -> Self {
        let (prefixes, blocks) = (Stream::new(preamble.prefixes_offset), Stream::new(preamble.blocks_offset));
        Self {
            sink,
            checks,
            preamble,
            fence: Vec::new(),
            content: blake3::Hasher::new(),
            block_prefixes: Vec::with_capacity(RECORDS_PER_BLOCK * PREFIX_LEN),
            block: vec![0; BLOCK_CHECK_LEN],
            prefixes,
            blocks,
        }
    }

    fn push(&mut self, record: &Record) -> io::Result<()> {
        let prefix = record.prefix();
        let bucket = u64::from_be_bytes(prefix) >> (64 - self.preamble.fence_bits);
        self.fence_up_to(usize::try_from(bucket).expect("a fence has at most 2^25 buckets") + 1);
        self.preamble.entries += 1;
        self.block_prefixes.extend_from_slice(&prefix);
        let start = self.block.len();
        self.block.resize(start + RECORD_LEN, 0);
        record.encode(&mut self.block[start..]);
        if self.block_prefixes.len() == RECORDS_PER_BLOCK * PREFIX_LEN { self.close_block() } else { Ok(()) }
    }

    /// Lets the next entry be the first one of every bucket before `len` that has none yet.
    fn fence_up_to(&mut self, len: usize) {
        let next =
            u32::try_from(self.preamble.entries).expect("tables of more than 2^32 entries are not planned");
        if self.fence.len() < len {
            self.fence.resize(len, next);
        }
    }

    fn close_block(&mut self) -> io::Result<()> {
        self.block.resize(BLOCK_LEN, 0);
        let number = (self.preamble.entries - 1) / len_u64(RECORDS_PER_BLOCK);
        let records = &self.block[BLOCK_CHECK_LEN..];
        let check = self.checks.block(&self.preamble.binding, number, &self.block_prefixes, records);
        self.block[..BLOCK_CHECK_LEN].copy_from_slice(&check);
        self.content.update(&check);
        self.prefixes.push(&self.block_prefixes, self.sink)?;
        self.blocks.push(&self.block, self.sink)?;
        self.block_prefixes.clear();
        self.block.truncate(BLOCK_CHECK_LEN);
        Ok(())
    }

    fn finish(mut self) -> io::Result<Check> {
        if !self.block_prefixes.is_empty() {
            self.close_block()?;
        }
        self.prefixes.flush(self.sink)?;
        self.blocks.flush(self.sink)?;
        self.fence_up_to((1 << self.preamble.fence_bits) + 1);
        let fence: Vec<u8> = self.fence.iter().flat_map(|first| first.to_le_bytes()).collect();
        self.sink.write_at(self.preamble.fence_offset(), &fence)?;
        self.preamble.fence_check = self.checks.check(*b"idxfence", &[&fence]);
        self.preamble.content = *self.content.finalize().as_bytes();
        self.preamble.file_len = self.preamble.blocks_offset + self.preamble.blocks() * len_u64(BLOCK_LEN);
        self.sink.set_len(self.preamble.file_len)?;
        let preamble = self.preamble.encode(self.checks);
        self.sink.write_at(0, &preamble)?;
        let (_, check) = preamble.split_last_chunk().expect("a preamble ends with its checksum");
        Ok(*check)
    }
}
