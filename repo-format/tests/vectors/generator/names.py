"""Section 2: the names of blobs, and of what users name."""

from objects import KEYS, TIME, VM, commit, disk, session
from samples import MANY, SID, TAG
from vectors import KEY_INPUTS, name_error, scenario, vector


def names():
    for what, text, fields in (
        ("config", "config", {"kind": "config"}),
        ("key-slot", "keys/ops-1", {"kind": "key-slot", "slot": "ops-1"}),
        ("intent", f"s/host-1/{SID}", {"kind": "intent", "writer": "host-1", "session": SID}),
        (
            "data-pack",
            f"d/host-1/{SID}-0000001f",
            {"kind": "data-pack", "writer": "host-1", "session": SID, "number": 31},
        ),
        (
            "map-pack",
            f"m/host-1/{SID}-ffffffff",
            {"kind": "map-pack", "writer": "host-1", "session": SID, "number": MANY},
        ),
        ("index", f"i/host-1/{SID}-00000000", {"kind": "index", "writer": "host-1", "session": SID, "number": 0}),
        (
            "decision",
            f"r/{TAG}/host-1/00000010-{SID}",
            {"kind": "decision", "vm-tag": TAG, "writer": "host-1", "seq": 16, "session": SID},
        ),
        ("tombstone", f"f/{TAG}/{SID}", {"kind": "tombstone", "vm-tag": TAG, "session": SID}),
        ("condemned", "gc/0000000a/condemned", {"kind": "condemned", "generation": 10}),
        ("awaited", "gc/0000000a/awaited", {"kind": "awaited", "generation": 10}),
        ("result", "gc/0000000a/result", {"kind": "result", "generation": 10}),
        ("generation-seal", "gc/0000000a/sealed", {"kind": "generation-seal", "generation": 10}),
        ("repack", f"k/{SID}", {"kind": "repack", "session": SID}),
        ("pin", f"p/{TAG}/{SID}-00000010", {"kind": "pin", "vm-tag": TAG, "session": SID, "number": 16}),
        ("replica-marker", "lineage/replica", {"kind": "replica-marker"}),
        ("lineage", "lineage/00000010", {"kind": "lineage", "number": 16}),
        ("barrier", "b/west-1/00000010", {"kind": "barrier", "replica": "west-1", "number": 16}),
    ):
        vector("NAME-2", f"name-of-{what}", "name", "a name of section 2", text=text, fields=fields)
    for what, writer in (("one-character", "0"), ("63-characters", "x" * 63), ("dashes", "a--b-")):
        vector(
            "NAME-1",
            f"writer-of-{what}",
            "name",
            "a writer's name that is allowed",
            text=f"s/{writer}/{SID}",
            fields={"kind": "intent", "writer": writer, "session": SID},
        )
    ignored = lambda rule, what, text, comment: vector(rule, what, "name", comment, "ignored", text=text)
    ignored("NAME-6", "temporary", f".tmp/d/host-1/{SID}-00000000", "what is in .tmp is no blob")
    local = "engine/src/store/local/tests.rs::"
    scenario("NAME-6", "path", local + "creating_makes_the_directories_that_lead_to_it", "a blob is the file of its path")
    scenario("NAME-6", "temporary-files", local + "temporary_files_are_no_blobs", "a file in .tmp", "refused")
    scenario("NAME-6", "symbolic-links", local + "symbolic_links_are_not_followed", "a link in a blob's place", "refused")
    ignored("NAME-1", "writer-of-64-characters", f"s/{'x' * 64}/{SID}", "a writer's name that is too long")
    ignored("NAME-1", "writer-with-dash-first", f"s/-a/{SID}", "a writer's name that begins with a dash")
    ignored("NAME-1", "writer-with-dot", f"d/host.1/{SID}-00000001", "a writer's name with a dot")
    ignored("NAME-1", "writer-in-upper-case", f"s/Host/{SID}", "a writer's name with an upper-case letter")
    ignored("NAME-1", "writer-missing", f"s//{SID}", "a writer's name of no characters")
    ignored("NAME-1", "slot-with-dash-first", "keys/-ops", "a slot's name that begins with a dash")
    ignored("NAME-1", "replica-with-dash-first", "b/-west/00000000", "a replica's name that begins with a dash")
    ignored("NAME-1", "slot-of-64-characters", f"keys/{'x' * 64}", "a slot's name that is too long")
    ignored("NAME-2", "session-in-upper-case", f"k/{SID.upper()}", "hexadecimal digits in upper case")
    ignored("NAME-2", "session-of-31-digits", f"k/{SID[1:]}", "a session id that is too short")
    ignored("NAME-2", "session-of-33-digits", f"k/{SID}0", "a session id that is too long")
    ignored("NAME-2", "session-not-hexadecimal", f"k/{SID[1:]}g", "a session id with another letter")
    ignored("NAME-2", "number-of-7-digits", f"d/host-1/{SID}-0000001", "a number that is too short")
    ignored("NAME-2", "number-of-9-digits", f"d/host-1/{SID}-000000010", "a number that is too long")
    ignored("NAME-2", "number-missing", f"d/host-1/{SID}", "a pack without a number")
    ignored("NAME-2", "number-with-sign", f"d/host-1/{SID}-+0000001", "a number with a sign")
    ignored("NAME-2", "seq-missing", f"r/{TAG}/host-1/{SID}", "a decision without a seq")
    ignored("NAME-2", "vm-tag-of-31-digits", f"f/{TAG[1:]}/{SID}", "a VM tag that is too short")
    ignored("NAME-2", "lineage-of-7-digits", "lineage/0000001", "a number that is too short")
    ignored("NAME-2", "replica-without-a-number", "b/west", "an object about a replica without a number")
    ignored("NAME-2", "generation-in-upper-case", "gc/0000000A/result", "a generation in upper case")
    for what, vm in (("ascii", VM), ("beyond-ascii", "Größe"), ("longest", "v" * 255)):
        vector(
            "NAME-2",
            f"vm-tag-{what}",
            "keys",
            "the VM tag is keyed by the VM's name",
            **KEY_INPUTS,
            vm=vm,
            fields={"vm-tag-key": KEYS.vm_tag_key, "vm-tag": KEYS.vm_tag(vm)},
        )
    vector("NAME-3", "known", "name", "a name of section 2 is not ignored", text="config", fields={"kind": "config"})
    scenario(
        "NAME-3",
        "reported",
        "engine/tests/verify/objects.rs::a_name_without_a_meaning_is_reported_and_is_no_damage",
        "a verification reports the name and goes on",
    )
    for what, text in (
        ("other", "other"),
        ("below-config", "config/more"),
        ("below-a-pack", f"d/host-1/{SID}-00000001/more"),
        ("other-prefix", f"x/host-1/{SID}-00000001"),
        ("generation-alone", "gc/00000001"),
        ("below-the-marker", "lineage/replica/more"),
        ("other-in-lineage", "lineage/replicas"),
        ("other-in-generation", "gc/00000001/other"),
        ("empty-component", f"s/host-1//{SID}"),
        ("slash-first", "/config"),
        ("slash-last", "config/"),
        ("parent-directory", "../config"),
        ("own-directory", "keys/./ops"),
        ("upper-case", "Config"),
        ("space", "con fig"),
        ("backslash", "keys\\ops"),
        ("beyond-ascii", "keys/ö"),
        ("empty", ""),
    ):
        ignored("NAME-3", what, text, "a name that section 2 does not have")
    ignored("NAME-3", "too-long", "a/" + "b" * 254, "a name of 256 bytes")
    vector("NAME-3", "nul", "name", "a name with U+0000", "ignored", b"config\0")
    for what, text in (
        ("first-of-intents", "s/-"),
        ("middle-of-data-packs", "d/h_"),
        ("last-of-map-packs", "m/~"),
        ("middle-of-indexes", "i/h_"),
        ("first-of-decisions", "r/-"),
        ("middle-of-tombstones", "f/7_"),
        ("last-of-generations", "gc/~"),
        ("middle-of-records", "k/7_"),
        ("middle-of-pins", "p/7_"),
    ):
        vector("NAME-7", what, "name", "a canary", text=text, fields={"kind": "canary"})
    ignored("NAME-7", "of-lineage", "lineage/~", "a prefix that has no canaries")
    ignored("NAME-7", "of-another-prefix", "keys/-", "a prefix that has no canaries")
    ignored("NAME-7", "middle-of-hexadecimal-names", "s/7_", "the middle of another kind of names")
    ignored("NAME-7", "deeper", "s/~/a", "more behind a canary's name")
    scenario(
        "NAME-7",
        "other-content",
        "engine/tests/verify/objects.rs::a_canary_with_other_content_is_damage",
        "a canary without its content",
        "refused",
    )
    users_names()
    scenario(
        "NAME-5",
        "numbers-count-from-zero",
        "engine/tests/protocol/order.rs::packs_and_indexes_are_numbered_from_zero",
        "the names that two sessions create",
        negative="a reader takes whatever number a table or a name has",
    )


