//! What a disk consists of.

use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::map::Shape;
use crate::map::reader::MapReader;
use crate::map::sequence;
use crate::repository::Repository;
use repo_format::{BlobName, ChunkId, Disk};

/// Regions whose pages are read at once are as many as have about so many cells.
const CELLS_AT_ONCE: u64 = 1024;

/// A piece of a disk's chunk sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentPiece {
    /// Where it starts on the disk, in bytes.
    pub start: u64,
    /// Its length, in bytes.
    pub len: u64,
    /// Its chunk; nothing if it is a hole.
    pub chunk: Option<ChunkId>,
}

/// Returns the chunk sequence of a disk (SPEC CHUNK-3). It follows from the disk's bytes and the config alone,
/// whatever backups led to it: adjacent holes within a region are one.
///
/// # Errors
/// A map that cannot be read or contradicts itself, or a failing store.
pub fn contents(repository: &Repository<'_>, disk: &Disk) -> Result<Vec<ContentPiece>, EngineError> {
    let frames = FrameReader::new(repository);
    let shape = Shape::new(&repository.config().geometry, disk.size);
    let map = MapReader::new(&frames, shape, disk.map.clone());
    let map_blob = disk.map.as_ref().map_or_else(BlobName::config, |root| root.pack.name.blob());
    let at_once = (CELLS_AT_ONCE * u64::from(shape.cell_len) / u64::from(shape.region_len)).max(1);
    let mut pieces = Vec::new();
    let mut first = 0;
    while first < shape.regions() {
        let regions = first..(first + at_once).min(shape.regions());
        first = regions.end;
        let cells: Vec<u64> = regions.clone().flat_map(|region| shape.cells_of_region(region)).collect();
        let mut pages = map.pages(&cells)?.into_iter();
        for region in regions {
            let count = shape.cells_of_region(region).count();
            let sequence = sequence::from_pages(&shape, region, pages.by_ref().take(count))
                .map_err(EngineError::damaged(&map_blob))?;
            let region_start = region * u64::from(shape.region_len);
            pieces.extend(sequence.into_iter().map(|piece| ContentPiece {
                start: region_start + u64::from(piece.start),
                len: u64::from(piece.len),
                chunk: piece.at.map(|at| at.id),
            }));
        }
    }
    Ok(pieces)
}
