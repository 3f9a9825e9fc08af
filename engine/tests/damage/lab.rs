//! A repository with at least two blobs of every kind, and what its snapshots must restore to.

use crate::pruner::{End, Repack, condemn, forget, publish_result, seal_generation};
use crate::world::{
    PASSWORD, back_up_reading, cheap_kdf, create, memory_index, mixed, noise, open, small_geometry,
};
use keepstone_engine::backup::{BackupReport, Reading};
use keepstone_engine::index::{LocalIndex, Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::repository::{NewSlot, add_slot};
use keepstone_engine::snapshots::{Selector, Snapshot, find, list};
use keepstone_engine::source::{ChangedAreas, MemoryDisk, ReadPart, Since};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, DiskSource, EngineError, Entropy, Extent, Repository};
use repo_format::{BlobKind, BlobName, PackKind, PackRef, SessionId, SlotKind, SlotName};
use std::io;

/// The password of the slot `other`.
pub const OTHER_PASSWORD: &[u8] = b"battery staple";
/// Alpha's disk: a root node over two others, data in both, holes between.
const ALPHA_LEN: usize = 1_200_001;

/// One disk of one snapshot, and its bytes.
pub struct Kept {
    pub snapshot: Snapshot,
    pub key: &'static str,
    pub bytes: Vec<u8>,
    /// It has a tombstone.
    pub forgotten: bool,
}

pub struct Lab {
    pub store: MemoryStore,
    pub kept: Vec<Kept>,
    /// Alpha's disk as it is for its next backup.
    pub next: MemoryDisk,
    /// Sessions that were aborted.
    pub aborted: Vec<SessionId>,
}

/// A disk that cannot be read.
struct Broken;

impl DiskSource for Broken {
    fn size(&self) -> u64 {
        1 << 16
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        MemoryDisk::new(vec![0; 1 << 16]).changed_areas(since)
    }

