"""Crashes by a fault of a worker's machine: none is the job's, and none goes on for ever."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, select

from jobs.lifecycle.crash import MACHINE_FAULTS, MOST_MACHINE_FAULTS
from jobs.lifecycle.work import crash
from jobs.states import State
from jobs.tables import job_event
from tests.jobs.scenario import ERROR, add_job, job_row, now_due, start
from tests.jobs.verbs import ask, save

FAULT = {"code": "scratch-unusable", "message": "the disk is read-only", "retryable": True}


def crashed(engine: Engine, *, saved: int | None = None, error: dict[str, Any] = FAULT) -> tuple[State, int]:
    """The next attempt of the one job crashes; the job's state, and for how many seconds it then waits."""
    claimed = start(engine)
    if saved is not None:
        save(engine, claimed.lease, saved)
    with engine.begin() as conn:
        state = crash(conn, claimed.lease, error=error, log=None)
    row = job_row(engine, claimed.lease.job_id)
    now_due(engine, row.id)
    return state, round((row.not_before - row.updated_at).total_seconds())


@pytest.mark.parametrize("code", sorted(MACHINE_FAULTS))
def test_no_attempt_is_used_up(engine: Engine, project_id: int, code: str) -> None:
    job_id = add_job(engine, project_id, resources={"max_attempts": 1})
    assert crashed(engine, error=FAULT | {"code": code}) == (State.QUEUED, 0)
    assert (job_row(engine, job_id).crash_count, job_row(engine, job_id).error) == (0, None)


def test_the_job_waits_longer_each_time_and_fails_in_the_end(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id, resources={"max_attempts": 1})
    ends = [crashed(engine) for _ in range(MOST_MACHINE_FAULTS - 1)]
    assert ends == [(State.QUEUED, seconds) for seconds in (0, 2, 4, 8, 16, 32, 64, 128, 256)]
    assert crashed(engine)[0] is State.FAILED
    row = job_row(engine, job_id)
    assert (row.crash_count, row.error["code"]) == (0, "scratch-unusable")
    assert row.error["message"] == "the disk is read-only (10 attempts in a row ended by faults of machines)"
    with engine.connect() as conn:
        told = select(job_event.c.data).where(
            job_event.c.job_id == job_id, job_event.c.to_state.in_(["queued", "failed"])
        )
        faults = [data.get("machine_faults") for data in conn.execute(told.order_by(job_event.c.id)).scalars()]
    assert faults == [None, *range(1, MOST_MACHINE_FAULTS + 1)]

    ask(engine, project_id, job_id, "retry")
    assert crashed(engine) == (State.QUEUED, 0)


def test_progress_and_other_ends_begin_a_new_row(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id, resources={"max_attempts": 5})
    assert [crashed(engine)[1] for _ in range(3)] == [0, 2, 4]
    assert crashed(engine, saved=10)[1] == 0
    assert [crashed(engine)[1] for _ in range(2)] == [0, 2]
    assert job_row(engine, job_id).crash_count == 0
    assert crashed(engine, error=ERROR) == (State.QUEUED, 0)
    assert job_row(engine, job_id).crash_count == 1
    assert [crashed(engine)[1] for _ in range(2)] == [0, 2]
    assert crashed(engine, error=ERROR) == (State.QUEUED, 2)
    assert job_row(engine, job_id).crash_count == 2
