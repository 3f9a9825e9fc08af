//! Walking the maps of many disks: each node and page is looked at once, wherever it is shared.
//!
//! What a part of a map is found to be does not depend on where on which disk it is reached, as long as its place
//! has the same shape. So [`Facts`] are remembered by what denotes a part and by that shape, and hold positions
//! relative to the part's start. Damage goes up with the facts and becomes ranges of a disk at its root.
//!
//! # Memory
//! Remembered facts are about 50 bytes for each distinct node and each of at most [`PAGES_REMEMBERED`] pages;
//! pages are read in batches of those below 64 nodes of level 1, and of at most [`PLAIN_BYTES_AT_ONCE`].

use super::facts::{Facts, Hit, Reach, tidied};
use super::findings::{FindingId, Findings};
use super::inventory::Inventory;
use super::report::FindingKind;
use crate::error::{EngineError, chain};
use crate::extent::Extent;
use crate::frames::FrameReader;
use crate::map::{FANOUT, Shape};
use rayon::prelude::*;
use repo_format::{Child, Disk, FormatError, FrameKind, Location, Node, PackRef, Page, PageBounds};
use std::collections::HashMap;

/// Pages of a few TiB. What does not fit is looked at again when another disk shares it.
const PAGES_REMEMBERED: usize = 4 << 20;
/// Pages or nodes of one level that are in memory together; 4096 usual pages are a tenth of it.
const PLAIN_BYTES_AT_ONCE: u64 = 64 << 20;

/// What a walk does at pages.
pub(super) trait Inspector {
    /// Whether a part of a map is to be looked at, by the names that its parent gives.
    fn wants(&self, names: &[PackRef]) -> bool;

    /// Looks at a page that lies at `at`; tells which parts, relative to the start of its cell, are concerned by
    /// which findings.
    fn page(&mut self, at: &Location, page: &Page) -> Result<Vec<Hit>, EngineError>;
}

/// A part of a map that is to be looked at.
struct Part {
    at: Location,
    /// The packs that its parent says it names; nothing for a root and below nodes that do not tell.
    names: Option<Vec<PackRef>>,
    /// Where it starts on the disk.
    start: u64,
    span: u64,
}

type Key = [u8; 16];

pub(super) struct Walker<'w, 'r, 's> {
    pub(super) frames: &'w FrameReader<'r, 's>,
    pub(super) findings: &'w Findings,
    pub(super) inventory: &'w Inventory<'r, 's>,
    inspector: &'w mut dyn Inspector,
    facts: HashMap<Key, Facts>,
    pages_remembered: usize,
    /// Whether a node was found that gives wrong names for a child: names cannot be relied on then.
    pub(super) names_lie: bool,
}

impl<'w, 'r, 's> Walker<'w, 'r, 's> {
    pub(super) fn new(
        frames: &'w FrameReader<'r, 's>,
        findings: &'w Findings,
        inventory: &'w Inventory<'r, 's>,
        inspector: &'w mut dyn Inspector,
    ) -> Self {
        let facts = HashMap::new();
        Self { frames, findings, inventory, inspector, facts, pages_remembered: 0, names_lie: false }
    }

    /// Walks the map of a disk; returns the parts of it that findings concern.
    pub(super) fn disk(&mut self, disk: &Disk) -> Result<Vec<Hit>, EngineError> {
        let Some(root) = &disk.map else { return Ok(Vec::new()) };
        let shape = Shape::new(&self.frames.repository().config().geometry, disk.size);
        let part = Part { at: root.clone(), names: None, start: 0, span: disk.size };
        let facts = self.parts(&shape, shape.root_level(), &[part])?;
        Ok(facts.into_iter().filter_map(|facts| facts.hits).flat_map(|hits| hits.to_vec()).collect())
    }

