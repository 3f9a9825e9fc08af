//! The order of W1 to W7, as the store sees it.

use crate::maps::Map;
use crate::pruner::{End, Repack, condemn, forget, publish_result, seal_generation};
use crate::watched::{Answer, Call, Moment, Verb, WatchedStore};
use crate::world::{latest, noise, open};
use crate::{Run, VM, assert_restores, day_one, next_day, snapshot_of};
use keepstone_engine::observer::Quiet;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{MemoryStore, Put};
use keepstone_engine::{BlobStore, EngineError, Extent, Repository};
use repo_format::{BlobName, DecisionName, Index, SessionId, decisions_prefix, tombstones_prefix};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Calls of one kind: where they begin and end in a log.
struct Calls {
    begin: Vec<usize>,
    end: Vec<usize>,
}

impl Calls {
    fn of(log: &[Moment], wanted: impl Fn(&Call) -> bool) -> Self {
        let at = |begins: bool| {
            let moments = log.iter().enumerate().filter(|(_, moment)| match moment {
                Moment::Begins(call) => begins && wanted(call),
                Moment::Ended(call) => !begins && wanted(call),
            });
            moments.map(|(at, _)| at).collect()
        };
        Self { begin: at(true), end: at(false) }
    }

    /// All of them have ended before the first one of `later` begins.
    fn end_before(&self, later: &Self) -> bool {
        let last = self.end.last().expect("there are such calls");
        last < later.begin.first().expect("there are later calls")
    }
}

fn verb(verb: Verb, prefix: &str) -> impl Fn(&Call) -> bool + '_ {
    move |call| call.is(verb, prefix)
}

/// The second day of a disk on which a part changed, in a repository where a pruner has been.
fn second_day() -> (MemoryStore, MemoryDisk) {
    let (store, mut disk) = day_one();
    disk.bytes[400_000..900_000].copy_from_slice(&noise(5, 500_000));
    disk.changes = disk.changes.map(|(since, _)| (since, vec![Extent { start: 400_000, length: 500_000 }]));
    let repository = open(&store);
    let parent = latest(&repository, VM);
    let packs = Map::of(&repository, &parent).data_packs();
    condemn(&repository, 0, &packs[..1]);
    publish_result(&repository, 0, &packs[..1]);
    seal_generation(&repository, 0);
    condemn(&repository, 1, &packs[1..2]);
    let applies_to = &[parent.session()];
    let from = &packs[2..3];
    Repack { session: 0xa1, from, applies_to, one_in: 1, end: End::Commit }.run(&repository);
    forget(&repository, &DecisionName { session: SessionId([3; 16]), ..parent.name });
    (store, disk)
}

#[test]
fn each_step_of_a_backup_begins_when_the_one_before_has_ended() {
    let (store, disk) = second_day();
    let watched = WatchedStore::new(&store, |_| Answer::Given);
    let repository = open(&watched);
    watched.take_log();
    let report = Run::number(2).of(&repository, &disk);
    let log = watched.take_log();
    let calls = |wanted: &dyn Fn(&Call) -> bool| Calls::of(&log, wanted);

    let vm = repository.keys().vm_tag(VM);
    let (decisions, tombstones) = (decisions_prefix(vm), tombstones_prefix(vm));
    let intent = calls(&verb(Verb::Put, "s/"));
    assert_eq!(intent.begin.len(), 1);
    assert_eq!(
        calls(&|call| call.verb == Verb::Put).begin[0],
        intent.begin[0],
        "the intent is the first create"
    );

    // What was listed before the intent does not count.
    let intent_end = intent.end[0];
    let log = &log[intent_end + 1..];
    let calls = |wanted: &dyn Fn(&Call) -> bool| Calls::of(log, wanted);
    let list_gc = calls(&verb(Verb::List, "gc/"));
    let read_gc = calls(&verb(Verb::Get, "gc/"));
    let list_records = calls(&verb(Verb::List, "k/"));
    let read_records = calls(&|call| call.is(Verb::Get, "k/"));
    let repack = decisions_prefix(repository.keys().vm_tag(""));
    let read_repack = calls(&verb(Verb::Get, &repack));
    let list_decisions = calls(&|call| call.verb == Verb::List && call.object == decisions);
    let list_tombstones = calls(&|call| call.verb == Verb::List && call.object == tombstones);
    let read_parent = calls(&verb(Verb::Get, &decisions));
    assert_eq!(list_gc.begin[0], 0, "what is condemned is listed first");
    assert!(list_gc.end_before(&read_gc));
    assert!(read_gc.end_before(&list_records));
    assert!(list_records.end_before(&read_records));
    assert!(list_records.end_before(&read_repack));
    for w2 in [&read_gc, &read_records, &read_repack] {
        assert!(w2.end_before(&list_decisions) && w2.end_before(&list_tombstones));
    }
    assert!(list_decisions.end_before(&read_parent));

    let packs = calls(&|call| call.is(Verb::Put, "d/") || call.is(Verb::Put, "m/"));
    assert!(list_tombstones.end_before(&packs));
    assert_eq!(packs.begin.len(), report.packs as usize);
    let index = calls(&verb(Verb::Put, "i/"));
    let data = calls(&verb(Verb::Put, "d/"));
    assert!(data.end_before(&index));
    let own_data = format!("d/host-a/{}-", report.snapshot);
    let own_map = format!("m/host-a/{}-", report.snapshot);
    let decision = calls(&verb(Verb::Put, "r/"));
    for own in [own_data, own_map] {
        let listed = calls(&|call| call.verb == Verb::List && call.object == own);
        assert!(packs.end_before(&listed) && index.end_before(&listed));
        assert!(listed.end_before(&decision));
    }
    assert_eq!(decision.begin, [log.len() - 2], "the decision is the last call");
    assert!(calls(&|call| call.verb == Verb::Delete).begin.is_empty());
}

