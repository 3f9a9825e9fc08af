"""Section 5: key slots."""

import json

from configs import replace
from objects import KEYS, KIB, PASSWORD, REPOSITORY, RETENTION_KEY, ROOT_KEY, TIME, as_json, slot_values
from vectors import bad, limit, scenario, vector, version

NEVER = bytes(32)  # Stands for a slot key that no vector derives.


def slot_fields(values, key=None):
    kdf = values["kdf"]
    fields = {
        "repository": values["repository"],
        "kind": values["kind"],
        "label": values["label"],
        "created": values["created"],
        "memory-kib": kdf["memoryKiB"],
        "passes": kdf["passes"],
        "lanes": kdf["lanes"],
        "salt": kdf["salt"],
    }
    return {**fields, **({f"{values['kind']}-key": key} if key else {})}


def slots():
    values = slot_values()
    text = as_json(values)
    vector(
        "SLOT-1",
        "as-written",
        "key-slot",
        "a key slot as it is written",
        text=text,
        written="so",
        slot="ops",
        password=PASSWORD.encode(),
        fields=slot_fields(values, ROOT_KEY),
    )
    shuffled = json.dumps(dict(reversed(values.items())), separators=(",", ":"))
    vector(
        "SLOT-1",
        "members-in-another-order",
        "key-slot",
        "neither order nor white space matters",
        text=shuffled,
        slot="ops",
        password=PASSWORD.encode(),
        fields=slot_fields(values, ROOT_KEY),
    )
    long = slot_values(label="ö" * 127 + "l")
    vector(
        "SLOT-1",
        "longest-label",
        "key-slot",
        "a label of 255 bytes",
        text=as_json(long),
        slot="ops",
        password=PASSWORD.encode(),
        fields=slot_fields(long, ROOT_KEY),
    )
    fail = lambda what, comment, old, new, error="bad-json": vector(
        "SLOT-1", what, "key-slot", comment, error, text=replace(text, old, new), slot="ops", password=PASSWORD.encode()
    )
    fail("unknown-member", "a member that SLOT-1 does not have", '"label"', '"extra": 1,\n  "label"')
    fail("missing-member", "kind is missing", '  "kind": "root",\n', "")
    fail("repeated-member", "label is there twice", '"label"', '"label": "",\n  "label"')
    fail("missing-member-of-kdf", "passes is missing", '    "passes": 2,\n', "")
    fail("unknown-member-of-kdf", "a member of kdf that SLOT-1 does not have", '"passes"', '"extra": 1,\n    "passes"')
    fail("salt-too-short", "a salt of 31 bytes", values["kdf"]["salt"], values["kdf"]["salt"][2:])
    fail("sealed-too-long", "49 bytes", values["sealed"], values["sealed"] + "00")
    unknown = bad("the kind of a key slot is not known")
    fail("other-kind", "a kind that is not known", '"root"', '"put"', unknown)
    unknown = bad("the key derivation of a key slot is not known")
    fail("other-kdf", "a key derivation that is not known", "argon2id", "argon2i", unknown)
    for slot_kind, key in (("retention", RETENTION_KEY), ("inventory", KEYS.inventory)):
        values = slot_values(kind=slot_kind, root=key)
        vector(
            "SLOT-3",
            f"{slot_kind}-key",
            "key-slot",
            f"the {slot_kind} key under a password",
            text=as_json(values),
            written="so",
            slot="ops",
            password=PASSWORD.encode(),
            fields=slot_fields(values, key),
        )
    fail("format-1", "a higher format", '"format": 0', '"format": 1', version(1))
    vector(
        "CONF-2",
        "slot-of-format-1",
        "key-slot",
        "a higher format, whose other members are not known",
        version(1),
        text='{"keepstone": "key", "format": 1, "unknown": {}}',
        slot="ops",
    )
    fail("a-config", "another kind of object", '"key"', '"repository"', "bad-magic")
    fail("label-of-256-bytes", "a label that is too long", "Operators", "ö" * 128, limit("label length", 256, 255))
    vector(
        "SLOT-1",
        "over-16-kib",
        "key-slot",
        "a byte longer than a slot may be",
        limit("JSON length", 16 * KIB + 1, 16 * KIB),
        text.encode(),
        pad=(16 * KIB + 1 - len(text.encode()), 0x20),
        slot="ops",
    )
    texts()
    opening(text)
    work()
    trying()


