//! Hot-adding: the disk is attached to the VM that this program runs in, and read as a device.
//!
//! To be read, the disk is attached so that writes to it are dropped, and it is never written to; to be written, so that
//! they reach its file at once. Its files belong to another VM and are not deleted when it is detached.

use super::devices::{BlockDevice, Devices, Found, Wanted, choose, wwid_of};
use super::error::TransportError;
use super::{AddController, Reader, descriptor, proxy};
use crate::DiskSource;
use crate::source::RawImage;
use crate::vsphere::fault::FaultKind;
use crate::vsphere::model::{
    Backing, BackingKind, BusSharing, Controller, ControllerKind, MoRef, VirtualDisk, VmInfo,
};
use crate::vsphere::tasks::{AttachDisk, AttachMode};
use crate::vsphere::waiting::{WaitError, Waiter};
use std::time::Duration;

/// The places of a SCSI controller, one of which is its own.
const UNITS: std::ops::Range<i32> = 0..16;
const OWN_UNIT: i32 = 7;
/// SCSI controllers that a VM may have.
const BUSES: std::ops::Range<i32> = 0..4;
/// How often a place is chosen that another one takes meanwhile.
const ATTEMPTS: u32 = 5;

/// How long the kernel may take to notice a device: while nothing is read, the snapshot grows.
const DEVICE_PATIENCE: Duration = Duration::from_mins(2);

const ATTACH: &str = "attach the disk to this virtual machine";
const ADD_CONTROLLER: &str = "add a SCSI controller to this virtual machine";
const DETACH: &str = "detach the disk from this virtual machine";
const LOOK: &str = "look at the virtual machine that disks are attached to";

/// An attached disk.
#[derive(Debug)]
pub(super) struct HotAdded {
    image: RawImage,
    attached: Attached,
}

impl HotAdded {
    pub(super) fn source(&self) -> &dyn DiskSource {
        &self.image
    }

    pub(super) fn close(self, waiter: &Waiter<'_>) -> Result<(), TransportError> {
        // The device has to be unused before it goes away.
        drop(self.image);
        self.attached.detach(waiter).map_err(|source| self.attached.still_there(None, source))
    }
}

/// A disk of another VM that a proxy has.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) proxy: MoRef,
    pub(super) proxy_name: String,
    pub(super) file: String,
    /// The file that the proxy lists: the same, or one for what is written to it.
    listed: Option<String>,
    /// The device's key, which is its own as long as it is attached.
    pub(super) key: i32,
    mode: AttachMode,
    files: Files,
}

/// What becomes of a disk's files when it is detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// They stay.
    Kept,
    /// They are deleted: they were made to be written, and are not complete.
    Deleted,
}

impl Attached {
    pub(super) fn of(proxy: &VmInfo, disk: &VirtualDisk, file: &str, mode: AttachMode) -> Self {
        Self {
            proxy: proxy.vm.clone(),
            proxy_name: proxy.name.clone(),
            file: file.to_owned(),
            listed: disk.backing.file.clone(),
            key: disk.key,
            mode,
            files: Files::Kept,
        }
    }

    /// The same with what becomes of its files.
    pub(super) fn with(self, files: Files) -> Self {
        Self { files, ..self }
    }

    /// Detaches the disk, and nothing else that may have its key by now.
    pub(super) fn detach(&self, waiter: &Waiter<'_>) -> Result<(), WaitError> {
        if self.is_there(waiter)? {
            let started = match self.files {
                Files::Kept => waiter.vcenter.detach_disk(&self.proxy, self.key),
                Files::Deleted => waiter.vcenter.destroy_disk(&self.proxy, self.key),
            };
            waiter.task(DETACH, started)?;
            waiter.until(DETACH, || Ok(!self.is_there(waiter)?))?;
        }
        Ok(())
    }

    fn is_there(&self, waiter: &Waiter<'_>) -> Result<bool, WaitError> {
        let asking = |source| WaitError::Asking { what: LOOK, source };
        let now = waiter.vcenter.vm(&self.proxy).map_err(asking)?;
        let is_it = |disk: &VirtualDisk| {
            disk.key == self.key && (is_of(disk, &self.file, self.mode) || disk.backing.file == self.listed)
        };
        Ok(now.disks.iter().any(is_it))
    }

