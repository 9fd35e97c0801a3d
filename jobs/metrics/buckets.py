"""Downsampling that hides nothing: many points as few buckets, each with its extremes and its NaN count.

Pure numpy. Used by `store` when metrics are read and by `compact` for the aggregates of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.metrics.codec import Floats, Ints


@dataclass(frozen=True, eq=False)
class Buckets:
    """Runs of neighbouring points, in order; every field is an array of shape [n].

    A bucket's values that are not NaN give min, max and mean; these are NaN only where there is no such value, the
    mean also where +Inf and -Inf meet. Infinities are values. first and last are the outermost points as they are,
    NaN included. The arithmetic mean lies within min and max, also where the sum would overflow.
    """

    step0: Ints
    """Step of the first point."""
    step1: Ints
    """Step of the last point."""
    first: Floats
    last: Floats
    min: Floats
    max: Floats
    mean: Floats
    count: Ints
    """How many points stand behind the bucket, NaNs included."""
    nan_count: Ints

    def __len__(self) -> int:
        return len(self.count)


def downsample(steps: Ints, values: Floats, max_points: int) -> Buckets:
    """At most `max_points` buckets of about equally many points; each point its own where that many are enough.

    `steps` [n], int64, rising, and `values` [n], float64. Raises ValueError for max_points < 1.
    """
    _check(max_points)
    if len(values) <= max_points:
        return points(steps, values)
    starts = np.arange(max_points, dtype=np.int64) * len(values) // max_points
    ends = np.append(starts[1:], len(values)) - 1
    nan = np.isnan(values)
    low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    count = ends - starts + 1
    nan_count = np.add.reduceat(nan, starts, dtype=np.int64)
    return Buckets(
        step0=steps[starts],
        step1=steps[ends],
        first=values[starts],
        last=values[ends],
        min=low,
        max=high,
        mean=_mean(values, nan, starts, count - nan_count).clip(low, high),
        count=count,
        nan_count=nan_count,
    )


def points(steps: Ints, values: Floats) -> Buckets:
    """Every point as a bucket of its own. Shapes [n]; steps int64, values float64."""
    return Buckets(
        step0=steps,
        step1=steps,
        first=values,
        last=values,
        min=values,
        max=values,
        mean=values,
        count=np.ones(len(values), np.int64),
        nan_count=np.isnan(values).astype(np.int64),
    )


def merge(buckets: Buckets, max_points: int) -> Buckets:
    """Neighbours joined until there are at most `max_points` buckets, of about equally many points each.

    As if the points behind them were downsampled at the same cuts, but for rounding in the mean.
    Raises ValueError for max_points < 1.
    """
    _check(max_points)
    if len(buckets) <= max_points:
        return buckets
    starts = _even_starts(buckets.count, max_points)
    ends = np.append(starts[1:], len(buckets)) - 1
    low, high = np.fmin.reduceat(buckets.min, starts), np.fmax.reduceat(buckets.max, starts)
    count, nan_count = np.add.reduceat(buckets.count, starts), np.add.reduceat(buckets.nan_count, starts)
    return Buckets(
        step0=buckets.step0[starts],
        step1=buckets.step1[ends],
        first=buckets.first[starts],
        last=buckets.last[ends],
        min=low,
        max=high,
        mean=_merged_mean(buckets, starts, count - nan_count).clip(low, high),
        count=count,
        nan_count=nan_count,
    )


def _check(max_points: int) -> None:
    if max_points < 1:
        raise ValueError(f"max_points must be at least 1, not {max_points}")


def _mean(values: Floats, nan: NDArray[np.bool_], starts: Ints, weight: Ints) -> Floats:
    """Per bucket the mean of its `weight` values that are not NaN; NaN where there are none."""
    real = np.where(nan, 0.0, values) if nan.any() else values
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mean: Floats = np.add.reduceat(real, starts) / weight
        if not np.isfinite(mean).all():
            # A sum may have overflowed: add scaled values, which cannot.
            scaled = np.add.reduceat(real / len(values), starts) * (len(values) / weight)
            mean = np.where(np.isfinite(mean), mean, scaled)
    return mean


def _even_starts(count: Ints, max_points: int) -> Ints:
    """Index of the first member of each merged bucket."""
    before = np.cumsum(count) - count
    total = int(before[-1] + count[-1])
    wanted = np.arange(max_points, dtype=np.int64) * total // max_points
    return np.unique(np.searchsorted(before, wanted, side="right") - 1)


def _merged_mean(buckets: Buckets, starts: Ints, weight: Ints) -> Floats:
    """Per merged bucket the mean of its members' means, by how many values are not NaN; NaN where there are none."""
    sizes = np.diff(np.append(starts, len(buckets)))
    own = buckets.count - buckets.nan_count
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(own == 0, 0.0, buckets.mean * (own / np.repeat(weight, sizes)))
        return np.where(weight == 0, np.nan, np.add.reduceat(shares, starts))
