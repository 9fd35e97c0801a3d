"""Metric points in Postgres: one immutable row per flush, later compacted into blocks (see `compact`).

`insert_segment` is called by `jobs.lifecycle` after its fence, in the same transaction; the rest are reads, called
by the api. A read is one statement, so that a compaction beside it can neither hide nor double a point.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Table,
    and_,
    case,
    func,
    literal,
    null,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import array, insert

from jobs.errors import CorruptMetrics
from jobs.metrics.codec import LARGEST, Column, Floats, Ints, Segment, decode, encode
from jobs.tables import metric_block, metric_key, metric_segment
from jobs.visibility import NO_CUT, cuts

AGGREGATES = ("step0", "step1", "first", "last", "min", "max", "mean", "count", "nan_count")
"""What a block says of its points; the names are those of `buckets.Buckets`."""
Attempts = Literal["visible", "all"]


@dataclass(frozen=True, eq=False)
class Series:
    """The points of one key, by attempt, then by step; every field is an array of shape [n].

    With attempts="visible" the steps rise from the first point to the last.
    """

    steps: Ints
    times: Floats
    """Seconds since the start of the point's attempt."""
    values: Floats
    attempts: NDArray[np.int32]


def key_ids(conn: Connection, names: Collection[str]) -> dict[str, int]:
    """The id of each metric key; new names are added. Safe beside other callers."""
    ids = known_ids(conn, names)
    missing = sorted(set(names) - ids.keys())
    if missing:
        # Sorted, so that two callers who add the same names cannot wait for each other in a circle.
        conn.execute(insert(metric_key).on_conflict_do_nothing(), [{"name": name} for name in missing])
        ids |= known_ids(conn, missing)
    return ids


def insert_segment(conn: Connection, *, job_id: UUID, attempt: int, seq: int, segment: Segment) -> bool:
    """Store one flush. False, and nothing changed, where this (job, attempt, seq) is there already."""
    ids = key_ids(conn, segment.columns)
    row = {
        "job_id": job_id,
        "attempt": attempt,
        "seq": seq,
        "step0": segment.step0,
        "step1": segment.step1,
        "keys": [ids[name] for name in segment.columns],
        "data": encode(list(segment.columns.values())),
    }
    inserted = insert(metric_segment).values(row).on_conflict_do_nothing().returning(metric_segment.c.seq)
    return conn.execute(inserted).one_or_none() is not None


def names(conn: Connection, job_id: UUID) -> list[str]:
    """The names of all metric keys that the job has recorded, sorted."""
    used = union_all(
        select(func.unnest(metric_segment.c["keys"])).where(metric_segment.c.job_id == job_id),
        select(metric_block.c.key_id).where(metric_block.c.job_id == job_id),
    )
    query = select(metric_key.c.name).where(metric_key.c.id.in_(used)).order_by(metric_key.c.name)
    return list(conn.execute(query).scalars())


def read(
    conn: Connection,
    job_id: UUID,
    keys: Collection[str] | None = None,
    *,
    step_from: int = 0,
    step_to: int = LARGEST,
    attempts: Attempts = "visible",
) -> dict[str, Series]:
    """The points with step_from <= step <= step_to, by key; only rows that overlap these steps are fetched.

    `keys` None means all. A key that is asked for is in the result, empty where it has no points. "visible" leaves
    out what a later attempt trained again (`jobs.visibility`). Raises CorruptMetrics.
    """
    ids = known_ids(conn, names(conn, job_id) if keys is None else keys)
    parts: dict[int, list[tuple[int, Column]]] = {key_id: [] for key_id in ids.values()}
    query = overlapping(job_id, list(parts), step_from=step_from, step_to=step_to, attempts=attempts)
    for row in conn.execute(query):
        for key_id, column in columns(row.key_ids, row.data):
            if key_id in parts:
                parts[key_id].append((row.attempt, clip(column, step_from, min(step_to, row.cut))))
    return {name: _series(parts[ids[name]] if name in ids else []) for name in (ids if keys is None else keys)}


def columns(key_ids: Sequence[int], data: bytes) -> Iterable[tuple[int, Column]]:
    """Key id and column for each key of a row. Raises CorruptMetrics."""
    found = decode(data)
    if len(found) != len(key_ids):
        raise CorruptMetrics(f"metric data has {len(found)} columns for {len(key_ids)} keys")
    return zip(key_ids, found, strict=True)


def clip(column: Column, step_from: int, step_to: int) -> Column:
    """The points with step_from <= step <= step_to."""
    part = slice(np.searchsorted(column.steps, step_from), np.searchsorted(column.steps, step_to, side="right"))
    return Column(column.steps[part], column.times[part], column.values[part])


def known_ids(conn: Connection, names: Collection[str]) -> dict[str, int]:
    query = select(metric_key.c.name, metric_key.c.id).where(metric_key.c.name.in_(names))
    return {row.name: row.id for row in conn.execute(query)}


def overlapping(
    job_id: UUID,
    key_ids: Sequence[int],
    *,
    step_from: int,
    step_to: int,
    attempts: Attempts,
    with_aggregates: bool = False,
) -> CompoundSelect[Any]:
    """Rows (attempt, cut, key_ids, data) that may hold wanted points of these keys and steps, oldest first.

    With aggregates a row has those of its block too (AGGREGATES), and `data` only where they do not do: in segments,
    and in blocks that the range or a later attempt cuts.
    """
    cut = cuts(job_id)
    bound: ColumnElement[int] = cut.c.cut if attempts == "visible" else literal(NO_CUT, BigInteger)
    last = func.least(step_to, bound)

    def rows(table: Table, ids: ColumnElement[Any], *more: ColumnElement[Any]) -> Select[Any]:
        head = select(table.c.attempt, bound.label("cut"), ids.label("key_ids"), *more)
        overlap = table.c.step1 >= step_from, table.c.step0 <= last
        return head.join(cut, cut.c.number == table.c.attempt).where(table.c.job_id == job_id, *overlap)

    s, b = metric_segment.c, metric_block.c
    segment_data: list[ColumnElement[Any]] = [s.data]
    block_data: list[ColumnElement[Any]] = [b.data]
    if with_aggregates:
        whole = and_(b.step0 >= step_from, b.step1 <= last)
        segment_data += [null().cast(b[name].type).label(name) for name in AGGREGATES]
        block_data = [case((whole, null()), else_=b.data).label("data"), *(b[name] for name in AGGREGATES)]
    segments = rows(metric_segment, s["keys"], *segment_data, literal(1).label("kind"), s.seq.label("place"))
    blocks = rows(metric_block, array([b.key_id]), *block_data, literal(0).label("kind"), b.block.label("place"))
    both = union_all(segments.where(s["keys"].overlap(key_ids)), blocks.where(b.key_id.in_(key_ids)))
    return both.order_by("attempt", "kind", "place").execution_options(binary_results=True)


def _series(parts: Sequence[tuple[int, Column]]) -> Series:
    if not parts:
        return Series(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.int32))
    steps, times, values = (np.concatenate(arrays) for arrays in zip(*(column for _, column in parts), strict=True))
    attempts = np.repeat(np.array([a for a, _ in parts], np.int32), [len(column.steps) for _, column in parts])
    if np.any((steps[1:] < steps[:-1]) & (attempts[1:] == attempts[:-1])):
        order = np.lexsort((steps, attempts))
        steps, times, values, attempts = steps[order], times[order], values[order], attempts[order]
    return Series(steps, times, values, attempts)
