//! Blobs that are there and are not what they should be.

use crate::place::{assert_lacks, snapshots, told};
use crate::scene::{ALL_UNUSED, Scene};
use crate::world::misread::{Misread, Misreading};
use crate::world::watched::Watched;
use crate::world::{latest, noise, open, restored};
use keepstone_engine::BlobStore;
use keepstone_engine::replica::{Completeness, Missing, Whole};
use keepstone_engine::store::MemoryStore;
use repo_format::{
    BlobKind, BlobName, Commit, Decision, DecisionName, PackKind, PackName, RepackRecord, Repacked,
    SealedKind, SessionId, seal,
};

const SALT: [u8; 32] = [5; 32];

/// Two VMs, one with three restore points.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.back_up("other", &noise(9, 50_000));
    let mut disk = noise(1, 150_000);
    for day in 0..3usize {
        scene.back_up("web", &disk);
        disk[day * 40_000..day * 40_000 + 9_000].copy_from_slice(&noise(day as u64 + 50, 9_000));
    }
    scene
}

/// A repository whose packs were packed again, and its store before that was done.
fn repacked() -> (Scene, MemoryStore) {
    let mut scene = scene();
    let first = snapshots(&scene.repository()).into_iter().find(|root| root.commit.vm == "web").unwrap();
    scene.forget(first.session());
    let before = scene.store.copied();
    assert!(scene.prune_as(&ALL_UNUSED).unwrap().repacked.is_some_and(|repacked| repacked.emptied > 0));
    (scene, before)
}

fn missing_of_newest(store: &MemoryStore) -> Missing {
    let newest = latest(&open(store), "web").session();
    match told(store).remove(&newest) {
        Some(Whole::No(missing)) => missing,
        other => panic!("{other:?}"),
    }
}

fn whole(store: &MemoryStore) -> usize {
    told(store).values().filter(|whole| whole.is_whole()).count()
}

fn only_record(scene: &Scene) -> (BlobName, RepackRecord) {
    let [name] = scene.names("k/").try_into().unwrap();
    let bytes = scene.store.get(&name, None).unwrap();
    let record = RepackRecord::open(scene.repository().keys(), &name, &bytes).unwrap();
    (name, record)
}

fn newest_map_pack(store: &MemoryStore) -> BlobName {
    let newest = latest(&open(store), "web");
    newest.commit.disks[0].map.as_ref().unwrap().pack.name.blob()
}

#[test]
fn all_restore_points_of_a_whole_copy_are_whole_and_telling_so_writes_nothing() {
    let scene = scene();
    assert_eq!(whole(&scene.store), 4);
    let store = Watched::read_only(&scene.store);
    let repository = open(&store);
    for root in snapshots(&repository) {
        assert!(restored(&repository, &root, "disk0").unwrap() == scene.holds[&root.session()]);
    }
}

#[test]
fn what_is_read_wrongly_once_lacks_nothing() {
    let scene = scene();
    let roots = snapshots(&scene.repository());
    for misreading in [Misreading::Flipped, Misreading::Short] {
        for at in 0.. {
            let store = Misread::new(&scene.store, misreading, ("m/", at));
            let repository = open(&store);
            let found = Completeness::of_everything(&repository).unwrap().of(&roots).unwrap();
            assert!(found.iter().all(Whole::is_whole), "{misreading:?} of read {at}: {found:?}");
            if !store.has_happened() {
                break;
            }
        }
    }
}

#[test]
fn a_blob_that_is_there_in_part_is_missing_with_the_length_that_it_has() {
    let scene = scene();
    let name = scene.names("d/").into_iter().next_back().unwrap();
    let bytes = scene.store.get(&name, None).unwrap();
    for len in [0, 1, bytes.len() - 1] {
        let store = scene.store.copied();
        store.overwrite(&name, &bytes[..len]);
        let lacking: Vec<_> =
            told(&store).into_values().filter_map(|whole| whole.missing().cloned()).collect();
        assert!(!lacking.is_empty());
        for missing in lacking {
            assert_lacks(&store, &missing);
            assert_eq!((missing.blobs, missing.at_least), (1, false));
            assert_eq!((&missing.names[0].name, missing.names[0].found), (&name, Some(len as u64)));
        }
    }
}

#[test]
fn without_the_pack_of_a_map_no_more_is_known_than_that_it_is_missing() {
    let scene = scene();
    let name = newest_map_pack(&scene.store);
    scene.store.delete(&name).unwrap();
    let missing = missing_of_newest(&scene.store);
    assert!(missing.at_least && missing.damaged.is_empty());
    assert_eq!(missing.names[0].name, name);
    // The older restore points do not need it.
    assert_eq!(whole(&scene.store), 3);
}

#[test]
fn a_damaged_node_is_told_as_damage_and_its_restore_point_is_not_whole() {
    let scene = scene();
    let name = newest_map_pack(&scene.store);
    let at = latest(&scene.repository(), "web").commit.disks[0].map.clone().unwrap();
    let mut bytes = scene.store.get(&name, None).unwrap();
    bytes[at.offset as usize] ^= 1;
    scene.store.overwrite(&name, &bytes);
    let missing = missing_of_newest(&scene.store);
    assert_eq!((missing.blobs, missing.at_least), (0, true));
    assert_eq!(missing.damaged.len(), 1);
    assert_eq!(missing.damaged[0].blob, name);
    assert_eq!(whole(&scene.store), 3);
}

