"""Section 10: intents, tombstones, generations, repack records, pins."""

from objects import (
    TIME,
    WRITER,
    CONDEMNED_HASH,
    Raw,
    awaited,
    decision_name,
    entry,
    gc_result,
    intent,
    pack_text,
    pin,
    repack,
    sealed,
    session,
    sessions,
    signed,
    table,
    tombstone,
)
from samples import (
    INTENT,
    INTENT_FIELDS,
    NAMES,
    OLD,
    OLD_TOO,
    SID,
    TAG,
    UNLISTED,
)
from vectors import KEY_INPUTS, SIGNED_INPUTS, bad, name_error, numbered, vector


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
        body=signed("tombstone", NAMES["tombstone"], tombstone().bytes),
        fields=fields,
        **SIGNED_INPUTS,
        name=NAMES["tombstone"],
    )
    for what, name in vm_names:
        vector(
            "TOMB-1",
            what,
            "tombstone",
            "an authentic tombstone that is not its name's",
            bad("the tombstone is not the one that its name calls for"),
            signed("tombstone", name, tombstone().bytes),
            **SIGNED_INPUTS,
            name=name,
        )
    generations()
    repacks()
    pins()


def generations():
    packs = [entry(number=0), entry(number=3), entry(2, number=1)]
    plain = table(*packs)
    blob = lambda rule, what, kind_name, comment, content, fields: vector(
        rule,
        what,
        kind_name,
        comment,
        body=signed(kind_name, NAMES[kind_name], content.bytes),
        fields=fields,
        **SIGNED_INPUTS,
        name=NAMES[kind_name],
    )
    blob(
        "GC-1", "condemned", "condemned", "packs that are to be deleted", plain, numbered("pack", map(pack_text, packs))
    )
    vector(
        "GC-1",
        "another-generation",
        "condemned",
        "the list of another generation",
        "bad-tag",
        signed("condemned", "gc/00000008/condemned", plain.bytes),
        **SIGNED_INPUTS,
        name=NAMES["condemned"],
    )
    delete, rescued, earlier = packs
    fields = {"delete.0": pack_text(delete), "rescued.0": pack_text(packs[2])}
    alone = gc_result(table(delete), table(packs[2]))
    blob("GC-2", "alone", "result", "it speaks for its own generation only", alone, {**fields, "covers": 1})
    for_all = gc_result(table(delete), table(packs[2]), 8, table(rescued))
    fields = {**fields, "covers": 8, "earlier.0": pack_text(rescued)}
    blob("GC-2", "for-all-before", "result", "generation 7 speaks for 0 to 7", for_all, fields)
    nothing = gc_result(table(), table(), 2)
    blob("GC-2", "nothing-was-deleted", "result", "earlier generations deleted nothing", nothing, {"covers": 2})
    fail = lambda what, comment, error, content: vector(
        "GC-2",
        what,
        "result",
        comment,
        error,
        signed("result", NAMES["result"], content.bytes),
        **SIGNED_INPUTS,
        name=NAMES["result"],
    )
    fail(
        "covers-0",
        "it does not speak for its own generation",
        bad("a result does not speak for its own generation"),
        gc_result(table(delete), table(), 0),
    )
    fail(
        "covers-9-of-8",
        "it speaks for more generations than there are up to it",
        bad("a result speaks for more generations than there were"),
        gc_result(table(delete), table(), 9, table(rescued)),
    )
    fail(
        "earlier-of-none",
        "it lists packs of earlier generations and speaks for none",
        bad("a result lists packs of earlier generations but speaks for none"),
        gc_result(table(delete), table(), 1, table(rescued)),
    )
    fail("earlier-missing", "the last table is missing", "truncated", Raw().add(plain).add(table()).u32(2))
    waits = [(session(1), "host-2"), (session(2), "host-1"), (session(2), "host-1-b")]
    fields = {f"session.{n}": waits[n][0] for n in range(3)} | {f"writer.{n}": waits[n][1] for n in range(3)}
    fields["condemned"] = CONDEMNED_HASH
    blob("GC-4", "awaited", "awaited", "sessions that are waited for, two of one id", awaited(waits), fields)
    blob("GC-4", "nobody", "awaited", "none is waited for", awaited([]), {"condemned": CONDEMNED_HASH})
    # The zero behind it leaves room for a writer of one character.
    for what, writer in (("writer-empty", ""), ("writer-in-upper-case", "Host-1")):
        vector(
            "GC-4",
            what,
            "awaited",
            "a writer's name that is not allowed",
            name_error("the name of a writer", "1 to 63 characters of a-z, 0-9 and -, beginning with a letter or digit"),
            signed("awaited", NAMES["awaited"], awaited([(session(1), writer)]).put(bytes(1)).bytes),
            **SIGNED_INPUTS,
            name=NAMES["awaited"],
        )
    roster = sessions([session(1), session(2)], "roster")
    ended = numbered("roster", [session(1), session(2)])
    blob("GC-3", "roster", "generation-seal", "the snapshots that there were", roster, ended)
    blob("GC-3", "no-snapshot", "generation-seal", "there were none", sessions([]), {})
    vector(
        "GC-3",
        "empty",
        "generation-seal",
        "no roster",
        "truncated",
        signed("generation-seal", NAMES["generation-seal"], b""),
        **SIGNED_INPUTS,
        name=NAMES["generation-seal"],
    )


