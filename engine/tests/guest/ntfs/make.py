#!/usr/bin/python3
"""Makes volume.zst: an NTFS volume with what only a driver writes. Needs root, FUSE, ntfs-3g and zstd.

    make.py volume.zst
"""

import os
import struct
import subprocess
import sys
import tempfile

SYMLINK, JUNCTION, COMPACT = 0xA000000C, 0xA0000003, 0x80000017
COMPRESSED = 0x800


def noise(seed, length):
    mask = (1 << 64) - 1
    state = (seed * 0x9E3779B97F4A7C15 & mask) | 1
    out = bytearray()
    while len(out) < length:
        state ^= state << 13 & mask
        state ^= state >> 7
        state ^= state << 17 & mask
        out += struct.pack("<Q", state)
    return bytes(out[:length])


def text(lines):
    return b"".join(b"line %06d of a text that compresses\n" % line for line in range(lines))


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def reparse(path, tag, data):
    os.setxattr(path, "system.ntfs_reparse_data", struct.pack("<IHH", tag, len(data), 0) + data)


def names(used, shown):
    used, shown = used.encode("utf-16-le"), shown.encode("utf-16-le")
    return struct.pack("<HHHH", 0, len(used), len(used), len(shown)), used + shown


def fill(top):
    # A file in the places of others that lay between others, while nothing else is free: in some hundred pieces.
    os.mkdir(top + "/gaps")
    for number in range(700):
        write(f"{top}/gaps/{number:05}", b"x" * 4096)
    try:
        with open(top + "/filler", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    except OSError:
        pass
    for number in range(0, 700, 2):
        os.remove(f"{top}/gaps/{number:05}")
    write(top + "/fragmented", text(30_000))
    os.remove(top + "/filler")
    for number in range(1, 700, 2):
        os.remove(f"{top}/gaps/{number:05}")
    os.rmdir(top + "/gaps")
    os.mkdir(top + "/few left")
    for number in range(400):
        write(f"{top}/few left/file number {number:05}", b"%d" % number)
    for number in range(400):
        if number % 100 != 7:
            os.remove(f"{top}/few left/file number {number:05}")
    os.mkdir(top + "/many")
    for number in range(300):
        write(f"{top}/many/file number {number:05}", b"%d" % number)
    os.makedirs(top + "/deep/er")
    write(top + "/deep/er/gr\u00fcn \U0001f600", b"green")
    os.link(top + "/deep/er/gr\u00fcn \U0001f600", top + "/deep/linked")
    # So many names that the file needs further records.
    os.mkdir(top + "/names")
    write(top + "/names/first", b"")
    for number in range(40):
        os.link(top + "/names/first", f"{top}/names/a long name of one and the same file, number {number:05}")
    with open(top + "/names/first", "wb") as file:
        for piece in range(30):
            file.seek(piece * 40_000)
            file.write(text(50))
    with open(top + "/sparse", "wb") as file:
        file.truncate(3_000_017)
        file.seek(1_000_000)
        file.write(text(100))
    os.mkdir(top + "/compressed")
    attributes = struct.unpack("<I", os.getxattr(top + "/compressed", "system.ntfs_attrib"))[0]
    os.setxattr(top + "/compressed", "system.ntfs_attrib", struct.pack("<I", attributes | COMPRESSED))
    write(top + "/compressed/text", text(6000))
    write(top + "/compressed/mixed", text(3000)[:100_000] + noise(1, 70_000) + bytes(80_000) + text(2000)[:50_001])
    write(top + "/link", b"")
    fields, used = names("target\\of\\link", "target\\of\\link")
    reparse(top + "/link", SYMLINK, fields + struct.pack("<I", 1) + used)
    os.mkdir(top + "/junction")
    fields, used = names("\\??\\C:\\Users", "C:\\Users")
    reparse(top + "/junction", JUNCTION, fields + used)
    write(top + "/compact", b"")
    reparse(top + "/compact", COMPACT, struct.pack("<IIII", 1, 2, 1, 0))
    write(top + "/read only", b"kept")
    os.setxattr(top + "/read only", "system.ntfs_attrib", struct.pack("<I", 1))
    os.setxattr(top + "/read only", "user.stream", b"another stream")
    os.utime(top + "/read only", ns=(0, 1_600_000_000_123_456_700))


def main():
    with tempfile.TemporaryDirectory() as work:
        image, top = work + "/image", work + "/top"
        os.mkdir(top)
        with open(image, "wb") as file:
            file.truncate(12 << 20)
        subprocess.run(["mkntfs", "-F", "-Q", "-qq", "-L", "WIN DATA", "-c", "4096", image], check=True, stderr=subprocess.DEVNULL)
        options = "compression,streams_interface=xattr,big_writes"
        subprocess.run(["ntfs-3g", "-o", options, image, top], check=True)
        try:
            fill(top)
        finally:
            subprocess.run(["fusermount", "-u", top], check=True)
        subprocess.run(["zstd", "-q", "-f", "-19", image, "-o", sys.argv[1]], check=True)


if __name__ == "__main__":
    main()
