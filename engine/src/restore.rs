//! Restoring one disk: `root > map > plan by pack, ranges merged > get > open, decompress, check > write`.
//!
//! The disk is restored in address windows. Within one window requests go by pack, in any order, and no byte is
//! fetched twice; all of a window is written before the next one begins. No index is read.
//!
//! # Memory
//! The plans of two windows (about 120 bytes for each chunk), at most `FETCHES_IN_FLIGHT x REQUEST_LEN_MAX` of
//! fetched bytes, one decoded chunk for each thread, and what the target buffers.

use crate::error::EngineError;
use crate::extent::Extent;
use crate::frames::{Fetch, FrameReader, Scratch, lock, plan_fetches};
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::map::sequence::from_pages;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::repository::Repository;
use crate::target::DiskTarget;
use repo_format::{Disk, FrameKind, Location, SessionId};
use serde::Serialize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

/// A window's default length: large enough that a pack of a first backup lies within one or two.
pub const WINDOW_LEN: u64 = 1 << 30;
/// Requests that are fetched and not yet written.
const FETCHES_IN_FLIGHT: usize = 12;
/// Threads that wait for reads.
const FETCH_THREADS: usize = 8;

/// One disk of a snapshot, and where it goes.
pub struct RestoreJob<'a> {
    /// The snapshot's id, for the report.
    pub snapshot: SessionId,
    /// The disk.
    pub disk: &'a Disk,
    /// Where it goes.
    pub target: &'a dyn DiskTarget,
    /// The window's length, at least a region's: what a target that needs order has to buffer.
    pub window_len: u64,
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
    /// Bytes of packs that were fetched for it, without maps.
    pub fetched_bytes: u64,
}

/// A chunk and one place where it goes.
struct Placement {
    offset: u64,
    location: Location,
}

/// What is in one window.
struct Window {
    holes: Vec<Extent>,
    chunks: Vec<Placement>,
    fetches: Vec<Fetch>,
}

/// Restores a disk. When this returns without an error, every byte of the target has been written or made zero,
/// checked against its id, and synced.
///
/// # Errors
/// The first failure. The target is then incomplete, and has not been synced.
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
    let run = Run {
        frames: &frames,
        job,
        observer,
        written: AtomicU64::new(0),
        fetched: AtomicU64::new(0),
        failure: Mutex::default(),
        stopped: AtomicBool::new(false),
        scratches: Mutex::default(),
        permits: Permits { free: Mutex::new(FETCHES_IN_FLIGHT), freed: Condvar::new() },
    };
    let (plans, planned) = sync_channel(1);
    std::thread::scope(|threads| {
        threads.spawn(|| plan_windows(&map, job.window_len, plans));
        // By value: a failure drops the receiver, and with that ends the planning.
        run.windows(planned)
    })?;
    job.target.sync().map_err(|source| EngineError::Target { offset: disk.size, source })?;
    Ok(RestoreReport {
        snapshot: job.snapshot.to_string(),
        disk: disk.key.clone(),
        disk_bytes: disk.size,
        written_bytes: run.written.into_inner(),
        fetched_bytes: run.fetched.into_inner(),
    })
}

/// Plans window after window, one ahead of what is being restored.
#[expect(clippy::needless_pass_by_value, reason = "dropping the sender ends the restore")]
fn plan_windows(
    map: &MapReader<'_, '_, '_>,
    window_len: u64,
    plans: SyncSender<Result<Window, EngineError>>,
) {
    let regions = (window_len / u64::from(map.shape().region_len)).max(1);
    let end = map.shape().regions();
    let mut region = 0;
    while region < end {
        let next = (region + regions).min(end);
        let plan = plan_window(map, region..next);
        let failed = plan.is_err();
        if plans.send(plan).is_err() || failed {
            return;
        }
        region = next;
    }
}

fn plan_window(map: &MapReader<'_, '_, '_>, regions: Range<u64>) -> Result<Window, EngineError> {
    let shape = map.shape();
    let region_len = u64::from(shape.region_len);
    let start = regions.start * region_len;
    let cells: Vec<u64> = regions.clone().flat_map(|region| shape.cells_of_region(region)).collect();
    let mut pages = map.pages(&cells).map_err(|source| MapReader::unreadable(start, source))?.into_iter();
    let mut holes: Vec<Extent> = Vec::new();
    let mut chunks = Vec::new();
    for region in regions {
        let of_region = pages.by_ref().take(shape.cells_of_region(region).count());
        let pieces = from_pages(shape, region, of_region).map_err(|source| {
            MapReader::unreadable(start, EngineError::Damaged { name: map.name(), source })
        })?;
        for piece in pieces {
            let offset = region * region_len + u64::from(piece.start);
            match (piece.at, holes.last_mut()) {
                (Some(location), _) => chunks.push(Placement { offset, location }),
                (None, Some(last)) if last.end() == offset => last.length += u64::from(piece.len),
                (None, _) => holes.push(Extent { start: offset, length: u64::from(piece.len) }),
            }
        }
    }
    let locations: Vec<Location> = chunks.iter().map(|chunk: &Placement| chunk.location.clone()).collect();
    Ok(Window { holes, chunks, fetches: plan_fetches(&locations) })
}

