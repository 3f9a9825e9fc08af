//! What the processor does for a candidate.

use crate::candidate::{Candidate, is_hole};
use crate::image::Image;
use keepstone_benches::meter::Work;
use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Regions that are looked at: 1 GiB.
const REGIONS: usize = 64;
const KEY: [u8; 32] = [1; 32];

/// The work on the same regions by some threads, of each candidate.
#[derive(Clone, Copy, Default)]
pub struct Speed {
    pub chunk: Work,
    pub chunk_hash: Work,
}

/// Each thread takes the next region and gives it to one candidate after the other.
pub fn speeds(candidates: &[Candidate], image: &Image, threads: usize) -> io::Result<Vec<Speed>> {
    let next = AtomicUsize::new(0);
    let work = || one_thread(candidates, image, &next);
    let parts: Vec<io::Result<Vec<Speed>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let mut total = vec![Speed::default(); candidates.len()];
    for part in parts {
        for (total, part) in total.iter_mut().zip(part?) {
            total.chunk.add(&part.chunk);
            total.chunk_hash.add(&part.chunk_hash);
        }
    }
    Ok(total)
}

fn one_thread(candidates: &[Candidate], image: &Image, next: &AtomicUsize) -> io::Result<Vec<Speed>> {
    let mut speeds = vec![Speed::default(); candidates.len()];
    let mut region = Vec::new();
    let step = image.regions().div_ceil(REGIONS);
    loop {
        let number = next.fetch_add(step, Ordering::Relaxed);
        if number >= image.regions() {
            return Ok(speeds);
        }
        image.read(number, &mut region)?;
        let len = region.len() as u64;
        for (candidate, speed) in candidates.iter().zip(&mut speeds) {
            speed.chunk.measure(len, || black_box(candidate.cuts(&region).count()));
            speed.chunk_hash.measure(len, || {
                for chunk in candidate.cuts(&region).filter(|chunk| !is_hole(chunk)) {
                    black_box(blake3::keyed_hash(&KEY, chunk));
                }
            });
        }
    }
}
