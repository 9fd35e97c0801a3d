"""After a commit nothing turns the answer into an error; what cannot be answered is not committed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from jobs import keys
from jobs.settings import Settings
from tests.api.project import SPEC, Project
from tests.jobs.scenario import events

QUICK_SECONDS = 10.0


def silent(connection: socket.socket) -> None:
    while connection.recv(1_000):
        pass


def hangs_up(_: socket.socket) -> None:
    """Close the connection without an answer."""


def no_redis(connection: socket.socket) -> None:
    connection.recv(1_000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    silent(connection)


def promises_too_much(connection: socket.socket) -> None:
    connection.recv(1_000)
    connection.sendall(b"$99999999999999\r\n")
    silent(connection)


@contextmanager
def listening(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            behave(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("behave", [silent, hangs_up, no_redis, promises_too_much], ids=lambda f: f.__name__)
def test_whatever_listens_at_redis_address_the_answer_comes_soon(
    behave: Callable[[socket.socket], None], database_url: str, engine: Engine, project_id: int
) -> None:
    with engine.begin() as conn:
        key = keys.create(conn, project_id, name="test", scopes=["write"])
    with listening(behave) as redis_url:
        settings = Settings(database_url=database_url, redis_url=redis_url)  # type: ignore[arg-type]
        with TestClient(create_app(settings), headers={"Authorization": f"Bearer {key}"}) as client:
            began = time.monotonic()
            submitted = client.post("/v1/jobs", json=SPEC)
            assert submitted.status_code == 202, submitted.text
            links = submitted.json()["links"]
            lease = Project(project_id, engine, client, "default").start()
            audit = client.post(links["audit"])
            assert audit.status_code == 202, audit.text
            assert client.post(audit.json()["links"]["cancel"]).json()["state"] == "cancelled"
            told = client.post(links["pause"])
            assert (told.status_code, told.json()["state"]) == (202, "pausing")
            assert time.monotonic() - began < QUICK_SECONDS
    assert events(engine, lease.job_id) == ["submitted", "started", "pause-requested"]


@pytest.mark.parametrize("verb", ["audit", "cancel"])
def test_a_check_that_cannot_be_shown_is_not_asked_for(
    verb: str, own_app: TestClient, engine: Engine, project_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as conn:
        key = keys.create(conn, project_id, name="test", scopes=["write"])
    own_app.headers["Authorization"] = f"Bearer {key}"
    job = own_app.post("/v1/jobs", json=SPEC).json()["links"]
    check = own_app.post(job["audit"]).json()["links"]
    before = own_app.get(job["checks"]).json()
    with monkeypatch.context() as patch:
        patch.setattr("api.endpoints.checks.check_view", lambda _: 1 / 0)
        answer = own_app.post(job["audit"] if verb == "audit" else check["cancel"])
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert own_app.get(job["checks"]).json() == before
