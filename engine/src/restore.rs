//! Restoring one disk: `root > map > plan by pack, ranges merged > get > open, decompress, check > write`.
//!
//! The disk is restored in address windows. Within one window requests go by pack, in any order, and no byte is
//! fetched twice; all of a window is written before the next but one begins. No index is read.
//!
//! Nothing waits for a round trip but the beginning: windows are planned ahead, requests of two windows are under way
//! together, and a pack's header comes with its first range or at the same time.
//!
//! Onto a disk that is there, only what differs is fetched and written ([`Onto::Existing`]): every chunk's place is read and
//! hashed, or those in given areas only. An interrupted restore goes on in the same way, but for what its [`Journal`] says
//! to be complete.
//!
//! Damage ends a restore, or leaves zeros where what it harms was, as [`OnDamage`] says. A store or a target that
//! fails always ends it.
//!
//! # Memory
//! The plans of `WINDOWS_OPEN + 1` windows (about 140 bytes for each chunk), `BYTES_IN_FLIGHT` of fetched bytes, one
//! decoded chunk for each thread, what the target buffers, directories of packs that others were repacked into (see
//! `moved`), and a bounded list of what was lost. Onto a disk that is
//! there, for each thread 4 MiB of it.

mod areas;
mod existing;
mod journal;
mod lost;
mod plan;
mod queue;
mod run;

pub use areas::{Tracked, tracked_areas};
pub use journal::{Journal, JournalError, JournalHead, Left};
pub use lost::LostRange;
pub use queue::WINDOWS_OPEN;

use crate::backup::Audit;
use crate::backup::sample::audited_regions;
use crate::error::EngineError;
use crate::extent::{Extent, common, gaps, normalized, total_length};
use crate::frames::FrameReader;
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::repository::Repository;
use crate::source::DiskSource;
use crate::target::DiskTarget;
use crate::threads::{channel, scope, sync_channel};
use existing::Existing;
use plan::Planner;
use queue::Queue;
use repo_format::{Disk, SessionId};
use run::{Run, Totals};
use serde::Serialize;
use std::sync::PoisonError;

/// A window's default length, without its holes: large enough that a pack of a first backup lies within one or two.
pub const WINDOW_LEN: u64 = 1 << 30;

/// One disk of a snapshot, and where it goes.
pub struct RestoreJob<'a> {
    /// The snapshot's id, for the report.
    pub snapshot: SessionId,
    /// The disk.
    pub disk: &'a Disk,
    /// Where it goes.
    pub target: &'a dyn DiskTarget,
    /// What is there already.
    pub onto: Onto<'a>,
    /// Where is kept what is complete. What it says to be complete is left as it is.
    pub journal: Option<&'a Journal>,
    /// The window's length without its holes, at least a region's: a target that needs order has to buffer [`WINDOWS_OPEN`] of them.
    pub window_len: u64,
    /// What to do about data that is damaged or missing.
    pub on_damage: OnDamage,
}

/// What a restore goes onto.
#[derive(Clone, Copy)]
pub enum Onto<'a> {
    /// Nothing that matters: all is written.
    New,
    /// A disk that may be the same in parts: only blocks that differ are written.
    Existing {
        /// The disk that the target is, as it is while nobody else writes to it.
        source: &'a dyn DiskSource,
        /// Where it may differ.
        differing: Differing<'a>,
    },
}

/// Where a disk may differ from what it is to be.
#[derive(Clone, Copy)]
pub enum Differing<'a> {
    /// Anywhere.
    Anywhere,
    /// In these areas, sorted, apart and within the disk, as something tells that may be wrong: some regions beside them are
    /// looked at, too, and if they differ, everything is.
    Told {
        /// The areas.
        areas: &'a [Extent],
        /// How many regions are looked at, and which. Without a seed they are always the same.
        audit: Audit,
    },
}

/// What a restore does where something stored is damaged or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Fails.
    Stop,
    /// Makes the range zero in the target, lists it, and restores everything else.
    KeepGoing,
}

/// The result of a restore; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// The snapshot's id.
    pub snapshot: String,
    /// The disk's key.
    pub disk: String,
    /// Its length.
    pub disk_bytes: u64,
    /// Bytes written that are not holes.
    pub written_bytes: u64,
    /// Bytes that were made zero, or left zero in a new target.
    pub zero_bytes: u64,
    /// Bytes that were there already, and were not written.
    pub unchanged_bytes: u64,
    /// Bytes that were read of what the target held.
    pub compared_bytes: u64,
    /// Bytes of packs that were fetched for it, without maps.
    pub fetched_bytes: u64,
    /// Those of them that were needed: each chunk once in a window, as it is stored.
    pub needed_bytes: u64,
    /// Regions that were looked at although nothing was told to differ there.
    pub audited_regions: u64,
    /// Where the disk differed although that was not told, in order. If there is any such range, everything was looked at
    /// and is right now.
    pub untold: Vec<Extent>,
    /// What could not be restored, in order; adjacent ranges of one cause are one.
    pub lost: Vec<LostRange>,
    /// The bytes that could not be restored.
    pub lost_bytes: u64,
    /// Whether there were so many lost ranges that near ones were joined: then a listed range holds bytes that were
    /// restored too, and tells the cause of its first part only.
    pub lost_joined: bool,
}

