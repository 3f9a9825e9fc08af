//! The bare speed of what backups and restores are made of, on the very data of the image.
//!
//! All threads go through the image's regions; on each region they do one thing after the other, and each is timed
//! by itself. So memory is bounded (some 33 MiB for each thread, and an id of each chunk), every part is measured
//! with all threads busy, and reading the image is in none of the others' times.

use crate::Setting;
use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keepstone_benches::meter::Work;
use keepstone_benches::repository;
use keepstone_engine::chunker::{Chunker, is_zero};
use keepstone_engine::extent::normalized;
use keepstone_engine::source::RawImage;
use keepstone_engine::store::MemoryStore;
use keepstone_engine::{DiskSource, Extent};
use memmap2::MmapMut;
use repo_format::{Geometry, TAG_LEN};
use rustix::fs::OFlags;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

/// Files are read and written in pieces of this length.
const PIECE_LEN: usize = 1 << 20;
/// What direct writes are multiples of.
const PAGE_LEN: u64 = 4096;
const HASH_KEY: [u8; 32] = [1; 32];

/// All parts of one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Primitives {
    /// One thread reads the allocated areas in order.
    pub(crate) sequential_read: Work,
    /// All threads read regions.
    pub(crate) read: Work,
    pub(crate) chunk: Work,
    /// In one go: cut, look for zeros, hash what is not zero.
    pub(crate) chunk_hash: Work,
    /// The distinct chunks that are not zero, with one context for each thread.
    pub(crate) compress: Work,
    /// What compression left of them; or the chunks themselves, where it saved nothing.
    pub(crate) seal: Work,
    /// Open, decompress and hash the same; in plain bytes.
    pub(crate) open: Work,
    /// All threads write a new sparse file with the image's chunks that are not zero, and sync it.
    pub(crate) write: Work,
    /// The same past the page cache, in whole pieces.
    pub(crate) write_directly: Work,
}

/// Measures all parts once.
pub(crate) fn measure(setting: &Setting<'_>) -> anyhow::Result<Primitives> {
    let sequential_read = sequential_read(setting)?;
    let (mut primitives, data) = regions(setting)?;
    primitives.sequential_read = sequential_read;
    primitives.write = write_file(setting, &data, OFlags::empty())?;
    let all_of_it: Vec<Extent> = data.iter().map(|area| whole_pieces(*area)).collect();
    primitives.write_directly = write_file(setting, &normalized(all_of_it), OFlags::DIRECT)?;
    Ok(primitives)
}

/// Reads the allocated areas in order, on one thread.
pub(crate) fn sequential_read(setting: &Setting<'_>) -> io::Result<Work> {
    let mut work = Work::default();
    let mut buffer = vec![0; PIECE_LEN];
    for area in pieces(&setting.allocated) {
        let piece = &mut buffer[..len_in_memory(area.length)];
        work.measure(area.length, || setting.image.read_at(area.start, piece))?;
    }
    Ok(work)
}

