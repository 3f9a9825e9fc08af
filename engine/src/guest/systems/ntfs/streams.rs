//! The content of attributes: within a record, or in runs of clusters that may be missing or compressed.

use super::{damaged, failed, unread, unsupported};
use crate::guest::device::{Section, len_of};
use crate::guest::error::{Fault, GuestError};
use crate::guest::systems::{Content, PIECE_LEN, Piece};
use ntfs_core::data::attribute_runlist;
use ntfs_core::{Attribute, AttributeBody, NtfsError, Run};

/// Windows compresses in units of 16 clusters of at most 4 KiB.
const UNIT_LEN_MAX: u64 = 64 << 10;

/// A stream of bytes.
pub(super) enum Stream {
    Resident(Vec<u8>),
    Runs(Runs),
}

/// Where a stream is.
pub(super) struct Runs {
    /// The place in the stream of each run, and the run; in bytes. No place on the volume is a hole.
    all: Vec<(u64, Option<u64>, u64)>,
    /// What they cover.
    covered: u64,
    size: u64,
    /// What was written; the rest of the stream is zero, whatever is in its clusters.
    written: u64,
    /// The length of the units that are compressed, if they are.
    unit_len: Option<u64>,
}

impl Stream {
    pub(super) fn resident(content: Vec<u8>) -> Self {
        Self::Resident(content)
    }

    /// Puts a stream together out of its pieces, in their order, each with the record that it is in.
    pub(super) fn of_pieces(
        pieces: &[(u64, &Vec<u8>, &Attribute)],
        cluster_len: u64,
    ) -> Result<Option<Self>, GuestError> {
        let Some((_, _, first)) = pieces.first() else { return Ok(None) };
        let AttributeBody::NonResident { real_size, initialized_size, .. } = first.body else {
            return Ok(None);
        };
        if first.is_encrypted() {
            return Err(unsupported(Fault::Encrypted));
        }
        let unit_len = if first.is_compressed() { Some(unit_len(first, cluster_len)?) } else { None };
        let (mut runs, mut covered) = (Vec::new(), 0_u64);
        for (start, record, attribute) in pieces {
            if start.checked_mul(cluster_len) != Some(covered) {
                return Err(damaged(Fault::Gap));
            }
            for Run { length, lcn } in attribute_runlist(record, attribute).map_err(failed)? {
                let place = lcn.map(|lcn| lcn.checked_mul(cluster_len)).map(|place| place.ok_or(Fault::Gap));
                let place = place.transpose().map_err(damaged)?;
                let length = length.checked_mul(cluster_len).ok_or_else(|| damaged(Fault::Gap))?;
                runs.push((covered, place, length));
                covered = covered.checked_add(length).ok_or_else(|| damaged(Fault::Gap))?;
            }
        }
        let written = initialized_size.min(real_size);
        Ok(Some(Self::Runs(Runs { all: runs, covered, size: real_size, written, unit_len })))
    }

    /// Whether all of it is there.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Resident(_) => true,
            Self::Runs(runs) => runs.covered >= runs.size,
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Resident(content) => len_of(content),
            Self::Runs(runs) => runs.size,
        }
    }

    /// Fills a buffer from any place; for streams that are not compressed.
    pub(super) fn read_at(
        &self,
        section: &Section,
        mut offset: u64,
        mut buffer: &mut [u8],
    ) -> Result<(), GuestError> {
        let runs = match self {
            Self::Resident(content) => {
                let start = usize::try_from(offset).ok();
                let part = start.and_then(|start| content.get(start..)?.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or_else(|| damaged(Fault::Gap))?);
                return Ok(());
            }
            Self::Runs(runs) => runs,
        };
        while !buffer.is_empty() {
            let (place, rest) = runs.at(offset).ok_or_else(|| damaged(Fault::Gap))?;
            let len = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let (now, later) = buffer.split_at_mut(len);
            match place {
                Some(place) => section.read_at(place, now).map_err(unread)?,
                None => now.fill(0),
            }
            offset += len_of(now);
            buffer = later;
        }
        Ok(())
    }
}

