"""Curves: one metric in as many buckets as a chart can show, however long the job is.

A short series is read point by point. In a long one the aggregates of a block stand for its points; only a block
that the range or a later attempt cuts is decoded. So what is read and held in memory is bounded by the number of
blocks, not by the number of points. Called by the api.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, RowMapping, func, select

from jobs.metrics.buckets import Buckets, downsample, merge, points
from jobs.metrics.codec import LARGEST
from jobs.metrics.store import AGGREGATES, Attempts, Series, clip, columns, known_ids, overlapping, read
from jobs.tables import metric_block

DECODED_BLOCKS = 1_024
"""At most so many blocks are read point by point: 4 million points, 100 MB."""
_INTEGERS = {"step0", "step1", "count", "nan_count"}


@dataclass(frozen=True, eq=False)
class Curve:
    """Buckets of one metric, steps rising: of all points that count (`attempt` None), or of one attempt's."""

    attempt: int | None
    buckets: Buckets


def curves(
    conn: Connection,
    job_id: UUID,
    key: str,
    *,
    max_points: int,
    step_from: int = 0,
    step_to: int = LARGEST,
    attempts: Attempts = "visible",
) -> list[Curve]:
    """The points of `key` with step_from <= step <= step_to, in at most `max_points` buckets per curve.

    "visible" gives one curve, of what no later attempt trained again; "all" one for each attempt that has points.
    Every point stands behind exactly one bucket. Raises CorruptMetrics, and ValueError for max_points < 1.
    """
    ids = list(known_ids(conn, [key]).values())
    if _n_blocks(conn, job_id, ids, step_from, step_to) <= min(max_points, DECODED_BLOCKS):
        series = read(conn, job_id, [key], step_from=step_from, step_to=step_to, attempts=attempts)[key]
        return [
            Curve(attempt, downsample(series.steps[own], series.values[own], max_points))
            for attempt, own in _lines(series, attempts)
        ]
    query = overlapping(job_id, ids, step_from=step_from, step_to=step_to, attempts=attempts, with_aggregates=True)
    lines: dict[int | None, list[Buckets]] = {None: []} if attempts == "visible" else {}
    for attempt, part in _parts(conn.execute(query).mappings().all(), ids, step_from, step_to):
        lines.setdefault(None if attempts == "visible" else attempt, []).append(part)
    return [Curve(attempt, merge(_joined(parts), max_points)) for attempt, parts in lines.items()]


def _n_blocks(conn: Connection, job_id: UUID, ids: Sequence[int], step_from: int, step_to: int) -> int:
    b = metric_block.c
    inside = b.job_id == job_id, b.key_id.in_(ids), b.step1 >= step_from, b.step0 <= step_to
    return int(conn.execute(select(func.count()).where(*inside)).scalar_one())


def _lines(series: Series, attempts: Attempts) -> Iterator[tuple[int | None, slice]]:
    """Which of the points belong to which curve; the points lie by attempt."""
    if attempts == "visible":
        yield None, slice(None)
        return
    numbers, starts = np.unique(series.attempts, return_index=True)
    ends = np.append(starts, len(series.steps))[1:]
    for number, start, end in zip(numbers, starts, ends, strict=True):
        yield int(number), slice(start, end)


def _parts(
    rows: Sequence[RowMapping], ids: Sequence[int], step_from: int, step_to: int
) -> Iterator[tuple[int, Buckets]]:
    """Attempt and buckets: whole blocks as their aggregates, everything else as points."""
    for attempt in sorted({row["attempt"] for row in rows}):
        own = [row for row in rows if row["attempt"] == attempt]
        whole = [row for row in own if row["data"] is None]
        if whole:
            yield attempt, Buckets(**{name: _column(name, [row[name] for row in whole]) for name in AGGREGATES})
        for row in own:
            for key_id, column in columns(row["key_ids"], row["data"]) if row["data"] is not None else ():
                cut = clip(column, step_from, min(step_to, row["cut"]))
                if key_id in ids and len(cut.steps):
                    yield attempt, points(cut.steps, cut.values)


def _column(name: str, values: list[float]) -> np.ndarray:
    return np.array(values, np.int64 if name in _INTEGERS else np.float64)


def _joined(parts: Sequence[Buckets]) -> Buckets:
    """By step: what came late, or is not yet in its block, lies behind the blocks."""
    columns = {name: np.concatenate([_column(name, []), *(getattr(p, name) for p in parts)]) for name in AGGREGATES}
    order = np.argsort(columns["step0"], kind="stable")
    return Buckets(**{name: column[order] for name, column in columns.items()})
