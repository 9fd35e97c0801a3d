"""A cancel ends the trainer and the job within a second, whatever the trainer does."""

from __future__ import annotations

import time
from typing import Any

import psutil
import pytest

from tests.folders import found
from tests.worker.processes import Worker, wait_dead
from tests.worker.service import BRIEF, LONG, Service, until

WITHIN_SECONDS = 1.0

WIDE = [{"type": "linear", "out_features": 8_192}, {"type": "linear", "out_features": 8_192}]
HUGE_PRODUCT = {
    "dataset": {"name": "synthetic_regression", "n_samples": 10_000, "n_features": 32},
    "model": {"name": "sequential", "layers": [*WIDE, {"type": "linear", "out_features": 1}]},
    "optimizer": {"name": "sgd"},
    "training": {"steps": 10, "batch_size": "full", "threads": 1},
}
"""8,000 x 8,192 x 8,192 is over a TFLOP in one product: ten seconds and more of one thread."""
LONG_LOAD = {
    "dataset": {"name": "synthetic_classification", "n_samples": 1_000_000, "n_features": 200},
    "model": {"name": "linear"},
    "optimizer": {"name": "sgd"},
    "training": {"steps": 10, "threads": 1},
}
LONG_EVALUATION = {
    "dataset": {"name": "synthetic_classification", "n_samples": 400_000, "n_features": 16},
    "model": {"name": "mlp", "hidden": [1_024, 1_024]},
    "optimizer": {"name": "sgd"},
    "training": {"steps": 1, "batch_size": 1, "threads": 1},
}
LARGE_CHECKPOINT = {
    "dataset": {"name": "synthetic_regression", "n_samples": 10, "n_features": 4_096},
    "model": {"name": "mlp", "hidden": [16_384]},
    "optimizer": {"name": "sgd"},
    "training": {"steps": 1, "batch_size": 1, "threads": 1},
}
"""268 MB of weights."""


def cancel_and_time(service: Service, job_id: Any, trainer: psutil.Process) -> float:
    """Seconds from the request to the job's end; the trainer must be gone by then."""
    began = time.monotonic()
    service.cancel(job_id)
    job = service.wait_final(job_id)
    took = time.monotonic() - began
    assert job.state == "cancelled"
    assert job.error is None
    wait_dead(trainer)
    assert service.attempts(job_id)[-1].outcome == "cancelled"
    return took


def test_while_it_waits(service: Service, shared_worker: Worker) -> None:
    running = service.submit(LONG)
    service.wait_step(running, 1)
    waiting = service.submit(LONG)
    service.cancel(waiting)
    assert service.job(waiting).state == "cancelled"
    service.cancel(running)
    service.wait_final(running)
    assert service.wait_final(service.submit(BRIEF)).state == "succeeded"
    assert service.attempts(waiting) == []


def test_between_small_steps(service: Service, shared_worker: Worker) -> None:
    job_id = service.submit(LONG)
    service.wait_step(job_id, 100)

    assert cancel_and_time(service, job_id, shared_worker.trainer()) < WITHIN_SECONDS


def test_inside_one_huge_matrix_product(service: Service, shared_worker: Worker) -> None:
    job_id = service.submit(HUGE_PRODUCT)
    service.wait(job_id, lambda job: job.phase == "train")
    trainer = shared_worker.trainer()
    begun = trainer.cpu_times().user
    until(lambda: trainer.cpu_times().user, lambda now: now > begun + 1)

    assert cancel_and_time(service, job_id, trainer) < WITHIN_SECONDS
    assert service.job(job_id).observed_step == 0


@pytest.mark.parametrize(
    ("document", "phase"), [(LONG_LOAD, "load"), (LONG_EVALUATION, "evaluate")], ids=["loading", "evaluating"]
)
def test_in_a_long_phase(service: Service, shared_worker: Worker, document: dict[str, Any], phase: str) -> None:
    job_id = service.submit(document)
    service.wait(job_id, lambda job: job.phase == phase)

    assert cancel_and_time(service, job_id, shared_worker.trainer()) < WITHIN_SECONDS
    assert service.job(job_id).saved_step is None


def test_while_a_checkpoint_is_uploaded(service: Service, shared_worker: Worker) -> None:
    job_id = service.submit(LARGE_CHECKPOINT)
    service.wait(job_id, lambda job: job.state == "running")
    trainer = shared_worker.trainer()
    arriving = "SELECT 1 FROM blob_chunk JOIN checkpoint ON blob_id = model_blob_id WHERE job_id = :job LIMIT 1"
    until(lambda: service.rows(arriving, job=job_id), bool)

    assert cancel_and_time(service, job_id, trainer) < WITHIN_SECONDS
    assert service.rows("SELECT complete FROM checkpoint WHERE job_id = :job", job=job_id) == [(False,)]


def test_while_the_fork_server_hangs(service: Service, shared_worker: Worker) -> None:
    server = shared_worker.fork_server()
    server.suspend()
    try:
        job_id = service.submit(LONG)
        until(lambda: found(shared_worker.scratch, f"*/{job_id}-1"), bool)
        service.cancel(job_id)
        job = service.wait_final(job_id, seconds=WITHIN_SECONDS)
    finally:
        server.resume()
    assert (job.state, job.error) == ("cancelled", None)
    assert service.wait_final(service.submit(BRIEF)).state == "succeeded"


def test_before_the_trainer_has_started(service: Service, shared_worker: Worker) -> None:
    """A request that came before the worker listens is found by its first heartbeat."""
    job_id = service.submit(LONG, ring=False)
    running = service.wait(job_id, lambda job: job.state != "queued")
    service.cancel(running.id)

    assert service.wait_final(job_id, seconds=WITHIN_SECONDS).state == "cancelled"
    assert service.wait_final(service.submit(BRIEF)).state == "succeeded"
