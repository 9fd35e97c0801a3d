"""The folders that fill up, and the room that is left there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from jobs.queries.trouble import without_room
from jobs.settings import Settings
from jobs.storage import Storage
from local.disk import Ballast
from local.doctor.findings import Finding, bytes_text, error, ok, warning

LEAST_FREE_BYTES = 100_000_000
AMPLE_FREE_BYTES = 1_000_000_000
NO_WORKER = "`traind up --no-worker` starts a service that cannot start otherwise"
LARGEST_AT_ONCE = 4
"""Checkpoints that can lie in the scratch folder together: one restored, one being written, two waiting."""


@dataclass(frozen=True)
class Place:
    """A folder that fills up: `needed` is what must be free, `ample` what should be."""

    name: str
    path: Path
    needed: float
    ample: float


def places(scratch: Path, data_dir: Path | None, cluster: Path | None, *, largest: int, wal: int) -> Iterator[Place]:
    """The folders to look at. `largest` is the largest checkpoint of late, `wal` what Postgres writes ahead; bytes."""
    several = LARGEST_AT_ONCE * largest
    yield Place("scratch", scratch, max(several, LEAST_FREE_BYTES), max(2 * several, AMPLE_FREE_BYTES))
    if data_dir is not None:
        yield Place("data", data_dir, LEAST_FREE_BYTES, AMPLE_FREE_BYTES)
    if cluster is not None:
        yield Place("postgres", cluster, max(largest, LEAST_FREE_BYTES), wal + max(several, AMPLE_FREE_BYTES))


def disk(place: Place, *, free: float | None = None) -> Finding:
    """Whether there is room; `free` bytes are asked of the system where they are not given."""
    check = f"disk {place.name}"
    try:
        there = _existing(place.path)
        left = shutil.disk_usage(there).free if free is None else free
    except OSError as problem:
        what = f"{problem.filename} cannot be looked at: {problem.strerror}"
        return error(check, what, "give the folder to the user that traind runs as, or choose another")
    if not os.access(there, os.W_OK):
        return error(check, f"{there} cannot be written", "give the folder to the user that traind runs as")
    what = f"{bytes_text(left)} free at {place.path}"
    fix = "free some space, or set TRAIND_SCRATCH_DIR (scratch) or --data-dir (the rest) to a larger disk"
    if left < place.needed:
        return error(check, f"{what}; {bytes_text(place.needed)} are needed", fix)
    if left < place.ample:
        return warning(check, f"{what}; {bytes_text(place.ample)} would be ample", fix)
    return ok(check, what)


def reserve(ballast: Ballast) -> Finding:
    """Whether `traind up` has its reserve for a full disk."""
    if ballast.exists():
        return ok("reserve", f"{bytes_text(ballast.size)} are kept for a full disk")
    what = f"the reserve {ballast.path} is not there: it was released on a nearly full disk, or never had room"
    fix = f"make room: as soon as {bytes_text(ballast.wanted)} are free, `traind up` makes it again by itself"
    return warning("reserve", what, fix)


def storage(database: Engine, settings: Settings) -> Finding:
    """Whether the database takes checkpoints in. Raises DBAPIError."""
    found = Storage(database, settings)
    if (lack := found.lack()) is not None:
        what, _, fix = lack.rpartition(": ")
        return error("storage", f"no checkpoint is taken in, and no worker takes a job: {what}", f"{fix}; {NO_WORKER}")
    with database.begin() as conn:
        refused = without_room(conn)
    if refused is not None:
        what, _, fix = refused.rpartition(": ")
        return warning("storage", f"a checkpoint of a running job is not taken in: {what}", fix)
    disk = found.disk()
    if disk is not None:
        what = f"{bytes_text(disk.free)} free on the database's disk, of which {bytes_text(disk.floor)} stay free"
    elif found.quota is None:
        what = "the database's disk cannot be looked at from here; TRAIND_MAX_STORED_BYTES would set a bound"
    else:
        what = f"{bytes_text(found.stored_bytes())} of checkpoints, at most {bytes_text(found.quota)}"
    return ok("storage", what)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
