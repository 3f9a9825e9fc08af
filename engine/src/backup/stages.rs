//! The stages that run in parallel: a region is read; it is chunked and hashed; new chunks are encoded; a pack is
//! sealed. Each is a function of its input, so the order in which they finish does not show in the result.

use super::feed::RegionJob;
use super::level::Level;
use super::plan::DiskPlan;
use super::reading::LoadedRegion;
use crate::Extent;
use crate::buffers::BufferPool;
use crate::chunker::Chunker;
use crate::condemned::Condemned;
use crate::entropy::Entropy;
use crate::error::EngineError;
use crate::frames::lock;
use crate::map::sequence::{NewContent, StoredPiece, differing_cells};
use crate::map::writer::Untouched;
use crate::pack::ClosedPack;
use crate::rechunk::{Content, OldPiece, foreseen, rechunk};
use crate::region::{RegionBuffer, RegionPool};
use crate::threads::AtomicBool;
use repo_format::{
    ChunkId, Codec, DataKeys, Encoder, Keys, Location, PackBase, PackKind, PackSeal, SealedSessionKey,
    SessionKey, seal_pack,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// What all tasks of one backup share.
pub(super) struct Stages<'a> {
    pub(super) keys: &'a Keys,
    pub(super) data_keys: &'a DataKeys,
    pub(super) plans: &'a [DiskPlan<'a>],
    pub(super) condemned: &'a Condemned,
    pub(super) entropy: &'a Entropy,
    pub(super) level: Level,
    pub(super) chunker: Chunker,
    pub(super) pool: &'a RegionPool,
    pub(super) session_key: SessionKey,
    pub(super) sealed_session_key: SealedSessionKey,
    pub(super) encoders: Mutex<Vec<Encoder>>,
    /// For encoded regions.
    pub(super) outputs: &'a BufferPool,
    /// For packs.
    pub(super) bodies: Arc<BufferPool>,
    /// Set by the first failure: nobody begins anything new.
    pub(super) stopped: AtomicBool,
}

/// A piece of a region's new chunk sequence.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Hole(u32),
    /// A chunk that the parent has, at the same place.
    At(Location),
    /// A chunk that may be new.
    Candidate {
        start: u32,
        len: u32,
        id: ChunkId,
    },
}

/// A region that was chunked and hashed.
pub(super) struct ChunkedRegion<'a> {
    pub(super) seq: u64,
    pub(super) disk: usize,
    pub(super) region: u64,
    pub(super) pieces: Vec<Piece>,
    /// For each cell of the region, whether its page has to be looked at; the others are the parent's.
    pub(super) differing: Vec<bool>,
    /// The bytes, if a candidate may need them.
    pub(super) buffer: Option<RegionBuffer<'a>>,
    pub(super) read_bytes: u64,
    /// Bytes of changed areas that are done.
    pub(super) area_bytes: u64,
}

/// A chunk that has to be stored.
#[derive(Clone, Copy)]
pub(super) struct NewChunk {
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) id: ChunkId,
}

/// The new chunks of a region, encoded one behind the other.
pub(super) struct EncodedRegion {
    pub(super) seq: u64,
    pub(super) bytes: Vec<u8>,
    /// Codec and encoded length of each.
    pub(super) frames: Vec<(Codec, u32)>,
}

