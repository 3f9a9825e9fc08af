//! What replicas hold up: packs from which something was packed again that is not confirmed at each of them (P8).
//!
//! A replica that lacks the record, or the packs that it leads to, reads the old pack where it has it. Its copy of that
//! goes when somebody lets a deletion here go there, too. So the old pack stays until the way on is there.

use super::listing::list_twice;
use super::roots;
use super::{Run, Waiting, WaitingFor};
use crate::barrier::{self, RegisteredReplica};
use crate::error::EngineError;
use crate::pack_set::PackSet;
use crate::records::{Record, Records};
use crate::repository::Repository;
use repo_format::{BlobName, PREFIX_BARRIER, PackName, PackRef};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What of some packs replicas hold up.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) packs: PackSet,
    /// Each repack that is not confirmed at a replica, once for each.
    pub(super) waiting: Vec<Waiting>,
    /// Facts that count for nothing, or for a replica of which nothing is known.
    pub(super) ignored: Vec<BlobName>,
}

impl Held {
    /// Finds those of some packs that replicas hold up. A pack that nothing leads from is held up by none.
    ///
    /// # Errors
    /// [`EngineError::ListingLies`]; a record that cannot be read; a failing store.
    pub(super) fn find(
        repository: &Repository<'_>,
        packs: impl Iterator<Item = PackRef>,
    ) -> Result<Self, EngineError> {
        let replicas = barrier::read(repository, list_twice(repository, PREFIX_BARRIER)?)?;
        let ignored = [replicas.ignored, replicas.damaged].concat();
        let mut held = Self { ignored, ..Self::default() };
        if replicas.registered.is_empty() {
            return Ok(held);
        }
        let records = roots::records(repository)?;
        let missing = Missing::of(&records, &replicas.registered);
        let mut waits = BTreeSet::new();
        for pack in packs {
            let found = missing.behind(&pack.name);
            if !found.is_empty() {
                held.packs.insert(&pack);
                waits.extend(found);
            }
        }
        for (record, replica) in waits {
            held.waiting.push(waiting(repository, &records.all()[record], &replicas.registered[replica])?);
        }
        Ok(held)
    }
}

/// Which records are not confirmed where.
struct Missing<'r> {
    records: &'r Records,
    /// For each pack that something was moved from, the records that lead from it, by their places in `records`.
    from: BTreeMap<&'r PackName, Vec<usize>>,
    /// For each record, the replicas at which it is not confirmed.
    unconfirmed: Vec<Vec<usize>>,
}

impl<'r> Missing<'r> {
    fn of(records: &'r Records, replicas: &[RegisteredReplica]) -> Self {
        let mut from: BTreeMap<&PackName, Vec<usize>> = BTreeMap::new();
        for (number, record) in records.all().iter().enumerate() {
            for pack in record.moved() {
                from.entry(pack).or_default().push(number);
            }
        }
        let lacks = |record: &Record| {
            let (replicas, owner) = (replicas.iter().enumerate(), record.owner());
            replicas.filter(|(_, one)| !one.confirmed.contains(&owner)).map(|(number, _)| number).collect()
        };
        let unconfirmed = records.all().iter().map(lacks).collect();
        Self { records, from, unconfirmed }
    }

    /// The records that lead from a pack, or from where it leads, and so on, each with a replica that it is not confirmed
    /// at: what is needed of the pack may be read only behind all of them.
    fn behind(&self, pack: &PackName) -> BTreeSet<(usize, usize)> {
        let (mut found, mut seen) = (BTreeSet::new(), HashSet::from([pack]));
        let mut packs = vec![pack];
        while let Some(pack) = packs.pop() {
            for &record in self.from.get(pack).into_iter().flatten() {
                found.extend(self.unconfirmed[record].iter().map(|replica| (record, *replica)));
                let new = self.records.all()[record].leads_from(pack).iter().map(|new| &new.name);
                packs.extend(new.filter(|new| seen.insert(*new)));
            }
        }
        found
    }
}

fn waiting(
    repository: &Repository<'_>,
    record: &Record,
    replica: &RegisteredReplica,
) -> Result<Waiting, EngineError> {
    let name = BlobName::repack(record.session);
    let listed = repository.list(name.as_str())?;
    let made = listed.iter().find(|info| info.name == name).map_or(0, |info| info.modified);
    Ok(Waiting {
        session: record.session.to_string(),
        writer: record.decision.writer.to_string(),
        begun: made,
        newest: made,
        why: WaitingFor::Replica,
        replica: Some(replica.name.to_string()),
    })
}

impl Run<'_, '_, '_> {
    /// Deletes what a result says, but for what replicas hold up. Returns whether that was all of it.
    pub(super) fn delete_unheld(&mut self, delete: &PackSet) -> Result<bool, EngineError> {
        let held = Held::find(self.repository, delete.iter())?;
        self.ignore(held.ignored);
        if held.packs.is_empty() {
            self.delete_packs(delete)?;
            return Ok(true);
        }
        self.report.waiting = held.waiting;
        // A call that waits may come again and again: it does not ask for what went before.
        let stored = self.stored()?;
        let goes = |pack: &PackRef| stored.contains(&pack.name) && !held.packs.contains(&pack.name);
        self.delete_packs(&delete.iter().filter(goes).collect())?;
        Ok(false)
    }
}
