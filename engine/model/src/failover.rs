//! A source and its replica, before and after the replica was promoted, and what is brought back.
//!
//! Session 0 is a restore point that both have. Session 1 is a backup in the source, which may be under way when the
//! replica is promoted. Session 2 is a backup in the promoted replica. Session 3 imports a root of the replica into the
//! source. Each site has its own pruner. Repacks are not here: `core` has those with a replica.

mod site;

pub use site::{Broken, SiteAction};

use crate::set::Set;
use site::{Part, Site, Step};
use stateright::{Model, Property};

const SOURCE: usize = 0;
const REPLICA: usize = 1;
/// The session that imports.
const IMPORT: usize = 3;

/// The model of two sites.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// The rule that is broken.
    pub broken: Option<Broken>,
}

/// Both sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    sites: [Site; 2],
    is_promoted: bool,
    /// The operator said that the source is gone: nothing of it arrives any more.
    is_gone: bool,
    /// The source is reachable again, nothing is replicated, and what the replica has is read only.
    is_merging: bool,
}

/// One step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A session or the pruner of a site.
    At(usize, SiteAction),
    /// Something arrives at the replica.
    Arrive(Part, usize),
    /// Write `lineage/1`.
    Promote,
    /// The operator declares that the source is gone.
    DeclareGone,
    /// The operator begins to bring back what the replica has.
    Merge,
    /// A decision and its packs are copied into the source as they are, as only a broken variant does.
    CopyDecision(usize),
}

