//! Random plans.

use crate::client::{Client, last, put};
use crate::server::Server;
use keepstone_peers::proxy::{Fault, Kind, Plan, Proxy, Refusal, Request};
use std::collections::{BTreeMap, BTreeSet};

fn request(number: u64, method: &str, path: &str) -> Request {
    Request {
        number,
        method: method.to_owned(),
        path: path.to_owned(),
        query: None,
        headers: Vec::new(),
        body_len: Some(if method == "PUT" { 1000 } else { 0 }),
    }
}

/// Requests of all methods, three to each path.
fn requests(count: u64) -> Vec<Request> {
    let methods = ["PUT", "GET", "HEAD", "DELETE"];
    (0..count).map(|n| request(n, methods[(n % 4) as usize], &format!("/{}", n / 12))).collect()
}

#[test]
fn what_a_request_meets_depends_on_the_seed_and_not_on_the_order_of_paths() {
    let draw = |seed, requests: &[Request]| {
        let plan = Plan::random(seed, 0.3);
        let mut drawn = BTreeMap::<_, Vec<_>>::new();
        for request in requests {
            let key = (request.method.clone(), request.path.clone());
            drawn.entry(key).or_default().push(plan.draw(request));
        }
        drawn
    };
    let forwards = requests(600);
    let mut backwards = forwards.clone();
    backwards.reverse();
    assert_eq!(draw(7, &forwards), draw(7, &backwards));
    assert_ne!(draw(7, &forwards), draw(8, &forwards));
}

#[test]
fn a_share_of_the_requests_meets_a_fault() {
    let faults = |share| {
        let plan = Plan::random(1, share);
        requests(4000).iter().filter(|request| plan.draw(request) != Fault::Forward).count()
    };
    assert_eq!((faults(0.0), faults(1.0)), (0, 4000));
    // Far more than five times the standard deviation, and the same in every run.
    assert!((900..1100).contains(&faults(0.25)), "{}", faults(0.25));
}

#[test]
fn faults_are_drawn_by_weight_and_where_they_concern_the_request() {
    let refused = Kind::Refused(Refusal::AUTHENTICATION_FAILED);
    let weights = [(Kind::Stuck, 0), (refused, 1), (Kind::RequestCut, 9)];
    let plan = Plan::random(3, 1.0).weights(&weights);
    let mut counts = BTreeMap::<_, u64>::new();
    for request in requests(4000) {
        let kind = plan.draw(&request).kind().unwrap();
        *counts.entry((request.method == "PUT", kind)).or_default() += 1;
    }
    let cuts = counts.remove(&(true, Kind::RequestCut)).unwrap();
    let refusals = counts.remove(&(true, refused)).unwrap();
    assert_eq!(cuts + refusals, 1000);
    assert!((850..950).contains(&cuts), "{cuts}");
    assert_eq!(counts, BTreeMap::from([((false, refused), 3000)]));
}

#[test]
fn every_fault_that_a_client_survives_is_drawn_unless_told_otherwise() {
    let plan = Plan::random(5, 1.0);
    let kinds: BTreeSet<_> = requests(2000).iter().filter_map(|request| plan.draw(request).kind()).collect();
    assert_eq!(kinds.len(), 15, "{kinds:?}");
    let harmful = [Kind::RequestFlipped, Kind::Stuck, Kind::StuckInAnswer, Kind::Slow];
    assert!(harmful.iter().all(|kind| !kinds.contains(kind)), "{kinds:?}");
}

#[test]
fn no_more_faults_are_drawn_than_allowed() {
    let plan = Plan::random(5, 1.0).at_most(3);
    let drawn: Vec<_> = requests(10).iter().map(|request| plan.draw(request) != Fault::Forward).collect();
    assert_eq!(drawn, [true, true, true, false, false, false, false, false, false, false]);
}

#[test]
fn signatures_are_not_shown() {
    let mut secret = request(3, "GET", "/container/blob");
    secret.query = Some("sig=secret".to_owned());
    secret.headers = vec![("Authorization".to_owned(), "secret".to_owned())];
    assert_eq!(secret.header("authorization"), Some("secret"));
    assert_eq!(format!("{secret:?}"), "request 3: GET /container/blob");
}

#[test]
fn a_client_that_repeats_gets_everything_through_a_random_plan() {
    let server = Server::start();
    let proxy = Proxy::start(server.addr, Plan::random(11, 0.5));
    for n in 0..200 {
        let request = last(&put(&format!("/{n}"), &format!("blob {n}")));
        let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
        let is_there = |_: &u32| {
            let mut client = Client::connect(proxy.addr());
            client.send(&request);
            matches!(status(&client.read_all().text).as_str(), "201" | "409")
        };
        assert!((0..30).any(|attempt| is_there(&attempt)), "{n}: {:?}", proxy.applied());
        assert_eq!(server.blob(&format!("/{n}")), Some(format!("blob {n}").into_bytes()));
    }
    let counts = proxy.counts();
    let applied: u64 = counts.faults.values().sum();
    assert!(applied > 100, "{counts:?}");
    assert_eq!(counts.server_failures, 0, "{counts:?}");
}
