//! What a place is: where a repository is written to, a replica of it, or a replica that was promoted (SPEC 10.8).
//!
//! Objects under `lineage/` tell of the place that they are in, and are never copied to another one. One listing of them,
//! which nearly always shows nothing, is all that it takes to know that a place is no replica.

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::repository::{Repository, get_sealed, list};
use crate::session::put_twice;
use crate::store::{BlobStore, Put, StoreError};
use repo_format::{
    BlobKind, BlobName, DecisionName, FormatError, Lineage, LineageId, LineageStep, PREFIX_LINEAGE,
    ReplicaMarker,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a place is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The repository is written to here.
    Written,
    /// It is a copy that is filled from elsewhere: any part of it may not have arrived yet, and nothing is written to it
    /// but what arrives.
    Replica,
    /// It is a copy that was promoted: the repository is written to here, too.
    Promoted(Promoted),
}

/// What is known of a place that was promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// The number of the object that tells it.
    pub number: u32,
    /// What tells this promotion from others.
    pub id: LineageId,
    /// When it was told.
    pub time: u64,
    /// Whether somebody declared that nothing is written any more to the place that it was copied from.
    pub other_side_gone: bool,
    /// The first generation that is this place's own. What those before it condemn, delete and wait for is of the other
    /// place: it is left alone here, and never referenced anew.
    pub first_generation: u32,
    /// Snapshots that were not whole when it was promoted. They may never be, and nothing is built on them.
    pub set_aside: BTreeSet<DecisionName>,
}

impl From<Lineage> for Promoted {
    fn from(lineage: Lineage) -> Self {
        let Lineage { number, id, time, step, first_generation, set_aside } = lineage;
        let other_side_gone = step == LineageStep::OtherSideGone;
        Self {
            number,
            id,
            time,
            other_side_gone,
            first_generation,
            set_aside: set_aside.into_iter().collect(),
        }
    }
}

impl Standing {
    /// Snapshots that nothing is built on.
    pub(crate) fn set_aside(&self) -> impl Iterator<Item = &DecisionName> {
        let promoted = match self {
            Self::Promoted(promoted) => Some(promoted),
            Self::Written | Self::Replica => None,
        };
        promoted.into_iter().flat_map(|promoted| &promoted.set_aside)
    }

    /// The first generation that is this place's own; the highest number where none is.
    #[must_use]
    pub fn first_generation(&self) -> u32 {
        match self {
            Self::Promoted(promoted) => promoted.first_generation,
            Self::Written => 0,
            Self::Replica => u32::MAX,
        }
    }
}

/// What there is under `lineage/`.
#[derive(Debug)]
pub struct Place {
    /// What the place is.
    pub standing: Standing,
    /// What the newest lineage tells, whatever was declared.
    pub lineage: Option<Promoted>,
    /// The highest number of an object that is there, of use or not.
    pub highest: Option<u32>,
    /// Whether the mark of a replica is there.
    pub is_marked: bool,
    /// When it was promoted, by the store's clock. What was there before has arrived from elsewhere.
    pub promoted: Option<u64>,
    /// Objects that the retention did not sign. They count for nothing.
    pub unsigned: Vec<BlobName>,
}

/// Finds out what the place of an open repository is.
///
/// # Errors
/// As [`place`].
pub fn standing(repository: &Repository<'_>) -> Result<Standing, EngineError> {
    Ok(place(repository)?.standing)
}

/// As [`standing`], for a verification, which tells of what cannot be read by itself.
pub(crate) fn standing_as_far_as_known(repository: &Repository<'_>) -> Result<Standing, EngineError> {
    match standing(repository) {
        Err(error) if error.is_damage() => Ok(Standing::Written),
        standing => standing,
    }
}

