//! Forgetting: what a policy and what names do to a repository, and what keeps them from it.

mod world;

use keepstone_engine::backup::{Audit, BackupJob, Compression, JobDisk, Reading, Unfinished, backup};
use keepstone_engine::forget::policy::{Bucket, Limit, Policy, Reason, Rule};
use keepstone_engine::forget::{ForgetError, ForgetJob, ForgetReport, LastOnes, Times, What, forget, plan};
use keepstone_engine::observer::{Event, Observer, Quiet};
use keepstone_engine::pins::{self, Change, Pinning};
use keepstone_engine::prune::{PruneEnd, PruneJob, PruneReport, RepackPolicy, Unused, prune};
use keepstone_engine::snapshots::{Selector, Snapshot, list};
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::{Fault, FaultStore, MemoryStore, Put, RecordingStore};
use keepstone_engine::{BlobStore, EngineError, Entropy, Repository};
use repo_format::{BlobName, DecisionName, Pin, SealedKind, SessionId, Tombstone, seal};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use world::watched::{Call, Watched};
use world::{
    NOW, create, memory_index, noise, open, restored, retention_key, small_geometry, undamaged, writer,
};

const DAY: u64 = 24 * 60 * 60 * 1000;
/// A point in time early on a Monday, UTC.
const MONDAY: u64 = 1_799_020_800_000;

/// Backs up a VM on a day after [`MONDAY`], by the store's clock too.
fn back_up_on(store: &MemoryStore, vm: &str, day: u64, tags: &[&str]) -> SessionId {
    let repository = open(store);
    let time = MONDAY + day * DAY;
    store.set_time(time);
    let disk = MemoryDisk::new(noise(day, 5000));
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&day.to_le_bytes());
    seed[8..16].copy_from_slice(&blake3::hash(vm.as_bytes()).as_bytes()[..8]);
    let job = BackupJob {
        vm,
        writer: &writer(),
        disks: vec![JobDisk::new("disk0", &disk)],
        reading: Reading::Changes,
        audit: Audit::Off,
        compression: Compression::Level(1),
        tags: tags.iter().map(ToString::to_string).collect(),
        properties: Vec::new(),
        time,
        program: "test",
        entropy: Entropy::new(seed),
        unfinished: Unfinished::MayRun { ended: &[] },
        checkpoint_due: &|| false,
    };
    backup(&repository, &mut memory_index(&repository), &job, &Quiet).expect("it is backed up").snapshot
}

/// A repository with backups of some VMs on some days, and the ids.
fn filled(backups: &[(&str, u64)]) -> (MemoryStore, Vec<SessionId>) {
    let store = MemoryStore::new();
    create(&store, small_geometry());
    let ids = backups.iter().map(|(vm, day)| back_up_on(&store, vm, *day, &[])).collect();
    (store, ids)
}

fn policy(bucket: Bucket, newest: u32) -> Policy {
    Policy::new(&[Rule { bucket, limit: Limit::Newest(newest) }]).expect("it keeps something")
}

struct Run<'a> {
    what: What<'a>,
    last_ones: LastOnes,
    times: Times,
    seed: u8,
}

impl<'a> Run<'a> {
    fn new(what: What<'a>) -> Self {
        Self { what, last_ones: LastOnes::Stay, times: Times::Checked, seed: 7 }
    }

    fn by_policy(policy: &'a Policy) -> Self {
        Self::new(What::Policy { policy, vms: &[], tags: &[] })
    }

