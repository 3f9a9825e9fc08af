//! Any doubt about what changed is a full read that is told of, and the next backup is incremental again.

use crate::scene::{BLOCK, MIB, Scene, disk};
use crate::world::noise;
use keepstone_peers::vcenter::{Failure, Fault, Lie, Power};
use serde_json::Value;

const LEN: u64 = 4 * MIB;

fn scene() -> Scene {
    let scene = Scene::with_disks(&[LEN, MIB]);
    scene.vm.disk(0).write(0, &noise(1, 3 << 20));
    scene.vm.disk(1).write(0, &noise(2, 1 << 20));
    scene.back_up_well(&[]);
    scene
}

/// The next backup reads the first disk in full for a reason, only that one, and is right.
fn is_read_in_full(scene: &Scene, why: &str) {
    let ended = scene.run(&["--transport", "folder"]);
    scene.is_clean();
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let report: Value = ended.json();
    let told = disk(&report, "scsi0-0");
    let reason = told["fullReason"].as_str().unwrap_or_else(|| panic!("no reason in {report}"));
    assert!(reason.contains(why), "{reason}");
    assert_eq!(
        (&told["mode"], told["changedBytes"].as_u64()),
        (&"full".into(), Some(scene.vm.disk(0).size()))
    );
    assert!(
        ended.stderr.contains(&format!("keepstone: warning: disk scsi0-0 was read in full: {reason}")),
        "{ended:?}"
    );
    assert_eq!(disk(&report, "scsi0-1")["mode"], "incremental", "{report}");
    scene.restores("scsi0-0", 0);
    scene.restores("scsi0-1", 1);
}

/// The next backup reads what changed.
fn is_incremental_again(scene: &Scene) {
    scene.vm.disk(0).write(2 * BLOCK, &noise(77, 512));
    let report = scene.back_up_well(&[]);
    let told = disk(&report, "scsi0-0");
    assert_eq!((&told["mode"], told["changedBytes"].as_u64()), (&"incremental".into(), Some(BLOCK)));
    scene.restores("scsi0-0", 0);
}

#[test]
fn tracking_that_was_reset_or_switched_off_and_on() {
    let scene = scene();
    scene.vm.disk(0).write(BLOCK, &noise(3, 512));
    scene.vm.disk(0).reset_tracking();
    is_read_in_full(&scene, "reset since the last snapshot");
    is_incremental_again(&scene);

    // Off: every backup is full and says so; on again: one more.
    scene.vm.set_change_tracking(false);
    scene.vm.disk(0).write(9 * BLOCK, &noise(4, 512));
    for _ in 0..2 {
        let (code, report) = scene.back_up(&[]);
        assert_eq!(code, 4, "{report}");
        assert_eq!(
            report["vsphere"]["attention"],
            serde_json::json!(["changed block tracking (CBT) is off"])
        );
        assert_eq!(disk(&report, "scsi0-0")["mode"], "full");
        assert_eq!(disk(&report, "scsi0-0")["changeId"], Value::Null);
        scene.restores("scsi0-0", 0);
    }
    scene.vm.set_change_tracking(true);
    scene.vm.disk(0).write(11 * BLOCK, &noise(5, 512));
    let report = scene.back_up_well(&[]);
    assert_eq!(disk(&report, "scsi0-0")["fullReason"], "changes since the last snapshot are not known");
    scene.restores("scsi0-0", 0);

    // Off and on between two backups: what happened meanwhile is not known.
    scene.vm.set_change_tracking(false);
    scene.vm.set_power(Power::Off);
    scene.vm.disk(0).write(13 * BLOCK, &noise(6, 512));
    scene.vm.set_change_tracking(true);
    scene.vm.set_power(Power::On);
    let (code, report) = scene.back_up(&[]);
    assert_eq!(code, 4, "{report}");
    for key in ["scsi0-0", "scsi0-1"] {
        assert_eq!(
            disk(&report, key)["fullReason"],
            "changed-block tracking was reset since the last snapshot"
        );
    }
    scene.restores("scsi0-0", 0);
    is_incremental_again(&scene);
}

