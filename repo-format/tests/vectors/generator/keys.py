"""Section 3: keys."""

from objects import (
    KEYS,
    REPOSITORY,
    ROOT_KEY,
    SESSION_KEY,
    VM,
    WRITER,
    Frame,
    Keys,
    as_json,
    config_values,
    intent,
    pack,
    pack_name,
    seal_session_key,
    sealed,
    session,
)
from primitives import keyed, x25519
from samples import INTENT_FIELDS, SID, config_fields
from vectors import KEY_INPUTS, bad, vector


def keys():
    chunk_bytes, map_bytes = b"a chunk", b"a page"
    fields = {
        "chunk-id-key": KEYS.chunk_id,
        "inventory-key": KEYS.inventory,
        "data-private-key": KEYS.data_private,
        "data-public-key": KEYS.data_public,
        "chunker-seed": KEYS.chunker_seed,
        "map-id-key": KEYS.map_id,
        "vm-tag-key": KEYS.vm_tag_key,
        "config-mac-key": KEYS.config_mac,
        "seal-hash-key": KEYS.seal_hash,
        "chunk-id": keyed(KEYS.chunk_id, chunk_bytes),
        "map-id": keyed(KEYS.map_id, map_bytes),
        "vm-tag": KEYS.vm_tag(),
    }
    vector(
        "KEY-1",
        "all-keys",
        "keys",
        "all that follows from a root key and a repository id",
        fields=fields,
        **KEY_INPUTS,
        vm=VM,
        chunk=chunk_bytes,
        map=map_bytes,
    )
    long = bytes(range(256)) * 13
    vector(
        "KEY-1",
        "ids-of-long-payloads",
        "keys",
        "payloads of several BLAKE3 chunks",
        **KEY_INPUTS,
        chunk=long,
        map=long[1:],
        fields={"chunk-id": keyed(KEYS.chunk_id, long), "map-id": keyed(KEYS.map_id, long[1:])},
    )
    name = f"s/{WRITER}/{SID}"
    without = Keys(material=ROOT_KEY)
    swapped = Keys(material=REPOSITORY + ROOT_KEY)
    other = Keys(root=bytes(32))
    for what, spoilt, comment in (
        ("without-the-repository", without, "keys derived from the root key alone"),
        ("material-swapped", swapped, "keys derived from repository id || root key"),
        ("another-root-key", other, "keys of another root key"),
    ):
        vector(
            "KEY-1",
            what,
            "intent",
            comment,
            "bad-tag",
            sealed("intent", name, intent().bytes, keys=spoilt),
            **KEY_INPUTS,
            name=name,
        )
    values = config_values()
    vector(
        "KEY-2",
        "own-public-key",
        "config",
        "the config has the public key of the root key",
        text=as_json(values),
        fields=config_fields(values),
        **KEY_INPUTS,
    )
    foreign = config_values(dataPublicKey=x25519(bytes(range(32))).hex())
    vector(
        "KEY-2",
        "other-public-key",
        "config",
        "the MAC is right, but the data public key is another one",
        bad("the data public key is not that of the root key"),
        text=as_json(foreign),
        **KEY_INPUTS,
    )
    vector(
        "KEY-5",
        "opens-an-intent",
        "intent",
        "the inventory key opens what is sealed under it",
        body=sealed("intent", name, intent().bytes),
        fields=INTENT_FIELDS,
        repository=REPOSITORY,
        inventory_key=KEYS.inventory,
        name=name,
    )
    vector(
        "KEY-5",
        "opens-no-session-key",
        "session-key",
        "the inventory key gives no data private key",
        "no-data-key",
        seal_session_key(),
        repository=REPOSITORY,
        inventory_key=KEYS.inventory,
        session=session(2),
    )
    vector(
        "KEY-5",
        "opens-no-data-pack",
        "pack",
        "the inventory key opens no data pack",
        "no-data-key",
        pack(1, pack_name(), [Frame(1, b"x")]),
        repository=REPOSITORY,
        inventory_key=KEYS.inventory,
        name=pack_name(),
    )
    session_keys()


def session_keys():
    inputs = {**KEY_INPUTS, "session": session(2)}
    good = seal_session_key()
    vector(
        "KEY-3",
        "opens",
        "session-key",
        "encapsulated key and ciphertext",
        body=good,
        fields={"session-key": SESSION_KEY},
        **inputs,
    )
    fail = lambda what, comment, data: vector("KEY-3", what, "session-key", comment, "bad-tag", data, **inputs)
    fail("other-session", "sealed for another session", seal_session_key(sid=session(3)))
    fail("other-repository", "sealed for another repository", seal_session_key(repository=bytes(16)))
    fail("other-info", "sealed with another info", seal_session_key(info=b"keepstone v1 session key"))
    fail("other-public-key", "sealed to another public key", seal_session_key(public=x25519(bytes(32))))
    fail("flipped-bit", "a bit of the ciphertext is flipped", good[:40] + bytes([good[40] ^ 1]) + good[41:])
    fail(
        "point-of-low-order",
        "the encapsulated key is zero, so that every private key gives the same secret",
        bytes(32) + good[32:],
    )
