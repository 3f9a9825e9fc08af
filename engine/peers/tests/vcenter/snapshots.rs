//! Snapshots and what must not happen to them.

use std::time::Duration;

use keepstone_peers::vcenter::{
    ChangeTracking, ControllerKind, ControllerSpec, DiskKind, DiskMode, DiskSpec, Power, VCenter, Violation,
    Vm, VmSpec,
};

use crate::client::{Client, between};

const CREATE: &str = "<name>mine</name><memory>false</memory><quiesce>true</quiesce>";
const REMOVE: &str = "<removeChildren>false</removeChildren><consolidate>true</consolidate>";

fn machine(vcenter: &VCenter) -> Vm {
    vcenter.add_vm("DC0/vm/web", &VmSpec { disks: vec![DiskSpec::of(1 << 20)], ..VmSpec::default() })
}

fn create(client: &mut Client, vm: &Vm) -> Result<Option<String>, String> {
    client.task("CreateSnapshot_Task", "VirtualMachine", vm.id(), CREATE)
}

#[test]
fn files_of_changes_are_merged_where_a_snapshot_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    let mut client = Client::login(&vcenter);
    let flat = |client: &mut Client, name: &str| {
        let target = format!("/folder/web/{name}?dcPath=DC0&dsName=datastore1");
        let answer = client.send("GET", &target, &[("Range", "bytes=0-3")], "").unwrap();
        (answer.status, answer.body)
    };
    vm.disk(0).write(0, b"aaaa");
    vm.create_foreign_snapshot("theirs");
    vm.disk(0).write(0, b"bbbb");
    let mine = create(&mut client, &vm).unwrap().unwrap();
    vm.disk(0).write(0, b"cccc");

    assert_eq!(vm.disk(0).file(), "[datastore1] web/web-000002.vmdk");
    assert_eq!(flat(&mut client, "web-flat.vmdk"), (206, b"aaaa".to_vec()));
    assert_eq!(flat(&mut client, "web-000001-flat.vmdk"), (404, Vec::new()));
    let config = client.properties("VirtualMachineSnapshot", &mine, &["config.hardware.device"]);
    assert!(config.contains("<fileName>[datastore1] web/web-000001.vmdk</fileName>"), "{config}");
    assert!(config.contains(
        "<parent xsi:type=\"VirtualDiskFlatVer2BackingInfo\"><fileName>[datastore1] web/web.vmdk<"
    ));

    vm.remove_snapshot("theirs");
    // The second file of changes now lies on a base that holds what the first did.
    assert_eq!(flat(&mut client, "web-flat.vmdk"), (206, b"bbbb".to_vec()));
    client.remove_snapshot(&mine);
    assert_eq!(vm.disk(0).file(), "[datastore1] web/web.vmdk");
    assert_eq!(vm.disk(0).read(0, 4), b"cccc");
    assert_eq!(vm.snapshot_names(), <[String; 0]>::default());
    client.ok("Logout", "SessionManager", "SessionManager", "");
    assert_eq!(vcenter.violations(), []);
}

#[test]
fn the_tree_tells_what_was_created_and_how() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    let mut client = Client::login(&vcenter);
    vm.create_leftover_snapshot("below");
    vm.set_snapshot_age("below", Duration::from_hours(48));
    let above = create(&mut client, &vm).unwrap().unwrap();
    let tree = client.properties("VirtualMachine", vm.id(), &["snapshot"]);
    assert_eq!(
        between(&tree, "<currentSnapshot type=\"VirtualMachineSnapshot\">", "<"),
        Some(above.as_str())
    );
    let below = between(&tree, "<rootSnapshotList>", "<childSnapshotList>").unwrap();
    assert!(below.contains("<name>below</name>") && below.contains("<quiesced>false</quiesced>"), "{below}");
    let child = between(&tree, "<childSnapshotList>", "</childSnapshotList>").unwrap();
    assert!(child.contains("<name>mine</name>") && child.contains("<quiesced>true</quiesced>"), "{child}");
    let names: Vec<_> = vm.snapshots().into_iter().map(|found| (found.name, found.quiesced)).collect();
    assert_eq!(names, [("below".to_owned(), false), ("mine".to_owned(), true)]);
}