def texts():
    """GEN-9, where text is free."""
    for what, label in (
        ("control-characters", "a\tb\x01"),
        ("surrogate-pair", "\U0001f511"),
        ("empty-text", ""),
    ):
        values = slot_values(label=label)
        vector(
            "GEN-9",
            what,
            "key-slot",
            "text that is allowed",
            text=json.dumps(values),
            slot="ops",
            password=PASSWORD.encode(),
            fields=slot_fields(values, ROOT_KEY),
        )
    text = as_json(slot_values())
    fail = lambda what, comment, new: vector(
        "GEN-9", what, "key-slot", comment, "bad-json", text=replace(text, "Operators", new), slot="ops"
    )
    fail("high-surrogate-alone", "the first half of a pair", "\\ud83d")
    fail("low-surrogate-alone", "the second half of a pair", "\\udd11")
    fail("surrogates-swapped", "the halves of a pair in the wrong order", "\\udd11\\ud83d")
    fail("control-character-not-escaped", "a tabulator as it is", "a\tb")


def opening(text):
    for what, password, changes in (
        ("two-lanes-two-passes", PASSWORD, {}),
        ("one-lane-one-pass", PASSWORD, {"memoryKiB": 8, "passes": 1, "lanes": 1}),
        ("memory-no-multiple-of-lanes", PASSWORD, {"memoryKiB": 39, "passes": 1}),
        ("three-lanes", "x", {"memoryKiB": 48, "lanes": 3, "passes": 3}),
        ("empty-password", "", {}),
        ("password-beyond-ascii", "Größe", {}),
        ("password-with-newline", "secret\n", {}),
        ("password-of-no-text", b"\x00\xff\xfe", {}),
    ):
        values = slot_values(password=password, **changes)
        data = password.encode() if isinstance(password, str) else password
        vector(
            "SLOT-2",
            what,
            "key-slot",
            "the slot opens with the password's bytes as they are",
            text=as_json(values),
            slot="ops",
            password=data,
            fields=slot_fields(values, ROOT_KEY),
        )
    for what, password in (
        ("wrong-password", "Correct horse"),
        ("password-with-newline-added", PASSWORD + "\n"),
        ("no-password", ""),
    ):
        vector(
            "SLOT-2", what, "key-slot", "another password", "bad-tag", text=text, slot="ops", password=password.encode()
        )
    decomposed = slot_values(password="Gro\u0308ße")
    vector(
        "SLOT-2",
        "password-decomposed",
        "key-slot",
        "the password's characters are the same, its bytes are not",
        "bad-tag",
        text=as_json(decomposed),
        slot="ops",
        password="Größe".encode(),
    )
    values = slot_values(name="a")
    vector(
        "SLOT-3",
        "another-slot",
        "key-slot",
        "the name of the slot is bound",
        text=as_json(values),
        slot="a",
        password=PASSWORD.encode(),
        fields=slot_fields(values, ROOT_KEY),
    )
    fail = lambda what, spoilt: vector(
        "SLOT-3",
        what,
        "key-slot",
        "a value that is bound was changed",
        "bad-tag",
        text=spoilt,
        slot="ops",
        password=PASSWORD.encode(),
    )
    for what, old, new in (
        ("changed-kind", '"root"', '"retention"'),
        ("changed-repository", REPOSITORY.hex(), bytes(16).hex()),
        ("changed-label", "Operators", "operators"),
        ("changed-created", f"{TIME},", f"{TIME + 1},"),
        ("changed-memory", '"memoryKiB": 32', '"memoryKiB": 33'),
        ("changed-passes", '"passes": 2', '"passes": 1'),
        ("changed-lanes", '"lanes": 2', '"lanes": 1'),
        ("changed-salt", "e0e1", "e0e0"),
    ):
        fail(what, replace(text, old, new))
    sealed_text = slot_values()["sealed"]
    fail("flipped-bit", replace(text, sealed_text, f"{int(sealed_text[0], 16) ^ 1:x}{sealed_text[1:]}"))
    fail("renamed", as_json(slot_values(name="other")))
    fail("nonce-not-zero", as_json(slot_values(nonce=bytes(11) + b"\1")))


