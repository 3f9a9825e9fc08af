//! One connection: requests in a window, and their replies in whatever order they come.
//!
//! Whoever has the connection writes and reads it: there is no other thread. What is unanswered is at most
//! [`REQUESTS_IN_FLIGHT`] requests of 32 bytes, which any socket takes without being read, so that writing never waits
//! for a server that itself waits for its replies to be read.

use super::channel::Channel;
use super::error::{NbdError, ServerError};
use super::handshake::{Agreed, ask_for_tls, greet, open_export};
use super::tls::Tls;
use super::wire::{
    Chunk, ChunkHeader, ErrorChunk, HOLE_LEN, ReplyHeader, Request, RequestKind, Style, WireError, parse_hole,
};

/// Requests that are unanswered at one time: QEMU's servers look at 16 of a connection at once.
const REQUESTS_IN_FLIGHT: usize = 16;
/// The most chunks in which one read is answered: one for each sector, and a few that tell nothing.
const SECTOR_LEN: usize = 512;
const CHUNKS_BESIDE: usize = 16;

/// A connection, on which an export was opened.
#[derive(Debug)]
pub(super) struct Connection {
    channel: Channel,
    agreed: Agreed,
    next_cookie: u64,
}

/// A part of the disk that is read with one request, and where its bytes go.
pub(crate) struct Piece<'a> {
    offset: u64,
    buffer: &'a mut [u8],
    answer: Answer,
}

/// How far a request was answered.
#[derive(Default)]
enum Answer {
    #[default]
    NotAsked,
    Begun(Begun),
    Whole,
}

/// What came of an answer.
#[derive(Default)]
struct Begun {
    chunks: usize,
    /// The bytes that came, of the buffer: sorted, with gaps between.
    present: Vec<(usize, usize)>,
    failure: Option<ErrorChunk>,
}

impl<'a> Piece<'a> {
    pub(crate) fn new(offset: u64, buffer: &'a mut [u8]) -> Self {
        Self { offset, buffer, answer: Answer::NotAsked }
    }

    /// Whether its bytes are there.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.answer, Answer::Whole)
    }

    /// Forgets what came, to ask on another connection.
    pub(super) fn begin_anew(&mut self) {
        self.answer = Answer::NotAsked;
    }

    fn length(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// The range of the buffer that a chunk is about, which must not have come before.
    fn take(&mut self, offset: u64, length: u64) -> Result<&mut [u8], WireError> {
        let outside = || WireError::Outside {
            offset,
            length,
            asked_offset: self.offset,
            asked_length: self.buffer.len() as u64,
        };
        let start = offset.checked_sub(self.offset).ok_or_else(outside)?;
        let end = start.checked_add(length).filter(|end| *end <= self.buffer.len() as u64 && length > 0);
        let end = usize::try_from(end.ok_or_else(outside)?).expect("it is within a buffer");
        let start = usize::try_from(start).expect("it is within a buffer");
        let Answer::Begun(begun) = &mut self.answer else {
            unreachable!("chunks are taken for requests that wait for an answer")
        };
        if !begun.add(start, end) {
            return Err(WireError::Overlap { offset });
        }
        Ok(&mut self.buffer[start..end])
    }
}

impl Begun {
    /// Adds a range; false if some of it is present.
    fn add(&mut self, start: usize, end: usize) -> bool {
        let next = self.present.partition_point(|(from, _)| *from < start);
        let joins_before = match next.checked_sub(1).map(|before| self.present[before].1) {
            Some(until) if until > start => return false,
            until => until == Some(start),
        };
        let joins_behind = match self.present.get(next) {
            Some((from, _)) if *from < end => return false,
            behind => behind.is_some_and(|(from, _)| *from == end),
        };
        match (joins_before, joins_behind) {
            (true, true) => {
                self.present[next - 1].1 = self.present[next].1;
                self.present.remove(next);
            }
            (true, false) => self.present[next - 1].1 = end,
            (false, true) => self.present[next].0 = start,
            (false, false) => self.present.insert(next, (start, end)),
        }
        true
    }

    fn bytes(&self) -> u64 {
        self.present.iter().map(|(start, end)| (end - start) as u64).sum()
    }
}

