//! The server as clients see it, well-behaved and others.

use crate::lab::{Gated, SIZE, Together, newest, stored};
use crate::world::open;
use keepstone_engine::nbd::server::{
    Listener, Served, ServerEvent, ServerReport, ServerSettings, WORKERS_MAX, serve,
};
use keepstone_engine::nbd::{NbdPlace, NbdSettings};
use keepstone_engine::overlay::{Overlay, OverlayOf};
use keepstone_engine::source::{NbdDisk, ReadPart};
use keepstone_engine::view::{DiskView, ViewSettings};
use keepstone_engine::{BlobStore, DiskSource as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A served disk.
struct Scene {
    socket: PathBuf,
    bytes: Vec<u8>,
    /// What the server told of clients that it left and of requests that failed.
    told: Mutex<Vec<String>>,
}

impl Scene {
    fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(&self.socket).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    fn client(&self) -> NbdDisk {
        let place = format!("nbd+unix:///?socket={}", self.socket.display());
        NbdDisk::open(&NbdPlace::parse(&place).unwrap().unwrap(), NbdSettings::default()).unwrap()
    }

    /// Reads the whole disk as anybody does.
    fn is_well(&self) {
        let client = self.client();
        let mut buffer = vec![0xee; SIZE];
        client.read(&mut [ReadPart { offset: 0, buffer: &mut buffer }]).unwrap();
        assert!(buffer == self.bytes);
    }
}

/// How a test has its disk served.
#[derive(Clone, Copy, Default)]
struct Way {
    is_writable: bool,
    clients_max: Option<usize>,
    handshake_millis: Option<u64>,
}

/// Serves a disk while `body` runs.
fn served_as(way: Way, body: impl FnOnce(&Scene)) -> ServerReport {
    let (store, bytes) = stored(2);
    served_from(&store, bytes, way, body)
}

fn served_from(store: &dyn BlobStore, bytes: Vec<u8>, way: Way, body: impl FnOnce(&Scene)) -> ServerReport {
    let repository = open(store);
    let snapshot = newest(&repository);
    let view = DiskView::open(&repository, snapshot.disk(None).unwrap(), ViewSettings::default());
    let dir = tempfile::tempdir().unwrap();
    let of = OverlayOf {
        repository: repository.config().repository,
        snapshot: snapshot.session(),
        disk: "disk0",
        size: SIZE as u64,
    };
    let overlay = Overlay::open(&view, &of, &dir.path().join("overlay")).unwrap();
    let disk = if way.is_writable { Served::Writable(&overlay) } else { Served::ReadOnly(&view) };
    let scene = Scene { socket: dir.path().join("socket"), bytes, told: Mutex::default() };
    let listener = Listener::unix(&scene.socket).unwrap();
    let mut settings = ServerSettings::new("disk0", "a test's");
    settings.clients_max = way.clients_max.unwrap_or(settings.clients_max);
    settings.handshake_timeout =
        way.handshake_millis.map_or(settings.handshake_timeout, Duration::from_millis);
    let is_over = AtomicBool::new(false);
    let tell = |event: ServerEvent<'_>| match event {
        ServerEvent::Left { why: Some(why), .. } => scene.told.lock().unwrap().push(why.to_string()),
        ServerEvent::Failed { text, .. } => scene.told.lock().unwrap().push(text.to_owned()),
        ServerEvent::Refused { .. } => scene.told.lock().unwrap().push("refused".to_owned()),
        _ => {}
    };
    std::thread::scope(|threads| {
        let server =
            threads.spawn(|| serve(disk, &listener, &settings, &|| is_over.load(Ordering::Relaxed), &tell));
        let end = End(&is_over);
        body(&scene);
        drop(end);
        server.join().unwrap().unwrap()
    })
}

/// Ends the server also when a test fails.
struct End<'e>(&'e AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [b"IHAVEOPT", &code.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
}

/// A name with its length.
fn named(name: &str) -> Vec<u8> {
    [&u32::try_from(name.len()).unwrap().to_be_bytes()[..], name.as_bytes()].concat()
}

