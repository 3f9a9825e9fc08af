//! Reading the payloads of many locations, with several requests at a time.

use super::{Encoded, Fetch, FrameReader, Gaps, Got, Member, Scratch, lock};
use crate::error::EngineError;
use crate::threads::{self, scope};
use repo_format::{FrameKind, Location};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that wait for reads at the same time: pages and nodes are many small requests, each a round trip.
const READ_THREADS: usize = 32;

/// A payload, or the damage that keeps it from being read.
pub(crate) type Payload = Result<Vec<u8>, EngineError>;

/// What is taken of a frame that was opened.
type Take<'t, T> = &'t (dyn Fn(&Scratch) -> T + Sync);

/// What became of locations, by their positions.
type Results<T> = Mutex<Vec<Option<Result<T, EngineError>>>>;

impl FrameReader<'_, '_> {
    /// Reads payloads of one kind, in the order of `locations`, with several requests at a time.
    pub(crate) fn read_all(
        &self,
        kind: FrameKind,
        locations: &[Location],
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        self.read_each(kind, locations)?.into_iter().collect()
    }

    /// As [`FrameReader::read_all`]; what is damaged or missing keeps nothing else from being read.
    pub(crate) fn read_each(
        &self,
        kind: FrameKind,
        locations: &[Location],
    ) -> Result<Vec<Payload>, EngineError> {
        self.read_each_as(kind, locations, &Scratch::default, &|scratch| scratch.plain().to_vec())
    }

    /// As [`FrameReader::read_each`]: payloads that were checked, as they are encoded.
    pub(crate) fn read_each_encoded(
        &self,
        kind: FrameKind,
        locations: &[Location],
    ) -> Result<Vec<Result<Encoded, EngineError>>, EngineError> {
        let take = |scratch: &Scratch| scratch.encoded.clone().expect("it is kept");
        self.read_each_as(kind, locations, &Scratch::keeping_encoded, &take)
    }

    fn read_each_as<T: Send>(
        &self,
        kind: FrameKind,
        locations: &[Location],
        scratch: &(dyn Fn() -> Scratch + Sync),
        take: Take<'_, T>,
    ) -> Result<Vec<Result<T, EngineError>>, EngineError> {
        let fetches = self.plan(locations, Gaps::Short)?;
        let results: Results<T> = Mutex::new(locations.iter().map(|_| None).collect());
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<EngineError>> = Mutex::default();
        let work = || {
            let mut scratch = scratch();
            while let Some(fetch) = fetches.get(next.fetch_add(1, Ordering::Relaxed)) {
                if lock(&failure).is_some() {
                    return;
                }
                if let Err(error) = self.read_fetch((kind, locations), fetch, &mut scratch, (take, &results))
                {
                    lock(&failure).get_or_insert(error);
                }
            }
        };
        let threads = fetches.len().min(threads::waiting(READ_THREADS));
        if threads <= 1 {
            work();
        } else {
            scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
        }
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(results
            .into_iter()
            .map(|payload| payload.expect("every location is a member of a fetch"))
            .collect())
    }

    fn read_fetch<T>(
        &self,
        (kind, locations): (FrameKind, &[Location]),
        fetch: &Arc<Fetch>,
        scratch: &mut Scratch,
        (take, results): (Take<'_, T>, &Results<T>),
    ) -> Result<(), EngineError> {
        let location = |position: usize| &locations[position];
        self.fetch(fetch, &location, &mut |got| {
            match got {
                Got::Lost { members, error } => {
                    for member in members {
                        let Some(damage) = error.damage() else { return Err(error) };
                        lock(results)[member.location] = Some(Err(damage));
                    }
                }
                Got::Fetched(mut fetched) => {
                    let fetch = Arc::clone(&fetched.fetch);
                    for members in fetch.frames(&location) {
                        let Member { location: first, place } = members[0];
                        let opened = self.open(&mut fetched, place, (kind, location(first)), scratch);
                        for member in members {
                            let payload = match &opened {
                                Ok(()) => Ok(take(scratch)),
                                Err(error) => match error.damage() {
                                    Some(damage) => Err(damage),
                                    None => return opened,
                                },
                            };
                            lock(results)[member.location] = Some(payload);
                        }
                    }
                }
            }
            Ok(())
        })
    }
}
