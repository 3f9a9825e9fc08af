"""Sections 1 to 3: conventions, names, keys."""

from objects import *
from primitives import blake3, keyed, le
from vectors import *

NAME = decision_name()
INTENT_FIELDS = {"session": session(2), "decision": NAME, "generation": 0x01020304, "time": TIME}
PACK_ONE = entry(number=7)
TABLE_ONE = table(PACK_ONE)
PAGE_INPUTS = {
    "min": 64,
    "average": 256,
    "max": 1024,
    "region_len": 8192,
    "cell_len": 4096,
    "disk_size": 1 << 20,
    "cell": 0,
}
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
    vector("GEN-2", "writer", "condemned", "a writer's name that is no UTF-8", "bad-text", table(entry(writer=b"h\xff")))
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
        ("result", gc_result(TABLE_ONE, table(), [session(1)]), {}),
        ("repack", repack([], table(PACK_ONE, entry(number=8)), [(payload_id(1), 0, 176, 1, 1, 176, 116, 100)]), {}),
        ("page", page(TABLE_ONE, chunk(1000), hole(3096)), PAGE_INPUTS),
        (
            "node",
            node(1, table(PACK_ONE, entry(2)), HOLE_CHILD, child(number=1, names=[0])),
            {"level": 1, "children": 2, "pack": pack_text(entry(2, number=9))},
        ),
        ("directory", directory(frames), {"pack_kind": 1, "directory_offset": 176 + 23}),
    ]


MANY = 0xFFFFFFFF


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
    truncated("roster", "result", gc_result(TABLE_ONE, table(), [], count=MANY))
    truncated("applies-to", "repack", repack([], table(), [], applies_count=MANY))
    truncated("moves", "repack", repack([], table(), [], move_count=MANY))
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


def header_fields(data):
    fields = {
        "kind": data[10],
        "directory-offset": u32_at(data, 12),
        "directory-length": u32_at(data, 16),
        "frame-count": u32_at(data, 20),
        "salt": data[32:64],
        "key-hash": data[64:96],
    }
    if data[10] == 1:
        fields["session-key"] = data[96:176]
    return fields


