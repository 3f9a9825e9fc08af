//! The messages of the NBD protocol, as the NBD project's `doc/proto.md` defines them: bytes to values and back, with no
//! input or output. Numbers are big-endian.
//!
//! Nothing here panics on any bytes, and no length that a peer names is allocated before it was compared with a limit.

mod options;
mod replies;
mod requests;

pub(super) use options::{
    BlockSizes, EXPORT_NAME_TAIL_LEN, ExportInfo, Greeting, HANDSHAKE_FIXED, HANDSHAKE_NO_ZEROES, Info,
    OptionCode, OptionReplyHeader, ReplyCode, context_queries, encode_option, go, parse_context,
    parse_exported_name, parse_server,
};
pub(super) use replies::{
    Chunk, ChunkHeader, Descriptor, ErrorChunk, HOLE_LEN, ReplyHeader, STATE_DIRTY, STATE_HOLE, STATE_ZERO,
    StatusHead, parse_hole,
};
pub(super) use requests::{Request, RequestKind};

/// The longest string in a message, in bytes.
pub(super) const STRING_LEN_MAX: usize = 4096;

/// How requests and replies look, as it was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// One reply, with all the data or with an error, to each request.
    Simple,
    /// A reply is a number of chunks.
    Structured,
    /// A reply is a number of chunks, and all lengths have 64 bits.
    Extended,
}

/// How a server broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A message begins with another number than all of its kind.
    #[error("{what} begins with {found:#x}")]
    Magic {
        /// Which message.
        what: &'static str,
        /// What it begins with.
        found: u64,
    },
    /// A message is longer than it may be.
    #[error("{what} is {length} bytes long, more than {limit}")]
    TooLong {
        /// Which message.
        what: &'static str,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The length of a message is not that of what is in it.
    #[error("{what} has a length that does not fit what is in it")]
    OtherLength {
        /// Which message.
        what: &'static str,
    },
    /// A text is not in UTF-8.
    #[error("{what} is not text")]
    NotText {
        /// Which one.
        what: &'static str,
    },
    /// A reply is of a type that is not known, or does not belong to the request.
    #[error("{what} is of type {found:#x}")]
    UnexpectedType {
        /// Which message.
        what: &'static str,
        /// Its type.
        found: u64,
    },
    /// The reply to an option names another one.
    #[error("option {asked} was answered as if it were option {answered}")]
    OtherOption {
        /// The option that was sent.
        asked: u32,
        /// The one in the reply.
        answered: u32,
    },
    /// There are more messages than it can need.
    #[error("there are more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The server agreed to an export without saying how large it is.
    #[error("the server opened the export without telling its size")]
    NoSize,
    /// The export's size is none.
    #[error("the export has a size of {size} bytes, more than any disk")]
    Size {
        /// In bytes.
        size: u64,
    },
    /// The sizes of blocks do not go together.
    #[error("blocks of {minimum} to {maximum} bytes, best {preferred}, cannot be")]
    BlockSizes {
        /// The smallest, in bytes.
        minimum: u32,
        /// The best, in bytes.
        preferred: u32,
        /// The largest, in bytes.
        maximum: u32,
    },
    /// A metadata context was selected that was not asked for.
    #[error("the server selected a metadata context that was not asked for")]
    OtherContext,
    /// There is a reply to something that was not asked, or was answered before.
    #[error("there is a reply to request {cookie:#x}, which is not waiting for one")]
    UnknownCookie {
        /// The cookie in the reply.
        cookie: u64,
    },
    /// A simple reply came where only chunks may come.
    #[error("the reply to a read is not structured, though that was agreed on")]
    NotStructured,
    /// A chunk lies outside of the request.
    #[error("{length} bytes at {offset} answer a request for {asked_length} at {asked_offset}")]
    Outside {
        /// The chunk's first byte on the disk.
        offset: u64,
        /// Its bytes.
        length: u64,
        /// The request's first byte on the disk.
        asked_offset: u64,
        /// Its bytes.
        asked_length: u64,
    },
    /// Two chunks tell the same bytes.
    #[error("bytes at {offset} were sent twice")]
    Overlap {
        /// The second chunk's first byte on the disk.
        offset: u64,
    },
    /// A reply ended without all that was asked for.
    #[error("the reply to a request for {asked} bytes at {offset} ended after {told}")]
    Incomplete {
        /// The request's first byte on the disk.
        offset: u64,
        /// Its bytes.
        asked: u64,
        /// The bytes that came.
        told: u64,
    },
    /// A reply about the state of blocks says nothing of one context.
    #[error("the reply to a question for the state at {offset} does not say it")]
    NoStatus {
        /// The question's first byte on the disk.
        offset: u64,
    },
    /// A state of no bytes, or of more than there can be.
    #[error("the state of {length} bytes at {offset} cannot be")]
    StatusLength {
        /// Its first byte on the disk.
        offset: u64,
        /// Its bytes.
        length: u64,
    },
    /// There is something behind the agreement to speak TLS that is not encrypted.
    #[error("the server sent more before TLS began")]
    BeforeTls,
}

/// Reads the fields of a message of known length.
pub(super) struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (first, rest) =
            self.rest.split_first_chunk::<N>().ok_or(WireError::OtherLength { what: self.what })?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (first, rest) =
            self.rest.split_at_checked(len).ok_or(WireError::OtherLength { what: self.what })?;
        self.rest = rest;
        Ok(first)
    }

    pub(super) fn text(&mut self, len: usize) -> Result<&'a str, WireError> {
        if len > STRING_LEN_MAX {
            let (length, limit) = (len as u64, STRING_LEN_MAX as u64);
            return Err(WireError::TooLong { what: self.what, length, limit });
        }
        str::from_utf8(self.bytes(len)?).map_err(|_| WireError::NotText { what: self.what })
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::OtherLength { what: self.what }) }
    }
}
