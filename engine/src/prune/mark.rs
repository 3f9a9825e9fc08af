//! Marking: which packs valid roots need (PROTOCOL 2, P1 and P6).
//!
//! Every map node of level 2 names the packs that its subtree names or is stored in (NODE-2), so no node below is read,
//! and no page. A node that several disks share is read once.
//!
//! # Memory
//! About 60 bytes for each distinct node of level 2 and above (one for 4 GiB of a disk, and one for each change of it),
//! and some bytes for each pack that is needed.

use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::map::{FANOUT, Shape};
use crate::pack_set::PackSet;
use crate::records::{Records, follow};
use crate::repository::Repository;
use crate::snapshots::Snapshot;
use repo_format::{Child, FrameKind, Location, Node, PackName};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Nodes that are in memory together: some 20 MiB if each names all packs of 4 GiB.
const NODES_AT_ONCE: usize = 256;
/// Roots whose nodes are read together, so that a store far away is asked for many at a time.
const ROOTS_AT_ONCE: usize = 256;

/// What roots need, of those that were marked so far.
pub(crate) struct Marker<'r, 's> {
    frames: FrameReader<'r, 's>,
    /// Packs of which it matters which root names them, by their numbers in `watched`.
    numbers: HashMap<PackName, u32>,
    watched: Vec<PackName>,
    /// The watched packs that each node that was read names, or a node below it.
    seen: HashMap<Key, Rc<[u32]>>,
    /// What most nodes have.
    nothing: Rc<[u32]>,
    /// All packs that were named and are not watched, and those that watched ones lead to.
    needed: PackSet,
}

/// A node, as far as what it names depends on it: its payload's id, and the pack that holds it.
type Key = [u8; 16];

/// A node that is to be looked at.
struct Part {
    shape: Shape,
    level: u8,
    index: u64,
    at: Location,
}

impl<'r, 's> Marker<'r, 's> {
    /// `watched` are packs of which is to be told which roots name them.
    pub(crate) fn new(repository: &'r Repository<'s>, watched: impl IntoIterator<Item = PackName>) -> Self {
        let watched: Vec<PackName> = watched.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let numbers = (0u32..).zip(&watched).map(|(number, pack)| (pack.clone(), number)).collect();
        let frames = FrameReader::new(repository);
        Self {
            frames,
            numbers,
            watched,
            seen: HashMap::new(),
            nothing: Rc::from([]),
            needed: PackSet::default(),
        }
    }

    /// Marks what valid roots need through the records that apply to each; all packs that any of those records moves
    /// must be watched.
    ///
    /// # Errors
    /// A failing store, or a damaged node: what it names is not known, so nothing may be deleted.
    pub(crate) fn mark(&mut self, roots: &[Snapshot], records: &Records) -> Result<(), EngineError> {
        for roots in roots.chunks(ROOTS_AT_ONCE) {
            for (root, named) in roots.iter().zip(self.named(roots)?) {
                let applying = records.applying_to(root);
                for number in named {
                    for end in follow(&self.watched[number as usize], &applying).0 {
                        self.needed.insert_name(&end, 0);
                    }
                }
            }
        }
        Ok(())
    }

    /// For each root, the watched packs that it names, by their numbers.
    pub(crate) fn named(&mut self, roots: &[Snapshot]) -> Result<Vec<BTreeSet<u32>>, EngineError> {
        let geometry = self.frames.repository().config().geometry;
        let mut parts = Vec::new();
        let mut of_root = Vec::new();
        for (number, root) in roots.iter().enumerate() {
            for disk in &root.commit.disks {
                let Some(at) = disk.map.clone() else { continue };
                let shape = Shape::new(&geometry, disk.size);
                of_root.push((number, self.note(&at.pack)));
                parts.push(Part { level: shape.root_level(), shape, index: 0, at });
            }
        }
        let mut named = vec![BTreeSet::new(); roots.len()];
        for ((number, holder), below) in of_root.into_iter().zip(self.visit(parts)?) {
            named[number].extend(holder);
            named[number].extend(below.iter().copied());
        }
        Ok(named)
    }

    /// The packs that the marked roots need.
    pub(crate) fn into_needed(self) -> PackSet {
        self.needed
    }

    /// Notes a pack that is named; returns its number if it is watched.
    fn note(&mut self, pack: &repo_format::PackRef) -> Option<u32> {
        let number = self.numbers.get(&pack.name).copied();
        if number.is_none() {
            self.needed.insert(pack);
        }
        number
    }

    /// The watched packs that are named at or below each part.
    fn visit(&mut self, parts: Vec<Part>) -> Result<Vec<Rc<[u32]>>, EngineError> {
        let keys: Vec<Key> = parts.iter().map(key).collect();
        let mut unread: Vec<Part> = Vec::new();
        let mut asked = BTreeSet::new();
        for (part, key) in parts.into_iter().zip(&keys) {
            if !self.seen.contains_key(key) && asked.insert(*key) {
                unread.push(part);
            }
        }
        while !unread.is_empty() {
            let batch: Vec<Part> = unread.drain(..unread.len().min(NODES_AT_ONCE)).collect();
            self.read(&batch)?;
        }
        Ok(keys.iter().map(|key| Rc::clone(&self.seen[key])).collect())
    }

    fn read(&mut self, parts: &[Part]) -> Result<(), EngineError> {
        let locations: Vec<Location> = parts.iter().map(|part| part.at.clone()).collect();
        let payloads = self.frames.read_each(FrameKind::Node, &locations)?;
        let mut own: Vec<BTreeSet<u32>> = Vec::with_capacity(parts.len());
        let mut below: Vec<Part> = Vec::new();
        let mut counts = Vec::with_capacity(parts.len());
        for (part, payload) in parts.iter().zip(payloads) {
            let count = part.shape.child_count(part.level, part.index);
            let node = Node::parse(&payload?, part.level, count, &part.at.pack)
                .map_err(EngineError::damaged(&part.at.pack.name.blob()))?;
            own.push(node.packs().iter().filter_map(|pack| self.note(pack)).collect());
            let before = below.len();
            if part.level > 2 {
                below.extend(children(part, &node));
            }
            counts.push(below.len() - before);
        }
        let mut found = if below.is_empty() { Vec::new() } else { self.visit(below)? }.into_iter();
        for ((part, mut own), count) in parts.iter().zip(own).zip(counts) {
            own.extend(found.by_ref().take(count).flat_map(|below| below.to_vec()));
            let below = if own.is_empty() { Rc::clone(&self.nothing) } else { own.into_iter().collect() };
            self.seen.insert(key(part), below);
        }
        Ok(())
    }
}

fn children<'p>(part: &'p Part, node: &'p Node) -> impl Iterator<Item = Part> + 'p {
    (part.index * FANOUT..).zip(&node.children).filter_map(|(index, child)| match child {
        Child::Hole => None,
        Child::Stored { at, .. } => {
            Some(Part { shape: part.shape, level: part.level - 1, index, at: at.clone() })
        }
    })
}

/// What a node names follows from its payload, which has another form in another pack (TABLE-4) and at another level.
fn key(part: &Part) -> Key {
    let mut hasher = blake3::Hasher::new();
    let PackName { kind, writer, session, number } = &part.at.pack.name;
    hasher.update(&part.at.id.0).update(&session.0).update(&number.to_le_bytes());
    let count = part.shape.child_count(part.level, part.index);
    hasher.update(&[*kind as u8, part.level, count]).update(writer.as_str().as_bytes());
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes begin with 16 bytes")
}
