//! `keepstone replica status`.

use crate::copied::Copied;
use crate::world::text;
use serde_json::{Value, json};
use std::fs;

fn of<'v>(list: &'v Value, key: &str, value: &str) -> &'v Value {
    let lines = list.as_array().expect("a list");
    lines.iter().find(|line| line[key] == value).unwrap_or_else(|| panic!("{value} is not in {list}"))
}

#[test]
fn the_newest_whole_one_of_each_vm_is_told_and_what_newer_ones_lack() {
    let copied = Copied::new();
    let (blobs, bytes) = copied.take_away("d", 2);
    let ended = copied.run(&["--json", "replica", "status"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    let web = of(&report["vms"], "vm", "web");
    assert_eq!(text(web, "newestWhole"), copied.web(1).0);
    assert_eq!((&web["newerIncomplete"], &web["late"]), (&json!(1), &json!(false)));
    assert_eq!(of(&report["vms"], "vm", "db")["newerIncomplete"], json!(0));
    assert_eq!(report["snapshots"].as_array().unwrap().len(), 4);
    let newest = of(&report["snapshots"], "snapshot", copied.web(2).0);
    assert_eq!(newest["complete"], json!(false));
    assert_eq!(newest["missing"]["blobs"], json!(blobs));
    assert_eq!(newest["missing"]["bytes"], json!(bytes));
    assert_eq!(newest["missing"]["atLeast"], json!(false));
    assert_eq!(of(&report["snapshots"], "snapshot", copied.web(1).0)["complete"], json!(true));
    let text = copied.run(&["replica", "status"]).done();
    assert!(text.contains("1 restore point not whole:"), "{text}");
}

#[test]
fn without_a_part_of_the_map_it_is_told_that_more_may_be_missing() {
    let copied = Copied::new();
    copied.take_away("m", 2);
    let report = copied.run(&["--json", "replica", "status", "--vm", "web"]).json();
    let newest = of(&report["snapshots"], "snapshot", copied.web(2).0);
    assert_eq!(newest["missing"]["atLeast"], json!(true));
    assert_eq!(report["vms"].as_array().unwrap().len(), 1);
}

#[test]
fn a_vm_without_a_whole_restore_point_needs_attention() {
    let copied = Copied::new();
    copied.take_away("d", 0);
    let ended = copied.run(&["replica", "status"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stdout.contains("LATE"), "{ended:?}");
    assert_eq!(copied.run(&["replica", "status", "--vm", "db", "--max-age", "1h"]).code, Some(0));
    // One that nobody has heard of has none either, and a place where nothing has arrived has none of any.
    assert_eq!(copied.run(&["replica", "status", "--vm", "unheard-of"]).code, Some(4));
    fs::remove_dir_all(copied.world.path("copy/r")).unwrap();
    assert_eq!(copied.run(&["replica", "status", "--max-age", "1h"]).code, Some(4));
}

#[test]
fn a_place_is_not_the_source_of_itself() {
    let copied = Copied::new();
    let status = ["replica", "status", "--source", "./copy/../copy", "--confirm", "west"];
    let ended = copied.plainly(&status);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("is named twice"), "{ended:?}");
    // Nor is what is written to a replica of which something could be confirmed.
    let swapped = ["replica", "status", "--source", "copy", "--confirm", "west"];
    let ended = copied.world.run(&swapped);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("this is not a replica"), "{ended:?}");
}

#[test]
fn the_source_tells_what_has_not_arrived_at_all() {
    let copied = Copied::new();
    copied.take_away("r", 2);
    let report = copied.run(&["--json", "replica", "status", "--source", "repo"]).json();
    assert_eq!(report["source"]["snapshots"], json!(4));
    let [absent] = report["source"]["notArrived"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((text(absent, "snapshot").as_str(), text(absent, "vm").as_str()), (copied.web(2).0, "web"));
    assert_eq!(of(&report["vms"], "vm", "web")["notArrived"], json!(1));
}

#[test]
fn waiting_ends_when_all_is_whole_or_when_it_has_lasted_long_enough() {
    let copied = Copied::new();
    copied.take_away("r", 2);
    copied.take_away("d", 1);
    let wait = ["--json", "replica", "status", "--source", "repo", "--wait", "--timeout", "1s"];
    let ended = copied.run(&wait);
    assert_eq!((ended.code, &ended.json()["waited"]), (Some(4), &json!("timed-out")));
    copied.bring_all();
    let ended = copied.run(&wait);
    assert_eq!((ended.code, &ended.json()["waited"]), (Some(0), &json!("arrived")));
}

#[test]
fn what_is_whole_is_confirmed_at_the_source() {
    let copied = Copied::new();
    copied.take_away("d", 2);
    copied.world.run(&["replica", "add", "east"]).done();
    let confirm = ["--json", "replica", "status", "--source", "repo", "--confirm", "east"];
    assert_eq!(copied.run(&confirm).json()["confirmed"], json!(3));
    assert_eq!(copied.run(&confirm).json()["confirmed"], json!(0));
    copied.bring_all();
    assert_eq!(copied.run(&confirm).json()["confirmed"], json!(1));
    let ended = copied.run(&["replica", "status", "--source", "repo", "--confirm", "west"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn data_of_the_newest_whole_ones_is_read_if_that_is_asked_for() {
    let copied = Copied::new();
    copied.take_away("d", 2);
    let report = copied.run(&["--json", "replica", "status", "--deep=100"]).json();
    assert!(report["deep"]["readBytes"].as_u64().unwrap() > 1 << 20, "{report}");
    assert_eq!(report["deep"]["findings"], json!([]));
}

#[test]
fn damage_at_the_source_is_told_and_not_taken_for_all_that_it_has() {
    let copied = Copied::new();
    copied.take_away("r", 2);
    let damaged = copied.damage_at_source("r", 2);
    let ended = copied.run(&["--json", "replica", "status", "--source", "repo", "--wait", "--timeout", "1s"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(ended.json()["source"]["unreadable"], json!([damaged]));
    assert!(ended.stderr.contains(&format!("{damaged} at the source")), "{ended:?}");
    let ended = copied.run(&["replica", "status", "--source", "repo"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("DAMAGE at the source"), "{ended:?}");
}
