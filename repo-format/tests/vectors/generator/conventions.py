"""Section 1: conventions."""

from objects import (
    HOLE_CHILD,
    MIB,
    TIME,
    WRITER,
    Frame,
    Raw,
    abort,
    awaited,
    child,
    chunk,
    commit,
    confirmed,
    directory,
    disk,
    entry,
    gc_result,
    group,
    hole,
    index,
    intent,
    lineage,
    marker,
    node,
    pack,
    pack_name,
    pack_text,
    page,
    payload_id,
    raw_decision_name,
    registered,
    pin,
    repack,
    sealed,
    session,
    sessions,
    table,
    tombstone,
)
from primitives import le
from samples import (
    INTENT_FIELDS,
    MANY,
    NAME,
    OLD,
    OLD_TOO,
    PACK_ONE,
    PAGE_INPUTS,
    TABLE_ONE,
    header_fields,
)
from vectors import KEY_INPUTS, limit, numbered, order, vector, version

INDEX_SESSIONS = [(session(2), raw_decision_name())]


def conventions():
    vector(
        "GEN-1",
        "integers",
        "intent",
        "fields of several lengths follow each other without padding",
        body=intent(),
        fields=INTENT_FIELDS,
    )
    plain = intent().bytes
    big_endian = sealed(
        "intent",
        f"s/{WRITER}/{session(2).hex()}",
        plain,
        length=int.from_bytes(len(plain).to_bytes(4, "big"), "little"),
    )
    vector(
        "GEN-1",
        "big-endian",
        "intent",
        "a length that is written big-endian",
        limit("plaintext length", int.from_bytes(len(plain).to_bytes(4, "big"), "little"), 64 * MIB),
        big_endian,
        **KEY_INPUTS,
        name=f"s/{WRITER}/{session(2).hex()}",
    )
    vector(
        "GEN-2",
        "text-beyond-ascii",
        "decision",
        "lengths of text count bytes, not characters",
        body=abort(program="Größe 𝄞"),
        fields={"verdict": "abort", "session": session(2), "time": TIME, "program": "Größe 𝄞", "by": "writer"},
    )
    for what, data, comment in (
        ("lone-continuation", b"a\x80", "a continuation byte without a first one"),
        ("overlong", b"\xc0\x80", "an overlong encoding of U+0000"),
        ("surrogate", b"\xed\xa0\x80", "half of a surrogate pair"),
        ("beyond-unicode", b"\xf4\x90\x80\x80", "a code point above U+10FFFF"),
        ("cut-short", b"a\xe2\x82", "a character whose last byte is missing"),
    ):
        vector("GEN-2", what, "decision", comment, "bad-text", abort(program=data))
    vector(
        "GEN-2", "writer", "condemned", "a writer's name that is no UTF-8", "bad-text", table(entry(writer=b"h\xff"))
    )
    vector(
        "GEN-2",
        "str16-cut-short",
        "decision",
        "a character whose last byte is missing, in a str16",
        "bad-text",
        commit(properties=[("os", b"a\xe2\x82")]),
    )
    vector(
        "GEN-3",
        "ends-with-the-last-field",
        "tombstone",
        "the bytes end with the last field",
        body=tombstone(),
        fields={"session": session(2), "time": TIME, "decision": NAME},
    )
    for object_, raw, inputs in whole_objects():
        data = raw.bytes
        vector(
            "GEN-3",
            f"{object_}-one-byte-more",
            object_,
            "a byte is left over",
            "trailing-bytes",
            data + b"\0",
            **inputs,
        )
        vector(
            "GEN-3", f"{object_}-one-byte-less", object_, "the last byte is missing", "truncated", data[:-1], **inputs
        )
    header = pack(2, pack_name(2), [Frame(2, b"x")]).bytes[:176]
    vector("GEN-3", "pack-header-one-byte-less", "pack-header", "the last byte is missing", "truncated", header[:-1])
    vector("GEN-3", "nothing", "intent", "no bytes at all", "truncated", b"")
    counts()
    reserved()
    lists()
    magic_and_version()


