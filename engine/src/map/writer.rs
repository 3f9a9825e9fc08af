//! Writing a disk map: only touched pages and the nodes above them.

use super::reader::MapReader;
use super::{FANOUT, Shape, is_of_unusable};
use crate::error::EngineError;
use crate::pack::{ClosedPack, PackBuilder, Payload, Placed};
use repo_format::{Child, Encoder, Entry, FrameKind, Keys, Location, Node, PackName, PackRef, Page};

/// Fills map packs.
pub(crate) struct MapPacker<'k> {
    keys: &'k Keys,
    builder: PackBuilder,
    encoder: Encoder,
    encoded: Vec<u8>,
    closed: Vec<ClosedPack>,
}

impl<'k> MapPacker<'k> {
    pub(crate) fn new(keys: &'k Keys, builder: PackBuilder, encoder: Encoder) -> Self {
        Self { keys, builder, encoder, encoded: Vec::new(), closed: Vec::new() }
    }

    /// Packs that have been filled since the last call.
    pub(crate) fn take_closed(&mut self) -> Vec<ClosedPack> {
        std::mem::take(&mut self.closed)
    }

    /// Closes the last pack; the lengths of all are known afterwards.
    pub(crate) fn finish(&mut self) {
        self.closed.extend(self.builder.close());
    }

    pub(crate) fn builder(&self) -> &PackBuilder {
        &self.builder
    }

    fn make_room(&mut self, payload_len: usize) {
        self.closed.extend(self.builder.make_room(payload_len));
    }

    fn push(&mut self, kind: FrameKind, payload: &[u8]) -> Placed {
        self.encoded.clear();
        let codec = self.encoder.encode(payload, &mut self.encoded);
        let plain_len = u32::try_from(payload.len()).expect("pages and nodes are limited to some MiB");
        let id = self.keys.map_id(payload);
        self.builder.push(Payload { kind, codec, plain_len, id, encoded: &self.encoded })
    }

    fn push_page(&mut self, payload: &[u8]) -> Location {
        self.make_room(payload.len());
        let placed = self.push(FrameKind::Page, payload);
        self.builder.location(&placed)
    }

    /// Stores a node. The pack that it goes into is chosen before it is encoded, because its own table leaves out
    /// that pack's length (TABLE-4) and has those of the packs before it.
    fn push_node(&mut self, node: &mut Node) -> Location {
        self.fill_lens(node);
        let len = node.encode(&self.builder.name(self.builder.open_number())).len();
        self.make_room(len);
        self.fill_lens(node);
        let payload = node.encode(&self.builder.name(self.builder.open_number()));
        let placed = self.push(FrameKind::Node, &payload);
        self.builder.location(&placed)
    }

    /// Puts in the lengths of this session's map packs that have become known.
    fn fill_lens(&self, node: &mut Node) {
        for child in &mut node.children {
            if let Child::Stored { at, names } = child {
                for pack in names.iter_mut().chain([&mut at.pack]) {
                    self.fill_len(pack);
                }
            }
        }
    }

    pub(crate) fn fill_len(&self, pack: &mut PackRef) {
        if pack.len == 0 && self.builder.owns(&pack.name) {
            *pack = self.builder.pack_ref(pack.name.number);
        }
    }
}

/// What the parts of a map that are not written hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untouched {
    /// What they hold in the base.
    AsBase,
    /// Zeros.
    Hole,
}

/// Writes the map of one disk from pages that come in ascending order of cells.
pub(crate) struct MapWriter<'a, 'f, 'r, 's> {
    shape: Shape,
    base: &'a MapReader<'f, 'r, 's>,
    untouched: Untouched,
    /// Whether a pack that the base names may go on being named (W4).
    usable: &'a dyn Fn(&PackName) -> bool,
    /// The open node of each level, from level 1 up. If one is open, those above it are, too.
    open: Vec<Option<OpenNode>>,
}

struct OpenNode {
    index: u64,
    children: Vec<Child>,
    base: Child,
    changed: bool,
}

impl<'a, 'f, 'r, 's> MapWriter<'a, 'f, 'r, 's> {
    /// `base` is the parent's map: the content of what is untouched, or a hint of what is stored already.
    pub(crate) fn new(
        shape: Shape,
        base: &'a MapReader<'f, 'r, 's>,
        untouched: Untouched,
        usable: &'a dyn Fn(&PackName) -> bool,
    ) -> Self {
        let open = (0..shape.root_level()).map(|_| None).collect();
        Self { shape, base, untouched, usable, open }
    }

    /// Begins: opens what a disk that grew or shrank needs at its left edge.
    pub(crate) fn begin(&mut self, packer: &mut MapPacker<'_>) -> Result<(), EngineError> {
        if self.untouched == Untouched::AsBase && self.base.shape().size != self.shape.size {
            self.open_path(0, packer)?;
        }
        Ok(())
    }

    /// Sets the page of a cell; cells come in ascending order.
    pub(crate) fn put_page(
        &mut self,
        cell: u64,
        page: &Page,
        packer: &mut MapPacker<'_>,
    ) -> Result<(), EngineError> {
        self.open_path(cell, packer)?;
        // Also if nothing starts in the cell.
        let is_hole = page.entries.iter().all(|entry| matches!(entry, Entry::Hole { .. })) && page.first == 0;
        let child = if is_hole { Child::Hole } else { self.store_page(cell, page, packer)? };
        self.set(1, cell, child);
        Ok(())
    }

