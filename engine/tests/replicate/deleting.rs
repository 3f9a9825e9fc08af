//! What the source deleted is deleted at the destination, and nothing that is needed there.

use crate::place::{ALL, DELETING, all_of, copied_three_days, copy, plan, snapshots_at, whole};
use crate::scene::ALL_UNUSED;
use crate::world::{noise, open, undamaged};
use keepstone_engine::BlobStore;
use keepstone_engine::replicate::ReplicateJob;
use keepstone_engine::store::MemoryStore;
use repo_format::BlobName;

fn names(store: &MemoryStore, prefixes: &[&str]) -> Vec<BlobName> {
    let is_wanted = |name: &BlobName| prefixes.iter().any(|prefix| name.as_str().starts_with(prefix));
    let is_canary = |name: &BlobName| matches!(name.kind(), Some(repo_format::BlobKind::Canary));
    store.names().into_iter().filter(|name| is_wanted(name) && !is_canary(name)).collect()
}

#[test]
fn what_the_source_deleted_goes_only_where_that_is_asked_for() {
    let (mut scene, there) = copied_three_days();
    let before = names(&there, &["d/", "m/"]);
    scene.forget_first_day();
    scene.prune();
    copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!(names(&there, &["d/", "m/"]), before);
    let planned = plan(&scene.store, &there, &DELETING).unwrap();
    assert_eq!(names(&there, &["d/", "m/"]), before);
    let report = copy(&scene.store, &there, &DELETING).unwrap();
    assert_eq!(planned.deleted, report.deleted);
    assert_eq!(report.deleted.snapshots, 1);
    assert_eq!(names(&there, &["d/", "m/", "i/", "r/"]), names(&scene.store, &["d/", "m/", "i/", "r/"]));
    whole(&there, &scene.holds);
    assert_eq!(snapshots_at(&there), all_of(&scene));
    undamaged(&open(&there));
    assert_eq!(
        copy(&scene.store, &there, &DELETING).unwrap().deleted,
        keepstone_engine::replicate::Deleted::default()
    );
}

#[test]
fn a_pack_that_was_moved_stays_until_what_it_was_moved_to_is_there() {
    let (mut scene, there) = copied_three_days();
    scene.forget_first_day();
    scene.prune_as(&ALL_UNUSED).unwrap();
    // Of a VM that is not there, so that no repack session is copied.
    let vms = ["none".to_owned()];
    copy(&scene.store, &there, &ReplicateJob { vms: &vms, ..DELETING }).unwrap();
    whole(&there, &scene.holds);
    assert_eq!(snapshots_at(&there), all_of(&scene));
    copy(&scene.store, &there, &DELETING).unwrap();
    undamaged(&open(&there));
    whole(&there, &scene.holds);
    assert_eq!(names(&there, &["d/", "m/"]), names(&scene.store, &["d/", "m/"]));
}

#[test]
fn nothing_is_deleted_where_something_could_not_be_copied() {
    let (mut scene, there) = copied_three_days();
    scene.forget_first_day();
    scene.prune();
    let new = scene.back_up("third", &noise(50, 100_000));
    let pack = scene.names("d/").into_iter().find(|name| name.as_str().contains(&new.to_string())).unwrap();
    scene.store.delete(&pack).unwrap();
    let before = names(&there, &["d/", "m/", "r/"]);
    let report = copy(&scene.store, &there, &DELETING).unwrap();
    assert_eq!((report.failed.len(), report.deleted.packs.count), (1, 0));
    for name in before {
        assert!(there.get(&name, None).is_ok(), "{name}");
    }
}
