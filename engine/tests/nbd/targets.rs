//! The same disk written to every kind of server.

use crate::disks::{KIB, MIB, open, read_all, settings};
use crate::written::{
    Piece, Random, full, in_pieces, open_target, random_disk, shuffled, target_with, write,
};
use keepstone_engine::nbd::NbdSettings;
use keepstone_engine::{DiskSource as _, DiskTarget as _};
use keepstone_peers::nbd::{Listen, NbdServer, Program, image, make_certificates};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An image in a directory of its own.
struct Image {
    dir: TempDir,
    path: PathBuf,
    format: &'static str,
}

impl Image {
    fn make(format: &'static str, size: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("disk");
        if format == "raw" {
            // qemu-img would write the first block.
            std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        } else {
            image::create(&path, format, size);
        }
        Self { dir, path, format }
    }

    /// The same, full of other bytes.
    fn make_full(format: &'static str, size: u64) -> Self {
        let image = Self::make(format, size);
        image::write(&image.path, format, &[format!("write -q -P 0xd7 0 {size}")]);
        image
    }

    fn serve(&self, program: Program) -> NbdServer {
        NbdServer::start(program, Listen::UnixIn(self.dir.path()))
    }

    fn qemu_nbd(&self) -> NbdServer {
        self.serve(Program::writable_qemu_nbd(&self.path, self.format, 8))
    }

    /// nbdkit with its plugin for files, with filters, and with parameters of all of these.
    fn nbdkit(&self, options: &[&str]) -> NbdServer {
        let (filters, parameters): (Vec<&str>, Vec<&str>) =
            options.iter().partition(|option| option.starts_with("--"));
        let file = [self.path.to_str().unwrap()];
        self.serve(Program::nbdkit(&[&filters[..], &["file"], &file, &parameters].concat()))
    }

    /// The disk in it, by qemu-img.
    fn assert_is(&self, expected: &[u8]) {
        let raw = self.dir.path().join("expected.raw");
        std::fs::write(&raw, expected).unwrap();
        let [raw, path] = [&raw, &self.path].map(|path| path.to_str().unwrap());
        image::qemu_img(&["compare", "-q", "-f", "raw", "-F", self.format, raw, path]);
    }
}

fn allocated(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}

#[test]
fn qemu_nbd_and_the_storage_daemon_are_written_in_any_order_whatever_was_there() {
    let size = 12 * MIB + 512;
    for (format, seed) in [("raw", 1), ("qcow2", 2)] {
        for image in [Image::make(format, size), Image::make_full(format, size)] {
            for (program, export) in [
                (Program::writable_qemu_nbd(&image.path, format, 8), ""),
                (Program::writable_storage_daemon(&image.path, format), "disk"),
            ] {
                let server = image.serve(program);
                let (bytes, pieces) = random_disk(seed, size, 48 * KIB);
                let target = open_target(&server.uri(export), size);
                write(&target, shuffled(pieces, seed, 300)).unwrap();
                assert!(read_all(&open(&server.uri(export)), 1 << 20) == bytes);
                drop(target);
                drop(server);
                image.assert_is(&bytes);
            }
        }
    }
}

#[test]
fn nbdkit_is_written_whatever_it_leaves_out() {
    let size = 6 * MIB + 512;
    for (options, seed) in [
        (&[][..], 1),
        (&["--no-sr"], 2),
        (&["--filter=nozero"], 3),
        (&["--filter=nozero", "--filter=noextents"], 4),
        (&["--filter=nozero", "--no-sr"], 5),
        (&["--filter=nozero", "zeromode=emulate"], 6),
        (&["--filter=noextents"], 7),
        (&["--filter=multi-conn", "multi-conn-mode=disable"], 8),
        (&["--filter=exportname", "exportname=named"], 9),
        (&["--mask-handshake=0"], 10),
    ] {
        let image = Image::make_full("raw", size);
        let server = image.nbdkit(options);
        let (bytes, pieces) = random_disk(seed, size, 48 * KIB);
        let target = open_target(&server.uri(""), size);
        write(&target, shuffled(pieces, seed, usize::MAX)).unwrap();
        drop(target);
        assert!(read_all(&open(&server.uri("")), 1 << 20) == bytes, "{options:?}");
        drop(server);
        assert!(std::fs::read(&image.path).unwrap() == bytes, "{options:?}");
    }
}