    /// Looks at parts of one level, in one batch.
    fn parts(&mut self, shape: &Shape, level: u8, parts: &[Part]) -> Result<Vec<Facts>, EngineError> {
        let keys: Vec<Key> = parts.iter().map(|part| key(shape, level, part)).collect();
        let mut found: HashMap<Key, Facts> = HashMap::new();
        let mut to_read: Vec<usize> = Vec::new();
        for (position, (key, part)) in keys.iter().zip(parts).enumerate() {
            if found.contains_key(key) {
                continue;
            }
            let facts = self.known(key, part)?;
            if facts.is_none() {
                to_read.push(position);
            }
            // What is to be read is replaced below; until then its place keeps it from being read twice.
            found.insert(*key, facts.unwrap_or(Facts::UNKNOWN));
        }
        let reading: Vec<&Part> = to_read.iter().filter_map(|position| parts.get(*position)).collect();
        let mut read = Vec::with_capacity(reading.len());
        let mut rest = reading.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            rest = later;
            read.extend(if level == 0 { self.pages(shape, now)? } else { self.nodes(shape, level, now)? });
        }
        for (position, facts) in to_read.into_iter().zip(read) {
            if level > 0 || self.pages_remembered < PAGES_REMEMBERED {
                self.pages_remembered += usize::from(level == 0);
                self.facts.insert(keys[position], facts.clone());
            }
            found.insert(keys[position], facts);
        }
        Ok(keys.iter().filter_map(|key| found.get(key).cloned()).collect())
    }

    /// What there is to say of a part without reading it.
    fn known(&self, key: &Key, part: &Part) -> Result<Option<Facts>, EngineError> {
        if let Some(facts) = self.facts.get(key) {
            return Ok(Some(facts.clone()));
        }
        if part.names.as_ref().is_some_and(|names| !self.inspector.wants(names)) {
            return Ok(Some(Facts::UNKNOWN));
        }
        let problem = self.inventory.problem(self.findings, &part.at)?;
        Ok(problem.map(|finding| Facts::lost(finding, part.span)))
    }

    fn pages(&mut self, shape: &Shape, parts: &[&Part]) -> Result<Vec<Facts>, EngineError> {
        let payloads = self.payloads(FrameKind::Page, parts)?;
        let geometry = &self.frames.repository().config().geometry;
        let parsed: Vec<_> = payloads
            .into_par_iter()
            .zip(parts.par_iter())
            .map(|(payload, part)| {
                let cell = part.start / u64::from(shape.cell_len);
                let bounds = PageBounds::of(geometry, shape.size, cell).expect("a cell of the disk");
                payload.map(|payload| Page::parse(&payload, &bounds))
            })
            .collect();
        parts
            .iter()
            .zip(parsed)
            .map(|(part, page)| match page {
                Err(finding) => Ok(Facts::lost(finding, part.span)),
                Ok(Err(error)) => Ok(Facts::lost(self.contradiction(&part.at, &error), part.span)),
                Ok(Ok(page)) => self.page(part, &page),
            })
            .collect()
    }

    fn page(&mut self, part: &Part, page: &Page) -> Result<Facts, EngineError> {
        let mut hits = self.inspector.page(&part.at, page)?;
        hits.extend(self.check_names(part, &page.packs()));
        let end =
            u64::from(page.first) + page.entries.iter().map(|entry| u64::from(entry.len())).sum::<u64>();
        let over = u32::try_from(end.saturating_sub(part.span)).expect("a page ends within its region");
        Ok(Facts { first: Some(page.first), reach: Reach::Over(over), hits: tidied(hits) })
    }

    fn nodes(&mut self, shape: &Shape, level: u8, parts: &[&Part]) -> Result<Vec<Facts>, EngineError> {
        let payloads = self.payloads(FrameKind::Node, parts)?;
        let mut nodes = Vec::with_capacity(parts.len());
        for (part, payload) in parts.iter().zip(payloads) {
            nodes.push(payload.and_then(|payload| {
                let count = shape.child_count(level, part.start / shape.span(level));
                Node::parse(&payload, level, count, &part.at.pack)
                    .map_err(|error| self.contradiction(&part.at, &error))
            }));
        }
        let mut below: Vec<std::vec::IntoIter<Facts>> = Vec::with_capacity(nodes.len());
        let children = |node: &Result<Node, FindingId>, part: &Part| match node {
            Ok(node) => children(shape, node, part.start),
            Err(_) => Vec::new(),
        };
        if level == 1 {
            let lists: Vec<Vec<Part>> =
                nodes.iter().zip(parts).map(|(node, part)| children(node, part)).collect();
            let lens: Vec<usize> = lists.iter().map(Vec::len).collect();
            let all: Vec<Part> = lists.into_iter().flatten().collect();
            let mut facts = self.parts(shape, 0, &all)?.into_iter();
            below
                .extend(lens.into_iter().map(|len| facts.by_ref().take(len).collect::<Vec<_>>().into_iter()));
        } else {
            for (node, part) in nodes.iter().zip(parts) {
                below.push(self.parts(shape, level - 1, &children(node, part))?.into_iter());
            }
        }
        let joined = nodes.into_iter().zip(below).zip(parts).map(|((node, below), part)| match node {
            Ok(node) => self.join(shape, part, &node, below),
            Err(finding) => Facts::lost(finding, part.span),
        });
        Ok(joined.collect())
    }

    /// What is known about a node from what is known about its stored children.
    fn join(
        &mut self,
        shape: &Shape,
        part: &Part,
        node: &Node,
        below: impl IntoIterator<Item = Facts>,
    ) -> Facts {
        let child_span = shape.span(node.level - 1);
        let mut below = below.into_iter();
        let mut hits = self.check_names(part, &node.packs());
        let mut first = None;
        let mut reach = Reach::Unknown;
        let mut start = 0;
        for (slot, child) in node.children.iter().enumerate() {
            let span = child_span.min(part.span.saturating_sub(start));
            let facts = match child {
                // Nothing starts in a short last cell if the chunk before it reaches to the disk's end (PAGE-4).
                Child::Hole if span < u64::from(shape.cell_len) => {
                    Facts { first: Some(reach.to_end(span)), ..Facts::HOLE }
                }
                Child::Hole => Facts::HOLE,
                Child::Stored { .. } => below.next().unwrap_or(Facts::UNKNOWN),
            };
            if slot == 0 {
                first = facts.first;
            } else {
                hits.extend(self.seam(part, start, reach, facts.first));
            }
            hits.extend(facts.hits.iter().flat_map(|hits| hits.iter()).map(|hit| Hit {
                finding: hit.finding,
                extent: Extent { start: start + hit.extent.start, length: hit.extent.length },
            }));
            reach = facts.reach;
            start = start.saturating_add(child_span);
        }
        Facts { first, reach, hits: tidied(hits) }
    }

    /// What is to be said of the place where one child of a node ends and the next one starts.
    fn seam(&self, part: &Part, start: u64, reach: Reach, first: Option<u32>) -> Option<Hit> {
        let first = first?;
        match reach {
            Reach::Over(over) if over != first => {
                let error = FormatError::BadValue("a page does not begin where the page before ended");
                let finding = self.contradiction(&part.at, &error);
                Some(Hit { finding, extent: Extent { start, length: u64::from(over.max(first)) } })
            }
            // The last chunk of what is lost reaches into this child.
            Reach::Lost(finding) => {
                Extent::between(start, start + u64::from(first)).map(|extent| Hit { finding, extent })
            }
            Reach::Over(_) | Reach::Unknown => None,
        }
    }

    /// Compares the names that a parent gives with a part's own table.
    fn check_names(&mut self, part: &Part, own: &[PackRef]) -> Vec<Hit> {
        if part.names.as_deref().is_none_or(|names| names == own) {
            return Vec::new();
        }
        self.names_lie = true;
        let error = FormatError::BadValue("a node does not give the names of its child's table");
        let finding = self.contradiction(&part.at, &error);
        Extent::between(0, part.span).map(|extent| Hit { finding, extent }).into_iter().collect()
    }

    fn contradiction(&self, at: &Location, error: &FormatError) -> FindingId {
        self.findings.note(FindingKind::ContradictoryMap, &at.pack.name.blob(), || {
            format!("the page or node at offset {}: {error}", at.offset)
        })
    }

    /// The payloads of parts; in place of one that cannot be read, the finding that says why.
    fn payloads(
        &self,
        kind: FrameKind,
        parts: &[&Part],
    ) -> Result<Vec<Result<Vec<u8>, FindingId>>, EngineError> {
        let locations: Vec<Location> = parts.iter().map(|part| part.at.clone()).collect();
        let payloads = self.frames.read_each(kind, &locations)?;
        let note = |(payload, at): (Result<Vec<u8>, EngineError>, &Location)| {
            payload.map_err(|error| unreadable(self.findings, at, &error))
        };
        Ok(payloads.into_iter().zip(&locations).map(note).collect())
    }
}

