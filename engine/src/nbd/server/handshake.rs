//! The handshake: what server and client agree on before the disk is read.

use super::channel::{Incoming, Outgoing, split};
use super::wire::{
    self, ALLOCATION, ALLOCATION_ID, Answer, Asked, CLIENT_FIXED, CLIENT_NO_ZEROES, GREETING,
    INFO_BLOCK_SIZE, INFO_DESCRIPTION, INFO_EXPORT, INFO_NAME, OPTION_HEADER_LEN, OptionHeader, transmission,
};
use super::{ClientError, Served, ServerSettings};
use crate::nbd::channel::Socket;
use crate::nbd::wire::{Style, WireError};
use std::net::Shutdown;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::Duration;

/// Options that a client may ask for before it opens the export.
const OPTIONS_MAX: usize = 64;
/// The best and the longest request, in bytes. The longest is what clients take it to be where nothing is told.
const BLOCK_BEST: u32 = 64 << 10;
pub(super) const BLOCK_MAX: u32 = 32 << 20;

/// Runs the handshake on a socket, and ends the connection if it takes too long, however slowly something comes.
pub(super) fn in_time<T>(
    socket: &Socket,
    timeout: Duration,
    handshake: impl FnOnce() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let (done, is_done) = channel::<()>();
    std::thread::scope(|threads| {
        let watch = move || {
            if is_done.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
                socket.shut_down(Shutdown::Both);
            }
        };
        // Nobody is taken up whom nobody watches.
        Builder::new().spawn_scoped(threads, watch)?;
        let outcome = handshake();
        drop(done);
        outcome
    })
}

/// What was agreed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) style: Style,
    /// Whether the client may ask for states.
    pub(super) has_context: bool,
}

type Agreed = (Incoming, Outgoing, Terms);

/// Agrees with a client; nothing if it wanted no more than to ask.
pub(super) fn agree(
    socket: Socket,
    disk: Served<'_, '_, '_>,
    settings: &ServerSettings,
) -> Result<Option<Agreed>, ClientError> {
    let (incoming, outgoing) = split(socket)?;
    let mut handshake = Handshake {
        incoming,
        outgoing,
        disk,
        settings,
        style: Style::Simple,
        has_context: false,
        is_encrypted: false,
        sends_zeroes: true,
    };
    handshake.outgoing.send(&GREETING)?;
    let mut flags = [0; 4];
    if !handshake.incoming.fill_or_end(&mut flags)? {
        return Ok(None);
    }
    let flags = u32::from_be_bytes(flags);
    if flags & !(CLIENT_FIXED | CLIENT_NO_ZEROES) != 0 {
        return Err(WireError::UnexpectedType { what: "the client's flags", found: flags.into() }.into());
    }
    handshake.sends_zeroes = flags & CLIENT_NO_ZEROES == 0;
    for _ in 0..OPTIONS_MAX {
        let mut header = [0; OPTION_HEADER_LEN];
        if !handshake.incoming.fill_or_end(&mut header)? {
            return Ok(None);
        }
        let header = OptionHeader::parse(&header)?;
        let len = usize::try_from(header.length).expect("it was found to be short");
        let mut data = vec![0; len];
        handshake.incoming.fill(&mut data)?;
        match handshake.option(header, &data)? {
            Next::Option => {}
            Next::End => return Ok(None),
            Next::Transmission => {
                let Handshake { incoming, outgoing, style, has_context, .. } = handshake;
                return Ok(Some((incoming, outgoing, Terms { style, has_context })));
            }
        }
    }
    Err(ClientError::Undecided { options: OPTIONS_MAX })
}

/// What comes after an option.
enum Next {
    Option,
    Transmission,
    End,
}

struct Handshake<'a, 'v, 'r, 's> {
    incoming: Incoming,
    outgoing: Outgoing,
    disk: Served<'v, 'r, 's>,
    settings: &'a ServerSettings,
    style: Style,
    /// Whether the client may ask for states.
    has_context: bool,
    is_encrypted: bool,
    /// Whether the client expects zeros behind an export that it opened by name.
    sends_zeroes: bool,
}

impl Handshake<'_, '_, '_, '_> {
    fn option(&mut self, header: OptionHeader, data: &[u8]) -> Result<Next, ClientError> {
        let lacks_tls = self.settings.tls.is_some() && !self.is_encrypted;
        match header.asked {
            Asked::Abort => {
                self.reply(header, Answer::Ack, &[])?;
                return Ok(Next::End);
            }
            Asked::StartTls => self.start_tls(header, data)?,
            Asked::ExportName if lacks_tls => return Err(ClientError::NoTls),
            _ if lacks_tls => self.refuse(header, Answer::TlsRequired, "TLS first")?,
            Asked::ExportName => {
                self.open_by_name(wire::parse_name(data)?)?;
                return Ok(Next::Transmission);
            }
            Asked::List if data.is_empty() => {
                let mut server = wire::named(&self.settings.export);
                server.extend(self.settings.description.as_bytes());
                self.reply(header, Answer::Server, &server)?;
                self.reply(header, Answer::Ack, &[])?;
            }
            Asked::Info | Asked::Go => {
                if self.tell(header, data)? && header.asked == Asked::Go {
                    return Ok(Next::Transmission);
                }
            }
            Asked::StructuredReply if data.is_empty() => {
                if self.style == Style::Simple {
                    self.style = Style::Structured;
                }
                self.reply(header, Answer::Ack, &[])?;
            }
            Asked::ExtendedHeaders if data.is_empty() => {
                self.style = Style::Extended;
                self.reply(header, Answer::Ack, &[])?;
            }
            Asked::ListMetaContext | Asked::SetMetaContext => self.contexts(header, data)?,
            Asked::List | Asked::StructuredReply | Asked::ExtendedHeaders => {
                self.refuse(header, Answer::Invalid, "the option has no data")?;
            }
            Asked::Other => self.refuse(header, Answer::Unsupported, "the option is not known")?,
        }
        Ok(Next::Option)
    }