impl Failover {
    fn breaks(self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn arrivals(self, state: &State, actions: &mut Vec<Action>) {
        if state.is_gone || state.is_merging {
            return;
        }
        let [source, replica] = &state.sites;
        for part in Part::ALL {
            // Deletes are not followed any more once the replica is a source of its own.
            if part == Part::Delete && state.is_promoted && !self.breaks(Broken::DeletesFollowed) {
                continue;
            }
            let arriving = replica.lacks(source, part);
            actions.extend(arriving.iter().map(|number| Action::Arrive(part, number)));
        }
    }

    fn site_actions(self, state: &State, actions: &mut Vec<Action>) {
        let mut here = Vec::new();
        if !state.is_gone {
            let source = &state.sites[SOURCE];
            source.session_actions(1, self.broken, &mut here);
            source.pruner_actions(&mut here);
            if state.is_merging {
                source.session_actions(IMPORT, self.broken, &mut here);
            }
            actions.extend(here.drain(..).map(|action| Action::At(SOURCE, action)));
        }
        if state.is_promoted && !state.is_merging {
            let replica = &state.sites[REPLICA];
            replica.session_actions(2, self.broken, &mut here);
            if state.is_gone || self.breaks(Broken::PrunedBeforeGone) {
                replica.pruner_actions(&mut here);
            }
            if state.is_gone && self.breaks(Broken::ForeignResultExecuted) {
                replica.foreign_deletes(&mut here);
            }
            actions.extend(here.drain(..).map(|action| Action::At(REPLICA, action)));
        }
    }

    /// Nothing of the source arrives any more: it makes no difference what it has.
    fn declare_gone(state: &mut State) {
        state.is_gone = true;
        state.sites[SOURCE] = Site::default();
    }

    /// Nothing of the source arrives any more, and of the replica only the root that it made makes a difference, if that
    /// is complete. What its pruner did before does not change that.
    fn merge(state: &mut State) {
        state.is_merging = true;
        let replica = state.sites[REPLICA];
        state.sites[REPLICA] = Site::default();
        if replica.complete().has(2) {
            state.sites[REPLICA].commits = Set::of(2);
            state.sites[REPLICA].tables[2] = replica.tables[2];
            state.sites[REPLICA].packs = replica.tables[2];
        }
    }

    fn promote(self, state: &mut State) {
        state.is_promoted = true;
        let replica = &mut state.sites[REPLICA];
        replica.whole = replica.complete();
        if !self.breaks(Broken::ForeignSessionsLeft) {
            replica.aborts |= replica.intents - replica.decided();
        }
    }

    fn copy_decision(state: &mut State, session: usize) {
        let [source, replica] = &mut state.sites;
        source.intents.insert(session);
        source.commits.insert(session);
        source.tables[session] = replica.tables[session];
        if replica.packs.has(session) {
            source.packs.insert(session);
            source.uploaded.insert(session);
        }
    }
}

impl Model for Failover {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { sites: [Site::start(); 2], is_promoted: false, is_gone: false, is_merging: false }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.arrivals(state, actions);
        self.site_actions(state, actions);
        if !state.is_promoted {
            actions.push(Action::Promote);
        } else if !state.is_gone && !state.is_merging {
            actions.extend([Action::DeclareGone, Action::Merge]);
        } else if state.is_merging && self.breaks(Broken::DecisionsCopied) {
            let foreign = state.sites[REPLICA].valid() - state.sites[SOURCE].commits;
            actions.extend(foreign.iter().map(Action::CopyDecision));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::At(site, action) => {
                let foreign = state.sites[REPLICA];
                let is_import = action.session() == Some(IMPORT);
                state.sites[site].act(action, is_import.then_some(&foreign), self.broken);
            }
            Action::Arrive(part, number) => {
                let source = state.sites[SOURCE];
                state.sites[REPLICA].receive(&source, part, number);
            }
            Action::Promote => self.promote(&mut state),
            Action::DeclareGone => Self::declare_gone(&mut state),
            Action::Merge => Self::merge(&mut state),
            Action::CopyDecision(session) => Self::copy_decision(&mut state, session),
        }
        if state.is_promoted && !state.is_merging {
            let replica = &mut state.sites[REPLICA];
            replica.whole |= replica.complete();
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}

fn properties() -> Vec<Property<Failover>> {
    vec![
        Property::always("I2: the source deletes nothing that a valid root needs", |_, state: &State| {
            let source = &state.sites[SOURCE];
            source.valid() == source.complete()
        }),
        Property::always(
            "I2: a promoted replica deletes nothing that a valid root needs",
            |_, state: &State| {
                let replica = &state.sites[REPLICA];
                let names = (replica.valid() - replica.complete()).iter().map(|root| replica.tables[root]);
                names.into_iter().all(|names| !names.meets(replica.pruned))
            },
        ),
        Property::always("a backup in a promoted replica is whole", |_, state: &State| {
            let replica = &state.sites[REPLICA];
            let made_there = replica.valid() & Set::of(2);
            state.is_merging || made_there.is_within(replica.complete())
        }),
        Property::always("I7: what was whole after the promotion stays whole", |_, state: &State| {
            let replica = &state.sites[REPLICA];
            (replica.whole - replica.tombstones).is_within(replica.complete())
        }),
        Property::sometimes("the source prunes what the replica has", |_, state: &State| {
            state.sites[SOURCE].pruned.meets(state.sites[REPLICA].packs)
        }),
        Property::sometimes("the replica prunes what it had from the source", |_, state: &State| {
            state.sites[REPLICA].pruned.meets(Set::below(2))
        }),
        Property::sometimes(
            "a session is a snapshot in the source and aborted in the replica",
            |_, state: &State| state.sites[SOURCE].commits.meets(state.sites[REPLICA].aborts),
        ),
        Property::sometimes("a snapshot arrives after the promotion", |_, state: &State| {
            state.is_promoted && state.sites[REPLICA].complete().has(1)
        }),
        Property::sometimes("a backup in the replica needs what the source had", |_, state: &State| {
            state.sites[REPLICA].valid().has(2) && state.sites[REPLICA].tables[2].meets(Set::below(2))
        }),
        Property::sometimes("an import is a snapshot of its own", |_, state: &State| {
            state.sites[SOURCE].valid().has(IMPORT)
        }),
        Property::sometimes("an import finds what the source still has", |_, state: &State| {
            let source = &state.sites[SOURCE];
            source.valid().has(IMPORT) && source.tables[IMPORT].meets(Set::below(2))
        }),
        Property::sometimes("a session is refused", |_, state: &State| {
            state.sites.iter().any(|site| site.writers.iter().any(|writer| writer.step == Step::Refused))
        }),
    ]
}
