//! The server's side of the protocol's messages: bytes to values and back, with no input or output.
//!
//! Nothing here panics on any bytes, and no length that a client names is allocated before it was compared with a limit.

use crate::nbd::wire::{Fields, STRING_LEN_MAX, Style, WireError};

/// "NBDMAGIC", "IHAVEOPT", and that every option is answered and nothing follows what is told of an export.
pub(super) const GREETING: [u8; 18] = *b"NBDMAGICIHAVEOPT\0\x03";
const MAGIC_OPTION: u64 = 0x4948_4156_454f_5054;
const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const MAGIC_REQUEST: u32 = 0x2560_9513;
const MAGIC_REQUEST_EXTENDED: u32 = 0x21e4_1c71;
const MAGIC_SIMPLE: u32 = 0x6744_6698;
const MAGIC_CHUNK: u32 = 0x668e_33ef;
const MAGIC_CHUNK_EXTENDED: u32 = 0x6e8a_278c;

/// What precedes an option's data, in bytes.
pub(super) const OPTION_HEADER_LEN: usize = 16;
/// The longest data of an option: a name, and some queries of the same length.
pub(super) const OPTION_LEN_MAX: u32 = 64 << 10;
/// The longest header of a request, in bytes.
pub(super) const REQUEST_LEN_MAX: usize = 32;

/// The client's flags, in 32 bits: the two that the greeting offers.
pub(super) const CLIENT_FIXED: u32 = 1;
pub(super) const CLIENT_NO_ZEROES: u32 = 2;

/// The context that tells what is allocated and what is zero, and its id.
pub(super) const ALLOCATION: &str = "base:allocation";
pub(super) const ALLOCATION_ID: u32 = 1;
/// Of its states: it is not allocated, and reads as zeros.
pub(super) const STATE_HOLE_AND_ZERO: u64 = 3;

/// What is true of an export.
pub(super) mod transmission {
    pub(in super::super) const HAS_FLAGS: u16 = 1;
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const SEND_FLUSH: u16 = 1 << 2;
    pub(in super::super) const SEND_FUA: u16 = 1 << 3;
    pub(in super::super) const SEND_TRIM: u16 = 1 << 5;
    pub(in super::super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const SEND_DF: u16 = 1 << 7;
    pub(in super::super) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(in super::super) const SEND_CACHE: u16 = 1 << 10;
}

/// What an option asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    ExportName,
    Abort,
    List,
    StartTls,
    Info,
    Go,
    StructuredReply,
    ListMetaContext,
    SetMetaContext,
    ExtendedHeaders,
    Other,
}

/// What precedes an option's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OptionHeader {
    pub(super) asked: Asked,
    /// The option's number, for the reply.
    pub(super) code: u32,
    /// Of the data, in bytes: at most [`OPTION_LEN_MAX`].
    pub(super) length: u32,
}

impl OptionHeader {
    pub(super) fn parse(bytes: &[u8; OPTION_HEADER_LEN]) -> Result<Self, WireError> {
        const WHAT: &str = "an option";
        let mut fields = Fields::new(WHAT, bytes);
        let magic = fields.u64()?;
        if magic != MAGIC_OPTION {
            return Err(WireError::Magic { what: WHAT, found: magic });
        }
        let (code, length) = (fields.u32()?, fields.u32()?);
        if length > OPTION_LEN_MAX {
            let (length, limit) = (length.into(), OPTION_LEN_MAX.into());
            return Err(WireError::TooLong { what: WHAT, length, limit });
        }
        let asked = match code {
            1 => Asked::ExportName,
            2 => Asked::Abort,
            3 => Asked::List,
            5 => Asked::StartTls,
            6 => Asked::Info,
            7 => Asked::Go,
            8 => Asked::StructuredReply,
            9 => Asked::ListMetaContext,
            10 => Asked::SetMetaContext,
            11 => Asked::ExtendedHeaders,
            _ => Asked::Other,
        };
        Ok(Self { asked, code, length })
    }
}

/// The data of an option that opens an export or asks about it: its name, and what is to be told of it.
pub(super) fn parse_export_request(data: &[u8]) -> Result<(&str, Vec<u16>), WireError> {
    let mut fields = Fields::new("a request for an export", data);
    let name = string(&mut fields)?;
    let count = fields.u16()?;
    let mut wishes = Vec::new();
    for _ in 0..count {
        wishes.push(fields.u16()?);
    }
    fields.end()?;
    Ok((name, wishes))
}

/// The data of an option about contexts: the export's name, and queries.
pub(super) fn parse_context_request(data: &[u8]) -> Result<(&str, Vec<&str>), WireError> {
    let mut fields = Fields::new("a request for contexts", data);
    let name = string(&mut fields)?;
    let count = fields.u32()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(string(&mut fields)?);
    }
    fields.end()?;
    Ok((name, queries))
}

