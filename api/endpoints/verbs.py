"""The verbs of a job: cancel, pause, resume, retry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Writer
from api.body import no_body, no_input
from api.openapi import Responses, problems
from api.schemas import Job
from api.service import Service, ServiceDep
from api.views import job_view
from jobs import queries
from jobs.keys import Principal
from jobs.lifecycle.cancel import request_cancel
from jobs.lifecycle.pause import request_pause, resume
from jobs.lifecycle.retry import Start, retry
from jobs.queries import ShownState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

TOLD: Responses = {202: {"model": Job, "description": "It runs; its worker was told"}}
ON_THE_WAY = {ShownState.CANCELLING, ShownState.PAUSING}


class RetryQuery(BaseModel):
    """Query of a retry."""

    model_config = ConfigDict(extra="forbid")

    start: Annotated[
        Start,
        Field(
            alias="from",
            description="`checkpoint`: continue from the last one; `start`: train again from the first step",
        ),
    ] = "checkpoint"


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    responses=TOLD | problems("not-found", "state-conflict", "invalid-parameter"),
    dependencies=[Depends(no_input)],
)
def cancel_job(caller: Writer, service: ServiceDep, job_id: UUID, response: Response) -> Job:
    """A waiting job is cancelled at once; a running job is `cancelling` for a moment."""
    return _ask(service, response, caller, job_id, request_cancel)


@router.post(
    "/{job_id}/pause",
    operation_id="pause_job",
    summary="Pause a job",
    responses=TOLD | problems("not-found", "state-conflict", "invalid-parameter"),
    dependencies=[Depends(no_input)],
)
def pause_job(caller: Writer, service: ServiceDep, job_id: UUID, response: Response) -> Job:
    """A waiting job is paused at once; a running job is `pausing` until its checkpoint is complete."""
    return _ask(service, response, caller, job_id, request_pause)


@router.post(
    "/{job_id}/resume",
    operation_id="resume_job",
    summary="Resume a paused job",
    responses=problems("not-found", "state-conflict", "invalid-parameter"),
    dependencies=[Depends(no_input)],
)
def resume_job(caller: Writer, service: ServiceDep, job_id: UUID, response: Response) -> Job:
    """A paused job waits for a worker again; if a job is still `pausing`, the pause is withdrawn."""
    return _ask(service, response, caller, job_id, resume)


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    summary="Retry a failed or cancelled job",
    responses=problems("not-found", "state-conflict", "invalid-parameter"),
    dependencies=[Depends(no_body)],
)
def retry_job(
    caller: Writer, service: ServiceDep, job_id: UUID, response: Response, query: Annotated[RetryQuery, Query()]
) -> Job:
    """Resets the job's crash count. With `from=start`, its metrics no longer show points of earlier attempts."""
    return _ask(service, response, caller, job_id, partial(retry, start=query.start))


def _ask(service: Service, response: Response, caller: Principal, job_id: UUID, verb: Callable[..., ShownState]) -> Job:
    """The job after the verb. The worker concerned is notified after the commit."""
    with service.transaction(caller) as connection:
        state = verb(connection, project_id=caller.project_id, job_id=job_id)
        job = queries.get_job(connection, caller.project_id, job_id)
        answer = job_view(job)  # before the commit: after it nothing may fail
    if state is ShownState.QUEUED:
        service.ring(job.queue)
    elif state in ON_THE_WAY or state is ShownState.RUNNING:
        service.notify(job_id)
    response.status_code = 202 if state in ON_THE_WAY else 200
    return answer
