"""Compaction changes where points lie, never which points are read; it survives a crash and a rival."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, func, select, update

from jobs.metrics import store
from jobs.metrics.codec import Segment
from jobs.metrics.compact import BLOCK_STEPS, compact, compact_due, compact_some
from jobs.tables import metric_block, metric_segment
from tests.jobs.builders import add_attempt, add_job, end_attempt

STORE = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def flush(
    conn: Connection,
    job_id: UUID,
    seq: int,
    step0: int,
    step1: int,
    *,
    attempt: int = 1,
    every: int = 1,
    val: bool = False,
) -> None:
    """train/loss at each `every`-th step from step0 to step1, and where asked val/loss at step1."""
    steps = np.arange(step0, step1 + 1, every)
    values = np.where(steps % 97 == 0, np.nan, np.where(steps % 89 == 0, np.inf, np.sin(steps) + attempt))
    columns: dict[str, Any] = {"train/loss": (steps, steps / 7, values)}
    if val:
        columns["val/loss"] = ([step1], [step1 / 7], [float(step1)])
    segment = Segment(step0, step1, columns)
    assert store.insert_segment(conn, job_id=job_id, attempt=attempt, seq=seq, segment=segment)


def count(conn: Connection, table: Any) -> int:
    return conn.execute(select(func.count()).select_from(table)).scalar_one()


def everything(conn: Connection, job_id: UUID) -> dict[Any, list[Any]]:
    """All that a client could read."""
    reads = [
        store.read(conn, job_id),
        store.read(conn, job_id, attempts="all"),
        store.read(conn, job_id, step_from=4_000, step_to=8_191),
    ]
    return {
        (n, key): [a.tobytes() for a in vars(series).values()]
        for n, found in enumerate(reads)
        for key, series in found.items()
    }


@pytest.fixture
def job_id(engine: Engine, project_id: int) -> UUID:
    with engine.begin() as conn:
        job_id = add_job(conn, project_id)
        add_attempt(conn, job_id)
    return job_id


def test_whole_blocks_of_a_running_attempt(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        for seq in range(10):
            flush(conn, job_id, seq, seq * 1_000, seq * 1_000 + 999, val=True)
        before = everything(conn, job_id)
    assert compact_due(engine, limit=10) == 1
    with engine.begin() as conn:
        assert everything(conn, job_id) == before
        left = conn.execute(select(metric_segment.c.seq).order_by("seq")).scalars().all()
        assert left == [8, 9]
        assert store.names(conn, job_id) == ["train/loss", "val/loss"]
    assert compact_due(engine, limit=10) == 0


def test_an_attempt_that_ended_is_compacted_whole(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        flush(conn, job_id, 0, 0, 10)
        assert compact_due(engine, limit=10) == 0
        before = everything(conn, job_id)
        end_attempt(conn, job_id)
    assert compact_due(engine, limit=10) == 1
    with engine.connect() as conn:
        assert count(conn, metric_segment) == 0
        assert everything(conn, job_id) == before


def test_a_block_has_the_aggregates_of_its_points(engine: Engine, job_id: UUID) -> None:
    values = [1.0, np.nan, -np.inf, 7.0, 3.0]
    with engine.begin() as conn:
        segment = Segment(5_000, 5_004, {"train/loss": (range(5_000, 5_005), [0.0] * 5, values)})
        store.insert_segment(conn, job_id=job_id, attempt=1, seq=0, segment=segment)
        end_attempt(conn, job_id)
    compact(engine, job_id=job_id, attempt=1)
    with engine.connect() as conn:
        row = conn.execute(select(metric_block)).one()
    assert (row.block, row.step0, row.step1) == (1, 5_000, 5_004)
    assert (row.first, row.last, row.min, row.max, row.mean) == (1.0, 3.0, -np.inf, 7.0, -np.inf)
    assert (row.count, row.nan_count) == (5, 1)


def test_late_points_join_their_block(engine: Engine, job_id: UUID) -> None:
    """A segment across a boundary waits; then its points belong to two blocks, one of which is there already."""
    with engine.begin() as conn:
        flush(conn, job_id, 0, 0, 3_999)
        flush(conn, job_id, 1, 4_000, 4_200)
        flush(conn, job_id, 2, 4_201, 4_300)
    assert compact(engine, job_id=job_id, attempt=1) == 1
    with engine.begin() as conn:
        flush(conn, job_id, 3, 4_301, 8_200)
        before = everything(conn, job_id)
    assert compact(engine, job_id=job_id, attempt=1) == 2
    with engine.connect() as conn:
        assert everything(conn, job_id) == before
        blocks = conn.execute(select(metric_block.c.block, metric_block.c.count).order_by("block")).all()
    assert blocks == [(0, 4_096), (1, 205)]


def test_the_newest_flush_stays_for_its_repetition(engine: Engine, job_id: UUID) -> None:
    """The commit's answer may be lost; were the row gone, the repeated flush would double its points."""
    with engine.begin() as conn:
        flush(conn, job_id, 0, 0, 10_000)
        flush(conn, job_id, 1, 3, 4)
    compact(engine, job_id=job_id, attempt=1)
    with engine.connect() as conn:
        assert conn.execute(select(metric_segment.c.seq)).scalars().all() == [0, 1]


