//! Restoring onto a disk of a VM in vSphere.

use super::Arguments;
use super::tracked::{Countable, Known};
use crate::commands::backup::{parse_key, parse_place};
use crate::console::{one_line, warn};
use crate::exit::{Exit, Usage};
use crate::open;
use crate::running::{AlreadyRunning, open as open_beside};
use crate::settings::Settings;
use crate::vsphere::Center;
use keepstone_engine::restore::RestoreReport;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::vsphere::{
    DiskJob, DiskTold, Journal, NewDisk, NewDiskJob, NotOpened, Problem, RestoreNotes, Running, SnapshotName,
    Transport, TransportChoice, VSpherePlace, VmDisk, Waiter, Written,
};
use keepstone_engine::{DiskSource, DiskTarget, Repository};
use repo_format::Disk;
use serde::Serialize;
use std::fs::{File, TryLockError};
use std::io;
use std::sync::mpsc::channel;

/// What is said of a VM in vSphere that a disk is restored to.
#[derive(Debug, clap::Args)]
pub(super) struct MachineArguments {
    /// The disk of the VM in vSphere that is written over, as in scsi0-1 [default: the disk's key]
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    to_disk: Option<String>,

    /// Switch a VM in vSphere off that runs, without asking its guest, and restore onto its disk; it stays off
    #[arg(long)]
    force: bool,

    /// Restore to a new disk of a VM in vSphere, which gets it when it is complete, and may run
    #[arg(long, conflicts_with_all = ["to_disk", "force", "overwrite", "in_place", "resume"])]
    new_disk: bool,
}

impl MachineArguments {
    /// Refuses what was said, because there is no VM in vSphere.
    ///
    /// # Errors
    /// Anything was said.
    pub(super) fn refuse(&self) -> Result<(), Usage> {
        let said =
            [("--to-disk", self.to_disk.is_some()), ("--force", self.force), ("--new-disk", self.new_disk)];
        match said.into_iter().find(|(_, is_said)| *is_said) {
            Some((flag, _)) => Err(Usage::new(format!("{flag} is only for a VM in vSphere"))),
            None => Ok(()),
        }
    }

    /// Reads the place of the VM.
    ///
    /// # Errors
    /// It is none, or nobody said that what is on the disk may be lost.
    pub(super) fn place(arguments: &Arguments) -> anyhow::Result<VSpherePlace> {
        let place = parse_place(&arguments.to)?;
        let may_write = arguments.overwrite || arguments.in_place;
        if !may_write && !arguments.machine.new_disk {
            return Err(Usage::new("what is on the disk of the VM would be lost")
                .hint("add --overwrite or --in-place if that is meant, or --new-disk to leave it as it is")
                .into());
        }
        Ok(place)
    }
}

/// What the report tells of a VM in vSphere.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MachineReport {
    /// The VM's name in vSphere.
    vm: String,
    /// The key of its disk.
    disk: String,
    /// The disk's file.
    file: String,
    /// How it was written.
    transport: Option<String>,
    /// Whether the disk is new.
    new_disk: bool,
    /// Whether the VM was switched off for it.
    switched_off: bool,
    /// Whether the next backup of the VM reads its disks in full.
    next_backup_full: bool,
    /// What should be looked at.
    attention: Vec<String>,
}

impl MachineReport {
    pub(super) fn exit(&self) -> Exit {
        if self.attention.is_empty() { Exit::Done } else { Exit::Attention }
    }

    /// The same for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { vm, disk, file, transport, new_disk, switched_off, next_backup_full, .. } = self;
        let by = transport.as_deref().unwrap_or("no way");
        if *new_disk {
            return vec![format!("  new disk {disk} of {vm}, {file}, written by {by}")];
        }
        let mut lines = vec![format!("  disk {disk} of {vm}, {file}, written by {by}")];
        if *next_backup_full {
            lines.push("  the next backup of the VM reads its disks in full".to_owned());
        }
        lines.push(if *switched_off {
            "  the VM was switched off; start it when you are ready".to_owned()
        } else {
            "  the VM is off; start it when you are ready".to_owned()
        });
        lines
    }
}

/// What is restored.
pub(super) struct Onto<'a> {
    pub(super) settings: &'a Settings,
    pub(super) arguments: &'a Arguments,
    pub(super) repository: &'a Repository<'a>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) disk: &'a Disk,
}

