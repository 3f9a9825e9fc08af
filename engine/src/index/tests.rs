//! Tests of tables, merges, damage and sharing.

use super::layout::{BLOCK_LEN, Checks, Preamble, RECORDS_PER_BLOCK, VERSION};
use super::table::Table;
use super::{IndexError, LocalIndex, MAX_HITS, MERGED_MAX, Verdict};
use proptest::prelude::*;
use repo_format::{
    BlobName, ChunkId, Codec, DecisionName, Index, IndexEntry, Location, PackKind, PackName, PackRef,
    PayloadId, RepositoryId, SessionId, VmTag, WriterId,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(super) const REPOSITORY: RepositoryId = RepositoryId([7; 16]);
pub(super) const KEY: [u8; 32] = [9; 32];
const BUDGET: u64 = 1 << 30;

pub(super) fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

pub(super) fn writer() -> WriterId {
    WriterId::new("host-a").unwrap()
}

pub(super) fn blob(number: u8) -> BlobName {
    BlobName::index(&writer(), session(number), 0)
}

fn pack(session_number: u8, number: u32) -> PackRef {
    let name = PackName { kind: PackKind::Data, writer: writer(), session: session(session_number), number };
    PackRef { name, len: 1 << 20 }
}

fn decision(number: u8) -> DecisionName {
    DecisionName { vm: VmTag([1; 16]), writer: writer(), seq: u32::from(number), session: session(number) }
}

/// The ids `from..to` of an endless sequence of uniform ids.
pub(super) fn ids(from: u64, to: u64) -> Vec<ChunkId> {
    let mut bytes = blake3::Hasher::new().update(b"ids").finalize_xof();
    bytes.set_position(from * 32);
    (from..to)
        .map(|_| {
            let mut id = [0; 32];
            bytes.fill(&mut id);
            PayloadId(id)
        })
        .collect()
}

/// An index of one session that has `ids` in two packs.
pub(super) fn index_of(session_number: u8, ids: &[ChunkId]) -> Index {
    let mut entries: Vec<IndexEntry> = (0..)
        .zip(ids)
        .map(|(at, id)| {
            let raw = at % 3 == 0;
            IndexEntry {
                id: *id,
                codec: if raw { Codec::Raw } else { Codec::Zstd },
                pack: at % 2,
                offset: 176 + at % 1000,
                stored_len: if raw { 2016 + at % 1000 } else { 1000 + at % 50 },
                plain_len: 2000 + at % 1000,
            }
        })
        .collect();
    entries.sort_by_key(|entry| entry.id);
    let packs = (0..2).take(ids.len()).map(|number| pack(session_number, number)).collect();
    Index { sessions: vec![(session(session_number), decision(session_number))], packs, entries }
}

fn locations(index: &Index) -> Vec<Location> {
    let location = |entry: &IndexEntry| Location {
        pack: index.packs[usize::try_from(entry.pack).unwrap()].clone(),
        codec: entry.codec,
        offset: entry.offset,
        stored_len: entry.stored_len,
        plain_len: entry.plain_len,
        id: entry.id,
    };
    index.entries.iter().map(location).collect()
}

fn found(index: &LocalIndex, id: &ChunkId) -> Vec<Location> {
    index.lookup(id).into_iter().collect()
}

#[track_caller]
pub(super) fn assert_has(index: &LocalIndex, expected: &Index) {
    for location in locations(expected) {
        assert_eq!(found(index, &location.id), [location]);
    }
}

pub(super) fn in_memory() -> LocalIndex {
    LocalIndex::open(None, REPOSITORY, KEY, BUDGET).unwrap()
}

pub(super) fn in_directory(root: &TempDir) -> LocalIndex {
    LocalIndex::open(Some(root.path()), REPOSITORY, KEY, BUDGET).unwrap()
}

fn files(root: &TempDir) -> Vec<PathBuf> {
    let directory = fs::read_dir(root.path().join(REPOSITORY.to_string())).unwrap();
    let mut files: Vec<_> = directory.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

pub(super) fn only_file(root: &TempDir) -> PathBuf {
    let [file] = files(root).try_into().unwrap();
    file
}

/// The bytes of a table of `index`, and the table's parts.
fn table_bytes(index: &Index) -> (Vec<u8>, Preamble) {
    let root = TempDir::new().unwrap();
    in_directory(&root).add(&[blob(1)], index).unwrap();
    let bytes = fs::read(only_file(&root)).unwrap();
    let len = u64::try_from(bytes.len()).unwrap();
    let preamble = Preamble::parse(&bytes, len, &Checks::new(KEY, REPOSITORY)).unwrap();
    (bytes, preamble)
}

#[test]
fn what_was_added_is_found_and_nothing_else() {
    let known = index_of(1, &ids(0, 1000));
    for root in [None, Some(TempDir::new().unwrap())] {
        let mut index = LocalIndex::open(root.as_ref().map(TempDir::path), REPOSITORY, KEY, BUDGET).unwrap();
        index.add(&[blob(1)], &known).unwrap();
        assert_has(&index, &known);
        assert!(ids(1000, 2000).iter().all(|id| index.lookup(id).is_empty()));
        assert_eq!(index.covered(), BTreeSet::from([blob(1)]));
        assert_eq!(index.decision_of(session(1)), Some(&decision(1)));
        assert_eq!(index.decision_of(session(2)), None);
    }
}

#[test]
fn a_later_run_finds_what_an_earlier_one_added() {
    let root = TempDir::new().unwrap();
    let (first, second) = (index_of(1, &ids(0, 500)), index_of(2, &ids(500, 700)));
    let mut index = in_directory(&root);
    index.add(&[blob(1)], &first).unwrap();
    index.add(&[blob(2), blob(3)], &second).unwrap();
    drop(index);

    let index = in_directory(&root);
    assert_has(&index, &first);
    assert_has(&index, &second);
    assert_eq!(index.covered(), BTreeSet::from([blob(1), blob(2), blob(3)]));
    assert_eq!(index.decision_of(session(2)), Some(&decision(2)));
}

#[test]
fn an_index_without_entries_is_covered() {
    let root = TempDir::new().unwrap();
    in_directory(&root).add(&[blob(1)], &index_of(1, &[])).unwrap();
    let index = in_directory(&root);
    assert_eq!(index.covered(), BTreeSet::from([blob(1)]));
    assert!(index.lookup(&ids(0, 1)[0]).is_empty());
}

#[test]
fn of_several_places_the_newest_come_first_and_each_once() {
    let mut index = in_memory();
    let id = ids(0, 1);
    index.add(&[blob(1)], &index_of(1, &id)).unwrap();
    index.add(&[blob(2)], &index_of(2, &id)).unwrap();
    index.add(&[blob(3)], &index_of(1, &id)).unwrap();
    let expected = [locations(&index_of(1, &id)), locations(&index_of(2, &id))].concat();
    assert_eq!(found(&index, &id[0]), expected);

    // The fourth table makes them merge, and the order stays.
    index.add(&[blob(4)], &index_of(3, &id)).unwrap();
    assert_eq!(index.tables.len(), 1);
    assert_eq!(found(&index, &id[0]), [locations(&index_of(3, &id)), expected].concat());
}

#[test]
fn a_lookup_returns_a_bounded_number_of_places() {
    let mut index = in_memory();
    let id = ids(0, 1);
    for number in 1..=9 {
        index.add(&[blob(number)], &index_of(number, &id)).unwrap();
    }
    let newest: Vec<_> = (6..=9).rev().flat_map(|number| locations(&index_of(number, &id))).collect();
    assert_eq!(newest.len(), MAX_HITS);
    assert_eq!(found(&index, &id[0]), newest);
}

#[test]
fn merges_keep_few_tables_and_remove_their_inputs() {
    let root = TempDir::new().unwrap();
    let mut index = in_directory(&root);
    let parts: Vec<Index> =
        (0..40).map(|n| index_of(n, &ids(u64::from(n) * 100, u64::from(n) * 100 + 100))).collect();
    for (number, part) in (0..).zip(&parts) {
        index.add(&[blob(number)], part).unwrap();
    }
    assert!(index.tables.len() < 4);
    assert_eq!(files(&root).len(), index.tables.len());
    for index in [index, in_directory(&root)] {
        for part in &parts {
            assert_has(&index, part);
        }
        assert_eq!(index.covered(), (0..40).map(blob).collect());
        assert_eq!(index.entries(), 4000);
    }
}

#[test]
fn ids_that_are_not_uniform_are_found_too() {
    let counted: Vec<ChunkId> = (0..5000_u32)
        .map(|number| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&[1; 4]);
            id[4..8].copy_from_slice(&(number / 3).to_be_bytes());
            id[28..].copy_from_slice(&number.to_be_bytes());
            PayloadId(id)
        })
        .collect();
    let known = index_of(1, &counted);
    let mut index = in_memory();
    index.add(&[blob(1)], &known).unwrap();
    assert_has(&index, &known);
    assert!(index.lookup(&PayloadId([0; 32])).is_empty());
    assert!(index.lookup(&PayloadId([255; 32])).is_empty());
}

