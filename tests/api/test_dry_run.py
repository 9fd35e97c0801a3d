"""POST /v1/jobs?dry_run=true: judged as a submit is, and nothing is made."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
from sqlalchemy import func, select

from jobs.lifecycle.workers import register_worker
from jobs.tables import dataset, job
from tests.api.project import Project

TRY = "/v1/jobs?dry_run=true"
KEY = {"Idempotency-Key": "the-only-one"}


def counted(project: Project) -> tuple[int, int]:
    with project.engine.connect() as conn:
        jobs = select(func.count()).select_from(job).where(job.c.project_id == project.id)
        return conn.execute(jobs).scalar_one(), conn.execute(select(func.count()).select_from(dataset)).scalar_one()


def test_it_shows_what_the_submit_then_makes_and_uses_up_no_key(project: Project) -> None:
    spec = project.spec(dataset={"name": "synthetic_regression", "seed": project.id}, training={"batch_size": "full"})
    before = counted(project)
    answer = project.http.post(TRY, json=spec, headers=KEY)
    assert answer.status_code == 200
    assert "Location" not in answer.headers
    assert counted(project) == before
    made = project.http.post("/v1/jobs?dry_run=false", json=spec, headers=KEY)
    assert (made.status_code, "Idempotent-Replayed" in made.headers) == (202, False)
    again = project.http.post(TRY, json=project.spec(), headers=KEY)
    assert again.status_code == 200, "a key that another spec has used does not matter"
    assert {name: made.json()[name] for name in ("spec", "resolved", "waiting_for")} == answer.json()


def test_it_is_as_its_schema_says(project: Project) -> None:
    document = project.http.get("/openapi.json").json()
    answers = document["paths"]["/v1/jobs"]["post"]["responses"]
    (reference,) = (answers["200"]["content"]["application/json"]["schema"],)
    schema = reference | {"components": document["components"]}
    found = project.http.post(TRY, json=project.spec()).json()
    jsonschema_rs.validator_for(schema).validate(found)
    assert set(found) == {"spec", "resolved", "waiting_for"}


@pytest.mark.parametrize(("known", "reason", "told"), [
    ({"memory_bytes": 2**20}, "memory", "the largest worker that could take it has 0.00 GB"),
    ({"lacks": {"digits": "its file is gone"}}, "dataset", "can read digits: its file is gone"),
])  # fmt: skip
def test_it_says_what_the_job_would_wait_for(project: Project, known: dict[str, Any], reason: str, told: str) -> None:
    with project.engine.begin() as conn:
        register_worker(conn, worker_id=uuid4(), device="cpu", name="w", versions={}, queues=[project.queue], **known)
    answer = project.http.post(TRY, json=project.spec())
    found = answer.json()["waiting_for"]
    assert answer.status_code == 200
    assert (found["reason"], found["until"]) == (reason, None)
    assert found["message"].endswith(told)


@pytest.mark.parametrize(("query", "body", "code"), [
    ("dry_run=true", b'{"dataset": {"name": "digits"}}', "invalid-spec"),
    ("dry_run=true", b'{"dataset": {"name": "digits"}, "model": {"name": "cnn", "channels": [1,1,1,1,1]}, '
     b'"optimizer": {"name": "sgd"}}', "invalid-spec"),
    ("dry_run=true", b"{", "malformed-json"),
    ("dry_run=true", b"", "malformed-json"),
    ("dry_run=true", b'{"a": NaN}', "malformed-json"),
    ("dry_run=true&dry_run=true", b"{}", "invalid-parameter"),
    ("dry_run=true&dry_run=false", b"{}", "invalid-parameter"),
    ("dry_run=", b"{}", "invalid-parameter"),
    ("dry_run=maybe", b"{}", "invalid-parameter"),
    ("dry_run=%00", b"{}", "invalid-parameter"),
    ("dry_run=2", b"{}", "invalid-parameter"),
    ("DRY_RUN=true", b"{}", "invalid-parameter"),
])  # fmt: skip
def test_what_a_submit_refuses_it_refuses_too(project: Project, query: str, body: bytes, code: str) -> None:
    before = counted(project)
    headers = {"Content-Type": "application/json"}
    answer = project.http.post(f"/v1/jobs?{query}", content=body, headers=headers)
    assert answer.json()["code"] == code
    assert counted(project) == before


def test_it_needs_a_key_that_may_write(project: Project) -> None:
    reader = {"Authorization": f"Bearer {project.key('read')}"}
    assert project.http.post(TRY, json=project.spec(), headers=reader).status_code == 403
