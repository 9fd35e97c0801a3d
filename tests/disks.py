"""Small file systems of a test's own, and what fills them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEBIBYTE = 1 << 20


@contextmanager
def small_disk(folder: Path, size_bytes: int, *, mode: str = "700") -> Iterator[Path]:
    """A file system of its own; the test is skipped where none can be mounted, as for anybody but root."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode={mode}", "traind-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is, and what becomes free for a while after."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        ends_at = time.monotonic() + 1
        while time.monotonic() < ends_at:
            with contextlib.suppress(OSError):
                file.write(bytes(4_096))
    return filler


def fill_but(disk: Path, left_bytes: int) -> Path:
    """A file that takes all but `left_bytes`, at once, beside what it takes already."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(max(0, shutil.disk_usage(disk).free - left_bytes) // 4_096):
            file.write(bytes(4_096))
    return filler
