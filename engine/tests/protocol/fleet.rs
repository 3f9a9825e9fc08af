//! Finding snapshots among those of many VMs and days: only what may be meant is read.

use crate::world::{create, noise, open, small_geometry, writer};
use keepstone_engine::EngineError;
use keepstone_engine::snapshots::{Query, Selector, each, find, list, matching};
use keepstone_engine::store::{BlobStore, MemoryStore, RecordingStore, Requests};
use repo_format::{Commit, Decision, DecisionName, Disk, DiskMode, SessionId, Totals};

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;
const VMS: u64 = 30;
const DAYS: u32 = 40;
const START: u64 = 1_700_000_000_000;

/// When a VM was backed up on a day: in the night, by one of two hosts whose clocks are some hours apart, and not at all for
/// a while.
fn time(vm: u64, day: u32) -> u64 {
    let pause = if day >= 25 { 9 * DAY } else { 0 };
    let wrong_clock = if (vm + u64::from(day)).is_multiple_of(3) { 0 } else { 22 * HOUR };
    START + u64::from(day) * DAY + vm * 1000 + wrong_clock + pause
}

fn session(vm: u64, day: u32) -> SessionId {
    SessionId(noise(vm << 32 | u64::from(day), 16).try_into().unwrap())
}

fn vm(number: u64) -> String {
    format!("vm{number}")
}

/// Snapshots of disks that are one hole.
fn fleet() -> MemoryStore {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    for number in 0..VMS {
        let mut parent = None;
        for day in 0..DAYS {
            let tag = repository.keys().vm_tag(&vm(number));
            let (session, writer) = (session(number, day), writer());
            let name = DecisionName { vm: tag, writer, seq: day, session };
            let commit = Commit {
                session,
                time: time(number, day),
                program: "test".to_owned(),
                vm: vm(number),
                parent: parent.replace(name.clone()),
                via: Vec::new(),
                tags: Vec::new(),
                properties: Vec::new(),
                disks: vec![Disk {
                    key: "disk0".to_owned(),
                    size: 1 << 20,
                    change_id: None,
                    mode: DiskMode::Full,
                    changed_bytes: 0,
                    read_bytes: 0,
                    map: None,
                }],
                totals: Totals::default(),
            };
            let sealed = Decision::Commit(Box::new(commit)).seal(repository.keys(), &name, [day as u8; 32]);
            store.put_new(&name.blob(), &sealed).unwrap();
        }
    }
    store
}

/// What something asks of the store of a repository that is open.
fn requests<T>(
    store: &MemoryStore,
    ask: impl FnOnce(&keepstone_engine::Repository<'_>) -> T,
) -> (T, Requests) {
    let store = RecordingStore::new(store);
    let repository = open(&store);
    let before = store.requests();
    let answer = ask(&repository);
    (answer, store.requests().since(&before))
}

#[test]
fn the_newest_snapshot_of_a_vm_takes_one_read() {
    let store = fleet();
    let (found, requests) =
        requests(&store, |repository| find(repository, &Selector::Latest(vm(7))).unwrap());
    assert_eq!(found.session(), session(7, DAYS - 1));
    // Its names, and its tombstones.
    assert_eq!((requests.get, requests.list), (1, 2));
}

#[test]
fn a_time_takes_the_snapshots_back_to_it() {
    let store = fleet();
    let wanted = time(7, DAYS - 5) + 1000;
    let selector = Selector::AtTime(vm(7), wanted);
    let (found, requests) = requests(&store, |repository| find(repository, &selector).unwrap());
    assert!(found.commit.time <= wanted);
    assert!(requests.get <= 16, "{requests:?}");
    assert_eq!(requests.list, 2);
}

#[test]
fn whatever_the_time_the_last_snapshot_that_is_not_later_is_found() {
    let store = fleet();
    let repository = open(&store);
    let all = list(&repository, Some(&vm(7))).unwrap().snapshots;
    assert_eq!(all.len(), DAYS as usize);
    let end = START + u64::from(DAYS + 15) * DAY;
    for wanted in (START - DAY..end).step_by(7 * HOUR as usize) {
        let expected = all.iter().rfind(|snapshot| snapshot.commit.time <= wanted);
        match find(&repository, &Selector::AtTime(vm(7), wanted)) {
            Ok(found) => assert_eq!(Some(&found), expected, "at {wanted}"),
            Err(EngineError::NoSuchSnapshot { .. }) => assert_eq!(expected, None, "at {wanted}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_newest_snapshot_that_cannot_be_read_is_not_replaced_by_an_older_one() {
    let store = fleet();
    let repository = open(&store);
    let newest = find(&repository, &Selector::Latest(vm(7))).unwrap().name.blob();
    store.delete(&newest).unwrap();
    store.put_new(&newest, b"no decision").unwrap();
    assert!(
        matches!(find(&repository, &Selector::Latest(vm(7))), Err(EngineError::Damaged { name, .. }) if name == newest)
    );
    let query = Query { vm: Some(&vm(7)), newest: Some(1), since: None };
    let found = matching(&repository, &query).unwrap();
    assert_eq!(found.snapshots[0].session(), session(7, DAYS - 2));
    assert_eq!(found.unreadable.len(), 1);
}

#[test]
fn the_newest_of_each_vm_are_all_that_is_read_for_them() {
    let store = fleet();
    for newest in [1, 3] {
        let query = Query { vm: None, newest: Some(newest), since: None };
        let (found, requests) =
            requests(&store, |repository| matching(repository, &query).unwrap().snapshots);
        assert_eq!((found.len(), requests.get), (VMS as usize * newest, VMS * newest as u64));
        assert!(found.iter().all(|snapshot| snapshot.name.seq >= DAYS - newest as u32));
        assert!(found.is_sorted_by_key(|snapshot| (snapshot.commit.time, snapshot.session())));
    }
}

#[test]
fn what_is_older_than_a_time_is_not_listed_and_mostly_not_read() {
    let store = fleet();
    let all = list(&open(&store), None).unwrap().snapshots;
    for days_ago in [3, 12, 60] {
        let since = time(0, DAYS - 1) - days_ago * DAY;
        let query = Query { vm: None, newest: None, since: Some(since) };
        let (found, requests) =
            requests(&store, |repository| matching(repository, &query).unwrap().snapshots);
        let expected: Vec<_> = all.iter().filter(|snapshot| snapshot.commit.time >= since).cloned().collect();
        assert_eq!(found, expected, "{days_ago} days");
        // Some more of each VM, in one go.
        assert!(requests.get <= found.len() as u64 + VMS * 18, "{requests:?}");
    }
}

#[test]
fn every_snapshot_is_handed_over_once() {
    let store = fleet();
    let mut sessions = Vec::new();
    let rest =
        each(&open(&store), &Query::default(), &mut |snapshot| sessions.push(snapshot.session())).unwrap();
    assert!(rest.snapshots.is_empty() && rest.unreadable.is_empty());
    sessions.sort_unstable();
    let mut expected: Vec<SessionId> =
        (0..VMS).flat_map(|vm| (0..DAYS).map(move |day| session(vm, day))).collect();
    expected.sort_unstable();
    assert_eq!(sessions, expected);
}
