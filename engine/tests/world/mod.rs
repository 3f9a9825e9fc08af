//! A repository in memory and the few calls that tests make on it.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod golden;
pub mod misread;
pub mod watched;

use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::index::LocalIndex;
use keepstone_engine::observer::Quiet;
use keepstone_engine::repository::{NewSlot, unlock_retention};
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{Selector, Snapshot, find};
use keepstone_engine::target::MemoryTarget;
use keepstone_engine::verify::{ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, DiskSource, EngineError, Entropy, Repository};
use repo_format::{ChunkerName, ChunkerParams, Geometry, KdfParams, RetentionKey, SlotName, WriterId};

pub const PASSWORD: &[u8] = b"correct horse";
pub const NOW: u64 = 1_800_000_000_000;

/// A geometry whose limits small disks cross: regions of 64 KiB, cells of 16 KiB, packs of 64 KiB.
pub fn small_geometry() -> Geometry {
    small_geometry_of(ChunkerName::FastCdc2020)
}

/// The same with another chunker.
pub fn small_geometry_of(name: ChunkerName) -> Geometry {
    let (min, average, max) = match name {
        ChunkerName::FastCdc2020 => (256, 1024, 4096),
        ChunkerName::MinCdcHash4 => (512, 1280, 2048),
    };
    Geometry {
        chunker: ChunkerParams { name, min, average, max },
        region_len: 64 << 10,
        cell_len: 16 << 10,
        pack_len: 64 << 10,
    }
}

/// The cheapest password hashing that the format allows.
pub fn cheap_kdf() -> KdfParams {
    KdfParams { memory_kib: 8, passes: 1, lanes: 1 }
}

pub fn create(store: &dyn BlobStore, geometry: Geometry) -> Repository<'_> {
    try_create(store, geometry).expect("an empty store takes a repository")
}

pub fn try_create(store: &dyn BlobStore, geometry: Geometry) -> Result<Repository<'_>, EngineError> {
    create_from_seed(store, geometry, [1; 32])
}

pub fn create_from_seed(
    store: &dyn BlobStore,
    geometry: Geometry,
    seed: [u8; 32],
) -> Result<Repository<'_>, EngineError> {
    let name = SlotName::new("first").expect("a slot name");
    let slot = NewSlot { name: &name, label: "test", password: PASSWORD, kdf: cheap_kdf(), time: NOW };
    let retention = NewSlot { name: &SlotName::new("retention").expect("a slot name"), ..slot };
    Repository::create(store, geometry, &slot, &retention, &Entropy::new(seed))
}

/// The key that signs what the retention and pruners make.
pub fn retention_key(repository: &Repository<'_>) -> RetentionKey {
    unlock_retention(repository, PASSWORD).expect("the retention slot opens")
}

pub fn open(store: &dyn BlobStore) -> Repository<'_> {
    Repository::open(store, PASSWORD).expect("the repository opens")
}

pub fn memory_index(repository: &Repository<'_>) -> LocalIndex {
    let key = repository.keys().local_key("keepstone v0 local index");
    LocalIndex::open(None, repository.config().repository, key, 1 << 30).expect("memory is always there")
}

pub fn writer() -> WriterId {
    WriterId::new("host-a").expect("a writer id")
}

/// Backs up disks with everything at its default; `run` makes the run's randomness and time.
pub fn back_up(
    repository: &Repository<'_>,
    index: &mut LocalIndex,
    vm: &str,
    disks: &[(&str, &dyn DiskSource)],
    run: u8,
) -> Result<BackupReport, EngineError> {
    back_up_reading(repository, index, vm, disks, run, Reading::Changes)
}

pub fn back_up_reading(
    repository: &Repository<'_>,
    index: &mut LocalIndex,
    vm: &str,
    disks: &[(&str, &dyn DiskSource)],
    run: u8,
    reading: Reading,
) -> Result<BackupReport, EngineError> {
    let job = BackupJob {
        vm,
        writer: &writer(),
        disks: disks.iter().map(|(key, source)| JobDisk::new(key, *source)).collect(),
        reading,
        audit: Audit::Off,
        compression: Compression::Level(1),
        tags: Vec::new(),
        properties: Vec::new(),
        time: NOW + u64::from(run),
        program: "test",
        entropy: Entropy::new([run; 32]),
        unfinished: Unfinished::MayRun { ended: &[] },
        checkpoint_due: &|| false,
    };
    backup(repository, index, &job, &Quiet)
}

pub fn latest(repository: &Repository<'_>, vm: &str) -> Snapshot {
    find(repository, &Selector::Latest(vm.to_owned())).expect("there is a snapshot")
}

pub fn restored(repository: &Repository<'_>, snapshot: &Snapshot, key: &str) -> Result<Vec<u8>, EngineError> {
    let disk = snapshot.disk(Some(key)).expect("the disk is in the snapshot");
    let target = MemoryTarget::new(usize::try_from(disk.size).expect("a small disk"));
    let job = RestoreJob { window_len: 1 << 20, ..RestoreJob::new(snapshot.session(), disk, &target) };
    restore(repository, &job, &Quiet)?;
    Ok(target.into_bytes())
}

/// Reproducible bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Reproducible bytes that compress, with runs of zeros.
pub fn mixed(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    let mut number = seed;
    while bytes.len() < len {
        let kind = noise(number, 2);
        let run = 200 + usize::from(kind[1]) * 40;
        match kind[0] % 3 {
            0 => bytes.resize(bytes.len() + run, 0),
            1 => bytes.extend(noise(number, run)),
            _ => bytes
                .extend(format!("line {number} of some text that repeats itself\n").repeat(run / 40).bytes()),
        }
        number += 1;
    }
    bytes.truncate(len);
    bytes
}

/// Asserts that verification with all data finds no damage.
pub fn undamaged(repository: &Repository<'_>) {
    let report =
        verify(repository, &VerifyJob::everything(ReadData::Everything, NOW), &Quiet).expect("it verifies");
    let damage: Vec<_> = report.findings.iter().filter(|finding| finding.kind.is_damage()).collect();
    assert!(damage.is_empty(), "{damage:?}");
}
