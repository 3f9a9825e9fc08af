//! Requests and replies.

use super::channel::{Incoming, Outgoing};
use super::export::Failure;
use super::handshake::BLOCK_MAX;
use super::handshake::Terms;
use super::pool::{Pool, Room};
use super::wire::{ALLOCATION_ID, Command, Errno, REQUEST_LEN_MAX, Reply, Request, STATE_HOLE_AND_ZERO};
use super::{ClientError, Server, ServerEvent};
use crate::nbd::wire::{Style, WireError};
use crate::view::{Area, AreaKind, Cached};
use std::sync::atomic::{AtomicBool, Ordering};

/// Requests that are answered by whoever reads them, if everything is in memory: a copy of so much takes less than handing
/// it over.
const AT_ONCE_MAX: u64 = 256 << 10;
/// What a reply has beside its data, at most.
const REPLY_BESIDE: usize = 4096;
/// Shorter holes are sent as zeros.
const HOLE_MIN: u64 = 4096;
/// The most parts of a reply to a read, and the most states in an answer.
const PARTS_MAX: usize = 64;
const STATES_MAX: usize = 4096;

/// A request with its data, and the room that they have in memory.
struct Task<'p> {
    request: Request,
    data: Vec<u8>,
    room: Option<Room<'p, ()>>,
}

impl Server<'_, '_, '_, '_> {
    /// Answers requests until the client says that it leaves, or is gone.
    pub(super) fn transmit(
        &self,
        mut incoming: Incoming,
        outgoing: &Outgoing,
        terms: Terms,
        client: &str,
    ) -> Result<(), ClientError> {
        let style = terms.style;
        // Two of them, so that tasks can hold room of the one while they wait in the other.
        let (room, tasks) = (Pool::<()>::new(), Pool::<Task<'_>>::new());
        let is_gone = AtomicBool::new(false);
        let work = |task: Task<'_>| {
            // Nobody waits for what a client asked for that cannot be told.
            if !is_gone.load(Ordering::Relaxed) {
                let reply = self.reply(terms, &task.request, &task.data, client);
                is_gone.fetch_or(outgoing.send(&reply).is_err(), Ordering::Relaxed);
            }
            drop(task.room);
        };
        std::thread::scope(|scope| {
            let _complete = Complete(&tasks);
            loop {
                let mut header = [0; REQUEST_LEN_MAX];
                let header = &mut header[..Request::len(style)];
                if !incoming.fill_or_end(header)? {
                    return Ok(());
                }
                let request = Request::parse(style, header)?;
                if request.command == Command::Disconnect {
                    return Ok(());
                }
                let is_write = request.command == Command::Write;
                if is_write && request.length > BLOCK_MAX.into() {
                    // Nothing says how its data could be passed over in a bounded time.
                    return Err(WireError::TooLong {
                        what: "a request to write",
                        length: request.length,
                        limit: BLOCK_MAX.into(),
                    }
                    .into());
                }
                let carries = matches!(request.command, Command::Read | Command::Write);
                let reserved = room.reserve(if carries { request.length.min(BLOCK_MAX.into()) } else { 0 });
                let mut data = Vec::new();
                if is_write {
                    data.resize(usize::try_from(request.length).expect("it was found to be short"), 0);
                    incoming.fill(&mut data)?;
                }
                if let Some(reply) = self.reply_at_once(style, &request) {
                    outgoing.send(&reply)?;
                    continue;
                }
                tasks.submit(scope, Task { request, data, room: Some(reserved) }, work);
            }
        })
    }

    /// The reply to a short read of what is in memory.
    fn reply_at_once(&self, style: Style, request: &Request) -> Option<Vec<u8>> {
        let is_short =
            request.command == Command::Read && request.length <= AT_ONCE_MAX && request.length > 0;
        if !is_short || !request.has_fitting_flags() {
            return None;
        }
        let len = usize::try_from(request.length).expect("it is short");
        let mut reply = Reply::new(style, request, len + REPLY_BESIDE);
        if style == Style::Simple {
            reply.simple(0);
        }
        let begun = reply.message.len();
        // What fails is tried again by the way that tells why.
        let buffer = reply.data(true, request.offset, len);
        let cached = self.disk.read_cached(request.offset, buffer).ok()?;
        match cached {
            Cached::Absent => return None,
            Cached::Zeros if style != Style::Simple => {
                reply.message.truncate(begun);
                reply.hole(true, request.offset, u32::try_from(request.length).expect("it is short"));
            }
            Cached::Zeros | Cached::Data => {}
        }
        self.count_read(request.length);
        Some(reply.message)
    }

    /// Does what a request asks for.
    fn reply(&self, terms: Terms, request: &Request, data: &[u8], client: &str) -> Vec<u8> {
        let style = terms.style;
        let done = self.checked(request).and_then(|()| match request.command {
            Command::Read => self.read(style, request),
            Command::BlockStatus if terms.has_context => self.states(style, request),
            Command::BlockStatus => Err(Failure::new(Errno::Invalid, "no context was agreed on")),
            _ => self.change(request, data).map(|()| Reply::done(style, request)),
        });
        done.unwrap_or_else(|Failure { errno, text, is_damage }| {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            self.counts.damaged.fetch_add(u64::from(is_damage), Ordering::Relaxed);
            (self.events)(ServerEvent::Failed { client, text: &text, is_damage });
            Reply::failed(style, request, errno, &text)
        })
    }