#[test]
fn holes_are_made_and_never_written() {
    let size = 64 * MIB;
    let data = full(3, 128 * KIB);
    // The last one can only be trimmed, and the server says that this left zeros.
    for options in [&[][..], &["--filter=nozero"], &["--filter=nozero", "--filter=noextents"]] {
        let image = Image::make_full("raw", size);
        let server = image.nbdkit(options);
        let target = open_target(&server.uri(""), size);
        target.zero_at(0, 20 * MIB).unwrap();
        target.write_at(20 * MIB, &data).unwrap();
        target.zero_at(20 * MIB + 128 * KIB, 44 * MIB - 128 * KIB).unwrap();
        target.finish().unwrap();
        drop(target);
        drop(server);
        let mut expected = vec![0; usize::try_from(size).unwrap()];
        expected[20 << 20..(20 << 20) + (128 << 10)].copy_from_slice(&data);
        assert!(std::fs::read(&image.path).unwrap() == expected);
        let is_sparse = allocated(&image.path) <= 256 * KIB;
        assert_eq!(is_sparse, !options.contains(&"--filter=noextents"), "{options:?}");
    }
}

#[test]
fn what_is_a_hole_before_is_one_afterwards_even_if_the_server_cannot_make_any() {
    let size = 64 * MIB;
    let (mut bytes, pieces) = random_disk(4, 4 * MIB, 100 * KIB);
    bytes.resize(usize::try_from(size).unwrap(), 0);
    let pieces = [pieces, vec![Piece::Zeros(4 * MIB, 60 * MIB)]].concat();
    let image = Image::make("raw", size);
    let log = image.dir.path().join("log");
    let logfile = format!("logfile={}", log.display());
    let server = image.nbdkit(&["--filter=log", "--filter=nozero", &logfile]);
    let target = open_target(&server.uri(""), size);
    write(&target, pieces).unwrap();
    drop(target);
    drop(server);
    assert!(std::fs::read(&image.path).unwrap() == bytes);
    assert!(allocated(&image.path) <= 5 * MIB, "{}", allocated(&image.path));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("...Flush") || log.contains("Flush"), "{log}");
    assert!(!log.contains(" Zero ") && !log.contains(" Trim "), "{log}");
}

#[test]
fn blocks_are_written_whole_where_the_server_wants_that() {
    let size = 5 * MIB;
    for (seed, (minimum, maximum)) in
        [("512", "64K"), ("4096", "4096"), ("65536", "32M")].into_iter().enumerate()
    {
        let sizes = [
            &format!("blocksize-minimum={minimum}")[..],
            &format!("blocksize-preferred={}", if minimum == "65536" { "65536" } else { "4096" }),
            &format!("blocksize-maximum={maximum}"),
        ];
        let policy = ["--filter=blocksize-policy", "blocksize-error-policy=error"];
        let image = Image::make_full("raw", size);
        let server = image.nbdkit(&[&policy[..], &sizes].concat());
        // A disk that ends within a block: what is behind it stays.
        let disk_size = size - 1000;
        let (mut bytes, pieces) = random_disk(seed as u64, disk_size, 5 * KIB);
        bytes.resize(usize::try_from(size).unwrap(), 0xd7);
        let target = open_target(&server.uri(""), disk_size);
        write(&target, shuffled(pieces, 9, usize::MAX)).unwrap();
        drop(target);
        drop(server);
        assert!(std::fs::read(&image.path).unwrap() == bytes, "{minimum}");
    }
}

#[test]
fn only_some_ranges_of_a_disk_are_written_and_the_rest_of_their_blocks_stays() {
    let size = 8 * MIB;
    for minimum in ["1", "4096", "65536"] {
        let image = Image::make_full("raw", size);
        let sizes = [format!("blocksize-minimum={minimum}"), "blocksize-preferred=65536".to_owned()];
        let server = image.nbdkit(&[
            "--filter=blocksize-policy",
            "blocksize-error-policy=error",
            &sizes[0],
            &sizes[1],
        ]);
        let target = open_target(&server.uri(""), size);
        let mut expected = vec![0xd7; usize::try_from(size).unwrap()];
        let mut random = Random(7);
        for slot in 0..200 {
            let start = slot * 40 * KIB + random.below(20 * KIB);
            let length = 1 + random.below(20 * KIB);
            let range = usize::try_from(start).unwrap()..usize::try_from(start + length).unwrap();
            if slot % 3 == 0 {
                target.zero_at(start, length).unwrap();
                expected[range].fill(0);
            } else {
                let data = full(slot, length);
                target.write_at(start, &data).unwrap();
                expected[range].copy_from_slice(&data);
            }
            if slot % 50 == 49 {
                // What was written until now is there, also for others.
                target.flush().unwrap();
                assert!(read_all(&open(&server.uri("")), 1 << 20) == expected, "{minimum}, {slot}");
            }
        }
        target.finish().unwrap();
        drop(target);
        drop(server);
        assert!(std::fs::read(&image.path).unwrap() == expected, "{minimum}");
    }
}

