//! What an NBD client sends.

use keepstone_engine::nbd::server::{Served, ServerSettings, serve_client};
use keepstone_engine::repository::NewSlot;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::view::{DiskView, ViewSettings};
use keepstone_engine::{Entropy, Repository};
use repo_format::{Disk, DiskMode, Geometry, KdfParams, SlotName};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

/// What a socket takes without anybody reading it, on every system that tests run on.
const INPUT_LEN_MAX: usize = 64 << 10;
/// Larger than the longest request, and a little more.
const SIZE: u64 = (40 << 20) + 1;
/// What of the replies is kept, to look at their beginning.
const OUTPUT_LEN_MAX: usize = 1 << 20;

/// All that a client sends to a server of a disk of zeros. Tells whether it got so far as to read.
pub fn nbd_server(data: &[u8]) -> bool {
    static STORE: OnceLock<MemoryStore> = OnceLock::new();
    static REPOSITORY: OnceLock<Repository<'static>> = OnceLock::new();
    let repository = REPOSITORY.get_or_init(|| {
        let name = SlotName::new("k").expect("a slot's name");
        let kdf = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };
        let slot = NewSlot { name: &name, label: "", password: b"", kdf, time: 0 };
        let store = STORE.get_or_init(MemoryStore::new);
        let retention = NewSlot { name: &SlotName::new("retention").expect("a slot's name"), ..slot };
        Repository::create(store, Geometry::default(), &slot, &retention, &Entropy::new([1; 32]))
            .expect("the store is empty")
    });
    let disk = Disk {
        key: "disk".to_owned(),
        size: SIZE,
        change_id: None,
        mode: DiskMode::Full,
        changed_bytes: 0,
        read_bytes: 0,
        map: None,
    };
    let view = DiskView::open(repository, &disk, ViewSettings { cache_bytes: 0 });
    let (ours, mut theirs) = UnixStream::pair().expect("sockets can be made");
    theirs.write_all(&data[..data.len().min(INPUT_LEN_MAX)]).expect("the socket takes this much");
    theirs.shutdown(Shutdown::Write).expect("the socket is open");
    let (outcome, replies) = std::thread::scope(|threads| {
        let reader = threads.spawn(move || {
            let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
            // It ends when the server closes its side, in whatever way.
            while let Ok(count @ 1..) = theirs.read(&mut buffer) {
                let room = OUTPUT_LEN_MAX - kept.len();
                kept.extend(&buffer[..count.min(room)]);
            }
            kept
        });
        let outcome = serve_client(Served::ReadOnly(&view), ours, &ServerSettings::new("disk", "x"), &|_| {});
        (outcome, reader.join().expect("reading does not panic"))
    });
    assert!(replies.starts_with(b"NBDMAGICIHAVEOPT\0\x03"));
    outcome.is_ok_and(|report| report.reads > 0)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let option = |code: u32, data: &[u8]| {
        let len = u32::try_from(data.len()).expect("it is short");
        [b"IHAVEOPT", &code.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
    };
    let request = |magic: u32, flags: u16, command: u16, offset: u64, length: &[u8]| {
        let head = [flags.to_be_bytes(), command.to_be_bytes()].concat();
        [&magic.to_be_bytes()[..], &head, &7_u64.to_be_bytes(), &offset.to_be_bytes(), length].concat()
    };
    let short = |flags, command, offset, length: u32| {
        request(0x2560_9513, flags, command, offset, &length.to_be_bytes())
    };
    let long = |flags, command, offset, length: u64| {
        request(0x21e4_1c71, flags, command, offset, &length.to_be_bytes())
    };
    let flags = [0, 0, 0, 3];
    let go = option(7, b"\0\0\0\x04disk\0\x01\0\x03");
    let context = option(10, b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation");
    let by_name = [&flags[..], &option(1, b"disk"), &short(0, 0, 100, 512), &short(0, 2, 0, 0)].concat();
    let asked =
        [option(3, b""), option(6, b"\0\0\0\0\0\0"), option(9, b"\0\0\0\0\0\0\0\0"), option(8, b"")].concat();
    let requests = [
        short(4, 0, 5, 3000),
        short(0, 0, 0, 8192),
        short(8, 7, 0, 1 << 20),
        short(0, 3, 0, 0),
        short(0, 5, 0, 4096),
        [short(1, 1, 0, 4), b"data".to_vec()].concat(),
        short(0, 4, 0, 4096),
        short(0, 2, 0, 0),
    ];
    let structured = [&flags[..], &asked, &context, &go, &requests.concat()].concat();
    let extended = [long(0, 0, 9, 100), long(0, 7, 0, SIZE), long(0, 6, 0, 1 << 40)].concat();
    let extended = [&flags[..], &option(11, b""), &context, &go, &extended].concat();
    vec![by_name, structured, extended]
}
