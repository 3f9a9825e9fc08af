//! How much of each pack is needed.
//!
//! Unlike marking, this reads all pages: some 1.5 % of what is stored.
//!
//! # Memory
//! A bit for each kibibyte of data packs, and for each 64 bytes of map packs: what a frame touches is needed. Of more than [`BITS_MAX`] of them, a part of the packs is looked at, another one in each run. And 16 bytes for
//! each of at most [`PARTS_REMEMBERED`] pages and nodes, so that what snapshots share is read once.

use super::candidates::Candidates;
use super::{PruneJob, roots};
use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::map::{FANOUT, Shape};
use crate::moved::Where;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use repo_format::{Child, Entry, FrameKind, Location, Node, PackKind, PackName, PackRef, Page, PageBounds};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Bits in all: 128 MiB of them, for a TiB of data.
const BITS_MAX: u64 = 1 << 30;
const DATA_GRANULE: u32 = 1024;
const MAP_GRANULE: u32 = 64;
/// Pages and nodes that are not read again; of more, some are, and count once all the same.
const PARTS_REMEMBERED: usize = 4 << 20;
/// Pages or nodes that are in memory together.
const PARTS_AT_ONCE: usize = 1024;
/// Frames that were moved and are looked up together.
const MOVED_AT_ONCE: usize = 4096;

/// What is needed of the packs that are looked at.
pub(super) struct Usage<'r, 's> {
    frames: FrameReader<'r, 's>,
    packs: HashMap<PackName, Frames>,
    seen: HashSet<[u8; 16]>,
    /// Packs that something was moved from.
    repacked: HashSet<PackName>,
    /// Frames that are named in such packs and are not noted yet.
    moved: Vec<Location>,
}

/// The frames of a pack that were seen.
struct Frames {
    len: u32,
    granule: u32,
    touched: Vec<u64>,
    used_bytes: u64,
}

/// A page or a node to look at; a page has level 0.
struct Part {
    shape: Shape,
    level: u8,
    index: u64,
    at: Location,
}

