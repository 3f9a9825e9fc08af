#!/usr/bin/python3
"""Writes a changed copy of a raw image, and changes files for it.

    change.py OLD NEW PER_MILLE DIRECTORY

Of the blocks of 64 KiB in use, so many in a thousand have the content of another one, with a mark in every sector: they
compress as the disk does, and nothing in them is a duplicate. Written into DIRECTORY are first.json (what is in use),
none.json (no change) and some.json (the changed blocks), with the fields of vSphere. Everything follows from the image.
"""

import errno
import json
import os
import random
import subprocess
import sys

BLOCK = 64 << 10
SECTOR = 512


def extents(image, size):
    """The areas in use: start and end, aligned to blocks."""
    at = 0
    while at < size:
        try:
            start = os.lseek(image, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        at = os.lseek(image, start, os.SEEK_HOLE)
        yield start // BLOCK * BLOCK, min(-(-at // BLOCK) * BLOCK, size)


def merged(areas):
    result = []
    for start, end in areas:
        if result and start <= result[-1][1]:
            result[-1][1] = end
        else:
            result.append([start, end])
    return result


def main():
    old, new, per_mille, directory = sys.argv[1:]
    subprocess.run(["cp", "--sparse=always", old, new], check=True)
    draw = random.Random(1)
    image = os.open(old, os.O_RDONLY)
    copy = os.open(new, os.O_WRONLY)
    size = os.fstat(image).st_size
    used = merged(extents(image, size))
    blocks = [at for start, end in used for at in range(start, end - BLOCK + 1, BLOCK)]
    changed = sorted(draw.sample(blocks, len(blocks) * int(per_mille) // 1000))
    for at in changed:
        block = bytearray(os.pread(image, BLOCK, draw.choice(blocks)))
        for sector in range(0, BLOCK, SECTOR):
            block[sector:sector + 8] = draw.randbytes(8)
        os.pwrite(copy, block, at)
    os.fsync(copy)

    def write(name, since, change_id, areas):
        changes = {"diskSize": size, "changeId": change_id, "since": since,
                   "changedArea": [{"start": start, "length": end - start} for start, end in areas]}
        with open(os.path.join(directory, name), "w", encoding="ascii") as out:
            json.dump(changes, out)

    write("first.json", None, "one", used)
    write("none.json", "one", "two", [])
    write("some.json", "two", "three", [(at, at + BLOCK) for at in changed])
    print(f"{sum(end - start for start, end in used) >> 20} MiB in use, {len(changed) * BLOCK / (1 << 20):.1f} MiB changed")


main()
