//! Where chunks end.
//!
//! A chunker starts anew at every region's start, and the end of a chunk is decided by two things alone: the bytes
//! from its start to [`Chunker::decided_by`], and how far the region's end is. Nothing outside this module knows which
//! chunker it is; [`crate::rechunk`] rests on this, and on what [`Chunker::zero_cut`] says of holes. The submodules tell
//! why both hold for each chunker.

mod fastcdc;
mod mincdc;

use fastcdc::FastCdc;
use mincdc::MinCdc;
use repo_format::{ChunkerName, ChunkerParams};

/// A content-defined chunker with its tables computed.
#[derive(Clone, Debug)]
pub struct Chunker {
    kind: Kind,
    average: usize,
    max: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    FastCdc(FastCdc),
    MinCdc(MinCdc),
}

impl Chunker {
    /// A chunker with parameters that passed their check (SPEC CONF-4) and the repository's chunker seed.
    #[must_use]
    pub fn new(params: &ChunkerParams, seed: u64) -> Self {
        let kind = match params.name {
            ChunkerName::FastCdc2020 => Kind::FastCdc(FastCdc::new(params, seed)),
            ChunkerName::MinCdcHash4 => Kind::MinCdc(MinCdc::new(params, seed)),
        };
        Self { kind, average: params.average as usize, max: params.max as usize }
    }

    /// The length of the chunk that starts with the first byte of `data`, which is not empty.
    ///
    /// `data` ends where the region ends, or holds at least [`Chunker::reach`] bytes.
    ///
    /// # Panics
    /// When `data` is empty.
    #[must_use]
    pub fn next_cut(&self, data: &[u8]) -> usize {
        if data.starts_with(&[0; 16]) {
            let cut = self.zero_cut(data.len());
            if is_zero(&data[..self.decided_by(0, cut, data.len())]) {
                return cut;
            }
        }
        self.cut_within(data, data.len()).expect("a region's end decides")
    }

    /// [`Chunker::next_cut`] for a chunk that starts `left` bytes before its region's end, if `data`, which may be
    /// fewer bytes, decides it and holds all of it. [`Chunker::reach`] bytes do.
    #[must_use]
    pub fn cut_within(&self, data: &[u8], left: usize) -> Option<usize> {
        match &self.kind {
            Kind::FastCdc(fastcdc) => fastcdc.cut(data, left),
            Kind::MinCdc(mincdc) => mincdc.cut(data, left),
        }
    }

    /// What [`Chunker::next_cut`] says of zeros, `left` bytes before the region's end.
    ///
    /// A chunk within a hole that has more bytes than `left` behind it ends there too, or where the hole ends if that
    /// is before.
    #[must_use]
    pub fn zero_cut(&self, left: usize) -> usize {
        match &self.kind {
            Kind::FastCdc(fastcdc) => fastcdc.zero_cut(left),
            Kind::MinCdc(mincdc) => mincdc.zero_cut(left),
        }
    }

    /// The end of the bytes that decide that a chunk which starts at `start` ends at `end`. It does not fall when
    /// `start` or `end` rise.
    #[must_use]
    pub fn decided_by(&self, start: usize, end: usize, region_end: usize) -> usize {
        let decided_by = match &self.kind {
            Kind::FastCdc(_) => end + fastcdc::LOOKAHEAD,
            Kind::MinCdc(_) => start + self.max,
        };
        decided_by.min(region_end)
    }

    /// How many bytes from a chunk's start on decide its end at most.
    #[must_use]
    pub fn reach(&self) -> usize {
        self.decided_by(0, self.max, usize::MAX)
    }

    /// How many bytes from a chunk's start on it takes at least to decide its end, unless the region ends before.
    #[must_use]
    pub fn least_reach(&self) -> usize {
        self.decided_by(0, 1, usize::MAX)
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
}

/// What data is compared with, a piece at a time: it stays in the first-level cache.
static ZEROS: [u8; 4096] = [0; 4096];

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    data.chunks(ZEROS.len()).all(|piece| *piece == ZEROS[..piece.len()])
}

