//! What a disk loses with each frame, read from its map by a reader of its own.

use crate::lab::{Kept, Lab, sound};
use keepstone_engine::{Extent, Repository};
use repo_format::{
    BlobName, Child, Decoder, Entry, FrameEntry, FrameKind, Location, Node, PACK_HEADER_LEN, PackHeader,
    PackOpener, Page, PageBounds, child_count, child_span, root_level,
};

/// A frame that a disk needs.
pub struct Need {
    pub kind: FrameKind,
    pub at: Location,
    /// The nodes that lead to it, and the page.
    pub above: Vec<Location>,
    /// What cannot be restored without it.
    pub lost: Extent,
    /// What a verification names: from the start of the cell or node on.
    pub named: Extent,
}

impl Need {
    pub fn blob(&self) -> BlobName {
        self.at.pack.name.blob()
    }
}

/// Where a frame is in its blob.
pub fn range(at: &Location) -> std::ops::Range<usize> {
    let start = at.offset as usize;
    start..start + at.stored_len as usize
}

/// All that a disk needs.
pub fn needs(lab: &Lab, kept: &Kept) -> Vec<Need> {
    let repository = sound(lab);
    let disk = kept.snapshot.disk(Some(kept.key)).unwrap();
    let cell_len = repository.config().geometry.cell_len;
    let mut oracle =
        Oracle { repository: &repository, size: disk.size, above: Vec::new(), needs: Vec::new() };
    if let Some(root) = &disk.map {
        oracle.node(root_level(disk.size, cell_len), 0, root);
    }
    oracle.needs
}

struct Oracle<'a> {
    repository: &'a Repository<'a>,
    size: u64,
    above: Vec<Location>,
    needs: Vec<Need>,
}

impl Oracle<'_> {
    /// Goes through a node; returns where what starts in it begins and ends.
    fn node(&mut self, level: u8, index: u64, at: &Location) -> Extent {
        let cell_len = self.repository.config().geometry.cell_len;
        let span = child_span(level + 1, cell_len);
        let count = child_count((self.size - index * span).min(span), level, cell_len);
        let payload = self.payload(FrameKind::Node, at);
        let node = Node::parse(&payload, level, count, &at.pack).unwrap();
        let start = index * span;
        let mut pieces = Extent { start, length: (self.size - start).min(span) };
        self.above.push(at.clone());
        for (slot, child) in (0..).zip(&node.children) {
            let Child::Stored { at, .. } = child else { continue };
            let number = index * 64 + slot;
            let below = if level == 1 { self.page(number, at) } else { self.node(level - 1, number, at) };
            let end = pieces.end().max(below.end());
            if slot == 0 {
                pieces.start = below.start;
            }
            pieces.length = end - pieces.start;
        }
        self.above.pop();
        self.need(FrameKind::Node, at, pieces, start);
        pieces
    }

    fn page(&mut self, cell: u64, at: &Location) -> Extent {
        let geometry = &self.repository.config().geometry;
        let bounds = PageBounds::of(geometry, self.size, cell).unwrap();
        let page = Page::parse(&self.payload(FrameKind::Page, at), &bounds).unwrap();
        let cell_start = cell * u64::from(geometry.cell_len);
        let mut pieces = Extent { start: cell_start + u64::from(page.first), length: 0 };
        self.above.push(at.clone());
        for entry in &page.entries {
            let extent = Extent { start: pieces.end(), length: u64::from(entry.len()) };
            if let Entry::Chunk(at) = entry {
                self.need(FrameKind::Chunk, at, extent, extent.start);
            }
            pieces.length += extent.length;
        }
        self.above.pop();
        self.need(FrameKind::Page, at, pieces, cell_start);
        pieces
    }

    fn need(&mut self, kind: FrameKind, at: &Location, lost: Extent, named_from: u64) {
        let named = Extent { start: named_from, length: lost.end() - named_from };
        let above = self.above.clone();
        self.needs.push(Need { kind, at: at.clone(), above, lost, named });
    }

    fn payload(&self, kind: FrameKind, at: &Location) -> Vec<u8> {
        let blob = self.repository.store().get(&at.pack.name.blob(), None).unwrap();
        let header = PackHeader::parse(&blob[..PACK_HEADER_LEN]).unwrap();
        let opener = PackOpener::new(self.repository.keys(), &at.pack.name, &header).unwrap();
        let mut sealed = blob[at.offset as usize..][..at.stored_len as usize].to_vec();
        let encoded = opener.open_frame(at.offset, &FrameEntry::at(at, kind), &mut sealed).unwrap();
        let mut plain = vec![0; at.plain_len as usize];
        Decoder::new().decode_into(at.codec, encoded, &mut plain).unwrap();
        plain
    }
}
