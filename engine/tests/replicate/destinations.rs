//! Places that are no destination, and copies that are damaged.

use crate::place::{ALL, DELETING, copied_three_days, copy, copy_taking, plan, snapshots_at, whole};
use crate::scene::{ALL_UNUSED, Scene};
use crate::world::{NOW, PASSWORD, create_from_seed, noise, open, small_geometry};
use keepstone_engine::replicate::{Deleted, ReplicateError, ReplicateJob, Taking, There};
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, EngineError, Entropy, Repository};
use repo_format::{BlobKind, BlobName};

fn name(text: &str) -> BlobName {
    BlobName::parse(text).unwrap()
}

#[test]
fn another_repository_is_no_destination() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    create_from_seed(&there, small_geometry(), [9; 32]).unwrap();
    let names = there.names();
    let refused = copy(&scene.store, &there, &ALL);
    assert!(matches!(refused, Err(EngineError::OtherRepository { .. })), "{refused:?}");
    let refused = plan(&scene.store, &there, &ALL);
    assert!(matches!(refused, Err(EngineError::OtherRepository { .. })), "{refused:?}");
    assert_eq!(there.names(), names);
}

#[test]
fn a_place_that_is_not_empty_and_no_repository_is_no_destination() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    there.put_new(&name("d/host-a/00000000000000000000000000000000-00000000"), b"x").unwrap();
    let refused = copy(&scene.store, &there, &ALL);
    assert!(matches!(refused, Err(EngineError::ConfigMissing { .. })), "{refused:?}");
    assert_eq!(there.names().len(), 1);
}

#[test]
fn the_source_itself_is_no_destination() {
    let scene = Scene::three_days();
    let names = scene.store.names();
    let refused = copy(&scene.store, &scene.store, &ALL);
    assert!(matches!(refused, Err(EngineError::Replicate(ReplicateError::NotAReplica))), "{refused:?}");
    assert_eq!(scene.store.names(), names);
}

#[test]
fn a_copy_that_was_made_otherwise_becomes_a_replica_if_it_is_adopted() {
    let scene = Scene::three_days();
    let there = scene.store.copied();
    let lost: Vec<BlobName> =
        there.names().into_iter().filter(|name| name.as_str().starts_with("d/")).step_by(3).collect();
    for name in &lost {
        there.delete(name).unwrap();
    }
    let refused = copy(&scene.store, &there, &ALL);
    assert!(matches!(refused, Err(EngineError::Replicate(ReplicateError::NotAReplica))), "{refused:?}");
    let job = ReplicateJob { there: There::Checked, ..ALL };
    let report = copy_taking(Taking::AnyCopy, &scene.store, &there, &job).unwrap();
    assert_eq!(report.packs.count, lost.len() as u64, "{report:?}");
    assert_eq!(whole(&there, &scene.holds).len(), 4);
    copy(&scene.store, &there, &ALL).unwrap();
}

#[test]
fn a_copy_that_was_written_to_is_not_adopted() {
    let mut scene = Scene::three_days();
    let mut other = scene.copied();
    // Each run has an id of its own.
    other.back_up("vm", &noise(40, 100_000));
    other.back_up("vm", &noise(42, 100_000));
    scene.back_up("vm", &noise(41, 100_000));
    let refused = copy_taking(Taking::AnyCopy, &scene.store, &other.store, &ALL);
    assert!(matches!(refused, Err(EngineError::Replicate(ReplicateError::WrittenTo { .. }))), "{refused:?}");
}

#[test]
fn what_a_replica_was_copied_from_is_not_adopted_as_its_copy() {
    let (scene, there) = copied_three_days();
    let names = scene.store.names();
    let refused = copy_taking(Taking::AnyCopy, &there, &scene.store, &ALL);
    assert!(matches!(refused, Err(EngineError::Replicate(ReplicateError::NotAReplica))), "{refused:?}");
    assert_eq!(scene.store.names(), names);
}

#[test]
fn a_truncated_pack_of_the_copy_is_named_and_nothing_that_needs_it_is_copied() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    let vms = ["none".to_owned()];
    copy(&scene.store, &there, &ReplicateJob { vms: &vms, ..ALL }).unwrap();
    let pack = scene.names("d/").remove(0);
    let bytes = scene.store.get(&pack, None).unwrap();
    there.put_new(&pack, &bytes[..bytes.len() - 1]).unwrap();
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert!(!report.failed.is_empty());
    for failed in &report.failed {
        assert!(failed.reason.contains(pack.as_str()) && failed.reason.contains("damaged"), "{failed:?}");
    }
    whole(&there, &scene.holds);
    // Deleted, it is copied again.
    there.delete(&pack).unwrap();
    assert!(copy(&scene.store, &there, &ALL).unwrap().failed.is_empty());
    assert_eq!(snapshots_at(&there).len(), 4);
    whole(&there, &scene.holds);
}

