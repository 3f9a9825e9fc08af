//! Files of datastores.

use keepstone_peers::vcenter::{DiskSpec, Power, VCenter, Violation, VmSpec};

use crate::client::Client;

const FLAT: &str = "/folder/web/web-flat.vmdk?dcPath=DC0&dsName=datastore1";

#[test]
fn a_frozen_base_is_read_in_ranges_and_only_with_a_session() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = vcenter.add_vm("DC0/vm/web", &VmSpec { disks: vec![DiskSpec::of(1024)], ..VmSpec::default() });
    vm.disk(0).write(0, &[7; 1024]);
    assert_eq!(Client::connect(&vcenter).send("GET", FLAT, &[], "").unwrap().status, 401);
    let mut client = Client::login(&vcenter);
    let quiesced = "<name>mine</name><memory>false</memory>\
                    <quiesceSpec xsi:type=\"VirtualMachineGuestQuiesceSpec\"><timeout>5</timeout></quiesceSpec>";
    client.task("CreateSnapshotEx_Task", "VirtualMachine", vm.id(), quiesced).unwrap().unwrap();
    assert!(vm.snapshots()[0].quiesced);

    let mut get = |range: &str| {
        let answer = client.send("GET", FLAT, &[("Range", range)], "").unwrap();
        (answer.status, answer.header("content-range").unwrap().to_owned(), answer.body.len())
    };
    assert_eq!(get("bytes=1000-1001"), (206, "bytes 1000-1001/1024".to_owned(), 2));
    assert_eq!(get("bytes=1000-9999"), (206, "bytes 1000-1023/1024".to_owned(), 24));
    assert_eq!(get("bytes=-1"), (206, "bytes 1023-1023/1024".to_owned(), 1));
    assert_eq!(get("bytes=1024-"), (416, "bytes */1024".to_owned(), 0));
    let head = client.send("HEAD", FLAT, &[], "").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("1024")));
    let elsewhere = FLAT.replace("DC0", "DC1");
    assert_eq!(client.send("GET", &elsewhere, &[], "").unwrap().status, 404);
    let descriptor = client.send("GET", &FLAT.replace("-flat", ""), &[], "").unwrap();
    assert!(descriptor.text().contains("RW 2 VMFS \"web-flat.vmdk\""), "{}", descriptor.text());
}

#[test]
fn a_disk_in_use_is_locked_and_to_read_it_a_violation() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = vcenter.add_vm("DC0/vm/web", &VmSpec { disks: vec![DiskSpec::of(512)], ..VmSpec::default() });
    let mut client = Client::login(&vcenter);
    assert_eq!(client.send("GET", FLAT, &[], "").unwrap().status, 500);
    vm.set_power(Power::Off);
    assert_eq!(client.send("GET", FLAT, &[], "").unwrap().body, [0; 512]);
    client.ok("Logout", "SessionManager", "SessionManager", "");
    let file = "[datastore1] web/web.vmdk".to_owned();
    assert_eq!(vcenter.violations(), [Violation::UnfrozenDiskRead { file }]);
}
