"""Claim: who gets which job, where it starts, and what is fixed then."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, func, select, update

from jobs.lifecycle.check import request_audit
from jobs.lifecycle.claim import best_due, claim, has_due
from jobs.lifecycle.work import begin_checkpoint, crash, record_metrics, record_progress
from jobs.tables import blob, job, job_event
from tests.jobs.scenario import (
    ERROR,
    add_job,
    add_worker,
    attempts,
    checkpoint,
    events,
    job_row,
    now_due,
    segment,
    start,
)

CPU: dict[str, Any] = {"queues": ["default"], "device": "cpu", "threads": 2, "lease_seconds": 60.0}

NEEDED = 3 * 10**9


def needs(engine: Engine, job_id: UUID, memory_bytes: int | None) -> None:
    with engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == job_id).values(memory_bytes=memory_bytes))


def fail_once(engine: Engine, **wishes: Any) -> UUID:
    """The best due job starts and crashes."""
    claimed = start(engine, **wishes)
    with engine.begin() as conn:
        crash(conn, claimed.lease, error=ERROR, log=None)
    return claimed.lease.job_id


def test_a_claim_starts_an_attempt(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    worker = add_worker(engine)
    claimed = start(engine, worker)
    assert (claimed.lease.job_id, claimed.lease.attempt) == (job_id, 1)
    assert (claimed.from_step, claimed.checkpoint) == (0, None)
    row = job_row(engine, job_id)
    assert (row.state, row.attempt, row.lease_token, row.worker_id) == ("running", 1, claimed.lease.token, worker)
    assert row.started_at is not None
    (attempt,) = attempts(engine, job_id)
    assert (attempt.number, attempt.worker_id, attempt.lease_token) == (1, worker, claimed.lease.token)
    assert (attempt.from_step, attempt.outcome) == (0, None)
    with engine.connect() as conn:
        data = conn.execute(select(job_event.c.data).where(job_event.c.kind == "started")).scalar_one()
        left = conn.execute(select(job.c.lease_until - func.clock_timestamp()).where(job.c.id == job_id)).scalar_one()
    assert data == {"worker": str(worker), "from_step": 0, "checkpoint": None}
    assert 50 < left.total_seconds() <= 60


def test_nothing_due_is_none(engine: Engine) -> None:
    with engine.begin() as conn:
        assert claim(conn, worker_id=add_worker(engine), **CPU) is None


def test_crashed_jobs_come_first_then_priority_then_age(engine: Engine, project_id: int) -> None:
    crashed = add_job(engine, project_id, resources={"priority": -5})
    assert fail_once(engine) == crashed
    old = add_job(engine, project_id)
    young = add_job(engine, project_id)
    urgent = add_job(engine, project_id, resources={"priority": 3})
    worker = add_worker(engine)
    assert [start(engine, worker).lease.job_id for _ in range(4)] == [crashed, urgent, old, young]


def test_only_the_workers_queues_count(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id, resources={"queue": "other"})
    mine = add_job(engine, project_id, resources={"queue": "mine"})
    worker = add_worker(engine)
    assert start(engine, worker, queues=["mine", "default"]).lease.job_id == mine
    with engine.begin() as conn:
        assert claim(conn, worker_id=worker, **(CPU | {"queues": ["mine", "default"]})) is None


@pytest.mark.parametrize(("worker", "wanted", "got"), [
    ("cpu", "auto", True), ("cpu", "cpu", True), ("cpu", "cuda", False),
    ("cuda", "auto", True), ("cuda", "cpu", False), ("cuda", "cuda", True),
])  # fmt: skip
def test_devices_match(engine: Engine, project_id: int, worker: str, wanted: str, *, got: bool) -> None:
    add_job(engine, project_id, resources={"device": wanted, "queue": "default"})
    with engine.begin() as conn:
        assert has_due(conn, ["default"], worker) is got  # type: ignore[arg-type]
        claimed = claim(conn, worker_id=add_worker(engine, worker), **(CPU | {"device": worker}))
    assert (claimed is not None) is got
    if claimed:
        assert claimed.resolved.device == worker


@pytest.mark.parametrize(("memory_bytes", "got"), [(None, True), (NEEDED, True), (NEEDED - 1, False)])
def test_a_worker_takes_what_fits_its_memory(
    engine: Engine, project_id: int, memory_bytes: int | None, *, got: bool
) -> None:
    """One that does not know its memory takes anything, and a job of an earlier release goes to any worker."""
    job_id = add_job(engine, project_id)
    needs(engine, job_id, NEEDED)
    worker = add_worker(engine)
    with engine.begin() as conn:
        assert has_due(conn, ["default"], "cpu", memory_bytes) is got
        claimed = claim(conn, worker_id=worker, memory_bytes=memory_bytes, **CPU)
    assert (claimed is not None) is got
    if not got:
        needs(engine, job_id, None)
        assert start(engine, worker, memory_bytes=memory_bytes).lease.job_id == job_id


def test_a_job_that_does_not_fit_holds_up_no_other(engine: Engine, project_id: int) -> None:
    large = add_job(engine, project_id, resources={"priority": 1})
    small = add_job(engine, project_id)
    needs(engine, large, NEEDED + 1)
    assert start(engine, memory_bytes=NEEDED).lease.job_id == small
    assert start(engine).lease.job_id == large


def test_a_worker_leaves_jobs_and_checks_of_data_that_it_lacks_to_others(engine: Engine, project_id: int) -> None:
    fashion = add_job(engine, project_id, dataset={"name": "fashion_mnist"}, resources={"priority": 1})
    with engine.begin() as conn:
        check = request_audit(conn, project_id=project_id, job_id=fashion, steps=1).job_id
    digits = add_job(engine, project_id)
    bare, lacks = add_worker(engine), {"fashion_mnist"}
    assert start(engine, bare, lacks=lacks).lease.job_id == digits
    with engine.begin() as conn:
        assert not has_due(conn, ["default"], "cpu", None, lacks)
        assert claim(conn, worker_id=bare, lacks=lacks, **CPU) is None
    equipped = add_worker(engine)
    assert [start(engine, equipped, lacks={"digits"}).lease.job_id for _ in range(2)] == [fashion, check]


def test_a_job_of_an_earlier_release_goes_to_any_worker(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    with engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == job_id).values(dataset=None))
    assert start(engine, lacks={"digits"}).lease.job_id == job_id


def test_device_and_threads_are_fixed_by_the_first_claim(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    assert fail_once(engine, threads=3) == job_id
    row = job_row(engine, job_id)
    assert (row.device, row.resolved["device"], row.resolved["threads"]) == ("cpu", "cpu", 3)
    with engine.connect() as conn:
        assert not has_due(conn, ["default"], "cuda")
    again = start(engine, threads=8)
    assert (again.resolved.device, again.resolved.threads) == ("cpu", 3)


def test_the_specs_own_threads_win(engine: Engine, project_id: int) -> None:
    add_job(engine, project_id, training={"threads": 5})
    assert start(engine, threads=3).resolved.threads == 5


SMALL: dict[str, Any] = {"name": "mlp", "hidden": [32]}
LARGE: dict[str, Any] = {"name": "mlp", "hidden": [2048, 2048]}


@pytest.mark.parametrize(("model", "threads", "cores", "got"), [
    (SMALL, None, 8, 1), (LARGE, None, 8, 8), (LARGE, None, 1, 1), (SMALL, 3, 8, 3), (LARGE, 3, 8, 3),
])  # fmt: skip
def test_threads_follow_the_cost_of_the_model_unless_the_worker_says(
    engine: Engine, project_id: int, model: dict[str, Any], threads: int | None, cores: int, got: int
) -> None:
    job_id = add_job(engine, project_id, model=model)
    assert fail_once(engine, threads=threads, cores=cores) == job_id
    assert job_row(engine, job_id).resolved["threads"] == got
    assert start(engine, threads=None, cores=2).resolved.threads == got


def test_a_job_in_its_back_off_is_not_due(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    fail_once(engine)
    fail_once(engine)
    worker = add_worker(engine)
    with engine.begin() as conn:
        assert not has_due(conn, ["default"], "cpu")
        assert claim(conn, worker_id=worker, **CPU) is None
    now_due(engine, job_id)
    with engine.connect() as conn:
        assert has_due(conn, ["default"], "cpu")
    assert start(engine, worker).lease.attempt == 3


def test_two_claims_at_once_take_two_jobs(engine: Engine, project_id: int) -> None:
    first, second = add_job(engine, project_id), add_job(engine, project_id)
    workers = [add_worker(engine) for _ in range(3)]
    with engine.begin() as a, engine.begin() as b, engine.begin() as c:
        taken = claim(a, worker_id=workers[0], **CPU), claim(b, worker_id=workers[1], **CPU)
        assert [t.lease.job_id for t in taken if t] == [first, second]
        assert claim(c, worker_id=workers[2], **CPU) is None


def test_a_claim_on_connections_that_went_stale_works_at_once(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    worker = add_worker(engine)
    with engine.connect() as first, engine.connect() as second:
        pids = [first.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() for first in (first, second)]
    with psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(hide_password=False)) as admin:
        admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s) AS pid", [pids])
    assert start(engine, worker).lease.job_id == job_id


def test_many_workers_never_share_a_job(engine: Engine, project_id: int) -> None:
    made = {add_job(engine, project_id) for _ in range(24)}
    barrier = Barrier(4)

    def work(worker: UUID) -> list[UUID]:
        barrier.wait()
        taken = []
        while has_work(engine):
            with engine.begin() as conn:
                claimed = claim(conn, worker_id=worker, **CPU)
            if claimed:
                taken.append(claimed.lease.job_id)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [job_id for part in pool.map(work, [add_worker(engine) for _ in range(4)]) for job_id in part]
    assert len(taken) == 24
    assert set(taken) == made
    assert all(len(attempts(engine, job_id)) == 1 for job_id in made)


def has_work(engine: Engine) -> bool:
    with engine.connect() as conn:
        return has_due(conn, ["default"], "cpu")


def test_the_next_attempt_starts_from_the_newest_checkpoint_and_shows_its_summary(
    engine: Engine, project_id: int
) -> None:
    job_id = add_job(engine, project_id)
    lease = start(engine).lease
    with engine.begin() as conn:
        record_metrics(conn, lease, seq=0, segment=segment(1, 20), summary={"last": {"train/loss": 0.4}})
    checkpoint(engine, lease, 10, last={"train/loss": 0.6})
    saved = checkpoint(engine, lease, 20, last={"train/loss": 0.4})
    with engine.begin() as conn:
        record_progress(conn, lease, phase="train", step=33, summary={"last": {"train/loss": 0.2, "lr": 0.1}})
        begin_checkpoint(conn, lease, step=30, kind="interval", model_size=1, state_size=1, summary={})
        crash(conn, lease, error=ERROR, log=None)
    again = start(engine)
    assert (again.from_step, again.checkpoint) == (20, saved)
    row = job_row(engine, job_id)
    assert (row.observed_step, row.saved_step, row.phase) == (20, 20, None)
    assert row.summary == {"last": {"train/loss": 0.4}}
    assert [a.from_checkpoint_id for a in attempts(engine, job_id)] == [None, saved.id]


def test_a_checkpoint_of_a_replaced_attempt_is_not_started_from(engine: Engine, project_id: int) -> None:
    """Attempt 1 saved 10 and 20, attempt 2 began again at 10, where 20's blobs were unreadable: 20 is history."""
    job_id = add_job(engine, project_id)
    first = start(engine).lease
    ten = checkpoint(engine, first, 10)
    twenty = checkpoint(engine, first, 20)
    with engine.begin() as conn:
        crash(conn, first, error=ERROR, log=None)
        conn.execute(update(blob).where(blob.c.id == twenty.state_blob_id).values(state="deleting"))
    second = start(engine)
    assert second.checkpoint == ten
    with engine.begin() as conn:
        crash(conn, second.lease, error=ERROR, log=None)
        conn.execute(update(blob).where(blob.c.id == twenty.state_blob_id).values(state="complete"))
    now_due(engine, job_id)
    third = start(engine)
    assert (third.from_step, third.checkpoint) == (10, ten)


