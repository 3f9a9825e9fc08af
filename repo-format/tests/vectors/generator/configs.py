"""Section 4: the config."""

import json

from objects import KIB, MIB, REPOSITORY, TIME, as_json, config_values
from samples import config_fields
from vectors import KEY_INPUTS, bad, limit, vector, version


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
    # Each of them as good as its number, with a MAC that fits.
    for what, comment, created, number in (
        ("minus-zero", "a zero with a sign", 0, "-0"),
        ("exponent", "a number with an exponent", 1000, "1e3"),
        ("fraction-of-zero", "a number with a fraction that adds nothing", 1000, "1000.0"),
        ("zero-first", "a number with a zero before its digits", 1, "01"),
        ("true", "a truth value in the place of a number", 1, "true"),
    ):
        spoilt = replace(as_json(config_values(created=created)), f'"created": {created},', f'"created": {number},')
        vector("GEN-9", what, "config", comment, "bad-json", text=spoilt, **KEY_INPUTS)
    spoilt = replace(text, f"{TIME},", f"{2**64},")
    vector("GEN-9", "number-of-65-bits", "config", "a number that does not fit", "bad-json", text=spoilt, **KEY_INPUTS)
    greatest = config_values(created=2**64 - 1)
    vector(
        "GEN-9",
        "greatest-number",
        "config",
        "a number that binary64 cannot tell from the next one",
        text=as_json(greatest),
        fields=config_fields(greatest),
        **KEY_INPUTS,
    )
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
    vector(
        "CONF-2",
        "format-1-of-a-key-slot",
        "config",
        "another kind of object is told before its format",
        "bad-magic",
        text='{"keepstone": "key", "format": 1}',
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
        ("retention-public-key", values["retentionPublicKey"], bytes(32).hex()),
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


DEFAULT_LENGTHS = {"cellLen": MIB, "regionLen": 16 * MIB, "packLen": 32 * MIB}


def parameters():
    chunker, cell = bad("the chunker's lengths are not allowed"), bad("the cell length is not allowed")
    maximum, region = bad("the chunker's maximum is not allowed"), bad("the region length is not allowed")
    pack_len = bad("the pack length is not allowed")
    for what, changes in (
        ("smallest", {}),
        ("equal-lengths", {"min": 1024, "average": 1024, "max": 1024}),
        ("mincdc", {"name": "mincdc-hash4", "min": 65, "average": 545, "max": 1026}),
        ("mincdc-smallest", {"name": "mincdc-hash4", "min": 64, "average": 544, "max": 1024}),
        ("mincdc-equal-lengths", {"name": "mincdc-hash4", "min": 1025, "average": 1025, "max": 1025}),
        ("region-of-one-cell", {"regionLen": 4096}),
        ("region-of-three-cells", {"regionLen": 12288}),
        (
            "largest",
            {"min": MIB, "average": MIB, "max": MIB, "cellLen": MIB, "regionLen": 64 * MIB, "packLen": 256 * MIB},
        ),
        ("default-of-fastcdc", {"min": 8192, "average": 32768, "max": 131072, **DEFAULT_LENGTHS}),
        (
            "default",
            {"name": "mincdc-hash4", "min": 20480, "average": 43008, "max": 65536, **DEFAULT_LENGTHS},
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
        ("mincdc-average-of-fastcdc", chunker, {"name": "mincdc-hash4"}),
        ("mincdc-average-rounded-up", chunker, {"name": "mincdc-hash4", "min": 65, "average": 546, "max": 1026}),
        ("mincdc-min-63", chunker, {"name": "mincdc-hash4", "min": 63, "average": 543, "max": 1024}),
        ("mincdc-max-under-min", chunker, {"name": "mincdc-hash4", "min": 2048, "average": 1536, "max": 1024}),
        ("mincdc-max-1023", maximum, {"name": "mincdc-hash4", "min": 64, "average": 543, "max": 1023}),
        ("mincdc-max-over-cell", maximum, {"name": "mincdc-hash4", "min": 64, "average": 2080, "max": 4097}),
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
        ("unknown-mincdc", bad("the chunker is not known"), {"name": "mincdc-4"}),
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
