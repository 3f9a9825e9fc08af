//! The stages of a restore: requests, opening, writing, and remembering what is complete.

use super::existing::Existing;
use super::lost::{Lost, LostRange};
use super::plan::Window;
use super::queue::{Queue, Request};
use super::{OnDamage, RestoreJob};
use crate::error::EngineError;
use crate::extent::{Extent, total_length};
use crate::frames::{Fetched, FrameReader, Got, Member, Scratch, lock};
use crate::observer::{Event, Observer, tell};
use crate::threads::{self, Receiver, Tasks, scope, tasks};
use repo_format::FrameKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A hole is made in at most so many steps that are longer than a window.
const HOLE_STEPS: u64 = 1 << 16;
/// Threads that wait for reads. Requests are of some MiB where nothing was deduplicated: so many of them in 80 ms are as
/// much as 10 Gbit/s carry. Where they are small, round trips are what limits.
const FETCH_THREADS: usize = 32;
/// A target is flushed for the journal when so many bytes are complete that were not: so little is done twice, and
/// flushing costs little.
const FLUSH_LEN: u64 = 1 << 30;

/// One way through a disk.
pub(super) struct Run<'a, 'r, 's> {
    frames: &'a FrameReader<'r, 's>,
    job: &'a RestoreJob<'a>,
    existing: Option<&'a Existing<'a>>,
    observer: &'a dyn Observer,
    totals: &'a Totals,
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

/// What was done, in bytes.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) written: AtomicU64,
    pub(super) zeroed: AtomicU64,
    pub(super) fetched: AtomicU64,
    pub(super) needed: AtomicU64,
    pub(super) lost: Mutex<Lost>,
}

impl Totals {
    /// Forgets what was lost, for everything to be looked at once more.
    pub(super) fn forget_lost(&self) {
        *lock(&self.lost) = Lost::default();
    }
}

impl<'a, 'r, 's> Run<'a, 'r, 's> {
    pub(super) fn new(
        frames: &'a FrameReader<'r, 's>,
        job: &'a RestoreJob<'a>,
        existing: Option<&'a Existing<'a>>,
        totals: &'a Totals,
        observer: &'a dyn Observer,
        queue: Queue,
    ) -> Self {
        let (failure, scratches) = (Mutex::default(), Mutex::default());
        Self { frames, job, existing, observer, totals, failure, scratches, queue }
    }

    /// The first failure, if there was any.
    pub(super) fn failure(&self) -> Result<(), EngineError> {
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    /// Restores the windows that are planned.
    pub(super) fn windows(&self, planned: Receiver<Result<Window, EngineError>>) -> Result<(), EngineError> {
        tasks(|tasks| {
            scope(|threads| {
                for _ in 0..threads::waiting(FETCH_THREADS) {
                    threads.spawn(move || self.fetch_all(tasks));
                }
                self.note(self.open_all(planned));
                self.queue.complete();
            });
        });
        self.queue.close();
        self.failure()
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
    pub(super) fn keep_journal(&self, completed: Receiver<Vec<Extent>>) {
        let Some(journal) = self.job.journal else { return };
        let mut pending = Vec::new();
        let write_down = |pending: &mut Vec<Extent>| {
            let flushed = self.job.target.flush();
            flushed.map_err(|source| EngineError::Target { offset: self.job.disk.size, source })?;
            journal.add(&std::mem::take(pending)).map_err(EngineError::from)
        };
        for covers in completed {
            pending.extend(covers);
            if total_length(&pending) >= FLUSH_LEN
                && !self.queue.is_stopped()
                && let Err(error) = write_down(&mut pending)
            {
                // Nothing more is remembered: what could not be made durable is said to be so the next time by systems that
                // have given it up.
                return self.note(Err(error));
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
                self.totals.zeroed.fetch_add(part.length, Ordering::Relaxed);
                tell(self.observer, Event::Progress(part.length))?;
                start = part.end();
            }
        }
        window.lost.iter().try_for_each(|range| self.lose(range.clone()))
    }

    /// Fetches what is next until there is nothing more, and has it written by rayon.
    fn fetch_all<'t>(&'t self, tasks: Tasks<'_, 't>) {
        while let Some(request) = self.queue.next() {
            let request = Arc::new(request);
            let location = |position: usize| &request.window().chunks[position].location;
            let fetched = self.frames.fetch(request.fetch(), &location, &mut |got| {
                self.note(self.take(tasks, &request, got));
                Ok(())
            });
            self.note(fetched.or_else(|error| self.give_up(&request, &request.fetch().members, error)));
        }
    }

    /// Takes what came of a request, or of a part of it.
    fn take<'t>(
        &'t self,
        tasks: Tasks<'_, 't>,
        request: &Arc<Request<'t>>,
        got: Got,
    ) -> Result<(), EngineError> {
        match got {
            Got::Lost { members, error } => self.give_up(request, &members, error),
            Got::Fetched(fetched) => {
                self.totals.fetched.fetch_add(fetched.len() as u64, Ordering::Relaxed);
                self.totals.needed.fetch_add(fetched.fetch.needed_bytes(), Ordering::Relaxed);
                tell(self.observer, Event::Transferred(fetched.len() as u64))?;
                let request = Arc::clone(request);
                tasks.spawn(move || self.note(self.write(&request, fetched)));
                Ok(())
            }
        }
    }

    /// Opens the frames of one fetch and writes each to all its places.
    fn write(&self, request: &Request<'_>, mut fetched: Fetched) -> Result<(), EngineError> {
        let window = request.window();
        let mut spare = lock(&self.scratches).pop().unwrap_or_default();
        let Spare { scratch, there } = &mut spare;
        let (mut done, mut written) = (0, 0);
        let fetch = Arc::clone(&fetched.fetch);
        let location = |position: usize| &window.chunks[position].location;
        for members in fetch.frames(&location) {
            if self.queue.is_stopped() {
                return Ok(());
            }
            let Member { location: first, place } = members[0];
            let chunk = (FrameKind::Chunk, location(first));
            let result = self.frames.open(&mut fetched, place, chunk, scratch);
            if let Err(error) = result {
                self.give_up(request, members, error)?;
                continue;
            }
            for offset in members.iter().map(|member| window.chunks[member.location].offset) {
                let (target, plain) = (self.job.target, scratch.plain());
                let len = plain.len() as u64;
                written += match self.existing {
                    Some(existing) => existing.write(target, offset, plain, there)?,
                    None => target_result(target.write_at(offset, plain), offset).map(|()| len)?,
                };
                done += len;
            }
        }
        self.totals.written.fetch_add(written, Ordering::Relaxed);
        lock(&self.scratches).push(spare);
        tell(self.observer, Event::Progress(done))
    }

    /// Does without some chunks, if that is what was asked for and the error is damage.
    fn give_up(
        &self,
        request: &Request<'_>,
        members: &[Member],
        error: EngineError,
    ) -> Result<(), EngineError> {
        for extent in members.iter().map(|member| request.window().chunks[member.location].extent()) {
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
        lock(&self.totals.lost).add(range);
        tell(self.observer, Event::Progress(length))
    }

    fn unrestorable(&self, extent: Extent, source: EngineError) -> EngineError {
        match source {
            error @ (EngineError::Cancelled | EngineError::ForgottenMeanwhile { .. }) => error,
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

/// The error for a target that cannot be written at an offset.
pub(super) fn target_result(result: std::io::Result<()>, offset: u64) -> Result<(), EngineError> {
    result.map_err(|source| EngineError::Target { offset, source })
}
