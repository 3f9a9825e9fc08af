//! Replicas that are promoted: what is written and pruned there afterwards.

use crate::repacking::scattered;
use crate::scene::{ALL_UNUSED, DAY, PATIENCE, Scene};
use crate::world::{PASSWORD, noise, open, restored, retention_key};
use keepstone_engine::forget::policy::{Bucket, Limit, Policy, Rule};
use keepstone_engine::forget::{ForgetError, ForgetJob, LastOnes, Times, What, forget};
use keepstone_engine::lineage::{self, Standing};
use keepstone_engine::observer::Quiet;
use keepstone_engine::promotion::{PromoteJob, PromotionReport, declare_other_side_gone, promote};
use keepstone_engine::snapshots::{Selector, Snapshot, list};
use keepstone_engine::store::{Fault, FaultStore, MemoryStore};
use keepstone_engine::{BlobStore, EngineError, Entropy, Repository};
use repo_format::{BlobKind, BlobName, SessionId};
use std::collections::BTreeSet;

impl Scene {
    /// A replica at which a part of the blobs has arrived, some time later.
    pub fn arrived(&self, arrives: impl Fn(&BlobName) -> bool) -> Self {
        let mut copy = self.copied();
        copy.store = MemoryStore::new();
        copy.later(DAY);
        for name in self.store.names() {
            let always = matches!(name.kind(), Some(BlobKind::Config | BlobKind::KeySlot(_)));
            let never = matches!(name.kind(), Some(BlobKind::Canary | BlobKind::Barrier { .. }));
            if always || (!never && arrives(&name)) {
                copy.store.put_new(&name, &self.store.get(&name, None).unwrap()).unwrap();
            }
        }
        lineage::mark(&copy.repository(), ("the source", copy.time), &Entropy::new([8; 32])).unwrap();
        copy.later(DAY);
        copy
    }

    /// A part that a number chooses: of the blobs, so many of a hundred are missing.
    fn arrived_in_part(&self, seed: u64, missing: u8) -> Self {
        self.arrived(|name| {
            let hash = blake3::hash(format!("{seed} {name}").as_bytes());
            hash.as_bytes()[0] % 100 >= missing
        })
    }

    fn promote_through(&self, store: &dyn BlobStore) -> Result<PromotionReport, EngineError> {
        self.promote_repository(&Repository::open(store, PASSWORD)?)
    }

    /// Promotes it as somebody does who says something of it.
    fn promote_as<'s>(
        &'s self,
        said: impl Fn(Repository<'s>) -> Repository<'s>,
    ) -> Result<PromotionReport, EngineError> {
        self.promote_repository(&said(self.repository()))
    }

    fn promote_repository(&self, repository: &Repository<'_>) -> Result<PromotionReport, EngineError> {
        let key = retention_key(&self.repository());
        let entropy = Entropy::new(self.seed());
        let job = PromoteJob { time: self.time, program: "test", entropy: &entropy };
        promote(repository, &key, &job, &Quiet)
    }

    pub fn declare(&self) -> Result<bool, EngineError> {
        let repository = self.repository();
        let key = retention_key(&repository);
        let entropy = Entropy::new([7; 32]);
        let job = PromoteJob { time: self.time, program: "test", entropy: &entropy };
        declare_other_side_gone(&repository, &key, &job)
    }

    /// Promotes, and keeps in mind what is whole here.
    pub fn promote(&mut self) -> PromotionReport {
        let report = self.promote_through(&self.store).unwrap();
        let aside: BTreeSet<&String> = report.set_aside.iter().map(|one| &one.snapshot).collect();
        let there: BTreeSet<SessionId> = self.snapshots().iter().map(Snapshot::session).collect();
        self.holds.retain(|session, _| there.contains(session) && !aside.contains(&session.to_string()));
        // Beside those there may be some whose tombstones have not arrived.
        assert!(report.whole >= self.holds.len() as u64);
        self.later(DAY);
        report
    }

    pub fn snapshots(&self) -> Vec<Snapshot> {
        list(&self.repository(), None).unwrap().snapshots
    }

