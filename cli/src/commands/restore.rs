//! `keepstone restore`

mod machine;
mod place;

use crate::clock::Stopwatch;
use crate::console::lines;
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{count, size};
use crate::open;
use crate::progress::Progress;
use crate::selector;
use crate::settings::Settings;
use crate::vsphere::VSphereArguments;
use clap::ValueEnum;
use keepstone_engine::DiskTarget;
use keepstone_engine::restore::{LostRange, OnDamage, RestoreJob, RestoreReport, WINDOW_LEN, restore};
use keepstone_engine::snapshots::{Selector, find};
use place::{Opened, Place};
use serde::Serialize;

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

    /// A file, a block device, an export of an NBD server (`nbd://HOST:PORT/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`,
    /// with nbds for TLS), a VM (`vsphere://HOST/DATACENTER/vm/NAME`), or - for standard output
    ///
    /// With - the report is written to standard error. Onto a disk of a VM in vSphere only while the VM is switched off.
    #[arg(long, value_name = "TARGET")]
    to: String,

    /// Replace a file that exists, or write over a block device or a disk of a VM, or over an NBD export that is not empty
    ///
    /// An export is taken for empty only if its server says so of every byte that the disk needs: none of them takes space.
    #[arg(long)]
    overwrite: bool,

    /// Restore what can be, and list what cannot: it is zero in the target, and the exit code is 3
    #[arg(long)]
    keep_going: bool,

    /// The form of the target
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    format: Format,

    #[command(flatten)]
    machine: machine::MachineArguments,

    #[command(flatten)]
    vsphere: VSphereArguments,
}

/// The forms of targets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The bytes of the disk
    Raw,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    restore: RestoreReport,
    /// What only a VM in vSphere has.
    #[serde(rename = "vsphere", skip_serializing_if = "Option::is_none")]
    machine: Option<machine::MachineReport>,
    #[serde(flatten)]
    figures: Figures,
}

/// Restores a disk.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let Format::Raw = arguments.format;
    let place = Place::parse(arguments)?;
    place.must_be_outside_of_repository(settings)?;
    settings.interrupt.install()?;
    let store = open::store(settings)?;
    let repository = open::repository(settings, &store)?;
    let snapshot = find(&repository, &arguments.snapshot)?;
    let disk = snapshot.disk(arguments.disk.as_deref())?;
    let on_damage = if arguments.keep_going { OnDamage::KeepGoing } else { OnDamage::Stop };
    let session = snapshot.session();
    let progress = Progress::new(settings);
    let write = |target: &dyn DiskTarget, window_len| {
        let job = RestoreJob { window_len, on_damage, ..RestoreJob::new(session, disk, target) };
        let outcome = restore(&repository, &job, &progress);
        progress.finish();
        outcome
    };
    let (outcome, machine) = if let Place::Machine(vm) = &place {
        let onto = machine::Onto { settings, arguments, repository: &repository, disk };
        let (outcome, told) = onto.restore(vm, |target| write(target, WINDOW_LEN));
        (outcome, Some(told))
    } else {
        let Opened { target, window_len } = place.open(disk.size, arguments)?;
        (write(target.as_ref(), window_len).map_err(Into::into), None)
    };
    let report = Report { restore: outcome?, machine, figures: Figures::take(stopwatch, &store) };
    let console = match place {
        Place::Output => settings.console.reporting_on_stderr(),
        _ => settings.console,
    };
    console.report(&report, |report| text(report, &arguments.to))?;
    let machine = report.machine.as_ref().map_or(Exit::Done, machine::MachineReport::exit);
    Ok(if report.restore.lost.is_empty() { machine } else { Exit::Damage })
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
    if let Some(machine) = &report.machine {
        text.extend(machine.lines());
    }
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
