"""Section 8.4: nodes."""

from objects import HOLE_CHILD, MIB, child, entry, node, pack_text, table
from samples import NODE_INPUTS, OTHER, PACK_ONE, UNLISTED, UNUSED, chunk_text
from vectors import bad, kind, limit, scenario, vector

MAP_ONE, MAP_TWO = entry(2, number=4), entry(2, number=5)


def nodes():
    two = {**NODE_INPUTS, "children": 2}
    counted = bad("a node has not as many children as its span calls for")
    packs = table(PACK_ONE, MAP_ONE)
    at = chunk_text(MAP_ONE)
    one = lambda level=1, **changes: child(number=1, names=[0], level=level, **changes)
    all_children = [HOLE_CHILD] * 63 + [one()]
    fields = {
        "level": 1,
        **{f"child.{n}": "hole" for n in range(63)},
        "child.63": at,
        "child.63.name.0": pack_text(PACK_ONE),
    }
    vector(
        "NODE-1",
        "64-children",
        "node",
        "as many children as a node can have",
        body=node(1, packs, *all_children),
        fields=fields,
        **{**NODE_INPUTS, "children": 64},
    )
    vector(
        "NODE-1",
        "one-child",
        "node",
        "a span of one child",
        body=node(1, packs, one()),
        fields={"level": 1, "child.0": at, "child.0.name.0": pack_text(PACK_ONE)},
        **NODE_INPUTS,
    )
    vector(
        "NODE-1",
        "63-of-64-children",
        "node",
        "a child too few",
        counted,
        node(1, packs, *all_children[1:]),
        **{**NODE_INPUTS, "children": 64},
    )
    vector(
        "NODE-1",
        "2-of-1-children",
        "node",
        "a child too many",
        counted,
        node(1, packs, HOLE_CHILD, one()),
        **NODE_INPUTS,
    )
    vector("NODE-1", "no-children", "node", "a count of 0", counted, node(1, table()), **NODE_INPUTS)
    vector("NODE-1", "255-children", "node", "a count of 255", counted, node(1, packs, one(), count=255), **NODE_INPUTS)
    vector(
        "NODE-2",
        "level-1",
        "node",
        "a hole and a page",
        body=node(1, packs, HOLE_CHILD, one()),
        fields={"level": 1, "child.0": "hole", "child.1": at, "child.1.name.0": pack_text(PACK_ONE)},
        **two,
    )
    vector(
        "NODE-2",
        "page-of-holes",
        "node",
        "a page that names no pack",
        body=node(1, table(MAP_ONE), child()),
        fields={"level": 1, "child.0": at},
        **NODE_INPUTS,
    )
    both = table(PACK_ONE, OTHER, MAP_ONE, MAP_TWO)
    vector(
        "NODE-2",
        "level-2",
        "node",
        "names of data packs and a map pack",
        body=node(2, both, child(number=2, names=[0, 1, 3])),
        fields={
            "level": 2,
            "child.0": at,
            "child.0.name.0": pack_text(PACK_ONE),
            "child.0.name.1": pack_text(OTHER),
            "child.0.name.2": pack_text(MAP_TWO),
        },
        **{**NODE_INPUTS, "level": 2},
    )
    vector(
        "NODE-2",
        "level-3",
        "node",
        "no names above level 2",
        body=node(3, table(MAP_ONE), child(level=3)),
        fields={"level": 3, "child.0": at},
        **{**NODE_INPUTS, "level": 3},
    )
    misnamed = bad("a child's names cannot be those of its table")
    fail = lambda what, comment, error, body, level=1: vector(
        "NODE-2", what, "node", comment, error, body, **{**NODE_INPUTS, "level": level}
    )
    fail(
        "page-names-a-map-pack", "a page names data packs only", misnamed, node(1, packs, child(number=1, names=[0, 1]))
    )
    fail(
        "node-names-no-map-pack",
        "a node names a map pack at least",
        misnamed,
        node(2, packs, child(number=1, names=[0])),
        2,
    )
    fail("node-names-nothing", "a node names a map pack at least", misnamed, node(2, table(MAP_ONE), child()), 2)
    fail(
        "name-not-in-the-table",
        "an entry number that the table does not have",
        UNLISTED,
        node(1, packs, child(number=1, names=[0, 2])),
    )
    fail(
        "more-names-than-packs",
        "more names than the table has packs",
        limit("names of a child", 3, 2),
        node(1, packs, child(number=1, names=[0, 1, 2])),
    )
    fail("codec-3", "a codec that is not known", kind("codec", 3), node(1, packs, child(codec=3, number=1, names=[0])))
    vector(
        "NODE-3",
        "union-of-packs-and-names",
        "node",
        "a pack that one child is in and another one names",
        body=node(2, table(MAP_ONE, MAP_TWO), child(names=[0]), child(number=1, names=[0, 1])),
        fields={
            "level": 2,
            "child.0": at,
            "child.0.name.0": pack_text(MAP_ONE),
            "child.1": chunk_text(MAP_TWO),
            "child.1.name.0": pack_text(MAP_ONE),
            "child.1.name.1": pack_text(MAP_TWO),
        },
        **{**two, "level": 2},
    )
    vector(
        "NODE-3",
        "data-pack-at-level-3",
        "node",
        "a higher node has only packs that hold its children",
        UNUSED,
        node(3, packs, child(number=1, level=3)),
        **{**NODE_INPUTS, "level": 3},
    )
    vector(
        "NODE-3",
        "names-at-level-3",
        "node",
        "a higher node that lists names",
        "trailing-bytes",
        node(3, table(MAP_ONE), child(names=[0], level=2)),
        **{**NODE_INPUTS, "level": 3},
    )
    levels()
    root_level = "the level of a node"
    for what, comment, level, expected in (
        ("level-too-low", "a node of level 1 where one of level 2 is called for", 1, 2),
        ("level-too-high", "a node of level 2 where one of level 1 is called for", 2, 1),
        ("level-0", "a level that no node has", 0, 0),
        ("level-11", "a level that no node has", 11, 11),
        ("level-255", "a level that no node has", 255, 1),
    ):
        vector(
            "NODE-5",
            what,
            "node",
            comment,
            kind(root_level, level),
            node(level, packs, one()),
            **{**NODE_INPUTS, "level": expected},
        )
    vector(
        "NODE-5",
        "level-10",
        "node",
        "the highest level",
        body=node(10, table(MAP_ONE), child(level=10)),
        fields={"level": 10, "child.0": at},
        **{**NODE_INPUTS, "level": 10},
    )


