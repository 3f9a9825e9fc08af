//! One run of one writer, from the intent to the decision (PROTOCOL section 3, SPEC section 11).

use crate::backup::BackupJob;
use crate::condemned::Condemned;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::lineage::Standing;
use crate::observer::{Event, Observer, tell};
use crate::repository::Repository;
use crate::snapshots::{self, Newest, Parents, Snapshot};
use crate::store::{BlobInfo, BlobStore, Put, StoreError};
use repo_format::{
    Abort, AbortBy, BlobKind, BlobName, Commit, Decision, DecisionName, Disk, Intent, PREFIX_GC,
    PREFIX_INTENTS, PackRef, SessionId, WriterId, decisions_prefix, packs_prefix,
};
use std::collections::BTreeMap;

/// A session whose intent is in the store and that has no decision yet.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) writer: WriterId,
    pub(crate) decision: DecisionName,
    /// Seen after the intent: what must not be referenced.
    pub(crate) condemned: Condemned,
    /// Chosen after that.
    pub(crate) parent: Option<Snapshot>,
    /// A session that was decided after the parent, or beside it, and is no snapshot.
    pub(crate) later: Option<SessionId>,
    /// Somebody aborted it before it did anything.
    pub(crate) is_aborted: bool,
    /// Another writer's session has the same id. Only of one whose id is not drawn at random.
    pub(crate) rival: Option<WriterId>,
    /// Decisions and tombstones of the VM that could not be read.
    pub(crate) unreadable: Vec<(BlobName, EngineError)>,
}

/// Another writer that began a session with the id of this one, or ended one. Of two that both began theirs before they
/// looked, each sees the other.
fn rival(
    repository: &Repository<'_>,
    own: &DecisionName,
    has_ended: bool,
) -> Result<Option<WriterId>, EngineError> {
    let is_rival = |writer: &WriterId, session| session == own.session && *writer != own.writer;
    for info in repository.list(PREFIX_INTENTS)? {
        if let Some(BlobKind::Intent { writer, session }) = info.name.kind()
            && is_rival(&writer, session)
        {
            return Ok(Some(writer));
        }
    }
    if has_ended {
        for info in repository.list(&decisions_prefix(own.vm))? {
            if let Some(name) = DecisionName::of(&info.name)
                && is_rival(&name.writer, name.session)
            {
                return Ok(Some(name.writer));
            }
        }
    }
    Ok(None)
}

/// What became of a commit.
pub(crate) enum Committed {
    /// The snapshot is there.
    Yes,
    /// Somebody aborted the session before.
    Aborted,
}

/// Who begins a session for which VM, and when.
#[derive(Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) writer: &'a WriterId,
    pub(crate) vm: &'a str,
    /// Milliseconds since 1970.
    pub(crate) time: u64,
    /// The number of its decision; see [`next_seq`].
    pub(crate) seq: u32,
    /// What the place is.
    pub(crate) standing: &'a Standing,
    /// What it is called and builds on.
    pub(crate) as_what: As<'a>,
}

/// What a session is called, and what it builds on.
#[derive(Clone, Copy)]
pub(crate) enum As<'a> {
    /// The VM's next snapshot: under a new id, on the newest one.
    Next,
    /// A restore point of another place (see [`crate::import`]).
    Imported {
        /// The id that it has, whoever imports it.
        session: SessionId,
        /// What it builds on, as long as that is a snapshot.
        parent: Option<&'a DecisionName>,
    },
}

