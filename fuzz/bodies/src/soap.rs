//! Answers of vSphere servers.

use keepstone_engine::vsphere::changes::{ChangedPage, Doubt, collect_changes};
use keepstone_engine::vsphere::{AnyAnswer, TaskState, VSphereError, VmInfo, read_any_answer};

/// A disk on which any page of changed areas that is longer is wrong.
const CAPACITY: u64 = 1 << 20;

/// An answer to one of the questions, as the first byte says, with the status of one that is refused or not, as its
/// highest bit says.
pub fn soap_answer(data: &[u8]) -> bool {
    let Some((which, body)) = data.split_first() else { return false };
    let status = if *which < 128 { 200 } else { 500 };
    match read_any_answer(*which % 128, status, body) {
        Ok(AnyAnswer::Vm(vm)) => check_vm(&vm),
        Ok(AnyAnswer::Page(page)) => check_page(&page),
        Ok(AnyAnswer::Task(TaskState::Error(fault))) => assert!(!fault.kind.name().is_empty()),
        // A refusal is understood as well.
        Ok(AnyAnswer::Task(_) | AnyAnswer::About(_) | AnyAnswer::Privileges(_) | AnyAnswer::Millis(_))
        | Err(VSphereError::Fault { .. }) => {}
        Err(_) => return false,
    }
    true
}

/// What is stored beside a backup is read again as it was, and every disk has an address or none.
fn check_vm(vm: &VmInfo) {
    let text = serde_json::to_string(vm).expect("a VM has no keys but texts");
    assert_eq!(serde_json::from_str::<VmInfo>(&text).ok().as_ref(), Some(vm));
    for disk in &vm.disks {
        if let Some(address) = disk.address(&vm.controllers) {
            assert!(address.contains(':') && disk.controller_key.is_some());
        }
    }
}

/// The same page again and again is a doubt, unless it tells of the whole disk at once.
fn check_page(page: &ChangedPage) {
    let mut asked = 0;
    let collected = collect_changes(CAPACITY, |_| {
        asked += 1;
        Ok::<_, ()>(page.clone())
    });
    match collected.expect("the page is always the same") {
        Ok(extents) => {
            assert_eq!((asked, u64::try_from(page.length)), (1, Ok(CAPACITY)));
            assert!(extents.iter().all(|extent| extent.length > 0 && extent.end() <= CAPACITY));
            let told: i64 = page.areas.iter().map(|area| area.length).sum();
            assert_eq!(u64::try_from(told), Ok(extents.iter().map(|extent| extent.length).sum()));
        }
        Err(doubt) => assert!(asked <= 2 && doubt != Doubt::TooManyPages, "{doubt}"),
    }
}

/// An answer to each of the questions, and refusals.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let vm = "<name>name</name><val xsi:type=\"xsd:string\">web &amp; &#x1F511;</val></propSet><propSet>\
        <name>runtime.powerState</name><val>poweredOn</val></propSet><propSet><name>runtime.connectionState</name>\
        <val>connected</val></propSet><propSet><name>config.hardware.device</name><val xsi:type=\"ArrayOfVirtualDevice\">\
        <VirtualDevice xsi:type=\"ParaVirtualSCSIController\"><key>1000</key><busNumber>0</busNumber></VirtualDevice>\
        <VirtualDevice xsi:type=\"VirtualDisk\"><key>2000</key><backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\">\
        <fileName>[ds] a.vmdk</fileName><changeId>52/5</changeId><thinProvisioned>true</thinProvisioned></backing>\
        <controllerKey>1000</controllerKey><unitNumber>1</unitNumber><capacityInKB>1024</capacityInKB></VirtualDevice></val>\
        </propSet><propSet><name>snapshot.rootSnapshotList</name><val><VirtualMachineSnapshotTree>\
        <snapshot type=\"VirtualMachineSnapshot\">snapshot-1</snapshot><name>a</name>\
        <createTime>2026-03-01T12:30:00.5Z</createTime></VirtualMachineSnapshotTree></val>";
    let properties = |sets: &str| {
        let object = "<obj type=\"VirtualMachine\">vm-1</obj>";
        let returned = format!("<objects>{object}<propSet>{sets}</propSet></objects>");
        format!(
            "<RetrievePropertiesExResponse><returnval>{returned}</returnval></RetrievePropertiesExResponse>"
        )
    };
    let task = "<name>info</name><val><state>error</state><error><fault xsi:type=\"FileLocked\"><file>a</file></fault>\
        <localizedMessage>no</localizedMessage></error></val>";
    let page = "<QueryChangedDiskAreasResponse><returnval><startOffset>0</startOffset><length>1048576</length>\
        <changedArea><start>65536</start><length>65536</length></changedArea></returnval></QueryChangedDiskAreasResponse>";
    let content = "<RetrieveServiceContentResponse><returnval><propertyCollector type=\"P\">p</propertyCollector><about>\
        <name>n</name><version>8</version><build>1</build><apiType>VirtualCenter</apiType></about>\
        <sessionManager type=\"S\">s</sessionManager><searchIndex type=\"I\">i</searchIndex></returnval>\
        </RetrieveServiceContentResponse>";
    let for_session = "<HasPrivilegeOnEntitiesResponse><returnval><entity type=\"VirtualMachine\">vm-1</entity>\
        <privAvailability><privId>A.B</privId><isGranted>true</isGranted></privAvailability></returnval>\
        </HasPrivilegeOnEntitiesResponse>";
    let for_user = "<FetchUserPrivilegeOnEntitiesResponse><returnval><entity type=\"VirtualMachine\">vm-1</entity>\
        <privileges>A.B</privileges></returnval></FetchUserPrivilegeOnEntitiesResponse>";
    let time =
        "<CurrentTimeResponse><returnval>2026-03-01T12:30:00.5+02:00</returnval></CurrentTimeResponse>";
    let fault = "<Fault><faultstring>no</faultstring><detail><NoPermissionFault xsi:type=\"NoPermission\">\
        <object type=\"VirtualMachine\">vm-1</object><privilegeId>A.B</privilegeId></NoPermissionFault></detail></Fault>";
    let answers: [(u8, &str); 8] = [
        (0, &properties(vm)),
        (1, page),
        (2, &properties(task)),
        (3, content),
        (4, for_session),
        (5, for_user),
        (6, time),
        (128, fault),
    ];
    answers
        .into_iter()
        .map(|(which, body)| {
            let text = format!(
                "<?xml version=\"1.0\"?><e:Envelope xmlns:e=\"e\"><e:Body>{body}</e:Body></e:Envelope>"
            );
            [&[which], text.as_bytes()].concat()
        })
        .collect()
}
