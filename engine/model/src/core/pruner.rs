//! P0 to P8.

use super::Protocol;
use super::config::World;
use super::records::packs_of;
use super::rules::Broken;
use super::state::{Pruner, PrunerStep, State};
use crate::set::{Packs, Sessions, Set};

/// What a pruner does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrunerAction {
    /// P0: go on with the generation that is open.
    Adopt {
        /// Its number.
        generation: usize,
    },
    /// P1, listing `k/`, where a broken variant remembers that.
    ListRecordsEarly {
        /// The generation that is going to be opened.
        generation: usize,
    },
    /// P1, P2: choose candidates. The marking may be stale in any way.
    Choose {
        /// The generation that is going to be opened.
        generation: usize,
        /// The candidates.
        candidates: Packs,
    },
    /// P3: create `condemned`, or adopt the one that is there.
    PublishCondemned,
    /// P4: list one more intent.
    ListIntent,
    /// P4: go by the list that is there.
    TakeAwaited,
    /// P4: create `awaited`, or adopt the one that is there.
    PublishAwaited,
    /// P5: all of them are decided.
    StopWaiting,
    /// P5: create an ABORT for one that is not.
    Abort {
        /// The session.
        session: usize,
    },
    /// P6: list `k/`.
    ListRecords,
    /// P6: list one more root, and mark from it.
    MarkRoot,
    /// P6: the listing lacks a root that the last roster has.
    MissRoot {
        /// The root.
        root: usize,
    },
    /// P7: create `result`, or adopt the one that is there.
    PublishResult,
    /// P8: read the index.
    ReadIndex,
    /// P8: write the compacted index, remove the old blobs.
    WriteIndex,
    /// P8: delete a pack that the replica does not hold up.
    Delete {
        /// Its number.
        pack: usize,
    },
    /// P8: try to; retention refuses it.
    DeleteRefused {
        /// Its number.
        pack: usize,
    },
    /// P8: create `sealed`.
    Seal,
    /// Die, or end, and forget everything.
    Crash,
}

use PrunerAction as Do;

impl Protocol {
    pub(super) fn pruner_actions(&self, state: &State, pruner: Pruner, actions: &mut Vec<PrunerAction>) {
        let number = usize::from(pruner.generation);
        match pruner.step {
            PrunerStep::Idle => self.openings(state, actions),
            PrunerStep::Marked => self.choices(state, number, actions),
            PrunerStep::Chosen if self.is_blocked(state, state.forged.condemned.has(number)) => {}
            PrunerStep::Chosen => actions.push(Do::PublishCondemned),
            PrunerStep::Condemned if pruner.next == 0 && !self.awaited(state, number).is_empty() => {
                actions.push(Do::TakeAwaited);
            }
            PrunerStep::Condemned => actions.push(Do::ListIntent),
            PrunerStep::Listed => actions.push(Do::PublishAwaited),
            PrunerStep::Waiting => {
                let open = self.waited_for(pruner.open - state.decided());
                if open.is_empty() {
                    actions.push(Do::StopWaiting);
                }
                actions.extend(open.iter().map(|session| Do::Abort { session }));
            }
            // An unreadable decision stops here, until it can be read or a tombstone settles it.
            PrunerStep::Records if self.records_are_unreadable(state) => {}
            PrunerStep::Records => actions.push(Do::ListRecords),
            PrunerStep::Roots => self.markings(state, pruner, actions),
            PrunerStep::Marking if self.is_blocked(state, state.forged.results.has(number)) => {}
            PrunerStep::Marking => actions.push(Do::PublishResult),
            PrunerStep::Published => actions.push(Do::ReadIndex),
            PrunerStep::Compacting => actions.push(Do::WriteIndex),
            PrunerStep::Deleting => {
                if let Some(pack) = (pruner.list - self.held(state, pruner.list)).first() {
                    actions.push(Do::Delete { pack });
                    if self.config.has(World::Worm) && state.packs.has(pack) {
                        actions.push(Do::DeleteRefused { pack });
                    }
                } else if pruner.list.is_empty() {
                    actions.push(Do::Seal);
                }
            }
        }
        if self.config.has(World::Crash) && pruner.step != PrunerStep::Idle {
            actions.push(Do::Crash);
        }
    }

    /// Whether a name is taken by an object that is not signed: the pruner reports it and ends.
    fn is_blocked(&self, state: &State, is_taken: bool) -> bool {
        debug_assert!(
            !is_taken || self.config.has(World::Hostile),
            "only somebody hostile forges: {state:?}"
        );
        is_taken
    }

    fn openings(&self, state: &State, actions: &mut Vec<PrunerAction>) {
        for number in 0..self.config.generations {
            let generation = &state.generations[number];
            if generation.is_sealed {
                continue;
            }
            if generation.has_condemned || generation.has_result {
                actions.push(Do::Adopt { generation: number });
            } else if self.config.breaks(Broken::MarkedWithOldRecords) {
                actions.push(Do::ListRecordsEarly { generation: number });
            } else {
                self.choices(state, number, actions);
            }
            if !self.config.breaks(Broken::AnyGenerationOpened) {
                return;
            }
        }
    }

