//! The handshake: the server's greeting, options and the replies to them.

use super::{Fields, STRING_LEN_MAX, WireError};

/// "NBDMAGIC".
const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT": it follows in the greeting, and begins each option.
const MAGIC_NEW: u64 = 0x4948_4156_454f_5054;
/// It follows in the greeting of servers from before options.
const MAGIC_OLD: u64 = 0x0000_4202_8186_1253;
const MAGIC_REPLY: u64 = 0x0003_e889_0455_65a9;

/// The server answers every option.
pub(in crate::nbd) const HANDSHAKE_FIXED: u16 = 1;
/// Nothing follows what is told of an export.
pub(in crate::nbd) const HANDSHAKE_NO_ZEROES: u16 = 2;

/// The greeting's two numbers, in bytes.
const GREETING_LEN: usize = 16;
/// What follows the answer to [`OptionCode::ExportName`], in bytes, unless [`HANDSHAKE_NO_ZEROES`] was agreed on.
pub(in crate::nbd) const EXPORT_NAME_TAIL_LEN: usize = 124;
const OPTION_REPLY_HEADER_LEN: usize = 20;
/// The most that one reply may have: the longest name and the longest description, and room for more.
const OPTION_REPLY_LEN_MAX: u32 = 64 << 10;
/// No disk is larger, nor any file: offsets are signed in most systems.
const SIZE_MAX: u64 = i64::MAX as u64;
/// The protocol's limit for the smallest block, in bytes.
const MINIMUM_BLOCK_MAX: u32 = 64 << 10;

/// What the first bytes of a server say that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) enum Greeting {
    /// Options.
    New,
    /// The protocol from before options.
    Old,
    /// Something else.
    NotNbd,
}

impl Greeting {
    pub(in crate::nbd) fn parse(bytes: [u8; GREETING_LEN]) -> Self {
        let mut fields = Fields::new("the greeting", &bytes);
        match (fields.u64(), fields.u64()) {
            (Ok(MAGIC), Ok(MAGIC_NEW)) => Self::New,
            (Ok(MAGIC), Ok(MAGIC_OLD)) => Self::Old,
            _ => Self::NotNbd,
        }
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) enum OptionCode {
    ExportName,
    Abort,
    List,
    StartTls,
    Go,
    StructuredReply,
    SetMetaContext,
    ExtendedHeaders,
}

impl OptionCode {
    fn code(self) -> u32 {
        match self {
            Self::ExportName => 1,
            Self::Abort => 2,
            Self::List => 3,
            Self::StartTls => 5,
            Self::Go => 7,
            Self::StructuredReply => 8,
            Self::SetMetaContext => 10,
            Self::ExtendedHeaders => 11,
        }
    }
}

/// An option's message.
pub(in crate::nbd) fn encode_option(option: OptionCode, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + data.len());
    message.extend(MAGIC_NEW.to_be_bytes());
    message.extend(option.code().to_be_bytes());
    message.extend(length(data).to_be_bytes());
    message.extend(data);
    message
}

/// The data of [`OptionCode::Go`]: the export, and a wish for its block sizes.
pub(in crate::nbd) fn go(export: &str) -> Vec<u8> {
    const WISHES: u16 = 1;
    let mut data = string(export);
    data.extend(WISHES.to_be_bytes());
    data.extend(INFO_BLOCK_SIZE.to_be_bytes());
    data
}

/// The data of [`OptionCode::SetMetaContext`]: the export, and the contexts.
pub(in crate::nbd) fn context_queries(export: &str, contexts: &[&str]) -> Vec<u8> {
    let mut data = string(export);
    data.extend(u32::try_from(contexts.len()).expect("few contexts are asked for").to_be_bytes());
    for context in contexts {
        data.extend(string(context));
    }
    data
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = length(text.as_bytes()).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("an option has a few strings of 4096 bytes")
}

/// How an option is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) enum ReplyCode {
    /// Agreed, or nothing more follows.
    Ack,
    /// An export's name follows.
    Server,
    /// Something about the export follows.
    Info,
    /// A metadata context's id and name follow.
    MetaContext,
    /// The option is not known.
    Unsupported,
    /// The server's settings forbid it.
    Policy,
    /// The option's data are wrong.
    Invalid,
    /// Not on this platform.
    Platform,
    /// TLS first.
    TlsRequired,
    /// There is no such export.
    UnknownExport,
    /// The server is about to end.
    Shutdown,
    /// Any other failure.
    OtherError(u32),
}

impl ReplyCode {
    /// Whether the option failed.
    pub(in crate::nbd) fn is_error(self) -> bool {
        !matches!(self, Self::Ack | Self::Server | Self::Info | Self::MetaContext)
    }
}

/// What comes before the data of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) struct OptionReplyHeader {
    pub(in crate::nbd) code: ReplyCode,
    /// Of the data, in bytes: at most 64 KiB.
    pub(in crate::nbd) length: u32,
}

