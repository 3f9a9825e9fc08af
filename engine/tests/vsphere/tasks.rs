//! What changes virtual machines: the questions to the letter, and what tasks tell.

use crate::peer::{Peer, fault, properties, returning};
use keepstone_engine::vsphere::{
    AttachDisk, AttachMode, Fault, FaultKind, MoRef, Quiescing, Task, TaskState, VCenter, VSphereError,
};

fn a_vm() -> MoRef {
    MoRef::new("VirtualMachine", "vm-12")
}

fn a_task() -> Task {
    Task(MoRef::new("Task", "task-7"))
}

/// Checks what is sent for a call that starts a task.
fn sends(call: impl FnOnce(&VCenter) -> Result<Task, VSphereError>, expected: &str) {
    let peer = Peer::start(|method, _| returning(method, "<returnval type=\"Task\">task-7</returnval>"));
    assert_eq!(call(&peer.connect()).unwrap(), a_task());
    assert_eq!(peer.last_question(), expected);
}

#[test]
fn a_snapshot_is_without_memory_and_quiesced_or_not() {
    sends(
        |vcenter| vcenter.create_snapshot(&a_vm(), "a <b>", "c & d\u{1}", Quiescing::Guest),
        "<CreateSnapshot_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this>\
         <name>a &lt;b&gt;</name><description>c &amp; d\u{FFFD}</description><memory>false</memory>\
         <quiesce>true</quiesce></CreateSnapshot_Task>",
    );
    sends(
        |vcenter| vcenter.create_snapshot(&a_vm(), "a", "", Quiescing::None),
        "<CreateSnapshot_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this>\
         <name>a</name><description></description><memory>false</memory><quiesce>false</quiesce>\
         </CreateSnapshot_Task>",
    );
}

#[test]
fn one_snapshot_is_removed_and_not_those_that_stand_on_it() {
    sends(
        |vcenter| vcenter.remove_snapshot(&MoRef::new("VirtualMachineSnapshot", "snapshot-3")),
        "<RemoveSnapshot_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachineSnapshot\">snapshot-3</_this>\
         <removeChildren>false</removeChildren><consolidate>true</consolidate></RemoveSnapshot_Task>",
    );
}

#[test]
fn disks_are_consolidated_and_their_changes_tracked() {
    sends(
        |vcenter| vcenter.consolidate(&a_vm()),
        "<ConsolidateVMDisks_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this>\
         </ConsolidateVMDisks_Task>",
    );
    sends(
        |vcenter| vcenter.enable_change_tracking(&a_vm()),
        "<ReconfigVM_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this><spec>\
         <changeTrackingEnabled>true</changeTrackingEnabled></spec></ReconfigVM_Task>",
    );
    sends(
        |vcenter| vcenter.disable_change_tracking(&a_vm()),
        "<ReconfigVM_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this><spec>\
         <changeTrackingEnabled>false</changeTrackingEnabled></spec></ReconfigVM_Task>",
    );
}

#[test]
fn a_vm_is_switched_off() {
    sends(
        |vcenter| vcenter.power_off(&a_vm()),
        "<PowerOffVM_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this></PowerOffVM_Task>",
    );
}

#[test]
fn a_disk_is_attached_for_reading_or_writing_and_detached_with_its_files_kept() {
    for (mode, word) in
        [(AttachMode::Reading, "independent_nonpersistent"), (AttachMode::Writing, "independent_persistent")]
    {
        let file = "[ds] a/a.vmdk".to_owned();
        let disk = AttachDisk { controller_key: 1001, unit_number: 4, file, mode, new_bytes: None };
        let expected = format!(
            "<ReconfigVM_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this><spec><deviceChange>\
             <operation>add</operation><device xsi:type=\"VirtualDisk\"><key>-1</key>\
             <backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\"><fileName>[ds] a/a.vmdk</fileName>\
             <diskMode>{word}</diskMode></backing><controllerKey>1001</controllerKey><unitNumber>4</unitNumber>\
             <capacityInKB>0</capacityInKB></device></deviceChange></spec></ReconfigVM_Task>"
        );
        sends(|vcenter| vcenter.attach_disk(&a_vm(), &disk), &expected);
    }
    sends(
        |vcenter| vcenter.detach_disk(&a_vm(), 2004),
        "<ReconfigVM_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this><spec><deviceChange>\
         <operation>remove</operation><device xsi:type=\"VirtualDisk\"><key>2004</key>\
         <capacityInKB>0</capacityInKB></device></deviceChange></spec></ReconfigVM_Task>",
    );
}

