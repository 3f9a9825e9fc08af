//! Disks of snapshots, attached to a proxy.

use std::fs;
use std::path::Path;

use keepstone_peers::vcenter::{DiskSpec, Power, VCenter, Violation, Vm, VmSpec};

use crate::client::{Client, Query, page};

/// Attaches a file to the first controller, at a unit if that matters.
fn attach(client: &mut Client, proxy: &Vm, file: &str, mode: &str) -> Result<Option<String>, String> {
    let arguments = format!(
        "<spec><deviceChange><operation>add</operation><device xsi:type=\"VirtualDisk\"><key>-1</key>\
         <backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\"><fileName>{file}</fileName><diskMode>{mode}</diskMode>\
         </backing><controllerKey>1000</controllerKey><unitNumber>-1</unitNumber><capacityInKB>0</capacityInKB></device>\
         </deviceChange></spec>"
    );
    client.task("ReconfigVM_Task", "VirtualMachine", proxy.id(), &arguments)
}

fn detach(client: &mut Client, proxy: &Vm, key: i32, operation: &str) -> Result<Option<String>, String> {
    let arguments = format!(
        "<spec><deviceChange><operation>remove</operation>{operation}<device xsi:type=\"VirtualDisk\"><key>{key}</key>\
         <capacityInKB>0</capacityInKB></device></deviceChange></spec>"
    );
    client.task("ReconfigVM_Task", "VirtualMachine", proxy.id(), &arguments)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn machines(vcenter: &VCenter, directory: &Path) -> (Vm, Vm) {
    let spec = |size| VmSpec { disks: vec![DiskSpec::of(size)], ..VmSpec::default() };
    let (vm, proxy) =
        (vcenter.add_vm("DC0/vm/web", &spec(200 << 10)), vcenter.add_vm("DC0/vm/proxy", &spec(1 << 10)));
    proxy.make_proxy(directory);
    (vm, proxy)
}

const NONPERSISTENT: &str = "independent_nonpersistent";
const FILE: &str = "[datastore1] web/web.vmdk";

#[test]
fn an_attached_disk_appears_with_what_was_frozen_until_it_is_detached() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let (vm, proxy) = machines(&vcenter, directory.path());
    let mut client = Client::login(&vcenter);
    vm.disk(0).write(70_000, b"frozen");
    let frozen = vm.disk(0).bytes();
    let snapshot = client.create_snapshot(vm.id(), "mine");
    vm.disk(0).write(70_000, b"later!");

    let (dev, block) = (directory.path().join("dev"), directory.path().join("sys/block"));
    assert_eq!(names(&dev), ["sda"]);
    assert_eq!(attach(&mut client, &proxy, FILE, NONPERSISTENT), Ok(None));
    assert_eq!(names(&dev), ["sda", "sdb"]);
    assert_eq!(fs::read(dev.join("sdb")).unwrap(), frozen);
    assert_eq!(fs::read_to_string(block.join("sdb/size")).unwrap(), "400\n");
    let wwid = fs::read_to_string(block.join("sdb/device/wwid")).unwrap();
    assert!(wwid.starts_with("naa.6000c29") && wwid.len() == 4 + 32 + 1, "{wwid}");
    assert_eq!(wwid.trim(), format!("naa.{}", vm.disk(0).uuid().replace('-', "").to_lowercase()));
    assert_eq!(proxy.attached(), [FILE]);

    assert_eq!(detach(&mut client, &proxy, 2001, ""), Ok(None));
    assert_eq!((names(&dev), names(&block)), (vec!["sda".to_owned()], vec!["sda".to_owned()]));
    client.remove_snapshot(&snapshot);
    client.ok("Logout", "SessionManager", "SessionManager", "");
    assert_eq!(vcenter.violations(), []);
}

#[test]
fn a_proxy_may_hide_uuids_and_show_devices_late() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    vcenter.set_wwid_files(false);
    let (vm, proxy) = machines(&vcenter, directory.path());
    let mut client = Client::login(&vcenter);
    client.create_snapshot(vm.id(), "mine");
    vcenter.hold_devices();
    assert_eq!(attach(&mut client, &proxy, FILE, NONPERSISTENT), Ok(None));
    assert_eq!(names(&directory.path().join("sys/block")), ["sda"]);
    vcenter.show_devices();
    assert_eq!(names(&directory.path().join("sys/block")), ["sda", "sdb"]);
    assert_eq!(names(&directory.path().join("sys/block/sdb")), ["device", "size"]);
    assert_eq!(names(&directory.path().join("sys/block/sdb/device")), <[String; 0]>::default());
}

