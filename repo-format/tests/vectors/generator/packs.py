"""Section 7: packs."""

from objects import (
    KEYS,
    MIB,
    REPOSITORY,
    Frame,
    directory,
    pack,
    pack_name,
    payload_id,
    session,
)
from primitives import keyed, le
from samples import header_fields
from vectors import KEY_INPUTS, bad, kind, limit, vector

CHUNKS = [
    Frame(1, b"a chunk"),
    Frame(1, bytes(range(200))),
    Frame(1, bytes([7]) * 300, codec=2, encoded=bytes.fromhex("28b52ffd602c00") + le(300 << 3 | 3, 3) + b"\x07"),
]

DATA, MAP = pack_name(1, number=5), pack_name(2, number=6)

PAGES = [Frame(2, b"any page"), Frame(3, b"any node")]


def frame_fields(frames):
    fields, at = {}, 176
    for number, frame in enumerate(frames):
        fields[f"frame.{number}"] = (
            f"{at} {frame.kind} {frame.codec} {frame.plain_len} {frame.stored_len} {frame.identity.hex()}"
        )
        fields[f"frame.{number}.payload"] = frame.payload
        at += frame.stored_len
    return fields


def packs():
    one = [Frame(1, b"x")]
    smallest = pack(1, DATA, one).bytes
    inputs = {**KEY_INPUTS, "name": DATA}
    map_inputs = {**KEY_INPUTS, "name": MAP}
    good = lambda rule, what, comment, body, frames, of=inputs: vector(
        rule, what, "pack", comment, body=body, fields=frame_fields(frames), **of
    )
    fail = lambda rule, what, comment, error, body, of=inputs: vector(rule, what, "pack", comment, error, body, **of)
    good("PACK-1", "smallest", "one frame of one byte: 335 bytes", smallest, one)
    fail("PACK-1", "one-byte-more", "a byte follows the directory", "trailing-bytes", smallest + b"\0")
    fail("PACK-1", "one-byte-less", "the last byte is missing", "truncated", smallest[:-1])
    fail("PACK-1", "header-alone", "the pack ends with its header", "truncated", smallest[:176])
    header = smallest[:176]
    vector(
        "PACK-1",
        "header-of-the-smallest",
        "pack-header",
        "a header opens by itself",
        body=header,
        fields=header_fields(header),
    )
    spoil = lambda what, comment, error, changes: vector(
        "PACK-1", what, "pack-header", comment, error, pack(1, DATA, one, header_changes=changes).bytes[:176]
    )
    room = bad("the frames of a pack do not fit before its directory")
    count = bad("the length of a directory does not fit its count of frames")
    spoil("no-frame", "a pack without a frame", room, {"count": 0, "length": 100})
    spoil("directory-within-the-header", "the directory begins before the header ends", room, {"offset": 175})
    spoil("directory-too-early", "no frame fits before the directory", room, {"offset": 192})
    spoil("count-too-high", "more frames than fit", room, {"count": 0xFFFFFFFF})
    spoil("directory-too-short", "a directory of another length than its frames need", count, {"length": 141})
    spoil("directory-too-long", "a directory of another length than its frames need", count, {"length": 0xFFFF})
    spoil(
        "over-the-limit",
        "a pack of 288 MiB and a byte",
        limit("pack length", 288 * MIB + 1, 288 * MIB),
        {"offset": 288 * MIB + 1 - 142},
    )
    spoil(
        "lengths-overflow",
        "offset and length add up to over 4 GiB",
        limit("pack length", 2 * 0xFFFFFFFF, 288 * MIB),
        {"offset": 0xFFFFFFFF, "length": 0xFFFFFFFF},
    )
    spoil_kind = lambda number: header[:10] + bytes([number]) + header[11:]
    for number in (0, 3):
        vector(
            "PACK-1",
            f"kind-{number}",
            "pack-header",
            "a kind that is not known",
            kind("pack kind", number),
            spoil_kind(number),
        )
    good("GEN-8", "kind-of-its-name", "a map pack under a map pack's name", pack(2, MAP, PAGES), PAGES, map_inputs)
    fail("GEN-8", "map-pack-in-d", "a map pack under a data pack's name", kind("pack kind", 2), pack(2, DATA, PAGES))
    fail(
        "GEN-8",
        "data-pack-in-m",
        "a data pack under a map pack's name",
        kind("pack kind", 1),
        pack(1, MAP, CHUNKS[:1]),
        map_inputs,
    )
    zeros = [Frame(1, bytes(300))]
    good("CHUNK-3", "stored-zeros", "no writer stores this chunk, and a reader may take it", pack(1, DATA, zeros), zeros)
    many = header[:12] + le(176 + 17 * 400_001, 4) + le(100 + 42 * 400_001, 4) + le(400_001, 4) + header[24:]
    vector(
        "GEN-4",
        "frames-over-400000",
        "pack-header",
        "more frames than are written, which a reader may take",
        body=many,
        fields=header_fields(many),
    )
    good("PACK-3", "data-pack", "chunks, raw and compressed", pack(1, DATA, CHUNKS), CHUNKS)
    good("PACK-3", "map-pack", "a page and a node", pack(2, MAP, PAGES), PAGES, map_inputs)
    for what, changes in (
        ("kind", {"kind": 2}),
        ("codec", {"codec": 2}),
        ("offset", {"offset": 177}),
        ("stored-length", {"stored_len": 24}),
        ("plain-length", {"plain_len": 8}),
        ("payload-id", {"identity": bytes(32)}),
        ("repository", {"repository": bytes(16)}),
    ):
        fail(
            "PACK-3",
            f"other-{what}",
            "a frame is bound to another value of that field",
            "bad-tag",
            pack(1, DATA, CHUNKS[:1], aad_changes=changes),
        )
    fail(
        "PACK-3",
        "other-name",
        "a frame is bound to another pack's name",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], aad_name=pack_name(1, number=4)),
    )
    swapped = pack(1, DATA, [Frame(1, b"one"), Frame(1, b"two")]).bytes
    fail(
        "PACK-3",
        "frames-swapped",
        "two frames of one length changed places",
        "bad-tag",
        swapped[:176] + swapped[195:214] + swapped[176:195] + swapped[214:],
    )
    keys_of_packs(good, fail, map_inputs)
    payload_ids(fail, map_inputs)
    directories(good, fail, map_inputs)


