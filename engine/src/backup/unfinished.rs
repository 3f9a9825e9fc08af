//! Sessions of the same writer and VM that began and never ended: the next backup ends them (PROTOCOL section 3,
//! Resume; SPEC W-9).
//!
//! Once they are aborted, what they had stored may be used again (W5), as far as their index checkpoints list it.

use super::BackupJob;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::lineage::Standing;
use crate::observer::{Notice, Observer, notify};
use crate::repository::{Repository, get_sealed};
use crate::session;
use crate::store::{BlobInfo, Put, StoreError};
use repo_format::{
    BlobKind, BlobName, DecisionName, Intent, PREFIX_DECISIONS, PREFIX_INTENTS, PREFIX_TOMBSTONES, PackKind,
    SessionId, decisions_prefix, indexes_prefix, intents_prefix, packs_prefix, tombstones_prefix,
};
use std::collections::BTreeSet;

/// A session that stored something so many milliseconds ago may still be running: a pack of 256 MiB over a line of
/// 2.5 Mbit/s takes as long.
const QUIET_MILLIS: u64 = 15 * 60 * 1000;
/// Intents that are read to learn their VM, rather than to list the decisions of all VMs.
const INTENTS_READ: usize = 16;

/// What is known about sessions of the writer that began and did not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished<'a> {
    /// Nothing: one that stored something lately may be running, and then the backup is refused.
    MayRun {
        /// But for these, of which the caller knows that they have ended.
        ended: &'a [SessionId],
    },
    /// They have all ended, the caller says. If one has not, it will find itself aborted.
    Ended,
}

