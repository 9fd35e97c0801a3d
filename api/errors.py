"""From exceptions to HTTP: the only module that knows which error is which status (RFC 9457 problem documents).

    TraindError                     traind.errors, and every room's own tree; mapped by its `code`
    └── Refused                     raised by the api itself
        ├── MalformedJson, UnsupportedMediaType, BodyTooLarge     the body
        ├── Unauthenticated, InvalidKey, InsufficientScope        the key
        ├── InvalidParameter, MetricNotFound                      the query
        ├── CheckpointIncomplete, RangeNotSatisfiable             a download
        └── NotReady                                              health

`KINDS` lists every code with its status and title; tests and the OpenAPI document walk it. What is not in it is
a defect: 500 `internal`, logged with its traceback, told to the client by request id only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg.errors import UndefinedColumn, UndefinedTable
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from jobs.database import schema_fault
from traind import spec_words
from traind.errors import InvalidSpec, TraindError

log = structlog.get_logger("api")

MEDIA_TYPE = "application/problem+json"
CUT_OFF = "cut_off"
"""In a request's state: the code of the problem for which `api.protocol` closed its connection."""
MAX_ERRORS = 100
MAX_TEXT = 500
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Kind:
    """What a code means in HTTP."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "malformed-request": Kind(400, "The request is not HTTP"),
    "malformed-json": Kind(400, "The body is not strict JSON"),
    "incomplete-body": Kind(400, "The body ended early"),
    "unauthenticated": Kind(401, "An API key is required"),
    "invalid-key": Kind(401, "The API key is not valid"),
    "insufficient-scope": Kind(403, "The API key's scopes do not allow this"),
    "not-found": Kind(404, "Nothing is here"),
    "metric-not-found": Kind(404, "The job has no such metric"),
    "method-not-allowed": Kind(405, "The resource does not know this method"),
    "request-timeout": Kind(408, "The request came too slowly"),
    "state-conflict": Kind(409, "The job's state forbids this"),
    "in-use": Kind(409, "Something that has not ended needs it"),
    "checkpoint-incomplete": Kind(409, "The checkpoint is still being written"),
    "body-too-large": Kind(413, "The body is too large"),
    "unsupported-media-type": Kind(415, "The body has another type"),
    "range-not-satisfiable": Kind(416, "The range lies outside the content"),
    "audit-too-large": Kind(422, "The audit would compute too much"),
    "bad-cursor": Kind(422, "The cursor is not one of this list"),
    "idempotency-conflict": Kind(422, "The Idempotency-Key was used for another body"),
    "invalid-parameter": Kind(422, "A parameter is not valid"),
    "invalid-spec": Kind(422, "The job cannot run"),
    "head-too-large": Kind(431, "The request's head is too large"),
    "internal": Kind(500, "A defect in traind"),
    "not-ready": Kind(503, "The service is not ready"),
    "database-unavailable": Kind(503, "The database does not answer"),
}


class Refused(TraindError):
    """Root of the api's own errors. `members` are further members of the problem document."""

    def __init__(
        self,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers
        self.members = members or {}


class MalformedJson(Refused):
    code = "malformed-json"


class UnsupportedMediaType(Refused):
    code = "unsupported-media-type"


class BodyTooLarge(Refused):
    code = "body-too-large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body may have {limit:,} bytes", members={"max_body_bytes": limit})


class Unauthenticated(Refused):
    code = "unauthenticated"

    def __init__(self) -> None:
        detail = "send an API key in the header `Authorization: Bearer td_...`"
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="traind"'})


class InvalidKey(Refused):
    code = "invalid-key"

    def __init__(self) -> None:
        challenge = 'Bearer realm="traind", error="invalid_token"'
        super().__init__("the API key is unknown, mistyped or revoked", headers={"WWW-Authenticate": challenge})


class InsufficientScope(Refused):
    code = "insufficient-scope"

    def __init__(self, scope: str) -> None:
        challenge = f'Bearer realm="traind", error="insufficient_scope", scope="{scope}"'
        super().__init__(f"this needs an API key with the scope {scope}", headers={"WWW-Authenticate": challenge})


