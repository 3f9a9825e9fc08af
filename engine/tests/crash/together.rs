//! Two backups of one VM at the same time, their store calls interleaved in many ways, end in two valid snapshots or in
//! a clear refusal.

use crate::history::{Run, checked, new_repository};
use crate::world::watched::Watched;
use crate::world::{NOW, noise};
use keepstone_engine::EngineError;
use keepstone_engine::store::MemoryStore;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

/// Lets two backups call the store by turns, each for as many calls as a list says.
struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    turn: usize,
    left: u8,
    /// How long the next turns are; when there are no more, each is one call.
    lengths: Vec<u8>,
    ended: [bool; 2],
}

impl Turns {
    fn new(seed: u64) -> Self {
        let lengths = noise(seed, 200).into_iter().map(|byte| 1 + byte % 12).collect();
        let state = State { turn: usize::from(seed.is_multiple_of(2)), left: 1, lengths, ended: [false; 2] };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for a call's turn, and takes it.
    fn take(&self, who: usize) {
        let state = self.state.lock().unwrap();
        let mut state = self.changed.wait_while(state, |state| state.turn != who).unwrap();
        state.left -= 1;
        if state.left == 0 {
            state.left = state.lengths.pop().unwrap_or(1);
            if !state.ended[1 - who] {
                state.turn = 1 - who;
                self.changed.notify_all();
            }
        }
    }

    fn end(&self, who: usize) {
        let mut state = self.state.lock().unwrap();
        state.ended[who] = true;
        state.turn = 1 - who;
        self.changed.notify_all();
    }
}

/// Runs two backups together and says what each came to.
fn together(store: &MemoryStore, seed: u64, runs: [Run<'_>; 2]) -> [&'static str; 2] {
    let turns = Turns::new(seed);
    let run = |who: usize| {
        let result = runs[who].run(&Watched::new(store, |_| turns.take(who)));
        turns.end(who);
        result
    };
    let results = std::thread::scope(|threads| {
        let other = threads.spawn(|| run(1));
        [run(0), other.join().unwrap()]
    });
    let state = checked(store);
    results.map(|result| match result {
        Ok(report) => {
            assert!(state.committed.contains(&report.snapshot), "a reported snapshot is not there");
            "committed"
        }
        Err(EngineError::MayBeRunning { .. }) => "refused",
        Err(EngineError::Aborted { .. }) => "aborted",
        Err(EngineError::Twin { .. }) => "a twin",
        Err(error) => panic!("{error:?}"),
    })
}

/// How pairs of backups end, over many interleavings; afterwards the next backup works.
fn ends(runs: [Run<'static>; 2], store_time: u64) -> BTreeMap<[&'static str; 2], u32> {
    let before = new_repository();
    Run::of(0).run(&before).unwrap();
    before.set_time(store_time);
    let mut ends = BTreeMap::new();
    for seed in 0..60 {
        let store = before.copied();
        *ends.entry(together(&store, seed, runs)).or_insert(0) += 1;
        store.set_time(0);
        let (step, writer) = (8, "host-c");
        let next = Run { step, writer, seed: 250, checkpoints: false }.run(&store).unwrap();
        assert!(checked(&store).committed.contains(&next.snapshot));
    }
    ends
}

/// The same VM at two points in time.
fn runs(writers: [&'static str; 2], seeds: [u8; 2]) -> [Run<'static>; 2] {
    [2, 4].map(|step| {
        let which = usize::from(step == 4);
        Run { step, writer: writers[which], seed: seeds[which], checkpoints: true }
    })
}

#[test]
fn two_writers_back_up_one_vm_at_the_same_time() {
    let ends = ends(runs(["host-a", "host-b"], [11, 12]), NOW);
    assert_eq!(ends.into_keys().collect::<Vec<_>>(), [["committed", "committed"]]);
}

#[test]
fn a_writer_that_runs_twice_is_refused_or_commits_twice() {
    let ends = ends(runs(["host-a", "host-a"], [11, 12]), NOW);
    assert!(ends.keys().flatten().all(|end| ["committed", "refused"].contains(end)), "{ends:?}");
    assert!(ends.keys().any(|end| end.contains(&"refused")), "{ends:?}");
}

#[test]
fn a_writer_whose_other_run_is_taken_for_dead_loses_nothing() {
    // All that the store has seems to be old: each run ends the other's session, which begins again.
    let ends = ends(runs(["host-a", "host-a"], [11, 12]), 0);
    assert!(ends.keys().flatten().all(|end| ["committed", "aborted"].contains(end)), "{ends:?}");
    assert!(ends.keys().all(|end| end.contains(&"committed")), "{ends:?}");
}

#[test]
fn two_runs_with_the_same_randomness_store_nothing_that_is_broken() {
    // As on a host that was copied while it ran: the same session, the same names, other content.
    let ends = ends(runs(["host-a", "host-a"], [11, 11]), 0);
    assert!(ends.keys().flatten().all(|end| ["committed", "aborted", "a twin"].contains(end)), "{ends:?}");
    assert!(ends.keys().any(|end| end.contains(&"a twin")), "{ends:?}");
}
