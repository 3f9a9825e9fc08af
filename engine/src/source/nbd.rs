//! Disks that an NBD server exports.

use super::{ChangedAreas, DiskSource, FullReason, Outside, ReadPart, Since};
use crate::Extent;
use crate::nbd::{Bitmap, Client, NbdError, NbdPlace, NbdSettings, Piece, Told, Use};
use std::io;
use std::os::unix::net::UnixStream;

/// The length of a request, if the server allows it: long enough that the turns cost little, short enough that several
/// are under way for a few MiB.
const REQUEST_LEN: u64 = 256 << 10;
/// Shorter holes are read, so that there are not many more requests than bytes would need.
const HOLE_LEN_MIN: u64 = 4 << 10;
/// Parts that are read at once where blocks are longer than a byte: each may need two blocks beside its buffer.
const PARTS_AT_ONCE: usize = 32;

/// An export of an NBD server. Its errors are [`NbdError`]s.
///
/// What is data, and what a dirty bitmap counts, is asked once, when it is opened: the export must not be written to as
/// long as it is read.
#[derive(Debug)]
pub struct NbdDisk {
    client: Client,
    /// Whole blocks, sorted, with gaps between: what does not read as zeros.
    data: Vec<Extent>,
    bitmap: Bitmap,
}

impl NbdDisk {
    /// Connects, and asks for the disk's size and areas.
    ///
    /// # Errors
    /// An [`NbdError`].
    pub fn open(place: &NbdPlace, settings: NbdSettings) -> Result<Self, NbdError> {
        Client::open(place, Use::Reading, settings).map(Self::begin)
    }

    /// Does the same over a socket that is connected to a server already. There is no further connection, and none is
    /// made anew.
    ///
    /// # Errors
    /// An [`NbdError`].
    pub fn over(socket: UnixStream, export: &str, settings: NbdSettings) -> Result<Self, NbdError> {
        Client::over(socket, export, Use::Reading, settings).map(Self::begin)
    }

    fn begin((client, told): (Client, Told)) -> Self {
        let data = whole_blocks(&told.data, client.block_len(), client.size());
        Self { client, data, bitmap: told.bitmap }
    }

    /// Plans to read one part: fills its holes, and divides its data into requests.
    fn divide<'a>(&self, part: &'a mut ReadPart<'_>, plan: &mut Plan<'a>) -> Result<(), NbdError> {
        let (offset, length) = (part.offset, part.buffer.len() as u64);
        let end = offset.checked_add(length).filter(|end| *end <= self.client.size());
        let end = end.ok_or_else(|| NbdError::OutsideDisk {
            place: self.client.place(),
            offset,
            length,
            size: self.client.size(),
        })?;
        let (mut buffer, mut at) = (&mut *part.buffer, offset);
        let first = self.data.partition_point(|area| area.end() <= offset);
        for area in self.data[first..].iter().map_while(|area| area.clip(offset, end)) {
            let (hole, rest) = buffer.split_at_mut(len(area.start - at));
            let (data, rest) = rest.split_at_mut(len(area.length));
            hole.fill(0);
            self.divide_data(area.start, data, plan);
            (buffer, at) = (rest, area.end());
        }
        buffer.fill(0);
        Ok(())
    }

    /// Divides data into requests of whole blocks. The disk's last block may be shorter than others.
    fn divide_data<'a>(&self, mut offset: u64, mut buffer: &'a mut [u8], plan: &mut Plan<'a>) {
        let (block_len, size) = (self.client.block_len(), self.client.size());
        let request_len = REQUEST_LEN.min(self.client.request_len_max());
        while !buffer.is_empty() {
            let left = buffer.len() as u64;
            let skip = offset % block_len;
            let whole = if offset + left == size { left } else { left - left % block_len };
            if skip == 0 && whole > 0 {
                let length = whole.min(request_len);
                let (target, rest) = buffer.split_at_mut(len(length));
                plan.pieces.push(Piece::new(offset, target));
                (buffer, offset) = (rest, offset + length);
            } else {
                let block = Extent::between(offset - skip, size.min(offset - skip + block_len));
                let block = block.expect("a block within the disk has some bytes");
                let length = left.min(block.end() - offset);
                let (target, rest) = buffer.split_at_mut(len(length));
                plan.edges.push(Edge { block, bytes: vec![0; len(block.length)], skip: len(skip), target });
                (buffer, offset) = (rest, offset + length);
            }
        }
    }

    fn read_planned(&self, parts: &mut [ReadPart<'_>]) -> Result<(), NbdError> {
        let mut plan = Plan::default();
        for part in parts {
            self.divide(part, &mut plan)?;
        }
        let Plan { mut pieces, mut edges } = plan;
        pieces.extend(edges.iter_mut().map(|edge| Piece::new(edge.block.start, &mut edge.bytes)));
        self.client.read(pieces)?;
        for edge in edges {
            edge.target.copy_from_slice(&edge.bytes[edge.skip..edge.skip + edge.target.len()]);
        }
        Ok(())
    }
}

