//! `ls` and `cp` as a user runs them: files of a guest, out of one snapshot and the next.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use world::{MIB, World, noise, text};

/// Where the second partition is.
const SECOND: usize = 8 * MIB;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn tool(world: &World, program: &str, arguments: &[&str]) {
    let output = world.bare(program).env("PATH", PATH).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// A disk with a FAT and an ext4, and what is in the ext4 in the directory `tree`.
fn world() -> World {
    let world = World::with_repository();
    let tree = world.path("tree");
    fs::create_dir_all(tree.join("etc/ssh")).unwrap();
    fs::write(tree.join("etc/fstab"), b"# first\n").unwrap();
    fs::write(tree.join("etc/ssh/key"), noise(1, 70_000)).unwrap();
    fs::set_permissions(tree.join("etc/ssh/key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(tree.join("both"), b"ext4").unwrap();
    fs::write(tree.join("strange \u{1b}[2J\nname"), b"strange").unwrap();
    std::os::unix::fs::symlink("etc/ssh", tree.join("link")).unwrap();
    File::create(world.path("disk.raw")).unwrap().set_len(24 << 20).unwrap();
    tool(&world, "sgdisk", &["-n", "1:2048:+4M", "-t", "1:ef00", "-n", "2:16384:+15M", "disk.raw"]);
    fs::write(world.path("both"), b"fat").unwrap();
    File::create(world.path("fat")).unwrap().set_len(4 << 20).unwrap();
    tool(&world, "mkfs.vfat", &["-i", "0123abcd", "-n", "ESP", "fat"]);
    tool(&world, "mcopy", &["-i", "fat", "both", "::"]);
    put_ext4(&world);
    let fat = world.read("fat");
    File::options().write(true).open(world.path("disk.raw")).unwrap().write_all_at(&fat, 1 << 20).unwrap();
    world
}

/// Makes the ext4 out of the tree.
fn put_ext4(world: &World) {
    let _ = fs::remove_file(world.path("ext4"));
    File::create(world.path("ext4")).unwrap().set_len(15 << 20).unwrap();
    let uuid = "5a17a1e5-0000-4000-8000-00000000000a";
    tool(
        world,
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext4",
            "-U",
            uuid,
            "-E",
            &format!("hash_seed={uuid},root_owner=7:8"),
            "-d",
            "tree",
            "ext4",
        ],
    );
    tool(world, "debugfs", &["-w", "-R", "mknod pipe p", "ext4"]);
    let bytes = world.read("ext4");
    let disk = File::options().write(true).open(world.path("disk.raw")).unwrap();
    disk.write_all_at(&bytes, u64::try_from(SECOND).unwrap()).unwrap();
}

fn back_up(world: &World) -> String {
    text(&world.report(&["backup", "--vm", "web", "disk.raw"]), "snapshot")
}

#[test]
fn volumes_are_listed() {
    let world = world();
    back_up(&world);
    let report = world.report(&["ls", "web@latest"]);
    assert_eq!((&report["table"], &report["diskBytes"]), (&json!("gpt"), &json!(24 << 20)));
    assert_eq!(
        report["volumes"],
        json!([
            {"number": 1, "start": 1 << 20, "bytes": 4 << 20, "type": "EFI system", "name": null,
             "system": "fat", "label": "ESP", "uuid": "0123abcd", "readable": true},
            {"number": 2, "start": SECOND, "bytes": 15 << 20, "type": "Linux", "name": null, "system": "ext4",
             "label": null, "uuid": "5a17a1e5-0000-4000-8000-00000000000a", "readable": true},
        ])
    );
    let shown = world.run(&["ls", "web@latest", "--disk", "disk0"]).done();
    assert!(shown.contains("     2  15.0 MiB  ext4         -      5a17a1e5-"), "{shown}");
}

#[test]
fn directories_and_files_are_listed() {
    let world = world();
    back_up(&world);
    let report = world.report(&["ls", "web@latest", "/etc"]);
    let names: Vec<&Value> =
        report["entries"].as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!((&report["path"], names), (&json!("/etc"), vec![&json!("fstab"), &json!("ssh")]));
    let entry = &world.report(&["ls", "web@latest", "/etc/ssh/key"])["entries"][0];
    let modified = world.path("tree/etc/ssh/key").metadata().unwrap();
    assert_eq!(
        (&entry["type"], &entry["bytes"], &entry["mode"]),
        (&json!("file"), &json!(70_000), &json!(0o600))
    );
    assert_eq!(entry["uid"], json!(modified.uid()));
    // What could steer a terminal is shown as text, in one line.
    let shown = world.run(&["ls", "web@latest", "--volume", "2"]).done();
    assert!(shown.contains("strange \\u{1b}[2J\\nname\n"), "{shown}");
    assert!(shown.contains("  link -> etc/ssh\n"), "{shown}");
    let link = world.run(&["ls", "web@latest", "/link"]).done();
    assert!(link.contains("  key\n"), "{link}");
}

#[test]
fn a_file_comes_out_of_each_snapshot_as_it_was() {
    let world = world();
    let first = back_up(&world);
    fs::write(world.path("tree/etc/fstab"), b"# second\n").unwrap();
    put_ext4(&world);
    let areas: Vec<usize> = (SECOND >> 16..(SECOND + 15 * MIB) >> 16).collect();
    world.changes("changes.json", 24 << 20, None, "now", &areas);
    let second = back_up(&world);
    for (snapshot, content) in [(&first, "# first\n"), (&second, "# second\n")] {
        let source = format!("{snapshot}:disk0:/etc/fstab");
        assert_eq!(world.run(&["-q", "cp", &source, "-"]).done(), content);
        let target = format!("fstab-{snapshot}");
        let report = world.report(&["cp", &source, &target]);
        assert_eq!((&report["files"], &report["bytes"]), (&json!(1), &json!(content.len())));
        assert_eq!(world.read(&target), content.as_bytes());
    }
}

#[test]
fn a_directory_is_copied_into_one_that_is_there() {
    let world = world();
    back_up(&world);
    fs::create_dir(world.path("out")).unwrap();
    let refused = world.run(&["cp", "web@latest:disk0:/etc", "out"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("/etc is a directory\n  hint: add -R"), "{}", refused.stderr);
    world.run(&["cp", "-R", "web@latest::/etc", "out"]).done();
    assert_eq!(world.read("out/etc/ssh/key"), noise(1, 70_000));
    assert_eq!(world.path("out/etc/ssh/key").metadata().unwrap().mode() & 0o7777, 0o600);
    let again = world.run(&["cp", "-R", "web@latest::/etc", "out"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("hint: name another target, or add --overwrite"), "{}", again.stderr);
    world.run(&["cp", "-R", "--overwrite", "web@latest::/etc", "out"]).done();
}

#[test]
fn what_is_special_is_told_with_exit_code_4() {
    let world = world();
    back_up(&world);
    let copied = world.run(&["cp", "-R", "web@latest:disk0:/", "out", "--volume", "2"]);
    assert_eq!(copied.code, Some(4), "{copied:?}");
    assert!(copied.stdout.contains("NOT COPIED: 1 entry\n  /pipe: "), "{}", copied.stdout);
    assert_eq!(fs::read(world.path("out/strange \u{1b}[2J\nname")).unwrap(), b"strange");
    assert_eq!(fs::read_link(world.path("out/link")).unwrap(), Path::new("etc/ssh"));
}

#[test]
fn a_path_in_several_volumes_asks_which() {
    let world = world();
    back_up(&world);
    let asked = world.run(&["cp", "web@latest:disk0:/both", "-"]);
    assert_eq!(asked.code, Some(1));
    assert!(
        asked.stderr.contains("/both is in volumes 1, 2\n  hint: name one of them with --volume"),
        "{}",
        asked.stderr
    );
    assert_eq!(world.run(&["-q", "cp", "web@latest:disk0:/both", "-", "--volume", "1"]).done(), "fat");
    assert_eq!(world.run(&["-q", "cp", "web@latest:disk0:/both", "-", "--volume", "2"]).done(), "ext4");
}

#[test]
fn what_is_lost_in_the_repository_is_told_with_exit_code_3() {
    let world = world();
    back_up(&world);
    // The largest pack has the data; a byte of the key file in it is changed.
    let listed = world.run(&["ls", "web@latest", "/etc"]).done();
    assert!(listed.contains("fstab"));
    let pack =
        packs(&world.path("repo")).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut permissions = pack.metadata().unwrap().permissions();
    permissions.set_mode(0o600);
    fs::set_permissions(&pack, permissions).unwrap();
    let len = pack.metadata().unwrap().len();
    let file = File::options().read(true).write(true).open(&pack).unwrap();
    // All of it but its header and its directory.
    file.write_all_at(&vec![0; usize::try_from(len - 20_000).unwrap()], 10_000).unwrap();
    let copied = world.run(&["cp", "web@latest:disk0:/etc/ssh/key", "key"]);
    assert_eq!(copied.code, Some(3), "{copied:?}");
    assert!(!world.path("key").exists());
}

fn packs(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(packs(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn calls_that_cannot_be_meant_are_refused() {
    let world = world();
    back_up(&world);
    for (arguments, code, told) in [
        (&["cp", "web@latest", "out"][..], 2, "this does not name a file of a guest"),
        (&["cp", "web@latest:other:/etc/fstab", "out"], 1, "the snapshot has no disk \"other\""),
        (&["cp", "db@latest:disk0:/etc/fstab", "out"], 1, "there is no snapshot db@latest"),
        (&["cp", "web@latest:disk0:/etc/fstab", "repo"], 2, "is inside of the repository"),
        (&["cp", "web@latest:disk0:/etc/fstab", "none/"], 2, "none/ is not a directory"),
        (&["cp", "web@latest:disk0:/etc/fstab", "none/fstab"], 1, "could not open none"),
        (&["cp", "-R", "web@latest:disk0:/etc", "-"], 2, "only a single file is copied to standard output"),
        (&["ls", "web@latest", "/none"], 1, "there is no /none"),
        (&["ls", "web@latest", "--volume", "7"], 1, "the disk has no volume 7; it has 1, 2"),
    ] {
        let ended = world.run(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
    }
}
