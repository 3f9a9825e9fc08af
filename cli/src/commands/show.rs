//! `keepstone show`

use super::snapshots::Line;
use crate::clock::Stopwatch;
use crate::console::{facts, one_line, table};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::size;
use crate::open;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use crate::times;
use keepstone_engine::pins::{self, Pins};
use keepstone_engine::snapshots::{Selector, Snapshot};
use repo_format::{DiskMode, Totals};
use serde::Serialize;
use std::collections::BTreeMap;

/// The arguments of `show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The beginning of an id, VM@latest, or VM@TIME for the newest at that time
    ///
    /// A TIME is 2026-03-31 or 2026-03-31T18:00, local time, or RFC 3339. What it leaves out is taken as late as
    /// possible: a date means the end of that day.
    #[arg(value_parser = selector::parse)]
    snapshot: Selector,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    line: Line,
    writer: String,
    program: String,
    parent: Option<String>,
    reading: Vec<Reading>,
    chunks: u64,
    new_chunks: u64,
    new_bytes: u64,
    stored_bytes: u64,
    metadata_bytes: u64,
    packs: u32,
    properties: BTreeMap<String, String>,
    #[serde(flatten)]
    figures: Figures,
}

/// How a disk was read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reading {
    key: String,
    mode: &'static str,
    changed_bytes: u64,
    read_bytes: u64,
}

impl Report {
    fn new(snapshot: &Snapshot, pins: &Pins, figures: Figures) -> Self {
        let commit = &snapshot.commit;
        let Totals { chunks, new_chunks, new_bytes, stored_bytes, metadata_bytes, data_packs, map_packs } =
            commit.totals;
        let reading = commit.disks.iter().map(|disk| Reading {
            key: disk.key.clone(),
            mode: match disk.mode {
                DiskMode::Full => "full",
                DiskMode::Incremental => "incremental",
            },
            changed_bytes: disk.changed_bytes,
            read_bytes: disk.read_bytes,
        });
        Self {
            line: Line::new(snapshot, pins),
            writer: snapshot.name.writer.to_string(),
            program: commit.program.clone(),
            parent: commit.parent.as_ref().map(|parent| parent.session.to_string()),
            reading: reading.collect(),
            chunks,
            new_chunks,
            new_bytes,
            stored_bytes,
            metadata_bytes,
            packs: data_packs.saturating_add(map_packs),
            properties: commit.properties.iter().cloned().collect(),
            figures,
        }
    }
}

/// Shows what a snapshot says about itself.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let snapshot = standing::find((&store, &repository), &arguments.snapshot)?;
    let pins = pins::list(&repository, Some(&snapshot.commit.vm))?;
    let report = Report::new(&snapshot, &pins, Figures::take(stopwatch, &store));
    settings.console.report(&report, |report| text(report, &snapshot, &pins))?;
    Ok(Exit::Done)
}

/// Longer values, such as the configuration of a VM, are for programs.
const VALUE_LEN_MAX: usize = 200;

fn shown_value(value: &str) -> String {
    match value.len() {
        0..=VALUE_LEN_MAX => one_line(value),
        len => format!("{len} bytes, which --json prints"),
    }
}

/// Whether a snapshot is pinned, since when and why.
fn pinned(snapshot: &Snapshot, pins: &Pins) -> String {
    let session = snapshot.session();
    match pins.pinned.get(&session) {
        Some(pin) if pin.reason.is_empty() => format!("since {}", times::local(pin.time)),
        Some(pin) => format!("since {}: {}", times::local(pin.time), one_line(&pin.reason)),
        None if pins.unknown.contains(&session) => "perhaps: a pin of it cannot be read".to_owned(),
        None => "no".to_owned(),
    }
}

fn text(report: &Report, snapshot: &Snapshot, pins: &Pins) -> String {
    let none = || "none".to_owned();
    let tags = if report.line.tags.is_empty() { none() } else { report.line.tags.join(", ") };
    let mut shown = vec![
        ("snapshot", report.line.snapshot.clone()),
        ("vm", report.line.vm.clone()),
        ("time", times::local(snapshot.commit.time)),
        ("tags", tags),
        ("pinned", pinned(snapshot, pins)),
        ("writer", report.writer.clone()),
        ("program", report.program.clone()),
        ("parent", report.parent.clone().unwrap_or_else(none)),
        (
            "chunks",
            format!("{} looked at, {} new of {}", report.chunks, report.new_chunks, size(report.new_bytes)),
        ),
        (
            "stored",
            format!(
                "{} in {} packs, {} of it metadata",
                size(report.stored_bytes),
                report.packs,
                size(report.metadata_bytes)
            ),
        ),
    ];
    let properties = report.properties.iter().map(|(key, value)| (one_line(key), shown_value(value)));
    let properties: Vec<_> = properties.collect();
    shown.extend(properties.iter().map(|(key, value)| (key.as_str(), value.clone())));
    let rows = report.line.disks.iter().zip(&report.reading).map(|(disk, reading)| {
        [
            disk.key.clone(),
            size(disk.disk_bytes),
            reading.mode.to_owned(),
            size(reading.changed_bytes),
            size(reading.read_bytes),
            disk.change_id.as_deref().map_or_else(|| "none".to_owned(), one_line),
        ]
    });
    facts(&shown) + "\n" + &table(["disk", "size", "mode", "changed", "read", "change id"], &[1, 3, 4], rows)
}
