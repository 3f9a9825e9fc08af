//! To, from and between two accounts.

use crate::scene::{Container, assert_restores, at, counts, world_with_backups};
use crate::world::Ended;
use keepstone_peers::azurite::{Azurite, PRIMARY, REPLICA};
use keepstone_peers::proxy::{Plan, Proxy};
use serde_json::json;

const OWN_KEY: &str = "AZURE_STORAGE_KEY";
const OTHER_KEY: &str = "KEEPSTONE_OTHER_AZURE_STORAGE_KEY";

#[test]
fn restore_points_go_from_a_directory_through_two_accounts_to_a_directory() {
    let world = world_with_backups(2);
    let first = Container::new(PRIMARY, "replicate-first");
    let second = Container::new(REPLICA, "replicate-second");
    let to_first =
        world.command(&["--json", "replicate", "--to", &first.place()]).env(OTHER_KEY, PRIMARY.key).output();
    let to_first = Ended::of(to_first);
    assert_eq!(to_first.code, Some(0), "{to_first:?}");
    assert_eq!(counts(&to_first.json()), json!([3, 0, 0]));

    let between = || {
        let arguments = ["--json", "replicate", "--to", &second.place()];
        let mut command = at(&world, &first.place(), &arguments);
        let ended = Ended::of(command.env(OWN_KEY, PRIMARY.key).env(OTHER_KEY, REPLICA.key).output());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.json()
    };
    let report = between();
    assert_eq!(counts(&report), json!([3, 0, 0]));
    // The service copied: no pack passed through this host, and the small objects were read to be checked.
    let bytes = |of: &str| report[of]["bytes"].as_u64().unwrap();
    assert_eq!(report["bytesThroughHost"], bytes("blobs") - bytes("packs"), "{report}");
    assert!(report["bytesThroughHost"].as_u64() < Some(bytes("packs") / 50), "{report}");
    assert!(report["destination"]["bytesOut"].as_u64() < Some(100_000), "{report}");
    assert_eq!(counts(&between()), json!([0, 3, 0]));
    assert_restores(&world, 2, &|arguments| {
        let mut command = at(&world, &second.place(), arguments);
        command.env(OWN_KEY, REPLICA.key);
        command
    });

    let back = ["--json", "replicate", "--to", "back"];
    let back = Ended::of(at(&world, &second.place(), &back).env(OWN_KEY, REPLICA.key).output());
    assert_eq!(counts(&back.json()), json!([3, 0, 0]), "{back:?}");
    assert_restores(&world, 2, &|arguments| at(&world, "back", arguments));
}

#[test]
fn all_passes_through_the_host_if_that_is_wanted() {
    let world = world_with_backups(1);
    let first = Container::new(PRIMARY, "host-first");
    let second = Container::new(REPLICA, "host-second");
    let to_first = world.command(&["replicate", "--to", &first.place()]).env(OTHER_KEY, PRIMARY.key).output();
    Ended::of(to_first).done();
    let arguments = ["--json", "replicate", "--through-host", "--to", &second.place()];
    // Creating suffices, also where the service would need more: no block is written.
    let mut command = at(&world, &first.place(), &arguments);
    let signed = second.sas("rcl");
    command.env(OWN_KEY, PRIMARY.key).env("KEEPSTONE_OTHER_AZURE_STORAGE_SAS_TOKEN", signed);
    let ended = Ended::of(command.output());
    assert_eq!((ended.code, counts(&ended.json())), (Some(0), json!([2, 0, 0])), "{ended:?}");
    let report = ended.json();
    assert_eq!(report["bytesThroughHost"], report["blobs"]["bytes"], "{report}");
    assert!(report["destination"]["bytesOut"].as_u64() >= report["packs"]["bytes"].as_u64(), "{report}");
    assert_restores(&world, 1, &|arguments| {
        let mut command = at(&world, &second.place(), arguments);
        command.env(OWN_KEY, REPLICA.key);
        command
    });
}

#[test]
fn a_signature_for_reading_and_one_for_creating_suffice() {
    let world = world_with_backups(1);
    let first = Container::new(PRIMARY, "rights-first");
    let second = Container::new(REPLICA, "rights-second");
    let run = |repository: &str, to: &str, own: &str, other: &str| {
        let mut command = at(&world, repository, &["--json", "replicate", "--to", to]);
        command.env("AZURE_STORAGE_SAS_TOKEN", own);
        Ended::of(command.env("KEEPSTONE_OTHER_AZURE_STORAGE_SAS_TOKEN", other).output())
    };
    let ended = run("repo", &first.place(), "", &first.sas("rcl"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Azurite does not know Put Blob From URL, so that blocks have to be written.
    let ended = run(&first.place(), &second.place(), &first.sas("rl"), &second.sas("rcwl"));
    assert_eq!((ended.code, counts(&ended.json())), (Some(0), json!([2, 0, 0])), "{ended:?}");
    // Nobody may create with that one.
    let third = Container::new(REPLICA, "rights-third");
    let ended = run("repo", &third.place(), "", &third.sas("rl"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("could not create"), "{ended:?}");
    assert!(!ended.stderr.contains("sig="), "{ended:?}");
}

#[test]
fn a_wrong_credential_of_the_other_side_is_told_and_its_secret_is_not() {
    let world = world_with_backups(1);
    let there = Container::new(REPLICA, "wrong-credential");
    let run = |environment: &[(&str, &str)], more: &[&str]| {
        let place = there.place();
        let arguments = [&["replicate", "--to", place.as_str()], more].concat();
        Ended::of(world.command(&arguments).envs(environment.iter().copied()).output())
    };
    let ended = run(&[(OTHER_KEY, PRIMARY.key)], &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the credential does not allow it"), "{ended:?}");
    assert!(!ended.stderr.contains(PRIMARY.key), "{ended:?}");
    let ended = run(&[], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let both = [(OTHER_KEY, REPLICA.key), ("KEEPSTONE_OTHER_AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=hidden")];
    let ended = run(&both, &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("there is more than one credential"), "{ended:?}");
    assert!(!ended.stderr.contains("hidden"), "{ended:?}");
    // In a profile of its own.
    world.write("key", REPLICA.key.as_bytes());
    world.write("other.toml", b"key-file = 'key'\n");
    run(&[], &["--other-profile", "other.toml"]).done();
    // The credential of the repository, where the other one has none of its own.
    run(&[(OWN_KEY, REPLICA.key)], &[]).done();
}

#[test]
fn faults_on_the_way_are_got_over() {
    let world = world_with_backups(3);
    let there = Container::new(REPLICA, "faults");
    let origin = Azurite::shared().origin().strip_prefix("http://").unwrap();
    for seed in 0..3 {
        let proxy = Proxy::start(origin.parse().unwrap(), Plan::random(seed, 0.15));
        let place = there.place_by(&format!("http://{}/{}", proxy.addr(), REPLICA.name));
        let arguments = ["--json", "replicate", "--check", "--to", &place];
        let ended = Ended::of(world.command(&arguments).env(OTHER_KEY, REPLICA.key).output());
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    assert_restores(&world, 3, &|arguments| {
        let mut command = at(&world, &there.place(), arguments);
        command.env(OWN_KEY, REPLICA.key);
        command
    });
}
