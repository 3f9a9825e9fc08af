//! Tables of what was measured.

use crate::job::Outcome;
use crate::metered::Asked;
use keepstone_benches::table::{float, mib, new_table};

/// The lines of a table of requests.
fn requests(asked: &Asked) -> [String; 7] {
    [
        asked.put.to_string(),
        asked.get.to_string(),
        asked.list.to_string(),
        asked.names.to_string(),
        asked.delete.to_string(),
        mib(asked.put_bytes),
        mib(asked.get_bytes),
    ]
}

const REQUESTS: [&str; 7] = ["put", "get", "list", "names", "delete", "MiB put", "MiB got"];

/// What the phases of some actions took.
pub(crate) fn laps(all: &[(&str, &Outcome)]) -> String {
    let mut table = new_table(&[&["phase", "wall s", "CPU s", "peak MiB"], &REQUESTS[..]].concat());
    for (name, outcome) in all {
        for lap in &outcome.laps {
            let figures = [
                format!("{name}: {}", lap.phase),
                format!("{:.2}", lap.wall_seconds),
                format!("{:.2}", lap.cpu_seconds),
                mib(lap.peak_rss_bytes),
            ];
            table.add_row(figures.into_iter().chain(requests(&lap.asked)));
        }
        let figures = [
            format!("{name}, in all"),
            format!("{:.2}", outcome.cost.wall_seconds),
            format!("{:.2}", outcome.cost.cpu_seconds),
            mib(outcome.cost.peak_rss_bytes),
        ];
        table.add_row(figures.into_iter().chain(requests(&outcome.all())));
    }
    format!("{table}\n")
}

/// What was asked for, by what it is about.
pub(crate) fn kinds(outcome: &Outcome) -> String {
    let mut table = new_table(&[&["about"], &REQUESTS[..]].concat());
    for (kind, asked) in &outcome.asked {
        table.add_row(std::iter::once(kind.clone()).chain(requests(asked)));
    }
    format!("{table}\n")
}

/// What a repository holds, at some points in time.
pub(crate) fn holdings(all: &[(&str, [(u64, u64); 4])]) -> String {
    let mut table =
        new_table(&["", "data packs", "MiB", "map packs", "MiB", "indexes", "MiB", "repack records", "KiB"]);
    for (name, [data, maps, indexes, records]) in all {
        let (blobs, bytes) = records;
        table.add_row([
            (*name).to_owned(),
            data.0.to_string(),
            mib(data.1),
            maps.0.to_string(),
            mib(maps.1),
            indexes.0.to_string(),
            mib(indexes.1),
            blobs.to_string(),
            format!("{:.1}", float(*bytes) / 1024.0),
        ]);
    }
    format!("{table}\n")
}
