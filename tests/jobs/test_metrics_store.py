"""Metric points in the database: what is read is what was flushed and still counts."""

from __future__ import annotations

import threading
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, select, update

from jobs.errors import CorruptMetrics
from jobs.metrics import store
from jobs.metrics.codec import Segment
from jobs.tables import metric_key, metric_segment
from tests.jobs.builders import add_attempt, add_job


@pytest.fixture
def job_id(engine: Engine, project_id: int) -> UUID:
    with engine.begin() as conn:
        job_id = add_job(conn, project_id)
        add_attempt(conn, job_id)
    return job_id


def flush(conn: Connection, job_id: UUID, seq: int, *, attempt: int = 1, **columns: list[int]) -> bool:
    """One segment; the value at a step is attempt x 1000 + step, the time step / 10."""
    named = {
        name.replace("_", "/"): (steps, [s / 10 for s in steps], [attempt * 1_000 + s for s in steps])
        for name, steps in columns.items()
    }
    every = [s for steps in columns.values() for s in steps] or [0]
    segment = Segment(min(every), max(every), named)
    return store.insert_segment(conn, job_id=job_id, attempt=attempt, seq=seq, segment=segment)


def test_flushes_come_back_in_order(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        assert flush(conn, job_id, 1, train_loss=[1, 2], lr=[1, 2])
        assert flush(conn, job_id, 2, train_loss=[3, 5], val_loss=[5])
    with engine.connect() as conn:
        found = store.read(conn, job_id)
        assert store.names(conn, job_id) == ["lr", "train/loss", "val/loss"]
    assert sorted(found) == ["lr", "train/loss", "val/loss"]
    loss = found["train/loss"]
    assert loss.steps.tolist() == [1, 2, 3, 5]
    assert loss.values.tolist() == [1_001.0, 1_002.0, 1_003.0, 1_005.0]
    assert loss.times.tolist() == [0.1, 0.2, 0.3, 0.5]
    assert loss.attempts.tolist() == [1, 1, 1, 1]
    assert found["val/loss"].steps.tolist() == [5]


def test_nan_and_infinities_are_kept(engine: Engine, job_id: UUID) -> None:
    values = [np.nan, np.inf, -np.inf, -0.0]
    with engine.begin() as conn:
        segment = Segment(1, 4, {"train/loss": ([1, 2, 3, 4], [0, 0, 0, 0], values)})
        store.insert_segment(conn, job_id=job_id, attempt=1, seq=1, segment=segment)
        found = store.read(conn, job_id)["train/loss"].values
    np.testing.assert_array_equal(found, values)
    assert np.signbit(found[3])


def test_a_repeated_flush_changes_nothing(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        assert flush(conn, job_id, 1, lr=[1, 2])
        assert not flush(conn, job_id, 1, lr=[1, 2, 3])
        assert store.read(conn, job_id)["lr"].steps.tolist() == [1, 2]


def test_only_what_is_asked_for(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        flush(conn, job_id, 1, train_loss=[1, 2, 3], lr=[1, 2, 3])
        flush(conn, job_id, 2, train_loss=[4, 5, 6], lr=[4, 5, 6])
        found = store.read(conn, job_id, ["lr", "unknown", "lr"], step_from=3, step_to=5)
        assert {name: series.steps.tolist() for name, series in found.items()} == {"lr": [3, 4, 5], "unknown": []}
        assert store.read(conn, job_id, []) == {}
        assert store.read(conn, job_id, ["lr"], step_from=6, step_to=5)["lr"].steps.tolist() == []


def test_segments_outside_the_range_are_not_fetched(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        flush(conn, job_id, 1, lr=[1, 2])
        flush(conn, job_id, 2, lr=[3, 4])
        conn.execute(update(metric_segment).where(metric_segment.c.seq == 2).values(data=b"damaged"))
        assert store.read(conn, job_id, step_to=2)["lr"].steps.tolist() == [1, 2]
        with pytest.raises(CorruptMetrics):
            store.read(conn, job_id)


def test_data_that_does_not_fit_its_keys_is_refused(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        flush(conn, job_id, 1, lr=[1], train_loss=[1])
        conn.execute(update(metric_segment).values(keys=[1]))
        with pytest.raises(CorruptMetrics, match="2 columns for 1 keys"):
            store.read(conn, job_id)


def test_other_jobs_are_not_read(engine: Engine, project_id: int, job_id: UUID) -> None:
    with engine.begin() as conn:
        other = add_job(conn, project_id)
        add_attempt(conn, other)
        flush(conn, other, 1, val_loss=[1])
        assert store.names(conn, job_id) == []
        assert store.read(conn, job_id) == {}
        assert store.read(conn, job_id, ["val/loss"])["val/loss"].steps.tolist() == []


def test_what_a_later_attempt_trained_again_does_not_count(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        flush(conn, job_id, 1, lr=[1, 2, 3, 4, 5, 6])
        add_attempt(conn, job_id, 2, from_step=4)
        flush(conn, job_id, 1, attempt=2, lr=[5, 6, 7])
        add_attempt(conn, job_id, 3, from_step=2)
        flush(conn, job_id, 1, attempt=3, lr=[3, 4])
        add_attempt(conn, job_id, 4, from_step=3)
        flush(conn, job_id, 1, attempt=4, lr=[4, 5])
        visible = store.read(conn, job_id)["lr"]
        everything = store.read(conn, job_id, attempts="all")["lr"]
    assert visible.steps.tolist() == [1, 2, 3, 4, 5]
    assert visible.attempts.tolist() == [1, 1, 3, 4, 4]
    assert visible.values.tolist() == [1_001, 1_002, 3_003, 4_004, 4_005]
    assert everything.attempts.tolist() == [1] * 6 + [2] * 3 + [3] * 2 + [4] * 2
    assert everything.steps.tolist() == [1, 2, 3, 4, 5, 6, 5, 6, 7, 3, 4, 4, 5]


def test_points_that_came_late_are_put_in_their_place(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        flush(conn, job_id, 1, lr=[3, 4])
        flush(conn, job_id, 2, lr=[1, 2])
        found = store.read(conn, job_id)["lr"]
    assert found.steps.tolist() == [1, 2, 3, 4]
    assert found.values.tolist() == [1_001, 1_002, 1_003, 1_004]


def test_an_empty_flush(engine: Engine, job_id: UUID) -> None:
    with engine.begin() as conn:
        assert flush(conn, job_id, 1)
        assert store.names(conn, job_id) == []


def test_key_ids_are_stable(engine: Engine) -> None:
    with engine.begin() as conn:
        first = store.key_ids(conn, ["a", "b", "a"])
        second = store.key_ids(conn, ["b", "c"])
        assert first.keys() == {"a", "b"}
        assert second["b"] == first["b"]
        assert {row.name: row.id for row in conn.execute(select(metric_key))} == first | second
        assert store.key_ids(conn, []) == {}


def test_new_keys_in_opposite_order_at_once(engine: Engine) -> None:
    """Each waits for the names that the other adds; neither in a circle."""
    names = [f"k{n}" for n in range(1_000)]
    start = threading.Barrier(2)
    found: list[dict[str, int]] = []

    def add(order: list[str]) -> None:
        with engine.begin() as conn:
            start.wait(timeout=10)
            found.append(store.key_ids(conn, order))

    threads = [threading.Thread(target=add, args=(order,)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 2
    assert found[0] == found[1]
