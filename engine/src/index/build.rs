//! Making tables: a streaming merge of index blobs and older tables.
//!
//! Memory: [`BLOCKS_READ`] for each table that is merged, the output buffers, and the meta (packs, sessions and names, not
//! entries). Inputs are read and outputs written, not mapped, so that nothing else stays in this process.

use super::MAX_HITS;
use super::layout::{
    BLOCK_CHECK_LEN, BLOCK_LEN, BlockChecks, Check, Checks, Damaged, PREAMBLE_LEN, Preamble, RECORD_LEN,
    RECORDS_PER_BLOCK, Record, bucket_and_tag, len_u64,
};
use super::meta::Meta;
use super::table::{Table, record_of};
use repo_format::IndexEntry;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are collected before they are written: large enough that system calls do not count.
const BUFFER_LEN: usize = 256 << 10;

/// Blocks that are read at once of a table that is merged: 64 KiB, large enough that system calls do not count.
const BLOCKS_READ: usize = 16;

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
    /// The next record of each input that has one.
    heads: BinaryHeap<Head>,
}

/// The next record of an input.
struct Head {
    record: Record,
    input: usize,
}

impl<'a> Merge<'a> {
    fn new(inputs: &'a [Input<'a>], numbers: &'a [Vec<u32>]) -> Result<Self, BuildError> {
        let mut merge = Self { cursors: Vec::with_capacity(inputs.len()), heads: BinaryHeap::new() };
        for (at, (input, numbers)) in inputs.iter().zip(numbers).enumerate() {
            let mut cursor = Cursor { input, numbers, entry: 0, blocks: Vec::new() };
            if let Some(record) = cursor.read().map_err(|Damaged| BuildError::Damaged(at))? {
                merge.heads.push(Head { record, input: at });
            }
            merge.cursors.push(cursor);
        }
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<Record>, BuildError> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let input = head.input;
        let following = self.cursors[input].read().map_err(|Damaged| BuildError::Damaged(input))?;
        Ok(Some(match following {
            Some(following) => std::mem::replace(&mut head.record, following),
            None => PeekMut::pop(head).record,
        }))
    }
}

/// The greatest is what comes first: the lowest id, of one id that of the first input.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.record.id, other.input).cmp(&(self.record.id, self.input))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// A place in one input.
struct Cursor<'a> {
    input: &'a Input<'a>,
    numbers: &'a [u32],
    entry: usize,
    /// The blocks of a table around `entry`, from a multiple of [`BLOCKS_READ`] on.
    blocks: Vec<u8>,
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
                let block = at / RECORDS_PER_BLOCK;
                let within = block % BLOCKS_READ * BLOCK_LEN;
                if within == 0 && at.is_multiple_of(RECORDS_PER_BLOCK) {
                    self.blocks.resize((table.blocks() - block).min(BLOCKS_READ) * BLOCK_LEN, 0);
                    table.read_blocks(block, &mut self.blocks)?;
                }
                record_of(&self.blocks[within..], at % RECORDS_PER_BLOCK).map(Some)
            }
        }
    }
}

/// Writes fence, tags and blocks side by side, and the preamble at the end.
struct TableWriter<'a, 'b> {
    sink: &'a mut Sink<'b>,
    checks: &'a Checks,
    block_checks: BlockChecks,
    preamble: Preamble,
    content: blake3::Hasher,
    /// The block that is being filled, and how many bytes of it are.
    block: [u8; BLOCK_LEN],
    filled: usize,
    /// How many entries the fence has so far.
    fence_entries: usize,
    fence: Stream,
    tags: Stream,
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
        Self {
            sink,
            checks,
            block_checks: checks.of_blocks(&preamble.binding),
            content: blake3::Hasher::new(),
            block: [0; BLOCK_LEN],
            filled: BLOCK_CHECK_LEN,
            fence_entries: 0,
            fence: Stream::new(preamble.fence_offset()),
            tags: Stream::new(preamble.tags_offset),
            blocks: Stream::new(preamble.blocks_offset),
            preamble,
        }
    }

    fn push(&mut self, record: &Record) -> io::Result<()> {
        let (bucket, tag) = bucket_and_tag(&record.id, self.preamble.fence_bits);
        self.fence_up_to(bucket + 1)?;
        self.preamble.entries += 1;
        self.tags.push(&tag.to_le_bytes(), self.sink)?;
        record.encode(&mut self.block[self.filled..]);
        self.filled += RECORD_LEN;
        if self.filled + RECORD_LEN > BLOCK_LEN { self.close_block() } else { Ok(()) }
    }

    /// Lets the next entry be the first one of every bucket before `len` that has none yet.
    fn fence_up_to(&mut self, len: usize) -> io::Result<()> {
        let next =
            u32::try_from(self.preamble.entries).expect("tables of more than 2^32 entries are not planned");
        while self.fence_entries < len {
            self.fence.push(&next.to_le_bytes(), self.sink)?;
            self.fence_entries += 1;
        }
        Ok(())
    }

    fn close_block(&mut self) -> io::Result<()> {
        self.block[self.filled..].fill(0);
        let number = (self.preamble.entries - 1) / len_u64(RECORDS_PER_BLOCK);
        let check = self.block_checks.check(number, &mut self.block);
        self.block[..BLOCK_CHECK_LEN].copy_from_slice(&check);
        self.content.update(&check);
        self.blocks.push(&self.block, self.sink)?;
        self.filled = BLOCK_CHECK_LEN;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Check> {
        if self.filled > BLOCK_CHECK_LEN {
            self.close_block()?;
        }
        self.fence_up_to((1 << self.preamble.fence_bits) + 1)?;
        self.fence.flush(self.sink)?;
        self.tags.flush(self.sink)?;
        self.blocks.flush(self.sink)?;
        self.preamble.content = *self.content.finalize().as_bytes();
        self.preamble.file_len = self.preamble.blocks_offset + self.preamble.blocks() * len_u64(BLOCK_LEN);
        self.sink.set_len(self.preamble.file_len)?;
        let preamble = self.preamble.encode(self.checks);
        self.sink.write_at(0, &preamble)?;
        let (_, check) = preamble.split_last_chunk().expect("a preamble ends with its checksum");
        Ok(*check)
    }
}
