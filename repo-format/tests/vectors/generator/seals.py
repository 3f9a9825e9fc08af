"""Section 6: sealed objects."""

from objects import (
    KEYS,
    REPOSITORY,
    TIME,
    WRITER,
    Raw,
    decision_name,
    intent,
    sealed,
    session,
    signature,
    signed,
    tombstone,
)
from primitives import keyed
from samples import INTENT, INTENT_FIELDS, NAMES, SID, TAG
from vectors import KEY_INPUTS, SIGNED_INPUTS, kind, vector


def sealed_objects():
    for kind_name, name in NAMES.items():
        vector(
            "SEAL-1",
            f"{kind_name}-opens",
            "sealed",
            "any plaintext opens under its name",
            body=sealed(kind_name, name, b"any plaintext"),
            **KEY_INPUTS,
            name=name,
            kind=kind_name,
            fields={"plaintext": b"any plaintext"},
        )
    plain = intent().bytes
    inputs = {**KEY_INPUTS, "name": INTENT}
    fail = lambda rule, what, comment, body, error="bad-tag": vector(
        rule, what, "intent", comment, error, body, **inputs
    )
    good = sealed("intent", INTENT, plain).bytes
    flip = lambda at: good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    fail(
        "SEAL-1",
        "another-name",
        "the object of another name",
        sealed("intent", f"s/{WRITER}/{session(3).hex()}", plain),
    )
    fail(
        "SEAL-1",
        "another-repository",
        "the object of another repository with the same keys",
        sealed("intent", INTENT, plain, repository=bytes(16)),
    )
    fail("SEAL-1", "changed-salt", "a bit of the salt is flipped", flip(16))
    fail("SEAL-1", "changed-key-hash", "a bit of the key hash is flipped", flip(79))
    fail(
        "SEAL-1",
        "name-not-bound",
        "the associated data has another name, the key hash the right one",
        sealed("intent", INTENT, plain, aad_name=f"s/host-2/{SID}"),
    )
    vector(
        "SEAL-2",
        "salt-used-twice",
        "sealed",
        "with the same salt another plaintext has another key hash",
        body=sealed("repack", NAMES["repack"], b"another plaintext"),
        **KEY_INPUTS,
        name=NAMES["repack"],
        kind="repack",
        fields={"plaintext": b"another plaintext"},
    )
    wrong = "wrong-key-hash"
    fail(
        "SEAL-2",
        "hash-of-other-content",
        "a key hash that is not of this content; the rest fits it",
        sealed("intent", INTENT, plain, key_hash=bytes(range(32))),
        wrong,
    )
    fail(
        "SEAL-2",
        "hash-of-another-name",
        "the key hash has another name, the associated data the right one",
        sealed("intent", INTENT, plain, hash_name=f"s/host-2/{SID}"),
        wrong,
    )
    fail(
        "SEAL-2",
        "hash-with-another-key",
        "the key hash is keyed by the inventory key",
        sealed(
            "intent",
            INTENT,
            plain,
            key_hash=keyed(KEYS.inventory, good[:48] + REPOSITORY + Raw().str16(INTENT).bytes + plain),
        ),
        wrong,
    )
    vector(
        "SEAL-3",
        "empty-plaintext",
        "sealed",
        "a tag alone",
        body=sealed("generation-seal", NAMES["generation-seal"], b""),
        **KEY_INPUTS,
        name=NAMES["generation-seal"],
        kind="generation-seal",
        fields={"plaintext": b""},
    )
    fail("SEAL-3", "flipped-ciphertext", "a bit of the ciphertext is flipped", flip(80))
    fail("SEAL-3", "flipped-tag", "a bit of the tag is flipped", flip(len(good) - 1))
    fail(
        "SEAL-3",
        "nonce-not-zero",
        "sealed with another nonce",
        sealed("intent", INTENT, plain, nonce=bytes(11) + b"\1"),
    )
    fail(
        "SEAL-3",
        "key-without-salt",
        "a key derived without the salt",
        sealed("intent", INTENT, plain, key_material=KEYS.inventory + good[48:80]),
    )
    vector(
        "SEAL-4",
        "right-type",
        "intent",
        "the type is the one that the name calls for",
        body=good,
        fields=INTENT_FIELDS,
        **inputs,
    )
    what = "the type of a sealed object"
    fail(
        "SEAL-4",
        "another-type",
        "an authentic tombstone under an intent's name",
        sealed("tombstone", INTENT, plain),
        kind(what, 4),
    )
    fail("SEAL-4", "type-0", "a type that is not known", sealed("intent", INTENT, plain, type_number=0), kind(what, 0))
    fail(
        "SEAL-4", "type-15", "a type that is not known", sealed("intent", INTENT, plain, type_number=15), kind(what, 15)
    )
    vector(
        "SEAL-4",
        "asked-for-another-type",
        "sealed",
        "an intent is sealed under the name of a repack record",
        kind(what, 1),
        sealed("intent", NAMES["repack"], plain),
        **KEY_INPUTS,
        name=NAMES["repack"],
        kind="intent",
    )
    broken = b"\xff" * len(plain)
    fail(
        "SEAL-4",
        "tag-before-plaintext",
        "the plaintext is no intent, but the tag is wrong first",
        sealed("intent", INTENT, broken).bytes[:-1] + b"\0",
    )
    fail(
        "SEAL-4",
        "key-hash-before-plaintext",
        "the plaintext is no intent, but the key hash is wrong first",
        sealed("intent", INTENT, broken, key_hash=bytes(32)),
        wrong,
    )
    fail(
        "SEAL-4",
        "plaintext-last",
        "tag and key hash are right, the plaintext is no intent",
        sealed("intent", INTENT, b""),
        "truncated",
    )
    more, less = sealed("intent", INTENT, plain, length=len(plain) - 1), sealed(
        "intent", INTENT, plain, length=len(plain) + 1
    )
    vector(
        "GEN-3",
        "sealed-longer-than-declared",
        "intent",
        "a byte more than the declared length",
        "trailing-bytes",
        more,
        **inputs,
    )
    vector(
        "GEN-3",
        "sealed-shorter-than-declared",
        "intent",
        "a byte less than the declared length",
        "truncated",
        less,
        **inputs,
    )
    vector(
        "GEN-3", "sealed-without-tag", "intent", "the object ends within its header", "truncated", good[:79], **inputs
    )
    signatures()