#[test]
fn an_index_lists_only_packs_that_were_in_the_store_before() {
    let (store, disk) = second_day();
    let watched = WatchedStore::new(&store, |call| {
        if call.is(Verb::Put, "i/") {
            // Nothing but the index itself can be under way: it is the last one of a short run.
            assert!(store.names().iter().any(|name| name.as_str().starts_with("d/host-a/")));
        }
        Answer::Given
    });
    let repository = open(&watched);
    let report = Run::number(2).of(&repository, &disk);
    let log = watched.take_log();
    let prefix = format!("i/host-a/{}-", report.snapshot);
    for name in store.names().iter().filter(|name| name.as_str().starts_with(&prefix)) {
        let bytes = store.get(name, None).unwrap();
        let index = Index::open(repository.keys(), name, &bytes).unwrap();
        let put = Calls::of(&log, verb(Verb::Put, name.as_str()));
        for pack in index.packs {
            assert!(Calls::of(&log, verb(Verb::Put, pack.name.blob().as_str())).end_before(&put));
        }
    }
}

#[test]
fn packs_and_indexes_are_numbered_from_zero() {
    let (store, disk) = second_day();
    let repository = open(&store);
    for run in [2, 3] {
        let disk = MemoryDisk { bytes: noise(run.into(), 200_000), ..disk.clone() };
        let report = Run { vm: "other", ..Run::number(run) }.of(&repository, &disk);
        for (prefix, several) in [("d/", true), ("m/", false), ("i/", false)] {
            let prefix = format!("{prefix}host-a/{}-", report.snapshot);
            let names = store.names();
            let found: Vec<&str> =
                names.iter().filter_map(|name| name.as_str().strip_prefix(prefix.as_str())).collect();
            let numbers: Vec<String> = (0..found.len()).map(|number| format!("{number:08x}")).collect();
            assert_eq!(found, numbers, "{prefix}");
            assert!(found.len() > usize::from(several), "{prefix} has {found:?}");
        }
    }
}

#[test]
fn an_intent_whose_answer_is_lost_is_settled_before_the_backup_goes_on() {
    for answer in [Answer::Lost, Answer::Refused] {
        let (store, disk) = day_one();
        let first = AtomicBool::new(true);
        let watched = WatchedStore::new(&store, |call| {
            let fails = call.is(Verb::Put, "s/") && first.swap(false, SeqCst);
            if fails { answer } else { Answer::Given }
        });
        let repository = open(&watched);
        watched.take_log();
        let report = Run::number(2).of(&repository, &disk);
        let log = watched.take_log();
        let intents = Calls::of(&log, verb(Verb::Put, "s/"));
        assert_eq!(intents.begin[1], intents.end[0] + 1, "nothing comes between the two attempts");
        assert_eq!(intents.begin.len(), 2);
        assert_restores(&repository, &snapshot_of(&repository, &report), &disk);
    }
}

