//! A repository, and what somebody with its keys can put into it that a writer of this program would not.

use crate::raw::Raw;
use crate::world::{NOW, back_up, create, latest, memory_index, mixed, retention_key, small_geometry};
use keepstone_engine::snapshots::Snapshot;
use keepstone_engine::source::MemoryDisk;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{BlobStore, Repository};
use repo_format::{
    BlobName, Child, Codec, Commit, Decision, DecisionName, FrameEntry, FrameKind, Geometry, Keys, Location,
    Node, PACK_HEADER_LEN, PackBase, PackKind, PackName, PackRef, PackSeal, Page, PayloadId, SealedKind,
    SessionId, SessionKey, TAG_LEN, Totals, WriterId, seal, seal_pack, seal_session_key, seal_signed,
};

pub const VM: &str = "vm";
/// The session of whoever stole the keys.
pub const THIEF: SessionId = SessionId([0xee; 16]);
const DISK_LEN: usize = 300_000;

/// A repository with one snapshot of one disk, and the snapshot that the verbs are tried on.
pub struct World {
    pub store: MemoryStore,
    pub keys: Keys,
    pub geometry: Geometry,
    /// The snapshot that was made by a backup.
    pub first: Snapshot,
    /// The disk that it is of, as it is now.
    pub disk: MemoryDisk,
    /// The snapshot to show, restore and compare.
    pub target: SessionId,
    /// Whether the target is to restore as [`World::disk`].
    pub is_honest: bool,
}

impl World {
    pub fn new() -> Self {
        Self::with(small_geometry())
    }

    pub fn with(geometry: Geometry) -> Self {
        let store = MemoryStore::new();
        let mut disk = MemoryDisk { change_id: Some("one".into()), ..MemoryDisk::new(mixed(1, DISK_LEN)) };
        let (keys, first) = {
            let repository = create(&store, geometry);
            let mut index = memory_index(&repository);
            back_up(&repository, &mut index, VM, &[("disk0", &disk)], 1).expect("the first backup succeeds");
            (repository.keys().clone(), latest(&repository, VM))
        };
        disk.changes = Some(("one".into(), Vec::new()));
        let target = first.session();
        Self { store, keys, geometry, first, disk, target, is_honest: true }
    }

    pub fn repository(&self) -> Repository<'_> {
        crate::world::open(&self.store)
    }

    pub fn get(&self, name: &BlobName) -> Vec<u8> {
        self.store.get(name, None).expect("the blob is there")
    }

    pub fn put(&self, name: &BlobName, bytes: &[u8]) {
        self.store.overwrite(name, bytes);
    }

    /// Seals any plaintext as an object of that kind.
    pub fn forge(&self, kind: SealedKind, name: &BlobName, plaintext: &[u8]) {
        self.put(name, &seal(&self.keys, kind, name, [7; 32], plaintext));
    }

    /// Signs and seals any content as an object of that kind: what only the holder of the retention key can make.
    pub fn forge_signed(&self, kind: SealedKind, name: &BlobName, content: &[u8]) {
        let retention = retention_key(&self.repository());
        self.put(name, &seal_signed(&self.keys, &retention, (kind, name), [7; 32], content.to_vec()));
    }

    /// The name of the thief's decision: the next one of the VM.
    pub fn decision_name(&self) -> DecisionName {
        DecisionName { writer: thief(), seq: 1, session: THIEF, ..self.first.name.clone() }
    }

    /// Commits any plaintext.
    pub fn commit_raw(&mut self, plaintext: &[u8]) {
        let name = self.decision_name().blob();
        self.forge(SealedKind::Decision, &name, plaintext);
        (self.target, self.is_honest) = (THIEF, false);
    }

    /// Commits a snapshot that is like the first one but for what `change` does to it.
    pub fn commit(&mut self, change: impl FnOnce(&mut Commit)) {
        let mut commit = self.first.commit.clone();
        (commit.session, commit.time) = (THIEF, NOW + 50);
        commit.parent = Some(self.first.name.clone());
        commit.totals = Totals::default();
        change(&mut commit);
        self.commit_raw(&Decision::Commit(Box::new(commit)).encode());
    }

    /// Commits a disk of that size with that map.
    pub fn commit_map(&mut self, size: u64, map: Location) {
        self.commit(|commit| (commit.disks[0].size, commit.disks[0].map) = (size, Some(map)));
    }

    /// The root node of the first snapshot's only disk.
    pub fn root(&self) -> Location {
        self.first.commit.disks[0].map.clone().expect("the disk has a map")
    }

    /// Stores payloads in a pack of the thief's, encoded and described as they say.
    pub fn store_frames(&self, kind: PackKind, number: u32, frames: &[Forged]) -> Vec<Location> {
        let name = pack_name(kind, number);
        let mut body = vec![0; PACK_HEADER_LEN];
        let mut entries = Vec::new();
        let mut offsets = Vec::new();
        for frame in frames {
            offsets.push(u32::try_from(body.len()).expect("a short pack"));
            body.extend_from_slice(&frame.encoded);
            body.extend_from_slice(&[0; TAG_LEN]);
            let stored_len = u32::try_from(frame.encoded.len() + TAG_LEN).expect("a short frame");
            let Forged { kind, codec, plain_len, id, .. } = *frame;
            entries.push(FrameEntry { kind, codec, plain_len, stored_len, id });
        }
        let session_key = SessionKey::new([9; 32]);
        let public = self.keys.data_public_key();
        let sealed = seal_session_key(&session_key, &public, self.keys.repository(), THIEF, [8; 32])
            .expect("the public key is one");
        let base = match kind {
            PackKind::Data => PackBase::Data(&session_key, &sealed),
            PackKind::Map => PackBase::Map,
        };
        let with = PackSeal { keys: &self.keys, name: &name, base, salt: [1; 32], directory_salt: [2; 32] };
        let blob = seal_pack(&with, body, &entries);
        self.put(&name.blob(), &blob);
        let pack = PackRef { name, len: u32::try_from(blob.len()).expect("a short pack") };
        let place = |(entry, offset): (&FrameEntry, &u32)| Location {
            pack: pack.clone(),
            codec: entry.codec,
            offset: *offset,
            stored_len: entry.stored_len,
            plain_len: entry.plain_len,
            id: entry.id,
        };
        entries.iter().zip(&offsets).map(place).collect()
    }

    /// Stores one payload as it is, in a pack of its own.
    pub fn store(&self, kind: FrameKind, number: u32, payload: &[u8]) -> Location {
        let frame = Forged::raw(&self.keys, kind, payload);
        self.store_frames(kind.pack_kind(), number, &[frame]).remove(0)
    }

    pub fn store_node(&self, number: u32, node: &Node) -> Location {
        self.store(FrameKind::Node, number, &node.encode(&pack_name(PackKind::Map, number)))
    }

    /// Stores a tree in which every node has 64 times the same child, `page` at its bottom, of as many levels as
    /// a disk of that size calls for, which is to fill the root.
    pub fn fan_out(&self, size: u64, page: &Page) -> Location {
        let mut at = self.store(FrameKind::Page, 0, &page.encode());
        let mut names = page.packs();
        for level in 1..=repo_format::root_level(size, self.geometry.cell_len) {
            let names_of = if level <= 2 { names } else { Vec::new() };
            let child = Child::Stored { at, names: names_of };
            let node = Node { level, children: vec![child; 64] };
            at = self.store_node(u32::from(level), &node);
            names = node.packs();
        }
        at
    }
}

