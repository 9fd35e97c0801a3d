"""Real Postgres and Redis for every test that asks: embedded servers, or TRAIND_DATABASE_URL and TRAIND_REDIS_URL.

A test gets its own database, cloned from a migrated template, with its own cluster id (so its own Redis keys and
NOTIFY channels); both are dropped afterwards.
"""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, settings
from psycopg import sql
from sqlalchemy import Engine, select
from sqlalchemy.engine import make_url

from jobs import tables
from jobs.database import make_engine, upgrade
from tests import parallel
from tests.embedded import servers_for_tests
from tests.optim_core import sample
from tests.parallel import pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler  # noqa: F401  hooks
from tests.skips import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401  hooks
from tests.worker.warm import warm_process
from worker.training.waiting import let_threads_sleep

let_threads_sleep()  # before any test loads torch
gc.disable()  # until all is collected: a quarter of that time

# A slow machine is no failure: properties are about values, not about time.
settings.register_profile("traind", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("traind")

ROOMS_WITH_SQL = ("tests/jobs/", "tests/local/doctor/")

# A shell's background job ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--resume-cases",
        default="pairs",
        help="of tests/training/test_exact_resume.py: `pairs` (a pairwise cover), `all`, or how many of all",
    )
    parser.addoption(
        "--whole",
        action="store_true",
        help="all cases at other CPU levels and under the sanitizer (default: a sample that the commit draws)",
    )


def pytest_report_header(config: pytest.Config) -> str:
    whole = "all" if config.getoption("whole") else f"a sample, drawn by commit {sample.commit() or '(none)'}"
    return f"cases repeated at other CPU levels and under the sanitizer: {whole}"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark what `make test-external` runs again, on a PostgreSQL and a Redis of other versions.

    That is what can depend on the version: all SQL, locks, notifications and Redis commands of ours. It stands in
    `jobs` and in the doctor, so the tests of these two that use servers are marked here; a few of other rooms, which
    show that api and worker run on such servers, mark themselves. How api, worker and CLI treat an answer is not.
    """
    for item in items:  # before `-m` chooses
        if "servers" in getattr(item, "fixturenames", ()) and item.nodeid.startswith(ROOMS_WITH_SQL):
            item.add_marker("servers")
    yield
    parallel.order(config, items)  # after pytest-randomly


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@dataclass(frozen=True)
class Servers:
    """URLs of a Postgres server (any database we may connect to) and of a Redis server."""

    postgres: str
    redis: str

    def database(self, name: str) -> str:
        return make_url(self.postgres).set(database=name).render_as_string(hide_password=False)


@contextmanager
def _own_servers() -> Iterator[Servers]:
    given = os.environ.get("TRAIND_DATABASE_URL"), os.environ.get("TRAIND_REDIS_URL")
    with servers_for_tests(*given) as (postgres, redis_url):
        yield Servers(postgres, redis_url)


@contextmanager
def own_template(servers: Servers) -> Iterator[str]:
    name = f"traind_test_{uuid.uuid4().hex}"
    _admin(servers, "CREATE DATABASE {}", name)
    try:
        upgrade(servers.database(name))
        yield name
    finally:
        _admin(servers, "DROP DATABASE {} WITH (FORCE)", name)


@contextmanager
def _for_all_processes(folder: Path) -> Iterator[dict[str, str]]:
    """Made once for all processes that run tests: the servers, the template and the process that lends workers."""
    warm = folder / "warm"
    with _own_servers() as servers, own_template(servers) as template, warm_process(warm):
        yield {"postgres": servers.postgres, "redis": servers.redis, "template": template, "warm": str(warm)}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    parallel.share(node, _for_all_processes)


def pytest_unconfigure(config: pytest.Config) -> None:
    parallel.end_shared(config)


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Iterator[Servers]:
    if given := parallel.shared(pytestconfig):
        yield Servers(given["postgres"], given["redis"])
    else:
        with _own_servers() as servers:
            yield servers


@pytest.fixture(scope="module")
def fork_server() -> Iterator[None]:
    """The trainers' fork server, of this process; there is one, so whoever starts a trainer here must ask for it.

    As a worker has it: a trainer would import any main module but a package's `__main__` again, here pytest's.
    """
    from worker.process import warm_up

    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("__main__.__file__", raising=False)
        warm_up("cpu")
        yield


@pytest.fixture(scope="session")
def template(servers: Servers, pytestconfig: pytest.Config) -> Iterator[str]:
    if given := parallel.shared(pytestconfig):
        yield given["template"]
    else:
        with own_template(servers) as name:
            yield name


@contextmanager
def fresh_database(servers: Servers, template: str) -> Iterator[str]:
    """URL of a clone of the template with a cluster id of its own; dropped afterwards, with its Redis keys."""
    name = f"traind_test_{uuid.uuid4().hex}"
    _admin(servers, "CREATE DATABASE {} TEMPLATE {}", name, template)
    url = servers.database(name)
    with psycopg.connect(url) as connection:
        row = connection.execute("UPDATE meta SET cluster_id = gen_random_uuid() RETURNING cluster_id").fetchone()
    assert row is not None
    try:
        yield url
    finally:
        _admin(servers, "DROP DATABASE {} WITH (FORCE)", name)
        _drop_keys(servers.redis, f"traind:{row[0]}:*")


@pytest.fixture
def database_url(servers: Servers, template: str) -> Iterator[str]:
    with fresh_database(servers, template) as url:
        yield url


@pytest.fixture
def redis_url(servers: Servers) -> str:
    return servers.redis


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def project_id(engine: Engine) -> int:
    """The default project, which migration 0001 makes."""
    with engine.connect() as connection:
        return connection.execute(select(tables.project.c.id).where(tables.project.c.name == "default")).scalar_one()


def _admin(servers: Servers, statement: str, *names: str) -> None:
    with psycopg.connect(servers.postgres, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _drop_keys(url: str, pattern: str) -> None:
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(pattern, count=1_000):
            client.delete(key)