def keys_of_packs(good, fail, map_inputs):
    good("PACK-4", "two-frames", "the key hash covers both frames", pack(1, DATA, CHUNKS[:2]), CHUNKS[:2])
    wrong = "wrong-key-hash"
    fail(
        "PACK-4",
        "other-key-hash",
        "a key hash that is not of this content; the rest fits it",
        wrong,
        pack(1, DATA, CHUNKS[:2], key_hash=bytes(range(32))),
    )
    fail(
        "PACK-4",
        "payloads-first",
        "the key hash has the payloads before the associated data",
        wrong,
        pack(1, DATA, CHUNKS[:2], hash_order=lambda aads, payloads: (payloads, aads)),
    )
    fail(
        "PACK-4",
        "without-tags",
        "the key hash has no zeros in the place of tags",
        wrong,
        pack(1, DATA, CHUNKS[:1], hash_order=lambda aads, payloads: (aads, payloads[:-16])),
    )
    fail(
        "PACK-4",
        "of-a-map-pack",
        "a map pack whose key hash is another one",
        wrong,
        pack(2, MAP, PAGES, key_hash=bytes(32)),
        map_inputs,
    )
    good("PACK-5", "map-pack", "the key follows from the inventory key", pack(2, MAP, PAGES[:1]), PAGES[:1], map_inputs)
    fail(
        "PACK-5",
        "inventory-key-in-a-data-pack",
        "a data pack under the inventory key",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], base=KEYS.inventory),
    )
    fail(
        "PACK-5",
        "without-repository",
        "a key derived without the repository id",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], key_material=lambda base, salt, key_hash: base + salt + key_hash),
    )
    fail(
        "PACK-5",
        "without-salt",
        "a key derived without the salt",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], key_material=lambda base, salt, key_hash: base + key_hash + REPOSITORY),
    )
    fail(
        "PACK-5",
        "nonce-zero",
        "a frame under a nonce of zeros",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], nonces=lambda offset: bytes(12)),
    )
    fail(
        "PACK-5",
        "nonce-big-endian",
        "the offset in the nonce is big-endian",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], nonces=lambda offset: offset.to_bytes(4, "big") + bytes(8)),
    )
    fail(
        "PACK-5",
        "session-key-of-another-session",
        "the session key is sealed for another session",
        "bad-tag",
        pack(1, DATA, CHUNKS[:1], sid=session(3)),
    )
    fail(
        "PACK-5",
        "flipped-tag",
        "a bit of a frame's tag is flipped",
        "bad-tag",
        flip(pack(1, DATA, CHUNKS[:1]).bytes, 176 + 22),
    )
    fail(
        "PACK-5",
        "flipped-ciphertext",
        "a bit of a frame is flipped",
        "bad-tag",
        flip(pack(1, DATA, CHUNKS[:1]).bytes, 176),
    )


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def payload_ids(fail, map_inputs):
    page_frame = [Frame(2, b"any page")]
    vector(
        "PACK-6",
        "ids-of-pages-and-nodes",
        "pack",
        "pages and nodes have ids by the map-id key",
        body=pack(2, MAP, PAGES),
        fields=frame_fields(PAGES),
        **map_inputs,
    )
    fail(
        "PACK-6",
        "other-chunk",
        "an authentic frame with the id of another chunk",
        "wrong-id",
        pack(1, DATA, [Frame(1, b"a chunk", identity=keyed(KEYS.chunk_id, b"b chunk"))]),
    )
    fail(
        "PACK-6",
        "map-id-of-a-chunk",
        "a chunk's id is made with the map-id key",
        "wrong-id",
        pack(1, DATA, [Frame(1, b"a chunk", identity=keyed(KEYS.map_id, b"a chunk"))]),
    )
    fail(
        "PACK-6",
        "chunk-id-of-a-page",
        "a page's id is made with the chunk-id key",
        "wrong-id",
        pack(2, MAP, [Frame(2, b"any page", identity=keyed(KEYS.chunk_id, b"any page"))]),
        map_inputs,
    )
    short = Frame(1, bytes(299), codec=2, encoded=CHUNKS[2].encoded)
    long = Frame(1, bytes(301), codec=2, encoded=CHUNKS[2].encoded)
    fail(
        "PACK-6",
        "longer-than-the-plain-length",
        "an authentic frame that decodes to a byte more",
        "bad-zstd",
        pack(1, DATA, [short]),
    )
    fail(
        "PACK-6",
        "shorter-than-the-plain-length",
        "an authentic frame that decodes to a byte less",
        "bad-zstd",
        pack(1, DATA, [long]),
    )
    vector(
        "PACK-7",
        "chunks",
        "directory",
        "chunks in a data pack",
        body=directory(CHUNKS[:1]),
        pack_kind=1,
        directory_offset=176 + 23,
        fields={"frame.0": frame_fields(CHUNKS[:1])["frame.0"]},
    )
    for what, number, frame, found in (
        ("page-in-a-data-pack", 1, page_frame[0], 2),
        ("node-in-a-data-pack", 1, PAGES[1], 3),
        ("chunk-in-a-map-pack", 2, CHUNKS[0], 1),
    ):
        vector(
            "PACK-7",
            what,
            "directory",
            "a payload in a pack of the wrong kind",
            kind("frame kind", found),
            directory([frame]),
            pack_kind=number,
            directory_offset=176 + frame.stored_len,
        )
    fail(
        "PACK-7",
        "authentic-page-in-a-data-pack",
        "a whole pack with a page in it",
        kind("frame kind", 2),
        pack(1, DATA, page_frame),
    )


