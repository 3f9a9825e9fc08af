//! The stages of backups and restores, one at a time: what each thread of the pipeline does, on data in memory.
//!
//! A [`Sample`] holds pieces of a disk, cut into units. A [`Worker`] is one thread's place in one stage: it prepares a unit
//! and then runs the stage on it, so that whoever measures can leave the former out. Each stage calls what the pipeline
//! calls.
//!
//! # Memory
//! Of a sample, its bytes and their encoded and sealed forms: at most three times its length. Of a worker, one region, or
//! a few units.

use super::SampledDisk;
use crate::chunker::{Chunker, is_zero};
use crate::extent::total_length;
use crate::pack::{ClosedPack, PackBuilder, Payload};
use crate::rechunk::{Content, OldPiece, rechunk};
use crate::region::{RegionBuffer, RegionPool};
use crate::source::{MemoryDisk, ReadPart};
use crate::{DiskSource, Extent};
use rayon::prelude::*;
use repo_format::{
    ChunkId, Codec, DataKeys, Decoder, Encoder, FrameEntry, FrameKind, Geometry, Keys, PACK_HEADER_LEN,
    PackBase, PackHeader, PackKind, PackName, PackOpener, PackSeal, RepositoryId, RootKey, SealedSessionKey,
    SessionId, SessionKey, WriterId, seal_pack, seal_session_key,
};
use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The length of a unit: long enough that chunks are as everywhere, short enough that a few show what a disk holds.
pub const UNIT_LEN: u32 = 4 << 20;

/// One stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reads a region of the source. Counted are the bytes read.
    Read,
    /// Cuts a unit into chunks. Counted is the unit.
    Chunk,
    /// Hashes the chunks that are not zero, and counts them.
    Hash,
    /// Cuts, looks for zeros and hashes in one pass, as a backup does. Counted is the unit.
    ChunkHash,
    /// Encodes the chunks that are not zero at zstd's level, and counts their plain bytes.
    Compress(i32),
    /// Seals what was encoded as a pack, and counts the pack.
    Seal,
    /// Decodes the chunks and counts their plain bytes.
    Decompress,
    /// Opens, decodes and checks the ids of chunks, as a restore does, and counts their plain bytes.
    Open,
}

/// Pieces of a disk in memory, with what the stages need.
pub struct Sample<'a> {
    source: &'a dyn DiskSource,
    /// Regions of the source that are allocated whole or in part.
    regions: Vec<Extent>,
    region_pool: RegionPool,
    unit_pool: RegionPool,
    data_keys: DataKeys,
    keys: Keys,
    chunker: Chunker,
    session_key: SessionKey,
    sealed_session_key: SealedSessionKey,
    units: Vec<Unit>,
}

/// A unit and what becomes of it.
struct Unit {
    disk: MemoryDisk,
    /// Its chunks that are not zero.
    chunks: Vec<Range<usize>>,
    /// All of them encoded, one behind the other.
    encoded: Vec<u8>,
    frames: Vec<FrameEntry>,
    /// The same as a pack.
    blob: Vec<u8>,
}

/// What a sample consists of; sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleSize {
    /// All of it.
    pub bytes: u64,
    /// Chunks that are not zero.
    pub chunks: u64,
    /// Their plain bytes.
    pub data_bytes: u64,
    /// What is left of them when they are encoded.
    pub encoded_bytes: u64,
}

