"""Pause, resume and retry over HTTP: what they answer, whom they wake, and what a job's metrics show afterwards."""

from __future__ import annotations

from typing import Any

import httpx2
import psycopg
import pytest
import redis

from jobs.database import cluster_id
from jobs.doorbell import wake_queue
from jobs.lifecycle.work import finish, record_metrics, requeue
from jobs.notify import requests_channel
from jobs.states import State
from tests.api.project import Project
from tests.conftest import Servers
from tests.jobs.scenario import ERROR, segment

VERBS = ["cancel", "pause", "resume", "retry"]


def ask(project: Project, job: dict[str, Any], verb: str, **params: str) -> httpx2.Response:
    return project.http.post(job["links"][verb], params=params)


def asked(project: Project, job: dict[str, Any], verb: str, **params: str) -> tuple[int, str]:
    answer = ask(project, job, verb, **params)
    return answer.status_code, answer.json()["state"]


def failed(project: Project, *, saved: int | None = None) -> dict[str, Any]:
    """A failed job with thirty points, and maybe a checkpoint."""
    job, lease = project.submit(), project.start()
    with project.engine.begin() as conn:
        record_metrics(conn, lease, seq=0, segment=segment(1, 30), summary={"last": {"train/loss": 0.5}})
    if saved is not None:
        project.checkpoint(lease, step=saved)
    with project.engine.begin() as conn:
        finish(conn, lease, state=State.FAILED, error=ERROR, summary={}, log=None)
    return job


def points(project: Project, job: dict[str, Any], attempts: str = "visible") -> int:
    series = project.http.get(job["links"]["metrics"], params={"attempts": attempts}).json()["series"]
    return sum(one["count"] for one in series)


def test_a_waiting_job_is_held_and_goes_on(project: Project) -> None:
    job = project.submit()
    for _ in range(2):
        assert asked(project, job, "pause") == (200, "paused")
    assert [j["id"] for j in project.http.get("/v1/jobs?state=paused").json()["jobs"]] == [job["id"]]
    for _ in range(2):
        assert asked(project, job, "resume") == (200, "queued")
    events = project.http.get(job["links"]["events"]).json()["events"]
    assert [event["kind"] for event in events] == ["submitted", "paused", "resumed"]


def test_a_running_job_is_asked_of_its_worker_at_once_and_shows_both_steps(
    project: Project, shared_database: str
) -> None:
    job, lease = project.submit(), project.start()
    with project.engine.begin() as conn:
        channel = requests_channel(cluster_id(conn))
        record_metrics(conn, lease, seq=0, segment=segment(1, 30))
    with psycopg.connect(shared_database, autocommit=True) as worker:
        worker.execute(f"LISTEN {channel}")
        for _ in range(2):
            assert asked(project, job, "pause") == (202, "pausing")
        assert asked(project, job, "resume") == (200, "running")
        assert asked(project, job, "pause") == (202, "pausing")
        assert {notice.payload for notice in worker.notifies(timeout=10, stop_after=4)} == {job["id"]}
    project.checkpoint(lease, step=20)
    progress = project.http.get(job["links"]["self"]).json()["progress"]
    assert (progress["step"], progress["saved_step"]) == (30, 20)
    with project.engine.begin() as conn:
        requeue(conn, lease, reason="paused", log=None)
    assert project.http.get(job["links"]["self"]).json()["state"] == "paused"
    assert project.http.get(job["links"]["attempts"]).json()["attempts"][0]["outcome"] == "paused"


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_a_job_that_waits_again_is_announced(project: Project, servers: Servers, verb: str) -> None:
    job = project.submit()
    ask(project, job, {"resume": "pause", "retry": "cancel"}[verb])
    with project.engine.connect() as conn:
        wakes = f"traind:{cluster_id(conn)}:{wake_queue(project.queue)}"
    with redis.Redis.from_url(servers.redis) as client:
        before = client.llen(wakes)
        assert asked(project, job, verb) == (200, "queued")
        assert client.llen(wakes) == before + 1


def test_a_retry_goes_on_from_the_last_checkpoint(project: Project) -> None:
    job = failed(project, saved=20)
    for _ in range(2):
        assert asked(project, job, "retry") == (200, "queued")
    shown = project.http.get(job["links"]["self"]).json()
    assert (shown["error"], shown["finished_at"], shown["crash_count"]) == (None, None, 0)
    assert (shown["progress"]["step"], shown["progress"]["saved_step"]) == (20, 20)
    project.start()
    assert points(project, job) == 20


