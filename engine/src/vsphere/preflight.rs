//! What stands against a backup of a VM, found before anything is done to it. Pure.

use super::model::{BackingKind, BusSharing, ConnectionState, Controller, Power, VirtualDisk, VmInfo};
use super::snapshot_name::SnapshotName;
use repo_format::limits::DISK_SIZE_MAX;
use std::fmt;

/// The oldest virtual hardware whose changes can be tracked.
const TRACKED_HARDWARE: u32 = 7;

/// What a user needs on a VM to back it up, whichever way its disks are read.
pub const PRIVILEGES: [&str; 4] = [
    "System.Read",
    "VirtualMachine.State.CreateSnapshot",
    "VirtualMachine.State.RemoveSnapshot",
    "VirtualMachine.Provisioning.DiskRandomRead",
];
/// What a user needs to switch change tracking on.
pub const PRIVILEGE_TO_TRACK: &str = "VirtualMachine.Config.ChangeTracking";

/// How much a finding stands against a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is good to know.
    Note,
    /// There is a backup, and it is not as it should be.
    Attention,
    /// There is none.
    Refusal,
}

/// Something about a VM that a backup depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// It is a template.
    Template,
    /// The server cannot reach it.
    Unreachable {
        /// How it is connected.
        state: ConnectionState,
    },
    /// It has no disk, or none that is not left out.
    NoDisks,
    /// A disk that was to be left out is not there.
    NoSuchDisk {
        /// The key that was given.
        key: String,
        /// The keys that there are.
        found: Vec<String>,
    },
    /// A disk is left out, as was asked.
    LeftOut {
        /// The disk's key.
        disk: String,
    },
    /// A disk cannot be in a backup.
    Unsuitable {
        /// The disk's key.
        disk: String,
        /// Why.
        why: Unsuitable,
    },
    /// The VM's virtual hardware is too old for change tracking, or cannot do it for another reason.
    TrackingUnsupported {
        /// Its version.
        hardware_version: Option<u32>,
    },
    /// Changes are not tracked.
    TrackingDisabled,
    /// Changes are not tracked, and cannot be before these snapshots are gone.
    TrackingBlocked {
        /// Their names.
        snapshots: Vec<String>,
    },
    /// There are snapshots that somebody else made.
    ForeignSnapshots {
        /// Their names.
        snapshots: Vec<String>,
    },
    /// There are snapshots that earlier backups left behind.
    Leftovers {
        /// Their names.
        snapshots: Vec<String>,
    },
    /// Files of removed snapshots are still in use.
    ConsolidationNeeded,
    /// It does not run, so there is nothing to quiesce.
    PoweredOff,
    /// Its memory is on disk, and not in a backup.
    Suspended,
    /// VMware Tools do not run in it, so it cannot be quiesced.
    ToolsNotRunning,
    /// The user lacks rights.
    MissingPrivileges {
        /// Their ids.
        privileges: Vec<String>,
    },
    /// The server does not tell what rights the user has.
    PrivilegesUnknown,
}

/// Why a disk cannot be in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsuitable {
    /// It is a device past the VM's snapshots.
    PhysicalDevice,
    /// Snapshots leave it alone.
    Independent,
    /// Other VMs may write to it.
    Shared,
    /// It has no bytes.
    Empty,
    /// It is larger than any disk in a repository.
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// It is held in a way that is not known.
    UnknownBacking {
        /// The vSphere type.
        kind: String,
    },
    /// It is attached to nothing that is known.
    NoAddress,
}

