//! What a backup host can do that may read, create and list: everything but to change or delete.

use crate::service::{container, key, open, settings};
use crate::world;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::azure::{AzureStore, Credential, Secret, ServiceError};
use keepstone_engine::store::{BlobStore, Put, StoreError};
use keepstone_peers::azurite::{Azurite, PRIMARY};
use repo_format::BlobName;
use std::time::{Duration, SystemTime};

fn sas(container: &str, permissions: &str, expiry: SystemTime) -> Credential {
    Credential::Sas(Secret::new(PRIMARY.container_sas(container, permissions, expiry)))
}

/// The year 2100.
fn valid() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(1_139_568)
}

/// The year 2000.
fn past() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(262_968)
}

fn name(text: &str) -> BlobName {
    BlobName::parse(text).expect("a blob name")
}

/// What a backup host has: it may read, create and list.
pub fn read_create_list(container: &str) -> Credential {
    sas(container, "rcl", valid())
}

fn writer_store(container: &str) -> AzureStore {
    open(settings(container, read_create_list(container)))
}

fn forbidden<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Service { source: ServiceError::Forbidden { .. }, .. }))
}

#[test]
fn who_may_read_create_and_list_backs_up_restores_and_verifies() {
    let container = container();
    let store = writer_store(&container);
    let repository = world::create(&store, world::small_geometry());
    let mut disk = world::mixed(1, 300_000);
    let mut index = world::memory_index(&repository);
    let first = MemoryDisk::new(disk.clone());
    world::back_up(&repository, &mut index, "vm", &[("disk", &first)], 1).expect("the first backup");
    disk[100_000..120_000].copy_from_slice(&world::noise(2, 20_000));
    let second = MemoryDisk::new(disk.clone());
    world::back_up(&repository, &mut index, "vm", &[("disk", &second)], 2).expect("the second backup");
    let snapshot = world::latest(&repository, "vm");
    assert_eq!(world::restored(&repository, &snapshot, "disk").expect("it is restored"), disk);
    world::undamaged(&repository);
}

#[test]
fn who_may_not_write_or_delete_can_neither_overwrite_nor_delete() {
    let container = container();
    let store = writer_store(&container);
    assert_eq!(store.put_new(&name("config"), b"first").unwrap(), Put::Created);
    assert_eq!(store.put_new(&name("config"), b"other").unwrap(), Put::Different);
    assert_eq!(store.put_new(&name("config"), b"first").unwrap(), Put::Identical);
    assert!(forbidden(&store.delete(&name("config"))), "a delete was not refused");
    // The same with plain requests, which ask for no condition.
    let signed = PRIMARY.container_sas(&container, "rcl", valid());
    let url = format!("{}/{container}/config?{signed}", Azurite::shared().endpoint(&PRIMARY));
    let overwritten = keepstone_peers::http::send("PUT", &url, &[("x-ms-blob-type", "BlockBlob")], b"other");
    assert_eq!(overwritten.status, 403);
    assert_eq!(keepstone_peers::http::send("DELETE", &url, &[], &[]).status, 403);
    assert_eq!(open(settings(&container, key())).get(&name("config"), None).unwrap(), b"first");
}

#[test]
fn what_is_not_allowed_is_told_as_that() {
    let container = container();
    let reader = open(settings(&container, sas(&container, "rl", valid())));
    assert!(forbidden(&reader.put_new(&name("config"), b"bytes")));
    let stranger = PRIMARY.container_sas("another", "rcl", valid());
    let stranger = open(settings(&container, Credential::Sas(Secret::new(stranger))));
    assert!(forbidden(&stranger.get(&name("config"), None)));
    let nowhere = open(settings("no-such-container", key()));
    for refused in [
        nowhere.get(&name("config"), None).unwrap_err(),
        nowhere.put_new(&name("config"), b"bytes").unwrap_err(),
        nowhere.list("", None, 1).unwrap_err(),
    ] {
        let StoreError::Service { source, .. } = &refused else { panic!("{refused:?}") };
        assert!(matches!(source, ServiceError::NoContainer { .. }), "{refused:?}");
    }
}

#[test]
fn an_expired_sas_is_told_with_its_time_and_a_renewed_file_is_read_again() {
    let container = container();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sas");
    std::fs::write(&file, PRIMARY.container_sas(&container, "rcl", past())).unwrap();
    let store = open(settings(&container, Credential::SasFile(file.clone())));
    let refused = store.put_new(&name("config"), b"bytes").unwrap_err();
    let StoreError::Service { source: ServiceError::Expired { at, .. }, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(at, "2000-01-01T00:00:00Z");
    std::fs::write(&file, PRIMARY.container_sas(&container, "rcl", valid())).unwrap();
    assert_eq!(store.put_new(&name("config"), b"bytes").unwrap(), Put::Created);
    assert_eq!(store.traffic().retries, 1, "one try with what was refused, one with what is new");
    let shown = format!("{refused:?} {store:?}");
    assert!(!shown.contains("sig=") && !shown.contains("sig%"), "a signature is shown: {shown}");
}
