"""Jobs on a worker with a GPU. Nothing here runs where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from jobs.lifecycle.check import request_audit
from optim_core import gpu
from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker, wait_dead
from tests.worker.service import LONG, MEDIUM, MEDIUM_STEPS, Service, until
from tests.worker.test_check import ask_verify, checkpoints, result, ring
from tests.worker.test_machine_faults import HUGE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

CNN = MEDIUM | {"model": {"name": "cnn"}, "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}}
GIBIBYTE = 1 << 30


@pytest.fixture
def worker(start: StartWorker) -> Iterator[Worker]:
    with start("gpu", "--device", "cuda") as one:
        yield one


def free_bytes() -> int:
    free, _ = torch.cuda.mem_get_info()
    return int(free)


@pytest.mark.parametrize("document", [MEDIUM, CNN], ids=["mlp, adam", "cnn, nesterov"])
def test_killed_and_resumed_it_ends_as_if_nothing_had_been(
    service: Service, worker: Worker, queue: str, document: dict[str, object]
) -> None:
    """And its last checkpoint is its replay, to the bit."""
    whole = service.wait_final(service.submit(document, queue=queue, device="cuda"))
    job_id = service.submit(document, queue=queue, device="cuda")
    service.wait_saved(job_id)
    worker.trainer().kill()
    job = service.wait_final(job_id)

    assert (whole.state, whole.attempt, job.state, job.attempt) == ("succeeded", 1, "succeeded", 2)
    assert service.steps(job_id) == MEDIUM_STEPS
    one, other = (service.checkpoints(each)[-1] for each in (whole.id, job_id))
    assert (one.step, one.model, one.state) == (other.step, other.model, other.state)
    assert {key: job.summary[key] == whole.summary[key] for key in ("last", "best")} == {"last": True, "best": True}
    fingerprint = service.attempts(job_id)[1].fingerprint
    assert fingerprint["gpu"] == torch.cuda.get_device_name()
    assert (fingerprint["optimizer"], fingerprint["deterministic"], fingerprint["tf32"]) == (gpu.backend(), True, False)
    found = result(service, ask_verify(service, checkpoints(service, job_id)[-1].id, queue))
    assert (found["equal"], found["exact"]) == (True, True)


def test_an_audit(service: Service, worker: Worker, queue: str) -> None:
    job = service.wait_final(service.submit(CNN, queue=queue))
    assert service.attempts(job.id)[0].fingerprint["device"] == "cuda"  # `auto`
    with service.engine.begin() as conn:
        check = request_audit(conn, project_id=service.project_id, job_id=job.id, steps=20).job_id
    ring(service, queue)
    found = result(service, check)
    assert (found["steps"], found["optimizer"]) == (20, gpu.backend())
    assert max(tensor["largest_difference"] for tensor in found["tensors"]) < 1e-6


def test_a_cancelled_trainer_gives_the_gpu_back(service: Service, worker: Worker, queue: str) -> None:
    before = free_bytes()
    job_id = service.submit(LONG, queue=queue, device="cuda")
    service.wait_step(job_id, 50)
    trainer = worker.trainer()
    assert free_bytes() < before
    service.cancel(job_id)
    assert service.wait_final(job_id, seconds=2).state == "cancelled"
    wait_dead(trainer)
    until(free_bytes, lambda free: free >= before)


def test_a_full_gpu_is_told_and_the_next_job_runs(service: Service, worker: Worker, queue: str) -> None:
    taken = torch.empty(free_bytes() - 3 * GIBIBYTE, dtype=torch.uint8, device="cuda")
    try:
        job = service.wait_final(service.submit(HUGE, queue=queue, device="cuda"), seconds=100)
    finally:
        del taken
        torch.cuda.empty_cache()
    assert (job.state, job.error["code"], job.attempt) == ("failed", "out-of-memory", 1)
    assert "CUDA out of memory" in job.error["message"]
    assert service.wait_final(service.submit(MEDIUM, queue=queue, device="cuda")).state == "succeeded"
