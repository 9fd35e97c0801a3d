"""The query of a request: unknown fields, and repeats of a field that is no list, are refused, not passed over."""

from __future__ import annotations

from typing import get_origin

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.errors import InvalidParameter


async def known_query(request: Request) -> None:
    """A dependency of every path under /v1. Raises InvalidParameter, which names the field and the allowed ones."""
    route = request.scope["route"]
    if not request.query_params or not isinstance(route, APIRoute):
        return
    fields = _fields(route)
    for name in request.query_params:
        if name not in fields:
            allowed = f"allowed: {', '.join(fields)}" if fields else "none is allowed here"
            raise InvalidParameter.named(name, f"there is no such parameter; {allowed}")
        if not fields[name] and len(request.query_params.getlist(name)) > 1:
            raise InvalidParameter.named(name, "may be given once only")


def _fields(route: APIRoute) -> dict[str, bool]:
    """The names of the path's query fields, and whether each may be repeated."""
    fields: dict[str, bool] = {}
    for parameter in route.dependant.query_params:
        model = parameter.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            for name, info in model.model_fields.items():
                fields[info.alias or name] = get_origin(info.annotation) is list
        else:
            fields[parameter.alias] = get_origin(model) is list
    return fields
