//! Listing packs again, as users do it.

mod world;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use world::{MIB, World, keys, noise, text};

const HINT: &str =
    "  hint: `keepstone repair index` lists packs again that no index lists; restores need none\n";

/// A repository with a backup of `disk.raw`.
fn backed_up() -> World {
    let world = World::with_repository();
    world.write("disk.raw", &noise(1, MIB));
    world.run(&["backup", "--vm", "web", "disk.raw"]).done();
    world
}

/// All files below a directory of the repository, by their names in the repository.
fn names(world: &World, below: &str) -> BTreeSet<String> {
    let root = world.path("repo");
    let mut waiting: Vec<PathBuf> = vec![root.join(below)];
    let mut names = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("the directory is read");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else {
            let name: &Path = path.strip_prefix(&root).expect("it is below the repository");
            names.insert(name.to_str().expect("names are text").to_owned());
        }
    }
    names
}

/// Loses all indexes, and the cache, which has copies.
fn lose_indexes(world: &World) -> BTreeSet<String> {
    let lost = names(world, "i");
    for name in &lost {
        fs::remove_file(world.path("repo").join(name)).expect("the index is there");
    }
    fs::remove_dir_all(world.path("home/.cache")).expect("the cache is there");
    lost
}

/// A report without what differs from run to run.
fn without_figures(mut report: Value) -> Value {
    let members = report.as_object_mut().expect("an object");
    for key in ["requests", "bytesIn", "bytesOut", "elapsedMs", "peakRssBytes"] {
        members.remove(key).unwrap_or_else(|| panic!("no {key}"));
    }
    report
}

#[test]
fn after_indexes_and_cache_are_lost_a_repair_finds_every_chunk_again() {
    let world = backed_up();
    let lost = lose_indexes(&world);
    let ended = world.run(&["verify"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let missing =
        format!("attention: {}: 1 packs of the snapshot ", lost.first().expect("an index was lost"));
    assert!(ended.stdout.contains(&missing) && ended.stdout.contains(HINT), "{ended:?}");

    let before = names(&world, "");
    let planned = world.run(&["repair", "index", "--dry-run"]).done();
    assert_eq!(names(&world, ""), before);
    assert!(planned.starts_with("1 pack in no readable index: 1 pack with "), "{planned}");
    assert!(planned.lines().next().expect("a line").ends_with(" chunks would be listed"), "{planned}");

    let done = world.run(&["repair", "index"]).done();
    assert!(done.lines().next().expect("a line").ends_with(" chunks listed anew"), "{done}");
    let new = names(&world, "i");
    assert_eq!(new.len(), 1);
    let name = new.first().expect("there is one");
    assert!(!lost.contains(name) && done.contains(&format!("new index: {name}\n")), "{done}");
    assert_eq!(names(&world, "d"), before.iter().filter(|name| name.starts_with("d/")).cloned().collect());
    assert_eq!(world.report(&["verify", "--read-data"])["findings"], json!([]));

    let backup = world.report(&["backup", "--vm", "mail", "disk.raw"]);
    assert_eq!((&backup["newChunks"], &backup["newBytes"]), (&json!(0), &json!(0)));
    world.run(&["restore", "mail@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == world.read("disk.raw"), "the disk is another one");

    let before = names(&world, "");
    let again = world.run(&["repair", "index"]).done();
    assert!(
        again.starts_with("0 packs in no readable index: 0 packs with 0 chunks listed anew\n"),
        "{again}"
    );
    assert_eq!(names(&world, ""), before);
}

#[test]
fn a_repair_reports_the_same_in_json() {
    let world = backed_up();
    lose_indexes(&world);
    let planned = world.report(&["repair", "index", "--dry-run"]);
    let members = [
        "dryRun",
        "packs",
        "listed",
        "chunks",
        "indexes",
        "unreadableIndexes",
        "unreadablePacks",
        "requests",
        "bytesIn",
        "bytesOut",
        "elapsedMs",
        "peakRssBytes",
    ];
    assert_eq!(keys(&planned).into_iter().collect::<BTreeSet<_>>(), members.into_iter().collect());
    let planned = without_figures(planned);
    let done = without_figures(world.report(&["repair", "index"]));
    let chunks = planned["chunks"].as_u64().expect("a number");
    assert!(chunks > 10, "{planned}");
    let report = |dry_run: bool, packs: u64, chunks: u64, indexes: Vec<String>| {
        json!({
            "dryRun": dry_run, "packs": packs, "listed": packs, "chunks": chunks, "indexes": indexes,
            "unreadableIndexes": [], "unreadablePacks": [],
        })
    };
    assert_eq!(planned, report(true, 1, chunks, Vec::new()));
    assert_eq!(done, report(false, 1, chunks, names(&world, "i").into_iter().collect()));
    let again = without_figures(world.report(&["repair", "index"]));
    assert_eq!(again, report(false, 0, 0, Vec::new()));
}

#[test]
fn a_damaged_pack_is_named_and_is_no_success() {
    let world = backed_up();
    world.write("disk.raw", &noise(2, MIB));
    world.run(&["backup", "--vm", "mail", "disk.raw"]).done();
    lose_indexes(&world);
    let pack = names(&world, "d").pop_first().expect("there are packs");
    let path = format!("repo/{pack}");
    let mut bytes = world.read(&path);
    *bytes.last_mut().expect("a pack is long") ^= 1;
    // Files of a repository cannot be written to.
    fs::remove_file(world.path(&path)).expect("the pack is there");
    world.write(&path, &bytes);

    let ended = world.run(&["--json", "repair", "index", "--dry-run"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let report = ended.json();
    let unreadable = &report["unreadablePacks"];
    assert_eq!((text(&unreadable[0], "blob"), &unreadable[0]["needed"]), (pack.clone(), &json!(true)));
    assert_eq!(
        (&report["packs"], &report["listed"], unreadable.as_array().map(Vec::len)),
        (&json!(2), &json!(1), Some(1))
    );
    let ended = world.run(&["repair", "index"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.starts_with("2 packs in no readable index: 1 pack with "), "{ended:?}");
    assert!(ended.stdout.contains(&format!("DAMAGE: {pack}: ")), "{ended:?}");
    // The other pack is listed all the same.
    assert_eq!(names(&world, "i").len(), 1);
}
