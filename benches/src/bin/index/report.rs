//! The figures as text.

use crate::fleet::Fleet;
use crate::phases::{Grown, Looked, Synced};
use keepstone_benches::table::{float, median, mib, new_table};

/// What dedup lookups of a hundred million chunks may keep resident.
const BAR_BYTES: u64 = 1 << 30;
const BAR_CHUNKS: u64 = 100_000_000;

/// Everything that was measured.
pub(crate) struct Results {
    pub(crate) fleet: Fleet,
    pub(crate) first_sync: Synced,
    pub(crate) no_sync: Synced,
    pub(crate) one_sync: Synced,
    pub(crate) budget_bytes: u64,
    pub(crate) cut: Synced,
    pub(crate) limited: Synced,
    pub(crate) grown: Grown,
    /// By the name of the cache.
    pub(crate) looked: Vec<(&'static str, Vec<Looked>)>,
}

/// So many a second; zero for nothing.
pub(crate) fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { float(count) / seconds } else { 0.0 }
}

pub(crate) fn text(results: &Results) -> String {
    let fleet = results.fleet;
    format!(
        "{} sessions of {} chunks each; sizes in MiB, times in seconds\n\nLookups\n{}\n\n{}\n\nSynchronising\n{}\n\n\
         Adding the sessions one by one\n{}\n",
        fleet.sessions,
        fleet.chunks,
        lookups(results),
        memory(results),
        syncs(results),
        growth(results)
    )
}

fn lookups(results: &Results) -> String {
    let mut table = new_table(&[
        "index",
        "tables",
        "page cache",
        "threads",
        "what",
        "1000/s",
        "CPU us each",
        "read",
        "own",
        "mapped",
        "peak",
        "open s",
        "open read",
    ]);
    for (name, all) in &results.looked {
        for looked in all {
            table.add_row(vec![
                (*name).to_owned(),
                looked.opened.tables.to_string(),
                if looked.is_cold { "cold" } else { "warm" }.to_owned(),
                looked.threads.to_string(),
                format!("{:?}", looked.ids).to_lowercase(),
                format!("{:.1}", looked.per_second / 1e3),
                format!("{:.2}", looked.cpu_seconds / float(looked.lookups) * 1e6),
                mib(looked.device_bytes),
                mib(looked.resident.own),
                mib(looked.resident.mapped),
                mib(looked.resident.peak),
                format!("{:.4}", looked.opened.seconds),
                mib(looked.opened.device_bytes),
            ]);
        }
    }
    table.to_string()
}

fn memory(results: &Results) -> String {
    let all = results.looked.iter().flat_map(|(_, all)| all);
    let peak = all.map(|looked| looked.resident.peak).max().unwrap_or_default();
    let len = results.fleet.len();
    let verdict = match (len >= BAR_CHUNKS, peak <= BAR_BYTES) {
        (true, true) => "at most 1024: met",
        (true, false) => "at most 1024: MISSED",
        (false, _) => "the bar, 1024, is for 100 million chunks",
    };
    let entry = |bytes: u64| float(bytes) / float(len);
    format!(
        "bytes an entry on disk: {:.2} synchronised, {:.2} grown\npeak of resident memory of all lookups: {} MiB ({verdict})",
        entry(results.one_sync.len_bytes),
        entry(results.grown.len_bytes),
        mib(peak)
    )
}

fn syncs(results: &Results) -> String {
    let mut table = new_table(&[
        "what", "blobs", "fetched", "wall", "CPU", "written", "tables", "entries", "on disk", "at most",
        "peak mem", "own", "left out", "dropped",
    ]);
    let (first, last) = (results.fleet.sessions - 1, 1);
    let limit = mib(results.budget_bytes);
    for (what, synced) in [
        (format!("a fresh host: {first} sessions"), &results.first_sync),
        ("again: nothing new".to_owned(), &results.no_sync),
        (format!("again: {last} new session"), &results.one_sync),
        (format!("again, with a budget of {limit}"), &results.cut),
        (format!("a fresh host, with a budget of {limit}"), &results.limited),
    ] {
        table.add_row(vec![
            what,
            synced.fetched.to_string(),
            mib(synced.fetched_bytes),
            format!("{:.2}", synced.cost.wall_seconds),
            format!("{:.2}", synced.cost.cpu_seconds),
            mib(synced.written_bytes),
            synced.tables.to_string(),
            synced.entries.to_string(),
            mib(synced.len_bytes),
            mib(synced.peak_len_bytes),
            mib(synced.cost.peak_rss_bytes),
            mib(synced.resident.own),
            synced.left_out.to_string(),
            synced.dropped_tables.to_string(),
        ]);
    }
    table.to_string()
}

fn growth(results: &Results) -> String {
    let grown = &results.grown;
    let mut table =
        new_table(&["sessions that made", "number", "median s", "longest s", "written each", "peak mem"]);
    let mut row = |what: String, seconds: &[f64], written: String, peak: String| {
        if !seconds.is_empty() {
            let longest = seconds.iter().copied().fold(0.0, f64::max);
            table.add_row(vec![
                what,
                seconds.len().to_string(),
                format!("{:.3}", median(seconds.to_vec())),
                format!("{longest:.3}"),
                written,
                peak,
            ]);
        }
    };
    row("small tables only".to_owned(), &grown.plain_seconds, String::new(), String::new());
    for (power, merges) in &grown.merges {
        row(
            format!("a table of {} entries or more", 4_u64.pow(*power)),
            &merges.seconds,
            mib(merges.bytes / merges.seconds.len() as u64),
            mib(merges.peak_bytes),
        );
    }
    format!(
        "{table}\nall of them: {:.1} s, {:.1} s of CPU, {} MiB written for {} MiB in {} tables",
        grown.cost.wall_seconds,
        grown.cost.cpu_seconds,
        mib(grown.written_bytes),
        mib(grown.len_bytes),
        grown.tables
    )
}
