//! Promoted places at which more arrives afterwards: it is offered and counted once it is whole.

use crate::incomplete::{arrive, parent};
use crate::scene::{ALL_UNUSED, DAY, Scene};
use crate::world::{NOW, noise, undamaged};
use keepstone_engine::forget::policy::{Bucket, Limit, Policy, Rule};
use keepstone_engine::forget::{ForgetError, ForgetJob, LastOnes, Times, What, plan};
use keepstone_engine::lineage::{LINEAGE_PROPERTY, standing};
use keepstone_engine::replica::{Doubt, find, find_any};
use keepstone_engine::snapshots::Selector;
use keepstone_engine::{EngineError, Entropy};
use repo_format::{BlobName, SessionId};

/// What a place offers.
fn offered(scene: &Scene, selector: &Selector) -> Result<SessionId, EngineError> {
    let repository = scene.repository();
    let doubt = Doubt::from(standing(&repository)?);
    Ok(find(&repository, &doubt, selector)?.session())
}

fn newest(scene: &Scene, vm: &str) -> SessionId {
    offered(scene, &Selector::Latest(vm.to_owned())).unwrap()
}

/// Why each restore point would stay if a policy kept the newest of each VM; it goes for no reason.
fn kept(scene: &Scene) -> Vec<(SessionId, String)> {
    let policy = Policy::new(&[Rule { bucket: Bucket::Each, limit: Limit::Newest(1) }]).unwrap();
    let job = ForgetJob {
        what: What::Policy { policy: &policy, vms: &[], tags: &[] },
        last_ones: LastOnes::Stay,
        times: Times::Trusted,
        time: scene.time,
        entropy: &Entropy::new([5; 32]),
    };
    let report = plan(&scene.repository(), &job).unwrap();
    let points = report.vms.iter().flat_map(|vm| &vm.points);
    points.map(|point| (point.snapshot.session(), format!("{:?}", point.reasons))).collect()
}

/// A place that was promoted, and the one that it was copied from, each a day later.
pub fn parted(source: &mut Scene) -> Scene {
    let mut scene = source.arrived(|_| true);
    scene.part();
    scene.promote();
    scene.later(DAY);
    source.later(DAY);
    scene
}

#[test]
fn what_arrives_late_is_offered_and_counted_only_if_it_is_whole() {
    let mut source = Scene::new();
    let first = source.back_up("vm", &noise(1, 60_000));
    let scene = parted(&mut source);
    let late = source.back_up("vm", &noise(2, 60_000));
    arrive(&source, &scene, |name| !name.as_str().starts_with("d/"));
    assert_eq!(newest(&scene, "vm"), first);
    let by_id = offered(&scene, &Selector::Id(late.to_string()));
    assert!(matches!(by_id, Err(EngineError::NotWhole { snapshot, .. }) if snapshot == late), "{by_id:?}");
    let keeps = "{Newest(Each), Latest}".to_owned();
    assert_eq!(kept(&scene), [(first, keeps.clone()), (late, "{Incomplete}".to_owned())]);
    arrive(&source, &scene, |_| true);
    assert_eq!(newest(&scene, "vm"), late);
    assert_eq!(kept(&scene), [(first, "{}".to_owned()), (late, keeps)]);
}

