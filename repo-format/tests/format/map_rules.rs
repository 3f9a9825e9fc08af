//! What pack tables, pages and nodes must be (SPEC 8.2 to 8.4).

use repo_format::*;

use crate::raw::Raw;
use crate::samples::*;

const MIB: u32 = 1 << 20;

/// A cell of 1 MiB that starts a region.
fn bounds() -> PageBounds {
    PageBounds { cell_end: MIB, region_left: 16 * MIB, starts_region: true, max_chunk: 131_072 }
}

fn bad(text: &'static str) -> FormatError {
    FormatError::BadValue(text)
}

/// A page: a chunk of 1000 bytes and a hole.
fn raw_page() -> Raw {
    raw_page_with(Raw::new().u32(1).group(1, "host-1", 2, &[(7, MIB)]))
}

fn raw_page_with(table: Raw) -> Raw {
    Raw::new().u32(0).put(&table.0).u32(2).u8(1).location(0, 176, 1016, 1000, 3).u8(0).u32(MIB - 1000)
}

#[test]
fn a_page_is_what_the_specification_tells() {
    let pack = PackRef {
        name: PackName { kind: PackKind::Data, writer: writer(), session: SessionId([2; 16]), number: 7 },
        len: MIB,
    };
    let chunk = Location {
        pack: pack.clone(),
        codec: Codec::Raw,
        offset: 176,
        stored_len: 1016,
        plain_len: 1000,
        id: PayloadId([3; 32]),
    };
    let page = Page { first: 0, entries: vec![Entry::Chunk(chunk), Entry::Hole { len: MIB - 1000 }] };
    assert_eq!(Page::parse(&raw_page().0, &bounds()), Ok(page.clone()));
    assert_eq!(page.encode(), raw_page().0);
    assert_eq!(page.packs(), vec![pack]);
}

#[test]
fn tables_that_break_a_rule_are_rejected() {
    let parse = |table: Raw| Page::parse(&raw_page_with(table).0, &bounds()).map(drop);
    let group =
        |kind, writer, session, packs: &[(u32, u32)]| Raw::new().u32(1).group(kind, writer, session, packs);
    let two = |a: (u8, &str, u8), b: (u8, &str, u8)| {
        let table = Raw::new().u32(2).group(a.0, a.1, a.2, &[(7, MIB)]);
        table.group(b.0, b.1, b.2, &[(7, MIB)])
    };
    let unused = bad("a table has a pack that nothing refers to");
    let order = FormatError::OutOfOrder("the groups of a table");
    assert_eq!(parse(group(1, "host-1", 2, &[(7, MIB)])), Ok(()));
    assert_eq!(parse(group(1, "host-1", 2, &[(7, MIB), (8, MIB)])), Err(unused.clone()));
    assert_eq!(parse(two((1, "host-1", 2), (1, "host-1", 3))), Err(unused.clone()));
    assert_eq!(parse(two((1, "host-1", 2), (1, "host-2", 1))), Err(unused.clone()));
    assert_eq!(parse(two((1, "host-1", 2), (2, "a", 1))), Err(unused));
    assert_eq!(parse(two((1, "host-1", 2), (1, "host-1", 2))), Err(order.clone()));
    assert_eq!(parse(two((1, "host-1", 2), (1, "host-1", 1))), Err(order.clone()));
    assert_eq!(parse(two((1, "host-1", 2), (1, "a", 3))), Err(order.clone()));
    assert_eq!(parse(two((2, "host-1", 2), (1, "host-2", 3))), Err(order));
    let packs_order = FormatError::OutOfOrder("the packs of a table");
    assert_eq!(parse(group(1, "host-1", 2, &[(7, MIB), (7, MIB)])), Err(packs_order.clone()));
    assert_eq!(parse(group(1, "host-1", 2, &[(7, MIB), (6, MIB)])), Err(packs_order));
    assert_eq!(parse(group(1, "host-1", 2, &[])), Err(bad("a group of a table is empty")));
    assert_eq!(parse(Raw::new().u32(0)), Err(bad("an entry number is not in the table")));
    assert_eq!(parse(Raw::new().u32(u32::MAX)), Err(FormatError::Truncated));
    assert_eq!(
        parse(group(3, "host-1", 2, &[(7, MIB)])),
        Err(FormatError::BadType { what: "pack kind", found: 3 })
    );
    assert_eq!(
        parse(group(2, "host-1", 2, &[(7, MIB)])),
        Err(bad("a payload is in a pack of the wrong kind"))
    );
    assert!(matches!(parse(group(1, "Host", 2, &[(7, MIB)])), Err(FormatError::Name(_))));
    assert_eq!(parse(group(1, "host-1", 2, &[(7, 0)])), Err(bad("a pack is too short to be one")));
    assert_eq!(parse(group(1, "host-1", 2, &[(7, 334)])), Err(bad("a pack is too short to be one")));
    assert!(matches!(
        parse(group(1, "host-1", 2, &[(7, 300 << 20)])),
        Err(FormatError::LimitExceeded { what: "pack length", .. })
    ));
}

