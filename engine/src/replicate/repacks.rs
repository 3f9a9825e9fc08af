//! Repack sessions: what they packed again, and the records that lead to it.
//!
//! A record comes to the destination only when whatever it leads to from a pack that is there is there as well. A restore
//! point that is there names the old pack, and is whole by it; but whoever prunes the copy after it was promoted goes by
//! the record and finds the old pack needless. So records come in the order from the newest to the oldest, since the
//! newer ones lead on from where the older ones lead.

use super::{NotCopied, Run};
use crate::error::EngineError;
use crate::records::Record;
use crate::replica::Presence;
use repo_format::{BlobName, PackName, PackRef, SessionId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Repack sessions that could not be copied, and why.
type Failed = BTreeMap<SessionId, String>;

impl Run<'_> {
    /// Copies whole repack sessions, whether or not a restore point passes through them now: the source deletes what they
    /// moved when they are at all its replicas.
    pub(super) fn copy_repacks(&mut self) -> Result<(), EngineError> {
        let mut packs: BTreeMap<SessionId, BTreeSet<PackRef>> = BTreeMap::new();
        for (session, _, new) in self.needs.records().leads() {
            packs.entry(session).or_default().insert(new.clone());
        }
        for session in self.newest_first(packs.keys().copied()) {
            let packs = packs.remove(&session).unwrap_or_default();
            let failed = match self.copy_those_at_source(packs)? {
                Some(reason) => Failed::from([(session, reason)]),
                None => self.copy_records(&BTreeSet::from([session]))?,
            };
            let failed = failed.into_iter();
            let told = failed.map(|(session, reason)| NotCopied { snapshot: session.to_string(), reason });
            self.report.failed.extend(told);
        }
        Ok(())
    }

    /// Copies the records of repack sessions, each before its decision. Returns those that cannot be, and why.
    pub(super) fn copy_records(&mut self, sessions: &BTreeSet<SessionId>) -> Result<Failed, EngineError> {
        let mut failed = Failed::new();
        for session in self.newest_first(sessions.iter().copied()) {
            let Some(decision) = self.needs.records().decision(session).cloned() else { continue };
            let names = [BlobName::repack(session), decision.blob()];
            if names.iter().all(|name| self.objects.has(name)) {
                continue;
            }
            let led_to = self.led_to_from_there(session)?;
            if let Some(reason) = self.copy_those_at_source(led_to)? {
                failed.insert(session, reason);
                continue;
            }
            // One after the other: a record without its decision does not count, and a decision must have its record.
            let mut is_copied = true;
            for name in &names {
                is_copied = is_copied && self.copy_objects(std::slice::from_ref(name))? > 0;
                if !is_copied {
                    failed.entry(session).or_insert_with(|| format!("{name} cannot be copied"));
                }
            }
            self.report.repacks += u64::from(is_copied);
        }
        Ok(failed)
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
    /// not at the source is needed by nothing any more, or was moved on.
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