#[test]
fn entries_that_name_no_pack_are_left_out() {
    let mut known = index_of(1, &ids(0, 10));
    known.entries[3].pack = 2;
    let mut index = in_memory();
    index.add(&[blob(1)], &known).unwrap();
    assert!(index.lookup(&known.entries[3].id).is_empty());
    known.entries.remove(3);
    assert_has(&index, &known);
}

#[test]
fn a_million_entries_are_found() {
    let root = TempDir::new().unwrap();
    let mut index = in_directory(&root);
    let known = index_of(1, &ids(0, 1_000_000));
    index.add(&[blob(1)], &known).unwrap();
    let mut hits = 0;
    for (at, location) in locations(&known).iter().enumerate() {
        if at % 10 == 0 {
            hits += u32::from(index.lookup(&location.id).iter().eq([location]));
        }
    }
    assert_eq!(hits, 100_000);
    assert!(ids(1_000_000, 2_000_000).iter().all(|id| index.lookup(id).is_empty()));
}

#[test]
fn lookups_keep_little_more_than_two_bytes_an_entry_resident() {
    let root = TempDir::new().unwrap();
    let mut index = in_directory(&root);
    for number in 0..10_u8 {
        let first = u64::from(number) * 20_000;
        index.add(&[blob(number)], &index_of(number, &ids(first, first + 20_000))).unwrap();
    }
    for index in [index, in_directory(&root)] {
        assert_eq!(index.entries(), 200_000);
        // Each of the few tables has lists, and parts that are padded to 4 KiB.
        let lists = u64::try_from(index.tables.len()).unwrap() * 16_384;
        assert!(index.resident_max() < 200_000 * 22 / 10 + lists, "{} bytes", index.resident_max());
        assert!(index.len_bytes() > 200_000 * 49);
    }
}

