//! What a verification finds of each kind of damage, and what it leaves alone.
#![expect(clippy::unwrap_used, reason = "a test fails where a call fails")]
#![expect(clippy::cast_possible_truncation, reason = "all sizes are small")]

mod world;

use keepstone_engine::contents::contents;
use keepstone_engine::extent::{Extent, normalized};
use keepstone_engine::observer::Quiet;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::verify::{Affected, Finding, FindingKind, ReadData, VerifyJob, VerifyReport, verify};
use keepstone_engine::{BlobStore, EngineError, Repository};
use repo_format::{
    BlobKind, BlobName, Child, Codec, Decision, Decoder, Entry, FrameEntry, FrameKind, Intent, Keys,
    Location, Node, PACK_HEADER_LEN, PackBase, PackHeader, PackKind, PackName, PackOpener, PackRef, PackSeal,
    Page, PageBounds, SessionId, TAG_LEN, open_directory, seal_pack,
};
use std::collections::HashSet;
use std::error::Error;
use world::{NOW, back_up, create, latest, memory_index, mixed, noise, open, restored, small_geometry};

const CELL_LEN: u64 = 16 << 10;

/// Two VMs: the first with two snapshots of which the second changed a part, the other one alone.
struct World {
    store: MemoryStore,
    first: Snapshot,
    second: Snapshot,
    other: Snapshot,
    bytes: [Vec<u8>; 3],
}

fn world() -> World {
    let store = MemoryStore::new();
    let repository = create(&store, small_geometry());
    let mut index = memory_index(&repository);
    let mut disk = MemoryDisk { change_id: Some("one".into()), ..MemoryDisk::new(mixed(1, 900_001)) };
    back_up(&repository, &mut index, "vm", &[("disk0", &disk)], 1).unwrap();
    let (first, first_bytes) = (latest(&repository, "vm"), disk.bytes.clone());
    disk.bytes[300_000..350_000].copy_from_slice(&noise(7, 50_000));
    disk.changes = Some(("one".into(), vec![Extent { start: 300_000, length: 50_000 }]));
    back_up(&repository, &mut index, "vm", &[("disk0", &disk)], 2).unwrap();
    let (second, second_bytes) = (latest(&repository, "vm"), disk.bytes);
    let disk = MemoryDisk::new(noise(3, 200_000));
    back_up(&repository, &mut index, "other", &[("disk0", &disk)], 3).unwrap();
    let other = latest(&repository, "other");
    World { store, first, second, other, bytes: [first_bytes, second_bytes, disk.bytes] }
}

fn run(store: &dyn BlobStore, read_data: bool) -> VerifyReport {
    let read_data = if read_data { ReadData::Everything } else { ReadData::Nothing };
    verify(&open(store), &VerifyJob::everything(read_data, NOW), &Quiet).unwrap()
}

impl World {
    fn snapshots(&self) -> [(&Snapshot, &Vec<u8>); 3] {
        let [first, second, other] = &self.bytes;
        [(&self.first, first), (&self.second, second), (&self.other, other)]
    }

    fn get(&self, name: &BlobName) -> Vec<u8> {
        self.store.get(name, None).unwrap()
    }

    fn packs(&self, kind: PackKind, snapshot: &Snapshot) -> Vec<PackName> {
        self.packs_of(kind, snapshot.session())
    }

    fn packs_of(&self, kind: PackKind, session: SessionId) -> Vec<PackName> {
        let of_session = |name: BlobName| match name.kind() {
            Some(BlobKind::Pack(pack)) if pack.kind == kind && pack.session == session => Some(pack),
            _ => None,
        };
        self.store.names().into_iter().filter_map(of_session).collect()
    }

    fn frames(&self, keys: &Keys, pack: &PackName) -> Vec<(u32, FrameEntry)> {
        let bytes = self.get(&pack.blob());
        let header = PackHeader::parse(&bytes).unwrap();
        open_directory(keys, pack, &header, &bytes[header.directory_offset as usize..]).unwrap()
    }

