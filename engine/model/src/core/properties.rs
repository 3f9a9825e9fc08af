//! What must always hold.

use super::Protocol;
use super::config::World;
use super::sights::{self, Sight};
use super::state::{PACKS, State, WriterStep};
use crate::set::{Packs, Sessions};
use stateright::Property;
use std::sync::atomic::Ordering;

/// The properties that make sense for a model. Whatever was seen already need not be looked for again.
pub(super) fn all(model: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always("I1: a session has one decision, for ever", |_, state: &State| {
            let reversed = state.history.aborted | state.history.forgotten;
            !(state.commits - state.tombstones).meets(reversed)
        }),
        Property::always(
            "I2: no pack that a valid root needs is ever deleted",
            |model: &Protocol, state: &State| {
                let known = counting(state);
                model.valid(state).iter().all(|root| model.needs(state, root, known).is_within(state.packs))
            },
        ),
        Property::always(
            "I3: nothing that a valid root needs is in a delete list",
            |model: &Protocol, state: &State| {
                let (known, deletes) = (counting(state), state.published_deletes());
                deletes.is_empty()
                    || model.valid(state).iter().all(|root| !model.needs(state, root, known).meets(deletes))
            },
        ),
        Property::always("I4: only a published list is carried out", |_, state: &State| {
            !state.history.deleted_unlisted
        }),
        Property::always("I6: what was reported as a success is valid or forgotten", |_, state: &State| {
            state.history.reported.is_within(state.commits | state.tombstones)
        }),
        Property::always(
            "I8: the packs that names lead to hold what is named",
            Protocol::holds_what_is_named,
        ),
    ];
    if model.config.has(World::Replica) {
        properties.push(Property::always(
            "I7: the replica never gets worse for a root that is not forgotten",
            |model: &Protocol, state: &State| model.worse(state).is_empty(),
        ));
    }
    properties.extend(sights::missing(model));
    properties
}

impl Protocol {
    fn holds_what_is_named(&self, state: &State) -> bool {
        let known = counting(state);
        self.valid(state).iter().all(|root| {
            let records = state.applying(root, known);
            (0..PACKS).all(|entry| {
                let names = state.tables[root][entry];
                names.is_empty()
                    || self
                        .follow(state, names, records)
                        .ends
                        .iter()
                        .any(|pack| state.content[pack].has(entry))
            })
        })
    }

    pub(super) fn has_seen(&self, sight: Sight) -> bool {
        self.seen.load(Ordering::Relaxed) >> sight as u32 & 1 == 1
    }

    /// Whether something is seen that was not seen before.
    pub(super) fn first(&self, sight: Sight, is_seen: impl FnOnce() -> bool) -> bool {
        if self.has_seen(sight) || !is_seen() {
            return false;
        }
        self.seen.fetch_or(1 << sight as u32, Ordering::Relaxed);
        true
    }

    /// Writers in W5, with the packs that they could hit if all rules let them.
    pub(super) fn tries(&self, state: &State) -> impl Iterator<Item = (usize, Packs)> {
        let deciding = (1..self.config.sessions).filter(|&session| {
            !self.config.is_repack(session) && state.writers[session].step == WriterStep::Deciding
        });
        deciding.map(|session| (session, self.hints_to_try(state, session)))
    }
}

/// Records that count: there, and decided by a COMMIT.
fn counting(state: &State) -> Sessions {
    state.records & state.commits
}
