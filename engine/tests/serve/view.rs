//! The view of a disk: right bytes, few requests, and errors for what is damaged alone.

use crate::lab::{Noting, SIZE, Together, is_data_pack, is_map_pack, newest, stored};
use crate::world::{back_up, create, memory_index, noise, open};
use keepstone_engine::contents::contents;
use keepstone_engine::source::{ChangedAreas, DiskSource, Outside, ReadPart, Since};
use keepstone_engine::store::{BlobStore, MemoryStore, RecordingStore, StoreError};
use keepstone_engine::view::{Area, AreaKind, Cached, DiskView, ViewSettings};
use keepstone_engine::{EngineError, Extent, Repository};
use proptest::prelude::*;
use repo_format::{BlobName, Geometry};
use std::io;
use std::ops::Range;
use std::sync::Barrier;

fn viewed<'r, 's>(repository: &'r Repository<'s>, cache_bytes: u64) -> DiskView<'r, 's> {
    DiskView::open(repository, newest(repository).disk(None).unwrap(), ViewSettings { cache_bytes })
}

fn read(view: &DiskView<'_, '_>, offset: usize, len: usize) -> Result<Vec<u8>, EngineError> {
    let mut buffer = vec![0xee; len];
    view.read_at(offset as u64, &mut buffer).map(|()| buffer)
}

/// The one place of the disk's chunks that a byte is in.
fn chunk_at(repository: &Repository<'_>, offset: u64) -> Extent {
    let snapshot = newest(repository);
    let pieces = contents(repository, snapshot.disk(None).unwrap()).unwrap();
    let piece =
        pieces.iter().find(|piece| piece.start <= offset && offset < piece.start + piece.len).unwrap();
    assert!(piece.chunk.is_some(), "{offset} lies in a hole");
    Extent { start: piece.start, length: piece.len }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_reads_give_the_disks_bytes(
        reads in proptest::collection::vec((0..SIZE, 0..40_000_usize), 1..40),
        cache_bytes in prop_oneof![Just(0_u64), Just(20_000), Just(1 << 30)],
        backups in prop_oneof![Just(1_u8), Just(4)],
        is_ahead: bool,
    ) {
        let (store, bytes) = stored(backups);
        let repository = open(&store);
        let view = viewed(&repository, cache_bytes);
        let compare = || {
            for (offset, len) in &reads {
                let len = (*len).min(SIZE - offset);
                let mut buffer = vec![0xee; len];
                if view.read_cached(*offset as u64, &mut buffer).unwrap() != Cached::Absent {
                    assert!(buffer == bytes[*offset..offset + len], "cached: {len} bytes at {offset}");
                }
                assert!(read(&view, *offset, len).unwrap() == bytes[*offset..offset + len], "{len} at {offset}");
            }
        };
        if is_ahead { view.reading_ahead(compare) } else { compare() }
    }
}

#[test]
fn reads_behind_the_end_are_refused() {
    let (store, _) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository, 1 << 20);
    for (offset, len) in [(SIZE, 1), (SIZE - 1, 2), (usize::MAX, 1)] {
        let error = read(&view, offset, len).unwrap_err();
        assert!(matches!(error, EngineError::OutsideOfDisk { size, .. } if size == SIZE as u64), "{error}");
        let error = view.areas(offset as u64, (offset as u64).saturating_add(len as u64), 1);
        assert!(offset == usize::MAX || matches!(error, Err(EngineError::OutsideOfDisk { .. })), "{error:?}");
    }
    assert!(read(&view, SIZE, 0).unwrap().is_empty());
}

#[test]
fn nothing_is_read_before_it_is_wanted_and_then_once() {
    let (store, bytes) = stored(3);
    let store = Noting::new(store);
    let repository = open(&store);
    let snapshot = newest(&repository);
    store.gets.lock().unwrap().clear();
    let view = DiskView::open(&repository, snapshot.disk(None).unwrap(), ViewSettings::default());
    assert_eq!(store.gets.lock().unwrap().len(), 0);
    let at = usize::try_from(chunk_at(&repository, 600_000).start).unwrap();
    store.gets.lock().unwrap().clear();
    assert_eq!(read(&view, at, 100).unwrap(), bytes[at..at + 100]);
    assert_eq!(store.data_reads().len(), 1);
    assert_eq!(read(&view, at, 100).unwrap(), bytes[at..at + 100]);
    assert_eq!(store.gets.lock().unwrap().len(), 0);
    assert_eq!((view.stats().reads, view.stats().misses, view.stats().hits), (2, 1, 1));
}

#[test]
fn what_lies_together_is_fetched_together() {
    let (store, bytes) = stored(1);
    let store = Noting::new(store);
    let repository = open(&store);
    let view = viewed(&repository, 1 << 30);
    store.data_reads();
    // Some twenty chunks, one behind the other in a pack.
    assert_eq!(read(&view, 1000, 30_000).unwrap(), bytes[1000..31_000]);
    assert!(view.stats().misses > 10, "{:?}", view.stats());
    assert_eq!(store.data_reads().len(), 1);
}