    /// Sets the page of a cell to the base's; cells come in ascending order.
    pub(crate) fn keep_page(&mut self, cell: u64, packer: &mut MapPacker<'_>) -> Result<(), EngineError> {
        self.open_path(cell, packer)?;
        let child = self.base_child(0, cell)?;
        self.set(1, cell, child);
        Ok(())
    }

    /// What the base has; nothing of where it is lost, if it is a hint only.
    fn base_child(&self, level: u8, index: u64) -> Result<Child, EngineError> {
        match self.base.child(level, index) {
            Err(error) if self.untouched == Untouched::Hole && is_of_unusable(&error, self.usable) => {
                Ok(Child::Hole)
            }
            child => child,
        }
    }

    fn store_page(&self, cell: u64, page: &Page, packer: &mut MapPacker<'_>) -> Result<Child, EngineError> {
        let payload = page.encode();
        let base = self.base_child(0, cell)?;
        if let Child::Stored { at, .. } = &base
            && at.id == packer.keys.map_id(&payload)
            && self.may_keep(&base)
        {
            return Ok(base);
        }
        Ok(Child::Stored { at: packer.push_page(&payload), names: page.packs() })
    }

    /// Ends the map: the place of its root node, nothing if the disk is one hole. The length of the last pack
    /// is 0 until it is closed.
    pub(crate) fn finish(mut self, packer: &mut MapPacker<'_>) -> Result<Option<Location>, EngineError> {
        let root_level = self.shape.root_level();
        if self.untouched == Untouched::AsBase && self.base.shape().size != self.shape.size {
            // The right edge has another number of children.
            self.open_path(self.shape.nodes(0) - 1, packer)?;
        }
        let mut root = match self.untouched {
            Untouched::AsBase => self.base.child(root_level, 0)?,
            Untouched::Hole => Child::Hole,
        };
        for level in 1..=root_level {
            if let Some(child) = self.close(level, packer) {
                root = child;
            }
        }
        Ok(match root {
            Child::Hole => None,
            Child::Stored { at, .. } => Some(at),
        })
    }

    fn open_path(&mut self, cell: u64, packer: &mut MapPacker<'_>) -> Result<(), EngineError> {
        let root_level = self.shape.root_level();
        let index = |level: u8| cell / FANOUT.pow(u32::from(level));
        for level in 1..=root_level {
            if self.open[slot(level)].as_ref().is_some_and(|node| node.index != index(level)) {
                self.close(level, packer);
            }
        }
        for level in (1..=root_level).rev() {
            if self.open[slot(level)].is_none() {
                self.open[slot(level)] = Some(self.open_node(level, index(level))?);
            }
        }
        Ok(())
    }

    fn open_node(&self, level: u8, index: u64) -> Result<OpenNode, EngineError> {
        let count = self.shape.child_count(level, index);
        let base = self.base_child(level, index)?;
        let mut children = vec![Child::Hole; usize::from(count)];
        let mut changed = true;
        if self.untouched == Untouched::AsBase {
            for (child, number) in children.iter_mut().zip(index * FANOUT..) {
                *child = self.base.child(level - 1, number)?;
            }
            let base_count =
                if index < self.base.shape().nodes(level) && level <= self.base.shape().root_level() {
                    self.base.shape().child_count(level, index)
                } else {
                    0
                };
            changed = base_count != count || !self.may_keep(&base);
        }
        Ok(OpenNode { index, children, base, changed })
    }

    /// Closes the open node of a level and puts it into the one above; returns it if there is none above.
    fn close(&mut self, level: u8, packer: &mut MapPacker<'_>) -> Option<Child> {
        let open = self.open[slot(level)].take()?;
        let index = open.index;
        let child = if open.children.iter().all(|child| *child == Child::Hole) {
            Child::Hole
        } else if open.changed {
            self.store_node(level, open, packer)
        } else {
            open.base
        };
        if level == self.shape.root_level() {
            return Some(child);
        }
        self.set(level + 1, index, child);
        None
    }

    fn store_node(&self, level: u8, open: OpenNode, packer: &mut MapPacker<'_>) -> Child {
        let mut node = Node { level, children: open.children };
        // A node with anything of this session in it is a new one.
        if let Child::Stored { at, .. } = &open.base
            && self.may_keep(&open.base)
            && !node.packs().iter().any(|pack| packer.builder.owns(&pack.name))
            && packer.keys.map_id(&node.encode(&at.pack.name)) == at.id
        {
            return open.base;
        }
        let at = packer.push_node(&mut node);
        let names = if level == 1 { node.packs() } else { Vec::new() };
        Child::Stored { at, names }
    }

    fn set(&mut self, level: u8, child_index: u64, child: Child) {
        let node = self.open[slot(level)].as_mut().expect("the nodes above an open one are open");
        let place = &mut node.children[(child_index % FANOUT) as usize];
        if *place != child {
            *place = child;
            node.changed = true;
        }
    }

    fn may_keep(&self, child: &Child) -> bool {
        match child {
            Child::Hole => true,
            // What lies below is looked at on its own: only touched nodes get here (see `condemned`).
            Child::Stored { at, .. } => (self.usable)(&at.pack.name),
        }
    }
}

fn slot(level: u8) -> usize {
    usize::from(level) - 1
}
