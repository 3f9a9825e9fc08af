//! What every store promises, and what only this one does.

use crate::service::{container, key, open, settings};
use keepstone_engine::store::azure::{AzurePlace, AzureSettings, AzureStore, Tier};
use keepstone_engine::store::{BlobStore, PerTier, Put, StoredTier, Traffic, conformance};
use keepstone_peers::azurite::{Azurite, PRIMARY};
use repo_format::BlobName;
use std::num::NonZeroU64;
use std::time::Duration;
use tokio::time::Instant;

fn name(text: &str) -> BlobName {
    BlobName::parse(text).expect("a blob name")
}

#[test]
fn conforms() {
    conformance::check(&|| {
        let container = container();
        Box::new(move || Box::new(open(settings(&container, key()))))
    });
    conformance::check_canaries(&open(settings(&container(), key())));
}

#[test]
fn what_is_outside_the_prefix_is_neither_seen_nor_touched() {
    let container = container();
    let outer = open(settings(&container, key()));
    let inner = {
        let mut settings = settings(&container, key());
        let endpoint = Azurite::shared().endpoint(&PRIMARY);
        let place = format!("azblob://{}/{container}/a/b?endpoint={endpoint}", PRIMARY.name);
        settings.place = AzurePlace::parse(&place).unwrap().unwrap();
        open(settings)
    };
    for text in ["a/a", "a/b/c", "a/b-/c", "a/c", "config"] {
        outer.put_new(&name(text), b"outer").unwrap();
    }
    assert_eq!(inner.put_new(&name("config"), b"inner").unwrap(), Put::Created);
    let names = |store: &dyn BlobStore| -> Vec<String> {
        store.list("", None, 100).unwrap().blobs.iter().map(|blob| blob.name.to_string()).collect()
    };
    assert_eq!(names(&inner), ["c", "config"]);
    assert_eq!(inner.get(&name("c"), None).unwrap(), b"outer");
    inner.delete(&name("c")).unwrap();
    assert_eq!(names(&outer), ["a/a", "a/b-/c", "a/b/config", "a/c", "config"]);
}

#[test]
fn every_request_is_counted_by_what_it_costs() {
    let mut settings = settings(&container(), key());
    settings.data_tier = Tier::Cool;
    let store = open(settings);
    let data = name("d/w/0123456789abcdef0123456789abcdef-00000000");
    let map = name("m/w/0123456789abcdef0123456789abcdef-00000000");
    store.put_new(&data, &[1; 1000]).unwrap();
    store.put_new(&map, &[2; 500]).unwrap();
    assert_eq!(store.put_new(&map, &[2; 500]).unwrap(), Put::Identical);
    assert_eq!(store.get(&data, Some(10..20)).unwrap(), [1; 10]);
    assert_eq!(store.get(&map, None).unwrap(), [2; 500]);
    store.list("", None, 10).unwrap();
    store.delete(&map).unwrap();
    let expected = Traffic {
        writes: PerTier { hot: 2, cool: 1, cold: 0 },
        // The second create of the map pack was settled by looking at what is there.
        reads: PerTier { hot: 2, cool: 1, cold: 0 },
        lists: 1,
        deletes: 1,
        written_bytes: PerTier { hot: 500, cool: 1000, cold: 0 },
        read_bytes: PerTier { hot: 500, cool: 10, cold: 0 },
        bytes_out: 2000,
        most_in_flight: 1,
        ..Traffic::default()
    };
    let traffic = store.traffic();
    assert!(traffic.bytes_in > 510, "a listing has a body too");
    assert_eq!(Traffic { bytes_in: 0, ..traffic }, expected);
}

#[test]
fn a_listing_tells_the_tier_of_each_blob() {
    let mut settings = settings(&container(), key());
    settings.data_tier = Tier::Cold;
    let store = open(settings);
    let session = "0123456789abcdef0123456789abcdef";
    let names = [format!("d/w/{session}-00000000"), format!("m/w/{session}-00000000")];
    for text in &names {
        store.put_new(&name(text), b"x").unwrap();
    }
    let listed = store.list("", None, 10).unwrap().blobs;
    let tiers: Vec<_> = listed.iter().map(|info| (info.name.to_string(), info.tier)).collect();
    let [data, map] = names;
    assert_eq!(tiers, [(data, Some(StoredTier::Cold)), (map, Some(StoredTier::Hot))]);
}

#[test]
fn limits_hold_back_what_is_sent_and_received() {
    const LEN: usize = 2 << 20;
    let (container, bytes) = (container(), vec![7; LEN]);
    let took = |settings: AzureSettings, name: &str, run: &dyn Fn(&AzureStore, &BlobName)| {
        let store = open(settings);
        let began = Instant::now();
        run(&store, &self::name(name));
        began.elapsed()
    };
    let limit = NonZeroU64::new(1 << 20);
    let upload = AzureSettings { upload_limit: limit, ..settings(&container, key()) };
    let download = AzureSettings { download_limit: limit, ..settings(&container, key()) };
    // The last part, of which nobody knows the length, goes when those before it are paid for.
    let least = Duration::from_secs(1);
    let put =
        |store: &AzureStore, name: &BlobName| assert_eq!(store.put_new(name, &bytes).unwrap(), Put::Created);
    let get = |store: &AzureStore, name: &BlobName| assert!(store.get(name, None).unwrap() == bytes);
    assert!(took(upload, "d/1", &put) >= least, "more was sent than the limit");
    assert!(took(download, "d/1", &get) >= least, "more was received than the limit");
}
