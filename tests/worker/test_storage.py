"""A database without room for checkpoints: what a job that runs, one that ends and one that waits then do.

The disk that is looked at is a small one beside the tests' Postgres, filled and emptied.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from jobs.queries import WorkerState
from jobs.states import State
from tests.disks import MEBIBYTE, fill_but, small_disk
from tests.worker.conftest import StartWorker
from tests.worker.processes import start_worker
from tests.worker.service import BRIEF, LONG, MEDIUM, Service, until
from tests.worker.test_ill_machine import health, listed
from tests.worker.test_machine_faults import codes

DIVERGING = BRIEF | {"optimizer": {"name": "sgd", "lr": 1e18}, "training": {"steps": 60, "checkpoint_every": 1}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Of 16 MiB, of which a tenth stays free."""
    with small_disk(tmp_path / "disk", 16 * MEBIBYTE) as folder:
        yield folder


def told(service: Service, job_id: UUID, kind: str) -> list[dict[str, object]]:
    return [event.data for event in service.events(job_id) if event.kind == kind]


def test_no_checkpoint_is_taken_in_and_the_training_goes_on(
    service: Service, start: StartWorker, queue: str, disk: Path
) -> None:
    """One event for each stretch; nothing is left in the scratch folder; a cancel works as ever."""
    with start("short", DATABASE_DIR=str(disk)) as worker:
        job_id = service.submit(LONG, queue=queue)
        service.wait_saved(job_id)
        filler = fill_but(disk, MEBIBYTE)
        until(lambda: told(service, job_id, "checkpoint-skipped"), bool)
        seen = service.job(job_id)
        assert "TRAIND_MIN_FREE_DISK_BYTES" in seen.summary["no_room"]
        later = service.wait(job_id, lambda job: job.observed_step > seen.observed_step + 300)
        assert later.saved_step == seen.saved_step
        assert len(list(worker.scratch.rglob("*.safetensors"))) <= 4
        filler.unlink()
        assert "no_room" not in service.wait(job_id, lambda job: job.saved_step > later.observed_step).summary
        fill_but(disk, MEBIBYTE)
        until(lambda: told(service, job_id, "checkpoint-skipped"), lambda skipped: len(skipped) == 2)
        service.cancel(job_id)
        assert service.wait_final(job_id).state == State.CANCELLED
    first, second = told(service, job_id, "checkpoint-skipped")
    assert first["kind"] == "interval"
    assert "TRAIND_MIN_FREE_DISK_BYTES" in str(first["reason"])
    assert int(str(second["step"])) > later.observed_step
    assert service.job(job_id).crash_count == 0


def test_the_last_checkpoint_waits_for_room(service: Service, start: StartWorker, queue: str, disk: Path) -> None:
    with start("patient", DATABASE_DIR=str(disk)):
        job_id = service.submit(MEDIUM, queue=queue)
        service.wait(job_id, lambda job: job.state == "running")
        filler = fill_but(disk, MEBIBYTE)
        (waits,) = until(lambda: told(service, job_id, "checkpoint-waits"), bool)
        assert (waits["kind"], waits["step"]) == ("final", MEDIUM["training"]["steps"])
        assert service.job(job_id).state == "running"
        filler.unlink()
        job = service.wait_final(job_id)
    assert (job.state, job.attempt, job.saved_step) == ("succeeded", 1, MEDIUM["training"]["steps"])


def test_one_that_has_waited_long_enough_costs_no_attempt(
    service: Service, start: StartWorker, queue: str, disk: Path
) -> None:
    """Meanwhile the worker claims nothing and says why; its machine is well, so its health check is too."""
    with start("brief", DATABASE_DIR=str(disk), STORAGE_WAIT_SECONDS="0.5") as worker:
        job_id = service.submit(MEDIUM, queue=queue, max_attempts=1)
        saved = service.wait_saved(job_id).saved_step
        filler = fill_but(disk, MEBIBYTE)
        until(lambda: codes(service, job_id), bool)
        shown = until(lambda: listed(service, "brief"), lambda row: row.state is WorkerState.ILL)
        assert shown.trouble is not None
        assert "the database's disk has" in shown.trouble
        assert until(lambda: health(worker.scratch, "brief").returncode, lambda code: code == 0) == 0
        waiting = service.job(job_id)
        assert (waiting.state, waiting.attempt, waiting.crash_count) == ("queued", 1, 0)
        filler.unlink()
        job = service.wait_final(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert codes(service, job_id) == ["storage-full"]
    assert saved <= service.attempts(job_id)[1].from_step < MEDIUM["training"]["steps"]


def test_a_pause_that_finds_no_room_goes_back_to_the_checkpoint_before(
    service: Service, start: StartWorker, queue: str, disk: Path
) -> None:
    with start("paused", DATABASE_DIR=str(disk), STORAGE_WAIT_SECONDS="0.5"):
        job_id = service.submit(LONG, queue=queue, max_attempts=1)
        service.wait_saved(job_id)
        fill_but(disk, MEBIBYTE)
        until(lambda: told(service, job_id, "checkpoint-skipped"), bool)
        service.pause(job_id)
        job = service.wait(job_id, lambda job: job.state == "paused")
        assert job.saved_step < told(service, job_id, "checkpoint-waits")[0]["step"]
        assert (job.crash_count, codes(service, job_id)) == (0, ["storage-full"])
        service.cancel(job_id)


def test_a_quota_and_a_divergence_that_names_what_was_saved(alone: Service, tmp_path: Path) -> None:
    """Where checkpoints were skipped, the last good one is none of them."""
    with start_worker(alone.database_url, alone.redis_url, tmp_path / "quota", MAX_STORED_BYTES="1"):
        job = alone.wait_final(alone.submit(DIVERGING))
    assert (job.state, job.saved_step) == ("diverged", None)
    assert job.error["step"] > 1
    assert job.error["last_checkpoint_step"] is None
    (skipped,) = told(alone, job.id, "checkpoint-skipped")
    assert skipped["step"] == 1
    assert "TRAIND_MAX_STORED_BYTES" in str(skipped["reason"])


def test_a_quota_too_small_for_a_job_makes_no_worker_ill(alone: Service, tmp_path: Path) -> None:
    settings = {"MAX_STORED_BYTES": "1000", "STORAGE_WAIT_SECONDS": "0.1"}
    with start_worker(alone.database_url, alone.redis_url, tmp_path / "quota", **settings) as worker:
        job_id = alone.submit(BRIEF)
        until(lambda: codes(alone, job_id), lambda seen: seen == ["storage-full"] * 2)
        alone.cancel(job_id)
    assert "machine is ill" not in worker.log