def test_a_retry_from_the_start_shows_nothing_of_what_was_before(project: Project) -> None:
    job = failed(project, saved=20)
    assert asked(project, job, "retry", **{"from": "start"}) == (200, "queued")
    shown = project.http.get(job["links"]["self"]).json()
    assert (shown["progress"]["step"], shown["progress"]["saved_step"]) == (0, None)
    assert shown["metrics"] == {"last": {}, "best": {}, "nonfinite": {}}
    assert (points(project, job), points(project, job, "all")) == (0, 30)
    assert project.http.get(job["links"]["checkpoints"]).json()["checkpoints"] == []
    project.start()
    assert (points(project, job), points(project, job, "all")) == (0, 30)
    attempts = project.http.get(job["links"]["attempts"]).json()["attempts"]
    assert [(a["from_step"], a["from_checkpoint_id"]) for a in attempts] == [(0, None), (0, None)]


@pytest.mark.parametrize(
    ("verb", "state", "possible"),
    [
        ("resume", "queued", ["cancel", "pause"]),
        ("retry", "queued", ["cancel", "pause"]),
        ("resume", "running", ["cancel", "pause"]),
        ("retry", "pausing", ["cancel", "resume"]),
        ("pause", "cancelling", []),
        ("resume", "cancelling", []),
        ("retry", "paused", ["cancel", "resume"]),
        ("pause", "failed", ["retry"]),
        ("cancel", "failed", ["retry"]),
        ("resume", "succeeded", []),
        ("retry", "succeeded", []),
    ],
)
def test_in_another_state_it_is_a_conflict_that_says_what_is_possible(
    project: Project, verb: str, state: str, possible: list[str]
) -> None:
    job = failed(project) if state == "failed" else project.submit()
    if state in ("running", "pausing", "cancelling", "succeeded"):
        lease = project.start()
    if state == "succeeded":
        with project.engine.begin() as conn:
            finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)
    for name in {"pausing": ["pause"], "cancelling": ["cancel"], "paused": ["pause"]}.get(state, []):
        ask(project, job, name)
    answer = ask(project, job, verb)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "state-conflict")
    assert (problem["state"], problem["possible"]) == (state, possible)
    assert project.http.get(job["links"]["self"]).json()["state"] == state


@pytest.mark.parametrize("verb", VERBS)
def test_what_belongs_to_another_project_does_not_exist(project: Project, other: Project, verb: str) -> None:
    job = failed(project)
    answer = other.http.post(job["links"][verb])
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


@pytest.mark.parametrize("verb", VERBS)
def test_a_key_that_may_only_read_may_not(project: Project, verb: str) -> None:
    job = failed(project)
    key = project.key("read")
    answer = project.http.post(job["links"][verb], headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient-scope")


@pytest.mark.parametrize(
    "wish",
    [
        {"params": {"from": "end"}},
        {"params": {"from": ""}},
        {"params": {"start": "start"}},
        {"params": [("from", "start"), ("more", "1")]},
        {"json": {"from": "start"}},
        pytest.param({"content": iter([b"{", b"}"])}, id="content in pieces"),
    ],
    ids=str,
)
def test_a_wish_that_is_not_understood_changes_nothing(project: Project, wish: dict[str, Any]) -> None:
    job = failed(project)
    answer = project.http.post(job["links"]["retry"], **wish)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-parameter")
    assert project.http.get(job["links"]["self"]).json()["state"] == "failed"


@pytest.mark.parametrize("wish", [{"params": {"from": "start"}}, {"json": {"from": "start"}}, {"json": {}}], ids=str)
@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_a_verb_without_parameters_refuses_any(project: Project, verb: str, wish: dict[str, Any]) -> None:
    job = project.submit()
    state = "queued"
    if verb == "resume":
        _, state = asked(project, job, "pause")
    answer = project.http.post(job["links"][verb], **wish)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-parameter")
    assert answer.json()["errors"][0]["parameter"] == ("from" if "params" in wish else "body")
    assert project.http.get(job["links"]["self"]).json()["state"] == state
