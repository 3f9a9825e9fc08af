//! W1 to W7, and the sessions of repacks, which differ in what they store.

use super::Protocol;
use super::config::World;
use super::records::{owner, packs_of};
use super::rules::Broken;
use super::state::{Listed, PACKS, PACKS_EACH, State, Writer, WriterStep};
use crate::set::{Entries, Packs, Sessions, Set};

/// What a session does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterAction {
    /// W1.
    CreateIntent,
    /// W2, first half: list `gc/`, or a page of it, and after the last one read what was listed.
    ListGenerations,
    /// W2, second half.
    ListRecords,
    /// W3 and W4 of a backup without a parent.
    StartAnew,
    /// W3: choose the parent; W4: inherit from it.
    Inherit {
        /// The parent.
        parent: usize,
        /// What is inherited of it.
        kept: Entries,
        /// Whether the backup brings something new too.
        new: bool,
    },
    /// W3 and W4 of a repack: copy what these roots need of some packs.
    Copy {
        /// `applies_to`.
        roots: Sessions,
        /// The packs that are to be emptied.
        sources: Packs,
    },
    /// W5: confirm a hit and reference it.
    Hit {
        /// What was looked up.
        entry: usize,
        /// Where it is.
        pack: usize,
    },
    /// W5: whatever else there is, is new.
    NoMoreHits,
    /// W6: upload a pack, and an index of it.
    Upload {
        /// Its number.
        pack: usize,
    },
    /// Create `k/`.
    PublishRecord,
    /// W7: create the COMMIT.
    Commit,
    /// The COMMIT of W7 is applied once more (S3).
    CommitAgain,
}

use WriterAction as Do;

impl Protocol {
    pub(super) fn writer_actions(&self, state: &State, session: usize, actions: &mut Vec<WriterAction>) {
        let is_repack = self.config.is_repack(session);
        let breaks = |broken| self.config.breaks(broken);
        match state.writers[session].step {
            WriterStep::Idle => {
                let before = session - 1;
                let must_wait = before > 0
                    && state.writers[before].step == WriterStep::Idle
                    && self.config.is_repack(before) == is_repack;
                // Sessions of one kind can be exchanged: it is enough to have them start in their order.
                if !must_wait {
                    actions.push(Do::CreateIntent);
                }
            }
            step @ (WriterStep::Begun | WriterStep::Listing) => {
                if (step == WriterStep::Begun) != breaks(Broken::RecordsBeforeGenerations) {
                    actions.push(Do::ListGenerations);
                } else if !self.records_are_unreadable(state) {
                    actions.push(Do::ListRecords);
                }
            }
            WriterStep::Informed if is_repack => self.copies(state, session, actions),
            WriterStep::Informed => self.parents(state, session, actions),
            WriterStep::Deciding => self.hits(state, session, actions),
            WriterStep::Uploading => {
                let missing = self.stored_packs(state, session) - state.history.uploaded;
                actions.push(match missing.first() {
                    Some(pack) => Do::Upload { pack },
                    None if is_repack
                        && !breaks(Broken::RecordAfterDecision)
                        && !state.records.has(session) =>
                    {
                        Do::PublishRecord
                    }
                    None => Do::Commit,
                });
            }
            WriterStep::Committed => {
                if is_repack && !state.records.has(session) {
                    actions.push(Do::PublishRecord);
                }
                let history = &state.history;
                if !(history.committed_late | state.commits | state.aborts).has(session) {
                    actions.push(Do::CommitAgain);
                }
            }
            WriterStep::Refused => {}
        }
    }

    fn parents(&self, state: &State, session: usize, actions: &mut Vec<WriterAction>) {
        let parents = if self.config.breaks(Broken::ParentBeforeW2) {
            state.writers[session].early
        } else if self.config.breaks(Broken::ParentTombstoneIgnored) {
            state.commits - self.config.repacks
        } else {
            self.believed_valid(state) - self.not_built_on(state, session)
        };
        actions.push(Do::StartAnew);
        for parent in (parents - state.unreadable).iter() {
            let all = (0..PACKS).filter(|&entry| !state.tables[parent][entry].is_empty()).collect::<Set>();
            let kept = all.subsets().take(if self.config.has(World::Partial) { usize::MAX } else { 1 });
            for kept in kept {
                actions.push(Do::Inherit { parent, kept, new: true });
                if self.config.has(World::Unchanged) {
                    actions.push(Do::Inherit { parent, kept, new: false });
                }
            }
        }
    }

    /// W3: in a promoted place nothing is built on what came from elsewhere and is not whole by the records that W2 saw.
    fn not_built_on(&self, state: &State, session: usize) -> Sessions {
        let copied = self.valid(state) & state.copied.sessions;
        if copied.is_empty() || self.config.breaks(Broken::ParentSetAside) {
            return Set::EMPTY;
        } else if self.config.breaks(Broken::LateParent) {
            return state.copied.set_aside;
        }
        let is_late = self.config.breaks(Broken::ParentByLateRecords);
        let known = if is_late { self.believed_records(state) } else { state.writers[session].records };
        copied - self.whole(state, known)
    }

