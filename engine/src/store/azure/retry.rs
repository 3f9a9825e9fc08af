//! When a request is tried again, and how long one may take. Numbers only: waiting is done elsewhere.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A try that failed and is followed by another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// What failed, in words.
    pub why: String,
    /// Tries of this request that failed.
    pub failed_tries: u32,
    /// Tries that are made at most.
    pub of_tries: u32,
    /// How long it waits before the next one.
    pub wait: Duration,
}

/// Who is told of [`Setback`]s, from any thread: it must not wait.
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(&Setback) + Send + Sync>);

impl Listener {
    /// Tells a function.
    pub fn new(listen: impl Fn(&Setback) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listen))
    }

    /// Tells nobody.
    #[must_use]
    pub fn nobody() -> Self {
        Self::new(|_| {})
    }

    pub(super) fn tell(&self, setback: &Setback) {
        (self.0)(setback);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// How long and how often a request is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The longest first wait between two tries; each later one may be twice as long.
    pub first_wait: Duration,
    /// The longest wait that the program chooses.
    pub longest_wait: Duration,
    /// Tries of one request.
    pub tries: u32,
    /// How long one request is tried in all; a try that has begun goes on.
    pub patience: Duration,
    /// The time that a try has besides what its bytes take.
    pub deadline: Duration,
    /// The slowest transfer that is waited for, in bytes a second.
    pub slowest: u64,
    /// The time that a try to list has.
    pub list_deadline: Duration,
    /// The time that a try has left once the program was asked to stop, and a quarter of it for one that begins later:
    /// under a limit it could take hours.
    pub after_stop: Duration,
}

impl Default for RetryPolicy {
    /// Waits of 1 s x 2^n, at most 60 s, 10 tries or 15 minutes; 30 s and 512 KiB/s for a try, 20 s for a listing, 5 s
    /// after a stop.
    fn default() -> Self {
        Self {
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_mins(1),
            tries: 10,
            patience: Duration::from_mins(15),
            deadline: Duration::from_secs(30),
            slowest: 512 << 10,
            list_deadline: Duration::from_secs(20),
            after_stop: Duration::from_secs(5),
        }
    }
}

/// A service's wish is heeded up to this.
const ASKED_WAIT_MAX: Duration = Duration::from_mins(5);
/// Deadlines double up to this many times.
const DOUBLINGS_MAX: u32 = 6;

impl RetryPolicy {
    /// The wait after so many failed tries (at least 1), or `None` if there is to be no further one.
    ///
    /// It is drawn evenly from nothing to the full wait ("full jitter", so that many clients do not come back
    /// together), `random` being anywhere in `u64`; and at least what the service asks for.
    pub(super) fn wait(
        &self,
        failed_tries: u32,
        elapsed: Duration,
        random: u64,
        asked: Option<Duration>,
    ) -> Option<Duration> {
        if failed_tries >= self.tries || elapsed >= self.patience {
            return None;
        }
        let doublings = failed_tries.saturating_sub(1).min(20);
        let full = self.first_wait.saturating_mul(1 << doublings).min(self.longest_wait);
        let nanos = u128::from(u64::try_from(full.as_nanos()).unwrap_or(u64::MAX));
        let drawn = u64::try_from((nanos * u128::from(random)) >> 64).expect("it is less than the full wait");
        let wait = Duration::from_nanos(drawn);
        Some(asked.map_or(wait, |asked| wait.max(asked.min(ASKED_WAIT_MAX))))
    }

    /// How long a try may take that moves so many bytes, after so many failed ones. `limit` is what a limit leaves for
    /// it, in bytes a second.
    pub(super) fn deadline(&self, failed_tries: u32, bytes: u64, limit: Option<u64>) -> Duration {
        let slowest = limit.map_or(self.slowest, |limit| limit.min(self.slowest)).max(1);
        let moving = Duration::from_millis(bytes.saturating_mul(1000) / slowest);
        (self.deadline + moving).saturating_mul(1 << failed_tries.min(DOUBLINGS_MAX))
    }

    /// How long a try to list may take, after so many failed ones.
    pub(super) fn list_deadline(&self, failed_tries: u32) -> Duration {
        self.list_deadline.saturating_mul(1 << failed_tries.min(DOUBLINGS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_a_minute_and_end() {
        let policy = RetryPolicy::default();
        let full: Vec<u64> = (1..10)
            .map(|tries| policy.wait(tries, SECOND, u64::MAX, None).unwrap())
            .map(|wait| (wait + Duration::from_millis(1)).as_secs())
            .collect();
        assert_eq!(full, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(policy.wait(1, SECOND, 0, None), Some(Duration::ZERO));
        assert_eq!(policy.wait(2, SECOND, 1 << 63, None), Some(SECOND));
        assert_eq!(policy.wait(10, SECOND, 0, None), None);
        assert_eq!(policy.wait(1, policy.patience, 0, None), None);
    }

    #[test]
    fn what_the_service_asks_for_is_the_least_wait() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.wait(1, SECOND, u64::MAX, Some(7 * SECOND)), Some(7 * SECOND));
        assert_eq!(policy.wait(4, SECOND, 1 << 63, Some(SECOND)), Some(4 * SECOND));
        assert_eq!(policy.wait(1, SECOND, 0, Some(86_400 * SECOND)), Some(ASKED_WAIT_MAX));
    }

    #[test]
    fn deadlines_grow_with_bytes_tries_and_limits() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.deadline(0, 0, None), 30 * SECOND);
        assert_eq!(policy.deadline(0, 32 << 20, None), 94 * SECOND);
        assert_eq!(policy.deadline(2, 0, None), 120 * SECOND);
        assert_eq!(policy.deadline(0, 32 << 20, Some(64 << 10)), 542 * SECOND);
        assert_eq!(policy.deadline(0, 32 << 20, Some(1 << 30)), 94 * SECOND);
        assert_eq!([0, 1, 2].map(|tries| policy.list_deadline(tries).as_secs()), [20, 40, 80]);
    }
}
