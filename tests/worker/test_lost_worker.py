"""A worker that is killed or frozen loses its job to another worker; its trainer is dead before that one starts."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import pytest

from tests.worker.conftest import StartWorker
from tests.worker.processes import wait_dead
from tests.worker.service import LONG, Service, job_of_other_worker

pytestmark = pytest.mark.usefixtures("shared_worker")


def test_killed(service: Service, start: StartWorker) -> None:
    with start("victim", queues="rescue") as victim:
        job_id, blocker = job_of_other_worker(service, LONG)
        service.cancel(blocker)
        trainer = victim.trainer()
        killed_at = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        wait_dead(trainer)
        assert time.monotonic() - killed_at < 1
        service.wait(job_id, lambda job: job.attempt == 2 and job.observed_step > job.saved_step)
        service.cancel(job_id)

    first, second = service.attempts(job_id)
    assert (first.outcome, first.error["code"]) == ("lost", "worker-lost")
    assert second.from_step >= 200
    assert second.worker_id != first.worker_id
    assert second.lease_token != first.lease_token
    steps = service.steps(job_id)
    assert steps == list(range(50, steps[-1] + 1, 50))


def test_frozen_beyond_its_lease(service: Service, start: StartWorker) -> None:
    """The trainer ends by its own deadline, which moved with the lease; the worker, continued, writes nothing more."""
    short = {"LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "0.5", "SUSPICION_SECONDS": "60"}
    with start("victim", queues="rescue", **short) as victim:
        job_id, blocker = job_of_other_worker(service, LONG)
        service.cancel(blocker)
        service.wait(job_id, lambda job: job.lease_until > job.started_at + timedelta(seconds=7))
        trainer, lease_until = victim.trainer(), service.job(job_id).lease_until
        os.kill(victim.pid, signal.SIGSTOP)
        wait_dead(trainer)
        running = service.job(job_id)
        assert (running.attempt, running.state) == (1, "running")
        assert running.lease_until >= lease_until
        service.wait(job_id, lambda job: job.attempt == 2 and job.observed_step > job.saved_step)
        os.kill(victim.pid, signal.SIGCONT)
        victim.wait_log("attempt ended")
        assert service.job(job_id).attempt == 2
        service.cancel(job_id)

    first, second = service.attempts(job_id)
    assert (first.outcome, first.error["code"]) == ("lost", "lease-expired")
    assert second.worker_id != first.worker_id
