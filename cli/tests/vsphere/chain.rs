//! Chains of backups of a VM.

use crate::scene::Scene;
use crate::world::noise;
use serde_json::json;

const MIB: u64 = 1 << 20;

#[test]
fn a_vm_is_backed_up_with_all_its_disks_and_only_changes_are_read_from_then_on() {
    let scene = Scene::with_disks(&[48 * MIB, 16 * MIB]);
    scene.vm.disk(0).write(3 * MIB, &noise(1, 5 << 20));
    scene.vm.disk(1).write(MIB, &noise(2, 100_000));
    let (code, report) = scene.back_up(&[]);
    assert_eq!(code, 0, "{report}");
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
        let (code, report) = scene.back_up(&[]);
        assert_eq!(code, 0, "{report}");
        let disks = report["disks"].as_array().unwrap();
        assert_eq!(disks[0]["mode"], "incremental");
        assert_eq!(disks[0]["changedBytes"], 2 * 65_536);
        scene.restores("scsi0-0", 0);
        scene.restores("scsi0-1", 1);
    }
}
