"""Redis is killed, starts again empty, or hangs, under jobs that run and jobs that are submitted: none is lost."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import Engine

from jobs.database import cluster_id
from jobs.doorbell import Doorbell, wake_queue
from local.redis import Redis, find_executable
from tests.worker.processes import start_worker
from tests.worker.service import BRIEF, MEDIUM, MEDIUM_STEPS, Service, until

pytestmark = pytest.mark.servers


class OwnRedis:
    """A server that the test may kill and freeze."""

    def __init__(self, folder: Path) -> None:
        executable = find_executable(folder, None, source="wheel")
        self._server = Redis(executable=executable, sockets=folder, log=folder / "log", account=None)
        self.url = self._server.url
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._server.program().argv, stdout=subprocess.DEVNULL)
        until(self._server.ready, bool)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._process.pid)


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    folder = Path(tempfile.mkdtemp(prefix="traind-"))  # a socket's path must be short
    server = OwnRedis(folder)
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def alone(database_url: str, own_redis: OwnRedis, engine: Engine, project_id: int) -> Service:
    return Service(database_url, own_redis.url, engine, project_id)


def test_it_is_killed_and_comes_back_empty(alone: Service, own_redis: OwnRedis, tmp_path: Path) -> None:
    with start_worker(alone.database_url, alone.redis_url, tmp_path / "worker", IDLE_POLL_SECONDS="2"):
        running = alone.submit(MEDIUM)
        alone.wait_step(running, 10)
        waiting = alone.submit(BRIEF)
        own_redis.kill()
        submitted = alone.submit(BRIEF)
        for job_id in (running, waiting, submitted):
            job = alone.wait_final(job_id)
            assert (job.state, job.attempt, job.crash_count) == ("succeeded", 1, 0)
        assert alone.steps(running) == MEDIUM_STEPS
        assert_found_by_looking(alone)

        own_redis.start()
        assert_heard_again(alone)
        after = alone.wait_final(alone.submit(BRIEF))
        assert (after.state, after.attempt) == ("succeeded", 1)


def test_it_hangs(alone: Service, own_redis: OwnRedis, tmp_path: Path) -> None:
    """It takes connections and answers none; what was said meanwhile is heard when it goes on, and does no harm."""
    with start_worker(alone.database_url, alone.redis_url, tmp_path / "worker"):
        running = alone.submit(MEDIUM)
        alone.wait_step(running, 10)
        own_redis.process.suspend()
        submitted = [alone.submit(BRIEF) for _ in range(2)]
        for job_id in (running, *submitted):
            job = alone.wait_final(job_id)
            assert (job.state, job.attempt, job.crash_count) == ("succeeded", 1, 0)
        assert_found_by_looking(alone)
        own_redis.process.resume()
        assert_heard_again(alone)
        assert [alone.job(job_id).attempt for job_id in submitted] == [1, 1]


def assert_found_by_looking(service: Service) -> None:
    """A worker that has nothing to do finds a job of which nobody told it."""
    job = service.wait_final(service.submit(BRIEF))
    assert (job.state, job.attempt) == ("succeeded", 1)


def assert_heard_again(service: Service) -> None:
    """A message on Redis is taken by the worker."""
    with service.engine.connect() as conn:
        cluster = cluster_id(conn)
    wakes = f"traind:{cluster}:{wake_queue('default')}"
    with redis.Redis.from_url(service.redis_url) as client:
        assert Doorbell(service.redis_url, cluster).ring("default")
        until(lambda: client.llen(wakes), lambda waiting: waiting == 0)
