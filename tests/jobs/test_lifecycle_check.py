"""Checks as jobs: where a replay starts, what a worker is told, and what the protocol does with them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, update

from jobs.errors import AuditTooLarge, CheckpointNotComplete, IdempotencyConflict, NotFound
from jobs.lifecycle.check import MAX_AUDIT_WORK, MIN_AUDIT_SAMPLES, request_audit, request_verify
from jobs.lifecycle.claim import Claim
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import begin_checkpoint, crash, finish, record_fingerprint, requeue
from jobs.states import Kind, State
from jobs.tables import blob, check_run, checkpoint, job, job_event
from tests.jobs.scenario import ERROR, RESOLVED, add_job, attempts, expire, job_row, now_due, start
from tests.jobs.scenario import checkpoint as save

ALL = {"keep_last": None}
"""The rule by which no checkpoint is removed."""


def verify(engine: Engine, project_id: int, checkpoint_id: int, **wishes: Any) -> UUID:
    with engine.begin() as conn:
        return request_verify(conn, project_id=project_id, checkpoint_id=checkpoint_id, **wishes).job_id


def run_of(engine: Engine, check_id: UUID) -> Any:
    with engine.connect() as conn:
        return conn.execute(select(check_run).where(check_run.c.id == check_id)).one()


def origin(engine: Engine, project_id: int, checkpoint_id: int) -> tuple[int | None, int]:
    run = run_of(engine, verify(engine, project_id, checkpoint_id))
    return run.from_checkpoint_id, run.from_step


def lose(engine: Engine, lease: Lease) -> None:
    """The attempt crashes, and its job may start again."""
    with engine.begin() as conn:
        crash(conn, lease, error=ERROR, log=None)
    now_due(engine, lease.job_id)


def end(engine: Engine, lease: Lease) -> None:
    with engine.begin() as conn:
        finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)


def claim_check(engine: Engine) -> Claim:
    claimed = start(engine)
    assert claimed.check is not None
    return claimed


def test_the_nearest_checkpoint_before_it(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id, checkpoints=ALL)
    lease = start(engine).lease
    ids = [save(engine, lease, step).id for step in (5, 9, 12)]
    assert origin(engine, project_id, ids[0]) == (None, 0)
    assert origin(engine, project_id, ids[1]) == (ids[0], 5)
    assert origin(engine, project_id, ids[2]) == (ids[1], 9)


def test_what_was_trained_again_is_no_ancestor(engine: Engine, project_id: int) -> None:
    """The line of history is the subject's own: also of one that a later attempt trained again."""
    job_id = add_job(engine, project_id, checkpoints=ALL, resources={"max_attempts": 9})
    first = start(engine).lease
    five, seven, nine = (save(engine, first, step).id for step in (5, 7, 9))
    later = checkpoint.c.id.in_([seven, nine])
    with engine.begin() as conn:
        conn.execute(update(checkpoint).where(later).values(complete=False, completed_at=None))
    lose(engine, first)
    second = start(engine).lease
    assert attempts(engine, job_id)[-1].from_step == 5
    with engine.begin() as conn:
        conn.execute(update(checkpoint).where(later).values(complete=True, completed_at=func.now()))
    twelve, thirteen = (save(engine, second, step).id for step in (12, 13))
    assert origin(engine, project_id, twelve) == (five, 5)
    assert origin(engine, project_id, thirteen) == (twelve, 12)
    assert origin(engine, project_id, nine) == (seven, 7)
    assert origin(engine, project_id, seven) == (five, 5)


