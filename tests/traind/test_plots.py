"""What is drawn is what was measured."""

from __future__ import annotations

import math

import pytest

from traind.cli.plots import BRAILLE, DOTS, Scale, chart, sparkline


def dots(lines: list[str]) -> set[tuple[int, int]]:
    """(x, y) of every dot of a chart, y from the bottom."""
    rows = [line.partition("│")[2] for line in lines if "│" in line]
    found = set()
    for i, row in enumerate(rows):
        for j, character in enumerate(row):
            bits = ord(character) - BRAILLE
            found |= {(2 * j + c, 4 * (len(rows) - i) - 1 - r) for r in range(4) for c in range(2) if bits & DOTS[r][c]}
    return found


def test_a_sparkline_goes_from_the_lowest_block_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"


def test_sparklines_of_one_scale_can_be_compared() -> None:
    scale = Scale.of([0.0, 1.0])
    assert (sparkline([0.0, 0.0], scale), sparkline([1.0, 1.0], scale)) == ("▁▁", "██")


def test_what_is_not_finite_is_marked_and_does_not_stretch_the_scale() -> None:
    assert sparkline([1.0, math.nan, math.inf, 2.0]) == "▁xx█"
    assert sparkline([math.nan]) == "x"
    assert sparkline([]) == ""


def test_a_chart_shows_a_line_from_the_first_step_to_the_last() -> None:
    lines = chart([1, 100], [0.0, 10.0], width=20, height=5)
    found = dots(lines)
    assert {(0, 0), (39, 19)} <= found
    assert {x for x, _ in found} == set(range(40))
    assert lines[0].startswith("10 │")
    assert lines[-1].split() == ["1", "100"]


def test_a_chart_shows_every_spike() -> None:
    steps = list(range(1_000))
    values = [0.0] * 1_000
    values[617] = 1.0
    assert any(y == 31 for _, y in dots(chart(steps, values)))


def test_a_gap_stays_a_gap() -> None:
    found = dots(chart([0, 1, 2, 3, 4], [1.0, 2.0, math.nan, 1.0, 2.0], width=20, height=4))
    assert not {x for x, _ in found} & set(range(12, 28))


def test_values_far_apart_are_drawn_by_their_logarithm_and_say_so() -> None:
    lines = chart([0, 1, 2], [1.0, 1_000.0, 1_000_000.0], width=20, height=4)
    assert "(log)" in lines[-1]
    assert (20, 8) in dots(lines) or (20, 7) in dots(lines)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [-1e308, 1e308], [5e-324, 1e308], [0.0, 1e308]])
def test_extreme_and_constant_values_are_drawn(values: list[float]) -> None:
    assert dots(chart(list(range(len(values))), values, width=10, height=3))
    assert len(sparkline(values)) == len(values)


def test_nothing_finite_is_said() -> None:
    assert chart([1, 2], [math.nan, math.inf]) == ["no finite value"]
