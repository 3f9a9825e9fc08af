//! Copying blobs: by the service that has them, or through this program.

use super::sound::check_pack;
use super::{Amount, ReplicateError};
use crate::error::EngineError;
use crate::observer::{Event, Observer, tell};
use crate::repository::Repository;
use crate::session::put_twice;
use crate::store::azure::AzureStore;
use crate::store::{BlobStore, Put};
use crate::threads;
use repo_format::{BlobName, PackRef};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The way that blobs take.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// They are read here and created there.
    ThroughHost,
    /// The destination's service reads them from that of the source.
    ByService {
        /// The source's store, without anything around it.
        source: &'a AzureStore,
        /// The destination's.
        destination: &'a AzureStore,
    },
}

/// Copies blobs, and counts them.
pub(super) struct Copier<'a> {
    source: &'a Repository<'a>,
    /// Nothing if it only pretends to.
    destination: Option<(&'a dyn BlobStore, Route<'a>)>,
    jobs: NonZeroUsize,
    packs: Counts,
    blobs: Counts,
    bytes_through_host: AtomicU64,
}

#[derive(Default)]
struct Counts {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn add(&self, len: u64) {
        self.count.fetch_add(1, Relaxed);
        self.bytes.fetch_add(len, Relaxed);
    }

    fn amount(&self) -> Amount {
        Amount { count: self.count.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        source: &'a Repository<'a>,
        destination: &'a dyn BlobStore,
        route: Route<'a>,
        jobs: NonZeroUsize,
    ) -> Self {
        Self { destination: Some((destination, route)), ..Self::pretending(source, jobs) }
    }

    /// One that copies nothing and counts what it would.
    pub(super) fn pretending(source: &'a Repository<'a>, jobs: NonZeroUsize) -> Self {
        Self {
            source,
            destination: None,
            jobs,
            packs: Counts::default(),
            blobs: Counts::default(),
            bytes_through_host: AtomicU64::new(0),
        }
    }

    pub(super) fn is_pretending(&self) -> bool {
        self.destination.is_none()
    }

    pub(super) fn jobs(&self) -> usize {
        self.jobs.get()
    }

    pub(super) fn packs(&self) -> Amount {
        self.packs.amount()
    }

    pub(super) fn blobs(&self) -> Amount {
        self.blobs.amount()
    }

    pub(super) fn bytes_through_host(&self) -> u64 {
        self.bytes_through_host.load(Relaxed)
    }

    /// Does the same with each item, several at a time. Returns what became of each: an error is one of damage.
    ///
    /// # Errors
    /// Any other failure; the rest is left then.
    pub(super) fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R, EngineError> + Sync,
    ) -> Result<Vec<Result<R, EngineError>>, EngineError> {
        let has_failed = AtomicBool::new(false);
        let done = threads::each(items, self.jobs.get(), |item| {
            if has_failed.load(Relaxed) {
                return None;
            }
            let result = work(item);
            if result.as_ref().is_err_and(|error| !error.is_damage()) {
                has_failed.store(true, Relaxed);
            }
            Some(result)
        });
        let mut results = Vec::with_capacity(done.len());
        let mut failed = None;
        for result in done.into_iter().flatten() {
            match result {
                Err(error) if !error.is_damage() => drop(failed.get_or_insert(error)),
                result => results.push(result),
            }
        }
        failed.map_or(Ok(results), Err)
    }

    /// Copies an object whose content was checked.
    pub(super) fn object(&self, name: &BlobName, bytes: &[u8]) -> Result<(), EngineError> {
        let len = bytes.len() as u64;
        let put = match self.destination {
            None => Put::Created,
            Some((_, Route::ByService { source, destination })) => {
                let put = destination.copy_from(source, name, len)?;
                // It was read here to be checked.
                self.count_through_host(put, len);
                put
            }
            Some((destination, Route::ThroughHost)) => {
                let put = put_twice(destination, name, bytes)?;
                self.count_through_host(put, len);
                put
            }
        };
        self.count(put, name, len)
    }

    /// Copies packs that are not at the destination. Returns what became of each: an error is one of damage.
    ///
    /// # Errors
    /// A failing store; an observer that wants to stop.
    pub(super) fn copy_packs(
        &self,
        packs: &[PackRef],
        observer: &dyn Observer,
    ) -> Result<Vec<Result<(), EngineError>>, EngineError> {
        self.each(packs, |pack| {
            self.pack(pack)?;
            tell(observer, Event::Progress(u64::from(pack.len)))
        })
    }

    fn pack(&self, pack: &PackRef) -> Result<(), EngineError> {
        let (name, len) = (pack.name.blob(), u64::from(pack.len));
        let put = match self.destination {
            None => Put::Created,
            Some((_, Route::ByService { source, destination })) => {
                destination.copy_from(source, &name, len)?
            }
            Some((destination, Route::ThroughHost)) => {
                let bytes = self.source.store().get(&name, Some(0..len + 1))?;
                if bytes.len() as u64 != len {
                    return Err(EngineError::Short { name, expected: len });
                }
                check_pack(self.source.keys(), &pack.name, &bytes).map_err(EngineError::damaged(&name))?;
                let put = put_twice(destination, &name, &bytes)?;
                self.count_through_host(put, len);
                put
            }
        };
        if put == Put::Created {
            self.packs.add(len);
        }
        self.count(put, &name, len)
    }

    fn count_through_host(&self, put: Put, len: u64) {
        if put == Put::Created {
            self.bytes_through_host.fetch_add(len, Relaxed);
        }
    }

    fn count(&self, put: Put, name: &BlobName, len: u64) -> Result<(), EngineError> {
        match put {
            Put::Created => self.blobs.add(len),
            Put::Identical => {}
            Put::Different => return Err(ReplicateError::OtherBytes { name: name.clone() }.into()),
        }
        Ok(())
    }
}
