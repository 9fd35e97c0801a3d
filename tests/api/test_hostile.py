"""Input that is meant to break the service: always a 4xx with a code, never a 500, and nothing is stored."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from api.errors import MEDIA_TYPE
from tests.api.process import ApiProcess
from tests.api.project import SPEC, Project

GOOD = json.dumps(SPEC)
LIMIT = 1_048_576
JSON = "application/json"


def with_field(name: str, value: str) -> str:
    """A good spec with one more field, whose value is any text."""
    return f'{GOOD[:-1]}, "{name}": {value}}}'


BODIES: dict[str, tuple[bytes | str, int, str]] = {
    "nothing": ("", 400, "malformed-json"),
    "half a document": ('{"dataset": {"name"', 400, "malformed-json"),
    "two documents": ("{}{}", 400, "malformed-json"),
    "trailing comma": ('{"name": "x",}', 400, "malformed-json"),
    "comment": ('{/* */"name": "x"}', 400, "malformed-json"),
    "single quotes": ("{'name': 'x'}", 400, "malformed-json"),
    "python": ("{'name': None}", 400, "malformed-json"),
    "NaN": (with_field("x", "NaN"), 400, "malformed-json"),
    "Infinity": (with_field("x", "-Infinity"), 400, "malformed-json"),
    "invalid UTF-8": (b'{"name": "\xff\xfe"}', 400, "malformed-json"),
    "UTF-16": (GOOD.encode("utf-16"), 400, "malformed-json"),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD.encode(), 400, "malformed-json"),
    "encoded surrogate": (b'{"name": "\xed\xa0\x80"}', 400, "malformed-json"),
    "lone surrogate": (with_field("name", '"\\ud800"'), 400, "malformed-json"),
    "lone surrogate in a name": (with_field("\\udfff", "1"), 400, "malformed-json"),
    "raw NUL": (b'{"name": "a\x00b"}', 400, "malformed-json"),
    "a name twice": (with_field("model", '{"name": "linear"}'), 400, "malformed-json"),
    "deep lists": ("[" * 100_000, 400, "malformed-json"),
    "deep lists, closed": ("[" * 5_000 + "]" * 5_000, 400, "malformed-json"),
    "deep objects": ('{"a":' * 100_000, 400, "malformed-json"),
    "deep field": (with_field("x", "[" * 150 + "]" * 150), 422, "invalid-spec"),
    "integer of 5,000 digits": (with_field("x", "9" * 5_000), 400, "malformed-json"),
    "integer of 4,000 digits": (with_field("x", "9" * 4_000), 422, "invalid-spec"),
    "a million commas": ("[" + "0," * 500_000 + "0]", 400, "malformed-json"),
    "null": ("null", 422, "invalid-spec"),
    "number": ("1e999", 422, "invalid-spec"),
    "list": ("[1, 2]", 422, "invalid-spec"),
    "text": ('"x"', 422, "invalid-spec"),
    "NUL in the name": (with_field("name", '"a\\u0000b"'), 422, "invalid-spec"),
    "NUL in a label": (with_field("labels", '{"a": "\\u0000"}'), 422, "invalid-spec"),
    "NUL in a field's name": (with_field("\\u0000", "1"), 422, "invalid-spec"),
    "line end in the name": (with_field("name", '"a\\n"'), 422, "invalid-spec"),
    "name as a list": (with_field("name", "[]"), 422, "invalid-spec"),
    "name of a megabyte": (with_field("name", f'"{"x" * 1_000_000}"'), 422, "invalid-spec"),
    "field's name of a megabyte": (with_field("x" * 1_000_000, "1"), 422, "invalid-spec"),
    "huge seed": (with_field("training", f'{{"seed": {"9" * 400}}}'), 422, "invalid-spec"),
    "negative seed": (with_field("training", '{"seed": -1}'), 422, "invalid-spec"),
    "overflowing float": (with_field("training", '{"grad_clip_norm": 1e999}'), 422, "invalid-spec"),
    "huge integer for a float": (with_field("training", f'{{"grad_clip_norm": {"9" * 400}}}'), 422, "invalid-spec"),
    "true for a number": (with_field("training", '{"steps": true}'), 422, "invalid-spec"),
    "text for a number": (with_field("training", '{"steps": "1"}'), 422, "invalid-spec"),
    "choice is an object": (GOOD.replace('"mlp"', "{}"), 422, "invalid-spec"),
    "choice is a list": (GOOD.replace('"mlp"', '["mlp"]'), 422, "invalid-spec"),
    "choice is null": (GOOD.replace('{"name": "mlp"}', "null"), 422, "invalid-spec"),
    "choice of a megabyte": (GOOD.replace('"mlp"', f'"{"x" * 1_000_000}"'), 422, "invalid-spec"),
    "too many labels": (with_field("labels", json.dumps({f"l{i}": "" for i in range(65)})), 422, "invalid-spec"),
    "queue as a path": (with_field("resources", '{"queue": "../x"}'), 422, "invalid-spec"),
    "a body over the limit": (" " * LIMIT + GOOD, 413, "body-too-large"),
}


@pytest.mark.parametrize(("body", "status", "code"), BODIES.values(), ids=BODIES.keys())
def test_bodies(http: httpx2.Client, body: bytes | str, status: int, code: str) -> None:
    answer = http.post("/v1/jobs", content=body, headers={"Content-Type": JSON})
    _refused(answer, status, code)
    assert len(answer.content) < 20_000, "the answer must not echo a large body"
    assert http.get("/v1/jobs").json()["jobs"] == []


def test_a_spec_at_the_limit_is_read(project: Project) -> None:
    spec = json.dumps(project.spec())
    body = spec + " " * (LIMIT - len(spec))
    assert project.http.post("/v1/jobs", content=body, headers={"Content-Type": JSON}).status_code == 202
    _refused(project.http.post("/v1/jobs", content=body + " ", headers={"Content-Type": JSON}), 413, "body-too-large")


def test_a_chunked_body_over_the_limit(http: httpx2.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    answer = http.post("/v1/jobs", content=chunks(), headers={"Content-Type": JSON})
    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    _refused(answer, 413, "body-too-large")
    assert answer.json()["max_body_bytes"] == LIMIT


def test_a_body_that_is_announced_too_large_is_not_waited_for(api: ApiProcess, http: httpx2.Client) -> None:
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: {http.headers['Authorization']}\r\n"
    with _connect(api) as connection:
        connection.sendall(f"{head}Content-Type: {JSON}\r\nContent-Length: {10**12}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/merge-patch+json"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_another_content_type(http: httpx2.Client, headers: dict[str, str]) -> None:
    _refused(http.post("/v1/jobs", content=GOOD.encode(), headers=headers), 415, "unsupported-media-type")


def test_the_content_type_may_have_parameters_and_any_case(project: Project) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert project.http.post("/v1/jobs", content=json.dumps(project.spec()), headers=headers).status_code == 202


QUERIES: dict[str, tuple[str, str]] = {
    "unknown parameter": ("/v1/jobs?limt=5", "limt"),
    "limit of zero": ("/v1/jobs?limit=0", "limit"),
    "limit too large": ("/v1/jobs?limit=201", "limit"),
    "limit not a number": ("/v1/jobs?limit=ten", "limit"),
    "limit huge": (f"/v1/jobs?limit={'9' * 5_000}", "limit"),
    "unknown state": ("/v1/jobs?state=lost", "state"),
    "NUL as state": ("/v1/jobs?state=%00", "state"),
    "NUL in a label": ("/v1/jobs?label=a:%00", "label"),
    "empty label": ("/v1/jobs?label=", "label"),
    "long label": (f"/v1/jobs?label={'x' * 300}", "label"),
    "label with two values": ("/v1/jobs?label=a:1&label=a:2", "label"),
    "many labels": ("/v1/jobs?" + "&".join(f"label=l{i}" for i in range(21)), "label"),
    "long optimizer": (f"/v1/jobs?optimizer={'x' * 101}", "optimizer"),
    "long cursor": (f"/v1/jobs?cursor={'x' * 501}", "cursor"),
    "negative event": ("/v1/jobs/{job}/events?after=-1", "after"),
    "event beyond the database": (f"/v1/jobs/{{job}}/events?after={2**63}", "after"),
    "metric key with NUL": ("/v1/jobs/{job}/metrics?key=%00", "key"),
    "metric key in upper case": ("/v1/jobs/{job}/metrics?key=Loss", "key"),
    "step beyond the codec": (f"/v1/jobs/{{job}}/metrics?step_from={2**53 + 1}", "step_from"),
    "negative step": ("/v1/jobs/{job}/metrics?step_to=-1", "step_to"),
    "steps the wrong way round": ("/v1/jobs/{job}/metrics?step_from=2&step_to=1", "step_to"),
    "no points": ("/v1/jobs/{job}/metrics?max_points=0", "max_points"),
    "too many points": ("/v1/jobs/{job}/metrics?max_points=10001", "max_points"),
    "unknown attempts": ("/v1/jobs/{job}/metrics?attempts=some", "attempts"),
    "unknown part": ("/v1/checkpoints/1/content?part=optimizer", "part"),
}


@pytest.mark.parametrize(("path", "parameter"), QUERIES.values(), ids=QUERIES.keys())
def test_queries(project: Project, path: str, parameter: str) -> None:
    answer = project.http.get(path.replace("{job}", project.submit()["id"]))
    _refused(answer, 422, "invalid-parameter")
    assert parameter in [error["parameter"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("cursor", ["x", "%00", "%F0%9F%98%80", "e30=", "WzEsMl0=", "bnVsbA==", "W1tbW1tb", "%80"])
def test_cursors(http: httpx2.Client, cursor: str) -> None:
    _refused(http.get(f"/v1/jobs?cursor={cursor}"), 422, "bad-cursor")


@pytest.mark.parametrize("optimizer", ["%00", "%80", "adamax", ""])
def test_an_unknown_optimizer_has_no_jobs(project: Project, optimizer: str) -> None:
    project.submit()
    assert project.http.get(f"/v1/jobs?optimizer={optimizer}").json()["jobs"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/jobs/",
        "/v1/jobs/%00",
        "/v1/jobs/1",
        "/v1/jobs/../../etc/passwd",
        "/v1/jobs/%2e%2e",
        "/v1/jobs/%80%81",
        "/v1/jobs/00000000-0000-0000-0000-000000000000",
        "/v1/jobs/00000000-0000-0000-0000-000000000000/events",
        "/v1/jobs/00000000-0000-0000-0000-000000000000/attempts",
        "/v1/jobs/00000000-0000-0000-0000-000000000000/metrics",
        "/v1/jobs/00000000-0000-0000-0000-000000000000/checkpoints",
        "/v1/jobs/" + "x" * 20_000,
        "/v1/checkpoints/0",
        "/v1/checkpoints/-1",
        "/v1/checkpoints/x",
        f"/v1/checkpoints/{2**63 - 1}",
        f"/v1/checkpoints/{2**63}",
        f"/v1/checkpoints/{2**63 - 1}/content",
        f"/v1/checkpoints/{'9' * 5_000}",
        "/docs",
        "/redoc",
    ],
)
def test_paths(http: httpx2.Client, path: str) -> None:
    answer = http.get(path)
    _refused(answer, 404, "not-found")
    assert len(answer.content) < 2_000


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_methods(http: httpx2.Client, method: str) -> None:
    answer = http.request(method, "/v1/jobs")
    _refused(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "GET, POST"


def test_a_client_that_leaves_in_the_middle_of_its_body_changes_nothing(api: ApiProcess, project: Project) -> None:
    key = project.http.headers["Authorization"]
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nContent-Type: {JSON}\r\nX-Request-Id: left\r\n"
    )
    with _connect(api) as connection:
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
    assert project.http.get("/v1/jobs").json()["jobs"] == []
    assert not [entry for entry in api.logged("left") if entry["level"] == "error"]


def _connect(api: ApiProcess) -> socket.socket:
    address = urlsplit(api.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def _refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.headers["Content-Type"] == MEDIA_TYPE, answer.text[:500]
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem["detail"]
    assert problem["status"] == status
    assert problem["type"] == f"urn:traind:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-Id"]