    /// Says that the disk could not be detached.
    pub(super) fn still_there(self, after: Option<TransportError>, source: WaitError) -> TransportError {
        TransportError::StillAttached {
            proxy: self.proxy_name,
            file: self.file,
            after: after.map(Box::new),
            source,
        }
    }

    /// Detaches the disk after a failure, and returns that.
    pub(super) fn detach_after(self, waiter: &Waiter<'_>, error: TransportError) -> TransportError {
        match self.detach(waiter) {
            Ok(()) => error,
            Err(source) => self.still_there(Some(error), source),
        }
    }
}

/// Whether a disk of a proxy is this one, attached in this mode. What is written to one that is attached to be read goes to
/// a file above it.
pub(super) fn is_of(disk: &VirtualDisk, file: &str, mode: AttachMode) -> bool {
    let backing = &disk.backing;
    let is_file = |found: &Option<String>| found.as_deref() == Some(file);
    let is_above = mode == AttachMode::Reading && is_file(&backing.parent_file);
    backing.mode.as_deref() == Some(mode.word()) && (is_file(&backing.file) || is_above)
}

/// Finds out whether a disk could be attached.
pub(super) fn check(reader: &Reader<'_, '_>, disk: &VirtualDisk) -> Result<(), TransportError> {
    attachable(disk)?;
    let proxy = proxy::fit(reader)?;
    Devices::of(&reader.settings.root).list()?;
    match free_place(&proxy) {
        Some(_) => Ok(()),
        None => bus_to_add(reader, &proxy).map(drop),
    }
}

/// Attaches a disk and opens its device.
pub(super) fn open(reader: &Reader<'_, '_>, disk: &VirtualDisk) -> Result<HotAdded, TransportError> {
    let file = attachable(disk)?;
    let proxy = proxy::fit(reader)?;
    let before = Devices::of(&reader.settings.root).list()?;
    let (attached, device) =
        attach(reader, proxy, &Wish { file, mode: AttachMode::Reading, new_bytes: None })?;
    let wanted = wanted(disk, &device);
    match open_device(reader, &attached, &wanted, &before) {
        Ok((image, _)) => Ok(HotAdded { image, attached }),
        Err(error) => Err(attached.detach_after(&reader.cleaning, error)),
    }
}

/// What the device of an attached disk looks like.
pub(super) fn wanted(disk: &VirtualDisk, device: &VirtualDisk) -> Wanted {
    Wanted {
        wwids: [&disk.backing, &device.backing].into_iter().filter_map(wwid).collect(),
        size: disk.capacity_bytes,
        unit: device.unit_number.unwrap_or_default(),
    }
}

fn wwid(backing: &Backing) -> Option<String> {
    backing.uuid.as_deref().and_then(wwid_of)
}

pub(super) fn attachable(disk: &VirtualDisk) -> Result<&str, TransportError> {
    let file = descriptor(disk)?;
    match disk.backing.kind {
        BackingKind::RdmPhysical => Err(TransportError::NotAttachable { file: file.to_owned() }),
        _ => Ok(file),
    }
}

/// Which disk is to be attached, and how.
pub(super) struct Wish<'a> {
    pub(super) file: &'a str,
    pub(super) mode: AttachMode,
    /// The length that it is made with, if it is.
    pub(super) new_bytes: Option<u64>,
}

