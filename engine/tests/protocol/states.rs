//! What a verification says of all that forgetting, pruning and repacking leave, and pass through.

use crate::moved::{at_each_call, delete, repack_and_delete};
use crate::pruner::{End, Repack, abort, condemn, forget, publish_result, put, seal_generation};
use crate::repack::{FIRST, Lab, SECOND};
use crate::world::{NOW, latest, retention_key};
use crate::{VM, next_day};
use keepstone_engine::extent::{Extent, normalized};
use keepstone_engine::observer::Quiet;
use keepstone_engine::verify::{FindingKind, ReadData, VerifyJob, VerifyReport, verify};
use keepstone_engine::{BlobStore, Repository};
use repo_format::{
    Barrier, BarrierFact, BlobName, CANARY, Condemned, Decision, DecisionName, GcResult, GenerationSeal,
    Intent, Lineage, LineageId, LineageStep, PackName, PackRef, Pin, RepackRecord, ReplicaName, SealedKind,
    SessionId, Tombstone, WriterId, seal,
};

fn verified(repository: &Repository<'_>) -> VerifyReport {
    let [quick, thorough] = [ReadData::Nothing, ReadData::Everything]
        .map(|read_data| verify(repository, &VerifyJob::everything(read_data, NOW), &Quiet).unwrap());
    // Reading all of it may only find more.
    for finding in &quick.findings {
        let same =
            thorough.findings.iter().any(|other| (other.kind, &other.blob) == (finding.kind, &finding.blob));
        assert!(same, "{finding:?}");
    }
    thorough
}

/// What is found but for indexes that list what is gone: the kind, the blob, and the ranges of the one disk that it concerns.
fn found(repository: &Repository<'_>) -> Vec<(FindingKind, String, Vec<Extent>)> {
    let ranges = |finding: &keepstone_engine::verify::Finding| {
        finding.affected.iter().flat_map(|affected| affected.ranges.clone()).collect()
    };
    let findings = verified(repository).findings;
    let found = findings.iter().filter(|finding| finding.kind != FindingKind::StaleIndex);
    found.map(|finding| (finding.kind, finding.blob.clone(), ranges(finding))).collect()
}

fn nothing_found(lab: &Lab) -> VerifyReport {
    let report = verified(&lab.repository());
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    report
}

/// Where the chunks are on the disk that the map says to be in a pack.
fn chunks_in(lab: &Lab, pack: &PackRef) -> Vec<Extent> {
    let mut ranges = Vec::new();
    for (start, at) in lab.chunks(&lab.parent()) {
        if at.pack == *pack {
            ranges.push(Extent { start, length: u64::from(at.plain_len) });
        }
    }
    normalized(ranges)
}

#[test]
fn a_generation_under_way_is_nothing_to_tell_of() {
    let lab = Lab::new();
    let repository = lab.repository();
    let needed = [lab.pack(1)];
    for name in BlobName::canaries() {
        lab.store.put_new(&name, CANARY).unwrap();
    }
    nothing_found(&lab);
    condemn(&repository, 0, &needed);
    nothing_found(&lab);
    publish_result(&repository, 0, &[]);
    nothing_found(&lab);
    seal_generation(&repository, 0);
    nothing_found(&lab);
}

#[test]
fn a_snapshot_that_is_forgotten_may_go_bit_by_bit() {
    let mut lab = Lab::new();
    let first = lab.parent();
    lab.disk.bytes = crate::world::noise(7, 500_000);
    lab.disk.changes = None;
    let (_, second) = lab.back_up(2);
    lab.disk = next_day(&lab.disk, 3);
    let repository = lab.repository();
    forget(&repository, &first.name);
    let report = nothing_found(&lab);
    assert!(report.unneeded_packs > 0);
    let packs: Vec<PackRef> = lab.all_packs(&first);
    condemn(&repository, 0, &packs);
    publish_result(&repository, 0, &packs);
    let indexes =
        lab.store.names().into_iter().filter(|name| name.as_str().contains(&first.session().to_string()));
    let others = indexes.filter(|name| !name.as_str().starts_with("f/"));
    for name in packs.iter().map(|pack| pack.name.blob()).chain(others) {
        lab.store.delete(&name).unwrap();
        let report = verified(&repository);
        // An index that lists packs that are gone, until it goes itself.
        assert!(report.findings.is_empty(), "without {name}: {:?}", report.findings);
    }
    seal_generation(&repository, 0);
    let report = nothing_found(&lab);
    assert_eq!((report.snapshots, report.unneeded_packs), (1, 0));
    assert_eq!(latest(&repository, VM), second);
}

