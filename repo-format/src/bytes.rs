//! Fields to bytes and back (SPEC section 1): little-endian, bounded, without padding.

use crate::error::FormatError;
use crate::ids::{PayloadId, SessionId, VmTag, WriterId};
use crate::name::DecisionName;

/// A session id and a writer of one character.
const OWNED_SESSION_LEN_MIN: usize = 16 + 2;

/// Reads fields from the front of a byte string, and never beyond its end.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn str8(&mut self) -> Result<&'a str, FormatError> {
        let len = self.u8()?;
        self.text(usize::from(len))
    }

    pub(crate) fn str16(&mut self) -> Result<&'a str, FormatError> {
        let len = self.u16()?;
        self.text(usize::from(len))
    }

    fn text(&mut self, len: usize) -> Result<&'a str, FormatError> {
        std::str::from_utf8(self.take(len)?).map_err(|_| FormatError::BadText)
    }

    /// Reads a `u32` count of items and checks that so many of them, `item_len` bytes at least each, can follow.
    pub(crate) fn count(&mut self, item_len: usize) -> Result<usize, FormatError> {
        let count = usize::try_from(self.u32()?).map_err(|_| FormatError::Truncated)?;
        self.check_room(count, item_len)
    }

    /// Reads a `u16` count of items, at most `limit`, and checks that so many of them can follow.
    pub(crate) fn short_count(
        &mut self,
        what: &'static str,
        limit: usize,
        item_len: usize,
    ) -> Result<usize, FormatError> {
        let count = self.u16()?;
        crate::frame::check_limit(what, u64::from(count), limit)?;
        self.check_room(usize::from(count), item_len)
    }

    fn check_room(&self, count: usize, item_len: usize) -> Result<usize, FormatError> {
        match count.checked_mul(item_len) {
            Some(needed) if needed <= self.rest.len() => Ok(count),
            _ => Err(FormatError::Truncated),
        }
    }

    pub(crate) fn session(&mut self) -> Result<SessionId, FormatError> {
        self.array().map(SessionId)
    }

    pub(crate) fn payload_id(&mut self) -> Result<PayloadId, FormatError> {
        self.array().map(PayloadId)
    }

    pub(crate) fn writer(&mut self) -> Result<WriterId, FormatError> {
        Ok(WriterId::new(self.str8()?)?)
    }

    pub(crate) fn decision_name(&mut self) -> Result<DecisionName, FormatError> {
        let vm = VmTag(self.array()?);
        let writer = self.writer()?;
        Ok(DecisionName { vm, writer, seq: self.u32()?, session: self.session()? })
    }

    /// Reads the name of the decision of `session` (INDEX-2).
    pub(crate) fn decision_name_of(&mut self, session: SessionId) -> Result<DecisionName, FormatError> {
        let name = self.decision_name()?;
        if name.session == session {
            Ok(name)
        } else {
            Err(FormatError::BadValue("a decision is named that is another session's"))
        }
    }

    /// Reads sessions and their writers, sorted, with a `u32` count.
    pub(crate) fn owned_sessions(
        &mut self,
        what: &'static str,
    ) -> Result<Vec<(SessionId, WriterId)>, FormatError> {
        let count = self.count(OWNED_SESSION_LEN_MIN)?;
        let sessions = (0..count).map(|_| Ok((self.session()?, self.writer()?)));
        let sessions = sessions.collect::<Result<Vec<_>, FormatError>>()?;
        check_sorted(what, &sessions)?;
        Ok(sessions)
    }

    /// Reads a sorted list of session ids with a `u32` count.
    pub(crate) fn sessions(&mut self, what: &'static str) -> Result<Vec<SessionId>, FormatError> {
        let count = self.count(16)?;
        let list = (0..count).map(|_| self.session()).collect::<Result<Vec<_>, _>>()?;
        check_sorted(what, &list)?;
        Ok(list)
    }

    /// Reads a flag that tells whether an optional field follows.
    pub(crate) fn flag(&mut self) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FormatError::BadFlags),
        }
    }

    pub(crate) fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::TrailingBytes) }
    }
}

/// Parses all of `bytes` with `parse`.
pub(crate) fn parse_all<'a, T>(
    bytes: &'a [u8],
    parse: impl FnOnce(&mut Reader<'a>) -> Result<T, FormatError>,
) -> Result<T, FormatError> {
    let mut reader = Reader::new(bytes);
    let value = parse(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// Checks that a list is in strictly ascending order (GEN-6).
pub(crate) fn check_sorted<T: Ord>(what: &'static str, list: &[T]) -> Result<(), FormatError> {
    if list.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(FormatError::OutOfOrder(what)) }
}

/// Appends fields to a byte string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn str8(&mut self, text: &str) -> &mut Self {
        self.u8(u8::try_from(text.len()).expect("the text was checked to be at most 255 bytes"))
            .put(text.as_bytes())
    }

    pub(crate) fn str16(&mut self, text: &str) -> &mut Self {
        self.u16(u16::try_from(text.len()).expect("the text was checked to be at most 65535 bytes"))
            .put(text.as_bytes())
    }

    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).expect("a list has fewer than 2^32 items"))
    }

    pub(crate) fn short_count(&mut self, count: usize) -> &mut Self {
        self.u16(u16::try_from(count).expect("the list was checked to have at most 1024 items"))
    }

    pub(crate) fn decision_name(&mut self, name: &DecisionName) -> &mut Self {
        self.put(&name.vm.0).str8(name.writer.as_str()).u32(name.seq).put(&name.session.0)
    }

    pub(crate) fn sessions(&mut self, list: &[SessionId]) -> &mut Self {
        self.count(list.len());
        for session in list {
            self.put(&session.0);
        }
        self
    }

    pub(crate) fn owned_sessions(&mut self, list: &[(SessionId, WriterId)]) -> &mut Self {
        self.count(list.len());
        for (session, owner) in list {
            self.put(&session.0).str8(owner.as_str());
        }
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