/// Attaches a disk at a free place, at another one if somebody else takes that meanwhile.
pub(super) fn attach(
    reader: &Reader<'_, '_>,
    mut proxy: VmInfo,
    &Wish { file, mode, new_bytes }: &Wish<'_>,
) -> Result<(Attached, VirtualDisk), TransportError> {
    let vcenter = reader.waiter.vcenter;
    let files = if new_bytes.is_some() { Files::Deleted } else { Files::Kept };
    let attached = |now: &VmInfo, found: &VirtualDisk| Attached::of(now, found, file, mode).with(files);
    let mut attempts_left = ATTEMPTS;
    loop {
        attempts_left -= 1;
        let (controller_key, unit_number) = place(reader, &mut proxy)?;
        let disk = AttachDisk { controller_key, unit_number, file: file.to_owned(), mode, new_bytes };
        let done = start(reader, &proxy, &disk);
        let now = match vcenter.vm(&proxy.vm) {
            Ok(now) => now,
            Err(source) => {
                let after = done.err().map(|error| Box::new(error.into()));
                let source = WaitError::Asking { what: LOOK, source };
                let (proxy, file) = (proxy.name, file.to_owned());
                return Err(TransportError::StillAttached { proxy, file, after, source });
            }
        };
        let there = now.disks.iter().find(|found| is_at(found, &disk));
        match (done, there) {
            (Ok(()), Some(found)) if found.backing.mode.as_deref() == Some(mode.word()) => {
                return Ok((attached(&now, found), found.clone()));
            }
            // One that is read could be written to, and what is below it is the VM's; or what is written may be dropped.
            (Ok(()), Some(found)) => {
                let other = found.backing.mode.clone().unwrap_or_default();
                let (name, disk) = (now.name.clone(), file.to_owned());
                let error = TransportError::OtherMode { proxy: name, file: disk, mode: other };
                return Err(attached(&now, found).detach_after(&reader.cleaning, error));
            }
            (Ok(()), None) => {
                return Err(TransportError::NotListed { proxy: now.name, file: file.to_owned() });
            }
            // That it failed does not mean that it was not done.
            (Err(error), Some(found)) if is_of(found, file, mode) => {
                return Err(attached(&now, found).detach_after(&reader.cleaning, error.into()));
            }
            (Err(error), there) => {
                let came_second = there.is_some() || is_busy(&error);
                if !came_second || attempts_left == 0 {
                    return Err(error.into());
                }
            }
        }
        proxy = now;
    }
}