#[test]
fn what_was_repacked_is_whole_before_and_after_the_old_packs_go() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let packs = nothing_found(&lab).packs;
    let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    let before = nothing_found(&lab);
    assert_eq!((before.packs, before.unneeded_packs, before.unneeded_bytes), (packs, 1, u64::from(old.len)));
    publish_result(&lab.repository(), 0, std::slice::from_ref(&old));
    nothing_found(&lab);
    delete(&lab.store, &[&old]);
    let after = nothing_found(&lab);
    assert_eq!((after.packs, after.unneeded_packs), (packs, 0));
    // And once more, and the maps as well.
    let newest = lab.repack(SECOND, &new, &[parent.session()], End::Commit);
    let maps = lab.map_packs(&parent);
    let applies_to = &[parent.session()];
    let map =
        Repack { session: 0xa3, from: &maps, applies_to, one_in: 1, end: End::Commit }.run(&lab.repository());
    let gone = [&[new], maps.as_slice()].concat();
    publish_result(&lab.repository(), 1, &gone);
    delete(&lab.store, &gone.iter().collect::<Vec<_>>());
    let after = nothing_found(&lab);
    assert_eq!((after.packs, after.unneeded_packs), (packs, 0));
    assert!(newest != map);
}

#[test]
fn a_repack_that_did_not_end_or_was_aborted_is_no_damage() {
    for end in [End::Undecided, End::Abort] {
        let lab = Lab::new();
        let (old, parent, repository) = (lab.pack(1), lab.parent(), lab.repository());
        lab.repack(FIRST, &old, &[parent.session()], end);
        let writer = WriterId::new("pruner").unwrap();
        let decision = DecisionName { vm: repository.keys().vm_tag(""), writer, seq: 0, session: FIRST };
        let intent = Intent { session: FIRST, decision: decision.clone(), generation: 0, time: NOW };
        put(&repository, intent.seal(repository.keys(), [3; 32]));
        let report = verified(&repository);
        assert!(!report.has_damage() && !report.needs_attention(), "{:?}", report.findings);
        let told: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
        let expected = if end == End::Undecided { vec![FindingKind::UndecidedSession] } else { Vec::new() };
        assert_eq!(told, expected);
        assert!(report.findings.iter().all(|finding| finding.detail.contains("a session of no VM")));
    }
}

#[test]
fn a_damaged_new_pack_is_told_of_with_what_it_harms() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    let mut bytes = lab.store.get(&new.name.blob(), None).unwrap();
    let len = bytes.len();
    // Two frames, far from each other.
    bytes[300] ^= 1;
    bytes[len / 2] ^= 1;
    lab.store.overwrite(&new.name.blob(), &bytes);
    // As long as the old pack is there, nothing is lost.
    assert_eq!(found(&lab.repository()), [(FindingKind::DamagedPack, new.name.to_string(), Vec::new())]);
    delete(&lab.store, &[&old]);
    let findings = found(&lab.repository());
    let [(FindingKind::DamagedPack, blob, ranges)] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!(*blob, new.name.to_string());
    let chunks: Vec<u64> =
        lab.chunks(&parent).into_iter().filter(|(_, at)| at.pack == old).map(|(start, _)| start).collect();
    assert_eq!(ranges.len(), 2, "of {} chunks", chunks.len());
    assert!(ranges.iter().all(|range| chunks.contains(&range.start)));
}

#[test]
fn a_new_pack_that_is_gone_is_missed_whether_the_old_one_is_there_or_not() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let new = lab.repack(FIRST, &old, &[parent.session()], End::Commit);
    let chunks = chunks_in(&lab, &old);
    delete(&lab.store, &[&new]);
    let expected = [(FindingKind::MissingPack, new.name.to_string(), chunks.clone())];
    assert_eq!(found(&lab.repository()), expected);
    delete(&lab.store, &[&old]);
    assert_eq!(found(&lab.repository()), expected);
}