    fn with<T>(&self, run: impl FnOnce(&ForgetJob<'_>) -> T) -> T {
        let Self { what, last_ones, times, seed } = *self;
        run(&ForgetJob {
            what,
            last_ones,
            times,
            time: MONDAY + 400 * DAY,
            entropy: &Entropy::new([seed; 32]),
        })
    }

    fn forget(&self, store: &dyn BlobStore) -> Result<ForgetReport, EngineError> {
        let repository = open(store);
        let key = retention_key(&repository);
        self.with(|job| forget(&repository, &key, job, &Quiet))
    }

    fn plan(&self, store: &dyn BlobStore) -> Result<ForgetReport, EngineError> {
        self.with(|job| plan(&open(store), job))
    }
}

fn ids(store: &dyn BlobStore) -> Vec<SessionId> {
    list(&open(store), None).expect("it lists").snapshots.iter().map(Snapshot::session).collect()
}

fn going(report: &ForgetReport) -> Vec<SessionId> {
    report.going().map(|point| point.snapshot.session()).collect()
}

fn by_id(id: SessionId) -> Selector {
    Selector::Id(id.to_string())
}

fn decision(store: &dyn BlobStore, id: SessionId) -> DecisionName {
    let found = list(&open(store), None).expect("it lists").snapshots;
    found.into_iter().find(|snapshot| snapshot.session() == id).expect("it is a snapshot").name
}

fn forget_error(result: Result<ForgetReport, EngineError>) -> ForgetError {
    match result {
        Err(EngineError::Forget(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_policy_does_not_keep_is_no_snapshot_any_more_and_the_rest_restores() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("db", 1), ("web", 8)]);
    let policy = policy(Bucket::Week, 1);
    let before = store.names();
    let planned = Run::by_policy(&policy).plan(&store).unwrap();
    assert_eq!((going(&planned), store.names()), (vec![made[0], made[1]], before));
    let report = Run::by_policy(&policy).forget(&store).unwrap();
    assert_eq!(going(&report), going(&planned));
    assert_eq!(ids(&store), [made[2], made[3]]);
    let repository = open(&store);
    for snapshot in list(&repository, None).unwrap().snapshots {
        let day = (snapshot.commit.time - MONDAY) / DAY;
        assert_eq!(restored(&repository, &snapshot, "disk0").unwrap(), noise(day, 5000));
    }
    undamaged(&repository);
}

#[test]
fn forgetting_twice_forgets_nothing_more_and_writes_nothing() {
    let (store, _) = filled(&[("web", 0), ("web", 1), ("web", 2), ("web", 40), ("web", 41)]);
    let policy = policy(Bucket::Month, 2);
    Run::by_policy(&policy).forget(&store).unwrap();
    let recording = RecordingStore::new(store.copied());
    let again = Run { seed: 8, ..Run::by_policy(&policy) }.forget(&recording).unwrap();
    assert_eq!((going(&again), recording.requests().put), (Vec::new(), 0));
    assert_eq!(ids(&recording), ids(&store));
}

#[test]
fn each_vm_is_looked_at_by_itself_and_only_those_that_were_named() {
    let (store, made) = filled(&[("web", 0), ("db", 1), ("web", 2), ("db", 3), ("dns", 4)]);
    let policy = policy(Bucket::Each, 1);
    let all = Run::by_policy(&policy).plan(&store).unwrap();
    assert_eq!(all.vms.iter().map(|vm| vm.vm.as_str()).collect::<Vec<_>>(), ["db", "dns", "web"]);
    assert_eq!(going(&all), [made[1], made[0]]);
    for vms in [vec!["db".to_owned()], vec!["db".to_owned(), "dns".to_owned()]] {
        let some = Run::new(What::Policy { policy: &policy, vms: &vms, tags: &[] }).plan(&store).unwrap();
        assert_eq!((going(&some), some.vms.len()), (vec![made[1]], vms.len()));
    }
}

#[test]
fn snapshots_without_the_tag_neither_go_nor_count() {
    let (store, _) = filled(&[]);
    let days = [(0, "nightly"), (1, "manual"), (2, "nightly"), (3, "manual")];
    let made = days.map(|(day, tag)| back_up_on(&store, "web", day, &["all", tag]));
    let policy = policy(Bucket::Each, 1);
    let forgotten = |tags: &[&str]| {
        let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        going(&Run::new(What::Policy { policy: &policy, vms: &[], tags: &tags }).plan(&store).unwrap())
    };
    assert_eq!(forgotten(&["nightly"]), [made[0]]);
    assert_eq!(forgotten(&["manual"]), [made[1]]);
    assert_eq!(forgotten(&["manual", "nightly"]), made[..3]);
    assert_eq!(forgotten(&["none"]), []);
}

fn pin(store: &dyn BlobStore, id: SessionId, pinning: Pinning<'_>) -> Result<Change, EngineError> {
    let repository = open(store);
    let name = decision(store, id);
    let found = list(&repository, None).expect("it lists").snapshots;
    let snapshot = found.into_iter().find(|snapshot| snapshot.name == name).expect("it is a snapshot");
    pins::set(&repository, &retention_key(&repository), &snapshot, (pinning, NOW), &Entropy::new([3; 32]))
}

const AUDIT: Pinning<'static> = Pinning::Pinned { reason: "the audit of 2027" };

#[test]
fn a_pinned_snapshot_stays_until_its_pin_is_taken_away() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("web", 2)]);
    let policy = policy(Bucket::Each, 1);
    let pinned = |store: &MemoryStore| pins::pinned(&open(store)).unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(pin(&store, made[0], Pinning::NotPinned).unwrap(), Change::None);
    assert_eq!(pin(&store, made[0], AUDIT).unwrap(), Change::Made);
    assert_eq!(pin(&store, made[0], AUDIT).unwrap(), Change::None);
    assert_eq!(pinned(&store), [made[0]]);
    assert_eq!(going(&Run::by_policy(&policy).forget(&store).unwrap()), [made[1]]);
    let named = forget_error(Run::new(What::Named(&[by_id(made[0])])).forget(&store));
    assert_eq!(named.to_string(), format!("snapshot {} of web is pinned: the audit of 2027", made[0]));
    assert_eq!(pin(&store, made[0], Pinning::NotPinned).unwrap(), Change::Made);
    assert_eq!(pinned(&store), []);
    assert_eq!(going(&Run::by_policy(&policy).forget(&store).unwrap()), [made[0]]);
    undamaged(&open(&store));
}

