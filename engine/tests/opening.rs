//! Making and opening repositories.

mod world;

use keepstone_engine::repository::slots;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{BlobStore, MemoryStore, RecordingStore};
use keepstone_engine::{EngineError, Repository};
use repo_format::BlobName;
use world::{PASSWORD, back_up, create, create_from_seed, memory_index, open, small_geometry, try_create};

#[test]
fn a_creation_that_was_interrupted_can_be_repeated() {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    store.delete(&BlobName::config()).unwrap();
    create_from_seed(&store, small_geometry(), [2; 32]).unwrap();
    open(&store);
    let names: Vec<String> =
        slots(&store).unwrap().slots.iter().map(|slot| slot.name.as_str().to_owned()).collect();
    assert_eq!(names, ["first-2"]);
}

#[test]
fn nothing_is_created_over_the_remains_of_a_repository() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let disk = MemoryDisk::new(vec![1; 1000]);
    back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    store.delete(&BlobName::config()).unwrap();
    let created = try_create(&store, small_geometry());
    assert!(matches!(created, Err(EngineError::ConfigMissing { .. })));
    let opened = Repository::open(&store, PASSWORD);
    assert!(matches!(opened, Err(EngineError::ConfigMissing { .. })));
}

#[test]
fn a_damaged_key_slot_does_not_lock_out_the_others() {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    let bad = BlobName::parse("keys/bad").unwrap();
    store.put_new(&bad, b"{").unwrap();
    open(&store);
    let found = slots(&store).unwrap();
    assert_eq!(found.slots.len(), 1);
    assert_eq!(found.unreadable.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&bad]);
    let wrong = Repository::open(&store, b"wrong");
    assert!(matches!(wrong, Err(EngineError::WrongPassword { slots: 1, damaged: 1 })));
}

#[test]
fn a_config_longer_than_its_limit_is_not_read_whole() {
    let store = RecordingStore::new(MemoryStore::new());
    store.put_new(&BlobName::config(), &vec![b' '; 10 << 20]).unwrap();
    assert!(matches!(Repository::open(&store, PASSWORD), Err(EngineError::Damaged { .. })));
    assert!(store.requests().get_bytes < 100_000, "{:?}", store.requests());
}
