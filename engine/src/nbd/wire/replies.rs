//! Replies of the transmission phase.

use super::{Fields, Style, WireError};

const MAGIC_SIMPLE: u32 = 0x6744_6698;
const MAGIC_STRUCTURED: u32 = 0x668e_33ef;
const MAGIC_EXTENDED: u32 = 0x6e8a_278c;

/// Of the state of a block in `base:allocation`: it takes no space.
pub(in crate::nbd) const STATE_HOLE: u64 = 1;
/// Of the state of a block in `base:allocation`: it reads as zeros.
pub(in crate::nbd) const STATE_ZERO: u64 = 2;
/// Of the state of a block in a dirty bitmap of QEMU: it was written to.
pub(in crate::nbd) const STATE_DIRTY: u64 = 1;

/// What comes before the bytes of a chunk of data, in bytes: where they are.
const DATA_HEAD_LEN: usize = 8;
/// A chunk about a hole, in bytes.
pub(in crate::nbd) const HOLE_LEN: usize = 12;
/// A number, a text and perhaps an offset.
const ERROR_LEN_MAX: u64 = 6 + super::STRING_LEN_MAX as u64 + 8;

/// What comes before everything else of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) enum ReplyHeader {
    /// The whole reply, but for the data of a read without error.
    Simple { error: u32, cookie: u64 },
    /// The first or a later part.
    Chunk(ChunkHeader),
}

/// What comes before everything else of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) struct ChunkHeader {
    /// Whether it is the reply's last.
    pub(in crate::nbd) is_last: bool,
    pub(in crate::nbd) chunk: Chunk,
    pub(in crate::nbd) cookie: u64,
    /// What follows, in bytes.
    pub(in crate::nbd) length: u64,
}

/// What a chunk is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) enum Chunk {
    /// Nothing: it ends the reply.
    None,
    /// Bytes.
    Data,
    /// Zeros.
    Hole,
    /// States of blocks.
    Status,
    /// A failure; whether it says where.
    Error { has_offset: bool },
}

/// The longest header.
const HEADER_LEN_MAX: usize = 32;
/// What all begin with.
const MAGIC_LEN: usize = 4;

impl ReplyHeader {
    /// Reads a header with `fill`, which fills a buffer.
    pub(in crate::nbd) fn read<E: From<WireError>>(
        style: Style,
        mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut bytes = [0; HEADER_LEN_MAX];
        let (magic, rest) = bytes.split_at_mut(MAGIC_LEN);
        fill(magic)?;
        let magic = Fields::new("a reply", magic).u32()?;
        let len = match (magic, style) {
            (MAGIC_SIMPLE, Style::Simple | Style::Structured) => 12,
            (MAGIC_STRUCTURED, Style::Structured) => 16,
            (MAGIC_EXTENDED, Style::Extended) => 28,
            _ => return Err(WireError::Magic { what: "a reply", found: magic.into() }.into()),
        };
        let rest = &mut rest[..len];
        fill(rest)?;
        let mut fields = Fields::new("a reply", rest);
        if magic == MAGIC_SIMPLE {
            return Ok(Self::Simple { error: fields.u32()?, cookie: fields.u64()? });
        }
        Ok(Self::Chunk(ChunkHeader::parse(style, fields)?))
    }
}

impl ChunkHeader {
    fn parse(style: Style, mut fields: Fields<'_>) -> Result<Self, WireError> {
        const DONE: u16 = 1;
        let flags = fields.u16()?;
        let found = fields.u16()?;
        let cookie = fields.u64()?;
        let length = if style == Style::Extended {
            // Where the request began, once more.
            fields.u64()?;
            fields.u64()?
        } else {
            fields.u32()?.into()
        };
        let chunk = match (found, style) {
            (0, _) => Chunk::None,
            (1, _) => Chunk::Data,
            (2, _) => Chunk::Hole,
            (5, Style::Structured) | (6, Style::Extended) => Chunk::Status,
            // Bit 15 is that of failures, those that are not defined yet too.
            (0x8000.., _) => Chunk::Error { has_offset: found == 0x8002 },
            _ => return Err(WireError::UnexpectedType { what: "a reply", found: found.into() }),
        };
        Ok(Self { is_last: flags & DONE != 0, chunk, cookie, length })
    }

