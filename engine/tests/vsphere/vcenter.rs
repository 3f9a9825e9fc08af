//! The client against the fake vCenter: what changed, through whole histories of a disk.

use keepstone_engine::Extent;
use keepstone_engine::extent::total_length;
use keepstone_engine::tls::Trust;
use keepstone_engine::vsphere::changes::{CurrentDisk, Doubt, RecordedDisk, Tracking, plan_read};
use keepstone_engine::vsphere::{
    AttachDisk, AttachMode, BackingKind, ConnectionState, DatastorePath, FaultKind, MoRef, Power, Quiescing,
    Task, TaskState, UuidKind, VCenter, VCenterSettings, VSphereError, VSpherePlace, VmSnapshot,
};
use keepstone_peers::vcenter::{self, DiskSpec, Failure, Fault, Lie, Vm, VmSpec};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use zeroize::Zeroizing;

const BLOCK: u64 = 64 << 10;
const DISK_LEN: u64 = 200 * BLOCK;
const BUILD: &str = "24022510";

/// A fake with one VM, and a session with it.
struct World {
    peer: vcenter::VCenter,
    machine: Vm,
    client: VCenter,
    vm: MoRef,
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(&VmSpec { disks: vec![DiskSpec::of(DISK_LEN)], ..VmSpec::default() })
    }

    fn with(spec: &VmSpec) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let peer = vcenter::VCenter::start(directory.path());
        peer.set_build(BUILD);
        let machine = peer.add_vm("DC0/vm/prod/web", spec);
        let client = VCenter::connect(&settings(&peer)).unwrap();
        let vm = client.find_vm(&VSpherePlace::parse("vsphere://h/DC0/vm/prod/web").unwrap()).unwrap();
        Self { peer, machine, client, vm, directory }
    }

    fn finish(&self, task: &Task) -> Result<Option<MoRef>, FaultKind> {
        loop {
            match self.client.task(task).unwrap() {
                TaskState::Success { result } => return Ok(result),
                TaskState::Error(fault) => return Err(fault.kind),
                TaskState::Queued | TaskState::Running { .. } => {}
            }
        }
    }

    fn snapshot(&self) -> VmSnapshot {
        let task = self.client.create_snapshot(&self.vm, "keepstone-test", "", Quiescing::None).unwrap();
        self.client.snapshot_config(&self.finish(&task).unwrap().unwrap()).unwrap()
    }

    fn remove(&self, snapshot: &VmSnapshot) {
        self.finish(&self.client.remove_snapshot(&snapshot.snapshot).unwrap()).unwrap();
    }

    fn changed(&self, snapshot: &VmSnapshot, since: &RecordedDisk) -> Result<Vec<Extent>, Doubt> {
        let disk = &snapshot.disks[0];
        let since = plan_read(since, &self.current(snapshot))?;
        self.client.changed_areas(&self.vm, &snapshot.snapshot, disk, &since).unwrap()
    }

    fn current(&self, snapshot: &VmSnapshot) -> CurrentDisk {
        let info = self.client.vm(&self.vm).unwrap();
        let disk = &snapshot.disks[0];
        CurrentDisk {
            size: disk.capacity_bytes,
            change_id: disk.backing.change_id.clone(),
            disk_uuid: disk.backing.uuid.clone(),
            host_build: self.client.host_build(&info.host.unwrap()).unwrap(),
            tracking: if info.change_tracking_enabled { Tracking::On } else { Tracking::Off },
        }
    }

    fn recorded(&self, snapshot: &VmSnapshot) -> RecordedDisk {
        let CurrentDisk { size, change_id, disk_uuid, host_build, tracking: _ } = self.current(snapshot);
        RecordedDisk { size, change_id, disk_uuid, host_build }
    }

    /// Makes and removes a snapshot, and returns what a backup of it would have recorded.
    fn backed_up(&self) -> RecordedDisk {
        let snapshot = self.snapshot();
        let recorded = self.recorded(&snapshot);
        self.remove(&snapshot);
        recorded
    }
}

fn settings(peer: &vcenter::VCenter) -> VCenterSettings {
    let host = peer.host();
    let (host, port) = host.split_once(':').unwrap();
    VCenterSettings {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        user: vcenter::USER.to_owned(),
        password: Zeroizing::new(vcenter::PASSWORD.to_owned()),
        trust: Trust::Thumbprint(peer.thumbprint().parse().unwrap()),
        connect_timeout: Duration::from_mins(1),
        answer_timeout: Duration::from_mins(1),
        pause: Arc::new(|_| {}),
    }
}