/// How many of the parts, at least one, may be in memory together.
fn fitting(parts: &[&Part]) -> usize {
    let mut plain_bytes = 0;
    let fits = |part: &&&Part| {
        plain_bytes += u64::from(part.at.plain_len);
        plain_bytes <= PLAIN_BYTES_AT_ONCE
    };
    parts.iter().take_while(fits).count().max(1)
}

/// Notes that a frame cannot be read.
pub(super) fn unreadable(findings: &Findings, at: &Location, error: &EngineError) -> FindingId {
    let kind = match error {
        EngineError::Store(_) => FindingKind::MissingPack,
        _ => FindingKind::DamagedPack,
    };
    // It may have been repacked, and is then looked for in other packs.
    let named = at.pack.name.blob();
    let blob = error.damaged_blob().unwrap_or(&named);
    findings.note(kind, blob, || {
        if *blob == named {
            format!("the frame at offset {}: {}", at.offset, chain(error))
        } else {
            format!("a frame that was repacked from {named}: {}", chain(error))
        }
    })
}

/// The stored children of a node that starts at `start`.
fn children(shape: &Shape, node: &Node, start: u64) -> Vec<Part> {
    let span = shape.span(node.level - 1);
    let has_names = node.level <= 2;
    (0..FANOUT)
        .zip(&node.children)
        .filter_map(|(slot, child)| match child {
            Child::Hole => None,
            Child::Stored { at, names } => {
                let start = start + slot * span;
                let span = span.min(shape.size - start);
                Some(Part { at: at.clone(), names: has_names.then(|| names.clone()), start, span })
            }
        })
        .collect()
}

