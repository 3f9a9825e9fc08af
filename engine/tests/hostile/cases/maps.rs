//! Map trees: authentic pages and nodes that lead astray, in circles, or to no end.

use crate::Case;
use crate::forge::{Forged, World, pack_name};
use crate::raw::Raw;
use crate::verbs::Verb;
use repo_format::{
    Child, Codec, Entry, FrameKind, Location, Node, PackKind, PackName, PackRef, Page, PayloadId, SessionId,
};

/// How verbs end if the thief's root node cannot be opened.
const LOST: &[(Verb, &str)] = &[
    (Verb::Restore, "MapUnreadable > Damaged > BadTag"),
    (Verb::Verify, "DamagedPack"),
    (Verb::VerifyData, "DamagedPack"),
    (Verb::Diff, "Damaged > BadTag"),
    (Verb::Stats, "Damaged > BadTag"),
    (Verb::Incremental, "Damaged > BadTag"),
    (Verb::After, "DamagedPack"),
];

const NOT_A_PLACE: &[(Verb, &str)] = &[
    (Verb::List, "Damaged > a frame does not lie within its pack"),
    (Verb::Show, "Damaged > a frame does not lie within its pack"),
    (Verb::Restore, "Damaged > a frame does not lie within its pack"),
    (Verb::Verify, "DamagedDecision"),
    (Verb::VerifyData, "DamagedDecision"),
    (Verb::Diff, "Damaged > a frame does not lie within its pack"),
    (Verb::After, "DamagedDecision"),
];

/// How verbs end if the thief's only page breaks a rule.
macro_rules! bad_page {
    ($restore:expr, $end:expr) => {
        &[
            (Verb::Restore, $restore),
            (Verb::Verify, "ContradictoryMap"),
            (Verb::VerifyData, "ContradictoryMap"),
            (Verb::Diff, $end),
            (Verb::Incremental, $end),
            (Verb::After, "ContradictoryMap"),
        ]
    };
}

/// How verbs end if the thief's root node breaks a rule.
macro_rules! bad_node {
    ($restore:expr, $end:expr) => {
        &[
            (Verb::Restore, $restore),
            (Verb::Verify, "ContradictoryMap"),
            (Verb::VerifyData, "ContradictoryMap"),
            (Verb::Diff, $end),
            (Verb::Stats, $end),
            (Verb::Incremental, $end),
            (Verb::After, "ContradictoryMap"),
        ]
    };
}

