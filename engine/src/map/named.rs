//! Which packs maps name, told by their nodes alone.
//!
//! Every map node of level 2 names the packs that its subtree names or is stored in (NODE-2), so no node below is read,
//! and no page. A node that several disks share is read once.
//!
//! # Memory
//! About 60 bytes for each distinct node of level 2 and above (one for 4 GiB of a disk, and one for each change of it),
//! 4 bytes for each fact that is to be known of what it names, and [`NODES_AT_ONCE`] nodes while they are read.

use super::{FANOUT, Shape};
use crate::error::EngineError;
use crate::frames::FrameReader;
use crate::snapshots::Snapshot;
use repo_format::{Child, FrameKind, Location, Node, PackName, PackRef};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Nodes that are in memory together: some 20 MiB if each names all packs of 4 GiB.
const NODES_AT_ONCE: usize = 256;
/// Roots whose nodes are read together, so that a store far away is asked for many at a time.
pub(crate) const ROOTS_AT_ONCE: usize = 256;

/// Facts by their numbers, sorted.
pub(crate) type Facts = Arc<[u32]>;

/// What is to be known of the packs that are named, and of nodes that cannot be read.
pub(crate) trait Notes {
    /// The facts of some packs: for each of the lists, those that are to be known of what it has, sorted.
    fn note(&mut self, named: &[Vec<PackRef>]) -> Result<Vec<Vec<u32>>, EngineError>;

    /// The fact that a node cannot be read, if that is known without trying.
    fn out_of_reach(&self, node: &Location) -> Option<u32>;

    /// The fact that a node turned out to be damaged or missing, or an error that ends it all.
    fn unreadable(&mut self, node: &Location, damage: EngineError) -> Result<u32, EngineError>;
}

/// Reads the nodes of snapshots' maps.
pub(crate) struct NamedPacks<'r, 's> {
    frames: FrameReader<'r, 's>,
    /// What is to be known of all that each node that was read names, or a node below it.
    seen: HashMap<Key, Facts>,
    /// What most nodes have.
    nothing: Facts,
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

impl<'r, 's> NamedPacks<'r, 's> {
    pub(crate) fn new(frames: FrameReader<'r, 's>) -> Self {
        Self { frames, seen: HashMap::new(), nothing: Arc::from([]) }
    }

    /// Forgets the facts of all nodes but those that are still to be known.
    pub(crate) fn retain(&mut self, is_wanted: &dyn Fn(u32) -> bool) {
        for facts in self.seen.values_mut() {
            if !facts.iter().all(|fact| is_wanted(*fact)) {
                let wanted: Vec<u32> = facts.iter().copied().filter(|fact| is_wanted(*fact)).collect();
                *facts = if wanted.is_empty() { Arc::clone(&self.nothing) } else { wanted.into() };
            }
        }
    }

    /// For each root, the facts of all that it names, sorted. Several hundred roots should come at a time.
    ///
    /// # Errors
    /// A failing store, and what `notes` makes an error.
    pub(crate) fn facts(
        &mut self,
        roots: &[Snapshot],
        notes: &mut dyn Notes,
    ) -> Result<Vec<Vec<u32>>, EngineError> {
        let geometry = self.frames.repository().config().geometry;
        let mut parts = Vec::new();
        let mut of_root = Vec::new();
        for (number, root) in roots.iter().enumerate() {
            for disk in &root.commit.disks {
                let Some(at) = disk.map.clone() else { continue };
                let shape = Shape::new(&geometry, disk.size);
                of_root.push(number);
                parts.push(Part { level: shape.root_level(), shape, index: 0, at });
            }
        }
        let holders: Vec<Vec<PackRef>> = parts.iter().map(|part| vec![part.at.pack.clone()]).collect();
        let holders = notes.note(&holders)?;
        let mut facts = vec![Vec::new(); roots.len()];
        for ((number, holder), below) in of_root.into_iter().zip(holders).zip(self.visit(parts, notes)?) {
            facts[number].extend(holder);
            facts[number].extend_from_slice(&below);
        }
        for facts in &mut facts {
            facts.sort_unstable();
            facts.dedup();
        }
        Ok(facts)
    }

    /// The facts of all that is named at or below each part.
    fn visit(&mut self, parts: Vec<Part>, notes: &mut dyn Notes) -> Result<Vec<Facts>, EngineError> {
        let keys: Vec<Key> = parts.iter().map(key).collect();
        let mut unread: Vec<Part> = Vec::new();
        let mut asked = HashSet::new();
        for (part, key) in parts.into_iter().zip(&keys) {
            if self.seen.contains_key(key) || !asked.insert(*key) {
                continue;
            }
            match notes.out_of_reach(&part.at) {
                Some(fact) => drop(self.seen.insert(*key, Arc::from([fact]))),
                None => unread.push(part),
            }
        }
        while !unread.is_empty() {
            let batch: Vec<Part> = unread.drain(..unread.len().min(NODES_AT_ONCE)).collect();
            self.read(&batch, notes)?;
        }
        Ok(keys.iter().map(|key| Arc::clone(&self.seen[key])).collect())
    }

    fn read(&mut self, parts: &[Part], notes: &mut dyn Notes) -> Result<(), EngineError> {
        let locations: Vec<Location> = parts.iter().map(|part| part.at.clone()).collect();
        let payloads = self.frames.read_each(FrameKind::Node, &locations)?;
        let mut unreadable: Vec<Option<u32>> = Vec::with_capacity(parts.len());
        let mut named: Vec<Vec<PackRef>> = Vec::with_capacity(parts.len());
        let mut below: Vec<Part> = Vec::new();
        let mut counts = Vec::with_capacity(parts.len());
        for (part, payload) in parts.iter().zip(payloads) {
            let before = below.len();
            match payload.and_then(|payload| part.parse(&payload)) {
                Ok(node) => {
                    named.push(node.packs());
                    unreadable.push(None);
                    if part.level > 2 {
                        below.extend(children(part, &node));
                    }
                }
                Err(error) if error.is_damage() => {
                    named.push(Vec::new());
                    unreadable.push(Some(notes.unreadable(&part.at, error)?));
                }
                Err(error) => return Err(error),
            }
            counts.push(below.len() - before);
        }
        let own = notes.note(&named)?;
        drop(named);
        let mut found = if below.is_empty() { Vec::new() } else { self.visit(below, notes)? }.into_iter();
        for (((part, mut facts), unreadable), count) in parts.iter().zip(own).zip(unreadable).zip(counts) {
            facts.extend(unreadable);
            for below in found.by_ref().take(count) {
                facts.extend_from_slice(&below);
            }
            facts.sort_unstable();
            facts.dedup();
            let facts = if facts.is_empty() { Arc::clone(&self.nothing) } else { facts.into() };
            self.seen.insert(key(part), facts);
        }
        Ok(())
    }
}

impl Part {
    fn parse(&self, payload: &[u8]) -> Result<Node, EngineError> {
        let count = self.shape.child_count(self.level, self.index);
        let node = Node::parse(payload, self.level, count, &self.at.pack);
        node.map_err(EngineError::damaged(&self.at.pack.name.blob()))
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
    hasher.update(&part.at.pack.len.to_le_bytes());
    hasher.update(&[*kind as u8, part.level, count]).update(writer.as_str().as_bytes());
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes begin with 16 bytes")
}
