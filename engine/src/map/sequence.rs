//! A region's chunk sequence, read from pages and cut into pages (SPEC 8.1, 8.3).

use super::Shape;
use crate::pack::Placed;
use repo_format::{Entry, FormatError, Location, Page};
use std::convert::Infallible;

/// One piece of a region's chunk sequence as a stored map tells it; neighbouring holes are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPiece {
    /// From the start of the region.
    pub(crate) start: u32,
    pub(crate) len: u32,
    /// The chunk's place, or nothing for a hole.
    pub(crate) at: Option<Location>,
}

/// A part of a region of which the map cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostPiece<E> {
    /// From the start of the region.
    pub(crate) start: u32,
    pub(crate) len: u32,
    /// Why.
    pub(crate) cause: E,
}

/// Joins the pages of a region's cells; `pages` has one element for each cell, nothing for a hole.
pub(crate) fn from_pages(
    shape: &Shape,
    region: u64,
    pages: impl IntoIterator<Item = Option<Page>>,
) -> Result<Vec<StoredPiece>, FormatError> {
    Ok(from_each_page(shape, region, pages.into_iter().map(Ok::<_, Infallible>))?.0)
}

/// As [`from_pages`] where some pages cannot be read. What is lost for a page begins where the chunks of the cells
/// before end, and reaches to the first piece of the cells behind.
pub(crate) fn from_each_page<E>(
    shape: &Shape,
    region: u64,
    pages: impl IntoIterator<Item = Result<Option<Page>, E>>,
) -> Result<(Vec<StoredPiece>, Vec<LostPiece<E>>), FormatError> {
    let mut pieces: Vec<StoredPiece> = Vec::new();
    let mut lost: Vec<LostPiece<E>> = Vec::new();
    let mut end = 0u32;
    for (cell, page) in shape.cells_of_region(region).zip(pages) {
        let cell_start =
            u32::try_from(cell * u64::from(shape.cell_len) - region * u64::from(shape.region_len))
                .expect("a region is shorter than 4 GiB");
        let cell_end = cell_start + shape.cell_bytes(cell);
        // Where the last chunk of a lost page ends is known from what comes next.
        let is_open = lost.last().is_some_and(|piece| piece.start + piece.len == end && end == cell_start);
        let page = match page {
            Ok(Some(page)) => page,
            Err(cause) => {
                if end < cell_end {
                    lost.push(LostPiece { start: end, len: cell_end - end, cause });
                    end = cell_end;
                }
                continue;
            }
            // A chunk of the cell before reaches over the disk's last cell (PAGE-4).
            Ok(None) if end > cell_start && end == shape.region_bytes(region) => continue,
            // Or may do so, if that cell is lost.
            Ok(None) if is_open && shape.cell_bytes(cell) < shape.cell_len => {
                Page { first: shape.cell_bytes(cell), entries: Vec::new() }
            }
            Ok(None) => Page { first: 0, entries: vec![Entry::Hole { len: shape.cell_bytes(cell) }] },
        };
        if is_open && let Some(piece) = lost.last_mut() {
            piece.len += page.first;
            end += page.first;
        }
        if cell_start + page.first != end {
            return Err(FormatError::BadValue("page does not begin where the page before ended"));
        }
        for entry in page.entries {
            let (len, at) = match entry {
                Entry::Hole { len } => (len, None),
                Entry::Chunk(at) => (at.plain_len, Some(at)),
            };
            match pieces.last_mut() {
                Some(hole) if at.is_none() && hole.at.is_none() && hole.start + hole.len == end => {
                    hole.len += len;
                }
                _ => pieces.push(StoredPiece { start: end, len, at }),
            }
            end += len;
        }
    }
    if end == shape.region_bytes(region) {
        Ok((pieces, lost))
    } else {
        Err(FormatError::BadValue("pages do not cover the region"))
    }
}

/// What a page of the session being written says of one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NewEntry {
    /// Zeros.
    Hole(u32),
    /// A chunk in a pack that is complete.
    At(Location),
    /// A chunk in a pack of this session.
    Own(Placed),
}

