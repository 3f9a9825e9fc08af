//! What a place is: where a repository is written to, a replica of it, or a replica that was promoted (SPEC 10.8).
//!
//! Objects under `lineage/` tell of the place that they are in, and are never copied to another one. One listing of them,
//! which nearly always shows nothing, is all that it takes to know that a place is no replica.

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::repository::{Repository, get_sealed, list};
use crate::session::put_twice;
use crate::snapshots::{Snapshot, UnreadableBlob};
use crate::store::{BlobStore, Put, StoreError};
use repo_format::{
    BlobKind, BlobName, DecisionName, FormatError, Lineage, LineageId, LineageStep, PREFIX_LINEAGE,
    ReplicaMarker,
};
use std::collections::{BTreeMap, BTreeSet};

/// The property of a snapshot that was made in a promoted place: the id of the promotion, in hex (SPEC W-7).
pub const LINEAGE_PROPERTY: &str = "lineage";

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
    /// When it was told, by the clock of whoever told it.
    pub time: u64,
    /// When it was promoted, by the store's clock: what was there before has arrived from elsewhere. Nothing if what told of
    /// the promotion cannot be read any more.
    pub date: Option<u64>,
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
            date: None,
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

    /// Until when, by the store's clock, all that came to the place was copied from elsewhere; nothing if nothing was, or if
    /// that is not known.
    pub(crate) fn copied_until(&self) -> Option<u64> {
        match self {
            Self::Replica => Some(u64::MAX),
            Self::Promoted(promoted) => promoted.date,
            Self::Written => None,
        }
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

impl Promoted {
    /// Whether a snapshot was made in this place, after it was promoted.
    pub(crate) fn made(&self, snapshot: &Snapshot) -> bool {
        let told = snapshot.commit.properties.iter().find(|(key, _)| key == LINEAGE_PROPERTY);
        told.is_some_and(|(_, id)| *id == self.id.to_string())
    }
}

/// What there is under `lineage/`.
#[derive(Debug)]
pub struct Place {
    /// What the place is.
    pub standing: Standing,
    /// What the newest lineage tells, whatever was declared.
    pub lineage: Option<Promoted>,
    /// Objects that the retention did not sign. They count for nothing.
    pub unsigned: Vec<BlobName>,
    /// Objects that cannot be read and have higher numbers than the one that holds. They count for nothing, but nothing is
    /// deleted beside them: what would hold may be among them.
    pub damaged: Vec<UnreadableBlob>,
    /// The numbers of all objects.
    numbers: BTreeSet<u32>,
}

impl Place {
    /// The number of the next object: the first one behind that of the object that holds under which there is nothing.
    /// Nothing if there is none.
    pub(crate) fn next_number(&self) -> Option<u32> {
        let first = self.lineage.as_ref().map_or(Some(1), |promoted| promoted.number.checked_add(1))?;
        first_free(first, &self.numbers)
    }
}

/// The first number from one on that is not taken. Who may create blobs can take any, as many as they like.
pub(crate) fn first_free(first: u32, taken: &BTreeSet<u32>) -> Option<u32> {
    (first..=u32::MAX).find(|number| !taken.contains(number))
}

/// Finds out what the place of an open repository is.
///
/// # Errors
/// As [`place`].
pub fn standing(repository: &Repository<'_>) -> Result<Standing, EngineError> {
    Ok(place(repository)?.standing)
}

/// Finds out what the place of an open repository is, and what else is under `lineage/`.
///
/// The object with the highest number that SIG-2 takes holds. Others are passed over: whoever may create blobs can make them,
/// and would stop everything by one that is no object at all. A place that the caller declared to be a replica
/// ([`Repository::as_replica`]) is one whatever is there.
///
/// # Errors
/// A failing store.
pub fn place(repository: &Repository<'_>) -> Result<Place, EngineError> {
    let (listed, is_marked) = listed(repository.store())?;
    let numbers = listed.keys().copied().collect();
    let standing = if is_marked { Standing::Replica } else { Standing::Written };
    let mut place = Place { standing, lineage: None, unsigned: Vec::new(), damaged: Vec::new(), numbers };
    for (number, date) in listed.into_iter().rev() {
        let name = BlobName::lineage(number);
        let opened = get_sealed(repository.store(), &name).and_then(|bytes| {
            match Lineage::open(repository.keys(), &name, &bytes) {
                Err(FormatError::BadSignature) => Ok(None),
                opened => opened.map(Some).map_err(EngineError::damaged(&name)),
            }
        });
        let lineage = match opened {
            Ok(Some(lineage)) => lineage,
            Ok(None) => {
                place.unsigned.push(name);
                continue;
            }
            Err(EngineError::Store(StoreError::NotFound { .. })) => continue,
            Err(error) if error.is_damage() => {
                if place.lineage.is_none() {
                    place.damaged.push((name, error));
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        let is_promotion = lineage.step == LineageStep::Promoted;
        let promoted = place.lineage.get_or_insert_with(|| lineage.into());
        if is_promotion {
            promoted.date = Some(date);
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
/// [`EngineError::IsAReplica`], [`EngineError::OtherSideMayBeThere`]; an object that may have told of either and cannot be
/// read; as [`place`].
pub(crate) fn check_may_delete(repository: &Repository<'_>) -> Result<Standing, EngineError> {
    let Place { standing, damaged, .. } = place(repository)?;
    match (standing, damaged.into_iter().next()) {
        (Standing::Replica, _) => Err(EngineError::IsAReplica),
        (Standing::Promoted(Promoted { other_side_gone: false, .. }), _) => {
            Err(EngineError::OtherSideMayBeThere)
        }
        (_, Some((_, error))) => Err(error),
        (standing, None) => Ok(standing),
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
