//! A virtual machine while it is backed up: the order of operations from the preflight to the removed snapshot.
//!
//! Preflight > leftovers removed > change tracking enabled, if that is wanted > snapshot > its disks opened > (the
//! backup reads and commits) > disks closed > snapshot removed > disks merged. Whatever fails, everything from there on
//! backwards is undone; what cannot be undone is told, and the next backup tries again.

use super::changes::Tracking;
use super::client::VCenter;
use super::disk::{MachineDisk, Origin, tracking};
use super::error::VSphereError;
use super::guard::{Consistency, Guard, GuardError, NotMade, QuiescePolicy, TakeOver};
use super::journal::Journal;
use super::model::{Datacenter, MoRef, Power, VirtualDisk, VmInfo, VmSnapshot};
use super::preflight::{Finding, PRIVILEGE_TO_TRACK, PRIVILEGES, Severity, chosen_disks, disk_key, findings};
use super::snapshot_name::SnapshotName;
use super::transport::{Reader, Transport, TransportChoice, TransportError, TransportSettings};
use super::waiting::{WaitError, Waiter};
use crate::DiskSource;
use serde::Serialize;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Sessions end after 30 minutes without a question.
pub(super) const KEEP_ALIVE: Duration = Duration::from_mins(5);

/// The properties of a snapshot in the repository that a VM's backup gives it.
pub mod property {
    /// The VM's instance UUID.
    pub const VM: &str = "vsphere.vm";
    /// The VM's configuration but for its disks, as JSON.
    pub const CONFIGURATION: &str = "vsphere.configuration";
    /// The build of the host that the VM ran on.
    pub const HOST_BUILD: &str = "vsphere.host-build";
    /// What state the disks are in: quiesced, crash-consistent, powered-off or suspended.
    pub const CONSISTENCY: &str = "vsphere.consistency";
    /// The vCenter: its product, version and build.
    pub const SERVER: &str = "vsphere.server";
    /// Disks that were left out.
    pub const LEFT_OUT: &str = "vsphere.left-out";

    /// A disk's configuration, as JSON.
    #[must_use]
    pub fn disk(key: &str) -> String {
        format!("vsphere.disk.{key}")
    }

    /// The id of a disk.
    #[must_use]
    pub fn disk_uuid(key: &str) -> String {
        format!("vsphere.disk.{key}.uuid")
    }

    /// How a disk was read.
    #[must_use]
    pub fn transport(key: &str) -> String {
        format!("vsphere.disk.{key}.transport")
    }
}

/// How a VM is to be backed up.
pub struct MachineJob<'a> {
    /// What the snapshot is to be called.
    pub name: SnapshotName,
    /// Whether the guest has to come to rest.
    pub quiesce: QuiescePolicy,
    /// Disks that are not backed up, by their keys.
    pub left_out: &'a [String],
    /// Whether change tracking is switched on where it is off.
    pub enabling: Enabling,
    /// Whether a full read skips what vSphere calls unallocated.
    pub unallocated: Unallocated,
    /// Whether snapshots are removed that another host may have made.
    pub take_over: TakeOver,
    /// How the disks are read.
    pub transport: &'a TransportSettings,
    /// Waits until the user wants to stop.
    pub waiter: Waiter<'a>,
    /// Waits to clean up, whatever the user wants.
    pub cleaning: Waiter<'a>,
}

/// Whether change tracking is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabling {
    /// It is left as it is.
    No,
    /// It is switched on if it is off and there are no snapshots.
    Yes,
}

/// What a full read does with what vSphere calls unallocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unallocated {
    /// It reads it: VMware has deprecated the question, and its answer may be incomplete.
    Read,
    /// It takes it for zeros.
    Skipped,
}

