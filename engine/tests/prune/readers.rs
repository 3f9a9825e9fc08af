//! Reading beside a prune: a verification, a comparison and the statistics, at each of whose calls somebody forgets and
//! prunes.

use crate::scene::{ALL_UNUSED, Scene};
use crate::world::{noise, open, restored};
use keepstone_engine::diff::{diff, diff_of_snapshots};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::{Selector, Snapshot, find};
use keepstone_engine::stats::{StatsReport, VmStatsReport, stats, stats_of};
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use keepstone_engine::verify::{
    Affected, Finding, FindingKind, ReadData, VerifyJob, VerifyReport, Which, verify,
};
use keepstone_engine::{BlobStore, EngineError, Repository};
use repo_format::{BlobName, SessionId};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names that a listing gives at a time, so that much happens between its pages.
const PAGE: usize = 4;
/// A store in which somebody else does something before the call with some number.
struct Beside<'a> {
    inner: MemoryStore,
    calls: AtomicUsize,
    at: usize,
    event: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

impl Beside<'_> {
    fn count(&self) {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            // Held until it is over, so that it is one moment to whoever reads in several threads.
            let mut event = self.event.lock().unwrap();
            if let Some(event) = event.take() {
                event();
            }
        }
    }
}

impl BlobStore for Beside<'_> {
    fn put_new(&self, name: &BlobName, _: &[u8]) -> Result<Put, StoreError> {
        panic!("a reader creates {name}")
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.count();
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        self.count();
        self.inner.list(prefix, from, limit.min(PAGE))
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        panic!("a reader deletes {name}")
    }
}

/// Two VMs with days in common, of which one snapshot was forgotten and pruned before.
struct History {
    scene: Scene,
    /// The snapshots of the first VM, the oldest first.
    days: Vec<SessionId>,
    other: SessionId,
}

impl History {
    fn new() -> Self {
        let mut scene = Scene::new();
        let mut disk = noise(1, 200_000);
        let mut days = Vec::new();
        for day in 0..4u8 {
            for place in 0..3 {
                let at = place * 60_000 + usize::from(day) * 9_000;
                disk[at..at + 8_000].copy_from_slice(&noise(u64::from(day) * 10 + place as u64 + 50, 8_000));
            }
            days.push(scene.back_up("vm", &disk));
        }
        let other = scene.back_up("other", &[disk.as_slice(), &noise(7, 50_000)].concat());
        scene.forget(days.remove(0));
        scene.prune();
        Self { scene, days, other }
    }

    fn copied(&self) -> Scene {
        self.scene.copied()
    }

    fn snapshot(&self, session: SessionId) -> Snapshot {
        find(&self.scene.repository(), &Selector::Id(session.to_string())).unwrap()
    }
}

