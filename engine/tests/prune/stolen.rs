//! A stolen backup host: it has the repository's keys and may create any blob, but lacks the retention key.

use crate::scene::{Call, PATIENCE, Scene, USUAL};
use crate::world::{latest, noise, restored};
use keepstone_engine::snapshots::list;
use keepstone_engine::store::{Fault, FaultStore, MemoryStore};
use keepstone_engine::{BlobStore, Repository};
use repo_format::{
    Abort, AbortBy, Awaited, BlobKind, BlobName, Condemned, Decision, DecisionName, GcResult, GenerationSeal,
    Intent, Lead, PackRef, RepackRecord, Repacked, SealedKind, SessionId, Tombstone, VmTag, WriterId, seal,
};

const SALT: [u8; 32] = [3; 32];

/// Creates a blob that is right in all but its signature, which the thief can only guess.
fn plant(scene: &Scene, kind: SealedKind, name: &BlobName, content: &[u8]) {
    let signature = [5; 64];
    let bytes = seal(scene.repository().keys(), kind, name, SALT, &[content, &signature].concat());
    put(scene, name, &bytes);
}

fn put(scene: &Scene, name: &BlobName, bytes: &[u8]) {
    assert_eq!(scene.store.put_new(name, bytes).unwrap(), keepstone_engine::store::Put::Created, "{name}");
}

/// Two snapshots of one VM, one of which the operator forgot, and one of another.
fn scene() -> Scene {
    let mut scene = Scene::new();
    let first = scene.back_up("vm", &noise(1, 150_000));
    scene.back_up("vm", &noise(2, 150_000));
    scene.back_up("other", &noise(3, 150_000));
    scene.forget(first);
    scene
}

fn packs(scene: &Scene) -> Vec<PackRef> {
    let mut packs: Vec<PackRef> = ["d/", "m/"]
        .iter()
        .flat_map(|prefix| scene.names(prefix))
        .filter_map(|blob| match blob.kind() {
            Some(BlobKind::Pack(name)) => {
                let len = scene.store.get(&blob, None).unwrap().len();
                Some(PackRef { name, len: u32::try_from(len).unwrap() })
            }
            _ => None,
        })
        .collect();
    packs.sort();
    packs
}

fn unnamed(repository: &Repository<'_>, session: SessionId) -> DecisionName {
    DecisionName {
        vm: repository.keys().vm_tag(""),
        writer: WriterId::new("thief").unwrap(),
        seq: 0,
        session,
    }
}

/// The operator prunes twice; everything that was not forgotten is there, and what was forgotten is not.
fn prunes_as_ever(scene: &Scene) {
    let report = scene.prune();
    assert!(report.sealed, "{report:?}");
    assert!(report.deleted.packs > 0);
    assert!(!report.ignored.is_empty(), "what was planted is reported");
    scene.assert_holds();
    scene.prune();
    scene.assert_holds();
}

#[test]
fn a_planted_tombstone_forgets_nothing() {
    let scene = scene();
    let repository = scene.repository();
    for vm in ["vm", "other"] {
        let decision = latest(&repository, vm).name;
        let tombstone = Tombstone { session: decision.session, time: scene.time, decision };
        plant(&scene, SealedKind::Tombstone, &tombstone.name(), &tombstone.encode());
    }
    prunes_as_ever(&scene);
}

#[test]
fn planted_generations_delete_nothing_and_stop_nothing() {
    for objects in 1..8 {
        let scene = scene();
        let packs = packs(&scene);
        if objects & 1 != 0 {
            let condemned = Condemned { packs: packs.clone() };
            plant(&scene, SealedKind::Condemned, &BlobName::condemned(0), &condemned.encode());
        }
        if objects & 2 != 0 {
            let result = GcResult { delete: packs, rescued: Vec::new(), covers: 1, earlier: Vec::new() };
            plant(&scene, SealedKind::GcResult, &BlobName::result(0), &result.encode());
        }
        if objects & 4 != 0 {
            let seal = GenerationSeal { roster: Vec::new() };
            plant(&scene, SealedKind::GenerationSeal, &BlobName::generation_seal(0), &seal.encode());
        }
        let report = scene.prune();
        scene.assert_holds();
        let report = if report.sealed { report } else { scene.prune() };
        assert!(report.sealed && report.deleted.packs > 0, "{objects}: {report:?}");
        scene.assert_holds();
    }
}

#[test]
fn a_planted_list_of_nobody_to_wait_for_does_not_end_the_wait() {
    let mut scene = scene();
    let (store, decision) = running(&scene);
    scene.store = store;
    let list = Awaited { condemned: [0; 32], sessions: Vec::new() };
    plant(&scene, SealedKind::Awaited, &BlobName::awaited(0), &list.encode());
    // The prune puts its own in its place.
    for ignored in [vec![BlobName::awaited(0).to_string()], Vec::new()] {
        let report = scene.prune();
        assert_eq!((report.sealed, report.waiting.len()), (false, 1), "{report:?}");
        assert_eq!(report.ignored, ignored);
    }
    let report = scene.prune_as(&Call { abort: &[decision.session], ..USUAL }).unwrap();
    assert!(report.sealed && report.deleted.packs > 0, "{report:?}");
    scene.assert_holds();
}

