"""The OpenAPI document against the service: schemathesis sends what the document allows and what it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings
from tests.api.process import ApiProcess
from tests.api.project import Project, new_project

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


@pytest.fixture(scope="module")
def fuzzed(api: ApiProcess, shared_engine: Engine) -> Iterator[Project]:
    with new_project(shared_engine, api.url) as project:
        project.submit()
        project.checkpoint(project.start(), step=1)
        yield project


@schema.parametrize()
@settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_the_service_does_what_its_document_says(case: schemathesis.Case, fuzzed: Project, api: ApiProcess) -> None:
    headers = {"Authorization": fuzzed.http.headers["Authorization"]}
    case.call_and_validate(base_url=api.url, headers=headers, checks=CHECKS)
    import collections
    r = case.call(base_url=api.url, headers=headers)
    with open("/tmp/stat", "a") as f: f.write(f"{case.method} {case.operation.path} {r.status_code} {r.request.url[:150]} {(r.request.body or b'')[:3000]}\n")