fn go(name: &str) -> Vec<u8> {
    option(7, &[named(name), vec![0, 0]].concat())
}

const FLAGS: [u8; 4] = [0, 0, 0, 3];
/// Of the code of an answer to an option: it was refused.
const ERROR: u32 = 1 << 31;
/// All of the disk.
const ALL: u32 = 1_000_003;
const _: () = assert!(ALL as usize == SIZE);
const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const STATUS: u16 = 7;

fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let head = [
        0x2560_9513_u32.to_be_bytes().to_vec(),
        flags.to_be_bytes().to_vec(),
        command.to_be_bytes().to_vec(),
    ];
    [
        head.concat(),
        cookie.to_be_bytes().to_vec(),
        offset.to_be_bytes().to_vec(),
        length.to_be_bytes().to_vec(),
    ]
    .concat()
}

fn take(socket: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    socket.read_exact(&mut bytes).unwrap();
    bytes
}

/// The code and the data of an answer to an option.
fn answer(socket: &mut UnixStream) -> (u32, Vec<u8>) {
    let head = take(socket, 20);
    assert_eq!(head[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
    let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
    (number(12), take(socket, usize::try_from(number(16)).unwrap()))
}

/// A client that has opened the export with structured replies and states.
fn opened(scene: &Scene) -> UnixStream {
    let mut socket = scene.connect();
    take(&mut socket, 18);
    let contexts = [named("disk0"), vec![0, 0, 0, 1], named("base:allocation")].concat();
    socket.write_all(&[&FLAGS[..], &option(8, &[]), &option(10, &contexts), &go("disk0")].concat()).unwrap();
    while answer(&mut socket).0 != 1 {}
    assert_eq!(answer(&mut socket).0, 4);
    while answer(&mut socket).0 != 1 {}
    while answer(&mut socket).0 != 1 {}
    socket
}

/// A chunk of a structured reply: whether it is the last, its kind, its cookie, its bytes.
fn chunk(socket: &mut UnixStream) -> (bool, u16, u64, Vec<u8>) {
    let head = take(socket, 20);
    assert_eq!(head[..4], 0x668e_33ef_u32.to_be_bytes());
    let len = u32::from_be_bytes(head[16..20].try_into().unwrap());
    let kind = u16::from_be_bytes(head[6..8].try_into().unwrap());
    let cookie = u64::from_be_bytes(head[8..16].try_into().unwrap());
    (head[5] == 1, kind, cookie, take(socket, usize::try_from(len).unwrap()))
}

/// Whether the server has ended the connection.
fn is_ended(socket: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
    }
}

#[test]
fn our_own_client_reads_what_is_there() {
    let report = served_as(Way::default(), |scene| {
        let client = scene.client();
        assert_eq!(client.size(), SIZE as u64);
        let areas = client.changed_areas(None).unwrap().areas;
        let mut at = 0;
        for area in &areas {
            let hole = usize::try_from(at).unwrap()..usize::try_from(area.start).unwrap();
            assert!(scene.bytes[hole].iter().all(|byte| *byte == 0));
            at = area.end();
        }
        assert!(areas.len() > 10);
        scene.is_well();
    });
    assert!(report.clients >= 2 && report.failed == 0, "{report:?}");
}

#[test]
fn options_are_answered_in_any_order_and_what_is_unknown_refused() {
    served_as(Way::default(), |scene| {
        let mut socket = scene.connect();
        assert_eq!(take(&mut socket, 18), *b"NBDMAGICIHAVEOPT\0\x03");
        socket.write_all(&FLAGS).unwrap();
        let mut ask = |code: u32, data: &[u8]| {
            socket.write_all(&option(code, data)).unwrap();
            let mut codes = Vec::new();
            loop {
                let (code, _) = answer(&mut socket);
                codes.push(code);
                if code == 1 || code >> 31 == 1 {
                    return codes;
                }
            }
        };
        assert_eq!(ask(77, b"what"), [ERROR | 1]);
        assert_eq!(ask(5, b""), [ERROR | 2]);
        assert_eq!(ask(3, b""), [2, 1]);
        assert_eq!(ask(3, b"x"), [ERROR | 3]);
        assert_eq!(ask(6, &[named("other"), vec![0, 0]].concat()), [ERROR | 6]);
        assert_eq!(ask(6, &[named(""), vec![0, 1, 0, 2]].concat()), [3, 3, 3, 1]);
        assert_eq!(ask(6, b"\xff\xff\xff\xff"), [ERROR | 3]);
        let contexts = |queries: &[&str]| {
            let count = u32::try_from(queries.len()).unwrap().to_be_bytes();
            [named("disk0"), count.to_vec(), queries.iter().flat_map(|query| named(query)).collect()].concat()
        };
        assert_eq!(ask(10, &contexts(&["base:allocation"])), [ERROR | 3]);
        assert_eq!(ask(8, b""), [1]);
        assert_eq!(ask(9, &contexts(&[])), [4, 1]);
        assert_eq!(ask(9, &contexts(&["base:"])), [4, 1]);
        assert_eq!(ask(10, &contexts(&["qemu:", "base:allocation"])), [4, 1]);
        assert_eq!(ask(10, &contexts(&["x:y"])), [1]);
        assert_eq!(ask(2, b""), [1]);
        assert!(is_ended(&mut socket));
        scene.is_well();
    });
}

#[test]
fn the_oldest_clients_get_simple_replies() {
    served_as(Way::default(), |scene| {
        let mut socket = scene.connect();
        take(&mut socket, 18);
        socket.write_all(&[&[0, 0, 0, 1], &option(1, b"disk0")[..]].concat()).unwrap();
        let told = take(&mut socket, 134);
        assert_eq!(told[..8], (SIZE as u64).to_be_bytes());
        socket.write_all(&request(READ, 0, 9, 300, 70_000)).unwrap();
        let head = take(&mut socket, 16);
        assert_eq!(head, [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &9_u64.to_be_bytes()].concat());
        assert!(take(&mut socket, 70_000) == scene.bytes[300..70_300]);
        socket.write_all(&request(READ, 0, 10, SIZE as u64 - 1, 2)).unwrap();
        assert_eq!(take(&mut socket, 16)[4..8], 22_u32.to_be_bytes());
    });
}

#[test]
fn holes_are_sent_as_holes_unless_the_data_are_to_be_whole() {
    served_as(Way::default(), |scene| {
        let mut socket = opened(scene);
        let (start, len) = (150_000, 400_000);
        for (flags, cookie) in [(0, 1), (4, 2)] {
            socket.write_all(&request(READ, flags, cookie, start as u64, len)).unwrap();
            let mut found = vec![0xee; usize::try_from(len).unwrap()];
            let mut holes = 0;
            loop {
                let (is_last, kind, answered, data) = chunk(&mut socket);
                assert_eq!(answered, cookie);
                let offset =
                    usize::try_from(u64::from_be_bytes(data[..8].try_into().unwrap())).unwrap() - start;
                match kind {
                    1 => found[offset..offset + data.len() - 8].copy_from_slice(&data[8..]),
                    2 => {
                        let hole =
                            usize::try_from(u32::from_be_bytes(data[8..].try_into().unwrap())).unwrap();
                        found[offset..offset + hole].fill(0);
                        holes += hole;
                    }
                    kind => panic!("a chunk of kind {kind}"),
                }
                if is_last {
                    break;
                }
            }
            assert!(found == scene.bytes[start..start + found.len()]);
            assert_eq!(holes > 200_000, flags == 0, "{holes} bytes of holes");
        }
        for (flags, count) in [(8, 1), (0, 2)] {
            socket.write_all(&request(STATUS, flags, 3, 0, ALL)).unwrap();
            let (is_last, kind, _, data) = chunk(&mut socket);
            assert_eq!((is_last, kind), (true, 5));
            let states = (data.len() - 4) / 8;
            assert!(if count == 1 { states == 1 } else { states >= 2 }, "{states} states");
        }
    });
}

#[test]
fn requests_that_cannot_be_are_refused_and_the_client_goes_on() {
    let report = served_as(Way::default(), |scene| {
        let mut socket = opened(scene);
        let size = SIZE as u64;
        let cases = [
            (request(READ, 0, 1, size, 1), 22),
            (request(READ, 0, 2, u64::MAX, u32::MAX), 22),
            (request(READ, 1 << 9, 3, 0, 1), 22),
            (request(99, 0, 4, 0, 1), 95),
            (request(TRIM, 0, 5, 0, 4096), 1),
            ([request(WRITE, 0, 6, 0, 3), b"abc".to_vec()].concat(), 1),
            (request(STATUS, 0, 7, 0, 0), 22),
            (request(6, 0, 8, size - 1, 2), 28),
        ];
        for (request, errno) in &cases {
            socket.write_all(request).unwrap();
            let (is_last, kind, _, data) = chunk(&mut socket);
            assert_eq!((is_last, kind, &data[..4]), (true, 0x8001, &u32::to_be_bytes(*errno)[..]));
        }
        // Nothing is lost of a disk that is only read.
        socket.write_all(&request(FLUSH, 0, 9, 0, 0)).unwrap();
        assert_eq!(take(&mut socket, 16)[4..8], [0; 4]);
        socket.write_all(&request(READ, 0, 10, 5, 100)).unwrap();
        assert!(chunk(&mut socket).3[8..] == scene.bytes[5..105]);
    });
    assert_eq!((report.failed, report.damaged), (8, 0));
}

#[test]
fn whoever_breaks_the_protocol_is_left_and_nobody_else() {
    served_as(Way::default(), |scene| {
        let good = opened(scene);
        let garbage: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0xff; 4096],
            [&FLAGS[..], b"GARBAGE!", &[0; 8]].concat(),
            // An option of 4 GiB.
            [&FLAGS[..], b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff"].concat(),
            [&FLAGS[..], &option(1, b"\xff\xfe")].concat(),
            [&FLAGS[..], &option(1, b"other")].concat(),
            [&FLAGS[..], &option(77, b"").repeat(100)].concat(),
            [&FLAGS[..], &go("disk0"), &[0; 28]].concat(),
            // A write of 4 GiB.
            [&FLAGS[..], &go("disk0"), &request(WRITE, 0, 1, 0, u32::MAX)].concat(),
        ];
        for bytes in &garbage {
            let mut socket = scene.connect();
            // It may be left before it has said everything.
            drop(socket.write_all(bytes));
            assert!(is_ended(&mut socket), "{:?}", String::from_utf8_lossy(&bytes[..20.min(bytes.len())]));
        }
        let mut good = good;
        good.write_all(&request(READ, 0, 1, 0, 100)).unwrap();
        assert!(chunk(&mut good).3[8..] == scene.bytes[..100]);
        scene.is_well();
    });
}

