"""How the embedded Postgres shares its disk: a bound on its write-ahead log, and a ballast for a full disk.

The ballast is a file that takes room and holds nothing. A Postgres without room for its log ends and cannot start
again; so whoever runs one removes the ballast as soon as the disk is nearly full, and makes it again once there is
room. Jobs can then be read, cancelled and deleted. `local.doctor` asks for the bound.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from jobs.storage import floor_bytes

MIB = 1 << 20
MOST_WAL_MB, LEAST_WAL_MB, WAL_SHARE = 4_096, 64, 10
MOST_BALLAST_BYTES, LEAST_BALLAST_BYTES, BALLAST_SHARE = 256 * MIB, 32 * MIB, 20
NEARLY_FULL_BYTES = 24 * MIB
"""A segment of the write-ahead log, which is made whole, and half of one; a quarter of the ballast, if that is more."""
LOOK_SECONDS = 0.5
NO_SPACE = ("No space left on device", "Disk quota exceeded")
"""What a server says that has none."""


def max_wal_mb(folder: Path) -> int:
    """max_wal_size of a Postgres in `folder`, which need not exist yet: a tenth of the disk, within bounds."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return max(LEAST_WAL_MB, min(MOST_WAL_MB, shutil.disk_usage(there).total // WAL_SHARE // MIB))


class Ballast:
    """The file in `folder`, which exists. `floor` is TRAIND_MIN_FREE_DISK_BYTES."""

    def __init__(self, folder: Path, *, floor: int | None) -> None:
        self.path = folder / "ballast"
        total = shutil.disk_usage(folder).total
        self.size = max(LEAST_BALLAST_BYTES, min(MOST_BALLAST_BYTES, total // BALLAST_SHARE))
        self.wanted = max(floor_bytes(total, floor), self.size) + self.size
        """So many bytes must be free for it to be made."""

    def exists(self) -> bool:
        return self.path.exists()

    def is_needed(self) -> bool:
        """Whether the disk is nearly full."""
        return self._free() < max(NEARLY_FULL_BYTES, self.size // 4)

    def release(self) -> bool:
        """Remove it; whether it was there."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True

    def make(self) -> bool:
        """Make it, if it is not there and the disk has so much room that it is not needed soon; whether it was made."""
        if self.exists() or self._free() < self.wanted:
            return False
        unfinished = self.path.with_name(".ballast")
        try:
            with unfinished.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.size)
            unfinished.replace(self.path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            return False
        return True

    def _free(self) -> int:
        return shutil.disk_usage(self.path.parent).free


class Keeper:
    """Releases the ballast and makes it again, in a thread, from entering the context to leaving it."""

    def __init__(self, ballast: Ballast, *, report: Callable[[str], None]) -> None:
        self._ballast, self._report = ballast, report
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ballast", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(OSError):
                look(self._ballast, self._report)
                if self._ballast.make():
                    self._report(f"a reserve of {self._ballast.size // MIB} MiB is kept for a full disk")
            self._stopping.wait(LOOK_SECONDS)


def look(ballast: Ballast, report: Callable[[str], None]) -> None:
    """Release it if the disk is nearly full. Raises OSError."""
    if ballast.is_needed() and ballast.release():
        report(
            f"the disk is nearly full: a reserve of {ballast.size // MIB} MiB was released, so that jobs can be "
            "cancelled and deleted (`traind cancel`, `traind rm`); make room"
        )
