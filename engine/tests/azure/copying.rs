//! Copies between two accounts that the service makes by itself.
#![expect(
    clippy::disallowed_methods,
    reason = "signatures are valid from now on, and services tell the time"
)]

use crate::faults::azurite;
use crate::service::{container_of, key_of, open, settings_of};
use keepstone_engine::store::azure::{AzureSettings, AzureStore, Credential, Secret, ServiceError, Tier};
use keepstone_engine::store::{BlobStore, PerTier, Put, StoreError, StoredTier};
use keepstone_peers::azurite::{Account, Azurite, PRIMARY, REPLICA};
use keepstone_peers::copying::{CopyingService, Course, Deed};
use keepstone_peers::proxy::{Fault, Plan, Proxy, Refusal, Request};
use repo_format::BlobName;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const PACK: &str = "d/w/0123456789abcdef0123456789abcdef-00000000";

fn name(text: &str) -> BlobName {
    BlobName::parse(text).expect("a blob name")
}

fn len(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

/// A container in each of the two accounts, below a prefix, and the way to them.
struct Regions {
    origin: String,
    containers: [String; 2],
}

impl Regions {
    fn new() -> Self {
        Self::through(Azurite::shared().origin().to_owned())
    }

    fn through(origin: String) -> Self {
        Self { origin, containers: [&PRIMARY, &REPLICA].map(container_of) }
    }

    fn behind(proxy: &Proxy) -> Self {
        Self::through(format!("http://{}", proxy.addr()))
    }

    fn source(&self, credential: Credential) -> AzureSettings {
        self.settings(&PRIMARY, &self.containers[0], credential)
    }

    fn destination(&self, credential: Credential) -> AzureSettings {
        self.settings(&REPLICA, &self.containers[1], credential)
    }

    fn settings(&self, account: &Account, container: &str, credential: Credential) -> AzureSettings {
        let endpoint = format!("{}/{}", self.origin, account.name);
        let mut settings = settings_of(
            &format!("azblob://{}/{container}/p/q?endpoint={endpoint}", account.name),
            credential,
        );
        settings.retry.tries = 5;
        settings
    }

    /// Both stores, with the keys of their accounts.
    fn stores(&self) -> (AzureStore, AzureStore) {
        (open(self.source(key_of(&PRIMARY))), open(self.destination(key_of(&REPLICA))))
    }
}

fn sas(account: &Account, container: &str, permissions: &str) -> Credential {
    let valid = SystemTime::now() + Duration::from_hours(24);
    Credential::Sas(Secret::new(account.container_sas(container, permissions, valid)))
}

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ServiceError {
    match result {
        Err(StoreError::Service { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_has_the_same_bytes_digests_and_tier_and_none_of_them_pass_through_the_program() {
    let (source, destination) = Regions::new().stores();
    let bytes: Vec<u8> = (0..=250).cycle().take(32 << 20).collect();
    source.put_new(&name(PACK), &bytes).unwrap();
    let sent_before = source.traffic().bytes_out;
    assert_eq!(destination.copy_from(&source, &name(PACK), len(&bytes)).unwrap(), Put::Created);
    let (here, there) = (destination.traffic(), source.traffic());
    let moved = here.bytes_in + here.bytes_out + there.bytes_in + there.bytes_out - sent_before;
    assert!(moved < 4096, "{moved} bytes passed through");
    let copied = PerTier { hot: 32 << 20, ..PerTier::default() };
    assert_eq!((here.copied_bytes, there.lent_bytes), (copied, copied));
    assert_eq!((here.written_bytes, there.read_bytes), (PerTier::default(), PerTier::default()));
    assert!(destination.get(&name(PACK), None).unwrap() == bytes, "the copy has other bytes");
    // Which the digest in its metadata settles, and a lost answer with it.
    assert_eq!(destination.put_new(&name(PACK), &bytes).unwrap(), Put::Identical);
    assert_eq!(destination.copy_from(&source, &name(PACK), len(&bytes)).unwrap(), Put::Identical);
}

#[test]
fn a_copy_is_made_in_the_tier_of_new_blobs_there() {
    let regions = Regions::new();
    let (source, _) = regions.stores();
    let settings = AzureSettings { data_tier: Tier::Cold, ..regions.destination(key_of(&REPLICA)) };
    let destination = open(settings);
    for text in [PACK, "config"] {
        source.put_new(&name(text), b"bytes").unwrap();
        assert_eq!(destination.copy_from(&source, &name(text), 5).unwrap(), Put::Created);
    }
    let tiers: Vec<_> = destination.list("", None, 9).unwrap().blobs.iter().map(|blob| blob.tier).collect();
    assert_eq!(tiers, [Some(StoredTier::Hot), Some(StoredTier::Cold)]);
    let copied = destination.traffic().copied_bytes;
    assert_eq!(copied, PerTier { hot: 5, cool: 0, cold: 5 });
}

#[test]
fn what_has_the_name_already_is_compared_and_stays() {
    let (source, destination) = Regions::new().stores();
    for text in ["config", "r/1", PACK] {
        source.put_new(&name(text), b"bytes").unwrap();
    }
    destination.put_new(&name("config"), b"bytes").unwrap();
    destination.put_new(&name("r/1"), b"other").unwrap();
    destination.put_new(&name(PACK), b"longer bytes").unwrap();
    assert_eq!(destination.copy_from(&source, &name("config"), 5).unwrap(), Put::Identical);
    assert_eq!(destination.copy_from(&source, &name("r/1"), 5).unwrap(), Put::Different);
    assert_eq!(destination.copy_from(&source, &name(PACK), 5).unwrap(), Put::Different);
    assert_eq!(destination.get(&name("r/1"), None).unwrap(), b"other");
    assert_eq!(destination.traffic().copied_bytes, PerTier::default());
}

#[test]
fn an_empty_blob_and_one_without_a_digest_are_copied() {
    let regions = Regions::new();
    let (source, destination) = regions.stores();
    source.put_new(&name("config"), b"").unwrap();
    let url = {
        let signed =
            PRIMARY.container_sas(&regions.containers[0], "rw", SystemTime::now() + Duration::from_hours(1));
        format!("{}/{}/{}/p/q/r/1?{signed}", regions.origin, PRIMARY.name, regions.containers[0])
    };
    let put = keepstone_peers::http::send("PUT", &url, &[("x-ms-blob-type", "BlockBlob")], b"somebody's");
    assert_eq!(put.status, 201);
    for (text, len) in [("config", 0), ("r/1", 10)] {
        assert_eq!(destination.copy_from(&source, &name(text), len).unwrap(), Put::Created);
        assert_eq!(destination.copy_from(&source, &name(text), len).unwrap(), Put::Identical);
    }
    assert_eq!(destination.get(&name("r/1"), None).unwrap(), b"somebody's");
}

#[test]
fn a_source_that_is_not_there_or_another_is_told() {
    let (source, destination) = Regions::new().stores();
    let missing = destination.copy_from(&source, &name("r/1"), 5).unwrap_err();
    assert!(matches!(&missing, StoreError::NotFound { name } if name.as_str() == "r/1"), "{missing:?}");
    source.put_new(&name("r/1"), b"bytes").unwrap();
    let other = destination.copy_from(&source, &name("r/1"), 6).unwrap_err();
    assert!(other.is_damage(), "{other:?}");
    let StoreError::Io { object, source: why, .. } = &other else { panic!("{other:?}") };
    assert!(object.contains("azblob://keepstoneprimary/") && object.ends_with("/p/q/r/1"), "{object}");
    assert_eq!(why.to_string(), "it has 5 bytes, and not the 6 that were declared");
    assert!(destination.list("", None, 1).unwrap().blobs.is_empty());
}

#[test]
fn rights_to_read_there_and_to_create_here_are_enough() {
    let regions = Regions::new();
    let bytes = b"bytes".as_slice();
    open(regions.source(key_of(&PRIMARY))).put_new(&name(PACK), bytes).unwrap();
    let [there, here] = &regions.containers;
    for (number, rights) in ["rc", "rcw"].into_iter().enumerate() {
        let text = format!("r/{number}");
        let source = open(regions.source(sas(&PRIMARY, there, "r")));
        open(regions.source(key_of(&PRIMARY))).put_new(&name(&text), bytes).unwrap();
        let destination = open(regions.destination(sas(&REPLICA, here, rights)));
        assert_eq!(destination.copy_from(&source, &name(&text), 5).unwrap(), Put::Created, "{rights}");
        assert_eq!(destination.copy_from(&source, &name(&text), 5).unwrap(), Put::Identical, "{rights}");
        assert_eq!(destination.get(&name(&text), None).unwrap(), bytes);
    }
    let reader = open(regions.destination(sas(&REPLICA, here, "rl")));
    let source = open(regions.source(sas(&PRIMARY, there, "r")));
    let error = refused(reader.copy_from(&source, &name(PACK), 5));
    assert!(matches!(error, ServiceError::Forbidden { .. }), "{error:?}");
}

#[test]
fn who_may_not_read_the_source_is_told_so_and_no_secret() {
    let regions = Regions::new();
    let (source, destination) = regions.stores();
    source.put_new(&name(PACK), b"bytes").unwrap();
    let there = &regions.containers[0];
    for (credential, secret) in [
        (sas(&PRIMARY, there, "l"), "sig="),
        (sas(&PRIMARY, "another", "r"), "sig="),
        (key_of(&Account { key: REPLICA.key, ..PRIMARY }), REPLICA.key),
    ] {
        let source = open(regions.source(credential));
        let error = destination.copy_from(&source, &name(PACK), 5).unwrap_err();
        let shown = format!("{error:?} {error} {:?}", std::error::Error::source(&error));
        assert!(shown.contains("azblob://keepstoneprimary/"), "{shown}");
        assert!(!shown.contains(secret) && !shown.contains("sig%"), "{shown}");
    }
}

/// A proxy before Azurite that does something to the requests that change something, in their order.
fn harming(faults: Vec<Fault>) -> Proxy {
    let faults = std::sync::Mutex::new(faults.into_iter());
    let plan = Plan::new(move |request: &Request| {
        let is_copy = request.method == "PUT" && request.header("x-ms-copy-source").is_some();
        let is_commit = request.query.as_deref().is_some_and(|query| query.contains("comp=blocklist"));
        // Azurite has not got the first way: it would not be harmed.
        if (is_copy && request.header("x-ms-blob-type").is_none()) || is_commit {
            let next = faults.lock().expect("nobody panics with it").next();
            return next.unwrap_or(Fault::Forward);
        }
        Fault::Forward
    });
    Proxy::start(azurite(), plan)
}

#[test]
fn a_copy_that_fails_at_any_request_is_made_or_made_again() {
    const FORWARD: Fault = Fault::Forward;
    let lost = [
        Fault::AnswerLost,
        Fault::AnswerReset { after: 0 },
        Fault::RefusedAfter(Refusal::OPERATION_TIMED_OUT),
    ];
    let refused =
        [Fault::ResetAtOnce, Fault::Refused(Refusal::SERVER_BUSY), Fault::Refused(Refusal::BAD_GATEWAY)];
    for fault in lost.into_iter().chain(refused).chain([Fault::Duplicated]) {
        for faults in
            [vec![fault.clone()], vec![FORWARD, fault.clone()], vec![fault.clone(), FORWARD, fault.clone()]]
        {
            let proxy = harming(faults);
            let (source, destination) = Regions::behind(&proxy).stores();
            source.put_new(&name(PACK), b"bytes").unwrap();
            let put = destination.copy_from(&source, &name(PACK), 5).unwrap();
            assert!(matches!(put, Put::Created | Put::Identical), "{fault:?}: {put:?}");
            assert_eq!(destination.get(&name(PACK), None).unwrap(), b"bytes", "{fault:?}");
            let digests = destination.put_new(&name(PACK), b"bytes").unwrap();
            assert_eq!(digests, Put::Identical, "{fault:?}");
        }
    }
}

#[test]
fn a_copy_that_ends_between_its_requests_leaves_nothing_and_is_made_by_the_next_run() {
    const BUSY: Fault = Fault::Refused(Refusal::SERVER_BUSY);
    let proxy = harming(vec![Fault::Forward, BUSY, BUSY, BUSY, BUSY, BUSY]);
    let regions = Regions::behind(&proxy);
    let (source, destination) = regions.stores();
    source.put_new(&name(PACK), b"bytes").unwrap();
    let error = refused(destination.copy_from(&source, &name(PACK), 5));
    assert!(matches!(error, ServiceError::Busy { tries: 5, .. }), "{error:?}");
    assert!(destination.list("", None, 1).unwrap().blobs.is_empty(), "half a copy is listed");
    let (source, destination) = regions.stores();
    assert_eq!(destination.copy_from(&source, &name(PACK), 5).unwrap(), Put::Created);
    assert_eq!(destination.get(&name(PACK), None).unwrap(), b"bytes");
}

#[test]
fn copies_are_held_to_the_limit_of_what_is_sent() {
    let regions = Regions::new();
    let (source, _) = regions.stores();
    let upload_limit = NonZeroU64::new(1 << 20);
    let destination = open(AzureSettings { upload_limit, ..regions.destination(key_of(&REPLICA)) });
    let bytes = vec![7; 1 << 20];
    let began = Instant::now();
    for text in ["r/1", "r/2", "r/3"] {
        source.put_new(&name(text), &bytes).unwrap();
        assert_eq!(destination.copy_from(&source, &name(text), len(&bytes)).unwrap(), Put::Created);
    }
    // What is moved at once is paid for by what comes after it.
    assert!(began.elapsed() >= Duration::from_secs(2), "more was copied than the limit");
}

/// A source in Azurite, and a destination in a service that copies as documented.
fn documented(service: &CopyingService, source: Credential) -> (AzureStore, AzureStore) {
    let regions = Regions::new();
    let source = AzureSettings { data_tier: Tier::Cool, ..regions.source(source) };
    let place = format!("azblob://{0}/backups/p?endpoint={1}", REPLICA.name, service.endpoint(REPLICA.name));
    let mut settings = settings_of(&place, key_of(&REPLICA));
    settings.retry.tries = 3;
    (open(source), open(settings))
}

#[test]
fn put_blob_from_url_is_asked_for_in_its_documented_form() {
    let service = CopyingService::start();
    let (source, destination) = documented(&service, key_of(&PRIMARY));
    source.put_new(&name(PACK), b"bytes").unwrap();
    assert_eq!(destination.copy_from(&source, &name(PACK), 5).unwrap(), Put::Created);
    let [asked] = &*service.asked() else { panic!("{:?}", service.asked()) };
    assert!(
        asked.path.ends_with("/backups/p%2Fd%2Fw%2F0123456789abcdef0123456789abcdef-00000000"),
        "{asked:?}"
    );
    let digest = blake3_hex(b"bytes");
    for (header, expected) in [
        ("content-length", "0"),
        ("if-none-match", "*"),
        ("x-ms-access-tier", "Hot"),
        ("x-ms-blob-type", "BlockBlob"),
        ("x-ms-meta-blake3", &digest),
        ("x-ms-source-content-md5", "SzpiGLs+OnMD6KFxpg/Pkg=="),
    ] {
        assert_eq!(asked.header(header), Some(expected), "{header}");
    }
    assert!(asked.header("x-ms-source-if-match").is_some());
    // Azurite took the SAS that was signed with the key: it is for that blob, to read, and ends soon.
    let url = asked.header("x-ms-copy-source").expect("a source");
    let (blob, query) = url.split_once('?').expect("it has a SAS");
    assert!(blob.ends_with("/p%2Fq%2Fd%2Fw%2F0123456789abcdef0123456789abcdef-00000000"), "{blob}");
    for pair in ["sr=b", "sp=r", "spr=https%2Chttp"] {
        assert!(query.split('&').any(|found| found == pair), "{pair} is not in {blob}?...");
    }
    assert_eq!(destination.get(&name(PACK), None).unwrap(), b"bytes");
    assert_eq!(destination.copy_from(&source, &name(PACK), 5).unwrap(), Put::Identical);
    let elsewhere = url.replace("00000000?", "00000001?");
    source.put_new(&name(&PACK.replace("00000000", "00000001")), b"bytes").unwrap();
    assert_eq!(keepstone_peers::http::send("GET", url, &[], &[]).status, 200);
    assert_eq!(keepstone_peers::http::send("GET", &elsewhere, &[], &[]).status, 403, "it reads other blobs");
    assert_eq!(keepstone_peers::http::send("DELETE", url, &[], &[]).status, 403, "it deletes");
}

fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[test]
fn each_answer_to_put_blob_from_url_is_understood() {
    let refuses = |status, code, source_status| Deed::Refuses { status, code, source_status };
    let copied = |deeds: &[Deed]| {
        let service = CopyingService::start();
        let (source, destination) = documented(&service, key_of(&PRIMARY));
        source.put_new(&name(PACK), b"bytes").unwrap();
        service.next(deeds.iter().cloned());
        let copied = destination.copy_from(&source, &name(PACK), 5);
        (copied, service.asked().len())
    };
    let (put, asked) = copied(&[Deed::LosesAnswer]);
    assert_eq!((put.unwrap(), asked), (Put::Identical, 2));
    for busy in [refuses(503, "ServerBusy", None), refuses(503, "CannotVerifyCopySource", Some(503))] {
        let (put, asked) = copied(&[busy]);
        assert_eq!((put.unwrap(), asked), (Put::Created, 2));
    }
    for (status, source_status) in [(403, Some(403)), (404, Some(404)), (404, None), (401, Some(401))] {
        let (put, asked) = copied(&[refuses(status, "CannotVerifyCopySource", source_status)]);
        let error = refused(put);
        let ServiceError::CopySource { from, answer } = &error else { panic!("{error:?}") };
        assert!(from.starts_with("azblob://keepstoneprimary/") && answer.status == status, "{error}");
        assert_eq!(asked, 1);
    }
    let (put, _) = copied(&[refuses(403, "AuthorizationPermissionMismatch", None)]);
    assert!(matches!(refused(put), ServiceError::Forbidden { .. }));
    let (put, _) = copied(&[refuses(409, "SomeConflict", None)]);
    assert!(matches!(refused(put), ServiceError::ReplicationWrites { .. }));
    let (put, _) = copied(&[Deed::MakesEmpty]);
    assert!(matches!(refused(put), ServiceError::Copy(_)));
}

#[test]
fn a_copy_that_is_under_way_is_waited_for() {
    let service = CopyingService::start_copying_later(Course { pending: 2, fails: false });
    let (source, destination) = documented(&service, key_of(&PRIMARY));
    for text in [PACK, "r/1"] {
        source.put_new(&name(text), b"bytes").unwrap();
        assert_eq!(destination.copy_from(&source, &name(text), 5).unwrap(), Put::Created);
        assert_eq!(destination.get(&name(text), None).unwrap(), b"bytes");
    }
    // The first blob was asked for in the two ways that the service does not know as well.
    let asked = service.asked();
    let ways: Vec<_> = asked.iter().map(|asked| asked.header("x-ms-blob-type").is_some()).collect();
    assert_eq!(ways, [true, false, false]);
    let again = documented(&service, key_of(&PRIMARY)).1;
    assert_eq!(again.copy_from(&source, &name(PACK), 5).unwrap(), Put::Identical);
}

#[test]
fn a_copy_that_is_not_done_or_was_given_up_is_never_taken_for_whole() {
    for (course, expected) in [
        (Course { pending: u32::MAX, fails: false }, "the service still copies"),
        (Course { pending: 0, fails: true }, "the service gave up copying, and left an empty blob"),
    ] {
        let service = CopyingService::start_copying_later(course);
        let (source, _) = documented(&service, key_of(&PRIMARY));
        let place =
            format!("azblob://{0}/backups?endpoint={1}", REPLICA.name, service.endpoint(REPLICA.name));
        let mut settings = settings_of(&place, key_of(&REPLICA));
        settings.retry.patience = Duration::from_millis(1);
        let destination = open(settings);
        source.put_new(&name(PACK), b"bytes").unwrap();
        for _ in 0..2 {
            let error = refused(destination.copy_from(&source, &name(PACK), 5));
            assert!(matches!(error, ServiceError::Copy(why) if why == expected), "{error:?}");
        }
    }
}

#[test]
fn one_who_copies_at_the_same_time_does_no_harm() {
    let regions = Regions::new();
    let (source, _) = regions.stores();
    let names: Vec<BlobName> = (0..12).map(|number| name(&format!("r/{number}"))).collect();
    for (name, byte) in names.iter().zip(0..) {
        source.put_new(name, &[byte; 9999]).unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (source, destination) = regions.stores();
                for name in &names {
                    let put = destination.copy_from(&source, name, 9999).unwrap();
                    assert_ne!(put, Put::Different, "{name}");
                }
            });
        }
    });
    let destination = regions.stores().1;
    for (name, byte) in names.iter().zip(0..) {
        assert!(destination.get(name, None).unwrap() == [byte; 9999], "{name}");
    }
}