    fn choices(&self, state: &State, generation: usize, actions: &mut Vec<PrunerAction>) {
        let breaks = |broken| self.config.breaks(broken);
        let decided = if breaks(Broken::UndecidedCandidates) {
            Set::below(self.config.sessions)
        } else {
            state.decided()
        };
        let choices = (state.packs & packs_of(decided)).subsets();
        let small = choices.filter(|candidates| candidates.len() <= self.config.candidates);
        actions.extend(small.map(|candidates| Do::Choose { generation, candidates }));
    }

    fn waited_for(&self, open: Sessions) -> Sessions {
        let breaks = |broken| self.config.breaks(broken);
        if breaks(Broken::NobodyWaitedFor) {
            Set::EMPTY
        } else if breaks(Broken::RepacksNotWaitedFor) {
            open - self.config.repacks
        } else {
            open
        }
    }

    fn markings(&self, state: &State, pruner: Pruner, actions: &mut Vec<PrunerAction>) {
        let Some(root) = self.next_root(state, pruner.next) else {
            actions.push(Do::MarkRoot);
            return;
        };
        let cannot_be_read = (state.commits & state.unreadable | state.forged.aborts).has(root);
        if !cannot_be_read || self.config.breaks(Broken::UnreadableRootSkipped) {
            actions.push(Do::MarkRoot);
        }
        let last_sealed = state.generations.iter().rfind(|generation| generation.is_sealed);
        if self.config.has(World::LyingList)
            && state.history.harms == 0
            && last_sealed.is_some_and(|last| last.roster.has(root))
        {
            actions.push(Do::MissRoot { root });
        }
    }

    /// The next session whose decision has to be looked at; a settled one can be left out.
    fn next_root(&self, state: &State, from: u8) -> Option<usize> {
        let settled = state.tombstones | state.aborts | self.config.repacks;
        (Set::below(self.config.sessions) - settled).next_from(usize::from(from))
    }

    pub(super) fn prune(&self, state: &mut State, index: usize, action: PrunerAction) {
        let breaks = |broken| self.config.breaks(broken);
        let mut pruner = state.pruners[index];
        let number = usize::from(pruner.generation);
        match action {
            Do::Adopt { generation } => {
                let there = &state.generations[generation];
                let step = if there.has_result { PrunerStep::Marking } else { PrunerStep::Condemned };
                let list = if there.has_result { there.condemned } else { Set::EMPTY };
                pruner = Pruner { step, list, ..at(generation) };
            }
            Do::ListRecordsEarly { generation } => {
                let records = self.believed_records(state);
                pruner = Pruner { step: PrunerStep::Marked, records, ..at(generation) };
            }
            Do::Choose { generation, candidates } => {
                let undecided = state.intents - state.decided();
                let open = if breaks(Broken::IntentsBeforeP3) { undecided } else { Set::EMPTY };
                let records = pruner.records;
                pruner =
                    Pruner { step: PrunerStep::Chosen, list: candidates, open, records, ..at(generation) };
            }
            Do::PublishCondemned => pruner = self.publish_condemned(state, pruner),
            Do::ListIntent => list_intent(state, &mut pruner, self.config.sessions),
            Do::TakeAwaited => {
                pruner.open = self.awaited(state, number);
                pruner.step = PrunerStep::Waiting;
            }
            Do::PublishAwaited => {
                pruner.step = PrunerStep::Waiting;
                // Under a name that is taken by what is not signed, there is no list: the own one does.
                if !state.forged.awaited.has(number) {
                    let generation = &mut state.generations[number];
                    if generation.awaited.is_empty() && !generation.has_result {
                        generation.awaited = pruner.open;
                    }
                    pruner.open = generation.awaited;
                }
            }
            Do::StopWaiting => {
                let old = breaks(Broken::MarkedWithOldRecords);
                let step = if old { PrunerStep::Roots } else { PrunerStep::Records };
                let list = state.generations[number].condemned;
                pruner = Pruner { step, list, records: pruner.records, ..at(number) };
            }
            Do::Abort { session } => {
                state.aborts.insert(session);
                state.history.aborted.insert(session);
            }
            Do::ListRecords => {
                pruner.records = self.believed_records(state);
                pruner.step = PrunerStep::Roots;
            }
            Do::MarkRoot => {
                if let Some(root) =
                    self.next_root(state, pruner.next).filter(|_| !breaks(Broken::NotMarkedAgain))
                {
                    self.mark(state, &mut pruner, root);
                } else {
                    pruner = Pruner { step: PrunerStep::Marking, list: pruner.list, ..at(number) };
                }
            }
            Do::MissRoot { root } => {
                state.history.harms += 1;
                if breaks(Broken::RosterUnchecked) {
                    pruner.next = following(root);
                } else {
                    pruner = Pruner::default();
                }
            }
            Do::PublishResult => pruner = self.publish_result(state, pruner),
            Do::ReadIndex => {
                pruner.index = state.hints - pruner.list;
                pruner.step = PrunerStep::Compacting;
            }
            Do::WriteIndex => {
                state.hints = (state.hints | pruner.index) - pruner.list;
                pruner = if breaks(Broken::SealedBeforeIndex) {
                    Pruner::default()
                } else {
                    Pruner { step: PrunerStep::Deleting, list: pruner.list, ..at(number) }
                };
            }
            Do::Delete { pack } => {
                state.packs.remove(pack);
                pruner.list.remove(pack);
                state.history.deleted_unlisted |= !state.published_deletes().has(pack);
            }
            Do::DeleteRefused { pack } => pruner.list.remove(pack),
            Do::Seal => pruner = self.seal(state, number),
            Do::Crash => pruner = Pruner::default(),
        }
        state.pruners[index] = pruner;
    }

