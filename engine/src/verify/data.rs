//! Reading packs whole: every frame of every pack that a map names is opened, and what maps say of a pack is
//! compared with the pack's own directory.
//!
//! What was read longest ago comes first, and else packs are taken in the order of their names, which is about that of
//! the disks they were made from. When the directories of enough of them are at hand, the maps are walked again, but
//! only where they name those packs. Of a pack that is damaged, each chunk that a map names is tried by itself, as a
//! restore would read it. The indexes that list these packs are read again, and compared with the same directories.
//!
//! What reading a pack gave is remembered when its batch ends, also by a failure. Then maps were not yet compared with
//! what was read: what they say wrongly of a sound pack is found when that is read the next time.
//!
//! # Memory
//! At most [`BYTES_IN_FLIGHT`] of packs (or one pack, if that is longer), 16 bytes for each of about
//! [`FRAMES_AT_ONCE`] frames, and the chunks that maps name in [`DAMAGED_AT_ONCE`] packs. One index is opened at a
//! time, which is up to three times 64 MiB, and of each index and data pack there is a name and which lists which.

use super::Scope;
use super::choice::Remembered;
use super::damaged::try_damaged;
use super::facts::{Hit, chunk_hits, moved_chunks};
use super::findings::FindingId;
use super::indexing::WrongEntries;
use super::inventory::PackState;
use super::memory::State;
use super::objects::Told;
use super::report::FindingKind;
use super::walk::Inspector;
use crate::error::{EngineError, chain};
use crate::frames::lock;
use crate::observer::{Event, Phase, begin, tell};
use crate::store::StoreError;
use crate::threads::{self, Condvar, scope, tasks};
use repo_format::{
    Decoder, FormatError, FrameEntry, FrameKind, Location, PackKind, PackName, PackRef, Page, verify_pack,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Packs that are being read or checked: eight of the default length.
const BYTES_IN_FLIGHT: u64 = 256 << 20;
/// Threads that wait for reads.
const READ_THREADS: usize = 4;
/// Frames whose directory entries are kept: those of about 100 GiB of packs with the default chunks.
const FRAMES_AT_ONCE: usize = 4 << 20;
/// Damaged packs whose chunks are looked for in one walk.
const DAMAGED_AT_ONCE: usize = 64;

/// What reading a data pack gave.
pub(super) enum Checked {
    /// Its frames by offset, with fingerprints.
    Sound(Vec<(u32, u64)>),
    /// It cannot be relied on; the chunks in it that cannot be read, once they have been tried.
    Damaged { finding: FindingId, unreadable: HashSet<Location> },
}

pub(super) type Batch = HashMap<PackName, Checked>;

/// Reads packs, in their states by the structure, and returns how many bytes. `names_hold` tells whether parts of
/// maps can be left out by the names that their parents give. Indexes are compared if it was told what they list.
pub(super) fn check(
    scope: &Scope<'_, '_, '_>,
    told: Option<&Told>,
    packs: &BTreeMap<PackName, PackState>,
    names_hold: bool,
    remembered: &mut Remembered<'_>,
) -> Result<u64, EngineError> {
    let len = |name: &PackName| scope.inventory.len(name).unwrap_or(0);
    let mut packs: Vec<(&PackName, PackState, u64)> = packs
        .iter()
        .filter(|(_, state)| !matches!(state, PackState::Missing(_) | PackState::Moved))
        .map(|(name, state)| (name, *state, len(name)))
        .collect();
    packs.sort_by_key(|(name, _, _)| remembered.turn(name));
    begin(scope.observer, Phase::VerifyData, packs.iter().map(|(_, _, len)| len).sum())?;
    let reading = Reading {
        scope,
        packs: &packs,
        next: AtomicUsize::new(0),
        read_bytes: AtomicU64::new(0),
        budget: Budget { free: threads::Mutex::new(BYTES_IN_FLIGHT), freed: Condvar::new() },
        decoders: Mutex::default(),
        stopped: AtomicBool::new(false),
        failure: Mutex::default(),
        states: Mutex::default(),
        missing: Mutex::default(),
    };
    let mut wrong_entries = WrongEntries::default();
    while reading.next.load(Ordering::Relaxed) < packs.len() {
        let batch = reading.batch();
        let mut states = std::mem::take(&mut *lock(&reading.states));
        let compared = batch.and_then(|batch| {
            let mut contradicted = compare(scope, batch, told, &mut wrong_entries, names_hold)?;
            contradicted.extend(wrong_entries.packs().cloned());
            Ok(contradicted)
        });
        // What contradicts maps or indexes is to be found by each run, as damage is.
        let contradicted = compared.as_ref().ok().into_iter().flatten();
        states.extend(contradicted.map(|name| (name.clone(), State::Damaged)));
        remembered.note(states);
        remembered.leave_out(std::mem::take(&mut *lock(&reading.missing)));
        compared?;
    }
    if let Some(told) = told {
        wrong_entries.note(scope.findings, told);
    }
    Ok(reading.read_bytes.into_inner())
}

/// Compares maps and indexes with the packs of a batch; returns those of which maps say what is not so.
fn compare(
    scope: &Scope<'_, '_, '_>,
    mut batch: Batch,
    told: Option<&Told>,
    wrong_entries: &mut WrongEntries,
    names_hold: bool,
) -> Result<HashSet<PackName>, EngineError> {
    try_damaged(scope, &mut batch, names_hold)?;
    let mut compare = Compare { scope, batch: &batch, names_hold, contradicted: HashSet::new() };
    scope.walk(&mut compare, 0)?;
    let contradicted = compare.contradicted;
    if let Some(told) = told {
        wrong_entries.compare(scope, told, &batch)?;
    }
    Ok(contradicted)
}

struct Reading<'d, 'v, 'r, 's> {
    scope: &'d Scope<'v, 'r, 's>,
    packs: &'d [(&'d PackName, PackState, u64)],
    next: AtomicUsize,
    read_bytes: AtomicU64,
    budget: Budget,
    decoders: Mutex<Vec<Decoder>>,
    stopped: AtomicBool,
    failure: Mutex<Option<EngineError>>,
    /// What reading the packs of the batch gave.
    states: Mutex<Vec<(PackName, State)>>,
    /// Packs that were there when they were listed.
    missing: Mutex<Vec<PackName>>,
}

