//! What is read out of answers, in the form in which vCenter writes them.

use crate::peer::{Peer, chain, fault, properties, returning};
use keepstone_engine::Extent;
use keepstone_engine::vsphere::changes::{ChangeId, ChangedPage, Doubt, RawArea};
use keepstone_engine::vsphere::{
    Backing, BackingKind, BusSharing, ConnectionState, Controller, ControllerKind, Datacenter, FaultKind,
    MoRef, NetworkAdapter, Power, SnapshotNode, UuidKind, VSphereError, VSpherePlace, VirtualDisk, VmInfo,
};

fn a_vm() -> MoRef {
    MoRef::new("VirtualMachine", "vm-12")
}

fn a_snapshot(number: u32) -> MoRef {
    MoRef::new("VirtualMachineSnapshot", &format!("snapshot-{number}"))
}

/// One property of a simple type.
fn value(path: &str, xsi_type: &str, text: &str) -> String {
    format!("<propSet><name>{path}</name><val xsi:type=\"{xsi_type}\">{text}</val></propSet>")
}

const CONTROLLERS: &str = "\
    <VirtualDevice xsi:type=\"VirtualIDEController\"><key>200</key><deviceInfo><label>IDE 0</label><summary>IDE 0</summary>\
    </deviceInfo><busNumber>0</busNumber></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualPS2Controller\"><key>300</key><busNumber>0</busNumber><device>600</device></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualKeyboard\"><key>600</key><controllerKey>300</controllerKey></VirtualDevice>\
    <VirtualDevice xsi:type=\"ParaVirtualSCSIController\"><key>1000</key><deviceInfo><label>SCSI controller 0</label>\
    </deviceInfo><controllerKey>100</controllerKey><unitNumber>3</unitNumber><busNumber>0</busNumber><device>2000</device>\
    <hotAddRemove>true</hotAddRemove><sharedBus>noSharing</sharedBus><scsiCtlrUnitNumber>7</scsiCtlrUnitNumber></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualLsiLogicSASController\"><key>1001</key><busNumber>1</busNumber>\
    <sharedBus>physicalSharing</sharedBus></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualNVMEController\"><key>31000</key><busNumber>0</busNumber></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualAHCIController\"><key>15000</key><busNumber>0</busNumber></VirtualDevice>";

const DISKS: &str = "\
    <VirtualDevice xsi:type=\"VirtualDisk\"><key>2000</key><deviceInfo><label>Hard disk 1</label><summary>16,777,216 KB</summary>\
    </deviceInfo><backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\"><fileName>[vsanDatastore] 5f/web-000001.vmdk</fileName>\
    <datastore type=\"Datastore\">datastore-15</datastore><backingObjectId/><diskMode>persistent</diskMode><split>false</split>\
    <writeThrough>false</writeThrough><thinProvisioned>true</thinProvisioned><uuid>6000C298-0000</uuid>\
    <changeId>52 de a8 64 53 44 f0 f6-b7 46 a9 f9 e8 8f 13 1b/5</changeId>\
    <parent xsi:type=\"VirtualDiskFlatVer2BackingInfo\"><fileName>[vsanDatastore] 5f/web.vmdk</fileName>\
    <diskMode>persistent</diskMode></parent><sharing>sharingNone</sharing></backing>\
    <controllerKey>1000</controllerKey><unitNumber>0</unitNumber><capacityInKB>16777216</capacityInKB>\
    <capacityInBytes>17179869184</capacityInBytes><shares><shares>1000</shares></shares></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualDisk\"><key>2016</key><backing xsi:type=\"VirtualDiskRawDiskMappingVer1BackingInfo\">\
    <fileName>[ds] web/rdm.vmdk</fileName><lunUuid>0200</lunUuid><compatibilityMode>physicalMode</compatibilityMode>\
    <diskMode>independent_persistent</diskMode><uuid>6000C299</uuid><sharing>sharingMultiWriter</sharing></backing>\
    <controllerKey>1001</controllerKey><unitNumber>3</unitNumber><capacityInKB>1048576</capacityInKB></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualDisk\"><key>32000</key><deviceInfo><label>Hard disk 3</label></deviceInfo>\
    <backing xsi:type=\"VirtualDiskPartitionedRawDiskVer2BackingInfo\"><descriptorFileName>[ds] web/raw.vmdk</descriptorFileName>\
    </backing><controllerKey>31000</controllerKey><unitNumber>0</unitNumber><capacityInKB>1</capacityInKB>\
    <capacityInBytes>1536</capacityInBytes></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualDisk\"><key>9</key><backing xsi:type=\"VirtualDiskSeSparseBackingInfo\"/>\
    <capacityInKB>0</capacityInKB></VirtualDevice>";

