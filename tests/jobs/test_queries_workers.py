"""The list of workers: states by the database's clock, what each holds, and nothing of other projects' jobs."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, insert, select, update

from jobs.lifecycle.workers import FORGET_SECONDS, LOST_SECONDS, MOST_AT_ONCE, see_worker, stop_worker, tidy_workers
from jobs.queries import WorkerState, list_workers
from jobs.queries.workers import SILENT_SECONDS
from jobs.states import State
from jobs.tables import project, worker
from tests.jobs.builders import add_attempt, add_job
from tests.jobs.scenario import add_worker


def age(engine: Engine, worker_id: UUID, seconds: float, *, stopped: bool = False) -> None:
    """It was last seen (and, where `stopped`, stopped) so long ago."""
    then = func.clock_timestamp() - timedelta(seconds=seconds)
    changes = {"started_at": then, "last_seen_at": then, "stopped_at": then if stopped else None}
    with engine.begin() as conn:
        conn.execute(update(worker).where(worker.c.id == worker_id).values(changes))


def known(engine: Engine) -> set[UUID]:
    with engine.connect() as conn:
        return set(conn.execute(select(worker.c.id)).scalars())


def test_live_silent_and_stopped_in_that_order(engine: Engine, project_id: int) -> None:
    stopped, live, silent, idle = (add_worker(engine) for _ in range(4))
    age(engine, silent, SILENT_SECONDS + 5)
    age(engine, idle, SILENT_SECONDS - 5)
    with engine.begin() as conn:
        stop_worker(conn, stopped)
        shown = list_workers(conn, project_id)
        everything = list_workers(conn, project_id, stopped=True)
        first = list_workers(conn, project_id, stopped=True, limit=2)
    assert [row.id for row in shown] == [live, idle, silent]
    assert [row.state for row in shown] == [WorkerState.LIVE, WorkerState.LIVE, WorkerState.SILENT]
    assert shown[2].seen_seconds == pytest.approx(SILENT_SECONDS + 5, abs=5)
    assert [row.id for row in everything] == [live, idle, silent, stopped]
    assert everything[3].state is WorkerState.STOPPED
    assert [row.id for row in first] == [live, idle]


def test_a_job_is_told_to_its_own_project_only(engine: Engine, project_id: int) -> None:
    worker_id = add_worker(engine)
    with engine.begin() as conn:
        other = conn.execute(insert(project).values(name="other").returning(project.c.id)).scalar_one()
        until = func.clock_timestamp() + timedelta(seconds=40)
        held = {"worker_id": worker_id, "lease_until": until, "phase": "train", "attempt": 2, "observed_step": 30}
        job_id = add_job(
            conn, project_id, state=State.RUNNING, name="secret", summary={"rate": 12.5, "last": {"a": "NaN"}}, **held
        )
        add_job(conn, project_id)
        (mine,), (theirs,), (operators,) = (list_workers(conn, who) for who in (project_id, other, None))
    (job,) = mine.jobs
    assert (job.id, job.name, job.attempt, job.phase, job.step, job.total_steps) == (
        job_id,
        "secret",
        2,
        "train",
        30,
        100,
    )
    assert job.rate_steps_per_second == 12.5
    assert 30 < job.lease_left_seconds <= 40
    assert (theirs.busy, theirs.jobs) == (1, ())
    assert str(job_id) not in repr(theirs)
    assert "secret" not in repr(theirs)
    assert operators.jobs[0].id == job_id


def test_a_lease_that_ran_out_shows(engine: Engine, project_id: int) -> None:
    worker_id = add_worker(engine)
    with engine.begin() as conn:
        past = func.clock_timestamp() - timedelta(seconds=7)
        add_job(conn, project_id, state=State.RUNNING, worker_id=worker_id, lease_until=past)
        (found,) = list_workers(conn, project_id)
    assert found.jobs[0].lease_left_seconds < -6
    assert found.jobs[0].rate_steps_per_second is None


def test_a_lost_worker_is_stopped_and_takes_it_back_when_it_returns(engine: Engine, project_id: int) -> None:
    lost, holding, quiet = (add_worker(engine) for _ in range(3))
    age(engine, lost, LOST_SECONDS + 60)
    age(engine, holding, LOST_SECONDS + 60)
    age(engine, quiet, LOST_SECONDS - 60)
    with engine.begin() as conn:
        add_job(conn, project_id, state=State.RUNNING, worker_id=holding)
        assert tidy_workers(conn) == (1, 0)
        assert tidy_workers(conn) == (0, 0)
        assert {row.id for row in list_workers(conn, None)} == {holding, quiet}
        see_worker(conn, lost)
        assert {row.id for row in list_workers(conn, None)} == {lost, holding, quiet}


def test_an_ancient_worker_is_forgotten_unless_an_attempt_names_it(engine: Engine, project_id: int) -> None:
    forgotten, recent, named = (add_worker(engine) for _ in range(3))
    age(engine, forgotten, FORGET_SECONDS + 60, stopped=True)
    age(engine, recent, FORGET_SECONDS - 60, stopped=True)
    age(engine, named, FORGET_SECONDS + 60, stopped=True)
    with engine.begin() as conn:
        job_id = add_job(conn, project_id)
        add_attempt(conn, job_id, worker_id=named)
    before = known(engine)
    with engine.begin() as conn:
        assert tidy_workers(conn) == (0, 1)
    assert known(engine) == before - {forgotten}


def test_tidying_goes_on_beside_another_and_a_bit_at_a_time(engine: Engine) -> None:
    ancient = [add_worker(engine) for _ in range(MOST_AT_ONCE + 3)]
    for each in ancient:
        age(engine, each, FORGET_SECONDS + 60, stopped=True)
    with engine.begin() as one, engine.begin() as other:
        assert tidy_workers(one) == (0, MOST_AT_ONCE)
        assert tidy_workers(other) == (0, 3)
    assert not known(engine) & set(ancient)
