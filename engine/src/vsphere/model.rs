//! What a vCenter tells of virtual machines.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A reference to a managed object, such as `VirtualMachine:vm-12`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoRef {
    /// The type of the object, such as `VirtualMachine`.
    pub kind: String,
    /// Its id, which says nothing by itself and is valid for one vCenter only.
    pub id: String,
}

impl MoRef {
    /// Names an object.
    #[must_use]
    pub fn new(kind: &str, id: &str) -> Self {
        Self { kind: kind.to_owned(), id: id.to_owned() }
    }
}

impl fmt::Display for MoRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.kind, self.id)
    }
}

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The product, such as `VMware vCenter Server`.
    pub name: String,
    /// Its version, such as `8.0.3`.
    pub version: String,
    /// Its build number.
    pub build: String,
    /// `VirtualCenter` or `HostAgent`.
    pub api_type: String,
    /// The id of this installation; hosts have none.
    pub instance_uuid: Option<String>,
}

/// A server's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerTime {
    /// As the server wrote it.
    pub text: String,
    /// Milliseconds since 1970 in UTC, if the text is a time with an offset.
    pub millis: Option<i64>,
}

/// Whether a VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    /// It runs.
    On,
    /// It does not.
    Off,
    /// Its memory is on disk.
    Suspended,
}

/// Whether the server can use a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConnectionState {
    /// It can.
    Connected,
    /// The VM's host does not answer.
    Disconnected,
    /// The VM's files cannot be read.
    Inaccessible,
    /// The VM's configuration is not valid.
    Invalid,
    /// The VM is no longer known to its host.
    Orphaned,
    /// Another word than those.
    #[serde(untagged)]
    Other(String),
}

/// A datacenter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Datacenter {
    /// The object.
    pub datacenter: MoRef,
    /// Its name, escaped as vSphere does it (`%2f` for a slash).
    pub name: String,
    /// Its inventory path: the names of folders above it and its own, with slashes between.
    pub path: String,
}

/// A VM, as it was when it was asked for.
///
/// What stands in a VM's configuration is missing while its host or its files cannot be reached; see
/// [`VmInfo::connection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own in the interface")]
pub struct VmInfo {
    /// The object.
    pub vm: MoRef,
    /// Its name, escaped as vSphere does it.
    pub name: String,
    /// The id by which vCenter tells VMs apart.
    pub instance_uuid: Option<String>,
    /// The id that the guest sees in its firmware.
    pub bios_uuid: Option<String>,
    /// Whether it runs.
    pub power: Power,
    /// Whether the server can use it.
    pub connection: ConnectionState,
    /// Whether it is a template, which is never powered on.
    pub is_template: bool,
    /// The version of its virtual hardware: 19 for `vmx-19`.
    pub hardware_version: Option<u32>,
    /// Whether changes of its disks can be tracked.
    pub change_tracking_supported: bool,
    /// Whether they are.
    pub change_tracking_enabled: bool,
    /// Whether files of removed snapshots are still in use.
    pub consolidation_needed: bool,
    /// Whether VMware Tools run in the guest, which quiescing needs.
    pub tools_running: bool,
    /// The kind of guest that was chosen, such as `debian12_64Guest`.
    pub guest_id: Option<String>,
    /// The same in words.
    pub guest_name: Option<String>,
    /// `bios` or `efi`.
    pub firmware: Option<String>,
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Notes about it.
    pub annotation: Option<String>,
    /// Its configuration file, `[datastore] directory/name.vmx`.
    pub vmx_path: Option<String>,
    /// The host that it runs on or is registered with.
    pub host: Option<MoRef>,
    /// Its disks, in the order of its devices.
    pub disks: Vec<VirtualDisk>,
    /// The controllers that disks are attached to.
    pub controllers: Vec<Controller>,
    /// Its network adapters.
    pub networks: Vec<NetworkAdapter>,
    /// Its snapshots, each behind the one that it stands on.
    pub snapshots: Vec<SnapshotNode>,
    /// The snapshot that it runs on.
    pub current_snapshot: Option<MoRef>,
}

impl VmInfo {
    /// The VM in the form of a snapshot, to find out what could be done with one. It is named by the VM.
    #[must_use]
    pub fn as_it_is(&self) -> VmSnapshot {
        VmSnapshot {
            snapshot: self.vm.clone(),
            disks: self.disks.clone(),
            controllers: self.controllers.clone(),
        }
    }
}

/// The disks of a VM as a snapshot keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VmSnapshot {
    /// The snapshot.
    pub snapshot: MoRef,
    /// Its disks, in the order of the VM's devices, with their change ids.
    pub disks: Vec<VirtualDisk>,
    /// The controllers that they are attached to.
    pub controllers: Vec<Controller>,
}

