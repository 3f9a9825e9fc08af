//! Virtual machines, their disks, and what snapshots froze of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use super::areas::Lie;
use super::contents::Contents;
use super::random::Random;
use super::spec::{ChangeTracking, ControllerKind, DiskKind, DiskMode, DiskSpec, Power, VmSpec};
use super::tracking::Tracking;

/// A file on a datastore.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct File {
    pub(super) datastore: String,
    pub(super) path: String,
}

impl File {
    /// Reads `[DATASTORE] PATH`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (datastore, path) = text.strip_prefix('[')?.split_once("] ")?;
        Some(Self { datastore: datastore.to_owned(), path: path.to_owned() })
    }

    /// Returns the file that holds the data of a whole disk whose descriptor this is.
    pub(super) fn flat_path(&self) -> String {
        format!("{}-flat.vmdk", self.path.strip_suffix(".vmdk").unwrap_or(&self.path))
    }
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}", self.datastore, self.path)
    }
}

/// A controller.
#[derive(Debug, Clone)]
pub(super) struct Controller {
    pub(super) kind: ControllerKind,
    pub(super) key: i32,
    pub(super) bus: i32,
    pub(super) bus_sharing: bool,
}

/// Where a disk is from that was attached to a machine which does not own it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AttachedFrom {
    /// From a snapshot, with its id.
    Snapshot(String),
    /// From a virtual machine that does not run, with its id: what is written reaches its disk, and not what it knows of
    /// changes.
    Machine(String),
}

/// A disk; a clone, which shares the contents, is what a snapshot holds of it.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    /// Names it for the test, wherever it is moved.
    pub(super) number: u64,
    pub(super) key: i32,
    pub(super) controller: i32,
    pub(super) unit: i32,
    pub(super) kind: DiskKind,
    pub(super) mode: DiskMode,
    pub(super) multi_writer: bool,
    pub(super) thin: bool,
    pub(super) uuid: String,
    pub(super) contents: Contents,
    pub(super) tracking: Option<Tracking>,
    /// The file that it writes to, or wrote to when it was frozen.
    pub(super) file: File,
    /// The files below, the base first.
    pub(super) parents: Vec<File>,
    pub(super) lie: Option<Lie>,
    /// Whose disk it is, if it was attached here.
    pub(super) attached_from: Option<AttachedFrom>,
    /// The name of the device (`sdb`) that it appears as in a proxy.
    pub(super) device: Option<String>,
}

impl Disk {
    pub(super) fn takes_part_in_snapshots(&self) -> bool {
        self.mode == DiskMode::Persistent && self.kind != DiskKind::PhysicalMapping
    }

    pub(super) fn base(&self) -> &File {
        self.parents.first().unwrap_or(&self.file)
    }

    /// Begins or ends tracking, as is done where the virtual machine is stunned or powered.
    pub(super) fn settle_tracking(&mut self, wanted: bool, random: &mut Random) {
        if !wanted || !self.takes_part_in_snapshots() {
            self.tracking = None;
        } else if self.tracking.is_none() {
            self.tracking = Some(Tracking::start(random.epoch()));
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.contents.write(offset, bytes);
        self.mark(offset, bytes.len() as u64);
    }

    pub(super) fn discard(&mut self, offset: u64, len: u64) {
        self.contents.discard(offset, len);
        self.mark(offset, len);
    }

    fn mark(&mut self, offset: u64, len: u64) {
        if let Some(tracking) = &mut self.tracking {
            tracking.mark(offset, len);
        }
    }
}

/// A snapshot. One that was removed is kept, so that a client that still asks for it is known.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) number: i32,
    pub(super) vm: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) created: Timestamp,
    pub(super) power: Power,
    pub(super) quiesced: bool,
    pub(super) parent: Option<String>,
    pub(super) disks: Vec<Disk>,
    /// Whether the test made it as somebody else's.
    pub(super) foreign: bool,
    pub(super) removed: bool,
}

/// A virtual machine.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of vSphere's")]
pub(super) struct Machine {
    pub(super) name: String,
    /// The folder that it is in.
    pub(super) parent: String,
    pub(super) instance_uuid: String,
    pub(super) bios_uuid: String,
    pub(super) power: Power,
    pub(super) tools: bool,
    pub(super) connected: bool,
    pub(super) hardware_version: u32,
    pub(super) tracking_supported: bool,
    /// What the configuration says of tracking; the disks follow at the next snapshot or change of power.
    pub(super) tracking_wanted: bool,
    pub(super) template: bool,
    pub(super) firmware: &'static str,
    pub(super) guest_id: &'static str,
    pub(super) annotation: String,
    pub(super) file: File,
    pub(super) extra_config: BTreeMap<String, String>,
    pub(super) controllers: Vec<Controller>,
    pub(super) disks: Vec<Disk>,
    /// The snapshot below the disks as they are.
    pub(super) current: Option<String>,
    pub(super) consolidation_needed: bool,
    /// Files of removed snapshots that are still to be merged.
    pub(super) unmerged: Vec<String>,
    /// How many files for changes were ever made.
    pub(super) deltas: u32,
    /// Where its devices appear, if it is a proxy.
    pub(super) proxy: Option<PathBuf>,
}