#[test]
fn who_does_not_open_the_export_in_time_is_left_however_slowly_it_talks() {
    served_as(Way { handshake_millis: Some(200), ..Way::default() }, |scene| {
        let mut silent = scene.connect();
        let mut slow = scene.connect();
        slow.write_all(&FLAGS).unwrap();
        slow.write_all(b"IHAVEOPT").unwrap();
        assert!(is_ended(&mut silent) && is_ended(&mut slow));
        scene.is_well();
    });
}

#[test]
fn more_clients_than_there_may_be_are_refused() {
    served_as(Way { clients_max: Some(2), ..Way::default() }, |scene| {
        let (mut first, second) = (opened(scene), opened(scene));
        assert!(is_ended(&mut scene.connect()));
        assert!(scene.told.lock().unwrap().contains(&"refused".to_owned()));
        first.write_all(&request(READ, 0, 1, 0, 10)).unwrap();
        assert!(chunk(&mut first).3[8..] == scene.bytes[..10]);
        drop((first, second));
    });
}

#[test]
fn a_client_that_takes_nothing_keeps_nobody_from_reading() {
    served_as(Way::default(), |scene| {
        let mut greedy = opened(scene);
        // As much as it may have under way and more; nobody takes the replies.
        for cookie in 0..100 {
            greedy.write_all(&request(READ, 4, cookie, 0, ALL)).unwrap();
        }
        for _ in 0..3 {
            scene.is_well();
        }
    });
}

