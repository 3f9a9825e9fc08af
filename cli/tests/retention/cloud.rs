//! Hosts with rights of their own in a container: one backs up and cannot delete, another one prunes.

use crate::scene::{empty, files};
use crate::world::{Ended, MIB, PROGRAM, World, noise, text};
use keepstone_peers::azurite::{Azurite, PRIMARY};
use keepstone_peers::http;
use keepstone_peers::proxy::{Fault, Plan, Proxy, Refusal, Request};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A container with a repository, and the hosts that use it.
struct Cloud {
    world: World,
    container: &'static str,
    endpoint: String,
}

/// Who asks, and what they may do.
#[derive(Clone, Copy)]
struct Host {
    /// Where it keeps its cache.
    name: &'static str,
    rights: &'static str,
    password: &'static str,
    /// Whether it has the retention password.
    retains: bool,
}

const BACKUP: Host = Host { name: "backup", rights: "rcl", password: "password", retains: false };
const PRUNER: Host = Host { name: "pruner", rights: "rcdl", password: "password", retains: true };

impl Cloud {
    /// A container of that name, with an empty repository.
    fn new(container: &'static str) -> Self {
        let azurite = Azurite::shared();
        azurite.create_container(&PRIMARY, container);
        let cloud = Self { world: empty(), container, endpoint: azurite.endpoint(&PRIMARY) };
        for path in files(&cloud.world.path("repo")) {
            let name = path.strip_prefix(cloud.world.path("repo")).unwrap().to_str().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let url = format!("{}/{container}/{name}?{}", cloud.endpoint, cloud.sas("c"));
            let answer = http::send("PUT", &url, &[("x-ms-blob-type", "BlockBlob")], &bytes);
            assert_eq!(answer.status, 201, "{name}");
        }
        cloud
    }

    fn sas(&self, rights: &str) -> String {
        PRIMARY.container_sas(self.container, rights, SystemTime::now() + Duration::from_hours(1))
    }

    fn command(&self, host: Host, arguments: &[&str]) -> Command {
        let mut command = self.world.bare(PROGRAM);
        let repository = format!("azblob://{}/{}?endpoint={}", PRIMARY.name, self.container, self.endpoint);
        command.args(["-r", &repository, "--password-file", host.password, "--writer", host.name]);
        command.args(["--cache-dir", &format!("cache-{}", host.name)]).args(arguments);
        if host.retains {
            command.args(["--retention-password-file", "retention"]);
        }
        command.env("AZURE_STORAGE_SAS_TOKEN", self.sas(host.rights));
        command
    }

    fn run(&self, host: Host, arguments: &[&str]) -> Ended {
        Ended::of(self.command(host, arguments).output())
    }

