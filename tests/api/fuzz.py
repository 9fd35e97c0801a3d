"""The OpenAPI document against the service: schemathesis sends what the document allows, and what it does not.

Run by test_fuzz.py in a pytest of its own, which gives the target in the environment: it takes seconds to import
schemathesis and to list its cases, and each process of the suite would.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from uuid import UUID

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks

from api.app import create_app
from jobs.settings import Settings
from tests.api.test_fuzz import VARIABLE, Target

NOWHERE = Settings(database_url="postgresql://nowhere/", redis_url="redis://nowhere/")  # type: ignore[arg-type]
TARGET = Target(**json.loads(os.environ[VARIABLE]))
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
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@schema.parametrize()
@settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_the_service_does_what_its_document_says(case: schemathesis.Case, session: requests.Session) -> None:
    _aim(case)
    case.call_and_validate(TARGET.url, session, checks=CHECKS, timeout=30)


def _aim(case: schemathesis.Case) -> None:
    """An id that exists where it is a proper one, and a valid key where there is one: some must do without."""
    if "Authorization" in case.headers:
        case.headers["Authorization"] = TARGET.authorization
    found = case.path_parameters
    for name in ("job_id", "check_id"):
        with suppress(KeyError, ValueError):
            UUID(str(found[name]))
            found[name] = getattr(TARGET, name)
    if isinstance(found.get("checkpoint_id"), int) and 1 <= found["checkpoint_id"] < 2**63:
        found["checkpoint_id"] = TARGET.checkpoint_id
