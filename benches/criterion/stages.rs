//! Each stage of the pipeline on one core, beside the bare speed of the library that it uses.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use keepstone_benches::random::Random;
use keepstone_benches::{repository, synthetic};
use keepstone_engine::chunker::{Chunker, is_zero};
use keepstone_engine::store::MemoryStore;
use repo_format::{
    BlobName, ChunkId, ChunkerName, ChunkerParams, Codec, DecisionName, Decoder, Encoder, FrameEntry,
    FrameKind, Index, IndexEntry, Keys, PACK_HEADER_LEN, PackBase, PackHeader, PackKind, PackName,
    PackOpener, PackRef, PackSeal, PayloadId, RepositoryId, RootKey, SealedSessionKey, SessionId, SessionKey,
    TAG_LEN, VmTag, directory_stored_len, seal_pack, seal_session_key,
};
use std::hint::black_box;
use std::time::Duration;

/// What the stages work on: more than any cache holds.
const DISK_LEN: usize = 64 << 20;
const REGION_LEN: usize = 16 << 20;
const PACK_LEN: usize = 32 << 20;
const INDEX_ENTRIES: u64 = 1_000_000;
/// Lookups in one measurement: as many chunks as a few regions have.
const LOOKUPS: u64 = 4096;

criterion_group! {
    name = stages;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = chunking, hashing, compression, decompression, sealing, opening, lookup
}
criterion_main!(stages);

/// The chunks of the disk that are not zero, as slices of it.
fn chunks<'a>(disk: &'a [u8], chunker: &Chunker) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for mut region in disk.chunks(REGION_LEN) {
        while !region.is_empty() {
            let (chunk, rest) = region.split_at(chunker.next_cut(region));
            chunks.push(chunk);
            region = rest;
        }
    }
    chunks.retain(|chunk| !is_zero(chunk));
    chunks
}

/// A disk and what belongs to it.
struct Sample {
    disk: Vec<u8>,
    keys: Keys,
    chunker: Chunker,
}

impl Sample {
    fn new() -> Self {
        let keys = Keys::from_root(&RootKey::new([1; 32]), RepositoryId([2; 16]), [3; 32]);
        let chunker = Chunker::new(
            &ChunkerParams::default(),
            keys.data().expect("a root key gives all keys").chunker_seed(),
        );
        Self { disk: synthetic::disk(1, DISK_LEN), keys, chunker }
    }

    fn chunks(&self) -> Vec<&[u8]> {
        chunks(&self.disk, &self.chunker)
    }
}

fn bytes_of(chunks: &[&[u8]]) -> Throughput {
    Throughput::Bytes(chunks.iter().map(|chunk| chunk.len() as u64).sum())
}

fn chunking(criterion: &mut Criterion) {
    let sample = Sample::new();
    let data: Vec<u8> = sample.chunks().concat();
    let mut group = criterion.benchmark_group("chunk");
    for (name, bytes) in [("disk", &sample.disk), ("without zeros", &data)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("next_cut, {name}"), |bencher| {
            bencher.iter(|| chunks(black_box(bytes), &sample.chunker).len());
        });
    }
    let params = ChunkerParams::of(ChunkerName::FastCdc2020);
    let (min, average, max) = (params.min as usize, params.average as usize, params.max as usize);
    group.bench_function("bare fastcdc, without zeros", |bencher| {
        bencher.iter(|| fastcdc::v2020::FastCDC::new(black_box(&data), min, average, max).count());
    });
}

fn hashing(criterion: &mut Criterion) {
    let sample = Sample::new();
    let chunks = sample.chunks();
    let mut group = criterion.benchmark_group("hash");
    group.throughput(bytes_of(&chunks));
    let data_keys = sample.keys.data().expect("a root key gives all keys");
    group.bench_function("chunk_id", |bencher| {
        bencher.iter(|| chunks.iter().fold(0, |sum, chunk| sum ^ data_keys.chunk_id(chunk).0[0]));
    });
    group.bench_function("bare blake3", |bencher| {
        let key = [3; 32];
        bencher
            .iter(|| chunks.iter().fold(0, |sum, chunk| sum ^ blake3::keyed_hash(&key, chunk).as_bytes()[0]));
    });
}

