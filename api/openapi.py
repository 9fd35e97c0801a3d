"""The OpenAPI document: FastAPI's own, plus the schemas of what we read and refuse by ourselves.

The body of a submit is parsed by `api.body`, problem documents are written by `api.errors`; FastAPI sees neither.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.errors import KINDS, MEDIA_TYPE
from api.examples import ANSWERS
from api.schemas import Problem
from traind.spec import JobSpec, Resolved

Responses = dict[int | str, dict[str, Any]]
REF = "#/components/schemas/{model}"
ALWAYS = (
    "invalid-parameter",
    "unauthenticated",
    "invalid-key",
    "insufficient-scope",
    "database-unavailable",
    "internal",
)


def problems(*codes: str, key: bool = True) -> Responses:
    """The `responses` of an operation that can answer `codes`, and what any operation can."""
    responses: Responses = {}
    for code in dict.fromkeys((*codes, *(ALWAYS if key else ()))):
        kind = KINDS[code]
        response = responses.setdefault(
            kind.status,
            {"description": kind.title, "content": {MEDIA_TYPE: {"schema": _ref("Problem"), "examples": {}}}},
        )
        response["content"][MEDIA_TYPE]["examples"][code] = {"summary": kind.title, "value": _example(code)}
        if len(response["content"][MEDIA_TYPE]["examples"]) > 1:
            response["description"] = "One of: " + ", ".join(response["content"][MEDIA_TYPE]["examples"])
    return responses


def spec_body(examples: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of the operation whose body is a JobSpec."""
    content = {"application/json": {"schema": _ref("JobSpec"), "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI) -> None:
    """Make `app.openapi` the document with our schemas in it; computed once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            app.openapi_schema = _with_our_schemas(document)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _with_our_schemas(document: dict[str, Any]) -> dict[str, Any]:
    models: list[tuple[Any, Any]] = [(JobSpec, "validation"), (Resolved, "validation"), (Problem, "serialization")]
    _, definitions = models_json_schema(models, ref_template=REF)
    schemas = document["components"]["schemas"]
    schemas |= definitions["$defs"]
    _simplify(schemas)
    for name, example in ANSWERS.items():
        schemas[name]["examples"] = [example]
    for name in ("Job", "DryRun"):
        schemas[name]["properties"] |= {"spec": _ref("JobSpec"), "resolved": _ref("Resolved")}
    _drop_fastapis_validation_error(document)
    return document


def _simplify(node: Any) -> None:
    """Write in place what generators of clients cannot read in the way they can; what is valid stays the same.

    openapi-python-client drops a model with an object as a default, and one with a `const` beside other alternatives.
    """
    if isinstance(node, dict):
        if isinstance(node.get("default"), dict):
            del node["default"]
        for alternative in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            if "const" in alternative:
                alternative["enum"] = [alternative.pop("const")]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _simplify(child)


def _drop_fastapis_validation_error(document: dict[str, Any]) -> None:
    """It is promised for every operation with parameters; ours are `invalid-parameter`, and 404 for a path."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _ref(model: str) -> dict[str, str]:
    return {"$ref": REF.format(model=model)}


def _example(code: str) -> dict[str, Any]:
    kind = KINDS[code]
    return {
        "type": f"urn:traind:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.title,
        "code": code,
        "errors": [],
        "request_id": "5f0c9d1e2b7a4c3f8e6d1a2b3c4d5e6f",
    }