#[test]
fn a_record_counts_when_its_decision_is_there_and_not_before() {
    let (scene, before) = repacked();
    let (_, record) = only_record(&scene);
    let kept = snapshots(&scene.repository()).len();
    assert_eq!(whole(&scene.store), kept);
    let decision = scene.store.get(&record.decision.blob(), None).unwrap();
    scene.store.delete(&record.decision.blob()).unwrap();
    assert!(whole(&scene.store) < kept);
    for missing in told(&scene.store).values().filter_map(Whole::missing) {
        assert_lacks(&scene.store, missing);
        // Nothing leads to the new packs, so what is named are the old ones.
        assert!(missing.names.iter().all(|blob| before.get(&blob.name, None).is_ok()));
    }
    scene.store.put_new(&record.decision.blob(), &decision).unwrap();
    assert_eq!(whole(&scene.store), kept);
}

#[test]
fn what_a_record_leads_to_is_what_is_missing_of_a_pack_that_went() {
    let (scene, _) = repacked();
    let (_, record) = only_record(&scene);
    let new: Vec<&PackName> =
        record.packs.iter().map(|pack| &pack.name).filter(|pack| pack.session == record.session).collect();
    let gone = new.iter().find(|pack| pack.kind == PackKind::Data).unwrap().blob();
    scene.store.delete(&gone).unwrap();
    let missing = missing_of_newest(&scene.store);
    assert_eq!((missing.blobs, missing.at_least), (1, false));
    assert_eq!(missing.names[0].name, gone);
}

#[test]
fn a_record_that_the_retention_did_not_sign_moves_nothing() {
    let (scene, _) = repacked();
    let (name, record) = only_record(&scene);
    let kept = snapshots(&scene.repository()).len();
    let repository = scene.repository();
    let unsigned = seal(repository.keys(), SealedKind::Repack, &name, SALT, &record.encode());
    let store = scene.store.copied();
    store.overwrite(&name, &unsigned);
    assert!(whole(&store) < kept);
    // Nor does one that is damaged.
    store.overwrite(&name, &unsigned[..unsigned.len() - 1]);
    assert!(whole(&store) < kept);
}

#[test]
fn a_record_whose_session_ended_in_another_way_moves_nothing() {
    let (scene, _) = repacked();
    let (_, record) = only_record(&scene);
    let kept = snapshots(&scene.repository()).len();
    let repository = scene.repository();
    let other = SessionId([0xee; 16]);
    // The decision of another session under the name of the one that is looked for.
    let name = DecisionName { session: other, ..record.decision.clone() };
    let planted = Decision::Repack(Repacked { session: other, time: scene.time, program: "thief".into() });
    scene.store.overwrite(&record.decision.blob(), &planted.seal(repository.keys(), &name, SALT));
    assert!(whole(&scene.store) < kept);
}

#[test]
fn a_planted_decision_is_whole_only_if_what_it_names_is_there() {
    let scene = scene();
    let repository = scene.repository();
    let real = latest(&repository, "web");
    let session = SessionId([0xee; 16]);
    let mut commit = Commit { session, vm: "planted".to_owned(), ..real.commit.clone() };
    commit.disks[0].map.as_mut().unwrap().pack.name.session = session;
    let name = DecisionName {
        vm: repository.keys().vm_tag("planted"),
        writer: real.name.writer.clone(),
        seq: 0,
        session,
    };
    let blob = Decision::Commit(Box::new(commit)).seal(repository.keys(), &name, SALT);
    scene.store.put_new(&name.blob(), &blob).unwrap();
    let told = told(&scene.store);
    let missing = told[&session].missing().expect("it is not whole");
    assert!(missing.at_least);
    assert_lacks(&scene.store, missing);
    assert_eq!(told.values().filter(|whole| whole.is_whole()).count(), 4);
    // One that is not authentic is no restore point.
    let planted = name.blob();
    assert!(matches!(planted.kind(), Some(BlobKind::Decision(_))));
    scene.store.overwrite(&planted, &blob[..blob.len() - 1]);
    assert_eq!(snapshots(&scene.repository()).len(), 4);
}

#[test]
fn as_many_missing_blobs_are_named_as_are_asked_for() {
    let scene = scene();
    for name in scene.names("d/") {
        scene.store.delete(&name).unwrap();
    }
    let repository = scene.repository();
    let root = latest(&repository, "web");
    let named = |count: usize| {
        let mut completeness = Completeness::of_everything(&repository).unwrap().telling(count);
        completeness.of_one(&root).unwrap().missing().cloned().unwrap()
    };
    let (one, all) = (named(1), named(usize::MAX));
    assert_eq!((one.names.len(), one.blobs, one.bytes), (1, all.blobs, all.bytes));
    assert!(all.blobs > 1);
    assert_eq!(all.names.len() as u64, all.blobs);
}

#[test]
fn what_was_packed_again_after_records_were_read_is_whole_where_it_went() {
    let (scene, before) = repacked();
    let repository = open(&before);
    let mut completeness = Completeness::by_session(&repository).unwrap();
    for name in scene.store.names() {
        before.put_new(&name, &scene.store.get(&name, None).unwrap()).unwrap();
    }
    let (_, record) = only_record(&scene);
    for lead in &record.leads {
        before.delete(&record.packs[lead.old as usize].name.blob()).unwrap();
    }
    for root in snapshots(&repository) {
        assert_eq!(completeness.of_one(&root).unwrap(), Whole::Yes);
    }
}
