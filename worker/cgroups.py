"""The folders of this process's cgroups, and of those above them (v1 and v2, nested)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROC_SELF = Path("/proc/self")
Version = Literal["cgroup", "cgroup2"]
"""Of the hierarchy, by its file system: v1 and v2."""


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy of cgroups: where, and which of its groups is seen there."""

    version: Version
    root: str
    point: Path


def group_folders(controller: str, proc_self: Path) -> Iterator[tuple[Version, Path]]:
    """Each folder whose limits of `controller` ("cpu", "memory") hold for this process; none that cannot be read."""
    groups = _groups(controller, proc_self)
    for mount in _mounts(controller, proc_self):
        path = groups.get(mount.version)
        if path is None:
            continue
        inside = _below(path, mount.root)
        for folder in (mount.point / inside, *(mount.point / parent for parent in Path(inside).parents)):
            yield mount.version, folder


def lines(path: Path) -> list[str]:
    """None of a file that cannot be read."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _below(path: str, root: str) -> str:
    """The group's path below the one that is mounted; the mounted one itself if the group is not below it."""
    if root == "/":
        return path.lstrip("/")
    return path.removeprefix(root).lstrip("/") if path == root or path.startswith(root + "/") else ""


def _groups(controller: str, proc_self: Path) -> dict[Version, str]:
    """{"cgroup2": path, "cgroup": path of v1's controller}, as far as there are such."""
    found = dict[Version, str]()
    for line in lines(proc_self / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found["cgroup2"] = path
        elif controller in controllers.split(","):
            found["cgroup"] = path
    return found


def _mounts(controller: str, proc_self: Path) -> Iterator[_Mount]:
    """proc(5): "36 35 98:0 /root /point rw,noatime master:1 - type source options", blanks written as \\040."""
    for line in lines(proc_self / "mountinfo"):
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) < 5 or len(after) < 3:
            continue
        point = Path(before[4].replace("\\040", " "))
        if after[0] == "cgroup2":
            yield _Mount("cgroup2", before[3], point)
        elif after[0] == "cgroup" and controller in after[2].split(","):
            yield _Mount("cgroup", before[3], point)
