//! Verifying a part of the data in each run, as a user calls it.

mod world;

use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use world::{Ended, MIB, World, keys, noise};

/// A repository with three VMs, each with a data pack and a map pack.
fn world() -> World {
    let world = World::with_repository();
    for (seed, vm) in [(1, "web"), (2, "mail"), (3, "files")] {
        world.write("disk.raw", &noise(seed, MIB));
        world.run(&["backup", "--vm", vm, "disk.raw"]).done();
    }
    world
}

/// All packs of the repository.
fn packs(world: &World) -> Vec<PathBuf> {
    let files = |kind: &str| {
        let files = fs::read_dir(world.path("repo").join(kind).join("default")).expect("packs are there");
        files.map(|file| file.expect("a file").path())
    };
    let mut packs: Vec<PathBuf> = files("d").chain(files("m")).collect();
    packs.sort();
    packs
}

fn bytes(world: &World) -> u64 {
    packs(world).iter().map(|pack| fs::metadata(pack).expect("a file").len()).sum()
}

fn number(report: &Value, member: &str) -> u64 {
    report["verified"][member].as_u64().unwrap_or_else(|| panic!("{member} of {report} is no number"))
}

#[test]
fn four_runs_of_a_quarter_read_everything() {
    let world = world();
    let all = bytes(&world);
    let report = world.report(&["verify"]);
    assert_eq!(report["verified"], json!({"bytes": 0, "neverBytes": all, "damagedBytes": 0, "oldest": null}));
    let mut known = 0;
    for run in 1..=4 {
        let report = world.report(&["verify", "--read-data=25"]);
        assert_eq!(keys(&report["verified"]), ["bytes", "damagedBytes", "neverBytes", "oldest"]);
        assert!(report["readBytes"].as_u64().is_some_and(|read| read * 4 >= all && read < all), "{report}");
        known = number(&report, "bytes");
        assert!(known * 4 >= all * run && known + number(&report, "neverBytes") == all, "{report}");
        assert!(report["verified"]["oldest"].as_str().is_some_and(|time| time.ends_with('Z')), "{report}");
    }
    assert_eq!(known, all);
    let text = world.run(&["verify"]).done();
    assert!(
        text.contains("no data was read now") && text.contains("all data was last read within 1 day"),
        "{text}"
    );
}

#[test]
fn the_text_tells_what_was_never_read() {
    let world = world();
    let text = world.run(&["verify", "--read-data=1"]).done();
    assert!(
        text.contains(" have never been read") && text.contains(" were last read within 1 day"),
        "{text}"
    );
    assert!(!text.contains("all data"), "{text}");
    let text = world.run(&["verify", "--read-data"]).done();
    assert!(text.contains("all data was last read within 1 day") && !text.contains("never"), "{text}");
}

#[test]
fn a_part_is_written_behind_an_equals_sign_and_more_than_nothing() {
    let world = world();
    let all = bytes(&world);
    for (flag, whole) in [("--read-data", true), ("--read-data=100", true), ("--read-data=0.0001", false)] {
        let report = world.report(&["verify", flag]);
        assert_eq!(report["readBytes"] == all, whole, "{flag}: {report}");
    }
    for flag in [
        "--read-data=0",
        "--read-data=0.0",
        "--read-data=101",
        "--read-data=-1",
        "--read-data=",
        "--read-data=x",
    ] {
        let ended = world.run(&["verify", flag]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{flag}: {}", ended.stderr);
        assert!(ended.stderr.contains("--read-data"), "{}", ended.stderr);
    }
    // What follows is a snapshot, and no number that could be meant as a part is long enough for an id.
    for part in ["10", "100", "0.5"] {
        let ended = world.run(&["verify", "--read-data", part]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("SNAPSHOT"), "{}", ended.stderr);
    }
    world.run(&["verify", "--read-data", "web@latest"]).done();
}

#[test]
fn damage_is_told_until_it_is_gone() {
    let world = world();
    world.run(&["verify", "--read-data"]).done();
    let pack = packs(&world)[0].clone();
    let sound = fs::read(&pack).expect("the pack is read");
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    let put = |bytes: &[u8]| {
        fs::remove_file(&pack).expect("the pack goes away");
        fs::write(&pack, bytes).expect("the pack is written");
    };
    put(&damaged);
    let told = |arguments: &[&str]| -> Ended { world.run(&[&["--json", "verify"], arguments].concat()) };
    assert_eq!(told(&[]).code, Some(0), "nobody has read it");
    for arguments in [&["--read-data"][..], &["--read-data=0.0001"], &[], &["--read-data=0.0001"]] {
        let ended = told(arguments);
        assert_eq!(ended.code, Some(3), "{arguments:?}: {ended:?}");
        assert_eq!(number(&ended.json(), "damagedBytes"), sound.len() as u64);
    }
    assert!(world.run(&["verify"]).stdout.contains("were damaged when they were last read"));
    put(&sound);
    for arguments in [&[][..], &["--read-data=0.0001"]] {
        let ended = told(arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(number(&ended.json(), "damagedBytes"), 0);
    }
}

#[test]
fn without_a_cache_directory_nothing_is_remembered_and_that_is_said() {
    let world = world();
    world.write("file", b"no directory");
    let ended = world.run(&["--json", "--cache-dir", "file", "verify", "--read-data=25"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("chooses at random each time"), "{}", ended.stderr);
    let report = ended.json();
    assert_eq!(number(&report, "bytes"), report["readBytes"]);
    let mut homeless = world.command(&["verify", "--read-data"]);
    let ended = Ended::of(homeless.env_remove("HOME").output());
    assert!(ended.stderr.contains("there is no cache directory"), "{}", ended.stderr);
    assert!(ended.done().contains("all data was last read within 1 day"));
}
