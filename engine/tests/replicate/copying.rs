//! What is copied, and what is not.

use crate::place::{ALL, Watched, all_of, copied_three_days, copy, plan, snapshots_at, whole};
use crate::scene::{ALL_UNUSED, Scene};
use crate::world::{NOW, noise, open, retention_key, undamaged};
use keepstone_engine::pins::{self, Pinning};
use keepstone_engine::replicate::{ReplicateJob, There};
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::store::{MemoryStore, RecordingStore};
use keepstone_engine::{BlobStore, Entropy};
use repo_format::BlobName;

#[test]
fn every_snapshot_of_a_copy_restores_from_it_alone() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!((report.snapshots.copied, report.failed.len()), (4, 0));
    assert_eq!(report.bytes_through_host, report.blobs.bytes);
    let mut found = whole(&there, &scene.holds);
    found.sort();
    assert_eq!(found, all_of(&scene));
    undamaged(&open(&there));
    // All but the mark of a replica is at the source.
    let names: Vec<BlobName> = there.names();
    let new: Vec<&BlobName> = names.iter().filter(|name| scene.store.get(name, None).is_err()).collect();
    assert_eq!(new, [&BlobName::parse("lineage/replica").unwrap()]);
}

#[test]
fn a_run_with_nothing_new_reads_neither_maps_nor_packs_and_creates_nothing() {
    let (scene, there) = copied_three_days();
    let source = Watched::new(scene.store.clone());
    let destination = RecordingStore::new(there.clone());
    let names = there.names();
    let report = copy(&source, &destination, &ALL).unwrap();
    assert_eq!((report.snapshots.copied, report.snapshots.there), (0, 4));
    assert_eq!((report.blobs.count, there.names()), (0, names));
    let read = source.read.into_inner().unwrap();
    let packs: Vec<&BlobName> =
        read.iter().filter(|name| matches!(&name.as_str()[..2], "d/" | "m/" | "r/" | "i/")).collect();
    assert!(packs.is_empty(), "{packs:?}");
    assert!(destination.requests().list <= 12, "{:?}", destination.requests());
}

#[test]
fn only_what_is_new_is_copied() {
    let (mut scene, there) = copied_three_days();
    let mut disk = noise(1, 300_000);
    disk[..150_000].copy_from_slice(&noise(3, 150_000));
    disk[200_000..210_000].copy_from_slice(&noise(9, 10_000));
    scene.back_up("vm", &disk);
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!((report.snapshots.copied, report.snapshots.there), (1, 4));
    assert!(report.packs.bytes < 60_000, "{report:?}");
    whole(&there, &scene.holds);
    assert_eq!(snapshots_at(&there), all_of(&scene));
}

#[test]
fn only_the_vms_that_are_asked_for_are_copied() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    let vms = ["other".to_owned()];
    let job = ReplicateJob { vms: &vms, ..ALL };
    let report = copy(&scene.store, &there, &job).unwrap();
    assert_eq!(report.snapshots.copied, 1);
    let found = whole(&there, &scene.holds);
    let other = find(&open(&scene.store), &Selector::Latest("other".to_owned())).unwrap();
    assert_eq!(found, [other.session()]);
    // And then the rest.
    assert_eq!(copy(&scene.store, &there, &ALL).unwrap().snapshots.copied, 3);
    whole(&there, &scene.holds);
    assert_eq!(snapshots_at(&there), all_of(&scene));
}

#[test]
fn only_the_newest_of_each_vm_are_copied() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    let job = ReplicateJob { last: Some(1), ..ALL };
    assert_eq!(copy(&scene.store, &there, &job).unwrap().snapshots.copied, 2);
    let mut found = whole(&there, &scene.holds);
    found.sort();
    let source = open(&scene.store);
    let mut newest =
        ["vm", "other"].map(|vm| find(&source, &Selector::Latest(vm.to_owned())).unwrap().session());
    newest.sort();
    assert_eq!(found, newest);
    let two = ReplicateJob { last: Some(2), ..ALL };
    let report = copy(&scene.store, &there, &two).unwrap();
    assert_eq!((report.snapshots.copied, report.snapshots.there), (1, 2));
    whole(&there, &scene.holds);
}