#[test]
fn quiescing_fails_as_often_as_the_test_wants_and_needs_tools() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    let mut client = Client::login(&vcenter);
    vcenter.fail_quiescing(2);
    assert_eq!(create(&mut client, &vm), Err("ApplicationQuiesceFault".to_owned()));
    assert_eq!(create(&mut client, &vm), Err("ApplicationQuiesceFault".to_owned()));
    assert!(create(&mut client, &vm).is_ok());
    vm.set_tools(false);
    assert!(create(&mut client, &vm).is_ok());
    assert_eq!(vm.snapshots().iter().map(|found| found.quiesced).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_snapshot_before_disks_are_merged_is_a_violation() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    let mut client = Client::login(&vcenter);
    let violation = Violation::SnapshotDuringConsolidation { vm: "web".to_owned() };
    let broken = |vcenter: &VCenter| vcenter.violations().iter().filter(|found| **found == violation).count();

    // It was removed, and nobody waited for the end.
    let first = create(&mut client, &vm).unwrap().unwrap();
    client.ok("RemoveSnapshot_Task", "VirtualMachineSnapshot", &first, REMOVE);
    assert_eq!(create(&mut client, &vm), Err("TaskInProgress".to_owned()));
    assert_eq!(broken(&vcenter), 1);

    // The removal has left it to be done.
    let needed = |client: &mut Client| {
        let told = client.properties("VirtualMachine", vm.id(), &["runtime.consolidationNeeded"]);
        told.contains("<val xsi:type=\"xsd:boolean\">true</val>")
    };
    assert!(!needed(&mut client));
    let second = (0..3).find_map(|_| create(&mut client, &vm).ok().flatten()).unwrap();
    vcenter.leave_unconsolidated(1);
    client.remove_snapshot(&second);
    assert!(needed(&mut client));
    assert_eq!(vm.disk(0).file(), "[datastore1] web/web-000002.vmdk");
    let before = broken(&vcenter);
    let third = create(&mut client, &vm).unwrap().unwrap();
    assert_eq!(broken(&vcenter), before + 1);

    // A consolidation that lasts for ever never merges.
    client.remove_snapshot(&third);
    vcenter.leave_unconsolidated(1);
    let fourth = create(&mut client, &vm).unwrap().unwrap();
    client.remove_snapshot(&fourth);
    vcenter.slow_tasks("ConsolidateVMDisks_Task", Some(u64::MAX));
    client.ok("ConsolidateVMDisks_Task", "VirtualMachine", vm.id(), "");
    assert!((0..50).all(|_| needed(&mut client)));
    // One that lasts for some questions ends.
    vcenter.slow_tasks("ConsolidateVMDisks_Task", Some(3));
    assert_eq!(client.task("ConsolidateVMDisks_Task", "VirtualMachine", vm.id(), ""), Ok(None));
    assert!(!needed(&mut client));
}

#[test]
fn removing_what_is_somebody_elses_is_a_violation() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    let mut client = Client::login(&vcenter);
    vm.create_leftover_snapshot("ours");
    vm.create_foreign_snapshot("theirs");
    let ours = vm.snapshots()[0].id.clone();
    client.remove_snapshot(&ours);
    client.ok("Logout", "SessionManager", "SessionManager", "");
    assert_eq!(vcenter.violations(), []);
    let mut client = Client::login(&vcenter);
    let theirs = vm.snapshots()[0].id.clone();
    client.remove_snapshot(&theirs);
    client.ok("Logout", "SessionManager", "SessionManager", "");
    assert_eq!(vcenter.violations(), [Violation::ForeignSnapshotRemoved { snapshot: "theirs".to_owned() }]);
}