    /// The length of a chunk that must have `expected` bytes.
    pub(in crate::nbd) fn must_be(&self, expected: usize) -> Result<(), WireError> {
        if self.length == expected as u64 {
            return Ok(());
        }
        Err(WireError::OtherLength { what: "a chunk of a reply" })
    }

    /// How many bytes follow the place in a chunk of data: at least one.
    pub(in crate::nbd) fn data_length(&self) -> Result<u64, WireError> {
        let length = self.length.checked_sub(DATA_HEAD_LEN as u64).filter(|length| *length > 0);
        length.ok_or(WireError::OtherLength { what: "a chunk of data" })
    }

    /// The length of a chunk about a failure, which is short.
    pub(in crate::nbd) fn error_length(&self) -> Result<usize, WireError> {
        if self.length > ERROR_LEN_MAX {
            let length = self.length;
            return Err(WireError::TooLong {
                what: "a message about a failure",
                length,
                limit: ERROR_LEN_MAX,
            });
        }
        Ok(usize::try_from(self.length).expect("it was found to be short"))
    }

    /// How many states follow the head of a chunk about them.
    pub(in crate::nbd) fn descriptors(&self, style: Style) -> Result<u64, WireError> {
        const WHAT: &str = "a chunk about the state of blocks";
        let (head, each) = (StatusHead::len(style) as u64, Descriptor::len(style) as u64);
        let other = WireError::OtherLength { what: WHAT };
        let rest = self.length.checked_sub(head).ok_or_else(|| other.clone())?;
        if rest == 0 || rest % each != 0 {
            return Err(other);
        }
        Ok(rest / each)
    }
}

/// The place and length of a hole.
pub(in crate::nbd) fn parse_hole(bytes: [u8; HOLE_LEN]) -> Result<(u64, u64), WireError> {
    let mut fields = Fields::new("a hole", &bytes);
    Ok((fields.u64()?, fields.u32()?.into()))
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::nbd) struct ErrorChunk {
    pub(in crate::nbd) error: u32,
    /// What the server says of it; whatever bytes it had.
    pub(in crate::nbd) message: String,
    /// Where it was, if the server says.
    pub(in crate::nbd) offset: Option<u64>,
}

impl ErrorChunk {
    pub(in crate::nbd) fn parse(bytes: &[u8], has_offset: bool) -> Result<Self, WireError> {
        let mut fields = Fields::new("a message about a failure", bytes);
        let error = fields.u32()?;
        let len = fields.u16()?;
        let message = String::from_utf8_lossy(fields.bytes(len.into())?).into_owned();
        let offset = if has_offset { Some(fields.u64()?) } else { None };
        // Failures that are not defined yet may tell more.
        Ok(Self { error, message, offset })
    }
}

/// What comes first in a chunk about the state of blocks: of which context.
pub(in crate::nbd) struct StatusHead {
    pub(in crate::nbd) context: u32,
}

impl StatusHead {
    pub(in crate::nbd) fn len(style: Style) -> usize {
        if style == Style::Extended { 8 } else { 4 }
    }

    /// Reads `bytes`, of [`StatusHead::len`]; `descriptors` are how many must follow.
    pub(in crate::nbd) fn parse(style: Style, bytes: &[u8], descriptors: u64) -> Result<Self, WireError> {
        const WHAT: &str = "a chunk about the state of blocks";
        let mut fields = Fields::new(WHAT, bytes);
        let context = fields.u32()?;
        if style == Style::Extended && u64::from(fields.u32()?) != descriptors {
            return Err(WireError::OtherLength { what: WHAT });
        }
        fields.end()?;
        Ok(Self { context })
    }
}

/// The state of some bytes, which follow those of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) struct Descriptor {
    /// In bytes.
    pub(in crate::nbd) length: u64,
    pub(in crate::nbd) state: u64,
}

impl Descriptor {
    pub(in crate::nbd) fn len(style: Style) -> usize {
        if style == Style::Extended { 16 } else { 8 }
    }

    /// Reads `bytes`, of [`Descriptor::len`].
    pub(in crate::nbd) fn parse(style: Style, bytes: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new("the state of a block", bytes);
        let parsed = if style == Style::Extended {
            Self { length: fields.u64()?, state: fields.u64()? }
        } else {
            Self { length: fields.u32()?.into(), state: fields.u32()?.into() }
        };
        fields.end()?;
        Ok(parsed)
    }
}