const NETWORKS: &str = "\
    <VirtualDevice xsi:type=\"VirtualVmxnet3\"><key>4000</key><deviceInfo><label>Network adapter 1</label></deviceInfo>\
    <backing xsi:type=\"VirtualEthernetCardNetworkBackingInfo\"><deviceName>VM Network</deviceName></backing>\
    <addressType>assigned</addressType><macAddress>00:50:56:aa:bb:cc</macAddress></VirtualDevice>\
    <VirtualDevice xsi:type=\"VirtualE1000e\"><key>4001</key>\
    <backing xsi:type=\"VirtualEthernetCardDistributedVirtualPortBackingInfo\"><port><portgroupKey>dvportgroup-7</portgroupKey>\
    </port></backing><addressType>generated</addressType></VirtualDevice>";

fn devices() -> String {
    let devices = format!("{CONTROLLERS}{DISKS}{NETWORKS}");
    format!(
        "<propSet><name>config.hardware.device</name><val xsi:type=\"ArrayOfVirtualDevice\">{devices}</val></propSet>"
    )
}

fn snapshots() -> String {
    let node = |number: u32, name: &str, below: &str| {
        let time = format!("2026-03-0{number}T12:30:00.5Z");
        format!(
            "<snapshot type=\"VirtualMachineSnapshot\">snapshot-{number}</snapshot><vm type=\"VirtualMachine\">vm-12</vm>\
             <name>{name}</name><description>of day {number}</description><id>{number}</id><createTime>{time}</createTime>\
             <state>poweredOn</state><quiesced>{}</quiesced>{below}<replaySupported>false</replaySupported>",
            number == 2
        )
    };
    let third = format!("<childSnapshotList>{}</childSnapshotList>", node(3, "leaf", ""));
    let below = format!(
        "<childSnapshotList>{}</childSnapshotList><childSnapshotList>{}</childSnapshotList>",
        node(2, "keepstone &amp; co", &third),
        node(4, "", "")
    );
    format!(
        "<propSet><name>snapshot.rootSnapshotList</name><val xsi:type=\"ArrayOfVirtualMachineSnapshotTree\">\
         <VirtualMachineSnapshotTree xsi:type=\"VirtualMachineSnapshotTree\">{}</VirtualMachineSnapshotTree></val></propSet>\
         <propSet><name>snapshot.currentSnapshot</name><val type=\"VirtualMachineSnapshot\" \
         xsi:type=\"ManagedObjectReference\">snapshot-4</val></propSet>",
        node(1, "first", &below)
    )
}

fn simple_values() -> String {
    [
        ("name", "xsd:string", "web%2f1 &amp; \u{e9}"),
        ("capability.changeTrackingSupported", "xsd:boolean", "true"),
        ("config.annotation", "xsd:string", "line 1\nline 2"),
        ("config.changeTrackingEnabled", "xsd:boolean", "1"),
        ("config.files.vmPathName", "xsd:string", "[vsanDatastore] 5f/web.vmx"),
        ("config.firmware", "xsd:string", "efi"),
        ("config.guestFullName", "xsd:string", "Debian GNU/Linux 12 (64-bit)"),
        ("config.guestId", "xsd:string", "debian12_64Guest"),
        ("config.hardware.memoryMB", "xsd:int", "4096"),
        ("config.hardware.numCPU", "xsd:int", "2"),
        ("config.instanceUuid", "xsd:string", "5025f0b2-1111-2222-3333-444455556666"),
        ("config.template", "xsd:boolean", "false"),
        ("config.uuid", "xsd:string", "4225f0b2-1111-2222-3333-444455556666"),
        ("config.version", "xsd:string", "vmx-19"),
        ("guest.toolsRunningStatus", "xsd:string", "guestToolsRunning"),
        ("runtime.connectionState", "VirtualMachineConnectionState", "connected"),
        ("runtime.consolidationNeeded", "xsd:boolean", "0"),
        ("runtime.powerState", "VirtualMachinePowerState", "poweredOn"),
    ]
    .into_iter()
    .map(|(path, xsi_type, text)| value(path, xsi_type, text))
    .chain(["<propSet><name>runtime.host</name><val type=\"HostSystem\" xsi:type=\"ManagedObjectReference\">host-9</val></propSet>".to_owned()])
    .collect()
}

