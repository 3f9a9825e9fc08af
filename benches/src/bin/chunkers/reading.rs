//! What an incremental backup reads around one changed area.

use crate::candidate::{Candidate, Cutter, is_hole};
use crate::image::{Image, REGION_LEN};
use keepstone_benches::random::Random;
use keepstone_engine::Extent;
use keepstone_engine::rechunk::{OldPiece, foreseen, rechunk};
use keepstone_engine::region::RegionPool;
use keepstone_engine::source::MemoryDisk;
use std::io;

/// Regions that are looked at, and areas in each, one after the other.
const REGIONS: usize = 48;
const AREAS: usize = 8;

/// So many bytes.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    /// Of the areas.
    pub changed: u64,
    /// From the first chunk that could end elsewhere to the end of what decides the last new one.
    pub needed: u64,
    /// What the engine reads, if it has the chunker.
    pub read: Option<u64>,
}

/// Changes areas of some length at random, each alone in its region, and finds the new chunks.
pub fn reading(candidate: &Candidate, image: &Image, area_len: usize) -> io::Result<Reading> {
    let mut random = Random::new(7);
    let mut total = Reading::default();
    let mut region = Vec::new();
    for number in (0..image.regions()).step_by(image.regions().div_ceil(REGIONS)) {
        image.read(number, &mut region)?;
        if region.len() < REGION_LEN {
            continue;
        }
        let before = boundaries(candidate, &region);
        let old = old_pieces(&region, &before);
        for _ in 0..AREAS {
            let at = random.below((REGION_LEN / area_len) as u64);
            let start = usize::try_from(at).expect("a region is in memory") * area_len;
            let area = start..start + area_len;
            if is_hole(&region[area.clone()]) {
                continue;
            }
            let original = region[area.clone()].to_vec();
            let label = random.draw().to_le_bytes();
            blake3::Hasher::new().update(&label).finalize_xof().fill(&mut region[area.clone()]);
            total.changed += area_len as u64;
            let after = boundaries(candidate, &region);
            total.needed += needed(candidate, &before, &after, (area.start, area.end)) as u64;
            if let Cutter::Engine(_) = candidate.cutter {
                *total.read.get_or_insert(0) += read(candidate, &mut region, &old, area.start, area_len)?;
            }
            region[area].copy_from_slice(&original);
        }
    }
    Ok(total)
}

/// The start of each chunk, and the region's end.
fn boundaries(candidate: &Candidate, region: &[u8]) -> Vec<usize> {
    let mut end = 0;
    let ends = candidate.cuts(region).map(|chunk| {
        end += chunk.len();
        end
    });
    std::iter::once(0).chain(ends).collect()
}

fn old_pieces(region: &[u8], boundaries: &[usize]) -> Vec<OldPiece> {
    let place = |at: usize| u32::try_from(at).expect("a region is shorter than 4 GiB");
    let piece = |ends: &[usize]| OldPiece {
        start: place(ends[0]),
        len: place(ends[1] - ends[0]),
        hole: is_hole(&region[ends[0]..ends[1]]),
    };
    boundaries.windows(2).map(piece).collect()
}

fn needed(candidate: &Candidate, before: &[usize], after: &[usize], area: (usize, usize)) -> usize {
    let decided_by = |ends: &[usize]| candidate.decided_by(ends[0], ends[1], REGION_LEN);
    let first = before.windows(2).find(|ends| decided_by(ends) > area.0).map_or(0, |ends| ends[0]);
    let mut end = area.1;
    for ends in after.windows(2).filter(|ends| ends[0] >= first) {
        if ends[0] >= area.1 && before.binary_search(&ends[0]).is_ok() {
            break;
        }
        end = end.max(decided_by(ends));
    }
    end - first
}

fn read(
    candidate: &Candidate,
    region: &mut Vec<u8>,
    old: &[OldPiece],
    start: usize,
    len: usize,
) -> io::Result<u64> {
    let Cutter::Engine(chunker) = &candidate.cutter else { return Ok(0) };
    let areas = [Extent { start: start as u64, length: len as u64 }];
    let disk = MemoryDisk::new(std::mem::take(region));
    let region_len = u32::try_from(disk.bytes.len()).expect("a region is shorter than 4 GiB");
    let pool = RegionPool::new(region_len);
    let mut buffer = pool.region(&disk, Extent { start: 0, length: u64::from(region_len) });
    buffer.load_first(&foreseen(chunker, (0, region_len), old, &areas))?;
    rechunk(chunker, &mut buffer, old, &areas, |_| ())?;
    let read_bytes = buffer.read_bytes();
    drop(buffer);
    *region = disk.bytes;
    Ok(read_bytes)
}
