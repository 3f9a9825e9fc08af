//! Where chunks end.
//!
//! The chunker starts anew at every region's start and is told the region's end by the end of the data, so a
//! chunk's end is decided by three things alone: the bytes of the chunk, the [`Chunker::lookahead`] bytes behind it,
//! and how far the region's end is. Nothing outside this module knows which chunker it is.

use fastcdc::v2020;
use repo_format::ChunkerParams;

/// A content-defined chunker with its tables computed.
#[derive(Clone, Debug)]
pub struct Chunker {
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

impl Chunker {
    /// A chunker with parameters that passed their check (SPEC CONF-4) and the repository's chunker seed.
    #[must_use]
    pub fn new(params: &ChunkerParams, seed: u64) -> Self {
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
        chunker.zero_len = chunker.scan(&vec![0; chunker.max + chunker.lookahead()]);
        chunker
    }

    /// The length of the chunk that starts with the first byte of `data`, which is not empty.
    ///
    /// `data` ends where the region ends, or holds at least [`Chunker::max_len`] + [`Chunker::lookahead`] bytes.
    /// With fewer bytes of a longer region, a result below their number is right as well; one equal to it means
    /// that they do not decide.
    #[must_use]
    pub fn next_cut(&self, data: &[u8]) -> usize {
        if data.starts_with(&[0; 16]) {
            let cut = self.zero_cut(data.len());
            if is_zero(&data[..data.len().min(cut + self.lookahead())]) {
                return cut;
            }
        }
        self.scan(data)
    }

    /// What [`Chunker::next_cut`] says of `len` zeros.
    ///
    /// A last byte at an odd place is no candidate for a cut because the scan goes by pairs: the chunk that would
    /// end before it takes it along.
    #[must_use]
    pub fn zero_cut(&self, len: usize) -> usize {
        let takes_last_byte = len == self.zero_len + 1 && len % 2 == 1 && len <= self.max;
        if len <= self.zero_len || takes_last_byte { len } else { self.zero_len }
    }

    /// The length that no chunk exceeds.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.max
    }

    /// The length that chunks have on average, about.
    #[must_use]
    pub fn average_len(&self) -> usize {
        self.average
    }

    /// How many bytes behind a chunk its end depends on: one, because the hash that cuts includes the byte at the cut.
    #[must_use]
    pub fn lookahead(&self) -> usize {
        1
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

/// What data is compared with, a piece at a time: it stays in the first-level cache.
static ZEROS: [u8; 4096] = [0; 4096];

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    data.chunks(ZEROS.len()).all(|piece| *piece == ZEROS[..piece.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::ChunkerName;

    fn chunkers() -> Vec<Chunker> {
        let lengths =
            [(64, 256, 1024), (64, 256, 1026), (256, 256, 2048), (512, 1000, 1024), (64, 4096, 4096)];
        let seeds = (0..64).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        seeds
            .flat_map(|seed| {
                lengths.map(|(min, average, max)| {
                    let params = ChunkerParams { name: ChunkerName::FastCdc2020, min, average, max };
                    Chunker::new(&params, seed)
                })
            })
            .collect()
    }

    #[test]
    fn zeros_are_cut_as_the_scan_cuts_them() {
        let mut ends_early = 0;
        for chunker in chunkers() {
            ends_early += usize::from(chunker.zero_len < chunker.max);
            for len in 1..=chunker.max_len() + 3 {
                assert_eq!(chunker.zero_cut(len), chunker.scan(&vec![0; len]), "{len} of {chunker:?}");
            }
        }
        assert!(ends_early > 0, "some seed must cut zeros before the maximum, or this shows little");
    }

    #[test]
    fn zeros_before_data_are_cut_as_the_scan_cuts_them() {
        for chunker in chunkers().into_iter().step_by(7) {
            let mut data = vec![0; chunker.max_len() + 3];
            for at in 0..data.len() {
                data[at] = 0xa5;
                for len in [data.len() - 2, data.len() - 1, data.len()] {
                    assert_eq!(chunker.next_cut(&data[..len]), chunker.scan(&data[..len]));
                }
                assert_eq!(chunker.next_cut(&data[..=at]), chunker.scan(&data[..=at]));
                data[at] = 0;
            }
        }
    }

    #[test]
    fn a_single_set_bit_is_not_zero() {
        assert!(is_zero(&[]));
        for len in [1, 15, 64, 4095, 4096, 4097, 10_000] {
            let mut data = vec![0; len];
            assert!(is_zero(&data));
            for at in [0, len / 2, len - 1] {
                data[at] = 0x80;
                assert!(!is_zero(&data));
                data[at] = 0;
            }
        }
    }
}
