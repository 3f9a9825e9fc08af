//! Sessions, generations, repacks and a replica, in one repository.

mod config;
mod promotion;
mod properties;
mod pruner;
mod records;
mod replica;
mod rules;
mod sights;
mod state;
mod world;
mod writer;

pub use config::{Config, World};
pub use promotion::{Arrived, Part, Place, Promotion, PromotionAction};
pub use pruner::PrunerAction;
pub use replica::ReplicaAction;
pub use rules::Broken;
pub use state::State;
pub use world::{Forgery, WorldAction};
pub use writer::WriterAction;

use crate::set::Set;
use state::{Writer, WriterStep};
use stateright::{Model, Property};
use std::sync::atomic::AtomicU32;

/// The protocol of one repository as a model.
#[derive(Debug)]
pub struct Protocol {
    config: Config,
    /// Which of `sights::Sight` were seen: a bit each.
    seen: AtomicU32,
}

/// One step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A session's.
    Session(usize, WriterAction),
    /// A pruner's. Pruners are interchangeable: which is which may differ from step to step.
    Pruner(usize, PrunerAction),
    /// The world's.
    World(WorldAction),
    /// The replication's.
    Replica(ReplicaAction),
}

impl Protocol {
    /// A model of that size, in that world.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, seen: AtomicU32::new(0) }
    }

    /// The names of everything that has to be seen in some run.
    #[must_use]
    pub fn sights() -> &'static [&'static str] {
        sights::NAMES
    }

    /// A restore point that is there already, and at the replica.
    fn start(&self) -> State {
        let mut state = State { intents: Set::of(0), commits: Set::of(0), ..Default::default() };
        state.history.reported = Set::of(0);
        state.writers[0] = Writer { step: WriterStep::Committed, ..Default::default() };
        let packs = if self.config.has(World::TwoPacks) { 2 } else { 1 };
        for pack in 0..packs {
            state.tables[0][pack] = Set::of(pack);
            state.content[pack] = Set::of(pack);
        }
        if self.config.has(World::DeadEntry) {
            state.content[0].insert(1);
        } else if self.config.has(World::Spread) {
            state.content[0].insert(1);
            state.tables[0][1] = Set::of(0);
        }
        let packs = Set::below(packs);
        (state.packs, state.hints, state.history.uploaded) = (packs, packs, packs);
        if self.config.has(World::Replica) {
            state.replica.packs = packs;
            state.replica.commits = Set::of(0);
            state.replica.was_complete = Set::of(0);
        }
        state
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut of_session = Vec::new();
        for session in 1..self.config.sessions {
            self.writer_actions(state, session, &mut of_session);
            actions.extend(of_session.drain(..).map(|action| Action::Session(session, action)));
        }
        let mut of_world = Vec::new();
        self.world_actions(state, &mut of_world);
        actions.extend(of_world.into_iter().map(Action::World));
        let mut of_pruner = Vec::new();
        for index in 0..self.config.pruners {
            self.pruner_actions(state, state.pruners[index], &mut of_pruner);
            actions.extend(of_pruner.drain(..).map(|action| Action::Pruner(index, action)));
        }
        if self.config.has(World::Replica) {
            let mut of_replica = Vec::new();
            Self::replica_actions(state, &mut of_replica);
            actions.extend(of_replica.into_iter().map(Action::Replica));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Session(session, action) => self.write(&mut state, session, action),
            Action::Pruner(index, action) => self.prune(&mut state, index, action),
            Action::World(action) => self.happen(&mut state, action),
            Action::Replica(action) => Self::replicate(&mut state, action),
        }
        if self.config.has(World::Replica) {
            self.remember_complete(&mut state);
        }
        state.pruners[..self.config.pruners].sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
