//! The threads that read: what a region will need of its source, ahead of the processors.
//!
//! A source may be far away, and a processor that waits for it does nothing else. So all that can be foreseen of a
//! region is asked for at once, by a thread that may wait.

use super::feed::RegionJob;
use super::pipeline::Event;
use super::stages::Stages;
use crate::region::RegionBuffer;
use crate::threads::{Mutex, Receiver, Sender, lock};

/// Regions that are being read at a time: while the last answers for one come in, others are asked for already.
pub(super) const READERS: usize = 2;

/// A region with what was foreseen of it.
pub(super) struct LoadedRegion<'a> {
    pub(super) job: RegionJob,
    pub(super) buffer: RegionBuffer<'a>,
}

/// Reads regions as they come, until none comes any more.
pub(super) fn read_regions<'a>(
    stages: &'a Stages<'a>,
    jobs: &Mutex<Receiver<RegionJob>>,
    events: &Sender<Event<'a>>,
) {
    loop {
        // The lock is held while waiting: one thread waits for a job, the others for the lock.
        let Ok(job) = lock(jobs).recv() else { return };
        if stages.is_stopped() {
            continue;
        }
        let event = stages.load(job).map_or_else(Event::Failed, Event::Loaded);
        if events.send(event).is_err() {
            return;
        }
    }
}