impl Connection {
    /// Opens an export, with the contexts that are there of some. Nothing of it goes over the wire before TLS does, if
    /// it is wanted.
    pub(super) fn open(
        mut channel: Channel,
        tls: Option<&Tls>,
        export: &str,
        contexts: &[&str],
    ) -> Result<Self, NbdError> {
        let flags = greet(&mut channel)?;
        if let Some(tls) = tls {
            ask_for_tls(&mut channel, flags)?;
            channel = channel.encrypted(tls)?;
        }
        let agreed = open_export(&mut channel, flags, export, contexts)?;
        Ok(Self { channel, agreed, next_cookie: 0 })
    }

    pub(super) fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    pub(super) fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// Reads all pieces, each no longer than the server allows. When the server fails one, no more are asked for, and
    /// the first failure is the inner error; the connection is as good as before. It is not after an outer error.
    pub(super) fn read(&mut self, pieces: &mut [Piece<'_>]) -> Result<Result<(), NbdError>, NbdError> {
        let first_cookie = self.next_cookie;
        self.next_cookie = self.next_cookie.wrapping_add(pieces.len() as u64);
        let (mut asked, mut waiting, mut failure) = (0, 0, None);
        loop {
            // Half a window at a time, so that requests share their way into the socket.
            if failure.is_none() && waiting <= REQUESTS_IN_FLIGHT / 2 && asked < pieces.len() {
                let until = pieces.len().min(asked + REQUESTS_IN_FLIGHT - waiting);
                self.ask(&mut pieces[asked..until], first_cookie.wrapping_add(asked as u64))?;
                waiting += until - asked;
                asked = until;
            }
            if waiting == 0 {
                return Ok(failure.map_or(Ok(()), Err));
            }
            if let Some(ended) = self.receive(first_cookie, pieces)? {
                waiting -= 1;
                failure = failure.or(ended.err());
            }
        }
    }

    fn ask(&mut self, pieces: &mut [Piece<'_>], first_cookie: u64) -> Result<(), NbdError> {
        let mut message = Vec::new();
        for (piece, position) in pieces.iter_mut().zip(0..) {
            piece.answer = Answer::Begun(Begun::default());
            let cookie = first_cookie.wrapping_add(position);
            let (offset, length) = (piece.offset, piece.length());
            Request { kind: RequestKind::Read, cookie, offset, length }
                .encode(self.agreed.style, &mut message);
        }
        self.channel.send(&message)
    }

    /// Reads a reply or a part of one. Returns how the request ended, if that was all.
    fn receive(
        &mut self,
        first_cookie: u64,
        pieces: &mut [Piece<'_>],
    ) -> Result<Option<Result<(), NbdError>>, NbdError> {
        let header = self.header()?;
        let cookie = match header {
            ReplyHeader::Simple { cookie, .. } | ReplyHeader::Chunk(ChunkHeader { cookie, .. }) => cookie,
        };
        let position = usize::try_from(cookie.wrapping_sub(first_cookie)).ok();
        let piece = position.and_then(|position| pieces.get_mut(position));
        let piece = piece.filter(|piece| matches!(piece.answer, Answer::Begun(_)));
        let piece = piece.ok_or_else(|| self.channel.bad(WireError::UnknownCookie { cookie }))?;
        match header {
            ReplyHeader::Simple { error, .. } => self.receive_simple(error, piece).map(Some),
            ReplyHeader::Chunk(header) => {
                self.receive_chunk(header, piece)?;
                if header.is_last { self.end(piece).map(Some) } else { Ok(None) }
            }
        }
    }

    fn receive_simple(
        &mut self,
        error: u32,
        piece: &mut Piece<'_>,
    ) -> Result<Result<(), NbdError>, NbdError> {
        if self.agreed.style != Style::Simple {
            return Err(self.channel.bad(WireError::NotStructured));
        }
        if error != 0 {
            let failure = ErrorChunk { error, message: String::new(), offset: None };
            return Ok(Err(self.failed(piece, failure)));
        }
        self.channel.fill(piece.buffer)?;
        piece.answer = Answer::Whole;
        Ok(Ok(()))
    }

    fn receive_chunk(&mut self, header: ChunkHeader, piece: &mut Piece<'_>) -> Result<(), NbdError> {
        let chunks_max = piece.buffer.len() / SECTOR_LEN + CHUNKS_BESIDE;
        let Answer::Begun(begun) = &mut piece.answer else {
            unreachable!("only requests that wait for an answer are looked for")
        };
        begun.chunks += 1;
        if begun.chunks > chunks_max {
            let limit = chunks_max as u64;
            return Err(self.channel.bad(WireError::TooMany { what: "chunks in a reply", limit }));
        }
        match header.chunk {
            Chunk::None => header.must_be(0).map_err(|error| self.channel.bad(error)),
            Chunk::Data => {
                let length = header.data_length().map_err(|error| self.channel.bad(error))?;
                let offset = u64::from_be_bytes(self.channel.array()?);
                let buffer = piece.take(offset, length).map_err(|error| self.channel.bad(error))?;
                self.channel.fill(buffer)
            }
            Chunk::Hole => {
                header.must_be(HOLE_LEN).map_err(|error| self.channel.bad(error))?;
                let hole = parse_hole(self.channel.array()?);
                let zeros = hole.and_then(|(offset, length)| piece.take(offset, length));
                zeros.map_err(|error| self.channel.bad(error))?.fill(0);
                Ok(())
            }
            Chunk::Error { has_offset } => {
                let failure = self.error_chunk(header, has_offset)?;
                begun.failure.get_or_insert(failure);
                Ok(())
            }
            Chunk::Status => {
                Err(self.channel.bad(WireError::UnexpectedType { what: "the reply to a read", found: 5 }))
            }
        }
    }

    /// What came of a request whose last chunk was read.
    fn end(&self, piece: &mut Piece<'_>) -> Result<Result<(), NbdError>, NbdError> {
        let Answer::Begun(begun) = std::mem::take(&mut piece.answer) else {
            unreachable!("only requests that wait for an answer end")
        };
        if let Some(failure) = begun.failure {
            return Ok(Err(self.failed(piece, failure)));
        }
        let (asked, told) = (piece.length(), begun.bytes());
        if told != asked {
            return Err(self.channel.bad(WireError::Incomplete { offset: piece.offset, asked, told }));
        }
        piece.answer = Answer::Whole;
        Ok(Ok(()))
    }

    fn failed(&self, piece: &Piece<'_>, failure: ErrorChunk) -> NbdError {
        NbdError::Failed {
            place: self.channel.place(),
            action: "read",
            offset: failure.offset.unwrap_or(piece.offset),
            length: piece.length(),
            error: ServerError(failure.error),
            message: failure.message,
        }
    }

    pub(super) fn header(&mut self) -> Result<ReplyHeader, NbdError> {
        let style = self.agreed.style;
        let channel = &mut self.channel;
        let read = ReplyHeader::read(style, |buffer| channel.fill(buffer).map_err(Unread::Channel));
        read.map_err(|error| match error {
            Unread::Channel(error) => error,
            Unread::Wire(error) => self.channel.bad(error),
        })
    }

    pub(super) fn error_chunk(
        &mut self,
        header: ChunkHeader,
        has_offset: bool,
    ) -> Result<ErrorChunk, NbdError> {
        let length = header.error_length().map_err(|error| self.channel.bad(error))?;
        let bytes = self.channel.bytes(length)?;
        ErrorChunk::parse(&bytes, has_offset).map_err(|error| self.channel.bad(error))
    }

    pub(super) fn next_cookie(&mut self) -> u64 {
        let cookie = self.next_cookie;
        self.next_cookie = cookie.wrapping_add(1);
        cookie
    }

    /// Says goodbye, so that the server need not take the end for a failure. Whether it hears that changes nothing.
    pub(super) fn close(mut self) {
        let cookie = self.next_cookie();
        let mut message = Vec::new();
        Request { kind: RequestKind::Disconnect, cookie, offset: 0, length: 0 }
            .encode(self.agreed.style, &mut message);
        let _ = self.channel.send(&message);
    }
}

/// Why a header was not read.
enum Unread {
    Channel(NbdError),
    Wire(WireError),
}

impl From<WireError> for Unread {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}