def test_one_that_is_incomplete_or_being_deleted_is_passed_over(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id, checkpoints=ALL)
    lease = start(engine).lease
    five, nine, twelve = (save(engine, lease, step) for step in (5, 9, 12))
    with engine.begin() as conn:
        begin_checkpoint(conn, lease, step=10, kind="interval", model_size=1, state_size=1, summary={})
    assert origin(engine, project_id, twelve.id) == (nine.id, 9)
    ten = checkpoint.c.step == 10
    with engine.begin() as conn:
        conn.execute(
            update(blob)
            .where(blob.c.state == "uploading")
            .values(state="complete", sha256=b"x", completed_at=func.now())
        )
        assert conn.execute(select(checkpoint.c.complete).where(ten)).scalar_one() is False
    assert origin(engine, project_id, twelve.id) == (nine.id, 9)
    with engine.begin() as conn:
        conn.execute(update(blob).where(blob.c.id == nine.state_blob_id).values(state="deleting"))
    assert origin(engine, project_id, twelve.id) == (five.id, 5)
    with pytest.raises(NotFound):
        verify(engine, project_id, nine.id)


def test_what_the_worker_is_told(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id, resources={"priority": 7})
    lease = start(engine, threads=3).lease
    with engine.begin() as conn:
        record_fingerprint(conn, lease, {"torch": "1", "differences": []})
    five, nine = save(engine, lease, 5), save(engine, lease, 9, kind="final")
    end(engine, lease)
    check_id = verify(engine, project_id, nine.id)
    claimed = claim_check(engine)
    task = claimed.check
    assert task is not None
    assert (claimed.lease.job_id, claimed.lease.attempt) == (check_id, 1)
    assert (task.kind, task.origin, task.subject, task.subject_kind) == (Kind.VERIFY, five, nine, "final")
    assert (claimed.from_step, task.from_step, task.to_step, task.gone) == (5, 5, 9, None)
    assert [found["torch"] for found in task.fingerprints] == ["1"]
    assert (claimed.spec.resources.priority, claimed.resolved.threads) == (7, 3)
    row = job_row(engine, check_id)
    assert (row.kind, row.observed_step, row.total_steps, row.priority) == ("verify", 5, 9, 7)
    (attempt,) = attempts(engine, check_id)
    assert (attempt.from_step, attempt.from_checkpoint_id) == (5, five.id)
    assert job_row(engine, job_id).state == "succeeded"


def test_fingerprints_are_of_the_attempts_that_trained_these_steps(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id, checkpoints=ALL, resources={"max_attempts": 9})
    saved = []
    for number, step in enumerate((5, 9, 12)):
        lease = start(engine).lease
        with engine.begin() as conn:
            record_fingerprint(conn, lease, {"machine": number})
        saved.append(save(engine, lease, step).id)
        lose(engine, lease)
    with engine.begin() as conn:
        conn.execute(update(blob).where(blob.c.id.in_([3, 4])).values(state="deleting"))
    lease = start(engine).lease
    end(engine, lease)
    checks = [verify(engine, project_id, ident) for ident in (saved[0], saved[2])]
    claims = [claim_check(engine), claim_check(engine)]
    told = {claimed.lease.job_id: claimed.check for claimed in claims if claimed.check is not None}
    machines = [[found["machine"] for found in told[check].fingerprints] for check in checks]
    assert machines == [[0], [1, 2]]


