//! The properties of managed objects.

use super::devices::devices;
use super::machine::{Disk, Machine, Snapshot};
use super::spec::Power;
use super::state::{Place, State};
use super::tasks::recent;
use super::value::{
    Object, Reference, Value, boolean, derived, int, object, one_of, optional, reference, string, time,
};

/// The properties of a virtual machine that exist and have no value here.
const WITHOUT_VALUE: [&str; 21] = [
    "availableField",
    "configIssue",
    "configStatus",
    "customValue",
    "datastore",
    "declaredAlarmState",
    "disabledMethod",
    "effectiveRole",
    "environmentBrowser",
    "guestHeartbeatStatus",
    "layout",
    "layoutEx",
    "network",
    "overallStatus",
    "parentVApp",
    "permission",
    "resourceConfig",
    "resourcePool",
    "storage",
    "summary",
    "tag",
];

/// Returns the reference to an object with its type, if there is one of the name.
pub(super) fn resolve(state: &State, id: &str) -> Option<Reference> {
    if let Some(place) = state.places.get(id) {
        return Some(Reference::new(place.kind, id));
    }
    let kind = match () {
        () if state.machines.contains_key(id) => "VirtualMachine",
        () if state.snapshots.get(id).is_some_and(|snapshot| !snapshot.removed) => "VirtualMachineSnapshot",
        () if state.tasks.contains_key(id) => "Task",
        () => return None,
    };
    Some(Reference::new(kind, id))
}

/// Returns the properties of an object.
pub(super) fn describe(state: &State, of: &Reference) -> Option<Object> {
    let id = of.id.as_str();
    match of.kind {
        "VirtualMachine" => Some(machine(state, id, state.machines.get(id)?)),
        "VirtualMachineSnapshot" => Some(snapshot(state, id, state.snapshots.get(id)?)),
        "Task" => Some(state.tasks.get(id)?.describe(id)),
        _ => Some(place(state, id, state.places.get(id)?)),
    }
}

fn place(state: &State, id: &str, place: &Place) -> Object {
    let parent = place.parent.as_ref().map(|parent| {
        let kind = state.places.get(parent).map_or("Folder", |parent| parent.kind);
        reference(kind, parent)
    });
    let mut fields = vec![("name", string(escaped(&place.name))), ("parent", optional(parent))];
    match place.kind {
        "HostSystem" => {
            let product = object("AboutInfo", about(&state.build, "VMware ESXi", "embeddedEsx"));
            let config = vec![
                ("name", string(place.name.as_str())),
                ("port", int(443)),
                ("product", product),
                ("vmotionEnabled", boolean(false)),
            ];
            let summary = vec![
                ("host", reference("HostSystem", id)),
                ("config", object("HostConfigSummary", config)),
                ("rebootRequired", boolean(false)),
            ];
            fields.push(("summary", object("HostListSummary", summary)));
        }
        "Datacenter" => {
            for (field, folder) in
                [("vmFolder", "vm"), ("hostFolder", "host"), ("datastoreFolder", "datastore")]
            {
                let child = state
                    .places
                    .iter()
                    .find(|(_, child)| child.parent.as_deref() == Some(id) && child.name == folder);
                fields.push((field, optional(child.map(|(id, _)| reference("Folder", id)))));
            }
        }
        _ => {
            let places = state.places.iter().filter(|(_, child)| child.parent.as_deref() == Some(id));
            let mut children: Vec<Value> = places.map(|(id, child)| reference(child.kind, id)).collect();
            let machines = state.machines.iter().filter(|(_, child)| child.parent == id);
            children.extend(machines.map(|(id, _)| reference("VirtualMachine", id)));
            fields.push(("childEntity", Value::List("ManagedObjectReference", children)));
        }
    }
    Object::new(place.kind, fields)
}

/// Returns a name as the inventory holds it, where a slash is `%2f`.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f")
}

/// Returns the fields of `AboutInfo`.
pub(super) fn about(build: &str, name: &str, product: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("name", string(name)),
        ("fullName", string(format!("{name} 8.0.3 build-{build}"))),
        ("vendor", string("VMware, Inc.")),
        ("version", string("8.0.3")),
        ("build", string(build)),
        ("osType", string("linux-x64")),
        ("productLineId", string(product)),
        ("apiType", string(if product == "vpx" { "VirtualCenter" } else { "HostAgent" })),
        ("apiVersion", string("8.0.3.0")),
    ]
}

