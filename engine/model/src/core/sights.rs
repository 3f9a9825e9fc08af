//! What must happen at least once in some run, else the runs say nothing about it.

use super::Protocol;
use super::config::{Config, World};
use super::records::{owner, packs_of};
use super::state::{PACKS, PrunerStep, State, WriterStep};
use crate::set::{Packs, Sessions, Set};
use stateright::Property;

macro_rules! sights {
    ($($sight:ident, $name:literal, if $possible:expr, $seen:expr;)*) => {
        /// Something that has to be seen.
        #[derive(Clone, Copy)]
        pub(super) enum Sight { $($sight),* }

        /// The names of all of them.
        pub(super) const NAMES: &[&str] = &[$($name),*];

        /// What a model can show and did not yet.
        pub(super) fn missing(model: &Protocol) -> Vec<Property<Protocol>> {
            let mut properties = Vec::new();
            $({
                let is_possible: fn(&Config) -> bool = $possible;
                if is_possible(&model.config) && !model.has_seen(Sight::$sight) {
                    properties.push(Property::sometimes($name, |model: &Protocol, state: &State| {
                        let seen: fn(&Protocol, &State) -> bool = $seen;
                        model.first(Sight::$sight, || seen(model, state))
                    }));
                }
            })*
            properties
        }
    };
}

sights! {
    Delete, "a pack is deleted", if |_| true,
        |_, state| !(state.published_deletes() - state.packs).is_empty();
    Rescue, "a condemned pack is rescued", if |_| true,
        |_, state| state.generations.iter().any(|g| g.has_result && g.delete != g.condemned);
    AbortWon, "a pruner's ABORT wins", if |_| true,
        |_, state| !state.history.aborted.is_empty();
    AbortLost, "a session commits that a pruner waits for", if |_| true,
        |_, state| state.pruners.iter().any(|pruner| pruner.open.meets(state.commits));
    BegunLater, "a session that began after the list of those to wait for is not waited for", if |config| config.sessions > 2,
        |_, state| begun_later(state);
    TwoPruners, "two pruners in one generation", if |config| config.pruners > 1,
        |_, state| two_in_one(state);
    SecondGeneration, "a second generation deletes", if |config| config.generations > 1,
        |_, state| !(state.generations[1].delete - state.packs).is_empty();
    EarlierLists, "a result stands for an earlier list", if |config| config.generations > 1,
        |_, state| !state.generations[1].earlier.is_empty();
    CondemnedLater, "a pack is condemned that a new root has from elsewhere", if has_backups,
        |model, state| condemned_later(model, state);
    StaleHint, "a stale hint is refused", if has_backups,
        |model, state| model.tries(state).any(|(_, packs)| !packs.is_within(state.packs));
    HitInCondemned, "a hit in C is refused", if has_backups,
        |model, state| model.tries(state).any(|(session, packs)| packs.meets(state.writers[session].condemned));
    HitOnMoved, "a hit on a pack that was moved is refused", if has_both,
        |model, state| model.tries(state).any(|(session, packs)| refuses_moved(model, state, session, packs));
    SecondHit, "a second hit is taken", if |config| config.has(World::TwoHits),
        |model, state| model.tries(state).any(|(session, packs)| second_hit(model, state, session, packs));
    AbortedReused, "a pack of an aborted session is used again", if has_backups,
        |model, state| model.valid(state).iter().any(|root| state.names(root).meets(packs_of(state.aborts)));
    ThroughRepack, "a name is inherited through a repack", if has_both,
        |model, state| model.valid(state).iter().any(|root| !state.links[root].is_empty());
    TwoLevels, "a name leads through two repacks", if |config| config.repacks.len() > 1,
        |model, state| two_levels(model, state);
    TwoPaths, "two repacks move one pack", if |config| config.repacks.len() > 1,
        |model, state| two_paths(model, state);
    PartlyInherited, "a root has a part of what its parent has", if |config| config.has(World::Partial),
        |model, state| partly_inherited(model, state);
    StoredAgain, "what leads into C is stored again", if has_backups,
        |model, state| model.valid(state).iter().any(|root| stored_again(state, root));
    ParentForgotten, "a root outlives what it inherits from", if has_backups,
        |model, state| model.valid(state).iter().any(|root| state.names(root).meets(packs_of(state.tombstones)));
    CommittedLate, "a COMMIT is applied once more after its root was removed", if |_| true,
        |_, state| !state.history.committed_late.is_empty();
    DeleteLeft, "a refused delete is left behind", if |config| config.has(World::Worm),
        |_, state| state.generations.iter().any(|g| g.is_sealed && g.delete.meets(state.packs));
    UploadedLate, "a deleted pack comes back", if |config| config.has(World::LateUpload),
        |_, state| !state.history.uploaded_late.is_empty();
    PruneStopped, "a decision that cannot be read stops a prune", if |config| config.has(World::Unreadable),
        |_, state| prune_stopped(state);
    WriterStopped, "a record whose decision cannot be read stops a writer",
        if |config| config.has(World::Unreadable) && has_both(config),
        |model, state| writer_stopped(model, state);
    Alarm, "a root of the roster that is not listed raises an alarm", if |config| config.has(World::LyingList),
        |_, state| state.history.harms > 0;
    Forgery, "a forgery is there, and a generation ends", if |config| config.has(World::Hostile),
        |_, state| forgery_outlived(state);
    CompleteByRecord, "a root is complete at the replica by a record", if |config| config.has(World::Replica),
        |model, state| model.complete(state).iter().any(|root| state.names(root).meets(state.replica.gone));
    BarrierWaits, "a prune waits for the replica", if |config| config.has(World::Replica),
        |model, state| barrier_waits(model, state);
}

