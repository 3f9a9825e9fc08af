//! What a repository knows of its replicas: which ones a prune waits for, and what is confirmed to be whole there
//! (PROTOCOL 8, SPEC 10.7).
//!
//! What was packed again is needed at a replica under its new names before the old packs may go there, and nobody can see
//! from here what has arrived. So whoever can see it tells, signed by the retention. Facts are only added: of one replica
//! they are numbered, and the highest number holds.

use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::forget::check_key;
use crate::generations::Generations;
use crate::lineage::{check_is_written, first_free, standing};
use crate::pack_set::PackSet;
use crate::prune::Owner;
use crate::records::{Readable, Record, Records};
use crate::repository::{Repository, get_sealed};
use crate::session::put_twice;
use crate::store::{BlobInfo, Put, StoreError};
use crate::threads;
use repo_format::{
    Barrier, BarrierFact, BlobKind, BlobName, FormatError, PREFIX_BARRIER, PackKind, ReplicaName,
    RetentionKey, barrier_prefix, packs_prefix,
};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers that are tried for a new fact: each was free when it was looked for, and somebody took it meanwhile.
const NUMBERS_TRIED: usize = 64;
/// Facts that are read at the same time: each is a round trip.
const READ_THREADS: usize = 32;
/// Sessions that one fact confirms at most, to be within the limit of a sealed object.
const CONFIRMED_MAX: usize = 400_000;

/// A replica that a prune waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredReplica {
    /// Its name.
    pub name: ReplicaName,
    /// Where it is, for people; nothing if that cannot be read.
    pub place: Option<String>,
    /// Since when it is waited for, milliseconds since 1970.
    pub since: u64,
    /// Sessions that are confirmed to be whole there since then, each with its writer.
    pub confirmed: BTreeSet<Owner>,
    /// The number of the fact that began this: another registration has another one.
    registration: u32,
}

/// What is known of replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Those that a prune waits for, by their names.
    pub registered: Vec<RegisteredReplica>,
    /// Facts that the retention did not sign. They count for nothing.
    pub ignored: Vec<BlobName>,
    /// Facts that cannot be read. Each may have told that the replica is another one now, and counts as if it did: a prune
    /// waits, and nothing is confirmed, until a newer fact tells so.
    pub damaged: Vec<BlobName>,
}

/// What [`register`] and [`remove`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is as was asked for now.
    Made,
    /// It was so before.
    None,
}

/// Lists the replicas that a prune waits for, and what is confirmed there.
///
/// # Errors
/// A failing store.
pub fn list(repository: &Repository<'_>) -> Result<Replicas, EngineError> {
    let listed = repository.list(PREFIX_BARRIER)?;
    read(repository, listed)
}

/// The replica that is registered under a name.
///
/// # Errors
/// [`EngineError::NoSuchReplica`]; a failing store.
pub fn find(repository: &Repository<'_>, name: &ReplicaName) -> Result<RegisteredReplica, EngineError> {
    let mut registered = list(repository)?.registered;
    if let Some(position) = registered.iter().position(|replica| replica.name == *name) {
        return Ok(registered.swap_remove(position));
    }
    let found = registered.into_iter().map(|replica| replica.name).collect();
    Err(EngineError::NoSuchReplica { name: name.clone(), found })
}

/// As [`list`], from a listing of `b/`.
pub(crate) fn read(repository: &Repository<'_>, listed: Vec<BlobInfo>) -> Result<Replicas, EngineError> {
    let facts = threads::each(&listed, READ_THREADS, |info| Read::of(repository, info));
    let mut replicas = Replicas::default();
    let mut by_name: BTreeMap<ReplicaName, Vec<Fact>> = BTreeMap::new();
    for (info, read) in listed.into_iter().zip(facts) {
        let (replica, fact) = match read? {
            Read::None => continue,
            Read::Unsigned => {
                replicas.ignored.push(info.name);
                continue;
            }
            Read::Signed(Barrier { replica, number, time, fact }) => {
                (replica, Fact { number, time, told: Some(fact) })
            }
            Read::Damaged { replica, number, .. } => {
                replicas.damaged.push(info.name);
                (replica, Fact { number, time: info.modified, told: None })
            }
        };
        by_name.entry(replica).or_default().push(fact);
    }
    replicas.registered = by_name.into_iter().filter_map(|(name, facts)| registered(&name, facts)).collect();
    Ok(replicas)
}

/// What a blob under `b/` turned out to be.
enum Read {
    /// No fact by its name.
    None,
    Signed(Barrier),
    Unsigned,
    Damaged {
        replica: ReplicaName,
        number: u32,
        error: EngineError,
    },
}

