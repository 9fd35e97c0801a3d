"""Jobs: submit, get, list, and their events and attempts. The verbs are in `api.endpoints.verbs`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.access import tell
from api.auth import Reader, Writer
from api.body import JsonBody, parse
from api.conditional import IfNoneMatch, not_modified
from api.errors import InvalidParameter
from api.examples import SPECS
from api.job_filter import JobFilter
from api.openapi import Responses, problems, spec_body
from api.schemas import AttemptList, DryRun, EventPage, Job, JobPage
from api.service import ServiceDep
from api.views import attempt_view, dry_run_view, event_view, job_path, job_view
from jobs import queries
from jobs.catalog import resolve
from jobs.catalog.memory import refuse_above
from jobs.lifecycle.submit import submit
from traind.errors import InvalidSpec
from traind.spec import JobSpec
from traind.spec_words import IDEMPOTENCY_KEY

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

INT64_MAX = 2**63 - 1


async def _one_key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=IDEMPOTENCY_KEY,
            description="Makes repeats safe: the same key with the same spec always returns the same job.",
            examples=["6f1c2f0e-5c0f-4f4e-9a57-0b1c8f3f9d11"],
        ),
    ] = None,
) -> str | None:
    """Raises InvalidParameter for several keys, because all but one would be ignored."""
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise InvalidParameter.named("idempotency-key", "may be given once only")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_one_key)]
DRY_RUN: Responses = {200: {"model": DryRun, "description": "With `dry_run`: the job could run; it was not made."}}
NOT_MODIFIED: Responses = {304: {"description": "Still the version that If-None-Match names"}}


class EventFilter(BaseModel):
    """Query of the record."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=INT64_MAX, description="Only events with a larger id")] = 0
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100


@router.post(
    "",
    status_code=202,
    response_model=Job,
    operation_id="submit_job",
    summary="Submit a job",
    response_description="The job was accepted and waits for a worker.",
    openapi_extra=spec_body(SPECS),
    responses=DRY_RUN
    | problems(
        "malformed-json",
        "incomplete-body",
        "request-timeout",
        "body-too-large",
        "unsupported-media-type",
        "invalid-spec",
        "idempotency-conflict",
        "invalid-parameter",
    ),
)
def submit_job(
    request: Request,
    caller: Writer,
    service: ServiceDep,
    *,
    body: JsonBody,
    response: Response,
    idempotency_key: IdempotencyKey,
    dry_run: Annotated[
        bool, Query(description="Check the spec without creating a job; no Idempotency-Key is used up.")
    ] = False,
) -> Job | Response:
    """The spec is checked completely before anything is stored: an accepted job can run."""
    spec = _spec(body)
    resolved = resolve(spec)
    refuse_above(service.settings.max_job_memory_bytes, spec, resolved)
    if dry_run:
        with service.engine.begin() as connection:
            waits = queries.would_wait_for(connection, spec, resolved)
        return JSONResponse(dry_run_view(spec, resolved, waits).model_dump(mode="json"))
    with service.transaction(caller) as connection:
        submitted = submit(
            connection, project_id=caller.project_id, spec=spec, resolved=resolved, idempotency_key=idempotency_key
        )
        job = queries.get_job(connection, caller.project_id, submitted.job_id)
        answer = job_view(job)  # before the commit: after it nothing may fail
    if submitted.created:
        service.ring(job.queue)
    tell(request, job_id=str(job.id), created=submitted.created)
    response.headers["Location"] = job_path(job.id)
    if not submitted.created:
        response.headers["Idempotent-Replayed"] = "true"
    return answer


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    responses=problems("invalid-parameter", "bad-cursor"),
)
def list_jobs(caller: Reader, service: ServiceDep, query: Annotated[JobFilter, Query()]) -> JobPage:
    with service.engine.begin() as connection:
        page = queries.list_jobs(
            connection,
            caller.project_id,
            query.filter(),
            cursor=query.cursor,
            limit=query.limit,
        )
    return JobPage(jobs=[job_view(job) for job in page.jobs], next_cursor=page.next_cursor)


@router.get(
    "/{job_id}",
    response_model=Job,
    operation_id="get_job",
    summary="Get a job",
    responses=NOT_MODIFIED | problems("not-found"),
)
def get_job(
    caller: Reader, service: ServiceDep, job_id: UUID, response: Response, if_none_match: IfNoneMatch = None
) -> Job | Response:
    """The ETag is the job's version: a poll with `If-None-Match` is cheap while nothing changes."""
    with service.engine.begin() as connection:
        job = queries.get_job(connection, caller.project_id, job_id)
    # What it waits for depends on the workers too, so it stands beside the version.
    version = str(job.version) if job.waiting_for is None else f"{job.version}-{job.waiting_for.reason}"
    return not_modified(if_none_match, version, response) or job_view(job)


@router.get(
    "/{job_id}/events",
    operation_id="list_job_events",
    summary="Events of a job, oldest first",
    responses=problems("not-found", "invalid-parameter"),
)
def list_job_events(
    caller: Reader, service: ServiceDep, job_id: UUID, query: Annotated[EventFilter, Query()]
) -> EventPage:
    with service.engine.begin() as connection:
        events = queries.events(connection, caller.project_id, job_id, after=query.after, limit=query.limit)
    more = len(events) == query.limit
    return EventPage(events=[event_view(event) for event in events], next_after=events[-1].id if more else None)


@router.get(
    "/{job_id}/attempts",
    operation_id="list_job_attempts",
    summary="The attempts of a job, with their logs",
    responses=problems("not-found"),
)
def list_job_attempts(caller: Reader, service: ServiceDep, job_id: UUID) -> AttemptList:
    with service.engine.begin() as connection:
        attempts = queries.attempts(connection, caller.project_id, job_id)
    return AttemptList(attempts=[attempt_view(attempt) for attempt in attempts])


def _spec(body: bytes) -> JobSpec:
    document = parse(body)
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidSpec.from_validation(error, document) from error
