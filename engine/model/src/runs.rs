//! The models that are checked: small ones in the tests, large ones by `make model`.

use crate::check::{Outcome, Search, check};
use crate::core::{Config, Protocol, World};

/// A model that is checked whole.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub config: Config,
}

impl Run {
    fn new(name: &'static str, config: Config) -> Self {
        Self { name, config }
    }

    /// Visits all its states.
    #[must_use]
    pub fn check(self) -> Outcome {
        check(Protocol::new(self.config), Search::Depth)
    }
}

/// Together they show everything that has to be seen, in some seconds.
#[must_use]
pub fn small() -> Vec<Run> {
    use World::{
        AbortAny, Crash, DeadEntry, HintsForever, Hostile, LateUpload, LyingList, Partial, Replica, TwoHits,
        TwoPacks, Unchanged, Unreadable, Worm,
    };
    let new = Config::new;
    vec![
        Run::new("a backup, two pruners", new("b").pruners(2).with(Crash).with(AbortAny)),
        Run::new("a backup, two generations", new("b").pruners(2).generations(2).with(Worm)),
        Run::new("a repack and a backup", new("rb").with(DeadEntry).forgets(1)),
        Run::new("two backups, two hits", new("bb").with(TwoHits).with(Unchanged)),
        Run::new("two backups, late requests", new("bb").generations(2).with(HintsForever).with(LateUpload)),
        Run::new("two packs each", new("b").with(TwoPacks).with(Partial).generations(2).candidates(2)),
        Run::new("two repacks", new("rr").with(Unchanged)),
        Run::new("two repacks of two packs", new("rr").with(TwoPacks).candidates(2)),
        Run::new("decisions that cannot be read", new("rb").with(Unreadable).candidates(1)),
        Run::new("a lying listing", new("b").generations(2).with(LyingList)),
        Run::new("somebody hostile", new("b").with(Hostile).generations(2)),
        Run::new("a replica and a repack", new("r").with(Replica).pruners(2)),
        Run::new("a replica, a repack and a backup", new("rb").with(Replica).candidates(2)),
    ]
}

/// More than 10^8 states: minutes for each, and up to 3 GiB of memory.
#[must_use]
pub fn large() -> Vec<Run> {
    use World::{HintsForever, Replica, Worm};
    let new = Config::new;
    vec![
        Run::new("a repack and a backup, two pruners, two generations", new("rb").pruners(2).generations(2)),
        Run::new(
            "the same with refused deletes and lasting hints",
            new("rb").pruners(2).generations(2).with(Worm).with(HintsForever),
        ),
        Run::new("a replica, a repack and a backup, two generations", new("rb").with(Replica).generations(2)),
    ]
}
