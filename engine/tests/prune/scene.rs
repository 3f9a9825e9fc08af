//! A repository with some VMs, and what must be restored of it.

use crate::world::{
    NOW, PASSWORD, create, memory_index, noise, open, restored, retention_key, small_geometry, undamaged,
};
use keepstone_engine::backup::{Audit, BackupJob, Compression, JobDisk, Reading, Unfinished, backup};
use keepstone_engine::observer::Quiet;
use keepstone_engine::prune::{
    PruneEnd, PruneJob, PrunePlan, PruneReport, RepackPolicy, Unused, plan, prune,
};
use keepstone_engine::repository::unlock_retention;
use keepstone_engine::snapshots::{Selector, Snapshot, find, list};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, EngineError, Entropy, Repository};
use repo_format::{BlobKind, BlobName, SessionId, Tombstone, WriterId};
use std::cell::Cell;
use std::collections::BTreeMap;

pub const DAY: u64 = 24 * 60 * 60 * 1000;
pub const PATIENCE: u64 = 7 * DAY;

pub struct Scene {
    pub store: MemoryStore,
    /// What each snapshot that is not forgotten holds.
    pub holds: BTreeMap<SessionId, Vec<u8>>,
    runs: Cell<u64>,
    /// Now.
    pub time: u64,
}

/// How a prune is called, where it is not as usual.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub writer: &'a str,
    pub abort: &'a [SessionId],
    pub condemn_at_most: u8,
    pub max_unused: Unused,
    pub max_repack: Option<u64>,
    pub end: PruneEnd,
    pub unfinished: Unfinished<'a>,
}

pub const USUAL: Call<'static> = Call {
    writer: "pruner",
    abort: &[],
    condemn_at_most: 100,
    max_unused: Unused::Unlimited,
    max_repack: None,
    end: PruneEnd::All,
    unfinished: Unfinished::MayRun { ended: &[] },
};

/// A prune that packs again whatever is not needed in full.
pub const ALL_UNUSED: Call<'static> = Call { max_unused: Unused::Bytes(0), ..USUAL };

impl Scene {
    pub fn new() -> Self {
        let store = MemoryStore::new();
        store.set_time(NOW);
        create(&store, small_geometry());
        Self { store, holds: BTreeMap::new(), runs: Cell::new(0), time: NOW }
    }

    /// Two VMs: one with three days, each of which replaces half of the disk, the other with the data of the last day.
    pub fn three_days() -> Self {
        let mut scene = Self::new();
        let mut disk = noise(1, 300_000);
        scene.back_up("vm", &disk);
        for day in 2..4 {
            disk[..150_000].copy_from_slice(&noise(day, 150_000));
            scene.back_up("vm", &disk);
        }
        scene.back_up("other", &disk);
        scene
    }

    /// Forgets the first of the three days.
    pub fn forget_first_day(&mut self) -> SessionId {
        let is_first = |(_, bytes): &(&SessionId, &Vec<u8>)| bytes.starts_with(&noise(1, 1000));
        let first = *self.holds.iter().find(is_first).expect("it is there once").0;
        self.forget(first);
        first
    }

