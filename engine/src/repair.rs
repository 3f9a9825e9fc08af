//! Repairing what can be made again from what is there. Nothing is changed or deleted.
//!
//! Indexes are made again from the directories of packs (SPEC section 9). Only packs that no readable index lists with their
//! length are looked at, and only their headers and directories are read.
//!
//! Packs are listed first, then decisions, then indexes: a session that was decided by then had put its indexes before,
//! so packs of backups that run meanwhile are never taken for unlisted ones.
//!
//! Memory: the names of all data packs and of those that indexes list, some 100 bytes each (about 3 MiB for each TiB that
//! is stored in packs of 32 MiB), the entries of one index, about 100 bytes for each of `ENTRIES_MAX`, and the
//! directories of `READ_AT_ONCE` packs.

use crate::condemned::Condemned;
use crate::directory;
use crate::entropy::Entropy;
use crate::error::{EngineError, chain};
use crate::lineage::check_is_written;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::pack::FRAMES_MAX;
use crate::repository::{Repository, get_sealed};
use crate::session::create;
use crate::snapshots;
use crate::store::StoreError;
use crate::unnamed::{Beginning, Unnamed};
use repo_format::{
    BlobKind, BlobName, DecisionName, FrameEntry, Index, IndexEntry, PREFIX_DATA, PREFIX_INDEX, PackName,
    PackRef, PayloadId, SessionId, Tombstone, WriterId,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Entries of one index; with those of one more pack they fit its limit (SPEC 12).
const ENTRIES_MAX: usize = 400_000;
const _: () =
    assert!((ENTRIES_MAX + FRAMES_MAX) * 49 + (1 << 20) < repo_format::limits::SEALED_PLAIN_LEN_MAX);
/// Directories that are read together.
const READ_AT_ONCE: usize = 64;

/// What a repair of the index is to do.
pub struct RepairJob<'a> {
    /// The writer that the new indexes belong to.
    pub writer: &'a WriterId,
    /// Whether anything is written.
    pub mode: RepairMode,
    /// Now, milliseconds since 1970.
    pub time: u64,
    /// The program and its version.
    pub program: &'a str,
    /// Randomness of this run.
    pub entropy: Entropy,
}

/// Whether a repair writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairMode {
    /// It does.
    Write,
    /// It only tells what it would do.
    DryRun,
}

/// What a repair of the index did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepairReport {
    /// Packs that no readable index lists, of sessions that may be listed: they were looked at.
    pub packs: u64,
    /// Those of them that are listed now.
    pub listed: u64,
    /// Chunks that are listed now.
    pub chunks: u64,
    /// Index blobs that were written.
    pub indexes: Vec<String>,
    /// Indexes that cannot be read. They stay where they are.
    pub unreadable_indexes: Vec<Unusable>,
    /// Packs that cannot be listed.
    pub unreadable_packs: Vec<Unusable>,
}

impl RepairReport {
    /// Whether a pack of a snapshot cannot be listed.
    #[must_use]
    pub fn has_damage(&self) -> bool {
        self.unreadable_packs.iter().any(|pack| pack.needed)
    }
}

/// A blob that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unusable {
    /// Its name.
    pub blob: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it is a pack that a snapshot's own session stored.
    pub needed: bool,
}

/// A session whose packs may be listed.
struct Listable {
    decision: DecisionName,
    is_snapshot: bool,
}

/// Lists in new indexes the data packs that no readable index lists: those of sessions that were committed or
/// forgotten, of repacks, and of sessions of this writer that were aborted (SPEC W-5). Does nothing if there are none.
///
/// # Errors
/// A failing store, [`EngineError::Cancelled`], or a damaged generation or repack record: without it nobody knows what
/// must not be listed. Other damaged blobs are no error: they are in the report.
pub fn repair_index(
    repository: &Repository<'_>,
    job: &RepairJob<'_>,
    observer: &dyn Observer,
) -> Result<RepairReport, EngineError> {
    let _standing = check_is_written(repository)?;
    let mut report = RepairReport::default();
    let packs = data_packs(repository)?;
    let sessions = listable(repository, job.writer)?;
    let listed = listed_packs(repository, &mut report)?;
    // What is condemned now stays so, and a session is begun only for what is not.
    let condemned = Condemned::load(repository)?;
    let is_unlisted = |pack: &&PackRef| {
        let session = sessions.get(&pack.name.session);
        session.is_some_and(|session| session.decision.writer == pack.name.writer)
            && !listed.contains(*pack)
            && !condemned.contains(&pack.name)
    };
    let unlisted: Vec<&PackRef> = packs.iter().filter(is_unlisted).collect();
    report.packs = unlisted.len() as u64;
    begin(observer, Phase::RepairIndex, report.packs)?;
    let mut repair =
        Repair { repository, job, sessions: &sessions, session: None, next: 0, observer, report };
    let filled = repair.fill(&unlisted);
    // What was written holds, whatever failed behind it, so the session is ended if that is possible.
    let ended = repair.end();
    filled.and(ended)
}

