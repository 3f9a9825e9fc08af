//! Which blocks of a disk are in a state: not zero, or dirty.
//!
//! A server answers for as much as it likes of what is asked, so one asks again until all is known. What comes to more
//! than [`AREAS_MAX`] areas, [`STATES_MAX`] states or [`QUESTIONS_MAX`] questions is not gone through: the rest of the
//! disk is taken as being in the state, which costs reading it and is never wrong. An area takes 16 bytes.

use super::connection::Connection;
use super::error::{NbdError, ServerError};
use super::wire::{
    Chunk, ChunkHeader, Descriptor, ErrorChunk, ReplyHeader, Request, RequestKind, StatusHead, Style,
    WireError,
};
use crate::Extent;

/// Areas that are told apart: 64 MiB of them.
const AREAS_MAX: usize = 4 << 20;
/// States that are read for one context, of eight or sixteen bytes each.
const STATES_MAX: u64 = 32 << 20;
/// Questions for one disk. One of 62 TiB takes 16 thousand of the largest.
const QUESTIONS_MAX: u32 = 64 << 10;
/// What is asked for at once, where a length has 32 bits: the longest that is a whole number of any blocks.
const QUESTION_LEN_MAX: u64 = (1 << 32) - (64 << 10);
/// Chunks in the answer to one question: one for each of two contexts, and some that tell nothing.
const CHUNKS_MAX: u64 = 16;
/// States in one chunk: more than any server sends, which is a million.
const CHUNK_STATES_MAX: u64 = 8 << 20;
/// States are read from the socket so many at a time.
const STATES_READ: u64 = 512;

/// The blocks of one context that are in a state, as far as they are known.
#[derive(Debug)]
pub(super) struct Areas {
    size: u64,
    /// Everything before it is known.
    known_until: u64,
    found: Vec<Extent>,
    states: u64,
    in_state: fn(u64) -> bool,
    limits: Limits,
}

/// Where one stops asking.
#[derive(Clone, Copy, Debug)]
struct Limits {
    areas: usize,
    states: u64,
    questions: u32,
}

const LIMITS: Limits = Limits { areas: AREAS_MAX, states: STATES_MAX, questions: QUESTIONS_MAX };

impl Areas {
    /// Nothing is known yet of a disk. `in_state` tells whether a block with some flags is in the state.
    pub(super) fn unknown(size: u64, in_state: fn(u64) -> bool) -> Self {
        Self { size, known_until: 0, found: Vec::new(), states: 0, in_state, limits: LIMITS }
    }

    /// The same from `start` to `end`.
    pub(super) fn unknown_between(start: u64, end: u64, in_state: fn(u64) -> bool) -> Self {
        Self { known_until: start, ..Self::unknown(end, in_state) }
    }

    /// The areas, sorted, with gaps between.
    pub(super) fn into_areas(self) -> Vec<Extent> {
        self.found
    }

    /// Adds the state of the blocks from `start` on. What is known already is passed over.
    fn add(&mut self, start: u64, descriptor: Descriptor) -> Result<(), WireError> {
        let Descriptor { length, state } = descriptor;
        let end = start.checked_add(length).filter(|end| *end > start);
        let end = end.ok_or(WireError::StatusLength { offset: start, length })?.min(self.size);
        self.states += 1;
        if self.states > self.limits.states && self.known_until < self.size {
            self.take_rest(self.known_until);
        }
        if end <= self.known_until {
            return Ok(());
        }
        let start = std::mem::replace(&mut self.known_until, end);
        if (self.in_state)(state) {
            self.push(start, end);
        }
        Ok(())
    }

    fn push(&mut self, start: u64, end: u64) {
        let is_full = self.found.len() == self.limits.areas;
        match self.found.last_mut() {
            Some(last) if last.end() == start => last.length = end - last.start,
            _ if is_full => self.take_rest(start),
            _ => self.found.extend(Extent::between(start, end)),
        }
    }

