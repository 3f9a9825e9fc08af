"""Section 7: encoded payloads."""

from primitives import le
from vectors import bad, vector

RLE = b"\x07"


def zstd(descriptor, *fields, block=None, payload=300):
    """A zstd frame (RFC 8878) with one RLE block of `payload` bytes."""
    block = le(payload << 3 | 3, 3) + RLE if block is None else block
    return bytes.fromhex("28b52ffd") + bytes([descriptor]) + b"".join(fields) + block


def codecs():
    size2, size4, size8 = le(300 - 256, 2), le(300, 4), le(300, 8)
    good = lambda what, comment, codec, encoded, payload: vector(
        "PACK-2",
        what,
        "payload",
        comment,
        body=encoded,
        codec=codec,
        plain_length=len(payload),
        fields={"payload": payload},
    )
    fail = lambda what, comment, encoded, error="bad-zstd", codec=2, plain_length=300: vector(
        "PACK-2", what, "payload", comment, error, encoded, codec=codec, plain_length=plain_length
    )
    run = RLE * 300
    good("raw", "the payload itself", 1, b"payload", b"payload")
    good("zstd-size-of-2-bytes", "a single segment", 2, zstd(0x60, size2), run)
    good(
        "zstd-size-of-1-byte",
        "a single segment with a short content size",
        2,
        zstd(0x20, bytes([200]), payload=200),
        RLE * 200,
    )
    good("zstd-size-of-4-bytes", "a single segment", 2, zstd(0xA0, size4), run)
    good("zstd-size-of-8-bytes", "a single segment", 2, zstd(0xE0, size8), run)
    good("zstd-unused-bit", "the bit that RFC 8878 leaves unused is set", 2, zstd(0x70, size2), run)
    fail("zstd-reserved-bit", "the bit that RFC 8878 reserves is set", zstd(0x68, size2))
    good("zstd-window-of-1-kib", "the smallest window", 2, zstd(0x40, b"\x00", size2), run)
    good("zstd-window-of-8-mib", "the largest window", 2, zstd(0x80, b"\x68", size4), run)
    good(
        "zstd-raw-block",
        "a block that is not compressed, and a run",
        2,
        zstd(0x60, size2, block=le(5 << 3, 3) + b"hello" + le(295 << 3 | 3, 3) + RLE),
        b"hello" + RLE * 295,
    )
    checksum = bytes.fromhex(xxh64_of(run))
    good("zstd-checksum", "a frame with its checksum", 2, zstd(0x64, size2) + checksum, run)
    fail(
        "zstd-wrong-checksum",
        "a checksum that is not the content's",
        zstd(0x64, size2) + bytes([checksum[0] ^ 1]) + checksum[1:],
    )
    fail(
        "zstd-content-shorter",
        "the content size is a byte less than the plain length",
        zstd(0x60, le(43, 2), payload=299),
    )
    fail(
        "zstd-content-longer",
        "the content size is a byte more than the plain length",
        zstd(0x60, le(45, 2), payload=301),
    )
    fail("zstd-size-lies-low", "the block has more bytes than the content size says", zstd(0x60, size2, payload=301))
    fail("zstd-size-lies-high", "the block has fewer bytes than the content size says", zstd(0x60, size2, payload=299))
    fail("zstd-size-huge", "a content size of 2^64-1", zstd(0xE0, b"\xff" * 8))
    fail("zstd-no-size", "no content size", zstd(0x00, b"\x50"))
    fail("zstd-dictionary", "a dictionary is asked for", zstd(0xA1, b"\x01", size4))
    fail("zstd-dictionary-0", "the place of a dictionary's id is there, and the id is 0", zstd(0xA1, b"\x00", size4))
    fail("zstd-window-over-8-mib", "a window of 9 MiB", zstd(0x80, b"\x69", size4))
    fail("zstd-window-huge", "the largest window that can be declared", zstd(0x80, b"\xff", size4))
    fail("zstd-two-frames", "a second frame follows", zstd(0x60, size2) * 2)
    fail(
        "zstd-skippable-frame-first",
        "a skippable frame stands first",
        bytes.fromhex("502a4d1800000000") + zstd(0x60, size2),
    )
    fail(
        "zstd-skippable-frame-last",
        "a skippable frame stands last",
        zstd(0x60, size2) + bytes.fromhex("502a4d1800000000"),
    )
    fail("zstd-one-byte-more", "a byte follows", zstd(0x60, size2) + b"\0")
    fail("zstd-one-byte-less", "the last byte is missing", zstd(0x60, size2)[:-1])
    fail("zstd-nothing", "no bytes at all", b"")
    fail("zstd-magic-alone", "a frame that ends with its magic", bytes.fromhex("28b52ffd"))
    fail("zstd-reserved-block", "a block of the reserved type", zstd(0x60, size2, block=le(300 << 3 | 7, 3) + RLE))
    fail("zstd-old-magic", "the magic of an old version of zstd", b"\x27" + zstd(0x60, size2)[1:])
    fail(
        "zstd-not-shorter",
        "a frame that is as long as the payload",
        zstd(0x20, bytes([13]), block=le(4 << 3 | 1, 3) + b"abcd"),
        plain_length=13,
    )
    misfit = bad("a raw payload does not have its plain length")
    fail("raw-shorter", "a byte less than the plain length", b"payloa", misfit, 1, 7)
    fail("raw-longer", "a byte more than the plain length", b"payload!", misfit, 1, 7)


def xxh64_of(run):
    """The low 4 bytes of XXH64 with seed 0 (RFC 8878, 3.1.1), little-endian, in hexadecimal."""
    p1, p2, p3, p4, p5 = (
        11400714785074694791,
        14029467366897019727,
        1609587929392839161,
        9650029242287828579,
        2870177450012600261,
    )
    mask = 2**64 - 1
    left = lambda value, bits: (value << bits | value >> (64 - bits)) & mask
    step = lambda total, lane: left((total + lane * p2) & mask, 31) * p1 & mask
    word = lambda at, length: int.from_bytes(run[at : at + length], "little")
    v, at = [(p1 + p2) & mask, p2, 0, -p1 & mask], 0
    while at + 32 <= len(run):
        v = [step(total, word(at + 8 * n, 8)) for n, total in enumerate(v)]
        at += 32
    total = sum(left(value, bits) for value, bits in zip(v, (1, 7, 12, 18))) & mask
    for value in v:
        total = ((total ^ step(0, value)) * p1 + p4) & mask
    total = (total + len(run)) & mask
    while at + 8 <= len(run):
        total = (left(total ^ step(0, word(at, 8)), 27) * p1 + p4) & mask
        at += 8
    if at + 4 <= len(run):
        total = (left(total ^ word(at, 4) * p1 & mask, 23) * p2 + p3) & mask
        at += 4
    for byte in run[at:]:
        total = left(total ^ byte * p5 & mask, 11) * p1 & mask
    total = (total ^ total >> 33) * p2 & mask
    total = (total ^ total >> 29) * p3 & mask
    return le((total ^ total >> 32) & 0xFFFFFFFF, 4).hex()
