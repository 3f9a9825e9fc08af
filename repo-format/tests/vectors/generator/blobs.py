"""Sections 4 to 7: config, key slots, sealed objects, packs."""

from general import INTENT_FIELDS, SID, config_fields, header_fields
from objects import *
from primitives import keyed, le
from vectors import *

NEVER = bytes(32)  # Stands for a slot key that no vector derives.


def configs():
    values = config_values()
    text = as_json(values)
    vector(
        "CONF-1",
        "as-written",
        "config",
        "a config as it is written",
        text=text,
        fields=config_fields(values),
        written="so",
        **KEY_INPUTS,
    )
    shuffled = json.dumps(dict(reversed(values.items())), separators=(",", ":"))
    vector(
        "CONF-1",
        "members-in-another-order",
        "config",
        "neither order nor white space matters",
        text=shuffled,
        fields=config_fields(values),
        **KEY_INPUTS,
    )
    escaped = text.replace('"keepstone"', '"\\u006beepstone"')
    vector(
        "CONF-1",
        "escaped-member",
        "config",
        "names of members may be escaped",
        text=escaped,
        fields=config_fields(values),
        **KEY_INPUTS,
    )
    fail = lambda what, comment, old, new: vector(
        "CONF-1", what, "config", comment, "bad-json", text=replace(text, old, new), **KEY_INPUTS
    )
    fail("time-as-text", "a number is text", f"{TIME},", f'"{TIME}",')
    fail("time-with-fraction", "a number has a fraction", f"{TIME},", f"{TIME}.0,")
    fail("time-negative", "a number is negative", f"{TIME},", "-1,")
    fail("length-of-33-bits", "a length does not fit 32 bits", "65536", "4294967296")
    fail("id-too-short", "31 hexadecimal digits", REPOSITORY.hex(), REPOSITORY.hex()[1:])
    fail("id-in-upper-case", "hexadecimal digits in upper case", REPOSITORY.hex(), REPOSITORY.hex().upper())
    fail("text-behind", "something follows the object", "\n}\n", "\n} x\n")
    fail("cut-short", "the closing brace is missing", "\n}\n", "\n")
    fail(
        "chunker-as-array",
        "the chunker is an array of its members' values",
        as_json(values)[text.index('{\n    "name"') : text.index("  },") + 3],
        '["fastcdc-2020", 64, 256, 1024]',
    )
    fail("member-null", "a member is null", f"{TIME},", "null,")
    vector("CONF-1", "array", "config", "an array", "bad-json", text="[]", **KEY_INPUTS)
    vector("CONF-1", "nothing", "config", "no bytes at all", "bad-json", b"", **KEY_INPUTS)
    vector(
        "CONF-1",
        "byte-order-mark",
        "config",
        "a byte order mark stands first",
        "bad-json",
        b"\xef\xbb\xbf" + text.encode(),
        **KEY_INPUTS,
    )
    vector(
        "CONF-1",
        "not-utf-8",
        "config",
        "a byte that is no UTF-8",
        "bad-json",
        text.encode().replace(b"fastcdc", b"fastcd\xff"),
        **KEY_INPUTS,
    )
    vector(
        "CONF-1",
        "a-key-slot",
        "config",
        "another kind of object",
        "bad-magic",
        text='{"keepstone": "key", "format": 0}',
        **KEY_INPUTS,
    )
    longest = 64 * KIB - len(text.encode())
    vector(
        "CONF-1",
        "64-kib",
        "config",
        "as long as a config may be",
        body=text.encode(),
        pad=(longest, 0x20),
        fields=config_fields(values),
        **KEY_INPUTS,
    )
    vector(
        "CONF-1",
        "over-64-kib",
        "config",
        "a byte longer than a config may be",
        limit("JSON length", 64 * KIB + 1, 64 * KIB),
        text.encode(),
        pad=(longest + 1, 0x20),
        **KEY_INPUTS,
    )
    vector(
        "CONF-2",
        "known-members",
        "config",
        "all members, none twice",
        text=text,
        fields=config_fields(values),
        **KEY_INPUTS,
    )
    fail = lambda what, comment, old, new: vector(
        "CONF-2", what, "config", comment, "bad-json", text=replace(text, old, new), **KEY_INPUTS
    )
    fail("unknown-member", "a member that section 4 does not have", '"created"', '"extra": 1,\n  "created"')
    fail("missing-member", "created is missing", f'  "created": {TIME},\n', "")
    fail("repeated-member", "created is there twice", '"created"', f'"created": {TIME},\n  "created"')
    fail(
        "unknown-member-of-chunker",
        "a member of the chunker that section 4 does not have",
        '"min"',
        '"extra": 1,\n    "min"',
    )
    fail("missing-member-of-chunker", "min is missing", '    "min": 64,\n', "")
    fail("repeated-member-of-chunker", "min is there twice", '"min"', '"min": 64,\n    "min"')
    vector(
        "CONF-2",
        "format-1",
        "config",
        "a higher format, whose other members are not known",
        version(1),
        text='{"keepstone": "repository", "format": 1, "unknown": {}}',
        **KEY_INPUTS,
    )
    macs(values, text)
    parameters()


def replace(text, old, new):
    assert old in text, old
    return text.replace(old, new, 1)


