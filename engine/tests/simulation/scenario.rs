//! Who does what in one simulation: all of it follows from the seed.

use crate::faults::{Kind, Rates};
use crate::random::Random;
use crate::world::{DAY, HOUR, MINUTE};

/// In one of so many scenarios restore points are copied to another store.
const REPLICATED_ONE_IN: u64 = 6;

/// What may go wrong beyond what a store promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// It keeps its promises (PROTOCOL S1 to S3).
    Honest,
    /// It loses, cuts and takes back what it acknowledged, and leaves blobs out of listings.
    Destroys,
}

/// What is broken on purpose, so that it is seen that it does not go unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// A pack that is needed is gone in the end.
    LosesAPack,
    /// A pack that is needed is gone from the copy.
    LosesAPackOfTheCopy,
}

/// What becomes of the source of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stays,
    /// It is lost, and the copy is promoted.
    Lost,
    /// The same, and more of it comes to the copy all the same.
    LostAndLate,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub store: Store,
    pub vms: usize,
    /// For each writer that runs, its name and the VMs that it backs up.
    pub writers: Vec<(&'static str, Vec<usize>)>,
    pub backups: u64,
    pub forgets: u64,
    /// For each pruner that runs, its name, and how often.
    pub prunes: Vec<(&'static str, u64)>,
    /// For each reader, how often.
    pub reads: Vec<u64>,
    /// How many blobs a copier carries at a time, and how often.
    pub copies: Option<(u64, u64)>,
    /// For each who copies restore points to another store, how often.
    pub replicators: Vec<u64>,
    /// Whether that store is a registered replica.
    pub is_registered: bool,
    pub source: Source,
    /// How long actors pause at most.
    pub pace: u64,
    pub rates: Rates,
    /// Of backups, in parts per million: the host is copied while they run.
    pub twins: u32,
    /// Of runs, in parts per million: the clock is set before.
    pub clock_steps: u32,
    /// How many blobs a store that destroys destroys.
    pub harms: u64,
    /// Whether pruners pack again what is mostly not needed.
    pub repacks: bool,
    pub sabotage: Sabotage,
}

impl Scenario {
    pub fn draw(random: &mut Random) -> Self {
        let store = if random.one_in(5) { Store::Destroys } else { Store::Honest };
        let vms = 2 + random.index(2);
        let mut writers: Vec<_> = (0..vms).map(|vm| (["host-a", "host-b"][vm % 2], vec![vm])).collect();
        if random.one_in(3) {
            // Another host backs up the same VMs.
            writers.push(("host-c", (0..vms).collect()));
        }
        let mut rates = Rates::draw(random);
        if store == Store::Destroys && random.one_in(2) {
            rates.set(Kind::ListMisses, random.pick(&[5000, 40_000]));
        }
        let pruners: &[&str] = random.pick(&[
            &[],
            &["pruner-a"],
            &["pruner-a", "pruner-b"],
            &["pruner-a", "pruner-b"],
            &["pruner-a", "pruner-a"],
        ]);
        let mut scenario = Self {
            store,
            vms,
            writers,
            backups: 1 + random.below(4),
            forgets: random.below(6),
            prunes: pruners.iter().map(|name| (*name, 1 + random.below(3))).collect(),
            reads: (0..random.below(3)).map(|_| 1 + random.below(3)).collect(),
            copies: random.one_in(4).then(|| (1 + random.below(30), 1 + random.below(4))),
            pace: random.pick(&[20 * MINUTE, 8 * HOUR, 4 * DAY]),
            rates,
            twins: random.pick(&[0, 0, 150_000]),
            clock_steps: random.pick(&[0, 100_000, 500_000]),
            repacks: random.one_in(2),
            sabotage: Sabotage::None,
            harms: if store == Store::Destroys { random.below(5) } else { 0 },
            replicators: Vec::new(),
            is_registered: false,
            source: Source::Stays,
        };
        if store == Store::Honest && random.one_in(REPLICATED_ONE_IN) {
            scenario.replicators = (0..=random.below(2)).map(|_| 1 + random.below(3)).collect();
            scenario.is_registered = random.one_in(2);
            if random.one_in(3) {
                scenario.source = if random.one_in(4) { Source::Lost } else { Source::LostAndLate };
            }
        }
        scenario
    }
}
