//! One session, lost answers, twins.

use keepstone_model::twins::{Broken, Twins};
use keepstone_model::{Search, check};

const LOSSES: u8 = 2;

#[test]
fn nothing_is_violated_and_everything_is_seen() {
    let outcome = check(Twins { losses: LOSSES, broken: None }, Search::Depth);
    assert_eq!((outcome.violations, outcome.unseen), (vec![], vec![]));
}

#[test]
fn every_broken_variant_violates_what_its_rule_is_for() {
    for broken in Broken::ALL {
        let expected: &[&str] = match broken {
            Broken::LostIsSuccess | Broken::AnyCommitIsOwn => &["I6"],
            Broken::LostIsFailure => &["a session is given up"],
            Broken::AnyPackIsOwn => &["I8"],
            Broken::AbortsRemoved | Broken::TombstonesRemoved => &["I1"],
            // Belt and braces: the name is taken for ever, whoever took it.
            Broken::UnsignedAbortsBelieved => &[],
        };
        let outcome = check(Twins { losses: LOSSES, broken: Some(*broken) }, Search::Breadth);
        let violated = outcome.violations.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let is_as_expected = if expected.is_empty() {
            violated.is_empty()
        } else {
            expected.iter().all(|start| violated.iter().any(|name| name.starts_with(start)))
        };
        assert!(is_as_expected, "{broken:?}: {:#?}", outcome.violations);
    }
}