/// All of a stream that is short.
pub(super) fn bounded(stream: &Stream, section: &Section, len_max: u64) -> Result<Vec<u8>, GuestError> {
    let len = Some(stream.size()).filter(|len| *len <= len_max).ok_or_else(|| damaged(Fault::RecordLen))?;
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| damaged(Fault::RecordLen))?];
    stream.read_at(section, 0, &mut bytes)?;
    Ok(bytes)
}

fn unit_len(attribute: &Attribute, cluster_len: u64) -> Result<u64, GuestError> {
    let clusters = 1_u64.checked_shl(u32::from(attribute.compression_unit()));
    let len = clusters.and_then(|clusters| clusters.checked_mul(cluster_len));
    len.filter(|len| (cluster_len + 1..=UNIT_LEN_MAX).contains(len))
        .ok_or_else(|| unsupported(Fault::CompressionUnit))
}

impl Runs {
    /// Where the byte at `offset` is, and how many follow it there.
    fn at(&self, offset: u64) -> Option<(Option<u64>, u64)> {
        let after = self.all.partition_point(|(start, ..)| *start <= offset);
        let (start, place, length) = *self.all.get(after.checked_sub(1)?)?;
        let within = offset - start;
        let rest = length.checked_sub(within).filter(|rest| *rest > 0)?;
        // A run lies within 64 bits, but its end on the volume may not.
        Some((place.map(|place| place.saturating_add(within)), rest))
    }
}

/// A stream that is read from front to back.
pub(super) struct Place {
    stream: Stream,
    section: Section,
    position: u64,
}

impl Place {
    pub(super) fn new(stream: Stream, section: Section) -> Self {
        Self { stream, section, position: 0 }
    }
}

impl Content for Place {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Piece, GuestError> {
        let rest = self.stream.size().saturating_sub(self.position);
        if rest == 0 {
            return Ok(Piece::End);
        }
        let runs = match &self.stream {
            Stream::Resident(content) => {
                buffer.clone_from(content);
                self.position += len_of(content);
                return Ok(Piece::Data);
            }
            Stream::Runs(runs) => runs,
        };
        if self.position >= runs.written {
            self.position += rest;
            return Ok(Piece::Hole(rest));
        }
        let rest = runs.written - self.position;
        if let Some(unit_len) = runs.unit_len {
            let read = unit(runs, &self.section, self.position, unit_len, buffer)?;
            let length = unit_len.min(rest);
            self.position += length;
            buffer.truncate(usize::try_from(length).expect("a unit is short"));
            return Ok(if read { Piece::Data } else { Piece::Hole(length) });
        }
        let (place, length) = runs.at(self.position).ok_or_else(|| damaged(Fault::Gap))?;
        let length = length.min(rest);
        let Some(place) = place else {
            self.position += length;
            return Ok(Piece::Hole(length));
        };
        let len = PIECE_LEN.min(usize::try_from(length).unwrap_or(PIECE_LEN));
        buffer.resize(len, 0);
        self.section.read_at(place, buffer).map_err(unread)?;
        self.position += len_of(buffer);
        Ok(Piece::Data)
    }
}

/// Reads a compressed unit: one hole, or as many clusters as it is long, as they are, or fewer, compressed. Tells whether
/// there is anything in it.
fn unit(
    runs: &Runs,
    section: &Section,
    start: u64,
    unit_len: u64,
    buffer: &mut Vec<u8>,
) -> Result<bool, GuestError> {
    buffer.clear();
    let mut position = start;
    while position < start + unit_len {
        // The last unit may be cut off.
        let Some((place, rest)) = runs.at(position) else { break };
        let length = rest.min(start + unit_len - position);
        // What is behind the clusters of a unit is a hole.
        let Some(place) = place else { break };
        let filled = buffer.len();
        buffer.resize(filled + usize::try_from(length).expect("a unit is short"), 0);
        section.read_at(place, &mut buffer[filled..]).map_err(unread)?;
        position += length;
    }
    let len = usize::try_from(unit_len).expect("a unit is short");
    if buffer.is_empty() {
        return Ok(false);
    }
    if buffer.len() < len {
        let mut plain = Vec::with_capacity(len);
        lznt1::decompress(buffer, &mut plain)
            .map_err(|_| failed(NtfsError::BadCompression("a unit does not decompress")))?;
        *buffer = plain;
    }
    buffer.resize(len, 0);
    Ok(true)
}
