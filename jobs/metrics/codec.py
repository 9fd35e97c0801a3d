"""Metric columns as bytes: the `data` of metric_segment and metric_block rows.

Points are stored by column (one column per metric key): int64 steps, times in microseconds since the attempt's
start, float64 values, NaN and infinities included. Columns that were recorded at the same steps and times share one
axis. Steps and times are kept as differences, in the narrowest of 1, 2, 4 or 8 bytes that holds all of an axis (4
bytes reach 2^31 steps and 35 minutes between two points). Values take 4 bytes where float32 holds each of a column's
exactly, as it does for what torch computed in float32, else 8. So a point takes 5 to 11 bytes.

Layout, version 1, little-endian, no padding:

    u8 version = 1, u16 axes, u16 columns
    per axis:    u32 n, u8 width of step differences, u8 width of time differences
                 if n > 0: i64 first step, (n - 1) differences, i64 first time, (n - 1) differences
    per column:  u16 axis, u8 width of values (4 or 8), n values (f32 or f64)

`decode` trusts nothing: every length is checked before it is used. Names of keys are not in here: a row holds the
keys' ids in the order of its columns. Called by `store` and `compact`; nothing here touches the database.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobs.errors import CorruptMetrics

VERSION = 1
LARGEST = 2**53
"""Largest step, and largest time in microseconds (285 years): what float64, and so JSON, holds exactly."""
WIDTHS = (1, 2, 4, 8)
KEY_NAME = re.compile(r"[a-z0-9_./-]{1,200}")

_HEADER = struct.Struct("<BHH")
_AXIS = struct.Struct("<IBB")
_FIRST = struct.Struct("<q")
_COLUMN = struct.Struct("<HB")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Column(NamedTuple):
    """The points of one key, in the order they were recorded; three arrays of shape [n]."""

    steps: Ints
    """int64, 0 to 2^53, never falling."""
    times: Floats
    """float64, seconds since the attempt's start; kept to the microsecond."""
    values: Floats
    """float64; NaN and infinities are values like any other."""


class Segment:
    """One flush: the columns of all its keys. All steps lie within step0 to step1, both included."""

    def __init__(self, step0: int, step1: int, columns: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]]) -> None:
        """`columns`: per key its steps, times and values, three sequences of equal length.

        Raises ValueError for a bad name, for lengths that differ, for steps that fall, leave step0 to step1 or
        exceed 2^53, and for times that are not finite.
        """
        if not 0 <= step0 <= step1 <= LARGEST:
            raise ValueError(f"steps {step0} to {step1} must rise and lie within 0 to 2^53")
        self.step0 = step0
        self.step1 = step1
        self.columns = {name: make_column(*arrays) for name, arrays in columns.items()}
        for name, column in self.columns.items():
            if not KEY_NAME.fullmatch(name):
                raise ValueError(f"metric key {name!r:.210} must match {KEY_NAME.pattern}")
            if len(column.steps) and not step0 <= column.steps[0] <= column.steps[-1] <= step1:
                raise ValueError(f"{name}: steps {column.steps[0]} to {column.steps[-1]} leave {step0} to {step1}")


def make_column(steps: ArrayLike, times: ArrayLike, values: ArrayLike) -> Column:
    """A checked column from three sequences of equal length. Raises ValueError as Segment does."""
    column = Column(
        np.asarray(steps, dtype=np.int64), np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    )
    if not column.steps.shape == column.times.shape == column.values.shape or column.steps.ndim != 1:
        raise ValueError(f"steps, times and values must be flat and equally long, not {[a.shape for a in column]}")
    if not _rising(column.steps):
        raise ValueError("steps must never fall and lie within 0 to 2^53")
    if not np.all(np.abs(column.times) <= LARGEST / 1e6):
        raise ValueError("times must be finite and within 2^53 microseconds")
    return column


def encode(columns: Sequence[Column]) -> bytes:
    """The columns as bytes. Raises ValueError for more than 65,535 columns."""
    if len(columns) > 0xFFFF:
        raise ValueError(f"{len(columns)} columns; at most 65,535 fit in one row")
    axes: dict[bytes, int] = {}
    bodies = []
    for column in columns:
        axis = axes.setdefault(_encode_axis(column), len(axes))
        width, values = _encode_floats(column.values)
        bodies.append(_COLUMN.pack(axis, width) + values)
    return b"".join([_HEADER.pack(VERSION, len(axes), len(columns)), *axes, *bodies])


