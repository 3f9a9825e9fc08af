//! Packs while they are filled.

use crate::buffers::BufferPool;
use repo_format::{
    Codec, FrameEntry, FrameKind, Location, PACK_HEADER_LEN, PackKind, PackName, PackRef, PayloadId,
    SessionId, TAG_LEN, WriterId, directory_stored_len,
};
use std::sync::Arc;

/// A pack with so many frames is full, however short they are: its directory and an index of it stay small.
pub(crate) const FRAMES_MAX: usize = 400_000;

/// A payload's place in a pack of this session, whose length may not be known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) pack: u32,
    pub(crate) codec: Codec,
    pub(crate) offset: u32,
    pub(crate) stored_len: u32,
    pub(crate) plain_len: u32,
    pub(crate) id: PayloadId,
}

/// A full pack, ready to be sealed.
pub(crate) struct ClosedPack {
    pub(crate) name: PackName,
    pub(crate) body: Vec<u8>,
    pub(crate) frames: Vec<FrameEntry>,
}

/// A payload that is added to a pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) codec: Codec,
    pub(crate) plain_len: u32,
    pub(crate) id: PayloadId,
    pub(crate) encoded: &'a [u8],
}

/// Fills the packs of one kind of one session, one after the other.
pub(crate) struct PackBuilder {
    kind: PackKind,
    writer: WriterId,
    session: SessionId,
    pack_len: usize,
    bodies: Arc<BufferPool>,
    body: Vec<u8>,
    frames: Vec<FrameEntry>,
    /// Lengths of the packs closed so far; the open one has the next number.
    closed_lens: Vec<u32>,
}

impl PackBuilder {
    /// Begins with pack 0, of a session of a writer. `pack_len` is the length of a blob that is not to be exceeded, but by one frame that
    /// is longer by itself.
    pub(crate) fn new(
        kind: PackKind,
        (writer, session): (WriterId, SessionId),
        pack_len: u32,
        bodies: Arc<BufferPool>,
    ) -> Self {
        Self {
            kind,
            writer,
            session,
            pack_len: pack_len as usize,
            bodies,
            body: Vec::new(),
            frames: Vec::new(),
            closed_lens: Vec::new(),
        }
    }

    /// Closes the open pack if a payload of so many encoded bytes would make it too long.
    pub(crate) fn make_room(&mut self, encoded_len: usize) -> Option<ClosedPack> {
        let after = self.body.len().max(PACK_HEADER_LEN)
            + encoded_len
            + TAG_LEN
            + directory_stored_len(self.frames.len() + 1);
        if after > self.pack_len || self.frames.len() >= FRAMES_MAX { self.close() } else { None }
    }

    /// Adds a payload to the open pack, for which [`PackBuilder::make_room`] has made room.
    pub(crate) fn push(&mut self, payload: Payload<'_>) -> Placed {
        let Payload { kind, codec, plain_len, id, encoded } = payload;
        if self.frames.is_empty() {
            self.body = self.bodies.take();
            self.body.reserve_exact(self.pack_len.max(PACK_HEADER_LEN + encoded.len() + TAG_LEN));
            self.body.resize(PACK_HEADER_LEN, 0);
        }
        let offset = fits_u32(self.body.len());
        let stored_len = fits_u32(encoded.len() + TAG_LEN);
        self.body.extend_from_slice(encoded);
        self.body.resize(self.body.len() + TAG_LEN, 0);
        self.frames.push(FrameEntry { kind, codec, plain_len, stored_len, id });
        Placed { pack: self.open_number(), codec, offset, stored_len, plain_len, id }
    }

    /// Closes the open pack unless it is empty.
    pub(crate) fn close(&mut self) -> Option<ClosedPack> {
        if self.frames.is_empty() {
            return None;
        }
        let name = self.name(self.open_number());
        let body = std::mem::take(&mut self.body);
        let frames = std::mem::take(&mut self.frames);
        self.closed_lens.push(fits_u32(body.len() + directory_stored_len(frames.len())));
        Some(ClosedPack { name, body, frames })
    }

    /// The number of the open pack: all below are closed.
    pub(crate) fn open_number(&self) -> u32 {
        fits_u32(self.closed_lens.len())
    }

    /// The name of a pack of this builder.
    pub(crate) fn name(&self, number: u32) -> PackName {
        PackName { kind: self.kind, writer: self.writer.clone(), session: self.session, number }
    }

    /// A pack by its number, with length 0 while it is open.
    pub(crate) fn pack_ref(&self, number: u32) -> PackRef {
        let len = self.closed_lens.get(number as usize).copied().unwrap_or(0);
        PackRef { name: self.name(number), len }
    }

    /// Where a payload is, for references; the length of an open pack is 0.
    pub(crate) fn location(&self, placed: &Placed) -> Location {
        Location {
            pack: self.pack_ref(placed.pack),
            codec: placed.codec,
            offset: placed.offset,
            stored_len: placed.stored_len,
            plain_len: placed.plain_len,
            id: placed.id,
        }
    }

    /// Whether a pack belongs to this builder.
    pub(crate) fn owns(&self, name: &PackName) -> bool {
        name.session == self.session && name.kind == self.kind && name.writer == self.writer
    }

    /// All packs, closed ones only.
    pub(crate) fn closed(&self) -> Vec<PackRef> {
        (0..self.open_number()).map(|number| self.pack_ref(number)).collect()
    }
}

fn fits_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a pack is shorter than 4 GiB")
}
