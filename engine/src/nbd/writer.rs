//! Writing over one connection: changes in a window, and their replies in whatever order they come.
//!
//! Replies are short, and there are at most [`WRITES_IN_FLIGHT`] of them: any socket takes them without being read, so a
//! server that is being sent data never waits for its replies to be read.

use super::channel::Closer;
use super::connection::{Connection, Piece};
use super::error::{NbdError, ServerError};
use super::status::Areas;
use super::wire::{Chunk, ChunkHeader, ErrorChunk, ReplyHeader, Request, RequestKind, STATE_ZERO, WireError};
use crate::Extent;
use std::time::Duration;

/// Changes that are unanswered at one time: QEMU's servers look at 16 of a connection at once.
pub(crate) const WRITES_IN_FLIGHT: usize = 16;
/// Chunks in the reply to a change: one is enough.
const CHUNKS_MAX: usize = 16;

/// What one request does to a disk. It begins and ends at multiples of the smallest block, or ends at the disk's end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// Writes bytes, no more than the longest request has.
    Write(&'a [u8]),
    /// Makes so many bytes zero, below 4 GiB.
    Zero(u64),
}

impl Change<'_> {
    fn request(self) -> (RequestKind, &'static str, u64) {
        match self {
            Self::Write(data) => (RequestKind::Write, "write", data.len() as u64),
            Self::Zero(length) => (RequestKind::WriteZeroes, "zero", length),
        }
    }
}

/// A connection over which a disk is changed.
#[derive(Debug)]
pub(crate) struct Writer {
    connection: Connection,
    unanswered: Vec<Unanswered>,
}

