//! `keepstone diff`

use crate::clock::Stopwatch;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{count, size};
use crate::open;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use keepstone_engine::Extent;
use keepstone_engine::diff::diff_of_snapshots;
use keepstone_engine::extent::total_length;
use keepstone_engine::snapshots::Selector;
use serde::Serialize;
use std::fmt::Write as _;

/// The arguments of `diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The earlier snapshot: the beginning of an id, VM@latest, or VM@TIME
    #[arg(value_name = "A", value_parser = selector::parse)]
    from: Selector,

    /// The later snapshot
    #[arg(value_name = "B", value_parser = selector::parse)]
    to: Selector,

    /// The disk's key; not needed where the snapshots have one disk
    #[arg(long, value_name = "KEY")]
    disk: Option<String>,
}

/// The fields of a changes file, and what they are about.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    from: String,
    to: String,
    disk: String,
    disk_size: u64,
    change_id: Option<String>,
    since: Option<String>,
    changed_bytes: u64,
    changed_area: Vec<Extent>,
    #[serde(flatten)]
    figures: Figures,
}

/// Compares a disk of two snapshots.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let find = |selector| standing::find((&store, &repository), selector);
    let (from, to) = (find(&arguments.from)?, find(&arguments.to)?);
    let key = arguments.disk.as_deref();
    let (before, after) = (from.disk(key)?, to.disk(key)?);
    let areas = diff_of_snapshots(&repository, [from.session(), to.session()], before, after)?;
    let report = Report {
        from: from.session().to_string(),
        to: to.session().to_string(),
        disk: after.key.clone(),
        disk_size: after.size,
        change_id: after.change_id.clone(),
        since: before.change_id.clone(),
        changed_bytes: total_length(&areas),
        changed_area: areas,
        figures: Figures::take(stopwatch, &store),
    };
    settings.console.report(&report, text)?;
    Ok(Exit::Done)
}

fn text(report: &Report) -> String {
    let areas = &report.changed_area;
    let number = u64::try_from(areas.len()).expect("a length in memory fits 64 bits");
    let mut text = format!(
        "disk {} of {}: {} in {} may differ\n",
        report.disk,
        size(report.disk_size),
        size(report.changed_bytes),
        count(number, "area")
    );
    if !areas.is_empty() {
        text.push_str("           START          LENGTH\n");
    }
    for Extent { start, length } in areas {
        writeln!(text, "{start:>16}{length:>16}  {}", size(*length)).expect("a string takes everything");
    }
    text
}
