//! Blocks of a file that become complete piece by piece: pure but for their memory.

use crate::direct::{ALIGNMENT, AlignedPool};
use memmap2::MmapMut;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;

/// The length of a block: long enough for the speed of the disk.
pub(super) const BLOCK_LEN: usize = 1 << 20;
/// Blocks that wait for the rest of their data: a restore comes to the pieces of a disk nearly in order where they were
/// stored in order, and where they were not, more would not help.
pub(super) const BLOCKS_MAX: usize = 32;

/// A block, and which of its bytes are known.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) number: u64,
    /// Its bytes, once some of them are data.
    pub(super) memory: Option<MmapMut>,
    /// Where data is: sorted, with gaps between.
    data: Vec<Range<usize>>,
    /// Bytes that are known: data, and those of holes.
    known_len: usize,
    /// Which block with data it was.
    begun: u64,
}

impl Block {
    fn new(number: u64) -> Self {
        Self { number, memory: None, data: Vec::new(), known_len: 0, begun: 0 }
    }

    pub(super) fn offset(&self) -> u64 {
        self.number * BLOCK_LEN as u64
    }

    /// Its data, with the places in the file.
    pub(super) fn data(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let memory = self.memory.as_deref().unwrap_or_default();
        self.data.iter().map(move |range| (self.offset() + range.start as u64, &memory[range.clone()]))
    }

    /// The pages in which data is, of a block of which all is known: what else is in them becomes zero, as it is in the
    /// holes that it belongs to.
    pub(super) fn pages(&mut self) -> impl Iterator<Item = (u64, &[u8])> {
        let offset = self.offset();
        let mut pages: Vec<Range<usize>> = Vec::new();
        let memory = self.memory.as_deref_mut().unwrap_or_default();
        let mut data_end = 0;
        for data in &self.data {
            let page = data.start / ALIGNMENT * ALIGNMENT;
            match pages.last_mut() {
                Some(last) if page <= last.end => {
                    memory[data_end..last.end.min(data.start)].fill(0);
                    memory[page.max(data_end)..data.start].fill(0);
                    last.end = data.end.next_multiple_of(ALIGNMENT);
                }
                last => {
                    if let Some(last) = last {
                        memory[data_end..last.end].fill(0);
                    }
                    memory[page..data.start].fill(0);
                    pages.push(page..data.end.next_multiple_of(ALIGNMENT));
                }
            }
            data_end = data.end;
        }
        if let Some(last) = pages.last() {
            memory[data_end..last.end].fill(0);
        }
        let memory = &*memory;
        pages.into_iter().map(move |range| (offset + range.start as u64, &memory[range]))
    }

    fn add_data(&mut self, range: Range<usize>) {
        let first = self.data.partition_point(|data| data.end < range.start);
        let end = self.data.partition_point(|data| data.start <= range.end);
        let joined = self.data[first..end]
            .iter()
            .fold(range, |joined, data| joined.start.min(data.start)..joined.end.max(data.end));
        self.data.splice(first..end, [joined]);
    }
}

/// Blocks that are known in part.
#[derive(Debug)]
pub(super) struct Assembly {
    /// The file's length.
    size: u64,
    blocks: HashMap<u64, Block>,
    /// Blocks with data, by when they began.
    order: BTreeMap<u64, u64>,
    begun: u64,
}

impl Assembly {
    pub(super) fn new(size: u64) -> Self {
        Self { size, blocks: HashMap::new(), order: BTreeMap::new(), begun: 0 }
    }

    /// Adds data that is within one block, and takes the block if it is complete.
    pub(super) fn data(
        &mut self,
        offset: u64,
        bytes: &[u8],
        pool: &AlignedPool,
    ) -> io::Result<Option<Block>> {
        let (number, range) = within(offset, bytes.len());
        let block = self.blocks.entry(number).or_insert_with(|| Block::new(number));
        let memory = match &mut block.memory {
            Some(memory) => memory,
            none => {
                let taken = pool.take(BLOCK_LEN)?;
                block.begun = self.begun;
                self.order.insert(self.begun, number);
                self.begun += 1;
                none.insert(taken)
            }
        };
        memory[range.clone()].copy_from_slice(bytes);
        block.add_data(range);
        Ok(self.known(number, bytes.len()))
    }

    /// Adds a part of a hole that is within one block, and takes the block if it is complete.
    pub(super) fn hole(&mut self, offset: u64, len: usize) -> Option<Block> {
        let (number, _) = within(offset, len);
        if len == self.block_len(number) {
            return None;
        }
        self.blocks.entry(number).or_insert_with(|| Block::new(number));
        self.known(number, len)
    }

    /// The block that has waited longest, if too many wait.
    pub(super) fn overdue(&mut self) -> Option<Block> {
        if self.order.len() <= BLOCKS_MAX {
            return None;
        }
        let (_, number) = self.order.pop_first()?;
        self.blocks.remove(&number)
    }