#[test]
fn tracking_begins_at_the_next_snapshot_or_change_of_power() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let spec = VmSpec {
        change_tracking: ChangeTracking::Off,
        disks: vec![
            DiskSpec::of(1 << 20),
            DiskSpec { kind: DiskKind::PhysicalMapping, ..DiskSpec::of(1 << 20) },
            DiskSpec { mode: DiskMode::IndependentPersistent, ..DiskSpec::of(1 << 20) },
        ],
        ..VmSpec::default()
    };
    let (one, two) = (vcenter.add_vm("DC0/vm/one", &spec), vcenter.add_vm("DC0/vm/two", &spec));
    let mut client = Client::login(&vcenter);
    let enable = "<spec><changeTrackingEnabled>true</changeTrackingEnabled></spec>";
    for vm in [&one, &two] {
        assert_eq!(client.task("ReconfigVM_Task", "VirtualMachine", vm.id(), enable), Ok(None));
        assert!(vm.change_tracking());
        assert_eq!(vm.disk(0).change_id(), None);
    }
    let snapshot = client.create_snapshot(one.id(), "first");
    // Only the first disk takes part in snapshots.
    assert_eq!(client.change_ids(&snapshot).len(), 1);
    two.set_power(Power::Off);
    assert!(two.disk(0).change_id().is_some());

    one.set_change_tracking(false);
    one.set_power(Power::Off);
    let over = Violation::TrackingEnabledOverSnapshots { vm: "one".to_owned() };
    assert!(!vcenter.violations().contains(&over));
    assert_eq!(client.task("ReconfigVM_Task", "VirtualMachine", one.id(), enable), Ok(None));
    assert!(vcenter.violations().contains(&over));
}

#[test]
fn a_revert_brings_contents_back_and_sequences_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    vm.disk(0).write(0, b"then");
    vm.create_foreign_snapshot("then");
    vm.disk(0).write(0, b"now!");
    let mut client = Client::login(&vcenter);
    let later: Vec<_> = (0..3)
        .map(|_| {
            let snapshot = client.create_snapshot(vm.id(), "later");
            let change_id = client.change_ids(&snapshot).remove(0);
            client.remove_snapshot(&snapshot);
            change_id
        })
        .collect();
    assert!(later[2].ends_with("/4"), "{later:?}");
    vm.revert_to("then");
    assert_eq!(vm.disk(0).read(0, 4), b"then");
    let epoch = later[2].split('/').next().unwrap();
    assert_eq!(vm.disk(0).change_id(), Some(format!("{epoch}/2")));
    vm.disk(0).resize_in_epoch(2 << 20);
    assert_eq!(vm.disk(0).change_id(), Some(format!("{epoch}/2")));
    vm.disk(0).resize(3 << 20);
    assert_ne!(vm.disk(0).change_id().unwrap().split('/').next(), Some(epoch));
}

#[test]
fn shared_disks_and_other_tasks_stand_in_the_way_of_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let shared = DiskSpec { multi_writer: true, ..DiskSpec::of(512) };
    let writers = vcenter.add_vm("DC0/vm/writers", &VmSpec { disks: vec![shared], ..VmSpec::default() });
    let bus = ControllerSpec { kind: ControllerKind::LsiLogicSas, bus_sharing: true };
    let spec = VmSpec { controllers: vec![bus], disks: vec![DiskSpec::of(512)], ..VmSpec::default() };
    let bus = vcenter.add_vm("DC0/vm/bus", &spec);
    let mut client = Client::login(&vcenter);
    for vm in [&writers, &bus] {
        assert_eq!(create(&mut client, vm), Err("SharedBusControllerNotSupported".to_owned()));
    }
    let vm = machine(&vcenter);
    vm.start_other_task(1);
    assert_eq!(create(&mut client, &vm), Err("TaskInProgress".to_owned()));
    let recent = client.properties("VirtualMachine", vm.id(), &["recentTask"]);
    let task = between(&recent, "<ManagedObjectReference type=\"Task\">", "<").unwrap();
    let state = |client: &mut Client| {
        let info = client.properties("Task", task, &["info.state"]);
        between(&info, "<val xsi:type=\"TaskInfoState\">", "<").unwrap().to_owned()
    };
    assert_eq!([state(&mut client), state(&mut client)], ["running", "success"]);
    assert!(create(&mut client, &vm).is_ok());
    client.ok("Logout", "SessionManager", "SessionManager", "");
    assert_eq!(vcenter.violations(), []);
}
