//! Checks a part of what a source said to be unchanged, so that change tracking is not just believed. What something
//! doubtful said to be zero in a disk that is read in full is checked in the same way, against zeros.
//!
//! The unit is a region. Regions of which anything was said to be unchanged are chosen at random, as many as the share
//! says. What the parent's map has of a chosen region is compared with the source: chunks by their ids, holes with
//! zeros. Left out are only chunks that meet an area that is looked at anyway; since their ids tell nothing about the
//! bytes beside the area, the area is taken as reaching over all of such a chunk. If anything differs, the tracking is
//! wrong, and more is looked at: the neighbouring regions, outward until one is right, and as many random others as at
//! first; and so on while there is anything new.
//!
//! What differs joins the areas of the plan as if the source had told it, so the pipeline stores the truth. When all
//! regions were audited, the areas cover every byte that differs from the parent, and the new map is that of a full
//! read.
//!
//! # Probability
//! Of `N` regions `m` are wrong in chunks that no area meets, and `k` are chosen: one of the wrong ones is among them
//! with `1 - C(N - m, k) / C(N, k)`, which is about `1 - (1 - k / N)^m`.
//!
//! # Memory
//! At most `READERS x region length` of buffers, which is less than what a backup holds afterwards, pages of three times [`REGIONS_READ`] regions, some 100 bytes for each
//! audited region, and 16 bytes for each range that differs: [`RANGES_MAX`], and one more for each region.

use super::feed::{REGIONS_READ, stored_pieces};
use super::plan::{AuditAgainst, DiskPlan};
use super::report::AuditReport;
use super::sample::{Candidates, Sampler, WHOLE_PPM, sample_len};
use crate::Extent;
use crate::chunker::is_zero;
use crate::error::EngineError;
use crate::extent::normalized;
use crate::frames::lock;
use crate::map::reader::MapReader;
use crate::map::sequence::StoredPiece;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::region::{REQUEST_LEN, RegionBuffer, RegionPool};
use crate::threads::{SyncSender, scope, sync_channel};
use repo_format::{ChunkId, DataKeys};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Holes are compared with zeros in pieces of so many bytes, about those of an average chunk.
const HOLE_PIECE_LEN: u32 = 64 << 10;
/// Regions that are read at a time, by threads that may wait: those of the pool have the chunks of other backups to do.
const READERS: usize = 4;
/// Ranges of a disk that are told apart; of what differs in a region beyond that, one range is made.
const RANGES_MAX: usize = 1 << 20;

/// How much of what was said to be unchanged is read all the same, and compared with the parent.
///
/// `seed` chooses the regions: the same seed chooses the same ones as long as the same is said to be unchanged. Without
/// one it is drawn from the job's randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Nothing.
    Off,
    /// One region in a hundred, but no more than one, and one more for each 16 regions' worth of changed bytes.
    Default {
        /// What chooses the regions.
        seed: Option<u64>,
    },
    /// A share of the regions, rounded up to a whole one.
    Share {
        /// The share in parts per million, at most a million.
        ppm: u32,
        /// What chooses the regions.
        seed: Option<u64>,
    },
}

impl Audit {
    pub(super) fn is_off(self) -> bool {
        matches!(self, Self::Off | Self::Share { ppm: 0, .. })
    }

    /// Whether it is no more than everything.
    pub(super) fn is_possible(self) -> bool {
        !matches!(self, Self::Share { ppm, .. } if ppm > WHOLE_PPM)
    }

    pub(super) fn seed(self) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Default { seed } | Self::Share { seed, .. } => seed,
        }
    }
}

/// The audit of one disk: of what was said to be unchanged, or zero.
pub(super) struct DiskAudit<'a, 'f, 'r, 's> {
    pub(super) audit: Audit,
    /// What is compared with.
    pub(super) against: AuditAgainst,
    pub(super) seed: u64,
    pub(super) keys: &'a DataKeys,
    /// What the parent has of the disk.
    pub(super) base: &'a MapReader<'f, 'r, 's>,
    pub(super) observer: &'a dyn Observer,
}

/// What comparing one region gave.
#[derive(Default)]
struct Compared {
    bytes: u64,
    /// Where the source differs from the parent though it should not.
    differing: Vec<Extent>,
    /// Chunks that areas meet, but do not cover.
    met: Vec<Extent>,
}

/// Bytes that the parent knows, of which no area is part; places count from the region's start.
struct Expected {
    start: u32,
    end: u32,
    /// The chunk, or nothing for zeros.
    id: Option<ChunkId>,
}

