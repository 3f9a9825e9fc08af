//! Restores in place that vCenter tells the changes for: they cost what changed, and any doubt costs the whole disk.

use super::{BLOCK, HOTADD, MIB, RESTORE, Restoring};
use crate::scene::{disk, disks, interrupt, kill, same_bytes};
use crate::world::{Ended, noise};
use keepstone_peers::vcenter::{ChangeTracking, Failure, Fault, Lie, Power, VmSpec};
use serde_json::Value;

const LEN: u64 = 64 * MIB;
const RESET: &str = "changed-block tracking was reset since the last snapshot";

/// A larger disk, of which the newest snapshot has 10 MiB of data.
fn large() -> Restoring {
    let mut restoring = Restoring::of(&VmSpec { disks: disks(&[LEN, MIB]), ..VmSpec::default() });
    restoring.scene.vm.disk(0).write(16 * MIB, &noise(20, 8 << 20));
    back_up(&mut restoring);
    restoring
}

/// Backs up, switches off, and changes a hundredth: in data, in holes and at the beginning.
fn back_up(restoring: &mut Restoring) {
    restoring.scene.vm.set_power(Power::On);
    restoring.scene.back_up_by(&HOTADD);
    restoring.backed_up = restoring.scene.vm.disk(0).bytes();
    change(restoring);
    restoring.scene.vm.set_power(Power::Off);
}

fn change(restoring: &Restoring) {
    let disk = restoring.scene.vm.disk(0);
    for number in 0..5 {
        disk.write((16 + number) * MIB + 5 * BLOCK, &noise(30 + number, 60_000));
        disk.write((40 + number) * MIB, &noise(40 + number, 60_000));
    }
    disk.write(512, &noise(50, 512));
}

fn run(restoring: &Restoring, more: &[&str]) -> Ended {
    let arguments = [&HOTADD[..], &["--in-place"], more].concat();
    Ended::of(restoring.scene.command(&RESTORE, &arguments).output())
}

fn number(report: &Value, of: &str) -> u64 {
    report[of].as_u64().unwrap_or_else(|| panic!("no {of} in {report}"))
}

/// A restore in place that trusts what vCenter tells.
fn is_tracked(restoring: &Restoring, more: &[&str]) -> Value {
    let newest = restoring.scene.snapshots().pop().unwrap();
    let ended = run(restoring, more);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    restoring.is_back();
    let report = ended.json();
    assert!(newest.starts_with(report["changesSince"].as_str().unwrap()), "{newest}: {report}");
    assert_eq!(report["comparedReason"], Value::Null);
    report
}

/// One that compares everything, says why, and is right.
fn is_compared(restoring: &Restoring, more: &[&str], why: &str) {
    let ended = run(restoring, more);
    assert_eq!(ended.code, Some(4), "{why}: {ended:?}");
    restoring.is_back();
    let report = ended.json();
    let reason = report["comparedReason"].as_str().unwrap_or_else(|| panic!("no reason in {report}"));
    assert!(reason.contains(why), "{why}: {reason}");
    assert!(ended.stderr.contains(&format!("warning: all of the disk was compared: {reason}")), "{ended:?}");
    assert_eq!(report["changesSince"], Value::Null);
    assert!(number(&report, "comparedBytes") > 10 * MIB, "{report}");
}

#[test]
fn a_rollback_of_a_hundredth_costs_about_that_and_the_next_backups_are_right() {
    let restoring = large();
    let report = is_tracked(&restoring, &["--audit", "0"]);
    let [written, zeroed, compared] =
        ["writtenBytes", "zeroBytes", "comparedBytes"].map(|of| number(&report, of));
    // Eleven blocks changed; what is compared are whole chunks.
    assert!(written + zeroed <= LEN / 100 + BLOCK, "{report}");
    assert!(written >= 300_000 && zeroed >= 300_000, "{report}");
    assert!(compared <= LEN / 20, "{report}");
    assert_eq!(report["vsphere"]["nextBackupFull"], true);
    assert!(restoring.scene.vm.change_tracking());
    restoring.next_backups_are_right();
}