def macs(values, text):
    other = config_values(
        created=0, regionLen=64 * MIB, cellLen=MIB, packLen=256 * MIB, min=512, average=4096, max=65536
    )
    vector(
        "CONF-3",
        "other-parameters",
        "config",
        "each parameter has a value of its own",
        text=as_json(other),
        fields=config_fields(other),
        **KEY_INPUTS,
    )
    for what, old, new in (
        ("created", f"{TIME},", f"{TIME + 1},"),
        ("repository", REPOSITORY.hex(), bytes(16).hex()),
        ("min", '"min": 64', '"min": 66'),
        ("average", '"average": 256', '"average": 258'),
        ("max", '"max": 1024', '"max": 1026'),
        ("region-len", "8192", "12288"),
        ("cell-len", '"cellLen": 4096', '"cellLen": 8192'),
        ("pack-len", "65536", "65537"),
        ("public-key", values["dataPublicKey"], bytes(32).hex()),
        ("mac", values["mac"], bytes(32).hex()),
    ):
        vector(
            "CONF-3",
            f"changed-{what}",
            "config",
            "a value was changed, its MAC was not",
            "mac-mismatch",
            text=replace(text, old, new),
            **KEY_INPUTS,
        )


def parameters():
    chunker, cell = bad("the chunker's lengths are not allowed"), bad("the cell length is not allowed")
    maximum, region = bad("the chunker's maximum is not allowed"), bad("the region length is not allowed")
    pack_len = bad("the pack length is not allowed")
    for what, changes in (
        ("smallest", {}),
        ("equal-lengths", {"min": 1024, "average": 1024, "max": 1024}),
        ("region-of-one-cell", {"regionLen": 4096}),
        ("region-of-three-cells", {"regionLen": 12288}),
        (
            "largest",
            {"min": MIB, "average": MIB, "max": MIB, "cellLen": MIB, "regionLen": 64 * MIB, "packLen": 256 * MIB},
        ),
        (
            "default",
            {"min": 8192, "average": 32768, "max": 131072, "cellLen": MIB, "regionLen": 16 * MIB, "packLen": 32 * MIB},
        ),
    ):
        values = config_values(**changes)
        vector(
            "CONF-4",
            what,
            "config",
            "parameters that are allowed",
            text=as_json(values),
            fields=config_fields(values),
            **KEY_INPUTS,
        )
    for what, error, changes in (
        ("min-62", chunker, {"min": 62}),
        ("min-odd", chunker, {"min": 65}),
        ("average-254", chunker, {"average": 254}),
        ("average-odd", chunker, {"average": 257}),
        ("max-odd", chunker, {"max": 1025}),
        ("min-over-average", chunker, {"min": 258}),
        ("average-over-max", chunker, {"average": 1026}),
        ("max-1022", maximum, {"max": 1022}),
        ("max-over-cell", maximum, {"max": 4098}),
        ("cell-2-kib", cell, {"cellLen": 2048, "regionLen": 2048}),
        ("cell-2-mib", cell, {"cellLen": 2 * MIB, "regionLen": 2 * MIB}),
        ("cell-no-power-of-two", cell, {"cellLen": 12288, "regionLen": 12288}),
        ("cell-0", cell, {"cellLen": 0}),
        ("region-0", region, {"regionLen": 0}),
        ("region-under-a-cell", region, {"regionLen": 2048}),
        ("region-no-multiple", region, {"regionLen": 8193}),
        ("region-over-64-mib", region, {"regionLen": 64 * MIB + 4096}),
        ("pack-under-64-kib", pack_len, {"packLen": 65535}),
        ("pack-over-256-mib", pack_len, {"packLen": 256 * MIB + 1}),
        ("unknown-chunker", bad("the chunker is not known"), {"name": "fastcdc-2016"}),
    ):
        vector(
            "CONF-4",
            what,
            "config",
            "the MAC is right, but a parameter is not allowed",
            error,
            text=as_json(config_values(**changes)),
            **KEY_INPUTS,
        )


def slot_fields(values, root_key=None):
    kdf = values["kdf"]
    fields = {
        "repository": values["repository"],
        "label": values["label"],
        "created": values["created"],
        "memory-kib": kdf["memoryKiB"],
        "passes": kdf["passes"],
        "lanes": kdf["lanes"],
        "salt": kdf["salt"],
    }
    return {**fields, **({"root-key": root_key} if root_key else {})}


def slots():
    values = slot_values()
    text = as_json(values)
    vector(
        "SLOT-1",
        "as-written",
        "key-slot",
        "a key slot as it is written",
        text=text,
        written="so",
        slot="ops",
        password=PASSWORD.encode(),
        fields=slot_fields(values, ROOT_KEY),
    )
    shuffled = json.dumps(dict(reversed(values.items())), separators=(",", ":"))
    vector(
        "SLOT-1",
        "members-in-another-order",
        "key-slot",
        "neither order nor white space matters",
        text=shuffled,
        slot="ops",
        password=PASSWORD.encode(),
        fields=slot_fields(values, ROOT_KEY),
    )
    long = slot_values(label="ö" * 127 + "l")
    vector(
        "SLOT-1",
        "longest-label",
        "key-slot",
        "a label of 255 bytes",
        text=as_json(long),
        slot="ops",
        password=PASSWORD.encode(),
        fields=slot_fields(long, ROOT_KEY),
    )
    fail = lambda what, comment, old, new, error="bad-json": vector(
        "SLOT-1", what, "key-slot", comment, error, text=replace(text, old, new), slot="ops", password=PASSWORD.encode()
    )
    fail("unknown-member", "a member that SLOT-1 does not have", '"label"', '"extra": 1,\n  "label"')
    fail("missing-member", "kind is missing", '  "kind": "root",\n', "")
    fail("repeated-member", "label is there twice", '"label"', '"label": "",\n  "label"')
    fail("missing-member-of-kdf", "passes is missing", '    "passes": 2,\n', "")
    fail("unknown-member-of-kdf", "a member of kdf that SLOT-1 does not have", '"passes"', '"extra": 1,\n    "passes"')
    fail("salt-too-short", "a salt of 31 bytes", values["kdf"]["salt"], values["kdf"]["salt"][2:])
    fail("sealed-too-long", "49 bytes", values["sealed"], values["sealed"] + "00")
    unknown = bad("the kind of a key slot or of its key derivation is not known")
    fail("other-kind", "a kind that is not known", '"root"', '"put"', unknown)
    fail("other-kdf", "a key derivation that is not known", "argon2id", "argon2i", unknown)
    fail("format-1", "a higher format", '"format": 0', '"format": 1', version(1))
    fail("a-config", "another kind of object", '"key"', '"repository"', "bad-magic")
    fail("label-of-256-bytes", "a label that is too long", "Operators", "ö" * 128, limit("label length", 256, 255))
    vector(
        "SLOT-1",
        "over-16-kib",
        "key-slot",
        "a byte longer than a slot may be",
        limit("JSON length", 16 * KIB + 1, 16 * KIB),
        text.encode(),
        pad=(16 * KIB + 1 - len(text.encode()), 0x20),
        slot="ops",
    )
    opening(text)
    work()


