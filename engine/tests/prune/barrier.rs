//! Prune waits until what was packed again is confirmed at every registered replica.

use crate::repacking::scattered;
use crate::scene::{ALL_UNUSED, Call, Scene, USUAL};
use crate::world::{latest, noise, open, restored, retention_key};
use keepstone_engine::barrier::{self, Change};
use keepstone_engine::prune::{PruneReport, Waiting, WaitingFor};
use keepstone_engine::store::{Fault, FaultStore, MemoryStore, RecordingStore, Requests};
use keepstone_engine::{BlobStore, EngineError, Entropy, Repository};
use repo_format::{
    Barrier, BarrierFact, BlobName, ReplicaName, RetentionKey, SealedKind, SessionId, WriterId, seal,
};
use std::collections::BTreeSet;

type Sessions = BTreeSet<(SessionId, WriterId)>;

fn replica(name: &str) -> ReplicaName {
    ReplicaName::new(name).unwrap()
}

impl Scene {
    fn retention(&self) -> (Repository<'_>, RetentionKey) {
        let repository = self.repository();
        let key = retention_key(&repository);
        (repository, key)
    }

    fn register(&self, name: &str) -> Change {
        let (repository, key) = self.retention();
        let told = (&replica(name), "elsewhere");
        barrier::register(&repository, &key, told, self.time, &Entropy::new([1; 32])).unwrap()
    }

    fn remove(&self, name: &str) -> Result<(), EngineError> {
        let (repository, key) = self.retention();
        barrier::remove(&repository, &key, &replica(name), self.time, &Entropy::new([2; 32]))
    }

    fn confirm(&self, name: &str, sessions: &Sessions) -> Result<u64, EngineError> {
        let (repository, key) = self.retention();
        let told = (&replica(name), sessions);
        barrier::confirm(&repository, &key, told, self.time, &Entropy::new([3; 32]))
    }

    /// What could be confirmed at a copy.
    fn whole_at(&self, copy: &MemoryStore) -> Sessions {
        let (here, there) = (self.repository(), open(copy));
        barrier::confirmable_repacks(&here, &there, &Sessions::new()).unwrap()
    }

    fn confirm_all(&self, name: &str) {
        let all = self.whole_at(&self.store);
        assert!(self.confirm(name, &all).unwrap() > 0);
    }

    fn packs(&self) -> BTreeSet<BlobName> {
        self.names("d/").into_iter().chain(self.names("m/")).collect()
    }
}

/// Which replicas are waited for, and for how many repacks.
fn waited(report: &PruneReport) -> Vec<(String, usize)> {
    assert!(report.waiting.iter().all(|one| one.why == WaitingFor::Replica), "{:?}", report.waiting);
    let name = |one: &Waiting| one.replica.clone().unwrap();
    let names: BTreeSet<String> = report.waiting.iter().map(name).collect();
    let count = |wanted: &String| report.waiting.iter().filter(|one| name(one) == *wanted).count();
    names.into_iter().map(|name| (name.clone(), count(&name))).collect()
}

#[test]
fn what_was_packed_again_stays_until_it_is_confirmed_at_every_registered_replica() {
    let scene = scattered();
    assert_eq!([scene.register("west"), scene.register("east")], [Change::Made; 2]);
    assert_eq!(scene.register("east"), Change::None);
    let before = scene.packs();
    let report = scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(!report.sealed && report.repacked.is_some());
    assert_eq!(waited(&report), [("east".to_owned(), 1), ("west".to_owned(), 1)]);
    let held: BTreeSet<_> = scene.packs().intersection(&before).cloned().collect();
    scene.assert_whole();
    // Nothing more goes before it is confirmed, and nothing is told again.
    let again = scene.prune_as(&ALL_UNUSED).unwrap();
    assert_eq!((again.deleted.packs, again.sealed), (0, false));
    scene.confirm_all("west");
    assert_eq!(waited(&scene.prune_as(&ALL_UNUSED).unwrap()), [("east".to_owned(), 1)]);
    assert!(scene.packs().is_superset(&held));
    scene.confirm_all("east");
    let report = scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(report.sealed && report.waiting.is_empty() && report.deleted.packs > 0);
    assert!(!scene.packs().is_superset(&held));
    scene.assert_whole();
}

