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

/// What two lists of extents, each sorted and without overlaps, have in common.
pub(crate) fn common(a: &[Extent], b: &[Extent]) -> Vec<Extent> {
    let mut both = Vec::new();
    let mut rest = b;
    for extent in a {
        // None of these reaches into what follows, either.
        rest = &rest[rest.partition_point(|other| other.end() <= extent.start)..];
        both.extend(rest.iter().map_while(|other| other.clip(extent.start, extent.end())));
    }
    both
}

/// Whether an extent has a byte in common with some that are sorted and do not overlap.
pub(crate) fn touches(extents: &[Extent], extent: Extent) -> bool {
    let next = extents.partition_point(|other| other.end() <= extent.start);
    extents.get(next).is_some_and(|other| other.start < extent.end())
}

/// What of a disk is in none of some extents, which are sorted and do not overlap.
pub(crate) fn remaining(extents: &[Extent], size: u64) -> Vec<Extent> {
    let mut rest = Vec::with_capacity(extents.len() + 1);
    let mut next = 0;
    for extent in extents {
        rest.extend(Extent::between(next, extent.start.min(size)));
        next = next.max(extent.end());
    }
    rest.extend(Extent::between(next, size));
    rest
}

/// The bytes of all extents together.
#[must_use]
pub fn total_length(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.length).sum()
}
