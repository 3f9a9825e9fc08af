//! Each fault: what the client sees, and what the server was sent.

use crate::client::{CREATED, Client, FOUND, closed, exchange, get, last, put, reset};
use crate::server::Server;
use keepstone_peers::proxy::{Applied, Counts, Fault, Plan, Proxy, Refusal};
use std::time::Duration;

/// A server with two blobs, and a proxy that does something to the first request.
fn start(fault: Fault) -> (Server, Proxy) {
    let server = Server::start();
    server.put("/plain", b"hello world");
    server.put("/chunked", b"hello world");
    let proxy = Proxy::start(server.addr, Plan::once(0, fault));
    (server, proxy)
}

/// Counts of one connection with one request that something was done to.
fn one(fault: &Fault) -> Counts {
    let faults = fault.kind().map(|kind| (kind, 1)).into_iter().collect();
    Counts { connections: 1, requests: 1, faults, ..Counts::default() }
}

#[test]
fn a_lost_answer_is_that_of_a_request_which_was_carried_out() {
    let (server, proxy) = start(Fault::AnswerLost);
    assert_eq!(exchange(proxy.addr(), &put("/a", "hello")), closed(""));
    assert_eq!(server.log(2), ["connection", "PUT /a 5 -> 201"]);
    assert_eq!(proxy.counts(), one(&Fault::AnswerLost));
    let (method, path) = ("PUT".to_owned(), "/a".to_owned());
    let applied = Applied { number: 0, method, path, fault: Fault::AnswerLost, missed: false };
    assert_eq!(proxy.applied(), [applied]);
}

#[test]
fn a_request_that_is_reset_at_once_does_not_reach_the_server() {
    let (server, proxy) = start(Fault::ResetAtOnce);
    assert_eq!(exchange(proxy.addr(), &put("/a", "hello")), reset(""));
    assert_eq!(server.log(0), [""; 0]);
    assert_eq!(proxy.counts(), one(&Fault::ResetAtOnce));
}

#[test]
fn a_cut_request_reaches_the_server_in_part() {
    for (after, got) in [(0, 0), (3, 3), (4, 4), (5, 0), (13, 3)] {
        let (server, proxy) = start(Fault::RequestCut { after });
        assert_eq!(exchange(proxy.addr(), &put("/a", "hello")), reset(""));
        assert_eq!(server.log(2), ["connection".to_owned(), format!("cut PUT /a after {got}")]);
        assert_eq!(server.blob("/a"), None);
        assert_eq!(proxy.counts(), one(&Fault::RequestCut { after }));
    }
    let (server, proxy) = start(Fault::RequestCut { after: 3 });
    assert_eq!(exchange(proxy.addr(), &get("/plain")), reset(""));
    assert_eq!(server.log(2), ["connection", "cut head of 2"]);
    let (server, proxy) = start(Fault::RequestCut { after: 100 });
    let chunked = "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(exchange(proxy.addr(), chunked), reset(""));
    assert_eq!(server.log(2), ["connection", "cut PUT /a after 5"]);
}

#[test]
fn an_answer_is_cut_at_a_position_by_a_reset_or_a_close() {
    for (after, got) in [(0, ""), (4, "hell"), (10, "hello worl"), (11, ""), (15, "hell")] {
        let (_server, proxy) = start(Fault::AnswerReset { after });
        assert_eq!(exchange(proxy.addr(), &get("/plain")), reset(&format!("{FOUND}{got}")));
        assert_eq!(proxy.counts(), one(&Fault::AnswerReset { after }));
        let (_server, proxy) = start(Fault::AnswerTruncated { after });
        assert_eq!(exchange(proxy.addr(), &get("/plain")), closed(&format!("{FOUND}{got}")));
        assert_eq!(proxy.counts(), one(&Fault::AnswerTruncated { after }));
    }
}

#[test]
fn an_answer_in_chunks_is_cut_in_one_of_them_or_at_their_end() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;extended\r\nhel\r\n3;extended\r\nl";
    let (_server, proxy) = start(Fault::AnswerTruncated { after: 4 });
    assert_eq!(exchange(proxy.addr(), &get("/chunked")), closed(head));
    let (_server, proxy) = start(Fault::AnswerTruncated { after: 100 });
    let mut text = exchange(proxy.addr(), &get("/chunked")).text;
    // Where the end was torn apart depends on how it came.
    let rest = text.split_off(text.find("ld").unwrap());
    assert!("ld\r\n0\r\nX-Trailer: 1\r\n\r\n".starts_with(&rest) && !rest.ends_with("1\r\n\r\n"), "{rest:?}");
}

#[test]
fn an_answer_without_a_body_loses_the_end_of_its_head() {
    let (server, proxy) = start(Fault::AnswerReset { after: 5 });
    let cut = &CREATED[..CREATED.len() - 2];
    assert_eq!(exchange(proxy.addr(), &put("/a", "hello")), reset(cut));
    assert_eq!(server.blob("/a"), Some(b"hello".to_vec()));
    let (_server, proxy) = start(Fault::AnswerTruncated { after: 5 });
    assert_eq!(exchange(proxy.addr(), "HEAD /plain HTTP/1.1\r\n\r\n"), closed(&FOUND[..FOUND.len() - 2]));
}