impl<'a> Sample<'a> {
    /// Takes pieces of `bytes_max` bytes together, and at least one, from all over what a disk has allocated, and encodes
    /// them at zstd's level, with all threads.
    ///
    /// # Errors
    /// A source that cannot be read.
    ///
    /// # Panics
    /// If the disk is empty.
    pub fn take(
        source: &'a dyn DiskSource,
        geometry: &Geometry,
        bytes_max: u64,
        level: i32,
    ) -> io::Result<Self> {
        let allocated = source.changed_areas(None)?.areas;
        let sampled = SampledDisk::choose(source, &allocated, u64::from(UNIT_LEN), bytes_max);
        let keys = Keys::from_root(&RootKey::new([1; 32]), RepositoryId([2; 16]), [3; 32]);
        let data_keys = keys.data().expect("a root key gives all keys").clone();
        let session_key = SessionKey::new([3; 32]);
        let sealed_session_key =
            seal_session_key(&session_key, &keys.data_public_key(), keys.repository(), session(), [4; 32])
                .expect("the keys' own public key is usable");
        let mut sample = Self {
            source,
            regions: regions(&allocated, u64::from(geometry.region_len), source.size()),
            region_pool: RegionPool::new(geometry.region_len),
            unit_pool: RegionPool::new(UNIT_LEN),
            chunker: Chunker::new(&geometry.chunker, data_keys.chunker_seed()),
            data_keys,
            keys,
            session_key,
            sealed_session_key,
            units: Vec::new(),
        };
        let starts: Vec<u64> = (0..sampled.size()).step_by(UNIT_LEN as usize).collect();
        let units = starts.into_par_iter().map(|start| sample.unit(&sampled, start, level));
        sample.units = units.collect::<io::Result<_>>()?;
        Ok(sample)
    }

    fn unit(&self, source: &dyn DiskSource, start: u64, level: i32) -> io::Result<Unit> {
        let len = (source.size() - start).min(u64::from(UNIT_LEN));
        let mut bytes = vec![0; usize::try_from(len).expect("a unit is in memory")];
        source.read(&mut [ReadPart { offset: start, buffer: &mut bytes }])?;
        let mut chunks: Vec<_> = cut(&self.chunker, &bytes).collect();
        chunks.retain(|chunk| !is_zero(&bytes[chunk.clone()]));
        let mut unit = Unit {
            disk: MemoryDisk::new(bytes),
            chunks,
            encoded: Vec::new(),
            frames: Vec::new(),
            blob: Vec::new(),
        };
        let mut encoded = Vec::new();
        unit.frames =
            encode(&unit, &mut Encoder::new(level), &mut encoded, |chunk| self.data_keys.chunk_id(chunk));
        unit.encoded = encoded;
        if let Some(pack) = Self::closed_pack(&unit) {
            unit.blob = self.seal(pack);
        }
        Ok(unit)
    }

    /// What it consists of.
    #[must_use]
    pub fn size(&self) -> SampleSize {
        self.units.iter().fold(SampleSize::default(), |sum, unit| SampleSize {
            bytes: sum.bytes + unit.disk.size(),
            chunks: sum.chunks + unit.chunks.len() as u64,
            data_bytes: sum.data_bytes + unit.data_len(),
            encoded_bytes: sum.encoded_bytes + unit.encoded.len() as u64,
        })
    }

    /// How many units a stage goes through. Without any there is nothing to measure: a sample of zeros has no chunks.
    #[must_use]
    pub fn units(&self, stage: Stage) -> usize {
        match stage {
            Stage::Read => self.regions.len(),
            Stage::Chunk | Stage::ChunkHash => self.units.len(),
            _ if self.units.iter().all(|unit| unit.chunks.is_empty()) => 0,
            _ => self.units.len(),
        }
    }

    /// A thread's place in a stage.
    #[must_use]
    pub fn worker(&self, stage: Stage) -> Worker<'_> {
        let ready = match stage {
            Stage::Read | Stage::ChunkHash => Ready::Region(None),
            Stage::Chunk | Stage::Hash => Ready::Nothing,
            Stage::Compress(level) => Ready::Encoding(Encoder::new(level), Vec::new()),
            Stage::Seal => Ready::Sealing(None),
            Stage::Decompress | Stage::Open => Ready::Decoding {
                decoder: Decoder::new(),
                plain: vec![0; self.chunker.max_len()],
                blob: Vec::new(),
                opener: None,
            },
        };
        Worker { sample: self, stage, ready, encoded_bytes: 0 }
    }

    /// The chunks of a unit as a pack that is to be sealed; none without chunks.
    fn closed_pack(unit: &Unit) -> Option<ClosedPack> {
        let bodies = Arc::default();
        let pack_len =
            u32::try_from(PACK_HEADER_LEN + 2 * unit.disk.bytes.len() + (1 << 20)).expect("it is short");
        let mut builder = PackBuilder::new(PackKind::Data, (writer(), session()), pack_len, bodies);
        let mut rest = unit.encoded.as_slice();
        for frame in &unit.frames {
            let (encoded, behind) = rest.split_at(frame.stored_len as usize - repo_format::TAG_LEN);
            rest = behind;
            let full = builder.make_room(encoded.len());
            assert!(full.is_none(), "a pack has room for a unit");
            let &FrameEntry { kind, codec, plain_len, id, .. } = frame;
            builder.push(Payload { kind, codec, plain_len, id, encoded });
        }
        builder.close()
    }

    fn seal(&self, pack: ClosedPack) -> Vec<u8> {
        let base = PackBase::Data(&self.session_key, &self.sealed_session_key);
        let seal =
            PackSeal { keys: &self.keys, name: &pack.name, base, salt: [5; 32], directory_salt: [6; 32] };
        seal_pack(&seal, pack.body, &pack.frames)
    }
}