fn disk(
    key: i32,
    label: &str,
    place: (Option<i32>, Option<i32>),
    capacity_bytes: u64,
    backing: Backing,
) -> VirtualDisk {
    let (controller_key, unit_number) = place;
    VirtualDisk { key, label: label.to_owned(), controller_key, unit_number, capacity_bytes, backing }
}

fn no_backing(kind: BackingKind) -> Backing {
    Backing {
        kind,
        file: None,
        uuid: None,
        change_id: None,
        mode: None,
        sharing: false,
        thin: None,
        parent_file: None,
    }
}

fn expected_disks() -> Vec<VirtualDisk> {
    let text = |text: &str| Some(text.to_owned());
    let flat = Backing {
        file: text("[vsanDatastore] 5f/web-000001.vmdk"),
        uuid: text("6000C298-0000"),
        change_id: text("52 de a8 64 53 44 f0 f6-b7 46 a9 f9 e8 8f 13 1b/5"),
        mode: text("persistent"),
        thin: Some(true),
        parent_file: text("[vsanDatastore] 5f/web.vmdk"),
        ..no_backing(BackingKind::FlatVer2)
    };
    let mapped = Backing {
        file: text("[ds] web/rdm.vmdk"),
        uuid: text("6000C299"),
        mode: text("independent_persistent"),
        sharing: true,
        ..no_backing(BackingKind::RdmPhysical)
    };
    let raw = Backing {
        file: text("[ds] web/raw.vmdk"),
        ..no_backing(BackingKind::Other("VirtualDiskPartitionedRawDiskVer2BackingInfo".to_owned()))
    };
    vec![
        disk(2000, "Hard disk 1", (Some(1000), Some(0)), 16 << 30, flat),
        disk(2016, "", (Some(1001), Some(3)), 1 << 30, mapped),
        disk(32000, "Hard disk 3", (Some(31000), Some(0)), 1536, raw),
        disk(9, "", (None, None), 0, no_backing(BackingKind::SeSparse)),
    ]
}

fn controller(
    key: i32,
    kind: ControllerKind,
    device_type: &str,
    bus_number: i32,
    sharing: BusSharing,
) -> Controller {
    Controller { key, kind, device_type: device_type.to_owned(), bus_number, sharing }
}

fn expected_controllers() -> Vec<Controller> {
    vec![
        controller(200, ControllerKind::Ide, "VirtualIDEController", 0, BusSharing::None),
        controller(1000, ControllerKind::ParaVirtualScsi, "ParaVirtualSCSIController", 0, BusSharing::None),
        controller(1001, ControllerKind::Scsi, "VirtualLsiLogicSASController", 1, BusSharing::Physical),
        controller(31000, ControllerKind::Nvme, "VirtualNVMEController", 0, BusSharing::None),
        controller(15000, ControllerKind::Sata, "VirtualAHCIController", 0, BusSharing::None),
    ]
}

fn expected_snapshots() -> Vec<SnapshotNode> {
    let node = |number: u32, name: &str, parent: Option<u32>| SnapshotNode {
        snapshot: a_snapshot(number),
        name: name.to_owned(),
        description: format!("of day {number}"),
        create_time: format!("2026-03-0{number}T12:30:00.5Z"),
        create_millis: Some(1_772_368_200_500 + (i64::from(number) - 1) * 86_400_000),
        quiesced: number == 2,
        parent: parent.map(a_snapshot),
    };
    vec![
        node(1, "first", None),
        node(2, "keepstone & co", Some(1)),
        node(3, "leaf", Some(2)),
        node(4, "", Some(1)),
    ]
}

