"""How much memory a trainer of this machine may use: what there is, and the limits of this process's cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from worker.cgroups import PROC_SELF, group_folders, lines


def usable_memory(proc_self: Path = PROC_SELF) -> int | None:
    """Bytes: the least of the machine's memory and the limits of this process's cgroups and those above them.

    What others of the same machine or group use is not taken off. None if nothing can be learned.
    """
    return min([*_limits(proc_self), *_machine()], default=None)


def _machine() -> Iterator[int]:
    try:
        pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return
    if pages > 0 and page_bytes > 0:
        yield pages * page_bytes


def _limits(proc_self: Path) -> Iterator[int]:
    """memory.max is "max" without a limit, memory.limit_in_bytes more than any machine has."""
    for version, folder in group_folders("memory", proc_self):
        text = " ".join(lines(folder / ("memory.max" if version == "cgroup2" else "memory.limit_in_bytes"))).strip()
        if text.isascii() and text.isdecimal() and int(text) > 0:
            yield int(text)
