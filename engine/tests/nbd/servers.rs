//! The same disk from every kind of server.

use crate::disks::{MIB, assert_reads_as, bytes, open, open_with, read_all, settings, write_sparse};
use keepstone_engine::DiskSource as _;
use keepstone_engine::nbd::NbdSettings;
use keepstone_engine::source::ReadPart;
use keepstone_peers::nbd::{Listen, NbdServer, Program, image, make_certificates};
use std::path::PathBuf;
use std::thread;
use tempfile::TempDir;

/// A disk's bytes, in an image of each format.
struct Images {
    dir: TempDir,
    bytes: Vec<u8>,
    raw: PathBuf,
    qcow2: PathBuf,
}

impl Images {
    /// Its last block is not whole for those who count in 4096 bytes.
    fn make() -> Self {
        Self::of_len(5 * MIB + 512)
    }

    fn of_len(len: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let (raw, qcow2) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
        let bytes = bytes(len);
        write_sparse(&raw, &bytes);
        let paths = [&raw, &qcow2].map(|path| path.to_str().unwrap());
        image::qemu_img(&["convert", "-f", "raw", "-O", "qcow2", paths[0], paths[1]]);
        Self { dir, bytes, raw, qcow2 }
    }

    fn serve(&self, program: Program) -> NbdServer {
        NbdServer::start(program, Listen::UnixIn(self.dir.path()))
    }

    /// nbdkit with its plugin for files, and with some options.
    fn nbdkit(&self, options: &[&str]) -> Program {
        let file = [self.raw.to_str().unwrap()];
        let (options, parameters): (Vec<&str>, Vec<&str>) =
            options.iter().partition(|option| option.starts_with("--"));
        Program::nbdkit(&[&options[..], &["file"], &file, &parameters].concat())
    }
}

#[test]
fn qemu_nbd_serves_a_disk() {
    let images = Images::make();
    for (image, format) in [(&images.raw, "raw"), (&images.qcow2, "qcow2")] {
        let server = images.serve(Program::qemu_nbd(image, format));
        assert_reads_as(&open(&server.uri("")), &images.bytes);
    }
}

#[test]
fn qemu_storage_daemon_serves_a_disk() {
    let images = Images::make();
    for (image, format) in [(&images.raw, "raw"), (&images.qcow2, "qcow2")] {
        let server = images.serve(Program::storage_daemon(image, format, None));
        assert_reads_as(&open(&server.uri("disk")), &images.bytes);
    }
}

#[test]
fn nbdkit_serves_a_disk_whatever_it_leaves_out() {
    let images = Images::make();
    for options in [
        &[][..],
        &["--no-sr"],
        &["--filter=noextents"],
        &["--filter=multi-conn", "multi-conn-mode=disable"],
        &["--filter=exportname", "exportname=named"],
        &["--mask-handshake=1"],
        &["--mask-handshake=0"],
    ] {
        let server = images.serve(images.nbdkit(options));
        assert_reads_as(&open(&server.uri("")), &images.bytes);
    }
}

#[test]
fn a_disk_in_memory_and_one_from_a_script_are_served() {
    let dir = TempDir::new().unwrap();
    let memory = Program::nbdkit(&["data", "size=1M", "data=( 1 2 3 @0x8001 4 )"]);
    let server = NbdServer::start(memory, Listen::UnixIn(dir.path()));
    let mut expected = vec![0; 1 << 20];
    expected[..3].copy_from_slice(&[1, 2, 3]);
    expected[0x8001] = 4;
    assert_reads_as(&open(&server.uri("")), &expected);
    let script = Program::nbdkit(&[
        "eval",
        "get_size=echo 1M",
        "pread=yes kee | head -c $3",
        "thread_model=echo parallel",
    ]);
    let server = NbdServer::start(script, Listen::UnixIn(dir.path()));
    let disk = open(&server.uri(""));
    let mut buffer = [0; 8];
    disk.read(&mut [ReadPart { offset: 4096, buffer: &mut buffer }]).unwrap();
    assert_eq!(&buffer, b"kee\nkee\n");
}

#[test]
fn a_server_that_is_slow_is_waited_for_and_asked_for_much_at_once() {
    let images = Images::of_len(16 * MIB);
    let server = images.serve(images.nbdkit(&["--filter=delay", "rdelay=50ms"]));
    assert_reads_as(&open(&server.uri("")), &images.bytes);
}

#[test]
fn blocks_are_read_whole_where_the_server_wants_that() {
    let images = Images::of_len(5 * MIB);
    for (minimum, maximum) in [("512", "64K"), ("4096", "4096"), ("65536", "32M")] {
        let sizes = [
            &format!("blocksize-minimum={minimum}")[..],
            &format!("blocksize-preferred={}", if minimum == "65536" { "65536" } else { "4096" }),
            &format!("blocksize-maximum={maximum}"),
        ];
        let policy = ["--filter=blocksize-policy", "blocksize-error-policy=error"];
        let server = images.serve(images.nbdkit(&[&policy[..], &sizes].concat()));
        assert_reads_as(&open(&server.uri("")), &images.bytes);
    }
}

#[test]
fn a_host_and_a_port_serve_as_well() {
    let images = Images::make();
    let server = NbdServer::start(Program::qemu_nbd(&images.raw, "raw"), Listen::Tcp);
    assert_reads_as(&open(&server.uri("")), &images.bytes);
    let by_name = server.uri("").replace("127.0.0.1", "localhost");
    assert_reads_as(&open(&by_name), &images.bytes);
}

#[test]
fn threads_read_over_connections_of_their_own_where_the_server_allows_it() {
    let images = Images::of_len(8 * MIB);
    for (mode, connections) in [("auto", 3), ("disable", 1)] {
        let log = images.dir.path().join(format!("{mode}.log"));
        let logfile = format!("logfile={}", log.display());
        let mode = format!("multi-conn-mode={mode}");
        let filters = ["--filter=log", "--filter=multi-conn", "--filter=delay"];
        let parameters = [&logfile[..], &mode, "rdelay=100ms"];
        let server = images.serve(images.nbdkit(&[filters, parameters].concat()));
        let disk = open_with(&server.uri(""), NbdSettings { connections: 3, ..settings() }).unwrap();
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| assert!(read_all(&disk, 1 << 20) == images.bytes));
            }
        });
        drop(disk);
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(log.matches("Connect ").count(), connections, "{log}");
    }
}

#[test]
fn tls_is_spoken_with_all_servers() {
    let images = Images::make();
    let directory = images.dir.path();
    make_certificates(directory);
    let directory = directory.to_str().unwrap();
    let credentials = format!("tls-creds-x509,id=tls,endpoint=server,verify-peer=no,dir={directory}");
    let qemu_nbd =
        Program::qemu_nbd(&images.raw, "raw").with(["--object", &credentials, "--tls-creds", "tls"]);
    let nbdkit = images.nbdkit(&["--tls=require", &format!("--tls-certificates={directory}")]);
    for program in [qemu_nbd, nbdkit] {
        let server = NbdServer::start(program, Listen::Tcp);
        assert_reads_as(&open(&server.tls_uri("", images.dir.path())), &images.bytes);
    }
}
