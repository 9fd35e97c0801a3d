"""Curves of long jobs come from aggregates, and say exactly what the points behind them say."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Engine, update

from jobs.errors import CorruptMetrics
from jobs.metrics import store
from jobs.metrics.codec import LARGEST, Segment
from jobs.metrics.compact import BLOCK_STEPS, compact
from jobs.metrics.curves import Curve, curves
from jobs.tables import metric_block
from tests.jobs.builders import add_attempt, add_job

KEY = "train/loss"


@pytest.fixture
def job_id(engine: Engine, project_id: int) -> UUID:
    """Two attempts of ten blocks and a half each, the second from the middle of the first; odd values on the way."""
    with engine.begin() as conn:
        job_id = add_job(conn, project_id)
        for attempt, start in ((1, 0), (2, 5 * BLOCK_STEPS + 1_000)):
            add_attempt(conn, job_id, attempt, from_step=start)
            for seq in range(21):
                steps = np.arange(start + 1, start + 2_049) + seq * 2_048
                values = np.where(steps % 5_001 == 0, np.nan, np.where(steps % 7_001 == 0, -np.inf, np.sin(steps)))
                segment = Segment(int(steps[0]), int(steps[-1]), {KEY: (steps, steps / 7, values + attempt)})
                store.insert_segment(conn, job_id=job_id, attempt=attempt, seq=seq, segment=segment)
    for attempt in (1, 2):
        compact(engine, job_id=job_id, attempt=attempt)
    return job_id


def check(curve: Curve, series: store.Series, max_points: int) -> None:
    """Every point is behind exactly one bucket, which describes it."""
    own = slice(None) if curve.attempt is None else series.attempts == curve.attempt
    steps, values, found = series.steps[own], series.values[own], curve.buckets
    assert len(found) <= max_points
    assert found.count.sum() == len(steps)
    assert np.all(found.step0[1:] > found.step1[:-1])
    for n in range(len(found)):
        part = values[(steps >= found.step0[n]) & (steps <= found.step1[n])]
        assert found.count[n] == len(part)
        assert found.nan_count[n] == np.isnan(part).sum()
        np.testing.assert_array_equal([found.first[n], found.last[n]], [part[0], part[-1]])
        assert (found.min[n], found.max[n]) == (np.nanmin(part), np.nanmax(part))
        np.testing.assert_allclose(found.mean[n], np.nanmean(part), rtol=1e-9)


SPANS = [(0, LARGEST), (100, 9 * BLOCK_STEPS), (4_096, 8_191), (2 * BLOCK_STEPS, 12 * BLOCK_STEPS - 1)]


def test_buckets_describe_exactly_their_points(engine: Engine, job_id: UUID) -> None:
    """From one bucket to more than there are blocks, where points are read."""
    with engine.connect() as conn:
        for low, high in SPANS:
            span = {"step_from": low, "step_to": high}
            points = store.read(conn, job_id, **span)[KEY]
            all_points = store.read(conn, job_id, attempts="all", **span)[KEY]
            for max_points in (1, 3, 8, 11, 60):
                (visible,) = curves(conn, job_id, KEY, max_points=max_points, **span)
                assert visible.attempt is None
                check(visible, points, max_points)
                every = curves(conn, job_id, KEY, max_points=max_points, attempts="all", **span)
                assert [curve.attempt for curve in every] == np.unique(all_points.attempts).tolist()
                for curve in every:
                    check(curve, all_points, max_points)


def test_a_long_curve_decodes_only_blocks_that_are_cut(engine: Engine, job_id: UUID) -> None:
    """Blocks inside the range are damaged: their aggregates are enough, until the range cuts one."""
    with engine.begin() as conn:
        cut = 5
        inside = metric_block.c.block.not_in([cut])
        conn.execute(update(metric_block).where(inside).values(data=b"damaged"))
        assert curves(conn, job_id, KEY, max_points=8)[0].buckets.count.sum() == 5 * BLOCK_STEPS + 1_000 + 21 * 2_048
        with pytest.raises(CorruptMetrics):
            curves(conn, job_id, KEY, max_points=8, step_from=100)


def test_points_that_came_late_are_behind_a_bucket_too(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        late = Segment(7, 7, {KEY: ([7], [1.0], [1e9])})
        store.insert_segment(conn, job_id=job_id, attempt=1, seq=99, segment=late)
        found = curves(conn, job_id, KEY, max_points=3)[0].buckets
    assert found.count.sum() == 5 * BLOCK_STEPS + 1_000 + 21 * 2_048 + 1
    assert found.max[0] == 1e9


def test_what_is_not_there(engine: Engine, job_id: UUID) -> None:
    with engine.connect() as conn:
        for span in ({"step_from": 10**9}, {"step_from": 9, "step_to": 8}):
            assert [len(curve.buckets) for curve in curves(conn, job_id, KEY, max_points=2, **span)] == [0]
            assert curves(conn, job_id, KEY, max_points=2, attempts="all", **span) == []
        assert [len(curve.buckets) for curve in curves(conn, job_id, "unknown", max_points=2)] == [0]
        with pytest.raises(ValueError, match="at least 1"):
            curves(conn, job_id, KEY, max_points=0)