def users_names():
    vm = name_error("the name of a VM", "1 to 255 bytes without control characters")
    key = name_error("the key of a disk", "1 to 128 bytes without control characters, =, : and /")
    tag = name_error("a tag", "1 to 128 bytes without control characters")
    texts = {
        "vm": lambda text: commit(vm=text),
        "disk-key": lambda text: commit(disks=[disk(text)]),
        "tag": lambda text: commit(tags=[text]),
    }
    fields = {
        "vm": lambda text: {"vm": text},
        "disk-key": lambda text: {"disk.0.key": text},
        "tag": lambda text: {"tag.0": text},
    }
    base = {
        "verdict": "commit",
        "session": session(2),
        "time": TIME,
        "program": "keepstone 0.1.0",
        "vm": VM,
        "disk.0.key": "disk0",
        "disk.0.size": 512,
        "disk.0.mode": 1,
        "disk.0.changed-bytes": 1,
        "disk.0.read-bytes": 2,
        "chunks": 1,
        "new-chunks": 2,
        "new-bytes": 3,
        "stored-bytes": 4,
        "metadata-bytes": 5,
        "data-packs": 6,
        "map-packs": 7,
    }
    for what, where, text in (
        ("vm-of-255-bytes", "vm", "v" * 255),
        ("vm-beyond-ascii", "vm", "Größe: a/b=c"),
        ("vm-of-one-byte", "vm", " "),
        ("disk-key-of-128-bytes", "disk-key", "k" * 128),
        ("disk-key-with-dot", "disk-key", "scsi0.0"),
        ("tag-of-128-bytes", "tag", "t" * 128),
        ("tag-with-slash", "tag", "a/b:c=d"),
    ):
        vector(
            "NAME-4",
            what,
            "decision",
            "a name that is allowed",
            body=texts[where](text),
            fields={**base, **fields[where](text)},
        )
    for what, where, error, text in (
        ("vm-empty", "vm", vm, ""),
        ("vm-with-nul", "vm", vm, "a\0b"),
        ("vm-with-u-001f", "vm", vm, "a\x1f"),
        ("vm-with-u-007f", "vm", vm, "\x7f"),
        ("vm-with-newline", "vm", vm, "a\n"),
        ("vm-with-c1-control", "vm", vm, "a\u0080b"),
        ("disk-key-empty", "disk-key", key, ""),
        ("disk-key-of-129-bytes", "disk-key", key, "k" * 129),
        ("disk-key-with-equals", "disk-key", key, "a=b"),
        ("disk-key-with-colon", "disk-key", key, "a:b"),
        ("disk-key-with-slash", "disk-key", key, "../a"),
        ("disk-key-with-escape", "disk-key", key, "a\x1b[2J"),
        ("tag-empty", "tag", tag, ""),
        ("tag-of-129-bytes", "tag", tag, "t" * 129),
        ("tag-of-129-bytes-in-65-characters", "tag", tag, "ö" * 64 + "o"),
        ("tag-with-tab", "tag", tag, "a\tb"),
    ):
        vector("NAME-4", what, "decision", "a name that is not allowed", error, texts[where](text))
