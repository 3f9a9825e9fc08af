//! Restores that fail end, with the failure, whatever windows were still planned.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use keepstone_engine::observer::{Event, Observer, Quiet};
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{BlobStore, MemoryStore};
use keepstone_engine::target::{DiskTarget, MemoryTarget};
use keepstone_engine::{EngineError, Repository};
use std::io;
use std::ops::ControlFlow;
use world::{back_up, create, latest, memory_index, noise, small_geometry};

const SIZE: usize = 700_000;
/// The disk has eleven of these.
const WINDOW_LEN: u64 = 64 << 10;

/// A target that takes nothing.
struct Full;

impl DiskTarget for Full {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Cancels when the first bytes have been restored.
struct Impatient;

impl Observer for Impatient {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        if matches!(event, Event::Progress(_)) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn with_one_disk(store: &MemoryStore) -> Repository<'_> {
    let repository = create(store, small_geometry());
    let disk = MemoryDisk::new(noise(1, SIZE));
    back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    repository
}

fn restore_to(repository: &Repository<'_>, target: &dyn DiskTarget, observer: &dyn Observer) -> EngineError {
    let snapshot = latest(repository, "vm");
    let disk = snapshot.disk(None).unwrap();
    let job = RestoreJob { snapshot: snapshot.session(), disk, target, window_len: WINDOW_LEN };
    restore(repository, &job, observer).unwrap_err()
}

#[test]
fn a_full_target_ends_a_restore_of_many_windows() {
    let store = MemoryStore::new();
    let error = restore_to(&with_one_disk(&store), &Full, &Quiet);
    assert!(matches!(error, EngineError::Target { .. }), "{error}");
}

#[test]
fn cancelling_ends_a_restore_of_many_windows() {
    let store = MemoryStore::new();
    let error = restore_to(&with_one_disk(&store), &MemoryTarget::new(SIZE), &Impatient);
    assert!(matches!(error, EngineError::Cancelled), "{error}");
}

#[test]
fn a_damaged_chunk_ends_a_restore_of_many_windows_and_is_named() {
    let store = MemoryStore::new();
    let repository = with_one_disk(&store);
    let pack = store.names().into_iter().find(|name| name.as_str().starts_with("d/")).unwrap();
    let mut bytes = store.get(&pack, None).unwrap();
    bytes[200] ^= 1;
    store.overwrite(&pack, &bytes);
    let error = restore_to(&repository, &MemoryTarget::new(SIZE), &Quiet);
    assert!(matches!(error, EngineError::Unrestorable { offset: 0, .. }), "{error}");
}