def whole_objects():
    """One valid object of each kind, without the sealing."""
    frames = [Frame(1, b"a chunk")]
    return [
        ("intent", intent(), {}),
        ("tombstone", tombstone(), {}),
        ("decision", commit(), {}),
        ("index", index(INDEX_SESSIONS, TABLE_ONE, [(payload_id(1), 1, 0, 176, 116, 100)]), {}),
        ("condemned", TABLE_ONE, {}),
        ("result", gc_result(TABLE_ONE, table(), 2, TABLE_ONE), {}),
        ("generation-seal", sessions([session(1)]), {}),
        ("awaited", awaited([(session(1), WRITER)]), {}),
        ("repack", repack([], table(OLD, PACK_ONE), [(0, [1])]), {}),
        ("pin", pin(), {}),
        ("replica-marker", marker(), {}),
        ("lineage", lineage([raw_decision_name()]), {}),
        ("barrier", registered(), {}),
        ("page", page(TABLE_ONE, chunk(1000), hole(3096)), PAGE_INPUTS),
        (
            "node",
            node(1, table(PACK_ONE, entry(2)), HOLE_CHILD, child(number=1, names=[0])),
            {"level": 1, "children": 2, "pack": pack_text(entry(2, number=9))},
        ),
        ("directory", directory(frames), {"pack_kind": 1, "directory_offset": 176 + 23}),
    ]


def counts():
    vector("GEN-4", "counts-of-nothing", "index", "counts may be zero", body=index([], table(), []))
    truncated = lambda what, object_, body, **inputs: vector(
        "GEN-4", what, object_, "a count of 2^32-1 that the bytes cannot hold", "truncated", body, **inputs
    )
    truncated("index-sessions", "index", index([], table(), [], session_count=MANY))
    truncated("index-entries", "index", index(INDEX_SESSIONS, TABLE_ONE, [], entry_count=MANY))
    truncated("table-groups", "condemned", Raw().u32(MANY))
    truncated("table-packs", "condemned", Raw().u32(1).u8(1).str8(WRITER).put(session(2)).u32(MANY).u32(0).u32(MIB))
    truncated("page-entries", "page", page(TABLE_ONE, count=MANY), **PAGE_INPUTS)
    truncated("via", "decision", commit(via_count=MANY))
    truncated("roster", "generation-seal", sessions([], count=MANY))
    truncated("awaited", "awaited", awaited([], count=MANY))
    truncated("set-aside", "lineage", lineage([], count=MANY))
    truncated("confirmed", "barrier", confirmed([], count=MANY))
    truncated("applies-to", "repack", repack([], table(), [], applies_count=MANY))
    truncated("leads", "repack", repack([], table(), [], lead_count=MANY))
    truncated("new-packs-of-a-lead", "repack", repack([], table(), [], lead_count=1).u32(0).u32(MANY))
    truncated("directory-frames", "directory", directory([], count=MANY), pack_kind=1, directory_offset=200)
    truncated(
        "names-of-a-child",
        "node",
        node(1, table(PACK_ONE, entry(2)), child(number=1, names_count=MANY)),
        level=1,
        children=1,
        pack=pack_text(entry(2, number=9)),
    )
    just_too_many = index(INDEX_SESSIONS, TABLE_ONE, [(payload_id(1), 1, 0, 176, 116, 100)], entry_count=2)
    vector(
        "GEN-4",
        "one-entry-too-many",
        "index",
        "a count that is one higher than what follows",
        "truncated",
        just_too_many,
    )
    vector(
        "GEN-4",
        "tags-over-the-limit",
        "decision",
        "1025 tags",
        limit("number of tags", 1025, 1024),
        commit(tag_count=1025),
    )
    vector(
        "GEN-4",
        "properties-over-the-limit",
        "decision",
        "1025 properties",
        limit("number of properties", 1025, 1024),
        commit(property_count=1025),
    )
    vector(
        "GEN-4",
        "disks-over-the-limit",
        "decision",
        "1025 disks",
        limit("number of disks", 1025, 1024),
        commit(disk_count=1025),
    )
    name = f"s/{WRITER}/{session(2).hex()}"
    vector(
        "GEN-4",
        "plaintext-over-the-limit",
        "intent",
        "a plaintext of 4 GiB is declared",
        limit("plaintext length", MANY, 64 * MIB),
        sealed("intent", name, intent().bytes, length=MANY),
        **KEY_INPUTS,
        name=name,
    )
    vector(
        "GEN-4",
        "page-over-the-limit",
        "page",
        "a page of 8 MiB and a byte",
        limit("page length", 8 * MIB + 1, 8 * MIB),
        b"",
        pad=(8 * MIB + 1, 0),
        **PAGE_INPUTS,
    )


