//! A source that packs again what it has packed again, between the steps of a run and between runs.

use crate::place::{DELETING, Watched, copy, copy_taking, snapshots_at, whole};
use crate::scene::{ALL_UNUSED, Scene};
use crate::world::{noise, open, undamaged};
use keepstone_engine::BlobStore;
use keepstone_engine::replicate::{ReplicateJob, Taking, There};
use keepstone_engine::store::MemoryStore;
use repo_format::{BlobName, RepackRecord, SessionId};
use std::sync::Mutex;

/// A source with a copy of what it had before anything was packed again, and then once.
struct Twice {
    source: Scene,
    there: MemoryStore,
    second: SessionId,
}

impl Twice {
    fn new() -> Self {
        let mut source = Scene::new();
        let mut disk = noise(1, 300_000);
        let first = source.back_up("vm", &disk);
        disk[..100_000].copy_from_slice(&noise(2, 100_000));
        let second = source.back_up("vm", &disk);
        disk[100_000..200_000].copy_from_slice(&noise(3, 100_000));
        source.back_up("vm", &disk);
        source.back_up("other", &noise(4, 50_000));
        let there = MemoryStore::new();
        copy(&source.store, &there, &DELETING).unwrap();
        source.forget(first);
        assert!(source.prune_as(&ALL_UNUSED).unwrap().repacked.is_some());
        Self { source, there, second }
    }

    fn copied(&self) -> Self {
        Self { source: self.source.copied(), there: self.there.copied(), second: self.second }
    }
}

/// Packs again what was packed again, and deletes it.
fn pack_again(source: &mut Scene, second: SessionId) {
    let packed = |source: &Scene| -> Vec<BlobName> {
        let new = |name: BlobName| {
            let bytes = source.store.get(&name, None).unwrap();
            let record = RepackRecord::open(source.repository().keys(), &name, &bytes).unwrap();
            let leads = record.leads.iter().flat_map(|lead| &lead.new);
            leads.map(|number| record.packs[*number as usize].name.blob()).collect::<Vec<_>>()
        };
        source.names("k/").into_iter().flat_map(new).collect()
    };
    let before = packed(source);
    source.forget(second);
    assert!(source.prune_as(&ALL_UNUSED).unwrap().repacked.is_some());
    assert!(
        before.iter().any(|name| source.store.get(name, None).is_err()),
        "what was packed is still there"
    );
}

#[test]
fn a_source_that_moves_on_what_it_moved_leaves_a_whole_copy_at_every_call() {
    let twice = Twice::new();
    let holds = twice.source.holds.clone();
    let mut calls = 0;
    for call in (0..).step_by(2) {
        let Twice { source, there, second } = twice.copied();
        let store = source.store.clone();
        let source = Mutex::new(source);
        let watched = Watched::doing(store, call, || pack_again(&mut source.lock().unwrap(), second));
        let report = copy(&watched, &there, &DELETING).unwrap();
        let is_reached = watched.was_reached();
        drop(watched);
        assert!(report.failed.is_empty(), "at call {call}: {:?}", report.failed);
        whole(&there, &holds);
        let source = source.into_inner().unwrap();
        copy(&source.store, &there, &DELETING).unwrap();
        whole(&there, &holds);
        assert_eq!(snapshots_at(&there), source.holds.keys().copied().collect::<Vec<_>>(), "at call {call}");
        undamaged(&open(&there));
        if is_reached {
            let packs = |store: &MemoryStore| -> Vec<BlobName> {
                let is_pack = |name: &BlobName| matches!(name.kind(), Some(repo_format::BlobKind::Pack(_)));
                store.names().into_iter().filter(is_pack).collect()
            };
            assert_eq!(packs(&there), packs(&source.store), "at call {call}");
        } else {
            break;
        }
        calls += 1;
    }
    assert!(calls > 5, "{calls} calls");
}

#[test]
fn a_pack_stays_where_a_record_leads_from_it_to_what_has_not_come() {
    let Twice { mut source, there, second } = Twice::new();
    // The record of the first time, and nothing that it leads to.
    for name in source.names("k/") {
        let bytes = source.store.get(&name, None).unwrap();
        let record = RepackRecord::open(source.repository().keys(), &name, &bytes).unwrap();
        there.put_new(&name, &bytes).unwrap();
        let decision = record.decision.blob();
        there.put_new(&decision, &source.store.get(&decision, None).unwrap()).unwrap();
    }
    pack_again(&mut source, second);
    let vms = ["other".to_owned()];
    let job = ReplicateJob { vms: &vms, there: There::Checked, ..DELETING };
    copy_taking(Taking::AnyCopy, &source.store, &there, &job).unwrap();
    whole(&there, &source.holds);
    assert_eq!(snapshots_at(&there), source.holds.keys().copied().collect::<Vec<_>>());
    copy(&source.store, &there, &DELETING).unwrap();
    whole(&there, &source.holds);
    undamaged(&open(&there));
}
