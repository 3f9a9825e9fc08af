//! The chunks of many backups, as index blobs tell of them: everything follows from a chunk's number.

use keepstone_benches::random::Random;
use keepstone_benches::repository::writer;
use repo_format::{
    BlobName, ChunkId, Codec, DecisionName, Index, IndexEntry, PACK_HEADER_LEN, PackKind, PackName, PackRef,
    PayloadId, SessionId, VmTag,
};

/// What a pack is filled up to.
const PACK_LEN: u32 = 32 << 20;
/// Packs that one index blob lists: a backup writes one for so many stored bytes.
const PACKS_PER_INDEX: usize = 8;
/// Stored lengths begin here, and spread as far again twice: 24 KiB on average.
const STORED_LEN_MIN: u32 = 8 << 10;

/// Sessions of as many new chunks each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) sessions: u64,
    /// New chunks of each session.
    pub(crate) chunks: u64,
}

impl Fleet {
    /// All chunks of all sessions.
    pub(crate) fn len(&self) -> u64 {
        self.sessions * self.chunks
    }

    /// The index blobs that a session leaves.
    pub(crate) fn indexes(&self, session: u64) -> Vec<(BlobName, Index)> {
        let id = session_id(session);
        let decision = DecisionName { vm: vm(session), writer: writer(), seq: 1, session: id };
        let mut packs = self.packs(session).into_iter();
        let mut indexes = Vec::new();
        while packs.len() > 0 {
            let mut index = Index { sessions: vec![(id, decision.clone())], packs: vec![], entries: vec![] };
            for (number, (pack, entries)) in (0..).zip(packs.by_ref().take(PACKS_PER_INDEX)) {
                index.packs.push(pack);
                index.entries.extend(entries.into_iter().map(|entry| IndexEntry { pack: number, ..entry }));
            }
            index.entries.sort_by_key(|entry| entry.id);
            let number = u32::try_from(indexes.len()).expect("a session leaves few indexes");
            indexes.push((BlobName::index(&writer(), id, number), index));
        }
        indexes
    }

    fn packs(&self, session: u64) -> Vec<(PackRef, Vec<IndexEntry>)> {
        let header_len = u32::try_from(PACK_HEADER_LEN).expect("a header is short");
        let mut packs: Vec<(PackRef, Vec<IndexEntry>)> = Vec::new();
        for chunk in session * self.chunks..(session + 1) * self.chunks {
            if packs.last().is_none_or(|(pack, _)| pack.len >= PACK_LEN) {
                let number = u32::try_from(packs.len()).expect("a session has few packs");
                let session = session_id(session);
                let name = PackName { kind: PackKind::Data, writer: writer(), session, number };
                packs.push((PackRef { name, len: header_len }, Vec::new()));
            }
            let (pack, entries) = packs.last_mut().expect("there is one now");
            let spread = Random::new(!chunk).below(u64::from(STORED_LEN_MIN * 4));
            let stored_len = STORED_LEN_MIN + u32::try_from(spread).expect("less than a length");
            let (id, offset) = (chunk_id(chunk), pack.len);
            let plain_len = stored_len * 2;
            entries.push(IndexEntry { id, codec: Codec::Zstd, pack: 0, offset, stored_len, plain_len });
            pack.len += stored_len;
        }
        packs
    }
}

/// The id of a chunk of the fleet, or with a higher number of one that it has not.
pub(crate) fn chunk_id(chunk: u64) -> ChunkId {
    let mut random = Random::new(Random::new(chunk).draw());
    let mut id = [0; 32];
    for word in id.as_chunks_mut::<8>().0 {
        *word = random.draw().to_le_bytes();
    }
    PayloadId(id)
}

fn session_id(session: u64) -> SessionId {
    SessionId(u128::from(session).to_be_bytes())
}

fn vm(session: u64) -> VmTag {
    VmTag(u128::from(!session).to_be_bytes())
}