#[test]
fn a_disk_that_was_resized() {
    let scene = scene();
    scene.vm.disk(0).resize(LEN + 2 * MIB);
    scene.vm.disk(0).write(LEN + MIB, &noise(3, 5000));
    is_read_in_full(&scene, "has 6291456 bytes, and had 4194304 at the last snapshot");
    is_incremental_again(&scene);
    // Tracking that claims to have survived it is not believed either, and that is the old defect of 128 GiB.
    scene.vm.disk(0).resize_in_epoch(LEN + 3 * MIB);
    is_read_in_full(&scene, "has 7340032 bytes, and had 6291456");
    is_incremental_again(&scene);
    scene.vm.disk(0).resize_in_epoch(LEN);
    is_read_in_full(&scene, "has 4194304 bytes, and had 7340032");
    is_incremental_again(&scene);
}

#[test]
fn a_disk_that_was_set_back() {
    let scene = Scene::with_disks(&[LEN]);
    scene.vm.disk(0).write(0, &noise(1, 3 << 20));
    scene.vm.create_foreign_snapshot("then");
    scene.add_proxy();
    let hotadd = ["--transport", "hotadd", "--proxy-vm", "backup/proxy"];
    assert_eq!(scene.back_up_by(&hotadd).0, 0);
    for (rounds, number) in [(1, "the same number"), (3, "a lower number")] {
        for round in 0..rounds {
            scene.vm.disk(0).write(round * BLOCK, &noise(round + 50, 512));
            assert_eq!(scene.back_up_by(&hotadd).0, 0);
        }
        scene.vm.revert_to("then");
        let (code, report) = scene.back_up_by(&hotadd);
        assert_eq!(code, 4, "{number}: {report}");
        let reason = disk(&report, "scsi0-0")["fullReason"].as_str().unwrap().to_owned();
        assert!(reason.contains("the disk was reverted"), "{reason}");
        scene.restores("scsi0-0", 0);
        scene.vm.disk(0).write(BLOCK, &noise(60, 512));
        assert_eq!(scene.back_up_by(&hotadd).0, 0);
        scene.restores("scsi0-0", 0);
    }
    assert_eq!(scene.vm.snapshot_names(), ["then"]);
}

#[test]
fn every_hostile_page() {
    let scene = scene();
    // Some of them have no more to tell than that there is no end.
    let lies = [
        (Lie::OtherStart, "asked for changes from 0 on, the server tells of those from 65536 on"),
        (Lie::ZeroLength, "the server tells of 0 bytes at 0"),
        (Lie::NegativeLength, "the server tells of -4194304 bytes at 0"),
        (Lie::BeyondCapacity, "beyond the disk's end at 4194304"),
        (Lie::Overlapping, "before the end of the one before it"),
        (Lie::Unsorted, "before the end of the one before it"),
        (Lie::EmptyExtent, "has 0 bytes"),
        (Lie::OutsidePage, "is outside of the 512 bytes"),
    ];
    for (number, (lie, why)) in (0..).zip(lies) {
        scene.vm.disk(0).write(number * BLOCK, &noise(number + 9, 512));
        scene.vm.disk(0).lie(Some(lie));
        is_read_in_full(&scene, why);
        scene.vm.disk(0).lie(None);
        is_incremental_again(&scene);
    }
}

#[test]
fn a_server_that_does_not_tell_what_changed() {
    let scene = scene();
    for fault in ["FileFault", "InvalidArgument", "SystemError", "GenericVmConfigFault"] {
        scene.vm.disk(0).write(7 * BLOCK, &noise(3, 512));
        let message = "Error caused by file /vmfs/volumes/datastore1/web/web-ctk.vmdk";
        scene.vcenter.fail("QueryChangedDiskAreas", 1, Failure::Fault(Fault::new(fault, message)));
        is_read_in_full(&scene, &format!("({fault}: {message})"));
        is_incremental_again(&scene);
    }
}
