//! Maps that are lost, damaged, or contradict themselves or packs.

use crate::lab::{CELL_LEN, World, concerns, run, whole, world};
use crate::world::{NOW, open, restored, small_geometry};
use keepstone_engine::BlobStore;
use keepstone_engine::contents::contents;
use keepstone_engine::extent::Extent;
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::verify::{FindingKind, VerifyReport};
use repo_format::{
    Child, Codec, Decision, Decoder, Entry, FrameEntry, FrameKind, Intent, Keys, Location, Node,
    PACK_HEADER_LEN, PackBase, PackHeader, PackKind, PackName, PackOpener, PackRef, PackSeal, Page,
    PageBounds, SessionId, TAG_LEN, seal_pack,
};
use std::error::Error;

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
pub fn store_payload(
    world: &World,
    keys: &Keys,
    session: SessionId,
    kind: FrameKind,
    payload: &[u8],
) -> Location {
    let number = u32::from(!world.packs_of(PackKind::Map, session).is_empty());
    let name = PackName { kind: PackKind::Map, writer: crate::world::writer(), session, number };
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
    let node_pack = PackName { kind: PackKind::Map, writer: crate::world::writer(), session, number };
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
