"""Section 9: indexes."""

from objects import (
    MIB,
    decision_name,
    entry,
    index,
    intent,
    pack_text,
    payload_id,
    raw_decision_name,
    pin,
    repack,
    sealed,
    session,
    table,
    tombstone,
)
from samples import (
    INTENT_FIELDS,
    MISFIT,
    NAMES,
    OUTSIDE,
    TABLE_ONE,
    UNLISTED,
    entry_text,
)
from vectors import KEY_INPUTS, bad, kind, limit, name_error, numbered, vector

FOREIGN = bad("a decision is named that is another session's")

ENTRY = (payload_id(1), 1, 0, 176, 116, 100)


def indexes():
    a, b = session(1), session(2)
    names = [(a, raw_decision_name(a)), (b, raw_decision_name(b, seq=0xFFFFFFFF))]
    packs = [entry(sid=a), entry(sid=a, number=1), entry(sid=b)]
    entries = [ENTRY, (payload_id(2), 2, 2, 292, 17, 1024), (payload_id(3), 1, 1, MIB - 17, 17, 1)]
    fields = {
        "session.0": f"{a.hex()} {decision_name(a)}",
        "session.1": f"{b.hex()} {decision_name(b, seq=0xFFFFFFFF)}",
        **numbered("pack", map(pack_text, packs)),
        **numbered("entry", map(entry_text, entries)),
    }
    plain = index(names, table(*packs), entries)
    vector("INDEX-1", "two-sessions", "index", "two sessions, three packs, three chunks", body=plain, fields=fields)
    vector(
        "INDEX-1",
        "sealed",
        "index",
        "the same as a blob",
        body=sealed("index", NAMES["index"], plain.bytes),
        fields=fields,
        **KEY_INPUTS,
        name=NAMES["index"],
    )
    one = [(b, raw_decision_name(b))]
    stranger = bad("an index has a pack that is no data pack of its sessions")
    fail = lambda what, comment, error, table_raw, entry_values=ENTRY: vector(
        "INDEX-1", what, "index", comment, error, index(one, table_raw, [entry_values])
    )
    fail("pack-of-another-session", "a pack of a session that is not listed", stranger, table(entry(sid=a)))
    fail(
        "pack-of-another-writer",
        "a pack of another writer than the decision's name has",
        stranger,
        table(entry(writer="host-2")),
    )
    fail("map-pack", "a map pack", stranger, table(entry(2)))
    fail(
        "entry-number-not-in-the-table",
        "an entry number that the table does not have",
        UNLISTED,
        TABLE_ONE,
        (payload_id(1), 1, 1, 176, 116, 100),
    )
    fail(
        "within-the-header",
        "a chunk that begins in the header",
        OUTSIDE,
        TABLE_ONE,
        (payload_id(1), 1, 0, 175, 116, 100),
    )
    fail(
        "behind-the-end",
        "a chunk that ends behind its pack",
        OUTSIDE,
        TABLE_ONE,
        (payload_id(1), 1, 0, MIB - 115, 116, 100),
    )
    fail(
        "lengths-misfit",
        "a raw chunk whose lengths do not fit",
        MISFIT,
        TABLE_ONE,
        (payload_id(1), 1, 0, 176, 117, 100),
    )
    fail(
        "over-1-mib",
        "a chunk longer than any config allows",
        limit("plain length", MIB + 1, MIB),
        TABLE_ONE,
        (payload_id(1), 2, 0, 176, 117, MIB + 1),
    )
    fail("codec-0", "a codec that is not known", kind("codec", 0), TABLE_ONE, (payload_id(1), 0, 0, 176, 116, 100))
    vector(
        "INDEX-2",
        "same-session",
        "intent",
        "the decision's name is of the intent's session",
        body=intent(),
        fields=INTENT_FIELDS,
    )
    other = raw_decision_name(a)
    vector(
        "INDEX-2",
        "other-session-in-an-index",
        "index",
        "the decision's name is another session's",
        FOREIGN,
        index([(b, other)], table(), []),
    )
    vector(
        "INDEX-2",
        "other-session-in-an-intent",
        "intent",
        "the decision's name is another session's",
        FOREIGN,
        intent(name=other),
    )
    vector(
        "INDEX-2",
        "other-session-in-a-tombstone",
        "tombstone",
        "the decision's name is another session's",
        FOREIGN,
        tombstone(name=other),
    )
    vector(
        "INDEX-2",
        "other-session-in-a-repack-record",
        "repack",
        "the decision's name is another session's",
        FOREIGN,
        repack([], table(), [], name=other),
    )
    vector(
        "INDEX-2",
        "other-session-in-a-pin",
        "pin",
        "the decision's name is another session's",
        FOREIGN,
        pin(name=other),
    )
    writer = name_error(
        "the name of a writer", "1 to 63 characters of a-z, 0-9 and -, beginning with a letter or digit"
    )
    vector(
        "INDEX-2",
        "writer-not-allowed",
        "intent",
        "a writer's name that is not allowed",
        writer,
        intent(name=raw_decision_name(writer="host_1")),
    )
