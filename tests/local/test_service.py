"""A whole service on servers of the operator's."""

from __future__ import annotations

import stat
from pathlib import Path

import psycopg
import pytest
import redis

from local.process import Family
from local.servers import Servers
from local.supervisor import Service
from traind.client import Client

SPEC = {
    "dataset": {"name": "digits"},
    "model": {"name": "linear"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "training": {"epochs": 1},
}


@pytest.mark.slow
def test_a_job_runs_on_given_servers_and_none_are_started(
    data_dir: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAIND_DATABASE_URL", database_url)
    monkeypatch.setenv("TRAIND_REDIS_URL", redis_url)
    with Service(data_dir, report=print) as service, Client(service.url, service.api_key) as client:
        job = client.wait(client.submit(SPEC).id)
        assert job.state == "succeeded", job.error
        assert sorted(path.name for path in service.log_dir.iterdir()) == ["api.log", "worker.log"]
    assert not (data_dir / "postgres").exists()
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT state FROM job").fetchall() == [("succeeded",)]


def test_each_server_is_replaced_by_itself(data_dir: Path, family: Family, database_url: str) -> None:
    with Servers(data_dir, family, database_url=database_url, redis_source="wheel", report=print) as servers:
        assert servers.database_url == database_url
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.ping()
        assert not (data_dir / "postgres").exists()


def test_only_redis_replaced(data_dir: Path, family: Family, redis_url: str) -> None:
    with Servers(data_dir, family, redis_url=redis_url, durable=False, report=print) as servers:
        assert servers.redis_url == redis_url
        with psycopg.connect(servers.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert not (data_dir / "logs" / "redis.log").exists()
