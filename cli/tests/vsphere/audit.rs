//! What tracking says is checked.

use crate::scene::{BLOCK, FOLDER, MIB, Scene, disk};
use crate::world::noise;
use keepstone_peers::vcenter::Lie;

fn scene() -> Scene {
    let scene = Scene::with_disks(&[40 * MIB]);
    scene.vm.disk(0).write(0, &noise(1, 30 << 20));
    scene.back_up_well(&[]);
    scene
}

#[test]
fn a_complete_audit_of_honest_tracking_stores_nothing_and_the_default_is_half_a_per_cent() {
    let scene = scene();
    let report = scene.back_up_well(&["--audit", "100"]);
    let audit = &disk(&report, "scsi0-0")["audit"];
    assert_eq!(
        (&audit["share"], &audit["regions"], &audit["ofRegions"]),
        (&100.0.into(), &3.into(), &3.into())
    );
    assert_eq!((&audit["auditedBytes"], &audit["mismatches"]), (&(40 * MIB).into(), &serde_json::json!([])));
    assert_eq!(
        (&report["newBytes"], &report["newChunks"], &disk(&report, "scsi0-0")["readBytes"]),
        (&0.into(), &0.into(), &0.into())
    );

    scene.vm.disk(0).write(5 * MIB, &noise(2, 512));
    let report = scene.back_up_well(&["--audit", "100"]);
    assert_eq!(disk(&report, "scsi0-0")["changedBytes"], BLOCK);
    assert!(report["newBytes"].as_u64().unwrap() < 4 * 128 * 1024, "{report}");
    scene.restores("scsi0-0", 0);

    let report = scene.back_up_well(&[]);
    assert_eq!(disk(&report, "scsi0-0")["audit"]["share"], 0.5);
}

#[test]
fn a_change_that_was_kept_secret_is_found_and_stored() {
    let scene = scene();
    let secret: [fn(&Scene); 2] = [
        |scene| {
            scene.vm.disk(0).write(MIB, &noise(3, 512));
            scene.vm.disk(0).write(20 * MIB, &noise(4, 512));
            scene.vm.disk(0).lie(Some(Lie::MissingExtent(1)));
        },
        |scene| scene.vm.disk(0).write_untracked(33 * MIB + 5, &noise(5, 90_000)),
    ];
    for (round, keep) in secret.into_iter().enumerate() {
        keep(&scene);
        let ended = scene.run(&[&FOLDER, &["--audit", "100"][..]].concat());
        scene.is_clean();
        assert_eq!(ended.code, Some(4), "{ended:?}");
        let report = ended.json();
        let told = disk(&report, "scsi0-0");
        assert_eq!(told["mode"], "incremental");
        assert_eq!(told["audit"]["mismatches"].as_array().unwrap().len(), 1, "{report}");
        assert!(
            ended
                .stderr
                .contains("disk scsi0-0 differs from the last snapshot where it was said to be unchanged"),
            "{ended:?}"
        );
        scene.restores("scsi0-0", 0);
        scene.vm.disk(0).lie(None);
        let report = scene.back_up_well(&["--audit", "100"]);
        assert_eq!(report["newBytes"], 0, "round {round}");
    }
}
