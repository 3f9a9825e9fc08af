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
//! The plans of `WINDOWS_OPEN + 1` windows (about 120 bytes for each chunk), `BYTES_IN_FLIGHT` of fetched bytes, one
//! decoded chunk for each thread, what the target buffers, and a bounded list of what was lost. Onto a disk that is
//! there, for each thread 4 MiB of it.

mod areas;
mod existing;
mod journal;
mod lost;
mod plan;
mod queue;

pub use areas::{Tracked, tracked_areas};
pub use journal::{Journal, JournalError, JournalHead};
pub use lost::LostRange;
pub use queue::WINDOWS_OPEN;

use crate::error::EngineError;
use crate::extent::{Extent, common, remaining, total_length};
use crate::frames::{FrameReader, Scratch, lock};
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::repository::Repository;
use crate::source::DiskSource;
use crate::target::DiskTarget;
use existing::Existing;
use lost::Lost;
use plan::{Placement, Planner, Window};
use queue::{Queue, Request};
use repo_format::{Disk, FrameKind, PackOpener, SessionId};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// A window's default length, without its holes: large enough that a pack of a first backup lies within one or two.
pub const WINDOW_LEN: u64 = 1 << 30;
/// A hole is made in at most so many steps that are longer than a window.
const HOLE_STEPS: u64 = 1 << 16;
/// Threads that wait for reads. Requests are of some MiB where nothing was deduplicated: so many of them in 80 ms are as
/// much as 10 Gbit/s carry. Where they are small, round trips are what limits.
const FETCH_THREADS: usize = 32;

/// A target is flushed for the journal when so many bytes are complete that were not: so little is done twice, and
/// flushing costs little.
const FLUSH_LEN: u64 = 1 << 30;

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
        /// The areas that may differ, sorted, apart and within the disk; everything, if that is not known.
        areas: Option<&'a [Extent]>,
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
    begin(observer, Phase::Restore { disk: disk.key.clone() }, disk.size)?;
    let frames = FrameReader::new(repository);
    let shape = Shape::new(&repository.config().geometry, disk.size);
    let map = MapReader::new(&frames, shape, disk.map.clone());
    let existing = match job.onto {
        Onto::New => None,
        Onto::Existing { source, .. } => Some(Existing::open(source, repository.keys())?),
    };
    let (complete, completed) = channel();
    let run = Run {
        frames: &frames,
        job,
        existing: existing.as_ref(),
        observer,
        written: AtomicU64::new(0),
        fetched: AtomicU64::new(0),
        zeroed: AtomicU64::new(0),
        lost: Mutex::default(),
        failure: Mutex::default(),
        scratches: Mutex::default(),
        queue: Queue::new(complete),
    };
    let areas = job.areas();
    if let Some(areas) = &areas {
        // The rest is left as it is without being looked at.
        tell(observer, Event::Progress(disk.size - total_length(areas)))?;
    }
    let course = Planner {
        map: &map,
        window_len: job.window_len,
        on_damage: job.on_damage,
        areas: areas.as_deref(),
        existing: existing.as_ref(),
    };
    let (plans, planned) = sync_channel(0);
    let restored = std::thread::scope(|threads| {
        threads.spawn(|| course.plan_windows(plans));
        threads.spawn(|| run.keep_journal(completed));
        // By value: a failure drops the receiver, and with that ends the planning.
        let restored = run.windows(planned);
        run.queue.close();
        restored
    });
    // What the journal's thread found out at the end counts too.
    restored.and_then(|()| lock(&run.failure).take().map_or(Ok(()), Err))?;
    job.target.finish().map_err(|source| EngineError::Target { offset: disk.size, source })?;
    let (lost, lost_bytes, lost_joined) =
        run.lost.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    let (written_bytes, zero_bytes) = (run.written.into_inner(), run.zeroed.into_inner());
    Ok(RestoreReport {
        snapshot: job.snapshot.to_string(),
        disk: disk.key.clone(),
        disk_bytes: disk.size,
        written_bytes,
        zero_bytes,
        // Chunks reach beyond the areas that they are looked at for: what is left is counted, not what is passed.
        unchanged_bytes: disk.size - written_bytes - zero_bytes - lost_bytes,
        compared_bytes: existing.as_ref().map_or(0, Existing::read_bytes),
        fetched_bytes: run.fetched.into_inner(),
        lost,
        lost_bytes,
        lost_joined,
    })
}

