//! What stops a prune.

use crate::repacking::scattered;
use crate::scene::{ALL_UNUSED, Call, Scene, USUAL};
use crate::world::watched::{Call as StoreCall, Watched};
use crate::world::{noise, retention_key};
use keepstone_engine::store::{MemoryStore, Page, Put, StoreError};
use keepstone_engine::{BlobStore, EngineError};
use repo_format::{BlobKind, BlobName, CANARY, PREFIX_DECISIONS, Tombstone};
use std::ops::Range;

/// Two VMs with two snapshots each; the first of each is forgotten.
fn half_forgotten() -> Scene {
    let mut scene = Scene::new();
    for vm in ["a", "b"] {
        let seed = u64::from(vm.as_bytes()[0]);
        let first = scene.back_up(vm, &noise(seed, 100_000));
        scene.back_up(vm, &noise(seed + 100, 100_000));
        scene.forget(first);
    }
    scene
}

fn some(scene: &Scene, prefix: &str, of: impl Fn(&BlobKind) -> bool) -> BlobName {
    scene.names(prefix).into_iter().find(|name| name.kind().is_some_and(|kind| of(&kind))).unwrap()
}

#[test]
fn a_canary_that_is_not_listed_stops_it() {
    let scene = half_forgotten();
    scene.prune();
    let listed = ["s/", "r/", "f/", "k/", "d/", "m/"];
    let is_listed = |name: &BlobName| listed.iter().any(|prefix| name.as_str().starts_with(prefix));
    let canaries: Vec<BlobName> = BlobName::canaries().into_iter().filter(is_listed).collect();
    assert_eq!(canaries.len(), 3 * listed.len());
    for canary in canaries {
        let lying = Hiding { inner: scene.store.clone(), hidden: canary.clone() };
        match scene.prune_through(&lying, &USUAL) {
            Err(EngineError::ListingLies { name }) => assert_eq!(name, canary),
            other => panic!("{canary}: {other:?}"),
        }
    }
}

#[test]
fn a_canary_that_another_prune_makes_at_the_same_time_is_no_lie() {
    let scene = half_forgotten();
    let store = Watched::new(&scene.store, |call| {
        if let StoreCall::Put(name) = call
            && let Some(BlobKind::Canary) = name.kind()
        {
            scene.store.put_new(name, CANARY).unwrap();
        }
    });
    let report = scene.prune_through(&store, &USUAL).unwrap();
    assert!(report.sealed, "{report:?}");
    scene.assert_whole();
}

#[test]
fn a_snapshot_of_the_last_roster_that_is_not_listed_stops_it() {
    let mut scene = half_forgotten();
    scene.prune();
    let sessions: Vec<_> = scene.holds.keys().copied().collect();
    scene.forget(sessions[0]);
    let root = some(
        &scene,
        PREFIX_DECISIONS,
        |kind| matches!(kind, BlobKind::Decision(name) if name.session == sessions[1]),
    );
    let bytes = scene.store.get(&root, None).unwrap();
    scene.store.delete(&root).unwrap();
    match scene.prune_as(&USUAL) {
        Err(EngineError::SnapshotVanished { session }) => assert_eq!(session, sessions[1]),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.store.put_new(&root, &bytes).unwrap(), Put::Created);
    scene.prune();
    scene.assert_whole();
}

#[test]
fn a_decision_that_one_listing_does_not_show_stops_it() {
    let scene = half_forgotten();
    scene.prune();
    let root = scene.names(PREFIX_DECISIONS)[0].clone();
    let lying = Hiding { inner: scene.store.clone(), hidden: root };
    assert!(matches!(
        scene.prune_through(&lying, &USUAL),
        Err(EngineError::ListingLies { .. } | EngineError::SnapshotVanished { .. })
    ));
}

