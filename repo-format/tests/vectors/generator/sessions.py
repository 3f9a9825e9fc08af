"""Sections 9 to 11: indexes, sessions, generations, and what writers and readers do."""

from blobs import INTENT, NAMES
from general import INTENT_FIELDS, SID, TAG
from maps import MISFIT, OTHER, OUTSIDE, PACK_ONE, TABLE_ONE, UNLISTED
from objects import *
from vectors import *

FOREIGN = bad("a decision is named that is another session's")
ENTRY = (payload_id(1), 1, 0, 176, 116, 100)


def entry_text(values):
    identity, *numbers = values
    return " ".join([identity.hex(), *map(str, numbers)])


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
    decisions()
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


def root_text(codec=1, kind_number=2, **changes):
    at = {**ROOT_PLACE, **changes}
    return (
        f"{codec} {pack_name(kind_number, at['writer'], at['sid'], at['number'])} {at['length']} {at['offset']} {at['stored_len']} "
        f"{at['plain_len']} {at['identity'].hex()}"
    )


def disk_fields(number, key="disk0", size=512, change_id=None, mode=1, changed=1, read=2, root=None):
    fields = {"key": key, "size": size, "mode": mode, "changed-bytes": changed, "read-bytes": read}
    fields.update({"change-id": change_id} if change_id is not None else {})
    fields.update({"root": root} if root else {})
    return {f"disk.{number}.{name}": value for name, value in fields.items()}


HEAD = {"session": session(2), "time": TIME, "program": "keepstone 0.1.0"}
COMMIT = {"verdict": "commit", **HEAD, "vm": VM}
TOTALS = {
    "chunks": 1,
    "new-chunks": 2,
    "new-bytes": 3,
    "stored-bytes": 4,
    "metadata-bytes": 5,
    "data-packs": 6,
    "map-packs": 7,
}


def decisions():
    name = decision_name()
    inputs = {**KEY_INPUTS, "name": name}
    small = {**COMMIT, **TOTALS, **disk_fields(0)}
    vector("DEC-1", "commit", "decision", "a COMMIT", body=commit(), fields=small)
    vector(
        "DEC-1",
        "abort-by-writer",
        "decision",
        "an ABORT of the writer",
        body=abort(),
        fields={"verdict": "abort", **HEAD, "by": "writer"},
    )
    vector(
        "DEC-1",
        "abort-by-pruner",
        "decision",
        "an ABORT of a pruner, by a program without a name",
        body=abort(by=2, program=""),
        fields={"verdict": "abort", **HEAD, "program": "", "by": "pruner"},
    )
    for number in (0, 3):
        vector(
            "DEC-1",
            f"verdict-{number}",
            "decision",
            "a verdict that is not known",
            kind("verdict", number),
            abort(verdict=number),
        )
        vector(
            "DEC-1",
            f"abort-by-{number}",
            "decision",
            "an author that is not known",
            kind("the author of an ABORT", number),
            abort(by=number),
        )
    vector(
        "DEC-1",
        "has-parent-2",
        "decision",
        "a has field that is neither 0 nor 1",
        "reserved-not-zero",
        commit(has_parent=2),
    )
    vector(
        "DEC-1",
        "has-change-id-255",
        "decision",
        "a has field that is neither 0 nor 1",
        "reserved-not-zero",
        commit(disks=[disk(has_change_id=255)]),
    )
    full, full_fields = full_commit()
    vector("DEC-2", "all-fields", "decision", "every optional field is there", body=full, fields=full_fields)
    vector(
        "DEC-2",
        "parent-of-another-vm-tag",
        "decision",
        "a parent is not looked at here",
        body=commit(parent=raw_decision_name(session(1), bytes(16), "host-2", 0)),
        fields={**small, "parent": decision_name(session(1), bytes(16), "host-2", 0)},
    )
    vector(
        "DEC-2",
        "empty-property",
        "decision",
        "keys and values may be empty",
        body=commit(properties=[("", "")]),
        fields={**small, "property.0.key": "", "property.0.value": ""},
    )
    vector(
        "DEC-2",
        "parent-with-bad-writer",
        "decision",
        "the parent's name has a writer that is not allowed",
        name_error("the name of a writer", "1 to 63 characters of a-z, 0-9 and -, beginning with a letter or digit"),
        commit(parent=raw_decision_name(writer="-")),
    )
    vector(
        "DEC-2",
        "parent-missing",
        "decision",
        "a parent is announced and not there",
        "truncated",
        commit(has_parent=1).bytes[:47],
    )
    roots(small)
    most = {**small, **{key: 2**64 - 1 for key in TOTALS}, "data-packs": 2**32 - 1, "map-packs": 2**32 - 1}
    vector(
        "DEC-4",
        "largest",
        "decision",
        "totals as large as they can be",
        body=commit(totals=[2**64 - 1] * 5, packs=[2**32 - 1] * 2),
        fields=most,
    )
    vector("DEC-4", "map-packs-missing", "decision", "the last total is missing", "truncated", commit(packs=(6,)))
    vector("DEC-4", "one-total-more", "decision", "a total too many", "trailing-bytes", commit().u32(0))
    vector(
        "DEC-5",
        "commit-under-its-name",
        "decision",
        "session and VM tag are those of the name",
        body=sealed("decision", name, commit().bytes),
        fields=small,
        **inputs,
    )
    elsewhere = decision_name(vm_tag=bytes(16))
    vector(
        "DEC-5",
        "abort-under-any-vm-tag",
        "decision",
        "an ABORT does not name its VM",
        body=sealed("decision", elsewhere, abort().bytes),
        fields={"verdict": "abort", **HEAD, "by": "writer"},
        **{**inputs, "name": elsewhere},
    )
    misnamed = bad("the decision is not the one that its name calls for")
    for what, other, plain in (
        ("vm-tag-of-another-vm", elsewhere, commit()),
        ("another-session", decision_name(session(3)), commit()),
        ("abort-of-another-session", decision_name(session(3)), abort()),
    ):
        vector(
            "DEC-5",
            what,
            "decision",
            "an authentic decision that is not its name's",
            misnamed,
            sealed("decision", other, plain.bytes),
            **{**inputs, "name": other},
        )


