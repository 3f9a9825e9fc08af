//! Fleets, comparisons, and calls that cannot be meant.

use super::world::{World, keys};
use super::{arguments, bench, with_scratch};
use serde_json::json;

#[test]
fn a_fleet_is_predicted_from_what_was_measured() {
    let world = with_scratch(World::new());
    let fleet =
        ["--fleet=40x200GiB", "--fleet=1x2TiB", "--change-rate=2", "--used=50", "--window=8h", "--hosts=2"];
    let report = bench(&world, &[&["--no-repository", "--change-rates=1"], &fleet[..]].concat());
    let rates: Vec<_> = report["runs"].as_array().unwrap().iter().map(|run| &run["changePpm"]).collect();
    assert!(rates.contains(&&json!(0)) && rates.contains(&&json!(10_000)), "{rates:?}");
    let prediction = &report["fleet"];
    assert_eq!(
        keys(prediction),
        [
            "afterAMonth",
            "assumptions",
            "changePpm",
            "first",
            "firstWindows",
            "fleets",
            "grow",
            "holds",
            "hosts",
            "hostsNeeded",
            "incremental",
            "usedPpm",
            "windowSeconds"
        ]
    );
    assert_eq!((&prediction["windowSeconds"], &prediction["hosts"]), (&json!(28_800), &json!(2)));
    let of =
        |place: usize, backup: &str, key: &str| prediction["fleets"][place][backup][key].as_f64().unwrap();
    assert_eq!(prediction["fleets"][0]["usedBytes"], json!(40_u64 * (100 << 30) / 40));
    for backup in ["first", "incremental"] {
        for key in ["readBytes", "storedBytes", "put", "get", "list", "seconds"] {
            let all = prediction[backup][key].as_f64().unwrap();
            let sum = of(0, backup, key) + of(1, backup, key);
            assert!((all - sum).abs() <= 2.0_f64.max(all * 1e-9), "{backup} {key}: {all} is not {sum}");
        }
    }
    // 2 % of what is in use changes, and at least that is read.
    let used = 40.0 * 107_374_182_400.0 + 1_099_511_627_776.0;
    assert!(prediction["first"]["readBytes"].as_f64() >= Some(used), "{prediction}");
    assert!(prediction["incremental"]["readBytes"].as_f64() >= Some(used * 0.0199), "{prediction}");
    let holds = prediction["incremental"]["seconds"].as_f64() <= Some(28_800.0);
    assert_eq!(prediction["holds"], json!(holds));
    assert_eq!(prediction["grow"].as_array().unwrap().is_empty(), holds);
}

#[test]
fn a_run_is_put_beside_an_earlier_one() {
    let world = with_scratch(World::new());
    let earlier = bench(&world, &["--no-repository", "--rounds=2", "--change-rates=0"]);
    let mut other = earlier.clone();
    other["machine"]["processors"] = json!(999);
    other["runs"][0]["seconds"] = json!({"median": 1e-6, "low": 1e-6, "high": 1e-6});
    world.write("earlier.json", other.to_string().as_bytes());
    let report =
        bench(&world, &["--no-repository", "--rounds=2", "--change-rates=0", "--compare=earlier.json"]);
    let comparison = &report["comparison"];
    let differences = comparison["differences"].as_array().unwrap();
    assert_eq!((differences.len(), &differences[0]["what"]), (1, &json!("processors")), "{comparison}");
    assert_eq!((&differences[0]["then"], &comparison["unmatched"]), (&json!("999"), &json!(0)));
    let changes = comparison["changes"].as_array().unwrap();
    let all = ["stages", "requests", "runs"].map(|part| report[part].as_array().unwrap().len());
    assert_eq!(changes.len(), all.iter().sum::<usize>());
    let full = changes.iter().find(|change| change["figure"] == "full backup").expect("it is compared");
    assert_eq!(full["verdict"], "worse", "{full}");
}

#[test]
fn calls_that_cannot_be_meant_are_refused() {
    let world = with_scratch(World::new());
    world.write("empty.raw", b"");
    std::fs::File::create_new(world.path("hole.raw")).unwrap().set_len(8 << 20).unwrap();
    world.write("text.json", b"no JSON\n");
    world.write("other.json", b"{\"kind\": \"another\"}");
    world.write("newer.json", b"{\"kind\": \"keepstone-bench\", \"version\": 2}");
    world.write("half.json", b"{\"kind\": \"keepstone-bench\", \"version\": 1}");
    let calls: [&[&str]; 17] = [
        &["--size=1MiB"],
        &["--levels=0"],
        &["--change-rates=101"],
        &["--fleet=40"],
        &["--window=8h"],
        &["--image=empty.raw"],
        &["--image=hole.raw"],
        &["--image=missing.raw"],
        &["--image=scratch"],
        &["--compare=missing.json"],
        &["--compare=text.json"],
        &["--compare=other.json"],
        &["--compare=newer.json"],
        &["--compare=half.json"],
        &["--compare=/dev/zero"],
        &["--html=/dev/null"],
        &["--scratch=missing"],
    ];
    let told = calls.iter().fold(String::new(), |told, call| {
        let run = world.run(&[&["bench", "--no-repository"], *call].concat());
        told + &format!("$ bench {}\n{}\n\n", call.join(" "), run.told())
    });
    insta::assert_snapshot!(told);
    // Without a repository there is nothing to remove from, and one that is none is told.
    let bare = world.bare(super::world::PROGRAM).args(["bench", "--remove-leftovers"]).output().unwrap();
    assert_eq!(bare.status.code(), Some(2), "{bare:?}");
    let none = world.run(&arguments(&[]));
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stderr.contains("repo"), "{none:?}");
}