#[test]
fn what_is_kept_is_bounded() {
    let (store, _) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository, 100_000);
    read(&view, 0, SIZE).unwrap();
    let once = view.stats().fetched_bytes;
    read(&view, 0, SIZE).unwrap();
    let twice = view.stats().fetched_bytes;
    // A second time through, what was wanted first had gone for what came later.
    assert!(once > 200_000 && twice > once + once / 2, "{once} bytes, then {twice}");
}

#[test]
fn readers_that_want_the_same_have_it_fetched_once() {
    let (store, bytes) = stored(1);
    let store = Noting::new(store);
    let repository = open(&store);
    let view = viewed(&repository, 1 << 30);
    store.data_reads();
    let begin = Barrier::new(8);
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                begin.wait();
                assert_eq!(read(&view, 600_000, 5000).unwrap(), bytes[600_000..605_000]);
            });
        }
    });
    let reads = store.data_reads();
    let mut ranges: Vec<_> = reads.iter().map(|(name, range)| format!("{name} {range:?}")).collect();
    ranges.sort_unstable();
    let all = ranges.len();
    ranges.dedup();
    assert_eq!(ranges.len(), all, "{ranges:?}");
    // Chunks that several readers fetch at the same time may lie between each other: requests may overlap, and no chunk is
    // fetched twice.
    let alone = viewed(&repository, 1 << 30);
    read(&alone, 600_000, 5000).unwrap();
    assert_eq!(view.stats().misses, alone.stats().misses);
}

#[test]
fn a_reader_from_front_to_back_has_many_reads_under_way() {
    let (store, bytes) = stored(1);
    let store = Together::new(store);
    let repository = open(&store);
    let view = viewed(&repository, 1 << 30);
    let compare = |range: Range<usize>| {
        assert!(read(&view, range.start, range.len()).unwrap() == bytes[range.clone()], "{range:?}");
    };
    view.reading_ahead(|| {
        compare(0..20_000);
        // The second read tells that a third will come; only one of them is asked for, and it wants one pack or two.
        store.wait_for(4);
        compare(20_000..40_000);
        assert!(store.came_together(), "reads came one by one");
        (40_000..bytes.len())
            .step_by(20_000)
            .for_each(|start| compare(start..bytes.len().min(start + 20_000)));
    });
    let stats = view.stats();
    assert!(stats.ahead > stats.misses, "{stats:?}");
}

#[test]
fn damage_is_an_error_of_the_reads_that_want_it() {
    let (store, bytes) = stored(1);
    let repository = open(&store);
    let whole = store.copied();
    let packs: Vec<BlobName> = store.names().into_iter().filter(is_data_pack).collect();
    // One byte of one pack, of which it is not known which chunk it is in.
    let pack = &packs[packs.len() / 2];
    let mut damaged = store.get(pack, None).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    store.overwrite(pack, &damaged);
    let view = viewed(&repository, 1 << 30);
    let mut unreadable = Vec::new();
    for start in (0..SIZE).step_by(500) {
        let end = SIZE.min(start + 500);
        match read(&view, start, end - start) {
            Ok(found) => assert!(found == bytes[start..end], "at {start}"),
            Err(EngineError::Unreadable { offset, length, source, .. }) => {
                assert!(matches!(&*source, EngineError::Damaged { name, .. } if name == pack), "{source}");
                let range = Extent { start: offset, length };
                assert!(range.clip(start as u64, end as u64).is_some());
                unreadable.push(range);
            }
            Err(error) => panic!("{error}"),
        }
    }
    unreadable.dedup();
    assert_eq!(unreadable.len(), 1, "{unreadable:?}");
    assert_eq!(unreadable[0], chunk_at(&repository, unreadable[0].start));
    // A long read over it fails, and so does not give out a part.
    assert!(read(&view, 0, SIZE).is_err());
    // What is right again is read again.
    store.overwrite(pack, &whole.get(pack, None).unwrap());
    assert!(read(&view, 0, SIZE).unwrap() == bytes);
}