fn expected_vm() -> VmInfo {
    let text = |text: &str| Some(text.to_owned());
    VmInfo {
        vm: a_vm(),
        name: "web%2f1 & \u{e9}".to_owned(),
        instance_uuid: text("5025f0b2-1111-2222-3333-444455556666"),
        bios_uuid: text("4225f0b2-1111-2222-3333-444455556666"),
        power: Power::On,
        connection: ConnectionState::Connected,
        is_template: false,
        hardware_version: Some(19),
        change_tracking_supported: true,
        change_tracking_enabled: true,
        consolidation_needed: false,
        tools_running: true,
        guest_id: text("debian12_64Guest"),
        guest_name: text("Debian GNU/Linux 12 (64-bit)"),
        firmware: text("efi"),
        cpus: Some(2),
        memory_mib: Some(4096),
        annotation: text("line 1\nline 2"),
        vmx_path: text("[vsanDatastore] 5f/web.vmx"),
        host: Some(MoRef::new("HostSystem", "host-9")),
        disks: expected_disks(),
        controllers: expected_controllers(),
        networks: vec![
            NetworkAdapter {
                label: "Network adapter 1".to_owned(),
                kind: "VirtualVmxnet3".to_owned(),
                mac: text("00:50:56:aa:bb:cc"),
                network: text("VM Network"),
            },
            NetworkAdapter {
                label: String::new(),
                kind: "VirtualE1000e".to_owned(),
                mac: None,
                network: text("dvportgroup-7"),
            },
        ],
        snapshots: expected_snapshots(),
        current_snapshot: Some(a_snapshot(4)),
    }
}

#[test]
fn all_of_a_vm_is_read() {
    let sets = format!("{}{}{}", simple_values(), devices(), snapshots());
    let peer = Peer::start(move |_, _| properties(&a_vm(), &sets));
    let vm = peer.connect().vm(&a_vm()).unwrap();
    assert_eq!(vm, expected_vm());
    assert_eq!(peer.methods_after_login(), ["RetrievePropertiesEx"]);
    let addresses: Vec<_> = vm.disks.iter().map(|disk| disk.address(&vm.controllers)).collect();
    let expected = [Some("scsi0:0"), Some("scsi1:3"), Some("nvme0:0"), None];
    assert_eq!(addresses, expected.map(|address| address.map(str::to_owned)));
}

#[test]
fn a_vm_is_the_same_after_it_was_kept_as_json() {
    let text = serde_json::to_string(&expected_vm()).unwrap();
    assert_eq!(serde_json::from_str::<VmInfo>(&text).unwrap(), expected_vm());
    assert!(text.contains("\"capacityBytes\":17179869184"), "{text}");
}

#[test]
fn an_answer_in_parts_is_put_together() {
    let last = format!("{}{}", simple_values(), snapshots());
    let first = devices();
    let peer = Peer::start(move |method, _| match method {
        "RetrievePropertiesEx" => returning(
            method,
            &format!(
                "<returnval><token>a &lt; b</token><objects><obj type=\"VirtualMachine\">vm-12</obj>{first}</objects></returnval>"
            ),
        ),
        _ => returning(
            method,
            &format!(
                "<returnval><objects><obj type=\"VirtualMachine\">vm-12</obj>{last}</objects></returnval>"
            ),
        ),
    });
    assert_eq!(peer.connect().vm(&a_vm()).unwrap(), expected_vm());
    assert_eq!(
        peer.last_question(),
        "<ContinueRetrievePropertiesEx xmlns=\"urn:vim25\"><_this type=\"PropertyCollector\">propertyCollector</_this>\
         <token>a &lt; b</token></ContinueRetrievePropertiesEx>"
    );
}

#[test]
fn an_answer_in_parts_without_end_is_given_up() {
    let peer = Peer::start(|method, _| returning(method, "<returnval><token>more</token></returnval>"));
    let refused = peer.connect().vm(&a_vm()).unwrap_err();
    let expected = "cannot be used: it comes in more than 64 parts";
    assert!(chain(&refused).ends_with(expected), "{refused}");
}

#[test]
fn properties_are_asked_for_by_their_paths() {
    let peer = Peer::start(|method, _| returning(method, ""));
    assert_eq!(peer.connect().host_build(&MoRef::new("HostSystem", "host-9")).unwrap(), None);
    assert_eq!(
        peer.last_question(),
        "<RetrievePropertiesEx xmlns=\"urn:vim25\"><_this type=\"PropertyCollector\">propertyCollector</_this>\
         <specSet><propSet><type>HostSystem</type><all>false</all><pathSet>summary.config.product.build</pathSet></propSet>\
         <objectSet><obj type=\"HostSystem\">host-9</obj><skip>false</skip></objectSet></specSet><options></options>\
         </RetrievePropertiesEx>"
    );
}