#[test]
fn text_that_is_not_utf_8_is_rejected() {
    let mut bytes = raw_page().0;
    let at = bytes.windows(6).position(|window| window == b"host-1").unwrap();
    bytes[at] = 0xff;
    assert_eq!(Page::parse(&bytes, &bounds()), Err(FormatError::BadText));
}

#[test]
fn locations_that_break_a_rule_are_rejected() {
    let parse = |codec, offset, stored_len, plain_len| {
        let page = Raw::new().u32(0).u32(1).group(1, "host-1", 2, &[(7, MIB)]).u32(2);
        let page = page.u8(codec).location(0, offset, stored_len, plain_len, 3).u8(0).u32(MIB - plain_len);
        Page::parse(&page.0, &bounds()).map(drop)
    };
    let outside = bad("a frame does not lie within its pack");
    let misfit = bad("the lengths of a frame do not fit its codec");
    assert_eq!(parse(1, 176, 1016, 1000), Ok(()));
    assert_eq!(parse(2, 176, 1015, 1000), Ok(()));
    assert_eq!(parse(1, MIB - 1016, 1016, 1000), Ok(()));
    assert_eq!(parse(1, MIB - 1015, 1016, 1000), Err(outside.clone()));
    assert_eq!(parse(1, u32::MAX, 1016, 1000), Err(outside.clone()));
    assert_eq!(parse(1, 175, 1016, 1000), Err(outside));
    assert_eq!(parse(1, 176, 1015, 1000), Err(misfit.clone()));
    assert_eq!(parse(2, 176, 1016, 1000), Err(misfit.clone()));
    assert_eq!(parse(2, 176, 16, 1000), Err(misfit.clone()));
    assert_eq!(parse(1, 176, 16, 0), Err(misfit));
    assert_eq!(parse(9, 176, 1016, 1000), Err(FormatError::BadType { what: "codec", found: 9 }));
}

/// Checks a page with pieces of these lengths: holes where negative, chunks where positive.
fn check(first: u32, lengths: &[i32], bounds: PageBounds) -> Result<(), FormatError> {
    let entries = lengths.iter().map(|len| match u32::try_from(*len) {
        Ok(len) => Entry::Chunk(location(PackKind::Data, 0, len)),
        Err(_) => Entry::Hole { len: len.unsigned_abs() },
    });
    Page { first, entries: entries.collect() }.check(&bounds)
}

