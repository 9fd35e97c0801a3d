"""A worker that is told to stop saves its job first, within its time; and what only the worker's own end can show."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from jobs.lifecycle.retry import Start
from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker
from tests.worker.proxy import postgres_proxy
from tests.worker.service import BRIEF, LONG, MEDIUM, PATIENT, Service
from tests.worker.test_cancel import HUGE_PRODUCT, LONG_LOAD
from tests.worker.test_pause import EXACT, LARGE, arriving, move_of, points


def told_to_stop(worker: Worker) -> float:
    """Seconds from SIGTERM to the worker's end, which must be one in good order."""
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(PATIENT) == 0
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--once"]], ids=["listening", "once"])
def test_the_job_goes_on_from_the_step_it_was_at(
    service: Service, start: StartWorker, queue: str, arguments: list[str]
) -> None:
    job_id = service.submit(EXACT, queue=queue, ring=False)
    with start("leaving", *arguments, ready=False) as worker:
        service.wait_step(job_id, 500)
        told_to_stop(worker)
    job = service.job(job_id)
    (saved,) = service.checkpoints(job_id)
    assert (job.state, job.crash_count) == ("queued", 0)
    assert saved.kind == "drain"
    assert saved.step == job.saved_step == job.observed_step >= 500
    assert move_of(service, job_id, "requeued") == {"reason": "drained", "saved_step": saved.step}

    whole = service.submit(EXACT, queue=queue)
    with start("next"):
        service.wait_final(job_id)
        service.wait_final(whole)
    assert [a.outcome for a in service.attempts(job_id)] == ["drained", "succeeded"]
    assert points(service, job_id) == points(service, whole)
    one, other = service.checkpoints(whole)[-1], service.checkpoints(job_id)[-1]
    assert (other.step, other.model, other.state) == (one.step, one.model, one.state)


def test_a_pause_that_was_asked_for_too_is_heeded(service: Service, start: StartWorker, queue: str) -> None:
    with start("leaving") as worker:
        job_id = service.submit(LARGE, queue=queue)
        service.wait(job_id, lambda job: job.phase == "train")
        service.pause(job_id)
        arriving(service, job_id, "pause")
        told_to_stop(worker)

    (saved,) = service.checkpoints(job_id)
    assert (service.job(job_id).state, service.job(job_id).saved_step) == ("paused", saved.step)
    assert service.attempts(job_id)[0].outcome == "paused"


@pytest.mark.parametrize(
    ("document", "phase", "seconds", "reason"),
    [(LONG_LOAD, "load", 60, "drained"), (HUGE_PRODUCT, "train", 1, "drain-expired")],
    ids=["loading", "in a step that takes too long"],
)
def test_what_has_nothing_to_save_is_given_back_at_once_and_what_takes_too_long_in_time(
    service: Service, start: StartWorker, queue: str, document: dict[str, Any], phase: str, seconds: int, reason: str
) -> None:
    with start("leaving", DRAIN_SECONDS=str(seconds)) as worker:
        job_id = service.submit(document, queue=queue)
        service.wait(job_id, lambda job: job.phase == phase)
        took = told_to_stop(worker)

    job = service.job(job_id)
    assert (job.state, job.crash_count, job.saved_step) == ("queued", 0, None)
    assert service.attempts(job_id)[0].outcome == "drained"
    assert move_of(service, job_id, "requeued")["reason"] == reason
    assert took < 10


@pytest.mark.slow
def test_while_postgres_is_away_the_worker_ends_in_its_time(service: Service, start: StartWorker, queue: str) -> None:
    """It cannot say so: its lease runs out, and that counts as a crash."""
    with (
        postgres_proxy(service.database_url) as (proxy, url),
        start("cut-off", DATABASE_URL=url, DRAIN_SECONDS="1") as worker,
    ):
        job_id = service.submit(MEDIUM, queue=queue)
        service.wait_saved(job_id)
        proxy.cut()
        worker.wait_log("the heartbeat's connection broke")
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(PATIENT)
        assert time.monotonic() - began < 15
    with start("next"):
        job = service.wait_final(job_id)
    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 2, 1)


@pytest.mark.usefixtures("shared_worker")
def test_a_cancelled_job_is_retried_from_either_end(service: Service) -> None:
    """Over again, the line of history is that of a run by itself; so it is from the last checkpoint."""
    whole = service.wait_final(service.submit(MEDIUM))
    job_id = service.submit(MEDIUM)
    starts: tuple[Start, ...] = ("start", "checkpoint")
    for start_from in starts:
        service.wait_saved(job_id)
        service.cancel(job_id)
        cancelled = service.wait_final(job_id)
        service.retry(job_id, start_from)
    job = service.wait_final(job_id)

    assert (job.state, job.attempt) == ("succeeded", 3)
    assert [a.from_step for a in service.attempts(job_id)] == [0, 0, cancelled.saved_step]
    assert points(service, job_id) == points(service, whole.id)
    assert service.checkpoints(job_id)[-1].model == service.checkpoints(whole.id)[-1].model


@pytest.mark.usefixtures("shared_worker")
def test_max_runtime_counts_for_each_attempt_and_keeps_the_checkpoints(service: Service) -> None:
    job_id = service.submit(LONG, max_runtime_seconds=2)
    first = service.wait_final(job_id)
    service.retry(job_id)
    second = service.wait(job_id, lambda job: job.attempt == 2 and job.state == "failed")

    assert first.error["code"] == second.error["code"] == "max-runtime"
    assert service.attempts(job_id)[1].from_step == first.saved_step
    assert second.saved_step > first.saved_step


@pytest.mark.usefixtures("shared_worker")
def test_a_checkpoint_is_taken_before_max_runtime_though_none_was_asked_for(service: Service) -> None:
    endless = BRIEF | {"training": {"steps": 1_000_000, "threads": 1, "log_every": 50}}
    job_id = service.submit(endless, max_runtime_seconds=3)
    first = service.wait_final(job_id)
    service.retry(job_id)
    second = service.wait(job_id, lambda job: job.attempt == 2 and job.state == "failed")

    assert (first.error["code"], first.crash_count) == ("max-runtime", 0)
    assert first.error["message"].endswith(f"a retry goes on from step {first.saved_step:,}")
    assert 0 < first.saved_step == service.attempts(job_id)[1].from_step < second.saved_step
    for attempt in service.attempts(job_id):
        assert (attempt.ended_at - attempt.started_at).total_seconds() < 3 + 1
