//! Runs against a repository in Azure, as Azurite has it.

use super::arguments;
use super::world::{Ended, PROGRAM, World};
use keepstone_peers::azurite::{Azurite, PRIMARY};
use keepstone_peers::http;
use serde_json::json;
use std::fs;
use std::time::{Duration, SystemTime};

const CONTAINER: &str = "bench";

/// A world with a repository in a container.
struct Cloud {
    world: World,
    azurite: &'static Azurite,
}

impl Cloud {
    fn new() -> Self {
        let azurite = Azurite::shared();
        azurite.create_container(&PRIMARY, CONTAINER);
        let world = World::new();
        fs::create_dir(world.path("scratch")).expect("a new directory");
        let cloud = Self { world, azurite };
        assert_eq!(cloud.run("rcl", &["init"]).code, Some(0));
        cloud
    }

    fn sas(rights: &str) -> String {
        PRIMARY.container_sas(CONTAINER, rights, SystemTime::now() + Duration::from_hours(1))
    }

    fn run(&self, rights: &str, command: &[&str]) -> Ended {
        let mut run = self.world.bare(PROGRAM);
        let endpoint = self.azurite.endpoint(&PRIMARY);
        let repository = format!("azblob://{}/{CONTAINER}/prod?endpoint={endpoint}", PRIMARY.name);
        run.args(["-r", &repository, "--password-file", "password"]).args(command);
        Ended::of(run.env("AZURE_STORAGE_SAS_TOKEN", Self::sas(rights)).output())
    }

    /// Names and digests of all blobs of the container.
    fn listing(&self) -> Vec<String> {
        let query = format!("restype=container&comp=list&{}", Self::sas("l"));
        let url = format!("{}/{CONTAINER}?{query}", self.azurite.endpoint(&PRIMARY));
        let listing = String::from_utf8(http::send("GET", &url, &[], &[]).body).expect("a listing is text");
        listing
            .split("<Name>")
            .skip(1)
            .map(|blob| blob.split_once('<').map_or(blob, |(name, _)| name).to_owned())
            .collect()
    }
}

#[test]
fn a_repository_in_azure_is_measured_and_left_as_it_was() {
    let cloud = Cloud::new();
    let before = cloud.listing();
    assert!(before.iter().any(|name| name == "prod/config"), "{before:?}");

    // Who may not delete is told before anything is written.
    let refused = cloud.run("rcl", &arguments(&[]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let stderr = &refused.stderr;
    assert!(stderr.contains("nothing was written") && stderr.contains("--no-repository"), "{stderr}");
    assert_eq!(cloud.listing(), before);

    let command = [&["--json"], &arguments(&["--change-rates=1", "--fleet=2x1GiB"])[..]].concat();
    let ended = cloud.run("rcdl", &command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    assert_eq!(report["setting"]["store"], "azure");
    assert_eq!(report["setting"]["place"], json!(format!("azblob://{}/{CONTAINER}/prod", PRIMARY.name)));
    let requests = &report["figures"]["requests"];
    // All that was put was deleted, and two deletes see that deleting works.
    assert_eq!(requests["delete"].as_u64(), requests["put"].as_u64().map(|put| put + 1), "{requests}");
    assert!(report["figures"]["cost"]["requests"].as_f64() > Some(0.0), "{report}");
    assert_eq!(cloud.listing(), before, "something stayed in the container, or went");
}