@STORE
@given(data=st.data())
def test_reads_are_the_same_before_and_after(engine: Engine, project_id: int, data: st.DataObject) -> None:
    """Attempts that start over at random, flushes of random length, compaction at random moments."""
    with engine.begin() as conn:
        job_id, step = add_job(conn, project_id), 0
        for attempt in range(1, data.draw(st.integers(1, 3), label="attempts") + 1):
            step = data.draw(st.integers(0, step), label="from")
            add_attempt(conn, job_id, attempt, from_step=step)
            every = data.draw(st.sampled_from([1, 3, 50]), label="every")
            for seq in range(data.draw(st.integers(0, 6), label="flushes")):
                length = data.draw(st.integers(1, 3_000), label="length")
                flush(
                    conn,
                    job_id,
                    seq,
                    step + 1,
                    step + length,
                    attempt=attempt,
                    every=every,
                    val=data.draw(st.booleans()),
                )
                step += length
                if data.draw(st.booleans(), label="compact"):
                    before = everything(conn, job_id)
                    compact_some(conn, job_id=job_id, attempt=attempt, limit=data.draw(st.integers(1, 4)))
                    assert everything(conn, job_id) == before
            before = everything(conn, job_id)
            end_attempt(conn, job_id, attempt)
            while compact_some(conn, job_id=job_id, attempt=attempt, limit=2):
                pass
        assert everything(conn, job_id) == before
        assert conn.execute(select(metric_segment.c.seq).where(metric_segment.c.job_id == job_id)).all() == []


def test_a_crash_in_the_middle_loses_nothing(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        for seq in range(4):
            flush(conn, job_id, seq, seq * 2_000, seq * 2_000 + 1_999)
        before = everything(conn, job_id)
    with engine.connect() as conn:
        assert compact_some(conn, job_id=job_id, attempt=1) == 2
        conn.invalidate()
    with engine.connect() as conn:
        assert count(conn, metric_block) == 0
        assert everything(conn, job_id) == before
    assert compact(engine, job_id=job_id, attempt=1) == 2


def test_two_at_once_compact_once(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        for seq in range(4):
            flush(conn, job_id, seq, seq * 2_000, seq * 2_000 + 1_999)
        before = everything(conn, job_id)
    with engine.begin() as first, engine.begin() as second:
        assert compact_some(first, job_id=job_id, attempt=1) == 2
        assert compact_some(second, job_id=job_id, attempt=1) == 0
        assert everything(second, job_id) == before
    with engine.connect() as conn:
        assert everything(conn, job_id) == before


def test_readers_and_flushes_beside_compaction(engine: Engine, job_id: UUID) -> None:
    """While an attempt is flushed and compacted, every read is a whole beginning of it: no hole, no double."""
    done = threading.Event()
    seen: list[int] = []
    failures: list[str] = []

    def watch() -> None:
        while not done.is_set():
            with engine.connect() as conn:
                steps = store.read(conn, job_id, ["train/loss"])["train/loss"].steps
            seen.append(len(steps))
            if steps.tolist() != list(range(len(steps))):
                failures.append(f"{len(steps)} points, last {steps[-1]}")

    def tidy() -> None:
        while not done.is_set():
            compact_due(engine, limit=10)

    threads = [threading.Thread(target=watch), threading.Thread(target=tidy), threading.Thread(target=tidy)]
    for thread in threads:
        thread.start()
    try:
        for seq in range(60):
            with engine.begin() as conn:
                flush(conn, job_id, seq, seq * 700, seq * 700 + 699)
    finally:
        done.set()
        for thread in threads:
            thread.join(timeout=20)
    assert failures == []
    assert len(seen) > 1
    compact_due(engine, limit=10)
    with engine.connect() as conn:
        assert conn.execute(select(metric_segment.c.seq).order_by("seq")).scalars().all() == [58, 59]
        assert store.read(conn, job_id)["train/loss"].steps.tolist() == list(range(42_000))


def test_many_attempts_and_a_damaged_one(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        jobs = [add_job(conn, project_id) for _ in range(5)]
        for job_id in jobs:
            add_attempt(conn, job_id)
            flush(conn, job_id, 0, 0, 10)
        for job_id in jobs[1:]:
            end_attempt(conn, job_id)
        conn.execute(update(metric_segment).where(metric_segment.c.job_id == jobs[1]).values(data=b"damaged"))
    assert compact_due(engine, limit=2) == 2
    assert compact_due(engine, limit=100) in {2, 3}
    assert compact_due(engine, limit=100) == 1
    with engine.connect() as conn:
        left = set(conn.execute(select(metric_segment.c.job_id)).scalars())
    assert left == {jobs[0], jobs[1]}
    assert BLOCK_STEPS == 4_096
