//! Values to test with: fixed ones, and strategies for any.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index as Pick;
use repo_format::limits::PACK_LEN_MAX;
use repo_format::*;

pub const REPOSITORY: RepositoryId = RepositoryId([0x11; 16]);
pub const SESSION: SessionId = SessionId([0x22; 16]);
pub const SALT: [u8; 32] = [0x33; 32];

pub fn root_key() -> RootKey {
    RootKey::new([0x44; 32])
}

pub fn retention_key() -> RetentionKey {
    RetentionKey::new([0x55; 32])
}

pub fn keys() -> Keys {
    Keys::from_root(&root_key(), REPOSITORY, retention_key().public())
}

pub fn writer() -> WriterId {
    WriterId::new("host-1").expect("a writer's name")
}

pub fn pack_name(kind: PackKind, number: u32) -> PackName {
    PackName { kind, writer: writer(), session: SESSION, number }
}

pub fn pack(kind: PackKind, number: u32) -> PackRef {
    PackRef { name: pack_name(kind, number), len: 1 << 20 }
}

pub fn barrier(fact: BarrierFact) -> Barrier {
    Barrier { replica: ReplicaName::new("west").expect("a replica's name"), number: 4, time: 9, fact }
}

pub fn lineage(set_aside: Vec<DecisionName>) -> Lineage {
    let (id, step) = (LineageId([7; 16]), LineageStep::Promoted);
    Lineage { number: 3, id, time: 9, step, first_generation: 5, set_aside }
}

pub fn decision_name() -> DecisionName {
    DecisionName { vm: keys().vm_tag("db-1"), writer: writer(), seq: 3, session: SESSION }
}

pub fn location(kind: PackKind, number: u32, plain_len: u32) -> Location {
    Location {
        pack: pack(kind, number),
        codec: Codec::Raw,
        offset: 176,
        stored_len: plain_len + 16,
        plain_len,
        id: PayloadId([0x55; 32]),
    }
}

pub fn commit() -> Commit {
    Commit {
        session: SESSION,
        time: 1_700_000_000_000,
        program: "keepstone 0.1.0".into(),
        vm: "db-1".into(),
        parent: Some(DecisionName { seq: 2, session: SessionId([0x21; 16]), ..decision_name() }),
        via: vec![SessionId([1; 16]), SessionId([2; 16])],
        tags: vec!["daily".into(), "weekly".into()],
        properties: vec![("os".into(), "linux".into())],
        disks: vec![
            Disk {
                key: "disk0".into(),
                size: 1 << 30,
                change_id: Some("52 de 4a/7".into()),
                mode: DiskMode::Incremental,
                changed_bytes: 65_536,
                read_bytes: 131_072,
                map: Some(location(PackKind::Map, 0, 900)),
            },
            Disk {
                key: "disk1".into(),
                size: 512,
                change_id: None,
                mode: DiskMode::Full,
                changed_bytes: 512,
                read_bytes: 0,
                map: None,
            },
        ],
        totals: Totals {
            chunks: 10,
            new_chunks: 2,
            new_bytes: 70_000,
            stored_bytes: 40_000,
            metadata_bytes: 1_500,
            data_packs: 1,
            map_packs: 1,
        },
    }
}

pub fn any_writer() -> impl Strategy<Value = WriterId> {
    "[a-z0-9][a-z0-9-]{0,12}".prop_map(|text| WriterId::new(&text).expect("the pattern of a writer's name"))
}

pub fn any_session() -> impl Strategy<Value = SessionId> {
    any::<[u8; 16]>().prop_map(SessionId)
}

pub fn any_sessions() -> impl Strategy<Value = Vec<SessionId>> {
    btree_set(any_session(), 0..4).prop_map(|set| set.into_iter().collect())
}

pub fn any_payload_id() -> impl Strategy<Value = PayloadId> {
    any::<[u8; 32]>().prop_map(PayloadId)
}

pub fn any_decision_name(session: SessionId) -> impl Strategy<Value = DecisionName> {
    (any::<[u8; 16]>(), any_writer(), any::<u32>()).prop_map(move |(vm, writer, seq)| DecisionName {
        vm: VmTag(vm),
        writer,
        seq,
        session,
    })
}

/// Packs with different names, sorted, some of one session.
pub fn any_packs(kind: PackKind, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<PackRef>> {
    let session = prop_oneof![Just(SessionId([9; 16])), any_session()];
    let name = (prop_oneof![Just(writer()), any_writer()], session, any::<u32>())
        .prop_map(move |(writer, session, number)| PackName { kind, writer, session, number });
    let len = (1_u32 << 26)..=u32::try_from(PACK_LEN_MAX).expect("packs are under 4 GiB");
    btree_map(name, len, count)
        .prop_map(|packs| packs.into_iter().map(|(name, len)| PackRef { name, len }).collect())
}

/// Where a payload of that length lies in a pack of 64 MiB or more.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub codec: Codec,
    pub offset: u32,
    pub stored_len: u32,
    pub plain_len: u32,
    pub id: PayloadId,
}

