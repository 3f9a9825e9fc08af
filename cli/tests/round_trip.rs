//! Disks go in, every day comes back out.

mod world;

use serde_json::{Value, json};
use std::process::Stdio;
use world::{Ended, MIB, World, keys, noise, text};

/// Two days of one disk of 8 MiB: on the second, two areas of 64 KiB are others.
fn two_days(world: &World) -> (Vec<u8>, Vec<u8>) {
    let mut disk = noise(1, 6 * MIB);
    disk.resize(8 * MIB, 0);
    world.write("day0.raw", &disk);
    let first = disk.clone();
    for area in [3, 90] {
        disk[area << 16..(area + 1) << 16].copy_from_slice(&noise(area as u64, 1 << 16));
    }
    world.write("day1.raw", &disk);
    world.changes("day0.json", 8 * MIB, None, "0", &(0..96).collect::<Vec<_>>());
    world.changes("day1.json", 8 * MIB, Some("0"), "1", &[3, 90]);
    (first, disk)
}

#[test]
fn both_days_come_back() {
    let world = World::with_repository();
    let (day0, day1) = two_days(&world);
    let first = world.report(&["backup", "--vm", "web", "day0.raw", "--changes", "day0.json"]);
    let second =
        world.report(&["backup", "--vm", "web", "day1.raw", "--changes", "day1.json", "--tag", "daily"]);
    let (first, second) = (text(&first, "snapshot"), text(&second, "snapshot"));

    world.run(&["restore", &first[..8], "--to", "0.raw"]).done();
    world.run(&["restore", "web@latest", "--to", "1.raw"]).done();
    assert!(world.read("0.raw") == day0, "the first day is another one");
    assert!(world.read("1.raw") == day1, "the second day is another one");

    let listed = world.report(&["snapshots", "--vm", "web"]);
    let listed = listed["snapshots"].as_array().unwrap();
    assert_eq!(keys(&listed[0]), ["disks", "pinned", "snapshot", "tags", "time", "vm"]);
    assert_eq!((text(&listed[0], "snapshot"), text(&listed[1], "snapshot")), (first.clone(), second.clone()));
    assert_eq!(listed[1]["disks"], json!([{"key": "disk0", "diskBytes": 8 * MIB, "changeId": "1"}]));
    assert_eq!(listed[1]["tags"], json!(["daily"]));

    // A time that a report shows finds that snapshot.
    let at = format!("web@{}", text(&listed[0], "time"));
    let shown = world.report(&["show", &at]);
    assert_eq!((text(&shown, "snapshot"), &shown["parent"]), (first.clone(), &json!(null)));
    let shown = world.report(&["show", &second]);
    assert_eq!(text(&shown, "parent"), first);
    assert_eq!(shown["reading"][0]["mode"], "incremental");

    let verified = world.report(&["verify", "--read-data"]);
    assert_eq!((&verified["snapshots"], &verified["findings"]), (&json!(2), &json!([])));
    let stats = world.report(&["stats"]);
    assert_eq!((&stats["snapshots"], &stats["logicalBytes"]), (&json!(2), &json!(16 * MIB)));
}

#[test]
fn the_reports_of_backups_have_what_was_promised() {
    let world = World::with_repository();
    two_days(&world);
    let full = world.report(&["backup", "--vm", "web", "day0.raw", "--changes", "day0.json"]);
    let promised = [
        "bytesIn",
        "bytesOut",
        "chunks",
        "disks",
        "elapsedMs",
        "metadataBytes",
        "newBytes",
        "newChunks",
        "packs",
        "peakRssBytes",
        "requests",
        "snapshot",
        "storedBytes",
        "vm",
    ];
    assert_eq!(keys(&full), promised);
    assert_eq!(keys(&full["requests"]), ["delete", "get", "list", "put", "retries", "throttled"]);
    assert_eq!(
        full["disks"],
        json!([{
            "key": "disk0",
            "diskBytes": 8 * MIB,
            "mode": "full",
            "fullReason": "there is no earlier snapshot of this disk",
            "changedBytes": 8 * MIB,
            "readBytes": 8 * MIB,
            "changeId": "0",
            "audit": null,
        }])
    );
    let incremental = world.report(&["backup", "--vm", "web", "day1.raw", "--changes", "day1.json"]);
    let disk = &incremental["disks"][0];
    assert_eq!((&disk["mode"], &disk["fullReason"]), (&json!("incremental"), &json!(null)));
    assert_eq!(disk["changedBytes"], 2 << 16);
    assert!(disk["readBytes"].as_u64().unwrap() < MIB as u64, "{disk}");
}

