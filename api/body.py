"""The body of a request as strict JSON (RFC 8259), within limits.

Read by ourselves, because every refusal must name what is wrong: type, length, syntax, repeated names. Called by
the endpoint that accepts a spec; the other POSTs refuse a body.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic_core import from_json

from api.errors import BodyTooLarge, InvalidParameter, MalformedJson, UnsupportedMediaType
from api.service import ServiceDep

MAX_COMMAS = 20_000


async def json_body(request: Request, service: ServiceDep) -> bytes:
    """The raw body of a JSON request. Raises UnsupportedMediaType or BodyTooLarge, with and without Content-Length."""
    _check_media_type(request)
    limit = service.settings.max_body_bytes
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limit:
        raise BodyTooLarge(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(limit)
    return bytes(body)


JsonBody = Annotated[bytes, Depends(json_body)]


async def no_body(request: Request) -> None:
    """Raises InvalidParameter where a body came: what it wishes for would be passed over in silence."""
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        raise InvalidParameter.named("body", "is not read here; parameters go into the query")


async def no_input(request: Request) -> None:
    """As `no_body`, where the query has no parameters either."""
    await no_body(request)
    for name in request.query_params:
        raise InvalidParameter.named(name, "there is no such parameter")


def parse(body: bytes) -> Any:
    """The document in `body`.

    Refused with MalformedJson: bad syntax, bytes that are not UTF-8, lone surrogates, NaN and Infinity, nesting
    beyond 200, integers beyond 4,300 digits, a name twice in one object, more values than any spec has.
    """
    if body.count(b",") > MAX_COMMAS:
        raise MalformedJson(f"more than {MAX_COMMAS:,} commas: no spec is that large")
    try:
        from_json(body, allow_inf_nan=False)
        return json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise MalformedJson(str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in document if names.count(name) > 1)
        raise MalformedJson(f"the name {repeated[:100]!r} stands twice in one object")
    return document


def _check_media_type(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("the body must be sent with Content-Type: application/json")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("a compressed body is not understood; send it as it is")
