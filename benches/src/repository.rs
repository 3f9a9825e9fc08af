//! Repositories and backups with everything at its default, and all randomness from fixed seeds.

use keepstone_engine::backup::{
    Audit, BackupJob, BackupReport, Compression, JobDisk, Reading, Unfinished, backup,
};
use keepstone_engine::index::LocalIndex;
use keepstone_engine::observer::Quiet;
use keepstone_engine::repository::{NewSlot, unlock_retention};
use keepstone_engine::{BlobStore, DiskSource, EngineError, Entropy, Repository};
use repo_format::{Geometry, KdfParams, RetentionKey, SlotName, WriterId};
use std::path::Path;

/// The time of the first backup, milliseconds since 1970.
const EPOCH: u64 = 1_800_000_000_000;
const PASSWORD: &[u8] = b"benchmark";
const INDEX_BUDGET: u64 = 8 << 30;
/// The key of the only disk of every VM.
pub const DISK: &str = "disk0";

/// Creates a repository with the default geometry. Its keys are always the same, and so are the chunks of a disk.
///
/// # Errors
/// A failing store, or one that is not empty.
///
/// # Panics
/// Never.
pub fn create(store: &dyn BlobStore) -> Result<Repository<'_>, EngineError> {
    create_with(store, Geometry::default())
}

/// As [`create`], with another geometry.
///
/// # Errors
/// As [`create`].
///
/// # Panics
/// Never.
pub fn create_with(store: &dyn BlobStore, geometry: Geometry) -> Result<Repository<'_>, EngineError> {
    let name = SlotName::new("bench").expect("it keeps to the rules of names");
    // Guessing the password costs nothing: opening repositories is not what is measured.
    let kdf = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };
    let slot = NewSlot { name: &name, label: "benchmark", password: PASSWORD, kdf, time: EPOCH };
    let retention =
        NewSlot { name: &SlotName::new("retention").expect("it keeps to the rules of names"), ..slot };
    Repository::create(store, geometry, &slot, &retention, &Entropy::new([0x5a; 32]))
}

/// Opens a repository that [`create`] made.
///
/// # Errors
/// A failing store, or another repository.
pub fn open(store: &dyn BlobStore) -> Result<Repository<'_>, EngineError> {
    Repository::open(store, PASSWORD)
}

/// Unlocks the retention key of a repository that [`create`] made.
///
/// # Errors
/// As [`open`].
pub fn retention_key(repository: &Repository<'_>) -> Result<RetentionKey, EngineError> {
    unlock_retention(repository, PASSWORD)
}

/// Opens the local index of a repository, in a directory or in memory.
///
/// # Errors
/// A directory that cannot be used.
pub fn open_index(repository: &Repository<'_>, directory: Option<&Path>) -> Result<LocalIndex, EngineError> {
    let key = repository.keys().local_key("keepstone v0 local index");
    Ok(LocalIndex::open(directory, repository.config().repository, key, INDEX_BUDGET)?)
}

/// Returns the writer of all backups.
///
/// # Panics
/// Never.
#[must_use]
pub fn writer() -> WriterId {
    WriterId::new("bench").expect("it keeps to the rules of names")
}

/// One backup of one VM.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The VM.
    pub vm: &'a str,
    /// Its disk.
    pub source: &'a dyn DiskSource,
    /// zstd's level.
    pub level: i32,
    /// Another number for every backup of the VM: its time and randomness follow from it.
    pub number: u8,
}

/// Backs up.
///
/// # Errors
/// Those of [`backup`].
pub fn back_up(
    repository: &Repository<'_>,
    index: &mut LocalIndex,
    run: &Run<'_>,
) -> Result<BackupReport, EngineError> {
    let job = BackupJob {
        vm: run.vm,
        writer: &writer(),
        disks: vec![JobDisk::new(DISK, run.source)],
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(run.level),
        tags: Vec::new(),
        properties: Vec::new(),
        time: EPOCH + u64::from(run.number),
        program: "benchmark",
        entropy: Entropy::new(*blake3::hash(format!("{} {}", run.number, run.vm).as_bytes()).as_bytes()),
        unfinished: Unfinished::Ended,
        checkpoint_due: &|| false,
    };
    backup(repository, index, &job, &Quiet)
}