#[test]
fn a_vm_whose_configuration_cannot_be_read_is_what_is_known_of_it() {
    let sets = [
        ("name", "xsd:string", "lost"),
        ("runtime.connectionState", "VirtualMachineConnectionState", "inaccessible"),
        ("runtime.powerState", "VirtualMachinePowerState", "poweredOff"),
    ]
    .map(|(path, xsi_type, text)| value(path, xsi_type, text))
    .concat();
    let peer = Peer::start(move |_, _| properties(&a_vm(), &sets));
    let vm = peer.connect().vm(&a_vm()).unwrap();
    assert_eq!((vm.name.as_str(), vm.connection), ("lost", ConnectionState::Inaccessible));
    assert_eq!((vm.instance_uuid, vm.disks, vm.snapshots), (None, vec![], vec![]));
}

#[test]
fn a_value_that_cannot_be_read_is_named() {
    let good = simple_values();
    let strange = "<propSet><name>config.hardware.device</name><val><VirtualDevice xsi:type=\"VirtualDisk\">";
    let device = |content: &str| format!("{strange}{content}</VirtualDevice></val></propSet>");
    let cases = [
        (good.replace(">4096<", ">4 GB<"), "config.hardware.memoryMB: val: \"4 GB\" is no such number"),
        (good.replace("poweredOn", "dreaming"), "runtime.powerState: \"dreaming\" is unknown"),
        (good.replace(">name<", ">nome<"), "there is no name"),
        (device(""), "config.hardware.device: VirtualDevice: there is no backing"),
        (
            device("<key>1</key><backing/><capacityInKB>-1</capacityInKB>"),
            "config.hardware.device: VirtualDevice/capacityInKB: \"-1\" is no such number",
        ),
        (
            device("<key>1</key><backing/><capacityInKB>18446744073709551615</capacityInKB>"),
            "config.hardware.device: capacityInKB: 18446744073709551615 is too much",
        ),
    ];
    for (sets, expected) in cases {
        let peer = Peer::start(move |_, _| properties(&a_vm(), &sets));
        let refused = peer.connect().vm(&a_vm()).unwrap_err();
        assert_eq!(chain(&refused), format!("the answer to RetrievePropertiesEx cannot be used: {expected}"));
    }
}

#[test]
fn the_disks_of_a_snapshot_have_the_change_ids() {
    let peer = Peer::start(|_, _| properties(&a_snapshot(2), &devices()));
    let snapshot = peer.connect().snapshot_config(&a_snapshot(2)).unwrap();
    assert_eq!((snapshot.disks, snapshot.controllers), (expected_disks(), expected_controllers()));

    let peer = Peer::start(|_, _| properties(&a_snapshot(2), ""));
    let refused = peer.connect().snapshot_config(&a_snapshot(2)).unwrap_err();
    assert!(chain(&refused).ends_with("there is no config.hardware.device"), "{refused}");
}

#[test]
fn a_vm_is_found_by_its_place_or_its_ids() {
    let peer =
        Peer::start(|method, _| returning(method, "<returnval type=\"VirtualMachine\">vm-12</returnval>"));
    let vcenter = peer.connect();
    let place = VSpherePlace::parse("vsphere://h/DC/vm/Team%201/a%2fb%25").unwrap();
    assert_eq!(vcenter.find_vm(&place).unwrap(), a_vm());
    assert_eq!(
        peer.last_question(),
        "<FindByInventoryPath xmlns=\"urn:vim25\"><_this type=\"SearchIndex\">SearchIndex</_this>\
         <inventoryPath>DC/vm/Team 1/a%2fb%25</inventoryPath></FindByInventoryPath>"
    );
    let place = VSpherePlace::parse("vsphere://h/?uuid=5025F0B2-1111-2222-3333-444455556666").unwrap();
    assert_eq!(vcenter.find_vm(&place).unwrap(), a_vm());
    let by_uuid = |uuid: &str, instance: bool| {
        format!(
            "<FindByUuid xmlns=\"urn:vim25\"><_this type=\"SearchIndex\">SearchIndex</_this><uuid>{uuid}</uuid>\
             <vmSearch>true</vmSearch><instanceUuid>{instance}</instanceUuid></FindByUuid>"
        )
    };
    assert_eq!(peer.last_question(), by_uuid("5025f0b2-1111-2222-3333-444455556666", true));
    assert_eq!(vcenter.find_by_uuid("4225", UuidKind::Bios).unwrap(), a_vm());
    assert_eq!(peer.last_question(), by_uuid("4225", false));
}