impl Place {
    pub fn within(self, pack: PackRef) -> Location {
        let Self { codec, offset, stored_len, plain_len, id } = self;
        Location { pack, codec, offset, stored_len, plain_len, id }
    }
}

pub fn any_place(plain_len: impl Strategy<Value = u32>) -> impl Strategy<Value = Place> {
    (plain_len, any::<Pick>(), any::<bool>(), 176_u32..(1 << 24), any_payload_id()).prop_map(
        |(plain_len, encoded, raw, offset, id)| {
            let (codec, encoded_len) = if raw || plain_len == 1 {
                (Codec::Raw, plain_len)
            } else {
                let len = 1 + encoded.index(plain_len as usize - 1);
                (Codec::Zstd, u32::try_from(len).expect("shorter than the payload"))
            };
            Place { codec, offset, stored_len: encoded_len + 16, plain_len, id }
        },
    )
}

/// The bounds that [`any_page`] keeps to: a full cell of 64 KiB in the midst of a region.
pub fn page_bounds() -> PageBounds {
    PageBounds { cell_end: 65_536, region_left: 131_072, starts_region: false, max_chunk: 32_768 }
}

pub fn any_page() -> impl Strategy<Value = Page> {
    let piece = (any::<bool>(), any_place(1_u32..=32_768), any::<Pick>());
    (0_u32..32_768, any_packs(PackKind::Data, 1..5), vec(piece, 1..80)).prop_map(|(first, packs, pieces)| {
        let cell_end = page_bounds().cell_end;
        let mut entries: Vec<Entry> = Vec::new();
        let mut at = first;
        for (hole, place, pick) in pieces {
            if at >= cell_end {
                break;
            }
            let entry = if hole && !matches!(entries.last(), Some(Entry::Hole { .. })) {
                Entry::Hole { len: place.plain_len.min(cell_end - at) }
            } else {
                Entry::Chunk(place.within(pick.get(&packs).clone()))
            };
            at += entry.len();
            entries.push(entry);
        }
        while at < cell_end {
            let rest = (cell_end - at).min(32_768);
            entries
                .push(Entry::Chunk(Location { pack: packs[0].clone(), ..location(PackKind::Data, 0, rest) }));
            at += rest;
        }
        Page { first, entries }
    })
}

/// A node of that level, and the pack that holds it.
pub fn any_node(level: u8) -> impl Strategy<Value = (Node, PackRef)> {
    let limit = if level == 1 { 8_u32 << 20 } else { 32 << 20 };
    let child = prop_oneof![
        1 => Just(None),
        3 => (any_place(1..=limit), any::<Pick>(), any::<[Pick; 2]>()).prop_map(Some),
    ];
    let packs = (any_packs(PackKind::Data, 1..4), any_packs(PackKind::Map, 1..4), any::<Pick>());
    (packs, vec(child, 0..64), any_place(1..=limit)).prop_map(move |((data, map, own), children, last)| {
        let names = |picks: &[Pick]| {
            let mut names: Vec<PackRef> = match level {
                1 => picks.iter().map(|pick| pick.get(&data).clone()).collect(),
                2 => vec![picks[0].get(&data).clone(), picks[1].get(&map).clone()],
                _ => Vec::new(),
            };
            names.sort();
            names.dedup();
            names
        };
        let mut children: Vec<Child> = children
            .iter()
            .map(|child| match child {
                None => Child::Hole,
                Some((place, pack, picks)) => {
                    Child::Stored { at: place.within(pack.get(&map).clone()), names: names(picks) }
                }
            })
            .collect();
        let names = names(&[own, own]);
        children.push(Child::Stored { at: last.within(map[0].clone()), names });
        (Node { level, children }, own.get(&map).clone())
    })
}

pub fn any_index() -> impl Strategy<Value = Index> {
    let entry = (any_place(1_u32..=131_072), any::<Pick>());
    (any_packs(PackKind::Data, 0..5), btree_map(any_payload_id(), entry, 5..40), any::<[u8; 16]>()).prop_map(
        |(mut packs, chunks, vm)| {
            // One writer to a session, as it is in truth.
            packs.dedup_by_key(|pack| pack.name.session);
            let mut sessions: Vec<(SessionId, DecisionName)> = packs
                .iter()
                .map(|PackRef { name, .. }| {
                    let (writer, session) = (name.writer.clone(), name.session);
                    (session, DecisionName { vm: VmTag(vm), writer, seq: name.number, session })
                })
                .collect();
            sessions.sort();
            sessions.dedup_by_key(|(session, _)| *session);
            packs.retain(|pack| {
                sessions.iter().any(|(_, decision)| {
                    decision.writer == pack.name.writer && decision.session == pack.name.session
                })
            });
            let entries = chunks.into_iter().enumerate().filter(|_| !packs.is_empty());
            let entries = entries
                .map(|(position, (id, (place, pick)))| {
                    let Place { codec, offset, stored_len, plain_len, .. } = place;
                    // The first entries see to it that no pack is without one.
                    let pack = if position < packs.len() { position } else { pick.index(packs.len()) };
                    let pack = u32::try_from(pack).expect("few packs");
                    IndexEntry { id, codec, pack, offset, stored_len, plain_len }
                })
                .collect();
            Index { sessions, packs, entries }
        },
    )
}

