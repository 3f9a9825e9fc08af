//! Servers that cannot be written to, or fail while they are.

use crate::disks::{KIB, MIB, chain, nbd_error, open, open_with, read_all, settings};
use crate::written::{full, in_pieces, open_target, place, random_disk, target_with, write};
use keepstone_engine::nbd::{Holes, NbdError, NbdSettings};
use keepstone_engine::target::{Existing, NbdTarget};
use keepstone_engine::{DiskSource as _, DiskTarget as _};
use keepstone_peers::nbd::{Listen, NbdServer, Program, image};
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

fn nbdkit(dir: &TempDir, arguments: &[&str]) -> NbdServer {
    NbdServer::start(Program::nbdkit(arguments), Listen::UnixIn(dir.path()))
}

fn file(dir: &TempDir, size: u64) -> PathBuf {
    let path = dir.path().join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    path
}

/// The error of writing.
fn writing(error: &io::Error) -> &NbdError {
    let NbdError::Writing(error) = nbd_error(error) else { panic!("{error}") };
    error
}

fn opened(uri: &str, size: u64, existing: Existing) -> Result<NbdTarget, String> {
    NbdTarget::open(&place(uri), settings(), size, existing)
        .map_err(|error| error.to_string().replace(uri, "PLACE"))
}

#[test]
fn what_cannot_be_written_is_found_before_anything_is() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, MIB);
    let refused = |uri: &str, size| opened(uri, size, Existing::Replace).unwrap_err();
    let server = NbdServer::start(Program::qemu_nbd(&path, "raw"), Listen::UnixIn(dir.path()));
    assert_eq!(refused(&server.uri(""), MIB), "the export PLACE is read-only");
    drop(server);
    let server = nbdkit(&dir, &["--filter=readahead", "-r", "memory", "size=1M"]);
    assert_eq!(refused(&server.uri(""), MIB), "the export PLACE is read-only");
    let server = nbdkit(&dir, &["memory", "size=1M"]);
    let small = refused(&server.uri(""), MIB + 1);
    assert_eq!(small, "PLACE has 1048576 bytes, the disk has 1048577");
    opened(&server.uri(""), MIB, Existing::Replace).unwrap();
}

#[test]
fn an_export_that_is_not_known_to_be_empty_is_overwritten_only_if_that_is_meant() {
    let dir = TempDir::new().unwrap();
    let lost = "what is in PLACE would be lost";
    let server = nbdkit(&dir, &["memory", "size=64M"]);
    let uri = server.uri("");
    let target = opened(&uri, 64 * MIB, Existing::Refuse).unwrap();
    target.write_at(40 * MIB, &[1]).unwrap();
    target.finish().unwrap();
    drop(target);
    assert_eq!(opened(&uri, 64 * MIB, Existing::Refuse).unwrap_err(), lost);
    opened(&uri, 64 * MIB, Existing::Replace).unwrap();
    // Only what the disk needs has to be empty.
    opened(&uri, 32 * MIB, Existing::Refuse).unwrap();
    let silent = nbdkit(&dir, &["--filter=noextents", "memory", "size=1M"]);
    assert_eq!(opened(&silent.uri(""), MIB, Existing::Refuse).unwrap_err(), lost);
    let image = dir.path().join("disk.qcow2");
    image::create(&image, "qcow2", MIB);
    let program = Program::writable_qemu_nbd(&image, "qcow2", 2);
    let server = NbdServer::start(program, Listen::UnixIn(dir.path()));
    opened(&server.uri(""), MIB, Existing::Refuse).unwrap();
}

#[test]
fn a_failed_write_fails_the_calls_after_it_and_is_told_once_more_by_each() {
    let dir = TempDir::new().unwrap();
    let (path, trigger) = (file(&dir, 64 * MIB), dir.path().join("fail"));
    let (path, trigger_file) = (path.to_str().unwrap(), format!("error-pwrite-file={}", trigger.display()));
    let arguments =
        ["--filter=error", "file", path, "error-pwrite=ENOSPC", "error-pwrite-rate=100%", &trigger_file];
    let server = nbdkit(&dir, &arguments);
    let target = open_target(&server.uri(""), 64 * MIB);
    let bytes = full(1, 64 * MIB);
    target.write_at(0, &bytes[..1 << 20]).unwrap();
    target.flush().unwrap();
    std::fs::write(&trigger, "").unwrap();
    // As many as wait are taken before the failure is known, and never all.
    let failed = (1..64).find_map(|number| {
        let data = &bytes[number << 20..(number + 1) << 20];
        target.write_at((number as u64) << 20, data).err()
    });
    for error in [failed, target.flush().err(), target.finish().err(), target.zero_at(1, 10).err()] {
        let error = error.unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let NbdError::Failed { action: "write", length, offset, .. } = writing(&error) else {
            panic!("{error}")
        };
        assert_eq!((*length, offset % (256 * KIB)), (256 * KIB, 0));
        assert!(error.to_string().ends_with(": ENOSPC, no space left"), "{error}");
    }
    drop(target);
    // There is room again, and the disk is written once more.
    std::fs::remove_file(&trigger).unwrap();
    let target = open_target(&server.uri(""), 64 * MIB);
    write(&target, in_pieces(&bytes)).unwrap();
    drop(target);
    assert!(std::fs::read(path).unwrap() == bytes);
}