def u32_at(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def lists():
    """Each sorted list: in the wrong order, and with one item twice."""
    a, b = session(1), session(2)
    both = lambda sid: (sid, raw_decision_name(sid))
    two = [(payload_id(1), 1, 0, 176, 116, 100), (payload_id(2), 1, 0, 292, 116, 100)]
    moves = [(payload_id(1), 0, 176, 1, 1, 176, 116, 100), (payload_id(2), 0, 292, 1, 1, 292, 116, 100)]
    two_packs = table(entry(number=7), entry(number=8))
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
        ("roster", "result", "the sessions of a roster", lambda items: gc_result(table(), table(), items), [a, b], {}),
        (
            "applies-to",
            "repack",
            "the sessions of a repack record",
            lambda items: repack(items, two_packs, moves[:1]),
            [a, b],
            {},
        ),
        ("moves", "repack", "the moves of a repack record", lambda items: repack([], two_packs, items), moves, {}),
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


# --- Section 2 ---

SID = session(2).hex()
TAG = KEYS.vm_tag().hex()


def names():
    for what, text, fields in (
        ("config", "config", {"kind": "config"}),
        ("key-slot", "keys/ops-1", {"kind": "key-slot", "slot": "ops-1"}),
        ("intent", f"s/host-1/{SID}", {"kind": "intent", "writer": "host-1", "session": SID}),
        (
            "data-pack",
            f"d/host-1/{SID}-0000001f",
            {"kind": "data-pack", "writer": "host-1", "session": SID, "number": 31},
        ),
        (
            "map-pack",
            f"m/host-1/{SID}-ffffffff",
            {"kind": "map-pack", "writer": "host-1", "session": SID, "number": MANY},
        ),
        ("index", f"i/host-1/{SID}-00000000", {"kind": "index", "writer": "host-1", "session": SID, "number": 0}),
        (
            "decision",
            f"r/{TAG}/host-1/00000010-{SID}",
            {"kind": "decision", "vm-tag": TAG, "writer": "host-1", "seq": 16, "session": SID},
        ),
        ("tombstone", f"f/{TAG}/{SID}", {"kind": "tombstone", "vm-tag": TAG, "session": SID}),
        ("condemned", "gc/0000000a/condemned", {"kind": "condemned", "generation": 10}),
        ("result", "gc/0000000a/result", {"kind": "result", "generation": 10}),
        ("generation-seal", "gc/0000000a/sealed", {"kind": "generation-seal", "generation": 10}),
        ("repack", f"k/{SID}", {"kind": "repack", "session": SID}),
    ):
        vector("NAME-2", f"name-of-{what}", "name", "a name of section 2", text=text, fields=fields)
    for what, writer in (("one-character", "0"), ("63-characters", "x" * 63), ("dashes", "a--b-")):
        vector(
            "NAME-1",
            f"writer-of-{what}",
            "name",
            "a writer's name that is allowed",
            text=f"s/{writer}/{SID}",
            fields={"kind": "intent", "writer": writer, "session": SID},
        )
    ignored = lambda rule, what, text, comment: vector(rule, what, "name", comment, "ignored", text=text)
    ignored("NAME-1", "writer-of-64-characters", f"s/{'x' * 64}/{SID}", "a writer's name that is too long")
    ignored("NAME-1", "writer-with-dash-first", f"s/-a/{SID}", "a writer's name that begins with a dash")
    ignored("NAME-1", "writer-with-dot", f"d/host.1/{SID}-00000001", "a writer's name with a dot")
    ignored("NAME-1", "writer-in-upper-case", f"s/Host/{SID}", "a writer's name with an upper-case letter")
    ignored("NAME-1", "writer-missing", f"s//{SID}", "a writer's name of no characters")
    ignored("NAME-1", "slot-with-dash-first", "keys/-ops", "a slot's name that begins with a dash")
    ignored("NAME-1", "slot-of-64-characters", f"keys/{'x' * 64}", "a slot's name that is too long")
    ignored("NAME-2", "session-in-upper-case", f"k/{SID.upper()}", "hexadecimal digits in upper case")
    ignored("NAME-2", "session-of-31-digits", f"k/{SID[1:]}", "a session id that is too short")
    ignored("NAME-2", "session-of-33-digits", f"k/{SID}0", "a session id that is too long")
    ignored("NAME-2", "session-not-hexadecimal", f"k/{SID[1:]}g", "a session id with another letter")
    ignored("NAME-2", "number-of-7-digits", f"d/host-1/{SID}-0000001", "a number that is too short")
    ignored("NAME-2", "number-of-9-digits", f"d/host-1/{SID}-000000010", "a number that is too long")
    ignored("NAME-2", "number-missing", f"d/host-1/{SID}", "a pack without a number")
    ignored("NAME-2", "number-with-sign", f"d/host-1/{SID}-+0000001", "a number with a sign")
    ignored("NAME-2", "seq-missing", f"r/{TAG}/host-1/{SID}", "a decision without a seq")
    ignored("NAME-2", "vm-tag-of-31-digits", f"f/{TAG[1:]}/{SID}", "a VM tag that is too short")
    ignored("NAME-2", "generation-in-upper-case", "gc/0000000A/result", "a generation in upper case")
    for what, vm in (("ascii", VM), ("beyond-ascii", "Größe"), ("longest", "v" * 255)):
        vector(
            "NAME-2",
            f"vm-tag-{what}",
            "keys",
            "the VM tag is keyed by the VM's name",
            **KEY_INPUTS,
            vm=vm,
            fields={"vm-tag-key": KEYS.vm_tag_key, "vm-tag": KEYS.vm_tag(vm)},
        )
    vector("NAME-3", "known", "name", "a name of section 2 is not ignored", text="config", fields={"kind": "config"})
    scenario(
        "NAME-3",
        "reported",
        "engine/tests/verify.rs::a_name_without_a_meaning_is_reported_and_is_no_damage",
        "a verification reports the name and goes on",
    )
    for what, text in (
        ("other", "other"),
        ("below-config", "config/more"),
        ("below-a-pack", f"d/host-1/{SID}-00000001/more"),
        ("other-prefix", f"x/host-1/{SID}-00000001"),
        ("generation-alone", "gc/00000001"),
        ("other-in-generation", "gc/00000001/other"),
        ("empty-component", f"s/host-1//{SID}"),
        ("slash-first", "/config"),
        ("slash-last", "config/"),
        ("parent-directory", "../config"),
        ("own-directory", "keys/./ops"),
        ("upper-case", "Config"),
        ("space", "con fig"),
        ("backslash", "keys\\ops"),
        ("beyond-ascii", "keys/ö"),
        ("empty", ""),
    ):
        ignored("NAME-3", what, text, "a name that section 2 does not have")
    ignored("NAME-3", "too-long", "a/" + "b" * 254, "a name of 256 bytes")
    vector("NAME-3", "nul", "name", "a name with U+0000", "ignored", b"config\0")
    users_names()
    scenario(
        "NAME-5",
        "numbers-count-from-zero",
        "engine/tests/protocol/order.rs::packs_and_indexes_are_numbered_from_zero",
        "the names that two sessions create",
        negative="a reader takes whatever number a table or a name has",
    )


def users_names():
    vm = name_error("the name of a VM", "1 to 255 bytes without control characters")
    key = name_error("the key of a disk", "1 to 128 bytes without control characters, =, : and /")
    tag = name_error("a tag", "1 to 128 bytes without control characters")
    texts = {
        "vm": lambda text: commit(vm=text),
        "disk-key": lambda text: commit(disks=[disk(text)]),
        "tag": lambda text: commit(tags=[text]),
    }
    fields = {
        "vm": lambda text: {"vm": text},
        "disk-key": lambda text: {"disk.0.key": text},
        "tag": lambda text: {"tag.0": text},
    }
    base = {
        "verdict": "commit",
        "session": session(2),
        "time": TIME,
        "program": "keepstone 0.1.0",
        "vm": VM,
        "disk.0.key": "disk0",
        "disk.0.size": 512,
        "disk.0.mode": 1,
        "disk.0.changed-bytes": 1,
        "disk.0.read-bytes": 2,
        "chunks": 1,
        "new-chunks": 2,
        "new-bytes": 3,
        "stored-bytes": 4,
        "metadata-bytes": 5,
        "data-packs": 6,
        "map-packs": 7,
    }
    for what, where, text in (
        ("vm-of-255-bytes", "vm", "v" * 255),
        ("vm-beyond-ascii", "vm", "Größe: a/b=c"),
        ("vm-with-c1-control", "vm", "a\u0080b"),
        ("vm-of-one-byte", "vm", " "),
        ("disk-key-of-128-bytes", "disk-key", "k" * 128),
        ("disk-key-with-dot", "disk-key", "scsi0.0"),
        ("tag-of-128-bytes", "tag", "t" * 128),
        ("tag-with-slash", "tag", "a/b:c=d"),
    ):
        vector(
            "NAME-4",
            what,
            "decision",
            "a name that is allowed",
            body=texts[where](text),
            fields={**base, **fields[where](text)},
        )
    for what, where, error, text in (
        ("vm-empty", "vm", vm, ""),
        ("vm-with-nul", "vm", vm, "a\0b"),
        ("vm-with-u-001f", "vm", vm, "a\x1f"),
        ("vm-with-u-007f", "vm", vm, "\x7f"),
        ("vm-with-newline", "vm", vm, "a\n"),
        ("disk-key-empty", "disk-key", key, ""),
        ("disk-key-of-129-bytes", "disk-key", key, "k" * 129),
        ("disk-key-with-equals", "disk-key", key, "a=b"),
        ("disk-key-with-colon", "disk-key", key, "a:b"),
        ("disk-key-with-slash", "disk-key", key, "../a"),
        ("disk-key-with-escape", "disk-key", key, "a\x1b[2J"),
        ("tag-empty", "tag", tag, ""),
        ("tag-of-129-bytes", "tag", tag, "t" * 129),
        ("tag-of-129-bytes-in-65-characters", "tag", tag, "ö" * 64 + "o"),
        ("tag-with-tab", "tag", tag, "a\tb"),
    ):
        vector("NAME-4", what, "decision", "a name that is not allowed", error, texts[where](text))


# --- Section 3 ---


def keys():
    chunk_bytes, map_bytes = b"a chunk", b"a page"
    fields = {
        "chunk-id-key": KEYS.chunk_id,
        "inventory-key": KEYS.inventory,
        "data-private-key": KEYS.data_private,
        "data-public-key": KEYS.data_public,
        "chunker-seed": KEYS.chunker_seed,
        "map-id-key": KEYS.map_id,
        "vm-tag-key": KEYS.vm_tag_key,
        "config-mac-key": KEYS.config_mac,
        "seal-hash-key": KEYS.seal_hash,
        "chunk-id": keyed(KEYS.chunk_id, chunk_bytes),
        "map-id": keyed(KEYS.map_id, map_bytes),
        "vm-tag": KEYS.vm_tag(),
    }
    vector(
        "KEY-1",
        "all-keys",
        "keys",
        "all that follows from a root key and a repository id",
        fields=fields,
        **KEY_INPUTS,
        vm=VM,
        chunk=chunk_bytes,
        map=map_bytes,
    )
    long = bytes(range(256)) * 13
    vector(
        "KEY-1",
        "ids-of-long-payloads",
        "keys",
        "payloads of several BLAKE3 chunks",
        **KEY_INPUTS,
        chunk=long,
        map=long[1:],
        fields={"chunk-id": keyed(KEYS.chunk_id, long), "map-id": keyed(KEYS.map_id, long[1:])},
    )
    name = f"s/{WRITER}/{SID}"
    without = Keys(material=ROOT_KEY)
    swapped = Keys(material=REPOSITORY + ROOT_KEY)
    other = Keys(root=bytes(32))
    for what, spoilt, comment in (
        ("without-the-repository", without, "keys derived from the root key alone"),
        ("material-swapped", swapped, "keys derived from repository id || root key"),
        ("another-root-key", other, "keys of another root key"),
    ):
        vector(
            "KEY-1",
            what,
            "intent",
            comment,
            "bad-tag",
            sealed("intent", name, intent().bytes, keys=spoilt),
            **KEY_INPUTS,
            name=name,
        )
    values = config_values()
    vector(
        "KEY-2",
        "own-public-key",
        "config",
        "the config has the public key of the root key",
        text=as_json(values),
        fields=config_fields(values),
        **KEY_INPUTS,
    )
    foreign = config_values(dataPublicKey=x25519(bytes(range(32))).hex())
    vector(
        "KEY-2",
        "other-public-key",
        "config",
        "the MAC is right, but the data public key is another one",
        bad("the data public key is not that of the root key"),
        text=as_json(foreign),
        **KEY_INPUTS,
    )
    session_keys()


def session_keys():
    inputs = {**KEY_INPUTS, "session": session(2)}
    good = seal_session_key()
    vector(
        "KEY-3",
        "opens",
        "session-key",
        "encapsulated key and ciphertext",
        body=good,
        fields={"session-key": SESSION_KEY},
        **inputs,
    )
    fail = lambda what, comment, data: vector("KEY-3", what, "session-key", comment, "bad-tag", data, **inputs)
    fail("other-session", "sealed for another session", seal_session_key(sid=session(3)))
    fail("other-repository", "sealed for another repository", seal_session_key(repository=bytes(16)))
    fail("other-info", "sealed with another info", seal_session_key(info=b"keepstone v1 session key"))
    fail("other-public-key", "sealed to another public key", seal_session_key(public=x25519(bytes(32))))
    fail("flipped-bit", "a bit of the ciphertext is flipped", good[:40] + bytes([good[40] ^ 1]) + good[41:])
    fail(
        "point-of-low-order",
        "the encapsulated key is zero, so that every private key gives the same secret",
        bytes(32) + good[32:],
    )


def config_fields(values):
    chunker = values["chunker"]
    return {
        "id": values["id"],
        "created": values["created"],
        "chunker": chunker["name"],
        "min": chunker["min"],
        "average": chunker["average"],
        "max": chunker["max"],
        "region-len": values["regionLen"],
        "cell-len": values["cellLen"],
        "pack-len": values["packLen"],
        "data-public-key": values["dataPublicKey"],
    }