#[test]
fn a_record_that_does_not_apply_does_not_replace_a_pack() {
    let lab = Lab::new();
    let old = lab.pack(1);
    let new = lab.repack(FIRST, &old, &[SessionId([9; 16])], End::Commit);
    let report = nothing_found(&lab);
    assert_eq!((report.unneeded_packs, report.unneeded_bytes), (1, u64::from(new.len)));
    delete(&lab.store, &[&old]);
    let report = verified(&lab.repository());
    let [finding, _stale_index] = report.findings.as_slice() else { panic!("{:?}", report.findings) };
    assert_eq!((finding.kind, &finding.blob), (FindingKind::MissingPack, &old.name.to_string()));
    assert!(finding.detail.contains("does not apply"), "{}", finding.detail);
    assert_eq!(finding.affected[0].ranges, chunks_in(&lab, &old));
}

#[test]
fn what_a_record_left_out_is_missed() {
    let lab = Lab::new();
    let (old, parent) = (lab.pack(1), lab.parent());
    let (from, applies_to) = (std::slice::from_ref(&old), &[parent.session()]);
    Repack { session: 0xa1, from, applies_to, one_in: 2, end: End::Commit }.run(&lab.repository());
    delete(&lab.store, &[&old]);
    let findings = found(&lab.repository());
    let [(FindingKind::MissingPack, blob, ranges)] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!(*blob, old.name.to_string());
    let length = |ranges: &[Extent]| ranges.iter().map(|range| range.length).sum::<u64>();
    let all = length(&chunks_in(&lab, &old));
    assert!((all / 4..all).contains(&length(ranges)), "{} of {all} bytes", length(ranges));
}

#[test]
fn a_delete_list_that_names_what_a_snapshot_needs_is_told_of_with_its_generation() {
    let lab = Lab::new();
    let (first, second) = (lab.pack(1), lab.pack(2));
    let repository = lab.repository();
    for generation in 0..2 {
        condemn(&repository, generation, &[]);
        publish_result(&repository, generation, &[]);
        seal_generation(&repository, generation);
    }
    publish_result(&repository, 2, &[first.clone(), second.clone()]);
    delete(&lab.store, &[&second]);
    let report = verified(&repository);
    let told: Vec<_> = report
        .findings
        .iter()
        .map(|finding| (finding.kind, finding.blob.clone(), finding.affected[0].ranges.clone()))
        .collect();
    let doomed = (FindingKind::CondemnedPack, first.name.to_string(), chunks_in(&lab, &first));
    let gone = (FindingKind::MissingPack, second.name.to_string(), chunks_in(&lab, &second));
    assert_eq!(told, [doomed, gone]);
    assert!(
        report.findings.iter().all(|finding| finding.is_damage() && finding.detail.contains("generation 2"))
    );
    // One that is forgotten needs nothing.
    forget(&repository, &lab.parent().name);
    nothing_found(&lab);
}

