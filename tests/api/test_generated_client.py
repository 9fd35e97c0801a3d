"""A client that openapi-python-client generates from our document does its work against the real api."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.generated import generate, programs
from tests.api.process import ApiProcess
from tests.api.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the generator is installed the first time

SUBMIT = """
import json, sys
from generated import AuthenticatedClient
from generated.api.jobs import get_job, list_jobs, submit_job
from generated.models import Cosine, Digits, Job, JobPage, JobSpec, Mlp, Resources, Sgd, Training
from generated.models.problem import Problem

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
parts = {"dataset": Digits(name="digits"), "resources": Resources(queue=sys.argv[3])}
training = Training.from_dict({"epochs": 2, "batch_size": sys.argv[4] if sys.argv[4] == "full" else int(sys.argv[4])})
spec = JobSpec(model=Mlp(name="mlp", hidden=[16]), optimizer=Sgd(name="sgd", lr=0.1), training=training,
               schedule=Cosine(name="cosine"), **parts)
job = submit_job.sync(client=client, body=spec)
assert isinstance(job, Job), job
again = get_job.sync(job.id, client=client)
assert isinstance(again, Job) and again.id == job.id, again
assert isinstance(again.spec.schedule, Cosine) and isinstance(again.spec.model, Mlp), again.spec
page = list_jobs.sync(client=client)
assert isinstance(page, JobPage) and job.id in [each.id for each in page.jobs], page
wrong = JobSpec(model=Mlp(name="mlp", hidden=[0]), optimizer=Sgd(name="sgd"), **parts)
refused = submit_job.sync(client=client, body=wrong)
assert isinstance(refused, Problem) and refused.code == "invalid-spec", refused
print(json.dumps({"id": str(job.id), "batch_size": again.spec.to_dict()["training"]["batch_size"]}))
"""

DOWNLOAD = """
import sys
from uuid import UUID
from generated import AuthenticatedClient
from generated.api.checkpoints import get_checkpoint_content, list_job_checkpoints

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
(checkpoint,) = list_job_checkpoints.sync(UUID(sys.argv[3]), client=client).checkpoints
file = get_checkpoint_content.sync(checkpoint.id, client=client)
sys.stdout.buffer.write(file.payload.read())
"""


@pytest.fixture(scope="module")
def package(api: ApiProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package `generated`, made without one warning about our document."""
    folder = tmp_path_factory.mktemp("client")
    document = httpx2.get(f"{api.url}/openapi.json", trust_env=False, timeout=60)
    (folder / "openapi.json").write_text(document.text)
    said = generate(folder / "openapi.json", folder / "generated")
    assert "parsing" not in said, said
    assert "Unable" not in said, said
    return folder


def run(package: Path, program: str, *arguments: str) -> bytes:
    environment = {**os.environ, "PYTHONPATH": str(package), "NO_PROXY": "*"}
    command = [programs() / "python", "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("batch_size", [16, "full"])
def test_it_submits_polls_lists_and_downloads(
    api: ApiProcess, package: Path, project: Project, batch_size: int | str
) -> None:
    key = project.key("read", "write")
    job: dict[str, Any] = json.loads(run(package, SUBMIT, api.url, key, project.queue, str(batch_size)))
    assert job["batch_size"] == batch_size
    weights = bytes(range(256)) * 9
    project.checkpoint(project.start(), step=1, model=weights)
    assert run(package, DOWNLOAD, api.url, key, job["id"]) == weights
