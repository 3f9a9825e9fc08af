#!/usr/bin/python3
"""Runs a command and appends what it cost as a line of a table: wall and CPU seconds, peak MiB, MiB read.

    measure.py TABLE TOOL PHASE COMMAND ...

Read is what the process asked the system for with read calls, of the image, the repository and its cache alike.
"""

import os
import resource
import sys
import time

MIB = 1 << 20


def bytes_read(process):
    """Of a process that has ended and was not waited for yet."""
    with open(f"/proc/{process}/io", encoding="ascii") as fields:
        return next(int(line.split()[1]) for line in fields if line.startswith("rchar:"))


def main():
    table, tool, phase, *command = sys.argv[1:]
    began = time.monotonic()
    process = os.posix_spawnp(command[0], command, os.environ)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    wall = time.monotonic() - began
    read = bytes_read(process)
    _, status = os.waitpid(process, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = [wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, read / MIB]
    with open(table, "a", encoding="ascii") as lines:
        lines.write("\t".join([tool, phase] + [f"{figure:.2f}" for figure in figures]) + "\n")
    sys.exit(os.waitstatus_to_exitcode(status))


main()
