//! What stands against writing to a disk of a VM, found before anything is done to it. Pure.

use crate::vsphere::model::{BackingKind, BusSharing, ConnectionState, Power, VirtualDisk, VmInfo};
use crate::vsphere::preflight::{connection, disk_key};
use std::fmt;

/// What has to be so of a VM, and of one of its disks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The disk's key.
    pub(super) key: &'a str,
    /// How many bytes are to be written to it.
    pub(super) disk_bytes: u64,
    /// Whether the VM may run for now.
    pub(super) running: Running,
}

/// What is done with a VM that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// Its disks are not written to.
    Refused,
    /// It is switched off, without asking its guest.
    SwitchedOff,
}

/// Something for which a disk of a VM is not written to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is a template.
    Template,
    /// The server cannot reach it.
    Unreachable {
        /// How it is connected.
        state: ConnectionState,
    },
    /// It runs.
    Running,
    /// Its memory is on disk, and knows what the disks held.
    Suspended,
    /// There are snapshots that stand on the disk.
    Snapshots {
        /// Their names.
        snapshots: Vec<String>,
    },
    /// It has no such disk.
    NoSuchDisk {
        /// The key that was given.
        key: String,
        /// The keys that there are.
        found: Vec<String>,
    },
    /// The disk cannot be written to from outside.
    Unwritable {
        /// The disk's key.
        disk: String,
        /// Why.
        why: Unwritable,
    },
    /// The disk is smaller than what is to be restored.
    TooSmall {
        /// The disk's key.
        disk: String,
        /// Its length.
        found_bytes: u64,
        /// The length of what is to be restored.
        disk_bytes: u64,
    },
    /// No SCSI controller has room for another disk.
    NoPlace,
    /// The user lacks rights.
    MissingPrivileges {
        /// Their ids.
        privileges: Vec<String>,
    },
}

/// Why a disk cannot be written to from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unwritable {
    /// It is a device of the storage, not a file.
    RawDevice,
    /// What is written to it is dropped with the VM's power.
    Nonpersistent,
    /// Other VMs may write to it.
    Shared,
    /// It holds the changes since another file.
    Delta {
        /// That file.
        parent: String,
    },
    /// It is held in a way that is not known.
    UnknownBacking {
        /// The vSphere type.
        kind: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template => formatter.write_str("it is a template"),
            Self::Unreachable { state } => write!(formatter, "vCenter says it is {}", connection(state)),
            Self::Running => formatter.write_str("it runs"),
            Self::Suspended => {
                formatter.write_str("it is suspended, and its memory knows what its disks held")
            }
            Self::Snapshots { snapshots } => {
                write!(formatter, "it has snapshots, which stand on the disk: {}", snapshots.join(", "))
            }
            Self::NoSuchDisk { key, found } => {
                write!(formatter, "it has no disk {key}; its disks are: {}", found.join(", "))
            }
            Self::Unwritable { disk, why } => write!(formatter, "disk {disk} {why}"),
            Self::TooSmall { disk, found_bytes, disk_bytes } => write!(
                formatter,
                "disk {disk} has {found_bytes} bytes, and the disk to be restored has {disk_bytes}"
            ),
            Self::NoPlace => formatter.write_str("no SCSI controller of it has room for another disk"),
            Self::MissingPrivileges { privileges } => {
                write!(formatter, "the user lacks privileges: {}", privileges.join(", "))
            }
        }
    }
}

impl fmt::Display for Unwritable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawDevice => formatter.write_str("is a raw device (RDM)"),
            Self::Nonpersistent => formatter.write_str("is nonpersistent: what is written to it is dropped"),
            Self::Shared => formatter.write_str("may be written to by other virtual machines"),
            Self::Delta { parent } => write!(formatter, "holds what changed since {parent}"),
            Self::UnknownBacking { kind } => write!(formatter, "is of the unknown kind {kind}"),
        }
    }
}

/// Finds the disk that is to be written to, or all that stands against it. Snapshots that are `known` will be removed.
pub(super) fn fit(
    vm: &VmInfo,
    wanted: &Wanted<'_>,
    known: impl Fn(&str) -> bool,
) -> Result<VirtualDisk, Vec<Refusal>> {
    let mut found = of_machine(vm, wanted.running, known);
    let disk = vm.disks.iter().find(|disk| disk_key(disk, &vm.controllers) == wanted.key);
    let Some(disk) = disk else {
        let keys = vm.disks.iter().map(|disk| disk_key(disk, &vm.controllers)).collect();
        found.push(Refusal::NoSuchDisk { key: wanted.key.to_owned(), found: keys });
        return Err(found);
    };
    if let Some(why) = unwritable(vm, disk) {
        found.push(Refusal::Unwritable { disk: wanted.key.to_owned(), why });
    }
    if disk.capacity_bytes < wanted.disk_bytes {
        let (found_bytes, disk_bytes) = (disk.capacity_bytes, wanted.disk_bytes);
        found.push(Refusal::TooSmall { disk: wanted.key.to_owned(), found_bytes, disk_bytes });
    }
    if found.is_empty() { Ok(disk.clone()) } else { Err(found) }
}

/// What stands against giving a VM a new disk.
pub(super) fn of_new_disk(vm: &VmInfo, has_place: bool) -> Vec<Refusal> {
    let mut found = Vec::new();
    if vm.is_template {
        found.push(Refusal::Template);
    }
    if vm.connection != ConnectionState::Connected || vm.vmx_path.is_none() {
        found.push(Refusal::Unreachable { state: vm.connection.clone() });
    } else if !has_place {
        found.push(Refusal::NoPlace);
    }
    found
}

/// What stands against writing to any disk of a VM.
pub(super) fn of_machine(vm: &VmInfo, running: Running, known: impl Fn(&str) -> bool) -> Vec<Refusal> {
    let mut found = Vec::new();
    if vm.is_template {
        found.push(Refusal::Template);
    }
    if vm.connection != ConnectionState::Connected {
        found.push(Refusal::Unreachable { state: vm.connection.clone() });
    }
    match vm.power {
        Power::On if running == Running::Refused => found.push(Refusal::Running),
        Power::Suspended => found.push(Refusal::Suspended),
        Power::On | Power::Off => {}
    }
    let foreign = vm.snapshots.iter().map(|snapshot| snapshot.name.clone()).filter(|name| !known(name));
    let snapshots: Vec<String> = foreign.collect();
    if !snapshots.is_empty() {
        found.push(Refusal::Snapshots { snapshots });
    }
    found
}

fn unwritable(vm: &VmInfo, disk: &VirtualDisk) -> Option<Unwritable> {
    let controller = vm.controllers.iter().find(|controller| Some(controller.key) == disk.controller_key);
    match &disk.backing.kind {
        BackingKind::RdmPhysical | BackingKind::RdmVirtual | BackingKind::RawVer2 => {
            return Some(Unwritable::RawDevice);
        }
        BackingKind::Other(kind) => return Some(Unwritable::UnknownBacking { kind: kind.clone() }),
        BackingKind::FlatVer2 | BackingKind::SparseVer2 | BackingKind::SeSparse => {}
    }
    if disk.backing.mode.as_deref().is_some_and(|mode| mode.ends_with("nonpersistent")) {
        return Some(Unwritable::Nonpersistent);
    }
    if disk.backing.sharing || controller.is_some_and(|controller| controller.sharing != BusSharing::None) {
        return Some(Unwritable::Shared);
    }
    // With snapshots it holds what changed since one of them, which is told.
    let parent = disk.backing.parent_file.clone().filter(|_| vm.snapshots.is_empty());
    parent.map(|parent| Unwritable::Delta { parent })
}
