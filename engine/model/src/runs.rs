//! The models that are checked: small ones in the tests, large ones by `make model`.

use crate::check::{Outcome, Search, check};
use crate::core::{Config, Promotion, Protocol, World};
use crate::failover::Failover;
use crate::twins::Twins;

/// A model that is checked whole.
#[derive(Debug)]
pub struct Run {
    /// What it is called.
    pub name: &'static str,
    model: Kind,
}

#[derive(Debug)]
enum Kind {
    Repository(Config),
    Promotion(Box<Promotion>),
    Twins(Twins),
    Failover(Failover),
}

impl Run {
    fn new(name: &'static str, config: Config) -> Self {
        Self { name, model: Kind::Repository(config) }
    }

    fn promotion(name: &'static str, promotion: Promotion) -> Self {
        Self { name, model: Kind::Promotion(Box::new(promotion)) }
    }

    /// Visits all its states.
    #[must_use]
    pub fn check(self) -> Outcome {
        match self.model {
            Kind::Promotion(promotion) => check(*promotion, Search::Depth),
            Kind::Repository(config) => check(Protocol::new(config), Search::Depth),
            Kind::Twins(twins) => check(twins, Search::Depth),
            Kind::Failover(failover) => check(failover, Search::Depth),
        }
    }
}

/// Models of one repository: together they show everything that has to be seen there, in some seconds.
#[must_use]
pub fn small() -> Vec<Run> {
    use World::{
        AbortAny, Crash, DeadEntry, HintsForever, Hostile, LateUpload, LyingList, PagedListing, Partial,
        Replica, TwoHits, TwoPacks, Unchanged, Unreadable, Worm,
    };
    let new = Config::new;
    vec![
        Run::new("a backup, two pruners", new("b").pruners(2).with(Crash).with(AbortAny)),
        Run::new("a backup, two generations", new("b").pruners(2).generations(2).with(Worm)),
        Run::new("two backups, one of them later", new("bb").with(Crash).candidates(1)),
        Run::new("three generations", new("b").generations(3).with(Worm).with(HintsForever)),
        Run::new("a repack and a backup", new("rb").with(DeadEntry).forgets(1)),
        Run::new("two backups, two hits", new("bb").with(TwoHits).with(Unchanged)),
        Run::new(
            "two backups, late requests",
            new("bb").generations(2).candidates(1).with(HintsForever).with(LateUpload),
        ),
        Run::new("two packs each", new("b").with(TwoPacks).with(Partial).generations(2).candidates(2)),
        Run::new("two repacks", new("rr").with(Unchanged)),
        Run::new("two repacks of two packs", new("rr").with(TwoPacks).candidates(2)),
        Run::new("decisions that cannot be read", new("rb").with(Unreadable).candidates(1)),
        Run::new("a listing in pages", new("b").pruners(2).generations(2).with(PagedListing).with(AbortAny)),
        Run::new("a lying listing", new("b").generations(2).with(LyingList)),
        Run::new("somebody hostile", new("b").with(Hostile).generations(2)),
        Run::new("a replica and a repack", new("r").with(Replica).pruners(2)),
        Run::new("a replica, a repack and a backup", new("rb").with(Replica).candidates(1)),
    ]
}

/// More than 10^8 states: up to minutes for each, and 1 GiB of memory.
#[must_use]
pub fn large() -> Vec<Run> {
    let mut runs = large_repositories();
    runs.extend(large_promotions());
    runs
}

fn large_repositories() -> Vec<Run> {
    use World::{
        AbortAny, Crash, DeadEntry, HintsForever, Hostile, LateUpload, LyingList, PagedListing, Partial,
        Replica, TwoHits, TwoPacks, Unchanged, Unreadable, Worm,
    };
    let new = Config::new;
    vec![
        Run::new("two pruners", new("rb").pruners(2).generations(2)),
        Run::new("refused deletes", new("rb").pruners(2).generations(2).with(Worm).with(HintsForever)),
        Run::new("crashes", new("rb").pruners(2).with(Crash).with(AbortAny).with(LateUpload)),
        Run::new("two repacks", new("rrb").candidates(1)),
        Run::new("a backup before a repack", new("brb").with(Unchanged)),
        Run::new(
            "two hits",
            new("bb").generations(2).with(TwoPacks).with(Partial).with(TwoHits).candidates(1),
        ),
        Run::new("two packs each", new("rb").with(TwoPacks).with(Partial).candidates(2)),
        Run::new("dead entries", new("rb").generations(2).with(DeadEntry).with(Partial).forgets(2)),
        Run::new("somebody hostile", new("rb").generations(2).with(Hostile).candidates(1)),
        Run::new("unreadable", new("rb").generations(2).with(Unreadable).with(LyingList).candidates(1)),
        Run::new(
            "a listing in pages",
            new("rb").generations(2).with(PagedListing).with(AbortAny).with(HintsForever),
        ),
        Run::new("a replica", new("rb").with(Replica).generations(2)),
        Run::new("a replica, two repacks", new("rr").with(Replica).with(TwoPacks).candidates(1)),
        Run { name: "twins", model: Kind::Twins(Twins { losses: 5, broken: None }) },
        Run { name: "failover", model: Kind::Failover(Failover { broken: None }) },
    ]
}

/// Models of a promoted place: together they show everything that has to be seen there.
#[must_use]
pub fn small_promotions() -> Vec<Run> {
    vec![
        Run::promotion(
            "promoted, a repack in the source and a backup",
            Promotion::new("r", "b", |size| size),
        ),
        Run::promotion("promoted, two repacks", Promotion::new("r", "r", |size| size.candidates(1))),
        Run::promotion(
            "promoted, a repack into two packs",
            Promotion::new("r", "", |size| size.with(World::Spread)),
        ),
        Run::promotion("promoted, late arrivals", Promotion::new("", "b", |size| size).late()),
    ]
}

fn large_promotions() -> Vec<Run> {
    vec![
        Run::promotion("promoted, packs in part", Promotion::new("r", "b", |size| size.with(World::Spread))),
        Run::promotion(
            "promoted, two generations",
            Promotion::new("r", "b", |size| size.generations(2).with(World::Worm)),
        ),
        Run::promotion("promoted, a repack and a backup there", Promotion::new("r", "rb", |size| size)),
        Run::promotion("promoted, a late backup", Promotion::new("b", "b", |size| size).late()),
        Run::promotion("promoted, a late repack", Promotion::new("r", "b", |size| size).late()),
    ]
}