#[test]
fn a_pack_that_vanishes_is_an_error_and_nothing_else_is() {
    let (store, bytes) = stored(1);
    let repository = open(&store);
    let view = viewed(&repository, 0);
    read(&view, 0, SIZE).unwrap();
    let pack = store.names().into_iter().find(is_data_pack).unwrap();
    store.delete(&pack).unwrap();
    let (mut whole, mut lost) = (0, 0);
    for start in (0..SIZE).step_by(1000) {
        let end = SIZE.min(start + 1000);
        match read(&view, start, end - start) {
            Ok(found) => {
                assert!(found == bytes[start..end], "at {start}");
                whole += 1;
            }
            Err(EngineError::Unreadable { source, .. }) => {
                let StoreError::NotFound { name } = (match &*source {
                    EngineError::Store(error) => error,
                    error => panic!("{error}"),
                }) else {
                    panic!("{source}")
                };
                assert_eq!(*name, pack);
                lost += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(whole > 100 && lost > 10, "{whole} whole, {lost} lost");
}

#[test]
fn a_lost_page_is_an_error_of_what_it_tells_of() {
    let (store, bytes) = stored(1);
    let repository = open(&store);
    let maps: Vec<BlobName> = store.names().into_iter().filter(is_map_pack).collect();
    let view = viewed(&repository, 1 << 20);
    // The root and its nodes come last in a pack of maps; pages come first.
    let mut damaged = store.get(&maps[0], None).unwrap();
    damaged[700] ^= 1;
    store.overwrite(&maps[0], &damaged);
    let failed: Vec<usize> = (0..SIZE)
        .step_by(1000)
        .filter(|start| match read(&view, *start, 1000.min(SIZE - start)) {
            Ok(found) => {
                assert!(found == bytes[*start..*start + found.len()], "at {start}");
                false
            }
            Err(EngineError::Unreadable { source, .. }) => {
                assert!(source.is_damage(), "{source}");
                true
            }
            Err(error) => panic!("{error}"),
        })
        .collect();
    assert!(!failed.is_empty() && failed.len() < 100, "{failed:?}");
}

/// The areas of a whole disk, asked for piece by piece.
fn all_areas(view: &DiskView<'_, '_>, count: usize) -> Vec<Area> {
    let mut areas: Vec<Area> = Vec::new();
    let mut at = 0;
    while at < view.size() {
        let more = view.areas(at, view.size(), count).unwrap();
        assert!(!more.is_empty() && more.len() <= count);
        for area in more {
            assert_eq!(area.extent.start, at);
            at = area.extent.end();
            match areas.last_mut() {
                Some(last) if last.kind == area.kind => last.extent.length += area.extent.length,
                _ => areas.push(area),
            }
        }
    }
    areas
}

#[test]
fn areas_are_what_the_map_tells() {
    let (store, _) = stored(4);
    let repository = open(&store);
    let view = viewed(&repository, 1 << 20);
    let snapshot = newest(&repository);
    let mut expected: Vec<Area> = Vec::new();
    for piece in contents(&repository, snapshot.disk(None).unwrap()).unwrap() {
        let kind = if piece.chunk.is_some() { AreaKind::Data } else { AreaKind::Hole };
        match expected.last_mut() {
            Some(last) if last.kind == kind => last.extent.length += piece.len,
            _ => expected.push(Area { extent: Extent { start: piece.start, length: piece.len }, kind }),
        }
    }
    assert!(expected.len() > 20);
    for count in [1, 3, 1000] {
        assert_eq!(all_areas(&view, count), expected, "{count} at a time");
    }
    // And no chunk is read for that.
    assert_eq!(view.stats().fetched_bytes, 0);
    let hole = expected.iter().find(|area| area.kind == AreaKind::Hole).unwrap().extent;
    let inside = Extent { start: hole.start + 1, length: hole.length - 2 };
    let found = view.areas(inside.start, inside.end(), 9).unwrap();
    assert_eq!(found, [Area { extent: inside, kind: AreaKind::Hole }]);
}

/// A disk of which only the beginning and the end are there.
struct Sparse {
    size: u64,
    bytes: Vec<u8>,
}

impl DiskSource for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, _: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let length = self.bytes.len() as u64;
        let areas = vec![Extent { start: 0, length }, Extent { start: self.size - length, length }];
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason: None }, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        for part in parts {
            for (at, byte) in (part.offset..).zip(part.buffer.iter_mut()) {
                let end = self.size - self.bytes.len() as u64;
                let at = if at >= end { at - end } else { at };
                *byte = usize::try_from(at).ok().and_then(|at| self.bytes.get(at)).copied().unwrap_or(0);
            }
        }
        Ok(())
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_huge_disk_is_there_at_once_and_its_holes_are_told_without_going_through_them() {
    const TIB: u64 = 1 << 40;
    let store = RecordingStore::new(MemoryStore::new());
    let repository = create(&store, Geometry::default());
    let disk = Sparse { size: 62 * TIB, bytes: noise(3, 100_000) };
    back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    let view = viewed(&repository, 1 << 20);
    let before = store.requests();
    let end = view.size();
    let mut buffer = vec![0; 100];
    view.read_at(end - 100, &mut buffer).unwrap();
    assert_eq!(buffer, disk.bytes[disk.bytes.len() - 100..]);
    let areas = view.areas(0, end, 10).unwrap();
    let kinds: Vec<AreaKind> = areas.iter().map(|area| area.kind).collect();
    assert_eq!(kinds, [AreaKind::Data, AreaKind::Hole, AreaKind::Data]);
    // A chunk may reach into the zeros.
    let hole = areas[1].extent;
    assert!(
        (100_000..300_000).contains(&hole.start) && (end - 300_000..=end - 100_000).contains(&hole.end())
    );
    view.read_at(31 * TIB, &mut buffer).unwrap();
    assert_eq!(buffer, [0; 100]);
    let requests = store.requests().since(&before).get;
    assert!(requests < 30, "{requests} requests");
}
