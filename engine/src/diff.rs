//! Where two disks differ, from their maps alone.
//!
//! Both trees are walked together, and what both have in common (the same payload id, or a hole in both) is not
//! looked into: the cost is that of the pages and nodes that differ. Two nodes that stand against each other again and
//! again, as in a map that a hostile writer made of one node, are compared once; so time and memory follow from the
//! distinct nodes and the areas that are found, and of these there are at most `AREAS_MAX`.

use crate::error::EngineError;
use crate::extent::{Extent, normalized};
use crate::frames::FrameReader;
use crate::map::{FANOUT, Shape};
use crate::repository::Repository;
use repo_format::{Child, Disk, Entry, FrameKind, Location, Node, Page, PageBounds, PayloadId, SessionId};
use std::collections::HashMap;

/// The most areas that a comparison gives: as many as a changes file may have.
const AREAS_MAX: usize = 10_000_000;
/// Areas of compared nodes that are remembered: 16 MiB of them.
const AREAS_REMEMBERED: usize = 1 << 20;

/// Finds the parts in which two disks may differ, sorted and joined: chunks (or parts of chunks) that are not the
/// same at the same place, and all behind the end of the shorter disk.
///
/// Bytes outside of these parts are equal. Bytes within may be equal too: a chunk is compared as a whole.
///
/// # Errors
/// A map that cannot be read, more than ten million areas, or a failing store.
pub fn diff(repository: &Repository<'_>, a: &Disk, b: &Disk) -> Result<Vec<Extent>, EngineError> {
    let frames = FrameReader::new(repository);
    compare_maps([&frames, &frames], a, b)
}

/// As [`diff`], of disks of these snapshots.
///
/// # Errors
/// As [`diff`], and [`EngineError::ForgottenMeanwhile`] if one of them was.
pub fn diff_of_snapshots(
    repository: &Repository<'_>,
    snapshots: [SessionId; 2],
    a: &Disk,
    b: &Disk,
) -> Result<Vec<Extent>, EngineError> {
    let frames = FrameReader::watching(repository, snapshots.to_vec());
    compare_maps([&frames, &frames], a, b)
}