#[test]
fn a_planted_record_moves_nothing() {
    let scene = scene();
    let repository = scene.repository();
    let session = SessionId([0xee; 16]);
    let decision = unnamed(&repository, session);
    let mut packs = packs(&scene);
    packs.retain(|pack| pack.name.kind == repo_format::PackKind::Data);
    let new = PackRef {
        name: repo_format::PackName {
            kind: repo_format::PackKind::Data,
            writer: decision.writer.clone(),
            session,
            number: 0,
        },
        len: 1000,
    };
    packs.push(new.clone());
    packs.sort();
    let place = u32::try_from(packs.iter().position(|pack| *pack == new).unwrap()).unwrap();
    let count = u32::try_from(packs.len()).unwrap();
    let leads = (0..count).filter(|old| *old != place).map(|old| Lead { old, new: vec![place] }).collect();
    let mut applies_to: Vec<SessionId> = scene.holds.keys().copied().collect();
    applies_to.sort();
    let record = RepackRecord { session, decision: decision.clone(), applies_to, packs, leads };
    plant(&scene, SealedKind::Repack, &BlobName::repack(session), &record.encode());
    let end = Decision::Repack(Repacked { session, time: scene.time, program: "thief".into() });
    put(&scene, &decision.blob(), &end.seal(repository.keys(), &decision, SALT));
    prunes_as_ever(&scene);
}

/// What a backup of a third VM has stored when it is stopped before its decision, and how it goes on.
fn running(scene: &Scene) -> (MemoryStore, DecisionName) {
    let disk = noise(1, 150_000);
    for call in 0.. {
        let store = scene.store.copied();
        let faulty = FaultStore::new(store.clone(), call, Fault::CrashBefore);
        let ended = scene.try_back_up(&faulty, "host-b", "third", &disk);
        assert!(ended.is_err(), "the decision is the last thing that a backup stores");
        let names = store.names();
        let stored = names.iter().any(|name| name.as_str().starts_with("m/host-b/"));
        if stored {
            let intent = names.iter().find(|name| name.as_str().starts_with("s/host-b/")).unwrap();
            let keys = scene.repository();
            let bytes = store.get(intent, None).unwrap();
            let intent = repo_format::Intent::open(keys.keys(), intent, &bytes).unwrap();
            return (store, intent.decision);
        }
    }
    unreachable!()
}

fn plant_abort(scene: &Scene, name: &DecisionName) {
    let (session, time, program) = (name.session, scene.time, "thief".into());
    let abort = Decision::Abort(Abort { session, time, program, by: AbortBy::Writer });
    put(scene, &name.blob(), &abort.seal(scene.repository().keys(), name, SALT));
}

#[test]
fn no_planted_end_makes_a_pruner_pass_over_a_session_that_runs() {
    let ends: [fn(&Scene, &DecisionName); 3] = [
        |scene, decision| {
            // An ABORT of the session under another name than the one that it will commit under.
            plant_abort(scene, &DecisionName { vm: VmTag([1; 16]), ..decision.clone() });
        },
        |scene, decision| {
            let name = DecisionName { seq: decision.seq + 1, ..decision.clone() };
            plant_abort(scene, &name);
        },
        |scene, decision| {
            let tombstone =
                Tombstone { session: decision.session, time: scene.time, decision: decision.clone() };
            plant(scene, SealedKind::Tombstone, &tombstone.name(), &tombstone.encode());
        },
    ];
    for end in ends {
        let mut scene = scene();
        let (store, decision) = running(&scene);
        scene.store = store;
        end(&scene, &decision);
        let before = scene.count("d/");
        for _ in 0..2 {
            if let Ok(report) = scene.prune_as(&USUAL) {
                assert_eq!(report.waiting.len(), 1, "{report:?}");
            }
            assert_eq!(scene.count("d/"), before);
            scene.later(PATIENCE / 4);
        }
    }
}

#[test]
fn forgetting_a_decoy_forgets_no_snapshot_with_the_same_id() {
    for vm in ["decoy", "other"] {
        forget_a_decoy(vm);
    }
}

