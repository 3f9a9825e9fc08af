//! Pieces of a disk that wait until they make up requests worth sending: pure.
//!
//! A disk is divided into cells. Pieces come in any order; those of a cell that is complete go together, and where they
//! meet they are one request. A cell that does not become complete is taken when there is no more room, the oldest first.

use crate::Extent;
use crate::target::TargetError;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// The length of a cell, a multiple of any smallest block, and of the longest request.
pub(super) const CELL_LEN: u64 = 256 << 10;
/// What a piece takes beside its bytes, about.
const PIECE_WEIGHT: u64 = 128;
/// Shorter holes between data are written with it: a request costs more.
const HOLE_LEN_MIN: u64 = 4 << 10;
/// The longest request to make zero. A server that writes the zeros itself must answer within its timeout.
const ZERO_LEN_MAX: u64 = 64 << 20;

/// Where requests begin and end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// At multiples of this; a power of two, no longer than a cell.
    pub(super) minimum: u64,
    /// The longest request with data, a multiple of `minimum`.
    pub(super) request_len_max: u64,
    /// The export's size, where the last block ends, whole or not.
    pub(super) end: u64,
}

impl Blocks {
    fn up(self, offset: u64) -> u64 {
        offset.next_multiple_of(self.minimum).min(self.end)
    }

    fn down(self, offset: u64) -> u64 {
        if offset == self.end { offset } else { offset - offset % self.minimum }
    }

    /// The block in which a byte is.
    fn around(self, offset: u64) -> Extent {
        let start = offset - offset % self.minimum;
        Extent::between(start, self.end.min(start + self.minimum)).expect("the byte is within the disk")
    }
}

/// What a range of a disk becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Data(Vec<u8>),
    /// So many bytes.
    Zeros(u64),
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zeros(length) => *length,
        }
    }

    fn weight(&self) -> u64 {
        PIECE_WEIGHT + if let Self::Data(data) = self { data.len() as u64 } else { 0 }
    }
}

/// A range of a disk and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) content: Content,
}

impl Piece {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.content.length()
    }

    /// Puts the part of it that is within a buffer's range there.
    fn copy_to(&self, start: u64, buffer: &mut [u8]) {
        let whole = Extent { start: self.offset, length: self.content.length() };
        let Some(part) = whole.clip(start, start + buffer.len() as u64) else { return };
        let target = &mut buffer[len(part.start - start)..len(part.end() - start)];
        match &self.content {
            Content::Data(data) => {
                target.copy_from_slice(&data[len(part.start - self.offset)..len(part.end() - self.offset)]);
            }
            Content::Zeros(_) => target.fill(0),
        }
    }
}

/// Pieces that wait.
#[derive(Debug, Default)]
pub(super) struct Held {
    pieces: BTreeMap<u64, Content>,
    cells: HashMap<u64, Cell>,
    /// Cells by when they began.
    order: BTreeMap<u64, u64>,
    begun: u64,
    complete: VecDeque<u64>,
    weight: u64,
}

#[derive(Debug)]
struct Cell {
    begun: u64,
    covered: u64,
}

