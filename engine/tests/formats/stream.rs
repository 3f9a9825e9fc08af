//! A reader of streamOptimized VMDK from front to back, as importers are, and what it checks.

use crate::{Sparse, target_error, vmdk};
use flate2::read::ZlibDecoder;
use keepstone_engine::DiskTarget as _;
use keepstone_engine::target::{TargetError, VmdkSettings, VmdkTarget};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

const SECTOR: usize = 512;
const GRAIN_SECTORS: u64 = 128;

/// A writer whose bytes stay.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What is in a stream: grains by their first sector in the disk, and tables.
#[derive(Debug, Default)]
struct Parsed {
    capacity: u64,
    grains: BTreeMap<u64, Vec<u8>>,
}

/// Reads a stream in one pass, and then checks that tables and directory say the same.
fn parsed(bytes: &[u8]) -> Parsed {
    assert_eq!(bytes.len() % SECTOR, 0);
    let header = &bytes[..SECTOR];
    assert_eq!((&header[..4], number(header, 4, 4), number(header, 8, 4)), (&b"KDMV"[..], 3, 0x3_0001));
    assert_eq!(number(header, 56, 8), u64::MAX, "the directory is at the end");
    let mut result = Parsed { capacity: number(header, 12, 8), ..Parsed::default() };
    let (mut places, mut tables) = (BTreeMap::new(), Vec::new());
    let (mut directory, mut footer) = (None, None);
    let mut sector = usize::try_from(number(header, 64, 8)).unwrap();
    loop {
        let at = sector * SECTOR;
        let (value, size) = (number(bytes, at, 8), usize::try_from(number(bytes, at + 8, 4)).unwrap());
        if size > 0 {
            assert!(footer.is_none() && directory.is_none());
            assert_eq!(value % GRAIN_SECTORS, 0);
            assert!(result.grains.last_key_value().is_none_or(|(last, _)| *last < value), "out of order");
            let mut grain = Vec::new();
            ZlibDecoder::new(&bytes[at + 12..at + 12 + size]).read_to_end(&mut grain).unwrap();
            assert_eq!(grain.len(), 65536);
            assert!(grain.iter().any(|byte| *byte != 0), "a grain of zeros");
            places.insert(value / GRAIN_SECTORS, sector as u64);
            result.grains.insert(value, grain);
            sector += (12 + size).div_ceil(SECTOR);
            continue;
        }
        let what = (sector + 1, &bytes[at + SECTOR..]);
        sector += 1 + usize::try_from(value).unwrap();
        match number(bytes, at + 12, 4) {
            0 => break,
            1 => tables.push(what),
            2 => directory = Some(what),
            3 => footer = Some(what.1),
            kind => panic!("a marker of kind {kind}"),
        }
    }
    assert_eq!(sector * SECTOR, bytes.len(), "something is behind the end");
    let (directory_sector, directory) = directory.unwrap();
    let mut expected = header.to_vec();
    expected[56..64].copy_from_slice(&(directory_sector as u64).to_le_bytes());
    assert_eq!(&footer.unwrap()[..SECTOR], expected);
    let mut tables = tables.into_iter();
    for table in 0..result.capacity.div_ceil(GRAIN_SECTORS * 512) {
        let mut grains = (table * 512)..(table + 1) * 512;
        let told = number(directory, usize::try_from(table * 4).unwrap(), 4);
        if grains.clone().all(|grain| !places.contains_key(&grain)) {
            assert_eq!(told, 0);
            continue;
        }
        let (place, entries) = tables.next().unwrap();
        assert_eq!(told, place as u64);
        let same = |grain| {
            let entry = usize::try_from((grain % 512) * 4).unwrap();
            number(entries, entry, 4) == places.get(&grain).copied().unwrap_or(0)
        };
        assert!(grains.all(same), "table {table}");
    }
    assert_eq!(tables.count(), 0);
    result
}

fn streamed(disk: &Sparse, settings: &VmdkSettings) -> Vec<u8> {
    let stream = Shared::default();
    let target = VmdkTarget::to_writer(stream.clone(), settings).unwrap();
    disk.write_to(&target).unwrap();
    target.finish().unwrap();
    let bytes = stream.0.lock().unwrap();
    bytes.clone()
}

#[test]
fn a_stream_is_read_in_one_pass() {
    let data = vec![
        (100, vec![1; 200_000]),
        ((32 << 20) - 70_000, vec![2; 140_000]),
        ((96 << 20) + 65_536, vec![3; 65_536]),
    ];
    let disk = Sparse { size: (200 << 20) + 5, data };
    let read = parsed(&streamed(&disk, &vmdk(disk.size)));
    assert_eq!(read.capacity, (200 << 11) + GRAIN_SECTORS);
    let mut expected: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (offset, data) in &disk.data {
        for (place, byte) in (*offset..).zip(data) {
            let grain = expected.entry(place / 65536 * GRAIN_SECTORS).or_insert_with(|| vec![0; 65536]);
            grain[usize::try_from(place % 65536).unwrap()] = *byte;
        }
    }
    assert!(read.grains == expected);
}

#[test]
fn a_disk_without_bytes_is_one_empty_grain() {
    let read = parsed(&streamed(&Sparse { size: 0, data: Vec::new() }, &vmdk(0)));
    assert_eq!((read.capacity, read.grains.len()), (GRAIN_SECTORS, 0));
}

#[test]
fn the_same_disk_gives_the_same_stream_in_whatever_order_it_comes() {
    let disk = Sparse { size: 1 << 20, data: vec![(5, vec![7; 300_000]), (500_000, vec![9; 500_000])] };
    let stream = Shared::default();
    let target = VmdkTarget::to_writer(stream.clone(), &vmdk(disk.size)).unwrap();
    target.zero_at(1_000_000, (1 << 20) - 1_000_000).unwrap();
    for part in disk.data[1].1.chunks(7000).enumerate().collect::<Vec<_>>().into_iter().rev() {
        target.write_at(500_000 + part.0 as u64 * 7000, part.1).unwrap();
    }
    target.zero_at(300_005, 199_995).unwrap();
    target.write_at(5, &disk.data[0].1).unwrap();
    target.zero_at(0, 5).unwrap();
    target.finish().unwrap();
    assert!(*stream.0.lock().unwrap() == streamed(&disk, &vmdk(disk.size)));
}

#[test]
fn more_that_comes_too_early_than_may_be_kept_is_an_error() {
    let noise: Vec<u8> =
        (0..65536u32).flat_map(|word| word.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let settings = VmdkSettings { kept_max: 100_000, ..vmdk(1 << 20) };
    let target = VmdkTarget::to_writer(io::sink(), &settings).unwrap();
    target.write_at(65536, &noise[..65536]).unwrap();
    let error = target.write_at(2 * 65536, &noise[..65536]).unwrap_err();
    assert!(matches!(target_error(&error), TargetError::OutOfRange { .. }), "{error}");
}

#[test]
fn a_reader_that_goes_away_is_a_broken_pipe() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let Err(error) = VmdkTarget::to_writer(Closed, &vmdk(1 << 20)) else { panic!("it was written") };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(error.to_string(), "could not write the stream");
}
