//! Audits of changes files as users run them.

mod world;

use serde_json::{Value, json};
use world::{Ended, MIB, World, keys, noise, text};

const REGION: usize = 16 * MIB;

/// A repository with a backup of `disk.raw`, four regions and a bit, and `next.json`, which says that nothing changed.
fn backed_up() -> (World, Vec<u8>) {
    let world = World::with_repository();
    let mut disk = noise(1, 2 * MIB);
    disk.resize(4 * REGION + 5 * MIB, 0);
    world.write("disk.raw", &disk);
    world.changes("day0.json", disk.len(), None, "0", &(0..32).collect::<Vec<_>>());
    world.changes("next.json", disk.len(), Some("0"), "1", &[]);
    world.run(&["backup", "--vm", "web", "disk.raw", "--changes", "day0.json"]).done();
    (world, disk)
}

fn back_up(world: &World, options: &[&str]) -> Ended {
    world.run(&[&["backup", "--vm", "web", "disk.raw", "--changes", "next.json"], options].concat())
}

fn audit_of(ended: &Ended) -> Value {
    ended.json()["disks"][0]["audit"].clone()
}

/// The line of the text that tells of the audit.
fn audit_line(ended: &Ended) -> &str {
    ended.stdout.lines().find(|line| line.contains("audited")).expect("an audit is told")
}

#[test]
fn a_complete_audit_of_true_changes_finds_nothing() {
    let (world, disk) = backed_up();
    let ended = back_up(&world, &["--audit", "100", "--audit-seed", "7", "--json"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let expected = json!({
        "share": 100.0, "seed": 7, "regions": 5, "ofRegions": 5, "auditedBytes": disk.len(), "mismatches": [],
    });
    assert_eq!(audit_of(&ended), expected);
    assert_eq!((&ended.json()["packs"], &ended.json()["disks"][0]["readBytes"]), (&json!(0), &json!(0)));
    assert_eq!(world.report(&["show", "web@latest"])["properties"], json!({}));
}

#[test]
fn a_lie_is_told_put_right_and_remembered() {
    let (world, mut disk) = backed_up();
    disk[MIB..MIB + 4].copy_from_slice(b"lies");
    disk[3 * REGION] = 1;
    world.write("disk.raw", &disk);
    let ended = back_up(&world, &["--audit", "100", "--audit-seed", "7"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let line = audit_line(&ended).to_owned();
    let at_the_hole = format!("      65536 bytes at {}", 3 * REGION);
    assert!(line.starts_with("    audited 5 of 5 regions, 69.0 MiB, by the seed 7: 2 ranges of "), "{line}");
    assert!(line.ends_with(" differ") && ended.stdout.contains(&at_the_hole), "{ended:?}");
    let amount = line.split(": ").nth(1).unwrap().strip_suffix(" differ").unwrap();
    assert_eq!(
        ended.stderr,
        format!(
            "keepstone: warning: disk disk0 differs from the last snapshot where it was said to be unchanged, in \
             {amount}; they were stored as they are now; this snapshot is right, as everything was audited; earlier \
             ones may be wrong there, so find out why change tracking fails\n"
        )
    );
    world.run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == disk, "the disk is another one");

    let shown = world.report(&["show", "web@latest"]);
    let told = text(&shown["properties"], "audit.disk0");
    assert!(told.ends_with(" bytes in 2 ranges differed"), "{told}");
    let line = format!("audit.disk0  {told}\n");
    assert!(world.run(&["show", "web@latest"]).done().contains(&line));
}

#[test]
fn after_a_partial_audit_that_found_a_lie_a_full_backup_is_advised() {
    let (world, mut disk) = backed_up();
    disk[8] ^= 1;
    world.write("disk.raw", &disk);
    // A seed by which the one region that is drawn at first is the wrong one.
    let ended = (0..40)
        .map(|seed| back_up(&world, &["--audit", "0.5", "--audit-seed", &seed.to_string(), "--json"]))
        .inspect(|_| world.changes("next.json", disk.len(), Some("1"), "1", &[]))
        .find(|ended| ended.code != Some(0))
        .expect("one of the seeds finds it");
    assert_eq!(ended.code, Some(4));
    let audit = audit_of(&ended);
    assert_eq!(keys(&audit), ["auditedBytes", "mismatches", "ofRegions", "regions", "seed", "share"]);
    assert_eq!((&audit["share"], &audit["mismatches"][0]["start"]), (&json!(0.5), &json!(0)));
    let regions = audit["regions"].as_u64().unwrap();
    assert!((2..=3).contains(&regions), "the wrong one, its neighbour, and another one: {audit}");
    assert!(ended.stderr.contains(
        "; what was not audited may be wrong too, here and in earlier snapshots: back up with --full, "
    ));
}

#[test]
fn the_default_is_a_little_and_zero_is_nothing() {
    let (world, _) = backed_up();
    let ended = back_up(&world, &["--json"]);
    let audit = audit_of(&ended);
    assert_eq!((ended.code, &audit["regions"], &audit["share"]), (Some(0), &json!(1), &json!(20.0)));
    world.changes("next.json", 4 * REGION + 5 * MIB, Some("1"), "2", &[]);
    let seed = audit["seed"].to_string();
    let repeated = back_up(&world, &["--audit", "20", "--audit-seed", &seed, "--json"]);
    assert_eq!(audit_of(&repeated), audit);
    world.changes("next.json", 4 * REGION + 5 * MIB, Some("2"), "3", &[]);
    let off = back_up(&world, &["--audit", "0", "--json"]);
    assert_eq!((off.code, audit_of(&off)), (Some(0), Value::Null));
    world.changes("next.json", 4 * REGION + 5 * MIB, Some("3"), "4", &[]);
    let full = back_up(&world, &["--audit", "100", "--full", "--json"]);
    assert_eq!((full.code, audit_of(&full)), (Some(0), Value::Null));
}

#[test]
fn shares_that_cannot_be_are_refused() {
    let world = World::new();
    for percent in ["", "-1", "101", "100.0001", "0.00001", "ten", "10%"] {
        let ended = back_up(&world, &["--audit", percent]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{percent:?}: {ended:?}");
        assert!(ended.stderr.contains("--audit"), "{ended:?}");
    }
    assert_eq!(back_up(&world, &["--audit-seed", "x"]).code, Some(2));
}
