"""`python -m api` as a process: how it starts, what it logs, how it stops."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine

from api.health import address
from tests.api.process import ApiProcess, environment, serve
from tests.api.project import Project, new_project
from tests.conftest import Servers

CONTENT = random.Random(1).randbytes(12_000_000)
WELL_FORMED_KEY = {"Authorization": "Bearer td_0000000000000000000000000000000zL9YI"}
NOWHERE = {"database_url": "postgresql://user:hunter2@127.0.0.1:1/x", "redis_url": "redis://:hunter2@127.0.0.1:1/0"}


def test_a_stop_lets_running_downloads_end(servers: Servers, database_url: str, engine: Engine, tmp_path: Path) -> None:
    with serve(database_url, servers.redis, log=tmp_path / "log") as api, new_project(engine, api.url) as project:
        project.submit()
        path = f"/v1/checkpoints/{project.checkpoint(project.start(), step=1, model=CONTENT)}/content"
        with project.http.stream("GET", path) as answer:
            parts = answer.iter_raw(100_000)
            received = next(parts)
            api.process.terminate()
            received += b"".join(parts)
        assert received == CONTENT
        assert api.process.wait(timeout=20) == 0


def test_the_log_has_a_line_per_request_and_no_secrets(api: ApiProcess, anonymous: httpx2.Client) -> None:
    key = "td_0123456789abcdefghijABCDEFGHIJ012345"
    headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "the-one", "Cookie": "session=hunter2"}
    anonymous.get("/v1/jobs?cursor=hunter2", headers=headers)
    (entry,) = api.logged("the-one")
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/v1/jobs", 401)
    assert entry["ms"] >= 0
    text = api.log.read_text()
    assert key not in text
    assert "hunter2" not in text


def test_a_poll_that_finds_nothing_new_leaves_no_line(api: ApiProcess, project: Project) -> None:
    path = project.submit()["links"]["self"]
    known = {"If-None-Match": project.http.get(path).headers["ETag"], "X-Request-Id": "poll-of-nothing-new"}
    assert project.http.get(path, headers=known).status_code == 304
    assert project.http.get(path, headers={"X-Request-Id": "poll-of-something"}).status_code == 200
    (entry,) = api.logged("poll-of-something")
    assert (entry["path"], entry["status"]) == (path, 200)
    assert "poll-of-nothing-new" not in api.log.read_text()


def test_it_chooses_a_free_port_and_reports_while_the_database_is_away() -> None:
    command = [sys.executable, "-m", "api", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, env=environment(**NOWHERE), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = json.loads(process.stderr.readline())["address"]
        with httpx2.Client(base_url=url, trust_env=False, verify=False, timeout=60) as http:
            assert http.get("/livez").json() == {"status": "ok"}
            assert (http.head("/livez").status_code, http.head("/readyz").status_code) == (200, 503)
            assert http.get("/").json()["name"] == "traind"
            assert http.get(http.get("/").json()["openapi"]).status_code == 200
            assert http.get("/readyz").json()["code"] == "database-unavailable"
            assert http.get("/v1/jobs", headers=WELL_FORMED_KEY).json()["code"] == "database-unavailable"
            assert http.get("/openapi.json").status_code == 200
    finally:
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "hunter2" not in log


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "TRAIND_DATABASE_URL"),
        (NOWHERE | {"max_body_bytes": "none"}, "TRAIND_MAX_BODY_BYTES"),
        (NOWHERE | {"redis_url": "amqp://:hunter2@h"}, "TRAIND_REDIS_URL"),
        (NOWHERE | {"redis_url": "redis://:hun#ter2@h"}, "TRAIND_REDIS_URL"),
        (NOWHERE | {"database_url": "postgresql://me:hunter2@h/d?pgbouncer=true"}, "TRAIND_DATABASE_URL"),
    ],
)
def test_settings_that_cannot_be_used_are_told_in_one_message(settings: dict[str, str], said: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "api"], check=False, env=environment(**settings), capture_output=True, text=True
    )
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert "ter2" not in found.stderr
    assert len(found.stderr.splitlines()) == 1


def started(host: str, port: int) -> None:
    """Returns when the api answers, which may take longer on a busy machine than a health check waits."""
    assert httpx2.get(f"{address(host, port)}/livez", trust_env=False, timeout=60).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1"])
def test_health_asks_the_address_and_no_proxy(host: str) -> None:
    """The api's databases are not there, so a health check that reached it says so."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        command = [sys.executable, "-m", "api", "--fd", str(listener.fileno())]
        port = str(listener.getsockname()[1])
        with subprocess.Popen(command, env=environment(**NOWHERE), pass_fds=[listener.fileno()], stderr=-3) as process:
            started(host, int(port))
            asked = environment(host=host, port=port) | {"http_proxy": "http://127.0.0.1:1", "NO_PROXY": ""}
            found = subprocess.run(
                [sys.executable, "-m", "api.health"], check=False, env=asked, capture_output=True, text=True
            )
            process.terminate()
    assert found.returncode == 1
    assert "database-unavailable" in found.stderr


def test_an_address_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "api", "--port", str(taken.getsockname()[1])]
        found = subprocess.run(command, check=False, env=environment(**NOWHERE), capture_output=True, text=True)
    assert found.returncode == 1
    assert "in use" in found.stderr
    assert "Traceback" not in found.stderr