#[test]
fn requests_of_one_client_are_done_at_a_time_and_answered_as_they_are_done() {
    let (store, bytes) = stored(1);
    let store = Together::new(store);
    served_from(&store, bytes, Way::default(), |scene| {
        let mut socket = opened(scene);
        // Far from each other, in packs of their own.
        let starts: [u64; 4] = [10_000, 550_000, 700_000, 900_000];
        store.wait_for(4);
        for (cookie, start) in (0..).zip(starts) {
            socket.write_all(&request(READ, 4, cookie, start, 5000)).unwrap();
        }
        let mut answered: Vec<u64> = Vec::new();
        for _ in starts {
            let (_, _, cookie, data) = chunk(&mut socket);
            let start = usize::try_from(starts[usize::try_from(cookie).unwrap()]).unwrap();
            assert!(data[8..] == scene.bytes[start..start + 5000]);
            answered.push(cookie);
        }
        answered.sort_unstable();
        assert_eq!(answered, [0, 1, 2, 3]);
        assert!(store.came_together(), "requests were done one by one");
    });
}

#[test]
fn what_clients_write_is_read_by_all_of_them() {
    let report = served_as(Way { is_writable: true, ..Way::default() }, |scene| {
        let (mut one, mut other) = (opened(scene), opened(scene));
        let ask = |socket: &mut UnixStream, request: Vec<u8>, data: &[u8]| {
            socket.write_all(&[&request, data].concat()).unwrap();
            assert_eq!(take(socket, 16)[..8], [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4]].concat());
        };
        ask(&mut one, request(WRITE, 1, 1, 5000, 3), b"abc");
        ask(&mut other, request(6, 0, 2, 5001, 1), b"");
        other.write_all(&request(READ, 4, 3, 4999, 5)).unwrap();
        let expected = [scene.bytes[4999], b'a', 0, b'c', scene.bytes[5003]];
        assert_eq!(chunk(&mut other).3[8..], expected);
        ask(&mut one, request(FLUSH, 0, 4, 0, 0), b"");
    });
    assert_eq!((report.writes, report.failed), (2, 0));
}

