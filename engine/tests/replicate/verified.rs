//! A copy of a part of the restore points is no damage, and what is lost in it later is.

use crate::place::{ALL, copy};
use crate::scene::{DAY, Scene};
use crate::world::{NOW, noise, open, retention_key};
use keepstone_engine::observer::Quiet;
use keepstone_engine::promotion::{PromoteJob, promote};
use keepstone_engine::replicate::ReplicateJob;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{Finding, FindingKind, ReadData, VerifyJob, verify};
use keepstone_engine::{BlobStore, Entropy};
use repo_format::{BlobKind, BlobName, SessionId};

/// What damage a verification of all that is there tells of.
fn damage(store: &MemoryStore) -> Vec<(FindingKind, String)> {
    let job = VerifyJob::everything(ReadData::Everything, NOW + 9 * DAY);
    let findings = verify(&open(store), &job, &Quiet).unwrap().findings;
    findings.into_iter().filter(Finding::is_damage).map(|found| (found.kind, found.blob)).collect()
}

/// The newest restore point of each VM, copied a day later.
fn newest_only(scene: &Scene) -> MemoryStore {
    let there = MemoryStore::new();
    there.set_time(NOW + DAY);
    copy(&scene.store, &there, &ReplicateJob { last: Some(1), ..ALL }).unwrap();
    there
}

fn promote_later(there: &MemoryStore) {
    there.set_time(NOW + 2 * DAY);
    let (repository, entropy) = (open(there), Entropy::new([6; 32]));
    let job = PromoteJob { time: NOW + 2 * DAY, program: "test", entropy: &entropy };
    promote(&repository, &retention_key(&repository), &job, &Quiet).unwrap();
}

fn decision_of(store: &MemoryStore, session: SessionId) -> BlobName {
    let names = store.names().into_iter();
    let mut found = names.filter(
        |name| matches!(name.kind(), Some(BlobKind::Decision(decision)) if decision.session == session),
    );
    found.next().expect("it is decided")
}

#[test]
fn the_newest_restore_points_alone_are_a_copy_without_damage_before_and_after_it_is_promoted() {
    let there = newest_only(&Scene::three_days());
    assert_eq!(damage(&there), []);
    promote_later(&there);
    assert_eq!(damage(&there), []);
}

#[test]
fn a_restore_point_that_stored_nothing_of_its_own_is_copied_without_damage() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        scene.back_up("vm", &noise(1, 100_000));
        scene.later(DAY);
    }
    let there = MemoryStore::new();
    copy(&scene.store, &there, &ALL).unwrap();
    assert_eq!(damage(&there), []);
}

#[test]
fn a_decision_that_is_lost_after_the_promotion_is_missed() {
    let mut scene = Scene::three_days();
    let there = newest_only(&scene);
    promote_later(&there);
    there.set_time(NOW + 3 * DAY);
    scene.later(3 * DAY);
    let bytes = noise(50, 50_000);
    let first = scene.try_back_up(&there, "host-a", "vm", &bytes).unwrap();
    scene.time += 1;
    scene.try_back_up(&there, "host-a", "vm", &noise(51, 50_000)).unwrap();
    assert_eq!(damage(&there), []);
    let lost = decision_of(&there, first);
    there.delete(&lost).unwrap();
    assert_eq!(damage(&there), [(FindingKind::MissingDecision, lost.to_string())]);
}
