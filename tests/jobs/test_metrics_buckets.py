"""Downsampling hides no spike and no NaN, and says how many points stand behind each bucket."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.metrics.buckets import Buckets, downsample, merge, points

VALUES = st.lists(st.floats() | st.sampled_from([np.nan, np.inf, -np.inf, 1.7e308, -1.7e308]), max_size=80)
SMALLEST = 5e-324


def sampled(values: list[float], max_points: int) -> Buckets:
    return downsample(np.arange(len(values), dtype=np.int64) * 10, np.array(values, np.float64), max_points)


def rows(buckets: Buckets) -> list[tuple[float, ...]]:
    return list(zip(*(a.tolist() for a in vars(buckets).values()), strict=True))


@given(VALUES, st.integers(1, 30))
def test_nothing_vanishes(values: list[float], max_points: int) -> None:
    buckets = sampled(values, max_points)
    assert len(buckets) == min(len(values), max_points)
    assert buckets.count.sum() == len(values)
    assert buckets.nan_count.sum() == np.isnan(values).sum()
    known = [v for v in values if not np.isnan(v)]
    if known:
        assert np.nanmin(buckets.min) == min(known)
        assert np.nanmax(buckets.max) == max(known)


@given(VALUES.filter(len), st.integers(1, 30))
@example([SMALLEST, SMALLEST], 1)
@example([1.7976931348623157e308] * 3, 1)
def test_each_bucket_describes_its_points(values: list[float], max_points: int) -> None:
    start = 0
    for step0, step1, first, last, low, high, mean, count, nan_count in rows(sampled(values, max_points)):
        part = np.array(values[start : start + int(count)])
        assert (step0, step1) == (start * 10, (start + count - 1) * 10)
        np.testing.assert_array_equal([first, last], [part[0], part[-1]])
        known = part[~np.isnan(part)]
        assert nan_count == count - len(known)
        if not len(known):
            assert np.isnan([low, high, mean]).all()
        elif np.isneginf(known).any() and np.isposinf(known).any():
            assert np.isnan(mean)
        else:
            assert (low, high) == (known.min(), known.max())
            assert low <= mean <= high
            np.testing.assert_allclose(mean, mean_of(known), rtol=1e-9, atol=np.abs(known).max() * 1e-9)
        start += int(count)


def mean_of(known: NDArray[np.float64]) -> float:
    """The one infinity among them, or the exact mean, rounded once: no sum that overflows, no parts that underflow."""
    if (infinite := np.isinf(known)).any():
        return float(known[infinite][0])
    return float(sum(map(Fraction, known.tolist())) / len(known))


@given(VALUES, st.integers(1, 30), st.integers(1, 30))
@example([SMALLEST, SMALLEST, 0.0], 2, 1)
def test_merging_buckets_is_like_merging_their_points(values: list[float], fine: int, coarse: int) -> None:
    merged = merge(sampled(values, fine), coarse)
    assert len(merged) <= coarse
    assert merged.count.sum() == len(values)
    whole, once = merge(merged, 1), sampled(values, 1)
    for name in ("step0", "step1", "first", "last", "min", "max", "count", "nan_count"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(once, name))
    if np.isfinite(values).all():
        tolerance = max(map(abs, values), default=0) * 1e-9 + len(values) * SMALLEST  # a rounding of each merge
        np.testing.assert_allclose(whole.mean, once.mean, rtol=1e-9, atol=tolerance)


@given(VALUES, st.integers(1, 30))
def test_merge_cuts_points_where_downsample_does(values: list[float], max_points: int) -> None:
    merged = merge(points(np.arange(len(values)) * 10, np.array(values, np.float64)), max_points)
    np.testing.assert_array_equal(merged.count, sampled(values, max_points).count)


def test_few_points_stay_as_they_are() -> None:
    assert rows(sampled([1.0, -np.inf], 2)) == [
        (0, 0, 1.0, 1.0, 1.0, 1.0, 1.0, 1, 0),
        (10, 10, -np.inf, -np.inf, -np.inf, -np.inf, -np.inf, 1, 0),
    ]


def test_a_million_points_with_one_spike_and_one_nan() -> None:
    values = np.ones(1_000_000)
    values[123_456], values[654_321] = 1e9, np.nan
    buckets = downsample(np.arange(1_000_000), values, 1_000)
    assert buckets.count.tolist() == [1_000] * 1_000
    assert buckets.max[123] == 1e9
    assert buckets.nan_count[654] == 1
    assert buckets.mean[654] == 1.0


def test_a_sum_too_large_for_a_float_has_a_mean() -> None:
    assert sampled([1.6e308] * 6 + [np.nan], 1).mean.tolist() == [1.6e308]


@pytest.mark.parametrize("max_points", [0, -1])
def test_at_least_one_bucket_is_needed(max_points: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sampled([1.0], max_points)
