"""Scratch folders: one per worker process, one inside it per attempt; those of dead workers are removed at the start.

A worker holds a lock on a file in its folder. The lock goes with the process, so a folder whose lock can be had is
a dead worker's; its trainer died with it. What others sweep away (a cleaner of temporary files) is made again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import UUID

LOCK = "lock"
PROBE = "probe"
LEAST_FREE_BYTES = 4 << 20
"""With less room than this no job is claimed."""


class Scratch:
    """One worker's folder, readable by its user only."""

    def __init__(self, scratch_dir: Path, worker_id: UUID) -> None:
        """Raises OSError if the folder cannot be made."""
        self._unlocked = scratch_dir / f".worker-{worker_id}"
        self.folder = scratch_dir / f"worker-{worker_id}"
        self._lock: IO[str] | None = None
        self.mend()

    def mend(self) -> None:
        """Make the folder, if it is missing. Raises OSError."""
        if self._is_whole():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.folder.is_dir():
            self._take_lock(self.folder)
            return
        self._unlocked.mkdir(mode=0o700, exist_ok=True)
        self._take_lock(self._unlocked)
        self._unlocked.rename(self.folder)

    def trouble(self) -> str | None:
        """Why no job could use the folder now, and what mends it; None if nothing is wrong. Makes it if it is missing.

        Between attempts only: what one of them could not remove, because the disk was away, goes now. One small file is
        written: whether a disk takes large ones, only a checkpoint shows.
        """
        place = f"the scratch folder {shown(self.folder.parent)}"
        try:
            self.mend()
            for left in self.folder.glob("*-*"):
                shutil.rmtree(left, ignore_errors=True)
            probe = self.folder / PROBE
            probe.write_bytes(b"x")
            probe.unlink()
            full = shutil.disk_usage(self.folder).free < LEAST_FREE_BYTES
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            if not full:
                return f"{place} cannot be used ({error.strerror}): mend it, or set TRAIND_SCRATCH_DIR"
        return f"{place} is full: less than {LEAST_FREE_BYTES:,} bytes are free; make room there" if full else None

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

    def _is_whole(self) -> bool:
        """Whether the lock that is held is still the one in the folder."""
        try:
            there = (self.folder / LOCK).stat()
        except FileNotFoundError:
            return False
        return self._lock is not None and os.path.samestat(there, os.fstat(self._lock.fileno()))

    def _take_lock(self, folder: Path) -> None:
        former, self._lock = self._lock, _try_lock(folder / LOCK, "w")
        if former is not None:
            former.close()


def shown(path: Path) -> str:
    """A path for a message: what is no UTF-8 in it is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def own_folder(scratch_dir: Path, worker_id: UUID) -> Iterator[Scratch]:
    """This process's folder, removed at the end. Raises OSError."""
    scratch_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    remove_dead(scratch_dir)
    scratch = Scratch(scratch_dir, worker_id)
    try:
        yield scratch
    finally:
        scratch.close()


def remove_dead(scratch_dir: Path) -> None:
    """Remove the folders whose worker is gone."""
    for folder in scratch_dir.glob("worker-*"):
        lock = _try_lock(folder / LOCK, "r+")
        if lock is not None:
            with lock:
                shutil.rmtree(folder, ignore_errors=True)


def _try_lock(path: Path, mode: str) -> IO[str] | None:
    """The open, locked file; None where another process holds it, or it was just removed."""
    try:
        file = path.open(mode)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
