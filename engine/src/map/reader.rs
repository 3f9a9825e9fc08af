//! Reading a disk map: nodes and pages on demand, in batches, cached.

use super::{FANOUT, Shape};
use crate::error::EngineError;
use crate::frames::{FrameReader, Payload, lock};
use repo_format::{BlobName, Child, FrameKind, Location, Node, PackName, Page, PageBounds, PayloadId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

/// Nodes kept: with a few KiB each some MiB, and all nodes above 64 GiB of disk.
const NODES_MAX: usize = 2048;

/// Nodes that are read in one batch where all of them are looked at: some MiB of them.
const NODES_AT_ONCE: usize = 256;
/// Damaged nodes that are remembered.
const UNREADABLE_MAX: usize = 2048;

/// What a node that was read is remembered by: its id, and what it was checked to be. One that is right in one place is
/// wrong in another if that is of another level, or is to have other children.
type NodeKey = (PayloadId, u8, u8);

/// What frames are read with.
enum Frames<'f, 'r, 's> {
    /// Together with others.
    Shared(&'f FrameReader<'r, 's>),
    Own(Box<FrameReader<'r, 's>>),
}

/// The map of one disk of one snapshot.
pub(crate) struct MapReader<'f, 'r, 's> {
    frames: Frames<'f, 'r, 's>,
    shape: Shape,
    root: Option<Location>,
    nodes: Mutex<HashMap<NodeKey, Arc<Node>>>,
    /// Nodes that are damaged: each is tried once, and not for every cell below it.
    unreadable: Mutex<HashMap<Location, EngineError>>,
}

impl<'f, 'r, 's> MapReader<'f, 'r, 's> {
    pub(crate) fn new(frames: &'f FrameReader<'r, 's>, shape: Shape, root: Option<Location>) -> Self {
        Self::with(Frames::Shared(frames), shape, root)
    }

    /// A map that nobody shares the reader of frames with.
    pub(crate) fn with_own_frames(frames: FrameReader<'r, 's>, shape: Shape, root: Option<Location>) -> Self {
        Self::with(Frames::Own(Box::new(frames)), shape, root)
    }

