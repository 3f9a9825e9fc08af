//! What cannot be backed up, or not so: each has its own message with what to do, and leaves nothing behind.

use crate::scene::{BLOCK, FOLDER, MIB, Scene, disk, disks};
use crate::world::{Ended, noise};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::store::LocalStore;
use keepstone_engine::{DiskTarget, Repository};
use keepstone_peers::certificates::Certificates;
use keepstone_peers::vcenter::{
    Allocated, ChangeTracking, ControllerKind, ControllerSpec, DiskKind, DiskMode, DiskSpec, PASSWORD, Power,
    VmSpec,
};
use repo_format::limits::DISK_SIZE_MAX;
use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

/// Runs on another VM of the scene.
fn run_at(scene: &Scene, name: &str, command: &[&str], more: &[&str]) -> Ended {
    let place = format!("vsphere://{}/DC/vm/{name}", scene.vcenter.host());
    let ended = Ended::of(scene.command_at(&place, command, more).output());
    scene.is_clean();
    ended
}

/// A VM that no backup can be made of: said by `check` and by `backup`, before anything is done to it.
fn is_refused(scene: &Scene, name: &str, more: &[&str], told: &str, hint: &str) {
    let made = scene.vcenter.count("CreateSnapshot_Task");
    let ended = run_at(scene, name, &["backup"], &[&FOLDER, more].concat());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("error: this virtual machine cannot be backed up: "), "{ended:?}");
    assert!(ended.stderr.contains(told) && ended.stderr.contains(hint), "{ended:?}");
    assert_eq!(scene.vcenter.count("CreateSnapshot_Task"), made);
    let checked = run_at(scene, name, &["vsphere", "check"], more);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let report = checked.json();
    let finding = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["what"].as_str().unwrap() == told);
    let finding = finding.unwrap_or_else(|| panic!("{told} is not in {report}"));
    assert_eq!(finding["severity"], "refusal");
    assert_eq!(finding["hint"].as_str().unwrap_or_default(), hint);
}

const PVSCSI: ControllerSpec = ControllerSpec { kind: ControllerKind::ParaVirtualScsi, bus_sharing: false };
const EXCLUDE: &str =
    "leave the disk out with --exclude-disk KEY and back it up in the guest, or change its mode";

#[test]
fn disks_that_snapshots_do_not_hold_are_named_and_can_be_left_out() {
    let scene = Scene::with_disks(&[MIB]);
    let first = || DiskSpec::of(MIB);
    let shared_bus = ControllerSpec { bus_sharing: true, ..PVSCSI };
    let cases = [
        (
            "rdm",
            DiskSpec { kind: DiskKind::PhysicalMapping, ..first() },
            PVSCSI,
            "is a raw device in physical mode (RDM), which snapshots leave out",
        ),
        (
            "independent",
            DiskSpec { mode: DiskMode::IndependentPersistent, ..first() },
            PVSCSI,
            "is independent, so snapshots leave it out",
        ),
        (
            "nonpersistent",
            DiskSpec { mode: DiskMode::IndependentNonpersistent, ..first() },
            PVSCSI,
            "is independent, so snapshots leave it out",
        ),
        (
            "multi-writer",
            DiskSpec { multi_writer: true, ..first() },
            PVSCSI,
            "may be written to by other virtual machines",
        ),
        (
            "cluster",
            DiskSpec { controller: 1, ..first() },
            shared_bus,
            "may be written to by other virtual machines",
        ),
    ];
    for (name, second, controller, told) in cases {
        let key = if second.controller == 1 { "scsi1-0" } else { "scsi0-1" };
        let can_be_left_out = !second.multi_writer && !controller.bus_sharing;
        let spec = VmSpec {
            disks: vec![first(), second],
            controllers: vec![PVSCSI, controller],
            ..VmSpec::default()
        };
        let vm = scene.vcenter.add_vm(&format!("DC/vm/{name}"), &spec);
        vm.disk(0).write(0, &noise(5, 1000));
        is_refused(&scene, name, &[], &format!("disk {key} {told}"), EXCLUDE);
        let ended = run_at(
            &scene,
            name,
            &["backup"],
            &["--transport", "folder", "--exclude-disk", &key.replace('-', ":")],
        );
        if !can_be_left_out {
            // vSphere itself makes no snapshot of such a VM.
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains("SharedBusControllerNotSupported"), "{ended:?}");
            continue;
        }
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        assert!(ended.stderr.contains(&format!("disk {key} is left out")), "{ended:?}");
        assert_eq!(ended.json()["disks"].as_array().unwrap().len(), 1);
        assert_eq!(scene.restored(&format!("{name}@latest"), "scsi0-0"), vm.disk(0).bytes());
    }
    // One in virtual mode is like any other.
    let rdm = DiskSpec { kind: DiskKind::VirtualMapping, ..first() };
    let _vm = scene.vcenter.add_vm("DC/vm/virtual", &VmSpec { disks: vec![rdm], ..VmSpec::default() });
    let checked = run_at(&scene, "virtual", &["vsphere", "check"], &[]);
    assert!(!checked.stdout.contains("refusal"), "{checked:?}");
}

