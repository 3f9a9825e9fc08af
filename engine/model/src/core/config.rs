//! How large a model is, what its world does to it, and which rules are broken.

use super::rules::Broken;
use super::state::{GENERATIONS, PRUNERS, SESSIONS};
use crate::set::Sessions;

/// What the world may do, besides running everybody's steps in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// An index hint never goes away: every stalled compaction and late index upload at once.
    HintsForever,
    /// A delete may be refused by retention, and a later one of the same pack not.
    Worm,
    /// An upload of a pack is applied once more after the pack was deleted (S3).
    LateUpload,
    /// An undecided session is aborted at any time, by its writer's next run or by an operator.
    AbortAny,
    /// A pruner dies at any point and starts again.
    Crash,
    /// A backup may bring nothing new.
    Unchanged,
    /// A backup may keep some of what its parent has and drop the rest; else it keeps all.
    Partial,
    /// A session spreads what it stores over two packs.
    TwoPacks,
    /// A backup takes up to two entries from hits; else one.
    TwoHits,
    /// The pack that is there holds an entry that no root names. Only without `TwoPacks`.
    DeadEntry,
    /// The pack that is there holds two entries that the root names, and whatever stores them again has a pack for each. Only
    /// without `TwoPacks` and `DeadEntry`.
    Spread,
    /// Decisions cannot be read for a while.
    Unreadable,
    /// A listing of `gc/` has a page for each generation; else it is a snapshot.
    PagedListing,
    /// P6's listing misses a root that the last roster has.
    LyingList,
    /// Whoever holds a backup host creates objects that need a signature, without one.
    Hostile,
    /// There is a replica, and generations wait for it.
    Replica,
}

/// One model: its size, its world, and the rules that are broken in it, if any.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) sessions: usize,
    pub(crate) repacks: Sessions,
    pub(crate) pruners: usize,
    pub(crate) generations: usize,
    pub(crate) forgets: u8,
    pub(crate) candidates: usize,
    worlds: u32,
    broken: u64,
}

impl Config {
    /// A model with one restore point that is there already and a session for each letter of `kinds`: `b` is a backup,
    /// `r` a repack. It has one pruner, one generation and one forgetting.
    ///
    /// # Panics
    /// If there are too many sessions, or a letter is another one.
    #[must_use]
    pub fn new(kinds: &str) -> Self {
        let sessions = kinds.len() + 1;
        assert!(sessions <= SESSIONS, "there is room for {SESSIONS} sessions");
        assert!(kinds.chars().all(|kind| "br".contains(kind)), "a session is b or r");
        let repacks = kinds.chars().enumerate().filter(|(_, kind)| *kind == 'r').map(|(i, _)| i + 1);
        Self {
            sessions,
            repacks: repacks.collect(),
            pruners: 1,
            generations: 1,
            forgets: 1,
            candidates: usize::MAX,
            worlds: 0,
            broken: 0,
        }
    }

    /// With so many pruners at a time.
    ///
    /// # Panics
    /// If there is no room for them.
    #[must_use]
    pub fn pruners(mut self, pruners: usize) -> Self {
        assert!(pruners <= PRUNERS, "there is room for {PRUNERS} pruners");
        self.pruners = pruners;
        self
    }

    /// With so many generations, one after the other.
    ///
    /// # Panics
    /// If there is no room for them.
    #[must_use]
    pub fn generations(mut self, generations: usize) -> Self {
        assert!(generations <= GENERATIONS, "there is room for {GENERATIONS} generations");
        self.generations = generations;
        self
    }

    /// With so many restore points forgotten.
    #[must_use]
    pub fn forgets(mut self, forgets: u8) -> Self {
        self.forgets = forgets;
        self
    }

    /// With at most so many packs condemned in a generation.
    #[must_use]
    pub fn candidates(mut self, candidates: usize) -> Self {
        self.candidates = candidates;
        self
    }

    /// In such a world too.
    #[must_use]
    pub fn with(mut self, world: World) -> Self {
        self.worlds |= 1 << world as u32;
        self
    }

    /// With a rule broken, besides those that are already.
    #[must_use]
    pub fn broken(mut self, broken: Broken) -> Self {
        self.broken |= 1 << broken as u64;
        self
    }

    pub(crate) fn has(&self, world: World) -> bool {
        self.worlds >> world as u32 & 1 == 1
    }

    pub(crate) fn breaks(&self, broken: Broken) -> bool {
        self.broken >> broken as u64 & 1 == 1
    }

    pub(crate) fn is_repack(&self, session: usize) -> bool {
        self.repacks.has(session)
    }
}