impl Held {
    /// Bytes in memory, about.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn has_complete(&self) -> bool {
        !self.complete.is_empty()
    }

    /// Adds a piece of a disk of `size` bytes that is within one cell.
    pub(super) fn add(&mut self, piece: Piece, size: u64) -> Result<(), TargetError> {
        let (offset, end) = (piece.offset, piece.end());
        let before = self.pieces.range(..end).next_back().map(|(start, content)| start + content.length());
        if before.is_some_and(|before| before > offset) {
            return Err(TargetError::OutOfRange { offset, end, reason: "they are written already" });
        }
        let cell = offset / CELL_LEN;
        let cell_end = size.min((cell + 1) * CELL_LEN);
        debug_assert!(offset < end && end <= cell_end, "the piece is within a cell");
        let state = self.cells.entry(cell).or_insert_with(|| {
            self.order.insert(self.begun, cell);
            self.begun += 1;
            Cell { begun: self.begun - 1, covered: 0 }
        });
        state.covered += end - offset;
        if state.covered == cell_end - cell * CELL_LEN {
            self.complete.push_back(cell);
        }
        self.weight += piece.content.weight();
        self.pieces.insert(offset, piece.content);
        Ok(())
    }

    /// Takes all pieces of a complete cell, in order.
    pub(super) fn take_complete(&mut self) -> Option<Vec<Piece>> {
        self.complete.pop_front().map(|cell| self.take(cell))
    }

    /// Takes what there is of the cell that began first.
    pub(super) fn take_oldest(&mut self) -> Option<Vec<Piece>> {
        let cell = *self.order.first_key_value()?.1;
        self.complete.retain(|complete| *complete != cell);
        Some(self.take(cell))
    }

    fn take(&mut self, cell: u64) -> Vec<Piece> {
        let state = self.cells.remove(&cell).expect("a cell with pieces is known");
        self.order.remove(&state.begun);
        let mut taken = self.pieces.split_off(&(cell * CELL_LEN));
        self.pieces.append(&mut taken.split_off(&((cell + 1) * CELL_LEN)));
        self.weight -= taken.values().map(Content::weight).sum::<u64>();
        taken.into_iter().map(|(offset, content)| Piece { offset, content }).collect()
    }
}

/// What pieces come to: requests, and what is of blocks in part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Divided {
    pub(super) requests: VecDeque<Piece>,
    pub(super) parts: Vec<Piece>,
}

/// Makes requests of pieces, which are sorted.
pub(super) fn divide(pieces: &[Piece], blocks: Blocks) -> Divided {
    let mut divided = Divided::default();
    for run in pieces.chunk_by(|before, piece| before.end() == piece.offset) {
        let (start, end) = (run[0].offset, run[run.len() - 1].end());
        let (first, last) = (blocks.up(start), blocks.down(end));
        if first < last {
            divided.parts.extend(part_of(run, start, first));
            divide_whole(run, first, last, blocks, &mut divided.requests);
            divided.parts.extend(part_of(run, last, end));
        } else {
            // In one block, or in two neighbours.
            let border = first.min(end);
            divided.parts.extend(part_of(run, start, border));
            divided.parts.extend(part_of(run, border, end));
        }
    }
    divided
}

fn part_of(run: &[Piece], start: u64, end: u64) -> Option<Piece> {
    Extent::between(start, end)
        .map(|range| Piece { offset: start, content: Content::Data(joined(run, range)) })
}

fn joined(run: &[Piece], range: Extent) -> Vec<u8> {
    let mut bytes = vec![0; len(range.length)];
    let first = run.partition_point(|piece| piece.end() <= range.start);
    for piece in run[first..].iter().take_while(|piece| piece.offset < range.end()) {
        piece.copy_to(range.start, &mut bytes);
    }
    bytes
}

/// Makes requests of a range of whole blocks: of its holes that are long enough, and of all else.
fn divide_whole(run: &[Piece], start: u64, end: u64, blocks: Blocks, requests: &mut VecDeque<Piece>) {
    let mut data_start = start;
    let write = |mut start: u64, end: u64, requests: &mut VecDeque<Piece>| {
        while let Some(range) = Extent::between(start, end.min(start.saturating_add(blocks.request_len_max)))
        {
            requests.push_back(Piece { offset: range.start, content: Content::Data(joined(run, range)) });
            start = range.end();
        }
    };
    let is_zeros = |piece: &Piece| matches!(piece.content, Content::Zeros(_));
    for holes in run.chunk_by(|before, piece| is_zeros(before) && is_zeros(piece)) {
        if !is_zeros(&holes[0]) {
            continue;
        }
        let from = blocks.up(holes[0].offset).clamp(start, end);
        let until = blocks.down(holes[holes.len() - 1].end()).clamp(start, end);
        if until.saturating_sub(from) >= HOLE_LEN_MIN {
            write(data_start, from, requests);
            requests.extend(zeros(from, until));
            data_start = until;
        }
    }
    write(data_start, end, requests);
}

/// Requests to make a range of whole blocks zero.
pub(super) fn zeros(start: u64, end: u64) -> impl Iterator<Item = Piece> {
    let starts = std::iter::successors(Some(start), |start| start.checked_add(ZERO_LEN_MAX));
    starts.take_while(move |start| *start < end).map(move |start| {
        let length = ZERO_LEN_MAX.min(end - start);
        Piece { offset: start, content: Content::Zeros(length) }
    })
}