/// Why a VM cannot be backed up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// It is not fit for a backup.
    #[error("this virtual machine cannot be backed up: {}", told(found))]
    Unfit {
        /// What stands against it.
        found: Vec<Finding>,
    },
    /// The server could not be asked.
    #[error("could not look at the virtual machine")]
    Asking(#[source] VSphereError),
    /// Its snapshot could not be made.
    #[error("could not make a snapshot of the virtual machine")]
    Snapshot(#[source] GuardError),
    /// Change tracking could not be switched on.
    #[error("could not switch changed block tracking on")]
    Enabling(#[source] WaitError),
    /// Disks are attached to the proxy, and cannot be detached.
    #[error("could not detach the disks that an earlier backup left attached")]
    Leftovers(#[source] TransportError),
    /// A disk that the VM has is not in its snapshot, or is another one there.
    #[error("disk {disk} of the virtual machine is not in its snapshot")]
    DiskNotInSnapshot {
        /// The disk's key.
        disk: String,
    },
    /// A disk came while the snapshot was made.
    #[error("disk {disk} was attached to the virtual machine while its snapshot was made")]
    DiskAppeared {
        /// The disk's key.
        disk: String,
    },
    /// A disk cannot be read.
    #[error("disk {disk} cannot be read")]
    Transport {
        /// The disk's key.
        disk: String,
        /// Why.
        source: TransportError,
    },
    /// What is read is not as long as the disk.
    #[error("disk {disk} has {disk_bytes} bytes, and {found_bytes} can be read of it")]
    OtherSize {
        /// The disk's key.
        disk: String,
        /// Its length as vSphere tells it.
        disk_bytes: u64,
        /// The length of what was opened.
        found_bytes: u64,
    },
}

impl MachineError {
    /// Whether it is only that the user wants to stop.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        match self {
            Self::Snapshot(GuardError::Wait(error))
            | Self::Enabling(error)
            | Self::Leftovers(TransportError::Waiting(error))
            | Self::Transport { source: TransportError::Waiting(error), .. } => {
                matches!(error, WaitError::Interrupted { .. })
            }
            _ => false,
        }
    }
}

fn told(found: &[Finding]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Something that was left on the vCenter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The snapshot could not be removed, or its disks could not be merged.
    #[error("the snapshot {name:?} of the virtual machine could not be removed")]
    SnapshotLeft {
        /// Its name.
        name: String,
        /// Why.
        source: GuardError,
    },
    /// The snapshot was not removed, because one of its disks is still attached elsewhere.
    #[error("the snapshot {name:?} stays on the virtual machine until its disk is detached")]
    SnapshotInUse {
        /// Its name.
        name: String,
    },
    /// A new disk is whole, and the VM does not have it.
    #[error("{file} is complete, and could not be attached to the virtual machine")]
    NotGiven {
        /// The disk's descriptor.
        file: String,
        /// Why, if that is known.
        source: Option<WaitError>,
    },
    /// Change tracking was on, and stays off.
    #[error("changed block tracking stays off, and was on")]
    TrackingLeftOff {
        /// Why; nothing if there are snapshots, over which it must not begin.
        source: Option<WaitError>,
    },
    /// Others did something to the virtual machine while its disk was written.
    #[error("while its disk was written, something was done to the virtual machine: {what}")]
    Disturbed {
        /// What is so now.
        what: String,
    },
    /// A disk is still in use.
    #[error("disk {disk} could not be closed")]
    DiskLeft {
        /// The disk's key.
        disk: String,
        /// Why.
        source: TransportError,
    },
}

/// A failure, and what was left.
#[derive(Debug)]
pub struct Failed {
    /// The failure.
    pub error: MachineError,
    /// What could not be undone after it.
    pub left: Vec<Problem>,
}

/// Something worth telling that is no failure.
#[derive(Debug)]
#[non_exhaustive]
pub enum Told {
    /// A finding of the preflight.
    Finding(Finding),
    /// Snapshots that earlier backups left behind were removed.
    Removed {
        /// Their names.
        names: Vec<String>,
    },
    /// A disk that a backup which was killed left attached to this machine was detached.
    Detached {
        /// Disks.
        count: usize,
    },
    /// Change tracking was switched on.
    Enabled,
    /// The snapshot is there.
    Snapshot {
        /// Its name.
        name: String,
        /// What it shows.
        consistency: Consistency,
    },
    /// A way to read a disk was tried in vain.
    Refused {
        /// The disk's key.
        disk: String,
        /// The way.
        transport: Transport,
        /// Why.
        why: TransportError,
    },
    /// A disk is read in this way.
    Reading {
        /// The disk's key.
        disk: String,
        /// The way.
        transport: Transport,
    },
}

/// Whether a disk of the snapshot is known to be attached to another machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attached {
    No,
    Yes,
}

/// A VM with a snapshot whose disks are open.
pub struct Machine<'a> {
    guard: Guard<'a>,
    info: VmInfo,
    consistency: Consistency,
    host_build: Option<String>,
    left_out: &'a [String],
    disks: Vec<MachineDisk<'a>>,
}

