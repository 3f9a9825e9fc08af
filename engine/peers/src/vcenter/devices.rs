//! The devices of a virtual machine as its configuration tells them.

use super::machine::{Controller, Disk, File};
use super::spec::{ControllerKind, DiskKind};
use super::value::{Value, boolean, derived, int, long, object, one_of, optional, string};

/// Returns the controllers, the disks and a network card.
pub(super) fn devices(controllers: &[Controller], disks: &[Disk]) -> Value {
    let mut devices: Vec<Value> = controllers.iter().map(|found| controller(found, disks)).collect();
    devices.extend(disks.iter().enumerate().map(|(number, found)| disk(found, number + 1, controllers)));
    devices.push(network_card());
    Value::List("VirtualDevice", devices)
}

fn described(label: &str, summary: &str) -> Value {
    derived("Description", vec![("label", string(label)), ("summary", string(summary))])
}

fn controller(controller: &Controller, disks: &[Disk]) -> Value {
    let Controller { kind, key, bus, bus_sharing } = controller;
    let sharing = if *bus_sharing { "physicalSharing" } else { "noSharing" };
    let on_it = disks.iter().filter(|disk| disk.controller == *key).map(|disk| int(disk.key)).collect();
    let parent = match kind {
        ControllerKind::Ide => Value::Unset,
        _ => int(100),
    };
    let name = kind.type_name();
    let mut fields = vec![
        ("key", int(key)),
        ("deviceInfo", described(&format!("{name} {bus}"), name)),
        ("controllerKey", parent),
        ("unitNumber", if kind.is_scsi() { int(3 + bus) } else { Value::Unset }),
        ("busNumber", int(bus)),
        ("device", Value::List("int", on_it)),
    ];
    if kind.is_scsi() {
        fields.extend([
            ("hotAddRemove", boolean(true)),
            ("sharedBus", one_of("VirtualSCSISharing", sharing)),
            ("scsiCtlrUnitNumber", int(7)),
        ]);
    }
    derived(name, fields)
}

fn network_card() -> Value {
    let fields = vec![
        ("key", int(4000)),
        ("deviceInfo", described("Network adapter 1", "VM Network")),
        (
            "backing",
            derived("VirtualEthernetCardNetworkBackingInfo", vec![("deviceName", string("VM Network"))]),
        ),
        ("controllerKey", int(100)),
        ("unitNumber", int(7)),
        ("addressType", string("assigned")),
        ("macAddress", string("00:50:56:00:00:01")),
    ];
    derived("VirtualVmxnet3", fields)
}

fn disk(disk: &Disk, number: usize, controllers: &[Controller]) -> Value {
    let capacity = disk.contents.capacity();
    let bus =
        controllers.iter().find(|controller| controller.key == disk.controller).map_or(0, |found| found.bus);
    let fields = vec![
        ("key", int(disk.key)),
        ("deviceInfo", described(&format!("Hard disk {number}"), &format!("{} KB", capacity / 1024))),
        ("backing", backing(disk)),
        ("controllerKey", int(disk.controller)),
        ("unitNumber", int(disk.unit)),
        ("capacityInKB", long(capacity / 1024)),
        ("capacityInBytes", long(capacity)),
        (
            "shares",
            object("SharesInfo", vec![("shares", int(1000)), ("level", one_of("SharesLevel", "normal"))]),
        ),
        ("diskObjectId", string(format!("{bus}-{}", disk.key))),
        ("nativeUnmanagedLinkedClone", boolean(false)),
    ];
    derived("VirtualDisk", fields)
}

fn backing(disk: &Disk) -> Value {
    let mut below = Value::Unset;
    for file in &disk.parents {
        below = one_backing(disk, file, below, None);
    }
    let change_id = disk.tracking.as_ref().map(|tracking| tracking.change_id().to_string());
    one_backing(disk, &disk.file, below, change_id)
}

fn one_backing(disk: &Disk, file: &File, parent: Value, change_id: Option<String>) -> Value {
    let change_id = optional(change_id.map(string));
    let mut fields = vec![("fileName", string(file.to_string()))];
    let mode = string(disk.mode.name());
    let sharing = string(if disk.multi_writer { "sharingMultiWriter" } else { "sharingNone" });
    let (uuid, content_id) = (string(disk.uuid.as_str()), string(disk.uuid.replace('-', "").to_lowercase()));
    match disk.kind {
        DiskKind::Flat => fields.extend([
            ("diskMode", mode),
            ("split", boolean(false)),
            ("writeThrough", boolean(false)),
            ("thinProvisioned", boolean(disk.thin)),
            ("uuid", uuid),
            ("contentId", content_id),
            ("changeId", change_id),
            ("parent", parent),
            ("digestEnabled", boolean(false)),
            ("sharing", sharing),
        ]),
        DiskKind::Sparse => fields.extend([
            ("diskMode", mode),
            ("split", boolean(false)),
            ("writeThrough", boolean(false)),
            ("spaceUsedInKB", long(disk.contents.allocated().count() * 64)),
            ("uuid", uuid),
            ("contentId", content_id),
            ("changeId", change_id),
            ("parent", parent),
        ]),
        DiskKind::SeSparse => fields.extend([
            ("diskMode", mode),
            ("writeThrough", boolean(false)),
            ("uuid", uuid),
            ("contentId", content_id),
            ("changeId", change_id),
            ("parent", parent),
            ("grainSize", int(4)),
        ]),
        DiskKind::PhysicalMapping | DiskKind::VirtualMapping => {
            let physical = disk.kind == DiskKind::PhysicalMapping;
            fields.extend([
                ("lunUuid", string(format!("0200000000{}", disk.uuid.replace('-', "").to_lowercase()))),
                ("deviceName", string("vml.02000000006000c29")),
                ("compatibilityMode", string(if physical { "physicalMode" } else { "virtualMode" })),
                ("diskMode", if physical { Value::Unset } else { mode }),
                ("uuid", uuid),
                ("contentId", content_id),
                ("changeId", change_id),
                ("parent", parent),
                ("sharing", sharing),
            ]);
        }
    }
    derived(disk.kind.type_name(), fields)
}