const BUSY: &str = "HTTP/1.1 503 Refused\r\nContent-Type: application/xml\r\nContent-Length: 110\r\n\
    x-ms-error-code: ServerBusy\r\n\r\n<?xml version=\"1.0\" encoding=\"utf-8\"?>\
    <Error><Code>ServerBusy</Code><Message>Injected fault.</Message></Error>";

#[test]
fn a_refused_request_does_not_reach_the_server_and_keeps_the_connection() {
    let fault = Fault::Refused(Refusal::SERVER_BUSY);
    let (server, proxy) = start(fault.clone());
    let mut client = Client::connect(proxy.addr());
    client.send(&put("/a", "hello"));
    assert_eq!(client.read(BUSY.len()), BUSY);
    assert_eq!(server.log(0), [""; 0]);
    client.send(&put("/a", "hello"));
    assert_eq!(client.read(CREATED.len()), CREATED);
    assert_eq!(server.log(2), ["connection", "PUT /a 5 -> 201"]);
    assert_eq!(proxy.counts(), Counts { requests: 2, ..one(&fault) });
}

#[test]
fn refusals_say_when_to_come_back_and_leave_out_the_body_for_head() {
    let (_server, proxy) = start(Fault::Refused(Refusal::SERVER_BUSY.retry_after(7)));
    let mut client = Client::connect(proxy.addr());
    client.send(&get("/plain"));
    let expected = BUSY.replace("ServerBusy\r\n\r\n", "ServerBusy\r\nRetry-After: 7\r\n\r\n");
    assert_eq!(client.read(expected.len()), expected);
    let (_server, proxy) = start(Fault::Refused(Refusal::SERVER_BUSY));
    let mut client = Client::connect(proxy.addr());
    client.send("HEAD /plain HTTP/1.1\r\n\r\n");
    client.leave();
    assert_eq!(client.read_all(), closed(&BUSY[..BUSY.find("<?xml").unwrap()]));
    let (_server, proxy) = start(Fault::Refused(Refusal::BAD_GATEWAY));
    let mut client = Client::connect(proxy.addr());
    client.send(&get("/plain"));
    client.leave();
    let gateway = "HTTP/1.1 502 Refused\r\nContent-Type: text/html\r\nContent-Length: 41\r\n\r\n\
        <html><body>Injected fault.</body></html>";
    assert_eq!(client.read_all(), closed(gateway));
}

