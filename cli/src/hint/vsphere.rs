//! What to do next about a virtual machine in vSphere.

use keepstone_engine::vsphere::preflight::{Finding, Unsuitable};
use keepstone_engine::vsphere::{
    DiskError, FaultKind, GuardError, MachineError, Refusal, TransportError, Unwritable, VSphereError,
    WaitError,
};
use std::error::Error;

/// The advice for an error of a vCenter, if it is one.
pub(super) fn advice(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<VSphereError>() {
        return server(error);
    }
    if let Some(MachineError::Unfit { found }) = cause.downcast_ref() {
        return found.iter().find_map(finding);
    }
    if let Some(error) = cause.downcast_ref::<DiskError>() {
        return disk(error);
    }
    if let Some(error) = cause.downcast_ref::<GuardError>() {
        return guard(error);
    }
    if let Some(error) = cause.downcast_ref::<TransportError>() {
        return transport(error);
    }
    cause.downcast_ref().and_then(waiting)
}

/// The advice for a disk that is not restored to.
fn disk(error: &DiskError) -> Option<&'static str> {
    match error {
        DiskError::Unfit { found } => found.iter().find_map(refusal),
        DiskError::StillTracked { .. } => Some(
            "switch change tracking off by hand, make a snapshot of the VM and remove it, and restore again; else the next \
             incremental backup would be wrong",
        ),
        DiskError::Transport { source: TransportError::StillAttached { .. }, .. }
        | DiskError::Leftovers(TransportError::StillAttached { .. }) => Some(
            "the next restore onto this VM from this host detaches the disk; until then the VM cannot be started",
        ),
        DiskError::Making { source: TransportError::StillAttached { .. }, .. } => {
            Some("the next restore onto this VM from this host detaches the disk and deletes it")
        }
        _ => None,
    }
}

fn refusal(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal {
        Refusal::Running => "shut it down; --force switches it off without asking its guest",
        Refusal::Suspended => "resume it and shut it down, or power it off and lose its memory",
        Refusal::Snapshots { .. } => {
            "remove or consolidate them in vCenter, or restore to another VM; a backup removes those that backups left"
        }
        Refusal::NoSuchDisk { .. } => "name one of them with --to-disk",
        Refusal::TooSmall { .. } => "make the VM's disk larger, or name another one with --to-disk",
        Refusal::Unreachable { .. } => "look at the VM's host and datastores in vCenter",
        Refusal::Template => "make a VM of it first",
        Refusal::NoPlace => {
            "add a SCSI controller to the VM, or restore over one of its disks with --overwrite"
        }
        Refusal::MissingPrivileges { .. } => "docs/vmware.md lists the privileges that the user needs",
        Refusal::Unwritable { why: Unwritable::Delta { .. }, .. } => {
            "it is a linked clone, or its snapshots were not merged: consolidate it in vCenter, or restore to another disk"
        }
        Refusal::Unwritable { .. } => "restore to another disk with --to-disk",
        _ => return None,
    })
}

fn waiting(error: &WaitError) -> Option<&'static str> {
    match error {
        WaitError::Late { .. } => Some("look at the VM's tasks in vCenter; --task-timeout waits longer"),
        WaitError::Failed { fault, .. } => fault_kind(&fault.kind),
        _ => None,
    }
}

fn transport(error: &TransportError) -> Option<&'static str> {
    Some(match error {
        TransportError::Waiting(error) => return waiting(error),
        TransportError::NoWay { .. } => {
            "docs/vmware.md tells what each way needs; `keepstone vsphere check` tries them without a snapshot"
        }
        TransportError::NotAVm { .. }
        | TransportError::NoSuchProxy { .. }
        | TransportError::OwnUuid { .. } => {
            "hotadd needs this program to run in a VM of the same vCenter; --proxy-vm names it"
        }
        TransportError::NoFreeUnit { .. } | TransportError::NoFreeBus { .. } => {
            "detach disks from the proxy that it does not need, or back up fewer VMs at a time by it"
        }
        TransportError::SeveralDevices { .. } | TransportError::DeviceMissing { .. } => {
            "set disk.EnableUUID to TRUE for the proxy, so that its devices tell which disk they are"
        }
        TransportError::Privileges { .. } => "docs/vmware.md lists the privileges that the user needs",
        TransportError::StillAttached { .. } => "the next backup of this VM detaches it",
        TransportError::OnlyReads { .. } => "leave --transport out, or use hotadd",
        TransportError::NoVddk | TransportError::NotVddk { .. } => "name VMware's VDDK with --vddk-dir",
        TransportError::NbdkitStart { .. } => "install nbdkit with its vddk plugin, or name it with --nbdkit",
        _ => return None,
    })
}

