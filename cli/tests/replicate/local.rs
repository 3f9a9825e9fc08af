//! Between directories.

use crate::scene::{assert_restores, at, counts, world_with_backups};
use crate::world::{Ended, World, keys};
use serde_json::json;

#[test]
fn a_copy_restores_without_the_source() {
    let world = world_with_backups(2);
    let report = world.report(&["replicate", "--to", "copy"]);
    assert_eq!(
        keys(&report),
        [
            "blobs",
            "bytesThroughHost",
            "deleted",
            "destination",
            "dryRun",
            "elapsedMs",
            "facts",
            "failed",
            "ignored",
            "indexes",
            "packs",
            "repacks",
            "snapshots",
            "source",
            "to"
        ]
    );
    assert_eq!(counts(&report), json!([3, 0, 0]));
    assert_eq!(report["bytesThroughHost"], report["blobs"]["bytes"]);
    let again = world.report(&["replicate", "--to", "copy", "--delete"]);
    assert_eq!((counts(&again), &again["blobs"]["count"]), (json!([0, 3, 0]), &json!(0)));
    std::fs::rename(world.path("repo"), world.path("gone")).unwrap();
    assert_restores(&world, 2, &|arguments| at(&world, "copy", arguments));
    Ended::of(at(&world, "copy", &["verify", "--read-data"]).output()).done();
}

#[test]
fn a_dry_run_makes_nothing() {
    let world = world_with_backups(1);
    let planned = world.report(&["replicate", "--to", "copy", "--dry-run"]);
    assert_eq!((counts(&planned), &planned["destination"]), (json!([2, 0, 0]), &json!(null)));
    assert!(!world.path("copy").exists());
    let text = world.run(&["replicate", "--to", "copy", "--dry-run"]).done();
    assert!(text.starts_with("dry run: to copy 2 restore points to "), "{text}");
    let text = world.run(&["replicate", "--to", "copy"]).done();
    assert!(text.starts_with("copied 2 restore points to "), "{text}");
}

#[test]
fn only_some_restore_points_are_copied() {
    let world = world_with_backups(2);
    let report = world.report(&["replicate", "--to", "copy", "--vm", "vm0", "--last", "1"]);
    assert_eq!(counts(&report), json!([1, 0, 0]));
    let report = world.report(&["replicate", "--to", "copy", "--vm", "vm0", "--vm", "vm1"]);
    assert_eq!(counts(&report), json!([2, 1, 0]));
    assert_restores(&world, 2, &|arguments| at(&world, "copy", arguments));
}

#[test]
fn a_vm_that_the_source_does_not_know_is_an_error_and_nothing_is_made() {
    let world = world_with_backups(2);
    for more in [&[][..], &["--last", "1"], &["--dry-run"]] {
        let arguments = [&["replicate", "--to", "copy", "--vm", "vm0", "--vm", "typo"], more].concat();
        let ended = world.run(&arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("there is no snapshot of typo; ") && ended.stderr.contains("vm1"),
            "{ended:?}"
        );
        assert!(!world.path("copy").exists());
    }
}

#[test]
fn what_is_not_whole_at_the_source_is_told_by_the_exit_code() {
    let world = world_with_backups(2);
    world.run(&["replicate", "--to", "copy"]).done();
    std::fs::remove_file(some_pack(&world, "copy")).unwrap();
    let ended = Ended::of(at(&world, "copy", &["--json", "replicate", "--to", "next"]).output());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("not whole at the source"), "{ended:?}");
    let report = ended.json();
    assert!(report["snapshots"]["incomplete"].as_u64() > Some(0), "{report}");
    assert_eq!(report["failed"], json!([]));
}