    fn read(&self, _: &mut [ReadPart<'_>]) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn check_unchanged(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Backs up with an index that has everything that is stored.
pub fn back_up(
    repository: &Repository<'_>,
    vm: &str,
    disks: &[(&str, &dyn DiskSource)],
    run: u8,
    reading: Reading,
) -> Result<BackupReport, EngineError> {
    let mut index: LocalIndex = memory_index(repository);
    sync(&mut index, repository.store(), repository.keys(), &Preference::default(), &Quiet)?;
    back_up_reading(repository, &mut index, vm, disks, run, reading)
}

/// Adds the slot `other`.
pub fn add_other_slot(store: &MemoryStore) {
    let (name, time) = (SlotName::new("other").unwrap(), crate::world::NOW);
    let slot = NewSlot { name: &name, label: "test", password: OTHER_PASSWORD, kdf: cheap_kdf(), time };
    add_slot(store, PASSWORD, SlotKind::Root, &slot, &Entropy::new([99; 32])).unwrap();
}

impl Lab {
    pub fn new() -> Self {
        let store = MemoryStore::new();
        let repository = create(&store, small_geometry());
        add_other_slot(&store);
        let mut builder = Builder { repository: &repository, kept: Vec::new(), run: 0 };
        let next = builder.alpha_and_beta();
        builder.tiny();
        let aborted = builder.failures();
        builder.prune();
        let kept = builder.kept;
        drop(repository);
        Self { store, kept, next, aborted }
    }

    pub fn get(&self, name: &BlobName) -> Vec<u8> {
        self.store.get(name, None).unwrap()
    }

    /// The snapshot of a run, counted from 0.
    pub fn snapshot(&self, vm: &str, number: usize) -> &Snapshot {
        let mut found: Vec<&Snapshot> =
            self.kept.iter().map(|kept| &kept.snapshot).filter(|snapshot| snapshot.commit.vm == vm).collect();
        found.dedup_by_key(|snapshot| snapshot.session());
        found[number]
    }

    pub fn pack(&self, kind: PackKind, snapshot: &Snapshot, number: u32) -> BlobName {
        let session = snapshot.session();
        let is_it = |name: &BlobName| match name.kind() {
            Some(BlobKind::Pack(pack)) => (pack.kind, pack.session, pack.number) == (kind, session, number),
            _ => false,
        };
        self.store.names().into_iter().find(is_it).unwrap()
    }
}

struct Builder<'a> {
    repository: &'a Repository<'a>,
    kept: Vec<Kept>,
    run: u8,
}

impl Builder<'_> {
    fn back_up(&mut self, vm: &str, disks: &[(&'static str, &MemoryDisk)]) -> Snapshot {
        self.run += 1;
        let sources: Vec<(&str, &dyn DiskSource)> =
            disks.iter().map(|(key, disk)| (*key, *disk as &dyn DiskSource)).collect();
        back_up(self.repository, vm, &sources, self.run, Reading::Changes).unwrap();
        let snapshot = find(self.repository, &Selector::Latest(vm.to_owned())).unwrap();
        for (key, disk) in disks {
            let (snapshot, bytes) = (snapshot.clone(), disk.bytes.clone());
            self.kept.push(Kept { snapshot, key, bytes, forgotten: false });
        }
        snapshot
    }

    /// Two VMs that share chunks; returns the first one's disk after a third day.
    fn alpha_and_beta(&mut self) -> MemoryDisk {
        let mut bytes = vec![0; ALPHA_LEN];
        bytes[..110_000].copy_from_slice(&mixed(1, 110_000));
        bytes[1_060_000..1_160_000].copy_from_slice(&noise(2, 100_000));
        let first = MemoryDisk { change_id: Some("one".into()), ..MemoryDisk::new(bytes) };
        self.back_up("alpha", &[("disk0", &first)]);
        let second = changed(&first, "two", Extent { start: 20_000, length: 20_000 }, 7);
        self.back_up("alpha", &[("disk0", &second)]);
        let mut system = first.bytes[..110_000].to_vec();
        system.extend(noise(3, 40_000));
        let (data, system) = (MemoryDisk::new(noise(4, 70_000)), MemoryDisk::new(system));
        self.back_up("beta", &[("data", &data), ("system", &system)]);
        changed(&second, "three", Extent { start: 1_100_000, length: 5_000 }, 8)
    }

    /// Two VMs whose blobs have the same lengths.
    fn tiny(&mut self) {
        for (vm, seed) in [("tiny-1", 11), ("tiny-2", 12)] {
            self.back_up(vm, &[("disk0", &MemoryDisk::new(noise(seed, 200)))]);
        }
    }

    fn failures(&mut self) -> Vec<SessionId> {
        for _ in 0..2 {
            self.run += 1;
            let disks: [(&str, &dyn DiskSource); 1] = [("disk0", &Broken)];
            back_up(self.repository, "delta", &disks, self.run, Reading::Changes).unwrap_err();
        }
        let aborted = list(self.repository, Some("delta")).unwrap().aborted;
        assert_eq!(aborted.len(), 2);
        aborted.into_iter().collect()
    }

    /// What retention and a pruner leave.
    fn prune(&mut self) {
        let packs: Vec<PackRef> = (0..2)
            .map(|number| {
                let disk = MemoryDisk::new(noise(20 + number, 3_000));
                let snapshot = self.back_up("gamma", &[("disk0", &disk)]);
                forget(self.repository, &snapshot.name);
                let forgotten = self.kept.last_mut().unwrap();
                forgotten.forgotten = true;
                data_pack(self.repository, &snapshot)
            })
            .collect();
        let applies_to = [self.kept[0].snapshot.session()];
        for (session, pack) in [(0xa1, &packs[0]), (0xa2, &packs[1])] {
            let from = std::slice::from_ref(pack);
            Repack { session, from, applies_to: &applies_to, one_in: 1, end: End::Commit }
                .run(self.repository);
        }
        for (generation, pack) in (0..).zip([&packs[0], &packs[1], &packs[0], &packs[1]]) {
            condemn(self.repository, generation, std::slice::from_ref(pack));
        }
        publish_result(self.repository, 0, &packs[..1]);
        publish_result(self.repository, 2, &packs[..1]);
        seal_generation(self.repository, 1);
        seal_generation(self.repository, 2);
    }
}

fn data_pack(repository: &Repository<'_>, snapshot: &Snapshot) -> PackRef {
    let packs = repository.list(PackKind::Data.prefix()).unwrap();
    let of_snapshot = packs.into_iter().find_map(|info| match info.name.kind() {
        Some(BlobKind::Pack(name)) if name.session == snapshot.session() => {
            Some(PackRef { name, len: u32::try_from(info.len).unwrap() })
        }
        _ => None,
    });
    of_snapshot.unwrap()
}

fn changed(disk: &MemoryDisk, change_id: &str, area: Extent, seed: u64) -> MemoryDisk {
    let mut next = disk.clone();
    let start = usize::try_from(area.start).unwrap();
    let len = usize::try_from(area.length).unwrap();
    next.bytes[start..][..len].copy_from_slice(&noise(seed, len));
    next.changes = Some((disk.change_id.clone().unwrap(), vec![area]));
    next.change_id = Some(change_id.to_owned());
    next
}

/// Opens with the first password that does.
pub fn try_open(store: &MemoryStore) -> Result<Repository<'_>, EngineError> {
    Repository::open(store, PASSWORD)
        .or_else(|error| Repository::open(store, OTHER_PASSWORD).map_err(|_| error))
}

/// The repository as it was.
pub fn sound(lab: &Lab) -> Repository<'_> {
    open(&lab.store)
}
