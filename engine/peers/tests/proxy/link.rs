//! The link. Lower bounds of times are what it promises, and hold on any machine.

use crate::client::{CREATED, Client, closed, exchange, get, last, put, reset};
use crate::server::{Manner, Server};
use keepstone_peers::proxy::{Link, LinkCounts, LinkSettings};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const FAR: LinkSettings = LinkSettings { round_trip: Duration::from_millis(8), bytes_per_second: None };
const NARROW: LinkSettings =
    LinkSettings { round_trip: Duration::from_millis(2), bytes_per_second: Some(40_000_000) };

/// A server that does something with its only connection.
fn serving(serve: impl FnOnce(TcpStream) -> io::Result<u64> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let addr = listener.local_addr().expect("it listens somewhere");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody connects");
        serve(stream).expect("the connection holds");
    });
    addr
}

fn echoing() -> SocketAddr {
    serving(|stream| io::copy(&mut &stream, &mut &stream))
}

#[test]
fn bytes_arrive_unchanged_and_the_end_after_them() {
    let sent: Vec<u8> = (0..2_000_003_u32).map(|n| (n % 251) as u8).collect();
    for settings in [LinkSettings::default(), FAR, NARROW] {
        let link = Link::start(echoing(), settings);
        let stream = TcpStream::connect(link.addr()).unwrap();
        let got = thread::scope(|scope| {
            scope.spawn(|| {
                (&stream).write_all(&sent).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            (&stream).read_to_end(&mut got).unwrap();
            got
        });
        assert!(got == sent, "{settings:?}");
        let bytes = sent.len() as u64;
        let counts = link.counts();
        assert_eq!((counts.bytes_to_server, counts.bytes_to_client), (bytes, bytes));
    }
}

#[test]
fn connecting_and_asking_take_a_round_trip_each() {
    let link = Link::start(echoing(), FAR);
    let begin = Instant::now();
    let mut client = Client::connect(link.addr());
    for (text, round_trips) in [("hello", 2), ("again", 3)] {
        client.send(text);
        assert_eq!(client.read(text.len()), text);
        assert!(begin.elapsed() >= FAR.round_trip * round_trips, "{:?}", begin.elapsed());
    }
}

#[test]
fn a_capped_link_carries_no_more_than_it_can() {
    // 50 ms at the cap, for all connections together.
    let (len, connections) = (500_000, 4);
    let begin = Instant::now();
    let server = Server::start();
    let link = Link::start(server.addr, NARROW);
    let body = "x".repeat(len);
    thread::scope(|scope| {
        for n in 0..connections {
            let (addr, request) = (link.addr(), last(&put(&format!("/{n}"), &body)));
            scope.spawn(move || assert_eq!(exchange(addr, &request), closed(CREATED)));
        }
    });
    // It may make up for 4 ms.
    assert!(begin.elapsed() >= Duration::from_millis(46), "{:?}", begin.elapsed());
}

#[test]
fn requests_in_flight_are_counted_over_all_connections() {
    for settings in [LinkSettings::default(), FAR] {
        let server = Server::with(Manner::Gathers(3));
        server.put("/chunked", b"hello world");
        let link = Link::start(server.addr, settings);
        let requests = [put("/a", "hello"), get("/chunked"), "HEAD /chunked HTTP/1.1\r\n\r\n".to_owned()];
        let mut clients = requests.map(|request| {
            let mut client = Client::connect(link.addr());
            client.send(&request);
            client
        });
        let answers = clients.each_mut().map(|client| client.read("HTTP/1.1 200".len()));
        assert_eq!(answers, ["HTTP/1.1 201", "HTTP/1.1 200", "HTTP/1.1 200"]);
        let counts = link.counts();
        assert_eq!((counts.connections, counts.connections_at_once_max), (3, 3));
        assert_eq!((counts.requests, counts.requests_at_once_max), (3, 3));
    }
}

#[test]
fn requests_that_follow_each_other_are_in_flight_one_at_a_time() {
    for settings in [LinkSettings::default(), FAR] {
        let server = Server::start();
        let link = Link::start(server.addr, settings);
        let mut client = Client::connect(link.addr());
        let (request, taken) =
            (put("/a", "hello"), CREATED.replace("201", "409").replace(": 0", ": 5") + "taken");
        for answer in [CREATED, &taken, &taken] {
            client.send(&request);
            assert_eq!(client.read(answer.len()), answer);
        }
        let expected = LinkCounts {
            connections: 1,
            connections_at_once_max: 1,
            refused: 0,
            requests: 3,
            requests_at_once_max: 1,
            bytes_to_server: 3 * request.len() as u64,
            bytes_to_client: (CREATED.len() + 2 * taken.len()) as u64,
        };
        assert_eq!(link.counts(), expected);
    }
}

#[test]
fn what_is_no_http_is_carried_without_counting_requests() {
    let link = Link::start(echoing(), LinkSettings::default());
    let mut client = Client::connect(link.addr());
    client.send("\u{16}\u{3}hello");
    assert_eq!(client.read(7), "\u{16}\u{3}hello");
    let counts = link.counts();
    assert_eq!((counts.requests, counts.bytes_to_server, counts.bytes_to_client), (0, 7, 7));
}

#[test]
fn resets_go_through() {
    for settings in [LinkSettings::default(), FAR] {
        // A socket that is closed with something unread is reset.
        let link = Link::start(serving(|stream| stream.peek(&mut [0]).map(|_| 0)), settings);
        let mut client = Client::connect(link.addr());
        client.send("hello");
        assert_eq!(client.read_all(), reset(""));
    }
}

#[test]
fn a_server_that_is_not_there_is_a_reset_that_is_counted() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let link = Link::start(unused, FAR);
    assert_eq!(Client::connect(link.addr()).read_all(), reset(""));
    let expected =
        LinkCounts { connections: 1, connections_at_once_max: 1, refused: 1, ..LinkCounts::default() };
    assert_eq!(link.counts(), expected);
}

#[test]
fn all_connections_end_with_the_link() {
    for settings in [LinkSettings::default(), FAR] {
        let link = Link::start(echoing(), settings);
        let mut client = Client::connect(link.addr());
        client.send("hello");
        assert_eq!(client.read(5), "hello");
        drop(link);
        assert_eq!(client.read_all(), closed(""));
    }
}
