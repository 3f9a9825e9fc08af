//! Restores onto disks of VMs: what was backed up is there again, and the next backup knows that it is.

mod faults;
mod nbd;
mod new_disk;
mod refusals;
mod tracked;

use crate::scene::{BLOCK, MIB, Scene, disk, disks, interrupt, same_bytes};
use crate::world::{Ended, noise};
use keepstone_peers::vcenter::{ChangeTracking, DiskSpec, Power, Vm, VmSpec};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// By the proxy.
const HOTADD: [&str; 4] = ["--transport", "hotadd", "--proxy-vm", "DC/vm/backup/proxy"];
/// The first disk of the newest snapshot.
const RESTORE: [&str; 5] = ["restore", "web@latest", "--disk", "scsi0-0", "--to"];
/// The disk is larger than what its restore shows last.
const SIZE: u64 = 3 * MIB;

/// A VM with two disks that was backed up and switched off, and a proxy.
struct Restoring {
    scene: Scene,
    proxy: Vm,
    root: PathBuf,
    /// What the first disk held when it was backed up.
    backed_up: Vec<u8>,
}

impl Restoring {
    fn new() -> Self {
        Self::of(&VmSpec { disks: disks(&[SIZE, MIB]), ..VmSpec::default() })
    }

    fn of(spec: &VmSpec) -> Self {
        let scene = Scene::with_vm(spec);
        scene.vm.disk(0).write(0, &noise(1, 2 << 20));
        let (proxy, root) = scene.add_proxy();
        let (code, report) = scene.back_up_by(&HOTADD);
        assert!(matches!(code, 0 | 4), "{report}");
        let backed_up = scene.vm.disk(0).bytes();
        let restoring = Self { scene, proxy, root, backed_up };
        restoring.change();
        restoring.scene.vm.set_power(Power::Off);
        restoring
    }

    /// Writes to the disk, everywhere.
    fn change(&self) {
        let disk = self.scene.vm.disk(0);
        disk.write(0, &noise(2, 3000));
        disk.write(5 * BLOCK, &noise(3, 100_000));
        disk.write(SIZE - 512, &noise(4, 512));
    }

    fn run(&self, more: &[&str]) -> Ended {
        let arguments = [&HOTADD[..], &["--overwrite"], more].concat();
        Ended::of(self.scene.command(&RESTORE, &arguments).output())
    }

    /// Restores well, and nothing is left.
    fn restores(&self, more: &[&str]) -> serde_json::Value {
        let ended = self.run(more);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        self.is_back();
        ended.json()
    }

    /// The disk is what it was, and nobody else has it.
    fn is_back(&self) {
        self.gave_back();
        same_bytes(&self.scene.vm.disk(0).bytes(), &self.backed_up);
    }

    /// Nothing is left on the vCenter or here, whatever the disk holds.
    fn gave_back(&self) {
        self.scene.is_clean();
        assert_eq!(self.proxy.attached(), [""; 0]);
        assert_eq!(fs::read_dir(self.root.join("dev")).unwrap().count(), 1);
        let left = |name: &str| name.starts_with("restore-");
        let cache = walk(&self.scene.world.path("home"));
        assert!(!cache.iter().any(|name| left(name)), "{cache:?}");
    }

    /// What the disk holds, also while it is still attached.
    fn device_or_disk(&self) -> Vec<u8> {
        let attached = fs::read_dir(self.root.join("dev")).unwrap().map(|entry| entry.unwrap());
        let attached = attached.filter(|entry| entry.file_name() != "sda").map(|entry| entry.path()).next();
        attached.map_or_else(|| self.scene.vm.disk(0).bytes(), |device| fs::read(device).unwrap())
    }