/// A name that is all of an option's data.
pub(super) fn parse_name(data: &[u8]) -> Result<&str, WireError> {
    let mut fields = Fields::new("an export's name", data);
    fields.text(data.len())
}

fn string<'a>(fields: &mut Fields<'a>) -> Result<&'a str, WireError> {
    let len = fields.u32()?;
    fields.text(usize::try_from(len).unwrap_or(STRING_LEN_MAX + 1))
}

/// How an option is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ack,
    Server,
    Info,
    MetaContext,
    Unsupported,
    Policy,
    Invalid,
    TlsRequired,
    UnknownExport,
}

impl Answer {
    fn code(self) -> u32 {
        const ERROR: u32 = 1 << 31;
        match self {
            Self::Ack => 1,
            Self::Server => 2,
            Self::Info => 3,
            Self::MetaContext => 4,
            Self::Unsupported => ERROR | 1,
            Self::Policy => ERROR | 2,
            Self::Invalid => ERROR | 3,
            Self::TlsRequired => ERROR | 5,
            Self::UnknownExport => ERROR | 6,
        }
    }
}

/// The reply to an option.
pub(super) fn option_reply(code: u32, answer: Answer, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(20 + data.len());
    message.extend(MAGIC_OPTION_REPLY.to_be_bytes());
    message.extend(code.to_be_bytes());
    message.extend(answer.code().to_be_bytes());
    message.extend(u32::try_from(data.len()).expect("replies are short").to_be_bytes());
    message.extend(data);
    message
}

/// A number and a text with or without its length before it.
pub(super) fn named(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("names are short");
    [&len.to_be_bytes()[..], text.as_bytes()].concat()
}

/// The kinds of things that are told of an export.
pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_NAME: u16 = 1;
pub(super) const INFO_DESCRIPTION: u16 = 2;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    Cache,
    WriteZeroes,
    BlockStatus,
    Other,
}

/// A request, without the data of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) flags: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u64,
}

impl Request {
    const FUA: u16 = 1;
    const DONT_FRAGMENT: u16 = 1 << 2;
    const REQUEST_ONE: u16 = 1 << 3;
    /// Known flags that need nothing: zeros may be made by holes, which are as good here, and the data's length is told.
    const INDIFFERENT: u16 = 1 << 1 | 1 << 5;

    /// How long a header is, in bytes.
    pub(super) fn len(style: Style) -> usize {
        if style == Style::Extended { REQUEST_LEN_MAX } else { 28 }
    }

    /// Parses a header of [`Request::len`] bytes.
    pub(super) fn parse(style: Style, bytes: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "a request";
        let mut fields = Fields::new(WHAT, bytes);
        let magic = fields.u32()?;
        let expected = if style == Style::Extended { MAGIC_REQUEST_EXTENDED } else { MAGIC_REQUEST };
        if magic != expected {
            return Err(WireError::Magic { what: WHAT, found: magic.into() });
        }
        let flags = fields.u16()?;
        let command = match fields.u16()? {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => Command::Flush,
            4 => Command::Trim,
            5 => Command::Cache,
            6 => Command::WriteZeroes,
            7 => Command::BlockStatus,
            _ => Command::Other,
        };
        let (cookie, offset) = (fields.u64()?, fields.u64()?);
        let length = if style == Style::Extended { fields.u64()? } else { fields.u32()?.into() };
        fields.end()?;
        Ok(Self { command, flags, cookie, offset, length })
    }

    /// Whether it is to be durable before it is answered.
    pub(super) fn is_forced(&self) -> bool {
        self.flags & Self::FUA != 0
    }

    /// Whether its data are to come in one piece.
    pub(super) fn is_whole(&self) -> bool {
        self.flags & Self::DONT_FRAGMENT != 0
    }

    /// Whether one state is enough.
    pub(super) fn wants_one(&self) -> bool {
        self.flags & Self::REQUEST_ONE != 0
    }

    /// Whether all its flags are known and belong to its command.
    pub(super) fn has_fitting_flags(&self) -> bool {
        let fitting = match self.command {
            Command::Read => Self::DONT_FRAGMENT,
            Command::BlockStatus => Self::REQUEST_ONE,
            _ => 0,
        };
        self.flags & !(fitting | Self::FUA | Self::INDIFFERENT) == 0
    }
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errno {
    NotPermitted,
    InputOutput,
    Invalid,
    NoSpace,
    TooLong,
    NotSupported,
}

impl Errno {
    fn code(self) -> u32 {
        match self {
            Self::NotPermitted => 1,
            Self::InputOutput => 5,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::TooLong => 75,
            Self::NotSupported => 95,
        }
    }
}

/// What a chunk of a reply is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkKind {
    None,
    Data,
    Hole,
    Status,
    Error,
}

