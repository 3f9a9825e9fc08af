//! Checking a replica that was promoted while something was on its way.

use crate::copied::Copied;
use crate::world::{Ended, noise, text};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A promoted place that lacks the data of the last restore point of `web`, and the id of a restore point of another VM that
/// was made there.
fn promoted() -> (Copied, String) {
    let copied = Copied::new();
    copied.take_away("d", 2);
    let ended = copied.plainly(&["--replica", "replica", "promote"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    copied.world.write("here.raw", &noise(20, 300 << 10));
    let report = copied.plainly(&["--json", "backup", "--vm", "here", "here.raw"]);
    assert_eq!(report.code, Some(0), "{report:?}");
    let made = text(&report.json(), "snapshot");
    (copied, made)
}

/// The index of a session.
fn index(copied: &Copied, session: &str) -> PathBuf {
    copied.world.path("copy").join("i").join("default").join(format!("{session}-00000000"))
}

/// The kinds and blobs of what a verification tells of.
fn findings(ended: &Ended) -> Vec<(String, String)> {
    let report: Value = ended.json();
    let findings = report["findings"].as_array().expect("a list").iter();
    findings.map(|finding| (text(finding, "kind"), text(finding, "blob"))).collect()
}

#[test]
fn what_came_in_part_is_told_of_and_all_else_is_verified() {
    let (copied, _) = promoted();
    let ended = copied.plainly(&["verify", "--read-data"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("verified 4 snapshots with 4 disks: "), "{ended:?}");
    let left_out =
        "  1 snapshot not whole here: not looked at; `keepstone replica status` tells what is missing\n";
    assert!(ended.stdout.contains(left_out), "{ended:?}");
    assert!(ended.stdout.ends_with("\nno damage found\n"), "{ended:?}");
    assert!(!ended.stdout.contains("that no snapshot needs"), "{ended:?}");
    let report = copied.plainly(&["--json", "verify"]).json();
    assert_eq!(
        [&report["snapshots"], &report["findings"], &report["unneededPacks"]],
        [&json!(4), &json!([]), &json!(0)]
    );
    let [left_out] = report["incomplete"].as_array().expect("a list").as_slice() else { panic!("{report}") };
    assert_eq!(
        (text(left_out, "snapshot").as_str(), &left_out["complete"]),
        (copied.web(2).0, &json!(false))
    );
    assert!(left_out["missing"]["blobs"].as_u64() > Some(0), "{report}");
    // Where all has arrived, nothing is left out.
    copied.bring_all();
    let report = copied.plainly(&["--json", "verify", "--read-data"]).json();
    assert_eq!((&report["snapshots"], &report["findings"]), (&json!(5), &json!([])));
    assert!(report.get("incomplete").is_none(), "{report}");
}

#[test]
fn what_is_damaged_beside_what_came_in_part_is_found() {
    let (copied, made) = promoted();
    let index = index(&copied, &made);
    let name = format!("i/default/{made}-00000000");
    let bytes = fs::read(&index).unwrap();
    fs::remove_file(&index).unwrap();
    fs::write(&index, &bytes[..bytes.len() - 1]).unwrap();
    let ended = copied.plainly(&["--json", "verify"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(findings(&ended), [("damaged-index".to_owned(), name.clone())]);
    fs::remove_file(&index).unwrap();
    let ended = copied.plainly(&["--json", "verify"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(findings(&ended), [("missing-index".to_owned(), name)]);
    assert_eq!(text(&ended.json()["incomplete"][0], "snapshot"), copied.web(2).0);
}