#[test]
fn hardly_any_miss_reads_a_block() {
    let mut index = in_memory();
    index.add(&[blob(1)], &index_of(1, &ids(0, 200_000))).unwrap();
    let candidates = |id: &ChunkId| index.tables[0].candidates(id).len();
    assert!(ids(0, 1000).iter().all(|id| candidates(id) >= 1));
    let read = ids(200_000, 300_000).iter().filter(|id| candidates(id) > 0).count();
    assert!((1..400).contains(&read), "{read} of 100,000 misses read a block");
}

#[test]
fn a_merge_takes_a_bounded_number_of_tables() {
    let mut index = in_memory();
    let parts: Vec<Index> =
        (0..200).map(|n| index_of(n, &ids(u64::from(n) * 10, u64::from(n) * 10 + 10))).collect();
    for (number, part) in (0..).zip(&parts) {
        index.add_uncompacted(&[blob(number)], &[part]).unwrap();
    }
    let oldest: Vec<usize> = (200 - MERGED_MAX..200).collect();
    assert_eq!(index.full_class(), Some(oldest));
    index.compact().unwrap();
    assert_eq!(index.tables.len(), 1);
    for part in &parts {
        assert_has(&index, part);
    }
}

#[test]
fn no_changed_byte_of_a_table_gives_a_wrong_place() {
    let known = index_of(1, &ids(0, 150));
    let expected = locations(&known);
    let (bytes, preamble) = table_bytes(&known);
    let size = |number: u64| usize::try_from(number).unwrap();
    let unchecked = size(preamble.fence_offset())..size(preamble.blocks_offset);
    let blocks = size(preamble.blocks_offset)..bytes.len();
    assert_eq!(blocks.len(), 2 * BLOCK_LEN);
    for at in (0..unchecked.end).chain(blocks.clone().step_by(5)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let mut index = in_memory();
        let Ok(table) = Table::open_memory(damaged, &index.checks) else { continue };
        assert!(at + 8 >= unchecked.start, "byte {at} of the header was not checked");
        index.tables.push(table);
        let right = expected.iter().filter(|location| {
            let found = found(&index, &location.id);
            assert!(found.is_empty() || found == [(*location).clone()], "byte {at} gave a wrong place");
            !found.is_empty()
        });
        let right = right.count();
        // The table goes out of use when the block with the damage is met.
        assert_eq!(index.tables[0].is_damaged(), blocks.contains(&at), "byte {at}");
        assert!(right <= RECORDS_PER_BLOCK || !blocks.contains(&at), "byte {at}");
    }
}

