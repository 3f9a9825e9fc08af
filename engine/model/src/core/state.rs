//! What the store holds, and how far everybody is.

use crate::set::{Entries, Packs, Sessions, Set};

/// The most sessions, the one that is there from the start included.
pub(crate) const SESSIONS: usize = 5;
/// The most packs of a session. Pack `j` of session `i` has the number `2 * i + j`, whoever has only one has `j = 0`.
pub(crate) const PACKS_EACH: usize = 2;
/// The most packs; and entries, as each pack of a backup brings one that is new, of the same number.
pub(crate) const PACKS: usize = SESSIONS * PACKS_EACH;
/// The most pruners.
pub(crate) const PRUNERS: usize = 2;
/// The most generations.
pub(crate) const GENERATIONS: usize = 3;

/// Everything: the store, the memory of writers and pruners, and what properties need of history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Sessions with an intent.
    pub(crate) intents: Sessions,
    /// Sessions whose decision is there and is a COMMIT, or REPACK.
    pub(crate) commits: Sessions,
    /// Sessions whose decision is there and is an ABORT.
    pub(crate) aborts: Sessions,
    /// Sessions with a tombstone.
    pub(crate) tombstones: Sessions,
    /// Sessions whose repack record is there.
    pub(crate) records: Sessions,
    /// Decisions that cannot be read now.
    pub(crate) unreadable: Sessions,
    /// Packs that are there.
    pub(crate) packs: Packs,
    /// Packs that index blobs list.
    pub(crate) hints: Packs,
    /// What each pack holds that was ever created.
    pub(crate) content: [Entries; PACKS],
    /// For a backup, the pack that its root names for each entry; for a repack, the packs that its record moves each
    /// entry from.
    pub(crate) tables: [[Packs; PACKS]; SESSIONS],
    /// A root's `via`, or a record's `applies_to`.
    pub(crate) links: [Sessions; SESSIONS],
    pub(crate) generations: [Generation; GENERATIONS],
    pub(crate) copied: Copied,
    pub(crate) forged: Forged,
    pub(crate) writers: [Writer; SESSIONS],
    pub(crate) pruners: [Pruner; PRUNERS],
    pub(crate) replica: Replica,
    pub(crate) history: History,
}

/// What a promoted place has from the one that it was copied from. Nothing, where the repository was always written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Copied {
    /// The sessions of the other place.
    pub(crate) sessions: Sessions,
    /// Roots that were not whole when the place was promoted.
    pub(crate) set_aside: Sessions,
    /// What the other place condemned or deletes, as far as that arrived.
    pub(crate) condemned: Packs,
}

/// The objects of one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Generation {
    pub(crate) has_condemned: bool,
    pub(crate) has_result: bool,
    pub(crate) is_sealed: bool,
    pub(crate) condemned: Packs,
    /// `awaited`: whom it waits for; not there if empty.
    pub(crate) awaited: Sessions,
    /// `result.delete`.
    pub(crate) delete: Packs,
    /// `result.earlier`: what the generations before deleted that this result stands for.
    pub(crate) earlier: Packs,
    /// The roster of the seal.
    pub(crate) roster: Sessions,
}

/// Objects that should be signed and are not. Each takes its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Forged {
    pub(crate) tombstones: Sessions,
    pub(crate) aborts: Sessions,
    /// Records that say of all packs of session 0 that they moved to a pack of the session in whose name they are.
    pub(crate) records: Sessions,
    /// Generations: lists of all packs.
    pub(crate) condemned: Set,
    /// Generations: lists of nobody who is undecided.
    pub(crate) awaited: Set,
    /// Generations: lists of all packs.
    pub(crate) results: Set,
}

/// How far a session is, by its own knowledge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum WriterStep {
    #[default]
    Idle,
    /// W1 is done.
    Begun,
    /// Half of W2 is done.
    Listing,
    /// W2 is done.
    Informed,
    /// W4 is done: hits may be taken.
    Deciding,
    /// W5 is done: everything is chosen.
    Uploading,
    /// Reported success.
    Committed,
    /// Found an ABORT in the place of its decision.
    Refused,
}

/// The generations of which a listing showed these objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Listed {
    pub(crate) condemned: Set,
    pub(crate) results: Set,
    /// How many generations it went through.
    pub(crate) generations: u8,
}

/// A writer, or a repack session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) step: WriterStep,
    /// C, as W2 saw it.
    pub(crate) condemned: Packs,
    /// What W2's listing of `gc/` showed so far.
    pub(crate) listed: Listed,
    /// The records that W2 saw.
    pub(crate) records: Sessions,
    /// What a broken variant looked at too early: packs that were there, or roots that were valid.
    pub(crate) early: Set,
    /// Entries taken from hits.
    pub(crate) hits: u8,
}

/// How far a pruner is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PrunerStep {
    #[default]
    Idle,
    /// P1 listed `k/` (only where a broken variant keeps that).
    Marked,
    /// P2 is done.
    Chosen,
    /// P3 is done.
    Condemned,
    /// P4 has listed the intents.
    Listed,
    /// P4 is done.
    Waiting,
    /// P5 is done.
    Records,
    /// P6 has listed `k/` and goes through the roots.
    Roots,
    /// P6 is done.
    Marking,
    /// P7 is done.
    Published,
    /// P8 has read the index.
    Compacting,
    /// The new index is there, the old ones are not.
    Deleting,
}

/// A pruner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pruner {
    pub(crate) step: PrunerStep,
    pub(crate) generation: u8,
    /// The next session that a listing comes to.
    pub(crate) next: u8,
    /// Sessions that P4 saw, undecided.
    pub(crate) open: Sessions,
    /// Candidates, then what is left of them, then what is left to delete.
    pub(crate) list: Packs,
    /// Records that P6 listed.
    pub(crate) records: Sessions,
    /// What P8 read of the index.
    pub(crate) index: Packs,
}

/// The replica: what arrived, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Replica {
    pub(crate) packs: Packs,
    /// Packs that arrived and whose delete arrived after.
    pub(crate) gone: Packs,
    pub(crate) commits: Sessions,
    pub(crate) records: Sessions,
    /// Roots that were complete once.
    pub(crate) was_complete: Sessions,
}

/// What the store no longer shows, for the properties and to bound the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    pub(crate) reported: Sessions,
    pub(crate) aborted: Sessions,
    pub(crate) forgotten: Sessions,
    pub(crate) uploaded: Packs,
    pub(crate) uploaded_late: Packs,
    pub(crate) committed_late: Sessions,
    /// A pack was deleted that no published list has.
    pub(crate) deleted_unlisted: bool,
    pub(crate) forgets: u8,
    pub(crate) harms: u8,
}
