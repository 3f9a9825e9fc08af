//! Limits of bytes a second, shared by all transfers.

use crate::frames::lock;
use std::num::NonZeroU64;
use std::sync::Mutex;
use std::time::Duration;

/// What may be moved at once after a pause, in time.
const BURST: Duration = Duration::from_millis(100);

/// A limit. Times are counted from any one moment.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: NonZeroU64,
    /// When all that was let through so far is paid for.
    paid_until: Mutex<Duration>,
}

impl Rate {
    pub(super) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, paid_until: Mutex::new(Duration::ZERO) }
    }

    /// When so many bytes may be moved, from which moment on they are counted as moved.
    pub(super) fn take(&self, bytes: u64, now: Duration) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid_until = lock(&self.paid_until);
        let start = (*paid_until).max(now.saturating_sub(BURST));
        *paid_until = start.saturating_add(cost);
        start.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn bytes_wait_for_those_before_them() {
        let rate = Rate::new(NonZeroU64::new(1000).unwrap());
        let now = millis(5000);
        assert_eq!(rate.take(100, now), now, "a pause before pays for the first bytes");
        assert_eq!(rate.take(500, now), now);
        assert_eq!(rate.take(500, now), now + millis(500));
        assert_eq!(rate.take(1, now), now + millis(1000));
        assert_eq!(rate.take(1, now + millis(9000)), now + millis(9000));
    }

    #[test]
    fn over_any_span_it_is_the_rate_and_a_burst() {
        let rate = Rate::new(NonZeroU64::new(1 << 20).unwrap());
        let mut last = Duration::ZERO;
        for _ in 0..160 {
            last = rate.take(64 << 10, last);
        }
        assert_eq!(last, Duration::from_micros(159 * 62_500));
    }
}
