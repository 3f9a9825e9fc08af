//! Forgetting and pinning.

use crate::scene::{decision, files, filled, ids, run, some};
use crate::world::{Ended, World};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::SystemTime;

const POLICY: [&str; 4] = ["--keep-daily", "2", "--keep-weekly", "2"];

fn forget(world: &World, arguments: &[&str]) -> Ended {
    run(world, &[&["forget"], arguments].concat())
}

const TWO_WEEKS: [(&str, u64, &str); 7] = [
    ("web", 0, "nightly"),
    ("web", 1, "nightly"),
    ("web", 7, "nightly"),
    ("web", 8, "manual"),
    ("web", 14, "nightly"),
    ("web", 15, "nightly"),
    ("db", 16, "nightly"),
];

#[test]
fn a_dry_run_prints_what_stays_by_which_rules_and_needs_no_retention_password() {
    let world = filled(&TWO_WEEKS);
    let before = ids(&world);
    let text = world.run(&[&["forget", "--dry-run"], POLICY.as_slice()].concat()).done();
    insta::assert_snapshot!(text);
    assert_eq!(ids(&world), before);
}

#[test]
fn a_policy_forgets_what_the_dry_run_said_and_nothing_the_second_time() {
    let world = filled(&TWO_WEEKS);
    let all = ids(&world);
    let text = forget(&world, &POLICY).done();
    insta::assert_snapshot!(text);
    assert_eq!(ids(&world), some(&all, &[3, 4, 5, 6]));
    assert_eq!(
        forget(&world, &[&POLICY[..], &["--quiet"]].concat()).done().lines().last(),
        Some("nothing to forget")
    );
    world.run(&["verify", "--read-data"]).done();
}

#[test]
fn the_report_has_all_that_the_text_has() {
    let world = filled(&TWO_WEEKS);
    let report =
        forget(&world, &["--json", "--dry-run", "--vm", "web", "--tag", "manual", "--keep-last", "1"]).json();
    for key in ["forgottenBefore", "settled", "blocked", "unreadable", "unsigned"] {
        assert_eq!(report[key], json!([]), "{key}");
    }
    let manual = &ids(&world)[3];
    let expected = json!([{"vm": "web", "heldBy": [], "snapshots": [{
        "snapshot": manual, "time": "2024-01-09T22:00:00.000Z", "tags": ["manual"], "goes": false,
        "reasons": ["last", "latest"],
    }]}]);
    assert_eq!((&report["vms"], &report["stay"], &report["go"]), (&expected, &json!(1), &json!(0)));
    let none = forget(&world, &["--dry-run", "--vm", "mail", "--keep-last", "1"]);
    assert!(none.stderr.contains("there are no such snapshots of mail"), "{none:?}");
}