def opening(text):
    for what, password, changes in (
        ("two-lanes-two-passes", PASSWORD, {}),
        ("one-lane-one-pass", PASSWORD, {"memoryKiB": 8, "passes": 1, "lanes": 1}),
        ("memory-no-multiple-of-lanes", PASSWORD, {"memoryKiB": 39, "passes": 1}),
        ("three-lanes", "x", {"memoryKiB": 48, "lanes": 3, "passes": 3}),
        ("empty-password", "", {}),
        ("password-beyond-ascii", "Größe", {}),
        ("password-with-newline", "secret\n", {}),
        ("password-of-no-text", b"\x00\xff\xfe", {}),
    ):
        values = slot_values(password=password, **changes)
        data = password.encode() if isinstance(password, str) else password
        vector(
            "SLOT-2",
            what,
            "key-slot",
            "the slot opens with the password's bytes as they are",
            text=as_json(values),
            slot="ops",
            password=data,
            fields=slot_fields(values, ROOT_KEY),
        )
    for what, password in (
        ("wrong-password", "Correct horse"),
        ("password-with-newline-added", PASSWORD + "\n"),
        ("no-password", ""),
    ):
        vector(
            "SLOT-2", what, "key-slot", "another password", "bad-tag", text=text, slot="ops", password=password.encode()
        )
    decomposed = slot_values(password="Gro\u0308ße")
    vector(
        "SLOT-2",
        "password-decomposed",
        "key-slot",
        "the password's characters are the same, its bytes are not",
        "bad-tag",
        text=as_json(decomposed),
        slot="ops",
        password="Größe".encode(),
    )
    values = slot_values(name="a")
    vector(
        "SLOT-3",
        "another-slot",
        "key-slot",
        "the name of the slot is bound",
        text=as_json(values),
        slot="a",
        password=PASSWORD.encode(),
        fields=slot_fields(values, ROOT_KEY),
    )
    fail = lambda what, spoilt: vector(
        "SLOT-3",
        what,
        "key-slot",
        "a value that is bound was changed",
        "bad-tag",
        text=spoilt,
        slot="ops",
        password=PASSWORD.encode(),
    )
    for what, old, new in (
        ("changed-repository", REPOSITORY.hex(), bytes(16).hex()),
        ("changed-label", "Operators", "operators"),
        ("changed-created", f"{TIME},", f"{TIME + 1},"),
        ("changed-memory", '"memoryKiB": 32', '"memoryKiB": 33'),
        ("changed-passes", '"passes": 2', '"passes": 1'),
        ("changed-lanes", '"lanes": 2', '"lanes": 1'),
        ("changed-salt", "e0e1", "e0e0"),
    ):
        fail(what, replace(text, old, new))
    sealed_text = slot_values()["sealed"]
    fail("flipped-bit", replace(text, sealed_text, f"{int(sealed_text[0], 16) ^ 1:x}{sealed_text[1:]}"))
    fail("renamed", as_json(slot_values(name="other")))
    fail("nonce-not-zero", as_json(slot_values(nonce=bytes(11) + b"\1")))


def work():
    for what, changes in (
        ("least", {"memoryKiB": 8, "passes": 1, "lanes": 1}),
        ("most-lanes", {"memoryKiB": 128, "passes": 1, "lanes": 16}),
        ("most-memory", {"memoryKiB": 1 << 20, "passes": 4, "lanes": 16}),
        ("most-passes", {"memoryKiB": 65536, "passes": 64, "lanes": 1}),
        ("usual", {"memoryKiB": 65536, "passes": 3, "lanes": 4}),
    ):
        values = slot_values(secret=NEVER, **changes)
        vector(
            "SLOT-4",
            what,
            "key-slot",
            "work that is allowed; the slot is not opened",
            text=as_json(values),
            slot="ops",
            fields=slot_fields(values),
        )
    refused = bad("the parameters of the key derivation are not allowed")
    for what, changes in (
        ("memory-under-8", {"memoryKiB": 7, "passes": 1, "lanes": 1}),
        ("memory-under-8-a-lane", {"memoryKiB": 15, "passes": 1, "lanes": 2}),
        ("memory-over-1-gib", {"memoryKiB": (1 << 20) + 1, "passes": 1, "lanes": 1}),
        ("passes-0", {"passes": 0}),
        ("passes-65", {"passes": 65}),
        ("lanes-0", {"lanes": 0}),
        ("lanes-17", {"memoryKiB": 1024, "lanes": 17}),
        ("work-over-the-limit", {"memoryKiB": 1 << 20, "passes": 5}),
        ("work-a-little-over-the-limit", {"memoryKiB": 65537, "passes": 64}),
        ("everything-2-to-the-32-minus-1", {"memoryKiB": 2**32 - 1, "passes": 2**32 - 1, "lanes": 2**32 - 1}),
    ):
        vector(
            "SLOT-4",
            what,
            "key-slot",
            "work that is not allowed",
            refused,
            text=as_json(slot_values(secret=NEVER, **changes)),
            slot="ops",
            password=PASSWORD.encode(),
        )
    vector(
        "SLOT-4",
        "memory-of-33-bits",
        "key-slot",
        "memory that does not fit 32 bits",
        "bad-json",
        text=as_json(slot_values(secret=NEVER, memoryKiB=2**32)),
        slot="ops",
        password=PASSWORD.encode(),
    )
    scenario(
        "SLOT-4",
        "other-slots-are-tried",
        "engine/tests/opening.rs::a_damaged_key_slot_does_not_lock_out_the_others",
        "a slot that cannot be opened is passed over",
    )


