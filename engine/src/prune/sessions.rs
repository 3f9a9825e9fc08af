//! Which sessions are decided (P2, P4, P5).
//!
//! A session is decided if there is a decision under exactly the name that its intent tells, or a signed tombstone: any
//! other blob that bears its id is no end of it, since it may still commit under that name. A session of the last roster
//! was looked at when that was signed.

use super::listing::{list, list_twice};
use super::{PruneJob, Waiting, WaitingFor};
use crate::backup::Unfinished;
use crate::error::EngineError;
use crate::repository::{Repository, get_sealed};
use crate::store::{BlobInfo, StoreError};
use crate::threads;
use repo_format::{
    BlobKind, BlobName, DecisionName, FormatError, Intent, PREFIX_DECISIONS, PREFIX_INTENTS,
    PREFIX_TOMBSTONES, PackKind, SessionId, Tombstone, VmTag, WriterId, indexes_prefix, packs_prefix,
};
use std::collections::{BTreeMap, BTreeSet};

/// A pruner's own session that stored something so many milliseconds ago may still be running, as with backups (SPEC W-9).
const QUIET_MILLIS: u64 = 15 * 60 * 1000;

/// Intents that are read at the same time.
const READ_THREADS: usize = 32;

/// All sessions, as one listing of intents and then one of decisions and tombstones show them.
pub(super) struct Sessions {
    intents: BTreeMap<SessionId, Begun>,
    decisions: BTreeMap<SessionId, Vec<DecisionName>>,
    tombstones: BTreeMap<SessionId, Vec<VmTag>>,
    roster: BTreeSet<SessionId>,
    /// Whether a session without an intent has a signed tombstone; asked for once.
    signed: BTreeMap<SessionId, bool>,
}

/// An intent as a listing shows it.
#[derive(Clone, Debug)]
struct Begun {
    writer: WriterId,
    /// When it was created, by the store's clock.
    modified: u64,
}

/// A session that has not ended.
#[derive(Clone, Debug)]
pub(super) struct Undecided {
    pub(super) session: SessionId,
    pub(super) writer: WriterId,
    pub(super) begun: u64,
    /// The name of its decision; nothing if its intent cannot be read.
    pub(super) decision: Option<DecisionName>,
}

impl Sessions {
    /// Lists intents, then decisions and tombstones: in this order, a session that ends meanwhile is seen to have ended.
    pub(super) fn list(
        repository: &Repository<'_>,
        roster: impl IntoIterator<Item = SessionId>,
    ) -> Result<Self, EngineError> {
        let mut intents = BTreeMap::new();
        for info in list_twice(repository, PREFIX_INTENTS)? {
            if let Some(BlobKind::Intent { writer, session }) = info.name.kind() {
                intents.insert(session, Begun { writer, modified: info.modified });
            }
        }
        let mut sessions = Self {
            intents,
            decisions: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            roster: roster.into_iter().collect(),
            signed: BTreeMap::new(),
        };
        for info in list_twice(repository, PREFIX_DECISIONS)? {
            if let Some(BlobKind::Decision(name)) = info.name.kind() {
                sessions.decisions.entry(name.session).or_default().push(name);
            }
        }
        for info in list(repository, PREFIX_TOMBSTONES)? {
            if let Some(BlobKind::Tombstone { vm, session }) = info.name.kind() {
                sessions.tombstones.entry(session).or_default().push(vm);
            }
        }
        Ok(sessions)
    }

    /// The sessions that have begun and are not decided.
    pub(super) fn undecided(&self, repository: &Repository<'_>) -> Result<Vec<Undecided>, EngineError> {
        let is_open = |(session, _): &(&SessionId, &Begun)| {
            !(self.roster.contains(session) && self.decisions.contains_key(session))
        };
        let open: Vec<(&SessionId, &Begun)> = self.intents.iter().filter(is_open).collect();
        let looked_at = threads::each(&open, READ_THREADS, |(session, begun)| {
            let Begun { writer, modified } = begun;
            let decision = match read_intent(repository, writer, **session)? {
                Read::Intent(intent) => Some(intent.decision),
                Read::Gone => return Ok(None),
                Read::Damaged => None,
            };
            if self.is_decided_as(repository, **session, writer, decision.as_ref())? {
                return Ok(None);
            }
            Ok(Some(Undecided { session: **session, writer: writer.clone(), begun: *modified, decision }))
        });
        looked_at.into_iter().filter_map(Result::transpose).collect()
    }

    /// Whether a session with an intent is decided under the name that the intent tells. Where that cannot be read, one of
    /// its writer's is taken for it.
    fn is_decided_as(
        &self,
        repository: &Repository<'_>,
        session: SessionId,
        writer: &WriterId,
        decision: Option<&DecisionName>,
    ) -> Result<bool, EngineError> {
        let mut decisions = self.decisions.get(&session).into_iter().flatten();
        let is_there = match decision {
            Some(decision) => decisions.any(|name| name == decision),
            None => decisions.any(|name| name.writer == *writer),
        };
        Ok(is_there || self.has_signed_tombstone(repository, session)?)
    }

