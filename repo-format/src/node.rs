//! Map nodes: the tree above the pages of a disk (SPEC 8.4).

use crate::bytes::{Writer, parse_all};
use crate::error::FormatError;
use crate::frame::{FrameKind, Location, PackRef, check_limit};
use crate::limits::{LEVELS_MAX, NODE_CHILDREN_MAX, NODE_LEN_MAX};
use crate::name::{PackKind, PackName};
use crate::table::{ReadTable, check_packs_in, entry_number, sorted_packs, write_location, write_table_in};

const HOLE: u8 = 0;
/// The highest level at which a child's names are listed.
const NAMES_LEVEL_MAX: u8 = 2;

/// A node of a disk map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its level: 1 above pages, else one more than its children's.
    pub level: u8,
    /// What it consists of, in the order of the disk.
    pub children: Vec<Child>,
}

/// A part of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    /// Nothing but zeros.
    Hole,
    /// A page or a node.
    Stored {
        /// Where it is stored.
        at: Location,
        /// The packs of its own table, sorted; empty in nodes above level 2.
        names: Vec<PackRef>,
    },
}

impl Child {
    /// Returns what the children of a node of that level are.
    #[must_use]
    pub fn kind(node_level: u8) -> FrameKind {
        if node_level <= 1 { FrameKind::Page } else { FrameKind::Node }
    }
}

impl Node {
    /// Encodes the node for the pack that will hold it, whose length is left out (TABLE-4) and may be anything here.
    ///
    /// # Panics
    /// If the node breaks a rule that [`Node::check`] knows, or is longer than [`NODE_LEN_MAX`].
    #[must_use]
    pub fn encode(&self, own_pack: &PackName) -> Vec<u8> {
        self.check_in(Some(own_pack)).expect("a node that is written is valid");
        let table = self.packs();
        check_packs_in(&table, Some(own_pack)).expect("a pack has one length");
        let mut writer = Writer::new();
        writer.u8(self.level);
        write_table_in(&mut writer, &table, Some(own_pack));
        writer.u8(u8::try_from(self.children.len()).expect("a node has at most 64 children"));
        for child in &self.children {
            match child {
                Child::Hole => {
                    writer.u8(HOLE);
                }
                Child::Stored { at, names } => {
                    write_location(&mut writer, &table, at);
                    if self.level <= NAMES_LEVEL_MAX {
                        writer.count(names.len());
                        for name in names {
                            writer.u32(entry_number(&table, name));
                        }
                    }
                }
            }
        }
        let bytes = writer.finish();
        assert!(bytes.len() <= NODE_LEN_MAX, "a node must keep to its limit");
        bytes
    }

    /// Parses a node that is to have this level and so many children, out of the pack by which it was reached.
    ///
    /// # Errors
    /// A node that breaks SPEC 8.2 or 8.4.
    pub fn parse(
        bytes: &[u8],
        expected_level: u8,
        child_count: u8,
        own_pack: &PackRef,
    ) -> Result<Self, FormatError> {
        check_limit("node length", bytes.len() as u64, NODE_LEN_MAX)?;
        let node = parse_all(bytes, |reader| {
            let level = reader.u8()?;
            if level != expected_level || !(1..=LEVELS_MAX).contains(&level) {
                return Err(FormatError::BadType { what: "the level of a node", found: level });
            }
            let mut table = ReadTable::read(reader, Some(own_pack))?;
            let count = reader.u8()?;
            if count != child_count {
                return Err(FormatError::BadValue("a node has not as many children as its span calls for"));
            }
            let mut children = Vec::with_capacity(usize::from(count.min(NODE_CHILDREN_MAX)));
            for _ in 0..count {
                children.push(match reader.u8()? {
                    HOLE => Child::Hole,
                    codec => {
                        let at = table.location(reader, codec, Child::kind(level))?;
                        let names = if level <= NAMES_LEVEL_MAX { table.packs(reader)? } else { Vec::new() };
                        Child::Stored { at, names }
                    }
                });
            }
            table.finish()?;
            Ok(Self { level, children })
        })?;
        node.check()?;
        Ok(node)
    }

    /// Checks all rules that do not depend on the node's place.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), FormatError> {
        self.check_in(None)
    }

    fn check_in(&self, own_pack: Option<&PackName>) -> Result<(), FormatError> {
        if !(1..=LEVELS_MAX).contains(&self.level) {
            return Err(FormatError::BadType { what: "the level of a node", found: self.level });
        }
        if !(1..=usize::from(NODE_CHILDREN_MAX)).contains(&self.children.len()) {
            return Err(FormatError::BadValue("a node has not 1 to 64 children"));
        }
        if self.children.iter().all(|child| *child == Child::Hole) {
            return Err(FormatError::BadValue("a node is one hole"));
        }
        self.children.iter().try_for_each(|child| match child {
            Child::Hole => Ok(()),
            Child::Stored { at, names } => {
                let kind = Child::kind(self.level);
                if Some(&at.pack.name) == own_pack { at.check_but_pack_len(kind) } else { at.check(kind) }?;
                self.check_names(names, own_pack)
            }
        })
    }

    fn check_names(&self, names: &[PackRef], own_pack: Option<&PackName>) -> Result<(), FormatError> {
        check_packs_in(names, own_pack)?;
        let allowed = match self.level {
            // A page names data packs, or none if it has no chunk.
            1 => names.iter().all(|pack| pack.name.kind == PackKind::Data),
            // A node that is no hole is stored in one map pack at least.
            2 => names.iter().any(|pack| pack.name.kind == PackKind::Map),
            _ => names.is_empty(),
        };
        if allowed {
            Ok(())
        } else {
            Err(FormatError::BadValue("a child's names cannot be those of its table"))
        }
    }

    /// Returns the packs of the node's own table, sorted (NODE-3).
    #[must_use]
    pub fn packs(&self) -> Vec<PackRef> {
        sorted_packs(self.children.iter().flat_map(|child| match child {
            Child::Hole => Vec::new(),
            Child::Stored { at, names } => std::iter::once(&at.pack).chain(names).cloned().collect(),
        }))
    }
}

/// Returns the level of the root node of a disk of `size` bytes (NODE-4).
#[must_use]
pub fn root_level(size: u64, cell_len: u32) -> u8 {
    (1..LEVELS_MAX).find(|level| node_span(*level, cell_len) >= size).unwrap_or(LEVELS_MAX)
}

/// Returns how many bytes of a disk a child of a node of that level spans, at most `u64::MAX` (NODE-1).
#[must_use]
pub fn child_span(level: u8, cell_len: u32) -> u64 {
    node_span(level.saturating_sub(1), cell_len)
}

/// Returns how many children a node of that level has that spans `span` bytes of the disk; 255 if that is too many.
#[must_use]
pub fn child_count(span: u64, level: u8, cell_len: u32) -> u8 {
    u8::try_from(span.div_ceil(child_span(level, cell_len).max(1))).unwrap_or(u8::MAX)
}

fn node_span(level: u8, cell_len: u32) -> u64 {
    u64::from(NODE_CHILDREN_MAX).saturating_pow(u32::from(level)).saturating_mul(u64::from(cell_len))
}
