"""Retry of a failed or cancelled job, from its last checkpoint or over again."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from jobs.errors import Fenced, StateConflict
from jobs.lifecycle.checkpoints import complete_checkpoint
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import record_metrics
from jobs.metrics import store
from jobs.queries import checkpoints
from jobs.tables import job, job_event
from tests.jobs import scenario
from tests.jobs.scenario import add_job, attempts, events, everything, job_row, segment, start
from tests.jobs.verbs import ask, end


def train(engine: Engine, lease: Lease, first: int, last: int, *, saved: int | None = None) -> None:
    """Points of these steps, and a checkpoint."""
    with engine.begin() as conn:
        summary = {"last": {"train/loss": float(last)}, "best": {"train/loss": float(first)}}
        record_metrics(conn, lease, seq=first, segment=segment(first, last), summary=summary)
    if saved is not None:
        scenario.checkpoint(engine, lease, saved, last={"train/loss": float(saved)})


def ended(engine: Engine, project_id: int, how: str) -> UUID:
    """A job that ended so, with points of the steps 1 to 30 and a checkpoint of step 20."""
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    train(engine, lease, 1, 30, saved=20)
    if how == "cancel":
        ask(engine, project_id, job_id, "cancel")
    end(engine, lease, "give up" if how == "cancel" else how)
    return job_id


def steps(engine: Engine, job_id: UUID, attempts: store.Attempts = "visible") -> list[int]:
    with engine.connect() as conn:
        return list(map(int, store.read(conn, job_id, ["train/loss"], attempts=attempts)["train/loss"].steps))


def saved(engine: Engine, project_id: int, job_id: UUID) -> list[int]:
    with engine.connect() as conn:
        return [found.step for found in checkpoints(conn, project_id, job_id)]


@pytest.mark.parametrize("how", ["fail", "cancel"])
def test_it_goes_on_from_the_last_checkpoint_its_crashes_forgotten(engine: Engine, project_id: int, how: str) -> None:
    job_id = ended(engine, project_id, how)
    assert ask(engine, project_id, job_id, "retry") == "queued"
    row = job_row(engine, job_id)
    assert (row.state, row.crash_count, row.error, row.finished_at, row.restart) == ("queued", 0, None, None, False)
    assert (row.observed_step, row.saved_step, row.summary) == (20, 20, {"last": {"train/loss": 20.0}})
    claimed = start(engine)
    assert (claimed.from_step, claimed.lease.attempt) == (20, 2)
    train(engine, claimed.lease, 21, 25)
    assert steps(engine, job_id) == list(range(1, 26))
    with engine.connect() as conn:
        assert conn.execute(select(job_event.c.data).where(job_event.c.kind == "retried")).scalar_one() == {
            "from": "checkpoint",
            "step": 20,
        }


def test_the_crashes_before_do_not_count_against_it(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id, resources={"max_attempts": 1})
    end(engine, start(engine).lease, "crash")
    assert job_row(engine, job_id).state == "failed"
    ask(engine, project_id, job_id, "retry")
    assert end(engine, start(engine).lease, "crash") == "failed"
    ask(engine, project_id, job_id, "retry")
    assert end(engine, start(engine).lease, "succeed") == "succeeded"
    assert (job_row(engine, job_id).attempt, job_row(engine, job_id).crash_count) == (3, 0)


def test_over_again_nothing_of_before_is_left_in_its_history(engine: Engine, project_id: int) -> None:
    job_id = ended(engine, project_id, "fail")
    ask(engine, project_id, job_id, "retry from start")
    row = job_row(engine, job_id)
    assert (row.observed_step, row.saved_step, row.summary, row.restart) == (0, None, {}, True)
    assert (steps(engine, job_id), saved(engine, project_id, job_id)) == ([], [])
    claimed = start(engine)
    assert (claimed.from_step, claimed.checkpoint, job_row(engine, job_id).restart) == (0, None, False)
    assert (steps(engine, job_id), saved(engine, project_id, job_id)) == ([], [])
    train(engine, claimed.lease, 1, 12, saved=10)
    assert steps(engine, job_id) == list(range(1, 13))
    assert steps(engine, job_id, "all") == [*range(1, 31), *range(1, 13)]
    end(engine, claimed.lease, "crash")
    third = start(engine)
    assert (third.from_step, [a.from_step for a in attempts(engine, job_id)]) == (10, [0, 0, 10])


def test_an_attempt_that_starts_over_and_dies_at_once_leaves_the_old_checkpoint_alone(
    engine: Engine, project_id: int
) -> None:
    job_id = ended(engine, project_id, "fail")
    ask(engine, project_id, job_id, "retry from start")
    end(engine, start(engine).lease, "crash")
    assert start(engine).checkpoint is None
    assert saved(engine, project_id, job_id) == []


def test_the_wish_to_start_over_lasts_until_a_start_and_can_be_replaced(engine: Engine, project_id: int) -> None:
    job_id = ended(engine, project_id, "fail")
    ask(engine, project_id, job_id, "retry from start")
    ask(engine, project_id, job_id, "pause")
    ask(engine, project_id, job_id, "resume")
    assert job_row(engine, job_id).restart
    ask(engine, project_id, job_id, "cancel")
    ask(engine, project_id, job_id, "retry")
    assert (job_row(engine, job_id).restart, job_row(engine, job_id).saved_step) == (False, 20)
    assert steps(engine, job_id) == list(range(1, 31))
    assert start(engine).from_step == 20


@pytest.mark.parametrize("verb", ["retry", "retry from start"])
@pytest.mark.parametrize("claimed", [False, True], ids=["waiting", "running"])
def test_repeating_it_answers_the_same_and_changes_nothing(
    engine: Engine, project_id: int, verb: str, *, claimed: bool
) -> None:
    job_id = ended(engine, project_id, "fail")
    ask(engine, project_id, job_id, verb)
    if claimed:
        start(engine)
    before = everything(engine)
    assert ask(engine, project_id, job_id, verb) == ("running" if claimed else "queued")
    assert everything(engine) == before


def test_another_wish_than_the_one_obeyed_is_no_repeat(engine: Engine, project_id: int) -> None:
    job_id = ended(engine, project_id, "fail")
    ask(engine, project_id, job_id, "retry")
    with pytest.raises(StateConflict, match="cannot retry a job that is queued"):
        ask(engine, project_id, job_id, "retry from start")
    ask(engine, project_id, job_id, "pause")
    for state in ("paused", "queued"):
        with pytest.raises(StateConflict, match=f"cannot retry a job that is {state}"):
            ask(engine, project_id, job_id, "retry")
        if state == "paused":
            ask(engine, project_id, job_id, "resume")


@pytest.mark.parametrize("how", ["succeed", None])
def test_only_what_failed_or_was_cancelled_can_be_retried(engine: Engine, project_id: int, how: str | None) -> None:
    job_id = ended(engine, project_id, how) if how else add_job(engine, project_id)
    before = everything(engine)
    for verb in ("retry", "retry from start"):
        with pytest.raises(StateConflict, match="cannot retry"):
            ask(engine, project_id, job_id, verb)
    assert everything(engine) == before


def test_a_worker_of_the_attempt_before_adds_nothing(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    ref = scenario.checkpoint(engine, lease, 7)
    end(engine, lease, "fail")
    ask(engine, project_id, job_id, "retry from start")
    before = everything(engine)
    with pytest.raises(Fenced), engine.begin() as conn:
        record_metrics(conn, lease, seq=9, segment=segment(8, 9))
    hashes = {"model_sha256": b"m" * 32, "state_sha256": b"s" * 32}
    with pytest.raises(Fenced), engine.begin() as conn:
        complete_checkpoint(conn, lease, checkpoint_id=ref.id, **hashes)
    assert everything(engine) == before
    assert events(engine, job_id)[-1] == "retried"


def test_the_schema_lets_no_job_run_that_is_still_to_start_over(engine: Engine, project_id: int) -> None:
    """A worker of the release before would go on from the checkpoint."""
    add_job(engine, project_id)
    start(engine)
    with pytest.raises(IntegrityError, match="restart_while_waiting"), engine.begin() as conn:
        conn.execute(job.update().values(restart=True))