#[test]
fn what_is_not_there_or_is_no_vm_is_not_found() {
    for found in ["", "<returnval type=\"Folder\">group-v3</returnval>"] {
        let peer = Peer::start(move |method, _| returning(method, found));
        let place = VSpherePlace::parse("vsphere://h/DC/vm/web").unwrap();
        let refused = peer.connect().find_vm(&place).unwrap_err();
        assert!(matches!(refused, VSphereError::NotFound { .. }), "{refused:?}");
        assert_eq!(chain(&refused), "there is no virtual machine DC/vm/web");
    }
}

#[test]
fn the_datacenter_is_found_above_folders_and_vapps() {
    let parents = [
        ("vm-12", "web", None, Some(("VirtualApp", "resgroup-v5"))),
        ("resgroup-v5", "shop", Some(("ResourcePool", "resgroup-8")), None),
        ("resgroup-8", "Resources", Some(("ClusterComputeResource", "domain-c7")), None),
        ("domain-c7", "Cluster", Some(("Folder", "group-h4")), None),
        ("group-h4", "host", Some(("Datacenter", "datacenter-2")), None),
        ("datacenter-2", "DC 1", Some(("Folder", "group-d6")), None),
        ("group-d6", "Europe", Some(("Folder", "group-d1")), None),
        ("group-d1", "Datacenters", None, None),
    ];
    let peer = Peer::start(move |_, asked| {
        let asks = |id: &str| asked.body.contains(&format!(">{id}</obj>"));
        let (id, name, parent, vapp) = parents.into_iter().find(|(id, ..)| asks(id)).unwrap();
        let object = |path: &str, object: Option<(&str, &str)>| {
            object.map_or_else(String::new, |(kind, id)| {
                format!("<propSet><name>{path}</name><val type=\"{kind}\">{id}</val></propSet>")
            })
        };
        let sets = format!(
            "{}{}{}",
            value("name", "xsd:string", name),
            object("parent", parent),
            object("parentVApp", vapp)
        );
        properties(&MoRef::new("ManagedEntity", id), &sets)
    });
    let expected = Datacenter {
        datacenter: MoRef::new("Datacenter", "datacenter-2"),
        name: "DC 1".to_owned(),
        path: "Europe/DC 1".to_owned(),
    };
    assert_eq!(peer.connect().datacenter_of(&a_vm()).unwrap(), expected);
}

#[test]
fn parents_in_a_circle_lead_to_no_datacenter() {
    let peer = Peer::start(|_, _| {
        let above = "<propSet><name>parent</name><val type=\"Folder\">group-d1</val></propSet>";
        properties(&MoRef::new("Folder", "group-d1"), above)
    });
    let refused = peer.connect().datacenter_of(&a_vm()).unwrap_err();
    assert_eq!(chain(&refused), "there is no virtual machine VirtualMachine:vm-12 in a datacenter");
}

fn changed(content: &'static str) -> Peer {
    Peer::start(move |method, _| returning(method, content))
}

fn since() -> ChangeId {
    "52 de a8 64 53 44 f0 f6-b7 46 a9 f9 e8 8f 13 1b/5".parse().unwrap()
}

#[test]
fn a_page_of_changed_areas_is_handed_on_as_it_is() {
    let peer = changed(
        "<returnval><startOffset>-1</startOffset><length>9223372036854775807</length>\
         <changedArea><start>65536</start><length>-7</length></changedArea>\
         <changedArea><start>0</start><length>512</length></changedArea></returnval>",
    );
    let page =
        peer.connect().query_changed_areas(&a_vm(), &a_snapshot(2), 2000, 1 << 40, since().as_str()).unwrap();
    let areas = vec![RawArea { start: 65536, length: -7 }, RawArea { start: 0, length: 512 }];
    assert_eq!(page, ChangedPage { start_offset: -1, length: i64::MAX, areas });
    assert_eq!(
        peer.last_question(),
        "<QueryChangedDiskAreas xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this>\
         <snapshot type=\"VirtualMachineSnapshot\">snapshot-2</snapshot><deviceKey>2000</deviceKey>\
         <startOffset>1099511627776</startOffset>\
         <changeId>52 de a8 64 53 44 f0 f6-b7 46 a9 f9 e8 8f 13 1b/5</changeId></QueryChangedDiskAreas>"
    );
}

