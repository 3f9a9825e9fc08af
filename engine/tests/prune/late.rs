//! Promoted places at which more arrives afterwards: it is offered and counted once it is whole.

use crate::incomplete::{arrive, parent};
use crate::scene::{DAY, Scene};
use crate::world::noise;
use keepstone_engine::forget::policy::{Bucket, Limit, Policy, Rule};
use keepstone_engine::forget::{ForgetJob, LastOnes, Times, What, plan};
use keepstone_engine::lineage::{LINEAGE_PROPERTY, standing};
use keepstone_engine::replica::{Doubt, find};
use keepstone_engine::snapshots::Selector;
use keepstone_engine::{BlobStore, EngineError, Entropy};
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
fn parted(source: &mut Scene) -> Scene {
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
    assert_eq!(kept(&scene), [(first, keeps.clone()), (late, "{SetAside}".to_owned())]);
    arrive(&source, &scene, |_| true);
    assert_eq!(newest(&scene, "vm"), late);
    assert_eq!(kept(&scene), [(first, "{}".to_owned()), (late, keeps)]);
}

#[test]
fn what_comes_while_a_place_is_promoted_is_in_doubt_too() {
    let mut source = Scene::new();
    let first = source.back_up("vm", &noise(1, 60_000));
    let mut scene = source.arrived(|_| true);
    // The host that promotes it began then; by the store's clock the promotion is told much later.
    scene.store.set_time(scene.time + 1000);
    let late = source.back_up("vm", &noise(2, 60_000));
    scene.part();
    scene.promote();
    let told = scene.store.copied();
    scene.store.delete(&BlobName::lineage(1)).unwrap();
    arrive(&source, &scene, |name| !name.as_str().starts_with("d/"));
    scene.store.set_time(scene.time + 2000);
    let bytes = told.get(&BlobName::lineage(1), None).unwrap();
    scene.store.put_new(&BlobName::lineage(1), &bytes).unwrap();
    scene.later(DAY);
    assert_eq!(newest(&scene, "vm"), first);
    let by_id = offered(&scene, &Selector::Id(late.to_string()));
    assert!(matches!(by_id, Err(EngineError::NotWhole { .. })), "{by_id:?}");
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
