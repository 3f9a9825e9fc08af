//! What is in each window of a disk, from its map: holes, chunks and the requests for them, and what is lost.

use super::OnDamage;
use super::existing::Existing;
use super::lost::LostRange;
use crate::error::EngineError;
use crate::extent::{Extent, common, touches};
use crate::frames::{Fetch, Gaps};
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::map::scan::Scan;
use crate::map::sequence::{LostPiece, StoredPiece, from_each_page};
use crate::threads::SyncSender;
use repo_format::{Child, Location, Page};
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

/// A window has at most so many bytes of pages, or is one region: some hundred times what usual pages of a GiB are, and
/// with the plan that is made of them some hundred MiB.
const PAGES_IN_WINDOW: u64 = 16 << 20;
/// A window of a disk that is compared is with its holes at most so many times as long as one without: what is there has to
/// be read, and nobody can cancel that.
const WINDOWS_COMPARED: u64 = 4;
/// A window of areas here and there touches at most so many regions.
const REGIONS_TOUCHED: usize = 1024;

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
    /// What it is about, in order.
    pub(super) covers: Vec<Extent>,
    pub(super) holes: Vec<Extent>,
    /// In the order of their places.
    pub(super) chunks: Vec<Placement>,
    pub(super) fetches: Vec<Arc<Fetch>>,
    /// Where the map cannot be read.
    pub(super) lost: Vec<LostRange>,
    /// Bytes that the target holds already.
    pub(super) same_bytes: u64,
}

/// Which windows a disk is restored in.
pub(super) struct Planner<'p, 'f, 'r, 's> {
    pub(super) map: &'p MapReader<'f, 'r, 's>,
    pub(super) window_len: u64,
    pub(super) on_damage: OnDamage,
    /// Only these, sorted and apart; else everything.
    pub(super) areas: Option<&'p [Extent]>,
    /// What the target holds already, and is left out where it is right.
    pub(super) existing: Option<&'p Existing<'p>>,
}

impl Planner<'_, '_, '_, '_> {
    /// Plans window after window, one ahead of those that are being restored.
    #[expect(clippy::needless_pass_by_value, reason = "dropping the sender ends the restore")]
    pub(super) fn plan_windows(&self, plans: SyncSender<Result<Window, EngineError>>) {
        let mut course = match self.areas {
            None => {
                let compared = self.existing.map(|_| self.window_len.saturating_mul(WINDOWS_COMPARED));
                let region_len = u64::from(self.map.shape().region_len);
                let regions_max = compared.map_or(u64::MAX, |len| len.div_ceil(region_len));
                Course::Everything { scan: Scan::new(self.map), next: 0, regions_max }
            }
            Some(areas) => {
                let region_len = u64::from(self.map.shape().region_len);
                Course::Touched(Touched { areas, region_len, next: 0 }.peekable())
            }
        };
        loop {
            let window = course.next(self.map, self.window_len).and_then(|part| {
                let Some((regions, cells)) = part else { return Ok(None) };
                self.plan_window(&regions, &cells).map(Some)
            });
            let Some(window) = window.transpose() else { return };
            let failed = window.is_err();
            if plans.send(window).is_err() || failed {
                return;
            }
        }
    }

    /// Plans a window of some regions, in which `cells` are all that have pages.
    fn plan_window(&self, regions: &[Range<u64>], cells: &[u64]) -> Result<Window, EngineError> {
        let shape = self.map.shape();
        let region_start = |region: u64| shape.size.min(region.saturating_mul(u64::from(shape.region_len)));
        let cells_of_region = u64::from(shape.region_len / shape.cell_len);
        let first = regions.first().map_or(0, |regions| regions.start);
        let unreadable = |source| MapReader::unreadable(region_start(first), source);
        let mut pages = self.map.each_page(cells).map_err(unreadable)?.into_iter();
        let mut window = Window::default();
        let mut with_pages = cells.chunk_by(|a, b| a / cells_of_region == b / cells_of_region).peekable();
        for regions in regions {
            let mut next = regions.start;
            window.covers.extend(Extent::between(region_start(next), region_start(regions.end)));
            while let Some(cells) = with_pages.next_if(|cells| cells[0] / cells_of_region < regions.end) {
                let region = cells[0] / cells_of_region;
                window.add_hole(region_start(next), region_start(region));
                let mut of_region: BTreeMap<u64, _> = cells.iter().copied().zip(pages.by_ref()).collect();
                let all =
                    shape.cells_of_region(region).map(|cell| of_region.remove(&cell).unwrap_or(Ok(None)));
                let (pieces, lost) = region_pieces(self.map, region, all);
                for piece in lost {
                    window.lose(region_start(region), piece, self.on_damage)?;
                }
                for piece in pieces {
                    window.add(region_start(region), piece);
                }
                next = region + 1;
            }
            window.add_hole(region_start(next), region_start(regions.end));
        }
        if let Some(areas) = self.areas {
            window.clip(areas);
        }
        if let Some(existing) = self.existing {
            existing.leave_out_equal(&mut window)?;
        }
        let locations: Vec<Location> = window.chunks.iter().map(|chunk| chunk.location.clone()).collect();
        window.fetches = self.map.frames().plan(&locations, Gaps::Few)?;
        Ok(window)
    }
}