class MetricNotFound(Refused):
    code = "metric-not-found"


class InvalidParameter(Refused):
    code = "invalid-parameter"

    @classmethod
    def named(cls, parameter: str, message: str) -> InvalidParameter:
        return cls(f"{parameter}: {message}", [{"parameter": parameter, "code": "rule", "message": message}])


class CheckpointIncomplete(Refused):
    code = "checkpoint-incomplete"


class RangeNotSatisfiable(Refused):
    code = "range-not-satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the content has {size:,} bytes", headers={"Content-Range": f"bytes */{size}"})


class NotReady(Refused):
    code = "not-ready"


def problem(
    request: Request,
    code: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """The problem document for `code`, with no more of the client's own words than a person reads."""
    kind = KINDS[code]
    shown = [{name: _short(text) for name, text in error.items()} for error in errors[:MAX_ERRORS]]
    document = {
        "type": f"urn:traind:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": _short(detail),
        "code": code,
        **({"pointer": shown[0]["pointer"]} if shown and "pointer" in shown[0] else {}),
        "errors": shown,
        **(members or {}),
        "request_id": request.scope["state"]["request_id"],
    }
    return JSONResponse(document, kind.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Register the handlers. What none of them takes is answered by `api.access`."""
    app.add_exception_handler(TraindError, _traind_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(ClientDisconnect, _client_disconnect)
    app.add_exception_handler(ProgrammingError, _another_schema)
    for unavailable in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(unavailable, _database_unavailable)


def internal(request: Request) -> JSONResponse:
    return problem(request, "internal", "this is not your fault; the request id finds it in the service's log")


async def _traind_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, InvalidSpec):
        errors = [{"pointer": p.pointer, "code": p.code, "message": p.message} for p in error.problems]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        first = error.problems[0]
        return problem(request, error.code, f"{first.pointer or 'the spec'}: {first.message}{more}", errors=errors)
    if isinstance(error, Refused):
        return problem(
            request, error.code, error.detail, errors=error.errors, headers=error.headers, members=error.members
        )
    if not isinstance(error, TraindError) or error.code not in KINDS:
        raise error
    members = {name: getattr(error, name) for name in ("state", "possible") if hasattr(error, name)}
    return problem(request, error.code, str(error), members=members)


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = ", ".join(method for method in METHODS if _answers(request, method))
        detail = f"{request.url.path} answers {allowed}"
        return problem(request, "method-not-allowed", detail, headers={"Allow": allowed})
    if isinstance(error, HTTPException) and error.status_code == 404:
        return problem(request, "not-found", f"there is no {request.url.path}")
    raise error


def _answers(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)


async def _invalid_parameter(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    found = [
        (e["loc"][0], str(e["loc"][1]), e["type"], spec_words.message([e], may_guess=True)) for e in error.errors()
    ]
    if any(place == "path" for place, *_ in found):
        return problem(request, "not-found", f"there is no {request.url.path}")
    errors = [{"parameter": name, "code": kind, "message": message} for _, name, kind, message in found]
    return problem(request, "invalid-parameter", f"{found[0][1]}: {found[0][3]}", errors=errors)


async def _client_disconnect(request: Request, _: Exception) -> JSONResponse:
    code = request.scope["state"].get(CUT_OFF, "incomplete-body")
    return problem(request, code, "the connection ended before the body did")


async def _database_unavailable(request: Request, error: Exception) -> JSONResponse:
    log.warning("database unavailable", error=type(error).__name__, reason=_short(str(getattr(error, "orig", error))))
    detail = "the database does not answer; send the request again, a submit with the same Idempotency-Key"
    return problem(request, "database-unavailable", detail, headers={"Retry-After": "1"})


def _another_schema(request: Request, error: Exception) -> JSONResponse:
    """An api that is newer than the database, or whose database was never migrated, misses tables and columns."""
    if not isinstance(getattr(error, "orig", None), UndefinedTable | UndefinedColumn):
        raise error
    with request.app.state.service.engine.connect() as connection:
        fault = schema_fault(connection)
    if fault is None:
        raise error
    log.warning("not migrated", reason=fault)
    return problem(request, "not-ready", fault)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
