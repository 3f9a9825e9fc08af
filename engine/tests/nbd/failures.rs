//! Servers that cannot be used, or fail while they are.

use crate::disks::{MIB, chain, nbd_error, open, open_with, read_all, read_ranges, settings};
use keepstone_engine::DiskSource as _;
use keepstone_engine::nbd::{NbdError, NbdSettings};
use keepstone_peers::nbd::{Listen, NbdServer, Program, make_certificates};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

fn nbdkit(dir: &TempDir, arguments: &[&str]) -> NbdServer {
    NbdServer::start(Program::nbdkit(arguments), Listen::UnixIn(dir.path()))
}

/// The messages of a failed opening, without the place.
fn refused(uri: &str) -> Vec<String> {
    refused_with(uri, settings())
}

fn refused_with(uri: &str, settings: NbdSettings) -> Vec<String> {
    let error = open_with(uri, settings).unwrap_err();
    let place = uri.split("&tls").next().unwrap().split("?tls").next().unwrap();
    chain(&error).iter().map(|message| message.replace(place, "PLACE")).collect()
}

#[test]
fn nobody_listens() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("nobody.sock");
    assert_eq!(
        refused(&format!("nbd+unix:///?socket={}", path.display())),
        ["cannot connect to PLACE", "No such file or directory (os error 2)"]
    );
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    assert_eq!(
        refused(&format!("nbd://127.0.0.1:{port}/x")),
        ["cannot connect to PLACE", "Connection refused (os error 111)"]
    );
}

#[test]
fn an_export_that_is_not_there_is_named_with_those_that_are() {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("disk.raw");
    std::fs::write(&image, [1; 4096]).unwrap();
    let program = Program::storage_daemon(&image, "raw", None);
    let server = NbdServer::start(program, Listen::UnixIn(dir.path()));
    assert_eq!(
        refused(&server.uri("disc%201")),
        [r#"there is no export "disc 1" at PLACE; there are "disk""#]
    );
    let filtered = [
        "--filter=exportname",
        "memory",
        "size=1M",
        "exportname-strict=true",
        "exportname-list=explicit",
        "exportname=a",
    ];
    let server = nbdkit(&dir, &filtered);
    assert_eq!(refused(&server.uri("b")), [r#"there is no export "b" at PLACE; there are "a""#]);
}

#[test]
fn a_disk_without_bytes_is_refused() {
    let dir = TempDir::new().unwrap();
    let server = nbdkit(&dir, &["null", "size=0"]);
    assert_eq!(refused(&server.uri("")), ["the disk PLACE is empty"]);
}

#[test]
fn the_oldstyle_protocol_is_refused() {
    let dir = TempDir::new().unwrap();
    let server = nbdkit(&dir, &["--oldstyle", "memory", "size=1M"]);
    assert_eq!(
        refused(&server.uri("")),
        ["the server of PLACE speaks the oldstyle protocol, which is not supported"]
    );
}

#[test]
fn tls_is_wanted_by_both_or_by_none() {
    let dir = TempDir::new().unwrap();
    make_certificates(dir.path());
    let certificates = format!("--tls-certificates={}", dir.path().display());
    let plain = nbdkit(&dir, &["memory", "size=1M"]);
    assert_eq!(refused(&plain.tls_uri("", dir.path())), ["the server of PLACE does not offer TLS"]);
    let encrypted = nbdkit(&dir, &["--tls=require", &certificates, "memory", "size=1M"]);
    assert_eq!(refused(&encrypted.uri("")), ["the server of PLACE wants TLS"]);
    open(&encrypted.tls_uri("", dir.path()));
}

#[test]
fn a_server_that_cannot_be_trusted_is_refused() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for dir in [&dir, &other] {
        make_certificates(dir.path());
    }
    let certificates = format!("--tls-certificates={}", dir.path().display());
    let server = nbdkit(&dir, &["--tls=require", &certificates, "memory", "size=1M"]);
    let unknown = refused(&server.tls_uri("", other.path()));
    assert_eq!(unknown[0], "no TLS with the server of PLACE");
    assert!(unknown[1].contains("invalid peer certificate"), "{unknown:?}");
    let renamed = format!("{}&tls-hostname=elsewhere.example", server.tls_uri("", dir.path()));
    let renamed = refused(&renamed);
    assert_eq!(renamed[0], "no TLS with the server of PLACE");
    assert!(renamed[1].contains("invalid peer certificate"), "{renamed:?}");
    let nothing = TempDir::new().unwrap();
    let missing = refused(&server.tls_uri("", nothing.path()));
    let file = nothing.path().join("ca-cert.pem");
    assert_eq!(
        missing[..2],
        ["cannot speak TLS with PLACE".to_owned(), format!("cannot read certificates in {}", file.display())]
    );
}

#[test]
fn a_failed_request_fails_the_read_and_leaves_the_connection() {
    let dir = TempDir::new().unwrap();
    let trigger = dir.path().join("fail");
    let rate = "error-pread-rate=100%";
    let file = format!("error-pread-file={}", trigger.display());
    let server = nbdkit(
        &dir,
        &["--filter=error", "data", "size=8M", "data=( 1 )*8388608", "error-pread=EIO", rate, &file],
    );
    let disk = open(&server.uri(""));
    assert!(read_all(&disk, 1 << 20).iter().all(|byte| *byte == 1));
    std::fs::write(&trigger, "").unwrap();
    read_ranges(&disk, &[(MIB, 4096), (2 * MIB, 1 << 20)]).unwrap_err();
    // Alone, as answers come in any order.
    let error = read_ranges(&disk, &[(MIB, 4096)]).unwrap_err();
    let NbdError::Failed { action: "read", offset, length, error: failure, .. } = nbd_error(&error) else {
        panic!("{error}")
    };
    assert_eq!((*offset, *length, failure.0), (MIB, 4096, 5));
    assert!(chain(&error)[0].contains("could not read 4096 bytes at 1048576: EIO"), "{error}");
    assert!(disk.check_unchanged().is_err());
    std::fs::remove_file(&trigger).unwrap();
    assert!(read_all(&disk, 1 << 20).iter().all(|byte| *byte == 1));
    disk.check_unchanged().unwrap();
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let dir = TempDir::new().unwrap();
    let quick = NbdSettings { timeout: Duration::from_millis(300), ..settings() };
    let server = nbdkit(&dir, &["--filter=delay", "memory", "size=1M", "rdelay=20"]);
    let disk = open_with(&server.uri(""), quick.clone()).unwrap();
    // What is a hole is not asked for.
    read_ranges(&disk, &[(0, 4096)]).unwrap();
    let error = disk.check_unchanged().unwrap_err();
    assert!(matches!(nbd_error(&error), NbdError::TimedOut { .. }), "{error}");
    let mut ended = nbdkit(&dir, &["memory", "size=1M"]);
    ended.end();
    assert_eq!(refused_with(&ended.uri(""), quick), ["the server of PLACE has not answered for 0.3 s"]);
}

#[test]
fn a_connection_that_is_lost_while_much_is_read_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let arguments = ["--filter=delay", "data", "size=64M", "data=( 7 )*67108864", "rdelay=10ms"];
    let mut server = nbdkit(&dir, &arguments);
    let disk = open(&server.uri(""));
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            for _ in 0..8 {
                assert!(read_all(&disk, 1 << 20).iter().all(|byte| *byte == 7));
            }
        });
        for _ in 0..3 {
            server.restart();
            // So that there is one between two restarts.
            open(&server.uri(""));
        }
        reading.join().unwrap();
    });
    disk.check_unchanged().unwrap();
}