    /// Forgets what was set aside: it would keep a prune from knowing what it needs.
    fn forget_what_is_aside(&self) {
        let repository = self.repository();
        let aside: Vec<Selector> = self
            .snapshots()
            .iter()
            .filter(|snapshot| !self.holds.contains_key(&snapshot.session()))
            .map(|snapshot| Selector::Id(snapshot.session().to_string()))
            .collect();
        let job = ForgetJob {
            what: What::Named(&aside),
            last_ones: LastOnes::MayGo,
            times: Times::Checked,
            time: self.time,
            entropy: &Entropy::new([5; 32]),
        };
        forget(&repository, &retention_key(&repository), &job, &Quiet).unwrap();
    }
}

/// A source whose prune stopped somewhere, after one that packed again.
fn source(call: u64) -> Scene {
    let mut scene = scattered();
    scene.prune_as(&ALL_UNUSED).unwrap();
    let mut disk = noise(3, 200_000);
    for day in 0..3usize {
        disk[day * 50_000..day * 50_000 + 20_000].copy_from_slice(&noise(day as u64 + 50, 20_000));
        scene.back_up("other", &disk);
    }
    let last = scene.holds.keys().copied().next().unwrap();
    scene.forget(last);
    let store = FaultStore::new(scene.store.clone(), call, Fault::ChangesForbidden);
    let _stopped = scene.prune_through(&store, &ALL_UNUSED);
    // And a backup that has not ended.
    let store = FaultStore::new(scene.store.clone(), 30, Fault::ChangesForbidden);
    let _running = scene.try_back_up(&store, "host-b", "running", &noise(9, 900_000));
    scene
}

#[test]
fn what_is_whole_at_a_promotion_stays_so_whatever_is_done_there_afterwards() {
    for (seed, call) in [(1, 20), (2, 60), (3, 100), (4, 140)] {
        let source = source(call);
        for missing in [0, 3, 20] {
            let mut scene = source.arrived_in_part(seed, missing);
            scene.promote();
            scene.assert_holds();
            // Backups inherit nothing from what is not whole.
            scene.back_up("other", &noise(3, 250_000));
            scene.back_up("vm", &noise(1, 600_000));
            scene.assert_holds();
            assert!(matches!(scene.prune_as(&ALL_UNUSED), Err(EngineError::OtherSideMayBeThere)));
            assert!(scene.declare().unwrap());
            scene.forget_what_is_aside();
            scene.later(PATIENCE);
            for _ in 0..2 {
                let report = scene.prune_as(&ALL_UNUSED).unwrap();
                assert!(report.waiting.is_empty(), "{seed} {missing}: {report:?}");
                scene.assert_holds();
            }
            scene.back_up("vm", &noise(2, 600_000));
            scene.prune_as(&ALL_UNUSED).unwrap();
            scene.assert_holds();
        }
    }
}

#[test]
fn what_a_record_moved_stays_where_it_was_if_it_did_not_arrive_where_it_is_now() {
    let mut before = scattered();
    before.back_up("vm", &noise(1, 500_000));
    let after = before.copied();
    after.prune_as(&ALL_UNUSED).unwrap();
    let merged = before.copied();
    for name in after.store.names() {
        if matches!(name.kind(), Some(BlobKind::Repack(_) | BlobKind::Decision(_) | BlobKind::Intent { .. }))
        {
            merged.store.put_new(&name, &after.store.get(&name, None).unwrap()).unwrap();
        }
    }
    let mut scene = merged.arrived(|_| true);
    assert!(scene.store.names().iter().any(|name| matches!(name.kind(), Some(BlobKind::Repack(_)))));
    assert_eq!(scene.promote().set_aside.len(), 0);
    assert!(scene.declare().unwrap());
    scene.later(PATIENCE);
    for _ in 0..3 {
        scene.prune_as(&ALL_UNUSED).unwrap();
        scene.assert_holds();
        scene.back_up("vm", &noise(1, 500_000));
    }
    scene.assert_holds();
}

