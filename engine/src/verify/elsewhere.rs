//! Which sessions came from another place, so that not all of them need have come (SPEC 10.8).
//!
//! Of a snapshot its lineage tells. A session that is not decided here is of another place if something of it is older than
//! the promotion, or if something that came from there tells of it: it was decided there.

use super::left_out::Named;
use super::sessions::Sessions;
use super::traces::Traces;
use crate::error::EngineError;
use crate::lineage::Standing;
use crate::snapshots::Snapshot;
use repo_format::SessionId;
use std::collections::{BTreeMap, HashMap, HashSet};

impl Sessions<'_, '_, '_> {
    pub(super) fn was_copied(&self, sessions: &BTreeMap<SessionId, Traces>, session: SessionId) -> bool {
        sessions.get(&session).is_some_and(|traces| traces.was_copied(self.published.standing.copied_until()))
    }

    /// Whether a snapshot came from another place, from which what it was built on need not have come.
    pub(super) fn is_from_elsewhere(&self, snapshot: &Snapshot) -> bool {
        match &self.published.standing {
            Standing::Written => false,
            Standing::Replica => true,
            Standing::Promoted(promoted) => !promoted.made(snapshot),
        }
    }

    /// Whether a session that is not decided here is one of another place, of which only a part was copied: what there is of
    /// it is older than the promotion, or is of use to what came from there.
    pub(super) fn is_decided_elsewhere(
        &self,
        session: SessionId,
        traces: &Traces,
        referrers: &HashMap<SessionId, String>,
    ) -> Result<bool, EngineError> {
        if self.published.standing == Standing::Written {
            return Ok(false);
        }
        if traces.was_copied_in_part(self.published.standing.copied_until())
            || self.left_out.tell_of(session)
            || self.told.for_left_out.contains(&session)
        {
            return Ok(true);
        }
        Ok(referrers.contains_key(&session) && self.named_from_elsewhere()?.contains(&session))
    }

    fn named_from_elsewhere(&self) -> Result<&HashSet<SessionId>, EngineError> {
        if let Some(sessions) = self.elsewhere.get() {
            return Ok(sessions);
        }
        let from = self.snapshots.snapshots.iter().filter(|snapshot| self.is_from_elsewhere(snapshot));
        let from: Vec<Snapshot> = from.cloned().collect();
        let named = Named::by(self.repository, &self.published.records, &from)?;
        Ok(self.elsewhere.get_or_init(|| named.packs.sessions().collect()))
    }
}
