#!/usr/bin/env python3
"""Reads the vectors in repo-format/tests/vectors with the second reader.

What a vector calls ok must be taken, anything else must be rejected. What the reader does not read (how writers cut
chunks, and what the inventory key alone opens) is left out. Prints how many vectors agreed; the exit code is 1 if one
did not.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import keepstone_reader as reader
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from keepstone_reader import Damaged, Failed, Fields, Pack

VECTORS = Path(__file__).resolve().parents[2] / "repo-format/tests/vectors"
LEFT_OUT = {"chunks", "scenario"}
SEALED_TYPES = {"intent": 1, "decision": 2, "index": 3, "tombstone": 4, "repack record": 8,
                "data pack": 9, "map pack": 9, "pin": 10, "replica marker": 12, "lineage": 13, "barrier": 14}
GENERATION_TYPES = {"condemned": 5, "result": 6, "sealed": 7, "awaited": 11}
GENERATION_PARTS = {"condemned": "condemned", "awaited": "awaited", "result": "result", "generation-seal": "sealed"}


class Vector:
    """The lines of one file; those that are repeated are joined."""

    def __init__(self, path):
        self.lines = {}
        for line in path.read_bytes().decode().split("\n"):
            name, _, value = line.partition(":")
            self.lines.setdefault(name, []).append(value.removeprefix(" "))

    def __contains__(self, name):
        return name in self.lines

    def text(self, name):
        return self.lines[name][0]

    def number(self, name):
        return int(self.text(name))

    def hex(self, name):
        return bytes.fromhex(self.text(name))

    def data(self):
        if "text" in self:
            data = "".join(line + "\n" for line in self.lines["text"]).encode()
        else:
            data = bytes.fromhex("".join(self.lines["bytes"]))
        if "pad" in self:
            count, byte = self.text("pad").split()
            data += bytes([int(byte, 16)]) * int(count)
        return data


class OneBlob:
    """A store that has one blob."""

    def __init__(self, name, data):
        self.name, self.data = name, data

    def length(self, _name):
        return len(self.data)

    def read(self, _name, offset=0, length=None, at_most=None):
        if at_most is not None and len(self.data) > at_most:
            raise Damaged(self.name, "it is too long")
        end = len(self.data) if length is None else offset + length
        if end > len(self.data):
            raise Damaged(self.name, "it ends early")
        return self.data[offset:end]


# The parameters where a vector gives none.
CONFIG = SimpleNamespace(min=64, average=256, max=reader.MIB, region_len=64 * reader.MIB, cell_len=reader.MIB)


def repository(vector, name, data):
    """An open repository with that blob."""
    made = reader.Repository.__new__(reader.Repository)
    made.config = SimpleNamespace(**vars(CONFIG), repository_id=vector.hex("repository"))
    made.keys = reader.Keys(vector.hex("root-key"), made.config.repository_id)
    if "retention-key" in vector:
        public = Ed25519PrivateKey.from_private_bytes(vector.hex("retention-key")).public_key()
        made.config.retention_public_key = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    made.blobs, made.headers, made.session_keys = OneBlob(name, data), {}, {}
    return made


def pack_of(name, length):
    """The pack of that name."""
    kind = "data pack" if name.startswith("d/") else "map pack"
    parts = reader.parse_name(kind, name)
    return Pack(1 if kind == "data pack" else 2, parts["writer"].encode(), bytes.fromhex(parts["sid"]),
                int(parts["number"], 16), length)


def read_name(vector):
    name = vector.text("text") if "text" in vector else vector.data().decode("utf-8", "replace")
    if reader.kind_of(name) is None:
        raise Damaged(name, "not a name")


def read_keys(vector):
    keys = reader.Keys(vector.hex("root-key"), vector.hex("repository"))
    found = {"chunk-id-key": keys.chunk_id, "inventory-key": keys.inventory, "data-public-key": keys.data_public_key,
             "map-id-key": keys.map_id, "vm-tag-key": keys.vm_tag, "config-mac-key": keys.config_mac,
             "seal-hash-key": keys.seal_hash}
    if "vm" in vector:
        found["vm-tag"] = reader.keyed(keys.vm_tag, vector.text("vm").encode())[:16]
    if "chunk" in vector:
        found["chunk-id"] = reader.keyed(keys.chunk_id, vector.hex("chunk"))
    if "map" in vector:
        found["map-id"] = reader.keyed(keys.map_id, vector.hex("map"))
    for name, value in found.items():
        if "." + name in vector and vector.hex("." + name) != value:
            raise Damaged(name, "it is another one")


def read_session_key(vector):
    keys, data = reader.Keys(vector.hex("root-key"), vector.hex("repository")), vector.data()
    info = b"keepstone v0 session key" + vector.hex("repository")
    key = reader.hpke_open(keys.data_private_key, keys.data_public_key, data[:32], data[32:], info,
                           vector.hex("session"))
    if key is None or ".session-key" in vector and vector.hex(".session-key") != key:
        raise Damaged("session key", "it does not open, or is another one")


def read_config(vector):
    blob = OneBlob("config", vector.data())
    config = reader.Config(blob.read("config", at_most=reader.CONFIG_LEN_MAX))
    if "root-key" in vector:
        config.check_mac(reader.Keys(vector.hex("root-key"), config.repository_id))


def read_slot(vector):
    name, data = "keys/" + vector.text("slot"), vector.data()
    data = OneBlob(name, data).read(name, at_most=reader.SLOT_LEN_MAX)
    value = reader.json_object(data, name, reader.SLOT_MEMBERS)
    password = vector.hex("password") if "password" in vector else None
    repository_id = bytes.fromhex(value["repository"])
    if password is None:
        reader.check_slot(name, value, repository_id)
    elif reader.open_slot(name, data, repository_id, password) is None:
        raise Damaged(name, "it does not open")


def read_sealed(vector):
    name = vector.text("name")
    kind = reader.kind_of(name)
    object_type = SEALED_TYPES[kind] if kind in SEALED_TYPES else GENERATION_TYPES[name.rsplit("/")[-1]]
    fields = repository(vector, name, b"").open_sealed(vector.data(), name, object_type)
    if ".plaintext" in vector and vector.hex(".plaintext") != fields.data:
        raise Damaged(fields.blob, "its plaintext is another one")


def read_small(vector):
    """An intent, decision, index or signed object: the blob if there is a name, else its content."""
    kind = vector.text("object")
    if "name" not in vector:
        fields = Fields(vector.data(), kind)
        {"intent": reader.parse_intent, "tombstone": reader.parse_tombstone, "pin": reader.parse_pin,
         "replica-marker": reader.parse_marker, "lineage": reader.parse_lineage, "barrier": reader.parse_barrier,
         "repack": reader.parse_record, "condemned": reader.parse_condemned,
         "awaited": reader.parse_awaited, "result": reader.parse_result, "generation-seal": reader.parse_seal,
         "decision": lambda it: reader.parse_decision(it, "", CONFIG),
         "index": lambda it: reader.check_index(it, CONFIG)}[kind](fields)
        return
    name = vector.text("name")
    it = repository(vector, name, vector.data())
    if kind in GENERATION_PARTS:
        if reader.parse_name("generation", name)["part"] != GENERATION_PARTS[kind]:
            raise Damaged(name, "the name is of another kind")
        reader.read_generation(it, name)
        return
    if reader.kind_of(name) != {"repack": "repack record", "replica-marker": "replica marker"}.get(kind, kind):
        raise Damaged(name, "the name is of another kind")
    {"intent": lambda: reader.check_intent(it, name), "decision": lambda: reader.read_decision(it, name),
     "tombstone": lambda: reader.read_tombstone(it, name), "pin": lambda: reader.read_pin(it, name),
     "repack": lambda: reader.read_record(it, name), "lineage": lambda: reader.read_lineage(it, name),
     "barrier": lambda: reader.read_barrier(it, name),
     "replica-marker": lambda: reader.parse_marker(it.sealed_blob(name, reader.REPLICA_MARKER)),
     "index": lambda: reader.check_index(it.sealed_blob(name, reader.INDEX), it.config)}[kind]()


def disk_map(vector, size):
    config = SimpleNamespace(**vars(CONFIG))
    for name in ("min", "average", "max", "region-len", "cell-len"):
        if name in vector:
            setattr(config, name.replace("-", "_"), vector.number(name))
    disk = reader.Disk("disk", size, None)
    made = reader.DiskMap(SimpleNamespace(config=config), disk, None)
    made.reached = None
    return made, config


def read_page(vector):
    made, config = disk_map(vector, vector.number("disk-size"))
    start = vector.number("cell") * config.cell_len
    made.parse_page(Fields(vector.data(), "page"), start, min(made.disk.size, start + config.cell_len))


def read_node(vector):
    name, length = vector.text("pack").split()
    made, _ = disk_map(vector, 1)
    made.parse_node(Fields(vector.data(), "node"), vector.number("level"), vector.number("children"),
                    pack_of(name, int(length)))


def read_levels(vector):
    level, children = reader.root_level(vector.number("size"), vector.number("cell-len"))
    if (level, children) != (vector.number(".root-level"), vector.number(".children")):
        raise Damaged("levels", f"{level} with {children} children")


def read_pack(vector):
    name, data = vector.text("name"), vector.data()
    repository(vector, name, data).check_pack(pack_of(name, len(data)))


def read_payload(vector):
    data, codec, plain_len = vector.data(), vector.number("codec"), vector.number("plain-length")
    fields = Fields(data, "payload")
    reader.check_lengths(fields, codec, len(data) + reader.TAG_LEN, plain_len, reader.NODE_LEN_MAX)
    try:
        payload = reader.zstd_decode(data, plain_len) if codec == 2 else data
    except ValueError as error:
        raise Damaged("payload", error) from None
    if ".payload" in vector and vector.hex(".payload") != payload:
        raise Damaged("payload", "it is another one")


def read_directory(vector):
    pack = Pack(vector.number("pack-kind"), b"host", bytes(16), 0, reader.PACK_LEN_MAX)
    reader.parse_directory(Fields(vector.data(), "directory"), pack, vector.number("directory-offset"), CONFIG)


READ = {
    "name": read_name, "keys": read_keys, "session-key": read_session_key, "config": read_config, "key-slot": read_slot,
    "sealed": read_sealed, "intent": read_small, "decision": read_small, "tombstone": read_small, "index": read_small,
    "repack": read_small, "replica-marker": read_small, "lineage": read_small, "barrier": read_small, "pin": read_small, "condemned": read_small, "awaited": read_small,
    "result": read_small, "generation-seal": read_small,
    "page": read_page, "node": read_node, "levels": read_levels, "pack": read_pack, "payload": read_payload,
    "pack-header": lambda vector: reader.parse_pack_header(Fields(vector.data(), "header")),
    "directory": read_directory,
}


def main():
    agreed, failed = 0, 0
    for path in sorted(VECTORS.glob("*.txt")):
        vector = Vector(path)
        if vector.text("object") in LEFT_OUT or "negative" in vector or "inventory-key" in vector:
            continue
        said = "taken"
        try:
            READ[vector.text("object")](vector)
        except (Damaged, Failed) as error:
            said = str(error)
        if (said == "taken") == (vector.text("expect") == "ok"):
            agreed += 1
        else:
            failed += 1
            print(f"{path.name}: expected {vector.text('expect')}, but: {said}")
    print(f"{agreed} vectors agree, {failed} do not")
    return 1 if failed or not agreed else 0


if __name__ == "__main__":
    sys.exit(main())