    fn checked(&self, request: &Request) -> Result<(), Failure> {
        if !request.has_fitting_flags() {
            return Err(Failure::new(Errno::Invalid, "the request has flags that it cannot have"));
        }
        if request.command == Command::Flush {
            return Ok(());
        }
        let end = request.offset.checked_add(request.length);
        if end.is_none_or(|end| end > self.disk.size()) {
            let errno = match request.command {
                Command::Write | Command::WriteZeroes => Errno::NoSpace,
                _ => Errno::Invalid,
            };
            return Err(Failure::new(errno, "the request reaches beyond the end of the disk"));
        }
        Ok(())
    }

    fn count_read(&self, length: u64) {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.read_bytes.fetch_add(length, Ordering::Relaxed);
    }

    fn read(&self, style: Style, request: &Request) -> Result<Vec<u8>, Failure> {
        if request.length > BLOCK_MAX.into() {
            return Err(Failure::new(Errno::TooLong, "at most 32 MiB are read at a time"));
        }
        let (start, end) = (request.offset, request.offset + request.length);
        let is_one = style == Style::Simple || request.is_whole() || request.length < HOLE_MIN;
        let areas = if is_one { Vec::new() } else { self.disk.areas(start, end, PARTS_MAX)? };
        let parts = parts(start, end, &areas);
        let data: u64 =
            parts.iter().filter(|part| part.kind == AreaKind::Data).map(|part| part.extent.length).sum();
        let data = usize::try_from(data).expect("a request is short");
        let mut reply = Reply::new(style, request, data + REPLY_BESIDE);
        if style == Style::Simple {
            reply.simple(0);
        }
        for (position, part) in parts.iter().enumerate() {
            let is_last = position + 1 == parts.len();
            let length = u32::try_from(part.extent.length).expect("a request is short");
            match part.kind {
                AreaKind::Hole => reply.hole(is_last, part.extent.start, length),
                AreaKind::Data => {
                    let buffer = reply.data(is_last, part.extent.start, length as usize);
                    self.disk.read_at(part.extent.start, buffer)?;
                }
            }
        }
        if parts.is_empty() && style != Style::Simple {
            reply.message = Reply::done(style, request);
        }
        self.count_read(request.length);
        Ok(reply.message)
    }

    fn states(&self, style: Style, request: &Request) -> Result<Vec<u8>, Failure> {
        if request.length == 0 {
            return Err(Failure::new(Errno::Invalid, "states are told of ranges that are not empty"));
        }
        let count = if request.wants_one() { 1 } else { STATES_MAX };
        let areas = self.disk.areas(request.offset, request.offset + request.length, count)?;
        let states: Vec<(u64, u64)> = areas
            .iter()
            .map(|area| {
                let state = if area.kind == AreaKind::Hole { STATE_HOLE_AND_ZERO } else { 0 };
                (area.extent.length, state)
            })
            .collect();
        let mut reply = Reply::new(style, request, REPLY_BESIDE + 16 * states.len());
        reply.status(ALLOCATION_ID, &states);
        Ok(reply.message)
    }

    /// Does what has no data to answer with.
    fn change(&self, request: &Request, data: &[u8]) -> Result<(), Failure> {
        let (offset, length) = (request.offset, request.length);
        match request.command {
            Command::Write => self.disk.overlay()?.write_at(offset, data)?,
            Command::WriteZeroes => self.disk.overlay()?.zero_at(offset, length)?,
            Command::Trim => self.disk.overlay()?.discard(offset, length)?,
            Command::Cache => self.disk.view().prefetch(offset, length),
            // There is nothing that could be lost of a disk that is only read.
            Command::Flush => self.disk.flush()?,
            _ => return Err(Failure::new(Errno::NotSupported, "the request is not known")),
        }
        if matches!(request.command, Command::Write | Command::WriteZeroes | Command::Trim) {
            self.counts.writes.fetch_add(1, Ordering::Relaxed);
            self.counts.written_bytes.fetch_add(length, Ordering::Relaxed);
            if request.is_forced() {
                self.disk.flush()?;
            }
        }
        Ok(())
    }
}

/// A range as parts that are sent in one way each; what is not told of is data.
fn parts(start: u64, end: u64, areas: &[Area]) -> Vec<Area> {
    let mut parts = Vec::new();
    let mut at = start;
    for hole in areas.iter().filter(|area| area.kind == AreaKind::Hole && area.extent.length >= HOLE_MIN) {
        crate::view::add(&mut parts, at, hole.extent.start, AreaKind::Data);
        parts.push(*hole);
        at = hole.extent.end();
    }
    crate::view::add(&mut parts, at, end, AreaKind::Data);
    parts
}

/// Lets the threads of a pool end, however its tasks' end comes.
struct Complete<'p, T: Send>(&'p Pool<T>);

impl<T: Send> Drop for Complete<'_, T> {
    fn drop(&mut self) {
        self.0.complete();
    }
}
