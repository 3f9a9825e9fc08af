//! Restore points of a source that is a replica itself, or was one: not all of them may be whole.

use crate::error::EngineError;
use crate::lineage;
use crate::replica::{Completeness, Doubt, Looking, newest_whole};
use crate::repository::Repository;
use crate::snapshots::{self, Query, Snapshot, Snapshots};
use repo_format::DecisionName;
use std::collections::BTreeMap;

/// Tells which restore points of a source are whole.
pub(super) struct Doubts<'r> {
    source: &'r Repository<'r>,
    doubt: Doubt,
    /// What was found out, if it was asked for.
    found: Option<Completeness<'r, 'r>>,
}

impl<'r> Doubts<'r> {
    pub(super) fn of(source: &'r Repository<'r>) -> Result<Self, EngineError> {
        Ok(Self { source, doubt: lineage::standing(source)?.into(), found: None })
    }

    /// Leaves out those that are not whole.
    pub(super) fn whole_of(&mut self, roots: Vec<Snapshot>) -> Result<Vec<Snapshot>, EngineError> {
        let (doubtful, mut whole): (Vec<Snapshot>, Vec<Snapshot>) =
            roots.into_iter().partition(|root| self.doubt.is_about(root));
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

    /// The newest restore points of one VM, or of each, that are whole, so many of each.
    pub(super) fn newest(&self, vm: Option<&str>, most: usize) -> Result<Newest, EngineError> {
        let (mut names, mut doubtful) = (Vec::new(), BTreeMap::new());
        let query = Query { vm, newest: Some(most), since: None };
        let listed = snapshots::each(self.source, &query, &mut |snapshot| {
            if self.doubt.is_about(&snapshot) {
                doubtful.insert(snapshot.name.vm, snapshot.commit.vm);
            }
            names.push(snapshot.name);
        })?;
        names.retain(|name| !doubtful.contains_key(&name.vm));
        let (mut looking, mut passed_over) = (Looking::new(self.source, &self.doubt), 0);
        for vm in doubtful.values() {
            let newest = newest_whole(&mut looking, (vm, u64::MAX), most)?;
            names.extend(newest.whole.into_iter().map(|snapshot| snapshot.name));
            passed_over += newest.passed_over;
        }
        Ok(Newest { names, passed_over, listed })
    }
}

/// The newest restore points that are whole.
pub(super) struct Newest {
    pub(super) names: Vec<DecisionName>,
    /// How many newer ones are not.
    pub(super) passed_over: u64,
    /// What else was found.
    pub(super) listed: Snapshots,
}