impl<'a> Machine<'a> {
    /// Makes a VM ready to be backed up.
    ///
    /// # Errors
    /// Whatever fails first; all that was done before has been undone then, but for what is told.
    pub fn open(
        vm: &'a MoRef,
        job: &'a MachineJob<'a>,
        journal: &'a mut Journal,
        tell: &mut dyn FnMut(Told),
    ) -> Result<Self, Failed> {
        let mut guard = Guard { waiter: job.waiter, cleaning: job.cleaning, vm, name: &job.name, journal };
        let none_left = |error| Failed { error, left: Vec::new() };
        let info = prepare(&mut guard, job, tell).map_err(none_left)?;
        let datacenter =
            guard.waiter.vcenter.datacenter_of(vm).map_err(MachineError::Asking).map_err(none_left)?;
        check_transport(job, &info, &datacenter).map_err(none_left)?;
        let not_made = |NotMade { error, left }| {
            let name = job.name.to_string();
            let left = left.map(|source| Problem::SnapshotLeft { name, source: *source });
            Failed { error: MachineError::Snapshot(error), left: left.into_iter().collect() }
        };
        let quiesce = possible(job.quiesce, &info).map_err(none_left)?;
        let (snapshot, consistency) = guard.make(info.power, quiesce).map_err(not_made)?;
        tell(Told::Snapshot { name: job.name.to_string(), consistency });
        let mut machine =
            Self { guard, info, consistency, host_build: None, left_out: job.left_out, disks: Vec::new() };
        match machine.open_disks(&snapshot, &datacenter, job, tell) {
            Ok(()) => Ok(machine),
            Err(error) => {
                let attached = match &error {
                    MachineError::Transport { source: TransportError::StillAttached { .. }, .. } => {
                        Attached::Yes
                    }
                    _ => Attached::No,
                };
                Err(Failed { error, left: machine.close_all(attached) })
            }
        }
    }

    /// Its disks, with their keys.
    pub fn disks(&self) -> impl Iterator<Item = (&str, &dyn DiskSource)> {
        self.disks.iter().map(|disk| (disk.key(), disk as &dyn DiskSource))
    }

    /// What state of the VM is read.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// What a snapshot in the repository tells of the VM.
    #[must_use]
    pub fn properties(&self) -> Vec<(String, String)> {
        let about = self.guard.waiter.vcenter.about();
        let mut properties = vec![
            (property::CONSISTENCY.to_owned(), self.consistency.word().to_owned()),
            (property::SERVER.to_owned(), format!("{} {} build {}", about.name, about.version, about.build)),
            (property::CONFIGURATION.to_owned(), configuration(&self.info)),
        ];
        let mut add = |key: String, value: Option<&String>| {
            properties.extend(value.map(|value| (key, value.clone())));
        };
        add(property::VM.to_owned(), self.info.instance_uuid.as_ref());
        add(property::HOST_BUILD.to_owned(), self.host_build.as_ref());
        for disk in &self.disks {
            add(property::disk(disk.key()), Some(&json(disk.disk())));
            add(property::disk_uuid(disk.key()), disk.disk().backing.uuid.as_ref());
            add(property::transport(disk.key()), Some(&disk.transport().to_string()));
        }
        if !self.left_out.is_empty() {
            add(property::LEFT_OUT.to_owned(), Some(&self.left_out.join(", ")));
        }
        properties
    }

