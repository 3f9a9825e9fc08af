"""The primitives that SPEC.md builds on, written out: BLAKE3, AES-256-GCM, X25519, HPKE, Ed25519, Argon2id.

Slow, not constant in time, and fit for nothing but test vectors.
"""

import hashlib
import hmac

MASK32, MASK64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def le(value, length):
    return value.to_bytes(length, "little")


def u32s(data):
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


# --- BLAKE3 (the specification's reference algorithm) ---

BLAKE3_IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
KEYED, CONTEXT, MATERIAL = 16, 32, 64


def rotate_right(value, bits):
    return (value >> bits | value << (32 - bits)) & MASK32


def compress(chaining, block, counter, length, flags):
    v = chaining + BLAKE3_IV[:4] + [counter & MASK32, counter >> 32, length, flags]

    def mix(a, b, c, d, x, y):
        for word, first, second in ((x, 16, 12), (y, 8, 7)):
            v[a] = (v[a] + v[b] + word) & MASK32
            v[d] = rotate_right(v[d] ^ v[a], first)
            v[c] = (v[c] + v[d]) & MASK32
            v[b] = rotate_right(v[b] ^ v[c], second)

    m = u32s(block.ljust(64, b"\0"))
    for _ in range(7):
        for column in range(4):
            mix(column, column + 4, column + 8, column + 12, m[2 * column], m[2 * column + 1])
        for d in range(4):
            mix(d, 4 + (d + 1) % 4, 8 + (d + 2) % 4, 12 + (d + 3) % 4, m[8 + 2 * d], m[9 + 2 * d])
        m = [m[at] for at in PERMUTATION]
    return [v[at] ^ v[at + 8] for at in range(8)] + [v[at + 8] ^ chaining[at] for at in range(8)]


def chunk_node(key, data, counter, flags):
    """The last compression of one chunk of up to 1024 bytes, not carried out yet."""
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    chaining, start = key, CHUNK_START
    for block in blocks[:-1]:
        chaining = compress(chaining, block, counter, 64, flags | start)[:8]
        start = 0
    return chaining, blocks[-1], counter, len(blocks[-1]), flags | start | CHUNK_END


