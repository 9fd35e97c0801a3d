"""The service does what its OpenAPI document says; see fuzz.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from jobs.lifecycle.work import record_metrics
from tests.api.process import ApiProcess
from tests.api.project import new_project
from tests.jobs.scenario import segment

VARIABLE = "TRAIND_TEST_TARGET"


@dataclass(frozen=True)
class Target:
    """A service with a job that has metrics, a checkpoint and a check."""

    url: str
    authorization: str
    job_id: str
    checkpoint_id: int
    check_id: str


@pytest.fixture
def target(api: ApiProcess, shared_engine: Engine) -> Iterator[Target]:
    with new_project(shared_engine, api.url) as project:
        job, lease = project.submit(), project.start()
        with shared_engine.begin() as conn:
            record_metrics(conn, lease, seq=0, segment=segment(1, 50))
        checkpoint_id = project.checkpoint(lease, step=50)
        check = project.http.post(f"/v1/checkpoints/{checkpoint_id}/verify").json()
        authorization = project.http.headers["Authorization"]
        yield Target(api.url, authorization, job["id"], checkpoint_id, check["id"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_service_does_what_its_document_says(target: Target, pytestconfig: pytest.Config) -> None:
    path = Path(__file__).with_name("fuzz.py")
    seed = f"--randomly-seed={pytestconfig.getoption('randomly_seed', 'default')}"
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", seed, str(path)]
    environment = os.environ | {VARIABLE: json.dumps(asdict(target))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
