//! Valid values that seeds are made of, and the keys that everything is sealed with.

use repo_format::{
    Abort, AbortBy, Awaited, Barrier, BarrierFact, BlobName, ChunkerName, ChunkerParams, Codec, Commit,
    Condemned, Config, Decision, DecisionName, Disk, DiskMode, FrameEntry, GcResult, GenerationSeal,
    Geometry, Index, IndexEntry, Intent, Keys, Lead, Lineage, LineageId, LineageStep, Location, PackBase,
    PackKind, PackName, PackRef, PackSeal, PayloadId, Pin, RepackRecord, Repacked, ReplicaMarker,
    ReplicaName, RepositoryId, RetentionKey, RootKey, SealedKind, SealedSessionKey, SessionId, SessionKey,
    SlotKey, SlotKind, SlotName, Tombstone, Totals, WriterId, seal_pack, seal_session_key,
};
use std::sync::LazyLock;

pub(crate) const REPOSITORY: RepositoryId = RepositoryId([0x11; 16]);
pub(crate) const SESSION: SessionId = SessionId([0x22; 16]);
pub(crate) const SALT: [u8; 32] = [0x33; 32];
pub(crate) const PASSWORD: &[u8] = b"correct horse";
const TIME: u64 = 1_700_000_000_000;

pub(crate) fn root_key() -> RootKey {
    RootKey::new([0x44; 32])
}

pub(crate) fn retention_key() -> RetentionKey {
    RetentionKey::new([0x66; 32])
}

pub(crate) fn keys() -> &'static Keys {
    static KEYS: LazyLock<Keys> =
        LazyLock::new(|| Keys::from_root(&root_key(), REPOSITORY, retention_key().public()));
    &KEYS
}

pub(crate) fn slot_key(kind: SlotKind) -> SlotKey {
    match kind {
        SlotKind::Root => SlotKey::Root(root_key()),
        SlotKind::Retention => SlotKey::Retention(retention_key()),
        SlotKind::Inventory => SlotKey::Inventory(keys().inventory_key()),
    }
}

pub(crate) fn writer() -> WriterId {
    WriterId::new("host-1").expect("a writer's name")
}

pub(crate) fn slot_name() -> SlotName {
    SlotName::new("alice").expect("a slot's name")
}

pub(crate) fn pack_name(kind: PackKind, number: u32) -> PackName {
    PackName { kind, writer: writer(), session: SESSION, number }
}

pub(crate) fn pack_ref(kind: PackKind, number: u32) -> PackRef {
    PackRef { name: pack_name(kind, number), len: 1 << 20 }
}

pub(crate) fn decision_name() -> DecisionName {
    DecisionName { vm: keys().vm_tag("db-1"), writer: writer(), seq: 3, session: SESSION }
}

pub(crate) fn index_name() -> BlobName {
    BlobName::index(&writer(), SESSION, 0)
}

/// A name for each kind of sealed object.
pub(crate) fn sealed_names() -> [(SealedKind, BlobName); 14] {
    [
        (SealedKind::Intent, intent().name()),
        (SealedKind::Decision, decision_name().blob()),
        (SealedKind::Index, index_name()),
        (SealedKind::Tombstone, tombstone().name()),
        (SealedKind::Condemned, BlobName::condemned(7)),
        (SealedKind::Awaited, BlobName::awaited(7)),
        (SealedKind::GcResult, BlobName::result(7)),
        (SealedKind::GenerationSeal, BlobName::generation_seal(7)),
        (SealedKind::Repack, BlobName::repack(SESSION)),
        (SealedKind::Pin, BlobName::pin(keys().vm_tag("db-1"), SESSION, 1)),
        (SealedKind::ReplicaMarker, BlobName::replica_marker()),
        (SealedKind::Lineage, BlobName::lineage(3)),
        (SealedKind::Barrier, BlobName::barrier(&replica(), 4)),
        (SealedKind::PackDirectory, pack_name(PackKind::Data, 0).blob()),
    ]
}

pub(crate) fn location(pack: PackRef, plain_len: u32) -> Location {
    let id = PayloadId([0x55; 32]);
    Location { pack, codec: Codec::Raw, offset: 176, stored_len: plain_len + 16, plain_len, id }
}

pub(crate) fn config() -> Config {
    let chunker = ChunkerParams { min: 4096, ..ChunkerParams::of(ChunkerName::FastCdc2020) };
    Config {
        repository: REPOSITORY,
        created: TIME,
        geometry: Geometry { chunker, ..Geometry::default() },
        data_public_key: keys().data_public_key(),
        retention_public_key: keys().retention_public(),
    }
}

pub(crate) fn intent() -> Intent {
    Intent { session: SESSION, decision: decision_name(), generation: 4, time: TIME }
}

pub(crate) fn abort() -> Decision {
    let program = "keepstone 0.1.0".to_owned();
    Decision::Abort(Abort { session: SESSION, time: TIME, program, by: AbortBy::Pruner })
}

pub(crate) fn repacked() -> Decision {
    let (session, program) = (SESSION, "keepstone 0.1.0".to_owned());
    Decision::Repack(Repacked { session, time: TIME, program })
}

