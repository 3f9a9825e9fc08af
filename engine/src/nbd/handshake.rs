//! The handshake: what server and client agree on before the disk is read.
//!
//! Asked for is as much as helps: extended headers, else structured replies; metadata contexts; the sizes of blocks. Of
//! a server that knows none of it, at least the export is read.

use super::channel::Channel;
use super::error::{NbdError, Refusal};
use super::wire::{
    self, BlockSizes, EXPORT_NAME_TAIL_LEN, ExportInfo, Greeting, HANDSHAKE_FIXED, HANDSHAKE_NO_ZEROES, Info,
    OptionCode, OptionReplyHeader, ReplyCode, Style, WireError,
};
use std::io;

/// How many replies to one option are read at most. Only lists of exports are long.
const REPLIES_MAX: u64 = 10_000;
/// How many exports are named where one is not found.
const EXPORTS_NAMED: usize = 20;

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) style: Style,
    pub(super) info: ExportInfo,
    pub(super) blocks: BlockSizes,
    /// The id of each context that was asked for, if the server has it.
    pub(super) contexts: Vec<Option<u32>>,
}

/// Greets the server. Returns its flags.
pub(super) fn greet(channel: &mut Channel) -> Result<u16, NbdError> {
    let greeting = channel.array().map_err(|error| match error {
        // Whoever ends at once, or waits for the client to begin, is none.
        NbdError::Lost { place, source } if source.kind() == io::ErrorKind::UnexpectedEof => {
            NbdError::NotNbd { place }
        }
        error => error,
    })?;
    match Greeting::parse(greeting) {
        Greeting::New => {}
        Greeting::Old => return Err(NbdError::OldProtocol { place: channel.place() }),
        Greeting::NotNbd => return Err(NbdError::NotNbd { place: channel.place() }),
    }
    let flags = u16::from_be_bytes(channel.array()?);
    // The client's flags are these two of the server's, in 32 bits.
    let answer = u32::from(flags & (HANDSHAKE_FIXED | HANDSHAKE_NO_ZEROES));
    channel.send(&answer.to_be_bytes())?;
    Ok(flags)
}

/// Has the server speak TLS after this.
pub(super) fn ask_for_tls(channel: &mut Channel, flags: u16) -> Result<(), NbdError> {
    if flags & HANDSHAKE_FIXED == 0 {
        return Err(NbdError::TlsNotOffered { place: channel.place() });
    }
    let mut handshake = Handshake { channel, export: "" };
    handshake.send(OptionCode::StartTls, &[])?;
    let (code, message) = handshake.reply(OptionCode::StartTls)?;
    match code {
        ReplyCode::Ack if message.is_empty() => Ok(()),
        ReplyCode::Unsupported | ReplyCode::Policy | ReplyCode::Platform => {
            Err(NbdError::TlsNotOffered { place: handshake.channel.place() })
        }
        code => Err(handshake.refused("TLS", code, &message)),
    }
}

/// Opens an export with the contexts that are there of some. `flags` are those of the greeting.
pub(super) fn open_export(
    channel: &mut Channel,
    flags: u16,
    export: &str,
    contexts: &[&str],
) -> Result<Agreed, NbdError> {
    let mut handshake = Handshake { channel, export };
    let mut agreed = Agreed {
        style: Style::Simple,
        info: ExportInfo { size: 0, flags: 0 },
        blocks: BlockSizes::default(),
        contexts: vec![None; contexts.len()],
    };
    if flags & HANDSHAKE_FIXED == 0 {
        agreed.info = handshake.export_by_name(flags)?;
        return Ok(agreed);
    }
    agreed.style = handshake.agree_on_style()?;
    if agreed.style != Style::Simple && !contexts.is_empty() {
        agreed.contexts = handshake.select_contexts(contexts)?;
    }
    match handshake.go()? {
        Some((info, blocks)) => {
            agreed.info = info;
            agreed.blocks = blocks.unwrap_or_default();
        }
        None => agreed.info = handshake.export_by_name(flags)?,
    }
    Ok(agreed)
}

struct Handshake<'a> {
    channel: &'a mut Channel,
    export: &'a str,
}