/// A scene in which packs were packed again, and a later backup is forgotten; and the name of the record.
fn repacked() -> (Scene, BlobName) {
    let mut scene = scattered();
    scene.prune_as(&ALL_UNUSED).unwrap();
    let last = scene.back_up("last", &noise(9, 50_000));
    scene.forget(last);
    let record = some(&scene, "k/", |kind| matches!(kind, BlobKind::Repack(_)));
    (scene, record)
}

#[test]
fn a_record_that_no_listing_shows_stops_it() {
    let (scene, record) = repacked();
    let lying = Hiding { inner: scene.store.clone(), hidden: record.clone() };
    match scene.prune_through(&lying, &USUAL) {
        Err(EngineError::ListingLies { name }) => assert_eq!(name, record),
        other => panic!("{other:?}"),
    }
    scene.prune();
    scene.assert_whole();
}

#[test]
fn packs_of_a_record_that_is_lost_stay_until_it_is_put_back() {
    let (scene, record) = repacked();
    let bytes = scene.store.get(&record, None).unwrap();
    scene.store.delete(&record).unwrap();
    let report = scene.prune();
    assert!(report.sealed && report.deleted.packs > 0);
    assert_eq!(report.ignored, [record.to_string()]);
    scene.store.put_new(&record, &bytes).unwrap();
    scene.prune();
    scene.assert_whole();
}

#[test]
fn a_snapshot_that_cannot_be_read_stops_it_until_it_is_forgotten() {
    let mut scene = half_forgotten();
    let session = *scene.holds.keys().next().unwrap();
    let root = some(
        &scene,
        PREFIX_DECISIONS,
        |kind| matches!(kind, BlobKind::Decision(name) if name.session == session),
    );
    scene.store.overwrite(&root, b"no decision");
    let packs = scene.count("d/");
    assert!(matches!(scene.prune_as(&USUAL), Err(EngineError::CannotMark { .. })));
    assert_eq!(scene.count("d/"), packs);
    let Some(BlobKind::Decision(decision)) = root.kind() else { panic!("{root}") };
    let repository = scene.repository();
    let tombstone = Tombstone { session, time: scene.time, decision };
    let (name, bytes) = tombstone.seal(repository.keys(), &retention_key(&repository), [9; 32]);
    scene.store.put_new(&name, &bytes).unwrap();
    scene.holds.remove(&session);
    assert!(scene.prune().deleted.packs > 0);
    scene.assert_whole();
}

#[test]
fn a_map_that_cannot_be_read_stops_it() {
    let scene = half_forgotten();
    for pack in scene.names("m/") {
        let bytes = scene.store.get(&pack, None).unwrap();
        scene.store.overwrite(&pack, &vec![0; bytes.len()]);
    }
    assert!(matches!(scene.prune_as(&USUAL), Err(EngineError::CannotMark { .. })));
}

#[test]
fn more_than_the_usual_share_needs_to_be_confirmed() {
    let scene = half_forgotten();
    let packs = scene.count("d/");
    match scene.prune_as(&Call { condemn_at_most: 20, ..USUAL }) {
        Err(EngineError::TooMuchCondemned { condemned, stored, limit: 20 }) => {
            assert!(condemned * 5 > stored);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((scene.count("d/"), scene.count("gc/")), (packs, 0));
    scene.prune_as(&Call { condemn_at_most: 60, ..USUAL }).unwrap();
    assert!(scene.count("d/") < packs);
    scene.assert_whole();
}

/// A store whose listings never show one blob.
struct Hiding {
    inner: MemoryStore,
    hidden: BlobName,
}

impl BlobStore for Hiding {
    fn put_new(&self, name: &BlobName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }

    fn get(&self, name: &BlobName, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name, range)
    }

    fn list(&self, prefix: &str, from: Option<&BlobName>, limit: usize) -> Result<Page, StoreError> {
        let mut page = self.inner.list(prefix, from, limit)?;
        if prefix != self.hidden.as_str() {
            page.blobs.retain(|info| info.name != self.hidden);
        }
        Ok(page)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}