#[test]
fn tombstones_and_pins_are_copied_and_what_is_forgotten_is_not() {
    let mut scene = Scene::three_days();
    let there = MemoryStore::new();
    let sessions = all_of(&scene);
    let source = open(&scene.store);
    let snapshot = find(&source, &Selector::Id(sessions[0].to_string())).unwrap();
    let pinned = Pinning::Pinned { reason: "audit" };
    pins::set(&source, &retention_key(&source), &snapshot, (pinned, NOW), &Entropy::new([3; 32])).unwrap();
    scene.forget(sessions[1]);
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!((report.snapshots.copied, report.snapshots.forgotten, report.facts), (3, 1, 2));
    assert!(pins::list(&open(&there), None).unwrap().pinned.contains_key(&sessions[0]));
    assert_eq!(snapshots_at(&there), all_of(&scene));
    // What was copied is forgotten there by the next run.
    scene.forget(sessions[2]);
    assert_eq!(copy(&scene.store, &there, &ALL).unwrap().facts, 1);
    whole(&there, &scene.holds);
    assert_eq!(snapshots_at(&there), all_of(&scene));
}

#[test]
fn what_was_packed_again_is_copied_with_the_records_that_lead_to_it() {
    let mut scene = Scene::three_days();
    let there = MemoryStore::new();
    scene.forget_first_day();
    let pruned = scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(pruned.repacked.is_some(), "{pruned:?}");
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!(report.repacks, 1, "{report:?}");
    whole(&there, &scene.holds);
    assert_eq!(snapshots_at(&there), all_of(&scene));
    undamaged(&open(&there));
}

#[test]
fn a_repack_session_is_copied_for_what_was_copied_before() {
    let (mut scene, there) = copied_three_days();
    scene.forget_first_day();
    scene.prune_as(&ALL_UNUSED).unwrap();
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!((report.snapshots.copied, report.repacks), (0, 1), "{report:?}");
    whole(&there, &scene.holds);
    let again = copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!((again.blobs.count, again.repacks), (0, 0), "{again:?}");
}

#[test]
fn a_dry_run_writes_nothing_and_tells_what_the_run_does() {
    let mut scene = Scene::three_days();
    let there = MemoryStore::new();
    let planned = plan(&scene.store, &there, &ALL).unwrap();
    assert!(there.names().is_empty());
    let mut done = copy(&scene.store, &there, &ALL).unwrap();
    done.bytes_through_host = 0;
    assert_eq!(planned, done);
    scene.back_up("vm", &noise(5, 300_000));
    let names = there.names();
    let planned = plan(&scene.store, &there, &ALL).unwrap();
    assert_eq!((planned.snapshots.copied, there.names()), (1, names));
    assert!(planned.packs.bytes > 250_000, "{planned:?}");
}

#[test]
fn what_the_copy_has_lost_is_copied_again_when_it_is_looked_for() {
    let (scene, there) = copied_three_days();
    let lost: Vec<BlobName> =
        there.names().into_iter().filter(|name| name.as_str().starts_with("d/")).step_by(2).collect();
    for name in &lost {
        there.delete(name).unwrap();
    }
    // A snapshot that is there is believed to be whole.
    assert_eq!(copy(&scene.store, &there, &ALL).unwrap().packs.count, 0);
    let checking = ReplicateJob { there: There::Checked, ..ALL };
    let report = copy(&scene.store, &there, &checking).unwrap();
    assert_eq!((report.packs.count, report.snapshots.copied), (lost.len() as u64, 0), "{report:?}");
    whole(&there, &scene.holds);
    undamaged(&open(&there));
}

#[test]
fn a_pack_that_the_source_has_lost_keeps_only_those_from_being_copied_that_need_it() {
    let mut scene = Scene::three_days();
    scene.back_up("third", &noise(77, 200_000));
    let third = find(&open(&scene.store), &Selector::Latest("third".to_owned())).unwrap().session();
    let pack = scene.names("d/").into_iter().find(|name| name.as_str().contains(&third.to_string())).unwrap();
    scene.store.delete(&pack).unwrap();
    let there = MemoryStore::new();
    let report = copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!((report.snapshots.copied, report.failed.len()), (4, 1), "{report:?}");
    assert_eq!(report.failed[0].snapshot, third.to_string());
    assert!(report.failed[0].reason.contains(pack.as_str()), "{report:?}");
    assert_eq!(whole(&there, &scene.holds).len(), 4);
}

#[test]
fn an_index_that_a_run_before_did_not_come_to_is_copied_with_its_restore_point() {
    let scene = Scene::three_days();
    let there = MemoryStore::new();
    copy(&scene.store, &there, &ALL).unwrap();
    let names = there.names();
    // As when it ended once the packs were there.
    for name in names.iter().filter(|name| matches!(&name.as_str()[..2], "i/" | "r/")) {
        there.delete(name).unwrap();
    }
    let vms = ["vm".to_owned(), "other".to_owned()];
    copy(&scene.store, &there, &ReplicateJob { vms: &vms, ..ALL }).unwrap();
    assert_eq!(there.names(), names);
    undamaged(&open(&there));
}