# --- Section 6 ---

NAMES = {
    "intent": f"s/{WRITER}/{SID}",
    "decision": decision_name(),
    "index": f"i/{WRITER}/{SID}-00000000",
    "tombstone": f"f/{KEYS.vm_tag().hex()}/{SID}",
    "condemned": "gc/00000007/condemned",
    "result": "gc/00000007/result",
    "generation-seal": "gc/00000007/sealed",
    "repack": f"k/{SID}",
    "directory": pack_name(),
}
INTENT = NAMES["intent"]


def sealed_objects():
    for kind_name, name in NAMES.items():
        vector(
            "SEAL-1",
            f"{kind_name}-opens",
            "sealed",
            "any plaintext opens under its name",
            body=sealed(kind_name, name, b"any plaintext"),
            **KEY_INPUTS,
            name=name,
            kind=kind_name,
            fields={"plaintext": b"any plaintext"},
        )
    plain = intent().bytes
    inputs = {**KEY_INPUTS, "name": INTENT}
    fail = lambda rule, what, comment, body, error="bad-tag": vector(
        rule, what, "intent", comment, error, body, **inputs
    )
    good = sealed("intent", INTENT, plain).bytes
    flip = lambda at: good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    fail(
        "SEAL-1",
        "another-name",
        "the object of another name",
        sealed("intent", f"s/{WRITER}/{session(3).hex()}", plain),
    )
    fail(
        "SEAL-1",
        "another-repository",
        "the object of another repository with the same keys",
        sealed("intent", INTENT, plain, repository=bytes(16)),
    )
    fail("SEAL-1", "changed-salt", "a bit of the salt is flipped", flip(16))
    fail("SEAL-1", "changed-key-hash", "a bit of the key hash is flipped", flip(79))
    fail(
        "SEAL-1",
        "name-not-bound",
        "the associated data has another name, the key hash the right one",
        sealed("intent", INTENT, plain, aad_name=f"s/host-2/{SID}"),
    )
    vector(
        "SEAL-2",
        "salt-used-twice",
        "sealed",
        "with the same salt another plaintext has another key hash",
        body=sealed("repack", NAMES["repack"], b"another plaintext"),
        **KEY_INPUTS,
        name=NAMES["repack"],
        kind="repack",
        fields={"plaintext": b"another plaintext"},
    )
    wrong = "wrong-key-hash"
    fail(
        "SEAL-2",
        "hash-of-other-content",
        "a key hash that is not of this content; the rest fits it",
        sealed("intent", INTENT, plain, key_hash=bytes(range(32))),
        wrong,
    )
    fail(
        "SEAL-2",
        "hash-of-another-name",
        "the key hash has another name, the associated data the right one",
        sealed("intent", INTENT, plain, hash_name=f"s/host-2/{SID}"),
        wrong,
    )
    fail(
        "SEAL-2",
        "hash-with-another-key",
        "the key hash is keyed by the inventory key",
        sealed(
            "intent",
            INTENT,
            plain,
            key_hash=keyed(KEYS.inventory, good[:48] + REPOSITORY + Raw().str16(INTENT).bytes + plain),
        ),
        wrong,
    )
    vector(
        "SEAL-3",
        "empty-plaintext",
        "sealed",
        "a tag alone",
        body=sealed("generation-seal", NAMES["generation-seal"], b""),
        **KEY_INPUTS,
        name=NAMES["generation-seal"],
        kind="generation-seal",
        fields={"plaintext": b""},
    )
    fail("SEAL-3", "flipped-ciphertext", "a bit of the ciphertext is flipped", flip(80))
    fail("SEAL-3", "flipped-tag", "a bit of the tag is flipped", flip(len(good) - 1))
    fail(
        "SEAL-3",
        "nonce-not-zero",
        "sealed with another nonce",
        sealed("intent", INTENT, plain, nonce=bytes(11) + b"\1"),
    )
    fail(
        "SEAL-3",
        "key-without-salt",
        "a key derived without the salt",
        sealed("intent", INTENT, plain, key_material=KEYS.inventory + good[48:80]),
    )
    vector(
        "SEAL-4",
        "right-type",
        "intent",
        "the type is the one that the name calls for",
        body=good,
        fields=INTENT_FIELDS,
        **inputs,
    )
    what = "the type of a sealed object"
    fail(
        "SEAL-4",
        "another-type",
        "an authentic tombstone under an intent's name",
        sealed("tombstone", INTENT, plain),
        kind(what, 4),
    )
    fail("SEAL-4", "type-0", "a type that is not known", sealed("intent", INTENT, plain, type_number=0), kind(what, 0))
    fail(
        "SEAL-4", "type-10", "a type that is not known", sealed("intent", INTENT, plain, type_number=10), kind(what, 10)
    )
    vector(
        "SEAL-4",
        "asked-for-another-type",
        "sealed",
        "an intent is sealed under the name of a repack record",
        kind(what, 1),
        sealed("intent", NAMES["repack"], plain),
        **KEY_INPUTS,
        name=NAMES["repack"],
        kind="intent",
    )
    broken = b"\xff" * len(plain)
    fail(
        "SEAL-4",
        "tag-before-plaintext",
        "the plaintext is no intent, but the tag is wrong first",
        sealed("intent", INTENT, broken).bytes[:-1] + b"\0",
    )
    fail(
        "SEAL-4",
        "key-hash-before-plaintext",
        "the plaintext is no intent, but the key hash is wrong first",
        sealed("intent", INTENT, broken, key_hash=bytes(32)),
        wrong,
    )
    fail(
        "SEAL-4",
        "plaintext-last",
        "tag and key hash are right, the plaintext is no intent",
        sealed("intent", INTENT, b""),
        "truncated",
    )
    more, less = sealed("intent", INTENT, plain, length=len(plain) - 1), sealed(
        "intent", INTENT, plain, length=len(plain) + 1
    )
    vector(
        "GEN-3",
        "sealed-longer-than-declared",
        "intent",
        "a byte more than the declared length",
        "trailing-bytes",
        more,
        **inputs,
    )
    vector(
        "GEN-3",
        "sealed-shorter-than-declared",
        "intent",
        "a byte less than the declared length",
        "truncated",
        less,
        **inputs,
    )
    vector(
        "GEN-3", "sealed-without-tag", "intent", "the object ends within its header", "truncated", good[:79], **inputs
    )