impl Finding {
    /// How much it stands against a backup.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Template
            | Self::Unreachable { .. }
            | Self::NoDisks
            | Self::NoSuchDisk { .. }
            | Self::Unsuitable { .. }
            | Self::MissingPrivileges { .. } => Severity::Refusal,
            Self::TrackingUnsupported { .. } | Self::TrackingDisabled | Self::TrackingBlocked { .. } => {
                Severity::Attention
            }
            Self::LeftOut { .. }
            | Self::ForeignSnapshots { .. }
            | Self::Leftovers { .. }
            | Self::ConsolidationNeeded
            | Self::PoweredOff
            | Self::Suspended
            | Self::ToolsNotRunning
            | Self::PrivilegesUnknown => Severity::Note,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template => formatter.write_str("it is a template, not a virtual machine"),
            Self::Unreachable { state } => {
                write!(formatter, "vCenter cannot reach it: it is {}", connection(state))
            }
            Self::NoDisks => formatter.write_str("it has no disk to back up"),
            Self::NoSuchDisk { key, found } => {
                write!(formatter, "it has no disk {key}; it has {}", found.join(", "))
            }
            Self::LeftOut { disk } => write!(formatter, "disk {disk} is left out"),
            Self::Unsuitable { disk, why } => write!(formatter, "disk {disk} {why}"),
            Self::TrackingUnsupported { hardware_version: Some(version) } if *version < TRACKED_HARDWARE => {
                write!(
                    formatter,
                    "its virtual hardware is of version {version}; changes are tracked from version {TRACKED_HARDWARE} on"
                )
            }
            Self::TrackingUnsupported { .. } => {
                formatter.write_str("vSphere cannot track changes of its disks")
            }
            Self::TrackingDisabled => formatter.write_str("changed block tracking (CBT) is off"),
            Self::TrackingBlocked { snapshots } => write!(
                formatter,
                "changed block tracking (CBT) is off and must not be switched on while there are snapshots: {}",
                snapshots.join(", ")
            ),
            Self::ForeignSnapshots { snapshots } => {
                write!(formatter, "it has snapshots that Keepstone did not make: {}", snapshots.join(", "))
            }
            Self::Leftovers { snapshots } => {
                write!(formatter, "earlier backups left snapshots behind: {}", snapshots.join(", "))
            }
            Self::ConsolidationNeeded => formatter.write_str("its disks need consolidation"),
            Self::PoweredOff => formatter.write_str("it is powered off"),
            Self::Suspended => formatter.write_str("it is suspended; its memory is not in the backup"),
            Self::ToolsNotRunning => {
                formatter.write_str("VMware Tools do not run in it, so it cannot be quiesced")
            }
            Self::MissingPrivileges { privileges } => {
                write!(formatter, "the user lacks privileges: {}", privileges.join(", "))
            }
            Self::PrivilegesUnknown => {
                formatter.write_str("the server does not tell what privileges the user has")
            }
        }
    }
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PhysicalDevice => {
                formatter.write_str("is a raw device in physical mode (RDM), which snapshots leave out")
            }
            Self::Independent => formatter.write_str("is independent, so snapshots leave it out"),
            Self::Shared => formatter.write_str("may be written to by other virtual machines"),
            Self::Empty => formatter.write_str("has 0 bytes"),
            Self::TooLarge { bytes } => {
                write!(formatter, "has {bytes} bytes, more than the {DISK_SIZE_MAX} that are possible")
            }
            Self::UnknownBacking { kind } => write!(formatter, "is of the unknown kind {kind}"),
            Self::NoAddress => formatter.write_str("is attached to no known controller"),
        }
    }
}

pub(super) fn connection(state: &ConnectionState) -> &str {
    match state {
        ConnectionState::Connected => "connected",
        ConnectionState::Disconnected => "disconnected",
        ConnectionState::Inaccessible => "inaccessible",
        ConnectionState::Invalid => "invalid",
        ConnectionState::Orphaned => "orphaned",
        ConnectionState::Other(state) => state,
    }
}

/// The key of a disk: where it is attached, as `scsi0-1` for what vSphere writes `scsi0:1` (keys have no colons), or its
/// number where that is not known.
#[must_use]
pub fn disk_key(disk: &VirtualDisk, controllers: &[Controller]) -> String {
    disk.address(controllers)
        .map_or_else(|| format!("device{}", disk.key), |address| address.replace(':', "-"))
}

