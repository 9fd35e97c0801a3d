"""Submit: what is stored, and what the idempotency key promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Engine, func, insert, select

from jobs.catalog import resolve
from jobs.errors import IdempotencyConflict
from jobs.lifecycle.check import request_audit
from jobs.lifecycle.submit import Submitted, submit
from jobs.tables import dataset, job, project
from tests.jobs.scenario import RESOLVED, add_job, events, job_row, spec, until, waits_for_lock
from traind.spec import JobSpec, Resolved


def test_a_submitted_job_waits_with_its_spec_and_its_event(engine: Engine, project_id: int) -> None:
    wanted = spec(
        name="first",
        labels={"team": "a"},
        optimizer={"name": "adam", "lr": 1e-300, "eps": 5e-324},
        resources={"priority": 7, "max_attempts": 2, "queue": "slow"},
    )
    with engine.begin() as conn:
        made = submit(conn, project_id=project_id, spec=wanted, resolved=RESOLVED)
    assert made.created
    row = job_row(engine, made.job_id)
    assert (row.state, row.requested, row.attempt, row.crash_count) == ("queued", "none", 0, 0)
    assert (row.name, row.labels, row.optimizer, row.queue) == ("first", {"team": "a"}, "adam", "slow")
    assert (row.priority, row.max_attempts, row.total_steps, row.version) == (7, 2, 450, 1)
    assert JobSpec.model_validate(row.spec) == wanted
    assert list(row.spec) == list(JobSpec.model_fields), "people read it: the order is kept"
    assert Resolved.model_validate(row.resolved) == RESOLVED
    assert events(engine, made.job_id) == ["submitted"]


def test_the_dataset_is_stored_once(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id)
    add_job(engine, project_id)
    with engine.connect() as conn:
        row = conn.execute(select(dataset)).one()
    assert (row.sha256.hex(), row.name, row.n_train) == (RESOLVED.dataset_sha256, "digits", 1_437)


def test_ids_rise_with_time(engine: Engine, project_id: int) -> None:
    first, second = add_job(engine, project_id), add_job(engine, project_id)
    assert first.version == second.version == 7
    assert first.int >> 80 <= second.int >> 80


def send(engine: Engine, project_id: int, key: str | None, **parts: object) -> Submitted:
    with engine.begin() as conn:
        return submit(conn, project_id=project_id, spec=spec(**parts), resolved=RESOLVED, idempotency_key=key)


def test_the_same_key_and_body_find_the_same_job(engine: Engine, project_id: int) -> None:
    first = send(engine, project_id, "k")
    again = send(engine, project_id, "k")
    assert (again.job_id, again.created) == (first.job_id, False)
    assert events(engine, first.job_id) == ["submitted"]


def test_the_same_key_with_another_body_is_a_conflict_and_writes_nothing(engine: Engine, project_id: int) -> None:
    send(engine, project_id, "k")
    with pytest.raises(IdempotencyConflict, match="'k'"):
        send(engine, project_id, "k", name="other")
    assert count(engine) == 1


def test_keys_belong_to_a_project_and_none_is_no_key(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        other = conn.execute(insert(project).values(name="other").returning(project.c.id)).scalar_one()
    made = [send(engine, project_id, "k"), send(engine, other, "k"), *(send(engine, project_id, None) for _ in "ab")]
    assert all(m.created for m in made)
    assert len({m.job_id for m in made}) == 4


def test_many_clients_with_one_key_make_one_job(engine: Engine, project_id: int) -> None:
    barrier = Barrier(4)

    def client(_: int) -> Submitted:
        barrier.wait()
        return send(engine, project_id, "k")

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(client, range(4)))
    assert sorted(m.created for m in made) == [False, False, False, True]
    assert len({m.job_id for m in made}) == 1
    assert count(engine) == 1


def test_a_repeat_beside_an_uncommitted_submit_waits_for_its_answer(engine: Engine, project_id: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as conn:
            first = submit(conn, project_id=project_id, spec=spec(), resolved=RESOLVED, idempotency_key="k")
            repeat = pool.submit(send, engine, project_id, "k")
            until(lambda: waits_for_lock(engine))
        assert repeat.result(10) == Submitted(first.job_id, created=False)


def count(engine: Engine) -> int:
    with engine.connect() as conn:
        return conn.execute(select(func.count()).select_from(job)).scalar_one()


def test_what_it_needs_is_kept_for_the_claim_and_for_its_checks(engine: Engine, project_id: int) -> None:
    small = spec()
    with engine.begin() as conn:
        resolved = resolve(small)
        job_id = submit(conn, project_id=project_id, spec=small, resolved=resolved).job_id
        check_id = request_audit(conn, project_id=project_id, job_id=job_id, steps=1).job_id
        rows = conn.execute(select(job.c.memory_bytes).where(job.c.id.in_([job_id, check_id]))).scalars().all()
    assert resolved.memory_bytes is not None
    assert rows == [resolved.memory_bytes] * 2
