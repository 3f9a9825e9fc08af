//! Runs a model, and says what came of it.

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path, Property};
use std::fmt::Debug;
use std::hash::Hash;

/// In which order states are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The nearest first: counter-examples are short, memory is 20 to 100 bytes for each state.
    Breadth,
    /// The farthest first: 10 to 20 bytes for each state.
    Depth,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Different states.
    pub states: usize,
    /// Transitions, with those into states that were seen before.
    pub transitions: usize,
    /// The longest way that was gone, in steps.
    pub depth: usize,
    /// Properties that must always hold and do not, each with the steps to where it does not.
    pub violations: Vec<(&'static str, Vec<String>)>,
    /// What was seen of what has to be seen.
    pub seen: Vec<&'static str>,
    /// What was not.
    pub unseen: Vec<&'static str>,
}

/// Visits all states of a model, or as many as it takes to find a violation.
///
/// Seen states are kept as fingerprints of 64 bits: with 10^8 states, one of them is taken for another with a
/// probability of 1 in 4000.
pub fn check<M>(model: M, search: Search) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Debug,
{
    let builder = model.checker().finish_when(HasDiscoveries::AnyFailures);
    match search {
        Search::Breadth => outcome(&builder.spawn_bfs().join()),
        Search::Depth => outcome(&builder.spawn_dfs().join()),
    }
}

fn outcome<M>(checker: &impl Checker<M>) -> Outcome
where
    M: Model,
    M::State: Hash + Clone + PartialEq,
    M::Action: Clone + PartialEq + Debug,
{
    let discoveries = checker.discoveries();
    let mut outcome = Outcome {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        violations: Vec::new(),
        seen: Vec::new(),
        unseen: Vec::new(),
    };
    // A model may leave out what it has seen.
    let missing = checker.model().properties();
    for (name, path) in &discoveries {
        let expects =
            |property: &Property<M>| property.name == *name && property.expectation == Expectation::Always;
        if missing.iter().any(expects) {
            outcome.violations.push((name, steps(path)));
        } else {
            outcome.seen.push(name);
        }
    }
    let unseen = missing.iter().filter(|property| {
        property.expectation == Expectation::Sometimes && !discoveries.contains_key(property.name)
    });
    outcome.unseen.extend(unseen.map(|property| property.name));
    outcome.violations.sort();
    outcome.seen.sort_unstable();
    outcome
}

fn steps<S: Clone + PartialEq, A: Clone + PartialEq + Debug>(path: &Path<S, A>) -> Vec<String> {
    path.clone().into_actions().iter().map(|action| format!("{action:?}")).collect()
}