    /// All blocks with data, and nothing is known any more.
    pub(super) fn take_all(&mut self) -> Vec<Block> {
        self.order.clear();
        self.blocks.drain().map(|(_, block)| block).filter(|block| block.memory.is_some()).collect()
    }

    fn known(&mut self, number: u64, len: usize) -> Option<Block> {
        let complete_len = self.block_len(number);
        let block = self.blocks.get_mut(&number)?;
        block.known_len += len;
        if block.known_len < complete_len {
            return None;
        }
        if block.memory.is_some() {
            self.order.remove(&block.begun);
        }
        self.blocks.remove(&number).filter(|block| block.memory.is_some())
    }

    fn block_len(&self, number: u64) -> usize {
        let left = self.size - number * BLOCK_LEN as u64;
        usize::try_from(left).map_or(BLOCK_LEN, |left| left.min(BLOCK_LEN))
    }
}

/// A place by its block: the block's number, and a range within it.
fn within(offset: u64, len: usize) -> (u64, Range<usize>) {
    let start = usize::try_from(offset % BLOCK_LEN as u64).expect("it is less than a block");
    debug_assert!(start + len <= BLOCK_LEN, "it is within a block");
    (offset / BLOCK_LEN as u64, start..start + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 3 * BLOCK_LEN as u64;

    fn block(pieces: &[(usize, usize, bool)]) -> (Assembly, Option<Block>) {
        let mut assembly = Assembly::new(4 * BLOCK_LEN as u64);
        let pool = AlignedPool::default();
        let mut complete = None;
        for &(at, len, is_data) in pieces {
            assert!(complete.is_none(), "it was complete before {at}");
            complete = if is_data {
                // What memory holds before is not to be seen.
                let mut memory = pool.take(BLOCK_LEN).unwrap();
                memory.fill(0xee);
                pool.give(memory);
                assembly
                    .data(START + at as u64, &vec![u8::try_from(at % 250).unwrap() + 1; len], &pool)
                    .unwrap()
            } else {
                assembly.hole(START + at as u64, len)
            };
        }
        (assembly, complete)
    }

    #[test]
    fn a_block_of_data_and_holes_in_any_order_is_written_in_pages() {
        let pieces = [
            (9000, 100, true),
            (0, 5, true),
            (9100, BLOCK_LEN - 9100 - 10, false),
            (5, 95, false),
            (100, 50, true),
            (BLOCK_LEN - 10, 10, true),
            (4200, 4800, false),
            (150, 4050, true),
        ];
        let mut expected = vec![0; BLOCK_LEN];
        for (at, len, _) in pieces.iter().filter(|piece| piece.2) {
            expected[*at..at + len].fill(u8::try_from(at % 250).unwrap() + 1);
        }
        let (assembly, complete) = block(&pieces);
        assert!(assembly.blocks.is_empty() && assembly.order.is_empty());
        let mut complete = complete.expect("all of it is known");
        let mut found = vec![0; BLOCK_LEN];
        let mut places = Vec::new();
        for (offset, bytes) in complete.pages() {
            let at = usize::try_from(offset - START).unwrap();
            places.push((at, bytes.len()));
            found[at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(places, [(0, 12288), (BLOCK_LEN - 4096, 4096)]);
        assert!(found == expected);
    }

    #[test]
    fn a_block_with_a_missing_byte_gives_its_data_only() {
        let (mut assembly, complete) = block(&[(10, 20, true), (40, BLOCK_LEN - 40, false), (30, 9, true)]);
        assert!(complete.is_none());
        let blocks = assembly.take_all();
        let data: Vec<_> = blocks[0].data().map(|(offset, bytes)| (offset - START, bytes.to_vec())).collect();
        assert_eq!(data, [(10, [[11; 20].as_slice(), &[31; 9]].concat())]);
        assert!(assembly.take_all().is_empty());
    }

    #[test]
    fn the_oldest_block_is_overdue_when_too_many_wait() {
        let mut assembly = Assembly::new(1 << 40);
        let pool = AlignedPool::default();
        for number in 0..=BLOCKS_MAX as u64 {
            assert!(assembly.overdue().is_none());
            // Those with nothing but a hole take no memory, and do not count.
            assembly.hole((1000 + number) * BLOCK_LEN as u64, 1);
            assembly.data(number * BLOCK_LEN as u64, b"data", &pool).unwrap();
        }
        assert_eq!(assembly.overdue().map(|block| block.number), Some(0));
        assert!(assembly.overdue().is_none());
    }

    #[test]
    fn the_last_block_of_a_file_may_be_short() {
        let mut assembly = Assembly::new(BLOCK_LEN as u64 + 7);
        assert!(assembly.hole(BLOCK_LEN as u64, 3).is_none());
        let last = assembly.data(BLOCK_LEN as u64 + 3, b"last", &AlignedPool::default()).unwrap();
        assert_eq!(last.map(|block| block.number), Some(1));
    }
}
