//! Several VMs in one command.

use crate::scene::{FOLDER, MIB, Scene, disks};
use crate::world::{Ended, noise};
use keepstone_peers::vcenter::VmSpec;
use serde_json::json;

#[test]
fn vms_of_one_vcenter_are_backed_up_at_a_time_and_the_password_is_asked_for_once() {
    let scene = Scene::with_disks(&[8 * MIB]);
    let others: Vec<_> = ["db", "mail", "files"]
        .into_iter()
        .map(|name| {
            let spec = VmSpec { disks: disks(&[4 * MIB, MIB]), ..VmSpec::default() };
            let vm = scene.vcenter.add_vm(&format!("DC/vm/{name}"), &spec);
            vm.disk(0).write(MIB, &noise(name.len() as u64, 300_000));
            vm
        })
        .collect();
    scene.vm.disk(0).write(3 * MIB, &noise(1, 100_000));
    let place = |name: &str| format!("vsphere://{}/DC/vm/{name}", scene.vcenter.host());
    let named = [place("web"), place("db"), place("gone"), place("mail")];
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let asked = "echo asked >> asked; cat vcenter-password";
    let mut command = scene.world.command(&["--json", "backup"]);
    command.args(&named).args(FOLDER).arg(place("files"));
    command.args(["--vsphere-user", keepstone_peers::vcenter::USER, "--vsphere-password-command", asked]);
    command.args(["--vsphere-thumbprint", scene.vcenter.thumbprint()]);
    command.env("TMPDIR", scene.world.path("tmp"));
    let ended = Ended::of(command.output());

    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = ended.json();
    let told: Vec<_> = report["vms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vm| {
            (vm["vm"].as_str().unwrap(), vm["exitCode"].as_u64().unwrap(), &vm["vsphere"]["consistency"])
        })
        .collect();
    let gone = format!("DC/vm/gone of {}", scene.vcenter.host().split(':').next().unwrap());
    let (quiesced, nothing) = (json!("quiesced"), json!(null));
    let expected = [
        ("web", 0, &quiesced),
        ("db", 0, &quiesced),
        (gone.as_str(), 1, &nothing),
        ("mail", 0, &quiesced),
        ("files", 0, &quiesced),
    ];
    assert_eq!(told, expected);
    assert_eq!(scene.world.read("asked"), b"asked\n");
    scene.is_clean();
    assert!(others.iter().all(|vm| vm.snapshot_names().is_empty()), "a snapshot stays");
    scene.restores("scsi0-0", 0);
    let listed = scene.world.report(&["snapshots"]);
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 4);
}
