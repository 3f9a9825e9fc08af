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
    BlobKind, BlobName, DecisionName, Intent, PREFIX_DECISIONS, PREFIX_INTENTS, PREFIX_TOMBSTONES, PackKind,
    SessionId, Tombstone, VmTag, WriterId, indexes_prefix, packs_prefix,
};
use std::collections::{BTreeMap, BTreeSet};

/// A pruner's own session that stored something so many milliseconds ago may still be running, as with backups (SPEC W-9).
const QUIET_MILLIS: u64 = 15 * 60 * 1000;

/// How often an intent is read that seems to be damaged.
const READS: usize = 4;
/// Intents that are read at the same time.
const READ_THREADS: usize = 32;

/// A session, and whose it is. Ids are no secret, and whoever may create blobs may use one again: what one writer did under
/// an id says nothing of another's session with that id.
pub(crate) type Owner = (SessionId, WriterId);

/// All sessions, as one listing of intents and then one of decisions and tombstones show them.
pub(crate) struct Sessions {
    /// When intents were created, by the store's clock.
    intents: BTreeMap<Owner, u64>,
    decisions: BTreeMap<SessionId, Vec<DecisionName>>,
    tombstones: BTreeMap<SessionId, Vec<VmTag>>,
    roster: BTreeSet<SessionId>,
    /// Whether a session without an intent has a signed tombstone; asked for once.
    signed: BTreeMap<Owner, bool>,
}

/// What became of sessions.
pub(super) struct Looked {
    /// Those that have begun and are not decided.
    pub(super) undecided: Vec<Undecided>,
    /// Those that are taken for decided although their intents cannot be read, as there is a decision of their writer's: what
    /// can be read later may tell otherwise.
    pub(super) guessed: Vec<Owner>,
}

/// A session that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Undecided {
    pub(crate) session: SessionId,
    pub(crate) writer: WriterId,
    /// When its intent was created, by the store's clock.
    pub(crate) begun: u64,
    /// The name of its decision; nothing if its intent cannot be read.
    pub(crate) decision: Option<DecisionName>,
}

