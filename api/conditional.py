"""Conditional requests and ranges (RFC 9110, sections 13 and 14), as far as traind serves them."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header, Response

from api.errors import RangeNotSatisfiable

IfNoneMatch = Annotated[str | None, Header(description="An ETag: the answer is 304 if it is still current")]
IfRange = Annotated[str | None, Header(description="An ETag: Range applies only if it is still current")]
RangeHeader = Annotated[
    str | None,
    Header(alias="Range", description="A single range of bytes; other values are ignored", examples=["bytes=0-1023"]),
]

_ONE_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))", re.IGNORECASE | re.ASCII)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the header names `etag` (weak comparison) or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or "*" in tags


def not_modified(if_none_match: str | None, version: int | str, response: Response) -> Response | None:
    """The answer 304 if the caller already has this `version`; otherwise None, and `response` gets its ETag."""
    headers = {"ETag": f'"{version}"', "Cache-Control": "private, no-cache"}
    if matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return None


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and stop of the requested range; None if the whole content is to be sent. Raises RangeNotSatisfiable."""
    found = _ONE_RANGE.fullmatch((header or "").strip())
    if found is None:
        return None
    first, last, suffix = (None if text is None else int(text) for text in found.groups())
    if first is not None and last is not None and last < first:
        return None
    start = max(size - (suffix or 0), 0) if first is None else first
    stop = size if last is None else min(last + 1, size)
    if start >= stop:
        raise RangeNotSatisfiable(size)
    return start, stop
