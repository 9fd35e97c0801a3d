"""Looking at jobs: one, the list, its filters and pages, the record, the attempts, and cancel."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
from sqlalchemy import Engine

from jobs.database import cluster_id
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import crash, finish, record_fingerprint, record_progress
from jobs.lifecycle.workers import register_worker, stop_worker
from jobs.notify import requests_channel
from jobs.states import State
from tests.api.project import Project
from tests.jobs.scenario import ERROR

pytestmark = pytest.mark.servers

NAN, INF = float("nan"), float("inf")


def progress(engine: Engine, lease: Lease, step: int, **summary: Any) -> None:
    with engine.begin() as conn:
        record_progress(conn, lease, phase="train", step=step, summary=summary)


def end(engine: Engine, lease: Lease, state: State, **more: Any) -> None:
    with engine.begin() as conn:
        finish(conn, lease, state=state, **({"error": None, "summary": {}, "log": None} | more))


def test_a_running_job_shows_how_far_it_is(project: Project) -> None:
    path = project.submit()["links"]["self"]
    lease = project.start()
    progress(project.engine, lease, 40, rate=80.0, eta_seconds=5.25)
    summary = {
        "last": {"train/loss": NAN, "lr": 0.1, "grad_norm": INF},
        "best": {"val/loss": {"value": 0.5, "step": 40}},
    }
    progress(project.engine, lease, 41, **summary)
    job = project.http.get(path).json()
    assert (job["state"], job["phase"], job["attempt"]) == ("running", "train", 1)
    assert job["progress"]["step"] == 41
    assert (job["progress"]["rate_steps_per_second"], job["progress"]["eta_seconds"]) == (80.0, 5.25)
    assert job["metrics"] == {
        "last": {"train/loss": None, "lr": 0.1, "grad_norm": None},
        "best": {"val/loss": {"value": 0.5, "step": 40}},
        "nonfinite": {"train/loss": "nan", "grad_norm": "inf"},
    }
    assert (job["started_at"] is not None, job["finished_at"]) == (True, None)


def test_the_epoch_is_the_step_s(project: Project) -> None:
    """Whatever was reported of the steps before."""
    path = project.submit()["links"]["self"]
    lease = project.start()
    assert project.http.get(path).json()["progress"]["epoch"] is None
    length = project.http.get(path).json()["resolved"]["steps_per_epoch"]
    for step, epoch in ((1, 1), (length, 1), (length + 1, 2), (7 * length, 7)):
        progress(project.engine, lease, step)
        assert project.http.get(path).json()["progress"]["epoch"] == epoch
    end(project.engine, lease, State.SUCCEEDED)
    assert project.http.get(path).json()["progress"]["epoch"] == 7


def test_a_diverged_job_says_why(project: Project) -> None:
    path = project.submit()["links"]["self"]
    error = {"code": "diverged", "message": "loss is NaN", "retryable": False, "step": 7, "value": NAN}
    lease = project.start()
    progress(project.engine, lease, 7, eta_seconds=5.0, rate=10.0)
    end(project.engine, lease, State.DIVERGED, error=error)
    job = project.http.get(path).json()
    assert job["state"] == "diverged"
    assert job["error"] == error | {"value": "NaN"}
    assert (job["phase"], job["progress"]["eta_seconds"]) == (None, None)
    assert job["finished_at"] is not None


def test_a_poll_of_an_unchanged_job_has_no_body(project: Project) -> None:
    path = project.submit()["links"]["self"]
    etag = project.http.get(path).headers["ETag"]
    for header in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = project.http.get(path, headers={"If-None-Match": header})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    project.start()
    changed = project.http.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] == f'"{changed.json()["version"]}"' != etag


def test_a_job_says_what_it_waits_for_and_a_poll_sees_it_change(project: Project) -> None:
    """Though its version does not grow."""
    job = project.submit(resources={"queue": project.queue, "device": "cuda"})
    path = job["links"]["self"]
    assert job["waiting_for"]["reason"] in ("worker", "queue")
    before = project.http.get(path)
    with project.engine.begin() as conn:
        worker_id = uuid4()
        register_worker(conn, worker_id=worker_id, name="w", device="cpu", queues=[project.queue], versions={})
    after = project.http.get(path, headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    message = f"no live worker of the queue {project.queue} has the device cuda"
    assert after.json()["waiting_for"] == {"reason": "device", "message": message, "until": None}
    assert after.json()["version"] == before.json()["version"]
    (listed,) = project.http.get("/v1/jobs").json()["jobs"]
    assert listed["waiting_for"] == after.json()["waiting_for"]
    with project.engine.begin() as conn:
        stop_worker(conn, worker_id)


def test_pages_lead_through_all_jobs_newest_first(project: Project) -> None:
    ids = [project.submit()["id"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = project.http.get("/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [job["id"] for job in page["jobs"]]
        project.submit()  # a newer job moves no page
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_filters_are_joined(project: Project) -> None:
    plain = project.submit()
    red = project.submit(labels={"colour": "red", "a.b": "c:d"}, optimizer={"name": "sgd"})
    blue = project.submit(labels={"colour": "blue"})
    project.http.post(blue["links"]["cancel"])

    def found(**params: Any) -> set[str]:
        return {job["id"] for job in project.http.get("/v1/jobs", params=params).json()["jobs"]}

    assert found() == {plain["id"], red["id"], blue["id"]}
    assert found(label="colour") == {red["id"], blue["id"]}
    assert found(label="colour:blue") == {blue["id"]}
    assert found(label=["colour", "colour:red"]) == {red["id"]}
    assert found(label="colour:") == set()
    assert found(label="a.b:c:d") == {red["id"]}
    assert found(optimizer="sgd") == {red["id"]}
    assert found(state="queued") == {plain["id"], red["id"]}
    assert found(state="cancelled", optimizer="sgd") == set()


def test_cancel_of_a_waiting_job_is_immediate_and_repeatable(project: Project) -> None:
    job = project.submit()
    for _ in range(2):
        answer = project.http.post(job["links"]["cancel"])
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


def test_cancel_of_a_running_job_is_asked_of_its_worker_at_once(project: Project, shared_database: str) -> None:
    job = project.submit()
    lease = project.start()
    with project.engine.connect() as conn:
        channel = requests_channel(cluster_id(conn))
    with psycopg.connect(shared_database, autocommit=True) as worker:
        worker.execute(f"LISTEN {channel}")
        answer = project.http.post(job["links"]["cancel"])
        (notice,) = worker.notifies(timeout=10, stop_after=1)
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert notice.payload == job["id"]
    assert [j["id"] for j in project.http.get("/v1/jobs?state=cancelling").json()["jobs"]] == [job["id"]]
    end(project.engine, lease, State.SUCCEEDED)
    assert project.http.get(job["links"]["self"]).json()["state"] == "cancelled"


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.DIVERGED])
def test_cancel_of_an_ended_job_is_a_conflict_that_names_the_state(project: Project, state: State) -> None:
    job = project.submit()
    end(project.engine, project.start(), state, error=ERROR if state is State.DIVERGED else None)
    answer = project.http.post(job["links"]["cancel"])
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["state"]) == (409, "state-conflict", state)
    assert problem["possible"] == []
    assert state in problem["detail"]


def test_the_record_of_a_job_page_by_page(project: Project) -> None:
    job = project.submit()
    lease = project.start()
    project.checkpoint(lease, step=3)
    end(project.engine, lease, State.SUCCEEDED)
    events = project.http.get(job["links"]["events"]).json()
    assert [e["kind"] for e in events["events"]] == ["submitted", "started", "checkpoint", "succeeded"]
    assert (events["events"][1]["from_state"], events["events"][1]["to_state"]) == ("queued", "running")
    assert events["next_after"] is None
    first = project.http.get(job["links"]["events"], params={"limit": 3}).json()
    rest = project.http.get(job["links"]["events"], params={"after": first["next_after"]}).json()
    assert first["events"] + rest["events"] == events["events"]


def test_attempts_show_what_the_trainer_printed_and_why_it_ended(project: Project) -> None:
    job = project.submit()
    lease = project.start()
    with project.engine.begin() as conn:
        record_fingerprint(conn, lease, {"torch": "2.13.0"})
        crash(conn, lease, error=ERROR, log="Segmentation fault\n")
    project.start()
    first, second = project.http.get(job["links"]["attempts"]).json()["attempts"]
    assert (first["number"], first["outcome"], first["log"]) == (1, "crashed", "Segmentation fault\n")
    assert (first["error"]["code"], first["fingerprint"]) == ("trainer-crashed", {"torch": "2.13.0"})
    assert (second["number"], second["outcome"], second["ended_at"]) == (2, None, None)
    assert project.http.get(job["links"]["self"]).json()["crash_count"] == 1


def test_a_request_id_is_given_back_or_made(http: httpx2.Client) -> None:
    assert http.get("/v1/jobs", headers={"X-Request-Id": "run-7.a_B"}).headers["X-Request-Id"] == "run-7.a_B"
    for bad in ("a b", "x" * 65, 'x"y', ""):
        made = http.get("/v1/jobs", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
        assert len(made) == 32