/// A short sequence without a pattern (an LCG with the constants of Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn every_change_of_a_long_history_is_told_whatever_the_pages() {
    let world = World::new();
    let disk = world.machine.disk(0);
    let mut numbers = Numbers(7);
    let mut recorded = world.backed_up();
    let mut before = disk.bytes();
    for round in 0..12 {
        world.peer.set_extents_max([1, 2, 3, 2000][round % 4]);
        let mut blocks = std::collections::BTreeSet::new();
        for _ in 0..numbers.below(30) {
            let (at, len) = (numbers.below(DISK_LEN - 9), 1 + numbers.below(9));
            disk.write(
                at,
                &vec![u8::try_from(1 + numbers.below(255)).unwrap(); usize::try_from(len).unwrap()],
            );
            blocks.extend(at / BLOCK..=(at + len - 1) / BLOCK);
        }
        let snapshot = world.snapshot();
        let frozen = disk.bytes();
        // What is written after the snapshot belongs to the next round.
        disk.write(numbers.below(DISK_LEN), &[0xEE]);
        let changed = world.changed(&snapshot, &recorded).unwrap();
        for (offset, _) in before.iter().zip(&frozen).enumerate().filter(|(_, (then, now))| then != now) {
            let offset = offset as u64;
            assert!(
                changed.iter().any(|area| area.start <= offset && offset < area.end()),
                "{offset} in {round}"
            );
        }
        // One more block at most than was written: that of the byte after the last snapshot.
        assert!(total_length(&changed) <= (blocks.len() as u64 + 1) * BLOCK, "round {round}");
        recorded = world.recorded(&snapshot);
        before = frozen;
        world.remove(&snapshot);
    }
    world.client.logout().unwrap();
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn every_ill_formed_answer_is_a_doubt() {
    let lies = [
        Lie::OtherStart,
        Lie::ZeroLength,
        Lie::NegativeLength,
        Lie::BeyondCapacity,
        Lie::Overlapping,
        Lie::Unsorted,
        Lie::EmptyExtent,
        Lie::OutsidePage,
    ];
    let world = World::new();
    let disk = world.machine.disk(0);
    let recorded = world.backed_up();
    for block in [1, 3, 5, 9, 11] {
        disk.write(block * BLOCK, &[1]);
    }
    let snapshot = world.snapshot();
    let truth = world.changed(&snapshot, &recorded).unwrap();
    assert_eq!(truth.len(), 5);
    for lie in lies {
        disk.lie(Some(lie));
        world.changed(&snapshot, &recorded).expect_err(&format!("{lie:?}"));
    }
    disk.lie(None);
    assert_eq!(world.changed(&snapshot, &recorded), Ok(truth));
}

#[test]
fn resets_reverts_and_other_breaks_of_the_history_are_each_their_doubt() {
    let world = World::new();
    let disk = world.machine.disk(0);
    disk.write(0, &[1]);
    world.machine.create_foreign_snapshot("before");
    let recorded = world.backed_up();

    world.machine.revert_to("before");
    let reverted = world.snapshot();
    assert!(matches!(world.changed(&reverted, &recorded), Err(Doubt::Reverted { .. })));
    world.remove(&reverted);

    let recorded = world.backed_up();
    world.peer.set_build("24585383");
    let snapshot = world.snapshot();
    assert!(matches!(world.changed(&snapshot, &recorded), Err(Doubt::OtherHostBuild { .. })));
    world.remove(&snapshot);

    let recorded = world.backed_up();
    disk.reset_tracking();
    let snapshot = world.snapshot();
    assert_eq!(world.changed(&snapshot, &recorded), Err(Doubt::TrackingReset));
    world.remove(&snapshot);
}

#[test]
fn a_resized_disk_is_a_doubt_even_in_the_same_epoch() {
    let world = World::new();
    let recorded = world.backed_up();
    world.machine.disk(0).resize_in_epoch(DISK_LEN + BLOCK);
    let snapshot = world.snapshot();
    let expected = Doubt::Resized { recorded: DISK_LEN, current: DISK_LEN + BLOCK };
    assert_eq!(world.changed(&snapshot, &recorded), Err(expected));
}

#[test]
fn a_change_id_that_the_server_does_not_know_is_a_doubt_and_no_failure() {
    let world = World::new();
    let snapshot = world.snapshot();
    let other = "00 11 22 33 44 55 66 77-88 99 aa bb cc dd ee ff/1".parse().unwrap();
    let told = world.client.changed_areas(&world.vm, &snapshot.snapshot, &snapshot.disks[0], &other);
    assert!(matches!(told, Ok(Err(Doubt::Refused { .. }))), "{told:?}");
}