def signatures():
    """SIG-1 and SIG-2, on tombstones; one object of each other kind is in section 10."""
    name, content = NAMES["tombstone"], tombstone().bytes
    fields = {"session": session(2), "time": TIME, "decision": decision_name()}
    inputs = {**SIGNED_INPUTS, "name": name}
    take = lambda rule, what, comment: vector(
        rule, what, "tombstone", comment, body=signed("tombstone", name, content), fields=fields, **inputs
    )
    take("SIG-1", "tombstone", "a tombstone with the signature behind its content")
    take("SIG-2", "signed", "the signature is checked with the public key of the config")
    take("KEY-4", "signed", "signed with the key whose public half the config tells")
    fail = lambda rule, what, comment, body, error="bad-signature": vector(
        rule, what, "tombstone", comment, error, body, **inputs
    )
    by_other = lambda **changes: signed("tombstone", name, content, **changes)
    fail("KEY-4", "another-key", "signed with another key", by_other(key=bytes(32)))
    fail("SIG-1", "another-context", "signed with another context", by_other(context=b"keepstone v1 retention signature"))
    fail("SIG-1", "another-repository", "signed for another repository", by_other(repository=bytes(16)))
    elsewhere = signature("tombstone", f"f/{TAG}/{session(3).hex()}", content)
    fail("SIG-1", "another-name", "signed under another name", sealed("tombstone", name, content + elsewhere))
    as_pin = signature("pin", name, content)
    fail("SIG-1", "another-type", "signed as another type", sealed("tombstone", name, content + as_pin))
    other = signature("tombstone", name, tombstone(time=TIME + 1).bytes)
    fail("SIG-1", "another-content", "signed with another content", sealed("tombstone", name, content + other))
    good = signature("tombstone", name, content)
    order = 2**252 + 27742317777372353535851937790883648493
    high = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    fail("SIG-1", "scalar-not-reduced", "a second form of the signature", sealed("tombstone", name, content + high))
    fail("SIG-2", "unsigned", "no signature", sealed("tombstone", name, content))
    fail("SIG-2", "nothing", "a plaintext shorter than a signature", sealed("tombstone", name, b""))
    fail("SIG-2", "zeros", "zeros in place of the signature", sealed("tombstone", name, content + bytes(64)))
    broken = sealed("tombstone", name, b"\xff" + content + bytes(64))
    fail("SIG-2", "signature-before-content", "the content is no tombstone, but the signature is wrong first", broken)
    spoilt = by_other().bytes
    spoilt = spoilt[:-1] + bytes([spoilt[-1] ^ 1])
    fail("SIG-2", "tag-before-signature", "a tag that is wrong is damage, and no missing signature", spoilt, "bad-tag")
