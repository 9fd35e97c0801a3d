"""What a queued job waits for: told from the table of workers, and only if no live worker could take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event, func, update

from jobs.lifecycle.workers import register_worker, see_worker, stop_worker
from jobs.queries import Waiting, get_job, list_jobs
from jobs.queries.waiting import SILENT_SECONDS
from jobs.states import State
from jobs.tables import job, worker
from tests.jobs.builders import add_job


def enter(
    engine: Engine,
    device: Literal["cpu", "cuda"] = "cpu",
    queues: Sequence[str] = ("default",),
    memory_bytes: int | None = None,
    lacks: Mapping[str, str] | None = None,
) -> UUID:
    worker_id = uuid4()
    with engine.begin() as conn:
        known = {"worker_id": worker_id, "name": "w", "versions": {}, "memory_bytes": memory_bytes, "lacks": lacks}
        register_worker(conn, device=device, queues=queues, **known)  # type: ignore[arg-type]
    return worker_id


def queued(engine: Engine, project_id: int, **values: object) -> UUID:
    with engine.begin() as conn:
        return add_job(conn, project_id, **values)


def reason(engine: Engine, project_id: int, job_id: UUID) -> tuple[Waiting, str] | None:
    with engine.begin() as conn:
        why = get_job(conn, project_id, job_id).waiting_for
        (listed,) = (row.waiting_for for row in list_jobs(conn, project_id, limit=200).jobs if row.id == job_id)
    assert why == listed
    return None if why is None else (why.reason, why.message)


def test_no_worker_then_no_queue_then_no_device_then_its_turn(engine: Engine, project_id: int) -> None:
    job_id = queued(engine, project_id, device="cuda", queue="night")
    assert reason(engine, project_id, job_id) == (Waiting.WORKER, "no worker is alive")
    enter(engine)
    assert reason(engine, project_id, job_id) == (Waiting.QUEUE, "no live worker listens to the queue night")
    enter(engine, "cuda")
    assert reason(engine, project_id, job_id) == (Waiting.QUEUE, "no live worker listens to the queue night")
    enter(engine, queues=("default", "night"))
    expected = (Waiting.DEVICE, "no live worker of the queue night has the device cuda")
    assert reason(engine, project_id, job_id) == expected
    enter(engine, "cuda", ("night",))
    assert reason(engine, project_id, job_id) is None


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_a_job_for_any_device_is_taken_by_each(engine: Engine, project_id: int, device: str) -> None:
    enter(engine)
    why = reason(engine, project_id, queued(engine, project_id, device=device))
    assert (why and why[0]) == (Waiting.DEVICE if device == "cuda" else None)


def test_a_job_waits_for_the_memory_it_needs(engine: Engine, project_id: int) -> None:
    """Only workers that have its queue and device count; one that does not say takes it."""
    job_id = queued(engine, project_id, memory_bytes=3 * 10**9)
    enter(engine, memory_bytes=10**9)
    enter(engine, memory_bytes=2 * 10**9)
    enter(engine, memory_bytes=64 * 10**9, queues=("other",))
    expected = "it needs about 3.00 GB of memory; the largest worker that could take it has 2.00 GB"
    assert reason(engine, project_id, job_id) == (Waiting.MEMORY, expected)
    enough = enter(engine, memory_bytes=3 * 10**9)
    assert reason(engine, project_id, job_id) is None
    with engine.begin() as conn:
        stop_worker(conn, enough)
    assert (reason(engine, project_id, job_id) or [None])[0] == Waiting.MEMORY
    enter(engine, "cuda")
    assert reason(engine, project_id, job_id) is None


def test_a_job_without_an_estimate_fits_any_worker(engine: Engine, project_id: int) -> None:
    enter(engine, memory_bytes=1)
    assert reason(engine, project_id, queued(engine, project_id)) is None


def test_a_job_waits_for_a_worker_that_can_read_its_data(engine: Engine, project_id: int) -> None:
    """Its message says what one of them lacks; the next sign of life may say that it lacks nothing any more."""
    job_id = queued(engine, project_id, dataset="fashion_mnist")
    lacking = enter(engine, lacks={"fashion_mnist": "nothing is in /a"})
    enter(engine, lacks={"fashion_mnist": "nothing is in /b"})
    enter(engine, queues=("other",))
    expected = "no live worker that could take it can read fashion_mnist: nothing is in /a"
    assert reason(engine, project_id, job_id) == (Waiting.DATASET, expected)
    assert reason(engine, project_id, queued(engine, project_id, dataset="digits")) is None
    assert reason(engine, project_id, queued(engine, project_id, dataset=None)) is None
    with engine.begin() as conn:
        see_worker(conn, lacking)
    assert reason(engine, project_id, job_id) is None
    with engine.begin() as conn:
        see_worker(conn, lacking, lacks={"fashion_mnist": "it is\0gone"})
    assert (reason(engine, project_id, job_id) or [None])[0] == Waiting.DATASET


def test_silent_and_stopped_workers_do_not_count(engine: Engine, project_id: int) -> None:
    job_id, silent, stopped = queued(engine, project_id), enter(engine), enter(engine)
    assert reason(engine, project_id, job_id) is None
    then = func.clock_timestamp() - timedelta(seconds=SILENT_SECONDS + 5)
    with engine.begin() as conn:
        conn.execute(update(worker).where(worker.c.id == silent).values(started_at=then, last_seen_at=then))
        stop_worker(conn, stopped)
    assert reason(engine, project_id, job_id) == (Waiting.WORKER, "no worker is alive")


def test_ill_workers_and_a_back_off_are_told_apart(engine: Engine, project_id: int) -> None:
    later = func.clock_timestamp() + timedelta(seconds=60)
    job_id, ill = queued(engine, project_id, not_before=later), enter(engine)
    with engine.begin() as conn:
        see_worker(conn, ill, trouble="the disk is full")
    assert (reason(engine, project_id, job_id) or [None])[0] == Waiting.HEALTH
    with engine.begin() as conn:
        see_worker(conn, ill)
        why = get_job(conn, project_id, job_id).waiting_for
        assert why is not None
        assert why.reason == Waiting.BACK_OFF
        assert why.until == get_job(conn, project_id, job_id).not_before
        conn.execute(update(job).where(job.c.id == job_id).values(not_before=func.clock_timestamp()))
    assert reason(engine, project_id, job_id) is None


def test_a_page_costs_one_query_more_and_none_if_no_job_waits(engine: Engine, project_id: int) -> None:
    sent: list[str] = []
    with engine.begin() as conn:
        add_job(conn, project_id, state=State.CANCELLED, finished_at=func.clock_timestamp())

        @event.listens_for(conn, "before_cursor_execute")
        def _(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
            sent.append(statement)

        list_jobs(conn, project_id)
        assert len(sent) == 1
        for _i in range(5):
            add_job(conn, project_id)
        sent.clear()
        assert len([row for row in list_jobs(conn, project_id).jobs if row.waiting_for]) == 5
        assert len(sent) == 2


def test_what_was_just_submitted_is_not_in_a_back_off(engine: Engine, project_id: int) -> None:
    """The answer to a submit is read in its own transaction, whose beginning was before `not_before`."""
    enter(engine)
    with engine.begin() as conn:
        assert get_job(conn, project_id, add_job(conn, project_id)).waiting_for is None
