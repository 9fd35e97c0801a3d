"""Every code the service can answer, provoked over HTTP; a new code needs a line here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.app import create_app
from api.errors import KINDS, MEDIA_TYPE
from jobs import keys
from jobs.lifecycle.work import crash, note_no_room
from jobs.settings import Settings
from tests.api.project import SPEC, Project
from tests.jobs.scenario import ERROR, add_job, only_reads, start

NO_JOB = "/v1/jobs/00000000-0000-0000-0000-000000000000"
Answer = tuple[int, str, dict[str, Any]]


def answered(response: httpx2.Response) -> Answer:
    return response.status_code, response.headers["Content-Type"], response.json()


def conflict(p: Project) -> httpx2.Response:
    p.http.post("/v1/jobs", json=p.spec(), headers={"Idempotency-Key": "k"})
    return p.http.post("/v1/jobs", json=p.spec(name="x"), headers={"Idempotency-Key": "k"})


def ended(p: Project) -> httpx2.Response:
    from jobs.lifecycle.work import finish
    from jobs.states import State

    job, lease = p.submit(), p.start()
    with p.engine.begin() as conn:
        finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)
    return p.http.post(job["links"]["cancel"])


def goes_on_from_it(p: Project) -> httpx2.Response:
    p.submit()
    return p.http.delete(f"/v1/checkpoints/{p.checkpoint(p.start(), step=1)}")


def too_large(p: Project) -> httpx2.Response:
    """70,000 parameters x 60,000 samples: 240 steps and no more."""
    data = {"dataset": {"name": "synthetic_classification", "n_samples": 75_000, "n_features": 512}}
    size = {"model": {"name": "mlp", "hidden": [128]}, "training": {"batch_size": "full", "steps": 1_000}}
    return p.http.post(p.submit(**data, **size)["links"]["audit"], params={"steps": 1_000})


def content(p: Project, *, complete: bool, **headers: str) -> httpx2.Response:
    p.submit()
    lease = p.start()
    ident = p.checkpoint(lease, step=1) if complete else p.begin_checkpoint(lease, step=1, model=b"m", state=b"s").id
    return p.http.get(f"/v1/checkpoints/{ident}/content", headers=headers)


def bearer(p: Project, key: str) -> httpx2.Response:
    return p.http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})


PROVOKED: dict[str, Callable[[Project], httpx2.Response]] = {
    "malformed-json": lambda p: p.http.post("/v1/jobs", content="{", headers={"Content-Type": "application/json"}),
    "unauthenticated": lambda p: p.http.get("/v1/jobs", headers={"Authorization": "Basic x"}),
    "invalid-key": lambda p: bearer(p, "td_x"),
    "insufficient-scope": lambda p: p.http.post(
        "/v1/jobs", json=SPEC, headers={"Authorization": f"Bearer {p.key('read')}"}
    ),
    "not-found": lambda p: p.http.get(NO_JOB),
    "metric-not-found": lambda p: p.http.get(p.submit()["links"]["metrics"], params={"key": "x"}),
    "method-not-allowed": lambda p: p.http.delete("/v1/jobs"),
    "state-conflict": ended,
    "in-use": goes_on_from_it,
    "checkpoint-incomplete": lambda p: content(p, complete=False),
    "body-too-large": lambda p: p.http.post("/v1/jobs", json=SPEC | {"name": "x" * 1_048_576}),
    "unsupported-media-type": lambda p: p.http.post("/v1/jobs", content="{}"),
    "range-not-satisfiable": lambda p: content(p, complete=True, Range="bytes=99-"),
    "audit-too-large": too_large,
    "bad-cursor": lambda p: p.http.get("/v1/jobs?cursor=x"),
    "idempotency-conflict": conflict,
    "invalid-parameter": lambda p: p.http.get("/v1/jobs?limit=0"),
    "invalid-spec": lambda p: p.http.post("/v1/jobs", json={}),
}
ELSEWHERE = {
    "malformed-request",
    "request-timeout",
    "head-too-large",
    "incomplete-body",
    "internal",
    "not-ready",
    "database-unavailable",
}


@pytest.mark.parametrize("code", PROVOKED)
def test_a_code_and_its_status(project: Project, code: str) -> None:
    status, media_type, problem = answered(PROVOKED[code](project))
    assert (status, media_type, problem["code"]) == (KINDS[code].status, MEDIA_TYPE, code)
    assert (problem["title"], problem["status"]) == (KINDS[code].title, status)


def test_no_code_is_left_out() -> None:
    assert PROVOKED.keys() | ELSEWHERE == KINDS.keys()
    assert not PROVOKED.keys() & ELSEWHERE


def test_a_defect_is_500_without_its_inside(own_app: TestClient, database_url: str) -> None:
    service = own_app.app.state.service  # type: ignore[attr-defined]
    with service.engine.begin() as conn:
        key = keys.create(conn, 1, name="t", scopes=["read"])
        conn.execute(text("ALTER TABLE job RENAME TO lost"))
    answer = own_app.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "job" not in answer.json()["detail"].split()
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("lack", ["ALTER TABLE api_key RENAME TO lost", "ALTER TABLE job DROP COLUMN created_by"])
def test_an_api_newer_than_its_database_says_so(own_app: TestClient, method: str, lack: str) -> None:
    with own_app.app.state.service.engine.begin() as conn:  # type: ignore[attr-defined]
        key = keys.create(conn, 1, name="t", scopes=["write"])
        conn.execute(text("UPDATE alembic_version SET version_num = '0001_first'"))
        conn.execute(text(lack))
    answer = own_app.request(method, "/v1/jobs", json=SPEC, headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")
    assert "run `traind db upgrade`" in answer.json()["detail"]


def test_a_database_that_is_not_migrated_is_not_ready(own_app: TestClient) -> None:
    with own_app.app.state.service.engine.begin() as conn:  # type: ignore[attr-defined]
        conn.execute(text("UPDATE alembic_version SET version_num = 'elsewhere'"))
    answer = own_app.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")
    assert "elsewhere" in answer.json()["detail"]


def test_a_database_that_only_reads_is_away_until_it_writes_again(own_app: TestClient) -> None:
    """As a primary that was demoted: its sessions live on, and are of no use."""
    engine = own_app.app.state.service.engine
    with engine.begin() as conn:
        key = keys.create(conn, 1, name="t", scopes=["write"])
    headers = {"Authorization": f"Bearer {key}"}
    only_reads(engine, "on")
    answer = own_app.post("/v1/jobs", json=SPEC, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
    answer = own_app.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")
    only_reads(engine, "off")
    assert own_app.post("/v1/jobs", json=SPEC, headers=headers).status_code == 202


def test_a_body_that_breaks_off_is_no_defect(own_app: TestClient) -> None:
    service = own_app.app.state.service  # type: ignore[attr-defined]
    with service.engine.begin() as conn:
        key = keys.create(conn, 1, name="t", scopes=["write"])
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/jobs",
        "raw_path": b"/v1/jobs",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("x", 80),
        "client": ("y", 1),
    }
    sent: list[dict[str, Any]] = []
    incoming = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(own_app.app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["code"] == "incomplete-body"


def test_a_database_that_is_away_is_503_and_found_again(own_app: TestClient, database_url: str, servers: Any) -> None:
    import psycopg
    from sqlalchemy.engine import make_url

    with own_app.app.state.service.engine.begin() as conn:  # type: ignore[attr-defined]
        key = keys.create(conn, 1, name="t", scopes=["read"])
    name = make_url(database_url).database
    headers = {"Authorization": f"Bearer {key}"}
    assert own_app.get("/v1/jobs", headers=headers).status_code == 200
    with psycopg.connect(servers.postgres, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        for path in ("/v1/jobs", "/readyz"):
            answer = own_app.get(path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
            assert answer.headers["Retry-After"] == "1"
        assert own_app.get("/livez").status_code == 200
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert own_app.get("/v1/jobs", headers=headers).status_code == 200
    assert own_app.get("/readyz").status_code == 200


def test_without_redis_the_service_is_degraded_and_takes_jobs(database_url: str) -> None:
    settings = Settings(database_url=database_url, redis_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as client:
        with client.app.state.service.engine.begin() as conn:  # type: ignore[attr-defined]
            key = keys.create(conn, 1, name="t", scopes=["write"])
        assert client.get("/readyz").json() == {"status": "degraded", "degraded": ["redis"]}
        answer = client.post("/v1/jobs", json=SPEC, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 202


def test_without_room_for_checkpoints_the_service_is_degraded_and_takes_jobs(database_url: str, redis_url: str) -> None:
    settings = Settings(database_url=database_url, redis_url=redis_url, min_free_disk_bytes=2**60)  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as client:
        with client.app.state.service.engine.begin() as conn:  # type: ignore[attr-defined]
            key = keys.create(conn, 1, name="t", scopes=["write"])
        assert client.get("/readyz").json() == {"status": "degraded", "degraded": ["storage"]}
        answer = client.post("/v1/jobs", json=SPEC, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 202


def test_a_running_job_without_room_for_its_checkpoints_degrades_the_service(own_app: TestClient) -> None:
    """The disk has room, but not for so large a checkpoint."""
    engine = own_app.app.state.service.engine  # type: ignore[attr-defined]
    add_job(engine, 1)
    lease = start(engine).lease
    assert own_app.get("/readyz").json()["degraded"] == []
    with engine.begin() as conn:
        note_no_room(conn, lease, step=5, kind="interval", reason="the disk has 9 bytes free")
    assert own_app.get("/readyz").json() == {"status": "degraded", "degraded": ["storage"]}
    with engine.begin() as conn:
        crash(conn, lease, error=ERROR, log=None)
    assert own_app.get("/readyz").json()["degraded"] == []
