//! Byte ranges of a disk.

use serde::{Deserialize, Serialize};

/// A byte range of a disk, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Bytes, at least 1.
    pub length: u64,
}

impl Extent {
    /// The range from `start` to `end`, or nothing if that is empty.
    #[must_use]
    pub fn between(start: u64, end: u64) -> Option<Self> {
        (start < end).then(|| Self { start, length: end - start })
    }

    /// The first byte behind the range.
    #[must_use]
    pub fn end(self) -> u64 {
        self.start + self.length
    }

    /// The part of the range within `start..end`.
    #[must_use]
    pub fn clip(self, start: u64, end: u64) -> Option<Self> {
        Self::between(self.start.max(start), self.end().min(end))
    }
}

/// Sorts extents and joins those that overlap or touch.
#[must_use]
pub fn normalized(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_unstable();
    let mut joined: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match joined.last_mut() {
            Some(last) if extent.start <= last.end() => {
                last.length = last.end().max(extent.end()) - last.start;
            }
            _ => joined.push(extent),
        }
    }
    joined
}

/// The bytes of all extents together.
#[must_use]
pub fn total_length(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.length).sum()
}
