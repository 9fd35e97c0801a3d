"""Reap: leases that ran out, and holders whose connection is gone. The connections are real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, func, select, update

from jobs.database import cluster_id
from jobs.errors import Fenced
from jobs.lifecycle.lease import Lease, clock, holder_name, lease_lock_key
from jobs.lifecycle.reap import Reaped, reap
from jobs.lifecycle.work import heartbeat, hold
from jobs.states import Request, State
from jobs.tables import job, job_event
from tests.jobs.scenario import add_job, add_worker, attempts, events, expire, job_row, now_due, start, until

SERVER_RAN_LONG_ENOUGH = 0.001
"""A lease so short that the server has run for longer: the missing lock may be believed."""


@pytest.fixture
def cluster(engine: Engine) -> UUID:
    with engine.connect() as conn:
        return cluster_id(conn)


def round_of(
    engine: Engine, cluster: UUID, *, suspicion: float = 0.0, lease_seconds: float = SERVER_RAN_LONG_ENOUGH
) -> list[Reaped]:
    with engine.begin() as conn:
        return reap(conn, cluster_id=cluster, suspicion_seconds=suspicion, lease_seconds=lease_seconds)


@contextmanager
def holder(engine: Engine, url: str, cluster: UUID, lease: Lease, name: str) -> Iterator[psycopg.Connection]:
    """A worker's heartbeat connection that holds the lease's lock."""
    with psycopg.connect(url, autocommit=True, application_name=name) as connection:
        connection.execute("SELECT pg_try_advisory_lock(%s)", [lease_lock_key(cluster, lease)])
        with engine.begin() as conn:
            hold(conn, lease, backend_pid=connection.info.backend_pid)
        yield connection


def is_gone(engine: Engine, pid: int) -> bool:
    with engine.connect() as conn:
        return conn.exec_driver_sql(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}").scalar_one() == 0


class TestExpiredLease:
    def test_the_job_waits_again_and_the_attempt_is_lost(self, engine: Engine, project_id: int, cluster: UUID) -> None:
        job_id = add_job(engine, project_id)
        worker = add_worker(engine)
        start(engine, worker)
        assert round_of(engine, cluster, suspicion=60) == []
        expire(engine, job_id)
        assert round_of(engine, cluster, suspicion=60) == [
            Reaped(job_id, 1, worker, "default", "lease-expired", State.QUEUED)
        ]
        row, (attempt,) = job_row(engine, job_id), attempts(engine, job_id)
        assert (row.state, row.crash_count, row.lease_token, row.error) == ("queued", 1, None, None)
        assert (attempt.outcome, attempt.error["code"], attempt.error["retryable"]) == ("lost", "lease-expired", True)
        assert events(engine, job_id) == ["submitted", "started", "requeued"]
        with engine.connect() as conn:
            data = conn.execute(select(job_event.c.data).where(job_event.c.kind == "requeued")).scalar_one()
        assert (data["crash_count"], data["error"]["code"]) == (1, "lease-expired")

    def test_after_max_attempts_the_job_fails_with_the_code(
        self, engine: Engine, project_id: int, cluster: UUID
    ) -> None:
        job_id = add_job(engine, project_id, resources={"max_attempts": 2})
        for _ in range(2):
            now_due(engine, job_id)
            start(engine)
            expire(engine, job_id)
            (reaped,) = round_of(engine, cluster)
        assert reaped.state is State.FAILED
        assert job_row(engine, job_id).error["code"] == "lease-expired"

    @pytest.mark.parametrize(("request_", "state"), [(Request.CANCEL, "cancelled"), (Request.PAUSE, "paused")])
    def test_a_pending_request_decides(
        self, engine: Engine, project_id: int, cluster: UUID, request_: Request, state: str
    ) -> None:
        job_id = add_job(engine, project_id)
        start(engine)
        with engine.begin() as conn:
            conn.execute(update(job).values(requested=request_))
        expire(engine, job_id)
        assert [r.state for r in round_of(engine, cluster)] == [state]

    def test_a_renewed_late_lease_is_not_reaped(self, engine: Engine, project_id: int, cluster: UUID) -> None:
        job_id = add_job(engine, project_id)
        lease = start(engine).lease
        expire(engine, job_id)
        with engine.begin() as conn:
            heartbeat(conn, lease, lease_seconds=60)
        assert round_of(engine, cluster, suspicion=60) == []

    def test_a_row_that_a_transaction_is_at_work_on_is_left_for_the_next_round(
        self, engine: Engine, project_id: int, cluster: UUID
    ) -> None:
        """The holder is about to renew its late lease: the reaper neither waits for it nor takes the attempt."""
        job_id = add_job(engine, project_id)
        lease = start(engine).lease
        expire(engine, job_id)
        with engine.connect() as conn:
            heartbeat(conn, lease, lease_seconds=60)
            assert round_of(engine, cluster, suspicion=60) == []
            conn.rollback()
        assert [r.job_id for r in round_of(engine, cluster, suspicion=60)] == [job_id]

    def test_one_reaps_at_a_time(self, engine: Engine, project_id: int, cluster: UUID) -> None:
        with engine.begin() as conn:
            reap(conn, cluster_id=cluster, suspicion_seconds=60, lease_seconds=60)
            job_id = add_job(engine, project_id)
            start(engine)
            expire(engine, job_id)
            assert round_of(engine, cluster) == []
        assert len(round_of(engine, cluster)) == 1

    def test_a_frozen_holders_session_is_ended(
        self, engine: Engine, project_id: int, cluster: UUID, database_url: str
    ) -> None:
        job_id = add_job(engine, project_id)
        worker = add_worker(engine)
        lease = start(engine, worker).lease
        with holder(engine, database_url, cluster, lease, holder_name(worker)) as connection:
            pid = connection.info.backend_pid
            expire(engine, job_id)
            assert len(round_of(engine, cluster)) == 1
            until(lambda: is_gone(engine, pid))
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")

    def test_a_process_number_that_was_used_again_is_left_alone(
        self, engine: Engine, project_id: int, cluster: UUID, database_url: str
    ) -> None:
        job_id = add_job(engine, project_id)
        lease = start(engine).lease
        with holder(engine, database_url, cluster, lease, "somebody-else") as connection:
            expire(engine, job_id)
            assert len(round_of(engine, cluster)) == 1
            assert connection.execute("SELECT 1").fetchone() == (1,)


class TestMissingLock:
    def test_a_holder_is_left_alone_and_suspected_when_its_connection_is_gone(
        self, engine: Engine, project_id: int, cluster: UUID, database_url: str
    ) -> None:
        job_id = add_job(engine, project_id)
        lease = start(engine).lease
        with holder(engine, database_url, cluster, lease, "w") as connection:
            pid = connection.info.backend_pid
            assert round_of(engine, cluster) == []
            assert job_row(engine, job_id).lockless_since is None
        until(lambda: is_gone(engine, pid))
        assert round_of(engine, cluster, suspicion=60) == []
        stamp = job_row(engine, job_id).lockless_since
        assert stamp is not None
        assert round_of(engine, cluster, suspicion=60) == []
        assert job_row(engine, job_id).lockless_since == stamp
        assert [(r.code, r.state) for r in round_of(engine, cluster)] == [("worker-lost", State.QUEUED)]
        with pytest.raises(Fenced), engine.begin() as conn:
            heartbeat(conn, lease, lease_seconds=60)

    def test_a_lock_that_was_taken_again_ends_the_suspicion(
        self, engine: Engine, project_id: int, cluster: UUID, database_url: str
    ) -> None:
        job_id = add_job(engine, project_id)
        lease = start(engine).lease
        round_of(engine, cluster, suspicion=60)
        assert job_row(engine, job_id).lockless_since is not None
        with holder(engine, database_url, cluster, lease, "w"):
            assert job_row(engine, job_id).lockless_since is None
            with engine.begin() as conn:
                conn.execute(update(job).values(lockless_since=func.clock_timestamp()))
            assert round_of(engine, cluster) == []
            assert job_row(engine, job_id).lockless_since is None

    def test_within_one_lease_of_the_servers_start_nobody_is_suspected_enough(
        self, engine: Engine, project_id: int, cluster: UUID, database_url: str
    ) -> None:
        add_job(engine, project_id)
        lease = start(engine).lease
        with holder(engine, database_url, cluster, lease, "w") as connection:
            pid = connection.info.backend_pid
        until(lambda: is_gone(engine, pid))
        years = 10 * 366 * 86_400.0
        assert round_of(engine, cluster, lease_seconds=years) == []
        assert round_of(engine, cluster, lease_seconds=years) == []
        assert len(round_of(engine, cluster)) == 1

    def test_a_holder_that_was_never_seen_gets_ten_times_as_long(
        self, engine: Engine, project_id: int, cluster: UUID
    ) -> None:
        job_id = add_job(engine, project_id)
        lease = start(engine).lease
        with engine.begin() as conn:
            conn.execute(update(job).values(lockless_since=clock() - timedelta(seconds=5)))
        assert round_of(engine, cluster, suspicion=1) == []
        with engine.begin() as conn:
            conn.execute(update(job).values(backend_pid=1))
        reaped: list[Reaped] = []
        until(lambda: reaped.extend(round_of(engine, cluster, suspicion=1)) or bool(reaped))
        assert [r.job_id for r in reaped] == [lease.job_id] == [job_id]

    def test_a_reaper_that_was_cut_off_itself_gives_holders_time_to_come_back(
        self, engine: Engine, project_id: int, cluster: UUID
    ) -> None:
        add_job(engine, project_id)
        start(engine)
        with engine.begin() as conn:
            conn.execute(update(job).values(lockless_since=clock() - timedelta(hours=2), backend_pid=1))
        engine.dispose()
        assert round_of(engine, cluster, suspicion=3_600) == []
        assert [r.code for r in round_of(engine, cluster)] == ["worker-lost"]

    def test_the_lock_of_another_installation_is_not_ours(
        self, engine: Engine, project_id: int, cluster: UUID, database_url: str
    ) -> None:
        lease = Lease(add_job(engine, project_id), 1, start(engine).lease.token)
        other = UUID(int=cluster.int ^ 1)
        assert lease_lock_key(cluster, lease) != lease_lock_key(other, lease)
        with holder(engine, database_url, other, lease, "w"):
            round_of(engine, cluster, suspicion=60)
            assert [r.code for r in round_of(engine, cluster)] == ["worker-lost"]
