"""Connections of clients that are slow, send too much, or do not speak HTTP; and of those that may take their time."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine

from api.errors import KINDS, MEDIA_TYPE
from tests.api.conversation import conversation
from tests.api.process import ApiProcess, serve
from tests.api.project import Project, new_project
from tests.conftest import Servers

SECONDS = 2.0
"""The read timeout of the tests' api."""
TICK = SECONDS / 8
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"


@pytest.fixture(scope="module")
def strict(servers: Servers, shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    log = tmp_path_factory.mktemp("strict") / "log"
    with serve(shared_database, servers.redis, log=log, read_timeout_seconds=str(SECONDS)) as process:
        yield process


@pytest.fixture
def mine(strict: ApiProcess, shared_engine: Engine) -> Iterator[Project]:
    with new_project(shared_engine, strict.url) as project:
        yield project


def connect(api: ApiProcess) -> socket.socket:
    address = urlsplit(api.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def rest(connection: socket.socket) -> bytes:
    """All that still comes, until the service closes the connection."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def refused(answer: bytes, code: str) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    problem: dict[str, Any] = json.loads(body)
    assert problem["code"] == code
    assert status.startswith(f"HTTP/1.1 {KINDS[code].status} ")
    assert (headers["content-type"], headers["connection"]) == (MEDIA_TYPE, "close")
    assert int(headers["content-length"]) == len(body)
    assert headers["x-request-id"] == problem["request_id"]
    assert problem["type"] == f"urn:traind:problem:{code}"
    return problem


def post(project: Project, length: int) -> bytes:
    key = project.http.headers["Authorization"]
    lines = ["POST /v1/jobs HTTP/1.1", "Host: x", f"Authorization: {key}", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW /v1/jobs HTTP/1.1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header: \x00\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["TLS", "version", "method", "length", "two lengths", "header", "CONNECT"],
)
def test_what_is_not_http_is_answered_with_a_problem(strict: ApiProcess, noise: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(noise)
        problem = refused(rest(connection), "malformed-request")
    (entry,) = strict.logged(problem["request_id"])
    assert (entry["code"], entry["status"]) == ("malformed-request", 400)


@pytest.mark.parametrize("body", [b"gzip\r\n\r\n", b"chunked\r\n\r\nhello\r\n"], ids=["coding", "chunk"])
def test_a_body_that_is_not_http_and_comes_with_its_head(strict: ApiProcess, mine: Project, body: bytes) -> None:
    head, _, _ = post(mine, 0).partition(b"Content-Length")
    with connect(strict) as connection:
        connection.sendall(head + b"Transfer-Encoding: " + body)
        problem = refused(rest(connection), "malformed-request")
    assert strict.logged(problem["request_id"])[-1]["status"] == 400


@pytest.mark.parametrize(
    "head",
    [
        GET + b"".join(b"X-%d: y\r\n" % i for i in range(101)),
        GET + b"X-Long: " + b"y" * 70_000 + b"\r\n",
        GET + b"X-Endless: " + b"y" * 100_000,
        b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n",
    ],
    ids=["many", "long", "endless", "address"],
)
def test_a_head_that_is_too_large_is_431(strict: ApiProcess, head: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(head + b"\r\n")
        refused(rest(connection), "head-too-large")


def test_what_does_not_come_in_time_is_refused_logged_and_not_stored(strict: ApiProcess, mine: Project) -> None:
    with connect(strict) as connection:
        connection.sendall(post(mine, 100) + b"{")
        problem = refused(rest(connection), "request-timeout")
    entry = strict.logged(problem["request_id"])[-1]
    assert (entry["path"], entry["status"]) == ("/v1/jobs", 408)
    assert mine.http.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    ("start", "drip", "until"),
    [
        (GET, b"", SECONDS),
        (b"\r\n", b"", SECONDS),
        (GET + b"X: ", b"y", SECONDS),
        (POST + b"{", b"", SECONDS),
        (POST + b"{", b" ", SECONDS + TICK),
    ],
    ids=["head", "line ends", "dripping head", "body", "dripping body"],
)
def test_who_sends_too_slowly_is_cut_off_at_the_bound(start: bytes, drip: bytes, until: float) -> None:
    with conversation(SECONDS) as client:
        client.say(start)
        while not (answer := client.heard()) and client.now < 2 * SECONDS:
            client.wait(TICK)
            client.say(drip)
        refused(answer, "request-timeout")
        assert (client.now, client.closed) == (until, True)


def test_who_says_nothing_is_left_without_an_answer() -> None:
    with conversation(SECONDS) as client:
        client.wait(SECONDS - TICK)
        assert (client.heard(), client.closed) == (b"", False)
        client.wait(TICK)
        assert (client.heard(), client.closed) == (b"", True)


def test_the_second_head_has_the_bound_of_the_first() -> None:
    with conversation(SECONDS) as client:
        client.say(GET + b"\r\n" + GET)
        assert client.heard().startswith(b"HTTP/1.1 200 ")
        client.wait(SECONDS)
        refused(client.heard(), "request-timeout")


def test_a_slow_but_steady_body_arrives() -> None:
    """Each silence is a little shorter than the bound, and the whole takes ten times as long."""
    with conversation(SECONDS) as client:
        client.say(POST)
        for _ in range(10):
            client.wait(SECONDS - TICK)
            client.say(bytes(1_000))
        assert b"10000 bytes;" in client.heard()


def test_a_client_is_not_to_blame_for_what_the_service_does_not_read() -> None:
    with conversation(SECONDS) as client:
        client.busy = True
        client.say(POST.replace(b"10000", b"200000") + bytes(150_000))
        client.wait(10 * SECONDS)
        client.busy = False
        client.say(bytes(50_000))
        assert b"200000 bytes;" in client.heard()


def test_an_answer_and_the_pause_before_the_next_request_may_take_longer() -> None:
    with conversation(SECONDS) as client:
        for _ in range(2):
            client.busy = True
            client.say(GET + b"\r\n")
            client.wait(10 * SECONDS)
            assert client.heard() == b""
            client.busy = False
            assert client.heard().startswith(b"HTTP/1.1 200 ")
            client.wait(2 * SECONDS)
        assert (client.heard(), client.closed) == (b"", False)


def test_a_slow_download_is_fine() -> None:
    with conversation(SECONDS) as client:
        client.content = bytes(5_000_000)
        client.say(GET + b"\r\n")
        client.wait(10 * SECONDS)
        assert client.heard().count(0) == 5_000_000


def test_requests_in_one_piece_are_all_answered(strict: ApiProcess) -> None:
    with connect(strict) as connection:
        connection.sendall((GET + b"\r\n") * 3 + GET + b"Connection: close\r\n\r\n")
        assert rest(connection).count(b"HTTP/1.1 200 ") == 4


def test_the_bound_is_a_setting(tmp_path: Path) -> None:
    from jobs.settings import InvalidSettings, load

    assert load().read_timeout_seconds == 20
    with pytest.raises(InvalidSettings, match="TRAIND_READ_TIMEOUT_SECONDS"):
        load(read_timeout_seconds=0)
