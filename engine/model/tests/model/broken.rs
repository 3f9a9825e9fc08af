//! Every rule of the protocol is broken once, and the counter-example is found. What has none alone is broken together
//! with the rule that makes up for it, or is found to be belt and braces.

use crate::promotion::TESTED;
use keepstone_model::core::{Broken, Config, Protocol, World};
use keepstone_model::{Search, check};
use std::collections::BTreeSet;

use Broken as B;
use World as W;

const ONE_DECISION: &str = "I1";
const NOTHING_NEEDED_IS_DELETED: &str = "I2";
const NOTHING_NEEDED_IS_LISTED: &str = "I3";
const ONLY_PUBLISHED_LISTS: &str = "I4";
const REPLICA: &str = "I7";
const READABLE: &str = "I8";

/// A protocol with some rules broken is caught, as it violates a property; with fewer of them broken it is not.
fn caught(broken: &[Broken], config: &Config, property: &str) {
    let break_all = |rules: &[Broken]| rules.iter().fold(config.clone(), |config, rule| config.broken(*rule));
    let outcome = check(Protocol::new(break_all(broken)), Search::Breadth);
    let (_, steps) = outcome
        .violations
        .iter()
        .find(|(name, _)| name.starts_with(property))
        .unwrap_or_else(|| panic!("{broken:?} does not violate {property}: {:?}", outcome.violations));
    assert!(!steps.is_empty());
    if broken.len() > 1 {
        for skipped in 0..broken.len() {
            let mut fewer = broken.to_vec();
            fewer.remove(skipped);
            not_caught(&fewer, config);
        }
    }
}

/// A protocol with some rules broken does the same good in this model.
fn not_caught(broken: &[Broken], config: &Config) {
    let config = broken.iter().fold(config.clone(), |config, rule| config.broken(*rule));
    assert_eq!(check(Protocol::new(config), Search::Depth).violations, [], "{broken:?}");
}

fn one(kinds: &str) -> Config {
    Config::new(kinds)
}

