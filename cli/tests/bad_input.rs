//! What is wrong with what users give: told, with a fitting exit code, and without losing anything.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod world;

use keepstone_peers::vcenter::{DiskSpec, PASSWORD, USER, VCenter, VmSpec};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use world::{Ended, MIB, PROGRAM, World, noise};

/// A user without rights; tests may run as root, whom no permission stops.
const NOBODY: u32 = 65534;

/// A world with a repository and a snapshot of `disk.raw` with the change id `monday`.
fn monday() -> World {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, 2 * MIB));
    world.changes("monday.json", 2 * MIB, None, "monday", &[]);
    world.run(&["backup", "--vm", "web", "disk.raw", "--changes", "monday.json"]).done();
    world
}

fn snapshots(world: &World) -> usize {
    world.report(&["snapshots"])["snapshots"].as_array().expect("a list").len()
}

#[test]
fn changes_files_that_cannot_be_are_refused() {
    let world = monday();
    let with = |members: &str| {
        format!(r#"{{"diskSize": 2097152, "changeId": "tuesday", "since": "monday", {members}}}"#)
    };
    let areas = |areas: &str| with(&format!(r#""changedArea": [{areas}]"#));
    let cases = [
        ("no JSON", "changed: all".to_owned()),
        ("nothing", String::new()),
        ("cut off", areas(r#"{"start": 0, "length": 512}"#).replace("]}", "")),
        ("another member", with(r#""changedArea": [], "more": 1"#)),
        ("a member twice", with(r#""changedArea": [], "changedArea": []"#)),
        ("text for a number", areas(r#"{"start": "0", "length": 512}"#)),
        ("a fraction", areas(r#"{"start": 0.5, "length": 512}"#)),
        ("a negative start", areas(r#"{"start": -1, "length": 512}"#)),
        ("more than 64 bits", areas(r#"{"start": 18446744073709551616, "length": 1}"#)),
        ("an end over 64 bits", areas(r#"{"start": 18446744073709551615, "length": 512}"#)),
        ("an empty area", areas(r#"{"start": 0, "length": 0}"#)),
        ("overlapping areas", areas(r#"{"start": 0, "length": 1024}, {"start": 512, "length": 512}"#)),
        ("areas out of order", areas(r#"{"start": 4096, "length": 512}, {"start": 0, "length": 512}"#)),
        ("past the end", areas(r#"{"start": 2096640, "length": 1024}"#)),
        ("an empty change id", areas("").replace("tuesday", "")),
        ("another disk's size", areas("").replace("2097152", "4194304")),
    ];
    let told = cases.iter().fold(String::new(), |told, (name, text)| {
        world.write("changes.json", text.as_bytes());
        let ended = world.run(&["backup", "--vm", "web", "disk.raw", "--changes", "changes.json"]);
        told + &format!("== {name}\n{}\n\n", ended.told())
    });
    insta::assert_snapshot!(told);
    assert_eq!(snapshots(&world), 1);
}

#[test]
fn changes_that_count_from_an_unknown_point_are_made_up_for() {
    let world = monday();
    world.changes("changes.json", 2 * MIB, Some("sunday"), "tuesday", &[]);
    let ended = world.run(&["-q", "backup", "--vm", "web", "disk.raw", "--changes", "changes.json"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (
            Some(4),
            "keepstone: warning: disk disk0 was read in full: the changes count from sunday, but the last snapshot \
             recorded monday\n"
        )
    );
    assert_eq!(snapshots(&world), 2);
}

#[test]
fn a_change_id_forges_no_line_of_a_message() {
    let world = monday();
    world.changes("changes.json", 2 * MIB, Some("sunday\nkeepstone: all is well"), "tuesday", &[]);
    let ended = world.run(&["backup", "--vm", "web", "disk.raw", "--changes", "changes.json"]);
    let reason =
        "the changes count from sunday\\nkeepstone: all is well, but the last snapshot recorded monday";
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stdout.contains(&format!("full ({reason}): ")), "{ended:?}");
    assert_eq!(ended.stderr, format!("keepstone: warning: disk disk0 was read in full: {reason}\n"));
}

#[test]
fn a_config_of_another_repository_is_told_from_a_wrong_password() {
    let world = monday();
    fs::remove_file(world.path("repo/config")).unwrap();
    world.write("repo/config", &World::with_repository().read("repo/config"));
    let ended = world.run(&["snapshots"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (
            Some(1),
            "keepstone: error: the password opens no key slot; 0 were tried, and 2 are damaged or of another repository\n  \
             hint: check the password; if it is right, put `config` and `keys/` back from a copy of this repository\n"
        )
    );
}

#[test]
fn an_empty_image_is_refused_and_one_that_was_cut_off_is_told() {
    let world = World::with_repository();
    world.write("empty.raw", b"");
    let disk = noise(1, MIB + 100);
    world.write("odd.raw", &disk);
    let empty = world.run(&["backup", "--vm", "web", "empty.raw"]);
    insta::assert_snapshot!(empty.told());
    let odd = world.run(&["-q", "backup", "--vm", "web", "odd.raw"]);
    assert_eq!(
        (odd.code, odd.stderr.as_str()),
        (
            Some(4),
            "keepstone: warning: disk disk0 has 1048676 bytes, which is not a whole number of sectors of 512: it may have \
             been cut off\n"
        )
    );
    world.run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == disk, "the disk is another one");
}

/// Changes `disk.raw` while it is backed up; what the backup said at the end, and its exit code.
fn changed_meanwhile(world: &World, disk_len: usize, change: impl FnOnce(&Path)) -> (Option<i32>, String) {
    world.write("disk.raw", &noise(1, disk_len));
    let (mut child, mut messages) = world.slow_backup("web");
    change(&world.path("disk.raw"));
    let mut rest = String::new();
    messages.read_to_string(&mut rest).expect("a pipe");
    (child.wait().expect("it ends").code(), rest)
}

fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(&[1; 512]).unwrap();
}

#[test]
fn an_image_that_shrinks_during_the_backup_ends_it_and_not_the_process() {
    let world = World::with_repository();
    let (code, told) = changed_meanwhile(&world, 96 * MIB, |path| {
        OpenOptions::new().write(true).open(path).unwrap().set_len(MIB as u64).unwrap();
    });
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("disk.raw became shorter while it was read: nothing at byte"), "{told}");
    assert!(told.contains("hint: back up a disk that nothing writes to"), "{told}");
    assert_eq!(snapshots(&world), 0);
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn an_image_that_grows_during_the_backup_is_not_committed() {
    let world = World::with_repository();
    let (code, told) = changed_meanwhile(&world, 24 * MIB, append);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("disk.raw changed its size while it was read, from 25165824 to 25166336 bytes"),
        "{told}"
    );
    assert!(told.contains("hint: back up a disk that nothing writes to"), "{told}");
    assert_eq!(snapshots(&world), 0);
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
}

#[test]
fn an_image_that_is_written_to_during_the_backup_needs_attention() {
    let world = World::with_repository();
    let (code, told) = changed_meanwhile(&world, 24 * MIB, |path| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        (&file).write_all(&[1; 512]).unwrap();
    });
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("disk.raw was written to during the backup"), "{told}");
    assert_eq!(snapshots(&world), 1);
}

#[test]
fn a_repository_without_room_keeps_what_it_has_and_goes_on_later() {
    let world = monday();
    world.write("disk.raw", &noise(2, 8 * MIB));
    // No file may become longer than 1 MiB.
    let script = "trap '' XFSZ; ulimit -f 1024; exec \"$@\"";
    let arguments = ["-r", "repo", "--password-file", "password", "backup", "--vm", "web", "disk.raw"];
    let mut command = world.bare("bash");
    let full = Ended::of(command.args(["-c", script, "bash", PROGRAM]).args(arguments).output());
    assert_eq!(full.code, Some(1), "{full:?}");
    assert!(full.stderr.contains("could not create"), "{full:?}");
    assert!(full.stderr.contains("caused by: File too large"), "{full:?}");
    assert_eq!(snapshots(&world), 1);
    assert_eq!(fs::read_dir(world.path("repo/.tmp")).unwrap().count(), 0, "nothing half-written stays");
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    world.run(&["verify", "--read-data"]).done();
}

/// The program, run by a user who may only read what is below `sealed`, and write everywhere else in this world.
fn without_rights(world: &World, sealed: &str, arguments: &[&str]) -> Ended {
    let program = world.path("keepstone");
    if !program.exists() {
        // By another process: one of this one's could inherit the file while it may still be written to.
        Ended::of(world.bare("cp").args([PROGRAM, "keepstone"]).output()).done();
    }
    fs::create_dir_all(world.path("home")).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let owner = is_root.then_some(NOBODY);
    hand_over(world.dir.path(), (0o755, 0o644), owner);
    hand_over(&world.path(sealed), (0o555, 0o444), is_root.then_some(0));
    let mut command = world.bare(program.to_str().expect("a path of text"));
    command.args(["-r", "repo", "--password-file", "password"]).args(arguments);
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let ended = Ended::of(command.output());
    hand_over(&world.path(sealed), (0o755, 0o644), None);
    ended
}

/// Gives everything below a path modes for directories (and programs) and for files, and an owner.
fn hand_over(path: &Path, modes: (u32, u32), owner: Option<u32>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let executable = metadata.is_dir() || metadata.permissions().mode() & 0o100 != 0;
    let mode = if executable { modes.0 } else { modes.1 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if let Some(owner) = owner {
        chown(path, Some(owner), Some(owner)).unwrap();
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            hand_over(&entry.unwrap().path(), modes, owner);
        }
    }
}

#[test]
fn a_repository_that_may_only_be_read_is_read() {
    let world = monday();
    let backup = without_rights(&world, "repo", &["backup", "--vm", "web", "disk.raw"]);
    assert_eq!(backup.code, Some(1), "{backup:?}");
    assert!(backup.stderr.contains("caused by: Permission denied"), "{backup:?}");
    assert!(backup.stderr.contains("hint: check who owns it"), "{backup:?}");
    without_rights(&world, "repo", &["snapshots"]).done();
    without_rights(&world, "repo", &["verify", "--read-data"]).done();
    without_rights(&world, "repo", &["restore", "web@latest", "--to", "home/out.raw"]).done();
    assert!(world.read("home/out.raw") == world.read("disk.raw"), "the disk is another one");
    assert_eq!(snapshots(&world), 1);
}

#[test]
fn a_repository_of_a_newer_format_says_so() {
    let world = monday();
    let config = String::from_utf8(world.read("repo/config")).unwrap();
    assert!(config.contains("\"format\": 0"), "{config}");
    world.write("repo/config", config.replace("\"format\": 0", "\"format\": 1").as_bytes());
    insta::assert_snapshot!(world.run(&["snapshots"]).told());
}

/// The files of the cache, below `home`.
fn cache_files(world: &World) -> Vec<std::path::PathBuf> {
    let repositories = fs::read_dir(world.path("home/.cache/keepstone")).unwrap();
    let files = repositories.flat_map(|repository| fs::read_dir(repository.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn a_damaged_cache_costs_nothing_but_being_fetched_again() {
    let world = monday();
    let tables = || -> Vec<_> {
        cache_files(&world).into_iter().filter(|path| path.to_string_lossy().contains(".table-")).collect()
    };
    assert!(!tables().is_empty());
    for damage in [&b""[..], b"x", &noise(3, 100_000)] {
        for table in tables() {
            fs::write(table, damage).unwrap();
        }
        let report = world.report(&["backup", "--vm", "db", "disk.raw"]);
        assert_eq!(report["newChunks"], 0, "all chunks are found again");
    }
    // What another version keeps there is left alone.
    let other = cache_files(&world)[0].with_file_name("0123456789abcdef0123456789abcdef.table-999");
    fs::write(&other, b"of another version").unwrap();
    let report = world.report(&["backup", "--vm", "mail", "disk.raw"]);
    assert_eq!(report["newChunks"], 0);
    assert_eq!(fs::read(other).unwrap(), b"of another version");
}

#[test]
fn a_cache_that_cannot_be_written_is_told_and_done_without() {
    let world = monday();
    // A file where the directory should be.
    world.write("file", b"mine");
    let ended = world.run(&["-q", "--cache-dir", "file", "backup", "--vm", "db", "disk.raw"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the index is held in memory"), "{ended:?}");
    assert_eq!(world.read("file"), b"mine");

    fs::create_dir(world.path("sealed")).unwrap();
    let backup = ["-q", "--cache-dir", "sealed", "backup", "--vm", "mail", "disk.raw"];
    let ended = without_rights(&world, "sealed", &backup);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the index is held in memory"), "{ended:?}");
    assert_eq!(fs::read_dir(world.path("sealed")).unwrap().count(), 0);
}

#[test]
fn a_session_with_vcenter_is_ended_also_where_nothing_is_backed_up() {
    let world = monday();
    fs::create_dir(world.path("vcenter")).unwrap();
    let vcenter = VCenter::start(&world.path("vcenter"));
    let spec = VmSpec { disks: vec![DiskSpec::of(1 << 20)], ..VmSpec::default() };
    let _vm = vcenter.add_vm("DC/vm/web", &spec);
    world.write("vcenter-password", PASSWORD.as_bytes());
    let place = |vm: &str| format!("vsphere://{}/DC/vm/{vm}", vcenter.host());
    let trust = ["--vsphere-user", USER, "--vsphere-password-file", "vcenter-password"];
    let trust = [&trust[..], &["--vsphere-thumbprint", vcenter.thumbprint()]].concat();
    let fails = |command: &[&str], place: &str, why: &str| {
        let ended = world.run(&[command, &[place], &trust].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let said = ended.told();
        assert!(said.contains(why), "{command:?}: {said}");
        assert_eq!(vcenter.open_sessions(), 0, "{command:?}");
    };
    fails(&["backup"], &place("nothing"), "there is no virtual machine");
    fails(&["vsphere", "check"], &place("nothing"), "there is no virtual machine");
    fs::rename(world.path("repo"), world.path("moved")).unwrap();
    fails(&["backup"], &place("web"), "repo");
    assert_eq!(vcenter.count("Login"), 3);
}