    /// Takes all from `start` on as being in the state.
    fn take_rest(&mut self, start: u64) {
        self.known_until = self.size;
        let is_full = self.found.len() == self.limits.areas;
        match self.found.last_mut() {
            Some(last) if is_full || last.end() == start => last.length = self.size - last.start,
            _ => self.found.extend(Extent::between(start, self.size)),
        }
    }
}

impl Connection {
    /// Asks for the states of all blocks in some contexts, by their ids, until `size`.
    pub(super) fn ask_states(&mut self, size: u64, wanted: &mut [(u32, Areas)]) -> Result<(), NbdError> {
        let mut questions = 0;
        while let Some(from) = wanted.iter().map(|(_, areas)| areas.known_until).min()
            && from < size
        {
            if wanted.iter().any(|(_, areas)| questions >= areas.limits.questions) {
                for (_, areas) in wanted.iter_mut() {
                    areas.take_rest(areas.known_until);
                }
                break;
            }
            questions += 1;
            let length = match self.agreed().style {
                Style::Extended => size - from,
                Style::Simple | Style::Structured => QUESTION_LEN_MAX.min(size - from),
            };
            self.ask_states_from(from, length, wanted)?;
        }
        Ok(())
    }

    fn ask_states_from(
        &mut self,
        from: u64,
        length: u64,
        wanted: &mut [(u32, Areas)],
    ) -> Result<(), NbdError> {
        let cookie = self.next_cookie();
        let mut message = Vec::new();
        Request { kind: RequestKind::BlockStatus, cookie, offset: from, length }
            .encode(self.agreed().style, &mut message);
        self.channel().send(&message)?;
        let mut failure = None;
        for _ in 0..CHUNKS_MAX {
            let (told_cookie, is_last) = match self.header()? {
                ReplyHeader::Simple { error, cookie } => {
                    if error != 0 {
                        failure = Some(ErrorChunk { error, message: String::new(), offset: None });
                    }
                    (cookie, true)
                }
                ReplyHeader::Chunk(header) => {
                    if header.cookie == cookie {
                        self.receive_states(header, from, wanted, &mut failure)?;
                    }
                    (header.cookie, header.is_last)
                }
            };
            if told_cookie != cookie {
                return Err(self.channel().bad(WireError::UnknownCookie { cookie: told_cookie }));
            }
            if !is_last {
                continue;
            }
            if let Some(ErrorChunk { error, message, offset }) = failure {
                return Err(NbdError::Failed {
                    place: self.channel().place(),
                    action: "tell the state of",
                    offset: offset.unwrap_or(from),
                    length,
                    error: ServerError(error),
                    message,
                });
            }
            if wanted.iter().any(|(_, areas)| areas.known_until <= from) {
                return Err(self.channel().bad(WireError::NoStatus { offset: from }));
            }
            return Ok(());
        }
        let limit = CHUNKS_MAX;
        Err(self
            .channel()
            .bad(WireError::TooMany { what: "chunks in a reply about the state of blocks", limit }))
    }

    fn receive_states(
        &mut self,
        header: ChunkHeader,
        from: u64,
        wanted: &mut [(u32, Areas)],
        failure: &mut Option<ErrorChunk>,
    ) -> Result<(), NbdError> {
        match header.chunk {
            Chunk::None => header.must_be(0).map_err(|error| self.channel().bad(error)),
            Chunk::Error { has_offset } => {
                let told = self.error_chunk(header, has_offset)?;
                failure.get_or_insert(told);
                Ok(())
            }
            Chunk::Status => self.receive_descriptors(header, from, wanted),
            Chunk::Data | Chunk::Hole => {
                let what = "the reply to a question for the state of blocks";
                Err(self.channel().bad(WireError::UnexpectedType { what, found: 1 }))
            }
        }
    }