pub const CASES: &[Case] = &[
    Case {
        name: "a root node at offset 2^32-1",
        build: || root(|at| Location { offset: u32::MAX, ..at }),
        expected: NOT_A_PLACE,
    },
    Case {
        name: "a root node within the header of its pack",
        build: || root(|at| Location { offset: 0, ..at }),
        expected: NOT_A_PLACE,
    },
    Case {
        name: "a root node a byte before where it is",
        build: || root(|at| Location { offset: at.offset - 1, ..at }),
        expected: &[
            (Verb::Restore, "MapUnreadable > Damaged > BadTag"),
            (Verb::Verify, "DamagedPack"),
            (Verb::VerifyData, "DamagedPack"),
            (Verb::Stats, "Damaged > BadTag"),
            (Verb::After, "DamagedPack"),
        ],
    },
    Case {
        name: "a root node under another id",
        build: || root(|at| Location { id: PayloadId([1; 32]), ..at }),
        expected: &[
            (Verb::Restore, "MapUnreadable > Damaged > BadTag"),
            (Verb::Verify, "DamagedPack"),
            (Verb::VerifyData, "DamagedPack"),
            (Verb::Diff, "Damaged > BadTag"),
            (Verb::Stats, "Damaged > BadTag"),
            (Verb::After, "DamagedPack"),
        ],
    },
    Case {
        name: "a root node in a pack that is not there",
        build: || {
            root(|mut at| {
                at.pack.name.session = SessionId([5; 16]);
                at
            })
        },
        expected: &[
            (Verb::Restore, "MapUnreadable > NotFound"),
            (Verb::Verify, "MissingPack"),
            (Verb::VerifyData, "MissingPack"),
            (Verb::Stats, "NotFound"),
            (Verb::After, "MissingPack"),
        ],
    },
    Case {
        name: "a root node of level 9",
        build: || raw_node(&Raw::new().u8(9).u32(0).u8(1).u8(0).0),
        expected: bad_node!("MapUnreadable > Damaged > BadType", "Damaged > BadType"),
    },
    Case {
        name: "a root node of level 255",
        build: || raw_node(&Raw::new().u8(255).u32(0).u8(1).u8(0).0),
        expected: bad_node!("MapUnreadable > Damaged > BadType", "Damaged > BadType"),
    },
    Case {
        name: "a node with 255 children",
        build: || raw_node(&Raw::new().u8(1).u32(0).u8(255).put(&[0; 255]).0),
        expected: bad_node!(
            "MapUnreadable > Damaged > a node has not as many children as its span calls for",
            "Damaged > a node has not as many children as its span calls for"
        ),
    },
    Case {
        name: "a table of 2^32-1 groups",
        build: || raw_node(&Raw::new().u8(1).u32(u32::MAX).0),
        expected: bad_node!("MapUnreadable > Damaged > Truncated", "Damaged > Truncated"),
    },
    Case {
        name: "a group of 2^32-1 packs",
        build: || {
            raw_node(
                &Raw::new().u8(1).u32(1).u8(1).str8("a-thief").put(&[0xee; 16]).u32(u32::MAX).put(&[0; 64]).0,
            )
        },
        expected: bad_node!("MapUnreadable > Damaged > Truncated", "Damaged > Truncated"),
    },
    Case {
        name: "a node that is one hole",
        build: || raw_node(&Raw::new().u8(1).u32(0).u8(1).u8(0).0),
        expected: bad_node!("MapUnreadable > Damaged > a node is one hole", "Damaged > a node is one hole"),
    },
    Case {
        name: "an empty node",
        build: || raw_node(&[1]),
        expected: bad_node!("MapUnreadable > Damaged > Truncated", "Damaged > Truncated"),
    },
    Case { name: "a node that is its own child", build: || cycle(true), expected: LOST },
    Case { name: "two nodes that are each other's child", build: || cycle(false), expected: LOST },
    Case {
        name: "a page in the place of a node",
        build: || {
            let mut world = World::new();
            let page = world.store(FrameKind::Page, 0, b"page");
            world.commit_map(1, page);
            world
        },
        expected: LOST,
    },
    Case {
        name: "a page of 2^32-1 entries",
        build: || raw_page(&Raw::new().u32(0).u32(0).u32(u32::MAX).0),
        expected: bad_page!("MapUnreadable > Damaged > Truncated", "Damaged > Truncated"),
    },
    Case {
        name: "a page without entries",
        build: || raw_page(&Raw::new().u32(0).u32(0).u32(0).0),
        expected: bad_page!("MapUnreadable > Damaged > a page has no entry", "Damaged > a page has no entry"),
    },
    Case {
        name: "a page with a hole of 2^32-1 bytes",
        build: || raw_page(&Raw::new().u32(1).u32(0).u32(1).u8(0).u32(u32::MAX).0),
        expected: bad_page!(
            "MapUnreadable > Damaged > no chunk of the cell before reaches so far",
            "Damaged > no chunk of the cell before reaches so far"
        ),
    },
    Case {
        name: "a page that begins behind its cell",
        build: || raw_page(&Raw::new().u32(u32::MAX).u32(0).u32(1).u8(0).u32(1).0),
        expected: bad_page!(
            "MapUnreadable > Damaged > no chunk of the cell before reaches so far",
            "Damaged > no chunk of the cell before reaches so far"
        ),
    },
    Case {
        name: "a page with an entry number of 2^32-1",
        build: || {
            let raw = Raw::new().u32(0).u32(1).group(1, "a-thief", 0xee, &[(0, 4096)]).u32(1).u8(1);
            raw_page(&raw.location(u32::MAX, 176, 116, 100, 1).0)
        },
        expected: bad_page!(
            "MapUnreadable > Damaged > an entry number is not in the table",
            "Damaged > an entry number is not in the table"
        ),
    },
    Case {
        name: "a page with a chunk of 2^32-1 bytes at the end of its pack",
        build: || {
            let raw = Raw::new().u32(0).u32(1).group(1, "a-thief", 0xee, &[(0, 4096)]).u32(1).u8(2);
            raw_page(&raw.location(0, u32::MAX, u32::MAX, u32::MAX, 1).0)
        },
        expected: bad_page!(
            "MapUnreadable > Damaged > a frame does not lie within its pack",
            "Damaged > a frame does not lie within its pack"
        ),
    },
    Case {
        name: "a node that names other packs than its page",
        build: || {
            let mut world = World::new();
            let page = chunk_page(&world, 4096, 1);
            let at = world.store(FrameKind::Page, 0, &page.encode());
            let name = PackName { session: SessionId([1; 16]), ..pack_name(PackKind::Data, 0) };
            let names = vec![PackRef { name, len: 4096 }];
            let root = world.store_node(1, &Node { level: 1, children: vec![Child::Stored { at, names }] });
            world.commit_map(4096, root);
            world
        },
        expected: &[
            (Verb::Verify, "ContradictoryMap"),
            (Verb::VerifyData, "ContradictoryMap"),
            (Verb::After, "ContradictoryMap"),
        ],
    },
    Case {
        name: "a disk of 2^62 bytes in which every page is the same chunks",
        build: || {
            let mut world = World::new();
            let page = chunk_page(&world, 4096, 4);
            let root = world.fan_out(1 << 62, &page);
            world.commit_map(1 << 62, root);
            world
        },
        expected: &[(Verb::Restore, "Target > io"), (Verb::Incremental, "ok, but other bytes")],
    },
    Case {
        name: "a disk of 2^62 bytes in which every other kilobyte is the same chunk",
        build: || {
            let mut world = World::new();
            let page = striped_page(&world);
            let root = world.fan_out(1 << 62, &page);
            world.commit_map(1 << 62, root);
            world
        },
        expected: &[(Verb::Restore, "Target > io"), (Verb::Incremental, "ok, but other bytes")],
    },
    Case {
        name: "a disk of 2^62 bytes of the same chunks, compared with one of as many zeros",
        build: || beside_zeros(|world| chunk_page(world, 4096, 4)),
        expected: &[(Verb::Restore, "Target > io"), (Verb::Incremental, "ok, but other bytes")],
    },
    Case {
        name: "a disk of 2^62 bytes with a chunk in every other kilobyte, compared with one of as many zeros",
        build: || beside_zeros(striped_page),
        expected: &[
            (Verb::Restore, "Target > io"),
            (Verb::Diff, "TooManyAreas"),
            (Verb::Incremental, "ok, but other bytes"),
        ],
    },
    Case {
        name: "1024 disks of 2^62 bytes in which every other kilobyte is the same chunk",
        build: || {
            let mut world = World::new();
            let page = striped_page(&world);
            let root = world.fan_out(1 << 62, &page);
            world.commit(|commit| {
                let disk = repo_format::Disk { size: 1 << 62, map: Some(root), ..commit.disks[0].clone() };
                let key = |number| format!("disk{number:04}");
                commit.disks =
                    (0..1024).map(|number| repo_format::Disk { key: key(number), ..disk.clone() }).collect();
            });
            world
        },
        expected: &[(Verb::Restore, "Target > io")],
    },
    Case {
        name: "a disk of 2^62 bytes in which every page is the same, and one of its packs is condemned",
        build: || {
            let mut world = World::new();
            let page = striped_page(&world);
            let root = world.fan_out(1 << 62, &page);
            world.commit_map(1 << 62, root);
            let packs = page.packs();
            world.forge_signed(
                repo_format::SealedKind::Condemned,
                &repo_format::BlobName::condemned(1),
                &repo_format::Condemned { packs }.encode(),
            );
            world
        },
        expected: &[
            (Verb::Restore, "Target > io"),
            (Verb::Verify, "DamagedGeneration"),
            (Verb::VerifyData, "DamagedGeneration"),
            (Verb::After, "DamagedGeneration"),
        ],
    },
    Case {
        name: "a disk of 256 GiB in which every page has chunks of one byte",
        build: || {
            let mut world = World::new();
            let page = chunk_page(&world, 1, 16 << 10);
            let root = world.fan_out(1 << 38, &page);
            world.commit_map(1 << 38, root);
            world
        },
        expected: &[(Verb::Restore, "Target > io"), (Verb::Incremental, "ok, but other bytes")],
    },
    Case {
        name: "pages of 8 MiB of zeros",
        build: || zeros(FrameKind::Page),
        expected: &[
            (Verb::Restore, "MapUnreadable > Damaged > TrailingBytes"),
            (Verb::Verify, "ContradictoryMap"),
            (Verb::VerifyData, "ContradictoryMap"),
            (Verb::Diff, "Damaged > TrailingBytes"),
            (Verb::Incremental, "ok, but MapUnreadable > Damaged > TrailingBytes"),
            (Verb::After, "ContradictoryMap"),
        ],
    },
    Case {
        name: "nodes of 32 MiB of zeros",
        build: || zeros(FrameKind::Node),
        expected: &[
            (Verb::Restore, "MapUnreadable > Damaged > BadType"),
            (Verb::Verify, "ContradictoryMap"),
            (Verb::VerifyData, "ContradictoryMap"),
            (Verb::Diff, "Damaged > BadType"),
            (Verb::Incremental, "Damaged > BadType"),
            (Verb::After, "ContradictoryMap"),
        ],
    },
];

