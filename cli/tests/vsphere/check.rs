//! `keepstone vsphere check`: what stands against a backup, in plain words.

use crate::scene::{MIB, Scene, disks, kill};
use crate::world::{Ended, noise};
use keepstone_peers::vcenter::{ChangeTracking, Power, VmSpec};
use serde_json::{Value, json};

/// Checks the VM, and that nothing was changed.
fn check(scene: &Scene, more: &[&str]) -> (Ended, Value) {
    let before = scene.vcenter.calls().len();
    let snapshots = scene.vm.snapshot_names();
    let ended = Ended::of(scene.command(&["vsphere", "check"], more).output());
    assert_eq!(scene.vcenter.violations(), []);
    let reading = [
        "RetrieveServiceContent",
        "Login",
        "Logout",
        "FindByInventoryPath",
        "FindByUuid",
        "RetrievePropertiesEx",
        "HasPrivilegeOnEntities",
        "GET /folder",
    ];
    for call in &scene.vcenter.calls()[before..] {
        assert!(reading.contains(&call.method.as_str()), "{call:?}");
    }
    assert_eq!(scene.vm.snapshot_names(), snapshots);
    let report = ended.json();
    (ended, report)
}

fn findings(report: &Value) -> Vec<(String, String)> {
    let listed = report["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    listed.map(|finding| (text(finding, "severity"), text(finding, "what"))).collect()
}

/// The same for people, without the options that every command has.
fn text(scene: &Scene) -> String {
    let mut command = scene.command(&["vsphere", "check"], &[]);
    let arguments: Vec<_> =
        command.get_args().filter(|argument| *argument != "--json").map(ToOwned::to_owned).collect();
    command = scene.world.bare(crate::world::PROGRAM);
    let ended =
        Ended::of(command.args(arguments).env("KEEPSTONE_DEVICE_ROOT", scene.world.path("root")).output());
    assert_eq!(ended.stderr, "");
    ended.stdout
}

#[test]
fn a_fit_vm() {
    let scene = Scene::with_disks(&[48 * MIB, MIB]);
    let (_, root) = scene.add_proxy();
    let (ended, report) = check(&scene, &["--proxy-vm", "backup/proxy"]);
    assert_eq!((ended.code, findings(&report)), (Some(0), vec![]), "{report}");
    assert_eq!((&report["vm"], &report["instanceUuid"]), (&json!("web"), &json!(scene.vm.instance_uuid())));
    assert_eq!(report["server"]["name"], "VMware vCenter Server");
    let first = &report["disks"][0];
    assert_eq!(
        (&first["key"], &first["diskBytes"], &first["uuid"]),
        (&json!("scsi0-0"), &json!(48 * MIB), &json!(scene.vm.disk(0).uuid()))
    );
    assert_eq!(first["file"], "[datastore1] web/web.vmdk");
    assert_eq!(first["transports"]["hotadd"], Value::Null);
    assert!(first["transports"]["nbd"].as_str().unwrap().contains("VDDK"), "{report}");

    std::fs::remove_dir_all(root).unwrap();
    let told = text(&scene);
    assert!(told.starts_with("web in VMware vCenter Server "), "{told}");
    for line in [
        "  disk scsi0-0 of 48.0 MiB",
        "    folder can be used",
        "    hotadd cannot be used: ",
        "  nothing stands against a backup",
    ] {
        assert!(told.contains(line), "no {line} in {told}");
    }
}

#[test]
fn what_needs_attention_and_what_is_good_to_know() {
    let spec = VmSpec { disks: disks(&[MIB]), change_tracking: ChangeTracking::Off, ..VmSpec::default() };
    let scene = Scene::with_vm(&spec);
    let found = |more: &[&str]| {
        let (ended, report) = check(&scene, more);
        (ended.code.unwrap(), findings(&report))
    };
    let finding = |severity: &str, what: &str| (severity.to_owned(), what.to_owned());
    assert_eq!(found(&[]), (4, vec![finding("attention", "changed block tracking (CBT) is off")]));
    assert!(text(&scene).contains("  attention: changed block tracking (CBT) is off\n      every backup reads everything; --enable-change-tracking switches it on\n"));
    scene.vm.set_change_tracking(true);
    scene.vm.set_tools(false);
    assert_eq!(
        found(&[]),
        (0, vec![finding("note", "VMware Tools do not run in it, so it cannot be quiesced")])
    );
    scene.vm.set_power(Power::Off);
    scene.vm.set_consolidation_needed(true);
    let expected =
        vec![finding("note", "its disks need consolidation"), finding("note", "it is powered off")];
    assert_eq!(found(&[]), (0, expected));
    scene.vm.set_consolidation_needed(false);
    scene.vm.set_power(Power::Suspended);
    assert_eq!(found(&[]), (0, vec![finding("note", "it is suspended; its memory is not in the backup")]));
    scene.vm.set_power(Power::On);
    scene.vm.set_tools(true);
    let _more = scene.vm.add_disk(&disks(&[MIB])[0]);
    assert_eq!(found(&["--exclude-disk", "scsi0:1"]), (0, vec![finding("note", "disk scsi0-1 is left out")]));
}

#[test]
fn snapshots_of_others_and_leftovers_are_told_apart() {
    let scene = Scene::with_disks(&[MIB]);
    scene.vm.disk(0).write(0, &noise(1, 1000));
    let folder = ["--transport", "folder"];
    let (_, was) = scene.run_and_at(("RemoveSnapshot_Task", 1), kill, &folder);
    assert!(was);
    scene.clear_away();
    // The removal was carried out all the same; the one of a backup that is killed before stays.
    let (_, was) = scene.run_and_at(("GET /folder", 1), kill, &folder);
    assert!(was);
    scene.clear_away();
    let left = scene.ours();
    assert_eq!(left.len(), 1);
    scene.vm.create_foreign_snapshot("before the upgrade");
    let (ended, report) = check(&scene, &[]);
    let notes: Vec<String> = findings(&report).into_iter().map(|(_, what)| what).collect();
    assert_eq!(
        notes,
        [
            "it has snapshots that Keepstone did not make: before the upgrade".to_owned(),
            format!("earlier backups left snapshots behind: {}", left[0]),
        ]
    );
    // Its disk is a delta on top of what others froze.
    assert_eq!(ended.code, Some(1), "{report}");
    assert!(report["disks"][0]["transports"]["folder"].is_string(), "{report}");
    // The proxy attaches any.
    scene.add_proxy();
    let (ended, report) = check(&scene, &["--proxy-vm", "backup/proxy"]);
    assert_eq!(ended.code, Some(0), "{report}");
}

#[test]
fn privileges_that_cannot_be_asked_for_are_no_refusal() {
    let scene = Scene::with_disks(&[MIB]);
    let fault = keepstone_peers::vcenter::Fault::new(
        "NoPermission",
        "Permission to perform this operation was denied.",
    );
    scene.vcenter.fail_every("HasPrivilegeOnEntities", fault.clone());
    scene.vcenter.fail_every("FetchUserPrivilegeOnEntities", fault);
    let ended = Ended::of(scene.command(&["vsphere", "check"], &[]).output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        findings(&ended.json()),
        [("note".to_owned(), "the server does not tell what privileges the user has".to_owned())]
    );
    scene.back_up_well(&[]);
}
