"""Section 10.2: decisions."""

from objects import (
    KEYS,
    MIB,
    ROOT_PLACE,
    TIME,
    VM,
    abort,
    commit,
    decision_name,
    disk,
    pack_name,
    raw_decision_name,
    repacked,
    sealed,
    session,
    signed,
)
from samples import MISFIT, OUTSIDE
from vectors import KEY_INPUTS, SIGNED_INPUTS, bad, kind, limit, name_error, numbered, vector

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
    vector("DEC-1", "repack", "decision", "a REPACK", body=repacked(), fields={"verdict": "repack", **HEAD})
    vector(
        "DEC-1",
        "repack-with-more",
        "decision",
        "a REPACK has nothing behind the program",
        "trailing-bytes",
        repacked().u8(1),
    )
    for number in (0, 4):
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
    free = "a\tb\x01"
    vector(
        "DEC-2",
        "text-with-control-characters",
        "decision",
        "a property and a change id are any text",
        body=commit(properties=[(free, free)], disks=[disk(change_id=free)]),
        fields={**small, "property.0.key": free, "property.0.value": free, "disk.0.change-id": free},
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
    signed_aborts()
    no_vm = decision_name(vm_tag=KEYS.vm_tag(""))
    vector(
        "DEC-5",
        "repack-under-the-tag-of-no-vm",
        "decision",
        "a REPACK is of no VM",
        body=sealed("decision", no_vm, repacked().bytes),
        fields={"verdict": "repack", **HEAD},
        **{**inputs, "name": no_vm},
    )
    misnamed = bad("the decision is not the one that its name calls for")
    for what, other, plain in (
        ("vm-tag-of-another-vm", elsewhere, commit()),
        ("another-session", decision_name(session(3)), commit()),
        ("abort-of-another-session", decision_name(session(3)), abort()),
        ("repack-under-the-tag-of-a-vm", name, repacked()),
        ("repack-of-another-session", decision_name(session(3), KEYS.vm_tag("")), repacked()),
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


def signed_aborts():
    name = decision_name()
    content = abort(by=2).bytes
    vector(
        "DEC-6",
        "abort-by-pruner",
        "decision",
        "a pruner's ABORT with its signature",
        body=signed("decision", name, content),
        fields={"verdict": "abort", **HEAD, "by": "pruner"},
        **SIGNED_INPUTS,
        name=name,
    )
    vector(
        "DEC-6",
        "abort-by-writer",
        "decision",
        "a writer's ABORT has no signature",
        body=sealed("decision", name, abort().bytes),
        fields={"verdict": "abort", **HEAD, "by": "writer"},
        **SIGNED_INPUTS,
        name=name,
    )
    fail = lambda what, comment, body, error="bad-signature": vector(
        "DEC-6", what, "decision", comment, error, body, **SIGNED_INPUTS, name=name
    )
    fail("unsigned", "a pruner's ABORT without a signature", sealed("decision", name, content))
    fail("signature-of-63-bytes", "a byte is missing", sealed("decision", name, content + bytes(63)))
    fail("signed-by-another-key", "another key's signature", signed("decision", name, content, key=bytes(32)))
    fail(
        "writers-abort-with-a-signature",
        "a writer's ABORT with a signature that a pruner's would have",
        signed("decision", name, abort().bytes),
        "trailing-bytes",
    )
    fail("commit-with-a-signature", "a COMMIT with a signature", signed("decision", name, commit().bytes), "trailing-bytes")


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
