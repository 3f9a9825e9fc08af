//! What an NBD server sends.

use keepstone_engine::DiskSource as _;
use keepstone_engine::nbd::NbdSettings;
use keepstone_engine::source::{NbdDisk, Outside, ReadPart, Since};
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// What a socket takes without anybody reading it, on every system that tests run on.
const INPUT_LEN_MAX: usize = 64 << 10;
/// What is read from the disk's start, and at its end.
const READ_LEN: u64 = 300 << 10;
/// The size of the disk of the seeds.
const SEED_SIZE: u64 = 8192;

/// All that a server sends, from its greeting on, to a client that opens a disk with a dirty bitmap and reads of it.
/// Tells whether the disk was opened and read.
pub fn nbd_client(data: &[u8]) -> bool {
    let (ours, mut theirs) = UnixStream::pair().expect("sockets can be made");
    theirs.write_all(&data[..data.len().min(INPUT_LEN_MAX)]).expect("the socket takes this much");
    theirs.shutdown(Shutdown::Write).expect("the socket is open");
    let settings = NbdSettings { bitmap: Some("b".to_owned()), ..NbdSettings::default() };
    let Ok(disk) = NbdDisk::over(ours, "disk", settings) else { return false };
    let size = disk.size();
    assert!(size > 0);
    let since = Since { change_id: None, size, properties: &[] };
    for since in [None, Some(&since)] {
        let changed = disk.changed_areas(since).expect("it was asked when the disk was opened");
        assert!(since.is_some() || matches!(changed.outside, Outside::Zero { full_reason: None }));
        assert!(changed.areas.iter().all(|area| area.length > 0 && area.start < size && area.end() <= size));
        assert!(
            changed.areas.is_sorted_by(|one, next| one.end() < next.start),
            "areas touch or are out of order"
        );
    }
    let len = READ_LEN.min(size);
    let mut buffers = [0, 1].map(|_| vec![0xaa; usize::try_from(len).expect("it is short")]);
    let [first, last] = &mut buffers;
    disk.read(&mut [ReadPart { offset: 0, buffer: first }]).is_ok()
        && disk.read(&mut [ReadPart { offset: size - len, buffer: last }]).is_ok()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![simple(), exported_by_name(), structured(), extended()]
}

fn reply(option: u32, code: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("it is short");
    let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
    [&magic[..], &option.to_be_bytes(), &code.to_be_bytes(), &len.to_be_bytes(), data].concat()
}

fn greeting(flags: u16) -> Vec<u8> {
    [b"NBDMAGICIHAVEOPT", &flags.to_be_bytes()[..]].concat()
}

const UNSUPPORTED: u32 = 0x8000_0001;

/// The export with its block sizes, and the end of the handshake.
fn go() -> Vec<u8> {
    let export = [&[0, 0][..], &SEED_SIZE.to_be_bytes(), &[1, 1]].concat();
    let blocks = [[0, 3].to_vec(), [512_u32, 4096, 65536].map(u32::to_be_bytes).concat()].concat();
    [reply(7, 3, &export), reply(7, 3, &blocks), reply(7, 1, &[])].concat()
}

fn simple_read(cookie: u64) -> Vec<u8> {
    let data = vec![7; usize::try_from(SEED_SIZE).expect("it is small")];
    [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &cookie.to_be_bytes(), &data].concat()
}

fn simple() -> Vec<u8> {
    let refused = [reply(11, UNSUPPORTED, b"no"), reply(8, UNSUPPORTED, &[])].concat();
    [greeting(3), refused, go(), simple_read(0), simple_read(1)].concat()
}

fn exported_by_name() -> Vec<u8> {
    let export = [&SEED_SIZE.to_be_bytes()[..], &[0, 1], &[0; 124]].concat();
    [greeting(0), export, simple_read(0), simple_read(1)].concat()
}

fn contexts() -> Vec<u8> {
    let [allocation, bitmap] = ["\0\0\0\x01base:allocation", "\0\0\0\x02qemu:dirty-bitmap:b"];
    let contexts = [allocation, bitmap].map(|context| reply(10, 4, context.as_bytes())).concat();
    [contexts, reply(10, 1, &[])].concat()
}

fn structured() -> Vec<u8> {
    let chunk = |is_last: bool, kind: u16, cookie: u64, parts: &[&[u8]]| {
        let data = parts.concat();
        let len = u32::try_from(data.len()).expect("it is short").to_be_bytes();
        let magic = 0x668e_33ef_u32.to_be_bytes();
        let flags = u16::from(is_last).to_be_bytes();
        [&magic[..], &flags, &kind.to_be_bytes(), &cookie.to_be_bytes(), &len, &data].concat()
    };
    let state = |context: u32, flags: [u32; 2]| {
        let states = flags.map(|flags| [4096_u32.to_be_bytes(), flags.to_be_bytes()].concat()).concat();
        [context.to_be_bytes().to_vec(), states].concat()
    };
    let read = |cookie: u64| {
        let data = chunk(false, 1, cookie, &[&1024_u64.to_be_bytes(), &[5; 3072]]);
        [data, chunk(true, 2, cookie, &[&[0; 8], &1024_u32.to_be_bytes()])].concat()
    };
    let agreed = [reply(11, UNSUPPORTED, &[]), reply(8, 1, &[]), contexts(), go()].concat();
    let states = [chunk(false, 5, 0, &[&state(1, [0, 3])]), chunk(true, 5, 0, &[&state(2, [0, 1])])].concat();
    [greeting(3), agreed, states, read(1), read(2)].concat()
}

fn extended() -> Vec<u8> {
    let chunk = |is_last: bool, kind: u16, cookie: u64, parts: &[&[u8]]| {
        let data = parts.concat();
        let magic = 0x6e8a_278c_u32.to_be_bytes();
        let head = [u16::from(is_last).to_be_bytes(), kind.to_be_bytes()].concat();
        let len = (data.len() as u64).to_be_bytes();
        [&magic[..], &head, &cookie.to_be_bytes(), &[0; 8], &len, &data].concat()
    };
    let state = |context: u32, flags: [u64; 2]| {
        let states = flags.map(|flags| [4096_u64.to_be_bytes(), flags.to_be_bytes()].concat()).concat();
        [[context.to_be_bytes(), 2_u32.to_be_bytes()].concat(), states].concat()
    };
    let read = |cookie: u64| {
        let data = chunk(false, 1, cookie, &[&4096_u64.to_be_bytes(), &[5; 4096]]);
        [data, chunk(true, 0, cookie, &[])].concat()
    };
    let agreed = [reply(11, 1, &[]), contexts(), go()].concat();
    let states = [chunk(false, 6, 0, &[&state(2, [1, 0])]), chunk(true, 6, 0, &[&state(1, [3, 0])])].concat();
    [greeting(3), agreed, states, read(1), read(2)].concat()
}
