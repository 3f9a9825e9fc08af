//! Restores to new disks of VMs, which get them when they are complete.

use super::{HOTADD, RESTORE, Restoring, replace};
use crate::scene::{disk, interrupt, kill, same_bytes};
use crate::world::Ended;
use keepstone_peers::vcenter::{Failure, Fault, Power};
use serde_json::json;
use std::fs;

fn arguments() -> Vec<&'static str> {
    [&HOTADD[..], &["--new-disk"]].concat()
}

fn run(restoring: &Restoring) -> Ended {
    Ended::of(restoring.scene.command(&RESTORE, &arguments()).output())
}

/// The VM has its own disks, as they are, and nobody has any other.
fn nothing_came_of_it(restoring: &Restoring, before: &[u8]) {
    restoring.gave_back();
    assert_eq!(restoring.scene.vm.files(), ["[datastore1] web/web.vmdk", "[datastore1] web/web_1.vmdk"]);
    assert_eq!(restoring.proxy.files().len(), 1);
    same_bytes(&restoring.scene.vm.disk(0).bytes(), before);
}

#[test]
fn a_vm_that_runs_gets_a_new_disk_and_keeps_what_it_has() {
    let restoring = Restoring::new();
    restoring.scene.vm.set_power(Power::On);
    let before = restoring.scene.vm.disk(0).bytes();
    let ended = run(&restoring);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    restoring.gave_back();
    let report = &ended.json()["vsphere"];
    assert_eq!((&report["disk"], &report["newDisk"]), (&json!("scsi0-2"), &json!(true)));
    let file = report["file"].as_str().unwrap();
    assert!(file.starts_with("[datastore1] web/web-keepstone-"), "{file}");
    assert_eq!(restoring.scene.vm.files()[2], file);
    same_bytes(&restoring.scene.vm.disk(0).bytes(), &before);
    same_bytes(&restoring.scene.vm.disk(2).bytes(), &restoring.backed_up);
    // What changed on the others is still known.
    let (_, report) = restoring.scene.back_up_by(&HOTADD);
    assert_eq!(disk(&report, "scsi0-0")["mode"], "incremental");
    restoring.scene.restores("scsi0-0", 0);
    restoring.scene.restores("scsi0-2", 2);
}

#[test]
fn a_disk_that_is_not_complete_is_deleted() {
    let restoring = Restoring::new();
    let before = restoring.scene.vm.disk(0).bytes();
    let packs = fs::read_dir(restoring.scene.world.path("repo/d/default")).unwrap();
    let pack = packs.map(|entry| entry.unwrap().path()).next().unwrap();
    let whole = fs::read(&pack).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() * 3 / 4] ^= 1;
    replace(&pack, &damaged);
    let ended = run(&restoring);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    nothing_came_of_it(&restoring, &before);
    replace(&pack, &whole);

    restoring.scene.vcenter.slow_tasks("ReconfigVM_Task", Some(4));
    let at = ("ReconfigVM_Task", 1);
    let (ended, was) = restoring.scene.run_command_and_at(&RESTORE, at, interrupt, &arguments());
    assert!(was);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    nothing_came_of_it(&restoring, &before);
    restoring.scene.vcenter.slow_tasks("ReconfigVM_Task", None);

    // Made, and the answer lost; and refused.
    let refused = Failure::Task(Fault::new("NoDiskSpace", "There is no room."));
    for failure in [Failure::AnswerLost, refused] {
        restoring.scene.vcenter.fail("ReconfigVM_Task", 1, failure);
        let ended = run(&restoring);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        nothing_came_of_it(&restoring, &before);
    }
}

#[test]
fn killed_the_next_restore_deletes_what_was_made() {
    let restoring = Restoring::new();
    // Made, and to be attached to the VM.
    for (nth, told) in [
        (1, "detached the disk that an earlier restore left attached to the proxy"),
        (2, "and was killed before it could be attached or deleted; look for it on the datastore"),
    ] {
        let files = restoring.scene.vm.files();
        let at = ("ReconfigVM_Task", nth);
        let (ended, was) = restoring.scene.run_command_and_at(&RESTORE, at, kill, &arguments());
        assert!(was && ended.code.is_none(), "{ended:?}");
        restoring.scene.clear_away();
        let ended = run(&restoring);
        assert_eq!(ended.code, Some(if nth == 1 { 0 } else { 4 }), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
        restoring.gave_back();
        assert_eq!(restoring.scene.vm.files().len(), files.len() + 1);
        same_bytes(&restoring.scene.vm.disk(files.len()).bytes(), &restoring.backed_up);
    }
}

#[test]
fn a_disk_that_the_vm_does_not_get_is_told() {
    let restoring = Restoring::new();
    let fault = Failure::Task(Fault::new("GenericVmConfigFault", "Something is wrong."));
    restoring.scene.vcenter.fail("ReconfigVM_Task", 3, fault);
    let ended = run(&restoring);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.stderr.contains("is complete, and could not be attached to the virtual machine"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("Something is wrong."), "{ended:?}");
    restoring.gave_back();
    assert_eq!(restoring.scene.vm.files().len(), 2);
}
