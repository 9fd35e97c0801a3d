"""A damaged checkpoint is set aside for the one before; and how a resume that is not exact is told."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import Engine, Row, select

from jobs.errors import Fenced
from jobs.lifecycle.check import request_verify
from jobs.lifecycle.checkpoints import CheckpointRef, ResumePoint
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import crash, record_fingerprint, set_aside
from jobs.metrics import store
from jobs.queries import checkpoints
from jobs.tables import check_run, job_event
from tests.jobs.scenario import DAMAGE, add_job, attempts, events, everything, expire, job_row, now_due, start
from tests.jobs.test_lifecycle_retry import train
from tests.jobs.verbs import end, save

ONE, TWO = "threads: was 1, is 2", "cpu: was A, is B"


def mark(engine: Engine, lease: Lease, checkpoint: CheckpointRef | None, damage: str = "torn\0") -> ResumePoint:
    assert checkpoint is not None
    with engine.begin() as conn:
        return set_aside(conn, lease, checkpoint_id=checkpoint.id, damage=damage)


def ready(engine: Engine, lease: Lease, *differences: str) -> None:
    with engine.begin() as conn:
        record_fingerprint(conn, lease, {"torch": "2.13.0", "differences": list(differences)})


def saved_twice(engine: Engine, project_id: int) -> UUID:
    """A job that crashed at step 30 with checkpoints of 10 and 20."""
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    train(engine, lease, 1, 10, saved=10)
    train(engine, lease, 11, 20, saved=20)
    train(engine, lease, 21, 30)
    end(engine, lease, "crash")
    return job_id


def data_of(engine: Engine, job_id: UUID, kind: str) -> list[dict[str, object]]:
    with engine.connect() as conn:
        query = select(job_event.c.data).where(job_event.c.job_id == job_id, job_event.c.kind == kind)
        return list(conn.execute(query.order_by(job_event.c.id)).scalars())


def test_the_attempt_starts_from_the_one_before_and_then_from_the_start(engine: Engine, project_id: int) -> None:
    job_id = saved_twice(engine, project_id)
    claimed = start(engine)
    assert claimed.from_step == 20
    version = job_row(engine, job_id).version

    point = mark(engine, claimed.lease, claimed.checkpoint)
    assert (point.step, point.summary) == (10, {"last": {"train/loss": 10.0}})
    row, attempt = job_row(engine, job_id), attempts(engine, job_id)[-1]
    assert (row.observed_step, row.saved_step, row.summary) == (10, 10, point.summary)
    assert row.version > version
    assert (attempt.from_step, attempt.from_checkpoint_id) == (10, point.checkpoint.id if point.checkpoint else None)
    assert visible(engine, job_id) == list(range(1, 11))

    twenty, ten = claimed.checkpoint, point.checkpoint
    assert twenty is not None
    assert ten is not None
    assert mark(engine, claimed.lease, ten) == ResumePoint()
    row, attempt = job_row(engine, job_id), attempts(engine, job_id)[-1]
    assert (row.observed_step, row.saved_step, row.summary, row.crash_count) == (0, None, {}, 1)
    assert (attempt.from_step, attempt.from_checkpoint_id) == (0, None)
    assert visible(engine, job_id) == []
    assert events(engine, job_id)[-3:] == ["started", "checkpoint-damaged", "checkpoint-damaged"]
    told = [(data["step"], data["damage"]) for data in data_of(engine, job_id, "checkpoint-damaged")]
    assert told == [(20, "torn\ufffd"), (10, "torn\ufffd")]
    ready(engine, claimed.lease)
    started, began = (data_of(engine, job_id, kind)[-1] for kind in ("started", "ready"))
    assert (started["from_step"], started["checkpoint"]) == (20, twenty.id)
    assert began == {"from_step": 0, "checkpoint": None, "differences": []}
    with engine.connect() as conn:
        assert checkpoints(conn, project_id, job_id) == []
        both = checkpoints(conn, project_id, job_id, attempts="all")
    assert [(found.step, found.complete, found.damage) for found in both] == [(s, True, "torn\ufffd") for s in (10, 20)]


def visible(engine: Engine, job_id: UUID) -> list[int]:
    with engine.connect() as conn:
        return list(map(int, store.read(conn, job_id, ["train/loss"])["train/loss"].steps))


def test_a_repeat_changes_nothing_more(engine: Engine, project_id: int) -> None:
    job_id = saved_twice(engine, project_id)
    claimed = start(engine)
    point = mark(engine, claimed.lease, claimed.checkpoint)
    assert mark(engine, claimed.lease, claimed.checkpoint, "torn again") == point
    assert len(data_of(engine, job_id, "checkpoint-damaged")) == 1
    assert attempts(engine, job_id)[-1].from_step == 10


def test_who_lost_the_lease_sets_nothing_aside(engine: Engine, project_id: int) -> None:
    job_id = saved_twice(engine, project_id)
    claimed = start(engine)
    expire(engine, job_id)
    before = everything(engine)
    with pytest.raises(Fenced):
        mark(engine, claimed.lease, claimed.checkpoint)
    assert everything(engine) == before


def test_the_checkpoint_of_another_job_stays_as_it_is(engine: Engine, project_id: int) -> None:
    other = add_job(engine, project_id)
    foreign = save(engine, start(engine).lease, 5)
    job_id = saved_twice(engine, project_id)
    claimed = start(engine)
    assert mark(engine, claimed.lease, foreign).step == 20
    assert "checkpoint-damaged" not in events(engine, job_id) + events(engine, other)


def test_a_crash_that_damage_caused_sets_it_aside_once(engine: Engine, project_id: int) -> None:
    """And is no crash of the job's, whose one that is counted came before; a second in a row is."""
    job_id = saved_twice(engine, project_id)
    for state, crashes, back_to in (("queued", 1, 10), ("queued", 2, None)):
        claimed = start(engine)
        assert claimed.checkpoint is not None
        for _ in range(2):
            with engine.begin() as conn:
                assert crash(conn, claimed.lease, error=DAMAGE, log=None, damaged=claimed.checkpoint.id) == state
        row = job_row(engine, job_id)
        assert (row.crash_count, row.saved_step, row.observed_step) == (crashes, back_to, back_to or 0)
        assert events(engine, job_id)[-2:] == ["checkpoint-damaged", "requeued"]
    now_due(engine, job_id)
    assert start(engine).from_step == 0


