//! Disks that nbdkit reads, beside the program. VMware's library is not there: a script serves files in its stead.

use crate::scene::{MIB, Scene, interrupt, kill};
use crate::world::{Ended, noise};
use keepstone_peers::vcenter::PASSWORD;
use rustix::process::Pid;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

const KEYS: [&str; 2] = ["scsi0-0", "scsi0-1"];

/// What stands for VMware's library.
pub fn library(scene: &Scene) -> PathBuf {
    let directory = scene.world.path("vddk");
    fs::create_dir_all(directory.join("lib64")).unwrap();
    fs::write(directory.join("lib64/libvixDiskLib.so.8"), "").unwrap();
    directory
}

fn scene() -> Scene {
    let scene = Scene::with_disks(&[40 * MIB, MIB]);
    scene.vm.disk(0).write(0, &noise(1, 40 << 20));
    scene.vm.disk(1).write(0, &noise(2, 1 << 20));
    library(&scene);
    scene
}

/// Lets the library serve what the disks hold, and returns the arguments.
fn by_nbd(scene: &Scene, transport: &'static str) -> Vec<&'static str> {
    for (number, file) in ["web.vmdk", "web_1.vmdk"].into_iter().enumerate() {
        fs::write(scene.world.path("vddk").join(file), scene.vm.disk(number).bytes()).unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vsphere/nbdkit.sh");
    vec!["--transport", transport, "--nbdkit", script, "--vddk-dir", "vddk"]
}

fn restores(scene: &Scene) {
    scene.restores(KEYS[0], 0);
    scene.restores(KEYS[1], 1);
}

#[test]
fn nbdkit_is_started_read_from_and_ended() {
    let scene = scene();
    let (code, report) = scene.back_up_by(&by_nbd(&scene, "nbd"));
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["vsphere"]["transports"], json!({"scsi0-0": "nbd", "scsi0-1": "nbd"}));
    restores(&scene);
    scene.vm.disk(0).write(17 * MIB, &noise(3, 512));
    let (code, report) = scene.back_up_by(&by_nbd(&scene, "auto"));
    assert_eq!((code, &report["disks"][0]["changedBytes"]), (0, &json!(65_536)));
    assert_eq!(report["vsphere"]["transports"]["scsi0-0"], "nbd");
    restores(&scene);
    // The password reached it, and is nowhere any more.
    assert_eq!(
        fs::read_to_string(scene.world.path("vddk/passwords")).unwrap(),
        format!("{PASSWORD}\n").repeat(4)
    );
}

#[test]
fn an_nbdkit_that_cannot_be_used_is_told_without_the_password() {
    let scene = scene();
    let arguments = by_nbd(&scene, "nbd");
    fs::write(scene.world.path("vddk/fails"), "").unwrap();
    let ended = scene.run(&arguments);
    scene.is_clean();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("nbdkit ended with exit status: 3; it says: nbdkit: vddk: cannot log in with ***"),
        "{ended:?}"
    );
    // Otherwise the next way is taken.
    let ended = scene.run(&by_nbd(&scene, "auto"));
    scene.is_clean();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("disk scsi0-0 cannot be read by nbd: nbdkit ended with exit status: 3"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("disk scsi0-0 is read by folder"), "{ended:?}");
    restores(&scene);

    for (arguments, told, hint) in [
        (vec!["--transport", "nbd"], "", "name VMware's VDDK with --vddk-dir"),
        (
            vec!["--transport", "nbd", "--vddk-dir", "nowhere"],
            "nowhere",
            "name VMware's VDDK with --vddk-dir",
        ),
        (
            vec!["--transport", "nbd", "--vddk-dir", "vddk", "--nbdkit", "/nowhere/nbdkit"],
            "cannot start /nowhere/nbdkit",
            "install nbdkit",
        ),
    ] {
        let ended = scene.run(&arguments);
        scene.is_clean();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(told) && ended.stderr.contains(hint), "{ended:?}");
    }
}

/// What the processes below one are called with, and their environments.
fn below(program: Pid) -> Vec<(String, String)> {
    let own = format!("/proc/{}/", program.as_raw_nonzero());
    let mut found = Vec::new();
    for task in fs::read_dir(Path::new(&own).join("task")).unwrap() {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let read = |what: &str| {
                String::from_utf8_lossy(&fs::read(format!("/proc/{child}/{what}")).unwrap_or_default())
                    .into_owned()
            };
            found.push((read("cmdline"), read("environ")));
        }
    }
    found
}

