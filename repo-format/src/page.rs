//! Map pages: the chunks and holes that start in one cell of a disk (SPEC 8.3).

use crate::bytes::{Writer, parse_all};
use crate::error::FormatError;
use crate::frame::{FrameKind, Location, PackRef, check_limit};
use crate::geometry::Geometry;
use crate::limits::PAGE_LEN_MAX;
use crate::name::PackKind;
use crate::table::{ReadTable, check_packs, sorted_packs, write_location, write_table};

const HOLE: u8 = 0;
const HOLE_LEN: usize = 1 + 4;

/// The pieces of a disk that start in one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the first piece starts, in bytes from the cell's start: where the last chunk of the cell before ends.
    pub first: u32,
    /// The pieces, without gaps.
    pub entries: Vec<Entry>,
}

/// A piece of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Zeros.
    Hole {
        /// Their number.
        len: u32,
    },
    /// A chunk.
    Chunk(Location),
}

impl Entry {
    /// Returns the length of the piece, in bytes of the disk.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no piece is empty")]
    pub fn len(&self) -> u32 {
        match self {
            Self::Hole { len } => *len,
            Self::Chunk(location) => location.plain_len,
        }
    }
}

/// What the place of a cell on its disk allows its page to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageBounds {
    /// The bytes of the disk within the cell.
    pub cell_end: u32,
    /// The bytes from the cell's start to its region's end, or the disk's if that comes first.
    pub region_left: u32,
    /// Whether a region starts with the cell, so that no chunk of the cell before can reach into it.
    pub starts_region: bool,
    /// The longest chunk, in bytes.
    pub max_chunk: u32,
}

impl PageBounds {
    /// Returns the bounds of a cell, counted from 0, of a disk of `disk_size` bytes; `None` if the disk ends before it.
    #[must_use]
    pub fn of(geometry: &Geometry, disk_size: u64, cell: u64) -> Option<Self> {
        let (cell_len, region_len) = (u64::from(geometry.cell_len), u64::from(geometry.region_len));
        let start = cell.checked_mul(cell_len)?;
        let disk_left = disk_size.checked_sub(start).filter(|left| *left > 0)?;
        let in_region = start.checked_rem(region_len)?;
        let region_left = region_len.checked_sub(in_region)?.min(disk_left);
        Some(Self {
            cell_end: u32::try_from(disk_left.min(cell_len)).ok()?,
            region_left: u32::try_from(region_left).ok()?,
            starts_region: in_region == 0,
            max_chunk: geometry.chunker.max,
        })
    }
}

impl Page {
    /// Encodes the page.
    ///
    /// # Panics
    /// If a chunk's location is not one, or the page is longer than [`PAGE_LEN_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let table = self.packs();
        check_packs(&table).expect("a pack has one length");
        let mut writer = Writer::new();
        writer.u32(self.first);
        write_table(&mut writer, &table);
        writer.count(self.entries.len());
        for entry in &self.entries {
            match entry {
                Entry::Hole { len } => {
                    writer.u8(HOLE).u32(*len);
                }
                Entry::Chunk(location) => {
                    location.check(FrameKind::Chunk).expect("a page has valid locations");
                    write_location(&mut writer, &table, location);
                }
            }
        }
        let bytes = writer.finish();
        assert!(bytes.len() <= PAGE_LEN_MAX, "a page must keep to its limit");
        bytes
    }

    /// Parses the page of a cell.
    ///
    /// # Errors
    /// A page that breaks SPEC 8.2 or 8.3.
    pub fn parse(bytes: &[u8], bounds: &PageBounds) -> Result<Self, FormatError> {
        check_limit("page length", bytes.len() as u64, PAGE_LEN_MAX)?;
        let page = parse_all(bytes, |reader| {
            let first = reader.u32()?;
            let mut table = ReadTable::read(reader, None)?;
            let count = reader.count(HOLE_LEN)?;
            let mut entries = Vec::with_capacity(count);
            for _ in 0..count {
                entries.push(match reader.u8()? {
                    HOLE => Entry::Hole { len: reader.u32()? },
                    codec => Entry::Chunk(table.location(reader, codec, FrameKind::Chunk)?),
                });
            }
            let packs = table.finish()?;
            if packs.iter().any(|pack| pack.name.kind != PackKind::Data) {
                return Err(FormatError::BadValue("a page names a pack that is no data pack"));
            }
            Ok(Self { first, entries })
        })?;
        page.check(bounds)?;
        Ok(page)
    }

    /// Checks that the pieces are such as the place of their cell allows (PAGE-1 to PAGE-4).
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self, bounds: &PageBounds) -> Result<(), FormatError> {
        if self.first >= bounds.max_chunk || (bounds.starts_region && self.first != 0) {
            return Err(FormatError::BadValue("no chunk of the cell before reaches so far"));
        }
        if self.entries.is_empty() {
            return Err(FormatError::BadValue("a page has no entry"));
        }
        let mut at = self.first;
        let mut behind_hole = false;
        for entry in &self.entries {
            if entry.len() == 0 || at >= bounds.cell_end {
                return Err(FormatError::BadValue("a piece is empty or starts behind its cell"));
            }
            let is_hole = matches!(entry, Entry::Hole { .. });
            if is_hole && behind_hole {
                return Err(FormatError::BadValue("a page has two holes side by side"));
            }
            if !is_hole {
                check_limit("chunk length", u64::from(entry.len()), bounds.max_chunk as usize)?;
            }
            let limit = if is_hole { bounds.cell_end } else { bounds.region_left };
            at = at
                .checked_add(entry.len())
                .filter(|end| *end <= limit)
                .ok_or(FormatError::BadValue("a piece reaches too far"))?;
            behind_hole = is_hole;
        }
        if at < bounds.cell_end {
            return Err(FormatError::BadValue("the pieces of a page end before its cell"));
        }
        if self.first == 0 && matches!(self.entries.as_slice(), [Entry::Hole { .. }]) {
            return Err(FormatError::BadValue("a page is one hole"));
        }
        Ok(())
    }

    /// Returns the packs that the page names, sorted: its table.
    #[must_use]
    pub fn packs(&self) -> Vec<PackRef> {
        sorted_packs(self.entries.iter().filter_map(|entry| match entry {
            Entry::Hole { .. } => None,
            Entry::Chunk(location) => Some(location.pack.clone()),
        }))
    }
}
