"""Pause and resume in every state: what they do, what a repeat does, and what becomes of an attempt meanwhile."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select

from jobs.errors import NotFound, StateConflict
from jobs.lifecycle.claim import has_due
from jobs.lifecycle.work import heartbeat, requeue
from jobs.states import Request, State
from jobs.tables import job_event
from tests.jobs import scenario
from tests.jobs.scenario import add_job, attempts, events, everything, expire, job_row, now_due, start
from tests.jobs.verbs import ask, end, reap_now


def last_move(engine: Engine, job_id: UUID) -> dict[str, object]:
    with engine.connect() as conn:
        query = select(job_event.c.data).where(job_event.c.job_id == job_id, job_event.c.to_state.is_not(None))
        return dict(conn.execute(query.order_by(job_event.c.id.desc()).limit(1)).scalar_one())


def is_due(engine: Engine) -> bool:
    with engine.connect() as conn:
        return has_due(conn, ["default"], "cpu")


def test_a_waiting_job_is_held_at_once_and_no_worker_takes_it(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    assert ask(engine, project_id, job_id, "pause") == "paused"
    assert not is_due(engine)
    assert ask(engine, project_id, job_id, "resume") == "queued"
    assert is_due(engine)
    assert events(engine, job_id) == ["submitted", "paused", "resumed"]
    assert job_row(engine, job_id).version == 3


def test_a_running_job_is_asked_and_paused_when_its_worker_gives_it_up(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    assert ask(engine, project_id, job_id, "pause") == "pausing"
    with engine.begin() as conn:
        assert heartbeat(conn, lease, lease_seconds=60) is Request.PAUSE
    assert (job_row(engine, job_id).state, job_row(engine, job_id).requested) == ("running", "pause")
    scenario.checkpoint(engine, lease, 12, kind="pause")
    for _ in range(2):
        with engine.begin() as conn:
            assert requeue(conn, lease, reason="paused", log=None) is State.PAUSED
    (attempt,) = attempts(engine, job_id)
    assert (attempt.outcome, attempt.error) == ("paused", None)
    row = job_row(engine, job_id)
    assert (row.requested, row.saved_step, row.observed_step, row.crash_count) == ("none", 12, 12, 0)
    assert last_move(engine, job_id) == {"reason": "paused", "saved_step": 12}
    assert events(engine, job_id) == ["submitted", "started", "pause-requested", "checkpoint", "paused"]
    ask(engine, project_id, job_id, "resume")
    assert start(engine).from_step == 12


def test_taken_back_before_the_worker_gave_it_up(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    ask(engine, project_id, job_id, "pause")
    assert ask(engine, project_id, job_id, "resume") == "running"
    with engine.begin() as conn:
        assert heartbeat(conn, lease, lease_seconds=60) is Request.NONE
    assert end(engine, lease, "give up") is State.QUEUED
    assert attempts(engine, job_id)[0].outcome == "drained"


@pytest.mark.parametrize("running", [False, True], ids=["waiting", "running"])
@pytest.mark.parametrize("verbs", [["pause"], ["pause", "resume"]], ids="+".join)
def test_repeating_it_answers_the_same_and_changes_nothing(
    engine: Engine, project_id: int, verbs: list[str], *, running: bool
) -> None:
    job_id = add_job(engine, project_id)
    if running:
        start(engine)
    answers = [ask(engine, project_id, job_id, verb) for verb in verbs]
    before = everything(engine)
    assert ask(engine, project_id, job_id, verbs[-1]) == answers[-1]
    assert everything(engine) == before


def test_a_repeat_is_known_also_when_a_worker_took_the_job_meanwhile(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    ask(engine, project_id, job_id, "pause")
    ask(engine, project_id, job_id, "resume")
    lease = start(engine).lease
    scenario.checkpoint(engine, lease, 5)
    assert ask(engine, project_id, job_id, "resume") == "running"
    end(engine, lease, "crash")
    assert ask(engine, project_id, job_id, "resume") == "queued"


def test_a_job_that_was_never_held_cannot_be_resumed(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    for state in ("queued", "running"):
        with pytest.raises(StateConflict, match=f"cannot resume a job that is {state}") as error:
            ask(engine, project_id, job_id, "resume")
        assert error.value.possible == ("cancel", "pause")
        if state == "queued":
            start(engine)


@pytest.mark.parametrize(
    ("how", "state", "outcome", "crashes"),
    [
        ("succeed", "succeeded", "succeeded", 0),
        ("fail", "failed", "failed", 0),
        ("crash", "paused", "crashed", 1),
        ("give up", "paused", "paused", 0),
    ],
)
def test_what_becomes_of_an_attempt_that_is_to_be_paused(
    engine: Engine, project_id: int, how: str, state: str, outcome: str, crashes: int
) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    ask(engine, project_id, job_id, "pause")
    assert end(engine, lease, how) == state
    row = job_row(engine, job_id)
    assert (row.state, row.requested, row.crash_count) == (state, "none", crashes)
    assert attempts(engine, job_id)[0].outcome == outcome


def test_max_attempts_hold_for_a_job_that_is_to_be_paused(engine: Engine, project_id: int) -> None:
    """Else it could be resumed beyond them."""
    job_id = add_job(engine, project_id, resources={"max_attempts": 1})
    start(engine)
    ask(engine, project_id, job_id, "pause")
    expire(engine, job_id)
    assert [one.state for one in reap_now(engine)] == [State.FAILED]
    assert job_row(engine, job_id).error["code"] == "lease-expired"


def test_cancel_wins_over_pause_in_either_order(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    ask(engine, project_id, job_id, "pause")
    assert ask(engine, project_id, job_id, "cancel") == "cancelling"
    for verb in ("pause", "resume"):
        with pytest.raises(StateConflict, match=f"cannot {verb} a job that is cancelling") as error:
            ask(engine, project_id, job_id, verb)
        assert error.value.possible == ()
    assert end(engine, lease, "give up") is State.CANCELLED
    assert attempts(engine, job_id)[0].outcome == "cancelled"


def test_a_resume_does_not_wait_for_the_rest_of_a_back_off(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    for _ in range(2):
        now_due(engine, job_id)
        end(engine, start(engine).lease, "crash")
    assert not is_due(engine)
    ask(engine, project_id, job_id, "pause")
    ask(engine, project_id, job_id, "resume")
    assert is_due(engine)
    assert job_row(engine, job_id).crash_count == 2


@pytest.mark.parametrize("verb", ["pause", "resume", "retry"])
def test_jobs_of_other_projects_do_not_exist(engine: Engine, project_id: int, verb: str) -> None:
    job_id = add_job(engine, project_id)
    before = everything(engine)
    for project, ident in ((project_id + 1, job_id), (project_id, uuid4())):
        with pytest.raises(NotFound, match=f"there is no job {ident}"):
            ask(engine, project, ident, verb)
    assert everything(engine) == before
