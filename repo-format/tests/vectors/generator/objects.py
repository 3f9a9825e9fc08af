"""The objects of SPEC.md, field by field. Parameters are there to be spoilt: nothing is checked here."""

import json

from primitives import aes_gcm_seal, argon2id, derive, ed25519_public, ed25519_sign, hpke_seal, keyed, le, x25519


class Raw:
    """Bytes under construction, with a note for each field."""

    def __init__(self):
        self.pieces = []

    def put(self, data, note=""):
        self.pieces.append((bytes(data), note))
        return self

    def add(self, other):
        self.pieces += other.pieces
        return self

    def number(self, value, length, note):
        return self.put(le(value, length), f"{note}: {value}" if note else "")

    def u8(self, value, note=""):
        return self.number(value, 1, note)

    def u16(self, value, note=""):
        return self.number(value, 2, note)

    def u32(self, value, note=""):
        return self.number(value, 4, note)

    def u64(self, value, note=""):
        return self.number(value, 8, note)

    def text(self, length_bytes, text, note):
        data = text.encode() if isinstance(text, str) else text
        return self.put(le(len(data), length_bytes) + data, f"{note}: {text}" if note else "")

    def str8(self, text, note=""):
        return self.text(1, text, note)

    def str16(self, text, note=""):
        return self.text(2, text, note)

    @property
    def bytes(self):
        return b"".join(data for data, _ in self.pieces)


# --- What all vectors share ---

ROOT_KEY = bytes(range(32))
RETENTION_KEY = bytes(range(0x40, 0x60))
REPOSITORY = bytes(range(0x10, 0x20))
WRITER = "host-1"
VM = "db-1"
KIB, MIB = 1 << 10, 1 << 20
TIME = 1_700_000_000_000


def session(number):
    """A session id that shows the order of its bytes; `number` decides how ids are sorted."""
    return bytes([number]) + bytes(range(0xA1, 0xB0))


def payload_id(number):
    return bytes([number]) + bytes(range(0xC1, 0xE0))


class Keys:
    """SPEC section 3."""

    def __init__(self, root=ROOT_KEY, repository=REPOSITORY, material=None):
        material = root + repository if material is None else material
        self.repository = repository
        self.chunk_id = derive("keepstone v0 chunk id", material)
        self.inventory = derive("keepstone v0 inventory", material)
        self.data_private = derive("keepstone v0 data private key", material)
        self.data_public = x25519(self.data_private)
        self.chunker_seed = int.from_bytes(derive("keepstone v0 chunker seed", self.chunk_id)[:8], "little")
        self.map_id = derive("keepstone v0 map id", self.inventory)
        self.vm_tag_key = derive("keepstone v0 vm tag", self.inventory)
        self.config_mac = derive("keepstone v0 config mac", self.inventory)
        self.seal_hash = derive("keepstone v0 seal hash", self.inventory)

    def vm_tag(self, vm=VM):
        return keyed(self.vm_tag_key, vm.encode())[:16]


KEYS = Keys()
RETENTION_PUBLIC = ed25519_public(RETENTION_KEY)


# --- Names (section 2) ---


def pack_name(kind=1, writer=WRITER, sid=session(2), number=0):
    return f"{'dm'[kind - 1]}/{writer}/{sid.hex()}-{number:08x}"


def decision_name(sid=session(2), vm_tag=None, writer=WRITER, seq=3):
    vm_tag = KEYS.vm_tag() if vm_tag is None else vm_tag
    return f"r/{vm_tag.hex()}/{writer}/{seq:08x}-{sid.hex()}"


def raw_decision_name(sid=session(2), vm_tag=None, writer=WRITER, seq=3, note="decision name"):
    vm_tag = KEYS.vm_tag() if vm_tag is None else vm_tag
    raw = Raw().put(vm_tag, f"{note}: VM tag").str8(writer, "  writer").u32(seq, "  seq")
    return raw.put(sid, "  session id")


