//! `ReconfigVM_Task`: change tracking, options, and disks that are attached and detached.

use super::calls::check_privilege;
use super::contents::Contents;
use super::element::Element;
use super::fault::Fault;
use super::machine::{AttachedFrom, Controller, Disk, File, Machine};
use super::proxy;
use super::spec::{ControllerKind, DiskKind, DiskMode, Power};
use super::state::{State, Violation};
use super::tasks::{Work, start};
use super::value::Value;

/// How many controllers of a kind a virtual machine can have.
const BUSES: i32 = 4;

/// Answers `ReconfigVM_Task`.
pub(super) fn reconfigure(state: &mut State, vm: &str, call: &Element) -> Result<Value, Fault> {
    state.machine(vm)?;
    let spec = call.child("spec").ok_or_else(|| Fault::invalid_argument("spec"))?;
    check_privileges(state, vm, spec)?;
    let outcome = apply(state, vm, spec).map(|()| Value::Unset);
    Ok(start(state, "ReconfigVM_Task", vm, Work::Done(outcome)))
}

fn check_privileges(state: &State, vm: &str, spec: &Element) -> Result<(), Fault> {
    if spec.child("changeTrackingEnabled").is_some() {
        check_privilege(state, vm, "VirtualMachine.Config.ChangeTracking")?;
    }
    if spec.child("extraConfig").is_some() {
        check_privilege(state, vm, "VirtualMachine.Config.AdvancedConfig")?;
    }
    for change in spec.all("deviceChange") {
        let privilege = match change.text_of("operation") {
            Some("remove") => "VirtualMachine.Config.RemoveDisk",
            _ if change.text_of("fileOperation").is_some() => "VirtualMachine.Config.AddNewDisk",
            _ => "VirtualMachine.Config.AddExistingDisk",
        };
        check_privilege(state, vm, privilege)?;
    }
    Ok(())
}

fn apply(state: &mut State, vm: &str, spec: &Element) -> Result<(), Fault> {
    if let Some(wanted) = spec.flag_of("changeTrackingEnabled") {
        track(state, vm, wanted)?;
    }
    for option in spec.all("extraConfig") {
        let key = option.text_of("key").ok_or_else(|| Fault::invalid_argument("spec.extraConfig"))?;
        let value = option.text_of("value").unwrap_or_default();
        let options = &mut state.machine(vm)?.extra_config;
        match value {
            "" => drop(options.remove(key)),
            value => drop(options.insert(key.to_owned(), value.to_owned())),
        }
    }
    for (index, change) in spec.all("deviceChange").enumerate() {
        let device = change.child("device").ok_or_else(|| invalid_device(index, "device"))?;
        match change.text_of("operation") {
            Some("add") => attach(state, vm, index, change, device)?,
            Some("remove") => detach(state, vm, index, change, device)?,
            _ => return Err(invalid_device(index, "operation")),
        }
    }
    Ok(())
}

fn invalid_device(index: usize, property: &str) -> Fault {
    let message = format!("Invalid configuration for device '{index}'.");
    let property = format!("virtualDeviceSpec.{property}");
    Fault::new("InvalidDeviceSpec", &message)
        .with("property", &property)
        .with("deviceIndex", &index.to_string())
}

fn track(state: &mut State, vm: &str, wanted: bool) -> Result<(), Fault> {
    let machine = state.machine(vm)?;
    if wanted && (!machine.tracking_supported || machine.hardware_version < 7) {
        let message = "Changed-block tracking is not supported by the virtual machine.";
        return Err(Fault::new("NotSupported", message));
    }
    let over_snapshots = wanted && !machine.tracking_wanted && machine.current.is_some();
    let name = machine.name.clone();
    machine.tracking_wanted = wanted;
    if over_snapshots {
        state.violations.push(Violation::TrackingEnabledOverSnapshots { vm: name });
    }
    Ok(())
}

