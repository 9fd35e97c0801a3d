"""One whole service for the tests of client and CLI, and the CLI pointed at it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from local.supervisor import Service
from tests.conftest import Servers, fresh_database
from tests.traind.commands import here  # noqa: F401  a fixture
from traind.client import Client, Job

SPEC: dict[str, Any] = {
    "name": "finished",
    "labels": {"study": "first"},
    "dataset": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [16]},
    "optimizer": {"name": "adam", "lr": 0.005},
    "training": {"epochs": 3, "batch_size": 32, "checkpoint_every": 46, "threads": 1},
}


@pytest.fixture(scope="session")
def service(servers: Servers, template: str) -> Iterator[Service]:
    """Api and worker on a database of their own; Fashion-MNIST is nowhere to be found."""
    folder = Path(tempfile.mkdtemp(prefix="traind-tests-"))
    absent = {"TRAIND_FASHION_MNIST_DIR": str(folder / "nowhere"), "TRAIND_CACHE_DIR": str(folder / "cache")}
    with fresh_database(servers, template) as url, ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # only while it starts: other tests want servers of their own
            patch.setenv("TRAIND_DATABASE_URL", url)
            patch.setenv("TRAIND_REDIS_URL", servers.redis)
            service = stack.enter_context(Service(folder / "data", environment=absent))
        yield service
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, service.api_key) as client:
        yield client


@pytest.fixture(scope="session")
def finished(client: Client) -> Job:
    """A job that has succeeded, with three checkpoints."""
    job = client.wait(client.submit(SPEC).id, timeout_seconds=60)
    assert job.state == "succeeded", job.error
    return job


@pytest.fixture
def env(service: Service) -> dict[str, str]:
    """The environment of a CLI that finds the service by its service.json."""
    return {"TRAIND_DATA_DIR": str(service.data_dir)}
