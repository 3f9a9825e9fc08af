"""Section 8.1: FastCDC with the two-byte rolling of its 2020 paper, MinCDC, and holes."""

import hashlib
import math

from objects import KEYS, MIB, chunk, commit, disk, hole, page
from primitives import MASK64, blake3
from samples import PAGE_INPUTS, TABLE_ONE
from vectors import bad, numbered, vector

GEAR = [int.from_bytes(hashlib.md5(bytes([byte]) * 64).digest()[:8], "big") for byte in range(256)]

MASKS = {
    7: 0x18035100,
    8: 0x1800035300,
    9: 0x19000353000,
    10: 0x590003530000,
    11: 0xD90003530000,
    12: 0xD90103530000,
    13: 0xD90303530000,
    14: 0xD90313530000,
    15: 0xD90F03530000,
    16: 0xD90303537000,
    17: 0xD90703537000,
    18: 0xD90707537000,
    19: 0xD91707537000,
    20: 0xD91747537000,
    21: 0xD91767537000,
}


class Chunker:
    """What chunkers have in common; each has `cut`, the length of the first chunk of data that ends with its region."""

    def sequence(self, region):
        pieces, at = [], 0
        while at < len(region):
            length = self.cut(region[at:])
            is_hole = not any(region[at : at + length])
            if is_hole and pieces and pieces[-1][0] == "hole":
                pieces[-1][1] += length
            else:
                pieces.append(["hole" if is_hole else "chunk", length])
            at += length
        return " ".join(f"{name[0]}{length}" for name, length in pieces)