#[test]
fn vms_that_are_none_or_have_nothing_to_back_up() {
    let scene = Scene::with_disks(&[MIB, MIB]);
    let add = |name: &str, spec: VmSpec| scene.vcenter.add_vm(&format!("DC/vm/{name}"), &spec);
    let _ = add(
        "template",
        VmSpec { template: true, disks: disks(&[MIB]), power: Power::Off, ..VmSpec::default() },
    );
    is_refused(&scene, "template", &[], "it is a template, not a virtual machine", "");
    add("away", VmSpec { disks: disks(&[MIB]), ..VmSpec::default() }).set_connected(false);
    is_refused(
        &scene,
        "away",
        &[],
        "vCenter cannot reach it: it is disconnected",
        "look at the VM's host and datastores in vCenter",
    );
    let _ = add("diskless", VmSpec::default());
    is_refused(&scene, "diskless", &[], "it has no disk to back up", "check --exclude-disk");
    let _ = add("empty", VmSpec { disks: disks(&[MIB, 0]), ..VmSpec::default() });
    is_refused(
        &scene,
        "empty",
        &[],
        "disk scsi0-1 has 0 bytes",
        "leave the disk out with --exclude-disk KEY",
    );
    let huge = DISK_SIZE_MAX + MIB;
    let _ = add("huge", VmSpec { disks: disks(&[MIB, huge]), ..VmSpec::default() });
    let told = format!("disk scsi0-1 has {huge} bytes, more than the {DISK_SIZE_MAX} that are possible");
    is_refused(&scene, "huge", &[], &told, "leave the disk out with --exclude-disk KEY");

    is_refused(
        &scene,
        "web",
        &["--exclude-disk", "scsi0:7"],
        "it has no disk scsi0-7; it has scsi0-0, scsi0-1",
        "check --exclude-disk",
    );
    let all = ["--exclude-disk", "scsi0:0", "--exclude-disk", "scsi0-1"];
    is_refused(&scene, "web", &all, "it has no disk to back up", "check --exclude-disk");
    for privilege in [
        "VirtualMachine.State.CreateSnapshot",
        "VirtualMachine.State.RemoveSnapshot",
        "VirtualMachine.Provisioning.DiskRandomRead",
    ] {
        scene.vcenter.deny(privilege);
        is_refused(
            &scene,
            "web",
            &[],
            &format!("the user lacks privileges: {privilege}"),
            "docs/vmware.md lists the privileges that the user needs",
        );
        scene.vcenter.allow(privilege);
    }
    scene.vcenter.deny("VirtualMachine.Config.ChangeTracking");
    scene.back_up_well(&[]);
    let ended = scene.fails(&["--enable-change-tracking"]);
    assert!(
        ended.stderr.contains("the user lacks privileges: VirtualMachine.Config.ChangeTracking"),
        "{ended:?}"
    );
    scene.vcenter.deny("Datastore.FileManagement");
    let ended = scene.fails(&[]);
    assert!(ended.stderr.contains("disk scsi0-0 cannot be read"), "{ended:?}");
}

