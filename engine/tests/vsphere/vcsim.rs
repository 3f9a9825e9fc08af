//! The client against govmomi's simulator, which shares no code with it.

mod disks;
mod guard;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use keepstone_engine::Extent;
use keepstone_engine::tls::{Thumbprint, Trust, WrongThumbprint};
use keepstone_engine::vsphere::changes::{ChangeId, Doubt};
use keepstone_engine::vsphere::{
    Backing, BackingKind, BusSharing, ConnectionState, Controller, ControllerKind, Datacenter, DatastorePath,
    FaultKind, MoRef, Power, Quiescing, SnapshotNode, Task, TaskState, UuidKind, VCenter, VCenterSettings,
    VSphereError, VSpherePlace, VirtualDisk, VmInfo, VmSnapshot,
};
use keepstone_peers::vcsim::{Layout, Vcsim};
use zeroize::Zeroizing;

const MIB: u64 = 1 << 20;

fn settings(vcsim: &Vcsim) -> VCenterSettings {
    let (host, port) = vcsim.address().split_once(':').unwrap();
    VCenterSettings {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        user: vcsim.user().to_owned(),
        password: Zeroizing::new(vcsim.password().to_owned()),
        trust: Trust::Thumbprint(vcsim.thumbprint().parse().unwrap()),
        connect_timeout: Duration::from_mins(1),
        answer_timeout: Duration::from_mins(1),
        pause: Arc::new(|_| {}),
    }
}

/// A simulator, a session, and a machine in it.
struct World {
    vcsim: Vcsim,
    vcenter: VCenter,
    vm: MoRef,
}

impl World {
    fn new(layout: &Layout<'_>) -> Self {
        let vcsim = Vcsim::start(layout);
        let vcenter = VCenter::connect(&settings(&vcsim)).unwrap();
        let vm = vcenter.find_vm(&place("DC0/vm/web")).unwrap();
        Self { vcsim, vcenter, vm }
    }

    fn with_tracking(layout: &Layout<'_>) -> Self {
        let world = Self::new(layout);
        world.finish(&world.vcenter.enable_change_tracking(&world.vm).unwrap());
        world
    }

    /// Waits for a task, and returns what it made.
    fn finish(&self, task: &Task) -> Option<MoRef> {
        loop {
            match self.vcenter.task(task).unwrap() {
                TaskState::Success { result } => return result,
                TaskState::Error(fault) => panic!("a task failed: {fault:?}"),
                TaskState::Queued | TaskState::Running { .. } => thread::yield_now(),
            }
        }
    }

    fn snapshot(&self) -> VmSnapshot {
        let task = self.vcenter.create_snapshot(&self.vm, "keepstone", "", Quiescing::None).unwrap();
        self.vcenter.snapshot_config(&self.finish(&task).unwrap()).unwrap()
    }

    fn remove(&self, snapshot: &VmSnapshot) {
        self.finish(&self.vcenter.remove_snapshot(&snapshot.snapshot).unwrap());
    }

    /// What changed on the first disk between a change id and a snapshot.
    fn changed(&self, snapshot: &VmSnapshot, since: &ChangeId) -> Result<Vec<Extent>, Doubt> {
        self.vcenter.changed_areas(&self.vm, &snapshot.snapshot, &snapshot.disks[0], since).unwrap()
    }

    /// Reads a part of a disk by HTTPS.
    fn read(&self, disk: &VirtualDisk, extent: Extent) -> Result<Vec<u8>, VSphereError> {
        let datacenter = self.vcenter.datacenter_of(&self.vm).unwrap();
        let mut bytes = vec![0xAA; usize::try_from(extent.length).unwrap()];
        let len = self.vcenter.get_folder_range(&datacenter, &flat(disk), extent.start, &mut bytes)?;
        assert_eq!(len, disk.capacity_bytes);
        Ok(bytes)
    }
}

fn place(path: &str) -> VSpherePlace {
    VSpherePlace::parse(&format!("vsphere://host/{path}")).unwrap()
}

fn flat(disk: &VirtualDisk) -> DatastorePath {
    DatastorePath::parse(disk.backing.file.as_deref().unwrap()).unwrap().flat().unwrap()
}

fn change_id(snapshot: &VmSnapshot) -> ChangeId {
    snapshot.disks[0].backing.change_id.as_deref().unwrap().parse().unwrap()
}

