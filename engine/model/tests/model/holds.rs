//! The protocol as written, in small models that are visited whole.

use keepstone_model::core::Protocol;
use keepstone_model::runs;
use std::collections::BTreeSet;

#[test]
fn nothing_is_violated_in_any_small_model_and_everything_that_matters_is_seen_in_one() {
    let mut seen = BTreeSet::new();
    for run in runs::small() {
        let name = run.name;
        let outcome = run.check();
        assert_eq!(outcome.violations, [], "in the model of {name}");
        seen.extend(outcome.seen);
    }
    assert_eq!(seen, Protocol::sights().iter().copied().collect());
}