    /// A repack copies for all valid roots or for one of them, and any packs that can be read.
    fn copies(&self, state: &State, session: usize, actions: &mut Vec<WriterAction>) {
        let valid = self.believed_valid(state) - state.unreadable;
        let single = valid.iter().map(Set::of).filter(|&one| one != valid);
        for roots in single.chain([valid]).filter(|roots| !roots.is_empty()) {
            let known = state.writers[session].records;
            let needed = roots.iter().fold(Set::EMPTY, |packs, root| packs | self.needs(state, root, known));
            for sources in (needed & state.packs).subsets() {
                actions.push(Do::Copy { roots, sources });
            }
        }
    }

    fn hits(&self, state: &State, session: usize, actions: &mut Vec<WriterAction>) {
        actions.push(Do::NoMoreHits);
        for pack in self.hints_to_try(state, session).iter() {
            if !self.may_hit(state, session, pack) {
                continue;
            }
            for entry in state.content[pack].iter() {
                let named = state.tables[session][entry] - packs_of(Set::of(session));
                if named.is_empty()
                    && owner(entry) != session
                    && self.entry_may_be_hit(state, session, entry, pack)
                {
                    actions.push(Do::Hit { entry, pack });
                }
            }
        }
    }

    /// Packs that the index knows, of sessions whose packs may be referenced. Any aborted session stands for one of
    /// this writer's own.
    pub(super) fn hints_to_try(&self, state: &State, session: usize) -> Packs {
        let usable = if self.config.breaks(Broken::HitsOnUndecided) {
            Set::below(self.config.sessions)
        } else {
            (state.commits - state.unreadable) | state.tombstones | state.aborts
        };
        state.hints & packs_of(usable - Set::of(session))
    }

    /// Whether W5 lets a pack be referenced: it is there, not condemned, and nothing was moved from it.
    pub(super) fn may_hit(&self, state: &State, session: usize, pack: usize) -> bool {
        let writer = &state.writers[session];
        let breaks = |broken| self.config.breaks(broken);
        let there = if breaks(Broken::HitsConfirmedBeforeW2) { writer.early } else { state.packs };
        let is_confirmed = there.has(pack) || breaks(Broken::HitsUnconfirmed);
        let is_condemned = writer.condemned.has(pack) && !breaks(Broken::HitsInCondemned);
        let looks_at_moves = !breaks(Broken::HitsOnMovedPacks) && !breaks(Broken::HitsOnUnmovedEntries);
        let known = writer.records | state.links[session];
        let is_moved =
            looks_at_moves && known.iter().any(|record| !self.lead(state, record, pack).is_empty());
        is_confirmed && !is_condemned && !is_moved
    }

    /// A weaker rule than that of `may_hit`: only the entry itself must not be moved.
    fn entry_may_be_hit(&self, state: &State, session: usize, entry: usize, pack: usize) -> bool {
        let known = state.writers[session].records | state.links[session];
        !self.config.breaks(Broken::HitsOnUnmovedEntries)
            || !known.iter().any(|record| state.tables[record][entry].has(pack))
    }

    /// The packs that a session stores.
    fn stored_packs(&self, state: &State, session: usize) -> Packs {
        if !self.config.is_repack(session) {
            return state.names(session) & packs_of(Set::of(session));
        }
        let copied = (0..PACKS).filter(|&entry| !state.tables[session][entry].is_empty());
        copied.map(|entry| self.own_pack(session, entry)).collect()
    }

    pub(super) fn write(&self, state: &mut State, session: usize, action: WriterAction) {
        let breaks = |broken| self.config.breaks(broken);
        let own = Set::of(session);
        match action {
            Do::CreateIntent => {
                if breaks(Broken::HitsConfirmedBeforeW2) {
                    state.writers[session].early = state.packs;
                } else if breaks(Broken::ParentBeforeW2) {
                    state.writers[session].early = self.believed_valid(state);
                }
                if !breaks(Broken::IntentAfterW2) {
                    state.intents |= own;
                }
                state.writers[session].step = WriterStep::Begun;
            }
            Do::ListGenerations => self.list_generations(state, session),
            Do::ListRecords => {
                if !breaks(Broken::RecordsNotListed) {
                    state.writers[session].records = self.believed_records(state);
                }
                if breaks(Broken::IntentAfterW2) {
                    state.intents |= own;
                }
                advance_listing(state, session);
            }
            Do::StartAnew => self.bring_new(state, session),
            Do::Inherit { parent, kept, new } => {
                if new {
                    self.bring_new(state, session);
                }
                self.inherit(state, session, parent, kept);
                state.writers[session].step = WriterStep::Deciding;
            }
            Do::Copy { roots, sources } => self.copy(state, session, roots, sources),
            Do::Hit { entry, pack } => {
                state.tables[session][entry] = Set::of(pack);
                state.writers[session].hits += 1;
                if state.writers[session].hits == if self.config.has(World::TwoHits) { 2 } else { 1 } {
                    end_deciding(state, session);
                }
            }
            Do::NoMoreHits => end_deciding(state, session),
            Do::Upload { pack } => self.upload(state, session, pack),
            Do::PublishRecord => state.records |= own,
            Do::Commit if (state.commits | state.aborts | state.forged.aborts).has(session) => {
                state.writers[session].step = WriterStep::Refused;
            }
            Do::Commit => {
                state.commits |= own;
                state.history.reported |= own;
                state.writers[session].step = WriterStep::Committed;
            }
            Do::CommitAgain => {
                state.commits |= own;
                state.history.committed_late |= own;
            }
        }
    }