def test_no_replay_starts_from_what_is_damaged(engine: Engine, project_id: int) -> None:
    job_id = saved_twice(engine, project_id)
    claimed = start(engine)
    assert claimed.checkpoint is not None
    mark(engine, claimed.lease, mark(engine, claimed.lease, claimed.checkpoint).checkpoint)
    with engine.begin() as conn:
        check = request_verify(conn, project_id=project_id, checkpoint_id=claimed.checkpoint.id).job_id
        run = conn.execute(select(check_run).where(check_run.c.id == check)).one()
    assert (run.subject_job_id, run.from_step, run.from_checkpoint_id) == (job_id, 0, None)


def resumed(row: Row) -> list[str]:
    found: list[str] = row.resume_differences
    return found


def test_another_machine_makes_the_resume_inexact_until_its_steps_are_trained_again(
    engine: Engine, project_id: int
) -> None:
    job_id = add_job(engine, project_id)
    first = start(engine).lease
    ready(engine, first)
    train(engine, first, 1, 10, saved=10)
    end(engine, first, "give up")

    second = start(engine).lease
    assert resumed(job_row(engine, job_id)) == []
    before = job_row(engine, job_id).version
    for _ in range(2):
        ready(engine, second, TWO)
    row = job_row(engine, job_id)
    assert (resumed(row), row.version) == ([TWO], before + 1)
    assert data_of(engine, job_id, "ready")[-1]["differences"] == [TWO]
    end(engine, second, "give up")

    third = start(engine)
    assert (third.from_step, resumed(job_row(engine, job_id))) == (10, [])
    ready(engine, third.lease, ONE)
    train(engine, third.lease, 11, 20, saved=20)
    end(engine, third.lease, "give up")

    fourth = start(engine)
    assert (fourth.from_step, resumed(job_row(engine, job_id))) == (20, [ONE])
    ready(engine, fourth.lease, TWO, ONE)
    assert resumed(job_row(engine, job_id)) == [ONE, TWO]
    assert mark(engine, fourth.lease, fourth.checkpoint).step == 10
    assert resumed(job_row(engine, job_id)) == []