#[test]
fn what_nothing_leads_from_is_deleted_at_once() {
    let scene = scattered();
    scene.register("west");
    let report = scene.prune_as(&USUAL).unwrap();
    assert!(report.sealed && report.deleted.packs > 0 && report.waiting.is_empty());
    // Beside what waits, too.
    let mut scene = scattered();
    let alone = scene.back_up("alone", &noise(77, 90_000));
    scene.forget(alone);
    scene.register("west");
    let report = scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(!report.sealed && report.deleted.packs > 0);
    let packs = scene.packs();
    assert!(!packs.iter().any(|name| name.as_str().contains(&alone.to_string())), "{packs:?}");
    scene.assert_whole();
}

#[test]
fn a_pack_waits_for_all_repacks_on_the_way_from_it() {
    // The first repack's old packs stay because of retention, and the second one moves some things on.
    let mut scene = scattered();
    let worm = FaultStore::new(scene.store.clone(), 0, Fault::DeletesRefused);
    let first = scene.prune_through(&worm, &ALL_UNUSED).unwrap();
    assert!(first.sealed && first.deferred.packs > 0);
    let kept = scene.packs();
    let first: Sessions = scene.whole_at(&scene.store);
    let mut disk = restored(&scene.repository(), &latest(&scene.repository(), "vm"), "disk0").unwrap();
    for day in 0..4usize {
        disk[day * 120_000..day * 120_000 + 60_000].copy_from_slice(&noise(day as u64 + 900, 60_000));
        scene.back_up("vm", &disk);
    }
    let newest = latest(&scene.repository(), "vm").session();
    let sessions: Vec<SessionId> = scene.holds.keys().copied().filter(|one| *one != newest).collect();
    for session in sessions {
        scene.forget(session);
    }
    scene.register("west");
    let report = scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(report.repacked.is_some() && !report.sealed, "{report:?}");
    assert_eq!(waited(&report), [("west".to_owned(), 2)]);
    let held: BTreeSet<_> = scene.packs().intersection(&kept).cloned().collect();
    assert!(!held.is_empty());
    scene.confirm("west", &first).unwrap();
    let report = scene.prune_as(&ALL_UNUSED).unwrap();
    assert_eq!(waited(&report), [("west".to_owned(), 1)]);
    let still: BTreeSet<_> = scene.packs().intersection(&held).cloned().collect();
    let of_first = |name: &BlobName| first.iter().any(|(one, _)| name.as_str().contains(&one.to_string()));
    assert!(still.iter().any(|name| !of_first(name)), "a pack that was there before the first repack waits");
    scene.confirm_all("west");
    assert!(scene.prune_as(&ALL_UNUSED).unwrap().sealed);
    scene.assert_whole();
}

#[test]
fn a_repack_that_is_confirmed_is_not_looked_for_again() {
    let scene = scattered();
    scene.register("west");
    assert!(!scene.prune_as(&ALL_UNUSED).unwrap().sealed);
    let copy = RecordingStore::new(scene.copied().store);
    let (here, there) = (scene.repository(), open(&copy));
    let confirmable = |confirmed: &Sessions| {
        let before = copy.requests();
        let found = barrier::confirmable_repacks(&here, &there, confirmed).unwrap();
        (found, copy.requests().since(&before))
    };
    let (found, asked) = confirmable(&Sessions::new());
    assert!(!found.is_empty() && asked.list > 0);
    assert_eq!(confirmable(&found), (Sessions::new(), Requests::default()));
}

