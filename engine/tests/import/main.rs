//! Importing restore points of another place of the same repository.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]

mod claims;
mod costs;
mod histories;
mod interrupted;
mod promoted;
#[path = "../world/mod.rs"]
mod world;

use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::import::{
    Fate, IMPORTED_FROM, ImportJob, Imported, Importer, Outcome, Wanted, choose, plan,
};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::{self, Selector, Snapshot};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, DiskSource, EngineError, Entropy, Extent, Repository};
use repo_format::{SessionId, WriterId};
use std::collections::BTreeMap;
use world::{NOW, PASSWORD, create, memory_index, noise, open, restored, small_geometry};

const MINUTE: u64 = 60_000;
/// The writers of the places are not the same, as hosts in two regions are not.
const THERE: &str = "host-there";
const HERE: &str = "host-here";

/// A VM's disks, by their keys.
type Disks = BTreeMap<&'static str, Vec<u8>>;

/// A backup of a VM at a time, with a change id for each disk.
struct At<'a> {
    store: &'a dyn BlobStore,
    writer: &'a str,
    vm: &'a str,
    minute: u8,
}

impl At<'_> {
    /// Backs disks up by reading all of them.
    fn back_up(&self, disks: &Disks) -> BackupReport {
        let disks: Vec<(&str, MemoryDisk)> =
            disks.iter().map(|(key, bytes)| (*key, self.disk(bytes))).collect();
        self.back_up_from(&disks)
    }

    fn disk(&self, bytes: &[u8]) -> MemoryDisk {
        let change_id = Some(format!("{} {}", self.writer, self.minute));
        MemoryDisk { change_id, ..MemoryDisk::new(bytes.to_vec()) }
    }

    fn back_up_from(&self, disks: &[(&str, MemoryDisk)]) -> BackupReport {
        let repository = open(self.store);
        let seed = blake3::hash(format!("{} {} {}", self.writer, self.vm, self.minute).as_bytes());
        let job = BackupJob {
            vm: self.vm,
            writer: &WriterId::new(self.writer).unwrap(),
            disks: disks.iter().map(|(key, disk)| JobDisk::new(key, disk as &dyn DiskSource)).collect(),
            reading: Reading::Changes,
            audit: Audit::Off,
            compression: Compression::Level(1),
            tags: vec![format!("minute {}", self.minute)],
            properties: vec![("made-by".to_owned(), self.writer.to_owned())],
            time: NOW + u64::from(self.minute) * MINUTE,
            program: "test",
            entropy: Entropy::new(*seed.as_bytes()),
            unfinished: Unfinished::Ended,
            checkpoint_due: &|| false,
        };
        let mut index = memory_index(&repository);
        keepstone_engine::index::sync(
            &mut index,
            self.store,
            repository.keys(),
            &nothing_preferred(),
            &Quiet,
        )
        .unwrap();
        backup(&repository, &mut index, &job, &Quiet).unwrap()
    }
}

fn nothing_preferred() -> keepstone_engine::index::Preference<'static> {
    keepstone_engine::index::Preference { sessions: &[], writers: &[] }
}

/// Who imports what from where to where.
struct Import<'a> {
    into: &'a dyn BlobStore,
    from: &'a dyn BlobStore,
    writer: &'a str,
    seed: u8,
    named: &'a [Selector],
}

impl<'a> Import<'a> {
    fn new(into: &'a dyn BlobStore, from: &'a dyn BlobStore) -> Self {
        Self { into, from, writer: HERE, seed: 200, named: &[] }
    }

    fn run(&self) -> Result<Vec<Imported>, EngineError> {
        let into = Repository::open(self.into, PASSWORD)?;
        let from = into.at(self.from)?;
        let chosen = choose(&into, &from, &Wanted { vms: &[], snapshots: self.named })?;
        let mut imported = Vec::new();
        for vm in &chosen.vms {
            let plan = plan(&into, &from, vm)?;
            let mut index = memory_index(&into);
            keepstone_engine::index::sync(&mut index, self.into, into.keys(), &nothing_preferred(), &Quiet)?;
            let job = ImportJob {
                from: &from,
                writer: &WriterId::new(self.writer).unwrap(),
                compression: Compression::Level(1),
                time: NOW + 1000 * MINUTE,
                program: "test",
                entropy: Entropy::new([self.seed; 32]),
                unfinished: Unfinished::Ended,
                checkpoint_due: &|| false,
                cache_bytes: 1 << 20,
            };
            let mut run = Importer::new(&into, &plan, &job);
            for point in plan.points.iter().filter(|point| point.fate == Fate::Missing) {
                imported.push(run.import(&mut index, &point.original, &Quiet)?);
            }
        }
        Ok(imported)
    }

    /// What would be done with each restore point there.
    fn fates(&self) -> Vec<(SessionId, Fate)> {
        let into = open(self.into);
        let from = into.at(self.from).unwrap();
        let chosen = choose(&into, &from, &Wanted { vms: &[], snapshots: self.named }).unwrap();
        let plans = chosen.vms.iter().map(|vm| plan(&into, &from, vm).unwrap());
        plans.flat_map(|plan| plan.points).map(|point| (point.original.session(), point.fate)).collect()
    }
}

/// The new ids of what was stored; nothing else may have come of it.
fn stored(imported: &[Imported]) -> Vec<(SessionId, SessionId)> {
    let pair = |imported: &Imported| match &imported.outcome {
        Outcome::Stored { report, .. } => (imported.original, report.snapshot),
        Outcome::LeftOut { why } => panic!("{} was left out: {why}", imported.original),
    };
    imported.iter().map(pair).collect()
}

fn snapshot(repository: &Repository<'_>, id: SessionId) -> Snapshot {
    snapshots::find(repository, &Selector::Id(id.to_string())).unwrap()
}

fn disks_of(repository: &Repository<'_>, id: SessionId) -> BTreeMap<String, Vec<u8>> {
    let snapshot = snapshot(repository, id);
    let keys = snapshot.commit.disks.iter().map(|disk| disk.key.clone());
    keys.map(|key| (key.clone(), restored(repository, &snapshot, &key).unwrap())).collect()
}

fn holds(repository: &Repository<'_>, id: SessionId, disks: &Disks) {
    let found = disks_of(repository, id);
    assert!(
        found
            .iter()
            .map(|(key, bytes)| (key.as_str(), bytes))
            .eq(disks.iter().map(|(key, bytes)| (*key, bytes)))
    );
}

/// A repository, and two restore points of one VM with one disk.
fn common_past(len: usize) -> (MemoryStore, Disks) {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    let mut disks = Disks::from([("disk0", noise(1, len))]);
    At { store: &store, writer: THERE, vm: "vm", minute: 1 }.back_up(&disks);
    change(&mut disks, 2, 1);
    At { store: &store, writer: THERE, vm: "vm", minute: 2 }.back_up(&disks);
    (store, disks)
}

/// Changes some hundred bytes of each disk at a place that the number tells, and returns where.
fn change(disks: &mut Disks, number: u64, parts: u64) -> Vec<Extent> {
    let mut areas = Vec::new();
    for (disk, bytes) in (0..).zip(disks.values_mut()) {
        for part in 0..parts {
            let seed = number * 1000 + disk * 100 + part;
            let at = usize::try_from(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20).unwrap()
                % (bytes.len() - 400);
            bytes[at..at + 400].copy_from_slice(&noise(seed, 400));
            areas.push(Extent { start: at as u64, length: 400 });
        }
    }
    areas
}