/// Parts of blocks, which can be written only with the rest of their block.
#[derive(Debug, Default)]
pub(super) struct Edges {
    blocks: BTreeMap<u64, Edge>,
    weight: u64,
    /// From where on blocks are taken next.
    next: u64,
}

/// A block of which some bytes are known, and not all.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) block: Extent,
    parts: Vec<Piece>,
}

impl Edge {
    fn covered(&self) -> u64 {
        self.parts.iter().map(|part| part.content.length()).sum()
    }

    /// The whole block, with what of it was read before.
    pub(super) fn over(&self, mut bytes: Vec<u8>) -> Piece {
        for part in &self.parts {
            part.copy_to(self.block.start, &mut bytes);
        }
        Piece { offset: self.block.start, content: Content::Data(bytes) }
    }
}

impl Edges {
    /// Bytes in memory, about.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds a part of a block; returns the block if that makes it whole.
    pub(super) fn add(&mut self, part: Piece, blocks: Blocks) -> Option<Piece> {
        let block = blocks.around(part.offset);
        self.weight += part.content.weight();
        let edge = self.blocks.entry(block.start).or_insert_with(|| Edge { block, parts: Vec::new() });
        edge.parts.push(part);
        if edge.covered() < block.length {
            return None;
        }
        let edge = self.blocks.remove(&block.start).expect("it was just there");
        self.weight -= edge.parts.iter().map(|part| part.content.weight()).sum::<u64>();
        Some(edge.over(vec![0; len(block.length)]))
    }

    /// Puts back what was taken.
    pub(super) fn put_back(&mut self, edges: Vec<Edge>) {
        for edge in edges {
            self.weight += edge.parts.iter().map(|part| part.content.weight()).sum::<u64>();
            // What came meanwhile is of the same block.
            match self.blocks.get_mut(&edge.block.start) {
                Some(there) => there.parts.extend(edge.parts),
                None => drop(self.blocks.insert(edge.block.start, edge)),
            }
        }
    }

    /// Takes some blocks, which take turns.
    pub(super) fn take(&mut self, count: usize) -> Vec<Edge> {
        let mut starts: Vec<u64> =
            self.blocks.range(self.next..).map(|(start, _)| *start).take(count).collect();
        if starts.is_empty() {
            starts = self.blocks.keys().copied().take(count).collect();
        }
        self.next = starts.last().map_or(0, |last| last + 1);
        let taken: Vec<Edge> = starts.iter().filter_map(|start| self.blocks.remove(start)).collect();
        let weights = taken.iter().flat_map(|edge| &edge.parts).map(|part| part.content.weight());
        self.weight -= weights.sum::<u64>();
        taken
    }
}

