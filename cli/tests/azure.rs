//! The program with repositories in Azure, as Azurite has it.

mod world;

use keepstone_peers::azurite::{Azurite, PRIMARY, REPLICA};
use keepstone_peers::http::{self, Answer};
use keepstone_peers::proxy::{Fault, Plan, Proxy, Refusal};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, SystemTime};
use world::{Ended, MIB, PROGRAM, World, keys, noise, text};

/// A world and a container.
struct Cloud {
    world: World,
    azurite: &'static Azurite,
    container: &'static str,
}

/// Variables and their values.
type Environment<'a> = [(&'a str, &'a str)];

impl Cloud {
    /// With a container of that name, and two days of a disk of 4 MiB.
    fn new(container: &'static str) -> Self {
        let azurite = Azurite::shared();
        azurite.create_container(&PRIMARY, container);
        let world = World::new();
        let mut disk = noise(1, 3 * MIB);
        disk.resize(4 * MIB, 0);
        world.write("day0.raw", &disk);
        disk[3 << 16..4 << 16].copy_from_slice(&noise(2, 1 << 16));
        world.write("day1.raw", &disk);
        world.changes("day1.json", 4 * MIB, Some("0"), "1", &[3]);
        world.changes("day0.json", 4 * MIB, None, "0", &(0..48).collect::<Vec<_>>());
        Self { world, azurite, container }
    }

    /// The repository's name.
    fn repository(&self, prefix: &str) -> String {
        let endpoint = self.azurite.endpoint(&PRIMARY);
        format!("azblob://{}/{}/{prefix}?endpoint={endpoint}", PRIMARY.name, self.container)
    }

    fn sas(&self, permissions: &str) -> String {
        PRIMARY.container_sas(self.container, permissions, in_an_hour())
    }

    fn run(&self, prefix: &str, environment: &Environment<'_>, arguments: &[&str]) -> Ended {
        let mut command = self.world.bare(PROGRAM);
        command.args(["-r", &self.repository(prefix), "--password-file", "password"]).args(arguments);
        Ended::of(command.envs(environment.iter().copied()).output())
    }

    fn report(&self, prefix: &str, environment: &Environment<'_>, arguments: &[&str]) -> Value {
        let ended = self.run(prefix, environment, &[&["-q", "--json"], arguments].concat());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}: {ended:?}");
        ended.json()
    }

    /// Names and tiers of the blobs below a prefix.
    fn blobs(&self, prefix: &str) -> Vec<(String, String)> {
        let (endpoint, sas) = (self.azurite.endpoint(&PRIMARY), self.sas("l"));
        let query = format!("restype=container&comp=list&prefix={prefix}/&{sas}");
        let answer = http::send("GET", &format!("{endpoint}/{}?{query}", self.container), &[], &[]);
        let listing = String::from_utf8(answer.body).expect("a listing is text");
        let field = |blob: &str, name: &str| -> String {
            let start = blob.find(&format!("<{name}>")).expect("the field is there") + name.len() + 2;
            blob[start..].split('<').next().expect("there is a first part").to_owned()
        };
        let blobs = listing.split("<Blob>").skip(1);
        blobs.map(|blob| (field(blob, "Name"), field(blob, "AccessTier"))).collect()
    }

    /// What the service answers to a request for a blob by somebody with that SAS.
    fn ask(&self, method: &str, blob: &str, sas: &str, more: &str, headers: &[(&str, &str)]) -> Answer {
        let url = format!("{}/{}/{blob}?{more}{sas}", self.azurite.endpoint(&PRIMARY), self.container);
        let body: &[u8] = if method == "PUT" { b"other" } else { b"" };
        http::send(method, &url, headers, body)
    }
}

fn in_an_hour() -> SystemTime {
    SystemTime::now() + Duration::from_hours(1)
}

fn connection_string(azurite: &Azurite) -> String {
    let (name, key, endpoint) = (PRIMARY.name, PRIMARY.key, azurite.endpoint(&PRIMARY));
    format!("DefaultEndpointsProtocol=http;AccountName={name};AccountKey={key};BlobEndpoint={endpoint};")
}