    fn with(frames: Frames<'f, 'r, 's>, shape: Shape, root: Option<Location>) -> Self {
        Self { frames, shape, root, nodes: Mutex::default(), unreadable: Mutex::default() }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What its frames are read with.
    pub(crate) fn frames(&self) -> &FrameReader<'r, 's> {
        match &self.frames {
            Frames::Shared(frames) => frames,
            Frames::Own(frames) => frames,
        }
    }

    /// The blob to name when the map as a whole does not fit together.
    pub(crate) fn name(&self) -> BlobName {
        self.root.as_ref().map_or_else(BlobName::config, |root| root.pack.name.blob())
    }

    /// What denotes the node of a level (0: the page) by its index; a hole where there is none.
    ///
    /// Above the root there is none.
    pub(crate) fn child(&self, level: u8, index: u64) -> Result<Child, EngineError> {
        let root_level = self.shape.root_level();
        if level > root_level {
            return Ok(Child::Hole);
        }
        if level == root_level {
            return self.root_child(index);
        }
        match self.node(level + 1, index / FANOUT)? {
            Some(node) => Ok(node.children.get((index % FANOUT) as usize).cloned().unwrap_or(Child::Hole)),
            None => Ok(Child::Hole),
        }
    }

    fn root_child(&self, index: u64) -> Result<Child, EngineError> {
        match &self.root {
            Some(at) if index == 0 => {
                // As a child of level 2 it would carry its names, as one of a higher level none (NODE-2).
                let level = self.shape.root_level();
                let names = if level == 1 { self.load(at, level, 0)?.packs() } else { Vec::new() };
                Ok(Child::Stored { at: at.clone(), names })
            }
            _ => Ok(Child::Hole),
        }
    }

    /// A node by its level and index; nothing where all is one hole or behind the end.
    pub(crate) fn node(&self, level: u8, index: u64) -> Result<Option<Arc<Node>>, EngineError> {
        if index >= self.shape.nodes(level) || level > self.shape.root_level() {
            return Ok(None);
        }
        match self.child(level, index)? {
            Child::Hole => Ok(None),
            Child::Stored { at, .. } => Ok(Some(self.load(&at, level, index)?)),
        }
    }

    fn load(&self, at: &Location, level: u8, index: u64) -> Result<Arc<Node>, EngineError> {
        if let Some(node) = lock(&self.nodes).get(&self.key(at, level, index)) {
            return Ok(Arc::clone(node));
        }
        if let Some(damage) = lock(&self.unreadable).get(at).and_then(EngineError::damage) {
            return Err(damage);
        }
        let mut payloads = self.frames().read_each(FrameKind::Node, std::slice::from_ref(at))?;
        let payload = payloads.pop().expect("one location gives one payload");
        self.keep(at, payload, level, index)
    }

    /// Remembers a node, or that it is damaged.
    fn keep(&self, at: &Location, payload: Payload, level: u8, index: u64) -> Result<Arc<Node>, EngineError> {
        let count = self.shape.child_count(level, index);
        let node = payload.and_then(|payload| {
            let node = Node::parse(&payload, level, count, &at.pack);
            node.map_err(EngineError::damaged(&at.pack.name.blob()))
        });
        match node {
            Ok(node) => {
                let node = Arc::new(node);
                let mut nodes = lock(&self.nodes);
                if nodes.len() >= NODES_MAX {
                    nodes.clear();
                }
                nodes.insert(self.key(at, level, index), Arc::clone(&node));
                Ok(node)
            }
            Err(error) => {
                let mut unreadable = lock(&self.unreadable);
                if unreadable.len() >= UNREADABLE_MAX {
                    unreadable.clear();
                }
                unreadable.extend(error.damage().map(|damage| (at.clone(), damage)));
                Err(error)
            }
        }
    }

    /// Loads the nodes of level 1 over the given cells (ascending) in few rounds of requests.
    pub(crate) fn prefetch(&self, cells: &[u64]) -> Result<(), EngineError> {
        for level in (1..self.shape.root_level()).rev() {
            let span = FANOUT.pow(u32::from(level));
            let mut wanted: BTreeMap<u64, Location> = BTreeMap::new();
            let mut last = None;
            for index in cells.iter().map(|cell| cell / span) {
                if last.replace(index) == Some(index) {
                    continue;
                }
                match self.child(level, index) {
                    Ok(Child::Stored { at, .. }) if !self.knows(&at, level, index) => {
                        drop(wanted.insert(index, at));
                    }
                    Err(error) if !error.is_damage() => return Err(error),
                    _ => {}
                }
            }
            if wanted.len() < 2 {
                continue;
            }
            let locations: Vec<Location> = wanted.values().cloned().collect();
            let payloads = self.frames().read_each(FrameKind::Node, &locations)?;
            for ((index, at), payload) in wanted.iter().zip(payloads) {
                // Whoever asks for one that is damaged is told.
                let _remembered = self.keep(at, payload, level, *index);
            }
        }
        Ok(())
    }

    fn key(&self, at: &Location, level: u8, index: u64) -> NodeKey {
        (at.id, level, self.shape.child_count(level, index))
    }

    fn knows(&self, at: &Location, level: u8, index: u64) -> bool {
        lock(&self.nodes).contains_key(&self.key(at, level, index)) || lock(&self.unreadable).contains_key(at)
    }

    /// The pages of cells (ascending); nothing for cells that are one hole.
    pub(crate) fn pages(&self, cells: &[u64]) -> Result<Vec<Option<Page>>, EngineError> {
        self.each_page(cells)?.into_iter().collect()
    }

    /// As [`MapReader::pages`]; what is damaged or missing keeps nothing else from being read.
    pub(crate) fn each_page(
        &self,
        cells: &[u64],
    ) -> Result<Vec<Result<Option<Page>, EngineError>>, EngineError> {
        let mut pages: Vec<Result<Option<Page>, EngineError>> = cells.iter().map(|_| Ok(None)).collect();
        if self.root.is_none() {
            return Ok(pages);
        }
        self.prefetch(cells)?;
        let mut wanted = Vec::new();
        let mut locations = Vec::new();
        for (position, &cell) in cells.iter().enumerate() {
            match self.child(0, cell) {
                Ok(Child::Hole) => {}
                Ok(Child::Stored { at, .. }) => {
                    wanted.push(position);
                    locations.push(at);
                }
                Err(error) if error.is_damage() => pages[position] = Err(error),
                Err(error) => return Err(error),
            }
        }
        let payloads = self.frames().read_each(FrameKind::Page, &locations)?;
        for ((position, payload), at) in wanted.into_iter().zip(payloads).zip(&locations) {
            pages[position] = payload.and_then(|payload| {
                let page = Page::parse(&payload, &self.bounds(cells[position]));
                page.map(Some).map_err(EngineError::damaged(&at.pack.name.blob()))
            });
        }
        Ok(pages)
    }

    /// The first cell from `cell` on that has a page, or may have one: where a node is damaged, the first below it.
    pub(crate) fn next_page(&self, cell: u64) -> Result<Option<u64>, EngineError> {
        self.next_page_below(self.shape.root_level(), 0, cell)
    }

    fn next_page_below(&self, level: u8, index: u64, cell: u64) -> Result<Option<u64>, EngineError> {
        let cells = FANOUT.pow(u32::from(level));
        if (index + 1) * cells <= cell {
            return Ok(None);
        }
        match self.child(level, index) {
            Ok(Child::Hole) => return Ok(None),
            Err(error) if error.is_damage() => return Ok(Some(cell.max(index * cells))),
            child => drop(child?),
        }
        if level == 0 {
            return Ok(Some(index));
        }
        let first = (cell / FANOUT.pow(u32::from(level - 1))).max(index * FANOUT);
        for child in first..index * FANOUT + u64::from(self.shape.child_count(level, index)) {
            if let found @ Some(_) = self.next_page_below(level - 1, child, cell)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// An error of reading the map, saying from where on the disk cannot be restored.
    pub(crate) fn unreadable(offset: u64, source: EngineError) -> EngineError {
        EngineError::MapUnreadable { offset, source: Box::new(source) }
    }

    fn bounds(&self, cell: u64) -> PageBounds {
        let geometry = &self.frames().repository().config().geometry;
        PageBounds::of(geometry, self.shape.size, cell).expect("only cells of the disk are read")
    }

    /// All packs that the map names or is stored in; reads nodes down to `lowest`, at most level 2, and no page.
    pub(crate) fn pack_set(&self, lowest: u8) -> Result<BTreeMap<PackName, u32>, EngineError> {
        let mut packs = BTreeMap::new();
        let Some(root) = &self.root else { return Ok(packs) };
        packs.insert(root.pack.name.clone(), root.pack.len);
        let mut seen = BTreeSet::new();
        let mut level = self.shape.root_level();
        let mut nodes = vec![(0u64, root.clone())];
        loop {
            let mut below = Vec::new();
            for batch in nodes.chunks(NODES_AT_ONCE) {
                let locations: Vec<Location> = batch.iter().map(|(_, at)| at.clone()).collect();
                let payloads = self.frames().read_each(FrameKind::Node, &locations)?;
                for ((index, at), payload) in batch.iter().zip(payloads) {
                    let node = self.keep(at, payload, level, *index)?;
                    packs.extend(node.packs().into_iter().map(|pack| (pack.name, pack.len)));
                    for (slot, child) in (0u64..).zip(&node.children) {
                        if let Child::Stored { at, .. } = child
                            && level > lowest
                            && seen.insert(at.id)
                        {
                            below.push((index * FANOUT + slot, at.clone()));
                        }
                    }
                }
            }
            if below.is_empty() {
                return Ok(packs);
            }
            nodes = below;
            level -= 1;
        }
    }
}