impl<'a> RestoreJob<'a> {
    /// A restore of all of a disk onto nothing that matters, without a journal, in windows of the default length, which
    /// damage ends.
    pub fn new(snapshot: SessionId, disk: &'a Disk, target: &'a dyn DiskTarget) -> Self {
        let (onto, on_damage) = (Onto::New, OnDamage::Stop);
        Self { snapshot, disk, target, onto, journal: None, window_len: WINDOW_LEN, on_damage }
    }

    /// What is restored of the disk, if that is not everything.
    fn areas(&self) -> Option<Vec<Extent>> {
        let areas = match self.onto {
            Onto::Existing { areas, .. } => areas,
            Onto::New => None,
        };
        let done = self.journal.map(Journal::done).filter(|done| !done.is_empty());
        let left = done.map(|done| remaining(done, self.disk.size));
        match (areas, left) {
            (Some(areas), Some(left)) => Some(common(areas, &left)),
            (Some(areas), None) => Some(areas.to_vec()),
            (None, left) => left,
        }
    }
}

struct Run<'a, 'r, 's> {
    frames: &'a FrameReader<'r, 's>,
    job: &'a RestoreJob<'a>,
    existing: Option<&'a Existing<'a>>,
    observer: &'a dyn Observer,
    written: AtomicU64,
    fetched: AtomicU64,
    zeroed: AtomicU64,
    lost: Mutex<Lost>,
    failure: Mutex<Option<EngineError>>,
    scratches: Mutex<Vec<Spare>>,
    queue: Queue,
}

/// What a thread needs to open chunks and to write them, used again and again.
#[derive(Default)]
struct Spare {
    scratch: Scratch,
    there: Vec<u8>,
}