#[test]
fn a_vm_without_change_tracking_is_read_in_full_each_time_until_it_is_switched_on() {
    let scene = Scene::with_vm(&VmSpec {
        disks: disks(&[2 * MIB]),
        change_tracking: ChangeTracking::Off,
        ..VmSpec::default()
    });
    scene.vm.disk(0).write(0, &noise(1, 2 << 20));
    for round in 0..2 {
        let ended = scene.run(&FOLDER);
        scene.is_clean();
        assert_eq!(ended.code, Some(4), "round {round}: {ended:?}");
        assert!(ended.stderr.contains("warning: changed block tracking (CBT) is off; every backup reads everything; --enable-change-tracking switches it on"), "{ended:?}");
        assert_eq!(
            ended.json()["vsphere"]["attention"],
            serde_json::json!(["changed block tracking (CBT) is off"])
        );
        scene.restores("scsi0-0", 0);
        scene.vm.disk(0).write(BLOCK, &noise(round, 512));
    }
    // Not over snapshots of others: incrementals could be wrong.
    scene.vm.create_foreign_snapshot("before the upgrade");
    scene.add_proxy();
    let (code, report) = scene.back_up_by(&["--enable-change-tracking", "--proxy-vm", "backup/proxy"]);
    assert_eq!(code, 4, "{report}");
    assert!(
        report["vsphere"]["attention"][0]
            .as_str()
            .unwrap()
            .ends_with("must not be switched on while there are snapshots: before the upgrade"),
        "{report}"
    );
    assert!(!scene.vm.change_tracking());
    scene.restores("scsi0-0", 0);
    scene.vm.remove_snapshot("before the upgrade");

    let ended = scene.run(&[&FOLDER[..], &["--enable-change-tracking"]].concat());
    scene.is_clean();
    assert!(ended.stderr.contains("changed block tracking (CBT) is on from now"), "{ended:?}");
    assert!(scene.vm.change_tracking());
    // The last one that has to be read in full.
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(disk(&ended.json(), "scsi0-0")["mode"], "full");
    scene.vm.disk(0).write(BLOCK, &noise(7, 512));
    let report = scene.back_up_well(&["--enable-change-tracking"]);
    assert_eq!(disk(&report, "scsi0-0")["changedBytes"], BLOCK);
    scene.restores("scsi0-0", 0);
}

#[test]
fn old_hardware_is_read_in_full_each_time() {
    let spec = VmSpec {
        disks: disks(&[MIB]),
        change_tracking: ChangeTracking::Unsupported,
        hardware_version: 4,
        ..VmSpec::default()
    };
    let scene = Scene::with_vm(&spec);
    scene.vm.disk(0).write(0, &noise(1, 1 << 20));
    let (code, report) = scene.back_up(&["--enable-change-tracking"]);
    assert_eq!(code, 4);
    let told = "its virtual hardware is of version 4; changes are tracked from version 7 on";
    assert_eq!(report["vsphere"]["attention"], serde_json::json!([told]));
    assert_eq!(scene.vcenter.count("ReconfigVM_Task"), 0);
    scene.restores("scsi0-0", 0);
}

/// Takes what is written, however large the disk is.
#[derive(Default)]
struct Sparse {
    written: Mutex<BTreeMap<u64, Vec<u8>>>,
    zeros: Mutex<u64>,
}