impl Machine {
    pub(super) fn new(name: &str, parent: &str, spec: &VmSpec, random: &mut Random) -> Self {
        let mut controllers: Vec<Controller> = Vec::new();
        for spec in &spec.controllers {
            let alike = |other: &&Controller| other.kind.first_key() == spec.kind.first_key();
            let bus = i32::try_from(controllers.iter().filter(alike).count()).expect("controllers are few");
            let key = spec.kind.first_key() + bus;
            controllers.push(Controller { kind: spec.kind, key, bus, bus_sharing: spec.bus_sharing });
        }
        let tracked = spec.change_tracking == ChangeTracking::On;
        let file = File { datastore: spec.datastore.clone(), path: format!("{name}/{name}.vmx") };
        let mut machine = Self {
            name: name.to_owned(),
            parent: parent.to_owned(),
            instance_uuid: random.uuid("50"),
            bios_uuid: random.uuid("42"),
            power: spec.power,
            tools: spec.tools,
            connected: true,
            hardware_version: spec.hardware_version,
            tracking_supported: spec.change_tracking != ChangeTracking::Unsupported,
            tracking_wanted: tracked,
            template: spec.template,
            firmware: spec.firmware,
            guest_id: spec.guest_id,
            annotation: spec.annotation.clone(),
            file,
            extra_config: BTreeMap::new(),
            controllers,
            disks: Vec::new(),
            current: None,
            consolidation_needed: false,
            unmerged: Vec::new(),
            deltas: 0,
            proxy: None,
        };
        for disk in &spec.disks {
            machine.add_disk(disk, random);
        }
        machine
    }

    /// Adds a disk, and returns the number that names it.
    pub(super) fn add_disk(&mut self, spec: &DiskSpec, random: &mut Random) -> u64 {
        assert!(spec.size.is_multiple_of(512), "a disk of {} bytes is not in whole sectors", spec.size);
        let controller =
            self.controllers.get(spec.controller).expect("the virtual machine has the controller");
        let unit = spec.unit.or_else(|| self.free_unit(controller)).expect("the controller has a free unit");
        let stem = self.file.path.strip_suffix(".vmx").expect("the file's name ends so").to_owned();
        let suffix = match self.disks.len() {
            0 => String::new(),
            more => format!("_{more}"),
        };
        let datastore = spec.datastore.clone().unwrap_or_else(|| self.file.datastore.clone());
        let number = random.number();
        let mut disk = Disk {
            number,
            key: controller.kind.disk_key(controller.bus, unit),
            controller: controller.key,
            unit,
            kind: spec.kind,
            mode: spec.mode,
            multi_writer: spec.multi_writer,
            thin: spec.thin,
            uuid: spec.uuid.clone().unwrap_or_else(|| random.uuid("6000C29").to_uppercase()),
            contents: Contents::new(spec.size),
            tracking: None,
            file: File { datastore, path: format!("{stem}{suffix}.vmdk") },
            parents: Vec::new(),
            lie: None,
            attached_from: None,
            device: None,
        };
        disk.settle_tracking(self.tracking_wanted, random);
        self.disks.push(disk);
        number
    }

    /// Tells whether anything stands on the disks as they are.
    pub(super) fn has_snapshots(&self) -> bool {
        self.current.is_some() || !self.unmerged.is_empty()
    }

    pub(super) fn free_unit(&self, controller: &Controller) -> Option<i32> {
        let taken = |unit: &i32| {
            self.disks.iter().any(|disk| disk.controller == controller.key && disk.unit == *unit)
        };
        controller.kind.units().find(|unit| !taken(unit))
    }

    pub(super) fn controller(&self, key: i32) -> Option<&Controller> {
        self.controllers.iter().find(|controller| controller.key == key)
    }

    /// Begins or ends the tracking of every disk, as the configuration wants.
    pub(super) fn settle_tracking(&mut self, random: &mut Random) {
        for disk in &mut self.disks {
            disk.settle_tracking(self.tracking_wanted, random);
        }
    }
}
