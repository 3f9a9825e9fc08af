"""What the vectors of several sections share."""

from objects import (
    KEYS,
    MIB,
    TIME,
    WRITER,
    decision_name,
    entry,
    pack_name,
    pack_text,
    payload_id,
    session,
    table,
)
from vectors import bad

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

MANY = 0xFFFFFFFF

SID = session(2).hex()

TAG = KEYS.vm_tag().hex()

NAMES = {
    "intent": f"s/{WRITER}/{SID}",
    "decision": decision_name(),
    "index": f"i/{WRITER}/{SID}-00000000",
    "tombstone": f"f/{KEYS.vm_tag().hex()}/{SID}",
    "condemned": "gc/00000007/condemned",
    "awaited": "gc/00000007/awaited",
    "result": "gc/00000007/result",
    "generation-seal": "gc/00000007/sealed",
    "repack": f"k/{SID}",
    "pin": f"p/{TAG}/{SID}-00000001",
    "replica-marker": "lineage/replica",
    "lineage": "lineage/00000002",
    "barrier": "b/west/00000004",
    "directory": pack_name(),
}

INTENT = NAMES["intent"]

OTHER = entry(number=8)

OLD = entry(number=0, sid=session(1))

OLD_TOO = entry(number=1, sid=session(1))

OWN = entry(2, number=9, length=2 * MIB)

NODE_INPUTS = {"level": 1, "children": 1, "pack": pack_text(OWN)}

UNUSED = bad("a table has a pack that nothing refers to")

OUTSIDE = bad("a frame does not lie within its pack")

MISFIT = bad("the lengths of a frame do not fit its codec")

UNLISTED = bad("an entry number is not in the table")


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
        "retention-public-key": values["retentionPublicKey"],
    }


def chunk_text(pack_entry=PACK_ONE, codec=1, offset=176, stored_len=1016, plain_len=1000, identity=payload_id(3)):
    return f"{codec} {pack_text(pack_entry)} {offset} {stored_len} {plain_len} {identity.hex()}"


def entry_text(values):
    identity, *numbers = values
    return " ".join([identity.hex(), *map(str, numbers)])