#[test]
fn a_diff_has_the_fields_of_a_changes_file() {
    let world = World::with_repository();
    two_days(&world);
    world.run(&["backup", "--vm", "web", "day0.raw", "--changes", "day0.json"]).done();
    let first = text(&world.report(&["show", "web@latest"]), "snapshot");
    world.run(&["backup", "--vm", "web", "day1.raw", "--changes", "day1.json"]).done();
    let diff = world.report(&["diff", &first, "web@latest"]);
    assert_eq!(
        (&diff["diskSize"], &diff["since"], &diff["changeId"]),
        (&json!(8 * MIB), &json!("0"), &json!("1"))
    );
    let areas = diff["changedArea"].as_array().unwrap();
    for changed in [3_u64, 90] {
        let covered = areas.iter().any(|area| {
            let (start, length) = (area["start"].as_u64().unwrap(), area["length"].as_u64().unwrap());
            start <= changed << 16 && (changed + 1) << 16 <= start + length
        });
        assert!(covered, "area {changed} is not in {areas:?}");
    }
    let nothing = world.run(&["diff", "web@latest", "web@latest"]).done();
    assert_eq!(nothing, "disk disk0 of 8.0 MiB: 0 bytes in 0 areas may differ\n");
}

#[test]
fn disks_of_one_vm_are_restored_by_their_keys() {
    let world = World::with_repository();
    let (system, data) = (noise(1, MIB), noise(2, 2 * MIB));
    world.write("system.raw", &system);
    world.write("data.raw", &data);
    world.changes("data.json", 2 * MIB, None, "d0", &[0]);
    let disks = ["--disk", "system=system.raw", "--disk", "data=data.raw", "--changes", "data=data.json"];
    let report = world.report(&[&["backup", "--vm", "db"], &disks[..]].concat());
    assert_eq!(report["disks"].as_array().unwrap().len(), 2);
    assert_eq!(
        world.run(&["restore", "db@latest", "--to", "out.raw"]).told(),
        "keepstone: error: the snapshot has 2 disks: data, system\n  hint: name one of them with --disk\nexit code 1"
    );
    world.run(&["restore", "db@latest", "--disk", "data", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == data, "the disk is another one");
}

#[test]
fn a_disk_goes_to_standard_output_and_its_report_to_standard_error() {
    let world = World::with_repository();
    let (day0, _) = two_days(&world);
    world.run(&["backup", "--vm", "web", "day0.raw"]).done();
    let output = world.command(&["restore", "web@latest", "--to", "-", "--json"]).output().unwrap();
    assert!(output.stdout == day0, "the disk is another one");
    let report: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    let promised = [
        "auditedRegions",
        "bytesIn",
        "bytesOut",
        "comparedBytes",
        "disk",
        "diskBytes",
        "elapsedMs",
        "fetchedBytes",
        "format",
        "imageBytes",
        "lost",
        "lostBytes",
        "lostJoined",
        "neededBytes",
        "peakRssBytes",
        "requests",
        "snapshot",
        "unchangedBytes",
        "untold",
        "writtenBytes",
        "zeroBytes",
    ];
    assert_eq!((keys(&report), &report["diskBytes"]), (promised.to_vec(), &json!(8 * MIB)));
}

#[test]
fn lost_change_tracking_is_made_up_for_and_told() {
    let world = World::with_repository();
    two_days(&world);
    world.run(&["backup", "--vm", "web", "day0.raw", "--changes", "day0.json"]).done();
    world.changes("other.json", 8 * MIB, Some("7"), "8", &[3]);
    let ended = world.run(&["backup", "--vm", "web", "day1.raw", "--changes", "other.json", "--json"]);
    let reason = "the changes count from 7, but the last snapshot recorded 0";
    assert_eq!(ended.stderr, format!("keepstone: warning: disk disk0 was read in full: {reason}\n"));
    assert_eq!((ended.code, &ended.json()["disks"][0]["fullReason"]), (Some(4), &json!(reason)));
    // What was asked for needs no attention.
    world.changes("next.json", 8 * MIB, Some("8"), "9", &[3]);
    let full = world.report(&["backup", "--vm", "web", "day1.raw", "--changes", "next.json", "--full"]);
    assert_eq!(full["disks"][0]["fullReason"], "a full backup was asked for");
}

/// A member of each object of a list, as text.
fn members<'v>(list: &'v Value, name: &str) -> Vec<&'v str> {
    let member = |item: &'v Value| item[name].as_str().expect("a text");
    list.as_array().expect("a list").iter().map(member).collect()
}