# --- Section 7 ---

CHUNKS = [
    Frame(1, b"a chunk"),
    Frame(1, bytes(range(200))),
    Frame(1, bytes([7]) * 300, codec=2, encoded=bytes.fromhex("28b52ffd602c00") + le(300 << 3 | 3, 3) + b"\x07"),
]
DATA, MAP = pack_name(1, number=5), pack_name(2, number=6)
PAGES = [Frame(2, b"any page"), Frame(3, b"any node")]


def frame_fields(frames):
    fields, at = {}, 176
    for number, frame in enumerate(frames):
        fields[f"frame.{number}"] = (
            f"{at} {frame.kind} {frame.codec} {frame.plain_len} {frame.stored_len} {frame.identity.hex()}"
        )
        fields[f"frame.{number}.payload"] = frame.payload
        at += frame.stored_len
    return fields


def packs():
    one = [Frame(1, b"x")]
    smallest = pack(1, DATA, one).bytes
    inputs = {**KEY_INPUTS, "name": DATA}
    map_inputs = {**KEY_INPUTS, "name": MAP}
    good = lambda rule, what, comment, body, frames, of=inputs: vector(
        rule, what, "pack", comment, body=body, fields=frame_fields(frames), **of
    )
    fail = lambda rule, what, comment, error, body, of=inputs: vector(rule, what, "pack", comment, error, body, **of)
    good("PACK-1", "smallest", "one frame of one byte: 335 bytes", smallest, one)
    fail("PACK-1", "one-byte-more", "a byte follows the directory", "trailing-bytes", smallest + b"\0")
    fail("PACK-1", "one-byte-less", "the last byte is missing", "truncated", smallest[:-1])
    fail("PACK-1", "header-alone", "the pack ends with its header", "truncated", smallest[:176])
    header = smallest[:176]
    vector(
        "PACK-1",
        "header-of-the-smallest",
        "pack-header",
        "a header opens by itself",
        body=header,
        fields=header_fields(header),
    )
    spoil = lambda what, comment, error, changes: vector(
        "PACK-1", what, "pack-header", comment, error, pack(1, DATA, one, header_changes=changes).bytes[:176]
    )
    room = bad("the frames of a pack do not fit before its directory")
    count = bad("the length of a directory does not fit its count of frames")
    spoil("no-frame", "a pack without a frame", room, {"count": 0, "length": 100})
    spoil("directory-within-the-header", "the directory begins before the header ends", room, {"offset": 175})
    spoil("directory-too-early", "no frame fits before the directory", room, {"offset": 192})
    spoil("count-too-high", "more frames than fit", room, {"count": 0xFFFFFFFF})
    spoil("directory-too-short", "a directory of another length than its frames need", count, {"length": 141})
    spoil("directory-too-long", "a directory of another length than its frames need", count, {"length": 0xFFFF})
    spoil(
        "over-the-limit",
        "a pack of 288 MiB and a byte",
        limit("pack length", 288 * MIB + 1, 288 * MIB),
        {"offset": 288 * MIB + 1 - 142},
    )
    spoil(
        "lengths-overflow",
        "offset and length add up to over 4 GiB",
        limit("pack length", 2 * 0xFFFFFFFF, 288 * MIB),
        {"offset": 0xFFFFFFFF, "length": 0xFFFFFFFF},
    )
    spoil_kind = lambda number: header[:10] + bytes([number]) + header[11:]
    for number in (0, 3):
        vector(
            "PACK-1",
            f"kind-{number}",
            "pack-header",
            "a kind that is not known",
            kind("pack kind", number),
            spoil_kind(number),
        )
    codecs()
    good("PACK-3", "data-pack", "chunks, raw and compressed", pack(1, DATA, CHUNKS), CHUNKS)
    good("PACK-3", "map-pack", "a page and a node", pack(2, MAP, PAGES), PAGES, map_inputs)
    for what, changes in (
        ("kind", {"kind": 2}),
        ("codec", {"codec": 2}),
        ("offset", {"offset": 177}),
        ("stored-length", {"stored_len": 24}),
        ("plain-length", {"plain_len": 8}),
        ("payload-id", {"identity": bytes(32)}),
        ("repository", {"repository": bytes(16)}),
    ):
        fail(
            "PACK-3",
            f"other-{what}",
            "a frame is bound to another value of that field",
            "bad-tag",
            pack(1, DATA, CHUNKS[:1], aad_changes=changes),
        )
    fail(
        "PACK-3",
        "other-name",
        "a frame is bound to another pack's name",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], aad_name=pack_name(1, number=4)),
    )
    swapped = pack(1, DATA, [Frame(1, b"one"), Frame(1, b"two")]).bytes
    fail(
        "PACK-3",
        "frames-swapped",
        "two frames of one length changed places",
        "bad-tag",
        swapped[:176] + swapped[195:214] + swapped[176:195] + swapped[214:],
    )
    keys_of_packs(good, fail, map_inputs)
    payload_ids(fail, map_inputs)
    directories(good, fail, map_inputs)


