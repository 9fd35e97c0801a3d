"""The OpenAPI document against the service: schemathesis sends what the document allows, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks
from sqlalchemy import Engine

from api.app import create_app
from jobs.lifecycle.work import record_metrics
from jobs.settings import Settings
from tests.api.process import ApiProcess
from tests.api.project import new_project
from tests.jobs.scenario import segment

NOWHERE = Settings(database_url="postgresql://nowhere/", redis_url="redis://nowhere/")  # type: ignore[arg-type]
schema = schemathesis.openapi.from_dict(create_app(NOWHERE).openapi())

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.allow_header_conformance,
]


@dataclass(frozen=True)
class Target:
    """A service with a job that has metrics, a checkpoint and a check."""

    url: str
    session: requests.Session
    authorization: str
    job_id: str
    checkpoint_id: int
    check_id: str


@pytest.fixture(scope="module")
def target(api: ApiProcess, shared_engine: Engine) -> Iterator[Target]:
    with new_project(shared_engine, api.url) as project, requests.Session() as session:
        session.trust_env = False
        job, lease = project.submit(), project.start()
        with shared_engine.begin() as conn:
            record_metrics(conn, lease, seq=0, segment=segment(1, 50))
        checkpoint_id = project.checkpoint(lease, step=50)
        check = project.http.post(f"/v1/checkpoints/{checkpoint_id}/verify").json()
        authorization = project.http.headers["Authorization"]
        yield Target(api.url, session, authorization, job["id"], checkpoint_id, check["id"])


@schema.parametrize()
@settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_the_service_does_what_its_document_says(case: schemathesis.Case, target: Target) -> None:
    _aim(case, target)
    case.call_and_validate(target.url, target.session, checks=CHECKS, timeout=30)


def _aim(case: schemathesis.Case, target: Target) -> None:
    """An id that exists where it is a proper one, and a valid key where there is one: some must do without."""
    if "Authorization" in case.headers:
        case.headers["Authorization"] = target.authorization
    found = case.path_parameters
    for name in ("job_id", "check_id"):
        with suppress(KeyError, ValueError):
            UUID(str(found[name]))
            found[name] = getattr(target, name)
    if isinstance(found.get("checkpoint_id"), int) and 1 <= found["checkpoint_id"] < 2**63:
        found["checkpoint_id"] = target.checkpoint_id
