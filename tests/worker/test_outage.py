"""Postgres or Redis go away under a worker and come back: the same attempt goes on, and nothing is lost or doubled."""

from __future__ import annotations

import psutil
import redis

from jobs.database import cluster_id
from jobs.doorbell import Doorbell, wake_queue
from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker
from tests.worker.proxy import postgres_proxy, redis_proxy
from tests.worker.service import BRIEF, MEDIUM, MEDIUM_STEPS, Service, until


def test_all_connections_are_ended(service: Service, shared_worker: Worker) -> None:
    """As by a restart of the server that takes no time."""
    job_id = service.submit(MEDIUM)
    service.wait_step(job_id, 10)
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'traind-%'"
    for step in (100, 300, 500):
        service.wait_step(job_id, step)
        assert service.rows(f"{ours} AND datname = current_database()")

    job = service.wait_final(job_id)
    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 1, 0)
    assert service.steps(job_id) == MEDIUM_STEPS
    assert [segment.seq for segment in service.segments(job_id)] == sorted(
        {segment.seq for segment in service.segments(job_id)}
    )


def test_postgres_is_unreachable_for_a_while(service: Service, start: StartWorker, queue: str) -> None:
    """Without a lease that can be renewed nothing computes: the trainer is stopped, and goes on afterwards."""
    with postgres_proxy(service.database_url) as (proxy, url), start("cut-off", DATABASE_URL=url) as worker:
        job_id = service.submit(MEDIUM, queue=queue)
        service.wait_step(job_id, 100)
        trainer = worker.trainer()
        proxy.cut()
        until(trainer.status, lambda status: status == psutil.STATUS_STOPPED, seconds=2)
        until(lambda: worker.log.count("the heartbeat's connection broke"), lambda tries: tries >= 3)
        proxy.up()

        job = service.wait_final(job_id)
        assert (job.state, job.attempt, job.crash_count) == ("succeeded", 1, 0)
        assert service.steps(job_id) == MEDIUM_STEPS


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
