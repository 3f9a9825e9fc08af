//! Who may ask, and what the inventory answers.

use keepstone_peers::vcenter::{DiskKind, DiskSpec, VCenter, VmSpec};

use crate::client::{Client, between, filter};

#[test]
fn a_wrong_password_opens_no_session() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let mut client = Client::connect(&vcenter);
    let arguments = "<userName>backup@vsphere.local</userName><password>wrong</password>";
    assert_eq!(client.fault("Login", "SessionManager", "SessionManager", arguments), "InvalidLogin");
    let path = "<inventoryPath>DC0</inventoryPath>";
    let fault = client.fault("FindByInventoryPath", "SearchIndex", "SearchIndex", path);
    assert_eq!(fault, "NotAuthenticated");
    assert_eq!(vcenter.open_sessions(), 0);
}

#[test]
fn a_virtual_machine_is_found_by_its_path_and_by_either_uuid() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let vm = vcenter.add_vm("DC0/vm/prod/a%2fb &amp; c", &VmSpec::default());
    let web = vcenter.add_vm("DC0/vm/prod/web", &VmSpec::default());
    let mut client = Client::login(&vcenter);
    assert_eq!(client.find("/DC0/vm/prod/web").as_deref(), Some(web.id()));
    assert_eq!(client.find("DC0/vm/prod/a%2fb &amp;amp; c").as_deref(), Some(vm.id()));
    assert_eq!(client.find("DC0/vm/none"), None);
    for (uuid, instance) in [(web.instance_uuid(), true), (web.bios_uuid(), false)] {
        let arguments =
            format!("<uuid>{uuid}</uuid><vmSearch>true</vmSearch><instanceUuid>{instance}</instanceUuid>");
        let found = client.ok("FindByUuid", "SearchIndex", "SearchIndex", &arguments);
        assert_eq!(between(&found, "<returnval type=\"VirtualMachine\">", "<"), Some(web.id()));
        let other =
            arguments.replace(&instance.to_string(), "false").replace("<vmSearch>false", "<vmSearch>true");
        let found = client.ok("FindByUuid", "SearchIndex", "SearchIndex", &other);
        assert_eq!(found.contains("returnval"), !instance);
    }
}

#[test]
fn properties_say_their_types_and_come_page_by_page() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    let spec = VmSpec {
        disks: vec![DiskSpec::of(1 << 20), DiskSpec { kind: DiskKind::SeSparse, ..DiskSpec::of(62 << 40) }],
        ..VmSpec::default()
    };
    let (one, two) = (vcenter.add_vm("DC0/vm/one", &spec), vcenter.add_vm("DC0/vm/two", &spec));
    let mut client = Client::login(&vcenter);

    let devices = client.properties("VirtualMachine", one.id(), &["config.hardware.device", "snapshot"]);
    assert!(devices.contains("<name>config.hardware.device</name><val xsi:type=\"ArrayOfVirtualDevice\"><VirtualDevice xsi:type=\"ParaVirtualSCSIController\"><key>1000</key>"), "{devices}");
    assert!(devices.contains("<VirtualDevice xsi:type=\"VirtualDisk\"><key>2001</key>"));
    assert!(devices.contains("<backing xsi:type=\"VirtualDiskSeSparseBackingInfo\"><fileName>[datastore1] one/one_1.vmdk</fileName>"));
    assert!(devices.contains(
        "<capacityInKB>66571993088</capacityInKB><capacityInBytes>68169720922112</capacityInBytes>"
    ));
    // What is unset is left out.
    assert_eq!(devices.matches("<propSet>").count(), 1);

    let arguments = filter("VirtualMachine", &[one.id(), two.id()], &["name"]);
    let arguments = arguments.replace("<options>", "<options><maxObjects>1</maxObjects>");
    let first = client.ok("RetrievePropertiesEx", "PropertyCollector", "propertyCollector", &arguments);
    assert!(first.contains("<val xsi:type=\"xsd:string\">one</val>") && !first.contains(">two<"), "{first}");
    let token = format!("<token>{}</token>", between(&first, "<token>", "<").unwrap());
    let rest = client.ok("ContinueRetrievePropertiesEx", "PropertyCollector", "propertyCollector", &token);
    assert!(rest.contains(">two</val>") && !rest.contains("<token>"), "{rest}");
    assert_eq!(
        client.fault("ContinueRetrievePropertiesEx", "PropertyCollector", "propertyCollector", &token),
        "InvalidArgument"
    );

    let unknown = filter("VirtualMachine", &[one.id()], &["config.nonsense"]);
    let fault = client.fault("RetrievePropertiesEx", "PropertyCollector", "propertyCollector", &unknown);
    assert_eq!(fault, "InvalidProperty");
    vcenter.hide_property("config.annotation");
    let hidden = client.properties("VirtualMachine", one.id(), &["config.annotation"]);
    assert!(
        hidden.contains("<missingSet><path>config.annotation</path><fault><fault xsi:type=\"NoPermission\">"),
        "{hidden}"
    );
}

#[test]
fn sessions_end_by_logout_and_by_time_and_those_left_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let vcenter = VCenter::start(directory.path());
    vcenter.expire_sessions_after(Some(2));
    let mut client = Client::login(&vcenter);
    client.find("DC0");
    client.find("DC0");
    let path = "<inventoryPath>DC0</inventoryPath>";
    assert_eq!(client.fault("FindByInventoryPath", "SearchIndex", "SearchIndex", path), "NotAuthenticated");
    assert_eq!(vcenter.violations(), []);

    vcenter.expire_sessions_after(None);
    let mut client = Client::login(&vcenter);
    assert_eq!(vcenter.violations().len(), 1);
    client.ok("Logout", "SessionManager", "SessionManager", "");
    assert_eq!(vcenter.violations(), []);
}
