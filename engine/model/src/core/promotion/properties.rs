//! What must always hold before and after a promotion, and what must be seen.

use super::{Place, Promotion};
use crate::core::config::World;
use crate::core::records::{owner, packs_of};
use crate::core::state::PACKS;
use crate::set::Set;
use stateright::Property;

pub(super) fn always() -> Vec<Property<Promotion>> {
    vec![
        Property::always("I1: a session has one decision, for ever", |_, place: &Place| {
            let history = &place.store.history;
            !(place.store.commits - place.store.tombstones).meets(history.aborted | history.forgotten)
        }),
        Property::always(
            "I2: what was whole after the promotion stays whole",
            |model: &Promotion, place: &Place| {
                let kept = place.was_whole - place.store.tombstones;
                kept.is_within(model.whole(&place.store))
            },
        ),
        Property::always("a backup in a promoted place is whole", |model: &Promotion, place: &Place| {
            let made_there = model.protocol.valid(&place.store) & model.own();
            !place.is_promoted || made_there.is_within(model.whole(&place.store))
        }),
        Property::always("what is whole can be restored", |model: &Promotion, place: &Place| {
            !place.is_promoted || model.whole(&place.store).is_within(model.readable(&place.store))
        }),
        Property::always(
            "I3: nothing that a valid root needs is in a delete list of the promoted place",
            |model: &Promotion, place: &Place| {
                let state = &place.store;
                let (known, deletes) = (state.records & state.commits, state.published_deletes());
                deletes.is_empty()
                    || model
                        .protocol
                        .valid(state)
                        .iter()
                        .all(|root| !model.protocol.marked(state, root, known).meets(deletes))
            },
        ),
        Property::always("I4: only a published list is carried out", |_, place: &Place| {
            !place.store.history.deleted_unlisted
        }),
        Property::always("I6: what was reported as a success is valid or forgotten", |_, place: &Place| {
            place.store.history.reported.is_within(place.store.commits | place.store.tombstones)
        }),
    ]
}

/// What must happen in some run of a model that can show it.
pub(super) fn sights(model: &Promotion) -> Vec<Property<Promotion>> {
    let config = &model.protocol.config;
    let from_source = config.repacks & model.sources;
    let own_repacks = config.repacks & model.own();
    let own_backups = model.own() - own_repacks;
    let mut sights = vec![
        Property::sometimes(
            "a promoted place deletes what it had from the source",
            |model: &Promotion, place: &Place| {
                let deletes = place.store.published_deletes() & packs_of(model.sources);
                place.is_promoted && !(deletes - place.store.packs).is_empty()
            },
        ),
        Property::sometimes("a root is set aside", |_, place: &Place| {
            !place.store.copied.set_aside.is_empty()
        }),
    ];
    if !from_source.is_empty() {
        sights.extend([
            Property::sometimes(
                "a root is whole where a record came without all that it leads to",
                |model: &Promotion, place: &Place| model.in_between(place).next().is_some(),
            ),
            Property::sometimes(
                "a condemned pack is rescued as what it leads to is not there",
                |model: &Promotion, place: &Place| {
                    let rescued = |pack: usize| {
                        let mut generations = place.store.generations.iter();
                        generations.any(|g| g.has_result && g.condemned.has(pack) && !g.delete.has(pack))
                    };
                    model.in_between(place).any(|(_, pack)| rescued(pack))
                },
            ),
            Property::sometimes(
                "a root is whole by where a record leads alone",
                |model: &Promotion, place: &Place| {
                    let state = &place.store;
                    place.is_promoted
                        && model.whole(state).iter().any(|root| !state.names(root).is_within(state.packs))
                },
            ),
            Property::sometimes(
                "a repack of the source is aborted whose record is there",
                |model: &Promotion, place: &Place| {
                    place.store.aborts.meets(place.store.records & model.sources)
                },
            ),
        ]);
    }
    if !from_source.is_empty() && !own_backups.is_empty() {
        sights.push(Property::sometimes(
            "what leads to what is not there is stored again, as it is condemned",
            |model: &Promotion, place: &Place| model.stored_again(place),
        ));
        sights.push(Property::sometimes(
            "a backup is built on a root that is whole by its old packs",
            |model: &Promotion, place: &Place| model.in_between(place).any(|(root, _)| model.own().has(root)),
        ));
    }
    if !own_repacks.is_empty() {
        sights.push(Property::sometimes(
            "a repack of the promoted place moves what came from the source",
            |model: &Promotion, place: &Place| {
                let state = &place.store;
                let moved =
                    (model.own() & state.records & state.commits & model.protocol.config.repacks).iter();
                moved.into_iter().any(|record| state.names(record).meets(packs_of(model.sources)))
            },
        ));
    }
    if model.is_late {
        sights.push(Property::sometimes(
            "a root arrives late, and is not whole",
            |model: &Promotion, place: &Place| {
                let state = &place.store;
                let copied = model.protocol.valid(state) & model.sources;
                place.is_promoted && !(copied - state.copied.set_aside - model.whole(state)).is_empty()
            },
        ));
        sights.push(Property::sometimes(
            "a root that was set aside becomes whole",
            |model: &Promotion, place: &Place| model.whole(&place.store).meets(place.store.copied.set_aside),
        ));
    }
    if config.has(World::Spread) && !from_source.is_empty() {
        sights.push(Property::sometimes(
            "of two packs that a record leads to one is there",
            |model: &Promotion, place: &Place| {
                model.in_between(place).any(|(root, pack)| {
                    let state = &place.store;
                    let records = state.applying(root, state.records & state.commits);
                    let ends = model.protocol.follow(state, Set::of(pack), records).ends;
                    ends.meets(state.packs) && !ends.is_within(state.packs)
                })
            },
        ));
    }
    sights
}

impl Promotion {
    /// Whole roots, each with a pack that it names, that is there, and that leads to packs of which some are not.
    fn in_between<'p>(&'p self, place: &'p Place) -> impl Iterator<Item = (usize, usize)> + 'p {
        let state = &place.store;
        let whole = if place.is_promoted { self.whole(state) } else { Set::EMPTY };
        let named = whole
            .iter()
            .flat_map(|root| (state.names(root) & state.packs).iter().map(move |pack| (root, pack)));
        named.into_iter().filter(|(root, pack)| {
            let records = state.applying(*root, state.records & state.commits);
            !self.protocol.follow(state, Set::of(*pack), records).ends.is_within(state.packs)
        })
    }

    /// Whether a backup stored again what another root names in a pack that leads to packs that are not there.
    fn stored_again(&self, place: &Place) -> bool {
        let state = &place.store;
        let own = self.protocol.valid(state) & self.own();
        let again = |root: usize, entry: usize| state.tables[root][entry].meets(packs_of(Set::of(root)));
        self.in_between(place).any(|(other, pack)| {
            let named = |entry: &usize| state.tables[other][*entry].has(pack);
            (0..PACKS)
                .filter(named)
                .any(|entry| own.iter().any(|root| owner(entry) != root && again(root, entry)))
        })
    }
}
