"""A worker whose clock is wrong by an hour works as any other: nothing of a lease or a deadline is counted on it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.worker.processes import Worker, start_worker, wait_dead
from tests.worker.service import BRIEF, LONG, Service
from tests.worker.wrong_clock import wrong_clock

OFF = {"ahead": 3_600, "behind": -3_600}
LEASE = timedelta(seconds=6)
STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")


@pytest.fixture
def alone(database_url: str, redis_url: str, engine: Engine, project_id: int) -> Service:
    """An installation without the tests' shared worker: nobody with a right clock reaps in it."""
    return Service(database_url, redis_url, engine, project_id)


def said_at(worker: Worker) -> datetime:
    """The time of day of its first log line, by its own clock."""
    found = STAMP.search(worker.log)
    assert found, worker.log
    return datetime.fromisoformat(found.group() + "+00:00")


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        yield


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_trains_keeps_leases_reaps_and_is_told(alone: Service, tmp_path: Path) -> None:
    """One worker an hour ahead and one behind; the job of a third, whose clock is right, is theirs when it dies."""
    lease = {"LEASE_SECONDS": str(LEASE.seconds), "HEARTBEAT_SECONDS": "1"}

    def start(name: str) -> AbstractContextManager[Worker]:
        queues = ",".join(dict.fromkeys(["right", name]))
        return start_worker(alone.database_url, alone.redis_url, tmp_path / name, "--queues", queues, **lease)

    with ExitStack() as stack:
        victim = stack.enter_context(start("right"))
        jobs = [alone.submit(LONG, queue="right")]
        alone.wait_saved(jobs[0])
        trainer = victim.trainer()
        for name, ahead in OFF.items():
            with environment("LD_PRELOAD", str(wrong_clock(tmp_path / f"{name}.so", ahead))):
                worker = stack.enter_context(start(name))
                told = told_by_doctor(alone)
            assert abs(said_at(worker) - now(alone) - timedelta(seconds=ahead)) < timedelta(minutes=10)
            assert re.search(rf"3,(600|599)\.\d s {name} (of )?the database's", told), told
            jobs.append(alone.submit(LONG, queue=name))
            alone.wait_saved(jobs[-1])

        seen_at = now(alone)
        for job_id in jobs:
            job = alone.wait(job_id, lambda job: job.lease_until > seen_at + 2 * LEASE)
            assert (job.attempt, job.lease_until < seen_at + 6 * LEASE) == (1, True)
        for job_id in jobs[1:]:
            alone.cancel(job_id)
            assert alone.wait_final(job_id).state == "cancelled"

        victim.process.kill()
        wait_dead(trainer)
        alone.wait(jobs[0], lambda job: job.attempt == 2 and job.observed_step > job.saved_step)
        alone.cancel(jobs[0])
        briefs = [alone.wait_final(alone.submit(BRIEF, queue=name)) for name in OFF]

    first, second = alone.attempts(jobs[0])
    assert (first.outcome, first.error["code"]) == ("lost", "worker-lost")
    assert second.from_step >= 200
    assert [(brief.state, brief.attempt) for brief in briefs] == [("succeeded", 1)] * 2


def now(service: Service) -> datetime:
    """The database's time of day."""
    found: datetime = service.rows("SELECT clock_timestamp() AS now")[0].now
    return found


def told_by_doctor(service: Service) -> str:
    """What doctor's look at the clock says on the machine with that clock."""
    code = """if True:
        import sys
        from jobs.database import make_engine
        from local.doctor.machine import clock
        print(clock(make_engine(sys.argv[1], application_name="tests"), lease_seconds=60).what)
    """
    command = [sys.executable, "-c", code, service.database_url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
