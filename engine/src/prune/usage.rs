//! How much of each pack is needed, and which packs are worth packing again.
//!
//! Unlike marking, this reads all pages: some 1.5 % of what is stored.
//!
//! # Memory
//! A bit for each kibibyte of data packs, and for each 64 bytes of map packs: what a frame touches is needed. Of more than [`BITS_MAX`] of them, a part of the packs is looked at, another one in each run. And 16 bytes for
//! each of at most [`PARTS_REMEMBERED`] pages and nodes, so that what snapshots share is read once.

use super::candidates::Candidates;
use super::{Amount, PruneJob, PrunePlan, roots};
use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::map::{FANOUT, Shape};
use crate::moved::Where;
use crate::observer::{Event, Observer, Phase, begin, tell};
use crate::pack_set::PackSet;
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use crate::store::StoredTier;
use repo_format::{
    BlobKind, Child, Entry, FrameKind, Location, Node, PACK_HEADER_LEN, PREFIX_DATA, PREFIX_MAP, PackHeader,
    PackKind, PackName, PackRef, Page, PageBounds,
};
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

/// Packs of which less than one in so many bytes is not needed are left alone: packing them again would gain nothing.
const UNUSED_SHARE_MIN: u64 = 16;

/// What is packed again.
#[derive(Clone, Copy)]
pub struct RepackPolicy<'a> {
    /// How much may be stored that is not needed, in packs that are needed for something else.
    pub max_unused: Unused,
    /// How much is written again in one run, in bytes.
    pub max_repack: Option<u64>,
    /// Whether a pack is worth it: packing it again costs reading and writing what is needed of it, and where it is
    /// cooled, fees for reading and for deleting it early.
    pub worth: &'a dyn Fn(&PackUse) -> bool,
}

/// How much may be stored and not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// So many bytes.
    Bytes(u64),
    /// So many per cent of what is stored.
    Percent(u8),
    /// Any amount: nothing is packed again.
    Unlimited,
}

/// A pack, and how much of it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub pack: PackRef,
    /// The bytes of it that valid snapshots need: of its frames, and of what it takes to read them.
    pub used_bytes: u64,
    /// The tier that it is in, if the store tells.
    pub tier: Option<StoredTier>,
    /// When it was created, by the store's clock, milliseconds since 1970.
    pub modified: u64,
}

impl PackUse {
    /// What it has that nothing needs, in bytes.
    #[must_use]
    pub fn unused_bytes(&self) -> u64 {
        u64::from(self.pack.len).saturating_sub(self.used_bytes)
    }
}

/// The packs that are to be emptied, if any, and how much is stored and not needed besides.
pub(super) fn choose(
    repository: &Repository<'_>,
    job: &PruneJob<'_>,
    candidates: &Candidates,
    observer: &dyn Observer,
) -> Result<(PackSet, u64), EngineError> {
    let (chosen, unused) = chosen(repository, job, candidates, observer)?;
    let emptied: u64 = chosen.iter().map(PackUse::unused_bytes).sum();
    Ok((chosen.into_iter().map(|pack| pack.pack).collect(), unused.saturating_sub(emptied)))
}

/// Adds to a plan what would be packed again.
pub(super) fn plan(
    repository: &Repository<'_>,
    job: &PruneJob<'_>,
    candidates: &Candidates,
    plan: &mut PrunePlan,
    observer: &dyn Observer,
) -> Result<(), EngineError> {
    let (chosen, unused) = chosen(repository, job, candidates, observer)?;
    plan.repack = Amount::default();
    plan.unused_bytes_left = unused;
    for pack in &chosen {
        plan.repack.add(pack.pack.len);
        plan.rewritten_bytes += pack.used_bytes;
        plan.unused_bytes_left = plan.unused_bytes_left.saturating_sub(pack.unused_bytes());
    }
    let unused: BTreeSet<PackName> = candidates.packs.iter().map(|pack| pack.name).collect();
    plan.packs = looked_up(repository, unused.into_iter().map(|name| (name, 0)).collect())?;
    plan.packs.extend(chosen);
    Ok(())
}

