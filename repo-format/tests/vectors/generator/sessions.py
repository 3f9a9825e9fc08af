"""Section 10: intents, tombstones, generations, repack records."""

from objects import (
    MIB,
    TIME,
    WRITER,
    Raw,
    decision_name,
    entry,
    gc_result,
    intent,
    pack_text,
    payload_id,
    repack,
    sealed,
    session,
    table,
    tombstone,
)
from samples import (
    INTENT,
    INTENT_FIELDS,
    MISFIT,
    NAMES,
    OUTSIDE,
    SID,
    TAG,
    UNLISTED,
    entry_text,
)
from vectors import KEY_INPUTS, bad, kind, numbered, vector


def sessions_and_snapshots():
    inputs = {**KEY_INPUTS, "name": INTENT}
    vector(
        "INTENT-1",
        "sealed",
        "intent",
        "session and writer are those of the name",
        body=sealed("intent", INTENT, intent().bytes),
        fields=INTENT_FIELDS,
        **inputs,
    )
    misnamed = bad("the intent is not the one that its name calls for")
    for what, name in (("another-session", f"s/{WRITER}/{session(3).hex()}"), ("another-writer", f"s/host-2/{SID}")):
        vector(
            "INTENT-1",
            what,
            "intent",
            "an authentic intent that is not its name's",
            misnamed,
            sealed("intent", name, intent().bytes),
            **{**inputs, "name": name},
        )
    vm_names = [
        ("vm-tag-of-another-vm", f"f/{bytes(16).hex()}/{SID}"),
        ("another-session", f"f/{TAG}/{session(3).hex()}"),
    ]
    fields = {"session": session(2), "time": TIME, "decision": decision_name()}
    vector(
        "TOMB-1",
        "sealed",
        "tombstone",
        "session and VM tag are those of the name",
        body=sealed("tombstone", NAMES["tombstone"], tombstone().bytes),
        fields=fields,
        **KEY_INPUTS,
        name=NAMES["tombstone"],
    )
    for what, name in vm_names:
        vector(
            "TOMB-1",
            what,
            "tombstone",
            "an authentic tombstone that is not its name's",
            bad("the tombstone is not the one that its name calls for"),
            sealed("tombstone", name, tombstone().bytes),
            **KEY_INPUTS,
            name=name,
        )
    generations()
    repacks()


def generations():
    packs = [entry(number=0), entry(number=3), entry(2, number=1)]
    fields = numbered("pack", map(pack_text, packs))
    plain = table(*packs)
    vector(
        "GC-1",
        "condemned",
        "condemned",
        "packs that are to be deleted",
        body=sealed("condemned", NAMES["condemned"], plain.bytes),
        fields=fields,
        **KEY_INPUTS,
        name=NAMES["condemned"],
    )
    roster = [session(1), session(2)]
    result = gc_result(table(packs[0]), table(packs[2]), roster)
    fields = {"delete.0": pack_text(packs[0]), "rescued.0": pack_text(packs[2]), **numbered("roster", roster)}
    vector(
        "GC-1",
        "result",
        "result",
        "what became of them",
        body=sealed("result", NAMES["result"], result.bytes),
        fields=fields,
        **KEY_INPUTS,
        name=NAMES["result"],
    )
    vector(
        "GC-1",
        "sealed",
        "generation-seal",
        "an empty plaintext",
        body=sealed("generation-seal", NAMES["generation-seal"], b""),
        **KEY_INPUTS,
        name=NAMES["generation-seal"],
    )
    vector(
        "GC-1",
        "sealed-with-content",
        "generation-seal",
        "a plaintext that is not empty",
        "trailing-bytes",
        sealed("generation-seal", NAMES["generation-seal"], b"\0"),
        **KEY_INPUTS,
        name=NAMES["generation-seal"],
    )
    vector(
        "GC-1",
        "result-without-roster",
        "result",
        "the roster is missing",
        "truncated",
        Raw().add(table(packs[0])).add(table()),
    )
    vector(
        "GC-1",
        "another-generation",
        "condemned",
        "the list of another generation",
        "bad-tag",
        sealed("condemned", "gc/00000008/condemned", plain.bytes),
        **KEY_INPUTS,
        name=NAMES["condemned"],
    )


def repacks():
    two = table(entry(number=0), entry(number=1))
    move = (payload_id(9), 0, 176, 1, 1, 176, 116, 100)
    moves = [move, (payload_id(4), 0, 300, 2, 1, 292, 99, 100), (payload_id(4), 1, 176, 1, 0, 600, 116, 100)]
    fields = {
        "session": session(2),
        "decision": decision_name(),
        "applies-to.0": session(5),
        "pack.0": pack_text(entry()),
        "pack.1": pack_text(entry(number=1)),
        **numbered("move", map(entry_text, moves)),
    }
    plain = repack([session(5)], two, moves)
    vector("REPACK-1", "three-moves", "repack", "moves sorted by the old place", body=plain, fields=fields)
    vector(
        "REPACK-1",
        "sealed",
        "repack",
        "the same as a blob",
        body=sealed("repack", NAMES["repack"], plain.bytes),
        fields=fields,
        **KEY_INPUTS,
        name=NAMES["repack"],
    )
    fail = lambda what, comment, error, changed, of=two: vector(
        "REPACK-1", what, "repack", comment, error, repack([], of, [changed])
    )
    nowhere = bad("a move does not lead to another pack of the same kind")
    replaced = lambda at, value: move[:at] + (value,) + move[at + 1 :]
    fail("same-pack", "a move within a pack", nowhere, replaced(4, 0), table(entry(number=0)))
    fail("other-kind", "a move from a data pack to a map pack", nowhere, move, table(entry(), entry(2)))
    fail("old-place-within-the-header", "an old place in the header", OUTSIDE, replaced(2, 175))
    fail("old-place-behind-the-end", "an old place behind the pack", OUTSIDE, replaced(2, MIB))
    fail("new-place-within-the-header", "a new place in the header", OUTSIDE, replaced(5, 175))
    fail("new-place-behind-the-end", "a new place that ends behind the pack", OUTSIDE, replaced(5, MIB - 115))
    fail("new-pack-not-in-the-table", "an entry number that the table does not have", UNLISTED, replaced(4, 2))
    fail("lengths-misfit", "a raw payload whose lengths do not fit", MISFIT, replaced(6, 117))
    fail("codec-0", "a codec that is not known", kind("codec", 0), replaced(3, 0))
    name = f"k/{session(3).hex()}"
    vector(
        "REPACK-1",
        "another-session",
        "repack",
        "an authentic record that is not its name's",
        bad("the record is not the one that its name calls for"),
        sealed("repack", name, plain.bytes),
        **KEY_INPUTS,
        name=name,
    )