/// Reads again and again, while at another call each time some snapshots are forgotten and a prune packs again and deletes
/// all that it can. Checks each result, with whether anything happened before it was there.
fn beside_a_prune<T>(
    history: &History,
    forgotten: &[SessionId],
    read: &dyn Fn(&Repository<'_>) -> T,
    check: &dyn Fn(T, bool),
) {
    for at in 0.. {
        let scene = Mutex::new(history.copied());
        let store = Beside {
            inner: scene.lock().unwrap().store.clone(),
            calls: AtomicUsize::new(usize::MAX / 2),
            at,
            event: Mutex::new(Some(Box::new(|| {
                let mut scene = scene.lock().unwrap();
                for session in forgotten {
                    scene.forget(*session);
                }
                let report = scene.prune_as(&ALL_UNUSED).unwrap();
                assert!(report.sealed && report.deleted.packs > 0 && report.repacked.is_some(), "{report:?}");
            }))),
        };
        let repository = open(&store);
        // Opening is not counted.
        store.calls.store(0, Ordering::SeqCst);
        let result = read(&repository);
        let is_over = store.calls.load(Ordering::SeqCst) <= at;
        check(result, !is_over);
        if is_over {
            assert!(at > 3, "a reading takes more than {at} calls");
            return;
        }
    }
}

fn verified(repository: &Repository<'_>, snapshots: &[Snapshot]) -> VerifyReport {
    let everything = VerifyJob::everything(ReadData::Everything, crate::world::NOW);
    let which = match snapshots {
        [] => Which::Everything,
        these => Which::These(these.to_vec()),
    };
    verify(repository, &VerifyJob { which, ..everything }, &Quiet).unwrap()
}

/// What is told of a snapshot that was forgotten meanwhile.
fn forgotten_meanwhile(snapshot: &Snapshot) -> (FindingKind, String, Vec<Affected>) {
    let affected = Affected {
        snapshot: snapshot.session().to_string(),
        vm: snapshot.commit.vm.clone(),
        disk: String::new(),
        ranges: Vec::new(),
    };
    (FindingKind::ForgottenMeanwhile, snapshot.name.blob().to_string(), vec![affected])
}

fn told(finding: &Finding) -> (FindingKind, String, Vec<Affected>) {
    (finding.kind, finding.blob.clone(), finding.affected.clone())
}

/// Verifies beside a prune, and returns how many times snapshots were told of as forgotten.
fn verifies(history: &History, forgotten: &[SessionId], of: &[Snapshot]) -> usize {
    let expected: Vec<_> =
        forgotten.iter().map(|session| forgotten_meanwhile(&history.snapshot(*session))).collect();
    let times = AtomicUsize::new(0);
    beside_a_prune(history, forgotten, &|repository| verified(repository, of), &|report, _| {
        assert!(!report.has_damage() && !report.needs_attention(), "{:#?}", report.findings);
        for finding in &report.findings {
            assert!(expected.contains(&told(finding)), "{finding:#?}");
        }
        assert_eq!(report.has_forgotten(), !report.findings.is_empty());
        assert_eq!(report.verified.damaged_bytes, 0);
        times.fetch_add(usize::from(report.has_forgotten()), Ordering::Relaxed);
    });
    times.into_inner()
}

#[test]
fn a_verification_of_everything_tells_of_what_was_forgotten_meanwhile_and_finds_no_damage() {
    let history = History::new();
    // One that the next builds on, and the newest, whose data another VM shares.
    assert!(verifies(&history, &[history.days[0], history.days[2]], &[]) > 0);
}

#[test]
fn a_verification_of_one_snapshot_beside_a_prune_finds_it_whole_or_forgotten() {
    let history = History::new();
    let [first, second] = [0, 1].map(|day| history.snapshot(history.days[day]));
    assert!(verifies(&history, &[first.session()], std::slice::from_ref(&first)) > 0);
    assert_eq!(verifies(&history, &[first.session()], &[second]), 0);
}

#[test]
fn what_is_missing_of_a_snapshot_that_stays_is_damage_beside_a_prune_too() {
    let history = History::new();
    let stays = history.snapshot(history.days[1]);
    let disk = stays.disk(None).unwrap();
    let root = disk.map.as_ref().unwrap().pack.name.blob();
    history.scene.store.delete(&root).unwrap();
    let report = verified(&history.scene.repository(), &[]);
    let missing = |report: &VerifyReport| {
        let is_missing = |finding: &&Finding| finding.kind == FindingKind::MissingPack;
        report.findings.iter().filter(is_missing).map(told).collect::<Vec<_>>()
    };
    let expected = missing(&report);
    assert!(report.has_damage() && !expected.is_empty());
    // Somebody forgets another one, and nothing is pruned: that would be refused.
    let calls = AtomicUsize::new(0);
    for at in 0.. {
        let scene = Mutex::new(history.copied());
        let store = Beside {
            inner: scene.lock().unwrap().store.clone(),
            calls: AtomicUsize::new(usize::MAX / 2),
            at,
            event: Mutex::new(Some(Box::new(|| scene.lock().unwrap().forget(history.days[0])))),
        };
        let repository = open(&store);
        store.calls.store(0, Ordering::SeqCst);
        let report = verified(&repository, &[]);
        assert_eq!(missing(&report), expected);
        if store.calls.into_inner() <= at {
            break;
        }
        calls.fetch_add(1, Ordering::Relaxed);
    }
    assert!(calls.into_inner() > 10);
}

#[test]
fn a_comparison_beside_a_prune_is_right_or_says_which_snapshot_was_forgotten() {
    let history = History::new();
    let [a, b] = [0, 1].map(|day| history.snapshot(history.days[day]));
    let disks = [&a, &b].map(|snapshot| snapshot.disk(None).unwrap());
    let expected = diff(&history.scene.repository(), disks[0], disks[1]).unwrap();
    let compare = |repository: &Repository<'_>| {
        diff_of_snapshots(repository, [a.session(), b.session()], disks[0], disks[1])
    };
    for (forgotten, may_fail) in [(&a, true), (&b, true), (&history.snapshot(history.days[2]), false)] {
        let failures = AtomicUsize::new(0);
        beside_a_prune(&history, &[forgotten.session()], &compare, &|result, _| match result {
            Ok(areas) => assert_eq!(areas, expected),
            Err(EngineError::ForgottenMeanwhile { snapshot }) => {
                assert_eq!(snapshot, forgotten.session());
                failures.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error:?}"),
        });
        assert_eq!(failures.into_inner() > 0, may_fail);
    }
}

