"""Checks over HTTP: asking for them, watching them, cancelling them, and everything that must be refused."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import finish, record_progress
from jobs.states import State
from tests.api.project import Project
from tests.api.test_hostile import _refused
from tests.jobs.scenario import ERROR

NO_CHECK = "00000000-0000-0000-0000-000000000000"
VERIFIED = {
    "equal": False,
    "exact": False,
    "reasons": ["threads: was 1, is 2"],
    "intact": {"model": True, "state": False},
    "unreadable": {"state": "header too large"},
    "ended": None,
    "n_tensors": 3,
    "n_different": 1,
    "differences": [
        {
            "tensor": "model/1.weight",
            "problem": "values",
            "n_elements": 6,
            "n_different": 2,
            "first_index": [0, 1],
            "stored": 0.5,
            "replayed": None,
            "largest_difference": None,
        }
    ],
    "rest": [],
}
AUDITED = {
    "equal": True,
    "steps": 5,
    "optimizer": "native (avx2)",
    "torch": "2.13.0",
    "ended": {"optim_core": None, "torch.optim": None},
    "first_different_step": None,
    "n_tensors": 1,
    "n_different": 0,
    "largest_ulp": 0,
    "tensors": [{"tensor": "model/w", "n_elements": 2, "n_different": 0, "largest_ulp": 0, "largest_difference": 0.0}],
}


def verify(project: Project, checkpoint: int, **headers: str) -> httpx2.Response:
    return project.http.post(f"/v1/checkpoints/{checkpoint}/verify", headers=headers)


def end(project: Project, lease: Lease, result: dict[str, Any]) -> None:
    with project.engine.begin() as conn:
        finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None, result=result)


@pytest.fixture
def job(project: Project) -> dict[str, Any]:
    """A job that has succeeded, with checkpoints of steps 5 and 9."""
    job, lease = project.submit(), project.start()
    job["checkpoints"] = [project.checkpoint(lease, step=step) for step in (5, 9)]
    with project.engine.begin() as conn:
        finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)
    return job


def test_a_check_from_request_to_result(project: Project, job: dict[str, Any]) -> None:
    first, second = job["checkpoints"]
    answer = verify(project, second)
    check = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/checks/{check['id']}")
    assert (check["kind"], check["state"], check["result"], check["error"]) == ("verify", "queued", None, None)
    assert (check["job_id"], check["checkpoint_id"], check["from_checkpoint_id"]) == (job["id"], second, first)
    assert (check["from_step"], check["to_step"], check["steps_done"], check["steps_total"]) == (5, 9, 0, 4)
    lease = project.start()
    assert str(lease.job_id) == check["id"]
    with project.engine.begin() as conn:
        record_progress(conn, lease, phase="train", step=7, summary={})
    running = project.http.get(check["links"]["self"]).json()
    assert (running["state"], running["phase"], running["steps_done"]) == ("running", "train", 2)
    workers = project.http.get("/v1/workers").json()["workers"]
    (held,) = [held for worker in workers for held in worker["jobs"] if held["id"] == check["id"]]
    assert (held["kind"], held["link"]) == ("verify", check["links"]["self"])
    end(project, lease, VERIFIED)
    done = project.http.get(check["links"]["self"]).json()
    assert (done["state"], done["phase"]) == ("succeeded", None)
    assert done["result"] == VERIFIED | {"kind": "verify"}
    assert project.http.get(job["links"]["checks"]).json() == {"checks": [done]}


def test_the_first_checkpoint_is_replayed_from_the_start(project: Project, job: dict[str, Any]) -> None:
    check = verify(project, job["checkpoints"][0]).json()
    assert (check["from_checkpoint_id"], check["from_step"], check["to_step"]) == (None, 0, 5)


def test_an_audit_from_request_to_result(project: Project, job: dict[str, Any]) -> None:
    answer = project.http.post(job["links"]["audit"], params={"steps": 5})
    check = answer.json()
    assert (answer.status_code, check["kind"], check["checkpoint_id"]) == (202, "audit", None)
    assert (check["from_step"], check["to_step"], check["steps_total"]) == (0, 5, 10)
    end(project, project.start(), AUDITED)
    assert project.http.get(check["links"]["self"]).json()["result"] == AUDITED | {"kind": "audit"}


@pytest.mark.parametrize(("steps", "audited"), [(3, 3), (400, 100)])
def test_an_audit_takes_a_hundred_steps_or_all(project: Project, steps: int, audited: int) -> None:
    short = project.submit(training={"steps": steps})
    assert project.http.post(short["links"]["audit"]).json()["to_step"] == audited


def test_a_poll_costs_nothing_while_nothing_changes(project: Project, job: dict[str, Any]) -> None:
    check = verify(project, job["checkpoints"][0]).json()
    path, etag = check["links"]["self"], f'"{check["version"]}"'
    assert project.http.get(path, headers={"If-None-Match": etag}).status_code == 304
    project.start()
    answer = project.http.get(path, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.json()["state"]) == (200, "running")
    assert answer.headers["ETag"] == f'"{answer.json()["version"]}"'


def test_the_same_key_is_the_same_check(project: Project, job: dict[str, Any]) -> None:
    one, other = job["checkpoints"]
    made = verify(project, one, **{"Idempotency-Key": "k"})
    again = verify(project, one, **{"Idempotency-Key": "k"})
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (made.json()["id"], "true")
    assert "Idempotent-Replayed" not in made.headers
    _refused(verify(project, other, **{"Idempotency-Key": "k"}), 422, "idempotency-conflict")
    audit = project.http.post(job["links"]["audit"], headers={"Idempotency-Key": "k"})
    _refused(audit, 422, "idempotency-conflict")
    assert verify(project, one).json()["id"] != made.json()["id"]


def test_a_check_is_cancelled_as_a_job_is(project: Project, job: dict[str, Any]) -> None:
    waits, runs = (verify(project, job["checkpoints"][0]).json() for _ in range(2))
    assert project.http.post(waits["links"]["cancel"]).json()["state"] == "cancelled"
    lease = project.start()
    for _ in range(2):
        answer = project.http.post(runs["links"]["cancel"])
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    end(project, lease, VERIFIED)
    ended = project.http.get(runs["links"]["self"]).json()
    assert (ended["state"], ended["result"]) == ("cancelled", None)


def test_a_check_is_no_job(project: Project, job: dict[str, Any]) -> None:
    check = verify(project, job["checkpoints"][0]).json()
    assert [found["id"] for found in project.http.get("/v1/jobs").json()["jobs"]] == [job["id"]]
    for name in ("", "/events", "/attempts", "/metrics", "/checkpoints", "/checks"):
        _refused(project.http.get(f"/v1/jobs/{check['id']}{name}"), 404, "not-found")
    for verb in ("cancel", "pause", "resume", "retry", "audit"):
        _refused(project.http.post(f"/v1/jobs/{check['id']}/{verb}"), 404, "not-found")
    assert project.http.get(check["links"]["self"]).json()["state"] == "queued"


def test_a_check_that_has_ended_has_no_verb_left(project: Project, job: dict[str, Any]) -> None:
    check = verify(project, job["checkpoints"][0]).json()
    with project.engine.begin() as conn:
        finish(conn, project.start(), state=State.FAILED, error=ERROR, summary={}, log=None)
    answer = project.http.post(check["links"]["cancel"])
    _refused(answer, 409, "state-conflict")
    document = answer.json()
    assert (document["detail"], document["state"]) == ("cannot cancel a check that is failed", "failed")
    assert document["possible"] == []


def test_a_job_is_no_check(project: Project, job: dict[str, Any]) -> None:
    _refused(project.http.get(f"/v1/checks/{job['id']}"), 404, "not-found")
    _refused(project.http.post(f"/v1/checks/{job['id']}/cancel"), 404, "not-found")
    running = project.submit()
    _refused(project.http.post(f"/v1/checks/{running['id']}/cancel"), 404, "not-found")
    assert project.http.get(running["links"]["self"]).json()["state"] == "queued"


def test_the_list_is_newest_first(project: Project, job: dict[str, Any]) -> None:
    made = [verify(project, job["checkpoints"][0]).json()["id"] for _ in range(3)]
    listed = project.http.get(job["links"]["checks"], params={"limit": 2}).json()["checks"]
    assert [check["id"] for check in listed] == [made[2], made[1]]


@pytest.mark.parametrize("checkpoint", ["0", "-1", "x", "1.5", "%00", str(2**63 - 1), str(2**63), "9" * 5_000, "null"])
def test_an_unknown_checkpoint(http: httpx2.Client, checkpoint: str) -> None:
    _refused(http.post(f"/v1/checkpoints/{checkpoint}/verify"), 404, "not-found")


@pytest.mark.parametrize("check", [NO_CHECK, "0", "x", "%00", "..%2Fjobs", "x" * 20_000])
def test_an_unknown_check(http: httpx2.Client, check: str) -> None:
    _refused(http.get(f"/v1/checks/{check}"), 404, "not-found")


def test_an_incomplete_checkpoint_says_so(project: Project) -> None:
    project.submit()
    ref = project.begin_checkpoint(project.start(), step=5, model=b"m", state=b"s")
    answer = verify(project, ref.id)
    _refused(answer, 409, "checkpoint-incomplete")
    assert str(ref.id) in answer.json()["detail"]


STEPS = ["0", "-1", "10001", "9" * 5_000, "1.5", "1e3", "ten", "", "%00", "true", "null", "0x10", "NaN"]


@pytest.mark.parametrize("steps", STEPS)
def test_audit_steps_that_are_none(project: Project, steps: str) -> None:
    answer = project.http.post(f"{project.submit()['links']['audit']}?steps={steps}")
    _refused(answer, 422, "invalid-parameter")
    assert answer.json()["errors"][0]["parameter"] == "steps"


def test_more_audit_steps_than_the_job_has(project: Project) -> None:
    job = project.submit(training={"steps": 60})
    answer = project.http.post(job["links"]["audit"], params={"steps": 61})
    _refused(answer, 422, "invalid-parameter")
    assert "60 steps" in answer.json()["detail"]
    assert project.http.post(job["links"]["audit"], params={"steps": 60}).status_code == 202


def test_an_audit_that_is_too_large_says_what_would_do(project: Project) -> None:
    size: dict[str, Any] = {"dataset": {"name": "synthetic_classification", "n_samples": 75_000, "n_features": 512}}
    size |= {"model": {"name": "mlp", "hidden": [128]}, "training": {"batch_size": "full", "steps": 1_000}}
    job = project.submit(**size)
    work = job["resolved"]["n_parameters"] * job["resolved"]["batch_size"]
    answer = project.http.post(job["links"]["audit"], params={"steps": 1_000})
    _refused(answer, 422, "audit-too-large")
    most = 10**12 // work
    assert f"at most {most:,} steps" in answer.json()["detail"]
    assert f"{work * 1_000:,}" in answer.json()["detail"]
    assert project.http.post(job["links"]["audit"], params={"steps": most}).status_code == 202
    assert project.http.post(job["links"]["audit"], params={"steps": most + 1}).status_code == 422
    assert len(project.http.get(job["links"]["checks"]).json()["checks"]) == 1


@pytest.mark.parametrize("verb", ["audit", "verify"])
def test_a_body_is_refused_not_ignored(project: Project, job: dict[str, Any], verb: str) -> None:
    paths = {"audit": job["links"]["audit"], "verify": f"/v1/checkpoints/{job['checkpoints'][0]}/verify"}
    answer = project.http.post(paths[verb], json={"steps": 5})
    _refused(answer, 422, "invalid-parameter")
    assert "go into the query" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["step=5", "steps=5&steps=6&x=1", "limit=0"])
def test_unknown_parameters(project: Project, job: dict[str, Any], query: str) -> None:
    _refused(project.http.post(f"{job['links']['audit']}?{query}"), 422, "invalid-parameter")
    _refused(project.http.get(f"{job['links']['checks']}?{query}"), 422, "invalid-parameter")


@pytest.mark.parametrize("wish", [{"params": {"at": "step"}}, {"json": {"at": "step"}}], ids=str)
def test_what_is_asked_of_a_check_besides_is_refused_not_ignored(
    project: Project, job: dict[str, Any], wish: dict[str, Any]
) -> None:
    verify_path = f"/v1/checkpoints/{job['checkpoints'][0]}/verify"
    check = project.http.post(verify_path).json()
    for path in (verify_path, check["links"]["cancel"]):
        _refused(project.http.post(path, **wish), 422, "invalid-parameter")
    assert project.http.get(check["links"]["self"]).json()["state"] == "queued"
    assert len(project.http.get(job["links"]["checks"]).json()["checks"]) == 1
