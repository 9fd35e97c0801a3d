"""How many CPU cores this process may use: its affinity, and the CPU quotas of its cgroups (v1 and v2, nested)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC_SELF = Path("/proc/self")


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy of cgroups: where, and which of its groups is seen there."""

    kind: str
    root: str
    point: Path


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
    groups = _groups(proc_self)
    for mount in _mounts(proc_self):
        path = groups.get(mount.kind)
        if path is None:
            continue
        inside = _below(path, mount.root)
        for folder in (mount.point / inside, *(mount.point / parent for parent in Path(inside).parents)):
            quota = _v2(folder) if mount.kind == "cgroup2" else _v1(folder)
            if quota is not None:
                yield quota


def _below(path: str, root: str) -> str:
    """The group's path below the one that is mounted; the mounted one itself if the group is not below it."""
    if root == "/":
        return path.lstrip("/")
    return path.removeprefix(root).lstrip("/") if path == root or path.startswith(root + "/") else ""


def _groups(proc_self: Path) -> dict[str, str]:
    """{"cgroup2": path, "cgroup": path of v1's cpu controller}, as far as there are such."""
    found = dict[str, str]()
    for line in _lines(proc_self / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            found["cgroup"] = path
    return found


def _mounts(proc_self: Path) -> Iterator[_Mount]:
    """proc(5): "36 35 98:0 /root /point rw,noatime master:1 - type source options", blanks written as \\040."""
    for line in _lines(proc_self / "mountinfo"):
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) < 5 or len(after) < 3:
            continue
        if after[0] == "cgroup2" or (after[0] == "cgroup" and "cpu" in after[2].split(",")):
            yield _Mount(after[0], before[3], Path(before[4].replace("\\040", " ")))


def _v2(folder: Path) -> float | None:
    """cpu.max: "200000 100000", or "max 100000"."""
    words = " ".join(_lines(folder / "cpu.max")).split()
    return _cpus(*words) if len(words) == 2 else None


def _v1(folder: Path) -> float | None:
    """cpu.cfs_quota_us is -1 without a quota."""
    words = [" ".join(_lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period")]
    return _cpus(*words)


def _cpus(quota: str, period: str) -> float | None:
    try:
        microseconds, per = int(quota), int(period)
    except ValueError:
        return None
    return microseconds / per if microseconds > 0 and per > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
