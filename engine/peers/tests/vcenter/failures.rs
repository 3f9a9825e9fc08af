//! Failures that a test plans.

use keepstone_peers::vcenter::{Call, DiskSpec, Failure, Fault, VCenter, Vm, VmSpec};

use crate::client::{Client, between};

const FIND: &str = "<inventoryPath>DC0</inventoryPath>";
const CREATE: &str = "<name>mine</name><memory>false</memory><quiesce>false</quiesce>";

fn machine(vcenter: &VCenter) -> Vm {
    vcenter.add_vm("DC0/vm/web", &VmSpec { disks: vec![DiskSpec::of(1 << 20)], ..VmSpec::default() })
}

#[test]
fn the_chosen_call_fails_in_the_chosen_way() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    let mut client = Client::login(&vcenter);
    vcenter.fail("FindByInventoryPath", 2, Fault::new("HostCommunication", "gone & away"));
    vcenter.fail("FindByInventoryPath", 3, Failure::Status(503));
    assert!(client.find("DC0").is_some());
    assert_eq!(client.fault("FindByInventoryPath", "SearchIndex", "SearchIndex", FIND), "HostCommunication");
    assert_eq!(client.call("FindByInventoryPath", "SearchIndex", "SearchIndex", FIND).status, 503);
    assert!(client.find("DC0").is_some());

    let full = Fault::new("NoDiskSpace", "full").with("datastore", "datastore1");
    vcenter.fail("CreateSnapshot_Task", 1, Failure::Task(full));
    let created = client.task("CreateSnapshot_Task", "VirtualMachine", vm.id(), CREATE);
    assert_eq!(created, Err("NoDiskSpace".to_owned()));
    assert_eq!(vm.snapshot_names(), <[String; 0]>::default());

    vcenter.fail_every("FindByInventoryPath", Failure::Status(500));
    assert_eq!(client.call("FindByInventoryPath", "SearchIndex", "SearchIndex", FIND).status, 500);
    vcenter.heal("FindByInventoryPath");
    assert!(client.find("DC0").is_some());
    assert_eq!(vcenter.count("FindByInventoryPath"), 6);
    let create = Call { method: "CreateSnapshot_Task".to_owned(), object: vm.id().to_owned() };
    assert!(vcenter.calls().contains(&create));
}

#[test]
fn a_connection_is_cut_before_or_after_the_call_is_carried_out() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    vcenter.drop_connection("CreateSnapshot_Task", 1);
    vcenter.fail("CreateSnapshot_Task", 2, Failure::AnswerLost);
    let mut client = Client::login(&vcenter);
    assert!(client.try_call("CreateSnapshot_Task", "VirtualMachine", vm.id(), CREATE).is_none());
    assert_eq!(vm.snapshot_names(), <[String; 0]>::default());
    let mut client = Client::login(&vcenter);
    assert!(client.try_call("CreateSnapshot_Task", "VirtualMachine", vm.id(), CREATE).is_none());
    assert_eq!(vm.snapshot_names(), ["mine"]);
    let mut client = Client::login(&vcenter);
    vcenter.cut_connections();
    assert!(client.try_call("FindByInventoryPath", "SearchIndex", "SearchIndex", FIND).is_none());
}

#[test]
fn a_closure_runs_before_the_chosen_call_is_carried_out() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    let mut client = Client::login(&vcenter);
    let disk = vm.disk(0);
    vcenter.at("CreateSnapshot_Task", 1, move || disk.write(0, b"just before"));
    client.create_snapshot(vm.id(), "mine");
    let target = "/folder/web/web-flat.vmdk?dcPath=DC0&dsName=datastore1";
    let answer = client.send("GET", target, &[("Range", "bytes=0-10")], "").unwrap();
    assert_eq!(answer.body, b"just before");
    assert_eq!(answer.header("content-range"), Some("bytes 0-10/1048576"));

    let gone = vm.clone();
    vcenter.at("RetrievePropertiesEx", 1, move || gone.delete());
    let arguments = crate::client::filter("VirtualMachine", &[vm.id()], &["name"]);
    let fault = client.fault("RetrievePropertiesEx", "PropertyCollector", "propertyCollector", &arguments);
    assert_eq!(fault, "ManagedObjectNotFound");
}

#[test]
fn a_denied_privilege_is_told_and_missed() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = machine(&vcenter);
    let mut client = Client::login(&vcenter);
    vcenter.deny("VirtualMachine.State.CreateSnapshot");
    assert_eq!(client.fault("CreateSnapshot_Task", "VirtualMachine", vm.id(), CREATE), "NoPermission");
    let arguments =
        format!("<entities type=\"VirtualMachine\">{}</entities><userName>me</userName>", vm.id());
    let manager = "AuthorizationManager";
    let told = client.ok("FetchUserPrivilegeOnEntities", manager, manager, &arguments);
    assert!(told.contains("<privileges>VirtualMachine.State.RemoveSnapshot</privileges>"), "{told}");
    assert!(!told.contains("CreateSnapshot<"), "{told}");
    let login = client.relogin(&vcenter);
    let key = between(&login, "<key>", "<").unwrap();
    let arguments = format!(
        "<entity type=\"VirtualMachine\">{}</entity><sessionId>{key}</sessionId>\
         <privId>VirtualMachine.State.CreateSnapshot</privId><privId>Datastore.Browse</privId>",
        vm.id()
    );
    let told = client.ok("HasPrivilegeOnEntities", manager, manager, &arguments);
    let expected = "<privAvailability><privId>VirtualMachine.State.CreateSnapshot</privId><isGranted>false</isGranted>\
                    </privAvailability><privAvailability><privId>Datastore.Browse</privId><isGranted>true</isGranted>";
    assert!(told.contains(expected), "{told}");
    vcenter.deny("Datastore.FileManagement");
    let target = "/folder/web/web-flat.vmdk?dcPath=DC0&dsName=datastore1";
    assert_eq!(client.send("HEAD", target, &[], "").unwrap().status, 403);
}