fn compression(criterion: &mut Criterion) {
    let sample = Sample::new();
    let chunks = sample.chunks();
    let mut group = criterion.benchmark_group("compress");
    group.throughput(bytes_of(&chunks));
    for level in [1, 3] {
        let mut out = Vec::with_capacity(DISK_LEN);
        group.bench_function(format!("encoder, level {level}"), |bencher| {
            let mut encoder = Encoder::new(level);
            bencher.iter(|| {
                out.clear();
                for chunk in &chunks {
                    encoder.encode(chunk, &mut out);
                }
                out.len()
            });
        });
        let mut room = vec![0; zstd::zstd_safe::compress_bound(128 << 10)];
        group.bench_function(format!("bare zstd, level {level}"), |bencher| {
            let mut zstd = zstd::bulk::Compressor::new(level).expect("zstd takes its own levels");
            bencher.iter(|| {
                let lens = chunks.iter().map(|chunk| zstd.compress_to_buffer(chunk, &mut room));
                lens.sum::<Result<usize, _>>().expect("the room is zstd's own bound")
            });
        });
    }
}

fn decompression(criterion: &mut Criterion) {
    let sample = Sample::new();
    let mut chunks = sample.chunks();
    let mut encoder = Encoder::new(1);
    let mut frames = Vec::new();
    chunks.retain(|chunk| {
        let mut out = Vec::new();
        let compressed = encoder.encode(chunk, &mut out) == Codec::Zstd;
        if compressed {
            frames.push(out);
        }
        compressed
    });
    let mut out = vec![0; 128 << 10];
    let mut group = criterion.benchmark_group("decompress");
    group.throughput(bytes_of(&chunks));
    group.bench_function("decoder", |bencher| {
        let mut decoder = Decoder::new();
        bencher.iter(|| {
            for (chunk, encoded) in chunks.iter().zip(&frames) {
                decoder.decode_into(Codec::Zstd, encoded, &mut out[..chunk.len()]).expect("it was encoded");
            }
        });
    });
    group.bench_function("bare zstd", |bencher| {
        let mut zstd = zstd::bulk::Decompressor::new().expect("there is memory for a context");
        bencher.iter(|| {
            for encoded in &frames {
                zstd.decompress_to_buffer(encoded, &mut out).expect("it was compressed");
            }
        });
    });
}

/// A pack of the default length, before it is sealed.
struct Pack {
    keys: Keys,
    session_key: SessionKey,
    sealed_session_key: SealedSessionKey,
    name: PackName,
    payloads: Vec<(Codec, Vec<u8>, PayloadId, u32)>,
}

impl Pack {
    fn new() -> Self {
        let sample = Sample::new();
        let session = SessionId([4; 16]);
        let session_key = SessionKey::new([5; 32]);
        let public = sample.keys.data_public_key();
        let sealed_session_key =
            seal_session_key(&session_key, &public, sample.keys.repository(), session, [6; 32])
                .expect("the keys' own public key is usable");
        let name = PackName { kind: PackKind::Data, writer: repository::writer(), session, number: 0 };
        let mut encoder = Encoder::new(1);
        let data_keys = sample.keys.data().expect("a root key gives all keys");
        let mut payloads = Vec::new();
        let mut len = PACK_HEADER_LEN;
        for chunk in sample.chunks().into_iter().cycle() {
            let mut out = Vec::new();
            let codec = encoder.encode(chunk, &mut out);
            len += out.len() + TAG_LEN;
            if len + directory_stored_len(payloads.len() + 1) > PACK_LEN {
                break;
            }
            let plain_len = u32::try_from(chunk.len()).expect("a chunk is short");
            payloads.push((codec, out, data_keys.chunk_id(chunk), plain_len));
        }
        Self { keys: sample.keys, session_key, sealed_session_key, name, payloads }
    }

