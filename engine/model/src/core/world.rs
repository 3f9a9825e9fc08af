//! What happens besides: forgetting, operators, a store that is slow or harmed, somebody hostile.

use super::Protocol;
use super::config::World;
use super::rules::Broken;
use super::state::State;
use crate::set::Set;

/// Something that happens to the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorldAction {
    /// F: a tombstone for a root.
    Forget {
        /// The root.
        root: usize,
    },
    /// P8, but at any time: remove the decision of a forgotten root.
    RemoveRoot {
        /// The root.
        root: usize,
    },
    /// Its writer's next run, or `--abort-session`: an ABORT for an undecided session.
    Abort {
        /// The session.
        session: usize,
    },
    /// An ABORT is removed, as only a broken variant does.
    RemoveAbort {
        /// The session.
        session: usize,
    },
    /// The upload of a deleted pack is applied once more.
    UploadAgain {
        /// The pack.
        pack: usize,
    },
    /// A decision cannot be read from now on.
    Harm {
        /// The session.
        session: usize,
    },
    /// It can be read again.
    Mend {
        /// The session.
        session: usize,
    },
    /// A tombstone for a session whose decision nobody can use.
    Settle {
        /// The session.
        session: usize,
    },
    /// An unsigned object is created.
    Forge(Forgery),
}

/// An object that should be signed and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// `f/`, for a root.
    Tombstone(usize),
    /// A pruner's ABORT, in the place of the decision of an undecided session.
    Abort(usize),
    /// `k/` in the name of a committed session, saying that all packs of session 0 moved to its own first one.
    Record(usize),
    /// `gc/<n>/condemned` of all packs.
    Condemned(usize),
    /// `gc/<n>/awaited` of a session that is decided.
    Awaited(usize),
    /// `gc/<n>/result` of all packs.
    Result(usize),
}

use WorldAction as Do;

impl Protocol {
    pub(super) fn world_actions(&self, state: &State, actions: &mut Vec<WorldAction>) {
        let history = &state.history;
        let has = |world| self.config.has(world);
        if history.forgets < self.config.forgets {
            // Where somebody took the tombstone's name, `forget` reports that instead.
            let roots = self.valid(state) - state.forged.tombstones;
            actions.extend(roots.iter().map(|root| Do::Forget { root }));
        }
        let removable = state.tombstones & (state.commits - history.committed_late);
        actions.extend(removable.iter().map(|root| Do::RemoveRoot { root }));
        if has(World::AbortAny) {
            let undecided = state.intents - state.decided();
            actions.extend(undecided.iter().map(|session| Do::Abort { session }));
        }
        if self.config.breaks(Broken::AbortsRemoved) {
            actions.extend(state.aborts.iter().map(|session| Do::RemoveAbort { session }));
        }
        if has(World::LateUpload) {
            let again = history.uploaded - state.packs - history.uploaded_late;
            actions.extend(again.iter().map(|pack| Do::UploadAgain { pack }));
        }
        if has(World::Unreadable) {
            actions.extend(state.unreadable.iter().map(|session| Do::Mend { session }));
            if history.harms == 0 {
                actions.extend(state.commits.iter().map(|session| Do::Harm { session }));
            }
        }
        if has(World::Hostile) {
            let unsettled = state.forged.aborts - state.tombstones;
            actions.extend(unsettled.iter().map(|session| Do::Settle { session }));
            if history.harms == 0 {
                self.forgeries(state, actions);
            }
        }
    }

    fn forgeries(&self, state: &State, actions: &mut Vec<WorldAction>) {
        let free = Set::below(self.config.sessions) - state.tombstones;
        actions.extend((free & state.commits).iter().map(|root| Do::Forge(Forgery::Tombstone(root))));
        let open = state.intents - state.decided();
        actions.extend(open.iter().map(|session| Do::Forge(Forgery::Abort(session))));
        let committed = state.commits - self.config.repacks - Set::of(0);
        actions.extend(committed.iter().map(|session| Do::Forge(Forgery::Record(session))));
        for number in 0..self.config.generations {
            if !state.generations[number].has_condemned {
                actions.push(Do::Forge(Forgery::Condemned(number)));
            }
            if state.generations[number].awaited.is_empty() && !state.generations[number].has_result {
                actions.push(Do::Forge(Forgery::Awaited(number)));
            }
            if !state.generations[number].has_result {
                actions.push(Do::Forge(Forgery::Result(number)));
            }
        }
    }

    pub(super) fn happen(&self, state: &mut State, action: WorldAction) {
        match action {
            Do::Forget { root } => {
                state.tombstones.insert(root);
                state.history.forgotten.insert(root);
                state.history.forgets += 1;
            }
            Do::RemoveRoot { root } => {
                state.commits.remove(root);
                state.unreadable.remove(root);
                if self.config.breaks(Broken::TombstonesRemoved) {
                    state.tombstones.remove(root);
                    state.history.reported.remove(root);
                }
            }
            Do::Abort { session } => {
                state.aborts.insert(session);
                state.history.aborted.insert(session);
            }
            Do::RemoveAbort { session } => state.aborts.remove(session),
            Do::UploadAgain { pack } => {
                state.packs.insert(pack);
                state.history.uploaded_late.insert(pack);
            }
            Do::Harm { session } => {
                state.unreadable.insert(session);
                state.history.harms += 1;
            }
            Do::Mend { session } => state.unreadable.remove(session),
            Do::Settle { session } => state.tombstones.insert(session),
            Do::Forge(forgery) => self.forge(state, forgery),
        }
    }

    /// A forged object that is believed is as good as a true one, else it only takes its name.
    fn forge(&self, state: &mut State, forgery: Forgery) {
        let believes = |broken| self.config.breaks(broken);
        state.history.harms += 1;
        match forgery {
            Forgery::Tombstone(root) => state.forged.tombstones.insert(root),
            Forgery::Abort(session) => state.forged.aborts.insert(session),
            Forgery::Record(session) => state.forged.records.insert(session),
            Forgery::Condemned(number) if believes(Broken::UnsignedCondemnedBelieved) => {
                state.generations[number].has_condemned = true;
                state.generations[number].condemned = state.history.uploaded;
            }
            Forgery::Condemned(number) => state.forged.condemned.insert(number),
            Forgery::Awaited(number) if believes(Broken::UnsignedAwaitedBelieved) => {
                state.generations[number].awaited = Set::of(0);
            }
            Forgery::Awaited(number) => state.forged.awaited.insert(number),
            Forgery::Result(number) if believes(Broken::UnsignedResultsBelieved) => {
                state.generations[number].has_result = true;
                state.generations[number].delete = state.history.uploaded;
            }
            Forgery::Result(number) => state.forged.results.insert(number),
        }
    }
}
