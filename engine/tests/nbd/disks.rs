//! Images, and reading them over NBD.

use keepstone_engine::nbd::{NbdError, NbdPlace, NbdSettings};
use keepstone_engine::source::{NbdDisk, ReadPart};
use keepstone_engine::{DiskSource, Extent};
use std::path::Path;
use std::time::Duration;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;

/// Patience for a machine that is busy, and none between connections.
pub fn settings() -> NbdSettings {
    NbdSettings { reconnect_pause: Duration::ZERO, ..NbdSettings::default() }
}

pub fn with_bitmap(name: &str) -> NbdSettings {
    NbdSettings { bitmap: Some(name.to_owned()), ..settings() }
}

pub fn open(uri: &str) -> NbdDisk {
    open_with(uri, settings()).unwrap()
}

pub fn open_with(uri: &str, settings: NbdSettings) -> Result<NbdDisk, NbdError> {
    let place = NbdPlace::parse(uri).unwrap().unwrap();
    NbdDisk::open(&place, settings)
}

/// Every message of an error's chain.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        messages.push(error.to_string());
        cause = error.source();
    }
    messages
}

/// The NBD error of an I/O error.
pub fn nbd_error(error: &std::io::Error) -> &NbdError {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

/// Bytes that differ from place to place, with holes between: in every 256 KiB, some data, zeros and a hole.
pub fn bytes(len: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let position = bytes.len() as u64 % (256 * KIB);
        let is_data = (32 * KIB..128 * KIB).contains(&position) || position > 200 * KIB;
        bytes.extend(if is_data { state.to_be_bytes() } else { [0; 8] });
    }
    bytes.truncate(usize::try_from(len).unwrap());
    bytes
}

/// A raw image with holes where the bytes are zeros for 4 KiB or more.
pub fn write_sparse(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (block, at) in bytes.chunks(4096).zip((0..).step_by(4096)) {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, at).unwrap();
        }
    }
}

/// All bytes of a disk, with one call for parts of a length.
pub fn read_all(disk: &dyn DiskSource, part_len: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; usize::try_from(disk.size()).unwrap()];
    let mut parts: Vec<ReadPart<'_>> = bytes
        .chunks_mut(part_len)
        .zip((0..).step_by(part_len))
        .map(|(buffer, offset)| ReadPart { offset, buffer })
        .collect();
    disk.read(&mut parts).unwrap();
    bytes
}

/// Some ranges of a disk, with one call.
pub fn read_ranges(disk: &dyn DiskSource, ranges: &[(u64, usize)]) -> std::io::Result<Vec<Vec<u8>>> {
    let mut buffers: Vec<Vec<u8>> = ranges.iter().map(|(_, len)| vec![0xaa; *len]).collect();
    let mut parts: Vec<ReadPart<'_>> = buffers
        .iter_mut()
        .zip(ranges)
        .map(|(buffer, (offset, _))| ReadPart { offset: *offset, buffer })
        .collect();
    disk.read(&mut parts)?;
    Ok(buffers)
}

/// Checks that a disk has the bytes, whole and in odd parts.
pub fn assert_reads_as(disk: &dyn DiskSource, expected: &[u8]) {
    assert_eq!(disk.size(), expected.len() as u64);
    for part_len in [expected.len(), 1_000_000, 70_001] {
        assert!(read_all(disk, part_len) == expected, "parts of {part_len} bytes differ");
    }
    let len = expected.len();
    let ranges = [(0, 1), (511, 2), (4095, 4098), (33_000, 1), (len / 2 - 7, 300_003), (len - 1, 1)];
    let ranges = ranges.map(|(start, len)| (start as u64, len));
    let read = read_ranges(disk, &ranges).unwrap();
    for ((start, len), read) in ranges.into_iter().zip(read) {
        let start = usize::try_from(start).unwrap();
        assert!(read == expected[start..start + len], "{len} bytes at {start} differ");
    }
    disk.check_unchanged().unwrap();
}

pub fn extents(areas: &[(u64, u64)]) -> Vec<Extent> {
    areas.iter().map(|&(start, length)| Extent { start, length }).collect()
}