/// Collects the changed areas of a disk of 1536 bytes.
fn collected(peer: &Peer) -> Result<Result<Vec<Extent>, Doubt>, VSphereError> {
    peer.connect().changed_areas(&a_vm(), &a_snapshot(2), &expected_disks()[2], &since())
}

#[test]
fn changed_areas_of_all_pages_are_collected() {
    let peer = Peer::start(|method, asked| {
        let page = if asked.body.contains("<startOffset>0</startOffset>") {
            "<startOffset>0</startOffset><length>1024</length><changedArea><start>512</start><length>512</length></changedArea>"
        } else {
            "<startOffset>1024</startOffset><length>512</length><changedArea><start>1024</start><length>1</length></changedArea>"
        };
        returning(method, &format!("<returnval>{page}</returnval>"))
    });
    assert_eq!(collected(&peer).unwrap(), Ok(vec![Extent { start: 512, length: 513 }]));
}

#[test]
fn what_the_server_does_not_know_or_tells_strangely_is_a_doubt() {
    let refused = |fault: &str| Doubt::Refused { fault: fault.to_owned(), message: "in words".to_owned() };
    for kind in
        ["FileFault", "FileNotFound", "InvalidArgument", "NotSupported", "InvalidState", "RuntimeFault"]
    {
        let peer = Peer::start(move |_, _| fault(kind, ""));
        assert_eq!(collected(&peer).unwrap(), Err(refused(kind)));
    }
    let peer =
        changed("<returnval><startOffset>0</startOffset><length>9223372036854775808</length></returnval>");
    let what = "returnval/length: \"9223372036854775808\" is no such number".to_owned();
    assert_eq!(collected(&peer).unwrap(), Err(Doubt::Unreadable { what }));
}

#[test]
fn other_refusals_are_no_doubts() {
    for kind in ["NoPermission", "ManagedObjectNotFound"] {
        let peer = Peer::start(move |_, _| fault(kind, ""));
        assert_eq!(collected(&peer).unwrap_err().fault().map(FaultKind::name), Some(kind));
    }
}

#[test]
fn privileges_that_the_session_lacks_are_found_in_the_order_given() {
    let wanted = ["A.One", "B.Two", "C.Three"];
    let peer = Peer::start(|method, _| {
        returning(
            method,
            "<returnval><entity type=\"VirtualMachine\">vm-12</entity>\
             <privAvailability><privId>A.One</privId><isGranted>false</isGranted></privAvailability>\
             <privAvailability><privId>B.Two</privId><isGranted>true</isGranted></privAvailability></returnval>",
        )
    });
    let missing = peer.connect().missing_privileges(&a_vm(), &wanted).unwrap();
    assert_eq!(missing, Some(vec!["A.One".to_owned(), "C.Three".to_owned()]));
    assert_eq!(
        peer.last_question(),
        "<HasPrivilegeOnEntities xmlns=\"urn:vim25\"><_this type=\"AuthorizationManager\">AuthorizationManager</_this>\
         <entity type=\"VirtualMachine\">vm-12</entity><sessionId>5201-key</sessionId><privId>A.One</privId>\
         <privId>B.Two</privId><privId>C.Three</privId></HasPrivilegeOnEntities>"
    );
}

#[test]
fn a_server_that_knows_one_method_only_is_asked_by_that() {
    let peer = Peer::start(|method, _| match method {
        "FetchUserPrivilegeOnEntities" => returning(
            method,
            "<returnval><entity type=\"VirtualMachine\">vm-12</entity><privileges>A.One</privileges>\
             <privileges>System.View</privileges></returnval>",
        ),
        _ => fault("MethodNotFound", ""),
    });
    let missing = peer.connect().missing_privileges(&a_vm(), &["A.One", "B.Two"]).unwrap();
    assert_eq!(missing, Some(vec!["B.Two".to_owned()]));
    assert!(peer.last_question().contains("<userName>VSPHERE.LOCAL\\backup</userName>"));
}

#[test]
fn a_server_that_does_not_tell_leaves_privileges_unknown() {
    for kind in ["MethodNotFound", "NotSupported", "NoPermission"] {
        let peer = Peer::start(move |_, _| fault(kind, ""));
        assert_eq!(peer.connect().missing_privileges(&a_vm(), &["A.One"]).unwrap(), None);
    }
    let peer = Peer::start(|_, _| fault("ManagedObjectNotFound", ""));
    peer.connect().missing_privileges(&a_vm(), &["A.One"]).unwrap_err();
}