#[test]
fn snapshots_are_forgotten_by_name_and_the_last_one_by_force() {
    let world = filled(&TWO_WEEKS);
    let all = ids(&world);
    let told = forget(&world, &[&all[0], "web@2024-01-09", "--json"]).json();
    assert_eq!(told["go"], 2);
    assert_eq!(ids(&world).len(), 5);
    let again = forget(&world, &[&all[0], &all[1]]).done();
    assert!(again.contains(&format!("{} was forgotten before", all[0])), "{again}");
    let last = forget(&world, &["db@latest"]);
    insta::assert_snapshot!(last.told(), @r"
    keepstone: error: db would have no snapshot left
      hint: add --force, if nothing of this VM is ever to be restored again from this repository
    exit code 1
    ");
    forget(&world, &["db@latest", "--force"]).done();
    assert_eq!(ids(&world), some(&all, &[2, 4, 5]));
}

#[test]
fn a_pinned_snapshot_is_shown_as_such_and_stays() {
    let world = filled(&TWO_WEEKS[..3]);
    let all = ids(&world);
    let pinned = run(&world, &["pin", &all[0], "--reason", "the audit"]).done();
    assert_eq!(pinned, format!("snapshot {} of web is pinned\n", all[0]));
    let again = run(&world, &["pin", &all[0], "--reason", "the audit"]).done();
    assert_eq!(again, format!("snapshot {} of web is pinned, as it was\n", all[0]));
    insta::assert_snapshot!(world.run(&["snapshots"]).done());
    let shown = world.run(&["show", &all[0]]).done();
    assert!(
        shown.lines().any(|line| line.starts_with("pinned ") && line.ends_with(": the audit")),
        "{shown}"
    );
    let listed = world.report(&["snapshots"]);
    let flags: Vec<&Value> =
        listed["snapshots"].as_array().unwrap().iter().map(|line| &line["pinned"]).collect();
    assert_eq!(flags, [&json!(true), &json!(false), &json!(false)]);
    forget(&world, &["--keep-last", "1"]).done();
    assert_eq!(ids(&world), some(&all, &[0, 2]));
    let refused = forget(&world, &[&all[0]]);
    assert_eq!(
        refused.told(),
        format!(
            "keepstone: error: snapshot {} of web is pinned: the audit\n  hint: `keepstone unpin` takes the pin away, if it is \
             to go all the same\nexit code 1",
            all[0]
        )
    );
    run(&world, &["unpin", &all[0]]).done();
    forget(&world, &["--keep-last", "1"]).done();
    assert_eq!(ids(&world), all[2..]);
}

#[test]
fn calls_that_cannot_be_meant_are_refused_with_what_to_do() {
    let world = filled(&TWO_WEEKS[..1]);
    let calls: [&[&str]; 7] = [
        &[],
        &["--keep-daily", "0", "--keep-last", "0"],
        &["web@latest", "--keep-daily", "1"],
        &["web@latest", "--vm", "web"],
        &["--keep-within", "2 weeks"],
        &["--keep-last", "some"],
        &["--unreadable", "abcdef"],
    ];
    let told = calls.iter().fold(String::new(), |told, call| {
        told + &format!("$ keepstone forget {}\n{}\n\n", call.join(" "), forget(&world, call).told())
    });
    insta::assert_snapshot!(told);
}

#[test]
fn without_the_retention_password_nothing_is_forgotten_or_pinned() {
    let world = filled(&TWO_WEEKS[..2]);
    world.write("other", b"another password");
    for command in [&["forget", "--keep-last", "1"][..], &["pin", "web@latest"], &["unpin", "web@latest"]] {
        let refused = world.run(&[command, &["--retention-password-file", "other"]].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.contains("retention"), "{refused:?}");
        let without = world.run(command);
        assert_eq!(without.code, Some(1), "{without:?}");
        assert!(without.stderr.contains("KEEPSTONE_RETENTION_PASSWORD"), "{without:?}");
    }
    assert_eq!(ids(&world).len(), 2);
    assert_eq!(files(&world.path("repo/f")), Vec::<PathBuf>::new());
}

#[test]
fn times_that_the_store_contradicts_are_told_and_believed_only_if_asked() {
    let world = filled(&TWO_WEEKS[..3]);
    let all = ids(&world);
    // A copy has new dates.
    for path in files(&world.path("repo/r")) {
        File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now())).unwrap();
    }
    let doubted = forget(&world, &["--keep-last", "1"]);
    assert_eq!(doubted.code, Some(4), "{doubted:?}");
    assert!(doubted.stderr.contains("add --trust-times if the repository was copied"), "{doubted:?}");
    assert_eq!(ids(&world), all);
    forget(&world, &["--keep-last", "1", "--trust-times"]).done();
    assert_eq!(ids(&world), all[2..]);
}

#[test]
fn a_decision_that_cannot_be_read_is_told_and_settled() {
    let world = filled(&TWO_WEEKS[..3]);
    let all = ids(&world);
    let damaged = decision(&world, &all[1]);
    let mut permissions = fs::metadata(&damaged).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&damaged, permissions).unwrap();
    fs::write(&damaged, b"damaged").unwrap();
    let held = forget(&world, &["--keep-last", "1"]);
    assert_eq!(held.code, Some(3), "{held:?}");
    assert!(held.stderr.contains("web: nothing is forgotten by the policy"), "{held:?}");
    let settled = forget(&world, &["--unreadable", &all[1][..8]]).done();
    assert!(settled.contains("settled; what it stands for is forgotten"), "{settled}");
    forget(&world, &["--keep-last", "1"]).done();
    assert_eq!(ids(&world), all[2..]);
}

#[test]
fn a_name_that_something_else_has_is_told() {
    let world = filled(&TWO_WEEKS[..2]);
    let all = ids(&world);
    let decision = decision(&world, &all[0]);
    let vm = decision.strip_prefix(world.path("repo/r")).unwrap().components().next().unwrap();
    let directory = world.path("repo/f").join(vm);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(&all[0]), b"no tombstone").unwrap();
    let blocked = forget(&world, &["--keep-last", "1"]);
    assert_eq!(blocked.code, Some(3), "{blocked:?}");
    assert!(blocked.stderr.contains("something else has the name of its tombstone"), "{blocked:?}");
    assert_eq!(world.run(&["--json", "snapshots"]).json()["snapshots"].as_array().unwrap().len(), 2);
}
