//! A service and a network that fail, one request at a time.

use crate::service::{container, key, open, settings_at};
use keepstone_engine::store::azure::{AzureStore, ServiceError};
use keepstone_engine::store::{BlobStore, Put, StoreError};
use keepstone_peers::azurite::{Azurite, PRIMARY};
use keepstone_peers::proxy::{Fault, Plan, Proxy, Refusal, Request};
use repo_format::BlobName;
use std::net::SocketAddr;
use std::time::Duration;

/// Where the shared Azurite listens.
pub fn azurite() -> SocketAddr {
    let origin = Azurite::shared().origin();
    origin.strip_prefix("http://").expect("it speaks HTTP").parse().expect("it has an address")
}

/// The endpoint of the account through a proxy.
pub fn through(proxy: &Proxy) -> String {
    format!("http://{}/{}", proxy.addr(), PRIMARY.name)
}

fn name(text: &str) -> BlobName {
    BlobName::parse(text).expect("a blob name")
}

/// A store behind a proxy that does something to the first requests, in their order.
fn behind(faults: &'static [Fault]) -> (Proxy, AzureStore) {
    let choose = |request: &Request| {
        let number = usize::try_from(request.number).expect("few requests");
        faults.get(number).cloned().unwrap_or(Fault::Forward)
    };
    let proxy = Proxy::start(azurite(), Plan::new(choose));
    let mut settings = settings_at(&through(&proxy), &container(), key());
    settings.retry.tries = 5;
    let store = open(settings);
    (proxy, store)
}

fn retries(store: &AzureStore) -> u64 {
    store.traffic().retries
}

#[test]
fn a_create_whose_answer_was_lost_is_found_to_be_done() {
    let (_proxy, store) = behind(&[Fault::AnswerLost]);
    assert_eq!(store.put_new(&name("r/1"), b"bytes").unwrap(), Put::Identical);
    assert_eq!(
        (retries(&store), store.traffic().reads.hot),
        (1, 1),
        "one more try, and a look at what is there"
    );
    assert_eq!(store.put_new(&name("r/1"), b"other").unwrap(), Put::Different);
    assert_eq!(store.get(&name("r/1"), None).unwrap(), b"bytes");
}

#[test]
fn a_create_that_is_refused_on_a_retry_is_found_to_be_done() {
    const REFUSED: Fault = Fault::Refused(Refusal::PERMISSION_MISMATCH);
    let (_proxy, store) = behind(&[Fault::AnswerLost, REFUSED]);
    assert_eq!(store.put_new(&name("r/1"), b"bytes").unwrap(), Put::Identical);
    let (_proxy, store) = behind(&[Fault::RefusedAfter(Refusal::OPERATION_TIMED_OUT)]);
    assert_eq!(store.put_new(&name("r/1"), b"bytes").unwrap(), Put::Identical);
    let (_proxy, store) = behind(&[REFUSED]);
    let refused = store.put_new(&name("r/1"), b"bytes").unwrap_err();
    let StoreError::Service { source: ServiceError::Forbidden { .. }, .. } = refused else {
        panic!("{refused:?}")
    };
}

#[test]
fn a_create_that_is_applied_after_its_retry_changes_nothing() {
    let (proxy, store) = behind(&[Fault::AppliedLater { further: None }]);
    assert_eq!(store.put_new(&name("r/1"), b"bytes").unwrap(), Put::Created);
    assert_eq!(proxy.deliver_late(), [409], "the blob is there, and stays");
    let (_proxy, store) = behind(&[Fault::AppliedLater { further: Some(0) }]);
    assert_eq!(store.put_new(&name("r/1"), b"bytes").unwrap(), Put::Identical);
    let (_proxy, store) = behind(&[Fault::Duplicated]);
    let put = store.put_new(&name("r/1"), b"bytes").unwrap();
    assert!(matches!(put, Put::Created | Put::Identical), "{put:?}");
}

#[test]
fn every_transient_answer_is_tried_again_and_counted() {
    const FAULTS: [Fault; 4] = [
        Fault::Refused(Refusal::SERVER_BUSY.retry_after(0)),
        Fault::Refused(Refusal::OPERATION_TIMED_OUT),
        Fault::Refused(Refusal::GATEWAY_TIMEOUT),
        Fault::ResetAtOnce,
    ];
    let (_proxy, store) = behind(&FAULTS);
    assert_eq!(store.put_new(&name("r/1"), b"bytes").unwrap(), Put::Created);
    let traffic = store.traffic();
    assert_eq!((traffic.retries, traffic.throttled, traffic.writes.hot), (4, 2, 5));
}

