//! A restore waits for no answer before it asks for more: a store that keeps its answers back until enough is asked for.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{OnDamage, RestoreJob, RestoreReport, restore};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{BlobStore, MemoryStore, Page, Put, StoreError};
use keepstone_engine::target::MemoryTarget;
use repo_format::BlobName;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Condvar, Mutex};
use std::time::Duration;
use world::{back_up, create, latest, memory_index, noise, open, small_geometry};

/// Who waits so long for another request will wait for ever.
const PATIENCE: Duration = Duration::from_mins(1);
const HEADER_LEN: u64 = 176;

type Read = (BlobName, Range<u64>);

/// A store that answers no read of a pack before `enough` says so of that read and of those that were begun by then.
struct Reluctant<F> {
    inner: MemoryStore,
    enough: F,
    begun: Mutex<Vec<Read>>,
    changed: Condvar,
}

impl<F: Fn(&Read, &[Read]) -> bool + Send + Sync> Reluctant<F> {
    fn new(inner: &MemoryStore, enough: F) -> Self {
        Self { inner: inner.clone(), enough, begun: Mutex::default(), changed: Condvar::new() }
    }

    fn wait(&self, read: &Read) {
        let mut begun = self.begun.lock().unwrap();
        begun.push(read.clone());
        self.changed.notify_all();
        let waiting = |begun: &mut Vec<Read>| !(self.enough)(read, begun);
        let (begun, result) = self.changed.wait_timeout_while(begun, PATIENCE, waiting).unwrap();
        assert!(!result.timed_out(), "{read:?} was waited for, with only these asked for: {begun:?}");
    }
}

impl<F: Fn(&Read, &[Read]) -> bool + Send + Sync> BlobStore for Reluctant<F> {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        if let Some(range) = range.clone()
            && name.as_str().starts_with("d/")
        {
            self.wait(&(name.clone(), range));
        }
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, from, limit)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// Restores the newest snapshot of a VM, and compares it.
fn restored_from(store: &dyn BlobStore, vm: &str, window_len: u64, expected: &[u8]) -> RestoreReport {
    let repository = open(store);
    let snapshot = latest(&repository, vm);
    let target = MemoryTarget::new(expected.len());
    let (disk, on_damage) = (snapshot.disk(None).unwrap(), OnDamage::Stop);
    let job = RestoreJob { window_len, on_damage, ..RestoreJob::new(snapshot.session(), disk, &target) };
    let report = restore(&repository, &job, &Quiet).unwrap();
    assert!(target.into_bytes() == expected);
    report
}

fn with_disk(bytes: &[u8]) -> MemoryStore {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let disk = MemoryDisk::new(bytes.to_vec());
    back_up(&repository, &mut memory_index(&repository), "vm", &[("disk0", &disk)], 1).unwrap();
    store
}

#[test]
fn thirty_two_ranges_of_a_window_are_under_way_at_one_time() {
    // Packs of 64 KiB each.
    let disk = noise(1, 40 * (64 << 10));
    let store = Reluctant::new(&with_disk(&disk), |_: &Read, begun: &[Read]| begun.len() >= 32);
    restored_from(&store, "vm", 1 << 30, &disk);
}

#[test]
fn a_window_is_fetched_while_the_one_before_is() {
    // What lies in a region lies in two packs at most, so its window has two requests at most.
    let disk = noise(1, 40 * (64 << 10));
    let store = Reluctant::new(&with_disk(&disk), |_: &Read, begun: &[Read]| begun.len() > 2);
    restored_from(&store, "vm", 64 << 10, &disk);
}

#[test]
fn the_header_of_a_pack_is_read_together_with_what_is_wanted_of_it() {
    // Another VM whose disk is what lies at the end of each pack of the first one's.
    let disk = noise(1, 4 * (64 << 10));
    let stored = with_disk(&disk);
    let part: Vec<u8> = disk.chunks(64 << 10).flat_map(|region| region[48 << 10..].repeat(4)).collect();
    let repository = open(&stored);
    let mut index = memory_index(&repository);
    sync(&mut index, &stored, repository.keys(), &Preference::default(), &Quiet).unwrap();
    let other = MemoryDisk::new(part.clone());
    let report = back_up(&repository, &mut index, "other", &[("disk0", &other)], 2).unwrap();
    assert!(report.new_bytes < report.disks[0].disk_bytes / 4, "it has little that is new: {report:?}");

    let store = Reluctant::new(&stored, |(name, range): &Read, begun: &[Read]| {
        range.start == 0 && range.end > HEADER_LEN
            || begun.iter().filter(|(other, _)| other == name).count() >= 2
    });
    restored_from(&store, "other", 1 << 30, &part);
    let begun = store.begun.into_inner().unwrap();
    let headers: Vec<&BlobName> =
        begun.iter().filter(|(_, range)| range.start == 0).map(|(name, _)| name).collect();
    let distinct: BTreeSet<&BlobName> = headers.iter().copied().collect();
    assert_eq!(headers.len(), distinct.len(), "no header is read twice");
    assert!(begun.iter().any(|(_, range)| *range == (0..HEADER_LEN)), "some are not near: {begun:?}");
}