def test_an_audit_takes_no_checkpoint(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    save(engine, lease, 5)
    end(engine, lease)
    with engine.begin() as conn:
        check_id = request_audit(conn, project_id=project_id, job_id=job_id, steps=20).job_id
    claimed = claim_check(engine)
    assert claimed.check is not None
    assert (claimed.lease.job_id, claimed.checkpoint, claimed.from_step) == (check_id, None, 0)
    assert (claimed.check.kind, claimed.check.to_step, claimed.check.subject) == (Kind.AUDIT, 20, None)
    assert job_row(engine, check_id).total_steps == 40


def test_a_deleted_checkpoint_is_named_to_the_worker(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id)
    lease = start(engine).lease
    five, nine = save(engine, lease, 5), save(engine, lease, 9)
    end(engine, lease)
    verify(engine, project_id, nine.id)
    with engine.begin() as conn:
        conn.execute(update(blob).where(blob.c.id == five.model_blob_id).values(state="deleting"))
    claimed = claim_check(engine)
    assert claimed.check is not None
    assert claimed.check.gone == five.id


def test_a_check_crashes_and_is_put_back_as_any_job(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id, resources={"max_attempts": 2})
    lease = start(engine).lease
    five, nine = save(engine, lease, 5), save(engine, lease, 9)
    end(engine, lease)
    check_id = verify(engine, project_id, nine.id)
    first = claim_check(engine)
    lose(engine, first.lease)
    again = claim_check(engine)
    assert (again.lease.job_id, again.lease.attempt, again.checkpoint) == (check_id, 2, five)
    with engine.begin() as conn:
        assert requeue(conn, again.lease, reason="drained", log=None) == State.QUEUED
    third = claim_check(engine)
    assert third.check == first.check
    with engine.begin() as conn:
        assert crash(conn, third.lease, error=ERROR, log=None) == State.FAILED
    assert job_row(engine, check_id).error["code"] == "trainer-crashed"


def test_the_result_is_written_with_the_end_and_only_then(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id)
    lease = start(engine).lease
    five = save(engine, lease, 5)
    end(engine, lease)
    check_id = verify(engine, project_id, five.id)
    claimed = claim_check(engine)
    found = {"equal": False, "difference": float("nan"), "text": "a\x00b"}
    ending: dict[str, Any] = {"state": State.SUCCEEDED, "error": None, "summary": {}, "log": None}
    expired = claimed.lease
    expire(engine, check_id)
    with pytest.raises(Exception, match="no longer ours"), engine.begin() as conn:
        finish(conn, expired, **ending, result=found)
    assert run_of(engine, check_id).result is None
    with engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == check_id).values(lease_until=func.now() + func.make_interval(0, 1)))
    for _ in range(2):
        with engine.begin() as conn:
            assert finish(conn, claimed.lease, **ending, result=found) == State.SUCCEEDED
    assert run_of(engine, check_id).result == {"equal": False, "difference": "NaN", "text": "a\ufffdb"}


def test_the_same_key_makes_one_check(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id, name="a")
    lease = start(engine).lease
    five, nine = save(engine, lease, 5).id, save(engine, lease, 9).id
    first = verify(engine, project_id, five, idempotency_key="k")
    assert verify(engine, project_id, five, idempotency_key="k") == first
    with pytest.raises(IdempotencyConflict):
        verify(engine, project_id, nine, idempotency_key="k")
    with pytest.raises(IdempotencyConflict), engine.begin() as conn:
        request_audit(conn, project_id=project_id, job_id=job_id, steps=5, idempotency_key="k")
    with engine.connect() as conn:
        assert conn.execute(select(func.count()).select_from(check_run)).scalar_one() == 1
        kinds = select(job_event.c.kind).where(job_event.c.job_id == first)
        assert conn.execute(kinds).scalars().all() == ["submitted"]


def test_what_cannot_be_checked(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    five = save(engine, lease, 5).id
    with engine.begin() as conn:
        half = begin_checkpoint(conn, lease, step=7, kind="interval", model_size=1, state_size=1, summary={}).id
    with pytest.raises(CheckpointNotComplete):
        verify(engine, project_id, half)
    with pytest.raises(NotFound):
        verify(engine, project_id, half + 1)
    with pytest.raises(NotFound):
        verify(engine, project_id + 1, five)
    check_id = verify(engine, project_id, five)
    for no_job in (check_id, UUID(int=0)):
        with pytest.raises(NotFound), engine.begin() as conn:
            request_audit(conn, project_id=project_id, job_id=no_job, steps=5)
    most = MAX_AUDIT_WORK // (RESOLVED.n_parameters * MIN_AUDIT_SAMPLES)
    with pytest.raises(AuditTooLarge, match=f"at most {most:,} steps"), engine.begin() as conn:
        request_audit(conn, project_id=project_id, job_id=job_id, steps=most + 1)