impl OptionReplyHeader {
    pub(in crate::nbd) fn parse(
        asked: OptionCode,
        bytes: [u8; OPTION_REPLY_HEADER_LEN],
    ) -> Result<Self, WireError> {
        const WHAT: &str = "the reply to an option";
        const ERROR: u32 = 1 << 31;
        let mut fields = Fields::new(WHAT, &bytes);
        let magic = fields.u64()?;
        if magic != MAGIC_REPLY {
            return Err(WireError::Magic { what: WHAT, found: magic });
        }
        let answered = fields.u32()?;
        if answered != asked.code() {
            return Err(WireError::OtherOption { asked: asked.code(), answered });
        }
        let code = fields.u32()?;
        let length = fields.u32()?;
        if length > OPTION_REPLY_LEN_MAX {
            let (length, limit) = (length.into(), OPTION_REPLY_LEN_MAX.into());
            return Err(WireError::TooLong { what: WHAT, length, limit });
        }
        let code = match (code & ERROR != 0, code & !ERROR) {
            (false, 1) => ReplyCode::Ack,
            (false, 2) => ReplyCode::Server,
            (false, 3) => ReplyCode::Info,
            (false, 4) => ReplyCode::MetaContext,
            (true, 1) => ReplyCode::Unsupported,
            (true, 2) => ReplyCode::Policy,
            (true, 3) => ReplyCode::Invalid,
            (true, 4) => ReplyCode::Platform,
            (true, 5) => ReplyCode::TlsRequired,
            (true, 6) => ReplyCode::UnknownExport,
            (true, 7) => ReplyCode::Shutdown,
            (true, _) => ReplyCode::OtherError(code),
            (false, _) => return Err(WireError::UnexpectedType { what: WHAT, found: code.into() }),
        };
        Ok(Self { code, length })
    }
}

/// The lengths that requests may have, in bytes. `minimum` is a power of two up to 64 KiB, `maximum` a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) struct BlockSizes {
    pub(in crate::nbd) minimum: u32,
    pub(in crate::nbd) preferred: u32,
    pub(in crate::nbd) maximum: u32,
}

impl Default for BlockSizes {
    /// What the protocol advises where a server says nothing: sectors, and no more than 32 MiB.
    fn default() -> Self {
        Self { minimum: 512, preferred: 4096, maximum: 32 << 20 }
    }
}

impl BlockSizes {
    fn checked(minimum: u32, preferred: u32, maximum: u32) -> Result<Self, WireError> {
        let fits = minimum.is_power_of_two()
            && minimum <= MINIMUM_BLOCK_MAX
            && preferred.is_power_of_two()
            && preferred >= minimum
            && maximum >= minimum;
        if !fits {
            return Err(WireError::BlockSizes { minimum, preferred, maximum });
        }
        Ok(Self { minimum, preferred, maximum: maximum - maximum % minimum })
    }
}

/// What is told of an export when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) struct ExportInfo {
    /// In bytes.
    pub(in crate::nbd) size: u64,
    pub(in crate::nbd) flags: u16,
}

impl ExportInfo {
    /// Bits of the transmission flags.
    const READ_ONLY: u16 = 1 << 1;
    const SEND_FLUSH: u16 = 1 << 2;
    const SEND_TRIM: u16 = 1 << 5;
    const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// Several connections see the same.
    const CAN_MULTI_CONN: u16 = 1 << 8;

    pub(in crate::nbd) fn can_multi_conn(self) -> bool {
        self.flags & Self::CAN_MULTI_CONN != 0
    }

    pub(in crate::nbd) fn is_read_only(self) -> bool {
        self.flags & Self::READ_ONLY != 0
    }

    /// Whether there is a flush; without it, what is answered is durable.
    pub(in crate::nbd) fn can_flush(self) -> bool {
        self.flags & Self::SEND_FLUSH != 0
    }

    pub(in crate::nbd) fn can_trim(self) -> bool {
        self.flags & Self::SEND_TRIM != 0
    }

    pub(in crate::nbd) fn can_write_zeroes(self) -> bool {
        self.flags & Self::SEND_WRITE_ZEROES != 0
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, WireError> {
        let size = fields.u64()?;
        if size > SIZE_MAX {
            return Err(WireError::Size { size });
        }
        Ok(Self { size, flags: fields.u16()? })
    }
}

/// The answer to [`OptionCode::ExportName`], without its zeros.
pub(in crate::nbd) fn parse_exported_name(bytes: [u8; 10]) -> Result<ExportInfo, WireError> {
    ExportInfo::read(&mut Fields::new("the answer for the export", &bytes))
}

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// The data of a [`ReplyCode::Info`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nbd) enum Info {
    Export(ExportInfo),
    BlockSizes(BlockSizes),
    /// Something that was not wished for, which a server may tell all the same.
    Other,
}

