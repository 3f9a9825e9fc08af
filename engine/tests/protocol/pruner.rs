//! The blobs that a pruner and the retention make.

use crate::world::{NOW, retention_key};
use keepstone_engine::Repository;
use keepstone_engine::store::Put;
use repo_format::{
    Abort, AbortBy, BlobName, Condemned, Decision, DecisionName, Decoder, FrameEntry, GcResult,
    GenerationSeal, Index, IndexEntry, Lead, PACK_HEADER_LEN, PackBase, PackKind, PackName, PackRef,
    PackSeal, RepackRecord, Repacked, SessionId, SessionKey, TAG_LEN, Tombstone, WriterId, seal_pack,
    seal_session_key, verify_pack,
};
use std::collections::BTreeSet;

const SALT: [u8; 32] = [7; 32];

pub fn put(repository: &Repository<'_>, (name, bytes): (BlobName, Vec<u8>)) {
    assert_eq!(repository.store().put_new(&name, &bytes).unwrap(), Put::Created, "{name}");
}

pub fn condemn(repository: &Repository<'_>, generation: u32, packs: &[PackRef]) {
    let list = Condemned { packs: packs.to_vec() };
    put(repository, list.seal(repository.keys(), &retention_key(repository), generation, SALT));
}

pub fn publish_result(repository: &Repository<'_>, generation: u32, delete: &[PackRef]) {
    let result = GcResult { delete: delete.to_vec(), rescued: Vec::new(), covers: 1, earlier: Vec::new() };
    put(repository, result.seal(repository.keys(), &retention_key(repository), generation, SALT));
}

pub fn seal_generation(repository: &Repository<'_>, generation: u32) {
    let seal = GenerationSeal { roster: Vec::new() };
    put(repository, seal.seal(repository.keys(), &retention_key(repository), generation, SALT));
}

pub fn forget(repository: &Repository<'_>, decision: &DecisionName) {
    let tombstone = Tombstone { session: decision.session, time: NOW, decision: decision.clone() };
    put(repository, tombstone.seal(repository.keys(), &retention_key(repository), SALT));
}

/// The bytes of an ABORT.
pub fn abort(repository: &Repository<'_>, decision: &DecisionName) -> Vec<u8> {
    let abort = Abort { session: decision.session, time: NOW, program: "test".into(), by: AbortBy::Pruner };
    Decision::Abort(abort).seal_signed(repository.keys(), &retention_key(repository), decision, SALT)
}

/// How a repack session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    Abort,
    Undecided,
}

/// A repack of packs of one kind.
pub struct Repack<'a> {
    /// Every byte of its session's id.
    pub session: u8,
    pub from: &'a [PackRef],
    pub applies_to: &'a [SessionId],
    /// Of the entries, one in so many is moved.
    pub one_in: usize,
    pub end: End,
}

impl Repack<'_> {
    /// Copies the entries into one new pack, the last first, then publishes its index, then the record, then the
    /// decision. Returns the new pack.
    pub fn run(&self, repository: &Repository<'_>) -> PackRef {
        let session = SessionId([self.session; 16]);
        let writer = WriterId::new("pruner").expect("a writer id");
        let kind = self.from[0].name.kind;
        let name = PackName { kind, writer: writer.clone(), session, number: 0 };
        let (pack, mut entries) = self.copy(repository, &name);
        let mut packs = self.from.to_vec();
        packs.push(pack.clone());
        packs.sort();
        let number = |wanted: &PackName| {
            let place = packs.iter().position(|pack| pack.name == *wanted).expect("it is in the table");
            u32::try_from(place).expect("there are few packs")
        };
        let leads =
            self.from.iter().map(|old| Lead { old: number(&old.name), new: vec![number(&name)] }).collect();
        let decision = DecisionName { vm: repository.keys().vm_tag(""), writer, seq: 0, session };
        if kind == PackKind::Data {
            entries.sort_by_key(|entry| entry.id);
            entries.dedup_by_key(|entry| entry.id);
            let sessions = vec![(session, decision.clone())];
            let index = Index { sessions, packs: vec![pack.clone()], entries };
            let index_name = BlobName::index(&decision.writer, session, 0);
            put(repository, (index_name.clone(), index.seal(repository.keys(), &index_name, SALT)));
        }
        let mut applies_to = self.applies_to.to_vec();
        applies_to.sort();
        let record = RepackRecord { session, decision: decision.clone(), applies_to, packs, leads };
        put(repository, record.seal(repository.keys(), &retention_key(repository), SALT));
        match self.end {
            End::Commit => put(repository, (decision.blob(), repacked(repository, &decision))),
            End::Abort => put(repository, (decision.blob(), abort(repository, &decision))),
            End::Undecided => {}
        }
        pack
    }

    /// Seals the entries into a pack of that name; returns it with what its index says of it.
    fn copy(&self, repository: &Repository<'_>, name: &PackName) -> (PackRef, Vec<IndexEntry>) {
        let keys = repository.keys();
        let mut body = vec![0; PACK_HEADER_LEN];
        let (mut frames, mut entries) = (Vec::new(), Vec::new());
        for old in self.from {
            let mut blob = repository.store().get(&old.name.blob(), None).unwrap();
            let old_frames = verify_pack(keys, &old.name, &mut blob, &mut Decoder::new()).unwrap();
            for (old_offset, frame) in old_frames.into_iter().step_by(self.one_in).rev() {
                let offset = u32::try_from(body.len()).expect("a pack is short");
                let start = old_offset as usize;
                body.extend_from_slice(&blob[start..start + frame.stored_len as usize - TAG_LEN]);
                body.extend([0; TAG_LEN]);
                frames.push(frame);
                let FrameEntry { id, codec, stored_len, plain_len, .. } = frame;
                entries.push(IndexEntry { id, codec, pack: 0, offset, stored_len, plain_len });
            }
        }
        let key = SessionKey::new([self.session; 32]);
        let public = repository.config().data_public_key;
        let sealed = seal_session_key(&key, &public, keys.repository(), name.session, SALT).unwrap();
        let base = match name.kind {
            PackKind::Data => PackBase::Data(&key, &sealed),
            PackKind::Map => PackBase::Map,
        };
        let blob = seal_pack(&PackSeal { keys, name, base, salt: SALT, directory_salt: SALT }, body, &frames);
        let len = u32::try_from(blob.len()).expect("a pack is short");
        put(repository, (name.blob(), blob));
        (PackRef { name: name.clone(), len }, entries)
    }
}

