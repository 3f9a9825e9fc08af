//! Finding chunks that are stored already (PROTOCOL W5). One owner asks, in the order of the disks.

use super::together::IndexAccess;
use crate::error::EngineError;
use crate::index::{IndexError, Verdict};
use crate::repository::Repository;
use crate::session::Session;
use crate::snapshots;
use repo_format::{BlobName, ChunkId, Decision, Index, Location, PackName, PackRef, SessionId};
use std::collections::{HashMap, HashSet};

/// Where a chunk is, or that it is new.
pub(super) enum Found {
    /// In a pack that may be referenced.
    At(Location),
    /// Stored by this session, as its new chunk of that number.
    Own(u64),
    /// Not known.
    New,
}

/// Looks chunks up and remembers the session's own.
pub(super) struct Dedup<'a, 's> {
    repository: &'a Repository<'s>,
    session: &'a Session,
    index: IndexAccess<'a>,
    /// New chunks since the last index checkpoint.
    recent: HashMap<ChunkId, u64>,
    next_new: u64,
    /// The session's own packs that an index checkpoint lists.
    own: HashSet<PackRef>,
    /// Packs that were looked up: their lengths, or nothing if they are not there or must not be referenced.
    confirmed: HashMap<PackName, Option<u64>>,
    /// The first failure to write the local index. It is a cache: the backup goes on without what it lacks.
    failure: Option<IndexError>,
    /// Sessions that are not decided now; decided ones are remembered by the index.
    undecided: HashMap<SessionId, bool>,
}

impl<'a, 's> Dedup<'a, 's> {
    pub(super) fn new(repository: &'a Repository<'s>, session: &'a Session, index: IndexAccess<'a>) -> Self {
        Self {
            repository,
            session,
            index,
            recent: HashMap::new(),
            next_new: 0,
            own: HashSet::new(),
            confirmed: HashMap::new(),
            failure: None,
            undecided: HashMap::new(),
        }
    }

    /// Where a chunk of `len` bytes is that the parent does not have at its place.
    pub(super) fn find(&mut self, id: ChunkId, len: u32) -> Result<Found, EngineError> {
        if let Some(&number) = self.recent.get(&id) {
            return Ok(Found::Own(number));
        }
        for hit in self.index.lookup(&id) {
            if hit.plain_len == len && self.may_reference(&hit)? {
                return Ok(Found::At(hit));
            }
        }
        Ok(Found::New)
    }

    /// Notes a chunk that will be stored, and numbers it.
    pub(super) fn note_new(&mut self, id: ChunkId) -> u64 {
        let number = self.next_new;
        self.next_new += 1;
        self.recent.insert(id, number);
        number
    }

    /// Moves chunks whose packs and index are in the store over to the index on disk.
    pub(super) fn checkpoint(&mut self, name: &BlobName, index: &Index, before: u64) {
        let added = self.index.add(std::slice::from_ref(name), index);
        self.own.extend(index.packs.iter().cloned());
        self.note_failure(added);
        self.recent.retain(|_, number| *number >= before);
    }

    /// A failure to write the local index that was not told yet.
    pub(super) fn take_failure(&mut self) -> Option<IndexError> {
        self.failure.take()
    }

    fn note_failure(&mut self, result: Result<(), IndexError>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    fn remember(&mut self, session: SessionId, verdict: Verdict) {
        let remembered = self.index.remember_verdict(session, verdict);
        self.note_failure(remembered);
    }

    fn may_reference(&mut self, place: &Location) -> Result<bool, EngineError> {
        let pack = &place.pack;
        let condemned = &self.session.condemned;
        if condemned.contains(&pack.name) || condemned.is_repacked(&pack.name) {
            return Ok(false);
        }
        // What its own indexes list was put and confirmed by this session. All else under its id is a twin's, whose packs
        // have the names of this session's and other bytes.
        if pack.name.session == self.session.id {
            return Ok(self.own.contains(pack));
        }
        let expected = Some(u64::from(pack.len));
        if let Some(&found) = self.confirmed.get(&pack.name) {
            return Ok(found == expected);
        }
        let found = if self.session_may_be_referenced(&pack.name)? {
            self.repository.blob_len(&pack.name.blob())?
        } else {
            None
        };
        self.confirmed.insert(pack.name.clone(), found);
        Ok(found == expected)
    }

    /// Committed, tombstoned, or aborted and this writer's own; never an undecided session's.
    fn session_may_be_referenced(&mut self, pack: &PackName) -> Result<bool, EngineError> {
        if self.session.condemned.is_of_repack(pack) {
            return Ok(true);
        }
        if let Some(verdict) = self.index.verdict(pack.session) {
            return Ok(verdict == Verdict::Commit || pack.writer == self.session.writer);
        }
        if let Some(&usable) = self.undecided.get(&pack.session) {
            return Ok(usable);
        }
        let Some(decision) = self.index.decision_of(pack.session) else { return Ok(false) };
        match snapshots::read(self.repository, &decision) {
            Ok(Some(Decision::Commit(_) | Decision::Repack(_))) => {
                self.remember(pack.session, Verdict::Commit);
                Ok(true)
            }
            Ok(Some(Decision::Abort(_))) => {
                self.remember(pack.session, Verdict::Abort);
                Ok(pack.writer == self.session.writer)
            }
            Ok(None) => {
                // A forgotten session's decision may be gone; its tombstone stays.
                let forgotten = snapshots::is_forgotten(self.repository, &decision)?;
                self.undecided.insert(pack.session, forgotten);
                Ok(forgotten)
            }
            // A damaged decision decides nothing: its packs are left alone.
            Err(EngineError::Damaged { .. }) => {
                self.undecided.insert(pack.session, false);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