impl Info {
    pub(in crate::nbd) fn parse(data: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new("what is told of the export", data);
        let info = match fields.u16()? {
            INFO_EXPORT => Self::Export(ExportInfo::read(&mut fields)?),
            INFO_BLOCK_SIZE => {
                let (minimum, preferred, maximum) = (fields.u32()?, fields.u32()?, fields.u32()?);
                Self::BlockSizes(BlockSizes::checked(minimum, preferred, maximum)?)
            }
            _ => return Ok(Self::Other),
        };
        fields.end()?;
        Ok(info)
    }
}

/// The data of a [`ReplyCode::MetaContext`]: the id and the name.
pub(in crate::nbd) fn parse_context(data: &[u8]) -> Result<(u32, &str), WireError> {
    let mut fields = Fields::new("a metadata context", data);
    let id = fields.u32()?;
    let name = fields.text(data.len() - 4)?;
    Ok((id, name))
}

/// The data of a [`ReplyCode::Server`]: an export's name. What follows is a description.
pub(in crate::nbd) fn parse_server(data: &[u8]) -> Result<&str, WireError> {
    let mut fields = Fields::new("an export's name", data);
    let len = fields.u32()?;
    fields.text(usize::try_from(len).unwrap_or(STRING_LEN_MAX + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_their_length() {
        assert_eq!(encode_option(OptionCode::StructuredReply, b""), b"IHAVEOPT\0\0\0\x08\0\0\0\0");
        let go = encode_option(OptionCode::Go, &go("ab"));
        assert_eq!(go, b"IHAVEOPT\0\0\0\x07\0\0\0\x0a\0\0\0\x02ab\0\x01\0\x03");
        let contexts = context_queries("", &["base:allocation", "x"]);
        assert_eq!(contexts, b"\0\0\0\0\0\0\0\x02\0\0\0\x0fbase:allocation\0\0\0\x01x");
    }

    #[test]
    fn greetings_are_told_apart() {
        assert_eq!(Greeting::parse(*b"NBDMAGICIHAVEOPT"), Greeting::New);
        assert_eq!(Greeting::parse(*b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53"), Greeting::Old);
        assert_eq!(Greeting::parse(*b"SSH-2.0-OpenSSH_"), Greeting::NotNbd);
    }

    #[test]
    fn block_sizes_go_together() {
        let info = |minimum: u32, preferred: u32, maximum: u32| {
            let mut data = vec![0, 3];
            data.extend([minimum, preferred, maximum].iter().flat_map(|size| size.to_be_bytes()));
            Info::parse(&data)
        };
        let sizes = |minimum, preferred, maximum| BlockSizes { minimum, preferred, maximum };
        for (told, taken) in [
            ((1, 4096, u32::MAX), sizes(1, 4096, u32::MAX)),
            ((4096, 4096, u32::MAX), sizes(4096, 4096, u32::MAX - 4095)),
            ((512, 65536, 1000), sizes(512, 65536, 512)),
            ((65536, 65536, 65536), sizes(65536, 65536, 65536)),
        ] {
            assert_eq!(info(told.0, told.1, told.2), Ok(Info::BlockSizes(taken)));
        }
        for (minimum, preferred, maximum) in [
            (0, 4096, 4096),
            (3, 4096, 4096),
            (131_072, 131_072, 131_072),
            (512, 256, 4096),
            (4096, 4096, 512),
        ] {
            let error = WireError::BlockSizes { minimum, preferred, maximum };
            assert_eq!(info(minimum, preferred, maximum), Err(error));
        }
    }

    #[test]
    fn replies_of_other_lengths_are_refused() {
        let other = |what| WireError::OtherLength { what };
        assert_eq!(Info::parse(&[0]), Err(other("what is told of the export")));
        assert_eq!(Info::parse(&[0, 0, 1]), Err(other("what is told of the export")));
        assert_eq!(Info::parse(&[0; 13]), Err(other("what is told of the export")));
        assert_eq!(Info::parse(&[0, 1, b'x']), Ok(Info::Other));
        assert_eq!(parse_context(&[0, 0, 0]), Err(other("a metadata context")));
        assert_eq!(parse_context(b"\0\0\0\x07abc"), Ok((7, "abc")));
        assert_eq!(parse_server(b"\0\0\0\x03abcdef"), Ok("abc"));
        assert_eq!(parse_server(b"\0\0\0\x04abc"), Err(other("an export's name")));
        let (length, limit) = (u64::from(u32::MAX).min(4097), 4096);
        let long = [&4097_u32.to_be_bytes()[..], &[b'x'; 4097]].concat();
        assert_eq!(parse_server(&long), Err(WireError::TooLong { what: "an export's name", length, limit }));
    }
}