def work():
    for what, changes in (
        ("least", {"memoryKiB": 8, "passes": 1, "lanes": 1}),
        ("most-lanes", {"memoryKiB": 128, "passes": 1, "lanes": 16}),
        ("most-memory", {"memoryKiB": 1 << 20, "passes": 4, "lanes": 16}),
        ("most-passes", {"memoryKiB": 65536, "passes": 64, "lanes": 1}),
        ("usual", {"memoryKiB": 65536, "passes": 3, "lanes": 4}),
    ):
        values = slot_values(secret=NEVER, **changes)
        vector(
            "SLOT-4",
            what,
            "key-slot",
            "work that is allowed; the slot is not opened",
            text=as_json(values),
            slot="ops",
            fields=slot_fields(values),
        )
    refused = bad("the parameters of the key derivation are not allowed")
    for what, changes in (
        ("memory-under-8", {"memoryKiB": 7, "passes": 1, "lanes": 1}),
        ("memory-under-8-a-lane", {"memoryKiB": 15, "passes": 1, "lanes": 2}),
        ("memory-over-1-gib", {"memoryKiB": (1 << 20) + 1, "passes": 1, "lanes": 1}),
        ("passes-0", {"passes": 0}),
        ("passes-65", {"passes": 65}),
        ("lanes-0", {"lanes": 0}),
        ("lanes-17", {"memoryKiB": 1024, "lanes": 17}),
        ("work-over-the-limit", {"memoryKiB": 1 << 20, "passes": 5}),
        ("work-a-little-over-the-limit", {"memoryKiB": 65537, "passes": 64}),
        ("everything-2-to-the-32-minus-1", {"memoryKiB": 2**32 - 1, "passes": 2**32 - 1, "lanes": 2**32 - 1}),
    ):
        vector(
            "SLOT-4",
            what,
            "key-slot",
            "work that is not allowed",
            refused,
            text=as_json(slot_values(secret=NEVER, **changes)),
            slot="ops",
            password=PASSWORD.encode(),
        )
    vector(
        "SLOT-4",
        "memory-of-33-bits",
        "key-slot",
        "memory that does not fit 32 bits",
        "bad-json",
        text=as_json(slot_values(secret=NEVER, memoryKiB=2**32)),
        slot="ops",
        password=PASSWORD.encode(),
    )


def trying():
    scenario(
        "SLOT-2",
        "line-end-of-a-password-file",
        "cli/src/password.rs::one_line_end_does_not_count",
        "LF or CR LF, and once only",
    )
    for what, test, comment, expect in (
        (
            "other-slots-are-tried",
            "a_damaged_key_slot_does_not_lock_out_the_others",
            "a slot that is rejected is left out and reported",
            "ok",
        ),
        (
            "the-64th-slot",
            "the_64th_key_slot_is_tried_and_those_that_are_rejected_do_not_count",
            "63 slots of another password and 70 that are rejected stand before the one that opens",
            "ok",
        ),
        (
            "another-root-key",
            "a_key_slot_of_another_root_key_locks_out_no_other_and_opens_nothing_alone",
            "a slot before the one that opens gives a root key that does not fit the config",
            "ok",
        ),
        (
            "other-kinds-do-not-count",
            "key_slots_of_other_kinds_crowd_out_none",
            "70 retention slots stand before the root slot",
            "ok",
        ),
        (
            "the-65th-slot",
            "the_65th_key_slot_is_not_tried_and_opening_says_so",
            "64 slots of another password stand before the one that would open",
            "refused",
        ),
    ):
        scenario("SLOT-5", what, f"engine/tests/opening.rs::{test}", comment, expect)