/// Does with a repository what users do, and checks what every report has.
fn everything(cloud: &Cloud, prefix: &str, environment: &Environment<'_>) {
    let world = &cloud.world;
    let mut reports = Vec::new();
    let mut run = |arguments: &[&str]| {
        let report = cloud.report(prefix, environment, arguments);
        reports.push((arguments.join(" "), report.clone()));
        report
    };
    run(&["init"]);
    let first = run(&["backup", "--vm", "web", "day0.raw", "--changes", "day0.json"]);
    let second = run(&["backup", "--vm", "web", "day1.raw", "--changes", "day1.json"]);
    assert_eq!(first["disks"][0]["mode"], "full", "{first}");
    assert_eq!(second["disks"][0]["mode"], "incremental", "{second}");
    // Intent, data pack, map pack, index and decision.
    assert_eq!(second["requests"]["put"], 5, "{second}");
    assert!(second["bytesOut"].as_u64() > second["storedBytes"].as_u64(), "{second}");
    let (first, second) = (text(&first, "snapshot"), text(&second, "snapshot"));

    let listed = run(&["snapshots"]);
    let ids: Vec<String> =
        listed["snapshots"].as_array().expect("a list").iter().map(|it| text(it, "snapshot")).collect();
    assert_eq!(ids, [first.clone(), second.clone()]);
    assert_eq!(run(&["show", "web@latest"])["parent"], json!(first));
    assert_eq!(run(&["diff", &first, &second])["since"], "0");
    assert_eq!(run(&["stats"])["snapshots"], 2);
    assert_eq!(run(&["verify", "--read-data"])["findings"], json!([]));
    for (snapshot, disk) in [(&first, "day0.raw"), (&second, "day1.raw")] {
        let target = format!("{prefix}-{disk}");
        let restored = run(&["restore", snapshot, "--to", &target]);
        assert!(restored["bytesIn"].as_u64() > restored["fetchedBytes"].as_u64(), "{restored}");
        assert!(world.read(&target) == world.read(disk), "{target} is another disk");
    }
    run(&["key", "add", "second", "--new-password-file", "password"]);
    let slots = run(&["key", "list"]);
    assert_eq!(slots["slots"].as_array().map(Vec::len), Some(3), "{slots}");
    run(&["repair", "index"]);

    for (command, report) in reports {
        let requests = &report["requests"];
        assert_eq!(keys(requests), ["delete", "get", "list", "put", "retries", "throttled"], "{command}");
        assert_eq!((&requests["retries"], &requests["throttled"]), (&json!(0), &json!(0)), "{command}");
        let cost = &report["cost"];
        assert_eq!(keys(cost), ["currency", "requests", "retrieval", "storagePerMonth"], "{command}");
        assert!(cost["requests"].as_f64() > Some(0.0), "{command}: {cost}");
        assert_eq!((&cost["currency"], &cost["retrieval"]), (&json!("USD"), &json!(0.0)), "{command}");
    }
}

#[test]
fn an_account_key_does_everything() {
    let cloud = Cloud::new("by-key");
    let environment = [("AZURE_STORAGE_KEY", PRIMARY.key)];
    everything(&cloud, "site", &environment);
    let removed = cloud.report("site", &environment, &["key", "remove", "second"]);
    assert_eq!((&removed["slot"], &removed["requests"]["delete"]), (&json!("second"), &json!(1)));
}

#[test]
fn a_connection_string_does_everything_and_names_the_endpoint() {
    let cloud = Cloud::new("by-string");
    let string = connection_string(cloud.azurite);
    let environment = [("AZURE_STORAGE_CONNECTION_STRING", string.as_str())];
    everything(&cloud, "site", &environment);
    let name = format!("azblob://{}/by-string/site", PRIMARY.name);
    let mut command = cloud.world.bare(PROGRAM);
    command.args(["-r", &name, "--password-file", "password", "key", "list"]).envs(environment);
    Ended::of(command.output()).done();
}