    /// The next backup reads everything, and the one after that what changed.
    fn next_backups_are_right(&self) {
        self.scene.vm.set_power(Power::On);
        let (code, report) = self.scene.back_up_by(&HOTADD);
        assert_eq!(code, 4, "{report}");
        assert_eq!(disk(&report, "scsi0-0")["mode"], "full", "{report}");
        self.scene.restores("scsi0-0", 0);
        self.scene.restores("scsi0-1", 1);
        self.scene.vm.disk(0).write(7 * BLOCK, &noise(9, 512));
        let (code, report) = self.scene.back_up_by(&HOTADD);
        assert_eq!((code, &disk(&report, "scsi0-0")["changedBytes"]), (0, &json!(BLOCK)), "{report}");
        self.scene.restores("scsi0-0", 0);
    }
}

/// The names of all files below a directory.
fn walk(directory: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        names.extend(walk(&entry.path()));
    }
    names
}

#[test]
fn a_disk_is_what_it_was_and_the_next_backups_are_right() {
    let restoring = Restoring::new();
    let report = restoring.restores(&[]);
    let expected = json!({
        "vm": "web", "disk": "scsi0-0", "file": "[datastore1] web/web.vmdk", "transport": "hotadd",
        "newDisk": false, "switchedOff": false, "nextBackupFull": true, "attention": [],
    });
    assert_eq!(report["vsphere"], expected);
    assert!(restoring.scene.vm.change_tracking(), "changes are tracked as before");
    assert_eq!(restoring.scene.vm.power(), Power::Off);
    restoring.next_backups_are_right();
}

/// What the next backup must not miss: the newest one has other bytes where nothing was written since.
#[test]
fn what_an_older_snapshot_brought_back_is_in_the_next_backup_of_this_host_and_of_others() {
    for cache in ["home/.cache", "elsewhere"] {
        let restoring = Restoring::new();
        let scene = &restoring.scene;
        let older = scene.snapshots().pop().unwrap();
        scene.vm.set_power(Power::On);
        let (code, report) = scene.back_up_by(&HOTADD);
        assert_eq!((code, &disk(&report, "scsi0-0")["mode"]), (0, &json!("incremental")), "{report}");
        scene.vm.set_power(Power::Off);
        let command = ["restore", &older, "--disk", "scsi0-0", "--to"];
        let arguments = [&HOTADD[..], &["--overwrite"]].concat();
        let ended = Ended::of(scene.command(&command, &arguments).output());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        restoring.is_back();
        scene.vm.set_power(Power::On);
        // Without an audit, which would find out.
        scene.back_up_by(&[&HOTADD[..], &["--cache-dir", cache, "--audit", "0"]].concat());
        same_bytes(&scene.restored("web@latest", "scsi0-0"), &restoring.backed_up);
    }
}

#[test]
fn a_vm_whose_changes_nobody_tracks_stays_so() {
    for tracking in [ChangeTracking::Off, ChangeTracking::Unsupported] {
        let spec = VmSpec { disks: disks(&[SIZE, MIB]), change_tracking: tracking, ..VmSpec::default() };
        let restoring = Restoring::of(&spec);
        let before = restoring.scene.vcenter.count("CreateSnapshot_Task");
        restoring.restores(&[]);
        // That it is off may not have taken effect.
        let made = restoring.scene.vcenter.count("CreateSnapshot_Task") - before;
        assert_eq!(made, usize::from(tracking == ChangeTracking::Off));
        assert!(!restoring.scene.vm.change_tracking());
    }
}

#[test]
fn tracking_that_was_switched_off_and_still_goes_on_is_ended() {
    let restoring = Restoring::new();
    // Nothing happened since that would let it take effect.
    restoring.scene.vm.set_change_tracking(false);
    assert!(restoring.scene.vm.disk(0).change_id().is_some());
    restoring.restores(&[]);
    restoring.scene.vm.set_change_tracking(true);
    restoring.next_backups_are_right();
}