fn root(change: impl Fn(Location) -> Location) -> World {
    let mut world = World::new();
    let at = change(world.root());
    let size = world.first.commit.disks[0].size;
    let place = Raw::new().u8(at.codec as u8).str8(at.pack.name.writer.as_str()).put(&at.pack.name.session.0);
    let place = place.u32(at.pack.name.number).u32(at.pack.len).u32(at.offset).u32(at.stored_len);
    let map = place.u32(at.plain_len).put(&at.id.0);
    let disks = crate::forge::raw_disk(b"disk0", size, &map);
    world.commit_raw(&crate::forge::RawCommit { disks, ..crate::forge::RawCommit::new() }.bytes());
    world
}

/// A disk of one cell with this root node.
fn raw_node(payload: &[u8]) -> World {
    let mut world = World::new();
    let root = world.store(FrameKind::Node, 0, payload);
    world.commit_map(4096, root);
    world
}

/// A disk of one cell with this page.
fn raw_page(payload: &[u8]) -> World {
    let mut world = World::new();
    let at = world.store(FrameKind::Page, 0, payload);
    let root =
        world.store_node(1, &Node { level: 1, children: vec![Child::Stored { at, names: Vec::new() }] });
    world.commit_map(4096, root);
    world
}

/// A page of so many chunks of that length, all the same.
fn chunk_page(world: &World, len: usize, count: usize) -> Page {
    let frame = Forged::raw(&world.keys, FrameKind::Chunk, &vec![1; len]);
    let at = world.store_frames(PackKind::Data, 0, &[frame]).remove(0);
    Page { first: 0, entries: vec![Entry::Chunk(at); count] }
}

