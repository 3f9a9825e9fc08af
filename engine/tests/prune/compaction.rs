//! The index stays small, and goes on being of use.

use crate::scene::Scene;
use crate::world::{memory_index, noise};
use keepstone_engine::index::{Preference, sync};
use keepstone_engine::observer::Quiet;

#[test]
fn index_blobs_stay_few_over_many_backups_and_what_they_list_is_still_found() {
    let mut scene = Scene::new();
    let mut counts = Vec::new();
    for day in 0..60 {
        scene.back_up("vm", &noise(day, 30_000));
        scene.prune();
        counts.push(scene.count("i/"));
    }
    assert!(counts.iter().all(|count| *count <= 16), "{counts:?}");
    // Everything that was ever stored is found.
    let data = scene.count("d/");
    for day in [0, 7, 31, 59] {
        scene.back_up(&format!("copy-{day}"), &noise(day, 30_000));
    }
    assert_eq!(scene.count("d/"), data);
    scene.assert_whole();
}

#[test]
fn packs_that_are_deleted_leave_the_index() {
    let mut scene = Scene::new();
    for day in 0..20 {
        scene.back_up("vm", &noise(day, 30_000));
    }
    scene.prune();
    let sessions: Vec<_> = scene.holds.keys().copied().collect();
    for session in &sessions[..15] {
        scene.forget(*session);
    }
    scene.prune();
    scene.assert_whole();
    let repository = scene.repository();
    let mut index = memory_index(&repository);
    sync(&mut index, &scene.store, repository.keys(), &Preference::default(), &Quiet).unwrap();
    let all = 20 * 30_000 / 1000;
    assert!(index.entries() < all / 2, "{} of about {all} entries are left", index.entries());
}
