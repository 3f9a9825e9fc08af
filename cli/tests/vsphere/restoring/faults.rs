//! Restores in which something goes wrong: what could not be undone is told, and the next restore is right.

use super::{HOTADD, RESTORE, Restoring};
use crate::scene::{kill, same_bytes};
use crate::world::Ended;
use keepstone_peers::vcenter::{Failure, Fault, Power, Violation};
use std::collections::BTreeMap;

fn arguments() -> Vec<&'static str> {
    [&HOTADD[..], &["--overwrite"]].concat()
}

/// Every call of a restore.
fn calls(restoring: &Restoring) -> Vec<(String, u64)> {
    let before = restoring.scene.vcenter.calls().len();
    restoring.restores(&[]);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut calls = Vec::new();
    for call in &restoring.scene.vcenter.calls()[before..] {
        let count = counts.entry(call.method.clone()).or_default();
        *count += 1;
        calls.push((call.method.clone(), *count));
    }
    calls
}

/// What is so after a restore that may have failed was told.
fn is_told(restoring: &Restoring, ended: &Ended, of: &str) {
    let Restoring { scene, proxy, .. } = restoring;
    match ended.code {
        Some(0) => restoring.is_back(),
        Some(4) => same_bytes(&restoring.device_or_disk(), &restoring.backed_up),
        Some(1) => {
            assert_eq!(ended.stdout, "", "{of}");
            assert!(ended.stderr.contains("keepstone: error: "), "{of}");
        }
        _ => panic!("{of}"),
    }
    for left in scene.ours() {
        assert!(ended.stderr.contains(&left), "{left}: {of}");
    }
    for left in proxy.attached() {
        assert!(ended.stderr.contains(&left) && ended.code != Some(0), "{left}: {of}");
    }
    if !scene.vm.change_tracking() {
        assert!(ended.stderr.contains("changed block tracking stays off, and was on"), "{of}");
    }
    assert_eq!(scene.vm.power(), Power::Off, "{of}");
}

/// Restores once for each of many calls, that call failing, and then well. Returns how many failed.
fn calls_fail(share: usize, shares: usize, failure: &Failure) -> usize {
    let restoring = Restoring::new();
    // Whatever changes something, and some of the questions.
    let is_chosen = |(at, (method, _)): &(usize, (String, u64))| method.ends_with("_Task") || at % 3 == 1;
    let chosen = calls(&restoring).into_iter().enumerate().filter(is_chosen).map(|(_, call)| call);
    let mut failed = 0;
    for (method, nth) in chosen.skip(share).step_by(shares) {
        restoring.change();
        restoring.scene.vcenter.fail(&method, nth, failure.clone());
        let ended = restoring.run(&[]);
        restoring.scene.vcenter.heal(&method);
        restoring.scene.vcenter.expire_sessions();
        let of = format!("{failure:?} of {method} {nth}: {ended:?}");
        is_told(&restoring, &ended, &of);
        assert_eq!(restoring.scene.vcenter.violations(), [], "{of}");
        if ended.code != Some(0) {
            failed += 1;
            restoring.restores(&[]);
            assert!(restoring.scene.vm.change_tracking(), "{of}");
        }
    }
    restoring.next_backups_are_right();
    failed
}

/// The same, distributed among scenes that wait beside each other.
fn calls_fail_with(failure: &Failure) -> usize {
    const SHARES: usize = 3;
    std::thread::scope(|threads| {
        let each = |share| threads.spawn(move || calls_fail(share, SHARES, failure));
        let running: Vec<_> = (0..SHARES).map(each).collect();
        running.into_iter().map(|thread| thread.join().expect("a share of the calls")).sum()
    })
}

#[test]
fn with_a_fault_of_many_calls() {
    let failed = calls_fail_with(&Fault::new("GenericVmConfigFault", "Something is wrong.").into());
    assert!(failed > 10, "only {failed} failed");
}

#[test]
fn with_an_answer_that_is_lost() {
    let restoring = Restoring::new();
    for (method, nth) in calls(&restoring).into_iter().filter(|(method, _)| method.ends_with("_Task")) {
        restoring.change();
        restoring.scene.vcenter.fail(&method, nth, Failure::AnswerLost);
        let ended = restoring.run(&[]);
        let of = format!("{method} {nth}: {ended:?}");
        is_told(&restoring, &ended, &of);
        assert_eq!(restoring.scene.vcenter.violations(), [], "{of}");
        restoring.restores(&[]);
    }
    restoring.next_backups_are_right();
}