impl Unit {
    fn data_len(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }
}

/// One thread in one stage.
pub struct Worker<'s> {
    sample: &'s Sample<'s>,
    stage: Stage,
    ready: Ready<'s>,
    encoded_bytes: u64,
}

/// What a thread has ready and uses again.
enum Ready<'s> {
    Nothing,
    Region(Option<RegionBuffer<'s>>),
    Encoding(Encoder, Vec<u8>),
    Sealing(Option<ClosedPack>),
    Decoding { decoder: Decoder, plain: Vec<u8>, blob: Vec<u8>, opener: Option<PackOpener> },
}

impl Worker<'_> {
    /// Makes ready what comes before the stage.
    ///
    /// # Panics
    /// If there is no unit of that number.
    pub fn prepare(&mut self, unit: usize) {
        let Self { sample, stage, ready, .. } = self;
        match (stage, ready) {
            (Stage::Read, Ready::Region(buffer)) => {
                // The allocation goes back first, so that it is used again.
                *buffer = None;
                *buffer = Some(sample.region_pool.region(sample.source, sample.regions[unit]));
            }
            (_, Ready::Region(buffer)) => {
                *buffer = None;
                let disk = &sample.units[unit].disk;
                let whole = Extent { start: 0, length: disk.size() };
                let mut region = sample.unit_pool.region(disk, whole);
                region.load_first(std::slice::from_ref(&(0..region.len()))).expect("memory can be read");
                *buffer = Some(region);
            }
            (_, Ready::Sealing(pack)) => *pack = Sample::closed_pack(&sample.units[unit]),
            (Stage::Open, Ready::Decoding { blob, opener, .. }) => {
                blob.clear();
                blob.extend_from_slice(&sample.units[unit].blob);
                *opener = (!blob.is_empty()).then(|| {
                    let header = PackHeader::parse(blob).expect("it was sealed here");
                    let key = &sample.session_key;
                    PackOpener::new_with_session_key(&sample.keys, &pack_name(), &header, key)
                        .expect("it was sealed here")
                });
            }
            _ => {}
        }
    }

    /// Runs the stage on the unit that was made ready, and tells the bytes that count.
    ///
    /// # Errors
    /// A source that cannot be read.
    ///
    /// # Panics
    /// If another unit was made ready, or none.
    pub fn run(&mut self, unit: usize) -> io::Result<u64> {
        let sample = self.sample;
        match (self.stage, &mut self.ready) {
            (Stage::Read, Ready::Region(buffer)) => {
                let buffer = buffer.as_mut().expect("a unit was made ready");
                buffer.load_first(std::slice::from_ref(&(0..buffer.len())))?;
                Ok(buffer.read_bytes())
            }
            (_, Ready::Region(buffer)) => {
                Ok(chunk_and_hash(sample, buffer.as_mut().expect("a unit was made ready")))
            }
            (stage, ready) => {
                Ok(in_memory(sample, &sample.units[unit], stage, ready, &mut self.encoded_bytes))
            }
        }
    }

    /// The bytes that encoding has made so far.
    #[must_use]
    pub fn encoded_bytes(&self) -> u64 {
        self.encoded_bytes
    }
}