#[test]
fn a_socket_is_taken_over_from_a_dead_server_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = Listener::unix(&path).unwrap();
    assert!(Listener::unix(&path).unwrap_err().to_string().contains("a server is listening"));
    // As a killed server leaves it.
    let moved = dir.path().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    drop(listener);
    std::fs::rename(&moved, &path).unwrap();
    let listener = Listener::unix(&path).unwrap();
    drop(listener);
    assert!(!path.exists());
    std::fs::write(&path, "mine").unwrap();
    assert!(Listener::unix(&path).unwrap_err().to_string().ends_with("exists and is no socket"));
    assert!(Listener::unix(Path::new("/nowhere/socket")).is_err());
}

#[test]
fn what_a_client_asked_for_that_has_gone_is_not_read() {
    let (store, bytes) = stored(1);
    let store = Gated::new(store);
    let report = served_from(&store, bytes, Way::default(), |scene| {
        store.shut(true);
        let mut client = opened(scene);
        for number in 0..60_u32 {
            client.write_all(&request(READ, 0, number.into(), u64::from(number) * 512, 512)).unwrap();
        }
        drop(client);
        store.shut(false);
    });
    // Each of those who were reading finds out once.
    assert!(report.reads <= WORKERS_MAX as u64 + 1, "{report:?}");
}