#[test]
fn killed_at_any_change_and_some_questions_the_next_restore_cleans_up() {
    let restoring = Restoring::new();
    let mut attached = 0;
    let some = |(method, nth): &(String, u64)| method.ends_with("_Task") || nth % 15 == 5;
    for (method, nth) in calls(&restoring).into_iter().filter(some) {
        restoring.change();
        let at = (method.as_str(), nth);
        let (ended, was) = restoring.scene.run_command_and_at(&RESTORE, at, kill, &arguments());
        assert!(was && ended.code.is_none(), "{at:?}: {ended:?}");
        restoring.scene.clear_away();
        let left = restoring.proxy.attached().len();
        attached += left;
        let ended = restoring.run(&[]);
        assert_eq!(ended.code, Some(0), "{at:?}: {ended:?}");
        restoring.is_back();
        let told = "detached the disk that an earlier restore left attached to the proxy";
        assert_eq!(ended.stderr.contains(told), left > 0, "{at:?}: {ended:?}");
        assert!(restoring.scene.vm.change_tracking(), "{at:?}");
    }
    assert!(attached >= 2, "{attached}");
    restoring.next_backups_are_right();
}

#[test]
fn a_disk_that_stays_attached_is_told_and_detached_by_the_next_restore() {
    let restoring = Restoring::new();
    // Tracking off, attach, detach.
    let fault = Failure::Task(Fault::new("GenericVmConfigFault", "The device is in use."));
    restoring.scene.vcenter.fail("ReconfigVM_Task", 3, fault);
    let ended = restoring.run(&[]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let told = "warning: disk scsi0-0 could not be closed: [datastore1] web/web.vmdk may still be attached to proxy: vCenter \
                could not detach the disk from this virtual machine: The device is in use. (GenericVmConfigFault); the next \
                restore onto this VM from this host tries again; until then it cannot be started";
    assert!(ended.stderr.contains(told), "{ended:?}");
    assert_eq!(ended.json()["vsphere"]["attention"].as_array().unwrap().len(), 1);
    assert_eq!(restoring.proxy.attached().len(), 1);
    restoring.restores(&[]);
    restoring.next_backups_are_right();
}

#[test]
fn a_vm_that_is_started_before_its_disk_is_locked_keeps_what_it_has() {
    let restoring = Restoring::new();
    let (vm, before) = (restoring.scene.vm.clone(), restoring.scene.vm.disk(0).bytes());
    restoring.scene.vcenter.at("ReconfigVM_Task", 2, move || vm.set_power(Power::On));
    let ended = restoring.run(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("FileLocked"), "{ended:?}");
    assert!(!ended.stderr.contains("holds only a part"), "{ended:?}");
    restoring.gave_back();
    same_bytes(&restoring.scene.vm.disk(0).bytes(), &before);
    restoring.next_backups_are_right();
}

#[test]
fn a_snapshot_that_comes_before_the_disk_is_locked_is_seen_before_anything_is_written() {
    let restoring = Restoring::new();
    let (vm, before) = (restoring.scene.vm.clone(), restoring.scene.vm.disk(0).bytes());
    restoring.scene.vcenter.at("ReconfigVM_Task", 2, move || vm.create_foreign_snapshot("theirs"));
    let ended = restoring.run(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("it has snapshots, which stand on the disk: theirs"), "{ended:?}");
    // Over snapshots tracking is not switched on.
    assert!(ended.stderr.contains("changed block tracking stays off, and was on"), "{ended:?}");
    assert_eq!(restoring.proxy.attached(), [""; 0]);
    same_bytes(&restoring.scene.vm.disk(0).bytes(), &before);
    // That it was attached could not be prevented.
    let file = "[datastore1] web/web.vmdk".to_owned();
    let mode = "independent_persistent".to_owned();
    assert_eq!(restoring.scene.vcenter.violations(), [Violation::AttachedWritable { file, mode }]);
    assert_eq!(restoring.scene.vm.snapshot_names(), ["theirs"]);
}

#[test]
fn a_second_restore_onto_the_same_vm_at_the_same_time_is_refused() {
    let restoring = Restoring::new();
    let (tell, told) = std::sync::mpsc::channel();
    let other = restoring.scene.command(&RESTORE, &arguments());
    let mut other = other;
    restoring.scene.vcenter.at("ReconfigVM_Task", 1, move || {
        tell.send(Ended::of(other.output())).expect("the test waits");
    });
    restoring.run(&[]);
    let refused = told.recv().expect("it came to that");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let expected = "a restore onto a disk of web as the writer default is running on this host already";
    assert!(refused.stderr.contains(expected), "{refused:?}");
    restoring.is_back();
}