#[test]
fn a_pin_with_another_reason_replaces_the_one_before() {
    let (store, made) = filled(&[("web", 0)]);
    for reason in ["first", "second", "third"] {
        assert_eq!(pin(&store, made[0], Pinning::Pinned { reason }).unwrap(), Change::Made);
    }
    let pins = pins::list(&open(&store), Some("web")).unwrap();
    assert_eq!(pins.pinned[&made[0]].reason, "third");
    let too_long = pin(&store, made[0], Pinning::Pinned { reason: &"x".repeat(256) });
    assert!(matches!(too_long, Err(EngineError::BadJob(_))), "{too_long:?}");
}

#[test]
fn a_pin_that_cannot_be_read_keeps_its_snapshot_until_a_new_one_settles_it() {
    // The second one is longer than a sealed object can be.
    for planted in [b"no pin".to_vec(), vec![0; (64 << 20) + 4096]] {
        let (store, made) = filled(&[("web", 0), ("web", 1)]);
        let name = BlobName::pin(decision(&store, made[0]).vm, made[0], 5);
        store.put_new(&name, &planted).unwrap();
        let policy = policy(Bucket::Each, 1);
        let report = Run::by_policy(&policy).forget(&store).unwrap();
        assert_eq!(going(&report), []);
        assert_eq!(report.unreadable.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&name]);
        let named = forget_error(Run::new(What::Named(&[by_id(made[0])])).forget(&store));
        assert!(matches!(named, ForgetError::Pinned { .. }), "{named:?}");
        assert_eq!(pin(&store, made[0], Pinning::NotPinned).unwrap(), Change::Made);
        assert_eq!(going(&Run::by_policy(&policy).forget(&store).unwrap()), [made[0]]);
    }
}

/// Seals what a stolen backup host can make: it has all keys but that of the retention.
fn unsigned(repository: &Repository<'_>, kind: SealedKind, name: &BlobName, mut content: Vec<u8>) {
    content.extend([0; 64]);
    let blob = seal(repository.keys(), kind, name, [1; 32], &content);
    assert_eq!(repository.store().put_new(name, &blob).expect("it is put"), Put::Created);
}