/// Finds out what the place of an open repository is, and what else is under `lineage/`.
///
/// A place that the caller declared to be a replica ([`Repository::as_replica`]) is one whatever is there.
///
/// # Errors
/// [`EngineError::Damaged`] if an object that may decide cannot be read: nobody knows then; a failing store.
pub fn place(repository: &Repository<'_>) -> Result<Place, EngineError> {
    let (listed, is_marked) = listed(repository.store())?;
    let highest = listed.last_key_value().map(|(number, _)| *number);
    let standing = if is_marked { Standing::Replica } else { Standing::Written };
    let mut place =
        Place { standing, lineage: None, highest, is_marked, promoted: None, unsigned: Vec::new() };
    for (number, date) in listed.into_iter().rev() {
        let name = BlobName::lineage(number);
        let bytes = match get_sealed(repository.store(), &name) {
            Ok(bytes) => bytes,
            Err(EngineError::Store(StoreError::NotFound { .. })) => continue,
            Err(error) => return Err(error),
        };
        let lineage = match Lineage::open(repository.keys(), &name, &bytes) {
            Ok(lineage) => lineage,
            Err(FormatError::BadSignature) => {
                place.unsigned.push(name);
                continue;
            }
            // Nobody knows what it would have told, unless a later one holds.
            Err(_) if place.lineage.is_some() => continue,
            Err(_) if repository.is_declared_replica() => continue,
            Err(source) => return Err(EngineError::Damaged { name, source }),
        };
        let is_promotion = lineage.step == LineageStep::Promoted;
        place.lineage.get_or_insert_with(|| lineage.into());
        if is_promotion {
            place.promoted = Some(date);
            break;
        }
    }
    if repository.is_declared_replica() {
        place.standing = Standing::Replica;
    } else if let Some(promoted) = &place.lineage {
        place.standing = Standing::Promoted(promoted.clone());
    }
    Ok(place)
}

/// Refuses a replica, for what would be written there and nobody would know of where the repository is written to.
///
/// # Errors
/// [`EngineError::IsAReplica`]; as [`place`].
pub(crate) fn check_is_written(repository: &Repository<'_>) -> Result<Standing, EngineError> {
    match standing(repository)? {
        Standing::Replica => Err(EngineError::IsAReplica),
        standing => Ok(standing),
    }
}

/// Refuses to delete in a place that what is still written elsewhere may be merged with or copied from.
///
/// # Errors
/// [`EngineError::IsAReplica`], [`EngineError::OtherSideMayBeThere`]; as [`place`].
pub(crate) fn check_may_delete(repository: &Repository<'_>) -> Result<Standing, EngineError> {
    match check_is_written(repository)? {
        Standing::Promoted(Promoted { other_side_gone: false, .. }) => Err(EngineError::OtherSideMayBeThere),
        standing => Ok(standing),
    }
}

/// As [`check_is_written`], for what needs no password, by names alone.
pub(crate) fn check_store_is_written(store: &dyn BlobStore) -> Result<(), EngineError> {
    match listed(store)? {
        (numbers, true) if numbers.is_empty() => Err(EngineError::IsAReplica),
        _ => Ok(()),
    }
}

/// The mark of a place that is filled from another one.
///
/// # Errors
/// A mark that cannot be read; a failing store.
pub fn marker(repository: &Repository<'_>) -> Result<Option<ReplicaMarker>, EngineError> {
    let name = BlobName::replica_marker();
    match get_sealed(repository.store(), &name) {
        Ok(bytes) => {
            ReplicaMarker::open(repository.keys(), &bytes).map(Some).map_err(EngineError::damaged(&name))
        }
        Err(EngineError::Store(StoreError::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Marks the place of a repository as a replica, unless it is marked: from then on nothing is written there but what
/// arrives.
///
/// # Errors
/// [`EngineError::BadJob`] for a source of more than 4096 bytes; a failing store.
pub fn mark(
    repository: &Repository<'_>,
    (source, time): (&str, u64),
    entropy: &Entropy,
) -> Result<(), EngineError> {
    let marker = ReplicaMarker { time, source: source.to_owned() };
    if marker.check().is_err() {
        return Err(EngineError::BadJob("the place that a replica is filled from has more than 4096 bytes"));
    }
    let (name, bytes) = marker.seal(repository.keys(), entropy.draw("replica marker salt", 0));
    match put_twice(repository.store(), &name, &bytes)? {
        // Another one, made at the same time or before, says as much.
        Put::Created | Put::Identical | Put::Different => Ok(()),
    }
}

/// The numbers of lineages, and when they were created; and whether there is a mark.
fn listed(store: &dyn BlobStore) -> Result<(BTreeMap<u32, u64>, bool), EngineError> {
    let (mut numbers, mut is_marked) = (BTreeMap::new(), false);
    for info in list(store, PREFIX_LINEAGE)? {
        match info.name.kind() {
            Some(BlobKind::Lineage(number)) => drop(numbers.insert(number, info.modified)),
            Some(BlobKind::ReplicaMarker) => is_marked = true,
            _ => {}
        }
    }
    Ok((numbers, is_marked))
}
