//! What goes wrong in the simulated world, and how often.

use crate::random::Random;
use std::collections::BTreeMap;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A call is refused for the moment (503) and not applied.
    Unavailable,
    /// A create or delete is applied, and its answer lost.
    AnswerLost,
    /// A create or delete is applied at any time after its sender was told that it failed.
    Late,
    /// A request comes twice, at once.
    Duplicate,
    /// A request that was answered comes once more at any later time.
    LateDuplicate,
    /// A read gives fewer bytes than there are.
    ShortRead,
    /// A read gives a bit that is not the blob's.
    FlippedRead,
    /// A page of a listing fails.
    ListFails,
    /// The process ends just before a call.
    CrashBefore,
    /// The process ends just after a call was applied.
    CrashAfter,
    /// The process ends, and the call that was under way is applied at any time after that.
    CrashDuring,
    /// The process stands still for hours or days, and goes on.
    Stall,
    /// The store keeps a blob from being deleted (WORM).
    Refused,
    /// A process has a clock that is wrong, or that was set.
    ClockStep,
    /// A host is resumed twice from one snapshot of it: two processes with the same past and the same randomness.
    Twin,
    /// A blob ends early for ever.
    Torn,
    /// A blob is empty for ever.
    Emptied,
    /// A blob is gone.
    Lost,
    /// The store is as it was some changes ago.
    RolledBack,
    /// A listing leaves out blobs that are there.
    ListMisses,
}

impl Kind {
    pub const ALL: [Self; 20] = [
        Self::Unavailable,
        Self::AnswerLost,
        Self::Late,
        Self::Duplicate,
        Self::LateDuplicate,
        Self::ShortRead,
        Self::FlippedRead,
        Self::ListFails,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::CrashDuring,
        Self::Stall,
        Self::Refused,
        Self::ClockStep,
        Self::Twin,
        Self::Torn,
        Self::Emptied,
        Self::Lost,
        Self::RolledBack,
        Self::ListMisses,
    ];
}

/// How often each kind happens, in parts per million of the calls that it can happen to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates(BTreeMap<Kind, u32>);

/// Kinds that happen to calls of processes and destroy nothing.
const OF_CALLS: [Kind; 13] = [
    Kind::Unavailable,
    Kind::AnswerLost,
    Kind::Late,
    Kind::Duplicate,
    Kind::LateDuplicate,
    Kind::ShortRead,
    Kind::FlippedRead,
    Kind::ListFails,
    Kind::CrashBefore,
    Kind::CrashAfter,
    Kind::CrashDuring,
    Kind::Stall,
    Kind::Refused,
];

impl Rates {
    /// Nothing happens.
    pub fn none() -> Self {
        Self::default()
    }

    /// Some kinds, each now and then; sometimes none.
    pub fn draw(random: &mut Random) -> Self {
        let kinds_in_ten = random.pick(&[0, 2, 4, 7]);
        let mut rates = BTreeMap::new();
        for kind in OF_CALLS {
            let ppm = match kind {
                // They end or delay everything that a process does.
                Kind::CrashBefore | Kind::CrashAfter | Kind::CrashDuring | Kind::Stall => {
                    random.pick(&[500, 2000, 6000])
                }
                // They fail what they happen to only now and then.
                Kind::Duplicate | Kind::LateDuplicate => random.pick(&[20_000, 100_000]),
                Kind::Refused => random.pick(&[200_000, 1_000_000]),
                _ => random.pick(&[1000, 4000, 20_000]),
            };
            if random.below(10) < kinds_in_ten {
                rates.insert(kind, ppm);
            }
        }
        Self(rates)
    }

    pub fn of(&self, kind: Kind) -> u32 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    pub fn set(&mut self, kind: Kind, ppm: u32) {
        self.0.insert(kind, ppm);
    }
}

/// How often each kind has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Kind, u64>);

impl Counts {
    pub fn note(&mut self, kind: Kind) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub fn of(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(*kind).or_default() += count;
        }
    }
}
