//! Backing up a VM in vSphere with all its disks.

use super::{Arguments, Run, With};
use crate::console::{one_line, warn};
use crate::exit::{Exit, Usage};
use crate::hint;
use crate::open;
use crate::settings::Settings;
use crate::vsphere::Center;
use keepstone_engine::backup::{BackupReport, JobDisk};
use keepstone_engine::vsphere::preflight::Severity;
use keepstone_engine::vsphere::{
    Enabling, Failed, Journal, Machine, MachineJob, Problem, QuiescePolicy, SnapshotName, TakeOver, Told,
    Unallocated, VSpherePlace, Waiter,
};
use repo_format::check_vm_name;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::mpsc::channel;

/// What is said of a VM in vSphere that is backed up.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct MachineArguments {
    /// Leave a disk of a VM in vSphere out, by where it is attached, as in scsi0-1
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub(super) exclude_disk: Vec<String>,

    /// Whether a guest in vSphere must be brought to rest for its snapshot [default: preferred]
    #[arg(long, value_name = "WHETHER", value_enum)]
    quiesce: Option<Quiesce>,

    /// Switch changed block tracking on if a VM in vSphere has it off and has no snapshots
    #[arg(long)]
    enable_change_tracking: bool,

    /// Take for zeros what vSphere calls unallocated, when a disk is read in full
    ///
    /// It is much faster for thin disks. VMware has deprecated the question, and its answer may be incomplete, so without
    /// this everything is read, and with it some of what is skipped is audited.
    #[arg(long)]
    skip_unallocated: bool,
}

/// Whether a guest is brought to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Quiesce {
    /// If that is possible
    Preferred,
    /// Or else there is no backup
    Required,
    /// The disks are as after a power failure
    Off,
}

impl MachineArguments {
    /// Refuses what was said, because there is no VM in vSphere.
    ///
    /// # Errors
    /// Anything was said.
    pub(super) fn refuse(&self) -> Result<(), Usage> {
        let said = [
            ("--exclude-disk", !self.exclude_disk.is_empty()),
            ("--quiesce", self.quiesce.is_some()),
            ("--enable-change-tracking", self.enable_change_tracking),
            ("--skip-unallocated", self.skip_unallocated),
        ];
        match said.into_iter().find(|(_, is_said)| *is_said) {
            Some((flag, _)) => Err(Usage::new(format!("{flag} is only for a VM in vSphere"))),
            None => Ok(()),
        }
    }
}

/// Reads where a disk is attached; vSphere writes scsi0:1, and keys have no colons.
///
/// # Errors
/// None.
#[expect(clippy::unnecessary_wraps, reason = "clap takes parsers that may fail")]
pub(in crate::commands) fn parse_key(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.replace(':', "-"))
}

/// What the report tells of a VM in vSphere.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MachineReport {
    /// Quiesced, crash-consistent, powered-off or suspended.
    pub(super) consistency: Option<&'static str>,
    /// How each disk was read, by its key.
    pub(super) transports: BTreeMap<String, String>,
    /// What should be looked at.
    pub(super) attention: Vec<String>,
}

impl MachineReport {
    pub(super) fn exit(&self) -> Exit {
        if self.attention.is_empty() { Exit::Done } else { Exit::Attention }
    }
}

/// The place of a VM, as it was given.
pub(super) fn place(source: &str, arguments: &Arguments) -> Result<VSpherePlace, Usage> {
    if !arguments.changes.is_empty() || !arguments.bitmap.is_empty() {
        return Err(Usage::new("vSphere itself tells the changes of its disks")
            .hint("leave --changes and --bitmap out"));
    }
    parse_place(source)
}

/// Reads the place of a VM.
///
/// # Errors
/// It is none. The text itself is not told: somebody may have put a password in.
pub(in crate::commands) fn parse_place(source: &str) -> Result<VSpherePlace, Usage> {
    VSpherePlace::parse(source).map_err(|error| {
        Usage::new(format!("the name of the VM in vSphere cannot be used: {error}"))
            .hint("as in vsphere://vcenter.example.com/Datacenter/vm/Folder/NAME")
    })
}

/// What the VM is called in the repository.
pub(super) fn name(arguments: &Arguments, center: &Center) -> Result<String, Usage> {
    if let Some(name) = &arguments.vm {
        return Ok(name.clone());
    }
    let name = center.vm_name();
    match check_vm_name(&name) {
        Ok(()) => Ok(name),
        Err(error) => Err(Usage::new(format!("{name:?} cannot be a VM's name in the repository: {error}"))
            .hint("name it with --vm NAME")),
    }
}

/// Makes a snapshot of the VM, backs it up, and removes the snapshot. What is told is worth telling however it ended.
pub(super) fn back_up(
    run: &Run<'_>,
    with: With<'_>,
    center: &Center,
) -> (anyhow::Result<BackupReport>, MachineReport) {
    let mut told = Telling::new(run.settings);
    let outcome = with_machine(run, with, center, &mut told);
    (outcome, told.report)
}