#[test]
fn pieces_fill_their_cell() {
    let inside = PageBounds { cell_end: 4096, region_left: 8192, starts_region: false, max_chunk: 2048 };
    let last = PageBounds { region_left: 4096, ..inside };
    let too_far = bad("a piece reaches too far");
    let reaches = bad("no chunk of the cell before reaches so far");
    let short = bad("the pieces of a page end before its cell");
    let behind = bad("a piece is empty or starts behind its cell");
    assert_eq!(check(0, &[2048, 2048], inside), Ok(()));
    assert_eq!(check(0, &[2048, 2047, 1], inside), Ok(()));
    assert_eq!(check(0, &[2048, 2047, 2048], inside), Ok(()), "a chunk may end in the next cell");
    assert_eq!(check(0, &[2048, 2047, 2], last), Err(too_far.clone()), "but not behind the region");
    assert_eq!(check(0, &[2048, -2049], inside), Err(too_far), "nor may a hole");
    assert_eq!(check(2047, &[-2049], inside), Ok(()));
    assert_eq!(check(2048, &[-2048], inside), Err(reaches.clone()));
    assert_eq!(check(1, &[-4095], PageBounds { starts_region: true, ..inside }), Err(reaches));
    assert_eq!(check(0, &[2048, 2047], inside), Err(short));
    assert_eq!(check(0, &[], inside), Err(bad("a page has no entry")));
    assert_eq!(check(0, &[2048, 2048, 1], inside), Err(behind.clone()));
    assert_eq!(check(0, &[2048, 0, 2048], inside), Err(behind));
    assert_eq!(check(0, &[-1, -1, 2048, 2046], inside), Err(bad("a page has two holes side by side")));
    assert_eq!(check(0, &[-1, 2048, -2047], inside), Ok(()));
    assert_eq!(check(0, &[-4096], inside), Err(bad("a page is one hole")));
    assert_eq!(check(1, &[-4095], inside), Ok(()));
    let chunk = FormatError::LimitExceeded { what: "chunk length", found: 2049, limit: 2048 };
    assert_eq!(check(0, &[2049, 2047], inside), Err(chunk));
}

#[test]
fn a_cell_in_which_nothing_starts_has_no_page() {
    let end = PageBounds { cell_end: 100, region_left: 100, starts_region: false, max_chunk: 2048 };
    assert_eq!(check(99, &[1], end), Ok(()));
    assert_eq!(check(100, &[], end), Err(bad("a page has no entry")));
    assert_eq!(check(100, &[-1], end), Err(bad("a piece is empty or starts behind its cell")));
}

#[test]
fn bounds_follow_from_the_place_of_the_cell() {
    let geometry = Geometry::default();
    let size = (32 << 20) + 1_500_000;
    let bounds = |cell| PageBounds::of(&geometry, size, cell);
    let inside = PageBounds { cell_end: MIB, region_left: 16 * MIB, starts_region: true, max_chunk: 131_072 };
    assert_eq!(bounds(0), Some(inside));
    assert_eq!(bounds(15), Some(PageBounds { region_left: MIB, starts_region: false, ..inside }));
    assert_eq!(bounds(16), Some(inside));
    assert_eq!(bounds(32), Some(PageBounds { region_left: 1_500_000, ..inside }));
    let last = PageBounds {
        cell_end: 1_500_000 - MIB,
        region_left: 1_500_000 - MIB,
        starts_region: false,
        max_chunk: 131_072,
    };
    assert_eq!(bounds(33), Some(last));
    assert_eq!(bounds(34), None);
    assert_eq!(bounds(u64::MAX), None);
}

fn own() -> PackRef {
    let name = PackName { kind: PackKind::Map, writer: writer(), session: SessionId([2; 16]), number: 1 };
    PackRef { name, len: MIB }
}

/// A node of level 1: a hole, and a page that names one data pack.
fn raw_node(own_len: u32, codec: u8, names: &[u32]) -> Raw {
    let table = Raw::new().u32(2).group(1, "host-1", 2, &[(7, MIB)]).group(2, "host-1", 2, &[(1, own_len)]);
    let node = Raw::new().u8(1).put(&table.0).u8(2).u8(0).u8(codec).location(1, 176, 516, 500, 3);
    let count = u32::try_from(names.len()).unwrap();
    names.iter().fold(node.u32(count), |node, name| node.u32(*name))
}

#[test]
fn a_node_is_what_the_specification_tells() {
    let data = PackRef { name: PackName { kind: PackKind::Data, number: 7, ..own().name }, len: MIB };
    let at = Location {
        pack: own(),
        codec: Codec::Raw,
        offset: 176,
        stored_len: 516,
        plain_len: 500,
        id: PayloadId([3; 32]),
    };
    let node =
        Node { level: 1, children: vec![Child::Hole, Child::Stored { at, names: vec![data.clone()] }] };
    assert_eq!(Node::parse(&raw_node(0, 1, &[0]).0, 1, 2, &own()), Ok(node.clone()));
    assert_eq!(node.encode(&own().name), raw_node(0, 1, &[0]).0);
    assert_eq!(node.packs(), vec![data, own()]);
}