/// A virtual disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualDisk {
    /// Its key among the VM's devices.
    pub key: i32,
    /// Its label, such as `Hard disk 1`; in the server's language.
    pub label: String,
    /// The key of its controller.
    pub controller_key: Option<i32>,
    /// Its place at the controller.
    pub unit_number: Option<i32>,
    /// Its length in bytes.
    pub capacity_bytes: u64,
    /// What holds its data.
    pub backing: Backing,
}

impl VirtualDisk {
    /// Where the disk is attached, such as `scsi0:1` or `nvme0:0`, if its controller is among `controllers`.
    #[must_use]
    pub fn address(&self, controllers: &[Controller]) -> Option<String> {
        let key = self.controller_key?;
        let controller = controllers.iter().find(|controller| controller.key == key)?;
        let bus = controller.kind.bus();
        Some(format!("{bus}{}:{}", controller.bus_number, self.unit_number?))
    }
}

/// What holds a disk's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backing {
    /// How.
    pub kind: BackingKind,
    /// The disk's descriptor, `[datastore] directory/name.vmdk`.
    pub file: Option<String>,
    /// The disk's own id, which it keeps when it is renamed or moved.
    pub uuid: Option<String>,
    /// The point that changes can be counted from, if they are tracked.
    pub change_id: Option<String>,
    /// What a snapshot means to it: `persistent`, `independent_persistent`, `independent_nonpersistent` or another.
    pub mode: Option<String>,
    /// Whether several VMs may write to it at once.
    pub sharing: bool,
    /// Whether space is allocated when it is first written; unknown for some kinds.
    pub thin: Option<bool>,
    /// The descriptor of the disk that this one holds the changes of.
    pub parent_file: Option<String>,
}

impl Backing {
    /// Whether snapshots leave the disk alone.
    #[must_use]
    pub fn is_independent(&self) -> bool {
        self.mode.as_deref().is_some_and(|mode| mode.starts_with("independent"))
    }
}

/// How a disk's data is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackingKind {
    /// A file of the disk's length, or what a datastore has instead of one.
    FlatVer2,
    /// A file that grows.
    SparseVer2,
    /// A file of a snapshot that grows, and can shrink.
    SeSparse,
    /// A device that a guest speaks SCSI with, past the snapshots of its VM.
    RdmPhysical,
    /// A device that is used as if it were a file.
    RdmVirtual,
    /// A device of the host.
    RawVer2,
    /// Another type of backing.
    #[serde(untagged)]
    Other(String),
}

/// What disks are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// Its key among the VM's devices.
    pub key: i32,
    /// What it is.
    pub kind: ControllerKind,
    /// The vSphere type, such as `ParaVirtualSCSIController`.
    pub device_type: String,
    /// Its number among those of its kind.
    pub bus_number: i32,
    /// Whether other VMs may use its disks.
    pub sharing: BusSharing,
}

/// What a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ControllerKind {
    /// SCSI made for virtual machines.
    ParaVirtualScsi,
    /// SCSI as another adapter does it.
    Scsi,
    /// `NVMe`.
    Nvme,
    /// SATA.
    Sata,
    /// IDE.
    Ide,
}

impl ControllerKind {
    /// Its name in a disk's address.
    #[must_use]
    pub fn bus(self) -> &'static str {
        match self {
            Self::ParaVirtualScsi | Self::Scsi => "scsi",
            Self::Nvme => "nvme",
            Self::Sata => "sata",
            Self::Ide => "ide",
        }
    }
}

/// Whether other VMs may use the disks at a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BusSharing {
    /// None may.
    None,
    /// Those on the same host may.
    Virtual,
    /// Those on any host may.
    Physical,
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAdapter {
    /// Its label.
    pub label: String,
    /// The vSphere type, such as `VirtualVmxnet3`.
    pub kind: String,
    /// Its address.
    pub mac: Option<String>,
    /// What it is attached to: a network's name, or a distributed port group's key.
    pub network: Option<String>,
}

/// A snapshot of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotNode {
    /// The object.
    pub snapshot: MoRef,
    /// Its name, which need not be unique.
    pub name: String,
    /// What was written about it.
    pub description: String,
    /// When it was made, as the server wrote it.
    pub create_time: String,
    /// The same in milliseconds since 1970 in UTC, if that is a time with an offset.
    pub create_millis: Option<i64>,
    /// Whether the guest's file systems were quiesced.
    pub quiesced: bool,
    /// The snapshot that it stands on.
    pub parent: Option<MoRef>,
}
