//! `keepstone repair`

use crate::clock::{self, Stopwatch};
use crate::console::lines;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::count;
use crate::open;
use crate::progress::Progress;
use crate::settings::Settings;
use clap::Subcommand;
use keepstone_engine::repair::{RepairJob, RepairMode, RepairReport, repair_index};
use serde::Serialize;

const PROGRAM: &str = concat!("keepstone ", env!("CARGO_PKG_VERSION"));

/// The arguments of `repair`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List again the packs that no readable index lists; changes and deletes nothing
    Index(Index),
}

#[derive(Debug, clap::Args)]
struct Index {
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    #[serde(flatten)]
    repair: RepairReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Repairs a part of the repository.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let What::Index(Index { dry_run }) = arguments.what;
    let stopwatch = Stopwatch::start();
    settings.interrupt.install()?;
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let job = RepairJob {
        writer: &settings.writer,
        mode: if dry_run { RepairMode::DryRun } else { RepairMode::Write },
        time: clock::now_millis(),
        program: PROGRAM,
        entropy: open::entropy()?,
    };
    let progress = Progress::new(settings);
    let outcome = repair_index(&repository, &job, &progress);
    progress.finish();
    let report = Report { dry_run, repair: outcome?, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, text)?;
    Ok(if report.repair.has_damage() { Exit::Damage } else { Exit::Done })
}

fn text(report: &Report) -> String {
    let RepairReport { packs, listed, chunks, indexes, unreadable_indexes, unreadable_packs } =
        &report.repair;
    let would = if report.dry_run { "would be listed" } else { "listed anew" };
    let mut text = vec![
        format!(
            "{} in no readable index: {} with {} {would}",
            count(*packs, "pack"),
            count(*listed, "pack"),
            count(*chunks, "chunk")
        ),
        format!("  {}", report.figures.line(0)),
    ];
    text.extend(indexes.iter().map(|name| format!("new index: {name}")));
    let damaged = unreadable_indexes.iter().chain(unreadable_packs);
    text.extend(damaged.map(|damaged| format!("DAMAGE: {}: {}", damaged.blob, damaged.reason)));
    lines(text)
}
