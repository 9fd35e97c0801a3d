"""Postgres or Redis go away under a worker and come back: the same attempt goes on, and nothing is lost or doubled."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg
import pytest
import redis
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from api.app import create_app
from jobs.database import cluster_id, make_engine, upgrade
from jobs.doorbell import Doorbell, wake_queue
from jobs.settings import Settings
from tests.embedded import servers_for_tests
from tests.jobs.scenario import only_reads
from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker, cpu_seconds, start_worker, wait_dead
from tests.worker.proxy import postgres_proxy, redis_proxy
from tests.worker.service import (
    BRIEF,
    LASTING,
    LASTING_CHECKPOINTS,
    LASTING_STEPS,
    LONG,
    MEDIUM,
    MEDIUM_STEPS,
    Service,
    job_of_other_worker,
    until,
    written,
)


def test_all_connections_are_ended(service: Service, shared_worker: Worker) -> None:
    """As by a restart of the server that takes no time."""
    job_id = service.submit(LASTING)
    service.wait_step(job_id, 10)
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'traind-%'"
    for step in (100, 500, 1_000):
        service.wait_step(job_id, step)
        assert service.rows(f"{ours} AND datname = current_database()")

    job = service.wait_final(job_id)
    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 1, 0)
    assert service.steps(job_id) == LASTING_STEPS
    numbers = [segment.seq for segment in service.segments(job_id)]
    assert numbers == sorted(set(numbers))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_postgres_is_unreachable_for_half_a_minute_of_a_minutes_lease(alone: Service, tmp_path: Path) -> None:
    """With the settings as they are by default. The trainer is watched in /proc; and the worker, which sleeps for a
    moment first, has metrics and a checkpoint to write when the way is cut.
    """
    default = {
        "LEASE_SECONDS": "60",
        "HEARTBEAT_SECONDS": "5",
        "SUSPICION_SECONDS": "1",
        "REAP_INTERVAL_SECONDS": "0.5",
    }
    with (
        postgres_proxy(alone.database_url) as (proxy, url),
        start_worker(url, alone.redis_url, tmp_path / "cut-off", **default) as worker,
    ):
        job_id = alone.submit(LASTING)
        alone.wait_saved(job_id)
        trainer = worker.trainer()
        worker.process.send_signal(signal.SIGSTOP)
        computed = cpu_seconds(trainer)
        until(lambda: cpu_seconds(trainer), lambda now: now > computed + 0.2)
        cut_at = time.monotonic()
        proxy.cut()
        worker.process.send_signal(signal.SIGCONT)
        until(trainer.status, lambda status: status == psutil.STATUS_STOPPED)
        computed = cpu_seconds(trainer)
        while time.monotonic() < cut_at + 30:
            assert trainer.status() == psutil.STATUS_STOPPED
            time.sleep(0.05)
        assert cpu_seconds(trainer) == computed
        assert "the database did not answer" in worker.log
        proxy.up()
        until(lambda: cpu_seconds(trainer), lambda now: now > computed)

        assert_never_left(alone, job_id)


@pytest.fixture
def restartable(redis_url: str) -> Iterator[Service]:
    """An installation on a Postgres of its own, which is started again when it ends."""
    with servers_for_tests(None, redis_url) as (url, _):
        upgrade(url)
        engine = make_engine(url, application_name="tests")
        yield Service(url, redis_url, engine, 1)
        engine.dispose()


@pytest.mark.slow
def test_postgres_is_restarted_twice(restartable: Service, tmp_path: Path) -> None:
    """By SIGQUIT, as `pg_ctl restart -m immediate` does: no session is told, and it recovers as after a crash."""
    with start_worker(restartable.database_url, restartable.redis_url, tmp_path / "worker") as worker:
        job_id = restartable.submit(LASTING)
        for step in (200, 1_000):
            restartable.wait_step(job_id, step)
            trainer, postmaster = worker.trainer(), postmaster_of(restartable)
            broke = worker.log.count("the heartbeat's connection broke")
            postmaster.send_signal(signal.SIGQUIT)
            wait_dead(postmaster)
            until(lambda: worker.log.count("the heartbeat's connection broke"), lambda now: now > broke)  # noqa: B023
            restartable.engine.dispose()
            until(lambda: answers(restartable), bool)
            assert worker.trainer().pid == trainer.pid

        assert_never_left(restartable, job_id)


def test_postgres_has_no_connection_left(restartable: Service, tmp_path: Path) -> None:
    """Others have them all: as if it were away, and the job goes on when one is free."""
    settings = Settings(database_url=restartable.database_url, redis_url=restartable.redis_url)  # type: ignore[arg-type]
    with start_worker(restartable.database_url, restartable.redis_url, tmp_path / "worker") as worker:
        job_id = restartable.submit(LASTING)
        restartable.wait_saved(job_id)
        trainer = worker.trainer()
        with taking_all_connections(restartable.database_url):
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'traind-%'"
            until(lambda: (restartable.rows(end), worker.log)[1], lambda log: "too many clients" in log)
            until(trainer.status, lambda status: status == psutil.STATUS_STOPPED)
            with TestClient(create_app(settings)) as client:
                assert client.get("/readyz").json()["code"] == "database-unavailable"

        assert_never_left(restartable, job_id)


def test_postgres_only_reads_for_a_while(alone: Service, tmp_path: Path) -> None:
    """As in a failover: the way to it is fine and every session lives, but nothing can be written."""
    with start_worker(alone.database_url, alone.redis_url, tmp_path / "worker") as worker:
        job_id = alone.submit(LASTING)
        alone.wait_saved(job_id)
        trainer = worker.trainer()
        only_reads(alone.engine, "on")
        until(lambda: worker.log, lambda log: "read-only transaction" in log)
        until(trainer.status, lambda status: status == psutil.STATUS_STOPPED)
        until(lambda: worker.log.count("the heartbeat's connection broke"), lambda times: times >= 5)
        assert trainer.status() == psutil.STATUS_STOPPED
        only_reads(alone.engine, "off")
        assert_never_left(alone, job_id)


@contextmanager
def taking_all_connections(url: str) -> Iterator[None]:
    """Takes every connection that is or becomes free."""
    ended, taken = threading.Event(), list[psycopg.Connection[Any]]()

    def take() -> None:
        while not ended.is_set():
            try:
                taken.append(psycopg.connect(url))
            except psycopg.OperationalError:
                ended.wait(0.001)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for connection in taken:
            connection.close()


def postmaster_of(service: Service) -> psutil.Process:
    """The process that all of its Postgres descends from."""
    folder = service.rows("SHOW data_directory")[0].data_directory
    return psutil.Process(int((Path(folder) / "postmaster.pid").read_text().split()[0]))


def answers(service: Service) -> bool:
    try:
        return bool(service.rows("SELECT 1"))
    except OperationalError:
        return False


def assert_never_left(service: Service, job_id: UUID) -> None:
    """The job ends well in its first attempt, with every point and every checkpoint once and in order."""
    job = service.wait_final(job_id)
    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 1, 0)
    assert service.steps(job_id) == LASTING_STEPS
    numbers = [segment.seq for segment in service.segments(job_id)]
    assert numbers == sorted(set(numbers))
    assert [checkpoint.step for checkpoint in service.checkpoints(job_id)] == LASTING_CHECKPOINTS


def test_postgres_is_away_for_longer_than_a_lease(alone: Service, tmp_path: Path) -> None:
    """The trainer ends by itself; once Postgres is back, the same worker takes the job again."""
    short = {"LEASE_SECONDS": "6", "HEARTBEAT_SECONDS": "1"}
    with (
        postgres_proxy(alone.database_url) as (proxy, url),
        start_worker(url, alone.redis_url, tmp_path / "cut-off", **short) as worker,
    ):
        job_id = alone.submit(MEDIUM)
        alone.wait_saved(job_id)
        trainer = worker.trainer()
        proxy.cut()
        wait_dead(trainer)
        running = alone.job(job_id)
        assert (running.attempt, running.state) == (1, "running")
        until(lambda: alone.rows("SELECT clock_timestamp() AS now")[0].now, lambda now: now > running.lease_until)
        proxy.up()
        job = alone.wait_final(job_id)

    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 2, 1)
    first, second = alone.attempts(job_id)
    assert first.error["code"] == "lease-expired"
    assert first.outcome in {"lost", "crashed"}  # said by the reaper, or by the worker where it is back before
    assert second.from_step >= 200
    assert alone.steps(job_id) == MEDIUM_STEPS


def test_one_worker_loses_its_way_to_postgres(service: Service, shared_worker: Worker, start: StartWorker) -> None:
    """As if it were dead: another worker has the job within its lease, and meanwhile its trainer computes nothing."""
    with (
        postgres_proxy(service.database_url) as (proxy, url),
        start("cut-off", queues="rescue", DATABASE_URL=url, LEASE_SECONDS="600", HEARTBEAT_SECONDS="5") as victim,
    ):
        job_id, blocker = job_of_other_worker(service, LONG)
        trainer = victim.trainer()
        proxy.cut()
        until(trainer.status, lambda status: status == psutil.STATUS_STOPPED)
        computed = cpu_seconds(trainer)
        service.cancel(blocker)
        service.wait(job_id, lambda job: job.attempt == 2 and job.observed_step > job.saved_step)
        assert (trainer.status(), cpu_seconds(trainer)) == (psutil.STATUS_STOPPED, computed)
        before = written(service, job_id)
        proxy.up()
        victim.wait_log("attempt ended")
        wait_dead(trainer)
        assert written(service, job_id) == before
        service.cancel(job_id)

    first, second = service.attempts(job_id)
    assert (first.outcome, first.error["code"]) == ("lost", "worker-lost")
    assert second.worker_id != first.worker_id


def test_redis_is_away_when_the_worker_starts(service: Service, start: StartWorker, queue: str) -> None:
    """Jobs start all the same; once Redis is there, it is listened to."""
    with redis_proxy(service.redis_url) as (proxy, url):
        proxy.cut()
        with start("deaf", redis_url=url):
            job = service.wait_final(service.submit(BRIEF, queue=queue, ring=False))
            assert job.state == "succeeded"

            with service.engine.connect() as conn:
                cluster = cluster_id(conn)
            Doorbell(service.redis_url, cluster).ring(queue)
            wakes = f"traind:{cluster}:{wake_queue(queue)}"
            with redis.Redis.from_url(service.redis_url) as client:
                assert client.llen(wakes) == 1
                proxy.up()
                until(lambda: client.llen(wakes), lambda waiting: waiting == 0)
                for _ in range(3):
                    proxy.cut()
                    proxy.up()
                    Doorbell(service.redis_url, cluster).ring(queue)
                    until(lambda: client.llen(wakes), lambda waiting: waiting == 0)