#[test]
fn what_the_retention_did_not_sign_forgets_nothing_and_pins_nothing() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("web", 2)]);
    let repository = open(&store);
    let names = made.clone().into_iter().map(|id| decision(&store, id)).collect::<Vec<_>>();
    let tombstone = Tombstone { session: made[1], time: NOW, decision: names[1].clone() };
    unsigned(&repository, SealedKind::Tombstone, &tombstone.name(), tombstone.encode());
    let forged =
        Pin { session: made[0], decision: names[0].clone(), time: NOW, pinned: true, reason: String::new() };
    let pin_name = BlobName::pin(names[0].vm, made[0], 0);
    unsigned(&repository, SealedKind::Pin, &pin_name, forged.encode());
    assert_eq!(ids(&store), made);
    assert_eq!(pins::pinned(&repository).unwrap().len(), 0);
    let report = Run::by_policy(&policy(Bucket::Each, 1)).forget(&store).unwrap();
    assert_eq!((report.unsigned, report.unreadable.len()), (vec![pin_name, tombstone.name()], 0));
    // Where the forged one is, no other can be: that is told, and the snapshot stays.
    assert_eq!(report.blocked, [names[1].blob()]);
    assert_eq!(ids(&store), [made[1], made[2]]);
    // A number that was taken keeps nobody from pinning.
    let (store, made) = filled(&[("web", 0)]);
    let name = decision(&store, made[0]);
    let forged = Pin { session: made[0], decision: name.clone(), pinned: false, ..forged };
    unsigned(&open(&store), SealedKind::Pin, &BlobName::pin(name.vm, made[0], 0), forged.encode());
    assert_eq!(pin(&store, made[0], AUDIT).unwrap(), Change::Made);
    assert_eq!(pins::pinned(&open(&store)).unwrap().into_iter().collect::<Vec<_>>(), made);
}

#[test]
fn the_only_snapshot_of_a_vm_goes_only_by_force() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("db", 2)]);
    let both = [by_id(made[0]), by_id(made[1])];
    let refused = forget_error(Run::new(What::Named(&both)).forget(&store));
    assert_eq!(refused.to_string(), "web would have no snapshot left");
    assert_eq!(ids(&store), made);
    assert_eq!(going(&Run::new(What::Named(&both[1..])).forget(&store).unwrap()), [made[1]]);
    let forced = Run { last_ones: LastOnes::MayGo, ..Run::new(What::Named(&both[..1])) };
    assert_eq!(going(&forced.forget(&store).unwrap()), [made[0]]);
    assert_eq!(ids(&store), [made[2]]);
}

#[test]
fn a_name_that_was_forgotten_before_is_told_and_the_others_go() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("web", 2)]);
    Run::new(What::Named(&[by_id(made[0])])).forget(&store).unwrap();
    let report = Run::new(What::Named(&[by_id(made[0]), by_id(made[1])])).forget(&store).unwrap();
    assert_eq!((report.forgotten_before.as_slice(), going(&report)), (&made[..1], vec![made[1]]));
    let unknown = Run::new(What::Named(&[Selector::Id("ffffffff".to_owned())])).forget(&store);
    assert!(matches!(unknown, Err(EngineError::NoSuchSnapshot { .. })), "{unknown:?}");
}

#[test]
fn a_time_that_the_store_contradicts_is_not_believed() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("web", 2)]);
    // A copy, made 100 days later.
    let copy = MemoryStore::new();
    copy.set_time(MONDAY + 100 * DAY);
    for name in store.names() {
        copy.put_new(&name, &store.get(&name, None).unwrap()).unwrap();
    }
    let policy = policy(Bucket::Each, 1);
    let report = Run::by_policy(&policy).plan(&copy).unwrap();
    assert_eq!(going(&report), []);
    let doubted = |report: &ForgetReport| {
        let points = report.vms.iter().flat_map(|vm| &vm.points);
        points.filter(|point| point.reasons.contains(&Reason::DoubtfulTime)).count()
    };
    assert_eq!(doubted(&report), 3);
    let trusting = Run { times: Times::Trusted, ..Run::by_policy(&policy) };
    assert_eq!(going(&trusting.plan(&copy).unwrap()), made[..2]);
    // A clock that was far ahead ages nothing, whoever is trusted.
    let ahead = back_up_on(&store, "web", 5000, &[]);
    for run in [trusting, Run::by_policy(&policy)] {
        let report = run.plan(&store).unwrap();
        assert_eq!((going(&report), doubted(&report)), (made[..2].to_vec(), 1));
        assert!(!going(&report).contains(&ahead));
    }
}