# --- Session keys, config, key slots (sections 3 to 5) ---

SESSION_KEY = bytes(range(0x60, 0x80))
EPHEMERAL = bytes(range(0x80, 0xA0))


def seal_session_key(sid=session(2), repository=REPOSITORY, info=b"keepstone v0 session key", public=None):
    public = KEYS.data_public if public is None else public
    encapsulated, ciphertext = hpke_seal(EPHEMERAL, public, info + repository, sid, SESSION_KEY)
    return encapsulated + ciphertext


GEOMETRY = {"min": 64, "average": 256, "max": 1024, "regionLen": 8192, "cellLen": 4096, "packLen": 65536}


def config_values(**changes):
    values = {
        "keepstone": "repository",
        "format": 0,
        "id": REPOSITORY.hex(),
        "created": TIME,
        "chunker": {"name": "fastcdc-2020", **{key: GEOMETRY[key] for key in ("min", "average", "max")}},
        **{key: GEOMETRY[key] for key in ("regionLen", "cellLen", "packLen")},
        "dataPublicKey": KEYS.data_public.hex(),
        "retentionPublicKey": RETENTION_PUBLIC.hex(),
    }
    for key, value in changes.items():
        (values["chunker"] if key in ("name", "min", "average", "max") else values)[key] = value
    values["mac"] = config_mac(values).hex()
    return values


def config_body(values):
    """CONF-3."""
    chunker = values["chunker"]
    raw = Raw().put(b"keepstone config", '"keepstone config"').u32(values["format"], "format")
    raw.put(bytes.fromhex(values["id"]), "repository id").u64(values["created"], "created")
    raw.str8(chunker["name"], "chunker name")
    for key in ("min", "average", "max"):
        raw.u32(chunker[key], key)
    for key in ("regionLen", "cellLen", "packLen"):
        raw.u32(values[key], key)
    raw.put(bytes.fromhex(values["dataPublicKey"]), "data public key")
    return raw.put(bytes.fromhex(values["retentionPublicKey"]), "retention public key")


def config_mac(values):
    return keyed(KEYS.config_mac, config_body(values).bytes)


def as_json(values):
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


PASSWORD = "correct horse"


def slot_values(name="ops", password=PASSWORD, root=ROOT_KEY, nonce=bytes(12), secret=None, **changes):
    """`secret` stands for the key derivation where vectors do not open the slot."""
    kdf = {"name": "argon2id", "memoryKiB": 32, "passes": 2, "lanes": 2, "salt": bytes(range(0xE0, 0x100)).hex()}
    values = {
        "keepstone": "key",
        "format": 0,
        "repository": REPOSITORY.hex(),
        "kind": "root",
        "label": "Operators",
        "created": TIME,
        "kdf": kdf,
    }
    for key, value in changes.items():
        (kdf if key in ("memoryKiB", "passes", "lanes", "salt") else values)[key] = value
    if secret is None:
        salt = bytes.fromhex(kdf["salt"])
        password = password.encode() if isinstance(password, str) else password
        secret = argon2id(password, salt, kdf["memoryKiB"], kdf["passes"], kdf["lanes"])
    values["sealed"] = aes_gcm_seal(secret, nonce, slot_aad(name, values).bytes, root).hex()
    return values


def slot_aad(name, values):
    """SLOT-3."""
    kdf = values["kdf"]
    raw = Raw().put(b"keepstone key slot", '"keepstone key slot"').u32(values["format"], "format")
    raw.put(bytes.fromhex(values["repository"]), "repository id").str8(name, "slot name")
    raw.str8(values["kind"], "kind").str8(values["label"], "label").u64(values["created"], "created")
    for key in ("memoryKiB", "passes", "lanes"):
        raw.u32(kdf[key] & 0xFFFFFFFF, key)
    return raw.put(bytes.fromhex(kdf["salt"]), "salt")


# --- Sealed objects (section 6) ---