#[test]
fn no_shortened_table_is_used() {
    let (bytes, _) = table_bytes(&index_of(1, &ids(0, 150)));
    let checks = Checks::new(KEY, REPOSITORY);
    for len in (0..bytes.len()).step_by(13).chain([bytes.len() - 1]) {
        assert!(Table::open_memory(bytes[..len].to_vec(), &checks).is_err());
    }
    assert!(Table::open_memory([&bytes[..], &[0]].concat(), &checks).is_err());
    assert!(Table::open_memory(bytes.clone(), &checks).is_ok());
    assert!(Table::open_memory(bytes, &Checks::new([8; 32], REPOSITORY)).is_err());
}

#[test]
fn a_table_with_a_damaged_header_is_removed_and_reported_once() {
    let root = TempDir::new().unwrap();
    in_directory(&root).add(&[blob(1)], &index_of(1, &ids(0, 100))).unwrap();
    let file = only_file(&root);
    damage(&file, 100);
    let mut index = in_directory(&root);
    assert_eq!(index.covered(), BTreeSet::new());
    assert_eq!(index.take_damaged(), std::slice::from_ref(&file));
    assert_eq!(index.take_damaged(), Vec::<PathBuf>::new());
    assert!(!file.exists());
}

#[test]
fn a_table_with_a_damaged_block_goes_at_the_first_hit() {
    let root = TempDir::new().unwrap();
    let known = index_of(1, &ids(0, 50));
    in_directory(&root).add(&[blob(1)], &known).unwrap();
    let file = only_file(&root);
    damage(&file, usize::try_from(fs::metadata(&file).unwrap().len()).unwrap() - 10);
    let mut index = in_directory(&root);
    assert_eq!(index.covered(), BTreeSet::from([blob(1)]));
    assert!(known.entries.iter().all(|entry| index.lookup(&entry.id).is_empty()));
    assert_eq!(index.covered(), BTreeSet::new());
    assert_eq!(index.take_damaged(), std::slice::from_ref(&file));
    assert!(!file.exists());

    index.add(&[blob(1)], &known).unwrap();
    assert_has(&index, &known);
}

