//! Restore points of a source that is a replica itself, or was one: not all of them may be whole.

use crate::error::EngineError;
use crate::lineage::{self, Standing};
use crate::replica::Completeness;
use crate::repository::Repository;
use crate::snapshots::Snapshot;

/// Tells which restore points of a source are whole.
pub(super) struct Doubts<'r> {
    source: &'r Repository<'r>,
    standing: Standing,
    /// What was found out, if it was asked for.
    found: Option<Completeness<'r, 'r>>,
}

impl<'r> Doubts<'r> {
    pub(super) fn of(source: &'r Repository<'r>) -> Result<Self, EngineError> {
        Ok(Self { source, standing: lineage::standing(source)?, found: None })
    }

    /// Leaves out those that are not whole.
    pub(super) fn whole_of(&mut self, roots: Vec<Snapshot>) -> Result<Vec<Snapshot>, EngineError> {
        let is_doubtful = |root: &Snapshot| match &self.standing {
            Standing::Written => false,
            Standing::Replica => true,
            Standing::Promoted(promoted) => promoted.set_aside.contains(&root.name),
        };
        let (doubtful, mut whole): (Vec<Snapshot>, Vec<Snapshot>) = roots.into_iter().partition(is_doubtful);
        if doubtful.is_empty() {
            return Ok(whole);
        }
        if self.found.is_none() {
            self.found = Some(Completeness::by_session(self.source)?);
        }
        if let Some(completeness) = &mut self.found {
            let found = completeness.of(&doubtful)?;
            let of_whole = doubtful.into_iter().zip(found).filter(|(_, found)| found.is_whole());
            whole.extend(of_whole.map(|(root, _)| root));
        }
        Ok(whole)
    }
}
