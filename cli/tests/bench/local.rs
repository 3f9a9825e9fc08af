//! Runs on this machine and in local repositories.

use super::world::{Ended, MIB, World, keys, noise};
use super::{arguments, bench, files, with_scratch};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Stdio;

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

/// A spread whose median lies between its ends.
fn check_spread(spread: &Value) {
    let part = |key| spread[key].as_f64().expect("a number");
    assert!(0.0 < part("low") && part("low") <= part("median") && part("median") <= part("high"), "{spread}");
}

#[test]
fn a_run_measures_every_stage_request_and_whole_run() {
    let world = with_scratch(World::new());
    let report = bench(&world, &["--no-repository", "--threads=2", "--rounds=2", "--change-rates=0,1"]);
    assert_eq!(
        keys(&report),
        [
            "bottlenecks",
            "disk",
            "figures",
            "kind",
            "machine",
            "program",
            "recommendations",
            "requests",
            "runs",
            "setting",
            "stages",
            "time",
            "version"
        ]
    );
    assert_eq!((&report["kind"], &report["version"]), (&json!("keepstone-bench"), &json!(1)));
    assert_eq!((&report["setting"]["rounds"], &report["setting"]["threads"]), (&json!(2), &json!(2)));

    let stages: Vec<_> = list(&report["stages"])
        .iter()
        .map(|it| (it["stage"].as_str().unwrap(), whole(&it["threads"])))
        .collect();
    let names =
        ["read-cold", "read", "chunk", "hash", "chunk-hash", "compress", "decompress", "seal", "open"];
    let expected: Vec<_> = names.iter().flat_map(|name| [(*name, 1), (*name, 2)]).collect();
    assert_eq!(stages, expected);
    for stage in list(&report["stages"]) {
        check_spread(&stage["bytesPerSecond"]);
        assert_eq!(stage["ratio"].is_null(), stage["stage"] != "compress", "{stage}");
    }

    for request in list(&report["requests"]) {
        check_spread(&request["bytesPerSecond"]);
        let latency = ["p50", "p90", "p99", "max"].map(|key| whole(&request["latencyMicros"][key]));
        assert!(latency.is_sorted() && latency[0] > 0, "{request}");
        assert!(whole(&request["requests"]) >= 2 * whole(&request["atOnce"]), "two rounds: {request}");
    }
    let operations: Vec<_> =
        list(&report["requests"]).iter().map(|it| it["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, [&["put"; 6][..], &["get"; 9]].concat());

    let runs: Vec<_> =
        list(&report["runs"]).iter().map(|it| (it["run"].as_str().unwrap(), &it["changePpm"])).collect();
    let none = json!(null);
    let (zero, one) = (json!(0), json!(10_000));
    assert_eq!(
        runs,
        [
            ("full", &none),
            ("incremental", &zero),
            ("incremental", &one),
            ("restore", &none),
            ("restore-to-file", &none)
        ]
    );
}

#[test]
fn the_bytes_of_a_run_add_up() {
    let world = with_scratch(World::new());
    let report = bench(&world, &["--no-repository", "--change-rates=0,2"]);
    let [full, nothing, some, restore, to_file] = list(&report["runs"]) else { panic!("{report}") };
    let size = 8 * MIB as u64;
    let disk = &report["disk"];
    assert_eq!([&disk["sourceBytes"], &disk["measuredBytes"], &disk["sampleBytes"]].map(whole), [size; 3]);
    let mix: f64 = disk["mix"].as_object().expect("a mix").values().map(|part| part.as_f64().unwrap()).sum();
    assert!((mix - 1.0).abs() < 1e-9, "{disk}");

    assert_eq!((whole(&full["bytes"]), whole(&full["readBytes"])), (size, size));
    assert!(
        whole(&full["newBytes"]) < size && whole(&full["storedBytes"]) < whole(&full["newBytes"]),
        "{full}"
    );
    // Intent, index, decision, and the packs.
    assert_eq!(whole(&full["requests"]["put"]), 3 + whole(&full["packs"]), "{full}");

    assert_eq!(["bytes", "readBytes", "storedBytes", "packs"].map(|key| whole(&nothing[key])), [0; 4]);
    assert_eq!(whole(&nothing["requests"]["put"]), 2, "an intent and a decision: {nothing}");
    // 2 % of 8 MiB are 2.56 blocks of 64 KiB.
    assert_eq!(whole(&some["bytes"]), 3 << 16);
    assert!(whole(&some["readBytes"]) >= 3 << 16, "{some}");
    for restore in [restore, to_file] {
        assert!(whole(&restore["bytes"]) <= size && whole(&restore["fetchedBytes"]) > 0, "{restore}");
        assert_eq!(restore["requests"]["put"], 0);
    }
}

#[test]
fn an_image_is_only_read() {
    let world = with_scratch(World::new());
    let mut image = noise(1, 21 * MIB);
    image[3 * MIB..9 * MIB].fill(0);
    world.write("disk.raw", &image);
    let report = bench(&world, &["--no-repository", "--image", "disk.raw", "--change-rates=0"]);
    let disk = &report["disk"];
    assert_eq!(
        (&disk["image"], &disk["seed"], &disk["mix"]),
        (&json!("disk.raw"), &json!(null), &json!(null))
    );
    assert_eq!(whole(&disk["sourceBytes"]), 21 * MIB as u64);
    assert_eq!(whole(&disk["measuredBytes"]), 16 * MIB as u64, "a region of the image");
    assert!(world.read("disk.raw") == image, "the image is another one");
}

#[test]
fn a_repository_is_as_it_was_before() {
    let world = with_scratch(World::with_repository());
    world.write("disk.raw", &noise(1, 4 * MIB));
    world.run(&["-q", "backup", "--vm", "web", "disk.raw"]).done();
    let before = files(&world.path("repo"));
    let report = bench(&world, &["--change-rates=1"]);
    assert_eq!(
        (&report["setting"]["store"], &report["setting"]["place"]),
        (&json!("directory"), &json!("repo"))
    );
    assert!(whole(&report["figures"]["requests"]["delete"]) > 0, "{report}");
    assert!(files(&world.path("repo")) == before, "something stayed in the repository, or went");

    // What a killed run left is told, and removed only if that is asked for.
    let leftover = world.path("repo/bench/default/00112233445566778899aabbccddeeff/requests-0");
    std::fs::create_dir_all(&leftover).unwrap();
    std::fs::write(leftover.join("blob-000000"), b"left").unwrap();
    let told = world.run(&arguments(&["--change-rates=0"]));
    assert!(
        told.stderr.contains("warning: 1 blob of 4 bytes below bench/default/ are of a benchmark"),
        "{told:?}"
    );
    assert!(leftover.join("blob-000000").exists());
    // What no run writes is nobody's to remove.
    world.write("repo/bench/default/notes", b"mine");
    let removed = world.run(&arguments(&["--change-rates=0", "--remove-leftovers"]));
    assert_eq!(removed.code, Some(4), "{removed:?}");
    assert!(removed.stderr.contains("removed 1 blob of 4 bytes"), "{removed:?}");
    let told = "warning: 1 file below bench/default/ that no benchmark writes stayed: bench/default/notes\n";
    assert!(removed.stderr.contains(told), "{removed:?}");
    assert_eq!(world.read("repo/bench/default/notes"), b"mine");
    std::fs::remove_file(world.path("repo/bench/default/notes")).unwrap();
    std::fs::remove_dir(world.path("repo/bench/default")).unwrap();
    std::fs::remove_dir(world.path("repo/bench")).unwrap();
    assert!(files(&world.path("repo")) == before, "something stayed in the repository, or went");
}

#[test]
fn an_interrupted_run_removes_what_it_wrote() {
    let world = with_scratch(World::with_repository());
    let before = files(&world.path("repo"));
    let mut command =
        world.command(&["bench", "--rounds=100", "--millis=20", "--size=8MiB", "--scratch=scratch"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
    // Until it has stored something of a measurement.
    let own = world.path("repo/bench/default");
    let has_stored = || {
        let runs = std::fs::read_dir(&own).into_iter().flatten().flatten();
        runs.into_iter().any(|run| run.path().join("requests-0").exists())
    };
    while !has_stored() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it stored anything");
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut messages = String::new();
    child.stderr.take().unwrap().read_to_string(&mut messages).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{messages}");
    assert!(messages.ends_with("keepstone: error: interrupted\n"), "{messages}");
    assert!(files(&world.path("repo")) == before, "something stayed in the repository");
    assert_eq!(files(&world.path("scratch")), BTreeMap::new());
}

#[test]
fn the_report_is_text_for_people_and_survives_a_reader_who_has_seen_enough() {
    let world = with_scratch(World::new());
    let text = world.run(&arguments(&["--no-repository", "--change-rates=0"])).done();
    for part in
        ["synthetic, 8.0 MiB, seed 1: 29 % zeros", "chunk + hash", "compress, level 1", "put", "full backup"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let mut shell = world.bare("sh");
    let command =
        format!("{} {} | head -n 1", super::world::PROGRAM, arguments(&["--no-repository", "-q"]).join(" "));
    let headed = Ended::of(shell.args(["-c", &command]).output());
    // A machine that is busy is told of.
    assert!(headed.stderr.lines().all(|line| line.contains("the machine is busy")), "{headed:?}");
    assert_eq!((headed.code, headed.stdout.lines().count()), (Some(0), 1));
}
