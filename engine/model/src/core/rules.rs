//! The protocol's rules that can be broken, one by one, to see that each is needed.

/// A broken variant of the protocol, named by what is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// W1: the intent is created only after W2.
    IntentAfterW2,
    /// W2: `k/` is listed before `gc/`.
    RecordsBeforeGenerations,
    /// W2: `k/` is not listed; the parent's own `via` is all that is known.
    RecordsNotListed,
    /// W2: a result is read without the earlier lists that it stands for.
    EarlierListsUnread,
    /// W3: the parent is chosen, and seen without a tombstone, before W2.
    ParentBeforeW2,
    /// W3: the parent's tombstone is not looked at.
    ParentTombstoneIgnored,
    /// W3: in a promoted place it is a root that was set aside.
    ParentSetAside,
    /// W3: in a promoted place it is a root that arrived after the promotion, and is not whole.
    LateParent,
    /// W3: in a promoted place it is a root that is whole by records only that W2 did not see.
    ParentByLateRecords,
    /// W4: inherited packs are not checked against C.
    InheritedUnchecked,
    /// W4: C is checked for the packs as they are named, not where the records lead.
    InheritedCheckedAsNamed,
    /// W4: C is checked only where the records lead, also if that is not there.
    InheritedCheckedAtEnds,
    /// W4: the new root has no `via`.
    NoVia,
    /// W4: `via` lists records too that nothing inherited passes through.
    SuperfluousVia,
    /// W5: a pack that a known record moves is hit.
    HitsOnMovedPacks,
    /// W5: of a pack that a known record moves, an entry is hit that the record does not move.
    HitsOnUnmovedEntries,
    /// W5: that a pack is there is not confirmed.
    HitsUnconfirmed,
    /// W5: it is confirmed before W2, not after it.
    HitsConfirmedBeforeW2,
    /// W5: hits are not checked against C.
    HitsInCondemned,
    /// W5: packs of undecided sessions are referenced.
    HitsOnUndecided,
    /// Repack: the record is published after the decision.
    RecordAfterDecision,
    /// Repack: records of undecided sessions count.
    UndecidedRecordsCount,
    /// Repack: an entry that a root in `applies_to` names is left out of the new packs.
    RecordIncomplete,
    /// A record whose decision cannot be read counts as none.
    UnreadableRecordSkipped,
    /// P0: any generation that is not sealed may be opened.
    AnyGenerationOpened,
    /// P2: packs of undecided sessions are candidates.
    UndecidedCandidates,
    /// P3, P7: whether the generation is sealed is not looked at after the create.
    SealedUnchecked,
    /// P4: intents are listed before `condemned` is published.
    IntentsBeforeP3,
    /// P4: where a generation has no list of whom it waits for, the one of the generation before is taken.
    AwaitedOfTheLast,
    /// P5: nobody is waited for.
    NobodyWaitedFor,
    /// P5: repack sessions are not waited for.
    RepacksNotWaitedFor,
    /// P6: nothing is marked again.
    NotMarkedAgain,
    /// P6: it is marked again with the records that P1 knew.
    MarkedWithOldRecords,
    /// P6: what is on the way to a pack that is not there is not kept.
    WayNotKept,
    /// P6: a root that cannot be read is passed over.
    UnreadableRootSkipped,
    /// P6: a root of the last roster that is not listed is taken for gone.
    RosterUnchecked,
    /// P7: a result is published without the lists of earlier generations that it stands for.
    EarlierListsForgotten,
    /// P8: the pruner's own list is deleted, not the published one.
    OwnListDeleted,
    /// P8: packs are deleted and the generation sealed before the index is clean.
    SealedBeforeIndex,
    /// P8: a repacked pack is deleted before the replica has copies and record.
    NoBarrier,
    /// P8: the replica must have the copies, not the record.
    BarrierWithoutRecord,
    /// P8: the replica must have the record, not the copies.
    BarrierWithoutPacks,
    /// P8: the barrier looks only at records that valid roots come through.
    BarrierForValidRoots,
    /// P8: the barrier looks only at records that lead from the pack itself.
    BarrierOneStep,
    /// P8: the barrier does not look at records that lead to a pack in a delete list.
    BarrierPassesDeadEnds,
    /// The lists of sealed generations are void.
    SealedListsVoid,
    /// `gc/` is emptied when a generation is sealed.
    ListsRemoved,
    /// The tombstone is removed with the root.
    TombstonesRemoved,
    /// ABORTs are removed.
    AbortsRemoved,
    /// Tombstones need no signature.
    UnsignedTombstonesBelieved,
    /// `condemned` needs no signature.
    UnsignedCondemnedBelieved,
    /// `awaited` needs no signature.
    UnsignedAwaitedBelieved,
    /// `result` needs no signature.
    UnsignedResultsBelieved,
    /// Repack records need no signature.
    UnsignedRecordsBelieved,
}

impl Broken {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::IntentAfterW2,
        Self::RecordsBeforeGenerations,
        Self::RecordsNotListed,
        Self::EarlierListsUnread,
        Self::ParentBeforeW2,
        Self::ParentTombstoneIgnored,
        Self::ParentSetAside,
        Self::LateParent,
        Self::ParentByLateRecords,
        Self::InheritedUnchecked,
        Self::InheritedCheckedAsNamed,
        Self::InheritedCheckedAtEnds,
        Self::NoVia,
        Self::SuperfluousVia,
        Self::HitsOnMovedPacks,
        Self::HitsOnUnmovedEntries,
        Self::HitsUnconfirmed,
        Self::HitsConfirmedBeforeW2,
        Self::HitsInCondemned,
        Self::HitsOnUndecided,
        Self::RecordAfterDecision,
        Self::UndecidedRecordsCount,
        Self::RecordIncomplete,
        Self::UnreadableRecordSkipped,
        Self::AnyGenerationOpened,
        Self::UndecidedCandidates,
        Self::SealedUnchecked,
        Self::IntentsBeforeP3,
        Self::AwaitedOfTheLast,
        Self::NobodyWaitedFor,
        Self::RepacksNotWaitedFor,
        Self::NotMarkedAgain,
        Self::MarkedWithOldRecords,
        Self::WayNotKept,
        Self::UnreadableRootSkipped,
        Self::RosterUnchecked,
        Self::EarlierListsForgotten,
        Self::OwnListDeleted,
        Self::SealedBeforeIndex,
        Self::NoBarrier,
        Self::BarrierWithoutRecord,
        Self::BarrierWithoutPacks,
        Self::BarrierForValidRoots,
        Self::BarrierOneStep,
        Self::BarrierPassesDeadEnds,
        Self::SealedListsVoid,
        Self::ListsRemoved,
        Self::TombstonesRemoved,
        Self::AbortsRemoved,
        Self::UnsignedTombstonesBelieved,
        Self::UnsignedCondemnedBelieved,
        Self::UnsignedAwaitedBelieved,
        Self::UnsignedResultsBelieved,
        Self::UnsignedRecordsBelieved,
    ];
}
