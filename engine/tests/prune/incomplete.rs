//! Promoted places at which not everything has arrived: what is backed up there is whole all the same.

use crate::repacking::scattered;
use crate::scene::{ALL_UNUSED, Scene};
use crate::world::{latest, noise, retention_key};
use keepstone_engine::BlobStore;
use keepstone_engine::Extent;
use keepstone_engine::snapshots::{Selector, find};
use keepstone_engine::source::MemoryDisk;
use repo_format::{BlobKind, BlobName, Condemned, PackRef, SessionId};

/// A disk at a point, and what changed since another one.
fn tracked(bytes: &[u8], point: &str, since: Option<(&str, u64, u64)>) -> MemoryDisk {
    let changes = since
        .map(|(point, start, end)| (point.to_owned(), Extent::between(start, end).into_iter().collect()));
    MemoryDisk { changes, change_id: Some(point.to_owned()), ..MemoryDisk::new(bytes.to_vec()) }
}

/// Lets more of a source arrive.
pub fn arrive(source: &Scene, place: &Scene, arrives: impl Fn(&BlobName) -> bool) {
    for name in source.store.names().iter().filter(|name| arrives(name)) {
        let _there_already = place.store.put_new(name, &source.store.get(name, None).unwrap()).unwrap();
    }
}

pub fn parent(scene: &Scene, session: SessionId) -> Option<SessionId> {
    let found = find(&scene.repository(), &Selector::Id(session.to_string())).unwrap();
    found.commit.parent.map(|parent| parent.session)
}

#[test]
fn a_backup_is_built_on_what_arrives_after_the_promotion_only_if_it_is_whole() {
    let mut source = Scene::new();
    let mut bytes = noise(1, 400_000);
    let first = source.back_up_disk("vm", &tracked(&bytes, "1", None));
    let mut scene = source.arrived(|_| true);
    scene.part();
    scene.promote();
    bytes[..50_000].copy_from_slice(&noise(2, 50_000));
    let late = source.back_up_disk("vm", &tracked(&bytes, "2", Some(("1", 0, 50_000))));
    // Everything arrives but what it stored of the disk.
    arrive(&source, &scene, |name| !name.as_str().starts_with("d/"));
    bytes[300_000..310_000].copy_from_slice(&noise(3, 10_000));
    let disk = tracked(&bytes, "3", Some(("2", 300_000, 310_000)));
    let mut whole = scene.copied();
    let here = scene.back_up_disk("vm", &disk);
    assert_eq!(parent(&scene, here), Some(first));
    scene.assert_holds();
    arrive(&source, &whole, |_| true);
    let here = whole.back_up_disk("vm", &disk);
    assert_eq!(parent(&whole, here), Some(late));
    whole.assert_holds();
}

#[test]
fn a_backup_names_nothing_condemned_that_leads_to_what_did_not_arrive() {
    let before = scattered();
    let after = before.copied();
    after.prune_as(&ALL_UNUSED).unwrap();
    // The record and its decision arrived, and the packs that it leads to did not.
    let merged = before.copied();
    arrive(&after, &merged, |name| {
        matches!(name.kind(), Some(BlobKind::Repack(_) | BlobKind::Decision(_) | BlobKind::Intent { .. }))
    });
    let mut scene = merged.arrived(|_| true);
    let report = scene.promote();
    assert_eq!(report.set_aside.len(), 0);
    // What the source has deleted: some of it was moved by the record, which nobody has here where it went.
    let kept = after.store.names();
    let packs = scene.store.names().into_iter().filter_map(|name| match name.kind() {
        Some(BlobKind::Pack(pack)) if !kept.contains(&name) => Some((name.clone(), pack)),
        _ => None,
    });
    let packs: Vec<_> = packs.collect();
    let len = |name: &BlobName| u32::try_from(scene.store.get(name, None).unwrap().len()).unwrap();
    let mut condemned: Vec<PackRef> =
        packs.iter().map(|(name, pack)| PackRef { name: pack.clone(), len: len(name) }).collect();
    condemned.sort();
    {
        // As by a prune that looked before the snapshots were there.
        let repository = scene.repository();
        let (name, bytes) = Condemned { packs: condemned }.seal(
            repository.keys(),
            &retention_key(&repository),
            report.first_generation,
            [4; 32],
        );
        scene.store.put_new(&name, &bytes).unwrap();
    }
    let newest = latest(&scene.repository(), "vm").session();
    let bytes = scene.holds[&newest].clone();
    let here = scene.back_up("vm", &bytes);
    // Once it is forgotten what else needs them, they go.
    for (name, _) in &packs {
        scene.store.delete(name).unwrap();
    }
    scene.holds.retain(|session, _| *session == here);
    scene.assert_holds();
}
