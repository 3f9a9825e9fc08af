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

/// What of an extent is in none of some others, which are sorted and do not overlap.
pub(crate) fn gaps(others: &[Extent], extent: Extent) -> Vec<Extent> {
    let mut rest = Vec::new();
    let mut next = extent.start;
    for other in &others[others.partition_point(|other| other.end() <= extent.start)..] {
        if other.start >= extent.end() {
            break;
        }
        rest.extend(Extent::between(next, other.start));
        next = other.end();
    }
    rest.extend(Extent::between(next, extent.end()));
    rest
}

/// The bytes of all extents together.
#[must_use]
pub fn total_length(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.length).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(ranges: &[(u64, u64)]) -> Vec<Extent> {
        ranges.iter().filter_map(|(start, end)| Extent::between(*start, *end)).collect()
    }

    #[test]
    fn what_lists_have_in_common_and_what_is_between_make_up_the_whole() {
        let lists: [&[(u64, u64)]; 5] =
            [&[], &[(0, 100)], &[(0, 1), (99, 100)], &[(10, 20), (20, 30), (40, 50)], &[(15, 45), (60, 61)]];
        for a in lists.map(extents) {
            for b in lists.map(extents) {
                let is_in = |list: &[Extent], byte| list.iter().any(|e| (e.start..e.end()).contains(&byte));
                let both = common(&a, &b);
                for byte in 0..100 {
                    assert_eq!(is_in(&both, byte), is_in(&a, byte) && is_in(&b, byte));
                }
                for extent in &a {
                    let rest = gaps(&b, *extent);
                    for byte in extent.start..extent.end() {
                        assert_eq!(is_in(&rest, byte), !is_in(&b, byte));
                    }
                    assert_eq!(total_length(&rest) + total_length(&common(&[*extent], &b)), extent.length);
                    assert_eq!(touches(&b, *extent), !common(&[*extent], &b).is_empty());
                }
            }
        }
    }
}
