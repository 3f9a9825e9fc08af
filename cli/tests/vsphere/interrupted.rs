//! Backups that are interrupted (SIGINT): nothing is left, at once.

use crate::scene::{FOLDER, MIB, Scene, interrupt};
use crate::world::{Ended, noise};
use keepstone_peers::vcenter::Failure;
use rustix::process::{Pid, test_kill_process};
use std::sync::Arc;

fn scene() -> Scene {
    let scene = Scene::with_disks(&[12 * MIB]);
    scene.vm.disk(0).write(0, &noise(1, 12 << 20));
    scene
}

/// The backup ended as it should, and the next one is right.
fn ended_without_a_trace(scene: &Scene, (ended, was): &(Ended, bool)) {
    assert!(was, "it did not come to that: {ended:?}");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{ended:?}");
    assert!(ended.stderr.ends_with("keepstone: error: interrupted\n"), "{ended:?}");
    scene.is_clean();
    assert_eq!(scene.snapshots(), [""; 0]);
}

fn next_is_right(scene: &Scene) {
    scene.back_up_well(&[]);
    scene.restores("scsi0-0", 0);
}

#[test]
fn while_it_reads() {
    let scene = scene();
    let ended = scene.run_and_at(("GET /folder", 5), interrupt, &FOLDER);
    ended_without_a_trace(&scene, &ended);
    let told = "removing the VM's snapshot; interrupt again to leave that to the next backup";
    assert!(ended.0.stderr.contains(told), "{ended:?}");
    next_is_right(&scene);
}

#[test]
fn while_its_snapshot_is_being_made() {
    let scene = scene();
    scene.vcenter.slow_tasks("CreateSnapshot_Task", Some(4));
    scene.vcenter.slow_tasks("CreateSnapshotEx_Task", Some(4));
    let ended = scene.run_and_at(("CreateSnapshot_Task", 1), interrupt, &FOLDER);
    ended_without_a_trace(&scene, &ended);
    scene.vcenter.slow_tasks("CreateSnapshot_Task", None);
    next_is_right(&scene);
}

#[test]
fn while_it_waits_for_a_task_of_somebody_else() {
    let scene = scene();
    scene.vm.start_other_task(u64::MAX);
    let ended = scene.run_and_at(("RetrievePropertiesEx", 8), interrupt, &FOLDER);
    ended_without_a_trace(&scene, &ended);
    assert_eq!(scene.vcenter.count("CreateSnapshot_Task"), 0);
}

#[test]
fn while_leftovers_are_being_removed() {
    let scene = scene();
    scene.vcenter.slow_tasks("ReconfigVM_Task", Some(4));
    scene.vm.set_change_tracking(false);
    let arguments = [&FOLDER[..], &["--enable-change-tracking"]].concat();
    let ended = scene.run_and_at(("ReconfigVM_Task", 1), interrupt, &arguments);
    ended_without_a_trace(&scene, &ended);
}

#[test]
fn when_everything_is_committed_the_snapshot_is_still_removed_and_the_backup_good() {
    let scene = scene();
    scene.vcenter.slow_tasks("RemoveSnapshot_Task", Some(4));
    let (ended, was) = scene.run_and_at(("RemoveSnapshot_Task", 1), interrupt, &FOLDER);
    assert!(was);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    scene.is_clean();
    scene.restores("scsi0-0", 0);
}

#[test]
fn while_the_task_that_makes_the_snapshot_is_stuck_it_is_told_what_is_left() {
    let scene = scene();
    scene.vcenter.slow_tasks("CreateSnapshot_Task", Some(u64::MAX));
    let arguments = [&FOLDER[..], &["--task-timeout", "1s"]].concat();
    let (ended, was) = scene.run_and_at(("CreateSnapshot_Task", 1), interrupt, &arguments);
    assert!(was);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    // vCenter is still at it, so it cannot be removed: that has to be said.
    let left = scene.ours();
    assert_eq!(left.len(), 1);
    assert!(ended.stderr.contains(&left[0]), "{ended:?}");
    assert_eq!(scene.vcenter.violations(), []);
}

#[test]
fn twice_it_ends_at_once_and_the_next_backup_cleans_up() {
    let scene = scene();
    let insist = |program: Pid| {
        // Two that come at once may arrive as one.
        while test_kill_process(program).is_ok() && !is_zombie(program) {
            // It may have ended between the question and this.
            let _ = rustix::process::kill_process(program, rustix::process::Signal::INT);
            std::thread::yield_now();
        }
    };
    let (ended, was) = scene.run_and_at(("GET /folder", 5), insist, &FOLDER);
    assert!(was);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    scene.clear_away();
    assert_eq!(scene.ours().len(), 1);
    next_is_right(&scene);
}

/// Whether a program has ended and was not waited for.
fn is_zombie(program: Pid) -> bool {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", program.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn while_the_server_does_not_answer_it_is_not_asked_for_ever() {
    let scene = Arc::new(scene());
    scene.vcenter.fail_every("RetrievePropertiesEx", Failure::Dropped);
    let (ended, was) = scene.run_and_at(("RetrievePropertiesEx", 1), interrupt, &FOLDER);
    assert!(was);
    assert!(matches!(ended.code, Some(1 | 130)), "{ended:?}");
    assert_eq!(scene.ours(), [""; 0]);
    scene.vcenter.heal("RetrievePropertiesEx");
    next_is_right(&scene);
}
