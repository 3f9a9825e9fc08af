//! What a command cost.

use crate::clock::Stopwatch;
use crate::numbers::{count, duration, size};
use crate::open::{AnyStore, Store};
use crate::prices::Cost;
use keepstone_engine::store::{Requests, Traffic};
use serde::Serialize;

/// The figures that stand at the end of reports.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    requests: RequestFigures,
    bytes_out: u64,
    bytes_in: u64,
    /// What the service copied from elsewhere by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
    elapsed_ms: u64,
    peak_rss_bytes: u64,
}

/// Requests to the store. In Azure those that were sent, also again.
#[derive(Clone, Copy, Debug, Serialize)]
struct RequestFigures {
    put: u64,
    get: u64,
    list: u64,
    delete: u64,
    retries: u64,
    throttled: u64,
}

impl Figures {
    /// Takes the figures of what began with `stopwatch` and went through `store`.
    pub(crate) fn take(stopwatch: Stopwatch, store: &Store) -> Self {
        let (requests, [bytes_out, bytes_in, copied], cost) = match store.inner() {
            AnyStore::Directory(_) => {
                let Requests { put, get, list, delete, put_bytes, get_bytes } = store.requests();
                let requests = RequestFigures { put, get, list, delete, retries: 0, throttled: 0 };
                (requests, [put_bytes, get_bytes, 0], None)
            }
            AnyStore::Azure(remote) => {
                let traffic = remote.store.traffic();
                let cost = remote.prices.estimate(&traffic);
                let bytes = [traffic.bytes_out, traffic.bytes_in, traffic.copied_bytes.total()];
                (RequestFigures::of(&traffic), bytes, Some(cost))
            }
        };
        Self {
            requests,
            bytes_out,
            bytes_in,
            copied_bytes: Some(copied).filter(|copied| *copied > 0),
            cost,
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
        let cost = self.cost.as_ref().map(|cost| format!(", {}", cost.in_words())).unwrap_or_default();
        format!(
            "took {}{rate}, {}, {} of memory{cost}",
            duration(self.elapsed_ms),
            self.requests.in_words(),
            size(self.peak_rss_bytes)
        )
    }
}

impl RequestFigures {
    fn of(traffic: &Traffic) -> Self {
        Self {
            put: traffic.writes.total(),
            get: traffic.reads.total(),
            list: traffic.lists,
            delete: traffic.deletes,
            retries: traffic.retries,
            throttled: traffic.throttled,
        }
    }

    /// The number of requests, with what went wrong if anything did.
    fn in_words(&self) -> String {
        let Self { put, get, list, delete, retries, throttled } = *self;
        let all = count(put + get + list + delete, "request");
        let again = (retries > 0).then(|| format!("{retries} of them again"));
        let throttled = (throttled > 0).then(|| format!("{throttled} throttled"));
        let troubles: Vec<String> = again.into_iter().chain(throttled).collect();
        if troubles.is_empty() { all } else { format!("{all} ({})", troubles.join(", ")) }
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
    fn trouble_is_told_only_where_there_was_some() {
        let calm = RequestFigures { put: 1, get: 2, list: 3, delete: 4, retries: 0, throttled: 0 };
        assert_eq!(calm.in_words(), "10 requests");
        let busy = RequestFigures { retries: 3, throttled: 2, ..calm };
        assert_eq!(busy.in_words(), "10 requests (3 of them again, 2 throttled)");
    }

    #[test]
    fn the_high_water_mark_is_read() {
        assert_eq!(high_water_mark("VmPeak:\t   9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(high_water_mark("VmPeak:\t   9 kB\n"), None);
        assert!(peak_rss_bytes() > 0);
    }
}
