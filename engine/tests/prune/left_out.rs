//! A verification of a promoted place leaves out what came from elsewhere in part, with all that is theirs, and nothing else.

use crate::incomplete::arrive;
use crate::late::parted;
use crate::repacking::scattered;
use crate::scene::{ALL_UNUSED, DAY, PATIENCE, Scene};
use crate::world::{latest, noise, retention_key};
use keepstone_engine::observer::Quiet;
use keepstone_engine::pins::{self, Pinning};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::store::{Fault, FaultStore};
use keepstone_engine::verify::{Finding, FindingKind, ReadData, VerifyJob, VerifyReport, Which, verify};
use keepstone_engine::{BlobStore, Entropy};
use repo_format::{BlobKind, BlobName, PackKind, SessionId};

fn verified(scene: &Scene, which: Which) -> VerifyReport {
    // By then nobody would still be at work.
    let job = VerifyJob { which, read_data: ReadData::Everything, time: scene.time + 9 * DAY };
    verify(&scene.repository(), &job, &Quiet).unwrap()
}

/// What is found where all that is not whole is left out, which are these.
fn found(scene: &Scene, not_whole: &[SessionId]) -> Vec<(FindingKind, String)> {
    let report = verified(scene, Which::AllWhole);
    let left_out: Vec<SessionId> = report.not_whole.iter().map(|point| point.snapshot.session()).collect();
    assert_eq!(left_out, not_whole);
    assert_eq!(report.snapshots, (scene.snapshots().len() - not_whole.len()) as u64);
    report.findings.into_iter().map(|Finding { kind, blob, .. }| (kind, blob)).collect()
}

fn is_of(name: &BlobName, session: SessionId) -> bool {
    name.as_str().contains(&session.to_string())
}

fn is_pack(name: &BlobName, kind: PackKind, session: SessionId) -> bool {
    matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.kind == kind && pack.session == session)
}

fn first_pack(scene: &Scene, kind: PackKind, session: SessionId) -> BlobName {
    scene.store.names().into_iter().find(|name| is_pack(name, kind, session)).expect("it has some")
}

fn intent(snapshot: &Snapshot) -> BlobName {
    BlobName::intent(&snapshot.name.writer, snapshot.session())
}

/// A source with restore points of two VMs; the last one of `vm` shares half of its data with the one before it.
fn source() -> (Scene, SessionId, SessionId) {
    let mut source = Scene::new();
    let mut disk = noise(1, 300_000);
    let whole = source.back_up("vm", &disk);
    source.back_up("other", &noise(2, 100_000));
    disk[..150_000].copy_from_slice(&noise(3, 150_000));
    let torn = source.back_up("vm", &disk);
    (source, whole, torn)
}

/// What arrived of a source, promoted, with a restore point that was made there.
fn promoted(source: &Scene, arrives: impl Fn(&BlobName) -> bool) -> (Scene, SessionId) {
    let mut scene = source.arrived(arrives);
    scene.part();
    scene.promote();
    let here = scene.back_up("here", &noise(9, 200_000));
    (scene, here)
}

/// A place at which a pack of a restore point is missing, with that and one that was made there.
fn torn_place() -> (Scene, SessionId, SessionId) {
    let (source, _, torn) = source();
    let missing = first_pack(&source, PackKind::Data, torn);
    let (scene, here) = promoted(&source, |name| *name != missing);
    (scene, torn, here)
}

#[test]
fn nothing_is_missed_of_a_restore_point_whose_packs_came_in_part() {
    for kind in [PackKind::Data, PackKind::Map] {
        let (source, _, torn) = source();
        let missing = first_pack(&source, kind, torn);
        let (scene, _) = promoted(&source, |name| *name != missing);
        assert_eq!(found(&scene, &[torn]), []);
        assert_eq!(verified(&scene, Which::AllWhole).unneeded_packs, 0);
        // Where nobody knows that it came from elsewhere, it would be.
        assert!(verified(&scene, Which::Everything).has_damage());
    }
}