#[test]
fn a_server_that_does_not_make_zero_though_it_says_so_is_sent_zeros() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, 4 * MIB + 512);
    std::fs::write(&path, vec![0xd7; (4 << 20) + 512]).unwrap();
    let refusing =
        ["--filter=error", "file", path.to_str().unwrap(), "error-zero=EINVAL", "error-zero-rate=100%"];
    let server = nbdkit(&dir, &refusing);
    let (bytes, pieces) = random_disk(3, 4 * MIB + 512, 90 * KIB);
    let target = open_target(&server.uri(""), 4 * MIB + 512);
    write(&target, pieces).unwrap();
    drop(target);
    assert!(std::fs::read(&path).unwrap() == bytes);
    let server =
        nbdkit(&dir, &["--filter=error", "memory", "size=4M", "error-zero=EIO", "error-zero-rate=100%"]);
    // What is a hole needs no zeros.
    let target = open_target(&server.uri(""), 4 * MIB);
    target.zero_at(0, MIB).unwrap();
    target.finish().unwrap();
    target.write_at(MIB, &vec![1; 1 << 20]).unwrap();
    target.finish().unwrap();
    let target = open_target(&server.uri(""), 4 * MIB);
    target.zero_at(MIB, MIB).unwrap();
    let error = target.finish().unwrap_err();
    assert!(error.to_string().contains("could not zero 1048576 bytes at 1048576: EIO"), "{error}");
}

#[test]
fn a_flush_that_fails_fails_the_restore() {
    let dir = TempDir::new().unwrap();
    let arguments = [
        "eval",
        "get_size=echo 1M",
        "pread=head -c $3 /dev/zero",
        "pwrite=cat >/dev/null",
        "can_write=exit 0",
        "can_flush=exit 0",
        "flush=echo EIO >&2; exit 1",
    ];
    let server = nbdkit(&dir, &arguments);
    let target = open_target(&server.uri(""), MIB);
    target.write_at(0, &vec![1; 1 << 20]).unwrap();
    let error = target.finish().unwrap_err();
    assert!(matches!(writing(&error), NbdError::NotDurable { .. }), "{error}");
    let message = error.to_string().replace(&server.uri(""), "PLACE");
    assert_eq!(
        message,
        "the server of PLACE could not make durable what was written: EIO, an input or output error"
    );
}

#[test]
fn a_server_that_is_restarted_again_and_again_loses_nothing_that_its_file_has() {
    let dir = TempDir::new().unwrap();
    let (size, path) = (24 * MIB, file(&dir, 24 * MIB));
    let arguments = ["--filter=delay", "file", path.to_str().unwrap(), "wdelay=10ms"];
    let mut server = nbdkit(&dir, &arguments);
    let target = open_target(&server.uri(""), size);
    let (bytes, pieces) = random_disk(8, size, 60 * KIB);
    thread::scope(|scope| {
        let writing = scope.spawn(|| write(&target, pieces));
        for _ in 0..4 {
            server.restart();
            // So that there is one between two restarts.
            open(&server.uri(""));
        }
        writing.join().unwrap().unwrap();
    });
    drop(target);
    assert!(std::fs::read(&path).unwrap() == bytes);
}

#[test]
fn what_a_restarted_server_does_not_have_any_more_is_told() {
    let dir = TempDir::new().unwrap();
    let mut server = nbdkit(&dir, &["memory", "size=8M"]);
    let target = open_target(&server.uri(""), 8 * MIB);
    target.write_at(0, &vec![1; 1 << 20]).unwrap();
    target.finish().unwrap();
    // What was flushed is the server's to keep.
    server.restart();
    target.write_at(MIB, &vec![2; 1 << 20]).unwrap();
    target.finish().unwrap();
    target.zero_at(2 * MIB, MIB).unwrap();
    target.write_at(4 * MIB, &vec![3; 1 << 20]).unwrap();
    // Answered, as others can see, and not flushed.
    let source = open_with(&server.uri(""), NbdSettings { holes: Holes::Read, ..settings() }).unwrap();
    while read_all(&source, 1 << 20)[4 << 20..5 << 20] != vec![3; 1 << 20] {
        thread::yield_now();
    }
    server.restart();
    let error = target.finish().unwrap_err();
    let NbdError::WritesLost { offset, length, .. } = writing(&error) else { panic!("{error}") };
    assert_eq!((*offset, *length), (4 * MIB, 256 * KIB));
}