    fn start_tls(&mut self, header: OptionHeader, data: &[u8]) -> Result<(), ClientError> {
        let Some(tls) = &self.settings.tls else {
            return self.refuse(header, Answer::Policy, "this server has no certificate");
        };
        if !data.is_empty() || self.is_encrypted {
            return self.refuse(header, Answer::Invalid, "TLS begins once, without data");
        }
        if self.incoming.has_ahead() {
            // It came in the clear, and might pass for something that came later.
            return Err(WireError::BeforeTls.into());
        }
        self.outgoing.send(&wire::option_reply(header.code, Answer::Ack, &[]))?;
        self.incoming.encrypted(tls, &mut self.outgoing)?;
        // What was agreed on in the clear does not count.
        (self.is_encrypted, self.style, self.has_context) = (true, Style::Simple, false);
        Ok(())
    }

    /// Opens the export in the way that has no answer for failures.
    fn open_by_name(&mut self, name: &str) -> Result<(), ClientError> {
        if !self.is_here(name) {
            return Err(ClientError::NoExport { name: name.to_owned() });
        }
        let mut answer = self.disk.size().to_be_bytes().to_vec();
        answer.extend(self.flags().to_be_bytes());
        if self.sends_zeroes {
            answer.extend([0; 124]);
        }
        Ok(self.outgoing.send(&answer)?)
    }

    /// Tells of the export, as the client wishes; false if there is none of that name.
    fn tell(&mut self, header: OptionHeader, data: &[u8]) -> Result<bool, ClientError> {
        let Ok((name, wishes)) = wire::parse_export_request(data) else {
            self.refuse(header, Answer::Invalid, "the request for an export cannot be read")?;
            return Ok(false);
        };
        if !self.is_here(name) {
            let text = format!("there is no such export; there is {:?}", self.settings.export);
            self.refuse(header, Answer::UnknownExport, &text)?;
            return Ok(false);
        }
        let mut export = INFO_EXPORT.to_be_bytes().to_vec();
        export.extend(self.disk.size().to_be_bytes());
        export.extend(self.flags().to_be_bytes());
        self.reply(header, Answer::Info, &export)?;
        let blocks = [1_u32, BLOCK_BEST, BLOCK_MAX].map(u32::to_be_bytes).concat();
        for (kind, told) in [
            (INFO_NAME, self.settings.export.as_bytes()),
            (INFO_DESCRIPTION, self.settings.description.as_bytes()),
            (INFO_BLOCK_SIZE, blocks.as_slice()),
        ] {
            // The lengths of requests are told in any case: a client that does not know them must not guess.
            if kind == INFO_BLOCK_SIZE || wishes.contains(&kind) {
                self.reply(header, Answer::Info, &[&kind.to_be_bytes()[..], told].concat())?;
            }
        }
        self.reply(header, Answer::Ack, &[])?;
        Ok(true)
    }

    fn contexts(&mut self, header: OptionHeader, data: &[u8]) -> Result<(), ClientError> {
        let selects = header.asked == Asked::SetMetaContext;
        if selects {
            self.has_context = false;
        }
        if selects && self.style == Style::Simple {
            return self.refuse(header, Answer::Invalid, "structured replies first");
        }
        let Ok((name, queries)) = wire::parse_context_request(data) else {
            return self.refuse(header, Answer::Invalid, "the request for contexts cannot be read");
        };
        if !self.is_here(name) {
            return self.refuse(header, Answer::UnknownExport, "there is no such export");
        }
        let lists_all = !selects && (queries.is_empty() || queries.contains(&"base:"));
        if lists_all || queries.contains(&ALLOCATION) {
            self.has_context |= selects;
            let context = [&ALLOCATION_ID.to_be_bytes()[..], ALLOCATION.as_bytes()].concat();
            self.reply(header, Answer::MetaContext, &context)?;
        }
        self.reply(header, Answer::Ack, &[])
    }

    fn is_here(&self, name: &str) -> bool {
        name.is_empty() || name == self.settings.export
    }

    fn flags(&self) -> u16 {
        use transmission::{
            CAN_MULTI_CONN, HAS_FLAGS, READ_ONLY, SEND_CACHE, SEND_DF, SEND_FLUSH, SEND_FUA, SEND_TRIM,
            SEND_WRITE_ZEROES,
        };
        let writing = match self.disk {
            Served::ReadOnly(_) => READ_ONLY,
            Served::Writable(_) => SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES,
        };
        let structured = if self.style == Style::Simple { 0 } else { SEND_DF };
        HAS_FLAGS | SEND_FLUSH | CAN_MULTI_CONN | SEND_CACHE | writing | structured
    }

    fn reply(&self, header: OptionHeader, answer: Answer, data: &[u8]) -> Result<(), ClientError> {
        Ok(self.outgoing.send(&wire::option_reply(header.code, answer, data))?)
    }

    fn refuse(&self, header: OptionHeader, answer: Answer, text: &str) -> Result<(), ClientError> {
        self.reply(header, answer, text.as_bytes())
    }
}