#[test]
fn a_part_of_a_map_that_came_and_is_damaged_is_damage() {
    let (source, ..) = source();
    let (scene, _) = promoted(&source, |_| true);
    let newest = latest(&scene.repository(), "vm");
    let at = newest.commit.disks[0].map.clone().unwrap();
    let pack = at.pack.name.blob();
    let mut bytes = scene.store.get(&pack, None).unwrap();
    bytes[at.offset as usize] ^= 1;
    scene.store.overwrite(&pack, &bytes);
    let report = verified(&scene, Which::AllWhole);
    assert_eq!(report.not_whole.len(), 1);
    let [Finding { kind, blob, affected, .. }] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!((*kind, blob.as_str()), (FindingKind::DamagedPack, pack.as_str()));
    assert_eq!(affected[0].snapshot, newest.session().to_string());
}

#[test]
fn whatever_has_not_come_what_was_made_here_is_looked_at() {
    let (source, _, torn) = source();
    let missing = first_pack(&source, PackKind::Map, torn);
    let (scene, here) = promoted(&source, |name| *name != missing);
    let pack = first_pack(&scene, PackKind::Data, here);
    scene.store.delete(&pack).unwrap();
    let found = found(&scene, &[torn]);
    assert!(found.contains(&(FindingKind::MissingPack, pack.to_string())), "{found:?}");
    assert!(found.iter().any(|(kind, _)| *kind == FindingKind::StaleIndex), "{found:?}");
}

#[test]
fn a_generation_with_the_last_number_keeps_nobody_from_looking() {
    let (source, ..) = source();
    let (scene, _) = promoted(&source, |_| true);
    let planted = BlobName::result(u32::MAX);
    scene.store.put_new(&planted, b"planted").unwrap();
    let found = found(&scene, &[]);
    assert!(found.iter().any(|(_, blob)| *blob == planted.to_string()), "{found:?}");
}

#[test]
fn nothing_is_missed_that_did_not_come_with_a_restore_point() {
    let (source, _, torn) = source();
    let pack = first_pack(&source, PackKind::Data, torn);
    // Its intent, its indexes, all of its packs, and everything but its decision.
    let comes_without: [&dyn Fn(&BlobName) -> bool; 4] = [
        &|name| matches!(name.kind(), Some(BlobKind::Intent { .. })),
        &|name| matches!(name.kind(), Some(BlobKind::Index { .. })),
        &|name| matches!(name.kind(), Some(BlobKind::Pack(_))),
        &|name| !matches!(name.kind(), Some(BlobKind::Decision(_))),
    ];
    for is_missing in comes_without {
        let (scene, _) = promoted(&source, |name| *name != pack && !(is_of(name, torn) && is_missing(name)));
        assert_eq!(found(&scene, &[torn]), []);
    }
}

#[test]
fn an_intent_that_did_not_come_is_not_missed_of_what_is_whole() {
    let (source, ..) = source();
    let (scene, _) = promoted(&source, |name| !matches!(name.kind(), Some(BlobKind::Intent { .. })));
    assert_eq!(found(&scene, &[]), []);
    assert!(!verified(&scene, Which::Everything).has_damage());
}

#[test]
fn an_index_that_did_not_come_is_missed_of_what_is_whole_alone() {
    let (source, whole, torn) = source();
    let pack = first_pack(&source, PackKind::Data, torn);
    let (scene, _) =
        promoted(&source, |name| *name != pack && !matches!(name.kind(), Some(BlobKind::Index { .. })));
    let other = latest(&scene.repository(), "other");
    let mut expected =
        [whole, other.session()].map(|session| BlobName::index(&other.name.writer, session, 0).to_string());
    expected.sort();
    assert_eq!(found(&scene, &[torn]), expected.map(|blob| (FindingKind::MissingIndex, blob)));
}

#[test]
fn a_session_that_came_in_part_is_not_missed() {
    let (source, ..) = source();
    let store = FaultStore::new(source.store.clone(), 30, Fault::ChangesForbidden);
    let _running = source.try_back_up(&store, "host-b", "running", &noise(8, 900_000));
    let is_of_it = |name: &BlobName| name.as_str().contains("/host-b/");
    assert!(source.store.names().iter().filter(|name| is_of_it(name)).count() > 2);
    // Its packs alone, and its intent with them.
    for prefixes in [&["d/", "i/"][..], &["d/", "s/", "i/"]] {
        let (scene, _) = promoted(&source, |name| {
            !is_of_it(name) || prefixes.iter().any(|prefix| name.as_str().starts_with(prefix))
        });
        assert_eq!(found(&scene, &[]), []);
    }
}

