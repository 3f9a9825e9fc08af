//! Restores of what is damaged, and to places where nothing must be lost.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod onto;
#[path = "../world/mod.rs"]
mod world;

use serde_json::json;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Stdio;
use world::{Ended, MIB, World, noise, text};

/// A disk of 4 MiB in a repository, and its bytes.
fn backed_up() -> (World, Vec<u8>) {
    let world = World::with_repository();
    let disk = noise(1, 4 * MIB);
    world.write("disk.raw", &disk);
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    (world, disk)
}

/// Flips a bit in the middle of the data pack.
fn damage(world: &World) {
    let pack = std::fs::read_dir(world.path("repo/d/default")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[MIB] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
}

fn leftovers(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(world.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("keepstone-partial")).collect()
}

#[test]
fn keep_going_restores_the_rest_and_lists_what_is_lost() {
    let (world, disk) = backed_up();
    damage(&world);
    let ended = world.run(&["restore", "web@latest", "--to", "out.raw"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let hint = "  hint: --keep-going restores everything else and lists what is lost; ";
    assert!(ended.stderr.contains(hint), "{ended:?}");
    // What could be restored is kept, for --resume.
    assert!(!world.path("out.raw").exists() && leftovers(&world).len() == 1);

    let ended = world.run(&["restore", "web@latest", "--to", "out.raw", "--keep-going", "--json"]);
    let report = ended.json();
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.starts_with("keepstone: an interrupted restore of the same disk is begun anew; "));
    let [lost] = report["lost"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert!(text(lost, "blob").starts_with("d/default/"), "{lost}");
    assert_eq!(text(lost, "reason"), "authentication failed");
    assert_eq!((&report["lostBytes"], &report["lostJoined"]), (&lost["length"], &json!(false)));
    let (start, length) = (lost["start"].as_u64().unwrap(), lost["length"].as_u64().unwrap());
    let mut expected = disk;
    expected[usize::try_from(start).unwrap()..][..usize::try_from(length).unwrap()].fill(0);
    assert!(world.read("out.raw") == expected);

    let ended = world.run(&["restore", "web@latest", "--to", "out.raw", "--keep-going", "--overwrite"]);
    let line = format!("\n  {start} to {}: {}: authentication failed\n", start + length, text(lost, "blob"));
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.stdout.contains("\nLOST: ")
            && ended.stdout.contains("in 1 range could not be restored")
            && ended.stdout.ends_with(&line),
        "{ended:?}"
    );
    assert!(world.read("out.raw") == expected && leftovers(&world).is_empty());
}

#[test]
fn keep_going_without_damage_is_a_restore() {
    let (world, disk) = backed_up();
    let report = world.report(&["restore", "web@latest", "--to", "out.raw", "--keep-going"]);
    assert_eq!((&report["lost"], &report["lostBytes"]), (&json!([]), &json!(0)));
    assert!(world.read("out.raw") == disk);
}

#[test]
fn nothing_is_restored_into_the_repository() {
    let (world, _) = backed_up();
    std::os::unix::fs::symlink("repo/d", world.path("link")).unwrap();
    for target in ["repo/config", "repo/new.raw", "./repo/../repo/d/new.raw", "link/new.raw"] {
        let ended = world.run(&["restore", "web@latest", "--to", target, "--overwrite"]);
        let told = format!(
            "keepstone: error: {target} is inside of the repository\n  hint: name a target in another directory\n\
             exit code 2"
        );
        assert_eq!(ended.told(), told);
    }
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn a_file_with_the_name_of_a_partial_one_is_kept() {
    let (world, disk) = backed_up();
    world.write("out.raw.keepstone-partial", b"precious");
    for overwrite in [&[][..], &["--overwrite"]] {
        let ended = world.run(&[&["restore", "web@latest", "--to", "out.raw"], overwrite].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let why =
            "out.raw.keepstone-partial exists, and is no file that an interrupted restore left\n  hint: move";
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
    assert_eq!(world.read("out.raw.keepstone-partial"), b"precious");
    std::fs::remove_file(world.path("out.raw.keepstone-partial")).unwrap();
    world.run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == disk);
}

#[test]
fn a_reader_that_closes_early_has_not_received_the_disk() {
    let (world, _) = backed_up();
    let mut child = world
        .command(&["restore", "web@latest", "--to", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0]).unwrap();
    drop(output);
    let ended = Ended::of(child.wait_with_output());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("  caused by: could not write the stream\n")
            && ended
                .stderr
                .ends_with("  hint: what reads the output closed it before it had the whole disk\n"),
        "{ended:?}"
    );
}

#[test]
fn a_disk_is_not_written_to_a_terminal() {
    let (world, _) = backed_up();
    // script(1) runs a command at a terminal of its own.
    let command = format!("{} -r repo --password-file password restore web@latest --to -", world::PROGRAM);
    let mut script = world.bare("script");
    let ended = Ended::of(script.args(["-q", "-e", "-c", &command, "/dev/null"]).output());
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stdout.contains("keepstone: error: a disk is not written to a terminal"), "{ended:?}");
}