/// As [`diff_of_snapshots`], of disks at two places of one repository: pages that name other packs for the same chunks are
/// equal.
///
/// # Errors
/// As [`diff_of_snapshots`].
pub(crate) fn diff_of_places(
    (place_a, snapshot_a, a): (&Repository<'_>, SessionId, &Disk),
    (place_b, snapshot_b, b): (&Repository<'_>, SessionId, &Disk),
) -> Result<Vec<Extent>, EngineError> {
    let frames_a = FrameReader::watching(place_a, vec![snapshot_a]);
    let frames_b = FrameReader::watching(place_b, vec![snapshot_b]);
    compare_maps([&frames_a, &frames_b], a, b)
}

fn compare_maps(frames: [&FrameReader<'_, '_>; 2], a: &Disk, b: &Disk) -> Result<Vec<Extent>, EngineError> {
    let geometry = &frames[0].repository().config().geometry;
    let shapes = [Shape::new(geometry, a.size), Shape::new(geometry, b.size)];
    let shorter = a.size.min(b.size);
    let compared = HashMap::new();
    let mut walk = Walk { frames, shapes, shorter, changed: Vec::new(), compared, remembered: 0 };
    let level = shapes[0].root_level().max(shapes[1].root_level());
    let sides = [(&a.map, &shapes[0]), (&b.map, &shapes[1])].map(|(root, shape)| match root {
        Some(at) => Side::Stored { at: at.clone(), level: shape.root_level() },
        None => Side::Hole,
    });
    walk.nodes(level, vec![Pair { index: 0, sides }])?;
    let mut changed = walk.changed;
    changed.extend(Extent::between(shorter, a.size.max(b.size)));
    Ok(normalized(changed))
}

/// What one disk has at a place of the tree.
#[derive(Clone)]
enum Side {
    Hole,
    /// A node or page of that level. It may be lower than the place: the root of a smaller disk, which stands at
    /// the left edge of the other's tree.
    Stored {
        at: Location,
        level: u8,
    },
}

impl Side {
    fn id(&self) -> Option<(PayloadId, u8)> {
        match self {
            Self::Hole => None,
            Self::Stored { at, level } => Some((at.id, *level)),
        }
    }
}

/// What both disks have at a place of the tree.
struct Pair {
    index: u64,
    sides: [Side; 2],
}

impl Pair {
    fn is_equal(&self) -> bool {
        self.sides[0].id() == self.sides[1].id()
    }
}

struct Walk<'f, 'r, 's> {
    /// A reader for each side.
    frames: [&'f FrameReader<'r, 's>; 2],
    shapes: [Shape; 2],
    shorter: u64,
    /// In ascending order.
    changed: Vec<Extent>,
    /// What comparing two nodes gave, counted from the start of their span.
    compared: HashMap<[Option<(PayloadId, u8)>; 2], Vec<Extent>>,
    remembered: usize,
}

impl Walk<'_, '_, '_> {
    /// Compares nodes of one level, at most those of one parent: they are read in one batch, as are the pages
    /// below 64 nodes of level 1.
    fn nodes(&mut self, level: u8, mut pairs: Vec<Pair>) -> Result<(), EngineError> {
        pairs.retain(|pair| !pair.is_equal());
        let children = [0, 1].map(|side| self.children(level, &pairs, side));
        let [children_a, children_b] = children;
        let mut below = Vec::new();
        for ((pair, a), b) in pairs.iter().zip(children_a?).zip(children_b?) {
            let mut of_node = Vec::new();
            for slot in 0..FANOUT {
                let index = pair.index * FANOUT + slot;
                let start = index.checked_mul(self.shapes[0].span(level - 1));
                if start.is_none_or(|start| start >= self.shorter) {
                    break;
                }
                let sides = [a.get(slot), b.get(slot)];
                let child = Pair { index, sides };
                if !child.is_equal() {
                    of_node.push(child);
                }
            }
            if level == 1 {
                below.extend(of_node);
            } else {
                self.below(level, pair, of_node)?;
            }
        }
        if level == 1 { self.pages(&below) } else { Ok(()) }
    }

    /// Compares what is below a pair of nodes, unless the same two were compared before. Where both disks go on to the
    /// end of the span, what is found follows from the nodes alone, wherever they stand.
    fn below(&mut self, level: u8, pair: &Pair, children: Vec<Pair>) -> Result<(), EngineError> {
        let span = self.shapes[0].span(level);
        let start = pair.index.saturating_mul(span);
        if start.saturating_add(span) > self.shorter {
            return self.nodes(level - 1, children);
        }
        let nodes = [0, 1].map(|side| pair.sides[side].id());
        if let Some(known) = self.compared.get(&nodes) {
            let here = known.iter().map(|area| Extent { start: start + area.start, length: area.length });
            return add(&mut self.changed, here);
        }
        let before = std::mem::take(&mut self.changed);
        self.nodes(level - 1, children)?;
        let found = std::mem::replace(&mut self.changed, before);
        add(&mut self.changed, found.iter().copied())?;
        if self.remembered + found.len() < AREAS_REMEMBERED {
            // The key itself takes as much as four areas.
            self.remembered += found.len() + 4;
            let from_start = |area: &Extent| Extent { start: area.start - start, length: area.length };
            self.compared.insert(nodes, found.iter().map(from_start).collect());
        }
        Ok(())
    }

    /// What one disk has below each of the pairs.
    fn children(&self, level: u8, pairs: &[Pair], side: usize) -> Result<Vec<Children>, EngineError> {
        let is_here =
            |pair: &&Pair| matches!(&pair.sides[side], Side::Stored { level: own, .. } if *own == level);
        let here: Vec<&Pair> = pairs.iter().filter(is_here).collect();
        let locations: Vec<Location> = here.iter().filter_map(|pair| location(&pair.sides[side])).collect();
        let mut payloads =
            self.frames[side].read_all(FrameKind::Node, &locations)?.into_iter().zip(&locations);
        pairs
            .iter()
            .map(|pair| match &pair.sides[side] {
                Side::Hole => Ok(Children::None),
                Side::Stored { level: own, .. } if *own < level => {
                    Ok(Children::First(pair.sides[side].clone()))
                }
                Side::Stored { .. } => {
                    let (payload, at) = payloads.next().expect("every node of this level was read");
                    let count = self.shapes[side].child_count(level, pair.index);
                    let node = Node::parse(&payload, level, count, &at.pack);
                    Ok(Children::Of(node.map_err(EngineError::damaged(&at.pack.name.blob()))?))
                }
            })
            .collect()
    }

    /// Compares cells.
    fn pages(&mut self, pairs: &[Pair]) -> Result<(), EngineError> {
        let (all_a, all_b) = (self.pieces(pairs, 0)?, self.pieces(pairs, 1)?);
        for (mut a, mut b) in all_a.into_iter().zip(all_b) {
            drop_covered(&mut a, &b);
            drop_covered(&mut b, &a);
            let mut changed = Vec::new();
            compare(&a, &b, &mut changed);
            add(&mut self.changed, changed)?;
        }
        Ok(())
    }

    /// The pieces that start in each of the cells on one disk.
    fn pieces(&self, pairs: &[Pair], side: usize) -> Result<Vec<Vec<Piece>>, EngineError> {
        let locations: Vec<Location> = pairs.iter().filter_map(|pair| location(&pair.sides[side])).collect();
        let mut payloads =
            self.frames[side].read_all(FrameKind::Page, &locations)?.into_iter().zip(&locations);
        let shape = &self.shapes[side];
        let geometry = &self.frames[side].repository().config().geometry;
        pairs
            .iter()
            .map(|pair| {
                let start = pair.index * u64::from(shape.cell_len);
                if matches!(pair.sides[side], Side::Hole) {
                    let end = start + u64::from(shape.cell_bytes(pair.index));
                    return Ok(vec![Piece { start, end, id: None }]);
                }
                let (payload, at) = payloads.next().expect("every page was read");
                let bounds = PageBounds::of(geometry, shape.size, pair.index).expect("a cell of the disk");
                let page = Page::parse(&payload, &bounds);
                Ok(pieces(start, &page.map_err(EngineError::damaged(&at.pack.name.blob()))?))
            })
            .collect()
    }
}

/// Adds areas that lie behind the others or overlap the last one.
fn add(areas: &mut Vec<Extent>, more: impl IntoIterator<Item = Extent>) -> Result<(), EngineError> {
    for area in more {
        let is_full = areas.len() == AREAS_MAX;
        match areas.last_mut() {
            Some(last) if (last.start..=last.end()).contains(&area.start) => {
                last.length = last.length.max(area.end() - last.start);
            }
            _ if is_full => return Err(EngineError::TooManyAreas),
            _ => areas.push(area),
        }
    }
    Ok(())
}

fn location(side: &Side) -> Option<Location> {
    match side {
        Side::Hole => None,
        Side::Stored { at, .. } => Some(at.clone()),
    }
}

/// What one disk has below a place.
enum Children {
    None,
    /// The root of a smaller disk, or a part of the way down to it.
    First(Side),
    Of(Node),
}

impl Children {
    fn get(&self, slot: u64) -> Side {
        match self {
            Self::First(side) if slot == 0 => side.clone(),
            Self::None | Self::First(_) => Side::Hole,
            Self::Of(node) => match usize::try_from(slot).ok().and_then(|slot| node.children.get(slot)) {
                Some(Child::Stored { at, .. }) => Side::Stored { at: at.clone(), level: node.level - 1 },
                Some(Child::Hole) | None => Side::Hole,
            },
        }
    }
}

/// A piece of a disk; `id` is nothing for a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    id: Option<PayloadId>,
}