KINDS = "intent decision index tombstone condemned result generation-seal repack directory pin awaited".split()
KINDS += "replica-marker lineage barrier".split()
SALT = bytes(range(0x20, 0x40))


def sealed(
    kind,
    name,
    plaintext,
    *,
    magic=b"KEEPSEAL",
    version=0,
    type_number=None,
    flags=0,
    length=None,
    salt=SALT,
    key_hash=None,
    repository=REPOSITORY,
    keys=KEYS,
    nonce=bytes(12),
    aad_name=None,
    hash_name=None,
    key_material=None,
):
    """A sealed object as Raw."""
    type_number = KINDS.index(kind) + 1 if type_number is None else type_number
    raw = Raw().put(magic, f'magic "{magic.decode()}"').u16(version, "format version")
    raw.u8(type_number, f"type ({kind})").u8(flags, "flags")
    raw.u32(len(plaintext) if length is None else length, "plaintext length").put(salt, "salt")
    place = lambda text: repository + Raw().str16(text).bytes
    if key_hash is None:
        key_hash = keyed(keys.seal_hash, raw.bytes + place(hash_name or name) + plaintext)
    raw.put(key_hash, "key hash")
    key = derive("keepstone v0 seal key", keys.inventory + salt + key_hash if key_material is None else key_material)
    ciphertext = aes_gcm_seal(key, nonce, raw.bytes + place(aad_name or name), plaintext)
    return raw.put(ciphertext[:-16], "ciphertext").put(ciphertext[-16:], "tag")


def signature(kind, name, content, *, key=RETENTION_KEY, repository=REPOSITORY, context=None):
    content = Raw().put(content)
    return ed25519_sign(key, signature_message(kind, name, content, repository=repository, context=context).bytes)


def signature_message(kind, name, content, *, repository=REPOSITORY, context=None):
    """SIG-1; `content` is Raw."""
    context = b"keepstone v0 retention signature" if context is None else context
    raw = Raw().put(context, f'"{context.decode()}"').u8(KINDS.index(kind) + 1, f"type ({kind})")
    return raw.put(repository, "repository id").str16(name, "name").add(content)


def signed(kind, name, content, **changes):
    """A sealed object with the retention's signature behind its content."""
    return sealed(kind, name, content + signature(kind, name, content, **changes))


# --- Packs (section 7) ---


class Frame:
    def __init__(self, kind, payload, *, codec=1, encoded=None, identity=None):
        self.kind, self.codec, self.payload = kind, codec, payload
        self.encoded = payload if encoded is None else encoded
        self.identity = keyed(KEYS.chunk_id if kind == 1 else KEYS.map_id, payload) if identity is None else identity
        self.plain_len, self.stored_len = len(payload), len(self.encoded) + 16


def fixed_aad(frame, at, repository=REPOSITORY, **changes):
    """PACK-3."""
    value = lambda key, usual: changes.get(key, usual)
    raw = Raw().u8(value("kind", frame.kind)).u8(value("codec", frame.codec)).u16(0).u32(value("offset", at))
    raw.u32(value("stored_len", frame.stored_len)).u32(value("plain_len", frame.plain_len))
    return raw.put(repository).put(value("identity", frame.identity)).bytes


def directory(frames, count=None):
    raw = Raw().u32(len(frames) if count is None else count, "frame count")
    for frame in frames:
        raw.u8(frame.kind, "kind").u8(frame.codec, "  codec").u32(frame.plain_len, "  plain length")
        raw.u32(frame.stored_len, "  stored length").put(frame.identity, "  payload id")
    return raw


