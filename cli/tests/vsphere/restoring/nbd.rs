//! Disks that nbdkit writes, beside the program. A script serves files in VMware's library's stead.

use super::{RESTORE, Restoring, noise, walk};
use crate::nbd::library;
use crate::scene::{interrupt, kill, same_bytes};
use crate::world::Ended;
use keepstone_peers::vcenter::PASSWORD;
use std::fs;
use std::path::PathBuf;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vsphere/nbdkit.sh");

fn by(transport: &'static str) -> Vec<&'static str> {
    vec!["--transport", transport, "--nbdkit", SCRIPT, "--vddk-dir", "vddk", "--overwrite"]
}

/// Lets the library have the VM's disk.
fn serving() -> (Restoring, PathBuf) {
    let restoring = Restoring::new();
    let file = library(&restoring.scene).join("web.vmdk");
    fs::write(&file, restoring.scene.vm.disk(0).bytes()).unwrap();
    (restoring, file)
}

/// Brings what was written to the VM's disk, whose tracking does not know.
fn take_over(restoring: &Restoring, file: &PathBuf) {
    restoring.scene.vm.disk(0).write_untracked(0, &fs::read(file).unwrap());
}

#[test]
fn nbdkit_is_started_written_to_and_ended() {
    let (restoring, file) = serving();
    let ended = Ended::of(restoring.scene.command(&RESTORE, &by("nbd")).output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json()["vsphere"]["transport"], "nbd");
    same_bytes(&fs::read(&file).unwrap(), &restoring.backed_up);
    take_over(&restoring, &file);
    restoring.gave_back();
    // The password reached it, and is nowhere any more.
    let passwords = fs::read_to_string(restoring.scene.world.path("vddk/passwords")).unwrap();
    assert_eq!(passwords, format!("{PASSWORD}\n"));
    assert!(!ended.stderr.contains(PASSWORD), "{ended:?}");
    restoring.next_backups_are_right();
}

#[test]
fn where_nothing_can_be_attached_nbdkit_writes() {
    let (restoring, file) = serving();
    restoring.proxy.create_foreign_snapshot("theirs");
    let arguments = [&by("auto")[..], &["--proxy-vm", "backup/proxy"]].concat();
    let ended = Ended::of(restoring.scene.command(&RESTORE, &arguments).output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told =
        "the disk cannot be written by hotadd: no disk can be attached to proxy, which has snapshots: theirs";
    assert!(ended.stderr.contains(told), "{ended:?}");
    same_bytes(&fs::read(&file).unwrap(), &restoring.backed_up);
    assert_eq!(restoring.scene.vcenter.violations(), []);
}

#[test]
fn what_is_written_by_nbdkit_is_not_compared() {
    let (restoring, file) = serving();
    let before = fs::read(&file).unwrap();
    let mut arguments = by("nbd");
    arguments.retain(|argument| *argument != "--overwrite");
    arguments.push("--in-place");
    let ended = Ended::of(restoring.scene.command(&RESTORE, &arguments).output());
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("use --transport hotadd, or --overwrite"), "{ended:?}");
    same_bytes(&fs::read(&file).unwrap(), &before);
    restoring.gave_back();
    // Nothing was done to the VM before that was found out.
    assert!(restoring.scene.vm.change_tracking());
    restoring.proxy.create_foreign_snapshot("theirs");
    let mut arguments = [&by("auto")[..], &["--proxy-vm", "backup/proxy", "--in-place"]].concat();
    arguments.retain(|argument| *argument != "--overwrite");
    let ended = Ended::of(restoring.scene.command(&RESTORE, &arguments).output());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(restoring.scene.vm.change_tracking());
    same_bytes(&fs::read(&file).unwrap(), &before);
}

#[test]
fn an_nbdkit_that_fails_is_told_and_changes_nothing() {
    let (restoring, file) = serving();
    fs::write(restoring.scene.world.path("vddk/fails"), "").unwrap();
    let before = fs::read(&file).unwrap();
    let ended = Ended::of(restoring.scene.command(&RESTORE, &by("nbd")).output());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told = "nbdkit ended with exit status: 3; it says: nbdkit: vddk: cannot log in with ***";
    assert!(ended.stderr.contains(told), "{ended:?}");
    same_bytes(&fs::read(&file).unwrap(), &before);
    restoring.gave_back();
    assert!(restoring.scene.vm.change_tracking());
}

#[test]
fn interrupted_or_killed_nothing_is_left_and_it_can_be_repeated() {
    let (restoring, file) = serving();
    for (act, code) in [(interrupt as fn(_), Some(130)), (kill, None)] {
        let at = ("RemoveSnapshot_Task", 1);
        let (ended, was) = restoring.scene.run_command_and_at(&RESTORE, at, act, &by("nbd"));
        assert!(was);
        assert_eq!(ended.code, code, "{ended:?}");
        restoring.scene.clear_away();
    }
    fs::write(&file, noise(8, restoring.backed_up.len())).unwrap();
    let ended = Ended::of(restoring.scene.command(&RESTORE, &by("nbd")).output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    same_bytes(&fs::read(&file).unwrap(), &restoring.backed_up);
    take_over(&restoring, &file);
    assert!(restoring.scene.vm.change_tracking());
    restoring.gave_back();
    assert!(walk(&restoring.scene.world.path("tmp")).is_empty());
    restoring.next_backups_are_right();
}