def levels():
    for size, cell_len in (
        (1, 4096),
        (4096 * 64, 4096),
        (4096 * 64 + 1, 4096),
        (4096 * 64**2, 4096),
        (4096 * 64**2 + 1, 4096),
        (2**62, 4096),
        (64 << 20, MIB),
        ((64 << 20) + 1, MIB),
        (1 << 40, MIB),
        (2**62, MIB),
    ):
        level, span = 1, 64 * cell_len
        while span < size:
            level, span = level + 1, span * 64
        span //= 64
        vector(
            "NODE-4",
            f"size-{size}-cells-of-{cell_len}",
            "levels",
            "the lowest level that spans the disk, and the children of its root",
            size=size,
            cell_len=cell_len,
            fields={"root-level": level, "child-span": span, "children": -(-size // span)},
        )
    hole_node = bad("a node is one hole")
    vector(
        "NODE-4",
        "a-page-without-chunks",
        "node",
        "no chunk starts in the span, but a page is stored in it",
        body=node(1, table(MAP_ONE), child(), HOLE_CHILD),
        fields={"level": 1, "child.0": chunk_text(MAP_ONE), "child.1": "hole"},
        **{**NODE_INPUTS, "children": 2},
    )
    scenario(
        "NODE-2",
        "names-of-another-table",
        "engine/tests/verify/maps.rs::a_node_that_keeps_a_pack_of_its_page_to_itself_is_found",
        "a child's names are not those of its table",
        "refused",
    )
    vector(
        "NODE-4",
        "one-hole",
        "node",
        "a span without a page has no node",
        hole_node,
        node(1, table(), HOLE_CHILD, HOLE_CHILD),
        **{**NODE_INPUTS, "children": 2},
    )
    vector(
        "NODE-4",
        "one-hole-at-level-3",
        "node",
        "a span without a page has no node",
        hole_node,
        node(3, table(), HOLE_CHILD),
        **{**NODE_INPUTS, "level": 3},
    )