#[test]
fn a_parent_that_comes_late_and_in_part_is_not_missed() {
    let mut source = Scene::new();
    source.back_up("other", &noise(2, 100_000));
    let mut scene = parted(&mut source);
    let mut disk = noise(1, 300_000);
    let parent = source.back_up("vm", &disk);
    disk[..100_000].copy_from_slice(&noise(3, 100_000));
    let child = source.back_up("vm", &disk);
    for (prefix, not_whole) in [("r/", &[][..]), ("d/", &[child])] {
        let pack = first_pack(&source, PackKind::Data, child);
        for without in [&["r/"][..], &["r/", "s/"], &["r/", "s/", "i/"]] {
            let place = scene.copied();
            arrive(&source, &place, |name| {
                let is_late =
                    is_of(name, parent) && without.iter().any(|kind| name.as_str().starts_with(kind));
                !is_late && (prefix == "r/" || *name != pack)
            });
            assert_eq!(found(&place, not_whole), []);
        }
    }
    scene.back_up("here", &noise(9, 60_000));
    assert_eq!(found(&scene, &[]), []);
}

/// Days of which two are needed, and the same packed again.
fn repacked() -> (Scene, Scene) {
    let before = scattered();
    let after = before.copied();
    after.prune_as(&ALL_UNUSED).unwrap();
    (before, after)
}

/// What came of packing again: all but the packs.
fn is_told(name: &BlobName) -> bool {
    matches!(
        name.kind(),
        Some(BlobKind::Repack(_) | BlobKind::Decision(_) | BlobKind::Intent { .. } | BlobKind::Index { .. })
    )
}

/// The kinds of what is found, but for indexes that list what is not there.
fn but_stale(found: Vec<(FindingKind, String)>) -> Vec<(FindingKind, String)> {
    found.into_iter().filter(|(kind, _)| *kind != FindingKind::StaleIndex).collect()
}

#[test]
fn what_a_record_leads_to_is_not_missed_where_it_was_before() {
    let (before, after) = repacked();
    let merged = before.copied();
    arrive(&after, &merged, is_told);
    let (mut scene, _) = promoted(&merged, |_| true);
    assert_eq!(but_stale(found(&scene, &[])), []);
    let these = scene.snapshots();
    assert_eq!(verified(&scene, Which::These(these)).findings, []);
    scene.declare().unwrap();
    scene.later(PATIENCE);
    for _ in 0..2 {
        scene.prune_as(&ALL_UNUSED).unwrap();
        assert_eq!(but_stale(found(&scene, &[])), []);
    }
    // What is in neither place is missed.
    let needed = scene.snapshots().into_iter().find(|snapshot| snapshot.commit.vm == "here").unwrap();
    let lost = first_pack(&scene, PackKind::Data, needed.session());
    scene.store.delete(&lost).unwrap();
    assert_eq!(but_stale(found(&scene, &[])), [(FindingKind::MissingPack, lost.to_string())]);
}

#[test]
fn what_a_record_leads_to_is_not_missed_of_what_came_in_part() {
    let (before, after) = repacked();
    let merged = after.copied();
    merged.store.set_time(merged.time);
    // The newest has neither all of the old packs nor the new ones.
    let newest = latest(&after.repository(), "vm").session();
    let (scene, _) = promoted(
        &merged,
        |name| !matches!(name.kind(), Some(BlobKind::Pack(pack)) if pack.writer.as_str() == "pruner"),
    );
    let not_whole: Vec<SessionId> =
        verified(&scene, Which::AllWhole).not_whole.iter().map(|point| point.snapshot.session()).collect();
    assert!(not_whole.contains(&newest) && not_whole.len() < before.snapshots().len() + 1);
    assert_eq!(found(&scene, &not_whole), []);
}

#[test]
fn nothing_is_missed_after_a_prune_beside_what_came_in_part() {
    let (mut scene, torn, here) = torn_place();
    scene.declare().unwrap();
    scene.back_up("here", &noise(10, 200_000));
    scene.forget(here);
    scene.later(PATIENCE);
    for _ in 0..2 {
        scene.prune_as(&ALL_UNUSED).unwrap();
        assert_eq!(found(&scene, &[torn]), []);
        assert_eq!(verified(&scene, Which::AllWhole).unneeded_packs, 0);
    }
}