def full_commit():
    via, tags, properties = [session(7), session(8)], ["daily", "täglich"], [("os", "linux"), ("uuid", "")]
    disks = [
        disk("disk0", 1 << 40, "52 de/7", 2, 65536, 131072, 1),
        disk("disk1", 2**62, "", 1, 2**64 - 1, 0, 2, number=5, stored_len=215),
    ]
    fields = {
        **COMMIT,
        **TOTALS,
        "parent": decision_name(session(1), seq=2),
        **numbered("via", via),
        **numbered("tag", tags),
        **{
            f"property.{n}.{part}": value
            for n, pair in enumerate(properties)
            for part, value in zip(("key", "value"), pair)
        },
        **disk_fields(0, "disk0", 1 << 40, "52 de/7", 2, 65536, 131072, root_text()),
        **disk_fields(1, "disk1", 2**62, "", 1, 2**64 - 1, 0, root_text(2, number=5, stored_len=215)),
    }
    return (
        commit(parent=raw_decision_name(session(1), seq=2), via=via, tags=tags, properties=properties, disks=disks),
        fields,
    )


def roots(small):
    vector("DEC-3", "disk-of-one-hole", "decision", "a disk without a root node", body=commit(), fields=small)
    vector(
        "DEC-3",
        "root-node",
        "decision",
        "a disk with a root node",
        body=commit(disks=[disk(codec=1)]),
        fields={**small, "disk.0.root": root_text()},
    )
    fail = lambda what, comment, error, *disks: vector(
        "DEC-3", what, "decision", comment, error, commit(disks=list(disks))
    )
    fail("no-disk", "a COMMIT without a disk", bad("a snapshot has no disk"))
    fail("mode-0", "a mode that is not known", kind("disk mode", 0), disk(mode=0))
    fail("mode-3", "a mode that is not known", kind("disk mode", 3), disk(mode=3))
    fail("codec-3", "a codec that is not known", kind("codec", 3), disk(codec=3))
    fail("root-within-the-header", "a root node that begins in its pack's header", OUTSIDE, disk(codec=1, offset=175))
    fail("root-behind-the-end", "a root node that ends behind its pack", OUTSIDE, disk(codec=1, offset=MIB - 215))
    fail("root-lengths-misfit", "a raw root node whose lengths do not fit", MISFIT, disk(codec=1, stored_len=217))
    fail(
        "root-over-32-mib",
        "a root node longer than its limit",
        limit("plain length", 32 * MIB + 1, 32 * MIB),
        disk(codec=2, plain_len=32 * MIB + 1),
    )
    fail(
        "pack-of-0-bytes",
        "the pack of a root node has a length",
        bad("a pack is too short to be one"),
        disk(codec=1, length=0),
    )
    fail(
        "pack-over-288-mib",
        "a pack that is longer than its limit",
        limit("pack length", 288 * MIB + 1, 288 * MIB),
        disk(codec=1, length=288 * MIB + 1),
    )


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
    fail("same-pack", "a move within a pack", nowhere, replaced(4, 0))
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