#[test]
fn a_disk_is_made_and_deleted_again() {
    let (file, mode) = ("[ds] a/new.vmdk".to_owned(), AttachMode::Writing);
    let disk =
        AttachDisk { controller_key: 1001, unit_number: 4, file, mode, new_bytes: Some((4 << 20) + 512) };
    sends(
        |vcenter| vcenter.attach_disk(&a_vm(), &disk),
        "<ReconfigVM_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this><spec><deviceChange>\
         <operation>add</operation><fileOperation>create</fileOperation><device xsi:type=\"VirtualDisk\"><key>-1</key>\
         <backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\"><fileName>[ds] a/new.vmdk</fileName>\
         <diskMode>independent_persistent</diskMode><thinProvisioned>true</thinProvisioned></backing>\
         <controllerKey>1001</controllerKey><unitNumber>4</unitNumber><capacityInKB>4097</capacityInKB></device>\
         </deviceChange></spec></ReconfigVM_Task>",
    );
    sends(
        |vcenter| vcenter.destroy_disk(&a_vm(), 2004),
        "<ReconfigVM_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this><spec><deviceChange>\
         <operation>remove</operation><fileOperation>destroy</fileOperation><device xsi:type=\"VirtualDisk\">\
         <key>2004</key><capacityInKB>0</capacityInKB></device></deviceChange></spec></ReconfigVM_Task>",
    );
}

#[test]
fn a_controller_is_added() {
    sends(
        |vcenter| vcenter.add_scsi_controller(&a_vm(), 1),
        "<ReconfigVM_Task xmlns=\"urn:vim25\"><_this type=\"VirtualMachine\">vm-12</_this><spec><deviceChange>\
         <operation>add</operation><device xsi:type=\"ParaVirtualSCSIController\"><key>-1</key>\
         <busNumber>1</busNumber><sharedBus>noSharing</sharedBus></device></deviceChange></spec></ReconfigVM_Task>",
    );
}

#[test]
fn a_call_that_is_refused_starts_no_task() {
    let peer = Peer::start(|_, _| fault("TaskInProgress", ""));
    let refused = peer.connect().consolidate(&a_vm()).unwrap_err();
    assert_eq!(refused.fault(), Some(&FaultKind::TaskInProgress));
}

/// Looks at a task of which the server tells this.
fn state(info: &str) -> Result<TaskState, VSphereError> {
    let set = format!(
        "<propSet><name>info</name><val xsi:type=\"TaskInfo\"><key>task-7</key>\
         <task type=\"Task\">task-7</task><cancelled>false</cancelled>{info}</val></propSet>"
    );
    let peer = Peer::start(move |_, _| properties(&a_task().0, &set));
    peer.connect().task(&a_task())
}

#[test]
fn a_task_is_queued_runs_and_ends_one_way_or_the_other() {
    let cases = [
        ("<state>queued</state>", TaskState::Queued),
        ("<state>running</state>", TaskState::Running { progress: None }),
        ("<state>running</state><progress>41</progress>", TaskState::Running { progress: Some(41) }),
        ("<state>success</state>", TaskState::Success { result: None }),
        (
            "<state>success</state><result xsi:type=\"xsd:string\">done</result>",
            TaskState::Success { result: None },
        ),
        (
            "<state>success</state><result type=\"VirtualMachineSnapshot\" \
             xsi:type=\"ManagedObjectReference\">snapshot-9</result>",
            TaskState::Success { result: Some(MoRef::new("VirtualMachineSnapshot", "snapshot-9")) },
        ),
        (
            "<state>error</state><error><fault xsi:type=\"ApplicationQuiesceFault\"/>\
             <localizedMessage>An error occurred while quiescing the virtual machine.</localizedMessage></error>",
            TaskState::Error(Fault {
                kind: FaultKind::ApplicationQuiesce,
                message: "An error occurred while quiescing the virtual machine.".to_owned(),
            }),
        ),
    ];
    for (info, expected) in cases {
        assert_eq!(state(info).unwrap(), expected);
    }
    for strange in
        ["", "<state>odd</state>", "<state>error</state>", "<state>running</state><progress>x</progress>"]
    {
        let refused = state(strange).unwrap_err();
        assert!(matches!(refused, VSphereError::Malformed { .. }), "{refused:?}");
    }
}

#[test]
fn a_task_that_the_server_forgot_is_not_found() {
    let peer = Peer::start(|_, _| fault("ManagedObjectNotFound", "<obj type=\"Task\">task-7</obj>"));
    let refused = peer.connect().task(&a_task()).unwrap_err();
    assert_eq!(refused.fault(), Some(&FaultKind::ManagedObjectNotFound { object: Some(a_task().0) }));
}
