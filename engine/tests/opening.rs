//! Making and opening repositories.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod world;

use keepstone_engine::repository::{NewSlot, add_slot, remove_slot, slots, unlock_retention};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{BlobStore, MemoryStore, RecordingStore};
use keepstone_engine::{EngineError, Entropy, Repository};
use repo_format::{
    BlobName, FormatError, RetentionKey, RootKey, SlotInfo, SlotKey, SlotKind, SlotName, seal_slot,
};
use world::watched::{Call, Watched};
use world::{
    NOW, PASSWORD, back_up, cheap_kdf, create, create_from_seed, memory_index, open, small_geometry,
    try_create,
};

#[test]
fn a_creation_that_was_interrupted_can_be_repeated() {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    store.delete(&BlobName::config()).unwrap();
    create_from_seed(&store, small_geometry(), [2; 32]).unwrap();
    open(&store);
    let names: Vec<String> =
        slots(&store).unwrap().slots.iter().map(|slot| slot.name.as_str().to_owned()).collect();
    assert_eq!(names, ["first-2", "retention-2"]);
}

#[test]
fn a_repository_that_is_made_while_it_is_looked_for_is_found() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let disk = MemoryDisk::new(vec![1; 1000]);
    back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    let config = store.get(&BlobName::config(), None).unwrap();
    store.delete(&BlobName::config()).unwrap();
    let meanwhile = |call: Call<'_>| {
        if matches!(call, Call::List("r/")) {
            store.put_new(&BlobName::config(), &config).unwrap();
        }
    };
    open(&Watched::new(&store, meanwhile));
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
    assert_eq!(found.slots.len(), 2);
    assert_eq!(found.unreadable.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&bad]);
    let wrong = Repository::open(&store, b"wrong");
    assert!(matches!(wrong, Err(EngineError::WrongPassword { slots: 1, damaged: 1 })));
}

/// A repository with so many more key slots, of another password, whose names come before the one that opens.
fn with_other_slots(count: u8) -> MemoryStore {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    for number in 0..count {
        let name = SlotName::new(&format!("a{number:03}")).expect("a slot name");
        let slot = NewSlot { name: &name, label: "", password: b"other", kdf: cheap_kdf(), time: NOW };
        add_slot(&store, PASSWORD, SlotKind::Root, &slot, &Entropy::new([number; 32]))
            .expect("the name is free");
    }
    store
}

#[test]
fn the_64th_key_slot_is_tried_and_those_that_are_rejected_do_not_count() {
    let store = with_other_slots(63);
    let other = MemoryStore::new();
    create_from_seed(&other, small_geometry(), [2; 32]).unwrap();
    let of_another_repository = other.get(&BlobName::parse("keys/first").unwrap(), None).unwrap();
    for number in 0..35 {
        let name = |what: &str| BlobName::parse(&format!("keys/0-{what}-{number}")).unwrap();
        store.put_new(&name("damaged"), b"{").unwrap();
        store.put_new(&name("foreign"), &of_another_repository).unwrap();
    }
    open(&store);
    let found = slots(&store).unwrap();
    assert_eq!((found.slots.len(), found.unreadable.len(), found.untried), (65, 70, vec![]));
}

#[test]
fn the_65th_key_slot_is_not_tried_and_opening_says_so() {
    let store = with_other_slots(63);
    let name = SlotName::new("a064").unwrap();
    let slot = NewSlot { name: &name, label: "", password: b"other", kdf: cheap_kdf(), time: NOW };
    add_slot(&store, PASSWORD, SlotKind::Root, &slot, &Entropy::new([64; 32])).unwrap();
    let opened = Repository::open(&store, PASSWORD);
    assert!(matches!(opened, Err(EngineError::TooManySlots { tried: 64, untried: 1 })));
    assert_eq!(slots(&store).unwrap().untried, [BlobName::parse("keys/first").unwrap()]);
    assert!(Repository::open(&store, b"other").is_ok());
}

#[test]
fn key_slots_of_other_kinds_crowd_out_none() {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    let retention = unlock_retention(&open(&store), PASSWORD).unwrap();
    for number in 0..70 {
        let name = SlotName::new(&format!("a{number:03}")).unwrap();
        let repository = open(&store).config().repository;
        let (kind, label) = (SlotKind::Retention, String::new());
        let info =
            SlotInfo { name, repository, kind, label, created: NOW, kdf: cheap_kdf(), salt: [number; 32] };
        let slot = seal_slot(&info, b"other", &SlotKey::Retention(retention.clone())).unwrap();
        store.put_new(&BlobName::key_slot(&info.name), &slot).unwrap();
    }
    open(&store);
    assert_eq!(slots(&store).unwrap().untried.len(), 7);
    assert!(matches!(
        Repository::open(&store, b"wrong"),
        Err(EngineError::WrongPassword { slots: 1, damaged: 0 })
    ));
}