def keys_of_packs(good, fail, map_inputs):
    good("PACK-4", "two-frames", "the key hash covers both frames", pack(1, DATA, CHUNKS[:2]), CHUNKS[:2])
    wrong = "wrong-key-hash"
    fail(
        "PACK-4",
        "other-key-hash",
        "a key hash that is not of this content; the rest fits it",
        wrong,
        pack(1, DATA, CHUNKS[:2], key_hash=bytes(range(32))),
    )
    fail(
        "PACK-4",
        "payloads-first",
        "the key hash has the payloads before the associated data",
        wrong,
        pack(1, DATA, CHUNKS[:2], hash_order=lambda aads, payloads: (payloads, aads)),
    )
    fail(
        "PACK-4",
        "without-tags",
        "the key hash has no zeros in the place of tags",
        wrong,
        pack(1, DATA, CHUNKS[:1], hash_order=lambda aads, payloads: (aads, payloads[:-16])),
    )
    fail(
        "PACK-4",
        "of-a-map-pack",
        "a map pack whose key hash is another one",
        wrong,
        pack(2, MAP, PAGES, key_hash=bytes(32)),
        map_inputs,
    )
    good("PACK-5", "map-pack", "the key follows from the inventory key", pack(2, MAP, PAGES[:1]), PAGES[:1], map_inputs)
    fail(
        "PACK-5",
        "inventory-key-in-a-data-pack",
        "a data pack under the inventory key",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], base=KEYS.inventory),
    )
    fail(
        "PACK-5",
        "without-repository",
        "a key derived without the repository id",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], key_material=lambda base, salt, key_hash: base + salt + key_hash),
    )
    fail(
        "PACK-5",
        "without-salt",
        "a key derived without the salt",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], key_material=lambda base, salt, key_hash: base + key_hash + REPOSITORY),
    )
    fail(
        "PACK-5",
        "nonce-zero",
        "a frame under a nonce of zeros",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], nonces=lambda offset: bytes(12)),
    )
    fail(
        "PACK-5",
        "nonce-big-endian",
        "the offset in the nonce is big-endian",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], nonces=lambda offset: offset.to_bytes(4, "big") + bytes(8)),
    )
    fail(
        "PACK-5",
        "session-key-of-another-session",
        "the session key is sealed for another session",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], sid=session(3)),
    )
    fail(
        "PACK-5",
        "flipped-tag",
        "a bit of a frame's tag is flipped",
        "bad-tag",
        flip(pack(1, DATA, CHUNKS[:1]).bytes, 176 + 22),
    )
    fail(
        "PACK-5",
        "flipped-ciphertext",
        "a bit of a frame is flipped",
        "bad-tag",
        flip(pack(1, DATA, CHUNKS[:1]).bytes, 176),
    )


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def payload_ids(fail, map_inputs):
    page_frame = [Frame(2, b"any page")]
    vector(
        "PACK-6",
        "ids-of-pages-and-nodes",
        "pack",
        "pages and nodes have ids by the map-id key",
        body=pack(2, MAP, PAGES),
        fields=frame_fields(PAGES),
        **map_inputs,
    )
    fail(
        "PACK-6",
        "other-chunk",
        "an authentic frame with the id of another chunk",
        "wrong-id",
        pack(1, DATA, [Frame(1, b"a chunk", identity=keyed(KEYS.chunk_id, b"b chunk"))]),
    )
    fail(
        "PACK-6",
        "map-id-of-a-chunk",
        "a chunk's id is made with the map-id key",
        "wrong-id",
        pack(1, DATA, [Frame(1, b"a chunk", identity=keyed(KEYS.map_id, b"a chunk"))]),
    )
    fail(
        "PACK-6",
        "chunk-id-of-a-page",
        "a page's id is made with the chunk-id key",
        "wrong-id",
        pack(2, MAP, [Frame(2, b"any page", identity=keyed(KEYS.chunk_id, b"any page"))]),
        map_inputs,
    )
    short = Frame(1, bytes(299), codec=2, encoded=CHUNKS[2].encoded)
    long = Frame(1, bytes(301), codec=2, encoded=CHUNKS[2].encoded)
    fail(
        "PACK-6",
        "longer-than-the-plain-length",
        "an authentic frame that decodes to a byte more",
        "bad-zstd",
        pack(1, DATA, [short]),
    )
    fail(
        "PACK-6",
        "shorter-than-the-plain-length",
        "an authentic frame that decodes to a byte less",
        "bad-zstd",
        pack(1, DATA, [long]),
    )
    vector(
        "PACK-7",
        "chunks",
        "directory",
        "chunks in a data pack",
        body=directory(CHUNKS[:1]),
        pack_kind=1,
        directory_offset=176 + 23,
        fields={"frame.0": frame_fields(CHUNKS[:1])["frame.0"]},
    )
    for what, number, frame, found in (
        ("page-in-a-data-pack", 1, page_frame[0], 2),
        ("node-in-a-data-pack", 1, PAGES[1], 3),
        ("chunk-in-a-map-pack", 2, CHUNKS[0], 1),
    ):
        vector(
            "PACK-7",
            what,
            "directory",
            "a payload in a pack of the wrong kind",
            kind("frame kind", found),
            directory([frame]),
            pack_kind=number,
            directory_offset=176 + frame.stored_len,
        )
    fail(
        "PACK-7",
        "authentic-page-in-a-data-pack",
        "a whole pack with a page in it",
        kind("frame kind", 2),
        pack(1, DATA, page_frame),
    )


