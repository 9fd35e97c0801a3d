"""One installation and one warm worker, shared by this folder's tests; who kills workers starts some of their own.

Each test has a queue of its own, so that its workers take its jobs and nobody else's. The shared worker listens to
`default` and to `rescue`.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from jobs.database import make_engine
from tests import parallel
from tests.conftest import Servers, fresh_database
from tests.worker import warm
from tests.worker.processes import Worker, start_worker
from tests.worker.service import Service

StartWorker = Callable[..., AbstractContextManager[Worker]]


@pytest.fixture(scope="session", autouse=True)
def _warm(pytestconfig: pytest.Config) -> Iterator[None]:
    """Workers are lent by a warm process: one for all processes that run tests, else this one's."""
    if given := parallel.shared(pytestconfig):
        warm.use(Path(given["warm"]))
        yield
        return
    with tempfile.TemporaryDirectory(prefix="traind-tests-") as folder:
        path = Path(folder, "warm")
        with warm.warm_process(path):
            warm.use(path)
            yield


@pytest.fixture(scope="session")
def service(servers: Servers, template: str) -> Iterator[Service]:
    with fresh_database(servers, template) as url:
        engine = make_engine(url, application_name="tests")
        with engine.connect() as conn:
            project_id = conn.execute(text("SELECT id FROM project WHERE name = 'default'")).scalar_one()
        yield Service(url, servers.redis, engine, project_id)
        engine.dispose()


@pytest.fixture(scope="session")
def shared_worker(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("shared-worker")
    with start_worker(service.database_url, service.redis_url, folder, "--queues", "default,rescue") as worker:
        yield worker


@pytest.fixture
def alone(database_url: str, redis_url: str, engine: Engine, project_id: int) -> Service:
    """An installation without the shared worker: who is cut off from Postgres is everybody."""
    return Service(database_url, redis_url, engine, project_id)


@pytest.fixture
def queue() -> str:
    return f"q-{uuid.uuid4().hex}"


@pytest.fixture
def start(service: Service, queue: str, tmp_path: Path) -> StartWorker:
    """Start a worker of this test's queue (and of more); `start("name", "--once", LEASE_SECONDS="5")`."""

    def start_one(name: str, *arguments: str, queues: str = "", redis_url: str = "", **settings: str):
        listened = ",".join(filter(None, [queue, queues]))
        url = redis_url or service.redis_url
        return start_worker(service.database_url, url, tmp_path / name, "--queues", listened, *arguments, **settings)

    return start_one