ENGINE = "engine/tests/"
ORDER, HITS = ENGINE + "protocol/order.rs::", ENGINE + "protocol/hits.rs::"
DECISIONS, INHERITANCE, REPACKS = (
    ENGINE + "protocol/decisions.rs::",
    ENGINE + "protocol/inheritance.rs::",
    ENGINE + "protocol/repack.rs::",
)


def behaviour():
    for rule, what, test, comment, expect in (
        (
            "INDEX-3",
            "hits-are-confirmed",
            HITS + "packs_that_vanished_are_not_used",
            "a hit on a pack that is gone is not used",
            "refused",
        ),
        (
            "INDEX-3",
            "hits-are-used",
            HITS + "packs_of_a_committed_session_are_used",
            "a hit that is confirmed is used",
            "ok",
        ),
        (
            "INDEX-3",
            "restore-needs-none",
            ENGINE + "verify.rs::a_damaged_index_harms_no_snapshot",
            "a snapshot is whole without an index",
            "ok",
        ),
        (
            "W-1",
            "intent-first",
            ORDER + "each_step_of_a_backup_begins_when_the_one_before_has_ended",
            "the order of all steps",
            "ok",
        ),
        (
            "W-1",
            "lost-answer",
            ORDER + "an_intent_whose_answer_is_lost_is_settled_before_the_backup_goes_on",
            "an intent is confirmed",
            "ok",
        ),
        (
            "W-1",
            "not-confirmed",
            ORDER + "nothing_goes_on_when_the_intent_cannot_be_confirmed",
            "no session goes on without its intent",
            "refused",
        ),
        (
            "W-2",
            "condemned-before-the-intent",
            ORDER + "a_pack_that_is_condemned_just_before_the_intent_is_seen",
            "gc/ is listed after the intent",
            "refused",
        ),
        (
            "W-2",
            "result-rescues",
            INHERITANCE + "what_a_result_rescues_is_inherited",
            "a result counts instead of the list of condemned packs",
            "ok",
        ),
        (
            "W-2",
            "sealed-without-result",
            INHERITANCE + "a_generation_that_was_sealed_without_a_result_condemns_nothing",
            "a seal alone ends a generation",
            "ok",
        ),
        (
            "W-2",
            "all-generations",
            INHERITANCE + "the_lists_of_all_generations_count",
            "lists of all generations are read",
            "refused",
        ),
        (
            "W-2",
            "uncommitted-record",
            REPACKS + "the_record_of_a_session_that_did_not_commit_is_ignored",
            "a record of a session that is not committed",
            "refused",
        ),
        (
            "W-3",
            "after-the-records",
            ORDER + "the_parent_is_chosen_after_the_records_were_listed",
            "the parent is chosen last",
            "ok",
        ),
        (
            "W-3",
            "forgotten",
            DECISIONS + "a_forgotten_snapshot_is_no_parent",
            "a snapshot with a tombstone is no parent",
            "refused",
        ),
        (
            "W-4",
            "condemned-is-stored-again",
            INHERITANCE + "a_condemned_pack_is_not_inherited_and_all_else_is",
            "what is condemned is stored again, all else is inherited",
            "refused",
        ),
        (
            "W-4",
            "through-a-record",
            REPACKS + "pages_are_inherited_through_a_record_that_applies_to_the_parent",
            "names pass through a record that applies",
            "ok",
        ),
        (
            "W-4",
            "where-records-lead",
            REPACKS + "what_a_record_leads_to_is_checked_and_not_only_the_name",
            "a record leads to a condemned pack",
            "refused",
        ),
        (
            "W-4",
            "via",
            REPACKS + "a_record_that_no_kept_name_passes_through_is_not_listed",
            "via lists exactly the records that are passed through",
            "ok",
        ),
        ("W-5", "committed", HITS + "packs_of_a_committed_session_are_used", "packs of a committed session", "ok"),
        (
            "W-5",
            "forgotten",
            HITS + "packs_of_a_forgotten_session_are_used_even_when_its_root_is_gone",
            "packs of a tombstoned session",
            "ok",
        ),
        (
            "W-5",
            "undecided",
            HITS + "packs_of_an_undecided_session_are_not_used",
            "packs of a session without a decision",
            "refused",
        ),
        (
            "W-5",
            "aborted",
            HITS + "packs_of_an_aborted_session_are_used_by_its_own_writer_only",
            "packs of an aborted session",
            "refused",
        ),
        ("W-5", "condemned", HITS + "condemned_packs_are_not_used", "condemned packs", "refused"),
        ("W-5", "other-size", HITS + "packs_of_another_size_are_not_used", "packs of another size", "refused"),
        (
            "W-5",
            "moved",
            REPACKS + "another_vm_takes_moved_chunks_at_their_new_place_only",
            "chunks that a record moved",
            "refused",
        ),
        (
            "W-6",
            "decision-last",
            ORDER + "each_step_of_a_backup_begins_when_the_one_before_has_ended",
            "packs, then indexes, then the decision",
            "ok",
        ),
        (
            "W-6",
            "pack-missing",
            DECISIONS + "a_pack_that_is_not_there_at_the_end_stops_the_commit",
            "a pack is gone before the decision",
            "refused",
        ),
        (
            "W-7",
            "lost-answer",
            DECISIONS + "a_decision_whose_answer_is_lost_is_a_success",
            "the same bytes under the name are success",
            "ok",
        ),
        (
            "W-7",
            "abort",
            DECISIONS + "an_abort_that_wins_makes_the_backup_begin_anew_and_use_what_it_has_stored",
            "an ABORT under the name means to start again",
            "ok",
        ),
        (
            "W-7",
            "twin",
            DECISIONS + "another_commit_under_the_decisions_name_means_a_twin",
            "another COMMIT under the name",
            "refused",
        ),
        (
            "W-8",
            "failed-disk",
            ENGINE + "backup.rs::a_backup_that_fails_is_aborted_so_that_nobody_waits_for_it",
            "a session that cannot read a disk is aborted",
            "refused",
        ),
        (
            "W-8",
            "all-disks",
            ENGINE + "golden.rs::the_same_input_gives_the_same_blobs",
            "a snapshot of two disks is one decision",
            "ok",
        ),
        (
            "R-1",
            "restores",
            ENGINE + "backup.rs::a_disk_comes_back_as_it_was",
            "from the decision down to chunks",
            "ok",
        ),
        (
            "R-1",
            "damaged-chunk",
            ENGINE + "restore.rs::a_damaged_chunk_ends_a_restore_of_many_windows_and_is_named",
            "a chunk is checked before it is used",
            "refused",
        ),
        (
            "R-2",
            "records-change-nothing",
            REPACKS + "a_restore_reads_the_packs_that_locations_name_whatever_was_moved",
            "packs are those that locations name",
            "ok",
        ),
        (
            "R-2",
            "records-are-not-followed",
            REPACKS + "a_restore_does_not_look_for_moved_chunks",
            "a pack whose chunks were moved is missing",
            "refused",
        ),
        (
            "R-2",
            "missing",
            ENGINE + "verify.rs::a_missing_data_pack_is_named_with_what_is_lost",
            "a pack that is not in the store is missing",
            "refused",
        ),
    ):
        scenario(rule, what, test, comment, expect)
    scenario(
        "INDEX-4",
        "packs-come-first",
        ORDER + "an_index_lists_only_packs_that_were_in_the_store_before",
        "indexes list only what is there",
        negative="an index does not tell when it was created",
    )