impl Run<'_, '_, '_> {
    fn windows(&self, planned: Receiver<Result<Window, EngineError>>) -> Result<(), EngineError> {
        rayon::in_place_scope(|tasks| {
            std::thread::scope(|threads| {
                for _ in 0..FETCH_THREADS {
                    threads.spawn(|| self.fetch_all(tasks));
                }
                self.note(self.open_all(planned));
                self.queue.complete();
            });
        });
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    /// Takes up window after window.
    #[expect(clippy::needless_pass_by_value, reason = "dropping the receiver ends the planning")]
    fn open_all(&self, planned: Receiver<Result<Window, EngineError>>) -> Result<(), EngineError> {
        // The next plan is taken over when there is room for it, so that no more of them are in memory.
        while self.queue.has_room()
            && let Ok(window) = planned.recv()
        {
            let window = window?;
            self.make_holes(&window)?;
            self.queue.add(window);
        }
        Ok(())
    }

    /// Writes down what is complete, each time when that is much, and when the restore has failed.
    fn keep_journal(&self, completed: Receiver<Vec<Extent>>) {
        let Some(journal) = self.job.journal else { return };
        let mut pending = Vec::new();
        let write_down = |pending: &mut Vec<Extent>| {
            let flushed = self.job.target.flush();
            flushed.map_err(|source| EngineError::Target { offset: self.job.disk.size, source })?;
            journal.add(&std::mem::take(pending)).map_err(EngineError::from)
        };
        for covers in completed {
            pending.extend(covers);
            if total_length(&pending) >= FLUSH_LEN && !self.queue.is_stopped() {
                self.note(write_down(&mut pending));
            }
        }
        if self.queue.is_stopped() && !pending.is_empty() {
            // The restore has failed already: if this does so too, more of it is compared the next time.
            let _not_remembered = write_down(&mut pending);
        }
    }

    fn make_holes(&self, window: &Window) -> Result<(), EngineError> {
        tell(self.observer, Event::Progress(window.same_bytes))?;
        for hole in &window.holes {
            let step = self.job.window_len.max(hole.length / HOLE_STEPS);
            let mut start = hole.start;
            while let Some(part) = Extent::between(start, hole.end().min(start.saturating_add(step))) {
                target_result(self.job.target.zero_at(part.start, part.length), part.start)?;
                self.zeroed.fetch_add(part.length, Ordering::Relaxed);
                tell(self.observer, Event::Progress(part.length))?;
                start = part.end();
            }
        }
        window.lost.iter().try_for_each(|range| self.lose(range.clone()))
    }

    /// Fetches what is next until there is nothing more, and has it written by rayon.
    fn fetch_all<'t>(&'t self, tasks: &rayon::Scope<'t>) {
        while let Some(request) = self.queue.next() {
            match self.fetch(&request) {
                Ok((opener, bytes)) => tasks.spawn(move |_| self.note(self.write(&request, &opener, bytes))),
                Err(error) => {
                    let window = request.window();
                    let chunks = request.fetch().members.iter().map(|member| &window.chunks[*member]);
                    self.note(self.give_up(&request, chunks, error));
                }
            }
        }
    }

    fn fetch(&self, request: &Request<'_>) -> Result<(Arc<PackOpener>, Vec<u8>), EngineError> {
        let (opener, bytes) = self.frames.fetch(request.fetch())?;
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        tell(self.observer, Event::Transferred(bytes.len() as u64))?;
        Ok((opener, bytes))
    }

    /// Opens the frames of one fetch and writes each to all its places.
    fn write(
        &self,
        request: &Request<'_>,
        opener: &PackOpener,
        mut bytes: Vec<u8>,
    ) -> Result<(), EngineError> {
        let (window, fetch) = (request.window(), request.fetch());
        let mut spare = lock(&self.scratches).pop().unwrap_or_default();
        let Spare { scratch, there } = &mut spare;
        let (mut done, mut written) = (0, 0);
        // Members are sorted by place, so those that share a frame follow each other; it can be opened once.
        let chunk = |member: &usize| &window.chunks[*member];
        for places in fetch.members.chunk_by(|a, b| chunk(a).location == chunk(b).location) {
            if self.queue.is_stopped() {
                return Ok(());
            }
            let location = &chunk(&places[0]).location;
            let result = fetch
                .frame(&mut bytes, location)
                .and_then(|sealed| self.frames.open(opener, FrameKind::Chunk, location, sealed, scratch));
            if let Err(error) = result {
                self.give_up(request, places.iter().map(chunk), error)?;
                continue;
            }
            for offset in places.iter().map(|member| chunk(member).offset) {
                let (target, plain) = (self.job.target, scratch.plain.as_slice());
                let len = plain.len() as u64;
                written += match self.existing {
                    Some(existing) => existing.write(target, offset, plain, there)?,
                    None => target_result(target.write_at(offset, plain), offset).map(|()| len)?,
                };
                done += len;
            }
        }
        self.written.fetch_add(written, Ordering::Relaxed);
        lock(&self.scratches).push(spare);
        tell(self.observer, Event::Progress(done))
    }

    /// Does without some chunks, if that is what was asked for and the error is damage.
    fn give_up<'c>(
        &self,
        request: &Request<'_>,
        chunks: impl IntoIterator<Item = &'c Placement>,
        error: EngineError,
    ) -> Result<(), EngineError> {
        for extent in chunks.into_iter().map(Placement::extent) {
            match (self.job.on_damage, LostRange::new(extent, &error)) {
                (OnDamage::KeepGoing, Some(range)) => {
                    request.lose();
                    self.lose(range)?;
                }
                _ => return Err(self.unrestorable(extent, error)),
            }
        }
        Ok(())
    }

    /// Leaves zeros where something is lost: an old byte of a device must not pass for one of the disk.
    fn lose(&self, range: LostRange) -> Result<(), EngineError> {
        let Extent { start, length } = range.extent();
        target_result(self.job.target.zero_at(start, length), start)?;
        lock(&self.lost).add(range);
        tell(self.observer, Event::Progress(length))
    }

    fn unrestorable(&self, extent: Extent, source: EngineError) -> EngineError {
        match source {
            EngineError::Cancelled => EngineError::Cancelled,
            source => EngineError::Unrestorable {
                disk: self.job.disk.key.clone(),
                offset: extent.start,
                length: extent.length,
                source: Box::new(source),
            },
        }
    }

    fn note(&self, result: Result<(), EngineError>) {
        if let Err(error) = result {
            lock(&self.failure).get_or_insert(error);
            self.queue.stop();
        }
    }
}

fn target_result(result: std::io::Result<()>, offset: u64) -> Result<(), EngineError> {
    result.map_err(|source| EngineError::Target { offset, source })
}