def directories(good, fail, map_inputs):
    good("PACK-8", "three-frames", "frames follow each other up to the directory", pack(1, DATA, CHUNKS), CHUNKS)
    misplaced = bad("the frames of a pack do not end where its directory begins")
    misfit = bad("the lengths of a frame do not fit its codec")
    end = 176 + sum(frame.stored_len for frame in CHUNKS)
    spoil = lambda what, comment, error, raw, offset=end, pack_kind=1: vector(
        "PACK-8", what, "directory", comment, error, raw, pack_kind=pack_kind, directory_offset=offset
    )
    spoil("frames-end-too-early", "a gap before the directory", misplaced, directory(CHUNKS), end + 1)
    spoil("frames-end-too-late", "the last frame reaches into the directory", misplaced, directory(CHUNKS), end - 1)
    spoil("no-frame", "a directory of no frames", misplaced, directory([]), 176)
    spoil(
        "kind-0",
        "a kind that is not known",
        kind("frame kind", 0),
        directory([Frame(0, b"x", identity=payload_id(1))]),
        193,
    )
    spoil(
        "kind-4",
        "a kind that is not known",
        kind("frame kind", 4),
        directory([Frame(4, b"x", identity=payload_id(1))]),
        193,
    )
    spoil("codec-0", "a codec that is not known", kind("codec", 0), directory([Frame(1, b"x", codec=0)]), 193)
    spoil("codec-3", "a codec that is not known", kind("codec", 3), directory([Frame(1, b"x", codec=3)]), 193)
    spoil(
        "raw-misfit",
        "a raw payload whose stored length is not 16 more",
        misfit,
        directory([Frame(1, b"xy", encoded=b"x")]),
        193,
    )
    spoil("zstd-not-shorter", "a zstd frame as long as its payload", misfit, directory([Frame(1, b"x", codec=2)]), 193)
    spoil(
        "nothing-stored",
        "a stored length of a tag alone",
        misfit,
        directory([Frame(1, b"x", codec=2, encoded=b"")]),
        192,
    )
    less_than_a_tag = Frame(1, b"x")
    less_than_a_tag.stored_len = 3
    spoil("less-than-a-tag", "a stored length shorter than a tag", misfit, directory([less_than_a_tag]), 179)
    spoil("empty-payload", "a payload of no bytes", misfit, directory([Frame(1, b"")]), 192)
    for what, number, limit_len, pack_kind in (("chunk", 1, MIB, 1), ("page", 2, 8 * MIB, 2), ("node", 3, 32 * MIB, 2)):
        frame = Frame(number, b"", codec=2, encoded=b"x", identity=payload_id(1))
        frame.plain_len = limit_len + 1
        spoil(
            f"{what}-over-the-limit",
            "a byte longer than any config allows",
            limit("plain length", limit_len + 1, limit_len),
            directory([frame]),
            193,
            pack_kind,
        )
    two = [Frame(1, b"x"), Frame(1, b"y")]
    shorter = pack(1, DATA, two, directory_raw=directory(two[:1]), header_changes={"length": 96 + 4 + 42 * 2})
    fail("PACK-8", "directory-of-fewer-frames", "the directory is shorter than the header says", "truncated", shorter)
    padded = pack(1, DATA, two, directory_raw=directory(two[:1]).put(bytes(42)))
    fail(
        "PACK-8",
        "directory-that-counts-fewer-frames",
        "an authentic directory of the right length that counts one frame of two",
        bad("the frames of a pack do not end where its directory begins"),
        padded,
    )


RLE = b"\x07"


def zstd(descriptor, *fields, block=None, payload=300):
    """A zstd frame (RFC 8878) with one RLE block of `payload` bytes."""
    block = le(payload << 3 | 3, 3) + RLE if block is None else block
    return bytes.fromhex("28b52ffd") + bytes([descriptor]) + b"".join(fields) + block


