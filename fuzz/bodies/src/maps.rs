//! Pages and nodes of disk maps, and the arithmetic of their places.

use crate::fields::Fields;
use crate::samples;
use repo_format::{
    ChunkerName, ChunkerParams, Entry, Geometry, Node, PackKind, PackRef, Page, PageBounds, child_count,
    child_span, root_level,
};

/// A page, behind the size of its disk, the number of its cell and a byte that chooses a geometry.
pub fn page(data: &[u8]) -> bool {
    let mut fields = Fields::new(data);
    let (disk_size, cell, geometry) = (fields.u64(), fields.u64(), geometry(fields.u8()));
    let Some(bounds) = PageBounds::of(&geometry, disk_size, cell) else { return false };
    assert!((1..=geometry.cell_len).contains(&bounds.cell_end));
    assert!((bounds.cell_end..=geometry.region_len).contains(&bounds.region_left));
    let Ok(page) = Page::parse(fields.rest, &bounds) else { return false };
    assert_eq!(page.encode(), fields.rest, "{page:?} has another encoding");
    let end = page.entries.iter().map(|entry| u64::from(entry.len())).sum::<u64>() + u64::from(page.first);
    assert!((u64::from(bounds.cell_end)..=u64::from(bounds.region_left)).contains(&end));
    for entry in &page.entries {
        if let Entry::Chunk(location) = entry {
            assert!(location.plain_len <= geometry.chunker.max && location.pack.name.kind == PackKind::Data);
        }
    }
    true
}

fn geometry(choice: u8) -> Geometry {
    let small = ChunkerParams { name: ChunkerName::MinCdcHash4, min: 64, average: 544, max: 1024 };
    match choice {
        0 => Geometry::default(),
        1 => Geometry { chunker: small, region_len: 4096, cell_len: 4096, pack_len: 64 << 10 },
        3 => Geometry { chunker: small, region_len: 8192, cell_len: 4096, pack_len: 64 << 10 },
        _ => Geometry { chunker: small, region_len: 64 << 20, cell_len: 64 << 10, pack_len: 64 << 10 },
    }
}

/// A node, behind its level, its number of children and the length of the pack that holds it.
pub fn node(data: &[u8]) -> bool {
    let mut fields = Fields::new(data);
    let (level, count) = (fields.u8(), fields.u8());
    let own = PackRef { name: samples::pack_name(PackKind::Map, 0), len: fields.u32() };
    check_arithmetic(data);
    let Ok(node) = Node::parse(fields.rest, level, count, &own) else { return false };
    assert_eq!(node.encode(&own.name), fields.rest, "{node:?} has another encoding");
    assert_eq!((node.level, node.children.len()), (level, usize::from(count)));
    assert_eq!(node.check(), Ok(()));
    true
}

/// A disk of any size has a root node of an allowed level that spans it.
fn check_arithmetic(data: &[u8]) {
    let mut fields = Fields::new(data);
    let (size, cell_len) = (fields.u64(), fields.u32());
    let level = root_level(size, cell_len);
    assert!((1..=repo_format::limits::LEVELS_MAX).contains(&level));
    let children = child_count(size, level, cell_len);
    let spanned = child_span(level, cell_len).saturating_mul(u64::from(children));
    assert!(children == u8::MAX || cell_len == 0 || spanned >= size);
}