def pack(
    kind,
    name,
    frames,
    *,
    sid=session(2),
    session_key=None,
    key_hash=None,
    base=None,
    aad_changes=None,
    aad_name=None,
    key_material=None,
    nonces=None,
    directory_raw=None,
    header_changes=None,
    hash_order=None,
):
    """A pack as Raw."""
    body_len = sum(frame.stored_len for frame in frames)
    plain_directory = directory(frames) if directory_raw is None else directory_raw
    changes = header_changes or {}
    salt = SALT
    head = Raw().put(b"KEEPPACK", 'magic "KEEPPACK"').u16(0, "format version").u8(kind, "kind").u8(0, "flags")
    head.u32(changes.get("offset", 176 + body_len), "directory offset")
    head.u32(changes.get("length", 96 + len(plain_directory.bytes)), "directory length")
    head.u32(changes.get("count", len(frames)), "frame count").put(bytes(8), "reserved").put(salt, "salt")
    if base is None:
        base = SESSION_KEY if kind == 1 else KEYS.inventory
    offsets, at = [], 176
    for frame in frames:
        offsets.append(at)
        at += frame.stored_len
    if key_hash is None:
        hashed = head.bytes + REPOSITORY + Raw().str16(name).bytes
        aads = b"".join(fixed_aad(frame, offset) for frame, offset in zip(frames, offsets))
        payloads = b"".join(frame.encoded + bytes(16) for frame in frames)
        parts = (aads, payloads) if hash_order is None else hash_order(aads, payloads)
        key_hash = keyed(derive("keepstone v0 pack hash", base), hashed + b"".join(parts))
    head.put(key_hash, "key hash")
    material = base + salt + key_hash + REPOSITORY if key_material is None else key_material(base, salt, key_hash)
    key = derive("keepstone v0 pack key", material)
    sealed_key = bytes(80) if kind == 2 else seal_session_key(sid) if session_key is None else session_key
    head.put(sealed_key[:32], "HPKE encapsulated key").put(sealed_key[32:], "HPKE ciphertext")
    for number, (frame, offset) in enumerate(zip(frames, offsets)):
        nonce = le(offset, 4) + bytes(8) if nonces is None else nonces(offset)
        aad = fixed_aad(frame, offset, **(aad_changes or {})) + (aad_name or name).encode()
        ciphertext = aes_gcm_seal(key, nonce, aad, frame.encoded)
        head.put(ciphertext[:-16], f"frame {number}: ciphertext").put(ciphertext[-16:], "  tag")
    return head.add(sealed("directory", name, plain_directory.bytes, salt=bytes(range(0x30, 0x50))))


# --- Tables, pages, nodes (sections 8.2 to 8.4) ---


def entry(kind=1, writer=WRITER, sid=session(2), number=0, length=MIB):
    """A pack in a table."""
    return kind, writer, sid, number, length


def group(kind, writer, sid, packs):
    raw = Raw().u8(kind, "  pack kind").str8(writer, "  writer").put(sid, "  session id").u32(len(packs), "  count")
    for number, length in packs:
        raw.u32(number, "    pack number").u32(length, "    blob length")
    return raw


def table(*packs):
    """The table of packs that are sorted already; neighbours of one session are a group."""
    groups = []
    for kind, writer, sid, number, length in packs:
        if groups and groups[-1][:3] == (kind, writer, sid):
            groups[-1][3].append((number, length))
        else:
            groups.append((kind, writer, sid, [(number, length)]))
    raw = Raw().u32(len(groups), "pack table: group count")
    for one in groups:
        raw.add(group(*one))
    return raw


def pack_text(pack_entry):
    kind, writer, sid, number, length = pack_entry
    return f"{pack_name(kind, writer, sid, number)} {length}"


def location(number=0, offset=176, stored_len=1016, plain_len=1000, identity=payload_id(3)):
    raw = Raw().u32(number, "  entry number").u32(offset, "  offset").u32(stored_len, "  stored length")
    return raw.u32(plain_len, "  plain length").put(identity, "  payload id")


def chunk(plain_len, codec=1, stored_len=None, note="entry: codec", **place):
    stored_len = plain_len + 16 if stored_len is None else stored_len
    return Raw().u8(codec, note).add(location(stored_len=stored_len, plain_len=plain_len, **place))


def hole(length):
    return Raw().u8(0, "entry: hole").u32(length, "  length")


