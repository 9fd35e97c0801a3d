"""Who did what: the key's id in the log, in events and in what was made, and never the key."""

from __future__ import annotations

from typing import Any

from sqlalchemy import null, select, update

from jobs.tables import api_key, job
from tests.api.process import ApiProcess
from tests.api.project import Project


def key_id(project: Project) -> int:
    with project.engine.connect() as conn:
        return conn.execute(select(api_key.c.id).where(api_key.c.project_id == project.id)).scalar_one()


def told(project: Project, links: dict[str, Any]) -> list[tuple[str, int | None]]:
    events = project.http.get(links["events"]).json()["events"]
    return [(event["kind"], event["data"].get("key_id")) for event in events]


def test_a_job_and_what_was_asked_of_it_name_the_key(project: Project) -> None:
    mine = key_id(project)
    made = project.submit()
    assert made["created_by"] == {"key_id": mine, "name": "test"}
    assert project.http.get("/v1/jobs").json()["jobs"][0]["created_by"] == made["created_by"]
    for verb in ("pause", "resume", "cancel", "retry"):
        assert project.http.post(made["links"][verb]).status_code == 200
    lease = project.start()
    first, _ = (project.checkpoint(lease, step=step) for step in (1, 2))
    assert project.http.delete(f"/v1/checkpoints/{first}").status_code == 204
    assert project.http.post(made["links"]["pause"]).status_code == 202
    of_the_worker = {"started", "checkpoint"}
    asked = [*("submitted", "paused", "resumed", "cancelled", "retried"), "checkpoint-deleted", "pause-requested"]
    found = told(project, made["links"])
    assert [pair for pair in found if pair[0] not in of_the_worker] == [(kind, mine) for kind in asked]
    assert {by for kind, by in found if kind in of_the_worker} == {None}


def test_a_check_names_the_key(project: Project) -> None:
    check = project.http.post(project.submit()["links"]["audit"]).json()
    assert check["created_by"] == {"key_id": key_id(project), "name": "test"}


def test_a_job_of_an_earlier_release_has_nobody(project: Project) -> None:
    made = project.submit()
    with project.engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == made["id"]).values(created_by=null()))
    assert project.http.get(made["links"]["self"]).json()["created_by"] is None


def test_the_log_names_the_key_and_what_was_made(api: ApiProcess, project: Project) -> None:
    mine = key_id(project)
    made = project.http.post("/v1/jobs", json=project.spec(), headers={"X-Request-Id": "made-by-me"}).json()
    (entry,) = api.logged("made-by-me")
    assert (entry["key_id"], entry["job_id"], entry["created"]) == (mine, made["id"], True)
    check = project.http.post(made["links"]["audit"], headers={"X-Request-Id": "check-by-me"}).json()
    (entry,) = api.logged("check-by-me")
    assert (entry["key_id"], entry["check_id"]) == (mine, check["id"])
    reader = project.key("read")
    headers = {"X-Request-Id": "refused-to-me", "Authorization": f"Bearer {reader}"}
    assert project.http.post(made["links"]["cancel"], headers=headers).status_code == 403
    (entry,) = api.logged("refused-to-me")
    assert entry["key_id"] > mine
    assert reader not in api.log.read_text()