/// Adds a slot of that kind.
fn add(store: &MemoryStore, kind: SlotKind, name: &str, password: &[u8]) {
    let name = SlotName::new(name).unwrap();
    let slot = NewSlot { name: &name, label: "", password, kdf: cheap_kdf(), time: NOW };
    let seed = *blake3::hash(name.as_str().as_bytes()).as_bytes();
    add_slot(store, PASSWORD, kind, &slot, &Entropy::new(seed)).unwrap();
}

#[test]
fn each_password_opens_what_its_slots_are_for() {
    let store = MemoryStore::new();
    let public = create(&store, small_geometry()).config().retention_public_key;
    for (kind, password) in [
        (SlotKind::Root, b"all".as_slice()),
        (SlotKind::Inventory, b"names"),
        (SlotKind::Retention, b"forget"),
    ] {
        add(&store, kind, &format!("a-{}", kind.as_str()), password);
    }
    let opened = |password: &[u8]| Repository::open(&store, password);
    assert!(opened(b"all").unwrap().keys().can_read_data());
    let inventory = opened(b"names").unwrap();
    assert!(matches!(inventory.data_keys(), Err(EngineError::NoDataKey)));
    assert_eq!(inventory.config(), opened(b"all").unwrap().config());
    assert!(matches!(opened(b"forget"), Err(EngineError::WrongPassword { slots: 3, damaged: 0 })));

    assert_eq!(unlock_retention(&inventory, b"forget").unwrap().public(), public);
    for password in [b"all".as_slice(), b"names"] {
        let refused = unlock_retention(&inventory, password);
        assert!(matches!(refused, Err(EngineError::WrongRetentionPassword { slots: 2, damaged: 0 })));
    }
}

#[test]
fn a_slot_is_added_with_a_password_that_gives_its_key_already() {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    add(&store, SlotKind::Root, "all", b"all");
    add(&store, SlotKind::Inventory, "names", b"names");
    add(&store, SlotKind::Retention, "forgets", b"forget");
    let name = SlotName::new("new").unwrap();
    let slot = NewSlot { name: &name, label: "", password: b"new", kdf: cheap_kdf(), time: NOW };
    let add_with = |password: &[u8], kind| add_slot(&store, password, kind, &slot, &Entropy::new([9; 32]));
    for (password, kind) in [
        (b"all".as_slice(), SlotKind::Retention),
        (b"names", SlotKind::Retention),
        (b"names", SlotKind::Root),
        (b"names", SlotKind::Inventory),
        (b"forget", SlotKind::Root),
        (b"forget", SlotKind::Inventory),
    ] {
        assert!(add_with(password, kind).is_err(), "{kind:?}");
    }
    add_with(b"forget", SlotKind::Retention).unwrap();
    unlock_retention(&open(&store), b"new").unwrap();
}

#[test]
fn the_last_root_slot_and_the_last_retention_slot_stay() {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    add(&store, SlotKind::Inventory, "names", b"names");
    let remove = |name: &str| remove_slot(&store, &SlotName::new(name).unwrap());
    for (name, last) in [("first", SlotKind::Root), ("retention", SlotKind::Retention)] {
        assert!(matches!(remove(name), Err(EngineError::LastSlot { kind, .. }) if kind == last), "{name}");
    }
    add(&store, SlotKind::Root, "all", b"all");
    add(&store, SlotKind::Retention, "forgets", b"forget");
    for name in ["first", "retention", "names"] {
        remove(name).unwrap();
    }
    assert_eq!(slots(&store).unwrap().slots.len(), 2);
    for (name, last) in [("all", SlotKind::Root), ("forgets", SlotKind::Retention)] {
        assert!(matches!(remove(name), Err(EngineError::LastSlot { kind, .. }) if kind == last), "{name}");
    }
}