def page(table_raw, *entries, first=0, count=None):
    raw = Raw().u32(first, "first").add(table_raw).u32(len(entries) if count is None else count, "entry count")
    for one in entries:
        raw.add(one)
    return raw


def child(codec=1, names=(), names_count=None, level=1, **place):
    raw = Raw().u8(codec, "child: codec").add(location(**place))
    if level <= 2:
        raw.u32(len(names) if names_count is None else names_count, "  count of names")
        for name in names:
            raw.u32(name, "    entry number")
    return raw


HOLE_CHILD = Raw().u8(0, "child: hole")


def node(level, table_raw, *children, count=None):
    raw = Raw().u8(level, "level").add(table_raw).u8(len(children) if count is None else count, "child count")
    for one in children:
        raw.add(one)
    return raw


# --- Index, intent, decision, tombstone, generations, repack record (sections 9 and 10) ---


def index(sessions, table_raw, entries, session_count=None, entry_count=None):
    """`sessions` are pairs of a session id and a raw decision name, `entries` tuples as in SPEC."""
    raw = Raw().u32(len(sessions) if session_count is None else session_count, "session count")
    for sid, name in sessions:
        raw.put(sid, "session id").add(name)
    raw.add(table_raw).u32(len(entries) if entry_count is None else entry_count, "entry count")
    for identity, codec, number, offset, stored_len, plain_len in entries:
        raw.put(identity, "entry: payload id").u8(codec, "  codec").u32(number, "  entry number")
        raw.u32(offset, "  offset").u32(stored_len, "  stored length").u32(plain_len, "  plain length")
    return raw


def intent(sid=session(2), name=None, generation=0x01020304, time=TIME):
    raw = Raw().put(sid, "session id").add(raw_decision_name() if name is None else name)
    return raw.u32(generation, "generation seen").u64(time, "time")


def tombstone(sid=session(2), name=None, time=TIME):
    return Raw().put(sid, "session id").u64(time, "time").add(raw_decision_name() if name is None else name)


def sessions(ids, note="session id", count=None):
    raw = Raw().u32(len(ids) if count is None else count, "count")
    for sid in ids:
        raw.put(sid, note)
    return raw


CONDEMNED_HASH = bytes(range(0xC0, 0xE0))


def awaited(waits, count=None):
    """`waits` are pairs of a session and a writer."""
    raw = Raw().put(CONDEMNED_HASH, "hash of `condemned`")
    raw.u32(len(waits) if count is None else count, "count")
    for sid, writer in waits:
        raw.put(sid, "session id").str8(writer, "  writer")
    return raw


def pin(sid=session(2), name=None, time=TIME, pinned=1, reason="before the upgrade"):
    raw = Raw().put(sid, "session id").add(raw_decision_name() if name is None else name)
    return raw.u64(time, "time").u8(pinned, "pinned").str8(reason, "reason")


PLACE = "azblob://backups/vms"


def marker(time=TIME, source=PLACE):
    return Raw().u64(time, "time").str16(source, "source")


LINEAGE_ID = bytes(range(0xE0, 0xF0))


def lineage(set_aside, number=2, step=1, first=3, count=None):
    """`set_aside` are decision names as Raw."""
    raw = Raw().u32(number, "number").put(LINEAGE_ID, "lineage id").u64(TIME, "time").u8(step, "what")
    raw.u32(first, "first generation").u32(len(set_aside) if count is None else count, "set aside")
    for name in set_aside:
        raw.add(name)
    return raw


def barrier(what, replica="west", number=4, time=TIME):
    """What all facts about a replica begin with."""
    return Raw().str8(replica, "replica").u32(number, "number").u64(time, "time").u8(what, "what")


def registered(place=PLACE, **begin):
    return barrier(1, **begin).str16(place, "place")


def confirmed(sessions, count=None, **begin):
    """`sessions` are pairs of a session and a writer."""
    raw = barrier(3, **begin).u32(len(sessions) if count is None else count, "count")
    for sid, writer in sessions:
        raw.put(sid, "session id").str8(writer, "  writer")
    return raw