#[test]
fn a_refusal_in_place_of_a_word_to_go_on_closes_the_connection() {
    let (server, proxy) = start(Fault::Refused(Refusal::SERVER_BUSY));
    let mut client = Client::connect(proxy.addr());
    client.send("PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let expected = BUSY.replace("ServerBusy\r\n\r\n", "ServerBusy\r\nConnection: close\r\n\r\n");
    // A client that does not wait sees the refusal all the same.
    assert!(client.try_send(&vec![0; 2_000_000]));
    assert_eq!(client.read_all(), closed(&expected));
    assert_eq!(server.log(0), [""; 0]);
}

#[test]
fn a_request_is_carried_out_and_refused() {
    let fault = Fault::RefusedAfter(Refusal::SERVER_BUSY);
    let (server, proxy) = start(fault.clone());
    let mut client = Client::connect(proxy.addr());
    client.send(&put("/a", "hello"));
    assert_eq!(client.read(BUSY.len()), BUSY);
    assert_eq!(server.log(2), ["connection", "PUT /a 5 -> 201"]);
    client.send(&get("/a"));
    assert!(client.read(FOUND.len()).starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.counts(), Counts { requests: 2, ..one(&fault) });
}

#[test]
fn a_stuck_answer_never_comes() {
    let (server, proxy) = start(Fault::Stuck);
    let mut client = Client::connect(proxy.addr());
    client.send(&put("/a", "hello"));
    assert_eq!(server.log(2), ["connection", "PUT /a 5 -> 201"]);
    assert_eq!(proxy.counts(), one(&Fault::Stuck));
    // Until the client has enough.
    client.leave();
    assert_eq!(client.read_all(), closed(""));
}

#[test]
fn an_answer_is_stuck_in_its_middle() {
    let (_server, proxy) = start(Fault::StuckInAnswer { after: 4 });
    let mut client = Client::connect(proxy.addr());
    client.send(&get("/plain"));
    assert_eq!(client.read(FOUND.len() + 4), format!("{FOUND}hell"));
    client.leave();
    assert_eq!(client.read_all(), closed(""));
    assert_eq!(proxy.counts(), one(&Fault::StuckInAnswer { after: 4 }));
}

#[test]
fn a_slow_answer_comes_in_drips() {
    let (_server, proxy) = start(Fault::Slow { drip: 4, pause: Duration::from_millis(1) });
    assert_eq!(exchange(proxy.addr(), &last(&get("/plain"))), closed(&format!("{FOUND}hello world")));
    // A pause that ends with the proxy only: the second drip never comes.
    let (_server, proxy) = start(Fault::Slow { drip: 4, pause: Duration::from_hours(1) });
    let mut client = Client::connect(proxy.addr());
    client.send(&get("/plain"));
    assert_eq!(client.read(FOUND.len() + 4), format!("{FOUND}hell"));
    drop(proxy);
    assert_eq!(client.read_all(), closed(""));
}

#[test]
fn one_byte_of_an_answer_is_flipped() {
    for (path, at) in [("/plain", 4), ("/plain", 15), ("/chunked", 4)] {
        let fault = Fault::AnswerFlipped { at };
        let (server, proxy) = start(fault.clone());
        let request = last(&get(path));
        let right = exchange(server.addr, &request).text;
        let wrong =
            if path == "/plain" { right.replace("hello", "helln") } else { right.replace("\nlo ", "\nln ") };
        assert_ne!(wrong, right);
        assert_eq!(exchange(proxy.addr(), &request), closed(&wrong));
        assert_eq!(proxy.counts(), one(&fault));
    }
}

#[test]
fn a_flip_that_finds_no_byte_is_not_counted() {
    for request in [put("/a", "hello"), get("/chunked"), "HEAD /plain HTTP/1.1\r\n\r\n".to_owned()] {
        let (_server, proxy) = start(Fault::AnswerFlipped { at: 100 });
        exchange(proxy.addr(), &last(&request));
        assert_eq!(proxy.counts(), one(&Fault::Forward));
        assert!(proxy.applied()[0].missed);
    }
}

#[test]
fn one_byte_of_a_request_is_flipped() {
    let fault = Fault::RequestFlipped { at: 4 };
    let (server, proxy) = start(fault.clone());
    assert_eq!(exchange(proxy.addr(), &last(&put("/a", "hello"))), closed(CREATED));
    assert_eq!(server.blob("/a"), Some(b"helln".to_vec()));
    assert_eq!(proxy.counts(), one(&fault));
}

#[test]
fn a_duplicated_request_is_carried_out_twice_before_its_answer() {
    let (server, proxy) = start(Fault::Duplicated);
    let mut client = Client::connect(proxy.addr());
    client.send(&put("/a", "hello"));
    assert_eq!(client.read(CREATED.len()), CREATED);
    let twice = ["connection", "PUT /a 5 -> 201", "connection", "PUT /a 5 -> 409"];
    assert_eq!(server.log(0), twice);
    assert_eq!(proxy.counts(), one(&Fault::Duplicated));
}

#[test]
fn a_client_that_waits_for_a_word_is_told_to_go_on_once_when_its_request_is_duplicated() {
    let (server, proxy) = start(Fault::Duplicated);
    let mut client = Client::connect(proxy.addr());
    client.send("PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let word = "HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(client.read(word.len()), word);
    client.send("hello");
    assert_eq!(client.read(CREATED.len()), CREATED);
    assert_eq!(server.log(0).iter().filter(|line| line.contains("->")).count(), 2);
}

#[test]
fn a_request_is_applied_when_the_test_says_so() {
    let fault = Fault::AppliedLater { further: None };
    let (server, proxy) = start(fault.clone());
    assert_eq!(exchange(proxy.addr(), &put("/a", "late")), reset(""));
    assert_eq!(exchange(proxy.addr(), &last(&put("/b", "other"))), closed(CREATED));
    assert_eq!(server.log(0), ["connection", "PUT /b 5 -> 201"]);
    assert_eq!(proxy.deliver_late(), [201]);
    assert_eq!(server.blob("/a"), Some(b"late".to_vec()));
    assert_eq!(proxy.deliver_late(), [0; 0]);
    assert_eq!(proxy.counts(), Counts { connections: 2, requests: 2, delivered_late: 1, ..one(&fault) });
}

#[test]
fn a_request_is_applied_after_so_many_others() {
    let (server, proxy) = start(Fault::AppliedLater { further: Some(2) });
    assert_eq!(exchange(proxy.addr(), &put("/a", "late")), reset(""));
    assert_eq!(exchange(proxy.addr(), &last(&put("/b", "other"))), closed(CREATED));
    assert_eq!(server.blob("/a"), None);
    // The request is repeated before: what comes late finds the name taken.
    assert_eq!(exchange(proxy.addr(), &last(&put("/a", "again"))), closed(CREATED));
    let log = server.log(0);
    let requests: Vec<_> = log.iter().filter(|line| line.contains("->")).collect();
    assert_eq!(requests, ["PUT /b 5 -> 201", "PUT /a 5 -> 201", "PUT /a 4 -> 409"]);
    let (server, proxy) = start(Fault::AppliedLater { further: Some(0) });
    assert_eq!(exchange(proxy.addr(), &put("/a", "late")), reset(""));
    assert_eq!(server.log(0), ["connection", "PUT /a 4 -> 201"]);
}