#[test]
fn a_server_that_does_not_come_back_is_given_up_while_it_is_written() {
    let dir = TempDir::new().unwrap();
    let server = nbdkit(&dir, &["memory", "size=8M"]);
    let target = open_target(&server.uri(""), 8 * MIB);
    target.write_at(0, &vec![1; 1 << 20]).unwrap();
    target.flush().unwrap();
    std::fs::remove_file(dir.path().join("nbd-0.sock")).unwrap();
    drop(server);
    let error = target.write_at(MIB, &vec![1; 1 << 20]).and_then(|()| target.finish()).unwrap_err();
    assert!(matches!(writing(&error), NbdError::GaveUp { done: "written", tries: 5, .. }), "{error}");
    let messages = chain(&error);
    assert!(
        messages[0].contains("could not be written, though its connection was made 5 times anew"),
        "{messages:?}"
    );
    assert!(messages.iter().any(|message| message.starts_with("cannot connect to ")), "{messages:?}");
}

#[test]
fn a_server_that_says_nothing_while_it_is_written_is_given_up() {
    let dir = TempDir::new().unwrap();
    let server = nbdkit(&dir, &["--filter=delay", "memory", "size=1M", "wdelay=600"]);
    let quick = NbdSettings { timeout: Duration::from_millis(300), ..settings() };
    let target = target_with(&server.uri(""), quick, MIB).unwrap();
    let error = target.write_at(0, &vec![1; 1 << 20]).and_then(|()| target.finish()).unwrap_err();
    assert!(matches!(writing(&error), NbdError::TimedOut { .. }), "{error}");
}

#[test]
fn a_target_that_is_given_up_does_not_wait_for_its_server() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("log");
    let logfile = format!("logfile={}", log.display());
    let arguments = ["--filter=log", "--filter=delay", "memory", "size=1M", "wdelay=3600", &logfile];
    let server = nbdkit(&dir, &arguments);
    let patient = NbdSettings { timeout: Duration::from_hours(1), ..settings() };
    let target = target_with(&server.uri(""), patient, MIB).unwrap();
    target.write_at(0, &vec![1; 1 << 20]).unwrap();
    // It is on its way.
    while !std::fs::read_to_string(&log).unwrap().contains(" Write ") {
        thread::yield_now();
    }
    drop(target);
}

#[test]
fn a_disk_that_has_another_size_after_a_restart_is_not_written_any_more() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, MIB);
    let program = Program::writable_qemu_nbd(&path, "raw", 4);
    let mut server = NbdServer::start(program, Listen::UnixIn(dir.path()));
    let target = open_target(&server.uri(""), MIB);
    target.write_at(0, &vec![1; 1 << 19]).unwrap();
    target.flush().unwrap();
    server.end();
    OpenOptions::new().append(true).open(&path).unwrap().set_len(2 << 20).unwrap();
    server.restart();
    let error = target.write_at(1 << 19, &vec![2; 1 << 19]).and_then(|()| target.finish()).unwrap_err();
    let NbdError::SizeChanged { before, after, .. } = writing(&error) else { panic!("{error}") };
    assert_eq!((*before, *after), (1 << 20, 2 << 20));
    assert!(std::fs::read(&path).unwrap()[1 << 19..].iter().all(|byte| *byte == 0));
}

#[test]
fn nothing_is_written_outside_of_the_disk_or_twice() {
    let dir = TempDir::new().unwrap();
    let server = nbdkit(&dir, &["memory", "size=2M"]);
    let target = open_target(&server.uri(""), MIB);
    for (offset, len) in [(MIB - 1, 2), (MIB, 1), (u64::MAX, 1)] {
        let error = target.write_at(offset, &vec![1; len]).unwrap_err();
        assert!(error.to_string().ends_with("they are beyond the end of the disk"), "{error}");
        let error = target.zero_at(offset, len as u64).unwrap_err();
        assert!(error.to_string().ends_with("they are beyond the end of the disk"), "{error}");
    }
    target.write_at(1000, &[1; 1000]).unwrap();
    for (offset, len) in [(1000, 1), (1999, 10), (0, 1001), (500, 5000)] {
        let error = target.write_at(offset, &vec![2; len]).unwrap_err();
        let end = offset + len as u64;
        assert_eq!(
            error.to_string(),
            format!("bytes {offset} to {end} cannot be written: they are written already")
        );
    }
    target.finish().unwrap();
    let mut expected = vec![0; 2 << 20];
    expected[1000..2000].fill(1);
    let source = open(&server.uri(""));
    assert!(read_all(&source, 1 << 20) == expected);
    source.check_unchanged().unwrap();
}