#[test]
fn the_newest_that_is_forgotten_or_pinned_is_the_newest_whole_one() {
    let mut source = Scene::new();
    source.back_up("vm", &noise(1, 60_000));
    let second = source.back_up("vm", &noise(2, 60_000));
    let scene = parted(&mut source);
    let late = source.back_up("vm", &noise(3, 60_000));
    arrive(&source, &scene, |name| !name.as_str().starts_with("d/"));
    let goes = |selector: Selector| {
        let named = [selector];
        let job = ForgetJob {
            what: What::Named(&named),
            last_ones: LastOnes::Stay,
            times: Times::Checked,
            time: scene.time,
            entropy: &Entropy::new([5; 32]),
        };
        plan(&scene.repository(), &job).unwrap().vms[0].points[0].snapshot.session()
    };
    assert_eq!(goes(Selector::Latest("vm".to_owned())), second);
    assert_eq!(goes(Selector::AtTime("vm".to_owned(), u64::MAX)), second);
    assert_eq!(goes(Selector::Id(late.to_string())), late);
    let repository = scene.repository();
    let doubt = Doubt::from(standing(&repository).unwrap());
    let pinned = |selector: Selector| find_any(&repository, &doubt, &selector).unwrap().session();
    assert_eq!(pinned(Selector::Latest("vm".to_owned())), second);
    assert_eq!(pinned(Selector::Id(late.to_string())), late);
}

#[test]
fn a_date_from_before_the_promotion_makes_nothing_whole() {
    let mut source = Scene::new();
    let first = source.back_up("vm", &noise(1, 60_000));
    let scene = parted(&mut source);
    let late = source.back_up("vm", &noise(2, 60_000));
    // As by a program that keeps dates when it copies.
    scene.store.set_time(NOW);
    arrive(&source, &scene, |name| !name.as_str().starts_with("d/"));
    assert_eq!(newest(&scene, "vm"), first);
    let keeps = "{Newest(Each), Latest}".to_owned();
    assert_eq!(kept(&scene), [(first, keeps), (late, "{Incomplete}".to_owned())]);
}

#[test]
fn what_was_made_in_a_lineage_before_is_from_elsewhere_in_the_next_one() {
    let mut source = Scene::new();
    source.back_up("vm", &noise(1, 60_000));
    let mut west = parted(&mut source);
    let first = west.back_up("vm", &noise(2, 60_000));
    let mut third = west.arrived(|name| !name.as_str().starts_with("lineage/"));
    third.part();
    third.promote();
    let late = west.back_up("vm", &noise(3, 60_000));
    arrive(&west, &third, |name| !name.as_str().starts_with("d/") && !name.as_str().starts_with("lineage/"));
    assert_eq!(newest(&third, "vm"), first);
    third.holds.remove(&late);
    let here = third.back_up("vm", &noise(4, 60_000));
    assert_eq!((parent(&third, here), newest(&third, "vm")), (Some(first), here));
    third.assert_holds();
}

#[test]
fn what_is_not_whole_is_no_other_restore_point_of_a_vm() {
    let mut source = Scene::new();
    let first = source.back_up("vm", &noise(1, 60_000));
    let scene = parted(&mut source);
    source.back_up("vm", &noise(2, 60_000));
    arrive(&source, &scene, |name| !name.as_str().starts_with("d/"));
    let by_name = [Selector::Id(first.to_string())];
    let job = ForgetJob {
        what: What::Named(&by_name),
        last_ones: LastOnes::Stay,
        times: Times::Checked,
        time: scene.time,
        entropy: &Entropy::new([5; 32]),
    };
    let refused = plan(&scene.repository(), &job);
    assert!(matches!(refused, Err(EngineError::Forget(ForgetError::LastOfVm { .. }))), "{refused:?}");
}

#[test]
fn verify_misses_nothing_of_what_came_late_or_was_aborted_and_removed() {
    let mut source = Scene::new();
    source.back_up("vm", &noise(1, 60_000));
    source.back_up("vm", &noise(2, 60_000));
    let third = source.back_up("vm", &noise(3, 60_000));
    source.later(DAY);
    let of_third = third.to_string();
    // Of the second nothing arrives at all, and of the third its intent.
    let is_first = |name: &BlobName| !name.as_str().starts_with("r/") || name.as_str().contains("/00000000-");
    let arrives = |name: &BlobName| {
        is_first(name) && (!name.as_str().contains(&of_third) || name.as_str().starts_with("s/"))
    };
    let mut scene = source.arrived(arrives);
    scene.part();
    let report = scene.promote();
    assert!(report.aborted.contains(&of_third), "{report:?}");
    scene.declare().unwrap();
    scene.later(DAY);
    scene.back_up("vm", &noise(4, 60_000));
    scene.prune_as(&ALL_UNUSED).unwrap();
    assert!(
        !scene
            .store
            .names()
            .iter()
            .any(|name| { name.as_str().starts_with("s/") && name.as_str().contains(&of_third) })
    );
    undamaged(&scene.repository());
    // A restore point arrives, and the decision of its parent does not.
    let mut late = source.arrived(is_first);
    late.part();
    late.promote();
    late.later(DAY);
    late.back_up("vm", &noise(5, 60_000));
    undamaged(&late.repository());
}

