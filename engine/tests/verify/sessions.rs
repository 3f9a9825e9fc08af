//! Sessions that lost something or contradict themselves.

use crate::lab::{World, expect_all, lost, run, world};
use crate::maps::store_payload;
use crate::pruner::{abort, forget};
use crate::world::watched::{Call, Watched};
use crate::world::{
    NOW, back_up, create, latest, memory_index, noise, open, retention_key, small_geometry, writer,
};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;
use keepstone_engine::repair::{RepairJob, RepairMode, repair_index};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, Entropy, Repository};
use repo_format::{
    BlobName, Decision, DecisionName, FrameKind, Intent, PackKind, PackName, SessionId, Tombstone, WriterId,
};

fn intent(snapshot: &Snapshot) -> BlobName {
    BlobName::intent(&snapshot.name.writer, snapshot.session())
}

/// Writes indexes that list the packs of other sessions in place of those of a snapshot.
fn index_elsewhere(repository: &Repository<'_>, snapshot: &Snapshot) {
    repository.store().delete(&BlobName::index(&writer(), snapshot.session(), 0)).unwrap();
    let (mode, entropy) = (RepairMode::Write, Entropy::new([40; 32]));
    let job = RepairJob { writer: &writer(), mode, time: NOW, program: "test", entropy };
    assert_eq!(repair_index(repository, &job, &Quiet).unwrap().indexes.len(), 1);
}

/// Has a session of the VM take the next number, and end without a snapshot.
fn decide_next(repository: &Repository<'_>, snapshot: &Snapshot) -> DecisionName {
    let session = SessionId([9; 16]);
    let decision = DecisionName { seq: snapshot.name.seq + 1, session, ..snapshot.name.clone() };
    let intent = Intent { session, decision: decision.clone(), generation: 0, time: NOW };
    let (name, bytes) = intent.seal(repository.keys(), [4; 32]);
    repository.store().put_new(&name, &bytes).unwrap();
    repository.store().put_new(&decision.blob(), &abort(repository, &decision)).unwrap();
    decision
}

#[test]
fn a_missing_decision_shows_in_the_snapshot_made_from_it() {
    let world = world();
    world.store.delete(&world.first.name.blob()).unwrap();
    let detail = format!("snapshot {} was made from it", world.second.session());
    let (name, affected) = (world.first.name.to_string(), vec![lost(&world.first, "vm")]);
    expect_all(&run(&world.store, false), &[(FindingKind::MissingDecision, name, affected, &detail)]);
}

#[test]
fn a_missing_decision_shows_in_maps_that_refer_to_the_packs_of_its_session() {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut index = memory_index(&repository);
    let disk = MemoryDisk::new(noise(3, 200_000));
    back_up(&repository, &mut index, "a", &[("disk0", &disk)], 1).unwrap();
    sync(&mut index, &store, repository.keys(), &Preference::default(), &Quiet).unwrap();
    back_up(&repository, &mut index, "b", &[("disk0", &disk)], 2).unwrap();
    let snapshot = latest(&repository, "a");
    store.delete(&snapshot.name.blob()).unwrap();
    let (name, affected) = (snapshot.name.to_string(), vec![lost(&snapshot, "")]);
    let detail = "snapshots of other sessions refer to its pack";
    expect_all(&run(&store, false), &[(FindingKind::MissingDecision, name, affected, detail)]);
}

#[test]
fn a_missing_decision_shows_in_an_index_of_another_session() {
    let world = world();
    let repository = open(&world.store);
    index_elsewhere(&repository, &world.other);
    world.store.delete(&world.other.name.blob()).unwrap();
    let detail = "an index of another session, lists its packs";
    let missing =
        (FindingKind::MissingDecision, world.other.name.to_string(), vec![lost(&world.other, "")], detail);
    expect_all(&run(&world.store, false), std::slice::from_ref(&missing));
    // Without the intent, which has the decision's name, the index tells it.
    world.store.delete(&intent(&world.other)).unwrap();
    let detail = "it is missing, and so is a decision; of its session there are";
    let of_intent = (FindingKind::MissingIntent, intent(&world.other).to_string(), Vec::new(), detail);
    expect_all(&run(&world.store, false), &[missing, of_intent]);
}

