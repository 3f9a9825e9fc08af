//! `keepstone restore`

mod format;
mod going_on;
mod identity;
mod machine;
mod place;
mod tracked;

use crate::clock::Stopwatch;
use crate::console::{lines, warn};
use crate::exit::Exit;
use crate::figures::Figures;
use crate::numbers::{count, size};
use crate::open;
use crate::progress::Progress;
use crate::selector;
use crate::settings::Settings;
use crate::standing;
use crate::vsphere::VSphereArguments;
use format::{Content, Format};
use going_on::GoingOn;
use keepstone_engine::backup::Audit;
use keepstone_engine::restore::{
    Differing, Journal, JournalError, LostRange, OnDamage, Onto, RestoreJob, RestoreReport, WINDOW_LEN,
    restore,
};
use keepstone_engine::snapshots::Selector;
use keepstone_engine::target::ImageIdentity;
use keepstone_engine::{DiskSource, DiskTarget, EngineError, Extent, Repository};
use place::{Opened, Place};
use repo_format::{Disk, SessionId};
use serde::Serialize;
use tracked::{Changes, ChangesReport, Known, TrackedArguments, Untracked};

/// Lost ranges that the text shows; the JSON report has all of them.
const LOST_SHOWN: usize = 8;

/// The arguments of `restore`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line are what they are")]
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

    /// The form of the target; other than raw for files and standard output only
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    format: Format,

    /// Bring back a disk that is there, and write only what differs
    ///
    /// All of it is read and compared, or only what changed if --changes or --bitmap tell that, or vSphere of a disk of a VM.
    /// A raw image becomes as long as the disk was.
    #[arg(long, conflicts_with = "overwrite")]
    in_place: bool,

    /// Go on with a restore of the same disk to the same target that was interrupted
    ///
    /// What its journal says to be complete is left as it is; the rest of the target is read, and what differs written. If
    /// there is nothing to go on with, the restore begins.
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    tracked: TrackedArguments,

    #[command(flatten)]
    machine: machine::MachineArguments,

    #[command(flatten)]
    vsphere: VSphereArguments,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    restore: RestoreReport,
    format: Format,
    image_bytes: Option<u64>,
    /// What only a VM in vSphere has.
    #[serde(rename = "vsphere", skip_serializing_if = "Option::is_none")]
    machine: Option<machine::MachineReport>,
    #[serde(flatten)]
    changes: ChangesReport,
    #[serde(flatten)]
    figures: Figures,
}

/// Restores a disk.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> anyhow::Result<Exit> {
    let stopwatch = Stopwatch::start();
    let place = Place::parse(arguments)?;
    arguments.format.check(&place, arguments)?;
    place.must_be_outside_of_repository(settings)?;
    place.check_onto(arguments)?;
    let changes = Changes::read(arguments, &place)?;
    settings.interrupt.install()?;
    let store = open::store(settings)?;
    let repository = open::repository_with_data(settings, &store)?;
    let snapshot = standing::find((&store, &repository), &arguments.snapshot)?;
    let disk = snapshot.disk(arguments.disk.as_deref())?;
    let content = Content { disk_bytes: disk.size, identity: ImageIdentity::of(&snapshot, disk) };
    let session = snapshot.session();
    let going_on = GoingOn::look(settings, &repository, &place, arguments, (session, disk))?;
    let known = match changes.areas(&repository, (&snapshot, disk), || place.open_source(arguments))? {
        Known::Areas { .. } if going_on.has_untold() => Known::Nothing(Untracked::Untold),
        known => known,
    };
    going_on.forget()?;
    let goes_on = going_on.goes_on();
    let progress = Progress::new(settings);
    let mut work = Work {
        repository: &repository,
        arguments,
        place: &place,
        session,
        disk,
        going_on,
        known,
        audit: arguments.tracked.audit(&place)?,
        progress: &progress,
        journal: None,
    };
    let (outcome, machine) = if let Place::Machine(vm) = &place {
        let onto = machine::Onto { settings, arguments, repository: &repository, snapshot: &snapshot, disk };
        let (outcome, told) = onto.restore(vm, |target, source, known| {
            // Only the disk that is open tells its changes.
            work.known = known;
            Ok(work.write(target, source, WINDOW_LEN)?)
        });
        (outcome, Some(told))
    } else {
        let Opened { target, window_len, source } = place.open(content, arguments, goes_on)?;
        (work.write(target.as_ref(), source.as_deref(), window_len).map_err(Into::into), None)
    };
    work.end(outcome.is_ok())?;
    let report = Report {
        restore: outcome?,
        format: arguments.format,
        image_bytes: place.image_bytes()?,
        machine,
        changes: work.known.report(),
        figures: Figures::take(stopwatch, &store),
    };
    let console = match place {
        Place::Output(_) => settings.console.reporting_on_stderr(),
        _ => settings.console,
    };
    console.report(&report, |report| text(report, &arguments.to))?;
    let machine = report.machine.as_ref().map_or(Exit::Done, machine::MachineReport::exit);
    Ok(match &report.changes.compared_reason {
        _ if !report.restore.lost.is_empty() => Exit::Damage,
        Some(reason) => {
            warn(&format!("all of the disk was compared: {reason}"));
            Exit::Attention
        }
        None if !report.restore.untold.is_empty() => {
            warn(&untold(&report.restore.untold));
            Exit::Attention
        }
        None => machine,
    })
}

