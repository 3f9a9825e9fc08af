//! Disks that are attached to the proxy, and ways that are chosen by themselves.

use crate::scene::{FOLDER, History, MIB, Scene, disks, kill};
use crate::world::{noise, text};
use keepstone_peers::vcenter::{DiskSpec, Failure, Fault, Vm, VmSpec};
use serde_json::json;
use std::path::PathBuf;

const HOTADD: [&str; 4] = ["--transport", "hotadd", "--proxy-vm", "DC/vm/backup/proxy"];

fn scene(sizes: &[u64]) -> (Scene, Vm, PathBuf) {
    let scene = Scene::with_disks(sizes);
    for (number, size) in sizes.iter().enumerate() {
        let len = usize::try_from(size / 2).unwrap();
        scene.vm.disk(number).write(0, &noise(number as u64 + 1, len));
    }
    let (proxy, root) = scene.add_proxy();
    (scene, proxy, root)
}

/// The proxy has only its own disk.
fn gave_back(proxy: &Vm, root: &std::path::Path) {
    assert_eq!(proxy.attached(), [""; 0]);
    assert_eq!(std::fs::read_dir(root.join("dev")).unwrap().count(), 1);
}

#[test]
fn disks_are_attached_read_and_given_back() {
    let (scene, proxy, root) = scene(&[3 * MIB, MIB]);
    for round in 0..2 {
        let (code, report) = scene.back_up_by(&HOTADD);
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["vsphere"]["transports"], json!({"scsi0-0": "hotadd", "scsi0-1": "hotadd"}));
        gave_back(&proxy, &root);
        scene.restores("scsi0-0", 0);
        scene.restores("scsi0-1", 1);
        scene.vm.disk(1).write(round * 512, &noise(7, 512));
    }
    assert_eq!(scene.vcenter.count("GET /folder"), 0);
}

#[test]
fn the_proxy_is_this_machine_if_none_is_named() {
    let (scene, proxy, root) = scene(&[MIB]);
    let refused = scene.run(&["--transport", "hotadd"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("hotadd needs this program to run in a VM of the same vCenter; --proxy-vm names it"),
        "{refused:?}"
    );
    std::fs::create_dir_all(root.join("sys/class/dmi/id")).unwrap();
    std::fs::write(root.join("sys/class/dmi/id/product_uuid"), format!("{}\n", proxy.bios_uuid())).unwrap();
    let (code, report) = scene.back_up_by(&[]);
    assert_eq!((code, &report["vsphere"]["transports"]), (0, &json!({"scsi0-0": "hotadd"})));
    gave_back(&proxy, &root);
    scene.restores("scsi0-0", 0);
}

#[test]
fn a_way_is_chosen_and_it_is_said_why_the_others_were_not() {
    let (scene, proxy, _root) = scene(&[MIB]);
    proxy.create_foreign_snapshot("before the upgrade");
    let ended = scene.run(&["--proxy-vm", "DC/vm/backup/proxy"]);
    scene.is_clean();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json()["vsphere"]["transports"], json!({"scsi0-0": "folder"}));
    let why = "disk scsi0-0 cannot be read by hotadd: no disk can be attached to proxy, which has snapshots: before the upgrade";
    assert!(ended.stderr.contains(why), "{ended:?}");
    assert!(ended.stderr.contains("disk scsi0-0 is read by folder"), "{ended:?}");
    scene.restores("scsi0-0", 0);

    // With no way left, all reasons are told.
    scene.vcenter.fail_every("GET /folder", Failure::Status(403));
    let ended = scene.run(&["--proxy-vm", "DC/vm/backup/proxy"]);
    scene.is_clean();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("there is no way to read it")
            && ended.stderr.contains("which has snapshots")
            && ended.stderr.contains("403"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("docs/vmware.md tells what each way needs"), "{ended:?}");
    assert_eq!(proxy.snapshot_names(), ["before the upgrade"]);
}

