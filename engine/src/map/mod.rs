//! The disk map: a copy-on-write tree of pages and nodes (SPEC 8.3, 8.4).

pub(crate) mod named;
pub(crate) mod reader;
pub(crate) mod scan;
pub(crate) mod sequence;
pub(crate) mod writer;

use crate::error::EngineError;
use repo_format::{BlobKind, BlobName, Geometry, PackName};

/// Children of a node (SPEC NODE-1).
pub(crate) const FANOUT: u64 = 64;

/// Whether an error tells of damage in a pack that must not be used anyway. A base that only saves work is then as good
/// without that part; in any other pack, what was read would be trusted later and must not be passed over.
pub(crate) fn is_of_unusable(error: &EngineError, usable: &dyn Fn(&PackName) -> bool) -> bool {
    match error.damaged_blob().and_then(BlobName::kind) {
        Some(BlobKind::Pack(pack)) => !usable(&pack),
        _ => false,
    }
}

/// Where the cells and nodes of one disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) size: u64,
    pub(crate) cell_len: u32,
    pub(crate) region_len: u32,
    pub(crate) max_chunk: u32,
}

impl Shape {
    pub(crate) fn new(geometry: &Geometry, size: u64) -> Self {
        Self {
            size,
            cell_len: geometry.cell_len,
            region_len: geometry.region_len,
            max_chunk: geometry.chunker.max,
        }
    }

    /// The level of the root node.
    pub(crate) fn root_level(&self) -> u8 {
        repo_format::root_level(self.size, self.cell_len)
    }

    /// Bytes that a node of a level (0: a page) spans.
    pub(crate) fn span(&self, level: u8) -> u64 {
        repo_format::child_span(level + 1, self.cell_len)
    }

    /// How many nodes (at level 0: cells) a level has.
    pub(crate) fn nodes(&self, level: u8) -> u64 {
        self.size.div_ceil(self.span(level))
    }

    /// How many children a node has.
    pub(crate) fn child_count(&self, level: u8, index: u64) -> u8 {
        let first = index * FANOUT;
        let children = self.nodes(level - 1).saturating_sub(first).min(FANOUT);
        u8::try_from(children).expect("at most 64")
    }

    /// Bytes of the disk in a cell.
    pub(crate) fn cell_bytes(&self, cell: u64) -> u32 {
        let start = cell * u64::from(self.cell_len);
        let bytes = self.size.saturating_sub(start).min(u64::from(self.cell_len));
        u32::try_from(bytes).expect("at most a cell")
    }

    /// The cells of a region.
    pub(crate) fn cells_of_region(&self, region: u64) -> std::ops::Range<u64> {
        let per_region = u64::from(self.region_len / self.cell_len);
        region * per_region..((region + 1) * per_region).min(self.nodes(0))
    }

    /// Bytes of the disk in a region.
    pub(crate) fn region_bytes(&self, region: u64) -> u32 {
        let start = region * u64::from(self.region_len);
        u32::try_from((self.size - start).min(u64::from(self.region_len))).expect("at most a region")
    }

    /// How many regions there are.
    pub(crate) fn regions(&self) -> u64 {
        self.size.div_ceil(u64::from(self.region_len))
    }
}
