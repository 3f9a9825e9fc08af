//! What is asked of virtual machines and what is around them.

use super::changes::{ChangeId, ChangedPage, Doubt, RawArea, collect_changes};
use super::client::{Repeat, VCenter, malformed};
use super::devices::Devices;
use super::error::VSphereError;
use super::fault::FaultKind;
use super::model::{
    ConnectionState, Datacenter, MoRef, Power, SnapshotNode, VirtualDisk, VmInfo, VmSnapshot,
};
use super::properties::{self, Properties};
use super::soap::Question;
use super::text;
use super::xml::{Element, Wrong};
use crate::Extent;

/// All that is asked of a VM, in one question.
const VM_PATHS: [&str; 22] = [
    "name",
    "capability.changeTrackingSupported",
    "config.annotation",
    "config.changeTrackingEnabled",
    "config.files.vmPathName",
    "config.firmware",
    "config.guestFullName",
    "config.guestId",
    "config.hardware.device",
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "config.instanceUuid",
    "config.template",
    "config.uuid",
    "config.version",
    "guest.toolsRunningStatus",
    "runtime.connectionState",
    "runtime.consolidationNeeded",
    "runtime.host",
    "runtime.powerState",
    "snapshot.currentSnapshot",
    "snapshot.rootSnapshotList",
];

/// How many objects may be above a VM: folders, clusters and resource pools.
const PARENTS_MAX: usize = 64;

impl VCenter {
    /// Asks for a VM's configuration and state.
    ///
    /// # Errors
    /// [`VSphereError::Fault`] with `NoPermission` if a part of it may not be seen, with `ManagedObjectNotFound` if
    /// there is no such VM any longer.
    pub fn vm(&self, vm: &MoRef) -> Result<VmInfo, VSphereError> {
        let properties = self.properties(vm, &VM_PATHS)?;
        read_vm(vm, &properties).map_err(malformed(properties::METHOD))
    }

    /// Asks for the build number of a host's software.
    ///
    /// # Errors
    /// If the question is not answered.
    pub fn host_build(&self, host: &MoRef) -> Result<Option<String>, VSphereError> {
        const PATH: &str = "summary.config.product.build";
        Ok(self.properties(host, &[PATH])?.text(PATH))
    }

    /// Asks for the disks of a VM as a snapshot keeps them.
    ///
    /// # Errors
    /// If the question is not answered.
    pub fn snapshot_config(&self, snapshot: &MoRef) -> Result<VmSnapshot, VSphereError> {
        const PATH: &str = "config.hardware.device";
        let properties = self.properties(snapshot, &[PATH])?;
        let malformed = malformed(properties::METHOD);
        properties.need(PATH).map_err(&malformed)?;
        let devices = properties.read(PATH, Devices::read).map_err(&malformed)?.unwrap_or_default();
        let Devices { disks, controllers, networks: _ } = devices;
        Ok(VmSnapshot { snapshot: snapshot.clone(), disks, controllers })
    }

    /// Finds the datacenter that a VM is in.
    ///
    /// # Errors
    /// [`VSphereError::NotFound`] if none is above it, as the user may see it.
    pub fn datacenter_of(&self, vm: &MoRef) -> Result<Datacenter, VSphereError> {
        let mut at = self.parent(vm)?.0;
        let mut names = Vec::new();
        let mut datacenter = None;
        for _ in 0..PARENTS_MAX {
            let Some(object) = at else { break };
            let (above, name) = self.parent(&object)?;
            if datacenter.is_none() && object.kind == "Datacenter" {
                datacenter = Some((object, name.clone()));
            }
            // The folder at the root stands in no path.
            if datacenter.is_some() && above.is_some() {
                names.push(name);
            }
            at = above;
        }
        let none = || VSphereError::NotFound { path: format!("{vm} in a datacenter") };
        let (datacenter, name) = datacenter.ok_or_else(none)?;
        names.reverse();
        Ok(Datacenter { datacenter, name, path: names.join("/") })
    }

    /// Asks which areas of a disk may have changed between a change id and a snapshot, from an offset on.
    ///
    /// The answer is one page, as the server gave it: see [`collect_changes`](super::changes::collect_changes).
    ///
    /// # Errors
    /// [`VSphereError::Fault`] as the server refuses: a fault of files where changes are not known.
    pub fn query_changed_areas(
        &self,
        vm: &MoRef,
        snapshot: &MoRef,
        device_key: i32,
        start_offset: u64,
        change_id: &str,
    ) -> Result<ChangedPage, VSphereError> {
        let question = Question::new("QueryChangedDiskAreas", vm)
            .with_object("snapshot", snapshot)
            .with("deviceKey", device_key)
            .with("startOffset", start_offset)
            .with("changeId", change_id);
        let response = self.ask(&question, Repeat::Safe)?;
        read_changed_page(&response).map_err(malformed(question.method))
    }

    /// Asks for all areas of a disk that may have changed between a change id and a snapshot.
    ///
    /// Returns extents that are sorted, disjoint and do not touch, or why they are not known.
    ///
    /// # Errors
    /// If a question is not answered, or refused for another reason than that changes are not known.
    pub fn changed_areas(
        &self,
        vm: &MoRef,
        snapshot: &MoRef,
        disk: &VirtualDisk,
        since: &ChangeId,
    ) -> Result<Result<Vec<Extent>, Doubt>, VSphereError> {
        let collected = collect_changes(disk.capacity_bytes, |offset| {
            self.query_changed_areas(vm, snapshot, disk.key, offset, since.as_str())
        });
        collected.or_else(|error| doubt(error).map(Err))
    }