#[test]
fn a_planted_mark_of_a_replica_keeps_no_slot_from_being_removed() {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    add(&store, SlotKind::Root, "stolen", b"stolen");
    store.put_new(&BlobName::replica_marker(), b"planted").unwrap();
    remove_slot(&store, &SlotName::new("stolen").unwrap()).unwrap();
    assert!(matches!(Repository::open(&store, b"stolen"), Err(EngineError::WrongPassword { .. })));
}

#[test]
fn a_retention_slot_of_another_key_opens_nothing_and_locks_out_no_other() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry()).config().repository;
    let info = SlotInfo {
        name: SlotName::new("a").unwrap(),
        repository,
        kind: SlotKind::Retention,
        label: String::new(),
        created: NOW,
        kdf: cheap_kdf(),
        salt: [4; 32],
    };
    let planted = seal_slot(&info, PASSWORD, &SlotKey::Retention(RetentionKey::new([3; 32]))).unwrap();
    store.put_new(&BlobName::key_slot(&info.name), &planted).unwrap();
    let opened = open(&store);
    let public = unlock_retention(&opened, PASSWORD).unwrap().public();
    assert_eq!(public, opened.config().retention_public_key);
    store.delete(&BlobName::parse("keys/retention").unwrap()).unwrap();
    let alone = unlock_retention(&opened, PASSWORD);
    assert!(matches!(alone, Err(EngineError::Damaged { source: FormatError::BadValue(_), .. })));
}

#[test]
fn a_key_slot_of_another_root_key_locks_out_no_other_and_opens_nothing_alone() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry()).config().repository;
    let (name, label) = (SlotName::new("a").unwrap(), String::new());
    let info = SlotInfo {
        name,
        repository,
        kind: SlotKind::Root,
        label,
        created: NOW,
        kdf: cheap_kdf(),
        salt: [4; 32],
    };
    let planted = seal_slot(&info, PASSWORD, &SlotKey::Root(RootKey::new([3; 32]))).unwrap();
    store.put_new(&BlobName::key_slot(&info.name), &planted).unwrap();
    open(&store);
    store.delete(&BlobName::parse("keys/first").unwrap()).unwrap();
    let opened = Repository::open(&store, PASSWORD);
    assert!(matches!(opened, Err(EngineError::Damaged { source: FormatError::MacMismatch, .. })));
}

#[test]
fn a_config_longer_than_its_limit_is_not_read_whole() {
    let store = RecordingStore::new(MemoryStore::new());
    store.put_new(&BlobName::config(), &vec![b' '; 10 << 20]).unwrap();
    assert!(matches!(Repository::open(&store, PASSWORD), Err(EngineError::Damaged { .. })));
    assert!(store.requests().get_bytes < 100_000, "{:?}", store.requests());
}

#[test]
fn a_repository_is_opened_at_another_place_by_the_same_keys_and_the_very_same_config() {
    let (here, there) = (MemoryStore::new(), MemoryStore::new());
    let repository = create(&here, small_geometry());
    let config = here.get(&BlobName::config(), None).unwrap();
    assert!(matches!(repository.at(&there), Err(EngineError::NotARepository)));
    there.put_new(&BlobName::config(), &config).unwrap();
    // No key slot is there, and none is needed.
    let other = repository.at(&there).unwrap();
    assert_eq!(other.config(), repository.config());
    let disk = MemoryDisk::new(vec![1; 1000]);
    back_up(&other, &mut memory_index(&other), "vm", &[("disk0", &disk)], 1).unwrap();
    assert!(here.list("r/", None, 1).unwrap().blobs.is_empty());
    there.delete(&BlobName::config()).unwrap();
    assert!(matches!(repository.at(&there), Err(EngineError::ConfigMissing { .. })));
}

#[test]
fn another_or_a_changed_config_at_another_place_is_refused() {
    let (here, there) = (MemoryStore::new(), MemoryStore::new());
    let repository = create(&here, small_geometry());
    create_from_seed(&there, small_geometry(), [2; 32]).unwrap();
    assert!(matches!(repository.at(&there), Err(EngineError::OtherRepository { .. })));
    let config = String::from_utf8(here.get(&BlobName::config(), None).unwrap()).unwrap();
    for changed in [format!("{config} "), config.replace("65536", "131072"), "{}".to_owned()] {
        let there = MemoryStore::new();
        there.put_new(&BlobName::config(), changed.as_bytes()).unwrap();
        let refused = repository.at(&there).err();
        assert!(matches!(refused, Some(EngineError::Damaged { .. })), "{changed}: {refused:?}");
    }
}
