//! A part of a disk that stands for all of it.

use crate::source::{ChangedAreas, FullReason, Outside, ReadPart, Since, read_each};
use crate::{DiskSource, Extent};
use std::io;

/// A disk that consists of pieces of another one, chosen at equal distances among those that hold anything.
pub struct SampledDisk<'a> {
    source: &'a dyn DiskSource,
    piece_len: u64,
    /// Where on the source the pieces begin, in order. All but the last are whole.
    pieces: Vec<u64>,
    size: u64,
    /// What is allocated, by places on this disk.
    allocated: Vec<Extent>,
}

impl<'a> SampledDisk<'a> {
    /// Chooses pieces of `piece_len` bytes, which begin at multiples of it, with at most `bytes_max` together and at least
    /// one, among those that meet `allocated` (sorted, disjoint). Everything of the disk that is allocated comes into
    /// question; without any, the disk's first piece is taken.
    ///
    /// # Panics
    /// If the source is empty or `piece_len` is zero.
    #[must_use]
    pub fn choose(source: &'a dyn DiskSource, allocated: &[Extent], piece_len: u64, bytes_max: u64) -> Self {
        assert!(source.size() > 0 && piece_len > 0, "there is something to choose from");
        let mut with_data = pieces_with_data(allocated, piece_len);
        if with_data.is_empty() {
            with_data.push(0);
        }
        let wanted = usize::try_from(bytes_max / piece_len).unwrap_or(usize::MAX).clamp(1, with_data.len());
        let chosen = (0..wanted).map(|number| with_data[number * with_data.len() / wanted]);
        let pieces: Vec<u64> = chosen.map(|piece| piece * piece_len).collect();
        let last = pieces.last().expect("there is at least one piece");
        let last_len = piece_len.min(source.size() - last);
        let size = (pieces.len() as u64 - 1) * piece_len + last_len;
        let mut sampled = Self { source, piece_len, pieces, size, allocated: Vec::new() };
        sampled.allocated = sampled.moved(allocated);
        sampled
    }

    /// The areas that are allocated, by places on this disk: sorted and disjoint.
    #[must_use]
    pub fn allocated(&self) -> &[Extent] {
        &self.allocated
    }

    /// What of `areas` (sorted, disjoint) lies in the pieces, by places on this disk.
    fn moved(&self, areas: &[Extent]) -> Vec<Extent> {
        let mut moved = Vec::new();
        for (&from, number) in self.pieces.iter().zip(0u64..) {
            let to = number * self.piece_len;
            let first = areas.partition_point(|area| area.end() <= from);
            let within = areas[first..].iter().map_while(|area| area.clip(from, from + self.piece_len));
            moved.extend(within.map(|area| Extent { start: area.start - from + to, ..area }));
        }
        crate::extent::normalized(moved)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let within = at % self.piece_len;
            let piece = usize::try_from(at / self.piece_len).expect("the pieces are in memory");
            let left = usize::try_from(self.piece_len - within).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at_mut(left);
            self.source.read(&mut [ReadPart { offset: self.pieces[piece] + within, buffer: part }])?;
            at += left as u64;
            rest = behind;
        }
        Ok(())
    }
}

/// The numbers of the pieces of the disk that meet areas.
fn pieces_with_data(areas: &[Extent], piece_len: u64) -> Vec<u64> {
    let mut pieces: Vec<u64> = Vec::new();
    for area in areas {
        let first = (area.start / piece_len).max(pieces.last().map_or(0, |last| last + 1));
        pieces.extend(first..area.end().div_ceil(piece_len));
    }
    pieces
}

impl DiskSource for SampledDisk<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let full_reason = since.map(|_| FullReason::NoChangeTracking);
        let areas = self.allocated.clone();
        Ok(ChangedAreas { areas, outside: Outside::Zero { full_reason }, change_id: None })
    }

    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        read_each(parts, |offset, buffer| self.read_at(offset, buffer))
    }

    fn check_unchanged(&self) -> io::Result<()> {
        self.source.check_unchanged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryDisk;

    fn extents(places: &[(u64, u64)]) -> Vec<Extent> {
        places.iter().map(|&(start, end)| Extent::between(start, end).unwrap()).collect()
    }

    fn disk() -> MemoryDisk {
        MemoryDisk::new((0..1005u32).map(|place| (place / 7 % 251) as u8).collect())
    }

    #[test]
    fn pieces_are_taken_at_equal_distances_where_there_is_data() {
        let disk = disk();
        let allocated = extents(&[(50, 260), (290, 310), (700, 800), (990, 1005)]);
        // Pieces with data: 0, 1, 2, 3, 7, 9 and 10.
        let sampled = SampledDisk::choose(&disk, &allocated, 100, 350);
        assert_eq!(sampled.pieces, [0, 200, 700]);
        assert_eq!(sampled.size(), 300);
        assert_eq!(sampled.allocated(), extents(&[(50, 160), (190, 300)]));
        let mut read = vec![0; 150];
        sampled.read_at(90, &mut read).unwrap();
        let expected = [&disk.bytes[90..100], &disk.bytes[200..300], &disk.bytes[700..740]].concat();
        assert_eq!(read, expected);
        assert!(sampled.read_at(299, &mut [0; 2]).is_err());
    }

    #[test]
    fn all_that_holds_data_is_taken_if_there_is_room() {
        let disk = disk();
        let all = SampledDisk::choose(&disk, &extents(&[(0, 1005)]), 100, u64::MAX);
        assert_eq!((all.size(), all.pieces.len()), (1005, 11));
        let mut read = vec![0; 1005];
        all.read_at(0, &mut read).unwrap();
        assert_eq!(read, disk.bytes);
        let nothing = SampledDisk::choose(&disk, &[], 100, 500);
        assert_eq!((nothing.pieces.as_slice(), nothing.size()), (&[0][..], 100));
        assert_eq!(nothing.allocated(), []);
        let end = SampledDisk::choose(&disk, &extents(&[(1000, 1005)]), 100, 1);
        assert_eq!((end.size(), end.allocated()), (5, &extents(&[(0, 5)])[..]));
    }
}
