"""A trainer that dies is an outcome with a name; the job goes on from its last checkpoint, or fails after its attempts.

The trainers are killed from outside, as the kernel or a fault in a library would.
"""

from __future__ import annotations

import signal

import pytest

from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker, is_dead, wait_dead
from tests.worker.service import BRIEF, LONG, MEDIUM, MEDIUM_STEPS, PATIENT, Service


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGSEGV, "trainer-crashed"), (signal.SIGKILL, "trainer-killed")], ids=["fault", "kill"]
)
def test_the_job_goes_on_from_its_checkpoint(
    service: Service, shared_worker: Worker, number: signal.Signals, code: str
) -> None:
    job_id = service.submit(MEDIUM)
    service.wait_saved(job_id)
    shared_worker.trainer().send_signal(number)

    job = service.wait_final(job_id)
    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 2, 1)
    first, second = service.attempts(job_id)
    assert (first.outcome, first.error["code"], first.error["signal"]) == ("crashed", code, number.name)
    assert second.from_step >= 200
    assert second.from_checkpoint_id is not None
    assert service.steps(job_id) == MEDIUM_STEPS


def test_the_last_output_is_kept(service: Service, start: StartWorker, queue: str) -> None:
    """As a user's worker has it: the stack of a lent one is deeper."""
    with start("crashing", cold=True) as worker:
        job_id = service.submit(LONG, queue=queue, max_attempts=1)
        service.wait_step(job_id, 100)
        worker.trainer().send_signal(signal.SIGSEGV)
        job = service.wait_final(job_id)

    assert (job.state, job.error["code"]) == ("failed", "trainer-crashed")
    assert "SIGSEGV" in job.error["message"]
    assert "Segmentation fault" in job.error["output"]
    assert "worker/training/" in job.error["output"]
    assert "Segmentation fault" in service.attempts(job_id)[0].log


def test_an_attempt_may_not_run_longer_than_it_said(service: Service, shared_worker: Worker) -> None:
    job = service.wait_final(service.submit(LONG, max_runtime_seconds=4))

    assert (job.state, job.error["code"], job.crash_count) == ("failed", "max-runtime", 0)
    assert job.saved_step >= 200
    assert service.rows("SELECT 1 FROM checkpoint WHERE job_id = :job AND complete", job=job.id)


def test_the_fork_server_may_die(service: Service, shared_worker: Worker) -> None:
    """The running trainer goes on, and its end is believed only when it is gone; the next one has a new server."""
    job_id = service.submit(MEDIUM)
    service.wait_step(job_id, 10)
    trainer, before = shared_worker.trainer(), shared_worker.fork_server()
    before.kill()
    job = service.wait_final(job_id)
    wait_dead(trainer)
    next_job = service.wait_final(service.submit(BRIEF))

    assert (job.state, job.attempt) == (next_job.state, next_job.attempt) == ("succeeded", 1)
    assert shared_worker.fork_server().pid != before.pid


def test_a_silent_trainer_is_killed(service: Service, start: StartWorker, queue: str) -> None:
    job_id = service.submit(MEDIUM, queue=queue, ring=False)
    waiting = service.submit(MEDIUM, queue=queue, ring=False)
    with start("impatient", "--once", ready=False, STALL_TIMEOUT_SECONDS="3") as worker:
        service.wait_step(job_id, 10)
        trainer = worker.trainer()
        trainer.send_signal(signal.SIGSTOP)
        assert worker.process.wait(PATIENT) == 0

    assert is_dead(trainer)
    assert (service.job(job_id).state, service.job(job_id).crash_count) == ("queued", 1)
    assert service.attempts(job_id)[0].error["code"] == "trainer-stalled"
    assert service.job(waiting).state == "queued"
