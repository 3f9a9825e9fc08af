//! What of a disk could not be restored.

use crate::error::{EngineError, chain};
use crate::extent::Extent;
use crate::store::StoreError;
use serde::Serialize;

/// Separate ranges that are kept: some 15 MiB of them. A disk can lose as many chunks as it has.
const RANGES_MAX: usize = 1 << 16;

/// A range of a disk that could not be restored; its bytes in the target are zero.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LostRange {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// The blob that is damaged or missing.
    pub blob: String,
    /// What is wrong with it.
    pub reason: String,
}

impl LostRange {
    /// A range that is lost for a damage; nothing if the error tells of something else.
    pub(super) fn new(extent: Extent, error: &EngineError) -> Option<Self> {
        let (blob, reason) = match error {
            EngineError::Damaged { name, source } => (name, chain(source)),
            EngineError::Short { name, .. } => (name, "it is too short".to_owned()),
            EngineError::Store(StoreError::NotFound { name }) => (name, "it is missing".to_owned()),
            EngineError::Store(StoreError::Io { object, source, .. }) if error.is_damage() => {
                let (blob, reason) = (object.clone(), source.to_string());
                return Some(Self { start: extent.start, length: extent.length, blob, reason });
            }
            _ => return None,
        };
        Some(Self { start: extent.start, length: extent.length, blob: blob.to_string(), reason })
    }

    pub(super) fn extent(&self) -> Extent {
        Extent { start: self.start, length: self.length }
    }

    fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// Collects lost ranges, in any order; none of them overlap.
#[derive(Default)]
pub(super) struct Lost {
    ranges: Vec<LostRange>,
    bytes: u64,
    /// Ranges that are no farther apart have been joined, whatever their causes; 0 for none.
    gap: u64,
}

impl Lost {
    pub(super) fn add(&mut self, range: LostRange) {
        self.add_up_to(range, RANGES_MAX);
    }

    fn add_up_to(&mut self, range: LostRange, ranges_max: usize) {
        self.bytes += range.length;
        self.ranges.push(range);
        if self.ranges.len() > ranges_max {
            self.tidy();
            // Half of them, so that this is not done again for each that follows.
            while self.ranges.len() > ranges_max / 2 {
                self.gap = (self.gap * 2).max(1);
                self.tidy();
            }
        }
    }

    /// Sorts the ranges and joins those that belong together.
    fn tidy(&mut self) {
        self.ranges.sort_unstable();
        let mut joined: Vec<LostRange> = Vec::new();
        for range in std::mem::take(&mut self.ranges) {
            match joined.last_mut() {
                Some(last) if self.belongs(last, &range) => last.length = range.end() - last.start,
                _ => joined.push(range),
            }
        }
        self.ranges = joined;
    }

    fn belongs(&self, last: &LostRange, range: &LostRange) -> bool {
        let apart = range.start - last.end();
        let same_cause = (&last.blob, &last.reason) == (&range.blob, &range.reason);
        apart < self.gap || (apart == 0 && same_cause)
    }

    /// The ranges in order, how many bytes are lost, and whether ranges were joined over what is not lost.
    pub(super) fn finish(mut self) -> (Vec<LostRange>, u64, bool) {
        self.tidy();
        (self.ranges, self.bytes, self.gap > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, length: u64, blob: &str) -> LostRange {
        LostRange { start, length, blob: blob.to_owned(), reason: "it is missing".to_owned() }
    }

    fn collected(ranges: &[LostRange], ranges_max: usize) -> (Vec<LostRange>, u64, bool) {
        let mut lost = Lost::default();
        for range in ranges {
            lost.add_up_to(range.clone(), ranges_max);
        }
        lost.finish()
    }

    #[test]
    fn neighbours_of_one_cause_are_joined() {
        let ranges = [range(30, 5, "a"), range(0, 10, "a"), range(20, 10, "b"), range(10, 10, "a")];
        let expected = vec![range(0, 20, "a"), range(20, 10, "b"), range(30, 5, "a")];
        assert_eq!(collected(&ranges, 10), (expected, 35, false));
    }

    #[test]
    fn too_many_ranges_become_fewer_that_hold_them_all() {
        // Apart by 1, 2, 4 and so on, out of order.
        let starts: Vec<u64> = (0..40).map(|step| 1 << step).collect();
        let ranges: Vec<LostRange> = starts.iter().rev().map(|start| range(*start, 1, "a")).collect();
        let (found, bytes, joined) = collected(&ranges, 16);
        assert_eq!((bytes, joined), (40, true));
        assert!(found.len() <= 16, "{} ranges", found.len());
        for start in starts {
            assert!(found.iter().any(|range| (range.start..range.end()).contains(&start)), "{start}");
        }
        assert!(found.windows(2).all(|pair| pair[0].end() < pair[1].start), "{found:?}");
    }
}