#[test]
fn a_decision_that_cannot_be_read_holds_its_vm_until_it_is_settled() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("web", 2), ("db", 3), ("db", 4)]);
    let lost = decision(&store, made[1]);
    store.overwrite(&lost.blob(), b"damaged");
    let policy = policy(Bucket::Each, 1);
    let report = Run::by_policy(&policy).forget(&store).unwrap();
    assert_eq!(going(&report), [made[3]]);
    let held: Vec<_> = report.vms.iter().map(|vm| (vm.vm.as_str(), vm.held_by.clone())).collect();
    assert_eq!(held, [("db", vec![]), ("web", vec![lost.clone()])]);
    let settle = |wanted: &str| Run::new(What::Unreadable(&[wanted.to_owned()])).forget(&store);
    assert!(matches!(forget_error(settle(&made[0].to_string())), ForgetError::Readable { .. }));
    assert!(matches!(forget_error(settle("ffff")), ForgetError::NoSuchDecision { .. }));
    assert_eq!(settle(lost.blob().as_str()).unwrap().settled, [lost]);
    assert_eq!(settle(&made[1].to_string()).unwrap().forgotten_before, [made[1]]);
    assert_eq!(going(&Run::by_policy(&policy).forget(&store).unwrap()), [made[0]]);
    assert_eq!(ids(&store), [made[2], made[4]]);
}

fn pruned(store: &dyn BlobStore) -> Result<PruneReport, EngineError> {
    let repository = open(store);
    let job = PruneJob {
        writer: &writer(),
        time: MONDAY + 400 * DAY,
        program: "test",
        entropy: &Entropy::new([4; 32]),
        patience: DAY,
        abort: &[],
        unfinished: Unfinished::Ended,
        condemn_at_most: 100,
        repack: RepackPolicy { max_unused: Unused::Unlimited, max_repack: None, worth: &|_| true },
        end: PruneEnd::All,
    };
    prune(&repository, &retention_key(&repository), &job, &Quiet)
}

#[test]
fn a_decision_that_is_gone_is_settled_by_what_the_last_prune_saw() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("db", 2), ("db", 3)]);
    Run::new(What::Named(&[by_id(made[0])])).forget(&store).unwrap();
    assert!(pruned(&store).unwrap().sealed);
    let running = back_up_on(&store, "dns", 4, &[]);
    let gone = [made[2], running].map(|id| decision(&store, id));
    for name in &gone {
        store.delete(&name.blob()).unwrap();
    }
    assert!(matches!(pruned(&store), Err(EngineError::SnapshotVanished { session }) if session == made[2]));
    let settle = |id: SessionId| Run::new(What::Unreadable(&[id.to_string()])).forget(&store);
    // That no prune has seen may be of a backup that is running.
    assert!(matches!(forget_error(settle(running)), ForgetError::NoSuchDecision { .. }));
    assert_eq!(settle(made[2]).unwrap().settled, gone[..1]);
    assert!(pruned(&store).is_ok());
    assert_eq!(ids(&store), [made[1], made[3]]);
}

#[test]
fn a_credential_that_ends_in_the_middle_leaves_what_was_done_and_the_next_run_goes_on() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("web", 2), ("web", 3)]);
    let policy = policy(Bucket::Each, 1);
    let counted = RecordingStore::new(store.copied());
    Run::by_policy(&policy).forget(&counted).unwrap();
    let calls = counted.requests();
    let before_last = calls.get + calls.list + calls.put - 1;
    let failing = FaultStore::new(store.clone(), before_last, Fault::ChangesForbidden);
    let error = forget_error(Run::by_policy(&policy).forget(&failing));
    assert_eq!(error.to_string(), "2 of 3 snapshots were forgotten before it stopped");
    let source = std::error::Error::source(&error).expect("there is a cause");
    assert!(source.to_string().starts_with("could not create f/"), "{source}");
    assert_eq!(ids(&store), [made[2], made[3]]);
    assert_eq!(going(&Run::by_policy(&policy).forget(&store).unwrap()), [made[2]]);
}

