"""Section 10: intents, tombstones, generations, repack records, pins, replicas."""

from objects import (
    TIME,
    WRITER,
    CONDEMNED_HASH,
    Raw,
    PLACE,
    awaited,
    barrier,
    confirmed,
    decision_name,
    entry,
    gc_result,
    intent,
    lineage,
    LINEAGE_ID,
    marker,
    pack_text,
    pin,
    raw_decision_name,
    registered,
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
from vectors import KEY_INPUTS, SIGNED_INPUTS, bad, kind, limit, name_error, numbered, order, vector


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
    barriers()
    markers()
    lineages()


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


def barriers():
    """BAR-1; what the facts of a replica come to is shown by tests."""
    name = NAMES["barrier"]
    fields = {"replica": "west", "number": 4, "time": TIME}
    fact = lambda what, comment, content, error="ok", name=name, of=None: vector(
        "BAR-1", what, "barrier", comment, error, signed("barrier", name, content.bytes), fields=of, **SIGNED_INPUTS, name=name
    )
    fact("registered", "a replica is waited for", registered(), of={**fields, "what": "registered", "place": PLACE})
    fact("removed", "it is not any more", barrier(2), of={**fields, "what": "removed"})
    sessions_there = [(session(1), "host-2"), (session(2), "host-1"), (session(2), "pruner")]
    of = {**fields, "what": "confirmed"}
    of |= {f"session.{n}": sessions_there[n][0] for n in range(3)} | {f"writer.{n}": sessions_there[n][1] for n in range(3)}
    fact("confirmed", "sessions are whole there, two of one id", confirmed(sessions_there), of=of)
    fact("nothing-confirmed", "none is", confirmed([]), of={**fields, "what": "confirmed"})
    longest = "p" * 4096
    fact("longest-place", "a place of 4096 bytes", registered(longest), of={**fields, "what": "registered", "place": longest})
    misnamed = bad("the fact is not the one that its name calls for")
    fact("another-replica", "an authentic fact that is not its name's", registered(), misnamed, "b/east/00000004")
    fact("another-number", "an authentic fact that is not its name's", registered(), misnamed, "b/west/00000005")
    vector("BAR-1", "what-0", "barrier", "a fact that is not known", kind("a fact about a replica", 0), barrier(0))
    vector("BAR-1", "what-4", "barrier", "a fact that is not known", kind("a fact about a replica", 4), barrier(4))
    over = limit("length of a place", 4097, 4096)
    vector("BAR-1", "place-too-long", "barrier", "a place of 4097 bytes", over, registered(longest + "p"))
    vector("BAR-1", "removed-with-a-place", "barrier", "more behind a removal", "trailing-bytes", barrier(2).str16(PLACE))
    not_sorted = order("the confirmed sessions")
    vector("GEN-6", "confirmed-descending", "barrier", "sessions in descending order", not_sorted, confirmed(sessions_there[::-1]))
    twice = confirmed([sessions_there[0], sessions_there[0]])
    vector("GEN-6", "confirmed-twice", "barrier", "a session twice", not_sorted, twice)
    upper = name_error("the name of a replica", "1 to 63 characters of a-z, 0-9 and -, beginning with a letter or digit")
    vector("BAR-1", "name-in-upper-case", "barrier", "a replica's name that is not allowed", upper, registered(replica="West"))
    vector(
        "BAR-1",
        "unsigned",
        "barrier",
        "a fact that the retention did not sign",
        "bad-signature",
        sealed("barrier", name, registered().bytes),
        **SIGNED_INPUTS,
        name=name,
    )


def markers():
    name = NAMES["replica-marker"]
    whole = lambda what, comment, content, error="ok", of=None: vector(
        "LIN-1", what, "replica-marker", comment, error, sealed("replica-marker", name, content.bytes), fields=of, **KEY_INPUTS, name=name
    )
    whole("marked", "a place that is filled from elsewhere", marker(), of={"time": TIME, "source": PLACE})
    whole("source-unknown", "nobody told from where", marker(source=""), of={"time": TIME, "source": ""})
    over = limit("length of a place", 4097, 4096)
    whole("source-too-long", "a source of 4097 bytes", marker(source="s" * 4097), over)
    whole("nothing", "a plaintext of nothing", Raw(), "truncated")
    vector(
        "LIN-1",
        "another-name",
        "replica-marker",
        "a marker that was sealed under another name",
        "bad-tag",
        sealed("replica-marker", "lineage/00000001", marker().bytes),
        **KEY_INPUTS,
        name=name,
    )


def lineages():
    name = NAMES["lineage"]
    fields = {"number": 2, "id": LINEAGE_ID, "time": TIME, "first-generation": 3}
    aside = [raw_decision_name(session(1), seq=2), raw_decision_name(session(2), seq=2), raw_decision_name()]
    texts = [decision_name(session(1), seq=2), decision_name(session(2), seq=2), decision_name()]
    whole = lambda what, comment, content, error="ok", name=name, of=None: vector(
        "LIN-2", what, "lineage", comment, error, signed("lineage", name, content.bytes), fields=of, **SIGNED_INPUTS, name=name
    )
    promoted = {**fields, "step": "promoted"}
    whole("promoted", "three snapshots are set aside", lineage(aside), of={**promoted, **numbered("set-aside", texts)})
    whole("all-whole", "none is", lineage([]), of=promoted)
    whole("other-side-gone", "nobody writes there any more", lineage([], step=2), of={**fields, "step": "other-side-gone"})
    misnamed = bad("the lineage is not the one that its name calls for")
    whole("another-number", "an authentic object that is not its name's", lineage([]), misnamed, "lineage/00000003")
    whole("number-0", "they are numbered from 1", lineage([], number=0), bad("the numbers of lineages begin with 1"), "lineage/00000000")
    vector("LIN-2", "what-0", "lineage", "a step that is not known", kind("a lineage's step", 0), lineage([], step=0))
    vector("LIN-2", "what-3", "lineage", "a step that is not known", kind("a lineage's step", 3), lineage([], step=3))
    not_sorted = order("the snapshots set aside")
    vector("GEN-6", "set-aside-descending", "lineage", "names in descending order", not_sorted, lineage(aside[::-1]))
    vector("GEN-6", "set-aside-twice", "lineage", "a name twice", not_sorted, lineage([aside[0], aside[0]]))
    vector(
        "LIN-2",
        "unsigned",
        "lineage",
        "an object that the retention did not sign",
        "bad-signature",
        sealed("lineage", name, lineage([]).bytes),
        **SIGNED_INPUTS,
        name=name,
    )
