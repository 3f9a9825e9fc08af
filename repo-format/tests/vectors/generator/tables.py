"""Section 8.2: pack tables and locations."""

from objects import (
    MIB,
    WRITER,
    Raw,
    child,
    chunk,
    entry,
    group,
    hole,
    index,
    node,
    pack_text,
    page,
    payload_id,
    raw_decision_name,
    repack,
    session,
    table,
)
from samples import (
    MISFIT,
    NODE_INPUTS,
    OLD,
    OTHER,
    OUTSIDE,
    OWN,
    PACK_ONE,
    PAGE_INPUTS,
    TABLE_ONE,
    UNLISTED,
    UNUSED,
    chunk_text,
)
from vectors import bad, kind, limit, name_error, numbered, order, vector

TOO_SHORT = bad("a pack is too short to be one")


def tables():
    packs = [
        entry(1, "a", session(9), 0, 335),
        entry(1, "a", session(9), 0xFFFFFFFF),
        entry(1, "host-1", session(1), 3, 288 * MIB),
        entry(2, "0", session(0)),
    ]
    vector(
        "TABLE-1",
        "groups",
        "condemned",
        "several groups, numbers with gaps",
        body=table(*packs),
        fields=numbered("pack", map(pack_text, packs)),
    )
    vector("TABLE-1", "empty", "condemned", "a table of no groups", body=table())
    name = name_error("the name of a writer", "1 to 63 characters of a-z, 0-9 and -, beginning with a letter or digit")
    fail = lambda what, comment, error, raw: vector("TABLE-1", what, "condemned", comment, error, raw)
    fail(
        "empty-group",
        "a group of no packs",
        bad("a group of a table is empty"),
        Raw().u32(1).add(group(1, WRITER, session(1), [])).put(bytes(8)),
    )
    fail("kind-0", "a kind that is not known", kind("pack kind", 0), table(entry(0)))
    fail("kind-3", "a kind that is not known", kind("pack kind", 3), table(entry(3)))
    fail("writer-in-upper-case", "a writer's name that is not allowed", name, table(entry(writer="Host-1")))
    fail("writer-empty", "a writer's name that is not allowed", name, table(entry(writer="")).put(bytes(8)))
    fail("writer-with-slash", "a writer's name that would lead elsewhere", name, table(entry(writer="../d/host-1")))
    fail(
        "group-twice",
        "two groups of one session",
        order("the groups of a table"),
        Raw().u32(2).add(group(1, WRITER, session(1), [(0, MIB)])).add(group(1, WRITER, session(1), [(1, MIB)])),
    )
    locations()
    used = page(TABLE_ONE, chunk(1000), hole(3096))
    vector(
        "TABLE-3",
        "all-used",
        "page",
        "the table has the one pack that is referred to",
        body=used,
        fields={"first": 0, "entry.0": f"chunk {chunk_text()}", "entry.1": "hole 3096"},
        **PAGE_INPUTS,
    )
    two = table(PACK_ONE, OTHER)
    vector(
        "TABLE-3",
        "unused-in-a-page",
        "page",
        "a pack that no entry refers to",
        UNUSED,
        page(two, chunk(1000), hole(3096)),
        **PAGE_INPUTS,
    )
    vector(
        "TABLE-3",
        "unused-in-a-node",
        "node",
        "a pack that no child refers to",
        UNUSED,
        node(1, table(PACK_ONE, OTHER, entry(2)), child(number=2, names=[0])),
        **NODE_INPUTS,
    )
    vector(
        "TABLE-3",
        "unused-in-an-index",
        "index",
        "a pack that no entry refers to",
        UNUSED,
        index([(session(2), raw_decision_name())], two, [(payload_id(1), 1, 1, 176, 116, 100)]),
    )
    vector(
        "TABLE-3",
        "unused-in-a-repack-record",
        "repack",
        "a pack that no lead refers to",
        UNUSED,
        repack([], table(OLD, PACK_ONE, OTHER), [(0, [1])]),
    )
    vector(
        "TABLE-3",
        "missing-in-a-page",
        "page",
        "an entry number that the table does not have",
        UNLISTED,
        page(TABLE_ONE, chunk(1000, number=1), hole(3096)),
        **PAGE_INPUTS,
    )
    own_lengths()