/// The packs to pack again, and how much is stored and not needed in packs that are needed.
fn chosen(
    repository: &Repository<'_>,
    job: &PruneJob<'_>,
    candidates: &Candidates,
    observer: &dyn Observer,
) -> Result<(Vec<PackUse>, u64), EngineError> {
    if job.repack.max_unused == Unused::Unlimited {
        return Ok((Vec::new(), 0));
    }
    let used = Usage::measure(repository, job, candidates, observer)?.used();
    let needed_bytes = candidates.stored.bytes() - candidates.packs.bytes();
    let unused: u64 = used.values().map(|pack| u64::from(pack.0).saturating_sub(pack.1)).sum();
    let allowed = match job.repack.max_unused {
        Unused::Bytes(bytes) => bytes,
        Unused::Percent(percent) => needed_bytes / 100 * u64::from(percent),
        Unused::Unlimited => u64::MAX,
    };
    if unused <= allowed {
        return Ok((Vec::new(), unused));
    }
    let can_read_data = repository.keys().can_read_data();
    let may_be_read = |pack: &PackName| can_read_data || pack.kind == PackKind::Map;
    let partly = |(pack, (len, used)): (PackName, (u32, u64))| {
        let unused = u64::from(len).saturating_sub(used);
        (unused >= u64::from(len) / UNUSED_SHARE_MIN && may_be_read(&pack)).then_some((pack, used))
    };
    let mut packs = looked_up(repository, used.into_iter().filter_map(partly).collect())?;
    for pack in &mut packs {
        pack.used_bytes += overhead(repository, &pack.pack)?;
    }
    packs.retain(|pack| {
        pack.unused_bytes() >= u64::from(pack.pack.len) / UNUSED_SHARE_MIN && (job.repack.worth)(pack)
    });
    Ok((most_unused(packs, unused - allowed, job.repack.max_repack), unused))
}

/// The packs of which the least is needed, until `too_much` would be gone.
fn most_unused(mut packs: Vec<PackUse>, mut too_much: u64, max_repack: Option<u64>) -> Vec<PackUse> {
    // By the share that is needed, without fractions.
    packs.sort_by(|a, b| {
        let share = |one: &PackUse, other: &PackUse| u128::from(one.used_bytes) * u128::from(other.pack.len);
        share(a, b).cmp(&share(b, a)).then_with(|| a.pack.cmp(&b.pack))
    });
    let mut room = max_repack.unwrap_or(u64::MAX);
    packs.retain(|pack| {
        if too_much == 0 || pack.used_bytes > room {
            return false;
        }
        too_much = too_much.saturating_sub(pack.unused_bytes());
        room -= pack.used_bytes;
        true
    });
    packs
}

/// What a pack has besides frames, in bytes: its header and its directory, which may be as long as frames that are short.
fn overhead(repository: &Repository<'_>, pack: &PackRef) -> Result<u64, EngineError> {
    let name = pack.name.blob();
    let bytes = repository.store().get(&name, Some(0..PACK_HEADER_LEN as u64))?;
    let header = PackHeader::parse(&bytes).map_err(EngineError::damaged(&name))?;
    Ok(PACK_HEADER_LEN as u64 + u64::from(pack.len.saturating_sub(header.directory_offset)))
}

/// Adds what the store tells of packs.
fn looked_up(
    repository: &Repository<'_>,
    mut used: BTreeMap<PackName, u64>,
) -> Result<Vec<PackUse>, EngineError> {
    let mut packs = Vec::new();
    if used.is_empty() {
        return Ok(packs);
    }
    for prefix in [PREFIX_MAP, PREFIX_DATA] {
        for info in repository.list(prefix)? {
            let Some(BlobKind::Pack(name)) = info.name.kind() else { continue };
            let Some(used_bytes) = used.remove(&name) else { continue };
            let pack = PackRef { name, len: u32::try_from(info.len).unwrap_or(u32::MAX) };
            packs.push(PackUse { pack, used_bytes, tier: info.tier, modified: info.modified });
        }
    }
    Ok(packs)
}

/// What is needed of the packs that are looked at.
struct Usage<'r, 's> {
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
    fn measure(
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
    fn used(self) -> BTreeMap<PackName, (u32, u64)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::{SessionId, WriterId};

    fn pack(number: u32, len: u32, used_bytes: u64) -> PackUse {
        let writer = WriterId::new("host").unwrap();
        let name = PackName { kind: PackKind::Data, writer, session: SessionId([1; 16]), number };
        PackUse { pack: PackRef { name, len }, used_bytes, tier: None, modified: 0 }
    }

    fn chosen(packs: &[PackUse], too_much: u64, max_repack: Option<u64>) -> Vec<u32> {
        most_unused(packs.to_vec(), too_much, max_repack).iter().map(|pack| pack.pack.name.number).collect()
    }

    #[test]
    fn the_emptiest_packs_are_packed_again_first_and_no_more_than_it_takes() {
        let packs = [pack(0, 1000, 900), pack(1, 1000, 10), pack(2, 500, 100), pack(3, 1000, 1000)];
        assert_eq!(chosen(&packs, 1, None), [1]);
        assert_eq!(chosen(&packs, 1000, None), [1, 2]);
        assert_eq!(chosen(&packs, 1400, None), [1, 2, 0]);
    }

    #[test]
    fn no_more_is_written_again_than_allowed() {
        let packs = [pack(0, 1000, 900), pack(1, 1000, 10), pack(2, 500, 100)];
        assert_eq!(chosen(&packs, 5000, Some(105)), [1]);
        assert_eq!(chosen(&packs, 5000, Some(110)), [1, 2]);
        assert_eq!(chosen(&packs, 5000, Some(9)), Vec::<u32>::new());
    }
}
