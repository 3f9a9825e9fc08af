//! What is in each window of a disk, from its map: holes, chunks and the requests for them, and what is lost.

use super::OnDamage;
use super::lost::LostRange;
use crate::error::EngineError;
use crate::extent::Extent;
use crate::frames::Fetch;
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::map::scan::Scan;
use crate::map::sequence::{LostPiece, StoredPiece, from_each_page};
use repo_format::{Location, Page};
use std::collections::BTreeMap;
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

/// Plans window after window, one ahead of those that are being restored.
#[expect(clippy::needless_pass_by_value, reason = "dropping the sender ends the restore")]
pub(super) fn plan_windows(
    map: &MapReader<'_, '_, '_>,
    window_len: u64,
    on_damage: OnDamage,
    plans: SyncSender<Result<Window, EngineError>>,
) {
    let mut scan = Scan::new(map);
    let end = map.shape().regions();
    let mut region = 0;
    while region < end {
        let plan = next_window(&mut scan, region, window_len, on_damage);
        let next = plan.as_ref().map_or(end, |(next, _)| *next);
        let failed = plan.is_err();
        if plans.send(plan.map(|(_, window)| window)).is_err() || failed {
            return;
        }
        region = next;
    }
}

/// Plans a window that begins with a region, and returns the region behind it. In it are as many regions as have no more
/// in them than `window_len` and than is held in memory, and at least one; holes between them do not count, so that
/// windows of a disk that is nearly empty are as much work as those of a full one.
fn next_window(
    scan: &mut Scan<'_, '_, '_, '_>,
    first: u64,
    window_len: u64,
    on_damage: OnDamage,
) -> Result<(u64, Window), EngineError> {
    let map = scan.map();
    let shape = map.shape();
    let region_start = |region: u64| region * u64::from(shape.region_len);
    let unreadable = |source| MapReader::unreadable(region_start(first), source);
    let cells_of_region = u64::from(shape.region_len / shape.cell_len);
    let count = usize::try_from(window_len / u64::from(shape.cell_len)).unwrap_or(usize::MAX);
    let start = shape.cells_of_region(first).start;
    let (mut cells, searched) = scan.pages(start, count, PAGES_IN_WINDOW).map_err(unreadable)?;
    let mut end = if searched == shape.nodes(0) { shape.regions() } else { searched / cells_of_region };
    if end == first {
        // A region is planned whole.
        end = first + 1;
        cells = shape.cells_of_region(first).collect();
    }
    cells.retain(|cell| cell / cells_of_region < end);
    Ok((end, plan_window(map, first..end, &cells, on_damage)?))
}

/// Plans a window of some regions, in which `cells` are all that have pages.
fn plan_window(
    map: &MapReader<'_, '_, '_>,
    regions: Range<u64>,
    cells: &[u64],
    on_damage: OnDamage,
) -> Result<Window, EngineError> {
    let shape = map.shape();
    let region_start = |region: u64| shape.size.min(region.saturating_mul(u64::from(shape.region_len)));
    let cells_of_region = u64::from(shape.region_len / shape.cell_len);
    let unreadable = |source| MapReader::unreadable(region_start(regions.start), source);
    let mut pages = map.each_page(cells).map_err(unreadable)?.into_iter();
    let mut window = Window::default();
    let mut next = regions.start;
    for cells in cells.chunk_by(|a, b| a / cells_of_region == b / cells_of_region) {
        let region = cells[0] / cells_of_region;
        window.add_hole(region_start(next), region_start(region));
        let mut of_region: BTreeMap<u64, _> = cells.iter().copied().zip(pages.by_ref()).collect();
        let all = shape.cells_of_region(region).map(|cell| of_region.remove(&cell).unwrap_or(Ok(None)));
        let (pieces, lost) = region_pieces(map, region, all);
        for piece in lost {
            window.lose(region_start(region), piece, on_damage)?;
        }
        for piece in pieces {
            window.add(region_start(region), piece);
        }
        next = region + 1;
    }
    window.add_hole(region_start(next), region_start(regions.end));
    let locations: Vec<Location> = window.chunks.iter().map(|chunk| chunk.location.clone()).collect();
    window.fetches = map.frames().plan(&locations);
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
        match piece.at {
            Some(location) => self.chunks.push(Placement { offset, location }),
            None => self.add_hole(offset, offset + u64::from(piece.len)),
        }
    }

    /// Adds what is between two offsets, which may be nothing.
    fn add_hole(&mut self, start: u64, end: u64) {
        let Some(hole) = Extent::between(start, end) else { return };
        match self.holes.last_mut() {
            Some(last) if last.end() == start => last.length += hole.length,
            _ => self.holes.push(hole),
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
