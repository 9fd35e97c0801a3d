"""A real api process on a real database, shared by the tests of this folder; each test has a project of its own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from structlog.testing import capture_logs

from api.app import create_app
from jobs.database import make_engine
from jobs.settings import Settings
from tests.api.process import ApiProcess, serve
from tests.api.project import Project, new_project
from tests.conftest import Servers, fresh_database


@pytest.fixture(scope="session")
def shared_database(servers: Servers, template: str) -> Iterator[str]:
    with fresh_database(servers, template) as url:
        yield url


@pytest.fixture(scope="session")
def shared_engine(shared_database: str) -> Iterator[Engine]:
    engine = make_engine(shared_database, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def api(servers: Servers, shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    log = tmp_path_factory.mktemp("api") / "log"
    with serve(shared_database, servers.redis, log=log) as process:
        yield process


@pytest.fixture
def project(api: ApiProcess, shared_engine: Engine) -> Iterator[Project]:
    with new_project(shared_engine, api.url) as project:
        yield project


@pytest.fixture
def other(api: ApiProcess, shared_engine: Engine) -> Iterator[Project]:
    """Another project on the same service."""
    with new_project(shared_engine, api.url) as project:
        yield project


@pytest.fixture
def http(project: Project) -> httpx2.Client:
    """Calls with a key that may read and write."""
    return project.http


@pytest.fixture
def anonymous(api: ApiProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=api.url, trust_env=False, verify=False, timeout=60) as client:
        yield client


@pytest.fixture
def own_app(database_url: str, redis_url: str) -> Iterator[TestClient]:
    """An app in this process on a database of its own: for tests that break it."""
    settings = Settings(database_url=database_url, redis_url=redis_url)  # type: ignore[arg-type]
    with capture_logs(), TestClient(create_app(settings)) as client:
        yield client
