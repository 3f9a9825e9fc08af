//! What was written since it was last made durable, in case the server loses it.

use super::held::{Content, Piece};
use crate::Extent;
use std::collections::BTreeMap;

/// So many records are kept at most before all is made durable: 8 GiB in whole cells, in about 3 MiB of memory.
pub(super) const RECORDS_MAX: usize = 32 << 10;

/// The first bytes of a BLAKE3.
type Digest = [u8; 16];

/// What was answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    /// By offset: a block that was written in parts counts as it was written last.
    data: BTreeMap<u64, (u64, Digest)>,
    zeros: Vec<Extent>,
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.data.len() + self.zeros.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn add(&mut self, record: Record) {
        match record {
            Record::Data { offset, length, digest } => {
                self.data.insert(offset, (length, digest));
            }
            Record::Zeros(zeros) => match self.zeros.last_mut() {
                Some(last) if last.end() == zeros.start => last.length += zeros.length,
                _ => self.zeros.push(zeros),
            },
        }
    }

    /// Ranges of data, and what they should be.
    pub(super) fn data(&self) -> impl Iterator<Item = (Extent, &Digest)> {
        self.data.iter().map(|(start, (length, digest))| (Extent { start: *start, length: *length }, digest))
    }

    pub(super) fn zeros(&self) -> &[Extent] {
        &self.zeros
    }
}

/// What is remembered of one change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Record {
    Data { offset: u64, length: u64, digest: Digest },
    Zeros(Extent),
}

impl Record {
    pub(super) fn of(piece: &Piece) -> Self {
        let (offset, length) = (piece.offset, piece.content.length());
        match &piece.content {
            Content::Data(data) => Self::Data { offset, length, digest: digest(data) },
            Content::Zeros(_) => Self::Zeros(Extent { start: offset, length }),
        }
    }
}

pub(super) fn digest(data: &[u8]) -> Digest {
    *blake3::hash(data).as_bytes().first_chunk().expect("a hash is longer")
}