fn pieces(cell_start: u64, page: &Page) -> Vec<Piece> {
    let mut start = cell_start + u64::from(page.first);
    let piece = |entry: &Entry| {
        let end = start + u64::from(entry.len());
        let id = match entry {
            Entry::Hole { .. } => None,
            Entry::Chunk(at) => Some(at.id),
        };
        let piece = Piece { start, end, id };
        start = end;
        piece
    };
    page.entries.iter().map(piece).collect()
}

/// Drops the hole that stands for a short last cell without a page if the chunk before reaches over all of it, and
/// so to the disk's end (SPEC PAGE-4). On the other disk, which goes on, a piece starts just there then, and if
/// that is so for another reason the cell before tells that the disks differ.
fn drop_covered(of: &mut Vec<Piece>, other: &[Piece]) {
    if let ([Piece { end, id: None, .. }], Some(first)) = (of.as_slice(), other.first())
        && first.start == *end
    {
        of.clear();
    }
}

/// Adds the parts in which two runs of pieces differ. What only one run reaches counts: there the other disk has
/// a piece from the cell before or after, so it is another one.
fn compare(a: &[Piece], b: &[Piece], changed: &mut Vec<Extent>) {
    let (mut rest_a, mut rest_b) = (a.iter().peekable(), b.iter().peekable());
    let mut at = 0;
    loop {
        while rest_a.next_if(|piece| piece.end <= at).is_some() {}
        while rest_b.next_if(|piece| piece.end <= at).is_some() {}
        let (next_a, next_b) = (rest_a.peek().copied(), rest_b.peek().copied());
        let starts = [next_a, next_b].into_iter().flatten().map(|piece| piece.start.max(at));
        let Some(start) = starts.min() else { return };
        // Up to here neither run changes from one piece to another.
        let edges = [next_a, next_b].into_iter().flatten();
        let edges = edges.map(|piece| if piece.start > start { piece.start } else { piece.end });
        let end = edges.min().expect("there is a piece");
        let here = |piece: Option<&Piece>| piece.copied().filter(|piece| piece.start <= start);
        let equal = match (here(next_a), here(next_b)) {
            (Some(a), Some(b)) => a == b || (a.id.is_none() && b.id.is_none()),
            _ => false,
        };
        if !equal {
            changed.extend(Extent::between(start, end));
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, end: u64, id: u8) -> Piece {
        Piece { start, end, id: (id > 0).then_some(PayloadId([id; 32])) }
    }

    fn changed(a: &[Piece], b: &[Piece]) -> Vec<Extent> {
        let mut changed = Vec::new();
        compare(a, b, &mut changed);
        normalized(changed)
    }

    #[test]
    fn equal_pieces_at_the_same_place_are_unchanged() {
        let a = [piece(0, 10, 1), piece(10, 20, 2), piece(20, 30, 3)];
        let b = [piece(0, 10, 1), piece(10, 20, 4), piece(20, 30, 3)];
        assert_eq!(changed(&a, &b), [Extent { start: 10, length: 10 }]);
    }

    #[test]
    fn an_equal_piece_elsewhere_is_changed() {
        let a = [piece(0, 10, 1), piece(10, 15, 2), piece(15, 25, 3)];
        let b = [piece(0, 12, 4), piece(12, 17, 2), piece(17, 25, 5)];
        assert_eq!(changed(&a, &b), [Extent { start: 0, length: 25 }]);
    }

    #[test]
    fn the_common_part_of_two_holes_is_unchanged() {
        let a = [piece(0, 30, 0)];
        let b = [piece(0, 10, 0), piece(10, 20, 1), piece(20, 30, 0)];
        assert_eq!(changed(&a, &b), [Extent { start: 10, length: 10 }]);
    }

    #[test]
    fn what_only_one_run_reaches_is_changed() {
        assert_eq!(changed(&[piece(5, 20, 0)], &[piece(0, 20, 0)]), [Extent { start: 0, length: 5 }]);
        assert_eq!(changed(&[piece(0, 20, 0)], &[piece(0, 10, 0)]), [Extent { start: 10, length: 10 }]);
        assert_eq!(changed(&[], &[piece(3, 4, 1)]), [Extent { start: 3, length: 1 }]);
    }
}