def test_started_at_is_the_first_start(engine: Engine, project_id: int) -> None:
    job_id = add_job(engine, project_id)
    fail_once(engine)
    before = job_row(engine, job_id).started_at
    start(engine)
    assert job_row(engine, job_id).started_at == before
    assert events(engine, job_id) == ["submitted", "started", "requeued", "started"]


@pytest.mark.parametrize("queues", [["default"], ["default", "other"], ["default", "other", "default"]])
def test_a_claim_of_many_waiting_jobs_reads_the_index_in_order(
    engine: Engine, project_id: int, queues: list[str]
) -> None:
    """With 20,000 jobs in each queue the plan must not sort them, not even if the worker lacks the data of all."""
    for queue in dict.fromkeys(queues):
        fashion = add_job(engine, project_id, dataset={"name": "fashion_mnist"}, resources={"queue": queue})
        add_copies(engine, fashion, 20_000)
    with engine.connect() as conn:
        conn.exec_driver_sql("ANALYZE job")
        query = best_due(queues, "cpu", 10**9, {"fashion_mnist"}).compile(
            engine, compile_kwargs={"literal_binds": True}
        )
        plan = "\n".join(conn.exec_driver_sql(f"EXPLAIN {query}").scalars())
    assert plan.count("Scan using ix_job_due") == len(set(queues)), plan
    assert "->  Sort" not in plan, plan