    fn start(&self, host: Host, arguments: &[&str]) -> Child {
        let mut command = self.command(host, arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
    }

    fn report(&self, host: Host, arguments: &[&str]) -> Value {
        let ended = self.run(host, &[&["-q", "--json"], arguments].concat());
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.json()
    }

    fn back_up(&self, vm: &str, seed: u64) -> String {
        self.world.write("disk.raw", &noise(seed, MIB));
        text(&self.report(BACKUP, &["backup", "--vm", vm, "disk.raw"]), "snapshot")
    }

    /// A prune, again and again until it waits for nothing.
    fn prune(&self) -> Value {
        loop {
            let ended = self.run(PRUNER, &["prune", "--yes", "--json"]);
            match ended.code {
                Some(0) => return ended.json(),
                code => assert_eq!(code, Some(4), "{ended:?}"),
            }
        }
    }

    fn assert_restores(&self, snapshot: &str, seed: u64, len: usize) {
        self.report(BACKUP, &["restore", snapshot, "--to", "out.raw", "--overwrite"]);
        assert!(self.world.read("out.raw") == noise(seed, len), "{snapshot} is another disk");
    }
}

#[test]
fn one_host_backs_up_and_restores_while_another_one_prunes_with_rights_of_its_own() {
    let cloud = Cloud::new("two-hosts");
    let ids: Vec<String> = (1..=3).map(|seed| cloud.back_up("web", seed)).collect();
    let refused = cloud.run(BACKUP, &["forget", &ids[0]]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    cloud.report(PRUNER, &["forget", &ids[0]]);
    // Both go on while the other host prunes.
    cloud.world.write("large.raw", &noise(9, 24 * MIB));
    let mut backup = cloud.start(BACKUP, &["--threads", "1", "backup", "--vm", "mail", "large.raw"]);
    let restoring = Host { name: "restoring", ..BACKUP };
    let mut restore = cloud.start(restoring, &["restore", &ids[1], "--to", "meanwhile.raw"]);
    cloud.prune();
    assert_eq!(restore.wait().unwrap().code(), Some(0));
    assert_eq!(backup.wait().unwrap().code(), Some(0));
    let report = cloud.prune();
    assert_eq!(report["waiting"], json!([]));
    assert!(cloud.world.read("meanwhile.raw") == noise(2, MIB), "the disk is another one");
    let gone = cloud.run(BACKUP, &["restore", &ids[0], "--to", "gone.raw"]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    for (snapshot, seed, len) in [(&*ids[1], 2, MIB), (&*ids[2], 3, MIB), ("mail@latest", 9, 24 * MIB)] {
        cloud.assert_restores(snapshot, seed, len);
    }
    cloud.report(BACKUP, &["verify", "--read-data"]);
    assert_eq!(cloud.report(BACKUP, &["stats"])["unreferencedPacks"], 0);
}

#[test]
fn rights_that_do_not_suffice_leave_what_was_done_and_good_ones_go_on() {
    let cloud = Cloud::new("no-rights");
    let ids: Vec<String> = (1..=3).map(|seed| cloud.back_up("web", seed)).collect();
    let reader = Host { rights: "rl", ..PRUNER };
    let refused = cloud.run(reader, &["forget", "--keep-last", "1"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("error: 0 of 2 snapshots were forgotten before it stopped"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("the credential does not allow it (403"), "{refused:?}");
    cloud.report(PRUNER, &["forget", "--keep-last", "1"]);
    let creator = Host { rights: "rcl", ..PRUNER };
    let refused = cloud.run(creator, &["prune", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("error: the prune stopped; what it did stays, and the next one goes on"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("the credential does not allow it (403"), "{refused:?}");
    assert!(refused.stderr.contains("`prune` and removing a key slot need to delete too"), "{refused:?}");
    let report = cloud.report(PRUNER, &["prune", "--resume"]);
    assert_eq!((&report["sealed"], &report["deleted"]["packs"]), (&json!(true), &json!(4)), "{report}");
    cloud.assert_restores(&ids[2], 3, MIB);
}

/// Deletes that a proxy refused.
static REFUSED: AtomicU64 = AtomicU64::new(0);

#[test]
fn deletes_that_immutability_refuses_are_told_and_left_to_a_later_prune() {
    let mut cloud = Cloud::new("immutable");
    for seed in 1..=2 {
        cloud.back_up("web", seed);
    }
    cloud.report(PRUNER, &["forget", "--keep-last", "1"]);
    let origin = cloud.endpoint.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let keeps = Plan::new(|request: &Request| {
        if request.method == "DELETE" {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            Fault::Refused(Refusal::azure(409, "BlobImmutableDueToPolicy"))
        } else {
            Fault::Forward
        }
    });
    let proxy = Proxy::start(origin.parse().expect("an address"), keeps);
    let direct = std::mem::replace(&mut cloud.endpoint, format!("http://{}/{}", proxy.addr(), PRIMARY.name));
    let kept = cloud.run(PRUNER, &["prune", "--yes", "--json"]);
    assert_eq!(kept.code, Some(4), "{kept:?}");
    assert_eq!(kept.json()["deferred"]["packs"], 2, "{kept:?}");
    assert!(kept.stderr.contains("the store must keep"), "{kept:?}");
    assert!(REFUSED.load(Ordering::Relaxed) >= 2);
    cloud.report(BACKUP, &["verify", "--read-data"]);
    cloud.endpoint = direct;
    // A later one, which has something else to delete, deletes those as well.
    cloud.back_up("web", 3);
    cloud.report(PRUNER, &["forget", "--keep-last", "1"]);
    cloud.prune();
    assert_eq!(cloud.report(BACKUP, &["stats"])["unreferencedPacks"], 0);
    cloud.assert_restores("web@latest", 3, MIB);
}

#[test]
fn a_dry_run_tells_requests_and_costs_by_tier() {
    let cloud = Cloud::new("tiers");
    for (seed, tier) in [(1, "hot"), (2, "cold"), (3, "cool")] {
        cloud.world.write("disk.raw", &noise(seed, MIB));
        cloud.report(BACKUP, &["backup", "--vm", "web", "disk.raw", "--tier", tier]);
    }
    cloud.report(PRUNER, &["forget", "--keep-last", "1"]);
    let report = cloud.report(BACKUP, &["prune", "--dry-run"]);
    let tiers = report["tiers"].as_array().unwrap();
    let seen: Vec<_> = tiers
        .iter()
        .map(|of| (of["tier"].as_str().unwrap(), of["delete"]["packs"].as_u64().unwrap()))
        .collect();
    // Maps are hot whatever the tier of the data.
    assert_eq!(seen, [("hot", 3), ("cold", 1)]);
    assert!(
        tiers[1]["earlyDeletion"].as_f64() > Some(0.0) && tiers[1]["savedPerMonth"].as_f64() > Some(0.0),
        "{report}"
    );
    let text = cloud.run(BACKUP, &["prune", "--dry-run"]).done();
    let table: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("TIER")).take(3).collect();
    assert!(
        table[0].contains("REQUESTS") && table[1].starts_with("hot ") && table[2].starts_with("cold "),
        "{text}"
    );
    assert!(table[2].contains("USD now, "), "{text}");
}