#[test]
fn a_merge_leaves_a_damaged_table_out() {
    let root = TempDir::new().unwrap();
    in_directory(&root).add(&[blob(1)], &index_of(1, &ids(0, 50))).unwrap();
    let file = only_file(&root);
    damage(&file, usize::try_from(fs::metadata(&file).unwrap().len()).unwrap() - 10);
    let mut index = in_directory(&root);
    let parts: Vec<Index> =
        (2..6).map(|n| index_of(n, &ids(u64::from(n) * 100, u64::from(n) * 100 + 100))).collect();
    for (number, part) in (2..).zip(&parts) {
        index.add(&[blob(number)], part).unwrap();
    }
    for part in &parts {
        assert_has(&index, part);
    }
    assert_eq!(index.covered(), (2..6).map(blob).collect());
    assert_eq!(index.take_damaged(), [file]);
}

pub(super) fn damage(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_directory_deleted_underneath_is_made_again() {
    let root = TempDir::new().unwrap();
    let (first, second) = (index_of(1, &ids(0, 500)), index_of(2, &ids(500, 700)));
    let mut index = in_directory(&root);
    index.add(&[blob(1)], &first).unwrap();
    fs::remove_dir_all(root.path()).unwrap();
    assert_has(&index, &first);
    index.add(&[blob(2)], &second).unwrap();
    index.remember_verdict(session(1), Verdict::Commit).unwrap();
    assert_has(&index, &first);
    assert_has(&index, &second);
    drop(index);
    let index = in_directory(&root);
    assert_has(&index, &second);
    assert_eq!(index.covered(), BTreeSet::from([blob(2)]));
    assert_eq!(index.verdict(session(1)), Some(Verdict::Commit));
}

#[test]
fn concurrent_runs_share_a_directory() {
    let root = TempDir::new().unwrap();
    let parts: Vec<Index> =
        (0..12).map(|n| index_of(n, &ids(u64::from(n) * 300, u64::from(n) * 300 + 300))).collect();
    std::thread::scope(|scope| {
        for run in 0..4_usize {
            let (root, parts) = (&root, &parts);
            scope.spawn(move || {
                let mut index = in_directory(root);
                // Runs overlap: each part is added by two of them.
                for (number, part) in
                    (0_u8..).zip(parts).filter(|(number, _)| usize::from(*number) % 4 / 2 == run / 2)
                {
                    index.add(&[blob(number)], part).unwrap();
                    assert_has(&index, part);
                }
            });
        }
    });
    let index = in_directory(&root);
    for (number, part) in (0..).zip(&parts) {
        if index.covered().contains(&blob(number)) {
            assert_has(&index, part);
        }
    }
    assert!(files(&root).iter().all(|file| file.to_string_lossy().contains(".table-")));
}

#[test]
fn tables_that_another_one_covers_are_removed() {
    let root = TempDir::new().unwrap();
    let (small, large) = (index_of(1, &ids(0, 100)), index_of(1, &ids(0, 300)));
    in_directory(&root).add(&[blob(1)], &small).unwrap();
    in_directory(&root).add(&[blob(1), blob(2)], &large).unwrap();
    assert_eq!(files(&root).len(), 2);
    let index = in_directory(&root);
    assert_has(&index, &large);
    only_file(&root);
}

#[test]
fn what_others_put_into_the_directory_is_left_alone() {
    let root = TempDir::new().unwrap();
    let directory = root.path().join(REPOSITORY.to_string());
    fs::create_dir_all(directory.join(format!("0.table-{VERSION}"))).unwrap();
    fs::write(directory.join(format!("1.table-{}", VERSION + 1)), "newer").unwrap();
    fs::write(directory.join("1.table-first"), "theirs").unwrap();
    fs::write(directory.join("notes"), "mine").unwrap();
    let before = files(&root);
    let mut index = in_directory(&root);
    assert_eq!(index.take_damaged(), Vec::<PathBuf>::new());
    assert_eq!(files(&root), before);
}

#[test]
fn tables_of_earlier_versions_are_removed() {
    let root = TempDir::new().unwrap();
    let directory = root.path().join(REPOSITORY.to_string());
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("1.table-{}", VERSION - 1)), "older").unwrap();
    let mut index = in_directory(&root);
    assert_eq!(files(&root), Vec::<PathBuf>::new());
    assert_eq!(index.take_damaged(), Vec::<PathBuf>::new());
}