/// Writes the messages of a reply to one request, one behind the other.
#[derive(Debug)]
pub(super) struct Reply {
    style: Style,
    cookie: u64,
    offset: u64,
    pub(super) message: Vec<u8>,
}

impl Reply {
    pub(super) fn new(style: Style, request: &Request, capacity: usize) -> Self {
        let message = Vec::with_capacity(capacity);
        Self { style, cookie: request.cookie, offset: request.offset, message }
    }

    /// A reply without data.
    pub(super) fn done(style: Style, request: &Request) -> Vec<u8> {
        let mut reply = Self::new(style, request, REQUEST_LEN_MAX);
        if style == Style::Extended {
            reply.chunk(true, ChunkKind::None, 0);
        } else {
            reply.simple(0);
        }
        reply.message
    }

    /// A reply that tells of a failure, with a text for people where there is room for one.
    pub(super) fn failed(style: Style, request: &Request, errno: Errno, text: &str) -> Vec<u8> {
        let mut reply = Self::new(style, request, 64 + text.len());
        if style == Style::Simple {
            reply.simple(errno.code());
            return reply.message;
        }
        let text = &text.as_bytes()[..text.floor_char_boundary(STRING_LEN_MAX)];
        reply.chunk(true, ChunkKind::Error, 6 + text.len() as u64);
        reply.message.extend(errno.code().to_be_bytes());
        reply.message.extend(u16::try_from(text.len()).expect("it was cut").to_be_bytes());
        reply.message.extend(text);
        reply.message
    }

    /// Begins a simple reply.
    pub(super) fn simple(&mut self, error: u32) {
        self.message.extend(MAGIC_SIMPLE.to_be_bytes());
        self.message.extend(error.to_be_bytes());
        self.message.extend(self.cookie.to_be_bytes());
    }

    /// Begins a chunk, of which `length` bytes follow.
    fn chunk(&mut self, is_last: bool, kind: ChunkKind, length: u64) {
        let is_extended = self.style == Style::Extended;
        let code: u16 = match kind {
            ChunkKind::None => 0,
            ChunkKind::Data => 1,
            ChunkKind::Hole => 2,
            ChunkKind::Status if is_extended => 6,
            ChunkKind::Status => 5,
            ChunkKind::Error => 0x8001,
        };
        let magic = if is_extended { MAGIC_CHUNK_EXTENDED } else { MAGIC_CHUNK };
        self.message.extend(magic.to_be_bytes());
        self.message.extend(u16::from(is_last).to_be_bytes());
        self.message.extend(code.to_be_bytes());
        self.message.extend(self.cookie.to_be_bytes());
        if is_extended {
            self.message.extend(self.offset.to_be_bytes());
            self.message.extend(length.to_be_bytes());
        } else {
            self.message.extend(u32::try_from(length).expect("replies are short").to_be_bytes());
        }
    }

    /// Adds a chunk of data, and returns where its `length` bytes go.
    pub(super) fn data(&mut self, is_last: bool, offset: u64, length: usize) -> &mut [u8] {
        if self.style != Style::Simple {
            self.chunk(is_last, ChunkKind::Data, 8 + length as u64);
            self.message.extend(offset.to_be_bytes());
        }
        let start = self.message.len();
        self.message.resize(start + length, 0);
        &mut self.message[start..]
    }

    /// Adds a chunk for zeros.
    pub(super) fn hole(&mut self, is_last: bool, offset: u64, length: u32) {
        self.chunk(is_last, ChunkKind::Hole, 12);
        self.message.extend(offset.to_be_bytes());
        self.message.extend(length.to_be_bytes());
    }

    /// Adds the states of ranges, one behind the other.
    pub(super) fn status(&mut self, context: u32, states: &[(u64, u64)]) {
        let is_extended = self.style == Style::Extended;
        let count = states.len() as u64;
        let length = if is_extended { 8 + 16 * count } else { 4 + 8 * count };
        self.chunk(true, ChunkKind::Status, length);
        self.message.extend(context.to_be_bytes());
        if is_extended {
            self.message.extend(u32::try_from(count).expect("few states").to_be_bytes());
        }
        for (length, state) in states {
            if is_extended {
                self.message.extend(length.to_be_bytes());
                self.message.extend(state.to_be_bytes());
            } else {
                self.message
                    .extend(u32::try_from(*length).expect("within a request of 32 bits").to_be_bytes());
                self.message.extend(u32::try_from(*state).expect("a few bits").to_be_bytes());
            }
        }
    }
}
