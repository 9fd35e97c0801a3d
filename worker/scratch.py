"""Scratch folders: one per worker process, one inside it per attempt; those of dead workers are removed at the start.

A worker holds a lock on a file in its folder. The lock goes with the process, so a folder whose lock can be had is
a dead worker's; its trainer died with it.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import UUID

LOCK = "lock"


@contextmanager
def own_folder(scratch_dir: Path, worker_id: UUID) -> Iterator[Path]:
    """This process's folder, readable by its user only, removed at the end."""
    scratch_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    remove_dead(scratch_dir)
    unlocked = scratch_dir / f".worker-{worker_id}"
    unlocked.mkdir(mode=0o700)
    lock = _try_lock(unlocked / LOCK, "w")
    folder = unlocked.rename(scratch_dir / f"worker-{worker_id}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.close()


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