def decode(data: bytes) -> list[Column]:
    """The columns that `encode` was given, times rounded to the microsecond. Raises CorruptMetrics."""
    reader = _Reader(data)
    version, n_axes, n_columns = reader.unpack(_HEADER)
    if version != VERSION:
        raise CorruptMetrics(f"metric data of version {version}; this release reads version {VERSION}")
    axes = [_decode_axis(reader) for _ in range(n_axes)]
    columns = [_decode_column(reader, axes) for _ in range(n_columns)]
    if reader.offset != len(data):
        raise CorruptMetrics(f"{len(data) - reader.offset} bytes too many in metric data")
    return columns


def _encode_axis(column: Column) -> bytes:
    step_width, steps = _encode_ints(column.steps)
    time_width, times = _encode_ints(np.rint(column.times * 1e6).astype(np.int64))
    return _AXIS.pack(len(column.steps), step_width, time_width) + steps + times


def _encode_ints(values: Ints) -> tuple[int, bytes]:
    if not len(values):
        return 1, b""
    differences = np.diff(values)
    reach = max(int(differences.max(initial=0)), -1 - int(differences.min(initial=0)))
    width = next(w for w in WIDTHS if reach < 1 << (8 * w - 1))
    return width, _FIRST.pack(values[0]) + differences.astype(f"<i{width}").tobytes()


def _encode_floats(values: Floats) -> tuple[int, bytes]:
    with np.errstate(over="ignore"):
        narrow = values.astype("<f4")
    if np.array_equal(narrow, values, equal_nan=True):
        return 4, narrow.tobytes()
    return 8, values.astype("<f8").tobytes()


class _Reader:
    """A cursor over bytes that refuses to read past their end."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.offset = 0

    def take(self, size: int) -> memoryview:
        part = self.data[self.offset : self.offset + size]
        if len(part) != size:
            raise CorruptMetrics(f"metric data ends after {len(self.data)} bytes; {size} are wanted at {self.offset}")
        self.offset += size
        return part

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))


def _decode_axis(reader: _Reader) -> tuple[Ints, Floats]:
    n, step_width, time_width = reader.unpack(_AXIS)
    if step_width not in WIDTHS or time_width not in WIDTHS:
        raise CorruptMetrics(f"metric data with differences of {step_width} and {time_width} bytes")
    steps = _decode_ints(reader, n, step_width)
    if not _rising(steps):
        raise CorruptMetrics("metric data with falling or negative steps")
    return steps, _decode_ints(reader, n, time_width) / 1e6


def _decode_ints(reader: _Reader, n: int, width: int) -> Ints:
    if n == 0:
        return np.empty(0, np.int64)
    (first,) = reader.unpack(_FIRST)
    differences = np.frombuffer(reader.take((n - 1) * width), f"<i{width}")
    # Where a sum could be too large for int64 it is tried in float64, which cannot wrap around.
    large = n << (8 * width - 1) > LARGEST and np.abs(differences.astype(np.float64)).sum() > 2 * LARGEST
    if abs(first) <= LARGEST and not large:
        values = np.empty(n, np.int64)
        values[0] = first
        np.cumsum(differences, dtype=np.int64, out=values[1:])
        values[1:] += first
        if np.abs(values).max() <= LARGEST:
            return values
    raise CorruptMetrics("metric data with steps or times out of range")


def _decode_column(reader: _Reader, axes: list[tuple[Ints, Floats]]) -> Column:
    axis, width = reader.unpack(_COLUMN)
    if axis >= len(axes) or width not in (4, 8):
        raise CorruptMetrics(f"metric data names axis {axis} of {len(axes)} and values of {width} bytes")
    steps, times = axes[axis]
    values = np.frombuffer(reader.take(width * len(steps)), f"<f{width}").astype(np.float64)
    return Column(steps, times, values)


def _rising(steps: Ints) -> bool:
    return not len(steps) or bool(steps[0] >= 0 and steps[-1] <= LARGEST and np.all(steps[1:] >= steps[:-1]))