#[test]
fn a_replica_is_written_to_only_after_it_was_promoted() {
    let source = source(60);
    let mut scene = source.arrived_in_part(5, 0);
    let refused = scene.try_back_up(&scene.store, "host-a", "vm", &noise(1, 1000));
    assert!(matches!(refused, Err(EngineError::IsAReplica)));
    assert!(matches!(scene.prune_as(&ALL_UNUSED), Err(EngineError::IsAReplica)));
    let names = scene.store.names();
    assert!(matches!(scene.declare(), Err(EngineError::NotPromoted)));
    assert_eq!(scene.store.names(), names);
    scene.promote();
    scene.back_up("vm", &noise(1, 1000));
    scene.assert_holds();
    // Whoever says that it is a replica is believed, whatever is there: what tells of a promotion is copied, too.
    let repository = scene.repository().as_replica();
    assert_eq!(lineage::standing(&repository).unwrap(), Standing::Replica);
}

#[test]
fn where_the_repository_is_written_to_nothing_is_promoted() {
    let scene = source(60);
    assert!(matches!(scene.promote_through(&scene.store), Err(EngineError::NotAReplica)));
    assert!(matches!(scene.declare(), Err(EngineError::NotAReplica)));
    // But a copy that does not say that it is one, if the operator says so.
    let repository = scene.repository().as_replica();
    let entropy = Entropy::new([6; 32]);
    let job = PromoteJob { time: scene.time, program: "test", entropy: &entropy };
    promote(&repository, &retention_key(&repository), &job, &Quiet).unwrap();
    assert!(matches!(lineage::standing(&scene.repository()).unwrap(), Standing::Promoted(_)));
}

#[test]
fn a_promotion_that_ends_anywhere_goes_on_and_sets_aside_what_it_did_before() {
    let source = source(60);
    let whole = source.arrived_in_part(6, 10);
    let mut runs = 0;
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for call in (0..).step_by(3) {
            let mut scene = whole.copied();
            let store = FaultStore::new(scene.store.clone(), call, fault);
            let ended = scene.promote_through(&store);
            if store.calls() <= call {
                assert!(!ended.unwrap().was_promoted);
                break;
            }
            runs += 1;
            let before = lineage::place(&scene.repository()).unwrap().lineage;
            scene.later(DAY);
            let report = scene.promote();
            assert_eq!(report.was_promoted, before.is_some());
            let after = lineage::place(&scene.repository()).unwrap().lineage.unwrap();
            assert!(before.is_none_or(|before| before == after));
            scene.declare().unwrap();
            scene.forget_what_is_aside();
            scene.later(1);
            // Nobody of the other side is waited for.
            let report = scene.prune_as(&ALL_UNUSED).unwrap();
            assert!(report.waiting.is_empty(), "{fault:?} at call {call}: {report:?}");
            scene.assert_holds();
        }
    }
    assert!(runs > 5, "{runs}");
}

#[test]
fn a_second_promotion_leaves_sessions_alone_that_began_since() {
    let source = source(60);
    let mut scene = source.arrived_in_part(7, 0);
    let first = scene.promote();
    assert!(!first.was_promoted && !first.aborted.is_empty());
    let store = FaultStore::new(scene.store.clone(), 40, Fault::ChangesForbidden);
    scene.try_back_up(&store, "host-c", "new", &noise(9, 900_000)).unwrap_err();
    let second = scene.promote_through(&scene.store).unwrap();
    assert!(second.was_promoted && second.aborted.is_empty(), "{second:?}");
    assert_eq!((second.lineage, second.set_aside), (first.lineage, first.set_aside));
}

