//! Deleting at the destination what the source has deleted.
//!
//! A pack goes if a sealed generation of the source deletes it, no restore point at the destination needs it, and
//! whatever records of the source moved it to is there with its record. The last is for another run beside this one,
//! which may be about to create a restore point that names the pack: it is whole without it then. One that was forgotten
//! has its tombstone here, since all are copied before.

use super::{Run, Taking, destination};
use crate::error::EngineError;
use crate::generations::{Generations, Open};
use crate::observer::{Phase, begin};
use crate::pack_set::PackSet;
use crate::prune::mark::Marker;
use crate::records::Records;
use crate::replica::Presence;
use crate::repository::Repository;
use crate::snapshots::{self, Query, Snapshot};
use crate::store::BlobInfo;
use repo_format::{BlobKind, BlobName, DecisionName, PREFIX_DECISIONS, PREFIX_INDEX, PackRef};
use std::collections::BTreeSet;

/// Restore points that are marked together.
const MARKED_AT_ONCE: usize = 256;

impl Run<'_> {
    /// Deletes what nothing at the destination needs, and the source has deleted.
    ///
    /// # Errors
    /// A failing store; [`EngineError::CannotMark`] if it cannot be told what is needed.
    pub(super) fn follow(&mut self) -> Result<(), EngineError> {
        let Some(destination) = self.destination else { return Ok(()) };
        let mut packs = self.deleted_packs(destination)?;
        let mut snapshots = self.removed(destination, PREFIX_DECISIONS)?;
        let indexes = self.removed(destination, PREFIX_INDEX)?;
        if !packs.is_empty() || !snapshots.is_empty() {
            let Marked { needed, forgotten } = mark(destination)?;
            packs.retain(|pack| !needed.contains(&pack.name));
            packs = self.without_those_that_lead_nowhere(destination, packs)?;
            snapshots.retain(
                |name| matches!(name.kind(), Some(BlobKind::Decision(name)) if forgotten.contains(&name)),
            );
        }
        // It may have been promoted meanwhile.
        destination::check(self.source, destination, Taking::OwnReplica)?;
        let names: Vec<BlobName> = packs.iter().map(|pack| pack.name.blob()).collect();
        begin(self.observer, Phase::Delete, (names.len() + snapshots.len() + indexes.len()) as u64)?;
        // What is forgotten goes after the packs that only it needed, as at the source.
        self.delete(destination, &names)?;
        for pack in &packs {
            self.report.deleted.packs.add(u64::from(pack.len));
        }
        self.delete(destination, &snapshots)?;
        self.report.deleted.snapshots = snapshots.len() as u64;
        self.delete(destination, &indexes)?;
        self.report.deleted.indexes = indexes.len() as u64;
        Ok(())
    }

    /// The packs of the destination that the source has deleted.
    fn deleted_packs(&self, destination: &Repository<'_>) -> Result<Vec<PackRef>, EngineError> {
        let mut generations = Generations::list(self.source)?;
        let (Open::Free(open) | Open::Condemned(open, _) | Open::Decided(open, _)) =
            generations.first_open(self.source)?;
        let deleted = match open.checked_sub(1) {
            Some(last) => generations.deleted_in(self.source, 0..=last)?,
            None => return Ok(Vec::new()),
        };
        let mut there = Presence::as_asked();
        let deleted: Vec<PackRef> = deleted.iter().collect();
        there.look_for(destination, deleted.iter())?;
        let mut packs: Vec<PackRef> = Vec::new();
        for pack in deleted {
            if let Some(len) = there.len(&pack.name) {
                packs.push(PackRef { len, ..pack });
            }
        }
        Ok(packs)
    }

    /// Leaves out packs of which what they were moved to is not at the destination.
    fn without_those_that_lead_nowhere(
        &self,
        destination: &Repository<'_>,
        mut packs: Vec<PackRef>,
    ) -> Result<Vec<PackRef>, EngineError> {
        let (here, there) = (Records::load_readable(self.source)?, Records::load_readable(destination)?);
        let led_to: Vec<&PackRef> = here.leads().map(|(_, _, new)| new).collect();
        let mut presence = Presence::as_asked();
        presence.look_for(destination, led_to.into_iter())?;
        let deleted: BTreeSet<_> = packs.iter().map(|pack| pack.name.clone()).collect();
        packs.retain(|pack| {
            here.moving(&pack.name).all(|record| {
                // A pack that was moved on is deleted, too, and its own records are looked at.
                let mut new = record.leads_from(&pack.name).iter();
                there.knows(record.session)
                    && new.all(|new| {
                        presence.has(new) || deleted.contains(&new.name) || here.is_repacked(&new.name)
                    })
            })
        });
        Ok(packs)
    }

    /// Decisions or indexes of the destination that the source has not any more.
    fn removed(&self, destination: &Repository<'_>, prefix: &str) -> Result<Vec<BlobName>, EngineError> {
        // In this order: what the source gets meanwhile is not taken for gone.
        let there = destination.list(prefix)?;
        let here: BTreeSet<BlobName> = self.source.list(prefix)?.into_iter().map(|info| info.name).collect();
        let is_removed = |info: &BlobInfo| {
            matches!(info.name.kind(), Some(BlobKind::Decision(_) | BlobKind::Index { .. }))
                && !here.contains(&info.name)
        };
        Ok(there.into_iter().filter(is_removed).map(|info| info.name).collect())
    }

    fn delete(&self, destination: &Repository<'_>, names: &[BlobName]) -> Result<(), EngineError> {
        if self.copier.is_pretending() {
            return Ok(());
        }
        let store = destination.store();
        for result in self.copier.each(names, |name| {
            store.delete(name)?;
            self.moved(1)
        })? {
            result?;
        }
        Ok(())
    }
}

/// What is at the destination.
struct Marked {
    /// The packs that valid roots need.
    needed: PackSet,
    forgotten: BTreeSet<DecisionName>,
}

fn mark(destination: &Repository<'_>) -> Result<Marked, EngineError> {
    let cannot = |error: EngineError| EngineError::CannotMark { source: Box::new(error) };
    let records = Records::load(destination).map_err(cannot)?;
    let mut marker = Marker::new(destination, records.repacked().cloned());
    let mut roots: Vec<Snapshot> = Vec::new();
    let mut failed = None;
    let found = snapshots::each(destination, &Query::default(), &mut |root| {
        roots.push(root);
        if roots.len() >= MARKED_AT_ONCE && failed.is_none() {
            failed = marker.mark(&std::mem::take(&mut roots), &records).err();
        }
    })?;
    if let Some(error) = failed {
        return Err(cannot(error));
    }
    marker.mark(&roots, &records).map_err(cannot)?;
    match found.unreadable.into_iter().find(|(name, _)| matches!(name.kind(), Some(BlobKind::Decision(_)))) {
        Some((_, error)) => Err(cannot(error)),
        None => Ok(Marked { needed: marker.into_needed(), forgotten: found.forgotten }),
    }
}
