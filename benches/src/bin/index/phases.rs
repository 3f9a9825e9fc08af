//! What is measured, each in a process of its own, so that its memory is its own.

use crate::fleet::{Fleet, chunk_id};
use crate::process::{Resident, evict, files, io_bytes, reset_peak, resident};
use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use keepstone_benches::meter::{self, Cost};
use keepstone_benches::random::Random;
use keepstone_benches::repository;
use keepstone_engine::index::{LocalIndex, Preference, SyncReport, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::store::{LocalStore, RecordingStore};
use keepstone_engine::{BlobStore as _, Repository};
use rayon::prelude::*;
use repo_format::ChunkId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Ids that are made before they are looked up: about a region's, and few where a disk takes a millisecond for each.
const BATCH: usize = 256;
/// Tables of up to as many entries, as a power of four, come of a session's own checkpoints too, and are no tier.
const PLAIN_MAX: u32 = 8;
/// Bytes of a record, at least: what a table's size is divided by.
const RECORD_LEN: u64 = 49;
/// The chunks of another VM's disk that follow each other in one session, at most.
const RUN_MAX: u64 = 1024;
/// How often the directory is looked at while it changes.
const GLANCE: Duration = Duration::from_millis(50);

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Ids {
    /// Chunks of the index, at random.
    Hits,
    /// Chunks of the index as they follow each other in backups, for a while at a time.
    Runs,
    /// Chunks that it has not.
    Misses,
}

/// What opening an index cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) seconds: f64,
    pub(crate) tables: usize,
    pub(crate) entries: u64,
    pub(crate) len_bytes: u64,
    /// What the device was read for it.
    pub(crate) device_bytes: u64,
    pub(crate) resident: Resident,
}

/// What looking up gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Looked {
    pub(crate) ids: Ids,
    pub(crate) threads: usize,
    pub(crate) is_cold: bool,
    pub(crate) opened: Opened,
    pub(crate) lookups: u64,
    pub(crate) per_second: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) device_bytes: u64,
    pub(crate) resident: Resident,
}

/// What sessions that are added one after the other cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Grown {
    pub(crate) cost: Cost,
    /// Of the sessions of which no table but those of a backup's size were merged, in order.
    pub(crate) plain_seconds: Vec<f64>,
    /// By the entries of the largest table that came of them, as a power of four.
    pub(crate) merges: BTreeMap<u32, Merges>,
    pub(crate) written_bytes: u64,
    pub(crate) tables: usize,
    pub(crate) len_bytes: u64,
}

/// Merges whose results are about as large.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Merges {
    pub(crate) seconds: Vec<f64>,
    pub(crate) bytes: u64,
    pub(crate) peak_bytes: u64,
}

/// What a synchronisation did and cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Synced {
    pub(crate) cost: Cost,
    pub(crate) fetched: u64,
    pub(crate) fetched_bytes: u64,
    pub(crate) left_out: u64,
    pub(crate) dropped_tables: u64,
    pub(crate) written_bytes: u64,
    pub(crate) tables: usize,
    pub(crate) entries: u64,
    pub(crate) len_bytes: u64,
    /// The most that the directory held at one time.
    pub(crate) peak_len_bytes: u64,
    pub(crate) resident: Resident,
}

/// Where everything is.
pub(crate) struct Place<'a> {
    pub(crate) scratch: &'a Path,
    /// The name of the cache directory within it.
    pub(crate) cache: &'a str,
    pub(crate) fleet: Fleet,
}

