//! `keepstone restore`

use crate::clock::Stopwatch;
use crate::console::lines;
use crate::exit::{Exit, Usage};
use crate::figures::Figures;
use crate::location::Location;
use crate::numbers::{count, size};
use crate::open;
use crate::progress::Progress;
use crate::selector;
use crate::settings::Settings;
use crate::unsupported::{Role, local_path};
use anyhow::{Context as _, bail};
use clap::ValueEnum;
use keepstone_engine::DiskTarget;
use keepstone_engine::restore::{
    LostRange, OnDamage, RestoreJob, RestoreReport, WINDOW_LEN, WINDOWS_OPEN, restore,
};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::target::{DeviceTarget, Existing, FileTarget, StreamTarget};
use serde::Serialize;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What a stream keeps in memory until it is its turn is so much for each window that is restored at a time.
const STREAM_WINDOW_LEN: u64 = 64 << 20;
/// Lost ranges that the text shows; the JSON report has all of them.
const LOST_SHOWN: usize = 8;

/// The arguments of `restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The beginning of an id, VM@latest, or VM@TIME for the newest at that time
    ///
    /// A TIME is 2026-03-31 or 2026-03-31T18:00, local time, or RFC 3339. What it leaves out is taken as late as
    /// possible: a date means the end of that day.
    #[arg(value_parser = selector::parse)]
    snapshot: Selector,

    /// The disk's key; not needed where the snapshot has one disk
    #[arg(long, value_name = "KEY")]
    disk: Option<String>,

    /// A file, a block device, or - for standard output, with the report on standard error
    #[arg(long, value_name = "TARGET")]
    to: String,

    /// Replace a file that exists, or write over a block device
    #[arg(long)]
    overwrite: bool,

    /// Restore what can be, and list what cannot: it is zero in the target, and the exit code is 3
    #[arg(long)]
    keep_going: bool,

    /// The form of the target
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    format: Format,
}

/// The forms of targets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The bytes of the disk
    Raw,
}

/// Where a disk goes.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Device(PathBuf),
    Output,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    restore: RestoreReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Restores a disk.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let Format::Raw = arguments.format;
    let place = place(arguments)?;
    outside_of_repository(&place, settings)?;
    settings.interrupt.install()?;
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let snapshot = find(&repository, &arguments.snapshot)?;
    let disk = snapshot.disk(arguments.disk.as_deref())?;
    let (target, window_len) = target(&place, disk.size, arguments.overwrite)?;
    let on_damage = if arguments.keep_going { OnDamage::KeepGoing } else { OnDamage::Stop };
    let session = snapshot.session();
    let job = RestoreJob { snapshot: session, disk, target: target.as_ref(), window_len, on_damage };
    let progress = Progress::new(settings);
    let outcome = restore(&repository, &job, &progress);
    progress.finish();
    let report = Report { restore: outcome?, figures: Figures::take(stopwatch, &store) };
    let console = match place {
        Place::Output => settings.console.reporting_on_stderr(),
        Place::File(_) | Place::Device(_) => settings.console,
    };
    console.report(&report, |report| text(report, &arguments.to))?;
    Ok(if report.restore.lost.is_empty() { Exit::Done } else { Exit::Damage })
}

/// A file among those of the repository would be a foreign one there, or worse, one of them replaced.
fn outside_of_repository(place: &Place, settings: &Settings) -> anyhow::Result<()> {
    let Place::File(path) = place else { return Ok(()) };
    let Location::Directory(repository) = settings.location()? else { return Ok(()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What does not exist is told of when it is opened.
    if let (Ok(repository), Ok(parent)) = (repository.canonicalize(), parent.canonicalize())
        && parent.starts_with(repository)
    {
        bail!(
            Usage::new(format!("{} is inside of the repository", path.display()))
                .hint("name a target in another directory")
        );
    }
    Ok(())
}

/// Says what `--to` names, before anything is opened.
fn place(arguments: &Arguments) -> anyhow::Result<Place> {
    if arguments.to == "-" {
        if io::stdout().is_terminal() {
            bail!(
                Usage::new("a disk is not written to a terminal")
                    .hint("redirect the output to a file or a pipe")
            );
        }
        return Ok(Place::Output);
    }
    let path = PathBuf::from(local_path(&arguments.to, Role::Target)?);
    let is_device = path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
    if is_device && !arguments.overwrite {
        bail!(
            Usage::new(format!("{} is a block device, and what is on it would be lost", path.display()))
                .hint("add --overwrite if that is meant")
        );
    }
    Ok(if is_device { Place::Device(path) } else { Place::File(path) })
}

/// Opens the target, and tells how much may come out of order.
fn target(place: &Place, size: u64, overwrite: bool) -> anyhow::Result<(Box<dyn DiskTarget>, u64)> {
    let existing = if overwrite { Existing::Replace } else { Existing::Refuse };
    let file = |path: &Path| FileTarget::create(path, size, existing);
    Ok(match place {
        Place::File(path) => (Box::new(file(path)?), WINDOW_LEN),
        Place::Device(path) => (Box::new(DeviceTarget::open(path, size)?), WINDOW_LEN),
        Place::Output => {
            // Standard output itself would look for line ends in the disk.
            let output =
                io::stdout().as_fd().try_clone_to_owned().context("could not use standard output")?;
            let kept_max = WINDOWS_OPEN * STREAM_WINDOW_LEN;
            (Box::new(StreamTarget::new(File::from(output), size, kept_max)), STREAM_WINDOW_LEN)
        }
    })
}

fn text(report: &Report, to: &str) -> String {
    let RestoreReport { snapshot, disk, disk_bytes, written_bytes, fetched_bytes, lost, .. } =
        &report.restore;
    let to = if to == "-" { "standard output" } else { to };
    let mut text = vec![
        format!("restored disk {disk} of snapshot {snapshot} to {to}"),
        format!(
            "  {} of {} written, the rest is zero; {} fetched",
            size(*written_bytes),
            size(*disk_bytes),
            size(*fetched_bytes)
        ),
        format!("  {}", report.figures.line(*disk_bytes)),
    ];
    if !lost.is_empty() {
        text.extend(lost_lines(&report.restore));
    }
    lines(text)
}

fn lost_lines(report: &RestoreReport) -> Vec<String> {
    let ranges = u64::try_from(report.lost.len()).expect("a length in memory fits 64 bits");
    let mut text = vec![format!(
        "LOST: {} in {} could not be restored and {} zero in the target",
        size(report.lost_bytes),
        count(ranges, "range"),
        if ranges == 1 { "is" } else { "are" }
    )];
    text.extend(report.lost.iter().take(LOST_SHOWN).map(|LostRange { start, length, blob, reason }| {
        format!("  {start} to {}: {blob}: {reason}", start + length)
    }));
    if report.lost.len() > LOST_SHOWN {
        text.push(format!("  and {} more, see --json", report.lost.len() - LOST_SHOWN));
    }
    if report.lost_joined {
        text.push("  there were so many that near ones were joined: parts of these were restored".to_owned());
    }
    text
}
