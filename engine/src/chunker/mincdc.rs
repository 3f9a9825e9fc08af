//! MinCDC with windows of four hashed bytes (SPEC CHUNK-4), by the crate `mincdc`.
//!
//! **What a cut reads.** The cut is the place between `min` and `max` whose four bytes before it have the lowest hash,
//! the first of these places if there are several. Each place takes part, so every cut is decided by the bytes up to
//! `max`, or to the region's end if that is nearer.
//!
//! **Zeros.** Of `n` zeros before the region's end, all places have the same hash, and the first one wins: they are cut at
//! `min`, or at `n` if that is less.
//!
//! A chunk that starts `r` bytes before the end of a hole, and is not longer than `r`, is cut so too, though other bytes
//! may follow. If `r < min`, it ends with the region, because it can end at no other place below `min`. If `r >= min`, the
//! window at `min` is zeros, so the cut's hash is not above theirs; a lower one is that of a window with another byte, whose
//! end is behind that byte and thus behind the hole. So it is the same, and `min` is the first place that has it.

use mincdc::{Cdc, MinCdcHash4};
use repo_format::ChunkerParams;

/// The bytes before a place that decide about it.
const WINDOW_LEN: usize = 4;

/// MinCDC with the constants of its hash.
#[derive(Clone, Debug)]
pub(super) struct MinCdc {
    min: usize,
    max: usize,
    hash: MinCdcHash4,
}

impl MinCdc {
    pub(super) fn new(params: &ChunkerParams, seed: u64) -> Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = seed.to_le_bytes();
        // An even multiplier would not tell all windows apart.
        let multiplier = u32::from_le_bytes([b0, b1, b2, b3]) | 1;
        let addend = u32::from_le_bytes([b4, b5, b6, b7]);
        let hash = MinCdcHash4::with_params(multiplier, addend);
        Self { min: params.min as usize, max: params.max as usize, hash }
    }

    pub(super) fn cut(&self, data: &[u8], left: usize) -> Option<usize> {
        if left <= self.min {
            return (data.len() == left).then_some(left);
        }
        let first = self.min - WINDOW_LEN;
        let windows = data.get(first..left.min(self.max))?;
        Some(first + self.hash.best_splitpoint(windows))
    }

    pub(super) fn zero_cut(&self, left: usize) -> usize {
        left.min(self.min)
    }
}