#[test]
fn a_place_that_is_no_copy_is_refused() {
    let world = world_with_backups(1);
    let refused = |to: &str, more: &[&str]| {
        let ended = world.run(&[&["replicate", "--to", to], more].concat());
        (ended.code, ended.stderr)
    };
    for itself in ["repo", "./repo", "repo/below"] {
        let (code, told) = refused(itself, &["--adopt"]);
        assert_eq!(code, Some(2), "{told}");
    }
    assert!(!world.path("repo/below").exists());
    Ended::of(at(&world, "other", &["init"]).output()).done();
    let (code, told) = refused("other", &[]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("another repository is there"), "{told}");
    world.write("file", b"x");
    assert_eq!(refused("file", &[]).0, Some(1));
    std::fs::create_dir(world.path("full")).unwrap();
    world.write("full/file", b"x");
    let (code, told) = refused("full", &[]);
    assert_eq!(code, Some(1), "{told}");
    let (code, told) = refused("copy", &["--limit-upload", "1MiB"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(!world.path("copy").exists());
    assert_eq!(refused("http://host/copy", &[]).0, Some(2));
    assert_eq!(refused("copy", &["--confirm", "second", "--dry-run"]).0, Some(2));
    let (code, told) = refused("copy", &["--confirm", "second"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("second") && !world.path("copy").exists(), "{told}");
}

#[test]
fn a_copy_made_by_other_tools_is_adopted_and_completed() {
    let world = world_with_backups(2);
    copy_tree(&world, "repo", "copy");
    let pack = some_pack(&world, "copy");
    std::fs::remove_file(&pack).unwrap();
    let report = world.report(&["replicate", "--to", "copy", "--adopt"]);
    assert_eq!((counts(&report), &report["packs"]["count"]), (json!([0, 3, 0]), &json!(1)));
    assert_restores(&world, 2, &|arguments| at(&world, "copy", arguments));
}

#[test]
fn a_damaged_copy_is_told_and_mended_when_the_damage_is_deleted() {
    let world = world_with_backups(2);
    world.run(&["replicate", "--to", "copy"]).done();
    let pack = some_pack(&world, "copy");
    let bytes = std::fs::read(&pack).unwrap();
    std::fs::write(&pack, &bytes[..bytes.len() - 1]).unwrap();
    let ended = world.run(&["replicate", "--to", "copy", "--check"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let name = pack.strip_prefix(world.path("copy")).unwrap().to_str().unwrap().to_owned();
    assert!(ended.stderr.contains(&name) && ended.stderr.contains("the copy is damaged"), "{ended:?}");
    std::fs::remove_file(&pack).unwrap();
    world.run(&["replicate", "--to", "copy", "--check"]).done();
    assert!(std::fs::read(&pack).unwrap() == bytes);
}

#[test]
fn what_is_whole_at_a_replica_is_confirmed_for_prune() {
    let world = world_with_backups(1);
    let retention = ["--retention-password-file", "password"];
    world.run(&[&retention[..], &["replica", "add", "second"]].concat()).done();
    let confirm = ["--json", "replicate", "--to", "copy", "--confirm", "second"];
    let run = || world.run(&[&retention[..], &confirm].concat());
    let report = run();
    assert_eq!(report.json()["confirmed"], 2, "{report:?}");
    assert_eq!(run().json()["confirmed"], 0);
}

#[test]
fn a_copy_is_not_backed_up_to() {
    let world = world_with_backups(1);
    world.run(&["replicate", "--to", "copy"]).done();
    let ended = Ended::of(at(&world, "copy", &["backup", "--vm", "vm0", "vm0.raw"]).output());
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

/// A data pack of the repository in a directory.
fn some_pack(world: &World, repository: &str) -> std::path::PathBuf {
    let writer = world.path(repository).join("d/default");
    let mut packs: Vec<_> = std::fs::read_dir(writer).unwrap().map(|entry| entry.unwrap().path()).collect();
    packs.sort();
    packs.remove(0)
}

fn copy_tree(world: &World, from: &str, to: &str) {
    let status = world.bare("cp").args(["-r", from, to]).status().unwrap();
    assert!(status.success());
}