#[test]
fn a_removed_replica_is_not_waited_for_and_knows_nothing_when_it_is_registered_again() {
    let scene = scattered();
    scene.register("west");
    assert!(!scene.prune_as(&ALL_UNUSED).unwrap().sealed);
    scene.confirm_all("west");
    scene.remove("west").unwrap();
    assert!(matches!(scene.remove("west"), Err(EngineError::NoSuchReplica { .. })));
    assert!(matches!(scene.confirm("west", &Sessions::new()), Err(EngineError::NoSuchReplica { .. })));
    scene.register("west");
    let listed = barrier::list(&scene.repository()).unwrap();
    assert!(listed.registered.iter().all(|one| one.confirmed.is_empty()));
    assert_eq!(waited(&scene.prune_as(&ALL_UNUSED).unwrap()), [("west".to_owned(), 1)]);
    scene.remove("west").unwrap();
    assert!(scene.prune_as(&ALL_UNUSED).unwrap().sealed);
    scene.assert_whole();
}

#[test]
fn a_replica_that_is_registered_in_the_midst_is_waited_for() {
    let scene = scattered();
    // A prune ends somewhere.
    for call in (0..).step_by(23) {
        let mut scene = scene.copied();
        let store = FaultStore::new(scene.store.clone(), call, Fault::ChangesForbidden);
        if scene.prune_through(&store, &ALL_UNUSED).is_ok() {
            break;
        }
        scene.later(crate::scene::PATIENCE);
        scene.register("west");
        let (before, report) = (scene.packs(), scene.prune_as(&ALL_UNUSED).unwrap());
        if !report.waiting.is_empty() {
            assert!(!report.sealed);
            let old = |name: &&BlobName| !scene.packs().contains(*name);
            assert!(before.iter().filter(old).count() < before.len());
            scene.confirm_all("west");
            assert!(scene.prune_as(&ALL_UNUSED).unwrap().sealed);
        }
        scene.assert_whole();
    }
}

#[test]
fn what_the_retention_did_not_sign_registers_and_confirms_and_removes_nothing() {
    let scene = scattered();
    scene.register("west");
    let report = scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(!report.sealed);
    let sessions: Vec<_> = scene.whole_at(&scene.store).into_iter().collect();
    let repository = scene.repository();
    let (mut forged, time) = (Vec::new(), scene.time);
    for (name, number, fact) in [
        ("west", 7, BarrierFact::Confirmed { sessions: sessions.clone() }),
        ("west", 8, BarrierFact::Removed),
        ("west", u32::MAX, BarrierFact::Removed),
        ("other", 0, BarrierFact::Registered { place: String::new() }),
    ] {
        let barrier = Barrier { replica: replica(name), number, time, fact };
        let name = BlobName::barrier(&barrier.replica, number);
        let content = [barrier.encode(), vec![7; 64]].concat();
        scene.store.overwrite(&name, &seal(repository.keys(), SealedKind::Barrier, &name, [5; 32], &content));
        forged.push(name.to_string());
    }
    forged.sort();
    let mut report = scene.prune_as(&ALL_UNUSED).unwrap();
    assert_eq!(waited(&report), [("west".to_owned(), 1)]);
    report.ignored.sort();
    assert_eq!(report.ignored, forged);
    let plan = scene.plan(&ALL_UNUSED).unwrap();
    assert_eq!(plan.waiting, report.waiting);
    assert!(forged.iter().all(|name| plan.ignored.contains(name)));
    // And they keep nobody from telling more.
    scene.confirm_all("west");
    assert!(scene.prune_as(&ALL_UNUSED).unwrap().sealed);
}