    /// What a finding concerns if these chunks are gone.
    fn affected(&self, repository: &Repository<'_>, frames: &[(u32, FrameEntry)]) -> Vec<Affected> {
        let ids: HashSet<_> = frames.iter().map(|(_, frame)| frame.id).collect();
        let affected = self.snapshots().into_iter().filter_map(|(snapshot, _)| {
            let pieces = contents(repository, &snapshot.commit.disks[0]).unwrap();
            let lost = pieces.iter().filter(|piece| piece.chunk.is_some_and(|id| ids.contains(&id)));
            let ranges =
                normalized(lost.map(|piece| Extent { start: piece.start, length: piece.len }).collect());
            (!ranges.is_empty()).then(|| concerns(snapshot, ranges))
        });
        affected.collect()
    }

    /// Checks the one finding, and that what it does not concern restores.
    fn expect(&self, report: &VerifyReport, kind: FindingKind, blob: &BlobName, affected: &[Affected]) {
        let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
        let expected = Finding {
            kind,
            blob: blob.to_string(),
            detail: finding.detail.clone(),
            affected: affected.to_vec(),
        };
        assert_eq!(*finding, expected);
        let repository = open(&self.store);
        for (snapshot, bytes) in self.snapshots() {
            let id = snapshot.session().to_string();
            let harmed = affected.iter().any(|affected| affected.snapshot == id);
            match restored(&repository, snapshot, "disk0") {
                Ok(found) => assert!(!harmed && found == *bytes, "{id} restores"),
                Err(error) => assert!(harmed, "{id}: {error}"),
            }
        }
    }
}

/// Checks that the decision of a session is the one thing that is found to be missing.
fn expect_lost(report: &VerifyReport, snapshot: &Snapshot) {
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
    assert_eq!((finding.kind, &finding.blob), (FindingKind::MissingDecision, &snapshot.name.to_string()));
    assert_eq!(finding.affected, [lost(snapshot, &snapshot.commit.vm)]);
}

fn concerns(snapshot: &Snapshot, ranges: Vec<Extent>) -> Affected {
    Affected {
        snapshot: snapshot.session().to_string(),
        vm: snapshot.commit.vm.clone(),
        disk: "disk0".to_owned(),
        ranges,
    }
}

fn whole(snapshot: &Snapshot) -> Affected {
    concerns(snapshot, vec![Extent { start: 0, length: snapshot.commit.disks[0].size }])
}

fn lost(snapshot: &Snapshot, vm: &str) -> Affected {
    Affected { vm: vm.to_owned(), disk: String::new(), ..concerns(snapshot, Vec::new()) }
}

#[test]
fn a_sound_repository_has_no_findings() {
    let world = world();
    let structure = run(&world.store, false);
    let data = run(&world.store, true);
    assert_eq!(structure.findings, []);
    assert_eq!((structure.snapshots, structure.disks, structure.read_bytes), (3, 3, 0));
    let packs = world.store.names().into_iter().filter(|name| matches!(name.kind(), Some(BlobKind::Pack(_))));
    let pack_bytes: u64 = packs.clone().map(|name| world.get(&name).len() as u64).sum();
    assert_eq!(data, VerifyReport { read_bytes: pack_bytes, ..structure.clone() });
    assert_eq!(structure.packs, packs.count() as u64);
    assert!(structure.chunks > 400, "{structure:?}");
}

#[test]
fn a_missing_data_pack_is_named_with_what_is_lost() {
    for read_data in [false, true] {
        let world = world();
        let repository = open(&world.store);
        let pack = world.packs(PackKind::Data, &world.first)[2].clone();
        let affected = world.affected(&repository, &world.frames(repository.keys(), &pack));
        assert!(!affected.is_empty());
        world.store.delete(&pack.blob()).unwrap();
        // Its chunks are still in an index.
        let mut report = run(&world.store, read_data);
        let stale = report.findings.pop().unwrap();
        assert_eq!((stale.kind, stale.is_damage()), (FindingKind::StaleIndex, false));
        world.expect(&report, FindingKind::MissingPack, &pack.blob(), &affected);
    }
}

