//! What must hold, whatever happens.

use crate::disks::Disks;
use crate::world::World;
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::target::MemoryTarget;
use keepstone_engine::{EngineError, Repository};
use repo_format::SessionId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was said to have succeeded.
pub struct Oracle {
    disks: Arc<Disks>,
    known: Mutex<Known>,
}

#[derive(Clone, Default)]
pub struct Known {
    /// Backups that were reported, with what they backed up.
    pub acknowledged: BTreeMap<SessionId, usize>,
    /// Snapshots that a report says to be forgotten.
    pub forgotten: BTreeSet<SessionId>,
}

impl Oracle {
    pub fn new(disks: &Arc<Disks>) -> Self {
        Self { disks: Arc::clone(disks), known: Mutex::default() }
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a snapshot must be, by its tag.
    pub fn version_of(snapshot: &Snapshot) -> usize {
        let number = snapshot.commit.tags.first().and_then(|tag| tag.strip_prefix('v')?.parse().ok());
        number.expect("each backup has its version as a tag")
    }

    /// Restores all disks of a snapshot. Each is what was backed up, or fails.
    pub fn restore(
        &self,
        world: &World,
        repository: &Repository<'_>,
        snapshot: &Snapshot,
    ) -> Result<(), EngineError> {
        let version = self.disks.version(Self::version_of(snapshot));
        let keys: Vec<&str> = snapshot.commit.disks.iter().map(|disk| disk.key.as_str()).collect();
        let expected: Vec<&str> = version.disks.iter().map(|(key, _)| *key).collect();
        if (snapshot.commit.vm.as_str(), keys) != (version.vm.as_str(), expected) {
            world.violated(&format!("snapshot {} is not what was backed up", snapshot.session()));
        }
        for (key, bytes) in &version.disks {
            let disk = snapshot.disk(Some(key))?;
            let target = MemoryTarget::new(usize::try_from(disk.size).expect("a small disk"));
            let job =
                RestoreJob { window_len: 64 << 10, ..RestoreJob::new(snapshot.session(), disk, &target) };
            restore(repository, &job, &Quiet)?;
            if target.into_bytes() != **bytes {
                world.violated(&format!("disk {key} of snapshot {} has wrong bytes", snapshot.session()));
            }
        }
        Ok(())
    }
}