#[test]
fn what_a_proxy_must_not_do_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let (vm, proxy) = machines(&vcenter, directory.path());
    let mut client = Client::login(&vcenter);
    assert_eq!(attach(&mut client, &proxy, FILE, NONPERSISTENT), Err("FileLocked".to_owned()));
    assert_eq!(
        attach(&mut client, &proxy, "[datastore1] none.vmdk", NONPERSISTENT),
        Err("FileNotFound".to_owned())
    );
    let snapshot = client.create_snapshot(vm.id(), "mine");
    assert_eq!(attach(&mut client, &proxy, FILE, "persistent"), Ok(None));
    client.remove_snapshot(&snapshot);
    // The file is in use, so that it could not be merged.
    assert!(vm.consolidation_needed());
    assert_eq!(detach(&mut client, &proxy, 2001, "<fileOperation>destroy</fileOperation>"), Ok(None));
    client.ok("Logout", "SessionManager", "SessionManager", "");
    let (file, snapshot) = (FILE.to_owned(), "mine".to_owned());
    let expected = [
        Violation::UnfrozenDiskRead { file: file.clone() },
        Violation::AttachedWritable { file: file.clone(), mode: "persistent".to_owned() },
        Violation::SnapshotRemovedWhileAttached { snapshot },
        Violation::FileDestroyed { file },
    ];
    assert_eq!(vcenter.violations(), expected);
}

const PERSISTENT: &str = "independent_persistent";

#[test]
fn what_is_written_to_the_disk_of_a_vm_that_is_off_is_there_and_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let (vm, proxy) = machines(&vcenter, directory.path());
    let mut client = Client::login(&vcenter);
    assert_eq!(attach(&mut client, &proxy, FILE, PERSISTENT), Err("FileLocked".to_owned()));
    vm.set_power(Power::Off);
    assert_eq!(attach(&mut client, &proxy, FILE, PERSISTENT), Ok(None));
    // One can have it, and it has no snapshot meanwhile.
    assert_eq!(attach(&mut client, &proxy, FILE, PERSISTENT), Err("FileLocked".to_owned()));
    let arguments = "<name>mine</name><memory>false</memory><quiesce>false</quiesce>";
    let refused = client.task("CreateSnapshot_Task", "VirtualMachine", vm.id(), arguments);
    assert_eq!(refused, Err("FileLocked".to_owned()));
    assert_eq!(proxy.attached(), [FILE]);

    let before = vm.disk(0).change_id();
    let mut expected = vm.disk(0).bytes();
    expected[100_000..100_007].copy_from_slice(b"written");
    fs::write(directory.path().join("dev/sdb"), &expected).unwrap();
    assert_eq!(detach(&mut client, &proxy, 2001, ""), Ok(None));
    assert_eq!(vm.disk(0).bytes(), expected);
    assert_eq!(vm.disk(0).change_id(), before);
    let first = client.create_snapshot(vm.id(), "first");
    let since = client.change_ids(&first).remove(0);
    client.remove_snapshot(&first);
    let second = client.create_snapshot(vm.id(), "second");
    let query = Query { snapshot: &second, key: 2000, start: 0, change_id: &since };
    assert_eq!(page(&client.query(vm.id(), &query)), (0, 200 << 10, Vec::new()));
    client.ok("Logout", "SessionManager", "SessionManager", "");
    assert_eq!(vcenter.violations(), []);
}