    pub fn repository(&self) -> Repository<'_> {
        open(&self.store)
    }

    /// The same with a store of its own.
    pub fn copied(&self) -> Self {
        let (store, holds) = (self.store.copied(), self.holds.clone());
        Self { store, holds, runs: self.runs.clone(), time: self.time }
    }

    /// Lets time pass, for the store too.
    pub fn later(&mut self, millis: u64) {
        self.time += millis;
        self.store.set_time(self.time);
    }

    /// From now on, runs draw other randomness than those of what this was copied from.
    pub fn part(&self) {
        self.runs.set(self.runs.get() + 1_000_000);
    }

    pub fn seed(&self) -> [u8; 32] {
        self.runs.set(self.runs.get() + 1);
        *blake3::hash(&self.runs.get().to_le_bytes()).as_bytes()
    }

    /// Backs up a VM with one disk; returns the snapshot.
    pub fn back_up(&mut self, vm: &str, bytes: &[u8]) -> SessionId {
        self.time += 1;
        let session = self.try_back_up(&self.store, "host-a", vm, bytes).expect("the backup succeeds");
        self.holds.insert(session, bytes.to_vec());
        session
    }

    /// Backs up a VM with one disk whose changes are known; returns the snapshot.
    pub fn back_up_disk(&mut self, vm: &str, disk: &MemoryDisk) -> SessionId {
        self.time += 1;
        let session = self.try_back_up_disk(&self.store, "host-a", (vm, disk)).expect("the backup succeeds");
        self.holds.insert(session, disk.bytes.clone());
        session
    }

    /// Backs up through a store that may do anything.
    pub fn try_back_up(
        &self,
        store: &dyn BlobStore,
        writer: &str,
        vm: &str,
        bytes: &[u8],
    ) -> Result<SessionId, EngineError> {
        self.try_back_up_disk(store, writer, (vm, &MemoryDisk::new(bytes.to_vec())))
    }

    fn try_back_up_disk(
        &self,
        store: &dyn BlobStore,
        writer: &str,
        (vm, disk): (&str, &MemoryDisk),
    ) -> Result<SessionId, EngineError> {
        let repository = Repository::open(store, PASSWORD)?;
        let mut index = memory_index(&repository);
        keepstone_engine::index::sync(
            &mut index,
            store,
            repository.keys(),
            &keepstone_engine::index::Preference::default(),
            &Quiet,
        )?;
        let writer = WriterId::new(writer).expect("a writer id");
        let job = BackupJob {
            vm,
            writer: &writer,
            disks: vec![JobDisk::new("disk0", disk)],
            reading: Reading::Changes,
            audit: Audit::Off,
            compression: Compression::Level(1),
            tags: Vec::new(),
            properties: Vec::new(),
            time: self.time,
            program: "test",
            entropy: Entropy::new(self.seed()),
            unfinished: Unfinished::MayRun { ended: &[] },
            checkpoint_due: &|| false,
        };
        backup(&repository, &mut index, &job, &Quiet)?;
        Ok(find(&repository, &Selector::Latest(vm.to_owned()))?.session())
    }

    pub fn forget(&mut self, session: SessionId) {
        self.holds.remove(&session).expect("it was not forgotten before");
        let repository = self.repository();
        let listed = list(&repository, None).expect("it lists");
        let name = listed.snapshots.into_iter().find(|snapshot| snapshot.session() == session);
        let decision = name.expect("it is a snapshot").name;
        let tombstone = Tombstone { session, time: self.time, decision };
        let (name, bytes) = tombstone.seal(repository.keys(), &retention_key(&repository), [9; 32]);
        self.store.put_new(&name, &bytes).expect("memory takes it");
    }

    pub fn prune(&self) -> PruneReport {
        self.prune_as(&USUAL).expect("the prune succeeds")
    }

    pub fn prune_as(&self, call: &Call<'_>) -> Result<PruneReport, EngineError> {
        self.prune_through(&self.store, call)
    }

    pub fn prune_through(&self, store: &dyn BlobStore, call: &Call<'_>) -> Result<PruneReport, EngineError> {
        self.prune_with(PASSWORD, store, call)
    }

    /// Prunes as somebody whose password opens some other slot.
    pub fn prune_with(
        &self,
        password: &[u8],
        store: &dyn BlobStore,
        call: &Call<'_>,
    ) -> Result<PruneReport, EngineError> {
        let repository = Repository::open(store, password)?;
        let key = unlock_retention(&repository, PASSWORD)?;
        self.with_job(call, |job| prune(&repository, &key, job, &Quiet))
    }

    pub fn plan(&self, call: &Call<'_>) -> Result<PrunePlan, EngineError> {
        self.with_job(call, |job| plan(&self.repository(), job, &Quiet))
    }

    fn with_job<T>(&self, call: &Call<'_>, work: impl FnOnce(&PruneJob<'_>) -> T) -> T {
        let writer = WriterId::new(call.writer).expect("a writer id");
        let entropy = Entropy::new(self.seed());
        work(&PruneJob {
            writer: &writer,
            time: self.time,
            program: "test",
            entropy: &entropy,
            patience: PATIENCE,
            abort: call.abort,
            unfinished: call.unfinished,
            condemn_at_most: call.condemn_at_most,
            repack: RepackPolicy {
                max_unused: call.max_unused,
                max_repack: call.max_repack,
                worth: &|_| true,
            },
            end: call.end,
        })
    }

    /// Every snapshot that was not forgotten restores bit for bit, no other one is there, and nothing is damaged.
    pub fn assert_whole(&self) {
        let repository = self.repository();
        let listed = list(&repository, None).expect("it lists");
        assert!(listed.unreadable.is_empty(), "{:?}", listed.unreadable);
        let found: Vec<SessionId> = listed.snapshots.iter().map(Snapshot::session).collect();
        let mut expected: Vec<SessionId> = self.holds.keys().copied().collect();
        let mut sorted = found.clone();
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected);
        for snapshot in &listed.snapshots {
            let bytes = restored(&repository, snapshot, "disk0").expect("it restores");
            assert!(bytes == self.holds[&snapshot.session()], "{} holds other bytes", snapshot.session());
        }
        undamaged(&repository);
    }

    /// As [`Scene::assert_whole`], where blobs were planted that a verification tells of.
    pub fn assert_holds(&self) {
        let repository = self.repository();
        for (session, bytes) in &self.holds {
            let snapshot = find(&repository, &Selector::Id(session.to_string())).expect("it is there");
            assert!(restored(&repository, &snapshot, "disk0").expect("it restores") == *bytes, "{session}");
        }
    }

    /// The blobs of a kind, by the beginning of their names.
    pub fn names(&self, prefix: &str) -> Vec<BlobName> {
        let is_canary = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Canary));
        let names = self.store.names().into_iter();
        names.filter(|name| name.as_str().starts_with(prefix) && !is_canary(name)).collect()
    }

    pub fn count(&self, prefix: &str) -> usize {
        self.names(prefix).len()
    }
}