#[test]
fn a_sas_to_read_create_and_list_does_all_but_overwrite_and_delete() {
    let cloud = Cloud::new("by-sas");
    let sas = cloud.sas("rcl");
    everything(&cloud, "site", &[("AZURE_STORAGE_SAS_TOKEN", &sas)]);

    let blobs = cloud.blobs("site");
    assert!(blobs.len() > 10, "{blobs:?}");
    let header: &[(&str, &str)] = &[("x-ms-blob-type", "BlockBlob")];
    for (blob, _) in &blobs {
        let before = cloud.ask("GET", blob, &sas, "", &[]);
        assert_eq!(before.status, 200, "{blob}");
        assert_eq!(cloud.ask("PUT", blob, &sas, "", header).status, 403, "{blob} is overwritten");
        let block = cloud.ask("PUT", blob, &sas, "comp=block&blockid=YQ%3D%3D&", &[]);
        assert_eq!(block.status, 403, "{blob} gets a block");
        assert_eq!(cloud.ask("DELETE", blob, &sas, "", &[]).status, 403, "{blob} is deleted");
        assert!(cloud.ask("GET", blob, &sas, "", &[]).body == before.body, "{blob} is another one");
    }
    let refused = cloud.run("site", &[("AZURE_STORAGE_SAS_TOKEN", &sas)], &["key", "remove", "second"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("the credential does not allow it"), "{refused:?}");
    assert_eq!(cloud.blobs("site"), blobs);
}

#[test]
fn a_profile_names_everything_and_its_tier_is_that_of_data_packs_alone() {
    let cloud = Cloud::new("by-profile");
    cloud.world.write("sas", format!("{}\n", cloud.sas("rcl")).as_bytes());
    let profile = format!(
        "repository = '{}'\npassword-file = 'password'\nauth = 'sas'\nsas-token-file = 'sas'\ntier = 'cool'\n\
         content-md5 = true\nlimit-upload = '64MiB'\nlimit-download = 67108864\n\
         [prices]\ncurrency = 'EUR'\nwrite-hot = 10000\nwrite-cool = 20000\nread-hot = 0\nread-cool = 0\nlist = 0\n",
        cloud.repository("cooled")
    );
    cloud.world.write("profile.toml", profile.as_bytes());
    // What the environment has does not matter where the profile chooses, unless it is the same kind.
    let run = |arguments: &[&str]| {
        let mut command = cloud.world.bare(PROGRAM);
        command.args(["--profile", "profile.toml"]).args(arguments).env("AZURE_STORAGE_KEY", "d3Jvbmc=");
        Ended::of(command.output())
    };
    run(&["init"]).done();
    let backup = run(&["--json", "backup", "--vm", "web", "day0.raw"]).json();
    assert_eq!((&backup["cost"]["currency"], &backup["requests"]["put"]), (&json!("EUR"), &json!(5)));
    assert_eq!(backup["cost"]["requests"], 6.0, "four blobs are hot and one is cool: {backup}");
    let is_data = |name: &str| name.starts_with("cooled/d/");
    let blobs = cloud.blobs("cooled");
    assert!(blobs.iter().any(|(name, _)| is_data(name)), "{blobs:?}");
    for (name, tier) in &blobs {
        assert_eq!(tier, if is_data(name) { "Cool" } else { "Hot" }, "{name}");
        let head = cloud.ask("HEAD", name, &cloud.sas("r"), "", &[]);
        assert!(head.header("content-md5").is_some(), "{name} has no MD5 digest");
    }
    let told = run(&["restore", "web@latest", "--to", "out.raw"]).done();
    assert!(told.contains(" requests, ") && told.contains(" EUR"), "{told}");
    assert!(cloud.world.read("out.raw") == cloud.world.read("day0.raw"), "the disk is another one");
    let verified = run(&["--json", "verify", "--read-data"]).json();
    assert!(verified["cost"]["retrieval"].as_f64() > Some(0.0), "{verified}");
    // A flag comes first.
    run(&["backup", "--vm", "db", "day1.raw", "--tier", "cold", "--limit-upload", "32MiB"]).done();
    assert!(cloud.blobs("cooled").iter().any(|(name, tier)| is_data(name) && tier == "Cold"));
}

#[test]
fn other_hosts_find_what_one_stored_and_caches_belong_to_the_repository() {
    let cloud = Cloud::new("shared");
    let environment = [("AZURE_STORAGE_KEY", PRIMARY.key)];
    let made = cloud.report("site", &environment, &["init"]);
    let backup = |cache: &str, writer: &str, vm: &str| {
        let more = ["--cache-dir", cache, "--writer", writer, "backup", "--vm", vm, "day0.raw"];
        cloud.report("site", &environment, &more)
    };
    assert!(backup("cache-a", "host-a", "web")["newChunks"].as_u64() > Some(10));
    assert_eq!(backup("cache-b", "host-b", "mail")["newChunks"], 0);
    assert_eq!(backup("cache-a", "host-a", "db")["newChunks"], 0);
    for cache in ["cache-a", "cache-b"] {
        let directory = cloud.world.path(cache).join(text(&made, "repository"));
        assert!(directory.read_dir().expect("the cache is there").count() > 1, "{cache}");
    }
}

/// Without what differs from run to run.
fn redacted(cloud: &Cloud, text: &str) -> String {
    let text = text.replace(cloud.azurite.origin(), "http://ORIGIN");
    ["request ", "/s/default/"].into_iter().fold(text, |text, before| {
        let mut parts = text.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let end = part.find(|it: char| !it.is_ascii_hexdigit() && it != '-').unwrap_or(part.len());
            text + before + "ID" + &part[end..]
        })
    })
}

