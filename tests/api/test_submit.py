"""POST /v1/jobs: what is accepted, what is refused and how the refusal says why, and repeats that do no harm."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from jobs.keys import create
from tests.api.project import Project

SPEC = {
    "dataset": {"name": "digits"},
    "model": {"name": "mlp"},
    "optimizer": {"name": "adam"},
    "training": {"epochs": 1},
}


def test_a_job_is_accepted_with_every_default_filled(project: Project) -> None:
    answer = project.http.post("/v1/jobs", json=project.spec(name="first", labels={"study": "a"}))
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["name"], job["labels"]) == ("queued", "first", {"study": "a"})
    assert job["spec"]["optimizer"]["betas"] == [0.9, 0.999]
    assert job["resolved"]["n_parameters"] == 64 * 128 + 128 + 128 * 10 + 10
    assert job["resolved"]["model"]["preprocessing"]["mean"] == 4.882173196948682
    assert job["resolved"]["model"]["layers"][1] == {
        "name": "1",
        "module": "Linear",
        "arguments": {"in_features": 64, "out_features": 128, "bias": True},
    }
    assert job["resolved"]["model"]["classes"] == list("0123456789")
    assert job["progress"] == {
        "step": 0,
        "total_steps": job["resolved"]["total_steps"],
        "saved_step": None,
        "epoch": None,
        "rate_steps_per_second": None,
        "eta_seconds": None,
        "no_room": None,
    }
    assert project.http.get(answer.headers["Location"]).json() == job


@pytest.mark.parametrize(
    ("parts", "pointer", "reason"),
    [
        ({"optimizer": {"name": "adam", "lr": -1.0}}, "/optimizer/lr", "Invalid learning rate"),
        ({"optimizer": {"name": "sgd", "nesterov": True}}, "/optimizer/nesterov", "requires a momentum"),
        ({"optimizer": {"name": "adamax"}}, "/optimizer", "adamax"),
        (
            {"optimizer": {"name": "sgd", "param_groups": [{"params": "x.*"}]}},
            "/optimizer/param_groups/0/params",
            "x.*",
        ),
        (
            {"model": {"name": "sequential", "layers": [{"type": "linear", "out_features": 3}]}},
            "/model/layers",
            "flatten",
        ),
        ({"training": {"epochs": 1, "steps": 1}}, "/training/steps", "not both"),
        ({"training": {"batch_size": 5_000}}, "/training/batch_size", "5000"),
        ({"extra": 1}, "/extra", "a spec has no extra"),
        ({"labels": {"a/b~c": "x"}}, "/labels/a~1b~0c", "the name must be 1 to 63 of"),
    ],
)
def test_a_spec_that_cannot_run_is_refused_with_the_field(
    project: Project, parts: dict[str, Any], pointer: str, reason: str
) -> None:
    answer = project.http.post("/v1/jobs", json=project.spec(**parts))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid-spec")
    assert problem["pointer"].startswith(pointer)
    assert problem["errors"][0]["pointer"] == problem["pointer"]
    assert reason in problem["errors"][0]["message"]
    assert project.http.get("/v1/jobs").json()["jobs"] == []


def test_every_bad_field_is_named(http: httpx2.Client) -> None:
    spec = {"model": {"name": "mlp", "hidden": [0]}, "optimizer": {"name": "adam", "lr": "fast"}}
    problem = http.post("/v1/jobs", json=spec).json()
    assert {e["pointer"] for e in problem["errors"]} == {"/dataset", "/model/hidden/0", "/optimizer/lr"}
    assert "(and 2 more)" in problem["detail"]


def test_a_flood_of_errors_is_answered_briefly(http: httpx2.Client) -> None:
    answer = http.post("/v1/jobs", json={f"field{i}": 0 for i in range(15_000)})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert len(answer.content) < 20_000


def test_the_same_key_with_the_same_spec_is_the_same_job(project: Project) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = project.http.post("/v1/jobs", json=project.spec(), headers=headers)
    again = project.http.post("/v1/jobs", json=project.spec(), headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]


def test_the_same_key_with_another_spec_is_refused(project: Project) -> None:
    headers = {"Idempotency-Key": "abc"}
    project.http.post("/v1/jobs", json=project.spec(), headers=headers)
    answer = project.http.post("/v1/jobs", json=project.spec(name="another"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-conflict")
    assert len(project.http.get("/v1/jobs").json()["jobs"]) == 1


def test_the_same_key_in_another_project_is_another_job(project: Project, other: Project) -> None:
    headers = {"Idempotency-Key": "abc"}
    ours = project.http.post("/v1/jobs", json=project.spec(), headers=headers).json()
    theirs = other.http.post("/v1/jobs", json=project.spec(name="another"), headers=headers).json()
    assert ours["id"] != theirs["id"]


def test_submits_that_race_with_one_key_make_one_job(project: Project) -> None:
    def post(_: int) -> httpx2.Response:
        return project.http.post("/v1/jobs", json=project.spec(), headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(24)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.parametrize("key", ["", "é", "tab\there", "x" * 256])
def test_an_unusable_idempotency_key_is_refused(project: Project, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode()), (b"Content-Type", b"application/json")]
    answer = project.http.post("/v1/jobs", content=json.dumps(project.spec()), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-parameter")
    assert answer.json()["errors"][0]["parameter"].lower() == "idempotency-key"


def test_two_idempotency_keys_are_refused_and_make_nothing(project: Project) -> None:
    job = project.submit()
    headers = [(b"Idempotency-Key", b"one"), (b"Idempotency-Key", b"two")]
    for path, body in (("/v1/jobs", project.spec()), (job["links"]["audit"], None)):
        answer = project.http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-parameter")
        assert answer.json()["detail"] == "idempotency-key: may be given once only"
    assert [found["id"] for found in project.http.get("/v1/jobs").json()["jobs"]] == [job["id"]]
    assert project.http.get(f"{job['links']['self']}/checks").json()["checks"] == []


def test_a_submit_wakes_the_workers_of_its_queue(project: Project, redis_url: str) -> None:
    import redis

    from jobs.database import cluster_id

    job = project.submit()
    with project.engine.connect() as connection:
        prefix = f"traind:{cluster_id(connection)}:"
    with redis.Redis.from_url(redis_url) as client:
        (message,) = client.lrange(f"{prefix}wake.{project.queue}", 0, -1)
    assert job["queue"] == project.queue
    assert json.loads(message)["headers"]["task"] == "traind.wake"


@pytest.mark.parametrize("url", ["foo", "redis://127.0.0.1:1/0", "rediss://127.0.0.1/0?ssl_ca_certs=/nonexistent"])
def test_no_redis_turns_a_committed_submit_into_an_error(
    own_app: TestClient, project_id: int, engine: Engine, url: str
) -> None:
    """Even a URL that the settings would refuse: the job is there, so the answer says so."""
    own_app.app.state.service.redis_url = url  # type: ignore[attr-defined]
    with engine.begin() as conn:
        key = create(conn, project_id, name="test", scopes=["write", "read"])
    answer = own_app.post("/v1/jobs", json=SPEC, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 202
    assert own_app.get("/readyz").json()["degraded"] == ["redis"]
    cancelled = own_app.post(f"{answer.json()['links']['self']}/cancel", headers={"Authorization": f"Bearer {key}"})
    assert cancelled.json()["state"] == "cancelled"


def test_a_job_above_the_memory_limit_is_refused_and_one_below_is_not(
    own_app: TestClient, project_id: int, engine: Engine
) -> None:
    service = own_app.app.state.service  # type: ignore[attr-defined]
    service.settings = service.settings.model_copy(update={"max_job_memory_bytes": 2**29})
    with engine.begin() as conn:
        auth = {"Authorization": f"Bearer {create(conn, project_id, name='test', scopes=['write', 'read'])}"}
    large = SPEC | {"model": {"name": "mlp", "hidden": [4096, 4096]}}
    problem = own_app.post("/v1/jobs", json=large, headers=auth).json()
    assert (problem["status"], problem["code"], problem["pointer"]) == (422, "invalid-spec", "/model")
    assert problem["errors"][0]["code"] == "memory"
    assert "at most 0.54 GB (TRAIND_MAX_JOB_MEMORY_BYTES)" in problem["detail"]
    assert own_app.get("/v1/jobs", headers=auth).json()["jobs"] == []
    accepted = own_app.post("/v1/jobs", json=SPEC, headers=auth).json()
    assert 0 < accepted["resolved"]["memory_bytes"] < 2**29
