//! The frames of the packs that are emptied, by the ids of their payloads.

use crate::directory;
use crate::error::EngineError;
use crate::repository::Repository;
use repo_format::{Codec, FrameKind, Location, PackKind, PackName, PackRef, PayloadId};
use std::collections::HashMap;

/// Directories that are read together.
const READ_AT_ONCE: usize = 64;

/// All frames of some packs.
#[derive(Debug, Default)]
pub(super) struct OldFrames {
    packs: Vec<PackRef>,
    numbers: HashMap<PackName, u32>,
    /// Sorted by id, then pack.
    frames: Vec<OldFrame>,
    /// Packs of which something that is needed cannot be read.
    spoiled: Vec<bool>,
}

/// A frame of an old pack.
#[derive(Clone, Copy, Debug)]
pub(super) struct OldFrame {
    /// The kind of the pack, and half of the payload's id: what begins alike and is another payload fails its check.
    id: Key,
    pub(super) pack: u32,
    offset: u32,
    stored_len: u32,
    plain_len: u32,
    codec: Codec,
    kind: FrameKind,
    /// Whether a root needs it in this pack.
    wanted: bool,
}

impl OldFrames {
    /// Reads the directories of packs, as many as have `frames_max` frames together. Returns also how many were left out:
    /// for that, or because their directories cannot be read.
    pub(super) fn read(
        repository: &Repository<'_>,
        packs: &[PackRef],
        frames_max: usize,
    ) -> Result<(Self, u64), EngineError> {
        let mut old = Self::default();
        let mut left = 0;
        for packs in packs.chunks(READ_AT_ONCE) {
            if old.frames.len() >= frames_max {
                left += packs.len() as u64;
                continue;
            }
            for (pack, frames) in packs.iter().zip(directory::read_all(repository, packs)?) {
                let Ok(frames) = frames else {
                    left += 1;
                    continue;
                };
                let number = u32::try_from(old.packs.len()).expect("there are fewer packs than frames");
                old.numbers.insert(pack.name.clone(), number);
                old.packs.push(pack.clone());
                old.frames.extend(frames.into_iter().map(|(offset, frame)| OldFrame {
                    id: key(pack.name.kind, &frame.id),
                    pack: number,
                    offset,
                    stored_len: frame.stored_len,
                    plain_len: frame.plain_len,
                    codec: frame.codec,
                    kind: frame.kind,
                    wanted: false,
                }));
            }
        }
        old.frames.sort_unstable_by_key(|frame| (frame.id, frame.pack, frame.offset));
        old.spoiled = vec![false; old.packs.len()];
        Ok((old, left))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    pub(super) fn packs(&self) -> impl Iterator<Item = &PackRef> {
        self.packs.iter()
    }

    pub(super) fn pack(&self, number: u32) -> &PackRef {
        &self.packs[number as usize]
    }

    /// The sum of the lengths of the packs.
    pub(super) fn bytes(&self) -> u64 {
        self.packs.iter().map(|pack| u64::from(pack.len)).sum()
    }

    pub(super) fn number(&self, pack: &PackName) -> Option<u32> {
        self.numbers.get(pack).copied()
    }

    /// Notes that a payload is wanted of a pack. Returns the first of all frames that hold it, by its place, unless it was
    /// wanted before; nothing if the pack does not have it.
    pub(super) fn want(&mut self, pack: u32, at: &Location) -> Wanted {
        let id = key(at.pack.name.kind, &at.id);
        let first = self.frames.partition_point(|frame| frame.id < id);
        let same = self.frames[first..].iter_mut().take_while(|frame| frame.id == id);
        let mut is_new = true;
        let mut is_there = false;
        for frame in same {
            is_new &= !frame.wanted;
            if frame.pack == pack && frame.plain_len == at.plain_len {
                frame.wanted = true;
                is_there = true;
            }
        }
        match (is_there, is_new) {
            (false, _) => Wanted::NotThere,
            (true, false) => Wanted::Before,
            (true, true) => Wanted::First(first),
        }
    }

    /// The frames that hold one payload, given the place of the first.
    pub(super) fn same(&self, first: usize) -> &[OldFrame] {
        let id = self.frames[first].id;
        let count = self.frames[first..].iter().take_while(|frame| frame.id == id).count();
        &self.frames[first..first + count]
    }

    /// Where the frame is that a payload is read from, given the place of the first that holds it.
    pub(super) fn source(&self, first: usize, id: PayloadId) -> (FrameKind, Location) {
        let same = self.same(first);
        let frame = same.iter().find(|frame| frame.wanted).unwrap_or(&same[0]);
        let OldFrame { pack, offset, stored_len, plain_len, codec, kind, .. } = *frame;
        (kind, Location { pack: self.pack(pack).clone(), codec, offset, stored_len, plain_len, id })
    }

    /// Notes that something that is needed of a pack cannot be read: it is not emptied.
    pub(super) fn spoil(&mut self, pack: u32) {
        self.spoiled[pack as usize] = true;
    }

    pub(super) fn is_spoiled(&self, pack: u32) -> bool {
        self.spoiled[pack as usize]
    }

    pub(super) fn spoiled(&self) -> u64 {
        self.spoiled.iter().filter(|spoiled| **spoiled).count() as u64
    }

    /// All frames that are wanted, with the places of the first that hold their payloads.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (usize, &OldFrame)> {
        let mut first = 0;
        self.frames.iter().enumerate().filter_map(move |(place, frame)| {
            if self.frames[first].id != frame.id {
                first = place;
            }
            frame.wanted.then_some((first, frame))
        })
    }
}

/// Whether a payload is in a pack, and was wanted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    NotThere,
    Before,
    First(usize),
}

type Key = [u8; 17];

fn key(kind: PackKind, id: &PayloadId) -> Key {
    let mut key = [kind as u8; 17];
    key[1..].copy_from_slice(&id.0[..16]);
    key
}
