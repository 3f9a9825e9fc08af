//! The rehearsal of `docs/disaster-recovery.md`, with its commands, between two accounts of Azurite.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../world/mod.rs"]
mod world;

mod scene;

use scene::{Regions, Side};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use world::text;

/// What a restore point holds: the images of its VM's disks, by their keys, and the day.
type Made = BTreeMap<String, (String, u8)>;

/// The newest whole restore point of each VM, as `replica status` tells.
fn newest_whole(status: &Value) -> BTreeMap<String, String> {
    let vms = status["vms"].as_array().expect("a list").iter();
    vms.map(|vm| (text(vm, "vm"), text(vm, "newestWhole"))).collect()
}

#[test]
fn a_region_is_lost_in_the_middle_of_a_replication_and_comes_back() {
    let mut regions = Regions::new();
    let mut made = Made::new();
    for day in 0..2 {
        for vm in ["files", "mail", "web"] {
            made.insert(regions.back_up(Side::East, vm, day, day.checked_sub(1)), (vm.to_owned(), day));
        }
    }
    regions.done(Side::East, &["replica", "add", "west", "--place", "the container in the west"]);
    regions.done(Side::East, &["replicate", "--to", "WEST", "--confirm", "west"]);

    // The primary is lost while the restore points of the third day are on their way.
    for vm in ["files", "mail", "web"] {
        made.insert(regions.back_up(Side::East, vm, 2, Some(1)), (vm.to_owned(), 2));
    }
    regions.replicate_and_kill();
    regions.lose_the_east();

    // What is there: of each VM the second day at least.
    let ended = regions.run(Side::West, &["replica", "status"]);
    assert!(matches!(ended.code, Some(0 | 4)), "{ended:?}");
    let newest = newest_whole(&ended.json());
    assert_eq!(newest.keys().collect::<Vec<_>>(), ["files", "mail", "web"]);
    let in_time = regions.run(Side::West, &["replica", "status", "--max-age", "26h"]);
    assert_eq!(in_time.code, ended.code, "{in_time:?}");
    for (vm, id) in &newest {
        let (of, day) = &made[id];
        assert!(of == vm && *day >= 1, "{vm} of day {day}");
        regions.assert_restores(Side::West, id, vm, *day);
    }
    // Nothing is written to a replica.
    regions.write_day("web", 3, made[&newest["web"]].1);
    let refused = regions.try_backup(Side::West, "web", 3, Some(made[&newest["web"]].1));
    assert_eq!(refused.code, Some(1), "{refused:?}");

    // The replica is promoted, and promoted again after whatever happened.
    for _ in 0..2 {
        let ended = regions.run(Side::West, &["replica", "promote"]);
        assert!(matches!(ended.code, Some(0 | 4)), "{ended:?}");
    }
    for (vm, id) in &newest {
        let before = made[id].1;
        let report = regions.back_up_from(Side::West, vm, 3, before);
        for disk in report["disks"].as_array().expect("a list") {
            assert_eq!(
                (&disk["mode"], &disk["fullReason"]),
                (&json!("incremental"), &Value::Null),
                "{report}"
            );
        }
        made.insert(text(&report, "snapshot"), (vm.clone(), 3));
        regions.assert_restores(Side::West, &format!("{vm}@latest"), vm, 3);
    }
    let refused = regions.run(Side::West, &["prune", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");

    // The old primary comes back with what never arrived.
    regions.find_the_east();
    let planned = regions.run(Side::West, &["import", "--from", "EAST", "--dry-run"]);
    assert_eq!(planned.code, Some(0), "{planned:?}");
    let imported = regions.run(Side::West, &["import", "--from", "EAST"]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let imported = imported.json();
    let points = imported["snapshots"].as_array().expect("a list");
    assert_eq!(points.len(), 9, "{imported}");
    for point in points {
        let (vm, day) = &made[&text(point, "original")];
        regions.assert_restores(Side::West, &text(point, "snapshot"), vm, *day);
    }
    for vm in ["files", "mail", "web"] {
        regions.assert_restores(Side::West, &format!("{vm}@latest"), vm, 3);
    }
    let again = regions.run(Side::West, &["import", "--from", "EAST"]);
    assert_eq!((again.code, &again.json()["imported"]), (Some(0), &json!(0)), "{again:?}");

    // Nothing is written to it any more: it is declared gone, and what is not needed is freed.
    let ended = regions.run(Side::West, &["replica", "promote", "--other-side-gone"]);
    assert!(matches!(ended.code, Some(0 | 4)), "{ended:?}");
    regions.done(Side::West, &["forget", "--vm", "mail", "--keep-last", "1", "--trust-times"]);
    regions.prune(Side::West);
    assert_eq!(regions.run(Side::West, &["verify", "--read-data"]).json()["findings"], json!([]));

    // A new primary where the old one was, in a container of its own; backups go on there.
    regions.done(Side::West, &["replicate", "--to", "NEW"]);
    let status = regions.run(Side::New, &["replica", "status", "--source", "WEST"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    let promoted = regions.run(Side::New, &["replica", "promote"]);
    assert_eq!(promoted.code, Some(0), "{promoted:?}");
    regions.done(Side::New, &["replica", "promote", "--other-side-gone"]);
    for vm in ["files", "mail", "web"] {
        regions.write_day(vm, 4, 3);
        let report = regions.back_up_from(Side::New, vm, 4, 3);
        assert_eq!(report["disks"][0]["mode"], "incremental", "{report}");
        regions.assert_restores(Side::New, &format!("{vm}@latest"), vm, 4);
    }
    regions.prune(Side::New);
}
