//! Which requests are made: what a host without the right to overwrite or delete may make, and few.

use crate::faults::{azurite, through};
use crate::rights::read_create_list;
use crate::service::{container, key, open, settings, settings_at};
use crate::world;
use keepstone_engine::backup::{Audit, BackupJob, Compression, JobDisk, Reading, Unfinished, backup};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::source::{ChangesFile, MemoryDisk, WithChanges};
use keepstone_engine::store::azure::ServiceError;
use keepstone_engine::store::{BlobStore as _, StoreError};
use keepstone_engine::{EngineError, Entropy};
use keepstone_peers::proxy::{Fault, Plan, Proxy, Refusal, Request};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A proxy that remembers the requests and lets them pass.
fn recording() -> (Proxy, Arc<Mutex<Vec<Request>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let plan = Plan::new(move |request: &Request| {
        seen.lock().expect("nobody panics with it").push(request.clone());
        Fault::Forward
    });
    (Proxy::start(azurite(), plan), requests)
}

fn taken(requests: &Mutex<Vec<Request>>) -> Vec<Request> {
    std::mem::take(&mut requests.lock().expect("nobody panics with it"))
}

/// The parameters of a request that say what is to be done.
fn operation(request: &Request) -> Vec<String> {
    let query = request.query.clone().unwrap_or_default();
    let is_about = |pair: &&str| pair.starts_with("comp=") || pair.starts_with("restype=");
    query.split('&').filter(is_about).map(str::to_owned).collect()
}

#[test]
fn blobs_are_made_by_one_conditional_put_and_containers_are_only_listed() {
    let container = container();
    let (proxy, requests) = recording();
    let store = open(settings_at(&through(&proxy), &container, key()));
    let repository = world::create(&store, world::small_geometry());
    let mut index = world::memory_index(&repository);
    let mut disk = world::mixed(1, 300_000);
    for run in 1..=2 {
        let source = MemoryDisk::new(disk.clone());
        world::back_up(&repository, &mut index, "vm", &[("disk", &source)], run).expect("it is backed up");
        disk[..5000].copy_from_slice(&world::noise(9, 5000));
    }
    world::restored(&repository, &world::latest(&repository, "vm"), "disk").expect("it is restored");
    world::undamaged(&repository);
    let inside = format!("/keepstoneprimary/{container}/");
    let mut puts = Vec::new();
    for request in taken(&requests) {
        let is_blob = request.path.starts_with(&inside);
        match request.method.as_str() {
            "PUT" => {
                assert!(is_blob && operation(&request).is_empty(), "{request:?} {:?}", operation(&request));
                assert_eq!(request.header("if-none-match"), Some("*"), "{request:?} may overwrite");
                assert_eq!(request.header("x-ms-blob-type"), Some("BlockBlob"));
                assert_eq!(request.header("x-ms-meta-blake3").map(str::len), Some(64), "{request:?}");
                assert_eq!(request.header("x-ms-lease-id"), None);
                puts.push(request.path);
            }
            "GET" if !is_blob => assert_eq!(operation(&request), ["comp=list", "restype=container"]),
            "GET" | "HEAD" => assert!(operation(&request).is_empty(), "{request:?}"),
            other => panic!("{other}: {request:?}"),
        }
    }
    let made = puts.len();
    puts.sort_unstable();
    puts.dedup();
    let listed = store.list("", None, 1000).unwrap().blobs.len();
    assert_eq!((puts.len(), listed), (made, made), "a blob was put twice");
}

