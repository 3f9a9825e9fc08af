//! Whether the guest comes to rest.

use crate::scene::{FOLDER, MIB, Scene};
use crate::world::noise;
use keepstone_peers::vcenter::Power;

/// What state a backup with this policy shows, in its report and in the repository.
fn consistency(scene: &Scene, more: &[&str]) -> String {
    let report = scene.back_up_well(more);
    let told = report["vsphere"]["consistency"].as_str().unwrap().to_owned();
    let shown = scene.world.report(&["show", "web@latest"]).to_string();
    assert!(shown.contains(&format!("\"{told}\"")), "{shown}");
    told
}

#[test]
fn a_guest_that_cannot_come_to_rest_is_backed_up_as_after_a_power_failure_unless_it_must() {
    let scene = Scene::with_disks(&[MIB]);
    scene.vm.disk(0).write(0, &noise(1, 1000));
    assert_eq!(consistency(&scene, &[]), "quiesced");
    // Once may be bad luck.
    scene.vcenter.fail_quiescing(1);
    assert_eq!(consistency(&scene, &[]), "quiesced");
    scene.vcenter.fail_quiescing(2);
    assert_eq!(consistency(&scene, &[]), "crash-consistent");
    scene.vcenter.fail_quiescing(1);
    assert_eq!(consistency(&scene, &["--quiesce", "required"]), "quiesced");
    assert_eq!(consistency(&scene, &["--quiesce", "off"]), "crash-consistent");

    scene.vcenter.fail_quiescing(9);
    let ended = scene.fails(&["--quiesce", "required"]);
    assert!(ended.stderr.contains("An error occurred while quiescing the virtual machine"), "{ended:?}");
    assert!(ended.stderr.contains("--quiesce preferred goes on without"), "{ended:?}");
    let before = scene.vcenter.count("CreateSnapshot_Task");
    assert_eq!(consistency(&scene, &["--quiesce", "off"]), "crash-consistent");
    assert_eq!(scene.vcenter.count("CreateSnapshot_Task") - before, 1);
}

#[test]
fn a_vm_that_does_not_run_has_nothing_to_quiesce() {
    let scene = Scene::with_disks(&[MIB]);
    for (power, word, told) in [
        (Power::Off, "powered-off", "it is powered off"),
        (Power::Suspended, "suspended", "it is suspended; its memory is not in the backup"),
    ] {
        scene.vm.set_power(power);
        scene.vm.disk(0).write(0, &noise(word.len() as u64, 1000));
        assert_eq!(consistency(&scene, &["--quiesce", "required"]), word);
        let ended = scene.run(&FOLDER);
        assert!(ended.stderr.contains(told), "{ended:?}");
        scene.restores("scsi0-0", 0);
    }
}

#[test]
fn without_tools_nothing_is_called_quiesced() {
    let scene = Scene::with_disks(&[MIB]);
    scene.vm.set_tools(false);
    let ended = scene.run(&FOLDER);
    assert!(ended.stderr.contains("VMware Tools do not run in it, so it cannot be quiesced"), "{ended:?}");
    assert_eq!(ended.json()["vsphere"]["consistency"], "crash-consistent");
    scene.is_clean();
    let ended = scene.fails(&["--quiesce", "required"]);
    assert!(ended.stderr.contains("Tools"), "{ended:?}");
}
