//! `ReconfigVM_Task`: change tracking, options, and disks that are attached and detached.

use super::calls::check_privilege;
use super::element::Element;
use super::fault::Fault;
use super::machine::{Controller, Disk, File};
use super::proxy;
use super::spec::{ControllerKind, DiskMode};
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
            Some("add") => attach(state, vm, index, device)?,
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

fn attach(state: &mut State, vm: &str, index: usize, device: &Element) -> Result<(), Fault> {
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
    let parsed = DiskMode::parse(mode).ok_or_else(|| invalid_device(index, "device.backing.diskMode"))?;
    let Some((snapshot, frozen)) = state.frozen(&file) else {
        let locked = state.written(&file).is_some();
        if locked || state.was_frozen(&file) {
            state.violations.push(Violation::UnfrozenDiskRead { file: file.to_string() });
        }
        let fault = if locked { "FileLocked" } else { "FileNotFound" };
        return Err(Fault::new(fault, &format!("Cannot access file {name}")).with("file", name));
    };
    let (snapshot, frozen) = (snapshot.to_owned(), frozen.clone());
    if parsed != DiskMode::IndependentNonpersistent {
        let violation = Violation::AttachedWritable { file: file.to_string(), mode: mode.to_owned() };
        state.violations.push(violation);
    }
    let machine = state.machine(vm)?;
    let key: i32 =
        device.number_of("controllerKey").ok_or_else(|| invalid_device(index, "device.controllerKey"))?;
    let controller =
        machine.controller(key).ok_or_else(|| invalid_device(index, "device.controllerKey"))?.clone();
    let unit = match device.number_of::<i32>("unitNumber").filter(|unit| *unit >= 0) {
        None => machine.free_unit(&controller).ok_or_else(|| {
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
    let disk = Disk {
        key: controller.kind.disk_key(controller.bus, unit),
        controller: key,
        unit,
        mode: parsed,
        attached_from: Some(snapshot),
        tracking: None,
        ..frozen
    };
    machine.disks.push(disk);
    proxy::show_devices(state, vm);
    Ok(())
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
    let disk = machine.disks.remove(position.ok_or_else(|| invalid_device(index, "device.key"))?);
    if let (Some(directory), Some(name)) = (&machine.proxy, &disk.device) {
        proxy::remove_device(directory, name);
    }
    if change.text_of("fileOperation").is_some() {
        state.violations.push(Violation::FileDestroyed { file: disk.file.to_string() });
    }
    Ok(())
}