#[test]
fn a_server_is_known_by_its_thumbprint_or_its_authority_and_else_refused() {
    let vcsim = Vcsim::start(&Layout::of(&[]));
    let right = settings(&vcsim);
    let vcenter = VCenter::connect(&right).unwrap();
    assert_eq!(vcenter.about().api_type, "VirtualCenter");
    vcenter.logout().unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("authority.pem");
    fs::write(&file, vcsim.certificate()).unwrap();
    VCenter::connect(&VCenterSettings { trust: Trust::CaFile(file), ..right.clone() })
        .unwrap()
        .logout()
        .unwrap();

    let expected = Thumbprint([7; 32]);
    let refused = VCenter::connect(&VCenterSettings { trust: Trust::Thumbprint(expected), ..right.clone() });
    let VSphereError::WrongThumbprint { host, source } = refused.unwrap_err() else {
        panic!("another error")
    };
    let found = vcsim.thumbprint().parse().unwrap();
    assert_eq!((host.as_str(), source), (vcsim.address(), WrongThumbprint { expected, found }));

    let refused = VCenter::connect(&VCenterSettings { trust: Trust::System, ..right }).unwrap_err();
    assert!(matches!(refused, VSphereError::Tls { .. }), "{refused:?}");
    assert_eq!(vcsim.sessions(), 0);
}

#[test]
fn a_wrong_user_or_password_is_said_to_be_wrong() {
    let vcsim = Vcsim::start(&Layout::of(&[]));
    let right = settings(&vcsim);
    let wrong_password = VCenterSettings { password: Zeroizing::new("wrong".to_owned()), ..right.clone() };
    let wrong_user = VCenterSettings { user: "nobody@vsphere.local".to_owned(), ..right };
    for wrong in [wrong_password, wrong_user] {
        let error = VCenter::connect(&wrong).unwrap_err();
        let VSphereError::WrongLogin { host, user } = &error else { panic!("{error:?}") };
        assert_eq!((host.as_str(), user), (vcsim.address(), &wrong.user));
        assert!(!format!("{error:?} {error} {wrong:?}").contains(wrong.password.as_str()));
    }
    assert_eq!(vcsim.sessions(), 0);
}

#[test]
fn a_machine_is_found_by_its_path_and_by_its_uuids() {
    let vcsim = Vcsim::start(&Layout::of(&[("web", &[MIB]), ("db 1", &[MIB])]));
    let vcenter = VCenter::connect(&settings(&vcsim)).unwrap();
    let web = vcsim.machine("web");
    let vm = MoRef::new("VirtualMachine", &web.object);

    assert_eq!(vcenter.find_vm(&place("DC0/vm/web")).unwrap(), vm);
    assert_eq!(vcenter.find_vm(&place(&format!("?uuid={}", web.instance_uuid))).unwrap(), vm);
    let bios = vcenter.vm(&vm).unwrap().bios_uuid.unwrap();
    assert_eq!(vcenter.find_by_uuid(&bios, UuidKind::Bios).unwrap(), vm);
    let Datacenter { datacenter, name, path } = vcenter.datacenter_of(&vm).unwrap();
    assert_eq!((datacenter.kind.as_str(), name.as_str(), path.as_str()), ("Datacenter", "DC0", "DC0"));

    let nowhere = ["DC0/vm/web2", "DC1/vm/web", "DC0/vm/web/web", &format!("?uuid={bios}")];
    for wrong in nowhere {
        let error = vcenter.find_vm(&place(wrong)).unwrap_err();
        assert!(matches!(error, VSphereError::NotFound { .. }), "{wrong}: {error:?}");
    }
    vcenter.logout().unwrap();
    assert_eq!(vcsim.sessions(), 0);
}

