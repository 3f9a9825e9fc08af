//! What is looked at, and what is no finding.

use crate::lab::{run, world};
use crate::world::{NOW, open};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::verify::{FindingKind, ReadData, Verified, VerifyJob, VerifyReport, Which, verify};
use keepstone_engine::{BlobStore, EngineError};
use repo_format::{BlobKind, PackKind};

#[test]
fn a_sound_repository_has_no_findings() {
    let world = world();
    let structure = run(&world.store, false);
    let data = run(&world.store, true);
    assert_eq!(structure.findings, []);
    assert_eq!((structure.snapshots, structure.disks, structure.read_bytes), (3, 3, 0));
    let packs = world.store.names().into_iter().filter(|name| matches!(name.kind(), Some(BlobKind::Pack(_))));
    let pack_bytes: u64 = packs.clone().map(|name| world.get(&name).len() as u64).sum();
    assert_eq!(structure.verified, Verified { never_bytes: pack_bytes, ..Verified::default() });
    let verified = Verified { bytes: pack_bytes, oldest: Some(NOW), ..Verified::default() };
    assert_eq!(data, VerifyReport { read_bytes: pack_bytes, verified, ..structure.clone() });
    assert_eq!(structure.packs, packs.count() as u64);
    assert!(structure.chunks > 400, "{structure:?}");
}

#[test]
fn only_the_snapshots_that_are_asked_for_are_verified() {
    let world = world();
    let repository = open(&world.store);
    let pack = world.packs(PackKind::Data, &world.other)[0].clone();
    let affected = world.affected(&repository, &world.frames(repository.keys(), &pack));
    world.store.delete(&pack.blob()).unwrap();
    let verified = |snapshot: &Snapshot| {
        let everything = VerifyJob::everything(ReadData::Everything, NOW);
        let job = VerifyJob { which: Which::These(vec![snapshot.clone()]), ..everything };
        verify(&repository, &job, &Quiet).unwrap()
    };
    let report = verified(&world.first);
    assert_eq!((report.findings, report.snapshots), (Vec::new(), 1));
    world.expect(&verified(&world.other), FindingKind::MissingPack, &pack.blob(), &affected);
}

#[test]
fn a_store_that_fails_is_an_error() {
    use keepstone_engine::store::{Fault, FaultStore};
    let world = world();
    let opened = FaultStore::new(world.store.copied(), u64::MAX, Fault::NotApplied);
    open(&opened);
    let first = opened.calls();
    let counted = FaultStore::new(world.store.copied(), u64::MAX, Fault::NotApplied);
    run(&counted, true);
    for call in first..counted.calls() {
        let store = FaultStore::new(world.store.copied(), call, Fault::NotApplied);
        let job = VerifyJob::everything(ReadData::Everything, NOW);
        let result = verify(&open(&store), &job, &Quiet);
        assert!(matches!(result, Err(EngineError::Store(_))), "call {call}: {result:?}");
    }
}
