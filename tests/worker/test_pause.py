"""Pause and resume of a running job: a checkpoint first, then `paused`; and nothing of it shows in what was trained."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row

from jobs.metrics import store
from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker, held, start_worker, wait_dead
from tests.worker.proxy import postgres_proxy
from tests.worker.service import BRIEF, LONG, MEDIUM, MEDIUM_STEPS, Service, until
from tests.worker.test_cancel import HUGE_PRODUCT, LONG_LOAD, WITHIN_SECONDS, cancel_and_time

SLOW_EVALUATION = {
    "dataset": {"name": "synthetic_classification", "n_samples": 400_000, "n_features": 16},
    "model": {"name": "mlp", "hidden": [1_024, 1_024]},
    "optimizer": {"name": "sgd"},
    "training": {"steps": 3, "batch_size": 16, "eval_every": 1, "threads": 1},
}
"""A step takes a millisecond, its evaluation some seconds."""
LARGE = {
    "dataset": {"name": "synthetic_regression", "n_samples": 10, "n_features": 4_096},
    "model": {"name": "mlp", "hidden": [16_384]},
    "optimizer": {"name": "sgd"},
    "training": {"steps": 100_000, "batch_size": 1, "threads": 1},
}
"""268 MB of weights: its checkpoint is some seconds on its way."""
EXACT = BRIEF | {
    "optimizer": {"name": "adam", "amsgrad": True},
    "model": {"name": "mlp", "hidden": [32], "dropout": 0.3},
    "schedule": {"name": "cosine", "warmup_steps": 50},
    "training": {"steps": 1_500, "threads": 1, "log_every": 7, "eval_every": 45},
}


def paused(service: Service, job_id: UUID) -> Row[Any]:
    service.pause(job_id)
    return service.wait(job_id, lambda job: job.state == "paused")


def points(service: Service, job_id: UUID) -> dict[str, list[tuple[int, float]]]:
    """Every visible point of every metric."""
    with service.engine.connect() as conn:
        series = store.read(conn, job_id)
    return {key: list(zip(map(int, s.steps), map(float, s.values), strict=True)) for key, s in series.items()}


def move_of(service: Service, job_id: UUID, kind: str) -> dict[str, Any]:
    """The data of the last event of this kind."""
    return [event.data for event in service.events(job_id) if event.kind == kind][-1]


@contextmanager
def says(worker: Worker, text: str) -> Iterator[None]:
    """Wait until its log has this once more than before."""
    before = worker.log.count(text)
    yield
    until(lambda: worker.log.count(text), lambda times: times > before)


def arriving(service: Service, job_id: UUID, kind: str) -> None:
    """Wait until chunks of a checkpoint of this kind come in."""
    query = "SELECT 1 FROM blob_chunk JOIN checkpoint ON blob_id = model_blob_id WHERE job_id = :job AND kind = :kind"
    until(lambda: service.rows(f"{query} LIMIT 1", job=job_id, kind=kind), bool)


def test_it_is_paused_when_its_checkpoint_is_complete(service: Service, shared_worker: Worker) -> None:
    job_id = service.submit(LONG)
    service.wait_step(job_id, 100)
    trainer = shared_worker.trainer()
    job = paused(service, job_id)

    assert (job.requested, job.crash_count, job.error) == ("none", 0, None)
    assert job.saved_step == job.observed_step > 100
    *_, last = service.checkpoints(job_id)
    assert (last.kind, last.step) == ("pause", job.saved_step)
    assert move_of(service, job_id, "paused") == {"reason": "paused", "saved_step": job.saved_step}
    (attempt,) = service.attempts(job_id)
    assert (attempt.outcome, attempt.error) == ("paused", None)
    wait_dead(trainer)
    assert service.wait_final(service.submit(BRIEF)).state == "succeeded"
    assert service.job(job_id).state == "paused"


@pytest.mark.usefixtures("shared_worker")
def test_paused_and_resumed_it_is_the_run_that_never_stopped(service: Service) -> None:
    whole = service.wait_final(service.submit(EXACT))
    job_id = service.submit(EXACT)
    for step in (200, 700):
        service.wait_step(job_id, step)
        paused(service, job_id)
        service.resume(job_id)
    job = service.wait_final(job_id)

    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 3, 0)
    assert [a.outcome for a in service.attempts(job_id)] == ["paused", "paused", "succeeded"]
    assert service.attempts(job_id)[-1].fingerprint["differences"] == []
    assert points(service, job_id) == points(service, whole.id)
    assert {key: job.summary[key] for key in ("last", "best")} == {key: whole.summary[key] for key in ("last", "best")}
    one, other = service.checkpoints(whole.id)[-1], service.checkpoints(job_id)[-1]
    assert (other.step, other.model, other.state) == (one.step, one.model, one.state)


@pytest.mark.usefixtures("shared_worker")
def test_a_trainer_that_loads_has_nothing_to_save(service: Service) -> None:
    job_id = service.submit(LONG_LOAD)
    service.wait(job_id, lambda job: job.phase == "load")
    service.pause(job_id)
    job = service.wait(job_id, lambda job: job.state == "paused", seconds=WITHIN_SECONDS)

    assert (job.observed_step, job.saved_step, job.crash_count) == (0, None, 0)
    assert service.attempts(job_id)[0].outcome == "paused"


def test_an_evaluation_is_brought_to_its_end_first(service: Service, shared_worker: Worker) -> None:
    job_id = service.submit(SLOW_EVALUATION)
    service.wait(job_id, lambda job: job.phase == "evaluate")
    with held(shared_worker.trainer()), says(shared_worker, "asked to stop"):
        service.pause(job_id)
    job = service.wait(job_id, lambda job: job.state == "paused")
    assert service.steps(job_id, "val/loss") == [job.saved_step] == [1]
    service.resume(job_id)
    service.wait_final(job_id)
    assert service.steps(job_id, "val/loss") == [1, 2, 3]


def test_taken_back_in_time_it_leaves_no_trace(service: Service, shared_worker: Worker) -> None:
    job_id = service.submit(SLOW_EVALUATION)
    service.wait(job_id, lambda job: job.phase == "evaluate")
    with held(shared_worker.trainer()):
        with says(shared_worker, "asked to stop"):
            service.pause(job_id)
        with says(shared_worker, "may go on"):
            service.resume(job_id)
    job = service.wait_final(job_id)

    assert (job.state, job.attempt) == ("succeeded", 1)
    assert [checkpoint.kind for checkpoint in service.checkpoints(job_id)] == ["final"]
    kinds = [event.kind for event in service.events(job_id)]
    assert kinds[-4:] == ["pause-requested", "pause-withdrawn", "checkpoint", "succeeded"]


@pytest.mark.usefixtures("shared_worker")
def test_taken_back_too_late_the_job_goes_on_from_there(service: Service) -> None:
    job_id = service.submit(LARGE)
    service.wait(job_id, lambda job: job.phase == "train")
    service.pause(job_id)
    arriving(service, job_id, "pause")
    service.resume(job_id)
    job = service.wait(job_id, lambda job: job.attempt == 2 and job.observed_step > job.saved_step)
    service.cancel(job_id)

    (saved,) = service.checkpoints(job_id)
    assert (saved.kind, saved.step) == ("pause", job.saved_step)
    first, second = service.attempts(job_id)
    assert first.outcome in ("drained", "paused")
    assert second.from_step == saved.step
    service.wait_final(job_id)


def test_a_cancel_wins_over_a_pause_that_is_on_its_way(service: Service, shared_worker: Worker) -> None:
    job_id = service.submit(LARGE)
    service.wait(job_id, lambda job: job.phase == "train")
    trainer = shared_worker.trainer()
    service.pause(job_id)
    arriving(service, job_id, "pause")

    assert cancel_and_time(service, job_id, trainer) < WITHIN_SECONDS
    assert service.checkpoints(job_id) == []


def test_a_trainer_that_dies_meanwhile_leaves_it_paused(service: Service, shared_worker: Worker) -> None:
    job_id = service.submit(LONG)
    service.wait_saved(job_id)
    trainer = shared_worker.trainer()
    trainer.send_signal(signal.SIGSTOP)
    service.pause(job_id)
    trainer.send_signal(signal.SIGKILL)
    job = service.wait(job_id, lambda job: job.state != "running")

    assert (job.state, job.crash_count) == ("paused", 1)
    assert service.attempts(job_id)[0].outcome == "crashed"
    service.cancel(job_id)


def test_after_its_time_it_is_paused_as_of_the_last_checkpoint(
    service: Service, start: StartWorker, queue: str
) -> None:
    with start("strict", PAUSE_SECONDS="1") as worker:
        job_id = service.submit(HUGE_PRODUCT, queue=queue)
        service.wait(job_id, lambda job: job.phase == "train")
        trainer = worker.trainer()
        job = paused(service, job_id)
        wait_dead(trainer)

    assert (job.saved_step, job.crash_count) == (None, 0)
    assert move_of(service, job_id, "paused") == {"reason": "pause-expired", "saved_step": None}


def test_asked_while_postgres_is_away_it_is_heeded_afterwards(alone: Service, tmp_path: Path) -> None:
    """Nobody else is there to take the job meanwhile."""
    with (
        postgres_proxy(alone.database_url) as (proxy, url),
        start_worker(url, alone.redis_url, tmp_path / "cut-off") as worker,
    ):
        job_id = alone.submit(MEDIUM)
        alone.wait_step(job_id, 100)
        proxy.cut()
        worker.wait_log("the heartbeat's connection broke")
        alone.pause(job_id)
        proxy.up()
        job = alone.wait(job_id, lambda job: job.state == "paused")
        assert alone.checkpoints(job_id)[-1].step == job.saved_step
        alone.resume(job_id)
        job = alone.wait_final(job_id)

    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 2, 0)
    assert alone.steps(job_id) == MEDIUM_STEPS