def codecs():
    size2, size4, size8 = le(300 - 256, 2), le(300, 4), le(300, 8)
    good = lambda what, comment, codec, encoded, payload: vector(
        "PACK-2",
        what,
        "payload",
        comment,
        body=encoded,
        codec=codec,
        plain_length=len(payload),
        fields={"payload": payload},
    )
    fail = lambda what, comment, encoded, error="bad-zstd", codec=2, plain_length=300: vector(
        "PACK-2", what, "payload", comment, error, encoded, codec=codec, plain_length=plain_length
    )
    run = RLE * 300
    good("raw", "the payload itself", 1, b"payload", b"payload")
    good("zstd-size-of-2-bytes", "a single segment", 2, zstd(0x60, size2), run)
    good(
        "zstd-size-of-1-byte",
        "a single segment with a short content size",
        2,
        zstd(0x20, bytes([200]), payload=200),
        RLE * 200,
    )
    good("zstd-size-of-4-bytes", "a single segment", 2, zstd(0xA0, size4), run)
    good("zstd-size-of-8-bytes", "a single segment", 2, zstd(0xE0, size8), run)
    good("zstd-window-of-1-kib", "the smallest window", 2, zstd(0x40, b"\x00", size2), run)
    good("zstd-window-of-8-mib", "the largest window", 2, zstd(0x80, b"\x68", size4), run)
    good(
        "zstd-raw-block",
        "a block that is not compressed, and a run",
        2,
        zstd(0x60, size2, block=le(5 << 3, 3) + b"hello" + le(295 << 3 | 3, 3) + RLE),
        b"hello" + RLE * 295,
    )
    checksum = bytes.fromhex(xxh64_of(run))
    good("zstd-checksum", "a frame with its checksum", 2, zstd(0x64, size2) + checksum, run)
    fail(
        "zstd-wrong-checksum",
        "a checksum that is not the content's",
        zstd(0x64, size2) + bytes([checksum[0] ^ 1]) + checksum[1:],
    )
    fail(
        "zstd-content-shorter",
        "the content size is a byte less than the plain length",
        zstd(0x60, le(43, 2), payload=299),
    )
    fail(
        "zstd-content-longer",
        "the content size is a byte more than the plain length",
        zstd(0x60, le(45, 2), payload=301),
    )
    fail("zstd-size-lies-low", "the block has more bytes than the content size says", zstd(0x60, size2, payload=301))
    fail("zstd-size-lies-high", "the block has fewer bytes than the content size says", zstd(0x60, size2, payload=299))
    fail("zstd-size-huge", "a content size of 2^64-1", zstd(0xE0, b"\xff" * 8))
    fail("zstd-no-size", "no content size", zstd(0x00, b"\x50"))
    fail("zstd-dictionary", "a dictionary is asked for", zstd(0xA1, b"\x01", size4))
    fail("zstd-window-over-8-mib", "a window of 9 MiB", zstd(0x80, b"\x69", size4))
    fail("zstd-window-huge", "the largest window that can be declared", zstd(0x80, b"\xff", size4))
    fail("zstd-two-frames", "a second frame follows", zstd(0x60, size2) * 2)
    fail(
        "zstd-skippable-frame-first",
        "a skippable frame stands first",
        bytes.fromhex("502a4d1800000000") + zstd(0x60, size2),
    )
    fail(
        "zstd-skippable-frame-last",
        "a skippable frame stands last",
        zstd(0x60, size2) + bytes.fromhex("502a4d1800000000"),
    )
    fail("zstd-one-byte-more", "a byte follows", zstd(0x60, size2) + b"\0")
    fail("zstd-one-byte-less", "the last byte is missing", zstd(0x60, size2)[:-1])
    fail("zstd-nothing", "no bytes at all", b"")
    fail("zstd-magic-alone", "a frame that ends with its magic", bytes.fromhex("28b52ffd"))
    fail("zstd-reserved-block", "a block of the reserved type", zstd(0x60, size2, block=le(300 << 3 | 7, 3) + RLE))
    fail("zstd-old-magic", "the magic of an old version of zstd", b"\x27" + zstd(0x60, size2)[1:])
    fail(
        "zstd-not-shorter",
        "a frame that is as long as the payload",
        zstd(0x20, bytes([13]), block=le(4 << 3 | 1, 3) + b"abcd"),
        plain_length=13,
    )
    misfit = bad("a raw payload does not have its plain length")
    fail("raw-shorter", "a byte less than the plain length", b"payloa", misfit, 1, 7)
    fail("raw-longer", "a byte more than the plain length", b"payload!", misfit, 1, 7)


def xxh64_of(run):
    """The low 4 bytes of XXH64 with seed 0 (RFC 8878, 3.1.1), little-endian, in hexadecimal."""
    p1, p2, p3, p4, p5 = (
        11400714785074694791,
        14029467366897019727,
        1609587929392839161,
        9650029242287828579,
        2870177450012600261,
    )
    mask = 2**64 - 1
    left = lambda value, bits: (value << bits | value >> (64 - bits)) & mask
    step = lambda total, lane: left((total + lane * p2) & mask, 31) * p1 & mask
    word = lambda at, length: int.from_bytes(run[at : at + length], "little")
    v, at = [(p1 + p2) & mask, p2, 0, -p1 & mask], 0
    while at + 32 <= len(run):
        v = [step(total, word(at + 8 * n, 8)) for n, total in enumerate(v)]
        at += 32
    total = sum(left(value, bits) for value, bits in zip(v, (1, 7, 12, 18))) & mask
    for value in v:
        total = ((total ^ step(0, value)) * p1 + p4) & mask
    total = (total + len(run)) & mask
    while at + 8 <= len(run):
        total = (left(total ^ step(0, word(at, 8)), 27) * p1 + p4) & mask
        at += 8
    if at + 4 <= len(run):
        total = (left(total ^ word(at, 4) * p1 & mask, 23) * p2 + p3) & mask
        at += 4
    for byte in run[at:]:
        total = left(total ^ byte * p5 & mask, 11) * p1 & mask
    total = (total ^ total >> 33) * p2 & mask
    total = (total ^ total >> 29) * p3 & mask
    return le((total ^ total >> 32) & 0xFFFFFFFF, 4).hex()
