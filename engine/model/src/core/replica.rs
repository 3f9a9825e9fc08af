//! The replica, and the barrier that prune waits at for it.

use super::Protocol;
use super::rules::Broken;
use super::state::State;
use crate::set::{Packs, Sessions, Set};

/// What arrives at the replica, each on its own and in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaAction {
    /// A pack, though it may be deleted in the source by now.
    PackArrives {
        /// Its number.
        pack: usize,
    },
    /// The delete of a pack.
    DeleteArrives {
        /// The pack's number.
        pack: usize,
    },
    /// A decision that is a COMMIT, or REPACK.
    DecisionArrives {
        /// The session.
        session: usize,
    },
    /// A repack record.
    RecordArrives {
        /// The session.
        session: usize,
    },
}

use ReplicaAction as Do;

impl Protocol {
    pub(super) fn replica_actions(state: &State, actions: &mut Vec<ReplicaAction>) {
        let replica = &state.replica;
        let arriving = state.history.uploaded - replica.packs;
        actions.extend(arriving.iter().map(|pack| Do::PackArrives { pack }));
        let going = replica.packs - replica.gone - state.packs;
        actions.extend(going.iter().map(|pack| Do::DeleteArrives { pack }));
        let decisions = state.commits - replica.commits;
        actions.extend(decisions.iter().map(|session| Do::DecisionArrives { session }));
        let records = state.records - replica.records;
        actions.extend(records.iter().map(|session| Do::RecordArrives { session }));
    }

    pub(super) fn replicate(state: &mut State, action: ReplicaAction) {
        match action {
            Do::PackArrives { pack } => state.replica.packs.insert(pack),
            Do::DeleteArrives { pack } => state.replica.gone.insert(pack),
            Do::DecisionArrives { session } => state.replica.commits.insert(session),
            Do::RecordArrives { session } => state.replica.records.insert(session),
        }
    }

    /// Roots for which everything is at the replica that they need, by what is there alone.
    pub(super) fn complete(&self, state: &State) -> Sessions {
        let replica = &state.replica;
        let roots = replica.commits - self.config.repacks;
        roots.iter().filter(|&root| self.is_complete(state, root)).collect()
    }

    fn is_complete(&self, state: &State, root: usize) -> bool {
        let replica = &state.replica;
        let known = replica.records & replica.commits;
        let records = state.applying(root, known) & known;
        let present = replica.packs - replica.gone;
        state.names(root).iter().all(|pack| self.is_available(state, pack, records, present))
    }

    /// Whether what a name stands for is there: the pack itself, or all packs that one of the records leads to.
    fn is_available(&self, state: &State, pack: usize, records: Sessions, present: Packs) -> bool {
        present.has(pack)
            || records.iter().any(|record| {
                let lead = self.lead(state, record, pack);
                !lead.is_empty() && lead.iter().all(|new| self.is_available(state, new, records, present))
            })
    }

    /// P8's barrier: what was moved out of the packs on the list must be at the replica, with the records that say so.
    ///
    /// It asks for every record that moves a pack of the list, also if no valid root goes that way now: a session that
    /// began after P3 may have inherited the pack's name from a root that is forgotten meanwhile. It does not ask where
    /// the record leads to a pack that is in a delete list too: whoever inherits sees that one in C.
    pub(super) fn barrier_holds(&self, state: &State, list: Packs) -> bool {
        if self.config.breaks(Broken::NoBarrier) {
            return true;
        }
        let deletes = state.published_deletes();
        let replica = &state.replica;
        let known = replica.records & replica.commits;
        let lasting = replica.packs - replica.gone - deletes;
        if self.config.breaks(Broken::BarrierForValidRoots) {
            return self.valid_roots_pass(state, list, lasting);
        }
        let live = self.believed_records(state);
        let moves = list.iter().flat_map(|pack| live.iter().map(move |record| (pack, record)));
        moves.into_iter().all(|(pack, record)| {
            let lead = self.lead(state, record, pack);
            let leads_nowhere = lead.is_empty() || self.follow(state, lead, live).ends.meets(deletes);
            if leads_nowhere {
                return true;
            }
            if self.config.breaks(Broken::BarrierWithoutRecord) {
                return lead.is_within(replica.packs);
            }
            known.has(record) && lead.iter().all(|new| self.is_available(state, new, known, lasting))
        })
    }

    /// A weaker barrier: each valid root that comes through a pack of the list finds its way at the replica.
    fn valid_roots_pass(&self, state: &State, list: Packs, lasting: Packs) -> bool {
        let live = self.believed_records(state);
        let known = state.replica.records & state.replica.commits;
        self.believed_valid(state).iter().all(|root| {
            let applying = state.applying(root, live);
            let passed = self.follow(state, state.names(root), applying).packs & list;
            passed.iter().all(|pack| self.is_available(state, pack, applying & known, lasting))
        })
    }

    /// Remembers which roots are complete, as they have to stay so.
    pub(super) fn remember_complete(&self, state: &mut State) {
        let complete = self.complete(state);
        state.replica.was_complete |= complete;
    }

    /// Roots that are not forgotten and were complete at the replica, and are not any more.
    pub(super) fn worse(&self, state: &State) -> Sessions {
        let kept = state.replica.was_complete - state.tombstones;
        if kept.is_empty() { Set::EMPTY } else { kept - self.complete(state) }
    }
}
