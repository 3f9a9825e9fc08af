//! A replica that is promoted, with everything that a repository does before and after, repacks too.
//!
//! Some sessions are of the source. When they have ended, the replica is promoted, of which any subset has arrived: of what
//! there was in the source at any time before, that is every state that a promotion may meet. What is left may go on arriving
//! until the operator says that the source is gone. The other sessions, and the pruners, are of the promoted place.

mod properties;

use super::config::Config;
use super::records::packs_of;
use super::state::{Copied, PACKS, SESSIONS, State, Writer, WriterStep};
use super::{Action, Protocol};
use crate::set::{Packs, Sessions, Set};
use properties::{always, sights};
use stateright::{Model, Property};

/// The protocol in a source and, later, in a replica of it.
#[derive(Debug)]
pub struct Promotion {
    protocol: Protocol,
    sources: Sessions,
    /// Whether anything may arrive after the promotion.
    is_late: bool,
}

/// A place, and what it was or will be copied from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// What the source has, and after the promotion what the place has.
    store: State,
    is_promoted: bool,
    /// What of the source has not arrived, and may.
    missing: Arrived,
    /// Roots that were whole since the promotion.
    was_whole: Sessions,
}

/// Objects of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arrived {
    intents: Sessions,
    packs: Packs,
    commits: Sessions,
    records: Sessions,
    tombstones: Sessions,
    /// What lists under `gc/` name.
    condemned: Packs,
}

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An intent.
    Intent,
    /// A pack.
    Pack,
    /// A COMMIT, or REPACK.
    Commit,
    /// A repack record.
    Record,
    /// A tombstone.
    Tombstone,
}

/// One step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromotionAction {
    /// In the source, or in the promoted place.
    There(Action),
    /// The replica is promoted, and this has arrived.
    Promote(Arrived),
    /// Something arrives after the promotion.
    Arrive(Part, usize),
    /// The operator says that the source is gone.
    DeclareGone,
}

use PromotionAction as Do;

impl Promotion {
    /// A model with sessions of the source, and of the promoted place, as in [`Config::new`]. `size` tells what else.
    #[must_use]
    pub fn new(source: &str, promoted: &str, size: impl FnOnce(Config) -> Config) -> Self {
        let config = size(Config::new(&[source, promoted].concat()));
        Self { protocol: Protocol::new(config), sources: Set::below(source.len() + 1), is_late: false }
    }

    /// With what arrives after the promotion.
    #[must_use]
    pub fn late(self) -> Self {
        Self { is_late: true, ..self }
    }

