//! The server's answer on its way to the client.

use super::exchange::Failed;
use super::fault_proxy::Shared;
use super::http::{Body, Head};
use super::inbound::{Inbound, write};
use super::sockets::Sockets;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// What is done to an answer. Positions are those of [`Fault`](super::Fault).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerEdit {
    /// It passes.
    Pass,
    /// It is read and forgotten.
    Swallow,
    /// It ends after so many bytes of its body, and the connection with it.
    Cut { after: u64 },
    /// It goes no further after so many bytes of its body.
    Hold { after: u64 },
    /// A byte of its body is changed.
    Flip { at: u64 },
    /// It comes in drips.
    Drip { len: usize, pause: Duration },
}

/// What passes an answer on.
pub(crate) struct Answering<'a> {
    pub(crate) shared: &'a Shared,
    /// The number of the request.
    pub(crate) number: u64,
    pub(crate) to_head: bool,
    /// The request, if it is to be sent once more before the client has its answer. Such a one was read whole, so the
    /// client needs no word from the server to go on.
    pub(crate) copy: Option<&'a [u8]>,
    pub(crate) server: &'a mut Inbound,
    pub(crate) client: &'a TcpStream,
    pub(crate) edit: AnswerEdit,
}

impl Answering<'_> {
    /// Passes one answer on, with those before it that tell to go on sending. True if the server's connection is then
    /// at the end of an answer and stays open.
    pub(crate) fn run(mut self) -> Result<bool, Failed> {
        let head = self.head()?;
        if let Some(copy) = self.copy {
            self.shared.deliver(copy).map_err(|_| Failed::Server)?;
        }
        self.shared.deliver_due(self.number);
        let mut body = Body::of_answer(&head, self.to_head).map_err(|_| Failed::Server)?;
        let is_reusable = !head.closes() && !matches!(body, Body::UntilClose);
        let mut edit = Edit {
            what: self.edit,
            client: self.client,
            sockets: &self.shared.sockets,
            at: 0,
            position: self.position(&body),
            is_done: false,
        };
        if edit.stops() && body.is_done() {
            self.send(&head.bytes[..head.bytes.len() - 2])?;
            return Ok(is_reusable);
        }
        if body.is_done() {
            self.note_miss(&edit);
        }
        if self.edit != AnswerEdit::Swallow {
            self.send(&head.bytes)?;
        }
        while let Some((is_data, bytes)) = self.server.piece(&mut body).map_err(|_| Failed::Server)? {
            let is_last = body.is_done();
            // Before the client has the whole answer and may look.
            if is_last && !is_data && edit.misses() {
                self.shared.missed(self.number);
            }
            if !edit.pass(bytes, is_data, is_last).map_err(|_| Failed::Client)? {
                return Ok(is_reusable && is_last);
            }
        }
        self.note_miss(&edit);
        Ok(is_reusable)
    }

    fn note_miss(&self, edit: &Edit<'_>) {
        if edit.misses() {
            self.shared.missed(self.number);
        }
    }

    fn head(&mut self) -> Result<Head, Failed> {
        loop {
            let head = self.server.head().ok().flatten().ok_or(Failed::Server)?;
            if !matches!(head.status().map_err(|_| Failed::Server)?, 100..200) {
                return Ok(head);
            }
            if self.copy.is_none() {
                self.send(&head.bytes)?;
            }
        }
    }

    fn position(&self, body: &Body) -> u64 {
        let (AnswerEdit::Cut { after: position }
        | AnswerEdit::Hold { after: position }
        | AnswerEdit::Flip { at: position }) = self.edit
        else {
            return 0;
        };
        body.len().and_then(|len| position.checked_rem(len)).unwrap_or(position)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Failed> {
        write(self.client, bytes).map_err(|_| Failed::Client)
    }
}

/// What is done to the bytes of a body as they pass.
struct Edit<'a> {
    what: AnswerEdit,
    client: &'a TcpStream,
    /// Ends a pause when all ends.
    sockets: &'a Sockets,
    /// The position of the next byte of the body.
    at: u64,
    /// The one that something is done at.
    position: u64,
    /// Whether it was done.
    is_done: bool,
}

impl Edit<'_> {
    fn stops(&self) -> bool {
        matches!(self.what, AnswerEdit::Cut { .. } | AnswerEdit::Hold { .. })
    }

    /// Whether a byte that is to be changed has not come.
    fn misses(&self) -> bool {
        matches!(self.what, AnswerEdit::Flip { .. }) && !self.is_done
    }

    /// Passes some bytes on; false if none must follow.
    fn pass(&mut self, bytes: &mut [u8], is_data: bool, is_last: bool) -> io::Result<bool> {
        // Where the position is in these bytes.
        let here = (is_data && self.at <= self.position)
            .then(|| usize::try_from(self.position - self.at).ok())
            .flatten()
            .filter(|here| *here < bytes.len());
        match (self.what, here) {
            (AnswerEdit::Swallow, _) => {}
            (AnswerEdit::Cut { .. } | AnswerEdit::Hold { .. }, Some(here)) => {
                write(self.client, &bytes[..here])?;
                return Ok(false);
            }
            // The end of the chunks: without it the client knows that something is missing.
            (AnswerEdit::Cut { .. } | AnswerEdit::Hold { .. }, None) if is_last => return Ok(false),
            (AnswerEdit::Drip { len, pause }, _) if is_data => {
                for drip in bytes.chunks(len.max(1)) {
                    write(self.client, drip)?;
                    self.sockets.pause(pause);
                }
            }
            (AnswerEdit::Flip { .. }, Some(here)) => {
                bytes[here] ^= 1;
                self.is_done = true;
                write(self.client, bytes)?;
            }
            _ => write(self.client, bytes)?,
        }
        if is_data {
            self.at += bytes.len() as u64;
        }
        Ok(true)
    }
}