#[test]
fn a_result_that_arrived_is_not_carried_out() {
    // The source published what it deletes, and deleted nothing yet.
    let whole = scattered();
    let source = (0..)
        .step_by(5)
        .map(|call| {
            let scene = whole.copied();
            let store = FaultStore::new(scene.store.clone(), call, Fault::ChangesForbidden);
            let _stopped = scene.prune_through(&store, &crate::scene::USUAL);
            scene
        })
        .find(|scene| scene.store.names().contains(&BlobName::result(0)))
        .unwrap();
    let forgotten = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Tombstone { .. }));
    let mut scene = source.arrived(|name| !forgotten(name));
    // What the source has forgotten has not been forgotten here.
    let report = scene.promote();
    assert_eq!(report.first_generation, 1);
    assert!(report.set_aside.is_empty() && report.whole > scene.holds.len() as u64);
    scene.declare().unwrap();
    let before: Vec<_> = scene.names("d/").into_iter().chain(scene.names("m/")).collect();
    let report = scene.prune_as(&crate::scene::USUAL).unwrap();
    assert_eq!(report.deleted.packs, 0);
    let after: Vec<_> = scene.names("d/").into_iter().chain(scene.names("m/")).collect();
    assert_eq!(before, after);
    let repository = open(&scene.store);
    for snapshot in scene.snapshots() {
        restored(&repository, &snapshot, "disk0").unwrap();
    }
}

#[test]
fn a_copy_of_a_promoted_place_is_promoted_anew_and_does_not_carry_out_what_arrived() {
    let mut west = scattered().arrived(|_| true);
    west.promote();
    west.declare().unwrap();
    let last = west.back_up("other", &noise(70, 200_000));
    west.back_up("other", &noise(71, 200_000));
    let before = west.copied();
    let published = (0..).step_by(5).map(|call| {
        let mut scene = before.copied();
        scene.forget(last);
        let store = FaultStore::new(scene.store.clone(), call, Fault::ChangesForbidden);
        let _stopped = scene.prune_through(&store, &ALL_UNUSED);
        scene
    });
    let west = { published }.find(|scene| scene.store.names().contains(&BlobName::result(0))).unwrap();
    // What the west published has arrived, and that it forgot a restore point has not.
    let mut third = before;
    for name in west.names("gc/") {
        third.store.put_new(&name, &west.store.get(&name, None).unwrap()).unwrap();
    }
    third.later(DAY);
    assert!(third.holds.contains_key(&last));
    let report = third.promote_as(Repository::as_replica).unwrap();
    assert!(!report.was_promoted && !report.other_side_gone, "{report:?}");
    assert_eq!((report.first_generation, report.set_aside.len()), (1, 0));
    third.later(DAY);
    assert!(matches!(third.prune_as(&ALL_UNUSED), Err(EngineError::OtherSideMayBeThere)));
    third.declare().unwrap();
    third.prune_as(&ALL_UNUSED).unwrap();
    third.assert_holds();
    // Somebody who still says that it is a copy cannot declare anything of it.
    let repository = third.repository().as_replica();
    let entropy = Entropy::new([7; 32]);
    let job = PromoteJob { time: third.time, program: "test", entropy: &entropy };
    let refused = declare_other_side_gone(&repository, &retention_key(&repository), &job);
    assert!(matches!(refused, Err(EngineError::NotPromoted)), "{refused:?}");
}

#[test]
fn a_policy_believes_the_times_of_what_had_arrived_before_the_promotion() {
    let mut source = Scene::new();
    for day in 0..5u64 {
        source.back_up("vm", &noise(day, 60_000));
        source.later(DAY);
    }
    // Copied much later: by the store's dates all of them are of one day.
    source.later(30 * DAY);
    let mut scene = source.arrived(|_| true);
    let policy = Policy::new(&[Rule { bucket: Bucket::Each, limit: Limit::Newest(1) }]).unwrap();
    let forgotten = |scene: &Scene| {
        let repository = scene.repository();
        let job = ForgetJob {
            what: What::Policy { policy: &policy, vms: &[], tags: &[] },
            last_ones: LastOnes::Stay,
            times: Times::Checked,
            time: scene.time,
            entropy: &Entropy::new([5; 32]),
        };
        keepstone_engine::forget::plan(&repository, &job).unwrap().going().count()
    };
    assert_eq!(forgotten(&scene), 0);
    scene.promote();
    assert_eq!(forgotten(&scene), 4);
}