impl<'r, 's> Usage<'r, 's> {
    pub(super) fn measure(
        repository: &'r Repository<'s>,
        job: &PruneJob<'_>,
        candidates: &Candidates,
        observer: &dyn Observer,
    ) -> Result<Self, EngineError> {
        let bits: u64 = candidates.stored.iter().map(|pack| u64::from(pack.len / granule(&pack))).sum();
        let parts = bits.div_ceil(BITS_MAX).max(1);
        let turn =
            u64::from_le_bytes(job.entropy.draw("packs looked at", 0)[..8].try_into().unwrap_or_default());
        let is_looked_at = |pack: &PackRef| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&pack.name.session.0).update(&pack.name.number.to_le_bytes());
            let hash = hasher.finalize();
            let first = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            candidates.needed.contains(&pack.name) && first.wrapping_add(turn) % parts == 0
        };
        let packs =
            candidates.stored.iter().filter(is_looked_at).map(|pack| (pack.name.clone(), Frames::of(&pack)));
        let mut usage = Self {
            frames: FrameReader::of_snapshots(repository, Vec::new()),
            packs: packs.collect(),
            seen: HashSet::new(),
            repacked: candidates.records.repacked().cloned().collect(),
            moved: Vec::new(),
        };
        begin(observer, Phase::MeasureUse, candidates.roots.valid.len() as u64)?;
        let _roots = roots::each(repository, &BTreeSet::new(), &mut |roots| {
            // The oldest of each VM first: what one has that those before it do not have was stored together, by its own
            // session mostly. The other way around, it is what that session replaced: of as many sessions as there were.
            for root in roots.iter().rev() {
                usage.root(root).map_err(roots::cannot_mark)?;
                tell(observer, Event::Progress(1))?;
            }
            Ok(())
        })?;
        usage.note_moved()?;
        Ok(usage)
    }

    /// For each pack that was looked at, its length and what is needed of it.
    pub(super) fn used(self) -> BTreeMap<PackName, (u32, u64)> {
        self.packs.into_iter().map(|(name, frames)| (name, (frames.len, frames.used_bytes))).collect()
    }

    fn root(&mut self, root: &Snapshot) -> Result<(), EngineError> {
        let geometry = self.frames.repository().config().geometry;
        for disk in &root.commit.disks {
            let Some(at) = disk.map.clone() else { continue };
            let shape = Shape::new(&geometry, disk.size);
            self.parts(vec![Part { level: shape.root_level(), shape, index: 0, at }])?;
        }
        Ok(())
    }

    /// Notes parts of one level, and all below.
    fn parts(&mut self, parts: Vec<Part>) -> Result<(), EngineError> {
        let mut unread: Vec<Part> = Vec::new();
        for part in parts {
            let key = key(&part);
            if self.seen.contains(&key) {
                continue;
            }
            if self.seen.len() < PARTS_REMEMBERED {
                self.seen.insert(key);
            }
            self.note(&part.at)?;
            unread.push(part);
        }
        for batch in unread.chunks(PARTS_AT_ONCE) {
            let kind = if batch[0].level == 0 { FrameKind::Page } else { FrameKind::Node };
            let locations: Vec<Location> = batch.iter().map(|part| part.at.clone()).collect();
            let payloads = self.frames.read_all(kind, &locations)?;
            let mut below = Vec::new();
            for (part, payload) in batch.iter().zip(payloads) {
                match kind {
                    FrameKind::Page => self.page(part, &payload)?,
                    _ => below.extend(children(part, &payload)?),
                }
            }
            if !below.is_empty() {
                self.parts(below)?;
            }
        }
        Ok(())
    }

    fn page(&mut self, part: &Part, payload: &[u8]) -> Result<(), EngineError> {
        let geometry = &self.frames.repository().config().geometry;
        let bounds = PageBounds::of(geometry, part.shape.size, part.index).expect("a cell of the disk");
        let page = Page::parse(payload, &bounds).map_err(EngineError::damaged(&part.at.pack.name.blob()))?;
        for entry in &page.entries {
            if let Entry::Chunk(at) = entry {
                self.note(at)?;
            }
        }
        Ok(())
    }

    /// Notes that a frame is needed, where it lies now.
    fn note(&mut self, at: &Location) -> Result<(), EngineError> {
        if self.repacked.contains(&at.pack.name) {
            self.moved.push(at.clone());
            return if self.moved.len() >= MOVED_AT_ONCE { self.note_moved() } else { Ok(()) };
        }
        if let Some(frames) = self.packs.get_mut(&at.pack.name) {
            frames.note(at.offset, at.stored_len);
        }
        Ok(())
    }

    /// Notes frames of which the names are not where they lie.
    fn note_moved(&mut self) -> Result<(), EngineError> {
        let moved = std::mem::take(&mut self.moved);
        for (at, place) in moved.iter().zip(self.frames.places(&moved)?) {
            let (pack, offset, stored_len) = match &place {
                Where::At(pack, place) => (&pack.name, place.offset, place.stored_len),
                Where::Named => (&at.pack.name, at.offset, at.stored_len),
                Where::Nowhere(_) => continue,
            };
            if let Some(frames) = self.packs.get_mut(pack) {
                frames.note(offset, stored_len);
            }
        }
        Ok(())
    }
}

fn children(part: &Part, payload: &[u8]) -> Result<Vec<Part>, EngineError> {
    let count = part.shape.child_count(part.level, part.index);
    let node = Node::parse(payload, part.level, count, &part.at.pack)
        .map_err(EngineError::damaged(&part.at.pack.name.blob()))?;
    let (shape, level) = (part.shape, part.level - 1);
    let child = |(index, child): (u64, Child)| match child {
        Child::Hole => None,
        Child::Stored { at, .. } => Some(Part { shape, level, index, at }),
    };
    Ok((part.index * FANOUT..).zip(node.children).filter_map(child).collect())
}

fn granule(pack: &PackRef) -> u32 {
    match pack.name.kind {
        PackKind::Data => DATA_GRANULE,
        PackKind::Map => MAP_GRANULE,
    }
}

impl Frames {
    fn of(pack: &PackRef) -> Self {
        let granule = granule(pack);
        let words = (pack.len / granule) as usize / 64 + 1;
        Self { len: pack.len, granule, touched: vec![0; words], used_bytes: 0 }
    }

    fn note(&mut self, offset: u32, stored_len: u32) {
        let end = offset.saturating_add(stored_len).div_ceil(self.granule);
        for bit in offset / self.granule..end {
            let (word, mask) = ((bit / 64) as usize, 1u64 << (bit % 64));
            let Some(word) = self.touched.get_mut(word) else { return };
            if *word & mask == 0 {
                *word |= mask;
                self.used_bytes += u64::from(self.granule);
            }
        }
    }
}

/// A part is one payload at one place, whatever disk it is of; but its shape may differ at a disk's end.
fn key(part: &Part) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let PackName { session, number, .. } = &part.at.pack.name;
    hasher.update(&part.at.id.0).update(&session.0).update(&number.to_le_bytes());
    hasher.update(&part.at.offset.to_le_bytes()).update(&[part.level]);
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes begin with 16 bytes")
}
