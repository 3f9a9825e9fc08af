//! For every call of every backup of a sequence, and every way in which it can fail: the rest of the sequence works.

use crate::history::{Run, TAIL, checked, new_repository, steps};
use keepstone_engine::store::{Fault, FaultStore, LateCall, MemoryStore};
use std::collections::{BTreeMap, BTreeSet};

/// When a request that was reported as failed is applied after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    /// After the next backup of another VM.
    AfterOtherVm,
    /// While the next backup of the same VM runs: after so many of its calls.
    During(u64),
    /// After the next backup of the same VM.
    AfterSameVm,
    AtTheEnd,
}

const LATE: [When; 6] = [
    When::AfterOtherVm,
    When::During(8),
    When::During(16),
    When::During(24),
    When::AfterSameVm,
    When::AtTheEnd,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    /// Tells its kind in counts.
    kind: &'static str,
    fault: Fault,
    when: Option<When>,
}

const FALLBACK: Failure = Failure { kind: "not applied, crash", fault: Fault::CrashBefore, when: None };

fn failures() -> Vec<Failure> {
    let never = Fault::AppliedLater { further: u64::MAX };
    let mut failures: Vec<Failure> = [
        ("not applied", Fault::NotApplied),
        (FALLBACK.kind, FALLBACK.fault),
        ("applied, crash", Fault::CrashAfter),
        ("applied, reported failed", Fault::AnswerLost),
        ("applied, reported failed", Fault::AppliedLater { further: 0 }),
        ("applied later", Fault::AppliedLater { further: 1 }),
        ("applied later", Fault::AppliedLater { further: 3 }),
    ]
    .map(|(kind, fault)| Failure { kind, fault, when: None })
    .into();
    for when in LATE {
        failures.push(Failure { kind: "applied later", fault: never, when: Some(when) });
        failures.push(Failure { kind: "applied later, crash", fault: Fault::CrashDuring, when: Some(when) });
    }
    failures
}

/// Runs the rest of the sequence; what is late is applied when it is time.
fn go_on(
    store: &MemoryStore,
    from: usize,
    late: Option<(When, LateCall)>,
) -> BTreeSet<repo_format::SessionId> {
    let vm = steps()[from - 1].vm;
    let mut late = late;
    let mut reported = BTreeSet::new();
    for step in from..steps().len() {
        let is_same = steps()[step].vm == vm;
        let report = match late.take() {
            Some((When::During(call), request)) if is_same => {
                Run::of(step).run(&FaultStore::with_late(store, call, request))
            }
            waits => {
                late = waits;
                Run::of(step).run(store)
            }
        };
        reported.insert(report.unwrap().snapshot);
        let due = if is_same { When::AfterSameVm } else { When::AfterOtherVm };
        if let Some((_, request)) = late.take_if(|(when, _)| *when == due) {
            request.apply(store).unwrap();
        }
    }
    if let Some((_, request)) = late {
        request.apply(store).unwrap();
    }
    reported
}

/// What became of a state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// There is none: the step was over before that call, or the call changes nothing that could be late.
    None,
    Held,
}

fn state(before: &MemoryStore, step: usize, call: u64, failure: Failure) -> Outcome {
    let store = before.copied();
    let faulty = FaultStore::new(&store, call, failure.fault);
    let result = Run::of(step).run(&faulty);
    if faulty.calls() <= call {
        return Outcome::None;
    }
    let late = failure.when.zip(faulty.take_late());
    if failure.when.is_some() && late.is_none() {
        return Outcome::None;
    }
    let was_late = late.is_some();
    let mut reported: BTreeSet<_> = result.into_iter().map(|report| report.snapshot).collect();
    checked(&store);
    reported.extend(go_on(&store, step + 1, late));
    let state = checked(&store);
    assert!(state.committed.is_superset(&reported), "a reported snapshot is not there");
    // Whoever backs up the same VM again ends what it had begun.
    let (vm, writer) = (steps()[step].vm, steps()[step].writer);
    let again = steps()[step + 1..].iter().any(|later| (later.vm, later.writer) == (vm, writer));
    assert!(was_late || !again || state.undecided.is_empty(), "a session is left undecided");
    Outcome::Held
}

#[test]
fn whatever_call_of_a_sequence_fails_in_whatever_way_nothing_is_lost() {
    // One state in so many. Every call is in one of them.
    let one_in =
        if std::env::var("KEEPSTONE_CRASH_STATES").is_ok_and(|which| which == "all") { 1 } else { 11 };
    let failures = failures();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut before = new_repository();
    let mut number = 0u64;
    for step in 0..steps().len() - TAIL {
        let mut reached = true;
        let mut call = 0;
        while reached {
            let mut held = false;
            let mut run = |failure: &Failure| {
                let outcome = state(&before, step, call, *failure);
                *counts.entry(failure.kind).or_default() += u32::from(outcome == Outcome::Held);
                outcome == Outcome::Held
            };
            for failure in &failures {
                number += 1;
                held |= number.is_multiple_of(one_in) && run(failure);
            }
            // All were left out, or had nothing to be late.
            held = held || run(&FALLBACK);
            reached = held;
            call += 1;
        }
        assert!(call > 15, "step {step} had {call} calls only");
        before = before.copied();
        Run::of(step).run(&before).unwrap();
    }
    println!("states: {counts:?}");
    let kinds: BTreeSet<&str> = failures.iter().map(|failure| failure.kind).collect();
    assert_eq!(counts.keys().copied().collect::<BTreeSet<_>>(), kinds);
    assert!(counts.values().all(|count| *count >= 10), "{counts:?}");
}