#[test]
fn a_session_that_is_committed_forgotten_and_pruned_meanwhile_misses_nothing() {
    let world = world();
    let repository = open(&world.store);
    index_elsewhere(&repository, &world.other);
    let (intent, decision) = (intent(&world.other), world.other.name.blob());
    let committed = world.get(&decision);
    world.store.delete(&decision).unwrap();
    let tombstone = BlobName::tombstone(world.other.name.vm, world.other.session());
    for what_stays in [vec![&decision], vec![&tombstone], vec![&decision, &tombstone]] {
        let store = world.store.copied();
        // When it was listed it was undecided. A pruner removes the intent of one that is decided.
        let meanwhile = |call: Call<'_>| {
            if matches!(call, Call::Get(name, _) if *name == intent) {
                store.delete(&intent).unwrap();
                if what_stays.contains(&&decision) {
                    store.put_new(&decision, &committed).unwrap();
                }
                if what_stays.contains(&&tombstone) {
                    forget(&open(&store), &world.other.name);
                }
            }
        };
        let report = run(&Watched::new(&store, meanwhile), false);
        assert!(report.findings.is_empty(), "{what_stays:?}: {:?}", report.findings);
        assert!(!store.names().contains(&intent));
    }
}

#[test]
fn a_number_is_not_missed_whose_decision_came_meanwhile() {
    let world = world();
    let later = decide_next(&open(&world.store), &world.other);
    let decision = world.other.name.blob();
    let bytes = world.get(&decision);
    world.store.delete(&decision).unwrap();
    let of_later = BlobName::intent(&later.writer, later.session);
    let meanwhile = |call: Call<'_>| {
        if matches!(call, Call::Get(name, _) if *name == of_later) {
            world.store.put_new(&decision, &bytes).unwrap();
        }
    };
    let report = run(&Watched::new(&world.store, meanwhile), false);
    assert!(world.store.names().contains(&decision));
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_missing_decision_shows_in_the_number_of_a_later_one() {
    let world = world();
    let repository = open(&world.store);
    let later = decide_next(&repository, &world.other);
    assert_eq!(run(&world.store, false).findings, []);
    world.store.delete(&world.other.name.blob()).unwrap();
    let detail = format!("session {} saw a decision with its number when it began", later.session);
    let affected = vec![lost(&world.other, "")];
    let name = world.other.name.to_string();
    expect_all(&run(&world.store, false), &[(FindingKind::MissingDecision, name, affected, &detail)]);
    // Without the intent nobody knows whose number it was.
    world.store.delete(&intent(&world.other)).unwrap();
    let name = format!("r/{}/*/{:08x}-*", world.other.name.vm, world.other.name.seq);
    let detail = format!("session {} saw it when it began", later.session);
    expect_all(
        &run(&world.store, false),
        &[
            (FindingKind::MissingDecision, name, Vec::new(), &detail),
            (
                FindingKind::MissingIntent,
                intent(&world.other).to_string(),
                Vec::new(),
                "and so is a decision",
            ),
        ],
    );
}

#[test]
fn the_last_decision_missing_looks_like_a_session_that_has_not_ended() {
    let world = world();
    world.store.delete(&world.other.name.blob()).unwrap();
    let name = intent(&world.other).to_string();
    let report = run(&world.store, false);
    let affected = vec![lost(&world.other, "")];
    let detail = "its decision was lost: all of its packs are indexed";
    expect_all(&report, &[(FindingKind::UndecidedSession, name.clone(), affected.clone(), detail)]);
    assert!(!report.has_damage() && !report.needs_attention());
    // After some days it is no backup that is still running.
    let job = VerifyJob::everything(ReadData::Nothing, NOW + 3 * 86_400_000);
    let report = verify(&open(&world.store), &job, &Quiet).unwrap();
    let detail = "began 2 days ago has no decision: it has stored all that a snapshot needs";
    expect_all(&report, &[(FindingKind::StalledSession, name.clone(), affected.clone(), detail)]);
    assert!(!report.has_damage() && report.needs_attention());
    // It would have, if it had stored maps; what there is of it needs no decision.
    for pack in world.packs(PackKind::Map, &world.other) {
        world.store.delete(&pack.blob()).unwrap();
    }
    let report = verify(&open(&world.store), &job, &Quiet).unwrap();
    expect_all(&report, &[(FindingKind::UndecidedSession, name, affected, "0 map packs")]);
}

#[test]
fn a_missing_intent_harms_no_snapshot() {
    let world = world();
    world.store.delete(&intent(&world.other)).unwrap();
    let report = run(&world.store, false);
    world.expect(&report, FindingKind::MissingIntent, &intent(&world.other), &[]);
    assert!(report.has_damage());
    let detail = "the session was decided, so nothing needs it any more";
    let name = intent(&world.other).to_string();
    expect_all(&report, &[(FindingKind::MissingIntent, name, Vec::new(), detail)]);
}

