//! What happens in a repository: blobs that come and go.

use crate::dice::Dice;
use crate::scene::{ALL_UNUSED, Scene};
use crate::world::noise;
use keepstone_engine::BlobStore;
use repo_format::{BlobKind, BlobName, PackName, RepackRecord, SessionId};
use std::collections::{BTreeMap, BTreeSet};

pub struct History {
    /// In the order in which they happened.
    pub events: Vec<Event>,
    /// All blobs that there ever were.
    pub archive: BTreeMap<BlobName, Vec<u8>>,
    /// What every snapshot held.
    pub held: BTreeMap<SessionId, Vec<u8>>,
    /// Those that were forgotten.
    pub forgotten: BTreeSet<SessionId>,
    /// Packs that were packed again.
    pub repacked: BTreeSet<PackName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Created(BlobName),
    Deleted(BlobName),
}

/// A few VMs that are backed up, forgotten and pruned in turn.
pub fn random(dice: &mut Dice, steps: usize) -> History {
    let mut scene = Scene::new();
    let mut history = History {
        events: Vec::new(),
        archive: BTreeMap::new(),
        held: BTreeMap::new(),
        forgotten: BTreeSet::new(),
        repacked: BTreeSet::new(),
    };
    let mut disks = [noise(1, 200_000), noise(2, 90_000), noise(3, 3_000)];
    history.note(&scene);
    for step in 0..steps {
        let alive: Vec<SessionId> = scene.holds.keys().copied().collect();
        match dice.below(10) {
            0..6 => {
                let vm = dice.below(disks.len());
                let disk = &mut disks[vm];
                for _ in 0..dice.below(5) {
                    let len = (1 + dice.below(9_000)).min(disk.len());
                    let at = dice.below(disk.len() - len + 1);
                    disk[at..at + len].copy_from_slice(&noise((step * 100 + at) as u64 + 1000, len));
                }
                let bytes = disk.clone();
                let session = scene.back_up(["web", "db", "small"][vm], &bytes);
                history.held.insert(session, bytes);
            }
            6 | 7 if alive.len() > 1 => {
                let session = *dice.one_of(&alive);
                scene.forget(session);
                history.forgotten.insert(session);
            }
            8 => drop(scene.prune()),
            _ => drop(scene.prune_as(&ALL_UNUSED).expect("the prune succeeds")),
        }
        history.note(&scene);
    }
    history
}

impl History {
    /// Notes what came and went.
    fn note(&mut self, scene: &Scene) {
        let repository = scene.repository();
        let there: BTreeSet<BlobName> = scene.store.names().into_iter().collect();
        for name in &there {
            if self.archive.contains_key(name) {
                continue;
            }
            let bytes = scene.store.get(name, None).unwrap();
            if let Some(BlobKind::Repack(_)) = name.kind() {
                let record = RepackRecord::open(repository.keys(), name, &bytes).unwrap();
                self.repacked
                    .extend(record.leads.iter().map(|lead| record.packs[lead.old as usize].name.clone()));
            }
            self.archive.insert(name.clone(), bytes);
            self.events.push(Event::Created(name.clone()));
        }
        let gone: Vec<BlobName> =
            self.archive.keys().filter(|name| !there.contains(*name)).cloned().collect();
        for name in gone {
            let gone = Event::Deleted(name);
            if !self.events.contains(&gone) {
                self.events.push(gone);
            }
        }
    }
}

/// Whether a blob is what a deletion of packs that were packed again waits for: what took their place.
pub fn is_of_a_repack(name: &BlobName) -> bool {
    ["k/", "d/pruner/", "m/pruner/"].iter().any(|prefix| name.as_str().starts_with(prefix))
        || (name.as_str().starts_with("r/") && name.as_str().contains("/pruner/"))
}
