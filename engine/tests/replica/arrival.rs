//! Random histories that arrive in any order.

use crate::dice::Dice;
use crate::history::{Event, History, is_of_a_repack, random};
use crate::place::{checked, snapshots};
use crate::world::open;
use keepstone_engine::BlobStore;
use keepstone_engine::store::MemoryStore;
use proptest::prelude::*;
use repo_format::{BlobKind, BlobName, SessionId};
use std::collections::BTreeSet;

/// A copy that blobs arrive at.
struct Replica<'h> {
    history: &'h History,
    store: MemoryStore,
    /// What may still arrive, in the order in which it does unless it has to wait.
    pending: Vec<usize>,
    arrived: BTreeSet<&'h BlobName>,
    deleted: BTreeSet<&'h BlobName>,
}

impl<'h> Replica<'h> {
    /// A copy that has what opening it takes.
    fn new(history: &'h History, dice: &mut Dice) -> Self {
        let store = MemoryStore::new();
        let opening = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Config | BlobKind::KeySlot(_)));
        for (name, bytes) in history.archive.iter().filter(|(name, _)| opening(name)) {
            store.put_new(name, bytes).unwrap();
        }
        let mut pending: Vec<usize> = (0..history.events.len()).collect();
        dice.shuffle(&mut pending);
        Self { history, store, pending, arrived: BTreeSet::new(), deleted: BTreeSet::new() }
    }

    /// Lets the next thing happen that may.
    fn advance(&mut self) {
        let next = self.pending.iter().position(|event| self.may_happen(*event));
        let Some(next) = next else { return };
        let event = self.pending.remove(next);
        match &self.history.events[event] {
            Event::Created(name) => {
                self.arrived.insert(name);
                if !self.deleted.contains(name) {
                    self.store.put_new(name, &self.history.archive[name]).unwrap();
                }
            }
            Event::Deleted(name) => {
                self.deleted.insert(name);
                if self.arrived.contains(name) {
                    self.store.delete(name).unwrap();
                }
            }
        }
    }

    /// What was packed again goes when all is confirmed here that took its place (PROTOCOL 8); anything else at any time.
    fn may_happen(&self, event: usize) -> bool {
        let events = &self.history.events;
        let Event::Deleted(name) = &events[event] else { return true };
        let Some(BlobKind::Pack(pack)) = name.kind() else { return true };
        let deleted: BTreeSet<&BlobName> = events[..event].iter().filter_map(deleted_by).collect();
        !self.history.repacked.contains(&pack)
            || events[..event].iter().all(|event| match event {
                Event::Created(name) if is_of_a_repack(name) => {
                    self.arrived.contains(name) || deleted.contains(name)
                }
                _ => true,
            })
    }
}

fn deleted_by(event: &Event) -> Option<&BlobName> {
    match event {
        Event::Deleted(name) => Some(name),
        Event::Created(_) => None,
    }
}

/// What happened while a history arrived.
#[derive(Default)]
struct Seen {
    whole: usize,
    lacking: usize,
    /// Whole though a pack was deleted that was packed again.
    moved: usize,
}

/// Lets a history arrive, and looks at the copy again and again.
fn arrive(seed: u64, sights: &mut Seen) {
    let mut dice = Dice::new(seed);
    let steps = 8 + dice.below(14);
    let history = random(&mut dice, steps);
    let mut replica = Replica::new(&history, &mut dice);
    let mut whole: BTreeSet<SessionId> = BTreeSet::new();
    while !replica.pending.is_empty() {
        for _ in 0..=dice.below(history.events.len() / 3) {
            replica.advance();
        }
        let now = checked(&replica.store, &history.held, &history.archive);
        for session in whole.difference(&history.forgotten) {
            assert!(now.contains(session), "{session} was whole");
        }
        whole = now;
        sights.whole += whole.len();
        sights.lacking += snapshots(&open(&replica.store)).len() - whole.len();
        if replica
            .deleted
            .iter()
            .any(|name| matches!(name.kind(), Some(BlobKind::Pack(pack)) if history.repacked.contains(&pack)))
        {
            sights.moved += whole.len();
        }
    }
    // All has arrived.
    let kept = history.held.keys().filter(|session| !history.forgotten.contains(*session));
    assert_eq!(whole, kept.copied().collect());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn what_is_whole_restores_and_stays_whole_and_what_is_not_lacks_something(seed: u64) {
        arrive(seed, &mut Seen::default());
    }
}

#[test]
fn histories_have_what_is_whole_and_what_is_not_and_what_moved() {
    let mut seen = Seen::default();
    for seed in 0..12 {
        arrive(seed, &mut seen);
    }
    assert!(
        seen.whole > 20 && seen.lacking > 20 && seen.moved > 10,
        "{} {} {}",
        seen.whole,
        seen.lacking,
        seen.moved
    );
}