#[test]
fn a_prune_that_ends_anywhere_while_replicas_hold_packs_up_loses_nothing() {
    let whole = scattered();
    whole.register("west");
    let mut runs = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for call in (0..).step_by(19) {
            let mut scene = whole.copied();
            let store = FaultStore::new(scene.store.clone(), call, fault);
            let ended = scene.prune_through(&store, &ALL_UNUSED);
            if store.calls() <= call {
                ended.unwrap();
                break;
            }
            runs += 1;
            scene.assert_whole();
            scene.later(crate::scene::PATIENCE);
            let other = Call { writer: "another-pruner", ..ALL_UNUSED };
            let report = scene.prune_as(&other).unwrap();
            // Everything that something was moved from is there as long as nobody has confirmed it.
            let moved = scene.prune_as(&other).unwrap();
            assert_eq!(
                (moved.sealed, moved.deleted.packs),
                (false, 0),
                "{fault:?} at call {call}: {report:?}"
            );
            scene.confirm_all("west");
            scene.prune_as(&other).unwrap();
            scene.assert_whole();
        }
    }
    assert!(runs > 10, "{runs} crashes");
}

#[test]
fn a_confirmation_that_ends_anywhere_is_made_or_not_and_can_be_made_again() {
    let whole = scattered();
    whole.register("west");
    whole.prune_as(&ALL_UNUSED).unwrap();
    let sessions = whole.whole_at(&whole.store);
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for call in 0.. {
            let scene = whole.copied();
            let store = FaultStore::new(scene.store.clone(), call, fault);
            let key = retention_key(&scene.repository());
            let told = (&replica("west"), &sessions);
            let confirm = |repository: &Repository<'_>, entropy| {
                barrier::confirm(repository, &key, told, scene.time, &Entropy::new(entropy))
            };
            let ended =
                Repository::open(&store, crate::world::PASSWORD).and_then(|one| confirm(&one, [4; 32]));
            if store.calls() <= call {
                assert_eq!(ended.unwrap(), sessions.len() as u64);
                break;
            }
            confirm(&scene.repository(), [5; 32]).unwrap();
            assert!(scene.prune_as(&ALL_UNUSED).unwrap().sealed);
        }
    }
}

#[test]
fn retention_that_refuses_deletes_is_no_replica_that_waits() {
    let scene = scattered();
    scene.register("west");
    assert!(!scene.prune_as(&ALL_UNUSED).unwrap().sealed);
    scene.confirm_all("west");
    let worm = FaultStore::new(scene.store.clone(), 0, Fault::DeletesRefused);
    let report = scene.prune_through(&worm, &ALL_UNUSED).unwrap();
    assert!(report.sealed && report.deferred.packs > 0 && report.waiting.is_empty());
    let later = scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(later.deleted.packs > 0);
    scene.assert_whole();
}

#[test]
fn a_repack_is_confirmed_where_its_record_its_decision_and_its_packs_have_arrived() {
    let scene = scattered();
    scene.register("west");
    scene.prune_as(&ALL_UNUSED).unwrap();
    let all = scene.whole_at(&scene.store);
    let [(session, _)] = all.iter().collect::<Vec<_>>()[..] else { panic!("{all:?}") };
    let is_of_it = |name: &&BlobName| {
        let packs_and_ends = ["d/", "m/", "k/", "r/"].iter().any(|prefix| name.as_str().starts_with(prefix));
        packs_and_ends && name.as_str().contains(&session.to_string())
    };
    let copy = scene.store.copied();
    let names: Vec<BlobName> = copy.names().iter().filter(is_of_it).cloned().collect();
    assert!(names.len() > 3);
    for name in names {
        let bytes = copy.get(&name, None).unwrap();
        copy.delete(&name).unwrap();
        assert_eq!(scene.whole_at(&copy), Sessions::new(), "without {name}");
        copy.overwrite(&name, &bytes[..bytes.len() - 1]);
        assert_eq!(scene.whole_at(&copy), Sessions::new(), "with a part of {name}");
        if !name.as_str().starts_with("d/") && !name.as_str().starts_with("m/") {
            // Packs are read by verifications; what is small is read now.
            let mut other = bytes.clone();
            *other.last_mut().unwrap() ^= 1;
            copy.overwrite(&name, &other);
            assert_eq!(scene.whole_at(&copy), Sessions::new(), "with other bytes in {name}");
        }
        copy.overwrite(&name, &bytes);
    }
    assert_eq!(scene.whole_at(&copy), all);
}