    /// Appends all payloads, with room for their tags.
    fn body(&self) -> (Vec<u8>, Vec<FrameEntry>) {
        let mut body = Vec::with_capacity(PACK_LEN);
        body.resize(PACK_HEADER_LEN, 0);
        let mut frames = Vec::new();
        for (codec, encoded, id, plain_len) in &self.payloads {
            let stored_len = u32::try_from(encoded.len() + TAG_LEN).expect("a frame is short");
            body.extend_from_slice(encoded);
            body.resize(body.len() + TAG_LEN, 0);
            let (codec, plain_len, id) = (*codec, *plain_len, *id);
            frames.push(FrameEntry { kind: FrameKind::Chunk, codec, plain_len, stored_len, id });
        }
        (body, frames)
    }

    fn seal(&self, body: Vec<u8>, frames: &[FrameEntry]) -> Vec<u8> {
        let base = PackBase::Data(&self.session_key, &self.sealed_session_key);
        let keys = &self.keys;
        seal_pack(
            &PackSeal { keys, name: &self.name, base, salt: [7; 32], directory_salt: [8; 32] },
            body,
            frames,
        )
    }
}

fn bare_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[9; 32]).expect("a key of 32 bytes"))
}

fn bare_nonce(number: usize) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn sealing(criterion: &mut Criterion) {
    let pack = Pack::new();
    let (body, frames) = pack.body();
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("seal_pack", |bencher| {
        let setup = || {
            let mut copy = Vec::with_capacity(PACK_LEN);
            copy.extend_from_slice(&body);
            copy
        };
        bencher.iter_batched(setup, |body| pack.seal(body, &frames), BatchSize::PerIteration);
    });
    group.bench_function("encode a pack: push and seal_pack", |bencher| {
        bencher.iter_with_large_drop(|| {
            let (body, frames) = pack.body();
            pack.seal(body, &frames)
        });
    });
    group.bench_function("bare AES-256-GCM", |bencher| {
        let key = bare_key();
        let mut bytes = body.clone();
        bencher.iter(|| {
            let mut rest = &mut bytes[PACK_HEADER_LEN..];
            for (number, frame) in frames.iter().enumerate() {
                let (frame, behind) = rest.split_at_mut(frame.stored_len as usize);
                let (payload, tag_place) = frame.split_at_mut(frame.len() - TAG_LEN);
                let tag = key.seal_in_place_separate_tag(bare_nonce(number), Aad::empty(), payload);
                tag_place.copy_from_slice(tag.expect("it is short").as_ref());
                rest = behind;
            }
        });
    });
}

fn opening(criterion: &mut Criterion) {
    let pack = Pack::new();
    let (body, frames) = pack.body();
    let blob = pack.seal(body, &frames);
    let header = PackHeader::parse(&blob).expect("the pack is valid");
    let opener = PackOpener::new(&pack.keys, &pack.name, &header).expect("the pack is ours");
    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Bytes(blob.len() as u64));
    group.bench_function("open_frame, by stored bytes", |bencher| {
        let open = |blob: &mut Vec<u8>| {
            each_frame(blob, &frames, |offset, frame, sealed| {
                opener.open_frame(offset, frame, sealed).expect("the pack is ours");
            });
        };
        bencher.iter_batched_ref(|| blob.clone(), open, BatchSize::PerIteration);
    });
    group.bench_function("bare AES-256-GCM, by stored bytes", |bencher| {
        let key = bare_key();
        let mut number = 0;
        let mut sealed_blob = blob.clone();
        each_frame(&mut sealed_blob, &frames, |_, _, sealed| {
            let (payload, tag_place) = sealed.split_at_mut(sealed.len() - TAG_LEN);
            let tag = key.seal_in_place_separate_tag(bare_nonce(number), Aad::empty(), payload);
            tag_place.copy_from_slice(tag.expect("it is short").as_ref());
            number += 1;
        });
        let open = |blob: &mut Vec<u8>| {
            let mut number = 0;
            each_frame(blob, &frames, |_, _, sealed| {
                key.open_in_place(bare_nonce(number), Aad::empty(), sealed).expect("it was sealed so");
                number += 1;
            });
        };
        bencher.iter_batched_ref(|| sealed_blob.clone(), open, BatchSize::PerIteration);
    });
    group.throughput(Throughput::Bytes(frames.iter().map(|frame| u64::from(frame.plain_len)).sum()));
    group.bench_function("open_frame, decode and check the id, by plain bytes", |bencher| {
        let mut decoder = Decoder::new();
        let mut plain = vec![0; 128 << 10];
        let open = |blob: &mut Vec<u8>| {
            each_frame(blob, &frames, |offset, frame, sealed| {
                let plain = &mut plain[..frame.plain_len as usize];
                let encoded = opener.open_frame(offset, frame, sealed).expect("the pack is ours");
                decoder.decode_into(frame.codec, encoded, plain).expect("it was encoded so");
                pack.keys.check_payload(frame.kind, frame.id, plain).expect("it has this id");
            });
        };
        bencher.iter_batched_ref(|| blob.clone(), open, BatchSize::PerIteration);
    });
}