#[test]
fn killed_with_disks_attached_the_next_start_detaches_them_before_the_snapshot_goes() {
    let (scene, proxy, root) = scene(&[2 * MIB, MIB]);
    let keys = ["scsi0-0", "scsi0-1"];
    let mut history = History::default();
    scene.back_up_by(&HOTADD);
    history.note(&scene, &keys);
    let calls: u64 = scene
        .calls_of(&HOTADD)
        .into_iter()
        .filter(|(method, _)| method == "ReconfigVM_Task")
        .map(|(_, count)| count)
        .sum();
    history.note(&scene, &keys);
    assert_eq!(calls, 4);
    let reconfigurations = (1..=calls).map(|nth| ("ReconfigVM_Task", nth));
    let others = [("QueryChangedDiskAreas", 1), ("RemoveSnapshot_Task", 1)];
    let mut attached = 0;
    for (round, at) in (0..).zip(reconfigurations.chain(others)) {
        scene.vm.disk(0).write(round * 65_536, &noise(round + 30, 512));
        let (ended, was) = scene.run_and_at(at, kill, &HOTADD);
        assert!(was && ended.code.is_none(), "{at:?}: {ended:?}");
        scene.clear_away();
        history.note(&scene, &keys);
        let left = proxy.attached().len();
        attached += left;
        let next = scene.run(&HOTADD);
        assert_eq!(next.code, Some(0), "{at:?}: {next:?}");
        assert_eq!(
            next.stderr.contains("detached what an earlier backup left attached to the proxy"),
            left > 0,
            "{at:?}: {next:?}"
        );
        assert_eq!(scene.vcenter.violations(), [], "{at:?}");
        assert_eq!(scene.ours(), [""; 0]);
        gave_back(&proxy, &root);
        assert_eq!(history.note(&scene, &keys), 1);
    }
    assert!(attached > 4, "{attached}");
    history.all_restore(&scene);
}

#[test]
fn a_disk_that_stays_attached_is_told_and_detached_by_the_next_backup() {
    let (scene, proxy, root) = scene(&[MIB]);
    let fault = Failure::Task(Fault::new("GenericVmConfigFault", "The device is in use."));
    scene.vcenter.fail("ReconfigVM_Task", 2, fault);
    let ended = scene.run(&HOTADD);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("warning: disk scsi0-0 could not be closed"), "{ended:?}");
    assert!(ended.stderr.contains("The device is in use."), "{ended:?}");
    assert_eq!(proxy.attached().len(), 1);
    // Under an attached disk no snapshot is removed.
    let left = scene.ours();
    assert_eq!(left.len(), 1);
    assert!(
        ended.stderr.contains(&format!(
            "the snapshot {:?} stays on the virtual machine until its disk is detached",
            left[0]
        )),
        "{ended:?}"
    );
    assert_eq!(scene.vcenter.violations(), []);
    scene.restores("scsi0-0", 0);
    scene.vm.disk(0).write(0, &noise(9, 512));
    let next = scene.run(&HOTADD);
    assert_eq!(next.code, Some(0), "{next:?}");
    gave_back(&proxy, &root);
    assert_eq!(scene.ours(), [""; 0]);
    scene.restores("scsi0-0", 0);
}

#[test]
fn other_disks_of_the_proxy_are_left_alone() {
    let (scene, proxy, _root) = scene(&[MIB]);
    let other = scene.vcenter.add_vm("DC/vm/db", &VmSpec { disks: disks(&[MIB]), ..VmSpec::default() });
    let own = proxy.add_disk(&DiskSpec {
        mode: keepstone_peers::vcenter::DiskMode::IndependentNonpersistent,
        ..DiskSpec::of(MIB)
    });
    scene.back_up_by(&HOTADD);
    // A backup of another VM is killed: this VM's has nothing to do with it.
    let place = format!("vsphere://{}/DC/vm/db", scene.vcenter.host());
    let db = |more: &[&str]| {
        crate::world::Ended::of(scene.command_at(&place, &["backup"], &[&HOTADD, more].concat()).output())
    };
    assert_eq!(db(&[]).code, Some(0));
    other.disk(0).write(0, &noise(3, 512));
    scene.vcenter.fail(
        "ReconfigVM_Task",
        2,
        Failure::Task(Fault::new("GenericVmConfigFault", "The device is in use.")),
    );
    assert_eq!(db(&[]).code, Some(4));
    assert_eq!(proxy.attached().len(), 1);
    assert_eq!(scene.back_up_by(&HOTADD).0, 0);
    assert_eq!(proxy.attached().len(), 1);
    assert_eq!(db(&[]).code, Some(0));
    assert_eq!(proxy.attached(), [""; 0]);
    assert_eq!(own.size(), MIB);
    assert_eq!(other.snapshot_names(), [""; 0]);
}

#[test]
fn a_missing_proxy_is_named() {
    let scene = Scene::with_disks(&[MIB]);
    let ended = scene.run(&["--transport", "hotadd", "--proxy-vm", "nowhere"]);
    scene.is_clean();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("there is no virtual machine nowhere to attach disks to"), "{ended:?}");
    assert_eq!(scene.vcenter.count("CreateSnapshot_Task"), 0);
    // Also what is not used has to be right: else leftovers would stay.
    let ended = scene.run(&[&FOLDER[..], &["--proxy-vm", "nowhere"]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = scene.back_up_well(&[]);
    assert_eq!(text(&report, "vm"), "web");
}
