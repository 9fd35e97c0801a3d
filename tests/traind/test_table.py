"""Tables of one line a row: what gives way where a terminal is narrow."""

from __future__ import annotations

import pytest

from traind.cli.table import Ident, cells, draw

IDS = ("01a2266f-eb3a-71c5-9c5f-2d2f10f6d06f", "01a2266f-eb3a-71c5-9c5f-2d2f10f6d0aa")
HEADERS = ("id", "state", "note", "empty", "n")
ROWS = [(Ident(ident), "succeeded", "a long note " * 3, "", str(i)) for i, ident in enumerate(IDS)]


def drawn(width: int | None) -> tuple[list[str], tuple[str, ...]]:
    table = draw(HEADERS, ROWS, right=(4,), spare=(1,), cut=(2,), width=width)
    return table.lines, table.left_out


def test_without_a_bound_all_is_there() -> None:
    lines, left_out = drawn(None)
    assert left_out == ()
    assert lines[0].split() == list(HEADERS)
    for line, ident in zip(lines[1:], IDS, strict=True):
        assert line.startswith(f"{ident}  succeeded  a long note a long note a long note")


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 80, 100, 200])
def test_a_row_is_one_line_and_an_id_whole_or_its_end(width: int) -> None:
    lines, _ = drawn(width)
    assert len(lines) == 3
    assert [line.split()[0] for line in lines[1:]] in ([*IDS], [ident[-8:] for ident in IDS])
    if width >= 25:
        assert max(map(cells, lines)) <= width


def test_what_gives_way_comes_in_order() -> None:
    assert "01a2266f" not in drawn(80)[0][1]
    assert drawn(80)[0][0].split() == ["id", "state", "note", "empty", "n"]
    assert drawn(61)[0][0].split() == ["id", "state", "note", "n"], "a column without a value goes first, unmentioned"
    assert drawn(55) == (drawn(55)[0], ("state",))
    lines, left_out = drawn(30)
    assert left_out == ("state",)
    assert all("…" in line for line in lines[1:])


def test_wide_and_combining_characters_are_counted_as_a_terminal_shows_them() -> None:
    assert [cells(text) for text in ("abc", "日本", "e\u0301", "")] == [3, 4, 1, 0]
    lines = draw(("a", "b"), [("日本語", "x"), ("e\u0301", "y")]).lines
    assert lines == ["a       b", "日本語  x", "e\u0301       y"]
    cut = draw(("a",), [("日本語日本語",)], cut=(0,), width=9).lines
    assert cut == ["a", "日本語日…"]


def test_colours_only_where_they_are_wanted_and_beside_the_padding() -> None:
    assert draw(("state", "n"), [("failed", "1")], styles={"failed": "red"}).lines == [
        "\x1b[1mstate\x1b[0m   \x1b[1mn\x1b[0m",
        "\x1b[31mfailed\x1b[0m  1",
    ]