    /// What an object is in, and its name. A VM of a vApp is in no folder, but in the vApp.
    fn parent(&self, object: &MoRef) -> Result<(Option<MoRef>, String), VSphereError> {
        let paths: &[&str] = match object.kind.as_str() {
            "VirtualMachine" => &["name", "parent", "parentVApp"],
            _ => &["name", "parent"],
        };
        let properties = self.properties(object, paths)?;
        let malformed = malformed(properties::METHOD);
        let above = match properties.read("parent", Element::moref).map_err(&malformed)? {
            Some(parent) => Some(parent),
            None => properties.read("parentVApp", Element::moref).map_err(&malformed)?,
        };
        Ok((above, properties.text("name").unwrap_or_default()))
    }
}

/// What a refused question about changes means, unless it was refused for a reason that has to do with anything else.
fn doubt(error: VSphereError) -> Result<Doubt, VSphereError> {
    match error {
        VSphereError::Fault {
            kind:
                kind @ (FaultKind::File { .. }
                | FaultKind::InvalidArgument { .. }
                | FaultKind::NotSupported { .. }
                | FaultKind::InvalidState { .. }
                | FaultKind::Other { .. }),
            message,
            ..
        } => Ok(Doubt::Refused { fault: kind.name().to_owned(), message }),
        VSphereError::Malformed { what, .. } => Ok(Doubt::Unreadable { what }),
        error => Err(error),
    }
}

/// Reads the properties of a VM.
pub(super) fn read_vm(vm: &MoRef, properties: &Properties) -> Result<VmInfo, Wrong> {
    let devices = properties.read("config.hardware.device", Devices::read)?.unwrap_or_default();
    let mut snapshots = Vec::new();
    if let Some(trees) = properties.get("snapshot.rootSnapshotList") {
        read_snapshots(trees.children.iter(), None, &mut snapshots)?;
    }
    let version = properties.text("config.version");
    Ok(VmInfo {
        vm: vm.clone(),
        name: properties.need("name")?.text.clone(),
        instance_uuid: properties.text("config.instanceUuid"),
        bios_uuid: properties.text("config.uuid"),
        power: read_power(properties.need("runtime.powerState")?)?,
        connection: read_connection(properties.need("runtime.connectionState")?),
        is_template: properties.flag("config.template")?,
        hardware_version: version.and_then(|version| version.strip_prefix("vmx-")?.parse().ok()),
        change_tracking_supported: properties.flag("capability.changeTrackingSupported")?,
        change_tracking_enabled: properties.flag("config.changeTrackingEnabled")?,
        consolidation_needed: properties.flag("runtime.consolidationNeeded")?,
        tools_running: properties.text("guest.toolsRunningStatus").as_deref() == Some("guestToolsRunning"),
        guest_id: properties.text("config.guestId"),
        guest_name: properties.text("config.guestFullName"),
        firmware: properties.text("config.firmware"),
        cpus: properties.read("config.hardware.numCPU", Element::number)?,
        memory_mib: properties.read("config.hardware.memoryMB", Element::number)?,
        annotation: properties.text("config.annotation"),
        vmx_path: properties.text("config.files.vmPathName"),
        host: properties.read("runtime.host", Element::moref)?,
        disks: devices.disks,
        controllers: devices.controllers,
        networks: devices.networks,
        snapshots,
        current_snapshot: properties.read("snapshot.currentSnapshot", Element::moref)?,
    })
}

fn read_power(value: &Element) -> Result<Power, Wrong> {
    match value.text.trim() {
        "poweredOn" => Ok(Power::On),
        "poweredOff" => Ok(Power::Off),
        "suspended" => Ok(Power::Suspended),
        other => Err(Wrong(format!("runtime.powerState: {} is unknown", text::excerpt(other)))),
    }
}

fn read_connection(value: &Element) -> ConnectionState {
    match value.text.trim() {
        "connected" => ConnectionState::Connected,
        "disconnected" => ConnectionState::Disconnected,
        "inaccessible" => ConnectionState::Inaccessible,
        "invalid" => ConnectionState::Invalid,
        "orphaned" => ConnectionState::Orphaned,
        other => ConnectionState::Other(other.to_owned()),
    }
}

/// Adds snapshots and those that stand on them; the depth is that of the answer, which is limited.
fn read_snapshots<'a>(
    trees: impl Iterator<Item = &'a Element>,
    parent: Option<&MoRef>,
    found: &mut Vec<SnapshotNode>,
) -> Result<(), Wrong> {
    for tree in trees {
        let snapshot = tree.need("snapshot")?.moref()?;
        let create_time = tree.string("createTime")?;
        found.push(SnapshotNode {
            snapshot: snapshot.clone(),
            name: tree.string("name")?,
            description: tree.child("description").map(|text| text.text.clone()).unwrap_or_default(),
            create_millis: text::millis(&create_time),
            create_time,
            quiesced: tree.flag("quiesced")?,
            parent: parent.cloned(),
        });
        let children: Vec<&Element> = tree.all("childSnapshotList").collect();
        read_snapshots(children.into_iter(), Some(&snapshot), found)?;
    }
    Ok(())
}

/// Reads a page of changed areas, without judging it.
pub(super) fn read_changed_page(response: &Element) -> Result<ChangedPage, Wrong> {
    let page = response.need("returnval")?;
    let areas = page.all("changedArea").map(|area| {
        Ok(RawArea { start: area.needed_number("start")?, length: area.needed_number("length")? })
    });
    Ok(ChangedPage {
        start_offset: page.needed_number("startOffset")?,
        length: page.needed_number("length")?,
        areas: areas.collect::<Result<_, Wrong>>()?,
    })
}
