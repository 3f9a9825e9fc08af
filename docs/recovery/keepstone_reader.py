#!/usr/bin/env python3
"""Reads Keepstone repositories of format version 0 without Keepstone: a second reader, written from SPEC.md alone.

    python3 keepstone_reader.py REPO snapshots
    python3 keepstone_reader.py REPO restore SNAPSHOT DISK TARGET
    python3 keepstone_reader.py REPO check
    python3 keepstone_reader.py REPO retention

REPO is a directory with the blobs of the repository as files. Nothing in it is ever written. Needed are Python 3.11 or
newer and the package `cryptography`; what makes it faster, and what to do in an emergency, is told in
../recovery-without-keepstone.md. Names in brackets, as [PACK-3], are those of the rules in ../../SPEC.md.

Repack records are followed where a pack is gone; pins, canaries and generations are of no concern to a restore, but
are checked, and `retention` tells what they say.

The file goes from the bottom up: BLAKE3, Argon2id, HPKE, zstd; fields; names, keys, config and slots; sealed objects;
packs; pages and nodes; decisions; then what the commands do.
"""

import argparse
import contextlib
import datetime
import getpass
import hashlib
import hmac
import importlib
import json
import os
import re
import struct
import sys
import time
from typing import NamedTuple

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError:
    sys.exit("keepstone_reader: the Python package `cryptography` is missing "
             "(apt-get install python3-cryptography, or pip install cryptography)")

KIB, MIB = 1 << 10, 1 << 20

# ---------------------------------------------------------------------------------------------------------------------
# Faster code for the same things, where it is installed. KEEPSTONE_READER_WITHOUT names what to do in plain Python
# all the same, as in "blake3 zstd argon2".

WITHOUT = os.environ.get("KEEPSTONE_READER_WITHOUT", "").split()


def optional(what, module):
    """The module, or None if it is not installed or not wanted."""
    if what in WITHOUT:
        return None
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


FAST_BLAKE3 = optional("blake3", "blake3")                      # pip install blake3
STANDARD_ZSTD = optional("zstd", "compression.zstd")            # Python 3.14 or newer
FAST_ZSTD = optional("zstd", "zstandard")                       # python3-zstandard
FAST_ARGON2 = optional("argon2", "argon2.low_level")            # python3-argon2
OPENSSL_ARGON2 = optional("argon2", "cryptography.hazmat.primitives.kdf.argon2")  # cryptography 44, OpenSSL 3.2


class Damaged(Exception):
    """A blob that SPEC.md tells a reader to reject, and why."""

    def __init__(self, blob, why):
        super().__init__(f"{blob}: {why}")
        self.blob = blob


class Missing(Damaged):
    """A blob that is not there."""


class Unsigned(Damaged):
    """An object that somebody without the retention key made. It is as if it were not there [SIG-2]."""


class Failed(Exception):
    """Something else that cannot go on, as a wrong password."""


# ---------------------------------------------------------------------------------------------------------------------
# BLAKE3, as in the paper "BLAKE3: one function, fast everywhere".
#
# Python is slow at arithmetic with small numbers and not much slower with large ones. So many inputs are compressed
# side by side: a number holds one 32-bit word of each of them, in *lanes* of 64 bits.

BLAKE3_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
BLAKE3_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
BLAKE3_COLUMNS_AND_DIAGONALS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED_HASH, DERIVE_KEY_CONTEXT, DERIVE_KEY_MATERIAL = 1, 2, 4, 8, 16, 32, 64
BLAKE3_CHUNK = 1024
BLAKE3_LANES = 64


def to_lanes(words):
    """A number with one word in each lane."""
    return int.from_bytes(struct.pack(f"<{len(words)}Q", *words), "little")


