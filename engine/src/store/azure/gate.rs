//! How many requests are under way at one time: it follows what the service bears.

use crate::frames::lock;
use std::sync::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests at one time to begin with.
const FIRST: usize = 8;
/// The most requests at one time.
const MOST: usize = 64;

/// Slow start, additive increase, multiplicative decrease, as TCP does it (RFC 5681): one more after each success at
/// first, so that a far service gets as much as it bears after a few round trips; half as many when the service
/// throttles or an answer is too late, and from then on one more after as many successes as there may be requests.
#[derive(Debug)]
struct Width {
    /// How many there may be.
    limit: usize,
    /// Successes since it last changed.
    successes: usize,
    /// Whether the service has throttled, or an answer was too late.
    was_congested: bool,
    /// Failures of what was sent before the limit was halved do not halve it again: so many requests are left.
    sent_before: usize,
}

impl Width {
    /// Whether there may be one more.
    fn succeeded(&mut self, in_flight: usize) -> bool {
        self.sent_before = self.sent_before.saturating_sub(1);
        self.successes += 1;
        let needed = if self.was_congested { self.limit } else { 1 };
        // A limit that is not reached is not tested either.
        if self.successes < needed || in_flight < self.limit || self.limit >= MOST {
            return false;
        }
        self.limit += 1;
        self.successes = 0;
        true
    }

    /// How many fewer there may be.
    fn congested(&mut self, in_flight: usize) -> usize {
        if self.sent_before > 0 {
            self.sent_before -= 1;
            return 0;
        }
        self.was_congested = true;
        let fewer = self.limit - (self.limit / 2).max(1);
        self.limit -= fewer;
        self.successes = 0;
        self.sent_before = in_flight.saturating_sub(1);
        fewer
    }
}

/// Lets requests through.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    width: Width,
    in_flight: usize,
    most: usize,
    /// Permits that are to vanish when they come back.
    owed: usize,
}

impl Gate {
    pub(super) fn new() -> Self {
        let width = Width { limit: FIRST, successes: 0, was_congested: false, sent_before: 0 };
        let state = State { width, in_flight: 0, most: 0, owed: 0 };
        Self { permits: Semaphore::new(FIRST), state: Mutex::new(state) }
    }

    /// How many requests there may be at the moment.
    pub(super) fn limit(&self) -> usize {
        lock(&self.state).width.limit
    }

    /// The most requests that there were at one time.
    pub(super) fn most(&self) -> usize {
        lock(&self.state).most
    }

    /// Counts a request that got its permit as under way.
    pub(super) fn entered<'g>(&'g self, permit: SemaphorePermit<'g>) -> Pass<'g> {
        let mut state = lock(&self.state);
        state.in_flight += 1;
        state.most = state.most.max(state.in_flight);
        Pass { gate: self, permit: Some(permit) }
    }

    /// What hands out permits; it is never closed.
    pub(super) fn permits(&self) -> &Semaphore {
        &self.permits
    }
}

/// A request under way.
pub(super) struct Pass<'g> {
    gate: &'g Gate,
    permit: Option<SemaphorePermit<'g>>,
}

impl Pass<'_> {
    /// The service did what it was asked for.
    pub(super) fn succeeded(self) {
        let mut state = lock(&self.gate.state);
        let in_flight = state.in_flight;
        if state.width.succeeded(in_flight) {
            if state.owed > 0 {
                state.owed -= 1;
            } else {
                self.gate.permits.add_permits(1);
            }
        }
    }

    /// The service asked to send less, or did not get or give all in time.
    pub(super) fn congested(self) {
        let mut state = lock(&self.gate.state);
        let in_flight = state.in_flight;
        let fewer = state.width.congested(in_flight);
        state.owed += fewer - self.gate.permits.forget_permits(fewer);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.gate.state);
        state.in_flight -= 1;
        if state.owed > 0
            && let Some(permit) = self.permit.take()
        {
            state.owed -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(gate: &Gate) -> Option<Pass<'_>> {
        gate.permits().try_acquire().ok().map(|permit| gate.entered(permit))
    }

    fn fill(gate: &Gate) -> Vec<Pass<'_>> {
        std::iter::from_fn(|| enter(gate)).collect()
    }

    #[test]
    fn it_grows_by_one_when_all_of_it_is_used_and_succeeds() {
        let gate = Gate::new();
        for expected in FIRST..MOST {
            let mut passes = fill(&gate);
            assert_eq!((passes.len(), gate.limit()), (expected, expected));
            while let Some(pass) = passes.pop() {
                pass.succeeded();
                passes.extend(enter(&gate));
                if gate.limit() > expected {
                    break;
                }
            }
            assert_eq!(gate.limit(), expected + 1);
        }
        assert_eq!((fill(&gate).len(), gate.most()), (MOST, MOST));
        let unused = Gate::new();
        (0..1000).for_each(|_| enter(&unused).unwrap().succeeded());
        assert_eq!(unused.limit(), FIRST, "a limit grew that was never reached");
    }

    #[test]
    fn it_doubles_in_a_round_trip_until_it_is_congested_and_grows_by_one_in_a_round_trip_then() {
        let gate = Gate::new();
        let round_trip = |passes: &mut Vec<_>| {
            for pass in std::mem::take(passes) {
                Pass::succeeded(pass);
                passes.extend(fill(&gate));
            }
        };
        let mut passes = fill(&gate);
        round_trip(&mut passes);
        assert_eq!((passes.len(), gate.limit()), (2 * FIRST, 2 * FIRST));
        passes.into_iter().for_each(Pass::congested);
        let mut passes = fill(&gate);
        round_trip(&mut passes);
        assert_eq!((passes.len(), gate.limit()), (FIRST + 1, FIRST + 1));
        round_trip(&mut passes);
        assert_eq!((passes.len(), gate.limit()), (FIRST + 2, FIRST + 2));
    }

    #[test]
    fn it_halves_once_for_all_that_were_sent_before() {
        let gate = Gate::new();
        let passes = fill(&gate);
        passes.into_iter().for_each(Pass::congested);
        assert_eq!((gate.limit(), fill(&gate).len()), (4, 4));
        let passes = fill(&gate);
        passes.into_iter().for_each(Pass::congested);
        assert_eq!((gate.limit(), fill(&gate).len()), (2, 2));
        for _ in 0..10 {
            let passes = fill(&gate);
            passes.into_iter().for_each(Pass::congested);
        }
        assert_eq!((gate.limit(), fill(&gate).len()), (1, 1), "one request is always let through");
    }
}
