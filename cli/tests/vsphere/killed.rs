//! Backups that are killed (SIGKILL) at any call: the next one finds out, cleans up, and is right.

use crate::scene::{BLOCK, FOLDER, History, MIB, Scene, kill};
use crate::world::{Ended, noise};
use std::time::Duration;

/// Kills a backup, and lets its session end as time does.
fn killed_at(scene: &Scene, at: (&str, u64), more: &[&str]) -> bool {
    let (ended, was) = scene.run_and_at(at, kill, &[&FOLDER, more].concat());
    assert_eq!(ended.code.is_none(), was, "{ended:?}");
    scene.clear_away();
    was
}

#[test]
fn at_every_single_call_and_the_next_backup_cleans_up() {
    let scene = Scene::with_disks(&[3 * MIB, MIB]);
    scene.vm.create_foreign_snapshot("theirs");
    scene.vm.remove_snapshot("theirs");
    scene.vm.disk(0).write(0, &noise(1, 3 << 20));
    let keys = ["scsi0-0", "scsi0-1"];
    let mut history = History::default();
    scene.back_up_well(&[]);
    history.note(&scene, &keys);
    scene.vm.disk(0).write(0, &noise(2, 512));
    let calls = scene.calls_of(&FOLDER);
    history.note(&scene, &keys);
    let (mut kills, mut committed) = (0, 0);
    for (method, count) in calls {
        for nth in 1..=count {
            let seed = kills + 100;
            scene.vm.disk(0).write(seed % 40 * BLOCK, &noise(seed, 700));
            kills += u64::from(killed_at(&scene, (&method, nth), &[]));
            // What was left is removed before another one is made.
            assert!(scene.ours().len() <= 1, "{:?}", scene.ours());
            committed += history.note(&scene, &keys);
            assert_eq!(scene.vcenter.violations(), []);
        }
    }
    assert!(kills > 20, "only {kills} were killed");
    assert!(committed > 0 && (committed as u64) < kills, "{committed} of {kills} had committed");
    let report = scene.back_up_well(&[]);
    assert_eq!(report["disks"][0]["mode"], "incremental");
    assert_eq!(history.note(&scene, &keys), 1);
    history.all_restore(&scene);
}

#[test]
fn what_is_removed_is_told_and_snapshots_of_others_stay() {
    let scene = Scene::with_disks(&[MIB]);
    scene.add_proxy();
    let hotadd = ["--transport", "hotadd", "--proxy-vm", "backup/proxy"];
    scene.vm.create_foreign_snapshot("before the upgrade");
    scene.vm.create_foreign_snapshot("keepstone of somebody else");
    let (ended, was) = scene.run_and_at(("QueryChangedDiskAreas", 1), kill, &hotadd);
    assert!(!was, "the first backup asks for no changes: {ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    scene.vm.disk(0).write(0, &noise(1, 512));
    let (_, was) = scene.run_and_at(("QueryChangedDiskAreas", 1), kill, &hotadd);
    assert!(was);
    scene.clear_away();
    let left = scene.vm.snapshot_names();
    assert_eq!(left.len(), 3);
    let ended = scene.run(&hotadd);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("detached what an earlier backup left attached to the proxy: 1 disk\n"),
        "{ended:?}"
    );
    let told = format!("removed what earlier backups left behind: snapshot {}", left[2]);
    assert!(ended.stderr.contains(&told), "{ended:?}");
    assert_eq!(scene.vm.snapshot_names(), ["before the upgrade", "keepstone of somebody else"]);
    assert_eq!(scene.vcenter.violations(), []);
    scene.restores("scsi0-0", 0);
}

/// A backup by a host with another cache, so that it knows nothing of what this one did.
fn elsewhere(scene: &Scene, more: &[&str]) -> Ended {
    let ended = scene.run(&[&FOLDER, &["--cache-dir", "elsewhere"], more].concat());
    assert_eq!(scene.vcenter.violations(), []);
    ended
}

#[test]
fn what_another_host_may_be_reading_is_left_to_it_unless_it_is_old_or_taken_over() {
    let scene = Scene::with_disks(&[MIB]);
    scene.back_up_well(&[]);
    for way_out in ["take over", "old", "at home"] {
        scene.vm.disk(0).write(0, &noise(way_out.len() as u64, 512));
        assert!(killed_at(&scene, ("CreateSnapshot_Task", 1), &[]));
        let left = scene.ours();
        assert_eq!(left.len(), 1);
        let refused = elsewhere(&scene, &[]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let expected =
            format!("another host may be backing up this virtual machine: it has the snapshot {:?}", left[0]);
        assert!(refused.stderr.contains(&expected) && refused.stderr.contains("--take-over"), "{refused:?}");
        assert_eq!(scene.ours(), left);
        match way_out {
            "take over" => assert_eq!(elsewhere(&scene, &["--take-over"]).code, Some(0)),
            "old" => {
                scene.vm.set_snapshot_age(&left[0], Duration::from_hours(23));
                assert_eq!(elsewhere(&scene, &[]).code, Some(1));
                scene.vm.set_snapshot_age(&left[0], Duration::from_hours(25));
                assert_eq!(elsewhere(&scene, &[]).code, Some(0));
            }
            _ => drop(scene.back_up_well(&[])),
        }
        scene.is_clean();
        scene.restores("scsi0-0", 0);
    }
    // Another job's snapshot is no leftover of this one, whoever's it is.
    let name = "keepstone 00000000 other-host 01234567";
    scene.vm.create_foreign_snapshot(name);
    let (ended, _) = scene.run_and_at(("never", 1), kill, &["--transport", "auto"]);
    assert_eq!(ended.code, Some(1), "a delta disk has no file of its own: {ended:?}");
    assert_eq!(scene.vm.snapshot_names(), [name]);
    assert_eq!(scene.vcenter.violations(), []);
}
