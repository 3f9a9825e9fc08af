//! What the place of a page or a node on its disk calls for (SPEC 8.3, 8.4).

use repo_format::*;

use crate::samples::*;

const MIB: u32 = 1 << 20;

#[test]
fn bounds_follow_from_the_place_of_the_cell() {
    let geometry = Geometry::default();
    let size = (32 << 20) + 1_500_000;
    let bounds = |cell| PageBounds::of(&geometry, size, cell);
    let inside = PageBounds { cell_end: MIB, region_left: 16 * MIB, starts_region: true, max_chunk: 65_536 };
    assert_eq!(bounds(0), Some(inside));
    assert_eq!(bounds(15), Some(PageBounds { region_left: MIB, starts_region: false, ..inside }));
    assert_eq!(bounds(16), Some(inside));
    assert_eq!(bounds(32), Some(PageBounds { region_left: 1_500_000, ..inside }));
    let last = PageBounds {
        cell_end: 1_500_000 - MIB,
        region_left: 1_500_000 - MIB,
        starts_region: false,
        max_chunk: 65_536,
    };
    assert_eq!(bounds(33), Some(last));
    assert_eq!(bounds(34), None);
    assert_eq!(bounds(u64::MAX), None);
}

#[test]
fn names_stand_in_the_two_lowest_levels_only() {
    let child = |names| Child::Stored { at: location(PackKind::Map, 0, 10), names };
    let check = |level, names| Node { level, children: vec![child(names)] }.check();
    let misfit = Err(FormatError::BadValue("a child's names cannot be those of its table"));
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
