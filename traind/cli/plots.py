"""Curves in a terminal: a sparkline for a table's cell, a chart in braille dots for one metric.

Pure functions from numbers to text. NaN and infinities are never drawn as if they were values: a sparkline marks them
with x, a chart leaves a gap and says so in words (its caller).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BLOCKS = "▁▂▃▄▅▆▇█"
BRAILLE = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille cell by row (4) and column (2)."""
LOG_FROM_RATIO = 1_000.0


@dataclass(frozen=True)
class Scale:
    """The position of a value between the smallest and the largest: 0 to 1, logarithmic if they are far apart."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Scale | None:
        """The scale of the finite values among `values`; None if there are none."""
        finite = [value for value in values if math.isfinite(value)]
        return cls(min(finite), max(finite)) if finite else None

    @property
    def log(self) -> bool:
        return self.low > 0 and self.high / self.low >= LOG_FROM_RATIO

    def place(self, value: float) -> float:
        # halved, because the difference of two large numbers may overflow
        low, high, at = (math.log(v) if self.log else v / 2 for v in (self.low, self.high, value))
        return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5


def sparkline(values: Sequence[float], scale: Scale | None = None) -> str:
    """One block character per value. With a shared `scale`, several lines can be compared."""
    scale = scale or Scale.of(values)
    return "".join(
        BLOCKS[round(scale.place(value) * (len(BLOCKS) - 1))] if scale and math.isfinite(value) else "x"
        for value in values
    )


def chart(steps: Sequence[int], values: Sequence[float], *, width: int = 60, height: int = 8) -> list[str]:
    """A line through (step, value), with its axes; steps in order, `width` and `height` in characters."""
    scale = Scale.of(values)
    if scale is None:
        return ["no finite value"]
    span = max(1, steps[-1] - steps[0])
    columns = [round((step - steps[0]) / span * (2 * width - 1)) for step in steps]
    cells = [[0] * width for _ in range(height)]
    for x, y in _dots(columns, [scale.place(v) if math.isfinite(v) else None for v in values], 4 * height - 1):
        row = 4 * height - 1 - y
        cells[row // 4][x // 2] |= DOTS[row % 4][x % 2]
    labels = [f"{scale.high:.4g}", *[""] * (height - 2), f"{scale.low:.4g}"]
    margin = max(map(len, labels))
    lines = [
        f"{label:>{margin}} │{''.join(chr(BRAILLE + c) for c in row)}" for label, row in zip(labels, cells, strict=True)
    ]
    last_step = f"{steps[-1]} (log)" if scale.log else str(steps[-1])
    return [
        *lines,
        f"{'':>{margin}} └{'─' * width}",
        f"{'':>{margin}}  {steps[0]:<{width - len(last_step)}}{last_step}",
    ]


def _dots(columns: Sequence[int], places: Sequence[float | None], top: int) -> Iterator[tuple[int, int]]:
    """The dots of the line: straight between neighbours, interrupted at a place that is None."""
    before: tuple[int, int] | None = None
    for x, place in zip(columns, places, strict=True):
        if place is None:
            before = None
            continue
        here = (x, round(place * top))
        yield from _segment(before or here, here)
        before = here


def _segment(a: tuple[int, int], b: tuple[int, int]) -> Iterator[tuple[int, int]]:
    n = max(abs(b[0] - a[0]), abs(b[1] - a[1]), 1)
    for i in range(n + 1):
        yield a[0] + round((b[0] - a[0]) * i / n), a[1] + round((b[1] - a[1]) * i / n)