def reserved():
    name = f"s/{WRITER}/{session(2).hex()}"
    one = pack(2, pack_name(2), [Frame(2, b"x")]).bytes[:176]
    vector(
        "GEN-5",
        "zeros",
        "pack-header",
        "flags, reserved bytes and the place of a session key are zero",
        body=one,
        fields=header_fields(one),
    )
    for what, at, comment in (
        ("flags-of-a-pack", 11, "a flag is set"),
        ("first-reserved-byte", 24, "the first reserved byte is not zero"),
        ("last-reserved-byte", 31, "the last reserved byte is not zero"),
        ("encapsulated-key-of-a-map-pack", 96, "a map pack has an encapsulated key"),
        ("ciphertext-of-a-map-pack", 175, "a map pack has an HPKE ciphertext"),
    ):
        spoilt = one[:at] + b"\x01" + one[at + 1 :]
        vector("GEN-5", what, "pack-header", comment, "reserved-not-zero", spoilt)
    vector(
        "GEN-5",
        "flags-of-a-sealed-object",
        "intent",
        "a flag is set",
        "reserved-not-zero",
        sealed("intent", name, intent().bytes, flags=0x80),
        **KEY_INPUTS,
        name=name,
    )


def lists():
    """Each sorted list: in the wrong order, and with one item twice."""
    a, b = session(1), session(2)
    both = lambda sid: (sid, raw_decision_name(sid))
    two = [(payload_id(1), 1, 0, 176, 116, 100), (payload_id(2), 1, 0, 292, 116, 100)]
    old_and_new = table(OLD, OLD_TOO, entry(number=7), entry(number=8))
    leads = [(0, [2]), (1, [3])]
    node_inputs = {"level": 1, "children": 1, "pack": pack_text(entry(2, number=9))}
    named = lambda names: node(1, table(entry(number=7), entry(number=8), entry(2)), child(number=2, names=names))
    for name, object_, says, make, items, inputs in (
        ("via", "decision", "the records of a snapshot", lambda items: commit(via=items), [a, b], {}),
        ("tags", "decision", "the tags of a snapshot", lambda items: commit(tags=items), ["a", "b"], {}),
        (
            "properties",
            "decision",
            "the properties of a snapshot",
            lambda items: commit(properties=items),
            [("a", "2"), ("b", "1")],
            {},
        ),
        ("disks", "decision", "the disks of a snapshot", lambda items: commit(disks=items), [disk("a"), disk("b")], {}),
        (
            "index-sessions",
            "index",
            "the sessions of an index",
            lambda items: index(items, TABLE_ONE, two[:1]),
            [both(a), both(b)],
            {},
        ),
        (
            "index-entries",
            "index",
            "the entries of an index",
            lambda items: index(INDEX_SESSIONS, TABLE_ONE, items),
            two,
            {},
        ),
        (
            "groups",
            "condemned",
            "the groups of a table",
            lambda items: Raw().u32(2).add(items[0]).add(items[1]),
            [group(1, WRITER, a, [(0, MIB)]), group(1, WRITER, b, [(0, MIB)])],
            {},
        ),
        (
            "packs-of-a-group",
            "condemned",
            "the packs of a table",
            lambda items: Raw().u32(1).add(group(1, WRITER, a, items)),
            [(1, MIB), (2, MIB)],
            {},
        ),
        ("names-of-a-child", "node", "the names of a child", named, [0, 1], node_inputs),
        ("roster", "generation-seal", "the sessions of a roster", sessions, [a, b], {}),
        ("awaited", "awaited", "the awaited sessions", awaited, [(a, "host-1"), (a, "host-2")], {}),
        (
            "applies-to",
            "repack",
            "the sessions of a repack record",
            lambda items: repack(items, old_and_new, leads),
            [a, b],
            {},
        ),
        ("leads", "repack", "the leads of a repack record", lambda items: repack([], old_and_new, items), leads, {}),
        (
            "new-packs-of-a-lead",
            "repack",
            "the new packs of a lead",
            lambda items: repack([], table(OLD, entry(number=7), entry(number=8)), [(0, items)]),
            [1, 2],
            {},
        ),
    ):
        first, second = items
        vector(
            "GEN-6",
            f"{name}-descending",
            object_,
            "a sorted list in descending order",
            order(says),
            make([second, first]),
            **inputs,
        )
        vector(
            "GEN-6",
            f"{name}-twice",
            object_,
            "a sorted list with one item twice",
            order(says),
            make([first, first]),
            **inputs,
        )
    for what, first, second in (
        ("kinds", group(2, WRITER, a, [(0, MIB)]), group(1, WRITER, b, [(0, MIB)])),
        ("writers", group(1, "host-2", a, [(0, MIB)]), group(1, WRITER, b, [(0, MIB)])),
        ("writers-of-other-lengths", group(1, "host-10", a, [(0, MIB)]), group(1, "host-1", a, [(0, MIB)])),
    ):
        vector(
            "GEN-6",
            f"groups-by-{what}",
            "condemned",
            f"groups whose {what} descend",
            order("the groups of a table"),
            Raw().u32(2).add(first).add(second),
        )
    packs = [
        entry(writer="host-1", sid=b),
        entry(writer="host-1", sid=b, number=1),
        entry(writer="host-10", sid=a),
        entry(writer="host-2", sid=a),
        entry(2, writer="a", sid=a),
    ]
    vector(
        "GEN-6",
        "groups-ascend",
        "condemned",
        "kind, then the writer's bytes, then the session id decide",
        body=table(*packs),
        fields=numbered("pack", map(pack_text, packs)),
    )


