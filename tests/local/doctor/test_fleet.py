"""What doctor says of workers, stuck jobs and garbage."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, insert, update

from jobs.blobs import insert_blob
from jobs.lifecycle.workers import see_worker
from jobs.queries import list_workers
from jobs.queries.trouble import largest_checkpoint_bytes, overdue, unserved
from jobs.queries.workers import SILENT_SECONDS
from jobs.states import State
from jobs.tables import blob, blob_chunk, worker
from local.doctor import fleet
from local.doctor.findings import Finding, Level
from tests.jobs.builders import add_job
from tests.jobs.scenario import add_job as submit
from tests.jobs.scenario import add_worker, checkpoint, start
from tests.local.doctor.judged import bad


def judged(engine: Engine) -> list[Finding]:
    return list(fleet.judge(fleet.look(engine)))


def silence(engine: Engine, worker_id: UUID, seconds: float = SILENT_SECONDS + 60) -> None:
    then = func.clock_timestamp() - timedelta(seconds=seconds)
    with engine.begin() as conn:
        conn.execute(update(worker).where(worker.c.id == worker_id).values(last_seen_at=then))


def test_a_quiet_service_is_fine(engine: Engine) -> None:
    add_worker(engine)
    found = judged(engine)
    assert [each.check for each in found] == ["workers", "jobs", "blobs"]
    assert bad(found) == []


def test_no_worker_is_told(engine: Engine) -> None:
    assert bad(judged(engine)) == [("workers", Level.WARNING)]


def test_a_silent_worker_is_named_with_its_job(engine: Engine, project_id: int) -> None:
    worker_id = add_worker(engine)
    job_id = submit(engine, project_id)
    start(engine, worker_id)
    silence(engine, worker_id)
    add_worker(engine)
    found = judged(engine)
    assert bad(found) == [("workers", Level.WARNING)]
    (silent,) = [each for each in found if each.level is Level.WARNING]
    assert str(worker_id) in silent.what
    assert str(job_id) in silent.what


def test_a_lease_that_ran_out_and_nobody_takes(engine: Engine, project_id: int) -> None:
    add_worker(engine)
    with engine.begin() as conn:
        past = func.clock_timestamp() - timedelta(seconds=100)
        late = add_job(conn, project_id, state=State.RUNNING, lease_until=past)
        soon = func.clock_timestamp() + timedelta(seconds=100)
        add_job(conn, project_id, state=State.RUNNING, lease_until=soon)
        (only,) = overdue(conn)
    assert only.id == late
    assert only.seconds == pytest.approx(100, abs=30)
    (error,) = [each for each in judged(engine) if each.level is Level.ERROR]
    assert str(late) in error.what


@pytest.mark.parametrize(
    ("job", "stuck"),
    [
        ({}, False),
        ({"device": "cpu"}, False),
        ({"device": "cuda"}, True),
        ({"queue": "other"}, True),
        ({"device": "cuda", "not_before": func.clock_timestamp() + timedelta(hours=1)}, False),
    ],
)
def test_jobs_that_no_live_worker_serves(engine: Engine, project_id: int, job: dict[str, object], stuck: bool) -> None:
    add_worker(engine)
    with engine.begin() as conn:
        add_job(conn, project_id, **job)
        add_job(conn, project_id, **job)
        waiting = unserved(conn, list_workers(conn, None))
    assert [each.n_jobs for each in waiting] == ([2] if stuck else [])
    assert bad(judged(engine)) == ([("jobs", Level.WARNING)] if stuck else [])


@pytest.mark.parametrize(("sizes", "stuck"), [((10**9, 2 * 10**9), 2), ((10**9, 4 * 10**9), 1), ((10**9, None), 0)])
def test_jobs_that_need_more_memory_than_any_live_worker_has(
    engine: Engine, project_id: int, sizes: tuple[int | None, ...], stuck: int
) -> None:
    for size in sizes:
        worker_id = add_worker(engine)
        with engine.begin() as conn:
            conn.execute(update(worker).where(worker.c.id == worker_id).values(memory_bytes=size))
    with engine.begin() as conn:
        for needed in (None, 10**9, 3 * 10**9, 5 * 10**9):
            add_job(conn, project_id, memory_bytes=needed)
    found = [each for each in judged(engine) if each.level is Level.WARNING]
    assert len(found) == (1 if stuck else 0)
    if stuck:
        expected = (
            f"{stuck} waiting in queue 'default' that need up to 5.00 GB of memory; the largest live worker there"
        )
        assert found[0].what == f"{expected} has {max(size or 0 for size in sizes) / 1e9:.2f} GB"


def test_jobs_of_data_that_no_live_worker_can_read(engine: Engine, project_id: int) -> None:
    """It is a warning only while no other worker takes them; which one lacks it is told in any case."""
    first = add_worker(engine)
    with engine.begin() as conn:
        see_worker(conn, first, lacks={"fashion_mnist": "put its files into /a"})
        for dataset in ("fashion_mnist", "fashion_mnist", "digits", None):
            add_job(conn, project_id, dataset=dataset)
    found = judged(engine)
    (lack,) = [each for each in found if each.level is Level.WARNING]
    assert lack.what == "2 waiting in queue 'default' of fashion_mnist, which no live worker there can read"
    assert lack.fix == "put its files into /a"
    add_worker(engine)
    found = judged(engine)
    assert bad(found) == []
    assert any(each.what == "2 live, 0 of them at work (w without fashion_mnist)" for each in found)


def test_a_silent_worker_serves_nothing(engine: Engine, project_id: int) -> None:
    silence(engine, add_worker(engine))
    with engine.begin() as conn:
        add_job(conn, project_id)
    found = judged(engine)
    assert ("jobs", Level.WARNING) in bad(found)
    assert any("traind worker --queues default" in (each.fix or "") for each in found)


def test_orphan_blobs_are_counted_with_their_bytes(engine: Engine, project_id: int) -> None:
    add_worker(engine)
    with engine.begin() as conn:
        blob_id = insert_blob(conn, project_id, 1_500_000)
        conn.execute(update(blob).values(created_at=func.clock_timestamp() - timedelta(hours=2)))
        rows = [{"blob_id": blob_id, "seq": seq, "data": b"x" * size} for seq, size in enumerate((1_000_000, 500_000))]
        conn.execute(insert(blob_chunk), rows)
    found = judged(engine)
    assert bad(found) == [("blobs", Level.WARNING)]
    assert found[-1].what == "orphans: 1 that no checkpoint names (1.5 MB)"


def test_the_largest_checkpoint_of_late(engine: Engine, project_id: int) -> None:
    with engine.connect() as conn:
        assert largest_checkpoint_bytes(conn) == 0
    submit(engine, project_id)
    checkpoint(engine, start(engine).lease, 5)
    with engine.connect() as conn:
        assert largest_checkpoint_bytes(conn) == 1_000_004
