//! A backup that is repeated after a crash ends the one before and stores nothing again that an index lists.

use crate::history::{Run, checked, new_repository};
use keepstone_engine::store::{Fault, FaultStore, MemoryStore};
use keepstone_engine::{BlobStore, snapshots};
use repo_format::{BlobKind, ChunkId, Index, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// The chunks that the index blobs of each session list.
fn listed(store: &MemoryStore) -> BTreeMap<SessionId, BTreeSet<ChunkId>> {
    let repository = crate::world::open(store);
    let mut listed: BTreeMap<SessionId, BTreeSet<ChunkId>> = BTreeMap::new();
    for name in store.names() {
        if let Some(BlobKind::Index { session, .. }) = name.kind() {
            let index = Index::open(repository.keys(), &name, &store.get(&name, None).unwrap()).unwrap();
            listed.entry(session).or_default().extend(index.entries.iter().map(|entry| entry.id));
        }
    }
    listed
}

#[test]
fn what_a_crashed_backup_had_indexed_is_not_stored_again() {
    let mut spared = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::NotApplied] {
        for call in 0.. {
            let store = new_repository();
            let faulty = FaultStore::new(&store, call, fault);
            let first = Run { checkpoints: true, ..Run::of(0) }.run(&faulty);
            if faulty.calls() <= call {
                break;
            }
            let before = listed(&store);
            let again = Run { seed: 200, checkpoints: true, ..Run::of(0) }.run(&store).unwrap();
            let state = checked(&store);
            assert!(state.undecided.is_empty(), "call {call}, {fault:?}: a session is left undecided");
            assert!(state.committed.contains(&again.snapshot));
            let stored_again = listed(&store).remove(&again.snapshot).unwrap_or_default();
            for chunks in before.values() {
                assert!(
                    chunks.is_disjoint(&stored_again),
                    "call {call}, {fault:?}: chunks were stored again"
                );
                spared += u32::from(first.is_err());
            }
            let list = snapshots::list(&crate::world::open(&store), None).unwrap();
            assert_eq!(list.snapshots.len() + list.aborted.len(), decisions(&store));
        }
    }
    assert!(spared > 5, "only {spared} crashed backups had indexed anything");
}

fn decisions(store: &MemoryStore) -> usize {
    store.names().iter().filter(|name| matches!(name.kind(), Some(BlobKind::Decision(_)))).count()
}