#[test]
fn a_truncated_data_pack_loses_what_was_cut_off() {
    for read_data in [false, true] {
        let world = world();
        let repository = open(&world.store);
        let pack = world.packs(PackKind::Data, &world.first)[1].clone();
        let frames = world.frames(repository.keys(), &pack);
        let cut = frames.len() / 2;
        let affected = world.affected(&repository, &frames[cut..]);
        let bytes = world.get(&pack.blob());
        world.store.overwrite(&pack.blob(), &bytes[..frames[cut].0 as usize + 3]);
        let mut report = run(&world.store, read_data);
        assert_eq!(report.findings.pop().unwrap().kind, FindingKind::StaleIndex);
        world.expect(&report, FindingKind::WrongLength, &pack.blob(), &affected);
    }
}

#[test]
fn an_empty_data_pack_loses_everything_in_it() {
    let world = world();
    let repository = open(&world.store);
    let pack = world.packs(PackKind::Data, &world.other)[0].clone();
    let affected = world.affected(&repository, &world.frames(repository.keys(), &pack));
    world.store.overwrite(&pack.blob(), &[]);
    let mut report = run(&world.store, true);
    assert_eq!(report.findings.pop().unwrap().kind, FindingKind::StaleIndex);
    world.expect(&report, FindingKind::WrongLength, &pack.blob(), &affected);
}

#[test]
fn a_flipped_bit_in_a_chunk_loses_that_chunk() {
    let world = world();
    let repository = open(&world.store);
    let pack = world.packs(PackKind::Data, &world.first)[0].clone();
    let frames = world.frames(repository.keys(), &pack);
    let damaged = [frames[3], frames[9]];
    let affected = world.affected(&repository, &damaged);
    let mut bytes = world.get(&pack.blob());
    for (offset, frame) in damaged {
        bytes[(offset + frame.stored_len / 2) as usize] ^= 4;
    }
    world.store.overwrite(&pack.blob(), &bytes);
    assert_eq!(run(&world.store, false).findings, []);
    world.expect(&run(&world.store, true), FindingKind::DamagedPack, &pack.blob(), &affected);
}

#[test]
fn a_damaged_header_loses_the_pack_and_a_damaged_directory_nothing() {
    let world = world();
    let repository = open(&world.store);
    let pack = world.packs(PackKind::Data, &world.other)[1].clone();
    let affected = world.affected(&repository, &world.frames(repository.keys(), &pack));
    let bytes = world.get(&pack.blob());
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        world.store.overwrite(&pack.blob(), &bytes);
        run(&world.store, true)
    };
    for at in [0, 40, 70, 100, 140] {
        world.expect(&flipped(at), FindingKind::DamagedPack, &pack.blob(), &affected);
    }
    world.expect(&flipped(bytes.len() - 30), FindingKind::DamagedPack, &pack.blob(), &[]);
}

#[test]
fn a_pack_in_the_place_of_another_is_damage() {
    let world = world();
    let repository = open(&world.store);
    let packs = world.packs(PackKind::Data, &world.first);
    let affected = world.affected(&repository, &world.frames(repository.keys(), &packs[1]));
    let mut bytes = world.get(&packs[2].blob());
    bytes.resize(world.get(&packs[1].blob()).len(), 0);
    world.store.overwrite(&packs[1].blob(), &bytes);
    world.expect(&run(&world.store, true), FindingKind::DamagedPack, &packs[1].blob(), &affected);
}

#[test]
fn a_missing_map_pack_loses_all_that_its_nodes_span() {
    for read_data in [false, true] {
        let world = world();
        let pack = world.second.commit.disks[0].map.as_ref().unwrap().pack.name.clone();
        world.store.delete(&pack.blob()).unwrap();
        let report = run(&world.store, read_data);
        world.expect(&report, FindingKind::MissingPack, &pack.blob(), &[whole(&world.second)]);
    }
}

