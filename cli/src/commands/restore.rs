//! `keepstone restore`

use crate::clock::Stopwatch;
use crate::exit::{Exit, Usage};
use crate::figures::Figures;
use crate::interrupt::Interrupt;
use crate::numbers::size;
use crate::open;
use crate::progress::Progress;
use crate::selector;
use crate::settings::Settings;
use crate::unsupported::{Role, local_path};
use anyhow::{Context as _, bail};
use clap::ValueEnum;
use keepstone_engine::DiskTarget;
use keepstone_engine::restore::{RestoreJob, RestoreReport, WINDOW_LEN, restore};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::target::{DeviceTarget, Existing, FileTarget, StreamTarget};
use serde::Serialize;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What a stream keeps in memory until it is its turn.
const STREAM_WINDOW_LEN: u64 = 64 << 20;

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
    let interrupt = Interrupt::install()?;
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let snapshot = find(&repository, &arguments.snapshot)?;
    let disk = snapshot.disk(arguments.disk.as_deref())?;
    let (target, window_len) = target(&place, disk.size, arguments.overwrite)?;
    let job = RestoreJob { snapshot: snapshot.session(), disk, target: target.as_ref(), window_len };
    let progress = Progress::new(settings.console, interrupt);
    let outcome = restore(&repository, &job, &progress);
    progress.finish();
    let report = Report { restore: outcome?, figures: Figures::take(stopwatch, &store) };
    let console = match place {
        Place::Output => settings.console.reporting_on_stderr(),
        Place::File(_) | Place::Device(_) => settings.console,
    };
    console.report(&report, |report| text(report, &arguments.to))?;
    Ok(Exit::Done)
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
            (Box::new(StreamTarget::new(File::from(output), size, STREAM_WINDOW_LEN)), STREAM_WINDOW_LEN)
        }
    })
}

fn text(report: &Report, to: &str) -> String {
    let RestoreReport { snapshot, disk, disk_bytes, written_bytes, fetched_bytes } = &report.restore;
    let to = if to == "-" { "standard output" } else { to };
    format!(
        "restored disk {disk} of snapshot {snapshot} to {to}\n  {} of {} written, the rest is zero; {} fetched\n  {}\n",
        size(*written_bytes),
        size(*disk_bytes),
        size(*fetched_bytes),
        report.figures.line(*disk_bytes)
    )
}
