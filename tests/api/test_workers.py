"""GET /v1/workers: everybody's workers, one's own jobs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import func, select, update

from jobs.lifecycle.workers import see_worker, stop_worker
from jobs.tables import job, worker
from tests.api.project import Project


def holder(project: Project, job_id: str) -> UUID:
    with project.engine.connect() as conn:
        return conn.execute(select(job.c.worker_id).where(job.c.id == job_id)).scalar_one()


def listed(http: httpx2.Client, ident: UUID, **params: Any) -> dict[str, Any] | None:
    answer = http.get("/v1/workers", params=params)
    assert answer.status_code == 200, answer.text
    return next((dict(w) for w in answer.json()["workers"] if w["id"] == str(ident)), None)


def test_my_job_is_shown_with_its_worker(project: Project) -> None:
    submitted = project.submit(name="mine")
    project.start()
    ident = holder(project, submitted["id"])
    found = listed(project.http, ident)
    assert found is not None
    assert (found["state"], found["device"], found["queues"], found["busy"]) == ("live", "cpu", ["default"], 1)
    assert found["memory_bytes"] is None
    with project.engine.begin() as conn:
        conn.execute(update(worker).where(worker.c.id == ident).values(memory_bytes=8 * 10**9))
        see_worker(conn, ident, lacks={"fashion_mnist": "its files are nowhere"})
    again = listed(project.http, ident) or {}
    assert (found["lacks"], again["lacks"]) == ({}, {"fashion_mnist": "its files are nowhere"})
    assert again["memory_bytes"] == 8 * 10**9
    (held,) = found["jobs"]
    assert (held["id"], held["name"], held["attempt"], held["step"]) == (submitted["id"], "mine", 1, 0)
    assert held["link"] == submitted["links"]["self"]
    assert 50 < held["lease_left_seconds"] <= 60
    assert 0 <= found["seen_seconds"] < 60


def test_a_job_of_another_project_only_makes_its_worker_busy(project: Project, other: Project) -> None:
    submitted = other.submit(name="secret-name", labels={"secret": "label"})
    other.start()
    ident = holder(other, submitted["id"])
    found = listed(project.http, ident)
    assert found is not None
    assert (found["busy"], found["jobs"]) == (1, [])
    everything = project.http.get("/v1/workers?stopped=true").text
    assert submitted["id"] not in everything
    assert "secret" not in everything


def test_a_stopped_worker_is_shown_when_asked_for_and_a_lost_one_is_silent(project: Project) -> None:
    submitted = project.submit()
    project.start()
    ident = holder(project, submitted["id"])
    with project.engine.begin() as conn:
        past = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, 90)
        conn.execute(update(worker).where(worker.c.id == ident).values(last_seen_at=past))
    found = listed(project.http, ident)
    assert found is not None
    assert found["state"] == "silent"
    assert 90 <= found["seen_seconds"] < 150
    with project.engine.begin() as conn:
        stop_worker(conn, ident)
    assert listed(project.http, ident) is None
    found = listed(project.http, ident, stopped="true")
    assert found is not None
    assert found["state"] == "stopped"
    assert found["stopped_at"] is not None


def test_it_needs_a_key_that_may_read_and_sensible_parameters(project: Project, anonymous: httpx2.Client) -> None:
    assert anonymous.get("/v1/workers").status_code == 401
    writer = {"Authorization": f"Bearer {project.key('write')}"}
    assert anonymous.get("/v1/workers", headers=writer).status_code == 200
    for query in ("limit=0", "limit=1001", "stopped=perhaps", "all=true", "limit=%00"):
        answer = project.http.get(f"/v1/workers?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-parameter"), query
    assert project.http.post("/v1/workers").status_code == 405