impl NewEntry {
    fn len(&self) -> u32 {
        match self {
            Self::Hole(len) => *len,
            Self::At(at) => at.plain_len,
            Self::Own(placed) => placed.plain_len,
        }
    }
}

/// A page of the session being written, before the lengths of all packs are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewPage {
    pub(crate) cell: u64,
    pub(crate) first: u32,
    pub(crate) entries: Vec<NewEntry>,
}

/// What a new piece is, compared with stored ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewContent<'p> {
    Hole,
    At(&'p Location),
    /// A chunk whose place is not known yet; it differs from every stored one.
    Unplaced,
}

/// The cells of a region (counted from its first) in whose pages two sequences may differ.
///
/// A page holds what starts in its cell. So the cell of each piece that is not in both sequences counts, and of
/// a hole all cells that it reaches into; where a page begins changes only together with its first piece.
pub(crate) fn differing_cells<'p>(
    shape: &Shape,
    region: u64,
    old: &[StoredPiece],
    new: impl Iterator<Item = (u32, u32, NewContent<'p>)>,
) -> Vec<bool> {
    let cells = shape.cells_of_region(region);
    let mut differing =
        vec![false; usize::try_from(cells.end - cells.start).expect("a region has few cells")];
    let mut mark = |start: u32, len: u32, is_chunk: bool| {
        let first = (start / shape.cell_len) as usize;
        let last = if is_chunk { first } else { ((start + len - 1) / shape.cell_len) as usize };
        differing[first..=last].fill(true);
    };
    let mut old = old.iter().peekable();
    for (start, len, content) in new {
        let is_chunk = content != NewContent::Hole;
        while let Some(piece) = old.next_if(|piece| piece.start < start) {
            mark(piece.start, piece.len, piece.at.is_some());
        }
        match old.next_if(|piece| piece.start == start) {
            Some(piece) if piece.len == len && content == stored_content(piece) => {}
            Some(piece) => {
                mark(piece.start, piece.len, piece.at.is_some());
                mark(start, len, is_chunk);
            }
            None => mark(start, len, is_chunk),
        }
    }
    for piece in old {
        mark(piece.start, piece.len, piece.at.is_some());
    }
    differing
}

fn stored_content(piece: &StoredPiece) -> NewContent<'_> {
    piece.at.as_ref().map_or(NewContent::Hole, NewContent::At)
}

/// Cuts a region's chunk sequence, complete and in order, into the pages of its cells.
pub(crate) fn into_pages(shape: &Shape, region: u64, entries: Vec<NewEntry>) -> Vec<NewPage> {
    let mut pages: Vec<NewPage> =
        shape.cells_of_region(region).map(|cell| NewPage { cell, first: 0, entries: Vec::new() }).collect();
    let cell_len = shape.cell_len;
    let mut start = 0u32;
    for entry in entries {
        let len = entry.len();
        match entry {
            NewEntry::Hole(_) => {
                let end = start + len;
                let mut at = start;
                while at < end {
                    let page = &mut pages[(at / cell_len) as usize];
                    let piece_end = end.min((at / cell_len + 1) * cell_len);
                    begin(page, at % cell_len);
                    match page.entries.last_mut() {
                        Some(NewEntry::Hole(last)) => *last += piece_end - at,
                        _ => page.entries.push(NewEntry::Hole(piece_end - at)),
                    }
                    at = piece_end;
                }
            }
            chunk => {
                let page = &mut pages[(start / cell_len) as usize];
                begin(page, start % cell_len);
                page.entries.push(chunk);
            }
        }
        start += len;
    }
    let (_, all_but_last) = pages.split_last().expect("a region has a cell");
    debug_assert!(
        all_but_last.iter().all(|page| !page.entries.is_empty()),
        "a chunk is no longer than a cell"
    );
    pages
}

fn begin(page: &mut NewPage, offset: u32) {
    if page.entries.is_empty() {
        page.first = offset;
    }
}
