//! Changed-block tracking of one disk: which block was written last under which sequence.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::contents::{BLOCK_LEN, Contents, blocks_of};

/// The name of a moment of a disk: `52 c4 … 0f-1d … 9a/7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChangeId {
    epoch: [u8; 16],
    sequence: u64,
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, byte) in self.epoch.iter().enumerate() {
            match number {
                0 => {}
                8 => f.write_char('-')?,
                _ => f.write_char(' ')?,
            }
            write!(f, "{byte:02x}")?;
        }
        write!(f, "/{}", self.sequence)
    }
}

impl ChangeId {
    /// Reads one; none if it is malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (epoch, sequence) = text.split_once('/')?;
        let epoch: Vec<u8> = epoch
            .split([' ', '-'])
            .map(|byte| if byte.len() == 2 { u8::from_str_radix(byte, 16).ok() } else { None })
            .collect::<Option<_>>()?;
        Some(Self { epoch: epoch.try_into().ok()?, sequence: sequence.parse().ok()? })
    }
}

/// What is known of a disk's changes. A clone is frozen: its sequence and what changed before it.
#[derive(Debug, Clone)]
pub(super) struct Tracking {
    epoch: [u8; 16],
    /// The sequence that the next snapshot gets, and under which writes are recorded until then.
    sequence: u64,
    /// The sequence under which each block was written last, if it was since the epoch began.
    changed: Arc<BTreeMap<u64, u64>>,
}

impl Tracking {
    pub(super) fn start(epoch: [u8; 16]) -> Self {
        Self { epoch, sequence: 1, changed: Arc::default() }
    }

    pub(super) fn change_id(&self) -> ChangeId {
        ChangeId { epoch: self.epoch, sequence: self.sequence }
    }

    /// Records that a range was written.
    pub(super) fn mark(&mut self, offset: u64, len: u64) {
        let changed = Arc::make_mut(&mut self.changed);
        changed.extend(blocks_of(offset, len).into_iter().flatten().map(|block| (block, self.sequence)));
    }

    /// Begins the next sequence: a snapshot has just taken this one.
    pub(super) fn advance(&mut self) {
        self.sequence += 1;
    }

    /// Returns the blocks that changed between an earlier moment and this one, ascending; none if the moment is of
    /// another epoch or still to come.
    pub(super) fn changed_since(&self, since: ChangeId) -> Option<impl Iterator<Item = u64>> {
        let known = since.epoch == self.epoch && since.sequence <= self.sequence;
        let of = move |(block, sequence): (&u64, &u64)| (*sequence > since.sequence).then_some(*block);
        known.then(|| self.changed.iter().filter_map(of))
    }
}

/// A range of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) length: u64,
}

/// Joins ascending blocks to as few extents as there can be, which end at the disk's end at the latest.
pub(super) fn extents(blocks: impl Iterator<Item = u64>, contents: &Contents) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for block in blocks {
        let start = block * BLOCK_LEN;
        let length = BLOCK_LEN.min(contents.capacity().saturating_sub(start));
        match extents.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.start + last.length == start => last.length += length,
            _ => extents.push(Extent { start, length }),
        }
    }
    extents
}