#[test]
fn a_policy_does_not_count_what_was_set_aside_and_keeps_what_is_whole() {
    let mut source = Scene::new();
    let whole = source.back_up("vm", &noise(1, 60_000));
    source.later(DAY);
    let torn = source.back_up("vm", &noise(2, 60_000));
    let is_data_of_torn =
        |name: &BlobName| name.as_str().starts_with("d/") && name.as_str().contains(&torn.to_string());
    let mut scene = source.arrived(|name| !is_data_of_torn(name));
    assert_eq!(scene.promote().set_aside.len(), 1);
    let policy = Policy::new(&[Rule { bucket: Bucket::Each, limit: Limit::Newest(1) }]).unwrap();
    let forget_what = |what: What<'_>| {
        let (repository, entropy) = (scene.repository(), Entropy::new([5; 32]));
        let (last_ones, times) = (LastOnes::Stay, Times::Checked);
        let job = ForgetJob { what, last_ones, times, time: scene.time, entropy: &entropy };
        let report = forget(&repository, &retention_key(&repository), &job, &Quiet)?;
        let reasons = report.vms.iter().flat_map(|vm| &vm.points);
        Ok::<_, EngineError>(
            reasons
                .map(|point| (point.snapshot.session(), format!("{:?}", point.reasons)))
                .collect::<Vec<_>>(),
        )
    };
    let by_policy = What::Policy { policy: &policy, vms: &[], tags: &[] };
    let stay = [(whole, "{Newest(Each), Latest}".to_owned()), (torn, "{Incomplete}".to_owned())];
    assert_eq!(forget_what(by_policy).unwrap(), stay);
    // By its name the whole one is the last of its VM, and the other one nobody's last one.
    let named = |session: SessionId| [Selector::Id(session.to_string())];
    let refused = forget_what(What::Named(&named(whole)));
    assert!(matches!(refused, Err(EngineError::Forget(ForgetError::LastOfVm { .. }))), "{refused:?}");
    forget_what(What::Named(&named(torn))).unwrap();
    assert_eq!(scene.snapshots().iter().map(Snapshot::session).collect::<Vec<_>>(), [whole]);
    scene.assert_holds();
}

/// The numbers of the decisions of a VM, in the order in which they were made.
fn numbers(scene: &Scene, vm: &str) -> Vec<u32> {
    let mut snapshots = scene.snapshots();
    snapshots.retain(|snapshot| snapshot.commit.vm == vm);
    snapshots.sort_by_key(|snapshot| snapshot.commit.time);
    snapshots.iter().map(|snapshot| snapshot.name.seq).collect()
}

/// What is no lineage, of several lengths.
fn garbage() -> [Vec<u8>; 4] {
    // The last one is longer than a sealed object can be.
    [Vec::new(), vec![7], noise(7, 300), vec![0; (64 << 20) + 4096]]
}

#[test]
fn what_is_no_lineage_keeps_nobody_from_reading_and_writing() {
    for (number, planted) in [1, 2, 77, u32::MAX].into_iter().zip(garbage()) {
        let mut scene = Scene::new();
        scene.back_up("vm", &noise(1, 60_000));
        let forgotten = scene.back_up("vm", &noise(2, 60_000));
        let name = BlobName::lineage(number);
        scene.store.put_new(&name, &planted).unwrap();
        let place = lineage::place(&scene.repository()).unwrap();
        assert_eq!(place.standing, Standing::Written);
        assert_eq!(place.damaged.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&name]);
        scene.back_up("vm", &noise(3, 60_000));
        scene.assert_holds();
        scene.forget(forgotten);
        // It might have told that nothing is to be deleted.
        let names = scene.store.names();
        let refused = scene.prune_as(&ALL_UNUSED).unwrap_err();
        assert!(matches!(&refused, EngineError::Damaged { name: told, .. } if *told == name), "{refused}");
        assert_eq!(scene.store.names(), names);
        scene.store.delete(&name).unwrap();
        assert!(scene.prune_as(&ALL_UNUSED).unwrap().deleted.packs > 0);
        scene.assert_holds();
    }
}

