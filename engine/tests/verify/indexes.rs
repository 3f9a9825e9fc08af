//! Indexes that are missing, damaged, or say what packs contradict.

use crate::lab::{World, expect_all, run, world};
use crate::world::{back_up, latest, memory_index, mixed, open, restored};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::verify::FindingKind;
use repo_format::{BlobName, Codec, Index, IndexEntry, PACK_HEADER_LEN, TAG_LEN};

fn index_of(snapshot: &Snapshot) -> BlobName {
    BlobName::index(&snapshot.name.writer, snapshot.session(), 0)
}

/// Puts an index that is authentic in the place of a snapshot's.
fn alter(world: &World, snapshot: &Snapshot, change: impl FnOnce(&mut Index)) -> BlobName {
    let repository = open(&world.store);
    let name = index_of(snapshot);
    let mut index = Index::open(repository.keys(), &name, &world.get(&name)).unwrap();
    change(&mut index);
    world.store.overwrite(&name, &index.seal(repository.keys(), &name, [5; 32]));
    name
}

/// The places of two entries of different packs.
fn two_entries(index: &Index) -> [usize; 2] {
    let other = index.entries.iter().position(|entry| entry.pack != index.entries[0].pack).unwrap();
    [0, other]
}

fn compressed(index: &mut Index) -> &mut IndexEntry {
    index.entries.iter_mut().find(|entry| entry.codec == Codec::Zstd).unwrap()
}

/// A change, and the number of entries that it makes wrong.
type Change = (fn(&mut Index), usize);

#[test]
fn an_index_that_says_something_else_than_a_pack_is_found_by_reading_data() {
    let changes: [Change; 6] = [
        (|index| index.entries[0].id.0[31] ^= 1, 1),
        (|index| compressed(index).offset -= 1, 1),
        (|index| compressed(index).stored_len -= 1, 1),
        (|index| compressed(index).plain_len -= 1, 1),
        (
            |index| {
                let entry = compressed(index);
                let tag_len = u32::try_from(TAG_LEN).unwrap();
                (entry.codec, entry.plain_len) = (Codec::Raw, entry.stored_len - tag_len);
            },
            1,
        ),
        (
            |index| {
                let [a, b] = two_entries(index);
                let ids = [index.entries[a].id, index.entries[b].id];
                index.entries.swap(a, b);
                (index.entries[a].id, index.entries[b].id) = (ids[0], ids[1]);
            },
            2,
        ),
    ];
    for (change, count) in changes {
        let world = world();
        let name = alter(&world, &world.first, change);
        assert_eq!(run(&world.store, false).findings, []);
        let report = run(&world.store, true);
        world.expect(&report, FindingKind::WrongIndex, &name, &[]);
        let detail = format!("{count} of its chunks are not where and what it says");
        expect_all(&report, &[(FindingKind::WrongIndex, name.to_string(), Vec::new(), &detail)]);
        assert!(report.has_damage());
    }
}

#[test]
fn an_index_that_gives_a_pack_another_length_is_found_by_its_maps() {
    for read_data in [false, true] {
        let world = world();
        let name = alter(&world, &world.first, |index| index.packs[1].len += 1);
        let report = run(&world.store, read_data);
        world.expect(&report, FindingKind::WrongIndex, &name, &[]);
        let detail = "1 of the packs that it lists have another length, by themselves and by maps";
        expect_all(&report, &[(FindingKind::WrongIndex, name.to_string(), Vec::new(), detail)]);
    }
}

#[test]
fn all_that_is_wrong_with_an_index_is_one_finding() {
    let world = world();
    let name = alter(&world, &world.first, |index| {
        index.packs[1].len += 1;
        index.entries.iter_mut().find(|entry| entry.pack == 0).unwrap().id.0[31] ^= 1;
    });
    let detail = "; 1 of its chunks are not where and what it says";
    let report = run(&world.store, true);
    expect_all(&report, &[(FindingKind::WrongIndex, name.to_string(), Vec::new(), detail)]);
}

#[test]
fn a_snapshot_that_a_wrong_index_led_astray_is_damaged_and_restores_no_wrong_bytes() {
    let world = world();
    let repository = open(&world.store);
    let name = alter(&world, &world.first, |index| {
        // The first frame of a pack cannot begin earlier.
        let is_behind = |entry: &&mut IndexEntry| entry.offset as usize > PACK_HEADER_LEN;
        index.entries.iter_mut().filter(is_behind).for_each(|entry| entry.offset -= 1);
    });
    let mut index = memory_index(&repository);
    sync(&mut index, &world.store, repository.keys(), &Preference::default(), &Quiet).unwrap();
    let disk = MemoryDisk::new(mixed(1, 900_001));
    back_up(&repository, &mut index, "astray", &[("disk0", &disk)], 9).unwrap();
    let astray = latest(&repository, "astray");
    restored(&repository, &astray, "disk0").unwrap_err();
    let report = run(&world.store, true);
    let wrong = report.findings.iter().find(|finding| finding.kind == FindingKind::WrongIndex).unwrap();
    assert_eq!((wrong.blob.as_str(), wrong.affected.as_slice()), (name.as_str(), &[][..]));
    let astray = astray.session().to_string();
    let led = report.findings.iter().filter(|finding| finding.kind == FindingKind::ContradictoryMap);
    assert!(led.flat_map(|finding| &finding.affected).all(|affected| affected.snapshot == astray));
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::ContradictoryMap));
}

#[test]
fn an_index_of_packs_that_are_gone_is_stale_and_not_wrong() {
    let world = world();
    let name = alter(&world, &world.first, |index| index.packs.last_mut().unwrap().name.number += 900);
    let report = run(&world.store, true);
    let missing = BlobName::index(&world.first.name.writer, world.first.session(), 1).to_string();
    expect_all(
        &report,
        &[
            (
                FindingKind::StaleIndex,
                name.to_string(),
                Vec::new(),
                "1 of the packs that it lists are not there",
            ),
            (FindingKind::MissingIndex, missing, Vec::new(), "1 packs of the snapshot"),
        ],
    );
}
