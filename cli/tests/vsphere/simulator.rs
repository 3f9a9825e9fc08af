//! The same against govmomi's simulator, which shares no code with the fake.

use crate::scene::same_bytes;
use crate::world::{Ended, World};
use keepstone_peers::vcsim::{Layout, Vcsim};
use serde_json::Value;

const MIB: u64 = 1 << 20;

struct Scene {
    world: World,
    vcsim: Vcsim,
}

impl Scene {
    fn run(&self, command: &[&str], more: &[&str]) -> Ended {
        let place = format!("vsphere://{}/DC0/vm/web", self.vcsim.address());
        let mut all = vec!["--json"];
        all.extend(command);
        all.extend([
            place.as_str(),
            "--vsphere-user",
            self.vcsim.user(),
            "--vsphere-password-file",
            "vcenter-password",
        ]);
        all.extend(["--vsphere-thumbprint", self.vcsim.thumbprint()]);
        all.extend(more);
        self.world.run(&all)
    }

    fn back_up(&self, more: &[&str]) -> Value {
        let ended = self.run(&["backup"], &[&["--transport", "folder"], more].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(self.vcsim.sessions(), 0);
        assert_eq!(self.vcsim.machine("web").snapshots, []);
        self.is_restored();
        ended.json()
    }

    fn is_restored(&self) {
        for (key, name) in [("scsi0-0", "scsi0:0"), ("scsi0-1", "scsi0:1")] {
            let arguments =
                ["-q", "restore", "web@latest", "--disk", key, "--to", "restored.raw", "--overwrite"];
            self.world.run(&arguments).done();
            same_bytes(&self.world.read("restored.raw"), &self.vcsim.contents("web", name));
        }
    }
}

#[test]
fn full_and_incremental_backups_of_the_simulator_restore_bit_exact() {
    let vcsim = Vcsim::start(&Layout { page_extents: 3, ..Layout::of(&[("web", &[40 * MIB, 3 * MIB])]) });
    let world = World::with_repository();
    world.write("vcenter-password", vcsim.password().as_bytes());
    let scene = Scene { world, vcsim };

    let checked = scene.run(&["vsphere", "check"], &["--transport", "folder"]);
    assert_eq!(checked.code, Some(4), "{checked:?}");
    assert!(checked.stdout.contains("changed block tracking (CBT) is off"), "{checked:?}");

    let report = scene.back_up(&["--enable-change-tracking"]);
    assert_eq!(report["disks"][0]["mode"], "full");
    for round in 0..3 {
        for write in 0..5 {
            scene.vcsim.write(
                "web",
                "scsi0:0",
                (round * 5 + write) * MIB * 2 + 4096,
                70_000,
                Some(round * 5 + write),
            );
        }
        scene.vcsim.write("web", "scsi0:1", MIB, 65_536, None);
        let report = scene.back_up(&[]);
        assert_eq!(report["disks"][0]["mode"], "incremental");
        assert_eq!(report["disks"][0]["changedBytes"], 5 * 2 * 65_536);
        assert!(report["disks"][0]["readBytes"].as_u64().unwrap() < 5 * MIB, "{report}");
    }
    scene.vcsim.switch_off("web");
    let report = scene.back_up(&["--audit", "100"]);
    assert_eq!((&report["newBytes"], &report["vsphere"]["consistency"]), (&0.into(), &"powered-off".into()));
    assert_eq!(report["disks"][0]["audit"]["mismatches"], serde_json::json!([]));

    scene.vcsim.reset_tracking("web");
    let ended = scene.run(&["backup"], &["--transport", "folder"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("changed-block tracking was reset"), "{ended:?}");
    scene.is_restored();
}
