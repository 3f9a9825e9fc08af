//! What a command cost.

use crate::clock::Stopwatch;
use crate::numbers::{count, duration, size};
use keepstone_engine::store::{BlobStore, RecordingStore, Requests};
use serde::Serialize;

/// The figures that stand at the end of reports.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    requests: RequestFigures,
    elapsed_ms: u64,
    peak_rss_bytes: u64,
}

/// Requests to the store.
#[derive(Clone, Copy, Debug, Serialize)]
struct RequestFigures {
    put: u64,
    get: u64,
    list: u64,
    delete: u64,
}

impl Figures {
    /// Takes the figures of what began with `stopwatch` and went through `store`.
    pub(crate) fn take<S: BlobStore>(stopwatch: Stopwatch, store: &RecordingStore<S>) -> Self {
        let Requests { put, get, list, delete, .. } = store.requests();
        Self {
            requests: RequestFigures { put, get, list, delete },
            elapsed_ms: stopwatch.elapsed_millis(),
            peak_rss_bytes: peak_rss_bytes(),
        }
    }

    /// The figures in one line; the rate is that of `bytes`.
    pub(crate) fn line(&self, bytes: u64) -> String {
        let rate = match bytes.saturating_mul(1000) / self.elapsed_ms.max(1) {
            0 => String::new(),
            rate => format!(" ({}/s)", size(rate)),
        };
        let RequestFigures { put, get, list, delete } = self.requests;
        let requests = put + get + list + delete;
        format!(
            "took {}{rate}, {}, {} of memory",
            duration(self.elapsed_ms),
            count(requests, "request"),
            size(self.peak_rss_bytes)
        )
    }
}

/// The most memory that this process has had resident, 0 where the kernel does not tell.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    high_water_mark(&status).unwrap_or(0)
}

/// Reads `VmHWM` from the text of `/proc/self/status`, see `proc_pid_status(5)`.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read() {
        assert_eq!(high_water_mark("VmPeak:\t   9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(high_water_mark("VmPeak:\t   9 kB\n"), None);
        assert!(peak_rss_bytes() > 0);
    }
}