#[test]
fn a_blob_with_other_bytes_is_named_and_stays() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    let vms = ["none".to_owned()];
    copy(&scene.store, &there, &ReplicateJob { vms: &vms, ..ALL }).unwrap();
    let decision = scene.names("r/").remove(0);
    let mut other = scene.store.get(&decision, None).unwrap();
    *other.last_mut().unwrap() ^= 1;
    // What is there and as long is believed; looked at, it is found.
    for (planted, there_is) in [(&other[..], There::Checked), (b"another one", There::Whole)] {
        there.overwrite(&decision, planted);
        let report = copy(&scene.store, &there, &ReplicateJob { there: there_is, ..ALL }).unwrap();
        assert_eq!(report.failed.len(), 1, "{report:?}");
        assert!(report.failed[0].reason.contains(decision.as_str()), "{report:?}");
        assert_eq!(there.get(&decision, None).unwrap(), planted);
    }
    drop(open(&there));
}

#[test]
fn a_tombstone_that_somebody_planted_at_the_copy_is_named_and_the_rest_is_copied() {
    let (mut scene, there) = copied_three_days();
    scene.forget_first_day();
    let tombstone = scene.names("f/").remove(0);
    there.put_new(&tombstone, b"planted").unwrap();
    scene.back_up("vm", &noise(41, 100_000));
    let report = copy(&scene.store, &there, &DELETING).unwrap();
    assert_eq!((report.snapshots.copied, report.failed.len()), (1, 1), "{report:?}");
    assert!(report.failed[0].reason.contains(tombstone.as_str()), "{report:?}");
    assert_eq!(report.deleted, Deleted::default());
}

#[test]
fn a_record_that_is_damaged_at_the_copy_is_named_and_nothing_is_copied_that_is_found_through_it() {
    let (mut scene, there) = (Scene::three_days(), MemoryStore::new());
    scene.forget_first_day();
    scene.prune_as(&ALL_UNUSED).unwrap();
    let vms = ["none".to_owned()];
    copy(&scene.store, &there, &ReplicateJob { vms: &vms, ..ALL }).unwrap();
    let is_of_repack = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Repack(_)));
    let record = scene.store.names().into_iter().find(is_of_repack).unwrap();
    let Some(BlobKind::Repack(session)) = record.kind() else { panic!("{record}") };
    for name in scene.store.names().iter().filter(|name| name.as_str().contains(&session.to_string())) {
        there.put_new(name, &scene.store.get(name, None).unwrap()).unwrap();
    }
    let mut bytes = scene.store.get(&record, None).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    there.overwrite(&record, &bytes);
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert!(report.failed.iter().all(|failed| failed.reason.contains(record.as_str())), "{report:?}");
    assert!(report.failed.iter().any(|failed| failed.snapshot == session.to_string()), "{report:?}");
    // Some do not need what was packed again.
    let whole_there = whole(&there, &scene.holds);
    assert!(whole_there.len() < scene.holds.len(), "{whole_there:?}");
    there.delete(&record).unwrap();
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(whole(&there, &scene.holds).len(), scene.holds.len());
}

#[test]
fn nothing_is_copied_to_a_place_that_may_have_been_promoted() {
    let (scene, there) = copied_three_days();
    let lineage = BlobName::lineage(1);
    there.put_new(&lineage, b"what told of a promotion, damaged").unwrap();
    let names = there.names();
    let refused = copy(&scene.store, &there, &DELETING).unwrap_err();
    assert!(matches!(&refused, EngineError::Damaged { name, .. } if *name == lineage), "{refused}");
    assert_eq!(there.names(), names);
}

#[test]
fn a_copy_is_copied_on_and_what_is_not_whole_in_it_is_left_out() {
    let scene = Scene::three_days();
    let (first, second) = (scene.store.copied(), MemoryStore::new());
    copy(&scene.store, &MemoryStore::new(), &ALL).unwrap();
    let packs = first.names().into_iter().filter(|name| name.as_str().starts_with("d/"));
    for pack in packs.take(1) {
        first.delete(&pack).unwrap();
    }
    let repository = Repository::open(&first, PASSWORD).unwrap();
    let marked = keepstone_engine::lineage::mark(&repository, ("elsewhere", NOW), &Entropy::new([4; 32]));
    marked.unwrap();
    let report = copy(&first, &second, &ALL).unwrap();
    assert!(report.failed.is_empty() && report.snapshots.incomplete > 0, "{report:?}");
    assert_eq!(report.snapshots.incomplete + report.snapshots.copied, 4);
    assert_eq!(whole(&second, &scene.holds).len() as u64, report.snapshots.copied);
}

#[test]
fn a_planted_tombstone_is_not_copied_and_told() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    let session = *scene.holds.keys().next().unwrap();
    let decision =
        scene.names("r/").into_iter().find(|name| name.as_str().ends_with(&session.to_string())).unwrap();
    let vm = decision.as_str().split('/').nth(1).unwrap().to_owned();
    let planted = name(&format!("f/{vm}/{session}"));
    scene.store.put_new(&planted, b"planted").unwrap();
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!((report.snapshots.copied, report.ignored), (4, vec![planted.as_str().to_owned()]));
    assert!(there.get(&planted, None).is_err());
    assert_eq!(whole(&there, &scene.holds).len(), 4);
}
