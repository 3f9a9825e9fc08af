"""Section 8.3: pages."""

from objects import chunk, entry, hole, page, payload_id, table
from samples import PACK_ONE, PAGE_INPUTS, TABLE_ONE, UNUSED, chunk_text
from vectors import bad, kind, limit, numbered, scenario, vector


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
    vector(
        "PAGE-4",
        "no-chunk-and-a-pack",
        "page",
        "a page without chunks has an empty table",
        UNUSED,
        page(TABLE_ONE, hole(4095), first=1),
        **in_region,
    )
    verify = "engine/tests/verify/maps.rs::"
    scenario(
        "PAGE-1",
        "pages-swapped",
        verify + "pages_in_the_wrong_order_contradict_each_other",
        "pages that do not begin where the ones before ended",
        "refused",
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
