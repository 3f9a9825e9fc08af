//! What is to be read ahead, and the threads that do it.

use super::DiskView;
use super::ahead::Predictor;
use crate::extent::Extent;
use crate::frames::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::Builder;

/// Threads that read ahead. With a job each they keep as much under way as 5 Gbit/s carry in 80 ms.
const THREADS: usize = 32;
/// What is read ahead at a time, in bytes of the disk.
pub(super) const JOB_LEN: u64 = 2 << 20;
/// Requests that one job has under way at a time, where its chunks do not lie together.
const REQUESTS_OF_JOB: usize = 4;
/// Regions whose maps one thread reads at a time: it holds that much of the map beside what is kept.
const REGIONS_AT_ONCE: usize = 64;
/// Jobs that wait. The oldest are dropped: what was predicted so long ago has been read by now, or will not be.
const JOBS_MAX: usize = 1024;

/// Predictions, and what came of them.
pub(super) struct Ahead {
    predictor: Mutex<Predictor>,
    /// The most that one reader asks to be read ahead.
    bytes_max: u64,
    jobs: Mutex<Jobs>,
    /// There is a job, or there is nothing more to do.
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Those who want to be read ahead of.
    readers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    /// What a range consists of.
    Map(Extent),
    /// Its bytes.
    Data(Extent),
}

impl Ahead {
    pub(super) fn new(size: u64, bytes_max: u64) -> Self {
        Self {
            predictor: Mutex::new(Predictor::new(size, bytes_max)),
            bytes_max,
            jobs: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Takes note of a read.
    pub(super) fn note(&self, read: Extent) {
        if lock(&self.jobs).readers == 0 {
            return;
        }
        let wanted = lock(&self.predictor).note(read);
        if !wanted.is_empty() {
            self.add(wanted.into_iter().flat_map(jobs));
        }
    }

    /// Has a range read ahead, as much of it as is kept.
    fn ask(&self, wanted: Extent) {
        let kept = wanted.clip(wanted.start, wanted.start.saturating_add(self.bytes_max));
        if let Some(kept) = kept.filter(|_| lock(&self.jobs).readers > 0) {
            self.add(jobs(kept).take(JOBS_MAX));
        }
    }

    fn add(&self, more: impl Iterator<Item = Job>) {
        let mut jobs = lock(&self.jobs);
        jobs.waiting.extend(more);
        let too_many = jobs.waiting.len().saturating_sub(JOBS_MAX);
        jobs.waiting.drain(..too_many);
        self.changed.notify_all();
    }

    /// Waits for a job; nothing when nobody wants any more.
    fn next(&self) -> Option<Job> {
        let is_idle = |jobs: &mut Jobs| jobs.waiting.is_empty() && jobs.readers > 0;
        let jobs = self.changed.wait_while(lock(&self.jobs), is_idle);
        let mut jobs = jobs.unwrap_or_else(PoisonError::into_inner);
        if jobs.readers == 0 { None } else { jobs.waiting.pop_front() }
    }
}

/// What is to be done for a range: what comes behind a long one is looked up, so that nobody waits for that then.
fn jobs(wanted: Extent) -> impl Iterator<Item = Job> {
    let is_long = wanted.length >= JOB_LEN;
    let behind = is_long.then(|| Job::Map(Extent { start: wanted.end(), length: wanted.length }));
    let parts = (wanted.start / JOB_LEN..wanted.end().div_ceil(JOB_LEN))
        .filter_map(move |part| wanted.clip(part * JOB_LEN, (part + 1) * JOB_LEN));
    behind.into_iter().chain(parts.map(Job::Data))
}

/// Whoever wants to be read ahead of, until it is dropped.
struct Reader<'a>(&'a Ahead);

impl<'a> Reader<'a> {
    fn new(ahead: &'a Ahead) -> Self {
        lock(&ahead.jobs).readers += 1;
        Self(ahead)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut jobs = lock(&self.0.jobs);
        jobs.readers -= 1;
        if jobs.readers == 0 {
            jobs.waiting.clear();
        }
        self.0.changed.notify_all();
    }
}

impl DiskView<'_, '_> {
    /// Runs `body` while threads read ahead of what it and others read. They have ended when this returns.
    pub fn reading_ahead<T>(&self, body: impl FnOnce() -> T) -> T {
        std::thread::scope(|threads| {
            let _reader = Reader::new(&self.ahead);
            for _ in 0..THREADS {
                let started = Builder::new().spawn_scoped(threads, || {
                    while let Some(job) = self.ahead.next() {
                        self.do_ahead(job);
                    }
                });
                // Where the system has no more threads, those that there are do, or whoever reads.
                if started.is_err() {
                    break;
                }
            }
            body()
        })
    }

    /// Has a range read ahead, if there are threads that do; of a long one, as much as is kept of what is read ahead.
    pub fn prefetch(&self, offset: u64, length: u64) {
        let end = self.size().min(offset.saturating_add(length));
        if let Some(wanted) = Extent::between(offset, end) {
            self.ahead.ask(wanted);
        }
    }

    /// What fails here fails again for whoever reads it, and is told then.
    fn do_ahead(&self, job: Job) {
        match job {
            Job::Map(extent) => {
                let Some(regions) = self.regions_of(extent) else { return };
                for first in regions.clone().step_by(REGIONS_AT_ONCE) {
                    let end = regions.end.min(first + REGIONS_AT_ONCE as u64);
                    drop(self.load_absent(first..end));
                }
            }
            Job::Data(extent) => drop(self.read_into_cache(extent, REQUESTS_OF_JOB)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_ahead_in_parts_and_its_map_before_that() {
        let found: Vec<Job> = jobs(Extent { start: JOB_LEN - 10, length: JOB_LEN + 20 }).collect();
        let expected = [
            Job::Map(Extent { start: 2 * JOB_LEN + 10, length: JOB_LEN + 20 }),
            Job::Data(Extent { start: JOB_LEN - 10, length: 10 }),
            Job::Data(Extent { start: JOB_LEN, length: JOB_LEN }),
            Job::Data(Extent { start: 2 * JOB_LEN, length: 10 }),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn no_more_is_asked_for_than_is_kept() {
        let ahead = Ahead::new(1 << 41, 3 * JOB_LEN);
        let _reader = Reader::new(&ahead);
        ahead.ask(Extent { start: 0, length: 1 << 41 });
        let data = (0..3).map(|part| Job::Data(Extent { start: part * JOB_LEN, length: JOB_LEN }));
        let map = Job::Map(Extent { start: 3 * JOB_LEN, length: 3 * JOB_LEN });
        assert!(lock(&ahead.jobs).waiting.iter().copied().eq(std::iter::once(map).chain(data)));
    }

    #[test]
    fn only_the_newest_jobs_wait() {
        let ahead = Ahead::new(1 << 40, 0);
        let _reader = Reader::new(&ahead);
        for number in 0..JOBS_MAX as u64 + 3 {
            ahead.add(std::iter::once(Job::Data(Extent { start: number, length: 1 })));
        }
        assert_eq!(ahead.next(), Some(Job::Data(Extent { start: 3, length: 1 })));
    }
}
