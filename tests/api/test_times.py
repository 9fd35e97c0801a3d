"""Every time in an answer is UTC and says so, whatever the time zones of the machine and of the database are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from jobs import keys
from tests.api.project import Project

TIMES = {"until", "created_at", "started_at", "finished_at", "updated_at", "ended_at", "completed_at", "last_seen_at"}


@contextmanager
def machine_in(zone: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        yield
    time.tzset()


def times(document: Any) -> Iterator[tuple[str, str]]:
    if isinstance(document, dict):
        yield from ((name, value) for name, value in document.items() if name in TIMES and value is not None)
    if isinstance(document, dict | list):
        for part in document.values() if isinstance(document, dict) else document:
            yield from times(part)


def test_all_times_are_utc(own_app: TestClient, engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        name = conn.execute(text("SELECT current_database()")).scalar_one()
        conn.execute(text(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'"))
        key = keys.create(conn, project_id, name="test", scopes=["write"])
    engine.dispose()
    own_app.headers["Authorization"] = f"Bearer {key}"
    project = Project(project_id, engine, own_app, "default")
    with machine_in("JST-9"):
        job = project.submit()["links"]
        links = own_app.get(f"/v1/checkpoints/{project.checkpoint(project.start(), step=1)}").json()["links"]
        check = own_app.post(links["verify"]).json()["links"]["self"]
        paths = [job["self"], job["events"], job["attempts"], job["checkpoints"], job["checks"], links["self"], check]
        found = [times(own_app.get(path).json()) for path in (*paths, "/v1/jobs", "/v1/workers")]
    seen = [pair for each in found for pair in each]
    assert {name for name, _ in seen} >= TIMES - {"until", "finished_at", "ended_at"}
    assert [pair for pair in seen if not pair[1].endswith("Z")] == []