fn in_memory(
    sample: &Sample<'_>,
    unit: &Unit,
    stage: Stage,
    ready: &mut Ready<'_>,
    encoded_bytes: &mut u64,
) -> u64 {
    match ready {
        Ready::Nothing if stage == Stage::Chunk => {
            black_box(cut(&sample.chunker, &unit.disk.bytes).count());
            return unit.disk.size();
        }
        Ready::Nothing => {
            for chunk in &unit.chunks {
                black_box(sample.data_keys.chunk_id(&unit.disk.bytes[chunk.clone()]));
            }
        }
        Ready::Encoding(encoder, out) => {
            out.clear();
            let known = unit.frames.iter().map(|frame| frame.id);
            let mut known = known.into_iter();
            encode(unit, encoder, out, |_| known.next().expect("each chunk has an id"));
            *encoded_bytes += out.len() as u64;
        }
        Ready::Sealing(pack) => {
            return pack.take().map_or(0, |pack| black_box(sample.seal(pack)).len() as u64);
        }
        Ready::Decoding { decoder, plain, blob, opener } => match opener {
            Some(opener) => open(sample, unit, opener, blob, decoder, plain),
            None => decode(unit, decoder, plain),
        },
        Ready::Region(_) => unreachable!("regions are not handled here"),
    }
    unit.data_len()
}

/// As the pipeline does with a region that is read in full.
fn chunk_and_hash(sample: &Sample<'_>, region: &mut RegionBuffer<'_>) -> u64 {
    let hole = OldPiece { start: 0, len: region.len(), hole: true };
    let all = Extent { start: region.start(), length: u64::from(region.len()) };
    let hash = |bytes: &[u8]| sample.data_keys.chunk_id(bytes);
    let pieces = rechunk(&sample.chunker, region, &[hole], &[all], hash).expect("all of it is in memory");
    let fresh = pieces.iter().filter(|piece| matches!(piece.content, Content::Fresh(_))).count();
    black_box(fresh);
    all.length
}

/// Encodes the chunks of a unit and tells of their frames.
fn encode(
    unit: &Unit,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    mut id: impl FnMut(&[u8]) -> ChunkId,
) -> Vec<FrameEntry> {
    let frame = |chunk: &Range<usize>| {
        let chunk = &unit.disk.bytes[chunk.clone()];
        let before = out.len();
        let codec = encoder.encode(chunk, out);
        let stored_len = fits_u32(out.len() - before + repo_format::TAG_LEN);
        FrameEntry {
            kind: FrameKind::Chunk,
            codec,
            plain_len: fits_u32(chunk.len()),
            stored_len,
            id: id(chunk),
        }
    };
    unit.chunks.iter().map(frame).collect()
}

fn decode(unit: &Unit, decoder: &mut Decoder, plain: &mut [u8]) {
    let mut rest = unit.encoded.as_slice();
    for frame in &unit.frames {
        let (encoded, behind) = rest.split_at(frame.stored_len as usize - repo_format::TAG_LEN);
        decode_one(frame.codec, encoded, frame, decoder, plain);
        rest = behind;
    }
}

fn open(
    sample: &Sample<'_>,
    unit: &Unit,
    opener: &PackOpener,
    blob: &mut [u8],
    decoder: &mut Decoder,
    plain: &mut [u8],
) {
    let mut offset = PACK_HEADER_LEN;
    for frame in &unit.frames {
        let end = offset + frame.stored_len as usize;
        let sealed = opener.open_frame(fits_u32(offset), frame, &mut blob[offset..end]);
        let chunk = decode_one(frame.codec, sealed.expect("it was sealed here"), frame, decoder, plain);
        sample.keys.check_payload(frame.kind, frame.id, chunk).expect("it has this id");
        offset = end;
    }
}

fn decode_one<'p>(
    codec: Codec,
    encoded: &[u8],
    frame: &FrameEntry,
    decoder: &mut Decoder,
    plain: &'p mut [u8],
) -> &'p [u8] {
    let plain = &mut plain[..frame.plain_len as usize];
    decoder.decode_into(codec, encoded, plain).expect("it was encoded here");
    black_box(plain)
}