impl Session {
    /// W1 to W3: the intent, then what is condemned, then the parent. The order is load-bearing.
    pub(crate) fn open(
        repository: &Repository<'_>,
        opening: Opening<'_>,
        entropy: &Entropy,
        observer: &dyn Observer,
    ) -> Result<Self, EngineError> {
        let vm = repository.keys().vm_tag(opening.vm);
        let id = match opening.as_what {
            As::Next => SessionId(entropy.draw16("session id", 0)),
            As::Imported { session, .. } => session,
        };
        let decision = DecisionName { vm, writer: opening.writer.clone(), seq: opening.seq, session: id };
        let intent = Intent {
            session: id,
            decision: decision.clone(),
            generation: newest_generation(repository)?,
            time: opening.time,
        };
        tell(observer, Event::SessionBegins(id))?;
        let (name, bytes) = intent.seal(repository.keys(), entropy.draw("intent salt", 0));
        create(repository.store(), &name, &bytes)?;
        let mut condemned = Condemned::load(repository)?;
        let parents = Parents { repository, standing: opening.standing, records: condemned.records() };
        let (found, rival) = match opening.as_what {
            As::Next => (snapshots::newest(&parents, vm)?, None),
            As::Imported { parent, .. } => {
                let found = snapshots::given(&parents, vm, parent)?;
                let rival = rival(repository, &decision, found.ended.contains(&id))?;
                (found, rival)
            }
        };
        let Newest { snapshot: parent, unreadable, later, ended } = found;
        if let (Some(parent), Standing::Promoted(_)) = (&parent, opening.standing) {
            condemned.look_for_stranded(repository, parent)?;
        }
        // Whatever has ended under this id, the parent may refer to its packs, which have the names of those that this
        // session is about to put.
        let is_aborted = ended.contains(&id)
            && rival.is_none()
            && match snapshots::read(repository, &decision)? {
                Some(Decision::Abort(_)) => true,
                _ => return Err(EngineError::Twin { name: decision.blob() }),
            };
        let writer = opening.writer.clone();
        Ok(Self { id, writer, decision, condemned, parent, later, is_aborted, rival, unreadable })
    }

    /// A disk as the parent has it.
    pub(crate) fn recorded(&self, key: &str) -> Option<&Disk> {
        let parent = self.parent.as_ref()?;
        parent.commit.disks.iter().find(|disk| disk.key == key)
    }

    /// W6: the session's own packs are in the store, each with its length.
    pub(crate) fn check_packs(
        &self,
        repository: &Repository<'_>,
        packs: &[PackRef],
    ) -> Result<(), EngineError> {
        let mut listed: BTreeMap<BlobName, u64> = BTreeMap::new();
        let mut kinds: Vec<_> = packs.iter().map(|pack| pack.name.kind).collect();
        kinds.dedup();
        for kind in kinds {
            let prefix = packs_prefix(kind, &self.writer, self.id);
            listed.extend(repository.list(&prefix)?.into_iter().map(|info| (info.name, info.len)));
        }
        for pack in packs {
            let name = pack.name.blob();
            if listed.get(&name) != Some(&u64::from(pack.len)) {
                return Err(EngineError::PackVanished { name });
            }
        }
        Ok(())
    }

    /// Whether somebody aborted it.
    pub(crate) fn was_aborted(&self, repository: &Repository<'_>) -> Result<bool, EngineError> {
        Ok(matches!(snapshots::read(repository, &self.decision)?, Some(Decision::Abort(_))))
    }

    /// W7: creates the decision, or finds out what took its name.
    pub(crate) fn commit(
        &self,
        repository: &Repository<'_>,
        commit: &Commit,
        entropy: &Entropy,
    ) -> Result<Committed, EngineError> {
        let decision = Decision::Commit(Box::new(commit.clone()));
        let name = self.decision.blob();
        let bytes = decision.seal(repository.keys(), &self.decision, entropy.draw("decision salt", 0));
        match put_twice(repository.store(), &name, &bytes)? {
            Put::Created | Put::Identical => Ok(Committed::Yes),
            Put::Different => match snapshots::read(repository, &self.decision) {
                Ok(Some(Decision::Abort(_))) => Ok(Committed::Aborted),
                Ok(_) | Err(EngineError::Damaged { .. }) => Err(EngineError::Twin { name }),
                Err(error) => Err(error),
            },
        }
    }
}