/// Stops an operation at its first progress.
struct Impatient(AtomicU64);

impl Observer for Impatient {
    fn observe(&self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Progress(_) if self.0.fetch_add(1, Ordering::Relaxed) == 0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn who_interrupts_it_is_told_how_far_it_came() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("web", 2)]);
    let repository = open(&store);
    let policy = policy(Bucket::Each, 1);
    let key = retention_key(&repository);
    let result =
        Run::by_policy(&policy).with(|job| forget(&repository, &key, job, &Impatient(AtomicU64::new(0))));
    match forget_error(result) {
        ForgetError::Stopped { forgotten: 1, of: 2, source } => {
            assert!(matches!(*source, EngineError::Cancelled));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(ids(&store), made[1..]);
}

#[test]
fn wherever_it_is_interrupted_another_run_ends_it() {
    let (store, made) = filled(&[("web", 0), ("web", 1), ("db", 2), ("web", 3)]);
    let policy = policy(Bucket::Each, 1);
    let faults = [Fault::NotApplied, Fault::AnswerLost, Fault::CrashBefore, Fault::CrashAfter];
    let mut interrupted = 0;
    for fault in faults {
        for call in 0.. {
            let store = store.copied();
            let failing = FaultStore::new(store.clone(), call, fault);
            let Ok(repository) = Repository::open(&failing, world::PASSWORD) else { continue };
            let Ok(key) = keepstone_engine::repository::unlock_retention(&repository, world::PASSWORD) else {
                continue;
            };
            let result = Run::by_policy(&policy).with(|job| forget(&repository, &key, job, &Quiet));
            let survivors = ids(&store);
            assert!(survivors.contains(&made[2]) && survivors.contains(&made[3]), "{fault:?} {call}");
            interrupted += u32::from(result.is_err());
            Run { seed: 8, ..Run::by_policy(&policy) }.forget(&store).unwrap();
            assert_eq!(ids(&store), made[2..], "{fault:?} {call}");
            if failing.calls() <= call {
                break;
            }
        }
    }
    assert!(interrupted > 20, "{interrupted}");
}

#[test]
fn two_that_forget_the_same_do_not_disturb_each_other() {
    let (store, made) = filled(&[("web", 0), ("web", 1)]);
    let name = decision(&store, made[0]);
    let repository = open(&store);
    let tombstone = Tombstone { session: made[0], time: NOW, decision: name.clone() };
    // The other one's tombstone appears after this one has listed: the answer to its own create.
    let (blob, bytes) = tombstone.seal(repository.keys(), &retention_key(&repository), [5; 32]);
    let meanwhile = Watched::new(&store, |call| {
        if let Call::Put(_) = call {
            store.put_new(&blob, &bytes).unwrap();
        }
    });
    let report = Run::by_policy(&policy(Bucket::Each, 1)).forget(&meanwhile).unwrap();
    assert_eq!((going(&report), report.blocked), (vec![made[0]], vec![]));
    assert_eq!(store.get(&blob, None).unwrap(), bytes);
}

#[test]
fn another_repositorys_retention_key_is_refused() {
    let (store, _) = filled(&[("web", 0), ("web", 1)]);
    let other = MemoryStore::new();
    let other = world::create_from_seed(&other, small_geometry(), [2; 32]).map(|other| retention_key(&other));
    let repository = open(&store);
    let policy = policy(Bucket::Each, 1);
    let result = Run::by_policy(&policy).with(|job| forget(&repository, &other.unwrap(), job, &Quiet));
    assert!(matches!(result, Err(EngineError::BadJob(_))), "{result:?}");
}
