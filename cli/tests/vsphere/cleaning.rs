//! What stands in the way of a snapshot, or of its removal.

use crate::scene::{FOLDER, MIB, Scene};
use crate::world::{Ended, noise};
use keepstone_peers::vcenter::{Failure, Fault, Violation};

fn scene() -> Scene {
    let scene = Scene::with_disks(&[2 * MIB]);
    scene.vm.disk(0).write(0, &noise(1, 2 << 20));
    scene
}

/// A backup that is good, and has left something.
fn leaves_something(scene: &Scene, more: &[&str]) -> Ended {
    let ended = scene.run(&[&FOLDER, more].concat());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(scene.vcenter.violations(), []);
    let attention = ended.json()["vsphere"]["attention"].clone();
    let told = attention.as_array().unwrap();
    assert_eq!(told.len(), 1, "{attention}");
    let told = told[0].as_str().unwrap();
    assert!(
        told.starts_with("the snapshot \"keepstone ") && told.contains("could not be removed: "),
        "{told}"
    );
    assert!(
        ended.stderr.contains(&format!("keepstone: warning: {told}; the next backup of this VM tries again")),
        "{ended:?}"
    );
    scene.restores("scsi0-0", 0);
    ended
}

#[test]
fn a_snapshot_that_cannot_be_removed_is_told_and_removed_by_the_next_backup() {
    let scene = scene();
    let faults = [
        Failure::Fault(Fault::new("TaskInProgress", "The operation is not allowed.")),
        Failure::Task(Fault::new("GenericVmConfigFault", "Unable to access file since it is locked.")),
        Failure::Status(500),
        Failure::Dropped,
    ];
    for failure in faults {
        scene.vcenter.fail("RemoveSnapshot_Task", 1, failure);
        leaves_something(&scene, &[]);
        assert_eq!(scene.ours().len(), 1);
        let ended = scene.run(&FOLDER);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.stderr.contains("removed what earlier backups left behind: snapshot keepstone "),
            "{ended:?}"
        );
        scene.is_clean();
    }
}

#[test]
fn a_removal_that_takes_too_long_is_not_waited_for_for_ever() {
    let scene = scene();
    scene.vcenter.slow_tasks("RemoveSnapshot_Task", Some(u64::MAX));
    let ended = leaves_something(&scene, &["--task-timeout", "1s"]);
    assert!(ended.stderr.contains("it takes vCenter more than 1 s to remove the snapshot"), "{ended:?}");
    // The task is still at it: the next backup begins nothing.
    let made = scene.vcenter.count("CreateSnapshot_Task");
    let next = scene.run(&[&FOLDER[..], &["--task-timeout", "1s"]].concat());
    assert_eq!(next.code, Some(1), "{next:?}");
    assert!(next.stderr.contains("finish another task of the virtual machine"), "{next:?}");
    assert!(
        next.stderr.contains("hint: look at the VM's tasks in vCenter; --task-timeout waits longer"),
        "{next:?}"
    );
    assert_eq!(scene.vcenter.count("CreateSnapshot_Task"), made);
    assert_eq!(scene.vcenter.violations(), []);
}

#[test]
fn slow_tasks_are_waited_for() {
    let scene = scene();
    for method in ["CreateSnapshot_Task", "RemoveSnapshot_Task", "ConsolidateVMDisks_Task"] {
        scene.vcenter.slow_tasks(method, Some(3));
    }
    scene.vm.start_other_task(3);
    scene.vm.set_consolidation_needed(true);
    scene.back_up_well(&[]);
    assert!(!scene.vm.consolidation_needed());
    scene.restores("scsi0-0", 0);
}

