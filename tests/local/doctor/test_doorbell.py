"""What doctor says of a Redis: real ones, and answers of servers that are not at hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis as redis_client

from local.doctor import doorbell
from local.doctor.findings import Level
from tests.local.doctor.judged import bad

WELL = {"redis_version": "7.2.4", "redis_mode": "standalone", "role": "master", "maxmemory": 0, "used_memory": 1}


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def test_a_server_as_it_should_be(redis_url: str) -> None:
    found = list(doorbell.look(redis_url, embedded=False))
    assert bad(found) == []
    with redis_client.Redis.from_url(redis_url) as client:
        assert client.info()["redis_version"] in found[0].what


@pytest.mark.parametrize("url", ["http://localhost", "redis://h:port/0", "", "localhost:6379", "redis://u:secret@h:x"])
def test_a_url_that_is_none(url: str) -> None:
    (finding,) = doorbell.look(url, embedded=False)
    assert finding.level is Level.ERROR
    assert "TRAIND_REDIS_URL" in finding.what
    assert "secret" not in finding.what


def test_nobody_listens() -> None:
    (finding,) = doorbell.look("redis://127.0.0.1:1/0", embedded=False)
    assert finding.level is Level.ERROR
    assert "jobs start by polling" in finding.what
    assert "TRAIND_REDIS_URL" in (finding.fix or "")
    (finding,) = doorbell.look("unix:///nowhere/redis.sock", embedded=True)
    assert "logs/redis.log" in (finding.fix or "")


def test_a_server_that_hangs_is_given_up(deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "TIMEOUT_SECONDS", 0.2)
    (finding,) = doorbell.look(deaf, embedded=False)
    assert (finding.check, finding.level) == ("redis", Level.ERROR)


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({"redis_version": "5.0.14"}, Level.ERROR, "too old"),
        ({"redis_mode": "cluster"}, Level.ERROR, "cluster"),
        ({"role": "slave"}, Level.ERROR, "replica"),
        ({"maxmemory": 100, "maxmemory_policy": "allkeys-lru"}, Level.WARNING, "noeviction"),
        ({"maxmemory": 100, "used_memory": 95, "maxmemory_policy": "noeviction"}, Level.WARNING, "nearly full"),
    ],
)
def test_servers_that_do_not_fit(changes: Mapping[str, Any], level: Level, says: str) -> None:
    found = list(doorbell.judge(WELL | changes))
    assert bad(found) == [("redis", level)]
    assert any(says in f"{each.what} {each.fix}" for each in found)


@pytest.mark.parametrize(
    "changes", [{}, {"maxmemory_policy": "allkeys-lru"}, {"maxmemory": 100, "maxmemory_policy": "noeviction"}]
)
def test_servers_that_do(changes: Mapping[str, Any]) -> None:
    assert bad(doorbell.judge(WELL | changes)) == []


def test_valkey_is_called_so() -> None:
    (finding,) = doorbell.judge(WELL | {"valkey_version": "8.1.0"})
    assert finding.what == "Valkey 8.1.0"


def test_one_that_does_not_tell() -> None:
    assert bad(doorbell.judge({})) == [("redis", Level.WARNING)]