    fn receive_descriptors(
        &mut self,
        header: ChunkHeader,
        mut from: u64,
        wanted: &mut [(u32, Areas)],
    ) -> Result<(), NbdError> {
        let style = self.agreed().style;
        let mut left = header.descriptors(style).map_err(|error| self.channel().bad(error))?;
        if left > CHUNK_STATES_MAX {
            let what = "states in one chunk of a reply";
            return Err(self.channel().bad(WireError::TooMany { what, limit: CHUNK_STATES_MAX }));
        }
        let head = self.channel().bytes(StatusHead::len(style))?;
        let head = StatusHead::parse(style, &head, left).map_err(|error| self.channel().bad(error))?;
        let areas = wanted.iter_mut().find(|(id, _)| *id == head.context);
        let (_, areas) = areas.ok_or_else(|| self.channel().bad(WireError::OtherContext))?;
        while left > 0 {
            let count = left.min(STATES_READ);
            left -= count;
            let count = usize::try_from(count).expect("it is a few hundred");
            let bytes = self.channel().bytes(count * Descriptor::len(style))?;
            for bytes in bytes.chunks_exact(Descriptor::len(style)) {
                let added = Descriptor::parse(style, bytes)
                    .and_then(|state| areas.add(from, state).map(|()| from.saturating_add(state.length)));
                from = added.map_err(|error| self.channel().bad(error))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas(size: u64, limits: Limits, told: &[(u64, u64)]) -> (u64, Vec<Extent>) {
        let mut areas = Areas { limits, ..Areas::unknown(size, |state| state & 1 != 0) };
        let mut start = 0;
        for &(length, state) in told {
            areas.add(start, Descriptor { length, state }).unwrap();
            start += length;
        }
        (areas.known_until, areas.into_areas())
    }

    fn extent(start: u64, end: u64) -> Extent {
        Extent::between(start, end).unwrap()
    }

    #[test]
    fn neighbours_in_the_state_are_joined_and_the_disk_ends_where_it_ends() {
        let told = [(10, 1), (10, 3), (5, 2), (5, 0), (1 << 40, 1)];
        assert_eq!(areas(100, LIMITS, &told), (100, vec![extent(0, 20), extent(30, 100)]));
        assert_eq!(areas(100, LIMITS, &told[..2]), (20, vec![extent(0, 20)]));
        assert_eq!(areas(100, LIMITS, &[]), (0, vec![]));
    }

    #[test]
    fn what_was_told_before_is_passed_over() {
        let mut areas = Areas::unknown(100, |state| state == 1);
        areas.add(0, Descriptor { length: 50, state: 1 }).unwrap();
        areas.add(20, Descriptor { length: 30, state: 0 }).unwrap();
        areas.add(20, Descriptor { length: 40, state: 0 }).unwrap();
        assert_eq!((areas.known_until, areas.into_areas()), (60, vec![extent(0, 50)]));
    }

    #[test]
    fn a_state_of_nothing_and_one_without_an_end_are_refused() {
        let mut areas = Areas::unknown(100, |_| true);
        for (start, length) in [(0, 0), (10, u64::MAX)] {
            let error = areas.add(start, Descriptor { length, state: 0 });
            assert_eq!(error, Err(WireError::StatusLength { offset: start, length }));
        }
        assert_eq!(areas.known_until, 0);
    }

    #[test]
    fn the_rest_is_taken_where_there_is_too_much_to_tell_apart() {
        let told = [(1, 1), (1, 0), (1, 1), (1, 0), (1, 1), (1, 0)];
        let few_areas = Limits { areas: 2, ..LIMITS };
        assert_eq!(areas(100, few_areas, &told), (100, vec![extent(0, 1), extent(2, 100)]));
        let few_states = Limits { states: 3, ..LIMITS };
        assert_eq!(areas(100, few_states, &told), (100, vec![extent(0, 1), extent(2, 100)]));
        let fewer_states = Limits { states: 1, ..LIMITS };
        assert_eq!(areas(100, fewer_states, &told), (100, vec![extent(0, 100)]));
    }
}