/// A page of the same chunk, and as many zeros, again and again.
fn striped_page(world: &World) -> Page {
    let mut page = chunk_page(world, 1024, 8);
    page.entries = page.entries.into_iter().flat_map(|chunk| [chunk, Entry::Hole { len: 1024 }]).collect();
    page
}

/// A disk of 2^62 bytes, all of whose pages are the same, to be compared with one of zeros.
fn beside_zeros(page: fn(&World) -> Page) -> World {
    let mut world = World::new();
    let page = page(&world);
    let root = world.fan_out(1 << 62, &page);
    world.commit_map(1 << 62, root);
    let zeros = &mut world.first.commit.disks[0];
    (zeros.size, zeros.map) = (1 << 62, None);
    world
}

/// Nodes of levels 2 and 1 that refer to each other, or one that refers to itself; no hash can be known that includes
/// itself, so the ids are wrong somewhere.
fn cycle(own: bool) -> World {
    let mut world = World::new();
    let size = 1 << 32;
    let place = |number: u32| Location {
        pack: PackRef { name: pack_name(PackKind::Map, number), len: 0 },
        codec: Codec::Raw,
        offset: 176,
        stored_len: 0,
        plain_len: 0,
        id: PayloadId([3; 32]),
    };
    // Twice: the first time for the lengths.
    let mut lens = (600, 300);
    for _ in 0..2 {
        let node = |level: u8, number: u32, other: u32| {
            let mut at = place(other);
            (at.plain_len, at.stored_len, at.pack.len) = (lens.1, lens.1 + 16, lens.0);
            let names = if level == 2 { vec![at.pack.clone()] } else { Vec::new() };
            let mut children = vec![Child::Hole; 64];
            children[0] = Child::Stored { at, names };
            Node { level, children }.encode(&pack_name(PackKind::Map, number))
        };
        let (a, b) = if own { (0, 0) } else { (0, 1) };
        let payload = node(3, 0, b);
        let root = world.store(FrameKind::Node, 0, &payload);
        if !own {
            world.store(FrameKind::Node, 1, &node(3, 1, a));
        }
        lens = (root.pack.len, root.plain_len);
        world.commit_map(size, root);
    }
    world
}

