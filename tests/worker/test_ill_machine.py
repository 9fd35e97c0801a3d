"""A worker whose machine is ill: it eats no jobs, says so everywhere, and goes on by itself once it is mended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row

from jobs.queries import WorkerRow, WorkerState, list_workers
from local.doctor import fleet
from local.doctor.findings import Level
from tests.disks import MEBIBYTE, fill, small_disk
from tests.worker.conftest import StartWorker
from tests.worker.service import BRIEF, LONG, Service, until
from tests.worker.test_machine_faults import codes

LARGE = BRIEF | {"model": {"name": "mlp", "hidden": [8_000]}}
"""Its checkpoint needs some 7 MB."""


def listed(service: Service, name: str) -> WorkerRow:
    with service.engine.connect() as conn:
        return next(row for row in list_workers(conn, service.project_id) if row.name == name)


def health(scratch: Path, name: str) -> subprocess.CompletedProcess[str]:
    """The command of a container's health check."""
    command = [sys.executable, "-m", "worker.health", "--name", name]
    environment = os.environ | {"TRAIND_SCRATCH_DIR": str(scratch)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def waiting(service: Service, name: str) -> WorkerRow:
    """The worker, once it says that it is ill."""
    return until(lambda: listed(service, name), lambda row: row.state is WorkerState.ILL)


def ends(service: Service, jobs: list[Any]) -> list[Row[Any]]:
    return [service.wait_final(job) for job in jobs]


def test_a_scratch_folder_that_is_swept_away_costs_no_attempt(service: Service, start: StartWorker, queue: str) -> None:
    """Under an idle worker, and then under one that trains: the folder is made again."""
    with start("swept") as worker:
        shutil.rmtree(worker.scratch)
        jobs = [service.submit(BRIEF, queue=queue, max_attempts=1) for _ in range(3)]
        assert [(job.state, job.attempt) for job in ends(service, jobs)] == [("succeeded", 1)] * 3
        long = service.submit(LONG, queue=queue, max_attempts=1)
        saved = service.wait_saved(long).saved_step
        shutil.rmtree(worker.scratch)
        service.wait(long, lambda job: (job.state, job.attempt) == ("running", 2) and job.saved_step > saved + 400)
        service.cancel(long)
        service.wait_final(long)
        assert until(lambda: health(worker.scratch, "swept").returncode, lambda code: code == 0) == 0
    assert (service.job(long).crash_count, codes(service, long)) == (0, ["scratch-unusable"])


@pytest.mark.parametrize("illness", ["read-only", "full"])
def test_an_ill_worker_takes_no_job_and_says_so_until_it_is_mended(
    service: Service, start: StartWorker, queue: str, tmp_path: Path, illness: str
) -> None:
    """Real mounts; six jobs that allow one attempt each wait, and all of them succeed."""
    with small_disk(tmp_path / "disk", 16 * MEBIBYTE) as disk, start("ill", SCRATCH_DIR=str(disk)) as worker:
        assert service.wait_final(service.submit(BRIEF, queue=queue)).state == "succeeded"
        filler = fill(disk) if illness == "full" else None
        if filler is None:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "traind-test", str(disk)], check=True)  # over it
        jobs = [service.submit(BRIEF, queue=queue, max_attempts=1) for _ in range(6)]
        shown = waiting(service, "ill")
        says = "is full" if filler else "Read-only file system"
        assert shown.trouble is not None
        assert says in shown.trouble
        assert str(disk) in shown.trouble
        errors = [found for found in fleet.judge(fleet.look(service.engine)) if found.level is Level.ERROR]
        assert any("(" + str(shown.id) in found.what and says in found.what for found in errors)
        checked = until(lambda: health(disk, "ill"), lambda done: done.returncode == 1)
        assert "was not seen well" in checked.stderr or says in checked.stderr
        assert {service.job(job).attempt for job in jobs} == {0}
        if filler is None:
            subprocess.run(["umount", str(disk)], check=True)
        else:
            filler.unlink()
        assert [(job.state, job.attempt, job.crash_count) for job in ends(service, jobs)] == [("succeeded", 1, 0)] * 6
        until(lambda: listed(service, "ill").state, lambda state: state is WorkerState.LIVE)
        assert until(lambda: health(disk, "ill").returncode, lambda code: code == 0) == 0
        assert worker.log.count("machine is ill") == 1
        assert worker.log.count("is well again") == 1


def test_a_job_that_the_disk_cannot_hold_does_not_stop_the_others(
    service: Service, start: StartWorker, queue: str, tmp_path: Path
) -> None:
    """The small probe succeeds and the checkpoint does not: the job comes back more and more rarely."""
    with small_disk(tmp_path / "disk", 6 * MEBIBYTE) as disk, start("small", SCRATCH_DIR=str(disk)):
        large = service.submit(LARGE, queue=queue, max_attempts=1)
        service.wait(large, lambda job: job.attempt >= 2)
        jobs = [service.submit(BRIEF, queue=queue, max_attempts=1) for _ in range(3)]
        assert [(job.state, job.attempt) for job in ends(service, jobs)] == [("succeeded", 1)] * 3
        until(lambda: codes(service, large), lambda told: len(told) >= 3)
        job = service.job(large)
        service.cancel(large)
        service.wait_final(large)
    assert set(codes(service, large)) == {"scratch-full"}
    assert job.crash_count == 0
    waits = [event.data["machine_faults"] for event in service.events(large) if event.data.get("machine_faults")]
    assert waits == list(range(1, len(waits) + 1))


def test_a_worker_for_one_job_refuses_on_an_ill_machine(
    service: Service, start: StartWorker, queue: str, tmp_path: Path
) -> None:
    job = service.submit(BRIEF, queue=queue)
    with small_disk(tmp_path / "disk", 2 * MEBIBYTE) as disk:
        with start("once", "--once", ready=False, SCRATCH_DIR=str(disk)) as worker:
            assert worker.process.wait(60) == 1
        assert "is full" in worker.log
        assert "make room" in worker.log
    assert service.job(job).attempt == 0
    service.cancel(job)