def directories(good, fail, map_inputs):
    good("PACK-8", "three-frames", "frames follow each other up to the directory", pack(1, DATA, CHUNKS), CHUNKS)
    misplaced = bad("the frames of a pack do not end where its directory begins")
    misfit = bad("the lengths of a frame do not fit its codec")
    end = 176 + sum(frame.stored_len for frame in CHUNKS)
    spoil = lambda what, comment, error, raw, offset=end, pack_kind=1: vector(
        "PACK-8", what, "directory", comment, error, raw, pack_kind=pack_kind, directory_offset=offset
    )
    spoil("frames-end-too-early", "a gap before the directory", misplaced, directory(CHUNKS), end + 1)
    spoil("frames-end-too-late", "the last frame reaches into the directory", misplaced, directory(CHUNKS), end - 1)
    spoil("no-frame", "a directory of no frames", misplaced, directory([]), 176)
    spoil(
        "kind-0",
        "a kind that is not known",
        kind("frame kind", 0),
        directory([Frame(0, b"x", identity=payload_id(1))]),
        193,
    )
    spoil(
        "kind-4",
        "a kind that is not known",
        kind("frame kind", 4),
        directory([Frame(4, b"x", identity=payload_id(1))]),
        193,
    )
    spoil("codec-0", "a codec that is not known", kind("codec", 0), directory([Frame(1, b"x", codec=0)]), 193)
    spoil("codec-3", "a codec that is not known", kind("codec", 3), directory([Frame(1, b"x", codec=3)]), 193)
    spoil(
        "raw-misfit",
        "a raw payload whose stored length is not 16 more",
        misfit,
        directory([Frame(1, b"xy", encoded=b"x")]),
        193,
    )
    spoil("zstd-not-shorter", "a zstd frame as long as its payload", misfit, directory([Frame(1, b"x", codec=2)]), 193)
    spoil(
        "nothing-stored",
        "a stored length of a tag alone",
        misfit,
        directory([Frame(1, b"x", codec=2, encoded=b"")]),
        192,
    )
    less_than_a_tag = Frame(1, b"x")
    less_than_a_tag.stored_len = 3
    spoil("less-than-a-tag", "a stored length shorter than a tag", misfit, directory([less_than_a_tag]), 179)
    spoil("empty-payload", "a payload of no bytes", misfit, directory([Frame(1, b"")]), 192)
    for what, number, limit_len, pack_kind in (("chunk", 1, MIB, 1), ("page", 2, 8 * MIB, 2), ("node", 3, 32 * MIB, 2)):
        frame = Frame(number, b"", codec=2, encoded=b"x", identity=payload_id(1))
        frame.plain_len = limit_len + 1
        spoil(
            f"{what}-over-the-limit",
            "a byte longer than any config allows",
            limit("plain length", limit_len + 1, limit_len),
            directory([frame]),
            193,
            pack_kind,
        )
    two = [Frame(1, b"x"), Frame(1, b"y")]
    shorter = pack(1, DATA, two, directory_raw=directory(two[:1]), header_changes={"length": 96 + 4 + 42 * 2})
    fail("PACK-8", "directory-of-fewer-frames", "the directory is shorter than the header says", "truncated", shorter)
    padded = pack(1, DATA, two, directory_raw=directory(two[:1]).put(bytes(42)))
    fail(
        "PACK-8",
        "directory-that-counts-fewer-frames",
        "an authentic directory of the right length that counts one frame of two",
        bad("the frames of a pack do not end where its directory begins"),
        padded,
    )
