//! The index blobs of a session: checkpoints during a long run, and the last one.

use super::pipeline::Context;
use crate::pack::{ClosedPack, FRAMES_MAX};
use repo_format::limits::SEALED_PLAIN_LEN_MAX;
use repo_format::{BlobName, Index, IndexEntry, PACK_HEADER_LEN, PackRef};
use std::collections::BTreeMap;

/// An index checkpoint is written for so many stored bytes: what is uploaded again after a crash.
const CHECKPOINT_BYTES: u64 = 256 << 20;
/// Or for so many chunks, if they are small: with those of one more pack they fit an index (SPEC 12).
const CHECKPOINT_CHUNKS: usize = 400_000;
const _: () = assert!((CHECKPOINT_CHUNKS + FRAMES_MAX) * INDEX_ENTRY_LEN + (1 << 20) < SEALED_PLAIN_LEN_MAX);
const INDEX_ENTRY_LEN: usize = 49;

/// What the index blobs of this session list.
#[derive(Default)]
pub(super) struct Indexing {
    /// Packs that are not in the store yet, by number.
    underway: BTreeMap<u32, PackEntries>,
    /// Packs that are, and are in no index yet, with their entries.
    stored: BTreeMap<u32, (PackRef, Vec<IndexEntry>)>,
    stored_bytes: u64,
    stored_chunks: usize,
    /// Index blobs that are not in the store yet, by number.
    checkpoints: BTreeMap<u32, Checkpoint>,
    next: u32,
}

struct PackEntries {
    entries: Vec<IndexEntry>,
    /// The number of its first chunk among the new ones.
    first_chunk: u64,
}

/// An index blob, and what it makes unnecessary to remember.
pub(super) struct Checkpoint {
    pub(super) name: BlobName,
    pub(super) index: Index,
    /// New chunks with lower numbers are in packs that indexes list.
    pub(super) before: u64,
}

impl Indexing {
    /// Notes a data pack that is on its way, and the number of its first chunk.
    pub(super) fn pack_closed(&mut self, closed: &ClosedPack, first_chunk: u64) {
        let pack = PackEntries { entries: index_entries(closed), first_chunk };
        self.underway.insert(closed.name.number, pack);
    }

    /// Notes that a data pack is in the store. Returns whether it is time for a checkpoint.
    pub(super) fn pack_stored(&mut self, pack: PackRef) -> bool {
        let number = pack.name.number;
        let entries = self.underway.remove(&number).expect("a pack is closed before it is stored").entries;
        self.stored_bytes += u64::from(pack.len);
        self.stored_chunks += entries.len();
        self.stored.insert(number, (pack, entries));
        self.stored_bytes >= CHECKPOINT_BYTES || self.stored_chunks >= CHECKPOINT_CHUNKS
    }

    /// Makes an index of the packs that are in the store and in no index yet: its number and its blob. `chunks` is
    /// how many new chunks there are.
    pub(super) fn checkpoint(
        &mut self,
        context: &Context<'_, '_, '_, '_>,
        chunks: u64,
    ) -> Option<(u32, BlobName, Vec<u8>)> {
        if self.stored.is_empty() {
            return None;
        }
        let session = context.session;
        let mut packs = Vec::with_capacity(self.stored.len());
        let mut entries = Vec::new();
        for (number, (pack, of_pack)) in (0u32..).zip(std::mem::take(&mut self.stored).into_values()) {
            packs.push(pack);
            entries.extend(of_pack.into_iter().map(|entry| IndexEntry { pack: number, ..entry }));
        }
        self.stored_bytes = 0;
        self.stored_chunks = 0;
        entries.sort_by_key(|entry| entry.id);
        let number = self.next;
        self.next += 1;
        let name = BlobName::index(&session.writer, session.id, number);
        let index = Index { sessions: vec![(session.id, session.decision.clone())], packs, entries };
        let bytes = sealed(context, number, &name, &index);
        // Packs are stored in any order: what is certain ends before the first one that is not.
        let before = self.underway.values().map(|pack| pack.first_chunk).min().unwrap_or(chunks);
        self.checkpoints.insert(number, Checkpoint { name: name.clone(), index, before });
        Some((number, name, bytes))
    }

    /// Notes that an index blob is in the store.
    pub(super) fn checkpoint_stored(&mut self, number: u32) -> Checkpoint {
        self.checkpoints.remove(&number).expect("an index is made before it is stored")
    }

    /// The index blobs that are not known to be in the store, as they were made: with those of their puts that the end
    /// of the pipeline dropped, packs would be forgotten.
    pub(super) fn unsettled<'a>(
        &'a self,
        context: &'a Context<'_, '_, '_, '_>,
    ) -> impl Iterator<Item = (BlobName, Vec<u8>)> + 'a {
        let blob = |(number, checkpoint): (&u32, &'a Checkpoint)| {
            let Checkpoint { name, index, .. } = checkpoint;
            (name.clone(), sealed(context, *number, name, index))
        };
        self.checkpoints.iter().map(blob)
    }

    /// Whether all index blobs are in the store.
    pub(super) fn is_settled(&self) -> bool {
        self.checkpoints.is_empty()
    }
}

/// The blob of an index, the same one each time.
fn sealed(context: &Context<'_, '_, '_, '_>, number: u32, name: &BlobName, index: &Index) -> Vec<u8> {
    let salt = context.entropy.draw("index salt", u64::from(number));
    index.seal(context.repository.keys(), name, salt)
}

/// The index entries of a pack's chunks; the pack's number within an index is put in later.
fn index_entries(closed: &ClosedPack) -> Vec<IndexEntry> {
    let mut offset = u32::try_from(PACK_HEADER_LEN).expect("a header is short");
    let entry = |frame: &repo_format::FrameEntry| {
        let entry = IndexEntry {
            id: frame.id,
            codec: frame.codec,
            pack: 0,
            offset,
            stored_len: frame.stored_len,
            plain_len: frame.plain_len,
        };
        offset += frame.stored_len;
        entry
    };
    closed.frames.iter().map(entry).collect()
}