#[test]
fn what_is_behind_the_disk_stays_as_it_is() {
    let image = Image::make_full("qcow2", 8 * MIB);
    let server = image.qemu_nbd();
    let disk_size = 5 * MIB + 17;
    let (mut bytes, pieces) = random_disk(5, disk_size, 100 * KIB);
    bytes.resize(8 << 20, 0xd7);
    let target = open_target(&server.uri(""), disk_size);
    write(&target, pieces).unwrap();
    drop(target);
    drop(server);
    image.assert_is(&bytes);
}

#[test]
fn a_slow_server_is_sent_much_at_once_over_several_connections() {
    let size = 32 * MIB;
    let image = Image::make("raw", size);
    let log = image.dir.path().join("log");
    let logfile = format!("logfile={}", log.display());
    let server = image.nbdkit(&["--filter=log", "--filter=delay", "wdelay=50ms", &logfile]);
    let bytes = full(1, size);
    let target = target_with(&server.uri(""), NbdSettings { connections: 3, ..settings() }, size).unwrap();
    write(&target, in_pieces(&bytes)).unwrap();
    drop(target);
    drop(server);
    assert!(std::fs::read(&image.path).unwrap() == bytes);
    let log = std::fs::read_to_string(log).unwrap();
    // Neighbours were joined, and whoever waits for an answer sends more.
    assert_eq!(log.matches(" Write ").count(), 128, "{log}");
    assert_eq!(log.matches(" Connect ").count(), 3, "{log}");
    let mut waiting = 0_i32;
    let most = log.lines().map(|line| {
        waiting += i32::from(line.contains(" Write ")) - i32::from(line.contains("...Write "));
        waiting
    });
    assert!(most.max().unwrap() > 16, "{log}");
}

#[test]
fn a_server_for_a_single_client_is_written_over_a_single_connection() {
    let size = 4 * MIB;
    let image = Image::make("qcow2", size);
    let server = image.serve(Program::writable_qemu_nbd(&image.path, "qcow2", 1));
    let bytes = full(2, size);
    let target = open_target(&server.uri(""), size);
    write(&target, in_pieces(&bytes)).unwrap();
    drop(target);
    drop(server);
    image.assert_is(&bytes);
    // One that says that several see the same, and lets nobody in beside the first.
    let image = Image::make("raw", size);
    let server = image.nbdkit(&["--filter=limit", "limit=1", "--filter=delay", "wdelay=20ms"]);
    let target = open_target(&server.uri(""), size);
    write(&target, in_pieces(&bytes)).unwrap();
    drop(target);
    drop(server);
    image.assert_is(&bytes);
}

#[test]
fn a_disk_is_read_while_it_is_written() {
    let size = 16 * MIB;
    let image = Image::make_full("qcow2", size);
    let server = image.qemu_nbd();
    let source = open(&server.uri(""));
    let target = open_target(&server.uri(""), size);
    let mut expected = vec![0xd7; usize::try_from(size).unwrap()];
    for cell in 0..16 {
        let data = full(cell, 300 * KIB);
        target.write_at(cell * MIB, &data).unwrap();
        let start = usize::try_from(cell * MIB).unwrap();
        expected[start..start + data.len()].copy_from_slice(&data);
        target.flush().unwrap();
        assert!(read_all(&source, 1 << 20) == expected);
    }
    source.check_unchanged().unwrap();
}

#[test]
fn tls_is_spoken_while_a_disk_is_written() {
    let size = 8 * MIB + 512;
    let image = Image::make("raw", size);
    make_certificates(image.dir.path());
    let directory = image.dir.path().to_str().unwrap();
    let credentials = format!("tls-creds-x509,id=tls,endpoint=server,verify-peer=no,dir={directory}");
    let program = Program::writable_qemu_nbd(&image.path, "raw", 4).with([
        "--object",
        &credentials,
        "--tls-creds",
        "tls",
    ]);
    let server = NbdServer::start(program, Listen::Tcp);
    let (bytes, pieces) = random_disk(6, size, 200 * KIB);
    let target = open_target(&server.tls_uri("", image.dir.path()), size);
    write(&target, shuffled(pieces, 6, 20)).unwrap();
    drop(target);
    drop(server);
    image.assert_is(&bytes);
}