impl Handshake<'_> {
    fn agree_on_style(&mut self) -> Result<Style, NbdError> {
        for (option, style) in
            [(OptionCode::ExtendedHeaders, Style::Extended), (OptionCode::StructuredReply, Style::Structured)]
        {
            self.send(option, &[])?;
            let (code, message) = self.reply(option)?;
            match code {
                ReplyCode::Ack => return Ok(style),
                ReplyCode::TlsRequired | ReplyCode::Shutdown => {
                    return Err(self.refused("structured replies", code, &message));
                }
                code if code.is_error() => {}
                _ => return Err(self.unexpected(code)),
            }
        }
        Ok(Style::Simple)
    }

    /// Asks for contexts, and returns the ids of those that are there.
    fn select_contexts(&mut self, contexts: &[&str]) -> Result<Vec<Option<u32>>, NbdError> {
        let option = OptionCode::SetMetaContext;
        self.send(option, &wire::context_queries(self.export, contexts))?;
        let mut ids = vec![None; contexts.len()];
        for _ in 0..REPLIES_MAX {
            let (code, data) = self.reply(option)?;
            match code {
                ReplyCode::Ack => return Ok(ids),
                ReplyCode::MetaContext => {
                    let (id, name) = wire::parse_context(&data).map_err(|error| self.channel.bad(error))?;
                    let position = contexts.iter().position(|context| *context == name);
                    let position = position.ok_or_else(|| self.channel.bad(WireError::OtherContext))?;
                    ids[position] = Some(id);
                }
                ReplyCode::UnknownExport => return Err(self.no_export()),
                ReplyCode::TlsRequired | ReplyCode::Shutdown => {
                    return Err(self.refused("metadata contexts", code, &data));
                }
                // It has none. That the disk is read without them is for the caller to judge.
                code if code.is_error() => return Ok(vec![None; contexts.len()]),
                _ => return Err(self.unexpected(code)),
            }
        }
        Err(self.too_many())
    }

    /// Opens the export; `None` if the server does not know this option.
    fn go(&mut self) -> Result<Option<(ExportInfo, Option<BlockSizes>)>, NbdError> {
        let option = OptionCode::Go;
        self.send(option, &wire::go(self.export))?;
        let (mut info, mut blocks) = (None, None);
        for _ in 0..REPLIES_MAX {
            let (code, data) = self.reply(option)?;
            match code {
                ReplyCode::Ack => {
                    let info = info.ok_or_else(|| self.channel.bad(WireError::NoSize))?;
                    return Ok(Some((info, blocks)));
                }
                ReplyCode::Info => match Info::parse(&data).map_err(|error| self.channel.bad(error))? {
                    Info::Export(told) => info = Some(told),
                    Info::BlockSizes(told) => blocks = Some(told),
                    Info::Other => {}
                },
                ReplyCode::Unsupported => return Ok(None),
                ReplyCode::UnknownExport => return Err(self.no_export()),
                code if code.is_error() => return Err(self.refused("the export", code, &data)),
                _ => return Err(self.unexpected(code)),
            }
        }
        Err(self.too_many())
    }

    /// Opens the export as the oldest servers know it. They end the connection if there is none of that name.
    fn export_by_name(&mut self, flags: u16) -> Result<ExportInfo, NbdError> {
        self.send(OptionCode::ExportName, self.export.as_bytes())?;
        let answer = self.channel.array().map_err(|error| match error {
            NbdError::Lost { place, source } if source.kind() == io::ErrorKind::UnexpectedEof => {
                NbdError::NoExport { place, export: self.export.to_owned(), known: Vec::new() }
            }
            error => error,
        })?;
        if flags & HANDSHAKE_NO_ZEROES == 0 {
            self.channel.array::<EXPORT_NAME_TAIL_LEN>()?;
        }
        wire::parse_exported_name(answer).map_err(|error| self.channel.bad(error))
    }

    /// The error for an export that is not there, with some that are.
    fn no_export(&mut self) -> NbdError {
        // What fails here is less than what is reported.
        let known = self.list().unwrap_or_default();
        NbdError::NoExport { place: self.channel.place(), export: self.export.to_owned(), known }
    }

    fn list(&mut self) -> Result<Vec<String>, NbdError> {
        self.send(OptionCode::List, &[])?;
        let mut names = Vec::new();
        for _ in 0..REPLIES_MAX {
            let (code, data) = self.reply(OptionCode::List)?;
            if code != ReplyCode::Server {
                break;
            }
            let name = wire::parse_server(&data).map_err(|error| self.channel.bad(error))?;
            names.push(name.to_owned());
            if names.len() == EXPORTS_NAMED {
                return Ok(names);
            }
        }
        self.send(OptionCode::Abort, &[])?;
        Ok(names)
    }

    fn send(&mut self, option: OptionCode, data: &[u8]) -> Result<(), NbdError> {
        self.channel.send(&wire::encode_option(option, data))
    }

    fn reply(&mut self, option: OptionCode) -> Result<(ReplyCode, Vec<u8>), NbdError> {
        let header = OptionReplyHeader::parse(option, self.channel.array()?);
        let header = header.map_err(|error| self.channel.bad(error))?;
        let len = usize::try_from(header.length).expect("lengths of 32 bits fit in memory");
        Ok((header.code, self.channel.bytes(len)?))
    }

    fn refused(&self, asked: &'static str, code: ReplyCode, message: &[u8]) -> NbdError {
        let refusal = match code {
            ReplyCode::TlsRequired => return NbdError::TlsRequired { place: self.channel.place() },
            ReplyCode::Policy => Refusal::Policy,
            ReplyCode::Unsupported | ReplyCode::Platform => Refusal::Unsupported,
            ReplyCode::Invalid => Refusal::Invalid,
            ReplyCode::Shutdown => Refusal::Shutdown,
            ReplyCode::OtherError(number) => Refusal::Other(number),
            _ => return self.unexpected(code),
        };
        let message = &message[..message.len().min(wire::STRING_LEN_MAX)];
        let message = String::from_utf8_lossy(message).into_owned();
        NbdError::Refused { place: self.channel.place(), asked, refusal, message }
    }

    fn unexpected(&self, code: ReplyCode) -> NbdError {
        let found = match code {
            ReplyCode::Ack => 1,
            ReplyCode::Server => 2,
            ReplyCode::Info => 3,
            _ => 4,
        };
        self.channel.bad(WireError::UnexpectedType { what: "the reply to an option", found })
    }

    fn too_many(&self) -> NbdError {
        self.channel.bad(WireError::TooMany { what: "replies to one option", limit: REPLIES_MAX })
    }
}