#[test]
fn a_damaged_page_loses_the_chunks_that_start_in_its_cell() {
    for read_data in [false, true] {
        let world = world();
        let repository = open(&world.store);
        let disk = &world.first.commit.disks[0];
        let root = disk.map.as_ref().unwrap();
        let node = node(&world, repository.keys(), root, disk.size);
        // A cell that both snapshots share and out of which a chunk reaches into the next one of its region.
        let pieces = contents(&repository, disk).unwrap();
        let (cell, end) = (4..15u64)
            .find_map(|cell| {
                let edge = (cell + 1) * CELL_LEN;
                let over = pieces.iter().find(|piece| {
                    piece.chunk.is_some() && piece.start < edge && piece.start + piece.len > edge
                })?;
                Some((cell, over.start + over.len))
            })
            .unwrap();
        let Child::Stored { at, .. } = &node.children[cell as usize] else { panic!("a page") };
        let mut bytes = world.get(&at.pack.name.blob());
        bytes[at.offset as usize] ^= 1;
        world.store.overwrite(&at.pack.name.blob(), &bytes);
        let lost = vec![Extent::between(cell * CELL_LEN, end).unwrap()];
        let affected = [concerns(&world.first, lost.clone()), concerns(&world.second, lost)];
        let report = run(&world.store, read_data);
        world.expect(&report, FindingKind::DamagedPack, &at.pack.name.blob(), &affected);
    }
}

fn payload(world: &World, keys: &Keys, at: &Location, kind: FrameKind) -> Vec<u8> {
    let blob = world.get(&at.pack.name.blob());
    let opener = PackOpener::new(keys, &at.pack.name, &PackHeader::parse(&blob).unwrap()).unwrap();
    let mut sealed = blob[at.offset as usize..][..at.stored_len as usize].to_vec();
    let encoded = opener.open_frame(at.offset, &FrameEntry::at(at, kind), &mut sealed).unwrap();
    let mut payload = vec![0; at.plain_len as usize];
    Decoder::new().decode_into(at.codec, encoded, &mut payload).unwrap();
    payload
}

fn node(world: &World, keys: &Keys, at: &Location, size: u64) -> Node {
    let payload = payload(world, keys, at, FrameKind::Node);
    Node::parse(&payload, 1, u8::try_from(size.div_ceil(CELL_LEN)).unwrap(), &at.pack).unwrap()
}

/// Puts a payload of a map into a pack of its own, as a writer does that breaks the rules.
fn store_payload(
    world: &World,
    keys: &Keys,
    session: SessionId,
    kind: FrameKind,
    payload: &[u8],
) -> Location {
    let number = u32::from(!world.packs_of(PackKind::Map, session).is_empty());
    let name = PackName { kind: PackKind::Map, writer: world::writer(), session, number };
    let id = keys.map_id(payload);
    let (plain_len, stored_len) = (payload.len() as u32, (payload.len() + TAG_LEN) as u32);
    let frame = FrameEntry { kind, codec: Codec::Raw, plain_len, stored_len, id };
    let body = [&[0; PACK_HEADER_LEN], payload, &[0; TAG_LEN]].concat();
    let seal = PackSeal { keys, name: &name, base: PackBase::Map, salt: [1; 32], directory_salt: [2; 32] };
    let blob = seal_pack(&seal, body, &[frame]);
    world.store.overwrite(&name.blob(), &blob);
    let pack = PackRef { name, len: blob.len() as u32 };
    Location { pack, codec: Codec::Raw, offset: PACK_HEADER_LEN as u32, stored_len, plain_len, id }
}