#[test]
fn objects_without_the_signature_of_the_retention_are_told_of_and_ignored() {
    let lab = Lab::new();
    let (parent, repository, packs) = (lab.parent(), lab.repository(), vec![lab.pack(1)]);
    let other = lab.pack(2);
    let writer = WriterId::new("pruner").unwrap();
    let unnamed = DecisionName { vm: repository.keys().vm_tag(""), writer, seq: 0, session: FIRST };
    let undecided = DecisionName { session: SECOND, seq: 9, ..parent.name.clone() };
    let new = PackRef {
        name: PackName { session: FIRST, writer: unnamed.writer.clone(), number: 0, ..other.name },
        len: 500,
    };
    let mut table = vec![packs[0].clone(), new];
    table.sort();
    let old = table.iter().position(|pack| *pack == packs[0]).unwrap() as u32;
    let record = RepackRecord {
        session: FIRST,
        decision: unnamed.clone(),
        applies_to: vec![parent.session()],
        packs: table,
        leads: vec![repo_format::Lead { old, new: vec![1 - old] }],
    };
    let (session, vm) = (parent.session(), parent.name.vm);
    let pin = Pin { session, decision: parent.name.clone(), time: NOW, pinned: true, reason: String::new() };
    let result = GcResult { delete: packs.clone(), rescued: Vec::new(), covers: 1, earlier: Vec::new() };
    let tombstone = Tombstone { session, time: NOW, decision: parent.name.clone() };
    let replica = ReplicaName::new("west").unwrap();
    let barrier = Barrier { replica, number: 0, time: NOW, fact: BarrierFact::Removed };
    let (id, step) = (LineageId([1; 16]), LineageStep::OtherSideGone);
    let lineage = Lineage { number: 1, id, time: NOW, step, first_generation: 1, set_aside: Vec::new() };
    let objects = [
        (SealedKind::Tombstone, BlobName::tombstone(vm, session), tombstone.encode()),
        (SealedKind::Condemned, BlobName::condemned(0), Condemned { packs }.encode()),
        (SealedKind::GcResult, BlobName::result(0), result.encode()),
        (
            SealedKind::GenerationSeal,
            BlobName::generation_seal(0),
            GenerationSeal { roster: Vec::new() }.encode(),
        ),
        (SealedKind::Repack, BlobName::repack(FIRST), record.encode()),
        (SealedKind::Pin, BlobName::pin(vm, session, 0), pin.encode()),
        (SealedKind::Lineage, BlobName::lineage(1), lineage.encode()),
        (SealedKind::Barrier, BlobName::barrier(&barrier.replica, 0), barrier.encode()),
    ];
    // As somebody would make them who can back up: sealed with the right key, and signed with none.
    let forged = |kind: SealedKind, name: &BlobName, content: Vec<u8>| {
        seal(repository.keys(), kind, name, [5; 32], &[content, vec![7; 64]].concat())
    };
    let mut names: Vec<String> = objects.iter().map(|(_, name, _)| name.to_string()).collect();
    for (kind, name, content) in objects {
        lab.store.put_new(&name, &forged(kind, &name, content)).unwrap();
    }
    // A repack of one's own, and an ABORT as if a pruner had made it.
    let signed = abort(&repository, &undecided);
    let content =
        repo_format::open(repository.keys(), SealedKind::Decision, &undecided.blob(), &signed).unwrap();
    let content = content[..content.len() - 64].to_vec();
    let bytes = forged(SealedKind::Decision, &undecided.blob(), content);
    assert!(Decision::open(repository.keys(), &undecided, &bytes).is_err());
    lab.store.put_new(&undecided.blob(), &bytes).unwrap();
    names.push(undecided.blob().to_string());
    names.sort();
    let report = verified(&repository);
    let unsigned: Vec<_> =
        report.findings.iter().filter(|finding| finding.kind == FindingKind::UnsignedObject).collect();
    assert_eq!(unsigned.iter().map(|finding| finding.blob.clone()).collect::<Vec<_>>(), names);
    assert!(report.needs_attention() && unsigned.iter().all(|finding| finding.affected.is_empty()));
    assert_eq!((report.snapshots, report.unneeded_packs), (1, 0));
    assert!(retention_key(&repository).public() == repository.config().retention_public_key);
}

#[test]
fn a_pin_whose_snapshot_is_gone_without_a_tombstone_tells_of_it() {
    let lab = Lab::new();
    let repository = lab.repository();
    let session = SessionId([8; 16]);
    let decision = DecisionName { session, seq: 0, ..lab.parent().name };
    let pin = Pin { session, decision: decision.clone(), time: NOW, pinned: true, reason: String::new() };
    put(&repository, pin.seal(repository.keys(), &retention_key(&repository), 0, [1; 32]));
    assert_eq!(found(&repository), [(FindingKind::MissingDecision, decision.blob().to_string(), Vec::new())]);
    forget(&repository, &decision);
    nothing_found(&lab);
}

#[test]
fn a_verification_during_a_prune_that_repacks_finds_no_damage() {
    at_each_call(
        &repack_and_delete,
        |repository, _| {
            verify(repository, &VerifyJob::everything(ReadData::Everything, NOW), &Quiet).unwrap()
        },
        &|report: VerifyReport, _| assert!(!report.has_damage(), "{:?}", report.findings),
    );
}

#[test]
fn a_verification_during_a_prune_of_a_forgotten_snapshot_finds_no_damage() {
    let event = |lab: &Lab| {
        let parent = lab.parent();
        forget(&lab.repository(), &parent.name);
        let packs = lab.all_packs(&parent);
        publish_result(&lab.repository(), 0, &packs);
        delete(&lab.store, &packs.iter().collect::<Vec<_>>());
        lab.store.delete(&parent.name.blob()).unwrap();
    };
    at_each_call(
        &event,
        |repository, _| {
            verify(repository, &VerifyJob::everything(ReadData::Everything, NOW), &Quiet).unwrap()
        },
        &|report: VerifyReport, _| assert!(!report.has_damage(), "{:?}", report.findings),
    );
}