/// Aborts the unfinished sessions that the job's writer began for the job's VM, and returns the number of the VM's next
/// decision (W-1).
pub(super) fn abort_unfinished(
    repository: &Repository<'_>,
    (job, standing): (&BackupJob<'_>, &Standing),
    entropy: &Entropy,
    observer: &dyn Observer,
) -> Result<u32, EngineError> {
    // In this order: a session that ends meanwhile is seen to have ended.
    let begun = repository.list(&intents_prefix(job.writer))?;
    let decisions = repository.list(&decisions_prefix(repository.keys().vm_tag(job.vm)))?;
    let mut seq = session::next_seq_at(standing, &decisions);
    for (number, (intent, begun)) in (0..).zip(unfinished(repository, job, begun, &decisions)?) {
        let stored = stored_by(repository, &intent, begun)?;
        let known = match job.unfinished {
            Unfinished::Ended => true,
            Unfinished::MayRun { ended } => ended.contains(&intent.session),
        };
        let quiet_millis = job.time.saturating_sub(stored.newest);
        if !known && quiet_millis < QUIET_MILLIS {
            return Err(EngineError::MayBeRunning {
                session: intent.session,
                vm: job.vm.to_owned(),
                quiet_millis,
            });
        }
        let salt = entropy.draw("salt of the abort of an unfinished session", number);
        if session::put_abort(repository, &intent.decision, job, salt)? == Put::Different {
            // It was decided since the decisions were listed.
            continue;
        }
        seq = seq.max(intent.decision.seq.saturating_add(1));
        let (packs, bytes) = (stored.packs, stored.bytes);
        notify(observer, Notice::UnfinishedAborted { session: intent.session.to_string(), packs, bytes })?;
    }
    Ok(seq)
}

/// Of the intents of the job's writer those for its VM that have no decision and no tombstone, with their dates. One that
/// cannot be read has no VM that is known; a verification names it.
///
/// Where there are many, what was begun before the newest decision of this writer and VM is left out: the session of that
/// decision ended it (W-9). Then those of other VMs since then are left; and only if they are many too, all decisions
/// are listed.
fn unfinished(
    repository: &Repository<'_>,
    job: &BackupJob<'_>,
    mut begun: Vec<BlobInfo>,
    decisions: &[BlobInfo],
) -> Result<Vec<(Intent, u64)>, EngineError> {
    let vm = repository.keys().vm_tag(job.vm);
    let (mut decided, mut newest) = (BTreeSet::new(), 0);
    for info in decisions {
        let Some(name) = DecisionName::of(&info.name) else { continue };
        decided.insert(name.session);
        if name.writer == *job.writer {
            newest = newest.max(info.modified);
        }
    }
    let is_open = |info: &BlobInfo, decided: &BTreeSet<SessionId>| match info.name.kind() {
        Some(BlobKind::Intent { session, .. }) => !decided.contains(&session),
        _ => false,
    };
    begun.retain(|info| is_open(info, &decided));
    if begun.len() > INTENTS_READ {
        begun.retain(|info| info.modified >= newest);
    }
    if begun.is_empty() {
        return Ok(Vec::new());
    }
    let prefixes = if begun.len() > INTENTS_READ {
        vec![PREFIX_DECISIONS.to_owned(), PREFIX_TOMBSTONES.to_owned()]
    } else {
        vec![tombstones_prefix(vm)]
    };
    for prefix in prefixes {
        decided.extend(repository.list(&prefix)?.iter().filter_map(|info| decided_by(&info.name)));
    }
    let mut unfinished = Vec::new();
    for info in begun.iter().filter(|info| is_open(info, &decided)) {
        let Some(bytes) = intent(repository, &info.name)? else { continue };
        match Intent::open(repository.keys(), &info.name, &bytes) {
            Ok(intent) if intent.decision.vm == vm => unfinished.push((intent, info.modified)),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(unfinished)
}

/// A session that another writer began for the job's VM with a number of `seq` or more, and that has not ended: it runs or
/// was killed. One that cannot be read may be of this VM.
pub(super) fn begun_by_others(
    repository: &Repository<'_>,
    job: &BackupJob<'_>,
    seq: u32,
) -> Result<Option<SessionId>, EngineError> {
    let vm = repository.keys().vm_tag(job.vm);
    // In this order: a session that ends meanwhile is seen to have ended.
    let begun = repository.list(PREFIX_INTENTS)?;
    let mut decided = BTreeSet::new();
    for prefix in [PREFIX_DECISIONS, PREFIX_TOMBSTONES] {
        decided.extend(repository.list(prefix)?.iter().filter_map(|info| decided_by(&info.name)));
    }
    for info in &begun {
        let Some(BlobKind::Intent { writer, session }) = info.name.kind() else { continue };
        if writer == *job.writer || decided.contains(&session) {
            continue;
        }
        let Some(bytes) = intent(repository, &info.name)? else { continue };
        match Intent::open(repository.keys(), &info.name, &bytes) {
            Ok(intent) if intent.decision.vm != vm || intent.decision.seq < seq => {}
            Ok(_) | Err(_) => return Ok(Some(session)),
        }
    }
    Ok(None)
}

/// The bytes of an intent, unless a prune has removed it since it was listed: then its session has ended.
fn intent(repository: &Repository<'_>, name: &BlobName) -> Result<Option<Vec<u8>>, EngineError> {
    match get_sealed(repository.store(), name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(EngineError::Store(StoreError::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The session that a decision or a tombstone ends, by its name alone: that is enough to leave a session in peace.
fn decided_by(name: &BlobName) -> Option<SessionId> {
    match name.kind() {
        Some(BlobKind::Decision(name)) => Some(name.session),
        Some(BlobKind::Tombstone { session, .. }) => Some(session),
        _ => None,
    }
}

/// What a session has put into the store.
struct StoredBy {
    packs: u64,
    bytes: u64,
    /// The date of its newest blob.
    newest: u64,
}

/// What a session has put into the store whose intent has the date `begun`.
fn stored_by(repository: &Repository<'_>, intent: &Intent, begun: u64) -> Result<StoredBy, EngineError> {
    let (writer, session) = (&intent.decision.writer, intent.session);
    let mut packs = repository.list(&packs_prefix(PackKind::Data, writer, session))?;
    packs.extend(repository.list(&packs_prefix(PackKind::Map, writer, session))?);
    let indexes = repository.list(&indexes_prefix(writer, session))?;
    let dates = packs.iter().chain(&indexes).map(|info| info.modified);
    Ok(StoredBy {
        packs: packs.len() as u64,
        bytes: packs.iter().map(|info| info.len).sum(),
        newest: dates.fold(begun, u64::max),
    })
}
