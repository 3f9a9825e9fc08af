//! Reads what the parent's maps say of the touched regions, ahead of the pipeline.

use super::plan::DiskPlan;
use crate::Extent;
use crate::error::EngineError;
use crate::map::reader::MapReader;
use crate::map::sequence::{StoredPiece, from_pages};
use crate::threads::Receiver;
use repo_format::DiskMode;

/// Regions whose pages are read at once, in two or three round trips: enough to merge and that the latency of a far
/// store is not what limits, some MiB of pages.
pub(super) const REGIONS_READ: usize = 128;

/// One region to look at.
pub(super) struct RegionJob {
    /// Place in the order of the whole backup.
    pub(super) seq: u64,
    /// Index of the disk.
    pub(super) disk: usize,
    pub(super) region: u64,
    pub(super) areas: Vec<Extent>,
    /// What the parent has there; empty if there is no parent.
    pub(super) stored: Vec<StoredPiece>,
}

/// Sends the jobs in order, one for each credit that it receives, and ends early when there are no credits any more.
/// Returns how many it sent.
pub(super) fn feed(
    plans: &[DiskPlan<'_>],
    bases: &[MapReader<'_, '_, '_>],
    credits: &Receiver<()>,
    send: &dyn Fn(RegionJob),
) -> Result<u64, EngineError> {
    let mut seq = 0;
    for (disk, (plan, base)) in plans.iter().zip(bases).enumerate() {
        let regions = plan.touched_regions();
        for batch in regions.chunks(REGIONS_READ) {
            let numbers: Vec<u64> = batch.iter().map(|(region, _)| *region).collect();
            let stored = stored_pieces(plan, base, &numbers)?;
            for ((region, areas), stored) in batch.iter().zip(stored) {
                if credits.recv().is_err() {
                    return Ok(seq);
                }
                send(RegionJob { seq, disk, region: *region, areas: areas.clone(), stored });
                seq += 1;
            }
        }
    }
    Ok(seq)
}

/// What the parent's map has of some regions; nothing of a region that it did not reach, or only in part, and in a full
/// backup nothing of one where it is lost.
pub(super) fn stored_pieces(
    plan: &DiskPlan<'_>,
    base: &MapReader<'_, '_, '_>,
    regions: &[u64],
) -> Result<Vec<Vec<StoredPiece>>, EngineError> {
    if plan.base_size.is_none() {
        return Ok(regions.iter().map(|_| Vec::new()).collect());
    }
    let shape = base.shape();
    let known = |region: u64| if region < shape.regions() { shape.cells_of_region(region) } else { 0..0 };
    let cells: Vec<u64> = regions.iter().flat_map(|region| known(*region)).collect();
    let mut pages = base.each_page(&cells)?.into_iter();
    let mut all = Vec::with_capacity(regions.len());
    for region in regions {
        let cells = known(*region);
        let count = usize::try_from(cells.end - cells.start).expect("a region has few cells");
        let of_region: Result<Vec<_>, EngineError> = pages.by_ref().take(count).collect();
        let pieces = of_region.and_then(|of_region| {
            if count == 0 {
                return Ok(Vec::new());
            }
            from_pages(shape, *region, of_region)
                .map_err(|source| EngineError::Damaged { name: base.name(), source })
        });
        all.push(match pieces {
            Ok(pieces) => pieces,
            // Every page of the region is then written anew, whatever there was.
            Err(error) if plan.mode == DiskMode::Full && error.is_damage() => Vec::new(),
            Err(error) => return Err(error),
        });
    }
    Ok(all)
}