/// A frame of a pack, and what its entry in the directory says of it.
pub struct Forged {
    pub kind: FrameKind,
    pub codec: Codec,
    pub plain_len: u32,
    pub id: PayloadId,
    pub encoded: Vec<u8>,
}

impl Forged {
    pub fn raw(keys: &Keys, kind: FrameKind, payload: &[u8]) -> Self {
        let plain_len = u32::try_from(payload.len()).expect("a short payload");
        Self {
            kind,
            codec: Codec::Raw,
            plain_len,
            id: keys.payload_id(kind, payload).unwrap(),
            encoded: payload.to_vec(),
        }
    }

    /// A chunk of zeros of that length, in a zstd frame that says and holds whatever it does.
    pub fn zstd_chunk(keys: &Keys, plain_len: u32, encoded: Vec<u8>) -> Self {
        let id = keys.data().unwrap().chunk_id(&vec![0; plain_len as usize]);
        Self { kind: FrameKind::Chunk, codec: Codec::Zstd, plain_len, id, encoded }
    }
}

pub fn thief() -> WriterId {
    WriterId::new("a-thief").expect("a writer id")
}

pub fn pack_name(kind: PackKind, number: u32) -> PackName {
    PackName { kind, writer: thief(), session: THIEF, number }
}

/// A COMMIT field by field, by default one of a disk that is one hole.
pub struct RawCommit {
    pub verdict: u8,
    pub session: SessionId,
    pub time: u64,
    pub vm: Vec<u8>,
    pub parent: Raw,
    pub via: Raw,
    pub tags: Raw,
    pub properties: Raw,
    pub disk_count: u16,
    pub disks: Raw,
    pub end: Raw,
}

impl RawCommit {
    pub fn new() -> Self {
        Self {
            verdict: 1,
            session: THIEF,
            time: NOW + 50,
            vm: VM.as_bytes().to_vec(),
            parent: Raw::new().u8(0),
            via: Raw::new().u32(0),
            tags: Raw::new().u16(0),
            properties: Raw::new().u16(0),
            disk_count: 1,
            disks: raw_disk(b"disk0", DISK_LEN as u64, &Raw::new().u8(0)),
            end: Raw::new().put(&[0; 48]),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let vm_len = u8::try_from(self.vm.len()).expect("a short name");
        let head = Raw::new().u8(self.verdict).put(&self.session.0).u64(self.time).str8("keepstone");
        let head = head.u8(vm_len).put(&self.vm).put(&self.parent.0).put(&self.via.0).put(&self.tags.0);
        head.put(&self.properties.0).u16(self.disk_count).put(&self.disks.0).put(&self.end.0).0
    }
}

/// A disk without a change id; `map` is the codec of its root node and what follows.
pub fn raw_disk(key: &[u8], size: u64, map: &Raw) -> Raw {
    let key_len = u8::try_from(key.len()).expect("a short key");
    Raw::new().u8(key_len).put(key).u64(size).u8(0).u8(1).u64(0).u64(0).put(&map.0)
}