impl Read {
    fn of(repository: &Repository<'_>, info: &BlobInfo) -> Result<Self, EngineError> {
        let Some(BlobKind::Barrier { replica, number }) = info.name.kind() else { return Ok(Self::None) };
        let bytes = match get_sealed(repository.store(), &info.name) {
            Err(error) if error.is_damage() => return Ok(Self::Damaged { replica, number, error }),
            other => other?,
        };
        Ok(match Barrier::open(repository.keys(), &info.name, &bytes) {
            Ok(barrier) => Self::Signed(barrier),
            Err(FormatError::BadSignature) => Self::Unsigned,
            Err(source) => Self::Damaged { replica, number, error: EngineError::damaged(&info.name)(source) },
        })
    }
}

/// A fact about a replica.
struct Fact {
    number: u32,
    /// When it was told.
    time: u64,
    /// What it tells; nothing if it cannot be read.
    told: Option<BarrierFact>,
}

/// What the facts of one replica come to; nothing if it is not registered.
fn registered(name: &ReplicaName, mut facts: Vec<Fact>) -> Option<RegisteredReplica> {
    facts.sort_by_key(|fact| fact.number);
    let mut replica: Option<RegisteredReplica> = None;
    for Fact { number, time, told } in facts {
        let place = match (told, &mut replica) {
            (Some(BarrierFact::Removed), replica) => {
                *replica = None;
                continue;
            }
            (Some(BarrierFact::Confirmed { sessions }), Some(replica)) => {
                replica.confirmed.extend(sessions);
                continue;
            }
            // What was confirmed before it was registered says nothing of what is there now.
            (Some(BarrierFact::Confirmed { .. }), None) => continue,
            (Some(BarrierFact::Registered { place }), Some(replica))
                if replica.place.as_ref() == Some(&place) =>
            {
                continue;
            }
            (Some(BarrierFact::Registered { place }), _) => Some(place),
            (None, _) => None,
        };
        // What was confirmed of another place says nothing of this one.
        let (name, confirmed) = (name.clone(), BTreeSet::new());
        replica = Some(RegisteredReplica { name, place, since: time, confirmed, registration: number });
    }
    replica
}

/// Registers a replica: no prune that begins from now on deletes what was packed again before that is confirmed there.
/// One that is registered already gets another place, where nothing is confirmed.
///
/// # Errors
/// [`EngineError::IsAReplica`]; a place of more than 4096 bytes; a failing store.
pub fn register(
    repository: &Repository<'_>,
    key: &RetentionKey,
    (name, place): (&ReplicaName, &str),
    time: u64,
    entropy: &Entropy,
) -> Result<Change, EngineError> {
    if list(repository)?
        .registered
        .iter()
        .any(|replica| replica.name == *name && replica.place.as_deref() == Some(place))
    {
        return Ok(Change::None);
    }
    let fact = BarrierFact::Registered { place: place.to_owned() };
    tell(repository, key, Telling { name, time, fact, entropy })?;
    Ok(Change::Made)
}

/// Removes a replica: no prune waits for it any more. What was confirmed there is of no use if it is registered again.
///
/// # Errors
/// [`EngineError::NoSuchReplica`]; [`EngineError::IsAReplica`]; a failing store.
pub fn remove(
    repository: &Repository<'_>,
    key: &RetentionKey,
    name: &ReplicaName,
    time: u64,
    entropy: &Entropy,
) -> Result<(), EngineError> {
    find(repository, name)?;
    tell(repository, key, Telling { name, time, fact: BarrierFact::Removed, entropy })
}

/// Confirms that sessions were found whole at a registered replica. Returns how many were not confirmed before.
///
/// # Errors
/// [`EngineError::NoSuchReplica`], also if it was removed meanwhile; [`EngineError::IsAReplica`]; a failing store.
pub fn confirm(
    repository: &Repository<'_>,
    key: &RetentionKey,
    (name, sessions): (&ReplicaName, &BTreeSet<Owner>),
    time: u64,
    entropy: &Entropy,
) -> Result<u64, EngineError> {
    let before = find(repository, name)?;
    let new: Vec<Owner> = sessions.difference(&before.confirmed).cloned().collect();
    for (part, sessions) in (0..).zip(new.chunks(CONFIRMED_MAX)) {
        // A replica that was emptied and registered anew since has not what was found.
        if find(repository, name)?.registration != before.registration {
            return Err(EngineError::NoSuchReplica { name: name.clone(), found: Vec::new() });
        }
        let fact = BarrierFact::Confirmed { sessions: sessions.to_vec() };
        tell(repository, key, Telling { name, time, fact, entropy: &entropy.attempt(part) })?;
    }
    Ok(new.len() as u64)
}