impl Onto<'_> {
    /// Opens the disk of a VM, has it written, and gives it back. What it holds can be read meanwhile, if the way allows, and
    /// it is told what is known of its changes. What is told is worth telling however it ended.
    pub(super) fn restore(
        &self,
        place: &VSpherePlace,
        write: impl FnOnce(&dyn DiskTarget, Option<&dyn DiskSource>, Known) -> anyhow::Result<RestoreReport>,
    ) -> (anyhow::Result<RestoreReport>, MachineReport) {
        let mut told = Telling { settings: self.settings, report: MachineReport::default() };
        let outcome = self.with_machine(place, &mut told, write);
        (outcome, told.report)
    }

    fn with_machine(
        &self,
        place: &VSpherePlace,
        told: &mut Telling<'_>,
        write: impl FnOnce(&dyn DiskTarget, Option<&dyn DiskSource>, Known) -> anyhow::Result<RestoreReport>,
    ) -> anyhow::Result<RestoreReport> {
        let Self { settings, arguments, repository, snapshot, disk } = *self;
        let center = Center::connect(settings, &arguments.vsphere, place)?;
        let (_lock, mut notes) = self.notes(&center)?;
        if arguments.machine.new_disk {
            return self.with_new_disk(&center, &mut notes, told, write);
        }
        let waiting = |duration| center.pause(duration);
        let cleaning = Center::pause_to_clean;
        let (vcenter, patience) = (&center.vcenter, center.patience);
        let key = arguments.machine.to_disk.as_deref().unwrap_or(&disk.key);
        (told.report.vm, told.report.disk) = (center.vm_name(), key.to_owned());
        let countable = if arguments.in_place {
            Countable::find(repository, &snapshot.commit.vm, key, &center.info)?
        } else {
            None
        };
        let compares = arguments.in_place || arguments.resume;
        let mut transport = center.transport.clone();
        if compares {
            // Before the VM is touched: only so can the disk be read while it is written.
            if let TransportChoice::Only(other) = transport.choice
                && other != Transport::HotAdd
            {
                return Err(not_compared(other));
            }
            transport.choice = TransportChoice::Only(Transport::HotAdd);
        }
        let job = DiskJob {
            name: SnapshotName::new(repository.config().repository, &settings.writer, &open::entropy()?),
            key,
            disk_bytes: disk.size,
            running: if arguments.machine.force { Running::SwitchedOff } else { Running::Refused },
            since: countable.as_ref().and_then(Countable::since),
            transport: &transport,
            waiter: Waiter { vcenter, pause: &waiting, patience },
            cleaning: Waiter { vcenter, pause: &cleaning, patience },
        };
        let opened = VmDisk::open(&center.vm, &job, &mut notes, &mut |what| told.take(what));
        let opened = match opened {
            Ok(opened) => opened,
            Err(NotOpened { error, left }) => {
                told.left(left);
                return Err(error.into());
            }
        };
        told.size(disk.size, opened.disk().capacity_bytes);
        let (ended, stop) = channel();
        let outcome = std::thread::scope(|threads| {
            let kept = &opened;
            threads.spawn(move || kept.keep_alive(&stop));
            let existing = opened.existing();
            let outcome = match existing.as_deref() {
                None if compares => Err(not_compared(opened.transport())),
                Some(existing) if compares => {
                    let known = match &countable {
                        Some(countable) => {
                            countable.areas(repository, (self.snapshot.session(), disk), existing)
                        }
                        None => Ok(Known::NotAsked),
                    };
                    known.and_then(|known| write(opened.target(), Some(existing), known))
                }
                _ => write(opened.target(), None, Known::NotAsked),
            };
            drop(ended);
            outcome
        });
        if outcome.is_err() && settings.interrupt.is_raised() {
            settings.console.message("detaching the disk; interrupt again to leave that to the next restore");
        }
        let is_partial = outcome.is_err() && opened.was_written();
        told.left(opened.close());
        if is_partial {
            warn(&format!(
                "disk {key} of {} holds only a part of what was to be restored: its beginning is zero, so that nothing starts \
                 from it; restore it again before the VM is started",
                told.report.vm
            ));
        }
        outcome
    }

    fn with_new_disk(
        &self,
        center: &Center,
        notes: &mut RestoreNotes,
        told: &mut Telling<'_>,
        write: impl FnOnce(&dyn DiskTarget, Option<&dyn DiskSource>, Known) -> anyhow::Result<RestoreReport>,
    ) -> anyhow::Result<RestoreReport> {
        let Self { settings, repository, disk, .. } = *self;
        let name = SnapshotName::new(repository.config().repository, &settings.writer, &open::entropy()?)
            .to_string();
        let suffix = format!("keepstone-{}", name.rsplit(' ').next().unwrap_or_default());
        let waiting = |duration| center.pause(duration);
        let cleaning = Center::pause_to_clean;
        let (vcenter, patience) = (&center.vcenter, center.patience);
        (told.report.vm, told.report.new_disk) = (center.vm_name(), true);
        let job = NewDiskJob {
            suffix: &suffix,
            disk_bytes: disk.size,
            transport: &center.transport,
            waiter: Waiter { vcenter, pause: &waiting, patience },
            cleaning: Waiter { vcenter, pause: &cleaning, patience },
        };
        let opened = NewDisk::open(&center.vm, &job, notes, &mut |what| told.take(what));
        let opened = match opened {
            Ok(opened) => opened,
            Err(NotOpened { error, left }) => {
                told.left(left);
                return Err(error.into());
            }
        };
        let (ended, stop) = channel();
        let outcome = std::thread::scope(|threads| {
            let kept = &opened;
            threads.spawn(move || kept.keep_alive(&stop));
            let outcome = write(opened.target(), None, Known::NotAsked);
            drop(ended);
            outcome
        });
        let written = if outcome.is_ok() { Written::Whole } else { Written::InPart };
        let (key, left) = opened.close(written);
        told.report.disk = key.unwrap_or_default();
        told.left(left);
        outcome
    }

    /// What this host remembers of its restores onto the VM, which no other process does meanwhile.
    fn notes(&self, center: &Center) -> anyhow::Result<(Option<File>, RestoreNotes)> {
        let found = self.settings.cache_dir().map(|cache| {
            let directory = cache.join(self.repository.config().repository.to_string());
            let uuid = center.info.instance_uuid.as_deref().unwrap_or(&center.vm.id);
            let tag = self.repository.keys().vm_tag(&format!("vsphere {uuid}"));
            let of = format!("{}-{tag}", self.settings.writer);
            let lock = open_beside(&directory, &format!("restoring-{of}"))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let journal = |what: &str| Journal::open(&directory.join(format!("{what}-{of}")));
            let notes =
                RestoreNotes { snapshots: journal("restore-snapshots")?, disks: journal("restore-disks")? };
            Ok(Some((lock, notes)))
        });
        let error: io::Error = match found {
            Some(Ok(Some((lock, notes)))) => return Ok((Some(lock), notes)),
            Some(Ok(None)) => {
                let (vm, writer) = (center.vm_name(), self.settings.writer.clone());
                return Err(AlreadyRunning { what: "restore onto a disk of", vm, writer }.into());
            }
            Some(Err(error)) => error,
            None => io::Error::new(io::ErrorKind::NotFound, "there is no cache directory"),
        };
        warn(&format!(
            "what is done to the VM cannot be noted: {error}; if this restore is killed, detach the disk from the proxy by hand"
        ));
        Ok((None, RestoreNotes { snapshots: Journal::nowhere(), disks: Journal::nowhere() }))
    }
}