def tree_node(key, data, counter, flags):
    if len(data) <= 1024:
        return chunk_node(key, data, counter, flags)
    left = 1024
    while left * 2 < len(data):
        left *= 2
    children = (tree_node(key, data[:left], counter, flags), tree_node(key, data[left:], counter + left // 1024, flags))
    block = b"".join(le(word, 4) for child in children for word in compress(*child)[:8])
    return key, block, 0, 64, flags | PARENT


def blake3_output(key, data, flags, length):
    chaining, block, _, block_len, flags = tree_node(key, data, 0, flags)
    output = b""
    while len(output) < length:
        words = compress(chaining, block, len(output) // 64, block_len, flags | ROOT)
        output += b"".join(le(word, 4) for word in words)
    return output[:length]


def blake3(data, length=32):
    return blake3_output(BLAKE3_IV, data, 0, length)


def keyed(key, data):
    return blake3_output(u32s(key), data, KEYED, 32)


def derive(context, material):
    key = blake3_output(BLAKE3_IV, context.encode(), CONTEXT, 32)
    return blake3_output(u32s(key), material, MATERIAL, 32)


# --- AES-256-GCM (FIPS 197, SP 800-38D) ---


def times_two(byte):
    return (byte << 1 ^ (0x11B if byte & 0x80 else 0)) & 0xFF


def make_sbox():
    box, p, q = [0] * 256, 1, 1
    while True:
        p ^= times_two(p)
        q ^= q << 1
        q ^= q << 2
        q = (q ^ q << 4) & 0xFF
        q ^= 0x09 if q & 0x80 else 0
        rotated = q ^ (q << 1 | q >> 7) ^ (q << 2 | q >> 6) ^ (q << 3 | q >> 5) ^ (q << 4 | q >> 4)
        box[p] = (rotated ^ 0x63) & 0xFF
        if p == 1:
            box[0] = 0x63
            return box


SBOX = make_sbox()


def aes_round_keys(key):
    words = [list(key[at : at + 4]) for at in range(0, 32, 4)]
    constant = 1
    for at in range(8, 60):
        word = list(words[-1])
        if at % 8 == 0:
            word = [SBOX[byte] for byte in word[1:] + word[:1]]
            word[0] ^= constant
            constant = times_two(constant)
        elif at % 8 == 4:
            word = [SBOX[byte] for byte in word]
        words.append([a ^ b for a, b in zip(words[at - 8], word)])
    return [sum(words[at : at + 4], []) for at in range(0, 60, 4)]


def aes_block(round_keys, block):
    state = [a ^ b for a, b in zip(block, round_keys[0])]
    for number, round_key in enumerate(round_keys[1:], 1):
        state = [SBOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16)]
        if number < 14:
            mixed = []
            for column in range(0, 16, 4):
                a = state[column : column + 4]
                mixed += [
                    times_two(a[r] ^ a[(r + 1) % 4]) ^ a[(r + 1) % 4] ^ a[(r + 2) % 4] ^ a[(r + 3) % 4]
                    for r in range(4)
                ]
            state = mixed
        state = [a ^ b for a, b in zip(state, round_key)]
    return bytes(state)


def ghash(h, data):
    total, h = 0, int.from_bytes(h, "big")
    for at in range(0, len(data), 16):
        x = total ^ int.from_bytes(data[at : at + 16], "big")
        total, v = 0, h
        for bit in range(127, -1, -1):
            if x >> bit & 1:
                total ^= v
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
    return total.to_bytes(16, "big")


def aes_gcm_seal(key, nonce, aad, plaintext):
    round_keys = aes_round_keys(key)
    stream = b"".join(
        aes_block(round_keys, nonce + (2 + at).to_bytes(4, "big")) for at in range((len(plaintext) + 15) // 16)
    )
    sealed = bytes(a ^ b for a, b in zip(plaintext, stream))
    padded = b"".join(part + bytes(-len(part) % 16) for part in (aad, sealed))
    lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(sealed)).to_bytes(8, "big")
    tag = ghash(aes_block(round_keys, bytes(16)), padded + lengths)
    first = aes_block(round_keys, nonce + (1).to_bytes(4, "big"))
    return sealed + bytes(a ^ b for a, b in zip(tag, first))


# --- X25519 (RFC 7748) and HPKE's base mode (RFC 9180) ---

PRIME = 2**255 - 19


def x25519(scalar, point=le(9, 32)):
    k = int.from_bytes(scalar, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1, 1
    for bit in range(254, -1, -1):
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, e * (aa + 121665 * e) % PRIME
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return le(x2 * pow(z2, PRIME - 2, PRIME) % PRIME, 32)


def hkdf_extract(salt, material):
    return hmac.digest(salt or bytes(32), material, "sha256")


def hkdf_expand(key, info, length):
    output, block, count = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(key, block + info + bytes([count]), "sha256")
        output, count = output + block, count + 1
    return output[:length]


def hpke_seal(private, public, info, aad, plaintext):
    """`private` is the sender's ephemeral key; returns the encapsulated key and the ciphertext."""
    kem_suite = b"KEM" + (0x20).to_bytes(2, "big")
    suite = b"HPKE" + (0x20).to_bytes(2, "big") + (1).to_bytes(2, "big") + (2).to_bytes(2, "big")

    def extract(suite_id, salt, label, material):
        return hkdf_extract(salt, b"HPKE-v1" + suite_id + label + material)

    def expand(suite_id, key, label, context, length):
        return hkdf_expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + context, length)

    encapsulated = x25519(private)
    shared = extract(kem_suite, b"", b"eae_prk", x25519(private, public))
    shared = expand(kem_suite, shared, b"shared_secret", encapsulated + public, 32)
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    key, nonce = (
        expand(suite, secret, label, context, length) for label, length in ((b"key", 32), (b"base_nonce", 12))
    )
    return encapsulated, aes_gcm_seal(key, nonce, aad, plaintext)


# --- Ed25519 (RFC 8032) ---

ORDER = (1 << 252) + 27742317777372353535851937790883648493
D = -121665 * pow(121666, PRIME - 2, PRIME) % PRIME


def edwards_add(p, q):
    """Adds points as (X, Y, Z, T) with x = X/Z, y = Y/Z, x y = T/Z."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % PRIME, (p[1] + p[0]) * (q[1] + q[0]) % PRIME
    c, d = 2 * p[3] * q[3] * D % PRIME, 2 * p[2] * q[2] % PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % PRIME, g * h % PRIME, f * g % PRIME, e * h % PRIME


def edwards_multiply(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = edwards_add(result, point)
        point, scalar = edwards_add(point, point), scalar >> 1
    return result


def edwards_base():
    y = 4 * pow(5, PRIME - 2, PRIME) % PRIME
    square = (y * y - 1) * pow(D * y * y + 1, PRIME - 2, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    x = PRIME - x if x & 1 else x
    return x, y, 1, x * y % PRIME


BASE = edwards_base()


def edwards_encode(point):
    inverse = pow(point[2], PRIME - 2, PRIME)
    x, y = point[0] * inverse % PRIME, point[1] * inverse % PRIME
    return le(y | (x & 1) << 255, 32)


def ed25519_secret(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar, digest[32:]


def ed25519_public(seed):
    return edwards_encode(edwards_multiply(ed25519_secret(seed)[0], BASE))


def ed25519_sign(seed, message):
    scalar, prefix = ed25519_secret(seed)
    hashed = lambda *parts: int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER
    public, nonce = ed25519_public(seed), hashed(prefix, message)
    commitment = edwards_encode(edwards_multiply(nonce, BASE))
    return commitment + le((nonce + hashed(commitment, public, message) * scalar) % ORDER, 32)


# --- Argon2id (RFC 9106) ---


def argon2_long_hash(length, data):
    data = le(length, 4) + data
    if length <= 64:
        return hashlib.blake2b(data, digest_size=length).digest()
    block = hashlib.blake2b(data).digest()
    output = block[:32]
    while length - len(output) > 64:
        block = hashlib.blake2b(block).digest()
        output += block[:32]
    return output + hashlib.blake2b(block, digest_size=length - len(output)).digest()


def argon2_permute(v, at):
    def mix(a, b, c, d):
        a, b, c, d = at[a], at[b], at[c], at[d]
        for first, second in ((32, 24), (16, 63)):
            v[a] = (v[a] + v[b] + 2 * (v[a] & MASK32) * (v[b] & MASK32)) & MASK64
            v[d] ^= v[a]
            v[d] = (v[d] >> first | v[d] << (64 - first)) & MASK64
            v[c] = (v[c] + v[d] + 2 * (v[c] & MASK32) * (v[d] & MASK32)) & MASK64
            v[b] ^= v[c]
            v[b] = (v[b] >> second | v[b] << (64 - second)) & MASK64

    for n in range(4):
        mix(n, n + 4, n + 8, n + 12)
    for n in range(4):
        mix(n, 4 + (n + 1) % 4, 8 + (n + 2) % 4, 12 + (n + 3) % 4)


def argon2_compress(x, y):
    r = [a ^ b for a, b in zip(x, y)]
    z = list(r)
    for row in range(8):
        argon2_permute(z, range(16 * row, 16 * row + 16))
    for column in range(8):
        argon2_permute(z, [16 * row + 2 * column + half for row in range(8) for half in (0, 1)])
    return [a ^ b for a, b in zip(r, z)]


def argon2id(password, salt, memory, passes, lanes, length=32):
    sized = b"".join(le(len(part), 4) + part for part in (password, salt, b"", b""))
    h0 = hashlib.blake2b(b"".join(le(n, 4) for n in (lanes, length, memory, passes, 0x13, 2)) + sized).digest()
    columns = memory // (4 * lanes) * 4
    segment = columns // 4

    def words(data):
        return [int.from_bytes(data[at : at + 8], "little") for at in range(0, 1024, 8)]

    blocks = [[None] * columns for _ in range(lanes)]
    for lane in range(lanes):
        for column in (0, 1):
            blocks[lane][column] = words(argon2_long_hash(1024, h0 + le(column, 4) + le(lane, 4)))
    for pass_number in range(passes):
        for slice_number in range(4):
            for lane in range(lanes):
                argon2_segment(
                    blocks, pass_number, slice_number, lane, segment, memory // (4 * lanes) * 4 * lanes, passes
                )
    final = [0] * 128
    for lane in range(lanes):
        final = [a ^ b for a, b in zip(final, blocks[lane][-1])]
    return argon2_long_hash(length, b"".join(le(word, 8) for word in final))


def argon2_segment(blocks, pass_number, slice_number, lane, segment, memory, passes):
    lanes, columns = len(blocks), 4 * segment
    independent = pass_number == 0 and slice_number < 2
    addresses = []
    for index in range(segment):
        column = slice_number * segment + index
        if independent and index % 128 == 0:
            start = [pass_number, lane, slice_number, memory, passes, 2, index // 128 + 1] + [0] * 121
            addresses = argon2_compress([0] * 128, argon2_compress([0] * 128, start))
        if pass_number == 0 and column < 2:
            continue
        previous = blocks[lane][column - 1]
        pseudo_random = addresses[index % 128] if independent else previous[0]
        other = pseudo_random >> 32
        other = lane if pass_number == 0 and slice_number == 0 else other % lanes
        finished = slice_number * segment if pass_number == 0 else columns - segment
        if other == lane:
            area = finished + index - 1
        else:
            area = finished - (1 if index == 0 else 0)
        x = (pseudo_random & MASK32) ** 2 >> 32
        position = area - 1 - (area * x >> 32)
        start = 0 if pass_number == 0 or slice_number == 3 else (slice_number + 1) * segment
        block = argon2_compress(previous, blocks[other][(start + position) % columns])
        old = blocks[lane][column]
        blocks[lane][column] = [a ^ b for a, b in zip(block, old)] if pass_number else block
