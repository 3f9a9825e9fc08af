//! The contents of a disk: the blocks that were ever written, shared between the disk and what was frozen of it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The unit in which contents are kept and changes are tracked: what `ESXi` 8 was seen to use.
pub(super) const BLOCK_LEN: u64 = 64 << 10;

/// A sparse disk. A clone shares its blocks until one of the two writes.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    capacity: u64,
    blocks: Arc<BTreeMap<u64, Arc<[u8]>>>,
}

impl Contents {
    pub(super) fn new(capacity: u64) -> Self {
        Self { capacity, blocks: Arc::default() }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Writes bytes, which must lie on the disk.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        assert!(end <= self.capacity, "a test wrote up to {end}, past the disk's end at {}", self.capacity);
        let blocks = Arc::make_mut(&mut self.blocks);
        let mut at = offset;
        while at < end {
            let within = index(at % BLOCK_LEN);
            let from = &bytes[index(at - offset)..];
            let len = from.len().min(index(BLOCK_LEN) - within);
            let block = blocks.entry(at / BLOCK_LEN).or_insert_with(zeros);
            let mut changed = block.to_vec();
            changed[within..within + len].copy_from_slice(&from[..len]);
            *block = changed.into();
            at += len as u64;
        }
    }

    /// Makes a range read as zeros. Blocks that lie in it whole are no longer allocated.
    pub(super) fn discard(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        assert!(
            end <= self.capacity,
            "a test discarded up to {end}, past the disk's end at {}",
            self.capacity
        );
        let blocks = Arc::make_mut(&mut self.blocks);
        let touched: Vec<u64> = match blocks_of(offset, len) {
            Some(range) => blocks.range(range).map(|(block, _)| *block).collect(),
            None => Vec::new(),
        };
        for block in touched {
            let start = block * BLOCK_LEN;
            if offset <= start && start + BLOCK_LEN <= end {
                blocks.remove(&block);
            } else if let Some(kept) = blocks.get_mut(&block) {
                let mut changed = kept.to_vec();
                let (from, to) = (offset.max(start) - start, end.min(start + BLOCK_LEN) - start);
                changed[index(from)..index(to)].fill(0);
                *kept = changed.into();
            }
        }
    }

    /// Reads a range, which must lie on the disk.
    pub(super) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let end = offset + len;
        assert!(end <= self.capacity, "a read up to {end} passes the disk's end at {}", self.capacity);
        let mut bytes = vec![0; index(len)];
        let Some(range) = blocks_of(offset, len) else { return bytes };
        for (block, content) in self.blocks.range(range) {
            let start = block * BLOCK_LEN;
            let (from, to) = (offset.max(start), end.min(start + BLOCK_LEN));
            bytes[index(from - offset)..index(to - offset)]
                .copy_from_slice(&content[index(from - start)..index(to - start)]);
        }
        bytes
    }

    /// Changes the capacity. What lies past it is gone, also if the disk grows again.
    pub(super) fn resize(&mut self, capacity: u64) {
        if capacity < self.capacity {
            let blocks_end = capacity.next_multiple_of(BLOCK_LEN);
            let tail = self.capacity.min(blocks_end) - capacity;
            self.discard(capacity, tail);
            Arc::make_mut(&mut self.blocks).retain(|block, _| block * BLOCK_LEN < blocks_end);
        }
        self.capacity = capacity;
    }

    /// Returns the numbers of the blocks that are allocated, ascending.
    pub(super) fn allocated(&self) -> impl Iterator<Item = u64> {
        self.blocks.keys().copied()
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("what is read or written at once fits in memory")
}

fn zeros() -> Arc<[u8]> {
    vec![0; index(BLOCK_LEN)].into()
}

/// Returns the blocks that a range touches; none if it is empty.
pub(super) fn blocks_of(offset: u64, len: u64) -> Option<RangeInclusive<u64>> {
    let last = offset.checked_add(len.checked_sub(1)?)?;
    Some(offset / BLOCK_LEN..=last / BLOCK_LEN)
}
