//! Making indexes again from packs.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod world;

use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::repair::{RepairJob, RepairMode, RepairReport, repair_index};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, Entropy, Repository};
use repo_format::{BlobKind, BlobName, Index, PackKind};
use world::{
    NOW, back_up, create, latest, memory_index, mixed, noise, open, restored, small_geometry, undamaged,
};

/// Two VMs with some packs each.
fn world() -> MemoryStore {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut index = memory_index(&repository);
    let disk = MemoryDisk::new(mixed(1, 900_001));
    back_up(&repository, &mut index, "vm", &[("disk0", &disk)], 1).unwrap();
    let disk = MemoryDisk::new(noise(3, 200_000));
    back_up(&repository, &mut index, "other", &[("disk0", &disk)], 2).unwrap();
    store
}

fn repair(repository: &Repository<'_>, run: u8, mode: RepairMode) -> RepairReport {
    let job = RepairJob {
        writer: &world::writer(),
        mode,
        time: NOW,
        program: "test",
        entropy: Entropy::new([run; 32]),
    };
    repair_index(repository, &job, &Quiet).unwrap()
}

fn indexes(store: &MemoryStore) -> Vec<BlobName> {
    let is_index = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Index { .. }));
    store.names().into_iter().filter(is_index).collect()
}

fn data_packs(store: &MemoryStore) -> Vec<BlobName> {
    let is_data =
        |name: &BlobName| matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Data);
    store.names().into_iter().filter(is_data).collect()
}

fn findings(store: &MemoryStore) -> Vec<FindingKind> {
    findings_of(store, ReadData::Nothing)
}

fn findings_of(store: &MemoryStore, read_data: ReadData) -> Vec<FindingKind> {
    let job = VerifyJob::everything(read_data, NOW);
    let report = verify(&open(store), &job, &Quiet).unwrap();
    report.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn after_all_indexes_are_lost_deduplication_finds_every_chunk_again() {
    let store = world();
    let repository = open(&store);
    for name in indexes(&store) {
        store.delete(&name).unwrap();
    }
    assert_eq!(findings(&store), [FindingKind::MissingIndex; 2]);
    let before = store.names();
    let packs = data_packs(&store).len() as u64;
    let planned = repair(&repository, 20, RepairMode::DryRun);
    assert_eq!(store.names(), before);
    let done = repair(&repository, 20, RepairMode::Write);
    assert_eq!((done.packs, done.listed, done.indexes.len()), (packs, packs, 1));
    assert_eq!(RepairReport { indexes: Vec::new(), ..done }, planned);
    assert_eq!(findings(&store), []);

    let mut index = memory_index(&repository);
    sync(&mut index, &store, repository.keys(), &Preference::default(), &Quiet).unwrap();
    let disk = MemoryDisk::new(mixed(1, 900_001));
    let report = back_up(&repository, &mut index, "third", &[("disk0", &disk)], 3).unwrap();
    assert_eq!((report.new_chunks, report.new_bytes), (0, 0));
    let snapshot = latest(&repository, "third");
    assert_eq!(restored(&repository, &snapshot, "disk0").unwrap(), disk.bytes);
    undamaged(&repository);
}

#[test]
fn a_second_repair_does_nothing() {
    let store = world();
    let repository = open(&store);
    assert_eq!(repair(&repository, 20, RepairMode::Write), RepairReport::default());
    store.delete(&indexes(&store)[0]).unwrap();
    assert!(repair(&repository, 20, RepairMode::Write).listed > 0);
    let before = store.names();
    assert_eq!(repair(&repository, 21, RepairMode::Write), RepairReport::default());
    assert_eq!(store.names(), before);
}

#[test]
fn packs_with_the_same_chunks_are_all_listed() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let disk = MemoryDisk::new(noise(3, 200_000));
    for (run, vm) in [(1, "a"), (2, "b"), (3, "c")] {
        // Each time with an index that knows nothing.
        back_up(&repository, &mut memory_index(&repository), vm, &[("disk0", &disk)], run).unwrap();
    }
    for name in indexes(&store) {
        store.delete(&name).unwrap();
    }
    let done = repair(&repository, 20, RepairMode::Write);
    assert_eq!((done.listed, done.indexes.len()), (data_packs(&store).len() as u64, 3));
    assert_eq!(repair(&repository, 21, RepairMode::Write), RepairReport::default());
    undamaged(&repository);
}