#[test]
fn credentials_that_do_not_fit_are_told_with_what_to_do() {
    let cloud = Cloud::new("refusals");
    let key = [("AZURE_STORAGE_KEY", PRIMARY.key)];
    cloud.report("site", &key, &["init"]);
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let (reader, lister) = (cloud.sas("rl"), cloud.sas("l"));
    let ended = PRIMARY.container_sas(cloud.container, "rcl", past);
    let forged = REPLICA.container_sas(cloud.container, "rcl", in_an_hour());
    let elsewhere = format!("https://other.blob.core.windows.net/backups?{reader}");
    let string = connection_string(cloud.azurite);
    let of_other = string.replace(PRIMARY.name, "other");
    let sas = "AZURE_STORAGE_SAS_TOKEN";
    let cases: &[(&str, &Environment<'_>, &[&str])] = &[
        ("none", &[], &["snapshots"]),
        ("parts", &[("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")], &["snapshots"]),
        ("two", &[key[0], (sas, &reader)], &["snapshots"]),
        (
            "a SAS twice",
            &[(sas, &reader), ("AZURE_STORAGE_SAS_TOKEN_FILE", "sas")],
            &["--auth", "sas", "stats"],
        ),
        ("a chosen one that is not there", &[key[0]], &["--auth", "client-secret", "snapshots"]),
        ("a SAS that is not there", &[key[0]], &["--auth", "sas", "snapshots"]),
        ("a key that is none", &[("AZURE_STORAGE_KEY", "not base64")], &["snapshots"]),
        ("another key", &[("AZURE_STORAGE_KEY", REPLICA.key)], &["snapshots"]),
        ("a SAS that is none", &[(sas, "sv=2026")], &["snapshots"]),
        ("a SAS of another container", &[(sas, &elsewhere)], &["snapshots"]),
        ("a forged SAS", &[(sas, &forged)], &["snapshots"]),
        ("an expired SAS", &[(sas, &ended)], &["snapshots"]),
        ("a SAS that cannot read", &[(sas, &lister)], &["snapshots"]),
        ("a SAS that cannot create", &[(sas, &reader)], &["backup", "--vm", "web", "day0.raw"]),
        ("a file that is not there", &[("AZURE_STORAGE_SAS_TOKEN_FILE", "missing")], &["snapshots"]),
        ("no connection string", &[("AZURE_STORAGE_CONNECTION_STRING", "nonsense")], &["snapshots"]),
        ("that of another account", &[("AZURE_STORAGE_CONNECTION_STRING", &of_other)], &["snapshots"]),
    ];
    let told = |name: &str, ended: Ended| format!("== {name}\n{}\n\n", redacted(&cloud, &ended.told()));
    let mut texts: Vec<String> = cases
        .iter()
        .map(|(name, environment, arguments)| told(name, cloud.run("site", environment, arguments)))
        .collect();
    let nowhere = Cloud { world: World::new(), azurite: cloud.azurite, container: "nowhere" };
    texts.extend([
        told("nothing there", cloud.run("empty", &key, &["snapshots"])),
        told("a repository already", cloud.run("site", &key, &["init"])),
        told("no container for a new repository", nowhere.run("site", &key, &["init"])),
        told("no container", nowhere.run("site", &key, &["snapshots"])),
    ]);
    insta::assert_snapshot!(texts.concat());
}

#[test]
fn no_secret_is_told_however_much_is_asked_for() {
    let cloud = Cloud::new("secrets");
    let sas = cloud.sas("rcl");
    let signature = sas.split("sig=").nth(1).expect("a SAS has a signature").to_owned();
    let forged = REPLICA.container_sas(cloud.container, "rcl", in_an_hour());
    let forgery = forged.split("sig=").nth(1).expect("a SAS has a signature").to_owned();
    let string = connection_string(cloud.azurite);
    for (prefix, environment, secret, code) in [
        ("a", ("AZURE_STORAGE_SAS_TOKEN", sas.as_str()), signature.as_str(), 0),
        ("b", ("AZURE_STORAGE_KEY", PRIMARY.key), PRIMARY.key, 0),
        ("c", ("AZURE_STORAGE_CONNECTION_STRING", &string), PRIMARY.key, 0),
        ("d", ("AZURE_STORAGE_SAS_TOKEN", &forged), forgery.as_str(), 1),
    ] {
        for arguments in [&["-vv", "init"][..], &["-vv", "--json", "backup", "--vm", "web", "day0.raw"]] {
            // Libraries that would tell more if they were asked to are not.
            let environment = [environment, ("RUST_LOG", "trace")];
            let ended = cloud.run(prefix, &environment, arguments);
            assert_eq!(ended.code, Some(code), "{ended:?}");
            assert!(ended.stderr.contains("INFO keepstone::"), "{ended:?}");
            let decoded = secret.replace("%2F", "/").replace("%2B", "+").replace("%3D", "=");
            for told in [&ended.stdout, &ended.stderr] {
                assert!(!told.contains(secret) && !told.contains(&decoded), "{prefix}: a secret is told");
                assert!(!told.contains("SharedKey") && !told.contains("sig="), "{prefix}: {told}");
            }
            let own = |line: &&str| {
                ["INFO", "DEBUG", "TRACE"].iter().all(|level| !line.trim_start().starts_with(level))
                    || line.contains(" keepstone")
            };
            assert_eq!(ended.stderr.lines().find(|line| !own(line)), None, "another crate is heard");
        }
    }
}

#[test]
fn waits_between_tries_are_told_and_an_interrupt_ends_them() {
    let cloud = Cloud::new("interrupted");
    let origin = cloud.azurite.origin().strip_prefix("http://").expect("it speaks HTTP");
    let busy = Plan::new(|_| Fault::Refused(Refusal::SERVER_BUSY.retry_after(30)));
    let proxy = Proxy::start(origin.parse().expect("an address"), busy);
    let mut command = cloud.world.bare(PROGRAM);
    let name = format!("azblob://{}/backups?endpoint=http://{}/x", PRIMARY.name, proxy.addr());
    command.args(["-r", &name, "--password-file", "password", "verify"]);
    command.env("AZURE_STORAGE_KEY", PRIMARY.key).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut messages = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    messages.read_line(&mut line).expect("a pipe");
    let told = "keepstone: warning: the service answered 503 ServerBusy; try 1 of 10, the next one in 30 s\n";
    assert_eq!(line, told);
    kill_process(Pid::from_child(&child), Signal::INT).expect("the signal is sent");
    let mut rest = String::new();
    messages.read_to_string(&mut rest).expect("a pipe");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest}");
    assert_eq!(rest, "keepstone: error: interrupted\n");
}