#[test]
fn a_service_that_stays_busy_is_told_and_not_waited_for_again() {
    const BUSY: Fault = Fault::Refused(Refusal::SERVER_BUSY);
    let (proxy, store) = behind(&[BUSY, BUSY, BUSY, BUSY, BUSY, BUSY]);
    let error = store.put_new(&name("r/1"), b"bytes").unwrap_err();
    let StoreError::Service { source: ServiceError::Busy { tries: 5, .. }, .. } = error else {
        panic!("{error:?}")
    };
    let error = store.list("", None, 1).unwrap_err();
    let StoreError::Service { source: ServiceError::Busy { tries: 1, .. }, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(proxy.counts().requests, 6, "what follows a request that was given up is tried once");
    assert_eq!(store.put_new(&name("r/1"), b"bytes").unwrap(), Put::Created);
}

#[test]
fn a_read_that_breaks_goes_on_where_it_broke() {
    let bytes: Vec<u8> = (0..=250).cycle().take(1_000_000).collect();
    for fault in [
        Fault::AnswerReset { after: 700_000 },
        Fault::AnswerTruncated { after: 700_000 },
        Fault::StuckInAnswer { after: 700_000 },
    ] {
        let stuck = matches!(fault, Fault::StuckInAnswer { .. });
        let broken =
            Plan::new(move |request| if request.number == 1 { fault.clone() } else { Fault::Forward });
        let proxy = Proxy::start(azurite(), broken);
        let mut settings = settings_at(&through(&proxy), &container(), key());
        settings.retry.deadline = Duration::from_millis(if stuck { 300 } else { 30_000 });
        settings.retry.slowest = 100 << 20;
        let store = open(settings);
        store.put_new(&name("d/1"), &bytes).unwrap();
        let from_second = store.get(&name("d/1"), Some(1..2_000_000)).unwrap();
        assert!(from_second == bytes[1..], "other bytes were read");
        let traffic = store.traffic();
        assert_eq!((traffic.reads.hot, traffic.read_bytes.hot), (2, 999_999), "bytes were read twice");
    }
}

#[test]
fn what_is_changed_on_its_way_is_read_or_sent_again() {
    let (_proxy, store) = behind(&[Fault::Forward, Fault::AnswerFlipped { at: 3 }]);
    store.put_new(&name("config"), b"0123456789").unwrap();
    assert_eq!(store.get(&name("config"), None).unwrap(), b"0123456789");
    assert_eq!(retries(&store), 1);
    let (_proxy, store) = behind(&[Fault::Forward, Fault::AnswerFlipped { at: 3 }]);
    store.put_new(&name("config"), b"0123456789").unwrap();
    assert_eq!(store.get(&name("config"), Some(0..1000)).unwrap(), b"0123456789");
    let proxy = Proxy::start(azurite(), Plan::once(0, Fault::RequestFlipped { at: 3 }));
    let mut settings = settings_at(&through(&proxy), &container(), key());
    settings.content_md5 = true;
    let store = open(settings);
    assert_eq!(store.put_new(&name("config"), b"0123456789").unwrap(), Put::Created);
    assert_eq!((retries(&store), store.get(&name("config"), None).unwrap()), (1, b"0123456789".to_vec()));
}

#[test]
fn a_stopped_program_tries_nothing_again() {
    let (_proxy, store) = {
        let busy = Plan::new(|_| Fault::Refused(Refusal::SERVER_BUSY.retry_after(60)));
        let proxy = Proxy::start(azurite(), busy);
        let settings = settings_at(&through(&proxy), &container(), key());
        settings.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (proxy, open(settings))
    };
    let error = store.put_new(&name("r/1"), b"bytes").unwrap_err();
    let StoreError::Service { source: ServiceError::Busy { tries: 1, .. }, .. } = error else {
        panic!("{error:?}")
    };
}

#[test]
fn a_stopped_program_does_not_wait_for_what_takes_long() {
    let proxy = Proxy::start(azurite(), Plan::new(|_| Fault::Stuck));
    let mut settings = settings_at(&through(&proxy), &container(), key());
    settings.retry.after_stop = Duration::from_millis(1);
    settings.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = open(settings).put_new(&name("r/1"), b"bytes").unwrap_err();
    let StoreError::Service { source: ServiceError::Connection { tries: 1, .. }, .. } = error else {
        panic!("{error:?}")
    };
}

#[test]
fn a_service_that_was_never_reached_is_given_up_soon() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = open(settings_at(&format!("http://{nobody}/{}", PRIMARY.name), "backups", key()));
    let error = store.get(&name("config"), None).unwrap_err();
    let StoreError::Service { source: ServiceError::Connection { tries: 3, .. }, .. } = error else {
        panic!("{error:?}")
    };
}