/// Goes through the touched regions with all threads; also gives the areas that are not zero.
fn regions(setting: &Setting<'_>) -> anyhow::Result<(Primitives, Vec<Extent>)> {
    // The seed of the repositories that the phases make: the chunks are theirs.
    let store = MemoryStore::new();
    let seed = repository::create(&store)?.data_keys()?.chunker_seed();
    let Geometry { chunker, region_len, .. } = Geometry::default();
    let shared = Shared {
        image: setting.image,
        regions: touched_regions(&setting.allocated, u64::from(region_len)),
        region_len: region_len as usize,
        chunker: Chunker::new(&chunker, seed),
        min_len: chunker.min as usize,
        level: setting.level,
        next: AtomicUsize::new(0),
        seen: Mutex::default(),
    };
    let results: Vec<_> = std::thread::scope(|threads| {
        let workers: Vec<_> =
            (0..setting.threads).map(|_| threads.spawn(|| Worker::new(&shared)?.run())).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let mut total = Primitives::default();
    let mut data = Vec::new();
    for result in results {
        let (primitives, areas) = result?;
        total.read.add(&primitives.read);
        total.chunk.add(&primitives.chunk);
        total.chunk_hash.add(&primitives.chunk_hash);
        total.compress.add(&primitives.compress);
        total.seal.add(&primitives.seal);
        total.open.add(&primitives.open);
        data.extend(areas);
    }
    Ok((total, normalized(data)))
}

/// The parts of the allocated areas in each region that has any.
fn touched_regions(allocated: &[Extent], region_len: u64) -> Vec<(u64, Vec<Extent>)> {
    let mut regions: BTreeMap<u64, Vec<Extent>> = BTreeMap::new();
    for area in allocated {
        for region in area.start / region_len..area.end().div_ceil(region_len) {
            let start = region * region_len;
            regions.entry(start).or_default().extend(area.clip(start, start + region_len));
        }
    }
    regions.into_iter().collect()
}

struct Shared<'a> {
    image: &'a RawImage,
    regions: Vec<(u64, Vec<Extent>)>,
    region_len: usize,
    chunker: Chunker,
    min_len: usize,
    level: i32,
    next: AtomicUsize,
    /// The ids of all chunks so far.
    seen: Mutex<HashSet<[u8; 32]>>,
}

/// A chunk of a region.
struct Chunk {
    range: Range<usize>,
    /// None if it is zero.
    id: Option<[u8; 32]>,
}

/// A compressed chunk.
struct Frame {
    chunk: usize,
    /// Its place, with its tag.
    range: Range<usize>,
    compressed: bool,
}

/// One thread with its contexts.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    /// The region, and room for its frames behind: one allocation, so long that it is given back when it is freed.
    memory: Vec<u8>,
    plain: Vec<u8>,
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    key: LessSafeKey,
    work: Primitives,
    data: Vec<Extent>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> anyhow::Result<Self> {
        let max_len = shared.chunker.max_len();
        let tags = (shared.region_len / shared.min_len + 1) * TAG_LEN;
        let room = shared.region_len + tags + compress_bound(max_len);
        let key = UnboundKey::new(&AES_256_GCM, &[2; 32]).expect("a key of AES-256 has 32 bytes");
        Ok(Self {
            shared,
            memory: vec![0; shared.region_len + room],
            plain: vec![0; max_len],
            compressor: Compressor::new(shared.level)?,
            decompressor: Decompressor::new()?,
            key: LessSafeKey::new(key),
            work: Primitives::default(),
            data: Vec::new(),
        })
    }

    fn run(mut self) -> anyhow::Result<(Primitives, Vec<Extent>)> {
        while let Some((start, areas)) =
            self.shared.regions.get(self.shared.next.fetch_add(1, Ordering::Relaxed))
        {
            let mut memory = std::mem::take(&mut self.memory);
            let (region, room) = memory.split_at_mut(self.shared.region_len);
            let result = self.region(*start, areas, region, room);
            self.memory = memory;
            result.with_context(|| format!("the region at byte {start}"))?;
        }
        Ok((self.work, self.data))
    }

    fn region(
        &mut self,
        start: u64,
        areas: &[Extent],
        region: &mut [u8],
        room: &mut [u8],
    ) -> anyhow::Result<()> {
        let disk_left = self.shared.image.size() - start;
        let len = usize::try_from(disk_left).map_or(region.len(), |left| left.min(region.len()));
        let region = &mut region[..len];
        region.fill(0);
        let mut read_bytes = 0;
        for area in pieces(areas) {
            let at = len_in_memory(area.start - start);
            let piece = &mut region[at..at + len_in_memory(area.length)];
            self.work.read.measure(area.length, || self.shared.image.read_at(area.start, piece))?;
            read_bytes += area.length;
        }
        let region = &*region;
        self.work.chunk.measure(read_bytes, || black_box(cut(&self.shared.chunker, region).count()));
        let chunks: Vec<Chunk> = self.work.chunk_hash.measure(read_bytes, || {
            let hashed = cut(&self.shared.chunker, region).map(|range| {
                let chunk = &region[range.clone()];
                let id = (!is_zero(chunk)).then(|| *blake3::keyed_hash(&HASH_KEY, chunk).as_bytes());
                Chunk { range, id }
            });
            hashed.collect()
        });
        let data = chunks.iter().filter(|chunk| chunk.id.is_some()).map(|chunk| Extent {
            start: start + chunk.range.start as u64,
            length: chunk.range.len() as u64,
        });
        self.data.extend(normalized(data.collect()));
        let new = self.not_seen(&chunks);
        let new_bytes = new.iter().map(|&chunk| chunks[chunk].range.len() as u64).sum();
        let frames = self.compress(region, &chunks, &new, new_bytes, room)?;
        self.seal(&frames, room);
        self.open(&chunks, &frames, new_bytes, room)
    }

    /// The chunks that no thread has seen before and that are not zero.
    fn not_seen(&self, chunks: &[Chunk]) -> Vec<usize> {
        let mut seen = self.shared.seen.lock().expect("no worker panics");
        let is_new = |chunk: &Chunk| chunk.id.is_some_and(|id| seen.insert(id));
        let found: Vec<bool> = chunks.iter().map(is_new).collect();
        (0..chunks.len()).filter(|&chunk| found[chunk]).collect()
    }

    fn compress(
        &mut self,
        region: &[u8],
        chunks: &[Chunk],
        new: &[usize],
        new_bytes: u64,
        room: &mut [u8],
    ) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::with_capacity(new.len());
        let mut at = 0;
        self.work.compress.measure(new_bytes, || {
            for &chunk in new {
                let plain = &region[chunks[chunk].range.clone()];
                let mut len = self.compressor.compress_to_buffer(plain, &mut room[at..])?;
                let compressed = len < plain.len();
                if !compressed {
                    len = plain.len();
                    room[at..at + len].copy_from_slice(plain);
                }
                let end = at + len + TAG_LEN;
                frames.push(Frame { chunk, range: at..end, compressed });
                at = end;
            }
            Ok(frames)
        })
    }

    fn seal(&mut self, frames: &[Frame], room: &mut [u8]) {
        let sealed_bytes = frames.iter().map(|frame| frame.range.len() as u64).sum();
        self.work.seal.measure(sealed_bytes, || {
            for frame in frames {
                let (payload, tag_place) =
                    room[frame.range.clone()].split_last_chunk_mut::<TAG_LEN>().expect("it has a tag");
                let tag = self.key.seal_in_place_separate_tag(nonce(frame), Aad::empty(), payload);
                tag_place.copy_from_slice(tag.expect("a chunk is under 64 GiB").as_ref());
            }
        });
    }

    fn open(
        &mut self,
        chunks: &[Chunk],
        frames: &[Frame],
        new_bytes: u64,
        room: &mut [u8],
    ) -> anyhow::Result<()> {
        let Self { key, decompressor, plain, work, .. } = self;
        let intact = work.open.measure(new_bytes, || -> io::Result<bool> {
            let mut intact = true;
            for frame in frames {
                let sealed = &mut room[frame.range.clone()];
                let opened =
                    key.open_in_place(nonce(frame), Aad::empty(), sealed).map_err(io::Error::other)?;
                let bytes = if frame.compressed {
                    let len = decompressor.decompress_to_buffer(opened, plain)?;
                    &plain[..len]
                } else {
                    &*opened
                };
                let id = blake3::keyed_hash(&HASH_KEY, bytes);
                intact &= chunks[frame.chunk].id == Some(*id.as_bytes());
            }
            Ok(intact)
        })?;
        anyhow::ensure!(intact, "a chunk did not come back as it was");
        Ok(())
    }
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