    /// Whether the packs of a session may be candidates (P2): it is decided.
    pub(super) fn is_decided(
        &mut self,
        repository: &Repository<'_>,
        undecided: &BTreeSet<SessionId>,
        session: SessionId,
    ) -> Result<bool, EngineError> {
        if undecided.contains(&session) {
            return Ok(false);
        }
        // An intent that was listed and is not among the undecided; or one that a pruner removed after the decision.
        if self.intents.contains_key(&session) || self.decisions.contains_key(&session) {
            return Ok(true);
        }
        if let Some(&signed) = self.signed.get(&session) {
            return Ok(signed);
        }
        let signed = self.has_signed_tombstone(repository, session)?;
        self.signed.insert(session, signed);
        Ok(signed)
    }

    fn has_signed_tombstone(
        &self,
        repository: &Repository<'_>,
        session: SessionId,
    ) -> Result<bool, EngineError> {
        for vm in self.tombstones.get(&session).into_iter().flatten() {
            let name = BlobName::tombstone(*vm, session);
            let bytes = get_sealed(repository.store(), &name)?;
            match Tombstone::open(repository.keys(), &name, &bytes) {
                Ok(_) => return Ok(true),
                Err(FormatError::BadSignature) => {}
                Err(source) => return Err(EngineError::Damaged { name, source }),
            }
        }
        Ok(false)
    }

    /// The intents of sessions that are decided and made no snapshot that is still there: nothing needs them any more.
    pub(super) fn spent_intents(
        &self,
        valid: &BTreeSet<SessionId>,
        undecided: &BTreeSet<SessionId>,
    ) -> Vec<BlobName> {
        let is_spent = |(session, _): &(&SessionId, &Begun)| {
            let ended = self.decisions.contains_key(session) || self.tombstones.contains_key(session);
            ended && !valid.contains(session) && !undecided.contains(session)
        };
        let name = |(session, begun): (&SessionId, &Begun)| BlobName::intent(&begun.writer, *session);
        self.intents.iter().filter(is_spent).map(name).collect()
    }

    /// Whether the intent of a session was listed.
    pub(super) fn has_begun(&self, session: SessionId) -> bool {
        self.intents.contains_key(&session)
    }

    /// Whether a blob was listed that is, or claims to be, the end of a session.
    pub(super) fn has_end(&self, session: SessionId) -> bool {
        self.decisions.contains_key(&session) || self.tombstones.contains_key(&session)
    }

    /// The decisions that were listed of a session.
    pub(super) fn decisions_of(&self, session: SessionId) -> &[DecisionName] {
        self.decisions.get(&session).map_or(&[], Vec::as_slice)
    }
}

enum Read {
    Intent(Intent),
    Gone,
    Damaged,
}

fn read_intent(
    repository: &Repository<'_>,
    writer: &WriterId,
    session: SessionId,
) -> Result<Read, EngineError> {
    let name = BlobName::intent(writer, session);
    let bytes = match get_sealed(repository.store(), &name) {
        Ok(bytes) => bytes,
        // A pruner removes intents of decided sessions.
        Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(Read::Gone),
        Err(error) if error.is_damage() => return Ok(Read::Damaged),
        Err(error) => return Err(error),
    };
    Ok(match Intent::open(repository.keys(), &name, &bytes) {
        Ok(intent) => Read::Intent(intent),
        Err(_) => Read::Damaged,
    })
}

/// What is to become of a session that is not decided.
pub(super) enum Verdict {
    /// It may be aborted now.
    Abort(DecisionName),
    /// Its intent cannot be read, and the operator says that it has ended.
    Discard,
    Wait(Waiting),
}

impl Undecided {
    /// P5: whether a session is waited for.
    pub(super) fn verdict(
        self,
        repository: &Repository<'_>,
        job: &PruneJob<'_>,
    ) -> Result<Verdict, EngineError> {
        let newest = self.newest_blob(repository)?;
        let quiet_millis = job.time.saturating_sub(newest);
        let is_named = job.abort.contains(&self.session);
        let Self { session, writer, begun, decision } = self;
        let Some(decision) = decision else {
            let why = WaitingFor::UnreadableIntent;
            let waiting =
                Waiting { session: session.to_string(), writer: writer.to_string(), begun, newest, why };
            return Ok(if is_named { Verdict::Discard } else { Verdict::Wait(waiting) });
        };
        let is_own = writer == *job.writer && decision.vm == repository.keys().vm_tag("");
        let has_ended = match job.unfinished {
            Unfinished::Ended => true,
            Unfinished::MayRun { ended } => ended.contains(&session) || quiet_millis >= QUIET_MILLIS,
        };
        if is_named || quiet_millis >= job.patience || (is_own && has_ended) {
            return Ok(Verdict::Abort(decision));
        }
        let why = WaitingFor::Decision;
        Ok(Verdict::Wait(Waiting {
            session: session.to_string(),
            writer: writer.to_string(),
            begun,
            newest,
            why,
        }))
    }

    /// The date of the newest blob of the session, by the store's clock.
    fn newest_blob(&self, repository: &Repository<'_>) -> Result<u64, EngineError> {
        let mut newest = self.begun;
        let prefixes = [
            packs_prefix(PackKind::Data, &self.writer, self.session),
            packs_prefix(PackKind::Map, &self.writer, self.session),
            indexes_prefix(&self.writer, self.session),
        ];
        for prefix in prefixes {
            let dates = repository.list(&prefix)?.into_iter().map(|info: BlobInfo| info.modified);
            newest = dates.fold(newest, u64::max);
        }
        Ok(newest)
    }
}