struct Run<'a, 'r, 's> {
    frames: &'a FrameReader<'r, 's>,
    job: &'a RestoreJob<'a>,
    observer: &'a dyn Observer,
    written: AtomicU64,
    fetched: AtomicU64,
    failure: Mutex<Option<EngineError>>,
    stopped: AtomicBool,
    scratches: Mutex<Vec<Scratch>>,
    permits: Permits,
}

impl Run<'_, '_, '_> {
    #[expect(clippy::needless_pass_by_value, reason = "dropping the receiver ends the planning")]
    fn windows(&self, planned: Receiver<Result<Window, EngineError>>) -> Result<(), EngineError> {
        while let Ok(window) = planned.recv() {
            self.window(&window?)?;
        }
        Ok(())
    }

    fn window(&self, window: &Window) -> Result<(), EngineError> {
        for hole in &window.holes {
            target_result(self.job.target.zero_at(hole.start, hole.length), hole.start)?;
            tell(self.observer, Event::Progress(hole.length))?;
        }
        let next = AtomicUsize::new(0);
        rayon::in_place_scope(|tasks| {
            std::thread::scope(|threads| {
                for _ in 0..window.fetches.len().min(FETCH_THREADS) {
                    threads.spawn(|| {
                        while !self.stopped.load(Ordering::Relaxed) {
                            let Some(fetch) = window.fetches.get(next.fetch_add(1, Ordering::Relaxed)) else {
                                return;
                            };
                            let permit = self.permits.take(&self.stopped);
                            match self.fetch(fetch) {
                                Ok(bytes) => tasks.spawn(move |_| {
                                    let _permit = permit;
                                    self.note(self.write(window, fetch, bytes));
                                }),
                                Err(error) => {
                                    self.note(Err(self.unrestorable(window, fetch.members[0], error)));
                                }
                            }
                        }
                    });
                }
            });
        });
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    fn fetch(&self, fetch: &Fetch) -> Result<Vec<u8>, EngineError> {
        // The pack's key is needed to open the frames: getting it is a request too, so it is made here.
        self.frames.opener(&fetch.pack.name)?;
        let bytes = self.frames.fetch(fetch)?;
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        tell(self.observer, Event::Transferred(bytes.len() as u64))?;
        Ok(bytes)
    }

    /// Opens the frames of one fetch and writes each to all its places.
    fn write(&self, window: &Window, fetch: &Fetch, mut bytes: Vec<u8>) -> Result<(), EngineError> {
        let opener = self.frames.opener(&fetch.pack.name)?;
        let mut scratch = lock(&self.scratches).pop().unwrap_or_default();
        let mut in_scratch: Option<&Location> = None;
        let mut done = 0;
        for &member in &fetch.members {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            let chunk = &window.chunks[member];
            // Members are sorted by place, so those that share a frame follow each other.
            if in_scratch != Some(&chunk.location) {
                let start = usize::try_from(u64::from(chunk.location.offset) - fetch.range.start);
                let start = start.expect("an offset within a fetched range");
                let sealed = bytes
                    .get_mut(start..start + chunk.location.stored_len as usize)
                    .expect("a fetched range holds its members");
                self.frames
                    .open_with(&opener, FrameKind::Chunk, &chunk.location, sealed, &mut scratch)
                    .map_err(|error| self.unrestorable(window, member, error))?;
                in_scratch = Some(&chunk.location);
            }
            target_result(self.job.target.write_at(chunk.offset, &scratch.plain), chunk.offset)?;
            done += scratch.plain.len() as u64;
        }
        self.written.fetch_add(done, Ordering::Relaxed);
        lock(&self.scratches).push(scratch);
        tell(self.observer, Event::Progress(done))
    }

    fn unrestorable(&self, window: &Window, member: usize, source: EngineError) -> EngineError {
        let chunk = &window.chunks[member];
        match source {
            EngineError::Cancelled => EngineError::Cancelled,
            source => EngineError::Unrestorable {
                disk: self.job.disk.key.clone(),
                offset: chunk.offset,
                length: u64::from(chunk.location.plain_len),
                source: Box::new(source),
            },
        }
    }

    fn note(&self, result: Result<(), EngineError>) {
        if let Err(error) = result {
            self.stopped.store(true, Ordering::Relaxed);
            lock(&self.failure).get_or_insert(error);
        }
    }
}

fn target_result(result: std::io::Result<()>, offset: u64) -> Result<(), EngineError> {
    result.map_err(|source| EngineError::Target { offset, source })
}

/// A counting semaphore: threads that fetch wait, tasks that write give back.
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Permits {
    fn take<'a>(&'a self, stopped: &'a AtomicBool) -> Permit<'a> {
        let free = lock(&self.free);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit { permits: self, stopped }
    }
}

/// Gives itself back when it is dropped; a panic meanwhile stops everything, so that nobody waits for what will not
/// come.
struct Permit<'a> {
    permits: &'a Permits,
    stopped: &'a AtomicBool,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        *lock(&self.permits.free) += 1;
        self.permits.freed.notify_one();
    }
}
