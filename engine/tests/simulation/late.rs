//! Blobs of the lost source that come to the promoted copy all the same, as by object replication or a copy that was under
//! way: one by one, in any order, never all.

use crate::copies::records;
use crate::random::Random;
use crate::world::World;
use keepstone_engine::lineage::LINEAGE_PROPERTY;
use keepstone_engine::observer::Quiet;
use keepstone_engine::replica::{Completeness, Missing};
use keepstone_engine::snapshots::{self, Snapshot};
use keepstone_engine::store::{MemoryStore, Put};
use keepstone_engine::verify::{FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore as _, EngineError, Repository};
use repo_format::{BlobKind, BlobName, Decision, RepackRecord, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What of the source arrives late.
pub struct Late {
    /// Restore points that were whole when the copy was promoted.
    whole: BTreeSet<SessionId>,
    /// Indexes that a verification missed then.
    pub unindexed: BTreeSet<String>,
    /// What arrives once it is promoted, in this order.
    pub arriving: Vec<(BlobName, Vec<u8>)>,
    progress: Mutex<Progress>,
}

/// How far it is.
#[derive(Default)]
pub struct Progress {
    pub arrived: BTreeSet<BlobName>,
    /// Restore points that were seen and were not whole.
    pub parts: BTreeSet<SessionId>,
    /// Those of them that were whole later.
    pub became_whole: BTreeSet<SessionId>,
    /// The first generation of the place, once it was declared that the source is gone.
    pub first_generation: Option<u32>,
}

/// A restore point as it was seen in a state of the place.
pub struct Seen {
    pub snapshot: Snapshot,
    pub missing: Option<Missing>,
}

impl Late {
    /// Draws what arrives of what the source has or had and a copy has not; some of it is there already when the copy is
    /// promoted, and comes to `copy` now. Returns what is whole then, too.
    pub fn draw(source: &World, copy: &MemoryStore) -> Result<(Self, Vec<Snapshot>), EngineError> {
        let missing = unindexed(copy, source.now())?;
        if !missing.is_empty() {
            source.violated(&format!("indexes were not copied: {missing:?}"));
        }
        let mut blobs: BTreeMap<BlobName, Vec<u8>> = source.inner().states.removed.clone();
        let there = |name: BlobName| {
            let bytes = source.truth.get(&name, None).expect("a listed blob is there");
            (name, bytes)
        };
        blobs.extend(source.truth.names().into_iter().map(there));
        let copied: BTreeSet<BlobName> = copy.names().into_iter().collect();
        blobs.retain(|name, _| arrives(name) && !copied.contains(name));
        let mut arriving = source.draw(|random| some(random, blobs));
        let early = source.draw(|random| if random.one_in(2) { 0 } else { random.index(arriving.len() + 1) });
        let rest = arriving.split_off(early);
        for (name, bytes) in &arriving {
            assert_eq!(copy.put_new(name, bytes).expect("memory does not fail"), Put::Created);
        }
        let arrived = arriving.into_iter().map(|(name, _)| name).collect();
        let progress = Mutex::new(Progress { arrived, ..Progress::default() });
        let restorable = whole_in(copy)?;
        let whole = restorable.iter().map(Snapshot::session).collect();
        let unindexed = unindexed(copy, source.now())?;
        Ok((Self { whole, unindexed, arriving: rest, progress }, restorable))
    }

    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions of which something arrived late, in hex; not those of restore points that were whole before.
    pub fn sessions(&self) -> BTreeSet<String> {
        let sessions: BTreeSet<SessionId> = self.progress().arrived.iter().filter_map(session_of).collect();
        sessions.difference(&self.whole).map(ToString::to_string).collect()
    }

    /// Whether something of a session arrived late, of which there was no restore point that was whole before.
    pub fn is_of(&self, session: &str) -> bool {
        self.sessions().contains(session)
    }

    /// Whether it was declared that the source is gone.
    pub fn is_declared(&self) -> bool {
        self.progress().first_generation.is_some()
    }

    /// Packs of sessions that arrived late and that nobody may delete: of such a session there is neither an intent nor an
    /// end, or its record is missing (`lost`).
    pub fn unexplained(&self, names: &[BlobName], lost: &BTreeSet<SessionId>) -> BTreeSet<BlobName> {
        let is_known = |name: &&BlobName| {
            matches!(
                name.kind(),
                Some(BlobKind::Intent { .. } | BlobKind::Decision(_) | BlobKind::Tombstone { .. })
            )
        };
        let known: BTreeSet<SessionId> = names.iter().filter(is_known).filter_map(session_of).collect();
        let is_unexplained = |name: &&BlobName| match name.kind() {
            Some(BlobKind::Pack(pack)) => {
                let is_left_alone = !known.contains(&pack.session) || lost.contains(&pack.session);
                is_left_alone && self.is_of(&pack.session.to_string())
            }
            _ => false,
        };
        names.iter().filter(is_unexplained).cloned().collect()
    }
}

/// Whether something of the source may arrive: what tells of places does not, nor what opens the repository.
fn arrives(name: &BlobName) -> bool {
    !matches!(
        name.kind(),
        None | Some(
            BlobKind::Config
                | BlobKind::KeySlot(_)
                | BlobKind::ReplicaMarker
                | BlobKind::Lineage(_)
                | BlobKind::Barrier { .. }
        )
    )
}

/// Some of the blobs, in any order: of one session nearly all, of another few.
fn some(random: &mut Random, blobs: BTreeMap<BlobName, Vec<u8>>) -> Vec<(BlobName, Vec<u8>)> {
    let mut percent = BTreeMap::new();
    let mut some = Vec::new();
    for (name, bytes) in blobs {
        let of_session =
            percent.entry(session_of(&name)).or_insert_with(|| random.pick(&[100, 100, 96, 85, 40]));
        if random.below(100) < *of_session {
            some.push((name, bytes));
        }
    }
    // Never all.
    if !some.is_empty() {
        some.swap_remove(random.index(some.len()));
    }
    for at in (1..some.len()).rev() {
        some.swap(at, random.index(at + 1));
    }
    if random.one_in(2) {
        // One session after the other.
        some.sort_by_key(|(name, _)| session_of(name));
    }
    some
}

fn session_of(name: &BlobName) -> Option<SessionId> {
    match name.kind()? {
        BlobKind::Intent { session, .. }
        | BlobKind::Index { session, .. }
        | BlobKind::Tombstone { session, .. }
        | BlobKind::Pin { session, .. }
        | BlobKind::Repack(session) => Some(session),
        BlobKind::Pack(pack) => Some(pack.session),
        BlobKind::Decision(decision) => Some(decision.session),
        _ => None,
    }
}

pub fn generation_of(name: &BlobName) -> Option<u32> {
    match name.kind()? {
        BlobKind::Condemned(number)
        | BlobKind::Awaited(number)
        | BlobKind::GcResult(number)
        | BlobKind::GenerationSeal(number) => Some(number),
        _ => None,
    }
}

/// Whether a snapshot tells that it was made in a promoted place.
pub fn was_made_here(snapshot: &Snapshot) -> bool {
    snapshot.commit.properties.iter().any(|(key, _)| key == LINEAGE_PROPERTY)
}

/// The sessions that repacked and whose records are not there, and those that packed again what is in their packs.
pub fn without_record(
    repository: &Repository<'_>,
    names: &[BlobName],
) -> Result<BTreeSet<SessionId>, EngineError> {
    let records = records(repository, names)?;
    let mut lost = BTreeSet::new();
    for name in names {
        let Some(BlobKind::Decision(decision)) = name.kind() else { continue };
        let is_known = records.iter().any(|record| record.session == decision.session);
        let bytes = repository.store().get(name, None)?;
        if !is_known
            && matches!(Decision::open(repository.keys(), &decision, &bytes), Ok(Decision::Repack(_)))
        {
            lost.insert(decision.session);
        }
    }
    loop {
        let repacks = |record: &&RepackRecord| {
            let mut old = record.leads.iter().filter_map(|lead| record.packs.get(lead.old as usize));
            !lost.contains(&record.session) && old.any(|pack| lost.contains(&pack.name.session))
        };
        let Some(next) = records.iter().find(repacks).map(|record| record.session) else { return Ok(lost) };
        lost.insert(next);
    }
}

/// All restore points of a state, and what they lack.
pub fn seen_in(store: &MemoryStore) -> Result<Vec<Seen>, EngineError> {
    let repository = Repository::open(store, crate::PASSWORD)?;
    let list = snapshots::list(&repository, None)?.snapshots;
    let found = Completeness::of_everything(&repository)?.of(&list)?;
    let seen = list.into_iter().zip(found);
    Ok(seen.map(|(snapshot, whole)| Seen { snapshot, missing: whole.missing().cloned() }).collect())
}

/// The restore points of a state that are whole.
pub fn whole_in(store: &MemoryStore) -> Result<Vec<Snapshot>, EngineError> {
    let whole = seen_in(store)?.into_iter().filter(|seen| seen.missing.is_none());
    Ok(whole.map(|seen| seen.snapshot).collect())
}

/// The indexes that a verification misses.
fn unindexed(store: &MemoryStore, time: u64) -> Result<BTreeSet<String>, EngineError> {
    let repository = Repository::open(store, crate::PASSWORD)?;
    let findings = verify(&repository, &VerifyJob::everything(ReadData::Nothing, time), &Quiet)?.findings;
    let missing = findings.into_iter().filter(|finding| finding.kind == FindingKind::MissingIndex);
    Ok(missing.map(|finding| finding.blob).collect())
}
