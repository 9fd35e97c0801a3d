"""Requests and paged lists as plain documents, without the typed answers, which take long to import.

Called by `traind.client.client`, and by the commands `traind submit` and `traind ls`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from traind.client.http import Http
from traind.errors import ApiError, InvalidSpec

if TYPE_CHECKING:
    from traind.spec import JobSpec

JOBS = "/v1/jobs"
MOST_JOBS_PER_PAGE = 100
Params = list[tuple[str, str]]


def submit(http: Http, spec: JobSpec | Mapping[str, Any], idempotency_key: str | None) -> Any:
    """The document of the submitted job. Raises InvalidSpec for values that JSON cannot represent, and ApiError."""
    return http.json("POST", JOBS, content=_body(spec), headers=idempotency(idempotency_key))


def dry_run(http: Http, spec: JobSpec | Mapping[str, Any]) -> Any:
    """The document of the job that a submit would create. Raises the same errors as `submit`."""
    return http.json("POST", JOBS, content=_body(spec), params=[("dry_run", "true")])


def list_jobs(
    http: Http,
    *,
    state: str | Iterable[str] | None = None,
    labels: Mapping[str, str | None] | None = None,
    optimizer: str | None = None,
    id: str | None = None,  # noqa: A002  the API's word
    name: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    metric: str | Iterable[str] = (),
    page: int = MOST_JOBS_PER_PAGE,
) -> Iterator[Any]:
    """The documents of jobs, newest first; `Client.list` says what the filters mean."""
    params = [("limit", str(page))]
    params += [("state", each) for each in ((state,) if isinstance(state, str) else state or ())]
    texts = {"optimizer": optimizer, "id": id, "name": name}
    params += [(key, value) for key, value in texts.items() if value is not None]
    times = {"created_after": created_after, "created_before": created_before}
    params += [(key, value.isoformat()) for key, value in times.items() if value is not None]
    params += [("metric", each) for each in ((metric,) if isinstance(metric, str) else metric)]
    params += [("label", key if value is None else f"{key}:{value}") for key, value in (labels or {}).items()]
    return pages(http, JOBS, "jobs", "cursor", params)


def pages(http: Http, path: str, name: str, cursor: str, params: Params) -> Iterator[Any]:
    """The items of every page; `cursor` is the parameter that continues, next_<cursor> its value in the answer."""
    more: Params = []
    while True:
        page = http.json("GET", path, params=[*params, *more])
        yield from items(page, name)
        if page.get(f"next_{cursor}") is None:
            return
        params = [p for p in params if p[0] != cursor]
        more = [(cursor, str(page[f"next_{cursor}"]))]


def items(page: Any, name: str) -> Sequence[Any]:
    """The list in an answer. Raises ApiError if there is none."""
    found = page.get(name) if isinstance(page, dict) else None
    if not isinstance(found, Sequence):
        raise ApiError("bad-answer", f"the service's answer has no list of {name}; is it traind?")
    return found


def idempotency(key: str | None) -> dict[str, str]:
    """The header with the key. Raises ApiError for a key that the service would refuse, before anything is sent."""
    if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise ApiError("invalid-parameter", "idempotency_key: give 1 to 255 printable ASCII characters, or no key")
    return {"Idempotency-Key": str(uuid.uuid4()) if key is None else key}


def _body(spec: JobSpec | Mapping[str, Any]) -> bytes:
    """The spec as JSON. Fields of a JobSpec that have only their default are omitted; the service has the same ones."""
    document = dict(spec) if isinstance(spec, Mapping) else spec.model_dump(mode="json", exclude_unset=True)
    try:
        return json.dumps(document, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as e:
        raise InvalidSpec.at("", f"JSON cannot hold the spec: {e}", code="not-json") from None