impl DiskAudit<'_, '_, '_, '_> {
    /// Audits the disk, and adds what differs to the areas of its plan.
    pub(super) fn run(&self, plan: &mut DiskPlan<'_>) -> Result<AuditReport, EngineError> {
        let region_len = u64::from(plan.shape.region_len);
        let candidates = Candidates::new(&plan.areas, plan.shape.size, region_len);
        let at_first = sample_len(self.audit, candidates.count(), plan.changed_bytes, region_len);
        let share_ppm = match self.audit {
            Audit::Share { ppm, .. } => ppm,
            // Rounded down, so that as a share it chooses as many regions again.
            _ => ppm(at_first, candidates.count()),
        };
        let mut sampler = Sampler::new(candidates, at_first, self.seed, plan.key);
        let pool = RegionPool::new(plan.shape.region_len);
        let mut total = Compared::default();
        let mut regions = sampler.first();
        while !regions.is_empty() {
            let mut wrong = Vec::new();
            self.compare_all(plan, &pool, &regions, &mut |region, compared| {
                if !compared.differing.is_empty() {
                    wrong.push(region);
                }
                total.add(compared);
            })?;
            regions = sampler.further(&wrong);
        }
        let mismatches = normalized(total.differing);
        plan.look_at(mismatches.iter().copied().chain(total.met));
        Ok(AuditReport {
            share_ppm,
            seed: self.seed,
            regions: sampler.chosen(),
            of_regions: sampler.of(),
            audited_bytes: total.bytes,
            mismatches,
        })
    }

    /// Compares regions (ascending) in parallel, and hands over what came of each, in order.
    fn compare_all(
        &self,
        plan: &DiskPlan<'_>,
        pool: &RegionPool,
        regions: &[u64],
        done: &mut dyn FnMut(u64, Compared),
    ) -> Result<(), EngineError> {
        let total = regions.iter().map(|region| u64::from(plan.shape.region_bytes(*region))).sum();
        begin(self.observer, Phase::Audit { disk: plan.key.to_owned() }, total)?;
        scope(|threads| {
            let (send, batches) = sync_channel(1);
            threads.spawn(move || self.read_pages(plan, regions, &send));
            for (batch, stored) in regions.chunks(REGIONS_READ).zip(batches) {
                for (region, compared) in batch.iter().zip(self.compare_batch(plan, pool, batch, &stored?)) {
                    done(*region, compared?);
                }
            }
            Ok(())
        })
    }

    /// Compares some regions, several at a time; the results are in their order, up to the first failure.
    fn compare_batch(
        &self,
        plan: &DiskPlan<'_>,
        pool: &RegionPool,
        regions: &[u64],
        stored: &[Vec<StoredPiece>],
    ) -> Vec<Result<Compared, EngineError>> {
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<(usize, Result<Compared, EngineError>)>> = Mutex::default();
        let read = || {
            loop {
                let position = next.fetch_add(1, Ordering::Relaxed);
                let (Some(region), Some(stored)) = (regions.get(position), stored.get(position)) else {
                    return;
                };
                let compared = self.compare(plan, pool, *region, stored);
                if compared.is_err() {
                    // Nothing more is begun.
                    next.store(regions.len(), Ordering::Relaxed);
                }
                lock(&results).push((position, compared));
            }
        };
        scope(|threads| {
            for _ in 0..READERS.min(regions.len()) {
                threads.spawn(read);
            }
        });
        let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.sort_by_key(|(position, _)| *position);
        results.into_iter().map(|(_, compared)| compared).collect()
    }

    /// Reads what the parent has of regions, a batch ahead, until nobody listens any more.
    fn read_pages(
        &self,
        plan: &DiskPlan<'_>,
        regions: &[u64],
        send: &SyncSender<Result<Vec<Vec<StoredPiece>>, EngineError>>,
    ) {
        for batch in regions.chunks(REGIONS_READ) {
            let expected = match self.against {
                AuditAgainst::Parent => stored_pieces(plan, self.base, batch),
                AuditAgainst::Zeros => Ok(batch.iter().map(|region| one_hole(plan, *region)).collect()),
            };
            if send.send(expected).is_err() {
                return;
            }
        }
    }

    /// Compares one region with what is stored of it.
    fn compare(
        &self,
        plan: &DiskPlan<'_>,
        pool: &RegionPool,
        region: u64,
        stored: &[StoredPiece],
    ) -> Result<Compared, EngineError> {
        let start = region * u64::from(plan.shape.region_len);
        let length = u64::from(plan.shape.region_bytes(region));
        let (expected, met) = expected(stored, &areas_within(&plan.areas, start, start + length));
        let on_disk =
            |(from, to): (u32, u32)| Extent::between(start + u64::from(from), start + u64::from(to));
        let mut compared =
            Compared { met: met.into_iter().filter_map(on_disk).collect(), ..Compared::default() };
        let mut buffer = pool.region(plan.source, Extent { start, length });
        for (position, piece) in expected.iter().enumerate() {
            load(&mut buffer, &expected[position..]).map_err(|source| EngineError::SourceAt {
                disk: plan.key.to_owned(),
                offset: start + u64::from(piece.start),
                source,
            })?;
        }
        // In the pool, while this thread waits.
        let differing = rayon::scope(|_| self.differing(&buffer, &expected));
        compared.bytes = expected.iter().map(|piece| u64::from(piece.end - piece.start)).sum();
        compared.differing = normalized(differing.into_iter().filter_map(on_disk).collect());
        tell(self.observer, Event::Progress(length))?;
        Ok(compared)
    }