#[test]
fn a_damaged_index_stays_and_is_missed_no_more() {
    let store = world();
    let repository = open(&store);
    let name = indexes(&store)[0].clone();
    let mut bytes = store.get(&name, None).unwrap();
    bytes[100] ^= 1;
    store.overwrite(&name, &bytes);
    let done = repair(&repository, 20, RepairMode::Write);
    assert_eq!(done.unreadable_indexes.iter().map(|index| &*index.blob).collect::<Vec<_>>(), [name.as_str()]);
    assert!(done.listed > 0 && !done.has_damage());
    assert_eq!(store.get(&name, None).unwrap(), bytes);
    let report = verify(&repository, &VerifyJob::everything(ReadData::Nothing, NOW), &Quiet).unwrap();
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
    assert_eq!((finding.kind, &*finding.blob), (FindingKind::DamagedIndex, name.as_str()));
    assert!(finding.detail.contains("nothing needs it any more"), "{}", finding.detail);
}

#[test]
fn a_pack_whose_directory_is_damaged_is_named_and_not_listed() {
    let store = world();
    let repository = open(&store);
    for name in indexes(&store) {
        store.delete(&name).unwrap();
    }
    let name = data_packs(&store)[0].clone();
    let mut bytes = store.get(&name, None).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    store.overwrite(&name, &bytes);
    let done = repair(&repository, 20, RepairMode::Write);
    assert_eq!(done.unreadable_packs.iter().map(|pack| &*pack.blob).collect::<Vec<_>>(), [name.as_str()]);
    assert_eq!((done.has_damage(), done.listed), (true, done.packs - 1));
}

#[test]
fn packs_of_a_session_without_a_decision_are_not_listed() {
    let store = world();
    let repository = open(&store);
    store.delete(&latest(&repository, "other").name.blob()).unwrap();
    for name in indexes(&store) {
        store.delete(&name).unwrap();
    }
    let done = repair(&repository, 20, RepairMode::Write);
    assert!(done.listed > 0 && done.listed < data_packs(&store).len() as u64, "{done:?}");
    assert_eq!(findings(&store), [FindingKind::UndecidedSession]);
}

/// Puts an authentic index in the place of the first one.
fn alter(store: &MemoryStore, change: impl FnOnce(&mut Index)) -> BlobName {
    let repository = open(store);
    let name = indexes(store)[0].clone();
    let mut index = Index::open(repository.keys(), &name, &store.get(&name, None).unwrap()).unwrap();
    change(&mut index);
    store.overwrite(&name, &index.seal(repository.keys(), &name, [5; 32]));
    name
}

#[test]
fn a_wrong_index_stays_and_its_packs_are_listed_again_once_it_is_moved_away() {
    let store = world();
    let repository = open(&store);
    let name = alter(&store, |index| index.entries[0].id.0[31] ^= 1);
    assert_eq!(findings_of(&store, ReadData::Everything), [FindingKind::WrongIndex]);
    assert_eq!(repair(&repository, 20, RepairMode::Write), RepairReport::default());
    assert_eq!(findings_of(&store, ReadData::Everything), [FindingKind::WrongIndex]);
    store.delete(&name).unwrap();
    assert!(repair(&repository, 21, RepairMode::Write).listed > 0);
    assert_eq!(findings_of(&store, ReadData::Everything), []);
    assert_eq!(repair(&repository, 22, RepairMode::Write), RepairReport::default());
}

#[test]
fn a_pack_with_another_length_in_an_index_is_listed_again_once() {
    let store = world();
    let repository = open(&store);
    let name = alter(&store, |index| index.packs[0].len += 1);
    let bytes = store.get(&name, None).unwrap();
    let done = repair(&repository, 20, RepairMode::Write);
    assert_eq!((done.packs, done.listed, done.indexes.len()), (1, 1, 1));
    assert_eq!(repair(&repository, 21, RepairMode::Write), RepairReport::default());
    assert_eq!(store.get(&name, None).unwrap(), bytes);
    // What the new index lists need not be listed again when the wrong one is gone.
    assert_eq!(findings(&store), [FindingKind::WrongIndex]);
    let listed = Index::open(repository.keys(), &name, &bytes).unwrap().packs.len() as u64;
    store.delete(&name).unwrap();
    assert_eq!(repair(&repository, 22, RepairMode::Write).listed, listed - 1);
    assert_eq!(findings_of(&store, ReadData::Everything), []);
}