/// A request that has no whole reply yet.
#[derive(Debug)]
struct Unanswered {
    cookie: u64,
    action: &'static str,
    offset: u64,
    length: u64,
    chunks: usize,
    failure: Option<ErrorChunk>,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, unanswered: Vec::new() }
    }

    /// What ends the connection from another thread.
    pub(crate) fn closer(&mut self) -> Result<Closer, NbdError> {
        self.connection.channel().closer()
    }

    /// Sends a change, at most [`WRITES_IN_FLIGHT`] of them. Returns by what its answer is known.
    pub(crate) fn send(&mut self, offset: u64, change: Change<'_>) -> Result<u64, NbdError> {
        let (kind, action, length) = change.request();
        let data = if let Change::Write(data) = change { data } else { &[] };
        self.ask(kind, (action, offset, length), data)
    }

    fn ask(
        &mut self,
        kind: RequestKind,
        (action, offset, length): (&'static str, u64, u64),
        data: &[u8],
    ) -> Result<u64, NbdError> {
        debug_assert!(self.unanswered.len() < WRITES_IN_FLIGHT, "there is room in the window");
        let cookie = self.connection.next_cookie();
        let mut head = Vec::new();
        Request { kind, cookie, offset, length }.encode(self.connection.agreed().style, &mut head);
        self.connection.channel().send_both(&head, data)?;
        self.unanswered.push(Unanswered { cookie, action, offset, length, chunks: 0, failure: None });
        Ok(cookie)
    }

    /// Waits until one of the changes that were sent is answered: which one, and how it ended. After an outer error the
    /// connection is of no more use.
    pub(crate) fn receive(&mut self) -> Result<(u64, Result<(), NbdError>), NbdError> {
        let (cookie, failure) = self.answer()?;
        Ok((cookie, failure.map_or(Ok(()), |(request, failure)| Err(self.failed(&request, failure)))))
    }

    /// Makes durable what was answered before, on any connection. Nothing may be unanswered.
    pub(crate) fn flush(
        &mut self,
        timeout: Duration,
        flush_timeout: Duration,
    ) -> Result<Result<(), NbdError>, NbdError> {
        debug_assert!(self.unanswered.is_empty(), "a flush comes after all that it is about");
        self.connection.channel().set_timeout(flush_timeout)?;
        self.ask(RequestKind::Flush, ("flush", 0, 0), &[])?;
        let (_, failure) = self.answer()?;
        self.connection.channel().set_timeout(timeout)?;
        let Some((_, ErrorChunk { error, message, .. })) = failure else { return Ok(Ok(())) };
        let place = self.connection.channel().place();
        Ok(Err(NbdError::NotDurable { place, error: ServerError(error), message }))
    }

    /// Gives up a range, below 4 GiB, and returns what of it does not read as zeros then, by what the server says: trimming
    /// itself promises nothing. Nothing may be unanswered.
    pub(crate) fn trim(
        &mut self,
        offset: u64,
        length: u64,
    ) -> Result<Result<Vec<Extent>, NbdError>, NbdError> {
        debug_assert!(self.unanswered.is_empty(), "only the answer to this is waited for");
        self.ask(RequestKind::Trim, ("trim", offset, length), &[])?;
        if let (_, Err(failure)) = self.receive()? {
            return Ok(Err(failure));
        }
        let Some(context) = self.connection.agreed().contexts.first().copied().flatten() else {
            return Ok(Ok(vec![Extent { start: offset, length }]));
        };
        let end = offset + length;
        let areas = Areas::unknown_between(offset, end, |state| state & STATE_ZERO == 0);
        let mut wanted = [(context, areas)];
        match self.connection.ask_states(end, &mut wanted) {
            Ok(()) => Ok(Ok(wanted.into_iter().flat_map(|(_, areas)| areas.into_areas()).collect())),
            Err(failure @ NbdError::Failed { .. }) => Ok(Err(failure)),
            Err(error) => Err(error),
        }
    }

    /// Reads while nothing is unanswered. After an outer error the connection is of no more use.
    pub(crate) fn read(&mut self, pieces: &mut [Piece<'_>]) -> Result<Result<(), NbdError>, NbdError> {
        debug_assert!(self.unanswered.is_empty(), "what is read must not be on its way");
        self.connection.read(pieces)
    }

    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    /// The next whole reply: to which request, and its failure.
    fn answer(&mut self) -> Result<(u64, Option<(Unanswered, ErrorChunk)>), NbdError> {
        loop {
            let header = self.connection.header()?;
            let (ReplyHeader::Simple { cookie, .. } | ReplyHeader::Chunk(ChunkHeader { cookie, .. })) =
                header;
            let position = self.unanswered.iter().position(|request| request.cookie == cookie);
            let Some(position) = position else {
                return Err(self.connection.channel().bad(WireError::UnknownCookie { cookie }));
            };
            let is_last = match header {
                ReplyHeader::Simple { error, .. } => {
                    let failure = ErrorChunk { error, message: String::new(), offset: None };
                    self.unanswered[position].failure = (error != 0).then_some(failure);
                    true
                }
                ReplyHeader::Chunk(header) => {
                    self.receive_chunk(header, position)?;
                    header.is_last
                }
            };
            if is_last {
                let mut request = self.unanswered.swap_remove(position);
                let failure = request.failure.take();
                return Ok((cookie, failure.map(|failure| (request, failure))));
            }
        }
    }

    fn receive_chunk(&mut self, header: ChunkHeader, position: usize) -> Result<(), NbdError> {
        let request = &mut self.unanswered[position];
        request.chunks += 1;
        if request.chunks > CHUNKS_MAX {
            let limit = CHUNKS_MAX as u64;
            return Err(self.bad(WireError::TooMany { what: "chunks in the reply to a write", limit }));
        }
        match header.chunk {
            Chunk::None => header.must_be(0).map_err(|error| self.bad(error)),
            Chunk::Error { has_offset } => {
                let failure = self.connection.error_chunk(header, has_offset)?;
                self.unanswered[position].failure.get_or_insert(failure);
                Ok(())
            }
            Chunk::Data | Chunk::Hole | Chunk::Status => {
                Err(self.bad(WireError::UnexpectedType { what: "the reply to a write", found: 1 }))
            }
        }
    }

    fn bad(&mut self, error: WireError) -> NbdError {
        self.connection.channel().bad(error)
    }

    fn failed(&mut self, request: &Unanswered, failure: ErrorChunk) -> NbdError {
        NbdError::Failed {
            place: self.connection.channel().place(),
            action: request.action,
            offset: failure.offset.unwrap_or(request.offset),
            length: request.length,
            error: ServerError(failure.error),
            message: failure.message,
        }
    }
}
