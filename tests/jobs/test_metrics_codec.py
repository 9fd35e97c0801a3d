"""Metric columns survive the way to bytes and back, whatever the values; damaged bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import CorruptMetrics
from jobs.metrics.codec import LARGEST, Column, Segment, decode, encode, make_column

STEPS = st.lists(st.integers(0, LARGEST) | st.integers(0, 5_000), max_size=40).map(sorted)
TIMES = st.floats(0, 1e9) | st.floats(0, 0.01)


@st.composite
def columns(draw: st.DrawFn) -> Column:
    steps = draw(STEPS)
    n = len(steps)
    times = draw(st.lists(TIMES, min_size=n, max_size=n))
    values = draw(st.lists(st.floats(), min_size=n, max_size=n))
    return make_column(steps, times, values)


@given(st.lists(columns(), max_size=6))
def test_points_come_back_as_they_were(given_columns: list[Column]) -> None:
    found = decode(encode(given_columns))
    assert len(found) == len(given_columns)
    for back, column in zip(found, given_columns, strict=True):
        np.testing.assert_array_equal(back.steps, column.steps)
        np.testing.assert_array_equal(back.values, column.values)
        np.testing.assert_allclose(back.times, column.times, rtol=1e-15, atol=0.51e-6)


@given(columns())
def test_encoding_again_changes_nothing(column: Column) -> None:
    data = encode([column])
    assert encode(decode(data)) == data


def test_differences_beyond_32_bits() -> None:
    column = make_column([0, 1, 2**40, LARGEST], [0.0, 1e-6, 4_000.0, 9e9], [1.0, 2.0, 3.0, 4.0])
    back = decode(encode([column]))[0]
    assert back.steps.tolist() == [0, 1, 2**40, LARGEST]
    assert back.times.tolist() == [0.0, 1e-6, 4_000.0, 9e9]


def test_clock_that_steps_back() -> None:
    assert decode(encode([make_column([1, 2], [5.0, 4.5], [0.0, 0.0])]))[0].times.tolist() == [5.0, 4.5]


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 9.1), ("float32", 5.1)])
def test_bytes_a_point_of_a_flush_with_three_keys(dtype: str, limit: float) -> None:
    steps, times = np.arange(1_000) + 70_000, np.arange(1_000) * 731e-6
    values = [np.random.default_rng(k).normal(size=1_000).astype(dtype) for k in range(3)]
    assert len(encode([make_column(steps, times, v) for v in values])) < limit * 3_000


def test_zeros_keep_their_sign() -> None:
    values = decode(encode([make_column([1, 2], [0.0, 0.0], [-0.0, 0.0])]))[0].values
    assert np.signbit(values).tolist() == [True, False]


@given(st.lists(columns(), min_size=1, max_size=3), st.data())
def test_truncated_bytes_are_refused(given_columns: list[Column], data: st.DataObject) -> None:
    whole = encode(given_columns)
    with pytest.raises(CorruptMetrics):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CorruptMetrics, match="too many"):
        decode(whole + b"\0")


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: b"\x01\x01\x00\x01\x00" + b))
def test_hostile_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        found = decode(data)
    except CorruptMetrics:
        return
    for column in found:
        make_column(*column)


@given(columns(), st.data())
def test_flipped_bytes_raise_nothing_else(column: Column, data: st.DataObject) -> None:
    damaged = bytearray(encode([column]))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(damaged))
    except CorruptMetrics:
        return
    for part in found:
        make_column(*part)


@pytest.mark.parametrize(("place", "byte"), [(18, 0x80), (18, 0x7F), (19, 0xFF)])
def test_negative_and_falling_steps_are_refused(place: int, byte: int) -> None:
    """Bytes 11 to 18 are the first step, 19 is the difference to the second."""
    damaged = bytearray(encode([make_column([5, 6], [0.0, 0.0], [1.0, 2.0])]))
    assert damaged[11:20] == b"\x05" + bytes(7) + b"\x01"
    damaged[place] = byte
    with pytest.raises(CorruptMetrics):
        decode(bytes(damaged))


def test_a_time_further_on_than_any_is_refused() -> None:
    """A flip in the difference from the first time (0) to the second (5e14 microseconds): it is 9.5e15 then."""
    damaged = bytearray(encode([make_column([1, 2], [0.0, 5e8], [0.0, 0.0])]))
    assert damaged[28:36] == int(5e14).to_bytes(8, "little")
    damaged[34] ^= 0x20
    with pytest.raises(CorruptMetrics, match="times out of range"):
        decode(bytes(damaged))


def test_a_newer_version_is_named() -> None:
    with pytest.raises(CorruptMetrics, match="version 2"):
        decode(b"\x02" + encode([])[1:])


@pytest.mark.parametrize(
    ("step0", "step1", "column", "message"),
    [
        (3, 2, ([], [], []), "must rise"),
        (0, 2**53 + 1, ([], [], []), "2\\^53"),
        (0, 9, ([1, 2], [0.0], [1.0, 2.0]), "equally long"),
        (0, 9, ([[1]], [[0.0]], [[1.0]]), "flat"),
        (0, 9, ([2, 1], [0.0, 0.0], [1.0, 2.0]), "never fall"),
        (0, 9, ([-1, 1], [0.0, 0.0], [1.0, 2.0]), "never fall"),
        (0, 9, ([5, 10], [0.0, 0.0], [1.0, 2.0]), "leave 0 to 9"),
        (0, 9, ([1], [float("nan")], [1.0]), "finite"),
        (0, 9, ([1], [float("inf")], [1.0]), "finite"),
    ],
)
def test_what_a_segment_refuses(step0: int, step1: int, column: tuple[list, list, list], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segment(step0, step1, {"train/loss": column})


@pytest.mark.parametrize("name", ["", "Loss", "a b", "ü", "x" * 201, "loss\n"])
def test_bad_key_names(name: str) -> None:
    with pytest.raises(ValueError, match="metric key"):
        Segment(0, 0, {name: ([], [], [])})