    /// W2: lists a page, or all of them, and reads what was listed after the last one.
    fn list_generations(&self, state: &mut State, session: usize) {
        let mut listed = state.writers[session].listed;
        let from = usize::from(listed.generations);
        let until = if self.config.has(World::PagedListing) { from + 1 } else { self.config.generations };
        for number in from..until {
            if state.generations[number].has_condemned {
                listed.condemned.insert(number);
            }
            if state.generations[number].has_result {
                listed.results.insert(number);
            }
            listed.generations += 1;
        }
        if until < self.config.generations {
            state.writers[session].listed = listed;
            return;
        }
        state.writers[session].condemned = self.condemned_set(state, listed);
        state.writers[session].listed = Listed::default();
        advance_listing(state, session);
    }

    fn bring_new(&self, state: &mut State, session: usize) {
        let count = if self.config.has(World::TwoPacks) { PACKS_EACH } else { 1 };
        for entry in (2 * session..).take(count) {
            state.tables[session][entry] = Set::of(entry);
        }
        state.writers[session].step = WriterStep::Deciding;
    }

    /// W4: names are kept, what leads into C is stored again, `via` lists the records that kept names pass through.
    fn inherit(&self, state: &mut State, session: usize, parent: usize, kept: Entries) {
        let breaks = |broken| self.config.breaks(broken);
        let writer = state.writers[session];
        let applying = state.applying(parent, writer.records);
        let mut via = Set::EMPTY;
        for entry in kept.iter() {
            let names = state.tables[parent][entry];
            let trail = self.follow(state, names, applying);
            let checked = if breaks(Broken::InheritedUnchecked) {
                Set::EMPTY
            } else if breaks(Broken::InheritedCheckedAsNamed) {
                names
            } else if breaks(Broken::InheritedCheckedAtEnds) {
                trail.ends
            } else {
                trail.ends | trail.kept(state.packs)
            };
            if checked.meets(writer.condemned) {
                state.tables[session][entry] = Set::of(self.own_pack(session, entry));
            } else {
                state.tables[session][entry] = names;
                via |= trail.records;
            }
        }
        state.links[session] = if breaks(Broken::NoVia) {
            Set::EMPTY
        } else if breaks(Broken::SuperfluousVia) {
            applying
        } else {
            via
        };
    }

    fn copy(&self, state: &mut State, session: usize, roots: Sessions, sources: Packs) {
        let known = state.writers[session].records;
        for root in roots.iter() {
            let applying = state.applying(root, known);
            for entry in 0..PACKS {
                let ends = self.follow(state, state.tables[root][entry], applying).ends;
                let held = ends.iter().filter(|&pack| state.content[pack].has(entry)).collect::<Set>();
                state.tables[session][entry] |= held & sources;
            }
        }
        if self.config.breaks(Broken::RecordIncomplete) {
            leave_one_out(&mut state.tables[session]);
        }
        state.links[session] = roots;
        end_deciding(state, session);
    }

    fn upload(&self, state: &mut State, session: usize, pack: usize) {
        let table = &state.tables[session];
        let held = (0..PACKS).filter(|&entry| {
            if self.config.is_repack(session) {
                !table[entry].is_empty() && self.own_pack(session, entry) == pack
            } else {
                table[entry].has(pack)
            }
        });
        state.content[pack] = held.collect();
        state.packs.insert(pack);
        state.hints.insert(pack);
        state.history.uploaded.insert(pack);
    }
}

fn advance_listing(state: &mut State, session: usize) {
    let step = &mut state.writers[session].step;
    *step = if *step == WriterStep::Begun { WriterStep::Listing } else { WriterStep::Informed };
}

/// Everything is chosen: what was known meanwhile makes no difference any more.
fn end_deciding(state: &mut State, session: usize) {
    state.writers[session] = Writer { step: WriterStep::Uploading, ..Default::default() };
}

/// Drops the last entry of a record that moves several out of one pack.
fn leave_one_out(table: &mut [Packs; PACKS]) {
    let moved = (0..PACKS).filter(|&entry| !table[entry].is_empty()).collect::<Vec<_>>();
    if let [first, .., last] = moved[..]
        && table[first].meets(table[last])
    {
        table[last] = Set::EMPTY;
    }
}