fn each_frame(blob: &mut [u8], frames: &[FrameEntry], mut action: impl FnMut(u32, &FrameEntry, &mut [u8])) {
    let mut offset = PACK_HEADER_LEN;
    for frame in frames {
        let end = offset + frame.stored_len as usize;
        action(u32::try_from(offset).expect("a pack is short"), frame, &mut blob[offset..end]);
        offset = end;
    }
}

fn lookup(criterion: &mut Criterion) {
    let store = MemoryStore::new();
    let repository = repository::create(&store).expect("an empty store takes a repository");
    let mut local = repository::open_index(&repository, None).expect("memory is always there");
    let session = SessionId([4; 16]);
    let writer = repository::writer();
    let name = BlobName::index(&writer, session, 0);
    local.add(&[name], &large_index(session)).expect("memory is always there");
    let mut group = criterion.benchmark_group("look up among a million");
    group.throughput(Throughput::Elements(LOOKUPS));
    for (name, first, found) in [("hits", 0, LOOKUPS), ("misses", INDEX_ENTRIES, 0)] {
        let mut random = Random::new(1);
        let ids: Vec<ChunkId> = (0..LOOKUPS).map(|_| id(first + random.below(INDEX_ENTRIES))).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let hits = ids.iter().map(|id| u64::from(!local.lookup(id).is_empty())).sum::<u64>();
                assert_eq!(hits, found, "the index knows exactly its own chunks");
            });
        });
    }
}

fn id(number: u64) -> ChunkId {
    PayloadId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// An index of packs of the default length, full of chunks of one length.
fn large_index(session: SessionId) -> Index {
    const STORED_LEN: u32 = 12_000;
    let pack_len = u32::try_from(PACK_LEN).expect("a pack is short");
    let per_pack = u64::from(pack_len / STORED_LEN - 1);
    let writer = repository::writer();
    let decision = DecisionName { vm: VmTag([1; 16]), writer: writer.clone(), seq: 1, session };
    let packs = (0..=u32::try_from(INDEX_ENTRIES / per_pack).expect("a few hundred"))
        .map(|number| {
            let name = PackName { kind: PackKind::Data, writer: writer.clone(), session, number };
            PackRef { name, len: pack_len }
        })
        .collect();
    let mut entries: Vec<IndexEntry> = (0..INDEX_ENTRIES)
        .map(|number| IndexEntry {
            id: id(number),
            codec: Codec::Zstd,
            pack: u32::try_from(number / per_pack).expect("a few hundred"),
            offset: u32::try_from(number % per_pack).expect("a few thousand") * STORED_LEN + 4096,
            stored_len: STORED_LEN,
            plain_len: 32 << 10,
        })
        .collect();
    entries.sort_by_key(|entry| entry.id);
    Index { sessions: vec![(session, decision)], packs, entries }
}