#[test]
fn sessions_may_end_at_any_call() {
    let world = World::new();
    let disk = world.machine.disk(0);
    let recorded = world.backed_up();
    for block in 0..10 {
        disk.write(2 * block * BLOCK, &[1]);
    }
    let snapshot = world.snapshot();
    let truth = world.changed(&snapshot, &recorded).unwrap();
    world.peer.set_extents_max(2);
    for calls in 1..4 {
        world.peer.expire_sessions_after(Some(calls));
        world.peer.expire_sessions();
        assert_eq!(world.changed(&snapshot, &recorded).as_ref(), Ok(&truth), "after {calls} calls");
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_unless_something_was_changed() {
    let world = World::new();
    let disk = world.machine.disk(0);
    let recorded = world.backed_up();
    disk.write(0, &[1]);
    let snapshot = world.snapshot();
    world.peer.fail("QueryChangedDiskAreas", 1, Failure::AnswerLost);
    world.peer.fail("RetrievePropertiesEx", 1, Failure::Dropped);
    world.peer.cut_connections();
    assert_eq!(world.changed(&snapshot, &recorded), Ok(vec![Extent { start: 0, length: BLOCK }]));
    world.remove(&snapshot);

    world.peer.fail("CreateSnapshot_Task", 1, Failure::AnswerLost);
    let lost = world.client.create_snapshot(&world.vm, "keepstone-lost", "", Quiescing::None).unwrap_err();
    assert!(matches!(lost, VSphereError::Connection { .. }), "{lost:?}");
    assert_eq!(world.machine.snapshot_names(), ["keepstone-lost"]);
}

#[test]
fn a_task_that_fails_tells_its_fault() {
    let world = World::new();
    world.peer.fail_quiescing(1);
    let quiesced = || {
        let task = world.client.create_snapshot(&world.vm, "keepstone-q", "", Quiescing::Guest).unwrap();
        world.finish(&task)
    };
    assert_eq!(quiesced(), Err(FaultKind::ApplicationQuiesce));
    let snapshot = quiesced().unwrap().unwrap();
    assert_eq!(snapshot.kind, "VirtualMachineSnapshot");
    let found = world.client.vm(&world.vm).unwrap().snapshots;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].snapshot, found[0].quiesced), (&snapshot, true));

    let full = Fault::new("NoDiskSpace", "the datastore is full").with("file", "[ds] a");
    world.peer.fail("RemoveSnapshot_Task", 1, Failure::Task(full));
    let task = world.client.remove_snapshot(&snapshot).unwrap();
    assert_eq!(world.finish(&task), Err(FaultKind::NoDiskSpace));
}

#[test]
fn a_vm_is_read_as_it_was_made() {
    let world = World::with(&VmSpec {
        annotation: "a <note> & more".to_owned(),
        disks: vec![DiskSpec::of(DISK_LEN), DiskSpec { thin: false, ..DiskSpec::of(512) }],
        ..VmSpec::default()
    });
    let vm = world.client.vm(&world.vm).unwrap();
    assert_eq!((vm.name.as_str(), vm.annotation.as_deref()), ("web", Some("a <note> & more")));
    assert_eq!(
        (vm.power, vm.connection, vm.hardware_version),
        (Power::On, ConnectionState::Connected, Some(19))
    );
    assert!(vm.change_tracking_supported && vm.change_tracking_enabled && vm.tools_running);
    assert_eq!(vm.instance_uuid, Some(world.machine.instance_uuid()));
    assert_eq!(vm.bios_uuid, Some(world.machine.bios_uuid()));
    for (number, (disk, capacity)) in vm.disks.iter().zip([DISK_LEN, 512]).enumerate() {
        let made = world.machine.disk(number);
        assert_eq!((disk.key, disk.capacity_bytes), (made.key(), capacity));
        assert_eq!(disk.backing.uuid, Some(made.uuid()));
        assert_eq!(disk.backing.file, Some(made.file()));
        assert_eq!(disk.backing.change_id, made.change_id());
        assert_eq!((&disk.backing.kind, disk.backing.thin), (&BackingKind::FlatVer2, Some(number == 0)));
        assert_eq!(disk.address(&vm.controllers), Some(format!("scsi0:{number}")));
    }
    assert_eq!(vm.disks.len(), 2);
    let by_uuid = |uuid: &str, kind| world.client.find_by_uuid(uuid, kind).unwrap();
    assert_eq!(by_uuid(&world.machine.instance_uuid(), UuidKind::Instance), world.vm);
    assert_eq!(by_uuid(&world.machine.bios_uuid(), UuidKind::Bios), world.vm);
    assert_eq!(world.client.datacenter_of(&world.vm).unwrap().path, "DC0");
}

