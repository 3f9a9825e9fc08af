//! What tells of the sessions that made packs and indexes: their intents, and that they were aborted.

use super::Run;
use super::sound::read_object;
use crate::error::EngineError;
use crate::snapshots;
use crate::store::StoreError;
use repo_format::{BlobName, Decision, Intent, SessionId, WriterId};
use std::collections::BTreeSet;

/// The sessions whose intents were copied in this run.
pub(super) type Sessions = BTreeSet<(WriterId, SessionId)>;

impl Run<'_> {
    /// Copies the intents of sessions of which something else is copied, and their ABORTs. So whoever promotes the copy
    /// knows whose it is. A session of `committed` was not aborted.
    pub(super) fn copy_sessions(
        &mut self,
        owners: Sessions,
        committed: &BTreeSet<SessionId>,
    ) -> Result<(), EngineError> {
        let new: Sessions = owners.into_iter().filter(|owner| !self.sessions.contains(owner)).collect();
        let intents: Vec<BlobName> =
            new.iter().map(|(writer, session)| BlobName::intent(writer, *session)).collect();
        self.copy_objects(&intents)?;
        let undecided: Vec<&(WriterId, SessionId)> =
            new.iter().filter(|(_, session)| !committed.contains(session)).collect();
        let (source, objects) = (self.source, &self.objects);
        let aborted = self.copier.each(&undecided, |(writer, session)| {
            let name = BlobName::intent(writer, *session);
            let open = |bytes: &[u8]| Intent::open(source.keys(), &name, bytes);
            let decision = match read_object(source.store(), &name, open) {
                Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(None),
                other => other?.1.decision,
            };
            let is_new = !objects.has(&decision.blob());
            let is_aborted =
                is_new && matches!(snapshots::read(source, &decision)?, Some(Decision::Abort(_)));
            Ok(is_aborted.then(|| decision.blob()))
        })?;
        // One that cannot be read is told by a verification, and keeps no pack from being used.
        let aborted: Vec<BlobName> = aborted.into_iter().filter_map(|name| name.ok().flatten()).collect();
        self.copy_objects(&aborted)?;
        self.sessions.extend(new);
        Ok(())
    }
}
