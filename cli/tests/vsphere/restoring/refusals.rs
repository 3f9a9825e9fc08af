//! What is no disk to restore to is refused before anything is touched.

use super::{HOTADD, MIB, RESTORE, Restoring, SIZE};
use crate::scene::{Scene, disks};
use crate::world::Ended;
use keepstone_peers::vcenter::{ControllerKind, ControllerSpec, DiskKind, DiskMode, DiskSpec, Power, VmSpec};

/// A run that changes nothing and says why.
fn refused(scene: &Scene, arguments: &[&str], told: &str, hint: &str) {
    let changing = || {
        ["ReconfigVM_Task", "CreateSnapshot_Task", "PowerOffVM_Task", "RemoveSnapshot_Task"]
            .map(|method| scene.vcenter.count(method))
    };
    let before = (changing(), scene.vm.disk(0).bytes());
    let ended = Ended::of(scene.command(&RESTORE, arguments).output());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains(told), "{told}: {ended:?}");
    assert!(ended.stderr.contains(hint), "{hint}: {ended:?}");
    assert_eq!((changing(), scene.vm.disk(0).bytes()), before, "{told}");
    assert_eq!(scene.vcenter.violations(), []);
}

/// The arguments of a restore that may write over a disk.
fn with(more: &[&'static str]) -> Vec<&'static str> {
    [&HOTADD[..], &["--overwrite"], more].concat()
}

#[test]
fn a_vm_in_a_state_in_which_its_disks_must_not_be_written() {
    let restoring = Restoring::new();
    let (scene, vm) = (&restoring.scene, &restoring.scene.vm);
    let unfit = "this virtual machine's disk cannot be restored: ";
    vm.set_power(Power::On);
    let hint = "shut it down; --force switches it off without asking its guest";
    refused(scene, &with(&[]), &format!("{unfit}it runs"), hint);
    vm.set_power(Power::Suspended);
    let hint = "power it off and lose its memory";
    refused(scene, &with(&["--force"]), &format!("{unfit}it is suspended"), hint);
    vm.set_power(Power::Off);
    vm.set_connected(false);
    refused(scene, &with(&["--force"]), "vCenter says it is disconnected", "look at the VM's host");
    vm.set_connected(true);

    let told = "it has no disk scsi0-7; its disks are: scsi0-0, scsi0-1";
    refused(scene, &with(&["--to-disk", "scsi0-7"]), told, "name one of them with --to-disk");
    let told = format!("disk scsi0-1 has {MIB} bytes, and the disk to be restored has {SIZE}");
    refused(scene, &with(&["--to-disk", "scsi0-1"]), &told, "make the VM's disk larger");

    vm.create_foreign_snapshot("before the upgrade");
    vm.create_leftover_snapshot("keepstone 00000000 other 01234567");
    let told =
        "it has snapshots, which stand on the disk: before the upgrade, keepstone 00000000 other 01234567";
    refused(scene, &with(&["--force"]), told, "remove or consolidate them in vCenter");
    vm.remove_snapshot("keepstone 00000000 other 01234567");
    vm.remove_snapshot("before the upgrade");
    // All that stood against it is gone.
    restoring.restores(&[]);
}

#[test]
fn a_way_that_cannot_be_gone() {
    let restoring = Restoring::new();
    let (scene, proxy) = (&restoring.scene, &restoring.proxy);
    let folder = ["--transport", "folder", "--overwrite"];
    refused(scene, &folder, "disks cannot be written by folder", "leave --transport out, or use hotadd");
    let nowhere = ["--transport", "hotadd", "--proxy-vm", "nowhere", "--overwrite"];
    refused(scene, &nowhere, "there is no virtual machine nowhere to attach disks to", "--proxy-vm names it");
    let itself = ["--proxy-vm", "web", "--overwrite"];
    refused(scene, &itself, "web cannot attach its own disks", "");
    proxy.create_foreign_snapshot("theirs");
    refused(scene, &with(&[]), "no disk can be attached to proxy, which has snapshots: theirs", "");
    proxy.remove_snapshot("theirs");
    for privilege in ["VirtualMachine.Config.ChangeTracking", "VirtualMachine.State.CreateSnapshot"] {
        scene.vcenter.deny(privilege);
        let told = format!("the user lacks privileges: {privilege}");
        refused(scene, &with(&[]), &told, "docs/vmware.md lists the privileges");
        scene.vcenter.allow(privilege);
    }
    scene.vm.set_power(Power::On);
    scene.vcenter.deny("VirtualMachine.Interact.PowerOff");
    let told = "the user lacks privileges: VirtualMachine.Interact.PowerOff";
    refused(scene, &with(&["--force"]), told, "docs/vmware.md lists the privileges");
    assert_eq!(scene.vm.power(), Power::On);
}

#[test]
fn a_disk_that_cannot_be_written_from_outside() {
    let pvscsi = |bus_sharing| ControllerSpec { kind: ControllerKind::ParaVirtualScsi, bus_sharing };
    let of = |change: &dyn Fn(&mut DiskSpec)| {
        let mut spec = DiskSpec::of(SIZE);
        change(&mut spec);
        spec
    };
    let cases = [
        (of(&|disk| disk.kind = DiskKind::PhysicalMapping), "disk scsi0-1 is a raw device (RDM)"),
        (of(&|disk| disk.kind = DiskKind::VirtualMapping), "disk scsi0-1 is a raw device (RDM)"),
        (of(&|disk| disk.mode = DiskMode::IndependentNonpersistent), "disk scsi0-1 is nonpersistent"),
        (of(&|disk| disk.multi_writer = true), "disk scsi0-1 may be written to by other virtual machines"),
        (of(&|disk| disk.controller = 1), "disk scsi1-0 may be written to by other virtual machines"),
    ];
    let restoring = Restoring::new();
    for (number, (disk, told)) in cases.into_iter().enumerate() {
        let key = if disk.controller == 1 { "scsi1-0" } else { "scsi0-1" };
        let spec = VmSpec {
            disks: vec![DiskSpec::of(MIB), disk],
            controllers: vec![pvscsi(false), pvscsi(true)],
            power: Power::Off,
            ..VmSpec::default()
        };
        let path = format!("DC/vm/odd{number}");
        let _odd = restoring.scene.vcenter.add_vm(&path, &spec);
        restoring.scene.set_path(&path);
        refused(&restoring.scene, &with(&["--to-disk", key]), told, "restore to another disk with --to-disk");
    }
    // Snapshots and change tracking pass this one by, and nothing else is wrong with it.
    let mut independent = DiskSpec::of(SIZE);
    independent.mode = DiskMode::IndependentPersistent;
    let spec = VmSpec { disks: vec![independent], power: Power::Off, ..VmSpec::default() };
    let vm = restoring.scene.vcenter.add_vm("DC/vm/independent", &spec);
    restoring.scene.set_path("DC/vm/independent");
    assert_eq!(restoring.run(&[]).code, Some(0));
    crate::scene::same_bytes(&vm.disk(0).bytes(), &restoring.backed_up);
}

#[test]
fn what_cannot_be_meant() {
    let scene = Scene::with_vm(&VmSpec { disks: disks(&[MIB]), ..VmSpec::default() });
    let usage = |arguments: &[&str], told: &str, hint: &str| {
        let ended = scene.world.run(arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(told) && ended.stderr.contains(hint), "{ended:?}");
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    };
    let to = |place: &'static str| ["restore", "web@latest", "--to", place];
    usage(&to("vsphere://vc/DC/vm/web"), "what is on the disk of the VM would be lost", "add --overwrite");
    usage(
        &to("vsphere://me:hunter2@vc/DC/vm/web"),
        "there is a password in it",
        "vsphere://vcenter.example.com",
    );
    usage(&[&to("web.img")[..], &["--force"]].concat(), "--force is only for a VM in vSphere", "");
    usage(&[&to("-")[..], &["--to-disk", "scsi0-0"]].concat(), "--to-disk is only for a VM in vSphere", "");
    let tracked = ["--in-place", "--disk", "scsi0-0"];
    for told in [&["--changes", "no-such-file"][..], &["--bitmap", "b0", "--since", "web@latest"]] {
        let arguments = [&to("vsphere://vc/DC/vm/web")[..], &tracked, told].concat();
        usage(
            &arguments,
            "vSphere itself tells the changes of its disks",
            "leave --changes and --bitmap out",
        );
    }
    assert_eq!(scene.vcenter.calls().len(), 0);
}

#[test]
fn a_vm_whose_changes_somebody_tracks_anew_is_left_alone() {
    let restoring = Restoring::new();
    let vm = restoring.scene.vm.clone();
    let before = vm.disk(0).bytes();
    // When the disk is attached: its tracking would not see what is written from there.
    let track = move |_| vm.set_change_tracking(true);
    let (ended, was) =
        restoring.scene.run_command_and_at(&RESTORE, ("ReconfigVM_Task", 2), track, &with(&[]));
    assert!(was);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("somebody switched changed block tracking on meanwhile"), "{ended:?}");
    assert!(restoring.scene.vm.disk(0).bytes() == before, "something was written");
    restoring.gave_back();
}