impl Reading<'_, '_, '_, '_> {
    /// Reads and checks packs until there is enough to compare with maps, or no pack is left.
    fn batch(&self) -> Result<Batch, EngineError> {
        let batch: Mutex<Batch> = Mutex::default();
        let frames = AtomicUsize::new(0);
        let damaged = AtomicUsize::new(0);
        let is_full = || {
            frames.load(Ordering::Relaxed) >= FRAMES_AT_ONCE
                || damaged.load(Ordering::Relaxed) >= DAMAGED_AT_ONCE
        };
        let keep = |name: &PackName, checked: Option<Checked>| {
            match &checked {
                Some(Checked::Sound(found)) => frames.fetch_add(found.len(), Ordering::Relaxed),
                Some(Checked::Damaged { .. }) => damaged.fetch_add(1, Ordering::Relaxed),
                None => 0,
            };
            if let Some(checked) = checked {
                lock(&batch).insert(name.clone(), checked);
            }
        };
        let keep = &keep;
        tasks(|tasks| {
            scope(|threads| {
                for _ in 0..self.packs.len().min(READ_THREADS) {
                    threads.spawn(|| {
                        while !self.stopped.load(Ordering::Relaxed) && !is_full() {
                            let next = self.next.fetch_add(1, Ordering::Relaxed);
                            let Some(&(name, state, len)) = self.packs.get(next) else { return };
                            let taken = self.budget.take(len, &self.stopped);
                            match self.read(name, state, len) {
                                Ok(Read::Whole(bytes)) => tasks.spawn(move || {
                                    let _taken = taken;
                                    keep(name, self.verify(name, bytes));
                                }),
                                Ok(Read::Unusable(checked)) => keep(name, checked),
                                Err(error) => {
                                    self.stopped.store(true, Ordering::Relaxed);
                                    lock(&self.failure).get_or_insert(error);
                                }
                            }
                        }
                    });
                }
            });
        });
        match lock(&self.failure).take() {
            Some(error) => Err(error),
            None => Ok(batch.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn read(&self, name: &PackName, state: PackState, len: u64) -> Result<Read, EngineError> {
        if let PackState::OtherLength { finding, .. } = state {
            // It cannot be whole, and may be of any length: only what maps name in it is read.
            tell(self.scope.observer, Event::Progress(len))?;
            return Ok(Read::Unusable(damaged(name, finding)));
        }
        let blob = name.blob();
        let bytes = match self.scope.frames.repository().store().get(&blob, None) {
            // It was there when it was listed, and has been repacked since.
            Err(StoreError::NotFound { .. }) if self.scope.frames.moved().leads_on(name)? => {
                lock(&self.missing).push(name.clone());
                return Ok(Read::Unusable(None));
            }
            Err(error) if error.is_damage() => {
                if matches!(error, StoreError::NotFound { .. }) {
                    lock(&self.missing).push(name.clone());
                } else {
                    lock(&self.states).push((name.clone(), State::Damaged));
                }
                let finding = self.scope.findings.note(FindingKind::MissingPack, &blob, || chain(&error));
                return Ok(Read::Unusable(damaged(name, finding)));
            }
            other => other?,
        };
        self.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        tell(self.scope.observer, Event::Transferred(bytes.len() as u64))?;
        tell(self.scope.observer, Event::Progress(len))?;
        Ok(Read::Whole(bytes))
    }

    fn verify(&self, name: &PackName, mut bytes: Vec<u8>) -> Option<Checked> {
        let mut decoder = lock(&self.decoders).pop().unwrap_or_default();
        let result = verify_pack(self.scope.frames.repository().keys(), name, &mut bytes, &mut decoder);
        lock(&self.decoders).push(decoder);
        let state = if result.is_ok() { State::Sound } else { State::Damaged };
        lock(&self.states).push((name.clone(), state));
        match result {
            // Pages and nodes have been opened by their places already.
            Ok(_) if name.kind == PackKind::Map => None,
            Ok(frames) => Some(Checked::Sound(
                frames.iter().map(|(offset, frame)| (*offset, fingerprint(frame))).collect(),
            )),
            Err(error) => {
                let note = || format!("reading it whole: {}", chain(&error));
                damaged(name, self.scope.findings.note(FindingKind::DamagedPack, &name.blob(), note))
            }
        }
    }
}

enum Read {
    Whole(Vec<u8>),
    Unusable(Option<Checked>),
}

fn damaged(name: &PackName, finding: FindingId) -> Option<Checked> {
    (name.kind == PackKind::Data).then(|| Checked::Damaged { finding, unreadable: HashSet::new() })
}

/// Whether a sound pack has this frame there.
pub(super) fn has_frame(frames: &[(u32, u64)], offset: u32, frame: &FrameEntry) -> bool {
    let found = frames.binary_search_by_key(&offset, |(offset, _)| *offset).ok();
    found.and_then(|position| frames.get(position)).is_some_and(|(_, found)| *found == fingerprint(frame))
}

/// Stands for a directory entry where keeping it would take three times as much. An accident that gives two
/// entries one fingerprint hides a contradiction in a map or index, but no damage of a chunk.
fn fingerprint(frame: &FrameEntry) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[frame.kind as u8, frame.codec as u8]).update(&frame.id.0);
    hasher.update(&frame.plain_len.to_le_bytes()).update(&frame.stored_len.to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Compares what maps say of packs with what was read.
struct Compare<'d, 'v, 'r, 's> {
    scope: &'d Scope<'v, 'r, 's>,
    batch: &'d Batch,
    names_hold: bool,
    contradicted: HashSet<PackName>,
}

impl Inspector for Compare<'_, '_, '_, '_> {
    fn wants(&self, names: &[PackRef]) -> bool {
        let may_lead_there = |pack: &PackRef| {
            self.batch.contains_key(&pack.name) || self.scope.frames.moved().knows(&pack.name)
        };
        !self.names_hold || names.iter().any(may_lead_there)
    }

    fn page(&mut self, page_at: &Location, page: &Page) -> Result<Vec<Hit>, EngineError> {
        let moved = moved_chunks(self.scope.frames, page)?;
        Ok(chunk_hits(page, |at| {
            match self.batch.get(moved.get(at).map_or(&at.pack.name, |pack| &pack.name))? {
                // By its directory it is there, which was compared with its frames when it was read.
                Checked::Sound(_) if moved.contains_key(at) => None,
                Checked::Damaged { finding, unreadable } => unreadable.contains(at).then_some(*finding),
                Checked::Sound(frames) => {
                    (!has_frame(frames, at.offset, &FrameEntry::at(at, FrameKind::Chunk))).then(|| {
                        self.contradicted.insert(at.pack.name.clone());
                        let error =
                            FormatError::BadValue("a page names a chunk that its pack does not have there");
                        let kind = FindingKind::ContradictoryMap;
                        let detail =
                            || format!("the page at offset {}: {error}: {}", page_at.offset, at.pack.name);
                        self.scope.findings.note(kind, &page_at.pack.name.blob(), detail)
                    })
                }
            }
        }))
    }
}

/// Bytes that may be in memory; threads wait until there are enough.
struct Budget {
    free: threads::Mutex<u64>,
    freed: Condvar,
}

impl Budget {
    /// Takes so many bytes, or all there are if that is more.
    fn take<'a>(&'a self, bytes: u64, stopped: &'a AtomicBool) -> Taken<'a> {
        let bytes = bytes.min(BYTES_IN_FLIGHT);
        let free = threads::lock(&self.free);
        let mut free =
            self.freed.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Taken { budget: self, bytes, stopped }
    }
}

/// Bytes that are given back when this is dropped; a panic meanwhile stops everything, so that nobody waits for what
/// will not come.
struct Taken<'a> {
    budget: &'a Budget,
    bytes: u64,
    stopped: &'a AtomicBool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        *threads::lock(&self.budget.free) += self.bytes;
        self.budget.freed.notify_all();
    }
}
