"""Which datasets this worker's machine cannot read, so that it claims no job of them: others may have the files.

A look finds files that are missing or cannot be opened. What a trainer could not read all the same is given up until
its files change or, if it may be downloaded, for a while.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from jobs.settings import Settings
from worker.training.datasets import lacking, places
from worker.training.messages import DataSettings

DOWNLOAD_AGAIN_SECONDS = 60.0

log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class _Refusal:
    files: Stamp
    why: str
    until: float
    """On the monotonic clock."""


class DataFiles:
    """Of one worker process; `look` and `refuse` may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = DataSettings(
            fashion_mnist_dir=settings.fashion_mnist_dir,
            fashion_mnist_url=settings.fashion_mnist_url,
            cache_dir=settings.cache_dir,
        )
        self._lock = threading.Lock()
        self._refused: dict[str, _Refusal] = {}
        self.lacks: dict[str, str] = {}
        """Names of the datasets, and why each cannot be read, at the last look."""
        self.look()

    def look(self) -> None:
        """Raises nothing."""
        with self._lock:
            self._refused = {name: each for name, each in self._refused.items() if self._holds(name, each)}
            found = {name: each.why for name, each in self._refused.items()} | lacking(self.settings)
            for name in found.keys() - self.lacks.keys():
                log.info("this worker takes no job of a dataset that it cannot read", dataset=name, why=found[name])
            for name in self.lacks.keys() - found.keys():
                log.info("this worker takes jobs of the dataset again", dataset=name)
            self.lacks = found

    def stamp(self, name: str) -> Stamp:
        """Of the dataset's files: another one once one of them was replaced, written, added or removed."""
        return tuple(_stamp_of(path) for path in places(name, self.settings))

    def refuse(self, name: str, files: Stamp, why: str) -> None:
        """A trainer could not read the dataset from files that had this stamp before."""
        seconds = math.inf if self.settings.fashion_mnist_url is None else DOWNLOAD_AGAIN_SECONDS
        with self._lock:
            self._refused[name] = _Refusal(files, why, time.monotonic() + seconds)
        self.look()

    def _holds(self, name: str, refusal: _Refusal) -> bool:
        return time.monotonic() < refusal.until and self.stamp(name) == refusal.files


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
