"""What a trainer printed: a log file that is kept small, and its end for the attempt's row and its error."""

from __future__ import annotations

import contextlib
from pathlib import Path

KEPT_BYTES = 64 * 1024
"""How much of the end is kept."""
LIMIT_BYTES = 4 * KEPT_BYTES
EXCERPT_CHARACTERS = 4_000


def bound(log: Path) -> None:
    """Cut a log that outgrew LIMIT_BYTES down to its end. The trainer appends, so it goes on behind that."""
    with contextlib.suppress(OSError):  # a log is not worth an attempt
        if log.stat().st_size <= LIMIT_BYTES:
            return
        end = _tail(log)
        with log.open("r+b") as file:
            file.truncate(0)
        with log.open("ab") as file:
            file.write(end)


def read(log: Path) -> str:
    """The end of the log as text; empty if there is none, or it cannot be read."""
    try:
        return _tail(log).decode("utf-8", "replace")
    except OSError:
        return ""


def excerpt(text: str) -> str:
    """The last words of a log."""
    return text.rstrip()[-EXCERPT_CHARACTERS:]


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - KEPT_BYTES, 0))
        return file.read(KEPT_BYTES)
