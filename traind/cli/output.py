"""What the commands print: data to stdout, everything else to stderr.

Tables are aligned and never cut off where stdout is not a terminal; colours appear only on one (and not with
NO_COLOR). Text that came from elsewhere is shown without control characters.
"""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATE_STYLES = {
    "queued": "dim",
    "running": "cyan",
    "cancelling": "yellow",
    "pausing": "yellow",
    "paused": "yellow",
    "succeeded": "green",
    "diverged": "magenta",
    "failed": "red",
    "cancelled": "yellow",
    "live": "green",
    "ill": "red",
    "silent": "red",
    "stopped": "dim",
    "ok": "green",
    "warning": "yellow",
    "error": "red",
}


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


def note(text: str) -> None:
    """One line for a person, on stderr."""
    with contextlib.suppress(OSError):  # there is nowhere left to say it
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def data(text: str) -> None:
    """Lines of data, on stdout. A single line that cannot be written there, such as a new job's id, goes to stderr."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as e:
        if e.errno != errno.EPIPE and "\n" not in text:
            note(text)
        raise


def document(value: Any) -> None:
    """One JSON document, on stdout."""
    data(json.dumps(value, indent=2, allow_nan=False))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """A table on stdout; the columns with numbers in `right` are aligned to the right, None is an empty cell."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, header in enumerate(headers):
        drawn.add_column(header, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        cells = [printable("" if cell is None else str(cell)) for cell in row]
        drawn.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in cells))
    show(drawn)


def show(drawn: Table) -> None:
    """A drawn table on stdout, without the blanks that fill its last column."""
    console = stdout()
    with console.capture() as captured:
        console.print(drawn)
    data("\n".join(line.rstrip() for line in captured.get().splitlines()))


def stdout() -> Console:
    return _console(sys.stdout)


def stderr() -> Console:
    return _console(sys.stderr)


@cache
def _console(file: TextIO) -> Console:
    from rich.console import Console

    width = None if file.isatty() else 100_000
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def printable(text: str) -> str:
    """`text` without characters that steer a terminal; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def number(value: float | None) -> str:
    """A metric's value, four significant digits; empty where there is none."""
    return "" if value is None else f"{value:.4g}"


def when(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    """Seconds as people read them: "0.4 s", "12 s", "3 min 05 s", "2 h 14 min"."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(n_bytes: int) -> str:
    if n_bytes < 1_000:
        return f"{n_bytes} B"
    return f"{n_bytes / 1e3:.1f} kB" if n_bytes < 1_000_000 else f"{n_bytes / 1e6:,.1f} MB"
