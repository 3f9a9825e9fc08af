//! Many seeds, and what they must have come to together.

use crate::faults::{Counts, Kind};
use crate::runs::{Outcome, run};
use crate::scenario::Sabotage;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Seeds that are run if nothing else is said.
const SEEDS: u64 = 2000;
/// Threads that run seeds, each one after the other.
const THREADS: usize = 2;
/// After so many seeds, one that runs for ever tells how far it is.
const TOLD_EVERY: u64 = 500;

/// What happens in some of the seeds, or they would prove nothing.
const REACHED: [&str; 50] = [
    "a backup ended one that had not",
    "a backup failed",
    "a backup passed over what is not whole",
    "a backup succeeded",
    "a backup was aborted and began anew",
    "a backup was built on what arrived late",
    "a copy had everything in the end",
    "a generation arrived late",
    "a name was taken before its blob arrived late",
    "a pack was deleted when what was packed again was confirmed",
    "a policy did not count what is not whole",
    "a prune aborted a session",
    "a prune compacted indexes",
    "a prune deferred deletes",
    "a prune deleted packs",
    "a prune deleted what arrived late",
    "a prune failed",
    "a prune refused to go on with what it saw",
    "a prune rescued packs",
    "a prune stopped at a map that had not arrived",
    "a prune waited for a replica",
    "a prune waited for a session",
    "a reader failed",
    "a reader succeeded",
    "a record arrived late",
    "a replica had a part of a snapshot",
    "a replica had a whole snapshot",
    "a replicator was resumed twice",
    "a reported snapshot was whole in the end",
    "a restore point arrived late in part",
    "a restore point that arrived late became whole",
    "a restore point was set aside",
    "a session filled several packs",
    "a snapshot that nobody reported was whole in the end",
    "a snapshot was damaged",
    "a state of the copy was looked at",
    "a tombstone arrived late",
    "a verification missed what had not arrived",
    "a verification named a damaged snapshot",
    "a writer found its twin",
    "a writer found that it may be running",
    "a writer was resumed twice",
    "copying failed",
    "forgotten restore points were deleted at the copy",
    "it was confirmed what is whole at the copy",
    "newer restore points were copied",
    "packs were deleted at the copy",
    "restore points were copied",
    "snapshots were forgotten",
    "what was packed again was copied",
];

/// What all seeds so far came to.
#[derive(Default)]
struct Totals {
    seeds: u64,
    calls: u64,
    faults: Counts,
    reached: BTreeMap<&'static str, u64>,
    failed: Vec<u64>,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.calls += outcome.log.len() as u64;
        self.faults.add(&outcome.faults);
        for (what, times) in &outcome.reached {
            *self.reached.entry(what).or_default() += times;
        }
        if !outcome.violations.is_empty() {
            self.failed.push(seed);
            println!("seed {seed}:");
            outcome.violations.iter().for_each(|violation| println!("  {violation}"));
            println!("  once more, with every call of the store: make simulate SEED={seed}");
        }
    }

    fn tell(&self) {
        println!("{} seeds, {} calls of the store, {} faults:", self.seeds, self.calls, self.faults.total());
        for kind in Kind::ALL {
            println!("{:>10} {kind:?}", self.faults.of(kind));
        }
        for (what, times) in &self.reached {
            println!("{times:>10} x {what}");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs seeds from one on, so many or for ever, and stops at the first that fails if it is for ever.
fn run_from(from: u64, count: u64) -> Totals {
    let (next, totals) = (AtomicU64::new(from), Mutex::new(Totals::default()));
    let is_endless = count == u64::MAX;
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed - from >= count {
                        return;
                    }
                    let outcome = run(seed, Sabotage::None);
                    let mut totals = totals.lock().unwrap();
                    totals.add(seed, &outcome);
                    if is_endless && totals.seeds % TOLD_EVERY == 0 {
                        println!("seeds {from} to {seed}:");
                        totals.tell();
                    }
                    if is_endless && !totals.failed.is_empty() {
                        return;
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap()
}

#[test]
fn whatever_happens_nothing_that_is_needed_is_lost() {
    if let Some(seed) = number("KEEPSTONE_SEED") {
        let outcome = run(seed, Sabotage::None);
        outcome.log.iter().for_each(|line| println!("{line}"));
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        return;
    }
    let from = number("KEEPSTONE_SEEDS_FROM");
    let count = number("KEEPSTONE_SEEDS").unwrap_or(if from.is_some() { u64::MAX } else { SEEDS });
    let totals = run_from(from.unwrap_or(0), count);
    totals.tell();
    assert!(totals.failed.is_empty(), "seeds {:?} failed", totals.failed);
    if count >= SEEDS {
        let missing: Vec<_> = REACHED.iter().filter(|what| !totals.reached.contains_key(*what)).collect();
        assert!(missing.is_empty(), "in none of {count} seeds: {missing:?}");
        let missing: Vec<_> = Kind::ALL.iter().filter(|kind| totals.faults.of(**kind) == 0).collect();
        assert!(missing.is_empty(), "in none of {count} seeds: {missing:?}");
    }
}

#[test]
fn a_seed_decides_every_call_of_the_store() {
    for seed in 0..12 {
        let first = run(seed, Sabotage::None);
        let second = run(seed, Sabotage::None);
        let differs = first.log.iter().zip(&second.log).position(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert!(first == second, "seed {seed} came to something else the second time");
        assert!(first.log.len() > 10, "seed {seed} did nothing");
    }
    assert_ne!(run(0, Sabotage::None).log, run(1, Sabotage::None).log);
}

#[test]
fn a_pack_that_is_lost_does_not_go_unnoticed() {
    let noticed = (0..20).filter(|seed| {
        let outcome = run(*seed, Sabotage::LosesAPack);
        outcome.violations.iter().any(|violation| violation.contains("in the end"))
    });
    assert!(noticed.count() > 10);
}

#[test]
fn a_pack_that_the_copy_loses_does_not_go_unnoticed() {
    let noticed = (0..10).filter(|seed| {
        let outcome = run(*seed, Sabotage::LosesAPackOfTheCopy);
        let is_of_copy =
            |violation: &String| violation.contains("at the copy") && violation.contains("lacks");
        outcome.violations.iter().any(is_of_copy)
    });
    assert!(noticed.count() > 5);
}