def blake3_compress(chaining, block, counter, block_len, flags, ones):
    """The eight words of the new chaining value; `ones` is 1 in each lane."""
    mask = ones * 0xFFFFFFFF
    v = [*chaining, *(word * ones for word in BLAKE3_IV[:4]),
         counter & mask, counter >> 32 & mask, block_len * ones, flags * ones]
    for round_number in range(7):
        for i, (a, b, c, d) in enumerate(BLAKE3_COLUMNS_AND_DIAGONALS):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = va + vb + block[2 * i] & mask
            vd ^= va
            vd = (vd >> 16 | vd << 16) & mask
            vc = vc + vd & mask
            vb ^= vc
            vb = (vb >> 12 | vb << 20) & mask
            va = va + vb + block[2 * i + 1] & mask
            vd ^= va
            vd = (vd >> 8 | vd << 24) & mask
            vc = vc + vd & mask
            vb ^= vc
            vb = (vb >> 7 | vb << 25) & mask
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        if round_number < 6:
            block = [block[i] for i in BLAKE3_PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3_values(data, lanes, first_counter, key, flags, root=False):
    """The chaining values (32 bytes each) of `lanes` chunks or parents of one length that lie behind each other."""
    length = len(data) // lanes
    blocks = max(1, -(-length // 64))
    if length != blocks * 64:
        data = data + bytes(blocks * 64 - length)  # only ever the last chunk, alone
    words = struct.unpack(f"<{lanes * blocks * 16}I", data)
    ones = to_lanes([1] * lanes)
    counter = to_lanes(range(first_counter, first_counter + lanes)) if not flags & PARENT else 0
    chaining = [word * ones for word in key]
    for block in range(blocks):
        block_flags = flags
        if not flags & PARENT:
            block_flags |= (CHUNK_START if block == 0 else 0) | (CHUNK_END if block == blocks - 1 else 0)
        if root and block == blocks - 1:
            block_flags |= ROOT
        block_len = 64 if block < blocks - 1 else length - 64 * (blocks - 1)
        laned = [to_lanes(words[block * 16 + i::blocks * 16]) for i in range(16)]
        chaining = blake3_compress(chaining, laned, counter, block_len, block_flags, ones)
    of_each_word = [struct.unpack(f"<{lanes}Q", word.to_bytes(8 * lanes, "little")) for word in chaining]
    return b"".join(struct.pack("<8I", *value) for value in zip(*of_each_word))


def blake3_pure(data, key, flags):
    """32 bytes of BLAKE3. Chunks are hashed, then paired level by level; an odd one goes up as it is."""
    if len(data) <= BLAKE3_CHUNK:
        return blake3_values(data, 1, 0, key, flags, root=True)
    whole = len(data) // BLAKE3_CHUNK
    values = bytearray()
    for first in range(0, whole, BLAKE3_LANES):
        lanes = min(BLAKE3_LANES, whole - first)
        part = data[first * BLAKE3_CHUNK:(first + lanes) * BLAKE3_CHUNK]
        values += blake3_values(part, lanes, first, key, flags)
    if whole * BLAKE3_CHUNK < len(data):
        values += blake3_values(data[whole * BLAKE3_CHUNK:], 1, whole, key, flags)
    while len(values) > 64:
        pairs = len(values) // 64
        odd = values[pairs * 64:]
        parents = bytearray()
        for first in range(0, pairs, BLAKE3_LANES):
            lanes = min(BLAKE3_LANES, pairs - first)
            parents += blake3_values(values[first * 64:(first + lanes) * 64], lanes, 0, key, flags | PARENT)
        values = parents + odd
    return blake3_values(values, 1, 0, key, flags | PARENT, root=True)


def keyed(key, data):
    """BLAKE3's keyed hash."""
    if FAST_BLAKE3:
        return FAST_BLAKE3.blake3(data, key=key).digest()
    return blake3_pure(data, struct.unpack("<8I", key), KEYED_HASH)


def derive(context, material):
    """BLAKE3 in derive_key mode."""
    if FAST_BLAKE3:
        return FAST_BLAKE3.blake3(material, derive_key_context=context).digest()
    context_key = blake3_pure(context.encode(), BLAKE3_IV, DERIVE_KEY_CONTEXT)
    return blake3_pure(material, struct.unpack("<8I", context_key), DERIVE_KEY_MATERIAL)


# ---------------------------------------------------------------------------------------------------------------------
# Argon2id, RFC 9106, version 0x13, without secret and associated data.

U64 = (1 << 64) - 1


def argon2id(password, salt, memory_kib, passes, lanes):
    """32 bytes of Argon2id [SLOT-2]."""
    if FAST_ARGON2:
        return FAST_ARGON2.hash_secret_raw(secret=password, salt=salt, time_cost=passes, memory_cost=memory_kib,
                                           parallelism=lanes, hash_len=32, type=FAST_ARGON2.Type.ID)
    if OPENSSL_ARGON2:
        with contextlib.suppress(UnsupportedAlgorithm):  # an OpenSSL that is too old for it
            return OPENSSL_ARGON2.Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes,
                                           memory_cost=memory_kib).derive(password)
    if memory_kib * passes > 16 * KIB:
        warn("working out the key from the password in plain Python, which takes minutes "
             "(not with python3-argon2, or cryptography 44 or newer)")
    return Argon2id(password, salt, memory_kib, passes, lanes).result()


def argon2_hash(length, data):
    """The hash function H' of RFC 9106, section 3.3."""
    data = struct.pack("<I", length) + data
    if length <= 64:
        return hashlib.blake2b(data, digest_size=length).digest()
    value = hashlib.blake2b(data).digest()
    result = value[:32]
    while length - len(result) > 64:
        value = hashlib.blake2b(value).digest()
        result += value[:32]
    return result + hashlib.blake2b(value, digest_size=length - len(result)).digest()


def argon2_permute(w, indexes):
    """The permutation P of RFC 9106, section 3.6, on 16 of the words of `w`."""
    v = [w[i] for i in indexes]
    for a, b, c, d in BLAKE3_COLUMNS_AND_DIAGONALS:  # BLAKE2's are the same
        va, vb, vc, vd = v[a], v[b], v[c], v[d]
        va = va + vb + 2 * (va & 0xFFFFFFFF) * (vb & 0xFFFFFFFF) & U64
        vd ^= va
        vd = vd >> 32 | vd << 32 & U64
        vc = vc + vd + 2 * (vc & 0xFFFFFFFF) * (vd & 0xFFFFFFFF) & U64
        vb ^= vc
        vb = vb >> 24 | vb << 40 & U64
        va = va + vb + 2 * (va & 0xFFFFFFFF) * (vb & 0xFFFFFFFF) & U64
        vd ^= va
        vd = vd >> 16 | vd << 48 & U64
        vc = vc + vd + 2 * (vc & 0xFFFFFFFF) * (vd & 0xFFFFFFFF) & U64
        vb ^= vc
        vb = vb >> 63 | vb << 1 & U64
        v[a], v[b], v[c], v[d] = va, vb, vc, vd
    for i, value in zip(indexes, v):
        w[i] = value


ARGON2_ROWS = [tuple(range(16 * i, 16 * i + 16)) for i in range(8)]
ARGON2_COLUMNS = [tuple(16 * row + 2 * i + half for row in range(8) for half in range(2)) for i in range(8)]


def xor_blocks(*blocks):
    result = 0
    for block in blocks:
        result ^= int.from_bytes(block, "little")
    return result.to_bytes(1024, "little")


def argon2_compress(x, y):
    """The compression function G of RFC 9106, section 3.5."""
    r = xor_blocks(x, y)
    w = list(struct.unpack("<128Q", r))
    for indexes in ARGON2_ROWS:
        argon2_permute(w, indexes)
    for indexes in ARGON2_COLUMNS:
        argon2_permute(w, indexes)
    return xor_blocks(r, struct.pack("<128Q", *w))


class Argon2id:
    """One computation; section 3.2 of RFC 9106."""

    def __init__(self, password, salt, memory_kib, passes, lanes):
        self.passes, self.lanes = passes, lanes
        self.segment = memory_kib // (4 * lanes)
        self.columns = 4 * self.segment
        h0 = hashlib.blake2b(struct.pack("<6I", lanes, 32, memory_kib, passes, 0x13, 2)
                             + struct.pack("<I", len(password)) + password
                             + struct.pack("<I", len(salt)) + salt + bytes(8)).digest()
        self.blocks = [[b""] * self.columns for _ in range(lanes)]
        for lane in range(lanes):
            for column in range(2):
                self.blocks[lane][column] = argon2_hash(1024, h0 + struct.pack("<II", column, lane))

    def result(self):
        for pass_number in range(self.passes):
            for slice_number in range(4):
                for lane in range(self.lanes):
                    self.fill_segment(pass_number, slice_number, lane)
        return argon2_hash(32, xor_blocks(*(lane[-1] for lane in self.blocks)))

    def fill_segment(self, pass_number, slice_number, lane):
        data_independent = pass_number == 0 and slice_number < 2
        row = self.blocks[lane]
        addresses = ()
        for index in range(self.segment):
            if data_independent and index % 128 == 0:
                addresses = self.addresses(pass_number, lane, slice_number, index // 128 + 1)
            column = slice_number * self.segment + index
            if pass_number == 0 and column < 2:
                continue
            previous = row[column - 1]
            pseudorandom = addresses[index % 128] if data_independent else int.from_bytes(previous[:8], "little")
            reference = self.reference(pass_number, slice_number, lane, index, pseudorandom)
            block = argon2_compress(previous, reference)
            row[column] = block if pass_number == 0 else xor_blocks(block, row[column])

    def addresses(self, pass_number, lane, slice_number, counter):
        """Section 3.4.1.2: 128 pseudorandom values that do not depend on the password."""
        position = (pass_number, lane, slice_number, self.lanes * self.columns, self.passes, 2, counter)
        block = struct.pack("<7Q", *position) + bytes(1024 - 56)
        zero = bytes(1024)
        return struct.unpack("<128Q", argon2_compress(zero, argon2_compress(zero, block)))

    def reference(self, pass_number, slice_number, lane, index, pseudorandom):
        """Section 3.4.2: the block that a pseudorandom value points to."""
        j1, j2 = pseudorandom & 0xFFFFFFFF, pseudorandom >> 32
        other = lane if pass_number == 0 and slice_number == 0 else j2 % self.lanes
        finished = slice_number * self.segment if pass_number == 0 else self.columns - self.segment
        if other == lane:
            area = finished + index - 1
        else:
            area = finished - (1 if index == 0 else 0)
        distance = area * (j1 * j1 >> 32) >> 32
        start = 0 if pass_number == 0 else (slice_number + 1) * self.segment
        return self.blocks[other][(start + area - 1 - distance) % self.columns]


# ---------------------------------------------------------------------------------------------------------------------
# AES-256-GCM and HPKE.

def aead_open(key, nonce, sealed, associated_data):
    """The plaintext, or None if the tag is wrong."""
    try:
        return AESGCM(key).decrypt(nonce, bytes(sealed), associated_data)
    except InvalidTag:
        return None


def hkdf_extract(salt, material):
    """RFC 5869, with SHA-256."""
    return hmac.digest(salt or bytes(32), material, "sha256")


def hkdf_expand(key, info, length):
    result, block, counter = b"", b"", 1
    while len(result) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        result += block
        counter += 1
    return result[:length]


HPKE_KEM_SUITE = b"KEM" + struct.pack(">H", 0x0020)                 # DHKEM(X25519, HKDF-SHA256)
HPKE_SUITE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0002)  # with HKDF-SHA256 and AES-256-GCM


def labeled_extract(suite, salt, label, material):
    return hkdf_extract(salt, b"HPKE-v1" + suite + label + material)


def labeled_expand(suite, key, label, info, length):
    return hkdf_expand(key, struct.pack(">H", length) + b"HPKE-v1" + suite + label + info, length)


def hpke_open(private_key, public_key, encapsulated, ciphertext, info, associated_data):
    """RFC 9180 in base mode, sections 4.1, 5.1 and 5.2; None if it does not open."""
    try:
        shared = private_key.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    except ValueError:  # all zeros, which section 7.1.4 tells to reject
        return None
    extracted = labeled_extract(HPKE_KEM_SUITE, b"", b"eae_prk", shared)
    secret = labeled_expand(HPKE_KEM_SUITE, extracted, b"shared_secret", encapsulated + public_key, 32)
    context = (b"\0" + labeled_extract(HPKE_SUITE, b"", b"psk_id_hash", b"")
               + labeled_extract(HPKE_SUITE, b"", b"info_hash", info))
    secret = labeled_extract(HPKE_SUITE, secret, b"secret", b"")
    key = labeled_expand(HPKE_SUITE, secret, b"key", context, 32)
    nonce = labeled_expand(HPKE_SUITE, secret, b"base_nonce", context, 12)
    return aead_open(key, nonce, ciphertext, associated_data)


# ---------------------------------------------------------------------------------------------------------------------
# zstd, RFC 8878. Errors are ValueErrors here; who calls it knows the blob.

ZSTD_MAGIC = 0xFD2FB528
ZSTD_BLOCK_MAX = 128 * KIB
RAW, RLE, COMPRESSED, TREELESS_OR_REPEAT = range(4)


def zstd_decode(frame, plain_len):
    """The content of a frame that fulfils PACK-2."""
    blocks, block_max, checksum = zstd_structure(frame, plain_len)
    if STANDARD_ZSTD:
        content = zstd_with_library(STANDARD_ZSTD.ZstdDecompressor().decompress,
                                    STANDARD_ZSTD.ZstdError, frame, plain_len)
    elif FAST_ZSTD:
        content = zstd_with_library(FAST_ZSTD.ZstdDecompressor(max_window_size=1 << 27).decompress,
                                    FAST_ZSTD.ZstdError, frame, plain_len)
    else:
        content = ZstdDecoder(plain_len, block_max).decode(frame, blocks)
        if checksum and xxh64(content) & 0xFFFFFFFF != int.from_bytes(checksum, "little"):
            raise ValueError("the checksum of the zstd frame is wrong")
    if len(content) != plain_len:
        raise ValueError(f"the zstd frame has {len(content)} bytes of content instead of {plain_len}")
    return content


def zstd_with_library(decompress, error, frame, plain_len):
    try:
        return decompress(frame, plain_len)
    except error as reason:
        raise ValueError(f"zstd: {reason}") from None


def zstd_structure(frame, plain_len):
    """The blocks of a frame as (type, start, size), the most bytes that one may have, and the checksum.

    Checks the header, and that nothing follows the frame.
    """
    if len(frame) < 6 or int.from_bytes(frame[:4], "little") != ZSTD_MAGIC:
        raise ValueError("not a zstd frame")
    descriptor, position = frame[4], 5
    single_segment = descriptor >> 5 & 1
    if descriptor & 8:
        raise ValueError("a reserved bit of the zstd frame is set")
    window = None
    if not single_segment:
        exponent, mantissa = frame[position] >> 3, frame[position] & 7
        window = (1 << 10 + exponent) + (1 << 10 + exponent) // 8 * mantissa
        position += 1
    if descriptor & 3:
        raise ValueError("the zstd frame names a dictionary")
    size_len = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    if size_len == 0:
        raise ValueError("the zstd frame does not tell its content size")
    content_size = int.from_bytes(frame[position:position + size_len], "little") + (256 if size_len == 2 else 0)
    position += size_len
    if content_size != plain_len:
        raise ValueError(f"the zstd frame has a content size of {content_size} instead of {plain_len}")
    window = content_size if window is None else window
    if window > max(8 * MIB, content_size):
        raise ValueError(f"the zstd frame has a window of {window} bytes")
    blocks, position = zstd_blocks(frame, position)
    checksum_len = 4 if descriptor & 4 else 0
    if position + checksum_len != len(frame):
        raise ValueError("the zstd frame does not end where the payload does")
    return blocks, min(window, ZSTD_BLOCK_MAX), frame[position:]


def zstd_blocks(frame, position):
    """The blocks from `position` on, and where they end."""
    blocks, last = [], False
    while not last:
        if position + 3 > len(frame):
            raise ValueError("the zstd frame ends within a block header")
        header = int.from_bytes(frame[position:position + 3], "little")
        position += 3
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3:
            raise ValueError("a zstd block of a reserved type")
        blocks.append((kind, position, size))
        position += 1 if kind == RLE else size
        if position > len(frame):
            raise ValueError("the zstd frame ends within a block")
    return blocks, position


XXH64_PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def rotated(word, count):
    return (word << count | word >> 64 - count) & U64


def xxh64(data):
    """The checksum of zstd's content: XXH64 with the seed 0."""
    p1, p2, p3, p4, p5 = XXH64_PRIMES

    def mixed(accumulator, word):
        return rotated(accumulator + word * p2 & U64, 31) * p1 & U64

    stripes = len(data) // 32
    value = p5
    if stripes:
        lanes = [p1 + p2 & U64, p2, 0, -p1 & U64]
        for words in struct.iter_unpack("<4Q", data[:32 * stripes]):
            lanes = [mixed(lane, word) for lane, word in zip(lanes, words)]
        value = sum(rotated(lane, count) for lane, count in zip(lanes, (1, 7, 12, 18)))
        for lane in lanes:
            value = (value ^ mixed(0, lane)) * p1 + p4 & U64
    value = value + len(data) & U64
    rest = data[32 * stripes:]
    while len(rest) >= 8:
        value = rotated(value ^ mixed(0, int.from_bytes(rest[:8], "little")), 27) * p1 + p4 & U64
        rest = rest[8:]
    if len(rest) >= 4:
        value = rotated(value ^ int.from_bytes(rest[:4], "little") * p1 & U64, 23) * p2 + p3 & U64
        rest = rest[4:]
    for byte in rest:
        value = rotated(value ^ byte * p5 & U64, 11) * p1 & U64
    value = (value ^ value >> 33) * p2 & U64
    value = (value ^ value >> 29) * p3 & U64
    return value ^ value >> 32


class BackwardBits:
    """Bits that are read from the end of a byte string; before its beginning there are zeros."""

    def __init__(self, data):
        if not data or data[-1] == 0:
            raise ValueError("a zstd bit stream without an end mark")
        self.data = bytes(8) + data
        self.left = 8 * len(data) - 9 + data[-1].bit_length()

    def read(self, count):
        self.left -= count
        position = self.left + 64
        if position < 0:
            raise ValueError("a zstd bit stream is too short")
        start = position >> 3
        return int.from_bytes(self.data[start:start + 8], "little") >> (position & 7) & (1 << count) - 1


class ForwardBits:
    """Bits that are read from the beginning of a byte string."""

    def __init__(self, data):
        self.data, self.position = data, 0

    def peek(self, count):
        start = self.position >> 3
        return int.from_bytes(self.data[start:start + 4], "little") >> (self.position & 7) & (1 << count) - 1

    def skip(self, count):
        self.position += count
        if self.position > 8 * len(self.data):
            raise ValueError("an FSE table ends early")


def fse_counts(data, log_max, symbols_max):
    """Section 4.1.1 of RFC 8878: accuracy log, the symbols' counts, and the bytes that they take."""
    bits = ForwardBits(data)
    log = bits.peek(4) + 5
    bits.skip(4)
    if log > log_max:
        raise ValueError("an FSE table is too large")
    remaining, counts = 1 << log, []
    while remaining > 0:
        width = (remaining + 1).bit_length()
        short = (1 << width) - 1 - (remaining + 1)  # so many values need one bit less
        value = bits.peek(width)
        if value & (1 << width - 1) - 1 < short:
            value &= (1 << width - 1) - 1
            bits.skip(width - 1)
        else:
            value -= short if value >= 1 << width - 1 else 0
            bits.skip(width)
        counts.append(value - 1)
        remaining -= abs(value - 1)
        repeat = 3 if value == 1 else 0
        while repeat == 3:
            repeat = bits.peek(2)
            bits.skip(2)
            counts += [0] * repeat
        if len(counts) > symbols_max:
            raise ValueError("an FSE table has too many symbols")
    if remaining != 0:
        raise ValueError("the counts of an FSE table do not add up")
    return log, counts, bits.position + 7 >> 3


def fse_table(log, counts):
    """For each state: symbol, number of bits, baseline. Section 4.1.1 of RFC 8878."""
    size = 1 << log
    symbols, high = [0] * size, size
    for symbol, count in enumerate(counts):
        if count == -1:
            high -= 1
            symbols[high] = symbol
    step, position = (size >> 1) + (size >> 3) + 3, 0
    for symbol, count in enumerate(counts):
        for _ in range(max(count, 0)):
            symbols[position] = symbol
            position = position + step & size - 1
            while position >= high:
                position = position + step & size - 1
    following = [abs(count) for count in counts]
    table = []
    for symbol in symbols:
        state = following[symbol]
        following[symbol] += 1
        width = log - (state.bit_length() - 1)
        table.append((symbol, width, (state << width) - size))
    return table


def huffman_weights(data):
    """The weights that are told, and the bytes that they take. Section 4.2.1 of RFC 8878."""
    if not data:
        raise ValueError("a Huffman table ends early")
    header = data[0]
    if header >= 128:
        count = header - 127
        packed = data[1:1 + (count + 1) // 2]
        if len(packed) < (count + 1) // 2:
            raise ValueError("a Huffman table ends early")
        return [nibble for byte in packed for nibble in (byte >> 4, byte & 15)][:count], 1 + len(packed)
    coded = data[1:1 + header]
    if len(coded) < header:
        raise ValueError("a Huffman table ends early")
    log, counts, used = fse_counts(coded, 6, 256)
    table = fse_table(log, counts)
    bits = BackwardBits(coded[used:])
    states = [bits.read(log), bits.read(log)]
    weights = []
    while len(weights) <= 255:
        symbol, width, baseline = table[states[0]]
        weights.append(symbol)
        if bits.left < width:  # the bits end here: the other state has the last one
            weights.append(table[states[1]][0])
            return weights, 1 + header
        states = [states[1], baseline + bits.read(width)]
    raise ValueError("a Huffman table has too many weights")


def huffman_table(data):
    """For each value of so many bits: (symbol, its number of bits); that number of bits; the bytes of the table."""
    weights, used = huffman_weights(data)
    total = sum(1 << weight - 1 for weight in weights if weight)
    log = total.bit_length()
    rest = (1 << log) - total
    if len(weights) > 255 or not 1 <= log <= 11 or rest & rest - 1:
        raise ValueError("the weights of a Huffman table do not add up")
    weights.append(rest.bit_length())
    table = []
    for weight in range(1, log + 1):
        for symbol, its_weight in enumerate(weights):
            if its_weight == weight:
                table += [(symbol, log + 1 - weight)] * (1 << weight - 1)
    return table, log, used


def huffman_stream(data, table, log, count):
    """`count` symbols of one backward bit stream."""
    if not data or data[-1] == 0:
        raise ValueError("a zstd bit stream without an end mark")
    window = data[-1] ^ 1 << data[-1].bit_length() - 1
    bits = data[-1].bit_length() - 1
    position = len(data) - 1
    mask = (1 << log) - 1
    symbols = bytearray()
    for _ in range(count):
        if bits < log and position:
            start = max(0, position - 8)
            more = int.from_bytes(data[start:position], "little")
            window = (window & (1 << bits) - 1) << 8 * (position - start) | more
            bits += 8 * (position - start)
            position = start
        code = window >> bits - log if bits >= log else window << log - bits
        symbol, width = table[code & mask]
        symbols.append(symbol)
        bits -= width
        if bits < 0:
            raise ValueError("a Huffman stream is too short")
    if bits or position:
        raise ValueError("a Huffman stream is too long")
    return symbols


LITERAL_LENGTHS = ([(i, 0) for i in range(16)]
                   + [(16, 1), (18, 1), (20, 1), (22, 1), (24, 2), (28, 2), (32, 3), (40, 3), (48, 4), (64, 6)]
                   + [(1 << i, i) for i in range(7, 17)])
MATCH_LENGTHS = ([(i + 3, 0) for i in range(32)]
                 + [(35, 1), (37, 1), (39, 1), (41, 1), (43, 2), (47, 2), (51, 3), (59, 3), (67, 4), (83, 4), (99, 5)]
                 + [((1 << i) + 3, i) for i in range(7, 17)])
LITERAL_LENGTH_COUNTS = [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
                         -1, -1, -1, -1]
MATCH_LENGTH_COUNTS = [1, 4, 3] + [2] * 6 + [1] * 37 + [-1] * 7
OFFSET_COUNTS = [1] * 6 + [2] * 3 + [1] * 15 + [-1] * 5


class CodeKind(NamedTuple):
    """One of the three codes of a sequence: what its FSE table may be, and the one that is predefined."""
    symbols_max: int
    log_max: int
    default_log: int
    default_counts: list


SEQUENCE_CODES = (CodeKind(36, 9, 6, LITERAL_LENGTH_COUNTS), CodeKind(32, 8, 5, OFFSET_COUNTS),
                  CodeKind(53, 9, 6, MATCH_LENGTH_COUNTS))


class ZstdDecoder:
    """The state that blocks of one frame share."""

    def __init__(self, plain_len, block_max):
        self.plain_len, self.block_max = plain_len, block_max
        self.content = bytearray()
        self.huffman = None
        self.tables = [None, None, None]
        self.recent_offsets = [1, 4, 8]

    def decode(self, frame, blocks):
        for kind, start, size in blocks:
            before = len(self.content)
            if kind != COMPRESSED and size > self.block_max or size > ZSTD_BLOCK_MAX:
                raise ValueError("a zstd block is too large")
            if kind == RAW:
                self.content += frame[start:start + size]
            elif kind == RLE:
                self.content += frame[start:start + 1] * size
            else:
                self.compressed_block(frame[start:start + size])
            if len(self.content) - before > self.block_max or len(self.content) > self.plain_len:
                raise ValueError("a zstd block is too large")
        return bytes(self.content)

    def compressed_block(self, block):
        literals, used = self.literals(block)
        sequences = block[used:]
        if not sequences:
            raise ValueError("a zstd block ends early")
        count, position = sequences[0], 1
        if count >= 128 and len(sequences) > 2:
            if count < 255:
                count, position = (count - 128 << 8) + sequences[1], 2
            else:
                count, position = sequences[1] + (sequences[2] << 8) + 0x7F00, 3
        if count == 0:
            if position != len(sequences):
                raise ValueError("a zstd block has bytes left over")
            self.content += literals
            return
        position = self.sequence_tables(sequences, position)
        self.sequences(BackwardBits(sequences[position:]), count, literals)

    def literals(self, block):
        """The literals of a block, and the bytes of their section. Section 3.1.1.3.1 of RFC 8878."""
        kind, size_format = block[0] & 3 if block else 0, block[0] >> 2 & 3 if block else 0
        header = int.from_bytes(block[:5], "little")
        if kind in (RAW, RLE):
            header_len, shift, width = ((1, 3, 5), (2, 4, 12), (1, 3, 5), (3, 4, 20))[size_format]
            size = header >> shift & (1 << width) - 1
            stored = size if kind == RAW else 1
        else:
            header_len, width = ((3, 10), (3, 10), (4, 14), (5, 18))[size_format]
            size, stored = header >> 4 & (1 << width) - 1, header >> 4 + width & (1 << width) - 1
        data = block[header_len:header_len + stored]
        if len(data) < stored or size > self.block_max:
            raise ValueError("the literals of a zstd block are too long")
        if kind == RAW:
            return data, header_len + stored
        if kind == RLE:
            return data * size, header_len + stored
        if kind == COMPRESSED:
            *self.huffman, used = huffman_table(data)
            data = data[used:]
        elif self.huffman is None:
            raise ValueError("a zstd block repeats a Huffman table that there is not")
        return self.huffman_literals(data, size, 1 if size_format == 0 else 4), header_len + stored

    def huffman_literals(self, data, size, streams):
        if streams == 1:
            return bytes(huffman_stream(data, *self.huffman, size))
        part = (size + 3) // 4
        lengths = struct.unpack_from("<3H", data) if len(data) >= 6 else (0, 0, 0)
        literals, position = bytearray(), 6
        for length in lengths:
            literals += huffman_stream(data[position:position + length], *self.huffman, part)
            position += length
        if len(literals) > size:
            raise ValueError("four Huffman streams for too few literals")
        return bytes(literals + huffman_stream(data[position:], *self.huffman, size - len(literals)))

    def sequence_tables(self, data, position):
        """Reads the three FSE tables; where the bit stream begins. Section 3.1.1.3.2.1 of RFC 8878."""
        if position >= len(data) or data[position] & 3:
            raise ValueError("a zstd block has no valid modes of sequences")
        modes = data[position]
        position += 1
        for i, code in enumerate(SEQUENCE_CODES):
            mode = modes >> 6 - 2 * i & 3
            if mode == 0:
                self.tables[i] = code.default_log, fse_table(code.default_log, code.default_counts)
            elif mode == 1:
                if position >= len(data) or data[position] >= code.symbols_max:
                    raise ValueError("a zstd block repeats a code that there is not")
                self.tables[i] = 0, [(data[position], 0, 0)]
                position += 1
            elif mode == 2:
                log, counts, used = fse_counts(data[position:], code.log_max, code.symbols_max)
                self.tables[i] = log, fse_table(log, counts)
                position += used
            elif self.tables[i] is None:
                raise ValueError("a zstd block repeats an FSE table that there is not")
        return position

    def sequences(self, bits, count, literals):
        """Section 3.1.1.4: copies literals and earlier content in turn."""
        (literal_log, literal_table), (offset_log, offset_table), (match_log, match_table) = self.tables
        literal_state, offset_state = bits.read(literal_log), bits.read(offset_log)
        match_state = bits.read(match_log)
        position, content = 0, self.content
        for number in range(count):
            literal_code, literal_width, literal_base = literal_table[literal_state]
            offset_code, offset_width, offset_base = offset_table[offset_state]
            match_code, match_width, match_base = match_table[match_state]
            offset_value = (1 << offset_code) + bits.read(offset_code)
            base, width = MATCH_LENGTHS[match_code]
            match_len = base + bits.read(width)
            base, width = LITERAL_LENGTHS[literal_code]
            literal_len = base + bits.read(width)
            if number < count - 1:
                literal_state = literal_base + bits.read(literal_width)
                match_state = match_base + bits.read(match_width)
                offset_state = offset_base + bits.read(offset_width)
            if position + literal_len > len(literals):
                raise ValueError("a zstd block has too few literals")
            content += literals[position:position + literal_len]
            position += literal_len
            self.copy_match(self.offset(offset_value, literal_len), match_len)
        if bits.left != 0:
            raise ValueError("the sequences of a zstd block do not end with their bits")
        content += literals[position:]

    def offset(self, value, literal_len):
        """Section 3.1.1.5: the three offsets that were used last have short names."""
        recent = self.recent_offsets
        if value > 3:
            self.recent_offsets = [value - 3, recent[0], recent[1]]
            return value - 3
        which = value - 1 + (1 if literal_len == 0 else 0)
        offset = recent[which] if which < 3 else recent[0] - 1
        if which > 0:
            self.recent_offsets = [offset, recent[0], recent[2] if which == 1 else recent[1]]
        return offset

    def copy_match(self, offset, length):
        content = self.content
        if not 0 < offset <= len(content) or len(content) + length > self.plain_len:
            raise ValueError("a zstd match lies outside of the content")
        start = len(content) - offset
        if length <= offset:
            content += content[start:start + length]
        else:
            content += (content[start:] * (length // offset + 1))[:length]


# ---------------------------------------------------------------------------------------------------------------------
# Fields, section 1.

class Fields:
    """Reads the fields of an object one after the other, never beyond its end."""

    def __init__(self, data, blob, what=""):
        self.data, self.position = data, 0
        self.blob, self.what = blob, what

    def fail(self, why):
        raise Damaged(self.blob, f"{self.what}: {why}" if self.what else why)

    def check(self, condition, why):
        if not condition:
            self.fail(why)

    def take(self, length):
        if length > len(self.data) - self.position:
            self.fail("it ends early [GEN-3]")
        self.position += length
        return self.data[self.position - length:self.position]

    def u8(self):
        return self.take(1)[0]

    def u16(self):
        return int.from_bytes(self.take(2), "little")

    def u32(self):
        return int.from_bytes(self.take(4), "little")

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def text(self, length):
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            self.fail("it has text that is not UTF-8 [GEN-2]")

    def str8(self):
        return self.text(self.u8())

    def str16(self):
        return self.text(self.u16())

    def has(self):
        """A "has" field."""
        value = self.u8()
        self.check(value <= 1, f"a field that is 0 or 1 is {value} [DEC-1]")
        return value == 1

    def magic_and_version(self, magic):
        self.check(self.take(8) == magic, "its magic is wrong [GEN-7]")
        version = self.u16()
        self.check(version == 0, f"it has format version {version}: a newer Keepstone is needed [GEN-7]")

    def count(self, value, item_len, at_most=None):
        """A count of items that have at least `item_len` bytes each [GEN-4]."""
        self.check(at_most is None or value <= at_most, f"it has {value} items, {at_most} are allowed [section 12]")
        self.check(value * item_len <= len(self.data) - self.position, "it has no bytes for a count [GEN-4]")
        return range(value)

    def sorted(self, items):
        """`items`, which must be in strictly ascending order [GEN-6]."""
        self.check(all(a < b for a, b in zip(items, items[1:])), "a list is not sorted [GEN-6]")
        return items

    def end(self):
        self.check(self.position == len(self.data), "it has bytes left over [GEN-3]")


def str8(text):
    data = text.encode()
    return bytes([len(data)]) + data


def str16(text):
    data = text.encode()
    return struct.pack("<H", len(data)) + data


# ---------------------------------------------------------------------------------------------------------------------
# Blobs and their names, section 2.

SID, NUMBER, SHORT = "[0-9a-f]{32}", "[0-9a-f]{8}", "[a-z0-9][a-z0-9-]{0,62}"
NAME_FORMS = {
    "config": re.compile("config"),
    "key slot": re.compile(f"keys/(?P<slot>{SHORT})"),
    "intent": re.compile(f"s/(?P<writer>{SHORT})/(?P<sid>{SID})"),
    "data pack": re.compile(f"d/(?P<writer>{SHORT})/(?P<sid>{SID})-(?P<number>{NUMBER})"),
    "map pack": re.compile(f"m/(?P<writer>{SHORT})/(?P<sid>{SID})-(?P<number>{NUMBER})"),
    "index": re.compile(f"i/(?P<writer>{SHORT})/(?P<sid>{SID})-(?P<number>{NUMBER})"),
    "decision": re.compile(f"r/(?P<vmtag>{SID})/(?P<writer>{SHORT})/(?P<number>{NUMBER})-(?P<sid>{SID})"),
    "tombstone": re.compile(f"f/(?P<vmtag>{SID})/(?P<sid>{SID})"),
    "generation": re.compile(f"gc/(?P<number>{NUMBER})/(?P<part>condemned|awaited|result|sealed)"),
    "repack record": re.compile(f"k/(?P<sid>{SID})"),
    "pin": re.compile(f"p/(?P<vmtag>{SID})/(?P<sid>{SID})-(?P<number>{NUMBER})"),
    "barrier": re.compile(f"b/(?P<replica>{SHORT})/(?P<number>{NUMBER})"),
    "replica marker": re.compile("lineage/replica"),
    "lineage": re.compile(f"lineage/(?P<number>{NUMBER})"),
    "canary": re.compile("(s|d|m|i)/(-|h_|~)|(r|f|gc|k|p)/(-|7_|~)"),
}

PACK_LEN_MIN, PACK_LEN_MAX = 335, 288 * MIB
CONFIG_LEN_MAX, SLOT_LEN_MAX = 64 * KIB, 16 * KIB
SEALED_PLAIN_MAX = 64 * MIB
PAGE_LEN_MAX, NODE_LEN_MAX = 8 * MIB, 32 * MIB


class BlobDirectory:
    """A directory with a file for each blob. Only reads."""

    def __init__(self, path):
        self.path = path
        if not os.path.isfile(os.path.join(path, "config")):
            raise Failed(f"{path} is no repository: it has no file `config`")

    def names(self):
        """The names of all files, sorted."""
        found = []
        for directory, below, files in os.walk(self.path):
            if directory == self.path and ".tmp" in below:
                below.remove(".tmp")  # what is being written [NAME-6]
            for file in files:
                found.append(os.path.relpath(os.path.join(directory, file), self.path).replace(os.sep, "/"))
        return sorted(found)

    def length(self, name):
        try:
            return os.stat(os.path.join(self.path, name)).st_size
        except FileNotFoundError:
            raise Missing(name, "is missing") from None

    def read(self, name, offset=0, length=None, at_most=None):
        """The bytes from `offset` on; the whole blob has to be at most so long."""
        blob_len = self.length(name)
        if at_most is not None and blob_len > at_most:
            raise Damaged(name, f"it has {blob_len} bytes, at most {at_most} are allowed [section 12]")
        length = blob_len - offset if length is None else length
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise Damaged(name, f"cannot be read: {error.strerror}") from None
        if len(data) != length:
            raise Damaged(name, "it ends early [GEN-3]")
        return data


def parse_name(kind, name):
    """The parts of a name of that kind, or None if it has another form [NAME-1, NAME-2]."""
    match = NAME_FORMS[kind].fullmatch(name)
    return match and match.groupdict()


def kind_of(name):
    """Which kind of blob a name tells, or None [NAME-3]."""
    return next((kind for kind in NAME_FORMS if parse_name(kind, name) is not None), None)


def is_label(text, at_most):
    """Whether this may be a VM's name, a disk's key or a tag [NAME-4]."""
    return 1 <= len(text.encode()) <= at_most and not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)


# ---------------------------------------------------------------------------------------------------------------------
# Config and key slots, sections 4 and 5.

def json_object(data, blob, members):
    """A JSON object with exactly these members; a nested dict stands for an object within [GEN-9, CONF-2, SLOT-1]."""
    def once(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise ValueError("a member is repeated")
        return dict(pairs)

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_int=digits_alone,
                           parse_float=digits_alone, parse_constant=digits_alone)
    except (ValueError, RecursionError) as error:
        raise Damaged(blob, f"not a JSON object: {error}") from None
    check_members(value, blob, members)
    return value


def digits_alone(text):
    """A number, which has neither a sign nor a fraction nor an exponent [GEN-9]."""
    if not re.fullmatch("[0-9]+", text):
        raise ValueError(f"a number is written {text}")
    return int(text)


def check_members(value, blob, members):
    if not isinstance(value, dict):
        raise Damaged(blob, "not a JSON object where one must be")
    if "keepstone" in members:
        check_member(value.get("keepstone"), "member keepstone", blob, members["keepstone"])
    # A newer format may have other members, so its number comes first.
    if "format" in members and type(value.get("format")) is int and value["format"] > 0:
        raise Failed(f"{blob} has format {value['format']}: a newer reader or a newer Keepstone is needed [CONF-2]")
    if value.keys() != members.keys():
        wrong = ", ".join(sorted(value.keys() ^ members.keys()))
        raise Damaged(blob, f"unknown or missing members: {wrong} [CONF-2]")
    for name, form in members.items():
        check_member(value[name], f"member {name}", blob, form)


def check_member(value, what, blob, form):
    """`form` is a dict (an object), a number (of bytes in hex), a range (of numbers), a frozenset (of texts), or the
    value itself."""
    if isinstance(form, dict):
        check_members(value, blob, form)
    elif isinstance(form, range):
        if type(value) is not int or value not in form:
            raise Damaged(blob, f"{what} is not a number that is allowed")
    elif type(form) is int:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * form}}}", value):
            raise Damaged(blob, f"{what} is not {form} bytes in hex")
    elif isinstance(form, frozenset):
        if not isinstance(value, str) or value not in form:
            raise Damaged(blob, f"{what} is {value!r}, which is not known")
    elif form is str:
        if not isinstance(value, str) or any(0xD800 <= ord(c) < 0xE000 for c in value):
            raise Damaged(blob, f"{what} is not text")
    elif value != form or type(value) is not type(form):
        raise Damaged(blob, f"{what} is {value!r} instead of {form!r}")


ANY_U32, ANY_U64, ZERO = range(1 << 32), range(1 << 64), range(1)
CHUNKERS = frozenset({"fastcdc-2020", "mincdc-hash4"})
SLOT_KINDS = frozenset({"root", "retention", "inventory"})
CONFIG_MEMBERS = {
    "keepstone": "repository", "format": ZERO, "id": 16, "created": ANY_U64,
    "chunker": {"name": CHUNKERS, "min": ANY_U32, "average": ANY_U32, "max": ANY_U32},
    "regionLen": ANY_U32, "cellLen": ANY_U32, "packLen": ANY_U32, "dataPublicKey": 32,
    "retentionPublicKey": 32, "mac": 32,
}
SLOT_MEMBERS = {
    "keepstone": "key", "format": ZERO, "repository": 16, "kind": SLOT_KINDS, "label": str, "created": ANY_U64,
    "kdf": {"name": "argon2id", "memoryKiB": ANY_U32, "passes": ANY_U32, "lanes": ANY_U32, "salt": 32},
    "sealed": 48,
}


class Config:
    """What the config tells [CONF-1, CONF-4]. Not to be believed before `check_mac`."""

    def __init__(self, data):
        value = json_object(data, "config", CONFIG_MEMBERS)
        self.repository_id = bytes.fromhex(value["id"])
        self.created = value["created"]
        self.chunker = value["chunker"]["name"]
        self.min, self.average, self.max = (value["chunker"][name] for name in ("min", "average", "max"))
        self.region_len, self.cell_len, self.pack_len = value["regionLen"], value["cellLen"], value["packLen"]
        self.data_public_key = bytes.fromhex(value["dataPublicKey"])
        self.retention_public_key = bytes.fromhex(value["retentionPublicKey"])
        self.mac = bytes.fromhex(value["mac"])
        allowed = (
            64 <= self.min <= self.average <= self.max <= self.cell_len and self.max >= 1024
            and (
                self.average == (self.min + self.max) // 2 if self.chunker == "mincdc-hash4"
                else not (self.min % 2 or self.average % 2 or self.max % 2) and self.average >= 256
            )
            and 4 * KIB <= self.cell_len <= MIB and self.cell_len & self.cell_len - 1 == 0
            and self.cell_len <= self.region_len <= 64 * MIB and self.region_len % self.cell_len == 0
            and 64 * KIB <= self.pack_len <= 256 * MIB
        )
        if not allowed:
            raise Damaged("config", "its parameters are not allowed [CONF-4]")

    def check_mac(self, keys):
        """CONF-3 and KEY-2."""
        body = (b"keepstone config" + struct.pack("<I", 0) + self.repository_id + struct.pack("<Q", self.created)
                + str8(self.chunker) + struct.pack("<6I", self.min, self.average, self.max, self.region_len,
                                                     self.cell_len, self.pack_len) + self.data_public_key + self.retention_public_key)
        if not hmac.compare_digest(self.mac, keyed(keys.config_mac, body)):
            raise Damaged("config", "its MAC is wrong [CONF-3]")
        if keys.data_public_key != self.data_public_key:
            raise Damaged("config", "its data public key is not that of the root key [KEY-2]")


class Keys:
    """All that is derived from the root key [KEY-1]."""

    def __init__(self, root_key, repository_id):
        material = root_key + repository_id
        self.chunk_id = derive("keepstone v0 chunk id", material)
        self.inventory = derive("keepstone v0 inventory", material)
        self.data_private_key = X25519PrivateKey.from_private_bytes(
            derive("keepstone v0 data private key", material))
        self.data_public_key = self.data_private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.map_id = derive("keepstone v0 map id", self.inventory)
        self.vm_tag = derive("keepstone v0 vm tag", self.inventory)
        self.config_mac = derive("keepstone v0 config mac", self.inventory)
        self.seal_hash = derive("keepstone v0 seal hash", self.inventory)


def open_slot(name, data, repository_id, password):
    """The key in a slot, or None if the password is not that of the slot [SLOT-3]."""
    value = json_object(data, name, SLOT_MEMBERS)
    check_slot(name, value, repository_id)
    memory, passes, lanes = (value["kdf"][member] for member in ("memoryKiB", "passes", "lanes"))
    salt = bytes.fromhex(value["kdf"]["salt"])
    associated_data = (b"keepstone key slot" + struct.pack("<I", 0) + repository_id + str8(name[len("keys/"):])
                       + str8(value["kind"]) + str8(value["label"]) + struct.pack("<Q", value["created"])
                       + struct.pack("<III", memory, passes, lanes) + salt)
    slot_key = argon2id(password, salt, memory, passes, lanes)
    return aead_open(slot_key, bytes(12), bytes.fromhex(value["sealed"]), associated_data)


def check_slot(name, value, repository_id):
    """What is checked before anything is derived [SLOT-1, SLOT-4]."""
    if value["repository"] != repository_id.hex():
        raise Damaged(name, "it is a slot of another repository")
    label = value["label"].encode()
    if len(label) > 255:
        raise Damaged(name, "its label is too long [SLOT-1]")
    memory, passes, lanes = (value["kdf"][member] for member in ("memoryKiB", "passes", "lanes"))
    allowed = (1 <= lanes <= 16 and 8 * lanes <= memory <= 1 << 20 and 1 <= passes <= 64
               and memory * passes <= 4 << 20)
    if not allowed:
        raise Damaged(name, "the cost of its password is not allowed [SLOT-4]")


def open_slots(blobs, config, password):
    """The keys of the first root slot that opens and fits the config; tries 64 that are not rejected [SLOT-5]."""
    slots = [name for name in blobs.names() if kind_of(name) == "key slot"]
    if not slots:
        raise Failed("there is no key slot: `keys/` is missing or empty, and without a slot nothing can be read")
    tried, misfit = [], None
    for number, name in enumerate(slots):
        if len(tried) == 64:
            raise misfit or Failed("the password opens none of the first 64 key slots; "
                                   f"{len(slots) - number} were not tried")
        try:
            data = blobs.read(name, at_most=SLOT_LEN_MAX)
            if json_object(data, name, SLOT_MEMBERS)["kind"] != "root":
                continue
            key = open_slot(name, data, config.repository_id, password)
        except (Damaged, Failed) as error:
            warn(f"this key slot is left out: {error}")
            continue
        tried.append(name)
        if key is None:
            continue
        keys = Keys(key, config.repository_id)
        try:
            config.check_mac(keys)
            return keys
        except Damaged as error:
            misfit = error
    raise misfit or Failed(f"the password opens none of the {len(tried)} key slots that can be tried: {', '.join(tried)}")


# ---------------------------------------------------------------------------------------------------------------------
# Packs, tables and locations, sections 7 and 8.2.

DATA_PACK, MAP_PACK = 1, 2
CHUNK, PAGE, NODE = 1, 2, 3
PAYLOAD_NAMES = {CHUNK: "chunk", PAGE: "page", NODE: "node"}
PACK_HEADER_LEN, TAG_LEN = 176, 16


class Pack(NamedTuple):
    """A pack, as a pack table lists it. The order of the fields is the order of tables [TABLE-1]."""
    kind: int
    writer: bytes
    session: bytes
    number: int
    length: int

    @property
    def name(self):
        return f"{'dm'[self.kind - 1]}/{self.writer.decode()}/{self.session.hex()}-{self.number:08x}"


class Location(NamedTuple):
    """Where a payload is stored [TABLE-2]."""
    pack: Pack
    codec: int
    offset: int
    stored_len: int
    plain_len: int
    payload_id: bytes


def plain_max(kind, config):
    """The limits of section 12."""
    return {CHUNK: config.max, PAGE: PAGE_LEN_MAX, NODE: NODE_LEN_MAX}[kind]


def check_lengths(fields, codec, stored_len, plain_len, at_most):
    """Whether a frame may have these lengths [PACK-2]."""
    fields.check(codec in (1, 2), f"codec {codec} is unknown [PACK-2]")
    fields.check(1 <= plain_len <= at_most, f"a plain length of {plain_len} is not allowed [section 12]")
    if codec == 1:
        fields.check(stored_len == plain_len + TAG_LEN, "a stored length does not fit its plain length [PACK-2]")
    else:
        fields.check(TAG_LEN < stored_len < plain_len + TAG_LEN, "a stored length does not fit its codec [PACK-2]")


def read_table(fields, holder=None):
    """A pack table [TABLE-1]; `holder` is the pack that the object lies in, if it lies in one [TABLE-4]."""
    packs, groups = [], []
    for _ in fields.count(fields.u32(), 1 + 2 + 16 + 4 + 8):
        kind = fields.u8()
        fields.check(kind in (DATA_PACK, MAP_PACK), f"pack kind {kind} is unknown [TABLE-1]")
        writer = fields.str8()
        fields.check(re.fullmatch(SHORT, writer), "a pack's writer has no valid name [NAME-1]")
        session = fields.take(16)
        groups.append((kind, writer.encode(), session))
        count = fields.u32()
        fields.check(count > 0, "a group of packs is empty [TABLE-1]")
        numbers = []
        for _ in fields.count(count, 8):
            number, length = fields.u32(), fields.u32()
            numbers.append(number)
            packs.append(resolve(fields, Pack(kind, writer.encode(), session, number, length), holder))
        fields.sorted(numbers)
    fields.sorted(groups)
    return packs


def resolve(fields, pack, holder):
    """The pack with its length, which is 0 for the pack that the table itself lies in [TABLE-2, TABLE-4]."""
    if holder is not None and pack[:4] == holder[:4]:
        fields.check(pack.length == 0, "a table tells the length of the pack that it lies in [TABLE-4]")
        return holder
    check_pack_len(fields, pack)
    return pack


def check_pack_len(fields, pack):
    fields.check(PACK_LEN_MIN <= pack.length <= PACK_LEN_MAX,
                 f"a pack of {pack.length} bytes is not allowed [TABLE-2]")


def read_location(fields, codec, kind, table, config):
    """A location after its codec, of a payload of that kind [TABLE-2]."""
    entry = fields.u32()
    fields.check(entry < len(table), "a location has an entry number that its table has not [TABLE-2]")
    return checked_location(fields, codec, kind, table[entry], config), entry


def checked_location(fields, codec, kind, pack, config):
    location = Location(pack, codec, fields.u32(), fields.u32(), fields.u32(), fields.take(32))
    check_lengths(fields, codec, location.stored_len, location.plain_len, plain_max(kind, config))
    fields.check(location.offset >= PACK_HEADER_LEN and location.offset + location.stored_len <= pack.length,
                 "a location lies outside of its pack [TABLE-2]")
    fields.check(pack.kind == (DATA_PACK if kind == CHUNK else MAP_PACK),
                 "a location names a pack of the wrong kind [PACK-7]")
    return location


def parse_pack_header(fields):
    """Kind, directory offset, directory length and frame count, after all that can be checked without a key."""
    fields.magic_and_version(b"KEEPPACK")
    kind, flags, offset, length, count = fields.u8(), fields.u8(), fields.u32(), fields.u32(), fields.u32()
    fields.check(kind in (DATA_PACK, MAP_PACK), f"pack kind {kind} is unknown [section 7]")
    fields.check(flags == 0 and fields.u64() == 0, "a reserved or flag field is not 0 [GEN-5]")
    fields.check(offset > PACK_HEADER_LEN and count > 0, "it has no frame [PACK-1]")
    fields.check(count * (TAG_LEN + 1) <= offset - PACK_HEADER_LEN,
                 "its frames do not fit before its directory [PACK-1]")
    fields.check(length == 80 + 4 + 42 * count + TAG_LEN,
                 "its directory has a length that does not fit its frames [PACK-8]")
    fields.check(PACK_LEN_MIN <= offset + length <= PACK_LEN_MAX, "its length is not allowed [section 12]")
    fields.take(64)
    of_session = fields.take(80)
    fields.check(kind == DATA_PACK or not any(of_session), "a map pack has a sealed session key [GEN-5]")
    fields.end()
    return kind, offset, length, count


def parse_directory(fields, pack, directory_offset, config):
    """All frames of a pack as (kind, location), in the order of offsets [PACK-8]."""
    frames, offset = [], PACK_HEADER_LEN
    for _ in fields.count(fields.u32(), 42):
        kind, codec, plain_len, stored_len = fields.u8(), fields.u8(), fields.u32(), fields.u32()
        fields.check(kind in ((CHUNK,) if pack.kind == DATA_PACK else (PAGE, NODE)),
                     "a payload is in the wrong kind of pack [PACK-7]")
        check_lengths(fields, codec, stored_len, plain_len, plain_max(kind, config))
        frames.append((kind, Location(pack, codec, offset, stored_len, plain_len, fields.take(32))))
        offset += stored_len
    fields.end()
    fields.check(frames and offset == directory_offset, "its frames do not end where its directory begins [PACK-8]")
    return frames


class PackHeader(NamedTuple):
    """What the first 176 bytes of a pack tell."""
    first_64: bytes
    directory_offset: int
    directory_len: int
    frame_count: int
    key: bytes
    key_hash: bytes
    base_key: bytes


# ---------------------------------------------------------------------------------------------------------------------
# Sealed objects, section 6, and the repository as a whole.

INTENT, DECISION, INDEX, TOMBSTONE, CONDEMNED, RESULT, GENERATION_SEAL, REPACK_RECORD, PACK_DIRECTORY, PIN = range(1, 11)
AWAITED, REPLICA_MARKER, LINEAGE, BARRIER = range(11, 15)
PLACE_LEN_MAX = 4096
SIGNATURE_LEN = 64


class Repository:
    """A repository that was opened with a password."""

    def __init__(self, path, password):
        self.blobs = BlobDirectory(path)
        self.config = Config(self.blobs.read("config", at_most=CONFIG_LEN_MAX))
        self.keys = open_slots(self.blobs, self.config, password)
        self.headers = {}
        self.session_keys = {}
        # Where repack records lead, once they were looked for; and the packs that were reached so.
        self.leads = None
        self.reached = set()

    def open_sealed(self, data, name, object_type):
        """The fields of a sealed object that the blob of that name holds [SEAL-1 to SEAL-4]."""
        fields = Fields(data, name)
        fields.magic_and_version(b"KEEPSEAL")
        fields.check(fields.u8() == object_type, "its type is not that of its name [SEAL-4]")
        fields.check(fields.u8() == 0, "its flags are not 0 [GEN-5]")
        plain_len, salt, key_hash = fields.u32(), fields.take(32), fields.take(32)
        fields.check(plain_len <= SEALED_PLAIN_MAX, "its plaintext is too long [section 12]")
        sealed = fields.take(plain_len + TAG_LEN)
        fields.end()
        identity = self.config.repository_id + str16(name)
        key = derive("keepstone v0 seal key", self.keys.inventory + salt + key_hash)
        plain = aead_open(key, bytes(12), sealed, data[:80] + identity)
        fields.check(plain is not None, "its tag is wrong: it was changed, or belongs elsewhere [SEAL-4]")
        expected = keyed(self.keys.seal_hash, data[:48] + identity + plain)
        fields.check(hmac.compare_digest(key_hash, expected), "its key hash is wrong [SEAL-4]")
        return Fields(plain, name)

    def sealed_blob(self, name, object_type):
        return self.open_sealed(self.blobs.read(name, at_most=80 + SEALED_PLAIN_MAX + TAG_LEN), name, object_type)

    def signed_blob(self, name, object_type):
        """The fields of the content of a signed object [SIG-1, SIG-2]."""
        plain = self.sealed_blob(name, object_type).data
        return self.signed_content(name, object_type, plain, max(len(plain) - SIGNATURE_LEN, 0))

    def signed_content(self, name, object_type, plain, content_len):
        content, signature = plain[:content_len], plain[content_len:]
        message = (b"keepstone v0 retention signature" + bytes([object_type]) + self.config.repository_id
                   + str16(name) + content)
        try:
            Ed25519PublicKey.from_public_bytes(self.config.retention_public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise Unsigned(name, "the retention key did not sign it; it counts for nothing [SIG-2]") from None
        return Fields(content, name)

    def place(self, kind, location):
        """The location that a payload is read from: where records lead if its pack is not there any more [R-2]."""
        try:
            self.header(location.pack)
            return location
        except Missing as error:
            missing = error
        seen, packs = {location.pack.name}, [location.pack]
        while packs:
            if self.leads is None:
                self.leads = all_leads(self)
            leads = [new for new in self.leads.get(packs.pop().name, ()) if new.name not in seen]
            seen.update(new.name for new in leads)
            for new in leads:
                try:
                    frames = self.directory(new)
                except Missing:
                    packs.append(new)
                    continue
                for its_kind, found in frames:
                    if its_kind == kind and found.payload_id == location.payload_id:
                        self.reached.add(new)
                        return found
        raise missing

    def header(self, pack):
        """The header of a pack and the keys that follow from it, once."""
        if pack not in self.headers:
            blob_len = self.blobs.length(pack.name)
            if blob_len != pack.length:
                raise Damaged(pack.name, f"it has {blob_len} bytes instead of {pack.length} [TABLE-2]")
            self.headers[pack] = self.read_header(pack, self.blobs.read(pack.name, 0, PACK_HEADER_LEN))
        return self.headers[pack]

    def read_header(self, pack, data):
        fields = Fields(data, pack.name)
        kind, offset, length, count = parse_pack_header(fields)
        fields.check(kind == pack.kind, "its kind is not that of its name")
        fields.check(offset + length == pack.length, "its length is not what its header tells [PACK-1]")
        salt, key_hash = data[32:64], data[64:96]
        base_key = self.base_key(pack, fields, data[96:128], data[128:176])
        key = derive("keepstone v0 pack key", base_key + salt + key_hash + self.config.repository_id)
        return PackHeader(data[:64], offset, length, count, key, key_hash, base_key)

    def base_key(self, pack, fields, encapsulated, ciphertext):
        """The session key for a data pack, the inventory key for a map pack [PACK-4, KEY-3]."""
        if pack.kind == MAP_PACK:
            return self.keys.inventory
        sealed = (pack.session, encapsulated, ciphertext)
        if sealed not in self.session_keys:
            info = b"keepstone v0 session key" + self.config.repository_id
            self.session_keys[sealed] = hpke_open(self.keys.data_private_key, self.keys.data_public_key,
                                                  encapsulated, ciphertext, info, pack.session)
        fields.check(self.session_keys[sealed] is not None, "its session key does not open [KEY-3]")
        return self.session_keys[sealed]

    def payload(self, kind, location):
        """A chunk, page or node, read from where its location tells and checked [PACK-2 to PACK-6]."""
        location = self.place(kind, location)
        header = self.header(location.pack)
        name, end = location.pack.name, location.offset + location.stored_len
        if end > header.directory_offset:
            raise Damaged(name, f"the {PAYLOAD_NAMES[kind]} at {location.offset} lies behind the frames [TABLE-2]")
        sealed = self.blobs.read(name, location.offset, location.stored_len)
        return self.decode(kind, location, self.unseal(kind, location, header, sealed))

    def fixed_associated_data(self, kind, location):
        """PACK-3."""
        numbers = struct.pack("<BBHIII", kind, location.codec, 0, location.offset, location.stored_len,
                              location.plain_len)
        return numbers + self.config.repository_id + location.payload_id

    def unseal(self, kind, location, header, sealed):
        """The encoded payload of a frame [PACK-3, PACK-5]."""
        associated_data = self.fixed_associated_data(kind, location) + location.pack.name.encode()
        nonce = struct.pack("<I", location.offset) + bytes(8)
        encoded = aead_open(header.key, nonce, sealed, associated_data)
        if encoded is None:
            what = f"the {PAYLOAD_NAMES[kind]} at {location.offset}"
            raise Damaged(location.pack.name, f"the tag of {what} is wrong [PACK-5]")
        return encoded

    def decode(self, kind, location, encoded):
        """The payload, whose id was checked [PACK-2, PACK-6]."""
        what = f"the {PAYLOAD_NAMES[kind]} at {location.offset}"
        payload = encoded
        if location.codec == 2:
            try:
                payload = zstd_decode(encoded, location.plain_len)
            except ValueError as error:
                raise Damaged(location.pack.name, f"{what}: {error} [PACK-2]") from None
        id_key = self.keys.chunk_id if kind == CHUNK else self.keys.map_id
        if not hmac.compare_digest(keyed(id_key, payload), location.payload_id):
            raise Damaged(location.pack.name, f"the payload id of {what} is wrong [PACK-6]")
        return payload

    def directory(self, pack):
        """All frames of a pack as (kind, location), in the order of offsets [PACK-8]."""
        header = self.header(pack)
        data = self.blobs.read(pack.name, header.directory_offset, header.directory_len)
        fields = self.open_sealed(data, pack.name, PACK_DIRECTORY)
        frames = parse_directory(fields, pack, header.directory_offset, self.config)
        fields.check(len(frames) == header.frame_count, "it has another frame count than its header [PACK-8]")
        return frames

    def check_pack(self, pack):
        """Reads a pack from its first to its last byte and checks all of it; the bytes of its payloads."""
        header, frames = self.header(pack), self.directory(pack)
        data = self.blobs.read(pack.name)
        hashed = [header.first_64, self.config.repository_id, str16(pack.name)]
        hashed += [self.fixed_associated_data(kind, location) for kind, location in frames]
        for kind, location in frames:
            sealed = data[location.offset:location.offset + location.stored_len]
            encoded = self.unseal(kind, location, header, sealed)
            self.decode(kind, location, encoded)
            hashed += [encoded, bytes(TAG_LEN)]
        expected = keyed(derive("keepstone v0 pack hash", header.base_key), b"".join(hashed))
        if not hmac.compare_digest(header.key_hash, expected):
            raise Damaged(pack.name, "its key hash is wrong [PACK-4]")
        return sum(location.plain_len for _, location in frames)


# ---------------------------------------------------------------------------------------------------------------------
# Decisions, tombstones, intents, indexes, sections 9 and 10.

class DecisionName(NamedTuple):
    """INDEX-2."""
    vmtag: bytes
    writer: str
    seq: int
    session: bytes

    @property
    def blob(self):
        return f"r/{self.vmtag.hex()}/{self.writer}/{self.seq:08x}-{self.session.hex()}"


def read_decision_name(fields):
    name = DecisionName(fields.take(16), fields.str8(), fields.u32(), fields.take(16))
    fields.check(re.fullmatch(SHORT, name.writer), "a writer has no valid name [NAME-1]")
    return name


class Disk(NamedTuple):
    """A disk of a snapshot; `root` is None if it is one hole [DEC-3]."""
    key: str
    size: int
    root: Location | None


class Snapshot(NamedTuple):
    """A valid root [R-3]."""
    name: str
    session: bytes
    time: int
    vm: str
    tags: list
    disks: list
    via: list

    @property
    def id(self):
        return self.session.hex()


COMMIT, ABORT, REPACK = 1, 2, 3
PRUNER = 2


def read_decision(repository, name):
    """The snapshot of a COMMIT, else the verdict [DEC-5]."""
    parts = parse_name("decision", name)
    fields = repository.sealed_blob(name, DECISION)
    aborted_by = begin_of_abort(fields)
    if aborted_by is not None and aborted_by[0] == PRUNER:
        fields = repository.signed_content(name, DECISION, fields.data, aborted_by[1])
    session, decision = parse_decision(fields, name, repository.config)
    fields.check(session.hex() == parts["sid"], "its session id is not that of its name [DEC-5]")
    if decision != ABORT:
        vm = "" if decision == REPACK else decision.vm
        tag = keyed(repository.keys.vm_tag, vm.encode())[:16]
        fields.check(tag.hex() == parts["vmtag"], "its VM is not that of its name [DEC-5]")
    return decision


def begin_of_abort(fields):
    """Who aborted and where the content ends, if it looks like an ABORT: one by a pruner is signed [DEC-6]."""
    begin = Fields(fields.data, fields.blob)
    try:
        verdict, _session, _time, _program = begin.u8(), begin.take(16), begin.u64(), begin.str8()
        return (begin.u8(), begin.position) if verdict == ABORT else None
    except Damaged:
        return None


def parse_decision(fields, name, config):
    """The session id, and the snapshot or the verdict [DEC-1 to DEC-4]."""
    verdict, session, created, _program = fields.u8(), fields.take(16), fields.u64(), fields.str8()
    fields.check(verdict in (COMMIT, ABORT, REPACK), f"verdict {verdict} is unknown [DEC-1]")
    if verdict != COMMIT:
        fields.check(verdict == REPACK or fields.u8() in (1, PRUNER), "an ABORT by nobody that is known [DEC-1]")
        fields.end()
        return session, verdict
    vm = fields.str8()
    fields.check(is_label(vm, 255), "its VM has no valid name [NAME-4]")
    if fields.has():
        read_decision_name(fields)
    via = fields.sorted([fields.take(16) for _ in fields.count(fields.u32(), 16)])
    tags = fields.sorted([fields.str8().encode() for _ in fields.count(fields.u16(), 1, at_most=1024)])
    fields.check(all(is_label(tag.decode(), 128) for tag in tags), "a tag is not allowed [NAME-4]")
    properties = [(fields.str8().encode(), fields.str16()) for _ in fields.count(fields.u16(), 3, at_most=1024)]
    fields.sorted([key for key, _ in properties])
    disks = [read_disk(fields, config) for _ in fields.count(fields.u16(), 28, at_most=1024)]
    fields.check(disks, "a COMMIT without a disk [DEC-3]")
    fields.sorted([disk.key.encode() for disk in disks])
    fields.take(5 * 8 + 2 * 4)  # the totals [DEC-4]
    fields.end()
    return session, Snapshot(name, session, created, vm, [tag.decode() for tag in tags], disks, via)


def read_disk(fields, config):
    """DEC-3."""
    key, size = fields.str8(), fields.u64()
    fields.check(is_label(key, 128) and not set(key) & set("=:/"), "a disk's key is not allowed [NAME-4]")
    fields.check(1 <= size <= 1 << 62, f"a disk of {size} bytes is not allowed [CHUNK-1]")
    if fields.has():
        fields.str16()
    mode, _changed, _read = fields.u8(), fields.u64(), fields.u64()
    fields.check(mode in (1, 2), f"mode {mode} is unknown [DEC-3]")
    codec = fields.u8()
    if codec == 0:
        return Disk(key, size, None)
    writer = fields.str8()
    fields.check(re.fullmatch(SHORT, writer), "a pack's writer has no valid name [NAME-1]")
    pack = Pack(MAP_PACK, writer.encode(), fields.take(16), fields.u32(), fields.u32())
    check_pack_len(fields, pack)
    return Disk(key, size, checked_location(fields, codec, NODE, pack, config))


def read_tombstone(repository, name):
    """When a snapshot was forgotten, and the name of its decision [TOMB-1]."""
    parts = parse_name("tombstone", name)
    fields = repository.signed_blob(name, TOMBSTONE)
    when, decision = parse_tombstone(fields)
    fields.check(decision.session.hex() == parts["sid"] and decision.vmtag.hex() == parts["vmtag"],
                 "it is the tombstone of another session [TOMB-1]")
    return when, decision


def parse_tombstone(fields):
    session, when, decision = fields.take(16), fields.u64(), read_decision_name(fields)
    fields.end()
    fields.check(decision.session == session, "its decision's name has another session id [INDEX-2]")
    return when, decision


class Result(NamedTuple):
    """What a generation deletes, what was needed after all, and what the generations before it deleted [GC-2]."""
    delete: list
    rescued: list
    covers: int
    earlier: list


def read_generation(repository, name):
    """The packs of `condemned`, the `Result` of `result`, the sessions of `sealed`, what `awaited` says [GC-1 to GC-4]."""
    parts = parse_name("generation", name)
    object_type, parse = GENERATION_PARTS[parts["part"]]
    said = parse(repository.signed_blob(name, object_type))
    if isinstance(said, Result) and said.covers > int(parts["number"], 16) + 1:
        raise Damaged(name, "it speaks for more generations than there were [GC-2]")
    return said


def parse_condemned(fields):
    packs = read_table(fields)
    fields.end()
    return packs


def parse_result(fields):
    result = Result(read_table(fields), read_table(fields), fields.u32(), read_table(fields))
    fields.end()
    fields.check(result.covers >= 1, "it does not speak for its own generation [GC-2]")
    fields.check(result.covers > 1 or not result.earlier, "it tells of generations that it does not speak for [GC-2]")
    return result


def parse_awaited(fields):
    """The hash of the blob `condemned`, and sessions with their writers."""
    condemned = fields.take(32)
    sessions = [(fields.take(16), fields.str8()) for _ in fields.count(fields.u32(), 18)]
    fields.end()
    fields.check(all(re.fullmatch(SHORT, writer) for _, writer in sessions), "a writer has no valid name [NAME-1]")
    return condemned, fields.sorted(sessions)


def parse_seal(fields):
    roster = fields.sorted([fields.take(16) for _ in fields.count(fields.u32(), 16)])
    fields.end()
    return roster


GENERATION_PARTS = {"condemned": (CONDEMNED, parse_condemned), "awaited": (AWAITED, parse_awaited),
                    "result": (RESULT, parse_result), "sealed": (GENERATION_SEAL, parse_seal)}


def all_leads(repository):
    """For the name of each old pack, the new packs of the records that count [R-2]."""
    leads = {}
    for name in repository.blobs.names():
        if kind_of(name) != "repack record":
            continue
        try:
            record = read_record(repository, name)
            if read_decision(repository, record.decision.blob) != REPACK:
                continue
        except Damaged as error:
            warn(f"this repack record is not followed: {error}")
            continue
        for old, new in record.leads:
            leads.setdefault(old.name, []).extend(new)
    return leads


class Record(NamedTuple):
    """A repack record; its leads as (old pack, new packs) [REPACK-1]."""
    decision: DecisionName
    applies_to: list
    leads: list


def read_record(repository, name):
    """REPACK-1."""
    fields = repository.signed_blob(name, REPACK_RECORD)
    record = parse_record(fields)
    fields.check(record.decision.session.hex() == parse_name("repack record", name)["sid"],
                 "it is the record of another session [REPACK-1]")
    return record


def parse_record(fields):
    session, decision = fields.take(16), read_decision_name(fields)
    fields.check(decision.session == session, "its decision's name has another session id [INDEX-2]")
    applies_to = fields.sorted([fields.take(16) for _ in fields.count(fields.u32(), 16)])
    table, leads, used = read_table(fields), [], set()
    for _ in fields.count(fields.u32(), 8):
        old, new = fields.u32(), [fields.u32() for _ in fields.count(fields.u32(), 4)]
        fields.sorted(new)
        fields.check(max([old, *new]) < len(table), "an entry number is not in the table [TABLE-2]")
        fields.check(new, "an old pack leads nowhere [REPACK-1]")
        fields.check(table[old].session != session, "an old pack is of the repack session itself [REPACK-1]")
        fields.check(all((table[number].session, table[number].writer) == (session, decision.writer.encode())
                         for number in new), "a new pack is not of the repack session [REPACK-1]")
        fields.check(all(table[number].kind == table[old].kind for number in new),
                     "an old pack leads to one of another kind [REPACK-1]")
        used.update([old, *new])
        leads.append((old, [table[number] for number in new]))
    fields.sorted([old for old, _ in leads])
    fields.check(len(used) == len(table), "its table has packs that it does not refer to [TABLE-3]")
    fields.end()
    return Record(decision, applies_to, [(table[old], new) for old, new in leads])


class Pin(NamedTuple):
    """PIN-1. A restore needs no pin."""
    decision: DecisionName
    time: int
    pinned: bool
    reason: str


def read_pin(repository, name):
    """PIN-1."""
    parts = parse_name("pin", name)
    fields = repository.signed_blob(name, PIN)
    pin = parse_pin(fields)
    fields.check(pin.decision.session.hex() == parts["sid"] and pin.decision.vmtag.hex() == parts["vmtag"],
                 "it is the pin of another session [PIN-1]")
    return pin


def parse_pin(fields):
    session, decision = fields.take(16), read_decision_name(fields)
    pin = Pin(decision, fields.u64(), fields.has(), fields.str8())
    fields.end()
    fields.check(decision.session == session, "its decision's name has another session id [INDEX-2]")
    return pin


def read_barrier(repository, name):
    """BAR-1: what a fact about a replica says, in words. A restore needs none."""
    parts = parse_name("barrier", name)
    fields = repository.signed_blob(name, BARRIER)
    replica, number, said = parse_barrier(fields)
    fields.check(replica == parts["replica"] and number == int(parts["number"], 16), "it is another fact [BAR-1]")
    return said


def parse_barrier(fields):
    replica, number, time, what = fields.str8(), fields.u32(), fields.u64(), fields.u8()
    fields.check(re.fullmatch(SHORT, replica), "a replica has no valid name [NAME-1]")
    fields.check(1 <= what <= 3, "what it tells is not known [BAR-1]")
    said = [f"tells at {time} that it is not waited for any more"]
    if what == 1:
        said = [f"tells at {time} that it is waited for, at {parse_place(fields)}"]
    elif what == 3:
        sessions = fields.sorted([(fields.take(16), fields.str8()) for _ in fields.count(fields.u32(), 18)])
        fields.check(all(re.fullmatch(SHORT, writer) for _, writer in sessions), "a writer has no valid name [NAME-1]")
        said = [f"tells at {time} that {session.hex()} of {writer} is whole there" for session, writer in sessions]
    fields.end()
    return replica, number, said


def parse_place(fields):
    place = fields.str16()
    fields.check(len(place.encode()) <= PLACE_LEN_MAX, "a place is too long [section 12]")
    return place


def parse_marker(fields):
    """LIN-1."""
    said = [f"is filled since {fields.u64()} from {parse_place(fields)}"]
    fields.end()
    return said


def read_lineage(repository, name):
    """LIN-2: what it says, in words. A restore needs none."""
    fields = repository.signed_blob(name, LINEAGE)
    number, said = parse_lineage(fields)
    fields.check(number == int(parse_name("lineage", name)["number"], 16), "it is another lineage [LIN-2]")
    return said


def parse_lineage(fields):
    number, identity, time, what, first = fields.u32(), fields.take(16), fields.u64(), fields.u8(), fields.u32()
    names = [read_decision_name(fields) for _ in fields.count(fields.u32(), 38)]
    fields.end()
    fields.sorted([(name.vmtag, name.writer, name.seq, name.session) for name in names])
    fields.check(number > 0, "lineages are numbered from 1 [LIN-2]")
    fields.check(what in (1, 2), "what happened is not known [LIN-2]")
    happened = "was promoted" if what == 1 else "is alone"
    return number, [f"{happened} at {time} as {identity.hex()}, with its own generations from {first}",
                    *(f"sets {name.blob} aside" for name in names)]


def check_intent(repository, name):
    """INTENT-1."""
    parts = parse_name("intent", name)
    fields = repository.sealed_blob(name, INTENT)
    decision = parse_intent(fields)
    fields.check(decision.session.hex() == parts["sid"] and decision.writer == parts["writer"],
                 "it is the intent of another session [INTENT-1]")


def parse_intent(fields):
    session, decision = fields.take(16), read_decision_name(fields)
    _generation, _time = fields.u32(), fields.u64()
    fields.end()
    fields.check(decision.session == session, "its decision's name has another session id [INDEX-2]")
    return decision


def check_index(fields, config):
    """INDEX-1, INDEX-2. A restore needs no index [INDEX-3]."""
    writers = {}
    for _ in fields.count(fields.u32(), 16 + 38):
        session, decision = fields.take(16), read_decision_name(fields)
        fields.check(decision.session == session, "a decision's name has another session id [INDEX-2]")
        writers[session] = decision.writer.encode()
        fields.check(list(writers)[-1] == session and max(writers) == session, "a list is not sorted [GEN-6]")
    table = read_table(fields)
    fields.check(all(pack.kind == DATA_PACK and writers.get(pack.session) == pack.writer for pack in table),
                 "it has packs of other sessions [INDEX-1]")
    ids, used = [], set()
    for _ in fields.count(fields.u32(), 49):
        payload_id, codec, entry = fields.take(32), fields.u8(), fields.u32()
        fields.check(entry < len(table), "an entry number is not in the table [TABLE-2]")
        offset, stored_len, plain_len = fields.u32(), fields.u32(), fields.u32()
        check_lengths(fields, codec, stored_len, plain_len, config.max)
        fields.check(offset >= PACK_HEADER_LEN and offset + stored_len <= table[entry].length,
                     "a location lies outside of its pack [TABLE-2]")
        ids.append(payload_id)
        used.add(entry)
    fields.sorted(ids)
    fields.check(len(used) == len(table), "its table has packs that it does not refer to [TABLE-3]")
    fields.end()


def snapshots(repository, on_damage):
    """All valid roots, the oldest first [R-3]. `on_damage` is called with each decision or tombstone that is damaged."""
    forgotten, found = set(), []
    for name in repository.blobs.names():
        try:
            if kind_of(name) == "tombstone":
                read_tombstone(repository, name)
                forgotten.add(tuple(parse_name("tombstone", name).values()))
            elif kind_of(name) == "decision":
                decision = read_decision(repository, name)
                found += [decision] if isinstance(decision, Snapshot) else []
        except Unsigned as error:
            warn(f"note: {error}")
        except Damaged as error:
            on_damage(error)
    valid = [snapshot for snapshot in found
             if (parse_name("decision", snapshot.name)["vmtag"], snapshot.id) not in forgotten]
    return sorted(valid, key=lambda snapshot: (snapshot.time, snapshot.id))


# ---------------------------------------------------------------------------------------------------------------------
# Pages and nodes, sections 8.3 and 8.4.

class Child(NamedTuple):
    """A child of a node: where it is, and the packs of its own table (levels 1 and 2)."""
    location: Location
    names: frozenset | None


def root_level(size, cell_len):
    """The level of a disk's root node, and the number of its children [NODE-1, NODE-4]."""
    level, span = 1, cell_len * 64
    while span < size:
        level, span = level + 1, span * 64
    return level, -(-size // (span // 64))


class DiskMap:
    """The map of one disk, walked from its root node down."""

    def __init__(self, repository, disk, on_damage, walked=None):
        """`on_damage(error, start, end)` may raise, or go on without that part of the disk.

        With `walked`, a dict that is kept from disk to disk, what was walked before at the same place is left out.
        """
        self.repository, self.disk, self.on_damage, self.walked = repository, disk, on_damage, walked
        # Up to where chunks reached so far; None behind a part that could not be read.
        self.reached = 0
        # All packs that were named.
        self.packs = set()

    def chunks(self):
        """Each chunk of the disk as (start, location) in their order. All between them is holes."""
        if self.disk.root is None:
            return
        level, _ = root_level(self.disk.size, self.repository.config.cell_len)
        yield from self.subtree(Child(self.disk.root, None), level, 0)

    def subtree(self, child, level, start):
        """The chunks below a node, or in a page (level 0), whose span begins at `start`."""
        end = min(self.disk.size, start + self.repository.config.cell_len * 64 ** level)
        place = (child, level, start, end, self.reached)
        if self.walked is not None and place in self.walked:
            self.reached = self.walked[place]
            return
        before = self.reached
        try:
            self.packs.add(child.location.pack)
            if level == 0:
                entries = self.read_page(child, start, end)
                self.reached = entries[-1][0] + entries[-1][1]
                children = ()
            else:
                entries, children = (), self.read_node(child, level, start, end)
        except Damaged as error:
            self.reached = None
            self.on_damage(error, start if before is None else max(start, before), end)
            return
        yield from ((position, location) for position, _, location in entries if location)
        child_span = self.repository.config.cell_len * 64 ** (level - 1)
        for number, grandchild in enumerate(children):
            if grandchild is not None:
                yield from self.subtree(grandchild, level - 1, start + number * child_span)
            elif self.reached is None or self.reached < start + (number + 1) * child_span:
                self.reached = min(end, start + (number + 1) * child_span)
        if self.walked is not None:
            self.walked[place] = self.reached

    def read_page(self, child, start, end):
        """The entries of a page as (position on the disk, length, location or None) [PAGE-1 to PAGE-4]."""
        location = child.location
        fields = Fields(self.repository.payload(PAGE, location), location.pack.name, f"the page at {location.offset}")
        entries, table = self.parse_page(fields, start, end)
        self.check_names(fields, child, table)
        return entries

    def parse_page(self, fields, start, end):
        """The entries of a page, and its table."""
        config = self.repository.config
        position = start + fields.u32()
        if start % config.region_len == 0:
            fields.check(position == start, "its first entry is not where its region starts [PAGE-1]")
        if self.reached is not None:
            fields.check(position == max(start, self.reached),
                         "its first entry is not where the last chunk ended [PAGE-1]")
        table = read_table(fields)  # of data packs only, so not of the pack that holds it
        fields.check(all(pack.kind == DATA_PACK for pack in table), "its table has a map pack [PAGE-4]")
        fields.check(position - start < config.max, "its first entry starts too late [PAGE-1]")
        entries, used = [], set()
        for _ in fields.count(fields.u32(), 5):
            fields.check(position < end, "an entry starts behind the end of its cell [PAGE-3]")
            codec, length, chunk = fields.u8(), 0, None
            if codec == 0:
                length = fields.u32()
                fields.check(length > 0, "a hole of no bytes [PAGE-2]")
                fields.check(not entries or entries[-1][2], "two holes in a row [PAGE-3]")
                fields.check(position + length <= end, "a hole reaches over the end of its cell [PAGE-3]")
            else:
                chunk, entry = read_location(fields, codec, CHUNK, table, config)
                length = chunk.plain_len
                used.add(entry)
            entries.append((position, length, chunk))
            position += length
        fields.end()
        fields.check(entries, "it has no entry [PAGE-1]")
        fields.check(len(used) == len(table), "its table has packs that it does not refer to [TABLE-3]")
        self.check_end_of_page(fields, entries, start, position, end)
        return entries, table

    def check_end_of_page(self, fields, entries, start, position, end):
        """PAGE-3, PAGE-4."""
        region_len = self.repository.config.region_len
        region_end = min(self.disk.size, start - start % region_len + region_len)
        fields.check(end <= position <= region_end, "its entries do not end where they must [PAGE-3]")
        only_a_hole = len(entries) == 1 and entries[0][2] is None and entries[0][0] == start
        fields.check(not only_a_hole, "it is one hole [PAGE-4]")

    def check_names(self, fields, child, table):
        """The parent of a page or node of level 1 has named the packs of its table [NODE-2]."""
        self.packs.update(table)
        fields.check(child.names is None or child.names == set(table),
                     "its packs are not those that its parent names [NODE-2]")

    def read_node(self, child, level, start, end):
        """The children of a node; None for one that is a hole [NODE-1 to NODE-5]."""
        config, location = self.repository.config, child.location
        fields = Fields(self.repository.payload(NODE, location), location.pack.name, f"the node at {location.offset}")
        child_span = config.cell_len * 64 ** (level - 1)
        children, table = self.parse_node(fields, level, -(-(end - start) // child_span), location.pack)
        self.check_names(fields, child, table)
        return children

    def parse_node(self, fields, level, expected_count, holder):
        """The children of a node, and its table."""
        fields.check(fields.u8() == level, "its level is not that of its place [NODE-5]")
        table = read_table(fields, holder)
        count = fields.u8()
        fields.check(count == expected_count, "it has not the children that fit its place [NODE-5]")
        children, used = [], set()
        for _ in fields.count(count, 1):
            codec = fields.u8()
            if codec == 0:
                children.append(None)
                continue
            its_location, entry = read_location(fields, codec, PAGE if level == 1 else NODE, table,
                                                self.repository.config)
            used.add(entry)
            names = None
            if level <= 2:
                entries = fields.sorted([fields.u32() for _ in fields.count(fields.u32(), 4)])
                fields.check(not entries or entries[-1] < len(table), "a name is not in the table [NODE-2]")
                used.update(entries)
                names = frozenset(table[entry] for entry in entries)
                self.check_kinds(fields, level, names)
            children.append(Child(its_location, names))
        fields.end()
        fields.check(any(children), "no chunk starts in it [NODE-4]")
        fields.check(len(used) == len(table), "its table has packs that it does not refer to [TABLE-3]")
        return children, table

    def check_kinds(self, fields, level, names):
        """NODE-2: which kinds of packs a child's table has."""
        kinds = {pack.kind for pack in names}
        if level == 1:
            fields.check(kinds <= {DATA_PACK}, "a page's names are not data packs [NODE-2]")
        else:
            fields.check(MAP_PACK in kinds, "a node's names have no map pack [NODE-2]")


# ---------------------------------------------------------------------------------------------------------------------
# The commands.

def warn(message):
    print(f"keepstone_reader: {message}", file=sys.stderr)


def mib(count):
    return f"{count / MIB:.1f} MiB"


class Progress:
    """A line on standard error every few seconds, if somebody looks."""

    def __init__(self):
        self.began = self.told = time.monotonic()

    def tell(self, done):
        now = time.monotonic()
        if now - self.told >= 10 and sys.stderr.isatty():
            self.told = now
            warn(f"{done} after {now - self.began:.0f} s")

    def rate(self, count):
        seconds = max(time.monotonic() - self.began, 0.001)
        return f"{seconds:.1f} s ({count / MIB / seconds:.1f} MiB/s)"


def list_snapshots(repository, _arguments):
    """One line for each disk of each snapshot."""
    damage = []
    for snapshot in snapshots(repository, damage.append):
        when = datetime.datetime.fromtimestamp(snapshot.time // 1000, datetime.timezone.utc)
        print(f"{snapshot.id}  {when:%Y-%m-%dT%H:%M:%SZ}  {snapshot.vm}")
        for disk in snapshot.disks:
            print(f"    {disk.key}  {disk.size} bytes")
    return told(damage)


def told(damage):
    for error in damage:
        warn(f"damaged: {error}")
    return 3 if damage else 0


def find(repository, wanted, key):
    """The snapshot whose id begins so, and its disk."""
    damage = []
    every = snapshots(repository, damage.append)
    found = [snapshot for snapshot in every if snapshot.id.startswith(wanted.lower())]
    if len(found) != 1:
        told(damage)
        raise Failed(f"{len(found) or 'no'} snapshots have an id that begins with {wanted!r}")
    disk = next((disk for disk in found[0].disks if disk.key == key), None)
    if disk is None:
        raise Failed(f"the snapshot has no disk {key!r}; it has {', '.join(disk.key for disk in found[0].disks)}")
    return disk


def restore(repository, arguments):
    """Writes a disk to a new sparse file, which has its name only when it is complete."""
    disk = find(repository, arguments.snapshot, arguments.disk)
    target = os.path.realpath(arguments.target)
    repository_path = os.path.realpath(arguments.repository)
    if os.path.commonpath([target, repository_path]) == repository_path:
        raise Failed("the target lies in the repository, where nothing is ever written")
    if os.path.lexists(target):
        raise Failed(f"{target} exists already")
    partial = target + ".keepstone-partial"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.truncate(disk.size)
        try:
            lost = write_disk(repository, disk, file, arguments.keep_going)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(partial)
            raise
    os.rename(partial, target)
    for error, start, end in lost:
        warn(f"bytes {start} to {end} of the disk are zeros, as they are lost: {error}")
    return 3 if lost else 0


def write_disk(repository, disk, file, keep_going):
    """Writes all chunks; what could not be read as (error, start, end), if that shall not end it."""
    lost, written, progress = [], 0, Progress()

    def on_damage(error, start, end):
        if not keep_going:
            raise error
        lost.append((error, start, end))

    for start, location in DiskMap(repository, disk, on_damage).chunks():
        try:
            chunk = repository.payload(CHUNK, location)
        except Damaged as error:
            on_damage(error, start, start + location.plain_len)
            continue
        file.seek(start)
        file.write(chunk)
        written += len(chunk)
        progress.tell(f"{mib(written)} written, now at {mib(start)} of {mib(disk.size)}")
    print(f"restored {disk.key}: {mib(written)} of {mib(disk.size)} written, the rest is zero; "
          f"{progress.rate(written)}")
    return lost


def check(repository, _arguments):
    """Reads every small object, every map and every pack that a snapshot needs."""
    damage = []
    every = snapshots(repository, damage.append)
    for name in repository.blobs.names():
        check_small_blob(repository, name, damage)
    packs, walked, frames = set(), {}, {}
    for snapshot in every:
        for disk in snapshot.disks:
            check_map(repository, disk, damage, packs, walked, frames)
    read, progress = 0, Progress()
    # What was repacked is where records lead to.
    packs = {pack for pack in packs if pack.name not in (repository.leads or {})} | repository.reached
    for pack in sorted(packs):
        try:
            read += repository.check_pack(pack)
        except Damaged as error:
            damage.append(error)
        progress.tell(f"{mib(read)} read")
    disks = sum(len(snapshot.disks) for snapshot in every)
    print(f"checked {len(every)} snapshots with {disks} disks: {len(packs)} packs, {mib(read)} of payloads; "
          f"{progress.rate(read)}")
    result = told({str(error): error for error in damage}.values())
    print("damage was found" if result else "no damage found")
    return result


def check_small_blob(repository, name, damage):
    """Checks what a restore does not look at, and tells what it cannot check [NAME-3]."""
    kind = kind_of(name)
    try:
        if kind == "intent":
            check_intent(repository, name)
        elif kind == "index":
            check_index(repository.sealed_blob(name, INDEX), repository.config)
        elif kind == "repack record":
            read_record(repository, name)
        elif kind == "pin":
            read_pin(repository, name)
        elif kind == "barrier":
            read_barrier(repository, name)
        elif kind == "replica marker":
            parse_marker(repository.sealed_blob(name, REPLICA_MARKER))
        elif kind == "lineage":
            read_lineage(repository, name)
        elif kind == "canary":
            if repository.blobs.read(name, at_most=17) != b"keepstone canary\n":
                raise Damaged(name, "it does not have the content of a canary [NAME-7]")
        elif kind == "generation":
            read_generation(repository, name)
        elif kind is None:
            warn(f"note: not a name of a blob: {name!r} [NAME-3]")
    except Unsigned as error:
        warn(f"note: {error}")
    except Damaged as error:
        damage.append(error)


def check_map(repository, disk, damage, packs, walked, frames):
    """Walks the map of a disk, and compares what it tells of chunks with the packs' directories."""
    disk_map = DiskMap(repository, disk, lambda error, _start, _end: damage.append(error), walked)
    for _, location in disk_map.chunks():
        try:
            if repository.place(CHUNK, location) != location:
                continue  # It was found in a directory by its id; the whole pack is read later.
            if location.pack not in frames:
                if len(frames) >= 64:
                    frames.pop(next(iter(frames)))
                directory = repository.directory(location.pack)
                frames[location.pack] = {its.offset: its for _, its in directory}
            if frames[location.pack].get(location.offset) != location:
                raise Damaged(location.pack.name, f"a map tells another chunk at {location.offset} than its directory")
        except Damaged as error:
            damage.append(error)
    packs |= disk_map.packs


def tell_retention(repository, _arguments):
    """One line for each thing that the signed objects say, and for each record that a snapshot passes through."""
    damage = []
    for name in repository.blobs.names():
        try:
            for line in told_by(repository, name):
                print(f"{name}: {line}")
        except Unsigned as error:
            warn(f"note: {error}")
        except Damaged as error:
            damage.append(error)
    return told(damage)


def told_by(repository, name):
    kind = kind_of(name)
    if kind == "tombstone":
        when, decision = read_tombstone(repository, name)
        return [f"forgets {decision.blob} at {when}"]
    if kind == "generation":
        return told_by_generation(repository, name)
    if kind == "repack record":
        record = read_record(repository, name)
        return [f"applies to {session.hex()}" for session in record.applies_to] + [
            f"leads from {old.name} to {new.name}" for old, every_new in record.leads for new in every_new]
    if kind == "pin":
        pin = read_pin(repository, name)
        verb = "pins" if pin.pinned else "unpins"
        return [f"{verb} {pin.decision.blob} at {pin.time}, reason: {pin.reason}"]
    if kind == "barrier":
        return read_barrier(repository, name)
    if kind == "replica marker":
        return parse_marker(repository.sealed_blob(name, REPLICA_MARKER))
    if kind == "lineage":
        return read_lineage(repository, name)
    if kind == "decision":
        decision = read_decision(repository, name)
        if isinstance(decision, Snapshot):
            return [f"passes through k/{session.hex()}" for session in decision.via]
        if decision == ABORT and begin_of_abort(repository.sealed_blob(name, DECISION))[0] == PRUNER:
            return ["is an abort by a pruner"]
    return []


def told_by_generation(repository, name):
    def packs(what, every):
        return [f"{what} {pack.name} of {pack.length} bytes" for pack in every]

    said, part = read_generation(repository, name), parse_name("generation", name)["part"]
    if part == "condemned":
        return packs("condemns", said)
    if part == "awaited":
        condemned, sessions = said
        return [f"is of the condemned packs in {condemned.hex()}",
                *(f"waits for {session.hex()} of {writer}" for session, writer in sessions)]
    if part == "result":
        return (packs("deletes", said.delete) + packs("rescues", said.rescued)
                + [f"speaks for the last {said.covers}"] + packs("deleted earlier", said.earlier))
    return [f"knows {session.hex()}" for session in said]


def password(arguments):
    """The password from a file, the environment or a question. A line end at a file's end does not count [SLOT-2]."""
    if arguments.password_file:
        with open(arguments.password_file, "rb") as file:
            data = file.read(4099)
        return next((data.removesuffix(end) for end in (b"\r\n", b"\n") if data.endswith(end)), data)
    if "KEEPSTONE_PASSWORD" in os.environ:
        return os.fsencode(os.environ["KEEPSTONE_PASSWORD"])
    return os.fsencode(getpass.getpass("password: "))


def arguments():
    parser = argparse.ArgumentParser(
        description="Reads a Keepstone repository without Keepstone. Writes nothing into it.")
    parser.add_argument("repository", metavar="REPO", help="a directory with all blobs of the repository as files")
    parser.add_argument("--password-file", metavar="FILE", help="else KEEPSTONE_PASSWORD, else a question")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("snapshots", help="list ids, times, VMs and disks")
    command.set_defaults(run=list_snapshots)
    command = commands.add_parser("restore", help="write a disk to a new sparse file")
    command.add_argument("snapshot", metavar="SNAPSHOT", help="an id, or how it begins")
    command.add_argument("disk", metavar="DISK", help="the key of the disk")
    command.add_argument("target", metavar="TARGET", help="a file that does not exist yet")
    command.add_argument("--keep-going", action="store_true",
                         help="leave zeros where something is damaged, and tell where")
    command.set_defaults(run=restore)
    command = commands.add_parser("check", help="read and check everything that the snapshots need")
    command.set_defaults(run=check)
    command = commands.add_parser("retention", help="tell what was forgotten, pinned, deleted and moved")
    command.set_defaults(run=tell_retention)
    for command in commands.choices.values():
        command.add_argument("--password-file", metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Exit codes: 0 done, 1 failed, 2 wrong usage, 3 damage was found."""
    given = arguments()
    try:
        return given.run(Repository(given.repository, password(given)), given)
    except Damaged as error:
        warn(f"damaged: {error}")
        return 3
    except (Failed, OSError) as error:
        warn(error)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