def magic_and_version():
    name = f"s/{WRITER}/{session(2).hex()}"
    blob = sealed("intent", name, intent().bytes)
    vector(
        "GEN-7",
        "version-0",
        "intent",
        "magic and version are those of this document",
        body=blob,
        fields=INTENT_FIELDS,
        **KEY_INPUTS,
        name=name,
    )
    header = pack(2, pack_name(2), [Frame(2, b"x")]).bytes[:176]
    vector(
        "GEN-7",
        "magic-of-a-sealed-object",
        "intent",
        "the magic is that of a pack",
        "bad-magic",
        sealed("intent", name, intent().bytes, magic=b"KEEPPACK"),
        **KEY_INPUTS,
        name=name,
    )
    vector(
        "GEN-7", "magic-of-a-pack", "pack-header", "the magic is in lower case", "bad-magic", b"keeppack" + header[8:]
    )
    for found in (1, 256, 0xFFFF):
        vector(
            "GEN-7",
            f"version-{found}-of-a-sealed-object",
            "intent",
            "a higher format version",
            version(found),
            sealed("intent", name, intent().bytes, version=found),
            **KEY_INPUTS,
            name=name,
        )
        vector(
            "GEN-7",
            f"version-{found}-of-a-pack",
            "pack-header",
            "a higher format version",
            version(found),
            header[:8] + le(found, 2) + header[10:],
        )
