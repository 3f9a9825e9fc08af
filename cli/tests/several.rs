//! Backups of several VMs by one command.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod world;

use serde_json::Value;
use std::io::Read as _;
use std::process::Stdio;
use world::{Ended, MIB, World, keys, noise, text};

/// Images `a.raw` and so on, below a directory with the list of them.
fn machines(count: u8) -> World {
    let world = World::with_repository();
    std::fs::create_dir(world.path("lists")).unwrap();
    let one = |number: u8| {
        let name = char::from(b'a' + number);
        world.write(&format!("lists/{name}.raw"), &noise(u64::from(number) + 1, 2 * MIB));
        format!("[[vm]]\nname = \"{name}\"\nsource = \"{name}.raw\"\ntags = [\"nightly\"]\n")
    };
    let list: String = (0..count).map(one).collect();
    world.write("lists/vms.toml", list.as_bytes());
    world
}

const BACKUP: [&str; 3] = ["backup", "--list", "lists/vms.toml"];

fn names(report: &Value) -> Vec<(&str, i64)> {
    let one = |vm: &'_ Value| vm["exitCode"].as_i64().unwrap();
    report["vms"].as_array().unwrap().iter().map(|vm| (vm["vm"].as_str().unwrap(), one(vm))).collect()
}

#[test]
fn all_vms_of_a_list_are_backed_up_with_paths_that_count_from_it() {
    let world = machines(6);
    let report = world.report(&BACKUP);
    assert_eq!(names(&report), [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("e", 0), ("f", 0)]);
    assert_eq!((&report["failed"], &report["exitCode"]), (&0.into(), &0.into()));
    let members =
        ["vms", "failed", "exitCode", "requests", "bytesOut", "bytesIn", "elapsedMs", "peakRssBytes"];
    let mut found = keys(&report);
    found.sort_unstable();
    let mut expected = members.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for vm in report["vms"].as_array().unwrap() {
        let backup = &vm["backup"];
        assert_eq!((text(backup, "vm"), &backup["disks"][0]["mode"]), (text(vm, "vm"), &"full".into()));
        let restored = format!("{}.restored", text(vm, "vm"));
        world.run(&["restore", &text(backup, "snapshot"), "--to", &restored]).done();
        assert!(world.read(&restored) == world.read(&format!("lists/{}.raw", text(vm, "vm"))));
    }
    let listed = world.report(&["snapshots", "--vm", "c"]);
    assert_eq!(listed["snapshots"][0]["tags"], serde_json::json!(["nightly"]));
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn a_vm_that_fails_keeps_no_other_from_being_backed_up() {
    let world = machines(5);
    std::fs::remove_file(world.path("lists/b.raw")).unwrap();
    world.write("lists/d.raw", b"");
    let ended = world.run(&[&["--json"], &BACKUP[..], &["--parallel", "2"]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = ended.json();
    assert_eq!(names(&report), [("a", 0), ("b", 1), ("c", 0), ("d", 1), ("e", 0)]);
    assert_eq!(report["failed"], 2);
    let b = &report["vms"][1];
    assert!(text(b, "error").contains("b.raw"), "{b}");
    assert_eq!(keys(b), ["elapsedMs", "error", "exitCode", "hint", "vm"]);
    assert!(ended.stderr.contains("keepstone: b: the backup failed\nkeepstone: error: "), "{}", ended.stderr);
    assert_eq!(world.report(&["snapshots"])["snapshots"].as_array().unwrap().len(), 3);
}

#[test]
fn each_vm_builds_on_its_own_newest_snapshot_and_the_exit_code_is_the_worst() {
    let world = machines(2);
    let list = |since_a: &str, since_b: &str| {
        world.changes("lists/a.json", 2 * MIB, Some(since_a), "a2", &[3]);
        world.changes("lists/b.json", 2 * MIB, Some(since_b), "b2", &[4]);
        let of = |vm: &str| {
            format!(
                "[[vm]]\nname = \"{vm}\"\ndisks = {{ sys = {{ source = \"{vm}.raw\", changes = \"{vm}.json\" }} }}\n"
            )
        };
        world.write("lists/vms.toml", (of("a") + &of("b")).as_bytes());
    };
    world.changes("lists/a.json", 2 * MIB, None, "a1", &[]);
    world.changes("lists/b.json", 2 * MIB, None, "b1", &[]);
    for vm in ["a", "b"] {
        let disk = format!("sys=lists/{vm}.raw");
        world.run(&["backup", "--vm", vm, "--disk", &disk, "--changes", &format!("lists/{vm}.json")]).done();
    }
    list("a1", "lost");
    let ended = world.run(&[&["--json"], &BACKUP[..]].concat());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let report = ended.json();
    assert_eq!(names(&report), [("a", 0), ("b", 4)]);
    let modes: Vec<&Value> =
        report["vms"].as_array().unwrap().iter().map(|vm| &vm["backup"]["disks"][0]["mode"]).collect();
    assert_eq!(modes, ["incremental", "full"]);
    assert!(ended.stderr.contains("keepstone: warning: b: disk sys was read in full"), "{}", ended.stderr);
}

#[test]
fn what_is_wrong_with_a_list_is_told_before_anything_is_done() {
    let world = machines(1);
    let vm = "[[vm]]\nname = \"a\"\nsource = \"a.raw\"\n";
    let wrong = [
        (String::new(), "missing field `vm`"),
        ("vm = []\n".to_owned(), "the list names no VM"),
        (vm.repeat(2), "\"a\" is named twice"),
        ("[[vm]]\nsource = \"a.raw\"\n".to_owned(), "VM 1, a.raw: it has no name"),
        ("[[vm]]\nname = \"a\"\n".to_owned(), "a: it has neither source nor disks"),
        (format!("{vm}disks = {{ b = \"a.raw\" }}\n"), "a: it has both source and disks"),
        (format!("{vm}sise = 3\n"), "unknown field `sise`"),
        (format!("{vm}since = \"a@latest\"\n"), "a: it has since and no bitmap"),
        (format!("{vm}bitmap = \"day\"\n"), "VM 1, a: --bitmap day: no disk is read over NBD"),
        (
            format!("{vm}[[vm]]\nname = \"b\"\nsource = \"a.raw\"\nexclude-disks = [\"scsi0-1\"]\n"),
            "VM 2, b: ",
        ),
    ];
    for (list, expected) in wrong {
        world.write("lists/vms.toml", list.as_bytes());
        let ended = world.run(&BACKUP);
        assert_eq!(ended.code, Some(2), "{list}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{list}: {}", ended.stderr);
    }
    for list in ["lists/missing.toml", "lists", "lists/a.raw", "/dev/zero"] {
        let ended = world.run(&["backup", "--list", list]);
        assert_eq!(ended.code, Some(2), "{list}: {ended:?}");
        assert!(ended.stderr.contains(&format!("the list {list} cannot be used: ")), "{ended:?}");
    }
    let several = world.run(&["backup", "lists/a.raw", "lists/b.raw"]);
    assert_eq!(several.code, Some(2), "{several:?}");
    assert!(several.stderr.contains("no VM in vSphere"), "{several:?}");
    let single = world.run(&["backup", "--vm", "a", "lists/a.raw", "--parallel", "2"]);
    assert_eq!(single.code, Some(2), "{single:?}");
    assert!(single.stderr.contains("only for several VMs"), "{single:?}");
    assert_eq!(world.report(&["snapshots"])["snapshots"], serde_json::json!([]));
}

#[test]
fn what_a_list_says_is_told_without_secrets_control_characters_and_great_lengths() {
    let world = machines(1);
    let long = "x".repeat(1 << 20);
    let wrong = [
        ("[[vm]]\nvsphere-password = \"hunter2\"\n".to_owned(), "line 2: unknown field `vsphere-password`"),
        ("[[vm]]\nname = \"a\"\nsource = \"vsphere://u:hunter2@host/DC/vm/a\n".to_owned(), "line 3: "),
        (
            "[[vm]]\nsource = \"vsphere://u:hunter2@host/DC/vm/a\"\ndisks = { b = \"b\" }\n".to_owned(),
            "VM 1: it has",
        ),
        ("[[vm]]\nname = \"a\\u001b[2J\\u0007\\u009b\"\n".to_owned(), "VM 1, a\\u{1b}[2J\\u{7}\\u{9b}: "),
        ("[[vm]]\n\"\\u001b\\u009b\" = 1\n".to_owned(), "unknown field `\\u{1b}\\u{9b}`"),
        (format!("[[vm]]\nname = \"{long}\"\n"), "xxx\u{2026}: "),
        (format!("[[vm]]\n{long} = 1\n"), "xxx\u{2026}"),
    ];
    for (list, expected) in wrong {
        world.write("lists/vms.toml", list.as_bytes());
        let ended = world.run(&BACKUP);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let told = &ended.stderr;
        assert!(told.contains(expected), "{expected}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
        assert!(!told.contains(|character: char| character.is_control() && character != '\n'), "{told:?}");
        assert!(told.len() < 1000, "{expected}: {}", told.len());
    }
}

#[test]
fn an_interruption_ends_all_of_them_cleanly() {
    let world = machines(4);
    for name in ["a", "b", "c", "d"] {
        world.write(&format!("lists/{name}.raw"), &noise(7 + u64::from(name.as_bytes()[0]), 24 * MIB));
    }
    let arguments =
        [&["--json", "-v", "--threads", "1"], &BACKUP[..], &["--parallel", "2", "--compression", "19"]]
            .concat();
    let mut command = world.command(&arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let (mut told, mut some) = (Vec::new(), [0; 1024]);
    while String::from_utf8_lossy(&told).matches("phase=Backup").count() < 2 {
        let len = stderr.read(&mut some).unwrap();
        assert_ne!(len, 0, "the backups never began");
        told.extend_from_slice(&some[..len]);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    stderr.read_to_end(&mut told).unwrap();
    let ended = Ended::of(child.wait_with_output());
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let report = ended.json();
    assert_eq!(names(&report), [("a", 130), ("b", 130), ("c", 130), ("d", 130)]);
    // Every session that was begun was ended: the next backup has nothing to end, and no need to wait.
    let report = world.report(&BACKUP);
    assert_eq!(report["failed"], 0);
}
