"""A request reaches a listening worker, and a database that is away hurts nobody."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from jobs.database import make_engine
from jobs.notify import notify_request, requests_channel


def test_a_request_reaches_those_who_listen_on_its_clusters_channel(engine: Engine, database_url: str) -> None:
    cluster, job_id = uuid4(), uuid4()
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f'LISTEN "{requests_channel(cluster)}"')
        notify_request(engine, uuid4(), uuid4())
        notify_request(engine, cluster, job_id)
        (heard,) = listener.notifies(timeout=10, stop_after=1)
    assert UUID(heard.payload) == job_id


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/nothing"])
def test_a_database_that_is_away_is_a_warning(url: str) -> None:
    engine = make_engine(url, application_name="tests")
    with capture_logs() as logs:
        notify_request(engine, uuid4(), uuid4())
    assert [line["log_level"] for line in logs] == ["warning"]
    engine.dispose()