fn data_packs(repository: &Repository<'_>) -> Result<Vec<PackRef>, EngineError> {
    let pack = |info: crate::store::BlobInfo| match info.name.kind() {
        // What is longer than a pack can be is damage that a verification tells of.
        Some(BlobKind::Pack(name)) => {
            Some(PackRef { name, len: u32::try_from(info.len).unwrap_or(u32::MAX) })
        }
        _ => None,
    };
    Ok(repository.list(PREFIX_DATA)?.into_iter().filter_map(pack).collect())
}

/// The sessions whose packs may be listed. A decision that cannot be read decides nothing.
fn listable(
    repository: &Repository<'_>,
    writer: &WriterId,
) -> Result<HashMap<SessionId, Listable>, EngineError> {
    let found = snapshots::list(repository, None)?;
    let mut sessions = HashMap::new();
    for info in repository.list(repo_format::PREFIX_TOMBSTONES)? {
        let Some(BlobKind::Tombstone { session, .. }) = info.name.kind() else { continue };
        let bytes = match get_sealed(repository.store(), &info.name) {
            Err(error) if error.is_damage() => continue,
            other => other?,
        };
        if let Ok(tombstone) = Tombstone::open(repository.keys(), &info.name, &bytes) {
            sessions.insert(session, Listable { decision: tombstone.decision, is_snapshot: false });
        }
    }
    for info in repository.list(repo_format::PREFIX_DECISIONS)? {
        if let Some(decision) = DecisionName::of(&info.name)
            && (found.repacked.contains(&decision.session)
                || decision.writer == *writer && found.aborted.contains(&decision.session))
        {
            sessions.insert(decision.session, Listable { decision, is_snapshot: false });
        }
    }
    for snapshot in found.snapshots {
        sessions.insert(snapshot.session(), Listable { decision: snapshot.name, is_snapshot: true });
    }
    Ok(sessions)
}