    /// Keeps the session with the vCenter alive until the other side of `stop` is dropped.
    pub fn keep_alive(&self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(KEEP_ALIVE), Err(RecvTimeoutError::Timeout)) {
            // A session that has ended all the same is replaced when it is needed.
            let _needed_later = self.guard.waiter.vcenter.keep_alive();
        }
    }

    /// Closes the disks and removes the snapshot. Returns what could not be undone.
    #[must_use]
    pub fn close(self) -> Vec<Problem> {
        self.close_all(Attached::No)
    }

    fn close_all(mut self, mut attached: Attached) -> Vec<Problem> {
        let mut left = Vec::new();
        for disk in self.disks {
            let key = disk.key().to_owned();
            if let Err(source) = disk.close(&self.guard.cleaning) {
                attached = Attached::Yes;
                left.push(Problem::DiskLeft { disk: key, source });
            }
        }
        let name = self.guard.name.to_string();
        // Its files cannot be merged while a disk is attached elsewhere; the next backup detaches that first.
        if attached == Attached::Yes {
            left.push(Problem::SnapshotInUse { name });
        } else if let Err(source) = self.guard.remove() {
            left.push(Problem::SnapshotLeft { name, source });
        }
        left
    }

    fn open_disks(
        &mut self,
        snapshot: &MoRef,
        datacenter: &Datacenter,
        job: &'a MachineJob<'a>,
        tell: &mut dyn FnMut(Told),
    ) -> Result<(), MachineError> {
        let vcenter = job.waiter.vcenter;
        let frozen = vcenter.snapshot_config(snapshot).map_err(MachineError::Asking)?;
        // It may have moved to another host, or been given a disk, until the snapshot was there.
        let now = vcenter.vm(&self.info.vm).map_err(MachineError::Asking)?;
        self.host_build = host_build(vcenter, &now).map_err(MachineError::Asking)?;
        let info = self.info.clone();
        refuse_more_disks(&info, &frozen, job.left_out)?;
        let older: Result<Vec<VmSnapshot>, _> =
            info.snapshots.iter().map(|older| vcenter.snapshot_config(&older.snapshot)).collect();
        let older = older.map_err(MachineError::Asking)?;
        let enabled = if info.change_tracking_enabled { Tracking::On } else { Tracking::Off };
        let reader = Reader {
            waiter: job.waiter,
            cleaning: job.cleaning,
            vm: &info,
            datacenter,
            snapshot: &frozen,
            settings: job.transport,
        };
        for (key, current) in chosen_disks(&info, job.left_out) {
            let disk = in_snapshot(&frozen, current, &key)?;
            let opened = reader.open(disk);
            let (path, refused) =
                opened.map_err(|source| MachineError::Transport { disk: key.clone(), source })?;
            for (transport, why) in refused {
                tell(Told::Refused { disk: key.clone(), transport, why });
            }
            tell(Told::Reading { disk: key.clone(), transport: path.transport() });
            let found_bytes = path.source().size();
            let origin = Origin {
                vcenter,
                vm: info.vm.clone(),
                snapshot: snapshot.clone(),
                vm_uuid: info.instance_uuid.clone(),
                host_build: self.host_build.clone(),
                tracking: tracking(enabled, disk, &older),
                unallocated: job.unallocated,
            };
            self.disks.push(MachineDisk::new(key.clone(), disk.clone(), path, origin));
            if found_bytes != disk.capacity_bytes {
                let disk_bytes = disk.capacity_bytes;
                return Err(MachineError::OtherSize { disk: key, disk_bytes, found_bytes });
            }
        }
        Ok(())
    }
}

/// Finds out whether the wanted way can be used, before there is a snapshot for it. Where several may be, they are tried.
fn check_transport(job: &MachineJob<'_>, info: &VmInfo, datacenter: &Datacenter) -> Result<(), MachineError> {
    let TransportChoice::Only(transport) = job.transport.choice else { return Ok(()) };
    let as_it_is = info.as_it_is();
    let reader = Reader {
        waiter: job.waiter,
        cleaning: job.cleaning,
        vm: info,
        datacenter,
        snapshot: &as_it_is,
        settings: job.transport,
    };
    for (key, disk) in chosen_disks(info, job.left_out) {
        let checked = reader.check(transport, disk);
        checked.map_err(|source| MachineError::Transport { disk: key, source })?;
    }
    Ok(())
}

/// Makes sure that the snapshot has no disk that was not looked at.
fn refuse_more_disks(info: &VmInfo, frozen: &VmSnapshot, left_out: &[String]) -> Result<(), MachineError> {
    let mut keys = frozen.disks.iter().map(|disk| disk_key(disk, &frozen.controllers));
    let is_known = |key: &String| {
        left_out.contains(key) || info.disks.iter().any(|disk| disk_key(disk, &info.controllers) == *key)
    };
    match keys.find(|key| !is_known(key)) {
        Some(disk) => Err(MachineError::DiskAppeared { disk }),
        None => Ok(()),
    }
}

/// The same disk in the snapshot, by its key among the devices and its place.
fn in_snapshot<'s>(
    frozen: &'s VmSnapshot,
    current: &VirtualDisk,
    key: &str,
) -> Result<&'s VirtualDisk, MachineError> {
    let same = |disk: &&VirtualDisk| {
        disk.key == current.key
            && disk_key(disk, &frozen.controllers) == key
            && disk.capacity_bytes == current.capacity_bytes
    };
    let found = frozen.disks.iter().find(same);
    found.ok_or_else(|| MachineError::DiskNotInSnapshot { disk: key.to_owned() })
}