#[test]
fn nothing_goes_on_when_the_intent_cannot_be_confirmed() {
    for answer in [Answer::Lost, Answer::Refused] {
        let (store, disk) = day_one();
        let watched =
            WatchedStore::new(&store, |call| if call.is(Verb::Put, "s/") { answer } else { Answer::Given });
        let repository = open(&watched);
        watched.take_log();
        let result = Run::number(2).observed(&repository, &disk, &Quiet);
        assert!(matches!(result, Err(EngineError::Store(_))), "{result:?}");
        let log = watched.take_log();
        let last = log.last().expect("there were calls");
        assert!(matches!(last, Moment::Ended(call) if call.is(Verb::Put, "s/")), "{last:?}");
    }
}

/// Backs up what did not change and lets something happen just before the first call that is like `call`, once the
/// intent is being created.
fn with_incident(
    store: &MemoryStore,
    disk: &MemoryDisk,
    at: impl Fn(&Call) -> bool + Send + Sync,
    incident: impl Fn() + Send + Sync,
) -> keepstone_engine::snapshots::Snapshot {
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let watched = WatchedStore::new(store, |call| {
        begun.fetch_or(call.is(Verb::Put, "s/"), SeqCst);
        if begun.load(SeqCst) && at(call) && !done.swap(true, SeqCst) {
            incident();
        }
        Answer::Given
    });
    let repository = open(&watched);
    let report = Run::number(3).of(&repository, disk);
    assert!(done.load(SeqCst), "there was no such call");
    snapshot_of(&repository, &report)
}

#[test]
fn a_pack_that_is_condemned_just_before_the_intent_is_seen() {
    let (store, disk) = day_one();
    let repository = open(&store);
    let pack = Map::of(&repository, &latest(&repository, VM)).data_packs()[0].clone();
    let condemn_it = || condemn(&repository, 0, std::slice::from_ref(&pack));
    let snapshot = with_incident(&store, &disk, verb(Verb::Put, "s/"), condemn_it);
    assert!(!Map::of(&repository, &snapshot).packs.contains(&pack));
}

#[test]
fn a_result_that_a_listing_did_not_show_yet_is_read_when_its_seal_is_there() {
    // The listing of `gc/` is made of pages: the first is read before the result is there, the last after the seal.
    let (store, disk) = day_one();
    let repository = open(&store);
    let pack = Map::of(&repository, &latest(&repository, VM)).data_packs()[0].clone();
    condemn(&repository, 0, std::slice::from_ref(&pack));
    seal_generation(&repository, 0);
    let finish = || publish_result(&repository, 0, std::slice::from_ref(&pack));
    let snapshot = with_incident(&store, &disk, verb(Verb::Get, "gc/"), finish);
    assert!(!Map::of(&repository, &snapshot).packs.contains(&pack));
}

#[test]
fn the_parent_is_chosen_after_the_records_were_listed() {
    let (store, disk) = day_one();
    let repository = open(&store);
    let first = latest(&repository, VM);
    // By another writer: one's own session that has no decision yet would be aborted.
    Run { writer: "host-b", ..Run::number(2) }.of(&repository, &disk);
    let second = latest(&repository, VM);
    let disk = next_day(&disk, 3);

    // The second snapshot is committed meanwhile.
    let name: BlobName = second.name.blob();
    let bytes = store.get(&name, None).unwrap();
    let uncommitted = store.copied();
    uncommitted.delete(&name).unwrap();
    let commit = || assert_eq!(uncommitted.put_new(&name, &bytes).unwrap(), Put::Created);
    let disk_of_first = MemoryDisk { changes: None, ..disk.clone() };
    let snapshot = with_incident(&uncommitted, &disk_of_first, verb(Verb::List, "k/"), commit);
    assert_eq!(snapshot.commit.parent, Some(second.name.clone()));

    // The second snapshot is forgotten meanwhile.
    let forget_it = |repository: &Repository<'_>| forget(repository, &second.name);
    let snapshot = with_incident(&store, &disk, verb(Verb::List, "k/"), || forget_it(&repository));
    assert_eq!(snapshot.commit.parent, Some(first.name));
}