/// Restores a disk. When this returns without an error, every byte of the target has been written, checked against
/// its id, or made zero, and is durable; what was made zero because it is lost is in the report.
///
/// # Errors
/// The first failure; damage is none with [`OnDamage::KeepGoing`]. The target is then incomplete, and was not finished.
pub fn restore(
    repository: &Repository<'_>,
    job: &RestoreJob<'_>,
    observer: &dyn Observer,
) -> Result<RestoreReport, EngineError> {
    let disk = job.disk;
    if rayon::current_thread_index().is_some() {
        // It would keep the thread busy that its tasks wait for.
        return Err(EngineError::BadJob("a restore cannot run in a thread of the rayon pool that it uses"));
    }
    repository.data_keys()?;
    begin(observer, Phase::Restore { disk: disk.key.clone() }, disk.size)?;
    let frames = FrameReader::of_snapshots(repository, vec![job.snapshot]);
    let shape = Shape::new(&repository.config().geometry, disk.size);
    let map = MapReader::new(&frames, shape, disk.map.clone());
    let (told, audited) = job.told(&shape);
    let existing = match job.onto {
        Onto::New => None,
        Onto::Existing { source, .. } => Some(Existing::open(source, told, repository.keys())?),
    };
    let existing = existing.as_ref();
    let totals = Totals::default();
    let pass = |areas: Option<&[Extent]>| pass(&map, job, existing, areas, &totals, observer);
    let passed = pass(job.areas(told, &audited, &shape).as_deref());
    let untold = existing.map_or_else(Vec::new, Existing::untold);
    let noted = job.journal.filter(|_| !untold.is_empty()).map_or(Ok(()), Journal::note_untold);
    passed?;
    noted?;
    if !untold.is_empty() {
        // What told the changes was wrong: who knows where else. What is right by now is not written again.
        job.target.flush().map_err(|source| EngineError::Target { offset: disk.size, source })?;
        totals.forget_lost();
        begin(observer, Phase::Restore { disk: disk.key.clone() }, disk.size)?;
        pass(None)?;
    }
    job.target.finish().map_err(|source| EngineError::Target { offset: disk.size, source })?;
    let Totals { written, zeroed, fetched, needed, lost } = totals;
    let (lost, lost_bytes, lost_joined) = lost.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    let (written_bytes, zero_bytes) = (written.into_inner(), zeroed.into_inner());
    Ok(RestoreReport {
        snapshot: job.snapshot.to_string(),
        disk: disk.key.clone(),
        disk_bytes: disk.size,
        written_bytes,
        zero_bytes,
        // Chunks reach beyond the areas that they are looked at for: what is left is counted, not what is passed.
        unchanged_bytes: disk.size.saturating_sub(written_bytes + zero_bytes + lost_bytes),
        compared_bytes: existing.map_or(0, Existing::read_bytes),
        fetched_bytes: fetched.into_inner(),
        needed_bytes: needed.into_inner(),
        audited_regions: audited.len() as u64,
        untold,
        lost,
        lost_bytes,
        lost_joined,
    })
}

/// Restores a disk, or what of it is in some areas.
fn pass(
    map: &MapReader<'_, '_, '_>,
    job: &RestoreJob<'_>,
    existing: Option<&Existing<'_>>,
    areas: Option<&[Extent]>,
    totals: &Totals,
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    if let Some(areas) = areas {
        // The rest is left as it is without being looked at.
        tell(observer, Event::Progress(job.disk.size - total_length(areas)))?;
    }
    let (complete, completed) = channel();
    let run = Run::new(map.frames(), job, existing, totals, observer, Queue::new(complete));
    let (window_len, on_damage) = (job.window_len, job.on_damage);
    let course = Planner { map, window_len, on_damage, areas, existing };
    let (plans, planned) = sync_channel(0);
    let restored = scope(|threads| {
        threads.spawn(|| course.plan_windows(plans));
        threads.spawn(|| run.keep_journal(completed));
        // By value: a failure drops the receiver, and with that ends the planning.
        run.windows(planned)
    });
    // What the journal's thread found out at the end counts too.
    restored.and_then(|()| run.failure())
}

impl<'a> RestoreJob<'a> {
    /// A restore of all of a disk onto nothing that matters, without a journal, in windows of the default length, which
    /// damage ends.
    pub fn new(snapshot: SessionId, disk: &'a Disk, target: &'a dyn DiskTarget) -> Self {
        let (onto, on_damage) = (Onto::New, OnDamage::Stop);
        Self { snapshot, disk, target, onto, journal: None, window_len: WINDOW_LEN, on_damage }
    }

    /// The areas that something told, and the regions that are looked at beside them.
    fn told(&self, shape: &Shape) -> (Option<&'a [Extent]>, Vec<u64>) {
        let Onto::Existing { differing: Differing::Told { areas, audit }, .. } = self.onto else {
            return (None, Vec::new());
        };
        let region_len = u64::from(shape.region_len);
        (Some(areas), audited_regions(audit, areas, shape.size, region_len, &self.disk.key))
    }

    /// What is restored of the disk, if that is not everything.
    fn areas(&self, told: Option<&[Extent]>, audited: &[u64], shape: &Shape) -> Option<Vec<Extent>> {
        let region = |region: &u64| {
            let start = region * u64::from(shape.region_len);
            Extent { start, length: shape.region_bytes(*region).into() }
        };
        let areas =
            told.map(|told| normalized([told, &audited.iter().map(region).collect::<Vec<_>>()].concat()));
        // What a journal says to be there is not in a new target.
        let journal = self.journal.filter(|_| matches!(self.onto, Onto::Existing { .. }));
        let done = journal.map(Journal::done).filter(|done| !done.is_empty());
        let left = done.map(|done| gaps(done, Extent { start: 0, length: self.disk.size }));
        match (areas, left) {
            (Some(areas), Some(left)) => Some(common(&areas, &left)),
            (areas, left) => areas.or(left),
        }
    }
}
