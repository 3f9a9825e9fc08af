//! `keepstone stats`

use crate::clock::Stopwatch;
use crate::console::{facts, table, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{count, size};
use crate::open;
use crate::settings::Settings;
use crate::standing;
use keepstone_engine::stats::{
    BlobStats, Count, StatsReport, VmStatsReport, stats_of_offered, stats_offered,
};
use serde::Serialize;

/// The arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only what the snapshots of this VM are, which reads nothing of the others
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,
}

#[derive(Serialize)]
struct Report<S> {
    #[serde(flatten)]
    stats: S,
    #[serde(flatten)]
    figures: Figures,
}

/// Counts what the repository holds.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let doubt = standing::doubt(&store, &repository)?;
    if let Some(vm) = &arguments.vm {
        let stats = stats_of_offered(&repository, vm, &doubt)?;
        let report = Report { stats, figures: Figures::take(stopwatch, &store) };
        settings.console.report(&report, |report| text_of(&report.stats))?;
        return Ok(exit(report.stats.unreadable > 0));
    }
    let stats = stats_offered(&repository, &doubt)?;
    let report = Report { stats, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, |report| text(&report.stats))?;
    Ok(exit(report.stats.missing_packs > 0 || report.stats.unreadable > 0))
}

fn exit(damaged: bool) -> Exit {
    if damaged {
        warn("something is missing or cannot be read; `keepstone verify` tells what");
    }
    if damaged { Exit::Damage } else { Exit::Done }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "unknown".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn text_of(stats: &VmStatsReport) -> String {
    let mut lines = vec![
        ("snapshots", format!("{} of {}", stats.snapshots, stats.vm)),
        ("disks", format!("{}, all snapshots together", size(stats.logical_bytes))),
        ("stored", format!("{} by their backups", size(stats.stored_bytes))),
        ("needed", count(stats.referenced_packs, "pack")),
        ("new data", format!("{} before compression", size(stats.new_bytes))),
        ("deduplication", ratio(stats.deduplication_ratio)),
        ("compression", ratio(stats.compression_ratio)),
    ];
    lines.extend(left_out(stats.unreadable, stats.incomplete, stats.forgotten_meanwhile.len()));
    facts(&lines)
}

/// What is in none of the numbers.
fn left_out(unreadable: u64, incomplete: u64, forgotten: usize) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if incomplete > 0 {
        lines.push(("left out", format!("{}, not whole in this replica", count(incomplete, "snapshot"))));
    }
    if unreadable > 0 {
        lines.push(("unreadable", format!("{unreadable} decisions and tombstones")));
    }
    if let Ok(forgotten @ 1..) = u64::try_from(forgotten) {
        lines.push(("left out", format!("{}, forgotten meanwhile", count(forgotten, "snapshot"))));
    }
    lines
}

fn text(stats: &StatsReport) -> String {
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
        lines.push(("missing", count(stats.missing_packs, "pack")));
    }
    lines.extend(left_out(stats.unreadable, stats.incomplete, stats.forgotten_meanwhile.len()));
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
