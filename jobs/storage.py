"""Whether the database has room for checkpoints: free space on its disk if that is this machine's, and a quota.

    storage = Storage(engine, settings)
    storage.lack(n_bytes)     None, or why a checkpoint of so many bytes is not taken in, and what mends it

Where the server keeps its data is told by TRAIND_DATABASE_DIR, or by the server itself if it is reached by a unix
socket and our role may ask. Asked by the worker before each claim and each checkpoint, by `/readyz` and by doctor.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, func, select, text

from jobs.settings import Settings
from jobs.tables import blob

MOST_FLOOR_BYTES = 1 << 30
FLOOR_SHARE = 10
"""By default a tenth of the disk stays free, at most MOST_FLOOR_BYTES."""
WRITES = 2
"""A checkpoint's bytes go to a table and to the write-ahead log."""
REMEDY = "delete what is no longer needed (`traind rm`)"

_DATA_DIRECTORY = text("""
    SELECT setting FROM pg_settings WHERE name = 'data_directory' AND inet_server_addr() IS NULL
""")
"""No row if the server is reached over a network, or does not tell this role."""


@dataclass(frozen=True)
class Disk:
    """The database's disk: bytes that are free for its server, and bytes that stay free."""

    folder: Path
    free: int
    floor: int


def floor_bytes(total: int, given: int | None) -> int:
    """What stays free of a disk of `total` bytes: what the setting says, or its default."""
    return min(MOST_FLOOR_BYTES, total // FLOOR_SHARE) if given is None else given


class Storage:
    """Of one process. May be used by several threads."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._floor = settings.min_free_disk_bytes
        self._quota = settings.max_stored_bytes
        self._folder = settings.database_dir
        self._asked = self._folder is not None

    def lack(self, size: int = 0) -> str | None:
        """Why a checkpoint of `size` bytes is not taken in, and what mends it; None if there is room.

        Raises DBAPIError.
        """
        return self._lack_of_disk(size) or self._lack_of_quota(size)

    def disk(self) -> Disk | None:
        """None if it cannot be looked at from here. Raises DBAPIError."""
        folder = self._locate()
        try:
            found = None if folder is None else os.statvfs(folder)
        except OSError:
            return None
        if folder is None or found is None or found.f_blocks == 0:
            return None
        total = found.f_blocks * found.f_frsize
        return Disk(folder, found.f_bavail * found.f_frsize, floor_bytes(total, self._floor))

    def stored_bytes(self) -> int:
        """What all checkpoints take, also those that are being uploaded or removed. Raises DBAPIError."""
        with self._engine.begin() as conn:
            return int(conn.execute(select(func.coalesce(func.sum(blob.c.size), 0))).scalar_one())

    def little_room(self) -> int | None:
        """The free bytes of the disk, if the log of all that is to be deleted could fill it. Raises DBAPIError."""
        disk = self.disk()
        if disk is None:
            return None
        marked = select(func.coalesce(func.sum(blob.c.size), 0)).where(blob.c.state == "deleting")
        with self._engine.begin() as conn:
            log_bytes = WRITES * int(conn.execute(marked).scalar_one())
        return disk.free if disk.free - log_bytes < disk.floor else None

    @property
    def quota(self) -> int | None:
        return self._quota

    def _locate(self) -> Path | None:
        if not self._asked:
            with self._engine.begin() as conn:
                told = conn.execute(_DATA_DIRECTORY).scalar_one_or_none()
            self._folder = None if told is None else Path(told)
            self._asked = True
        return self._folder

    def _lack_of_disk(self, size: int) -> str | None:
        disk = self.disk()
        if disk is None or disk.free - WRITES * size >= disk.floor:
            return None
        wanted = f", and the checkpoint takes {WRITES * size:,}" if size else ""
        return (
            f"the database's disk has {disk.free:,} bytes free at {disk.folder}; {disk.floor:,} stay free "
            f"(TRAIND_MIN_FREE_DISK_BYTES){wanted}: {REMEDY}, or make room on that disk"
        )

    def _lack_of_quota(self, size: int) -> str | None:
        if self._quota is None:
            return None
        stored = self.stored_bytes()
        if stored + size <= self._quota and stored < self._quota:
            return None
        wanted = f", this one has {size:,}" if size else ""
        return (
            f"checkpoints take {stored:,} bytes of the {self._quota:,} that TRAIND_MAX_STORED_BYTES allows{wanted}: "
            f"{REMEDY}, or raise it"
        )