#[test]
fn a_vm_that_is_deleted_or_hidden_says_so() {
    let world = World::new();
    world.peer.hide_property("config.hardware.device");
    let refused = world.client.vm(&world.vm).unwrap_err();
    assert!(matches!(refused.fault(), Some(FaultKind::NoPermission { .. })), "{refused:?}");
    world.machine.delete();
    let gone = world.client.vm(&world.vm).unwrap_err();
    let Some(FaultKind::ManagedObjectNotFound { object }) = gone.fault() else { panic!("{gone:?}") };
    assert_eq!(object.as_ref().map(|object| &object.id), Some(&world.vm.id));
}

#[test]
fn denied_privileges_are_found_and_named_where_they_are_needed() {
    let world = World::new();
    let create = "VirtualMachine.State.CreateSnapshot";
    let remove = "VirtualMachine.State.RemoveSnapshot";
    let missing = || world.client.missing_privileges(&world.vm, &[create, remove]).unwrap();
    assert_eq!(missing(), Some(vec![]));
    world.peer.deny(create);
    assert_eq!(missing(), Some(vec![create.to_owned()]));
    world.peer.fail("HasPrivilegeOnEntities", 1, Fault::new("NotSupported", "not here"));
    assert_eq!(missing(), Some(vec![create.to_owned()]));
    let refused = world.client.create_snapshot(&world.vm, "keepstone-x", "", Quiescing::None).unwrap_err();
    let expected =
        FaultKind::NoPermission { privilege: Some(create.to_owned()), object: Some(world.vm.clone()) };
    assert_eq!(refused.fault(), Some(&expected));
}

#[test]
fn a_snapshots_disk_is_attached_to_a_proxy_read_only_and_detached_with_its_file() {
    let world = World::new();
    let proxy = world.peer.add_vm("DC0/vm/proxy", &VmSpec::default());
    proxy.make_proxy(world.directory.path());
    let place = VSpherePlace::parse("vsphere://h/DC0/vm/proxy").unwrap();
    let proxy_vm = world.client.find_vm(&place).unwrap();
    world.machine.disk(0).write(3 * BLOCK, b"frozen");
    let snapshot = world.snapshot();

    let added = world.client.add_scsi_controller(&proxy_vm, 1).unwrap();
    world.finish(&added).unwrap();
    let controllers = world.client.vm(&proxy_vm).unwrap().controllers;
    let controller = controllers.iter().find(|controller| controller.bus_number == 1).unwrap();
    let file = snapshot.disks[0].backing.file.clone().unwrap();
    let disk = AttachDisk {
        controller_key: controller.key,
        unit_number: 4,
        file: file.clone(),
        mode: AttachMode::Reading,
        new_bytes: None,
    };
    world.finish(&world.client.attach_disk(&proxy_vm, &disk).unwrap()).unwrap();
    assert_eq!(proxy.attached(), [file]);
    let attached = world.client.vm(&proxy_vm).unwrap();
    assert_eq!(attached.disks[0].address(&attached.controllers).as_deref(), Some("scsi1:4"));
    assert!(attached.disks[0].backing.is_independent());

    world.finish(&world.client.detach_disk(&proxy_vm, attached.disks[0].key).unwrap()).unwrap();
    assert_eq!(proxy.attached(), Vec::<String>::new());
    world.remove(&snapshot);
    world.client.logout().unwrap();
    assert_eq!(world.peer.violations(), []);
}

#[test]
fn a_snapshots_file_is_read_in_ranges_through_lost_connections_and_sessions() {
    let world = World::new();
    let disk = world.machine.disk(0);
    disk.write(5 * BLOCK - 3, b"across");
    let snapshot = world.snapshot();
    disk.write(5 * BLOCK - 3, b"behind");
    let datacenter = world.client.datacenter_of(&world.vm).unwrap();
    let file = DatastorePath::parse(snapshot.disks[0].backing.file.as_deref().unwrap()).unwrap();
    let file = file.flat().unwrap();
    assert_eq!(world.client.folder_file_len(&datacenter, &file).unwrap(), DISK_LEN);
    let read = || {
        let mut bytes = [0; 6];
        let len = world.client.get_folder_range(&datacenter, &file, 5 * BLOCK - 3, &mut bytes).unwrap();
        assert_eq!((len, &bytes), (DISK_LEN, b"across"));
    };
    read();
    world.peer.drop_connection("GET /folder", 1);
    read();
    world.peer.expire_sessions();
    read();
    let beyond = world.client.get_folder_range(&datacenter, &file, DISK_LEN - 1, &mut [0; 2]).unwrap_err();
    assert!(
        matches!(beyond, VSphereError::Status { status: 416, .. } | VSphereError::Malformed { .. }),
        "{beyond:?}"
    );
}
