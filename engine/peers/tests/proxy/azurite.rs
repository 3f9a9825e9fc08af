//! The fault proxy before Azurite: what is there after each fault.

use crate::client::Client;
use keepstone_peers::azurite::{Azurite, PRIMARY};
use keepstone_peers::http;
use keepstone_peers::proxy::{Fault, Plan, Proxy, Refusal};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// A blob that neither side reads at once.
fn content() -> String {
    let numbers: Vec<_> = (0..40_000).map(|n| format!("{n:05} ")).collect();
    numbers.concat()
}

/// Azurite's address and the target of a blob, signed.
fn blob(container: &str, name: &str) -> (SocketAddr, String) {
    let azurite = Azurite::shared();
    let expiry = SystemTime::now() + Duration::from_hours(1);
    let sas = PRIMARY.container_sas(container, "rcwl", expiry);
    let target = format!("/{}/{container}/{name}?{sas}", PRIMARY.name);
    let addr = azurite.origin().strip_prefix("http://").and_then(|addr| addr.parse().ok());
    (addr.expect("the origin is an address"), target)
}

/// Sends a request by HTTP/1.1 and returns how it ended: with a status, whole or not, or otherwise.
fn outcome(addr: SocketAddr, method: &str, target: &str, body: &str) -> String {
    let mut client = Client::connect(addr);
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: blobs\r\nConnection: close\r\nx-ms-version: 2024-11-04\r\n\
         x-ms-blob-type: BlockBlob\r\nIf-None-Match: *\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // A get is of whatever is there.
    let head = if method == "GET" { head.replace("If-None-Match: *\r\n", "") } else { head };
    // Whoever cuts a request does not read the rest.
    client.try_send(head.as_bytes());
    client.try_send(body.as_bytes());
    let received = client.read_all();
    let how = if received.is_reset { "reset" } else { "closed" };
    let Some((head, body)) = received.text.split_once("\r\n\r\n") else {
        return format!("{how} after {}", received.text.lines().next().unwrap_or("nothing"));
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    format!("{status}, {how} after {} bytes", body.len())
}

/// What is there, past the proxy.
fn stored(addr: SocketAddr, target: &str) -> Option<String> {
    let answer = http::send("GET", &format!("http://{addr}{target}"), &[], &[]);
    match answer.status {
        200 => Some(String::from_utf8(answer.body).expect("what was put is text")),
        404 => None,
        status => panic!("Azurite answered {status}"),
    }
}

#[test]
fn a_put_through_each_fault_leaves_what_the_fault_says() {
    Azurite::shared().create_container(&PRIMARY, "put-faults");
    let whole = content();
    let mut flipped = whole.clone();
    // The blank after the first number, with its lowest bit the other way.
    flipped.replace_range(5..6, "!");
    let timed_out = Refusal::OPERATION_TIMED_OUT;
    let cases = [
        (Fault::Forward, "201, closed after 0 bytes", Some(&whole)),
        (Fault::AnswerLost, "closed after nothing", Some(&whole)),
        (Fault::ResetAtOnce, "reset after nothing", None),
        (Fault::RequestCut { after: 100_000 }, "reset after nothing", None),
        (Fault::AnswerReset { after: 0 }, "reset after HTTP/1.1 201 Created", Some(&whole)),
        (Fault::AnswerTruncated { after: 0 }, "closed after HTTP/1.1 201 Created", Some(&whole)),
        (Fault::Refused(timed_out), "500, closed after 117 bytes", None),
        (Fault::RefusedAfter(timed_out), "500, closed after 117 bytes", Some(&whole)),
        (Fault::RequestFlipped { at: 5 }, "201, closed after 0 bytes", Some(&flipped)),
        (Fault::Duplicated, "201, closed after 0 bytes", Some(&whole)),
        (Fault::AppliedLater { further: Some(0) }, "reset after nothing", Some(&whole)),
        (Fault::AppliedLater { further: None }, "reset after nothing", None),
    ];
    for (n, (fault, seen, there)) in cases.into_iter().enumerate() {
        let (addr, target) = blob("put-faults", &n.to_string());
        let proxy = Proxy::start(addr, Plan::once(0, fault.clone()));
        assert_eq!(outcome(proxy.addr(), "PUT", &target, &whole), seen, "{fault:?}");
        assert!(stored(addr, &target).as_ref() == there, "{fault:?}");
        // What comes late, or is repeated, changes nothing that is there.
        if there.is_none() {
            assert_eq!(outcome(proxy.addr(), "PUT", &target, "short"), "201, closed after 0 bytes");
            let late: &[u16] = if matches!(fault, Fault::AppliedLater { .. }) { &[409] } else { &[] };
            assert_eq!(proxy.deliver_late(), late, "{fault:?}");
            assert_eq!(stored(addr, &target).as_deref(), Some("short"), "{fault:?}");
        } else {
            assert!(outcome(proxy.addr(), "PUT", &target, "short").starts_with("409, "), "{fault:?}");
        }
        assert_eq!(proxy.counts().server_failures, 0, "{fault:?}");
    }
}

#[test]
fn a_get_through_each_fault_shows_what_the_fault_says() {
    Azurite::shared().create_container(&PRIMARY, "get-faults");
    let (addr, target) = blob("get-faults", "blob");
    let whole = content();
    assert_eq!(outcome(addr, "PUT", &target, &whole), "201, closed after 0 bytes");
    let all = format!("200, closed after {} bytes", whole.len());
    let cases = [
        (Fault::Forward, all.as_str()),
        (Fault::AnswerReset { after: 1000 }, "200, reset after 1000 bytes"),
        (Fault::AnswerTruncated { after: 100_000 }, "200, closed after 100000 bytes"),
        (Fault::Slow { drip: 100_000, pause: Duration::from_millis(1) }, &all),
        (Fault::AnswerFlipped { at: 5 }, &all),
        (Fault::Refused(Refusal::SERVER_BUSY), "503, closed after 110 bytes"),
    ];
    for (fault, seen) in cases {
        let proxy = Proxy::start(addr, Plan::once(0, fault.clone()));
        assert_eq!(outcome(proxy.addr(), "GET", &target, ""), seen, "{fault:?}");
        assert_eq!(proxy.counts().faults.values().sum::<u64>(), u64::from(fault != Fault::Forward));
    }
}