#[test]
fn verify_misses_no_intent_of_what_is_whole_without_it() {
    let mut source = Scene::new();
    source.back_up("vm", &noise(1, 60_000));
    let first = parted(&mut source);
    let late = source.back_up("vm", &noise(2, 60_000));
    let is_intent = |name: &BlobName| name.as_str().starts_with("s/");
    arrive(&source, &first, |name| !is_intent(name));
    assert_eq!(newest(&first, "vm"), late);
    undamaged(&first.repository());
    let mut without = source.arrived(|name| !is_intent(name));
    without.part();
    without.promote();
    undamaged(&without.repository());
}

#[test]
fn a_generation_that_comes_before_the_first_one_here_is_the_other_sides() {
    let mut source = Scene::new();
    let first = source.back_up("vm", &noise(1, 60_000));
    source.back_up("vm", &noise(2, 60_000));
    let mut scene = source.arrived(|_| true);
    scene.part();
    let report = scene.promote();
    assert_eq!(report.first_generation, 0);
    source.later(DAY);
    source.forget(first);
    source.prune();
    arrive(&source, &scene, |name| name.as_str().starts_with("gc/00000000/"));
    assert!(!scene.names("gc/00000000/").is_empty());
    undamaged(&scene.repository());
    assert_eq!(scene.plan(&ALL_UNUSED).unwrap().open_generation, None);
    assert!(scene.declare().unwrap());
    scene.later(DAY);
    undamaged(&scene.repository());
    assert_eq!(scene.prune().deleted.packs, 0);
    scene.assert_holds();
}

#[test]
fn what_is_made_here_stays_the_newest_of_a_vm_that_arrives_late() {
    let mut source = Scene::new();
    source.back_up("vm", &noise(1, 60_000));
    let mut scene = parted(&mut source);
    let first = scene.back_up("new", &noise(10, 60_000));
    for day in 0..3u64 {
        source.back_up("new", &noise(20 + day, 60_000));
    }
    arrive(&source, &scene, |_| true);
    assert_eq!(newest(&scene, "new"), first);
    let second = scene.back_up("new", &noise(11, 60_000));
    assert_eq!((parent(&scene, second), newest(&scene, "new")), (Some(first), second));
    scene.assert_holds();
}

#[test]
fn a_snapshot_tells_the_lineage_that_it_was_made_in() {
    let mut source = Scene::new();
    source.back_up("vm", &noise(1, 60_000));
    let mut scene = parted(&mut source);
    let report = scene.promote();
    scene.back_up("vm", &noise(2, 60_000));
    let told = |scene: &Scene| -> Vec<Option<String>> {
        let mut snapshots = scene.snapshots();
        snapshots.sort_by_key(|snapshot| snapshot.commit.time);
        let property = |properties: &[(String, String)]| {
            properties.iter().find(|(key, _)| key == LINEAGE_PROPERTY).map(|(_, id)| id.clone())
        };
        snapshots.iter().map(|snapshot| property(&snapshot.commit.properties)).collect()
    };
    assert_eq!(told(&scene), [None, Some(report.lineage)]);
    assert_eq!(told(&source), [None]);
}
