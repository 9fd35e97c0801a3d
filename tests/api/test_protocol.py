"""Connections of clients that are slow, send too much, or do not speak HTTP; and of those that may take their time."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine

from api.errors import KINDS, MEDIA_TYPE
from tests.api.process import ApiProcess, serve
from tests.api.project import Project, new_project
from tests.conftest import Servers

SECONDS = 2.0
"""The read timeout of the tests' api."""
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


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


def answered(connection: socket.socket, end: bytes) -> bytes:
    """What comes, up to `end`."""
    answer = b""
    while end not in answer:
        part = connection.recv(65_536)
        assert part, answer
        answer += part
    return answer


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
        GET + b"X-Endless: " + b"y" * 1_000_000,
        b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n",
    ],
    ids=["many", "long", "endless", "address"],
)
def test_a_head_that_is_too_large_is_431(strict: ApiProcess, head: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(head + b"\r\n")
        refused(rest(connection), "head-too-large")


def test_who_sends_too_slowly_is_cut_off(strict: ApiProcess, mine: Project) -> None:
    starts = {
        "nothing": b"",
        "head": GET,
        "after a request": GET + b"\r\n" + GET,
        "line ends": b"\r\n",
        "body": post(mine, 100) + b"{",
        "dripping head": GET + b"X: ",
        "dripping body": post(mine, 10_000) + b"{",
    }
    connections = {name: connect(strict) for name in starts}
    for name, start in starts.items():
        connections[name].sendall(start)
    began = time.monotonic()
    while time.monotonic() < began + 1.2 * SECONDS:
        time.sleep(SECONDS / 10)
        for name in ("dripping head", "dripping body"):
            with contextlib.suppress(ConnectionError):  # once it is cut off
                connections[name].sendall(b" ")
    answers = {name: rest(connection) for name, connection in connections.items()}
    for connection in connections.values():
        connection.close()
    assert time.monotonic() - began < 15 * SECONDS
    assert answers.pop("nothing") == b""
    first, _, second = answers.pop("after a request").partition(b'{"status":"ok"}')
    assert first.startswith(b"HTTP/1.1 200 ")
    for answer in (second, *answers.values()):
        refused(answer, "request-timeout")
    entry = strict.logged(refused(answers["body"], "request-timeout")["request_id"])[-1]
    assert (entry["path"], entry["status"]) == ("/v1/jobs", 408)
    assert mine.http.get("/v1/jobs").json()["jobs"] == []


def test_a_slow_but_steady_body_arrives(strict: ApiProcess, mine: Project) -> None:
    document = json.dumps(mine.spec()).encode()
    pieces = [b" " * 1_000] * 12 + [document]
    with connect(strict) as connection:
        connection.sendall(post(mine, sum(map(len, pieces))))
        for piece in pieces:
            time.sleep(SECONDS / 8)
            connection.sendall(piece)
        assert answered(connection, b"\r\n").startswith(b"HTTP/1.1 202 ")


def test_a_pause_between_requests_and_a_slow_download_are_fine(strict: ApiProcess, mine: Project) -> None:
    mine.submit()
    content = bytes(12_000_000)
    path = f"/v1/checkpoints/{mine.checkpoint(mine.start(), step=1, model=content)}/content"
    with connect(strict) as connection:
        for _ in range(2):
            connection.sendall(GET + b"\r\n")
            assert answered(connection, b'{"status":"ok"}').startswith(b"HTTP/1.1 200 ")
            time.sleep(1.2 * SECONDS)
    with mine.http.stream("GET", path) as answer:
        parts = answer.iter_raw(1_000_000)
        received = next(parts)
        time.sleep(1.5 * SECONDS)
        received += b"".join(parts)
    assert received == content


def test_requests_in_one_piece_are_all_answered(strict: ApiProcess) -> None:
    with connect(strict) as connection:
        connection.sendall((GET + b"\r\n") * 3 + GET + b"Connection: close\r\n\r\n")
        assert rest(connection).count(b"HTTP/1.1 200 ") == 4


def test_the_bound_is_a_setting(tmp_path: Path) -> None:
    from jobs.settings import InvalidSettings, load

    assert load().read_timeout_seconds == 20
    with pytest.raises(InvalidSettings, match="TRAIND_READ_TIMEOUT_SECONDS"):
        load(read_timeout_seconds=0)
