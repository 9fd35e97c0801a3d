"""Two narrow moments of a heartbeat's connection."""

from __future__ import annotations

import time
import uuid
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, func, select

from jobs.database import make_engine
from jobs.lifecycle.lease import Lease, holder_name, lease_lock_key
from worker.heartbeat import Heartbeat

LEASE = Lease(uuid.uuid4(), 1, uuid.uuid4())


@pytest.fixture
def host(engine: Engine) -> Any:
    """As much of one as the connection needs; a request that is not heard waits a minute."""
    name = holder_name(uuid.UUID(int=7))
    url = engine.url.render_as_string(hide_password=False)
    holder = make_engine(url, application_name=name, pool_size=0).execution_options(isolation_level="AUTOCOMMIT")
    settings = SimpleNamespace(heartbeat_seconds=60.0)
    return SimpleNamespace(
        worker_id=uuid.UUID(int=7), cluster_id=uuid.UUID(int=1), settings=settings, lease_engine=holder
    )


@pytest.fixture
def heartbeat(host: Any) -> Heartbeat:
    verdict = SimpleNamespace(guard=None)
    nothing: Any = None
    return Heartbeat(host, LEASE, trainer=nothing, verdict=verdict, wishes=nothing, alive=nothing)  # type: ignore[arg-type]


def test_a_request_that_came_with_another_answer_is_heeded_at_once(host: Any, heartbeat: Heartbeat) -> None:
    with host.lease_engine.connect() as conn:
        driver: psycopg.Connection[Any] = conn.connection.driver_connection
        driver.execute("LISTEN here")
        driver.execute("SELECT pg_notify('here', %s)", (str(LEASE.job_id),))
        driver.execute("SELECT 1")
        began = time.monotonic()
        heartbeat._listen(driver)
        assert time.monotonic() - began < 30


@pytest.mark.timeout(60)
def test_the_lock_is_taken_from_a_connection_of_our_own_that_the_server_still_keeps(
    host: Any, heartbeat: Heartbeat
) -> None:
    key = lease_lock_key(host.cluster_id, LEASE)
    with host.lease_engine.connect() as former, host.lease_engine.connect() as conn:
        assert former.execute(select(func.pg_try_advisory_lock(key))).scalar_one()
        heartbeat._take_lock(conn)
        held = select(func.pg_advisory_unlock(key))
        assert conn.execute(held).scalar_one()
