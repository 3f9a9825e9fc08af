"""Section 8: chunks, pack tables, pages, nodes."""

import hashlib
import math

from general import PAGE_INPUTS, PACK_ONE, TABLE_ONE
from objects import *
from primitives import MASK64, blake3
from vectors import *

# --- 8.1 Chunks: FastCDC with the two-byte rolling of its 2020 paper ---

GEAR = [int.from_bytes(hashlib.md5(bytes([byte]) * 64).digest()[:8], "big") for byte in range(256)]
MASKS = {
    7: 0x18035100,
    8: 0x1800035300,
    9: 0x19000353000,
    10: 0x590003530000,
    11: 0xD90003530000,
    12: 0xD90103530000,
    13: 0xD90303530000,
    14: 0xD90313530000,
    15: 0xD90F03530000,
    16: 0xD90303537000,
    17: 0xD90703537000,
    18: 0xD90707537000,
    19: 0xD91707537000,
    20: 0xD91747537000,
    21: 0xD91767537000,
}


class Chunker:
    def __init__(self, seed, smallest, average, largest):
        bits = math.floor(math.log2(average) + 0.5)
        self.lengths = smallest, average, largest
        self.strict, self.relaxed = MASKS[bits + 1], MASKS[bits - 1]
        self.gear = [value ^ seed for value in GEAR]

    def cut(self, data):
        """The length of the first chunk of `data`, which ends with its region."""
        smallest, average, largest = self.lengths
        if len(data) <= smallest:
            return len(data)
        end = min(len(data), largest)
        center = min(average, end)
        total = 0
        # The second byte of a pair is added as one byte at a time would be; the first one with all shifted by one more.
        for pair in range(smallest // 2, end // 2):
            mask = self.strict if pair < center // 2 else self.relaxed
            first, second = data[2 * pair], data[2 * pair + 1]
            total = ((total << 2) + (self.gear[first] << 1)) & MASK64
            if total & (mask << 1) == 0:
                return 2 * pair
            total = (total + self.gear[second]) & MASK64
            if total & mask == 0:
                return 2 * pair + 1
        return end

    def sequence(self, region):
        pieces, at = [], 0
        while at < len(region):
            length = self.cut(region[at:])
            is_hole = not any(region[at : at + length])
            if is_hole and pieces and pieces[-1][0] == "hole":
                pieces[-1][1] += length
            else:
                pieces.append(["hole" if is_hole else "chunk", length])
            at += length
        return " ".join(f"{name[0]}{length}" for name, length in pieces)


def disk_of(pieces):
    data = b""
    for piece in pieces:
        name, *rest = piece.split()
        length = int(rest[-1])
        data += blake3(rest[0].encode(), length) if name == "random" else bytes([int(rest[0], 16)]) * length
    return data


def chunked(
    rule,
    what,
    comment,
    pieces,
    seed=KEYS.chunker_seed,
    smallest=64,
    average=256,
    largest=1024,
    region_len=8192,
    negative=None,
):
    chunker, data = Chunker(seed, smallest, average, largest), disk_of(pieces)
    regions = [chunker.sequence(data[at : at + region_len]) for at in range(0, len(data), region_len)]
    vector(
        rule,
        what,
        "chunks",
        comment,
        negative=negative,
        seed=seed,
        min=smallest,
        average=average,
        max=largest,
        region_len=region_len,
        piece=pieces,
        fields=numbered("region", regions),
    )


def chunks():
    unread = "a reader does not need the chunker"
    chunked("CHUNK-1", "several-regions", "each region begins anew, the last one is shorter", ["random alpha 20000"])
    chunked(
        "CHUNK-1",
        "regions-of-equal-content",
        "equal regions have equal chunks",
        ["random alpha 8192", "random alpha 8192", "random alpha 4096"],
    )
    chunked("CHUNK-1", "disk-of-one-byte", "the smallest disk", ["byte 01 1"])
    chunked("CHUNK-1", "last-region-of-one-byte", "a region of one byte", ["random beta 8193"])
    chunked(
        "CHUNK-1",
        "odd-end",
        "the last byte of a region at an odd place is no candidate for a cut",
        ["random gamma 7001"],
    )
    chunked("CHUNK-2", "seed-0", "the gear table as it is", ["random alpha 8192"], seed=0, negative=unread)
    chunked("CHUNK-2", "seed-of-64-bits", "the highest bit of the seed is set", ["random alpha 8192"], seed=2**64 - 1)
    chunked(
        "CHUNK-2",
        "smallest-average",
        "min, average and max at their smallest",
        ["random delta 8192"],
        smallest=64,
        average=256,
        largest=1024,
    )
    chunked(
        "CHUNK-2",
        "equal-lengths",
        "min, average and max are equal",
        ["random delta 8192"],
        smallest=1024,
        average=1024,
        largest=1024,
    )
    for average in (362, 364, 512, 724, 726):
        chunked(
            "CHUNK-2",
            f"average-{average}",
            "masks are chosen by the rounded binary logarithm of the average",
            ["random epsilon 8192"],
            average=average,
        )
    chunked(
        "CHUNK-2",
        "default-lengths",
        "8, 32 and 128 KiB",
        ["random zeta 400000"],
        smallest=8192,
        average=32768,
        largest=131072,
        region_len=16 * MIB,
    )
    chunked("CHUNK-2", "constant-bytes", "bytes that are all the same", ["byte 61 8192"])
    chunked(
        "CHUNK-3",
        "zeros",
        "a region of zeros is one hole",
        ["byte 00 16384", "byte 00 100"],
        negative="a chunk of zeros restores to the same bytes as a hole",
    )
    chunked(
        "CHUNK-3",
        "zeros-in-the-midst",
        "neighbouring chunks of zeros are one hole",
        ["random eta 1500", "byte 00 5000", "random theta 1692"],
    )
    chunked(
        "CHUNK-3",
        "few-zeros",
        "zeros shorter than a chunk are no hole",
        ["random eta 1500", "byte 00 60", "random theta 4000"],
    )
    chunked(
        "CHUNK-3",
        "zeros-over-a-region's-edge".replace("'", ""),
        "a hole ends with its region",
        ["random eta 6000", "byte 00 5000", "random theta 1000"],
    )
    chunked(
        "CHUNK-3",
        "zeros-at-an-odd-end",
        "zeros up to the disk's end at an odd place",
        ["random eta 2000", "byte 00 3333"],
    )
    sizes = bad("the size of a disk is not allowed")
    vector("CHUNK-1", "disk-of-0-bytes", "decision", "a disk of no bytes", sizes, commit(disks=[disk(size=0)]))
    vector(
        "CHUNK-1",
        "disk-over-2-to-the-62",
        "decision",
        "a disk that is too large",
        sizes,
        commit(disks=[disk(size=2**62 + 1)]),
    )
    vector(
        "CHUNK-1",
        "disk-of-2-to-the-64-minus-1",
        "decision",
        "a disk that is too large",
        sizes,
        commit(disks=[disk(size=2**64 - 1)]),
    )
    vector(
        "CHUNK-1",
        "chunk-over-a-regions-edge",
        "page",
        "a chunk crosses the end of its region",
        bad("a piece reaches too far"),
        page(TABLE_ONE, hole(3500), chunk(600)),
        **{**PAGE_INPUTS, "region_len": 4096},
    )


# --- 8.2 Pack tables ---

OTHER = entry(number=8)
OWN = entry(2, number=9, length=2 * MIB)
NODE_INPUTS = {"level": 1, "children": 1, "pack": pack_text(OWN)}
UNUSED = bad("a table has a pack that nothing refers to")
OUTSIDE = bad("a frame does not lie within its pack")
MISFIT = bad("the lengths of a frame do not fit its codec")
TOO_SHORT = bad("a pack is too short to be one")
UNLISTED = bad("an entry number is not in the table")


def chunk_text(pack_entry=PACK_ONE, codec=1, offset=176, stored_len=1016, plain_len=1000, identity=payload_id(3)):
    return f"{codec} {pack_text(pack_entry)} {offset} {stored_len} {plain_len} {identity.hex()}"


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
        "a pack that no move refers to",
        UNUSED,
        repack([], table(PACK_ONE, OTHER, entry(number=9)), [(payload_id(1), 0, 176, 1, 2, 176, 116, 100)]),
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


# --- 8.3 Pages ---


def pages():
    in_region = {**PAGE_INPUTS, "cell": 1}

    def of(rule, what, comment, lengths, expect="ok", first=0, inputs=PAGE_INPUTS, identity=payload_id(3)):
        """A page with holes where `lengths` are negative and chunks where not."""
        has_chunk = any(length >= 0 for length in lengths)
        raw = page(
            TABLE_ONE if has_chunk else table(),
            *(hole(-length) if length < 0 else chunk(length) for length in lengths),
            first=first,
        )
        texts = [
            f"hole {-length}" if length < 0 else f"chunk {chunk_text(stored_len=length + 16, plain_len=length)}"
            for length in lengths
        ]
        vector(
            rule,
            what,
            "page",
            comment,
            expect,
            raw,
            fields={"first": first, **numbered("entry", texts)} if expect == "ok" else None,
            **inputs,
        )

    reach = bad("no chunk of the cell before reaches so far")
    of("PAGE-1", "first-0", "the first entry starts with its cell", [1000, -3096])
    of(
        "PAGE-1",
        "first-at-its-highest",
        "the last chunk of the cell before ends as late as it can",
        [-3073],
        first=1023,
        inputs=in_region,
    )
    of("PAGE-1", "first-too-high", "no chunk is so long that it could end here", [-3072], reach, 1024, in_region)
    of("PAGE-1", "first-at-a-regions-start", "nothing reaches into the first cell of a region", [-4095], reach, 1)
    of(
        "PAGE-1",
        "first-behind-the-cell",
        "the first entry starts behind the cell",
        [1000],
        reach,
        0xFFFFFFFF,
        in_region,
    )
    of("PAGE-1", "no-entry", "a page of no entries", [], bad("a page has no entry"), 10, in_region)
    of("PAGE-2", "longest-chunks", "chunks as long as they may be", [1024, 1024, 1024, 1024])
    of("PAGE-2", "shortest-pieces", "pieces of one byte", [1, -1, 1, -4093])
    of(
        "PAGE-2",
        "chunk-over-max",
        "a chunk longer than the chunker's maximum",
        [1025, -3071],
        limit("chunk length", 1025, 1024),
    )
    empty = page(TABLE_ONE, chunk(1000), hole(0), chunk(1000), hole(2096))
    vector(
        "PAGE-2",
        "hole-of-0-bytes",
        "page",
        "a hole of no bytes",
        bad("a piece is empty or starts behind its cell"),
        empty,
        **PAGE_INPUTS,
    )
    for number in (3, 255):
        vector(
            "PAGE-2",
            f"codec-{number}",
            "page",
            "a codec that is not known",
            kind("codec", number),
            page(TABLE_ONE, chunk(1000, codec=number), hole(3096)),
            **PAGE_INPUTS,
        )
    short = bad("the pieces of a page end before its cell")
    behind = bad("a piece is empty or starts behind its cell")
    far = bad("a piece reaches too far")
    of("PAGE-3", "chunk-over-the-cells-edge", "the last chunk ends in the next cell of its region", [-3900, 1000])
    of("PAGE-3", "chunk-up-to-the-regions-end", "the last chunk ends with the region", [-3096, 1000], inputs=in_region)
    of(
        "PAGE-3",
        "disks-end",
        "the last entry ends with the disk",
        [1000, 500],
        inputs={**PAGE_INPUTS, "disk_size": 1500},
    )
    of(
        "PAGE-3",
        "two-holes-side-by-side",
        "two holes that should be one",
        [1000, -1000, -2096],
        bad("a page has two holes side by side"),
    )
    of("PAGE-3", "ends-too-early", "a gap at the cell's end", [1000, -3095], short)
    of("PAGE-3", "starts-behind-the-cell", "an entry that starts in the next cell", [1024, 1024, 1024, 1024, 1], behind)
    of(
        "PAGE-3",
        "starts-behind-the-disk",
        "an entry that starts where the disk ends",
        [1000, 500, 1],
        behind,
        inputs={**PAGE_INPUTS, "disk_size": 1500},
    )
    of("PAGE-3", "hole-over-the-cells-edge", "a hole that ends in the next cell", [1000, -3097], far)
    of(
        "PAGE-3",
        "chunk-over-the-disks-end",
        "a chunk that ends behind the disk",
        [1000, 501],
        far,
        inputs={**PAGE_INPUTS, "disk_size": 1500},
    )
    of(
        "PAGE-3",
        "chunk-over-the-regions-end",
        "a chunk that ends behind the region",
        [-3900, 1000],
        far,
        inputs=in_region,
    )
    of("PAGE-3", "hole-overflows", "lengths that add up to over 2^32", [1000, -0xFFFFFFFF], far)
    of(
        "PAGE-4",
        "one-hole-behind-a-chunk",
        "a hole that does not begin with its cell is stored",
        [-4095],
        first=1,
        inputs=in_region,
    )
    of(
        "PAGE-4",
        "one-hole",
        "a hole from the cell's start to its end is not stored",
        [-4096],
        bad("a page is one hole"),
    )
    of(
        "PAGE-4",
        "one-hole-to-the-disks-end",
        "a hole from the cell's start to the disk's end is not stored",
        [-500],
        bad("a page is one hole"),
        inputs={**PAGE_INPUTS, "disk_size": 500},
    )
    of(
        "PAGE-4",
        "nothing-starts",
        "a chunk of the cell before reaches to the disk's end",
        [],
        bad("a page has no entry"),
        404,
        {**in_region, "disk_size": 4500},
    )
    of(
        "PAGE-4",
        "one-byte-starts",
        "the last byte of the disk starts in its last cell",
        [1],
        first=403,
        inputs={**in_region, "disk_size": 4500},
    )
    vector(
        "PAGE-4",
        "map-pack-in-the-table",
        "page",
        "a page names data packs only",
        UNUSED,
        page(table(PACK_ONE, entry(2)), chunk(1000), hole(3096)),
        **PAGE_INPUTS,
    )


# --- 8.4 Nodes ---

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
        "one-hole",
        "node",
        "a span in which no chunk starts has no node",
        hole_node,
        node(1, table(), HOLE_CHILD, HOLE_CHILD),
        **{**NODE_INPUTS, "children": 2},
    )
    vector(
        "NODE-4",
        "one-hole-at-level-3",
        "node",
        "a span in which no chunk starts has no node",
        hole_node,
        node(3, table(), HOLE_CHILD),
        **{**NODE_INPUTS, "level": 3},
    )