fn with_machine(
    run: &Run<'_>,
    with: With<'_>,
    center: &Center,
    told: &mut Telling<'_>,
) -> anyhow::Result<BackupReport> {
    let arguments = &run.arguments.machine;
    let waiting = |duration| center.pause(duration);
    let cleaning = Center::pause_to_clean;
    let (vcenter, patience) = (&center.vcenter, center.patience);
    let job = MachineJob {
        name: SnapshotName::new(run.repository.config().repository, &run.settings.writer, &open::entropy()?),
        quiesce: match arguments.quiesce.unwrap_or(Quiesce::Preferred) {
            Quiesce::Preferred => QuiescePolicy::Preferred,
            Quiesce::Required => QuiescePolicy::Required,
            Quiesce::Off => QuiescePolicy::Off,
        },
        left_out: &arguments.exclude_disk,
        enabling: if arguments.enable_change_tracking { Enabling::Yes } else { Enabling::No },
        unallocated: if arguments.skip_unallocated { Unallocated::Skipped } else { Unallocated::Read },
        take_over: if run.arguments.take_over { TakeOver::Yes } else { TakeOver::No },
        transport: &center.transport,
        waiter: Waiter { vcenter, pause: &waiting, patience },
        cleaning: Waiter { vcenter, pause: &cleaning, patience },
    };
    let mut journal = journal(run);
    let machine = match Machine::open(&center.vm, &job, &mut journal, &mut |what| told.take(what)) {
        Ok(machine) => machine,
        Err(Failed { error, left }) => {
            told.left(left);
            return Err(error.into());
        }
    };
    told.report.consistency = Some(machine.consistency().word());
    let (ended, stop) = channel();
    let outcome = std::thread::scope(|threads| {
        let kept = &machine;
        threads.spawn(move || kept.keep_alive(&stop));
        let disks = machine.disks().map(|(key, source)| JobDisk::new(key, source)).collect();
        let outcome = run.back_up(with, disks, true, machine.properties());
        drop(ended);
        outcome
    });
    (run.reading_ends)();
    if outcome.is_err() && run.settings.interrupt.is_raised() {
        run.settings
            .console
            .message("removing the VM's snapshot; interrupt again to leave that to the next backup");
    }
    told.left(machine.close());
    outcome
}

/// What this host remembers of its snapshots of the VM.
fn journal(run: &Run<'_>) -> Journal {
    let opened = run.running.beside("vsphere").map(|path| Journal::open(&path));
    match opened {
        Some(Ok(journal)) => journal,
        Some(Err(error)) => {
            warn(&format!(
                "what this host noted of its snapshots of the VM cannot be read: {error}; if this backup is killed, a later \
                 one is refused until its snapshot is a day old, or --take-over is given"
            ));
            Journal::nowhere()
        }
        None => {
            warn(
                "there is no cache directory to note the snapshot of the VM in; if this backup is killed, a later one is \
                 refused until the snapshot is a day old, or --take-over is given",
            );
            Journal::nowhere()
        }
    }
}

/// Tells the user what goes on, and keeps what the report says.
struct Telling<'a> {
    settings: &'a Settings,
    report: MachineReport,
}

impl<'a> Telling<'a> {
    fn new(settings: &'a Settings) -> Self {
        let report = MachineReport { consistency: None, transports: BTreeMap::new(), attention: Vec::new() };
        Self { settings, report }
    }

    fn take(&mut self, what: Told) {
        let text = match what {
            Told::Finding(finding) if finding.severity() == Severity::Attention => {
                return self.attention(&finding.to_string(), hint::finding(&finding));
            }
            Told::Finding(finding) => finding.to_string(),
            Told::Removed { names } => {
                format!("removed what earlier backups left behind: snapshot {}", names.join(", "))
            }
            Told::Detached { count } => {
                let disks = crate::numbers::count(count as u64, "disk");
                format!("detached what an earlier backup left attached to the proxy: {disks}")
            }
            Told::Enabled => "changed block tracking (CBT) is on from now".to_owned(),
            Told::Snapshot { name, consistency } => {
                format!("snapshot {name:?} is made, {}", consistency.word())
            }
            Told::Refused { disk, transport, why } => {
                let why = format!("{:#}", anyhow::Error::new(why));
                format!("disk {disk} cannot be read by {transport}: {why}")
            }
            Told::Reading { disk, transport } => {
                let text = format!("disk {disk} is read by {transport}");
                self.report.transports.insert(disk, transport.to_string());
                text
            }
            _ => return,
        };
        self.settings.console.message(&one_line(&text));
    }

    fn left(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            let text = format!("{:#}", anyhow::Error::new(problem));
            self.attention(
                &text,
                Some("the next backup of this VM tries again; look at the VM's snapshots if it cannot"),
            );
        }
    }

    fn attention(&mut self, text: &str, hint: Option<&str>) {
        let text = one_line(text);
        warn(&hint.map_or_else(|| text.clone(), |hint| format!("{text}; {hint}")));
        self.report.attention.push(text);
    }
}
