"""Compaction: an attempt's segments become blocks of 4,096 steps per key, with aggregates.

A running attempt keeps its newest segments, from the last block boundary on; an attempt that has ended is compacted
whole. Segments are deleted and blocks written in one transaction, so a crash at any point loses nothing, and a read
gives the same points before and after. Called by the worker's housekeeping.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

import numpy as np
import structlog
from sqlalchemy import Connection, Engine, RowMapping, and_, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from jobs.errors import CorruptMetrics
from jobs.metrics.buckets import downsample
from jobs.metrics.codec import Column, encode
from jobs.metrics.store import columns
from jobs.tables import attempt as attempt_table
from jobs.tables import metric_block, metric_segment

BLOCK_STEPS = 4_096
SEGMENTS_PER_TRANSACTION = 256

Columns = list[tuple[int, Column]]
"""Key ids and columns."""

log = structlog.get_logger(__name__)

# Walks from one (job, attempt) with segments to the next by the primary key's index: as many steps as there are
# such attempts, however many segments they have. Drawn by chance, so that two workers seldom meet.
_DUE = text("""
WITH RECURSIVE holder AS (
    (SELECT job_id, attempt FROM metric_segment ORDER BY job_id, attempt LIMIT 1)
    UNION ALL
    SELECT following.job_id, following.attempt
    FROM holder CROSS JOIN LATERAL (
        SELECT job_id, attempt FROM metric_segment AS s
        WHERE (s.job_id, s.attempt) > (holder.job_id, holder.attempt)
        ORDER BY job_id, attempt LIMIT 1
    ) AS following
)
SELECT holder.job_id, holder.attempt
FROM holder
JOIN attempt ON attempt.job_id = holder.job_id AND attempt.number = holder.attempt
CROSS JOIN LATERAL (
    SELECT step1 FROM metric_segment AS s
    WHERE s.job_id = holder.job_id AND s.attempt = holder.attempt ORDER BY seq LIMIT 1
) AS oldest
CROSS JOIN LATERAL (
    SELECT step1 FROM metric_segment AS s
    WHERE s.job_id = holder.job_id AND s.attempt = holder.attempt ORDER BY seq DESC LIMIT 1
) AS newest
WHERE attempt.ended_at IS NOT NULL OR oldest.step1 < newest.step1 / :block_steps * :block_steps
ORDER BY random() LIMIT :limit
""")


def compact_due(engine: Engine, *, limit: int) -> int:
    """Compact at most `limit` attempts of those worth it; how many there were. A damaged one is logged and left."""
    with engine.connect() as conn:
        due = conn.execute(_DUE, {"block_steps": BLOCK_STEPS, "limit": limit}).all()
    for job_id, attempt in due:
        try:
            compact(engine, job_id=job_id, attempt=attempt)
        except CorruptMetrics:
            log.exception("metrics cannot be compacted", job_id=str(job_id), attempt=attempt)
    return len(due)


def compact(engine: Engine, *, job_id: UUID, attempt: int) -> int:
    """Compact what one attempt has ready, in short transactions; how many segments went. Raises CorruptMetrics."""
    total = 0
    while True:
        with engine.begin() as conn:
            moved = compact_some(conn, job_id=job_id, attempt=attempt)
        total += moved
        if moved < SEGMENTS_PER_TRANSACTION:
            return total


def compact_some(conn: Connection, *, job_id: UUID, attempt: int, limit: int = SEGMENTS_PER_TRANSACTION) -> int:
    """Move at most `limit` segments, oldest first, into blocks; 0 while somebody else compacts this attempt."""
    key = func.hashtextextended(f"traind compaction {job_id} {attempt}", 0)
    if not conn.execute(select(func.pg_try_advisory_xact_lock(key))).scalar_one():
        return 0
    rows = _take(conn, job_id, attempt, limit)
    fresh = [(key_id, column) for row in rows for key_id, column in columns(row["keys"], row["data"])]
    fresh = [(key_id, column) for key_id, column in fresh if len(column.steps)]
    if fresh:
        # A segment that lay across a boundary, or a late evaluation, adds to a block that is there already.
        stored = _stored(conn, job_id, attempt, fresh)
        _put(conn, [_row(job_id, attempt, key_id, column) for key_id, column in _blocks(stored + fresh)])
    return len(rows)


def _take(conn: Connection, job_id: UUID, attempt: int, limit: int) -> Sequence[RowMapping]:
    s, a = metric_segment.c, attempt_table.c
    own = and_(s.job_id == job_id, s.attempt == attempt)
    ended = conn.execute(select(a.ended_at.is_not(None)).where(a.job_id == job_id, a.number == attempt)).scalar()
    newest = conn.execute(select(func.max(s.step1).label("step"), func.max(s.seq).label("seq")).where(own)).one()
    if newest.seq is None:
        return []
    # The newest flush stays: its answer may be lost on the way, and then it comes again.
    boundary = newest.step // BLOCK_STEPS * BLOCK_STEPS
    ready = own if ended else and_(own, s.step1 < boundary, s.seq < newest.seq)
    oldest = select(s.seq).where(ready).order_by(s.seq).limit(limit)
    taken = delete(metric_segment).where(own, s.seq.in_(oldest)).returning(s.seq, s["keys"], s.data)
    return sorted(conn.execute(taken).mappings(), key=lambda row: row["seq"])


def _stored(conn: Connection, job_id: UUID, attempt: int, fresh: Columns) -> Columns:
    b = metric_block.c
    low = min(int(column.steps[0]) for _, column in fresh) // BLOCK_STEPS
    high = max(int(column.steps[-1]) for _, column in fresh) // BLOCK_STEPS
    touched = b.block.between(low, high), b.key_id.in_({key_id for key_id, _ in fresh})
    query = select(b.key_id, b.data).where(b.job_id == job_id, b.attempt == attempt, *touched).order_by(b.block)
    return [part for row in conn.execute(query) for part in columns([row.key_id], row.data)]


def _blocks(parts: Columns) -> Iterator[tuple[int, Column]]:
    """The points of each key, by step, cut at the block boundaries."""
    for key_id in {key_id for key_id, _ in parts}:
        steps, times, values = (np.concatenate(a) for a in zip(*(c for k, c in parts if k == key_id), strict=True))
        order = np.argsort(steps, kind="stable")
        steps = steps[order]
        cuts = np.flatnonzero(np.diff(steps // BLOCK_STEPS)) + 1
        pieces = zip(*(np.split(a, cuts) for a in (steps, times[order], values[order])), strict=True)
        yield from ((key_id, Column(*piece)) for piece in pieces)


def _row(job_id: UUID, attempt: int, key_id: int, column: Column) -> dict[str, Any]:
    whole = downsample(column.steps, column.values, 1)
    place = {"job_id": job_id, "attempt": attempt, "key_id": key_id, "block": int(column.steps[0]) // BLOCK_STEPS}
    aggregates = {field.name: getattr(whole, field.name)[0].item() for field in fields(whole)}
    return place | aggregates | {"data": encode([column])}


def _put(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    upsert = insert(metric_block)
    changes = {c.name: upsert.excluded[c.name] for c in metric_block.c if not c.primary_key}
    conn.execute(upsert.on_conflict_do_update(constraint=metric_block.primary_key, set_=changes), rows)