#[test]
fn a_promotion_takes_the_first_number_that_nobody_took_however_many_are_taken() {
    let source = source(60);
    let highest = BlobName::lineage(u32::MAX);
    for (taken, first, second) in [(1..1, 1, 2), (1..3, 3, 4), (1..101, 101, 102), (2..70, 1, 70)] {
        let mut scene = source.arrived_in_part(5, 0);
        for number in taken {
            scene.store.put_new(&BlobName::lineage(number), b"nothing").unwrap();
        }
        scene.store.put_new(&highest, &noise(1, 200)).unwrap();
        assert_eq!(lineage::standing(&scene.repository()).unwrap(), Standing::Replica);
        scene.assert_holds();
        let report = scene.promote();
        assert!(report.ignored.contains(&highest.to_string()), "{report:?}");
        let number = |scene: &Scene| lineage::place(&scene.repository()).unwrap().lineage.unwrap().number;
        assert_eq!(number(&scene), first);
        assert!(scene.promote().was_promoted);
        scene.back_up("vm", &noise(1, 60_000));
        assert!(scene.declare().unwrap());
        assert_eq!((number(&scene), scene.declare().unwrap()), (second, false));
        let refused = scene.prune_as(&ALL_UNUSED);
        assert!(matches!(refused, Err(EngineError::Damaged { name, .. }) if name == highest));
        scene.store.delete(&highest).unwrap();
        scene.later(PATIENCE);
        scene.prune_as(&ALL_UNUSED).unwrap();
        scene.assert_holds();
    }
}

#[test]
fn nothing_is_deleted_where_what_told_of_the_promotion_is_damaged_until_it_is_told_anew() {
    // A copy without a mark, as a service makes it.
    let mut scene = source(60);
    let promote_as_replica = |scene: &Scene| {
        let repository = scene.repository().as_replica();
        let entropy = Entropy::new([6; 32]);
        let job = PromoteJob { time: scene.time, program: "test", entropy: &entropy };
        promote(&repository, &retention_key(&repository), &job, &Quiet).unwrap()
    };
    promote_as_replica(&scene);
    scene.store.overwrite(&BlobName::lineage(1), b"nothing");
    let refused = scene.prune_as(&ALL_UNUSED);
    assert!(matches!(refused, Err(EngineError::Damaged { name, .. }) if name == BlobName::lineage(1)));
    assert!(!promote_as_replica(&scene).was_promoted);
    assert!(matches!(scene.prune_as(&ALL_UNUSED), Err(EngineError::OtherSideMayBeThere)));
    assert!(scene.declare().unwrap());
    // The newest one is damaged: the one before it holds.
    scene.store.overwrite(&BlobName::lineage(3), b"nothing");
    assert!(matches!(scene.prune_as(&ALL_UNUSED), Err(EngineError::OtherSideMayBeThere)));
    assert!(scene.declare().unwrap());
    scene.later(PATIENCE);
    scene.prune_as(&ALL_UNUSED).unwrap();
    scene.assert_holds();
}

#[test]
fn what_is_made_after_a_promotion_is_numbered_on_whatever_the_clock_of_the_operator_says() {
    let mut source = Scene::new();
    source.back_up("vm", &noise(1, 60_000));
    let mut scene = source.arrived(|_| true);
    // It goes a month ahead of the store's.
    scene.time += 30 * DAY;
    scene.promote_through(&scene.store).unwrap();
    scene.time -= 30 * DAY;
    scene.later(DAY);
    scene.back_up("vm", &noise(2, 60_000));
    scene.later(DAY);
    scene.back_up("vm", &noise(3, 60_000));
    scene.later(DAY);
    scene.declare().unwrap();
    scene.later(DAY);
    scene.back_up("vm", &noise(4, 60_000));
    assert_eq!(numbers(&scene, "vm"), [0, 1 << 20, (1 << 20) + 1, (1 << 20) + 2]);
}
