//! The place that restore points are copied to.

use super::ReplicateError;
use super::sound::read_twice;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::lineage::{self, Standing};
use crate::repository::{Repository, list};
use crate::session::put_twice;
use crate::store::{BlobStore, Put, StoreError};
use repo_format::limits::{CONFIG_LEN_MAX, SLOT_LEN_MAX};
use repo_format::{BlobKind, BlobName, DecisionName, PREFIX_DECISIONS, PREFIX_KEYS, PREFIX_TOMBSTONES, Slot};
use std::collections::BTreeSet;

/// What the destination may be besides an empty place, and a replica that an earlier run made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Nothing.
    OwnReplica,
    /// A copy of this repository that was made in another way; it becomes a replica.
    AnyCopy,
}

/// What [`prepare`] found or made.
pub enum Place<'t> {
    /// The destination is ready.
    Ready(Box<Repository<'t>>),
    /// It would be made from an empty place.
    Empty,
}

/// What is to be done to make a destination ready.
#[derive(Clone, Copy, Debug)]
pub enum Preparing<'a> {
    /// It is made ready.
    Made {
        /// Where the source is, for people.
        told: &'a str,
        /// Now, milliseconds since 1970.
        time: u64,
    },
    /// It is only looked at.
    LookedAt,
}

/// Makes a destination ready: an empty place becomes a replica without anything in it, its config last; and key slots
/// that the source has got since are copied. Without `Made`, nothing is written.
///
/// # Errors
/// [`ReplicateError::NotAReplica`], [`ReplicateError::Promoted`], [`ReplicateError::WrittenTo`], and what
/// [`Repository::at`] refuses; a store that fails.
pub fn prepare<'t>(
    source: &Repository<'_>,
    store: &'t dyn BlobStore,
    taking: Taking,
    preparing: Preparing<'_>,
    entropy: &Entropy,
) -> Result<Place<'t>, EngineError> {
    let found = match source.at(store) {
        Ok(destination) => Some(destination),
        Err(EngineError::NotARepository) => None,
        Err(error) => return Err(error),
    };
    if let Some(destination) = &found {
        check(source, destination, taking)?;
    }
    let Preparing::Made { told, time } = preparing else {
        return Ok(found.map_or(Place::Empty, |found| Place::Ready(Box::new(found))));
    };
    // What is not there yet has the same keys.
    let destination = found.unwrap_or_else(|| source.same_at(store));
    copy_keys(source, &destination)?;
    // The mark comes before the config: no moment in which somebody could take it for a repository that is written to.
    lineage::mark(&destination, (told, time), entropy)?;
    let name = BlobName::config();
    let config = read_twice(source.store(), &name, CONFIG_LEN_MAX)?;
    put(store, &name, &config)?;
    Ok(Place::Ready(Box::new(source.at(store)?)))
}

/// Refuses a place that is written to, and one of which something that may have told so cannot be read.
///
/// # Errors
/// As [`prepare`].
pub(super) fn check(
    source: &Repository<'_>,
    destination: &Repository<'_>,
    taking: Taking,
) -> Result<(), EngineError> {
    let lineage::Place { standing, damaged, .. } = lineage::place(destination)?;
    if let (Standing::Replica | Standing::Written, Some((_, error))) = (&standing, damaged.into_iter().next())
    {
        return Err(error);
    }
    match standing {
        Standing::Replica => Ok(()),
        Standing::Promoted(_) => Err(ReplicateError::Promoted.into()),
        Standing::Written if taking == Taking::OwnReplica || is_replica(source)? => {
            Err(ReplicateError::NotAReplica.into())
        }
        Standing::Written => check_is_copy(source, destination),
    }
}

/// Whether a source is a copy itself: what it would take for its copy may be what it was copied from.
fn is_replica(source: &Repository<'_>) -> Result<bool, EngineError> {
    Ok(lineage::standing(source)? == Standing::Replica)
}

/// Whether every decision of the destination is the source's, or was until it was forgotten.
fn check_is_copy(source: &Repository<'_>, destination: &Repository<'_>) -> Result<(), EngineError> {
    // In this order: what is decided meanwhile at the source is no other's.
    let there = destination.list(PREFIX_DECISIONS)?;
    let here: BTreeSet<BlobName> = source.list(PREFIX_DECISIONS)?.into_iter().map(|info| info.name).collect();
    let forgotten: BTreeSet<BlobName> =
        source.list(PREFIX_TOMBSTONES)?.into_iter().map(|info| info.name).collect();
    for info in there {
        let Some(name) = DecisionName::of(&info.name) else { continue };
        let tombstone = BlobName::tombstone(name.vm, name.session);
        if !here.contains(&info.name) && !forgotten.contains(&tombstone) {
            return Err(ReplicateError::WrittenTo { name: info.name }.into());
        }
    }
    Ok(())
}

/// Copies key slots that are not there. One that was removed at the source stays: nothing tells it from one that was
/// added at the destination.
fn copy_keys(source: &Repository<'_>, destination: &Repository<'_>) -> Result<(), EngineError> {
    let there: BTreeSet<BlobName> =
        destination.list(PREFIX_KEYS)?.into_iter().map(|info| info.name).collect();
    for info in list(source.store(), PREFIX_KEYS)? {
        let Some(BlobKind::KeySlot(slot)) = info.name.kind() else { continue };
        if there.contains(&info.name) {
            continue;
        }
        let bytes = match read_twice(source.store(), &info.name, SLOT_LEN_MAX) {
            // One that was removed meanwhile, or that nobody can open.
            Err(EngineError::Store(StoreError::NotFound { .. }) | EngineError::Damaged { .. }) => continue,
            other => other?,
        };
        let is_of_this = |slot: Slot| slot.info().repository == source.config().repository;
        if Slot::parse(&slot, &bytes).is_ok_and(is_of_this) {
            put(destination.store(), &info.name, &bytes)?;
        }
    }
    Ok(())
}

fn put(store: &dyn BlobStore, name: &BlobName, bytes: &[u8]) -> Result<(), EngineError> {
    match put_twice(store, name, bytes)? {
        Put::Created | Put::Identical => Ok(()),
        Put::Different => Err(ReplicateError::OtherBytes { name: name.clone() }.into()),
    }
}