#[test]
fn a_fact_that_cannot_be_read_counts_as_a_replica_at_which_nothing_is_confirmed() {
    let facts: [&[&str]; 3] = [&["registered"], &["registered", "confirmed"], &["registered", "removed"]];
    for told in facts {
        let scene = scattered();
        for what in told {
            match *what {
                "registered" => drop(scene.register("west")),
                "removed" => scene.remove("west").unwrap(),
                _ => {
                    assert!(!scene.prune_as(&ALL_UNUSED).unwrap().sealed);
                    scene.confirm_all("west");
                }
            }
        }
        let last = scene.names("b/").pop().unwrap();
        scene.store.overwrite(&last, b"nothing");
        let report = scene.prune_as(&ALL_UNUSED).unwrap();
        assert_eq!(waited(&report), [("west".to_owned(), 1)], "{told:?}");
        assert!(report.ignored.contains(&last.to_string()), "{told:?}: {:?}", report.ignored);
        let listed = barrier::list(&scene.repository()).unwrap();
        assert_eq!((&listed.damaged, &listed.ignored), (&vec![last], &Vec::new()), "{told:?}");
        // Whatever is told after it counts.
        scene.confirm_all("west");
        assert!(scene.prune_as(&ALL_UNUSED).unwrap().sealed, "{told:?}");
        scene.remove("west").unwrap();
        assert!(barrier::list(&scene.repository()).unwrap().registered.is_empty(), "{told:?}");
    }
}

#[test]
fn blobs_that_others_made_keep_nobody_from_telling_of_a_replica() {
    let scene = scattered();
    let plant = |number: u32| {
        scene.store.put_new(&BlobName::barrier(&replica("west"), number), b"nothing").unwrap();
    };
    (0..100).for_each(plant);
    assert_eq!(scene.register("west"), Change::Made);
    assert!(!scene.prune_as(&ALL_UNUSED).unwrap().sealed);
    (101..200).for_each(plant);
    scene.confirm_all("west");
    assert!(scene.prune_as(&ALL_UNUSED).unwrap().sealed);
    scene.remove("west").unwrap();
    assert!(barrier::list(&scene.repository()).unwrap().registered.is_empty());
    // Behind the last number there is none: somebody has to remove the blob.
    plant(u32::MAX);
    let last = BlobName::barrier(&replica("west"), u32::MAX);
    let error = scene.remove("west").unwrap_err();
    assert!(matches!(&error, EngineError::Damaged { name, .. } if *name == last), "{error}");
    scene.store.delete(&last).unwrap();
    assert!(barrier::list(&scene.repository()).unwrap().registered.is_empty());
}

#[test]
fn what_was_confirmed_at_one_place_is_not_confirmed_at_another_of_the_same_name() {
    let scene = scattered();
    scene.register("west");
    assert!(!scene.prune_as(&ALL_UNUSED).unwrap().sealed);
    scene.confirm_all("west");
    assert_eq!(scene.register("west"), Change::None);
    let (repository, key) = scene.retention();
    let told = (&replica("west"), "a new place");
    let moved = barrier::register(&repository, &key, told, scene.time + 1, &Entropy::new([9; 32])).unwrap();
    assert_eq!(moved, Change::Made);
    let listed = barrier::list(&repository).unwrap().registered;
    let [west] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!(
        (west.place.as_deref(), west.since, west.confirmed.len()),
        (Some("a new place"), scene.time + 1, 0)
    );
    assert_eq!(waited(&scene.prune_as(&ALL_UNUSED).unwrap()), [("west".to_owned(), 1)]);
    scene.confirm_all("west");
    assert!(scene.prune_as(&ALL_UNUSED).unwrap().sealed);
}