def locations():
    def with_chunk(raw, of=TABLE_ONE, plain_len=1000):
        return page(of, raw, hole(4096 - plain_len))

    good = lambda what, comment, raw, text, of=TABLE_ONE, plain_len=1000: vector(
        "TABLE-2",
        what,
        "page",
        comment,
        body=with_chunk(raw, of, plain_len),
        fields={"first": 0, "entry.0": f"chunk {text}", "entry.1": f"hole {4096 - plain_len}"},
        **PAGE_INPUTS,
    )
    fail = lambda what, comment, error, raw, of=TABLE_ONE, plain_len=1000: vector(
        "TABLE-2", what, "page", comment, error, with_chunk(raw, of, plain_len), **PAGE_INPUTS
    )
    good("raw", "a raw chunk behind the header", chunk(1000), chunk_text())
    good(
        "zstd",
        "a compressed chunk, one byte shorter than its payload",
        chunk(1000, codec=2, stored_len=1015),
        chunk_text(codec=2, stored_len=1015),
    )
    good(
        "zstd-shortest",
        "a compressed chunk of one byte",
        chunk(1000, codec=2, stored_len=17),
        chunk_text(codec=2, stored_len=17),
    )
    good(
        "end-of-pack", "a frame that ends with its pack", chunk(1000, offset=MIB - 1016), chunk_text(offset=MIB - 1016)
    )
    smallest = entry(length=335)
    good(
        "smallest-pack",
        "a pack of 335 bytes",
        chunk(1),
        chunk_text(smallest, stored_len=17, plain_len=1),
        table(smallest),
        1,
    )
    largest = entry(length=288 * MIB)
    good("largest-pack", "a pack of 288 MiB", chunk(1000), chunk_text(largest), table(largest))
    fail("within-the-header", "a frame that begins in the header", OUTSIDE, chunk(1000, offset=175))
    fail("offset-0", "a frame at the start of its pack", OUTSIDE, chunk(1000, offset=0))
    fail("behind-the-end", "a frame that ends a byte behind its pack", OUTSIDE, chunk(1000, offset=MIB - 1015))
    fail("offset-overflows", "offset and stored length add up to over 2^32", OUTSIDE, chunk(1000, offset=0xFFFFFFFF))
    fail(
        "stored-length-overflows",
        "offset and stored length add up to over 2^32",
        OUTSIDE,
        chunk(1000, stored_len=0xFFFFFFFF),
    )
    fail("raw-shorter", "a raw chunk whose stored length is too small", MISFIT, chunk(1000, stored_len=1015))
    fail("raw-longer", "a raw chunk whose stored length is too large", MISFIT, chunk(1000, stored_len=1017))
    fail("zstd-not-shorter", "a compressed chunk as long as its payload", MISFIT, chunk(1000, codec=2))
    fail("tag-alone", "a stored length of a tag", MISFIT, chunk(1000, codec=2, stored_len=16))
    fail("stored-length-0", "a stored length of nothing", MISFIT, chunk(1000, codec=2, stored_len=0))
    fail("plain-length-0", "a payload of no bytes", MISFIT, chunk(0), plain_len=0)
    fail(
        "plain-length-over-1-mib",
        "a chunk longer than any config allows",
        limit("plain length", MIB + 1, MIB),
        chunk(MIB + 1, codec=2, stored_len=100),
        plain_len=1000,
    )
    fail(
        "map-pack",
        "a chunk in a map pack",
        bad("a payload is in a pack of the wrong kind"),
        chunk(1000),
        table(entry(2)),
    )
    fail(
        "pack-of-334-bytes",
        "a pack that is too short to be one",
        TOO_SHORT,
        chunk(1, stored_len=17),
        table(entry(length=334)),
        1,
    )
    fail(
        "pack-over-288-mib",
        "a pack that is longer than its limit",
        limit("pack length", 288 * MIB + 1, 288 * MIB),
        chunk(1000),
        table(entry(length=288 * MIB + 1)),
    )
    in_node = lambda what, comment, error, table_raw, **place: vector(
        "TABLE-2", what, "node", comment, error, node(1, table_raw, child(**place)), **NODE_INPUTS
    )
    in_node(
        "page-in-a-data-pack",
        "a page in a data pack",
        bad("a payload is in a pack of the wrong kind"),
        TABLE_ONE,
        names=[0],
    )
    in_node(
        "page-over-8-mib",
        "a page longer than its limit",
        limit("plain length", 8 * MIB + 1, 8 * MIB),
        table(entry(2)),
        codec=2,
        stored_len=1000,
        plain_len=8 * MIB + 1,
    )
    in_node("page-beyond-its-pack", "a page that ends behind its pack", OUTSIDE, table(entry(2)), offset=MIB)


def own_lengths():
    """TABLE-4, in the table of a node that is read out of OWN."""
    unknown = entry(2, number=9, length=0)
    body = node(1, table(PACK_ONE, unknown), child(number=1, names=[0]))
    at = chunk_text(OWN)
    fields = {"level": 1, "child.0": at, "child.0.name.0": pack_text(PACK_ONE)}
    vector(
        "TABLE-4",
        "own-pack",
        "node",
        "the pack that holds the node has the length 0 and is given the one it was reached by",
        body=body,
        fields=fields,
        **NODE_INPUTS,
    )
    vector(
        "TABLE-4",
        "other-packs",
        "node",
        "a node whose packs are all others",
        body=node(1, table(PACK_ONE, entry(2)), child(number=1, names=[0])),
        fields={**fields, "child.0": chunk_text(entry(2))},
        **NODE_INPUTS,
    )
    vector(
        "TABLE-4",
        "own-pack-with-length",
        "node",
        "the pack that holds the node has a length",
        bad("a table has a length for the pack that holds it"),
        node(1, table(PACK_ONE, OWN), child(number=1, names=[0])),
        **NODE_INPUTS,
    )
    vector(
        "TABLE-4",
        "other-pack-without-length",
        "node",
        "another pack has the length 0",
        TOO_SHORT,
        node(1, table(entry(number=7, length=0), entry(2)), child(number=1, names=[0])),
        **NODE_INPUTS,
    )
    vector(
        "TABLE-4",
        "frame-beyond-the-own-pack",
        "node",
        "a page that ends behind the pack that holds the node",
        OUTSIDE,
        node(1, table(PACK_ONE, unknown), child(number=1, names=[0], offset=2 * MIB - 1015)),
        **NODE_INPUTS,
    )
    vector(
        "TABLE-4",
        "length-0-in-a-page",
        "page",
        "a page has no own pack in its table",
        TOO_SHORT,
        page(table(entry(length=0)), chunk(1000), hole(3096)),
        **PAGE_INPUTS,
    )
    vector(
        "TABLE-4",
        "length-0-outside-of-packs",
        "condemned",
        "an object that is not in a pack",
        TOO_SHORT,
        table(entry(length=0)),
    )
