//! What is known about parts of maps, with positions relative to the start of the part.

use super::findings::FindingId;
use super::inventory::PackState;
use crate::error::EngineError;
use crate::extent::Extent;
use crate::frames::FrameReader;
use crate::moved::Where;
use repo_format::{Entry, Location, PackRef, Page};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Separate ranges that are kept for a part of a map; beyond, those of one finding become one range.
const HITS_MAX: usize = 1 << 16;

/// A part of a disk that a finding concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hit {
    pub(super) finding: FindingId,
    /// Relative to the start of the part of the map that it was found in.
    pub(super) extent: Extent,
}

/// Where the pieces of a part of a map end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reach {
    /// So many bytes behind the part's end.
    Over(u32),
    /// The last page cannot be read, for this reason.
    Lost(FindingId),
    /// Nobody looked.
    Unknown,
}

impl Reach {
    /// Where the first piece behind the part starts if what follows are the last `span` bytes of the disk and no
    /// chunk starts in them: a chunk may cover them all. If that cannot be known, it is taken to do so.
    pub(super) fn to_end(self, span: u64) -> u32 {
        let span = u32::try_from(span).expect("less than a cell");
        match self {
            Self::Over(over) if over == span => span,
            Self::Lost(_) => span,
            Self::Over(_) | Self::Unknown => 0,
        }
    }
}

/// What is known about a part of a map.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Where its first piece starts, in bytes from its start.
    pub(super) first: Option<u32>,
    pub(super) reach: Reach,
    pub(super) hits: Option<Arc<[Hit]>>,
}

impl Facts {
    pub(super) const HOLE: Self = Self { first: Some(0), reach: Reach::Over(0), hits: None };
    pub(super) const UNKNOWN: Self = Self { first: None, reach: Reach::Unknown, hits: None };

    pub(super) fn lost(finding: FindingId, span: u64) -> Self {
        let hits = Extent::between(0, span).map(|extent| Arc::from([Hit { finding, extent }].as_slice()));
        Self { first: None, reach: Reach::Lost(finding), hits }
    }
}

/// Sorts hits and joins those of one finding that touch; few enough of them remain.
pub(super) fn tidied(mut hits: Vec<Hit>) -> Option<Arc<[Hit]>> {
    if hits.is_empty() {
        return None;
    }
    hits.sort_unstable();
    let joined = |gap: u64| {
        let mut joined: Vec<Hit> = Vec::new();
        for hit in &hits {
            match joined.last_mut() {
                Some(last)
                    if last.finding == hit.finding
                        && hit.extent.start.saturating_sub(last.extent.end()) <= gap =>
                {
                    last.extent.length = last.extent.end().max(hit.extent.end()) - last.extent.start;
                }
                _ => joined.push(*hit),
            }
        }
        joined
    };
    let exact = joined(0);
    Some(if exact.len() > HITS_MAX { joined(u64::MAX).into() } else { exact.into() })
}

/// The chunks of a page that findings concern, relative to the start of its cell.
pub(super) fn chunk_hits(
    page: &Page,
    mut finding_of: impl FnMut(&Location) -> Option<FindingId>,
) -> Vec<Hit> {
    let mut hits = Vec::new();
    let mut start = u64::from(page.first);
    for entry in &page.entries {
        let length = u64::from(entry.len());
        if let Entry::Chunk(at) = entry
            && let Some(finding) = finding_of(at)
        {
            hits.push(Hit { finding, extent: Extent { start, length } });
        }
        start += length;
    }
    hits
}

/// The finding that concerns a frame, by what is known of its pack.
pub(super) fn concerned(state: &PackState, at: &Location) -> Option<FindingId> {
    match *state {
        PackState::Fine | PackState::Moved => None,
        PackState::Missing(finding) => Some(finding),
        PackState::OtherLength { finding, len } => {
            (u64::from(at.offset) + u64::from(at.stored_len) > len).then_some(finding)
        }
    }
}

/// The chunks of a page that were repacked, with the packs that they are in now.
pub(super) fn moved_chunks<'p>(
    frames: &FrameReader<'_, '_>,
    page: &'p Page,
) -> Result<HashMap<&'p Location, Arc<PackRef>>, EngineError> {
    let chunks = page.entries.iter().filter_map(|entry| match entry {
        Entry::Chunk(at) => Some(at),
        Entry::Hole { .. } => None,
    });
    let chunks: Vec<&Location> = chunks.filter(|at| frames.moved().knows(&at.pack.name)).collect();
    if chunks.is_empty() {
        return Ok(HashMap::new());
    }
    let places = frames.moved().places(chunks.iter().copied(), &BTreeSet::new())?;
    let moved = chunks.into_iter().zip(places).filter_map(|(at, place)| match place {
        Where::At(pack, _) => Some((at, pack)),
        Where::Named | Where::Nowhere(_) => None,
    });
    Ok(moved.collect())
}
