//! Deleting at the destination what the source has deleted.
//!
//! A pack goes if a sealed generation of the source deletes it, no restore point at the destination needs it, and
//! whatever records of the source moved it to is there with its record: transitively, to packs that stay. An end that is
//! not there, or goes too, must be one that the source deleted without moving it on, and that no restore point at the
//! destination needs. The last is for another run beside this one, which may be about to create a restore point that
//! names the pack: it is whole without it then. One that was forgotten has its tombstone here, since all are copied
//! after it is read what the source deleted.

use super::{Run, Taking, destination};
use crate::error::EngineError;
use crate::generations::{Generations, Open};
use crate::observer::{Phase, begin};
use crate::pack_set::PackSet;
use crate::prune::mark::Marker;
use crate::records::Records;
use crate::replica::Presence;
use crate::repository::Repository;
use crate::snapshots;
use crate::store::BlobInfo;
use repo_format::{BlobKind, BlobName, DecisionName, PREFIX_DECISIONS, PREFIX_INDEX, PackName, PackRef};
use std::collections::BTreeSet;

/// Restore points that are marked together.
const MARKED_AT_ONCE: usize = 256;

/// Blobs that are deleted before it is asked again whether the destination is still a replica: some seconds' worth.
const DELETED_AT_ONCE: usize = 256;

impl Run<'_> {
    /// Deletes what nothing at the destination needs, and the source has deleted.
    ///
    /// # Errors
    /// A failing store; [`EngineError::CannotMark`] if it cannot be told what is needed.
    pub(super) fn follow(&mut self) -> Result<(), EngineError> {
        let Some(destination) = self.destination else { return Ok(()) };
        let deleted = self.deleted_packs()?;
        let mut packs = present(destination, &deleted)?;
        let mut snapshots = self.removed(destination, PREFIX_DECISIONS)?;
        let indexes = self.removed(destination, PREFIX_INDEX)?;
        if !packs.is_empty() || !snapshots.is_empty() {
            // Whatever needed what was deleted is forgotten, and must be so here too.
            self.copy_facts()?;
            let Marked { needed, forgotten } = mark(destination)?;
            packs.retain(|pack| !needed.contains(&pack.name));
            packs = Leading::of(self.source, destination)?.without_those_that_lead_nowhere(packs, &|end| {
                deleted.contains(end) && !needed.contains(end)
            });
            snapshots.retain(|name| DecisionName::of(name).is_some_and(|name| forgotten.contains(&name)));
        }
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

    /// The packs that the source has deleted.
    fn deleted_packs(&self) -> Result<PackSet, EngineError> {
        let mut generations = Generations::list(self.source)?;
        let (Open::Free(open) | Open::Condemned(open, _) | Open::Decided(open, _)) =
            generations.first_open(self.source)?;
        match open.checked_sub(1) {
            Some(last) => generations.deleted_in(self.source, 0..=last),
            None => Ok(PackSet::default()),
        }
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
        for names in names.chunks(DELETED_AT_ONCE) {
            self.check_destination()?;
            for result in self.copier.each(names, |name| {
                store.delete(name)?;
                self.moved(1)
            })? {
                result?;
            }
        }
        Ok(())
    }

    /// Refuses a destination that was promoted since it was made ready: what happens there is not for this run any more.
    ///
    /// # Errors
    /// [`super::ReplicateError::Promoted`]; a failing store.
    pub(super) fn check_destination(&self) -> Result<(), EngineError> {
        match self.destination {
            Some(destination) if !self.copier.is_pretending() => {
                destination::check(self.source, destination, Taking::OwnReplica)
            }
            _ => Ok(()),
        }
    }
}

/// Those of some packs that are at a place, with their lengths there.
fn present(place: &Repository<'_>, packs: &PackSet) -> Result<Vec<PackRef>, EngineError> {
    let mut there = Presence::as_asked();
    let packs: Vec<PackRef> = packs.iter().collect();
    there.look_for(place, packs.iter())?;
    let with_len = |pack: PackRef| there.len(&pack.name).map(|len| PackRef { len, ..pack });
    Ok(packs.into_iter().filter_map(with_len).collect())
}

/// Where records lead.
struct Leading {
    /// Those of the source.
    here: Records,
    /// Those of the destination.
    there: Records,
    /// Of what they lead to, what is at the destination.
    presence: Presence,
}

impl Leading {
    /// What the source deleted must be known before.
    fn of(source: &Repository<'_>, destination: &Repository<'_>) -> Result<Self, EngineError> {
        let (here, there) = (Records::load_readable(source)?, Records::load_readable(destination)?);
        let mut presence = Presence::as_asked();
        presence.look_for(destination, there.leads().map(|(_, _, new)| new))?;
        Ok(Self { here, there, presence })
    }

    /// Leaves out packs of which what they were moved to is not at the destination. `is_useless` tells of an end whether
    /// nothing needs it.
    fn without_those_that_lead_nowhere(
        &self,
        mut packs: Vec<PackRef>,
        is_useless: &dyn Fn(&PackName) -> bool,
    ) -> Vec<PackRef> {
        let going: BTreeSet<PackName> = packs.iter().map(|pack| pack.name.clone()).collect();
        packs.retain(|pack| {
            let mut seen = BTreeSet::new();
            let mut names = vec![&pack.name];
            while let Some(name) = names.pop() {
                // Each record must lead on from here there as well.
                if !self.here.moving(name).all(|record| self.there.knows(record.session)) {
                    return false;
                }
                for new in self.there.moving(name).flat_map(|record| record.leads_from(name)) {
                    if self.presence.has(new) && !going.contains(&new.name) {
                        continue;
                    }
                    if !self.here.is_repacked(&new.name)
                        && !self.there.is_repacked(&new.name)
                        && !is_useless(&new.name)
                    {
                        return false;
                    }
                    if seen.insert(&new.name) {
                        names.push(&new.name);
                    }
                }
            }
            true
        });
        packs
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
    let found = snapshots::each_batch(destination, MARKED_AT_ONCE, &mut |roots| {
        marker.mark(roots, &records).map_err(cannot)
    })?;
    match found.unreadable.into_iter().find(|(name, _)| DecisionName::of(name).is_some()) {
        Some((_, error)) => Err(cannot(error)),
        None => Ok(Marked { needed: marker.into_needed(), forgotten: found.forgotten }),
    }
}
