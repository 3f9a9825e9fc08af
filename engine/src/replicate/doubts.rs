//! Restore points of a source that is a replica itself, or was one: not all of them may be whole.

use crate::error::EngineError;
use crate::lineage;
use crate::replica::{Completeness, Doubt, Doubted, newest_whole};
use crate::repository::Repository;
use crate::snapshots::{self, Query, Snapshot, Snapshots};
use repo_format::DecisionName;

/// Tells which restore points of a source are whole.
pub(super) struct Doubts<'r> {
    source: &'r Repository<'r>,
    doubted: Doubted,
    /// What was found out, if it was asked for.
    found: Option<Completeness<'r, 'r>>,
}

impl<'r> Doubts<'r> {
    pub(super) fn of(source: &'r Repository<'r>) -> Result<Self, EngineError> {
        let doubt = Doubt::from(lineage::standing(source)?);
        Ok(Self { source, doubted: doubt.among(source, None)?, found: None })
    }

    /// Leaves out those that are not whole.
    pub(super) fn whole_of(&mut self, roots: Vec<Snapshot>) -> Result<Vec<Snapshot>, EngineError> {
        let (doubtful, mut whole): (Vec<Snapshot>, Vec<Snapshot>) =
            roots.into_iter().partition(|root| self.doubted.has(root));
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

    /// The newest restore points of one VM, or of each, that are whole, so many of each; and what else was found.
    pub(super) fn newest(
        &self,
        vm: Option<&str>,
        most: usize,
    ) -> Result<(Vec<DecisionName>, Snapshots), EngineError> {
        let mut found = Vec::new();
        let query = Query { vm, newest: Some(most), since: None };
        let listed = snapshots::each(self.source, &query, &mut |snapshot| found.push(snapshot))?;
        if !found.iter().any(|snapshot| self.doubted.has(snapshot)) {
            return Ok((found.into_iter().map(|snapshot| snapshot.name).collect(), listed));
        }
        let mut vms: Vec<String> = found.into_iter().map(|snapshot| snapshot.commit.vm).collect();
        vms.sort_unstable();
        vms.dedup();
        let mut names = Vec::new();
        for vm in &vms {
            let newest = newest_whole(self.source, &self.doubted, (vm, u64::MAX), most)?;
            names.extend(newest.whole.into_iter().map(|snapshot| snapshot.name));
        }
        Ok((names, listed))
    }
}
