//! The blobs that a pruner and the retention make.

use crate::world::NOW;
use keepstone_engine::Repository;
use keepstone_engine::store::Put;
use repo_format::{
    Abort, AbortBy, BlobName, Commit, Condemned, Decision, DecisionName, Decoder, Disk, DiskMode, FrameEntry,
    GcResult, GenerationSeal, Move, PACK_HEADER_LEN, PackBase, PackKind, PackName, PackRef, PackSeal,
    RepackRecord, SessionId, SessionKey, TAG_LEN, Tombstone, Totals, WriterId, seal_pack, seal_session_key,
    verify_pack,
};

const SALT: [u8; 32] = [7; 32];

fn put(repository: &Repository<'_>, (name, bytes): (BlobName, Vec<u8>)) {
    assert_eq!(repository.store().put_new(&name, &bytes).unwrap(), Put::Created, "{name}");
}

pub fn condemn(repository: &Repository<'_>, generation: u32, packs: &[PackRef]) {
    let list = Condemned { packs: packs.to_vec() };
    put(repository, list.seal(repository.keys(), generation, SALT));
}

pub fn publish_result(repository: &Repository<'_>, generation: u32, delete: &[PackRef]) {
    let result = GcResult { delete: delete.to_vec(), rescued: Vec::new(), roster: Vec::new() };
    put(repository, result.seal(repository.keys(), generation, SALT));
}

pub fn seal_generation(repository: &Repository<'_>, generation: u32) {
    put(repository, GenerationSeal::seal(repository.keys(), generation, SALT));
}

pub fn forget(repository: &Repository<'_>, decision: &DecisionName) {
    let tombstone = Tombstone { session: decision.session, time: NOW, decision: decision.clone() };
    put(repository, tombstone.seal(repository.keys(), SALT));
}

/// The bytes of an ABORT.
pub fn abort(repository: &Repository<'_>, decision: &DecisionName) -> Vec<u8> {
    let abort = Abort { session: decision.session, time: NOW, program: "test".into(), by: AbortBy::Pruner };
    Decision::Abort(abort).seal(repository.keys(), decision, SALT)
}

/// How a repack session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    Abort,
    Undecided,
}

/// A repack of data packs.
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
    /// Copies the entries into one new pack, the last first, then publishes the record, then the decision. Returns
    /// the new pack.
    pub fn run(&self, repository: &Repository<'_>) -> PackRef {
        let session = SessionId([self.session; 16]);
        let writer = WriterId::new("pruner").expect("a writer id");
        let name = PackName { kind: PackKind::Data, writer: writer.clone(), session, number: 0 };
        let (pack, places) = self.copy(repository, &name);
        let mut packs = self.from.to_vec();
        packs.push(pack.clone());
        packs.sort();
        let number = |wanted: &PackName| {
            let place = packs.iter().position(|pack| pack.name == *wanted).expect("it is in the table");
            u32::try_from(place).expect("there are few packs")
        };
        let mut moves: Vec<Move> = places
            .into_iter()
            .map(|(old, old_offset, new_offset, frame)| Move {
                id: frame.id,
                old_pack: number(&old),
                old_offset,
                codec: frame.codec,
                new_pack: number(&name),
                new_offset,
                new_stored_len: frame.stored_len,
                plain_len: frame.plain_len,
            })
            .collect();
        moves.sort_by_key(|moved| (moved.old_pack, moved.old_offset));
        let decision = DecisionName { vm: repository.keys().vm_tag("repack"), writer, seq: 0, session };
        let mut applies_to = self.applies_to.to_vec();
        applies_to.sort();
        let record = RepackRecord { session, decision: decision.clone(), applies_to, packs, moves };
        put(repository, record.seal(repository.keys(), SALT));
        match self.end {
            End::Commit => put(repository, (decision.blob(), commit(repository, &decision))),
            End::Abort => put(repository, (decision.blob(), abort(repository, &decision))),
            End::Undecided => {}
        }
        pack
    }

    /// Seals the entries into a pack of that name; returns for each its old pack and offset and its new offset.
    fn copy(
        &self,
        repository: &Repository<'_>,
        name: &PackName,
    ) -> (PackRef, Vec<(PackName, u32, u32, FrameEntry)>) {
        let keys = repository.keys();
        let mut body = vec![0; PACK_HEADER_LEN];
        let (mut frames, mut places) = (Vec::new(), Vec::new());
        for old in self.from {
            let mut blob = repository.store().get(&old.name.blob(), None).unwrap();
            let entries = verify_pack(keys, &old.name, &mut blob, &mut Decoder::new()).unwrap();
            for (old_offset, frame) in entries.into_iter().step_by(self.one_in).rev() {
                let new_offset = u32::try_from(body.len()).expect("a pack is short");
                let start = old_offset as usize;
                body.extend_from_slice(&blob[start..start + frame.stored_len as usize - TAG_LEN]);
                body.extend([0; TAG_LEN]);
                frames.push(frame);
                places.push((old.name.clone(), old_offset, new_offset, frame));
            }
        }
        let key = SessionKey::new([self.session; 32]);
        let public = repository.config().data_public_key;
        let sealed = seal_session_key(&key, &public, keys.repository(), name.session, SALT).unwrap();
        let base = PackBase::Data(&key, &sealed);
        let blob = seal_pack(&PackSeal { keys, name, base, salt: SALT, directory_salt: SALT }, body, &frames);
        let len = u32::try_from(blob.len()).expect("a pack is short");
        put(repository, (name.blob(), blob));
        (PackRef { name: name.clone(), len }, places)
    }
}

/// A COMMIT of a session that is no backup.
fn commit(repository: &Repository<'_>, decision: &DecisionName) -> Vec<u8> {
    let hole = Disk {
        key: "none".into(),
        size: 1,
        change_id: None,
        mode: DiskMode::Full,
        changed_bytes: 0,
        read_bytes: 0,
        map: None,
    };
    let commit = Commit {
        session: decision.session,
        time: NOW,
        program: "test".into(),
        vm: "repack".into(),
        parent: None,
        via: Vec::new(),
        tags: Vec::new(),
        properties: Vec::new(),
        disks: vec![hole],
        totals: Totals::default(),
    };
    Decision::Commit(Box::new(commit)).seal(repository.keys(), decision, SALT)
}