    fn publish_condemned(&self, state: &mut State, pruner: Pruner) -> Pruner {
        let generation = &mut state.generations[usize::from(pruner.generation)];
        if !generation.has_condemned {
            generation.has_condemned = true;
            generation.condemned = pruner.list;
        }
        if generation.is_sealed && !self.config.breaks(Broken::SealedUnchecked) {
            return Pruner::default();
        }
        let is_listed = self.config.breaks(Broken::IntentsBeforeP3);
        let step = if is_listed { PrunerStep::Waiting } else { PrunerStep::Condemned };
        Pruner { step, list: Set::EMPTY, ..pruner }
    }

    /// The list of those that a generation waits for.
    fn awaited(&self, state: &State, generation: usize) -> Sessions {
        let own = state.generations[generation].awaited;
        if own.is_empty() && generation > 0 && self.config.breaks(Broken::AwaitedOfTheLast) {
            return state.generations[generation - 1].awaited;
        }
        own
    }

    fn mark(&self, state: &State, pruner: &mut Pruner, root: usize) {
        let is_skipped = state.unreadable.has(root) && self.config.breaks(Broken::UnreadableRootSkipped);
        if self.believed_valid(state).has(root) && !is_skipped {
            pruner.list -= self.marked(state, root, pruner.records);
        }
        pruner.next = following(root);
        if self.next_root(state, pruner.next).is_none() {
            let generation = usize::from(pruner.generation);
            *pruner = Pruner { step: PrunerStep::Marking, list: pruner.list, ..at(generation) };
        }
    }

    fn publish_result(&self, state: &mut State, pruner: Pruner) -> Pruner {
        let number = usize::from(pruner.generation);
        let earlier = self.earlier(state, number);
        let generation = &mut state.generations[number];
        if !generation.has_result {
            generation.has_result = true;
            generation.delete = pruner.list;
            generation.earlier = earlier;
            // Nobody needs it any more.
            if !self.config.breaks(Broken::AwaitedOfTheLast) {
                generation.awaited = Set::EMPTY;
            }
        }
        if generation.is_sealed && !self.config.breaks(Broken::SealedUnchecked) {
            return Pruner::default();
        }
        let published = generation.delete;
        let list = if self.config.breaks(Broken::OwnListDeleted) { pruner.list } else { published };
        let leaves_index =
            self.config.has(World::HintsForever) || self.config.breaks(Broken::SealedBeforeIndex);
        let step = if leaves_index { PrunerStep::Deleting } else { PrunerStep::Published };
        Pruner { step, list, ..at(number) }
    }

    fn seal(&self, state: &mut State, number: usize) -> Pruner {
        let roster = self.believed_valid(state);
        let generation = &mut state.generations[number];
        let list = generation.delete;
        if !generation.is_sealed {
            generation.is_sealed = true;
            generation.roster = roster;
        }
        if self.config.breaks(Broken::ListsRemoved) {
            let roster = generation.roster;
            *generation = super::state::Generation { is_sealed: true, roster, ..Default::default() };
        }
        if self.config.breaks(Broken::SealedBeforeIndex) && !self.config.has(World::HintsForever) {
            return Pruner { step: PrunerStep::Published, list, ..at(number) };
        }
        Pruner::default()
    }
}

/// A pruner at the beginning of a generation.
fn at(generation: usize) -> Pruner {
    let generation = u8::try_from(generation).expect("there are few generations");
    Pruner { generation, ..Default::default() }
}

fn following(session: usize) -> u8 {
    u8::try_from(session + 1).expect("there are few sessions")
}

/// P4 takes intents one by one. Those of decided sessions make no difference.
fn list_intent(state: &State, pruner: &mut Pruner, sessions: usize) {
    let undecided = Set::below(sessions) - state.decided();
    if let Some(session) = undecided.next_from(usize::from(pruner.next)) {
        if state.intents.has(session) {
            pruner.open.insert(session);
        }
        pruner.next = following(session);
    }
    if undecided.next_from(usize::from(pruner.next)).is_none() {
        pruner.next = 0;
        // Whoever is decided by now need not be published.
        pruner.open -= state.decided();
        pruner.step = if pruner.open.is_empty() { PrunerStep::Waiting } else { PrunerStep::Listed };
    }
}