/// The thief's snapshot has the id of another one, and the operator's policy forgets it.
fn forget_a_decoy(vm: &str) {
    let scene = scene();
    let repository = scene.repository();
    let victim = latest(&repository, "other");
    let mut commit = victim.commit.clone();
    commit.vm = vm.into();
    commit.parent = None;
    let decision = DecisionName {
        vm: repository.keys().vm_tag(vm),
        writer: WriterId::new("thief").unwrap(),
        seq: 0,
        session: victim.session(),
    };
    put(
        &scene,
        &decision.blob(),
        &Decision::Commit(Box::new(commit)).seal(repository.keys(), &decision, SALT),
    );
    // The operator forgets the decoy.
    let key = crate::world::retention_key(&repository);
    let (name, bytes) = Tombstone { session: decision.session, time: scene.time, decision }.seal(
        repository.keys(),
        &key,
        [9; 32],
    );
    put(&scene, &name, &bytes);
    scene.prune();
    scene.prune();
    let repository = scene.repository();
    let left = list(&repository, None).unwrap().snapshots;
    let same = left.iter().find(|snapshot| snapshot.name == victim.name).expect("the victim is there");
    assert!(restored(&repository, same, "disk0").unwrap() == scene.holds[&victim.session()]);
}

#[test]
fn a_second_intent_with_the_same_id_ends_no_session() {
    let mut scene = scene();
    let (store, decision) = running(&scene);
    scene.store = store;
    let own = unnamed(&scene.repository(), decision.session);
    let intent = Intent { session: decision.session, decision: own.clone(), generation: 0, time: scene.time };
    let (name, bytes) = intent.seal(scene.repository().keys(), SALT);
    put(&scene, &name, &bytes);
    plant_abort(&scene, &own);
    let before = scene.count("d/host-b/");
    let report = scene.prune_as(&USUAL).unwrap();
    assert_eq!(scene.count("d/host-b/"), before);
    assert_eq!(report.waiting.len(), 1);
}

#[test]
fn a_planted_abort_removes_no_record_of_what_moved() {
    let mut scene = Scene::new();
    let mut disk = noise(1, 600_000);
    let mut sessions = Vec::new();
    for day in 0..8usize {
        sessions.push(scene.back_up("vm", &disk));
        for place in 0..6 {
            let at = (place * 97_000 + day * 7_000) % 590_000;
            disk[at..at + 6_000].copy_from_slice(&noise((day * 10 + place) as u64 + 1000, 6_000));
        }
    }
    sessions.push(scene.back_up("vm", &disk));
    for session in &sessions[..8] {
        scene.forget(*session);
    }
    let all = crate::scene::Call { max_unused: keepstone_engine::prune::Unused::Bytes(0), ..USUAL };
    let report = scene.prune_as(&all).unwrap();
    assert!(report.repacked.unwrap().emptied > 0);
    scene.assert_holds();
    let records = scene.names("k/");
    assert!(!records.is_empty());
    for record in records {
        let Some(BlobKind::Repack(session)) = record.kind() else { panic!() };
        let name = unnamed(&scene.repository(), session);
        plant_abort(&scene, &name);
    }
    for _ in 0..2 {
        scene.prune();
    }
    assert!(scene.count("k/") > 0);
    scene.assert_holds();
}

#[test]
fn a_decoy_with_the_id_of_a_session_that_runs_makes_no_record_apply_to_that() {
    let mut scene = Scene::new();
    let old = noise(1, 400_000);
    let mut new = old.clone();
    for place in 0..20 {
        new[place * 20_000..][..10_000].copy_from_slice(&noise(place as u64 + 100, 10_000));
    }
    let first = scene.back_up("vm", &old);
    scene.back_up("vm", &new);
    // A backup that refers to chunks which only a snapshot needs that is then forgotten; it has still to commit.
    let victim = scene.back_up("third", &old);
    let name = latest(&scene.repository(), "third").name;
    let decision = scene.store.get(&name.blob(), None).unwrap();
    scene.store.delete(&name.blob()).unwrap();
    scene.forget(first);
    // The thief's snapshot has its id, and needs less.
    let repository = scene.repository();
    let mut commit = latest(&repository, "vm").commit;
    commit.session = victim;
    commit.vm = "decoy".into();
    commit.parent = None;
    let vm = repository.keys().vm_tag("decoy");
    let decoy = DecisionName { vm, writer: WriterId::new("thief").unwrap(), seq: 0, session: victim };
    let commit = Decision::Commit(Box::new(commit)).seal(repository.keys(), &decoy, SALT);
    put(&scene, &decoy.blob(), &commit);
    drop(repository);
    let all = crate::scene::Call { max_unused: keepstone_engine::prune::Unused::Bytes(0), ..USUAL };
    let report = scene.prune_as(&all).unwrap();
    assert!(report.repacked.as_ref().is_some_and(|repacked| repacked.emptied > 0), "{report:?}");
    put(&scene, &name.blob(), &decision);
    for _ in 0..2 {
        scene.prune_as(&all).unwrap();
    }
    let repository = scene.repository();
    let left = list(&repository, None).unwrap().snapshots;
    for (session, bytes) in &scene.holds {
        let own =
            |left: &&keepstone_engine::snapshots::Snapshot| left.session() == *session && left.name != decoy;
        let snapshot = left.iter().find(own).expect("it is there");
        assert!(
            restored(&repository, snapshot, "disk0").unwrap() == *bytes,
            "{session} of {}",
            snapshot.commit.vm
        );
    }
}
