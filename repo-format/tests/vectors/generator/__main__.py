"""Writes the vectors, or with `--check` tells whether they are what would be written.

    python3 repo-format/tests/vectors/generator [--check]

Needs nothing but Python's standard library.
"""

import pathlib
import sys

import behaviour
import chunks
import configs
import conventions
import decisions
import examples
import indexes
import keys
import names
import nodes
import packs
import pages
import payloads
import seals
import sessions
import slots
import tables
from vectors import FILES

HERE = pathlib.Path(__file__).resolve().parent.parent
SPEC = HERE.parents[2] / "SPEC.md"


def main():
    for write in (
        conventions.conventions,
        names.names,
        keys.keys,
        configs.configs,
        slots.slots,
        seals.sealed_objects,
        packs.packs,
        payloads.codecs,
        chunks.chunks,
        tables.tables,
        pages.pages,
        nodes.nodes,
        indexes.indexes,
        sessions.sessions_and_snapshots,
        decisions.decisions,
        behaviour.behaviour,
    ):
        write()
    old_spec = SPEC.read_text(encoding="utf-8")
    wanted = {HERE / name: text for name, text in FILES.items()}
    wanted[SPEC] = examples.fill_in(old_spec)
    # Vectors of findings are not generated; nobody knows any more how such bytes came about.
    stale = [path for path in HERE.glob("*.txt") if path not in wanted and not path.name.startswith("REGRESSION-")]
    changed = [path for path, text in wanted.items() if not path.exists() or path.read_bytes() != text.encode()]
    if "--check" in sys.argv[1:]:
        for path in sorted(stale + changed):
            print(f"{path} is not what the generator writes")
        sys.exit(1 if stale or changed else 0)
    for path in stale:
        path.unlink()
    for path in changed:
        path.write_bytes(wanted[path].encode())
    print(f"{len(FILES)} vectors, {len(changed)} files written, {len(stale)} removed")


main()
