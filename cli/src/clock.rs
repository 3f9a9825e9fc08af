//! The only clock of the program.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Returns the time, in milliseconds since 1970; a clock before that counts as 1970.
pub(crate) fn now_millis() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Returns the milliseconds since the start.
    pub(crate) fn elapsed_millis(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Tells when a minute has passed, again and again.
#[derive(Debug)]
pub(crate) struct EveryMinute {
    start: Stopwatch,
    /// Milliseconds from the start to when it told last.
    told: AtomicU64,
}

impl EveryMinute {
    /// Starts.
    pub(crate) fn start() -> Self {
        Self { start: Stopwatch::start(), told: AtomicU64::new(0) }
    }

    /// Whether a minute has passed since this was last so.
    pub(crate) fn is_due(&self) -> bool {
        let now = self.start.elapsed_millis();
        let is_due = now.saturating_sub(self.told.load(Ordering::Relaxed)) >= 60_000;
        if is_due {
            self.told.store(now, Ordering::Relaxed);
        }
        is_due
    }
}

/// How long a pause goes on after an interruption at most.
const SLICE: Duration = Duration::from_millis(100);

/// Waits for so long, or until `is_stopped` says so.
pub(crate) fn pause(duration: Duration, is_stopped: &dyn Fn() -> bool) -> ControlFlow<()> {
    let start = Instant::now();
    loop {
        if is_stopped() {
            return ControlFlow::Break(());
        }
        let left = duration.saturating_sub(start.elapsed());
        if left.is_zero() {
            return ControlFlow::Continue(());
        }
        thread::sleep(left.min(SLICE));
    }
}