#[test]
fn a_backup_of_nothing_new_lists_what_the_protocol_needs_and_no_more() {
    let container = container();
    let (proxy, requests) = recording();
    let store = open(settings_at(&through(&proxy), &container, key()));
    let repository = world::create(&store, world::small_geometry());
    let mut index = world::memory_index(&repository);
    for (run, since) in [(1, "null"), (2, "\"1\"")] {
        taken(&requests);
        let changes = format!(r#"{{"diskSize":300000,"changeId":"{run}","since":{since},"changedArea":[]}}"#);
        let changes = ChangesFile::parse(changes.as_bytes()).expect("a changes file");
        let disk = Box::new(MemoryDisk::new(world::mixed(1, 300_000)));
        let source = WithChanges::new(disk, changes).expect("they are of one size");
        world::back_up(&repository, &mut index, "vm", &[("disk", &source)], run).expect("it is backed up");
    }
    let vm = repository.keys().vm_tag("vm");
    let listed: Vec<String> = taken(&requests)
        .iter()
        .filter(|request| !operation(request).is_empty())
        .filter_map(|request| request.query.clone())
        .map(|query| {
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
            prefix.unwrap_or_default().replace("%2F", "/").replace(&vm.to_string(), "VM")
        })
        .collect();
    // Whether the place is a replica; sessions that did not end, and what is next (W-9, W-1), the generation that the
    // intent names; after the intent what is condemned and moved, and the VM's snapshots (W-2, W-3). No packs were
    // stored, so none are listed at the end.
    let protocol = ["lineage/", "s/host-a/", "r/VM/", "gc/", "gc/", "k/", "r/VM/", "f/VM/"];
    assert!(
        listed == protocol || listed == [&protocol[..3], &["f/VM/"], &protocol[3..]].concat(),
        "{listed:?}"
    );
}

#[test]
fn a_credential_that_ends_in_the_middle_leaves_a_session_that_the_next_run_uses() {
    let container = container();
    let (ends, requests_ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (end, ended) = (Arc::clone(&ends), Arc::clone(&requests_ended));
    // It ends when the 21st data pack is put.
    let plan = Plan::new(move |request: &Request| {
        if request.path.contains("/d%2F") && request.path.ends_with("-00000014") {
            end.store(true, Ordering::SeqCst);
        }
        if end.load(Ordering::SeqCst) {
            ended.store(true, Ordering::SeqCst);
            return Fault::Refused(Refusal::AUTHENTICATION_FAILED);
        }
        Fault::Forward
    });
    let proxy = Proxy::start(azurite(), plan);
    world::create(&open(settings(&container, read_create_list(&container))), world::small_geometry());
    let source = MemoryDisk::new(world::noise(1, 2_000_000));
    let error = {
        let store = open(settings_at(&through(&proxy), &container, read_create_list(&container)));
        back_up(&store, &source, 1, Unfinished::MayRun { ended: &[] }).unwrap_err()
    };
    let EngineError::Store(StoreError::Service { source: ServiceError::Unauthenticated { .. }, .. }) = &error
    else {
        panic!("{error:?}")
    };
    assert!(requests_ended.load(Ordering::SeqCst));
    let store = open(settings(&container, read_create_list(&container)));
    let packs = || {
        let listed = store.list("d/", None, 1000).expect("it lists").blobs;
        listed.iter().map(|blob| blob.len).sum::<u64>()
    };
    let stored_before = packs();
    assert!(stored_before > 0, "nothing was stored before the credential ended");
    back_up(&store, &source, 2, Unfinished::Ended).expect("the next run ends the session and goes on");
    let stored_twice = packs().saturating_sub(2_000_000);
    assert!(stored_twice < stored_before / 2, "{stored_twice} of {stored_before} bytes were stored again");
    let repository = world::open(&store);
    let snapshot = world::latest(&repository, "vm");
    assert_eq!(world::restored(&repository, &snapshot, "disk").unwrap(), world::noise(1, 2_000_000));
    world::undamaged(&repository);
}

fn back_up(
    store: &dyn keepstone_engine::BlobStore,
    source: &MemoryDisk,
    run: u8,
    unfinished: Unfinished<'_>,
) -> Result<(), EngineError> {
    let repository = world::open(store);
    let mut index = world::memory_index(&repository);
    sync(&mut index, repository.store(), repository.keys(), &Preference::default(), &Quiet)?;
    let job = BackupJob {
        vm: "vm",
        writer: &world::writer(),
        disks: vec![JobDisk::new("disk", source)],
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(1),
        tags: Vec::new(),
        properties: Vec::new(),
        time: world::NOW + u64::from(run),
        program: "test",
        entropy: Entropy::new([run; 32]),
        unfinished,
        checkpoint_due: &|| true,
    };
    backup(&repository, &mut index, &job, &Quiet).map(drop)
}