    /// The pieces of a loaded region that are not what was expected.
    fn differing(&self, buffer: &RegionBuffer<'_>, expected: &[Expected]) -> Vec<(u32, u32)> {
        let is_same = |piece: &&Expected| {
            let bytes = buffer.bytes(piece.start, piece.end);
            piece.id.map_or_else(|| is_zero(bytes), |id| self.keys.chunk_id(bytes) == id)
        };
        let differing = expected.iter().filter(|piece| !is_same(piece));
        differing.map(|piece| (piece.start, piece.end)).collect()
    }
}

impl Compared {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.met.extend(other.met);
        match (other.differing.first(), other.differing.last()) {
            (Some(first), Some(last)) if self.differing.len() + other.differing.len() > RANGES_MAX => {
                self.differing.extend(Extent::between(first.start, last.end()));
            }
            _ => self.differing.extend(other.differing),
        }
    }
}

/// A region that should be zero.
fn one_hole(plan: &DiskPlan<'_>, region: u64) -> Vec<StoredPiece> {
    vec![StoredPiece { start: 0, len: plan.shape.region_bytes(region), at: None }]
}

/// Makes the first of some pieces present, and with it those that follow it without a gap, as far as one request goes.
fn load(buffer: &mut RegionBuffer<'_>, pieces: &[Expected]) -> std::io::Result<()> {
    let Some((first, following)) = pieces.split_first() else { return Ok(()) };
    if buffer.present_until(first.start) >= first.end {
        return Ok(());
    }
    let mut end = first.end;
    for piece in following {
        if piece.start != end || piece.end - first.start > REQUEST_LEN {
            break;
        }
        end = piece.end;
    }
    buffer.load(first.start, end)
}

/// The parts of areas (sorted, disjoint) within a region, as places in it.
fn areas_within(areas: &[Extent], start: u64, end: u64) -> Vec<(u32, u32)> {
    let first = areas.partition_point(|area| area.end() <= start);
    let place = |offset: u64| u32::try_from(offset - start).expect("a region is shorter than 4 GiB");
    let met = areas[first..].iter().map_while(|area| area.clip(start, end));
    met.map(|area| (place(area.start), place(area.end()))).collect()
}

/// What can be compared of a region's pieces, and the chunks that cannot because an area meets them but does not
/// cover them. Both are sorted; places count from the region's start.
fn expected(stored: &[StoredPiece], areas: &[(u32, u32)]) -> (Vec<Expected>, Vec<(u32, u32)>) {
    let (mut expected, mut met) = (Vec::new(), Vec::new());
    let mut areas = areas;
    for piece in stored {
        let (start, end) = (piece.start, piece.start + piece.len);
        while areas.first().is_some_and(|area| area.1 <= start) {
            areas = &areas[1..];
        }
        let of_piece = &areas[..areas.partition_point(|area| area.0 < end)];
        match &piece.at {
            Some(at) if of_piece.is_empty() => expected.push(Expected { start, end, id: Some(at.id) }),
            Some(_) if of_piece[0].0 <= start && of_piece[0].1 >= end => {}
            Some(_) => met.push((start, end)),
            None => push_zeros(&mut expected, (start, end), of_piece),
        }
    }
    (expected, met)
}

/// Takes a hole apart into short pieces, without the areas in it.
fn push_zeros(expected: &mut Vec<Expected>, (start, end): (u32, u32), areas: &[(u32, u32)]) {
    let mut at = start;
    for (area_start, area_end) in areas.iter().copied().chain([(end, end)]) {
        while at < area_start {
            let piece_end = area_start.min((at / HOLE_PIECE_LEN + 1).saturating_mul(HOLE_PIECE_LEN));
            expected.push(Expected { start: at, end: piece_end, id: None });
            at = piece_end;
        }
        at = at.max(area_end);
    }
}

/// `part` of `whole` in parts per million, rounded down.
fn ppm(part: u64, whole: u64) -> u32 {
    let parts = u128::from(part) * u128::from(WHOLE_PPM) / u128::from(whole.max(1));
    u32::try_from(parts).expect("a part is not more than the whole")
}