/// Starts to attach a disk, and waits until that is over in any case. What came of it is seen at the proxy.
fn start(reader: &Reader<'_, '_>, proxy: &VmInfo, disk: &AttachDisk) -> Result<(), WaitError> {
    let vcenter = reader.waiter.vcenter;
    let started = vcenter.attach_disk(&proxy.vm, disk);
    let task = started.as_ref().ok().cloned();
    let done = reader.waiter.task(ATTACH, started);
    let may_go_on = match (&done, task) {
        (Err(WaitError::Interrupted { .. } | WaitError::Late { .. }), Some(task)) => vec![task],
        // Without an answer nobody knows which task it is, or whether there is one.
        (Err(WaitError::Asking { source, .. }), _) if source.fault().is_none() => {
            vcenter.recent_tasks(&proxy.vm).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    for task in may_go_on {
        let _over = reader.cleaning.task(ATTACH, Ok(task));
    }
    done.map(drop)
}

/// Whether another task was in the way.
fn is_busy(error: &WaitError) -> bool {
    let kind = match error {
        WaitError::Failed { fault, .. } => Some(&fault.kind),
        WaitError::Asking { source, .. } => source.fault(),
        _ => None,
    };
    kind == Some(&FaultKind::TaskInProgress)
}

fn is_at(disk: &VirtualDisk, place: &AttachDisk) -> bool {
    disk.controller_key == Some(place.controller_key) && disk.unit_number == Some(place.unit_number)
}

/// A free place of the proxy, at a new controller if need be.
fn place(reader: &Reader<'_, '_>, proxy: &mut VmInfo) -> Result<(i32, i32), TransportError> {
    if let Some(place) = free_place(proxy) {
        return Ok(place);
    }
    let bus = bus_to_add(reader, proxy)?;
    let Waiter { vcenter, .. } = reader.waiter;
    reader.waiter.task(ADD_CONTROLLER, vcenter.add_scsi_controller(&proxy.vm, bus))?;
    *proxy = vcenter.vm(&proxy.vm).map_err(|source| TransportError::Asking { what: LOOK, source })?;
    free_place(proxy).ok_or_else(|| TransportError::NoFreeUnit { proxy: proxy.name.clone() })
}

/// The first free place at a paravirtual SCSI controller that no other VM shares: its key and the unit.
fn free_place(proxy: &VmInfo) -> Option<(i32, i32)> {
    free_place_at(proxy, &[ControllerKind::ParaVirtualScsi])
}

/// The same at any SCSI controller.
pub(in crate::vsphere) fn free_scsi_place(vm: &VmInfo) -> Option<(i32, i32)> {
    free_place_at(vm, &[ControllerKind::ParaVirtualScsi, ControllerKind::Scsi])
}

fn free_place_at(proxy: &VmInfo, kinds: &[ControllerKind]) -> Option<(i32, i32)> {
    let usable =
        |controller: &&Controller| kinds.contains(&controller.kind) && controller.sharing == BusSharing::None;
    let mut controllers: Vec<&Controller> = proxy.controllers.iter().filter(usable).collect();
    controllers.sort_by_key(|controller| controller.bus_number);
    controllers.into_iter().find_map(|controller| {
        let is_taken = |unit: i32| {
            let at = (Some(controller.key), Some(unit));
            proxy.disks.iter().any(|disk| (disk.controller_key, disk.unit_number) == at)
        };
        let unit = UNITS.into_iter().find(|unit| *unit != OWN_UNIT && !is_taken(*unit))?;
        Some((controller.key, unit))
    })
}

/// The bus number that another controller of a proxy without a free place may have.
fn bus_to_add(reader: &Reader<'_, '_>, proxy: &VmInfo) -> Result<i32, TransportError> {
    if reader.settings.add_controller == AddController::Never {
        return Err(TransportError::NoFreeUnit { proxy: proxy.name.clone() });
    }
    free_bus(&proxy.controllers).ok_or_else(|| TransportError::NoFreeBus { proxy: proxy.name.clone() })
}

/// The first number that no SCSI controller of either kind has.
fn free_bus(controllers: &[Controller]) -> Option<i32> {
    let is_scsi = |controller: &&Controller| {
        matches!(controller.kind, ControllerKind::ParaVirtualScsi | ControllerKind::Scsi)
    };
    BUSES
        .into_iter()
        .find(|bus| controllers.iter().filter(is_scsi).all(|controller| controller.bus_number != *bus))
}

/// Waits for the device of an attached disk, and opens it for reading.
pub(super) fn open_device(
    reader: &Reader<'_, '_>,
    attached: &Attached,
    wanted: &Wanted,
    before: &[BlockDevice],
) -> Result<(RawImage, BlockDevice), TransportError> {
    let devices = Devices::of(&reader.settings.root);
    let device = wait_for_device(reader, attached, wanted, before)?;
    let (path, file) = (devices.node(&device), attached.file.clone());
    let image =
        devices.is_node_of(&device).and_then(|is_it| is_it.then(|| RawImage::open(&path)).transpose());
    let image = image.map_err(|source| TransportError::OpenDevice { file: file.clone(), source })?;
    // It could have gone away, and another one have come by its name, before it was opened.
    let is_still_it = choose(wanted, before, &devices.list()?) == Found::One(device.clone());
    let Some(image) = image.filter(|_| is_still_it) else {
        return Err(TransportError::OtherDevice { path, file });
    };
    if image.size() == wanted.size {
        return Ok((image, device));
    }
    let (found, expected) = (image.size(), wanted.size);
    Err(TransportError::OtherSize { place: path.display().to_string(), found, expected })
}

fn wait_for_device(
    reader: &Reader<'_, '_>,
    attached: &Attached,
    wanted: &Wanted,
    before: &[BlockDevice],
) -> Result<BlockDevice, TransportError> {
    let devices = Devices::of(&reader.settings.root);
    let mut rescan = None;
    let mut found = None;
    let waiter = Waiter { patience: reader.waiter.patience.min(DEVICE_PATIENCE), ..reader.waiter };
    let looked = waiter.until("find the device of the attached disk", || {
        match devices.list().map(|now| choose(wanted, before, &now)) {
            // Its file may come a moment later.
            Ok(Found::One(device)) if devices.node(&device).exists() => found = Some(Ok(device)),
            Ok(Found::Nothing | Found::One(_)) => rescan = devices.rescan().err().map(|error| error.kind()),
            Ok(Found::Several(devices)) => {
                found = Some(Err(TransportError::SeveralDevices { file: attached.file.clone(), devices }));
            }
            Err(error) => found = Some(Err(error)),
        }
        Ok(found.is_some())
    });
    match (looked, found) {
        (Ok(()), Some(found)) => found,
        (Err(WaitError::Late { after, .. }), _) => {
            let (proxy, file) = (attached.proxy_name.clone(), attached.file.clone());
            Err(TransportError::DeviceMissing { proxy, file, after, rescan })
        }
        (Err(error), _) => Err(error.into()),
        (Ok(()), None) => unreachable!("it waits until something is found"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsphere::model::ConnectionState;
    use crate::vsphere::model::Power;

    fn controller(kind: ControllerKind, bus_number: i32, sharing: BusSharing) -> Controller {
        let device_type = "a type".to_owned();
        Controller { key: 1000 + bus_number, kind, device_type, bus_number, sharing }
    }

    fn disk(controller_key: i32, unit_number: i32) -> VirtualDisk {
        VirtualDisk {
            key: 2000 + unit_number,
            label: String::new(),
            controller_key: Some(controller_key),
            unit_number: Some(unit_number),
            capacity_bytes: 1 << 20,
            backing: Backing {
                kind: BackingKind::FlatVer2,
                file: Some("[ds] vm/vm.vmdk".to_owned()),
                uuid: None,
                change_id: None,
                mode: Some(AttachMode::Reading.word().to_owned()),
                sharing: false,
                thin: None,
                parent_file: None,
            },
        }
    }

    fn proxy(controllers: Vec<Controller>, disks: Vec<VirtualDisk>) -> VmInfo {
        VmInfo {
            vm: MoRef::new("VirtualMachine", "vm-1"),
            name: "proxy".to_owned(),
            instance_uuid: None,
            bios_uuid: None,
            power: Power::On,
            connection: ConnectionState::Connected,
            is_template: false,
            hardware_version: None,
            change_tracking_supported: false,
            change_tracking_enabled: false,
            consolidation_needed: false,
            tools_running: true,
            guest_id: None,
            guest_name: None,
            firmware: None,
            cpus: None,
            memory_mib: None,
            annotation: None,
            vmx_path: None,
            host: None,
            disks,
            controllers,
            networks: Vec::new(),
            snapshots: Vec::new(),
            current_snapshot: None,
        }
    }

    const PVSCSI: ControllerKind = ControllerKind::ParaVirtualScsi;

    #[test]
    fn fifteen_disks_fit_a_controller_and_unit_seven_is_its_own() {
        let mut vm = proxy(vec![controller(PVSCSI, 0, BusSharing::None)], Vec::new());
        let mut units = Vec::new();
        while let Some((key, unit)) = free_place(&vm) {
            assert_eq!(key, 1000);
            units.push(unit);
            vm.disks.push(disk(key, unit));
        }
        assert_eq!(units, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn only_paravirtual_controllers_that_nobody_shares_are_used() {
        let controllers = vec![
            controller(PVSCSI, 3, BusSharing::None),
            controller(ControllerKind::Scsi, 0, BusSharing::None),
            controller(PVSCSI, 1, BusSharing::Physical),
            controller(PVSCSI, 2, BusSharing::Virtual),
        ];
        let disks = vec![disk(1003, 0), disk(1000, 1)];
        let mut vm = proxy(controllers, disks);
        assert_eq!(free_place(&vm), Some((1003, 1)));
        assert_eq!(free_bus(&vm.controllers), None);
        vm.controllers.remove(0);
        assert_eq!(free_place(&vm), None);
        assert_eq!(free_bus(&vm.controllers), Some(3));
        vm.controllers.push(controller(ControllerKind::Nvme, 3, BusSharing::None));
        assert_eq!(free_bus(&vm.controllers), Some(3));
    }

    #[test]
    fn a_disk_is_known_by_its_file_and_the_mode_that_it_was_attached_in() {
        let mut attached = disk(1000, 0);
        assert!(is_of(&attached, "[ds] vm/vm.vmdk", AttachMode::Reading));
        assert!(!is_of(&attached, "[ds] vm/vm_1.vmdk", AttachMode::Reading));
        attached.backing.file = Some("[ds] vm/vm.vmdk-REDO_x".to_owned());
        assert!(!is_of(&attached, "[ds] vm/vm.vmdk", AttachMode::Reading));
        attached.backing.parent_file = Some("[ds] vm/vm.vmdk".to_owned());
        assert!(is_of(&attached, "[ds] vm/vm.vmdk", AttachMode::Reading));
        attached.backing.mode = Some("persistent".to_owned());
        assert!(!is_of(&attached, "[ds] vm/vm.vmdk", AttachMode::Reading));
        attached.backing.mode = Some("independent_persistent".to_owned());
        assert!(!is_of(&attached, "[ds] vm/vm.vmdk", AttachMode::Writing));
        attached.backing.file = Some("[ds] vm/vm.vmdk".to_owned());
        assert!(is_of(&attached, "[ds] vm/vm.vmdk", AttachMode::Writing));
        assert!(!is_of(&attached, "[ds] vm/vm.vmdk", AttachMode::Reading));
    }
}
