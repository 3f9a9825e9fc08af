//! The replica, and the barrier that prune waits at for it.

use super::Protocol;
use super::config::World;
use super::records::packs_of;
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

    /// Valid roots for which everything is there that they need, by what is there and as far as these records are known.
    pub(super) fn whole(&self, state: &State, known: Sessions) -> Sessions {
        let is_whole = |root: &usize| {
            let records = state.applying(*root, known) & known;
            state.names(*root).iter().all(|pack| self.is_available(state, pack, records, state.packs))
        };
        self.valid(state).iter().filter(is_whole).collect()
    }

    /// Whether what a name stands for is there: the pack itself, or all packs that one of the records leads to.
    fn is_available(&self, state: &State, pack: usize, records: Sessions, present: Packs) -> bool {
        present.has(pack)
            || records.iter().any(|record| {
                let lead = self.lead(state, record, pack);
                !lead.is_empty() && lead.iter().all(|new| self.is_available(state, new, records, present))
            })
    }

    /// P8's barrier: those of some packs on the list that the replica holds up, as a record leads from them, or from where
    /// they lead, that is not confirmed there.
    ///
    /// It asks for every record, also if no valid root goes that way now: a session that began after P3 may have inherited
    /// the pack's name from a root that is forgotten meanwhile.
    pub(super) fn held(&self, state: &State, list: Packs) -> Packs {
        let breaks = |broken| self.config.breaks(broken);
        if !self.config.has(World::Replica) || breaks(Broken::NoBarrier) {
            return Set::EMPTY;
        }
        let live = self.believed_records(state);
        let unconfirmed =
            live.iter().filter(|&record| !self.is_confirmed(state, record)).collect::<Sessions>();
        if breaks(Broken::BarrierForValidRoots) {
            return self.held_by_valid_roots(state, list, unconfirmed);
        }
        let is_held = |pack: &usize| {
            if breaks(Broken::BarrierOneStep) {
                return unconfirmed.iter().any(|record| !self.lead(state, record, *pack).is_empty());
            }
            if breaks(Broken::BarrierPassesDeadEnds) {
                return self.is_held_but_for_dead_ends(state, *pack, unconfirmed);
            }
            self.follow(state, Set::of(*pack), live).records.meets(unconfirmed)
        };
        list.iter().filter(is_held).collect()
    }

    /// Whether a repack session could be confirmed: its record is at the replica, its decision, and those of its packs that
    /// are in no delete list. What could be confirmed once can be ever after, as only what is listed is deleted; so it
    /// makes no difference when that was told.
    fn is_confirmed(&self, state: &State, record: usize) -> bool {
        let replica = &state.replica;
        let has_record = (replica.records & replica.commits).has(record);
        let lasting = (packs_of(Set::of(record)) & state.history.uploaded) - state.published_deletes();
        (has_record || self.config.breaks(Broken::BarrierWithoutRecord))
            && (lasting.is_within(replica.packs - replica.gone)
                || self.config.breaks(Broken::BarrierWithoutPacks))
    }

    /// A weaker barrier: not the records from where all ends in a delete list.
    fn is_held_but_for_dead_ends(&self, state: &State, pack: usize, unconfirmed: Sessions) -> bool {
        let live = self.believed_records(state);
        live.iter().any(|record| {
            let trail = self.follow(state, self.lead(state, record, pack), live);
            let leads_on = !trail.packs.is_empty() && !trail.ends.meets(state.published_deletes());
            leads_on && (trail.records | Set::of(record)).meets(unconfirmed)
        })
    }

    /// A weaker barrier: only records that valid roots come through to packs of the list or from them.
    fn held_by_valid_roots(&self, state: &State, list: Packs, unconfirmed: Sessions) -> Packs {
        let live = self.believed_records(state);
        let held = self.believed_valid(state).iter().map(|root| {
            let applying = state.applying(root, live);
            let trail = self.follow(state, state.names(root), applying);
            if trail.records.meets(unconfirmed) { trail.packs & list } else { Set::EMPTY }
        });
        held.fold(Set::EMPTY, |packs, held| packs | held)
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