impl DiskTarget for Sparse {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written.lock().unwrap().insert(offset, data.to_vec());
        Ok(())
    }

    fn zero_at(&self, _: u64, length: u64) -> io::Result<()> {
        *self.zeros.lock().unwrap() += length;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sparse_disk_of_62_tib_takes_what_is_in_it() {
    const LEN: u64 = 62 << 40;
    let scene = Scene::with_disks(&[LEN]);
    let places = [0, 1 << 40, LEN - MIB];
    for place in places {
        scene.vm.disk(0).write(place, &noise(place + 1, 1 << 20));
    }
    let report = scene.back_up_well(&["--skip-unallocated", "--audit", "0"]);
    let told = disk(&report, "scsi0-0");
    assert_eq!((told["diskBytes"].as_u64(), told["changedBytes"].as_u64()), (Some(LEN), Some(3 * MIB)));
    assert!(told["readBytes"].as_u64().unwrap() <= 3 * MIB, "{report}");
    scene.vm.disk(0).write(33 << 40, &noise(3, 100));
    scene.vm.disk(0).discard(1 << 40, MIB);
    let report = scene.back_up_well(&["--skip-unallocated", "--audit", "0"]);
    let told = disk(&report, "scsi0-0");
    assert_eq!((&told["mode"], told["changedBytes"].as_u64()), (&"incremental".into(), Some(MIB + BLOCK)));
    assert!(told["readBytes"].as_u64().unwrap() < 3 * MIB, "{report}");

    let store = LocalStore::open(&scene.world.path("repo")).unwrap();
    let repository = Repository::open(&store, b"correct horse").unwrap();
    let snapshot = find(&repository, &Selector::Latest("web".to_owned())).unwrap();
    let target = Sparse::default();
    let disk = snapshot.disk(None).unwrap();
    let job = RestoreJob { window_len: 1 << 30, ..RestoreJob::new(snapshot.session(), disk, &target) };
    restore(&repository, &job, &Quiet).unwrap();
    let written = target.written.into_inner().unwrap();
    let mut total = 0;
    for (offset, bytes) in &written {
        assert!(scene.vm.disk(0).read(*offset, bytes.len()) == *bytes, "other bytes at {offset}");
        total += bytes.len() as u64;
    }
    assert_eq!(total + target.zeros.into_inner().unwrap(), LEN);
    for place in [0, LEN - MIB, 33 << 40] {
        let bytes: u64 = written
            .range(place.saturating_sub(1 << 17)..place + MIB)
            .map(|(_, bytes)| bytes.len() as u64)
            .sum();
        assert!(bytes >= 100, "nothing at {place}");
    }
}

#[test]
fn what_is_unallocated_is_only_skipped_when_that_is_asked_for_and_told() {
    let scene = Scene::with_disks(&[8 * MIB]);
    scene.vm.disk(0).write(3 * MIB, &noise(1, 1 << 20));
    let read = |more: &[&str]| {
        disk(&scene.back_up_well(&[&["--full"], more].concat()), "scsi0-0")["readBytes"].as_u64()
    };
    assert_eq!(read(&[]), Some(8 * MIB));
    assert_eq!(read(&["--skip-unallocated"]), Some(MIB));
    for answer in [Allocated::Fault, Allocated::Everything] {
        scene.vcenter.set_allocated(answer);
        assert_eq!(read(&["--skip-unallocated"]), Some(8 * MIB), "{answer:?}");
        scene.restores("scsi0-0", 0);
    }
}

#[test]
fn servers_that_are_not_trusted_and_users_that_are_not_known() {
    let scene = Scene::with_disks(&[MIB]);
    let place = scene.place();
    let wrong = "00:".repeat(31) + "07";
    std::fs::create_dir(scene.world.path("others")).unwrap();
    let others = Certificates::make_in(&scene.world.path("others"));
    let other_ca = others.ca_file().display().to_string();
    let ca = scene.vcenter.ca_file().display().to_string();
    scene.world.write("wrong-password", b"s3cret-but-wrong");
    let user = ["--vsphere-user", keepstone_peers::vcenter::USER];
    let nobody = ["--vsphere-user", "nobody@vsphere.local"];
    let password = ["--vsphere-password-file", "vcenter-password"];
    let wrong_password = ["--vsphere-password-file", "wrong-password"];
    let thumbprint = ["--vsphere-thumbprint", scene.vcenter.thumbprint()];
    let cases = [
        (
            vec![user, password, ["--vsphere-thumbprint", &wrong]],
            1,
            "is not the server that is trusted",
            "if the certificate was renewed, ask who runs the server for the new thumbprint",
        ),
        (
            vec![user, password, ["--vsphere-ca", &other_ca]],
            1,
            "no trusted connection to 127.0.0.1",
            "give the authority of the server's certificate with --vsphere-ca",
        ),
        (
            vec![user, password],
            1,
            "no trusted connection to 127.0.0.1",
            "or its thumbprint with --vsphere-thumbprint",
        ),
        (
            vec![user, password, ["--vsphere-ca", "nowhere.pem"]],
            1,
            "nowhere.pem",
            "check the file of --vsphere-ca",
        ),
        (
            vec![user, wrong_password, thumbprint],
            1,
            "does not accept the user \"backup@vsphere.local\" with this password",
            "check --vsphere-user and where its password comes from",
        ),
        (
            vec![nobody, password, thumbprint],
            1,
            "does not accept the user \"nobody@vsphere.local\" with this password",
            "check --vsphere-user",
        ),
        (vec![password, thumbprint], 2, "no user was named for 127.0.0.1", "name it with --vsphere-user"),
        (
            vec![user, ["--vsphere-password-file", "nowhere"], thumbprint],
            1,
            "there is no password of backup@vsphere.local at 127.0.0.1",
            "",
        ),
    ];
    for command in [&["backup"][..], &["vsphere", "check"]] {
        for (arguments, code, told, hint) in &cases {
            let all = [command, &[place.as_str()], &arguments.concat()[..]].concat();
            let ended = scene.world.run(&all);
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(*code), ""), "{ended:?}");
            assert!(ended.stderr.contains(told) && ended.stderr.contains(hint), "{told}: {ended:?}");
            assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
            scene.is_clean();
        }
        let all = [command, &[place.as_str()], &[user, password, ["--vsphere-ca", &ca]].concat()].concat();
        let ended = scene.world.run(&all);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        scene.is_clean();
    }
}

