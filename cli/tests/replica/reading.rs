//! Commands that read, on a replica.

use crate::copied::{Copied, DISK_LEN, OTHER_LEN};
use crate::world::text;
use serde_json::json;

#[test]
fn the_latest_is_the_newest_whole_one() {
    let copied = Copied::new();
    copied.take_away("d", 2);
    copied.run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(copied.world.read("out.raw") == copied.web(1).1);
    let shown = copied.run(&["--json", "show", "web@latest"]).json();
    assert_eq!(text(&shown, "snapshot"), copied.web(1).0);
    let diff = copied.run(&["--json", "diff", copied.web(0).0, "web@latest"]).json();
    assert_eq!(text(&diff, "to"), copied.web(1).0);
}

#[test]
fn one_that_is_named_and_not_whole_is_refused_with_what_is_missing() {
    let copied = Copied::new();
    let (blobs, _) = copied.take_away("d", 2);
    let id = copied.web(2).0;
    for command in [
        &["restore", id, "--to", "out.raw"][..],
        &["show", id],
        &["ls", id],
        &["serve", id, "--socket", "socket"],
        &["diff", copied.web(0).0, id],
        &["verify", id],
    ] {
        let ended = copied.run(command);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let missing = format!("snapshot {id} is not whole in this replica: {blobs} blob");
        assert!(ended.stderr.contains(&missing), "{ended:?}");
        assert!(ended.stderr.contains("replica status"), "{ended:?}");
    }
    assert!(!copied.world.path("out.raw").exists());
}

#[test]
fn a_vm_of_which_none_is_whole_has_no_latest() {
    let copied = Copied::new();
    copied.take_away("d", 0);
    let ended = copied.run(&["restore", "web@latest", "--to", "out.raw"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no such snapshot of web is whole in this replica"), "{ended:?}");
}

#[test]
fn lists_show_what_is_whole_and_reports_tell_what_is_not() {
    let copied = Copied::new();
    copied.take_away("d", 2);
    let ended = copied.run(&["snapshots", "--vm", "web"]);
    assert!(!ended.stdout.contains(&copied.web(2).0[..12]), "{ended:?}");
    assert!(ended.stdout.contains(&copied.web(1).0[..12]), "{ended:?}");
    assert!(ended.stderr.contains("1 snapshot more is not whole"), "{ended:?}");
    let report = copied.run(&["--json", "snapshots", "--vm", "web"]).json();
    let complete: Vec<_> =
        report["snapshots"].as_array().unwrap().iter().map(|line| &line["complete"]).collect();
    assert_eq!(complete, [&json!(true), &json!(true), &json!(false)]);
    // Where the repository is written to, nothing is said of that.
    let report = copied.world.report(&["snapshots"]);
    assert!(report["snapshots"][0].get("complete").is_none());
}

#[test]
fn what_has_not_arrived_is_no_damage() {
    let copied = Copied::new();
    copied.take_away("d", 2);
    let ended = copied.run(&["--json", "verify", "--read-data"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    assert_eq!((&report["snapshots"], &report["findings"]), (&json!(3), &json!([])));
    assert_eq!(text(&report["incomplete"][0], "snapshot"), copied.web(2).0);
    let stats = copied.run(&["--json", "stats"]);
    assert_eq!(stats.code, Some(0), "{stats:?}");
    let stats = stats.json();
    assert_eq!((&stats["snapshots"], &stats["incomplete"]), (&json!(3), &json!(1)));
    assert_eq!(stats["logicalBytes"], json!(2 * DISK_LEN + OTHER_LEN));
    // Elsewhere it is.
    assert_eq!(copied.plainly(&["verify"]).code, Some(3));
}

#[test]
fn a_copy_that_nobody_calls_a_replica_gives_a_hint() {
    let copied = Copied::new();
    copied.take_away("d", 2);
    let ended = copied.plainly(&["restore", "web@latest", "--to", "out.raw"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("keepstone --replica replica status"), "{ended:?}");
}

#[test]
fn a_profile_or_the_environment_can_say_that_it_is_a_replica() {
    let copied = Copied::new();
    copied.take_away("d", 2);
    copied.world.write("profile.toml", b"replica = true\n");
    let shown = copied.plainly(&["--profile", "profile.toml", "--json", "show", "web@latest"]).json();
    assert_eq!(text(&shown, "snapshot"), copied.web(1).0);
}
