//! One session and the processes that believe it is theirs: answers that are lost, requests that come late, ABORTs, and a
//! backup host that is resumed twice from one snapshot of itself.

mod process;

pub use process::Outcome;

use process::Process;
use stateright::{Model, Property};

/// A process's session, and the one that it starts again with.
pub(crate) const SESSIONS: usize = 2;
/// The process and its twin.
const PROCESSES: usize = 2;

/// What a process creates, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blob {
    /// W1.
    Intent,
    /// W6.
    Pack,
    /// W7.
    Decision,
}

/// Bytes. What processes write has the number of the disk as they read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bytes {
    /// An intent or a pack.
    Of(u8),
    /// A COMMIT that names a pack with these contents.
    Commit { disk: u8, pack: u8 },
    /// By the writer's next run, or by a pruner and signed.
    Abort,
    /// As a pruner's, and not signed.
    UnsignedAbort,
}

/// How the protocol is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// W7: a lost answer is taken for success.
    LostIsSuccess,
    /// W7: a lost answer is taken for a failure, and the session is begun again.
    LostIsFailure,
    /// W7: whatever COMMIT is there is taken for the own one.
    AnyCommitIsOwn,
    /// W6: whatever pack is there is taken for the own one.
    AnyPackIsOwn,
    /// ABORTs are removed.
    AbortsRemoved,
    /// The tombstone is removed with the root.
    TombstonesRemoved,
    /// An ABORT needs no signature.
    UnsignedAbortsBelieved,
}

impl Broken {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::LostIsSuccess,
        Self::LostIsFailure,
        Self::AnyCommitIsOwn,
        Self::AnyPackIsOwn,
        Self::AbortsRemoved,
        Self::TombstonesRemoved,
        Self::UnsignedAbortsBelieved,
    ];
}

/// The model of one session's names.
#[derive(Clone, Copy, Debug)]
pub struct Twins {
    /// How many requests may be lost or late.
    pub losses: u8,
    /// The rule that is broken.
    pub broken: Option<Broken>,
}

/// The store, the processes, and what was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    store: [[Option<Bytes>; 3]; SESSIONS],
    /// What each name had first.
    first: [[Option<Bytes>; 3]; SESSIONS],
    tombstones: [bool; SESSIONS],
    was_forgotten: [bool; SESSIONS],
    /// Requests that may still be applied: of each process, and ABORTs.
    late: [[[Option<Bytes>; 3]; SESSIONS]; PROCESSES],
    late_abort: bool,
    processes: [Option<Process>; PROCESSES],
    losses: u8,
}

/// One step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A process creates what comes next.
    Create(usize, Outcome),
    /// A process reads what is there, as it does not know whether its create was applied.
    ReadBack(usize),
    /// The host is resumed a second time, on a disk that has changed since, or not.
    Resume {
        /// Whether it has changed.
        changed: bool,
    },
    /// A request is applied late.
    Apply(usize, usize, Blob),
    /// The writer's next run, an operator or a pruner ends a session.
    Abort(usize),
    /// The request for it is applied late.
    ApplyAbort,
    /// Somebody hostile does.
    ForgeAbort(usize),
    /// A tombstone is created: of a snapshot, or of a session whose decision nobody can use.
    Forget(usize),
    /// A prune removes the decision.
    Remove(usize),
}

impl State {
    pub(crate) fn at(&self, session: usize, blob: Blob) -> Option<Bytes> {
        self.store[session][blob as usize]
    }

    /// Create if absent: whether it was.
    pub(crate) fn create(&mut self, session: usize, blob: Blob, bytes: Bytes) -> bool {
        let slot = &mut self.store[session][blob as usize];
        if slot.is_some() {
            return false;
        }
        *slot = Some(bytes);
        self.first[session][blob as usize].get_or_insert(bytes);
        true
    }
}

impl Twins {
    pub(crate) fn breaks(self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn late_actions(state: &State, actions: &mut Vec<Action>) {
        for process in 0..PROCESSES {
            for session in 0..SESSIONS {
                for blob in [Blob::Intent, Blob::Pack, Blob::Decision] {
                    if state.late[process][session][blob as usize].is_some() {
                        actions.push(Action::Apply(process, session, blob));
                    }
                }
            }
        }
        if state.late_abort {
            actions.push(Action::ApplyAbort);
        }
    }

    fn others_actions(self, state: &State, actions: &mut Vec<Action>) {
        for session in 0..SESSIONS {
            let decision = state.at(session, Blob::Decision);
            let has_intent = state.at(session, Blob::Intent).is_some();
            let is_forgotten = state.tombstones[session];
            match decision {
                None if has_intent && !is_forgotten => {
                    actions.extend([Action::Abort(session), Action::ForgeAbort(session)]);
                }
                Some(Bytes::Commit { .. } | Bytes::UnsignedAbort) if !is_forgotten => {
                    actions.push(Action::Forget(session));
                }
                Some(_) if is_forgotten => actions.push(Action::Remove(session)),
                Some(Bytes::Abort) if self.breaks(Broken::AbortsRemoved) => {
                    actions.push(Action::Remove(session));
                }
                _ => {}
            }
        }
    }

    fn remove(self, state: &mut State, session: usize) {
        state.store[session][Blob::Decision as usize] = None;
        if self.breaks(Broken::TombstonesRemoved) {
            state.tombstones[session] = false;
        }
    }
}

impl Model for Twins {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            store: Default::default(),
            first: Default::default(),
            tombstones: Default::default(),
            was_forgotten: Default::default(),
            late: Default::default(),
            late_abort: false,
            processes: [Some(Process::new(1)), None],
            losses: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, process) in state.processes.iter().enumerate() {
            if let Some(process) = process {
                process.actions(index, state.losses < self.losses, actions);
            }
        }
        if state.processes[1].is_none() && state.processes[0].is_some_and(Process::is_running) {
            actions.extend([Action::Resume { changed: true }, Action::Resume { changed: false }]);
        }
        Self::late_actions(state, actions);
        self.others_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Create(index, outcome) => self.create(&mut state, index, outcome),
            Action::ReadBack(index) => self.read_back(&mut state, index),
            Action::Resume { changed } => {
                let twin = state.processes[0].map(|process| process.twin(changed));
                state.processes[1] = twin;
            }
            Action::Apply(process, session, blob) => {
                if let Some(bytes) = state.late[process][session][blob as usize].take() {
                    state.create(session, blob, bytes);
                }
            }
            Action::Abort(session) => {
                state.create(session, Blob::Decision, Bytes::Abort);
                // The store may apply it twice.
                state.late_abort |= session == 0 && state.losses < self.losses;
            }
            Action::ApplyAbort => {
                state.late_abort = false;
                state.create(0, Blob::Decision, Bytes::Abort);
            }
            Action::ForgeAbort(session) => {
                state.create(session, Blob::Decision, Bytes::UnsignedAbort);
            }
            Action::Forget(session) => {
                state.tombstones[session] = true;
                state.was_forgotten[session] = true;
            }
            Action::Remove(session) => self.remove(&mut state, session),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        process::properties()
    }
}