impl Place<'_> {
    fn repository(&self) -> PathBuf {
        self.scratch.join("repository")
    }

    fn open_index(&self, repository: &Repository<'_>, budget_bytes: u64) -> anyhow::Result<LocalIndex> {
        let key = repository.keys().local_key("keepstone v0 local index");
        let root = self.scratch.join(self.cache);
        Ok(LocalIndex::open(Some(&root), repository.config().repository, key, budget_bytes)?)
    }

    /// The files of the cache, and their bytes.
    fn tables(&self) -> anyhow::Result<BTreeMap<PathBuf, u64>> {
        files(&self.scratch.join(self.cache))
    }

    /// Creates the repository, without any index.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        repository::create(&LocalStore::create(&self.repository())?)?;
        Ok(())
    }

    /// Stores the index blobs of some sessions.
    pub(crate) fn store(&self, sessions: std::ops::Range<u64>) -> anyhow::Result<()> {
        let store = LocalStore::open(&self.repository())?;
        let repository = repository::open(&store)?;
        sessions.into_par_iter().try_for_each(|session| {
            for (name, index) in self.fleet.indexes(session) {
                let salt = *blake3::hash(name.as_str().as_bytes()).as_bytes();
                store.put_new(&name, &index.seal(repository.keys(), &name, salt))?;
            }
            Ok(())
        })
    }

    /// Adds all sessions one after the other, as their backups would on one host.
    pub(crate) fn grow(&self) -> anyhow::Result<Grown> {
        let store = LocalStore::open(&self.repository())?;
        let repository = repository::open(&store)?;
        let mut index = self.open_index(&repository, u64::MAX)?;
        let (mut plain_seconds, mut merges) = (Vec::new(), BTreeMap::<u32, Merges>::new());
        let written = io_bytes()?.written;
        let ((), cost) = meter::measure(self.scratch, || -> anyhow::Result<()> {
            let mut before = self.tables()?;
            for session in 0..self.fleet.sessions {
                let indexes = self.fleet.indexes(session);
                reset_peak()?;
                let (began, written) = (Instant::now(), io_bytes()?.written);
                for (name, added) in &indexes {
                    index.add(std::slice::from_ref(name), added)?;
                }
                let seconds = began.elapsed().as_secs_f64();
                let after = self.tables()?;
                let new = after.iter().filter(|(path, _)| !before.contains_key(*path));
                let largest = new.map(|(_, len)| *len).max().unwrap_or_default();
                let power = (largest / RECORD_LEN).max(1).ilog2() / 2;
                if power <= PLAIN_MAX {
                    plain_seconds.push(seconds);
                } else {
                    let merges = merges.entry(power).or_default();
                    merges.seconds.push(seconds);
                    merges.bytes += io_bytes()?.written - written;
                    merges.peak_bytes = merges.peak_bytes.max(resident()?.peak);
                }
                before = after;
            }
            Ok(())
        })?;
        ensure!(index.entries() == self.fleet.len(), "the index has {} entries", index.entries());
        Ok(Grown {
            cost,
            plain_seconds,
            merges,
            written_bytes: io_bytes()?.written - written,
            tables: self.tables()?.len(),
            len_bytes: index.len_bytes(),
        })
    }

    /// Opens the index.
    fn opened(&self, repository: &Repository<'_>, is_cold: bool) -> anyhow::Result<(LocalIndex, Opened)> {
        let tables = self.tables()?;
        if is_cold {
            tables.keys().try_for_each(|path| evict(path))?;
        }
        let (began, read) = (Instant::now(), io_bytes()?.read);
        let index = self.open_index(repository, u64::MAX)?;
        let opened = Opened {
            seconds: began.elapsed().as_secs_f64(),
            tables: tables.len(),
            entries: index.entries(),
            len_bytes: index.len_bytes(),
            device_bytes: io_bytes()?.read - read,
            resident: resident()?,
        };
        Ok((index, opened))
    }

    /// Looks up for so many seconds.
    pub(crate) fn look_up(
        &self,
        ids: Ids,
        threads: usize,
        is_cold: bool,
        seconds: f64,
    ) -> anyhow::Result<Looked> {
        let store = LocalStore::open(&self.repository())?;
        let repository = repository::open(&store)?;
        let (index, opened) = self.opened(&repository, is_cold)?;
        if !is_cold {
            // What is mapped is in the page cache, and now in this process too.
            self.look_up_in(&index, ids, 0, seconds / 4.0)?;
        }
        let read = io_bytes()?.read;
        let (looked, cost) = meter::measure(self.scratch, || -> anyhow::Result<Vec<(u64, f64)>> {
            thread::scope(|scope| {
                let looking: Vec<_> = (1..=threads as u64)
                    .map(|seed| {
                        let index = &index;
                        scope.spawn(move || self.look_up_in(index, ids, seed, seconds))
                    })
                    .collect();
                looking.into_iter().map(|thread| thread.join().expect("no lookup panics")).collect()
            })
        })?;
        Ok(Looked {
            ids,
            threads,
            is_cold,
            opened,
            lookups: looked.iter().map(|(lookups, _)| lookups).sum(),
            per_second: looked.iter().map(|(lookups, busy)| crate::report::rate(*lookups, *busy)).sum(),
            cpu_seconds: cost.cpu_seconds,
            device_bytes: io_bytes()?.read - read,
            resident: resident()?,
        })
    }

    /// Looks up in one thread: how many, and for how long without making the ids.
    fn look_up_in(
        &self,
        index: &LocalIndex,
        ids: Ids,
        seed: u64,
        seconds: f64,
    ) -> anyhow::Result<(u64, f64)> {
        let mut sequence = Sequence { fleet: self.fleet, ids, random: Random::new(seed), run: 0..0 };
        let (began, mut busy, mut lookups) = (Instant::now(), Duration::ZERO, 0);
        let mut batch = Vec::with_capacity(BATCH);
        while began.elapsed().as_secs_f64() < seconds {
            batch.clear();
            batch.extend(std::iter::repeat_with(|| sequence.next()).take(BATCH));
            let start = Instant::now();
            let found = batch.iter().filter(|id| !index.lookup(id).is_empty()).count();
            busy += start.elapsed();
            lookups += batch.len() as u64;
            let expected = if ids == Ids::Misses { 0 } else { batch.len() };
            ensure!(found == expected, "{found} of {} chunks were found", batch.len());
        }
        Ok((lookups, busy.as_secs_f64()))
    }

    /// Brings a cache up to date with the repository.
    pub(crate) fn synchronise(&self, budget_bytes: u64) -> anyhow::Result<Synced> {
        let store = RecordingStore::new(LocalStore::open(&self.repository())?);
        let repository = repository::open(&store)?;
        let written = io_bytes()?.written;
        let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        let glance = || -> anyhow::Result<()> {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(self.tables()?.values().sum(), Ordering::Relaxed);
                thread::sleep(GLANCE);
            }
            Ok(())
        };
        let synchronise = || -> anyhow::Result<(LocalIndex, SyncReport)> {
            let mut index = self.open_index(&repository, budget_bytes)?;
            let report = sync(&mut index, &store, repository.keys(), &Preference::default(), &Quiet)?;
            Ok((index, report))
        };
        let ((index, report), cost) = thread::scope(|scope| {
            let glances = scope.spawn(glance);
            let result = meter::measure(self.scratch, synchronise);
            done.store(true, Ordering::Relaxed);
            glances.join().expect("looking at a directory does not panic")?;
            result
        })?;
        Ok(Synced {
            cost,
            fetched: report.fetched,
            fetched_bytes: report.fetched_bytes,
            left_out: report.left_out,
            dropped_tables: report.dropped_tables,
            written_bytes: io_bytes()?.written - written,
            tables: self.tables()?.len(),
            entries: index.entries(),
            len_bytes: index.len_bytes(),
            peak_len_bytes: peak.into_inner(),
            resident: resident()?,
        })
    }

    /// Removes the cache.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(self.scratch.join(self.cache)).context("could not remove a cache")
    }
}

/// The ids that one thread looks up.
struct Sequence {
    fleet: Fleet,
    ids: Ids,
    random: Random,
    run: std::ops::Range<u64>,
}

impl Sequence {
    fn next(&mut self) -> ChunkId {
        let len = self.fleet.len();
        chunk_id(match self.ids {
            Ids::Hits => self.random.below(len),
            Ids::Misses => len + self.random.below(1 << 40),
            Ids::Runs => self.run.next().unwrap_or_else(|| {
                let start = self.random.below(len);
                self.run = start + 1..(start + 1 + self.random.below(RUN_MAX)).min(len);
                start
            }),
        })
    }
}
