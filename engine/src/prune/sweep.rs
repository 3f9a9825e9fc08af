//! Deleting: what a published result says, and what nothing reads any more (P8).

use super::roots;
use super::sessions::Sessions;
use super::{Amount, Run};
use crate::error::EngineError;
use crate::observer::{Event, Phase, begin, tell};
use crate::pack_set::PackSet;
use crate::threads;
use repo_format::{BlobKind, BlobName, PREFIX_DATA, PREFIX_MAP, PREFIX_REPACK, PackRef, SessionId};
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
        let undecided: BTreeSet<SessionId> =
            sessions.undecided(self.repository)?.into_iter().map(|open| open.session).collect();
        let roots = roots::each(self.repository, roster, &mut |_| Ok(()))?;
        let mut names: Vec<BlobName> = roots.forgotten.iter().map(repo_format::DecisionName::blob).collect();
        names.extend(sessions.spent_intents(&roots.valid, &undecided));
        names.extend(self.void_records(&sessions, &roots.aborted)?);
        let refused = self.delete(&names)?;
        self.report.objects_removed += (names.len() - refused.len()) as u64;
        let is_known = |session: &SessionId| sessions.has_begun(*session) && !undecided.contains(session);
        Ok(roots.valid.into_iter().filter(is_known).collect())
    }

    /// The records of repack sessions that were aborted: they never count.
    fn void_records(
        &self,
        sessions: &Sessions,
        aborted: &BTreeSet<SessionId>,
    ) -> Result<Vec<BlobName>, EngineError> {
        let unnamed = self.repository.keys().vm_tag("");
        let is_void = |name: &BlobName| match name.kind() {
            Some(BlobKind::Repack(session)) => {
                aborted.contains(&session)
                    && sessions.decisions_of(session).iter().any(|decision| decision.vm == unnamed)
            }
            _ => false,
        };
        let listed = self.repository.list(PREFIX_REPACK)?;
        Ok(listed.into_iter().map(|info| info.name).filter(is_void).collect())
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
