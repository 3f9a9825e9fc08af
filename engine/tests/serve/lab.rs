//! Repositories with a disk to look at, and stores that tell how they are asked.

use crate::world::{back_up, create, latest, memory_index, mixed, noise, small_geometry};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{BlobStore, MemoryStore, Page, Put, StoreError};
use keepstone_engine::{Extent, Repository};
use repo_format::{BlobKind, BlobName, PackKind};
use std::ops::Range;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

pub const SIZE: usize = 1_000_003;

/// A store with a disk that was changed here and there in `backups` backups, and the disk's bytes.
pub fn stored(backups: u8) -> (MemoryStore, Vec<u8>) {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut index = memory_index(&repository);
    let mut bytes = mixed(7, SIZE);
    bytes[200_000..500_000].fill(0);
    let mut disk = MemoryDisk { change_id: Some("0".into()), ..MemoryDisk::new(bytes) };
    back_up(&repository, &mut index, "vm", &[("disk0", &disk)], 1).unwrap();
    for round in 1..backups {
        let mut areas = Vec::new();
        for change in 0..5_u64 {
            let start = (u64::from(round) * 7919 + change * 210_011) % (SIZE as u64 - 3000);
            let at = usize::try_from(start).unwrap();
            disk.bytes[at..at + 2000].copy_from_slice(&noise(start + u64::from(round), 2000));
            areas.push(Extent { start, length: 2000 });
        }
        areas.sort_unstable();
        disk.changes = Some(((round - 1).to_string(), areas));
        disk.change_id = Some(round.to_string());
        back_up(&repository, &mut index, "vm", &[("disk0", &disk)], round + 1).unwrap();
    }
    (store, disk.bytes)
}

/// The newest snapshot of the VM.
pub fn newest(repository: &Repository<'_>) -> Snapshot {
    latest(repository, "vm")
}

pub fn is_data_pack(name: &BlobName) -> bool {
    matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Data)
}

pub fn is_map_pack(name: &BlobName) -> bool {
    matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.kind == PackKind::Map)
}

/// A store that notes which ranges are read, in order.
pub struct Noting {
    pub inner: MemoryStore,
    pub gets: Mutex<Vec<(BlobName, Option<Range<u64>>)>>,
}

impl Noting {
    pub fn new(inner: MemoryStore) -> Self {
        Self { inner, gets: Mutex::default() }
    }

    /// The reads of data packs since the last call.
    pub fn data_reads(&self) -> Vec<(BlobName, Option<Range<u64>>)> {
        let gets = std::mem::take(&mut *self.gets.lock().unwrap());
        gets.into_iter().filter(|(name, _)| is_data_pack(name)).collect()
    }
}

/// A store that answers reads of data packs only when so many of them are under way, while it is told to.
pub struct Together {
    pub inner: MemoryStore,
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Together {
    pub fn new(inner: MemoryStore) -> Self {
        Self { inner, state: Mutex::default(), changed: Condvar::new() }
    }

    /// From now on, until it has happened, so many reads are to be under way at a time.
    pub fn wait_for(&self, reads: usize) {
        self.state.lock().unwrap().1 = reads;
    }

    /// Whether it has happened.
    pub fn came_together(&self) -> bool {
        self.state.lock().unwrap().1 == 0
    }

    fn arrive(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        if state.0 >= state.1 {
            state.1 = 0;
            self.changed.notify_all();
        }
        // Nobody comes any more if it is not so within a moment that is long for a read from memory.
        let waited =
            self.changed.wait_timeout_while(state, Duration::from_secs(20), |(_, wanted)| *wanted > 0);
        waited.unwrap().0.0 -= 1;
    }
}

/// A store that answers no reads of data packs while it is shut.
pub struct Gated {
    inner: MemoryStore,
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Gated {
    pub fn new(inner: MemoryStore) -> Self {
        Self { inner, is_shut: Mutex::new(false), changed: Condvar::new() }
    }

    pub fn shut(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.changed.notify_all();
    }
}

macro_rules! through {
    ($store:ident, $self:ident, $name:ident, $range:ident, $before:block) => {
        impl BlobStore for $store {
            fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
                self.inner.put_new(name, bytes)
            }

            fn get(&$self, $name: &BlobName, $range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
                $before
                $self.inner.get($name, $range)
            }

            fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
                self.inner.list(prefix, from, limit)
            }

            fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
                self.inner.delete(name)
            }
        }
    };
}

through!(Noting, self, name, range, {
    self.gets.lock().unwrap().push((name.clone(), range.clone()));
});

through!(Together, self, name, range, {
    if is_data_pack(name) {
        self.arrive();
    }
});

through!(Gated, self, name, range, {
    if is_data_pack(name) {
        let shut = self.is_shut.lock().unwrap();
        drop(self.changed.wait_while(shut, |shut| *shut).unwrap());
    }
});
