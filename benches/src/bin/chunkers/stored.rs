//! What a candidate stores of one image after the other.

use crate::candidate::{Candidate, is_hole};
use crate::image::Image;
use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use zstd::bulk::Compressor;

/// A frame's tag.
const TAG_LEN: u64 = 16;
const LEVEL: i32 = 1;

/// What is new in one image.
#[derive(Clone, Default)]
pub struct Stored {
    /// Lengths of the chunks that no image before has.
    pub lengths: Vec<usize>,
    /// What they take, compressed.
    pub stored_bytes: u64,
}

/// Goes through the images with all threads.
pub fn stored(candidate: &Candidate, images: &[Image], threads: usize) -> io::Result<Vec<Stored>> {
    let seen = Mutex::new(HashSet::new());
    images
        .iter()
        .map(|image| {
            let next = AtomicUsize::new(0);
            let work = || new_chunks(candidate, image, &next, &seen);
            let parts: Vec<io::Result<Stored>> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
            });
            let mut all = Stored::default();
            for part in parts {
                let part = part?;
                all.lengths.extend(part.lengths);
                all.stored_bytes += part.stored_bytes;
            }
            Ok(all)
        })
        .collect()
}

fn new_chunks(
    candidate: &Candidate,
    image: &Image,
    next: &AtomicUsize,
    seen: &Mutex<HashSet<[u8; 32]>>,
) -> io::Result<Stored> {
    let mut compressor = Compressor::new(LEVEL)?;
    let (mut region, mut room) = (Vec::new(), vec![0; 2 * candidate.max + 1024]);
    let mut new = Stored::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= image.regions() {
            return Ok(new);
        }
        image.read(number, &mut region)?;
        for chunk in candidate.cuts(&region).filter(|chunk| !is_hole(chunk)) {
            let id = *blake3::hash(chunk).as_bytes();
            if seen.lock().expect("no worker panics").insert(id) {
                let compressed = compressor.compress_to_buffer(chunk, &mut room[..])?.min(chunk.len());
                new.lengths.push(chunk.len());
                new.stored_bytes += compressed as u64 + TAG_LEN;
            }
        }
    }
}
