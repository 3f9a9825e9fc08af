//! Servers that are no blob service, and answers without an end.

use crate::service::{key, open, settings_at};
use keepstone_engine::store::azure::{AzureStore, ServiceError};
use keepstone_engine::store::{BlobStore as _, StoreError};
use repo_format::BlobName;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

const MIB: usize = 1 << 20;

/// The head of an answer as a blob service gives it.
const OK: &str = "200 OK\r\nx-ms-request-id: 7";

/// A store whose service answers each request with the same head, and with so many spaces behind the body.
fn store(head: &'static str, body: &'static str, spaces: usize) -> AzureStore {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of 127.0.0.1 is free");
    let endpoint = format!("http://{}/a", listener.local_addr().expect("it is bound"));
    #[expect(clippy::disallowed_methods, reason = "it serves until the process ends")]
    thread::spawn(move || {
        for client in listener.incoming() {
            // The client may hang up before it has everything: that is what is tested.
            let _ = client.and_then(|client| answer(client, head, body, spaces));
        }
    });
    open(settings_at(&endpoint, "backups", key()))
}

fn answer(mut client: TcpStream, answered: &str, body: &str, spaces: usize) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let len = body.len() + spaces;
    write!(client, "HTTP/1.1 {answered}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}")?;
    let mib = vec![b' '; MIB];
    let mut left = spaces;
    while left > 0 {
        let part = left.min(MIB);
        client.write_all(mib.get(..part).expect("it is no longer"))?;
        left -= part;
    }
    Ok(())
}

fn service_error<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ServiceError {
    match result {
        Err(StoreError::Service { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

fn config() -> BlobName {
    BlobName::parse("config").expect("a blob name")
}

#[test]
fn a_page_of_another_server_is_no_blob() {
    let store = store("200 OK", "<html>Log in to the network</html>", 0);
    let error = service_error(store.get(&config(), Some(0..65537)));
    assert!(matches!(error, ServiceError::Nonsense(_)), "{error:?}");
    let error = service_error(store.list("", None, 10));
    assert!(matches!(error, ServiceError::Nonsense(_)), "{error:?}");
    let error = service_error(store.put_new(&config(), b"bytes"));
    assert!(matches!(error, ServiceError::Nonsense(_)), "{error:?}");
}

#[test]
fn no_more_of_an_error_or_a_listing_is_read_than_either_can_have() {
    let refusing = store("400 Bad Request", "", 200 * MIB);
    service_error(refusing.get(&config(), Some(0..65537)));
    let read = refusing.traffic().bytes_in;
    assert!(read < 2 * MIB as u64, "{read} bytes of an error were read");
    let listing = store(OK, "<EnumerationResults>", 200 * MIB);
    let error = service_error(listing.list("", None, 10));
    assert!(matches!(error, ServiceError::Nonsense(_)), "{error:?}");
    let read = listing.traffic().bytes_in;
    assert!(read < 65 * MIB as u64, "{read} bytes of a listing were read");
}