#[test]
fn what_nobody_must_write_to_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let (vm, proxy) = machines(&vcenter, directory.path());
    let mut client = Client::login(&vcenter);
    vm.set_power(Power::Suspended);
    assert_eq!(attach(&mut client, &proxy, FILE, PERSISTENT), Ok(None));
    assert_eq!(detach(&mut client, &proxy, 2001, ""), Ok(None));
    vm.set_power(Power::Off);
    vm.create_foreign_snapshot("theirs");
    let delta = vm.disk(0).file();
    assert_eq!(attach(&mut client, &proxy, &delta, PERSISTENT), Ok(None));
    assert_eq!(detach(&mut client, &proxy, 2001, ""), Ok(None));
    vm.remove_snapshot("theirs");
    assert_eq!(attach(&mut client, &proxy, FILE, "persistent"), Ok(None));
    let on = client.task("PowerOnVM_Task", "VirtualMachine", vm.id(), "");
    assert_eq!(on, Err("FileLocked".to_owned()));
    assert_eq!(detach(&mut client, &proxy, 2001, "<fileOperation>destroy</fileOperation>"), Ok(None));
    client.ok("Logout", "SessionManager", "SessionManager", "");
    let file = FILE.to_owned();
    let expected = [
        Violation::SuspendedDiskWritten { file: file.clone() },
        Violation::WrittenUnderSnapshots { file: delta },
        Violation::AttachedDependent { file: file.clone() },
        Violation::PoweredOn { vm: "web".to_owned() },
        Violation::FileDestroyed { file },
    ];
    assert_eq!(vcenter.violations(), expected);
}

#[test]
fn a_disk_that_is_created_stays_when_it_is_detached_and_can_be_destroyed_by_who_created_it() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let (vm, proxy) = machines(&vcenter, directory.path());
    let mut client = Client::login(&vcenter);
    let file = "[datastore1] web/new.vmdk";
    let create = format!(
        "<spec><deviceChange><operation>add</operation><fileOperation>create</fileOperation>\
         <device xsi:type=\"VirtualDisk\"><key>-1</key><backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\">\
         <fileName>{file}</fileName><diskMode>{PERSISTENT}</diskMode><thinProvisioned>true</thinProvisioned></backing>\
         <controllerKey>1000</controllerKey><unitNumber>1</unitNumber><capacityInKB>128</capacityInKB></device>\
         </deviceChange></spec>"
    );
    let mut change =
        |vm: &Vm, change: &str| client.task("ReconfigVM_Task", "VirtualMachine", vm.id(), change);
    assert_eq!(change(&proxy, &create), Ok(None));
    assert_eq!(proxy.files(), ["[datastore1] proxy/proxy.vmdk", file]);
    let written = vec![7; 128 << 10];
    fs::write(directory.path().join("dev/sdb"), &written).unwrap();
    let again = create.replace("<unitNumber>1", "<unitNumber>2");
    assert_eq!(change(&proxy, &again), Err("FileAlreadyExists".to_owned()));
    assert_eq!(detach(&mut client, &proxy, 2001, ""), Ok(None));
    assert_eq!(attach(&mut client, &vm, file, "persistent"), Ok(None));
    assert_eq!(vm.disk(1).bytes(), written);
    assert_eq!(detach(&mut client, &vm, 2001, "<fileOperation>destroy</fileOperation>"), Ok(None));
    assert_eq!(attach(&mut client, &vm, file, "persistent"), Err("FileNotFound".to_owned()));
    client.ok("Logout", "SessionManager", "SessionManager", "");
    assert_eq!(vcenter.violations(), []);
}

#[test]
fn a_full_controller_takes_no_more_and_another_can_be_added() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let (vm, proxy) = machines(&vcenter, directory.path());
    let mut client = Client::login(&vcenter);
    client.create_snapshot(vm.id(), "mine");
    for _ in 0..14 {
        assert_eq!(attach(&mut client, &proxy, FILE, NONPERSISTENT), Ok(None));
    }
    assert_eq!(attach(&mut client, &proxy, FILE, NONPERSISTENT), Err("TooManyDevices".to_owned()));
    let controller = "<spec><deviceChange><operation>add</operation><device xsi:type=\"ParaVirtualSCSIController\">\
                      <key>-1</key><busNumber>1</busNumber><sharedBus>noSharing</sharedBus></device></deviceChange></spec>";
    assert_eq!(client.task("ReconfigVM_Task", "VirtualMachine", proxy.id(), controller), Ok(None));
    let devices = client.properties("VirtualMachine", proxy.id(), &["config.hardware.device"]);
    assert!(devices.contains("<key>1001</key>"), "{devices}");
    let again = client.task("ReconfigVM_Task", "VirtualMachine", proxy.id(), controller);
    assert_eq!(again, Err("InvalidDeviceSpec".to_owned()));
}