/// The chunks of a region, one after the other.
fn cut<'r>(chunker: &'r Chunker, region: &'r [u8]) -> impl Iterator<Item = Range<usize>> + 'r {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = region.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at;
        at += chunker.next_cut(rest);
        Some(start..at)
    })
}

/// The regions that areas (sorted, disjoint) meet.
fn regions(areas: &[Extent], region_len: u64, size: u64) -> Vec<Extent> {
    let mut regions: Vec<Extent> = Vec::new();
    for area in areas {
        let first = area.start / region_len * region_len;
        let first = first.max(regions.last().map_or(0, |region| region.end()));
        let starts = (first..area.end()).step_by(usize::try_from(region_len).expect("a region is in memory"));
        regions.extend(starts.filter_map(|start| Extent::between(start, size.min(start + region_len))));
    }
    debug_assert!(total_length(&regions) <= size);
    regions
}

fn session() -> SessionId {
    SessionId([7; 16])
}

fn writer() -> WriterId {
    WriterId::new("bench").expect("it keeps to the rules of names")
}

fn pack_name() -> PackName {
    PackName { kind: PackKind::Data, writer: writer(), session: session(), number: 0 }
}

fn fits_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a unit is shorter than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::synthetic::SyntheticDisk;

    fn run(sample: &Sample<'_>, stage: Stage) -> (u64, u64) {
        let mut worker = sample.worker(stage);
        let counted = (0..sample.units(stage)).map(|unit| {
            worker.prepare(unit);
            worker.run(unit).expect("the source can be read")
        });
        (counted.sum(), worker.encoded_bytes())
    }

    #[test]
    fn each_stage_counts_the_bytes_that_it_goes_through() {
        let disk = SyntheticDisk::new(5, 20 << 20);
        let sample = Sample::take(&disk, &Geometry::default(), 11 << 20, 3).unwrap();
        let SampleSize { bytes, chunks, data_bytes, encoded_bytes } = sample.size();
        assert_eq!(bytes, 8 << 20, "two units of 4 MiB");
        assert!(chunks > 50 && data_bytes < bytes && encoded_bytes < data_bytes, "{:?}", sample.size());

        assert_eq!(run(&sample, Stage::Read), (20 << 20, 0), "reading goes through the whole source");
        assert_eq!(run(&sample, Stage::Chunk), (bytes, 0));
        assert_eq!(run(&sample, Stage::ChunkHash), (bytes, 0));
        for stage in [Stage::Hash, Stage::Decompress, Stage::Open] {
            assert_eq!(run(&sample, stage), (data_bytes, 0), "{stage:?}");
        }
        assert_eq!(run(&sample, Stage::Compress(3)), (data_bytes, encoded_bytes));
        let (_, harder) = run(&sample, Stage::Compress(9));
        assert!(harder < encoded_bytes, "level 9 leaves {harder}, level 3 {encoded_bytes}");
        let (sealed, _) = run(&sample, Stage::Seal);
        assert!(sealed > encoded_bytes + chunks * 16, "packs have tags, a header and a directory");
    }

    #[test]
    fn a_disk_of_zeros_has_no_chunks_to_measure() {
        let disk = MemoryDisk::new(vec![0; 5 << 20]);
        let sample = Sample::take(&disk, &Geometry::default(), u64::MAX, 1).unwrap();
        assert_eq!(sample.size(), SampleSize { bytes: 5 << 20, ..SampleSize::default() });
        assert_eq!((sample.units(Stage::Chunk), sample.units(Stage::Compress(1))), (2, 0));
        assert_eq!(run(&sample, Stage::ChunkHash), (5 << 20, 0));
    }

    #[test]
    fn regions_are_those_that_hold_data() {
        let areas = [(5, 6), (99, 201), (950, 1005)].map(|(start, end)| Extent::between(start, end).unwrap());
        let expected = [(0, 100), (100, 200), (200, 300), (900, 1000), (1000, 1005)];
        let expected = expected.map(|(start, end)| Extent::between(start, end).unwrap());
        assert_eq!(regions(&areas, 100, 1005), expected);
    }
}
