//! Small objects that are damaged, and names without a meaning.

use crate::lab::{World, lost, run, world};
use crate::world::{NOW, open};
use keepstone_engine::BlobStore;
use keepstone_engine::observer::Quiet;
use keepstone_engine::verify::{FindingKind, ReadData, VerifyJob, VerifyReport, verify};
use repo_format::{BlobKind, BlobName, CANARY, ReplicaName};

#[test]
fn a_damaged_decision_loses_its_snapshot_alone() {
    let world = world();
    let name = world.second.name.blob();
    let bytes = world.get(&name);
    for damaged in
        [&bytes[..0], &bytes[..50], &bytes[..bytes.len() - 1], &world.get(&world.first.name.blob())]
    {
        world.store.overwrite(&name, damaged);
        let report = run(&world.store, false);
        let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
        assert_eq!((finding.kind, &*finding.blob), (FindingKind::DamagedDecision, name.as_str()));
        assert_eq!(finding.affected, [lost(&world.second, "vm")]);
        assert_eq!(report.snapshots, 2);
    }
}

#[test]
fn a_damaged_index_harms_no_snapshot() {
    let world = world();
    let is_index = |name: &BlobName| matches!(name.kind(), Some(BlobKind::Index { .. }));
    let name = world.store.names().into_iter().find(is_index).unwrap();
    let mut bytes = world.get(&name);
    bytes[100] ^= 1;
    world.store.overwrite(&name, &bytes);
    world.expect(&run(&world.store, true), FindingKind::DamagedIndex, &name, &[]);
    world.store.delete(&name).unwrap();
    let report = run(&world.store, true);
    world.expect(&report, FindingKind::MissingIndex, &name, &[]);
    assert_eq!((report.has_damage(), report.needs_attention()), (false, true));
}

#[test]
fn a_damaged_intent_key_slot_or_tombstone_is_found() {
    let world = world();
    let slot = BlobName::parse("keys/second").unwrap();
    world.store.overwrite(&slot, &world.get(&BlobName::parse("keys/first").unwrap())[1..]);
    let intent = BlobName::intent(&world.first.name.writer, world.first.session());
    world.store.overwrite(&intent, b"KEEPSEAL");
    let tombstone = BlobName::tombstone(world.first.name.vm, world.first.session());
    world.store.overwrite(&tombstone, b"");
    let generation = BlobName::condemned(0);
    world.store.overwrite(&generation, b"nothing");
    let record = BlobName::repack(world.first.session());
    world.store.overwrite(&record, b"nothing");
    let report = verify_but_slots(&world, &slot);
    let found: Vec<_> = report.findings.iter().map(|found| (found.kind, found.blob.clone())).collect();
    let expected = [
        (FindingKind::DamagedTombstone, tombstone.to_string()),
        (FindingKind::DamagedGeneration, generation.to_string()),
        (FindingKind::DamagedRepackRecord, record.to_string()),
        (FindingKind::DamagedKeySlot, slot.to_string()),
        (FindingKind::DamagedIntent, intent.to_string()),
    ];
    assert_eq!(found, expected);
    assert_eq!(report.snapshots, 3);
}

/// Verifies with a key slot that is damaged after the repository was opened.
fn verify_but_slots(world: &World, slot: &BlobName) -> VerifyReport {
    let damaged = world.get(slot);
    world.store.delete(slot).unwrap();
    let repository = open(&world.store);
    world.store.overwrite(slot, &damaged);
    verify(&repository, &VerifyJob::everything(ReadData::Nothing, NOW), &Quiet).unwrap()
}

#[test]
fn a_name_without_a_meaning_is_reported_and_is_no_damage() {
    let world = world();
    let name = BlobName::parse("d/lost-and-found").unwrap();
    world.store.overwrite(&name, b"something");
    let report = run(&world.store, true);
    world.expect(&report, FindingKind::UnknownName, &name, &[]);
    assert!(!report.has_damage());
}

#[test]
fn canaries_are_no_finding_and_harm_nothing() {
    let world = world();
    let before = run(&world.store, true).findings;
    for name in BlobName::canaries() {
        world.store.overwrite(&name, CANARY);
    }
    assert_eq!(run(&world.store, true).findings, before);
}

#[test]
fn a_canary_with_other_content_is_damage() {
    let world = world();
    let name = BlobName::parse("k/7_").unwrap();
    world.store.overwrite(&name, b"keepstone canary");
    let report = run(&world.store, true);
    world.expect(&report, FindingKind::DamagedCanary, &name, &[]);
    assert!(report.has_damage());
}

#[test]
fn what_is_told_of_replicas_is_checked_and_is_damage_if_it_cannot_be_read() {
    let world = world();
    let (marker, lineage) = (BlobName::replica_marker(), BlobName::lineage(1));
    let barrier = BlobName::barrier(&ReplicaName::new("west").unwrap(), 0);
    for (name, kind) in [
        (marker, FindingKind::DamagedLineage),
        (lineage, FindingKind::DamagedLineage),
        (barrier, FindingKind::DamagedBarrier),
    ] {
        world.store.overwrite(&name, b"nothing");
        let report = run(&world.store, true);
        world.expect(&report, kind, &name, &[]);
        assert!(report.has_damage());
        world.store.delete(&name).unwrap();
    }
}

#[test]
fn a_pin_that_cannot_be_read_is_damage() {
    let world = world();
    let name = BlobName::pin(world.first.name.vm, world.first.session(), 0);
    world.store.overwrite(&name, b"nothing");
    let report = run(&world.store, true);
    world.expect(&report, FindingKind::DamagedPin, &name, &[]);
    assert!(report.has_damage());
}
