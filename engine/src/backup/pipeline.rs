//! The pipeline: one owner that keeps order, rayon for CPU work, plain threads that wait for sources and the store.
//!
//! Regions are chunked and encoded in any order, and looked up, packed and mapped in theirs; so the same input
//! gives the same packs at a given level of compression (which of them an index checkpoint lists depends on when they were stored). Bounds: a region
//! enters for a credit that one leaving gives back; packs are appended to only while few are on their way. Nothing
//! blocks but the owner (on events) and the threads of sources and store, and events are never waited for by a task; so there
//! is no circle to wait in. The first failure stops all stages.

use super::StoredDisk;
use super::budget::Share;
use super::dedup::Dedup;
use super::feed::feed;
use super::level::{Compression, Level};
use super::owner::{Owner, packs_in_flight};
use super::plan::DiskPlan;
use super::reading::{LoadedRegion, READERS, read_regions};
use super::stages::{ChunkedRegion, EncodedRegion, Stages};
use super::together::{IndexAccess, Resources};
use crate::chunker::Chunker;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::map::reader::MapReader;
use crate::observer::Observer;
use crate::repository::Repository;
use crate::session::{Session, create};
use crate::threads::{AtomicBool, Mutex, Receiver, Sender, channel, lock, scope, tasks};
use repo_format::{BlobName, PackName, PackRef, SessionKey, Totals, seal_session_key};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// What a run works on.
pub(super) struct Context<'a, 'f, 'r, 's> {
    pub(super) repository: &'r Repository<'s>,
    pub(super) session: &'a Session,
    pub(super) entropy: &'a Entropy,
    pub(super) compression: &'a Compression,
    pub(super) checkpoint_due: &'a (dyn Fn() -> bool + Sync),
    pub(super) plans: &'a [DiskPlan<'a>],
    pub(super) bases: &'a [MapReader<'f, 'r, 's>],
    pub(super) usable: &'a (dyn Fn(&PackName) -> bool + Sync),
    pub(super) resources: &'a Resources,
}

/// What a run has put into the store.
pub(crate) struct Stored {
    pub(crate) disks: Vec<StoredDisk>,
    /// All packs of the session.
    pub(crate) packs: Vec<PackRef>,
    pub(crate) totals: Totals,
}

/// What reaches the owner.
pub(super) enum Event<'a> {
    Loaded(LoadedRegion<'a>),
    /// All regions are on their way: so many.
    Fed(u64),
    Chunked(ChunkedRegion<'a>),
    Encoded(EncodedRegion),
    PackStored(PackRef),
    IndexStored(u32),
    Failed(EngineError),
}

/// A blob to put, and what to say when it is there.
pub(super) struct PutJob<'a> {
    pub(super) name: BlobName,
    pub(super) bytes: Vec<u8>,
    pub(super) done: Event<'a>,
}

/// What connects the owner with the stages.
pub(super) struct Channels<'a> {
    pub(super) events: Sender<Event<'a>>,
    pub(super) received: Receiver<Event<'a>>,
    pub(super) credits: Sender<()>,
    pub(super) puts: Sender<PutJob<'a>>,
}

/// Runs the pipeline over all touched regions of all disks.
pub(super) fn run(
    context: &Context<'_, '_, '_, '_>,
    index: IndexAccess<'_>,
    share: Share<'_>,
    observer: &dyn Observer,
) -> Result<Stored, EngineError> {
    let config = context.repository.config();
    let keys = context.repository.keys();
    let data_keys = context.repository.data_keys()?;
    let session_key = SessionKey::new(context.entropy.draw("session key", 0));
    let sealed_session_key = seal_session_key(
        &session_key,
        &config.data_public_key,
        config.repository,
        context.session.id,
        context.entropy.draw("session key encapsulation", 0),
    )
    .map_err(EngineError::damaged(&BlobName::config()))?;
    let stages = Stages {
        keys,
        data_keys,
        plans: context.plans,
        condemned: &context.session.condemned,
        entropy: context.entropy,
        level: Level::new(context.compression),
        chunker: Chunker::new(&config.geometry.chunker, data_keys.chunker_seed()),
        pool: &context.resources.regions,
        session_key,
        sealed_session_key,
        encoders: std::sync::Mutex::default(),
        outputs: &context.resources.outputs,
        bodies: Arc::clone(&context.resources.bodies),
        stopped: AtomicBool::new(false),
    };
    let (events, received) = channel();
    let (credits, granted) = channel();
    let (puts, to_put) = channel();
    let to_put = Mutex::new(to_put);
    let (regions, to_read) = channel();
    let to_read = Mutex::new(to_read);
    scope(|threads| {
        let (repository, stages, to_put, to_read) = (context.repository, &stages, &to_put, &to_read);
        // One for each pack that may be on its way.
        for _ in 0..packs_in_flight() {
            let events = events.clone();
            threads.spawn(move || {
                reporting_panic(&events, || put_blobs(repository, stages, to_put, &events));
            });
        }
        for _ in 0..READERS {
            let events = events.clone();
            threads.spawn(move || reporting_panic(&events, || read_regions(stages, to_read, &events)));
        }
        let fed = events.clone();
        threads.spawn(move || {
            reporting_panic(&fed, || {
                // The owner has failed if nobody listens any more.
                let count = feed(context.plans, context.bases, &granted, &|job| drop(regions.send(job)));
                drop(fed.send(count.map_or_else(Event::Failed, Event::Fed)));
            });
        });
        tasks(|tasks| {
            let channels = Channels { events, received, credits, puts };
            let dedup = Dedup::new(context.repository, context.session, index);
            let owner = Owner::new(context, stages, (tasks, channels), (dedup, share), observer);
            owner.inspect_err(|_| stages.stop())?.run()
        })
    })
}

/// Does something, and tells the owner of a panic in it, so that it does not wait for what will not come. The panic
/// itself is passed on, and again when the scope of its thread or task ends.
pub(super) fn reporting_panic(events: &Sender<Event<'_>>, work: impl FnOnce()) {
    // What the work has left half done is not looked at any more: the panic ends the whole backup.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        let _ended = events.send(Event::Failed(EngineError::Cancelled));
        resume_unwind(panic);
    }
}

fn put_blobs<'a>(
    repository: &Repository<'_>,
    stages: &Stages<'_>,
    jobs: &Mutex<Receiver<PutJob<'a>>>,
    events: &Sender<Event<'a>>,
) {
    loop {
        // The lock is held while waiting: one thread waits for a job, the others for the lock.
        let Ok(job) = lock(jobs).recv() else { return };
        if stages.is_stopped() {
            continue;
        }
        let event = match create(repository.store(), &job.name, &job.bytes) {
            Ok(()) => job.done,
            Err(error) => Event::Failed(error),
        };
        // Only what came from there: backups that run one after the other would fill it with others.
        if job.bytes.capacity() >= repository.config().geometry.pack_len as usize {
            stages.bodies.give(job.bytes);
        }
        if events.send(event).is_err() {
            return;
        }
    }
}
