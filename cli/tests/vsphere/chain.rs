//! Chains of backups of a VM.

use crate::scene::{BLOCK, History, MIB, Scene, disk};
use crate::world::noise;
use keepstone_peers::vcenter::Power;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn a_vm_is_backed_up_with_all_its_disks_and_only_changes_are_read_from_then_on() {
    let scene = Scene::with_disks(&[48 * MIB, 16 * MIB]);
    scene.vm.disk(0).write(3 * MIB, &noise(1, 5 << 20));
    scene.vm.disk(1).write(MIB, &noise(2, 100_000));
    let report = scene.back_up_well(&[]);
    assert_eq!(report["vm"], "web");
    assert_eq!(report["vsphere"]["consistency"], "quiesced");
    assert_eq!(report["vsphere"]["transports"], json!({"scsi0-0": "folder", "scsi0-1": "folder"}));
    let modes: Vec<_> = report["disks"].as_array().unwrap().iter().map(|disk| &disk["mode"]).collect();
    assert_eq!(modes, ["full", "full"]);
    scene.restores("scsi0-0", 0);
    scene.restores("scsi0-1", 1);
    for round in 0..3u8 {
        scene.vm.disk(0).write(u64::from(round) * 10 * MIB + 12_345, &noise(u64::from(round) + 10, 70_000));
        scene.vm.disk(1).discard(MIB, 65_536);
        let report = scene.back_up_well(&[]);
        let disks = report["disks"].as_array().unwrap();
        assert_eq!(disks[0]["mode"], "incremental");
        assert_eq!(disks[0]["changedBytes"], 2 * BLOCK);
        scene.restores("scsi0-0", 0);
        scene.restores("scsi0-1", 1);
    }
}

/// Numbers by `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What happens to a VM between two backups, and what the next one should make of it.
struct Life<'s> {
    scene: &'s Scene,
    random: Random,
    sizes: Vec<u64>,
    /// The blocks of each disk that were written to since the last backup.
    changed: Vec<BTreeSet<u64>>,
    power: Power,
    build: u64,
    build_changed: bool,
}

impl Life<'_> {
    fn write(&mut self) {
        let number = usize::try_from(self.random.below(self.sizes.len() as u64)).unwrap();
        let disk = self.scene.vm.disk(number);
        let start = self.random.below(self.sizes[number] / 512) * 512;
        let len = (self.random.below(300) + 1) * 512;
        let len = len.min(self.sizes[number] - start);
        if self.random.below(4) == 0 {
            disk.discard(start, len);
        } else {
            let seed = self.random.below(1 << 40);
            disk.write(start, &noise(seed, usize::try_from(len).unwrap()));
        }
        self.changed[number].extend(start / BLOCK..(start + len).div_ceil(BLOCK));
    }

    fn event(&mut self, round: u64) {
        match self.random.below(6) {
            0 => {
                let name = format!("before the upgrade {round}");
                self.scene.vm.create_foreign_snapshot(&name);
                self.write();
                self.scene.vm.remove_snapshot(&name);
            }
            1 => {
                let powers = [Power::On, Power::Off, Power::Suspended];
                self.power = powers[usize::try_from(self.random.below(3)).unwrap()];
                self.scene.vm.set_power(self.power);
            }
            2 => {
                let name = format!("web {round}");
                self.scene.vm.rename(&name);
                self.scene.set_path(&format!("DC/vm/web%20{round}"));
            }
            3 => {
                let disk = self.scene.vm.disk(0);
                disk.move_to(&format!("datastore{round}"), &format!("web {round}/web.vmdk"));
            }
            4 => {
                self.build += 1;
                self.build_changed = true;
                self.scene.vcenter.set_build(&self.build.to_string());
            }
            _ => {}
        }
    }

    fn check(&mut self, (code, report): &(i32, Value)) {
        assert_eq!(*code, if self.build_changed { 4 } else { 0 }, "{report}");
        for (number, changed) in self.changed.iter_mut().enumerate() {
            let told = disk(report, &format!("scsi0-{number}"));
            if self.build_changed {
                let why = told["fullReason"].as_str().unwrap();
                assert!(why.starts_with("the build of the host is "), "{why}");
                assert_eq!(told["changedBytes"], self.sizes[number]);
            } else {
                assert_eq!(told["mode"], "incremental", "{report}");
                assert_eq!(told["changedBytes"], changed.len() as u64 * BLOCK, "{report}");
                // Chunks are 64 KiB at most, so each change makes little more than itself read: a few of them.
                let read = told["readBytes"].as_u64().unwrap();
                let bound = changed.len() as u64 * (BLOCK + 4 * 128 * 1024);
                assert!(read >= changed.len() as u64 * BLOCK && read <= bound, "{report}");
            }
            changed.clear();
        }
        self.build_changed = false;
        let consistency = match self.power {
            Power::On => "quiesced",
            Power::Off => "powered-off",
            Power::Suspended => "suspended",
        };
        assert_eq!(report["vsphere"]["consistency"], consistency);
    }
}

