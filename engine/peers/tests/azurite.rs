//! Azurite starts, and does with shared access signatures what Azure does.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use keepstone_peers::azurite::{Account, Azurite, PRIMARY, REPLICA};
use keepstone_peers::http::{self, Answer};

const HOUR: Duration = Duration::from_hours(1);

fn put(url: &str, body: &[u8]) -> Answer {
    http::send("PUT", url, &[("x-ms-version", "2024-11-04"), ("x-ms-blob-type", "BlockBlob")], body)
}

/// What tests compare: the status, and the error's code, which is empty if there is none.
fn outcome(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("x-ms-error-code").unwrap_or_default())
}

fn blob(account: &Account, container: &str, sas: &str) -> String {
    format!("{}/{container}/blob?{sas}", Azurite::shared().endpoint(account))
}

#[test]
fn what_was_put_is_read() {
    let azurite = Azurite::shared();
    azurite.create_container(&PRIMARY, "read");
    let url = blob(&PRIMARY, "read", &PRIMARY.container_sas("read", "rcl", SystemTime::now() + HOUR));

    assert_eq!(outcome(&put(&url, b"first")), (201, ""));

    let answer = http::send("GET", &url, &[], &[]);
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"first".as_slice()));
}

#[test]
fn rights_to_read_create_and_list_do_not_overwrite_or_delete() {
    let azurite = Azurite::shared();
    azurite.create_container(&PRIMARY, "rights");
    let url = blob(&PRIMARY, "rights", &PRIMARY.container_sas("rights", "rcl", SystemTime::now() + HOUR));
    assert_eq!(outcome(&put(&url, b"first")), (201, ""));

    assert_eq!(outcome(&put(&url, b"second")), (403, "AuthorizationPermissionMismatch"));
    let deleted = http::send("DELETE", &url, &[], &[]);
    assert_eq!(outcome(&deleted), (403, "AuthorizationPermissionMismatch"));

    let all = blob(&PRIMARY, "rights", &PRIMARY.account_sas(SystemTime::now() + HOUR));
    assert_eq!(http::send("GET", &all, &[], &[]).body, b"first");
    assert_eq!(outcome(&http::send("DELETE", &all, &[], &[])), (202, ""));
}

#[test]
fn a_signature_holds_between_its_times_only() {
    let azurite = Azurite::shared();
    azurite.create_container(&PRIMARY, "times");
    let now = SystemTime::now();
    let answer = |sas: &str| {
        let answer = put(&blob(&PRIMARY, "times", sas), b"");
        (answer.status, answer.header("x-ms-error-code").unwrap_or_default().to_owned())
    };

    let expired = PRIMARY.container_sas("times", "rcl", now - HOUR);
    let early = PRIMARY.container_sas_from("times", "rcl", now + HOUR, now + 2 * HOUR);
    let valid = PRIMARY.container_sas_from("times", "rcl", now - HOUR, now + HOUR);
    let refused = (403, "AuthorizationFailure".to_owned());
    assert_eq!(
        [answer(&expired), answer(&early), answer(&valid)],
        [refused.clone(), refused, (201, String::new())]
    );
}

#[test]
fn a_signature_holds_for_its_container_and_account_only() {
    let azurite = Azurite::shared();
    azurite.create_container(&PRIMARY, "mine");
    azurite.create_container(&PRIMARY, "other");
    azurite.create_container(&REPLICA, "mine");
    let sas = PRIMARY.container_sas("mine", "rcl", SystemTime::now() + HOUR);

    assert_eq!(outcome(&put(&blob(&PRIMARY, "other", &sas), b"")), (403, "AuthorizationFailure"));
    assert_eq!(outcome(&put(&blob(&REPLICA, "mine", &sas), b"")), (403, "AuthorizationFailure"));
    assert_eq!(outcome(&put(&blob(&PRIMARY, "mine", &sas), b"")), (201, ""));
}

#[test]
fn azurite_ends_when_the_process_that_started_it_is_killed() {
    let program = env!("CARGO_BIN_EXE_azurite");
    let mut starter = Command::new(program).stdout(Stdio::piped()).spawn().unwrap();
    let mut first_line = String::new();
    BufReader::new(starter.stdout.take().unwrap()).read_line(&mut first_line).unwrap();
    let (_, address) = first_line.split_once("endpoint=http://").unwrap();
    let mut connection = TcpStream::connect(address.split('/').next().unwrap()).unwrap();
    connection.set_read_timeout(Some(Duration::from_mins(1))).unwrap();

    starter.kill().unwrap();
    starter.wait().unwrap();

    // Nothing was asked, so that only an end of Azurite ends the connection: in order, or by a reset.
    let ended = connection.read(&mut [0]).or_else(|error| match error.kind() {
        std::io::ErrorKind::ConnectionReset => Ok(0),
        _ => Err(error),
    });
    assert_eq!(ended.unwrap(), 0);
}

#[test]
fn azurite_ends_when_it_is_dropped_and_keeps_files_in_its_directory_until_then() {
    let directory = tempfile::tempdir().unwrap();
    let azurite = Azurite::start_in(directory.path());
    azurite.create_container(&PRIMARY, "files");
    let sas = PRIMARY.account_sas(SystemTime::now() + HOUR);
    let url = format!("{}/files/blob?{sas}", azurite.endpoint(&PRIMARY));
    assert_eq!(outcome(&put(&url, &vec![7; 70_000])), (201, ""));
    let extents: u64 = directory
        .path()
        .join("__blobstorage__")
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(extents, 70_000);

    let address = azurite.origin().strip_prefix("http://").unwrap().to_owned();
    drop(azurite);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}