#[test]
fn the_retention_gets_a_password_of_its_own_or_init_says_what_that_means() {
    let world = World::new();
    world.write("retention", b"tr0ub4dor");
    let told = world.run(&["init", "--retention-password-file", "retention"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stderr.contains("keep the retention password safe"), "{told:?}");
    assert!(!told.stderr.contains("tr0ub4dor") && !told.stdout.contains("tr0ub4dor"), "{told:?}");
    world.write("new", b"battery staple");
    let add = |more: &[&str]| {
        let arguments = ["key", "add", "other", "--kind", "retention", "--new-password-file", "new"];
        world.run(&[arguments.as_slice(), more].concat())
    };
    // The repository's password opens no retention slot.
    let refused = add(&[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("the password opens no retention key slot"), "{refused:?}");
    assert!(refused.stderr.contains("--retention-password-file"), "{refused:?}");
    add(&["--retention-password-file", "retention"]).done();
    world.run(&["key", "remove", "retention"]).done();
    let last = world.run(&["key", "remove", "other"]);
    assert!(last.stderr.contains("other is the only retention slot"), "{last:?}");

    let world = World::new();
    let report = world.report(&["init"]);
    assert_eq!((&report["onePassword"], &report["retentionSlot"]), (&json!(true), &json!("retention")));
    let told = World::new().run(&["init"]);
    assert!(told.stderr.contains("this password also forgets and prunes"), "{told:?}");
    assert!(told.stderr.contains("keepstone key add NAME --kind retention"), "{told:?}");
}

#[test]
fn an_inventory_password_lists_and_verifies_and_reads_no_data() {
    let world = World::with_repository();
    world.write("disk", &vec![7; 102_400]);
    world.report(&["backup", "--vm", "web", "disk"]);
    world.write("names", b"names only");
    world.run(&["key", "add", "names", "--kind", "inventory", "--new-password-file", "names"]).done();
    let with_names = |arguments: &[&str]| {
        let arguments = [&["-r", "repo", "--password-file", "names"], arguments].concat();
        Ended::of(world.bare(world::PROGRAM).args(arguments).output())
    };
    assert!(with_names(&["snapshots"]).done().contains("web"));
    with_names(&["verify"]).done();
    for refused in [
        ["backup", "--vm", "web", "disk"].as_slice(),
        &["restore", "web@latest", "--to", "restored"],
        &["verify", "--read-data"],
    ] {
        let ended = with_names(refused);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("this needs the data key"), "{ended:?}");
        assert!(ended.stderr.contains("root key slot"), "{ended:?}");
    }
    assert!(!world.path("restored").exists());
}

#[test]
fn passwords_come_and_go() {
    let world = World::with_repository();
    world.write("other", b"battery staple");
    world.run(&["key", "add", "second", "--label", "the safe", "--new-password-file", "other"]).done();
    let slots = world.report(&["key", "list"])["slots"].clone();
    let names = members(&slots, "slot");
    assert_eq!((names, &slots[2]["label"]), (vec!["first", "retention", "second"], &json!("the safe")));
    assert_eq!(members(&slots, "kind"), ["root", "retention", "root"]);

    let with_other = |arguments: &[&str]| {
        Ended::of(
            world
                .bare(world::PROGRAM)
                .args(["-r", "repo", "--password-file", "other"])
                .args(arguments)
                .output(),
        )
    };
    with_other(&["snapshots"]).done();
    with_other(&["key", "remove", "first"]).done();
    assert_eq!(world.run(&["snapshots"]).code, Some(1));
    assert_eq!(
        with_other(&["key", "remove", "second"]).told(),
        "keepstone: error: key slot second is the only root slot; without it nothing could be read again\n  \
         hint: add another slot first, with `keepstone key add`\nexit code 1"
    );
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_profile() {
    let world = World::with_repository();
    world.write(
        "profile.toml",
        b"repository = 'repo'\npassword-command = 'cat password'\nwriter = 'from-profile'\n",
    );
    world.write("disk.raw", &noise(1, MIB));
    let backup = ["--profile", "profile.toml", "backup", "--vm", "web", "disk.raw", "--json"];
    let writer = |command: &mut std::process::Command| {
        let snapshot = text(&Ended::of(command.output()).json(), "snapshot");
        text(&world.report(&["show", &snapshot]), "writer")
    };
    assert_eq!(writer(world.bare(world::PROGRAM).args(backup)), "from-profile");
    let variable = ("KEEPSTONE_WRITER", "from-environment");
    assert_eq!(
        writer(world.bare(world::PROGRAM).args(backup).env(variable.0, variable.1)),
        "from-environment"
    );
    let mut flag = world.bare(world::PROGRAM);
    assert_eq!(
        writer(flag.args(backup).args(["--writer", "from-flag"]).env(variable.0, variable.1)),
        "from-flag"
    );
    // A wrong password in the environment comes before the right one in the profile.
    let mut password = world.bare(world::PROGRAM);
    let ended = Ended::of(password.args(backup).env("KEEPSTONE_PASSWORD", "wrong").output());
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn a_second_vm_finds_the_chunks_of_the_first() {
    let world = World::with_repository();
    two_days(&world);
    world.run(&["backup", "--vm", "web", "day0.raw"]).done();
    let cached = world.report(&["backup", "--vm", "mail", "day0.raw"]);
    assert_eq!(cached["newChunks"], 0);
    // The cache is below a file, where no directory can be.
    let ended = world.run(&["backup", "--vm", "db", "day0.raw", "--cache-dir", "password/cache", "--json"]);
    assert_eq!((ended.code, &ended.json()["newChunks"]), (Some(0), &json!(0)));
    let warning = "keepstone: warning: the index is held in memory and fetched anew in every backup: ";
    assert!(ended.stderr.starts_with(warning), "{ended:?}");
}

#[test]
fn a_repository_keeps_the_chunker_that_it_was_made_with() {
    let chunkers: [(&[&str], _); 2] = [
        (&["init"], json!({"name": "mincdc-hash4", "min": 20_480, "average": 43_008, "max": 65_536})),
        (
            &["init", "--chunker", "fastcdc-2020"],
            json!({"name": "fastcdc-2020", "min": 8192, "average": 32_768, "max": 131_072}),
        ),
    ];
    for (init, chunker) in chunkers {
        let world = World::new();
        world.run(init).done();
        let config: Value = serde_json::from_slice(&world.read("repo/config")).unwrap();
        assert_eq!(config["chunker"], chunker);
        let (_, day1) = two_days(&world);
        world.run(&["backup", "--vm", "web", "day0.raw"]).done();
        // Two areas of 64 KiB are others.
        let report = world.report(&["backup", "--vm", "web", "day1.raw"]);
        assert!(report["newBytes"].as_u64().unwrap() < 1 << 20, "{report}");
        world.run(&["restore", "web@latest", "--to", "restored.raw"]).done();
        assert!(world.read("restored.raw") == day1, "the disk came back as another one");
    }
}

#[test]
fn damage_is_named_and_has_its_own_exit_code() {
    let world = World::with_repository();
    two_days(&world);
    world.run(&["backup", "--vm", "web", "day0.raw"]).done();
    let data = world.path("repo/d/default");
    let pack = std::fs::read_dir(data).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[MIB] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();

    let ended = world.run(&["verify", "--read-data", "--json"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let finding = &ended.json()["findings"][0];
    assert_eq!(keys(finding), ["affected", "blob", "detail", "kind"]);
    assert_eq!(finding["affected"][0]["vm"], "web");
    let text = world.run(&["verify", "--read-data"]);
    assert!(
        text.stdout.contains("DAMAGE: d/default/")
            && text.stdout.ends_with("1 damaged or missing object found\n"),
        "{text:?}"
    );

    let ended = world.run(&["restore", "web@latest", "--to", "out.raw"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(!world.path("out.raw").exists());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let world = World::with_repository();
    two_days(&world);
    world.run(&["backup", "--vm", "web", "day0.raw"]).done();
    let closed = |arguments: &[&str]| {
        let mut child = world
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        drop(child.stdout.take());
        let ended = Ended::of(child.wait_with_output());
        (ended.code, ended.stderr)
    };
    assert_eq!(closed(&["snapshots"]), (Some(0), String::new()));
    assert_eq!(closed(&["completions", "bash"]), (Some(0), String::new()));
}

#[test]
fn times_are_local_and_sizes_binary_in_tables() {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, 3 * MIB / 2));
    world.run(&["backup", "--vm", "web", "disk.raw", "--tag", "a", "--tag", "b"]).done();
    let shown = world.report(&["show", "web@latest"]);
    let time = text(&shown, "time").replace('T', " ");
    assert_eq!(
        world.run(&["snapshots"]).done(),
        format!(
            "SNAPSHOT      TIME                 VM      SIZE  DISKS  TAGS  PINNED\n{}  {}  web  1.5 MiB  disk0  a,b\n",
            &text(&shown, "snapshot")[..12],
            &time[..19]
        )
    );
}

#[test]
fn manual_pages_and_completions_are_made() {
    let world = World::new();
    world.run(&["man", "pages"]).done();
    let page = String::from_utf8(world.read("pages/keepstone-backup.1")).unwrap();
    assert!(page.contains("changes file"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.run(&["completions", shell]).done().contains("restore"));
    }
}