/// Lives through some rounds with a backup at the end of each.
fn live(seed: u64, rounds: u64, way: &[&str]) {
    let sizes = vec![17 * MIB, 2 * MIB, 5 * MIB];
    let scene = Scene::with_disks(&sizes);
    if !way.contains(&"folder") {
        scene.add_proxy();
    }
    let keys = ["scsi0-0", "scsi0-1", "scsi0-2"];
    let mut history = History::default();
    let mut life = Life {
        scene: &scene,
        random: Random(seed),
        changed: vec![BTreeSet::new(); sizes.len()],
        sizes,
        power: Power::On,
        build: 100,
        build_changed: false,
    };
    (0..10).for_each(|_| life.write());
    life.changed.iter_mut().for_each(BTreeSet::clear);
    let arguments = [way, &["--vm", "web"]].concat();
    let (code, report) = scene.back_up_by(&arguments);
    assert_eq!(code, 0, "{report}");
    history.add(&scene, &report, &keys);
    for round in 0..rounds {
        for _ in 0..life.random.below(6) {
            life.write();
        }
        life.event(round);
        let backed_up = scene.back_up_by(&arguments);
        life.check(&backed_up);
        history.add(&scene, &backed_up.1, &keys);
    }
    history.all_restore(&scene);
    assert_eq!(scene.world.run(&["verify", "--read-data"]).code, Some(0));
}

#[test]
fn whatever_a_vm_lives_through_every_backup_restores_and_reads_only_what_changed() {
    std::thread::scope(|threads| {
        for seed in 1..=2 {
            threads.spawn(move || live(seed, 7, &["--transport", "folder"]));
            threads
                .spawn(move || live(seed + 10, 7, &["--transport", "hotadd", "--proxy-vm", "backup/proxy"]));
        }
    });
}

#[test]
fn pages_of_few_extents_are_put_together() {
    let scene = Scene::with_disks(&[20 * MIB]);
    scene.vm.disk(0).write(0, &noise(1, 20 << 20));
    scene.back_up_well(&[]);
    scene.vcenter.set_extents_max(3);
    let blocks: Vec<u64> = (0..20 * MIB / BLOCK).step_by(7).collect();
    for block in &blocks {
        scene.vm.disk(0).write(block * BLOCK, &noise(*block, 512));
    }
    let before = scene.vcenter.count("QueryChangedDiskAreas");
    let report = scene.back_up_well(&[]);
    assert_eq!(scene.vcenter.count("QueryChangedDiskAreas") - before, blocks.len().div_ceil(3));
    assert_eq!(disk(&report, "scsi0-0")["changedBytes"], blocks.len() as u64 * BLOCK);
    scene.restores("scsi0-0", 0);
}