#[test]
fn a_disk_that_has_another_size_after_a_restart_is_another_disk() {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("disk.raw");
    std::fs::write(&image, vec![3; 1 << 20]).unwrap();
    let mut server = NbdServer::start(Program::qemu_nbd(&image, "raw"), Listen::UnixIn(dir.path()));
    let disk = open(&server.uri(""));
    server.restart();
    disk.check_unchanged().unwrap();
    std::fs::OpenOptions::new().append(true).open(&image).unwrap().set_len(2 << 20).unwrap();
    disk.check_unchanged().unwrap();
    server.restart();
    let error = disk.check_unchanged().unwrap_err();
    let NbdError::SizeChanged { before, after, .. } = nbd_error(&error) else { panic!("{error}") };
    assert_eq!((*before, *after), (1 << 20, 2 << 20));
}

#[test]
fn a_server_that_does_not_come_back_is_given_up() {
    let dir = TempDir::new().unwrap();
    let server = nbdkit(&dir, &["memory", "size=1M"]);
    let disk = open(&server.uri(""));
    let path = dir.path().join("nbd-0.sock");
    std::fs::remove_file(path).unwrap();
    drop(server);
    let error = disk.check_unchanged().unwrap_err();
    assert!(matches!(nbd_error(&error), NbdError::GaveUp { tries: 5, .. }), "{error}");
    let messages = chain(&error);
    assert!(
        messages[0].contains("could not be read, though its connection was made 5 times anew"),
        "{messages:?}"
    );
    assert!(messages.iter().any(|message| message.starts_with("cannot connect to ")), "{messages:?}");
}

#[test]
fn nothing_is_read_outside_of_the_disk() {
    let dir = TempDir::new().unwrap();
    let server = nbdkit(&dir, &["memory", "size=1M"]);
    let disk = open(&server.uri(""));
    for (offset, len) in [(MIB - 1, 2), (MIB, 1), (u64::MAX, 1)] {
        let error = read_ranges(&disk, &[(offset, len)]).unwrap_err();
        assert!(matches!(nbd_error(&error), NbdError::OutsideDisk { size: MIB, .. }), "{error}");
    }
}