#[test]
fn the_statistics_leave_out_and_tell_of_what_was_forgotten_while_they_counted() {
    let history = History::new();
    let forgotten = [history.days[0], history.days[2]];
    let left_out = AtomicUsize::new(0);
    beside_a_prune(&history, &forgotten, &|repository| stats(repository).unwrap(), &|report, _| {
        let StatsReport { snapshots, vms, missing_packs, unreadable, forgotten_meanwhile, .. } = report;
        assert_eq!((vms, missing_packs, unreadable), (2, 0, 0));
        // What had been forgotten when it was listed is in no number.
        assert!(forgotten_meanwhile.is_subset(&BTreeSet::from(forgotten)));
        if forgotten_meanwhile.is_empty() {
            assert!((2..=4).contains(&snapshots), "{snapshots}");
        } else {
            assert_eq!(snapshots, 2);
            left_out.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(left_out.into_inner() > 0);
}

#[test]
fn the_statistics_of_one_vm_say_so_if_all_of_it_was_forgotten_meanwhile() {
    let history = History::new();
    let of_vm = |repository: &Repository<'_>| stats_of(repository, "vm");
    let some = AtomicUsize::new(0);
    beside_a_prune(&history, &history.days[..1], &of_vm, &|report, _| {
        let VmStatsReport { snapshots, forgotten_meanwhile, .. } = report.unwrap();
        assert!(snapshots == 3 || snapshots == 2, "{snapshots}");
        some.fetch_add(forgotten_meanwhile.len(), Ordering::Relaxed);
    });
    assert!(some.into_inner() > 0);
    let failures = AtomicUsize::new(0);
    beside_a_prune(&history, &history.days, &of_vm, &|report, _| match report {
        Ok(report) => assert_eq!(report.snapshots, 3),
        Err(EngineError::ForgottenMeanwhile { snapshot }) => {
            assert!(history.days.contains(&snapshot));
            failures.fetch_add(1, Ordering::Relaxed);
        }
        // It was before the first listing.
        Err(EngineError::NoSnapshotOf { vm, found, others }) => {
            assert_eq!((vm.as_str(), found, others), ("vm", vec!["other".to_owned()], 0));
        }
        Err(error) => panic!("{error:?}"),
    });
    assert!(failures.into_inner() > 0);
}

#[test]
fn the_statistics_follow_what_was_repacked() {
    let mut scene = History::new();
    let before = stats(&scene.scene.repository()).unwrap();
    assert_eq!((before.missing_packs, before.snapshots), (0, 4));
    scene.scene.forget(scene.days[0]);
    scene.scene.forget(scene.days[2]);
    let report = scene.scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(report.sealed && report.repacked.is_some(), "{report:?}");
    let after = stats(&scene.scene.repository()).unwrap();
    assert_eq!((after.missing_packs, after.unreferenced_packs, after.snapshots), (0, 0, 2));
    assert_eq!(after.referenced_bytes, after.blobs.data_packs.bytes + after.blobs.map_packs.bytes);
    let of_vm = stats_of(&scene.scene.repository(), "vm").unwrap();
    assert!(
        (1..=after.blobs.data_packs.count + after.blobs.map_packs.count).contains(&of_vm.referenced_packs)
    );
    let other = scene.snapshot(scene.other);
    assert!(restored(&scene.scene.repository(), &other, "disk0").unwrap() == scene.scene.holds[&scene.other]);
}
