//! Whole repack sessions, whether or not a restore point passes through them now: the source deletes what they moved when
//! they are at all its replicas.

use super::Run;
use crate::error::EngineError;
use crate::replica::Presence;
use repo_format::{PackRef, SessionId};
use std::collections::{BTreeMap, BTreeSet};

impl Run<'_> {
    /// Copies the packs of all repack sessions that are at the source, and their records.
    pub(super) fn copy_repacks(&mut self) -> Result<(), EngineError> {
        let mut packs: BTreeMap<SessionId, BTreeSet<PackRef>> = BTreeMap::new();
        for (session, _, new) in self.needs.records().leads() {
            packs.entry(session).or_default().insert(new.clone());
        }
        for (session, packs) in packs {
            let mut missing = self.needs.missing(packs.into_iter().collect())?;
            if !missing.is_empty() {
                // What is not at the source is needed by nothing any more, or is lost.
                let mut presence = Presence::as_asked();
                presence.look_for(self.source, missing.iter())?;
                missing.retain(|pack| presence.has(pack));
            }
            let lost = self.copy_packs(&missing, &BTreeSet::from([session]))?;
            if let Some(reason) = lost.into_values().next() {
                let snapshot = session.to_string();
                self.report.failed.push(super::NotCopied { snapshot, reason });
                continue;
            }
            let failed = self.copy_records(&BTreeSet::from([session]))?;
            for (session, reason) in failed {
                let snapshot = session.to_string();
                self.report.failed.push(super::NotCopied { snapshot, reason });
            }
        }
        Ok(())
    }
}
