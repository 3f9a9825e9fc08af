//! Tests of planning and of synchronising with a store.

use super::super::tests::{
    KEY, REPOSITORY, assert_has, blob, damage, ids, in_directory, in_memory, index_of, only_file, session,
    writer,
};
use super::*;
use crate::observer::Quiet;
use crate::store::{Fault, FaultStore, MemoryStore, RecordingStore};
use repo_format::{ChunkId, RootKey};
use std::sync::Mutex;
use tempfile::TempDir;

/// Collects events, and cancels at the event with the number `stop_at`.
struct Events {
    seen: Mutex<Vec<Event>>,
    stop_at: usize,
}

impl Events {
    fn new(stop_at: usize) -> Self {
        Self { seen: Mutex::new(Vec::new()), stop_at }
    }

    fn seen(self) -> Vec<Event> {
        self.seen.into_inner().unwrap()
    }
}

impl Observer for Events {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        let mut seen = self.seen.lock().unwrap();
        seen.push(event);
        if seen.len() > self.stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn keys() -> Keys {
    Keys::from_root(&RootKey::new([3; 32]), REPOSITORY, [0; 32])
}

fn part(number: u8) -> Vec<ChunkId> {
    ids(u64::from(number) * 100, u64::from(number) * 100 + 100)
}

/// A store with the indexes of the sessions `numbers`, and the bytes of the index blobs.
fn store_of(numbers: std::ops::Range<u8>) -> (MemoryStore, u64) {
    let store = MemoryStore::new();
    let mut total = 0;
    for number in numbers {
        let sealed = index_of(number, &part(number)).seal(&keys(), &blob(number), [number; 32]);
        total += u64::try_from(sealed.len()).unwrap();
        store.put_new(&blob(number), &sealed).unwrap();
    }
    (store, total)
}

fn quietly(index: &mut LocalIndex, store: &dyn BlobStore) -> SyncReport {
    sync(index, store, &keys(), &Preference::default(), &Quiet).unwrap()
}

#[test]
fn a_first_synchronisation_fetches_everything_and_announces_it() {
    let (store, total) = store_of(0..20);
    let mut index = in_memory();
    let events = Events::new(usize::MAX);
    let report = sync(&mut index, &store, &keys(), &Preference::default(), &events).unwrap();
    assert_eq!(report, SyncReport { fetched: 20, fetched_bytes: total, ..SyncReport::default() });
    let seen = events.seen();
    assert_eq!(seen[0], Event::Phase { phase: Phase::SyncIndex, total });
    let progress: u64 =
        seen[1..].iter().map(|event| if let Event::Progress(bytes) = event { *bytes } else { 0 }).sum();
    assert_eq!(progress, total);
    for number in 0..20 {
        assert_has(&index, &index_of(number, &part(number)));
    }
}

#[test]
fn a_second_synchronisation_lists_and_fetches_what_is_new() {
    let root = TempDir::new().unwrap();
    let (store, _) = store_of(0..5);
    quietly(&mut in_directory(&root), &store);
    let (more, _) = store_of(5..6);
    store.put_new(&blob(5), &more.get(&blob(5), None).unwrap()).unwrap();
    let store = RecordingStore::new(store);
    let mut index = in_directory(&root);
    assert_eq!(quietly(&mut index, &store).fetched, 1);
    assert_eq!((store.requests().list, store.requests().get), (1, 1));
    assert_eq!(index.covered(), (0..6).map(blob).collect());
    assert_eq!(quietly(&mut index, &store), SyncReport::default());
}

#[test]
fn a_damaged_index_blob_is_a_notice() {
    let (store, _) = store_of(0..3);
    let mut bytes = store.get(&blob(1), None).unwrap();
    bytes[200] ^= 1;
    store.overwrite(&blob(1), &bytes);
    let mut index = in_memory();
    let events = Events::new(usize::MAX);
    let report = sync(&mut index, &store, &keys(), &Preference::default(), &events).unwrap();
    assert_eq!((report.fetched, report.skipped), (2, 1));
    assert_eq!(index.covered(), BTreeSet::from([blob(0), blob(2)]));
    let notices = events.seen();
    let names: Vec<&String> = notices
        .iter()
        .filter_map(|event| match event {
            Event::Notice(Notice::IndexSkipped { name, .. }) => Some(name),
            _ => None,
        })
        .collect();
    assert_eq!(names, [&blob(1).to_string()]);
}

#[test]
fn a_failed_listing_fails_and_a_failed_read_is_a_notice() {
    let (store, _) = store_of(0..3);
    let mut index = in_memory();
    let listing = FaultStore::new(store.clone(), 0, Fault::NotApplied);
    let failed = sync(&mut index, &listing, &keys(), &Preference::default(), &Quiet);
    assert!(matches!(failed, Err(EngineError::Store(_))));
    let reading = FaultStore::new(store, 2, Fault::NotApplied);
    let report = quietly(&mut index, &reading);
    assert_eq!((report.fetched, report.skipped), (2, 1));
    assert_eq!(quietly(&mut index, &reading).fetched, 1);
}

#[test]
fn a_synchronisation_can_be_cancelled_at_every_event() {
    let (store, _) = store_of(0..4);
    for stop_at in 0..5 {
        let mut index = in_memory();
        let cancelled = sync(&mut index, &store, &keys(), &Preference::default(), &Events::new(stop_at));
        assert!(matches!(cancelled, Err(EngineError::Cancelled)));
    }
}

#[test]
fn a_table_goes_when_its_index_blobs_have_vanished() {
    let (store, _) = store_of(0..3);
    let mut index = in_memory();
    quietly(&mut index, &store);
    for number in 0..3 {
        store.delete(&blob(number)).unwrap();
    }
    assert_eq!(quietly(&mut index, &store), SyncReport { dropped_tables: 1, ..SyncReport::default() });
    assert_eq!(index.covered(), BTreeSet::new());
    assert!(index.lookup(&part(0)[0]).is_empty());
}

#[test]
fn a_damaged_cache_file_is_synchronised_again() {
    let root = TempDir::new().unwrap();
    let (store, _) = store_of(0..3);
    quietly(&mut in_directory(&root), &store);
    let file = only_file(&root);
    damage(&file, usize::try_from(std::fs::metadata(&file).unwrap().len()).unwrap() - 10);
    let mut index = in_directory(&root);
    for id in ids(0, 300) {
        assert!(index.lookup(&id).iter().all(|location| location.id == id));
    }
    let report = quietly(&mut index, &store);
    assert_eq!((report.dropped_tables, report.fetched), (1, 3));
    for number in 0..3 {
        assert_has(&index, &index_of(number, &part(number)));
    }
}

#[test]
fn the_preferred_blobs_come_first_within_the_budget() {
    let (store, total) = store_of(0..10);
    let mut index = LocalIndex::open(None, REPOSITORY, KEY, total / 2).unwrap();
    let preference = Preference { sessions: &[session(7), session(2)], writers: &[] };
    let report = sync(&mut index, &store, &keys(), &preference, &Quiet).unwrap();
    let covered = index.covered();
    assert_eq!(covered, BTreeSet::from([blob(7), blob(2), blob(0)]));
    assert_eq!((report.fetched, report.left_out), (3, 7));
}

fn info(number: u8, len: u64) -> BlobInfo {
    BlobInfo { name: blob(number), len, modified: 0, tier: None }
}

#[test]
fn the_plan_drops_a_useless_table_for_a_preferred_blob_only() {
    let listed = [info(1, 70), info(2, 20), info(3, 30)];
    let (first, second) = ([blob(1)], [blob(2)]);
    let cached = [Cached { covered: &first, len: 70 }, Cached { covered: &second, len: 20 }];
    let plan = plan_sync(&listed, &cached, &Preference::default(), 100);
    assert_eq!(plan, SyncPlan { drop: vec![], fetch: vec![], left_out: 1 });
    let preferred = Preference { sessions: &[session(3)], writers: &[] };
    let plan = plan_sync(&listed, &cached, &preferred, 100);
    assert_eq!(plan, SyncPlan { drop: vec![1], fetch: vec![info(3, 30)], left_out: 0 });
    let all = Preference { sessions: &[session(3)], writers: &[writer()] };
    let plan = plan_sync(&listed, &cached, &all, 100);
    assert_eq!(plan, SyncPlan { drop: vec![], fetch: vec![], left_out: 1 });
}

#[test]
fn the_plan_keeps_to_a_smaller_budget_than_before() {
    let listed = [info(1, 70), info(2, 20)];
    let (first, second) = ([blob(1)], [blob(2)]);
    let cached = [Cached { covered: &first, len: 70 }, Cached { covered: &second, len: 20 }];
    let preference = Preference { sessions: &[session(2)], writers: &[] };
    let plan = plan_sync(&listed, &cached, &preference, 50);
    assert_eq!(plan, SyncPlan { drop: vec![0], fetch: vec![], left_out: 1 });
    let plan = plan_sync(&listed, &cached, &preference, 0);
    assert_eq!(plan, SyncPlan { drop: vec![0, 1], fetch: vec![], left_out: 2 });
}

#[test]
fn the_plan_leaves_a_table_that_is_a_little_over_the_budget() {
    let covered = [blob(1)];
    let cached = [Cached { covered: &covered, len: 105 }];
    assert_eq!(plan_sync(&[info(1, 99)], &cached, &Preference::default(), 100), SyncPlan::default());
}

#[test]
fn the_plan_makes_a_table_anew_when_most_of_it_has_vanished() {
    let listed = [info(1, 10), info(4, 10), info(5, 10)];
    let (mostly_gone, half_gone) = ([blob(1), blob(2), blob(3)], [blob(4), blob(6)]);
    let cached = [Cached { covered: &mostly_gone, len: 30 }, Cached { covered: &half_gone, len: 20 }];
    let plan = plan_sync(&listed, &cached, &Preference::default(), 1000);
    assert_eq!(plan, SyncPlan { drop: vec![0], fetch: vec![info(1, 10), info(5, 10)], left_out: 0 });
}

#[test]
fn the_plan_ignores_names_that_are_no_index() {
    let name = BlobName::parse("i/host-a/notes").unwrap();
    let plan =
        plan_sync(&[BlobInfo { name, len: 5, modified: 0, tier: None }], &[], &Preference::default(), 1000);
    assert_eq!(plan, SyncPlan::default());
}

#[test]
fn batches_have_all_blobs_in_their_order() {
    let blobs: Vec<BlobInfo> = (0..40).map(|number| info(number, u64::from(number) << 20)).collect();
    let batches: Vec<&[BlobInfo]> = batches(&blobs).collect();
    assert_eq!(batches.concat(), blobs);
    for batch in batches {
        let len: u64 = batch.iter().map(|blob| blob.len).sum();
        assert!(len <= BATCH_LEN || batch.len() == 1);
    }
}
