"""Cancel in every state, and raced against the worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select, update

from jobs.errors import Fenced, NotFound, StateConflict
from jobs.lifecycle.cancel import request_cancel
from jobs.lifecycle.claim import claim
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import crash, finish, heartbeat
from jobs.states import Request, State
from jobs.tables import job, job_event
from tests.jobs.scenario import (
    ERROR,
    add_job,
    add_worker,
    attempts,
    events,
    everything,
    expire,
    job_row,
    start,
    until,
    waits_for_lock,
)


def cancel(engine: Engine, project_id: int, job_id: UUID) -> str:
    with engine.begin() as conn:
        return request_cancel(conn, project_id=project_id, job_id=job_id)


def end(engine: Engine, lease: Lease) -> State:
    with engine.begin() as conn:
        return finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)


def test_a_waiting_job_is_cancelled_at_once(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    assert cancel(engine, project_id, job_id) == "cancelled"
    row = job_row(engine, job_id)
    assert (row.state, row.version) == ("cancelled", 2)
    assert row.finished_at is not None
    assert events(engine, job_id) == ["submitted", "cancelled"]
    with engine.begin() as conn:
        known = {"queues": ["default"], "device": "cpu", "threads": 1, "lease_seconds": 60.0}
        assert claim(conn, worker_id=add_worker(engine), **known) is None  # type: ignore[arg-type]


def test_a_paused_job_is_cancelled_at_once(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    with engine.begin() as conn:
        conn.execute(update(job).values(requested=Request.PAUSE))
        assert crash(conn, lease, error=ERROR, log=None) is State.PAUSED
    assert cancel(engine, project_id, job_id) == "cancelled"


def test_a_running_job_is_asked_through_its_heartbeat(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    assert cancel(engine, project_id, job_id) == "cancelling"
    row = job_row(engine, job_id)
    assert (row.state, row.requested) == ("running", "cancel")
    with engine.begin() as conn:
        assert heartbeat(conn, lease, lease_seconds=60) is Request.CANCEL
        finish(conn, lease, state=State.CANCELLED, error=None, summary={}, log=None)
    assert events(engine, job_id) == ["submitted", "started", "cancel-requested", "cancelled"]
    assert attempts(engine, job_id)[0].outcome == "cancelled"
    with engine.connect() as conn:
        moved = select(job_event.c.from_state, job_event.c.to_state).where(job_event.c.kind == "cancel-requested")
        assert conn.execute(moved).one() == (None, None)


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_worker_that_lost_its_lease_is_not_asked(engine: Engine, project_id: int, *, asked_before: bool) -> None:
    """There may be no worker left to see to it."""
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    if asked_before:
        assert cancel(engine, project_id, job_id) == "cancelling"
    expire(engine, job_id)
    assert cancel(engine, project_id, job_id) == "cancelled"
    assert attempts(engine, job_id)[0].outcome == "lost"
    assert events(engine, job_id) == ["submitted", "started", "cancel-requested", "cancelled"]
    with pytest.raises(Fenced), engine.begin() as conn:
        heartbeat(conn, lease, lease_seconds=60)


@pytest.mark.parametrize("running", [False, True])
def test_repeating_it_changes_nothing(engine: Engine, project_id: int, *, running: bool) -> None:
    job_id = add_job(engine, project_id)
    if running:
        start(engine)
    answer = cancel(engine, project_id, job_id)
    before = everything(engine)
    assert cancel(engine, project_id, job_id) == answer
    assert everything(engine) == before


def test_a_job_that_ended_otherwise_cannot_be_cancelled(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    end(engine, start(engine).lease)
    before = everything(engine)
    with pytest.raises(StateConflict, match="cannot cancel a job that is succeeded") as error:
        cancel(engine, project_id, job_id)
    assert (error.value.state, error.value.possible) == (State.SUCCEEDED, ())
    assert everything(engine) == before


def test_jobs_of_other_projects_do_not_exist(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    for project, ident in ((project_id + 1, job_id), (project_id, uuid4())):
        with pytest.raises(NotFound, match=f"there is no job {ident}"):
            cancel(engine, project, ident)
    assert job_row(engine, job_id).state == "queued"


def test_a_cancel_behind_a_finish_finds_the_outcome(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as conn:
            finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)
            answer = pool.submit(cancel, engine, project_id, job_id)
            until(lambda: waits_for_lock(engine))
        with pytest.raises(StateConflict):
            answer.result(10)
    assert job_row(engine, job_id).state == "succeeded"


def test_a_finish_behind_a_cancel_ends_cancelled(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as conn:
            request_cancel(conn, project_id=project_id, job_id=job_id)
            answer = pool.submit(end, engine, lease)
            until(lambda: waits_for_lock(engine))
        assert answer.result(10) is State.CANCELLED
    assert job_row(engine, job_id).state == "cancelled"


def test_a_cancel_behind_a_claim_becomes_a_request(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    worker = add_worker(engine)
    known = {"queues": ["default"], "device": "cpu", "threads": 1, "lease_seconds": 60.0}
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as conn:
            assert claim(conn, worker_id=worker, **known)  # type: ignore[arg-type]
            answer = pool.submit(cancel, engine, project_id, job_id)
            until(lambda: waits_for_lock(engine))
        assert answer.result(10) == "cancelling"
    assert job_row(engine, job_id).requested == "cancel"


def test_a_claim_beside_an_uncommitted_cancel_leaves_the_job_alone(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    known = {"queues": ["default"], "device": "cpu", "threads": 1, "lease_seconds": 60.0}
    worker = add_worker(engine)
    with engine.begin() as first, engine.begin() as second:
        request_cancel(first, project_id=project_id, job_id=job_id)
        assert claim(second, worker_id=worker, **known) is None  # type: ignore[arg-type]