/// Everything before the snapshot.
fn prepare(
    guard: &mut Guard<'_>,
    job: &MachineJob<'_>,
    tell: &mut dyn FnMut(Told),
) -> Result<VmInfo, MachineError> {
    let vcenter = guard.waiter.vcenter;
    let before = vcenter.vm(guard.vm).map_err(MachineError::Asking)?;
    let mut found = findings(&before, job.left_out, &job.name);
    found.extend(privileges(vcenter, guard.vm, job.enabling)?);
    refuse_unfit(&found)?;
    Reader::check_proxy(&job.waiter, &before, job.transport).map_err(MachineError::Leftovers)?;
    // Only then: the disks that are attached may be those of another job's backup, which runs.
    if guard.may_have_left(&before, job.take_over).map_err(MachineError::Snapshot)? {
        let detached = Reader::detach_leftovers(&job.waiter, &before, job.transport);
        let detached = detached.map_err(MachineError::Leftovers)?;
        if detached > 0 {
            tell(Told::Detached { count: detached });
        }
    }
    let (mut info, removed) = guard.clean(job.take_over).map_err(MachineError::Snapshot)?;
    if !removed.is_empty() {
        tell(Told::Removed { names: removed });
    }
    let can_enable = info.change_tracking_supported && info.snapshots.is_empty();
    if job.enabling == Enabling::Yes && !info.change_tracking_enabled && can_enable {
        let started = vcenter.enable_change_tracking(guard.vm);
        job.waiter.task("switch change tracking on", started).map_err(MachineError::Enabling)?;
        info = vcenter.vm(guard.vm).map_err(MachineError::Asking)?;
        tell(Told::Enabled);
    }
    let found = findings(&info, job.left_out, &job.name);
    refuse_unfit(&found)?;
    for finding in found {
        tell(Told::Finding(finding));
    }
    Ok(info)
}

/// What can be done of what is wanted. A guest without VMware Tools is not asked: vCenter passes over that in silence, and
/// may call the snapshot quiesced all the same.
fn possible(wanted: QuiescePolicy, info: &VmInfo) -> Result<QuiescePolicy, MachineError> {
    match wanted {
        _ if info.power != Power::On || info.tools_running => Ok(wanted),
        QuiescePolicy::Required => Err(MachineError::Unfit { found: vec![Finding::ToolsNotRunning] }),
        QuiescePolicy::Preferred | QuiescePolicy::Off => Ok(QuiescePolicy::Off),
    }
}

fn refuse_unfit(found: &[Finding]) -> Result<(), MachineError> {
    let grave = found.iter().filter(|finding| finding.severity() == Severity::Refusal);
    let found: Vec<Finding> = grave.cloned().collect();
    if found.is_empty() { Ok(()) } else { Err(MachineError::Unfit { found }) }
}

/// What rights the user lacks.
///
/// # Errors
/// [`MachineError::Asking`].
pub fn privileges(
    vcenter: &VCenter,
    vm: &MoRef,
    enabling: Enabling,
) -> Result<Option<Finding>, MachineError> {
    let mut needed = PRIVILEGES.to_vec();
    needed.extend((enabling == Enabling::Yes).then_some(PRIVILEGE_TO_TRACK));
    Ok(match vcenter.missing_privileges(vm, &needed).map_err(MachineError::Asking)? {
        None => Some(Finding::PrivilegesUnknown),
        Some(missing) if missing.is_empty() => None,
        Some(privileges) => Some(Finding::MissingPrivileges { privileges }),
    })
}

/// The build of the host that a VM is on.
pub(super) fn host_build(vcenter: &VCenter, info: &VmInfo) -> Result<Option<String>, VSphereError> {
    info.host.as_ref().map_or(Ok(None), |host| vcenter.host_build(host))
}

/// The longest that a property may be, in bytes (SPEC DEC-2).
const PROPERTY_LEN_MAX: usize = 0xFFFF;

/// A VM's configuration as it is kept beside its disks: what it takes to make such a VM again. Disks have properties of
/// their own; snapshots are of the moment, and no part of it. Notes that are too long to be kept are left out.
fn configuration(info: &VmInfo) -> String {
    let bare = VmInfo {
        disks: Vec::new(),
        snapshots: Vec::new(),
        current_snapshot: None,
        annotation: None,
        ..info.clone()
    };
    let with_notes = json(&VmInfo { annotation: info.annotation.clone(), ..bare.clone() });
    if with_notes.len() <= PROPERTY_LEN_MAX { with_notes } else { json(&bare) }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what a vCenter tells is made of texts and numbers")
}
