//! `keepstone stats`

use crate::clock::Stopwatch;
use crate::console::{facts, table, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{count, size};
use crate::open;
use crate::settings::Settings;
use keepstone_engine::stats::{BlobStats, Count, StatsReport, stats};
use serde::Serialize;

/// The arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    stats: StatsReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Counts what the repository holds.
pub(crate) fn run(settings: &Settings, _: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let stats = stats(&repository)?;
    let report = Report { stats, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, |report| text(&report.stats))?;
    let damaged = report.stats.missing_packs > 0 || report.stats.unreadable > 0;
    if damaged {
        warn("something is missing or cannot be read; `keepstone verify` tells what");
    }
    Ok(if damaged { Exit::Damage } else { Exit::Done })
}

fn text(stats: &StatsReport) -> String {
    let ratio =
        |ratio: Option<f64>| ratio.map_or_else(|| "unknown".to_owned(), |ratio| format!("{ratio:.2}"));
    let mut lines = vec![
        ("snapshots", format!("{} of {}", stats.snapshots, count(stats.vms, "VM"))),
        ("disks", format!("{}, all snapshots together", size(stats.logical_bytes))),
        ("stored", size(stats.stored_bytes)),
        ("needed", format!("{} of packs", size(stats.referenced_bytes))),
        ("not needed", format!("{} in {} packs", size(stats.unreferenced_bytes), stats.unreferenced_packs)),
        ("new data", format!("{} before compression", size(stats.new_bytes))),
        ("deduplication", ratio(stats.deduplication_ratio)),
        ("compression", ratio(stats.compression_ratio)),
    ];
    if stats.missing_packs > 0 {
        lines.push(("missing", crate::numbers::count(stats.missing_packs, "pack")));
    }
    if stats.unreadable > 0 {
        lines.push(("unreadable", format!("{} decisions and tombstones", stats.unreadable)));
    }
    let rows = kinds(&stats.blobs).into_iter().filter(|(_, blobs)| blobs.count > 0);
    let rows = rows.map(|(kind, blobs)| [kind.to_owned(), blobs.count.to_string(), size(blobs.bytes)]);
    facts(&lines) + "\n" + &table(["blobs", "count", "size"], &[1, 2], rows)
}

fn kinds(blobs: &BlobStats) -> [(&'static str, Count); 9] {
    [
        ("data packs", blobs.data_packs),
        ("map packs", blobs.map_packs),
        ("indexes", blobs.indexes),
        ("decisions", blobs.decisions),
        ("intents", blobs.intents),
        ("tombstones", blobs.tombstones),
        ("prune records", blobs.prune_records),
        ("config and keys", blobs.keys),
        ("unknown", blobs.unknown),
    ]
}