/// Writes a test for each line, and a list of the rules that are broken in any.
macro_rules! variants {
    ($($(#[$doc:meta])* $name:ident: $rules:expr, $config:expr, $property:expr;)*) => {
        $($(#[$doc])* #[test] fn $name() { caught(&$rules, &$config, $property); })*
        fn broken_here() -> Vec<Broken> {
            [$(&$rules[..]),*].concat()
        }
    };
}

variants! {
    an_intent_after_w2: [B::IntentAfterW2], one("b"), NOTHING_NEEDED_IS_LISTED;
    a_result_read_without_the_earlier_lists: [B::EarlierListsUnread],
        one("rb").generations(2).with(W::HintsForever).with(W::Worm), NOTHING_NEEDED_IS_LISTED;
    inherited_packs_that_are_not_checked: [B::InheritedUnchecked], one("b"), NOTHING_NEEDED_IS_LISTED;
    inherited_packs_that_are_checked_by_their_names: [B::InheritedCheckedAsNamed], one("rb"), NOTHING_NEEDED_IS_LISTED;
    a_root_without_via: [B::NoVia], one("rb"), NOTHING_NEEDED_IS_LISTED;
    hits_on_packs_that_were_moved: [B::HitsOnMovedPacks], one("rb").with(W::DeadEntry), READABLE;
    hits_on_what_a_record_left_in_a_pack: [B::HitsOnUnmovedEntries], one("rb").with(W::DeadEntry), READABLE;
    hits_that_are_condemned: [B::HitsInCondemned], one("b"), NOTHING_NEEDED_IS_LISTED;
    a_record_after_its_decision: [B::RecordAfterDecision], one("r"), NOTHING_NEEDED_IS_DELETED;
    records_of_undecided_sessions: [B::UndecidedRecordsCount], one("r"), NOTHING_NEEDED_IS_DELETED;
    a_record_that_leaves_an_entry_out: [B::RecordIncomplete], one("rb").with(W::DeadEntry), READABLE;
    a_record_that_is_skipped_as_its_decision_cannot_be_read: [B::UnreadableRecordSkipped],
        one("r").with(W::Unreadable), NOTHING_NEEDED_IS_DELETED;
    two_open_generations: [B::AnyGenerationOpened], one("b").generations(2), NOTHING_NEEDED_IS_LISTED;
    intents_listed_before_p3: [B::IntentsBeforeP3], one("b"), NOTHING_NEEDED_IS_LISTED;
    a_list_of_an_earlier_generation: [B::AwaitedOfTheLast],
        one("bb").generations(2).candidates(1), NOTHING_NEEDED_IS_LISTED;
    not_waiting: [B::NobodyWaitedFor], one("b"), NOTHING_NEEDED_IS_LISTED;
    not_marking_again: [B::NotMarkedAgain], one("b"), NOTHING_NEEDED_IS_DELETED;
    marking_with_old_records: [B::MarkedWithOldRecords], one("r"), NOTHING_NEEDED_IS_DELETED;
    a_root_that_is_skipped_as_it_cannot_be_read: [B::UnreadableRootSkipped],
        one("b").with(W::Unreadable), NOTHING_NEEDED_IS_LISTED;
    a_root_of_the_roster_that_is_not_missed: [B::RosterUnchecked],
        one("b").generations(2).with(W::LyingList), NOTHING_NEEDED_IS_LISTED;
    a_result_that_forgets_the_earlier_lists: [B::EarlierListsForgotten],
        one("rb").generations(2).with(W::HintsForever).with(W::Worm), NOTHING_NEEDED_IS_LISTED;
    deleting_ones_own_list: [B::OwnListDeleted], one("b").pruners(2), ONLY_PUBLISHED_LISTS;
    deleting_before_the_replica_has_the_copies: [B::NoBarrier], one("r").with(W::Replica), REPLICA;
    deleting_before_the_replica_has_the_record: [B::BarrierWithoutRecord], one("r").with(W::Replica), REPLICA;
    deleting_before_the_replica_has_the_packs: [B::BarrierWithoutPacks], one("r").with(W::Replica), REPLICA;
    a_barrier_that_asks_only_for_records_that_lead_from_the_pack_itself: [B::BarrierOneStep],
        one("rr").with(W::Replica), REPLICA;
    a_barrier_that_asks_for_valid_roots_only: [B::BarrierForValidRoots],
        one("rb").with(W::Replica).candidates(1), REPLICA;
    sealed_lists_that_are_void: [B::SealedListsVoid],
        one("b").generations(2).with(W::HintsForever).with(W::Worm), NOTHING_NEEDED_IS_LISTED;
    lists_that_are_removed: [B::ListsRemoved], one("b").pruners(2), NOTHING_NEEDED_IS_LISTED;
    tombstones_that_are_removed: [B::TombstonesRemoved], one("b"), ONE_DECISION;
    aborts_that_are_removed: [B::AbortsRemoved], one("b"), ONE_DECISION;
    unsigned_tombstones: [B::UnsignedTombstonesBelieved], one("b").with(W::Hostile), NOTHING_NEEDED_IS_LISTED;
    unsigned_lists_of_whom_to_wait_for: [B::UnsignedAwaitedBelieved],
        one("b").with(W::Hostile), NOTHING_NEEDED_IS_LISTED;
    unsigned_results: [B::UnsignedResultsBelieved], one("b").with(W::Hostile), NOTHING_NEEDED_IS_DELETED;
    unsigned_records: [B::UnsignedRecordsBelieved], one("b").with(W::Hostile), NOTHING_NEEDED_IS_LISTED;

    // Two that make up for each other.
    not_waiting_for_repacks_nor_sparing_what_they_store: [B::RepacksNotWaitedFor, B::UndecidedCandidates],
        one("r"), NOTHING_NEEDED_IS_DELETED;
    superfluous_via_and_hits_on_what_it_names: [B::SuperfluousVia, B::HitsOnMovedPacks],
        one("rb"), NOTHING_NEEDED_IS_LISTED;

    // What the lists of sealed generations make up for, as long as they are in C.
    records_before_generations: [B::RecordsBeforeGenerations, B::SealedListsVoid], one("rb"), NOTHING_NEEDED_IS_DELETED;
    records_not_listed: [B::RecordsNotListed, B::SealedListsVoid], one("rb"), NOTHING_NEEDED_IS_DELETED;
    a_parent_chosen_before_w2: [B::ParentBeforeW2, B::SealedListsVoid], one("b"), NOTHING_NEEDED_IS_DELETED;
    a_parent_that_is_forgotten: [B::ParentTombstoneIgnored, B::SealedListsVoid], one("b"), NOTHING_NEEDED_IS_DELETED;
    hits_that_are_not_confirmed: [B::HitsUnconfirmed, B::SealedListsVoid],
        one("b").with(W::HintsForever), NOTHING_NEEDED_IS_DELETED;
    hits_confirmed_before_w2: [B::HitsConfirmedBeforeW2, B::SealedListsVoid],
        one("b").with(W::HintsForever), NOTHING_NEEDED_IS_DELETED;
    an_index_that_is_cleaned_after_the_seal: [B::SealedBeforeIndex, B::HitsUnconfirmed, B::SealedListsVoid],
        one("b"), NOTHING_NEEDED_IS_DELETED;
}

/// Rules without which nothing happens in the models that were tried, alone or with the lists of sealed generations void.
const BELT_AND_BRACES: [Broken; 4] =
    [B::HitsOnUndecided, B::SealedUnchecked, B::BarrierPassesDeadEnds, B::UnsignedCondemnedBelieved];

#[test]
fn some_rules_are_belt_and_braces() {
    not_caught(&[B::HitsOnUndecided], &one("bb").with(W::AbortAny));
    not_caught(&[B::HitsOnUndecided, B::SealedListsVoid], &one("bb"));
    not_caught(&[B::SealedUnchecked], &one("b").pruners(2).generations(2));
    not_caught(&[B::SealedUnchecked, B::SealedListsVoid], &one("b").pruners(2));
    not_caught(&[B::BarrierPassesDeadEnds], &one("rr").with(W::Replica).candidates(2));
    not_caught(&[B::UnsignedCondemnedBelieved], &one("rb").with(W::Hostile).candidates(1));
}

#[test]
fn every_broken_variant_has_its_test() {
    let tested =
        broken_here().into_iter().chain(BELT_AND_BRACES).chain(TESTED).map(|rule| format!("{rule:?}"));
    let all = Broken::ALL.iter().map(|rule| format!("{rule:?}"));
    assert_eq!(tested.collect::<BTreeSet<_>>(), all.collect());
}
