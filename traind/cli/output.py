"""Prints the output of the commands: data to stdout, everything else to stderr.

If stdout is not a terminal, tables are aligned and never cut off; colours appear only on a terminal (and not with
NO_COLOR). Text from other sources is shown without control characters.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from traind.cli.table import Ident, draw

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ONE_LINE = str.maketrans("\n\t", "  ")

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
    """Print a line for the user on stderr."""
    with contextlib.suppress(OSError):  # there is nowhere left to say it
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def data(text: str) -> None:
    """Print lines of data on stdout. A single line that cannot be written there, such as a job's id, goes to stderr."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as e:
        if e.errno != errno.EPIPE and "\n" not in text:
            note(text)
        raise


def document(value: Any) -> None:
    """Print one JSON document on stdout."""
    data(json.dumps(value, indent=2, allow_nan=False))


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Collection[int] = (),
    spare: Sequence[int] = (),
    cut: Sequence[int] = (),
) -> None:
    """Print a table on stdout, one line per row; None is an empty cell, and columns in `right` are right-aligned.

    If the terminal is too narrow, ids (`Ident`) are shortened to their last digits, the columns in `spare` are left out
    in the given order, and those in `cut` are cut; a line on stderr names what is missing.
    """
    drawn = draw(
        headers,
        [[_cell(cell) for cell in row] for row in rows],
        right=right,
        spare=spare,
        cut=cut,
        width=_terminal_width(),
        styles=STATE_STYLES if _coloured() else None,
    )
    data("\n".join(drawn.lines))
    if drawn.left_out:
        note(f"(left out for want of room: {', '.join(drawn.left_out)}; -o json and pipes have all)")


def _cell(value: object) -> str:
    if isinstance(value, Ident):
        return Ident(printable(value))
    return printable("" if value is None else str(value)).translate(_ONE_LINE)


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _coloured() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")


def wrapped_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table of long texts on stdout; a text that does not fit is wrapped within its column."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        cells = [printable("" if cell is None else str(cell)) for cell in row]
        drawn.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in cells))
    show(drawn)


def show(drawn: Table) -> None:
    """Print a Rich table on stdout, without the blanks that pad its last column."""
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
    """`text` without characters that control a terminal; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def number(value: float | None) -> str:
    """A metric's value with four significant digits; empty if there is none."""
    return "" if value is None else f"{value:.4g}"


def when(at: datetime | None) -> str:
    """A time in this machine's time zone, with the zone: "2026-01-31 14:05:00 CET"; empty if there is none."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def moment(text: str) -> datetime:
    """A time of the API. Raises ValueError."""
    return datetime.fromisoformat(text)


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