pub fn any_repack_record() -> impl Strategy<Value = RepackRecord> {
    let head = any_session().prop_flat_map(|session| (Just(session), any_decision_name(session)));
    (head, any_sessions(), any_packs(PackKind::Data, 1..5), 1_u32..5, any::<u8>()).prop_map(
        |((session, decision), applies_to, mut old, new_count, mask)| {
            old.retain(|pack| pack.name.session != session);
            let new = (0..new_count).map(|number| PackRef {
                name: PackName { kind: PackKind::Data, writer: decision.writer.clone(), session, number },
                len: 1 << 20,
            });
            let mut packs: Vec<PackRef> = old.into_iter().chain(new).collect();
            packs.sort();
            let numbers = |is_new: bool| {
                let of_kind = move |pack: &PackRef| (pack.name.session == session) == is_new;
                (0_u32..).zip(&packs).filter(move |(_, pack)| of_kind(pack)).map(|(number, _)| number)
            };
            let mut leads: Vec<Lead> = Vec::new();
            for old in numbers(false) {
                // The first one leads to all, so that each is led to.
                let leads_to = |place: usize| leads.is_empty() || place == 0 || mask >> place & 1 == 1;
                let new = numbers(true).enumerate().filter(|(place, _)| leads_to(*place));
                let new = new.map(|(_, number)| number).collect();
                leads.push(Lead { old, new });
            }
            if leads.is_empty() {
                packs.clear();
            }
            RepackRecord { session, decision, applies_to, packs, leads }
        },
    )
}

pub fn any_commit() -> impl Strategy<Value = Commit> {
    let disk = (
        1_u64..=1 << 62,
        proptest::option::of(".{0,40}"),
        any::<bool>(),
        any::<[u64; 2]>(),
        proptest::option::of((any_packs(PackKind::Map, 1..2), any_place(1_u32..=32 << 20))),
    );
    let texts = (btree_set("[^\\x00-\\x1f\\x7f-\\x{9f}]{1,20}", 0..4), btree_map(".{0,20}", ".{0,60}", 0..4));
    let parent = proptest::option::of(any_session().prop_flat_map(any_decision_name));
    let disks = btree_map("[^\\x00-\\x1f\\x7f-\\x{9f}=:/]{1,20}", disk, 1..4);
    (any_session(), any::<u64>(), parent, any_sessions(), texts, disks, any::<[u64; 5]>()).prop_map(
        |(session, time, parent, via, (tags, properties), disks, totals)| {
            let disks = disks
                .into_iter()
                .map(|(key, (size, change_id, full, [changed_bytes, read_bytes], map))| Disk {
                    key,
                    size,
                    change_id,
                    mode: if full { DiskMode::Full } else { DiskMode::Incremental },
                    changed_bytes,
                    read_bytes,
                    map: map.map(|(packs, place)| place.within(packs[0].clone())),
                })
                .collect();
            let [chunks, new_chunks, new_bytes, stored_bytes, metadata_bytes] = totals;
            let totals = Totals {
                chunks,
                new_chunks,
                new_bytes,
                stored_bytes,
                metadata_bytes,
                data_packs: 7,
                map_packs: 1,
            };
            let (tags, properties) = (tags.into_iter().collect(), properties.into_iter().collect());
            let (program, vm) = ("keepstone 0.1.0".into(), "db-1".into());
            Commit { session, time, program, vm, parent, via, tags, properties, disks, totals }
        },
    )
}

pub fn any_decision() -> impl Strategy<Value = Decision> {
    let abort = (any_session(), any::<u64>(), ".{0,60}", any::<bool>()).prop_map(
        |(session, time, program, writer)| {
            let by = if writer { AbortBy::Writer } else { AbortBy::Pruner };
            Decision::Abort(Abort { session, time, program, by })
        },
    );
    let repacked = (any_session(), any::<u64>(), ".{0,60}")
        .prop_map(|(session, time, program)| Decision::Repack(Repacked { session, time, program }));
    prop_oneof![abort, repacked, any_commit().prop_map(|commit| Decision::Commit(Box::new(commit)))]
}
