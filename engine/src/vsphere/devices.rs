//! The devices of a virtual machine.

use super::model::{
    Backing, BackingKind, BusSharing, Controller, ControllerKind, NetworkAdapter, VirtualDisk,
};
use super::xml::{Element, Wrong};

/// The devices that a backup asks after, each kind in the order of the VM's devices.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) disks: Vec<VirtualDisk>,
    pub(super) controllers: Vec<Controller>,
    pub(super) networks: Vec<NetworkAdapter>,
}

impl Devices {
    /// Reads an array of devices.
    pub(super) fn read(array: &Element) -> Result<Self, Wrong> {
        let mut devices = Self::default();
        for device in &array.children {
            let device_type = device.xsi_type.as_deref().unwrap_or_default();
            if device_type == "VirtualDisk" {
                devices.disks.push(read_disk(device)?);
            } else if let Some(kind) = controller_kind(device_type) {
                devices.controllers.push(read_controller(device, device_type, kind)?);
            } else if device.child("macAddress").is_some() || device.child("addressType").is_some() {
                devices.networks.push(read_network(device, device_type));
            }
        }
        Ok(devices)
    }
}

fn read_disk(device: &Element) -> Result<VirtualDisk, Wrong> {
    let backing = device.need("backing")?;
    // The length in bytes came with vSphere 5.5, and is 0 where only the older field was filled in.
    let bytes: Option<u64> = device.optional_number("capacityInBytes")?;
    let capacity_bytes = if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
        bytes
    } else {
        let kib: u64 = device.needed_number("capacityInKB")?;
        kib.checked_mul(1024).ok_or_else(|| Wrong(format!("capacityInKB: {kib} is too much")))?
    };
    Ok(VirtualDisk {
        key: device.needed_number("key")?,
        label: label(device),
        controller_key: device.optional_number("controllerKey")?,
        unit_number: device.optional_number("unitNumber")?,
        capacity_bytes,
        backing: read_backing(backing)?,
    })
}

fn read_backing(backing: &Element) -> Result<Backing, Wrong> {
    let kind = match backing.xsi_type.as_deref().unwrap_or_default() {
        "VirtualDiskFlatVer2BackingInfo" => BackingKind::FlatVer2,
        "VirtualDiskSparseVer2BackingInfo" => BackingKind::SparseVer2,
        "VirtualDiskSeSparseBackingInfo" => BackingKind::SeSparse,
        "VirtualDiskRawDiskVer2BackingInfo" => BackingKind::RawVer2,
        "VirtualDiskRawDiskMappingVer1BackingInfo" => {
            // What is not said to be used like a file is the kind that snapshots pass by.
            let mode = backing.child("compatibilityMode").map(|mode| mode.text.trim());
            if mode == Some("virtualMode") { BackingKind::RdmVirtual } else { BackingKind::RdmPhysical }
        }
        other => BackingKind::Other(other.to_owned()),
    };
    Ok(Backing {
        kind,
        file: backing.optional("fileName").or_else(|| backing.optional("descriptorFileName")),
        uuid: backing.optional("uuid"),
        change_id: backing.optional("changeId"),
        mode: backing.optional("diskMode"),
        sharing: backing.optional("sharing").is_some_and(|sharing| sharing != "sharingNone"),
        thin: backing.child("thinProvisioned").map(Element::boolean).transpose()?,
        parent_file: backing.child("parent").and_then(|parent| parent.optional("fileName")),
    })
}

fn controller_kind(device_type: &str) -> Option<ControllerKind> {
    Some(match device_type {
        "ParaVirtualSCSIController" => ControllerKind::ParaVirtualScsi,
        "VirtualNVMEController" => ControllerKind::Nvme,
        "VirtualIDEController" => ControllerKind::Ide,
        "VirtualAHCIController" | "VirtualSATAController" => ControllerKind::Sata,
        "VirtualBusLogicController"
        | "VirtualLsiLogicController"
        | "VirtualLsiLogicSASController"
        | "VirtualSCSIController" => ControllerKind::Scsi,
        _ => return None,
    })
}

fn read_controller(device: &Element, device_type: &str, kind: ControllerKind) -> Result<Controller, Wrong> {
    let sharing = match device.optional("sharedBus").as_deref() {
        None | Some("noSharing") => BusSharing::None,
        Some("virtualSharing") => BusSharing::Virtual,
        // An unknown word is taken for the one that asks for the most caution.
        Some(_) => BusSharing::Physical,
    };
    Ok(Controller {
        key: device.needed_number("key")?,
        kind,
        device_type: device_type.to_owned(),
        bus_number: device.needed_number("busNumber")?,
        sharing,
    })
}

fn read_network(device: &Element, device_type: &str) -> NetworkAdapter {
    let backing = device.child("backing");
    let network = backing.and_then(|backing| {
        let port = || backing.child("port").and_then(|port| port.optional("portgroupKey"));
        backing.optional("deviceName").or_else(port).or_else(|| backing.optional("opaqueNetworkId"))
    });
    NetworkAdapter {
        label: label(device),
        kind: device_type.to_owned(),
        mac: device.optional("macAddress"),
        network,
    }
}

fn label(device: &Element) -> String {
    device.child("deviceInfo").and_then(|info| info.optional("label")).unwrap_or_default()
}