/// What is done to a blob, and what is found then.
type Harm<'h> = (&'h dyn Fn(&BlobName), BlobName, FindingKind);

#[test]
fn what_is_lost_of_a_restore_point_that_was_made_there_is_found() {
    let (mut scene, torn, first) = torn_place();
    let second = scene.back_up("here", &noise(10, 200_000));
    scene.back_up("here", &noise(11, 200_000));
    let decision =
        |session| scene.snapshots().into_iter().find(|snapshot| snapshot.session() == session).unwrap();
    let (first, second) = (decision(first), decision(second));
    let index = BlobName::index(&second.name.writer, second.session(), 0);
    let pack = first_pack(&scene, PackKind::Data, first.session());
    let lose = |name: &BlobName| scene.store.delete(name).unwrap();
    let tear = |name: &BlobName| {
        let bytes = scene.store.get(name, None).unwrap();
        scene.store.overwrite(name, &bytes[..bytes.len() / 2]);
    };
    let harms: [Harm<'_>; 6] = [
        (&lose, pack.clone(), FindingKind::MissingPack),
        (&tear, pack, FindingKind::WrongLength),
        (&tear, index.clone(), FindingKind::DamagedIndex),
        (&lose, index, FindingKind::MissingIndex),
        (&lose, intent(&second), FindingKind::MissingIntent),
        (&lose, second.name.blob(), FindingKind::MissingDecision),
    ];
    for (harm, name, kind) in harms {
        let bytes = scene.store.get(&name, None).unwrap();
        harm(&name);
        assert_eq!(but_stale(found(&scene, &[torn])), [(kind, name.to_string())]);
        scene.store.overwrite(&name, &bytes);
    }
    assert_eq!(found(&scene, &[torn]), []);
}

#[test]
fn a_pack_that_something_made_there_shares_with_what_came_in_part_is_missed() {
    let (source, whole, torn) = source();
    let missing = first_pack(&source, PackKind::Data, torn);
    let (mut scene, _) = promoted(&source, |name| *name != missing);
    // It is built on what is whole, which is lost with it.
    let here = scene.back_up("vm", &noise(1, 300_000));
    let shared = first_pack(&scene, PackKind::Data, whole);
    scene.store.delete(&shared).unwrap();
    let report = verified(&scene, Which::AllWhole);
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
    assert_eq!((finding.kind, &finding.blob), (FindingKind::MissingPack, &shared.to_string()));
    let affected: Vec<&str> = finding.affected.iter().map(|affected| affected.snapshot.as_str()).collect();
    assert_eq!(affected, [here.to_string()]);
}

#[test]
fn a_session_that_was_begun_there_and_not_ended_is_told_of() {
    let (scene, torn, _) = torn_place();
    let store = FaultStore::new(scene.store.clone(), 30, Fault::ChangesForbidden);
    let _ended = scene.try_back_up(&store, "host-b", "running", &noise(8, 900_000));
    let intent = scene.names("s/host-b/").remove(0);
    assert_eq!(found(&scene, &[torn]), [(FindingKind::UndecidedSession, intent.to_string())]);
    // What it waits for would not be known without it.
    scene.store.delete(&intent).unwrap();
    assert_eq!(found(&scene, &[torn]), [(FindingKind::MissingIntent, intent.to_string())]);
}

#[test]
fn a_pin_made_there_misses_its_snapshot_and_one_of_what_came_in_part_does_not() {
    let (scene, torn, here) = torn_place();
    let repository = scene.repository();
    let snapshot = |session| scene.snapshots().into_iter().find(|found| found.session() == session).unwrap();
    let (torn_one, here) = (snapshot(torn), snapshot(here));
    let key = retention_key(&repository);
    let entropy = Entropy::new([3; 32]);
    for snapshot in [&torn_one, &here] {
        pins::set(&repository, &key, snapshot, (Pinning::Pinned { reason: "" }, scene.time), &entropy)
            .unwrap();
    }
    assert_eq!(found(&scene, &[torn]), []);
    scene.store.delete(&here.name.blob()).unwrap();
    assert_eq!(found(&scene, &[torn]), [(FindingKind::MissingDecision, here.name.to_string())]);
}
