//! A promoted replica of which a part has arrived, with repacks on both sides.

use keepstone_model::core::{Broken, Config, Promotion};
use keepstone_model::{Search, check, runs};
use std::collections::BTreeSet;

/// Rules that only a promoted place needs.
pub(crate) const TESTED: [Broken; 5] = [
    Broken::WayNotKept,
    Broken::InheritedCheckedAtEnds,
    Broken::ParentSetAside,
    Broken::LateParent,
    Broken::ParentByLateRecords,
];

#[test]
fn nothing_is_violated_in_any_small_model_and_everything_is_seen_in_one() {
    let (mut seen, mut unseen) = (BTreeSet::new(), BTreeSet::new());
    for run in runs::small_promotions() {
        let name = run.name;
        let outcome = run.check();
        assert_eq!(outcome.violations, [], "in the model of {name}");
        seen.extend(outcome.seen);
        unseen.extend(outcome.unseen);
    }
    assert_eq!(unseen.difference(&seen).collect::<Vec<_>>(), Vec::<&&str>::new());
}

fn caught(promotion: Promotion, property: &str) {
    let violations = check(promotion, Search::Breadth).violations;
    assert!(violations.iter().any(|(name, _)| name.starts_with(property)), "{violations:#?}");
}

const WHOLE_STAYS_WHOLE: &str = "I2";
const NOTHING_NEEDED_IS_LISTED: &str = "I3";
const BACKUPS_ARE_WHOLE: &str = "a backup in a promoted place";

#[test]
fn what_a_record_moved_and_is_not_kept_until_it_is_there_where_it_went() {
    let broken = |size: Config| size.broken(Broken::WayNotKept);
    caught(Promotion::new("r", "", broken), WHOLE_STAYS_WHOLE);
}

#[test]
fn inherited_packs_that_are_checked_only_where_records_lead() {
    let broken = |size: Config| size.broken(Broken::InheritedCheckedAtEnds);
    caught(Promotion::new("r", "b", broken), NOTHING_NEEDED_IS_LISTED);
}

#[test]
fn a_parent_that_was_set_aside() {
    caught(Promotion::new("", "b", |size| size.broken(Broken::ParentSetAside)), BACKUPS_ARE_WHOLE);
}

#[test]
fn a_parent_that_arrived_late_and_is_not_whole() {
    caught(Promotion::new("", "b", |size| size.broken(Broken::LateParent)).late(), BACKUPS_ARE_WHOLE);
}

#[test]
fn a_parent_that_is_whole_by_a_record_that_was_not_listed() {
    let broken = |size: Config| size.broken(Broken::ParentByLateRecords);
    caught(Promotion::new("r", "b", broken).late(), BACKUPS_ARE_WHOLE);
}