    fn source_actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.sessions(state, self.sources - Set::of(0), actions);
        let mut of_world = Vec::new();
        self.protocol.world_actions(state, &mut of_world);
        actions.extend(of_world.into_iter().map(Action::World));
    }

    fn sessions(&self, state: &State, sessions: Sessions, actions: &mut Vec<Action>) {
        let mut of_session = Vec::new();
        for session in sessions.iter() {
            self.protocol.writer_actions(state, session, &mut of_session);
            actions.extend(of_session.drain(..).map(|action| Action::Session(session, action)));
        }
    }

    /// What a replica may have when it is promoted. Intents matter of sessions only that are not decided there.
    fn arrivals(&self, source: &State, actions: &mut Vec<PromotionAction>) {
        let everything = self.everything(source);
        let each = |set: Set| set.subsets().chain([Set::EMPTY]);
        for commits in each(everything.commits) {
            for packs in each(everything.packs) {
                for records in each(everything.records) {
                    for tombstones in each(everything.tombstones) {
                        for intents in each(everything.intents - commits - tombstones) {
                            for condemned in each(everything.condemned) {
                                let arrived =
                                    Arrived { intents, packs, commits, records, tombstones, condemned };
                                actions.push(Do::Promote(arrived));
                            }
                        }
                    }
                }
            }
        }
    }

    /// All that the source has or had. Its pruner may have listed anything that no root needs there.
    fn everything(&self, source: &State) -> Arrived {
        let known = source.records & source.commits;
        let valid = self.protocol.valid(source).iter();
        let needed = valid.fold(Set::EMPTY, |packs, root| packs | self.protocol.needs(source, root, known));
        Arrived {
            intents: source.intents,
            packs: source.history.uploaded,
            commits: source.commits,
            records: source.records,
            tombstones: source.tombstones,
            condemned: source.history.uploaded - needed,
        }
    }

    /// `lineage/1` with the roots that are not whole, then ABORTs for undecided sessions.
    fn promote(&self, place: &mut Place, arrived: Arrived) {
        let source = place.store;
        let everything = self.everything(&source);
        place.is_promoted = true;
        if self.is_late {
            place.missing = everything.without(&arrived);
        }
        let mut store = State {
            intents: arrived.intents,
            commits: arrived.commits,
            tombstones: arrived.tombstones,
            records: arrived.records,
            packs: arrived.packs,
            content: source.content,
            tables: source.tables,
            links: source.links,
            copied: Copied { sessions: self.sources, condemned: arrived.condemned, ..Default::default() },
            ..Default::default()
        };
        store.hints = arrived.packs | place.missing.packs;
        store.history.uploaded = store.hints;
        for session in self.sources.iter() {
            store.writers[session] = Writer { step: WriterStep::Refused, ..Default::default() };
        }
        store.copied.set_aside = self.protocol.valid(&store) - self.whole(&store);
        store.aborts = store.intents - store.decided();
        place.store = store;
        self.forget_what_never_comes(place);
    }

    /// What can be told by nothing that is there or may come makes no difference.
    fn forget_what_never_comes(&self, place: &mut Place) {
        let (store, missing) = (&mut place.store, &place.missing);
        let told = store.commits | store.records | missing.commits | missing.records;
        for session in (self.sources - told).iter() {
            store.tables[session] = Default::default();
            store.links[session] = Set::EMPTY;
        }
        for pack in (packs_of(self.sources) - store.packs - missing.packs).iter() {
            store.content[pack] = Set::EMPTY;
        }
    }

    fn arrive(place: &mut Place, part: Part, number: usize) {
        let store = &mut place.store;
        let (missing, there) = match part {
            Part::Intent => (&mut place.missing.intents, &mut store.intents),
            Part::Pack => (&mut place.missing.packs, &mut store.packs),
            // A name that is taken stays as it is.
            Part::Commit if store.aborts.has(number) => (&mut place.missing.commits, &mut store.aborts),
            Part::Commit => (&mut place.missing.commits, &mut store.commits),
            Part::Record => (&mut place.missing.records, &mut store.records),
            Part::Tombstone => (&mut place.missing.tombstones, &mut store.tombstones),
        };
        missing.remove(number);
        there.insert(number);
    }

    fn declare_gone(&self, place: &mut Place) {
        place.missing = Arrived::default();
        place.store.hints &= place.store.packs;
        self.forget_what_never_comes(place);
    }

    fn promoted_actions(&self, place: &Place, actions: &mut Vec<PromotionAction>) {
        let state = &place.store;
        let mut here = Vec::new();
        self.sessions(state, Set::below(SESSIONS) & self.own(), &mut here);
        let mut of_world = Vec::new();
        self.protocol.world_actions(state, &mut of_world);
        here.extend(of_world.into_iter().map(Action::World));
        if place.missing.is_empty() {
            let mut of_pruner = Vec::new();
            for index in 0..self.protocol.config.pruners {
                self.protocol.pruner_actions(state, state.pruners[index], &mut of_pruner);
                here.extend(of_pruner.drain(..).map(|action| Action::Pruner(index, action)));
            }
        } else {
            actions.push(Do::DeclareGone);
            actions.extend(place.missing.parts().map(|(part, number)| Do::Arrive(part, number)));
        }
        actions.extend(here.into_iter().map(Do::There));
    }

    /// The sessions of the promoted place.
    fn own(&self) -> Sessions {
        Set::below(self.protocol.config.sessions) - self.sources
    }

    /// Valid roots that are whole, by what is there.
    fn whole(&self, state: &State) -> Sessions {
        self.protocol.whole(state, state.records & state.commits)
    }

    /// Roots of the promoted place that are readable: each entry is in a pack that is there and that a record leads to.
    fn readable(&self, state: &State) -> Sessions {
        let known = state.records & state.commits;
        let is_readable = |root: &usize| {
            (0..PACKS).all(|entry| {
                let names = state.tables[*root][entry];
                let there = self.protocol.follow(state, names, known).packs & state.packs;
                names.is_empty() || there.iter().any(|pack| state.content[pack].has(entry))
            })
        };
        self.protocol.valid(state).iter().filter(is_readable).collect()
    }
}

impl Arrived {
    fn without(&self, other: &Self) -> Self {
        Self {
            intents: self.intents - other.intents,
            packs: self.packs - other.packs,
            commits: self.commits - other.commits,
            records: self.records - other.records,
            tombstones: self.tombstones - other.tombstones,
            // Lists under `gc/` that arrive late are like those of the promotion.
            condemned: Set::EMPTY,
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn parts(&self) -> impl Iterator<Item = (Part, usize)> {
        let of = |part, set: Set| set.iter().map(move |number| (part, number));
        of(Part::Intent, self.intents)
            .chain(of(Part::Pack, self.packs))
            .chain(of(Part::Commit, self.commits))
            .chain(of(Part::Record, self.records))
            .chain(of(Part::Tombstone, self.tombstones))
    }
}

impl Model for Promotion {
    type State = Place;
    type Action = PromotionAction;

    fn init_states(&self) -> Vec<Place> {
        vec![Place { store: self.protocol.start(), ..Default::default() }]
    }

    fn actions(&self, place: &Place, actions: &mut Vec<PromotionAction>) {
        if place.is_promoted {
            self.promoted_actions(place, actions);
            return;
        }
        let mut there = Vec::new();
        self.source_actions(&place.store, &mut there);
        actions.extend(there.into_iter().map(Do::There));
        let has_ended = |session: usize| {
            matches!(place.store.writers[session].step, WriterStep::Committed | WriterStep::Refused)
        };
        if self.sources.iter().all(has_ended) {
            self.arrivals(&place.store, actions);
        }
    }

    fn next_state(&self, last: &Place, action: PromotionAction) -> Option<Place> {
        let mut place = *last;
        match action {
            Do::There(action) => place.store = self.protocol.next_state(&last.store, action)?,
            Do::Promote(arrived) => self.promote(&mut place, arrived),
            Do::Arrive(part, number) => Self::arrive(&mut place, part, number),
            Do::DeclareGone => self.declare_gone(&mut place),
        }
        if place.is_promoted {
            place.was_whole |= self.whole(&place.store);
        }
        Some(place)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always();
        properties.extend(sights(self));
        properties
    }
}