/// The key protects nothing, so that a nonce may come again in another region.
fn nonce(frame: &Frame) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&(frame.range.start as u64).to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Writes a new file with all threads and syncs it, as a restore does.
fn write_file(setting: &Setting<'_>, data: &[Extent], flags: OFlags) -> anyhow::Result<Work> {
    let path = setting.directory.join("written");
    let flags = flags.bits().cast_signed();
    let file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(&path)?;
    file.set_len(setting.image.size())?;
    let pieces: Vec<Extent> = pieces(data).collect();
    let mut content = MmapMut::map_anon(PIECE_LEN)?;
    content.copy_from_slice(&keepstone_benches::synthetic::disk(2, PIECE_LEN));
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            file.write_all_at(&content[..len_in_memory(piece.length)], piece.start)?;
        }
        Ok(())
    };
    let start = Instant::now();
    std::thread::scope(|threads| {
        let writers: Vec<_> = (0..setting.threads).map(|_| threads.spawn(work)).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    file.sync_all()?;
    let wall = start.elapsed();
    fs::remove_file(&path)?;
    Ok(Work { bytes: data.iter().map(|area| area.length).sum(), wall, cpu: std::time::Duration::ZERO })
}

/// The pages that an area is in.
fn whole_pieces(area: Extent) -> Extent {
    let start = area.start / PAGE_LEN * PAGE_LEN;
    Extent { start, length: area.end().next_multiple_of(PAGE_LEN) - start }
}

/// Divides areas into pieces of at most [`PIECE_LEN`].
fn pieces(areas: &[Extent]) -> impl Iterator<Item = Extent> {
    areas.iter().flat_map(|area| {
        let starts = (area.start..area.end()).step_by(PIECE_LEN);
        starts.filter_map(|start| area.clip(start, start + PIECE_LEN as u64))
    })
}

fn len_in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a part of a region")
}
