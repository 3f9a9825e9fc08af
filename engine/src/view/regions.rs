//! What regions of the disk consist of, as its map tells.

use super::DiskView;
use crate::cache::{Claim, Found, Shared};
use crate::error::EngineError;
use crate::map::reader::MapReader;
use crate::map::sequence::{LostPiece, StoredPiece, from_each_page};
use repo_format::Page;
use std::ops::Range;
use std::sync::Arc;

/// What a piece takes beside its own bytes, in a vector that grew.
const PIECE_LEN: u64 = 2 * size_of::<StoredPiece>() as u64;
/// What a region takes beside its pieces.
const REGION_LEN: u64 = 512;

/// A region's pieces, without gaps but for those that are lost.
#[derive(Debug, Default)]
pub(super) struct Region {
    pub(super) pieces: Vec<StoredPiece>,
    pub(super) lost: Vec<LostPiece<Shared>>,
}

impl Region {
    /// What is kept of it: nothing of one with lost pieces, which may come back.
    fn weight(&self) -> Option<u64> {
        self.lost.is_empty().then(|| REGION_LEN + self.pieces.len() as u64 * PIECE_LEN)
    }

    /// The pieces that meet a range, counted from the region's start.
    pub(super) fn pieces_in(&self, range: &Range<u32>) -> impl Iterator<Item = &StoredPiece> {
        let first = self.pieces.partition_point(|piece| piece.start + piece.len <= range.start);
        let end = range.end;
        self.pieces[first..].iter().take_while(move |piece| piece.start < end)
    }

    /// The first lost piece that meets a range.
    pub(super) fn lost_in(&self, range: &Range<u32>) -> Option<&LostPiece<Shared>> {
        self.lost.iter().find(|piece| piece.start < range.end && range.start < piece.start + piece.len)
    }
}

type RegionClaim<'c> = Claim<'c, u64, Arc<Region>>;

impl DiskView<'_, '_> {
    /// Regions by their numbers, ascending; those that are not here are read together.
    pub(super) fn regions(&self, numbers: &[u64]) -> Result<Vec<Arc<Region>>, Shared> {
        let mut found: Vec<Option<Arc<Region>>> = vec![None; numbers.len()];
        loop {
            let (mut claims, mut awaited) = (Vec::new(), Vec::new());
            for (position, number) in
                numbers.iter().enumerate().filter(|(position, _)| found[*position].is_none())
            {
                match self.maps.find(number) {
                    Found::Here(region) => awaited.push((position, Ok(region))),
                    Found::Awaited(flight) => awaited.push((position, Err(flight))),
                    Found::Claimed(claim) => claims.push((position, *number, claim)),
                }
            }
            let loaded = self.load_regions(claims)?;
            for (position, region) in loaded {
                found[position] = Some(region);
            }
            for (position, region) in awaited {
                found[position] = match region {
                    Ok(region) => Some(region),
                    Err(flight) => flight.wait().transpose()?,
                };
            }
            // Whoever loaded one may have given up.
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().flatten().collect());
            }
        }
    }

    /// Loads what nobody has loaded of some regions, for others that will want them.
    pub(super) fn load_absent(&self, numbers: Range<u64>) -> Result<(), Shared> {
        let claims = numbers.filter_map(|number| Some((0, number, self.maps.claim_absent(&number)?)));
        self.load_regions(claims.collect()).map(drop)
    }

    fn load_regions(
        &self,
        claims: Vec<(usize, u64, RegionClaim<'_>)>,
    ) -> Result<Vec<(usize, Arc<Region>)>, Shared> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let shape = self.map.shape();
        let cells: Vec<u64> =
            claims.iter().flat_map(|(_, region, _)| shape.cells_of_region(*region)).collect();
        let mut pages = match self.map.each_page(&cells) {
            Ok(pages) => pages.into_iter(),
            Err(error) => {
                let start = claims[0].1 * u64::from(shape.region_len);
                let failure = Arc::new(MapReader::unreadable(start, error));
                for (_, _, claim) in claims {
                    claim.settle(Err(Arc::clone(&failure)), None);
                }
                return Err(failure);
            }
        };
        let mut loaded = Vec::with_capacity(claims.len());
        for (position, number, claim) in claims {
            let count = shape.cells_of_region(number).count();
            let region = Arc::new(self.region(number, pages.by_ref().take(count)));
            let weight = region.weight();
            claim.settle(Ok(Arc::clone(&region)), weight);
            loaded.push((position, region));
        }
        Ok(loaded)
    }

    /// The pieces of a region. One whose pages contradict each other is lost.
    fn region(&self, number: u64, pages: impl Iterator<Item = Result<Option<Page>, EngineError>>) -> Region {
        let shape = self.map.shape();
        match from_each_page(shape, number, pages.map(|page| page.map_err(Arc::new))) {
            Ok((pieces, lost)) => Region { pieces, lost },
            Err(source) => {
                let cause = Arc::new(EngineError::Damaged { name: self.map.name(), source });
                let lost = LostPiece { start: 0, len: shape.region_bytes(number), cause };
                Region { pieces: Vec::new(), lost: vec![lost] }
            }
        }
    }
}
