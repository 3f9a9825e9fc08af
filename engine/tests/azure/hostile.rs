//! Answers that no blob service gives.

use crate::service::{key, open, settings_at};
use keepstone_engine::store::azure::{AzureStore, ServiceError};
use keepstone_engine::store::{BlobStore, StoreError};
use keepstone_peers::azurite::PRIMARY;
use repo_format::BlobName;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

/// A store at a server that gives these answers, each on a connection of its own that it then closes; after the last one
/// nobody listens.
#[expect(
    clippy::disallowed_methods,
    reason = "the server answers while the test asks, and ends with its answers"
)]
fn answered_with(answers: Vec<String>) -> AzureStore {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let endpoint = format!("http://{}/{}", listener.local_addr().expect("it is bound"), PRIMARY.name);
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client connects");
            let reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
            reader.lines().find(|line| line.as_ref().is_ok_and(String::is_empty));
            stream.write_all(answer.as_bytes()).expect("the client listens");
        }
    });
    open(settings_at(&endpoint, "backups", key()))
}

fn listing(names: &[&str], marker: &str) -> String {
    let blob = |name: &&str| {
        format!("<Blob><Name>{name}</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>")
    };
    let blobs: String = names.iter().map(blob).collect();
    let body = format!(
        "<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    );
    let head = "HTTP/1.1 200 OK\r\nx-ms-request-id: 7\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length";
    format!("{head}: {}\r\n\r\n{body}", body.len())
}

fn config() -> BlobName {
    BlobName::parse("config").expect("a blob name")
}

fn service_error<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ServiceError {
    match result {
        Err(StoreError::Service { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_body_that_breaks_off_behind_its_last_byte_is_whole() {
    let cut = "HTTP/1.1 200 OK\r\nx-ms-request-id: 7\r\nETag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n";
    let behind = "HTTP/1.1 416 Range Not Satisfiable\r\nx-ms-error-code: InvalidRange\r\nConnection: close\r\n\
        Content-Length: 0\r\n\r\n";
    for range in [None, Some(0..1000)] {
        let store = answered_with(vec![cut.to_owned(), behind.to_owned()]);
        assert_eq!(store.get(&config(), range).unwrap(), b"bytes");
    }
}

#[test]
fn a_page_of_more_than_was_asked_for_is_taken() {
    let store = answered_with(vec![listing(&["a", "b", "c d"], "on"), listing(&["e"], "")]);
    let page = store.list("", None, 1).unwrap();
    let names: Vec<&str> = page.blobs.iter().map(|blob| blob.name.as_str()).collect();
    assert_eq!((names, page.foreign.len(), page.next), (vec!["a", "b", "e"], 1, None));
}

#[test]
fn a_listing_that_goes_on_where_it_began_is_given_up() {
    let store = answered_with(vec![listing(&[], "on"), listing(&[], "on")]);
    let error = service_error(store.list("", None, 10));
    assert!(matches!(error, ServiceError::Nonsense("a listing goes on where it began")), "{error:?}");
}

#[test]
fn what_only_looks_like_a_missing_blob_is_none() {
    let page = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnope";
    let store = answered_with(vec![page.to_owned(), page.to_owned()]);
    let error = service_error(store.get(&config(), None));
    assert!(matches!(error, ServiceError::Refused { tries: 1, .. }), "{error:?}");
    let error = service_error(store.delete(&config()));
    assert!(matches!(error, ServiceError::Refused { tries: 1, .. }), "{error:?}");
}
