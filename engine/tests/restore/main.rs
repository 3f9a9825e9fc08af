//! Restores that fail end, with the failure, whatever windows were still planned; those that keep going lose what
//! is damaged and nothing else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chain;
mod onto;
#[path = "../world/mod.rs"]
mod world;

use keepstone_engine::observer::{Event, Observer, Quiet};
use keepstone_engine::restore::{OnDamage, RestoreJob, RestoreReport, WINDOWS_OPEN, restore};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{BlobStore, Fault, FaultStore, MemoryStore};
use keepstone_engine::target::{DiskTarget, MemoryTarget, StreamTarget};
use keepstone_engine::{EngineError, Repository};
use repo_format::BlobName;
use std::io;
use std::ops::ControlFlow;
use world::{back_up, create, latest, memory_index, noise, open, small_geometry};

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

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
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
    let job = RestoreJob { window_len: WINDOW_LEN, ..RestoreJob::new(snapshot.session(), disk, target) };
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

fn keep_going(repository: &Repository<'_>, target: &dyn DiskTarget) -> Result<RestoreReport, EngineError> {
    keep_going_with(repository, &latest(repository, "vm"), target)
}

fn keep_going_with(
    repository: &Repository<'_>,
    snapshot: &Snapshot,
    target: &dyn DiskTarget,
) -> Result<RestoreReport, EngineError> {
    let disk = snapshot.disk(None).unwrap();
    let on_damage = OnDamage::KeepGoing;
    let job =
        RestoreJob { window_len: WINDOW_LEN, on_damage, ..RestoreJob::new(snapshot.session(), disk, target) };
    restore(repository, &job, &Quiet)
}

/// Cuts a data pack in the middle, and one off altogether; the names of the two.
fn damage_two_packs(store: &MemoryStore) -> [BlobName; 2] {
    let is_data = |name: &BlobName| name.as_str().starts_with("d/");
    let packs: Vec<BlobName> = store.names().into_iter().filter(is_data).collect();
    let bytes = store.get(&packs[1], None).unwrap();
    store.overwrite(&packs[1], &bytes[..bytes.len() / 2]);
    store.delete(&packs[3]).unwrap();
    [packs[1].clone(), packs[3].clone()]
}

#[test]
fn what_is_lost_is_zero_and_listed_and_everything_else_comes_back() {
    let store = MemoryStore::new();
    let repository = with_one_disk(&store);
    let disk = noise(1, SIZE);
    assert_eq!(keep_going(&repository, &MemoryTarget::new(SIZE)).unwrap().lost, []);
    let [cut, gone] = damage_two_packs(&store).map(|name| name.to_string());

    let target = MemoryTarget::new(SIZE);
    let report = keep_going(&repository, &target).unwrap();
    let [of_cut, of_gone] = report.lost.as_slice() else { panic!("{:#?}", report.lost) };
    assert_eq!((&of_cut.blob, of_cut.reason.as_str()), (&cut, "it is too short"));
    assert_eq!((&of_gone.blob, of_gone.reason.as_str()), (&gone, "it is missing"));
    assert_eq!(report.lost_bytes, of_cut.length + of_gone.length);
    assert_eq!(report.written_bytes, SIZE as u64 - report.lost_bytes);
    assert!(!report.lost_joined && of_cut.length < of_gone.length);
    let mut expected = disk;
    for lost in &report.lost {
        let start = usize::try_from(lost.start).unwrap();
        expected[start..][..usize::try_from(lost.length).unwrap()].fill(0);
    }
    assert!(target.into_bytes() == expected);

    let stream = StreamTarget::new(Vec::new(), SIZE as u64, WINDOWS_OPEN * WINDOW_LEN);
    let streamed = keep_going(&repository, &stream).unwrap();
    assert_eq!(streamed.lost, report.lost);
    assert!(stream.into_writer() == expected);
}

#[test]
fn a_chunk_that_is_lost_is_lost_wherever_it_belongs() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    // Regions are cut alike, so the same bytes give the same chunks in each.
    let disk = MemoryDisk::new(noise(1, SIZE).split_at(64 << 10).0.repeat(3));
    back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    let pack = store.names().into_iter().find(|name| name.as_str().starts_with("d/")).unwrap();
    let mut bytes = store.get(&pack, None).unwrap();
    bytes[200] ^= 1;
    store.overwrite(&pack, &bytes);
    let report = keep_going(&repository, &MemoryTarget::new(disk.bytes.len())).unwrap();
    let starts: Vec<u64> = report.lost.iter().map(|lost| lost.start).collect();
    assert_eq!(starts, [0, WINDOW_LEN, 2 * WINDOW_LEN]);
    assert!(report.lost.iter().all(|lost| lost.reason == "authentication failed"), "{report:?}");
}

#[test]
fn a_failing_store_or_target_is_no_damage() {
    let store = MemoryStore::new();
    let repository = with_one_disk(&store);
    let error = keep_going(&repository, &Full).unwrap_err();
    assert!(matches!(error, EngineError::Target { .. }), "{error}");
    damage_two_packs(&store);
    let snapshot = latest(&repository, "vm");
    let counted = FaultStore::new(store.copied(), u64::MAX, Fault::NotApplied);
    let repository = open(&counted);
    let first = counted.calls();
    keep_going_with(&repository, &snapshot, &MemoryTarget::new(SIZE)).unwrap();
    let mut failed = 0;
    for call in first..counted.calls() {
        let failing = FaultStore::new(store.copied(), call, Fault::NotApplied);
        let target = MemoryTarget::new(SIZE);
        let result = keep_going_with(&open(&failing), &snapshot, &target);
        // Threads that want one header at a time share a request for it, or do not.
        if failing.calls() > call {
            let error = result.unwrap_err();
            assert!(format!("{error:?}").contains("Io {"), "call {call}: {error:?}");
            failed += 1;
        }
    }
    assert!(failed > 10, "{failed} failures");
}