#[test]
fn another_disk_and_another_vm_can_be_named() {
    let restoring = Restoring::new();
    let other = restoring.scene.vm.add_disk(&DiskSpec::of(SIZE + MIB));
    other.write(SIZE, &noise(6, 1 << 20));
    let ended = restoring.run(&["--to-disk", "scsi0:2"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = "the VM's disk has 4194304 bytes, and the disk to be restored 3145728: what lies behind stays as it is";
    assert!(ended.stderr.contains(told), "{ended:?}");
    restoring.gave_back();
    let expected = [&restoring.backed_up[..], &noise(6, 1 << 20)].concat();
    same_bytes(&other.bytes(), &expected);

    let spec = VmSpec { disks: disks(&[SIZE]), power: Power::Off, ..VmSpec::default() };
    let copy = restoring.scene.vcenter.add_vm("DC/vm/copy", &spec);
    restoring.scene.set_path("DC/vm/copy");
    let ended = restoring.run(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    restoring.gave_back();
    same_bytes(&copy.disk(0).bytes(), &restoring.backed_up);
}

#[test]
fn a_vm_that_runs_is_switched_off_if_that_is_wanted() {
    let restoring = Restoring::new();
    restoring.scene.vm.set_power(Power::On);
    let report = restoring.restores(&["--force"]);
    assert_eq!(report["vsphere"]["switchedOff"], true);
    assert_eq!(restoring.scene.vm.power(), Power::Off);
    restoring.next_backups_are_right();
}

#[test]
fn an_interrupted_restore_gives_the_disk_back_and_can_be_repeated() {
    let restoring = Restoring::new();
    restoring.scene.vcenter.slow_tasks("ReconfigVM_Task", Some(4));
    let arguments = [&HOTADD[..], &["--overwrite"]].concat();
    for nth in [1, 2] {
        let (ended, was) =
            restoring.scene.run_command_and_at(&RESTORE, ("ReconfigVM_Task", nth), interrupt, &arguments);
        assert!(was);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{ended:?}");
        restoring.gave_back();
        assert!(restoring.scene.vm.change_tracking(), "{nth}");
    }
    restoring.scene.vcenter.slow_tasks("ReconfigVM_Task", None);
    restoring.restores(&[]);
    restoring.next_backups_are_right();
}

#[test]
fn a_restore_that_fails_in_the_middle_leaves_a_disk_without_a_beginning() {
    let restoring = Restoring::new();
    let packs = fs::read_dir(restoring.scene.world.path("repo/d/default")).unwrap();
    let pack = packs.map(|entry| entry.unwrap().path()).next().unwrap();
    let whole = fs::read(&pack).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() * 3 / 4] ^= 1;
    replace(&pack, &damaged);
    let ended = restoring.run(&[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    restoring.gave_back();
    let now = restoring.scene.vm.disk(0).bytes();
    assert!(now[..1 << 20].iter().all(|byte| *byte == 0), "its beginning shows");
    assert!(
        ended.stderr.contains("disk scsi0-0 of web holds only a part of what was to be restored"),
        "{ended:?}"
    );
    replace(&pack, &whole);
    restoring.restores(&[]);
    restoring.next_backups_are_right();
}

/// Packs are write-protected.
fn replace(path: &std::path::Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn in_place_only_what_differs_is_written_and_what_was_begun_is_gone_on_with() {
    let restoring = Restoring::new();
    let command = |options: &[&str]| {
        Ended::of(restoring.scene.command(&RESTORE, &[&HOTADD[..], options].concat()).output())
    };
    // Nothing tells that a restore to this disk was begun.
    assert_eq!(command(&["--resume"]).code, Some(2));
    let ended = command(&["--in-place"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    restoring.is_back();
    let report = ended.json();
    assert!(report["writtenBytes"].as_u64().unwrap() < MIB / 2, "{report}");
    assert_eq!(report["vsphere"]["nextBackupFull"], true);

    // As a restore leaves it that ended in the middle.
    let disk = restoring.scene.vm.disk(0);
    disk.write_untracked(0, &vec![0; 1 << 20]);
    let ended = command(&["--resume", "--overwrite"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    restoring.is_back();
    assert!(ended.json()["writtenBytes"].as_u64().unwrap() < MIB + MIB / 2, "{ended:?}");
    // Nothing differs, so nothing is written, and the beginning is never away.
    let ended = command(&["--in-place"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(ended.json()["writtenBytes"], 0, "{ended:?}");
    restoring.is_back();
    restoring.next_backups_are_right();
}