#[test]
fn a_tombstone_is_all_that_stays_of_a_snapshot() {
    let world = world();
    let decision = DecisionName { session: SessionId([9; 16]), ..world.other.name.clone() };
    forget(&open(&world.store), &decision);
    expect_all(&run(&world.store, false), &[]);
}

/// Checks the one finding, a contradiction.
fn expect_contradiction(world: &World, blob: &BlobName, detail: &str) {
    let report = run(&world.store, false);
    expect_all(&report, &[(FindingKind::ContradictorySession, blob.to_string(), Vec::new(), detail)]);
    assert!(report.has_damage());
}

#[test]
fn two_writers_of_one_session_contradict_each_other() {
    let world = world();
    let other = WriterId::new("host-b").unwrap();
    let session = world.other.session();
    let name = PackName { kind: PackKind::Map, writer: other, session, number: 0 }.blob();
    world.store.overwrite(&name, b"anything");
    expect_contradiction(&world, &name, "blobs of 2 writers bear the id of one session");
}

#[test]
fn two_decisions_of_one_session_contradict_each_other() {
    let world = world();
    let second = DecisionName { seq: world.other.name.seq + 1, ..world.other.name.clone() };
    let bytes = abort(&open(&world.store), &second);
    world.store.overwrite(&second.blob(), &bytes);
    expect_contradiction(&world, &second.blob(), "the session is decided under another name too");
}

#[test]
fn a_decision_that_its_intent_does_not_tell_contradicts_it() {
    let world = world();
    let repository = open(&world.store);
    let told = DecisionName { seq: world.other.name.seq + 1, ..world.other.name.clone() };
    let session = world.other.session();
    let intent = Intent { session, decision: told.clone(), generation: 0, time: NOW };
    let (name, bytes) = intent.seal(repository.keys(), [4; 32]);
    world.store.overwrite(&name, &bytes);
    let detail = format!("the session's intent says that its decision is {told}");
    expect_contradiction(&world, &world.other.name.blob(), &detail);
}

#[test]
fn a_tombstone_for_a_decision_that_is_not_there_contradicts_the_one_that_is() {
    let world = world();
    let repository = open(&world.store);
    let (session, decision) = (world.other.session(), world.other.name.clone());
    let decision = DecisionName { seq: decision.seq + 1, ..decision };
    let tombstone = Tombstone { session, time: NOW, decision: decision.clone() };
    let (name, bytes) = tombstone.seal(repository.keys(), &retention_key(&repository), [4; 32]);
    world.store.overwrite(&name, &bytes);
    let detail = format!("the tombstone is for {decision}, which is not there");
    expect_contradiction(&world, &name, &detail);
}

#[test]
fn a_snapshot_made_from_another_vms_is_a_contradiction() {
    let world = world();
    let repository = open(&world.store);
    let mut commit = world.other.commit.clone();
    commit.parent = Some(world.first.name.clone());
    let name = world.other.name.blob();
    let bytes = Decision::Commit(Box::new(commit)).seal(repository.keys(), &world.other.name, [3; 32]);
    world.store.overwrite(&name, &bytes);
    expect_contradiction(&world, &name, "the snapshot that it was made from is another VM's");
}

#[test]
fn a_pack_that_its_session_did_not_count_is_more_than_there_should_be() {
    let world = world();
    let repository = open(&world.store);
    assert_eq!(world.other.commit.totals.map_packs, 1);
    let session = world.other.session();
    let at = store_payload(&world, repository.keys(), session, FrameKind::Node, b"a node of nobody");
    let name = at.pack.name.blob();
    let report = run(&world.store, true);
    world.expect(&report, FindingKind::SurplusPack, &name, &[]);
    let detail = "nothing needs it: the session counted fewer packs when it ended";
    expect_all(&report, &[(FindingKind::SurplusPack, name.to_string(), Vec::new(), detail)]);
    assert!(!report.has_damage() && !report.needs_attention());
    let mut bytes = world.get(&name);
    *bytes.last_mut().unwrap() ^= 1;
    world.store.overwrite(&name, &bytes);
    let detail = "nothing needs it: the session counted fewer packs when it ended";
    let report = run(&world.store, true);
    expect_all(&report, &[(FindingKind::DamagedPack, name.to_string(), Vec::new(), detail)]);
}