fn attach(
    state: &mut State,
    vm: &str,
    index: usize,
    change: &Element,
    device: &Element,
) -> Result<(), Fault> {
    let type_name = device.type_name().unwrap_or_default();
    if let Some(kind) = ControllerKind::of_type(type_name) {
        return add_controller(state, vm, index, device, kind);
    }
    if type_name != "VirtualDisk" {
        return Err(invalid_device(index, "device"));
    }
    let backing = device.child("backing").ok_or_else(|| invalid_device(index, "device.backing"))?;
    let name = backing.text_of("fileName").unwrap_or_default();
    let file = File::parse(name).ok_or_else(|| invalid_device(index, "device.backing.fileName"))?;
    let mode = backing.text_of("diskMode").unwrap_or_default();
    let mode = DiskMode::parse(mode).ok_or_else(|| invalid_device(index, "device.backing.diskMode"))?;
    let place = place(state.machine(vm)?, index, device)?;
    let disk = match change.text_of("fileOperation") {
        None => existing(state, &file, mode)?,
        Some("create") => created(state, index, device, backing, file)?,
        Some(_) => return Err(invalid_device(index, "fileOperation")),
    };
    let own = disk.attached_from.is_none();
    let mut disk = Disk { key: place.key, controller: place.controller, unit: place.unit, mode, ..disk };
    let State { machines, random, .. } = state;
    let machine = machines.get_mut(vm).expect("it was just found");
    if own {
        disk.settle_tracking(machine.tracking_wanted && machine.power == Power::On, random);
    }
    machine.disks.push(disk);
    proxy::show_devices(state, vm);
    Ok(())
}

/// A free place of a virtual machine.
struct Place {
    key: i32,
    controller: i32,
    unit: i32,
}

fn place(machine: &Machine, index: usize, device: &Element) -> Result<Place, Fault> {
    let key: i32 =
        device.number_of("controllerKey").ok_or_else(|| invalid_device(index, "device.controllerKey"))?;
    let controller = machine.controller(key).ok_or_else(|| invalid_device(index, "device.controllerKey"))?;
    let unit = match device.number_of::<i32>("unitNumber").filter(|unit| *unit >= 0) {
        None => machine.free_unit(controller).ok_or_else(|| {
            Fault::new("TooManyDevices", "The maximum number of devices for the controller is exceeded.")
        })?,
        Some(unit) => {
            let taken = machine.disks.iter().any(|disk| disk.controller == key && disk.unit == unit);
            if taken || !controller.kind.units().any(|possible| possible == unit) {
                return Err(invalid_device(index, "device.unitNumber"));
            }
            unit
        }
    };
    Ok(Place { key: controller.kind.disk_key(controller.bus, unit), controller: key, unit })
}

/// Returns the disk of a file, as another virtual machine gets it.
fn existing(state: &mut State, file: &File, mode: DiskMode) -> Result<Disk, Fault> {
    let is_written = mode != DiskMode::IndependentNonpersistent;
    if let Some((snapshot, frozen)) = state.frozen(file) {
        let attached_from = Some(AttachedFrom::Snapshot(snapshot.to_owned()));
        let disk = Disk { attached_from, tracking: None, device: None, ..frozen.clone() };
        if is_written {
            let (file, mode) = (file.to_string(), mode.name().to_owned());
            state.violations.push(Violation::AttachedWritable { file, mode });
        }
        return Ok(disk);
    }
    if let Some(disk) = state.loose.remove(file) {
        return Ok(disk);
    }
    let Some((owner, machine, disk)) = state.owned(file) else {
        if state.was_frozen(file) {
            state.violations.push(Violation::UnfrozenDiskRead { file: file.to_string() });
        }
        let name = file.to_string();
        return Err(Fault::new("FileNotFound", &format!("Cannot access file {name}")).with("file", &name));
    };
    let (owner, power, has_snapshots) = (owner.to_owned(), machine.power, machine.has_snapshots());
    let attached_from = Some(AttachedFrom::Machine(owner));
    let disk = Disk { attached_from, tracking: None, device: None, ..disk.clone() };
    let mut others = state.machines.values().flat_map(|vm| &vm.disks);
    let is_elsewhere = others.any(|other| other.attached_from.is_some() && other.file == *file);
    if !is_written {
        state.violations.push(Violation::UnfrozenDiskRead { file: file.to_string() });
    }
    if !is_written || power == Power::On || is_elsewhere {
        return Err(Fault::locked(&file.to_string()));
    }
    if has_snapshots {
        state.violations.push(Violation::WrittenUnderSnapshots { file: file.to_string() });
    }
    if power == Power::Suspended {
        state.violations.push(Violation::SuspendedDiskWritten { file: file.to_string() });
    }
    if mode == DiskMode::Persistent {
        state.violations.push(Violation::AttachedDependent { file: file.to_string() });
    }
    Ok(disk)
}