def repacked(sid=session(2), time=TIME, program="keepstone 0.1.0"):
    return Raw().u8(3, "verdict").put(sid, "session id").u64(time, "time").str8(program, "program")


def abort(verdict=2, sid=session(2), time=TIME, program="keepstone 0.1.0", by=1):
    raw = Raw().u8(verdict, "verdict").put(sid, "session id").u64(time, "time").str8(program, "program")
    return raw.u8(by, "by") if by is not None else raw


ROOT_PLACE = {
    "writer": WRITER,
    "sid": session(2),
    "number": 0,
    "length": MIB,
    "offset": 176,
    "stored_len": 216,
    "plain_len": 200,
    "identity": payload_id(3),
}


def disk(key="disk0", size=512, change_id=None, mode=1, changed=1, read=2, codec=0, has_change_id=None, **place):
    raw = Raw().str8(key, "disk: key").u64(size, "  size")
    raw.u8(int(change_id is not None) if has_change_id is None else has_change_id, "  has change id")
    if change_id is not None:
        raw.str16(change_id, "  change id")
    raw.u8(mode, "  mode").u64(changed, "  changed bytes").u64(read, "  read bytes").u8(
        codec, "  codec of the root node"
    )
    if codec != 0:
        at = {**ROOT_PLACE, **place}
        raw.str8(at["writer"], "  writer").put(at["sid"], "  session id").u32(at["number"], "  pack number")
        raw.u32(at["length"], "  blob length").u32(at["offset"], "  offset").u32(at["stored_len"], "  stored length")
        raw.u32(at["plain_len"], "  plain length").put(at["identity"], "  payload id")
    return raw


def commit(
    sid=session(2),
    time=TIME,
    program="keepstone 0.1.0",
    vm=VM,
    parent=None,
    has_parent=None,
    via=(),
    tags=(),
    properties=(),
    disks=None,
    via_count=None,
    tag_count=None,
    property_count=None,
    disk_count=None,
    totals=(1, 2, 3, 4, 5),
    packs=(6, 7),
):
    raw = Raw().u8(1, "verdict").put(sid, "session id").u64(time, "time").str8(program, "program").str8(vm, "vm")
    raw.u8(int(parent is not None) if has_parent is None else has_parent, "has parent")
    if parent is not None:
        raw.add(parent)
    raw.add(sessions(via, "via", via_count)).u16(len(tags) if tag_count is None else tag_count, "tag count")
    for tag in tags:
        raw.str8(tag, "tag")
    raw.u16(len(properties) if property_count is None else property_count, "property count")
    for key, value in properties:
        raw.str8(key, "key").str16(value, "value")
    disks = (disk(),) if disks is None else disks
    raw.u16(len(disks) if disk_count is None else disk_count, "disk count")
    for one in disks:
        raw.add(one)
    names = ("chunks", "new chunks", "new bytes", "stored bytes", "metadata bytes")
    for name, value in zip(names, totals):
        raw.u64(value, name)
    for name, value in zip(("data packs", "map packs"), packs):
        raw.u32(value, name)
    return raw


def gc_result(delete, rescued, covers=1, earlier=None):
    raw = Raw().add(delete).add(rescued).u32(covers, "covers")
    return raw.add(table() if earlier is None else earlier)


def repack(applies_to, table_raw, leads, sid=session(2), name=None, applies_count=None, lead_count=None):
    """`leads` are pairs of an old entry number and a list of new ones."""
    raw = Raw().put(sid, "session id").add(raw_decision_name() if name is None else name)
    raw.add(sessions(applies_to, "applies to", applies_count)).add(table_raw)
    raw.u32(len(leads) if lead_count is None else lead_count, "lead count")
    for old, new in leads:
        raw.u32(old, "lead: old entry number").u32(len(new), "  count")
        for number in new:
            raw.u32(number, "    new entry number")
    return raw