#[test]
fn nobody_sees_the_password() {
    let scene = scene();
    scene.back_up_by(&by_nbd(&scene, "nbd"));
    scene.vm.disk(0).write(17 * MIB, &noise(3, 512));
    let arguments = by_nbd(&scene, "nbd");
    let (seen, look) = channel();
    let own =
        |program: Pid| fs::read_to_string(format!("/proc/{}/cmdline", program.as_raw_nonzero())).unwrap();
    let (ended, was) = scene.run_and_at(
        ("QueryChangedDiskAreas", 1),
        move |program| seen.send((own(program), below(program))).unwrap(),
        &[&arguments[..], &["-vv"]].concat(),
    );
    assert!(was && ended.code == Some(0), "{ended:?}");
    let (own, children) = look.recv().unwrap();
    assert!(own.contains("vcenter-password"), "{own}");
    assert_eq!(children.len(), 2, "{children:?}");
    assert!(children.iter().all(|(line, _)| line.contains("nbdkit")), "{children:?}");
    for text in children.iter().flat_map(|(line, environment)| [line, environment]).chain([
        &own,
        &ended.stdout,
        &ended.stderr,
    ]) {
        assert!(!text.contains("s3cret"), "{text}");
    }
    assert!(ended.stderr.contains("DEBUG") || ended.stderr.contains("INFO"), "-vv tells nothing: {ended:?}");

    // From the environment: what is started does not inherit it.
    scene.vm.disk(0).write(18 * MIB, &noise(3, 512));
    let (seen, look) = channel();
    let (tell, program) = channel::<Pid>();
    scene.vcenter.at("QueryChangedDiskAreas", 1, move || seen.send(below(program.recv().unwrap())).unwrap());
    let host = scene.place();
    let mut command = scene.world.command(&[
        "--json",
        "-vv",
        "backup",
        &host,
        "--vsphere-thumbprint",
        scene.vcenter.thumbprint(),
    ]);
    command.args(by_nbd(&scene, "nbd")).env("TMPDIR", scene.world.path("tmp"));
    command
        .env("KEEPSTONE_VSPHERE_PASSWORD", PASSWORD)
        .env("KEEPSTONE_VSPHERE_USER", keepstone_peers::vcenter::USER);
    command.env("KEEPSTONE_PASSWORD", "not this one").env("AZURE_STORAGE_KEY", "s3cret too");
    let child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    tell.send(Pid::from_child(&child)).unwrap();
    let ended = Ended::of(child.wait_with_output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let children = look.recv().unwrap();
    assert_eq!(children.len(), 2, "{children:?}");
    for text in children
        .iter()
        .flat_map(|(line, environment)| [line, environment])
        .chain([&ended.stdout, &ended.stderr])
    {
        assert!(!text.contains("s3cret") && !text.contains("not this one"), "{text}");
    }
    assert!(children[0].1.contains("HOME="), "the environment was not read");
    scene.is_clean();
}

#[test]
fn interrupted_or_killed_no_nbdkit_stays() {
    let scene = scene();
    scene.back_up_by(&by_nbd(&scene, "nbd"));
    for (act, code) in [(interrupt as fn(Pid), Some(130)), (kill, None)] {
        scene.vm.disk(0).write(MIB, &noise(9, 512));
        let (seen, look) = channel();
        let act = move |program: Pid| {
            let sockets: Vec<String> = below(program).into_iter().map(|(line, _)| line).collect();
            seen.send(sockets).unwrap();
            act(program);
        };
        let (ended, was) = scene.run_and_at(("QueryChangedDiskAreas", 1), act, &by_nbd(&scene, "nbd"));
        assert!(was && ended.code == code, "{ended:?}");
        assert_eq!(look.recv().unwrap().len(), 2);
        scene.vcenter.expire_sessions();
        // It ends with its parent, a moment later perhaps.
        let vddk = scene.world.path("vddk").display().to_string();
        while all_processes().iter().any(|line| line.contains(&vddk)) {
            std::thread::yield_now();
        }
        // Of a killed one the directory stays, without the password.
        for left in fs::read_dir(scene.world.path("tmp")).unwrap() {
            let left = left.unwrap().path();
            assert_eq!(code, None, "{}", left.display());
            for file in walk(&left) {
                assert!(!file.ends_with("password"), "{}", file.display());
            }
            fs::remove_dir_all(left).unwrap();
        }
    }
    assert_eq!(scene.back_up_by(&by_nbd(&scene, "nbd")).0, 0);
    restores(&scene);
}

fn all_processes() -> Vec<String> {
    let numbered = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = numbered.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains("nbdkit"))
        .collect()
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