/// The disks of a VM that are backed up, with their keys.
#[must_use]
pub fn chosen_disks<'a>(vm: &'a VmInfo, left_out: &[String]) -> Vec<(String, &'a VirtualDisk)> {
    let keyed = vm.disks.iter().map(|disk| (disk_key(disk, &vm.controllers), disk));
    keyed.filter(|(key, _)| !left_out.contains(key)).collect()
}

/// Looks at a VM; the gravest findings come first. Whose snapshots are leftovers is told by their names, which `name` is
/// one of.
#[must_use]
pub fn findings(vm: &VmInfo, left_out: &[String], name: &SnapshotName) -> Vec<Finding> {
    let mut found = Vec::new();
    if vm.is_template {
        found.push(Finding::Template);
    }
    if vm.connection != ConnectionState::Connected {
        found.push(Finding::Unreachable { state: vm.connection.clone() });
    }
    of_disks(vm, left_out, &mut found);
    let (ours, foreign): (Vec<_>, Vec<_>) =
        vm.snapshots.iter().map(|snapshot| snapshot.name.clone()).partition(|found| name.is_sibling(found));
    if !vm.change_tracking_supported {
        found.push(Finding::TrackingUnsupported { hardware_version: vm.hardware_version });
    } else if !vm.change_tracking_enabled {
        found.push(if foreign.is_empty() {
            Finding::TrackingDisabled
        } else {
            Finding::TrackingBlocked { snapshots: foreign.clone() }
        });
    }
    if !foreign.is_empty() {
        found.push(Finding::ForeignSnapshots { snapshots: foreign });
    }
    if !ours.is_empty() {
        found.push(Finding::Leftovers { snapshots: ours });
    }
    if vm.consolidation_needed {
        found.push(Finding::ConsolidationNeeded);
    }
    match vm.power {
        Power::Off => found.push(Finding::PoweredOff),
        Power::Suspended => found.push(Finding::Suspended),
        Power::On if !vm.tools_running => found.push(Finding::ToolsNotRunning),
        Power::On => {}
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    found
}

fn of_disks(vm: &VmInfo, left_out: &[String], found: &mut Vec<Finding>) {
    let keys: Vec<String> = vm.disks.iter().map(|disk| disk_key(disk, &vm.controllers)).collect();
    for key in left_out {
        found.push(if keys.contains(key) {
            Finding::LeftOut { disk: key.clone() }
        } else {
            Finding::NoSuchDisk { key: key.clone(), found: keys.clone() }
        });
    }
    let chosen = chosen_disks(vm, left_out);
    if chosen.is_empty() {
        found.push(Finding::NoDisks);
    }
    for (key, disk) in chosen {
        if let Some(why) = unsuitable(vm, disk) {
            found.push(Finding::Unsuitable { disk: key, why });
        }
    }
}

fn unsuitable(vm: &VmInfo, disk: &VirtualDisk) -> Option<Unsuitable> {
    let controller = vm.controllers.iter().find(|controller| Some(controller.key) == disk.controller_key);
    match &disk.backing.kind {
        BackingKind::RdmPhysical | BackingKind::RawVer2 => return Some(Unsuitable::PhysicalDevice),
        BackingKind::Other(kind) => return Some(Unsuitable::UnknownBacking { kind: kind.clone() }),
        BackingKind::FlatVer2 | BackingKind::SparseVer2 | BackingKind::SeSparse | BackingKind::RdmVirtual => {
        }
    }
    if disk.backing.is_independent() {
        return Some(Unsuitable::Independent);
    }
    if disk.backing.sharing || controller.is_some_and(|controller| controller.sharing != BusSharing::None) {
        return Some(Unsuitable::Shared);
    }
    match disk.capacity_bytes {
        0 => Some(Unsuitable::Empty),
        bytes if bytes > DISK_SIZE_MAX => Some(Unsuitable::TooLarge { bytes }),
        _ if disk.address(&vm.controllers).is_none() => Some(Unsuitable::NoAddress),
        _ => None,
    }
}