def add_copies(engine: Engine, job_id: UUID, number: int) -> None:
    columns = [c for c in job.c if c.name not in {"id", "created_at"}]
    source = select(func.gen_random_uuid(), *columns, func.generate_series(1, number)).where(job.c.id == job_id)
    names = ["id", *(c.name for c in columns)]
    with engine.begin() as conn:
        conn.execute(job.insert().from_select(names, select(*list(source.subquery().c)[:-1])))


def test_jobs_of_two_queues_are_claimed_in_one_order_and_one_by_one(engine: Engine, project_id: int) -> None:
    """A claim locks only the job that it takes: another worker gets the best of the rest, whatever its queue."""
    low = add_job(engine, project_id, resources={"queue": "b"})
    middle = add_job(engine, project_id, resources={"queue": "a", "priority": 1})
    high = add_job(engine, project_id, resources={"queue": "b", "priority": 2})
    workers = [add_worker(engine) for _ in range(3)]
    with engine.begin() as first, engine.begin() as second, engine.begin() as third:
        taken = [
            claim(first, worker_id=workers[0], **(CPU | {"queues": ["a", "b"]})),
            claim(second, worker_id=workers[1], **(CPU | {"queues": ["b", "a"]})),
            claim(third, worker_id=workers[2], **(CPU | {"queues": ["b"]})),
        ]
    assert [t.lease.job_id for t in taken if t] == [high, middle, low]