/// A tree of two levels over 1 GiB (or 64 GiB) whose lower parts are as long as is allowed and say nothing.
fn zeros(kind: FrameKind) -> World {
    let mut world = World::new();
    let len: u32 = if kind == FrameKind::Page { 8 << 20 } else { 32 << 20 };
    let frames: Vec<Forged> = (0..if kind == FrameKind::Page { 16 } else { 2 })
        .map(|number| {
            let mut payload = vec![0; len as usize];
            payload[0] = number;
            let id = world.keys.map_id(&payload);
            Forged { kind, codec: Codec::Zstd, plain_len: len, id, encoded: zstd_of_zeros(number, len) }
        })
        .collect();
    let places = world.store_frames(PackKind::Map, 0, &frames);
    let level = if kind == FrameKind::Page { 1 } else { 2 };
    let child = |at: Location| {
        let names = if level == 2 { vec![at.pack.clone()] } else { Vec::new() };
        Child::Stored { at, names }
    };
    let root = world.store_node(
        1,
        &Node {
            level,
            children: places.into_iter().map(child).chain(std::iter::repeat(Child::Hole)).take(64).collect(),
        },
    );
    let size = repo_format::child_span(level + 1, world.geometry.cell_len);
    world.commit_map(size, root);
    world
}

/// A zstd frame of a byte and zeros.
fn zstd_of_zeros(first: u8, len: u32) -> Vec<u8> {
    let mut frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &len.to_le_bytes()].concat();
    // A raw block of one byte, then blocks of a repeated zero.
    frame.extend([1 << 3, 0, 0, first]);
    let mut left = len - 1;
    while left > 0 {
        let part = left.min(128 << 10);
        left -= part;
        frame.extend_from_slice(&((part << 3) | 2 | u32::from(left == 0)).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}
