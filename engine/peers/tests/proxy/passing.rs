//! What passes the fault proxy unchanged, and what becomes of connections.

use crate::client::{CREATED, Client, FOUND, closed, exchange, get, last, put, reset};
use crate::server::{Manner, Server};
use keepstone_peers::proxy::{Counts, Plan, Proxy};

fn start(manner: Manner) -> (Server, Proxy) {
    let server = Server::with(manner);
    let proxy = Proxy::start(server.addr, Plan::forward());
    (server, proxy)
}

#[test]
fn answers_come_as_the_server_sent_them() {
    let (server, proxy) = start(Manner::Keeps);
    server.put("/plain", b"hello world");
    server.put("/chunked", b"hello world");
    for request in [get("/plain"), get("/chunked"), get("/none"), put("/plain", "x")] {
        let request = last(&request);
        let direct = exchange(server.addr, &request);
        assert_eq!(exchange(proxy.addr(), &request), direct);
        assert!(direct.text.starts_with("HTTP/1.1 "), "{direct:?}");
    }
    assert_eq!(proxy.counts(), Counts { connections: 4, requests: 4, ..Counts::default() });
}

#[test]
fn requests_of_all_kinds_follow_each_other_over_one_connection() {
    let (server, proxy) = start(Manner::Keeps);
    let mut client = Client::connect(proxy.addr());
    client.send(&put("/a", "hello world"));
    assert_eq!(client.read(CREATED.len()), CREATED);
    client.send("PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    assert_eq!(client.read(CREATED.len()), CREATED);
    client.send("HEAD /a HTTP/1.1\r\n\r\n");
    assert_eq!(client.read(FOUND.len()), FOUND);
    client.send("DELETE /b HTTP/1.1\r\n\r\n");
    client.read("HTTP/1.1 204 Gone\r\n\r\n".len());
    client.send(&get("/a"));
    assert_eq!(client.read(FOUND.len() + 11), format!("{FOUND}hello world"));
    let sent =
        ["PUT /a 11 -> 201", "PUT /b 6 -> 201", "HEAD /a 0 -> 200", "DELETE /b 0 -> 204", "GET /a 0 -> 200"];
    assert_eq!(server.log(6), [&["connection"][..], &sent].concat());
}

#[test]
fn a_client_that_waits_for_a_word_before_its_body_is_told_by_the_server() {
    let (server, proxy) = start(Manner::Keeps);
    let mut client = Client::connect(proxy.addr());
    client.send("PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let word = "HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(client.read(word.len()), word);
    client.send("hello");
    assert_eq!(client.read(CREATED.len()), CREATED);
    assert_eq!(server.log(3), ["connection", "told to go on", "PUT /a 5 -> 201"]);
}

#[test]
fn an_answer_that_comes_before_the_request_was_read_reaches_the_client() {
    let (server, proxy) = start(Manner::RefusesEarly);
    let mut client = Client::connect(proxy.addr());
    client.send("PUT /a HTTP/1.1\r\nContent-Length: 100\r\n\r\n");
    let refusal = "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(client.read(refusal.len()), refusal);
    // More than it would have sent is not forwarded anywhere.
    assert!(client.try_send(&[0; 100]));
    assert_eq!(client.read_all(), closed(""));
    assert_eq!(server.log(2), ["connection", "refused PUT /a"]);
}

#[test]
fn a_connection_that_the_server_closed_meanwhile_is_made_again() {
    let (server, proxy) = start(Manner::ClosesSilently);
    let mut client = Client::connect(proxy.addr());
    for name in ["/a", "/b"] {
        client.send(&put(name, "hello"));
        assert_eq!(client.read(CREATED.len()), CREATED);
        server.log(if name == "/a" { 3 } else { 6 });
    }
    assert_eq!(proxy.counts(), Counts { connections: 1, requests: 2, ..Counts::default() });
}

#[test]
fn a_client_that_leaves_in_its_request_leaves_the_server_a_cut_one() {
    let (server, proxy) = start(Manner::Keeps);
    let mut client = Client::connect(proxy.addr());
    client.send("PUT /a HTTP/1.1\r\nContent-Length: 100\r\n\r\nhello");
    drop(client);
    assert_eq!(server.log(2), ["connection", "cut PUT /a after 5"]);
}

#[test]
fn a_server_that_is_not_there_is_a_reset_that_is_counted() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(unused, Plan::forward());
    assert_eq!(exchange(proxy.addr(), &get("/a")), reset(""));
    assert_eq!(
        proxy.counts(),
        Counts { connections: 1, requests: 1, server_failures: 1, ..Counts::default() }
    );
}

#[test]
fn all_connections_end_with_the_proxy() {
    let (_server, proxy) = start(Manner::Keeps);
    let mut client = Client::connect(proxy.addr());
    client.send(&put("/a", "hello"));
    assert_eq!(client.read(CREATED.len()), CREATED);
    drop(proxy);
    assert_eq!(client.read_all(), closed(""));
}
