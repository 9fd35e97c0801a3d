"""A Postgres that hangs is answered for with 503 within a bound, and requests work again once it goes on.

The tests have a server of their own, since nobody else could use it while it hangs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from api.app import create_app
from jobs.keys import create
from jobs.settings import Settings
from tests.conftest import Servers, own_template
from tests.embedded import servers_for_tests


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with servers_for_tests(None, None) as (postgres, redis_url):
        yield Servers(postgres, redis_url)


@pytest.fixture(scope="module")
def template(servers: Servers) -> Iterator[str]:
    with own_template(servers) as name:
        yield name


@pytest.fixture
def key(engine: Engine, project_id: int) -> dict[str, str]:
    with engine.begin() as conn:
        return {"Authorization": f"Bearer {create(conn, project_id, name='test', scopes=['read'])}"}


def test_a_locked_table_and_a_frozen_server(
    database_url: str, redis_url: str, engine: Engine, key: dict[str, str]
) -> None:
    settings = Settings(database_url=database_url, redis_url=redis_url, database_timeout_seconds=1)  # type: ignore[arg-type]
    with capture_logs(), TestClient(create_app(settings)) as client:
        assert client.get("/v1/jobs", headers=key).status_code == 200
        with psycopg.connect(database_url) as other:
            other.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
            _refused(client, "/v1/jobs", key)
        assert client.get("/v1/jobs", headers=key).status_code == 200
        backends = _backends(engine)
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            _refused(client, "/v1/jobs", key)
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
        assert client.get("/v1/jobs", headers=key).status_code == 200
        assert client.get("/readyz").status_code == 200


def _refused(client: TestClient, path: str, key: dict[str, str]) -> None:
    before = time.monotonic()
    answer = client.get(path, headers=key)
    assert answer.status_code == 503
    assert answer.json()["code"] == "database-unavailable"
    assert time.monotonic() - before < 10


def _backends(engine: Engine) -> list[int]:
    """The api's backends and the postmaster, the latter last."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'traind-api' AND datname = current_database()"
    with engine.connect() as conn:
        found = conn.execute(text(query)).scalars().all()
    return [*found, psutil.Process(found[0]).ppid()]
