//! What backups share that run at the same time in one process: the local index, memory, and buffers.

use super::budget::{self, Budget};
use crate::buffers::BufferPool;
use crate::index::{Hits, IndexError, LocalIndex, Verdict};
use crate::region::RegionPool;
use repo_format::{BlobName, ChunkId, DecisionName, Geometry, Index, SessionId};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Several backups of one repository, of different VMs, in threads of their own: what they have together.
///
/// However many there are, the memory of their regions and packs has one bound, and the others do not wait for one whose
/// source is slow: ARCHITECTURE.md has the rules. The index is one: what a backup has stored and indexed is known to those
/// that come after it, and is used once it is committed. While a large table is merged, those that look something up wait.
pub struct Together {
    index: RwLock<LocalIndex>,
    pub(super) resources: Resources,
}

impl Together {
    /// For `backups` backups of a repository of that geometry, of which at most `at_a_time` run at a time. Their regions and
    /// packs take at most about `memory_bytes`, or what one backup cannot do without, if that is more.
    #[must_use]
    pub fn new(
        index: LocalIndex,
        geometry: &Geometry,
        memory_bytes: u64,
        backups: usize,
        at_a_time: usize,
    ) -> Self {
        let budget = Budget::shared(geometry, memory_bytes, backups, at_a_time);
        Self { index: RwLock::new(index), resources: Resources::new(geometry, budget) }
    }

    /// The bytes with which so many backups of a repository of that geometry read at a time, and keep the threads of the rayon
    /// pool busy besides.
    #[must_use]
    pub fn enough_memory_bytes(geometry: &Geometry, at_a_time: usize) -> u64 {
        let lent = crate::threads::parallelism() as u64 * budget::region_bytes(geometry);
        (at_a_time as u64).saturating_mul(budget::least_bytes(geometry)).saturating_add(lent)
    }

    /// Notes that one of the backups has ended, however it did, or will not be begun: nothing is kept for it any more.
    pub fn one_ended(&self) {
        self.resources.budget.one_ended();
    }

    /// The most bytes that regions and packs of all backups took at one time, as they are counted beforehand.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.resources.budget.peak_bytes()
    }

    pub(super) fn index(&self) -> IndexAccess<'_> {
        IndexAccess::Shared(&self.index)
    }
}

/// Memory, and allocations that are used again.
pub(super) struct Resources {
    pub(super) budget: Budget,
    pub(super) regions: RegionPool,
    /// For encoded regions.
    pub(super) outputs: BufferPool,
    /// For packs.
    pub(super) bodies: Arc<BufferPool>,
}

impl Resources {
    /// For one backup, which has all that it can use.
    pub(super) fn alone(geometry: &Geometry) -> Self {
        Self::new(geometry, Budget::unlimited())
    }

    fn new(geometry: &Geometry, budget: Budget) -> Self {
        let regions = RegionPool::new(geometry.region_len);
        Self { budget, regions, outputs: BufferPool::default(), bodies: Arc::default() }
    }
}

/// The local index, as one backup has it.
pub(super) enum IndexAccess<'a> {
    Own(&'a mut LocalIndex),
    Shared(&'a RwLock<LocalIndex>),
}

impl IndexAccess<'_> {
    pub(super) fn reborrow(&mut self) -> IndexAccess<'_> {
        match self {
            Self::Own(index) => IndexAccess::Own(index),
            Self::Shared(index) => IndexAccess::Shared(index),
        }
    }

    pub(super) fn lookup(&self, id: &ChunkId) -> Hits {
        self.read(|index| index.lookup(id))
    }

    pub(super) fn decision_of(&self, session: SessionId) -> Option<DecisionName> {
        self.read(|index| index.decision_of(session).cloned())
    }

    pub(super) fn verdict(&self, session: SessionId) -> Option<Verdict> {
        self.read(|index| index.verdict(session))
    }

    pub(super) fn add(&mut self, covered: &[BlobName], added: &Index) -> Result<(), IndexError> {
        self.write(|index| index.add(covered, added))
    }

    pub(super) fn remember_verdict(
        &mut self,
        session: SessionId,
        verdict: Verdict,
    ) -> Result<(), IndexError> {
        self.write(|index| index.remember_verdict(session, verdict))
    }

    fn read<T>(&self, action: impl FnOnce(&LocalIndex) -> T) -> T {
        match self {
            Self::Own(index) => action(index),
            Self::Shared(index) => action(&read(index)),
        }
    }

    fn write<T>(&mut self, action: impl FnOnce(&mut LocalIndex) -> T) -> T {
        match self {
            Self::Own(index) => action(index),
            Self::Shared(index) => action(&mut write(index)),
        }
    }
}

// A backup that panicked ends the others as well.
fn read(index: &RwLock<LocalIndex>) -> RwLockReadGuard<'_, LocalIndex> {
    index.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(index: &RwLock<LocalIndex>) -> RwLockWriteGuard<'_, LocalIndex> {
    index.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{Audit, BackupJob, Compression, JobDisk, Reading, Unfinished, backup_together};
    use crate::observer::Quiet;
    use crate::repository::NewSlot;
    use crate::source::MemoryDisk;
    use crate::store::MemoryStore;
    use crate::{Entropy, Repository};
    use repo_format::{KdfParams, SlotName, WriterId};

    #[test]
    fn backups_one_after_the_other_use_the_same_buffers() {
        let store = MemoryStore::new();
        let geometry = Geometry { region_len: 1 << 20, pack_len: 1 << 20, ..Geometry::default() };
        let name = SlotName::new("first").unwrap();
        let kdf = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };
        let slot = NewSlot { name: &name, label: "test", password: b"password", kdf, time: 1 };
        let retention = NewSlot { name: &SlotName::new("retention").unwrap(), ..slot };
        let entropy = Entropy::new([1; 32]);
        let repository = Repository::create(&store, geometry, &slot, &retention, &entropy).unwrap();
        let index = LocalIndex::open(None, repository.config().repository, [2; 32], 1 << 30).unwrap();
        // Room for no more than one, so that it never has more packs on their way than one.
        let together = Together::new(index, &repository.config().geometry, 0, 20, 1);
        for number in 0..20 {
            let mut bytes = vec![0; 3 << 20];
            blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
            let disk = MemoryDisk::new(bytes);
            let job = BackupJob {
                vm: &format!("vm{number}"),
                writer: &WriterId::new("host").unwrap(),
                disks: vec![JobDisk::new("disk0", &disk)],
                reading: Reading::Changes,
                audit: Audit::Off,
                compression: Compression::Level(1),
                tags: Vec::new(),
                properties: Vec::new(),
                time: 1,
                program: "test",
                entropy: Entropy::new([number; 32]),
                unfinished: Unfinished::Ended,
                checkpoint_due: &|| false,
            };
            backup_together(&repository, &together, &job, &Quiet).unwrap();
            together.one_ended();
        }
        let Resources { bodies, outputs, .. } = &together.resources;
        let idle = (bodies.idle_count(), outputs.idle_count());
        assert!(idle.0 <= 2 && idle.1 <= 1, "{idle:?}");
    }
}