/// The repack sessions of a repository that are whole at a replica of it: the record, its decision, and those of its new
/// packs that nobody is to delete are there as they are here. Those of `confirmed` are not looked at again.
///
/// # Errors
/// A failing store; a damaged record or generation.
pub fn confirmable_repacks(
    source: &Repository<'_>,
    replica: &Repository<'_>,
    confirmed: &BTreeSet<Owner>,
) -> Result<BTreeSet<Owner>, EngineError> {
    let records = Records::load(source)?;
    let deleted = Generations::own(source, &standing(source)?)?.deleted_here(source)?;
    let new: Vec<&Record> =
        records.all().iter().filter(|record| !confirmed.contains(&record.owner())).collect();
    let found = threads::each(&new, READ_THREADS, |record| {
        Ok(is_whole(replica, record, &deleted)?.then(|| record.owner()))
    });
    found.into_iter().filter_map(Result::transpose).collect()
}

/// Whether a repack session of a repository is whole at a replica of it.
fn is_whole(replica: &Repository<'_>, record: &Record, deleted: &PackSet) -> Result<bool, EngineError> {
    // Somebody reads it there when the old packs are gone: that it is as long as it was is not enough.
    match Readable::of(replica, &BlobName::repack(record.session)) {
        Ok(Readable::Counts(there)) if there.decision == record.decision => {}
        Ok(_) | Err(EngineError::Store(StoreError::NotFound { .. })) => return Ok(false),
        Err(error) => return Err(error),
    }
    let arrived = packs_of(replica, record)?;
    let mut needed = record.new_packs().filter(|pack| !deleted.contains(&pack.name));
    Ok(needed.all(|pack| arrived.get(&pack.name.blob()) == Some(&u64::from(pack.len))))
}

/// The packs of a repack session that are listed in a place, with their lengths.
fn packs_of(repository: &Repository<'_>, record: &Record) -> Result<BTreeMap<BlobName, u64>, EngineError> {
    let mut packs = BTreeMap::new();
    for kind in [PackKind::Data, PackKind::Map] {
        let prefix = packs_prefix(kind, &record.decision.writer, record.session);
        packs.extend(repository.list(&prefix)?.into_iter().map(|info| (info.name, info.len)));
    }
    Ok(packs)
}

/// What is to be told of a replica.
struct Telling<'a> {
    name: &'a ReplicaName,
    time: u64,
    fact: BarrierFact,
    entropy: &'a Entropy,
}

/// Creates a fact under the first free number behind the highest one of a fact that counts.
fn tell(repository: &Repository<'_>, key: &RetentionKey, told: Telling<'_>) -> Result<(), EngineError> {
    check_key(repository, key)?;
    let _standing = check_is_written(repository)?;
    let Telling { name, time, fact, entropy } = told;
    let mut barrier = Barrier { replica: name.clone(), number: 0, time, fact };
    if barrier.check().is_err() {
        return Err(EngineError::BadJob("the place of a replica has more than 4096 bytes"));
    }
    for _ in 0..NUMBERS_TRIED {
        let Some(number) = next_number(repository, name)? else { break };
        barrier.number = number;
        let salt = entropy.draw("barrier salt", u64::from(number));
        let (name, bytes) = barrier.seal(repository.keys(), key, salt);
        match put_twice(repository.store(), &name, &bytes)? {
            Put::Created | Put::Identical => return Ok(()),
            Put::Different => {}
        }
    }
    Err(EngineError::Twin { name: BlobName::barrier(name, barrier.number) })
}

/// The first free number behind the highest one of a fact that counts, or cannot be read. What others told without a
/// signature may be as high and as much as they like.
fn next_number(repository: &Repository<'_>, name: &ReplicaName) -> Result<Option<u32>, EngineError> {
    let listed = repository.list(&barrier_prefix(name))?;
    let number = |info: &BlobInfo| match info.name.kind() {
        Some(BlobKind::Barrier { number, .. }) => Some(number),
        _ => None,
    };
    let taken: BTreeSet<u32> = listed.iter().filter_map(number).collect();
    for info in listed.iter().rev() {
        match Read::of(repository, info)? {
            Read::None | Read::Unsigned => {}
            Read::Damaged { number: u32::MAX, error, .. } => return Err(error),
            Read::Signed(Barrier { number, .. }) | Read::Damaged { number, .. } => {
                return Ok(number.checked_add(1).and_then(|first| first_free(first, &taken)));
            }
        }
    }
    Ok(first_free(0, &taken))
}
