"""Tables with one line per row; columns are left out or cut on a narrow terminal, never in a pipe. Pure functions.

Without Rich, which costs a short command more time than all else it does. Called by `traind.cli.output`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

GAP = "  "
SHORT_ID = 8
"""Number of hexadecimal digits of a short id: the last ones, because a UUIDv7 begins with the time."""
LEAST_CELLS = 8
"""A column is never cut to less than this width."""
BOLD = "1"
CODES = {"dim": "2", "red": "31", "green": "32", "yellow": "33", "magenta": "35", "cyan": "36"}
"""ANSI codes (ECMA-48, 8.3.117) of the styles in `output.STATE_STYLES`."""


class Ident(str):
    """An id that may be shortened to its last digits, but is never cut or wrapped."""

    __slots__ = ()

    @property
    def short(self) -> str:
        return short_id(self)


@dataclass(frozen=True)
class Drawn:
    """The lines of a table, and the headers of the columns that did not fit."""

    lines: list[str]
    left_out: tuple[str, ...] = ()


def short_id(ident: str) -> str:
    return ident[-SHORT_ID:]


def draw(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    spare: Sequence[int] = (),
    cut: Sequence[int] = (),
    width: int | None = None,
    styles: Mapping[str, str] | None = None,
) -> Drawn:
    """A line for the headers and one for each row; cells that a row lacks at its end are empty.

    Beyond `width` terminal cells (None: no bound) ids are shortened, then columns without a value are left out, then
    those in `spare`, first ones first, and last the columns in `cut` are cut with an ellipsis. `styles` gives the style
    of cells by their text; None draws no colours.
    """
    columns = [[header, *(row[i] if i < len(row) else "" for row in rows)] for i, header in enumerate(headers)]
    shown, left_out = list(range(len(headers))), list[int]()
    if width is not None and _width(columns, shown) > width:
        columns = [[cell.short if isinstance(cell, Ident) else cell for cell in column] for column in columns]
        for i in (*(i for i in shown if not any(columns[i][1:])), *spare):
            if _width(columns, shown) > width and i in shown:
                shown.remove(i)
                left_out += [i] if any(columns[i][1:]) else []
        for i in cut:
            if i in shown and (excess := _width(columns, shown) - width) > 0:
                columns[i] = _cut(columns[i], excess)
    padded = [_padded(columns[i], to_the_right=i in right) for i in shown]
    return Drawn(_lines(padded, styles), tuple(headers[i] for i in left_out))


def cells(text: str) -> int:
    """How many terminal cells the text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(c) for c in text)


def _cells_of(c: str) -> int:
    if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def _width(columns: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    return sum(max(map(cells, columns[i])) for i in shown) + len(GAP) * (len(shown) - 1)


def _cut(column: Sequence[str], excess: int) -> list[str]:
    most = max(LEAST_CELLS, max(map(cells, column)) - excess)
    return [cell if cells(cell) <= most else f"{_first(cell, most - 1)}…" for cell in column]


def _first(text: str, most: int) -> str:
    """The beginning of the text, as much as fits into `most` cells."""
    taken = 0
    for i, c in enumerate(text):
        taken += _cells_of(c)
        if taken > most:
            return text[:i]
    return text


def _padded(column: Sequence[str], *, to_the_right: bool) -> list[tuple[str, str, str]]:
    """Each text with the blanks before and after it."""
    width = max(map(cells, column))
    blanks = [" " * (width - cells(cell)) for cell in column]
    return [(b, cell, "") if to_the_right else ("", cell, b) for b, cell in zip(blanks, column, strict=True)]


def _lines(columns: Sequence[Sequence[tuple[str, str, str]]], styles: Mapping[str, str] | None) -> list[str]:
    lines = []
    for i, row in enumerate(zip(*columns, strict=True)):
        drawn = (f"{before}{_styled(text, i, styles)}{after}" for before, text, after in row)
        lines.append(GAP.join(drawn).rstrip())
    return lines


def _styled(text: str, row: int, styles: Mapping[str, str] | None) -> str:
    code = None if styles is None else BOLD if row == 0 else CODES.get(styles.get(text, ""))
    return f"\x1b[{code}m{text}\x1b[0m" if code else text
