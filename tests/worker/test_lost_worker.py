"""A worker that is killed or frozen loses its job to another worker; its trainer is dead before that one starts."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import pytest

from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker, born_at, cpu_seconds, is_dead, last_alive, wait_dead
from tests.worker.service import (
    LASTING,
    LASTING_STEPS,
    LONG,
    MEDIUM,
    MEDIUM_STEPS,
    Service,
    job_of_other_worker,
    until,
    written,
)

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


def test_frozen_beyond_its_lease(service: Service, shared_worker: Worker, start: StartWorker) -> None:
    """The trainer ends by its own deadline, which moved with the lease, before another one begins (both as /proc has
    it); the worker, continued, has much to write and writes nothing.
    """
    short = {"LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "0.5", "SUSPICION_SECONDS": "60"}
    with start("victim", queues="rescue", **short) as victim:
        job_id, blocker = job_of_other_worker(service, LONG)
        service.cancel(blocker)
        service.wait(job_id, lambda job: job.lease_until > job.started_at + timedelta(seconds=7))
        trainer, lease_until = victim.trainer(), service.job(job_id).lease_until
        os.kill(victim.pid, signal.SIGSTOP)
        alive_until = last_alive(trainer)
        next_trainer = shared_worker.trainer()
        assert born_at(next_trainer) > alive_until
        assert service.attempts(job_id)[0].ended_at >= lease_until
        service.wait(job_id, lambda job: job.attempt == 2 and job.observed_step > job.saved_step)
        before = written(service, job_id)
        os.kill(victim.pid, signal.SIGCONT)
        victim.wait_log("attempt ended")
        assert written(service, job_id) == before
        assert not is_dead(next_trainer)
        service.cancel(job_id)

    first, second = service.attempts(job_id)
    assert (first.outcome, first.error["code"]) == ("lost", "lease-expired")
    assert second.worker_id != first.worker_id


def test_frozen_for_less_than_its_lease(service: Service, start: StartWorker, queue: str) -> None:
    """Several heartbeats are missed; the trainer goes on all the while, and nothing of it shows."""
    with start("dozing", LEASE_SECONDS="60", HEARTBEAT_SECONDS="0.5") as worker:
        job_id = service.submit(LASTING, queue=queue)
        service.wait_step(job_id, 10)
        trainer = worker.trainer()
        os.kill(worker.pid, signal.SIGSTOP)
        computed = cpu_seconds(trainer)
        until(lambda: cpu_seconds(trainer), lambda now: now > computed + 0.1)
        lease_until = service.job(job_id).lease_until
        time.sleep(2)
        assert service.job(job_id).lease_until == lease_until
        os.kill(worker.pid, signal.SIGCONT)
        service.wait(job_id, lambda job: job.state != "running" or job.lease_until > lease_until)
        job = service.wait_final(job_id)

    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 1, 0)
    assert service.steps(job_id) == LASTING_STEPS


def test_the_last_worker_is_gone(service: Service, start: StartWorker, queue: str) -> None:
    """The job waits until one comes."""
    with start("victim") as victim:
        job_id = service.submit(MEDIUM, queue=queue)
        service.wait_saved(job_id)
        victim.process.kill()
    waits = service.wait(job_id, lambda job: job.state == "queued")
    assert (waits.attempt, waits.crash_count) == (1, 1)
    with start("next"):
        job = service.wait_final(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert service.steps(job_id) == MEDIUM_STEPS