impl Stages<'_> {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl<'a> Stages<'a> {
    /// Reads what is foreseen of a region.
    pub(super) fn load(&'a self, job: RegionJob) -> Result<LoadedRegion<'a>, EngineError> {
        let plan = &self.plans[job.disk];
        let start = job.region * u64::from(plan.shape.region_len);
        let len = plan.shape.region_bytes(job.region);
        let mut buffer = self.pool.region(plan.source, Extent { start, length: u64::from(len) });
        let ranges = foreseen(&self.chunker, (start, len), &old_pieces(plan, &job, len), &job.areas);
        buffer.load_first(&ranges).map_err(|source| source_failed(plan, source))?;
        Ok(LoadedRegion { job, buffer })
    }

    /// Chunks and hashes a region.
    pub(super) fn chunk(&self, region: LoadedRegion<'a>) -> Result<ChunkedRegion<'a>, EngineError> {
        let LoadedRegion { job, mut buffer } = region;
        let plan = &self.plans[job.disk];
        let old = old_pieces(plan, &job, buffer.len());
        let new =
            rechunk(&self.chunker, &mut buffer, &old, &job.areas, |bytes| self.data_keys.chunk_id(bytes))
                .map_err(|source| source_failed(plan, source))?;
        let mut at_same_place = SamePlace { stored: &job.stored, next: 0 };
        let mut pieces = Vec::with_capacity(new.len());
        let mut has_candidates = false;
        for piece in new {
            pieces.push(match piece.content {
                Content::Hole => Piece::Hole(piece.len),
                Content::Kept(index) => match &job.stored[index].at {
                    Some(at) => Piece::At(at.clone()),
                    None => Piece::Hole(piece.len),
                },
                Content::Fresh(id) => {
                    if let Some(at) = at_same_place.find(piece.start, id).and_then(|at| self.usable(at)) {
                        Piece::At(at)
                    } else {
                        has_candidates = true;
                        Piece::Candidate { start: piece.start, len: piece.len, id }
                    }
                }
            });
        }
        let differing = self.differing_cells(plan, job.region, &job.stored, &pieces);
        let read_bytes = buffer.read_bytes();
        Ok(ChunkedRegion {
            seq: job.seq,
            disk: job.disk,
            region: job.region,
            pieces,
            differing,
            buffer: has_candidates.then_some(buffer),
            read_bytes,
            area_bytes: crate::extent::total_length(&job.areas),
        })
    }

    /// Which pages have to be written or compared; all, if the parent's may not be referenced as they are.
    fn differing_cells(
        &self,
        plan: &DiskPlan<'_>,
        region: u64,
        stored: &[StoredPiece],
        pieces: &[Piece],
    ) -> Vec<bool> {
        let same_size = plan.base_size == Some(plan.shape.size);
        if !same_size || !self.condemned.is_empty() {
            let cells = plan.shape.cells_of_region(region);
            return cells.map(|_| true).collect();
        }
        let mut end = 0;
        let new = pieces.iter().map(|piece| {
            let start = end;
            let (len, content) = match piece {
                Piece::Hole(len) => (*len, NewContent::Hole),
                Piece::At(at) => (at.plain_len, NewContent::At(at)),
                Piece::Candidate { len, .. } => (*len, NewContent::Unplaced),
            };
            end += len;
            (start, len, content)
        });
        differing_cells(&plan.shape, region, stored, new)
    }

    /// The place that the parent has a chunk at, if it may be referenced (W5). What was moved is looked up like any
    /// other chunk: the record need not apply to the parent, and then the new place is to be confirmed.
    fn usable(&self, at: &Location) -> Option<Location> {
        let refused = self.condemned.contains(&at.pack.name) || self.condemned.is_repacked(&at.pack.name);
        (!refused).then(|| at.clone())
    }

    /// Encodes the new chunks of a region.
    pub(super) fn encode(&self, seq: u64, buffer: &RegionBuffer<'_>, chunks: &[NewChunk]) -> EncodedRegion {
        let (encoder, level) = (lock(&self.encoders).pop(), self.level.current());
        let mut encoder = encoder.unwrap_or_else(|| Encoder::new(level));
        encoder.set_level(level);
        let mut bytes = self.outputs.take();
        // Nothing is encoded to more than it was, so the buffer never grows beyond a region.
        bytes.reserve_exact(chunks.iter().map(|chunk| chunk.len as usize).sum());
        let mut frames = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let before = bytes.len();
            let codec = encoder.encode(buffer.bytes(chunk.start, chunk.start + chunk.len), &mut bytes);
            let len =
                u32::try_from(bytes.len() - before).expect("a chunk is encoded to at most a little more");
            frames.push((codec, len));
        }
        lock(&self.encoders).push(encoder);
        EncodedRegion { seq, bytes, frames }
    }

    /// Seals a pack: the blob.
    pub(super) fn seal(&self, pack: ClosedPack) -> Vec<u8> {
        let number = u64::from(pack.name.number);
        let (base, purpose, directory) = match pack.name.kind {
            PackKind::Data => {
                let base = PackBase::Data(&self.session_key, &self.sealed_session_key);
                (base, "data pack salt", "data pack directory salt")
            }
            PackKind::Map => (PackBase::Map, "map pack salt", "map pack directory salt"),
        };
        let seal = PackSeal {
            keys: self.keys,
            name: &pack.name,
            base,
            salt: self.entropy.draw(purpose, number),
            directory_salt: self.entropy.draw(directory, number),
        };
        seal_pack(&seal, pack.body, &pack.frames)
    }
}

/// What the parent has of a region; of a disk that is read in full, a hole.
fn old_pieces(plan: &DiskPlan<'_>, job: &RegionJob, len: u32) -> Vec<OldPiece> {
    match plan.untouched() {
        Untouched::Hole => vec![OldPiece { start: 0, len, hole: true }],
        Untouched::AsBase => job.stored.iter().map(old_piece).collect(),
    }
}

fn source_failed(plan: &DiskPlan<'_>, source: std::io::Error) -> EngineError {
    EngineError::Source { disk: plan.key.to_owned(), source }
}

fn old_piece(stored: &StoredPiece) -> OldPiece {
    OldPiece { start: stored.start, len: stored.len, hole: stored.at.is_none() }
}

/// Finds what the parent has at a place; places are asked for in ascending order.
struct SamePlace<'p> {
    stored: &'p [StoredPiece],
    next: usize,
}

impl<'p> SamePlace<'p> {
    fn find(&mut self, start: u32, id: ChunkId) -> Option<&'p Location> {
        while self.stored.get(self.next).is_some_and(|piece| piece.start < start) {
            self.next += 1;
        }
        let piece = self.stored.get(self.next).filter(|piece| piece.start == start)?;
        piece.at.as_ref().filter(|at| at.id == id)
    }
}