/// That what told the changes was wrong.
fn untold(untold: &[Extent]) -> String {
    let ranges = untold.iter().take(LOST_SHOWN).map(|range| format!("{} to {}", range.start, range.end()));
    let more = if untold.len() > LOST_SHOWN { " and more, see --json" } else { "" };
    format!(
        "the disk had changed where nothing told so: {}{more}; so all of it was compared, and is as it was: do not trust \
         what tells its changes",
        ranges.collect::<Vec<_>>().join(", ")
    )
}

/// A restore and its journal.
struct Work<'a> {
    repository: &'a Repository<'a>,
    arguments: &'a Arguments,
    place: &'a Place,
    session: SessionId,
    disk: &'a Disk,
    going_on: GoingOn,
    known: Known,
    audit: Audit,
    progress: &'a Progress,
    journal: Option<Journal>,
}

impl Work<'_> {
    /// Writes the disk to a target, which is the disk of the `source` if some of that may be right already.
    fn write(
        &mut self,
        target: &dyn DiskTarget,
        source: Option<&dyn DiskSource>,
        window_len: u64,
    ) -> Result<RestoreReport, EngineError> {
        self.journal = self.going_on.journal(self.place, source.is_none())?;
        let differing = match &self.known {
            Known::Areas { areas, .. } => Differing::Told { areas, audit: self.audit },
            Known::NotAsked | Known::Nothing(_) => Differing::Anywhere,
        };
        let onto = source.map_or(Onto::New, |source| Onto::Existing { source, differing });
        let on_damage = if self.arguments.keep_going { OnDamage::KeepGoing } else { OnDamage::Stop };
        let job = RestoreJob {
            onto,
            journal: self.journal.as_ref(),
            window_len,
            on_damage,
            ..RestoreJob::new(self.session, self.disk, target)
        };
        let outcome = restore(self.repository, &job, self.progress);
        self.progress.finish();
        outcome
    }

    /// Drops the journal if nothing is to be gone on with, when the target is closed.
    fn end(&mut self, is_done: bool) -> Result<(), JournalError> {
        match self.journal.take() {
            Some(journal) if is_done => journal.remove()?,
            Some(journal) => going_on::tell_left(self.place, self.arguments, journal),
            None => {}
        }
        Ok(())
    }
}

fn text(report: &Report, to: &str) -> String {
    let RestoreReport { snapshot, disk, disk_bytes, fetched_bytes, lost, .. } = &report.restore;
    let to = if to == "-" { "standard output" } else { to };
    let mut text = vec![
        format!("restored disk {disk} of snapshot {snapshot} to {to}"),
        format!("  {}; {} fetched", written(&report.restore), size(*fetched_bytes)),
        format!("  {}", report.figures.line(*disk_bytes)),
    ];
    if let (Format::Vhd | Format::Vmdk | Format::Qcow2, Some(bytes)) = (report.format, report.image_bytes) {
        text.insert(1, format!("  as {} of {} ({bytes} bytes)", report.format.name(), size(bytes)));
    }
    if let Some(machine) = &report.machine {
        text.extend(machine.lines());
    }
    if !lost.is_empty() {
        text.extend(lost_lines(&report.restore));
    }
    lines(text)
}

/// How much was written, and what of the rest.
fn written(report: &RestoreReport) -> String {
    let RestoreReport { disk_bytes, written_bytes, zero_bytes, unchanged_bytes, compared_bytes, .. } = report;
    let (disk, written) = (size(*disk_bytes), size(*written_bytes));
    if *unchanged_bytes == 0 {
        return format!("{written} of {disk} written, the rest is zero");
    }
    let (zero, unchanged, compared) = (size(*zero_bytes), size(*unchanged_bytes), size(*compared_bytes));
    format!(
        "{written} of {disk} written, {zero} made zero, {unchanged} left as they were; {compared} compared"
    )
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