/// The advice for a finding of the preflight.
pub(crate) fn finding(finding: &Finding) -> Option<&'static str> {
    Some(match finding {
        Finding::Unreachable { .. } => "look at the VM's host and datastores in vCenter",
        Finding::NoDisks | Finding::NoSuchDisk { .. } => "check --exclude-disk",
        Finding::Unsuitable { why: Unsuitable::TooLarge { .. } | Unsuitable::Empty, .. } => {
            "leave the disk out with --exclude-disk KEY"
        }
        Finding::Unsuitable { .. } => {
            "leave the disk out with --exclude-disk KEY and back it up in the guest, or change its mode"
        }
        Finding::TrackingDisabled => "every backup reads everything; --enable-change-tracking switches it on",
        Finding::TrackingBlocked { .. } => {
            "every backup reads everything; remove the snapshots, then add --enable-change-tracking"
        }
        Finding::TrackingUnsupported { .. } => {
            "every backup reads everything; upgrade the VM's virtual hardware to change that"
        }
        Finding::MissingPrivileges { .. } => "docs/vmware.md lists the privileges that the user needs",
        _ => return None,
    })
}

fn server(error: &VSphereError) -> Option<&'static str> {
    Some(match error {
        VSphereError::Connection { .. } => {
            "check the host and the port, and the network; proxies of the environment are not used"
        }
        VSphereError::Tls { .. } => {
            "give the authority of the server's certificate with --vsphere-ca, or its thumbprint with \
             --vsphere-thumbprint"
        }
        VSphereError::TlsSetup(_) => "check the file of --vsphere-ca: authorities in PEM",
        VSphereError::WrongThumbprint { .. } => {
            "if the certificate was renewed, ask who runs the server for the new thumbprint before you trust it"
        }
        VSphereError::WrongLogin { .. } => {
            "check --vsphere-user and where its password comes from: --vsphere-password-file, \
             --vsphere-password-command, KEEPSTONE_VSPHERE_PASSWORD or the profile"
        }
        VSphereError::NotFound { .. } => {
            "check the path: the datacenter and folders count, and a / in a name is written %2f; `govc find / -type m` \
             lists them"
        }
        VSphereError::Malformed { .. } | VSphereError::Status { .. } | VSphereError::TooLong { .. } => {
            "check that the host is a vCenter Server or an ESXi host"
        }
        VSphereError::Fault { kind, .. } => return fault_kind(kind),
        _ => return None,
    })
}

fn fault_kind(kind: &FaultKind) -> Option<&'static str> {
    Some(match kind {
        FaultKind::NoPermission { .. } => "docs/vmware.md lists the privileges that the user needs",
        FaultKind::ApplicationQuiesce | FaultKind::FilesystemQuiesce => {
            "look at VMware Tools and at the event log in the guest; --quiesce preferred goes on without"
        }
        FaultKind::NoDiskSpace => "make room on the VM's datastores",
        FaultKind::TaskInProgress => "wait until the VM's other task is done",
        FaultKind::ManagedObjectNotFound { .. } => "it may have been removed meanwhile; check the inventory",
        _ => return None,
    })
}

fn guard(error: &GuardError) -> Option<&'static str> {
    Some(match error {
        GuardError::MayBeRunning { .. } => {
            "wait until it is done; if no backup of this VM runs on any host, add --take-over"
        }
        GuardError::Wait(error) => return waiting(error),
        GuardError::Remains { .. } | GuardError::NotConsolidated => {
            "look at the VM's snapshots and disks in vCenter, and consolidate them there"
        }
        GuardError::NotQuiesced => {
            "look at VMware Tools in the guest: they must run; --quiesce preferred goes on without"
        }
        GuardError::Journal(_) => "make room or name another directory with --cache-dir",
        _ => return None,
    })
}
