//! FastCDC (SPEC CHUNK-2), by the crate `fastcdc`.
//!
//! **What a cut reads.** The places of a chunk are tested from `min` on, each with a hash of the bytes from `min` up to
//! and including the one behind the place. So a cut at `e` was decided by the chunk and one byte more, and by the
//! distance of the region's end.
//!
//! **Zeros.** Let `L` be the cut in unlimited zeros. In zeros no place below `L` cuts, and `L` does if it is tested (or is
//! the maximum). With few bytes left it may not be tested (the scan tests pairs, so it leaves out the last byte if their
//! number is odd). Hence `n` zeros before the region's end are cut at `n` for `n <= L`, and for `n > L` at `L`, or `n`
//! where `L` is not tested, which is possible for `n = L + 1` only.
//!
//! A chunk that starts `r` bytes before the end of a hole, and is not longer than `r`, is cut so too, though other bytes
//! may follow: if `r <= L`, the places below `r` have read zeros only, so none of them cuts, and the chunk ends with
//! the hole; if `r > L`, the byte at `L` is in the hole, thus zero, and the chunk ends at `L`, or with the hole at the
//! region's end if `L` is not tested.

use fastcdc::v2020;
use repo_format::ChunkerParams;

/// FastCDC with its tables computed.
#[derive(Clone, Debug)]
pub(super) struct FastCdc {
    min: usize,
    average: usize,
    max: usize,
    masks: Masks,
    gear: Box<[u64]>,
    gear_shifted: Box<[u64]>,
    /// Where a chunk of nothing but zeros ends if the region goes on.
    zero_len: usize,
}

/// The bits that must be clear at a cut: `strict` below the average length, `relaxed` from there on.
#[derive(Clone, Copy, Debug)]
struct Masks {
    strict: u64,
    relaxed: u64,
}

/// How many bytes behind a chunk its end depends on: the hash that cuts includes the byte at the cut.
pub(super) const LOOKAHEAD: usize = 1;

impl FastCdc {
    pub(super) fn new(params: &ChunkerParams, seed: u64) -> Self {
        let (gear, gear_shifted) = v2020::get_gear_with_seed(seed);
        let (strict, relaxed) = v2020::select_masks(params.average as usize, v2020::Normalization::Level1);
        let mut chunker = Self {
            min: params.min as usize,
            average: params.average as usize,
            max: params.max as usize,
            masks: Masks { strict, relaxed },
            gear: gear.into(),
            gear_shifted: gear_shifted.into(),
            zero_len: 0,
        };
        chunker.zero_len = chunker.scan(&vec![0; chunker.max + LOOKAHEAD]);
        chunker
    }

    /// With fewer bytes than are left, a cut below their number is the right one, and one equal to it tells nothing.
    pub(super) fn cut(&self, data: &[u8], left: usize) -> Option<usize> {
        let cut = self.scan(data);
        (cut < data.len() || data.len() == left).then_some(cut)
    }

    /// A last byte at an odd place is no candidate for a cut because the scan goes by pairs: the chunk that would
    /// end before it takes it along.
    pub(super) fn zero_cut(&self, left: usize) -> usize {
        let takes_last_byte = left == self.zero_len + 1 && left % 2 == 1 && left <= self.max;
        if left <= self.zero_len || takes_last_byte { left } else { self.zero_len }
    }

    fn scan(&self, data: &[u8]) -> usize {
        let Masks { strict, relaxed } = self.masks;
        let (_, cut) = v2020::cut_gear(
            data,
            self.min,
            self.average,
            self.max,
            strict,
            relaxed,
            strict << 1,
            relaxed << 1,
            &self.gear,
            &self.gear_shifted,
        );
        cut
    }
}