impl Session {
    /// Decides a session that failed, so that no prune has to wait for it and its packs may be used again. It is an
    /// offer only: the failure that led here may well be the store's, and an undecided session harms nothing. A COMMIT
    /// whose answer was lost stays one.
    pub(crate) fn abort(&self, repository: &Repository<'_>, job: &BackupJob<'_>, entropy: &Entropy) {
        let _undecided = put_abort(repository, &self.decision, job, entropy.draw("abort salt", 0));
    }
}

/// Decides a session of the job's writer as aborted, unless it is decided already: then that is `Different`.
pub(crate) fn put_abort(
    repository: &Repository<'_>,
    decision: &DecisionName,
    job: &BackupJob<'_>,
    salt: [u8; 32],
) -> Result<Put, StoreError> {
    let abort = Decision::Abort(Abort {
        session: decision.session,
        time: job.time,
        program: job.program.chars().take(PROGRAM_CHARS).collect(),
        by: AbortBy::Writer,
    });
    let bytes = abort.seal(repository.keys(), decision, salt);
    put_twice(repository.store(), &decision.blob(), &bytes)
}

/// A program's name is at most 255 bytes long, whatever its characters are.
const PROGRAM_CHARS: usize = 63;

/// The number of a VM's next decision (W-1), by the listing of those that there are.
pub(crate) fn next_seq(decisions: &[BlobInfo]) -> u32 {
    // Only a hint for finding the newest: staying at the end is harmless.
    highest(decisions.iter()).map_or(0, |seq| seq.saturating_add(1))
}

/// As [`next_seq`], at a place. What was made since it was promoted has numbers above all that the VM's decisions had by
/// then, those of a lineage of its own. So it stays newer, whatever is imported later; but for what another promoted
/// place made of the VM, if nothing of that had been copied: those numbers may be the same.
pub(crate) fn next_seq_at(standing: &Standing, decisions: &[BlobInfo]) -> u32 {
    let next = next_seq(decisions);
    let Standing::Promoted(promoted) = standing else { return next };
    let date = promoted.date.unwrap_or(promoted.time);
    let copied = highest(decisions.iter().filter(|info| info.modified <= date)).unwrap_or(0);
    next.max(first_of_lineage(copied).saturating_add(NUMBERS_OF_LINEAGE))
}

/// The highest number of some decisions.
fn highest<'i>(decisions: impl Iterator<Item = &'i BlobInfo>) -> Option<u32> {
    decisions.filter_map(|info| DecisionName::of(&info.name)).map(|name| name.seq).max()
}

/// How many numbers the decisions of a lineage have.
const NUMBERS_OF_LINEAGE: u32 = 1 << 20;

/// The first number of the lineage that a decision's number belongs to.
pub(crate) fn first_of_lineage(seq: u32) -> u32 {
    seq - seq % NUMBERS_OF_LINEAGE
}

/// The highest generation that there is, 0 if none.
pub(crate) fn newest_generation(repository: &Repository<'_>) -> Result<u32, EngineError> {
    let generations = repository.list(PREFIX_GC)?;
    let numbers = generations.iter().filter_map(|info| match info.name.kind() {
        Some(BlobKind::Condemned(n) | BlobKind::GcResult(n) | BlobKind::GenerationSeal(n)) => Some(n),
        _ => None,
    });
    Ok(numbers.max().unwrap_or(0))
}

/// Creates a blob under a name that only this session uses.
pub(crate) fn create(store: &dyn BlobStore, name: &BlobName, bytes: &[u8]) -> Result<(), EngineError> {
    match put_twice(store, name, bytes)? {
        Put::Created | Put::Identical => Ok(()),
        Put::Different => Err(EngineError::Twin { name: name.clone() }),
    }
}

/// A create that failed may have been applied; the second one settles it.
pub(crate) fn put_twice(store: &dyn BlobStore, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
    store.put_new(name, bytes).or_else(|_| store.put_new(name, bytes))
}