/// The way through a disk.
enum Course<'m, 'a, 'f, 'r, 's> {
    /// From its first region on, so many at a time.
    Everything { scan: Scan<'m, 'f, 'r, 's>, next: u64, regions_max: u64 },
    /// These regions.
    Touched(Peekable<Touched<'a>>),
}

/// The regions of a window, and the cells in them that have pages.
type Part = (Vec<Range<u64>>, Vec<u64>);

impl Course<'_, '_, '_, '_, '_> {
    fn next(&mut self, map: &MapReader<'_, '_, '_>, window_len: u64) -> Result<Option<Part>, EngineError> {
        match self {
            Self::Everything { next, .. } if *next >= map.shape().regions() => Ok(None),
            Self::Everything { scan, next, regions_max } => {
                let (end, cells) = next_stretch(scan, *next, *regions_max, window_len)?;
                let regions = *next..end;
                *next = end;
                Ok(Some((vec![regions], cells)))
            }
            Self::Touched(regions) => next_touched(map, regions, window_len),
        }
    }
}

/// The region behind a window that begins with `first`, and the window's cells with pages. In it are as many regions, up to
/// `regions_max`, as have no more in them than `window_len` and than is held in memory, and at least one; holes between them
/// do not count, so that windows of a disk that is nearly empty are as much work as those of a full one.
fn next_stretch(
    scan: &mut Scan<'_, '_, '_, '_>,
    first: u64,
    regions_max: u64,
    window_len: u64,
) -> Result<(u64, Vec<u64>), EngineError> {
    let shape = scan.map().shape();
    let unreadable = |source| MapReader::unreadable(first * u64::from(shape.region_len), source);
    let cells_of_region = u64::from(shape.region_len / shape.cell_len);
    let count = usize::try_from(window_len / u64::from(shape.cell_len)).unwrap_or(usize::MAX);
    let start = shape.cells_of_region(first).start;
    let (mut cells, searched) = scan.pages(start, count, PAGES_IN_WINDOW).map_err(unreadable)?;
    let mut end = if searched == shape.nodes(0) { shape.regions() } else { searched / cells_of_region };
    end = end.min(first.saturating_add(regions_max));
    if end == first {
        // A region is planned whole.
        end = first + 1;
        cells = shape.cells_of_region(first).collect();
    }
    cells.retain(|cell| cell / cells_of_region < end);
    Ok((end, cells))
}

/// The next of some regions, no more than have as much in them as a window may have, and at least one.
fn next_touched(
    map: &MapReader<'_, '_, '_>,
    regions: &mut Peekable<Touched<'_>>,
    window_len: u64,
) -> Result<Option<Part>, EngineError> {
    let shape = map.shape();
    let Some(&(first, _)) = regions.peek() else { return Ok(None) };
    let unreadable = |source| MapReader::unreadable(first * u64::from(shape.region_len), source);
    let mut left = window_len;
    let fits = |(region, length): &(u64, u64)| {
        let fits = left.checked_sub(*length);
        left = fits.unwrap_or(0);
        fits.is_some() || *region == first
    };
    let ahead = regions.clone().take(REGIONS_TOUCHED).take_while(fits).map(|(region, _)| region);
    let ahead: Vec<u64> = ahead.collect();
    let all: Vec<u64> = ahead.iter().flat_map(|&region| shape.cells_of_region(region)).collect();
    map.prefetch(&all).map_err(unreadable)?;
    let (mut taken, mut cells, mut bytes): (Vec<Range<u64>>, Vec<u64>, u64) = (Vec::new(), Vec::new(), 0);
    for region in ahead {
        let mut of_region = Vec::new();
        for cell in shape.cells_of_region(region) {
            match map.child(0, cell) {
                Ok(Child::Hole) => {}
                Ok(Child::Stored { at, .. }) => {
                    bytes += u64::from(at.plain_len);
                    of_region.push(cell);
                }
                Err(error) if error.is_damage() => of_region.push(cell),
                Err(error) => return Err(unreadable(error)),
            }
        }
        if bytes > PAGES_IN_WINDOW && !taken.is_empty() {
            break;
        }
        cells.extend(of_region);
        match taken.last_mut() {
            Some(last) if last.end == region => last.end += 1,
            _ => taken.push(region..region + 1),
        }
        regions.next();
    }
    Ok(Some((taken, cells)))
}

/// The regions that some areas touch, each with how many of its bytes are in them.
#[derive(Clone)]
struct Touched<'a> {
    /// Those that were not passed.
    areas: &'a [Extent],
    region_len: u64,
    /// No region before this one is left.
    next: u64,
}

impl Iterator for Touched<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let region = self.next.max(self.areas.first()?.start / self.region_len);
        let (start, end) = (region * self.region_len, (region + 1) * self.region_len);
        let within = self.areas.iter().map_while(|area| area.clip(start, end));
        let length = within.map(|area| area.length).sum();
        let passed = self.areas.partition_point(|area| area.end() <= end);
        self.areas = &self.areas[passed..];
        self.next = region + 1;
        Some((region, length))
    }
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

    /// Leaves what is in some areas. Chunks that reach beyond stay whole, as they can only be checked whole.
    fn clip(&mut self, areas: &[Extent]) {
        self.covers = common(&self.covers, areas);
        self.holes = common(&self.holes, areas);
        self.chunks.retain(|chunk| touches(areas, chunk.extent()));
        self.lost.retain(|range| touches(areas, range.extent()));
    }
}
