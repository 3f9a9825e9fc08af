//! What a test's virtual machines and disks are like.

/// Whether a virtual machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    On,
    /// It is powered off.
    Off,
    /// It is suspended.
    Suspended,
}

impl Power {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::On => "poweredOn",
            Self::Off => "poweredOff",
            Self::Suspended => "suspended",
        }
    }
}

/// Whether the changes of a virtual machine's disks are tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeTracking {
    /// The virtual machine cannot.
    Unsupported,
    /// It could, and does not.
    Off,
    /// They have been tracked since the virtual machine was added.
    On,
}

/// A kind of controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerKind {
    /// `ParaVirtualSCSIController`.
    ParaVirtualScsi,
    /// `VirtualLsiLogicSASController`.
    LsiLogicSas,
    /// `VirtualNVMEController`.
    Nvme,
    /// `VirtualAHCIController`.
    Ahci,
    /// `VirtualIDEController`.
    Ide,
}

impl ControllerKind {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::ParaVirtualScsi => "ParaVirtualSCSIController",
            Self::LsiLogicSas => "VirtualLsiLogicSASController",
            Self::Nvme => "VirtualNVMEController",
            Self::Ahci => "VirtualAHCIController",
            Self::Ide => "VirtualIDEController",
        }
    }

    pub(super) fn of_type(name: &str) -> Option<Self> {
        [Self::ParaVirtualScsi, Self::LsiLogicSas, Self::Nvme, Self::Ahci, Self::Ide]
            .into_iter()
            .find(|kind| kind.type_name() == name)
    }

    pub(super) fn is_scsi(self) -> bool {
        matches!(self, Self::ParaVirtualScsi | Self::LsiLogicSas)
    }

    /// Returns the key of the first controller of the kind.
    pub(super) fn first_key(self) -> i32 {
        match self {
            Self::ParaVirtualScsi | Self::LsiLogicSas => 1000,
            Self::Nvme => 31000,
            Self::Ahci => 15000,
            Self::Ide => 200,
        }
    }

    /// Returns the key of the disk at a unit of a controller.
    pub(super) fn disk_key(self, bus: i32, unit: i32) -> i32 {
        match self {
            Self::ParaVirtualScsi | Self::LsiLogicSas => 2000 + 16 * bus + unit,
            Self::Nvme => 32000 + 16 * bus + unit,
            Self::Ahci => 16000 + 30 * bus + unit,
            Self::Ide => 3000 + 2 * bus + unit,
        }
    }

    /// Returns the units that disks can take.
    pub(super) fn units(self) -> impl Iterator<Item = i32> {
        let (count, own) = match self {
            // Unit 7 is the controller's own.
            Self::ParaVirtualScsi | Self::LsiLogicSas => (16, Some(7)),
            Self::Nvme => (15, None),
            Self::Ahci => (30, None),
            Self::Ide => (2, None),
        };
        (0..count).filter(move |unit| Some(*unit) != own)
    }
}

/// A controller of a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControllerSpec {
    /// Its kind. The bus is the number of controllers of its kind before it.
    pub kind: ControllerKind,
    /// Whether other virtual machines share its bus (`physicalSharing`).
    pub bus_sharing: bool,
}

/// A kind of disk: what its backing says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// `VirtualDiskFlatVer2BackingInfo`.
    Flat,
    /// `VirtualDiskSparseVer2BackingInfo`.
    Sparse,
    /// `VirtualDiskSeSparseBackingInfo`.
    SeSparse,
    /// `VirtualDiskRawDiskMappingVer1BackingInfo`, `physicalMode`: no snapshot holds it.
    PhysicalMapping,
    /// `VirtualDiskRawDiskMappingVer1BackingInfo`, `virtualMode`.
    VirtualMapping,
}

impl DiskKind {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Flat => "VirtualDiskFlatVer2BackingInfo",
            Self::Sparse => "VirtualDiskSparseVer2BackingInfo",
            Self::SeSparse => "VirtualDiskSeSparseBackingInfo",
            Self::PhysicalMapping | Self::VirtualMapping => "VirtualDiskRawDiskMappingVer1BackingInfo",
        }
    }
}

/// How a disk takes part in snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskMode {
    /// It does.
    Persistent,
    /// It does not.
    IndependentPersistent,
    /// It does not, and loses what was written with the virtual machine's power.
    IndependentNonpersistent,
}

impl DiskMode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::IndependentPersistent => "independent_persistent",
            Self::IndependentNonpersistent => "independent_nonpersistent",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Persistent, Self::IndependentPersistent, Self::IndependentNonpersistent]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// A disk to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The capacity in bytes, in whole sectors of 512.
    pub size: u64,
    /// What its backing says.
    pub kind: DiskKind,
    /// How it takes part in snapshots.
    pub mode: DiskMode,
    /// Whether several virtual machines write to it (`sharingMultiWriter`).
    pub multi_writer: bool,
    /// Whether its backing says to be thin.
    pub thin: bool,
    /// Which of the virtual machine's controllers it is on, counted from 0.
    pub controller: usize,
    /// Its unit there; the first that is free if there is none.
    pub unit: Option<i32>,
    /// The backing's UUID; a new one if there is none.
    pub uuid: Option<String>,
    /// The datastore; the virtual machine's if there is none.
    pub datastore: Option<String>,
}

impl DiskSpec {
    /// A thin, flat, persistent disk.
    #[must_use]
    pub fn of(size: u64) -> Self {
        Self {
            size,
            kind: DiskKind::Flat,
            mode: DiskMode::Persistent,
            multi_writer: false,
            thin: true,
            controller: 0,
            unit: None,
            uuid: None,
            datastore: None,
        }
    }
}

/// A virtual machine to add. The default runs, with tools, version 19, tracked changes, and no disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Whether it runs.
    pub power: Power,
    /// Whether VMware Tools run in it.
    pub tools: bool,
    /// The version of its hardware: 19 for `vmx-19`.
    pub hardware_version: u32,
    /// Whether changes are tracked.
    pub change_tracking: ChangeTracking,
    /// Whether it is a template.
    pub template: bool,
    /// `bios` or `efi`.
    pub firmware: &'static str,
    /// The identifier of the guest's operating system.
    pub guest_id: &'static str,
    /// The notes of the virtual machine.
    pub annotation: String,
    /// The datastore of its files.
    pub datastore: String,
    /// Its controllers; one `ParaVirtualSCSIController` by default.
    pub controllers: Vec<ControllerSpec>,
    /// Its disks.
    pub disks: Vec<DiskSpec>,
}

impl Default for VmSpec {
    fn default() -> Self {
        Self {
            power: Power::On,
            tools: true,
            hardware_version: 19,
            change_tracking: ChangeTracking::On,
            template: false,
            firmware: "efi",
            guest_id: "ubuntu64Guest",
            annotation: String::new(),
            datastore: "datastore1".to_owned(),
            controllers: vec![ControllerSpec { kind: ControllerKind::ParaVirtualScsi, bus_sharing: false }],
            disks: Vec::new(),
        }
    }
}