/// Commits a snapshot like the first one, but with a root node of its own.
fn commit_with(world: &World, keys: &Keys, session: SessionId, root: &Node) -> Snapshot {
    let number = u32::from(!world.packs_of(PackKind::Map, session).is_empty());
    let node_pack = PackName { kind: PackKind::Map, writer: world::writer(), session, number };
    let at = store_payload(world, keys, session, FrameKind::Node, &root.encode(&node_pack));
    let mut snapshot = world.first.clone();
    snapshot.name.session = session;
    snapshot.commit.session = session;
    snapshot.commit.disks[0].map = Some(at);
    let totals = &mut snapshot.commit.totals;
    (totals.data_packs, totals.map_packs) = (0, number + 1);
    let intent = Intent { session, decision: snapshot.name.clone(), generation: 0, time: NOW };
    let (name, bytes) = intent.seal(keys, [4; 32]);
    world.store.overwrite(&name, &bytes);
    let blob = Decision::Commit(Box::new(snapshot.commit.clone())).seal(keys, &snapshot.name, [3; 32]);
    world.store.overwrite(&snapshot.name.blob(), &blob);
    snapshot
}

/// Checks the one finding, which is about a snapshot of a writer that breaks the rules.
fn expect_contradiction(report: &VerifyReport, blob: &PackName, snapshot: &Snapshot, ranges: Vec<Extent>) {
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
    assert_eq!((finding.kind, &finding.blob), (FindingKind::ContradictoryMap, &blob.to_string()));
    assert_eq!(finding.affected, [concerns(snapshot, ranges)]);
}

#[test]
fn pages_in_the_wrong_order_contradict_each_other() {
    let world = world();
    let repository = open(&world.store);
    let disk = &world.first.commit.disks[0];
    let mut root = node(&world, repository.keys(), disk.map.as_ref().unwrap(), disk.size);
    // Within one region, so that nothing but the places where they meet tells.
    root.children.swap(5, 6);
    let snapshot = commit_with(&world, repository.keys(), SessionId([9; 16]), &root);
    let pack = snapshot.commit.disks[0].map.as_ref().unwrap().pack.name.clone();
    for read_data in [false, true] {
        let report = run(&world.store, read_data);
        let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
        assert_eq!((finding.kind, &finding.blob), (FindingKind::ContradictoryMap, &pack.to_string()));
        let [affected] = finding.affected.as_slice() else { panic!("{finding:#?}") };
        assert_eq!(affected.snapshot, snapshot.session().to_string());
        assert!(affected.ranges.iter().all(|range| (5 * CELL_LEN..8 * CELL_LEN).contains(&range.start)));
    }
    let error = restored(&repository, &snapshot, "disk0").unwrap_err();
    let says = "page does not begin where the page before ended";
    let mut chain = std::iter::successors(Some::<&dyn Error>(&error), |error| (*error).source());
    assert!(chain.any(|error| error.to_string() == says), "{error:?}");
}

#[test]
fn a_node_that_keeps_a_pack_of_its_page_to_itself_is_found() {
    let world = world();
    let repository = open(&world.store);
    let disk = &world.first.commit.disks[0];
    let mut root = node(&world, repository.keys(), disk.map.as_ref().unwrap(), disk.size);
    let hides = |child: &mut Child| match child {
        Child::Stored { at, names } if !names.is_empty() => names.pop().map(|_| at.pack.name.clone()),
        _ => None,
    };
    let (cell, page_pack) =
        (0u64..).zip(&mut root.children).find_map(|(cell, child)| Some((cell, hides(child)?))).unwrap();
    let snapshot = commit_with(&world, repository.keys(), SessionId([9; 16]), &root);
    let ranges = vec![Extent { start: cell * CELL_LEN, length: CELL_LEN }];
    for read_data in [false, true] {
        expect_contradiction(&run(&world.store, read_data), &page_pack, &snapshot, ranges.clone());
    }
}