/// What is asked of the server for some parts.
#[derive(Default)]
struct Plan<'a> {
    pieces: Vec<Piece<'a>>,
    edges: Vec<Edge<'a>>,
}

/// A block that is wanted in part.
struct Edge<'a> {
    block: Extent,
    bytes: Vec<u8>,
    /// The bytes before those that are wanted.
    skip: usize,
    target: &'a mut [u8],
}

/// Areas in whole blocks, without the shortest holes between them.
fn whole_blocks(areas: &[Extent], block_len: u64, size: u64) -> Vec<Extent> {
    let mut whole: Vec<Extent> = Vec::new();
    for area in areas {
        let start = area.start - area.start % block_len;
        let end = area.end().next_multiple_of(block_len).min(size);
        match whole.last_mut() {
            Some(last) if start < last.end() + HOLE_LEN_MIN => last.length = end - last.start,
            _ => whole.extend(Extent::between(start, end)),
        }
    }
    whole
}

fn len(length: u64) -> usize {
    usize::try_from(length).expect("it is a length in memory")
}

impl DiskSource for NbdDisk {
    fn size(&self) -> u64 {
        self.client.size()
    }

    fn changed_areas(&self, since: Option<&Since<'_>>) -> io::Result<ChangedAreas> {
        let size = self.size();
        let full_reason = match (since, &self.bitmap) {
            (None, _) => None,
            (Some(_), Bitmap::NotAsked) => Some(FullReason::NoChangeTracking),
            (Some(_), Bitmap::Missing(bitmap)) => Some(FullReason::NoBitmap { bitmap: bitmap.clone() }),
            (Some(since), Bitmap::Dirty(_)) if since.size != size => {
                Some(FullReason::Resized { before: since.size, after: size })
            }
            (Some(_), Bitmap::Dirty(areas)) => {
                let areas = areas.clone();
                return Ok(ChangedAreas { areas, outside: Outside::Unchanged, change_id: None });
            }
        };
        let outside = Outside::Zero { full_reason };
        Ok(ChangedAreas { areas: self.data.clone(), outside, change_id: None })
    }

    /// Holes are filled in here; only data is asked for.
    fn read(&self, parts: &mut [ReadPart<'_>]) -> io::Result<()> {
        let at_once = if self.client.block_len() == 1 { usize::MAX } else { PARTS_AT_ONCE };
        for parts in parts.chunks_mut(at_once) {
            self.read_planned(parts)?;
        }
        Ok(())
    }

    /// Reads the disk's last block, to see that the server is still there with a disk of this size. Whether somebody
    /// wrote to the disk meanwhile is nothing that a server tells.
    fn check_unchanged(&self) -> io::Result<()> {
        let (block_len, size) = (self.client.block_len(), self.size());
        let start = (size - 1) / block_len * block_len;
        let mut block = vec![0; len(size - start)];
        Ok(self.client.read(vec![Piece::new(start, &mut block)])?)
    }
}