/// Creates the file of a new disk.
fn created(
    state: &mut State,
    index: usize,
    device: &Element,
    backing: &Element,
    file: File,
) -> Result<Disk, Fault> {
    let is_there = state.frozen(&file).is_some()
        || state.written(&file).is_some()
        || state.was_frozen(&file)
        || state.loose.contains_key(&file);
    if is_there {
        let name = file.to_string();
        let message = format!("Cannot complete the operation because the file {name} already exists");
        return Err(Fault::new("FileAlreadyExists", &message).with("file", &name));
    }
    let kib: u64 =
        device.number_of("capacityInKB").ok_or_else(|| invalid_device(index, "device.capacityInKB"))?;
    let bytes: Option<u64> = device.number_of("capacityInBytes");
    let size = bytes.filter(|bytes| *bytes > 0).unwrap_or(kib * 1024);
    if size == 0 || !size.is_multiple_of(512) {
        return Err(invalid_device(index, "device.capacityInBytes"));
    }
    let disk = Disk {
        number: state.random.number(),
        key: 0,
        controller: 0,
        unit: 0,
        kind: DiskKind::Flat,
        mode: DiskMode::Persistent,
        multi_writer: false,
        thin: backing.flag_of("thinProvisioned").unwrap_or(false),
        uuid: state.random.uuid("6000C29").to_uppercase(),
        contents: Contents::new(size),
        tracking: None,
        file: file.clone(),
        parents: Vec::new(),
        lie: None,
        attached_from: None,
        device: None,
    };
    state.created.insert(file);
    Ok(disk)
}

fn add_controller(
    state: &mut State,
    vm: &str,
    index: usize,
    device: &Element,
    kind: ControllerKind,
) -> Result<(), Fault> {
    let bus: i32 = device.number_of("busNumber").ok_or_else(|| invalid_device(index, "device.busNumber"))?;
    let machine = state.machine(vm)?;
    let key = kind.first_key() + bus;
    if !(0..BUSES).contains(&bus) || machine.controller(key).is_some() {
        return Err(invalid_device(index, "device.busNumber"));
    }
    machine.controllers.push(Controller { kind, key, bus, bus_sharing: false });
    Ok(())
}

fn detach(
    state: &mut State,
    vm: &str,
    index: usize,
    change: &Element,
    device: &Element,
) -> Result<(), Fault> {
    let key: i32 = device.number_of("key").ok_or_else(|| invalid_device(index, "device.key"))?;
    let machine = state.machine(vm)?;
    let position = machine.disks.iter().position(|disk| disk.key == key);
    let mut disk = machine.disks.remove(position.ok_or_else(|| invalid_device(index, "device.key"))?);
    let destroys = match change.text_of("fileOperation") {
        None => false,
        Some("destroy") => true,
        Some(_) => return Err(invalid_device(index, "fileOperation")),
    };
    if let (Some(directory), Some(name)) = (&machine.proxy, disk.device.take()) {
        // What is written to a snapshot's disk is dropped.
        if !matches!(disk.attached_from, Some(AttachedFrom::Snapshot(_))) {
            proxy::take_contents(directory, &name, &mut disk);
        }
        proxy::remove_device(directory, &name);
    }
    match &disk.attached_from {
        Some(AttachedFrom::Snapshot(_)) => {}
        Some(AttachedFrom::Machine(owner)) => {
            let owner = state.machines.get_mut(owner);
            let own = owner.and_then(|vm| vm.disks.iter_mut().find(|own| own.number == disk.number));
            if let Some(own) = own {
                own.contents = disk.contents.clone();
            }
        }
        None if destroys => {}
        None => drop(state.loose.insert(disk.file.clone(), Disk { tracking: None, ..disk.clone() })),
    }
    if destroys && !(disk.attached_from.is_none() && state.created.remove(&disk.file)) {
        state.violations.push(Violation::FileDestroyed { file: disk.file.to_string() });
    }
    Ok(())
}