#[test]
fn nodes_that_break_a_rule_are_rejected() {
    let parse = |raw: Raw| Node::parse(&raw.0, 1, 2, &own()).map(drop);
    let level = |found| FormatError::BadType { what: "the level of a node", found };
    let good = raw_node(0, 1, &[0]).0;
    assert_eq!(Node::parse(&good, 2, 2, &own()), Err(level(1)));
    assert_eq!(Node::parse(&[&[11], &good[1..]].concat(), 11, 2, &own()), Err(level(11)));
    assert_eq!(
        Node::parse(&good, 1, 3, &own()),
        Err(bad("a node has not as many children as its span calls for"))
    );
    assert_eq!(parse(raw_node(0, 1, &[])), Err(bad("a table has a pack that nothing refers to")));
    assert_eq!(parse(raw_node(0, 1, &[1])), Err(bad("a table has a pack that nothing refers to")));
    assert_eq!(parse(raw_node(0, 1, &[0, 1])), Err(bad("a child's names cannot be those of its table")));
    assert_eq!(parse(raw_node(0, 1, &[1, 0])), Err(FormatError::OutOfOrder("the names of a child")));
    assert_eq!(parse(raw_node(0, 1, &[0, 0])), Err(FormatError::OutOfOrder("the names of a child")));
    assert_eq!(parse(raw_node(0, 1, &[2])), Err(bad("an entry number is not in the table")));
    assert_eq!(
        parse(raw_node(0, 1, &[0, 1, 2])),
        Err(FormatError::LimitExceeded { what: "names of a child", found: 3, limit: 2 })
    );
    assert_eq!(parse(Raw::new().u8(1).u32(0).u8(2).u8(0).u8(0)), Err(bad("a node is one hole")));
}

#[test]
fn the_pack_that_holds_a_node_has_no_length_in_it() {
    let bytes = raw_node(MIB, 1, &[0]).0;
    let told = bad("a table has a length for the pack that holds it");
    assert_eq!(Node::parse(&bytes, 1, 2, &own()), Err(told));
    let elsewhere = PackRef { name: PackName { number: 2, ..own().name }, len: MIB };
    assert!(Node::parse(&bytes, 1, 2, &elsewhere).is_ok());
    let unknown = bad("a pack is too short to be one");
    assert_eq!(Node::parse(&raw_node(0, 1, &[0]).0, 1, 2, &elsewhere), Err(unknown));
}

#[test]
fn names_stand_in_the_two_lowest_levels_only() {
    let child = |names| Child::Stored { at: location(PackKind::Map, 0, 10), names };
    let check = |level, names| Node { level, children: vec![child(names)] }.check();
    let misfit = Err(bad("a child's names cannot be those of its table"));
    let (data, map) = (pack(PackKind::Data, 0), pack(PackKind::Map, 0));
    assert_eq!(check(1, vec![]), Ok(()));
    assert_eq!(check(1, vec![data.clone()]), Ok(()));
    assert_eq!(check(1, vec![map.clone()]), misfit);
    assert_eq!(check(2, vec![]), misfit);
    assert_eq!(check(2, vec![data.clone()]), misfit);
    assert_eq!(check(2, vec![data, map.clone()]), Ok(()));
    assert_eq!(check(3, vec![]), Ok(()));
    assert_eq!(check(3, vec![map]), misfit);
}

#[test]
fn levels_follow_from_the_size() {
    assert_eq!(root_level(1, MIB), 1);
    assert_eq!(root_level(64 << 20, MIB), 1);
    assert_eq!(root_level((64 << 20) + 1, MIB), 2);
    assert_eq!(root_level(1 << 32, MIB), 2);
    assert_eq!(root_level((1 << 32) + 1, MIB), 3);
    assert_eq!(root_level(1 << 62, MIB), 7);
    assert_eq!(root_level(1 << 62, 4096), 9);
    assert_eq!(child_span(1, MIB), 1 << 20);
    assert_eq!(child_span(3, MIB), 1 << 32);
    assert_eq!(child_span(10, MIB), u64::MAX);
    assert_eq!(child_count(1, 1, MIB), 1);
    assert_eq!(child_count((1 << 20) + 1, 1, MIB), 2);
    assert_eq!(child_count(64 << 20, 1, MIB), 64);
    assert_eq!(child_count(1 << 62, 1, MIB), 255);
}