#[test]
fn addresses_that_name_no_vm() {
    let scene = Scene::with_disks(&[MIB]);
    let host = scene.vcenter.host();
    let example = "as in vsphere://vcenter.example.com/Datacenter/vm/Folder/NAME";
    let lists = "`govc find / -type m` lists them";
    let cases = [
        (format!("vsphere://{host}/DC/vm/nobody"), 1, "there is no virtual machine DC/vm/nobody", lists),
        (format!("vsphere://{host}/DC2/vm/web"), 1, "there is no virtual machine DC2/vm/web", lists),
        (format!("vsphere://{host}/DC/vm"), 2, "it names no virtual machine", example),
        (
            format!("vsphere://{host}/?uuid=420a1b2c-0000-0000-0000-93a4b5c6d7e8"),
            1,
            "with the instance UUID 420a1b2c-0000-0000-0000-93a4b5c6d7e8",
            lists,
        ),
        (
            format!("vsphere://{host}/?uuid=7"),
            2,
            "the UUID does not consist of 32 hexadecimal digits",
            example,
        ),
        (format!("vsphere://{host}"), 2, "it names no virtual machine", example),
        (format!("vsphere://{host}/DC/host/web"), 2, "there is no /vm/ between", example),
        (format!("vsphere://{host}/DC/vm/%zz"), 2, "not percent-encoded UTF-8", example),
        ("vsphere:///DC/vm/web".to_owned(), 2, "there is no host behind vsphere://", example),
        ("vsphere:DC/vm/web".to_owned(), 2, "it does not begin with vsphere://", example),
        ("vsphere://127.0.0.1:0/DC/vm/web".to_owned(), 2, "the port is no number from 1 to 65535", example),
        (
            "vsphere://127.0.0.1:1/DC/vm/web".to_owned(),
            1,
            "no answer from 127.0.0.1:1",
            "check the host and the port",
        ),
        (
            format!("vsphere://backup:s3cret@{host}/DC/vm/web"),
            2,
            "there is a password in it, which would be seen by others",
            example,
        ),
        (format!("vsphere://backup:s3cret%zz@{host}/DC"), 2, "there is a password in it", example),
    ];
    std::thread::scope(|threads| {
        for (place, code, told, hint) in &cases {
            let scene = &scene;
            threads.spawn(move || {
                let ended = Ended::of(scene.command_at(place, &["backup"], &FOLDER).output());
                assert_eq!((ended.code, ended.stdout.as_str()), (Some(*code), ""), "{place}: {ended:?}");
                assert!(ended.stderr.contains(told) && ended.stderr.contains(hint), "{place}: {ended:?}");
                assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
            });
        }
    });
    scene.is_clean();
}

#[test]
fn options_that_do_not_go_with_a_vm() {
    let scene = Scene::with_disks(&[MIB]);
    scene.world.write("disk.raw", &[0; 4096]);
    let place = scene.place();
    let keyed = format!("a={place}");
    let secret = "a=vsphere://backup:s3cret@host/DC/vm/web";
    let cases: [(&[&str], &str); 8] = [
        (&["--vm", "web", "--disk", &keyed], "a VM in vSphere is no single disk"),
        (&["--vm", "web", "--disk", secret], "a VM in vSphere is no single disk"),
        (&[&place, "--vm", "web", "--bitmap", "b0"], "vSphere itself tells the changes of its disks"),
        (&[&place, "--vm", "web", "--changes", "disk.raw"], "vSphere itself tells the changes of its disks"),
        (&["disk.raw", "--vm", "web", "--quiesce", "off"], "--quiesce is only for a VM in vSphere"),
        (
            &["disk.raw", "--vm", "web", "--exclude-disk", "scsi0:1"],
            "--exclude-disk is only for a VM in vSphere",
        ),
        (
            &["disk.raw", "--vm", "web", "--skip-unallocated"],
            "--skip-unallocated is only for a VM in vSphere",
        ),
        (&[&place, "--transport", "san"], "no way to read a disk: hotadd, nbd, folder and auto are"),
    ];
    for (arguments, told) in cases {
        let ended = scene.world.run(&[&["backup"], arguments].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains(told), "{told}: {ended:?}");
        assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
    }
    assert_eq!(scene.vcenter.calls(), []);
    // What fails before the VM is looked at ends the session too.
    let wrong = scene.command(&["backup"], &["--password-file", "vcenter-password"]).output();
    let wrong = Ended::of(wrong);
    assert!(wrong.code != Some(0), "{wrong:?}");
    assert!(!wrong.stderr.contains(PASSWORD), "{wrong:?}");
    scene.is_clean();
}

#[test]
fn a_name_that_the_repository_cannot_have_is_asked_for() {
    let scene = Scene::with_disks(&[MIB]);
    let name = "web\tserver";
    scene.vm.rename(name);
    scene.set_path("DC/vm/web%09server");
    let ended = scene.run(&FOLDER);
    scene.is_clean();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("cannot be a VM's name in the repository")
            && ended.stderr.contains("name it with --vm NAME"),
        "{ended:?}"
    );
    scene.back_up_well(&["--vm", "web"]);
}
