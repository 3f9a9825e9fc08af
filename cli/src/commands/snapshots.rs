//! `keepstone snapshots`

use crate::clock::Stopwatch;
use crate::console::table;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{count, size};
use crate::open;
use crate::progress::Progress;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use crate::times;
use crate::unreadable;
use keepstone_engine::pins::{self, Pins};
use keepstone_engine::replica::{self, DamagedNode, Missing, Point, Whole};
use keepstone_engine::snapshots::{Query, Snapshot};
use repo_format::Disk;
use serde::Serialize;

/// Hex digits of an id that tables show: enough to be unique among a million snapshots.
pub(super) const SHORT_ID_LEN: usize = 12;

/// The arguments of `snapshots`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only those of this VM
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,

    /// Only the N newest of each VM; others are not read
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// Only those that are not older than a date or time, as in 2026-03-31; much older ones are not read
    #[arg(long, value_name = "TIME", value_parser = selector::earliest)]
    since: Option<u64>,
}

#[derive(Serialize)]
struct Report {
    snapshots: Vec<Line>,
    #[serde(flatten)]
    figures: Figures,
}

/// A snapshot as lists show it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    /// Its id.
    pub(super) snapshot: String,
    /// Its VM.
    pub(super) vm: String,
    /// When it was made, RFC 3339.
    pub(super) time: Option<String>,
    /// Its disks.
    pub(super) disks: Vec<DiskLine>,
    /// Its tags.
    pub(super) tags: Vec<String>,
    /// Whether it is kept whatever the rules say.
    pub(super) pinned: bool,
    /// Where it may not be: whether all that it needs is there, and what is not.
    #[serde(flatten)]
    pub(super) wholeness: Option<Wholeness>,
    #[serde(skip)]
    pub(super) time_millis: u64,
}

/// Whether all is there that a snapshot needs.
#[derive(Serialize)]
pub(super) struct Wholeness {
    pub(super) complete: bool,
    pub(super) missing: MissingLine,
}

/// What is not there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MissingLine {
    /// Blobs, and their bytes.
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    /// There may be more.
    pub(super) at_least: bool,
    /// The first of them.
    pub(super) names: Vec<String>,
    /// Parts of the map that are there and damaged.
    pub(super) damaged: Vec<DamagedLine>,
}

/// A part of a map that is damaged.
#[derive(Serialize)]
pub(super) struct DamagedLine {
    pub(super) blob: String,
    pub(super) reason: String,
}

impl Wholeness {
    pub(super) fn new(whole: &Whole) -> Self {
        let missing = whole.missing().cloned().unwrap_or_default();
        let Missing { blobs, bytes, at_least, names, damaged } = missing;
        let names = names.into_iter().map(|blob| blob.name.to_string()).collect();
        let line = |DamagedNode { blob, reason }| DamagedLine { blob: blob.to_string(), reason };
        let damaged = damaged.into_iter().map(line).collect();
        let missing = MissingLine { blobs, bytes, at_least, names, damaged };
        Self { complete: whole.is_whole(), missing }
    }
}

/// A disk of a snapshot as lists show it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DiskLine {
    /// Its key.
    pub(super) key: String,
    /// Its size.
    pub(super) disk_bytes: u64,
    /// What its next changes count from.
    pub(super) change_id: Option<String>,
}

impl Line {
    /// What `pins` say of the snapshot, and what it says of itself.
    pub(super) fn new(snapshot: &Snapshot, pins: &Pins) -> Self {
        let commit = &snapshot.commit;
        let session = snapshot.session();
        Self {
            snapshot: session.to_string(),
            vm: commit.vm.clone(),
            time: times::rfc3339(commit.time),
            disks: commit.disks.iter().map(DiskLine::new).collect(),
            tags: commit.tags.clone(),
            // One that may be pinned is left alone like one that is.
            pinned: pins.pinned.contains_key(&session) || pins.unknown.contains(&session),
            wholeness: None,
            time_millis: commit.time,
        }
    }

    /// As [`Line::new`], of a snapshot that may not be whole.
    pub(super) fn in_doubt(point: &Point, pins: &Pins) -> Self {
        Self { wholeness: Some(Wholeness::new(&point.whole)), ..Self::new(&point.snapshot, pins) }
    }

    /// Whether it is offered.
    fn is_offered(&self) -> bool {
        self.wholeness.as_ref().is_none_or(|wholeness| wholeness.complete)
    }
}

impl DiskLine {
    fn new(disk: &Disk) -> Self {
        Self { key: disk.key.clone(), disk_bytes: disk.size, change_id: disk.change_id.clone() }
    }
}

/// Lists the snapshots, the oldest first.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let query = Query {
        vm: arguments.vm.as_deref(),
        newest: arguments.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        since: arguments.since,
    };
    // No more is kept of each than is shown: there may be hundreds of thousands.
    let pins = pins::list(&repository, query.vm)?;
    let mut snapshots = Vec::new();
    let doubt = standing::doubt(&store, &repository)?;
    let progress = Progress::new(settings);
    let found = replica::each(&repository, (&doubt, &query), &progress, &mut |point| {
        let is_settled = doubt.is_none();
        snapshots.push(if is_settled {
            Line::new(&point.snapshot, &pins)
        } else {
            Line::in_doubt(&point, &pins)
        });
    });
    progress.finish();
    let found = found?;
    snapshots.sort_by(|a, b| (a.time_millis, &a.snapshot).cmp(&(b.time_millis, &b.snapshot)));
    let report = Report { snapshots, figures: Figures::take(stopwatch, &store) };
    settings.console.report(&report, text)?;
    if report.snapshots.is_empty() {
        settings.console.message("there are no snapshots");
    }
    if let lacking @ 1.. = report.snapshots.iter().filter(|line| !line.is_offered()).count() as u64 {
        settings.console.message(&format!(
            "{} more {} not whole in this replica; `keepstone replica status` tells what is missing",
            count(lacking, "snapshot"),
            if lacking == 1 { "is" } else { "are" }
        ));
    }
    unreadable::warn_of(found.unreadable.iter().chain(&pins.unreadable), "");
    let is_damaged = !found.unreadable.is_empty() || !pins.unreadable.is_empty();
    Ok(if is_damaged { Exit::Damage } else { Exit::Done })
}

fn text(report: &Report) -> String {
    let mut offered = report.snapshots.iter().filter(|line| line.is_offered()).peekable();
    if offered.peek().is_none() {
        return String::new();
    }
    let rows = offered.map(|line| {
        let keys: Vec<&str> = line.disks.iter().map(|disk| disk.key.as_str()).collect();
        [
            line.snapshot.chars().take(SHORT_ID_LEN).collect(),
            times::local(line.time_millis),
            line.vm.clone(),
            size(line.disks.iter().map(|disk| disk.disk_bytes).sum()),
            keys.join(","),
            line.tags.join(","),
            if line.pinned { "pinned".to_owned() } else { String::new() },
        ]
    });
    table(["snapshot", "time", "vm", "size", "disks", "tags", "pinned"], &[3], rows)
}
