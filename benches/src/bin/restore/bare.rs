//! The bare speed of what a restore is made of, on the very chunks of the disk that is restored.

use crate::chain::State;
use anyhow::{Context as _, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keepstone_benches::meter::Work;
use keepstone_benches::repository;
use keepstone_engine::Extent;
use keepstone_engine::chunker::{Chunker, is_zero};
use keepstone_engine::extent::{normalized, total_length};
use keepstone_engine::store::MemoryStore;
use repo_format::Geometry;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use zstd::bulk::{Compressor, Decompressor};

const HASH_KEY: [u8; 32] = [1; 32];
/// Files are written in pieces of this length.
const PIECE_LEN: usize = 1 << 20;

/// What of a disk is not zero, and how fast its distinct chunks can be opened.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// Of the distinct chunks.
    pub(crate) open: Work,
    pub(crate) data: Vec<Extent>,
}

/// Seconds that a part alone takes with all threads.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bare {
    pub(crate) distinct_bytes: u64,
    pub(crate) open_seconds: f64,
    /// Of the processors, all threads together.
    pub(crate) open_cpu_seconds: f64,
    pub(crate) open_per_core: f64,
}

/// Opens, decompresses and hashes each distinct chunk of a disk, with all threads.
pub(crate) fn open(disk: &State<'_>, allocated: &[Extent], threads: usize) -> anyhow::Result<Opened> {
    // The seed of the repository that is restored from: the chunks are those in it.
    let store = MemoryStore::new();
    let seed = repository::create(&store)?.data_keys()?.chunker_seed();
    let Geometry { chunker, region_len, .. } = Geometry::default();
    let region_len = u64::from(region_len);
    let touched = allocated.iter().flat_map(|area| area.start / region_len..area.end().div_ceil(region_len));
    let regions: Vec<u64> = touched.collect::<BTreeSet<u64>>().into_iter().collect();
    let chunker = Chunker::new(&chunker, seed);
    let (next, known) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
    let results: Vec<anyhow::Result<Opened>> = std::thread::scope(|scope| {
        let work = || {
            let mut opened = Opened::default();
            while let Some(region) = regions.get(next.fetch_add(1, Ordering::Relaxed)) {
                open_region(disk, &chunker, (region * region_len, region_len), &known, &mut opened)
                    .with_context(|| format!("region {region}"))?;
            }
            Ok(opened)
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let mut total = Opened::default();
    for result in results {
        let Opened { open, data } = result?;
        total.open.add(&open);
        total.data.extend(data);
    }
    total.data = normalized(total.data);
    Ok(total)
}

/// A chunk as it is stored.
struct Frame {
    sealed: Vec<u8>,
    is_compressed: bool,
    plain_len: usize,
    id: [u8; 32],
}

fn open_region(
    disk: &State<'_>,
    chunker: &Chunker,
    (start, region_len): (u64, u64),
    seen: &Mutex<HashSet<[u8; 32]>>,
    opened: &mut Opened,
) -> anyhow::Result<()> {
    let len = region_len.min(keepstone_engine::DiskSource::size(disk) - start);
    let mut region = vec![0; usize::try_from(len)?];
    disk.read_at(start, &mut region)?;
    let key =
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[2; 32]).expect("a key of AES-256 has 32 bytes"));
    let mut compressor = Compressor::new(1)?;
    let (mut frames, mut at) = (Vec::new(), 0);
    while at < region.len() {
        let chunk = &region[at..at + chunker.next_cut(&region[at..])];
        let offset = start + at as u64;
        at += chunk.len();
        if is_zero(chunk) {
            continue;
        }
        opened.data.push(Extent { start: offset, length: chunk.len() as u64 });
        let id = *blake3::keyed_hash(&HASH_KEY, chunk).as_bytes();
        if seen.lock().expect("no worker panics").insert(id) {
            let mut sealed = compressor.compress(chunk)?;
            let is_compressed = sealed.len() < chunk.len();
            if !is_compressed {
                sealed = chunk.to_vec();
            }
            key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).map_err(io::Error::other)?;
            frames.push(Frame { sealed, is_compressed, plain_len: chunk.len(), id });
        }
    }
    let (mut decompressor, mut plain) = (Decompressor::new()?, vec![0; chunker.max_len()]);
    let bytes = frames.iter().map(|frame| frame.plain_len as u64).sum();
    let is_intact = opened.open.measure(bytes, || -> io::Result<bool> {
        let mut is_intact = true;
        for frame in &mut frames {
            let payload =
                key.open_in_place(nonce(), Aad::empty(), &mut frame.sealed).map_err(io::Error::other)?;
            let bytes = if frame.is_compressed {
                let len = decompressor.decompress_to_buffer(payload, &mut plain)?;
                &plain[..len]
            } else {
                &*payload
            };
            is_intact &= *blake3::keyed_hash(&HASH_KEY, bytes).as_bytes() == frame.id;
        }
        Ok(is_intact)
    })?;
    ensure!(is_intact, "a chunk did not come back as it was");
    Ok(())
}

/// The key protects nothing, so that every frame may have the same.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Writes a new sparse file in a directory with as many bytes as a restore does, at the same places, and syncs it.
/// Returns the seconds.
pub(crate) fn write(directory: &Path, size: u64, data: &[Extent], threads: usize) -> anyhow::Result<f64> {
    let path = directory.join("written");
    let file = File::create_new(&path)?;
    file.set_len(size)?;
    let pieces: Vec<Extent> = data
        .iter()
        .flat_map(|area| {
            let starts = (area.start..area.end()).step_by(PIECE_LEN);
            starts.filter_map(|start| area.clip(start, start + PIECE_LEN as u64))
        })
        .collect();
    let content = keepstone_benches::synthetic::disk(2, PIECE_LEN);
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<()> {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            file.write_all_at(&content[..usize::try_from(piece.length)?], piece.start)?;
        }
        Ok(())
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    file.sync_all()?;
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_file(&path)?;
    ensure!(total_length(&pieces) == total_length(data), "pieces are the data");
    Ok(seconds)
}
