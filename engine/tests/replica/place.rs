//! What must hold of a place that has any subset of a repository's blobs.

use crate::world::watched::Watched;
use crate::world::{open, restored};
use keepstone_engine::replica::{Completeness, Missing, Whole};
use keepstone_engine::snapshots::{Snapshot, list};
use keepstone_engine::store::{MemoryStore, Put};
use keepstone_engine::{BlobStore, Repository};
use repo_format::{BlobName, SessionId};
use std::collections::{BTreeMap, BTreeSet};

pub fn snapshots(repository: &Repository<'_>) -> Vec<Snapshot> {
    list(repository, None).unwrap().snapshots
}

/// What is told of each restore point; all ways of asking agree.
pub fn told(store: &MemoryStore) -> BTreeMap<SessionId, Whole> {
    let store = Watched::read_only(store);
    let repository = open(&store);
    let roots = snapshots(&repository);
    let all = |completeness: Completeness<'_, '_>| {
        let found = completeness.telling(usize::MAX).of(&roots).unwrap();
        roots.iter().map(Snapshot::session).zip(found).collect::<BTreeMap<_, _>>()
    };
    let told = all(Completeness::of_everything(&repository).unwrap());
    assert_eq!(told, all(Completeness::by_session(&repository).unwrap()));
    for root in roots.iter().rev().step_by(3) {
        let one = Completeness::by_session(&repository).unwrap().telling(usize::MAX).of_one(root);
        assert_eq!(one.unwrap(), told[&root.session()]);
    }
    told
}

/// Asserts that what is called whole restores, and that what is not lacks something. Returns what is whole. `held` is what
/// the snapshots hold, `archive` all blobs that there ever were.
pub fn checked(
    store: &MemoryStore,
    held: &BTreeMap<SessionId, Vec<u8>>,
    archive: &BTreeMap<BlobName, Vec<u8>>,
) -> BTreeSet<SessionId> {
    let told = told(store);
    let read_only = Watched::read_only(store);
    let repository = open(&read_only);
    let mut whole = BTreeSet::new();
    for root in snapshots(&repository) {
        let session = root.session();
        match &told[&session] {
            Whole::Yes => {
                let bytes = restored(&repository, &root, "disk0").expect("what is whole restores");
                assert!(bytes == held[&session], "{session} holds other bytes");
                whole.insert(session);
            }
            Whole::No(missing) => {
                assert_lacks(store, missing);
                becomes_whole(store, session, archive);
            }
        }
    }
    whole
}

/// Asserts that what is told to be missing is.
pub fn assert_lacks(store: &MemoryStore, missing: &Missing) {
    assert!(!missing.names.is_empty() || !missing.damaged.is_empty(), "something is named");
    assert_eq!(missing.names.len() as u64, missing.blobs);
    assert_eq!(missing.names.iter().map(|blob| blob.len).sum::<u64>(), missing.bytes);
    for blob in &missing.names {
        let found = store.get(&blob.name, None).ok().map(|bytes| bytes.len() as u64);
        assert_eq!(found, blob.found);
        assert!(found != Some(blob.len), "{} is there", blob.name);
    }
}

/// Asserts that a restore point becomes whole when what it lacks is brought, and what it lacks then.
fn becomes_whole(store: &MemoryStore, session: SessionId, archive: &BTreeMap<BlobName, Vec<u8>>) {
    let store = store.copied();
    for _ in 0..10 {
        let repository = open(&store);
        let root = snapshots(&repository).into_iter().find(|root| root.session() == session).unwrap();
        let mut completeness = Completeness::of_everything(&repository).unwrap().telling(usize::MAX);
        let Whole::No(missing) = completeness.of_one(&root).unwrap() else { return };
        for blob in &missing.names {
            let bytes = &archive[&blob.name];
            assert_eq!(bytes.len() as u64, blob.len);
            assert_eq!(store.put_new(&blob.name, bytes).unwrap(), Put::Created, "{} is there", blob.name);
        }
        assert!(!missing.names.is_empty(), "something is lacking that can be brought");
    }
    panic!("{session} lacks ever more");
}
