//! Repack sessions: what they packed again, and the records that lead to it.
//!
//! A record comes to the destination only when whatever it leads to from a pack that is there is there as well. A restore
//! point that is there names the old pack, and is whole by it; but whoever prunes the copy after it was promoted goes by
//! the record and finds the old pack needless. So records come in the order from the newest to the oldest, since the
//! newer ones lead on from where the older ones lead.

use super::{NotCopied, Run, There};
use crate::error::EngineError;
use crate::records::Record;
use crate::replica::Presence;
use repo_format::{BlobName, PackName, PackRef, SessionId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Repack sessions that could not be copied, and why.
type Failed = BTreeMap<SessionId, String>;

/// How often it is tried while the source moves: what vanishes while it is copied was listed before, and what was gone
/// before the records were loaded is told by the next ones.
pub(super) const ATTEMPTS: usize = 3;

impl Run<'_> {
    /// Copies whole repack sessions, whether or not a restore point passes through them now: the source deletes what they
    /// moved when they are at all its replicas.
    pub(super) fn copy_repacks(&mut self) -> Result<(), EngineError> {
        let mut failed = Failed::new();
        for _ in 0..ATTEMPTS {
            // The source may have moved on meanwhile what those lead to that were loaded before.
            self.needs.reload()?;
            let before = std::mem::replace(&mut failed, self.copy_all_repacks()?);
            if failed.is_empty() || failed == before {
                break;
            }
        }
        let failed = failed.into_iter();
        let told = failed.map(|(session, reason)| NotCopied { snapshot: session.to_string(), reason });
        self.report.failed.extend(told);
        Ok(())
    }

    fn copy_all_repacks(&mut self) -> Result<Failed, EngineError> {
        let mut packs: BTreeMap<SessionId, BTreeSet<PackRef>> = BTreeMap::new();
        for (session, _, new) in self.needs.records().leads() {
            packs.entry(session).or_default().insert(new.clone());
        }
        let mut failed = Failed::new();
        for session in self.newest_first(packs.keys().copied()) {
            let packs = packs.remove(&session).unwrap_or_default();
            match self.copy_those_at_source(packs)? {
                Some(reason) => drop(failed.insert(session, reason)),
                None => failed.extend(self.copy_records(&BTreeSet::from([session]))?),
            }
            if self.job.there == There::Checked {
                failed.extend(self.prove_records(&BTreeSet::from([session]))?);
            }
        }
        Ok(failed)
    }

    /// Copies the records of repack sessions, each before its decision, and those that lead on from there. Returns those
    /// that cannot be, and why.
    pub(super) fn copy_records(&mut self, sessions: &BTreeSet<SessionId>) -> Result<Failed, EngineError> {
        let mut failed = Failed::new();
        let sessions = self.with_those_that_lead_on(sessions)?;
        for session in self.newest_first(sessions.into_iter()) {
            if let Some(reason) = self.copy_record(session)? {
                failed.insert(session, reason);
            }
        }
        Ok(failed)
    }

    /// Looks whether records that were at the destination before are what they are at the source, once in a run: what is
    /// copied now is found through them. Returns those that are not, and why.
    pub(super) fn prove_records(&mut self, sessions: &BTreeSet<SessionId>) -> Result<Failed, EngineError> {
        let mut failed = Failed::new();
        for session in sessions {
            if self.copier.is_pretending() || !self.has_record(*session) || self.proven.contains(session) {
                continue;
            }
            match self.create_record(*session)? {
                Some(reason) => drop(failed.insert(*session, reason)),
                None => drop(self.proven.insert(*session)),
            }
        }
        Ok(failed)
    }

    /// Creates the record of a session and then its decision, or finds just these there; returns why not. A record without
    /// its decision does not count, and a decision must have its record.
    fn create_record(&mut self, session: SessionId) -> Result<Option<String>, EngineError> {
        let Some(decision) = self.needs.records().decision(session).cloned() else { return Ok(None) };
        for name in [BlobName::repack(session), decision.blob()] {
            if self.copy_objects(std::slice::from_ref(&name))? == 0 {
                return Ok(Some(format!("{name} cannot be copied")));
            }
        }
        Ok(None)
    }

    /// Sessions with all those that moved on what packs of the destination lead to by them.
    fn with_those_that_lead_on(
        &mut self,
        sessions: &BTreeSet<SessionId>,
    ) -> Result<BTreeSet<SessionId>, EngineError> {
        let mut all = sessions.clone();
        let mut queue: Vec<SessionId> = sessions.iter().copied().collect();
        while let Some(session) = queue.pop() {
            if self.has_record(session) {
                continue;
            }
            for new in self.led_to_from_there(session)? {
                let moving = self.needs.records().moving(&new.name).map(|record| record.session);
                queue.extend(moving.filter(|session| all.insert(*session)));
            }
        }
        Ok(all)
    }

    /// Copies the record of a session and then its decision, unless they are there; returns why they cannot be.
    fn copy_record(&mut self, session: SessionId) -> Result<Option<String>, EngineError> {
        if self.needs.records().decision(session).is_none() || self.has_record(session) {
            return Ok(None);
        }
        let led_to = self.led_to_from_there(session)?;
        if let Some(reason) = self.copy_those_at_source(led_to.clone())? {
            return Ok(Some(reason));
        }
        if let Some(reason) = self.leads_nowhere(led_to)? {
            return Ok(Some(reason));
        }
        let reason = self.create_record(session)?;
        if reason.is_none() {
            self.proven.insert(session);
            self.report.repacks += 1;
        }
        Ok(reason)
    }

    /// Whether the record of a session is at the destination, and its decision.
    fn has_record(&self, session: SessionId) -> bool {
        self.needs.records().decision(session).is_some_and(|decision| {
            self.objects.has(&decision.blob()) && self.objects.has(&BlobName::repack(session))
        })
    }

    /// Tells of a pack that is neither at the source nor at the destination, and was not moved on by records that are at
    /// the destination: so nothing may lead to it there yet.
    ///
    /// If no record of the source leads on from it that was loaded after it was seen to be gone, nothing at the source
    /// needs it any more, and what led to it stays at the destination.
    fn leads_nowhere(&mut self, led_to: BTreeSet<PackRef>) -> Result<Option<String>, EngineError> {
        let mut reason = None;
        for pack in self.needs.missing(led_to.into_iter().collect())? {
            let records = self.needs.records();
            let is_settled = if records.is_repacked(&pack.name) {
                records.moving(&pack.name).all(|record| self.has_record(record.session))
            } else {
                self.needs.was_gone(&pack.name)
            };
            if !is_settled {
                let name = pack.name.blob();
                reason = Some(format!("{name} was moved on or deleted at the source while this run copied"));
                self.needs.note_gone(pack.name);
            }
        }
        Ok(reason)
    }

    /// All packs that packs of the destination lead to, if the record of a session is there.
    fn led_to_from_there(&mut self, session: SessionId) -> Result<BTreeSet<PackRef>, EngineError> {
        let moved: Vec<PackName> =
            self.needs.records().of(session).flat_map(Record::moved).cloned().collect();
        let mut names = self.needs.there(moved)?;
        let mut led_to = BTreeSet::new();
        while let Some(name) = names.pop() {
            let records = self.needs.records();
            for new in records.moving(&name).flat_map(|record| record.leads_from(&name)) {
                if led_to.insert(new.clone()) {
                    names.push(new.name.clone());
                }
            }
        }
        Ok(led_to)
    }

    /// Copies those of some packs that are at the source and not at the destination; returns why one could not be. What is
    /// not at the source is needed by nothing any more, or was moved on: [`Run::leads_nowhere`] tells which.
    fn copy_those_at_source(&mut self, packs: BTreeSet<PackRef>) -> Result<Option<String>, EngineError> {
        let mut missing = self.needs.missing(packs.into_iter().collect())?;
        if !missing.is_empty() {
            let mut presence = Presence::as_asked();
            presence.look_for(self.source, missing.iter())?;
            missing.retain(|pack| presence.has(pack));
        }
        let makers = missing.iter().map(|pack| pack.name.session).collect();
        Ok(self.copy_packs(&missing, &makers)?.into_values().next())
    }

    fn newest_first(&self, sessions: impl Iterator<Item = SessionId>) -> Vec<SessionId> {
        let mut sessions: Vec<SessionId> = sessions.collect();
        let records = self.needs.records();
        sessions.sort_by_key(|session| Reverse((records.decision(*session).map(|name| name.seq), *session)));
        sessions
    }
}