/// Says that only a whole disk can be written.
fn not_compared(transport: Transport) -> anyhow::Error {
    Usage::new(format!(
        "a disk that is written by {transport} cannot be read meanwhile to write what differs"
    ))
    .hint("use --transport hotadd, or --overwrite instead of --in-place and --resume")
    .into()
}

/// Tells the user what goes on, and keeps what the report says.
struct Telling<'a> {
    settings: &'a Settings,
    report: MachineReport,
}

impl Telling<'_> {
    fn take(&mut self, what: DiskTold) {
        let text = match what {
            DiskTold::Detached => {
                "detached the disk that an earlier restore left attached to the proxy".to_owned()
            }
            DiskTold::MayBeLeft { file } => {
                return self.attention(
                    &format!("an earlier restore made {file}, and was killed before it could be attached or deleted"),
                    "look for it on the datastore",
                );
            }
            DiskTold::Removed { names } => {
                format!("removed what earlier restores left behind: snapshot {}", names.join(", "))
            }
            DiskTold::SwitchedOff => {
                self.report.switched_off = true;
                "the VM is switched off".to_owned()
            }
            DiskTold::Forgotten => {
                self.report.next_backup_full = true;
                "the VM forgot what changed on its disks: its next backup reads them in full".to_owned()
            }
            DiskTold::Refused { transport, why } => {
                let why = format!("{:#}", anyhow::Error::new(why));
                format!("the disk cannot be written by {transport}: {why}")
            }
            DiskTold::Writing { transport, file } => {
                let text = format!("{file} is written by {transport}");
                self.report.transport = Some(transport.to_string());
                self.report.file = file;
                text
            }
            _ => return,
        };
        self.settings.console.message(&one_line(&text));
    }

    /// Tells of what lies behind the end of what is restored.
    fn size(&self, disk_bytes: u64, capacity_bytes: u64) {
        if capacity_bytes > disk_bytes {
            self.settings.console.message(&format!(
                "the VM's disk has {capacity_bytes} bytes, and the disk to be restored {disk_bytes}: what lies behind stays as it is"
            ));
        }
    }

    fn left(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            let hint = match &problem {
                Problem::NotGiven { .. } => "attach it to the VM in vSphere Client, as an existing hard disk",
                Problem::TrackingLeftOff { .. } => {
                    "the next backup with --enable-change-tracking switches it on"
                }
                Problem::Disturbed { .. } => {
                    "look at the VM's snapshots and disks, and restore it again if in doubt"
                }
                Problem::DiskLeft { .. } if self.report.new_disk => {
                    "the next restore onto this VM from this host tries again"
                }
                Problem::DiskLeft { .. } => {
                    "the next restore onto this VM from this host tries again; until then it cannot be started"
                }
                _ => "the next restore onto this VM tries again; until then it cannot be started",
            };
            self.attention(&format!("{:#}", anyhow::Error::new(problem)), hint);
        }
    }

    fn attention(&mut self, text: &str, hint: &str) {
        let text = one_line(text);
        warn(&format!("{text}; {hint}"));
        self.report.attention.push(text);
    }
}
