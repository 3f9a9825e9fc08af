//! Chunks: fetched together where they lie together, each once whoever wants it, opened, checked and kept.

use super::DiskView;
use crate::cache::{Claim, Flight, Found, Shared};
use crate::error::EngineError;
use crate::frames::{Fetch, Fetched, Gaps, Got, Member, lock};
use crate::store::StoreError;
use repo_format::{FrameKind, Location};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Builder;

/// Threads that fetch for readers of one view, beside the readers' own: with those it is as much as one store answers at
/// a time, however many read.
const HELPERS_MAX: usize = 64;
/// What a chunk takes beside its bytes: its place, and what the cache knows of it.
const CHUNK_BESIDE: u64 = 512;

/// A chunk's bytes.
pub(super) type Chunk = Arc<[u8]>;
type ChunkClaim<'c> = Claim<'c, Location, Chunk>;

impl DiskView<'_, '_> {
    /// The chunks at some places, each or why it cannot be read; those that are not here are fetched with up to
    /// `threads` requests at a time.
    pub(super) fn chunks(&self, places: &[&Location], threads: usize) -> Vec<Result<Chunk, Shared>> {
        let mut claims = Vec::new();
        let found: Vec<Result<Chunk, Arc<Flight<Chunk>>>> = places
            .iter()
            .map(|place| match self.chunks.find(place) {
                Found::Here(chunk) => {
                    self.counts.hits.fetch_add(1, Ordering::Relaxed);
                    Ok(chunk)
                }
                Found::Awaited(flight) => {
                    self.counts.awaited.fetch_add(1, Ordering::Relaxed);
                    Err(flight)
                }
                Found::Claimed(claim) => {
                    self.counts.misses.fetch_add(1, Ordering::Relaxed);
                    let flight = claim.flight();
                    claims.push(claim);
                    Err(flight)
                }
            })
            .collect();
        // Everything that was claimed is fetched before anything is waited for: so nobody waits in a circle.
        self.fetch(claims, threads);
        let chunk = |(found, place): (Result<Chunk, Arc<Flight<Chunk>>>, &&Location)| match found {
            Ok(chunk) => Ok(chunk),
            Err(flight) => self.landed(flight, place),
        };
        found.into_iter().zip(places).map(chunk).collect()
    }

    /// Fetches those chunks that are not here and that nobody is fetching.
    pub(super) fn fetch_absent(&self, places: &[&Location], threads: usize) {
        let claims: Vec<_> = places.iter().filter_map(|place| self.chunks.claim_absent(place)).collect();
        self.counts.ahead.fetch_add(claims.len() as u64, Ordering::Relaxed);
        self.fetch(claims, threads);
    }

    fn landed(&self, mut flight: Arc<Flight<Chunk>>, place: &Location) -> Result<Chunk, Shared> {
        loop {
            if let Some(outcome) = flight.wait() {
                return outcome;
            }
            // Whoever fetched it gave up.
            flight = match self.chunks.find(place) {
                Found::Here(chunk) => return Ok(chunk),
                Found::Awaited(flight) => flight,
                Found::Claimed(claim) => {
                    let flight = claim.flight();
                    self.fetch(vec![claim], 1);
                    flight
                }
            };
        }
    }

    /// Fetches chunks and settles all the claims.
    fn fetch(&self, claims: Vec<ChunkClaim<'_>>, threads: usize) {
        let places: Vec<Location> = claims.iter().map(|claim| claim.key().clone()).collect();
        let fetches = match self.map.frames().plan(&places, Gaps::Short) {
            Ok(fetches) => fetches,
            Err(error) => return fail(claims, error),
        };
        let mut claims: Vec<Option<ChunkClaim<'_>>> = claims.into_iter().map(Some).collect();
        let mut claim = |member: &Member| Some((member.location, claims[member.location].take()?));
        let jobs: Vec<Job<'_, '_>> = fetches
            .iter()
            .map(|fetch| Job {
                fetch,
                places: &places,
                claims: fetch.members.iter().filter_map(&mut claim).collect(),
            })
            .collect();
        let threads = threads.min(jobs.len());
        if threads <= 1 {
            for job in jobs {
                self.fetch_job(job);
            }
            return;
        }
        let jobs: Vec<Mutex<Option<Job<'_, '_>>>> =
            jobs.into_iter().map(|job| Mutex::new(Some(job))).collect();
        let next = AtomicUsize::new(0);
        let work = &|| {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Some(job) = lock(job).take() {
                    self.fetch_job(job);
                }
            }
        };
        std::thread::scope(|scope| {
            // As many as there are to be had; whoever asks does the rest.
            for permit in (1..threads).map_while(|_| Permit::of(&self.helpers)) {
                let help = move || {
                    let _permit = permit;
                    work();
                };
                if Builder::new().spawn_scoped(scope, help).is_err() {
                    break;
                }
            }
            work();
        });
    }

    fn fetch_job(&self, job: Job<'_, '_>) {
        let Job { fetch, places, mut claims } = job;
        let location = |position: usize| &places[position];
        let fetched = self.map.frames().fetch(fetch, &location, &mut |got| {
            match got {
                Got::Fetched(fetched) => self.open_all(fetched, &mut claims),
                Got::Lost { members, error } => {
                    let lost: Vec<_> =
                        members.iter().filter_map(|member| claims.remove(&member.location)).collect();
                    let is_missing = matches!(error, EngineError::Store(StoreError::NotFound { .. }));
                    if lost.len() == 1 || is_missing {
                        fail(lost, error);
                    } else {
                        // Something between them may be what cannot be read.
                        for claim in lost {
                            self.fetch(vec![claim], 1);
                        }
                    }
                }
            }
            Ok(())
        });
        if let Err(error) = fetched {
            fail(claims.into_values().collect(), error);
        }
    }

    fn open_all(&self, mut fetched: Fetched, claims: &mut BTreeMap<usize, ChunkClaim<'_>>) {
        self.counts.fetched_bytes.fetch_add(fetched.len() as u64, Ordering::Relaxed);
        let frames = self.map.frames();
        let mut scratch = lock(&self.scratches).pop().unwrap_or_default();
        let fetch = Arc::clone(&fetched.fetch);
        for Member { location, place } in fetch.members.iter().copied() {
            let Some(claim) = claims.remove(&location) else { continue };
            let chunk = (FrameKind::Chunk, claim.key());
            let opened = frames.open(&mut fetched, place, chunk, &mut scratch);
            let weight = u64::from(claim.key().plain_len) + CHUNK_BESIDE;
            claim.settle(opened.map(|()| Chunk::from(scratch.plain())).map_err(Arc::new), Some(weight));
        }
        lock(&self.scratches).push(scratch);
    }
}

/// Settles claims with a failure.
fn fail(claims: Vec<ChunkClaim<'_>>, error: EngineError) {
    let failure = Arc::new(error);
    for claim in claims {
        claim.settle(Err(Arc::clone(&failure)), None);
    }
}

/// A thread's leave to run beside the one that reads.
struct Permit<'p>(&'p AtomicUsize);

impl<'p> Permit<'p> {
    /// One, if there are not [`HELPERS_MAX`] already.
    fn of(taken: &'p AtomicUsize) -> Option<Self> {
        let more = |count| (count < HELPERS_MAX).then_some(count + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(taken))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request, and the chunks that it is for.
struct Job<'f, 'c> {
    fetch: &'f Arc<Fetch>,
    /// What was planned for.
    places: &'f [Location],
    /// By their positions in that.
    claims: BTreeMap<usize, ChunkClaim<'c>>,
}
