"""A memory cgroup of its own for the processes of a test, so that the kernel kills where its limit is reached."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.worker.service import until

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    folder: Path
    counter: Path
    """The file that counts the kernel's kills."""

    def add(self, pids: Iterable[int]) -> None:
        """Move processes into it; what they hold already is not counted."""
        for pid in pids:
            (self.folder / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        lines = (line.split() for line in self.counter.read_text().splitlines())
        return int(next(value for name, value in lines if name == "oom_kill"))


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """The test is skipped where none can be made, as for anybody but root."""
    old = (ROOT / "memory").is_dir()
    folder = ROOT / ("memory" if old else "") / f"traind-test-{uuid.uuid4().hex}"
    try:
        if not old:
            (ROOT / "cgroup.subtree_control").write_text("+memory")
        folder.mkdir()
        (folder / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit_bytes))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        yield MemoryGroup(folder, folder / ("memory.oom_control" if old else "memory.events"))
    finally:
        until(lambda: _removed(folder), bool)


def _removed(folder: Path) -> bool:
    """A cgroup can be removed only once its last process is gone."""
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()
