//! A promoted replica, and what is brought back from it.

use keepstone_model::failover::{Broken, Failover};
use keepstone_model::{Search, check};

#[test]
fn nothing_is_violated_and_everything_is_seen() {
    let outcome = check(Failover { broken: None }, Search::Depth);
    assert_eq!((outcome.violations, outcome.unseen), (vec![], vec![]));
}

#[test]
fn every_broken_variant_violates_what_its_rule_is_for() {
    for broken in Broken::ALL {
        let expected = match broken {
            Broken::DeletesFollowed => Some("I7"),
            Broken::PrunedBeforeGone | Broken::ForeignResultExecuted => Some("I2: a promoted replica"),
            Broken::DecisionsCopied | Broken::ImportUnconfirmed => Some("I2: the source"),
            Broken::ParentNotWhole => Some("a backup in a promoted replica"),
            // The pruner there ends them all the same, before it deletes anything. Until then they make it wait.
            Broken::ForeignSessionsLeft => None,
        };
        let outcome = check(Failover { broken: Some(*broken) }, Search::Breadth);
        let violated = outcome.violations.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let is_as_expected = match expected {
            Some(start) => violated.iter().any(|name| name.starts_with(start)),
            None => violated.is_empty(),
        };
        assert!(is_as_expected, "{broken:?}: {:#?}", outcome.violations);
    }
}