#[test]
fn what_is_told_of_a_machine_is_what_it_is() {
    let world = World::with_tracking(&Layout::of(&[("web", &[MIB, 3 * MIB])]));
    world.vcsim.create_snapshot("web", "before the upgrade");
    world.vcsim.switch_off("web");
    let found = world.vcenter.vm(&world.vm).unwrap();
    let is = world.vcsim.machine("web");

    let disk = |position: usize, unit_number: i32| VirtualDisk {
        key: is.disks[position].key,
        label: format!("disk-1000-{unit_number}"),
        controller_key: Some(1000),
        unit_number: Some(unit_number),
        capacity_bytes: is.disks[position].capacity,
        backing: Backing {
            kind: BackingKind::FlatVer2,
            file: Some(is.disks[position].file.clone()),
            // The simulator draws it.
            uuid: found.disks[position].backing.uuid.clone(),
            change_id: Some(is.disks[position].change_id.clone()),
            mode: Some("persistent".to_owned()),
            sharing: false,
            thin: Some(true),
            parent_file: Some(is.disks[position].file.replace("-000001", "")),
        },
    };
    let controller = |key, kind, device_type: &str, bus_number| Controller {
        key,
        kind,
        device_type: device_type.to_owned(),
        bus_number,
        sharing: BusSharing::None,
    };
    let snapshot = MoRef::new("VirtualMachineSnapshot", &is.snapshots[0].object);
    let expected = VmInfo {
        vm: MoRef::new("VirtualMachine", &is.object),
        name: "web".to_owned(),
        instance_uuid: Some(is.instance_uuid.clone()),
        bios_uuid: found.bios_uuid.clone(),
        power: Power::Off,
        connection: ConnectionState::Connected,
        is_template: false,
        hardware_version: Some(13),
        change_tracking_supported: true,
        change_tracking_enabled: true,
        consolidation_needed: false,
        tools_running: false,
        guest_id: Some("otherLinux64Guest".to_owned()),
        guest_name: Some("otherLinux64Guest".to_owned()),
        firmware: Some("bios".to_owned()),
        cpus: Some(1),
        memory_mib: Some(32),
        annotation: None,
        vmx_path: Some("[LocalDS_0] web/web.vmx".to_owned()),
        host: found.host.clone(),
        disks: vec![disk(0, 0), disk(1, 1)],
        controllers: vec![
            controller(200, ControllerKind::Ide, "VirtualIDEController", 0),
            controller(201, ControllerKind::Ide, "VirtualIDEController", 1),
            controller(1000, ControllerKind::ParaVirtualScsi, "ParaVirtualSCSIController", 0),
        ],
        networks: vec![],
        snapshots: vec![SnapshotNode {
            snapshot: snapshot.clone(),
            name: "before the upgrade".to_owned(),
            description: String::new(),
            create_time: found.snapshots[0].create_time.clone(),
            create_millis: found.snapshots[0].create_millis,
            quiesced: false,
            parent: None,
        }],
        current_snapshot: Some(snapshot),
    };
    assert_eq!(found, expected);
    assert!(found.bios_uuid.is_some() && found.disks[0].backing.uuid != found.disks[1].backing.uuid);
    assert!(found.snapshots[0].create_millis.is_some());
    assert_eq!(world.vcenter.host_build(&found.host.unwrap()).unwrap().as_deref(), Some("21997540"));
    let wanted = ["System.View", "VirtualMachine.State.CreateSnapshot"];
    assert_eq!(world.vcenter.missing_privileges(&world.vm, &wanted).unwrap(), Some(vec![]));
}

#[test]
fn a_session_that_ended_is_replaced_while_asking_changing_and_reading() {
    let world = World::with_tracking(&Layout::of(&[("web", &[MIB])]));
    assert_eq!(world.vcsim.end_sessions(), 1);
    assert!(world.vcenter.keep_alive().unwrap().millis.is_some());
    assert_eq!(world.vcsim.end_sessions(), 1);
    assert_eq!(world.vcenter.vm(&world.vm).unwrap().name, "web");
    assert_eq!(world.vcsim.end_sessions(), 1);
    let snapshot = world.snapshot();
    assert_eq!(world.vcsim.end_sessions(), 1);
    assert_eq!(world.changed(&snapshot, &change_id(&snapshot)), Ok(vec![]));

    let datacenter = world.vcenter.datacenter_of(&world.vm).unwrap();
    assert_eq!(world.vcsim.end_sessions(), 1);
    let mut bytes = vec![0; 1 << 20];
    world.vcenter.get_folder_range(&datacenter, &flat(&snapshot.disks[0]), 0, &mut bytes).unwrap();
    assert!(bytes == world.vcsim.contents("web", "scsi0:0"));
    assert_eq!(world.vcsim.sessions(), 1);

    assert_eq!(world.vcsim.end_sessions(), 1);
    world.vcenter.logout().unwrap();
    assert_eq!(world.vcsim.sessions(), 0);
    let ended = world.vcenter.keep_alive().unwrap_err();
    assert_eq!(ended.fault(), Some(&FaultKind::NotAuthenticated));
}