impl Sessions {
    /// Lists intents, then decisions and tombstones: in this order, a session that ends meanwhile is seen to have ended.
    pub(crate) fn list(
        repository: &Repository<'_>,
        roster: impl IntoIterator<Item = SessionId>,
    ) -> Result<Self, EngineError> {
        let mut intents = BTreeMap::new();
        for info in list_twice(repository, PREFIX_INTENTS)? {
            if let Some(BlobKind::Intent { writer, session }) = info.name.kind() {
                intents.insert((session, writer), info.modified);
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
    pub(crate) fn undecided(&self, repository: &Repository<'_>) -> Result<Vec<Undecided>, EngineError> {
        Ok(self.look(repository)?.undecided)
    }

    /// Looks at all sessions that are not known to be decided.
    pub(super) fn look(&self, repository: &Repository<'_>) -> Result<Looked, EngineError> {
        let intents: Vec<(&Owner, &u64)> =
            self.intents.iter().filter(|(owner, _)| !self.is_known(owner)).collect();
        let looked_at = threads::each(&intents, READ_THREADS, |((session, writer), begun)| {
            let decision = match read_intent(repository, writer, *session)? {
                Read::Intent(intent) => Some(intent.decision),
                Read::Gone if self.ends_of(*session, writer).next().is_some() => return Ok(None),
                Read::Gone | Read::Damaged => None,
            };
            let is_decided = self.is_decided_as(repository, (*session, writer), decision.as_ref())?;
            let is_sure = decision.is_some();
            let open = Undecided { session: *session, writer: writer.clone(), begun: **begun, decision };
            Ok((!is_decided || !is_sure).then_some((is_decided, open)))
        });
        let mut looked = Looked { undecided: Vec::new(), guessed: Vec::new() };
        for seen in looked_at {
            let seen: Result<_, EngineError> = seen;
            match seen? {
                Some((true, open)) => looked.guessed.push(open.owner()),
                Some((false, open)) => looked.undecided.push(open),
                None => {}
            }
        }
        Ok(looked)
    }

    /// Whether a session was found decided when the last roster was signed, and nobody else uses its id.
    fn is_known(&self, (session, writer): &Owner) -> bool {
        self.owners_of(*session).count() == 1
            && self.roster.contains(session)
            && self.ends_of(*session, writer).next().is_some()
    }

    /// The intents that bear a session's id.
    fn owners_of(&self, session: SessionId) -> impl Iterator<Item = &Owner> {
        let first = WriterId::new("0").expect("a digit is a writer's id, and none comes before it");
        self.intents
            .range((session, first)..)
            .map(|(owner, _)| owner)
            .take_while(move |(id, _)| *id == session)
    }

    /// The decisions of a writer that bear a session's id.
    fn ends_of<'e>(
        &'e self,
        session: SessionId,
        writer: &'e WriterId,
    ) -> impl Iterator<Item = &'e DecisionName> + 'e {
        self.decisions_of(session).iter().filter(move |name| name.writer == *writer)
    }

    /// Whether a session with an intent is decided under the name that the intent tells. Where that cannot be read, one of
    /// its writer's is taken for it.
    fn is_decided_as(
        &self,
        repository: &Repository<'_>,
        (session, writer): (SessionId, &WriterId),
        decision: Option<&DecisionName>,
    ) -> Result<bool, EngineError> {
        let is_end =
            |name: &DecisionName| decision.map_or(name.writer == *writer, |decision| name == decision);
        Ok(self.decisions_of(session).iter().any(&is_end)
            || self.has_signed_tombstone(repository, session, &is_end)?)
    }

    /// Whether the packs of a session may be candidates (P2): it is decided.
    pub(super) fn is_decided(
        &mut self,
        repository: &Repository<'_>,
        undecided: &BTreeSet<Owner>,
        owner: &Owner,
    ) -> Result<bool, EngineError> {
        if undecided.contains(owner) {
            return Ok(false);
        }
        let (session, writer) = owner;
        // An intent that was listed and is not among the undecided; or one that a pruner removed after the decision.
        if self.intents.contains_key(owner) || self.ends_of(*session, writer).next().is_some() {
            return Ok(true);
        }
        if let Some(&signed) = self.signed.get(owner) {
            return Ok(signed);
        }
        let is_end = |name: &DecisionName| name.writer == *writer;
        let signed = self.has_signed_tombstone(repository, *session, &is_end)?;
        self.signed.insert(owner.clone(), signed);
        Ok(signed)
    }

    /// Whether there is a signed tombstone of such a decision. One that cannot be read, or is not signed, is none: then the
    /// session is waited for.
    fn has_signed_tombstone(
        &self,
        repository: &Repository<'_>,
        session: SessionId,
        is_end: &dyn Fn(&DecisionName) -> bool,
    ) -> Result<bool, EngineError> {
        for vm in self.tombstones.get(&session).into_iter().flatten() {
            let name = BlobName::tombstone(*vm, session);
            let bytes = match get_sealed(repository.store(), &name) {
                Err(error) if error.is_damage() => continue,
                other => other?,
            };
            if Tombstone::open(repository.keys(), &name, &bytes)
                .is_ok_and(|tombstone| is_end(&tombstone.decision))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The intents of sessions that are decided and made no snapshot that is still there: nothing needs them any more.
    pub(super) fn spent_intents(
        &self,
        valid: &BTreeSet<SessionId>,
        undecided: &BTreeSet<Owner>,
    ) -> Vec<BlobName> {
        let is_spent = |owner: &&Owner| {
            self.has_end(owner.0) && !valid.contains(&owner.0) && !undecided.contains(*owner)
        };
        let name = |(session, writer): &Owner| BlobName::intent(writer, *session);
        self.intents.keys().filter(is_spent).map(name).collect()
    }

    /// Whether the intent of some writer with a session's id was listed, and all that were are of decided sessions.
    pub(super) fn is_decided_by_all(&self, session: SessionId, undecided: &BTreeSet<Owner>) -> bool {
        let mut owners = self.owners_of(session);
        owners
            .next()
            .is_some_and(|first| !undecided.contains(first) && owners.all(|owner| !undecided.contains(owner)))
    }

    /// Whether a blob was listed that is, or claims to be, the end of a session.
    pub(super) fn has_end(&self, session: SessionId) -> bool {
        self.decisions.contains_key(&session) || self.tombstones.contains_key(&session)
    }

    /// The decisions that were listed of a session's id.
    pub(super) fn decisions_of(&self, session: SessionId) -> &[DecisionName] {
        self.decisions.get(&session).map_or(&[], Vec::as_slice)
    }
}

enum Read {
    Intent(Intent),
    Gone,
    Damaged,
}

/// Reads an intent; one that is damaged several times, since it may have been changed on its way.
fn read_intent(
    repository: &Repository<'_>,
    writer: &WriterId,
    session: SessionId,
) -> Result<Read, EngineError> {
    let name = BlobName::intent(writer, session);
    for _ in 0..READS {
        let bytes = match get_sealed(repository.store(), &name) {
            Ok(bytes) => bytes,
            // A pruner removes intents of decided sessions.
            Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(Read::Gone),
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        if let Ok(intent) = Intent::open(repository.keys(), &name, &bytes) {
            return Ok(Read::Intent(intent));
        }
    }
    Ok(Read::Damaged)
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
    pub(super) fn owner(&self) -> Owner {
        (self.session, self.writer.clone())
    }

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
        let wait = |why| {
            Verdict::Wait(Waiting {
                session: session.to_string(),
                writer: writer.to_string(),
                begun,
                newest,
                why,
                replica: None,
            })
        };
        let Some(decision) = decision else {
            return Ok(if is_named { Verdict::Discard } else { wait(WaitingFor::UnreadableIntent) });
        };
        let is_own = writer == *job.writer && decision.vm == repository.keys().vm_tag("");
        let has_ended = match job.unfinished {
            Unfinished::Ended => true,
            Unfinished::MayRun { ended } => ended.contains(&session) || quiet_millis >= QUIET_MILLIS,
        };
        let is_aborted = is_named || quiet_millis >= job.patience || (is_own && has_ended);
        Ok(if is_aborted { Verdict::Abort(decision) } else { wait(WaitingFor::Decision) })
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