#[test]
fn what_a_crashed_run_left_unfinished_is_removed() {
    let root = TempDir::new().unwrap();
    let directory = root.path().join(REPOSITORY.to_string());
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("tmp-0"), "half a table").unwrap();
    in_directory(&root);
    assert_eq!(files(&root), Vec::<PathBuf>::new());
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let root = TempDir::new().unwrap();
    let path = root.path().join("file");
    fs::write(&path, "").unwrap();
    let Err(error) = LocalIndex::open(Some(&path), REPOSITORY, KEY, BUDGET) else {
        panic!("a file is no directory")
    };
    assert!(
        matches!(&error, IndexError::Directory { path: named, .. } if *named == path.join(REPOSITORY.to_string()))
    );
}

#[cfg(unix)]
#[test]
fn the_directory_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let root = TempDir::new().unwrap();
    in_directory(&root).add(&[blob(1)], &index_of(1, &ids(0, 1))).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root.path().join(REPOSITORY.to_string())), 0o700);
    assert_eq!(mode(&only_file(&root)), 0o600);
}

#[test]
fn verdicts_are_remembered_and_damaged_ones_forgotten() {
    let root = TempDir::new().unwrap();
    let mut index = in_directory(&root);
    for number in 0..10 {
        let verdict = if number % 2 == 0 { Verdict::Commit } else { Verdict::Abort };
        index.remember_verdict(session(number), verdict).unwrap();
        index.remember_verdict(session(number), Verdict::Commit).unwrap();
    }
    let file = only_file(&root);
    damage(&file, 33 * 4 + 16);
    let mut torn = fs::read(&file).unwrap();
    torn.truncate(33 * 9 + 20);
    fs::write(&file, torn).unwrap();

    for _ in 0..2 {
        let index = in_directory(&root);
        let verdicts: Vec<_> = (0..11).map(|number| index.verdict(session(number))).collect();
        let (commit, abort) = (Some(Verdict::Commit), Some(Verdict::Abort));
        assert_eq!(verdicts, [commit, abort, commit, abort, None, abort, commit, abort, commit, None, None]);
    }
    assert_eq!(fs::metadata(&file).unwrap().len(), 33 * 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn lookups_agree_with_a_plain_list(
        parts in prop::collection::vec(prop::collection::btree_set(0_u64..40, 0..30), 1..14),
    ) {
        let mut index = in_memory();
        let mut known: Vec<Location> = Vec::new();
        for (number, part) in (0..).zip(&parts) {
            let ids: Vec<ChunkId> = part.iter().flat_map(|&at| ids(at, at + 1)).collect();
            let part = index_of(number % 3, &ids);
            index.add(&[blob(number)], &part).unwrap();
            known.extend(locations(&part));
        }
        for id in ids(0, 41) {
            let mut expected: Vec<&Location> = Vec::new();
            for location in known.iter().filter(|location| location.id == id) {
                if !expected.contains(&location) {
                    expected.push(location);
                }
            }
            let found = found(&index, &id);
            prop_assert_eq!(found.len(), expected.len().min(MAX_HITS));
            prop_assert!(found.iter().all(|location| expected.contains(&location)));
        }
    }
}