/// How many zeros come first.
#[must_use]
pub fn leading_zeros(data: &[u8]) -> usize {
    let whole = data.chunks(ZEROS.len()).take_while(|piece| **piece == ZEROS[..piece.len()]);
    let whole = data.len().min(whole.count() * ZEROS.len());
    let partial = data[whole..].iter().take_while(|&&byte| byte == 0).count();
    whole + partial
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [(ChunkerName, u32, u32, u32); 10] = [
        (ChunkerName::FastCdc2020, 64, 256, 1024),
        (ChunkerName::FastCdc2020, 64, 256, 1026),
        (ChunkerName::FastCdc2020, 256, 256, 2048),
        (ChunkerName::FastCdc2020, 512, 1000, 1024),
        (ChunkerName::FastCdc2020, 64, 4096, 4096),
        (ChunkerName::MinCdcHash4, 64, 544, 1024),
        (ChunkerName::MinCdcHash4, 77, 551, 1025),
        (ChunkerName::MinCdcHash4, 512, 1024, 1536),
        (ChunkerName::MinCdcHash4, 1000, 1015, 1031),
        (ChunkerName::MinCdcHash4, 1024, 1024, 1024),
    ];

    fn chunkers() -> Vec<Chunker> {
        let seeds = (0..64).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let chunker =
            |seed, (name, min, average, max)| Chunker::new(&ChunkerParams { name, min, average, max }, seed);
        seeds.flat_map(|seed| LENGTHS.map(|lengths| chunker(seed, lengths))).collect()
    }

    /// The cut without a short way for zeros.
    fn scan(chunker: &Chunker, data: &[u8]) -> usize {
        chunker.cut_within(data, data.len()).expect("a region's end decides")
    }

    /// Pseudo-random bytes, the same for ever for one label.
    fn noise(label: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&(label as u64).to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn zeros_are_cut_as_the_scan_cuts_them() {
        let mut ends_early = 0;
        for chunker in chunkers() {
            ends_early += usize::from(chunker.zero_cut(1 << 20) < chunker.max);
            for len in 1..=chunker.reach() + 2 {
                assert_eq!(chunker.zero_cut(len), scan(&chunker, &vec![0; len]), "{len} of {chunker:?}");
            }
        }
        assert!(ends_early > 64, "zeros must be cut before the maximum, or this shows little");
    }

    #[test]
    fn zeros_before_data_are_cut_as_the_scan_cuts_them() {
        for chunker in chunkers().into_iter().step_by(7) {
            let mut data = vec![0; chunker.reach() + 2];
            for at in 0..data.len() {
                data[at] = 0xa5;
                for len in [data.len() - 2, data.len() - 1, data.len()] {
                    assert_eq!(chunker.next_cut(&data[..len]), scan(&chunker, &data[..len]));
                }
                assert_eq!(chunker.next_cut(&data[..=at]), scan(&chunker, &data[..=at]));
                data[at] = 0;
            }
        }
    }

    #[test]
    fn a_cut_is_decided_by_no_byte_behind_its_decision_range_and_by_its_last_one() {
        let mut by_last = 0;
        for (label, chunker) in chunkers().iter().enumerate() {
            let mut data = noise(label, chunker.reach() + 40);
            let (left, cut) = (data.len(), chunker.next_cut(&data));
            let decided_by = chunker.decided_by(0, cut, left);
            for behind in &mut data[decided_by..] {
                *behind = !*behind;
            }
            assert_eq!(chunker.next_cut(&data), cut, "{chunker:?}");
            by_last += usize::from((0..=255).any(|byte| {
                data[decided_by - 1] = byte;
                chunker.next_cut(&data) != cut
            }));
        }
        assert!(by_last > 100, "the last byte made a difference in {by_last} cases only");
    }

    #[test]
    fn fewer_bytes_decide_rightly_or_not_at_all() {
        for (label, chunker) in chunkers().iter().enumerate().step_by(3) {
            let data = noise(label, chunker.reach() + 40);
            for left in [chunker.reach() / 2, chunker.max, data.len()] {
                let cut = chunker.next_cut(&data[..left]);
                for len in 1..=left {
                    let decided = chunker.cut_within(&data[..len], left);
                    assert!(
                        decided.is_none_or(|decided| decided == cut && cut <= len),
                        "{len} of {chunker:?}"
                    );
                    assert!(decided.is_some() || len < left.min(chunker.reach()), "{len} of {chunker:?}");
                    assert!(
                        decided.is_none() || len >= left.min(chunker.least_reach()),
                        "{len} of {chunker:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn mincdc_cuts_before_the_first_place_with_the_lowest_hash() {
        for (label, seed) in (0..300_u64).map(|n| n.wrapping_mul(0x0123_4567_89ab_cdef)).enumerate() {
            let params = ChunkerParams { name: ChunkerName::MinCdcHash4, min: 64, average: 544, max: 1024 };
            let chunker = Chunker::new(&params, seed);
            let halves = [seed & u64::from(u32::MAX), seed >> 32];
            let [low, addend] = halves.map(|half| u32::try_from(half).expect("half of 64 bits"));
            let multiplier = low | 1;
            let mut data = noise(label, 1 + label * 4);
            if label % 3 == 0 {
                // Few different windows: there are ties.
                for byte in &mut data {
                    *byte &= 1;
                }
            }
            let hash = |place: &usize| {
                let window = data[*place - 4..*place].try_into().expect("four bytes");
                u32::from_le_bytes(window).wrapping_mul(multiplier).wrapping_add(addend)
            };
            let expected = if data.len() <= 64 {
                Some(data.len())
            } else {
                (64..=data.len().min(1024)).min_by_key(hash)
            };
            assert_eq!(Some(chunker.next_cut(&data)), expected, "{} bytes, seed {seed}", data.len());
        }
    }

    #[test]
    fn a_single_set_bit_is_not_zero() {
        assert!(is_zero(&[]));
        assert_eq!(leading_zeros(&[]), 0);
        for len in [1, 15, 64, 4095, 4096, 4097, 10_000] {
            let mut data = vec![0; len];
            assert!(is_zero(&data));
            assert_eq!(leading_zeros(&data), len);
            for at in [0, len / 2, len - 1] {
                data[at] = 0x80;
                assert!(!is_zero(&data));
                assert_eq!(leading_zeros(&data), at);
                data[at] = 0;
            }
        }
    }
}
