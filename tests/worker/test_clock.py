"""A worker whose clock is wrong by an hour works as any other: nothing of a lease or a deadline is counted on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.worker.processes import Worker, start_worker, wait_dead
from tests.worker.service import BRIEF, LONG, Service
from tests.worker.wrong_clock import wrong_clock

HOUR = 3_600
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


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_it_trains_keeps_leases_reaps_and_is_told(
    alone: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    queues = ("--queues", "right,wrong")
    lease = {"LEASE_SECONDS": str(LEASE.seconds), "HEARTBEAT_SECONDS": "1"}
    with start_worker(alone.database_url, alone.redis_url, tmp_path / "right", *queues, **lease) as victim:
        job_id = alone.submit(LONG, queue="right")
        alone.wait_saved(job_id)
        trainer = victim.trainer()

        monkeypatch.setenv("LD_PRELOAD", str(wrong_clock(tmp_path, ahead)))
        with start_worker(alone.database_url, alone.redis_url, tmp_path / "wrong", *queues, **lease) as worker:
            off = said_at(worker) - alone.rows("SELECT clock_timestamp() AS now")[0].now
            assert abs(off - timedelta(seconds=ahead)) < timedelta(minutes=10)
            own = alone.submit(LONG, queue="wrong")
            alone.wait_saved(own)
            seen_at = alone.rows("SELECT clock_timestamp() AS now")[0].now
            for running in (job_id, own):
                job = alone.wait(running, lambda job: job.lease_until > seen_at + 3 * LEASE)
                assert (job.attempt, job.lease_until < seen_at + 6 * LEASE) == (1, True)
            alone.cancel(own)
            assert alone.wait_final(own).state == "cancelled"

            victim.process.kill()
            wait_dead(trainer)
            alone.wait(job_id, lambda job: job.attempt == 2 and job.observed_step > job.saved_step)
            alone.cancel(job_id)
            alone.wait_final(job_id)
            brief = alone.wait_final(alone.submit(BRIEF, queue="wrong"))
            doctor = told_by_doctor(alone)

    first, second = alone.attempts(job_id)
    assert (first.outcome, first.error["code"]) == ("lost", "worker-lost")
    assert second.from_step >= 200
    assert (brief.state, brief.attempt) == ("succeeded", 1)
    where = "ahead of" if ahead > 0 else "behind"
    assert re.search(rf"(3,600|3,599)\.\d s {where} the database's", doctor), doctor


def told_by_doctor(service: Service) -> str:
    """`traind doctor` on the machine with that clock."""
    servers = {"TRAIND_DATABASE_URL": service.database_url, "TRAIND_REDIS_URL": service.redis_url}
    command = [sys.executable, "-m", "traind", "doctor"]
    done = subprocess.run(command, env=os.environ | servers, capture_output=True, text=True, check=False)
    return re.sub(r"\s+", " ", done.stdout + done.stderr)
