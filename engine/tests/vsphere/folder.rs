//! Ranges of files.

use crate::peer::{Peer, chain, cookie};
use keepstone_engine::vsphere::{Datacenter, DatastorePath, MoRef, VSphereError};
use keepstone_peers::scripted::answer;

fn datacenter() -> Datacenter {
    Datacenter {
        datacenter: MoRef::new("Datacenter", "datacenter-2"),
        name: "DC 1".to_owned(),
        path: "Europe/DC 1".to_owned(),
    }
}

fn file() -> DatastorePath {
    DatastorePath::parse("[fast & small] web 1/web%1-flat.vmdk").unwrap()
}

/// Asks for bytes 10 to 13 of a file, which is answered with these bytes.
fn got(bytes: Vec<u8>) -> Result<(u64, Vec<u8>), VSphereError> {
    let peer = Peer::start(move |_, _| bytes.clone());
    let mut buffer = vec![0; 4];
    let len = peer.connect().get_folder_range(&datacenter(), &file(), 10, &mut buffer)?;
    Ok((len, buffer))
}

fn partial(range: &str, body: &[u8]) -> Vec<u8> {
    answer(206, &[("Content-Range", range)], body)
}

#[test]
fn a_range_is_asked_for_in_the_session_with_names_encoded() {
    let peer = Peer::start(|_, _| partial("bytes 10-13/40", b"abcd"));
    let mut buffer = [0; 4];
    let len = peer.connect().get_folder_range(&datacenter(), &file(), 10, &mut buffer).unwrap();
    assert_eq!((len, &buffer), (40, b"abcd"));
    let asked = peer.server.asked().pop().unwrap();
    assert_eq!(asked.target, "/folder/web%201/web%251-flat.vmdk?dcPath=Europe%2FDC+1&dsName=fast+%26+small");
    assert_eq!(asked.header("range"), Some("bytes=10-13"));
    assert_eq!(asked.header("cookie"), Some(cookie(1).as_str()));
}

#[test]
fn the_length_of_a_file_is_told_with_its_first_byte() {
    let peer = Peer::start(|_, _| partial("bytes 0-0/1099511627776", b"a"));
    assert_eq!(peer.connect().folder_file_len(&datacenter(), &file()).unwrap(), 1 << 40);
    assert_eq!(peer.server.asked().pop().unwrap().header("range"), Some("bytes=0-0"));
}

#[test]
fn an_answer_of_another_range_is_refused() {
    let ranges = [
        "bytes 11-14/40",
        "bytes 10-14/40",
        "bytes 10-13/*",
        "bytes 10-13/13",
        "bytes 10-13",
        "10-13/40",
        "bytes */40",
        "bytes 10-13/-1",
        "",
    ];
    for range in ranges {
        let refused = got(partial(range, b"abcd")).unwrap_err();
        assert!(
            matches!(refused, VSphereError::Malformed { method: "GET /folder", .. }),
            "{range}: {refused:?}"
        );
    }
    let refused = got(answer(206, &[], b"abcd")).unwrap_err();
    assert_eq!(chain(&refused), "the answer to GET /folder cannot be used: it says not which range it is");
}

#[test]
fn other_statuses_than_that_of_a_range_are_refused() {
    for status in [200, 302, 404, 416] {
        let refused = got(answer(status, &[("Content-Range", "bytes 10-13/40")], b"abcd")).unwrap_err();
        assert!(
            matches!(refused, VSphereError::Status { status: found, .. } if found == status),
            "{refused:?}"
        );
    }
}

#[test]
fn more_or_fewer_bytes_than_the_range_are_refused() {
    let longer = got(partial("bytes 10-13/40", b"abcde")).unwrap_err();
    assert_eq!(chain(&longer), "the answer to GET /folder cannot be used: it is longer than the range");
    let shorter = got(partial("bytes 10-13/40", b"abc")).unwrap_err();
    assert!(matches!(shorter, VSphereError::Connection { .. }), "{shorter:?}");
}

#[test]
fn a_session_that_ended_is_replaced_for_files_as_well() {
    let peer = Peer::start(|_, asked| {
        if asked.header("cookie") == Some(&cookie(1)) {
            answer(401, &[], b"")
        } else {
            partial("bytes 10-13/40", b"abcd")
        }
    });
    let mut buffer = [0; 4];
    peer.connect().get_folder_range(&datacenter(), &file(), 10, &mut buffer).unwrap();
    assert_eq!(&buffer, b"abcd");
    assert_eq!(peer.methods_after_login(), ["GET", "Login", "GET"]);
}

#[test]
fn paths_of_datastores_are_read_as_they_are_written() {
    let path = DatastorePath::parse("[ds 1] web/web.vmdk").unwrap();
    assert_eq!(path.to_string(), "[ds 1] web/web.vmdk");
    assert_eq!(path.flat().unwrap().to_string(), "[ds 1] web/web-flat.vmdk");
    assert_eq!(DatastorePath::parse("[ds] web/web.vmx").unwrap().flat(), None);
    for none in
        ["", "web.vmdk", "[] a", "[ds]", "[ds] ", "[ds a", "[ds] a/../b", "[ds] /a", "[ds] a//b", "[ds] ./a"]
    {
        assert_eq!(DatastorePath::parse(none), None, "{none:?}");
    }
}
