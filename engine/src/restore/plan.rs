//! What is in each window of a disk, from its map: holes, chunks and the requests for them, and what is lost.

use super::OnDamage;
use super::lost::LostRange;
use crate::error::EngineError;
use crate::extent::Extent;
use crate::frames::{Fetch, plan_fetches};
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::map::sequence::{LostPiece, StoredPiece, from_each_page};
use repo_format::{Location, Page};
use std::ops::Range;
use std::sync::mpsc::SyncSender;

/// A window has at most so many bytes of pages, or is one region: some hundred times what usual pages of a GiB are, and
/// with the plan that is made of them some hundred MiB.
const PAGES_IN_WINDOW: u64 = 16 << 20;

/// A chunk and one place where it goes.
pub(super) struct Placement {
    pub(super) offset: u64,
    pub(super) location: Location,
}

impl Placement {
    pub(super) fn extent(&self) -> Extent {
        Extent { start: self.offset, length: u64::from(self.location.plain_len) }
    }
}

/// What is in one window.
#[derive(Default)]
pub(super) struct Window {
    pub(super) holes: Vec<Extent>,
    pub(super) chunks: Vec<Placement>,
    pub(super) fetches: Vec<Fetch>,
    /// Where the map cannot be read.
    pub(super) lost: Vec<LostRange>,
}

/// Plans window after window, one ahead of what is being restored.
#[expect(clippy::needless_pass_by_value, reason = "dropping the sender ends the restore")]
pub(super) fn plan_windows(
    map: &MapReader<'_, '_, '_>,
    window_len: u64,
    on_damage: OnDamage,
    plans: SyncSender<Result<Window, EngineError>>,
) {
    let regions = (window_len / u64::from(map.shape().region_len)).max(1);
    let end = map.shape().regions();
    let mut region = 0;
    while region < end {
        let plan = next_window(map, region..(region + regions).min(end), on_damage);
        let next = plan.as_ref().map_or(end, |(next, _)| *next);
        let failed = plan.is_err();
        if plans.send(plan.map(|(_, window)| window)).is_err() || failed {
            return;
        }
        region = next;
    }
}

/// Plans a window that begins with these regions, and returns the region behind it: as many of them as have no more in
/// them than is held in memory; or, if they are holes, all up to the next one that is none.
fn next_window(
    map: &MapReader<'_, '_, '_>,
    regions: Range<u64>,
    on_damage: OnDamage,
) -> Result<(u64, Window), EngineError> {
    let shape = map.shape();
    let region_len = u64::from(shape.region_len);
    let start = regions.start * region_len;
    let unreadable = |source| MapReader::unreadable(start, source);
    let cells_of_region = region_len / u64::from(shape.cell_len);
    let page = map.next_page(shape.cells_of_region(regions.start).start).map_err(unreadable)?;
    let next = page.map_or(shape.regions(), |cell| cell / cells_of_region);
    if next > regions.start {
        let end = next.saturating_mul(region_len).min(shape.size);
        let holes = Extent::between(start, end).into_iter().collect();
        return Ok((next, Window { holes, ..Window::default() }));
    }
    let cells: Vec<u64> = regions.clone().flat_map(|region| shape.cells_of_region(region)).collect();
    let fitting = map.fitting(&cells, PAGES_IN_WINDOW).map_err(unreadable)?;
    // A region is planned whole.
    let end = cells.get(fitting).map_or(regions.end, |cell| cell / cells_of_region).max(regions.start + 1);
    Ok((end, plan_window(map, regions.start..end, on_damage)?))
}

fn plan_window(
    map: &MapReader<'_, '_, '_>,
    regions: Range<u64>,
    on_damage: OnDamage,
) -> Result<Window, EngineError> {
    let shape = map.shape();
    let region_len = u64::from(shape.region_len);
    let start = regions.start * region_len;
    let cells: Vec<u64> = regions.clone().flat_map(|region| shape.cells_of_region(region)).collect();
    let mut pages = map.each_page(&cells).map_err(|source| MapReader::unreadable(start, source))?.into_iter();
    let mut window = Window::default();
    for region in regions {
        let of_region = pages.by_ref().take(shape.cells_of_region(region).count());
        let (pieces, lost) = region_pieces(map, region, of_region);
        for piece in lost {
            window.lose(region * region_len, piece, on_damage)?;
        }
        for piece in pieces {
            window.add(region * region_len, piece);
        }
    }
    let locations: Vec<Location> = window.chunks.iter().map(|chunk| chunk.location.clone()).collect();
    window.fetches = plan_fetches(&locations);
    Ok(window)
}

type Pieces = (Vec<StoredPiece>, Vec<LostPiece<EngineError>>);

/// The pieces of a region. One whose pages contradict each other is lost.
fn region_pieces(
    map: &MapReader<'_, '_, '_>,
    region: u64,
    pages: impl Iterator<Item = Result<Option<Page>, EngineError>>,
) -> Pieces {
    let shape: &Shape = map.shape();
    from_each_page(shape, region, pages).unwrap_or_else(|source| {
        let cause = EngineError::Damaged { name: map.name(), source };
        (Vec::new(), vec![LostPiece { start: 0, len: shape.region_bytes(region), cause }])
    })
}

impl Window {
    fn add(&mut self, region_start: u64, piece: StoredPiece) {
        let offset = region_start + u64::from(piece.start);
        match (piece.at, self.holes.last_mut()) {
            (Some(location), _) => self.chunks.push(Placement { offset, location }),
            (None, Some(last)) if last.end() == offset => last.length += u64::from(piece.len),
            (None, _) => self.holes.push(Extent { start: offset, length: u64::from(piece.len) }),
        }
    }

    fn lose(
        &mut self,
        region_start: u64,
        piece: LostPiece<EngineError>,
        on_damage: OnDamage,
    ) -> Result<(), EngineError> {
        let extent = Extent { start: region_start + u64::from(piece.start), length: u64::from(piece.len) };
        match (on_damage, LostRange::new(extent, &piece.cause)) {
            (OnDamage::KeepGoing, Some(range)) => self.lost.push(range),
            _ => return Err(MapReader::unreadable(extent.start, piece.cause)),
        }
        Ok(())
    }
}