fn begun_later(state: &State) -> bool {
    let running = state.intents - state.decided();
    state.pruners.iter().any(|pruner| {
        let awaited = state.generations[usize::from(pruner.generation)].awaited;
        pruner.step == PrunerStep::Waiting && !awaited.is_empty() && !running.is_within(pruner.open)
    })
}

fn has_backups(config: &Config) -> bool {
    config.sessions > 1 + config.repacks.len()
}

fn has_both(config: &Config) -> bool {
    has_backups(config) && !config.repacks.is_empty()
}

fn two_in_one(state: &State) -> bool {
    let [one, other] = state.pruners;
    one.generation == other.generation && one.step > PrunerStep::Chosen && other.step > PrunerStep::Chosen
}

fn foreign_names(state: &State, root: usize) -> Packs {
    state.names(root) - packs_of(Set::of(root))
}

fn condemned_later(model: &Protocol, state: &State) -> bool {
    let open = state.generations.iter().find(|generation| !generation.is_sealed);
    open.filter(|generation| !generation.has_result).is_some_and(|g| {
        (model.valid(state) - Set::of(0)).iter().any(|root| foreign_names(state, root).meets(g.condemned))
    })
}

fn refuses_moved(model: &Protocol, state: &State, session: usize, packs: Packs) -> bool {
    let condemned = state.writers[session].condemned;
    let otherwise_fine = packs & (state.packs - condemned);
    otherwise_fine.iter().any(|pack| !model.may_hit(state, session, pack))
}

fn second_hit(model: &Protocol, state: &State, session: usize, packs: Packs) -> bool {
    state.writers[session].hits == 1 && packs.iter().any(|pack| model.may_hit(state, session, pack))
}

/// For each record that counts and applies to a root, the packs that it leads to from those that come to it.
fn leads(model: &Protocol, state: &State, root: usize) -> Vec<(usize, usize, Packs)> {
    let records = state.applying(root, model.believed_records(state));
    let passed = model.follow(state, state.names(root), records).packs;
    let pairs = records.iter().flat_map(|record| passed.iter().map(move |pack| (record, pack)));
    pairs
        .map(|(record, pack)| (record, pack, model.lead(state, record, pack)))
        .filter(|lead| !lead.2.is_empty())
        .collect()
}

fn two_levels(model: &Protocol, state: &State) -> bool {
    model.valid(state).iter().any(|root| {
        let leads = leads(model, state, root);
        leads.iter().any(|(_, _, to)| leads.iter().any(|(_, from, _)| to.has(*from)))
    })
}

fn two_paths(model: &Protocol, state: &State) -> bool {
    model.valid(state).iter().any(|root| {
        let leads = leads(model, state, root);
        leads.iter().any(|one| leads.iter().any(|other| one.0 != other.0 && one.1 == other.1))
    })
}

fn entries(state: &State, root: usize) -> Set {
    (0..PACKS).filter(|&entry| !state.tables[root][entry].is_empty()).collect()
}

fn partly_inherited(model: &Protocol, state: &State) -> bool {
    let roots: Sessions = model.valid(state);
    roots.iter().any(|parent| {
        let all = entries(state, parent);
        roots.iter().any(|root| {
            let kept = entries(state, root) & all;
            root != parent
                && !kept.is_empty()
                && kept != all
                && kept.iter().all(|e| state.tables[root][e] == state.tables[parent][e])
        })
    })
}

fn stored_again(state: &State, root: usize) -> bool {
    (0..PACKS).any(|entry| owner(entry) != root && state.tables[root][entry].meets(packs_of(Set::of(root))))
}

fn prune_stopped(state: &State) -> bool {
    let waiting = [PrunerStep::Records, PrunerStep::Roots];
    let is_at_it = state.pruners.iter().any(|pruner| waiting.contains(&pruner.step));
    is_at_it && state.unreadable.meets(state.commits - state.tombstones)
}

fn writer_stopped(model: &Protocol, state: &State) -> bool {
    model.records_are_unreadable(state)
        && state.writers.iter().any(|writer| writer.step == WriterStep::Listing)
}

fn forgery_outlived(state: &State) -> bool {
    let is_there = !(state.forged.tombstones | state.forged.records).is_empty();
    is_there && state.generations[0].is_sealed
}

fn barrier_waits(model: &Protocol, state: &State) -> bool {
    state
        .pruners
        .iter()
        .any(|pruner| pruner.step == PrunerStep::Deleting && !model.held(state, pruner.list).is_empty())
}
