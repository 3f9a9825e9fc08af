//! Walking the map of a root, in the order of addresses, as far as it names packs that are emptied.

use super::classes::Class;
use super::copy::Copier;
use crate::error::EngineError;
use crate::map::{FANOUT, Shape};
use crate::repository::Repository;
use repo_format::{Child, Commit, Entry, FrameKind, Location, Node, PackRef, Page, PageBounds};

/// One root's walk.
pub(super) struct Walk<'w, 'c, 'r, 's> {
    repository: &'r Repository<'s>,
    class: &'w Class,
    copier: &'w mut Copier<'c, 'r, 's>,
}

/// A part of a map: a node, or, at level 0, a page.
struct Part {
    level: u8,
    index: u64,
    at: Location,
}

impl<'w, 'c, 'r, 's> Walk<'w, 'c, 'r, 's> {
    pub(super) fn new(
        repository: &'r Repository<'s>,
        class: &'w Class,
        copier: &'w mut Copier<'c, 'r, 's>,
    ) -> Self {
        Self { repository, class, copier }
    }

    /// Wants everything of the packs that the root's disks need.
    pub(super) fn root(&mut self, root: &Commit) -> Result<(), EngineError> {
        let geometry = self.repository.config().geometry;
        for disk in &root.disks {
            let Some(at) = disk.map.clone() else { continue };
            let shape = Shape::new(&geometry, disk.size);
            self.parts(&shape, vec![Part { level: shape.root_level(), index: 0, at }])?;
        }
        Ok(())
    }

    /// Goes through parts of one level, which are read together.
    fn parts(&mut self, shape: &Shape, mut parts: Vec<Part>) -> Result<(), EngineError> {
        parts.retain(|part| self.copier.is_new(self.class.number, &part.at));
        let Some(first) = parts.first() else { return Ok(()) };
        let kind = if first.level == 0 { FrameKind::Page } else { FrameKind::Node };
        let locations: Vec<Location> = parts.iter().map(|part| part.at.clone()).collect();
        let payloads = self.copier.read(kind, &locations)?;
        let mut pages = Vec::new();
        for (part, payload) in parts.iter().zip(payloads) {
            self.want(&part.at)?;
            match part.level {
                0 => self.page(shape, part, &payload)?,
                1 => pages.extend(self.below(shape, part, &payload)?),
                _ => {
                    let below = self.below(shape, part, &payload)?;
                    self.parts(shape, below)?;
                }
            }
        }
        // All below one node of level 2 together: pages that were stored together are asked for together.
        self.parts(shape, pages)
    }

    fn page(&mut self, shape: &Shape, part: &Part, payload: &[u8]) -> Result<(), EngineError> {
        let geometry = &self.repository.config().geometry;
        let bounds = PageBounds::of(geometry, shape.size, part.index).expect("a cell of the disk");
        let page = Page::parse(payload, &bounds).map_err(EngineError::damaged(&part.at.pack.name.blob()))?;
        for entry in &page.entries {
            if let Entry::Chunk(at) = entry {
                self.want(at)?;
            }
        }
        Ok(())
    }

    /// The children of a node that name packs that are emptied, or may: below level 3 nodes tell.
    fn below(&self, shape: &Shape, part: &Part, payload: &[u8]) -> Result<Vec<Part>, EngineError> {
        let count = shape.child_count(part.level, part.index);
        let node = Node::parse(payload, part.level, count, &part.at.pack)
            .map_err(EngineError::damaged(&part.at.pack.name.blob()))?;
        let leads = |pack: &PackRef| self.class.leads_to(&pack.name).is_some();
        let is_of_interest =
            |at: &Location, names: &[PackRef]| part.level > 2 || leads(&at.pack) || names.iter().any(leads);
        let level = part.level - 1;
        let below = (part.index * FANOUT..).zip(node.children).filter_map(|(index, child)| match child {
            Child::Stored { at, names } if is_of_interest(&at, &names) => Some(Part { level, index, at }),
            _ => None,
        });
        Ok(below.collect())
    }

    fn want(&mut self, at: &Location) -> Result<(), EngineError> {
        match self.class.leads_to(&at.pack.name) {
            Some(packs) => self.copier.want(packs, at),
            None => Ok(()),
        }
    }
}