#[test]
fn an_older_snapshot_comes_back_by_what_changed_since_the_newest() {
    let mut restoring = large();
    let scene = &restoring.scene;
    let older = scene.snapshots().remove(0);
    let expected = scene.restored(&older, "scsi0-0");
    let newest = scene.snapshots().pop().unwrap();
    let command = ["restore", &older, "--disk", "scsi0-0", "--to"];
    let ended = Ended::of(scene.command(&command, &[&HOTADD[..], &["--in-place"]].concat()).output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    assert!(newest.starts_with(report["changesSince"].as_str().unwrap()), "{report}");
    same_bytes(&scene.vm.disk(0).bytes(), &expected);
    restoring.gave_back();
    restoring.next_backups_are_right();
    // The same with the first snapshot of the new history.
    back_up(&mut restoring);
    is_tracked(&restoring, &[]);
}

#[test]
fn any_doubt_compares_everything() {
    let mut restoring = large();
    is_tracked(&restoring, &[]);
    // Nothing was backed up since tracking began anew.
    change(&restoring);
    is_compared(&restoring, &[], RESET);

    back_up(&mut restoring);
    restoring.scene.vm.disk(0).reset_tracking();
    is_compared(&restoring, &[], RESET);

    let lies = [
        (Lie::OtherStart, "asked for changes from 0 on"),
        (Lie::BeyondCapacity, "beyond the disk's end"),
        (Lie::Overlapping, "before the end of the one before it"),
    ];
    for (lie, why) in lies {
        back_up(&mut restoring);
        restoring.scene.vm.disk(0).lie(Some(lie));
        is_compared(&restoring, &[], why);
        restoring.scene.vm.disk(0).lie(None);
    }

    back_up(&mut restoring);
    let fault = Fault::new("FileFault", "Error caused by file web-ctk.vmdk");
    restoring.scene.vcenter.fail("QueryChangedDiskAreas", 1, Failure::Fault(fault));
    is_compared(&restoring, &[], "(FileFault: Error caused by file web-ctk.vmdk)");

    back_up(&mut restoring);
    restoring.scene.vcenter.deny("VirtualMachine.Provisioning.DiskRandomRead");
    is_compared(&restoring, &[], "the server does not tell what changed (NoPermission");
    restoring.scene.vcenter.allow("VirtualMachine.Provisioning.DiskRandomRead");

    back_up(&mut restoring);
    restoring.scene.vm.set_change_tracking(false);
    let before = restoring.scene.vcenter.count("CreateSnapshot_Task");
    is_compared(&restoring, &[], "changed-block tracking is off");
    // None to ask in.
    assert_eq!(restoring.scene.vcenter.count("CreateSnapshot_Task") - before, 1);
}

#[test]
fn another_vm_is_compared_and_one_without_change_ids_has_nothing_to_tell() {
    let restoring = Restoring::new();
    let spec = VmSpec { disks: disks(&[super::SIZE]), power: Power::Off, ..VmSpec::default() };
    let copy = restoring.scene.vcenter.add_vm("DC/vm/copy", &spec);
    restoring.scene.set_path("DC/vm/copy");
    let ended = run(&restoring, &[]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(ended.json()["comparedReason"], "it is another disk than at the last snapshot");
    same_bytes(&copy.disk(0).bytes(), &restoring.backed_up);

    let change_tracking = ChangeTracking::Off;
    let restoring =
        Restoring::of(&VmSpec { disks: disks(&[super::SIZE, MIB]), change_tracking, ..VmSpec::default() });
    let ended = run(&restoring, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    restoring.is_back();
    let report = ended.json();
    assert_eq!((&report["changesSince"], &report["comparedReason"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_change_that_vcenter_keeps_secret_is_found_by_the_audit() {
    let restoring = large();
    restoring.scene.vm.disk(0).lie(Some(Lie::MissingExtent(2)));
    let ended = run(&restoring, &["--audit", "100"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("the disk had changed where nothing told so"), "{ended:?}");
    restoring.is_back();
}

#[test]
fn after_an_interruption_everything_is_compared() {
    // Tracking off, attach, detach: all is written by then.
    for (act, nth, why) in [(interrupt as fn(_), 2, RESET), (kill, 3, "changed-block tracking is off")] {
        let restoring = large();
        restoring.scene.vcenter.slow_tasks("ReconfigVM_Task", Some(4));
        let arguments = [&HOTADD[..], &["--in-place"]].concat();
        let at = ("ReconfigVM_Task", nth);
        let (ended, was) = restoring.scene.run_command_and_at(&RESTORE, at, act, &arguments);
        assert!(was && matches!(ended.code, None | Some(130)), "{ended:?}");
        restoring.scene.vcenter.slow_tasks("ReconfigVM_Task", None);
        restoring.scene.clear_away();
        is_compared(&restoring, &[], why);
        restoring.next_backups_are_right();
    }
}

#[test]
fn what_fails_while_changes_are_asked_for_leaves_nothing_and_tracking_as_it_was() {
    let restoring = large();
    let fault = Failure::from(Fault::new("GenericVmConfigFault", "Something is wrong."));
    for failure in [fault, Failure::AnswerLost] {
        for method in ["CreateSnapshot_Task", "RemoveSnapshot_Task"] {
            let before = restoring.scene.vm.disk(0).bytes();
            restoring.scene.vcenter.fail(method, 1, failure.clone());
            let ended = run(&restoring, &[]);
            restoring.scene.vcenter.heal(method);
            assert_eq!(ended.code, Some(1), "{ended:?}");
            for left in restoring.scene.ours() {
                assert!(ended.stderr.contains(&left), "{left}: {ended:?}");
            }
            same_bytes(&restoring.scene.vm.disk(0).bytes(), &before);
            assert!(restoring.scene.vm.change_tracking());
            assert_eq!(restoring.scene.vcenter.violations(), []);
        }
    }
    // In the snapshot to ask in, which the next restore removes.
    let arguments = [&HOTADD[..], &["--in-place"]].concat();
    let at = ("QueryChangedDiskAreas", 1);
    let (ended, was) = restoring.scene.run_command_and_at(&RESTORE, at, kill, &arguments);
    assert!(was && ended.code.is_none(), "{ended:?}");
    restoring.scene.clear_away();
    assert_eq!(restoring.scene.ours().len(), 1);
    // Its change id is a later one, and what changed since the backup is still known.
    is_tracked(&restoring, &[]);
    restoring.scene.vm.set_power(Power::On);
    let (_, report) = restoring.scene.back_up_by(&HOTADD);
    assert_eq!(disk(&report, "scsi0-0")["mode"], "full");
    restoring.scene.restores("scsi0-0", 0);
}
