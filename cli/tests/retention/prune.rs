//! Pruning a directory.

use crate::scene::{empty, files, filled, ids, run};
use crate::world::{Ended, MIB, World, noise, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::process::Child;

/// What a run told, without what it took.
fn without_figures(text: &str) -> String {
    let is_figures = |line: &&str| !line.trim_start().starts_with("took ");
    text.lines().filter(is_figures).fold(String::new(), |text, line| text + line + "\n")
}

fn packs(world: &World) -> usize {
    let is_pack = |name: &str| !name.ends_with(['-', '_', '~']);
    let names = files(&world.path("repo/d")).into_iter().chain(files(&world.path("repo/m")));
    names.filter(|path| path.to_str().is_some_and(is_pack)).count()
}

/// Three snapshots, the first of which is forgotten.
fn one_forgotten() -> World {
    let world = filled(&[("web", 0, "nightly"), ("web", 1, "nightly"), ("web", 2, "nightly")]);
    run(&world, &["forget", &ids(&world)[0]]).done();
    world
}

#[test]
fn a_dry_run_tells_what_would_go_and_changes_nothing() {
    let world = one_forgotten();
    let before = files(&world.path("repo"));
    let text = world.run(&["prune", "--dry-run"]).done();
    insta::assert_snapshot!(without_figures(&text));
    let report = world.report(&["prune", "--dry-run"]);
    assert_eq!(
        (&report["dryRun"], &report["delete"]["packs"], &report["tiers"]),
        (&json!(true), &json!(2), &json!([]))
    );
    assert_eq!(files(&world.path("repo")), before);
}

#[test]
fn what_only_forgotten_snapshots_needed_goes_once_it_is_confirmed() {
    let world = one_forgotten();
    let before = packs(&world);
    let refused = run(&world, &["prune"]);
    insta::assert_snapshot!(refused.told());
    assert_eq!(packs(&world), before);
    let text = run(&world, &["prune", "--confirm-large"]).done();
    insta::assert_snapshot!(without_figures(&text));
    assert_eq!((packs(&world), ids(&world).len()), (before - 2, 2));
    world.run(&["verify", "--read-data"]).done();
    let again = run(&world, &["prune"]).done();
    insta::assert_snapshot!(without_figures(&again));
    let report = run(&world, &["prune", "--json"]).json();
    assert_eq!((&report["generation"], &report["waiting"]), (&json!(null), &json!([])));
}

#[test]
fn statistics_know_what_was_pruned_and_name_the_vms_that_there_are() {
    let world = one_forgotten();
    run(&world, &["prune", "--confirm-large"]).done();
    let stats = world.report(&["stats"]);
    assert_eq!(
        (
            &stats["snapshots"],
            &stats["missingPacks"],
            &stats["unreferencedPacks"],
            &stats["forgottenMeanwhile"]
        ),
        (&json!(2), &json!(0), &json!(0), &json!([]))
    );
    assert_eq!(world.report(&["stats", "--vm", "web"])["snapshots"], json!(2));
    let unknown = world.run(&["stats", "--vm", "webb"]);
    assert_eq!(unknown.code, Some(1));
    insta::assert_snapshot!(unknown.told());
}

#[test]
fn who_has_no_key_to_the_data_can_forget_and_prune() {
    let world = filled(&[("web", 0, "nightly"), ("web", 1, "nightly")]);
    let without_data = |arguments: &[&str]| {
        let mut command = world.bare(crate::world::PROGRAM);
        command.args([
            "-r",
            "repo",
            "--password-file",
            "inventory",
            "--retention-password-file",
            "retention",
        ]);
        Ended::of(command.args(arguments).output())
    };
    without_data(&["forget", "--keep-last", "1"]).done();
    let report = without_data(&["--json", "prune", "--yes"]).json();
    assert_eq!((&report["sealed"], &report["deleted"]["packs"]), (&json!(true), &json!(2)), "{report}");
    assert_eq!(ids(&world).len(), 1);
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn without_the_retention_password_nothing_is_pruned() {
    let world = one_forgotten();
    let before = files(&world.path("repo"));
    let refused = world.run(&["prune", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("opens no retention key slot"), "{refused:?}");
    assert_eq!(files(&world.path("repo")), before);
}

#[test]
fn calls_that_cannot_be_meant_are_refused() {
    let world = empty();
    let calls: [&[&str]; 6] = [
        &["--max-unused", "5 apples"],
        &["--max-unused", "101%"],
        &["--repack-pays-within", "soon"],
        &["--patience", "0d"],
        &["--abort-session", "abcdef"],
        &["--resume", "--dry-run"],
    ];
    let told = calls.iter().fold(String::new(), |told, call| {
        let told_now = run(&world, &[&["prune"], *call].concat()).told();
        let first = told_now.lines().next().unwrap_or_default();
        told + &format!("$ keepstone prune {}\n{first}\n", call.join(" "))
    });
    insta::assert_snapshot!(told);
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the signal is sent");
}

/// A backup that stands still in its middle, and the id of its session.
fn standing_backup(world: &World) -> (Child, String) {
    world.write("disk.raw", &noise(7, 8 * MIB));
    let (child, messages) = world.slow_backup("mail");
    signal(&child, Signal::STOP);
    // The pipe is not read any more; so little is written that it does not matter.
    std::mem::forget(messages);
    let is_intent = |path: &std::path::PathBuf| path.to_string_lossy().contains("/s/default/");
    let intent = files(&world.path("repo/s")).into_iter().find(is_intent).expect("it has begun");
    (child, intent.file_name().unwrap().to_string_lossy().into_owned())
}

#[test]
fn a_backup_that_is_running_is_named_and_waited_for_and_anybody_goes_on() {
    let world = one_forgotten();
    let before = packs(&world);
    let (mut child, session) = standing_backup(&world);
    let waits = run(&world, &["prune", "--yes", "--json"]);
    assert_eq!(waits.code, Some(4), "{waits:?}");
    let waiting = &waits.json()["waiting"][0];
    assert_eq!(
        (&waiting["session"], &waiting["writer"], &waiting["why"]),
        (&json!(session), &json!("default"), &json!("decision"))
    );
    let told = format!("waiting for session {session} of the writer default, which began ");
    assert!(waits.stderr.contains(&told) && waits.stderr.contains("--abort-session"), "{waits:?}");
    assert!(packs(&world) >= before);
    let planned = world.run(&["prune", "--dry-run"]);
    assert_eq!(planned.code, Some(4), "{planned:?}");
    assert!(planned.stdout.contains("generation 0 is open and would be ended first"), "{planned:?}");
    signal(&child, Signal::CONT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let ended = run(&world, &["prune", "--resume", "--writer", "other", "--json"]).json();
    assert_eq!((&ended["sealed"], &ended["deleted"]["packs"]), (&json!(true), &json!(2)), "{ended}");
    world.run(&["verify", "--read-data"]).done();
    world.run(&["restore", "mail@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == world.read("disk.raw"), "the disk is another one");
}

#[test]
fn a_backup_whose_session_was_aborted_begins_anew() {
    let world = one_forgotten();
    let (mut child, session) = standing_backup(&world);
    let report = run(&world, &["prune", "--yes", "--abort-session", &session, "--json"]).json();
    assert_eq!((&report["aborted"], &report["sealed"]), (&json!([session]), &json!(true)), "{report}");
    signal(&child, Signal::CONT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let listed = world.report(&["snapshots", "--vm", "mail"]);
    assert_ne!(text(&listed["snapshots"][0], "snapshot"), session);
    world.run(&["restore", "mail@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == world.read("disk.raw"), "the disk is another one");
    run(&world, &["prune", "--yes"]).done();
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn what_a_failed_backup_left_is_freed() {
    let world = filled(&[("web", 0, "nightly")]);
    let before = packs(&world);
    let (mut child, _) = standing_backup(&world);
    child.kill().unwrap();
    child.wait().unwrap();
    // The next backup of that VM ends its session.
    world.write("disk.raw", &noise(8, MIB));
    world.run(&["backup", "--vm", "mail", "disk.raw"]).done();
    run(&world, &["prune", "--yes"]).done();
    assert_eq!(packs(&world), before + 2);
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn packs_that_are_needed_in_part_are_packed_again_unless_that_is_not_wanted() {
    let world = empty();
    let mut disk = noise(1, 4 * MIB);
    let mut back_up = |seed| {
        world.write("disk.raw", &disk);
        let report = world.report(&["backup", "--vm", "web", "disk.raw"]);
        disk[..3 * MIB].copy_from_slice(&noise(seed, 3 * MIB));
        text(&report, "snapshot")
    };
    let (first, _second) = (back_up(2), back_up(3));
    run(&world, &["forget", &first]).done();
    let planned = world.report(&["prune", "--dry-run"]);
    assert_eq!(planned["repack"]["packs"], 1, "{planned}");
    for keeps in [
        &["--no-repack"][..],
        &["--max-unused", "unlimited"],
        &["--max-unused", "5MiB"],
        &["--max-repack", "1KiB"],
    ] {
        let report = run(&world, &[&["prune", "--json"], keeps].concat()).json();
        assert_eq!((&report["repacked"], &report["deleted"]["packs"]), (&json!(null), &json!(0)), "{report}");
    }
    let text = run(&world, &["prune", "--yes"]).done();
    assert!(text.contains("packed again: what is needed of 4.0 MiB in 1 pack is now "), "{text}");
    world.run(&["verify", "--read-data"]).done();
    world.run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(world.read("out.raw") == world.read("disk.raw"), "the disk is another one");
}
