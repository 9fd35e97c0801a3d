"""`client.wait`: how often it asks, what a poll costs, and what it says of a service that does not answer."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.traind.commands import Here
from tests.traind.scripted import Step, answer, scripted
from traind import ApiError, Client
from traind.client import waiting

JOB = "0199b3c4-1111-7222-8333-444455556666"


def job(**changes: Any) -> dict[str, Any]:
    return {"id": JOB, "state": "running", "spec": {}, "created_at": "2026-11-22T12:00:00Z", "version": 1, **changes}


ENDED = answer(job(state="succeeded", version=2), ETag='"2"')
NOTHING_NEW = answer(b"", 304, ETag='"1"')


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silence is reported after 0.2 s."""
    monkeypatch.setattr(waiting, "SILENCE_SECONDS", 0.2)


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Set at the end, so that no step waits any longer."""
    event = threading.Event()
    yield event
    event.set()


def silent(until: threading.Event) -> Step:
    def step(handler: BaseHTTPRequestHandler) -> None:
        until.wait(30)
        handler.close_connection = True

    return step


def nowhere() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_polls_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)

    def runs_for_ten_minutes(handler: BaseHTTPRequestHandler) -> None:
        step = ENDED if clock.now > 600 else answer(job())
        step(handler)

    with scripted(runs_for_ten_minutes) as service, Client(service.url, "td_x") as client:
        assert client.wait(JOB).state == "succeeded"
    assert len(service.seen) < 300, "of 2,000 at the first pace"
    assert sum(pause < 0.3 for pause in clock.slept) >= 5, "quick at first"
    assert max(clock.slept) == 3.0


def test_a_poll_names_the_version_that_is_known() -> None:
    versions = []
    first = answer(job(), ETag='"1"')
    with scripted(first, NOTHING_NEW, NOTHING_NEW, ENDED) as service, Client(service.url, "td_x") as client:
        end = client.wait(JOB, lambda seen: versions.append(seen.version), poll_seconds=0.001)
    assert (end.state, versions) == ("succeeded", [1, 2])
    assert [seen.headers.get("if-none-match") for seen in service.seen] == [None, '"1"', '"1"', '"1"']


@pytest.mark.usefixtures("soon")
def test_a_silent_service_is_reported_and_asked_on(held: threading.Event) -> None:
    said: list[float] = []

    def report(seconds: float) -> None:
        said.append(seconds)
        if len(said) == 2:
            held.set()

    with scripted(silent(held), silent(held), silent(held), ENDED) as service, Client(service.url, "td_x") as client:
        assert client.wait(JOB, on_silence=report).state == "succeeded"
    first, second = said
    assert first >= 0.2
    assert second >= 2 * first


@pytest.mark.usefixtures("soon")
def test_a_slow_service_is_given_the_time_it_needs(held: threading.Event) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        held.wait(0.5)
        ENDED(handler)

    said: list[float] = []
    with scripted(slow) as service, Client(service.url, "td_x") as client:
        assert client.wait(JOB, on_silence=said.append).state == "succeeded"
    assert said
    assert len(service.seen) <= 4


@pytest.mark.usefixtures("soon")
def test_without_a_callback_the_log_says_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(waiting, "OUT_OF_REACH_SECONDS", 0.5)
    url = nowhere()
    with Client(url, "td_x") as client, pytest.raises(ApiError, match="cannot be reached") as raised:
        client.wait(JOB)
    assert raised.value.code == "unreachable"
    assert caplog.record_tuples[0][:2] == ("traind.client", logging.WARNING)
    assert f"no answer from {url} for 0 s; still trying" in caplog.text


def test_a_service_out_of_reach_is_asked_for_its_time_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    with Client(nowhere(), "td_x") as client, pytest.raises(ApiError, match="cannot be reached"):
        client.wait(JOB)
    assert 0 < clock.now - waiting.OUT_OF_REACH_SECONDS <= max(clock.slept)


def test_a_silent_service_does_not_outlast_the_time_to_wait(held: threading.Event) -> None:
    with scripted(silent(held)) as service, Client(service.url, "td_x") as client:
        with pytest.raises(TimeoutError, match="gave no answer"):
            client.wait(JOB, timeout_seconds=0.3)
        held.set()


@pytest.mark.usefixtures("soon")
def test_watch_says_it_and_goes_on(here: Here, held: threading.Event) -> None:
    def silent_for_a_while(handler: BaseHTTPRequestHandler) -> None:
        held.wait(0.5)
        handler.close_connection = True

    with scripted(silent_for_a_while, ENDED) as service:
        done = here("watch", JOB, env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"})
    assert done.returncode == 0
    assert f"no answer from {service.url} for 0 s; still trying" in done.stderr
