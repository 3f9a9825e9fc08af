//! Deleting: what a published result says, and what nothing reads any more (P8).

use super::roots;
use super::sessions::{Owner, Sessions, Undecided};
use super::{Amount, Run};
use crate::error::EngineError;
use crate::observer::{Event, Phase, begin, tell};
use crate::pack_set::PackSet;
use crate::repository::get_sealed;
use crate::snapshots;
use crate::threads;
use repo_format::{
    BlobKind, BlobName, Decision, PREFIX_DATA, PREFIX_MAP, PREFIX_REPACK, PackRef, RepackRecord, SessionId,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// Deletes that are on their way at the same time: each is a round trip.
const DELETE_THREADS: usize = 16;
/// Deletes between two looks at the observer.
const DELETES_AT_ONCE: usize = 1024;

impl Run<'_, '_, '_> {
    /// Deletes packs of a published result, as far as they are there and retention lets it.
    pub(super) fn delete_packs(&mut self, packs: &PackSet) -> Result<(), EngineError> {
        begin(self.observer, Phase::Delete, packs.len() as u64)?;
        let packs: Vec<PackRef> = packs.iter().collect();
        for packs in packs.chunks(DELETES_AT_ONCE) {
            let names: Vec<BlobName> = packs.iter().map(|pack| pack.name.blob()).collect();
            let refused = self.delete(&names)?;
            for (number, pack) in packs.iter().enumerate() {
                let amount: &mut Amount = if refused.contains(&number) {
                    &mut self.report.deferred
                } else {
                    &mut self.report.deleted
                };
                amount.add(pack.len);
            }
            tell(self.observer, Event::Progress(packs.len() as u64))?;
        }
        Ok(())
    }

    /// Deletes blobs, several at a time; returns which of them retention kept.
    pub(super) fn delete(&self, names: &[BlobName]) -> Result<BTreeSet<usize>, EngineError> {
        // After a failure the rest is left for the next run.
        let has_failed = AtomicBool::new(false);
        let deleted = threads::each(names, DELETE_THREADS, |name| {
            if has_failed.load(Ordering::Relaxed) {
                return Ok(true);
            }
            match self.repository.store().delete(name) {
                Ok(()) => Ok(true),
                Err(error) if error.is_refused_by_retention() => Ok(false),
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    Err(EngineError::from(error))
                }
            }
        });
        let mut refused = BTreeSet::new();
        for (number, deleted) in deleted.into_iter().enumerate() {
            if !deleted? {
                refused.insert(number);
            }
        }
        Ok(refused)
    }

    /// Removes what only says how sessions ended that made no snapshot, or one that is forgotten: their intents, the
    /// decisions of forgotten snapshots (tombstones stay, and so do ABORTs), records of aborted repacks. Returns the valid
    /// roots whose sessions are known to have ended as they say: the roster.
    pub(super) fn tidy(&mut self, roster: &BTreeSet<SessionId>) -> Result<Vec<SessionId>, EngineError> {
        // In this order: what is decided in this listing is among the roots, or is no snapshot.
        let sessions = Sessions::list(self.repository, roster.iter().copied())?;
        let undecided: BTreeSet<Owner> =
            sessions.undecided(self.repository)?.iter().map(Undecided::owner).collect();
        let roots = roots::each(self.repository, roster, &mut |_| Ok(()))?;
        let mut names: Vec<BlobName> = roots.forgotten.iter().map(repo_format::DecisionName::blob).collect();
        names.extend(sessions.spent_intents(&roots.valid, &undecided));
        names.extend(self.void_records(&roots.aborted)?);
        let refused = self.delete(&names)?;
        self.report.objects_removed += (names.len() - refused.len()) as u64;
        let is_known = |session: &SessionId| sessions.is_decided_by_all(*session, &undecided);
        Ok(roots.valid.into_iter().filter(is_known).collect())
    }

    /// The records of repack sessions that were aborted: they never count. What decides is the decision that the signed
    /// record names, and no other with its session's id.
    fn void_records(&self, aborted: &BTreeSet<SessionId>) -> Result<Vec<BlobName>, EngineError> {
        let mut void = Vec::new();
        for info in self.repository.list(PREFIX_REPACK)? {
            let Some(BlobKind::Repack(session)) = info.name.kind() else { continue };
            if !aborted.contains(&session) {
                continue;
            }
            let bytes = match get_sealed(self.repository.store(), &info.name) {
                Err(error) if error.is_damage() => continue,
                other => other?,
            };
            let Ok(record) = RepackRecord::open(self.repository.keys(), &info.name, &bytes) else { continue };
            if let Ok(Some(Decision::Abort(_))) = snapshots::read(self.repository, &record.decision) {
                void.push(info.name);
            }
        }
        Ok(void)
    }

    /// All packs that are there.
    pub(super) fn stored(&self) -> Result<PackSet, EngineError> {
        let mut stored = PackSet::default();
        for prefix in [PREFIX_MAP, PREFIX_DATA] {
            for info in self.repository.list(prefix)? {
                if let Some(BlobKind::Pack(name)) = info.name.kind() {
                    stored.insert_name(&name, u32::try_from(info.len).unwrap_or(u32::MAX));
                }
            }
        }
        Ok(stored)
    }
}
