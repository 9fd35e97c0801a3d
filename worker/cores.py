"""How many CPU cores this process may use: its affinity, and the CPU quotas of its cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from worker.cgroups import PROC_SELF, group_folders, lines


def usable_cores(proc_self: Path = PROC_SELF) -> int:
    """Cores that this process may run on, at least 1; a quota of 2.5 CPUs counts as 2: a third would be throttled."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(proc_self)
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(proc_self: Path = PROC_SELF) -> float | None:
    """The least CPU quota among this process's cgroups and those above them, in CPUs; None without one.

    What cannot be read is no quota.
    """
    return min(_quotas(proc_self), default=None)


def _quotas(proc_self: Path) -> Iterator[float]:
    for version, folder in group_folders("cpu", proc_self):
        quota = _v2(folder) if version == "cgroup2" else _v1(folder)
        if quota is not None:
            yield quota


def _v2(folder: Path) -> float | None:
    """cpu.max: "200000 100000", or "max 100000"."""
    words = " ".join(lines(folder / "cpu.max")).split()
    return _cpus(*words) if len(words) == 2 else None


def _v1(folder: Path) -> float | None:
    """cpu.cfs_quota_us is -1 without a quota."""
    words = [" ".join(lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period")]
    return _cpus(*words)


def _cpus(quota: str, period: str) -> float | None:
    try:
        microseconds, per = int(quota), int(period)
    except ValueError:
        return None
    return microseconds / per if microseconds > 0 and per > 0 else None