/// The decision of a repack session.
fn repacked(repository: &Repository<'_>, decision: &DecisionName) -> Vec<u8> {
    let repacked = Repacked { session: decision.session, time: NOW, program: "test".into() };
    Decision::Repack(repacked).seal(repository.keys(), decision, SALT)
}

/// A record that says whatever it is told, of a session that repacked.
pub fn record(repository: &Repository<'_>, session: SessionId, leads: &[(&PackRef, &[&PackRef])]) {
    let packs: BTreeSet<PackRef> =
        leads.iter().flat_map(|(old, new)| new.iter().chain([old])).map(|pack| (*pack).clone()).collect();
    let packs: Vec<PackRef> = packs.into_iter().collect();
    let number = |wanted: &PackRef| {
        let place = packs.iter().position(|pack| pack == wanted).expect("it is in the table");
        u32::try_from(place).expect("there are few packs")
    };
    let lead = |(old, new): &(&PackRef, &[&PackRef])| {
        let mut new: Vec<u32> = new.iter().map(|new| number(new)).collect();
        new.sort_unstable();
        Lead { old: number(old), new }
    };
    let mut leads: Vec<Lead> = leads.iter().map(lead).collect();
    leads.sort_by_key(|lead| lead.old);
    let writer = WriterId::new("pruner").unwrap();
    let decision = DecisionName { vm: repository.keys().vm_tag(""), writer, seq: 0, session };
    let record = RepackRecord { session, decision: decision.clone(), applies_to: Vec::new(), packs, leads };
    put(repository, record.seal(repository.keys(), &retention_key(repository), SALT));
    put(repository, (decision.blob(), repacked(repository, &decision)));
}

/// A data pack of a repack session that says of each of its payloads what it is told: its bytes, and the entry of its
/// directory but for the lengths.
pub fn data_pack(
    repository: &Repository<'_>,
    (session, number): (SessionId, u32),
    payloads: &[(&[u8], FrameEntry)],
) -> PackRef {
    let writer = WriterId::new("pruner").unwrap();
    let name = PackName { kind: PackKind::Data, writer, session, number };
    let (mut body, mut frames) = (vec![0; PACK_HEADER_LEN], Vec::new());
    for (encoded, frame) in payloads {
        body.extend_from_slice(encoded);
        body.extend([0; TAG_LEN]);
        let stored_len = u32::try_from(encoded.len() + TAG_LEN).expect("a frame is short");
        frames.push(FrameEntry { stored_len, ..*frame });
    }
    let (keys, key) = (repository.keys(), SessionKey::new(SALT));
    let public = repository.config().data_public_key;
    let sealed = seal_session_key(&key, &public, keys.repository(), session, SALT).unwrap();
    let base = PackBase::Data(&key, &sealed);
    let seal = PackSeal { keys, name: &name, base, salt: SALT, directory_salt: SALT };
    let blob = seal_pack(&seal, body, &frames);
    let len = u32::try_from(blob.len()).expect("a pack is short");
    put(repository, (name.blob(), blob));
    PackRef { name, len }
}
