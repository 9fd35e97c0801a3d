"""A worker that is told to stop gives its job back; one that is told twice ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Servers
from tests.folders import found
from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker
from tests.worker.service import MEDIUM, MEDIUM_STEPS, PATIENT, Service, job_of_other_worker


def test_the_job_is_given_back_and_taken_up_again(service: Service, shared_worker: Worker, start: StartWorker) -> None:
    with start("leaving", queues="rescue") as worker:
        job_id, blocker = job_of_other_worker(service, MEDIUM)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(PATIENT) == 0
        assert not list(worker.scratch.glob("worker-*"))
        (first,) = service.attempts(job_id)
        assert (first.outcome, first.error) == ("drained", None)
        assert service.rows("SELECT stopped_at FROM worker WHERE id = :id", id=first.worker_id)[0].stopped_at
        given_back = service.job(job_id)
        assert (given_back.state, given_back.crash_count, given_back.error) == ("queued", 0, None)
        assert service.events(job_id)[-1].kind == "requeued"

    service.cancel(blocker)
    job = service.wait_final(job_id)
    assert (job.state, job.attempt, job.crash_count) == ("succeeded", 2, 0)
    assert service.attempts(job_id)[1].from_step >= 200
    assert service.steps(job_id) == MEDIUM_STEPS


STOPPING = """
import threading
from worker.stopping import on_signals
stopped = threading.Event()
on_signals(stopped.set)
print("ready", flush=True)
while not stopped.wait(60):
    pass
print("stopping", flush=True)
threading.Event().wait(60)
"""


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGTERM, signal.SIGINT], 130),
        ([signal.SIGTERM, signal.SIGQUIT], 131),
    ],
)
def test_told_twice(numbers: list[signal.Signals], code: int) -> None:
    command = [sys.executable, "-c", STOPPING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(numbers[0])
        while process.stdout.readline() != "stopping\n":
            assert process.poll() is None
        for number in numbers[1:]:
            process.send_signal(number)
        assert process.wait(PATIENT) == code


def test_a_kernel_that_is_not_there_stops_it_at_start() -> None:
    urls = {"TRAIND_DATABASE_URL": "postgresql:///nowhere", "TRAIND_REDIS_URL": "redis://nowhere"}
    command = [sys.executable, "-m", "worker"]
    environment = os.environ | urls | {"TRAIND_KERNEL": "fast"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.endswith("TRAIND_KERNEL='fast': it must be one of native, torch, or unset\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "code", "said"),
    [
        ("SCRATCH_DIR", "/dev/null/scratch", 1, "set TRAIND_SCRATCH_DIR"),
        ("DATABASE_URL", "mysql://me:secret@host/db", 2, "another scheme: write postgresql://"),
        ("DATABASE_URL", "postgresql://me:pass@word:secret@host/db", 2, "percent-encode special characters"),
        ("DATABASE_URL", "", 1, "run `traind db upgrade`"),
    ],
    ids=["scratch", "scheme", "no url", "not migrated"],
)
def test_what_it_cannot_start_without_it_says_and_leaves_nothing(
    service: Service, servers: Servers, tmp_path: Path, setting: str, value: str, code: int, said: str
) -> None:
    urls = {"DATABASE_URL": service.database_url, "REDIS_URL": service.redis_url, "SCRATCH_DIR": str(tmp_path)}
    given = urls | {setting: value or servers.postgres}
    environment = os.environ | {f"TRAIND_{name}": text for name, text in given.items()}
    command = [sys.executable, "-m", "worker", "--name", "not-started"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert not found(tmp_path, "*worker-*")
    assert service.rows("SELECT 1 FROM worker WHERE name = 'not-started'") == []


def test_without_servers_it_says_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-m", "worker"], env={}, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "traind up" in done.stderr
