//! A reader of maps of its own: what a snapshot names, found by reading every node and page.

use keepstone_engine::Repository;
use keepstone_engine::snapshots::Snapshot;
use repo_format::{
    Child, Decoder, Entry, FrameEntry, FrameKind, Location, Node, PACK_HEADER_LEN, PackHeader, PackKind,
    PackName, PackOpener, PackRef, Page, PageBounds, child_count, child_span, root_level,
};
use std::collections::{BTreeMap, BTreeSet};

/// The only disk of a snapshot.
#[derive(Default)]
pub struct Map {
    pub root: Option<Location>,
    /// All packs that the snapshot names or is stored in.
    pub packs: BTreeSet<PackRef>,
    /// The packs that nodes are stored in, one for each node.
    pub nodes: Vec<PackName>,
    /// By cell: what denotes the page.
    pub pages: BTreeMap<u64, Child>,
    /// All chunks, in order.
    pub chunks: Vec<Location>,
}

impl Map {
    pub fn of(repository: &Repository<'_>, snapshot: &Snapshot) -> Self {
        let disk = snapshot.disk(None).unwrap();
        let mut map = Self { root: disk.map.clone(), ..Self::default() };
        if let Some(root) = &disk.map {
            let level = root_level(disk.size, repository.config().geometry.cell_len);
            let names = map.node(repository, disk.size, (level, 0), root);
            map.packs.extend(names);
        }
        map
    }

    pub fn data_packs(&self) -> Vec<PackRef> {
        self.packs.iter().filter(|pack| pack.name.kind == PackKind::Data).cloned().collect()
    }

    /// The cells whose pages name a pack or are stored in it.
    pub fn cells_of(&self, pack: &PackName) -> Vec<u64> {
        let of_pack = |child: &&Child| match child {
            Child::Hole => false,
            Child::Stored { at, names } => {
                at.pack.name == *pack || names.iter().any(|name| name.name == *pack)
            }
        };
        self.pages.iter().filter(|(_, child)| of_pack(child)).map(|(cell, _)| *cell).collect()
    }

    /// Reads a node and all below it; returns its pack set, which what it says of its children has to match.
    fn node(
        &mut self,
        repository: &Repository<'_>,
        size: u64,
        (level, index): (u8, u64),
        at: &Location,
    ) -> BTreeSet<PackRef> {
        let cell_len = repository.config().geometry.cell_len;
        let span = child_span(level + 1, cell_len);
        let count = child_count((size - index * span).min(span), level, cell_len);
        let node = Node::parse(&payload(repository, FrameKind::Node, at), level, count, &at.pack).unwrap();
        self.nodes.push(at.pack.name.clone());
        let mut all = BTreeSet::from([at.pack.clone()]);
        for (child, number) in node.children.iter().zip(index * 64..) {
            let Child::Stored { at, names } = child else { continue };
            let names: BTreeSet<PackRef> = names.iter().cloned().collect();
            let below = if level == 1 {
                self.pages.insert(number, child.clone());
                self.page(repository, size, number, at)
            } else {
                self.node(repository, size, (level - 1, number), at)
            };
            if level <= 2 {
                let own = BTreeSet::from([at.pack.clone()]);
                assert_eq!(&names | &own, &below | &own, "the names of a child of level {level}");
            }
            all.insert(at.pack.clone());
            all.extend(below);
        }
        all
    }

    fn page(
        &mut self,
        repository: &Repository<'_>,
        size: u64,
        cell: u64,
        at: &Location,
    ) -> BTreeSet<PackRef> {
        let bounds = PageBounds::of(&repository.config().geometry, size, cell).unwrap();
        let page = Page::parse(&payload(repository, FrameKind::Page, at), &bounds).unwrap();
        self.chunks.extend(page.entries.iter().filter_map(|entry| match entry {
            Entry::Hole { .. } => None,
            Entry::Chunk(at) => Some(at.clone()),
        }));
        page.packs().into_iter().collect()
    }
}

fn payload(repository: &Repository<'_>, kind: FrameKind, at: &Location) -> Vec<u8> {
    let blob = repository.store().get(&at.pack.name.blob(), None).unwrap();
    let header = PackHeader::parse(&blob[..PACK_HEADER_LEN]).unwrap();
    let opener = PackOpener::new(repository.keys(), &at.pack.name, &header).unwrap();
    let mut sealed = blob[at.offset as usize..(at.offset + at.stored_len) as usize].to_vec();
    let encoded = opener.open_frame(at.offset, &FrameEntry::at(at, kind), &mut sealed).unwrap();
    let mut plain = vec![0; at.plain_len as usize];
    Decoder::new().decode_into(at.codec, encoded, &mut plain).unwrap();
    plain
}