fn machine(state: &State, id: &str, vm: &Machine) -> Object {
    let tracks = vec![
        ("snapshotOperationsSupported", boolean(true)),
        ("diskSharesSupported", boolean(true)),
        ("changeTrackingSupported", boolean(vm.tracking_supported)),
    ];
    let connection = if vm.connected { "connected" } else { "disconnected" };
    let runtime = vec![
        ("host", optional(state.host_of(id).map(|host| reference("HostSystem", host)))),
        ("connectionState", one_of("VirtualMachineConnectionState", connection)),
        ("powerState", one_of("VirtualMachinePowerState", vm.power.name())),
        ("toolsInstallerMounted", boolean(false)),
        ("consolidationNeeded", boolean(vm.consolidation_needed)),
    ];
    let tools = vm.tools && vm.power == Power::On;
    let guest = vec![
        (
            "toolsStatus",
            one_of("VirtualMachineToolsStatus", if tools { "toolsOk" } else { "toolsNotRunning" }),
        ),
        ("toolsVersionStatus2", string("guestToolsCurrent")),
        ("toolsRunningStatus", string(if tools { "guestToolsRunning" } else { "guestToolsNotRunning" })),
        ("guestState", string(if tools { "running" } else { "notRunning" })),
    ];
    let config = config(vm, &vm.disks, vm.tracking_wanted);
    let roots = tree(state, id, None);
    let snapshots = vm.current.as_ref().map(|current| {
        let fields = vec![
            ("currentSnapshot", reference("VirtualMachineSnapshot", current)),
            ("rootSnapshotList", Value::List("VirtualMachineSnapshotTree", roots)),
        ];
        object("VirtualMachineSnapshotInfo", fields)
    });
    let all = state.snapshots.iter().filter(|(_, snapshot)| snapshot.vm == id && !snapshot.removed);
    let all = all.map(|(id, _)| reference("VirtualMachineSnapshot", id)).collect();
    let tasks = recent(state, id).into_iter().map(|task| reference("Task", task));
    let mut fields = vec![
        ("parent", reference("Folder", &vm.parent)),
        ("name", string(escaped(&vm.name))),
        ("capability", object("VirtualMachineCapability", tracks)),
        ("config", config),
        ("runtime", object("VirtualMachineRuntimeInfo", runtime)),
        ("guest", object("GuestInfo", guest)),
        ("snapshot", optional(snapshots)),
        ("rootSnapshot", Value::List("ManagedObjectReference", all)),
        ("recentTask", Value::List("ManagedObjectReference", tasks.collect())),
    ];
    fields.extend(WITHOUT_VALUE.map(|name| (name, Value::Unset)));
    Object::new("VirtualMachine", fields)
}

fn config(vm: &Machine, disks: &[Disk], tracked: bool) -> Value {
    let directory = vm.file.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let directory = string(format!("[{}] {directory}/", vm.file.datastore));
    let files = vec![
        ("vmPathName", string(vm.file.to_string())),
        ("snapshotDirectory", directory.clone()),
        ("suspendDirectory", directory.clone()),
        ("logDirectory", directory),
    ];
    let hardware = vec![
        ("numCPU", int(2)),
        ("numCoresPerSocket", int(1)),
        ("memoryMB", int(4096)),
        ("device", devices(&vm.controllers, disks)),
    ];
    let extra = vm.extra_config.iter().map(|(key, value)| {
        let value = Value::Any(Box::new(string(value.as_str())));
        derived("OptionValue", vec![("key", string(key.as_str())), ("value", value)])
    });
    let guest = if vm.guest_id == "ubuntu64Guest" { "Ubuntu Linux (64-bit)" } else { "Other (64-bit)" };
    let fields = vec![
        ("changeVersion", string("2026-01-01T00:00:00.000000Z")),
        ("modified", time(jiff::Timestamp::UNIX_EPOCH)),
        ("name", string(vm.name.as_str())),
        ("guestFullName", string(guest)),
        ("version", string(format!("vmx-{:02}", vm.hardware_version))),
        ("uuid", string(vm.bios_uuid.as_str())),
        ("instanceUuid", string(vm.instance_uuid.as_str())),
        ("locationId", Value::Unset),
        ("template", boolean(vm.template)),
        ("guestId", string(vm.guest_id)),
        ("alternateGuestName", string("")),
        ("annotation", string(vm.annotation.as_str())),
        ("files", object("VirtualMachineFileInfo", files)),
        ("hardware", object("VirtualHardware", hardware)),
        ("extraConfig", Value::List("OptionValue", extra.collect())),
        ("changeTrackingEnabled", boolean(tracked)),
        ("firmware", string(vm.firmware)),
    ];
    object("VirtualMachineConfigInfo", fields)
}

fn tree(state: &State, vm: &str, parent: Option<&str>) -> Vec<Value> {
    let own = |snapshot: &Snapshot| snapshot.vm == vm && !snapshot.removed;
    let children =
        state.snapshots.iter().filter(|(_, found)| own(found) && found.parent.as_deref() == parent);
    let node = |(id, found): (&String, &Snapshot)| {
        let fields = vec![
            ("snapshot", reference("VirtualMachineSnapshot", id)),
            ("vm", reference("VirtualMachine", vm)),
            ("name", string(escaped(&found.name))),
            ("description", string(found.description.as_str())),
            ("id", int(found.number)),
            ("createTime", time(found.created)),
            ("state", one_of("VirtualMachinePowerState", found.power.name())),
            ("quiesced", boolean(found.quiesced)),
            ("childSnapshotList", Value::List("VirtualMachineSnapshotTree", tree(state, vm, Some(id)))),
            ("replaySupported", boolean(false)),
        ];
        object("VirtualMachineSnapshotTree", fields)
    };
    children.map(node).collect()
}

fn snapshot(state: &State, id: &str, snapshot: &Snapshot) -> Object {
    let tracked = snapshot.disks.iter().any(|disk| disk.tracking.is_some());
    let config = state.machines.get(&snapshot.vm).map(|vm| config(vm, &snapshot.disks, tracked));
    let children =
        state.snapshots.iter().filter(|(_, child)| !child.removed && child.parent.as_deref() == Some(id));
    let children = children.map(|(id, _)| reference("VirtualMachineSnapshot", id)).collect();
    let fields = vec![
        ("config", optional(config)),
        ("childSnapshot", Value::List("ManagedObjectReference", children)),
        ("vm", reference("VirtualMachine", &snapshot.vm)),
    ];
    Object::new("VirtualMachineSnapshot", fields)
}