#[test]
fn disks_are_consolidated_before_and_after() {
    let scene = scene();
    scene.vm.set_consolidation_needed(true);
    scene.vcenter.leave_unconsolidated(1);
    scene.back_up_well(&[]);
    assert_eq!(scene.vcenter.count("ConsolidateVMDisks_Task"), 2);
    assert!(!scene.vm.consolidation_needed());

    // After it, in vain: the backup is good, and the next one begins with that.
    scene.vcenter.leave_unconsolidated(1);
    scene.vcenter.fail(
        "ConsolidateVMDisks_Task",
        1,
        Failure::Task(Fault::new("FileLocked", "Unable to access file.")),
    );
    let ended = leaves_something(&scene, &[]);
    assert!(
        ended.stderr.contains("vCenter could not consolidate the disks: Unable to access file. (FileLocked)"),
        "{ended:?}"
    );
    assert!(scene.vm.consolidation_needed());
    scene.back_up_well(&[]);
    assert!(!scene.vm.consolidation_needed());
}

#[test]
fn no_snapshot_is_made_of_disks_that_cannot_be_consolidated() {
    let scene = scene();
    scene.vm.set_consolidation_needed(true);
    scene.vcenter.fail(
        "ConsolidateVMDisks_Task",
        1,
        Failure::Task(Fault::new("FileLocked", "Unable to access file.")),
    );
    let ended = scene.fails(&[]);
    assert!(ended.stderr.contains("could not consolidate the disks"), "{ended:?}");
    assert_eq!(scene.vcenter.count("CreateSnapshot_Task"), 0);
    // It is done, and still needed.
    let vm = scene.vm.clone();
    scene.vcenter.at("ConsolidateVMDisks_Task", 1, move || {
        vm.set_consolidation_needed(true);
    });
    scene.vcenter.slow_tasks("ConsolidateVMDisks_Task", Some(u64::MAX));
    let stuck = scene.run(&[&FOLDER[..], &["--task-timeout", "1s"]].concat());
    assert_eq!(stuck.code, Some(1), "{stuck:?}");
    assert!(stuck.stderr.contains("it takes vCenter more than 1 s to consolidate the disks"), "{stuck:?}");
    assert_eq!(scene.vcenter.count("CreateSnapshot_Task"), 0);
    scene.is_clean();
}

#[test]
fn a_task_of_somebody_else_is_waited_for_but_not_for_ever() {
    let scene = scene();
    scene.vm.start_other_task(5);
    scene.back_up_well(&[]);
    scene.vm.start_other_task(u64::MAX);
    let ended = scene.fails(&["--task-timeout", "1s"]);
    assert!(
        ended.stderr.contains("it takes vCenter more than 1 s to finish another task of the virtual machine"),
        "{ended:?}"
    );
    assert_eq!(scene.vcenter.count("CreateSnapshot_Task"), 1);
}

#[test]
fn a_task_that_begins_just_before_the_snapshot_fails_the_backup_with_what_to_do() {
    let scene = scene();
    let vm = scene.vm.clone();
    scene.vcenter.at("CreateSnapshot_Task", 1, move || vm.start_other_task(3));
    let ended = scene.fails(&[]);
    assert!(ended.stderr.contains("hint: wait until the VM's other task is done"), "{ended:?}");
    scene.back_up_well(&[]);
}

#[test]
fn a_snapshot_that_somebody_removes_while_it_is_read_makes_no_restore_point() {
    let scene = scene();
    let vm = scene.vm.clone();
    scene.vcenter.at("GET /folder", 3, move || {
        let name = vm.snapshot_names().pop().unwrap();
        vm.remove_snapshot(&name);
        vm.disk(0).write(MIB, &noise(9, 100_000));
    });
    let ended = scene.run(&FOLDER);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert_eq!(scene.snapshots(), [""; 0]);
    // The fake calls it a violation that what nobody freezes is read; the program could not know.
    let others = scene
        .vcenter
        .violations()
        .into_iter()
        .filter(|violation| !matches!(violation, Violation::UnfrozenDiskRead { .. }));
    assert_eq!(others.collect::<Vec<_>>(), []);
    assert_eq!(scene.ours(), [""; 0]);
}