pub(super) fn len(length: u64) -> usize {
    usize::try_from(length).expect("it is a length in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(offset: u64, length: u64, byte: u8) -> Piece {
        Piece { offset, content: Content::Data(vec![byte; len(length)]) }
    }

    fn hole(offset: u64, length: u64) -> Piece {
        Piece { offset, content: Content::Zeros(length) }
    }

    fn blocks(minimum: u64) -> Blocks {
        Blocks { minimum, request_len_max: CELL_LEN, end: 10 * CELL_LEN }
    }

    fn divided(pieces: &[Piece], blocks: Blocks) -> (Vec<Piece>, Vec<Piece>) {
        let Divided { requests, parts } = divide(pieces, blocks);
        (requests.into(), parts)
    }

    #[test]
    fn neighbours_are_one_request_and_short_holes_are_written() {
        let pieces = [data(10, 10, 7), hole(20, 80), data(100, 10, 7), data(200, 1, 9)];
        let mut joined = vec![7; 100];
        joined[10..90].fill(0);
        let joined = Piece { offset: 10, content: Content::Data(joined) };
        assert_eq!(divided(&pieces, blocks(1)), (vec![joined, data(200, 1, 9)], vec![]));
        let pieces = [data(0, 10, 7), hole(10, 5000), hole(5010, 5000), data(10010, 10, 7)];
        let requests = vec![data(0, 10, 7), hole(10, 10000), data(10010, 10, 7)];
        assert_eq!(divided(&pieces, blocks(1)), (requests, vec![]));
    }

    #[test]
    fn parts_of_blocks_are_told_apart_from_whole_ones() {
        let blocks = Blocks { end: 10 * CELL_LEN + 100, ..blocks(512) };
        assert_eq!(divided(&[data(100, 200, 1)], blocks), (vec![], vec![data(100, 200, 1)]));
        let across = (vec![], vec![data(500, 12, 1), data(512, 8, 1)]);
        assert_eq!(divided(&[data(500, 20, 1)], blocks), across);
        let whole = (vec![data(512, 1024, 1)], vec![data(500, 12, 1), data(1536, 4, 1)]);
        assert_eq!(divided(&[data(500, 1040, 1)], blocks), whole);
        // A hole is made of whole blocks, and the last block of a disk may be short.
        let pieces = [data(512, 100, 1), hole(612, 8192)];
        let mut first = vec![1; 512];
        first[100..].fill(0);
        let first = Piece { offset: 512, content: Content::Data(first) };
        assert_eq!(divided(&pieces, blocks), (vec![first, hole(1024, 7680)], vec![data(8704, 100, 0)]));
        let end = 10 * CELL_LEN;
        assert_eq!(divided(&[data(end, 100, 1)], blocks), (vec![data(end, 100, 1)], vec![]));
    }

    #[test]
    fn requests_are_no_longer_than_the_server_takes() {
        let blocks = Blocks { request_len_max: 1000, ..blocks(1) };
        let requests = vec![data(5, 1000, 1), data(1005, 1000, 1), data(2005, 1, 1)];
        assert_eq!(divided(&[data(5, 2001, 1)], blocks), (requests, vec![]));
        let long: Vec<Piece> = zeros(0, (130 << 20) + 1).collect();
        assert_eq!(long, [hole(0, 64 << 20), hole(64 << 20, 64 << 20), hole(128 << 20, (2 << 20) + 1)]);
    }

    #[test]
    fn cells_are_taken_when_they_are_complete_or_the_oldest_first() {
        let (mut held, size) = (Held::default(), 2 * CELL_LEN + 10);
        for piece in [data(CELL_LEN, 10, 1), data(5, 5, 2), data(2 * CELL_LEN + 5, 5, 3), data(0, 5, 4)] {
            held.add(piece, size).unwrap();
        }
        assert_eq!(held.take_complete(), None);
        held.add(hole(2 * CELL_LEN, 5), size).unwrap();
        assert_eq!(held.take_complete(), Some(vec![hole(2 * CELL_LEN, 5), data(2 * CELL_LEN + 5, 5, 3)]));
        assert_eq!(held.take_oldest(), Some(vec![data(CELL_LEN, 10, 1)]));
        assert_eq!(held.take_oldest(), Some(vec![data(0, 5, 4), data(5, 5, 2)]));
        assert_eq!((held.take_oldest(), held.weight(), held.is_empty()), (None, 0, true));
    }

    #[test]
    fn parts_that_make_up_a_block_are_written_without_reading() {
        let (mut edges, blocks) = (Edges::default(), blocks(512));
        assert_eq!(edges.add(data(0, 100, 1), blocks), None);
        assert_eq!(edges.add(data(512, 100, 1), blocks), None);
        assert_eq!(edges.add(data(300, 212, 3), blocks), None);
        let whole = edges.add(data(100, 200, 2), blocks).unwrap();
        let bytes = [vec![1; 100], vec![2; 200], vec![3; 212]].concat();
        assert_eq!(whole, Piece { offset: 0, content: Content::Data(bytes) });
        let taken = edges.take(10);
        assert_eq!((taken.len(), edges.is_empty(), edges.weight()), (1, true, 0));
        let over = taken[0].over(vec![9; 512]);
        assert_eq!(
            over,
            Piece { offset: 512, content: Content::Data([vec![1; 100], vec![9; 412]].concat()) }
        );
        edges.put_back(taken);
        assert_eq!(edges.add(data(612, 1, 5), blocks), None);
        assert_eq!(edges.take(10)[0].covered(), 101);
    }
}
