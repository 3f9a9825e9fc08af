"""The examples at the end of SPEC.md: every block of the kind `hex` is filled in."""

import re

from objects import (
    HOLE_CHILD,
    WRITER,
    Frame,
    awaited,
    child,
    chunk,
    commit,
    confirmed,
    config_body,
    config_values,
    directory,
    disk,
    entry,
    gc_result,
    hole,
    index,
    intent,
    lineage,
    marker,
    node,
    pack,
    pack_name,
    page,
    payload_id,
    pin,
    raw_decision_name,
    repack,
    sealed,
    session,
    signature_message,
    slot_aad,
    slot_values,
    table,
    tombstone,
)
from samples import NAMES, OLD

COLUMNS = 16


def examples():
    intent_name = f"s/{WRITER}/{session(2).hex()}"
    data = entry(number=7)
    own = entry(2, number=0, length=0)
    slot = slot_values()
    return {
        "config-mac-body": config_body(config_values()),
        "slot-associated-data": slot_aad("ops", slot),
        "sealed-object": sealed("intent", intent_name, intent().bytes),
        "pack": pack(1, pack_name(number=5), [Frame(1, b"x")]),
        "pack-directory": directory([Frame(1, b"x")]),
        "pack-table": table(entry(number=0), data, entry(2, writer="host-2", sid=session(1))),
        "page": page(table(data), chunk(1000), hole(3096)),
        "node": node(1, table(data, own), HOLE_CHILD, child(number=1, names=[0])),
        "index": index([(session(2), raw_decision_name())], table(data), [(payload_id(1), 1, 0, 176, 116, 100)]),
        "intent": intent(),
        "signature-message": signature_message("tombstone", NAMES["tombstone"], tombstone()),
        "result": gc_result(table(data), table(), 2, table(entry(number=0))),
        "awaited": awaited([(session(1), "host-1"), (session(2), "host-2")]),
        "repack-record": repack([session(5)], table(OLD, data), [(0, [1])]),
        "pin": pin(),
        "replica-marker": marker(),
        "lineage": lineage([raw_decision_name()]),
        "barrier": confirmed([(session(1), "host-1"), (session(2), "pruner")]),
        "decision": commit(
            parent=raw_decision_name(session(1), seq=2), tags=["daily"], disks=[disk(change_id="52/7", codec=1)]
        ),
    }


def lines_of(raw):
    lines = []
    for data, note in raw.pieces:
        for at in range(0, len(data), COLUMNS):
            start = data[at : at + COLUMNS].hex()
            lines.append(f"{start:<{2 * COLUMNS}}  # {note}" if at == 0 and note else start)
    return lines


def fill_in(spec):
    blocks = examples()

    def fill(match):
        return "\n".join([match.group(1), *lines_of(blocks.pop(match.group(2))), "```"])

    filled = re.sub(r"^(```hex ([a-z-]+))\n.*?^```$", fill, spec, flags=re.MULTILINE | re.DOTALL)
    assert not blocks, f"SPEC.md has no block for {sorted(blocks)}"
    return filled