#[test]
fn a_page_that_names_a_chunk_where_there_is_none_is_found_by_reading_data() {
    let world = world();
    let repository = open(&world.store);
    let (keys, session) = (repository.keys(), SessionId([9; 16]));
    let disk = &world.first.commit.disks[0];
    let mut root = node(&world, keys, disk.map.as_ref().unwrap(), disk.size);
    let Child::Stored { at, .. } = &mut root.children[4] else { panic!("a page") };
    let bounds = PageBounds::of(&small_geometry(), disk.size, 4).unwrap();
    let mut page = Page::parse(&payload(&world, keys, at, FrameKind::Page), &bounds).unwrap();
    let mut start = 4 * CELL_LEN;
    let mut ranges = Vec::new();
    for entry in &mut page.entries {
        let length = u64::from(entry.len());
        if let Entry::Chunk(at) = entry
            && ranges.is_empty()
        {
            at.offset += 1;
            ranges.push(Extent { start, length });
        }
        start += length;
    }
    *at = store_payload(&world, keys, session, FrameKind::Page, &page.encode());
    let page_pack = at.pack.name.clone();
    let snapshot = commit_with(&world, keys, session, &root);
    assert_eq!(run(&world.store, false).findings, []);
    expect_contradiction(&run(&world.store, true), &page_pack, &snapshot, ranges);
}

#[test]
fn a_damaged_directory_of_a_map_pack_is_found_by_reading_data() {
    let world = world();
    let pack = world.packs(PackKind::Map, &world.first)[0].clone();
    let mut bytes = world.get(&pack.blob());
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    world.store.overwrite(&pack.blob(), &bytes);
    assert_eq!(run(&world.store, false).findings, []);
    world.expect(&run(&world.store, true), FindingKind::DamagedPack, &pack.blob(), &[]);
}

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
fn a_missing_decision_shows_in_the_snapshot_made_from_it() {
    let world = world();
    world.store.delete(&world.first.name.blob()).unwrap();
    let report = run(&world.store, false);
    expect_lost(&report, &world.first);
}

#[test]
fn the_last_decision_missing_looks_like_a_session_that_has_not_ended() {
    let world = world();
    world.store.delete(&world.other.name.blob()).unwrap();
    let report = run(&world.store, false);
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
    assert_eq!((finding.kind, finding.is_damage()), (FindingKind::UndecidedSession, false));
    assert_eq!(finding.affected, [lost(&world.other, "")]);
    assert!(finding.detail.contains("its decision was lost"), "{}", finding.detail);
    // After some days it is no backup that is still running.
    let job = VerifyJob::everything(ReadData::Nothing, NOW + 3 * 86_400_000);
    let report = verify(&open(&world.store), &job, &Quiet).unwrap();
    let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
    assert_eq!((finding.kind, finding.is_damage()), (FindingKind::StalledSession, false));
    assert!(finding.detail.contains("began 2 days ago"), "{}", finding.detail);
    assert!(report.needs_attention());
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
fn only_the_snapshots_that_are_asked_for_are_verified() {
    let world = world();
    let repository = open(&world.store);
    let pack = world.packs(PackKind::Data, &world.other)[0].clone();
    let affected = world.affected(&repository, &world.frames(repository.keys(), &pack));
    world.store.delete(&pack.blob()).unwrap();
    let verified = |snapshot: &Snapshot| {
        let everything = VerifyJob::everything(ReadData::Everything, NOW);
        let job = VerifyJob { snapshots: vec![snapshot.clone()], ..everything };
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

#[test]
fn every_byte_of_every_pack_matters() {
    let world = world();
    for name in world.store.names() {
        let Some(BlobKind::Pack(_)) = name.kind() else { continue };
        let bytes = world.get(&name);
        for at in (0..bytes.len()).step_by(bytes.len() / 3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            world.store.overwrite(&name, &damaged);
            let report = run(&world.store, true);
            let found: Vec<_> =
                report.findings.iter().map(|found| (found.kind, found.blob.as_str())).collect();
            assert_eq!(found, [(FindingKind::DamagedPack, name.as_str())], "byte {at}");
        }
        world.store.overwrite(&name, &bytes);
    }
}