class FastCdc(Chunker):
    def __init__(self, seed, smallest, average, largest):
        bits = math.floor(math.log2(average) + 0.5)
        self.lengths = smallest, average, largest
        self.strict, self.relaxed = MASKS[bits + 1], MASKS[bits - 1]
        self.gear = [value ^ seed for value in GEAR]

    def cut(self, data):
        smallest, average, largest = self.lengths
        if len(data) <= smallest:
            return len(data)
        end = min(len(data), largest)
        center = min(average, end)
        total = 0
        # The second byte of a pair is added as one byte at a time would be; the first one with all shifted by one more.
        for pair in range(smallest // 2, end // 2):
            mask = self.strict if pair < center // 2 else self.relaxed
            first, second = data[2 * pair], data[2 * pair + 1]
            total = ((total << 2) + (self.gear[first] << 1)) & MASK64
            if total & (mask << 1) == 0:
                return 2 * pair
            total = (total + self.gear[second]) & MASK64
            if total & mask == 0:
                return 2 * pair + 1
        return end


class MinCdc(Chunker):
    def __init__(self, seed, smallest, _average, largest):
        self.smallest, self.largest = smallest, largest
        self.multiplier, self.addend = seed % 2**32 | 1, seed >> 32

    def cut(self, data):
        if len(data) <= self.smallest:
            return len(data)
        places = range(self.smallest, min(len(data), self.largest) + 1)
        # Of several least ones, this is the first.
        return min(places, key=lambda place: self.hash(data[place - 4 : place]))

    def hash(self, window):
        return (int.from_bytes(window, "little") * self.multiplier + self.addend) % 2**32


CHUNKERS = {"fastcdc-2020": FastCdc, "mincdc-hash4": MinCdc}


def disk_of(pieces):
    data = b""
    for piece in pieces:
        name, *rest = piece.split()
        length = int(rest[-1])
        data += blake3(rest[0].encode(), length) if name == "random" else bytes([int(rest[0], 16)]) * length
    return data


def chunked(
    rule,
    what,
    comment,
    pieces,
    seed=KEYS.chunker_seed,
    smallest=64,
    average=256,
    largest=1024,
    region_len=8192,
    negative=None,
    chunker="fastcdc-2020",
):
    cutter, data = CHUNKERS[chunker](seed, smallest, average, largest), disk_of(pieces)
    regions = [cutter.sequence(data[at : at + region_len]) for at in range(0, len(data), region_len)]
    vector(
        rule,
        what,
        "chunks",
        comment,
        negative=negative,
        chunker=chunker,
        seed=seed,
        min=smallest,
        average=average,
        max=largest,
        region_len=region_len,
        piece=pieces,
        fields=numbered("region", regions),
    )


def chunks():
    unread = "a reader does not need the chunker"
    chunked("CHUNK-1", "several-regions", "each region begins anew, the last one is shorter", ["random alpha 20000"])
    chunked(
        "CHUNK-1",
        "regions-of-equal-content",
        "equal regions have equal chunks",
        ["random alpha 8192", "random alpha 8192", "random alpha 4096"],
    )
    chunked("CHUNK-1", "disk-of-one-byte", "the smallest disk", ["byte 01 1"])
    chunked("CHUNK-1", "last-region-of-one-byte", "a region of one byte", ["random beta 8193"])
    chunked(
        "CHUNK-1",
        "odd-end",
        "the last byte of a region at an odd place is no candidate for a cut",
        ["random gamma 7001"],
    )
    chunked("CHUNK-2", "seed-0", "the gear table as it is", ["random alpha 8192"], seed=0, negative=unread)
    chunked("CHUNK-2", "seed-of-64-bits", "the highest bit of the seed is set", ["random alpha 8192"], seed=2**64 - 1)
    chunked(
        "CHUNK-2",
        "smallest-average",
        "min, average and max at their smallest",
        ["random delta 8192"],
        smallest=64,
        average=256,
        largest=1024,
    )
    chunked(
        "CHUNK-2",
        "equal-lengths",
        "min, average and max are equal",
        ["random delta 8192"],
        smallest=1024,
        average=1024,
        largest=1024,
    )
    for average in (362, 364, 512, 724, 726):
        chunked(
            "CHUNK-2",
            f"average-{average}",
            "masks are chosen by the rounded binary logarithm of the average",
            ["random epsilon 8192"],
            average=average,
        )
    chunked(
        "CHUNK-2",
        "default-lengths",
        "8, 32 and 128 KiB",
        ["random zeta 400000"],
        smallest=8192,
        average=32768,
        largest=131072,
        region_len=16 * MIB,
    )
    chunked("CHUNK-2", "constant-bytes", "bytes that are all the same", ["byte 61 8192"])
    chunked(
        "CHUNK-3",
        "zeros",
        "a region of zeros is one hole",
        ["byte 00 16384", "byte 00 100"],
        negative="a chunk of zeros restores to the same bytes as a hole",
    )
    chunked(
        "CHUNK-3",
        "zeros-in-the-midst",
        "neighbouring chunks of zeros are one hole",
        ["random eta 1500", "byte 00 5000", "random theta 1692"],
    )
    chunked(
        "CHUNK-3",
        "few-zeros",
        "zeros shorter than a chunk are no hole",
        ["random eta 1500", "byte 00 60", "random theta 4000"],
    )
    chunked(
        "CHUNK-3",
        "zeros-over-a-region's-edge".replace("'", ""),
        "a hole ends with its region",
        ["random eta 6000", "byte 00 5000", "random theta 1000"],
    )
    chunked(
        "CHUNK-3",
        "zeros-at-an-odd-end",
        "zeros up to the disk's end at an odd place",
        ["random eta 2000", "byte 00 3333"],
    )
    mincdc(unread)
    sizes = bad("the size of a disk is not allowed")
    vector("CHUNK-1", "disk-of-0-bytes", "decision", "a disk of no bytes", sizes, commit(disks=[disk(size=0)]))
    vector(
        "CHUNK-1",
        "disk-over-2-to-the-62",
        "decision",
        "a disk that is too large",
        sizes,
        commit(disks=[disk(size=2**62 + 1)]),
    )
    vector(
        "CHUNK-1",
        "disk-of-2-to-the-64-minus-1",
        "decision",
        "a disk that is too large",
        sizes,
        commit(disks=[disk(size=2**64 - 1)]),
    )
    vector(
        "CHUNK-1",
        "chunk-over-a-regions-edge",
        "page",
        "a chunk crosses the end of its region",
        bad("a piece reaches too far"),
        page(TABLE_ONE, hole(3500), chunk(600)),
        **{**PAGE_INPUTS, "region_len": 4096},
    )


def mincdc(unread):
    def cut(what, comment, pieces, smallest=64, largest=1024, **inputs):
        average = (smallest + largest) // 2
        lengths = {"smallest": smallest, "average": average, "largest": largest}
        chunked("CHUNK-4", what, comment, pieces, chunker="mincdc-hash4", **lengths, **inputs)

    random = ["random alpha 20000"]
    cut("several-regions", "each region begins anew, the last one is shorter", random, negative=unread)
    cut("seed-0", "the multiplier is 1, the addend 0", random, seed=0)
    cut("seed-1", "the multiplier is 1 for this seed too", random, seed=1)
    cut("seed-of-64-bits", "the highest bits of the seed are set", random, seed=2**64 - 1)
    cut("addend-alone", "the multiplier is 1", random, seed=0x8765_4321 << 32)
    cut("equal-lengths", "min and max are equal", ["random delta 8192"], 1024, 1024)
    cut("two-places", "max is one more than min", ["random delta 8192"], 1023, 1024)
    cut("odd-lengths", "no length needs to be even", ["random delta 8192"], 65, 1025)
    cut("lengths-of-20-and-64-kib", "20, 42 and 64 KiB", ["random zeta 400000"], 20480, 65536, region_len=16 * MIB)
    cut("constant-bytes", "of equal windows the first one wins", ["byte 61 8192"])
    cut("two-bytes", "of several least windows the first one wins", ["byte 61 500", "byte 62 700", "byte 61 4000"])
    cut("region-of-min", "a region as long as min", ["random beta 8256"])
    cut("region-of-min-and-1", "a region one longer than min has two places", ["random beta 8257"])
    cut("region-of-max", "a region as long as max", ["random beta 9216"])
    cut("zeros", "zeros are cut at min, and are one hole", ["byte 00 16384", "byte 00 100"])
    cut(
        "zeros-in-the-midst",
        "zeros before data are part of its chunk, or a hole",
        ["random eta 1500", "byte 00 5000", "random theta 1692"],
    )
    cut("zeros-at-the-end", "zeros up to the disk's end", ["random eta 2000", "byte 00 3333"])
    cut(
        "zeros-that-win",
        "the addend makes the hash of zeros the least",
        ["random eta 1500", "byte 00 200", "random theta 4000"],
        seed=0x0000_0000_9E37_79B9,
    )