#[test]
fn a_disk_on_another_unit_is_another_disk_whose_chunks_are_known() {
    let scene = Scene::with_disks(&[4 * MIB, MIB]);
    scene.vm.disk(0).write(0, &noise(1, 4 << 20));
    scene.back_up_well(&[]);
    scene.vm.disk(0).set_unit(5);
    let report = scene.back_up_well(&[]);
    let moved = disk(&report, "scsi0-5");
    assert_eq!(
        (&moved["mode"], &moved["fullReason"]),
        (&json!("full"), &json!("there is no earlier snapshot of this disk"))
    );
    assert_eq!(disk(&report, "scsi0-1")["mode"], "incremental");
    assert_eq!(report["newBytes"], 0);
    scene.restores("scsi0-5", 0);
    // Another disk takes its place: the old one's changes are none of its own.
    let _added = scene.vm.add_disk(&keepstone_peers::vcenter::DiskSpec {
        unit: Some(0),
        ..keepstone_peers::vcenter::DiskSpec::of(4 * MIB)
    });
    let report = scene.back_up_well(&[]);
    assert_eq!(disk(&report, "scsi0-0")["mode"], "full");
    assert_eq!(scene.restored("web@latest", "scsi0-0"), vec![0; 4 << 20]);
}

#[test]
fn another_disk_in_the_place_of_one_is_read_in_full() {
    let scene = Scene::with_disks(&[2 * MIB, MIB]);
    scene.vm.disk(1).write(0, &noise(1, 1 << 20));
    scene.back_up_well(&[]);
    scene.vm.disk(1).remove();
    let other =
        keepstone_peers::vcenter::DiskSpec { unit: Some(1), ..keepstone_peers::vcenter::DiskSpec::of(MIB) };
    scene.vm.add_disk(&other).write(5 * BLOCK, &noise(2, 1000));
    let (code, report) = scene.back_up(&[]);
    assert_eq!(
        (code, &disk(&report, "scsi0-1")["fullReason"]),
        (4, &json!("it is another disk than at the last snapshot"))
    );
    scene.restores("scsi0-1", 1);
    assert_eq!(disk(&scene.back_up_well(&[]), "scsi0-1")["mode"], "incremental");
}

#[test]
fn the_vm_is_found_by_its_instance_uuid_after_it_was_renamed_and_moved() {
    let scene = Scene::with_disks(&[MIB]);
    scene.vm.disk(0).write(0, &noise(1, 1 << 20));
    scene.back_up_well(&["--vm", "server"]);
    scene.vm.rename("web/2 (old)");
    scene.vm.move_to_folder("DC/vm/prod/old");
    scene.set_path(&format!("?uuid={}", scene.vm.instance_uuid()));
    assert_eq!(disk(&scene.back_up_well(&["--vm", "server"]), "scsi0-0")["mode"], "incremental");
    // Without --vm it is backed up under its new name.
    let report = scene.back_up_well(&[]);
    assert_eq!((&report["vm"], &disk(&report, "scsi0-0")["mode"]), (&json!("web/2 (old)"), &json!("full")));
    scene.set_path("DC/vm/prod/old/web%2f2%20(old)");
    assert_eq!(scene.back_up_well(&[])["vm"], "web/2 (old)");
}

#[test]
fn the_configuration_of_the_vm_is_kept_beside_its_disks() {
    let scene = Scene::with_disks(&[MIB, MIB]);
    scene.back_up_well(&["--exclude-disk", "scsi0:1"]);
    let shown = scene.world.report(&["show", "web@latest"]);
    let text = shown.to_string();
    for expected in [
        "vsphere.configuration",
        "vsphere.consistency",
        "vsphere.vm",
        "vsphere.host-build",
        "vsphere.left-out",
    ] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
    assert!(text.contains(&scene.vm.instance_uuid()) && text.contains("ubuntu64Guest"), "{text}");
    assert!(text.contains(&scene.vm.disk(0).uuid()) && !text.contains(&scene.vm.disk(1).uuid()), "{text}");
}
