"""DELETE of jobs and checkpoints: what goes, what is refused, and that the bytes go too."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text

from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import finish, record_metrics
from jobs.metrics.compact import compact_due
from jobs.states import State
from tests.api.project import Project
from tests.jobs.scenario import segment

OWNED = {
    "job": "id = ANY(:jobs)",
    "attempt": "job_id = ANY(:jobs)",
    "event": "job_id = ANY(:jobs)",
    "metric_segment": "job_id = ANY(:jobs)",
    "metric_block": "job_id = ANY(:jobs)",
    "checkpoint": "job_id = ANY(:jobs)",
    "check_run": "id = ANY(:jobs)",
    "blob": "id = ANY(:blobs)",
    "blob_chunk": "blob_id = ANY(:blobs)",
}
"""Which rows of a table are a job's or its checks'."""


def ended(project: Project) -> dict[str, Any]:
    """A job with points, of which some are compacted, two checkpoints and a check that was cancelled."""
    job, lease = project.submit(), project.start()
    job["checkpoints"] = [project.checkpoint(lease, step=step) for step in (5, 9)]
    with project.engine.begin() as conn:
        record_metrics(conn, lease, seq=0, segment=segment(1, 30), summary={"last": {"train/loss": 0.5}})
    _finish(project, lease)
    compact_due(project.engine, limit=10)
    job["check"] = project.http.post(f"/v1/checkpoints/{job['checkpoints'][0]}/verify").json()
    assert project.http.post(job["check"]["links"]["cancel"]).status_code == 200
    return job


def _finish(project: Project, lease: Lease) -> None:
    with project.engine.begin() as conn:
        finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)


def counts(project: Project, **ids: list[Any]) -> dict[str, int]:
    """How many rows each table has of these `jobs` and `blobs`; other tests' come and go in the same tables."""
    with project.engine.connect() as conn:
        return {
            name: conn.execute(text(f"SELECT count(*) FROM {name} WHERE {which}"), ids).scalar_one()
            for name, which in OWNED.items()
        }


def blobs(project: Project, job: dict[str, Any]) -> list[int]:
    query = text("SELECT unnest(ARRAY[model_blob_id, state_blob_id]) FROM checkpoint WHERE job_id = :job")
    with project.engine.connect() as conn:
        return list(conn.execute(query, {"job": UUID(job["id"])}).scalars())


def refused(answer: httpx2.Response, code: str, words: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert words in answer.json()["detail"]


def test_a_job_goes_with_all_that_it_owns(project: Project) -> None:
    job = ended(project)
    ids = {"jobs": [UUID(job["id"]), UUID(job["check"]["id"])], "blobs": blobs(project, job)}
    before = counts(project, **ids)
    assert {name for name, n in before.items() if n == 0} <= {"metric_segment"}
    assert (before["job"], before["checkpoint"], before["blob"], before["blob_chunk"]) == (2, 2, 4, 4)
    answer = project.http.delete(job["links"]["self"])
    assert (answer.status_code, answer.content) == (204, b"")
    until = time.monotonic() + 20
    while any(counts(project, **ids).values()) and time.monotonic() < until:
        time.sleep(0.05)
    assert counts(project, **ids) == dict.fromkeys(OWNED, 0)
    assert project.http.get(job["links"]["self"]).status_code == 404
    assert project.http.delete(job["links"]["self"]).status_code == 404


def test_other_jobs_stay(project: Project) -> None:
    job, other = ended(project), project.submit()
    assert project.http.delete(job["links"]["self"]).status_code == 204
    assert [each["id"] for each in project.http.get("/v1/jobs").json()["jobs"]] == [other["id"]]


def test_a_key_of_a_deleted_job_makes_a_new_one(project: Project) -> None:
    headers = {"Idempotency-Key": "once"}
    first = project.http.post("/v1/jobs", json=project.spec(), headers=headers).json()
    project.http.post(first["links"]["cancel"])
    assert project.http.delete(first["links"]["self"]).status_code == 204
    again = project.http.post("/v1/jobs", json=project.spec(), headers=headers)
    assert (again.status_code, again.json()["id"] != first["id"]) == (202, True)


def test_a_job_that_has_not_ended_is_refused_with_the_remedy(project: Project) -> None:
    job = project.submit()
    refused(project.http.delete(job["links"]["self"]), "state-conflict", "queued; possible now: cancel")
    project.start()
    refused(project.http.delete(job["links"]["self"]), "state-conflict", "running; possible now: cancel")
    project.http.post(job["links"]["cancel"])
    refused(project.http.delete(job["links"]["self"]), "state-conflict", "cancelling")


def test_a_check_that_has_not_ended_keeps_job_and_checkpoints(project: Project) -> None:
    job = ended(project)
    check = project.http.post(f"/v1/checkpoints/{job['checkpoints'][1]}/verify").json()
    refused(project.http.delete(job["links"]["self"]), "in-use", check["id"])
    for ident in job["checkpoints"]:
        refused(project.http.delete(f"/v1/checkpoints/{ident}"), "in-use", "cancel the check")
    project.http.post(check["links"]["cancel"])
    assert project.http.delete(f"/v1/checkpoints/{job['checkpoints'][1]}").status_code == 204
    assert project.http.get(job["links"]["self"]).json()["progress"]["saved_step"] == 5
    assert project.http.delete(job["links"]["self"]).status_code == 204


def test_a_check_is_not_a_job(project: Project) -> None:
    job = ended(project)
    check = project.http.post(f"/v1/checkpoints/{job['checkpoints'][1]}/verify").json()
    assert project.http.delete(f"/v1/jobs/{check['id']}").status_code == 404


def test_what_a_job_goes_on_from_stays_and_what_was_before_goes(project: Project) -> None:
    job, lease = project.submit(), project.start()
    first, second = (project.checkpoint(lease, step=step) for step in (5, 9))
    open_one = project.begin_checkpoint(lease, step=12, model=b"m", state=b"s").id
    refused(project.http.delete(f"/v1/checkpoints/{second}"), "in-use", "goes on from")
    refused(project.http.delete(f"/v1/checkpoints/{open_one}"), "in-use", "still being written")
    assert project.http.delete(f"/v1/checkpoints/{first}").status_code == 204
    gone = project.http.get(f"/v1/checkpoints/{first}")
    assert gone.status_code == 404
    assert "may have been removed" in gone.json()["detail"]
    assert "checkpoints.keep_last" in gone.json()["detail"]
    events = project.http.get(job["links"]["events"]).json()["events"]
    assert events[-1]["kind"] == "checkpoint-deleted"
    assert {name: events[-1]["data"][name] for name in ("checkpoint", "step")} == {"checkpoint": first, "step": 5}


@pytest.mark.parametrize("path", ["/v1/checkpoints/0", "/v1/checkpoints/x", "/v1/jobs/x", f"/v1/checkpoints/{2**63}"])
def test_odd_ids(project: Project, path: str) -> None:
    assert project.http.delete(path).status_code in (404, 422)


def test_a_reader_may_not_and_input_is_refused(project: Project, anonymous: httpx2.Client) -> None:
    job = ended(project)
    headers = {"Authorization": f"Bearer {project.key('read')}"}
    for path in (job["links"]["self"], f"/v1/checkpoints/{job['checkpoints'][0]}"):
        assert anonymous.delete(path, headers=headers).status_code == 403
        assert anonymous.delete(path).status_code == 401
        assert project.http.delete(path, params={"force": "true"}).status_code == 422
        assert project.http.request("DELETE", path, json={}).status_code == 422
        assert project.http.get(path).status_code == 200