pub(crate) fn commit() -> Decision {
    let disk = |key: &str, map| Disk {
        key: key.to_owned(),
        size: 1 << 30,
        change_id: Some("52 de 4a/7".to_owned()),
        mode: DiskMode::Incremental,
        changed_bytes: 65_536,
        read_bytes: 131_072,
        map,
    };
    let first = disk("disk0", Some(location(pack_ref(PackKind::Map, 0), 900)));
    let second = Disk { size: 512, change_id: None, mode: DiskMode::Full, ..disk("disk1", None) };
    let totals = Totals { chunks: 10, new_chunks: 2, new_bytes: 70_000, data_packs: 1, ..Totals::default() };
    Decision::Commit(Box::new(Commit {
        session: SESSION,
        time: TIME,
        program: "keepstone 0.1.0".to_owned(),
        vm: "db-1".to_owned(),
        parent: Some(DecisionName { seq: 2, session: SessionId([0x21; 16]), ..decision_name() }),
        via: vec![SessionId([1; 16]), SessionId([2; 16])],
        tags: vec!["daily".to_owned(), "weekly".to_owned()],
        properties: vec![("os".to_owned(), "linux".to_owned())],
        disks: vec![first, second],
        totals,
    }))
}

/// An index with so many chunks in three packs of two sessions.
pub(crate) fn index(chunks: u32) -> Index {
    let later = SessionId([0x23; 16]);
    let sessions =
        vec![(SESSION, decision_name()), (later, DecisionName { seq: 4, session: later, ..decision_name() })];
    let of_later = PackName { session: later, ..pack_name(PackKind::Data, 0) };
    let packs = vec![
        pack_ref(PackKind::Data, 0),
        pack_ref(PackKind::Data, 1),
        PackRef { name: of_later, ..pack_ref(PackKind::Data, 0) },
    ];
    let mut entries: Vec<IndexEntry> = (0..chunks)
        .map(|number| IndexEntry {
            id: PayloadId(*blake3::hash(&number.to_le_bytes()).as_bytes()),
            codec: if number % 2 == 0 { Codec::Raw } else { Codec::Zstd },
            pack: number % 3,
            offset: 176 + 100 * number,
            stored_len: if number % 2 == 0 { 116 } else { 60 },
            plain_len: 100,
        })
        .collect();
    entries.sort_by_key(|entry| entry.id);
    Index { sessions, packs, entries }
}

pub(crate) fn tombstone() -> Tombstone {
    Tombstone { session: SESSION, time: TIME, decision: decision_name() }
}

pub(crate) fn condemned() -> Condemned {
    let packs = [(PackKind::Data, 0), (PackKind::Data, 3), (PackKind::Map, 0)];
    Condemned { packs: packs.map(|(kind, number)| pack_ref(kind, number)).to_vec() }
}

pub(crate) fn gc_result() -> GcResult {
    let rescued = vec![pack_ref(PackKind::Map, 0)];
    let delete = vec![pack_ref(PackKind::Data, 0), pack_ref(PackKind::Data, 3)];
    GcResult { delete, rescued, covers: 8, earlier: vec![pack_ref(PackKind::Data, 1)] }
}

pub(crate) fn awaited() -> Awaited {
    Awaited { condemned: [7; 32], sessions: vec![(SessionId([1; 16]), writer()), (SESSION, writer())] }
}

pub(crate) fn generation_seal() -> GenerationSeal {
    GenerationSeal { roster: vec![SessionId([1; 16]), SESSION] }
}

pub(crate) fn pin() -> Pin {
    let (decision, reason) = (decision_name(), "before the upgrade".to_owned());
    Pin { session: SESSION, decision, time: TIME, pinned: true, reason }
}

fn replica() -> ReplicaName {
    ReplicaName::new("west").expect("a replica's name")
}

/// A fact of each kind about a replica.
pub(crate) fn barriers() -> [Barrier; 3] {
    let sessions = vec![(SessionId([1; 16]), writer()), (SESSION, writer())];
    [
        BarrierFact::Registered { place: "azblob://west/backups".to_owned() },
        BarrierFact::Removed,
        BarrierFact::Confirmed { sessions },
    ]
    .map(|fact| Barrier { replica: replica(), number: 4, time: TIME, fact })
}

pub(crate) fn lineage() -> Lineage {
    Lineage {
        number: 3,
        id: LineageId([0x77; 16]),
        time: TIME,
        step: LineageStep::Promoted,
        first_generation: 9,
        set_aside: vec![decision_name(), DecisionName { seq: 4, ..decision_name() }],
    }
}

pub(crate) fn replica_marker() -> ReplicaMarker {
    ReplicaMarker { time: TIME, source: "/backup".to_owned() }
}

pub(crate) fn repack_record() -> RepackRecord {
    let old = |number| {
        let name = PackName { session: SessionId([0x21; 16]), ..pack_name(PackKind::Data, number) };
        PackRef { name, len: 1 << 20 }
    };
    RepackRecord {
        session: SESSION,
        decision: decision_name(),
        applies_to: vec![SessionId([1; 16]), SessionId([2; 16])],
        packs: vec![old(0), old(1), pack_ref(PackKind::Data, 0), pack_ref(PackKind::Data, 1)],
        leads: vec![Lead { old: 0, new: vec![2, 3] }, Lead { old: 1, new: vec![3] }],
    }
}

/// Seals a pack of that name; `body` and `frames` are as [`seal_pack`] asks for them.
pub(crate) fn sealed_pack(name: &PackName, body: Vec<u8>, frames: &[FrameEntry]) -> Vec<u8> {
    static SESSION_KEY: LazyLock<(SessionKey, SealedSessionKey)> = LazyLock::new(|| {
        let (key, public) = (SessionKey::new([0x66; 32]), keys().data_public_key());
        let sealed = seal_session_key(&key, &public, REPOSITORY, SESSION, [0x77; 32]);
        (key, sealed.expect("the repository's own key is usable"))
    });
    let (key, sealed) = &*SESSION_KEY;
    let base = match name.kind {
        PackKind::Data => PackBase::Data(key, sealed),
        PackKind::Map => PackBase::Map,
    };
    seal_pack(&PackSeal { keys: keys(), name, base, salt: SALT, directory_salt: [0x34; 32] }, body, frames)
}