def repacks():
    packs = [OLD, OLD_TOO, entry(number=0), entry(number=1), entry(2, number=4, sid=session(1)), entry(2, number=0)]
    leads = [(0, [2, 3]), (1, [3]), (4, [5])]
    fields = {
        "session": session(2),
        "decision": decision_name(),
        "applies-to.0": session(5),
        **numbered("pack", map(pack_text, packs)),
        **numbered("lead", ("0 2 3", "1 3", "4 5")),
    }
    plain = repack([session(5)], table(*packs), leads)
    vector("REPACK-1", "three-leads", "repack", "leads sorted by the old pack", body=plain, fields=fields)
    empty = {"session": session(2), "decision": decision_name()}
    vector("REPACK-1", "no-lead", "repack", "nothing was moved", body=repack([], table(), []), fields=empty)
    vector(
        "REPACK-1",
        "sealed",
        "repack",
        "the same as a blob",
        body=signed("repack", NAMES["repack"], plain.bytes),
        fields=fields,
        **SIGNED_INPUTS,
        name=NAMES["repack"],
    )
    fail = lambda what, comment, error, of, *leads: vector(
        "REPACK-1", what, "repack", comment, error, repack([], table(*of), leads)
    )
    own = bad("an old pack is of the repack session itself")
    foreign = bad("a new pack is not of the repack session")
    fail("same-pack", "a lead to the pack itself", own, [entry()], (0, [0]))
    fail("old-pack-of-its-own", "a lead from a new pack to another", own, [entry(), entry(number=1)], (0, [1]))
    fail("new-pack-of-another-session", "a lead to an old pack", foreign, [OLD, OLD_TOO], (0, [1]))
    of_other_writer = entry(number=0, writer="host-2")
    fail("new-pack-of-another-writer", "a lead to another writer's pack", foreign, [OLD, of_other_writer], (0, [1]))
    other_kind = bad("an old pack leads to one of another kind")
    fail("other-kind", "a lead from a data pack to a map pack", other_kind, [OLD, entry(2)], (0, [1]))
    fail("nowhere", "a lead to no pack", bad("an old pack leads nowhere"), [OLD], (0, []))
    fail("new-pack-not-in-the-table", "an entry number that the table does not have", UNLISTED, [OLD], (0, [1]))
    fail("old-pack-not-in-the-table", "an entry number that the table does not have", UNLISTED, [entry()], (1, [0]))
    name = f"k/{session(3).hex()}"
    vector(
        "REPACK-1",
        "another-session",
        "repack",
        "an authentic record that is not its name's",
        bad("the record is not the one that its name calls for"),
        signed("repack", name, plain.bytes),
        **SIGNED_INPUTS,
        name=name,
    )


def pins():
    fields = {"session": session(2), "decision": decision_name(), "time": TIME}
    set_fields = {**fields, "pinned": 1, "reason": "before the upgrade"}
    sealed_pin = lambda rule, what, comment, error="ok", name=NAMES["pin"], content=pin(), of=None: vector(
        rule, what, "pin", comment, error, signed("pin", name, content.bytes), fields=of, **SIGNED_INPUTS, name=name
    )
    sealed_pin("PIN-1", "set", "a snapshot is pinned", of=set_fields)
    taken = pin(pinned=0, reason="")
    sealed_pin("PIN-1", "taken-away", "it is not pinned any more", content=taken, of={**fields, "pinned": 0, "reason": ""})
    misnamed = bad("the pin is not the one that its name calls for")
    for what, name in (
        ("vm-tag-of-another-vm", f"p/{bytes(16).hex()}/{SID}-00000001"),
        ("another-session", f"p/{TAG}/{session(3).hex()}-00000001"),
    ):
        sealed_pin("PIN-1", what, "an authentic pin that is not its name's", misnamed, name)
    vector("PIN-1", "pinned-2", "pin", "neither pinned nor not", "reserved-not-zero", pin(pinned=2))
    vector(
        "PIN-1",
        "another-number",
        "pin",
        "a pin that was sealed under another number",
        "bad-tag",
        signed("pin", NAMES["pin"], pin().bytes),
        **SIGNED_INPUTS,
        name=NAMES["pin"].replace("00000001", "00000002"),
    )
