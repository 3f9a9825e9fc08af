//! Everything that the engine does with a repository, and how it ends, as text that tells the variants of errors.

use crate::forge::{VM, World};
use crate::world::{NOW, PASSWORD, back_up_reading, memory_index};
use keepstone_engine::backup::Reading;
use keepstone_engine::diff::diff;
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::restore::{RestoreJob, restore};
use keepstone_engine::snapshots::{Selector, Snapshot, find, list};
use keepstone_engine::stats::stats;
use keepstone_engine::store::StoreError;
use keepstone_engine::target::MemoryTarget;
use keepstone_engine::verify::{FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{DiskTarget, EngineError, Repository};
use repo_format::FormatError;
use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a case is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Open,
    List,
    Show,
    Restore,
    Verify,
    VerifyData,
    Diff,
    Stats,
    Sync,
    Incremental,
    Full,
    /// Verify with all data, after those two.
    After,
}

impl Verb {
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::List,
        Self::Show,
        Self::Restore,
        Self::Verify,
        Self::VerifyData,
        Self::Diff,
        Self::Stats,
        Self::Sync,
        // Last: they add to the repository.
        Self::Incremental,
        Self::Full,
        Self::After,
    ];

    /// Runs the verb; "ok", or what is wrong.
    pub fn run(self, world: &World) -> String {
        self.outcome(world).unwrap_or_else(|error| kinds(&error))
    }

    fn outcome(self, world: &World) -> Result<String, EngineError> {
        let repository = Repository::open(&world.store, PASSWORD)?;
        let target = || find(&repository, &Selector::Id(world.target.to_string()));
        match self {
            Self::Open => Ok(ok()),
            Self::List => listed(&repository),
            Self::Show => target().map(|_| ok()),
            Self::Restore => restored(&repository, &target()?, world),
            Self::Verify => verified(&repository, ReadData::Nothing),
            Self::VerifyData | Self::After => verified(&repository, ReadData::Everything),
            Self::Diff => {
                let (a, b) = (&world.first.commit.disks[0], target()?);
                diff(&repository, a, &b.commit.disks[0]).map(|_| ok())
            }
            Self::Stats => stats(&repository).map(|_| ok()),
            Self::Sync => synchronised(&repository),
            Self::Incremental => backed_up(&repository, world, Reading::Changes, 0x60),
            Self::Full => backed_up(&repository, world, Reading::Everything, 0x70),
        }
    }
}

fn ok() -> String {
    "ok".to_owned()
}

fn listed(repository: &Repository<'_>) -> Result<String, EngineError> {
    let found = list(repository, None)?;
    let unreadable: BTreeSet<String> = found.unreadable.iter().map(|(_, error)| kinds(error)).collect();
    if unreadable.is_empty() { Ok(ok()) } else { Ok(unreadable.into_iter().collect::<Vec<_>>().join(", ")) }
}

fn verified(repository: &Repository<'_>, read_data: ReadData) -> Result<String, EngineError> {
    let report = verify(repository, &VerifyJob::everything(read_data, NOW + 1000), &Quiet)?;
    // The thief writes no intent and no index, which is nobody's damage.
    let missing = [FindingKind::MissingIntent, FindingKind::MissingIndex];
    let told = report.findings.iter().filter(|found| !missing.contains(&found.kind));
    let found: BTreeSet<String> = told.map(|found| format!("{:?}", found.kind)).collect();
    if found.is_empty() { Ok(ok()) } else { Ok(found.into_iter().collect::<Vec<_>>().join(", ")) }
}

fn synchronised(repository: &Repository<'_>) -> Result<String, EngineError> {
    let mut index = memory_index(repository);
    let report = sync(&mut index, repository.store(), repository.keys(), &Preference::default(), &Quiet)?;
    if report.skipped == 0 { Ok(ok()) } else { Ok(format!("{} skipped", report.skipped)) }
}

/// A full disk: it takes so many bytes, zeros not counted, and then no more.
struct SmallTarget {
    left: AtomicU64,
}

impl DiskTarget for SmallTarget {
    fn write_at(&self, _: u64, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        let taken =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(len));
        taken.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }

    fn zero_at(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The longest disk that is restored into memory.
const IN_MEMORY_MAX: u64 = 16 << 20;

fn restored(repository: &Repository<'_>, snapshot: &Snapshot, world: &World) -> Result<String, EngineError> {
    let disk = &snapshot.commit.disks[0];
    let job = |target| RestoreJob::new(snapshot.session(), disk, target);
    if disk.size > IN_MEMORY_MAX {
        let target = SmallTarget { left: AtomicU64::new(1 << 20) };
        return restore(repository, &job(&target), &Quiet).map(|_| ok());
    }
    let target = MemoryTarget::new(usize::try_from(disk.size).expect("a small disk"));
    restore(repository, &job(&target), &Quiet)?;
    if world.is_honest && target.into_bytes() != world.disk.bytes {
        return Ok("other bytes".to_owned());
    }
    Ok(ok())
}

/// Backs the disk up, unchanged, and restores what came of it.
fn backed_up(
    repository: &Repository<'_>,
    world: &World,
    reading: Reading,
    run: u8,
) -> Result<String, EngineError> {
    let mut index = memory_index(repository);
    sync(&mut index, repository.store(), repository.keys(), &Preference::default(), &Quiet)?;
    let report = back_up_reading(repository, &mut index, VM, &[("disk0", &world.disk)], run, reading)?;
    let made = find(repository, &Selector::Id(report.snapshot.to_string()))?;
    Ok(match crate::world::restored(repository, &made, "disk0") {
        Ok(bytes) if bytes == world.disk.bytes => ok(),
        Ok(_) => "ok, but other bytes".to_owned(),
        Err(error) => format!("ok, but {}", kinds(&error)),
    })
}

/// The variants of an error and its causes.
fn kinds(error: &EngineError) -> String {
    let mut kinds = Vec::new();
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<FormatError>() {
            kinds.push(match error {
                FormatError::BadValue(what) => (*what).to_owned(),
                other => variant(other),
            });
            // Below is what a parser of JSON says, in its own words.
            break;
        }
        let boxed = error.downcast_ref::<Box<EngineError>>().map(Box::as_ref);
        kinds.push(match error.downcast_ref::<EngineError>().or(boxed) {
            Some(EngineError::Store(error)) => variant(error),
            Some(error @ (EngineError::WrongPassword { .. } | EngineError::TooManySlots { .. })) => {
                format!("{error:?}")
            }
            Some(error) => variant(error),
            None => error.downcast_ref::<StoreError>().map_or_else(|| "io".to_owned(), variant),
        });
        cause = error.source();
    }
    kinds.join(" > ")
}

/// The name of a value's variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned()
}