/// All that what is found out about a part depends on.
fn key(shape: &Shape, level: u8, part: &Part) -> Key {
    let mut hasher = blake3::Hasher::new();
    let Location { pack, codec, offset, stored_len, plain_len, id } = &part.at;
    hash_pack(&mut hasher, pack);
    hasher.update(&[level, *codec as u8]).update(&id.0);
    for number in [*offset, *stored_len, *plain_len] {
        hasher.update(&number.to_le_bytes());
    }
    // Where it lies within its region, and how far from the disk's end if that is near.
    let region_len = u64::from(shape.region_len);
    let left = (shape.size - part.start).min(part.span.saturating_add(region_len));
    for number in [part.start % region_len, part.span, left] {
        hasher.update(&number.to_le_bytes());
    }
    for name in part.names.iter().flatten() {
        hash_pack(&mut hasher, name);
    }
    let mut key = Key::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

fn hash_pack(hasher: &mut blake3::Hasher, pack: &PackRef) {
    let writer = pack.name.writer.as_str().as_bytes();
    let writer_len = u8::try_from(writer.len()).expect("a writer id is at most 63 bytes");
    hasher.update(&[pack.name.kind as u8, writer_len]).update(writer).update(&pack.name.session.0);
    hasher.update(&pack.name.number.to_le_bytes()).update(&pack.len.to_le_bytes());
}
