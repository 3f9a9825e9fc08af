//! Small sets of sessions, packs and entries, as bits.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{BitAnd, BitAndAssign, BitOr, BitOrAssign, Sub, SubAssign};

/// A set of numbers below 16.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set(u16);

/// A set of sessions, or of what there is one of for each session: decisions, tombstones, records.
pub type Sessions = Set;
/// A set of packs.
pub type Packs = Set;
/// A set of entries: what is stored, be it a chunk or a map page.
pub type Entries = Set;

impl Set {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn of(member: usize) -> Self {
        Self(1 << member)
    }

    /// The numbers below `len`.
    pub(crate) fn below(len: usize) -> Self {
        Self(u16::try_from((1u32 << len) - 1).expect("a set has at most 16 members"))
    }

    pub(crate) fn has(self, member: usize) -> bool {
        self.0 >> member & 1 == 1
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub(crate) fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }

    /// The lowest member that is not below `least`.
    pub(crate) fn next_from(self, least: usize) -> Option<usize> {
        (self - Self::below(least)).first()
    }

    pub(crate) fn insert(&mut self, member: usize) {
        self.0 |= 1 << member;
    }

    pub(crate) fn remove(&mut self, member: usize) {
        self.0 &= !(1 << member);
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let member = rest.first()?;
            rest.remove(member);
            Some(member)
        })
    }

    /// All subsets but the empty one.
    pub(crate) fn subsets(self) -> impl Iterator<Item = Self> {
        let mut next = self.0;
        std::iter::from_fn(move || {
            let subset = (next != 0).then_some(Self(next))?;
            next = (next - 1) & self.0;
            Some(subset)
        })
    }
}

impl Hash for Set {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u16(self.0);
    }

    /// Several sets at a time, as most of the time of a run is spent on fingerprints.
    fn hash_slice<H: Hasher>(sets: &[Self], hasher: &mut H) {
        for some in sets.chunks(8) {
            hasher.write_u128(some.iter().fold(0, |word, set| word << 16 | u128::from(set.0)));
        }
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(members: I) -> Self {
        members.into_iter().fold(Self::EMPTY, |set, member| set | Self::of(member))
    }
}

impl BitOr for Set {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Set {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Set {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOrAssign for Set {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAndAssign for Set {
    fn bitand_assign(&mut self, other: Self) {
        self.0 &= other.0;
    }
}

impl SubAssign for Set {
    fn sub_assign(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
