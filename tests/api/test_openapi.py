"""The OpenAPI document: it says of every operation what a program and a person need."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from api import check_schemas, schemas, worker_schemas
from api.errors import KINDS, MEDIA_TYPE
from api.examples import ANSWERS
from tests.api.process import ApiProcess
from tests.api.project import Project


@pytest.fixture(scope="module")
def document(api: ApiProcess) -> dict[str, Any]:
    return dict(httpx2.get(f"{api.url}/openapi.json", trust_env=False, timeout=60).json())


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_operations_have_ids_summaries_and_answers(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", ident) for ident in ids)
    assert all(operation["summary"] for operation in operations(document))


def test_every_code_is_documented_as_a_problem_with_its_status(document: dict[str, Any]) -> None:
    documented = set()
    for operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) < 400:
                continue
            content = answer["content"][MEDIA_TYPE]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code, example in content["examples"].items():
                assert KINDS[code].status == example["value"]["status"] == int(status)
                documented.add(code)
    to_no_operation = {"method-not-allowed", "malformed-request", "head-too-large"}
    assert documented == KINDS.keys() - to_no_operation, "which answer what is not in the document"


def test_all_but_health_needs_the_key(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation.get("security") == ([{"api_key": []}] if path.startswith("/v1") else None)


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert names <= document["components"]["schemas"].keys()
    assert {"JobSpec", "Job", "Problem", "Resolved"} <= names


def test_examples_of_a_submit_are_accepted(document: dict[str, Any], project: Project) -> None:
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/JobSpec"}
    for example in content["examples"].values():
        assert project.http.post("/v1/jobs", json=example["value"]).status_code == 202


@pytest.mark.parametrize("name", ANSWERS)
def test_examples_of_answers_are_as_their_schemas_say(document: dict[str, Any], name: str) -> None:
    (example,) = document["components"]["schemas"][name]["examples"]
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema_rs.validator_for(schema).validate(example)
    model = next(getattr(module, name) for module in (schemas, check_schemas, worker_schemas) if hasattr(module, name))
    assert model.model_validate(example).model_dump(mode="json").keys() == example.keys()


def test_a_job_is_as_its_schema_says(document: dict[str, Any], project: Project) -> None:
    job = project.submit(training={"batch_size": "full"}, model={"name": "cnn"})
    schema = {"$ref": "#/components/schemas/Job", "components": document["components"]}
    jsonschema_rs.validator_for(schema).validate(job)


def test_no_page_loads_scripts_from_elsewhere(http: httpx2.Client) -> None:
    assert {http.get(path).status_code for path in ("/docs", "/redoc", "/docs/oauth2-redirect")} == {404}