/// The packs that readable indexes list, with the lengths that they say.
fn listed_packs(
    repository: &Repository<'_>,
    report: &mut RepairReport,
) -> Result<BTreeSet<PackRef>, EngineError> {
    let mut listed = BTreeSet::new();
    for info in repository.list(PREFIX_INDEX)? {
        let Some(BlobKind::Index { .. }) = info.name.kind() else { continue };
        let index = match get_sealed(repository.store(), &info.name) {
            Ok(bytes) => {
                Index::open(repository.keys(), &info.name, &bytes).map_err(EngineError::damaged(&info.name))
            }
            // A pruner removed it; what replaced it was listed as well.
            Err(EngineError::Store(StoreError::NotFound { .. })) => continue,
            Err(error) => Err(error),
        };
        match index {
            Ok(index) => listed.extend(index.packs),
            Err(error) if error.is_damage() => {
                let (blob, reason) = (info.name.to_string(), chain(&error));
                report.unreadable_indexes.push(Unusable { blob, reason, needed: false });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listed)
}

/// The next index.
#[derive(Default)]
struct Building {
    entries: BTreeMap<PayloadId, (PackName, IndexEntry)>,
    packs: BTreeMap<PackName, PackRef>,
    /// Packs all of whose chunks others have that are in this index: an index lists each chunk once, so they wait for
    /// the next one.
    waiting: Vec<(PackRef, Vec<(u32, FrameEntry)>)>,
}

impl Building {
    fn add(&mut self, pack: &PackRef, frames: &[(u32, FrameEntry)]) {
        let is_known = |(_, frame): &(u32, FrameEntry)| self.entries.contains_key(&frame.id);
        if frames.iter().all(is_known) {
            self.waiting.push((pack.clone(), frames.to_vec()));
            return;
        }
        for (offset, frame) in frames {
            let FrameEntry { codec, plain_len, stored_len, id, .. } = *frame;
            let entry = IndexEntry { id, codec, pack: 0, offset: *offset, stored_len, plain_len };
            self.entries.entry(id).or_insert_with(|| (pack.name.clone(), entry));
        }
        self.packs.insert(pack.name.clone(), pack.clone());
    }

    /// Takes the packs and entries, and begins the next index with what waited.
    fn take(&mut self) -> (Vec<PackRef>, Vec<(PackName, IndexEntry)>) {
        let packs = std::mem::take(&mut self.packs).into_values().collect();
        let entries = std::mem::take(&mut self.entries).into_values().collect();
        for (pack, frames) in std::mem::take(&mut self.waiting) {
            self.add(&pack, &frames);
        }
        (packs, entries)
    }
}

struct Repair<'a, 'r, 's> {
    repository: &'r Repository<'s>,
    job: &'a RepairJob<'a>,
    sessions: &'a HashMap<SessionId, Listable>,
    session: Option<Unnamed>,
    /// The number of the next index.
    next: u32,
    observer: &'a dyn Observer,
    report: RepairReport,
}

impl Repair<'_, '_, '_> {
    fn fill(&mut self, unlisted: &[&PackRef]) -> Result<(), EngineError> {
        let mut building = Building::default();
        for packs in unlisted.chunks(READ_AT_ONCE) {
            for (pack, frames) in packs.iter().zip(directory::read_all(self.repository, packs)?) {
                match frames {
                    Ok(frames) => building.add(pack, &frames),
                    Err(error) => self.unreadable(pack, &error),
                }
                if building.entries.len() >= ENTRIES_MAX {
                    self.put(&mut building)?;
                }
            }
            tell(self.observer, Event::Progress(packs.len() as u64))?;
        }
        while !building.packs.is_empty() {
            self.put(&mut building)?;
        }
        Ok(())
    }

    fn unreadable(&mut self, pack: &PackRef, error: &EngineError) {
        let needed = self.sessions.get(&pack.name.session).is_some_and(|session| session.is_snapshot);
        let (blob, reason) = (pack.name.to_string(), chain(error));
        self.report.unreadable_packs.push(Unusable { blob, reason, needed });
    }

    fn put(&mut self, building: &mut Building) -> Result<(), EngineError> {
        let (mut packs, mut entries) = building.take();
        if self.job.mode == RepairMode::Write {
            let writing = self.begun()?;
            packs.retain(|pack| !writing.condemned.contains(&pack.name));
            entries.retain(|(pack, _)| !writing.condemned.contains(pack));
        }
        if packs.is_empty() {
            return Ok(());
        }
        self.report.listed += packs.len() as u64;
        self.report.chunks += entries.len() as u64;
        let Some(writing) = &self.session else { return Ok(()) };
        let numbers: HashMap<&PackName, u32> = packs.iter().map(|pack| &pack.name).zip(0..).collect();
        let numbered =
            |(pack, entry): &(PackName, IndexEntry)| Some(IndexEntry { pack: *numbers.get(pack)?, ..*entry });
        let entries = entries.iter().filter_map(numbered).collect();
        let named: BTreeSet<SessionId> = packs.iter().map(|pack| pack.name.session).collect();
        let decision = |session: SessionId| Some((session, self.sessions.get(&session)?.decision.clone()));
        let sessions = named.into_iter().filter_map(decision).collect();
        let name = BlobName::index(self.job.writer, writing.session(), self.next);
        let salt = self.job.entropy.draw("index salt", u64::from(self.next));
        self.next += 1;
        let bytes = Index { sessions, packs, entries }.seal(self.repository.keys(), &name, salt);
        create(self.repository.store(), &name, &bytes)?;
        self.report.indexes.push(name.to_string());
        Ok(())
    }

    /// Begins a session if none was begun, and reads what is condemned after that (W-2).
    fn begun(&mut self) -> Result<&Unnamed, EngineError> {
        let begun = match self.session.take() {
            Some(begun) => begun,
            None => Unnamed::begin(self.repository, self.beginning(), self.observer)?,
        };
        Ok(self.session.insert(begun))
    }

    fn beginning(&self) -> Beginning<'_> {
        let RepairJob { writer, time, program, entropy, .. } = self.job;
        Beginning { writer, time: *time, program, entropy }
    }

    /// Ends the session: it stored no snapshot.
    fn end(self) -> Result<RepairReport, EngineError> {
        if let Some(session) = &self.session {
            session.abort(self.repository, self.beginning())?;
        }
        Ok(self.report)
    }
}
