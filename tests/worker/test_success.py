"""A job from its submission to its end, on a real worker."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import redis
import torch
from safetensors.torch import load
from sqlalchemy import select
from torch import nn

from jobs import tables
from jobs.blobs import read_range
from jobs.catalog import resolve
from jobs.database import cluster_id
from jobs.doorbell import Doorbell, wake_queue
from jobs.lifecycle.submit import submit
from jobs.metrics import store
from tests.folders import found
from tests.worker.processes import Worker
from tests.worker.service import BRIEF, LONG, Service, until
from traind.spec import JobSpec
from worker import health
from worker.training.fingerprint import optimizer_backend

pytestmark = [pytest.mark.usefixtures("shared_worker"), pytest.mark.servers]


def test_a_job_trains_to_its_end(service: Service) -> None:
    job = service.wait_final(service.submit(BRIEF))

    assert job.state == "succeeded"
    assert job.observed_step == job.saved_step == job.total_steps == 60
    assert job.summary["last"]["val/accuracy"] > 0.5
    assert job.summary["best"]["val/accuracy"]["step"] <= 60
    assert [event.kind for event in service.events(job.id)] == [
        "submitted",
        "started",
        "ready",
        "checkpoint",
        "succeeded",
    ]
    (attempt,) = service.attempts(job.id)
    assert attempt.outcome == "succeeded"
    assert attempt.fingerprint["threads"] == 1


def test_every_step_has_one_point(service: Service) -> None:
    job = service.wait_final(service.submit(BRIEF))

    with service.engine.connect() as conn:
        series = store.read(conn, job.id, ["train/loss", "val/accuracy"])
    assert list(series["train/loss"].steps) == list(range(1, 61))
    assert list(series["val/accuracy"].steps) == [46, 60]
    assert series["val/accuracy"].values[-1] == job.summary["last"]["val/accuracy"]


def test_telemetry_is_stored_like_any_metric(service: Service) -> None:
    groups = [{"params": "*.bias"}]
    training = BRIEF["training"] | {"telemetry_every": 20}
    spec = BRIEF | {"optimizer": {"name": "adam", "param_groups": groups}, "training": training}
    job = service.wait_final(service.submit(spec))

    keys = ["optimizer/update_ratio", "optimizer/rate_p95/1"]
    with service.engine.connect() as conn:
        series = store.read(conn, job.id, keys)
    assert {key: list(series[key].steps) for key in keys} == {key: [20, 40, 60] for key in keys}
    assert job.summary["last"]["optimizer/rate_p95/1"] == series["optimizer/rate_p95/1"].values[-1] > 0
    (attempt,) = service.attempts(job.id)
    assert attempt.fingerprint["optimizer"] == optimizer_backend("cpu")


def test_the_checkpoint_loads_into_the_model(service: Service) -> None:
    job = service.wait_final(service.submit(BRIEF))

    (checkpoint,) = service.rows(select(tables.checkpoint).where(tables.checkpoint.c.job_id == job.id))
    assert checkpoint.complete
    assert (checkpoint.step, checkpoint.kind) == (60, "final")
    data = b"".join(read_range(service.engine, checkpoint.model_blob_id))
    (blob,) = service.rows(select(tables.blob).where(tables.blob.c.id == checkpoint.model_blob_id))
    assert hashlib.sha256(data).digest() == blob.sha256
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    model.load_state_dict(load(data))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_nothing_stays_in_the_scratch_folder(service: Service, shared_worker: Worker) -> None:
    job = service.wait_final(service.submit(BRIEF))

    until(lambda: found(shared_worker.scratch, f"*/{job.id}-*"), lambda left: not left)
    until(lambda: shared_worker.fork_server().children(), lambda trainers: not trainers)


def test_a_divergence_is_an_outcome(service: Service) -> None:
    optimizer = {"name": "sgd", "lr": 1e18}
    job = service.wait_final(service.submit(BRIEF | {"optimizer": optimizer}))

    assert job.state == "diverged"
    assert job.crash_count == 0
    assert job.error["step"] >= 1


def test_an_error_that_no_retry_mends_fails_the_job(service: Service) -> None:
    """An api of another version took it in, which knows the data by another hash."""
    spec = JobSpec.model_validate(BRIEF)
    resolved = resolve(spec).model_copy(update={"dataset_sha256": "0" * 64})
    with service.engine.begin() as conn:
        job_id = submit(conn, project_id=service.project_id, spec=spec, resolved=resolved).job_id
    job = service.wait_final(job_id)

    assert (job.state, job.attempt) == ("failed", 1)
    assert job.error["code"] == "training-error"


def test_a_busy_worker_leaves_wakes_to_others(service: Service) -> None:
    """It hears them the moment it is free again, every time."""
    with service.engine.connect() as conn:
        cluster = cluster_id(conn)
    wakes = f"traind:{cluster}:{wake_queue('default')}"
    with redis.Redis.from_url(service.redis_url) as client:
        for _ in range(4):
            running = service.submit(LONG)
            service.wait_step(running, 1)
            Doorbell(service.redis_url, cluster).ring("default")
            service.wait_step(running, service.job(running).observed_step + 200)
            assert client.llen(wakes) >= 1
            service.cancel(running)
            service.wait_final(running)
            until(lambda: client.llen(wakes), lambda waiting: waiting == 0, seconds=0.5)


def test_the_worker_is_listed_and_well(service: Service, shared_worker: Worker) -> None:
    until(lambda: health.is_healthy(shared_worker.scratch, shared_worker.folder.name), bool)
    named = tables.worker.c.name == shared_worker.folder.name
    (row,) = service.rows(select(tables.worker).where(named))
    assert (row.device, row.queues, row.stopped_at) == ("cpu", ["default", "rescue"], None)
    assert row.versions["torch"] == torch.__version__
    until(
        lambda: service.rows(select(tables.worker).where(named))[0].last_seen_at, lambda seen: seen > row.last_seen_at
    )


def test_jobs_that_wait_are_done_one_after_the_other(service: Service) -> None:
    jobs = [service.submit(BRIEF) for _ in range(4)]

    done = [service.wait_final(job_id) for job_id in jobs]
    assert {job.state for job in done} == {"succeeded"}
    spans = sorted((job.started_at, job.finished_at) for job in done)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
